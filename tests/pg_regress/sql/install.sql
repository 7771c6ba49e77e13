-- The extension, its tables, and what each role may do with them.
CREATE EXTENSION pg_usher;

-- Before setup() everything that needs the tables says so, with the remedy.
\pset format unaligned
\pset tuples_only on
SELECT call || E'\n  ' || string_agg(said, E'\n  ')
  FROM (VALUES
    (1, 'usher.create_organization(''acme'')'),
    (2, 'usher.grant_membership(''default'', ''ann'')'),
    (3, 'usher.revoke_membership(''default'', ''ann'')'),
    (4, 'usher.create_system(''shop'')'),
    (5, 'usher.create_flow(''f'', ''{}'')'),
    (6, 'usher.alter_flow(''f'', ''{}'')'),
    (7, 'usher.enable_flow(''f'')'),
    (8, 'usher.disable_flow(''f'')'),
    (9, 'usher.drop_flow(''f'')'),
    (10, 'usher.explain_flow(''f'')'),
    (11, 'usher.preview_flow(''f'', ''{}'')'),
    (12, 'usher.enqueue_sync_job(''default'', ''shop'', ''books'')'),
    (13, 'usher.enqueue_sync_jobs(''default'', ''shop'', ''books'', ''{}'')'),
    (14, 'usher.cancel_sync_job(''00000000-0000-7000-8000-000000000001'')'),
    (15, 'usher.retry_sync_job(''00000000-0000-7000-8000-000000000001'')'),
    (16, 'usher.wait_for(''00000000-0000-7000-8000-000000000001'')'),
    (17, 'usher.process_jobs()'),
    (18, 'usher.status()'),
    (19, 'usher.member_organizations()'),
    (20, 'usher.managed_organizations()'),
    (21, 'usher.install_pack(''live_events'')'),
    (22, 'usher.remove_pack(''live_events'')'),
    (23, 'usher.attach_all()'),
    (24, 'usher.detach_all()'),
    (25, 'usher.remove(''remove all data'')'),
    (30, 'usher.export_flows()'),
    (31, 'usher.apply_flows(''{"format": 1, "flows": {}}'')'),
    (32, 'usher.flow_history(''f'')'),
    (33, 'usher.rollback_flow(''f'')'),
    (34, 'usher.shadow_report(''f'')'),
    (35, 'usher.read_notice(''00000000-0000-7000-8000-000000000001'')'),
    -- these need no tables
    (26, 'usher.version()'),
    (27, 'usher.actor()'),
    (28, 'usher.uuid_v7()'),
    (29, 'usher.lane_name(0::smallint)')) AS c (n, call)
  CROSS JOIN LATERAL try('SELECT ' || call) AS said
 GROUP BY n, call ORDER BY n;
\pset format aligned
\pset tuples_only off

-- The doctor works without tables.
SELECT "check", state, finding, remedy FROM usher.doctor() WHERE "check" = 'setup' OR state = 'problem';

-- A role without rights is not told to run setup().
CREATE ROLE regress_usher_nobody NOLOGIN;
SET ROLE regress_usher_nobody;
SELECT usher.setup();
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP ROLE regress_usher_nobody;

SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS again;
SELECT slug, name, timezone FROM usher.organizations ORDER BY slug;

-- Its members are functions and a type; the tables belong to the database.
-- (\dx+ would also name their array types, from PostgreSQL 17 on.)
SELECT pg_describe_object(d.classid, d.objid, 0) AS member
  FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
 WHERE e.extname = 'pg_usher' AND d.deptype = 'e'
   AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typelem <> 0)
 ORDER BY 1;
\pset format unaligned
\df usher.*
\pset format aligned
\d usher.sync_jobs
\d usher.flows
-- What an extension does not say about itself, nobody knows.
SELECT p.oid::regprocedure AS without_comment FROM pg_proc p
 WHERE p.pronamespace = 'usher'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL ORDER BY 1;
SELECT c.relname AS without_comment FROM pg_class c
 WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
   AND obj_description(c.oid, 'pg_class') IS NULL ORDER BY 1;

-- Policies. The partitions of the history are named by their day.
SELECT DISTINCT regexp_replace(tablename, '\d{8}$', 'DAY') AS relation, policyname, cmd, roles,
       CASE WHEN qual = 'true' THEN 'every row'
            WHEN qual ~ '^\((organization_)?id = ANY .*usher\.member_organizations\(\)' THEN 'rows of own organizations'
            ELSE qual END AS rows
  FROM pg_policies WHERE schemaname = 'usher' ORDER BY 1, 2;
SELECT c.oid::regclass AS without_row_security FROM pg_class c
 WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity ORDER BY 1;
SELECT c.reloptions FROM pg_class c WHERE c.oid = 'usher.sync_jobs'::regclass;

-- PUBLIC may do nothing.
SELECT p.oid::regprocedure AS open_to_public FROM pg_proc p
 WHERE p.pronamespace = 'usher'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1;
SELECT c.oid::regclass AS open_to_public FROM pg_class c
 WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p', 'v')
   AND has_table_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') ORDER BY 1;
SELECT has_schema_privilege('public', 'usher', 'USAGE') AS usage, has_schema_privilege('public', 'usher', 'CREATE') AS create;
-- A function with its owner's rights, and any in plpgsql, has its search_path pinned.
SELECT p.oid::regprocedure AS unpinned FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace = 'usher'::regnamespace AND (p.prosecdef OR l.lanname = 'plpgsql')
   AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS c WHERE c LIKE 'search_path=%') ORDER BY 1;

-- Who may call what.
SELECT p.proname, has_function_privilege('usher_member', p.oid, 'EXECUTE') AS member,
       has_function_privilege('usher_reader', p.oid, 'EXECUTE') AS reader,
       has_function_privilege('usher_operator', p.oid, 'EXECUTE') AS operator
  FROM pg_proc p WHERE p.pronamespace = 'usher'::regnamespace ORDER BY 1;
-- Who may read and write which table.
SELECT regexp_replace(c.relname, '\d{8}$', 'DAY') AS relation,
       string_agg(DISTINCT CASE WHEN a.grantee = 'usher_member'::regrole THEN lower(a.privilege_type) END, ', ') AS member,
       string_agg(DISTINCT CASE WHEN a.grantee = 'usher_reader'::regrole THEN lower(a.privilege_type) END, ', ') AS reader,
       string_agg(DISTINCT CASE WHEN a.grantee = 'usher_operator'::regrole THEN lower(a.privilege_type) END, ', ') AS operator
  FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
 WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND a.grantee <> c.relowner
 GROUP BY 1 ORDER BY 1;
SELECT r.rolname, r.rolcanlogin, r.rolsuper, r.rolcreaterole, r.rolbypassrls FROM pg_roles r
 WHERE r.rolname IN ('usher_member', 'usher_reader', 'usher_operator') ORDER BY 1;
SELECT pg_has_role('usher_operator', 'usher_member', 'USAGE') AS is_member, pg_has_role('usher_operator', 'usher_reader', 'USAGE') AS is_reader;
