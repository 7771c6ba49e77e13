-- Schema changes under running flows: broken at the statement, jobs wait, and go on when it fits again.
CREATE SCHEMA drift_shop;
CREATE SCHEMA drift_books;
CREATE TABLE drift_shop.orders (id integer PRIMARY KEY, customer text, total numeric, status text);
CREATE TABLE drift_books.invoices (order_id integer PRIMARY KEY, customer text, amount numeric);
CREATE FUNCTION drift_books.with_tax(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE ROLE regress_drift_flows NOLOGIN;
CREATE ROLE regress_drift_owner NOLOGIN;
GRANT USAGE ON SCHEMA drift_shop TO regress_drift_flows, regress_drift_owner;
GRANT USAGE, CREATE ON SCHEMA drift_shop TO regress_drift_owner;
GRANT USAGE ON SCHEMA drift_books TO regress_drift_flows;
GRANT SELECT ON drift_shop.orders TO regress_drift_flows;
GRANT SELECT, INSERT, UPDATE ON drift_books.invoices TO regress_drift_flows;
SELECT usher.create_system('drift_shop'), usher.create_system('drift_books');
SELECT usher.create_flow('drift_invoice', $$ {
  "from": "drift_shop", "to": "drift_books", "run_as": "regress_drift_flows",
  "when": {"change": "drift_shop.orders"}, "if": "new.status = 'paid'",
  "then": {"upsert": "drift_books.invoices", "key": ["order_id"]},
  "set": {"order_id": "new.id", "customer": "new.customer", "amount": "drift_books.with_tax(new.total)"} } $$);

-- What it stands on, from the catalog.
SELECT pg_describe_object(d.class, d.object, d.attnum) AS needs
  FROM usher.flow_dependencies d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name = 'drift_invoice'
 ORDER BY pg_describe_object(d.class, d.object, d.attnum) COLLATE "C";

-- 1. A renamed column: broken at once, jobs of before and of meanwhile follow the name and wait; renamed back, they go on.
INSERT INTO drift_shop.orders VALUES (1, 'Ada', 10, 'paid');
ALTER TABLE drift_shop.orders RENAME total TO amount;
SELECT state, reason FROM usher.flows WHERE name = 'drift_invoice';
INSERT INTO drift_shop.orders VALUES (2, 'Bob', 20, 'paid'), (3, 'Cy', 30, 'open');
SELECT usher.process_jobs() AS looked_at;
SELECT status, waiting_for, payload -> 'new' AS row FROM usher.sync_jobs WHERE flow = 'drift_invoice' ORDER BY payload -> 'new' ->> 'id';
ALTER TABLE drift_shop.orders RENAME amount TO total;
SELECT usher.process_jobs() AS done;
SELECT * FROM drift_books.invoices ORDER BY 1;
-- Renamed for good: the altered flow finds the value under its new name.
INSERT INTO drift_shop.orders VALUES (4, 'Di', 40, 'paid');
ALTER TABLE drift_shop.orders RENAME total TO amount;
SELECT usher.alter_flow('drift_invoice', $$ {
  "from": "drift_shop", "to": "drift_books", "run_as": "regress_drift_flows",
  "when": {"change": "drift_shop.orders"}, "if": "new.status = 'paid'",
  "then": {"upsert": "drift_books.invoices", "key": ["order_id"]},
  "set": {"order_id": "new.id", "customer": "new.customer", "amount": "drift_books.with_tax(new.amount)"} } $$);
SELECT usher.process_jobs() AS done;
SELECT * FROM drift_books.invoices WHERE order_id = 4;
-- What a transaction takes back was never broken.
ALTER TABLE drift_shop.orders ADD COLUMN other numeric;
INSERT INTO drift_shop.orders VALUES (5, 'Eve', 50, 'paid', 1);
BEGIN;
ALTER TABLE drift_shop.orders RENAME amount TO x;
SELECT state FROM usher.flows WHERE name = 'drift_invoice';
ROLLBACK;
SELECT state FROM usher.flows WHERE name = 'drift_invoice';
SELECT usher.process_jobs() AS done;

-- 2. A dropped column that comes back: what was captured without it is put aside with the remedy, never written as NULL.
ALTER TABLE drift_shop.orders DROP COLUMN customer;
INSERT INTO drift_shop.orders (id, amount, status) VALUES (6, 60, 'paid');
SELECT usher.process_jobs() AS looked_at;
INSERT INTO drift_shop.orders (id, amount, status) VALUES (7, 70, 'paid');
ALTER TABLE drift_shop.orders ADD COLUMN customer text;
SELECT usher.process_jobs() AS done;
SELECT status, error_message, payload -> 'new' AS row FROM usher.sync_jobs WHERE status = 'dead' ORDER BY payload -> 'new' ->> 'id';
SELECT (usher.retry_sync_job(d.id, '{"customer": "known later"}')).status FROM usher.dead_letters d;
SELECT usher.process_jobs() AS done;
SELECT * FROM drift_books.invoices WHERE order_id > 4 ORDER BY 1;

-- 3. A dropped function, a dropped unique index, a dropped target: each breaks it at the statement, and its return mends it.
DROP FUNCTION drift_books.with_tax;
CREATE FUNCTION drift_books.with_tax(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT n * 3';
ALTER TABLE drift_books.invoices DROP CONSTRAINT invoices_pkey;
INSERT INTO drift_shop.orders VALUES (8, 80, 'paid', 0, 'Fay');
SELECT usher.process_jobs() AS looked_at;
CREATE UNIQUE INDEX invoices_order ON drift_books.invoices (order_id);
SELECT usher.process_jobs() AS done;
DROP INDEX drift_books.invoices_order;
DROP TABLE drift_books.invoices;
CREATE TABLE drift_books.invoices (order_id integer PRIMARY KEY, customer text, amount numeric);
-- The role lost its rights with the table.
SELECT state, reason FROM usher.flows WHERE name = 'drift_invoice';
GRANT SELECT, INSERT, UPDATE ON drift_books.invoices TO regress_drift_flows;
INSERT INTO drift_shop.orders VALUES (9, 90, 'paid', 0, 'Gus');
SELECT usher.process_jobs() AS done;
SELECT * FROM drift_books.invoices;
-- A right that is taken away shows at the flow's next job: the job waits, it does not die.
REVOKE INSERT ON drift_books.invoices FROM regress_drift_flows;
INSERT INTO drift_shop.orders VALUES (12, 120, 'paid', 0, 'Jo');
SELECT usher.process_jobs() AS looked_at;
SELECT status, waiting_for FROM usher.sync_jobs WHERE flow = 'drift_invoice' AND payload -> 'new' ->> 'id' = '12';
GRANT INSERT ON drift_books.invoices TO regress_drift_flows;
SELECT usher.process_jobs() AS done;
SELECT * FROM drift_books.invoices;
ALTER SCHEMA drift_books RENAME TO drift_ledger;
ALTER SCHEMA drift_ledger RENAME TO drift_books;
ALTER TABLE drift_shop.orders RENAME TO sales;
ALTER TABLE drift_shop.sales RENAME TO orders;
INSERT INTO drift_shop.orders VALUES (10, 100, 'paid', 0, 'Hal');
SELECT usher.process_jobs() AS done;
SELECT count(*) AS invoices FROM drift_books.invoices;

-- 4. A migration tool that drops our triggers: they are back at once, whoever it is.
ALTER TABLE drift_shop.orders OWNER TO regress_drift_owner;
SET ROLE regress_drift_owner;
DROP TRIGGER usher_capture_insert ON drift_shop.orders;
DROP TRIGGER usher_statement ON drift_shop.orders;
-- The owner of a table is told that a flow broke, not what the flow says.
ALTER TABLE drift_shop.orders RENAME amount TO total;
ALTER TABLE drift_shop.orders RENAME total TO amount;
RESET ROLE;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'drift_shop.orders'::regclass AND NOT tgisinternal ORDER BY 1;
-- A new partition has its triggers from its first row on.
CREATE TABLE drift_shop.events (id integer, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE drift_books.days (id integer PRIMARY KEY, day date);
GRANT SELECT, INSERT ON drift_books.days TO regress_drift_flows;
SELECT usher.create_flow('drift_days', $$ {"from": "drift_shop", "to": "drift_books", "run_as": "regress_drift_flows",
  "when": {"change": "drift_shop.events", "on": ["insert"]}, "then": {"insert": "drift_books.days", "key": ["id"], "on_conflict": "keep"},
  "set": {"id": "new.id", "day": "new.day"}} $$);
CREATE TABLE drift_shop.events_2026 PARTITION OF drift_shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE drift_shop.events_2027 (LIKE drift_shop.events INCLUDING ALL);
ALTER TABLE drift_shop.events ATTACH PARTITION drift_shop.events_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
INSERT INTO drift_shop.events_2026 VALUES (1, '2026-06-01');
INSERT INTO drift_shop.events_2027 VALUES (2, '2027-06-01');
SELECT usher.process_jobs() AS done;
SELECT * FROM drift_books.days ORDER BY 1;
-- What flows do not use is nobody's business; a disabled flow's trigger does not come back.
ALTER TABLE drift_shop.orders ADD COLUMN note text;
CREATE TEMP TABLE unrelated (id integer);
DROP TABLE unrelated;
SELECT usher.disable_flow('drift_invoice');
SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid = 'drift_shop.orders'::regclass AND NOT tgisinternal;
-- The source goes: the flow is broken; it comes back: it listens again.
SELECT usher.enable_flow('drift_invoice');
DROP TABLE drift_shop.orders;
CREATE TABLE drift_shop.orders (id integer PRIMARY KEY, customer text, amount numeric, status text);
SELECT state FROM usher.flows WHERE name = 'drift_invoice';
GRANT SELECT ON drift_shop.orders TO regress_drift_flows;
INSERT INTO drift_shop.orders VALUES (11, 'Ida', 110, 'paid');
SELECT usher.process_jobs() AS done;
SELECT count(*) AS invoices FROM drift_books.invoices;

-- 5. No way leads to a NULL for a column that a job does not carry: not by another version than its own (the column was
-- renamed while no version used it), not by having been disabled while it was missing.
CREATE TABLE drift_shop.parts (id integer PRIMARY KEY, total numeric);
CREATE TABLE drift_books.parts (id integer PRIMARY KEY, amount numeric);
GRANT SELECT ON drift_shop.parts TO regress_drift_flows;
GRANT SELECT, INSERT, UPDATE ON drift_books.parts TO regress_drift_flows;
CREATE FUNCTION pg_temp.parts(amount text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT '{"from": "drift_shop", "to": "drift_books", "run_as": "regress_drift_flows", "when": {"change": "drift_shop.parts"},
             "then": {"upsert": "drift_books.parts", "key": ["id"]}, "set": {"id": "new.id"}}'::jsonb
           || CASE WHEN amount IS NULL THEN '{}' ELSE jsonb_build_object('set', jsonb_build_object('id', 'new.id', 'amount', amount)) END $$;
SELECT usher.create_flow('drift_parts', pg_temp.parts('new.total'));
INSERT INTO drift_shop.parts VALUES (1, 10);
SELECT usher.alter_flow('drift_parts', pg_temp.parts(NULL));
ALTER TABLE drift_shop.parts RENAME total TO amount;
SELECT usher.alter_flow('drift_parts', pg_temp.parts('new.amount'));
ALTER TABLE drift_shop.parts DROP COLUMN amount;
INSERT INTO drift_shop.parts VALUES (2);
SELECT usher.disable_flow('drift_parts');
SELECT usher.process_jobs() AS looked_at;
ALTER TABLE drift_shop.parts ADD COLUMN amount numeric;
SELECT usher.enable_flow('drift_parts');
SELECT usher.process_jobs() AS looked_at;
SELECT payload -> 'new' AS row, error_message FROM usher.sync_jobs WHERE flow = 'drift_parts' ORDER BY payload -> 'new' ->> 'id';
SELECT (usher.retry_sync_job(d.id)).status FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name = 'drift_parts' AND d.new ->> 'id' = '2';
SELECT usher.process_jobs() AS looked_at;
SELECT * FROM drift_books.parts;
SELECT usher.drop_flow('drift_parts');
DELETE FROM usher.dead_letters WHERE error_message LIKE 'it carries no amount%';

SELECT usher.drop_flow('drift_invoice'), usher.drop_flow('drift_days');
SELECT count(*) AS left FROM usher.flow_dependencies d WHERE NOT EXISTS (SELECT FROM usher.flows f WHERE f.id = d.flow_id);
SET client_min_messages = warning;
DROP SCHEMA drift_shop, drift_books CASCADE;
DROP OWNED BY regress_drift_flows, regress_drift_owner;
DROP ROLE regress_drift_flows, regress_drift_owner;
