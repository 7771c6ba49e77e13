-- W44: what a poor review sets off.

-- Once for each review. One that was cancelled, because a step behind it failed, stays as it was; the run that is begun anew opens another.
CREATE OR REPLACE FUNCTION compvss.open_feedback(organization uuid, review_id uuid, event_id uuid, vendor_id uuid, severity text) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject    CONSTANT text := 'review:' || open_feedback.review_id;
    production uuid;
    incident   uuid;
    earlier    bigint;
BEGIN
    SELECT p.id INTO production
      FROM gvteway.events e
      JOIN compvss.productions p ON p.organization_id = e.organization_id AND p.id = e.production_ref
     WHERE e.organization_id = open_feedback.organization AND e.id = open_feedback.event_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'event % has no production whose people could see to its reviews', open_feedback.event_id
            USING ERRCODE = 'undefined_object', HINT = 'Give the event its production, then begin the run anew with usher.retry_workflow().';
    END IF;
    SELECT i.id INTO incident
      FROM compvss.incidents i
     WHERE i.organization_id = open_feedback.organization AND (i.source_ref = subject OR i.source_ref LIKE subject || '/%') AND i.status <> 'cancelled';
    IF FOUND THEN
        RETURN incident;
    END IF;
    SELECT count(*) INTO earlier
      FROM compvss.incidents i
     WHERE i.organization_id = open_feedback.organization AND (i.source_ref = subject OR i.source_ref LIKE subject || '/%');
    INSERT INTO compvss.incidents AS i (organization_id, production_id, kind, severity, guest_impact, source_ref, vendor_ref)
    VALUES (open_feedback.organization, production, 'feedback', open_feedback.severity, false,
            subject || CASE WHEN earlier > 0 THEN '/' || earlier + 1 ELSE '' END, open_feedback.vendor_id)
    RETURNING i.id INTO incident;
    RETURN incident;
END
$$;
REVOKE ALL ON FUNCTION compvss.open_feedback(uuid, uuid, uuid, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION compvss.open_feedback(uuid, uuid, uuid, uuid, text) IS
    'What a review has said is an incident of the production of its event, once, and never announced to guests; returns it';

CREATE OR REPLACE FUNCTION compvss.cancel_feedback(organization uuid, incident_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE compvss.incidents i SET status = 'cancelled'
     WHERE i.organization_id = cancel_feedback.organization AND i.id = cancel_feedback.incident_id AND i.status <> 'cancelled'
$$;
REVOKE ALL ON FUNCTION compvss.cancel_feedback(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.cancel_feedback(uuid, uuid) IS 'Undoes compvss.open_feedback: nobody is asked to see to it any more';

CREATE OR REPLACE FUNCTION compvss.is_open_incident(organization uuid, incident_id uuid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM compvss.incidents i
                    WHERE i.organization_id = is_open_incident.organization AND i.id = is_open_incident.incident_id AND i.status IN ('open', 'in_progress'))
$$;
REVOKE ALL ON FUNCTION compvss.is_open_incident(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.is_open_incident(uuid, uuid) IS 'Whether somebody still has to see to an incident';
