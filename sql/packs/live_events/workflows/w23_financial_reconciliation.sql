-- W23: do orders, ledger and payouts say the same?

-- Compared order by order and shown by event and day, so that an order that is paid at midnight and booked after it is no difference.
CREATE OR REPLACE FUNCTION atlvs.find_differences(organization uuid, up_to date)
    RETURNS TABLE (kind text, event_ref uuid, payout_ref text, day date, currency text, orders_amount numeric, ledger_amount numeric, payout_amount numeric, difference numeric)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    -- Nobody counts what is between these steps: guessed to be few, a million of them would be looked through once for each.
    SET enable_nestloop = off
AS $$
    WITH zone AS (
        SELECT COALESCE((SELECT o.timezone FROM usher.organizations o WHERE o.id = find_differences.organization), 'UTC') AS name
    ), clearing AS (
        SELECT a.id FROM atlvs.ledger_accounts a WHERE a.organization_id = find_differences.organization AND a.code = '1100'
    ), booked AS (
        -- What each journal has moved on clearing.
        SELECT j.id, j.source_system, j.source_ref, j.currency::text AS currency, COALESCE(sum(e.debit - e.credit), 0) AS amount
          FROM atlvs.journals j
          LEFT JOIN atlvs.ledger_entries e ON e.organization_id = j.organization_id AND e.journal_id = j.id AND e.account_id IN (SELECT c.id FROM clearing c)
         WHERE j.organization_id = find_differences.organization AND j.source_system IN ('ticket_revenue', 'payout')
         GROUP BY j.organization_id, j.id, j.source_system, j.source_ref, j.currency
    ), revenue AS (
        SELECT i.id, i.idempotency_key, i.reverses, i.ingested_at, i.currency, i.gross_amount, i.payload, b.amount
          FROM usher.ticket_revenue_ingestions i
          LEFT JOIN booked b ON b.source_system = 'ticket_revenue' AND b.source_ref = i.id::text
         WHERE i.organization_id = find_differences.organization
    ), sold AS (
        SELECT o.event_id, (o.paid_at AT TIME ZONE z.name)::date AS day, o.currency::text AS currency, o.total AS of_order, COALESCE(r.amount, 0) AS of_ledger
          FROM gvteway.orders o CROSS JOIN zone z
          LEFT JOIN revenue r ON r.idempotency_key = 'order:' || o.id AND r.reverses IS NULL
         WHERE o.organization_id = find_differences.organization AND o.status IN ('paid', 'refunded')
        UNION ALL
        SELECT o.event_id, (o.refunded_at AT TIME ZONE z.name)::date, o.currency::text, -o.total, COALESCE(b.amount, 0)
          FROM gvteway.orders o CROSS JOIN zone z
          LEFT JOIN revenue r ON r.idempotency_key = 'order:' || o.id AND r.reverses IS NULL
          LEFT JOIN revenue b ON b.reverses = r.id
         WHERE o.organization_id = find_differences.organization AND o.status = 'refunded'
        UNION ALL
        -- Booked for an order that is not there any more, or that is not paid.
        SELECT NULL, (r.ingested_at AT TIME ZONE z.name)::date, r.currency, 0, COALESCE(r.amount, 0) + COALESCE(b.amount, 0)
          FROM revenue r CROSS JOIN zone z
          LEFT JOIN revenue b ON b.reverses = r.id
         WHERE r.idempotency_key LIKE 'order:%' AND r.reverses IS NULL AND r.payload ? 'order_id'
           AND NOT EXISTS (SELECT FROM gvteway.orders o
                            WHERE o.organization_id = find_differences.organization AND 'order:' || o.id = r.idempotency_key AND o.status IN ('paid', 'refunded'))
    ), paid AS (
        SELECT p.payout_ref, (p.paid_at AT TIME ZONE z.name)::date AS day, p.currency::text AS currency, p.gross, p.refunds,
               (SELECT sum(o.total) FROM gvteway.orders o
                 WHERE o.organization_id = p.organization_id AND o.payout_id = p.id AND o.status IN ('paid', 'refunded') AND o.currency = p.currency) AS of_orders,
               COALESCE(b.amount, 0) AS of_ledger
          FROM gvteway.payouts p CROSS JOIN zone z
          LEFT JOIN booked b ON b.source_system = 'payout' AND b.source_ref = p.id::text
         WHERE p.organization_id = find_differences.organization AND p.status = 'paid'
    ), totals AS (
        SELECT t.currency, sum(t.revenue) AS revenue, sum(t.settled) AS settled, sum(t.balance) AS balance, sum(t.trial) AS trial
          FROM (SELECT i.currency, i.gross_amount AS revenue, 0 AS settled, 0 AS balance, 0 AS trial FROM revenue i
                UNION ALL
                SELECT s.currency::text, 0, s.gross - s.refunds, 0, 0 FROM atlvs.settlements s WHERE s.organization_id = find_differences.organization
                UNION ALL
                SELECT j.currency::text, 0, 0, CASE WHEN e.account_id IN (SELECT c.id FROM clearing c) THEN e.debit - e.credit ELSE 0 END, e.debit - e.credit
                  FROM atlvs.ledger_entries e
                  JOIN atlvs.journals j ON j.organization_id = e.organization_id AND j.id = e.journal_id
                 WHERE e.organization_id = find_differences.organization) AS t (currency, revenue, settled, balance, trial)
         GROUP BY t.currency
    )
    SELECT 'event_day', s.event_id, NULL::text, s.day, s.currency, sum(s.of_order), sum(s.of_ledger), NULL::numeric,
           -- Orders whose differences take each other away differ all the same: then it is what they differ by in all.
           CASE WHEN sum(abs(s.of_ledger - s.of_order)) > abs(sum(s.of_ledger - s.of_order))
                THEN sum(abs(s.of_ledger - s.of_order)) ELSE sum(s.of_ledger - s.of_order) END
      FROM sold s WHERE s.day <= find_differences.up_to
     GROUP BY s.event_id, s.day, s.currency
    UNION ALL
    -- The greater of two differences: to its orders, where some name it, and to what is booked of it.
    SELECT 'payout', NULL, p.payout_ref, p.day, p.currency, p.of_orders, -p.of_ledger, p.gross - p.refunds,
           CASE WHEN abs(p.gross - COALESCE(p.of_orders, p.gross)) > abs(p.gross - p.refunds + p.of_ledger)
                THEN p.gross - p.of_orders ELSE p.gross - p.refunds + p.of_ledger END
      FROM paid p WHERE p.day <= find_differences.up_to
    UNION ALL
    SELECT 'clearing', NULL, NULL, NULL, t.currency, t.revenue, t.balance, t.settled, t.balance - (t.revenue - t.settled) FROM totals t
    UNION ALL
    SELECT 'ledger', NULL, NULL, NULL, t.currency, NULL, t.trial, NULL, t.trial FROM totals t
$$;
REVOKE ALL ON FUNCTION atlvs.find_differences(uuid, date) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.find_differences(uuid, date) IS
    'All figures that should agree, with what they differ by: orders and ledger by event and day, payouts, clearing as a whole, debits and credits';

CREATE OR REPLACE FUNCTION atlvs.reconcile(organization uuid, up_to date) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tolerance CONSTANT numeric := 0.01;
    run       uuid;
    pairs     integer;
    found     jsonb;
    off       integer;
BEGIN
    IF up_to IS NULL OR NOT isfinite(up_to) THEN
        RAISE EXCEPTION 'there is no day up to which to reconcile'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name a day, such as 2026-08-01.';
    END IF;
    SELECT count(*), COALESCE(jsonb_agg(to_jsonb(d) ORDER BY d.kind, d.day, d.event_ref, d.payout_ref, d.currency) FILTER (WHERE abs(d.difference) >= tolerance), '[]')
      INTO pairs, found
      FROM atlvs.find_differences(reconcile.organization, reconcile.up_to) AS d;
    off := jsonb_array_length(found);

    INSERT INTO atlvs.reconciliation_runs AS r (organization_id, up_to, checked, differences, status)
    VALUES (reconcile.organization, reconcile.up_to, pairs, off, CASE WHEN off = 0 THEN 'clean' ELSE 'differences' END)
    ON CONFLICT ON CONSTRAINT reconciliation_runs_up_to_key DO UPDATE
       SET checked = excluded.checked, differences = excluded.differences, status = excluded.status
    RETURNING r.id INTO run;
    DELETE FROM atlvs.reconciliation_items i WHERE i.organization_id = reconcile.organization AND i.run_id = run;
    INSERT INTO atlvs.reconciliation_items
           (organization_id, run_id, line, kind, event_ref, payout_ref, day, currency, orders_amount, ledger_amount, payout_amount, difference)
    SELECT reconcile.organization, run, f.line, d.kind, d.event_ref, d.payout_ref, d.day, d.currency, d.orders_amount, d.ledger_amount, d.payout_amount, d.difference
      FROM jsonb_array_elements(found) WITH ORDINALITY AS f (item, line),
           jsonb_to_record(f.item) AS d (kind text, event_ref uuid, payout_ref text, day date, currency text,
                                         orders_amount numeric, ledger_amount numeric, payout_amount numeric, difference numeric);

    -- One alert for each difference, as long as it stands; what agrees again is resolved.
    WITH standing AS (
        SELECT md5(concat_ws('|', 'reconciliation', i.kind, i.event_ref, i.payout_ref, i.day, i.currency))::uuid AS source_ref,
               concat_ws(' ', 'Reconciliation:', i.kind, COALESCE((SELECT e.title FROM gvteway.events e WHERE e.organization_id = i.organization_id AND e.id = i.event_ref), i.payout_ref),
                         i.day, 'differs by', i.difference, i.currency) AS title
          FROM atlvs.reconciliation_items i
         WHERE i.organization_id = reconcile.organization AND i.run_id = run
    ), raised AS (
        INSERT INTO atlvs.alerts AS a (organization_id, source_ref, kind, severity, title)
        SELECT reconcile.organization, s.source_ref, 'reconciliation', 'high', s.title FROM standing s
        ON CONFLICT ON CONSTRAINT alerts_source_key DO UPDATE
           SET title = excluded.title, status = CASE WHEN a.status = 'resolved' THEN 'open' ELSE a.status END
         WHERE a.title <> excluded.title OR a.status = 'resolved'
    )
    UPDATE atlvs.alerts a SET status = 'resolved'
     WHERE a.organization_id = reconcile.organization AND a.kind = 'reconciliation' AND a.status <> 'resolved'
       AND NOT EXISTS (SELECT FROM standing s WHERE s.source_ref = a.source_ref)
       -- Days behind the one up to which was looked are left as a later run has found them.
       AND NOT EXISTS (SELECT FROM atlvs.reconciliation_items i
                        WHERE i.organization_id = a.organization_id AND i.day > reconcile.up_to
                          AND md5(concat_ws('|', 'reconciliation', i.kind, i.event_ref, i.payout_ref, i.day, i.currency))::uuid = a.source_ref);
    -- A settlement says whether its payout agrees with its orders as they are named now.
    UPDATE atlvs.settlements s SET status = w.status
      FROM (SELECT p.payout_ref, CASE WHEN sum(o.total) <> p.gross THEN 'difference' ELSE 'booked' END AS status
              FROM gvteway.payouts p
              LEFT JOIN gvteway.orders o ON o.organization_id = p.organization_id AND o.payout_id = p.id AND o.status IN ('paid', 'refunded') AND o.currency = p.currency
             WHERE p.organization_id = reconcile.organization AND p.status = 'paid'
             GROUP BY p.organization_id, p.id, p.payout_ref, p.gross) AS w
     WHERE s.organization_id = reconcile.organization AND s.payout_ref = w.payout_ref AND s.status <> w.status;
    UPDATE atlvs.alerts a SET status = 'resolved'
      FROM gvteway.payouts p
      JOIN atlvs.settlements s ON s.organization_id = p.organization_id AND s.payout_ref = p.payout_ref AND s.status = 'booked'
     WHERE a.organization_id = reconcile.organization AND a.kind = 'settlement' AND a.status <> 'resolved'
       AND p.organization_id = a.organization_id AND p.id = a.source_ref;
    RETURN off;
END
$$;
REVOKE ALL ON FUNCTION atlvs.reconcile(uuid, date) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.reconcile(uuid, date) IS
    'Compares orders, ledger and payouts up to a day and writes down what differs by 0.01 or more, with alerts; returns how many figures do';
