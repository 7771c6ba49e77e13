-- How workers find the job that takes the server down. See src/worker/quarantine.rs.

-- Unlogged on purpose: crash recovery empties it, an orderly shutdown does not. A worker that does not find its row knows
-- that the server ended uncleanly, and normal work pays nothing for knowing it.
CREATE UNLOGGED TABLE usher.worker_marks (
    lanes integer NOT NULL,
    careful boolean NOT NULL,
    CONSTRAINT worker_marks_pkey PRIMARY KEY (lanes)
);
COMMENT ON TABLE usher.worker_marks IS 'one row for each worker process that has run since the server last ended uncleanly';
COMMENT ON COLUMN usher.worker_marks.lanes IS 'the lanes of the process, a bit for each';
COMMENT ON COLUMN usher.worker_marks.careful IS 'it does the jobs of before the unclean end one by one';

CREATE TABLE usher.job_intents (
    seq bigint NOT NULL,
    lane smallint NOT NULL,
    -- Its worker has begun it and not yet said that it is over.
    open boolean NOT NULL DEFAULT true,
    crashes integer NOT NULL DEFAULT 0,
    endings integer NOT NULL DEFAULT 0,
    begun_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT job_intents_pkey PRIMARY KEY (seq)
);
COMMENT ON TABLE usher.job_intents IS 'jobs that are done one by one after an unclean end, written before each begins; empty otherwise';
COMMENT ON COLUMN usher.job_intents.crashes IS 'how often the server ended uncleanly while it ran alone';
COMMENT ON COLUMN usher.job_intents.endings IS 'how often its worker process ended while it ran, and the server went on';
