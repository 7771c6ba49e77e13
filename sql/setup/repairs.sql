-- What mends bad rows: attempts are noted with the violation, what was changed with the repair, so that it can be put back.
ALTER TABLE usher.violations
    ADD COLUMN tried_at timestamptz,
    ADD COLUMN gave_up_at timestamptz,
    ADD COLUMN manual boolean NOT NULL GENERATED ALWAYS AS (status = 'open' AND gave_up_at IS NOT NULL AND gave_up_at >= first_seen_at) STORED;
CREATE INDEX violations_tried_idx ON usher.violations (rule_id, tried_at) WHERE tried_at IS NOT NULL;
CREATE INDEX violations_manual_idx ON usher.violations (rule_id, organization_id) WHERE manual;
COMMENT ON COLUMN usher.violations.tried_at IS 'when it was last tried to repair it';
COMMENT ON COLUMN usher.violations.gave_up_at IS 'when the last attempt that the rule allows had failed';
COMMENT ON COLUMN usher.violations.manual IS 'the rule''s repair has given up: somebody must see to it';

CREATE TABLE usher.repairs (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    rule_id integer NOT NULL,
    rule text NOT NULL,
    kind text NOT NULL,
    violations uuid[] NOT NULL,
    repaired_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    repaired_by text NOT NULL,
    automatic boolean NOT NULL,
    run_as regrole NOT NULL,
    statement text NOT NULL,
    changes jsonb NOT NULL,
    cannot_undo text,
    undoes uuid,
    undone_at timestamptz,
    undone_by text,
    CONSTRAINT repairs_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT repairs_kind_known CHECK (kind IN ('statement', 'call', 'flow', 'undo')),
    CONSTRAINT repairs_undo_of CHECK ((kind = 'undo') = (undoes IS NOT NULL)),
    CONSTRAINT repairs_undone_whole CHECK ((undone_at IS NULL) = (undone_by IS NULL))
);
CREATE INDEX repairs_id_idx ON usher.repairs (id);
CREATE INDEX repairs_age_idx ON usher.repairs (repaired_at);
CREATE INDEX repairs_rule_idx ON usher.repairs (rule_id, organization_id, repaired_at);
COMMENT ON TABLE usher.repairs IS 'repairs of rules, with the rows that each has changed as they were and as it left them; usher.undo_repair() puts them back';
COMMENT ON COLUMN usher.repairs.violations IS 'those that it has ended';
COMMENT ON COLUMN usher.repairs.automatic IS 'nobody asked for it: the rule says "auto"';
COMMENT ON COLUMN usher.repairs.run_as IS 'the role that it ran as, and as which it is undone';
COMMENT ON COLUMN usher.repairs.statement IS 'what was run: the rule''s statement, function or flow';
COMMENT ON COLUMN usher.repairs.changes IS 'each row once: table, key, before (null: it was made), after (null: it was deleted)';
COMMENT ON COLUMN usher.repairs.cannot_undo IS 'why it cannot be undone; NULL: it can';
COMMENT ON COLUMN usher.repairs.undoes IS 'the repair that this one has undone';
