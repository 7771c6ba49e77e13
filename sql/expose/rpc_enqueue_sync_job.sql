CREATE OR REPLACE FUNCTION @schema@.rpc_enqueue_sync_job(
    p_org_slug text, p_source_system text, p_target_system text, p_payload jsonb DEFAULT '{}'
) RETURNS @schema@.integration_sync_jobs
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $function$
SELECT @job@
  FROM usher.enqueue_sync_job(p_org_slug, p_source_system, p_target_system, p_payload) AS j
$function$;
COMMENT ON FUNCTION @schema@.rpc_enqueue_sync_job(text, text, text, jsonb) IS 'pg_usher: asks for a sync job; see usher.enqueue_sync_job()';
REVOKE ALL ON FUNCTION @schema@.rpc_enqueue_sync_job(text, text, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @schema@.rpc_enqueue_sync_job(text, text, text, jsonb) TO usher_member;
