-- Pack live_events: the tables of gvteway, what guests see.

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
