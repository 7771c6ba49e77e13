-- What must hold of the application's rows: a rule is a query of those for which it does not.
CREATE TABLE usher.rules (
    id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    definition jsonb NOT NULL,
    run_as regrole NOT NULL,
    pack text,
    enabled boolean NOT NULL DEFAULT true,
    state text NOT NULL DEFAULT 'active',
    reason text,
    severity text NOT NULL,
    check_at timestamptz DEFAULT pg_catalog.clock_timestamp(),
    keyed boolean NOT NULL DEFAULT false,
    keyed_now boolean NOT NULL DEFAULT false,
    keys_every interval,
    keys_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    whole_because text,
    watch text,
    watched_from bigint,
    wait interval,
    last_checked_at timestamptz,
    last_found bigint,
    changes bigint,
    sweep_began_at timestamptz,
    sweep_position jsonb,
    sweep_rows integer,
    sweep_found bigint,
    sweep_skipped jsonb,
    sweep_sure boolean NOT NULL DEFAULT false,
    last_error text,
    last_error_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_by text NOT NULL,
    updated_at timestamptz,
    CONSTRAINT rules_pkey PRIMARY KEY (id),
    CONSTRAINT rules_name_key UNIQUE (name),
    CONSTRAINT rules_state_known CHECK (state IN ('active', 'broken')),
    CONSTRAINT rules_broken_why CHECK ((state = 'broken') = (reason IS NOT NULL)),
    CONSTRAINT rules_severity_known CHECK (severity IN ('critical', 'warning', 'info'))
);
COMMENT ON TABLE usher.rules IS 'what must hold of the application''s rows; usher.create_rule makes them, usher.violations shows the rows for which it does not';
COMMENT ON COLUMN usher.rules.run_as IS 'the role that the query and the repair run as';
COMMENT ON COLUMN usher.rules.state IS 'active; broken: it does not fit the database any more and finds nothing';
COMMENT ON COLUMN usher.rules.check_at IS 'when everything is looked at next, unless it may rest; NULL: never by itself';
COMMENT ON COLUMN usher.rules.keyed IS 'who writes its tables notes which keys that concerns, so that these alone can be looked at';
COMMENT ON COLUMN usher.rules.keyed_now IS 'until the next look at everything it is enough to look at what was touched';
COMMENT ON COLUMN usher.rules.keys_every IS 'how often what was touched, or (with a gate) what is bad, is looked at by the clock';
COMMENT ON COLUMN usher.rules.keys_at IS 'not before then';
COMMENT ON COLUMN usher.rules.whole_because IS 'why everything is looked at for now, although it could be enough to look at what was touched';
COMMENT ON COLUMN usher.rules.watch IS 'internal: its tables and their files when that was last looked at';
COMMENT ON COLUMN usher.rules.watched_from IS 'internal: transactions from this number on have noted what they touched; NULL: not known';
COMMENT ON COLUMN usher.rules.wait IS 'how long it may rest while nothing is found and its tables do not change: ever longer';
COMMENT ON COLUMN usher.rules.changes IS 'what PostgreSQL had counted of changes of its tables when the last look began; NULL: they are looked at anyhow';
COMMENT ON COLUMN usher.rules.last_checked_at IS 'when a look at everything was last finished';
COMMENT ON COLUMN usher.rules.last_found IS 'bad rows that it found, with those that are waived or within the tolerance';
COMMENT ON COLUMN usher.rules.sweep_began_at IS 'when the look at everything that is under way began';
COMMENT ON COLUMN usher.rules.sweep_position IS 'how far that has come: the last key of its slices';
COMMENT ON COLUMN usher.rules.sweep_rows IS 'rows of the table whose keys are one slice';
COMMENT ON COLUMN usher.rules.sweep_skipped IS 'keys that could not be evaluated, and why';
COMMENT ON COLUMN usher.rules.sweep_sure IS 'it began when everybody noted what he touched';
COMMENT ON COLUMN usher.rules.last_error IS 'why a look could not be finished, or a key not be evaluated';

-- What a rule stands on: the tables that its query reads or whose changes concern its keys, and what else the catalog finds in it.
CREATE TABLE usher.rule_dependencies (
    rule_id integer NOT NULL,
    class oid NOT NULL,
    object oid NOT NULL,
    watched boolean NOT NULL DEFAULT false,
    CONSTRAINT rule_dependencies_pkey PRIMARY KEY (rule_id, class, object),
    CONSTRAINT rule_dependencies_rule_fkey FOREIGN KEY (rule_id) REFERENCES usher.rules (id) ON DELETE CASCADE
);
CREATE INDEX rule_dependencies_object_idx ON usher.rule_dependencies (object, class);
COMMENT ON TABLE usher.rule_dependencies IS 'internal: tables, functions and types that a rule stands on';
COMMENT ON COLUMN usher.rule_dependencies.watched IS 'a table of "touches": which keys a changed row of it concerns is known';

-- One lasting row for each key of a rule that was ever bad.
CREATE TABLE usher.violations (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    rule_id integer NOT NULL,
    rule text NOT NULL,
    key jsonb NOT NULL,
    "row" jsonb NOT NULL,
    wrong text NOT NULL,
    severity text NOT NULL,
    status text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    seen integer NOT NULL DEFAULT 1,
    times integer NOT NULL DEFAULT 1,
    due_at timestamptz,
    opened_at timestamptz,
    ended_at timestamptz,
    escalate_at timestamptz,
    escalated_at timestamptz,
    waived_by text,
    waived_because text,
    waived_at timestamptz,
    repairs integer NOT NULL DEFAULT 0,
    repaired_at timestamptz,
    last_error text,
    CONSTRAINT violations_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT violations_severity_known CHECK (severity IN ('critical', 'warning', 'info')),
    CONSTRAINT violations_status_known CHECK (status IN ('pending', 'open', 'repaired', 'waived', 'gone')),
    CONSTRAINT violations_waived_whole CHECK (status <> 'waived' OR pg_catalog.num_nulls(waived_by, waived_because, waived_at) = 0)
);
CREATE INDEX violations_id_idx ON usher.violations (id);
CREATE INDEX violations_standing_idx ON usher.violations (rule_id, organization_id) WHERE status IN ('pending', 'open', 'waived');
CREATE INDEX violations_open_idx ON usher.violations (severity, organization_id) WHERE status = 'open';
CREATE INDEX violations_due_idx ON usher.violations (due_at) WHERE status = 'pending' AND due_at IS NOT NULL;
CREATE INDEX violations_escalate_idx ON usher.violations (escalate_at) WHERE status = 'open' AND escalated_at IS NULL AND escalate_at IS NOT NULL;
CREATE INDEX violations_ended_idx ON usher.violations (ended_at) WHERE status IN ('gone', 'repaired');
COMMENT ON TABLE usher.violations IS 'rows for which a rule does not hold, or did not: one lasting row for each key';
COMMENT ON COLUMN usher.violations.key IS 'which row it is: the rule''s key, times in UTC';
COMMENT ON COLUMN usher.violations."row" IS 'the bad row as the rule''s query last gave it';
COMMENT ON COLUMN usher.violations.wrong IS 'what is wrong with it';
COMMENT ON COLUMN usher.violations.status IS 'pending: bad, but not for long enough, or within the tolerance; open; repaired: by a repair; waived: somebody has accepted it for as long as it is bad; gone: it ended by itself';
COMMENT ON COLUMN usher.violations.first_seen_at IS 'since when it is bad this time';
COMMENT ON COLUMN usher.violations.seen IS 'looks that found it bad this time';
COMMENT ON COLUMN usher.violations.times IS 'how often it became bad';
COMMENT ON COLUMN usher.violations.due_at IS 'when it is looked at again because the time of grace is over then';
COMMENT ON COLUMN usher.violations.escalate_at IS 'still open then, somebody is told, once';
COMMENT ON COLUMN usher.violations.repairs IS 'attempts to repair it this time';
COMMENT ON COLUMN usher.violations.last_error IS 'why the last of them failed';

-- Of how many rows the violations are a part, where the rule's key is one of a table.
CREATE TABLE usher.rule_counts (
    organization_id uuid NOT NULL,
    rule_id integer NOT NULL,
    rows bigint,
    counting bigint NOT NULL DEFAULT 0,
    counted_at timestamptz,
    CONSTRAINT rule_counts_pkey PRIMARY KEY (organization_id, rule_id),
    CONSTRAINT rule_counts_rule_fkey FOREIGN KEY (rule_id) REFERENCES usher.rules (id) ON DELETE CASCADE
);
CREATE INDEX rule_counts_rule_idx ON usher.rule_counts (rule_id);
COMMENT ON TABLE usher.rule_counts IS 'rows that a rule is about, by organization, as of its last look at everything; usher.consistency reckons with them';
COMMENT ON COLUMN usher.rule_counts.counting IS 'as far as the look that is under way has come';
