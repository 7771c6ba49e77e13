-- Ways in which a role that owns a source or a target, or only makes flows, might reach other rights. Each was tried
-- against an earlier version and worked. Every trap logs who runs it: nobody but regress_mallory may.
SET client_min_messages = warning;
CREATE ROLE regress_mallory;
GRANT usher_operator TO regress_mallory;
CREATE SCHEMA mal AUTHORIZATION regress_mallory;
GRANT USAGE ON SCHEMA mal TO PUBLIC;
CREATE TABLE public.trapped (by_whom text, what text);
GRANT INSERT, SELECT, DELETE ON public.trapped TO PUBLIC;
SET ROLE regress_mallory;
CREATE FUNCTION mal.trap(what text) RETURNS boolean LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.trapped VALUES (current_user, what); RETURN true; END$$;
CREATE TABLE mal.source (id int PRIMARY KEY, total int, status text);
CREATE TABLE mal.target (id int PRIMARY KEY, total int);
GRANT INSERT, UPDATE, SELECT ON mal.source TO PUBLIC;

-- 1. A trigger of the target sets something for the session.
CREATE FUNCTION mal.set_path() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN SET search_path = mal, pg_catalog; SET default_transaction_read_only = on; RETURN NULL; END$$;
CREATE TRIGGER set_path AFTER INSERT ON mal.target FOR EACH ROW EXECUTE FUNCTION mal.set_path();
SELECT usher.create_flow('mal_copy', '{"when": {"change": "mal.source", "on": ["insert"]}, "mode": "transactional",
  "then": {"upsert": "mal.target", "key": ["id"]}, "set": {"id": "new.id", "total": "new.total"}}');
RESET ROLE;
INSERT INTO mal.source VALUES (1, 1, 'open');
SELECT count(*) AS applied FROM mal.target;
SELECT current_setting('search_path') LIKE 'mal%' AS path_left_behind, current_setting('default_transaction_read_only') AS read_only;

-- 2. The source's owner gives a column a type with code of its own.
SET ROLE regress_mallory;
SELECT usher.alter_flow('mal_copy', '{"when": {"change": "mal.source", "on": ["insert", "update"]}, "if": "new.total > 5 AND old.status IS DISTINCT FROM ''paid''",
  "then": {"upsert": "mal.target", "key": ["id"]}, "set": {"id": "new.id", "total": "1"}}');
CREATE DOMAIN mal.status AS text CHECK (mal.trap('domain check'));
ALTER TABLE mal.source ALTER COLUMN status TYPE mal.status;
CREATE TYPE mal.mood AS ENUM ('7', '9');
CREATE FUNCTION mal.to_int(mal.mood) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM mal.trap('cast'); RETURN 9; END$$;
CREATE CAST (mal.mood AS int) WITH FUNCTION mal.to_int(mal.mood) AS IMPLICIT;
ALTER TABLE mal.source ALTER COLUMN total TYPE mal.mood USING '9';
DELETE FROM public.trapped;
RESET ROLE;
INSERT INTO mal.source VALUES (2, '9', 'open');
-- The writer's own INSERT runs the domain's check as the writer, as any INSERT does; nothing else.
SELECT what, by_whom, count(*) FROM public.trapped WHERE what = 'cast' GROUP BY 1, 2;
SELECT usher.process_jobs() AS handled;
SELECT DISTINCT what FROM public.trapped WHERE by_whom <> 'regress_mallory' AND what <> 'domain check';
-- 2c. DDL that no longer fits never fails the writer.
SET ROLE regress_mallory;
ALTER TABLE mal.source ALTER COLUMN status TYPE text, ALTER COLUMN total TYPE text;
RESET ROLE;
INSERT INTO mal.source VALUES (3, '9', 'open');
SELECT count(*) AS written FROM mal.source WHERE id = 3;

-- 3. A deferred trigger of the target waits for the writer's COMMIT.
SET ROLE regress_mallory;
SELECT usher.drop_flow('mal_copy');
DROP TRIGGER set_path ON mal.target;
SELECT usher.create_flow('mal_late', '{"when": {"change": "mal.source", "on": ["insert"]}, "mode": "transactional",
  "then": {"upsert": "mal.target", "key": ["id"]}, "set": {"id": "new.id"}}');
CREATE FUNCTION mal.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM mal.trap('deferred trigger'); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mal.target DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mal.late();
DELETE FROM public.trapped;
RESET ROLE;
INSERT INTO mal.source VALUES (4, '9', 'open');
SELECT by_whom, what FROM public.trapped;
-- It became a realtime job, whose trigger runs with the flow's rights.
SELECT usher.process_jobs() > 0 AS handled;
SELECT by_whom, what FROM public.trapped;

-- 4. A writer's settings do not change what a flow means.
SELECT usher.create_organization('esc-a') IS NOT NULL, usher.create_organization('esc-b') IS NOT NULL;
CREATE TABLE public.esc_source (organization_id uuid NOT NULL, id int PRIMARY KEY, v text);
CREATE TABLE public.esc_target (organization_id uuid NOT NULL, id int, v text, PRIMARY KEY (organization_id, id));
INSERT INTO public.esc_target SELECT id, 1, 'before' FROM usher.organizations WHERE slug LIKE 'esc-%';
SELECT usher.create_flow('esc_update', '{"when": {"change": "public.esc_source", "on": ["insert"]}, "mode": "transactional",
  "then": {"update": "public.esc_target", "key": ["id"]}, "set": {"id": "1", "v": "new.v"}}');
SET quote_all_identifiers = on;
INSERT INTO public.esc_source SELECT id, 1, 'after' FROM usher.organizations WHERE slug = 'esc-a';
RESET quote_all_identifiers;
SELECT o.slug, t.v FROM public.esc_target t JOIN usher.organizations o ON o.id = t.organization_id ORDER BY 1;

-- 5. Text is read as it was when it was checked.
SET ROLE regress_mallory;
DELETE FROM public.trapped;
CREATE TABLE mal.words (id int PRIMARY KEY, a text, b text);
GRANT INSERT ON mal.words TO PUBLIC;
SELECT usher.create_flow('mal_words', $$ {"when": {"change": "mal.words", "on": ["insert"]}, "if": "new.a = '\\' AND new.b = ' OR mal.trap(''text'') -- '",
  "then": {"upsert": "mal.target", "key": ["id"]}, "set": {"id": "new.id"}} $$);
RESET ROLE;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
INSERT INTO mal.words VALUES (1, 'x', 'y');
RESET standard_conforming_strings;
SELECT by_whom, what FROM public.trapped;

-- Leave nothing behind.
SELECT usher.drop_flow('mal_words'), usher.drop_flow('mal_late'), usher.drop_flow('esc_update');
DROP SCHEMA mal CASCADE;
DROP TABLE public.trapped, public.esc_source, public.esc_target;
DELETE FROM usher.organizations WHERE slug LIKE 'esc-%';
DROP OWNED BY regress_mallory;
DROP ROLE regress_mallory;
