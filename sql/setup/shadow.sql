-- What flows in shadow would have written. The rows may show more of a target than an organization's people may see, so
-- that they are for operators and readers.
CREATE TABLE usher.shadow_results (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    job_id uuid NOT NULL,
    flow_id integer NOT NULL,
    flow_version integer NOT NULL,
    op "char" NOT NULL,
    would_write jsonb NOT NULL,
    failed text,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT shadow_results_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT shadow_results_rows_form CHECK (pg_catalog.jsonb_typeof(would_write) = 'array')
);
CREATE INDEX shadow_results_flow_idx ON usher.shadow_results (flow_id, recorded_at);
CREATE INDEX shadow_results_recorded_idx ON usher.shadow_results (recorded_at);
COMMENT ON TABLE usher.shadow_results IS 'what the jobs of flows in shadow would have written; usher.shadow_report sums it up';
COMMENT ON COLUMN usher.shadow_results.would_write IS 'the rows that would have been written or deleted; empty: nothing would have changed';
COMMENT ON COLUMN usher.shadow_results.failed IS 'the check or error that would have failed the job';

-- Such a job is done, and wrote nothing.
ALTER TABLE usher.job_history ADD COLUMN shadow boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN usher.job_history.shadow IS 'its flow was in shadow: nothing was written; error_message tells why it would have failed';
