-- Runs of workflows. What a step does is done by jobs; here stands how far each run is.
CREATE TABLE usher.workflow_runs (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    flow_id integer NOT NULL,
    version integer NOT NULL,
    workflow text NOT NULL,
    state text NOT NULL DEFAULT 'running',
    input jsonb NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    trail text,
    cause uuid,
    started_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at timestamptz,
    given_up boolean NOT NULL DEFAULT false,
    hears_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    error_message text,
    remedy text,
    CONSTRAINT workflow_runs_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT workflow_runs_state_known CHECK (state IN ('running', 'undoing', 'parked', 'done', 'undone', 'closed'))
) WITH (fillfactor = 80);
-- None that begins with the organization: while the table is thought to be empty it would be as good as the key.
CREATE INDEX workflow_runs_open_idx ON usher.workflow_runs (flow_id) WHERE ended_at IS NULL;
CREATE INDEX workflow_runs_ended_idx ON usher.workflow_runs (ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON TABLE usher.workflow_runs IS 'runs of workflows: running, undoing, parked (somebody has to decide), done, undone, closed';
COMMENT ON COLUMN usher.workflow_runs.version IS 'of the flow: a run ends with the version that it began with';
COMMENT ON COLUMN usher.workflow_runs.hears_since IS 'events that were emitted from then on may be this run''s: when what began it happened';
COMMENT ON COLUMN usher.workflow_runs.error_message IS 'why it was undone or is parked';
COMMENT ON COLUMN usher.workflow_runs.remedy IS 'what somebody can do about a run that is parked';

-- A row comes when a step begins. Item 0 is the step, 1 and more are the elements of one that is done for each of them.
CREATE TABLE usher.workflow_steps (
    organization_id uuid NOT NULL,
    run_id uuid NOT NULL,
    step text NOT NULL,
    item integer NOT NULL DEFAULT 0,
    state text NOT NULL,
    job_id uuid,
    clock_id uuid,
    data jsonb,
    result jsonb,
    error_message text,
    sqlstate text,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at timestamptz,
    undo_started_at timestamptz,
    undone_at timestamptz,
    CONSTRAINT workflow_steps_pkey PRIMARY KEY (organization_id, run_id, step, item),
    CONSTRAINT workflow_steps_state_known
        CHECK (state IN ('looking', 'running', 'waiting', 'sleeping', 'done', 'skipped', 'failed', 'cancelled', 'undoing', 'undone', 'stuck'))
) WITH (fillfactor = 80);
COMMENT ON TABLE usher.workflow_steps IS 'steps of runs that have begun';
COMMENT ON COLUMN usher.workflow_steps.job_id IS 'the job that is, or was last, at work on it';
COMMENT ON COLUMN usher.workflow_steps.clock_id IS 'the job that is due when its sleep or its deadline is over';
COMMENT ON COLUMN usher.workflow_steps.data IS 'the element that it is done for';

-- Events that runs wait for. An event's data are hashed as the run's expectations are, so that it finds its runs by index.
CREATE TABLE usher.workflow_waits (
    organization_id uuid NOT NULL,
    run_id uuid NOT NULL,
    step text NOT NULL,
    listener integer NOT NULL,
    key bigint NOT NULL,
    data jsonb NOT NULL,
    CONSTRAINT workflow_waits_pkey PRIMARY KEY (organization_id, run_id, step)
);
CREATE INDEX workflow_waits_key_idx ON usher.workflow_waits (organization_id, listener, key);
COMMENT ON TABLE usher.workflow_waits IS 'events that runs of workflows wait for';

-- Signals that came before their step.
CREATE TABLE usher.workflow_signals (
    organization_id uuid NOT NULL,
    run_id uuid NOT NULL,
    signal text NOT NULL,
    data jsonb NOT NULL,
    sent_by text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT workflow_signals_pkey PRIMARY KEY (organization_id, run_id, signal)
);
COMMENT ON TABLE usher.workflow_signals IS 'signals to runs of workflows that are not yet waited for';

-- Jobs of steps that ended where no batch of a worker could tell the run at once. A row goes when the run has been told.
CREATE TABLE usher.workflow_checks (
    organization_id uuid NOT NULL,
    job_id uuid NOT NULL,
    fate text NOT NULL,
    payload jsonb NOT NULL,
    error_message text,
    sqlstate text
);
COMMENT ON TABLE usher.workflow_checks IS 'ends of steps that their runs are still to be told';

-- What people, and failures, did to runs; what steps did stands in usher.workflow_steps.
CREATE TABLE usher.workflow_log (
    organization_id uuid NOT NULL,
    run_id uuid NOT NULL,
    id uuid NOT NULL,
    happened_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    what text NOT NULL,
    step text,
    item integer,
    detail text,
    by_whom text,
    CONSTRAINT workflow_log_pkey PRIMARY KEY (organization_id, run_id, id)
);
COMMENT ON TABLE usher.workflow_log IS 'failures of steps, signals, cancellations and retries of runs';
