-- W25: addresses of events, what is shown of a programme, and the draft of a booking.

-- The tail keeps slugs apart where names are equal. It is the end of the id and not its beginning, which is a clock in
-- a uuid of version 7 and the same for rows made together. Accents are taken off where the encoding knows how; what is
-- still not a-z or 0-9 becomes a hyphen, so a name in another script leaves only the tail.
CREATE OR REPLACE FUNCTION gvteway.event_slug(title text, production_ref uuid) RETURNS text
    LANGUAGE sql STABLE
    RETURN concat_ws('-',
        NULLIF(btrim(left(regexp_replace(
            lower(CASE WHEN getdatabaseencoding() = 'UTF8'
                       THEN regexp_replace(normalize(title, NFKD), '[\u0300-\u036f]', '', 'g')
                       ELSE title END),
            '[^a-z0-9]+', '-', 'g'), 60), '-'), ''),
        right(production_ref::text, 12));
REVOKE ALL ON FUNCTION gvteway.event_slug(text, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.event_slug(text, uuid) IS
    'Address of an event: its title in a-z, 0-9 and hyphens, and the end of the production''s id';

CREATE OR REPLACE FUNCTION compvss.zone_known(zone text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (now() AT TIME ZONE zone) IS NOT NULL;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END
$$;
REVOKE ALL ON FUNCTION compvss.zone_known(text) FROM PUBLIC;
COMMENT ON FUNCTION compvss.zone_known(text) IS 'Whether times can be told in a zone, such as Europe/Berlin';

-- The booking of an artist (W22) makes a draft that names the deal, also when it was cancelled with the booking. The deal's
-- production has its event in it. An event that the production has first names the deal too, so that of the two that come at
-- the same time the second is refused by the key, tried again, and finds the other's.
CREATE OR REPLACE FUNCTION gvteway.deal_of_production(organization uuid, production_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.deal_id
      FROM compvss.productions p
      JOIN atlvs.projects r ON r.organization_id = p.organization_id AND r.id = p.project_ref
     WHERE p.organization_id = deal_of_production.organization AND p.id = deal_of_production.production_id
$$;
REVOKE ALL ON FUNCTION gvteway.deal_of_production(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.deal_of_production(uuid, uuid) IS 'The deal whose project a production belongs to';

CREATE OR REPLACE FUNCTION gvteway.booked_draft(organization uuid, production_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.id
      FROM gvteway.events e
     WHERE e.organization_id = booked_draft.organization AND e.production_ref IS NULL
       AND e.deal_ref = gvteway.deal_of_production(booked_draft.organization, booked_draft.production_id)
$$;
REVOKE ALL ON FUNCTION gvteway.booked_draft(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.booked_draft(uuid, uuid) IS 'The draft event that the booking of a production''s deal has made, as long as no production has it';

-- Worked out anew under the lock of the event, so that it does not matter in which order changes of the schedule arrive.
CREATE OR REPLACE FUNCTION gvteway.refresh_programme(organization uuid, production_id uuid, former_id uuid DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM gvteway.events e
      WHERE e.organization_id = refresh_programme.organization AND e.production_ref IN (refresh_programme.production_id, former_id)
      ORDER BY e.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    UPDATE gvteway.events e
       SET starts_at = f.starts_at, ends_at = f.ends_at, doors_at = f.doors_at, lineup = f.lineup
      FROM (SELECT ev.id, t.starts_at, CASE WHEN t.ends_at >= t.starts_at THEN t.ends_at END AS ends_at, COALESCE(t.doors_at, ev.doors_at) AS doors_at,
                   COALESCE(a.lineup,
                            CASE WHEN jsonb_typeof(p.metadata -> 'lineup') = 'array' THEN p.metadata -> 'lineup'
                                 -- Whom the booking has named stays until somebody says more.
                                 WHEN ev.booking_ref IS NOT NULL THEN ev.lineup
                                 ELSE '[]' END) AS lineup
              FROM gvteway.events ev
              JOIN compvss.productions p ON p.organization_id = ev.organization_id AND p.id = ev.production_ref
              -- A last set without an end leaves the end to the production.
             CROSS JOIN LATERAL (
                   SELECT COALESCE(min(s.starts_at) FILTER (WHERE s.kind = 'set'), p.starts_at) AS starts_at,
                          COALESCE((array_agg(s.ends_at ORDER BY s.ends_at DESC NULLS FIRST) FILTER (WHERE s.kind = 'set'))[1], p.ends_at) AS ends_at,
                          min(s.starts_at) FILTER (WHERE s.kind = 'doors') AS doors_at
                     FROM compvss.schedule_items s
                    WHERE s.organization_id = p.organization_id AND s.production_id = p.id
                      AND s.public AND s.kind IN ('set', 'doors') AND s.status <> 'cancelled') AS t
             CROSS JOIN LATERAL (
                   SELECT jsonb_agg(n.artist ORDER BY n.first, n.artist) AS lineup
                     FROM (SELECT btrim(s.artist) AS artist, min(s.starts_at) AS first
                             FROM compvss.schedule_items s
                            WHERE s.organization_id = p.organization_id AND s.production_id = p.id
                              AND s.public AND s.kind = 'set' AND s.status <> 'cancelled' AND btrim(s.artist) <> ''
                            GROUP BY btrim(s.artist)) AS n) AS a
             WHERE ev.organization_id = refresh_programme.organization AND ev.production_ref IN (refresh_programme.production_id, former_id)) AS f
     WHERE e.organization_id = refresh_programme.organization AND e.id = f.id
       AND (e.starts_at, e.ends_at, e.doors_at, e.lineup) IS DISTINCT FROM (f.starts_at, f.ends_at, f.doors_at, f.lineup);
END
$$;
REVOKE ALL ON FUNCTION gvteway.refresh_programme(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.refresh_programme(uuid, uuid, uuid) IS
    'Start, end, doors and lineup of a production''s event, by its public sets and doors, else by the production';

-- A row that was written before there was an event went past the flows; it is written once more, and takes their way.
CREATE OR REPLACE FUNCTION gvteway.catch_up_event(organization uuid, event_id uuid, production_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE compvss.schedule_items s SET updated_at = clock_timestamp()
     WHERE s.organization_id = catch_up_event.organization AND s.production_id = catch_up_event.production_id
       AND (s.public AND s.kind IN ('set', 'doors') OR s.kind = 'curfew');
    UPDATE compvss.venue_layouts l SET updated_at = clock_timestamp()
     WHERE l.organization_id = catch_up_event.organization AND l.production_id = catch_up_event.production_id AND l.status = 'approved';
    UPDATE compvss.media_files m SET updated_at = clock_timestamp()
     WHERE m.organization_id = catch_up_event.organization AND m.production_id = catch_up_event.production_id AND m.status = 'approved';
    UPDATE compvss.guest_info i SET updated_at = clock_timestamp()
     WHERE i.organization_id = catch_up_event.organization AND i.production_id = catch_up_event.production_id;
    UPDATE gvteway.vip_guests v SET updated_at = clock_timestamp()
     WHERE v.organization_id = catch_up_event.organization AND v.event_id = catch_up_event.event_id;
END
$$;
REVOKE ALL ON FUNCTION gvteway.catch_up_event(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.catch_up_event(uuid, uuid, uuid) IS 'What a production had before its event was there takes the flows'' way once more';

-- By what is true now: a production that goes on after all keeps its event. Nothing brings a cancelled event back by itself, because its
-- guests may have been told.
CREATE OR REPLACE FUNCTION gvteway.cancel_event(organization uuid, production_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE gvteway.events e SET status = 'cancelled'
     WHERE e.organization_id = cancel_event.organization AND e.production_ref = cancel_event.production_id
       AND e.status IN ('published', 'on_sale', 'live', 'delayed')
       AND EXISTS (SELECT FROM compvss.productions p WHERE p.organization_id = e.organization_id AND p.id = e.production_ref AND p.status = 'cancelled')
$$;
REVOKE ALL ON FUNCTION gvteway.cancel_event(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.cancel_event(uuid, uuid) IS 'Cancels the event of a cancelled production, if guests can see it';
