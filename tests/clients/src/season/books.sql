-- As W16 takes orders in and books them: the same payload, accounts and lines.
INSERT INTO atlvs.ledger_accounts (organization_id, id, code, name, kind, created_at, updated_at)
SELECT h.id, pg_temp.id('account ' || a.code, h.house), a.code, a.name, a.kind, h.made, h.made
  FROM houses h, (VALUES ('1100', 'Ticket clearing', 'asset'), ('2200', 'Sales tax payable', 'liability'), ('4000', 'Ticket revenue', 'revenue'),
                         ('4100', 'Merchandise revenue', 'revenue'), ('4300', 'Fee revenue', 'revenue')) AS a (code, name, kind);

INSERT INTO usher.ticket_revenue_ingestions
       (organization_id, id, project_id, project_code, event_code, ticket_count, gross_amount, currency, ingestion_source, payload, ingested_at, idempotency_key)
SELECT organization_id, pg_temp.id('ingestion', m), project_id, NULL, slug, tickets, subtotal + fees + tax, currency, 'gvteway',
       jsonb_build_object('order', 'S-' || m, 'order_id', order_id, 'breakdown',
                          jsonb_strip_nulls(jsonb_build_object('tickets', tickets * price, 'merch', merch, 'fees', fees, 'tax', tax))),
       at, 'order:' || order_id
  FROM sold WHERE status IN ('paid', 'refunded');
INSERT INTO usher.ticket_revenue_ingestions
       (organization_id, id, project_id, project_code, event_code, ticket_count, gross_amount, currency, ingestion_source, payload, ingested_at, reverses, reason)
SELECT organization_id, pg_temp.id('reversal', m), project_id, NULL, slug, -tickets, -(subtotal + fees + tax), currency, 'gvteway', '{}', at + interval '1 day', pg_temp.id('ingestion', m), 'order refunded'
  FROM sold WHERE status = 'refunded';

INSERT INTO atlvs.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref, created_at)
SELECT organization_id, pg_temp.id('journal', m), project_id, (at AT TIME ZONE 'Europe/Berlin')::date, 'Ticket revenue ' || slug, currency, 'ticket_revenue', pg_temp.id('ingestion', m)::text, at
  FROM sold WHERE status IN ('paid', 'refunded');
INSERT INTO atlvs.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref, reverses, created_at)
SELECT organization_id, pg_temp.id('back', m), project_id, ((at + interval '1 day') AT TIME ZONE 'Europe/Berlin')::date, 'Reversal of ticket revenue ' || slug, currency, 'ticket_revenue',
       pg_temp.id('reversal', m)::text, pg_temp.id('journal', m), at + interval '1 day'
  FROM sold WHERE status = 'refunded';
INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit, credit)
SELECT s.organization_id, b.journal, l.line, pg_temp.id('account ' || l.code, s.house), GREATEST(l.amount * b.sign, 0), GREATEST(-l.amount * b.sign, 0)
  FROM sold s,
       LATERAL (SELECT pg_temp.id('journal', s.m) AS journal, 1 AS sign UNION ALL SELECT pg_temp.id('back', s.m), -1 WHERE s.status = 'refunded') AS b,
       LATERAL (SELECT row_number() OVER (ORDER BY v.code) AS line, v.*
                  FROM (VALUES ('1100', s.subtotal + s.fees + s.tax), ('2200', -s.tax), ('4000', -s.tickets * s.price), ('4100', -s.merch::numeric), ('4300', -s.fees)) AS v (code, amount)
                 WHERE v.amount IS NOT NULL) AS l
 WHERE s.status IN ('paid', 'refunded');

-- What follows from sales: W43, W19.
UPDATE compvss.productions p
   SET tickets_sold = t.sold, sell_through = LEAST(round(t.sold::numeric / p.capacity, 4), 99.9999), staffing_target = ceil(GREATEST(p.projected_attendance, t.sold) * 0.02)
  FROM (SELECT organization_id, project_id, sum(tickets) AS sold FROM sold WHERE status = 'paid' GROUP BY 1, 2) AS t
 WHERE p.organization_id = t.organization_id AND p.project_ref = t.project_id;
UPDATE gvteway.guests g SET lifetime_spend = s.spent
  FROM (SELECT organization_id, guest, sum(subtotal + fees + tax) AS spent FROM sold WHERE status = 'paid' GROUP BY 1, 2) AS s
 WHERE g.organization_id = s.organization_id AND g.id = s.guest;
-- W35.
INSERT INTO compvss.counted_merch (organization_id, item_ref, order_ref, production_id, sku, qty)
SELECT s.organization_id, pg_temp.id('merch', s.m), s.order_id, x.production_id, 'SKU-' || s.sku, 1 FROM sold s JOIN shows x ON x.event_id = s.event_id
 WHERE s.sku IS NOT NULL AND s.status = 'paid';
INSERT INTO compvss.merch_forecasts (organization_id, id, production_id, sku, sold, projected, stock, reorder, created_at, updated_at)
SELECT f.organization_id, pg_temp.id('forecast ' || f.n, f.sku), f.production_id, 'SKU-' || f.sku, f.sold,
       CASE WHEN p.tickets_sold > 0 THEN ceil(f.sold::numeric * GREATEST(p.projected_attendance, p.tickets_sold) / p.tickets_sold) END, m.stock, false, f.made, f.made
  FROM (SELECT s.organization_id, x.production_id, x.n, s.sku, s.made, count(*) FILTER (WHERE s.status = 'paid') AS sold FROM sold s JOIN shows x ON x.event_id = s.event_id
         WHERE s.sku IS NOT NULL AND s.status IN ('paid', 'refunded') GROUP BY 1, 2, 3, 4, 5) AS f
  JOIN compvss.productions p ON p.organization_id = f.organization_id AND p.id = f.production_id
  JOIN gvteway.merch_products m ON m.organization_id = f.organization_id AND m.sku = 'SKU-' || f.sku;
