-- Drops what usher.expose_api() has made, in one schema or in all; what was made stays recorded. Somebody else's objects of
-- the same names are left alone: the comment tells. Functions first, they return rows of the views.
CREATE FUNCTION usher.drop_api(schema text DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    statement text;
    dropped integer := 0;
BEGIN
    -- Tables of an older version know of nothing exposed.
    IF to_regclass('usher.exposed_objects') IS NULL THEN
        RETURN 0;
    END IF;
    FOR statement IN
        SELECT format('DROP FUNCTION %s', p.oid::regprocedure)
          FROM usher.exposed_objects e JOIN pg_namespace n ON n.nspname = e.schema_name
          JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = e.name
         WHERE e.kind = 'function' AND obj_description(p.oid, 'pg_proc') LIKE 'pg\_usher: %' AND e.schema_name = COALESCE(drop_api.schema, e.schema_name)
        UNION ALL
        SELECT format('DROP VIEW %I.%I', n.nspname, c.relname)
          FROM usher.exposed_objects e JOIN pg_namespace n ON n.nspname = e.schema_name
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = e.name AND c.relkind = 'v'
         WHERE e.kind = 'view' AND obj_description(c.oid, 'pg_class') LIKE 'pg\_usher: %' AND e.schema_name = COALESCE(drop_api.schema, e.schema_name)
         ORDER BY 1
    LOOP
        EXECUTE statement;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

-- What rpc_deal_to_project does: a won deal's project, or where it stands. The tables are those of the pack live_events;
-- they are read with the caller's rights.
CREATE FUNCTION usher.deal_to_project(
    organization text, deal uuid,
    OUT organization_id uuid, OUT project_id uuid, OUT status text, OUT error_message text
) RETURNS record
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    found_deal record;
    job record;
    base regclass;
    image jsonb;
BEGIN
    organization_id := usher.managed_organization(organization);
    IF deal IS NULL THEN
        RAISE EXCEPTION 'the deal is missing' USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the id of a row in atlvs.deals.';
    END IF;
    IF to_regclass('atlvs.deals') IS NULL OR to_regclass('atlvs.projects') IS NULL THEN
        RAISE EXCEPTION 'the pack live_events is not installed'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Ask an operator for SELECT usher.install_pack(''live_events'');';
    END IF;
    SELECT d.status, to_jsonb(d) AS image INTO found_deal
      FROM atlvs.deals AS d WHERE d.organization_id = deal_to_project.organization_id AND d.id = deal;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deal % does not exist in organization "%"', deal, organization
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, title, status FROM atlvs.deals shows the deals you may see.';
    END IF;
    SELECT p.id INTO project_id
      FROM atlvs.projects AS p WHERE p.organization_id = deal_to_project.organization_id AND p.deal_id = deal;
    IF FOUND THEN
        status := 'synced';
        RETURN;
    END IF;
    IF found_deal.status <> 'won' THEN
        RAISE EXCEPTION 'deal % is not won', deal
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('Its status is %s.', found_deal.status),
                  HINT = 'Set its status to won: the project follows by itself, in the same transaction.';
    END IF;
    -- The flow has tried and could not. Its job holds the deal as it was then: it goes on with the deal as it is now.
    SELECT j.* INTO job
      FROM (SELECT d.id, d.new, d.error_message, true AS again, NULL::text AS waiting_for, d.seq, d.flow_id
              FROM usher.dead_letters AS d WHERE d.organization_id = deal_to_project.organization_id
             UNION ALL
            SELECT w.id, w.new, w.error_message, w.waiting_for = 'retry', w.waiting_for, w.seq, w.flow_id
              FROM usher.queue_waiting AS w WHERE w.organization_id = deal_to_project.organization_id
             UNION ALL
            SELECT q.id, q.new, NULL, false, NULL, q.seq, q.flow_id
              FROM usher.visible_ready_jobs AS q WHERE q.organization_id = deal_to_project.organization_id) AS j
     WHERE j.new ->> 'id' = deal::text
       AND j.flow_id IN (SELECT f.flow_id FROM usher.flow_versions AS f WHERE f.name = 'live_events.create_project_from_won_deal')
     ORDER BY j.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deal % is won, but no flow has been asked for its project', deal
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'It was won while the flow live_events.create_project_from_won_deal was not there or was disabled.',
                  HINT = 'Take the deal out of won and win it again; SELECT usher.install_pack(''live_events''); brings back a flow that is gone.';
    END IF;
    IF job.again THEN
        -- Of a bound deal the job has the application's row, with the application's names.
        SELECT d.refobjid INTO base
          FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
          JOIN pg_class AS c ON c.oid = d.refobjid AND c.relkind IN ('r', 'p')
         WHERE r.ev_class = 'atlvs.deals'::regclass AND d.refobjid <> r.ev_class LIMIT 1;
        image := found_deal.image;
        IF base IS NOT NULL THEN
            -- Where another organization has a deal of that id, or the caller may not read all of it, the job goes on with what it has.
            BEGIN
                EXECUTE format('SELECT CASE WHEN count(*) = 1 THEN jsonb_agg(to_jsonb(d)) -> 0 END FROM %s AS d WHERE d.id = $1', base) INTO image USING deal;
            EXCEPTION WHEN insufficient_privilege THEN
                image := NULL;
            END;
        END IF;
        SELECT COALESCE(jsonb_object_agg(e.key, e.value), '{}') INTO image FROM jsonb_each(image) AS e WHERE job.new ? e.key;
        PERFORM usher.retry_sync_job(job.id, image);
    END IF;
    status := 'pending';
    error_message := COALESCE(job.error_message, 'waits: ' || job.waiting_for);
END
$$;

-- What rpc_project_to_event does: asks the pack's flows for the event of a project's production.
CREATE FUNCTION usher.project_to_event(organization text, project uuid, event_data jsonb DEFAULT '{}') RETURNS usher.sync_job
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    known CONSTANT text[] := '{title,venue_name,timezone,starts_at,ends_at,doors_at,curfew_at,capacity,lineup,metadata}';
    org CONSTANT uuid := usher.managed_organization(organization);
    production uuid;
    wrong text;
BEGIN
    IF project IS NULL THEN
        RAISE EXCEPTION 'the project is missing' USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the id of a row in atlvs.projects.';
    END IF;
    IF to_regclass('compvss.productions') IS NULL OR to_regclass('gvteway.events') IS NULL
       OR NOT EXISTS (SELECT FROM usher.flow_versions AS f WHERE f.name = 'live_events.describe_event') THEN
        RAISE EXCEPTION 'the pack live_events is not installed'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Ask an operator for SELECT usher.install_pack(''live_events'');';
    END IF;
    event_data := COALESCE(event_data, '{}');
    IF jsonb_typeof(event_data) <> 'object' THEN
        RAISE EXCEPTION 'the event data are not a JSON object'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give an object such as {"doors_at": "2026-08-01T18:00:00Z"}.';
    END IF;
    SELECT string_agg(format('"%s"', k), ', ' ORDER BY k) INTO wrong FROM jsonb_object_keys(event_data) AS k WHERE k <> ALL (known);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the event data have unknown fields: %', wrong
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('Known are %s. Put anything else into metadata.', array_to_string(known, ', '));
    END IF;
    IF jsonb_typeof(event_data -> 'lineup') NOT IN ('array', 'null') OR jsonb_typeof(event_data -> 'metadata') NOT IN ('object', 'null') THEN
        RAISE EXCEPTION 'lineup must be an array and metadata an object'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Such as {"lineup": ["A", "B"], "metadata": {"hall": 2}}.';
    END IF;
    -- A time or number that is none is refused here, not by the job.
    PERFORM jsonb_populate_record(NULL::gvteway.events, event_data);
    SELECT p.id INTO production
      FROM compvss.productions AS p WHERE p.organization_id = org AND p.project_ref = project;
    IF NOT FOUND THEN
        IF to_regclass('atlvs.projects') IS NOT NULL AND EXISTS (
            SELECT FROM atlvs.projects AS p WHERE p.organization_id = org AND p.id = project)
        THEN
            RAISE EXCEPTION 'project % has no production yet', project
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = 'The production of a new project follows by itself, in a worker.',
                      HINT = 'Try again in a moment. If it stays away, integration_sync_jobs says why.';
        END IF;
        RAISE EXCEPTION 'project % does not exist in organization "%"', project, organization
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, code, name FROM atlvs.projects shows the projects you may see.';
    END IF;
    -- Without data the request that every production makes for itself: it leaves an event that exists as it is.
    BEGIN
        RETURN usher.enqueue_sync_job(organization, 'compvss', 'gvteway', CASE
            WHEN jsonb_strip_nulls(event_data) = '{}' THEN jsonb_build_object('action', 'create_event', 'production_id', production)
            ELSE jsonb_build_object('action', 'describe_event', 'production_id', production, 'event', event_data) END);
    EXCEPTION WHEN invalid_parameter_value THEN
        -- The tables are there, the flow is not.
        RAISE EXCEPTION 'the flow that makes events is gone'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = SQLERRM,
                  HINT = 'Ask an operator for SELECT usher.install_pack(''live_events''); it brings back what is missing.';
    END;
END
$$;
