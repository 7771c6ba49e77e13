CREATE OR REPLACE VIEW @schema@.ticket_revenue_ingestions WITH (security_invoker = true) AS
SELECT r.id, r.organization_id, r.project_id, r.event_code, r.ticket_count, r.gross_amount, r.currency, r.ingestion_source, r.payload,
       r.ingested_at
  FROM usher.ticket_revenue_ingestions AS r;
COMMENT ON VIEW @schema@.ticket_revenue_ingestions IS 'pg_usher: ticket revenue as it came in; reversals are rows with the opposite signs';
GRANT SELECT ON @schema@.ticket_revenue_ingestions TO usher_member, usher_reader;
