-- The opposite of usher.setup(). Separate from DROP EXTENSION, which keeps the data.
CREATE FUNCTION usher.remove(confirm text DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning
    AS $$
DECLARE
    tables text;
    views text;
    dropped integer;
    sealed text;
BEGIN
    IF confirm IS DISTINCT FROM 'remove all data' THEN
        RAISE EXCEPTION 'nothing was removed: the confirmation is missing'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'All organizations, flows, jobs, links and their history would be deleted.',
                  HINT = 'SELECT usher.remove(confirm => ''remove all data''); does it. Take a dump first.';
    END IF;
    -- What says who reads sealed columns would be gone, and with it their clear text.
    IF to_regclass('usher.column_protections') IS NOT NULL THEN
        EXECUTE 'SELECT string_agg(format(''%s.%s.%s'', schema_name, table_name, column_name), '', '' ORDER BY schema_name, table_name, column_name)
                   FROM usher.column_protections p WHERE how = ''sealed'' AND ended_at IS NULL
                    AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass(format(''%I.%I'', p.schema_name, p.table_name)) AND a.attname = p.column_name)'
           INTO sealed;
        IF sealed IS NOT NULL THEN
            RAISE EXCEPTION 'nothing was removed: columns are sealed, and nobody could read them any more'
                USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = sealed,
                      HINT = 'SELECT usher.unprotect_column(table, column); for each of them first.';
        END IF;
    END IF;
    PERFORM usher.detach_all();
    -- In tables of an older version some of these names are no views.
    SELECT string_agg(format('usher.%I', c.relname), ', ') INTO views FROM pg_class c
     WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind = 'v'
       AND c.relname IN ('schedules', 'progress', 'queue', 'registry', 'limits', 'queue_limits', 'rpc_limits', 'protected_columns', 'pauses', 'sync_jobs', 'visible_ready_jobs', 'visible_done_jobs', 'ready_jobs');
    IF views IS NOT NULL THEN
        EXECUTE 'DROP VIEW ' || views;
    END IF;
    SELECT string_agg(format('usher.%I', c.relname), ', '), count(*) INTO tables, dropped
      FROM pg_class c
     WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition;
    -- At once: no event trigger may find half of them.
    IF dropped > 0 THEN
        EXECUTE 'DROP TABLE ' || tables || ' CASCADE';
    END IF;
    DROP SEQUENCE IF EXISTS usher.queue_seq, usher.audit_position_seq;
    RETURN format('%s tables removed; SELECT usher.setup() starts anew, DROP EXTENSION pg_usher ends it', dropped);
END
$$;
