-- Flows in mode batch: jobs gather until there are enough, or the first has waited long enough.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ga CASCADE;
DROP ROLE IF EXISTS regress_usher_op;
RESET client_min_messages;
CREATE SCHEMA ga;
CREATE TABLE ga.rows (id integer PRIMARY KEY, organization_id uuid, v integer);
CREATE TABLE ga.done (seq integer GENERATED ALWAYS AS IDENTITY, id integer CHECK (id <> 13), v integer, organization_id uuid);
CREATE TABLE ga.calls (seq integer GENERATED ALWAYS AS IDENTITY, jobs jsonb, organization uuid);
-- What a statement writes at once, and a function gets.
CREATE TABLE ga.statements (seq integer GENERATED ALWAYS AS IDENTITY, rows integer);
CREATE FUNCTION ga.count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ga.statements (rows) SELECT count(*) FROM fresh; RETURN NULL; END $$;
CREATE TRIGGER count AFTER INSERT ON ga.done REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION ga.count();
CREATE FUNCTION ga.take(jobs jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF jobs @> '[{"what": "poison"}]' THEN RAISE 'poisoned: % jobs', jsonb_array_length(jobs); END IF;
    INSERT INTO ga.calls (jobs) VALUES (jobs);
END $$;
CREATE FUNCTION ga.two(a integer, b integer) RETURNS void LANGUAGE sql AS '';
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
GRANT ALL ON SCHEMA ga TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA ga TO regress_usher_op;
SELECT usher.create_organization('ga-acme') AS acme, usher.create_organization('ga-beta') AS beta \gset
SELECT usher.create_system('ga.a'), usher.create_system('ga.b');
GRANT EXECUTE ON FUNCTION public.try TO PUBLIC;
SET ROLE regress_usher_op;

-- What is not understood is refused, with the remedy.
\pset format unaligned
\pset tuples_only on
SELECT public.try(format('SELECT usher.create_flow(''ga_bad'', %L)', '{"when": {"change": "ga.rows"}, "then": {"insert": "ga.done"}, "set": {"id": "new.id"}}'::jsonb || change)) FROM (VALUES
    (1, '{"mode": "batch"}'::jsonb), (2, '{"mode": "batch", "batch": 5}'), (3, '{"mode": "batch", "batch": {"size": 5}}'), (4, '{"mode": "batch", "batch": {"window": 5}}'),
    (5, '{"mode": "batch", "batch": {"size": 0, "window": 5}}'), (6, '{"mode": "batch", "batch": {"size": 10001, "window": 5}}'), (7, '{"mode": "batch", "batch": {"size": 5, "window": "500ms"}}'),
    (8, '{"mode": "batch", "batch": {"size": 5, "window": "25 h"}}'), (9, '{"mode": "batch", "batch": {"size": 5, "window": "soon"}}'), (10, '{"mode": "batch", "batch": {"sise": 5}}'),
    (11, '{"mode": "async", "batch": {"size": 5, "window": 5}}'), (12, '{"mode": "bath"}'),
    (13, '{"mode": "batch", "batch": {"size": 5, "window": 5}, "then": {"call": "ga.take", "effect": "external"}, "set": {}}'),
    (14, '{"mode": "transactional", "then": {"call": "ga.take", "per": "batch"}, "set": {}}'), (15, '{"mode": "batch", "batch": {"size": 5, "window": 5}, "then": {"call": "ga.take", "per": "row"}, "set": {}}'),
    (16, '{"mode": "batch", "batch": {"size": 5, "window": 5}, "then": {"call": "ga.two", "per": "batch"}, "set": {}}'),
    (17, '{"mode": "batch", "batch": {"size": 5, "window": 5}, "then": {"call": "ga.take", "per": "batch", "keep_result": true}, "set": {}}')) AS v (n, change) ORDER BY n;
\pset format aligned
\pset tuples_only off

-- Row flows. Fewer than the size wait, however often one looks; then exactly so many run, as one statement.
SELECT usher.create_flow('ga_rows', $$ {"when": {"change": "ga.rows"}, "then": {"insert": "ga.done"}, "set": {"id": "new.id", "v": "new.v"}, "retry": {"delays": []},
  "mode": "batch", "batch": {"size": 5, "window": "1 day"}} $$);
SELECT line FROM regexp_split_to_table(usher.explain_flow('ga_rows'), E'\n') AS line WHERE line ~ '^  (mode|lane)';
RESET ROLE;
INSERT INTO ga.rows SELECT n, :'acme', 1 FROM generate_series(1, 4) AS n;
CALL public.drain();
INSERT INTO ga.rows SELECT n, :'beta', 1 FROM generate_series(101, 104) AS n;
CALL public.drain();
SELECT o.slug, j.status, j.waiting_for, j.priority, j.run_at - j.created_at AS window, count(*)
  FROM usher.sync_jobs j JOIN usher.organizations o ON o.id = j.organization_id WHERE flow = 'ga_rows' GROUP BY 1, 2, 3, 4, 5 ORDER BY 1;
SELECT count(*) AS nothing FROM ga.done;
INSERT INTO ga.rows VALUES (5, :'acme', 1);
CALL public.drain();
SELECT array_agg(id ORDER BY seq) AS acme, (SELECT array_agg(rows ORDER BY seq) FROM ga.statements) AS statements FROM ga.done;
-- A larger backlog runs as several, and what is left waits.
INSERT INTO ga.rows SELECT n, :'acme', 1 FROM generate_series(20, 31) AS n;
CALL public.drain();
SELECT (SELECT array_agg(rows ORDER BY seq) FROM ga.statements) AS statements, (SELECT count(*) FROM usher.queue_waiting WHERE waiting_for = 'batch window' AND organization_id = :'acme') AS acme,
       (SELECT count(*) FROM usher.queue_waiting WHERE waiting_for = 'batch window' AND organization_id = :'beta') AS beta;
TRUNCATE ga.done, ga.statements RESTART IDENTITY;
-- The window of the oldest is over: what is there runs.
UPDATE usher.queue_waiting SET due_at = now() WHERE waiting_for = 'batch window' AND organization_id = :'beta' AND seq = (SELECT min(seq) FROM usher.queue_waiting WHERE organization_id = :'beta');
CALL public.drain();
SELECT array_agg(id ORDER BY seq) AS beta, (SELECT array_agg(rows ORDER BY seq) FROM ga.statements) AS statements FROM ga.done;
TRUNCATE ga.done, ga.statements RESTART IDENTITY;
-- A bad job is found, the others of its batch are done. Of a row the changes keep their order.
INSERT INTO ga.rows VALUES (13, :'acme', 1);
UPDATE ga.rows SET v = 2 WHERE id = 31;
UPDATE ga.rows SET v = 3 WHERE id = 31;
CALL public.drain();
SELECT array_agg(id || '/' || v ORDER BY seq) AS done FROM ga.done WHERE id = 31;
SELECT count(*) AS done FROM ga.done;
SELECT status, waiting_for, error_message FROM usher.sync_jobs WHERE flow = 'ga_rows' AND status NOT IN ('synced');
TRUNCATE ga.done, ga.statements RESTART IDENTITY;

-- Cancelled ones do not count, one in another lane gathers there.
INSERT INTO ga.rows SELECT n, :'acme', 1 FROM generate_series(40, 44) AS n;
SELECT usher.cancel_sync_jobs('ga-acme', '{"flow": "ga_rows", "payload": {"new": {"id": 40}}}');
CALL public.drain();
SELECT count(*) AS nothing FROM ga.done;
SELECT priority, waiting_for FROM usher.reprioritise((SELECT id FROM usher.sync_jobs WHERE flow = 'ga_rows' AND payload->'new'->'id' = '41'), 'high');
INSERT INTO ga.rows SELECT n, :'acme', 1 FROM generate_series(45, 46) AS n;
CALL public.drain();
SELECT array_agg(id ORDER BY seq) AS done FROM ga.done;
SELECT payload->'new'->'id' AS id, priority, waiting_for FROM usher.sync_jobs WHERE flow = 'ga_rows' AND status = 'pending';
-- Paused meanwhile: they wait for that, and then run at once if their window is over, else gather again.
SELECT usher.pause_jobs(flow => 'ga_rows');
INSERT INTO ga.rows SELECT n, :'acme', 1 FROM generate_series(50, 54) AS n;
CALL public.drain();
SELECT waiting_for, count(*) FROM usher.sync_jobs WHERE flow = 'ga_rows' AND status = 'pending' GROUP BY 1 ORDER BY 1;
SELECT usher.resume_jobs(flow => 'ga_rows');
CALL public.drain();
CALL public.drain();
SELECT array_agg(id ORDER BY seq) AS done FROM ga.done WHERE id >= 50;
-- Another mode from now on: what has gathered runs.
SELECT usher.alter_flow('ga_rows', $$ {"when": {"change": "ga.rows"}, "then": {"insert": "ga.done"}, "set": {"id": "new.id", "v": "new.v"}, "run_as": "regress_usher_op"} $$);
CALL public.drain();
SELECT id FROM ga.done WHERE id = 41;
SELECT count(*) AS left FROM usher.queue_waiting WHERE waiting_for = 'batch window';

-- Calls, once for each batch.
SET ROLE regress_usher_op;
SELECT usher.create_flow('ga_call', $$ {"from": "ga.a", "to": "ga.b", "when": {"request": "take"}, "then": {"call": "ga.take", "per": "batch"}, "retry": {"delays": []},
  "set": {"what": "job.payload->>'what'", "n": "(job.payload->>'n')::integer"}, "check": {"n is positive": "n > 0"}, "mode": "batch", "batch": {"size": 4, "window": "1 day"}} $$);
SELECT line FROM regexp_split_to_table(usher.explain_flow('ga_call'), E'\n') AS line WHERE line ~ '^  mode';
SELECT usher.preview_flow('ga_call', '{"what": "look", "n": 7}'), usher.preview_flow('ga_call', '{"what": "look", "n": 0}');
RESET ROLE;
SELECT count(usher.enqueue_sync_job(o, 'ga.a', 'ga.b', jsonb_build_object('action', 'take', 'what', o, 'n', n))) AS asked
  FROM generate_series(1, 4) AS n CROSS JOIN (VALUES ('ga-acme'), ('ga-beta')) AS v (o);
CALL public.drain();
SELECT jobs FROM ga.calls ORDER BY jobs::text;
TRUNCATE ga.calls;
-- The call that fails is made again with halves.
SELECT count(usher.enqueue_sync_job('ga-acme', 'ga.a', 'ga.b', jsonb_build_object('action', 'take', 'what', CASE n WHEN 2 THEN 'poison' ELSE 'good' END, 'n', CASE n WHEN 4 THEN 0 ELSE n END))) AS asked
  FROM generate_series(1, 4) AS n;
CALL public.drain();
SELECT jobs FROM ga.calls ORDER BY seq;
SELECT payload->'n' AS n, status, error_message FROM usher.sync_jobs WHERE flow = 'ga_call' AND status <> 'synced' ORDER BY 1;
-- Without "set" it gets the payloads as they are; of changes the new rows.
SET ROLE regress_usher_op;
SELECT usher.create_flow('ga_whole', $$ {"when": {"change": "ga.rows"}, "then": {"call": "ga.take", "per": "batch"}, "mode": "batch", "batch": {"size": 2, "window": "1 day"}} $$);
RESET ROLE;
TRUNCATE ga.calls;
INSERT INTO ga.rows VALUES (60, :'acme', 1), (61, :'acme', 2);
CALL public.drain();
SELECT jobs #- '{0,organization_id}' #- '{1,organization_id}' AS jobs FROM ga.calls;
-- A flow that is dropped takes its jobs along.
INSERT INTO ga.rows VALUES (62, :'acme', 1);
CALL public.drain();
SELECT usher.drop_flow('ga_whole'), usher.drop_flow('ga_rows'), usher.drop_flow('ga_call');
CALL public.drain();
SELECT status, count(*) FROM usher.sync_jobs WHERE flow = 'ga_whole' GROUP BY 1 ORDER BY 1;
SELECT usher.cancel_sync_jobs(o, '{"status": "dead"}') > 0 AS cleaned FROM (VALUES ('ga-acme')) AS v (o);

SET client_min_messages = warning;
DROP SCHEMA ga CASCADE;
DROP OWNED BY regress_usher_op;
DROP ROLE regress_usher_op;
