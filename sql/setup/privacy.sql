-- Whose data there is, what of it is personal, and what was done about it.

-- A kind of person, and the table that has a row for each.
CREATE TABLE usher.subject_kinds (
    kind text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    follow text[] NOT NULL DEFAULT '{}',
    leave text[] NOT NULL DEFAULT '{}',
    link_kinds text[] NOT NULL DEFAULT '{}',
    run_as regrole NOT NULL,
    defined_by text NOT NULL,
    defined_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT subject_kinds_pkey PRIMARY KEY (kind),
    CONSTRAINT subject_kinds_kind_form CHECK (kind ~ '^[a-z0-9][a-z0-9_.-]{0,62}$')
);
COMMENT ON TABLE usher.subject_kinds IS 'kinds of persons whose data can be exported and erased; usher.subject_graph(kind) shows where it is';
COMMENT ON COLUMN usher.subject_kinds.follow IS 'references (schema.table.constraint) whose rows are the person''s too';
COMMENT ON COLUMN usher.subject_kinds.leave IS 'references whose rows are not the person''s';
COMMENT ON COLUMN usher.subject_kinds.link_kinds IS 'kinds of links by which remote and external systems know the person';

-- By name, as usher.audited_tables: a table that is dropped and made anew is what it was.
CREATE TABLE usher.personal_columns (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    column_name text NOT NULL,
    identifies boolean NOT NULL DEFAULT false,
    category text,
    purpose text,
    basis text,
    erase jsonb NOT NULL,
    declared_by text NOT NULL,
    declared_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT personal_columns_pkey PRIMARY KEY (schema_name, table_name, column_name)
);
COMMENT ON TABLE usher.personal_columns IS 'columns with personal data: why they are kept, and what they become when the person is erased';
COMMENT ON COLUMN usher.personal_columns.identifies IS 'its values name the person wherever they stand, such as an e-mail address';
COMMENT ON COLUMN usher.personal_columns.erase IS '"null", "pseudonym", "keep", or {"value": …}';

CREATE TABLE usher.legal_holds (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    subject text,
    reason text NOT NULL,
    held_by text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    released_by text,
    released_at timestamptz,
    CONSTRAINT legal_holds_pkey PRIMARY KEY (organization_id, id)
);
CREATE INDEX legal_holds_subject_idx ON usher.legal_holds (organization_id, kind, subject) WHERE released_at IS NULL;
COMMENT ON TABLE usher.legal_holds IS 'whose data must be kept for now: neither erased nor removed by retention';
COMMENT ON COLUMN usher.legal_holds.subject IS 'the key of the person''s row; NULL: everybody of that kind in the organization';

CREATE TABLE usher.erasures (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    pseudonym text NOT NULL,
    reason text NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    rows jsonb NOT NULL,
    copies jsonb NOT NULL,
    audit_entries bigint NOT NULL,
    unreachable jsonb NOT NULL,
    table_name text NOT NULL,
    done_by bigint NOT NULL,
    swept_at timestamptz,
    CONSTRAINT erasures_pkey PRIMARY KEY (organization_id, id)
);
CREATE INDEX erasures_open_idx ON usher.erasures (done_by) WHERE swept_at IS NULL;
COMMENT ON TABLE usher.erasures IS 'persons that were erased: usher.erasure_receipt(id) is the proof';
COMMENT ON COLUMN usher.erasures.unreachable IS 'systems that know the person and take no request to erase';
COMMENT ON COLUMN usher.erasures.done_by IS 'the transaction that did it; once all that ran beside it have ended, a worker looks again';

CREATE TABLE usher.erasure_jobs (
    organization_id uuid NOT NULL,
    erasure_id uuid NOT NULL,
    job_id uuid NOT NULL,
    system text NOT NULL,
    CONSTRAINT erasure_jobs_pkey PRIMARY KEY (organization_id, erasure_id, job_id)
);
COMMENT ON TABLE usher.erasure_jobs IS 'the sync jobs that ask other systems to erase a person';

CREATE TABLE usher.retention_rules (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    time_column text NOT NULL,
    keep interval NOT NULL,
    action text NOT NULL,
    run_as regrole NOT NULL,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_run_at timestamptz,
    last_rows bigint,
    last_error text,
    CONSTRAINT retention_rules_pkey PRIMARY KEY (schema_name, table_name, action),
    CONSTRAINT retention_rules_action_known CHECK (action IN ('delete', 'erase'))
) WITH (fillfactor = 70);
COMMENT ON TABLE usher.retention_rules IS 'how long rows of the application''s tables, or what is personal in them, are kept; workers see to it';
