-- W38: the curfew.

-- Worked out anew under the lock of the event. Where the schedule has none, what somebody has entered stays.
CREATE OR REPLACE FUNCTION gvteway.refresh_curfew(organization uuid, production_id uuid, former_id uuid DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM gvteway.events e
      WHERE e.organization_id = refresh_curfew.organization AND e.production_ref IN (refresh_curfew.production_id, former_id)
      ORDER BY e.id FOR NO KEY UPDATE;
    UPDATE gvteway.events e SET curfew_at = c.curfew_at
      FROM (SELECT s.production_id, min(s.starts_at) FILTER (WHERE s.status <> 'cancelled') AS curfew_at
              FROM compvss.schedule_items s
             WHERE s.organization_id = refresh_curfew.organization AND s.production_id IN (refresh_curfew.production_id, former_id) AND s.kind = 'curfew'
             GROUP BY s.production_id) AS c
     WHERE e.organization_id = refresh_curfew.organization AND e.production_ref = c.production_id AND e.curfew_at IS DISTINCT FROM c.curfew_at;
END
$$;
REVOKE ALL ON FUNCTION gvteway.refresh_curfew(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.refresh_curfew(uuid, uuid, uuid) IS 'The curfew of a production''s event, the earliest in its schedule';
