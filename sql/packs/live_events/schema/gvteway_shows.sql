-- Pack live_events: more tables of gvteway: tickets, the door, merchandise, and what guests see and say.

-- Tickets and the door.
CREATE TABLE IF NOT EXISTS gvteway.tickets (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    item_id         uuid        NOT NULL,
    seat_id         uuid,
    code            text        NOT NULL,
    holder_id       uuid,
    status          text        NOT NULL DEFAULT 'valid',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tickets_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT tickets_code_key UNIQUE (organization_id, code),
    CONSTRAINT tickets_item_fkey FOREIGN KEY (organization_id, item_id)
        REFERENCES gvteway.order_items (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT tickets_seat_fkey FOREIGN KEY (organization_id, seat_id) REFERENCES gvteway.seats (organization_id, id),
    CONSTRAINT tickets_holder_fkey FOREIGN KEY (organization_id, holder_id)
        REFERENCES gvteway.guests (organization_id, id) ON DELETE SET NULL (holder_id),
    CONSTRAINT tickets_code_given CHECK (btrim(code) <> ''),
    CONSTRAINT tickets_status_known CHECK (status IN ('valid', 'used', 'void'))
);
CREATE UNIQUE INDEX IF NOT EXISTS tickets_seat_once ON gvteway.tickets (organization_id, seat_id) WHERE seat_id IS NOT NULL AND status <> 'void';
CREATE INDEX IF NOT EXISTS tickets_status_idx ON gvteway.tickets (organization_id, status);
CREATE INDEX IF NOT EXISTS tickets_item_idx ON gvteway.tickets (organization_id, item_id);
CREATE INDEX IF NOT EXISTS tickets_holder_idx ON gvteway.tickets (organization_id, holder_id) WHERE holder_id IS NOT NULL;
COMMENT ON TABLE gvteway.tickets IS 'Pack live_events: One per person who may come in; a seat has one that is not void';

CREATE TABLE IF NOT EXISTS gvteway.ticket_scans (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    ticket_id       uuid        NOT NULL,
    gate            text        NOT NULL,
    result          text        NOT NULL DEFAULT 'ok',
    scanned_at      timestamptz NOT NULL DEFAULT now(),
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ticket_scans_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT ticket_scans_ticket_fkey FOREIGN KEY (organization_id, ticket_id)
        REFERENCES gvteway.tickets (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT ticket_scans_gate_given CHECK (btrim(gate) <> ''),
    CONSTRAINT ticket_scans_result_known CHECK (result IN ('ok', 'duplicate', 'void', 'wrong_gate', 'refused'))
);
CREATE INDEX IF NOT EXISTS ticket_scans_ticket_idx ON gvteway.ticket_scans (organization_id, ticket_id);
CREATE INDEX IF NOT EXISTS ticket_scans_scanned_idx ON gvteway.ticket_scans (organization_id, scanned_at);
COMMENT ON TABLE gvteway.ticket_scans IS 'Pack live_events: Every look at a ticket at a gate; only ok lets somebody in';

-- Merchandise.
CREATE TABLE IF NOT EXISTS gvteway.merch_products (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    sku             text        NOT NULL,
    title           text        NOT NULL,
    price           numeric     NOT NULL DEFAULT 0,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    stock           integer     NOT NULL DEFAULT 0,
    counted_at      timestamptz NOT NULL DEFAULT '-infinity',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT merch_products_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT merch_products_sku_key UNIQUE (organization_id, sku),
    CONSTRAINT merch_products_sku_given CHECK (btrim(sku) <> ''),
    CONSTRAINT merch_products_title_given CHECK (btrim(title) <> ''),
    CONSTRAINT merch_products_price_range CHECK (price >= 0 AND price < 1e15),
    CONSTRAINT merch_products_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
COMMENT ON TABLE gvteway.merch_products IS 'Pack live_events: What guests can buy beside tickets';
COMMENT ON COLUMN gvteway.merch_products.stock IS 'In step with atlvs.inventory_items.on_hand of the same sku; below 0: sold, and not there';
COMMENT ON COLUMN gvteway.merch_products.counted_at IS 'Since when stock is truer than the store''s count, when the two first meet; never, unless somebody says so';

CREATE TABLE IF NOT EXISTS gvteway.stock_moves (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    source_ref      text        NOT NULL,
    product_id      uuid        NOT NULL,
    delta           integer     NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stock_moves_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT stock_moves_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT stock_moves_product_fkey FOREIGN KEY (organization_id, product_id)
        REFERENCES gvteway.merch_products (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT stock_moves_delta_some CHECK (delta <> 0)
);
CREATE INDEX IF NOT EXISTS stock_moves_product_idx ON gvteway.stock_moves (organization_id, product_id);
COMMENT ON TABLE gvteway.stock_moves IS 'Pack live_events: What sales have taken from stock and refunds have put back, once each; written by the flow only';
COMMENT ON COLUMN gvteway.stock_moves.source_ref IS 'sale:<order item>, or refund:<order item>';

-- What guests see and say.
CREATE TABLE IF NOT EXISTS gvteway.vip_guests (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    guest_id        uuid        NOT NULL,
    access_level    text        NOT NULL DEFAULT 'vip',
    plus_ones       integer     NOT NULL DEFAULT 0,
    status          text        NOT NULL DEFAULT 'invited',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT vip_guests_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT vip_guests_guest_key UNIQUE (organization_id, event_id, guest_id),
    CONSTRAINT vip_guests_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT vip_guests_guest_fkey FOREIGN KEY (organization_id, guest_id)
        REFERENCES gvteway.guests (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT vip_guests_access_level_given CHECK (btrim(access_level) <> ''),
    CONSTRAINT vip_guests_plus_ones_range CHECK (plus_ones BETWEEN 0 AND 100),
    CONSTRAINT vip_guests_status_known CHECK (status IN ('invited', 'confirmed', 'declined', 'cancelled'))
);
CREATE INDEX IF NOT EXISTS vip_guests_status_idx ON gvteway.vip_guests (organization_id, status);
CREATE INDEX IF NOT EXISTS vip_guests_by_guest_idx ON gvteway.vip_guests (organization_id, guest_id);
COMMENT ON TABLE gvteway.vip_guests IS 'Pack live_events: Who is invited to an event, and how far in';

CREATE TABLE IF NOT EXISTS gvteway.reviews (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    guest_id        uuid,
    rating          smallint    NOT NULL,
    vendor_ref      uuid,
    note            text,
    status          text        NOT NULL DEFAULT 'pending',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reviews_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT reviews_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT reviews_guest_fkey FOREIGN KEY (organization_id, guest_id)
        REFERENCES gvteway.guests (organization_id, id) ON DELETE SET NULL (guest_id),
    CONSTRAINT reviews_rating_range CHECK (rating BETWEEN 1 AND 5),
    CONSTRAINT reviews_status_known CHECK (status IN ('pending', 'published', 'flagged', 'hidden'))
);
CREATE INDEX IF NOT EXISTS reviews_status_idx ON gvteway.reviews (organization_id, status);
CREATE INDEX IF NOT EXISTS reviews_event_idx ON gvteway.reviews (organization_id, event_id);
CREATE INDEX IF NOT EXISTS reviews_guest_idx ON gvteway.reviews (organization_id, guest_id) WHERE guest_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS reviews_vendor_idx ON gvteway.reviews (organization_id, vendor_ref, status) WHERE vendor_ref IS NOT NULL;
COMMENT ON TABLE gvteway.reviews IS 'Pack live_events: What guests say of an event, or of a vendor there; only published ones count';
COMMENT ON COLUMN gvteway.reviews.vendor_ref IS 'Id in atlvs.vendors, where the review is about a vendor';

CREATE TABLE IF NOT EXISTS gvteway.event_info (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    kind            text        NOT NULL,
    source_ref      text        NOT NULL,
    title           text        NOT NULL,
    body            jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_info_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT event_info_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT event_info_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT event_info_kind_known CHECK (kind IN ('service', 'parking', 'transport', 'experience')),
    CONSTRAINT event_info_title_given CHECK (btrim(title) <> '')
);
CREATE INDEX IF NOT EXISTS event_info_event_idx ON gvteway.event_info (organization_id, event_id, kind);
COMMENT ON TABLE gvteway.event_info IS 'Pack live_events: What guests should know beforehand: services, parking, transport, experiences';
COMMENT ON COLUMN gvteway.event_info.source_ref IS 'Where it comes from: the id of the row in compvss.guest_info, or asset:<id>';

CREATE TABLE IF NOT EXISTS gvteway.set_times (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    source_ref      text        NOT NULL,
    artist          text        NOT NULL,
    stage           text,
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz,
    status          text        NOT NULL DEFAULT 'scheduled',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT set_times_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT set_times_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT set_times_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT set_times_artist_given CHECK (btrim(artist) <> ''),
    CONSTRAINT set_times_ends_after_start CHECK (ends_at >= starts_at),
    CONSTRAINT set_times_status_known CHECK (status IN ('scheduled', 'delayed', 'live', 'done', 'cancelled'))
);
CREATE INDEX IF NOT EXISTS set_times_status_idx ON gvteway.set_times (organization_id, status);
CREATE INDEX IF NOT EXISTS set_times_event_idx ON gvteway.set_times (organization_id, event_id, starts_at);
COMMENT ON TABLE gvteway.set_times IS 'Pack live_events: Who plays when and where';
COMMENT ON COLUMN gvteway.set_times.source_ref IS 'Id in compvss.schedule_items';

CREATE TABLE IF NOT EXISTS gvteway.gallery_items (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    source_ref      text        NOT NULL,
    url             text        NOT NULL,
    caption         text,
    credit          text,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT gallery_items_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT gallery_items_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT gallery_items_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT gallery_items_url_given CHECK (btrim(url) <> '')
);
CREATE INDEX IF NOT EXISTS gallery_items_event_idx ON gvteway.gallery_items (organization_id, event_id);
COMMENT ON TABLE gvteway.gallery_items IS 'Pack live_events: Pictures and films of an event';
COMMENT ON COLUMN gvteway.gallery_items.source_ref IS 'Id in compvss.media_files';

CREATE TABLE IF NOT EXISTS gvteway.announcements (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    kind            text        NOT NULL,
    severity        text        NOT NULL DEFAULT 'info',
    message         text        NOT NULL,
    source_ref      text        NOT NULL,
    revision        bigint      NOT NULL DEFAULT 1,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT announcements_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT announcements_source_key UNIQUE (organization_id, source_ref, revision),
    CONSTRAINT announcements_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT announcements_kind_known CHECK (kind IN ('schedule', 'delay', 'incident', 'weather')),
    CONSTRAINT announcements_severity_known CHECK (severity IN ('info', 'warning', 'critical', 'emergency')),
    CONSTRAINT announcements_message_given CHECK (btrim(message) <> '')
);
CREATE INDEX IF NOT EXISTS announcements_event_idx ON gvteway.announcements (organization_id, event_id, created_at);
COMMENT ON TABLE gvteway.announcements IS 'Pack live_events: What is told to the guests of an event, once for each state of its cause';
COMMENT ON COLUMN gvteway.announcements.source_ref IS 'The row in compvss that it is about: schedule_item:<id>, incident:<id>, alert:<id>';
COMMENT ON COLUMN gvteway.announcements.revision IS 'The version of that row';
