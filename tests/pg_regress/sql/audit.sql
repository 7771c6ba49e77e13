-- Who did what: entries for rows and for acts, whose they are, and that nobody can change them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS au CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_writer, regress_usher_member, regress_usher_other, regress_usher_reader, regress_usher_worker;
RESET client_min_messages;
CREATE SCHEMA au;
CREATE TYPE au.mood AS ENUM ('calm', 'wild');
CREATE TABLE au.things (organization_id uuid, id integer, name text, price numeric, api_key text, mood au.mood, extra jsonb, at timestamptz,
    PRIMARY KEY (organization_id, id));
CREATE TABLE au.plain (a text, b text);
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_writer NOLOGIN;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_other NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_worker NOLOGIN;
GRANT USAGE ON SCHEMA au TO regress_usher_op, regress_usher_writer, regress_usher_worker;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON au.things, au.plain TO regress_usher_writer;
GRANT SELECT, INSERT, UPDATE ON au.things TO regress_usher_worker;
SELECT usher.create_organization('au-acme') AS acme \gset
SELECT usher.create_organization('au-beta') AS beta \gset
SELECT usher.grant_membership('au-acme', 'role:regress_usher_member'), usher.grant_membership('au-beta', 'role:regress_usher_other');
-- What was entered since the last look.
CREATE TEMPORARY TABLE seen AS SELECT id FROM usher.audit_log;
CREATE FUNCTION au.news() RETURNS TABLE (org text, actor text, role text, action text, object text, old jsonb, new jsonb, flow text)
    LANGUAGE sql AS $$
    WITH fresh AS (INSERT INTO seen SELECT l.id FROM usher.audit_log l WHERE l.id NOT IN (SELECT id FROM seen) RETURNING id)
    SELECT o.slug, l.actor, l.role, l.action, CASE WHEN l.object ~ '^[0-9a-f]{8}-' THEN 'ID' ELSE l.object END, l.old, l.new, l.flow
      FROM usher.audit_log l JOIN fresh USING (id) LEFT JOIN usher.organizations o ON o.id = l.organization_id ORDER BY l.id
$$;

-- Not every table, and not by everybody.
SELECT usher.audit_table(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.audit_table('usher.jobs');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.audit_table('usher.sync_jobs');
\echo :LAST_ERROR_SQLSTATE
CREATE VIEW au.view AS SELECT * FROM au.plain;
SELECT usher.audit_table('au.view');
\echo :LAST_ERROR_SQLSTATE
CREATE TEMPORARY TABLE passing (a text);
SELECT usher.audit_table('passing');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.audit_table('au.things', '{name,prise}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.audit_table('au.things', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.audit_table('au.things', '{NULL}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.unaudit_table('au.things');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_writer;
SELECT usher.audit_table('au.things');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_member;
SELECT usher.audit_table('au.things');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_op;
-- An operator who may not read a table cannot read it through the log either.
SELECT usher.audit_table('au.things');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT SELECT ON au.things, au.plain TO regress_usher_op;
SET ROLE regress_usher_op;
SELECT usher.audit_table('au.things', '{name,price,api_key,mood,extra,at,name}');
SELECT usher.audit_table('au.plain');
RESET ROLE;
SELECT * FROM au.news();

-- A writer needs no right in schema usher. Unchanged columns and rows are left out, secrets masked.
SET ROLE regress_usher_writer;
SET DateStyle = 'SQL, DMY';
INSERT INTO au.things VALUES (:'acme', 1, 'one', 1.10, 'k-123', 'calm', '{"a": 1}', '2030-01-02 03:04:05+00'), (:'beta', 2, 'two', NULL, NULL, NULL, NULL, NULL), (NULL, 3, 'x', 0, '', 'wild', '{}', NULL);
INSERT INTO au.things VALUES (:'acme', 1, 'one', 1.10, 'k-123', 'calm', '{"a": 1}', '2030-01-02 03:04:05+00'), (:'beta', 2, 'two', NULL, NULL, NULL, NULL, NULL);
RESET DateStyle;
UPDATE au.things SET price = price;
UPDATE au.things SET price = 1.1, api_key = 'k-456' WHERE id = 1;
UPDATE au.things SET id = id + 10 WHERE id = 1;
UPDATE au.things SET mood = 'wild', extra = NULL, name = name || '!';
DELETE FROM au.things WHERE id = 2;
INSERT INTO au.plain VALUES ('a', NULL);
TRUNCATE au.plain;
INSERT INTO au.things VALUES (:'beta', 4) ON CONFLICT DO NOTHING;
INSERT INTO au.things VALUES (:'beta', 4, 'again') ON CONFLICT (organization_id, id) DO UPDATE SET name = EXCLUDED.name;
-- Nothing happened, nothing is entered.
DELETE FROM au.things WHERE false;
RESET ROLE;
SELECT * FROM au.news();
SELECT count(*) FROM usher.audit_log WHERE old::text || new::text LIKE '%k-%';
-- What one transaction did belongs together.
BEGIN;
UPDATE au.things SET price = 7;
INSERT INTO au.plain VALUES ('b', 'c');
COMMIT;
UPDATE au.things SET price = 8;
SELECT count(*) AS entries, count(DISTINCT correlation_id) AS transactions FROM usher.audit_log JOIN (SELECT DISTINCT id FROM usher.audit_log EXCEPT SELECT id FROM seen) s USING (id);
SELECT action, object FROM au.news();
-- What was undone is not there.
BEGIN;
UPDATE au.things SET price = 9;
ROLLBACK;
SELECT * FROM au.news();
-- Inside a function with another role's rights it is still the caller's doing.
CREATE FUNCTION au.raise() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE au.things SET price = price + 1 WHERE id = 4';
SET ROLE regress_usher_writer;
SELECT au.raise();
SET usher.user_id = 'somebody';
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SET usher.user_id = 'ann';
SET ROLE regress_usher_writer;
UPDATE au.things SET price = 1 WHERE id = 4;
RESET ROLE;
RESET usher.user_id;
SELECT actor, role, action, old, new FROM au.news();

-- A flow's doing: by its jobs, one by one or many in one statement, in a worker or in the writer's transaction.
CREATE TABLE au.source (organization_id uuid, id integer, v text, PRIMARY KEY (organization_id, id));
CREATE TABLE au.direct (organization_id uuid, id integer, v text, PRIMARY KEY (organization_id, id));
SELECT usher.create_flow('au_copy', '{"run_as": "regress_usher_worker", "from": "au", "to": "au", "when": {"change": "au.source"}, "then": {"upsert": "au.things", "key": ["id"]}, "set": {"id": "new.id", "name": "new.v"}, "link": {"kind": "au", "left": "new.id", "right": "id"}}');
SELECT usher.create_flow('au_direct', '{"run_as": "regress_usher_worker", "mode": "transactional", "when": {"change": "au.direct"}, "then": {"upsert": "au.things", "key": ["id"]}, "set": {"id": "new.id", "name": "new.v"}}');
SELECT actor, role, action, object, new - 'definition' AS new FROM au.news();
INSERT INTO au.source VALUES (:'acme', 100, 'alone');
CALL public.drain();
INSERT INTO au.source SELECT :'acme', n, 'n' || n FROM generate_series(101, 103) AS n;
CALL public.drain();
INSERT INTO au.direct VALUES (:'beta', 110, 'at once');
INSERT INTO au.direct SELECT :'beta', n, 'at once' FROM generate_series(111, 113) AS n;
-- In the writer's transaction, so the audit has not made the flow fail.
SELECT count(*) AS at_once FROM au.things WHERE id BETWEEN 110 AND 113;
SELECT l.actor, l.role, l.action, l.object, l.new ->> 'name' AS name, l.flow, j.flow AS correlated, j.payload -> 'new' ->> 'id' = l.object AS to_its_job
  FROM usher.audit_log l LEFT JOIN usher.sync_jobs j ON j.id = l.correlation_id WHERE l.flow IS NOT NULL ORDER BY l.id;
SELECT action FROM au.news() WHERE action LIKE 'usher%';
-- What a flow does to links is told by its jobs; what people do by hand is entered.
UPDATE usher.links SET status = 'failed', error_message = 'by hand' WHERE kind = 'au' AND left_id = '100';
SELECT org, actor, action, object, old, new FROM au.news();

-- Acts that are no change of a row.
SELECT usher.enqueue_sync_job('au-acme', 'au', 'au') AS job;
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_system('au.out', 'external');
SELECT id AS job FROM usher.enqueue_sync_job('au-acme', 'au', 'au.out', '{"secret": "s-1", "a": 1}') \gset
SELECT status FROM usher.cancel_sync_job(:'job');
SELECT status FROM usher.retry_sync_job(:'job', '{"secret": "s-2", "note": "password=hunter2 x"}');
SELECT status FROM usher.cancel_sync_job(:'job');
SELECT org, actor, action, old, new FROM au.news();
SELECT usher.grant_membership('au-acme', 'cid', 'admin');
SELECT usher.grant_membership('au-acme', 'cid', 'member');
SELECT usher.grant_membership('au-acme', 'cid', 'member');
SELECT usher.revoke_membership('au-acme', 'cid');
SELECT usher.disable_flow('au_copy');
SELECT usher.drop_flow('au_direct');
SELECT org, actor, action, object, old - 'definition' AS old, new - 'definition' AS new FROM au.news();

-- Only added to, by anybody.
UPDATE usher.audit_log SET actor = 'nobody' WHERE false;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM usher.audit_log;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE usher.audit_log;
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_op;
\set VERBOSITY terse
DELETE FROM usher.audit_log;
INSERT INTO usher.audit_log (id, actor, role, action, correlation_id) VALUES (usher.uuid_v7(), 'me', 'me', 'nothing.done', usher.uuid_v7());
DELETE FROM usher.audited_tables;
\set VERBOSITY default
RESET ROLE;
-- Members see what is their organization's, operators and readers all.
SET ROLE regress_usher_member;
SELECT count(*) > 10 AS own, count(*) FILTER (WHERE organization_id IS DISTINCT FROM :'acme') AS others FROM usher.audit_log;
SET ROLE regress_usher_other;
SELECT count(*) > 3 AS own, count(*) FILTER (WHERE organization_id IS DISTINCT FROM :'beta') AS others FROM usher.audit_log;
SET ROLE regress_usher_reader;
SELECT count(*) FILTER (WHERE organization_id = :'acme') > 10 AS acme, count(*) FILTER (WHERE organization_id IS NULL) > 5 AS installation FROM usher.audit_log;
SET ROLE regress_usher_writer;
SELECT count(*) FROM usher.audit_log;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;

-- The table changes, and the audit with it: a column goes, a partition comes, the table gets another name, goes and comes back.
ALTER TABLE au.things DROP COLUMN price;
ALTER TABLE au.things RENAME COLUMN mood TO temper;
ALTER TABLE au.things ADD COLUMN wide text;
UPDATE au.things SET name = 'without a price', wide = 'w' WHERE id = 4;
SELECT action, new FROM au.news();
ALTER TABLE au.things RENAME TO items;
UPDATE au.items SET name = 'renamed' WHERE id = 4;
SELECT usher.attach_all();
SELECT schema_name, table_name, columns FROM usher.audited_tables ORDER BY 1, 2;
SELECT action, object, new FROM au.news();
DROP TABLE au.plain CASCADE;
SELECT usher.attach_all();
CREATE TABLE au.plain (id integer, a text, PRIMARY KEY (id, a)) PARTITION BY RANGE (id);
CREATE TABLE au.plain_1 PARTITION OF au.plain FOR VALUES FROM (0) TO (10);
SELECT usher.attach_all();
SELECT usher.attach_all();
INSERT INTO au.plain VALUES (1, 'x,y');
INSERT INTO au.plain_1 VALUES (2, 'z');
UPDATE au.plain SET a = 'changed' WHERE id = 2;
SELECT org, action, object, old, new FROM au.news();

-- detach_all() takes the triggers away, attach_all() and setup() bring them back.
SELECT tgrelid::regclass AS relation, tgname FROM pg_trigger WHERE tgfoid = 'usher.audit()'::regprocedure AND tgrelid::regclass::text LIKE 'au.%' ORDER BY tgrelid::regclass::text, 2;
SELECT usher.detach_all() > 8 AS detached;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgfoid IN ('usher.audit()'::regprocedure, 'usher.audit_log_stays()'::regprocedure);
INSERT INTO au.plain VALUES (3, 'unseen');
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgfoid = 'usher.audit()'::regprocedure AND tgrelid::regclass::text LIKE 'au.%';
SELECT action, object FROM au.news();
DELETE FROM usher.audit_log;
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_op;
SELECT usher.unaudit_table('au.items');
SELECT usher.unaudit_table('au.items');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.unaudit_table('au.plain');
RESET ROLE;
UPDATE au.items SET name = 'unseen';
SELECT action, object FROM au.news();
SELECT count(*) AS triggers FROM pg_trigger WHERE tgfoid = 'usher.audit()'::regprocedure AND tgrelid::regclass::text LIKE 'au.%';
-- Tables of an older version have no log: whatever would be entered passes by.
SELECT schema_level AS level FROM usher.installation \gset
UPDATE usher.installation SET schema_level = 1;
\c
UPDATE usher.organizations SET name = 'unseen' WHERE slug = 'au-acme';
SELECT usher.audit_table('au.items');
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM usher.retry_sync_job(:'job');
SELECT count(*) AS entered FROM usher.audit_log WHERE new ->> 'name' = 'unseen';
UPDATE usher.installation SET schema_level = :level;
\c
UPDATE usher.organizations SET name = 'seen' WHERE slug = 'au-acme';
SELECT actor, new FROM usher.audit_log WHERE new ->> 'name' = 'seen';

SET client_min_messages = warning;
SELECT usher.drop_flow('au_copy') AS gone \gset
DROP SCHEMA au CASCADE;
CALL public.drain() \gset
DELETE FROM usher.queue_waiting;
DELETE FROM usher.audited_tables;
DELETE FROM usher.organizations WHERE slug LIKE 'au-%';
DELETE FROM usher.systems WHERE name IN ('au', 'au.out');
DROP ROLE regress_usher_op, regress_usher_writer, regress_usher_member, regress_usher_other, regress_usher_reader, regress_usher_worker;
