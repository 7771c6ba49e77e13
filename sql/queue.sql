-- Makes a table's partitions for today and the days ahead, drops those that are older than the days to keep (NULL: keeps
-- all). Returns what it did in words. Days are UTC days. Runs in the worker once a minute and in usher.setup(); a busy
-- table is left for the next time.
CREATE FUNCTION usher.maintain_days(parent text, keep_days integer) RETURNS text
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
        child := parent || '_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('usher.' || quote_ident(child)) IS NOT NULL;
        BEGIN
            -- Made apart and attached: a plain PARTITION OF would lock the parent against every writer.
            EXECUTE format('CREATE TABLE usher.%I (LIKE usher.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', child, parent);
            EXECUTE format('ALTER TABLE usher.%I ENABLE ROW LEVEL SECURITY', child);
            EXECUTE format('ALTER TABLE usher.%I ATTACH PARTITION usher.%I FOR VALUES FROM (%L) TO (%L)',
                           parent, child, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            IF parent = 'audit_log' THEN
                PERFORM usher.protect_entries(child);
            END IF;
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            -- Busy, or the default partition already holds rows of that day: they stay there.
            NULL;
        END;
    END LOOP;
    FOR old IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = to_regclass('usher.' || quote_ident(parent)) AND c.relname ~ ('^' || parent || '_[0-9]{8}$')
           AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - keep_days
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE usher.%I', old.relname);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN format('%s made, %s dropped', made, dropped);
END
$$;
COMMENT ON FUNCTION usher.maintain_days(text, integer) IS 'makes and drops the day partitions of a table of usher; the worker calls it';
-- The history of jobs, by days.
CREATE FUNCTION usher.maintain_history(keep_days integer) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    DELETE FROM usher.job_history_default WHERE finished_at < now() - keep_days * interval '1 day';
    RETURN usher.maintain_days('job_history', keep_days);
END
$$;
COMMENT ON FUNCTION usher.maintain_history(integer) IS 'makes and drops the day partitions of usher.job_history; the worker calls it';
-- A statement that names a partition does not fire the triggers of its table: each has its own.
CREATE FUNCTION usher.protect_entries(relation text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON usher.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION usher.audit_log_stays()', relation);
END
$$;
COMMENT ON FUNCTION usher.protect_entries(text) IS 'internal: has entries of the audit neither changed nor deleted';
-- Makes the segments of the log ahead of the positions that are drawn, begins a new one each day, and drops those in which
-- nothing is left to be done and that are older than the days to keep. Returns what it did in words. Runs in the worker once
-- a minute and in usher.setup(); a busy table is left for the next time.
CREATE FUNCTION usher.maintain_segments(keep_days integer) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '200ms'
    AS $$
DECLARE
    -- Positions are plenty: a segment takes 16 million, and two are always ahead.
    width CONSTANT bigint := 16777216;
    drawn bigint;
    top bigint;
    begins text;
    parent text;
    child text;
    settled bigint;
    segment record;
    made integer := 0;
    dropped integer := 0;
BEGIN
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO drawn FROM usher.queue_seq AS s;
    SELECT max(substring(c.relname FROM '[0-9]+$')::bigint) INTO top
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'usher.jobs'::regclass AND c.relname ~ '^jobs_to_[0-9]+$';
    IF top IS NOT NULL THEN
        -- A new day, a new segment: the rest of the positions of the last one are left out.
        SELECT min(x.upper) INTO settled
          FROM (SELECT substring(c.relname FROM '[0-9]+$')::bigint AS upper
                  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'usher.jobs'::regclass AND c.relname ~ '^jobs_to_[0-9]+$') AS x
         WHERE x.upper > drawn;
        IF settled IS NOT NULL AND settled < top AND drawn < settled - 1000000 AND EXISTS (
            SELECT FROM generate_series(0, 4) AS l
             CROSS JOIN LATERAL (SELECT j.created_at FROM usher.jobs AS j
                                  WHERE j.lane = l AND j.seq >= settled - width AND j.seq < settled ORDER BY j.seq LIMIT 1) AS first
             WHERE first.created_at < now() - interval '1 day')
        THEN
            PERFORM setval('usher.queue_seq', GREATEST(settled, s.last_value)) FROM usher.queue_seq AS s;
            drawn := settled;
        END IF;
        -- More was drawn at once than was ahead: it is in the default segment, and what follows begins behind it.
        IF drawn >= top THEN
            top := (drawn / width + 2) * width;
            PERFORM setval('usher.queue_seq', GREATEST(top, s.last_value)) FROM usher.queue_seq AS s;
            drawn := top;
        END IF;
    END IF;
    WHILE top IS NULL OR top - drawn < 2 * width LOOP
        begins := CASE WHEN top IS NULL THEN 'MINVALUE' ELSE top::text END;
        top := CASE WHEN top IS NULL THEN (drawn / width + 1) * width ELSE top + width END;
        BEGIN
            FOREACH parent IN ARRAY ARRAY['jobs', 'job_batches'] LOOP
                child := parent || '_to_' || top;
                -- Made apart and attached: a plain PARTITION OF would lock the parent against every writer.
                EXECUTE format('CREATE TABLE usher.%I (LIKE usher.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES) '
                               'WITH (autovacuum_vacuum_insert_threshold = -1)', child, parent);
                EXECUTE format('ALTER TABLE usher.%I ENABLE ROW LEVEL SECURITY', child);
                EXECUTE format('ALTER TABLE usher.%I ATTACH PARTITION usher.%I FOR VALUES FROM (%s) TO (%s)', parent, child, begins, top);
            END LOOP;
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            -- Busy: next time.
            EXIT;
        END;
    END LOOP;
    SELECT min(f.floor) INTO settled FROM usher.job_floors AS f;
    FOR segment IN
        SELECT x.upper
          FROM (SELECT substring(c.relname FROM '[0-9]+$')::bigint AS upper
                  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'usher.jobs'::regclass AND c.relname ~ '^jobs_to_[0-9]+$') AS x
         WHERE x.upper <= settled AND x.upper <= drawn
         ORDER BY x.upper
    LOOP
        -- The newest in it, by the index of each lane.
        CONTINUE WHEN EXISTS (
            SELECT FROM generate_series(0, 4) AS l
             CROSS JOIN LATERAL (SELECT j.created_at AS at FROM usher.jobs AS j
                                  WHERE j.lane = l AND j.seq >= segment.upper - width AND j.seq < segment.upper ORDER BY j.seq DESC LIMIT 1) AS newest
             WHERE newest.at >= now() - keep_days * interval '1 day'
            UNION ALL
            -- Those of this segment, and the next one of each lane, which may reach back into it. A job that came late counts as well.
            SELECT FROM usher.job_batches AS b
             WHERE b.finished_at >= now() - keep_days * interval '1 day'
               AND b.done && int8multirange(int8range(segment.upper - width, segment.upper)));
        BEGIN
            EXECUTE format('DROP TABLE usher.%I, usher.%I', 'jobs_to_' || segment.upper, 'job_batches_to_' || segment.upper);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            -- Busy: writers have waited long enough.
            EXIT;
        END;
    END LOOP;
    DELETE FROM usher.jobs_default WHERE seq <= settled AND created_at < now() - keep_days * interval '1 day';
    DELETE FROM usher.job_batches_default WHERE last_seq <= settled AND finished_at < now() - keep_days * interval '1 day';
    RETURN format('%s made, %s dropped', made, dropped);
END
$$;
COMMENT ON FUNCTION usher.maintain_segments(integer) IS 'makes and drops the segments of usher.jobs and usher.job_batches; the worker calls it';
-- True for those who read the rows of every organization: readers, the owner of the tables, and whoever no policy holds.
CREATE FUNCTION usher.reads_all() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT pg_has_role(current_user, 'usher_reader', 'USAGE')
        OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = to_regclass('usher.jobs') AND pg_has_role(current_user, c.relowner, 'USAGE'))
        OR EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = current_user AND r.rolbypassrls)
$$;

-- For usher.ready_jobs: as a stable function of a constant its value is known when a query is planned.
-- With its owner's rights: it is evaluated as whoever looks at jobs, who reads no floors otherwise.
CREATE FUNCTION usher.lane_floor(lane smallint) RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    RETURN (SELECT f.floor FROM usher.job_floors AS f WHERE f.lane = lane_floor.lane);
END
$$;
COMMENT ON FUNCTION usher.lane_floor(smallint) IS 'the position in the log up to which all jobs of a lane are done';
