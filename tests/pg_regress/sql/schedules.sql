-- Flows with a schedule; backfill and replay. What needs workers and time is in the clients' tests; here jobs are made by hand.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS sc CASCADE;
DROP ROLE IF EXISTS regress_usher_sc, regress_usher_sc_op, regress_usher_sc_reader;
CREATE SCHEMA sc;
CREATE ROLE regress_usher_sc NOLOGIN;
CREATE ROLE regress_usher_sc_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_sc_reader NOLOGIN IN ROLE usher_reader;
GRANT USAGE ON SCHEMA sc TO regress_usher_sc, regress_usher_sc_op;
CREATE TABLE sc.reports (organization_id uuid, at timestamptz, op text, payload jsonb);
CREATE TABLE sc.source (id integer PRIMARY KEY, v text, note text, secret text DEFAULT 'not carried');
CREATE TABLE sc.target (id integer PRIMARY KEY, v text);
CREATE TABLE sc.no_key (id integer);
GRANT SELECT, INSERT, UPDATE ON sc.reports, sc.target TO regress_usher_sc;
GRANT SELECT ON ALL TABLES IN SCHEMA sc TO regress_usher_sc_op;
RESET client_min_messages;
CREATE FUNCTION sc.clock(change jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('run_as', 'regress_usher_sc', 'then', '{"insert": "sc.reports"}'::jsonb, 'when', '{"schedule": "0 3 * * *", "timezone": "Europe/Berlin"}'::jsonb,
                              'set', '{"at": "job.scheduled_at", "op": "job.op", "payload": "job.payload"}'::jsonb) || change $$;

-- What is no schedule is refused with its remedy.
SELECT public.try(format('SELECT usher.create_flow(''sc_bad'', %L)', sc.clock(change))) FROM (VALUES (1,
  '{"when": {"schedule": "0 3 * *"}}'::jsonb), (2, '{"when": {"schedule": "0 25 * * *"}}'), (3, '{"when": {"schedule": "0 3 * * moon"}}'), (4, '{"when": {"schedule": "0 0 31 6 *"}}'),
  (5, '{"when": {"schedule": "@dayly"}}'), (6, '{"when": {"schedule": "every now"}}'), (7, '{"when": {"schedule": ""}}'), (8, '{"when": {"schedule": "@daily", "zone": "UTC"}}'),
  (9, '{"when": {"schedule": "@daily", "timezone": "Europe/Berlni"}}'), (10, '{"when": {"schedule": "@daily", "timezone": "FOO+3"}}'), (11, '{"when": {"schedule": "@daily", "missed": "al"}}'),
  (12, '{"mode": "transactional"}'), (13, '{"trigger_name": "x"}'), (14, '{"set": {"at": "new.at"}}'), (15, '{"set": {"at": "job.sheduled_at"}}'), (16, '{"organization": "new.x"}'),
  (17, '{"organization": "''nobody''"}')) AS v (n, change) ORDER BY n;
SELECT public.try($$SELECT usher.create_flow('sc_bad', '{"from": "a", "to": "b", "when": {"request": "x"}, "then": {"insert": "sc.reports"}, "set": {"at": "job.scheduled_at"}}')$$);

-- When it would run: the hour that does not exist, the one that comes twice.
SELECT at AT TIME ZONE 'Europe/Berlin' FROM usher.next_runs('30 2 * * *', 'Europe/Berlin', '2026-03-28 00:00+01', 3) AS at;
SELECT at FROM usher.next_runs('30 2 * * *', 'Europe/Berlin', '2026-10-24 00:00+02', 3) AS at;
SELECT at FROM usher.next_runs('every 90 minutes', after => '2026-01-01 00:00+00', count => 2) AS at;
SELECT public.try($$SELECT usher.next_runs('@daily', 'Nowhere/City')$$);
SELECT public.try($$SELECT usher.next_runs('@daily', count => 0)$$);
SELECT public.try($$SELECT usher.next_runs('@daily', after => 'infinity')$$);

SELECT usher.create_flow('sc_report', sc.clock());
SELECT line FROM string_to_table(usher.explain_flow('sc_report'), E'\n') AS line WHERE line ~ '^flow|when:|mode:';
SELECT jsonb_pretty(row - 'organization_id') AS "sc_report would write" FROM usher.preview_flow('sc_report', '{"scheduled_at": "2026-05-01T01:00:00Z"}') AS row;
-- A day passes without anybody; then the jobs of a day are made by hand, once.
UPDATE usher.organizations SET created_at = '2020-01-01';
SELECT usher.process_jobs() >= 0 AS looked;
UPDATE usher.flow_schedules SET handled_until = now() - interval '1 day', next_at = NULL;
SELECT count(*) AS organizations FROM usher.organizations \gset
SELECT usher.process_jobs() >= 0 AS looked;
SELECT usher.process_jobs() >= 0 AS looked;
UPDATE usher.flow_schedules SET handled_until = now() - interval '2 days', next_at = NULL;
SELECT usher.process_jobs() >= 0 AS looked;
SELECT count(*) = :organizations AS one_for_each, count(DISTINCT at) AS times, min(op) AS op, bool_and((at AT TIME ZONE 'Europe/Berlin')::time = '03:00') AS at_three,
       bool_and((payload ->> 'scheduled_at')::timestamptz = at) AS said, min(payload ->> 'timezone') AS zone FROM sc.reports;
SELECT flow, schedule, timezone, missed, state, next_run > now() AS next, last_run < now() AS last, last_status ~ 'synced$' AS synced FROM usher.schedules WHERE flow = 'sc_report';
SET ROLE regress_usher_sc_reader;
SELECT count(*) FROM usher.schedules WHERE flow = 'sc_report' AND last_status ~ 'synced$';
RESET ROLE;
-- Another schedule begins anew.
SELECT usher.alter_flow('sc_report', sc.clock('{"when": {"schedule": "every 2 weeks", "missed": "all"}}'));
SELECT usher.process_jobs() >= 0 AS looked;
SELECT schedule, timezone, missed, last_run IS NULL AS no_run FROM usher.schedules WHERE flow = 'sc_report';
SELECT count(*) = :organizations AS still FROM sc.reports;
SELECT usher.drop_flow('sc_report');
SELECT count(*) FROM usher.flow_schedules;

-- Backfill.
INSERT INTO sc.source SELECT g, 'v' || g, CASE WHEN g % 2 = 0 THEN 'even' END FROM generate_series(1, 25) AS g;
CREATE FUNCTION sc.copy(change jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT '{"run_as": "regress_usher_sc", "when": {"change": "sc.source"}, "if": "new.id <> 13", "then": {"upsert": "sc.target", "key": ["id"]},
             "set": {"id": "new.id", "v": "upper(new.v)"}}'::jsonb || change $$;
SELECT usher.create_flow('sc_copy', sc.copy());
SELECT usher.create_flow('sc_gone', sc.copy('{"when": {"change": "sc.source", "on": ["delete"]}, "if": "old.id > 0", "then": {"update": "sc.target", "key": ["id"]}, "set": {"id": "old.id", "v": "''gone''"}}'));
SELECT usher.create_flow('sc_no_key', sc.copy('{"when": {"change": "sc.no_key"}, "if": "true", "set": {"id": "new.id", "v": "''x''"}}'));
SELECT usher.create_flow('sc_request', '{"run_as": "regress_usher_sc", "from": "sc.a", "to": "sc.b", "when": {"request": "go"}, "then": {"insert": "sc.reports"}, "set": {"payload": "job.payload"}}');
SELECT public.try(call) FROM (VALUES (1, $$SELECT usher.backfill(NULL)$$), (2, $$SELECT usher.backfill('sc_cpoy')$$), (3, $$SELECT usher.backfill('sc_gone')$$),
  (4, $$SELECT usher.backfill('sc_no_key')$$), (5, $$SELECT usher.backfill('sc_request')$$), (6, $$SELECT usher.backfill('sc_copy', slice => 0)$$), (7, $$SELECT usher.backfill('sc_copy', slice => 10001)$$),
  -- The condition is one expression over the row.
  (8, $$SELECT usher.backfill('sc_copy', 'new.nte = 1')$$), (9, $$SELECT usher.backfill('sc_copy', 'true) OR (true')$$), (10, $$SELECT usher.backfill('sc_copy', 'true; DROP TABLE sc.source')$$),
  (11, $$SELECT usher.backfill('sc_copy', 'EXISTS (SELECT FROM sc.target)')$$), (12, $$SELECT usher.backfill('sc_copy', 'old.id = 1')$$), (13, $$SELECT usher.backfill('sc_copy', 'new.id')$$),
  (14, $$SELECT usher.backfill('sc_copy', 'sc.nothing(new.id)')$$),
  (15, $$SELECT usher.replay('sc_copy', NULL)$$), (16, $$SELECT usher.replay('sc_copy', now() + interval '1 hour')$$), (17, $$SELECT usher.replay('sc_cpoy', now())$$),
  (18, $$SELECT usher.pause_work(NULL)$$), (19, $$SELECT usher.cancel_work('00000000-0000-0000-0000-000000000001')$$)) AS v (n, call) ORDER BY n;
-- Operators only; a condition is evaluated with the rights of the flow's role, so one must be able to become it.
SET ROLE regress_usher_sc_reader;
SELECT public.try($$SELECT usher.backfill('sc_copy')$$);
SELECT public.try($$SELECT usher.backfill('not there')$$);
SELECT count(*) FROM usher.progress;
SET ROLE regress_usher_sc_op;
SELECT public.try($$SELECT usher.backfill('sc_copy', 'new.id > 0')$$);
SELECT usher.backfill('sc_copy', slice => 10) IS NOT NULL AS begun;
SELECT public.try($$SELECT usher.backfill('sc_copy')$$);
-- A slice for each call, and its jobs.
SELECT usher.process_jobs();
SELECT kind, flow, state, total, total_is, done, jobs, failed, started_by FROM usher.progress;
SELECT usher.pause_work(id) FROM usher.progress;
SELECT usher.process_jobs();
SELECT bool_or(line ~ 'is paused and cannot be paused') AS refused FROM usher.progress, LATERAL public.try(format('SELECT usher.pause_work(%L)', id)) AS line;
SELECT usher.resume_work(id) FROM usher.progress;
SELECT usher.process_jobs() FROM generate_series(1, 3);
SELECT state, total, done, jobs, failed, per_second > 0 AS has_rate, time_left, finished_at IS NOT NULL AS finished FROM usher.progress;
RESET ROLE;
SELECT count(*), bool_and(v = 'V' || id), bool_or(id = 13) AS thirteen FROM sc.target;
-- What the flow does not use is not carried, also when the condition asks for it.
TRUNCATE sc.target;
SELECT usher.backfill('sc_copy', 'length(new.note) = 4 AND new.secret LIKE ''not%''') IS NOT NULL AS begun;
SELECT usher.process_jobs() > 0 AS made;
SELECT count(*), bool_and(id % 2 = 0) AS even FROM sc.target;
SELECT DISTINCT (SELECT string_agg(k, ',' ORDER BY k) FROM jsonb_object_keys(h.new) AS k) AS carried, h.op FROM usher.job_history h JOIN usher.work_items w ON w.id = h.cause;
-- A failing row is a dead letter of the backfill; a table that changes its shape stops it, and it goes on.
SELECT usher.alter_flow('sc_copy', sc.copy('{"retry": {"delays": []}, "check": {"not seven": "id <> 7"}}'));
SELECT usher.backfill('sc_copy', 'new.id < 20 AND length(new.v) > 0', slice => 10) IS NOT NULL AS begun;
SELECT usher.process_jobs() > 0 AS made;
ALTER TABLE sc.source RENAME note TO remark;
ALTER TABLE sc.source DROP COLUMN secret;
SELECT usher.process_jobs() FROM generate_series(1, 3) OFFSET 3;
SELECT state, done, jobs, failed, message FROM usher.progress ORDER BY started_at DESC LIMIT 1;
SELECT usher.backfill('sc_copy', 'length(new.remark) = 4') IS NOT NULL AS begun;
ALTER TABLE sc.source DROP COLUMN remark;
SELECT usher.process_jobs() >= 0 AS looked;
SELECT state, done, message FROM usher.progress ORDER BY started_at DESC LIMIT 1;
SELECT usher.cancel_work(id) FROM usher.progress WHERE state = 'failed';
-- Replay, with a version that needs more than the old jobs carry.
SELECT usher.replay('sc_copy', now() - interval '1 hour') IS NOT NULL AS begun;
SELECT count(*) > 40 AS all_jobs FROM usher.job_history h JOIN usher.flows f ON f.id = h.flow_id WHERE f.name = 'sc_copy';
TRUNCATE sc.target;
SELECT usher.process_jobs() > 0 AS made;
SELECT usher.process_jobs() >= 0 AS ended;
SELECT kind, state, total = done AS all, done = jobs AS made, failed FROM usher.progress WHERE kind = 'replay';
SELECT count(*) FROM sc.target;
-- Everything is in the log.
SELECT action, count(*) FROM usher.audit_log WHERE action LIKE 'usher.work_items.%' GROUP BY 1 ORDER BY 1;
SELECT usher.drop_flow(name) FROM usher.flows WHERE name LIKE 'sc%' ORDER BY name;
