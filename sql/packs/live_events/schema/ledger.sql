-- Pack live_events: how money is booked, what an organization settles for itself, and what reconciliation has found.

-- One row per organization that wants something else than usual.
CREATE TABLE IF NOT EXISTS atlvs.settings (
    organization_id   uuid         NOT NULL,
    staffing_ratio    numeric(6,4) NOT NULL DEFAULT 0.02,
    home_jurisdiction text,
    input_tax_rate    numeric(6,4) NOT NULL DEFAULT 0,
    payroll_tax_rate  numeric(6,4) NOT NULL DEFAULT 0,
    version           bigint       NOT NULL DEFAULT 1,
    created_at        timestamptz  NOT NULL DEFAULT now(),
    updated_at        timestamptz  NOT NULL DEFAULT now(),
    CONSTRAINT settings_pkey PRIMARY KEY (organization_id),
    CONSTRAINT settings_rates_range CHECK (
        staffing_ratio BETWEEN 0 AND 10 AND input_tax_rate BETWEEN 0 AND 10 AND payroll_tax_rate BETWEEN 0 AND 10)
);
COMMENT ON TABLE atlvs.settings IS 'Pack live_events: What an organization settles for itself; without a row the defaults hold';
COMMENT ON COLUMN atlvs.settings.staffing_ratio IS 'Staff per guest that is expected (W43): 0.02 is one for fifty';
COMMENT ON COLUMN atlvs.settings.home_jurisdiction IS 'Where tax on purchases and payroll is owed (W24)';
COMMENT ON COLUMN atlvs.settings.input_tax_rate IS 'Share of tax on top of the net amount of purchases: 0.19 means that 119 have 19 in them';
COMMENT ON COLUMN atlvs.settings.payroll_tax_rate IS 'Share of gross pay that is owed on top of it';

-- Finds the accounts of codes, in their order, and makes the usual ones of an organization when one is missing.
CREATE OR REPLACE FUNCTION atlvs.account_ids(organization_id uuid, codes text[]) RETURNS uuid[]
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found uuid[];
BEGIN
    FOR attempt IN 1..2 LOOP
        SELECT array_agg(a.id ORDER BY c.n) INTO found
          FROM unnest(codes) WITH ORDINALITY AS c (code, n)
          JOIN atlvs.ledger_accounts a ON a.organization_id = account_ids.organization_id AND a.code = c.code;
        EXIT WHEN cardinality(found) = cardinality(codes) OR attempt = 2;
        -- Others who make them at the same time are waited for.
        INSERT INTO atlvs.ledger_accounts (organization_id, code, name, kind)
        SELECT account_ids.organization_id, u.code, u.name, u.kind
          FROM (VALUES ('1000', 'Bank', 'asset'),
                       ('1100', 'Ticket clearing', 'asset'),
                       ('1200', 'Accounts receivable', 'asset'),
                       ('2000', 'Accounts payable', 'liability'),
                       ('2100', 'Payroll payable', 'liability'),
                       ('2200', 'Sales tax payable', 'liability'),
                       ('2300', 'Accrued expenses', 'liability'),
                       ('4000', 'Ticket revenue', 'revenue'),
                       ('4100', 'Merchandise revenue', 'revenue'),
                       ('4200', 'Parking revenue', 'revenue'),
                       ('4300', 'Fee revenue', 'revenue'),
                       ('4400', 'Production revenue', 'revenue'),
                       ('5000', 'Production expenses', 'expense'),
                       ('5100', 'Payroll expenses', 'expense'),
                       ('5200', 'Marketing expenses', 'expense'),
                       ('5300', 'Payment provider fees', 'expense')) AS u (code, name, kind)
         ORDER BY u.code
        ON CONFLICT ON CONSTRAINT ledger_accounts_code_key DO NOTHING;
    END LOOP;
    IF cardinality(found) IS DISTINCT FROM cardinality(codes) THEN
        RAISE EXCEPTION 'an account of % is missing', array_to_string(codes, ', ')
            USING ERRCODE = 'undefined_object', HINT = 'Insert it into atlvs.ledger_accounts, or try again in READ COMMITTED.';
    END IF;
    RETURN found;
END
$$;
REVOKE ALL ON FUNCTION atlvs.account_ids(uuid, text[]) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.account_ids(uuid, text[]) IS 'Ids of accounts by their codes; makes the usual accounts of an organization on first use';

CREATE OR REPLACE FUNCTION atlvs.minor_digits(currency text) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN currency IN ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF') THEN 0
                WHEN currency IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') THEN 3
                WHEN currency IN ('CLF', 'UYW') THEN 4
                ELSE 2 END;
REVOKE ALL ON FUNCTION atlvs.minor_digits(text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.minor_digits(text) IS 'Decimal places of a currency';

CREATE OR REPLACE FUNCTION atlvs.local_day(organization_id uuid, at timestamptz) RETURNS date
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (local_day.at AT TIME ZONE COALESCE((SELECT o.timezone FROM usher.organizations o WHERE o.id = local_day.organization_id), 'UTC'))::date
$$;
REVOKE ALL ON FUNCTION atlvs.local_day(uuid, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.local_day(uuid, timestamptz) IS 'The day of a moment in the zone of an organization';

-- The one way into the ledger. Nothing is rounded here: who books has amounts in the currency's own decimal places, or is refused.
CREATE OR REPLACE FUNCTION atlvs.post_journal(
    organization_id uuid, project_id uuid, entry_on date, memo text, currency text, source_system text, source_ref text,
    codes text[], amounts numeric[]
) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org      CONSTANT uuid := organization_id;
    journal  CONSTANT uuid := usher.uuid_v7();
    digits   CONSTANT integer := atlvs.minor_digits(currency);
    accounts uuid[];
    amount   numeric;
    total    numeric := 0;
    fine     boolean := true;
    standing uuid;
BEGIN
    FOREACH amount IN ARRAY amounts LOOP
        total := total + amount;
        fine := fine AND amount = round(amount, digits);
    END LOOP;
    -- What is NULL makes all of it NULL.
    IF (total = 0 AND fine AND cardinality(codes) = cardinality(amounts)) IS NOT TRUE THEN
        RAISE EXCEPTION '% % cannot be booked', source_system, source_ref
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Lines are %s in %s, debits above 0 and credits below; together %s.',
                                  (SELECT string_agg(concat_ws(' ', l.code, l.amount), ', ') FROM unnest(codes, amounts) AS l (code, amount)), currency, total),
                  HINT = format('Debits and credits must be equal, each with at most %s decimal places.', digits);
    END IF;
    accounts := atlvs.account_ids(org, codes);
    -- What is 0 is no line: free tickets have a journal without entries.
    WITH j AS (
        INSERT INTO atlvs.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref)
        VALUES (org, journal, post_journal.project_id, post_journal.entry_on, post_journal.memo, post_journal.currency,
                post_journal.source_system, post_journal.source_ref)
        ON CONFLICT ON CONSTRAINT journals_source_key DO NOTHING
        RETURNING id)
    INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit, credit)
    SELECT org, j.id, l.line, l.account_id, GREATEST(l.amount, 0), GREATEST(-l.amount, 0)
      FROM j, unnest(accounts, amounts) WITH ORDINALITY AS l (account_id, amount, line)
     WHERE l.amount <> 0;
    IF FOUND THEN
        RETURN journal;
    END IF;
    SELECT j.id INTO standing
      FROM atlvs.journals j
     WHERE j.organization_id = org AND j.source_system = post_journal.source_system AND j.source_ref = post_journal.source_ref;
    -- Booked before: the same again is fine, anything else is another business event under an old name.
    IF standing IS DISTINCT FROM journal AND (
        SELECT j.currency = post_journal.currency
               AND NOT EXISTS (
                   SELECT FROM (SELECT e.account_id, sum(e.debit - e.credit) AS amount FROM atlvs.ledger_entries e
                                 WHERE e.organization_id = org AND e.journal_id = standing GROUP BY e.account_id) AS b
                     FULL JOIN (SELECT l.account_id, sum(l.amount) AS amount FROM unnest(accounts, amounts) AS l (account_id, amount)
                                 GROUP BY l.account_id HAVING sum(l.amount) <> 0) AS w
                       ON w.account_id = b.account_id AND w.amount = b.amount
                    WHERE (w.account_id IS NULL AND b.amount <> 0) OR b.account_id IS NULL)
          FROM atlvs.journals j WHERE j.organization_id = org AND j.id = standing) IS NOT TRUE
    THEN
        RAISE EXCEPTION '% % is booked already, with other amounts', source_system, source_ref
            USING ERRCODE = 'unique_violation', HINT = 'Reverse it and book it under another reference.';
    END IF;
    RETURN standing;
END
$$;
REVOKE ALL ON FUNCTION atlvs.post_journal(uuid, uuid, date, text, text, text, text, text[], numeric[]) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.post_journal(uuid, uuid, date, text, text, text, text, text[], numeric[]) IS
    'Books a balanced journal, once per source_system and source_ref: codes of accounts and their amounts, debits above 0, credits below; returns the journal';

-- The same for many at once: `of_journals` says of each line in which of them it is, from 1. A journal that cannot be booked, or that is
-- booked already, is given to the function for one.
CREATE OR REPLACE FUNCTION atlvs.post_journals(
    organization_id uuid, project_ids uuid[], entries_on date[], memos text[], currencies text[], source_system text, source_refs text[],
    of_journals integer[], codes text[], amounts numeric[]
) RETURNS uuid[]
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org      CONSTANT uuid := organization_id;
    journals uuid[] := ARRAY(SELECT usher.uuid_v7() FROM generate_subscripts(source_refs, 1));
    known    CONSTANT text[] := ARRAY(SELECT DISTINCT c.code FROM unnest(codes) AS c (code));
    accounts uuid[];
    others   integer[];
BEGIN
    SELECT array_agg(t.n) INTO others
      FROM (SELECT l.n, sum(l.amount) AS total, max(min_scale(l.amount)) AS digits, count(*) > count(l.amount) AS lacks
              FROM unnest(of_journals, amounts) AS l (n, amount) GROUP BY l.n) AS t
      JOIN unnest(currencies) WITH ORDINALITY AS c (currency, n) ON c.n = t.n
     WHERE (t.total = 0 AND t.digits <= atlvs.minor_digits(c.currency) AND NOT t.lacks) IS NOT TRUE;
    IF others IS NULL THEN
        accounts := atlvs.account_ids(org, known);
        WITH j AS (
            INSERT INTO atlvs.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref)
            SELECT org, w.id, w.project_id, w.entry_on, w.memo, w.currency, post_journals.source_system, w.source_ref
              FROM unnest(journals, project_ids, entries_on, memos, currencies, source_refs) AS w (id, project_id, entry_on, memo, currency, source_ref)
            ON CONFLICT ON CONSTRAINT journals_source_key DO NOTHING
            RETURNING id),
        e AS (
            INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit, credit)
            SELECT org, j.id, l.line, a.id, GREATEST(l.amount, 0), GREATEST(-l.amount, 0)
              FROM (SELECT x.n, x.code, x.amount, row_number() OVER (PARTITION BY x.n ORDER BY x.place) AS line
                      FROM unnest(of_journals, codes, amounts) WITH ORDINALITY AS x (n, code, amount, place)) AS l
              JOIN unnest(journals) WITH ORDINALITY AS w (id, n) ON w.n = l.n
              JOIN j ON j.id = w.id
              JOIN unnest(known, accounts) AS a (code, id) ON a.code = l.code
             WHERE l.amount <> 0)
        SELECT array_agg(w.n) INTO others FROM unnest(journals) WITH ORDINALITY AS w (id, n) WHERE NOT EXISTS (SELECT FROM j WHERE j.id = w.id);
    END IF;
    FOR k IN 1 .. COALESCE(cardinality(others), 0) LOOP
        journals[others[k]] := atlvs.post_journal(
            org, project_ids[others[k]], entries_on[others[k]], memos[others[k]], currencies[others[k]], source_system, source_refs[others[k]],
            ARRAY(SELECT l.code FROM unnest(of_journals, codes) WITH ORDINALITY AS l (n, code, place) WHERE l.n = others[k] ORDER BY l.place),
            ARRAY(SELECT l.amount FROM unnest(of_journals, amounts) WITH ORDINALITY AS l (n, amount, place) WHERE l.n = others[k] ORDER BY l.place));
    END LOOP;
    RETURN journals;
END
$$;
REVOKE ALL ON FUNCTION atlvs.post_journals(uuid, uuid[], date[], text[], text[], text, text[], integer[], text[], numeric[]) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.post_journals(uuid, uuid[], date[], text[], text[], text, text[], integer[], text[], numeric[]) IS
    'Books balanced journals together, each once per source_system and source_ref; returns them in their order';

CREATE OR REPLACE FUNCTION atlvs.reverse_journal(
    organization_id uuid, journal_id uuid, entry_on date, memo text, source_system text, source_ref text
) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    org     CONSTANT uuid := organization_id;
    journal CONSTANT uuid := usher.uuid_v7();
BEGIN
    WITH j AS (
        INSERT INTO atlvs.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref, reverses)
        SELECT org, journal, o.project_id, reverse_journal.entry_on, reverse_journal.memo, o.currency,
               reverse_journal.source_system, reverse_journal.source_ref, o.id
          FROM atlvs.journals o
         WHERE o.organization_id = org AND o.id = reverse_journal.journal_id
        ON CONFLICT (organization_id, reverses) WHERE reverses IS NOT NULL DO NOTHING
        RETURNING id)
    INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit, credit)
    SELECT org, j.id, e.line, e.account_id, e.credit, e.debit
      FROM j, atlvs.ledger_entries e
     WHERE e.organization_id = org AND e.journal_id = reverse_journal.journal_id;
    RETURN (SELECT j.id FROM atlvs.journals j WHERE j.organization_id = org AND j.reverses = reverse_journal.journal_id);
END
$$;
REVOKE ALL ON FUNCTION atlvs.reverse_journal(uuid, uuid, date, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.reverse_journal(uuid, uuid, date, text, text, text) IS
    'Books a journal back, once, as its mirror; returns the reversal, also if it was there before, and nothing for an unknown journal';

CREATE TABLE IF NOT EXISTS atlvs.reconciliation_runs (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    up_to           date        NOT NULL,
    checked         integer     NOT NULL,
    differences     integer     NOT NULL,
    status          text        NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reconciliation_runs_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT reconciliation_runs_up_to_key UNIQUE (organization_id, up_to),
    CONSTRAINT reconciliation_runs_status_known CHECK (status IN ('clean', 'differences'))
);
CREATE INDEX IF NOT EXISTS reconciliation_runs_status_idx ON atlvs.reconciliation_runs (organization_id, status);
COMMENT ON TABLE atlvs.reconciliation_runs IS 'Pack live_events: Comparisons of orders, ledger and payouts, one for each last day: a later one of the same day replaces it; written by the flow only';
COMMENT ON COLUMN atlvs.reconciliation_runs.up_to IS 'The last day that was looked at, in the zone of the organization';
COMMENT ON COLUMN atlvs.reconciliation_runs.checked IS 'How many pairs of figures were compared';

CREATE TABLE IF NOT EXISTS atlvs.reconciliation_items (
    organization_id uuid        NOT NULL,
    run_id          uuid        NOT NULL,
    line            integer     NOT NULL,
    kind            text        NOT NULL,
    event_ref       uuid,
    payout_ref      text,
    day             date,
    currency        char(3)     NOT NULL,
    orders_amount   numeric,
    ledger_amount   numeric,
    payout_amount   numeric,
    difference      numeric     NOT NULL,
    CONSTRAINT reconciliation_items_pkey PRIMARY KEY (organization_id, run_id, line),
    CONSTRAINT reconciliation_items_run_fkey FOREIGN KEY (organization_id, run_id)
        REFERENCES atlvs.reconciliation_runs (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT reconciliation_items_kind_known CHECK (kind IN ('event_day', 'payout', 'clearing', 'ledger'))
);
COMMENT ON TABLE atlvs.reconciliation_items IS 'Pack live_events: What did not agree in a run, by 0.01 or more; written by the flow only';
COMMENT ON COLUMN atlvs.reconciliation_items.kind IS
    'event_day: orders of an event and day against what is booked of them; payout: against its orders and its journal; clearing: the whole account against revenue and settlements; ledger: all debits against all credits';
COMMENT ON COLUMN atlvs.reconciliation_items.event_ref IS 'Id in gvteway.events';
