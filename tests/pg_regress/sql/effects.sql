-- What flows do to their targets, and what happens when they cannot.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS src, dst CASCADE;
DROP ROLE IF EXISTS regress_usher_op;
RESET client_min_messages;
CREATE SCHEMA src;
CREATE SCHEMA dst;
CREATE TABLE src.a (id integer PRIMARY KEY, k integer, v text, n integer);
CREATE TABLE dst.known (id integer PRIMARY KEY);
CREATE TABLE dst.b (id integer PRIMARY KEY, v text, n integer REFERENCES dst.known, made text, writes integer NOT NULL DEFAULT 0);
CREATE TABLE dst.log (seq integer GENERATED ALWAYS AS IDENTITY, id integer, op text, before text, after text);
CREATE FUNCTION dst.count_writes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.writes := NEW.writes + 1; RETURN NEW; END$$;
CREATE TRIGGER count_writes BEFORE INSERT OR UPDATE ON dst.b FOR EACH ROW EXECUTE FUNCTION dst.count_writes();
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
GRANT ALL ON SCHEMA src, dst TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA src, dst TO regress_usher_op;
CREATE VIEW src.jobs AS
    SELECT flow, payload->>'op' AS op, COALESCE(payload->'new'->>'id', payload->'old'->>'id') AS id, status, waiting_for, attempts, error_message, created_at
      FROM usher.sync_jobs;
GRANT SELECT ON src.jobs TO regress_usher_op;
SET ROLE regress_usher_op;

-- Every change in the order in which it took effect.
SELECT usher.create_flow('log', $$ {"when": {"change": "src.a", "on": ["insert", "update", "delete"]},
  "then": {"insert": "dst.log"}, "set": {"id": "COALESCE(new.id, old.id)", "op": "job.op", "before": "old.v", "after": "new.v"}} $$);
INSERT INTO src.a (id, v) VALUES (1, 'a'), (2, 'a');
UPDATE src.a SET v = 'b' WHERE id = 1;
UPDATE src.a SET v = 'c' WHERE id = 1;
-- Nothing changed: no job. Two rows, one changed: one job.
UPDATE src.a SET v = v;
UPDATE src.a SET v = 'c';
DELETE FROM src.a WHERE id = 1;
INSERT INTO src.a (id, v) VALUES (1, 'd');
TRUNCATE src.a;
INSERT INTO src.a (id, v) SELECT g, 'bulk' FROM generate_series(11, 13) AS g;
BEGIN;
INSERT INTO src.a (id, v) VALUES (20, 'undone');
ROLLBACK;
CALL public.drain();
SELECT id, op, before, after FROM dst.log WHERE id < 10 ORDER BY id, seq;
SELECT count(*) AS bulk, count(DISTINCT id) AS ids FROM dst.log WHERE id > 10;
-- Changing the key is a change of the row, too.
UPDATE src.a SET id = 14, v = 'moved' WHERE id = 13;
CALL public.drain();
SELECT id, op, before, after FROM dst.log WHERE id > 12 ORDER BY seq;
-- A whole table at once.
INSERT INTO src.a (id, v) SELECT g, 'many' FROM generate_series(1001, 6000) AS g;
SELECT usher.process_jobs(5000);
SELECT usher.process_jobs(1);
SELECT count(*) AS many FROM dst.log WHERE after = 'many';
SELECT usher.drop_flow('log');
TRUNCATE src.a, dst.log;

-- insert: a repeat is an error, or keeps what is there.
SELECT usher.create_flow('insert_error', '{"when": {"change": "src.a", "on": ["insert"]}, "then": {"insert": "dst.b"}, "set": {"id": "new.k", "v": "new.v"}, "retry": {"delays": []}}');
INSERT INTO src.a (id, k, v) VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 3, 'three');
CALL public.drain();
SELECT id, v FROM dst.b ORDER BY id;
SELECT id, status, attempts, error_message FROM src.jobs WHERE flow = 'insert_error' ORDER BY status, id;
SELECT sqlstate, attempts FROM usher.dead_letters;
SELECT usher.drop_flow('insert_error');
SELECT usher.create_flow('insert_keep', '{"when": {"change": "src.a", "on": ["insert"]}, "then": {"insert": "dst.b", "key": ["id"], "on_conflict": "keep"}, "set": {"id": "new.k", "v": "new.v"}}');
INSERT INTO src.a (id, k, v) VALUES (4, 1, 'kept'), (5, 5, 'five'), (6, 5, 'six');
CALL public.drain();
SELECT id, v, writes FROM dst.b ORDER BY id;
SELECT usher.drop_flow('insert_keep');
TRUNCATE src.a, dst.b;

-- upsert: writes only when something differs; set_once on insert only; two source rows for one target row, the last wins.
SELECT usher.create_flow('upsert', $$ {"when": {"change": "src.a"}, "then": {"upsert": "dst.b", "key": ["id"]},
  "set": {"id": "new.k", "v": "new.v"}, "set_once": {"made": "'by ' || new.id"}} $$);
INSERT INTO src.a (id, k, v) VALUES (1, 1, 'x'), (2, 2, 'y');
CALL public.drain();
UPDATE src.a SET n = 0;
CALL public.drain();
UPDATE src.a SET v = 'z' WHERE id = 2;
CALL public.drain();
SELECT id, v, made, writes FROM dst.b ORDER BY id;
INSERT INTO src.a (id, k, v) VALUES (3, 9, 'first'), (4, 9, 'second'), (5, 9, 'third');
CALL public.drain();
SELECT id, v, made, writes FROM dst.b WHERE id = 9;
UPDATE src.a SET v = v || ' a';
UPDATE src.a SET v = v || ' b';
CALL public.drain();
SELECT id, v, made FROM dst.b ORDER BY id;
SELECT usher.drop_flow('upsert');

-- update and delete: only rows that are there.
SELECT usher.create_flow('update', '{"when": {"change": "src.a", "on": ["update"]}, "then": {"update": "dst.b", "key": ["id"]}, "set": {"id": "new.k", "v": "new.v"}}');
SELECT usher.create_flow('delete', '{"when": {"change": "src.a", "on": ["delete"]}, "then": {"delete": "dst.b", "key": ["id"]}, "set": {"id": "old.k"}}');
UPDATE dst.b SET writes = 0;
UPDATE src.a SET v = 'updated' WHERE id = 1;
UPDATE src.a SET v = 'nobody', k = 77 WHERE id = 2;
DELETE FROM src.a WHERE id = 3;
CALL public.drain();
SELECT id, v FROM dst.b ORDER BY id;
SELECT usher.drop_flow('update'), usher.drop_flow('delete');
TRUNCATE src.a, dst.b;

-- call: once per job, arguments by name, or the payload.
CREATE FUNCTION dst.note(what text, id integer DEFAULT 0) RETURNS void LANGUAGE sql AS 'INSERT INTO dst.log (id, after) VALUES (note.id, what)';
CREATE FUNCTION dst.note_payload(payload jsonb) RETURNS integer LANGUAGE sql AS $$INSERT INTO dst.log (op, after) VALUES ('payload', payload->>'what') RETURNING seq$$;
SELECT usher.create_flow('call', $$ {"when": {"change": "src.a", "on": ["insert"]}, "then": {"call": "dst.note", "effect": "sql"},
  "set": {"id": "new.id", "what": "'called for ' || new.v"}, "check": {"not three": "id <> 3"}, "retry": {"delays": []}} $$);
SELECT usher.create_flow('call_payload', '{"from": "src", "to": "dst", "when": {"request": "note"}, "then": {"call": "dst.note_payload"}}');
INSERT INTO src.a (id, v) VALUES (1, 'one'), (2, 'two'), (3, 'three');
SELECT status, payload FROM usher.enqueue_sync_job('default', 'src', 'dst', '{"action": "note", "what": "this"}');
CALL public.drain();
SELECT id, op, after FROM dst.log ORDER BY id NULLS LAST;
SELECT id, status, error_message FROM src.jobs WHERE flow = 'call' ORDER BY id;
SELECT usher.drop_flow('call'), usher.drop_flow('call_payload');
TRUNCATE src.a, dst.log;

-- A poison row fails alone; it is tried again, then it is dead. retry_sync_job runs it again, corrected.
SELECT usher.create_flow('strict', $$ {"when": {"change": "src.a"}, "then": {"upsert": "dst.b", "key": ["id"]},
  "set": {"id": "new.id", "v": "new.v", "n": "new.n"}, "check": {"v is there": "v IS NOT NULL", "v is short": "length(v) < 10"}, "retry": {"delays": [0, 0], "jitter": 0}} $$);
INSERT INTO dst.known VALUES (1);
INSERT INTO src.a (id, v, n) VALUES (1, 'good', 1), (2, NULL, 1), (3, 'good', 7), (4, 'much too long', 1), (5, 'good', 1);
SELECT usher.process_jobs();
SELECT id, v, n FROM dst.b ORDER BY id;
SELECT id, status, waiting_for, attempts, error_message FROM src.jobs WHERE flow = 'strict' ORDER BY id;
SELECT usher.process_jobs();
SELECT usher.process_jobs();
SELECT usher.process_jobs();
SELECT id, status, waiting_for, attempts, error_message FROM src.jobs WHERE flow = 'strict' ORDER BY id;
SELECT id AS job2 FROM usher.sync_jobs WHERE status = 'dead' AND payload->'new'->>'id' = '2' AND flow = 'strict' \gset
SELECT id AS job3 FROM usher.sync_jobs WHERE status = 'dead' AND payload->'new'->>'id' = '3' AND flow = 'strict' \gset
SELECT status, waiting_for, attempts, payload FROM usher.retry_sync_job(:'job2', '{"v": "mended"}');
INSERT INTO dst.known VALUES (7);
SELECT status, waiting_for, attempts, payload FROM usher.retry_sync_job(:'job3');
SELECT usher.process_jobs();
SELECT id, v, n FROM dst.b ORDER BY id;
SELECT id, status, attempts FROM src.jobs WHERE flow = 'strict' ORDER BY id;
SELECT usher.drop_flow('strict');
TRUNCATE src.a, dst.b;

-- While a change waits for its next try, later changes of its row line up behind it; other rows go on.
SELECT usher.create_flow('order', $$ {"when": {"change": "src.a"}, "then": {"upsert": "dst.b", "key": ["id"]},
  "set": {"id": "new.id", "v": "new.v", "n": "new.n"}, "retry": {"delays": [3600], "jitter": 0}} $$);
INSERT INTO src.a (id, v, n) VALUES (1, 'first', 8);
SELECT usher.process_jobs();
UPDATE src.a SET v = 'second', n = 7 WHERE id = 1;
INSERT INTO src.a (id, v, n) VALUES (2, 'other', 7);
UPDATE src.a SET v = 'third', n = 1 WHERE id = 1;
SELECT usher.process_jobs();
SELECT id, op, status, waiting_for, attempts FROM src.jobs WHERE flow = 'order' ORDER BY created_at;
SELECT id, v FROM dst.b ORDER BY id;
INSERT INTO dst.known VALUES (8);
SELECT r.status FROM usher.sync_jobs j, LATERAL usher.retry_sync_job(j.id) AS r WHERE j.status = 'failed' AND j.flow = 'order';
CALL public.drain();
SELECT id, op, status, attempts FROM src.jobs WHERE flow = 'order' ORDER BY created_at;
SELECT id, v, n FROM dst.b ORDER BY id;
-- The same when they come in one batch: the first change of row 3 fails, the second must not overtake it.
INSERT INTO src.a (id, v, n) VALUES (3, 'first', 9);
UPDATE src.a SET v = 'second', n = 7 WHERE id = 3;
CALL public.drain() \gset
SELECT id, op, status, waiting_for FROM src.jobs WHERE flow = 'order' AND id = '3' ORDER BY created_at;
INSERT INTO dst.known VALUES (9);
SELECT r.status FROM usher.sync_jobs j, LATERAL usher.retry_sync_job(j.id) AS r WHERE j.status = 'failed' AND j.flow = 'order';
CALL public.drain() \gset
SELECT id, v, n FROM dst.b WHERE id = 3;
-- Cancelling the first lets the others go.
INSERT INTO src.a (id, v, n) VALUES (4, 'first', 10);
SELECT usher.process_jobs();
UPDATE src.a SET v = 'second', n = 7 WHERE id = 4;
SELECT usher.process_jobs();
SELECT r.status FROM usher.sync_jobs j, LATERAL usher.cancel_sync_job(j.id) AS r WHERE j.status = 'failed' AND j.flow = 'order';
CALL public.drain();
SELECT id, v, n FROM dst.b WHERE id = 4;
SELECT usher.drop_flow('order');
TRUNCATE src.a, dst.b;

-- Nor may a change that a flow made be overtaken by one that a person made later, in one batch.
CREATE TABLE src.one (id integer PRIMARY KEY, v text);
CREATE TABLE src.two (id integer PRIMARY KEY, v text);
CREATE TABLE src.three (id integer PRIMARY KEY, v text);
SELECT usher.create_flow('hop1', '{"when": {"change": "src.one"}, "then": {"upsert": "src.two", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}}');
SELECT usher.create_flow('hop2', '{"when": {"change": "src.two"}, "then": {"upsert": "src.three", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}}');
INSERT INTO src.one VALUES (1, 'by a flow');
SELECT usher.process_jobs(1);
UPDATE src.two SET v = 'by hand, later';
CALL public.drain();
SELECT two.v AS source, three.v AS target FROM src.two JOIN src.three USING (id);
-- Nor when the flow gets a new version, even in a higher lane.
UPDATE src.two SET v = 'version 1';
SELECT usher.alter_flow('hop2', '{"when": {"change": "src.two"}, "then": {"upsert": "src.three", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}, "description": "2"}');
UPDATE src.two SET v = 'version 2';
CALL public.drain() \gset
SELECT two.v AS source, three.v AS target FROM src.two JOIN src.three USING (id);
UPDATE src.two SET v = 'normal lane';
SELECT usher.alter_flow('hop2', '{"when": {"change": "src.two"}, "then": {"upsert": "src.three", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}, "priority": "high"}');
UPDATE src.two SET v = 'high lane';
CALL public.drain() \gset
SELECT two.v AS source, three.v AS target FROM src.two JOIN src.three USING (id);
SELECT usher.drop_flow('hop1'), usher.drop_flow('hop2');

-- A trigger of the application changes the row again: its change is the later one.
RESET ROLE;
CREATE FUNCTION src.again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE src.a SET v = NEW.v || '!' WHERE id = NEW.id; RETURN NULL; END$$;
CREATE TRIGGER again AFTER INSERT OR UPDATE ON src.a FOR EACH ROW WHEN (length(NEW.v) < 4) EXECUTE FUNCTION src.again();
SET ROLE regress_usher_op;
SELECT usher.create_flow('nested', '{"when": {"change": "src.a"}, "then": {"upsert": "dst.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}}');
INSERT INTO src.a (id, v) VALUES (3, 'ccc');
UPDATE src.a SET v = 'ddd' WHERE id = 3;
CALL public.drain();
SELECT b.id, b.v, b.v = a.v AS same FROM dst.b JOIN src.a USING (id) ORDER BY id;
-- Also when the trigger's own change fires it again.
INSERT INTO src.a (id, v) VALUES (1, 'a'), (2, 'bb');
CALL public.drain();
SELECT b.id, b.v, b.v = a.v AS same FROM dst.b JOIN src.a USING (id) ORDER BY id;
SELECT usher.drop_flow('nested');
TRUNCATE src.a, dst.b;
SELECT usher.create_flow('nested', '{"mode": "transactional", "when": {"change": "src.a"}, "then": {"upsert": "dst.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}}');
INSERT INTO src.a (id, v) VALUES (1, 'a'), (2, 'bb');
UPDATE src.a SET v = 'c' WHERE id = 2;
SELECT b.id, b.v, b.v = a.v AS same FROM dst.b JOIN src.a USING (id) ORDER BY id;
SELECT usher.drop_flow('nested');
RESET ROLE;
DROP TRIGGER again ON src.a;
SET ROLE regress_usher_op;
TRUNCATE src.a, dst.b;

-- In the writer's transaction: at once, and gone with it.
SELECT usher.create_flow('at_once', $$ {"mode": "transactional", "when": {"change": "src.a"}, "then": {"upsert": "dst.b", "key": ["id"]},
  "set": {"id": "new.id", "v": "new.v", "n": "new.n"}, "check": {"v is there": "v IS NOT NULL"}, "retry": {"delays": []}} $$);
BEGIN;
INSERT INTO src.a (id, v) VALUES (1, 'x'), (2, 'y');
SELECT id, v FROM dst.b ORDER BY id;
ROLLBACK;
SELECT count(*) AS targets FROM dst.b;
INSERT INTO src.a (id, v) VALUES (1, 'x'), (2, NULL);
SELECT id, v FROM dst.b ORDER BY id;
SELECT id, status, error_message FROM src.jobs WHERE flow = 'at_once' ORDER BY created_at, id;
-- What fails does not hurt the writer; it becomes a job, and later changes of the row line up behind it.
INSERT INTO src.a (id, v, n) VALUES (3, 'z', 99);
UPDATE src.a SET v = 'zz', n = NULL WHERE id = 3;
SELECT id, v FROM dst.b ORDER BY id;
SELECT id, op, status, error_message FROM src.jobs WHERE flow = 'at_once' AND id = '3' ORDER BY created_at;
CALL public.drain() \gset
SELECT id, op, status, waiting_for, error_message FROM src.jobs WHERE flow = 'at_once' AND id IN ('2', '3') ORDER BY created_at;
SELECT id, v, n FROM src.a ORDER BY id;
SELECT usher.drop_flow('at_once');
CALL public.drain();
TRUNCATE src.a, dst.b;
-- With abort the writer is refused.
SELECT usher.create_flow('refuse', $$ {"mode": "transactional", "on_error": "abort", "when": {"change": "src.a"}, "then": {"upsert": "dst.b", "key": ["id"]},
  "set": {"id": "new.id", "v": "new.v", "n": "new.n"}, "check": {"v is there": "v IS NOT NULL"}} $$);
INSERT INTO src.a (id, v) VALUES (1, 'x');
\set VERBOSITY terse
INSERT INTO src.a (id, v) VALUES (2, NULL);
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
INSERT INTO src.a (id, v, n) VALUES (3, 'x', 99);
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
UPDATE src.a SET v = NULL;
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
SELECT a.id, a.v, b.v FROM src.a LEFT JOIN dst.b USING (id) ORDER BY id;
SELECT usher.drop_flow('refuse');
TRUNCATE src.a, dst.b;

-- join: at most one row, NULLs when nothing matches. Window functions run over the batch.
CREATE TABLE src.names (k integer, name text);
INSERT INTO src.names VALUES (1, 'one'), (2, 'two');
SELECT usher.create_flow('joined', $$ {"when": {"change": "src.a", "on": ["insert"]}, "join": {"names": {"table": "src.names", "on": "names.k = new.k"}},
  "then": {"insert": "dst.log"}, "set": {"id": "new.id", "before": "names.name", "after": "row_number() OVER (ORDER BY new.id DESC)"}} $$);
INSERT INTO src.a (id, k) VALUES (1, 1), (2, 2), (3, 3);
CALL public.drain();
SELECT id, before, after FROM dst.log ORDER BY id;
SELECT usher.drop_flow('joined');
TRUNCATE src.a, dst.log;

-- Capture off: repair without consequences; for superusers only.
SELECT usher.create_flow('log', '{"when": {"change": "src.a"}, "then": {"insert": "dst.log"}, "set": {"id": "new.id"}}');
SET usher.capture = off;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SET usher.capture = off;
INSERT INTO src.a (id) VALUES (1);
RESET usher.capture;
INSERT INTO src.a (id) VALUES (2);
SET ROLE regress_usher_op;
CALL public.drain();
SELECT id FROM dst.log ORDER BY id;
SELECT usher.drop_flow('log');
TRUNCATE src.a, dst.log;

-- Two one-way flows over one pair: the echo ends where nothing differs.
CREATE TABLE src.left (id integer PRIMARY KEY, name text, phone text);
CREATE TABLE dst.right (id integer PRIMARY KEY, name text, phone text);
SELECT usher.create_flow('to_right', '{"when": {"change": "src.left"}, "then": {"upsert": "dst.right", "key": ["id"]}, "set": {"id": "new.id", "name": "new.name"}}');
SELECT usher.create_flow('to_left', '{"when": {"change": "dst.right"}, "then": {"upsert": "src.left", "key": ["id"]}, "set": {"id": "new.id", "phone": "new.phone"}}');
INSERT INTO src.left VALUES (1, 'Ann', NULL);
CALL public.drain();
UPDATE dst.right SET phone = '+1' WHERE id = 1;
UPDATE src.left SET name = 'Anna' WHERE id = 1;
CALL public.drain();
SELECT id, l.name, l.phone, r.name, r.phone FROM src.left l FULL JOIN dst.right r USING (id);
SELECT flow, payload->>'op' AS op, status FROM usher.sync_jobs WHERE flow IN ('to_left', 'to_right') ORDER BY created_at, flow;
SELECT count(*) FILTER (WHERE status NOT IN ('synced')) AS open FROM usher.sync_jobs WHERE flow IN ('to_left', 'to_right');
SELECT usher.drop_flow('to_right'), usher.drop_flow('to_left');

-- Three tables in a circle. The trail ends it: a flow does not run twice for the same row in one chain.
CREATE TABLE src.c1 (id integer PRIMARY KEY, v integer);
CREATE TABLE src.c2 (id integer PRIMARY KEY, v integer);
CREATE TABLE src.c3 (id integer PRIMARY KEY, v integer);
SELECT usher.create_flow('c12', '{"when": {"change": "src.c1"}, "then": {"upsert": "src.c2", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v + 1"}}');
SELECT usher.create_flow('c23', '{"when": {"change": "src.c2"}, "then": {"upsert": "src.c3", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v + 1"}}');
SELECT usher.create_flow('c31', '{"when": {"change": "src.c3"}, "then": {"upsert": "src.c1", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v + 1"}}');
INSERT INTO src.c1 VALUES (1, 0);
CALL public.drain();
SELECT c1.v, c2.v, c3.v FROM src.c1, src.c2, src.c3;
SELECT flow, status, error_message FROM usher.sync_jobs WHERE flow ~ '^c\d\d$' ORDER BY created_at, flow;
SELECT usher.drop_flow('c12'), usher.drop_flow('c23'), usher.drop_flow('c31');
-- New rows all the way: every row is another, so the trail does not help, the number of hops does.
CREATE TABLE src.endless (id integer PRIMARY KEY);
SELECT usher.create_flow('endless', '{"when": {"change": "src.endless", "on": ["insert"]}, "if": "new.id >= 0", "then": {"insert": "src.endless"}, "set": {"id": "new.id + 1"}}');
INSERT INTO src.endless VALUES (0);
CALL public.drain();
SELECT count(*) AS rows FROM src.endless;
SELECT status, count(*), max(error_message) AS error FROM usher.sync_jobs WHERE flow = 'endless' GROUP BY 1 ORDER BY 1;
SELECT hop, sqlstate FROM usher.dead_letters d JOIN usher.flow_versions f USING (flow_id) WHERE f.name = 'endless';
SELECT usher.drop_flow('endless');

-- A target that is gone breaks the flow: its jobs wait, the writer is not hurt, and it is said.
TRUNCATE src.a;
CREATE TABLE dst.gone (id integer PRIMARY KEY, v text);
SELECT usher.create_flow('breaks', '{"when": {"change": "src.a"}, "then": {"upsert": "dst.gone", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}}');
ALTER TABLE dst.gone RENAME COLUMN v TO w;
INSERT INTO src.a (id, v) VALUES (1, 'x');
SELECT usher.process_jobs();
SELECT state, reason IS NOT NULL AS why FROM usher.flows WHERE name = 'breaks';
SELECT id, status, waiting_for FROM src.jobs WHERE flow = 'breaks';
ALTER TABLE dst.gone RENAME COLUMN w TO v;
SELECT usher.alter_flow('breaks', definition) FROM usher.flows WHERE name = 'breaks';
CALL public.drain();
SELECT id, v FROM dst.gone;
SELECT usher.drop_flow('breaks');

RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA src, dst CASCADE;
DROP ROLE regress_usher_op;
