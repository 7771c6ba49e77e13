-- What a caller may ask of a job beyond its payload, and what belongs together.

-- One row for each job that was given options. Never updated but for a retry by hand, so that it costs its insert and nothing
-- more; it goes when the job is forgotten.
CREATE TABLE usher.job_options (
    organization_id uuid NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    retry jsonb,
    expires_at timestamptz,
    run_at timestamptz,
    batch_id uuid,
    CONSTRAINT job_options_pkey PRIMARY KEY (organization_id, job_id)
);
CREATE INDEX job_options_batch_idx ON usher.job_options (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX job_options_created_idx ON usher.job_options (created_at);
COMMENT ON TABLE usher.job_options IS 'options that callers gave for single jobs: retry rule, expiry, batch';

-- Expiries to come. A row goes when its time has come, whether or not the job still waits then.
CREATE TABLE usher.job_expiries (
    organization_id uuid NOT NULL,
    job_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT job_expiries_pkey PRIMARY KEY (organization_id, job_id)
);
CREATE INDEX job_expiries_time_idx ON usher.job_expiries (expires_at);
COMMENT ON TABLE usher.job_expiries IS 'when jobs expire that have not started by then';

-- job_id waits for after_id. A row goes when after_id is done; failed says that it will not be.
CREATE TABLE usher.job_dependencies (
    organization_id uuid NOT NULL,
    job_id uuid NOT NULL,
    after_id uuid NOT NULL,
    run_anyway boolean NOT NULL,
    failed text CONSTRAINT job_dependencies_failed_known CHECK (failed IN ('dead', 'cancelled')),
    CONSTRAINT job_dependencies_pkey PRIMARY KEY (organization_id, after_id, job_id)
);
CREATE INDEX job_dependencies_job_idx ON usher.job_dependencies (organization_id, job_id);
COMMENT ON TABLE usher.job_dependencies IS 'which job waits for which other one to be synced';

-- What must be looked at once the transaction that wrote the row has committed: two that run side by side do not see each
-- other, the one that looks afterwards sees both.
CREATE TABLE usher.job_checks (
    organization_id uuid NOT NULL,
    job_id uuid NOT NULL,
    ended boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE usher.job_checks IS 'jobs whose dependencies must be looked at: they wait for others, or (ended) others may wait for them';

ALTER TABLE usher.job_keys ADD COLUMN held_for text NOT NULL DEFAULT 'history'
    CONSTRAINT job_keys_held_for_known CHECK (held_for IN ('history', 'pending', 'period', 'ever'));
ALTER TABLE usher.job_keys ADD COLUMN held_until timestamptz;
CREATE INDEX job_keys_created_idx ON usher.job_keys (created_at) WHERE held_for IN ('history', 'pending');
CREATE INDEX job_keys_until_idx ON usher.job_keys (held_until) WHERE held_for = 'period';
COMMENT ON COLUMN usher.job_keys.held_for IS 'history: as long as the job is remembered; pending: until it has ended; period: until held_until; ever';

-- Batches. The counts here are those that have been gathered; what has happened since stands in batch_tallies, one row for
-- each transaction that ended jobs of the batch, so that workers do not wait for each other.
CREATE TABLE usher.batch_definitions (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    completion jsonb,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    sealed_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    total bigint,
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    completion_job uuid,
    error_message text,
    CONSTRAINT batch_definitions_pkey PRIMARY KEY (organization_id, id)
) WITH (fillfactor = 70);
CREATE INDEX batch_definitions_sealed_idx ON usher.batch_definitions (id) WHERE sealed_at IS NOT NULL AND finished_at IS NULL;
COMMENT ON TABLE usher.batch_definitions IS 'batches of jobs as they were made; usher.batches shows how far they are';

CREATE TABLE usher.batch_tallies (
    organization_id uuid NOT NULL,
    batch_id uuid NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0
);
CREATE INDEX batch_tallies_batch_idx ON usher.batch_tallies (organization_id, batch_id);
COMMENT ON TABLE usher.batch_tallies IS 'jobs of batches that ended and are not yet gathered into usher.batch_definitions';

-- Changes that were not applied by themselves because a newer one of the same row was, in the same transaction.
CREATE TABLE usher.coalesced_jobs (
    organization_id uuid NOT NULL,
    job_id uuid NOT NULL,
    covered_by uuid NOT NULL,
    covered_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT coalesced_jobs_pkey PRIMARY KEY (organization_id, job_id)
);
CREATE INDEX coalesced_jobs_covered_idx ON usher.coalesced_jobs (covered_at);
COMMENT ON TABLE usher.coalesced_jobs IS 'synced jobs whose work was done by a newer job of the same row (flows with "coalesce")';
