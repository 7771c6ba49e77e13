-- W17: what sales take from stock.

-- An application may enter an order as paid and its lines behind it: then they do not make up the subtotal yet.
CREATE OR REPLACE FUNCTION gvteway.has_all_lines(organization uuid, order_id uuid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.status <> 'paid' OR (SELECT CASE WHEN count(*) = 0 THEN 0 ELSE sum(i.qty * i.unit_price) END FROM gvteway.order_items i
                                   WHERE i.organization_id = o.organization_id AND i.order_id = o.id) >= o.subtotal
      FROM gvteway.orders o
     WHERE o.organization_id = has_all_lines.organization AND o.id = has_all_lines.order_id
$$;
REVOKE ALL ON FUNCTION gvteway.has_all_lines(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.has_all_lines(uuid, uuid) IS 'Whether the lines of a paid order are worth its subtotal, or more; also of an order that is not paid, and empty for none';

-- One row of gvteway.stock_moves for each line, so that a repeated call moves nothing; the products are changed by what is new.
CREATE OR REPLACE FUNCTION gvteway.move_stock(organization uuid, order_id uuid, back boolean) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text;
    moved   integer;
BEGIN
    -- A line without a sku has no stock, and neither has an organization that keeps no products here.
    SELECT string_agg(DISTINCT i.sku, ', ') INTO unknown
      FROM gvteway.order_items i
     WHERE i.organization_id = move_stock.organization AND i.order_id = move_stock.order_id AND i.kind = 'merch' AND i.sku IS NOT NULL
       AND EXISTS (SELECT FROM gvteway.merch_products p WHERE p.organization_id = i.organization_id)
       AND NOT EXISTS (SELECT FROM gvteway.merch_products p WHERE p.organization_id = i.organization_id AND p.sku = i.sku);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'no product has the sku %', unknown
            USING ERRCODE = 'undefined_object', HINT = 'Insert the product into gvteway.merch_products, or correct the order''s line; then run the job again.';
    END IF;
    -- In one order, so that two orders of the same products do not wait for each other crosswise.
    PERFORM FROM gvteway.merch_products p
      WHERE p.organization_id = move_stock.organization
        AND p.sku IN (SELECT i.sku FROM gvteway.order_items i
                       WHERE i.organization_id = move_stock.organization AND i.order_id = move_stock.order_id AND i.kind = 'merch')
      ORDER BY p.id FOR NO KEY UPDATE;
    WITH lines AS (
        SELECT i.id, i.qty, p.id AS product
          FROM gvteway.order_items i
          JOIN gvteway.merch_products p ON p.organization_id = i.organization_id AND p.sku = i.sku
         WHERE i.organization_id = move_stock.organization AND i.order_id = move_stock.order_id AND i.kind = 'merch'
    ), new_moves AS (
        INSERT INTO gvteway.stock_moves (organization_id, source_ref, product_id, delta)
        SELECT move_stock.organization, 'sale:' || l.id, l.product, -l.qty FROM lines l
        UNION ALL
        SELECT move_stock.organization, 'refund:' || l.id, l.product, l.qty FROM lines l WHERE move_stock.back
        ON CONFLICT ON CONSTRAINT stock_moves_source_key DO NOTHING
        RETURNING product_id, delta
    ), sums AS (
        SELECT m.product_id, sum(m.delta) AS delta FROM new_moves m GROUP BY m.product_id
    )
    UPDATE gvteway.merch_products p SET stock = p.stock + s.delta
      FROM sums s
     WHERE p.organization_id = move_stock.organization AND p.id = s.product_id AND s.delta <> 0;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END
$$;
REVOKE ALL ON FUNCTION gvteway.move_stock(uuid, uuid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.move_stock(uuid, uuid, boolean) IS
    'Takes the merchandise of an order from stock, or puts it back too, once for each of its lines; returns how many products have changed';
