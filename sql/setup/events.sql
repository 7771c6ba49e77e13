-- What has happened, day by day. Only added to; what comes of it are jobs.
CREATE TABLE usher.events (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    type text NOT NULL,
    data jsonb NOT NULL,
    priority smallint,
    emitted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    emitted_by text NOT NULL,
    cause uuid,
    hop smallint NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (organization_id, id, emitted_at),
    CONSTRAINT events_data_check CHECK (pg_catalog.jsonb_typeof(data) = 'object')
) PARTITION BY RANGE (emitted_at);
CREATE INDEX events_type_idx ON usher.events (organization_id, type, emitted_at);
-- Events of a day that has no partition.
CREATE TABLE usher.events_default PARTITION OF usher.events DEFAULT;
SELECT usher.maintain_days('events', NULL);
COMMENT ON TABLE usher.events IS 'events of the bus, as they were emitted; kept for usher.history_days';
COMMENT ON COLUMN usher.events.type IS 'words with dots between them, such as orders.paid';
COMMENT ON COLUMN usher.events.priority IS 'the lane that the emitter asked for; NULL: each flow''s own';
COMMENT ON COLUMN usher.events.emitted_by IS 'a user''s id, role:NAME, or flow NAME';
COMMENT ON COLUMN usher.events.cause IS 'the job whose flow emitted it';
COMMENT ON COLUMN usher.events.hop IS 'how many jobs led to it';
