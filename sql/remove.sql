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
BEGIN
    IF confirm IS DISTINCT FROM 'remove all data' THEN
        RAISE EXCEPTION 'nothing was removed: the confirmation is missing'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'All organizations, flows, jobs, links and their history would be deleted.',
                  HINT = 'SELECT usher.remove(confirm => ''remove all data''); does it. Take a dump first.';
    END IF;
    PERFORM usher.detach_all();
    -- In tables of an older version some of these names are no views.
    SELECT string_agg(format('usher.%I', c.relname), ', ') INTO views FROM pg_class c
     WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind = 'v'
       AND c.relname IN ('schedules', 'progress', 'queue', 'limits', 'queue_limits', 'rpc_limits', 'pauses', 'sync_jobs', 'visible_ready_jobs', 'visible_done_jobs', 'ready_jobs');
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
