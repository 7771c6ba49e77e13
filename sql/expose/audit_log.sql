-- Each arm is one table: so the planner can use its index by organization, and stop early under a LIMIT.
CREATE OR REPLACE VIEW @schema@.audit_log WITH (security_invoker = true) AS
SELECT a.id, a.organization_id, a.recorded_at AS created_at, a.actor, a.role, a.action, a.object, a.old, a.new, a.correlation_id, a.flow,
       NULL::text AS error_message
  FROM usher.audit_log AS a
UNION ALL
SELECT h.id, h.organization_id, h.finished_at,
       COALESCE('flow ' || (SELECT f.name FROM usher.flow_versions AS f WHERE f.flow_id = h.flow_id AND f.version = h.flow_version), h.target_system, 'unknown'),
       NULL::text, CASE WHEN h.cancelled THEN 'sync.cancelled' ELSE 'sync.synced' END, h.id::text, h.old, h.new, COALESCE(h.cause, h.id),
       (SELECT f.name FROM usher.flow_versions AS f WHERE f.flow_id = h.flow_id AND f.version = h.flow_version), h.error_message
  FROM usher.job_history AS h
UNION ALL
SELECT j.id, j.organization_id, j.finished_at,
       COALESCE('flow ' || (SELECT f.name FROM usher.flow_versions AS f WHERE f.flow_id = j.flow_id AND f.version = j.flow_version), 'unknown'),
       NULL::text, 'sync.synced', j.id::text, j.old, j.new, COALESCE(j.cause, j.id),
       (SELECT f.name FROM usher.flow_versions AS f WHERE f.flow_id = j.flow_id AND f.version = j.flow_version), NULL::text
  FROM usher.visible_done_jobs AS j
UNION ALL
SELECT d.id, d.organization_id, d.died_at,
       COALESCE('flow ' || (SELECT f.name FROM usher.flow_versions AS f WHERE f.flow_id = d.flow_id AND f.version = d.flow_version), d.target_system, 'unknown'),
       NULL::text, 'sync.failed', d.id::text, d.old, d.new, COALESCE(d.cause, d.id),
       (SELECT f.name FROM usher.flow_versions AS f WHERE f.flow_id = d.flow_id AND f.version = d.flow_version), d.error_message
  FROM usher.dead_letters AS d;
COMMENT ON VIEW @schema@.audit_log IS 'pg_usher: who did what (usher.audit_log), and every transfer that has ended';
GRANT SELECT ON @schema@.audit_log TO usher_member, usher_reader;
