-- What a package brings is configured as its installation says.

-- All of one organization: [{"organization": …, "installation_id": … or "package_id": …}, …]. What is not installed is passed over. What the configuration
-- of a module has besides stays.
CREATE OR REPLACE FUNCTION platform.configure_modules(wanted jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org       CONSTANT uuid := wanted -> 0 ->> 'organization';
    installed CONSTANT uuid[] := ARRAY(SELECT (j ->> 'installation_id')::uuid FROM jsonb_array_elements(wanted) AS j WHERE j ->> 'installation_id' IS NOT NULL);
    packages  CONSTANT uuid[] := ARRAY(SELECT (j ->> 'package_id')::uuid FROM jsonb_array_elements(wanted) AS j WHERE j ->> 'package_id' IS NOT NULL);
    wrong     text;
BEGIN
    -- One at a time for each installation: of two who configure it, the one who writes last has seen what it says last.
    PERFORM FROM platform.marketplace_installations i
      WHERE i.organization_id = org AND (i.id = ANY (installed) OR i.package_id = ANY (packages)) ORDER BY i.id FOR NO KEY UPDATE;
    SELECT string_agg(DISTINCT CASE WHEN s.module_id IS NULL THEN format('package "%s" brings module "%s", which is not registered', s.package, s.code)
                                    ELSE format('the configuration of module "%s" does not fit: %s', s.code, s.misfit) END, ', ')
      INTO wrong
      FROM (SELECT p.code AS package, n.code, m.id AS module_id,
                   CASE WHEN jsonb_typeof(COALESCE(i.configuration -> n.code, '{}')) <> 'object' OR jsonb_typeof(COALESCE(i.configuration -> '*', '{}')) <> 'object'
                        THEN 'it is no object'
                        ELSE platform.misfit(COALESCE(c.configuration, '{}') || COALESCE(i.configuration -> '*', '{}') || COALESCE(i.configuration -> n.code, '{}'), m.config_schema)
                   END AS misfit
              FROM platform.marketplace_installations i
              JOIN platform.marketplace_packages p ON p.organization_id = org AND p.id = i.package_id
             CROSS JOIN LATERAL unnest(p.module_codes) AS n (code)
              LEFT JOIN platform.module_registry m ON m.organization_id = org AND m.code = n.code
              LEFT JOIN platform.module_configurations c ON c.organization_id = org AND c.module_id = m.id AND c.installation_id = i.id
             WHERE i.organization_id = org AND (i.id = ANY (installed) OR i.package_id = ANY (packages)) AND i.status = 'installed') AS s
     WHERE s.module_id IS NULL OR s.misfit IS NOT NULL;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Correct the installation''s configuration, or what platform.module_registry says of the module.';
    END IF;
    INSERT INTO platform.module_configurations AS c (organization_id, module_id, installation_id, configuration)
    SELECT org, m.id, i.id, COALESCE(i.configuration -> '*', '{}') || COALESCE(i.configuration -> m.code, '{}')
      FROM platform.marketplace_installations i
      JOIN platform.marketplace_packages p ON p.organization_id = org AND p.id = i.package_id
      JOIN platform.module_registry m ON m.organization_id = org AND m.code = ANY (p.module_codes)
     WHERE i.organization_id = org AND (i.id = ANY (installed) OR i.package_id = ANY (packages)) AND i.status = 'installed'
        ON CONFLICT ON CONSTRAINT module_configurations_module_key DO UPDATE SET configuration = c.configuration || excluded.configuration
     WHERE c.configuration IS DISTINCT FROM c.configuration || excluded.configuration;
END
$$;
REVOKE ALL ON FUNCTION platform.configure_modules(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.configure_modules(jsonb) IS 'Configures what installed packages bring: [{"organization": …, "installation_id": …}, …], all of one organization';

-- On demand: what is given is merged over what somebody has configured by hand.
CREATE OR REPLACE FUNCTION platform.merge_configuration(organization uuid, module text, configuration jsonb) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    held  record;
    wrong text;
    done  uuid;
BEGIN
    -- Nothing to merge makes no configuration.
    IF merge_configuration.configuration = '{}' THEN
        RETURN NULL;
    END IF;
    -- The lock: of two who merge, the second sees what the first has merged.
    SELECT m.id, m.config_schema INTO held FROM platform.module_registry m
     WHERE m.organization_id = merge_configuration.organization AND m.code = merge_configuration.module FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'module "%" is not registered', merge_configuration.module
            USING ERRCODE = 'undefined_object', HINT = 'Enter it in platform.module_registry, or correct "module".';
    END IF;
    SELECT platform.misfit(d.body -> 'configuration' || merge_configuration.configuration, held.config_schema) INTO wrong
      FROM platform.module_data d WHERE d.organization_id = merge_configuration.organization AND d.module_id = held.id;
    IF jsonb_typeof(merge_configuration.configuration) IS DISTINCT FROM 'object' THEN
        wrong := 'it is no object';
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the configuration of module "%" does not fit: %', merge_configuration.module, wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Correct "configuration"; config_schema of the module says what fits.';
    END IF;
    INSERT INTO platform.module_configurations AS c (organization_id, module_id, installation_id, configuration)
    VALUES (merge_configuration.organization, held.id, NULL, merge_configuration.configuration)
        ON CONFLICT ON CONSTRAINT module_configurations_module_key DO UPDATE SET configuration = c.configuration || excluded.configuration
    RETURNING c.id INTO done;
    RETURN done;
END
$$;
REVOKE ALL ON FUNCTION platform.merge_configuration(uuid, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.merge_configuration(uuid, text, jsonb) IS 'Merges a configuration over what a module is configured by hand';
