-- W39: a deal from its win to its first sale.

-- The deal of a project, if somebody follows it.
CREATE OR REPLACE FUNCTION atlvs.followed_deal(organization uuid, project_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.id FROM atlvs.projects p JOIN atlvs.deals d ON d.organization_id = p.organization_id AND d.id = p.deal_id
     WHERE p.organization_id = followed_deal.organization AND p.id = followed_deal.project_id AND d.publish_when_won
$$;
REVOKE ALL ON FUNCTION atlvs.followed_deal(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.followed_deal(uuid, uuid) IS 'The deal of a project, if it is to be published when it is won';

CREATE OR REPLACE FUNCTION gvteway.followed_deal(organization uuid, production_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.followed_deal(q.organization_id, q.project_ref) FROM compvss.productions q
     WHERE q.organization_id = followed_deal.organization AND q.id = followed_deal.production_id
$$;
REVOKE ALL ON FUNCTION gvteway.followed_deal(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.followed_deal(uuid, uuid) IS 'The deal of a production, if it is to be published when it is won';

CREATE OR REPLACE FUNCTION compvss.production_of_deal(organization uuid, deal_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.id FROM atlvs.projects p JOIN compvss.productions q ON q.organization_id = p.organization_id AND q.project_ref = p.id
     WHERE p.organization_id = production_of_deal.organization AND p.deal_id = production_of_deal.deal_id
$$;
REVOKE ALL ON FUNCTION compvss.production_of_deal(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.production_of_deal(uuid, uuid) IS 'The production that a deal has become, if it has';

CREATE OR REPLACE FUNCTION gvteway.event_of_production(organization uuid, production_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.id FROM gvteway.events e
     WHERE e.organization_id = event_of_production.organization AND e.production_ref = event_of_production.production_id
$$;
REVOKE ALL ON FUNCTION gvteway.event_of_production(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.event_of_production(uuid, uuid) IS 'The event of a production, if it is there';

CREATE OR REPLACE FUNCTION gvteway.is_to_be_sold(organization uuid, event_id uuid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE((SELECT e.status NOT IN ('ended', 'cancelled') AND COALESCE(q.tickets_sold, 0) = 0
                       FROM gvteway.events e LEFT JOIN compvss.productions q ON q.organization_id = e.organization_id AND q.id = e.production_ref
                      WHERE e.organization_id = is_to_be_sold.organization AND e.id = is_to_be_sold.event_id), false)
$$;
REVOKE ALL ON FUNCTION gvteway.is_to_be_sold(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.is_to_be_sold(uuid, uuid) IS 'An event is still to come, and nothing of it is sold';

-- A deal that says so is followed from its win: nobody follows it a second time.
CREATE OR REPLACE FUNCTION atlvs.follow_deal(organization uuid, deal_id uuid, by_hand boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    taken record;
BEGIN
    SELECT d.status, d.publish_when_won INTO taken FROM atlvs.deals d
     WHERE d.organization_id = follow_deal.organization AND d.id = follow_deal.deal_id FOR NO KEY UPDATE;
    IF taken.status IS DISTINCT FROM 'won' THEN
        RAISE EXCEPTION 'deal % is %', COALESCE(deal_id::text, '(none)'), COALESCE(taken.status, 'not there')
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Win the deal; winning it begins its lifecycle anew.';
    ELSIF by_hand AND taken.publish_when_won THEN
        RAISE EXCEPTION 'deal % is followed already', deal_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'If its run was given up, clear publish_when_won first, then begin anew.';
    END IF;
    UPDATE atlvs.deals d SET publish_when_won = true
     WHERE d.organization_id = follow_deal.organization AND d.id = follow_deal.deal_id AND NOT d.publish_when_won;
END
$$;
REVOKE ALL ON FUNCTION atlvs.follow_deal(uuid, uuid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.follow_deal(uuid, uuid, boolean) IS 'Begins to follow a won deal; by hand only one that is not followed';

CREATE OR REPLACE FUNCTION atlvs.reopen_deal(organization uuid, deal_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE atlvs.deals d SET status = 'proposal'
     WHERE d.organization_id = reopen_deal.organization AND d.id = reopen_deal.deal_id AND d.status = 'won'
       AND NOT EXISTS (SELECT FROM gvteway.events e
                        WHERE e.organization_id = d.organization_id AND e.production_ref = compvss.production_of_deal(d.organization_id, d.id)
                          AND e.status NOT IN ('draft', 'cancelled'))
$$;
REVOKE ALL ON FUNCTION atlvs.reopen_deal(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.reopen_deal(uuid, uuid) IS 'Makes a won deal a proposal again, unless its event is public';

CREATE OR REPLACE FUNCTION compvss.hold_production(organization uuid, deal_id uuid) RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    held record;
BEGIN
    SELECT q.id, q.name, q.status INTO held FROM compvss.productions q
     WHERE q.organization_id = hold_production.organization AND q.id = compvss.production_of_deal(hold_production.organization, hold_production.deal_id);
    IF held.id IS NULL THEN
        RAISE EXCEPTION 'deal % has no production', deal_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'usher.dead_letters shows why it could not be made.';
    END IF;
    IF held.status = 'cancelled' THEN
        RAISE EXCEPTION 'production "%" is cancelled', held.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set its status to planning, then win the deal again.';
    END IF;
    IF (SELECT d.status FROM atlvs.deals d WHERE d.organization_id = hold_production.organization AND d.id = hold_production.deal_id) IS DISTINCT FROM 'won' THEN
        RAISE EXCEPTION 'deal % is not won any more', deal_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Winning it again begins its lifecycle anew.';
    END IF;
    RETURN held.id;
END
$$;
REVOKE ALL ON FUNCTION compvss.hold_production(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.hold_production(uuid, uuid) IS 'The production of a deal; refused if there is none or it is cancelled';

-- What has begun on the ground, and what guests already see, is not stopped by a lifecycle that failed.
CREATE OR REPLACE FUNCTION compvss.release_production(organization uuid, production_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE compvss.productions q SET status = 'cancelled'
     WHERE q.organization_id = release_production.organization AND q.id = release_production.production_id AND q.status IN ('planning', 'advancing')
       AND NOT EXISTS (SELECT FROM gvteway.events e
                        WHERE e.organization_id = q.organization_id AND e.production_ref = q.id AND e.status NOT IN ('draft', 'cancelled'))
$$;
REVOKE ALL ON FUNCTION compvss.release_production(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.release_production(uuid, uuid) IS 'Cancels a production that is still being planned, unless its event is public';

CREATE OR REPLACE FUNCTION gvteway.publish_event(organization uuid, production_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    show  record;
    lacks text;
BEGIN
    SELECT e.id, e.title, e.status, e.starts_at, e.venue_id, e.venue_name, q.status AS production INTO show
      FROM compvss.productions q LEFT JOIN gvteway.events e ON e.organization_id = q.organization_id AND e.production_ref = q.id
     WHERE q.organization_id = publish_event.organization AND q.id = publish_event.production_id
       FOR NO KEY UPDATE OF q;
    -- Somebody was there first.
    IF show.status IN ('published', 'on_sale', 'live', 'delayed') THEN
        RETURN show.id;
    END IF;
    lacks := CASE WHEN EXISTS (SELECT FROM atlvs.deals d
                                WHERE d.organization_id = publish_event.organization AND d.status <> 'won'
                                  AND d.id = gvteway.deal_of_production(publish_event.organization, publish_event.production_id)) THEN 'its deal is not won any more'
                  WHEN show.production = 'cancelled' THEN 'its production is cancelled'
                  WHEN show.id IS NULL THEN 'it is not there'
                  WHEN show.status IN ('ended', 'cancelled') THEN 'it is ' || show.status
                  WHEN show.starts_at IS NULL THEN 'it has no start'
                  WHEN show.venue_id IS NULL AND btrim(show.venue_name) <> '' IS NOT TRUE THEN 'it has no venue' END;
    IF lacks IS NOT NULL OR NOT FOUND THEN
        RAISE EXCEPTION 'the event "%" cannot be published: %', COALESCE(show.title, production_id::text), COALESCE(lacks, 'it has no production')
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Complete its production, set it to planning again, and win the deal again.';
    END IF;
    UPDATE gvteway.events e SET status = 'published' WHERE e.organization_id = publish_event.organization AND e.id = show.id AND e.status = 'draft';
    RETURN show.id;
END
$$;
REVOKE ALL ON FUNCTION gvteway.publish_event(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.publish_event(uuid, uuid) IS 'Publishes the draft of a production''s event; one that is published already stays as it is';
