-- The first shows of a house sell most.
CREATE TEMP TABLE sold ON COMMIT DROP AS
SELECT o.*, o.tickets * o.price + COALESCE(o.merch, 0) AS subtotal, o.tickets * 2.5 AS fees, round((o.tickets * o.price + COALESCE(o.merch, 0)) * 0.19, 2) AS tax
  FROM (SELECT m, s.house, s.organization_id, s.event_id, s.project_id, 'show-' || s.n AS slug, s.currency, s.made, s.price, pg_temp.id('order', m) AS order_id,
               pg_temp.id('guest ' || s.house, pg_temp.pick('guest', m, {guests})) AS guest, 1 + pg_temp.pick('tickets', m, 4) AS tickets,
               CASE WHEN pg_temp.pick('buys', m, 5) = 0 THEN pg_temp.pick('sku', m, 50) END AS sku, CASE WHEN pg_temp.pick('buys', m, 5) = 0 THEN 15 + pg_temp.pick('sku', m, 50) END AS merch,
               pg_temp.word(pg_temp.pick('state', m, 997), 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'refunded', 'pending', 'cancelled') AS status,
               (s.event_date - 1 - pg_temp.pick('ahead', m, 30)) AT TIME ZONE 'UTC' + make_interval(secs => pg_temp.pick('second', m, 86400)) AS at
          FROM generate_series(0, {orders} - 1) AS m
          CROSS JOIN LATERAL (SELECT (pg_temp.pick('show', m, 1000000) / 1000000.0)::double precision AS u) AS r
          JOIN (SELECT house, count(*) AS shows FROM shows GROUP BY house) AS c ON c.house = m % {organizations}
          JOIN shows s ON s.house = c.house AND s.k = floor(c.shows * r.u * r.u)::bigint) AS o;
ANALYZE sold;

INSERT INTO gvteway.orders (organization_id, id, event_id, guest_ref, number, status, subtotal, fees, tax, total, currency, jurisdiction, paid_at, refunded_at, created_at, updated_at)
SELECT organization_id, order_id, event_id, guest, 'S-' || m, status, subtotal, fees, tax, subtotal + fees + tax, currency, 'DE',
       CASE WHEN status IN ('paid', 'refunded') THEN at END, CASE WHEN status = 'refunded' THEN at + interval '1 day' END, at, at
  FROM sold ORDER BY m;
INSERT INTO gvteway.order_items (organization_id, id, order_id, kind, sku, qty, unit_price, created_at, updated_at)
SELECT organization_id, pg_temp.id('tickets', m), order_id, 'ticket', NULL, tickets, price, at, at FROM sold
UNION ALL
SELECT organization_id, pg_temp.id('merch', m), order_id, 'merch', 'SKU-' || sku, 1, merch, at, at FROM sold WHERE sku IS NOT NULL;
