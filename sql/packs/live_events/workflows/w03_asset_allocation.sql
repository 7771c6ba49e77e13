-- W3: who gets an asset.

-- Two requests at once must not both get one asset, whatever they have seen. So those of one category go one after the other, and
-- each writes the asset it takes: under REPEATABLE READ the second fails by that and is tried again with what is true by then.
CREATE OR REPLACE FUNCTION atlvs.allocate_asset(organization uuid, request_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked  record;
    chosen uuid;
    free   jsonb;
BEGIN
    SELECT r.production_id, r.asset_ref, r.period, r.status, COALESCE(a.category, r.category) AS category, a.tag, a.state
      INTO asked
      FROM compvss.asset_requests r
      LEFT JOIN atlvs.assets a ON a.organization_id = r.organization_id AND a.id = r.asset_ref
     WHERE r.organization_id = allocate_asset.organization AND r.id = allocate_asset.request_id;
    -- Withdrawn, or answered by somebody.
    IF NOT FOUND OR asked.status <> 'requested' THEN
        RETURN NULL;
    END IF;
    IF asked.asset_ref IS NOT NULL AND asked.tag IS NULL THEN
        RAISE EXCEPTION 'asset % does not exist', asked.asset_ref
            USING ERRCODE = 'undefined_object', HINT = 'Ask for another, or for any of the category by leaving asset_ref empty.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('live_events asset ' || allocate_asset.organization || ' ' || asked.category, 0));

    SELECT a.id INTO chosen
      FROM atlvs.assets a
     WHERE a.organization_id = allocate_asset.organization AND a.category = asked.category
       AND (asked.asset_ref IS NULL OR a.id = asked.asset_ref)
       AND a.state NOT IN ('maintenance', 'retired')
       AND NOT EXISTS (
               SELECT FROM atlvs.asset_reservations x
                WHERE x.organization_id = a.organization_id AND x.asset_id = a.id AND x.status <> 'released' AND x.period && asked.period)
     ORDER BY a.tag
     LIMIT 1
       FOR NO KEY UPDATE;
    IF FOUND THEN
        UPDATE atlvs.assets a
           SET allocated_at = clock_timestamp(), state = CASE WHEN a.state = 'available' THEN 'reserved' ELSE a.state END
         WHERE a.organization_id = allocate_asset.organization AND a.id = chosen;
        INSERT INTO atlvs.asset_reservations AS x (organization_id, asset_id, production_ref, request_ref, period, status)
        VALUES (allocate_asset.organization, chosen, asked.production_id, allocate_asset.request_id, asked.period, 'held')
        ON CONFLICT ON CONSTRAINT asset_reservations_request_key DO UPDATE
           SET asset_id = excluded.asset_id, production_ref = excluded.production_ref, period = excluded.period, status = 'held', flagged = NULL;
        RETURN chosen;
    END IF;

    SELECT COALESCE(jsonb_agg(jsonb_build_object('id', f.id, 'tag', f.tag, 'name', f.name) ORDER BY f.tag), '[]') INTO free
      FROM (SELECT a.id, a.tag, a.name
              FROM atlvs.assets a
             WHERE a.organization_id = allocate_asset.organization AND a.category = asked.category
               AND a.state NOT IN ('maintenance', 'retired')
               AND NOT EXISTS (
                       SELECT FROM atlvs.asset_reservations x
                        WHERE x.organization_id = a.organization_id AND x.asset_id = a.id AND x.status <> 'released' AND x.period && asked.period)
             ORDER BY a.tag
             LIMIT 5) AS f;
    UPDATE compvss.asset_requests r
       SET status = 'denied', alternatives = free,
           reason = CASE WHEN asked.asset_ref IS NULL THEN format('no asset of category "%s" is free', asked.category)
                         WHEN asked.state IN ('maintenance', 'retired') THEN format('%s is %s', asked.tag, CASE asked.state WHEN 'retired' THEN 'retired' ELSE 'in maintenance' END)
                         ELSE format('%s is reserved at that time', asked.tag) END
     WHERE r.organization_id = allocate_asset.organization AND r.id = allocate_asset.request_id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION atlvs.allocate_asset(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.allocate_asset(uuid, uuid) IS
    'Answers a request: holds the asset that it names, or the first free one of its category, or denies it with free alternatives; returns the asset';

-- By what is true now, so that it may be called again and in any order.
CREATE OR REPLACE FUNCTION atlvs.follow_asset_request(organization uuid, request_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    became text;
    asset  uuid;
BEGIN
    SELECT x.asset_id INTO asset
      FROM atlvs.asset_reservations x
     WHERE x.organization_id = follow_asset_request.organization AND x.request_ref = follow_asset_request.request_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM atlvs.assets a WHERE a.organization_id = follow_asset_request.organization AND a.id = asset FOR NO KEY UPDATE;
    SELECT r.status INTO became
      FROM compvss.asset_requests r
     WHERE r.organization_id = follow_asset_request.organization AND r.id = follow_asset_request.request_id;
    UPDATE atlvs.asset_reservations x
       SET status = CASE became WHEN 'deployed' THEN 'confirmed' WHEN 'allocated' THEN x.status ELSE 'released' END
     WHERE x.organization_id = follow_asset_request.organization AND x.request_ref = follow_asset_request.request_id
       AND became IS DISTINCT FROM 'requested';
    PERFORM atlvs.state_asset(follow_asset_request.organization, asset);
END
$$;
REVOKE ALL ON FUNCTION atlvs.follow_asset_request(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.follow_asset_request(uuid, uuid) IS 'Reservation and asset of a request that was allocated: deployed, given back, or withdrawn';

CREATE OR REPLACE FUNCTION atlvs.state_asset(organization uuid, asset_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE atlvs.assets a
       SET state = CASE
               WHEN EXISTS (SELECT FROM atlvs.maintenance_orders m
                             WHERE m.organization_id = a.organization_id AND m.asset_id = a.id AND m.status IN ('open', 'in_progress')) THEN 'maintenance'
               WHEN EXISTS (SELECT FROM atlvs.asset_reservations x
                              JOIN compvss.asset_requests r ON r.organization_id = x.organization_id AND r.id = x.request_ref AND r.status = 'deployed'
                             WHERE x.organization_id = a.organization_id AND x.asset_id = a.id AND x.status = 'confirmed') THEN 'deployed'
               WHEN EXISTS (SELECT FROM atlvs.asset_reservations x
                             WHERE x.organization_id = a.organization_id AND x.asset_id = a.id AND x.status <> 'released'
                               AND (upper_inf(x.period) OR upper(x.period) > now())) THEN 'reserved'
               ELSE 'available' END
     WHERE a.organization_id = state_asset.organization AND a.id = state_asset.asset_id AND a.state <> 'retired'
$$;
REVOKE ALL ON FUNCTION atlvs.state_asset(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.state_asset(uuid, uuid) IS 'Where an asset is, by its maintenance orders, requests and reservations; a retired one stays retired';
