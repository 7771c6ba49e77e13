-- The doctor: fine when all is well, and every ailment with its remedy. Tables before setup() are in install.sql; workers,
-- the key file and long transactions in the tests over real connections.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS dr, dr_packed CASCADE;
DROP ROLE IF EXISTS regress_usher_dr, regress_usher_gone, regress_usher_reader, regress_usher_member;
DELETE FROM usher.dead_letters;
DELETE FROM usher.queue_waiting;
DELETE FROM usher.jobs;
SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows \gset
CREATE SCHEMA dr;
CREATE TABLE dr.a (id integer PRIMARY KEY, v integer);
CREATE TABLE dr.b (id integer PRIMARY KEY, v integer);
CREATE TABLE dr.days (id integer, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE dr.days_1 PARTITION OF dr.days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE dr."Odd name" (id integer PRIMARY KEY, v integer);
CREATE TABLE dr.keyless (id integer, v integer);
CREATE TABLE dr.nobodys (id integer);
CREATE ROLE regress_usher_dr NOLOGIN;
CREATE ROLE regress_usher_gone NOLOGIN;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA dr TO regress_usher_dr, regress_usher_gone;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dr TO regress_usher_dr, regress_usher_gone;
RESET client_min_messages;
-- What is not well. This database has no workers, on purpose; names of versions and ages differ.
CREATE FUNCTION public.ills(patience interval DEFAULT '10 min') RETURNS TABLE (ill text, state text, finding text, remedy text) LANGUAGE sql AS $$
    SELECT d."check", d.state, regexp_replace(regexp_replace(replace(d.finding, usher.version(), 'VERSION'), '(-?\d+ days? )?-?\d\d+:\d\d:\d\d', 'AGE', 'g'), 'level \d+', 'level N', 'g'), d.remedy
      FROM usher.doctor(patience) d WHERE d.state <> 'ok' AND d."check" <> 'workers' ORDER BY d."check", d.finding$$;
SELECT "check", state, replace(finding, usher.version(), 'VERSION') AS finding, replace(remedy, current_setting('usher.databases'), 'LIST') AS remedy FROM usher.doctor();
SELECT usher.create_flow('dr_copy', '{"run_as": "regress_usher_dr", "when": {"change": "dr.a", "on": ["insert", "delete"]}, "then": {"upsert": "dr.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}}');
SELECT usher.create_flow('dr_days', '{"run_as": "regress_usher_dr", "when": {"change": "dr.days", "on": ["insert"]}, "then": {"upsert": "dr.b", "key": ["id"]}, "set": {"id": "new.id"}}');
SELECT usher.create_flow('dr_odd', '{"run_as": "regress_usher_dr", "when": {"change": "dr.\"Odd name\"", "on": ["update"]}, "trigger_name": "Odd Trigger", "then": {"upsert": "dr.b", "key": ["id"]}, "set": {"id": "new.id"}}');
SELECT * FROM ills();

-- Flows.
SELECT usher.create_flow('dr_keyless', '{"run_as": "regress_usher_gone", "when": {"change": "dr.keyless"}, "then": {"upsert": "dr.b", "key": ["id"]}, "set": {"id": "new.id"}}');
SELECT usher.create_flow('dr_super', '{"when": {"change": "dr.a"}, "then": {"delete": "dr.b", "key": ["id"]}, "set": {"id": "new.id"}}') LIKE '%is on%' AS made;
SET client_min_messages = warning;
DROP OWNED BY regress_usher_gone;
DROP ROLE regress_usher_gone;
RESET client_min_messages;
UPDATE usher.flows SET state = 'broken', reason = 'column "v" is gone' WHERE name = 'dr_odd';
SELECT ill, state, replace(finding, current_user, 'ME') AS finding, remedy FROM ills();
SELECT usher.drop_flow('dr_keyless'), usher.drop_flow('dr_super') \gset
UPDATE usher.flows SET state = 'ok', reason = NULL WHERE name = 'dr_odd';
SELECT * FROM ills();

-- Triggers: each fault once, and what is proposed mends it. (Where event triggers do not fire, they are not put back at once.)
SET session_replication_role = replica;
DROP TRIGGER usher_capture_insert ON dr.a;
ALTER TABLE dr.a DISABLE TRIGGER usher_capture_delete;
DROP TRIGGER usher_statement ON dr.days_1;
CREATE TRIGGER usher_statement BEFORE UPDATE ON dr.days_1 FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement();
DROP TRIGGER usher_statement ON dr."Odd name";
CREATE FUNCTION dr.theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER usher_statement BEFORE UPDATE ON dr."Odd name" FOR EACH STATEMENT EXECUTE FUNCTION dr.theirs();
CREATE TRIGGER usher_capture_insert AFTER INSERT ON dr.nobodys REFERENCING NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('dr.nobodys', '');
CREATE TRIGGER usher_capture_update AFTER UPDATE ON dr.days REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('dr.days', '');
-- Triggers of others are none of the doctor's business.
CREATE TRIGGER theirs BEFORE INSERT ON dr.a FOR EACH STATEMENT EXECUTE FUNCTION dr.theirs();
ALTER TABLE dr.a DISABLE TRIGGER theirs;
RESET session_replication_role;
-- Without event triggers flows are found broken only later.
ALTER EVENT TRIGGER usher_follow_drop DISABLE;
SELECT * FROM ills() WHERE ill = 'schema changes';
ALTER EVENT TRIGGER usher_follow_drop ENABLE;
SELECT * FROM ills();
ALTER TABLE dr.a ENABLE TRIGGER usher_capture_delete;
ALTER TRIGGER usher_statement ON dr."Odd name" RENAME TO theirs;
DROP TRIGGER usher_capture_insert ON dr.nobodys;
SELECT usher.attach_all();
SELECT * FROM ills();
-- An ENABLE ALWAYS trigger is as good. One that fires only on replicas is not.
ALTER TABLE dr.a ENABLE ALWAYS TRIGGER usher_capture_delete;
SELECT * FROM ills();
ALTER TABLE dr.a ENABLE REPLICA TRIGGER usher_capture_delete;
SELECT finding FROM ills();
ALTER TABLE dr.a ENABLE TRIGGER usher_capture_delete;
BEGIN;
DROP TABLE dr."Odd name";
SELECT * FROM ills();
ROLLBACK;

-- Who may do what.
BEGIN;
ALTER TABLE usher.links DISABLE ROW LEVEL SECURITY;
DROP POLICY member_reads ON usher.jobs;
DROP POLICY reader_reads ON usher.jobs;
GRANT EXECUTE ON FUNCTION usher.process_jobs TO PUBLIC;
CREATE FUNCTION usher.sly() RETURNS integer LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
CREATE FUNCTION dr.sly() RETURNS integer LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
SELECT * FROM ills();
-- In a schema that a pack's flow uses it counts, too.
UPDATE usher.flows SET pack = 'dr' WHERE name = 'dr_copy';
SELECT * FROM ills() WHERE finding LIKE 'dr.%';
ALTER FUNCTION dr.sly() SET search_path = pg_catalog, pg_temp;
SELECT * FROM ills() WHERE finding LIKE 'dr.%';
ROLLBACK;

-- Versions of library, extension and tables.
BEGIN;
UPDATE usher.installation SET schema_level = 1;
SELECT * FROM ills();
UPDATE usher.installation SET schema_level = 1000;
SELECT * FROM ills();
ROLLBACK;
BEGIN;
SET LOCAL allow_system_table_mods = on;
UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'pg_usher';
SELECT * FROM ills();
UPDATE pg_extension SET extversion = '999.0' WHERE extname = 'pg_usher';
SELECT * FROM ills();
ROLLBACK;
-- A copy: sessions look once, so this is a new one.
UPDATE usher.installation SET database = 1;
\c -
SELECT * FROM ills();
UPDATE usher.installation SET database = (SELECT oid FROM pg_database WHERE datname = current_database());
\c -
SELECT * FROM ills();
BEGIN;
SELECT usher.detach_all() > 0 AS detached;
SELECT ill, state, finding, remedy FROM ills() WHERE ill = 'setup';
ROLLBACK;

-- Jobs.
INSERT INTO dr.a VALUES (1, 1);
UPDATE usher.jobs SET created_at = now() - interval '2 hours';
INSERT INTO usher.dead_letters (organization_id, id, seq, created_at, lane, hop, op, attempts, error_message, died_at)
SELECT id, usher.uuid_v7(), n, now(), 3, 0, 'R', 1, 'made up', now() - n * interval '13 hours' FROM usher.organizations, generate_series(1, 3) AS n WHERE slug = 'default';
INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, attempts, lane, hop, op)
SELECT id, usher.uuid_v7(), '2020-01-01', '2020-01-01', 1, 3, 0, 'R' FROM usher.organizations WHERE slug = 'default';
INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, flow_id, flow_version, lane, hop, op, waiting_for)
SELECT n, usher.uuid_v7(), o.id, now(), f.id, 1, 3, 0, 'I', CASE WHEN f.name = 'dr_days' THEN 'flow disabled' ELSE 'flow broken' END
  FROM usher.organizations o, usher.flows f, generate_series(1, 2) AS n WHERE o.slug = 'default' AND f.name IN ('dr_days', 'dr_odd');
SELECT * FROM ills();
UPDATE usher.dead_letters SET died_at = now() + interval '3 days';
SELECT * FROM ills() WHERE ill = 'clock';
DELETE FROM usher.dead_letters;
INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, attempts, lane, hop, op)
SELECT id, usher.uuid_v7(), now(), now() + interval '2 days', 1, 3, 0, 'R' FROM usher.organizations WHERE slug = 'default';
SELECT ill, state FROM ills() WHERE ill = 'clock';
DELETE FROM usher.job_history WHERE finished_at > now() OR finished_at = '2020-01-01';
DELETE FROM usher.jobs;
DELETE FROM usher.queue_waiting;
SELECT * FROM ills();

-- A prepared transaction is a finding when it is older than one's patience.
BEGIN;
INSERT INTO dr.nobodys VALUES (1);
PREPARE TRANSACTION 'dr it''s mine';
SELECT * FROM ills();
SELECT * FROM ills('0 s') WHERE ill = 'prepared transactions';
ROLLBACK PREPARED 'dr it''s mine';
SELECT * FROM ills('0 s') WHERE ill = 'prepared transactions';

-- Who sees to persons' data, retention that fails, and a chain that lags behind.
BEGIN;
SET LOCAL client_min_messages = error;
CREATE TABLE dr.guests (organization_id uuid, id integer, seen date, PRIMARY KEY (organization_id, id));
CREATE ROLE regress_usher_gone NOLOGIN;
SELECT usher.define_subject('dr-guest', 'dr.guests') \gset
SELECT usher.set_retention('dr.guests', 'seen', '1 day', run_as => 'regress_usher_dr') \gset
SELECT usher.set_retention('dr.guests', 'seen', '1 day', 'erase', run_as => 'regress_usher_gone') \gset
UPDATE usher.retention_rules SET last_error = 'permission denied for table guests' WHERE action = 'delete' AND table_name = 'guests';
DROP ROLE regress_usher_gone;
INSERT INTO usher.audit_log (id, recorded_at, actor, role, action, correlation_id)
VALUES (gen_random_uuid(), now() - interval '25 minutes', 'dr', 'dr', 'dr', gen_random_uuid());
DELETE FROM usher.audit_chain_state;
INSERT INTO usher.audit_chain_state (sealed_to) SELECT max(position) - 1 FROM usher.audit_log;
SELECT ill, state, replace(finding, current_user, 'ME') AS finding, remedy FROM ills() WHERE ill IN ('personal data', 'audit chain');
ROLLBACK;
-- A check that cannot be made says so, and the others go on.
BEGIN;
SET LOCAL client_min_messages = warning;
DROP TABLE usher.dead_letters CASCADE;
SELECT ill, state, finding, remedy FROM ills() WHERE ill IN ('clock', 'dead letters');
SELECT count(*) > 10 AS others FROM usher.doctor() WHERE state = 'ok';
ROLLBACK;
-- It only reads.
BEGIN READ ONLY;
SELECT * FROM ills();
COMMIT;

-- For operators and readers.
SET ROLE regress_usher_reader;
SELECT * FROM ills();
SET ROLE regress_usher_member;
SELECT public.try('SELECT usher.doctor()');
RESET ROLE;
GRANT EXECUTE ON FUNCTION usher.doctor TO regress_usher_member;
SET ROLE regress_usher_member;
SELECT public.try('SELECT usher.doctor()');
RESET ROLE;

SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'dr%';
CALL public.drain() \gset
DELETE FROM usher.notices;
DROP FUNCTION public.ills;
SET client_min_messages = warning;
DROP SCHEMA dr CASCADE;
DROP OWNED BY regress_usher_member;
DROP ROLE regress_usher_dr, regress_usher_reader, regress_usher_member;
