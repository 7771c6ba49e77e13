-- Jobs that callers ask for: routing, priorities, keys, times, cancelling, trying again, waiting.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS rq CASCADE;
DROP ROLE IF EXISTS regress_usher_op;
RESET client_min_messages;
CREATE SCHEMA rq;
CREATE TABLE rq.done (seq integer GENERATED ALWAYS AS IDENTITY, what text, org text, check (what <> 'poison'));
CREATE TABLE rq.rows (id integer PRIMARY KEY);
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
GRANT ALL ON SCHEMA rq TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA rq TO regress_usher_op;
ALTER TABLE rq.done OWNER TO regress_usher_op;
SELECT usher.create_organization('rq-acme') AS acme \gset
SELECT usher.create_system('rq.a'), usher.create_system('rq.b'), usher.create_system('rq.out', 'external');
SET ROLE regress_usher_op;
SELECT usher.create_flow('rq_work', $$ {"from": "rq.a", "to": "rq.b", "when": {"request": "work"}, "then": {"insert": "rq.done"},
  "set": {"what": "job.payload->>'what'", "org": "job.organization_id::text"}, "retry": {"delays": []}} $$);
SELECT usher.create_flow('rq_urgent', $$ {"from": "rq.a", "to": "rq.b", "when": {"request": "urgent"}, "then": {"insert": "rq.done"},
  "set": {"what": "job.payload->>'what'"}, "priority": "critical"} $$);
SELECT usher.create_flow('rq_slow', $$ {"from": "rq.a", "to": "rq.b", "mode": "async", "when": {"request": "slow"}, "then": {"insert": "rq.done"},
  "set": {"what": "job.payload->>'what'"}} $$);

-- By slug, by id; the whole job comes back.
SELECT flow, source_system, target_system, payload, priority, status, waiting_for, attempts, run_at, last_attempted_at, error_message,
       created_at = now() AS now, finished_at, organization_id = :'acme' AS acme
  FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "by slug"}');
SELECT status FROM usher.enqueue_sync_job(:'acme', 'rq.a', 'rq.b', '{"action": "work", "what": "by id"}');
SELECT status FROM usher.enqueue_sync_job(organization => 'default', source_system => 'rq.a', target_system => 'rq.b', payload => '{"action": "work", "what": "default"}');
SELECT usher.process_jobs();
SELECT what, org = :'acme' AS acme FROM rq.done ORDER BY seq;
TRUNCATE rq.done RESTART IDENTITY;

-- Routing: the actions that are known are named; an external system takes any.
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "wrok"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": 7}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.b', 'rq.a', '{"action": "work"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '[1]');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '"work"');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', 'null');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-nowhere', 'rq.a', 'rq.b', '{"action": "work"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work"}', 'urgent');
\echo :LAST_ERROR_SQLSTATE
SELECT flow, source_system, target_system, payload, status, waiting_for FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.out', '{"anything": true}');
CALL public.drain();
SELECT flow, target_system, status, waiting_for FROM usher.sync_jobs WHERE target_system = 'rq.out';

-- What a caller gives is what the job carries: numbers to their last digit, however large, and any depth.
SELECT payload->'n' AS n FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.out', '{"n": 12345678901234567890.1234567890}');
SELECT (payload->>'n')::numeric = 1e400 AS large FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.out', '{"n": 1e400}');
SELECT ids[1] AS one FROM usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.out', ARRAY['{"n": 0.1000000000000000000001}']::jsonb[]) AS ids \gset
SELECT payload FROM usher.sync_jobs WHERE id = :'one';
SELECT count(c.id) AS cancelled FROM usher.sync_jobs j, LATERAL usher.cancel_sync_job(j.id) AS c WHERE j.target_system = 'rq.out' AND j.payload ?| '{n,a}';

-- Lanes: the flow's own when the caller says nothing (or normal); what the caller says otherwise.
SELECT p.priority AS asked, j.flow, j.priority
  FROM (VALUES (1, NULL), (2, 'normal'), (3, 'medium'), (4, 'low'), (5, 'high'), (6, 'critical'), (7, 'emergency')) AS p (n, priority)
  CROSS JOIN (VALUES ('work'), ('urgent'), ('slow')) AS a (action)
  CROSS JOIN LATERAL usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', jsonb_build_object('action', action, 'what', coalesce(p.priority, 'none')), p.priority) AS j
 ORDER BY n, j.flow COLLATE "C";
-- Higher lanes first.
SELECT usher.process_jobs(6);
SELECT what, count(*) FROM rq.done GROUP BY what ORDER BY min(seq);
SELECT usher.process_jobs();
SELECT count(*) AS done FROM rq.done;
SELECT usher.process_jobs();
TRUNCATE rq.done RESTART IDENTITY;

-- A unique key: the second call gets the first job, whatever it asks for.
SELECT id AS first FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "once"}', unique_key => 'k1') \gset
SELECT id = :'first' AS same, payload->>'what' AS what, status FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "twice"}', unique_key => 'k1');
SELECT id = :'first' AS other_organization FROM usher.enqueue_sync_job('default', 'rq.a', 'rq.b', '{"action": "work", "what": "elsewhere"}', unique_key => 'k1');
CALL public.drain();
SELECT id = :'first' AS same, status FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "after"}', unique_key => 'k1');
SELECT what FROM rq.done ORDER BY seq;
-- A cancelled job gives its key back; a call that is refused takes none.
SELECT id AS second FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "cancelled"}', unique_key => 'k2') \gset
SELECT status FROM usher.cancel_sync_job(:'second');
SELECT id = :'second' AS same FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "again"}', unique_key => 'k2');
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "nothing"}', unique_key => 'k3');
SELECT count(*) AS keys FROM usher.job_keys WHERE unique_key = 'k3';
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work"}', unique_key => '');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work"}', unique_key => repeat('x', 1001));
\echo :LAST_ERROR_SQLSTATE
CALL public.drain();
TRUNCATE rq.done RESTART IDENTITY;

-- Not before its time; a time that has passed is now.
SELECT id AS later, status, waiting_for, run_at > now() AS future FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "later"}', run_at => now() + interval '1 hour') \gset
\echo :status :waiting_for :future
SELECT status, waiting_for, run_at FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "past"}', run_at => '2001-01-01');
SELECT usher.process_jobs();
SELECT what FROM rq.done ORDER BY seq;
-- retry brings it forward.
SELECT status, waiting_for, run_at <= now() AS due FROM usher.retry_sync_job(:'later', '{"what": "sooner"}');
SELECT usher.process_jobs();
SELECT what FROM rq.done ORDER BY seq;
TRUNCATE rq.done RESTART IDENTITY;

-- Many at once: all or none, in their order; the bad one is named by its number.
SELECT cardinality(ids) AS ids, (SELECT count(DISTINCT id) FROM unnest(ids) AS id) AS different
  FROM usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.b', ARRAY(SELECT jsonb_build_object('action', 'work', 'what', n) FROM generate_series(1, 1500) AS n)) AS ids;
SELECT usher.process_jobs();
SELECT usher.process_jobs();
SELECT count(*), bool_and(what = seq::text) AS in_order FROM rq.done;
SELECT usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.b', ARRAY['{"action": "work"}', '{"action": "wrok"}']::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.b', ARRAY['{"action": "work"}', '7']::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.b', ARRAY['{"action": "work"}', NULL, '{"action": "wrok"}']::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.b', array_fill('{"action": "work"}'::jsonb, ARRAY[100001]));
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.b', '{}');
SELECT cardinality(usher.enqueue_sync_jobs('rq-acme', 'rq.a', 'rq.out', ARRAY['{"a": 1}', '{"b": 2}']::jsonb[])) AS external;
SELECT payload, status, waiting_for FROM usher.sync_jobs WHERE target_system = 'rq.out' AND status = 'pending' ORDER BY payload::text;
SELECT usher.process_jobs();
TRUNCATE rq.done RESTART IDENTITY;

-- Cancel and retry.
SELECT id AS job FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "no"}') \gset
SELECT status, error_message, finished_at IS NOT NULL AS finished FROM usher.cancel_sync_job(:'job');
SELECT usher.process_jobs();
-- The id is not the same in two runs: state and hint say enough.
\set VERBOSITY sqlstate
SELECT usher.cancel_sync_job(:'job');
SELECT status, payload FROM usher.retry_sync_job(:'job', '{"what": "yes"}');
SELECT usher.process_jobs();
SELECT what FROM rq.done ORDER BY seq;
SELECT usher.retry_sync_job(:'job');
SELECT usher.cancel_sync_job(:'job');
SELECT status, attempts FROM usher.wait_for(:'job');
-- Nobody has it.
SELECT usher.cancel_sync_job('00000000-0000-7000-8000-000000000001');
SELECT usher.retry_sync_job('00000000-0000-7000-8000-000000000001');
SELECT usher.wait_for('00000000-0000-7000-8000-000000000001');
\set VERBOSITY default
SELECT replace(said, :'job', 'JOB') AS said FROM public.try(format('SELECT usher.cancel_sync_job(%L)', :'job')) AS said;
SELECT replace(said, :'job', 'JOB') AS said FROM public.try(format('SELECT usher.retry_sync_job(%L)', :'job')) AS said;
SELECT said FROM public.try('SELECT usher.wait_for(''00000000-0000-7000-8000-000000000001'')') AS said;
SELECT id AS dead FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "poison"}', unique_key => 'poison') \gset
CALL public.drain();
SELECT status, attempts, regexp_replace(error_message, '\(Failing row.*\.; ', '(ROW; ') AS error FROM usher.wait_for(:'dead');
SELECT usher.retry_sync_job(:'dead', '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.retry_sync_job(:'dead', '"what"');
\echo :LAST_ERROR_SQLSTATE
SELECT status, payload FROM usher.retry_sync_job(:'dead', '{"what": "medicine"}');
CALL public.drain();
SELECT status, error_message FROM usher.wait_for(:'dead');
SELECT what FROM rq.done ORDER BY seq;
-- A dead job can be cancelled, an external one too.
SELECT id AS dead FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "poison"}') \gset
CALL public.drain();
SELECT status FROM usher.cancel_sync_job(:'dead');
SELECT c.status FROM usher.sync_jobs j, LATERAL usher.cancel_sync_job(j.id) AS c WHERE j.target_system = 'rq.out' AND j.status = 'pending';

-- wait_for: what can end only after the caller's COMMIT, or in another snapshot, is not waited for.
BEGIN;
SELECT id AS mine FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "x"}') \gset
SELECT replace(said, :'mine', 'JOB') AS said FROM public.try(format('SELECT usher.wait_for(%L)', :'mine')) AS said;
SAVEPOINT s;
SELECT id AS mine FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "x"}') \gset
RELEASE s;
SELECT replace(said, :'mine', 'JOB') AS said FROM public.try(format('SELECT usher.wait_for(%L, ''10 ms'')', :'mine')) AS said;
ROLLBACK;
SELECT id AS mine FROM usher.enqueue_sync_job('rq-acme', 'rq.a', 'rq.b', '{"action": "work", "what": "x"}') \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT usher.wait_for(:'mine');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT usher.wait_for(:'mine', '-1 s');
\echo :LAST_ERROR_SQLSTATE
-- There is no worker here: it comes back when the time is over, with the job as it is.
SELECT status FROM usher.wait_for(:'mine', '10 ms');
SELECT status FROM usher.wait_for(:'mine', '0');
CALL public.drain();
SELECT status FROM usher.wait_for(:'mine', NULL);

-- Nothing given: every function says what is missing.
\pset format unaligned
\pset tuples_only on
SELECT call || E'\n  ' || string_agg(said, E'\n  ')
  FROM (VALUES
    (1, 'usher.enqueue_sync_job(NULL, ''rq.a'', ''rq.b'')'), (2, 'usher.enqueue_sync_job(''rq-acme'', NULL, ''rq.b'')'), (3, 'usher.enqueue_sync_job(''rq-acme'', ''rq.a'', '' '')'),
    (4, 'usher.enqueue_sync_job(''rq-acme'', ''rq.a'', ''rq.b'', NULL)'), (5, 'usher.enqueue_sync_job(NULL, NULL, NULL, NULL, NULL, NULL, NULL)'),
    (6, 'usher.enqueue_sync_jobs(NULL, ''rq.a'', ''rq.b'', ''{}'')'), (7, 'usher.enqueue_sync_jobs(''rq-acme'', ''rq.a'', ''rq.b'', NULL)'),
    (8, 'usher.cancel_sync_job(NULL)'), (9, 'usher.retry_sync_job(NULL)'), (10, 'usher.wait_for(NULL)'), (11, 'usher.wait_for(NULL, NULL)'),
    (12, 'usher.process_jobs(NULL)'), (13, 'usher.process_jobs(0)'), (14, 'usher.process_jobs(-1)'), (15, 'usher.process_jobs(100001)'),
    (16, 'usher.create_organization(NULL, NULL, NULL)'), (17, 'usher.grant_membership(NULL, NULL, NULL)'), (18, 'usher.revoke_membership(NULL, NULL)'),
    (19, 'usher.create_system(NULL, NULL)'), (20, 'usher.create_flow(NULL, NULL)'), (21, 'usher.alter_flow(NULL, NULL)'), (22, 'usher.alter_flow(''rq_work'', NULL)'),
    (23, 'usher.enable_flow(NULL)'), (24, 'usher.disable_flow(NULL)'), (25, 'usher.drop_flow(NULL)'), (26, 'usher.explain_flow(NULL)'), (27, 'usher.preview_flow(NULL, NULL)'),
    (28, 'usher.preview_flow(''rq_work'', NULL)'), (29, 'usher.install_pack(NULL)'), (30, 'usher.remove_pack(NULL)'), (31, 'usher.lane_name(NULL)'), (32, 'usher.lane_name(9::smallint)')) AS c (n, call)
  CROSS JOIN LATERAL public.try('SELECT ' || call) AS said
 GROUP BY n, call ORDER BY n;
\pset format aligned
\pset tuples_only off

SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'rq%';
CALL public.drain() \gset
RESET ROLE;
SET client_min_messages = warning;
DELETE FROM usher.organizations WHERE slug LIKE 'rq%';
DROP SCHEMA rq CASCADE;
DROP ROLE regress_usher_op;
