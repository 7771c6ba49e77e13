-- W22: which event a booking belongs to.

CREATE OR REPLACE FUNCTION gvteway.event_of_booking(organization_id uuid, booking_id uuid, deal_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(
        (SELECT e.id FROM gvteway.events e
          WHERE e.organization_id = event_of_booking.organization_id AND e.booking_ref = event_of_booking.booking_id),
        (SELECT e.id FROM gvteway.events e
          WHERE e.organization_id = event_of_booking.organization_id AND e.deal_ref = event_of_booking.deal_id),
        (SELECT e.id
           FROM atlvs.projects r
           JOIN compvss.productions p ON p.organization_id = r.organization_id AND p.project_ref = r.id
           JOIN gvteway.events e ON e.organization_id = p.organization_id AND e.production_ref = p.id
          WHERE r.organization_id = event_of_booking.organization_id AND r.deal_id = event_of_booking.deal_id))
$$;
REVOKE ALL ON FUNCTION gvteway.event_of_booking(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.event_of_booking(uuid, uuid, uuid) IS
    'The event that a booking has made, or that its deal has by another booking or by its production';
