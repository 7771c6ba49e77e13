-- Row level security, views and grants. Made anew by every usher.setup(), so that they fit the installed version.

-- What may lock a table comes before the grants: those write its row in the catalog, for which ANALYZE waits with the table in hand.
-- Who reads which rows, for every table; nobody writes but through functions. Tables that are not named are read by the members
-- of a row's organization, or by nobody but those who run the installation if their rows have none.
SELECT usher.isolate_tables('{usher}', '{
    "read": "member", "write": "nobody", "every_table": true,
    "tables": {
        "usher.organizations":    {"column": "id"},
        "usher.flow_versions":    {"read": "everybody"},
        "usher.systems":          {"read": "everybody"},
        "usher.pause_orders":     {"read": "shared"},
        "usher.notices":          {"read": "admin"},
        "usher.notifications":    {"read": "recipient"},
        "usher.migrations":       {"read": "admin"},
        "usher.migration_items":  {"read": "admin"},
        "usher.secrets":          {"read": "admin"},
        "usher.legal_holds":      {"read": "admin"},
        "usher.erasures":         {"read": "admin"},
        "usher.erasure_jobs":     {"read": "admin"},
        "usher.shadow_results":   {"read": "nobody"},
        "usher.repairs":          {"read": "nobody"},
        "usher.failure_streaks":  {"read": "nobody"},
        "usher.overlap_checks":   {"read": "nobody"},
        "usher.rule_checks":      {"read": "nobody"},
        "usher.schedule_runs":    {"read": "nobody"},
        "usher.workflow_checks":  {"read": "nobody"}
    }}');
-- Flows belong to the installation; their names and systems are needed to read a job. What a flow would have written may show
-- more of its target than members may see. Notices, plans of migrations, secrets, who asked to be forgotten and who must not be: for those who can
-- do something about it. What is paused for everybody is for everybody to see.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_policies
                    WHERE schemaname = 'usher' AND tablename = 'flows' AND policyname = 'operator_stops'
                      AND cmd = 'DELETE' AND permissive = 'PERMISSIVE' AND roles = '{usher_operator}' AND qual = 'true') THEN
        DROP POLICY IF EXISTS operator_stops ON usher.flows;
        CREATE POLICY operator_stops ON usher.flows FOR DELETE TO usher_operator USING (true);
    END IF;
END
$$;

-- Lane by lane, so that the planner, which asks usher.lane_floor() for its estimate, reads the log by its key from the
-- floor on, and never what lies below it. What is done above the floor is put together once for each query.
-- Which jobs of the log are done is written down batch by batch, for all organizations together. So members read the log through
-- these, which have the owner's rights and show them what is theirs; how much the installation does is for those who run it.
DO $$
DECLARE
    ready text := (
        SELECT string_agg(format(
            'SELECT j.* FROM usher.jobs AS j
              WHERE j.lane = %1$s::smallint AND j.seq > usher.lane_floor(%1$s::smallint)
                AND NOT COALESCE(j.seq <@ (SELECT range_agg(b.done) FROM usher.job_batches AS b
                                            WHERE b.lane = %1$s::smallint AND b.last_seq > usher.lane_floor(%1$s::smallint)), false)', lane),
            ' UNION ALL ' ORDER BY lane) FROM generate_series(0, 4) AS lane);
BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW usher.ready_jobs WITH (security_invoker = true) AS ' || ready;
    EXECUTE 'CREATE OR REPLACE VIEW usher.visible_ready_jobs WITH (security_barrier = true) AS SELECT r.* FROM (' || ready || ') AS r
              WHERE (SELECT usher.reads_all()) OR r.organization_id = ANY ((SELECT usher.member_organizations())::uuid[])';
END
$$;
COMMENT ON VIEW usher.ready_jobs IS 'jobs of the log that are not done: those that a worker takes next';
COMMENT ON VIEW usher.visible_ready_jobs IS 'jobs of the log that are not done, of the caller''s organizations';
CREATE OR REPLACE VIEW usher.visible_done_jobs WITH (security_barrier = true) AS
SELECT j.*,
       COALESCE((SELECT b.finished_at FROM usher.job_batches AS b
                  WHERE b.lane = j.lane AND b.last_seq >= j.seq AND j.seq <@ b.done ORDER BY b.last_seq LIMIT 1), j.created_at) AS finished_at
  FROM usher.job_floors AS f JOIN usher.jobs AS j ON j.lane = f.lane AND j.seq <= f.floor
 WHERE (SELECT usher.reads_all()) OR j.organization_id = ANY ((SELECT usher.member_organizations())::uuid[])
UNION ALL
SELECT j.*, d.finished_at
  FROM usher.job_floors AS f JOIN usher.jobs AS j ON j.lane = f.lane AND j.seq > f.floor
 CROSS JOIN LATERAL (SELECT b.finished_at FROM usher.job_batches AS b
                      WHERE b.lane = j.lane AND b.last_seq >= j.seq AND j.seq <@ b.done ORDER BY b.last_seq LIMIT 1) AS d
 WHERE (SELECT usher.reads_all()) OR j.organization_id = ANY ((SELECT usher.member_organizations())::uuid[]);
COMMENT ON VIEW usher.visible_done_jobs IS 'jobs of the log that went through at once, and when, of the caller''s organizations';

CREATE OR REPLACE VIEW usher.sync_jobs WITH (security_invoker = true) AS
SELECT q.id, q.organization_id, f.name AS flow, f.source_system, f.target_system,
       CASE WHEN q.op = 'R' THEN q.new ELSE usher.change_payload(q.op, q.new, q.old) END AS payload,
       usher.lane_name(q.lane) AS priority,
       CASE WHEN usher.job_in_progress(false, q.lane, q.seq) THEN 'in_progress' ELSE 'pending' END AS status,
       NULL::text AS waiting_for, 0 AS attempts, NULL::timestamptz AS run_at, NULL::timestamptz AS last_attempted_at,
       NULL::text AS error_message, q.created_at, NULL::timestamptz AS finished_at
  FROM usher.visible_ready_jobs q LEFT JOIN usher.flow_versions f ON f.flow_id = q.flow_id AND f.version = q.flow_version
UNION ALL
SELECT j.id, j.organization_id, f.name, f.source_system, f.target_system,
       CASE WHEN j.op = 'R' THEN j.new ELSE usher.change_payload(j.op, j.new, j.old) END,
       usher.lane_name(j.lane), 'synced', NULL, 1, NULL, j.finished_at, NULL, j.created_at, j.finished_at
  FROM usher.visible_done_jobs j LEFT JOIN usher.flow_versions f ON f.flow_id = j.flow_id AND f.version = j.flow_version
UNION ALL
SELECT w.id, w.organization_id, f.name, COALESCE(w.source_system, f.source_system), COALESCE(w.target_system, f.target_system),
       CASE WHEN w.op = 'R' THEN w.new ELSE usher.change_payload(w.op, w.new, w.old) END,
       usher.lane_name(w.lane),
       CASE WHEN w.due_at <= pg_catalog.clock_timestamp() AND usher.job_in_progress(true, w.lane, w.seq) THEN 'in_progress'
            WHEN w.leased_by IS NOT NULL AND w.due_at > pg_catalog.clock_timestamp() THEN 'in_progress'
            WHEN w.waiting_for = 'retry' OR w.lease_id IS NOT NULL THEN 'failed' ELSE 'pending' END,
       CASE WHEN w.waiting_for IN ('external worker', 'external call') AND pg_catalog.current_setting('usher.outbound', true) = 'off' THEN 'outbound is off'
            WHEN w.waiting_for = 'external worker' AND w.due_at IS NULL
                 AND EXISTS (SELECT FROM usher.pause_orders p
                              WHERE p.flow_id IS NULL AND COALESCE(p.target_system = w.target_system, true) AND COALESCE(p.organization_id = w.organization_id, true)
                                AND p.resumed_at IS NULL AND COALESCE(p.until > pg_catalog.clock_timestamp(), true)) THEN 'paused'
            ELSE w.waiting_for END,
       w.attempts, w.due_at, w.last_attempted_at, w.error_message, w.created_at, NULL
  FROM usher.queue_waiting w LEFT JOIN usher.flow_versions f ON f.flow_id = w.flow_id AND f.version = w.flow_version
UNION ALL
SELECT d.id, d.organization_id, f.name, COALESCE(d.source_system, f.source_system), COALESCE(d.target_system, f.target_system),
       CASE WHEN d.op = 'R' THEN d.new ELSE usher.change_payload(d.op, d.new, d.old) END,
       usher.lane_name(d.lane), 'dead', NULL, d.attempts, NULL, d.last_attempted_at, d.error_message, d.created_at, d.died_at
  FROM usher.dead_letters d LEFT JOIN usher.flow_versions f ON f.flow_id = d.flow_id AND f.version = d.flow_version
UNION ALL
SELECT h.id, h.organization_id, f.name, COALESCE(h.source_system, f.source_system), COALESCE(h.target_system, f.target_system),
       CASE WHEN h.op = 'R' THEN h.new ELSE usher.change_payload(h.op, h.new, h.old) END,
       usher.lane_name(h.lane), CASE WHEN h.cancelled THEN 'cancelled' ELSE 'synced' END, NULL, h.attempts, NULL,
       CASE WHEN h.attempts > 0 THEN h.finished_at END,
       CASE WHEN h.shadow THEN 'shadow: nothing was written' || COALESCE('; it would have failed: ' || h.error_message, '') ELSE h.error_message END, h.created_at, h.finished_at
  FROM usher.job_history h LEFT JOIN usher.flow_versions f ON f.flow_id = h.flow_id AND f.version = h.flow_version;
COMMENT ON VIEW usher.sync_jobs IS 'every job the caller may see, wherever it stands: pending, in_progress, failed (waits for its next try), synced, dead, cancelled';

CREATE OR REPLACE VIEW usher.pauses WITH (security_invoker = true) AS
SELECT (SELECT v.name FROM usher.flow_versions v WHERE v.flow_id = p.flow_id ORDER BY v.version DESC LIMIT 1) AS flow,
       p.target_system AS system, o.slug AS organization,
       CASE WHEN p.resumed_at IS NULL AND (p.until IS NULL OR p.until > pg_catalog.clock_timestamp()) THEN 'paused' ELSE 'resuming' END AS state,
       p.reason, p.paused_at AS since, p.paused_by, p.until, usher.paused_jobs(p.id) AS waiting
  FROM usher.pause_orders p LEFT JOIN usher.organizations o ON o.id = p.organization_id;
COMMENT ON VIEW usher.pauses IS 'what is paused: by whom, since and until when, why, and how many jobs wait (counted up to 10000)';

CREATE OR REPLACE VIEW usher.queue WITH (security_invoker = true) AS SELECT * FROM usher.queue_depths();
COMMENT ON VIEW usher.queue IS 'how much work there is by lane, flow and organization, as far as the caller may see';
CREATE OR REPLACE VIEW usher.registry WITH (security_invoker = true) AS SELECT * FROM usher.registry_pairs();
COMMENT ON VIEW usher.registry IS 'how each pair of systems is doing: flows, unfinished jobs and their lag, dead letters, links, open conflicts, consistency in per cent; as far as the caller may see';
CREATE OR REPLACE VIEW usher.limits WITH (security_invoker = true) AS SELECT * FROM usher.limit_states();
COMMENT ON VIEW usher.limits IS 'limits that count something or hold something back: what is allowed, how many could pass now, how many wait, and until when';
CREATE OR REPLACE VIEW usher.schedules WITH (security_invoker = true) AS
SELECT f.name AS flow, s.schedule, s.timezone, COALESCE(f.definition -> 'when' ->> 'missed', 'once') AS missed,
       CASE WHEN NOT f.enabled THEN 'disabled' ELSE f.state END AS state,
       CASE WHEN f.enabled AND f.state = 'ok' THEN s.next_at END AS next_run, s.last_at AS last_run,
       usher.run_status(s.flow_id, s.last_at) AS last_status
  FROM usher.flow_schedules s JOIN usher.flows f ON f.id = s.flow_id;
COMMENT ON VIEW usher.schedules IS 'flows with a schedule: when each is due next, when it was last, and what became of those jobs';

CREATE OR REPLACE VIEW usher.switched_off WITH (security_invoker = true) AS
SELECT (SELECT v.name FROM usher.flow_versions v WHERE v.flow_id = s.flow_id ORDER BY v.version DESC LIMIT 1) AS flow, o.slug AS organization,
       s.switched_off_at AS since, s.switched_off_by
  FROM usher.flow_switches s JOIN usher.organizations o ON o.id = s.organization_id;
COMMENT ON VIEW usher.switched_off IS 'flows that are off for single organizations, since when, and by whom';

-- The record of processing (GDPR, article 30): what is kept, why, for how long, and to whom flows hand it.
CREATE OR REPLACE VIEW usher.processing_records WITH (security_invoker = true) AS
SELECT p.schema_name || '.' || p.table_name AS table_name, p.column_name, p.category, p.purpose, p.basis, p.identifies, p.erase,
       (SELECT pg_catalog.array_agg(k.kind ORDER BY k.kind) FROM usher.subject_kinds k
         WHERE k.schema_name = p.schema_name AND k.table_name = p.table_name) AS persons,
       (SELECT pg_catalog.string_agg(r.action || ' ' || r.keep::text || ' after ' || r.time_column, '; ' ORDER BY r.action) FROM usher.retention_rules r
         WHERE r.schema_name = p.schema_name AND r.table_name = p.table_name) AS kept,
       (SELECT pg_catalog.array_agg(DISTINCT f.definition ->> 'to' ORDER BY f.definition ->> 'to')
          FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version
         WHERE v.compiled ->> 'source' = p.schema_name || '.' || p.table_name AND f.enabled AND f.definition ? 'to'
           AND (v.compiled -> 'new' ? p.column_name OR v.compiled -> 'old' ? p.column_name)) AS handed_to,
       (SELECT c.how FROM usher.column_protections c
         WHERE c.schema_name = p.schema_name AND c.table_name = p.table_name AND c.column_name = p.column_name AND c.ended_at IS NULL) AS protected,
       EXISTS (SELECT FROM usher.audited_tables a
                WHERE a.schema_name = p.schema_name AND a.table_name = p.table_name AND (a.columns IS NULL OR p.column_name = ANY (a.columns))) AS audited
  FROM usher.personal_columns p;
COMMENT ON VIEW usher.processing_records IS 'record of processing: each personal column, why and how long it is kept, what it becomes, and which systems get it';

CREATE OR REPLACE VIEW usher.progress WITH (security_invoker = true) AS
SELECT w.id, w.kind, w.flow, w.state, w.total, w.total_is, w.done, w.jobs, d.failed, r.per_second, w.started_at, w.started_by,
       CASE WHEN w.state = 'running' AND r.per_second > 0
            THEN pg_catalog.make_interval(secs => GREATEST(w.total - w.done, 0) / r.per_second::float8) END AS time_left,
       w.finished_at, w.message
  FROM usher.work_items w
  CROSS JOIN LATERAL (
       SELECT pg_catalog.round((w.done - w.done_before) / NULLIF(EXTRACT(epoch FROM w.updated_at - w.resumed_at), 0), 1) AS per_second) AS r
  CROSS JOIN LATERAL (
       SELECT pg_catalog.count(*) AS failed FROM usher.dead_letters d
        WHERE d.flow_id = w.flow_id AND d.created_at >= w.started_at
          AND CASE WHEN w.kind IN ('backfill', 'events') THEN d.cause = w.id ELSE d.cause IS NOT NULL AND d.hop = 0 END) AS d;
COMMENT ON VIEW usher.progress IS 'backfills and replays: rows, jobs or events gone through of the total (estimated or exact), jobs made, dead ones, rate, time left';
CREATE OR REPLACE VIEW usher.batches WITH (security_invoker = true) AS
SELECT b.id, b.organization_id, b.name,
       CASE WHEN b.finished_at IS NOT NULL THEN 'finished' WHEN b.sealed_at IS NOT NULL THEN 'sealed' ELSE 'open' END AS state,
       n.total, b.done + t.done AS done, b.failed + t.failed AS failed, b.cancelled + t.cancelled AS cancelled,
       CASE WHEN n.total > 0 THEN pg_catalog.round(100.0 * (b.done + b.failed + b.cancelled + t.done + t.failed + t.cancelled) / n.total, 1)
            WHEN b.finished_at IS NOT NULL THEN 100.0 END AS percent,
       b.created_at, b.created_by, b.sealed_at, LEAST(b.started_at, t.started_at) AS started_at, b.finished_at, b.completion_job, b.error_message
  FROM usher.batch_definitions b
 CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.sum(c.done), 0)::bigint AS done, COALESCE(pg_catalog.sum(c.failed), 0)::bigint AS failed,
                            COALESCE(pg_catalog.sum(c.cancelled), 0)::bigint AS cancelled, pg_catalog.min(c.counted_at) AS started_at
                       FROM usher.batch_tallies c WHERE c.organization_id = b.organization_id AND c.batch_id = b.id) AS t
 CROSS JOIN LATERAL (SELECT COALESCE(b.total, (SELECT pg_catalog.count(*) FROM usher.job_options o WHERE o.batch_id = b.id)) AS total) AS n;
COMMENT ON VIEW usher.batches IS 'batches of jobs and how far they are: open (jobs join), sealed, finished';

CREATE OR REPLACE VIEW usher.queue_limits WITH (security_invoker = true) AS
SELECT r.id, usher.lane_name(r.lane) AS lane, (SELECT f.name FROM usher.flows f WHERE f.id = r.flow_id) AS flow, r.system,
       (SELECT o.slug FROM usher.organizations o WHERE o.id = r.of_organization) AS organization, r.max_jobs, r.action,
       usher.lane_name(r.shed_to) AS shed_to, r.captured, usher.limited_jobs(r.id) AS jobs,
       (SELECT pg_catalog.count(*) FROM usher.queue_waiting w WHERE w.held_by = r.id AND w.waiting_for = 'queue full') AS held,
       r.created_at, r.created_by
  FROM usher.queue_limit_rules r WHERE r.removed_at IS NULL;
COMMENT ON VIEW usher.queue_limits IS 'limits of parts of the queue: how many jobs each may have ready, how many it has, how many it holds back';

CREATE OR REPLACE VIEW usher.protected_columns WITH (security_invoker = true) AS
SELECT p.schema_name, p.table_name, p.column_name, p.how, p.readers, p.mask, p.pack, p.created_at, p.created_by, p.id
  FROM usher.column_protections AS p WHERE p.ended_at IS NULL;
COMMENT ON VIEW usher.protected_columns IS 'columns that are sealed or masked, and who reads them';

CREATE OR REPLACE VIEW usher.rpc_limits WITH (security_invoker = true) AS SELECT * FROM usher.rpc_states();
COMMENT ON VIEW usher.rpc_limits IS 'how often functions may be called, and how many calls each organization has left now';

CREATE OR REPLACE VIEW usher.consistency WITH (security_invoker = true) AS
SELECT c.organization_id, pg_catalog.count(*) AS rules, pg_catalog.sum(c.rows)::bigint AS rows, pg_catalog.sum(v.open)::bigint AS open,
       pg_catalog.round(100 * (1 - LEAST(pg_catalog.sum(v.open) / NULLIF(pg_catalog.sum(c.rows), 0), 1)), 4) AS percent, pg_catalog.min(c.counted_at) AS counted_at
  FROM usher.rule_counts c
 CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS open FROM usher.violations w
                      WHERE w.organization_id = c.organization_id AND w.rule_id = c.rule_id AND w.status = 'open') AS v
 WHERE c.rows > 0 GROUP BY c.organization_id;
COMMENT ON VIEW usher.consistency IS 'of each organization how many rows its rules are about, how many violations are open, and what is left in percent: 100 * (1 - open / rows), over the rules whose rows are known';

REVOKE ALL ON ALL TABLES IN SCHEMA usher FROM PUBLIC;
GRANT SELECT ON usher.organizations, usher.memberships, usher.systems, usher.links, usher.jobs, usher.visible_ready_jobs, usher.visible_done_jobs, usher.queue_waiting,
    usher.dead_letters, usher.job_history, usher.sync_jobs, usher.queue, usher.notices, usher.notifications, usher.ticket_revenue_ingestions TO usher_member;
GRANT SELECT ON usher.limits, usher.events, usher.event_subscriptions, usher.broadcasts, usher.broadcast_receivers TO usher_member;
GRANT SELECT ON usher.conflicts, usher.registry, usher.violations, usher.rule_counts, usher.consistency TO usher_member;
GRANT SELECT ON usher.migrations, usher.migration_items TO usher_member;
GRANT SELECT ON usher.rpc_limits TO usher_member;
GRANT SELECT ON usher.flow_switches, usher.switched_off TO usher_member;
GRANT SELECT ON usher.legal_holds, usher.erasures, usher.erasure_jobs TO usher_member;
GRANT SELECT ON usher.batches, usher.batch_definitions, usher.batch_tallies, usher.job_options, usher.job_dependencies, usher.coalesced_jobs TO usher_member;
GRANT SELECT (flow_id, version, name, source_system, target_system) ON usher.flow_versions TO usher_member;
-- Of partitioned tables through these only.
DO $$
BEGIN
    EXECUTE (SELECT 'GRANT SELECT ON ' || pg_catalog.string_agg(pg_catalog.format('usher.%I', c.relname), ', ' ORDER BY c.relname) || ' TO usher_reader'
               FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
              WHERE n.nspname = 'usher' AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition);
END
$$;
-- Of secrets, which there are: by their admins and by those who run the installation.
REVOKE ALL ON usher.secrets FROM usher_reader;
GRANT SELECT (organization_id, name, key_id, vault_id, readers, created_at, changed_at, changed_by) ON usher.secrets TO usher_member, usher_reader;
GRANT DELETE ON usher.flows TO usher_operator;

GRANT SELECT ON usher.audit_log TO usher_member;
GRANT SELECT ON usher.job_results TO usher_member;
GRANT SELECT ON usher.workflow_runs, usher.workflow_steps, usher.workflow_signals, usher.workflow_log TO usher_member;
GRANT SELECT ON usher.pauses, usher.pause_orders TO usher_member;

SELECT usher.maintain_history(30);
SELECT usher.maintain_days('audit_log', NULL);
SELECT usher.maintain_days('events', NULL);
SELECT usher.maintain_segments(30);

-- Tables whose flows are known get their triggers (again): after a restore, a re-install, a migration.
SELECT usher.attach_all();
-- Views and functions that were made for existing clients: as this version has them.
SELECT usher.renew_api();
