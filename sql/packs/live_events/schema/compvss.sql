-- Pack live_events: the tables of compvss, the production: money, crew, equipment.

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
COMMENT ON COLUMN compvss.productions.metadata IS
    'Internal; only "lineup" (an array) reaches the event, as long as no public set names an artist';
-- Money. What is spent is fed by expenses, hours and invoices; the plan is the business's.
CREATE TABLE IF NOT EXISTS compvss.cost_lines (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid          NOT NULL,
    category        text          NOT NULL,
    planned         numeric(14,2) NOT NULL DEFAULT 0,
    actual          numeric(14,2) NOT NULL DEFAULT 0,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    notes           text,
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT cost_lines_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT cost_lines_category_key UNIQUE (organization_id, production_id, category),
    CONSTRAINT cost_lines_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT cost_lines_category_given CHECK (btrim(category) <> ''),
    CONSTRAINT cost_lines_amounts_range CHECK (planned BETWEEN -999999999999.99 AND 999999999999.99 AND actual BETWEEN -999999999999.99 AND 999999999999.99),
    CONSTRAINT cost_lines_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
COMMENT ON TABLE compvss.cost_lines IS 'Pack live_events: What a production costs, by category: the plan comes from the budget, the actual amount goes there';
COMMENT ON COLUMN compvss.cost_lines.planned IS 'Owned by the budget line of the project';
COMMENT ON COLUMN compvss.cost_lines.actual IS 'Owned here; what has been spent, credits taken off';
COMMENT ON COLUMN compvss.cost_lines.notes IS 'Shared with the budget line';

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

CREATE TABLE IF NOT EXISTS compvss.crew_members (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    employee_ref    uuid,
    name            text          NOT NULL,
    role            text,
    skills          text[]        NOT NULL DEFAULT '{}',
    rate            numeric(14,2),
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'active',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT crew_members_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT crew_members_employee_key UNIQUE (organization_id, employee_ref),
    CONSTRAINT crew_members_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT crew_members_status_known CHECK (status IN ('active', 'inactive')),
    CONSTRAINT crew_members_rate_range CHECK (rate BETWEEN 0 AND 999999999999.99),
    CONSTRAINT crew_members_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS crew_members_status_idx ON compvss.crew_members (organization_id, status);
COMMENT ON TABLE compvss.crew_members IS 'Pack live_events: Who works on site';
COMMENT ON COLUMN compvss.crew_members.employee_ref IS 'Id in atlvs.employees; empty for somebody who is not employed';
COMMENT ON COLUMN compvss.crew_members.rate IS 'By the hour';

CREATE TABLE IF NOT EXISTS compvss.crew_assignments (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid          NOT NULL,
    crew_id         uuid          NOT NULL,
    role            text,
    period          tstzrange     NOT NULL,
    rate            numeric(14,2),
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'proposed',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT crew_assignments_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT crew_assignments_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT crew_assignments_crew_fkey FOREIGN KEY (organization_id, crew_id)
        REFERENCES compvss.crew_members (organization_id, id),
    CONSTRAINT crew_assignments_status_known CHECK (status IN ('proposed', 'confirmed', 'completed', 'cancelled')),
    CONSTRAINT crew_assignments_period_given CHECK (NOT isempty(period)),
    CONSTRAINT crew_assignments_rate_range CHECK (rate BETWEEN 0 AND 999999999999.99),
    CONSTRAINT crew_assignments_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS crew_assignments_status_idx ON compvss.crew_assignments (organization_id, status);
CREATE INDEX IF NOT EXISTS crew_assignments_production_idx ON compvss.crew_assignments (organization_id, production_id);
CREATE INDEX IF NOT EXISTS crew_assignments_crew_idx ON compvss.crew_assignments (organization_id, crew_id);
COMMENT ON TABLE compvss.crew_assignments IS 'Pack live_events: Who works when on which production; two at a time are a conflict and not refused';
COMMENT ON COLUMN compvss.crew_assignments.rate IS 'By the hour; empty: that of the crew member';

CREATE TABLE IF NOT EXISTS compvss.time_entries (
    organization_id uuid         NOT NULL,
    id              uuid         NOT NULL DEFAULT gen_random_uuid(),
    assignment_id   uuid         NOT NULL,
    work_on         date         NOT NULL,
    hours           numeric(6,2) NOT NULL,
    overtime        numeric(6,2) NOT NULL DEFAULT 0,
    status          text         NOT NULL DEFAULT 'submitted',
    version         bigint       NOT NULL DEFAULT 1,
    created_at      timestamptz  NOT NULL DEFAULT now(),
    updated_at      timestamptz  NOT NULL DEFAULT now(),
    CONSTRAINT time_entries_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT time_entries_assignment_fkey FOREIGN KEY (organization_id, assignment_id)
        REFERENCES compvss.crew_assignments (organization_id, id),
    CONSTRAINT time_entries_status_known CHECK (status IN ('draft', 'submitted', 'approved', 'rejected')),
    CONSTRAINT time_entries_hours_range CHECK (hours BETWEEN 0 AND 24 AND overtime BETWEEN 0 AND 24),
    CONSTRAINT time_entries_day_finite CHECK (isfinite(work_on))
);
CREATE INDEX IF NOT EXISTS time_entries_status_idx ON compvss.time_entries (organization_id, status);
CREATE INDEX IF NOT EXISTS time_entries_assignment_idx ON compvss.time_entries (organization_id, assignment_id, work_on);
COMMENT ON TABLE compvss.time_entries IS 'Pack live_events: Hours that were worked';
COMMENT ON COLUMN compvss.time_entries.hours IS 'At the plain rate; overtime comes on top';

CREATE TABLE IF NOT EXISTS compvss.expenses (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid          NOT NULL,
    category        text          NOT NULL,
    amount          numeric(14,2) NOT NULL,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    receipt_url     text,
    submitted_by    text,
    spent_on        date,
    status          text          NOT NULL DEFAULT 'draft',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT expenses_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT expenses_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT expenses_category_given CHECK (btrim(category) <> ''),
    CONSTRAINT expenses_status_known CHECK (status IN ('draft', 'submitted', 'approved', 'rejected')),
    CONSTRAINT expenses_amount_range CHECK (amount BETWEEN -999999999999.99 AND 999999999999.99),
    CONSTRAINT expenses_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS expenses_status_idx ON compvss.expenses (organization_id, status);
CREATE INDEX IF NOT EXISTS expenses_production_idx ON compvss.expenses (organization_id, production_id, category);
COMMENT ON TABLE compvss.expenses IS 'Pack live_events: What somebody has laid out on site';
COMMENT ON COLUMN compvss.expenses.submitted_by IS 'Who is to get the money back';

CREATE TABLE IF NOT EXISTS compvss.vendor_invoices (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid          NOT NULL,
    vendor_ref      uuid          NOT NULL,
    po_number       text,
    number          text          NOT NULL,
    category        text          NOT NULL DEFAULT 'vendors',
    amount          numeric(14,2) NOT NULL,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    issued_on       date,
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT vendor_invoices_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT vendor_invoices_number_key UNIQUE (organization_id, vendor_ref, number),
    CONSTRAINT vendor_invoices_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT vendor_invoices_number_given CHECK (btrim(number) <> ''),
    CONSTRAINT vendor_invoices_amount_range CHECK (amount BETWEEN -999999999999.99 AND 999999999999.99),
    CONSTRAINT vendor_invoices_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS vendor_invoices_production_idx ON compvss.vendor_invoices (organization_id, production_id, category);
COMMENT ON TABLE compvss.vendor_invoices IS 'Pack live_events: Invoices of vendors as they came in on site';
COMMENT ON COLUMN compvss.vendor_invoices.vendor_ref IS 'Id in atlvs.vendors';
COMMENT ON COLUMN compvss.vendor_invoices.po_number IS 'Number in atlvs.purchase_orders';
COMMENT ON COLUMN compvss.vendor_invoices.category IS 'The cost line that it belongs to';

CREATE TABLE IF NOT EXISTS compvss.change_orders (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid          NOT NULL,
    number          text          NOT NULL,
    category        text          NOT NULL,
    cost_delta      numeric(14,2) NOT NULL,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'draft',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT change_orders_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT change_orders_number_key UNIQUE (organization_id, production_id, number),
    CONSTRAINT change_orders_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT change_orders_number_given CHECK (btrim(number) <> ''),
    CONSTRAINT change_orders_category_given CHECK (btrim(category) <> ''),
    CONSTRAINT change_orders_status_known CHECK (status IN ('draft', 'submitted', 'approved', 'rejected')),
    CONSTRAINT change_orders_delta_range CHECK (cost_delta BETWEEN -999999999999.99 AND 999999999999.99),
    CONSTRAINT change_orders_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS change_orders_status_idx ON compvss.change_orders (organization_id, status);
COMMENT ON TABLE compvss.change_orders IS 'Pack live_events: What the client wants otherwise, and what it costs more or less';

CREATE TABLE IF NOT EXISTS compvss.asset_requests (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    category        text        NOT NULL,
    asset_ref       uuid,
    period          tstzrange   NOT NULL,
    status          text        NOT NULL DEFAULT 'requested',
    reason          text,
    alternatives    jsonb       NOT NULL DEFAULT '[]',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT asset_requests_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT asset_requests_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT asset_requests_category_given CHECK (btrim(category) <> ''),
    CONSTRAINT asset_requests_status_known CHECK (status IN ('requested', 'allocated', 'denied', 'deployed', 'returned')),
    CONSTRAINT asset_requests_period_given CHECK (NOT isempty(period)),
    CONSTRAINT asset_requests_alternatives_is_array CHECK (jsonb_typeof(alternatives) = 'array')
);
CREATE INDEX IF NOT EXISTS asset_requests_status_idx ON compvss.asset_requests (organization_id, status);
CREATE INDEX IF NOT EXISTS asset_requests_production_idx ON compvss.asset_requests (organization_id, production_id);
CREATE INDEX IF NOT EXISTS asset_requests_asset_idx ON compvss.asset_requests (organization_id, asset_ref);
COMMENT ON TABLE compvss.asset_requests IS 'Pack live_events: Equipment that a production asks for, and what was answered';
COMMENT ON COLUMN compvss.asset_requests.asset_ref IS 'Id in atlvs.assets: the one asked for, or the one that was allocated';
COMMENT ON COLUMN compvss.asset_requests.reason IS 'Why it was denied';
COMMENT ON COLUMN compvss.asset_requests.alternatives IS 'Of a request that was denied: assets of the category that are free';

CREATE TABLE IF NOT EXISTS compvss.damage_reports (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    asset_ref       uuid        NOT NULL,
    production_id   uuid,
    severity        text        NOT NULL DEFAULT 'medium',
    note            text,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT damage_reports_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT damage_reports_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT damage_reports_severity_known CHECK (severity IN ('low', 'medium', 'high', 'critical'))
);
CREATE INDEX IF NOT EXISTS damage_reports_asset_idx ON compvss.damage_reports (organization_id, asset_ref);
COMMENT ON TABLE compvss.damage_reports IS 'Pack live_events: Equipment that was damaged';
COMMENT ON COLUMN compvss.damage_reports.asset_ref IS 'Id in atlvs.assets';
COMMENT ON COLUMN compvss.damage_reports.production_id IS 'Where it happened; empty for damage in the store';
