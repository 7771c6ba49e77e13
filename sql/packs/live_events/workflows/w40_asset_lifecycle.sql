-- W40: which equipment guests see.

-- By what is true now, so that it may be called again and in any order. An asset that was sent on before it came back is where it was
-- needed last.
CREATE OR REPLACE FUNCTION gvteway.show_assets(organization uuid, assets uuid[], production_ref uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org  CONSTANT uuid := show_assets.organization;
    them uuid[];
BEGIN
    -- One at a time for each asset: what a call sees must not be older than what another has written.
    SELECT array_agg(l.id) INTO them
      FROM (SELECT a.id FROM atlvs.assets a
             WHERE a.organization_id = org
               AND (a.id = ANY (show_assets.assets)
                    OR a.id IN (SELECT r.asset_ref FROM compvss.asset_requests r
                                 WHERE r.organization_id = org AND r.production_id = show_assets.production_ref AND r.status = 'deployed'))
             ORDER BY a.id FOR NO KEY UPDATE) AS l;
    them := array_cat(them, array_remove(show_assets.assets, NULL));
    DELETE FROM gvteway.event_info i
     WHERE i.organization_id = org AND i.kind = 'experience' AND i.source_ref IN (SELECT 'asset:' || t FROM unnest(them) AS t)
       AND NOT EXISTS (SELECT FROM gvteway.shown_assets(org, them) AS s WHERE i.source_ref = 'asset:' || s.asset_id);
    INSERT INTO gvteway.event_info AS i (organization_id, event_id, kind, source_ref, title, body)
    SELECT org, s.event_id, 'experience', 'asset:' || s.asset_id, s.name, s.body FROM gvteway.shown_assets(org, them) AS s
    ON CONFLICT ON CONSTRAINT event_info_source_key DO UPDATE SET event_id = excluded.event_id, title = excluded.title, body = excluded.body
     WHERE (i.event_id, i.title, i.body) IS DISTINCT FROM (excluded.event_id, excluded.title, excluded.body);
END
$$;
REVOKE ALL ON FUNCTION gvteway.show_assets(uuid, uuid[], uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.show_assets(uuid, uuid[], uuid) IS
    'Shows assets, or all those of a production, with the event where they are deployed, or does not where they are not';

CREATE OR REPLACE FUNCTION gvteway.shown_assets(organization uuid, assets uuid[])
    RETURNS TABLE (asset_id uuid, event_id uuid, name text, body jsonb)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT ON (a.id) a.id, e.id, a.name,
           jsonb_strip_nulls(jsonb_build_object('category', a.category, 'from', lower(r.period), 'until', upper(r.period)))
      FROM atlvs.assets a
      JOIN compvss.asset_requests r ON r.organization_id = a.organization_id AND r.asset_ref = a.id AND r.status = 'deployed'
      JOIN gvteway.events e ON e.organization_id = r.organization_id AND e.production_ref = r.production_id
     WHERE a.organization_id = shown_assets.organization AND a.id = ANY (shown_assets.assets)
       AND a.guest_visible AND a.state NOT IN ('maintenance', 'retired')
     ORDER BY a.id, lower(r.period) DESC, r.id
$$;
REVOKE ALL ON FUNCTION gvteway.shown_assets(uuid, uuid[]) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.shown_assets(uuid, uuid[]) IS 'Of these assets those that guests may see, with the event where each is deployed';
