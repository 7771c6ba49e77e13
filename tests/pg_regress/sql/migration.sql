-- Migrations: what a plan says of two tables that exist already, what applying it does, and who may.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS mg_a, mg_b CASCADE;
DROP ROLE IF EXISTS regress_usher_mg, regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op;
CREATE SCHEMA mg_a;
CREATE SCHEMA mg_b;
CREATE TABLE mg_a.projects (organization_id uuid NOT NULL, id integer NOT NULL, code text, name text, notes text, budget text, PRIMARY KEY (organization_id, id));
CREATE TABLE mg_b.productions (organization_id uuid NOT NULL, id text NOT NULL, code text, title text, notes text, cents bigint, stage text NOT NULL DEFAULT 'draft', PRIMARY KEY (organization_id, id));
CREATE ROLE regress_usher_mg NOLOGIN;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
GRANT USAGE ON SCHEMA mg_a, mg_b TO regress_usher_mg;
GRANT SELECT, INSERT, UPDATE, DELETE ON mg_a.projects, mg_b.productions TO regress_usher_mg;
RESET client_min_messages;
SELECT usher.create_organization('mg-north') AS north \gset
SELECT usher.create_organization('mg-south') AS south \gset
SELECT usher.grant_membership('mg-north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('mg-north', 'role:regress_usher_member');
-- The rows were there before any flow. North has a bit of everything.
INSERT INTO mg_a.projects VALUES
    (:'north',  1, 'A', 'Same', 'n', '10'), (:'north',  2, 'B', 'Left only', NULL, '20'), (:'north', 3, 'C', 'Ours', 'n', '30'),
    (:'north',  4, 'D', 'Same', 'our notes', '40'), (:'north', 5, 'E', 'Twice', 'n', '50'), (:'north', 6, 'E', 'Twice', 'n', '50'),
    (:'north',  7, 'F', 'Once', 'n', '60'), (:'north', 8, 'G', 'No number', 'n', 'many'), (:'north', 9, NULL, 'No key', 'n', '80'),
    (:'north', 10, 'H', 'Hidden', 'secret', '90'), (:'south', 1, 'A', 'South', 'n', '10');
INSERT INTO mg_b.productions (organization_id, id, code, title, notes, cents) VALUES
    (:'north', 'a', 'A', 'Same', 'n', 1000), (:'north', 'b', 'X', 'Right only', NULL, 2000), (:'north', 'c', 'C', 'Theirs', 'n', 3000),
    (:'north', 'd', 'D', 'Same', 'their notes', 4000), (:'north', 'e', 'E', 'Twice', 'n', 5000), (:'north', 'f1', 'F', 'Once', 'n', 6000), (:'north', 'f2', 'F', 'Once', 'n', 6000),
    (:'north', 'g', 'G', 'No number', 'n', 7000), (:'north', 'n', NULL, 'No key', 'n', 8000), (:'south', 's', 'S', 'South only', 'n', 100);
CREATE FUNCTION mg_a.merge(changes jsonb DEFAULT '{}', more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT '{"run_as": "regress_usher_mg", "from": "atlvs", "to": "compvss", "when": {"change": "mg_a.projects"}, "if": "new.notes IS DISTINCT FROM ''secret''",
             "link": {"kind": "mg", "left": "new.id", "right": "id"}}'::jsonb || more
        || jsonb_build_object('then', '{"merge": "mg_b.productions", "match": ["code"], "strategy": "source",
             "fields": {"name": {"right": "title"}, "notes": "manual", "budget": {"right": "cents", "to_right": "new.budget::numeric * 100", "to_left": "(new.cents / 100)::text", "strategy": "target"}},
             "new_left": {"id": "hashtext(new.id)"}, "new_right": {"id": "new.id::text"}}'::jsonb || changes) $$;
-- Which systems are known depends on what ran before.
SET client_min_messages = warning;
SELECT usher.create_flow('mg', mg_a.merge()), usher.create_flow('mg_other', '{"when": {"request": "x"}, "from": "a", "to": "b", "run_as": "regress_usher_mg", "then": {"call": "pg_catalog.now"}}');
RESET client_min_messages;
-- A plan by its id and not: ids differ from run to run.
CREATE VIEW mg_a.items AS SELECT i.n, i.kind, i.action, i.left_id, i.right_id, i.fields, i.why, i.side, i.state, i.attempts, regexp_replace(i.error_message, E'\n.*', '') AS error
  FROM usher.migration_items i JOIN usher.migrations m ON m.id = i.migration_id WHERE m.planned_at = (SELECT max(planned_at) FROM usher.migrations) ORDER BY i.n;
CREATE VIEW mg_a.migrations AS SELECT o.slug, m.flow, m.version, m.state, m.left_rows, m.right_rows, m.equal, m.left_out, m.items, m.counts, m.total, m.done, m.failed, m.error_message
  FROM usher.migrations m LEFT JOIN usher.organizations o ON o.id = m.organization_id WHERE m.flow = 'mg' ORDER BY m.planned_at;

-- What cannot be planned.
SELECT c AS call, t FROM unnest(ARRAY['''nobody''', '''mg_other''', '''mg:back''', 'NULL', '''mg'', ''nowhere''']) AS c CROSS JOIN LATERAL public.try('SELECT usher.reconcile(' || c || ')') AS t;
SELECT usher.switch_flow('mg', 'mg-north', false) \gset off_
SELECT public.try($$SELECT usher.reconcile('mg', 'mg-north')$$);
SELECT usher.switch_flow('mg', 'mg-north', true) \gset on_
SET ROLE regress_usher_member;
SELECT public.try($$SELECT usher.reconcile('mg', 'mg-north')$$);
SET ROLE regress_usher_stranger;
SELECT public.try($$SELECT usher.reconcile('mg', 'mg-north')$$);
SET ROLE regress_usher_admin;
SELECT public.try($$SELECT usher.reconcile('mg', 'mg-south')$$);
SELECT public.try($$SELECT usher.reconcile('mg')$$);
RESET ROLE;
ALTER TABLE mg_b.productions RENAME COLUMN title TO caption;
SELECT public.try($$SELECT usher.reconcile('mg', 'mg-north')$$);
ALTER TABLE mg_b.productions RENAME COLUMN caption TO title;
SELECT CASE WHEN name = 'mg' THEN state END AS mended FROM usher.flows WHERE name = 'mg';
SELECT count(*) AS plans FROM usher.migrations;

-- A plan for one organization, by its admin: nothing is written, and every kind is told.
SET ROLE regress_usher_admin;
SELECT usher.reconcile('mg', 'mg-north') AS id \gset
SELECT kind, action, items, says, samples FROM usher.show_plan(:'id');
SELECT n, kind, action, left_id, right_id, fields, why, side, state FROM usher.migration_items WHERE migration_id = :'id' ORDER BY n;
SELECT flow, state, left_rows, right_rows, equal, left_out, items, counts, total, done FROM usher.migrations;
RESET ROLE;
SELECT error FROM mg_a.items WHERE error IS NOT NULL;
SELECT (SELECT count(*) FROM mg_a.projects) AS projects, (SELECT count(*) FROM mg_b.productions) AS productions, (SELECT count(*) FROM usher.links WHERE kind = 'mg') AS links,
       (SELECT count(*) FROM usher.conflicts WHERE message ~ 'mg_a') AS conflicts, (SELECT count(*) FROM usher.sync_jobs WHERE flow ~ '^mg(:|$)') AS jobs;
-- Others see none of it.
SET ROLE regress_usher_member;
SELECT (SELECT count(*) FROM usher.migrations) AS plans, (SELECT count(*) FROM usher.migration_items) AS items;
SELECT regexp_replace(t, :'id', 'ID') FROM unnest(ARRAY['show_plan', 'apply_migration', 'pause_migration', 'resume_migration', 'cancel_migration']) AS f
 CROSS JOIN LATERAL public.try(format('SELECT usher.%I(%L)', f, :'id')) AS t WHERE t NOT LIKE '%HINT%';
RESET ROLE;

-- Bad input.
SELECT c AS call, regexp_replace(t, :'id', 'ID', 'g') AS t FROM unnest(ARRAY['show_plan(NULL)', 'show_plan(''00000000-0000-0000-0000-000000000000'')', 'show_plan(''%1$s'', -1)',
        'apply_migration(''%1$s'', slice => 0)', 'apply_migration(''%1$s'', ''{mached}'')', 'apply_migration(''%1$s'', actions => ''{nothing}'')', 'apply_migration(''%1$s'', ''{}'')',
        'apply_migration(''%1$s'', ''{ambiguous}'')', 'pause_migration(''%1$s'')', 'resume_migration(''%1$s'')']) AS c
 CROSS JOIN LATERAL public.try('SELECT usher.' || replace(c, '%1$s', :'id')) AS t;
SELECT usher.disable_flow('mg') \gset off_
SELECT public.try(format('SELECT usher.apply_migration(%L)', :'id'));
SELECT usher.enable_flow('mg') \gset on_

-- First only the links: nothing else is touched.
SET ROLE regress_usher_admin;
SELECT usher.apply_migration(:'id', actions => '{link}');
SELECT regexp_replace(t, :'id', 'ID') FROM public.try(format('SELECT usher.apply_migration(%L)', :'id')) AS t;
SELECT usher.pause_migration(:'id');
RESET ROLE;
CALL public.drain() \gset
SELECT handled AS while_it_is_paused FROM (SELECT :handled AS handled) AS h;
SELECT usher.resume_migration(:'id');
CALL public.drain() \gset
SELECT * FROM mg_a.migrations;
SELECT left_id, right_id, paired, flow FROM usher.links WHERE kind = 'mg' ORDER BY 1;
-- Then all the rest, four items in a transaction. One row changes in between: it is merged as it is then.
SELECT usher.apply_migration(:'id', slice => 4);
UPDATE mg_b.productions SET title = 'Changed since' WHERE id = 'c';
CALL public.drain() \gset
SELECT * FROM mg_a.migrations;
SELECT n, kind, action, left_id, right_id, state, attempts, error FROM mg_a.items;
SELECT kind, action, items, done, failed, says FROM usher.show_plan(:'id', 0);
SELECT id, code, name, notes, budget FROM mg_a.projects WHERE organization_id = :'north' ORDER BY code, id;
SELECT id, code, title, notes, cents, stage FROM mg_b.productions WHERE organization_id = :'north' ORDER BY code, id;
SELECT state, fields, ours, theirs FROM usher.conflicts WHERE message ~ 'mg_a';
SELECT regexp_replace(t, :'id', 'ID') FROM public.try(format('SELECT usher.apply_migration(%L)', :'id')) AS t;
SELECT regexp_replace(t, :'id', 'ID') FROM unnest(ARRAY['pause_migration', 'resume_migration', 'cancel_migration']) AS f CROSS JOIN LATERAL public.try(format('SELECT usher.%I(%L)', f, :'id')) AS t;

-- The next plan: what was settled is equal, what stays says why. A row that was deleted while nobody listened is told of, and left.
SET usher.capture = off;
DELETE FROM mg_b.productions WHERE id = 'b';
RESET usher.capture;
SELECT usher.reconcile('mg', :'north') AS id \gset
SELECT kind, action, items, says, samples FROM usher.show_plan(:'id');
SELECT usher.cancel_migration(:'id');
SELECT regexp_replace(t, :'id', 'ID') FROM public.try(format('SELECT usher.apply_migration(%L)', :'id')) AS t;

-- All organizations at once, for operators; and what a change of the rules does to a plan.
SET ROLE regress_usher_op;
SELECT usher.reconcile('mg') AS id \gset
SELECT o.slug, i.kind, i.action, i.left_id, i.right_id FROM usher.migration_items i JOIN usher.organizations o ON o.id = i.organization_id WHERE i.migration_id = :'id' AND o.slug = 'mg-south' ORDER BY i.n;
SELECT usher.apply_migration(:'id');
RESET ROLE;
SELECT usher.alter_flow('mg', mg_a.merge('{"creates": "left"}')) \gset altered_
CALL public.drain() \gset
SELECT state, error_message FROM usher.migrations WHERE id = :'id';
SELECT regexp_replace(finding, :'id', 'ID') AS finding FROM usher.doctor() WHERE "check" = 'migrations';
SELECT regexp_replace(t, :'id', 'ID') FROM public.try(format('SELECT usher.resume_migration(%L)', :'id')) AS t;
SELECT usher.cancel_migration(:'id');
-- Rows are made on the left only: the plan says so. And a row that cannot be written fails by itself, and can be tried again.
SELECT usher.reconcile('mg', 'mg-south') AS id \gset
SELECT kind, action, says FROM usher.show_plan(:'id');
ALTER TABLE mg_a.projects ADD CONSTRAINT no_south CHECK (name <> 'South only');
SELECT usher.apply_migration(:'id');
CALL public.drain() \gset
SELECT kind, action, left_id, right_id, state, error FROM mg_a.items;
SELECT kind, failed, samples FROM usher.show_plan(:'id') WHERE failed > 0;
ALTER TABLE mg_a.projects DROP CONSTRAINT no_south;
SELECT usher.apply_migration(:'id');
CALL public.drain() \gset
SELECT kind, action, left_id, right_id, state, error FROM mg_a.items;
SELECT code, name FROM mg_a.projects WHERE organization_id = :'south' ORDER BY code;
SELECT state, total, done, failed FROM usher.migrations WHERE id = :'id';

-- What was done is in the log.
SELECT o.slug, l.action, l.new FROM usher.audit_log l LEFT JOIN usher.organizations o ON o.id = l.organization_id WHERE l.action LIKE 'usher.migrations.%' ORDER BY l.recorded_at;

-- Random tables: a plan must say the same as a full outer join that somebody would write by hand. By key alone, then with links.
CREATE TABLE mg_a.l (id integer PRIMARY KEY, k integer, v integer, w integer);
CREATE TABLE mg_b.r (id integer PRIMARY KEY, k integer, v integer, w integer);
GRANT SELECT, INSERT, UPDATE, DELETE ON mg_a.l, mg_b.r TO regress_usher_mg;
SELECT usher.create_flow('mg_random', '{"run_as": "regress_usher_mg", "when": {"change": "mg_a.l"}, "link": {"kind": "mg_random", "left": "new.id", "right": "id"},
    "then": {"merge": "mg_b.r", "match": ["k"], "fields": {"v": "source", "w": "manual"}, "creates": "right", "new_right": {"id": "new.id + 1000"}}}');
CREATE FUNCTION mg_a.by_hand() RETURNS TABLE (kind text, action text, left_id text, right_id text) LANGUAGE sql AS $$
    WITH linked AS (SELECT k.left_id::int AS a, k.right_id::int AS b, k.paired FROM usher.links k WHERE k.kind = 'mg_random'),
    lt AS (SELECT l.*, (SELECT a FROM linked WHERE a = l.id) AS tie FROM mg_a.l), rt AS (SELECT r.*, (SELECT a FROM linked WHERE b = r.id) AS tie FROM mg_b.r),
    -- Keys of rows whose link no merge has met.
    loose AS (SELECT t.k FROM lt t JOIN linked ON a = t.id WHERE NOT paired UNION ALL SELECT t.k FROM rt t JOIN linked ON b = t.id WHERE NOT paired),
    -- How many rows that are not linked have the key of a row, on both sides; and whether one that is linked has it on the other.
    lc AS (SELECT l.*, (SELECT count(*) FROM lt o WHERE o.k = l.k AND o.tie IS NULL) AS ls, (SELECT count(*) FROM rt o WHERE o.k = l.k AND o.tie IS NULL) AS rs,
                  EXISTS (SELECT FROM rt o WHERE o.k = l.k AND o.tie IS NOT NULL) AS taken, EXISTS (SELECT FROM loose o WHERE o.k = l.k) AS loose FROM lt l),
    rc AS (SELECT r.*, (SELECT count(*) FROM lt o WHERE o.k = r.k AND o.tie IS NULL) AS ls, (SELECT count(*) FROM rt o WHERE o.k = r.k AND o.tie IS NULL) AS rs,
                  EXISTS (SELECT FROM lt o WHERE o.k = r.k AND o.tie IS NOT NULL) AS taken, EXISTS (SELECT FROM loose o WHERE o.k = r.k) AS loose FROM rt r),
    -- Linked rows meet by the link, all others by a key that is unique on both sides.
    l AS (SELECT *, CASE WHEN tie IS NOT NULL THEN 'link ' || tie WHEN ls = 1 AND rs = 1 AND NOT loose THEN 'key ' || k ELSE 'left ' || id END AS meets FROM lc),
    r AS (SELECT *, CASE WHEN tie IS NOT NULL THEN 'link ' || tie WHEN ls = 1 AND rs = 1 AND NOT loose THEN 'key ' || k ELSE 'right ' || id END AS meets FROM rc)
    SELECT CASE WHEN l.id IS NOT NULL AND r.id IS NOT NULL THEN CASE WHEN l.v IS DISTINCT FROM r.v OR l.w IS DISTINCT FROM r.w THEN 'different' ELSE 'matched' END
                WHEN COALESCE(l.tie, r.tie) IS NULL AND (l.ls > 1 OR l.rs > 0 OR l.taken OR r.rs > 1 OR r.ls > 0 OR r.taken) THEN 'ambiguous' WHEN l.id IS NULL THEN 'only_right' ELSE 'only_left' END,
           CASE WHEN l.id IS NOT NULL AND r.id IS NOT NULL THEN CASE WHEN l.w IS DISTINCT FROM r.w THEN 'conflict' WHEN l.v IS DISTINCT FROM r.v THEN 'write_right' ELSE 'link' END
                WHEN r.id IS NULL AND l.tie IS NULL AND l.ls <= 1 AND l.rs = 0 AND NOT l.taken THEN 'make_right' ELSE 'nothing' END,
           COALESCE(l.id, r.tie)::text, COALESCE(r.id, (SELECT k.b FROM linked k WHERE k.a = l.tie))::text
      FROM l FULL JOIN r USING (meets) $$;
CREATE FUNCTION mg_a.round(seed float8, with_links boolean) RETURNS TABLE (items bigint, kinds bigint, wrong bigint, not_done bigint, left_over bigint, made_wrong bigint) LANGUAGE plpgsql AS $$
DECLARE plan uuid; again uuid; rows_before bigint;
BEGIN
    SET LOCAL usher.capture = off;
    PERFORM setseed(seed);
    DELETE FROM mg_a.l; DELETE FROM mg_b.r; DELETE FROM usher.links WHERE kind = 'mg_random';
    INSERT INTO mg_a.l SELECT n, NULLIF((random() * 60)::int, 7), (random() * 2)::int, NULLIF((random() * 5)::int, 0) FROM generate_series(1, 50) n WHERE random() < 0.9;
    INSERT INTO mg_b.r SELECT n, NULLIF((random() * 60)::int, 7), (random() * 2)::int, NULLIF((random() * 5)::int, 0) FROM generate_series(1, 50) n WHERE random() < 0.9;
    UPDATE mg_b.r SET v = l.v, w = l.w FROM mg_a.l WHERE l.k = r.k AND random() < 0.6;
    IF with_links THEN
        -- Also of rows that are not there; some as merges keep them, some not.
        INSERT INTO usher.links (organization_id, id, kind, left_id, right_id, paired, base)
        SELECT o.id, usher.uuid_v7(), 'mg_random', n, n + 3, n % 8 = 1, CASE WHEN n % 8 = 1 THEN '{}'::jsonb END FROM usher.organizations o, generate_series(1, 45, 4) n WHERE o.slug = 'default';
    END IF;
    SELECT count(*) INTO rows_before FROM mg_b.r;
    plan := usher.reconcile('mg_random', 'default');
    CREATE TEMP TABLE hand ON COMMIT DROP AS SELECT * FROM mg_a.by_hand();
    -- What the plan says is what the merge does: afterwards only what nobody may decide or pair is left.
    PERFORM usher.apply_migration(plan, slice => 7);
    FOR n IN 1..30 LOOP PERFORM usher.process_jobs(); END LOOP;
    -- Keys that were ambiguous because of a link that no merge had met are not so any more: once more.
    again := usher.reconcile('mg_random', 'default');
    IF EXISTS (SELECT FROM usher.migration_items i WHERE i.migration_id = again AND i.state = 'planned') THEN
        PERFORM usher.apply_migration(again);
        FOR n IN 1..5 LOOP PERFORM usher.process_jobs(); END LOOP;
    END IF;
    again := usher.reconcile('mg_random', 'default');
    RETURN QUERY
    WITH planned AS (SELECT i.kind, i.action, i.left_id, i.right_id FROM usher.migration_items i WHERE i.migration_id = plan)
    SELECT (SELECT count(*) FROM planned), (SELECT count(DISTINCT p.kind) FROM planned p),
           (SELECT count(*) FROM ((TABLE planned EXCEPT ALL TABLE hand) UNION ALL (TABLE hand EXCEPT ALL TABLE planned)) AS d),
           (SELECT count(*) FROM usher.migration_items i WHERE i.migration_id = plan AND i.state NOT IN ('done', 'none')),
           (SELECT count(*) FROM usher.migration_items i WHERE i.migration_id = again AND i.action NOT IN ('conflict', 'nothing')),
           (SELECT count(*) FROM mg_b.r) - rows_before - (SELECT count(*) FROM planned WHERE action = 'make_right');
    DROP TABLE hand;
END $$;
SELECT with_links, count(*) AS rounds, min(r.kinds) >= 4 AS of_all_kinds, sum(r.items) > 500 AS many, sum(r.wrong) AS wrong, sum(r.not_done) AS not_done, sum(r.left_over) AS left_over,
       sum(abs(r.made_wrong)) AS made_wrong
  FROM generate_series(1, 15) AS n CROSS JOIN unnest(ARRAY[false, true]) AS with_links CROSS JOIN LATERAL mg_a.round(n / 16.0, with_links) AS r GROUP BY 1 ORDER BY 1;
-- Two links that lead to one row: the first is its pair.
DELETE FROM usher.links WHERE kind = 'mg_random';
SET usher.capture = off;
TRUNCATE mg_a.l, mg_b.r;
INSERT INTO mg_a.l VALUES (1, 1, 1, 1), (2, 2, 2, 2);
INSERT INTO mg_b.r VALUES (1, 1, 1, 1), (2, 2, 2, 2);
RESET usher.capture;
INSERT INTO usher.links (organization_id, id, kind, left_id, right_id)
SELECT o.id, usher.uuid_v7(), 'mg_random', n, 1 FROM usher.organizations o, generate_series(1, 2) AS n WHERE o.slug = 'default' ORDER BY n;
SELECT usher.reconcile('mg_random', 'default') AS id \gset
SELECT kind, action, left_id, right_id, why FROM usher.migration_items WHERE migration_id = :'id' ORDER BY n;

-- Tables whose policies show each organization its own rows: the role of the flow sees those of the migration's organization.
CREATE TABLE mg_a.kept (organization_id uuid, id integer, code text, name text, PRIMARY KEY (organization_id, id));
CREATE TABLE mg_b.kept (LIKE mg_a.kept INCLUDING ALL);
INSERT INTO mg_a.kept VALUES (:'north', 1, 'A', 'left'), (:'south', 2, 'A', 'south');
INSERT INTO mg_b.kept VALUES (:'north', 5, 'B', 'right');
ALTER TABLE mg_a.kept ENABLE ROW LEVEL SECURITY;
ALTER TABLE mg_b.kept ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON mg_a.kept USING (organization_id = ANY ((SELECT usher.member_organizations())::uuid[]));
CREATE POLICY mine ON mg_b.kept USING (organization_id = ANY ((SELECT usher.member_organizations())::uuid[]));
GRANT SELECT, INSERT, UPDATE, DELETE ON mg_a.kept, mg_b.kept TO regress_usher_mg;
GRANT usher_member TO regress_usher_mg;
SELECT usher.create_flow('mg_kept', '{"run_as": "regress_usher_mg", "when": {"change": "mg_a.kept"}, "link": {"kind": "mg_kept", "left": "new.id", "right": "id"},
    "then": {"merge": "mg_b.kept", "match": ["code"], "strategy": "source", "fields": ["name"], "new_left": {"id": "new.id"}, "new_right": {"id": "new.id"}}}');
SELECT usher.reconcile('mg_kept', 'mg-north') AS id \gset
SELECT usher.apply_migration(:'id') AS done \gset
CALL public.drain() \gset
SELECT count(*) FILTER (WHERE organization_id = :'north') AS north, count(*) FILTER (WHERE organization_id = :'south') AS south FROM mg_a.kept;
SELECT count(*) FILTER (WHERE organization_id = :'north') AS north, count(*) FILTER (WHERE organization_id = :'south') AS south FROM mg_b.kept;
-- Tables that say nothing of organizations are of one, and nobody else's plan counts their rows.
CREATE TABLE mg_a.fixed (id integer PRIMARY KEY, name text);
CREATE TABLE mg_b.fixed (id integer PRIMARY KEY, name text);
INSERT INTO mg_a.fixed VALUES (1, 'x'), (2, 'y');
GRANT SELECT, INSERT, UPDATE, DELETE ON mg_a.fixed, mg_b.fixed TO regress_usher_mg;
SELECT usher.create_flow('mg_fixed', '{"run_as": "regress_usher_mg", "organization": "''mg-south''", "when": {"change": "mg_a.fixed"}, "link": {"kind": "mg_fixed", "left": "new.id", "right": "id"},
    "then": {"merge": "mg_b.fixed", "fields": ["name"], "new_left": {"id": "new.id"}, "new_right": {"id": "new.id"}}}');
SELECT usher.reconcile('mg_fixed', 'mg-north') AS id \gset
SELECT left_rows, right_rows FROM usher.migrations WHERE id = :'id';
SELECT usher.reconcile('mg_fixed', 'mg-south') AS id \gset
SELECT left_rows, right_rows FROM usher.migrations WHERE id = :'id';

-- Gone without a trace.
SELECT usher.drop_flow('mg'), usher.drop_flow('mg_other'), usher.drop_flow('mg_random'), usher.drop_flow('mg_kept'), usher.drop_flow('mg_fixed');
SET client_min_messages = warning;
DELETE FROM usher.migration_items; DELETE FROM usher.migrations;
DELETE FROM usher.links WHERE kind LIKE 'mg%';
DELETE FROM usher.conflicts WHERE message ~ 'mg_a';
DROP SCHEMA mg_a, mg_b CASCADE;
DROP ROLE regress_usher_mg, regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op;
