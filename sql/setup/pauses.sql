-- What is paused. Jobs of it that a worker comes upon wait in usher.queue_waiting with the number of their pause; those of
-- external systems stay where they are and are not handed out. When a pause ends its row stays until its last job has been let
-- go, in slices. See src/queue/pauses.rs.
CREATE TABLE usher.pause_orders (
    id integer GENERATED ALWAYS AS IDENTITY,
    flow_id integer,
    target_system text,
    organization_id uuid,
    reason text,
    paused_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    paused_by text NOT NULL,
    until timestamptz,
    resumed_at timestamptz,
    CONSTRAINT pause_orders_pkey PRIMARY KEY (id),
    CONSTRAINT pause_orders_says_what CHECK (pg_catalog.num_nonnulls(flow_id, target_system) <= 1
                                             AND pg_catalog.num_nonnulls(flow_id, target_system, organization_id) > 0)
);
CREATE UNIQUE INDEX pause_orders_scope_idx ON usher.pause_orders
    (COALESCE(organization_id, '00000000-0000-0000-0000-000000000000'), COALESCE(flow_id, 0), COALESCE(target_system, ''));
COMMENT ON TABLE usher.pause_orders IS 'flows, systems and organizations whose jobs wait; usher.pauses is the view to read';
COMMENT ON SEQUENCE usher.pause_orders_id_seq IS 'numbers of pauses';
COMMENT ON COLUMN usher.pause_orders.resumed_at IS 'its jobs are being let go since then';

ALTER TABLE usher.queue_waiting ADD COLUMN paused_by integer;
COMMENT ON COLUMN usher.queue_waiting.paused_by IS 'the pause that it waits for, if it waits because of one';
CREATE INDEX queue_waiting_paused_idx ON usher.queue_waiting (paused_by, seq) WHERE waiting_for = 'paused';
