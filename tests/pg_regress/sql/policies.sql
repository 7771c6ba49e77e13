-- Who reads and writes which rows is declared once, for the engine and for a pack, and comes back when somebody has bent it.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_usher_admin, regress_usher_member, regress_usher_op;
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT usher.install_pack('live_events') LIKE 'pack live_events%' AS installed;
RESET client_min_messages;

CREATE VIEW public.policies AS
SELECT schemaname || '.' || tablename AS relation, policyname, cmd, roles::text,
       replace(replace(COALESCE(qual, with_check), 'organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])', 'member'),
               'organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])', 'admin') AS rows
  FROM pg_policies WHERE schemaname IN ('usher', 'atlvs', 'compvss', 'gvteway', 'live_events');
-- Each set of policies, and the tables that have it.
SELECT policies, string_agg(relation, E'\n' ORDER BY relation) AS relations
  FROM (SELECT relation, string_agg(concat_ws(' ', policyname, cmd, roles, rows), E'\n' ORDER BY policyname) AS policies
          FROM public.policies WHERE relation !~ '^usher\.' GROUP BY 1) AS p GROUP BY 1 ORDER BY count(*) DESC, 1;
SELECT rows, cmd, count(*) FROM public.policies WHERE relation ~ '^usher\.' GROUP BY 1, 2 ORDER BY 1, 2;

-- Doing it again makes nothing anew, so that it locks nobody out.
CREATE TABLE public.before AS SELECT oid FROM pg_policy;
CREATE TABLE public.declared AS SELECT * FROM public.policies;
SET client_min_messages = warning;
SELECT usher.setup() IS NOT NULL AS again, usher.install_pack('live_events') IS NOT NULL AS again;
RESET client_min_messages;
SELECT count(*) AS made_anew FROM pg_policy WHERE oid NOT IN (SELECT oid FROM public.before);

-- What was opened is closed again; what an administrator has added stays.
ALTER POLICY member_reads ON usher.links USING (true);
CREATE POLICY everybody_reads ON usher.dead_letters FOR SELECT TO usher_member USING (true);
ALTER TABLE usher.memberships DISABLE ROW LEVEL SECURITY;
DROP POLICY usher_member_reads ON gvteway.orders;
ALTER POLICY usher_admin_inserts ON atlvs.deals TO PUBLIC;
DROP POLICY usher_admin_deletes ON atlvs.deals;
CREATE POLICY usher_admin_deletes ON atlvs.deals AS RESTRICTIVE FOR DELETE TO usher_member USING (true);
ALTER TABLE gvteway.venues DISABLE ROW LEVEL SECURITY;
ALTER POLICY operator_stops ON usher.flows TO usher_member;
ALTER POLICY pack_reads ON usher.ticket_revenue_ingestions USING (false);
CREATE POLICY auditors ON atlvs.deals FOR SELECT TO usher_reader USING (true);
SELECT count(*) AS bent FROM (TABLE public.policies EXCEPT TABLE public.declared) AS p;
SET client_min_messages = warning;
SELECT usher.setup() IS NOT NULL AS again, usher.install_pack('live_events') IS NOT NULL AS again;
RESET client_min_messages;
TABLE public.declared EXCEPT TABLE public.policies;
TABLE public.policies EXCEPT TABLE public.declared;
SELECT c.oid::regclass AS open FROM pg_class c WHERE c.relnamespace IN ('usher'::regnamespace, 'gvteway'::regnamespace, 'live_events'::regnamespace) AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity;
SELECT polpermissive FROM pg_policy WHERE polrelid = 'atlvs.deals'::regclass AND polname = 'usher_admin_deletes';

-- A table of the application's own in a pack's schema is left alone.
CREATE TABLE atlvs.own_notes (organization_id uuid, note text);
SET client_min_messages = warning;
SELECT usher.install_pack('live_events') IS NOT NULL AS again;
RESET client_min_messages;
SELECT relrowsecurity, has_table_privilege('usher_member', oid, 'SELECT, INSERT') AS members, has_table_privilege('usher_live_events', oid, 'SELECT') AS flows
  FROM pg_class WHERE oid = 'atlvs.own_notes'::regclass;
-- As is a policy of the application's that is called as ours is in schema usher.
CREATE POLICY member_reads ON gvteway.orders FOR SELECT TO usher_reader USING (true);
SELECT usher.install_pack('live_events') IS NOT NULL AS again;
SELECT count(*) FROM pg_policy WHERE polrelid = 'gvteway.orders'::regclass AND polname = 'member_reads';
DROP POLICY member_reads ON gvteway.orders;

-- What it means for people.
SELECT usher.create_organization('north') IS NOT NULL AS made, usher.create_organization('south') IS NOT NULL AS made;
CREATE ROLE regress_usher_admin IN ROLE usher_member;
CREATE ROLE regress_usher_member IN ROLE usher_member;
SELECT usher.grant_membership('north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('north', 'role:regress_usher_member');
INSERT INTO gvteway.venues (organization_id, name) SELECT id, slug FROM usher.organizations WHERE slug IN ('north', 'south');
SET ROLE regress_usher_member;
SELECT name FROM gvteway.venues;
INSERT INTO gvteway.venues (organization_id, name) SELECT id, 'mine' FROM usher.organizations WHERE slug = 'north';
UPDATE gvteway.venues SET name = 'changed';
SET ROLE regress_usher_admin;
INSERT INTO gvteway.venues (organization_id, name) SELECT id, 'second' FROM usher.organizations WHERE slug = 'north';
INSERT INTO gvteway.venues (organization_id, name) SELECT usher.uuid_v7(), 'theirs';
UPDATE gvteway.venues SET organization_id = usher.uuid_v7() WHERE name = 'second';
SELECT name FROM gvteway.venues ORDER BY 1;
INSERT INTO atlvs.project_codes SELECT;
RESET ROLE;

-- Only their owner gives tables their policies, and a declaration that cannot be kept is refused.
CREATE ROLE regress_usher_op IN ROLE usher_operator;
SET ROLE regress_usher_op;
SELECT usher.isolate_tables('{usher}', '{"every_table": true}');
RESET ROLE;
SELECT usher.isolate_tables('{atlvs}', '{"tables": {"atlvs.projects": {}}}');
SELECT usher.isolate_tables('{usher}', '{"tables": {"usher.flow": {}}}');
SELECT usher.isolate_tables('{usher}', '{"tables": {"usher.installation": {"read": "member"}}}');
SELECT usher.isolate_tables('{usher}', '{"reads": "member"}');

DROP TABLE public.before, public.declared, atlvs.own_notes;
DROP VIEW public.policies;
SELECT usher.revoke_membership('north', 'role:regress_usher_admin'), usher.revoke_membership('north', 'role:regress_usher_member');
DROP ROLE regress_usher_admin, regress_usher_member, regress_usher_op;
