CREATE OR REPLACE FUNCTION @schema@.rpc_project_to_event(p_project_id uuid, p_org_slug text, p_event_data jsonb DEFAULT '{}')
    RETURNS @schema@.integration_sync_jobs
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $function$
SELECT @job@
  FROM usher.project_to_event(p_org_slug, p_project_id, p_event_data) AS j
$function$;
COMMENT ON FUNCTION @schema@.rpc_project_to_event(uuid, text, jsonb) IS 'pg_usher: asks for the event of a project''s production; returns the sync job';
REVOKE ALL ON FUNCTION @schema@.rpc_project_to_event(uuid, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @schema@.rpc_project_to_event(uuid, text, jsonb) TO usher_member;
