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
COMMENT ON COLUMN atlvs.deals.contact_id IS 'The client, an id in atlvs.contacts; no foreign key, because version 0.1 had no contacts';
COMMENT ON COLUMN atlvs.deals.venue_timezone IS 'Zone in which the event date is a day, such as Europe/Berlin';
COMMENT ON COLUMN atlvs.deals.expected_attendance IS 'Becomes capacity and projected attendance of the production';
COMMENT ON COLUMN atlvs.deals.won_at IS 'When the deal was first won; filled in if left empty';
COMMENT ON COLUMN atlvs.deals.metadata IS
    'Carried to the project and the production; "lineup" (an array) reaches the event';

ALTER TABLE atlvs.deals ADD COLUMN IF NOT EXISTS publish_when_won boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN atlvs.deals.publish_when_won IS 'W39: the event is published as soon as the deal is won and its event is there, and what fails before that is undone';

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
ALTER TABLE atlvs.projects ADD COLUMN IF NOT EXISTS closing_run uuid;
COMMENT ON COLUMN atlvs.projects.closing_run IS 'The run of the closeout that closes it, or has (W12)';

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
    -- Journal by journal: a plan that was made while the ledger was small must not read all of it when it has grown.
    SELECT touched.journal_id, e.debit, e.credit INTO off
      FROM (SELECT DISTINCT i.organization_id, i.journal_id FROM inserted i) AS touched,
           LATERAL (SELECT sum(x.debit) AS debit, sum(x.credit) AS credit FROM atlvs.ledger_entries x
                     WHERE x.organization_id = touched.organization_id AND x.journal_id = touched.journal_id) AS e
     WHERE e.debit <> e.credit
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

-- Contacts, artists, campaigns: whom the company works with and for.
CREATE TABLE IF NOT EXISTS atlvs.contacts (
    organization_id   uuid          NOT NULL,
    id                uuid          NOT NULL DEFAULT gen_random_uuid(),
    company           text,
    first_name        text,
    last_name         text,
    email             text,
    phone             text,
    marketing_consent boolean       NOT NULL DEFAULT false,
    satisfaction_avg  numeric(4,2),
    satisfaction_n    integer       NOT NULL DEFAULT 0,
    lifetime_value    numeric(14,2) NOT NULL DEFAULT 0,
    currency          char(3)       NOT NULL DEFAULT 'USD',
    erased_at         timestamptz,
    version           bigint        NOT NULL DEFAULT 1,
    created_at        timestamptz   NOT NULL DEFAULT now(),
    updated_at        timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT contacts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT contacts_email_given CHECK (btrim(email) <> ''),
    CONSTRAINT contacts_satisfaction_range CHECK (satisfaction_n >= 0 AND satisfaction_avg BETWEEN 1 AND 10 AND (satisfaction_n = 0) = (satisfaction_avg IS NULL)),
    CONSTRAINT contacts_lifetime_value_range CHECK (lifetime_value > -1e12 AND lifetime_value < 1e12),
    CONSTRAINT contacts_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE UNIQUE INDEX IF NOT EXISTS contacts_email_key ON atlvs.contacts (organization_id, lower(email));
COMMENT ON TABLE atlvs.contacts IS 'Pack live_events: People at clients, agencies and artists';
COMMENT ON COLUMN atlvs.contacts.satisfaction_avg IS 'Mean score of the surveys about this contact''s productions (W14); empty without one';
COMMENT ON COLUMN atlvs.contacts.lifetime_value IS 'What the contact has brought in, in currency (W19)';

CREATE TABLE IF NOT EXISTS atlvs.artists (
    organization_id  uuid        NOT NULL,
    id               uuid        NOT NULL DEFAULT gen_random_uuid(),
    name             text        NOT NULL,
    agent_contact_id uuid,
    version          bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT artists_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT artists_agent_fkey FOREIGN KEY (organization_id, agent_contact_id)
        REFERENCES atlvs.contacts (organization_id, id) ON DELETE SET NULL (agent_contact_id),
    CONSTRAINT artists_name_given CHECK (btrim(name) <> '')
);
CREATE INDEX IF NOT EXISTS artists_agent_idx ON atlvs.artists (organization_id, agent_contact_id);
COMMENT ON TABLE atlvs.artists IS 'Pack live_events: Who performs';

CREATE TABLE IF NOT EXISTS atlvs.artist_bookings (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    artist_id       uuid          NOT NULL,
    deal_id         uuid,
    event_on        date          NOT NULL,
    venue_name      text,
    fee             numeric(14,2) NOT NULL DEFAULT 0,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'hold',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT artist_bookings_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT artist_bookings_artist_fkey FOREIGN KEY (organization_id, artist_id) REFERENCES atlvs.artists (organization_id, id),
    CONSTRAINT artist_bookings_deal_fkey FOREIGN KEY (organization_id, deal_id) REFERENCES atlvs.deals (organization_id, id),
    CONSTRAINT artist_bookings_status_known CHECK (status IN ('hold', 'confirmed', 'cancelled')),
    CONSTRAINT artist_bookings_fee_range CHECK (fee >= 0 AND fee < 1e12),
    CONSTRAINT artist_bookings_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS artist_bookings_status_idx ON atlvs.artist_bookings (organization_id, status);
CREATE INDEX IF NOT EXISTS artist_bookings_artist_idx ON atlvs.artist_bookings (organization_id, artist_id, event_on);
CREATE INDEX IF NOT EXISTS artist_bookings_deal_idx ON atlvs.artist_bookings (organization_id, deal_id);
COMMENT ON TABLE atlvs.artist_bookings IS 'Pack live_events: An artist on a day; confirmed, it becomes a draft event (W22)';

CREATE TABLE IF NOT EXISTS atlvs.campaigns (
    organization_id    uuid        NOT NULL,
    id                 uuid        NOT NULL DEFAULT gen_random_uuid(),
    campaign_ref       uuid,
    name               text        NOT NULL,
    channel            text,
    budget             numeric     NOT NULL DEFAULT 0,
    spend              numeric     NOT NULL DEFAULT 0,
    currency           char(3)     NOT NULL DEFAULT 'USD',
    attributed_orders  integer     NOT NULL DEFAULT 0,
    attributed_revenue numeric     NOT NULL DEFAULT 0,
    version            bigint      NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT campaigns_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT campaigns_ref_key UNIQUE (organization_id, campaign_ref),
    CONSTRAINT campaigns_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT campaigns_amounts_range CHECK (budget >= 0 AND budget < 1e15 AND spend > -1e15 AND spend < 1e15
        AND attributed_orders >= 0 AND attributed_revenue > -1e15 AND attributed_revenue < 1e15),
    CONSTRAINT campaigns_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
COMMENT ON TABLE atlvs.campaigns IS 'Pack live_events: A campaign as the books see it: what it has cost (W18) and brought (W42)';
COMMENT ON COLUMN atlvs.campaigns.campaign_ref IS 'Id in gvteway.campaigns';

-- What the books take from outside, and what somebody should see. Plain numeric, as in the ledger.
CREATE TABLE IF NOT EXISTS atlvs.settlements (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    payout_ref      text        NOT NULL,
    gross           numeric     NOT NULL,
    fees            numeric     NOT NULL DEFAULT 0,
    refunds         numeric     NOT NULL DEFAULT 0,
    net             numeric     NOT NULL,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    status          text        NOT NULL DEFAULT 'pending',
    journal_id      uuid,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT settlements_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT settlements_payout_key UNIQUE (organization_id, payout_ref),
    CONSTRAINT settlements_journal_fkey FOREIGN KEY (organization_id, journal_id) REFERENCES atlvs.journals (organization_id, id),
    CONSTRAINT settlements_status_known CHECK (status IN ('pending', 'booked', 'difference')),
    CONSTRAINT settlements_amounts_range CHECK (
        gross >= 0 AND gross < 1e15 AND fees >= 0 AND fees < 1e15 AND refunds >= 0 AND refunds < 1e15 AND net > -1e15 AND net < 1e15),
    CONSTRAINT settlements_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS settlements_status_idx ON atlvs.settlements (organization_id, status);
COMMENT ON TABLE atlvs.settlements IS 'Pack live_events: Payouts of payment providers as they were booked, once each (W20)';
COMMENT ON COLUMN atlvs.settlements.payout_ref IS 'payout_ref in gvteway.payouts';

CREATE TABLE IF NOT EXISTS atlvs.tax_lines (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    period          date        NOT NULL,
    jurisdiction    text        NOT NULL,
    kind            text        NOT NULL,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    taxable         numeric     NOT NULL DEFAULT 0,
    tax             numeric     NOT NULL DEFAULT 0,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tax_lines_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT tax_lines_period_key UNIQUE (organization_id, period, jurisdiction, kind, currency),
    CONSTRAINT tax_lines_names_given CHECK (btrim(jurisdiction) <> '' AND btrim(kind) <> ''),
    CONSTRAINT tax_lines_amounts_range CHECK (taxable > -1e15 AND taxable < 1e15 AND tax > -1e15 AND tax < 1e15),
    CONSTRAINT tax_lines_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
COMMENT ON TABLE atlvs.tax_lines IS 'Pack live_events: Tax by month, jurisdiction and kind (W24)';
COMMENT ON COLUMN atlvs.tax_lines.period IS 'First day of the month';

CREATE TABLE IF NOT EXISTS atlvs.alerts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    source_ref      uuid        NOT NULL,
    project_id      uuid,
    kind            text        NOT NULL,
    severity        text        NOT NULL DEFAULT 'medium',
    title           text        NOT NULL,
    status          text        NOT NULL DEFAULT 'open',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alerts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT alerts_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT alerts_project_fkey FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
    CONSTRAINT alerts_words_given CHECK (btrim(kind) <> '' AND btrim(title) <> ''),
    CONSTRAINT alerts_severity_known CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    CONSTRAINT alerts_status_known CHECK (status IN ('open', 'acknowledged', 'resolved'))
);
CREATE INDEX IF NOT EXISTS alerts_status_idx ON atlvs.alerts (organization_id, status, severity);
CREATE INDEX IF NOT EXISTS alerts_project_idx ON atlvs.alerts (organization_id, project_id);
COMMENT ON TABLE atlvs.alerts IS 'Pack live_events: What somebody in the office should look at, once for each source';
COMMENT ON COLUMN atlvs.alerts.source_ref IS 'Id of what it is about: an alert or survey in compvss, a settlement, an invoice';
COMMENT ON COLUMN atlvs.alerts.kind IS 'risk, compliance (W8), follow_up (W14), invoice_over_order (W7), and what other workflows raise';
