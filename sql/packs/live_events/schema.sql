-- Pack live_events: the tables of the three systems atlvs (business), compvss (production) and gvteway (guests).
--
-- Run by usher.install_pack(), which grants afterwards and adds the policy of the role the flows run as. May be run
-- again at any time. Plain PostgreSQL, no defaults from an extension, so that the tables outlive it.
--
-- Every key leads with organization_id. An id of a table in another schema is called ..._ref and has no foreign key:
-- the three systems can be separated. Ids of tables the pack does not have yet (contact_id) have none either.

-- A table of the same name that somebody else made is refused: CREATE TABLE IF NOT EXISTS would adopt it silently, and
-- the row level security below would close it to its owner's application. The pack's own tables say so in their comments.
DO $guard$
DECLARE
    foreign_tables text;
BEGIN
    SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname)
      INTO foreign_tables
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) IN (
               ('atlvs', 'deals'), ('atlvs', 'deal_status_changes'), ('atlvs', 'projects'), ('atlvs', 'project_codes'),
               ('atlvs', 'ledger_accounts'), ('atlvs', 'journals'), ('atlvs', 'ledger_entries'),
               ('compvss', 'productions'), ('gvteway', 'venues'), ('gvteway', 'events'),
               ('gvteway', 'orders'), ('gvteway', 'order_items'))
       AND COALESCE(obj_description(c.oid, 'pg_class'), '') NOT LIKE 'Pack live_events:%';
    IF foreign_tables IS NOT NULL THEN
        RAISE EXCEPTION 'the pack live_events did not make %', foreign_tables
            USING ERRCODE = 'duplicate_table',
                  HINT = 'Rename these tables or move them to another schema, then install the pack again.';
    END IF;
END
$guard$;

CREATE SCHEMA IF NOT EXISTS atlvs;
CREATE SCHEMA IF NOT EXISTS compvss;
CREATE SCHEMA IF NOT EXISTS gvteway;
COMMENT ON SCHEMA atlvs IS 'Pack live_events: deals, projects, ledger';
COMMENT ON SCHEMA compvss IS 'Pack live_events: productions';
COMMENT ON SCHEMA gvteway IS 'Pack live_events: what guests see';

---------------------------------------------------------------------------------------------------------------- atlvs

-- A deal may be saved in any state, also with a value below 0 or without a date: whether it is fit to become a project
-- is asked by the flow when it is won, so that the sales team's own UPDATE never fails for it.
CREATE TABLE IF NOT EXISTS atlvs.deals (
    organization_id     uuid        NOT NULL,
    id                  uuid        NOT NULL DEFAULT gen_random_uuid(),
    contact_id          uuid,
    title               text        NOT NULL,
    kind                text        NOT NULL DEFAULT 'event',
    status              text        NOT NULL DEFAULT 'inquiry',
    value               numeric(14,2),
    currency            char(3)     NOT NULL DEFAULT 'USD',
    event_date          date,
    venue_name          text,
    venue_timezone      text        NOT NULL DEFAULT 'UTC',
    expected_attendance integer,
    won_at              timestamptz,
    metadata            jsonb       NOT NULL DEFAULT '{}',
    version             bigint      NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deals_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT deals_kind_known CHECK (kind IN ('event', 'artist')),
    CONSTRAINT deals_status_known CHECK (status IN ('inquiry', 'qualified', 'proposal', 'won', 'lost')),
    CONSTRAINT deals_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS deals_status_idx ON atlvs.deals (organization_id, status);
COMMENT ON TABLE atlvs.deals IS 'Pack live_events: What is being sold. A deal that becomes won becomes a project, once.';
COMMENT ON COLUMN atlvs.deals.contact_id IS 'The client; contacts are not in the pack yet';
COMMENT ON COLUMN atlvs.deals.venue_timezone IS 'Zone in which the event date is a day, such as Europe/Berlin';
COMMENT ON COLUMN atlvs.deals.expected_attendance IS 'Becomes capacity and projected attendance of the production';
COMMENT ON COLUMN atlvs.deals.won_at IS 'When the deal was first won; filled in if left empty';
COMMENT ON COLUMN atlvs.deals.metadata IS
    'Carried to the project and the production; "lineup" (an array) reaches the event';

-- No foreign key: the trail stays when the deal goes.
CREATE TABLE IF NOT EXISTS atlvs.deal_status_changes (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    deal_id         uuid        NOT NULL,
    old_status      text,
    new_status      text        NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deal_status_changes_pkey PRIMARY KEY (organization_id, id)
);
CREATE INDEX IF NOT EXISTS deal_status_changes_deal_idx
    ON atlvs.deal_status_changes (organization_id, deal_id, changed_at);
COMMENT ON TABLE atlvs.deal_status_changes IS 'Pack live_events: One row per change of a deal''s status; written by the flow only';
COMMENT ON COLUMN atlvs.deal_status_changes.old_status IS 'Empty for the status a deal was entered with';

CREATE TABLE IF NOT EXISTS atlvs.projects (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    deal_id         uuid,
    code            text          NOT NULL,
    name            text          NOT NULL,
    phase           text          NOT NULL DEFAULT 'intake',
    health          text          NOT NULL DEFAULT 'green',
    budget_total    numeric(14,2) NOT NULL DEFAULT 0,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    starts_on       date,
    ends_on         date,
    closed_at       timestamptz,
    metadata        jsonb         NOT NULL DEFAULT '{}',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT projects_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT projects_deal_key UNIQUE (organization_id, deal_id),
    CONSTRAINT projects_code_key UNIQUE (organization_id, code),
    CONSTRAINT projects_deal_fkey FOREIGN KEY (organization_id, deal_id) REFERENCES atlvs.deals (organization_id, id),
    CONSTRAINT projects_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT projects_phase_known
        CHECK (phase IN ('intake', 'preproduction', 'in_production', 'post', 'closed', 'cancelled')),
    CONSTRAINT projects_health_known CHECK (health IN ('green', 'amber', 'red')),
    CONSTRAINT projects_budget_not_negative CHECK (budget_total >= 0),
    CONSTRAINT projects_currency_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT projects_ends_after_start CHECK (ends_on >= starts_on)
);
CREATE INDEX IF NOT EXISTS projects_phase_idx ON atlvs.projects (organization_id, phase);
COMMENT ON TABLE atlvs.projects IS 'Pack live_events: The business side of a job: budget and dates. At most one per deal.';
COMMENT ON COLUMN atlvs.projects.code IS 'P-<year>-<number>, counted per organization and year of the win';
COMMENT ON COLUMN atlvs.projects.phase IS 'Follows the status of the production (W9), until it is closed';

-- One row per organization and year. reserved_* say for which statement the last numbers were taken.
CREATE TABLE IF NOT EXISTS atlvs.project_codes (
    organization_id uuid    NOT NULL,
    year            integer NOT NULL,
    last_number     bigint  NOT NULL,
    reserved_count  bigint  NOT NULL,
    reserved_by     uuid    NOT NULL,
    reserved_in     xid8    NOT NULL,
    CONSTRAINT project_codes_pkey PRIMARY KEY (organization_id, year)
);
COMMENT ON TABLE atlvs.project_codes IS 'Pack live_events: Counter behind projects.code; written by atlvs.project_code() only';

-- A number per row from one counter row would be quadratic when 10,000 deals are won in one statement (each update
-- leaves a version behind that the next has to step over). So the first call of a statement takes `total` numbers,
-- and every call finds its own by `nth`. Which call is the first is not assumed: a statement is known by its
-- transaction and by `batch`, the same id for all its rows. The row lock lasts to the end of the transaction, so
-- there are no doubles, and a statement that fails gives its numbers back.
CREATE OR REPLACE FUNCTION atlvs.project_code(
    organization_id uuid, year integer, nth bigint, total bigint, batch uuid
) RETURNS text
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix CONSTANT text := 'P-' || project_code.year || '-';
    last   bigint;
BEGIN
    SELECT c.last_number INTO last
      FROM atlvs.project_codes c
     WHERE c.organization_id = project_code.organization_id
       AND c.year = project_code.year
       AND c.reserved_by = batch
       AND c.reserved_count = total
       AND c.reserved_in = pg_current_xact_id();

    IF NOT FOUND THEN
        INSERT INTO atlvs.project_codes AS c
               (organization_id, year, last_number, reserved_count, reserved_by, reserved_in)
        VALUES (project_code.organization_id, project_code.year, total, total, batch, pg_current_xact_id())
        ON CONFLICT ON CONSTRAINT project_codes_pkey DO UPDATE
           SET last_number = c.last_number + excluded.last_number,
               reserved_count = excluded.reserved_count,
               reserved_by = excluded.reserved_by,
               reserved_in = excluded.reserved_in
        RETURNING c.last_number INTO last;

        -- Somebody gave a project one of these codes by hand, or brought projects along from elsewhere: go on after the
        -- highest of the year, or every win from here on would meet the same code.
        IF EXISTS (
            SELECT FROM atlvs.projects p
             WHERE p.organization_id = project_code.organization_id
               AND p.code = ANY (ARRAY(
                       SELECT prefix || lpad(n::text, greatest(5, length(n::text)), '0')
                         FROM generate_series(last - total + 1, last) n))
        ) THEN
            UPDATE atlvs.project_codes c
               SET last_number = total + (
                       SELECT max(substr(p.code, length(prefix) + 1)::bigint)
                         FROM atlvs.projects p
                        WHERE p.organization_id = project_code.organization_id
                          AND p.code ~ ('^' || prefix || '[0-9]{5,15}$'))
             WHERE c.organization_id = project_code.organization_id
               AND c.year = project_code.year
            RETURNING c.last_number INTO last;
        END IF;
    END IF;

    last := last - total + nth;
    RETURN prefix || lpad(last::text, greatest(5, length(last::text)), '0');
END
$$;
REVOKE ALL ON FUNCTION atlvs.project_code(uuid, integer, bigint, bigint, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.project_code(uuid, integer, bigint, bigint, uuid) IS
    'Code of the nth of total new projects of an organization and year in one statement; batch is one id for all';

CREATE OR REPLACE FUNCTION atlvs.stamp_won_deal() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.won_at := now();
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION atlvs.stamp_won_deal() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.stamp_won_deal() IS 'Trigger: fills in when a deal was won, unless the writer says when';

CREATE OR REPLACE TRIGGER stamp_won_deal
    BEFORE INSERT OR UPDATE ON atlvs.deals
    FOR EACH ROW WHEN (NEW.status = 'won' AND NEW.won_at IS NULL)
    EXECUTE FUNCTION atlvs.stamp_won_deal();

-- The ledger. Amounts are plain numeric, because a currency may have none, two, three or four minor digits; the ranges
-- keep out NaN and infinity, which are greater than every number.
CREATE TABLE IF NOT EXISTS atlvs.ledger_accounts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    code            text        NOT NULL,
    name            text        NOT NULL,
    kind            text        NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ledger_accounts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT ledger_accounts_code_key UNIQUE (organization_id, code),
    CONSTRAINT ledger_accounts_code_given CHECK (btrim(code) <> ''),
    CONSTRAINT ledger_accounts_kind_known CHECK (kind IN ('asset', 'liability', 'equity', 'revenue', 'expense'))
);
COMMENT ON TABLE atlvs.ledger_accounts IS 'Pack live_events: Accounts; those that booking needs are made when it first needs them';

CREATE TABLE IF NOT EXISTS atlvs.journals (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    project_id      uuid,
    entry_on        date        NOT NULL,
    memo            text        NOT NULL,
    currency        char(3)     NOT NULL,
    source_system   text        NOT NULL,
    source_ref      text        NOT NULL,
    reverses        uuid,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT journals_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT journals_source_key UNIQUE (organization_id, source_system, source_ref),
    CONSTRAINT journals_project_fkey FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
    CONSTRAINT journals_reverses_fkey FOREIGN KEY (organization_id, reverses) REFERENCES atlvs.journals (organization_id, id),
    CONSTRAINT journals_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE UNIQUE INDEX IF NOT EXISTS journals_reversed_once ON atlvs.journals (organization_id, reverses) WHERE reverses IS NOT NULL;
CREATE INDEX IF NOT EXISTS journals_project_idx ON atlvs.journals (organization_id, project_id);
CREATE INDEX IF NOT EXISTS journals_entry_on_idx ON atlvs.journals (organization_id, entry_on);
COMMENT ON TABLE atlvs.journals IS 'Pack live_events: One business event in the ledger, with its entries; never changed, only reversed';
COMMENT ON COLUMN atlvs.journals.entry_on IS 'The day in the zone of the organization';
COMMENT ON COLUMN atlvs.journals.source_ref IS 'What was booked, in source_system: for ticket_revenue the id in usher.ticket_revenue_ingestions';

CREATE TABLE IF NOT EXISTS atlvs.ledger_entries (
    organization_id uuid     NOT NULL,
    journal_id      uuid     NOT NULL,
    line            smallint NOT NULL,
    account_id      uuid     NOT NULL,
    debit           numeric  NOT NULL DEFAULT 0,
    credit          numeric  NOT NULL DEFAULT 0,
    CONSTRAINT ledger_entries_pkey PRIMARY KEY (organization_id, journal_id, line),
    CONSTRAINT ledger_entries_journal_fkey FOREIGN KEY (organization_id, journal_id) REFERENCES atlvs.journals (organization_id, id),
    CONSTRAINT ledger_entries_account_fkey FOREIGN KEY (organization_id, account_id) REFERENCES atlvs.ledger_accounts (organization_id, id),
    CONSTRAINT ledger_entries_one_side
        CHECK (debit >= 0 AND credit >= 0 AND debit < 1e15 AND credit < 1e15 AND (debit > 0) <> (credit > 0))
);
CREATE INDEX IF NOT EXISTS ledger_entries_account_idx ON atlvs.ledger_entries (organization_id, account_id);
COMMENT ON TABLE atlvs.ledger_entries IS 'Pack live_events: Debits and credits; all entries of a journal are inserted by one statement, and balance';

-- Once per statement, over the journals that it touched. A deferred trigger would run at COMMIT with the rights of whoever
-- commits, and per row.
CREATE OR REPLACE FUNCTION atlvs.check_balance() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    off record;
BEGIN
    SELECT e.journal_id, sum(e.debit) AS debit, sum(e.credit) AS credit INTO off
      FROM (SELECT DISTINCT i.organization_id, i.journal_id FROM inserted i) AS touched
      JOIN atlvs.ledger_entries e ON e.organization_id = touched.organization_id AND e.journal_id = touched.journal_id
     GROUP BY e.organization_id, e.journal_id
    HAVING sum(e.debit) <> sum(e.credit)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'journal % does not balance', off.journal_id
            USING ERRCODE = 'check_violation',
                  DETAIL = format('Debits are %s, credits are %s.', off.debit, off.credit),
                  HINT = 'Insert all entries of a journal by one statement, with equal sums.';
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION atlvs.check_balance() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.check_balance() IS 'Trigger: the journals of a statement''s new entries balance';
CREATE OR REPLACE TRIGGER check_balance AFTER INSERT ON atlvs.ledger_entries
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION atlvs.check_balance();

CREATE OR REPLACE FUNCTION atlvs.keep_ledger() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only added to: %.% takes no %', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Book a reversal; ticket revenue has usher.reverse_ticket_revenue(ingestion, reason).';
END
$$;
REVOKE ALL ON FUNCTION atlvs.keep_ledger() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.keep_ledger() IS 'Trigger: what is booked stays';
CREATE OR REPLACE TRIGGER keep_ledger BEFORE UPDATE OR DELETE OR TRUNCATE ON atlvs.journals
    FOR EACH STATEMENT EXECUTE FUNCTION atlvs.keep_ledger();
CREATE OR REPLACE TRIGGER keep_ledger BEFORE UPDATE OR DELETE OR TRUNCATE ON atlvs.ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION atlvs.keep_ledger();

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
          FROM (VALUES ('1100', 'Ticket clearing', 'asset'),
                       ('2200', 'Sales tax payable', 'liability'),
                       ('4000', 'Ticket revenue', 'revenue'),
                       ('4100', 'Merchandise revenue', 'revenue'),
                       ('4200', 'Parking revenue', 'revenue'),
                       ('4300', 'Fee revenue', 'revenue')) AS u (code, name, kind)
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

-------------------------------------------------------------------------------------------------------------- compvss

CREATE TABLE IF NOT EXISTS compvss.productions (
    organization_id      uuid        NOT NULL,
    id                   uuid        NOT NULL DEFAULT gen_random_uuid(),
    project_ref          uuid,
    code                 text,
    name                 text        NOT NULL,
    status               text        NOT NULL DEFAULT 'planning',
    venue_name           text,
    timezone             text        NOT NULL DEFAULT 'UTC',
    starts_at            timestamptz,
    ends_at              timestamptz,
    capacity             integer,
    projected_attendance integer,
    tickets_sold         integer     NOT NULL DEFAULT 0,
    sell_through         numeric(6,4),
    staffing_target      integer,
    metadata             jsonb       NOT NULL DEFAULT '{}',
    version              bigint      NOT NULL DEFAULT 1,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT productions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT productions_project_key UNIQUE (organization_id, project_ref),
    CONSTRAINT productions_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT productions_status_known
        CHECK (status IN ('planning', 'advancing', 'load_in', 'show', 'load_out', 'wrapped', 'cancelled')),
    CONSTRAINT productions_counts_not_negative
        CHECK (capacity >= 0 AND projected_attendance >= 0 AND tickets_sold >= 0 AND staffing_target >= 0),
    CONSTRAINT productions_ends_after_start CHECK (ends_at >= starts_at)
);
CREATE INDEX IF NOT EXISTS productions_status_idx ON compvss.productions (organization_id, status);
COMMENT ON TABLE compvss.productions IS 'Pack live_events: The job on site. At most one per project.';
COMMENT ON COLUMN compvss.productions.project_ref IS 'Id in atlvs.projects; empty for a production without a project';
COMMENT ON COLUMN compvss.productions.timezone IS 'Zone of the venue';
COMMENT ON COLUMN compvss.productions.starts_at IS 'At first the start of the event day in the zone of the venue';

-- Part of the row, so that it is right whoever changes the count or the capacity.
CREATE OR REPLACE FUNCTION compvss.derive_sell_through() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- LEAST passes over NULL.
    NEW.sell_through := CASE WHEN NEW.capacity > 0 THEN LEAST(round(NEW.tickets_sold::numeric / NEW.capacity, 4), 99.9999) END;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION compvss.derive_sell_through() FROM PUBLIC;
COMMENT ON FUNCTION compvss.derive_sell_through() IS 'Trigger: sell-through is tickets sold by capacity, empty without a capacity';
CREATE OR REPLACE TRIGGER derive_sell_through BEFORE INSERT OR UPDATE ON compvss.productions
    FOR EACH ROW EXECUTE FUNCTION compvss.derive_sell_through();

-- Counted anew every time: repeats, reversals and the order in which they arrive do not matter.
CREATE OR REPLACE FUNCTION compvss.tickets_sold(organization_id uuid, project_id uuid) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(sum(i.ticket_count), 0)::integer
      FROM usher.ticket_revenue_ingestions i
     WHERE i.organization_id = tickets_sold.organization_id AND i.project_id = tickets_sold.project_id
$$;
REVOKE ALL ON FUNCTION compvss.tickets_sold(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.tickets_sold(uuid, uuid) IS 'Tickets of all ticket revenue of a project, reversals taken off';

-------------------------------------------------------------------------------------------------------------- gvteway

CREATE TABLE IF NOT EXISTS gvteway.venues (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    name            text        NOT NULL,
    address         text,
    timezone        text        NOT NULL DEFAULT 'UTC',
    max_capacity    integer,
    status          text        NOT NULL DEFAULT 'active',
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT venues_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT venues_name_key UNIQUE (organization_id, name),
    CONSTRAINT venues_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT venues_status_known CHECK (status IN ('active', 'closed')),
    CONSTRAINT venues_max_capacity_not_negative CHECK (max_capacity >= 0)
);
CREATE INDEX IF NOT EXISTS venues_status_idx ON gvteway.venues (organization_id, status);
COMMENT ON TABLE gvteway.venues IS 'Pack live_events: Places guests know';

CREATE TABLE IF NOT EXISTS gvteway.events (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_ref  uuid,
    venue_id        uuid,
    venue_name      text,
    slug            text        NOT NULL,
    title           text        NOT NULL,
    status          text        NOT NULL DEFAULT 'draft',
    timezone        text        NOT NULL DEFAULT 'UTC',
    starts_at       timestamptz,
    ends_at         timestamptz,
    doors_at        timestamptz,
    curfew_at       timestamptz,
    capacity        integer,
    lineup          jsonb       NOT NULL DEFAULT '[]',
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT events_production_key UNIQUE (organization_id, production_ref),
    CONSTRAINT events_slug_key UNIQUE (organization_id, slug),
    CONSTRAINT events_venue_fkey FOREIGN KEY (organization_id, venue_id)
        REFERENCES gvteway.venues (organization_id, id) ON DELETE SET NULL (venue_id),
    CONSTRAINT events_title_given CHECK (btrim(title) <> ''),
    CONSTRAINT events_status_known
        CHECK (status IN ('draft', 'published', 'on_sale', 'live', 'delayed', 'ended', 'cancelled')),
    CONSTRAINT events_capacity_not_negative CHECK (capacity >= 0),
    CONSTRAINT events_ends_after_start CHECK (ends_at >= starts_at),
    CONSTRAINT events_lineup_is_array CHECK (jsonb_typeof(lineup) = 'array')
);
CREATE INDEX IF NOT EXISTS events_status_idx ON gvteway.events (organization_id, status);
CREATE INDEX IF NOT EXISTS events_venue_idx ON gvteway.events (organization_id, venue_id);
COMMENT ON TABLE gvteway.events IS 'Pack live_events: What guests can come to. At most one per production.';
COMMENT ON COLUMN gvteway.events.production_ref IS 'Id in compvss.productions; empty for an event without a production';
COMMENT ON COLUMN gvteway.events.venue_name IS 'As the production says it';
COMMENT ON COLUMN gvteway.events.venue_id IS 'The venue, once somebody has chosen it; no flow writes it';

-- The tail keeps slugs apart where names are equal. It is the end of the id and not its beginning, which is a clock in
-- a uuid of version 7 and the same for rows made together. Accents are taken off where the encoding knows how; what is
-- still not a-z or 0-9 becomes a hyphen, so a name in another script leaves only the tail.
CREATE OR REPLACE FUNCTION gvteway.event_slug(title text, production_ref uuid) RETURNS text
    LANGUAGE sql STABLE
    RETURN concat_ws('-',
        NULLIF(btrim(left(regexp_replace(
            lower(CASE WHEN getdatabaseencoding() = 'UTF8'
                       THEN regexp_replace(normalize(title, NFKD), '[\u0300-\u036f]', '', 'g')
                       ELSE title END),
            '[^a-z0-9]+', '-', 'g'), 60), '-'), ''),
        right(production_ref::text, 12));
REVOKE ALL ON FUNCTION gvteway.event_slug(text, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.event_slug(text, uuid) IS
    'Address of an event: its title in a-z, 0-9 and hyphens, and the end of the production''s id';

-- Amounts are plain numeric, as in the ledger: a currency may have more than two minor digits.
CREATE TABLE IF NOT EXISTS gvteway.orders (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    guest_ref       uuid,
    number          text        NOT NULL,
    status          text        NOT NULL DEFAULT 'pending',
    subtotal        numeric     NOT NULL DEFAULT 0,
    fees            numeric     NOT NULL DEFAULT 0,
    tax             numeric     NOT NULL DEFAULT 0,
    total           numeric     NOT NULL DEFAULT 0,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    jurisdiction    text,
    paid_at         timestamptz,
    refunded_at     timestamptz,
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT orders_number_key UNIQUE (organization_id, number),
    CONSTRAINT orders_event_fkey FOREIGN KEY (organization_id, event_id) REFERENCES gvteway.events (organization_id, id),
    CONSTRAINT orders_number_given CHECK (btrim(number) <> ''),
    CONSTRAINT orders_status_known CHECK (status IN ('pending', 'paid', 'refunded', 'cancelled')),
    CONSTRAINT orders_amounts_range CHECK (
        subtotal >= 0 AND fees >= 0 AND tax >= 0 AND total >= 0 AND subtotal < 1e15 AND fees < 1e15 AND tax < 1e15 AND total < 1e15),
    CONSTRAINT orders_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS orders_status_idx ON gvteway.orders (organization_id, status);
CREATE INDEX IF NOT EXISTS orders_event_idx ON gvteway.orders (organization_id, event_id);
COMMENT ON TABLE gvteway.orders IS 'Pack live_events: What a guest buys at once. A paid order becomes ticket revenue, once.';
COMMENT ON COLUMN gvteway.orders.guest_ref IS 'The guest; guests are not in the pack yet';
COMMENT ON COLUMN gvteway.orders.subtotal IS 'Sum of the items';
COMMENT ON COLUMN gvteway.orders.fees IS 'What the guest pays on top for service; the payment provider''s own charges are not here';
COMMENT ON COLUMN gvteway.orders.total IS 'subtotal + fees + tax';
COMMENT ON COLUMN gvteway.orders.jurisdiction IS 'Where the tax is owed';

CREATE TABLE IF NOT EXISTS gvteway.order_items (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    order_id        uuid        NOT NULL,
    kind            text        NOT NULL DEFAULT 'ticket',
    sku             text,
    qty             integer     NOT NULL DEFAULT 1,
    unit_price      numeric     NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_items_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT order_items_order_fkey FOREIGN KEY (organization_id, order_id)
        REFERENCES gvteway.orders (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT order_items_kind_known CHECK (kind IN ('ticket', 'merch', 'parking')),
    CONSTRAINT order_items_qty_positive CHECK (qty > 0),
    CONSTRAINT order_items_price_range CHECK (unit_price >= 0 AND unit_price < 1e15)
);
CREATE INDEX IF NOT EXISTS order_items_order_idx ON gvteway.order_items (organization_id, order_id);
COMMENT ON TABLE gvteway.order_items IS 'Pack live_events: The lines of an order';

-- What has been booked stays as it was booked: a paid order can be refunded, and a refunded one stays refunded.
CREATE OR REPLACE FUNCTION gvteway.keep_paid_order() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.status IN ('paid', 'refunded') THEN
        IF NEW.status <> OLD.status AND (OLD.status, NEW.status) <> ('paid', 'refunded') THEN
            RAISE EXCEPTION 'order % is % and cannot become %', OLD.number, OLD.status, NEW.status
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'A paid order can be refunded; a new payment is a new order.';
        END IF;
        IF (NEW.event_id, NEW.subtotal, NEW.fees, NEW.tax, NEW.total, NEW.currency)
           IS DISTINCT FROM (OLD.event_id, OLD.subtotal, OLD.fees, OLD.tax, OLD.total, OLD.currency) THEN
            RAISE EXCEPTION 'order % is % and its event and amounts are booked', OLD.number, OLD.status
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Refund the order and make a new one.';
        END IF;
    END IF;
    IF NEW.status = 'paid' THEN
        NEW.paid_at := COALESCE(NEW.paid_at, now());
    ELSIF NEW.status = 'refunded' THEN
        NEW.refunded_at := COALESCE(NEW.refunded_at, now());
    END IF;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION gvteway.keep_paid_order() FROM PUBLIC;
COMMENT ON FUNCTION gvteway.keep_paid_order() IS 'Trigger: a paid order keeps its amounts and can only be refunded; fills in paid_at and refunded_at';
CREATE OR REPLACE TRIGGER keep_paid_order BEFORE UPDATE ON gvteway.orders
    FOR EACH ROW EXECUTE FUNCTION gvteway.keep_paid_order();

CREATE OR REPLACE FUNCTION gvteway.stamp_paid_order() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.paid_at := now();
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION gvteway.stamp_paid_order() FROM PUBLIC;
COMMENT ON FUNCTION gvteway.stamp_paid_order() IS 'Trigger: fills in when an order that is entered as paid was paid';
CREATE OR REPLACE TRIGGER stamp_paid_order BEFORE INSERT ON gvteway.orders
    FOR EACH ROW WHEN (NEW.status = 'paid' AND NEW.paid_at IS NULL) EXECUTE FUNCTION gvteway.stamp_paid_order();

-- The one way from an order into ticket revenue. The order's id is the key, so it may be called again.
CREATE OR REPLACE FUNCTION gvteway.ingest_order(organization uuid, order_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sold      record;
    items     record;
    ingestion uuid;
BEGIN
    SELECT o.number, o.subtotal, o.fees, o.tax, o.total, o.currency, e.slug INTO sold
      FROM gvteway.orders o
      JOIN gvteway.events e ON e.organization_id = o.organization_id AND e.id = o.event_id
     WHERE o.organization_id = ingest_order.organization AND o.id = ingest_order.order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'order % does not exist', order_id
            USING ERRCODE = 'undefined_object', HINT = 'It was deleted after it was paid; reverse its revenue by hand if there is any.';
    END IF;

    SELECT COALESCE(sum(i.qty) FILTER (WHERE i.kind = 'ticket'), 0) AS tickets,
           COALESCE(sum(i.qty * i.unit_price), 0) AS worth,
           jsonb_strip_nulls(jsonb_build_object(
               'tickets', sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'ticket'),
               'merch', sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'merch'),
               'parking', sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'parking'),
               'fees', NULLIF(sold.fees, 0),
               'tax', NULLIF(sold.tax, 0))) AS breakdown
      INTO items
      FROM gvteway.order_items i
     WHERE i.organization_id = ingest_order.organization AND i.order_id = ingest_order.order_id;
    IF items.worth <> sold.subtotal OR sold.subtotal + sold.fees + sold.tax <> sold.total THEN
        RAISE EXCEPTION 'the amounts of order % do not add up', sold.number
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Items are worth %s, subtotal %s, fees %s, tax %s, total %s.',
                                  items.worth, sold.subtotal, sold.fees, sold.tax, sold.total),
                  HINT = 'subtotal is the sum of the items, total is subtotal + fees + tax: correct the items and run the job again, or refund the order.';
    END IF;

    SELECT i.id INTO ingestion
      FROM usher.ingest_ticket_revenue(
               organization    => ingest_order.organization::text,
               project_code    => NULL,
               event_code      => sold.slug,
               ticket_count    => items.tickets::integer,
               gross_amount    => sold.total,
               currency        => sold.currency::text,
               source          => 'gvteway',
               payload         => jsonb_build_object('order', sold.number, 'order_id', ingest_order.order_id, 'breakdown', items.breakdown),
               idempotency_key => 'order:' || ingest_order.order_id) AS i;
    RETURN ingestion;
END
$$;
REVOKE ALL ON FUNCTION gvteway.ingest_order(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.ingest_order(uuid, uuid) IS 'Takes a paid order in as ticket revenue, once; returns the ingestion';

CREATE OR REPLACE FUNCTION gvteway.reverse_order(organization uuid, order_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ingestion uuid;
BEGIN
    -- Without the event's present address and the items: only what was taken in counts, if it was.
    SELECT i.id INTO ingestion
      FROM usher.ticket_revenue_ingestions i
     WHERE i.organization_id = reverse_order.organization AND i.idempotency_key = 'order:' || reverse_order.order_id;
    IF NOT FOUND THEN
        ingestion := gvteway.ingest_order(reverse_order.organization, reverse_order.order_id);
    END IF;
    RETURN (SELECT r.id FROM usher.reverse_ticket_revenue(ingestion, 'order refunded') AS r);
END
$$;
REVOKE ALL ON FUNCTION gvteway.reverse_order(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.reverse_order(uuid, uuid) IS 'Reverses the ticket revenue of a refunded order, once, taking it in first where need be; returns the reversal';

----------------------------------------------------------------------------------------------------- ticket revenue

-- What usher.ingest_ticket_revenue() calls, as the pack's role: which project do the codes mean, and how is it booked.
CREATE OR REPLACE FUNCTION atlvs.resolve_ticket_revenue(organization_id uuid, project_code text, event_code text) RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    project  uuid;
    of_event record;
BEGIN
    IF project_code IS NOT NULL THEN
        SELECT p.id INTO project
          FROM atlvs.projects p
         WHERE p.organization_id = resolve_ticket_revenue.organization_id AND p.code = resolve_ticket_revenue.project_code;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    IF event_code IS NOT NULL THEN
        -- A code that is no event's slug is the seller's own and says nothing about the project.
        SELECT p.id, p.code INTO of_event
          FROM gvteway.events e
          JOIN compvss.productions c ON c.organization_id = e.organization_id AND c.id = e.production_ref
          JOIN atlvs.projects p ON p.organization_id = c.organization_id AND p.id = c.project_ref
         WHERE e.organization_id = resolve_ticket_revenue.organization_id AND e.slug = resolve_ticket_revenue.event_code;
        IF FOUND AND project <> of_event.id THEN
            RAISE EXCEPTION 'event "%" belongs to project "%", not to "%"', event_code, of_event.code, project_code
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = format('Give project_code => %L, or NULL to take the project from the event.', of_event.code);
        ELSIF FOUND THEN
            project := of_event.id;
        END IF;
    END IF;
    RETURN project;
END
$$;
REVOKE ALL ON FUNCTION atlvs.resolve_ticket_revenue(uuid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.resolve_ticket_revenue(uuid, text, text) IS
    'The project of a project code and an event''s slug, which must agree; empty for an unknown project code';

CREATE OR REPLACE FUNCTION atlvs.book_ticket_revenue(
    organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid, event_code text, ticket_count integer,
    gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz
) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org       CONSTANT uuid := organization_id;
    journal   CONSTANT uuid := usher.uuid_v7();
    breakdown CONSTANT jsonb := NULLIF(payload -> 'breakdown', 'null');
    original  uuid;
    codes     text[];
    credits   numeric[];
    accounts  uuid[];
    wrong     text;
BEGIN
    IF reverses IS NOT NULL THEN
        SELECT j.id INTO original
          FROM atlvs.journals j
         WHERE j.organization_id = org AND j.source_system = 'ticket_revenue' AND j.source_ref = book_ticket_revenue.reverses::text;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'ticket revenue % has no journal that could be reversed', reverses
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'It was booked by functions that are no longer bound: reverse it where it was booked.';
        END IF;
    ELSIF breakdown IS NULL THEN
        codes := ARRAY['4000'];
        credits := ARRAY[gross_amount];
    ELSE
        IF jsonb_typeof(breakdown) <> 'object' THEN
            RAISE EXCEPTION 'payload.breakdown is not a JSON object'
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Give amounts by part: {"tickets": 90.00, "merch": 20.00, "parking": 10.00, "fees": 4.00, "tax": 8.00}.';
        END IF;
        SELECT string_agg(format('"%s": %s', b.key, COALESCE(b.value, 'null')), ', ' ORDER BY b.key) INTO wrong
          FROM jsonb_each_text(breakdown) AS b
         WHERE b.key NOT IN ('tickets', 'merch', 'parking', 'fees', 'tax') OR b.value IS NULL
            -- The parts have at most the digits of the whole, which has those of its currency.
            OR b.value !~ format('^[0-9]{1,15}(\.[0-9]{0,%s}0*)?$', scale(gross_amount));
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION 'payload.breakdown has parts that cannot be booked: %', wrong
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = format('The parts are tickets, merch, parking, fees and tax, each an amount of at least 0 with at most %s decimal places.',
                                    scale(gross_amount));
        END IF;
        SELECT array_agg(a.code ORDER BY a.code), array_agg(round(b.value::numeric, scale(gross_amount)) ORDER BY a.code) INTO codes, credits
          FROM jsonb_each_text(breakdown) AS b
          JOIN (VALUES ('tickets', '4000'), ('merch', '4100'), ('parking', '4200'), ('fees', '4300'), ('tax', '2200')) AS a (part, code)
            ON a.part = b.key;
        IF COALESCE((SELECT sum(c) FROM unnest(credits) AS c), 0) IS DISTINCT FROM gross_amount THEN
            RAISE EXCEPTION 'payload.breakdown does not sum up to gross_amount'
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = format('Its parts are worth %s, the sale %s.', COALESCE((SELECT sum(c) FROM unnest(credits) AS c), 0), gross_amount),
                      HINT = 'gross_amount is what the guest paid: tickets, merch, parking, fees and tax together.';
        END IF;
    END IF;

    IF original IS NOT NULL THEN
        WITH j AS (
            INSERT INTO atlvs.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref, reverses)
            SELECT org, journal, book_ticket_revenue.project_id,
                   (book_ticket_revenue.ingested_at AT TIME ZONE COALESCE((SELECT o.timezone FROM usher.organizations o WHERE o.id = org), 'UTC'))::date,
                   concat_ws(' ', 'Reversal of ticket revenue', book_ticket_revenue.event_code), book_ticket_revenue.currency,
                   'ticket_revenue', book_ticket_revenue.ingestion_id::text, original)
        INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit, credit)
        SELECT org, journal, e.line, e.account_id, e.credit, e.debit
          FROM atlvs.ledger_entries e
         WHERE e.organization_id = org AND e.journal_id = original;
    ELSE
        accounts := atlvs.account_ids(org, array_prepend('1100', codes));
        WITH j AS (
            INSERT INTO atlvs.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref)
            SELECT org, journal, book_ticket_revenue.project_id,
                   (book_ticket_revenue.ingested_at AT TIME ZONE COALESCE((SELECT o.timezone FROM usher.organizations o WHERE o.id = org), 'UTC'))::date,
                   concat_ws(' ', 'Ticket revenue', book_ticket_revenue.event_code), book_ticket_revenue.currency,
                   'ticket_revenue', book_ticket_revenue.ingestion_id::text)
        -- The first line is the debit. What is 0 is no line: free tickets have a journal without entries.
        INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit, credit)
        SELECT org, journal, l.line, l.account_id, CASE WHEN l.line = 1 THEN l.amount ELSE 0 END, CASE WHEN l.line = 1 THEN 0 ELSE l.amount END
          FROM unnest(accounts, array_prepend(gross_amount, credits)) WITH ORDINALITY AS l (account_id, amount, line)
         WHERE l.amount > 0;
    END IF;
    RETURN journal;
END
$$;
REVOKE ALL ON FUNCTION atlvs.book_ticket_revenue(uuid, uuid, uuid, uuid, text, integer, numeric, text, text, jsonb, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.book_ticket_revenue(uuid, uuid, uuid, uuid, text, integer, numeric, text, text, jsonb, timestamptz) IS
    'Books ticket revenue or its reversal as one journal, by payload.breakdown; returns the journal';

------------------------------------------------------------------------------------------------- for all of the tables

-- One trigger function per schema, so that a schema can move away by itself.
DO $touch$
DECLARE
    s text;
BEGIN
    FOREACH s IN ARRAY ARRAY['atlvs', 'compvss', 'gvteway'] LOOP
        EXECUTE format($ddl$
            CREATE OR REPLACE FUNCTION %1$I.touch_row() RETURNS trigger
                LANGUAGE plpgsql
                SET search_path = pg_catalog, pg_temp
            AS $fn$
            BEGIN
                NEW.version := OLD.version + 1;
                NEW.updated_at := now();
                RETURN NEW;
            END
            $fn$;
            REVOKE ALL ON FUNCTION %1$I.touch_row() FROM PUBLIC;
            COMMENT ON FUNCTION %1$I.touch_row() IS 'Trigger: a changed row gets the next version and a new updated_at';
        $ddl$, s);
    END LOOP;
END
$touch$;

DO $tables$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('atlvs', 'deals'), ('atlvs', 'deal_status_changes'), ('atlvs', 'projects'), ('atlvs', 'ledger_accounts'),
            ('compvss', 'productions'),
            ('gvteway', 'venues'), ('gvteway', 'events'), ('gvteway', 'orders'), ('gvteway', 'order_items')
        ) AS v (nsp, rel)
    LOOP
        -- An UPDATE that changes nothing leaves the row as it is: it is no news to any flow.
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER touch_row BEFORE UPDATE ON %1$I.%2$I
                 FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION %1$I.touch_row()',
            t.nsp, t.rel);
    END LOOP;
    -- Version 0.1 made its policies here; now the manifest declares who reads and writes what.
    FOR t IN
        SELECT p.polrelid::regclass AS name, p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         WHERE c.relnamespace IN ('atlvs'::regnamespace, 'compvss'::regnamespace, 'gvteway'::regnamespace)
           AND (p.polname IN ('live_events_read', 'live_events_insert', 'live_events_update', 'live_events_delete')
                OR p.polname = 'reader_reads' AND p.polroles = ARRAY['usher_reader'::regrole::oid])
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', t.polname, t.name);
    END LOOP;
END
$tables$;

-- Version 0.1 put the production on the left of an event's link; where it has a project, that stands there now.
DO $links$
BEGIN
    IF has_table_privilege('usher.links', 'UPDATE') THEN
        UPDATE usher.links l SET left_id = p.project_ref::text
          FROM compvss.productions p
         WHERE l.kind = 'event' AND p.organization_id = l.organization_id AND p.id::text = l.left_id AND p.project_ref IS NOT NULL
           AND NOT EXISTS (SELECT FROM usher.links o
                            WHERE o.organization_id = l.organization_id AND o.kind = 'event' AND o.left_id = p.project_ref::text AND o.right_id = l.right_id);
    ELSIF EXISTS (SELECT FROM compvss.productions p JOIN usher.links l ON l.organization_id = p.organization_id AND l.kind = 'event' AND l.left_id = p.id::text
                   WHERE p.project_ref IS NOT NULL) THEN
        RAISE WARNING 'links of events that version 0.1 made keep their production on the left'
            USING HINT = 'Let the owner of pg_usher''s tables, or a superuser, install the pack once more.';
    END IF;
END
$links$;
