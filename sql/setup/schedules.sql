-- Flows that a clock starts, and work that goes through many rows in slices.

-- One row for each flow with a schedule and time zone in which it is due.
CREATE TABLE usher.flow_schedules (
    flow_id integer NOT NULL,
    timezone text NOT NULL,
    schedule text NOT NULL,
    handled_until timestamptz NOT NULL,
    next_at timestamptz,
    last_at timestamptz,
    CONSTRAINT flow_schedules_pkey PRIMARY KEY (flow_id, timezone),
    CONSTRAINT flow_schedules_flow_fkey FOREIGN KEY (flow_id) REFERENCES usher.flows (id) ON DELETE CASCADE
);
COMMENT ON TABLE usher.flow_schedules IS 'when flows with a schedule are due; usher.schedules is the view to read';
COMMENT ON COLUMN usher.flow_schedules.handled_until IS 'all times up to here have had their run, or were left out as "missed" says';

-- The key makes a run happen once, whoever makes it and whatever the clock says; written with its job.
CREATE TABLE usher.schedule_runs (
    organization_id uuid NOT NULL,
    flow_id integer NOT NULL,
    scheduled_at timestamptz NOT NULL,
    job_id uuid NOT NULL,
    CONSTRAINT schedule_runs_pkey PRIMARY KEY (organization_id, flow_id, scheduled_at)
);
CREATE INDEX schedule_runs_time_idx ON usher.schedule_runs (scheduled_at, flow_id);
COMMENT ON TABLE usher.schedule_runs IS 'the job of each flow, organization and scheduled time; kept as long as the history';

CREATE TABLE usher.work_items (
    id uuid NOT NULL,
    kind text NOT NULL,
    flow_id integer NOT NULL,
    flow text NOT NULL,
    state text NOT NULL DEFAULT 'running',
    slice integer NOT NULL,
    step integer NOT NULL,
    condition text,
    first_at timestamptz,
    last_at timestamptz,
    position text[],
    final_position text[],
    total bigint NOT NULL,
    total_is text NOT NULL,
    done bigint NOT NULL DEFAULT 0,
    jobs bigint NOT NULL DEFAULT 0,
    message text,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    started_by text NOT NULL,
    -- The rate is of the time since the work went on last.
    resumed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    done_before bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    finished_at timestamptz,
    CONSTRAINT work_items_pkey PRIMARY KEY (id),
    CONSTRAINT work_items_kind_known CHECK (kind IN ('backfill', 'replay', 'events')),
    CONSTRAINT work_items_state_known CHECK (state IN ('running', 'paused', 'failed', 'done', 'cancelled')),
    CONSTRAINT work_items_total_is_known CHECK (total_is IN ('exact', 'estimated'))
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX work_items_open_key ON usher.work_items (flow_id, kind) WHERE finished_at IS NULL;
COMMENT ON TABLE usher.work_items IS 'backfills and replays, of jobs or of events; usher.progress is the view to read';
COMMENT ON COLUMN usher.work_items.step IS 'the size of the next slice: smaller after a row that was locked';
COMMENT ON COLUMN usher.work_items.position IS 'everything up to this key is in the queue; moves in the transaction that puts it there';

-- Dead letters of a backfill are counted by their cause.
CREATE INDEX dead_letters_cause_idx ON usher.dead_letters (cause) WHERE cause IS NOT NULL;
