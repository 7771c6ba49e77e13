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

-- Flows that listen or emit, among many that do neither.
CREATE INDEX flows_event_idx ON usher.flows (id) WHERE definition -> 'when' ? 'event';
CREATE INDEX flows_emit_idx ON usher.flows (id) WHERE definition -> 'then' ? 'emit';

-- Who listens outside the database: an external system, whose workers take the events as jobs.
CREATE TABLE usher.event_subscriptions (
    system text NOT NULL,
    -- NULL: the events of every organization.
    organization_id uuid,
    patterns text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL,
    CONSTRAINT event_subscriptions_key UNIQUE NULLS NOT DISTINCT (organization_id, system),
    CONSTRAINT event_subscriptions_patterns_some CHECK (pg_catalog.cardinality(patterns) > 0)
);
COMMENT ON TABLE usher.event_subscriptions IS 'external systems that get events: usher.claim_jobs(system) hands them out';
COMMENT ON COLUMN usher.event_subscriptions.organization_id IS 'whose events it gets; NULL: of every organization';
COMMENT ON COLUMN usher.event_subscriptions.patterns IS 'types that it gets, such as orders.**; an event that several of them mean comes once';

-- Events whose receipt somebody wants to know of, and who is to have received them. What became of each is what became of its job.
CREATE TABLE usher.broadcasts (
    organization_id uuid NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    broadcast_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    broadcast_by text NOT NULL,
    due_at timestamptz NOT NULL,
    settled_at timestamptz,
    escalated boolean,
    CONSTRAINT broadcasts_pkey PRIMARY KEY (organization_id, event_id),
    CONSTRAINT broadcasts_settled_whole CHECK ((settled_at IS NULL) = (escalated IS NULL))
);
CREATE INDEX broadcasts_due_idx ON usher.broadcasts (due_at) WHERE settled_at IS NULL;
COMMENT ON TABLE usher.broadcasts IS 'emergency events and until when they must be received; usher.event_receipts(event) tells by whom they are';
COMMENT ON COLUMN usher.broadcasts.settled_at IS 'when it was looked at who has not received it in time';
COMMENT ON COLUMN usher.broadcasts.escalated IS 'somebody had not: a notice was made, and an event usher.broadcast.unacknowledged';
CREATE TABLE usher.broadcast_receivers (
    organization_id uuid NOT NULL,
    event_id uuid NOT NULL,
    job_id uuid NOT NULL,
    receiver text NOT NULL,
    outside boolean NOT NULL,
    CONSTRAINT broadcast_receivers_pkey PRIMARY KEY (organization_id, event_id, job_id),
    CONSTRAINT broadcast_receivers_event_fkey FOREIGN KEY (organization_id, event_id) REFERENCES usher.broadcasts (organization_id, event_id) ON DELETE CASCADE
);
COMMENT ON TABLE usher.broadcast_receivers IS 'who is to receive a broadcast, and the job by which';
COMMENT ON COLUMN usher.broadcast_receivers.receiver IS 'a flow, or an external system';
