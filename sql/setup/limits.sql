-- Limits of flows and systems. What a limit holds back waits in usher.queue_waiting with the limit's key; of each key and lane
-- only the first has a time, the others follow it in the order of their positions and are not looked at before their turn.
ALTER TABLE usher.queue_waiting ADD COLUMN limit_key text;
ALTER TABLE usher.queue_waiting ADD COLUMN limit_keys text[];
COMMENT ON COLUMN usher.queue_waiting.limit_key IS 'the limit that holds it back';
COMMENT ON COLUMN usher.queue_waiting.limit_keys IS 'of a call that leaves the database: the limits per key that it counts for, and while it is in flight all its limits on concurrency';
CREATE INDEX queue_waiting_limit_idx ON usher.queue_waiting (limit_key, lane, seq) WHERE limit_key IS NOT NULL;
CREATE INDEX queue_waiting_limit_head_idx ON usher.queue_waiting (limit_key, lane) WHERE limit_key IS NOT NULL AND due_at IS NOT NULL;
CREATE INDEX queue_waiting_limit_due_idx ON usher.queue_waiting (lane, due_at) WHERE waiting_for = 'rate limit' AND due_at IS NOT NULL;
-- What is in flight: few rows.
CREATE INDEX queue_waiting_call_leased_idx ON usher.queue_waiting (leased_by) WHERE waiting_for = 'external call' AND leased_by IS NOT NULL;
CREATE INDEX queue_waiting_external_leased_idx ON usher.queue_waiting (target_system, organization_id, due_at)
    WHERE waiting_for = 'external worker' AND leased_by IS NOT NULL AND due_at IS NOT NULL;
-- Whether an earlier change of a row waits is asked for every job: also a row with very many of them must answer at once.
DROP INDEX usher.queue_waiting_row_idx;
CREATE INDEX queue_waiting_row_idx ON usher.queue_waiting (flow_id, row_key, seq);

-- Until when what was let through counts, for a server that has lost its memory. Only added to, and cleared once a minute.
CREATE TABLE usher.limit_marks (
    limit_key text NOT NULL,
    organization_id uuid,
    spent_until timestamptz NOT NULL
);
CREATE INDEX limit_marks_key_idx ON usher.limit_marks (limit_key, spent_until);
CREATE INDEX limit_marks_time_idx ON usher.limit_marks (spent_until);
COMMENT ON TABLE usher.limit_marks IS 'how much of each rate was used, written with the work itself; usher.limits is the view to read';
COMMENT ON COLUMN usher.limit_marks.organization_id IS 'NULL: the limit counts the jobs of all organizations together';

ALTER TABLE usher.systems ADD COLUMN limits jsonb;
COMMENT ON COLUMN usher.systems.limits IS 'limits on the jobs of all flows for this system; see usher.limit_system';
