-- What feeds what, as an operator asks it; and how pairs of systems are doing, as members see it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ln CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_reader, regress_usher_member, regress_usher_stranger;
CREATE SCHEMA ln;
CREATE TABLE ln.orders (organization_id uuid, id integer, customer integer, net numeric, tax numeric, status text, note text, PRIMARY KEY (organization_id, id));
CREATE TABLE ln.customers (organization_id uuid, id integer, name text, vip boolean, PRIMARY KEY (organization_id, id));
CREATE TABLE ln.invoices (organization_id uuid, order_id integer, customer text, amount numeric, made_by text, PRIMARY KEY (organization_id, order_id));
CREATE TABLE ln."Odd ""name"" [1]" (organization_id uuid, "end" integer, "a-b" text, PRIMARY KEY (organization_id, "end"));
CREATE TABLE ln.pages (organization_id uuid, id integer, title text, cents integer, PRIMARY KEY (organization_id, id));
CREATE TABLE ln.copies (organization_id uuid, id integer, page integer, heading text, price numeric, made text, PRIMARY KEY (organization_id, id));
CREATE TABLE ln.steps (organization_id uuid, id integer, done text, PRIMARY KEY (organization_id, id));
CREATE TABLE ln.bookings (organization_id uuid, id integer, room integer, during tstzrange, PRIMARY KEY (organization_id, id));
CREATE TABLE ln.rooms (organization_id uuid, id integer, size integer, PRIMARY KEY (organization_id, id));
CREATE TABLE ln.alone (id integer PRIMARY KEY);
CREATE FUNCTION ln.work(id integer, label text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION ln.whole(payload jsonb) RETURNS void LANGUAGE sql AS '';
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
GRANT ALL ON SCHEMA ln TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA ln TO regress_usher_op;
SELECT usher.create_organization('ln-acme') AS acme \gset
SELECT usher.create_organization('ln-beta') AS beta \gset
SELECT usher.grant_membership('ln-acme', 'role:regress_usher_member') \g /dev/null
SELECT usher.grant_membership('ln-beta', 'role:regress_usher_stranger') \g /dev/null
SELECT usher.create_system(s) FROM unnest('{ln.shop,ln.books,ln.site}'::text[]) AS s \g /dev/null
SELECT usher.create_system('ln.outside', 'external') \g /dev/null
RESET client_min_messages;
SET ROLE regress_usher_op;
\o /dev/null
SELECT usher.create_flow('ln_invoice', '{"from": "ln.shop", "to": "ln.books", "when": {"change": "ln.orders", "on": ["insert", "update", "delete"]}, "mode": "transactional",
    "if": "new.status = ''paid'' AND old.note IS NULL", "join": {"c": {"table": "ln.customers", "on": "c.id = new.customer AND c.vip"}},
    "then": {"upsert": "ln.invoices", "key": ["order_id"]}, "set": {"order_id": "COALESCE(new.id, old.id)", "customer": "c.name || new.note", "amount": "new.net + new.tax"},
    "set_once": {"made_by": "''usher''"}, "check": {"positive": "amount > 0"}, "link": {"kind": "invoice", "left": "new.id", "right": "order_id"}}');
SELECT usher.create_flow('ln_odd', '{"from": "ln.books", "to": "ln.site", "mode": "async", "when": {"change": "ln.invoices"}, "then": {"insert": "ln.\"Odd \"\"name\"\" [1]\""},
    "set": {"end": "new.order_id", "a-b": "new.made_by"}}');
SELECT usher.create_flow('ln_back', '{"when": {"change": "ln.\"Odd \"\"name\"\" [1]\""}, "then": {"update": "ln.orders", "key": ["id"]}, "set": {"id": "new.\"end\"", "note": "new.\"a-b\""}}');
SELECT usher.create_flow('ln_tell', '{"when": {"change": "ln.orders"}, "if": "new.status = ''late''", "then": {"emit": "ln.orders.late"}, "set": {"order": "new.id", "row": "to_jsonb(new)"}}');
SELECT usher.create_flow('ln_hear', '{"when": {"event": "ln.**"}, "mode": "batch", "batch": {"size": 10, "window": "1s"}, "then": {"call": "ln.work"}, "set": {"id": "(event.data ->> ''order'')::integer", "label": "event.type"}}');
SELECT usher.create_flow('ln_on', '{"when": {"event": "ln.orders.late"}, "then": {"emit": "ln.orders.urgent"}, "set": {"all": "event.data"}}');
SELECT usher.create_flow('ln_clock', '{"when": {"schedule": "0 6 * * *", "timezone": "Europe/Berlin"}, "then": {"call": "ln.whole"}}');
SELECT usher.create_flow('ln_asked', '{"from": "ln.shop", "to": "ln.site", "when": {"request": "refresh"}, "then": {"upsert": "ln.pages", "key": ["id"]},
    "set": {"id": "(job.payload ->> ''id'')::integer", "title": "job.payload ->> ''title''"}}');
SELECT usher.create_flow('ln_say', '{"when": {"change": "ln.pages"}, "mode": "async", "then": {"publish": "pages", "via": "notify"}}');
SELECT usher.create_flow('ln_gone', '{"when": {"change": "ln.pages", "on": ["delete"]}, "then": {"delete": "ln.steps", "key": ["id"]}, "set": {"id": "old.id"}}');
SELECT usher.create_flow('ln_pair', '{"from": "ln.site", "to": "ln.books", "when": {"change": "ln.pages", "on": ["insert", "update", "delete"]}, "link": {"kind": "page", "left": "new.id", "right": "id"},
    "then": {"merge": "ln.copies", "match": {"id": "page"}, "fields": {"title": {"right": "heading", "strategy": "latest"},
             "cents": {"right": "price", "to_right": "new.cents / 100.0", "to_left": "(new.price * 100)::integer", "strategy": "source"}},
             "new_right": {"id": "new.id", "page": "new.id", "made": "''merge''"}, "creates": "right"}}');
SELECT usher.create_flow('ln_way', '{"from": "ln.site", "to": "ln.site", "when": {"change": "ln.rooms"}, "set": {"room": "new.id"}, "then": {"steps": [
    {"step": "take", "insert": "ln.steps", "set": {"id": "(run.input ->> ''room'')::integer", "done": "p.title"}, "join": {"p": {"table": "ln.pages", "on": "p.id = (run.input ->> ''room'')::integer"}},
     "undo": {"delete": "ln.steps", "key": ["id"], "set": {"id": "(run.input ->> ''room'')::integer"}}},
    {"step": "hear", "wait": {"event": "ln.orders.urgent", "match": {"order": "run.input ->> ''room''"}}},
    {"step": "say", "emit": "ln.rooms.taken", "set": {"room": "run.input -> ''room''"}}]}}');
RESET ROLE;
SELECT usher.create_overlap_rule('ln_rooms', '{"table": "ln.bookings", "resource": ["room"], "period": ["during"], "where": "r.id > 0",
    "alternatives": {"table": "ln.rooms", "key": "id", "same": ["size"]}, "escalate_after": "1 h"}');
SELECT usher.create_subscription('ln.outside', '{"events": ["ln.orders.*"]}');
SELECT usher.disable_flow('ln_on');
\o

-- Everything, for readers, too.
SET ROLE regress_usher_reader;
SELECT kind, source_kind || ' ' || source AS source, target_kind || ' ' || target AS target, flow, mode, state, link FROM usher.lineage()
 WHERE concat(source, ' ', target, ' ', flow) LIKE '%ln%';
-- What is made of what.
SELECT l.flow, l.kind, l.source, f.key AS field, f.value AS made_of FROM usher.lineage() AS l, jsonb_each(l.fields) AS f WHERE l.flow LIKE 'ln\_%' ORDER BY l.flow COLLATE "C", l.kind, l.source COLLATE "C", f.key COLLATE "C";
SELECT flow, kind, source, uses FROM usher.lineage() WHERE uses IS NOT NULL AND flow LIKE 'ln\_%' ORDER BY flow COLLATE "C", kind, source COLLATE "C";

-- Up, down, and so far; circles end.
SELECT distance, source, target, flow FROM usher.lineage('ln.orders', 'downstream');
SELECT distance, source, target, flow FROM usher.lineage('ln.orders', 'downstream', 1);
SELECT distance, source, target, flow FROM usher.lineage('ln."Odd ""name"" [1]"', 'upstream', depth => 2);
SELECT distance, source, target, flow FROM usher.lineage('event:ln.orders.urgent');
-- A flow means both of its ends; nothing leads to or from this table.
SELECT distance, source, target, flow FROM usher.lineage('ln_asked', 'both', 1);
SELECT count(*) FROM usher.lineage('ln.alone');
SELECT source, target, flow FROM usher.lineage(system => 'ln.books');
SELECT count(*) FROM usher.lineage(pack => 'ln');
SELECT said FROM public.try('SELECT * FROM usher.lineage(''ln.ordrs'')') AS said;
SELECT said FROM public.try('SELECT * FROM usher.lineage(''ln.orders'', ''down'')') AS said;
SELECT said FROM public.try('SELECT * FROM usher.lineage(''ln.orders'', depth => 0)') AS said;
SELECT said FROM public.try('SELECT * FROM usher.lineage(direction => ''upstream'')') AS said;
SELECT said FROM public.try('SELECT usher.lineage_diagram(''svg'')') AS said;
\pset format unaligned
\pset tuples_only on
SELECT usher.lineage_diagram('mermaid', 'ln_odd', 'both', 1);
SELECT usher.lineage_diagram('dot', 'ln_odd', 'both', 1);
\pset format aligned
\pset tuples_only off
RESET ROLE;

-- A column that is gone, a flow that is broken.
ALTER TABLE ln.invoices DROP COLUMN made_by;
SELECT flow, state, source, target, fields FROM usher.lineage('ln.invoices', depth => 1) WHERE flow LIKE 'ln\_%';
ALTER TABLE ln.invoices ADD COLUMN made_by text;
SELECT name, state FROM usher.flows WHERE name LIKE 'ln\_%' AND state <> 'ok';

-- Members: not what feeds what; of each pair of systems what is theirs.
SET ROLE regress_usher_member;
SELECT said FROM public.try('SELECT * FROM usher.lineage()') AS said;
SELECT said FROM public.try('SELECT usher.lineage_diagram()') AS said;
RESET ROLE;
SELECT usher.disable_flow('ln_odd') \g /dev/null
INSERT INTO ln.orders VALUES (:'acme', 1, 1, 10, 2, 'paid'), (:'beta', 1, 1, 10, 2, 'paid'), (:'beta', 2, 1, 10, 2, 'paid');
INSERT INTO ln.pages VALUES (:'acme', 1, 'one', 100), (:'acme', 2, 'two', 200), (:'acme', 3, 'three', 300), (:'beta', 4, 'four', 400);
CALL public.drain() \gset
-- Both sides change what nobody can decide.
SELECT usher.alter_flow('ln_pair', jsonb_set(definition, '{then,fields,title,strategy}', '"manual"')) FROM usher.flows WHERE name = 'ln_pair' \g /dev/null
UPDATE ln.pages SET title = 'uno' WHERE id = 1;
UPDATE ln.copies SET heading = 'eins' WHERE page = 1;
CALL public.drain() \gset
SELECT count(id) AS asked FROM usher.enqueue_sync_job('ln-beta', 'ln.site', 'ln.outside', '{}');
-- What must hold of both sides: who reads what, where bad rows end up, what mends them.
SET client_min_messages = error;
SELECT usher.create_rule('ln_copied', '{"query": "SELECT p.organization_id, p.id AS page FROM ln.pages p LEFT JOIN ln.copies c ON c.organization_id = p.organization_id AND c.page = p.id WHERE c.id IS NULL",
    "key": ["page"], "wrong": "''page '' || page || '' has no copy''", "every": "never", "touches": {"ln.pages": {"page": "row.id"}, "ln.copies": {"page": "row.page"}},
    "escalate": {"after": "1m", "emit": "ln.orders.late"},
    "repair": {"statement": "INSERT INTO ln.copies (organization_id, id, page) SELECT organization_id, page, page FROM bad"}}') \g /dev/null
SELECT usher.create_rule('ln_asks', '{"query": "SELECT organization_id, id FROM ln.pages WHERE cents < 0", "key": ["id"], "wrong": "''below''", "every": "never",
    "escalate": {"after": "1m", "notify": "see to it"}, "repair": {"flow": "ln_asked"}}') \g /dev/null
SELECT usher.create_rule('ln_calls', '{"query": "SELECT organization_id, id FROM ln.rooms WHERE size < 0", "key": ["id"], "wrong": "''below''", "every": "never",
    "repair": {"call": "ln.whole"}}') \g /dev/null
RESET client_min_messages;
SELECT kind, source, target, flow, state, uses FROM usher.lineage()
 WHERE kind IN ('check', 'violation', 'repair', 'notice') AND concat(flow, ' ', source) ~ 'ln_(copied|asks|calls)|usher.violations' OR flow = 'ln_copied';
-- Nobody carries it over.
SET usher.capture = off;
DELETE FROM ln.copies WHERE page IN (3, 4);
RESET usher.capture;
SELECT * FROM usher.check_rule('ln_copied');
SELECT usher.disable_rule('ln_calls') \g /dev/null
SELECT source, target, state FROM usher.lineage('ln.rooms', 'downstream', 1) WHERE flow = 'ln_calls';
SELECT from_system, to_system, flows, enabled, broken, pending, lag IS NOT NULL AS lags, dead_letters, last_synced_at > now() - interval '1 day' AS lately, linked, open_conflicts, rules, open_violations, consistency
  FROM usher.registry WHERE from_system LIKE 'ln.%';
SET ROLE regress_usher_member;
SELECT from_system, to_system, flows, pending, dead_letters, linked, open_conflicts, rules, open_violations, consistency FROM usher.registry WHERE from_system LIKE 'ln.%';
SET ROLE regress_usher_stranger;
SELECT from_system, to_system, flows, pending, dead_letters, linked, open_conflicts, rules, open_violations, consistency FROM usher.registry WHERE from_system LIKE 'ln.%';
RESET ROLE;

SET client_min_messages = warning;
\o /dev/null
SELECT usher.drop_flow(name) FROM usher.flows WHERE name LIKE 'ln\_%' AND strpos(name, ':') = 0;
SELECT usher.drop_overlap_rule('ln_rooms');
SELECT usher.drop_rule(name) FROM usher.rules WHERE name LIKE 'ln\_%';
SELECT usher.drop_subscription('ln.outside');
CALL public.drain();
DELETE FROM usher.queue_waiting;
DELETE FROM usher.dead_letters;
DELETE FROM usher.conflicts;
DELETE FROM usher.links WHERE kind IN ('page', 'invoice');
DELETE FROM usher.organizations WHERE slug LIKE 'ln-%';
DROP SCHEMA ln CASCADE;
DROP ROLE regress_usher_op, regress_usher_reader, regress_usher_member, regress_usher_stranger;
