-- What a client is given of an execution that is completed.

CREATE OR REPLACE FUNCTION platform.lists_artifacts(outputs jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT outputs ? 'artifacts'
        OR CASE WHEN jsonb_typeof(outputs -> 'artifacts') = 'array' THEN (
               SELECT count(*) = count(DISTINCT a ->> 'name') FILTER (WHERE jsonb_typeof(a) = 'object' AND btrim(a ->> 'name') <> '')
                 FROM jsonb_array_elements(outputs -> 'artifacts') AS a) ELSE false END
$$;
REVOKE ALL ON FUNCTION platform.lists_artifacts(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.lists_artifacts(jsonb) IS 'Whether the artifacts of an execution are a list of objects, each with a name of its own; none are one, too';

-- All of one organization: [{"organization": …, "execution_id": …}, …]. A package that is there stays as it is.
CREATE OR REPLACE FUNCTION platform.hand_over(wanted jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org   CONSTANT uuid := wanted -> 0 ->> 'organization';
    wrong text;
BEGIN
    SELECT string_agg(CASE WHEN e.id IS NULL THEN format('execution %s does not exist', j ->> 'execution_id')
                           WHEN e.status <> 'completed' THEN format('execution %s is %s', e.id, e.status)
                           ELSE format('the artifacts of execution %s are no list of objects, each with a name of its own', e.id) END, ', ')
      INTO wrong
      FROM jsonb_array_elements(wanted) AS j
      LEFT JOIN platform.workflow_executions e ON e.organization_id = org AND e.id = (j ->> 'execution_id')::uuid
     WHERE e.id IS NULL OR e.status <> 'completed' OR NOT platform.lists_artifacts(e.outputs);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A package is made of a completed execution; correct its outputs.';
    END IF;
    INSERT INTO platform.handover_packages (organization_id, execution_id, client_ref, includes_modules, notify_client)
    SELECT DISTINCT org, e.id, e.input ->> 'client_ref', COALESCE((e.input ->> 'includes_modules')::boolean, true), COALESCE((e.input ->> 'notify_client')::boolean, false)
      FROM jsonb_array_elements(wanted) AS j
      JOIN platform.workflow_executions e ON e.organization_id = org AND e.id = (j ->> 'execution_id')::uuid
        ON CONFLICT ON CONSTRAINT handover_packages_execution_key DO NOTHING;
END
$$;
REVOKE ALL ON FUNCTION platform.hand_over(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.hand_over(jsonb) IS 'Makes the packages of completed executions: [{"organization": …, "execution_id": …}, …], all of one organization';

-- All of one organization: [{"organization": …, "package_id": …}, …]. What is pending becomes ready, also one that somebody made by hand; what is ready is brought up to date.
CREATE OR REPLACE FUNCTION platform.prepare_packages(wanted jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org    CONSTANT uuid := wanted -> 0 ->> 'organization';
    chosen CONSTANT uuid[] := ARRAY(SELECT (j ->> 'package_id')::uuid FROM jsonb_array_elements(wanted) AS j);
    open   uuid[];
    wrong  text;
BEGIN
    SELECT array_agg(l.id) INTO open
      FROM (SELECT h.id FROM platform.handover_packages h
             WHERE h.organization_id = org AND h.id = ANY (chosen) AND h.status IN ('pending', 'preparing', 'ready') ORDER BY h.id FOR NO KEY UPDATE) AS l;
    SELECT string_agg(CASE WHEN e.status <> 'completed' THEN format('execution %s is %s', e.id, e.status)
                           ELSE format('the artifacts of execution %s are no list of objects, each with a name of its own', e.id) END, ', ')
      INTO wrong
      FROM platform.handover_packages h
      JOIN platform.workflow_executions e ON e.organization_id = org AND e.id = h.execution_id
     WHERE h.organization_id = org AND h.id = ANY (open) AND (e.status <> 'completed' OR NOT platform.lists_artifacts(e.outputs));
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A package is made of a completed execution; correct its outputs.';
    END IF;
    -- From here on snapshots of modules reach it, too: none falls between.
    UPDATE platform.handover_packages h SET status = 'preparing'
     WHERE h.organization_id = org AND h.id = ANY (open) AND h.status = 'pending';
    INSERT INTO platform.handover_documentation AS d (organization_id, package_id, kind, source_ref, body)
    SELECT org, h.id, c.kind, c.source_ref, c.body
      FROM platform.handover_packages h
      JOIN platform.workflow_executions e ON e.organization_id = org AND e.id = h.execution_id
     CROSS JOIN LATERAL (SELECT 'result' AS kind, e.id::text AS source_ref, e.outputs - 'artifacts' AS body
                          UNION ALL
                         SELECT 'artifact', a ->> 'name', a FROM jsonb_array_elements(COALESCE(e.outputs -> 'artifacts', '[]')) AS a) AS c
     WHERE h.organization_id = org AND h.id = ANY (open)
        ON CONFLICT ON CONSTRAINT handover_documentation_source_key DO UPDATE SET body = excluded.body
     WHERE d.body IS DISTINCT FROM excluded.body;
    PERFORM platform.snapshot_modules(jsonb_agg(jsonb_build_object('organization', org, 'handover_id', h))) FROM unnest(open) AS h HAVING count(*) > 0;
    UPDATE platform.handover_packages h SET status = 'ready'
     WHERE h.organization_id = org AND h.id = ANY (open) AND h.status = 'preparing';
END
$$;
REVOKE ALL ON FUNCTION platform.prepare_packages(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.prepare_packages(jsonb) IS 'Puts results, artifacts and modules into packages that are not delivered: [{"organization": …, "package_id": …}, …], all of one organization';
