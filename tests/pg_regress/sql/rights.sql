-- Who sees what and may do what; and that a caller's own objects are never run with the owner's rights.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ri, evil CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_member, regress_usher_admin, regress_usher_legend, regress_usher_reader, regress_usher_stranger, regress_usher_nobody, regress_usher_writer;
RESET client_min_messages;
CREATE SCHEMA ri;
CREATE TABLE ri.source (organization_id uuid, id integer, v text, PRIMARY KEY (organization_id, id));
CREATE TABLE ri.target (organization_id uuid, id integer, v text, PRIMARY KEY (organization_id, id));
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_legend NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_nobody NOLOGIN;
CREATE ROLE regress_usher_writer NOLOGIN;
GRANT USAGE ON SCHEMA ri TO regress_usher_op, regress_usher_writer;
GRANT ALL ON ALL TABLES IN SCHEMA ri TO regress_usher_op;
GRANT INSERT, UPDATE, DELETE, SELECT ON ri.source TO regress_usher_writer;
SELECT usher.create_organization('ri-acme') AS acme \gset
SELECT usher.create_organization('ri-beta') AS beta \gset
SELECT usher.grant_membership('ri-acme', 'role:regress_usher_member'), usher.grant_membership('ri-acme', 'role:regress_usher_admin', 'admin'),
       usher.grant_membership('ri-beta', 'role:regress_usher_legend', 'legend');
SELECT usher.create_system('ri.a'), usher.create_system('ri.b');
SET ROLE regress_usher_op;
SELECT usher.create_flow('ri_copy', $$ {"from": "ri.a", "to": "ri.b", "when": {"change": "ri.source"}, "then": {"upsert": "ri.target", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}, "link": {"kind": "ri", "left": "new.id", "right": "id"}} $$);
SELECT usher.create_flow('ri_ask', $$ {"from": "ri.a", "to": "ri.b", "when": {"request": "ask"}, "then": {"upsert": "ri.target", "key": ["id"]}, "set": {"id": "(job.payload->>'id')::integer", "v": "'asked'"}} $$);
RESET ROLE;

-- A writer needs no right in schema usher.
SET ROLE regress_usher_writer;
INSERT INTO ri.source VALUES (:'acme', 1, 'of acme'), (:'beta', 1, 'of beta');
SELECT usher.version();
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM usher.sync_jobs;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT usher.process_jobs();
INSERT INTO ri.source VALUES (:'acme', 2, 'of acme'), (:'beta', 2, 'of beta'), (NULL, 3, 'of nobody'), ('00000000-0000-7000-8000-000000000001', 4, 'of a stranger');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ri.source VALUES (:'acme', 2, 'of acme'), (:'beta', 2, 'of beta'), ('00000000-0000-7000-8000-000000000001', 4, 'of a stranger');
SELECT usher.process_jobs();
SELECT t.id, t.v, o.slug FROM ri.target t JOIN usher.organizations o ON o.id = t.organization_id ORDER BY t.id, o.slug;
SELECT status, payload->'new'->>'v' AS row, error_message FROM usher.sync_jobs WHERE flow = 'ri_copy' AND status <> 'synced';

-- What each role sees and may call.
CREATE FUNCTION ri.asked(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'yes';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
CREATE FUNCTION ri.seen() RETURNS TABLE (actor text, organizations text, jobs text, links text, memberships text, flows text, manages text)
    LANGUAGE plpgsql AS $$
DECLARE
    query text;
    answer text;
    said text[] := '{}';
BEGIN
    FOREACH query IN ARRAY ARRAY[
        'SELECT usher.actor()',
        'SELECT string_agg(slug, '' '' ORDER BY slug) FROM usher.organizations WHERE slug LIKE ''ri-%''',
        'SELECT string_agg(o.slug || '':'' || n, '' '' ORDER BY o.slug) FROM (SELECT organization_id, count(*) AS n FROM usher.sync_jobs WHERE flow LIKE ''ri%'' GROUP BY 1) j JOIN usher.organizations o ON o.id = j.organization_id',
        'SELECT count(*)::text FROM usher.links WHERE kind = ''ri''',
        'SELECT count(*)::text FROM usher.memberships WHERE user_id LIKE ''role:regress%''',
        'SELECT count(*)::text FROM usher.flows WHERE name LIKE ''ri%''',
        'SELECT string_agg(slug, '' '' ORDER BY slug) FROM usher.organizations WHERE slug LIKE ''ri-%'' AND id = ANY (usher.managed_organizations())']
    LOOP
        BEGIN
            EXECUTE query INTO answer;
        EXCEPTION WHEN OTHERS THEN
            answer := SQLSTATE;
        END;
        said[cardinality(said) + 1] := answer;
    END LOOP;
    RETURN QUERY SELECT said[1], said[2], said[3], said[4], said[5], said[6], said[7];
END
$$;
GRANT USAGE ON SCHEMA ri TO PUBLIC;
\pset null -
SET ROLE regress_usher_nobody;
SELECT * FROM ri.seen();
SET ROLE regress_usher_stranger;
SELECT * FROM ri.seen();
SET ROLE regress_usher_member;
SELECT * FROM ri.seen();
SET ROLE regress_usher_admin;
SELECT * FROM ri.seen();
SET ROLE regress_usher_legend;
SELECT * FROM ri.seen();
SET ROLE regress_usher_reader;
SELECT * FROM ri.seen();
SET ROLE regress_usher_op;
SELECT * FROM ri.seen();
RESET ROLE;

SELECT id AS of_beta FROM usher.sync_jobs WHERE organization_id = :'beta' AND status = 'synced' ORDER BY id LIMIT 1 \gset
SELECT id AS of_acme FROM usher.sync_jobs WHERE organization_id = :'acme' AND status = 'synced' ORDER BY id LIMIT 1 \gset
CREATE TABLE ri.call (n integer GENERATED ALWAYS AS IDENTITY, name text, statement text);
INSERT INTO ri.call (name, statement) VALUES
    ('enqueue in acme', 'SELECT usher.enqueue_sync_job(''ri-acme'', ''ri.a'', ''ri.b'', ''{"action": "ask", "id": 9}'')'),
    ('enqueue in beta', 'SELECT usher.enqueue_sync_job(''ri-beta'', ''ri.a'', ''ri.b'', ''{"action": "ask", "id": 9}'')'),
    ('enqueue nowhere', 'SELECT usher.enqueue_sync_job(''ri-nowhere'', ''ri.a'', ''ri.b'', ''{"action": "ask", "id": 9}'')'),
    ('enqueue many in beta', 'SELECT usher.enqueue_sync_jobs(''ri-beta'', ''ri.a'', ''ri.b'', ''{}'')'),
    ('wait for one of acme', format('SELECT usher.wait_for(%L)', :'of_acme')),
    ('wait for one of beta', format('SELECT usher.wait_for(%L)', :'of_beta')),
    ('cancel one of acme', format('SELECT usher.cancel_sync_job(%L)', :'of_acme')),
    ('cancel one of beta', format('SELECT usher.cancel_sync_job(%L)', :'of_beta')),
    ('retry one of acme', format('SELECT usher.retry_sync_job(%L)', :'of_acme')),
    ('retry one of beta', format('SELECT usher.retry_sync_job(%L)', :'of_beta')),
    ('create a flow', 'SELECT usher.create_flow(''ri_x'', ''{}'')'), ('drop a flow', 'SELECT usher.drop_flow(''ri_no'')'), ('delete a flow', 'DELETE FROM usher.flows WHERE name = ''ri_no'''),
    ('process jobs', 'SELECT usher.process_jobs(1)'), ('status', 'SELECT usher.status()'), ('install a pack', 'SELECT usher.install_pack(''nothing'')'),
    ('detach', 'SELECT usher.detach_all() WHERE false'), ('remove', 'SELECT usher.remove()'), ('setup', 'SELECT usher.setup() WHERE false'),
    ('write a job', 'INSERT INTO usher.jobs SELECT * FROM usher.ready_jobs WHERE false'), ('change a job', 'UPDATE usher.dead_letters SET new = NULL WHERE false'),
    ('take a position', 'SELECT usher.take_seq(0::smallint)'), ('call capture', 'SELECT usher.capture()'), ('maintain', 'SELECT usher.maintain_history(1)');
GRANT SELECT ON ri.call TO PUBLIC;
CREATE TEMPORARY TABLE answer (n integer, name text, who text, said text);
GRANT ALL ON answer TO PUBLIC;
SET ROLE regress_usher_nobody;   INSERT INTO answer SELECT n, name, 'nobody', ri.asked(statement) FROM ri.call;
SET ROLE regress_usher_stranger; INSERT INTO answer SELECT n, name, 'stranger', ri.asked(statement) FROM ri.call;
SET ROLE regress_usher_reader;   INSERT INTO answer SELECT n, name, 'reader', ri.asked(statement) FROM ri.call;
SET ROLE regress_usher_member;   INSERT INTO answer SELECT n, name, 'member', ri.asked(statement) FROM ri.call;
SET ROLE regress_usher_admin;    INSERT INTO answer SELECT n, name, 'admin', ri.asked(statement) FROM ri.call;
SET ROLE regress_usher_legend;   INSERT INTO answer SELECT n, name, 'legend', ri.asked(statement) FROM ri.call;
SET ROLE regress_usher_op;       INSERT INTO answer SELECT n, name, 'operator', ri.asked(statement) FROM ri.call;
RESET ROLE;
SELECT name, min(said) FILTER (WHERE who = 'nobody') AS nobody, min(said) FILTER (WHERE who = 'stranger') AS stranger, min(said) FILTER (WHERE who = 'reader') AS reader,
       min(said) FILTER (WHERE who = 'member') AS member, min(said) FILTER (WHERE who = 'admin') AS admin, min(said) FILTER (WHERE who = 'legend') AS legend,
       min(said) FILTER (WHERE who = 'operator') AS operator
  FROM answer GROUP BY n, name ORDER BY n;
-- A foreign organization and one that does not exist are refused in the same words.
SET ROLE regress_usher_admin;
SELECT usher.enqueue_sync_job('ri-beta', 'ri.a', 'ri.b', '{"action": "ask", "id": 9}');
SELECT usher.enqueue_sync_job('ri-nowhere', 'ri.a', 'ri.b', '{"action": "ask", "id": 9}');
SET ROLE regress_usher_member;
SELECT usher.enqueue_sync_job('ri-acme', 'ri.a', 'ri.b', '{"action": "ask", "id": 9}');
RESET ROLE;

-- Claims are for a gateway's login (usher.claims_roles); anyone else's are not believed. Nobody gives himself a user.
SET ROLE regress_usher_stranger;
SELECT set_config('request.jwt.claims', '{"sub": "role:regress_usher_legend", "role": "usher_operator"}', false) IS NOT NULL AS set;
SELECT usher.actor(), usher.member_organizations();
SET usher.user_id = 'role:regress_usher_legend';
\echo :LAST_ERROR_SQLSTATE
SET usher.claims_roles = 'regress_usher_stranger';
\echo :LAST_ERROR_SQLSTATE
-- (the words are PostgreSQL's own and not those of every version)
\set VERBOSITY sqlstate
SHOW usher.claims_roles;
\set VERBOSITY default
RESET ROLE;
-- Where the login is trusted: the sub counts, a sub that would pass for a database role does not.
SET usher.claims_roles = 'somebody, postgres';
SET ROLE regress_usher_stranger;
SELECT usher.actor(), usher.member_organizations();
SELECT set_config('request.jwt.claims', '{"sub": "ri-ann"}', false) IS NOT NULL AS set;
SELECT usher.actor();
SELECT set_config('request.jwt.claims', 'no json', false) IS NOT NULL AS set;
SELECT usher.actor();
SELECT set_config('request.jwt.claims', '{"sub": 7}', false) IS NOT NULL AS set;
SELECT usher.actor();
RESET ROLE;
SELECT usher.grant_membership('ri-acme', 'ri-ann', 'admin');
SELECT set_config('request.jwt.claims', '{"sub": "ri-ann"}', false) IS NOT NULL AS set;
SET ROLE regress_usher_stranger;
SELECT slug FROM usher.organizations;
SELECT status FROM usher.enqueue_sync_job('ri-acme', 'ri.a', 'ri.b', '{"action": "ask", "id": 10}');
RESET ROLE;
RESET usher.claims_roles;
SELECT set_config('request.jwt.claims', '', false) = '' AS cleared;

-- A caller's schema in front of pg_catalog, full of traps: each raises wherever it is run.
CREATE SCHEMA evil AUTHORIZATION regress_usher_admin;
SET ROLE regress_usher_admin;
CREATE FUNCTION evil.sprung(what text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped % in %', current_user, what; END$$;
DO $do$
DECLARE
    t text;
    op text;
BEGIN
    FOREACH t IN ARRAY ARRAY['uuid', 'text', 'bigint', 'integer', 'smallint', 'boolean', 'timestamptz', 'jsonb', 'name', '"char"', 'oid'] LOOP
        EXECUTE format('CREATE FUNCTION evil.trap(%1$s, %1$s) RETURNS boolean LANGUAGE plpgsql AS '
                       '$b$BEGIN PERFORM evil.sprung(''a comparison of %1$s''); RETURN true; END$b$', t);
        FOREACH op IN ARRAY ARRAY['=', '<>', '<=', '<', '>', '>='] LOOP
            EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.trap)', op, t, t);
        END LOOP;
    END LOOP;
END
$do$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN PERFORM evil.sprung('now'); RETURN pg_catalog.now(); END$$;
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM evil.sprung('lower'); RETURN pg_catalog.lower($1); END$$;
CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$BEGIN PERFORM evil.sprung('unnest'); RETURN QUERY SELECT pg_catalog.unnest($1); END$$;
CREATE FUNCTION evil.to_regclass(text) RETURNS regclass LANGUAGE plpgsql AS $$BEGIN PERFORM evil.sprung('to_regclass'); RETURN NULL; END$$;
CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM evil.sprung('quote_ident'); RETURN $1; END$$;
CREATE FUNCTION evil.to_char(timestamptz, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM evil.sprung('to_char'); RETURN 'x'; END$$;
CREATE DOMAIN evil.uuid AS text CHECK (VALUE = 'nothing');
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (VALUE = 'nothing');
CREATE TABLE evil.pg_roles (rolname name, oid oid);
SET search_path = evil, pg_catalog;
-- The traps are set:
\set VERBOSITY terse
SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text AS sprung;
\set VERBOSITY default
SELECT j.status FROM usher.enqueue_sync_job('ri-acme', 'ri.a', 'ri.b', '{"action": "ask", "id": 11}', 'high', NULL, 'evil') AS j;
SELECT j.id AS evil FROM usher.enqueue_sync_job('ri-acme', 'ri.a', 'ri.b', '{"action": "ask", "id": 12}', run_at => '2100-01-01') AS j \gset
SELECT pg_catalog.cardinality(usher.enqueue_sync_jobs('ri-acme', 'ri.a', 'ri.b', ARRAY['{"action": "ask", "id": 13}']::pg_catalog.jsonb[])) AS many;
SELECT j.status FROM usher.cancel_sync_job(:'evil') AS j;
SELECT j.status FROM usher.retry_sync_job(:'evil', '{"id": 14}') AS j;
SELECT j.status FROM usher.wait_for(:'evil', '0') AS j;
SELECT usher.grant_membership('ri-acme', 'ri-bob'), usher.revoke_membership('ri-acme', 'ri-bob');
SELECT usher.actor(), pg_catalog.cardinality(usher.member_organizations()) AS reads, pg_catalog.cardinality(usher.managed_organizations()) AS manages;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS status FROM usher.status();
-- It gains nothing either.
SELECT usher.enqueue_sync_job('ri-beta', 'ri.a', 'ri.b', '{"action": "ask", "id": 9}');
SELECT usher.grant_membership('ri-beta', 'role:regress_usher_admin', 'admin');
RESET search_path;
RESET ROLE;
-- The writer's path, while changes are captured.
GRANT USAGE ON SCHEMA evil TO PUBLIC;
SET ROLE regress_usher_writer;
SET search_path = evil, pg_catalog;
INSERT INTO ri.source SELECT o, 20, 'evil' FROM pg_catalog.unnest(ARRAY[:'acme', :'beta']::pg_catalog.uuid[]) AS o;
UPDATE ri.source SET v = 'more evil' WHERE id OPERATOR(pg_catalog.=) 20;
DELETE FROM ri.source WHERE id OPERATOR(pg_catalog.=) 20;
RESET search_path;
-- And the operator's, while jobs are processed.
SET ROLE regress_usher_op;
SET search_path = evil, pg_catalog;
SELECT usher.process_jobs();
SELECT usher.disable_flow('ri_copy'), usher.enable_flow('ri_copy');
RESET search_path;
RESET ROLE;
SELECT status, count(*) FROM usher.sync_jobs WHERE flow LIKE 'ri%' GROUP BY 1 ORDER BY 1;
SELECT error_message FROM usher.sync_jobs WHERE flow LIKE 'ri%' AND error_message IS NOT NULL;
SELECT id, v, count(*) FROM ri.target GROUP BY 1, 2 ORDER BY 1, 2;

-- A flow works with the rights of its run_as, whoever wrote the row.
SET ROLE regress_usher_op;
SELECT usher.create_flow('ri_who', $$ {"when": {"change": "ri.source", "on": ["update"]}, "then": {"upsert": "ri.target", "key": ["id"]}, "set": {"id": "1000", "v": "current_user::text || ' for ' || session_user::text"}} $$);
RESET ROLE;
SET ROLE regress_usher_writer;
UPDATE ri.source SET v = 'who' WHERE id = 1;
RESET ROLE;
CALL public.drain() \gset
SELECT v, count(*) FROM ri.target WHERE id = 1000 GROUP BY v;

-- The types of a captured table are their owner's: a cast of his must not run with the rights of the tables' owner.
CREATE ROLE regress_usher_dev NOLOGIN;
CREATE SCHEMA ri_dev AUTHORIZATION regress_usher_dev;
SET ROLE regress_usher_dev;
CREATE TYPE ri_dev.mood AS ENUM ('good', 'bad');
CREATE TYPE ri_dev.pair AS (a integer, b integer);
CREATE TABLE ri_dev.t (id integer PRIMARY KEY, mood ri_dev.mood, pair ri_dev.pair);
CREATE TABLE ri_dev.u (id integer PRIMARY KEY, mood ri_dev.mood, pair ri_dev.pair);
CREATE FUNCTION ri_dev.mood_json(ri_dev.mood) RETURNS json LANGUAGE plpgsql AS $$BEGIN IF current_user = 'postgres' THEN RAISE WARNING 'a cast to json runs as superuser'; END IF; RETURN '"good"'; END$$;
CREATE FUNCTION ri_dev.pair_text(ri_dev.pair) RETURNS text LANGUAGE plpgsql AS $$BEGIN IF current_user = 'postgres' THEN RAISE WARNING 'a cast to text runs as superuser'; END IF; RETURN '(1,2)'; END$$;
CREATE CAST (ri_dev.mood AS json) WITH FUNCTION ri_dev.mood_json(ri_dev.mood);
CREATE CAST (ri_dev.pair AS text) WITH FUNCTION ri_dev.pair_text(ri_dev.pair);
GRANT USAGE ON SCHEMA ri_dev TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA ri_dev TO regress_usher_op;
SET ROLE regress_usher_op;
SELECT usher.create_flow('ri_dev', '{"when": {"change": "ri_dev.t"}, "then": {"upsert": "ri_dev.u", "key": ["id"]}, "set": {"id": "new.id", "mood": "new.mood", "pair": "new.pair"}}');
SET ROLE regress_usher_dev;
INSERT INTO ri_dev.t VALUES (1, 'good', '(1,2)');
RESET ROLE;
CALL public.drain() \gset
SELECT usher.drop_flow('ri_dev');

SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'ri%';
SET client_min_messages = warning;
DROP TABLE answer;
DROP SCHEMA ri, ri_dev, evil CASCADE;
DELETE FROM usher.organizations WHERE slug LIKE 'ri-%';
DROP ROLE regress_usher_op, regress_usher_member, regress_usher_admin, regress_usher_legend, regress_usher_reader, regress_usher_stranger, regress_usher_nobody, regress_usher_writer, regress_usher_dev;
