-- A flow in shadow: live traffic, and nothing written.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS sh CASCADE;
DROP ROLE IF EXISTS regress_usher_sh, regress_usher_poor, regress_usher_reader, regress_usher_member;
CREATE SCHEMA sh;
CREATE TABLE sh.orders (id integer PRIMARY KEY, customer text, total numeric, status text DEFAULT 'open');
CREATE TABLE sh.invoices (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id integer UNIQUE, customer text, amount numeric(30,10) CHECK (amount < 1e15), secret text DEFAULT 'not for members');
CREATE TABLE sh.audit (invoice integer PRIMARY KEY, seen integer);
CREATE TABLE sh.notes (note text NOT NULL);
CREATE ROLE regress_usher_sh NOLOGIN;
CREATE ROLE regress_usher_poor NOLOGIN;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA sh TO regress_usher_sh, regress_usher_poor;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sh TO regress_usher_sh;
GRANT INSERT ON sh.notes TO regress_usher_poor;
SELECT usher.grant_membership('default', 'role:regress_usher_member', 'admin');
RESET client_min_messages;
CREATE FUNCTION sh.flow(more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT '{"from": "sh.left", "to": "sh.right", "run_as": "regress_usher_sh", "shadow": true, "retry": {"delays": []},
             "when": {"change": "sh.orders"}, "if": "new.status = ''paid''",
             "then": {"upsert": "sh.invoices", "key": ["order_id"]},
             "set": {"order_id": "new.id", "customer": "new.customer", "amount": "new.total"},
             "check": {"the amount is not negative": "amount >= 0"},
             "link": {"kind": "sh_order", "left": "new.id", "right": "id"}}'::jsonb || more$$;
CREATE VIEW sh.jobs AS SELECT flow, payload -> 'new' ->> 'id' AS id, status, attempts, error_message FROM usher.sync_jobs WHERE flow LIKE 'sh%' ORDER BY created_at, id;
CREATE VIEW sh.results AS
    SELECT v.name AS flow, r.flow_version AS version, r.op, r.would_write, r.failed FROM usher.shadow_results r
      JOIN usher.flow_versions v ON v.flow_id = r.flow_id AND v.version = r.flow_version WHERE v.name LIKE 'sh%' ORDER BY r.id;

-- The key is checked like the others; without the right to read back what would be written there is no shadow.
SELECT public.try($$SELECT usher.create_flow('sh_bad', sh.flow('{"shadow": "yes"}'))$$);
SELECT public.try($$SELECT usher.create_flow('sh_bad', sh.flow() - 'shadow' || '{"shaddow": true}')$$);
SELECT public.try($$SELECT usher.create_flow('sh_bad', '{"run_as": "regress_usher_poor", "shadow": true, "when": {"change": "sh.orders"}, "then": {"insert": "sh.notes"}, "set": {"note": "new.customer"}}')$$);

-- Also a transactional flow runs after the commit.
SELECT usher.create_flow('sh_invoice', sh.flow('{"mode": "transactional", "on_error": "abort"}'));
SELECT line FROM string_to_table(usher.explain_flow('sh_invoice'), E'\n') AS line WHERE line ~ '^flow|mode|shadow:';
SELECT value FROM usher.status() WHERE section = 'flow' AND item = 'sh_invoice';
-- What the effect would start is undone as well.
SELECT usher.create_flow('sh_audit', '{"run_as": "regress_usher_sh", "when": {"change": "sh.invoices"}, "then": {"upsert": "sh.audit", "key": ["invoice"]}, "set": {"invoice": "new.id", "seen": 1}}');
SELECT usher.create_flow('sh_audit_now', '{"run_as": "regress_usher_sh", "mode": "transactional", "when": {"change": "sh.invoices"}, "then": {"insert": "sh.notes"}, "set": {"note": "new.customer"}}');
SELECT * FROM usher.shadow_report('sh_invoice');
INSERT INTO sh.orders VALUES (1, 'Ada', 12345678901234.0123456789, 'paid'), (2, 'Bob', -1, 'paid'), (3, 'Cy', 30, 'open'), (4, 'Dan', 1e16, 'paid');
UPDATE sh.orders SET total = 11 WHERE id = 1;
SELECT count(*) AS written_with_the_writer FROM sh.invoices;
SELECT fallback, count(*) FROM usher.ready_jobs GROUP BY 1;
CALL public.drain() \gset
SELECT * FROM sh.jobs;
SELECT * FROM sh.results;
SELECT (SELECT count(*) FROM sh.invoices) AS invoices, (SELECT count(*) FROM sh.audit) AS audit, (SELECT count(*) FROM sh.notes) AS notes,
       (SELECT count(*) FROM usher.links WHERE kind = 'sh_order') AS links, (SELECT count(*) FROM usher.ready_jobs) AS queued,
       (SELECT count(*) FROM usher.queue_waiting) AS waiting, (SELECT count(*) FROM usher.dead_letters) AS dead;
SELECT version, outcome, jobs, last_at IS NOT NULL AS happened, regexp_replace(message, 'job .*', 'JOB)') AS message FROM usher.shadow_report('sh_invoice');
-- The job's own answer says it, too.
SELECT status, error_message FROM usher.wait_for((SELECT id FROM usher.sync_jobs WHERE flow = 'sh_invoice' AND payload -> 'new' ->> 'id' = '4'), '0 s');

-- A row that is there already would not be touched: nothing would change.
INSERT INTO sh.invoices (order_id, customer, amount) VALUES (1, 'Ada', 11);
CALL public.drain() \gset
UPDATE sh.orders SET status = 'paid ' WHERE id = 1;
UPDATE sh.orders SET status = 'paid' WHERE id = 1;
UPDATE sh.orders SET customer = 'Eve' WHERE id = 1;
CALL public.drain() \gset
SELECT op, would_write, failed FROM sh.results OFFSET 4;
SELECT customer, amount FROM sh.invoices;

-- Updates, deletes, plain inserts; a condition that the worker evaluates.
SELECT usher.alter_flow('sh_invoice', sh.flow() - 'link' - 'if' || '{"if": "lower(new.customer) = ''eve''", "check": {}, "then": {"update": "sh.invoices", "key": ["order_id"]}, "set": {"order_id": "new.id", "customer": "''Z''"}}');
UPDATE sh.orders SET total = total + 1 WHERE id IN (1, 3);
CALL public.drain() \gset
SELECT usher.alter_flow('sh_invoice', sh.flow() - 'link' - 'check' - 'if' || '{"then": {"delete": "sh.invoices", "key": ["order_id"]}, "set": {"order_id": "old.id"}, "when": {"change": "sh.orders", "on": ["delete"]}}');
DELETE FROM sh.orders WHERE id = 1;
CALL public.drain() \gset
SELECT usher.alter_flow('sh_invoice', sh.flow() - 'link' - 'check' || '{"then": {"insert": "sh.notes"}, "set": {"note": "new.customer"}}');
INSERT INTO sh.orders VALUES (5, 'Fay', 1, 'paid'), (6, NULL, 1, 'paid');
CALL public.drain() \gset
SELECT version, op, would_write, failed FROM sh.results WHERE version > 1;
SELECT (SELECT count(*) FROM sh.invoices) AS invoices, (SELECT count(*) FROM sh.notes) AS notes;

-- What the target checks only at COMMIT is found, and so is a trigger that goes wrong.
CREATE TABLE sh.late (order_id integer PRIMARY KEY, customer text, CONSTRAINT late_order FOREIGN KEY (order_id) REFERENCES sh.invoices (order_id) DEFERRABLE INITIALLY DEFERRED);
GRANT SELECT, INSERT, UPDATE ON sh.late TO regress_usher_sh;
SELECT usher.alter_flow('sh_invoice', sh.flow() - 'link' - 'check' || '{"then": {"insert": "sh.late"}, "set": {"order_id": "new.id", "customer": "new.customer"}}');
INSERT INTO sh.orders VALUES (1, 'Ada', 1, 'paid'), (20, 'Nobody', 1, 'paid');
CALL public.drain() \gset
SELECT would_write, failed FROM sh.results WHERE version = 5;
SELECT count(*) AS late FROM sh.late;

-- A call is made and undone; the jobs that it asks for are undone as well.
CREATE FUNCTION sh.take(customer text, total numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sh.notes VALUES (customer || '; ' || (SELECT count(*) FROM sh.notes));
    PERFORM usher.enqueue_sync_job('default', 'sh.left', 'sh.right', '{"action": "sh_more"}');
    PERFORM 1 / total;
END$$;
GRANT usher_member TO regress_usher_sh;
SELECT usher.create_flow('sh_more', '{"from": "sh.left", "to": "sh.right", "when": {"request": "sh_more"}, "run_as": "regress_usher_sh", "then": {"insert": "sh.notes"}, "set": {"note": "''more''"}}');
SELECT usher.alter_flow('sh_invoice', sh.flow() - 'link' || '{"check": {"there is a customer": "customer <> ''''"}, "then": {"call": "sh.take"}, "set": {"customer": "new.customer", "total": "new.total"}}');
INSERT INTO sh.orders VALUES (7, 'Gus', 7, 'paid'), (8, 'Hal', 0, 'paid'), (9, '', 9, 'paid');
CALL public.drain() \gset
SELECT op, would_write, failed FROM sh.results WHERE version = 6;
SELECT count(*) AS notes FROM sh.notes;
SELECT count(*) AS asked FROM usher.sync_jobs WHERE flow = 'sh_more';
-- A request in shadow.
SELECT usher.alter_flow('sh_more', usher.export_flows() -> 'flows' -> 'sh_more' -> 'definition' || '{"shadow": true}');
SELECT status FROM usher.enqueue_sync_job('default', 'sh.left', 'sh.right', '{"action": "sh_more"}');
CALL public.drain() \gset
SELECT op, would_write, failed FROM sh.results WHERE flow = 'sh_more';

-- From shadow to live: what was captured in shadow stays so, what comes now is written.
SELECT usher.alter_flow('sh_invoice', sh.flow());
INSERT INTO sh.orders VALUES (10, 'Ida', 10, 'paid');
SELECT usher.alter_flow('sh_invoice', sh.flow('{"shadow": false}'));
INSERT INTO sh.orders VALUES (11, 'Jo', 11, 'paid');
CALL public.drain() \gset
SELECT id, status, error_message FROM sh.jobs WHERE id IN ('10', '11') ORDER BY id;
SELECT order_id, customer FROM sh.invoices WHERE order_id > 9;
SELECT version, outcome, jobs FROM usher.shadow_report('sh_invoice') WHERE version > 6;
-- And back, also for jobs that waited for a flow that was broken: they run as they were made.
SELECT usher.alter_flow('sh_invoice', sh.flow());
INSERT INTO sh.orders VALUES (12, 'Kim', 12, 'paid');
SELECT usher.alter_flow('sh_invoice', sh.flow('{"shadow": false}'));
INSERT INTO sh.orders VALUES (13, 'Lea', 13, 'paid');
ALTER TABLE sh.invoices RENAME COLUMN customer TO client;
SET client_min_messages = error;
CALL public.drain() \gset
RESET client_min_messages;
SELECT waiting_for, count(*) FROM usher.sync_jobs WHERE flow = 'sh_invoice' AND status = 'pending' GROUP BY 1;
SELECT usher.alter_flow('sh_invoice', sh.flow('{"set": {"order_id": "new.id", "client": "new.customer", "amount": "new.total"}}'));
CALL public.drain() \gset
-- What was to be written is not written by a definition on trial: it is kept, and says so.
SELECT order_id, client FROM sh.invoices WHERE order_id > 11;
SELECT error_message FROM usher.dead_letters WHERE new ->> 'id' = '13';
SELECT version, would_write -> 0 ->> 'client' AS client FROM sh.results WHERE version > 7;

-- A flow in shadow that waits holds back nobody: a live one from the same table to the same target goes on.
SELECT usher.create_flow('sh_live', sh.flow('{"shadow": false, "set": {"order_id": "new.id", "client": "new.customer"}, "check": {}}') - 'link');
SELECT usher.disable_flow('sh_invoice');
CREATE PROCEDURE sh.job(flow text) LANGUAGE sql AS $$
    INSERT INTO usher.jobs (seq, row_key, id, organization_id, created_at, flow_id, flow_version, lane, hop, op, new)
    SELECT nextval('usher.queue_seq'), 1, usher.uuid_v7(), o.id, now(), f.id, f.version, 3, 0, 'I', '{"id": 14, "customer": "Mo", "total": 1, "status": "paid"}'
      FROM usher.organizations o, usher.flows f WHERE o.slug = 'default' AND f.name = flow$$;
CALL sh.job('sh_invoice');
CALL public.drain() \gset
CALL sh.job('sh_live');
CALL public.drain() \gset
SELECT flow, status, waiting_for FROM usher.sync_jobs WHERE payload -> 'new' ->> 'id' = '14' AND flow LIKE 'sh%' ORDER BY 1;
SELECT usher.drop_flow('sh_live');

-- Who may look. The rows may show what a member may not see.
SET ROLE regress_usher_member;
SELECT count(*) FROM usher.shadow_results;
\echo :LAST_ERROR_SQLSTATE
SELECT public.try($$SELECT usher.shadow_report('sh_invoice')$$);
SELECT count(*) > 0 AS sees_jobs FROM usher.sync_jobs WHERE error_message LIKE 'shadow: nothing was written%';
SET ROLE regress_usher_reader;
SELECT count(*) > 0 AS reads FROM usher.shadow_results;
SELECT count(*) > 0 AS reads FROM usher.shadow_report('sh_invoice');
SELECT public.try($$SELECT usher.shadow_report('sh_nothing')$$);
SELECT public.try($$SELECT usher.shadow_report(NULL)$$);
RESET ROLE;

SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'sh%';
CALL public.drain() \gset
DELETE FROM usher.shadow_results;
DELETE FROM usher.queue_waiting;
DELETE FROM usher.links WHERE kind = 'sh_order';
DELETE FROM usher.systems WHERE name LIKE 'sh.%';
DELETE FROM usher.notices;
SELECT usher.revoke_membership('default', 'role:regress_usher_member');
SET client_min_messages = warning;
DROP SCHEMA sh CASCADE;
DROP OWNED BY regress_usher_sh, regress_usher_poor;
DROP ROLE regress_usher_sh, regress_usher_poor, regress_usher_reader, regress_usher_member;
