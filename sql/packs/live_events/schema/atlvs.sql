-- Pack live_events: the tables of atlvs, the business.

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
