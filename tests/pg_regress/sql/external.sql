-- Work done outside: jobs that workers take under leases, calls that leave the database, results that are kept.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS xt CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_admin, regress_usher_other, regress_usher_member, regress_usher_stranger, regress_usher_nobody;
RESET client_min_messages;
CREATE SCHEMA xt;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_other NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_nobody NOLOGIN;
GRANT ALL ON SCHEMA xt TO regress_usher_op;
GRANT USAGE ON SCHEMA xt TO regress_usher_nobody;
SELECT usher.create_organization('xt-acme') AS acme, usher.create_organization('xt-beta') AS beta \gset
SELECT usher.grant_membership('xt-acme', 'role:regress_usher_admin', 'admin'), usher.grant_membership('xt-beta', 'role:regress_usher_other', 'admin'),
       usher.grant_membership('xt-acme', 'role:regress_usher_member');
SELECT usher.create_system('xt.shop'), usher.create_system('xt.mailer', 'external'), usher.create_system('xt.printer', 'external');
-- Says how a statement of a role ends; the ids differ from run to run.
CREATE FUNCTION xt.ends(statement text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT regexp_replace(line, '[0-9a-f]{8}-[0-9a-f-]{27}', '…', 'g') FROM public.try(statement) AS line $$;
GRANT EXECUTE ON FUNCTION xt.ends, public.try TO PUBLIC;
GRANT USAGE ON SCHEMA xt TO PUBLIC;

-- In the order of lanes, then of positions; each organization's by itself, and nothing of another system.
SELECT count(id) AS made FROM (VALUES (1, 'xt-acme', 'normal'), (2, 'xt-beta', 'normal'), (3, 'xt-acme', 'low'), (4, 'xt-beta', 'emergency'), (5, 'xt-acme', 'high'),
                              (6, 'xt-acme', 'normal')) AS v (n, org, lane),
       usher.enqueue_sync_job(v.org, 'xt.shop', 'xt.mailer', jsonb_build_object('n', n), v.lane);
SELECT count(id) AS made FROM usher.enqueue_sync_job('xt-acme', 'xt.shop', 'xt.printer', '{"n": 7}');
SELECT count(id) AS made FROM usher.enqueue_sync_job('xt-acme', 'xt.shop', 'xt.mailer', '{"n": 8}', 'emergency', run_at => now() + interval '1 day');
SET ROLE regress_usher_admin;
SELECT organization_id = :'acme' AS acme, flow, source_system, payload, priority, attempt, lease_until - now() BETWEEN interval '59 s' AND interval '61 s' AS a_minute
  FROM usher.claim_jobs('xt.mailer', 3);
SELECT payload, lease_until - now() BETWEEN interval '4 min' AND interval '6 min' AS five FROM usher.claim_jobs('xt.mailer', 3, '5 min');
SELECT count(*) FROM usher.claim_jobs('xt.mailer', 3);
SELECT payload->'n' AS n, status, waiting_for, attempts, run_at > now() AS later FROM usher.sync_jobs WHERE source_system = 'xt.shop' ORDER BY 1;
RESET ROLE;
SET ROLE regress_usher_other;
SELECT payload, priority FROM usher.claim_jobs('xt.mailer', 1000);
RESET ROLE;
-- Those who see all get all in one order.
SELECT count(id) AS made FROM generate_series(1, 4) n, usher.enqueue_sync_job(CASE n % 2 WHEN 0 THEN 'xt-acme' ELSE 'xt-beta' END, 'xt.shop', 'xt.mailer', jsonb_build_object('n', 10 + n));
SET ROLE regress_usher_op;
SELECT payload FROM usher.claim_jobs('xt.mailer', 3);
SELECT payload FROM usher.claim_jobs('xt.mailer');
RESET ROLE;

-- Who may not, and what is no job, system, number or lease.
SELECT q.id AS job, q.lease_id AS lease FROM usher.queue_waiting q WHERE new->>'n' = '1' \gset
SELECT q.id AS theirs, q.lease_id AS their_lease FROM usher.queue_waiting q WHERE new->>'n' = '2' \gset
SELECT set_config('xt.job', :'job', false), set_config('xt.lease', :'lease', false), set_config('xt.theirs', :'theirs', false), set_config('xt.their_lease', :'their_lease', false) \g /dev/null
CREATE FUNCTION xt.statements() RETURNS TABLE (n integer, what text, statement text) LANGUAGE sql AS $$
  VALUES (1, 'claims', 'SELECT count(*) FROM usher.claim_jobs(''xt.mailer'')'),
         (2, 'finishes', format('SELECT usher.finish_job(%L, %L)', current_setting('xt.job'), current_setting('xt.lease'))),
         (3, 'fails', format('SELECT usher.fail_job(%L, %L, ''no'')', current_setting('xt.job'), current_setting('xt.lease'))),
         (4, 'extends', format('SELECT usher.extend_lease(%L, %L, ''1 h'')', current_setting('xt.job'), current_setting('xt.lease'))),
         (5, 'finishes nothing', 'SELECT usher.finish_job(''00000000-0000-7000-8000-000000000001'', ''00000000-0000-7000-8000-000000000002'')'),
         (6, 'reads the result', format('SELECT usher.job_result(%L)', current_setting('xt.job'))) $$;
SET ROLE regress_usher_member;
SELECT what, xt.ends(statement) FROM xt.statements() ORDER BY n;
SET ROLE regress_usher_other;
SELECT what, xt.ends(statement) FROM xt.statements() WHERE n > 1 ORDER BY n;
SET ROLE regress_usher_stranger;
SELECT what, xt.ends(statement) FROM xt.statements() ORDER BY n;
SET ROLE regress_usher_nobody;
SELECT what, xt.ends(statement) FROM xt.statements() WHERE n < 3 ORDER BY n;
SET ROLE regress_usher_op;
SELECT what, xt.ends(statement) FROM xt.statements() WHERE n = 5;
SET ROLE regress_usher_admin;
SELECT xt.ends(s) FROM unnest(ARRAY['SELECT usher.claim_jobs(NULL)', 'SELECT usher.claim_jobs(''xt.nowhere'')', 'SELECT usher.claim_jobs(''xt.shop'')',
    'SELECT usher.claim_jobs(''xt.mailer'', 0)', 'SELECT usher.claim_jobs(''xt.mailer'', 1001)', 'SELECT usher.claim_jobs(''xt.mailer'', 1, ''0 s'')',
    'SELECT usher.claim_jobs(''xt.mailer'', 1, ''2 days'')', 'SELECT usher.finish_job(NULL, NULL)',
    format('SELECT usher.fail_job(%L, %L, '' '')', :'job', :'lease'), format('SELECT usher.fail_job(%L, %L, ''no'', ''-1 s'')', :'job', :'lease'),
    format('SELECT usher.extend_lease(%L, %L, ''-1 s'')', :'job', :'lease'), format('SELECT usher.finish_job(%L, %L)', :'theirs', :'their_lease')]) AS s;

-- Done, with what came back; said twice it stays the same.
SELECT status, attempts, error_message FROM usher.finish_job(:'job', :'lease', '{"message": 17.50}');
SELECT status FROM usher.finish_job(:'job', :'lease', '{"message": "another"}');
SELECT usher.job_result(:'job');
SELECT xt.ends(format('SELECT usher.fail_job(%L, %L, ''too late'')', :'job', :'lease'));
SELECT xt.ends(format('SELECT usher.finish_job(%L, %L)', :'job', gen_random_uuid()));
RESET ROLE;
SET ROLE regress_usher_member;
SELECT usher.job_result(:'job');
SELECT result FROM usher.job_results;
SET ROLE regress_usher_other;
SELECT xt.ends(format('SELECT usher.job_result(%L)', :'job'));
SELECT count(*) FROM usher.job_results;
RESET ROLE;

-- Failed: again after its delay, with the reason that the worker gave (no secret stays in it), then dead.
SELECT q.id AS job, q.lease_id AS lease FROM usher.queue_waiting q WHERE new->>'n' = '5' \gset
SET ROLE regress_usher_admin;
SELECT status, attempts, error_message, run_at - now() BETWEEN interval '0.7 s' AND interval '1.3 s' AS a_second
  FROM usher.fail_job(:'job', :'lease', 'the mail server said no, token=abcdef');
SELECT status FROM usher.fail_job(:'job', :'lease', 'said twice');
SELECT xt.ends(format('SELECT usher.finish_job(%L, %L)', :'job', :'lease'));
SELECT count(*) FROM usher.claim_jobs('xt.mailer', 10);
SELECT status, waiting_for, attempts FROM usher.retry_sync_job(:'job', '{"to": "ada"}');
SELECT lease, payload, attempt FROM usher.claim_jobs('xt.mailer') \gset
\echo :payload :attempt
SELECT status, run_at - now() BETWEEN interval '59 min' AND interval '61 min' AS an_hour FROM usher.fail_job(:'job', :'lease', 'busy', '1 h');
SELECT status FROM usher.retry_sync_job(:'job');
SELECT lease FROM usher.claim_jobs('xt.mailer') \gset
SELECT status, attempts, error_message, waiting_for FROM usher.fail_job(:'job', :'lease', 'no such address', permanent => true);
SELECT status FROM usher.fail_job(:'job', :'lease', 'said twice');
SELECT status, attempts FROM usher.retry_sync_job(:'job');
SELECT lease, attempt FROM usher.claim_jobs('xt.mailer') \gset
\echo :attempt
-- What is held cannot be retried, but cancelled; the answer then comes too late.
SELECT xt.ends(format('SELECT usher.retry_sync_job(%L)', :'job'));
SELECT status FROM usher.cancel_sync_job(:'job');
SELECT xt.ends(format('SELECT usher.finish_job(%L, %L)', :'job', :'lease'));
RESET ROLE;
-- Four tries by the rule.
SELECT id AS job FROM usher.enqueue_sync_job('xt-beta', 'xt.shop', 'xt.printer', '{"n": 20}') \gset
DO $$
DECLARE
    taken record;
BEGIN
    FOR n IN 1..4 LOOP
        SELECT * INTO taken FROM usher.claim_jobs('xt.printer', 1000) WHERE payload ->> 'n' = '20';
        RAISE NOTICE 'attempt %: %', taken.attempt, (SELECT status FROM usher.fail_job(taken.job, taken.lease, 'out of paper', '0 s'));
    END LOOP;
END
$$;

-- Its jobs would be nobody's.
SELECT usher.create_system('xt.printer', 'local');
-- What leaves the database is held: nothing is handed out, and it says why.
SET usher.outbound = off;
SELECT count(*) FROM usher.claim_jobs('xt.printer', 10);
RESET usher.outbound;
BEGIN;
UPDATE usher.installation SET database = 1;
SELECT usher.setup() AS done \gset
SELECT count(*) FROM usher.claim_jobs('xt.printer', 10);
ROLLBACK;
SELECT usher.setup() AS done \gset

-- A batch does not make calls that leave the database: it hands them over, of each row the first.
CREATE TABLE xt.rows (id integer PRIMARY KEY, v integer);
CREATE FUNCTION xt.go(v integer, job_id uuid) RETURNS integer LANGUAGE sql AS 'SELECT v';
CREATE FUNCTION xt.payload(payload jsonb, job_id uuid) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION xt.many(v integer) RETURNS SETOF integer LANGUAGE sql AS 'SELECT generate_series(1, v)';
CREATE FUNCTION xt.pair(v integer, OUT a integer, OUT b text) LANGUAGE sql AS 'SELECT v, ''x'' || v';
CREATE FUNCTION xt.nothing(v integer) RETURNS void LANGUAGE sql AS '';
GRANT ALL ON ALL TABLES IN SCHEMA xt TO regress_usher_op;
SET ROLE regress_usher_op;
SELECT usher.create_flow('xt_go', $$ {"when": {"change": "xt.rows"}, "then": {"call": "xt.go", "effect": "external"}, "set": {"v": "new.v"}, "timeout": "5s"} $$);
SELECT usher.preview_flow('xt_go', '{"id": 1, "v": 2}') #- '{arguments,job_id}' AS call;
SELECT xt.ends($$ SELECT usher.create_flow('xt_none', '{"when": {"change": "xt.rows"}, "then": {"call": "xt.nothing", "keep_result": true}, "set": {"v": "new.v"}}') $$);
SELECT xt.ends($$ SELECT usher.create_flow('xt_none', '{"when": {"change": "xt.rows"}, "then": {"call": "xt.go", "effect": "external"}, "set": {"job_id": "new.v"}}') $$);
SELECT usher.create_flow('xt_payload', $$ {"from": "xt.shop", "to": "xt.shop", "when": {"request": "pay"}, "then": {"call": "xt.payload", "effect": "external"}} $$);
SELECT usher.preview_flow('xt_payload', '{"action": "pay"}') #- '{arguments,job_id}' AS call;
RESET ROLE;
INSERT INTO xt.rows VALUES (1, 1), (2, 1);
UPDATE xt.rows SET v = 2;
SELECT usher.process_jobs();
SELECT payload->'new' AS row, status, waiting_for, attempts, run_at FROM usher.sync_jobs WHERE flow = 'xt_go' ORDER BY payload->'new'->'v', id;
SELECT usher.process_jobs();
SET usher.outbound = off;
SELECT DISTINCT waiting_for FROM usher.sync_jobs WHERE flow = 'xt_go' ORDER BY 1;
RESET usher.outbound;
SELECT xt.ends(format('SELECT usher.finish_job(%L, gen_random_uuid())', (SELECT id FROM usher.queue_waiting WHERE waiting_for = 'external call' LIMIT 1)));
SELECT count(usher.cancel_sync_job(id)) AS cancelled FROM usher.sync_jobs WHERE flow = 'xt_go' AND waiting_for = 'external call';
SELECT usher.process_jobs();
SELECT DISTINCT waiting_for FROM usher.sync_jobs WHERE flow = 'xt_go' AND status = 'pending';
SET ROLE regress_usher_op;
SELECT usher.drop_flow('xt_go'), usher.drop_flow('xt_payload');

-- Results of calls in a batch and in the writer's transaction: a value, a row, a set, nothing.
SELECT usher.create_flow('xt_value', $$ {"when": {"change": "xt.rows"}, "then": {"call": "xt.go", "keep_result": true}, "set": {"v": "new.v", "job_id": "job.id"}, "check": {"small": "v < 100"}, "retry": {"delays": []}} $$);
SELECT usher.create_flow('xt_row', $$ {"when": {"change": "xt.rows"}, "then": {"call": "xt.pair", "keep_result": true}, "set": {"v": "new.v"}, "mode": "transactional"} $$);
SELECT usher.create_flow('xt_set', $$ {"when": {"change": "xt.rows"}, "then": {"call": "xt.many", "keep_result": true}, "set": {"v": "new.v"}} $$);
RESET ROLE;
INSERT INTO xt.rows VALUES (3, 3), (4, NULL), (5, 500);
CALL public.drain(0);
SELECT j.flow, j.payload->'new' AS row, j.status, CASE WHEN length(r::text) < 50 THEN r ELSE to_jsonb(jsonb_array_length(r)) END AS result, j.error_message
  FROM usher.sync_jobs j, usher.job_result(j.id) AS r WHERE j.flow IN ('xt_value', 'xt_row', 'xt_set') ORDER BY j.flow, j.payload->'new'->'v';
SELECT usher.drop_flow(name) FROM usher.flows WHERE name LIKE 'xt\_%' ORDER BY name;

SET client_min_messages = warning;
DROP SCHEMA xt CASCADE;
DELETE FROM usher.job_results; DELETE FROM usher.queue_waiting; DELETE FROM usher.dead_letters;
DROP ROLE regress_usher_op, regress_usher_admin, regress_usher_other, regress_usher_member, regress_usher_stranger, regress_usher_nobody;
