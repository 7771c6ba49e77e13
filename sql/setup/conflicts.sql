-- What does not agree and wants a decision: two sides of a pair, or two bookings of one asset at one time.
CREATE TABLE usher.conflicts (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL,
    state text NOT NULL DEFAULT 'open',
    subject text NOT NULL,
    rule text,
    flow_id integer,
    link_id uuid,
    left_table text NOT NULL,
    left_key jsonb NOT NULL,
    right_table text,
    right_key jsonb,
    fields text[],
    base jsonb,
    ours jsonb,
    theirs jsonb,
    alternatives jsonb,
    message text NOT NULL,
    strategy text,
    decision text,
    decided_values jsonb,
    note text,
    decided_by text,
    decided_at timestamptz,
    raised_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    times_seen integer NOT NULL DEFAULT 1,
    escalate_at timestamptz,
    escalated_at timestamptz,
    CONSTRAINT conflicts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT conflicts_kind_known CHECK (kind IN ('data_mismatch', 'timing_conflict', 'permission_conflict', 'validation_failure', 'business_rule_violation')),
    CONSTRAINT conflicts_severity_known CHECK (severity IN ('critical', 'warning', 'info')),
    CONSTRAINT conflicts_state_known CHECK (state IN ('open', 'resolved', 'gone')),
    CONSTRAINT conflicts_decided_whole CHECK (state <> 'resolved' OR pg_catalog.num_nulls(decision, decided_by, decided_at) = 0)
);
CREATE UNIQUE INDEX conflicts_open_key ON usher.conflicts (organization_id, subject) WHERE state = 'open';
-- What was accepted stands for as long as its reason does.
CREATE UNIQUE INDEX conflicts_accepted_key ON usher.conflicts (organization_id, subject) WHERE state = 'resolved' AND decision = 'accept';
CREATE INDEX conflicts_id_idx ON usher.conflicts (id);
CREATE INDEX conflicts_left_idx ON usher.conflicts (organization_id, rule, left_key) WHERE state <> 'gone' AND rule IS NOT NULL;
CREATE INDEX conflicts_right_idx ON usher.conflicts (organization_id, rule, right_key) WHERE state <> 'gone' AND rule IS NOT NULL;
CREATE INDEX conflicts_escalate_idx ON usher.conflicts (escalate_at) WHERE state = 'open' AND escalated_at IS NULL AND escalate_at IS NOT NULL;
-- Whether a merge has rows that could not be written is asked after each of its batches.
CREATE INDEX conflicts_failed_idx ON usher.conflicts (flow_id) WHERE (state = 'open' OR state = 'resolved' AND decision = 'accept') AND kind IN ('permission_conflict', 'validation_failure', 'business_rule_violation');
CREATE INDEX conflicts_ended_idx ON usher.conflicts (last_seen_at) WHERE state <> 'open';
COMMENT ON TABLE usher.conflicts IS 'what does not agree and wants a decision; usher.resolve_conflict decides, and what ends by itself is gone';
COMMENT ON COLUMN usher.conflicts.state IS 'open; resolved: somebody has decided; gone: the reason has ended by itself';
COMMENT ON COLUMN usher.conflicts.subject IS 'what it is about; each subject has at most one open conflict';
COMMENT ON COLUMN usher.conflicts.rule IS 'the overlap rule that has found it';
COMMENT ON COLUMN usher.conflicts.left_key IS 'the primary key of the row, without the organization';
COMMENT ON COLUMN usher.conflicts.fields IS 'the columns that it is about';
COMMENT ON COLUMN usher.conflicts.base IS 'what both sides last agreed on';
COMMENT ON COLUMN usher.conflicts.ours IS 'what the left side has: of an overlap its resource and period, times in UTC';
COMMENT ON COLUMN usher.conflicts.theirs IS 'what the right side has';
COMMENT ON COLUMN usher.conflicts.alternatives IS 'of an overlap: free resources of the same kind, for the left row and for the right one';
COMMENT ON COLUMN usher.conflicts.decision IS 'what was decided; for an overlap: accept (both stay) or ended; for a row that cannot be written: accept';
COMMENT ON COLUMN usher.conflicts.last_seen_at IS 'when it was last found, changed or ended';
COMMENT ON COLUMN usher.conflicts.times_seen IS 'how often it was found: by a write that changed it, and by each sweep';
COMMENT ON COLUMN usher.conflicts.escalate_at IS 'still open then, it makes a notice, once';

-- Which rows of which table must not overlap. By its number in this database, which follows a new name of the table.
CREATE TABLE usher.overlap_rules (
    id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    relation regclass NOT NULL,
    definition jsonb NOT NULL,
    state text NOT NULL DEFAULT 'active',
    reason text,
    swept_at timestamptz,
    sweep_at timestamptz DEFAULT pg_catalog.clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_by text NOT NULL,
    CONSTRAINT overlap_rules_pkey PRIMARY KEY (id),
    CONSTRAINT overlap_rules_name_key UNIQUE (name),
    CONSTRAINT overlap_rules_state_known CHECK (state IN ('active', 'broken')),
    CONSTRAINT overlap_rules_broken_why CHECK ((state = 'broken') = (reason IS NOT NULL))
);
COMMENT ON TABLE usher.overlap_rules IS 'overlap rules: rows that share a resource must not share a time; usher.create_overlap_rule makes them';
COMMENT ON COLUMN usher.overlap_rules.state IS 'active; broken: it does not fit the tables any more and finds nothing';
COMMENT ON COLUMN usher.overlap_rules.swept_at IS 'when all rows were last looked at';
COMMENT ON COLUMN usher.overlap_rules.sweep_at IS 'when they are looked at next; NULL: never by itself';

-- Rows that were written: two writers at once do not see each other, so a worker looks again after the commit. Without keys: too
-- many, all rows of the rule are looked at.
CREATE TABLE usher.overlap_checks (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    rule_id integer NOT NULL,
    row_keys jsonb,
    left_at timestamptz,
    CONSTRAINT overlap_checks_pkey PRIMARY KEY (organization_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE usher.overlap_checks IS 'internal: rows to be looked at again for overlaps once their writers have committed';
COMMENT ON COLUMN usher.overlap_checks.left_at IS 'when a look had to leave it to a later one';
