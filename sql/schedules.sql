-- In words how the jobs of a flow's scheduled time stand, such as "synced" or "2 synced, 1 dead". Reads as its caller.
CREATE FUNCTION usher.run_status(flow integer, at timestamptz) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF at IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT CASE WHEN count(*) = 1 THEN min(c.status) ELSE string_agg(c.jobs || ' ' || c.status, ', ' ORDER BY c.jobs DESC, c.status) END
              FROM (SELECT COALESCE(j.status, 'gone') AS status, count(*) AS jobs
                      FROM usher.schedule_runs r
                      LEFT JOIN LATERAL (SELECT s.status FROM usher.sync_jobs s WHERE s.organization_id = r.organization_id AND s.id = r.job_id LIMIT 1) AS j ON true
                     WHERE r.flow_id = run_status.flow AND r.scheduled_at = run_status.at
                     GROUP BY 1) AS c);
END
$$;
