-- A table of an organization, brought in step on demand.

-- The organization that the caller manages: by slug or id, or the only one. Unknown and foreign are refused alike.
CREATE OR REPLACE FUNCTION platform.managed_organization(named text) RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    managed CONSTANT uuid[] := usher.managed_organizations();
    known   uuid;
BEGIN
    IF named IS NULL THEN
        IF cardinality(managed) = 1 THEN
            RETURN managed[1];
        END IF;
        RAISE EXCEPTION 'the organization is missing' USING ERRCODE = 'invalid_parameter_value',
            DETAIL = format('You manage %s organizations.', COALESCE(cardinality(managed), 0)), HINT = 'Give its slug or its id.';
    END IF;
    SELECT o.id INTO known FROM usher.organizations o WHERE named IN (o.slug, o.id::text) AND o.id = ANY (managed);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'you are no admin of organization "%"', named
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('You act as "%s".', usher.actor()),
                  HINT = 'Check the spelling, or ask one of its admins for usher.grant_membership(organization, your user id, ''admin'').';
    END IF;
    RETURN known;
END
$$;
REVOKE ALL ON FUNCTION platform.managed_organization(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.managed_organization(text) TO usher_member;
COMMENT ON FUNCTION platform.managed_organization(text) IS 'The organization of a slug or id, for its admins; NULL: the only one that the caller manages';

-- What the flows that read a table do, for rows as they are now. All of one organization: [{"organization": …, "table_name": …, "id": …}, …]
CREATE OR REPLACE FUNCTION platform.synchronise_rows(rows jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org   CONSTANT uuid := rows -> 0 ->> 'organization';
    wrong text;
    part  record;
    jobs  jsonb;
BEGIN
    SELECT string_agg(DISTINCT format('no flow reads "%s"', r ->> 'table_name'), ', ') INTO wrong
      FROM jsonb_array_elements(rows) AS r WHERE NOT r ->> 'table_name' = ANY (platform.synchronised_tables());
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'invalid_parameter_value', HINT = 'SELECT platform.synchronised_tables() shows those that are read.';
    END IF;
    -- One round for each table, not for each row.
    FOR part IN
        SELECT r ->> 'table_name' AS name, array_agg(DISTINCT (r ->> 'id')::uuid) AS ids
          FROM jsonb_array_elements(rows) AS r GROUP BY 1 ORDER BY 1
    LOOP
        CASE part.name
        WHEN 'orchestration_workflows' THEN
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'workflow_id', w.id, 'state', CASE WHEN w.auto_activate THEN 'active' ELSE 'pending' END)) INTO jobs
              FROM platform.orchestration_workflows w
             WHERE w.organization_id = org AND w.id = ANY (part.ids) AND w.status = 'active' AND w.required_modules <> '{}';
            PERFORM platform.activate_modules(jobs) WHERE jobs IS NOT NULL;
        WHEN 'workflow_executions' THEN
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'workflow_id', w.id, 'state', 'active')) INTO jobs
              FROM platform.workflow_executions e
              JOIN platform.orchestration_workflows w ON w.organization_id = org AND w.id = e.workflow_id AND w.auto_activate AND w.required_modules <> '{}'
             WHERE e.organization_id = org AND e.id = ANY (part.ids) AND e.status IN ('pending', 'running');
            PERFORM platform.activate_modules(jobs) WHERE jobs IS NOT NULL;
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'execution_id', e.id)) INTO jobs
              FROM platform.workflow_executions e
             WHERE e.organization_id = org AND e.id = ANY (part.ids) AND e.status = 'completed';
            PERFORM platform.hand_over(jobs) WHERE jobs IS NOT NULL;
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'package_id', h.id)) INTO jobs
              FROM platform.handover_packages h
              JOIN platform.workflow_executions e ON e.organization_id = org AND e.id = h.execution_id
             WHERE h.organization_id = org AND e.id = ANY (part.ids) AND e.status = 'completed';
            PERFORM platform.prepare_packages(jobs) WHERE jobs IS NOT NULL;
        WHEN 'handover_packages' THEN
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'package_id', h)) INTO jobs FROM unnest(part.ids) AS h;
            PERFORM platform.prepare_packages(jobs);
        WHEN 'marketplace_installations' THEN
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'installation_id', i)) INTO jobs FROM unnest(part.ids) AS i;
            PERFORM platform.configure_modules(jobs);
        WHEN 'marketplace_packages' THEN
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'package_id', p)) INTO jobs FROM unnest(part.ids) AS p;
            PERFORM platform.configure_modules(jobs), platform.snapshot_modules(jobs);
        WHEN 'module_registry', 'module_activations', 'module_configurations' THEN
            SELECT jsonb_agg(jsonb_build_object('organization', org, 'module_id', m.id)) INTO jobs FROM (
                SELECT m.id FROM platform.module_registry m WHERE part.name = 'module_registry' AND m.organization_id = org AND m.id = ANY (part.ids)
                 UNION
                SELECT a.module_id FROM platform.module_activations a WHERE part.name = 'module_activations' AND a.organization_id = org AND a.id = ANY (part.ids)
                 UNION
                SELECT c.module_id FROM platform.module_configurations c WHERE part.name = 'module_configurations' AND c.organization_id = org AND c.id = ANY (part.ids)) AS m;
            PERFORM platform.snapshot_modules(jobs) WHERE jobs IS NOT NULL;
        WHEN 'marketplace_templates' THEN
            PERFORM usher.emit_event(org::text, 'marketplace.template.updated',
                                     jsonb_build_object('template_id', t.id, 'code', t.code, 'version', t.template_version, 'capabilities', t.capabilities))
               FROM platform.marketplace_templates t WHERE t.organization_id = org AND t.id = ANY (part.ids);
        END CASE;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION platform.synchronise_rows(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.synchronise_rows(jsonb) IS 'Does for rows what the flows that read their tables do: [{"organization": …, "table_name": …, "id": …}, …], all of one organization';

CREATE OR REPLACE FUNCTION platform.synchronised_tables() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['orchestration_workflows', 'workflow_executions', 'module_registry', 'module_activations', 'module_configurations',
                 'marketplace_packages', 'marketplace_templates', 'marketplace_installations', 'handover_packages']
$$;
REVOKE ALL ON FUNCTION platform.synchronised_tables() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.synchronised_tables() TO usher_member;
COMMENT ON FUNCTION platform.synchronised_tables() IS 'The tables that platform.sync_table() synchronises';

-- A job for each row, so that one that fails is told of by itself and keeps no other from going through.
CREATE OR REPLACE FUNCTION platform.sync_table(table_name text, organization text DEFAULT NULL) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org      CONSTANT uuid := platform.managed_organization(sync_table.organization);
    relation CONSTANT text := regexp_replace(sync_table.table_name, '^platform\.', '');
    slice    CONSTANT integer := 50000;
    wanted   jsonb[];
    operation uuid;
BEGIN
    IF NOT COALESCE(relation = ANY (platform.synchronised_tables()), false) THEN
        RAISE EXCEPTION 'no flow reads the table "%"', sync_table.table_name
            USING ERRCODE = 'invalid_parameter_value', HINT = format('Choose one of %s.', array_to_string(platform.synchronised_tables(), ', '));
    END IF;
    EXECUTE format('SELECT array_agg(jsonb_build_object(''action'', ''synchronise_row'', ''table'', $2, ''id'', t.id) ORDER BY t.id)
                      FROM platform.%I t WHERE t.organization_id = $1', relation)
       INTO wanted USING org, relation;
    operation := usher.create_batch(org::text, 'platform.' || relation);
    -- As many as one call takes.
    PERFORM usher.enqueue_sync_jobs(org::text, 'platform', 'platform', wanted[s.first : s.first + slice - 1], options => jsonb_build_object('batch', operation))
       FROM generate_series(1, COALESCE(cardinality(wanted), 0), slice) AS s (first);
    PERFORM usher.seal_batch(operation);
    RETURN operation;
END
$$;
REVOKE ALL ON FUNCTION platform.sync_table(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.sync_table(text, text) TO usher_member;
COMMENT ON FUNCTION platform.sync_table(text, text) IS
    'Synchronises a table of an organization on demand, for its admins; returns the operation, whose state platform.operation_status() tells';

CREATE OR REPLACE FUNCTION platform.operation_status(operation uuid)
    RETURNS TABLE (organization_id uuid, table_name text, state text, total bigint, done bigint, failed bigint, cancelled bigint, percent numeric,
                   errors jsonb, created_by text, created_at timestamptz, finished_at timestamptz)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT b.organization_id, b.name, CASE WHEN b.state = 'finished' AND b.failed > 0 THEN 'failed' WHEN b.state = 'finished' THEN 'done' ELSE 'running' END,
           b.total, b.done, b.failed, b.cancelled, b.percent,
           COALESCE((SELECT jsonb_agg(jsonb_build_object('job', x.id, 'row', x.row, 'error', x.error_message) ORDER BY x.id)
                       FROM (SELECT d.id, d.new ->> 'id' AS row, d.error_message
                               FROM usher.dead_letters d JOIN usher.job_options o ON o.organization_id = d.organization_id AND o.job_id = d.id
                              WHERE d.organization_id = b.organization_id AND o.batch_id = b.id ORDER BY d.id LIMIT 100) AS x), '[]'),
           b.created_by, b.created_at, b.finished_at
      FROM usher.batches b
     WHERE b.id = operation_status.operation AND starts_with(b.name, 'platform.');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no operation % that you may see', operation_status.operation
            USING ERRCODE = 'undefined_object', HINT = 'platform.sync_table() returns the id of the operation that it has begun.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION platform.operation_status(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.operation_status(uuid) TO usher_member;
COMMENT ON FUNCTION platform.operation_status(uuid) IS
    'How far an operation of platform.sync_table() is: running, done or failed, counts, and its first 100 errors by row';
