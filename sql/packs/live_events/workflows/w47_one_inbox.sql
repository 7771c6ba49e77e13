-- W47: who works on a production, as they sign in.

CREATE OR REPLACE FUNCTION live_events.production_people(organization uuid, production_id uuid) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(array_agg(DISTINCT i.user_id), '{}')
      FROM compvss.crew_assignments s
      JOIN live_events.platform_accounts a ON a.organization_id = s.organization_id AND a.platform = 'compvss' AND a.kind = 'crew_member' AND a.ref = s.crew_id
      JOIN live_events.identities i ON i.organization_id = a.organization_id AND i.id = a.identity_id
     WHERE s.organization_id = production_people.organization AND s.production_id = production_people.production_id
       AND s.status = 'confirmed' AND a.status = 'active' AND i.status = 'active' AND i.user_id IS NOT NULL
$$;
REVOKE ALL ON FUNCTION live_events.production_people(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION live_events.production_people(uuid, uuid) IS
    'The users who are confirmed on the crew of a production, by their identities; those who do not sign in are not among them';
