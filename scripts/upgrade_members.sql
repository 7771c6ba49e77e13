-- What an extension consists of, one row for each member: how it is made, what stands in its way if it must be made anew,
-- and what is said and granted afterwards. Read by scripts/upgrade_script.sh in a database of either version.
SET search_path = pg_catalog, pg_temp;
CREATE TEMP TABLE members AS
WITH member AS (
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_usher'
), privilege AS (
    SELECT p.oid, COALESCE(string_agg(
               format('GRANT EXECUTE ON FUNCTION %s TO %s;', p.oid::regprocedure,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END), E'\n'
               ORDER BY pg_get_userbyid(a.grantee)) FILTER (WHERE a.grantee <> p.proowner), '') AS grants
      FROM pg_proc p LEFT JOIN LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a ON true
     WHERE p.pronamespace = 'usher'::regnamespace GROUP BY p.oid
)
-- Arguments by name and result: where one of them differs, CREATE OR REPLACE refuses.
SELECT 'function' AS kind, p.oid::regprocedure::text AS name,
       -- As the control file says it, so that a library in another place is found.
       CASE WHEN p.prokind = 'a' THEN (
           SELECT format(E'CREATE AGGREGATE %s(%s) (\n    SFUNC = %s, STYPE = %s', p.oid::regproc, pg_get_function_arguments(p.oid), a.aggtransfn, a.aggtranstype::regtype)
               || CASE WHEN a.aggtransspace <> 0 THEN format(', SSPACE = %s', a.aggtransspace) ELSE '' END
               || CASE WHEN a.aggcombinefn <> 0 THEN format(', COMBINEFUNC = %s', a.aggcombinefn) ELSE '' END
               || CASE WHEN a.aggfinalfn <> 0 THEN format(', FINALFUNC = %s', a.aggfinalfn) ELSE '' END
               || CASE p.proparallel WHEN 's' THEN ', PARALLEL = SAFE' WHEN 'r' THEN ', PARALLEL = RESTRICTED' ELSE '' END || ')'
             FROM pg_aggregate a WHERE a.aggfnoid = p.oid)
       ELSE regexp_replace(pg_get_functiondef(p.oid), E'\nAS ''[^'']*pg_usher'', ', E'\nAS ''MODULE_PATHNAME'', ') END AS made_by,
       concat_ws(' ', pg_get_function_identity_arguments(p.oid), 'RETURNS', pg_get_function_result(p.oid), p.prokind) AS shape,
       p.pronargdefaults AS defaults, privilege.grants,
       CASE WHEN p.prokind = 'a' THEN format('AGGREGATE %s(%s)', p.oid::regproc, pg_get_function_identity_arguments(p.oid))
            ELSE 'FUNCTION ' || p.oid::regprocedure END AS said_of, obj_description(p.oid, 'pg_proc') AS comment,
       -- C first: what is written in SQL may call it.
       (CASE l.lanname WHEN 'c' THEN 1 WHEN 'plpgsql' THEN 2 ELSE 3 END) * 1e10 + p.oid::bigint::numeric AS position
  FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
  JOIN pg_language l ON l.oid = p.prolang JOIN privilege ON privilege.oid = p.oid
UNION ALL
SELECT 'type', t.oid::regtype::text,
       (SELECT format(E'CREATE TYPE %s AS (\n%s\n)', t.oid::regtype,
                      string_agg(format('    %I %s', a.attname, format_type(a.atttypid, a.atttypmod)), E',\n' ORDER BY a.attnum))
          FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
       '', 0, '', 'TYPE ' || t.oid::regtype, obj_description(t.oid, 'pg_type'), t.oid::bigint
  FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND m.objid = t.oid AND t.typtype = 'c'
UNION ALL
SELECT 'event trigger', e.evtname,
       format('CREATE EVENT TRIGGER %I ON %s%s EXECUTE FUNCTION %s()', e.evtname, e.evtevent,
              COALESCE(' WHEN TAG IN (' || (SELECT string_agg(quote_literal(tag), ', ') FROM unnest(e.evttags) AS tag) || ')', ''),
              e.evtfoid::regproc)
           || CASE e.evtenabled WHEN 'O' THEN '' WHEN 'A' THEN format(E';\nALTER EVENT TRIGGER %I ENABLE ALWAYS', e.evtname)
                   WHEN 'R' THEN format(E';\nALTER EVENT TRIGGER %I ENABLE REPLICA', e.evtname)
                   ELSE format(E';\nALTER EVENT TRIGGER %I DISABLE', e.evtname) END,
       '', 0, '', format('EVENT TRIGGER %I', e.evtname), obj_description(e.oid, 'pg_event_trigger'), 1e12 + e.oid::bigint
  FROM member m JOIN pg_event_trigger e ON m.classid = 'pg_event_trigger'::regclass AND m.objid = e.oid
UNION ALL
-- Not a member, but made with the extension.
SELECT 'schema', 'usher', '', '', 0,
       (SELECT string_agg(format('GRANT %s ON SCHEMA usher TO %s;', a.privilege_type,
                                 CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END), E'\n'
                          ORDER BY pg_get_userbyid(a.grantee), a.privilege_type)
          FROM aclexplode(n.nspacl) a WHERE a.grantee <> n.nspowner),
       'SCHEMA usher', obj_description(n.oid, 'pg_namespace'), 0
  FROM pg_namespace n WHERE n.nspname = 'usher'
UNION ALL
-- Only to say so: the array and row types that come with a type are made with it.
SELECT 'other', pg_describe_object(m.classid, m.objid, 0), '', '', 0, '', '', NULL, 0
  FROM member m
 WHERE m.classid NOT IN ('pg_proc'::regclass, 'pg_event_trigger'::regclass)
   AND NOT EXISTS (SELECT FROM pg_type t WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid AND (t.typtype = 'c' OR t.typelem <> 0));
