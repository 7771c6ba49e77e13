-- Pack live_events: what an application's client calls over PostgREST. All of it works with the rights of whoever calls.
--
-- Beside these there are usher.deal_to_project, usher.project_to_event, usher.ingest_ticket_revenue and usher.enqueue_sync_job.

-- Whether an organization exists is not told to strangers: unknown and foreign are refused alike, as usher's own functions do.
CREATE OR REPLACE FUNCTION live_events.readable_organization(named text) RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known uuid;
BEGIN
    IF btrim(readable_organization.named) <> '' IS NOT TRUE THEN
        RAISE EXCEPTION 'the organization is missing' USING ERRCODE = 'invalid_parameter_value', HINT = 'Give its slug or its id.';
    END IF;
    SELECT o.id INTO known FROM usher.organizations o
     WHERE readable_organization.named IN (o.slug, o.id::text) AND o.id = ANY ((SELECT usher.member_organizations())::uuid[]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'you are not a member of organization "%"', readable_organization.named
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('You act as "%s".', usher.actor()),
                  HINT = 'Check the spelling, or ask one of its admins for usher.grant_membership(organization, your user id).';
    END IF;
    RETURN known;
END
$$;
REVOKE ALL ON FUNCTION live_events.readable_organization(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.readable_organization(text) TO usher_member;
COMMENT ON FUNCTION live_events.readable_organization(text) IS 'The organization of a slug or id, for its members; others are refused as if there were none';

CREATE OR REPLACE FUNCTION live_events.asset_availability(
    organization text, starts_at timestamptz, ends_at timestamptz, category text DEFAULT NULL, asset uuid DEFAULT NULL
) RETURNS TABLE (asset_id uuid, tag text, name text, asset_category text, state text, available boolean, reason text, conflicts jsonb, alternatives jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    org    CONSTANT uuid := live_events.readable_organization(asset_availability.organization);
    wanted tstzrange;
BEGIN
    IF asset_availability.starts_at IS NULL OR asset_availability.ends_at IS NULL OR asset_availability.ends_at <= asset_availability.starts_at THEN
        RAISE EXCEPTION 'there is no time from % to %', COALESCE(asset_availability.starts_at::text, 'nothing'), COALESCE(asset_availability.ends_at::text, 'nothing')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a time, and a later one up to which the asset is needed.';
    END IF;
    IF asset_availability.asset IS NOT NULL
       AND NOT EXISTS (SELECT FROM atlvs.assets a WHERE a.organization_id = org AND a.id = asset_availability.asset) THEN
        RAISE EXCEPTION 'asset % does not exist in organization "%"', asset_availability.asset, asset_availability.organization
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, tag, name, category FROM atlvs.assets shows those that you may see.';
    END IF;
    wanted := tstzrange(asset_availability.starts_at, asset_availability.ends_at);
    RETURN QUERY
    WITH taken AS MATERIALIZED (
        SELECT x.asset_id AS id, jsonb_agg(jsonb_build_object(
                   'production_id', x.production_ref, 'production', p.name, 'project_id', j.id, 'project_code', j.code,
                   'starts_at', lower(x.period), 'ends_at', upper(x.period), 'status', x.status) ORDER BY lower(x.period), x.id) AS by
          FROM atlvs.asset_reservations x
          LEFT JOIN compvss.productions p ON p.organization_id = x.organization_id AND p.id = x.production_ref
          LEFT JOIN atlvs.projects j ON j.organization_id = p.organization_id AND j.id = p.project_ref
         WHERE x.organization_id = org AND x.status <> 'released' AND x.period && wanted
         GROUP BY x.asset_id
    ), seen AS MATERIALIZED (
        SELECT a.id, a.tag, a.name, a.category, a.state, t.by, a.state NOT IN ('maintenance', 'retired') AND t.id IS NULL AS free
          FROM atlvs.assets a LEFT JOIN taken t ON t.id = a.id
         WHERE a.organization_id = org
    )
    SELECT s.id, s.tag, s.name, s.category, s.state, s.free,
           CASE WHEN s.free THEN NULL WHEN s.state = 'retired' THEN 'retired' WHEN s.state = 'maintenance' THEN 'in maintenance' ELSE 'reserved at that time' END,
           COALESCE(s.by, '[]'),
           CASE WHEN s.free THEN '[]' ELSE COALESCE((
               SELECT jsonb_agg(jsonb_build_object('id', f.id, 'tag', f.tag, 'name', f.name) ORDER BY f.tag)
                 FROM (SELECT o.id, o.tag, o.name FROM seen o WHERE o.category = s.category AND o.free ORDER BY o.tag LIMIT 5) AS f), '[]') END
      FROM seen s
     WHERE (asset_availability.asset IS NULL OR s.id = asset_availability.asset)
       AND (asset_availability.category IS NULL OR s.category = asset_availability.category)
     ORDER BY s.tag;
END
$$;
REVOKE ALL ON FUNCTION live_events.asset_availability(text, timestamptz, timestamptz, text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.asset_availability(text, timestamptz, timestamptz, text, uuid) TO usher_member;
COMMENT ON FUNCTION live_events.asset_availability(text, timestamptz, timestamptz, text, uuid) IS
    'Which assets are free for a time, across all projects: who else has those that are not, and up to five free ones of the category instead; for members';

CREATE OR REPLACE FUNCTION live_events.sync_job_status(job uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stands jsonb;
BEGIN
    SELECT jsonb_build_object('id', j.id, 'organization_id', j.organization_id, 'flow', j.flow, 'source_system', j.source_system,
               'target_system', j.target_system, 'priority', j.priority, 'status', j.status, 'waiting_for', j.waiting_for, 'attempts', j.attempts,
               'error_message', j.error_message, 'created_at', j.created_at, 'run_at', j.run_at, 'finished_at', j.finished_at,
               'ended', j.status IN ('synced', 'dead', 'cancelled'))
      INTO stands FROM usher.sync_jobs j WHERE j.id = sync_job_status.job;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % does not exist, or is none of your organizations''', COALESCE(sync_job_status.job::text, '(none)')
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT id, flow, status FROM usher.sync_jobs shows those that you may see; what has ended is kept for usher.history_days.';
    END IF;
    RETURN stands;
END
$$;
REVOKE ALL ON FUNCTION live_events.sync_job_status(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.sync_job_status(uuid) TO usher_member;
COMMENT ON FUNCTION live_events.sync_job_status(uuid) IS 'Where a job stands: pending, in_progress, failed (is tried again), synced, dead, cancelled; for members of its organization';

-- Jobs that are not done are few; those that are done are told by the links that they have made.
CREATE OR REPLACE FUNCTION live_events.integration_status(organization text, project uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org   CONSTANT uuid := live_events.readable_organization(integration_status.organization);
    stood record;
    theirs text[];
    links jsonb;
    jobs  jsonb;
    sold  jsonb;
BEGIN
    SELECT j.id, j.code, j.name, j.phase, j.health, j.deal_id, d.status AS deal_status, p.id AS production_id, p.status AS production_status,
           e.id AS event_id, e.slug AS event_slug, e.status AS event_status
      INTO stood
      FROM atlvs.projects j
      LEFT JOIN atlvs.deals d ON d.organization_id = j.organization_id AND d.id = j.deal_id
      LEFT JOIN compvss.productions p ON p.organization_id = j.organization_id AND p.project_ref = j.id
      LEFT JOIN gvteway.events e ON e.organization_id = p.organization_id AND e.production_ref = p.id
     WHERE j.organization_id = org AND j.id = integration_status.project;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'project % does not exist in organization "%"', COALESCE(integration_status.project::text, '(none)'), integration_status.organization
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, code, name FROM atlvs.projects shows the projects that you may see.';
    END IF;
    theirs := array_remove(ARRAY[stood.id, stood.deal_id, stood.production_id, stood.event_id]::text[], NULL);
    SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', l.kind, 'left_id', l.left_id, 'right_id', l.right_id, 'status', l.status,
                                                 'last_synced_at', l.last_synced_at, 'error_message', l.error_message) ORDER BY l.created_at, l.kind), '[]')
      INTO links
      FROM usher.links l WHERE l.organization_id = org AND l.kind IN ('deal', 'project', 'event') AND (l.left_id = ANY (theirs) OR l.right_id = ANY (theirs));
    SELECT COALESCE(jsonb_agg(jsonb_build_object('id', j.id, 'flow', j.flow, 'status', j.status, 'waiting_for', j.waiting_for, 'attempts', j.attempts,
                                                 'error_message', j.error_message, 'created_at', j.created_at) ORDER BY j.created_at, j.id), '[]')
      INTO jobs
      FROM usher.sync_jobs j
     WHERE j.organization_id = org AND j.status IN ('pending', 'in_progress', 'failed', 'dead')
       AND ARRAY[j.payload #>> '{new,id}', j.payload #>> '{new,deal_id}', j.payload #>> '{new,project_id}', j.payload #>> '{new,project_ref}',
                 j.payload #>> '{new,production_id}', j.payload #>> '{new,production_ref}', j.payload #>> '{new,event_id}', j.payload ->> 'production_id'] && theirs;
    SELECT COALESCE(jsonb_agg(to_jsonb(s) ORDER BY s.currency), '[]') INTO sold
      FROM (SELECT i.currency, sum(i.ticket_count) AS tickets, sum(i.gross_amount) AS gross_amount, max(i.ingested_at) AS last_at
              FROM usher.ticket_revenue_ingestions i WHERE i.organization_id = org AND i.project_id = stood.id GROUP BY i.currency) AS s;
    RETURN jsonb_build_object(
        'project', jsonb_build_object('id', stood.id, 'code', stood.code, 'name', stood.name, 'phase', stood.phase, 'health', stood.health),
        'deal', CASE WHEN stood.deal_id IS NOT NULL THEN jsonb_build_object('id', stood.deal_id, 'status', stood.deal_status) END,
        'production', CASE WHEN stood.production_id IS NOT NULL THEN jsonb_build_object('id', stood.production_id, 'status', stood.production_status) END,
        'event', CASE WHEN stood.event_id IS NOT NULL THEN jsonb_build_object('id', stood.event_id, 'slug', stood.event_slug, 'status', stood.event_status) END,
        'links', links, 'open_jobs', jobs, 'ticket_revenue', sold,
        'status', CASE WHEN jobs @> '[{"status": "dead"}]' OR links @> '[{"status": "failed"}]' THEN 'failed'
                       WHEN jobs <> '[]' OR stood.production_id IS NULL OR stood.event_id IS NULL THEN 'pending' ELSE 'synced' END);
END
$$;
REVOKE ALL ON FUNCTION live_events.integration_status(text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.integration_status(text, uuid) TO usher_member;
COMMENT ON FUNCTION live_events.integration_status(text, uuid) IS
    'How far a project has come on all platforms: deal, production, event, links, jobs that are not done, ticket revenue; for members';

-- Each call goes as far as it can: what a worker makes is there a moment later, and what has failed is tried again with what is true now.
CREATE OR REPLACE FUNCTION live_events.advance_lifecycle(organization text, deal uuid)
    RETURNS TABLE (step integer, stage text, status text, ref uuid, detail text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := usher.managed_organization(advance_lifecycle.organization);
    was     text;
    made    record;
    project uuid;
    site    record;
    show    record;
    waits   text;
    why     text;
BEGIN
    SELECT d.status INTO was FROM atlvs.deals d WHERE d.organization_id = org AND d.id = advance_lifecycle.deal FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deal % does not exist in organization "%"', COALESCE(advance_lifecycle.deal::text, '(none)'), advance_lifecycle.organization
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, title, status FROM atlvs.deals shows the deals that you may see.';
    END IF;
    IF was = 'lost' THEN
        RAISE EXCEPTION 'deal % is lost', advance_lifecycle.deal
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set its status to proposal first, if it is alive after all.';
    END IF;
    UPDATE atlvs.deals d SET status = 'won' WHERE d.organization_id = org AND d.id = advance_lifecycle.deal AND d.status <> 'won';
    RETURN QUERY SELECT 1, 'deal', 'synced', advance_lifecycle.deal, CASE WHEN was = 'won' THEN NULL ELSE 'won now, was ' || was END;

    SELECT h.* INTO made FROM usher.deal_to_project(advance_lifecycle.organization, advance_lifecycle.deal) AS h;
    project := made.project_id;
    RETURN QUERY SELECT 2, 'project', made.status, project, made.error_message;

    SELECT p.id, p.status INTO site FROM compvss.productions p WHERE p.organization_id = org AND p.project_ref = project;
    IF site.id IS NULL AND project IS NOT NULL THEN
        SELECT s.status, s.error_message INTO waits, why FROM live_events.stuck_job(org, ARRAY['live_events.create_production_from_project'], project) AS s;
    END IF;
    RETURN QUERY SELECT 3, 'production', CASE WHEN site.id IS NOT NULL THEN 'synced' ELSE COALESCE(waits, 'pending') END, site.id,
                        CASE WHEN site.id IS NULL THEN why ELSE site.status END;

    waits := NULL;
    why := NULL;
    SELECT e.id, e.status INTO show FROM gvteway.events e WHERE e.organization_id = org AND e.production_ref = site.id;
    IF show.id IS NULL AND site.status <> 'cancelled' THEN
        SELECT s.status, s.error_message INTO waits, why
          FROM live_events.stuck_job(org, ARRAY['live_events.request_event_for_production', 'live_events.create_event'], site.id) AS s;
        IF waits IS NULL THEN
            PERFORM usher.project_to_event(advance_lifecycle.organization, project);
        END IF;
    END IF;
    RETURN QUERY SELECT 4, 'event', CASE WHEN show.id IS NOT NULL THEN 'synced' ELSE COALESCE(waits, 'pending') END, show.id,
                        CASE WHEN show.id IS NULL THEN why ELSE show.status END;

    RETURN QUERY
    SELECT 5, 'revenue', CASE WHEN count(i.id) > 0 THEN 'synced' ELSE 'pending' END, NULL::uuid,
           CASE WHEN count(i.id) > 0 THEN format('%s tickets, %s %s', sum(i.ticket_count), sum(i.gross_amount), min(i.currency)) END
      FROM (SELECT 1) AS one
      LEFT JOIN usher.ticket_revenue_ingestions i ON i.organization_id = org AND i.project_id = project
     GROUP BY i.currency;
END
$$;
REVOKE ALL ON FUNCTION live_events.advance_lifecycle(text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.advance_lifecycle(text, uuid) TO usher_member;
COMMENT ON FUNCTION live_events.advance_lifecycle(text, uuid) IS
    'Takes a deal all the way: wins it, sees to its project, production and event, and tells how far each is; may be called again until all are synced; for admins';

-- What still stands between a row and what should come of it; dead ones are begun anew.
CREATE OR REPLACE FUNCTION live_events.stuck_job(organization uuid, flows text[], ref uuid, OUT status text, OUT error_message text) RETURNS record
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    held record;
BEGIN
    SELECT j.id, j.status, j.error_message INTO held
      FROM usher.sync_jobs j
     WHERE j.organization_id = stuck_job.organization AND j.flow = ANY (stuck_job.flows) AND j.status IN ('pending', 'in_progress', 'failed', 'dead')
       AND stuck_job.ref::text IN (j.payload #>> '{new,id}', j.payload ->> 'production_id')
     ORDER BY j.status = 'dead', j.created_at DESC LIMIT 1;
    IF held.status = 'dead' THEN
        PERFORM usher.retry_sync_job(held.id);
    END IF;
    status := CASE WHEN held.status IS NOT NULL THEN 'pending' END;
    error_message := held.error_message;
END
$$;
REVOKE ALL ON FUNCTION live_events.stuck_job(uuid, text[], uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.stuck_job(uuid, text[], uuid) TO usher_member;
COMMENT ON FUNCTION live_events.stuck_job(uuid, text[], uuid) IS
    'The job of some flows that a row still waits for, if there is one; a dead one is tried again, for admins';
