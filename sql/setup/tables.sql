-- The data tables. They are ordinary tables, not members of the extension: a dump carries their rows, policies and
-- partitions, and DROP EXTENSION leaves them alone. Run by usher.setup(); a second run changes nothing.

CREATE TABLE usher.installation (
    singleton boolean NOT NULL DEFAULT true,
    schema_level integer NOT NULL,
    database oid NOT NULL,
    set_up_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT installation_pkey PRIMARY KEY (singleton),
    CONSTRAINT installation_one_row CHECK (singleton)
);
COMMENT ON TABLE usher.installation IS 'one row: the version of the tables of this installation';

CREATE TABLE usher.organizations (
    id uuid NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    timezone text NOT NULL DEFAULT 'UTC',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT organizations_pkey PRIMARY KEY (id),
    CONSTRAINT organizations_slug_key UNIQUE (slug),
    CONSTRAINT organizations_slug_form CHECK (slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$')
);
COMMENT ON TABLE usher.organizations IS 'the tenants; an installation without tenants has one, ''default''';

CREATE TABLE usher.memberships (
    organization_id uuid NOT NULL,
    user_id text NOT NULL,
    role text NOT NULL DEFAULT 'member',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT memberships_pkey PRIMARY KEY (organization_id, user_id),
    CONSTRAINT memberships_organization_fkey FOREIGN KEY (organization_id) REFERENCES usher.organizations (id) ON DELETE CASCADE,
    CONSTRAINT memberships_role_known CHECK (role IN ('legend', 'admin', 'member')),
    CONSTRAINT memberships_user_given CHECK (user_id <> '')
);
CREATE INDEX memberships_user_idx ON usher.memberships (user_id);
COMMENT ON TABLE usher.memberships IS 'who belongs where: admin manages the organization, member reads, legend is installation-wide';
COMMENT ON COLUMN usher.memberships.user_id IS 'the sub of a signed-in user, or role:NAME for a database role';

CREATE TABLE usher.systems (
    name text NOT NULL,
    kind text NOT NULL DEFAULT 'local',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT systems_pkey PRIMARY KEY (name),
    CONSTRAINT systems_name_form CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
    CONSTRAINT systems_kind_known CHECK (kind IN ('local', 'remote', 'external'))
);
COMMENT ON TABLE usher.systems IS 'the parties kept in step: local (tables here), remote (spoken to), external (a worker outside takes its jobs)';

CREATE TABLE usher.flows (
    name text NOT NULL,
    pack text,
    definition jsonb NOT NULL,
    version integer NOT NULL DEFAULT 1,
    enabled boolean NOT NULL DEFAULT true,
    state text NOT NULL DEFAULT 'ok',
    reason text,
    run_as regrole NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    id integer GENERATED ALWAYS AS IDENTITY,
    CONSTRAINT flows_pkey PRIMARY KEY (id),
    CONSTRAINT flows_name_key UNIQUE (name),
    CONSTRAINT flows_state_known CHECK (state IN ('ok', 'broken'))
);
COMMENT ON TABLE usher.flows IS 'what happens when something happens; made by usher.create_flow, deleting a row stops its effect';

CREATE TABLE usher.flow_versions (
    flow_id integer NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    source_system text,
    target_system text,
    definition jsonb NOT NULL,
    compiled jsonb NOT NULL,
    run_as regrole NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL,
    CONSTRAINT flow_versions_pkey PRIMARY KEY (flow_id, version)
);
COMMENT ON TABLE usher.flow_versions IS 'every version of every flow; outlives the flow, because finished jobs name it';

CREATE TABLE usher.links (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    left_id text NOT NULL,
    right_id text NOT NULL,
    left_system text,
    right_system text,
    flow text,
    status text NOT NULL DEFAULT 'synced',
    position bigint NOT NULL DEFAULT 0,
    last_synced_at timestamptz,
    error_message text,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT links_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT links_pair_key UNIQUE (organization_id, kind, left_id, right_id),
    CONSTRAINT links_status_known CHECK (status IN ('pending', 'in_progress', 'synced', 'failed'))
);
CREATE INDEX links_right_idx ON usher.links (organization_id, kind, right_id);
CREATE INDEX links_status_idx ON usher.links (organization_id, status);
COMMENT ON TABLE usher.links IS 'this row here is that row there';

-- One sequence for all jobs, uncached: the order in which numbers are drawn under a row's lock is the order of its changes.
CREATE SEQUENCE usher.queue_seq CACHE 1;

-- Ready jobs. Rows are inserted and deleted, never updated in place except to mend the order of nested triggers.
CREATE TABLE usher.queue (
    seq bigint NOT NULL,
    row_key bigint,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    cause uuid,
    flow_id integer NOT NULL,
    flow_version integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    fallback boolean NOT NULL DEFAULT false,
    trail text,
    new jsonb,
    old jsonb,
    CONSTRAINT queue_pkey PRIMARY KEY (organization_id, id)
) WITH (fillfactor = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX queue_lane_idx ON usher.queue (lane, seq);
CREATE INDEX queue_fallback_idx ON usher.queue (flow_id, row_key) WHERE fallback;
COMMENT ON TABLE usher.queue IS 'jobs that can run now; usher.sync_jobs is the view to read';

-- Jobs that wait: for their next try, for a time, for an earlier change of their row, for their flow, for a worker outside.
CREATE TABLE usher.queue_waiting (
    seq bigint NOT NULL,
    row_key bigint,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    trail text,
    new jsonb,
    old jsonb,
    attempts integer NOT NULL DEFAULT 0,
    waiting_for text NOT NULL,
    due_at timestamptz,
    last_attempted_at timestamptz,
    error_message text,
    source_system text,
    target_system text,
    CONSTRAINT queue_waiting_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT queue_waiting_reason_known
        CHECK (waiting_for IN ('retry', 'run_at', 'earlier change', 'flow disabled', 'flow broken', 'external worker'))
);
CREATE INDEX queue_waiting_due_idx ON usher.queue_waiting (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX queue_waiting_follower_idx ON usher.queue_waiting (row_key) WHERE waiting_for = 'earlier change' AND due_at IS NULL;
CREATE INDEX queue_waiting_row_idx ON usher.queue_waiting (flow_id, row_key);
COMMENT ON TABLE usher.queue_waiting IS 'jobs that cannot run yet, with the reason';

CREATE TABLE usher.dead_letters (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    seq bigint NOT NULL,
    row_key bigint,
    created_at timestamptz NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    trail text,
    new jsonb,
    old jsonb,
    attempts integer NOT NULL,
    last_attempted_at timestamptz,
    error_message text NOT NULL,
    sqlstate text,
    source_system text,
    target_system text,
    died_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT dead_letters_pkey PRIMARY KEY (organization_id, id)
);
CREATE INDEX dead_letters_died_idx ON usher.dead_letters (died_at);
COMMENT ON TABLE usher.dead_letters IS 'jobs that failed for good, whole, with their reason; usher.retry_sync_job runs one again';

-- Finished jobs by day; a day is dropped whole when usher.history_days have passed.
CREATE TABLE usher.job_history (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    attempts integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    cancelled boolean NOT NULL DEFAULT false,
    new jsonb,
    old jsonb,
    error_message text,
    source_system text,
    target_system text,
    CONSTRAINT job_history_pkey PRIMARY KEY (organization_id, id, finished_at)
) PARTITION BY RANGE (finished_at);
COMMENT ON TABLE usher.job_history IS 'finished jobs: synced or cancelled';
-- Takes what no day's partition takes, so that a worker that was away never makes a writer fail.
CREATE TABLE usher.job_history_default PARTITION OF usher.job_history DEFAULT;

CREATE TABLE usher.job_keys (
    organization_id uuid NOT NULL,
    unique_key text NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT job_keys_pkey PRIMARY KEY (organization_id, unique_key)
);
CREATE INDEX job_keys_job_idx ON usher.job_keys (organization_id, job_id);
COMMENT ON TABLE usher.job_keys IS 'unique keys that callers gave; a second job with the same key is not made';
