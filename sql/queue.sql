-- Makes the history's partitions for today and the days ahead, drops those that are older than the days to keep. Returns
-- what it did in words. Days are UTC days. Runs in the worker once a minute and in usher.setup(); a busy table is left
-- for the next time.
CREATE FUNCTION usher.maintain_history(keep_days integer) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '200ms'
    AS $$
DECLARE
    day date;
    child text;
    old record;
    made integer := 0;
    dropped integer := 0;
BEGIN
    FOR day IN SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, 3) AS n LOOP
        child := 'job_history_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('usher.' || quote_ident(child)) IS NOT NULL;
        BEGIN
            -- Made apart and attached: a plain PARTITION OF would lock the parent against every writer.
            EXECUTE format('CREATE TABLE usher.%I (LIKE usher.job_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', child);
            EXECUTE format('ALTER TABLE usher.%I ENABLE ROW LEVEL SECURITY', child);
            EXECUTE format('ALTER TABLE usher.job_history ATTACH PARTITION usher.%I FOR VALUES FROM (%L) TO (%L)',
                           child, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            -- Busy, or the default partition already holds rows of that day: they stay there.
            NULL;
        END;
    END LOOP;
    FOR old IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'usher.job_history'::regclass AND c.relname ~ '^job_history_[0-9]{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - keep_days
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE usher.%I', old.relname);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    DELETE FROM usher.job_history_default WHERE finished_at < now() - keep_days * interval '1 day';
    RETURN format('%s made, %s dropped', made, dropped);
END
$$;
COMMENT ON FUNCTION usher.maintain_history(integer) IS 'makes and drops the day partitions of usher.job_history; the worker calls it';
