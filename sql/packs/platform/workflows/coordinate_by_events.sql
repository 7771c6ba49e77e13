-- What the bus has to say begins workflows.

CREATE OR REPLACE FUNCTION platform.begins_workflows(organization_id uuid, event_type text) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM platform.workflow_triggers t
                    WHERE t.organization_id = begins_workflows.organization_id AND t.event_type = begins_workflows.event_type)
$$;
REVOKE ALL ON FUNCTION platform.begins_workflows(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION platform.begins_workflows(uuid, text) IS 'Whether an event of this type begins workflows of the organization';

-- All of one organization: [{"organization": …, "event_id": …, "type": …, "data": …}, …]. An event begins a workflow once.
CREATE OR REPLACE FUNCTION platform.begin_workflows(events jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org CONSTANT uuid := events -> 0 ->> 'organization';
BEGIN
    INSERT INTO platform.workflow_executions (organization_id, workflow_id, trigger_event, input)
    SELECT org, w.id, (e ->> 'event_id')::uuid, e -> 'data'
      FROM jsonb_array_elements(events) AS e
      JOIN platform.workflow_triggers t ON t.organization_id = org AND t.event_type = e ->> 'type'
      JOIN platform.orchestration_workflows w ON w.organization_id = org AND w.id = t.workflow_id AND w.status = 'active'
        ON CONFLICT ON CONSTRAINT workflow_executions_event_key DO NOTHING;
END
$$;
REVOKE ALL ON FUNCTION platform.begin_workflows(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.begin_workflows(jsonb) IS 'Begins the active workflows of events: [{"organization": …, "event_id": …, "type": …, "data": …}, …], all of one organization';

CREATE OR REPLACE FUNCTION platform.text_list(list jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof(list) = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(list)) END
$$;
REVOKE ALL ON FUNCTION platform.text_list(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.text_list(jsonb) IS 'The texts of a JSON list; NULL for what is no list';
