CREATE OR REPLACE VIEW @schema@.integration_sync_jobs WITH (security_invoker = true) AS
SELECT @job@
  FROM usher.sync_jobs AS j;
COMMENT ON VIEW @schema@.integration_sync_jobs IS 'pg_usher: sync jobs as pending, in_progress, synced or failed; failed ones that will be tried again have a run_at';
GRANT SELECT ON @schema@.integration_sync_jobs TO usher_member, usher_reader;
