-- The application's own tables of organizations and members.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ad CASCADE;
DROP ROLE IF EXISTS regress_usher_web, regress_usher_app, regress_usher_op2;
CREATE ROLE regress_usher_web;
GRANT usher_member TO regress_usher_web;
GRANT SET ON PARAMETER usher.user_id TO regress_usher_web;
CREATE ROLE regress_usher_app;
CREATE ROLE regress_usher_op2;
GRANT usher_operator TO regress_usher_op2;
RESET client_min_messages;
CREATE SCHEMA ad;
CREATE TYPE ad.kind AS ENUM ('boss', 'staff', 'guest');
CREATE TABLE ad.companies (id uuid PRIMARY KEY, short text, title text, zone text);
CREATE TABLE ad.people (company uuid REFERENCES ad.companies ON DELETE CASCADE, who uuid, kind ad.kind NOT NULL, state text, left_at date);
GRANT USAGE ON SCHEMA ad TO regress_usher_app;
GRANT ALL ON ad.companies, ad.people TO regress_usher_app;
-- Whoever asks for a person: what they may read, and what they may change.
CREATE FUNCTION ad.rights(who text, OUT reads text, OUT manages text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('usher.user_id', who, true);
    SELECT string_agg(o.slug, ',' ORDER BY o.slug) INTO reads FROM usher.organizations o WHERE o.id = ANY (usher.member_organizations());
    SELECT string_agg(o.slug, ',' ORDER BY o.slug) INTO manages FROM usher.organizations o WHERE o.id = ANY (usher.managed_organizations());
    PERFORM set_config('usher.user_id', '', true);
END
$$;
GRANT USAGE ON SCHEMA ad TO regress_usher_web;
GRANT SELECT ON usher.organizations TO regress_usher_web;
INSERT INTO ad.companies VALUES
    ('aaaaaaaa-0000-4000-8000-000000000001', 'ad-One', 'Company One', 'Europe/Berlin'),
    ('aaaaaaaa-0000-4000-8000-000000000002', 'ad-two', NULL, 'Nowhere/Land'),
    ('aaaaaaaa-0000-4000-8000-000000000003', 'no slug!', 'Three', NULL);

SELECT usher.adopt_organizations('ad.companies', slug_column => 'short', name_column => 'title', timezone_column => 'zone');
SELECT slug, name, timezone FROM usher.organizations WHERE adopted ORDER BY id;

-- Follows in the writer's transaction, whoever writes.
SET ROLE regress_usher_app;
INSERT INTO ad.companies VALUES ('aaaaaaaa-0000-4000-8000-000000000004', 'ad-four', 'Four'), ('aaaaaaaa-0000-4000-8000-000000000005', 'ad-four', 'Five'),
    ('aaaaaaaa-0000-4000-8000-000000000006', 'default', 'Six');
UPDATE ad.companies SET title = 'Two', zone = 'UTC' WHERE short = 'ad-two';
DELETE FROM ad.companies WHERE title = 'Three';
RESET ROLE;
SELECT slug, name, timezone FROM usher.organizations WHERE adopted ORDER BY id;
BEGIN;
UPDATE ad.companies SET id = 'aaaaaaaa-0000-4000-8000-000000000007' WHERE title = 'Five';
SELECT slug, name FROM usher.organizations WHERE adopted ORDER BY id;
ROLLBACK;
BEGIN;
TRUNCATE ad.companies CASCADE;
SELECT count(*) FROM usher.organizations WHERE adopted;
ROLLBACK;
-- An organization of one's own stays beside them.
SELECT usher.create_organization('ad-own') IS NOT NULL AS made;
DELETE FROM ad.companies WHERE title IN ('Five', 'Six');
SELECT slug, adopted FROM usher.organizations WHERE slug LIKE 'ad-%' ORDER BY slug;
-- Whoever may choose ids does not come by what is ours: not by the row, and below not by a membership in it.
SELECT id AS own FROM usher.organizations WHERE slug = 'ad-own' \gset
SELECT id AS standard FROM usher.organizations WHERE slug = 'default' \gset
SET ROLE regress_usher_app;
INSERT INTO ad.companies VALUES (:'own', 'ad-stolen', 'Stolen'), (:'standard', 'ad-standard', 'Standard');
RESET ROLE;
SELECT slug, name, adopted FROM usher.organizations WHERE id IN (:'own', :'standard') ORDER BY slug;
SET ROLE regress_usher_app;
-- Nor does anybody stop another's writer by a slug that is the other's id.
INSERT INTO ad.companies VALUES ('aaaaaaaa-0000-4000-8000-00000000000a', 'aaaaaaaa-0000-4000-8000-000000000001', 'Squatter');
UPDATE ad.companies SET short = 'no slug!' WHERE title = 'Company One';
RESET ROLE;
SELECT slug FROM usher.organizations WHERE id = 'aaaaaaaa-0000-4000-8000-000000000001';
UPDATE ad.companies SET short = 'ad-one' WHERE title = 'Company One';
DELETE FROM ad.companies WHERE title = 'Squatter';
SELECT slug, adopted FROM usher.organizations WHERE slug LIKE 'ad-%' ORDER BY slug;
-- What no trigger saw is found by the next look.
SET session_replication_role = replica;
INSERT INTO ad.companies VALUES ('aaaaaaaa-0000-4000-8000-000000000008', 'ad-late', 'Late');
RESET session_replication_role;
SELECT count(*) FROM usher.organizations WHERE slug = 'ad-late';
SELECT usher.attach_all() AS changed;
SELECT count(*) FROM usher.organizations WHERE slug = 'ad-late';
-- A dropped trigger is made again.
DROP TRIGGER usher_follow_insert ON ad.companies;
SELECT usher.attach_all() AS changed;

-- Members.
INSERT INTO ad.people VALUES
    ('aaaaaaaa-0000-4000-8000-000000000001', 'bbbbbbbb-0000-4000-8000-000000000001', 'boss', 'active', NULL),
    ('aaaaaaaa-0000-4000-8000-000000000002', 'bbbbbbbb-0000-4000-8000-000000000001', 'staff', 'active', NULL),
    ('aaaaaaaa-0000-4000-8000-000000000004', 'bbbbbbbb-0000-4000-8000-000000000001', 'guest', 'active', NULL),
    ('aaaaaaaa-0000-4000-8000-000000000001', 'bbbbbbbb-0000-4000-8000-000000000002', 'staff', 'active', NULL),
    ('aaaaaaaa-0000-4000-8000-000000000002', 'bbbbbbbb-0000-4000-8000-000000000002', 'boss', 'suspended', NULL),
    ('aaaaaaaa-0000-4000-8000-000000000004', 'bbbbbbbb-0000-4000-8000-000000000002', 'boss', 'active', '2020-01-01');
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'who', role_column => 'kind',
    roles => '{"boss": "admin", "staff": "member"}', condition => '{"state": "active", "left_at": null}');
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000001');
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000002');
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000003');
SELECT * FROM ad.rights('somebody');
RESET ROLE;
-- Removal, and everything else, acts at once.
BEGIN;
DELETE FROM ad.people WHERE who = 'bbbbbbbb-0000-4000-8000-000000000001' AND kind = 'boss';
SET LOCAL ROLE regress_usher_web;
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000001');
RESET ROLE;
UPDATE ad.people SET left_at = '2026-01-01';
SET LOCAL ROLE regress_usher_web;
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000001');
ROLLBACK;
-- Beside our own memberships. Only those make a legend.
SELECT usher.grant_membership('ad-own', 'bbbbbbbb-0000-4000-8000-000000000002', 'admin');
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000002');
RESET ROLE;
INSERT INTO ad.people VALUES (:'own', 'bbbbbbbb-0000-4000-8000-000000000003', 'boss', 'active', NULL);
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000003');
RESET ROLE;
DELETE FROM ad.companies WHERE id IN (:'own', :'standard');
SELECT slug, adopted FROM usher.organizations WHERE id IN (:'own', :'standard') ORDER BY slug;
-- Functions go by it as well.
SET ROLE regress_usher_web;
BEGIN;
SET LOCAL usher.user_id = 'bbbbbbbb-0000-4000-8000-000000000002';
SELECT usher.grant_membership('ad-one', 'me', 'admin');
ROLLBACK;
BEGIN;
SET LOCAL usher.user_id = 'bbbbbbbb-0000-4000-8000-000000000002';
SELECT usher.grant_membership('ad-two', 'me', 'admin');
ROLLBACK;
RESET ROLE;

-- A table of numbers, one without roles.
CREATE TABLE ad.numbered (organization_id uuid, user_id integer);
INSERT INTO ad.numbered VALUES ('aaaaaaaa-0000-4000-8000-000000000002', 7);
SELECT usher.adopt_memberships('ad.numbered', role_column => NULL);
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('7');
SELECT * FROM ad.rights('07');
SELECT * FROM ad.rights('bbbbbbbb-0000-4000-8000-000000000001');
RESET ROLE;
-- A user that the application calls like a database role is not that role.
CREATE TABLE ad.named (organization_id uuid, user_id text, role text);
CREATE INDEX ON ad.named (user_id);
INSERT INTO ad.named VALUES ('aaaaaaaa-0000-4000-8000-000000000002', 'role:regress_usher_web', 'owner');
SELECT usher.adopt_memberships('ad.named');
SET ROLE regress_usher_web;
SELECT usher.actor(), usher.member_organizations();
RESET ROLE;

-- Names that need quotes, with a dot in one.
CREATE SCHEMA "ad.odd";
CREATE TABLE "ad.odd"."Who is ""where""" (organization_id uuid, user_id text, role text);
CREATE INDEX ON "ad.odd"."Who is ""where""" (user_id);
INSERT INTO "ad.odd"."Who is ""where""" VALUES ('aaaaaaaa-0000-4000-8000-000000000002', 'odd', 'owner');
SELECT usher.adopt_memberships('"ad.odd"."Who is ""where"""');
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('odd');
RESET ROLE;
DROP SCHEMA "ad.odd" CASCADE;
SELECT usher.adopt_memberships('ad.named');
-- What is refused.
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'who', role_column => 'kind', roles => '{"boss": "legend"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'who', role_column => 'kind', roles => '{"boss": "chief"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'who', role_column => 'kind', roles => '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'who', role_column => NULL, roles => '{"boss": "admin"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'whom', role_column => 'kind');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'left_at', role_column => 'kind');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'state', user_column => 'who', role_column => 'kind');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'who', role_column => 'kind', condition => '{"state": ["active"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_memberships('ad.people', organization_column => 'company', user_column => 'who', role_column => 'kind', condition => '{"nothing": null}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_organizations('ad.people', 'state');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_organizations(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.adopt_organizations('usher.organizations');
\echo :LAST_ERROR_SQLSTATE
CREATE VIEW ad.seen AS SELECT * FROM ad.named;
SELECT usher.adopt_memberships('ad.seen');
\echo :LAST_ERROR_SQLSTATE
CREATE TEMP TABLE mine (organization_id uuid, user_id text, role text);
SELECT usher.adopt_memberships('pg_temp.mine');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_web;
SELECT usher.adopt_memberships('ad.named');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.release_memberships();
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- An operator who may not read the table.
GRANT USAGE ON SCHEMA ad TO regress_usher_op2;
SET ROLE regress_usher_op2;
SELECT usher.adopt_memberships('ad.named');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;

-- Nothing of the table's owner runs with our rights: not when it is adopted, not when it comes later.
CREATE FUNCTION ad.evil(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RAISE WARNING 'as %', current_user; RETURN 1; END$$;
CREATE INDEX evil ON ad.named (user_id) WHERE ad.evil(1) = 1;
SELECT usher.adopt_memberships('ad.named');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('eve');
RESET ROLE;
SELECT finding FROM usher.doctor() WHERE "check" = 'adopted tables';
DROP INDEX ad.evil;
ALTER TABLE ad.named ADD CONSTRAINT evil CHECK (ad.evil(1) = 1);
SELECT usher.adopt_memberships('ad.named');
ALTER TABLE ad.named DROP CONSTRAINT evil;
CREATE STATISTICS ad.evil ON (ad.evil(1)), user_id FROM ad.named;
SELECT usher.adopt_memberships('ad.named');
DROP STATISTICS ad.evil;
CREATE TABLE ad.child () INHERITS (ad.named);
CREATE INDEX evil ON ad.child (ad.evil(1));
SELECT usher.adopt_memberships('ad.named');
DROP TABLE ad.child;
SELECT state FROM usher.doctor() WHERE "check" = 'adopted tables';

-- What takes the place of the adopted table is not believed.
DROP TABLE ad.named CASCADE;
CREATE TABLE ad.named (organization_id uuid, user_id text, role text);
INSERT INTO ad.named VALUES ('aaaaaaaa-0000-4000-8000-000000000002', 'eve', 'owner');
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('eve');
RESET ROLE;
SELECT state, finding, remedy FROM usher.doctor() WHERE "check" = 'adopted tables';
SELECT usher.adopt_memberships('ad.named');
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('eve');
RESET ROLE;
ALTER TABLE ad.named DROP COLUMN role;
SET ROLE regress_usher_web;
SELECT * FROM ad.rights('eve');
RESET ROLE;
SELECT finding FROM usher.doctor() WHERE "check" = 'adopted tables';

-- Who did it is entered.
SELECT action, object, new -> 'relation' AS relation FROM usher.audit_log WHERE action LIKE 'usher.adoptions.%' ORDER BY position LIMIT 2;

-- The end of it.
SELECT usher.release_memberships();
SELECT usher.release_memberships();
\echo :LAST_ERROR_SQLSTATE
SELECT usher.release_organizations();
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'usher_follow_%';
INSERT INTO ad.companies VALUES ('aaaaaaaa-0000-4000-8000-000000000009', 'ad-nine', 'Nine');
SELECT slug, adopted FROM usher.organizations WHERE slug LIKE 'ad-%' ORDER BY slug;
SELECT state, finding FROM usher.doctor() WHERE "check" = 'adopted tables';
DELETE FROM usher.organizations WHERE slug LIKE 'ad-%';
SET client_min_messages = warning;
DROP SCHEMA ad CASCADE;
DROP OWNED BY regress_usher_web, regress_usher_app, regress_usher_op2;
DROP ROLE regress_usher_web, regress_usher_app, regress_usher_op2;
