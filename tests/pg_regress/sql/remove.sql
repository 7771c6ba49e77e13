-- Ending it: triggers off, the extension without its data, the data without the extension, and all of it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS re CASCADE;
DROP ROLE IF EXISTS regress_usher_op;
RESET client_min_messages;
CREATE SCHEMA re;
CREATE TABLE re.a (id integer PRIMARY KEY, v text);
CREATE TABLE re.b (id integer PRIMARY KEY, v text);
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
GRANT ALL ON SCHEMA re TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA re TO regress_usher_op;
SELECT usher.create_organization('re-acme') AS acme \gset
SET ROLE regress_usher_op;
SELECT usher.create_flow('re_copy', '{"when": {"change": "re.a"}, "then": {"upsert": "re.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}, "link": {"kind": "re", "left": "new.id", "right": "id"}}');
RESET ROLE;
INSERT INTO re.a VALUES (1, 'done');
SELECT usher.process_jobs();
INSERT INTO re.a VALUES (2, 'pending');

-- Detached: changes go by unseen until setup() or attach_all().
SELECT usher.detach_all();
SELECT usher.detach_all();
INSERT INTO re.a VALUES (3, 'unseen');
SELECT count(*) AS pending FROM usher.sync_jobs WHERE flow = 're_copy' AND status = 'pending';
SELECT usher.attach_all();
SELECT usher.attach_all();
SELECT tgname FROM pg_trigger WHERE tgrelid = 're.a'::regclass AND NOT tgisinternal ORDER BY 1;

-- The tables use the extension's functions: a plain DROP EXTENSION is refused, and so nothing is lost by accident.
\set VERBOSITY terse
DROP EXTENSION pg_usher;
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS flows FROM usher.flows WHERE name = 're_copy';

-- After detach_all() it goes, and the data stays.
SELECT usher.detach_all();
SET client_min_messages = warning;
DROP EXTENSION pg_usher;
RESET client_min_messages;
SELECT count(*) AS flows FROM usher.flows WHERE name = 're_copy';
SELECT count(*) AS jobs FROM usher.jobs AS j JOIN usher.job_floors AS f ON f.lane = j.lane AND j.seq > f.floor
 WHERE NOT EXISTS (SELECT FROM usher.job_batches AS b WHERE b.lane = j.lane AND j.seq <@ b.done);
SELECT slug FROM usher.organizations WHERE slug LIKE 're-%';
-- The application works on.
INSERT INTO re.a VALUES (4, 'without');
-- And again: what was pending runs, flows are attached, policies are back.
CREATE EXTENSION pg_usher;
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT tgname FROM pg_trigger WHERE tgrelid = 're.a'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT count(*) > 0 AS view FROM usher.sync_jobs;
SELECT count(*) AS policies_missing FROM pg_class c WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'reader_reads');
SELECT p.oid::regprocedure AS open_to_public FROM pg_proc p WHERE p.pronamespace = 'usher'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE');
INSERT INTO re.a VALUES (5, 'after');
CALL public.drain();
SELECT id, v FROM re.b ORDER BY id;
SELECT flow, payload->'new'->>'id' AS id, status FROM usher.sync_jobs WHERE flow = 're_copy' ORDER BY 2;
SELECT kind, left_id, right_id, status FROM usher.links WHERE kind = 're' ORDER BY 2;
SELECT slug FROM usher.organizations WHERE slug LIKE 're-%';

-- remove(): only with the confirmation, and not by an operator who does not own the tables.
SELECT usher.remove();
\echo :LAST_ERROR_SQLSTATE
SELECT usher.remove('yes');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.remove(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS flows FROM usher.flows WHERE name = 're_copy';
SET ROLE regress_usher_op;
\set VERBOSITY sqlstate
SELECT usher.remove('remove all data');
\set VERBOSITY default
RESET ROLE;
SELECT count(*) AS flows FROM usher.flows WHERE name = 're_copy';
SELECT tgname FROM pg_trigger WHERE tgrelid = 're.a'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT usher.remove(confirm => 'remove all data');
SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S') ORDER BY 1;
SELECT tgname FROM pg_trigger WHERE tgrelid = 're.a'::regclass AND NOT tgisinternal ORDER BY 1;
INSERT INTO re.a VALUES (6, 'after all');
SELECT usher.status();
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
SELECT usher.remove(confirm => 'remove all data');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
-- From here anew, or the end of it: nothing depends on the extension any more.
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT slug FROM usher.organizations;
SELECT usher.remove(confirm => 'remove all data');
DROP EXTENSION pg_usher;
SELECT nspname FROM pg_namespace WHERE nspname = 'usher';
SELECT id, v FROM re.a ORDER BY id;
SET client_min_messages = warning;
DROP SCHEMA re CASCADE;
DROP ROLE regress_usher_op;
