-- Making, changing, explaining and removing flows; and every definition that is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS shop, books CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_weak, regress_usher_other;
RESET client_min_messages;

CREATE SCHEMA shop;
CREATE SCHEMA books;
CREATE TABLE shop.orders (id integer PRIMARY KEY, customer_name text, total numeric(12,2), status text NOT NULL DEFAULT 'open', note text);
CREATE TABLE books.invoices (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id integer NOT NULL UNIQUE, customer text,
    amount numeric(12,2), gross numeric GENERATED ALWAYS AS (amount * 1.19) STORED);
CREATE TABLE books.deferred (id integer, CONSTRAINT deferred_id_key UNIQUE (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE books.tenant (organization_id uuid, id integer, v text, PRIMARY KEY (organization_id, id));
CREATE VIEW books.a_view AS SELECT 1 AS id;
CREATE FUNCTION books.note_order(order_id integer, what text) RETURNS void LANGUAGE sql AS '';
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_weak NOLOGIN;
CREATE ROLE regress_usher_other NOLOGIN;
GRANT regress_usher_weak TO regress_usher_op;
GRANT USAGE ON SCHEMA shop, books TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA shop, books TO regress_usher_op;

SET ROLE regress_usher_op;
-- Orders become invoices.
SELECT usher.create_flow('invoice_from_order', $$ {
  "description": "a paid order becomes an invoice, once",
  "from": "shop", "to": "books", "mode": "realtime",
  "when":  {"change": "shop.orders", "on": ["insert", "update"]},
  "if":    "new.status = 'paid' AND old.status IS DISTINCT FROM 'paid'",
  "then":  {"insert": "books.invoices", "key": ["order_id"], "on_conflict": "keep"},
  "set":   {"order_id": "new.id", "customer": "new.customer_name", "amount": "new.total"},
  "check": {"amount is not negative": "amount >= 0"},
  "link":  {"kind": "order", "left": "new.id", "right": "id"} } $$);
SELECT name, pack, version, enabled, state, reason, run_as FROM usher.flows ORDER BY name;
SELECT name, kind FROM usher.systems WHERE name IN ('shop', 'books') ORDER BY name;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT usher.create_flow('invoice_from_order', '{}');
\echo :LAST_ERROR_SQLSTATE

INSERT INTO shop.orders VALUES (1, 'Ann', 10, 'paid'), (2, 'Bob', 20, 'open');
UPDATE shop.orders SET status = 'paid' WHERE id = 2;
UPDATE shop.orders SET note = 'again' WHERE id = 1;
SELECT flow, source_system, target_system, payload, priority, status, attempts FROM usher.sync_jobs ORDER BY created_at, payload::text;
SELECT usher.process_jobs();
SELECT order_id, customer, amount FROM books.invoices ORDER BY order_id;
SELECT flow, status, attempts, finished_at >= created_at AS finished FROM usher.sync_jobs ORDER BY created_at;
SELECT l.kind, l.left_id, l.left_system, l.right_system, l.flow, l.status, l.right_id = i.id::text AS is_the_invoice
  FROM usher.links l JOIN books.invoices i ON i.order_id::text = l.left_id ORDER BY l.left_id;

-- What it does, and what it would write.
\pset format unaligned
\pset tuples_only on
SELECT usher.explain_flow('invoice_from_order');
SELECT usher.preview_flow('invoice_from_order', '{"id": 7, "status": "paid", "customer_name": "Eve", "total": 7.50}') - 'id' - 'gross';
-- The condition does not hold.
SELECT usher.preview_flow('invoice_from_order', '{"id": 7, "status": "open"}');
SELECT usher.preview_flow('invoice_from_order', '{"id": 7, "status": "paid"}', '{"id": 7, "status": "paid"}');
-- The invoice is there.
SELECT usher.preview_flow('invoice_from_order', '{"id": 1, "status": "paid", "total": 1}');
SELECT usher.preview_flow('invoice_from_order', '{"id": 7, "status": "paid", "total": -1}');
\pset format aligned
\pset tuples_only off
SELECT usher.preview_flow('invoice_from_order', '{"id": 7, "status": "paid", "total": "much"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.preview_flow('invoice_from_order', '{"id": 7, "status": "paid"}', organization => 'nowhere');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS invoices FROM books.invoices;

-- Off: nothing is captured, what was captured waits.
INSERT INTO shop.orders VALUES (3, 'Cid', 30, 'paid');
SELECT usher.disable_flow('invoice_from_order');
SELECT usher.disable_flow('invoice_from_order');
INSERT INTO shop.orders VALUES (4, 'Dan', 40, 'paid');
SELECT usher.process_jobs();
SELECT payload->'new'->>'id' AS "order", status, waiting_for, attempts FROM usher.sync_jobs WHERE status <> 'synced' ORDER BY 1;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT usher.enable_flow('invoice_from_order');
SELECT usher.enable_flow('invoice_from_order');
CALL public.drain();
SELECT order_id FROM books.invoices ORDER BY 1;

-- A new version; a job that was made before runs by the old one.
INSERT INTO shop.orders VALUES (5, 'Eve', 50, 'paid');
SELECT usher.alter_flow('invoice_from_order', $$ {
  "from": "shop", "to": "books", "when": {"change": "shop.orders", "on": ["insert"]},
  "if": "new.status = 'paid'", "then": {"upsert": "books.invoices", "key": ["order_id"]},
  "set": {"order_id": "new.id", "customer": "upper(new.customer_name)", "amount": "new.total"}, "priority": "high"} $$);
INSERT INTO shop.orders VALUES (6, 'Fay', 60, 'paid');
CALL public.drain();
SELECT order_id, customer FROM books.invoices WHERE order_id >= 5 ORDER BY 1;
SELECT v.version, v.name, v.created_by FROM usher.flow_versions v WHERE v.name = 'invoice_from_order' ORDER BY 1;
-- A definition that is refused leaves the flow as it was.
SELECT usher.alter_flow('invoice_from_order', '{"when": {"change": "shop.orders"}, "then": {"insert": "books.invoices"}, "set": {"amuont": "1"}}');
\echo :LAST_ERROR_SQLSTATE
SELECT version, enabled, state FROM usher.flows WHERE name = 'invoice_from_order';
SELECT usher.alter_flow('invoice_form_order', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enable_flow('nothing_like_it');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.disable_flow('nothing_like_it');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.explain_flow('nothing_like_it');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.preview_flow('nothing_like_it', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.drop_flow('nothing_like_it');
\echo :LAST_ERROR_SQLSTATE

-- A dropped flow: no trigger, its pending jobs are cancelled, its history stays.
INSERT INTO shop.orders VALUES (7, 'Gus', 70, 'paid');
SELECT usher.drop_flow('invoice_from_order');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;
CALL public.drain();
SELECT payload->'new'->>'id' AS "order", flow, status, error_message FROM usher.sync_jobs WHERE status <> 'synced' ORDER BY 1;
SELECT count(*) AS invoices FROM books.invoices;

-- Also those that wait because it was off.
SELECT usher.create_flow('waiting', '{"when": {"change": "shop.orders"}, "then": {"insert": "books.invoices"}, "set": {"order_id": "new.id"}}');
INSERT INTO shop.orders VALUES (8, 'Hal', 80, 'open');
SELECT usher.disable_flow('waiting');
CALL public.drain() \gset
SELECT usher.drop_flow('waiting');
CALL public.drain() \gset
SELECT payload->'new'->>'id' AS "order", flow, status, error_message FROM usher.sync_jobs WHERE flow = 'waiting' ORDER BY 1;

-- Deleting the row of usher.flows does the same.
SELECT usher.create_flow('again', '{"when": {"change": "shop.orders", "on": ["insert", "update", "delete"]}, "then": {"delete": "books.invoices", "key": ["order_id"]}, "set": {"order_id": "old.id"}}');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;
DELETE FROM usher.flows WHERE name = 'again';
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;
-- Making and changing goes through the functions only.
INSERT INTO usher.flows (name, definition, run_as) VALUES ('mine', '{}', 'regress_usher_op');
\echo :LAST_ERROR_SQLSTATE
UPDATE usher.flows SET run_as = 'postgres';
\echo :LAST_ERROR_SQLSTATE

-- Several flows of one table share its triggers; one with a trigger_name has its own.
SELECT usher.create_flow('one', '{"when": {"change": "shop.orders", "on": ["insert"]}, "then": {"insert": "books.invoices"}, "set": {"order_id": "new.id"}}');
SELECT usher.create_flow('two', '{"when": {"change": "shop.orders"}, "then": {"insert": "books.invoices"}, "set": {"order_id": "new.id"}}');
SELECT usher.create_flow('three', '{"when": {"change": "shop.orders"}, "then": {"insert": "books.invoices"}, "set": {"order_id": "new.id"}, "trigger_name": "orders_to_books"}');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT usher.drop_flow(name) FROM usher.flows WHERE name IN ('one', 'two', 'three') ORDER BY name;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;

-- Refusals. The base is a definition that works; each line changes one thing in it.
SELECT usher.create_flow('taken', '{"from": "shop", "to": "books", "when": {"request": "note"}, "then": {"insert": "books.invoices"}, "set": {"order_id": "1"}}');
CREATE TEMPORARY TABLE refusal (n integer GENERATED ALWAYS AS IDENTITY, change jsonb, name text DEFAULT 'bad');
INSERT INTO refusal (change) VALUES
  -- keys and kinds
  ('{"wen": 1}'), ('{"whne": {}}'), ('{"when": null}'), ('{"when": {"change": "shop.orders", "no": ["insert"]}}'), ('{"when": {"changed": "shop.orders"}}'),
  ('{"when": {"change": "shop.orders", "on": ["insret"]}}'), ('{"when": {"change": "shop.orders", "on": []}}'),
  ('{"when": {"change": "shop.orders", "request": "x"}}'), ('{"when": "shop.orders"}'),
  ('{"then": {"insrt": "books.invoices"}}'), ('{"then": {"insert": "books.invoices", "kee": ["order_id"]}}'),
  ('{"mode": "realtme"}'), ('{"priority": "urgent"}'), ('{"on_error": "ignore"}'), ('{"retry": {"delay": [1]}}'), ('{"retry": {"delays": [-1]}}'),
  ('{"lock_timeout": "soon"}'), ('{"lock_timeout": 0}'), ('{"if": true}'), ('{"if": " "}'), ('{"set": "new.id"}'), ('{"set": {"order_id": null}}'),
  -- not there yet
  ('{"when": {"event": "x"}}'), ('{"when": {"schedule": "x"}}'), ('{"when": {"webhook": "x"}}'),
  ('{"then": {"send": "x"}}'), ('{"then": {"notify": "x"}}'), ('{"then": {"steps": []}}'),
  ('{"mode": "batch"}'),
  -- calls that leave the database, and what is kept of calls
  ('{"then": {"call": "books.note_order", "effect": "outside"}}'), ('{"then": {"call": "books.note_order", "keep_result": 1}}'),
  ('{"then": {"call": "books.note_order", "effect": "external"}, "mode": "transactional"}'),
  ('{"then": {"call": "books.note_order", "effect": "external"}, "shadow": true}'),
  ('{"timeout": "soon"}'), ('{"timeout": 0}'), ('{"timeout": "2h"}'),
  -- tables and functions
  ('{"when": {"change": "orders"}}'), ('{"when": {"change": "shop.oders"}}'), ('{"then": {"insert": "invoices"}}'), ('{"then": {"insert": "books.invoice"}}'),
  ('{"when": {"change": "books.a_view"}}'), ('{"then": {"insert": "usher.links"}}'), ('{"then": {"call": "note_order"}}'),
  ('{"then": {"call": "books.note_oder"}}'), ('{"then": {"call": "books.note_order"}, "set": {"order_id": "new.id", "waht": "''x''"}}'),
  -- columns
  ('{"set": {"order_id": "new.id", "amuont": "new.total"}}'), ('{"set": {"order_id": "new.idd"}}'), ('{"if": "new.statsu = ''paid''"}'),
  ('{"check": {"positive": "amont > 0"}}'), ('{"then": {"upsert": "books.invoices", "key": ["order_di"]}, "set": {"order_di": "1"}}'),
  ('{"then": {"upsert": "books.invoices", "key": ["order_id"]}, "link": {"kind": "o", "left": "new.idd", "right": "id"}}'),
  ('{"then": {"upsert": "books.invoices", "key": ["order_id"]}, "link": {"kind": "o", "left": "new.id", "right": "idd"}}'),
  ('{"then": {"upsert": "books.invoices", "key": ["order_id"]}, "link": {"kind": "o", "left": "new.id"}}'),
  ('{"link": {"kind": "o", "left": "new.id", "right": "id"}}'),
  ('{"join": {"t1": {"table": "books.tenant", "on": "t1.idd = new.id"}}}'), ('{"join": {"t1": {"table": "books.tennant", "on": "true"}}}'),
  ('{"join": {"new": {"table": "books.tenant", "on": "true"}}}'), ('{"join": {"t1": {"table": "books.tenant"}}}'),
  ('{"set": {"order_id": "new.id", "gross": "1"}}'),
  -- expressions
  ('{"set": {"order_id": "(SELECT 1)"}}'), ('{"if": "EXISTS (SELECT FROM shop.orders)"}'), ('{"set": {"order_id": "new.id, new.id"}}'),
  ('{"if": "true) OR (true"}'), ('{"if": "true) OR (true --"}'), ('{"set": {"order_id": "new.id; DROP TABLE shop.orders"}}'),
  ('{"set": {"order_id": "new.id FROM shop.orders"}}'), ('{"set": {"order_id": "new.id AS x"}}'), ('{"set": {"order_id": ""}}'),
  ('{"if": "new.total"}'), ('{"set": {"order_id": "new.total::"}}'), ('{"set": {"order_id": "no_such_function(new.id)"}}'),
  ('{"set": {"order_id": "$1"}}'), ('{"if": "count(*) > 1"}'), ('{"set": {"order_id": "new.status"}}'),
  -- parts that do not fit together
  ('{"set": {"order_id": "1", "organization_id": "1"}}'), ('{"set_once": {"customer": "1"}}'),
  ('{"then": {"upsert": "books.invoices"}}'), ('{"then": {"upsert": "books.invoices", "key": ["customer"]}}'),
  ('{"then": {"upsert": "books.invoices", "key": ["customer"]}, "set": {"customer": "new.status"}}'),
  ('{"then": {"upsert": "books.invoices", "key": ["order_id"]}, "set_once": {"order_id": "1"}}'),
  ('{"then": {"update": "books.invoices", "key": ["order_id"]}, "set": {"order_id": "1"}}'), ('{"then": {"update": "books.invoices"}}'), ('{"then": {"delete": "books.invoices"}}'),
  ('{"then": {"insert": "books.invoices", "on_conflict": "keep"}}'), ('{"then": {"insert": "books.invoices", "on_conflict": "update"}}'), ('{"set": {}}'),
  ('{"then": {"insert": "books.tenant", "key": ["organization_id", "id"]}, "set": {"id": "1"}}'),
  ('{"on_error": "abort"}'), ('{"mode": "transactional", "then": {"insert": "books.deferred"}, "set": {"id": "new.id"}}'),
  ('{"organization": "new.id"}'), ('{"organization": "lower(''x'')"}'), ('{"organization": "''nowhere''"}'),
  -- requests
  ('{"when": {"request": "x"}, "set": {"order_id": "1"}}'),   ('{"from": "shop", "to": "books", "when": {"request": "x"}, "trigger_name": "t", "set": {"order_id": "1"}}'),
  ('{"from": "shop", "to": "books", "when": {"request": "x"}, "mode": "transactional", "set": {"order_id": "1"}}'),
  ('{"from": "shop", "to": "books", "when": {"request": "x"}, "organization": "''default''", "set": {"order_id": "1"}}'),
  ('{"from": "shop", "to": "books", "when": {"request": "note"}, "set": {"order_id": "1"}}'),
  -- whose rights
  ('{"run_as": "regress_usher_nobody"}'), ('{"run_as": "regress_usher_other"}'), ('{"run_as": "postgres"}'), ('{"run_as": "regress_usher_weak"}');
INSERT INTO refusal (change, name) VALUES ('{}', 'Bad'), ('{}', 'bad flow'), ('{}', 'a.b.c'), ('{}', ''), ('{}', '1st'), ('{}', repeat('a', 64));

\pset format unaligned
\pset tuples_only on
SELECT CASE WHEN name = 'bad' THEN change::text ELSE quote_literal(name) END || E'\n  ' || string_agg(said, E'\n  ')
  FROM refusal CROSS JOIN LATERAL public.try(format('SELECT usher.create_flow(%L, %L)', name,
         '{"when": {"change": "shop.orders"}, "then": {"insert": "books.invoices"}, "set": {"order_id": "new.id"}}'::jsonb || change)) AS said
 GROUP BY n, name, change ORDER BY n;
\pset format aligned
\pset tuples_only off
SELECT usher.create_flow('bad', '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_flow('bad', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_flow('bad', '{"when": {"change": "shop.orders"}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_flow(NULL, '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_flow('bad', NULL);
\echo :LAST_ERROR_SQLSTATE
-- Nothing of a refused flow is left behind.
SELECT name FROM usher.flows ORDER BY name;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgfoid = 'usher.capture()'::regprocedure ORDER BY 1, 2;

-- A deferred check is fine for a flow that may refuse the writer, and for one that runs after the commit.
SELECT usher.create_flow('abort', '{"when": {"change": "shop.orders"}, "mode": "transactional", "on_error": "abort", "then": {"insert": "books.deferred"}, "set": {"id": "new.id"}}');
SELECT usher.create_flow('later', '{"when": {"change": "shop.orders"}, "then": {"insert": "books.deferred"}, "set": {"id": "new.id"}}');
-- A line comment ends with its line.
SELECT usher.create_flow('comment', '{"when": {"change": "shop.orders"}, "if": "new.id > 1 -- OR true", "then": {"insert": "books.deferred"}, "set": {"id": "new.id -- the order"}}');
INSERT INTO shop.orders VALUES (100);
CALL public.drain();
SELECT flow, status, error_message FROM usher.sync_jobs WHERE flow IN ('abort', 'later', 'comment') ORDER BY flow COLLATE "C", status;
SELECT id FROM books.deferred ORDER BY 1;

-- Of a condition that the worker must evaluate, the writer evaluates what it can: no job for rows that it rules out.
DELETE FROM books.deferred;
SELECT usher.create_flow('in_part', '{"when": {"change": "shop.orders", "on": ["insert"]}, "if": "new.id > 200 AND lower(new.customer_name) = ''eve'' AND new.status = ''paid''", "then": {"insert": "books.deferred"}, "set": {"id": "new.id"}}');
SELECT usher.create_flow('in_no_part', '{"when": {"change": "shop.orders", "on": ["insert"]}, "if": "new.id > 200 AND new.status = ''paid'' OR lower(new.customer_name) = ''nobody''", "then": {"insert": "books.deferred"}, "set": {"id": "new.id + 1000"}}');
SELECT name, line FROM unnest('{in_no_part,in_part}'::text[]) AS name, string_to_table(usher.explain_flow(name), E'\n') AS line WHERE line ~ '-- ';
SELECT usher.disable_flow(name) FROM unnest('{abort,later,comment}'::text[]) AS name;
INSERT INTO shop.orders (id, customer_name, status) VALUES (101, 'Eve', 'paid'), (201, 'Eve', 'paid'), (202, 'Ann', 'paid'), (203, 'Eve', 'open');
CALL public.drain();
SELECT flow, count(*) AS jobs FROM usher.sync_jobs WHERE flow LIKE 'in\_%' GROUP BY flow ORDER BY flow;
SELECT id FROM books.deferred ORDER BY 1;
RESET ROLE;
-- Flows that run as superuser are told of.
SELECT usher.create_flow('super', '{"when": {"change": "shop.orders"}, "then": {"insert": "books.deferred"}, "set": {"id": "new.id"}}');

DROP TABLE refusal;
SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows;
SET client_min_messages = warning;
DROP SCHEMA shop, books CASCADE;
DROP ROLE regress_usher_op, regress_usher_weak, regress_usher_other;
