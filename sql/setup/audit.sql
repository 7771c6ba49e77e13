-- Who did what. Only added to: a trigger refuses everything else, for everybody. Installation-wide acts have no organization.
CREATE TABLE usher.audit_log (
    id uuid NOT NULL,
    organization_id uuid,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    actor text NOT NULL,
    role text NOT NULL,
    action text NOT NULL,
    object text,
    old jsonb,
    new jsonb,
    correlation_id uuid NOT NULL,
    flow text,
    CONSTRAINT audit_log_key UNIQUE NULLS NOT DISTINCT (organization_id, id)
);
CREATE INDEX audit_log_organization_idx ON usher.audit_log (organization_id, recorded_at);
COMMENT ON TABLE usher.audit_log IS 'who did what, when, with the old and new values; entries are never changed or deleted';
COMMENT ON COLUMN usher.audit_log.organization_id IS 'NULL: the whole installation; seen by operators and readers only';
COMMENT ON COLUMN usher.audit_log.actor IS 'a user''s id, role:NAME, flow NAME in a worker, or worker for its own upkeep';
COMMENT ON COLUMN usher.audit_log.role IS 'the database role that wrote';
COMMENT ON COLUMN usher.audit_log.action IS 'what was done, such as atlvs.deals.updated';
COMMENT ON COLUMN usher.audit_log.object IS 'the key of the row, or what was acted upon';
COMMENT ON COLUMN usher.audit_log.old IS 'the audited columns before; of an update only those that changed';
COMMENT ON COLUMN usher.audit_log.correlation_id IS 'the sync job whose flow wrote, else one id for all that was written in one transaction';
COMMENT ON COLUMN usher.audit_log.flow IS 'the flow that wrote, if one did';

-- Tables of the application that are audited. By name: a table that is dropped and made anew is audited again.
CREATE TABLE usher.audited_tables (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    columns text[],
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL,
    CONSTRAINT audited_tables_pkey PRIMARY KEY (schema_name, table_name)
);
COMMENT ON TABLE usher.audited_tables IS 'the application''s tables whose changes are entered into usher.audit_log';
COMMENT ON COLUMN usher.audited_tables.columns IS 'NULL: all';
