-- Keys of rules that a transaction has touched, written down as it commits: a worker looks at them. Without keys: all that the rule is about.
CREATE TABLE usher.rule_checks (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    rule_id integer NOT NULL,
    keys text,
    compact boolean NOT NULL DEFAULT false,
    CONSTRAINT rule_checks_pkey PRIMARY KEY (organization_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX rule_checks_rule_idx ON usher.rule_checks (rule_id, id);
COMMENT ON TABLE usher.rule_checks IS 'internal: keys of rules to be looked at once their writers have committed';
COMMENT ON COLUMN usher.rule_checks.organization_id IS 'whose keys they are; 00000000-0000-0000-0000-000000000000: the keys of every organization are meant';
COMMENT ON COLUMN usher.rule_checks.keys IS 'as JSON, one in a line; NULL: everything that the rule is about';
COMMENT ON COLUMN usher.rule_checks.compact IS 'keys that were taken out of many checks, and left to a later look';
