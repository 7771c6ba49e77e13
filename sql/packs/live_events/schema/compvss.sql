-- Pack live_events: the tables of compvss, the production.

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
