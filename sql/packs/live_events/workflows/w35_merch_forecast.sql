-- W35: what will be sold.

-- Takes the orders of a batch as they are now. What was counted for a line is remembered, so that what is sold is the same however often an order
-- comes, and is not counted anew from all orders of a show each second. Everything under the lock of the forecasts.
CREATE OR REPLACE FUNCTION compvss.forecast_merch(payload jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org    uuid := (payload -> 0 ->> 'organization')::uuid;
    orders uuid[] := ARRAY(SELECT DISTINCT (j ->> 'order')::uuid FROM jsonb_array_elements(payload) AS j WHERE j ->> 'order' IS NOT NULL);
    skus   text[] := ARRAY(SELECT DISTINCT j ->> 'sku' FROM jsonb_array_elements(payload) AS j WHERE j ->> 'sku' IS NOT NULL);
    shows  uuid[] := ARRAY(SELECT DISTINCT (j ->> 'production')::uuid FROM jsonb_array_elements(payload) AS j WHERE j ->> 'production' IS NOT NULL);
    due    uuid[];
    gone   jsonb;
    come   jsonb;
BEGIN
    -- A line without a sku is an article that nobody counts.
    INSERT INTO compvss.merch_forecasts (organization_id, production_id, sku)
    SELECT DISTINCT org, l.production_id, l.sku FROM compvss.merch_of_orders(org, orders) AS l ORDER BY 2, 3
    ON CONFLICT ON CONSTRAINT merch_forecasts_sku_key DO NOTHING;
    due := ARRAY(
        SELECT f.id FROM compvss.merch_forecasts f
         WHERE f.organization_id = org AND f.id IN (
               SELECT x.id FROM compvss.merch_forecasts x WHERE x.organization_id = org AND x.production_id = ANY (shows)
               UNION
               SELECT x.id FROM compvss.merch_of_orders(org, orders) AS l
                 JOIN compvss.merch_forecasts x ON x.organization_id = org AND x.production_id = l.production_id AND x.sku = l.sku
               UNION
               SELECT x.id FROM compvss.counted_merch c
                 JOIN compvss.merch_forecasts x ON x.organization_id = org AND x.production_id = c.production_id AND x.sku = c.sku
                WHERE c.organization_id = org AND c.order_ref = ANY (orders)
               UNION
               -- The stock of an article matters to productions that still sell, where it makes a difference: all shows draw on one stock, and each sale changes it.
               SELECT x.id FROM compvss.merch_forecasts x
                 JOIN gvteway.merch_products m ON m.organization_id = org AND m.sku = x.sku
                 JOIN compvss.productions p ON p.organization_id = org AND p.id = x.production_id
                WHERE x.organization_id = org AND x.sku = ANY (skus) AND p.status NOT IN ('wrapped', 'cancelled')
                  AND x.reorder <> (m.stock < COALESCE(x.projected, x.sold) - x.sold OR m.stock < 0))
         ORDER BY f.production_id, f.sku FOR NO KEY UPDATE);

    -- In two statements, so that a line that has changed goes and comes.
    WITH away AS (
        DELETE FROM compvss.counted_merch c
         WHERE c.organization_id = org AND c.order_ref = ANY (orders)
           AND NOT EXISTS (SELECT FROM compvss.merch_of_orders(org, orders) AS l
                            WHERE l.paid AND l.item = c.item_ref AND l.production_id = c.production_id AND l.sku = c.sku AND l.qty = c.qty)
        RETURNING c.production_id, c.sku, -c.qty AS qty)
    SELECT jsonb_agg(to_jsonb(a)) INTO gone FROM away a;
    WITH new_lines AS (
        INSERT INTO compvss.counted_merch (organization_id, item_ref, order_ref, production_id, sku, qty)
        SELECT org, l.item, l.order_id, l.production_id, l.sku, l.qty FROM compvss.merch_of_orders(org, orders) AS l WHERE l.paid ORDER BY l.item
        ON CONFLICT ON CONSTRAINT counted_merch_pkey DO NOTHING
        RETURNING production_id, sku, qty)
    SELECT jsonb_agg(to_jsonb(n)) INTO come FROM new_lines n;

    UPDATE compvss.merch_forecasts f
       SET sold = n.sold, projected = n.projected, stock = n.stock,
           reorder = COALESCE(n.stock < COALESCE(n.projected, n.sold) - n.sold OR n.stock < 0, false)
      FROM (SELECT c.id, c.sold, m.stock,
                   -- As many a head as up to now, for everybody who is expected.
                   CASE WHEN p.tickets_sold > 0
                        THEN LEAST(ceil(c.sold::numeric * greatest(COALESCE(p.projected_attendance, 0), p.tickets_sold) / p.tickets_sold), 2147483647)::integer END AS projected
              FROM (SELECT x.id, x.sku, x.production_id, (x.sold + COALESCE(d.qty, 0))::integer AS sold
                      FROM compvss.merch_forecasts x
                      LEFT JOIN (SELECT j.production_id, j.sku, sum(j.qty) AS qty
                                   FROM jsonb_to_recordset(COALESCE(gone, '[]') || COALESCE(come, '[]')) AS j (production_id uuid, sku text, qty integer)
                                  GROUP BY j.production_id, j.sku) AS d ON d.production_id = x.production_id AND d.sku = x.sku
                     WHERE x.organization_id = org AND x.id = ANY (due)) AS c
              JOIN compvss.productions p ON p.organization_id = org AND p.id = c.production_id
              LEFT JOIN gvteway.merch_products m ON m.organization_id = org AND m.sku = c.sku) AS n
     WHERE f.organization_id = org AND f.id = n.id;
END
$$;
REVOKE ALL ON FUNCTION compvss.forecast_merch(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION compvss.forecast_merch(jsonb) IS 'Counts what is sold of the articles of a batch of orders, each line once, and for these, for articles and for productions what will be needed';

CREATE OR REPLACE FUNCTION compvss.merch_of_orders(organization uuid, orders uuid[])
    RETURNS TABLE (item uuid, order_id uuid, production_id uuid, sku text, qty integer, paid boolean)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT i.id, o.id, p.id, i.sku, i.qty, o.status = 'paid'
      FROM gvteway.orders o
      JOIN gvteway.order_items i ON i.organization_id = o.organization_id AND i.order_id = o.id AND i.kind = 'merch'
      JOIN gvteway.events e ON e.organization_id = o.organization_id AND e.id = o.event_id
      JOIN compvss.productions p ON p.organization_id = e.organization_id AND p.id = e.production_ref
     WHERE o.organization_id = merch_of_orders.organization AND o.id = ANY (orders) AND btrim(i.sku) <> ''
$$;
REVOKE ALL ON FUNCTION compvss.merch_of_orders(uuid, uuid[]) FROM PUBLIC;
COMMENT ON FUNCTION compvss.merch_of_orders(uuid, uuid[]) IS 'The lines of orders that are merchandise with a sku, with the production that sells them';
