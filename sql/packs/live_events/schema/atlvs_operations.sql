-- Pack live_events: more tables of atlvs: what work takes. Budgets, purchasing, people, things.

-- Budgets. A line is in the currency of its project.
CREATE TABLE IF NOT EXISTS atlvs.budget_lines (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    project_id      uuid          NOT NULL,
    category        text          NOT NULL,
    planned         numeric(14,2) NOT NULL DEFAULT 0,
    actual          numeric(14,2) NOT NULL DEFAULT 0,
    actual_from     bigint,
    notes           text,
    frozen          boolean       NOT NULL DEFAULT false,
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT budget_lines_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT budget_lines_category_key UNIQUE (organization_id, project_id, category),
    CONSTRAINT budget_lines_project_fkey FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
    CONSTRAINT budget_lines_category_given CHECK (btrim(category) <> ''),
    CONSTRAINT budget_lines_amounts_range CHECK (planned >= 0 AND planned < 1e12 AND actual > -1e12 AND actual < 1e12)
);
COMMENT ON TABLE atlvs.budget_lines IS 'Pack live_events: What a project may cost by category, in its currency';
COMMENT ON COLUMN atlvs.budget_lines.planned IS 'Written here, and carried to the cost line of the production (W2)';
COMMENT ON COLUMN atlvs.budget_lines.actual IS 'Follows the cost line of the production (W2)';
COMMENT ON COLUMN atlvs.budget_lines.actual_from IS 'Version of the cost line that actual was taken from; a change without one is somebody else''s (W2)';
COMMENT ON COLUMN atlvs.budget_lines.notes IS 'Shared with the cost line: both sides write it (W2)';
COMMENT ON COLUMN atlvs.budget_lines.frozen IS 'The project is being closed (W12): the plan stays, and once it is closed all of it';

-- While a project is being closed its plan stays; what work really takes goes on until it is closed.
CREATE OR REPLACE FUNCTION atlvs.keep_frozen_line() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (OLD.planned, OLD.category, OLD.project_id) IS DISTINCT FROM (NEW.planned, NEW.category, NEW.project_id) THEN
        RAISE EXCEPTION 'budget line "%" is frozen: its project is being closed', OLD.category
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Take the closing back, or budget it in another project.';
    END IF;
    IF EXISTS (SELECT FROM atlvs.projects p WHERE p.organization_id = OLD.organization_id AND p.id = OLD.project_id AND p.phase = 'closed') THEN
        RAISE EXCEPTION 'budget line "%" is frozen: its project is closed', OLD.category
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Book what is left in another project.';
    END IF;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION atlvs.keep_frozen_line() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.keep_frozen_line() IS 'Trigger: a frozen budget line keeps its plan, and once its project is closed its actual amount';
CREATE OR REPLACE TRIGGER keep_frozen_line BEFORE UPDATE ON atlvs.budget_lines
    FOR EACH ROW WHEN (OLD.frozen AND NEW.frozen AND (OLD.planned, OLD.actual, OLD.category, OLD.project_id) IS DISTINCT FROM (NEW.planned, NEW.actual, NEW.category, NEW.project_id))
    EXECUTE FUNCTION atlvs.keep_frozen_line();

CREATE TABLE IF NOT EXISTS atlvs.budget_revisions (
    organization_id  uuid          NOT NULL,
    id               uuid          NOT NULL DEFAULT gen_random_uuid(),
    line_id          uuid          NOT NULL,
    change_order_ref uuid          NOT NULL,
    delta            numeric(14,2) NOT NULL,
    applied_at       timestamptz   NOT NULL DEFAULT now(),
    version          bigint        NOT NULL DEFAULT 1,
    created_at       timestamptz   NOT NULL DEFAULT now(),
    updated_at       timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT budget_revisions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT budget_revisions_change_order_key UNIQUE (organization_id, change_order_ref),
    CONSTRAINT budget_revisions_line_fkey FOREIGN KEY (organization_id, line_id) REFERENCES atlvs.budget_lines (organization_id, id),
    CONSTRAINT budget_revisions_delta_range CHECK (delta > -1e12 AND delta < 1e12)
);
CREATE INDEX IF NOT EXISTS budget_revisions_line_idx ON atlvs.budget_revisions (organization_id, line_id);
COMMENT ON TABLE atlvs.budget_revisions IS 'Pack live_events: What approved change orders have added to budget lines, once each (W10)';

-- Part of the row: who enters a revision has applied it, and nobody else can.
CREATE OR REPLACE FUNCTION atlvs.apply_revisions() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE atlvs.budget_lines b
       SET planned = b.planned + d.delta
      FROM (SELECT i.organization_id, i.line_id, sum(i.delta) AS delta FROM inserted i GROUP BY i.organization_id, i.line_id) AS d
     WHERE b.organization_id = d.organization_id AND b.id = d.line_id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION atlvs.apply_revisions() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.apply_revisions() IS 'Trigger: a new revision is added to the plan of its line';
CREATE OR REPLACE TRIGGER apply_revisions AFTER INSERT ON atlvs.budget_revisions
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION atlvs.apply_revisions();

-- Purchasing and payables.
CREATE TABLE IF NOT EXISTS atlvs.vendors (
    organization_id uuid         NOT NULL,
    id              uuid         NOT NULL DEFAULT gen_random_uuid(),
    name            text         NOT NULL,
    category        text,
    rating          numeric(3,2),
    rating_n        integer      NOT NULL DEFAULT 0,
    terms_days      integer      NOT NULL DEFAULT 30,
    status          text         NOT NULL DEFAULT 'active',
    version         bigint       NOT NULL DEFAULT 1,
    created_at      timestamptz  NOT NULL DEFAULT now(),
    updated_at      timestamptz  NOT NULL DEFAULT now(),
    CONSTRAINT vendors_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT vendors_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT vendors_status_known CHECK (status IN ('active', 'inactive')),
    CONSTRAINT vendors_rating_range CHECK (rating_n >= 0 AND rating BETWEEN 1 AND 5 AND (rating_n = 0) = (rating IS NULL)),
    CONSTRAINT vendors_terms_range CHECK (terms_days BETWEEN 0 AND 365)
);
CREATE INDEX IF NOT EXISTS vendors_status_idx ON atlvs.vendors (organization_id, status);
COMMENT ON TABLE atlvs.vendors IS 'Pack live_events: Who supplies';
COMMENT ON COLUMN atlvs.vendors.category IS 'Also the category of the cost line that an invoice counts in (W7)';
COMMENT ON COLUMN atlvs.vendors.rating IS 'Mean of published reviews (W21); empty without one';
COMMENT ON COLUMN atlvs.vendors.terms_days IS 'An invoice is due so many days after it has come';

CREATE TABLE IF NOT EXISTS atlvs.purchase_orders (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    vendor_id       uuid          NOT NULL,
    project_id      uuid          NOT NULL,
    number          text          NOT NULL,
    total           numeric(14,2) NOT NULL,
    invoiced        numeric(14,2) NOT NULL DEFAULT 0,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'open',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT purchase_orders_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT purchase_orders_number_key UNIQUE (organization_id, number),
    CONSTRAINT purchase_orders_vendor_fkey FOREIGN KEY (organization_id, vendor_id) REFERENCES atlvs.vendors (organization_id, id),
    CONSTRAINT purchase_orders_project_fkey FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
    CONSTRAINT purchase_orders_number_given CHECK (btrim(number) <> ''),
    CONSTRAINT purchase_orders_status_known CHECK (status IN ('draft', 'open', 'invoiced', 'closed', 'cancelled')),
    CONSTRAINT purchase_orders_amounts_range CHECK (total >= 0 AND total < 1e12 AND invoiced >= 0 AND invoiced < 1e12),
    CONSTRAINT purchase_orders_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS purchase_orders_status_idx ON atlvs.purchase_orders (organization_id, status);
CREATE INDEX IF NOT EXISTS purchase_orders_vendor_idx ON atlvs.purchase_orders (organization_id, vendor_id);
CREATE INDEX IF NOT EXISTS purchase_orders_project_idx ON atlvs.purchase_orders (organization_id, project_id);
COMMENT ON TABLE atlvs.purchase_orders IS 'Pack live_events: What was ordered from a vendor for a project';
COMMENT ON COLUMN atlvs.purchase_orders.invoiced IS 'Sum of the matched invoices (W7)';

CREATE TABLE IF NOT EXISTS atlvs.ap_items (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    kind            text          NOT NULL,
    source_ref      uuid          NOT NULL,
    project_id      uuid,
    category        text,
    payee           text          NOT NULL,
    amount          numeric(14,2) NOT NULL,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    due_on          date,
    status          text          NOT NULL DEFAULT 'pending',
    journal_id      uuid,
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT ap_items_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT ap_items_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT ap_items_project_fkey FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
    CONSTRAINT ap_items_journal_fkey FOREIGN KEY (organization_id, journal_id) REFERENCES atlvs.journals (organization_id, id),
    CONSTRAINT ap_items_kind_known CHECK (kind IN ('expense', 'vendor_invoice', 'artist_fee', 'other')),
    CONSTRAINT ap_items_status_known CHECK (status IN ('pending', 'approved', 'paid', 'void')),
    CONSTRAINT ap_items_payee_given CHECK (btrim(payee) <> ''),
    CONSTRAINT ap_items_amount_range CHECK (amount > 0 AND amount < 1e12),
    CONSTRAINT ap_items_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS ap_items_status_idx ON atlvs.ap_items (organization_id, status, due_on);
CREATE INDEX IF NOT EXISTS ap_items_project_idx ON atlvs.ap_items (organization_id, project_id);
COMMENT ON TABLE atlvs.ap_items IS 'Pack live_events: What is to be paid, once for each expense (W5) and vendor invoice (W7)';
COMMENT ON COLUMN atlvs.ap_items.source_ref IS 'Id of the expense or vendor invoice in compvss';
COMMENT ON COLUMN atlvs.ap_items.journal_id IS 'How it stands in the ledger; empty as long as it does not';

-- What has been paid out stays as it was paid.
CREATE OR REPLACE FUNCTION atlvs.keep_paid() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% % is paid already', TG_ARGV[0], OLD.id
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Enter the difference as an item of its own.';
END
$$;
REVOKE ALL ON FUNCTION atlvs.keep_paid() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.keep_paid() IS 'Trigger: what is paid keeps its amount and stays paid';
CREATE OR REPLACE TRIGGER keep_paid BEFORE UPDATE ON atlvs.ap_items
    FOR EACH ROW WHEN (OLD.status = 'paid' AND (OLD.status, OLD.amount, OLD.currency, OLD.project_id) IS DISTINCT FROM (NEW.status, NEW.amount, NEW.currency, NEW.project_id))
    EXECUTE FUNCTION atlvs.keep_paid('payable');

CREATE TABLE IF NOT EXISTS atlvs.vendor_invoices (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    vendor_id       uuid          NOT NULL,
    po_id           uuid,
    number          text          NOT NULL,
    amount          numeric(14,2) NOT NULL,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    match_status    text          NOT NULL DEFAULT 'over',
    variance        numeric(14,2) NOT NULL DEFAULT 0,
    source_ref      uuid          NOT NULL,
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT vendor_invoices_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT vendor_invoices_number_key UNIQUE (organization_id, vendor_id, number),
    CONSTRAINT vendor_invoices_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT vendor_invoices_vendor_fkey FOREIGN KEY (organization_id, vendor_id) REFERENCES atlvs.vendors (organization_id, id),
    CONSTRAINT vendor_invoices_po_fkey FOREIGN KEY (organization_id, po_id) REFERENCES atlvs.purchase_orders (organization_id, id),
    CONSTRAINT vendor_invoices_number_given CHECK (btrim(number) <> ''),
    CONSTRAINT vendor_invoices_match_status_known CHECK (match_status IN ('matched', 'over', 'accepted')),
    CONSTRAINT vendor_invoices_amounts_range CHECK (amount >= 0 AND amount < 1e12 AND variance > -1e12 AND variance < 1e12),
    CONSTRAINT vendor_invoices_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS vendor_invoices_match_status_idx ON atlvs.vendor_invoices (organization_id, match_status);
CREATE INDEX IF NOT EXISTS vendor_invoices_po_idx ON atlvs.vendor_invoices (organization_id, po_id);
COMMENT ON TABLE atlvs.vendor_invoices IS 'Pack live_events: Vendors'' invoices as they stand against their purchase orders (W7)';
COMMENT ON COLUMN atlvs.vendor_invoices.amount IS 'What is to be paid: of an invoice that is over, what the order has left, until somebody decides';
COMMENT ON COLUMN atlvs.vendor_invoices.match_status IS 'over: more than was ordered; accepted: somebody has decided what is paid';
COMMENT ON COLUMN atlvs.vendor_invoices.variance IS 'By how much the order''s invoices, with this one, are above its total; below it, less than 0';
COMMENT ON COLUMN atlvs.vendor_invoices.source_ref IS 'Id in compvss.vendor_invoices';

CREATE OR REPLACE FUNCTION atlvs.keep_matched_invoice() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'invoice % is % and stands in accounts payable with %', OLD.number, OLD.match_status, OLD.amount
        USING ERRCODE = 'raise_exception', HINT = 'Enter the difference as an invoice of its own.';
END
$$;
REVOKE ALL ON FUNCTION atlvs.keep_matched_invoice() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.keep_matched_invoice() IS 'Trigger: an invoice that was matched or accepted keeps its amount';
CREATE OR REPLACE TRIGGER keep_matched_invoice BEFORE UPDATE ON atlvs.vendor_invoices
    FOR EACH ROW WHEN (OLD.match_status IN ('matched', 'accepted') AND OLD.amount IS DISTINCT FROM NEW.amount)
    EXECUTE FUNCTION atlvs.keep_matched_invoice();

CREATE TABLE IF NOT EXISTS atlvs.invoices (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    contact_id      uuid,
    project_id      uuid          NOT NULL,
    number          text          NOT NULL,
    total           numeric(14,2) NOT NULL,
    paid            numeric(14,2) NOT NULL DEFAULT 0,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'draft',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT invoices_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT invoices_number_key UNIQUE (organization_id, number),
    CONSTRAINT invoices_contact_fkey FOREIGN KEY (organization_id, contact_id) REFERENCES atlvs.contacts (organization_id, id),
    CONSTRAINT invoices_project_fkey FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
    CONSTRAINT invoices_number_given CHECK (btrim(number) <> ''),
    CONSTRAINT invoices_status_known CHECK (status IN ('draft', 'sent', 'paid', 'void')),
    CONSTRAINT invoices_amounts_range CHECK (total >= 0 AND total < 1e12 AND paid >= 0 AND paid < 1e12),
    CONSTRAINT invoices_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS invoices_status_idx ON atlvs.invoices (organization_id, status);
CREATE INDEX IF NOT EXISTS invoices_project_idx ON atlvs.invoices (organization_id, project_id);
CREATE INDEX IF NOT EXISTS invoices_contact_idx ON atlvs.invoices (organization_id, contact_id);
COMMENT ON TABLE atlvs.invoices IS 'Pack live_events: What clients are asked to pay; the last of a project is made when it is closed (W12)';

-- People and payroll.
CREATE TABLE IF NOT EXISTS atlvs.employees (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    name            text          NOT NULL,
    email           text,
    hourly_rate     numeric(14,2),
    day_rate        numeric(14,2),
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'hired',
    hired_on        date,
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT employees_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT employees_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT employees_status_known CHECK (status IN ('applicant', 'hired', 'left')),
    CONSTRAINT employees_rates_range CHECK (hourly_rate >= 0 AND hourly_rate < 1e9 AND day_rate >= 0 AND day_rate < 1e9),
    CONSTRAINT employees_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE UNIQUE INDEX IF NOT EXISTS employees_email_key ON atlvs.employees (organization_id, lower(email));
CREATE INDEX IF NOT EXISTS employees_status_idx ON atlvs.employees (organization_id, status);
COMMENT ON TABLE atlvs.employees IS 'Pack live_events: Who is on the payroll';
COMMENT ON COLUMN atlvs.employees.currency IS 'Of the rates';

CREATE TABLE IF NOT EXISTS atlvs.payroll_items (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    employee_id     uuid          NOT NULL,
    project_id      uuid,
    work_on         date          NOT NULL,
    source_ref      uuid          NOT NULL,
    kind            text          NOT NULL DEFAULT 'assignment',
    hours           numeric(6,2)  NOT NULL DEFAULT 0,
    overtime        numeric(6,2)  NOT NULL DEFAULT 0,
    rate            numeric(14,2) NOT NULL,
    gross           numeric(14,2) NOT NULL,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    status          text          NOT NULL DEFAULT 'draft',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT payroll_items_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT payroll_items_day_key UNIQUE NULLS NOT DISTINCT (organization_id, employee_id, project_id, work_on),
    CONSTRAINT payroll_items_employee_fkey FOREIGN KEY (organization_id, employee_id) REFERENCES atlvs.employees (organization_id, id),
    CONSTRAINT payroll_items_project_fkey FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
    CONSTRAINT payroll_items_kind_known CHECK (kind IN ('assignment', 'hours')),
    CONSTRAINT payroll_items_status_known CHECK (status IN ('draft', 'approved', 'paid', 'void')),
    CONSTRAINT payroll_items_hours_range CHECK (hours BETWEEN 0 AND 24 AND overtime BETWEEN 0 AND 24 AND hours + overtime <= 24),
    CONSTRAINT payroll_items_amounts_range CHECK (rate >= 0 AND rate < 1e9 AND gross >= 0 AND gross < 1e12),
    CONSTRAINT payroll_items_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS payroll_items_status_idx ON atlvs.payroll_items (organization_id, status);
CREATE INDEX IF NOT EXISTS payroll_items_project_idx ON atlvs.payroll_items (organization_id, project_id);
COMMENT ON TABLE atlvs.payroll_items IS 'Pack live_events: What an employee earns on a project''s day: at most one row, planned by an assignment (W4) until hours are approved (W6)';
COMMENT ON COLUMN atlvs.payroll_items.source_ref IS 'Id of the first crew assignment or time entry of the day in compvss';
COMMENT ON COLUMN atlvs.payroll_items.rate IS 'For the day, or for the hour';
COMMENT ON COLUMN atlvs.payroll_items.overtime IS 'Beside hours, not among them; paid 1.5 times';
CREATE OR REPLACE TRIGGER keep_paid BEFORE UPDATE ON atlvs.payroll_items
    FOR EACH ROW WHEN (OLD.status = 'paid' AND (OLD.status, OLD.kind, OLD.gross, OLD.currency) IS DISTINCT FROM (NEW.status, NEW.kind, NEW.gross, NEW.currency))
    EXECUTE FUNCTION atlvs.keep_paid('payroll item');

-- Things.
CREATE TABLE IF NOT EXISTS atlvs.assets (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    tag             text          NOT NULL,
    name            text          NOT NULL,
    category        text          NOT NULL,
    state           text          NOT NULL DEFAULT 'available',
    price           numeric(14,2),
    currency        char(3)       NOT NULL DEFAULT 'USD',
    bought_on       date,
    guest_visible   boolean       NOT NULL DEFAULT false,
    allocated_at    timestamptz,
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT assets_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT assets_tag_key UNIQUE (organization_id, tag),
    CONSTRAINT assets_names_given CHECK (btrim(tag) <> '' AND btrim(name) <> '' AND btrim(category) <> ''),
    CONSTRAINT assets_state_known CHECK (state IN ('available', 'reserved', 'deployed', 'maintenance', 'retired')),
    CONSTRAINT assets_price_range CHECK (price >= 0 AND price < 1e12),
    CONSTRAINT assets_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS assets_state_idx ON atlvs.assets (organization_id, state);
CREATE INDEX IF NOT EXISTS assets_category_idx ON atlvs.assets (organization_id, category, tag);
COMMENT ON TABLE atlvs.assets IS 'Pack live_events: Equipment; whether one is free at a time is said by its reservations';
COMMENT ON COLUMN atlvs.assets.state IS 'Where it is now; in maintenance or retired it is given to nobody (W3)';
COMMENT ON COLUMN atlvs.assets.allocated_at IS 'When it was last given to a production; every allocation writes it, so that two at once meet (W3)';

CREATE TABLE IF NOT EXISTS atlvs.asset_reservations (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    asset_id        uuid        NOT NULL,
    production_ref  uuid        NOT NULL,
    request_ref     uuid,
    period          tstzrange   NOT NULL,
    status          text        NOT NULL DEFAULT 'held',
    flagged         text,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT asset_reservations_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT asset_reservations_request_key UNIQUE (organization_id, request_ref),
    CONSTRAINT asset_reservations_asset_fkey FOREIGN KEY (organization_id, asset_id) REFERENCES atlvs.assets (organization_id, id),
    CONSTRAINT asset_reservations_period_given CHECK (NOT isempty(period) AND NOT lower_inf(period)),
    CONSTRAINT asset_reservations_status_known CHECK (status IN ('held', 'confirmed', 'released')),
    CONSTRAINT asset_reservations_confirmed_once
        EXCLUDE USING gist (organization_id WITH =, asset_id WITH =, period WITH &&) WHERE (status = 'confirmed')
);
CREATE INDEX IF NOT EXISTS asset_reservations_status_idx ON atlvs.asset_reservations (organization_id, status);
CREATE INDEX IF NOT EXISTS asset_reservations_asset_idx ON atlvs.asset_reservations (organization_id, asset_id);
CREATE INDEX IF NOT EXISTS asset_reservations_production_idx ON atlvs.asset_reservations (organization_id, production_ref);
COMMENT ON TABLE atlvs.asset_reservations IS 'Pack live_events: Who has an asset when; confirmed ones cannot overlap, held ones that do are a conflict (W13)';
COMMENT ON COLUMN atlvs.asset_reservations.production_ref IS 'Id in compvss.productions';
COMMENT ON COLUMN atlvs.asset_reservations.request_ref IS 'Id in compvss.asset_requests; empty for one made by hand';
COMMENT ON COLUMN atlvs.asset_reservations.flagged IS 'Why somebody should look at it, such as a maintenance that reaches into its period (W11)';

CREATE TABLE IF NOT EXISTS atlvs.maintenance_orders (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    asset_id        uuid          NOT NULL,
    damage_ref      uuid,
    severity        text          NOT NULL DEFAULT 'medium',
    due_on          date,
    status          text          NOT NULL DEFAULT 'open',
    cost            numeric(14,2),
    currency        char(3)       NOT NULL DEFAULT 'USD',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT maintenance_orders_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT maintenance_orders_damage_key UNIQUE (organization_id, damage_ref),
    CONSTRAINT maintenance_orders_asset_fkey FOREIGN KEY (organization_id, asset_id) REFERENCES atlvs.assets (organization_id, id),
    CONSTRAINT maintenance_orders_severity_known CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    CONSTRAINT maintenance_orders_status_known CHECK (status IN ('open', 'in_progress', 'done', 'cancelled')),
    CONSTRAINT maintenance_orders_cost_range CHECK (cost >= 0 AND cost < 1e12),
    CONSTRAINT maintenance_orders_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS maintenance_orders_status_idx ON atlvs.maintenance_orders (organization_id, status);
CREATE INDEX IF NOT EXISTS maintenance_orders_asset_idx ON atlvs.maintenance_orders (organization_id, asset_id);
COMMENT ON TABLE atlvs.maintenance_orders IS 'Pack live_events: What is to be repaired, once for each damage (W11)';
COMMENT ON COLUMN atlvs.maintenance_orders.damage_ref IS 'Id in compvss.damage_reports; empty for one made by hand';

CREATE TABLE IF NOT EXISTS atlvs.inventory_items (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    sku             text          NOT NULL,
    name            text          NOT NULL,
    on_hand         integer       NOT NULL DEFAULT 0,
    reorder_at      integer       NOT NULL DEFAULT 0,
    unit_cost       numeric(14,2) NOT NULL DEFAULT 0,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT inventory_items_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT inventory_items_sku_key UNIQUE (organization_id, sku),
    CONSTRAINT inventory_items_names_given CHECK (btrim(sku) <> '' AND btrim(name) <> ''),
    CONSTRAINT inventory_items_counts_not_negative CHECK (on_hand >= 0 AND reorder_at >= 0),
    CONSTRAINT inventory_items_cost_range CHECK (unit_cost >= 0 AND unit_cost < 1e12),
    CONSTRAINT inventory_items_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
COMMENT ON TABLE atlvs.inventory_items IS 'Pack live_events: What lies in the stores (W17)';
COMMENT ON COLUMN atlvs.inventory_items.reorder_at IS 'At so many or fewer it is time to reorder';
