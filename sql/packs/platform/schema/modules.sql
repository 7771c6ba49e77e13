-- Pack platform: modules.

CREATE TABLE IF NOT EXISTS platform.module_registry (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    code            text        NOT NULL,
    module_version  text        NOT NULL DEFAULT '1.0.0',
    config_schema   jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT module_registry_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT module_registry_code_key UNIQUE (organization_id, code),
    CONSTRAINT module_registry_code_given CHECK (btrim(code) <> '' AND code <> '*'),
    CONSTRAINT module_registry_schema_object CHECK (jsonb_typeof(config_schema) = 'object')
);
COMMENT ON TABLE platform.module_registry IS 'Pack platform: The modules that there are';
COMMENT ON COLUMN platform.module_registry.module_version IS 'Of the module; version is of the row';
COMMENT ON COLUMN platform.module_registry.config_schema IS 'What a configuration must fit: "required", "properties" with "type" and "enum", "additionalProperties": false, of JSON Schema';

CREATE TABLE IF NOT EXISTS platform.module_activations (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    module_id       uuid        NOT NULL,
    workflow_id     uuid,
    status          text        NOT NULL DEFAULT 'pending',
    capabilities    text[]      NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT module_activations_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT module_activations_module_key UNIQUE (organization_id, module_id),
    CONSTRAINT module_activations_module_fkey FOREIGN KEY (organization_id, module_id)
        REFERENCES platform.module_registry (organization_id, id),
    CONSTRAINT module_activations_workflow_fkey FOREIGN KEY (organization_id, workflow_id)
        REFERENCES platform.orchestration_workflows (organization_id, id),
    CONSTRAINT module_activations_status_known CHECK (status IN ('pending', 'active', 'inactive', 'failed'))
);
CREATE INDEX IF NOT EXISTS module_activations_status_idx ON platform.module_activations (organization_id, status);
CREATE INDEX IF NOT EXISTS module_activations_workflow_idx ON platform.module_activations (organization_id, workflow_id);
COMMENT ON TABLE platform.module_activations IS 'Pack platform: Which modules an organization works with, each once';
COMMENT ON COLUMN platform.module_activations.workflow_id IS 'The workflow that needed it first; empty: somebody activated it by hand';
COMMENT ON COLUMN platform.module_activations.status IS 'pending: asked for; a module that has failed is not activated until somebody makes it pending or inactive';
CREATE OR REPLACE TRIGGER refuse_step BEFORE UPDATE ON platform.module_activations
    FOR EACH ROW WHEN (OLD.status <> NEW.status AND (OLD.status || '>' || NEW.status) IN ('failed>active', 'active>pending', 'inactive>failed'))
    EXECUTE FUNCTION platform.refuse_step();

CREATE TABLE IF NOT EXISTS platform.marketplace_packages (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    code            text        NOT NULL,
    package_version text        NOT NULL DEFAULT '1.0.0',
    module_codes    text[]      NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT marketplace_packages_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT marketplace_packages_code_key UNIQUE (organization_id, code),
    CONSTRAINT marketplace_packages_code_given CHECK (btrim(code) <> ''),
    CONSTRAINT marketplace_packages_modules_named CHECK (array_position(module_codes, NULL) IS NULL AND array_position(module_codes, '') IS NULL)
);
COMMENT ON TABLE platform.marketplace_packages IS 'Pack platform: What can be installed, and the modules that come with it';
COMMENT ON COLUMN platform.marketplace_packages.package_version IS 'Of the package; version is of the row';
COMMENT ON COLUMN platform.marketplace_packages.module_codes IS 'As in module_registry';

CREATE TABLE IF NOT EXISTS platform.marketplace_templates (
    organization_id  uuid        NOT NULL,
    id               uuid        NOT NULL DEFAULT gen_random_uuid(),
    code             text        NOT NULL,
    template_version text        NOT NULL DEFAULT '1.0.0',
    capabilities     text[]      NOT NULL DEFAULT '{}',
    version          bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT marketplace_templates_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT marketplace_templates_code_key UNIQUE (organization_id, code),
    CONSTRAINT marketplace_templates_code_given CHECK (btrim(code) <> '')
);
COMMENT ON TABLE platform.marketplace_templates IS 'Pack platform: Templates of workflows';
COMMENT ON COLUMN platform.marketplace_templates.template_version IS 'Of the template; version is of the row';

CREATE TABLE IF NOT EXISTS platform.marketplace_installations (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    package_id      uuid        NOT NULL,
    configuration   jsonb       NOT NULL DEFAULT '{}',
    status          text        NOT NULL DEFAULT 'pending',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT marketplace_installations_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT marketplace_installations_package_key UNIQUE (organization_id, package_id),
    CONSTRAINT marketplace_installations_package_fkey FOREIGN KEY (organization_id, package_id)
        REFERENCES platform.marketplace_packages (organization_id, id),
    CONSTRAINT marketplace_installations_configuration_object CHECK (jsonb_typeof(configuration) = 'object'),
    CONSTRAINT marketplace_installations_status_known CHECK (status IN ('pending', 'installed', 'failed', 'removed'))
);
CREATE INDEX IF NOT EXISTS marketplace_installations_status_idx ON platform.marketplace_installations (organization_id, status);
COMMENT ON TABLE platform.marketplace_installations IS 'Pack platform: Packages that an organization has, each once';
COMMENT ON COLUMN platform.marketplace_installations.configuration IS 'By the code of the module, and "*" for all of them: {"*": {"region": "eu"}, "crm": {"seats": 5}}';
CREATE OR REPLACE TRIGGER refuse_step BEFORE UPDATE ON platform.marketplace_installations
    FOR EACH ROW WHEN (OLD.status <> NEW.status AND (OLD.status || '>' || NEW.status) IN ('failed>installed', 'installed>pending', 'removed>failed'))
    EXECUTE FUNCTION platform.refuse_step();

CREATE TABLE IF NOT EXISTS platform.module_configurations (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    module_id       uuid        NOT NULL,
    installation_id uuid,
    configuration   jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT module_configurations_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT module_configurations_module_key UNIQUE NULLS NOT DISTINCT (organization_id, module_id, installation_id),
    CONSTRAINT module_configurations_module_fkey FOREIGN KEY (organization_id, module_id)
        REFERENCES platform.module_registry (organization_id, id),
    CONSTRAINT module_configurations_installation_fkey FOREIGN KEY (organization_id, installation_id)
        REFERENCES platform.marketplace_installations (organization_id, id),
    CONSTRAINT module_configurations_configuration_object CHECK (jsonb_typeof(configuration) = 'object')
);
CREATE INDEX IF NOT EXISTS module_configurations_installation_idx ON platform.module_configurations (organization_id, installation_id);
COMMENT ON TABLE platform.module_configurations IS 'Pack platform: How a module is configured: once by each installation, and once by hand, which goes before them';
COMMENT ON COLUMN platform.module_configurations.installation_id IS 'The installation that it comes from; empty: by hand';

-- What of a configuration does not fit a schema; NULL: all of it does.
CREATE OR REPLACE FUNCTION platform.misfit(configuration jsonb, config_schema jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof(configuration) IS DISTINCT FROM 'object' THEN 'it is no object' ELSE (
        SELECT string_agg(w.wrong, '; ' ORDER BY w.wrong) FROM (
            SELECT format('"%s" is missing', r.key) AS wrong
              FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(config_schema -> 'required') = 'array' THEN config_schema -> 'required' ELSE '[]' END) AS r (key)
             WHERE NOT configuration ? r.key
             UNION ALL
            SELECT CASE WHEN p.value ? 'enum' AND NOT (p.value -> 'enum') @> jsonb_build_array(configuration -> p.key)
                        THEN format('"%s" is none of %s', p.key, p.value -> 'enum')
                        ELSE format('"%s" is no %s', p.key, p.value ->> 'type') END
              FROM jsonb_each(CASE WHEN jsonb_typeof(config_schema -> 'properties') = 'object' THEN config_schema -> 'properties' ELSE '{}' END) AS p
             WHERE configuration ? p.key
               AND (CASE WHEN p.value ->> 'type' IS NULL THEN false
                         WHEN p.value ->> 'type' = 'integer' THEN
                              CASE WHEN jsonb_typeof(configuration -> p.key) = 'number' THEN (configuration ->> p.key)::numeric % 1 <> 0 ELSE true END
                         ELSE jsonb_typeof(configuration -> p.key) <> p.value ->> 'type' END
                    OR jsonb_typeof(p.value -> 'enum') = 'array' AND NOT (p.value -> 'enum') @> jsonb_build_array(configuration -> p.key))
             UNION ALL
            SELECT format('"%s" is not known', c.key)
              FROM jsonb_object_keys(configuration) AS c (key)
             WHERE config_schema -> 'additionalProperties' = 'false' AND NOT COALESCE(config_schema -> 'properties', '{}') ? c.key
        ) AS w) END
$$;
REVOKE ALL ON FUNCTION platform.misfit(jsonb, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.misfit(jsonb, jsonb) IS 'What of a configuration does not fit a schema of module_registry; NULL: all of it does';
