-- W33: how many came in.

-- Takes the scans of a batch and looks at each as it is now. What was counted for a scan is remembered, so that the counts are
-- the same however often it comes, and are not counted anew from all scans of a gate each second.
CREATE OR REPLACE FUNCTION compvss.count_scans(payload jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org   uuid := (payload -> 0 ->> 'organization')::uuid;
    scans uuid[] := ARRAY(SELECT DISTINCT (j ->> 'scan')::uuid FROM jsonb_array_elements(payload) AS j ORDER BY 1);
    known tid[];
    gone  jsonb;
    come  jsonb;
BEGIN
    -- Scans and counts each in one order, so that two batches do not wait for each other crosswise. Each scan is looked up by its key: from
    -- the organization alone one would come to all of them, and a plan that was made in the morning may take that way.
    known := ARRAY(SELECT c.at FROM unnest(scans) AS s (id)
                    CROSS JOIN LATERAL (SELECT x.ctid AS at FROM compvss.counted_scans x
                                         WHERE x.organization_id = org AND x.scan_ref = s.id FOR UPDATE) AS c);
    WITH places AS MATERIALIZED (SELECT * FROM compvss.places_of_scans(org, scans)),
    away AS (
        DELETE FROM compvss.counted_scans c
         WHERE c.ctid = ANY (known)
           AND NOT EXISTS (SELECT FROM places p
                            WHERE p.scan = c.scan_ref AND p.production_id = c.production_id AND p.gate = c.gate AND p.bucket_at = c.bucket_at)
        RETURNING c.production_id, c.gate, c.bucket_at)
    SELECT jsonb_agg(to_jsonb(a)) INTO gone FROM (SELECT w.production_id, w.gate, w.bucket_at, -count(*) AS n FROM away w GROUP BY 1, 2, 3) AS a;
    WITH new_scans AS (
        INSERT INTO compvss.counted_scans (organization_id, scan_ref, production_id, gate, bucket_at)
        SELECT org, p.scan, p.production_id, p.gate, p.bucket_at FROM compvss.places_of_scans(org, scans) AS p ORDER BY p.scan
        ON CONFLICT ON CONSTRAINT counted_scans_pkey DO NOTHING
        RETURNING production_id, gate, bucket_at)
    SELECT jsonb_agg(to_jsonb(c)) INTO come FROM (SELECT s.production_id, s.gate, s.bucket_at, count(*) AS n FROM new_scans s GROUP BY 1, 2, 3) AS c;

    IF gone IS NULL THEN
        INSERT INTO compvss.access_counts AS a (organization_id, production_id, gate, bucket_at, scanned)
        SELECT org, c.production_id, c.gate, c.bucket_at, c.n
          FROM jsonb_to_recordset(COALESCE(come, '[]')) AS c (production_id uuid, gate text, bucket_at timestamptz, n integer) ORDER BY 2, 3, 4
        ON CONFLICT ON CONSTRAINT access_counts_bucket_key DO UPDATE SET scanned = a.scanned + excluded.scanned;
    ELSE
        -- What goes is there; what comes may not be.
        INSERT INTO compvss.access_counts AS a (organization_id, production_id, gate, bucket_at, scanned)
        SELECT org, d.production_id, d.gate, d.bucket_at, 0
          FROM jsonb_to_recordset(gone || COALESCE(come, '[]')) AS d (production_id uuid, gate text, bucket_at timestamptz) GROUP BY 2, 3, 4 ORDER BY 2, 3, 4
        ON CONFLICT ON CONSTRAINT access_counts_bucket_key DO UPDATE SET scanned = a.scanned;
        UPDATE compvss.access_counts a SET scanned = a.scanned + d.n
          FROM (SELECT x.production_id, x.gate, x.bucket_at, sum(x.n)::integer AS n
                  FROM jsonb_to_recordset(gone || COALESCE(come, '[]')) AS x (production_id uuid, gate text, bucket_at timestamptz, n integer)
                 GROUP BY 1, 2, 3) AS d
         WHERE a.organization_id = org AND a.production_id = d.production_id AND a.gate = d.gate AND a.bucket_at = d.bucket_at AND d.n <> 0;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION compvss.count_scans(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION compvss.count_scans(jsonb) IS 'Counts scans by gate and five minutes, each once, as they are now';

CREATE OR REPLACE FUNCTION compvss.places_of_scans(organization uuid, scans uuid[])
    RETURNS TABLE (scan uuid, production_id uuid, gate text, bucket_at timestamptz)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.id, e.production_ref, s.gate, date_bin('5 minutes', s.scanned_at, timestamptz '2000-01-01 00:00:00+00')
      FROM gvteway.ticket_scans s
      JOIN gvteway.tickets t ON t.organization_id = s.organization_id AND t.id = s.ticket_id
      JOIN gvteway.order_items i ON i.organization_id = t.organization_id AND i.id = t.item_id
      JOIN gvteway.orders o ON o.organization_id = i.organization_id AND o.id = i.order_id
      JOIN gvteway.events e ON e.organization_id = o.organization_id AND e.id = o.event_id
      JOIN compvss.productions p ON p.organization_id = e.organization_id AND p.id = e.production_ref
     WHERE s.organization_id = places_of_scans.organization AND s.id = ANY (scans) AND s.result = 'ok'
$$;
REVOKE ALL ON FUNCTION compvss.places_of_scans(uuid, uuid[]) FROM PUBLIC;
COMMENT ON FUNCTION compvss.places_of_scans(uuid, uuid[]) IS 'Where scans that let somebody in are counted: production, gate, five minutes';
