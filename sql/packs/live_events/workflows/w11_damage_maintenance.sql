-- W11 and W13: what is to be looked at in the reservations of an asset, and where the asset is.

-- By what is true now, so that it may be called again and in any order: a maintenance that reaches into the period, and other
-- reservations at the same time.
CREATE OR REPLACE FUNCTION atlvs.flag_reservations(organization uuid, asset_id uuid, old_asset_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- One at a time for each asset, so that both of two reservations made at once are flagged.
    PERFORM FROM atlvs.assets a
      WHERE a.organization_id = flag_reservations.organization AND a.id IN (flag_reservations.asset_id, flag_reservations.old_asset_id)
      ORDER BY a.id FOR NO KEY UPDATE;
    UPDATE atlvs.asset_reservations x
       SET flagged = f.reasons
      FROM (SELECT r.id,
                   NULLIF(concat_ws('; ',
                       (SELECT 'in maintenance until ' || max(m.due_on)
                          FROM atlvs.maintenance_orders m
                         WHERE m.organization_id = r.organization_id AND m.asset_id = r.asset_id AND m.status IN ('open', 'in_progress')
                           AND r.status <> 'released'
                           AND r.period && tstzrange(m.created_at, GREATEST(m.created_at, (m.due_on + 1)::timestamp AT TIME ZONE z.timezone))),
                       (SELECT 'reserved ' || count(*) + 1 || ' times'
                          FROM atlvs.asset_reservations o
                         WHERE o.organization_id = r.organization_id AND o.asset_id = r.asset_id AND o.id <> r.id
                           AND r.status <> 'released' AND o.status <> 'released' AND o.period && r.period
                        HAVING count(*) > 0)), '') AS reasons
              FROM atlvs.asset_reservations r
             CROSS JOIN (SELECT COALESCE((SELECT g.timezone FROM usher.organizations g WHERE g.id = flag_reservations.organization), 'UTC') AS timezone) AS z
             WHERE r.organization_id = flag_reservations.organization AND r.asset_id IN (flag_reservations.asset_id, flag_reservations.old_asset_id)) AS f
     WHERE x.organization_id = flag_reservations.organization AND x.id = f.id AND x.flagged IS DISTINCT FROM f.reasons;
END
$$;
REVOKE ALL ON FUNCTION atlvs.flag_reservations(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.flag_reservations(uuid, uuid, uuid) IS
    'Says in the reservations of an asset why somebody should look at them: a maintenance, or others at the same time';

CREATE OR REPLACE FUNCTION atlvs.service_asset(organization uuid, asset_id uuid, old_asset_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.flag_reservations(service_asset.organization, service_asset.asset_id, service_asset.old_asset_id);
    SELECT atlvs.state_asset(service_asset.organization, service_asset.asset_id);
    SELECT atlvs.state_asset(service_asset.organization, service_asset.old_asset_id)
     WHERE service_asset.old_asset_id IS DISTINCT FROM service_asset.asset_id
$$;
REVOKE ALL ON FUNCTION atlvs.service_asset(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.service_asset(uuid, uuid, uuid) IS 'Asset and reservations after a change of a maintenance order';
