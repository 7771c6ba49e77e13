-- Flows as a document: written out, compared, applied all or none; versions and the way back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS tr CASCADE;
DROP ROLE IF EXISTS regress_usher_tr, regress_usher_op, regress_usher_member;
CREATE SCHEMA tr;
CREATE TABLE tr.a (id integer PRIMARY KEY, v integer);
CREATE TABLE tr.b (id integer PRIMARY KEY, v integer, w integer);
CREATE ROLE regress_usher_tr NOLOGIN;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator, regress_usher_tr;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA tr TO regress_usher_tr;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tr TO regress_usher_tr;
SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows \gset
RESET client_min_messages;
SET ROLE regress_usher_op;
CREATE FUNCTION pg_temp.copy(more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT '{"run_as": "regress_usher_tr", "when": {"change": "tr.a"}, "then": {"upsert": "tr.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}}'::jsonb || more$$;
-- A document with flows by name.
CREATE FUNCTION pg_temp.flows(VARIADIC parts jsonb[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('format', 1, 'flows', COALESCE((SELECT jsonb_object_agg(p ->> 'name', p - 'name') FROM unnest(parts) AS p), '{}'))$$;
CREATE FUNCTION pg_temp.part(name text, definition jsonb, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('name', name, 'definition', definition) || more$$;

SELECT usher.export_flows();
SELECT usher.create_flow('tr_one', pg_temp.copy());
SELECT usher.create_flow('tr_two', pg_temp.copy('{"set": {"id": "new.id", "w": "new.v"}, "check": {"w is small": "w < 100"}}'));
SELECT usher.disable_flow('tr_two');
-- The order is always the same: two exports differ only where the flows do.
SELECT jsonb_pretty(usher.export_flows());
SELECT usher.export_flows()::text = usher.export_flows()::text AS stable;
SELECT usher.export_flows() AS document \gset
SELECT * FROM usher.apply_flows(:'document');

-- Everything at once. A dry run does it all and leaves nothing.
SELECT pg_temp.flows(
    pg_temp.part('tr_one', pg_temp.copy('{"mode": "async", "when": {"change": "tr.a", "on": ["insert"]}, "link": {"kind": "tr", "left": "new.id", "right": "id"}}')),
    pg_temp.part('tr_two', pg_temp.copy('{"set": {"id": "new.id", "w": "new.v"}, "check": {"w is small": "w < 100"}}')),
    pg_temp.part('tr_new', pg_temp.copy('{"from": "tr_left", "to": "tr_right"}')),
    pg_temp.part('tr_off', pg_temp.copy(), '{"enabled": false, "pack": null}')) AS wanted \gset
SELECT * FROM usher.apply_flows(:'wanted', dry_run => true, remove_missing => true);
SELECT usher.export_flows() = :'document'::jsonb AS untouched;
SELECT count(*) AS systems FROM usher.systems WHERE name LIKE 'tr%';
SELECT tgname FROM pg_trigger WHERE tgrelid = 'tr.a'::regclass ORDER BY 1;
RESET ROLE;
INSERT INTO tr.a VALUES (1, 1);
SELECT flow, count(*) FROM usher.sync_jobs WHERE status = 'pending' GROUP BY 1;
SET ROLE regress_usher_op;
SELECT * FROM usher.apply_flows(:'wanted');
SELECT name, version, enabled, run_as FROM usher.flows ORDER BY name;
SELECT flow, change FROM usher.apply_flows(:'wanted');
-- What the document does not name stays, unless that is asked for.
SELECT pg_temp.flows(pg_temp.part('tr_one', pg_temp.copy())) AS fewer \gset
SELECT flow, change FROM usher.apply_flows(:'fewer');
SELECT flow, change, difference FROM usher.apply_flows(:'fewer', remove_missing => true);
SELECT string_agg(name, ', ') AS left_over FROM usher.flows;

-- All or none: the first flow is right, the second is not.
SELECT line AS refused FROM (VALUES
    (1, pg_temp.flows(pg_temp.part('tr_fine', pg_temp.copy()), pg_temp.part('tr_wrong', pg_temp.copy('{"set": {"id": "new.id", "v": "new.vv"}}')))),
    (2, pg_temp.flows(pg_temp.part('tr_one', pg_temp.copy('{"then": {"upsert": "tr.nothing", "key": ["id"]}}')), pg_temp.part('tr_fine', pg_temp.copy()))),
    (3, pg_temp.flows(pg_temp.part('tr_fine', pg_temp.copy()), pg_temp.part('tr_wrong', pg_temp.copy('{"run_as": "nobody_at_all"}')))),
    (4, pg_temp.flows(pg_temp.part('tr_fine', pg_temp.copy()), pg_temp.part('tr_wrong', pg_temp.copy('{"shedule": 1}')))),
    (5, pg_temp.flows(pg_temp.part('tr_Bad Name', pg_temp.copy()))),
    (6, pg_temp.flows(pg_temp.part('tr_fine', pg_temp.copy(), '{"enabeld": true}'))),
    (7, pg_temp.flows(pg_temp.part('tr_fine', pg_temp.copy(), '{"enabled": "on"}'))),
    (8, pg_temp.flows(pg_temp.part('live_events.create_event', pg_temp.copy(), '{"pack": "live_events"}'))),
    (9, '{"flows": {}}'), (10, '{"format": 2, "flows": {}}'), (11, '{"format": 1, "flow": {}}'), (12, '[]'), (13, 'null'), (14, '{"format": 1, "flows": {"tr_x": {}}}')) AS d (n, document)
  CROSS JOIN LATERAL (SELECT n || ': ' || string_agg(said, E'\n') AS line FROM public.try(format('SELECT * FROM usher.apply_flows(%L)', document)) AS said) AS x ORDER BY n;
SELECT public.try('SELECT * FROM usher.apply_flows(NULL)');
SELECT public.try(format('SELECT * FROM usher.apply_flows(%L, dry_run => true)', pg_temp.flows(pg_temp.part('tr_wrong', pg_temp.copy('{"set": {"id": "new.id", "v": "new.vv"}}')))));
SELECT name, version FROM usher.flows;
-- A request moves from one flow to another in one go: what goes makes room for what comes.
SELECT flow, change FROM usher.apply_flows(pg_temp.flows(pg_temp.part('tr_pay', '{"from": "tr_left", "to": "tr_right", "run_as": "regress_usher_tr", "when": {"request": "pay"}, "then": {"insert": "tr.b"}, "set": {"id": "1"}}'::jsonb)), remove_missing => true);
SELECT flow, change FROM usher.apply_flows(pg_temp.flows(pg_temp.part('tr_a_pay', '{"from": "tr_left", "to": "tr_right", "run_as": "regress_usher_tr", "when": {"request": "pay"}, "then": {"insert": "tr.b"}, "set": {"id": "2"}}'::jsonb)), remove_missing => true);

-- The flows of a pack are its own.
RESET ROLE;
SET client_min_messages = warning;
SELECT usher.install_pack('live_events') IS NOT NULL AS installed;
SET ROLE regress_usher_op;
SELECT count(*) AS without_packs FROM jsonb_object_keys(usher.export_flows() -> 'flows');
SELECT count(*) > 5 AS with_packs FROM jsonb_object_keys(usher.export_flows(packs => true) -> 'flows');
SELECT DISTINCT value ->> 'pack' AS pack FROM jsonb_each(usher.export_flows(packs => true) -> 'flows') ORDER BY 1;
SELECT flow, change FROM usher.apply_flows('{"format": 1, "flows": {}}', remove_missing => true);
SELECT count(*) > 5 AS packs_stay FROM usher.flows WHERE pack = 'live_events';
SELECT change, count(*) > 5 AS all FROM usher.apply_flows(usher.export_flows(packs => true)) GROUP BY 1;
SELECT public.try(format('SELECT * FROM usher.apply_flows(%L)', usher.export_flows(packs => true) #- '{flows,live_events.create_event,pack}'));
SELECT flow, change, difference FROM usher.apply_flows(jsonb_set(usher.export_flows(packs => true), '{flows,live_events.create_event,enabled}', 'false')) WHERE change <> 'unchanged';
RESET ROLE;
SELECT usher.remove_pack('live_events') IS NOT NULL AS removed;
DROP SCHEMA IF EXISTS atlvs, compvss, gvteway, live_events CASCADE;
DROP OWNED BY usher_live_events;
DROP ROLE usher_live_events;
RESET client_min_messages;
SET ROLE regress_usher_op;

-- Versions.
SELECT usher.create_flow('tr_one', pg_temp.copy());
SELECT usher.alter_flow('tr_one', pg_temp.copy('{"mode": "async"}'));
SELECT usher.alter_flow('tr_one', pg_temp.copy('{"mode": "async", "set": {"id": "new.id", "w": "new.v"}}'));
SELECT version, created_at <= now() AS dated, created_by, run_as, difference FROM usher.flow_history('tr_one');
-- One back; then the one that is named.
SELECT usher.rollback_flow('tr_one');
SELECT version, difference FROM usher.flow_history('tr_one') LIMIT 1;
SELECT usher.rollback_flow('tr_one', 1);
SELECT definition = pg_temp.copy() AS as_it_began FROM usher.flows WHERE name = 'tr_one';
SELECT said FROM (VALUES (1, $$'tr_one', 5$$), (2, $$'tr_one', 9$$), (3, $$'tr_one', 0$$), (4, $$'tr_one', -1$$), (5, $$'tr_onne'$$), (6, 'NULL')) AS c (n, arguments)
  CROSS JOIN LATERAL public.try(format('SELECT usher.rollback_flow(%s)', arguments)) AS said ORDER BY n;
SELECT usher.create_flow('tr_single', pg_temp.copy());
SELECT public.try($$SELECT usher.rollback_flow('tr_single')$$);
-- Checked against the tables of today.
RESET ROLE;
ALTER TABLE tr.b DROP COLUMN w;
SET ROLE regress_usher_op;
SELECT public.try($$SELECT usher.rollback_flow('tr_one', 3)$$);
SELECT version FROM usher.flows WHERE name = 'tr_one';
-- A flow that was dropped has its history still; one that never was has none.
SELECT usher.drop_flow('tr_single');
SELECT version, run_as FROM usher.flow_history('tr_single');
SELECT public.try($$SELECT usher.rollback_flow('tr_single')$$);
SELECT public.try($$SELECT usher.flow_history('tr_never')$$);
SELECT public.try('SELECT usher.flow_history(NULL)');

-- For operators only.
SET ROLE regress_usher_member;
SELECT call, said FROM (VALUES ('usher.export_flows()'), ('usher.apply_flows(''{}'')'), ('usher.flow_history(''tr_one'')'), ('usher.rollback_flow(''tr_one'')')) AS c (call)
  CROSS JOIN LATERAL public.try('SELECT ' || call) AS said WHERE said NOT LIKE '%HINT%' ORDER BY 1;
RESET ROLE;
GRANT EXECUTE ON FUNCTION usher.export_flows, usher.apply_flows, usher.flow_history, usher.rollback_flow TO regress_usher_member;
SET ROLE regress_usher_member;
SELECT call, said FROM (VALUES ('usher.export_flows()'), ('usher.apply_flows(''{}'')'), ('usher.flow_history(''tr_one'')'), ('usher.rollback_flow(''tr_one'')')) AS c (call)
  CROSS JOIN LATERAL public.try('SELECT ' || call) AS said ORDER BY 1, 2;
RESET ROLE;
SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'tr%';
CALL public.drain() \gset
DELETE FROM usher.systems WHERE name LIKE 'tr%';
SET client_min_messages = warning;
DROP SCHEMA tr CASCADE;
DROP OWNED BY regress_usher_member, regress_usher_op;
DROP ROLE regress_usher_tr, regress_usher_op, regress_usher_member;
