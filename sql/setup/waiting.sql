-- Millions may wait, and a worker looks at them after every batch: each look has an index of its own, so that it costs what
-- it finds, not what waits.
-- What is due next, lane by lane. Work that is done outside, or gathers, is found by indexes of its own.
DROP INDEX usher.queue_waiting_due_idx;
CREATE INDEX queue_waiting_due_idx ON usher.queue_waiting (lane, due_at, seq)
    WHERE due_at IS NOT NULL AND waiting_for NOT IN ('external worker', 'external call', 'batch window');
-- Those that line up behind an earlier change, row by row: also a row with very many of them is looked at once.
DROP INDEX usher.queue_waiting_follower_idx;
CREATE INDEX queue_waiting_follower_idx ON usher.queue_waiting (row_key, flow_id, seq) WHERE waiting_for = 'earlier change' AND due_at IS NULL;
-- The jobs before which later changes of their rows line up.
CREATE INDEX queue_waiting_leader_idx ON usher.queue_waiting (row_key, seq) WHERE row_key IS NOT NULL AND waiting_for <> 'earlier change';
