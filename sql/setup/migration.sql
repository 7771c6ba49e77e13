-- Two tables that exist already are brought together by a merge: a plan that somebody reads, and then applies.
CREATE TABLE usher.migrations (
    organization_id uuid,
    id uuid NOT NULL,
    flow_id integer NOT NULL,
    flow text NOT NULL,
    version integer NOT NULL,
    left_table text NOT NULL,
    right_table text NOT NULL,
    state text NOT NULL DEFAULT 'planned',
    left_rows bigint NOT NULL,
    right_rows bigint NOT NULL,
    equal bigint NOT NULL,
    left_out bigint NOT NULL,
    items bigint NOT NULL,
    counts jsonb NOT NULL,
    kinds text[],
    actions text[],
    slice integer,
    position bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    error_message text,
    planned_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    planned_by text NOT NULL,
    started_at timestamptz,
    started_by text,
    -- The rate is of the time since it went on last.
    resumed_at timestamptz,
    done_before bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    per_second numeric GENERATED ALWAYS AS (pg_catalog.round((done - done_before) / NULLIF(EXTRACT(epoch FROM updated_at - resumed_at), 0), 1)) STORED,
    CONSTRAINT migrations_pkey PRIMARY KEY (id),
    CONSTRAINT migrations_state_known CHECK (state IN ('planned', 'running', 'paused', 'done', 'cancelled', 'failed'))
) WITH (fillfactor = 50);
COMMENT ON TABLE usher.migrations IS 'plans to bring the two tables of a merge together, and how far they are applied; usher.reconcile makes one';
COMMENT ON COLUMN usher.migrations.organization_id IS 'whose rows it is about; NULL: those of all organizations';
COMMENT ON COLUMN usher.migrations.version IS 'the version of the flow by whose rules it was planned';
COMMENT ON COLUMN usher.migrations.state IS 'planned; running, paused or failed (it stands still, see error_message) while it is applied; done; cancelled';
COMMENT ON COLUMN usher.migrations.equal IS 'pairs that were equal and linked: they have no items';
COMMENT ON COLUMN usher.migrations.left_out IS 'rows that have no items because the flow does not follow them: by its "if", or because it is off for their organization';
COMMENT ON COLUMN usher.migrations.counts IS 'items by kind and action, as they were planned';
COMMENT ON COLUMN usher.migrations.kinds IS 'only items of these kinds are applied; NULL: all';
COMMENT ON COLUMN usher.migrations.actions IS 'only items with these actions are applied; NULL: all';
COMMENT ON COLUMN usher.migrations.position IS 'items up to this number have been looked at in this round; moves in the transaction that does them';
COMMENT ON COLUMN usher.migrations.total IS 'items that are or were to be applied';
COMMENT ON COLUMN usher.migrations.error_message IS 'why it stands still, or what its last slice waited for';
COMMENT ON COLUMN usher.migrations.per_second IS 'items a second since it was begun or resumed';

CREATE TABLE usher.migration_items (
    organization_id uuid NOT NULL,
    migration_id uuid NOT NULL,
    n bigint NOT NULL,
    kind text NOT NULL,
    action text NOT NULL,
    left_id text,
    right_id text,
    link_id uuid,
    fields jsonb,
    why text,
    side text NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    error_message text,
    done_at timestamptz,
    CONSTRAINT migration_items_pkey PRIMARY KEY (organization_id, migration_id, n),
    CONSTRAINT migration_items_kind_known CHECK (kind IN ('matched', 'only_left', 'only_right', 'different', 'ambiguous')),
    CONSTRAINT migration_items_action_known CHECK (action IN ('link', 'make_right', 'make_left', 'write_right', 'write_left', 'write_both', 'conflict', 'nothing')),
    CONSTRAINT migration_items_side_known CHECK (side IN ('left', 'right')),
    CONSTRAINT migration_items_state_known CHECK (state IN ('planned', 'done', 'failed', 'none'))
) WITH (fillfactor = 80);
CREATE INDEX migration_items_order_idx ON usher.migration_items (migration_id, n);
COMMENT ON TABLE usher.migration_items IS 'pairs and lone rows of a plan that are not simply equal, and what is done about them; usher.show_plan sums them up';
COMMENT ON COLUMN usher.migration_items.kind IS 'matched: equal, but not linked; only_left, only_right; different; ambiguous: several rows have its key, or the row with its key belongs to another';
COMMENT ON COLUMN usher.migration_items.action IS 'what the merge does about it: link, make_right, make_left, write_right, write_left, write_both, conflict (somebody must decide), nothing';
COMMENT ON COLUMN usher.migration_items.fields IS 'fields that are to be written or decided, and which side holds: left, right, together or nobody';
COMMENT ON COLUMN usher.migration_items.why IS 'why nothing is done, where that is not plain';
COMMENT ON COLUMN usher.migration_items.side IS 'the side from which the merge comes to it';
COMMENT ON COLUMN usher.migration_items.state IS 'planned; done: the merge has seen to it; failed, see error_message; none: nothing is to be done';
COMMENT ON COLUMN usher.migration_items.attempts IS 'how often its rows were locked by others';
