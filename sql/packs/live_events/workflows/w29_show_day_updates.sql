-- W29: what a change on the day means for the event.

-- Announcement and status are one: guests who read that a set is late shall not see an event that is on time.
CREATE OR REPLACE FUNCTION gvteway.tell_show_day_change(
    organization uuid, event_id uuid, production_id uuid, item_id uuid, revision bigint, message text
) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org   CONSTANT uuid := tell_show_day_change.organization;
    event gvteway.events;
    shows record;
BEGIN
    SELECT e.* INTO event FROM gvteway.events e
     WHERE e.organization_id = org AND e.id = tell_show_day_change.event_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO gvteway.announcements (organization_id, event_id, kind, severity, message, source_ref, revision)
    VALUES (org, event.id, 'delay', 'critical', tell_show_day_change.message, 'schedule_item:' || item_id, tell_show_day_change.revision)
    ON CONFLICT ON CONSTRAINT announcements_source_key DO NOTHING;

    -- As the schedule is now, whichever change is told first.
    SELECT count(*) FILTER (WHERE s.kind = 'set') AS sets,
           count(*) FILTER (WHERE s.kind = 'set' AND s.status = 'cancelled') AS cancelled,
           COALESCE(bool_or(s.status = 'delayed' OR s.delay_min > 0 AND s.status = 'scheduled'), false) AS late,
           COALESCE(bool_or(s.status IN ('live', 'done') AND s.kind = 'set'), false) AS running
      INTO shows
      FROM compvss.schedule_items s
     WHERE s.organization_id = org AND s.production_id = tell_show_day_change.production_id AND s.public AND s.kind IN ('doors', 'set');
    IF shows.sets > 0 AND shows.sets = shows.cancelled THEN
        UPDATE gvteway.events e SET status = 'cancelled' WHERE e.organization_id = org AND e.id = event.id AND e.status <> 'cancelled';
    ELSIF shows.late AND event.status IN ('published', 'on_sale', 'live') THEN
        UPDATE gvteway.events e SET status = 'delayed', metadata = e.metadata || jsonb_build_object('before_delay', event.status)
         WHERE e.organization_id = org AND e.id = event.id;
    ELSIF NOT shows.late AND event.status = 'delayed' THEN
        UPDATE gvteway.events e
           SET status = CASE WHEN shows.running THEN 'live' WHEN e.metadata ->> 'before_delay' IN ('published', 'on_sale', 'live') THEN e.metadata ->> 'before_delay' ELSE 'published' END,
               metadata = e.metadata - 'before_delay'
         WHERE e.organization_id = org AND e.id = event.id;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION gvteway.tell_show_day_change(uuid, uuid, uuid, uuid, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.tell_show_day_change(uuid, uuid, uuid, uuid, bigint, text) IS
    'Announces a change on the day, and makes the event delayed, cancelled, or on time again, as the schedule is now';
