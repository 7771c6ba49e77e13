-- Flows that send messages to clients: on whose topic, what of a row, and what keeps a flow from being made.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS pb, realtime CASCADE;
DROP ROLE IF EXISTS regress_usher_pb;
CREATE SCHEMA pb;
CREATE TABLE pb.orders (organization_id uuid NOT NULL, id bigint NOT NULL, status text, total numeric, note text, PRIMARY KEY (organization_id, id));
CREATE TABLE pb.plain (name text, n int);
CREATE ROLE regress_usher_pb NOLOGIN;
GRANT USAGE ON SCHEMA pb TO regress_usher_pb;
GRANT SELECT ON ALL TABLES IN SCHEMA pb TO regress_usher_pb;
SELECT usher.create_organization('pb-north') AS north \gset
SELECT usher.create_organization('pb-south') AS south \gset
CREATE FUNCTION pb.flow(name text, definition jsonb) RETURNS text LANGUAGE sql AS
    $$ SELECT usher.create_flow(name, '{"run_as": "regress_usher_pb", "retry": {"delays": []}}' || definition) $$;
-- Ids of organizations by their slugs, other ids as what they are.
CREATE FUNCTION pb.named(text text) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(replace(replace(text, (SELECT id::text FROM usher.organizations WHERE slug = 'pb-north'), 'NORTH'),
                                  (SELECT id::text FROM usher.organizations WHERE slug = 'pb-south'), 'SOUTH'), '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'ID', 'g') $$;
CREATE FUNCTION pb.preview(flow text, new jsonb, old jsonb DEFAULT NULL) RETURNS SETOF text LANGUAGE sql AS
    $$ SELECT pb.named(p::text) FROM usher.preview_flow(flow, new, old, 'pb-north') AS p $$;
RESET client_min_messages;

-- Without Realtime the definition has to say that NOTIFY will do.
SELECT * FROM public.try($$ SELECT pb.flow('pb_changes', '{"when": {"change": "pb.orders"}, "then": {"publish": "orders"}}') $$);
SELECT pb.flow('pb_notify', '{"when": {"change": "pb.orders", "on": ["insert", "update", "delete"]}, "then": {"publish": "orders", "via": "notify"}}');
SELECT pb.preview('pb_notify', '{"id": 7, "status": "paid", "total": 12.50}');
SELECT pb.preview('pb_notify', '{"id": 8, "status": "paid"}', '{"id": 7, "status": "new"}');
SELECT pb.preview('pb_notify', NULL, '{"id": 7, "status": "paid"}');
SELECT line FROM string_to_table(usher.explain_flow('pb_notify'), E'\n') AS line WHERE line ~ '^flow|topic:|stored:|pg_notify';

-- With it, each right that is lacking is named: realtime.send itself would say nothing.
SET client_min_messages = warning;
\getenv here PG_ABS_SRCDIR
\set file :here '/realtime.sql'
\o /dev/null
\i :file
\o
CREATE VIEW pb.messages AS
    SELECT pb.named(topic) AS topic, event, private, pb.named(CASE WHEN payload ->> 'id' = id::text THEN payload - 'id' ELSE payload END::text) AS payload
      FROM realtime.messages ORDER BY pb.named(topic), event, payload - 'job' - CASE WHEN payload ->> 'id' = id::text THEN 'id' ELSE '' END;
RESET client_min_messages;
REVOKE EXECUTE ON FUNCTION realtime.send(jsonb, text, text, boolean) FROM PUBLIC;
SELECT * FROM public.try($$ SELECT pb.flow('pb_changes', '{"when": {"change": "pb.orders"}, "then": {"publish": "orders"}}') $$);
GRANT USAGE ON SCHEMA realtime TO regress_usher_pb;
SELECT * FROM public.try($$ SELECT pb.flow('pb_changes', '{"when": {"change": "pb.orders"}, "then": {"publish": "orders"}}') $$);
GRANT EXECUTE ON FUNCTION realtime.send(jsonb, text, text, boolean) TO regress_usher_pb;
SELECT * FROM public.try($$ SELECT pb.flow('pb_changes', '{"when": {"change": "pb.orders"}, "then": {"publish": "orders"}}') $$);
GRANT INSERT ON realtime.messages TO regress_usher_pb;
SELECT * FROM public.try($$ SELECT pb.flow('pb_changes', '{"when": {"change": "pb.orders"}, "then": {"publish": "orders"}}') $$);
CREATE POLICY reads ON realtime.messages FOR SELECT TO regress_usher_pb USING (true);
CREATE POLICY others ON realtime.messages FOR INSERT TO pg_monitor WITH CHECK (true);
SELECT * FROM public.try($$ SELECT pb.flow('pb_changes', '{"when": {"change": "pb.orders"}, "then": {"publish": "orders"}}') $$);
CREATE POLICY sends ON realtime.messages FOR INSERT TO regress_usher_pb WITH CHECK (extension = 'broadcast');

-- A message without "set" says where to look, and nothing of what is there.
SELECT pb.flow('pb_changes', '{"when": {"change": "pb.orders", "on": ["insert", "update", "delete"]}, "then": {"publish": "orders"}}');
SELECT pb.flow('pb_plain', '{"when": {"change": "pb.plain", "on": ["delete"]}, "organization": "''pb-north''", "then": {"publish": "plain", "event": "gone"}}');
-- Of a change, an event, a schedule and a request, in every mode, with "if" and checks, and one topic for each value.
SELECT pb.flow('pb_paid', '{"when": {"change": "pb.orders"}, "mode": "transactional", "if": "new.status = ''paid''", "then": {"publish": "paid"},
    "set": {"order": "new.id", "amount": "new.total", "by": "job.op", "nothing": "NULL"}, "check": {"the amount is positive": "amount > 0"}}');
SELECT pb.flow('pb_each', '{"when": {"change": "pb.orders", "on": ["update"]}, "mode": "async", "then": {"publish": "order", "by": "id", "event": "Status changed"},
    "set": {"id": "new.id", "status": "new.status"}}');
SELECT pb.flow('pb_many', '{"when": {"change": "pb.orders", "on": ["insert"]}, "mode": "batch", "batch": {"size": 4, "window": "1h"}, "then": {"publish": "many/new-ones"}, "set": {"id": "new.id"}}');
SELECT pb.flow('pb_heard', '{"when": {"event": "pb.**"}, "then": {"publish": "events"}, "set": {"what": "event.data"}}');
SELECT pb.flow('pb_told', '{"when": {"event": "pb.**"}, "then": {"publish": "told"}}');
SELECT pb.flow('pb_asked', '{"from": "pb_shop", "to": "pb_people", "when": {"request": "tell"}, "then": {"publish": "asked"}, "set": {"text": "job.payload ->> ''text''"}}');
SELECT pb.flow('pb_clock', '{"when": {"schedule": "0 6 * * *"}, "then": {"publish": "clock"}, "set": {"at": "job.scheduled_at"}}');
SELECT pb.flow('pb_run', '{"from": "pb_shop", "to": "pb_people", "when": {"request": "run"}, "then": {"steps": [
    {"step": "begun", "publish": "runs", "event": "begun", "set": {"order": "run.input ->> ''order''"}}, {"step": "done", "publish": "runs", "by": "order", "set": {"order": "run.input ->> ''order''"}}]}}');
SELECT line FROM string_to_table(usher.explain_flow('pb_each'), E'\n') AS line WHERE line ~ '^flow|topic:|stored:|realtime.send';
SELECT pb.preview('pb_changes', '{"id": 7, "status": "paid"}');
SELECT pb.preview('pb_paid', '{"id": 7, "status": "paid", "total": 12.50}');
SELECT pb.preview('pb_paid', '{"id": 7, "status": "paid", "total": -1}');
SELECT pb.preview('pb_paid', '{"id": 7, "status": "open", "total": 1}');
SELECT pb.preview('pb_each', '{"id": 7, "status": "paid"}', '{"id": 7}');
SELECT pb.preview('pb_each', '{"status": "paid"}', '{"id": 7}');
SELECT pb.preview('pb_clock', '{"scheduled_at": "2026-01-01 06:00:00+00"}');
SELECT pb.preview('pb_told', '{"id": "00000000-0000-0000-0000-000000000001", "type": "pb.happened", "data": {"secret": 1}}');
SELECT count(*) AS previewed FROM realtime.messages;

-- In the writer's transaction, and gone with it.
BEGIN;
INSERT INTO pb.orders SELECT :'north', n, 'paid', n FROM generate_series(1, 3) AS n;
SELECT count(*) AS transactional, current_setting('realtime.topic', true) AS left_behind FROM realtime.messages;
ROLLBACK;
CALL public.drain() \gset
SELECT count(*) AS rolled_back FROM realtime.messages;
INSERT INTO pb.orders SELECT o, n, CASE WHEN n % 2 = 0 THEN 'paid' ELSE 'open' END, n - 2, 'not for everybody' FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(1, 4) AS n;
SELECT * FROM pb.messages;
UPDATE pb.orders SET status = 'sent' WHERE organization_id = :'north' AND id = 2;
UPDATE pb.orders SET status = status;
DELETE FROM pb.orders WHERE organization_id = :'south' AND id = 1;
INSERT INTO pb.plain VALUES ('a', 1), ('b', 2);
DELETE FROM pb.plain;
SELECT usher.emit_event('pb-south', 'pb.stopped', '{"why": "rain"}') IS NOT NULL AS emitted;
SELECT status FROM usher.enqueue_sync_job('pb-north', 'pb_shop', 'pb_people', '{"action": "tell", "text": "hello", "id": 5}');
SELECT status FROM usher.enqueue_sync_job('pb-south', 'pb_shop', 'pb_people', '{"action": "run", "order": 9}');
CALL public.drain() \gset
SELECT * FROM pb.messages;
-- A check that fails takes no other message along.
SELECT f.name, d.error_message, pb.named(d.organization_id::text) FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name LIKE 'pb\_%' ORDER BY 1, 2, 3;

-- What could not be sent is a dead letter with its reason, and no other job's fault.
DELETE FROM usher.dead_letters;
DELETE FROM realtime.messages;
SELECT pb.flow('pb_long', '{"when": {"change": "pb.orders", "on": ["update"]}, "then": {"publish": "notes", "by": "room"}, "set": {"room": "new.status", "note": "repeat(new.note, new.total::int)"}}');
UPDATE pb.orders SET note = 'note', status = CASE id WHEN 1 THEN NULL WHEN 2 THEN '' WHEN 3 THEN repeat('x', 300) ELSE 'hall' END, total = CASE id WHEN 4 THEN 800000 ELSE 1 END WHERE organization_id = :'north';
UPDATE pb.orders SET note = 'note', total = 1, status = 'hall' WHERE organization_id = :'south' AND id = 4;
CALL public.drain() \gset
SELECT * FROM pb.messages WHERE topic LIKE '%:notes%';
SELECT left(d.new ->> 'status', 5) AS room, d.error_message, d.sqlstate FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name = 'pb_long' ORDER BY d.seq;
-- By NOTIFY too: a key may be long.
CREATE TABLE pb.pages (name text PRIMARY KEY);
SELECT pb.flow('pb_pages', '{"when": {"change": "pb.pages"}, "organization": "''pb-north''", "then": {"publish": "pages", "via": "notify"}}');
INSERT INTO pb.pages SELECT CASE n WHEN 2 THEN repeat('x', 9000) ELSE n::text END FROM generate_series(1, 3) AS n;
CALL public.drain() \gset
SELECT j.status, j.error_message, count(*) FROM usher.sync_jobs j WHERE j.flow = 'pb_pages' GROUP BY 1, 2 ORDER BY 1, 2;

-- A row of no organization: nothing is sent, in the writer neither.
INSERT INTO pb.orders VALUES ('00000000-0000-0000-0000-00000000dead', 1, 'paid', 1);
CALL public.drain() \gset
SELECT count(*) FROM realtime.messages WHERE topic LIKE '00000000%';
SELECT f.name, d.error_message FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE d.organization_id = '00000000-0000-0000-0000-00000000dead' ORDER BY 1;

-- In shadow nothing is sent, and what would be is told.
SELECT usher.alter_flow('pb_each', '{"run_as": "regress_usher_pb", "shadow": true, "when": {"change": "pb.orders", "on": ["update"]}, "then": {"publish": "order", "by": "id"}, "set": {"id": "new.id"}}');
DELETE FROM realtime.messages;
UPDATE pb.orders SET note = 'seen' WHERE organization_id = :'north' AND id = 1;
CALL public.drain() \gset
SELECT count(*) AS sent FROM realtime.messages WHERE topic LIKE '%:order:%';
SELECT pb.named(r.would_write::text) AS would_write, r.failed FROM usher.shadow_results r JOIN usher.flows f ON f.id = r.flow_id WHERE f.name = 'pb_each';

-- Where Realtime has made no partition nobody is connected: it warns, and the job is done.
DO $$ BEGIN EXECUTE (SELECT string_agg(format('DROP TABLE %s', inhrelid::regclass), ';') FROM pg_inherits WHERE inhparent = 'realtime.messages'::regclass); END $$;
SELECT status FROM usher.enqueue_sync_job('pb-north', 'pb_shop', 'pb_people', '{"action": "tell", "text": "nobody hears"}');
SET client_min_messages = error;
CALL public.drain() \gset
RESET client_min_messages;
SELECT j.status, j.attempts, j.payload ->> 'text' AS text FROM usher.sync_jobs j WHERE j.flow = 'pb_asked' ORDER BY j.created_at;
SELECT realtime.make_partitions() IS NOT NULL AS made;

-- What Realtime takes away breaks the flow, loudly; what comes back mends it.
SELECT state, reason FROM usher.flows WHERE name = 'pb_asked';
ALTER FUNCTION realtime.send RENAME TO sends;
SELECT status FROM usher.enqueue_sync_job('pb-north', 'pb_shop', 'pb_people', '{"action": "tell", "text": "later"}');
SELECT state, reason FROM usher.flows WHERE name = 'pb_asked';
CALL public.drain() \gset
ALTER FUNCTION realtime.sends RENAME TO send;
SELECT state, reason FROM usher.flows WHERE name = 'pb_asked';
CALL public.drain() \gset
SELECT * FROM pb.messages WHERE topic LIKE '%:asked';

-- Refused, with the reason.
CREATE FUNCTION pb.refused(effect jsonb, more jsonb DEFAULT '{}') RETURNS SETOF text LANGUAGE sql AS
    $$ SELECT public.try(format('SELECT pb.flow(''pb_bad'', %L)', jsonb_build_object('when', '{"change": "pb.orders"}'::jsonb, 'then', effect) || more)) $$;
SELECT pb.refused('{"publish": ""}');
SELECT pb.refused('{"publish": "two words"}');
SELECT pb.refused('{"publish": "orders", "topic": "x"}');
SELECT pb.refused('{"publish": "orders", "private": false}');
SELECT pb.refused('{"publish": "orders", "via": "email"}');
SELECT pb.refused('{"publish": "orders", "event": ""}');
SELECT pb.refused(jsonb_build_object('publish', 'orders', 'event', repeat('x', 101)));
SELECT pb.refused('{"publish": "orders", "by": "room"}');
SELECT pb.refused('{"publish": "orders", "by": "room"}', '{"set": {"id": "new.id"}}');
SELECT pb.refused('{"publish": "a_topic_that_is_just_too_lo", "via": "notify"}');
SELECT pb.refused(jsonb_build_object('publish', repeat('x', 219)));
SELECT pb.refused('{"publish": "orders", "via": "notify"}', '{"set": {"id": "new.id"}}');
SELECT pb.refused('{"publish": "orders", "via": "notify", "by": "id"}');
SELECT pb.refused('{"publish": "orders", "via": "notify"}', '{"mode": "transactional"}');
SELECT pb.refused('{"publish": "orders"}', '{"check": {"open": "status = ''open''"}}');
SELECT pb.refused('{"publish": "orders"}', '{"link": {"kind": "a", "left": "new.id", "right": "id"}}');
SELECT pb.refused('{"publish": "orders"}', '{"coalesce": true}');
SELECT pb.refused('{"publish": "orders"}', '{"set": {"a": "new.nothing"}}');
SELECT pb.refused('{"publish": "orders"}', '{"set": {"organization_id": "new.organization_id"}}');
SELECT pb.refused('{"publsh": "orders"}');
SELECT pb.refused('{"publish": "orders", "emit": "a.b"}');
SELECT pb.refused('{"steps": [{"step": "a", "insert": "pb.plain", "event": "x", "set": {"n": "1"}}]}');

SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'pb\_%' AND name NOT LIKE '%.%' AND definition -> 'when' -> 'step' IS NULL;
CALL public.drain() \gset
DELETE FROM usher.dead_letters;
DELETE FROM usher.workflow_runs;
DELETE FROM usher.notices;
SET client_min_messages = warning;
DROP SCHEMA pb, realtime CASCADE;
DROP OWNED BY regress_usher_pb;
DROP ROLE regress_usher_pb;
