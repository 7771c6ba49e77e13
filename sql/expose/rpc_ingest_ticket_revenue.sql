CREATE OR REPLACE FUNCTION @schema@.rpc_ingest_ticket_revenue(
    p_org_slug text, p_project_code text, p_event_code text, p_ticket_count integer, p_gross_amount numeric,
    p_currency text DEFAULT 'USD', p_source text DEFAULT 'gvteway', p_payload jsonb DEFAULT '{}'
) RETURNS @schema@.ticket_revenue_ingestions
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $function$
SELECT r.id, r.organization_id, r.project_id, r.event_code, r.ticket_count, r.gross_amount, r.currency, r.ingestion_source, r.payload,
       r.ingested_at
  FROM usher.ingest_ticket_revenue(p_org_slug, p_project_code, p_event_code, p_ticket_count, p_gross_amount, p_currency, p_source, p_payload) AS r
$function$;
COMMENT ON FUNCTION @schema@.rpc_ingest_ticket_revenue(text, text, text, integer, numeric, text, text, jsonb) IS 'pg_usher: takes in ticket revenue, once per payload.reference; see usher.ingest_ticket_revenue()';
REVOKE ALL ON FUNCTION @schema@.rpc_ingest_ticket_revenue(text, text, text, integer, numeric, text, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @schema@.rpc_ingest_ticket_revenue(text, text, text, integer, numeric, text, text, jsonb) TO usher_member;
