-- Pack platform: handover.

CREATE TABLE IF NOT EXISTS platform.handover_packages (
    organization_id  uuid        NOT NULL,
    id               uuid        NOT NULL DEFAULT gen_random_uuid(),
    execution_id     uuid        NOT NULL,
    client_ref       text,
    includes_modules boolean     NOT NULL DEFAULT true,
    notify_client    boolean     NOT NULL DEFAULT false,
    status           text        NOT NULL DEFAULT 'pending',
    delivered_at     timestamptz,
    version          bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT handover_packages_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT handover_packages_execution_key UNIQUE (organization_id, execution_id),
    CONSTRAINT handover_packages_execution_fkey FOREIGN KEY (organization_id, execution_id)
        REFERENCES platform.workflow_executions (organization_id, id),
    CONSTRAINT handover_packages_status_known CHECK (status IN ('pending', 'preparing', 'ready', 'delivered', 'failed')),
    CONSTRAINT handover_packages_delivered_when CHECK ((status = 'delivered') = (delivered_at IS NOT NULL)),
    CONSTRAINT handover_packages_client_known CHECK (NOT notify_client OR btrim(client_ref) <> '')
);
CREATE INDEX IF NOT EXISTS handover_packages_status_idx ON platform.handover_packages (organization_id, status);
COMMENT ON TABLE platform.handover_packages IS 'Pack platform: What a client is given of an execution, once. Flows fill what is pending and make it ready; people deliver it.';
COMMENT ON COLUMN platform.handover_packages.client_ref IS 'The id by which the client is told, as usher.notify knows people';
COMMENT ON COLUMN platform.handover_packages.includes_modules IS 'With a snapshot of every module; those of a package that is not delivered follow the modules';
CREATE OR REPLACE TRIGGER refuse_step BEFORE UPDATE ON platform.handover_packages
    FOR EACH ROW WHEN (OLD.status <> NEW.status AND (OLD.status || '>' || NEW.status) NOT IN (
        'pending>preparing', 'pending>ready', 'pending>failed', 'preparing>ready', 'preparing>failed', 'ready>delivered', 'ready>preparing', 'ready>failed', 'failed>pending'))
    EXECUTE FUNCTION platform.refuse_step();

CREATE TABLE IF NOT EXISTS platform.handover_documentation (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    package_id      uuid        NOT NULL,
    kind            text        NOT NULL,
    source_ref      text        NOT NULL,
    body            jsonb       NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT handover_documentation_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT handover_documentation_source_key UNIQUE (organization_id, package_id, kind, source_ref),
    CONSTRAINT handover_documentation_package_fkey FOREIGN KEY (organization_id, package_id)
        REFERENCES platform.handover_packages (organization_id, id),
    CONSTRAINT handover_documentation_kind_known CHECK (kind IN ('result', 'artifact', 'module_snapshot'))
);
COMMENT ON TABLE platform.handover_documentation IS 'Pack platform: What is in a package; written by flows only';
COMMENT ON COLUMN platform.handover_documentation.source_ref IS 'The execution''s id of a result, the name of an artifact, the module''s id of a snapshot';

CREATE TABLE IF NOT EXISTS platform.handover_credentials (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    package_id      uuid        NOT NULL,
    secret_ref      text        NOT NULL,
    issued_to       text        NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT handover_credentials_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT handover_credentials_secret_key UNIQUE (organization_id, package_id, secret_ref, issued_to),
    CONSTRAINT handover_credentials_package_fkey FOREIGN KEY (organization_id, package_id)
        REFERENCES platform.handover_packages (organization_id, id),
    CONSTRAINT handover_credentials_reference_only CHECK (secret_ref ~ '^[a-z][a-z0-9_-]*:[a-z0-9_./-]{1,200}$'),
    CONSTRAINT handover_credentials_issued_to_given CHECK (btrim(issued_to) <> '')
);
COMMENT ON TABLE platform.handover_credentials IS 'Pack platform: Where the secrets of a package are kept, and who has been given them; never a secret itself';
COMMENT ON COLUMN platform.handover_credentials.secret_ref IS 'Store and name, such as vault:clients/acme';

-- The data of each module as a handover package holds them. What is configured by hand goes before what installations say.
CREATE OR REPLACE VIEW platform.module_data WITH (security_invoker = true) AS
SELECT m.organization_id, m.id AS module_id, a.status = 'active' IS TRUE OR c.configuration IS NOT NULL AS in_use,
       jsonb_build_object('module', m.code, 'version', m.module_version, 'status', COALESCE(a.status, 'inactive'),
                          'capabilities', COALESCE(to_jsonb(a.capabilities), '[]'), 'configuration', COALESCE(c.configuration, '{}'),
                          'packages', COALESCE(c.packages, '[]')) AS body
  FROM platform.module_registry m
  LEFT JOIN platform.module_activations a ON a.organization_id = m.organization_id AND a.module_id = m.id
  LEFT JOIN LATERAL (
        SELECT COALESCE(jsonb_object_agg(e.key, e.value ORDER BY o.installation_id IS NULL, o.installation_id) FILTER (WHERE e.key IS NOT NULL),
                        CASE WHEN count(o.id) > 0 THEN '{}'::jsonb END) AS configuration,
               jsonb_agg(DISTINCT jsonb_build_object('code', p.code, 'version', p.package_version)) FILTER (WHERE p.id IS NOT NULL) AS packages
          FROM platform.module_configurations o
          LEFT JOIN LATERAL jsonb_each(o.configuration) AS e ON true
          LEFT JOIN platform.marketplace_installations i ON i.organization_id = o.organization_id AND i.id = o.installation_id
          LEFT JOIN platform.marketplace_packages p ON p.organization_id = i.organization_id AND p.id = i.package_id
         WHERE o.organization_id = m.organization_id AND o.module_id = m.id) AS c ON true;
COMMENT ON VIEW platform.module_data IS 'Pack platform: Each module as a handover package holds it, with its configurations put together';
GRANT SELECT ON platform.module_data TO usher_member, usher_reader;
