-- Limits of flows and systems: what is refused, who waits, what is shown.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS lim CASCADE;
DROP ROLE IF EXISTS regress_usher_lim, regress_usher_lim_admin, regress_usher_lim_other;
RESET client_min_messages;
CREATE SCHEMA lim;
CREATE ROLE regress_usher_lim NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_lim_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_lim_other NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA lim TO PUBLIC;
CREATE TABLE lim.orders (id integer PRIMARY KEY, organization_id uuid NOT NULL, account text, v integer);
CREATE TABLE lim.done (seq integer GENERATED ALWAYS AS IDENTITY, id integer, v integer);
CREATE FUNCTION lim.go(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
GRANT ALL ON ALL TABLES IN SCHEMA lim TO regress_usher_lim;
SELECT usher.create_organization('lim-acme') AS acme, usher.create_organization('lim-beta') AS beta \gset
SELECT usher.grant_membership('lim-acme', 'role:regress_usher_lim_admin', 'admin'), usher.grant_membership('lim-beta', 'role:regress_usher_lim_other', 'admin');
SELECT usher.create_system('lim.shop'), usher.create_system('lim.books'), usher.create_system('lim.mailer', 'external');
SET ROLE regress_usher_lim;
CREATE FUNCTION pg_temp.flow(limits jsonb, more jsonb DEFAULT '{}') RETURNS SETOF text LANGUAGE sql AS $$
    SELECT public.try(format('SELECT usher.create_flow(%L, %L)', 'lim_copy',
        '{"when": {"change": "lim.orders"}, "then": {"insert": "lim.done"}, "set": {"id": "new.id", "v": "new.v"}, "to": "lim.books"}' || more || jsonb_build_object('limits', limits))) $$;

-- What cannot work is refused, with the remedy.
SELECT pg_temp.flow('{"per": "flow"}');
SELECT pg_temp.flow('[]');
SELECT pg_temp.flow('[{"per": "flwo", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "system", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "flow", "rate": "0 per second"}]');
SELECT pg_temp.flow('[{"per": "flow", "rate": "-3 per second"}]');
SELECT pg_temp.flow('[{"per": "flow", "rate": "1 per moment"}]');
SELECT pg_temp.flow('[{"per": "flow", "rate": "often"}]');
SELECT pg_temp.flow('[{"per": "flow", "rate": "1 per second", "burst": 0}]');
SELECT pg_temp.flow('[{"per": "flow", "rate": "1 per second", "concurrency": 2}]');
SELECT pg_temp.flow('[{"per": "flow"}]');
SELECT pg_temp.flow('[{"per": "key", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "flow", "key": "new.account", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "key", "key": "new.acount", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "key", "key": "new.account) OR (true", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "key", "key": "count(*)", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "key", "key": "(SELECT 1)", "rate": "1 per second"}]');
SELECT pg_temp.flow('[{"per": "flow", "concurrency": 2}]');
SELECT pg_temp.flow('[{"per": "flow", "rate": "1 per second"}]', '{"mode": "transactional"}');
SELECT public.try($$SELECT usher.limit_system('lim.nowhere', '[{"per": "system", "rate": "1 per second"}]')$$);
SELECT public.try($$SELECT usher.limit_system('lim.books', '[{"per": "flow", "rate": "1 per second"}]')$$);
SELECT public.try($$SELECT usher.limit_system('lim.books', '[{"per": "system", "key": "x", "rate": "1 per second"}]')$$);
SELECT public.try($$SELECT usher.limit_system(NULL, '[]')$$);

-- Two of each account at once, each organization's by itself; the others wait, the changes of a row behind each other.
SELECT pg_temp.flow('[{"per": "key", "key": "new.account", "rate": "1 per day", "burst": 2}]');
RESET ROLE;
INSERT INTO lim.orders SELECT g, CASE WHEN g <= 5 THEN :'acme' ELSE :'beta' END::uuid, CASE g WHEN 5 THEN NULL ELSE 'a' END, 1 FROM generate_series(1, 8) g;
UPDATE lim.orders SET v = 2 WHERE id IN (1, 4);
CALL public.drain();
SELECT id, v FROM lim.done ORDER BY seq;
SELECT flow, status, waiting_for, attempts, payload->'new'->'id' AS id, payload->'new'->'v' AS v, run_at BETWEEN now() + interval '23 h' AND now() + interval '25 h' AS tomorrow
  FROM usher.sync_jobs WHERE flow = 'lim_copy' AND status = 'pending' ORDER BY 5, 6;
SET ROLE regress_usher_lim_admin;
SELECT per, flow, organization, key, allowed, available, waiting, next_at IS NOT NULL AS has_next FROM usher.limits ORDER BY key;
SET ROLE regress_usher_lim_other;
SELECT per, flow, organization, key, allowed, available, waiting, next_at IS NOT NULL AS has_next FROM usher.limits ORDER BY key;
RESET ROLE;
-- The expressions are bad for one row only: that one fails, as in "set".
SELECT usher.alter_flow('lim_copy', definition || '{"run_as": "regress_usher_lim", "retry": {"delays": []}, "limits": [{"per": "key", "key": "8 / (new.id - 20)", "rate": "1000 per second", "burst": 1000}]}')
  FROM usher.flows WHERE name = 'lim_copy';
INSERT INTO lim.orders SELECT g, :'acme'::uuid, 'a', 1 FROM generate_series(18, 22) g;
CALL public.drain();
SELECT count(*) AS waiting FROM usher.queue_waiting;
SELECT id, max(v) AS v FROM lim.done GROUP BY id ORDER BY id;
SELECT payload->'new'->'id' AS id, status, error_message FROM usher.sync_jobs WHERE flow = 'lim_copy' AND status = 'dead';

-- A system's rate is shared by its flows; without limits everybody goes on.
SELECT usher.alter_flow('lim_copy', definition - 'limits') FROM usher.flows WHERE name = 'lim_copy';
SELECT usher.limit_system('lim.books', '[{"per": "system", "rate": "2 per day", "burst": 2}, {"per": "connection", "rate": "10 per second", "burst": 100}]');
SELECT name, limits FROM usher.systems WHERE limits IS NOT NULL;
INSERT INTO lim.orders SELECT g, :'acme'::uuid, 'a', 1 FROM generate_series(31, 35) g;
CALL public.drain();
SELECT per, system, organization, allowed, available, waiting FROM usher.limits WHERE per = 'system' AND system = 'lim.books';
SET ROLE regress_usher_lim_admin;
SELECT count(*) AS of_the_whole_system FROM usher.limits WHERE per = 'system';
SELECT public.try($$SELECT usher.limit_system('lim.books', NULL)$$);
RESET ROLE;
SELECT usher.limit_system('lim.books', NULL);
CALL public.drain();
SELECT count(*) AS done FROM lim.done WHERE id > 30;

-- Workers outside: so many in flight for each organization, then so many a day.
SELECT usher.limit_system('lim.mailer', '[{"per": "connection", "concurrency": 2}]');
SELECT count(*) FROM (SELECT unnest(usher.enqueue_sync_jobs(o, 'lim.shop', 'lim.mailer', ARRAY['{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 4}']::jsonb[])) FROM unnest(ARRAY['lim-acme', 'lim-beta']) o) x;
SET ROLE regress_usher_lim_admin;
SELECT job AS first, lease FROM usher.claim_jobs('lim.mailer', 1) \gset
SELECT payload FROM usher.claim_jobs('lim.mailer', 5);
SELECT payload FROM usher.claim_jobs('lim.mailer', 5);
SELECT per, organization, allowed, available, in_flight FROM usher.limits;
SELECT status FROM usher.finish_job(:'first', :'lease');
SELECT payload FROM usher.claim_jobs('lim.mailer', 5);
RESET ROLE;
SELECT count(*) AS two_of_each FROM usher.claim_jobs('lim.mailer', 50);
SELECT usher.limit_system('lim.mailer', '[{"per": "system", "rate": "3 per day", "burst": 3}]');
UPDATE usher.queue_waiting SET due_at = now() WHERE waiting_for = 'external worker' AND leased_by IS NOT NULL;
SELECT count(*) AS three FROM usher.claim_jobs('lim.mailer', 50);
SELECT count(*) AS none FROM usher.claim_jobs('lim.mailer', 50);
SELECT per, allowed, available, waiting FROM usher.limits WHERE system = 'lim.mailer';
SELECT usher.limit_system('lim.mailer', NULL);

-- The first that waits expires: without workers as well, the next one gets its time.
SELECT usher.create_flow('lim_ask', '{"from": "lim.shop", "to": "lim.books", "when": {"request": "go"}, "then": {"call": "lim.go"}, "set": {"payload": "job.payload"},
    "run_as": "regress_usher_lim", "limits": [{"per": "flow", "rate": "1 per day"}]}') IS NOT NULL AS made;
SELECT count(usher.enqueue_sync_job('lim-acme', 'lim.shop', 'lim.books', '{"action": "go"}', options => '{"expires_in": "1 day"}')) FROM generate_series(1, 3);
CALL public.drain();
UPDATE usher.job_expiries SET expires_at = now() WHERE job_id = (SELECT id FROM usher.queue_waiting WHERE waiting_for = 'rate limit' AND due_at IS NOT NULL);
CALL public.drain();
SELECT waiting_for, due_at > now() + interval '23 h' AS tomorrow FROM usher.queue_waiting WHERE waiting_for <> 'external worker';

-- Those of a flow that was dropped are all due, and stay so; when no limit is left anywhere, nobody waits for one.
SELECT usher.alter_flow('lim_copy', definition || '{"limits": [{"per": "flow", "rate": "1 per day"}]}') FROM usher.flows WHERE name = 'lim_copy';
INSERT INTO lim.orders SELECT g, :'acme'::uuid, 'a', 1 FROM generate_series(41, 80) g;
CALL public.drain();
SELECT usher.drop_flow('lim_copy');
UPDATE usher.queue_waiting SET due_at = due_at - interval '1 hour' WHERE op = 'I' AND waiting_for = 'rate limit';
SELECT usher.process_jobs(10);
SELECT count(*) AS waiting, count(*) FILTER (WHERE due_at < now() - interval '30 min') AS due_as_before FROM usher.queue_waiting WHERE op = 'I';
UPDATE usher.queue_waiting SET due_at = NULL, waiting_for = CASE WHEN seq % 2 = 0 THEN 'rate limit' ELSE 'concurrency limit' END WHERE op = 'I';
SELECT usher.drop_flow('lim_ask');
CALL public.drain();
SELECT count(*) AS waiting FROM usher.queue_waiting WHERE waiting_for <> 'external worker';

DELETE FROM usher.queue_waiting;
DELETE FROM usher.dead_letters WHERE flow_id NOT IN (SELECT id FROM usher.flows);
DELETE FROM usher.limit_marks;
SET client_min_messages = warning;
DROP SCHEMA lim CASCADE;
DROP FUNCTION pg_temp.flow;
DROP ROLE regress_usher_lim, regress_usher_lim_admin, regress_usher_lim_other;
