-- Work that is done outside: jobs of external systems, taken by workers that connect, and calls whose work leaves the
-- database, made by a process of their own. Both wait in usher.queue_waiting. Whoever has taken one holds a lease: while it
-- runs, due_at is the end of the lease; due_at NULL means that it can be taken now.
ALTER TABLE usher.queue_waiting ADD COLUMN lease_id uuid;
ALTER TABLE usher.queue_waiting ADD COLUMN leased_by text;
ALTER TABLE usher.queue_waiting DROP CONSTRAINT queue_waiting_reason_known;
ALTER TABLE usher.queue_waiting ADD CONSTRAINT queue_waiting_reason_known
    CHECK (waiting_for IN ('retry', 'run_at', 'earlier change', 'flow disabled', 'flow broken', 'external worker', 'external call', 'other jobs', 'queue full'));
COMMENT ON COLUMN usher.queue_waiting.lease_id IS 'the lease under which it was taken last; an answer counts only with this one';
COMMENT ON COLUMN usher.queue_waiting.leased_by IS 'who took it last and has not answered: a user, or a caller process';

-- What can be taken, in the order in which it is; what is held, or comes later, is found by its time.
-- The first is for those who see all organizations, and its "lane >= 0" keeps it from being used for one of them, where
-- it would look through the jobs of all others.
CREATE INDEX queue_waiting_external_idx ON usher.queue_waiting (target_system, lane, seq)
    WHERE waiting_for = 'external worker' AND due_at IS NULL AND lane >= 0;
CREATE INDEX queue_waiting_external_organization_idx ON usher.queue_waiting (organization_id, target_system, lane, seq)
    WHERE waiting_for = 'external worker' AND due_at IS NULL;
CREATE INDEX queue_waiting_external_due_idx ON usher.queue_waiting (target_system, due_at)
    WHERE waiting_for = 'external worker' AND due_at IS NOT NULL;
CREATE INDEX queue_waiting_call_idx ON usher.queue_waiting (lane, seq)
    WHERE waiting_for = 'external call' AND due_at IS NULL;
CREATE INDEX queue_waiting_call_due_idx ON usher.queue_waiting (due_at)
    WHERE waiting_for = 'external call' AND due_at IS NOT NULL;
CREATE INDEX queue_waiting_lease_idx ON usher.queue_waiting (lease_id) WHERE lease_id IS NOT NULL;

ALTER TABLE usher.dead_letters ADD COLUMN lease_id uuid;
ALTER TABLE usher.job_history ADD COLUMN lease_id uuid;
COMMENT ON COLUMN usher.dead_letters.lease_id IS 'the lease under which it failed for good, if it failed outside';
COMMENT ON COLUMN usher.job_history.lease_id IS 'the lease under which it was done, if it was done outside';

-- What came back, for those who asked for it. Rows go with the history.
CREATE TABLE usher.job_results (
    organization_id uuid NOT NULL,
    job_id uuid NOT NULL,
    result jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT job_results_pkey PRIMARY KEY (organization_id, job_id)
);
CREATE INDEX job_results_recorded_idx ON usher.job_results (recorded_at);
COMMENT ON TABLE usher.job_results IS 'what a call with "keep_result", or a worker outside, gave back; usher.job_result reads one';
