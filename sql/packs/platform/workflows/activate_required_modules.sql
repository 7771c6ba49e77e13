-- The modules that workflows need.

-- All of one organization: [{"organization": …, "workflow_id": …} or {"organization": …, "modules": ["crm"]}, …, each with "state": "active" or "pending"}].
-- What is asked for stays pending until an admin decides. A module that has failed is left to people.
CREATE OR REPLACE FUNCTION platform.activate_modules(wanted jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := wanted -> 0 ->> 'organization';
    missing text;
BEGIN
    SELECT string_agg(DISTINCT COALESCE(format('workflow "%s" needs module "%s"', w.name, n.code), format('module "%s" was asked for', n.code)), ', ')
      INTO missing
      FROM jsonb_array_elements(wanted) AS j (job)
      LEFT JOIN platform.orchestration_workflows w ON w.organization_id = org AND w.id = (j.job ->> 'workflow_id')::uuid
     CROSS JOIN LATERAL unnest(COALESCE(w.required_modules, ARRAY(SELECT jsonb_array_elements_text(j.job -> 'modules')))) AS n (code)
     WHERE NOT EXISTS (SELECT FROM platform.module_registry m WHERE m.organization_id = org AND m.code = n.code);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION '%, which is not registered', missing
            USING ERRCODE = 'undefined_object', HINT = 'Enter it in platform.module_registry, or correct required_modules.';
    END IF;
    INSERT INTO platform.module_activations AS a (organization_id, module_id, workflow_id, status)
    SELECT DISTINCT ON (m.id) org, m.id, w.id, j.job ->> 'state'
      FROM jsonb_array_elements(wanted) WITH ORDINALITY AS j (job, n)
      LEFT JOIN platform.orchestration_workflows w ON w.organization_id = org AND w.id = (j.job ->> 'workflow_id')::uuid
      JOIN platform.module_registry m
        ON m.organization_id = org AND m.code = ANY (COALESCE(w.required_modules, ARRAY(SELECT jsonb_array_elements_text(j.job -> 'modules'))))
     ORDER BY m.id, j.job ->> 'state', j.n
        ON CONFLICT ON CONSTRAINT module_activations_module_key DO UPDATE SET status = excluded.status
     WHERE a.status = 'inactive' OR a.status = 'pending' AND excluded.status = 'active';
END
$$;
REVOKE ALL ON FUNCTION platform.activate_modules(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.activate_modules(jsonb) IS 'Activates what workflows require, or asks for it: [{"organization": …, "workflow_id": …, "state": "active"}, …], all of one organization';
