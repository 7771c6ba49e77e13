-- The triggers of pg_usher's own tables that are not there as they should be: table, definition as pg_get_triggerdef() says it, whether it
-- fires always (A). What is there is left alone: making it anew would lock the table against its writers.
WITH wanted (relation, fires, definition) AS (
    SELECT t.relation, t.fires, t.definition FROM (VALUES
        -- Whoever changes who belongs where, by whatever way: every session hears of it.
        ('memberships', 'A', 'CREATE TRIGGER usher_memberships_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON usher.memberships '
                             'FOR EACH STATEMENT EXECUTE FUNCTION usher.memberships_changed()'),
        -- The flows table is the truth: whoever changes it, the capture triggers of the tables follow.
        ('flows', 'O', 'CREATE TRIGGER usher_flows_changed AFTER INSERT OR DELETE OR UPDATE ON usher.flows '
                       'FOR EACH ROW EXECUTE FUNCTION usher.flows_changed()'),
        ('flows', 'O', 'CREATE TRIGGER usher_flow_broken AFTER UPDATE OF state ON usher.flows '
                       'FOR EACH ROW WHEN (((new.state = ''broken''::text) AND (old.state <> ''broken''::text))) EXECUTE FUNCTION usher.note_broken_flow()'),
        ('dead_letters', 'O', 'CREATE TRIGGER usher_dead_letters_made AFTER INSERT ON usher.dead_letters '
                              'REFERENCING NEW TABLE AS ended FOR EACH STATEMENT EXECUTE FUNCTION usher.dead_letters_changed()'),
        ('dead_letters', 'O', 'CREATE TRIGGER usher_dead_letters_left AFTER DELETE ON usher.dead_letters '
                              'REFERENCING OLD TABLE AS ended FOR EACH STATEMENT EXECUTE FUNCTION usher.dead_letters_changed()'),
        ('links', 'O', 'CREATE TRIGGER update_integration_sync_timestamp BEFORE UPDATE ON usher.links '
                       'FOR EACH ROW EXECUTE FUNCTION usher.update_integration_sync_timestamp()')) AS t (relation, fires, definition)
    UNION ALL
    -- What people do to pg_usher's own tables is entered in the log; of links what they do by hand, the rest is history.
    SELECT own.name, 'O', pg_catalog.format('CREATE TRIGGER usher_audit_%s AFTER %s ON usher.%I %sFOR EACH STATEMENT EXECUTE FUNCTION usher.audit(%s)',
               e.event, pg_catalog.upper(e.event), own.name,
               CASE e.event WHEN 'insert' THEN 'REFERENCING NEW TABLE AS usher_new ' WHEN 'delete' THEN 'REFERENCING OLD TABLE AS usher_old '
                            WHEN 'update' THEN 'REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new ' ELSE '' END,
               (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(c.name), ', ' ORDER BY c.n) FROM pg_catalog.unnest(own.columns) WITH ORDINALITY AS c (name, n)))
      FROM (VALUES
        ('organizations', '{slug,name,timezone}'::text[]), ('memberships', '{user_id,role}'), ('systems', '{name,kind}'),
        ('flows', '{name,version,enabled,state,run_as,definition}'), ('audited_tables', '{schema_name,table_name,columns}'),
        ('column_protections', '{schema_name,table_name,column_name,how,readers,mask,ended_at}'), ('rpc_rules', '{of_function,of_organization,of_role,rate,burst}'),
        ('overlap_rules', '{name,definition}'), ('rules', '{name,definition,run_as,enabled}'), ('adoptions', '{kind,relation,columns,roles,condition}'), ('pack_bindings', '{pack,bind,run_as}'),
        ('links', '{kind,left_id,right_id,ids,status,error_message,metadata}')) AS own (name, columns)
     CROSS JOIN (VALUES ('insert'), ('update'), ('delete'), ('truncate')) AS e (event)
    UNION ALL
    -- A statement that names a partition does not fire the triggers of its table: each has its own.
    SELECT c.relname::text, 'O', pg_catalog.format('CREATE TRIGGER audit_log_stays BEFORE DELETE OR UPDATE OR TRUNCATE ON usher.%I '
                                                   'FOR EACH STATEMENT EXECUTE FUNCTION usher.audit_log_stays()', c.relname)
      FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass('usher.audit_log')) AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.relid)
SELECT c.oid, c.relname::text, w.fires, w.definition
  FROM wanted AS w
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'usher'
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.relation AND c.relkind IN ('r', 'p')
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                    WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled::text = w.fires AND pg_catalog.pg_get_triggerdef(t.oid) = w.definition)
 ORDER BY c.oid, w.definition
