-- Limits of parts of the queue, and which jobs one of them holds back.
CREATE TABLE usher.queue_limit_rules (
    id integer GENERATED ALWAYS AS IDENTITY,
    lane smallint CONSTRAINT queue_limit_rules_lane_known CHECK (lane BETWEEN 0 AND 4),
    flow_id integer,
    system text,
    -- An operator's rule, not a row of the organization.
    of_organization uuid,
    max_jobs bigint NOT NULL CONSTRAINT queue_limit_rules_max_jobs_positive CHECK (max_jobs > 0),
    action text NOT NULL CONSTRAINT queue_limit_rules_action_known CHECK (action IN ('refuse', 'delay', 'shed')),
    shed_to smallint CONSTRAINT queue_limit_rules_shed_to_known CHECK (shed_to BETWEEN 1 AND 4),
    captured boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL,
    -- What it holds back is still to be let go.
    removed_at timestamptz,
    CONSTRAINT queue_limit_rules_pkey PRIMARY KEY (id)
);
COMMENT ON SEQUENCE usher.queue_limit_rules_id_seq IS 'numbers of limits';
COMMENT ON TABLE usher.queue_limit_rules IS 'how many jobs a lane, flow, system or organization may have ready; usher.queue_limits shows how many they have';

-- Where no worker runs, sessions raise the floors, from one call of usher.process_jobs() to the next.
ALTER TABLE usher.job_floors ADD COLUMN settled_at timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE usher.job_floors ADD COLUMN awaited_seq bigint;
ALTER TABLE usher.job_floors ADD COLUMN awaited_xid bigint;
COMMENT ON COLUMN usher.job_floors.settled_at IS 'when a session has last looked how far all is done';
COMMENT ON COLUMN usher.job_floors.awaited_seq IS 'the newest position then: settled when all transactions below awaited_xid have ended';

ALTER TABLE usher.queue_waiting ADD COLUMN held_by integer;
COMMENT ON COLUMN usher.queue_waiting.held_by IS 'the limit that holds the job back, or has held it';
CREATE INDEX queue_waiting_held_idx ON usher.queue_waiting (held_by, lane, seq)
    WHERE waiting_for = 'queue full' AND due_at IS NULL;
CREATE INDEX queue_waiting_let_go_idx ON usher.queue_waiting (held_by)
    WHERE waiting_for = 'queue full' AND due_at IS NOT NULL;
