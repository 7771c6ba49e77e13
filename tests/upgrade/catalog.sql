-- All that pg_usher and its packs have in a database's catalog, as lines that can be compared: run in two databases, the
-- difference says what one has and the other has not. Order of columns counts; numbers (oids), partitions of single days and
-- rows of users do not.
WITH room AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('usher', 'atlvs', 'compvss', 'gvteway')
), relation AS (
    SELECT c.*, regexp_replace(c.oid::regclass::text, '_[0-9]{8}(?=_|$)', '_DAY') AS label
      FROM pg_class c JOIN room ON room.oid = c.relnamespace
), routine AS (
    SELECT p.*, p.oid::regprocedure::text AS label FROM pg_proc p JOIN room ON room.oid = p.pronamespace
), granted (what, owner, acl) AS (
    SELECT 'schema ' || n.nspname, n.nspowner, COALESCE(n.nspacl, acldefault('n', n.nspowner)) FROM pg_namespace n JOIN room USING (oid)
    UNION ALL SELECT 'function ' || label, proowner, COALESCE(proacl, acldefault('f', proowner)) FROM routine
    UNION ALL SELECT 'relation ' || label, relowner, COALESCE(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
      FROM relation WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL SELECT 'relation ' || label || ' column ' || a.attname, relowner, a.attacl
      FROM relation JOIN pg_attribute a ON a.attrelid = relation.oid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL SELECT 'type ' || t.oid::regtype, t.typowner, COALESCE(t.typacl, acldefault('T', t.typowner))
      FROM pg_type t JOIN room ON room.oid = t.typnamespace WHERE t.typtype IN ('d', 'e') OR t.typrelid IN (SELECT oid FROM relation WHERE relkind = 'c')
), line (text) AS (
    SELECT 'member ' || pg_describe_object(d.classid, d.objid, d.objsubid)
      FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
     WHERE e.extname = 'pg_usher' AND d.deptype = 'e'
    UNION ALL
    SELECT concat_ws(' ', 'extension', extname, extversion, 'in', extnamespace::regnamespace, 'configuration', extconfig::text)
      FROM pg_extension WHERE extname = 'pg_usher'
    UNION ALL
    SELECT format('%s: %s to %s%s', what, a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
                  CASE WHEN a.is_grantable THEN ' with grant option' END)
      FROM granted CROSS JOIN LATERAL aclexplode(acl) a
    UNION ALL
    -- What pg_dump takes for granted with the extension.
    SELECT format('%s: at first %s to %s', pg_describe_object(i.classoid, i.objoid, i.objsubid), a.privilege_type,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END)
      FROM pg_init_privs i CROSS JOIN LATERAL aclexplode(i.initprivs) a
     WHERE i.privtype = 'e' AND i.classoid IN ('pg_proc'::regclass, 'pg_namespace'::regclass, 'pg_type'::regclass)
       AND (i.objoid IN (SELECT oid FROM routine) OR i.objoid IN (SELECT oid FROM room))
    UNION ALL
    SELECT format('function %s of %s: %s', label, proowner::regrole, pg_get_functiondef(oid)) FROM routine WHERE prokind IN ('f', 'p')
    UNION ALL
    SELECT concat_ws(' ', 'relation', label, 'of', relowner::regrole, 'kind', relkind::text, 'persistence', relpersistence::text,
                     'row security', relrowsecurity, relforcerowsecurity, 'replica identity', relreplident::text,
                     CASE WHEN relispartition THEN 'a partition' END, pg_get_partkeydef(oid), reloptions::text)
      FROM relation WHERE relkind <> 'i' AND relkind <> 'I'
    UNION ALL
    SELECT concat_ws(' ', 'relation', label, 'column', row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
                     format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END, NULLIF(a.attidentity, ''),
                     'storage', a.attstorage::text, NULLIF(a.attcompression, ''), 'collation', NULLIF(a.attcollation, 0)::regcollation,
                     CASE WHEN a.attgenerated <> '' THEN 'GENERATED' ELSE 'DEFAULT' END, pg_get_expr(f.adbin, f.adrelid),
                     -- pg_attver is the server's own note (it came with a minor release); no dump carries it.
                     (SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg\_attver=%'))
      FROM relation JOIN pg_attribute a ON a.attrelid = relation.oid LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
     WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('view %s: %s', label, pg_get_viewdef(oid)) FROM relation WHERE relkind IN ('v', 'm')
    UNION ALL
    SELECT concat_ws(' ', 'sequence', label, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
      FROM relation JOIN pg_sequence s ON s.seqrelid = relation.oid
    UNION ALL
    SELECT concat_ws(' ', 'index', regexp_replace(pg_get_indexdef(i.indexrelid), '_[0-9]{8}(?=_| )', '_DAY', 'g'),
                     CASE WHEN NOT i.indisvalid THEN 'INVALID' END)
      FROM relation JOIN pg_index i ON i.indrelid = relation.oid
    UNION ALL
    -- NOT NULL is told with its column; from 18 on it is a constraint as well, named by how the table was made.
    SELECT concat_ws(' ', 'relation', label, 'constraint', regexp_replace(k.conname, '_[0-9]{8}(?=_|$)', '_DAY'), pg_get_constraintdef(k.oid),
                     CASE WHEN NOT k.convalidated THEN 'NOT VALID' END)
      FROM relation JOIN pg_constraint k ON k.conrelid = relation.oid WHERE k.contype <> 'n'
    UNION ALL
    SELECT concat_ws(' ', 'relation', label, 'policy', y.polname, y.polcmd::text, y.polpermissive, y.polroles::regrole[],
                     'USING', pg_get_expr(y.polqual, y.polrelid), 'CHECK', pg_get_expr(y.polwithcheck, y.polrelid))
      FROM relation JOIN pg_policy y ON y.polrelid = relation.oid
    UNION ALL
    SELECT concat_ws(' ', 'relation', label, 'trigger', pg_get_triggerdef(t.oid), t.tgenabled::text)
      FROM relation JOIN pg_trigger t ON t.tgrelid = relation.oid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT concat_ws(' ', 'relation', label, 'rule', pg_get_ruledef(r.oid))
      FROM relation JOIN pg_rewrite r ON r.ev_class = relation.oid WHERE r.rulename <> '_RETURN'
    UNION ALL
    SELECT concat_ws(' ', 'statistics', pg_get_statisticsobjdef(s.oid)) FROM pg_statistic_ext s JOIN room ON room.oid = s.stxnamespace
    UNION ALL
    SELECT concat_ws(' ', 'event trigger', evtname, 'on', evtevent, evttags::text, 'runs', evtfoid::regproc, evtenabled::text)
      FROM pg_event_trigger WHERE evtfoid IN (SELECT oid FROM routine)
    UNION ALL
    SELECT concat_ws(' ', 'type', t.oid::regtype, 'kind', t.typtype::text, pg_get_expr(t.typdefaultbin, 0),
                     (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
                     (SELECT string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid))
      FROM pg_type t JOIN room ON room.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r', 'm')
    UNION ALL
    SELECT concat_ws(' ', 'publication', p.pubname, r.prrelid::regclass)
      FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE r.prrelid IN (SELECT oid FROM relation)
    UNION ALL
    SELECT format('comment on %s: %s', regexp_replace(pg_describe_object(d.classoid, d.objoid, d.objsubid), '_[0-9]{8}(?=_|$)', '_DAY'), d.description)
      FROM pg_description d
     WHERE d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT oid FROM relation)
        OR d.classoid = 'pg_proc'::regclass AND d.objoid IN (SELECT oid FROM routine)
        OR d.classoid = 'pg_namespace'::regclass AND d.objoid IN (SELECT oid FROM room)
        OR d.classoid = 'pg_type'::regclass AND d.objoid IN (SELECT oid FROM pg_type WHERE typnamespace IN (SELECT oid FROM room))
        OR d.classoid = 'pg_constraint'::regclass AND d.objoid IN (SELECT oid FROM pg_constraint WHERE connamespace IN (SELECT oid FROM room))
        OR d.classoid = 'pg_policy'::regclass AND d.objoid IN (SELECT oid FROM pg_policy WHERE polrelid IN (SELECT oid FROM relation))
        OR d.classoid = 'pg_trigger'::regclass AND d.objoid IN (SELECT oid FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM relation))
        OR d.classoid = 'pg_event_trigger'::regclass AND d.objoid IN (SELECT oid FROM pg_event_trigger WHERE evtfoid IN (SELECT oid FROM routine))
        OR d.classoid = 'pg_extension'::regclass AND d.objoid IN (SELECT oid FROM pg_extension WHERE extname = 'pg_usher')
)
-- A day's partitions look all alike, and how many there are is a matter of the date.
SELECT DISTINCT text COLLATE "C" FROM line ORDER BY 1
