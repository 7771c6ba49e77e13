-- What the house rules say about every object, asked of the catalog, so that what is added later is covered by itself.
-- A row is a violation. Runs with a pack installed: its schemas keep the same rules.
SET client_min_messages = warning;
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT usher.install_pack('live_events') LIKE 'pack live_events%' AS installed;
RESET client_min_messages;

CREATE VIEW public.violations AS
WITH room AS (
    SELECT oid, nspname, nspacl, nspowner FROM pg_namespace WHERE nspname = 'usher'
        OR obj_description(oid, 'pg_namespace') LIKE 'Pack %'
), routine AS (
    SELECT p.*, l.lanname, room.nspname FROM pg_proc p JOIN room ON room.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
), relation AS (
    SELECT c.*, regexp_replace(c.oid::regclass::text, '_[0-9]{8}$', '_DAY') AS label FROM pg_class c JOIN room ON room.oid = c.relnamespace
)
SELECT 'PUBLIC may call it' AS violation, p.oid::regprocedure::text AS object FROM routine p
 WHERE has_function_privilege('public', p.oid, 'EXECUTE')
UNION ALL
SELECT 'function without comment', p.oid::regprocedure::text FROM routine p WHERE COALESCE(obj_description(p.oid, 'pg_proc'), '') = ''
UNION ALL
-- "internal" says that only pg_usher's own triggers and statements call it.
SELECT 'granted to nobody, and does not say that it is internal', p.oid::regprocedure::text FROM routine p
 WHERE nspname = 'usher' AND COALESCE(obj_description(p.oid, 'pg_proc'), '') NOT LIKE 'internal: %'
   AND NOT EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee <> p.proowner AND a.privilege_type = 'EXECUTE')
UNION ALL
SELECT 'granted to somebody who is not one of its roles', p.oid::regprocedure || ' to ' || pg_get_userbyid(a.grantee)
  FROM routine p CROSS JOIN LATERAL aclexplode(p.proacl) a
 WHERE nspname = 'usher' AND a.grantee NOT IN (p.proowner, 0) AND pg_get_userbyid(a.grantee) !~ '^usher_(member|reader|operator)$'
UNION ALL
-- What has an SQL body (BEGIN ATOMIC, RETURN) found its names when it was made.
SELECT CASE WHEN p.prosecdef THEN 'runs with its owner''s rights, and its search_path is not pinned' ELSE 'its search_path is not pinned' END,
       p.oid::regprocedure::text
  FROM routine p
 WHERE (p.prosecdef OR p.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL)
   AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting WHERE setting ~ '^search_path=pg_catalog, (.*, )?pg_temp$')
UNION ALL
SELECT 'no row level security', label FROM relation WHERE relkind IN ('r', 'p') AND NOT relrowsecurity
UNION ALL
SELECT 'no policy', label FROM relation c WHERE relkind IN ('r', 'p') AND NOT relispartition
   AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
UNION ALL
SELECT DISTINCT 'a policy for everybody', label || ': ' || p.polname FROM relation c JOIN pg_policy p ON p.polrelid = c.oid WHERE 0 = ANY (p.polroles)
UNION ALL
SELECT DISTINCT 'a partition with rules of its own', label FROM relation c
 WHERE relispartition AND relkind = 'r' AND (EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
       OR EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner AND pg_get_userbyid(a.grantee) LIKE 'usher\_%'))
UNION ALL
SELECT DISTINCT 'PUBLIC may ' || lower(a.privilege_type), label FROM relation c CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE a.grantee = 0
UNION ALL
SELECT 'PUBLIC may ' || lower(a.privilege_type), label || '.' || t.attname
  FROM relation c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN LATERAL aclexplode(t.attacl) a WHERE a.grantee = 0
UNION ALL
SELECT 'PUBLIC may ' || lower(a.privilege_type), 'schema ' || nspname FROM room CROSS JOIN LATERAL aclexplode(nspacl) a WHERE a.grantee = 0
UNION ALL
SELECT 'a view with its owner''s rights', label FROM relation
 WHERE relkind = 'v' AND NOT COALESCE('security_invoker=true' = ANY (reloptions), false)
   -- These two read the ledger of batches, which members may not, and show them their own organizations' jobs.
   AND NOT (label IN ('usher.visible_ready_jobs', 'usher.visible_done_jobs') AND 'security_barrier=true' = ANY (reloptions))
UNION ALL
SELECT 'relation without comment', label FROM relation c
 WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition AND COALESCE(obj_description(c.oid, 'pg_class'), '') = ''
UNION ALL
SELECT 'type without comment', t.oid::regtype::text FROM pg_type t JOIN room ON room.oid = t.typnamespace
 WHERE (t.typtype IN ('d', 'e') OR t.typrelid IN (SELECT oid FROM relation WHERE relkind = 'c')) AND COALESCE(obj_description(t.oid, 'pg_type'), '') = ''
UNION ALL
-- Two tenants never meet, also in a key. The log of jobs and that of the audit go by positions, which are nobody's; a pause, and
-- a plan of a migration, may be for everybody, and then names no organization.
SELECT 'a key of a tenant''s table that does not lead with organization_id', i.indexrelid::regclass::text
  FROM relation c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'organization_id'
 WHERE i.indisunique AND NOT c.relispartition AND t.attnum <> i.indkey[0] AND label NOT IN ('usher.jobs', 'usher.audit_log', 'usher.pause_orders', 'usher.migrations')
UNION ALL
SELECT 'a reference to a tenant''s table that does not lead with organization_id', label || ': ' || k.conname
  FROM relation c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f'
  JOIN pg_attribute t ON t.attrelid = k.confrelid AND t.attname = 'organization_id'
 WHERE t.attnum <> k.confkey[1]
UNION ALL
SELECT 'an event trigger of a function that is not pg_usher''s', evtname FROM pg_event_trigger e
 WHERE evtname LIKE 'usher%' AND e.evtfoid NOT IN (SELECT oid FROM routine WHERE nspname = 'usher')
UNION ALL
SELECT 'a relation, type or default privilege that belongs to the extension', pg_describe_object(d.classid, d.objid, 0)
  FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
 WHERE e.extname = 'pg_usher' AND d.deptype = 'e'
   AND (d.classid = 'pg_class'::regclass OR d.classid = 'pg_default_acl'::regclass)
UNION ALL
SELECT 'a function of schema usher that does not belong to the extension', p.oid::regprocedure::text FROM routine p
 WHERE nspname = 'usher' AND NOT EXISTS (
    SELECT FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
     WHERE e.extname = 'pg_usher' AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND d.objid = p.oid);

SELECT * FROM public.violations ORDER BY 1, 2;

-- Each of them can be found.
BEGIN;
CREATE FUNCTION usher.open_to_all() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN 1; END';
CREATE FUNCTION usher.for_nobody(a integer) RETURNS integer LANGUAGE sql SET search_path = public, pg_temp AS 'SELECT 1';
REVOKE ALL ON FUNCTION usher.for_nobody FROM PUBLIC;
COMMENT ON FUNCTION usher.for_nobody IS 'says what it does';
CREATE TABLE usher.bare (organization_id uuid, id uuid CONSTRAINT bare_pkey PRIMARY KEY);
CREATE TABLE usher.half (organization_id uuid, bare uuid CONSTRAINT half_bare REFERENCES usher.bare);
ALTER TABLE usher.half ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON usher.half USING (true);
GRANT SELECT ON usher.half TO PUBLIC;
GRANT INSERT (organization_id) ON usher.half TO PUBLIC;
GRANT USAGE ON SCHEMA usher TO PUBLIC;
CREATE POLICY more ON usher.job_history_default TO usher_reader USING (true);
CREATE VIEW usher.looking_glass AS SELECT 1 AS a;
CREATE TYPE usher.mood AS ENUM ('good');
CREATE TYPE usher.pair AS (a integer, b integer);
GRANT EXECUTE ON FUNCTION usher.remove TO pg_monitor;
GRANT EXECUTE ON FUNCTION usher.actor TO PUBLIC;
CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER usher_stranger ON sql_drop EXECUTE FUNCTION public.watch();
CREATE FUNCTION atlvs.unpinned() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE TABLE atlvs.strange (a integer);
CREATE TABLE usher.member (a integer);
ALTER EXTENSION pg_usher ADD TABLE usher.member;
SELECT * FROM public.violations ORDER BY 1, 2;
ROLLBACK;
DROP VIEW public.violations;

SET client_min_messages = warning;
SELECT usher.remove_pack('live_events') IS NOT NULL AS removed;
DROP SCHEMA atlvs, compvss, gvteway, live_events CASCADE;
DROP ROLE usher_live_events;
