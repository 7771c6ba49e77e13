-- Pack live_events: the tables of compvss that are about the show: schedule, layouts, incidents, what guests should know.

CREATE TABLE IF NOT EXISTS compvss.schedule_items (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    kind            text        NOT NULL DEFAULT 'other',
    title           text        NOT NULL,
    artist          text,
    stage           text,
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz,
    delay_min       integer     NOT NULL DEFAULT 0,
    public          boolean     NOT NULL DEFAULT false,
    status          text        NOT NULL DEFAULT 'scheduled',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT schedule_items_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT schedule_items_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT schedule_items_kind_known CHECK (kind IN ('load_in', 'doors', 'set', 'curfew', 'other')),
    CONSTRAINT schedule_items_title_given CHECK (btrim(title) <> ''),
    CONSTRAINT schedule_items_status_known CHECK (status IN ('scheduled', 'delayed', 'live', 'done', 'cancelled')),
    CONSTRAINT schedule_items_ends_after_start CHECK (ends_at >= starts_at),
    CONSTRAINT schedule_items_delay_range CHECK (delay_min BETWEEN 0 AND 10080)
);
CREATE INDEX IF NOT EXISTS schedule_items_status_idx ON compvss.schedule_items (organization_id, status);
CREATE INDEX IF NOT EXISTS schedule_items_production_idx ON compvss.schedule_items (organization_id, production_id, kind, starts_at);
COMMENT ON TABLE compvss.schedule_items IS 'Pack live_events: What happens when; what is public reaches the guests';
COMMENT ON COLUMN compvss.schedule_items.starts_at IS 'As planned';
COMMENT ON COLUMN compvss.schedule_items.delay_min IS 'By how many minutes it is late on the day; guests see the plan and this';

CREATE TABLE IF NOT EXISTS compvss.venue_layouts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    revision        integer     NOT NULL DEFAULT 1,
    capacity        integer     NOT NULL,
    status          text        NOT NULL DEFAULT 'draft',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT venue_layouts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT venue_layouts_revision_key UNIQUE (organization_id, production_id, revision),
    CONSTRAINT venue_layouts_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT venue_layouts_revision_positive CHECK (revision > 0),
    CONSTRAINT venue_layouts_capacity_not_negative CHECK (capacity >= 0),
    CONSTRAINT venue_layouts_status_known CHECK (status IN ('draft', 'approved', 'superseded'))
);
CREATE INDEX IF NOT EXISTS venue_layouts_status_idx ON compvss.venue_layouts (organization_id, status);
COMMENT ON TABLE compvss.venue_layouts IS 'Pack live_events: How the venue is set up; of those that are approved the highest revision holds';

CREATE TABLE IF NOT EXISTS compvss.seating_sections (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    layout_id       uuid        NOT NULL,
    code            text        NOT NULL,
    kind            text        NOT NULL DEFAULT 'ga',
    rows            integer,
    seats_per_row   integer,
    capacity        integer     NOT NULL,
    price_tier      text,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT seating_sections_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT seating_sections_code_key UNIQUE (organization_id, layout_id, code),
    CONSTRAINT seating_sections_layout_fkey FOREIGN KEY (organization_id, layout_id)
        REFERENCES compvss.venue_layouts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT seating_sections_code_given CHECK (btrim(code) <> ''),
    CONSTRAINT seating_sections_kind_known CHECK (kind IN ('seated', 'ga', 'vip', 'accessible')),
    CONSTRAINT seating_sections_counts_range CHECK (rows BETWEEN 0 AND 1000 AND seats_per_row BETWEEN 0 AND 1000 AND capacity >= 0)
);
COMMENT ON TABLE compvss.seating_sections IS 'Pack live_events: Parts of a layout';
COMMENT ON COLUMN compvss.seating_sections.rows IS 'Rows of seats, with seats_per_row; empty or 0 where nobody has a numbered seat';

CREATE TABLE IF NOT EXISTS compvss.incidents (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    kind            text        NOT NULL DEFAULT 'other',
    severity        text        NOT NULL DEFAULT 'medium',
    guest_impact    boolean     NOT NULL DEFAULT false,
    public_message  text,
    source_ref      text,
    vendor_ref      uuid,
    status          text        NOT NULL DEFAULT 'open',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT incidents_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT incidents_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT incidents_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT incidents_kind_given CHECK (btrim(kind) <> ''),
    CONSTRAINT incidents_severity_known CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    CONSTRAINT incidents_status_known CHECK (status IN ('open', 'in_progress', 'resolved', 'cancelled'))
);
CREATE INDEX IF NOT EXISTS incidents_status_idx ON compvss.incidents (organization_id, status);
CREATE INDEX IF NOT EXISTS incidents_production_idx ON compvss.incidents (organization_id, production_id);
COMMENT ON TABLE compvss.incidents IS 'Pack live_events: What went wrong on site, or in the eyes of a guest';
COMMENT ON COLUMN compvss.incidents.kind IS 'Such as medical, technical, security; "feedback" is what a review said, and is never told to guests';
COMMENT ON COLUMN compvss.incidents.guest_impact IS 'Guests are told, by public_message, until it is resolved';
COMMENT ON COLUMN compvss.incidents.source_ref IS 'What it was made from, such as the id of a review; empty when somebody entered it';
COMMENT ON COLUMN compvss.incidents.vendor_ref IS 'Id in atlvs.vendors: who is to blame';

CREATE TABLE IF NOT EXISTS compvss.alerts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    kind            text        NOT NULL,
    level           text        NOT NULL,
    headline        text        NOT NULL,
    valid           tstzrange,
    source_ref      text,
    status          text        NOT NULL DEFAULT 'open',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alerts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT alerts_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT alerts_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT alerts_kind_known CHECK (kind IN ('risk', 'compliance', 'weather')),
    CONSTRAINT alerts_level_known CHECK (
        CASE WHEN kind = 'weather' THEN level IN ('info', 'advisory', 'watch', 'warning', 'emergency')
             ELSE level IN ('low', 'medium', 'high', 'critical') END),
    CONSTRAINT alerts_status_known CHECK (status IN ('open', 'acknowledged', 'resolved'))
);
CREATE INDEX IF NOT EXISTS alerts_status_idx ON compvss.alerts (organization_id, status);
CREATE INDEX IF NOT EXISTS alerts_production_idx ON compvss.alerts (organization_id, production_id, kind);
COMMENT ON TABLE compvss.alerts IS 'Pack live_events: What may go wrong: risks, compliance, weather';
COMMENT ON COLUMN compvss.alerts.level IS 'Risk and compliance: low, medium, high, critical. Weather: info, advisory, watch, warning, emergency';
COMMENT ON COLUMN compvss.alerts.valid IS 'When it is expected; empty: from now on, until it is resolved';
COMMENT ON COLUMN compvss.alerts.source_ref IS 'What it was made from, such as the number of a weather service''s alert';

CREATE TABLE IF NOT EXISTS compvss.media_files (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    crew_id         uuid,
    url             text        NOT NULL,
    caption         text,
    credit          text,
    status          text        NOT NULL DEFAULT 'uploaded',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT media_files_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT media_files_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT media_files_crew_fkey FOREIGN KEY (organization_id, crew_id)
        REFERENCES compvss.crew_members (organization_id, id) ON DELETE SET NULL (crew_id),
    CONSTRAINT media_files_url_given CHECK (btrim(url) <> ''),
    CONSTRAINT media_files_status_known CHECK (status IN ('uploaded', 'approved', 'rejected'))
);
CREATE INDEX IF NOT EXISTS media_files_status_idx ON compvss.media_files (organization_id, status);
CREATE INDEX IF NOT EXISTS media_files_production_idx ON compvss.media_files (organization_id, production_id);
CREATE INDEX IF NOT EXISTS media_files_crew_idx ON compvss.media_files (organization_id, crew_id);
COMMENT ON TABLE compvss.media_files IS 'Pack live_events: Pictures and films; those that are approved are shown to guests';
COMMENT ON COLUMN compvss.media_files.credit IS 'Who made it, as it is shown; empty: the name of the crew member';

CREATE TABLE IF NOT EXISTS compvss.guest_info (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    kind            text        NOT NULL,
    name            text        NOT NULL,
    body            jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT guest_info_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT guest_info_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT guest_info_kind_known CHECK (kind IN ('service', 'parking', 'transport', 'experience')),
    CONSTRAINT guest_info_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT guest_info_body_is_object CHECK (jsonb_typeof(body) = 'object')
);
CREATE INDEX IF NOT EXISTS guest_info_production_idx ON compvss.guest_info (organization_id, production_id, kind);
COMMENT ON TABLE compvss.guest_info IS 'Pack live_events: What guests should know about the site';

-- What was counted for a scan stands beside the counts, so that a scan that comes again adds nothing, and one that is
-- corrected moves.
CREATE TABLE IF NOT EXISTS compvss.access_counts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    gate            text        NOT NULL,
    bucket_at       timestamptz NOT NULL,
    scanned         integer     NOT NULL DEFAULT 0,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT access_counts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT access_counts_bucket_key UNIQUE (organization_id, production_id, gate, bucket_at),
    CONSTRAINT access_counts_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT access_counts_gate_given CHECK (btrim(gate) <> ''),
    CONSTRAINT access_counts_bucket_whole CHECK (date_bin('5 minutes', bucket_at, timestamptz '2000-01-01 00:00:00+00') = bucket_at),
    CONSTRAINT access_counts_scanned_not_negative CHECK (scanned >= 0)
);
COMMENT ON TABLE compvss.access_counts IS 'Pack live_events: How many came in, by gate and five minutes; written by the flow only';
COMMENT ON COLUMN compvss.access_counts.bucket_at IS 'Beginning of the five minutes';

CREATE TABLE IF NOT EXISTS compvss.counted_scans (
    organization_id uuid        NOT NULL,
    scan_ref        uuid        NOT NULL,
    production_id   uuid        NOT NULL,
    gate            text        NOT NULL,
    bucket_at       timestamptz NOT NULL,
    CONSTRAINT counted_scans_pkey PRIMARY KEY (organization_id, scan_ref),
    CONSTRAINT counted_scans_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS counted_scans_production_idx ON compvss.counted_scans (organization_id, production_id);
COMMENT ON TABLE compvss.counted_scans IS 'Pack live_events: Where a scan was counted in compvss.access_counts; written by the flow only';
COMMENT ON COLUMN compvss.counted_scans.scan_ref IS 'Id in gvteway.ticket_scans';

CREATE TABLE IF NOT EXISTS compvss.backstage_list (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    guest_ref       uuid        NOT NULL,
    name            text,
    access_level    text        NOT NULL,
    plus_ones       integer     NOT NULL DEFAULT 0,
    status          text        NOT NULL DEFAULT 'active',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT backstage_list_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT backstage_list_guest_key UNIQUE (organization_id, production_id, guest_ref),
    CONSTRAINT backstage_list_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT backstage_list_level_given CHECK (btrim(access_level) <> ''),
    CONSTRAINT backstage_list_plus_ones_range CHECK (plus_ones BETWEEN 0 AND 100),
    CONSTRAINT backstage_list_status_known CHECK (status IN ('active', 'revoked'))
);
CREATE INDEX IF NOT EXISTS backstage_list_status_idx ON compvss.backstage_list (organization_id, status);
COMMENT ON TABLE compvss.backstage_list IS 'Pack live_events: Who is let in behind the stage; written by the flow only';
COMMENT ON COLUMN compvss.backstage_list.guest_ref IS 'Id in gvteway.guests';
COMMENT ON COLUMN compvss.backstage_list.name IS 'As the guest is called; empty once the guest is erased';

CREATE TABLE IF NOT EXISTS compvss.merch_forecasts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    sku             text        NOT NULL,
    sold            integer     NOT NULL DEFAULT 0,
    projected       integer,
    stock           integer,
    reorder         boolean     NOT NULL DEFAULT false,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT merch_forecasts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT merch_forecasts_sku_key UNIQUE (organization_id, production_id, sku),
    CONSTRAINT merch_forecasts_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT merch_forecasts_sku_given CHECK (btrim(sku) <> ''),
    CONSTRAINT merch_forecasts_counts_not_negative CHECK (sold >= 0 AND projected >= 0)
);
CREATE INDEX IF NOT EXISTS merch_forecasts_sku_idx ON compvss.merch_forecasts (organization_id, sku);
CREATE INDEX IF NOT EXISTS merch_forecasts_reorder_idx ON compvss.merch_forecasts (organization_id, production_id) WHERE reorder;
CREATE TABLE IF NOT EXISTS compvss.counted_merch (
    organization_id uuid    NOT NULL,
    item_ref        uuid    NOT NULL,
    order_ref       uuid    NOT NULL,
    production_id   uuid    NOT NULL,
    sku             text    NOT NULL,
    qty             integer NOT NULL,
    CONSTRAINT counted_merch_pkey PRIMARY KEY (organization_id, item_ref),
    CONSTRAINT counted_merch_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS counted_merch_order_idx ON compvss.counted_merch (organization_id, order_ref);
CREATE INDEX IF NOT EXISTS counted_merch_production_idx ON compvss.counted_merch (organization_id, production_id);
COMMENT ON TABLE compvss.counted_merch IS 'Pack live_events: For which lines of orders merch_forecasts.sold has been counted, and where, so that each counts once; written by the flow only';
COMMENT ON COLUMN compvss.counted_merch.item_ref IS 'Id in gvteway.order_items';

COMMENT ON TABLE compvss.merch_forecasts IS 'Pack live_events: What of an article is sold, and what will be; written by the flow only';
COMMENT ON COLUMN compvss.merch_forecasts.projected IS 'What will be sold in all when every expected guest has come; empty without an expectation';
COMMENT ON COLUMN compvss.merch_forecasts.stock IS 'What was left when it was last counted, or when reorder last changed; empty for an article nobody keeps a stock of';
COMMENT ON COLUMN compvss.merch_forecasts.reorder IS 'What is left will not do for what is still to be sold';

CREATE TABLE IF NOT EXISTS compvss.satisfaction_surveys (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_id   uuid        NOT NULL,
    contact_ref     uuid        NOT NULL,
    score           integer     NOT NULL,
    note            text,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT satisfaction_surveys_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT satisfaction_surveys_production_fkey FOREIGN KEY (organization_id, production_id)
        REFERENCES compvss.productions (organization_id, id),
    CONSTRAINT satisfaction_surveys_score_range CHECK (score BETWEEN 1 AND 10)
);
CREATE INDEX IF NOT EXISTS satisfaction_surveys_contact_idx ON compvss.satisfaction_surveys (organization_id, contact_ref);
COMMENT ON TABLE compvss.satisfaction_surveys IS 'Pack live_events: What a client says about a production';
COMMENT ON COLUMN compvss.satisfaction_surveys.contact_ref IS 'Id in atlvs.contacts';
