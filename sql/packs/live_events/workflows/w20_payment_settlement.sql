-- W20: from a payout into the ledger.

CREATE OR REPLACE FUNCTION atlvs.settle_payout(organization uuid, payout_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    paid    record;
    named   record;
    journal uuid;
BEGIN
    SELECT p.provider, p.payout_ref, p.gross, p.fees, p.refunds, p.net, p.currency::text AS currency, p.paid_at INTO paid
      FROM gvteway.payouts p
     WHERE p.organization_id = settle_payout.organization AND p.id = settle_payout.payout_id
       -- Nobody corrects it while it is booked; who has begun to is waited for.
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'payout % does not exist', payout_id USING ERRCODE = 'undefined_object';
    ELSIF paid.gross - paid.fees - paid.refunds <> paid.net THEN
        RAISE EXCEPTION 'the amounts of payout % do not add up', paid.payout_ref
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Gross %s, fees %s, refunds %s, net %s.', paid.gross, paid.fees, paid.refunds, paid.net),
                  HINT = 'net is gross - fees - refunds: correct the payout and run the job again.';
    END IF;
    journal := atlvs.post_journal(settle_payout.organization, NULL, atlvs.local_day(settle_payout.organization, paid.paid_at),
                                  concat_ws(' ', 'Payout', paid.provider, paid.payout_ref), paid.currency, 'payout', settle_payout.payout_id::text,
                                  ARRAY['1000', '5300', '1100'], ARRAY[paid.net, paid.fees, paid.refunds - paid.gross]);
    -- What was refunded may have come in with another payout: only the gross amount can be told from the orders. Without orders
    -- that name the payout there is nothing to compare; the nightly reconciliation looks at the whole account.
    SELECT count(*) AS orders, COALESCE(sum(o.total) FILTER (WHERE o.currency = paid.currency), 0) AS total INTO named
      FROM gvteway.orders o
     WHERE o.organization_id = settle_payout.organization AND o.payout_id = settle_payout.payout_id AND o.status IN ('paid', 'refunded');
    INSERT INTO atlvs.settlements (organization_id, payout_ref, gross, fees, refunds, net, currency, status, journal_id)
    VALUES (settle_payout.organization, paid.payout_ref, paid.gross, paid.fees, paid.refunds, paid.net, paid.currency,
            CASE WHEN named.orders > 0 AND named.total <> paid.gross THEN 'difference' ELSE 'booked' END, journal)
    ON CONFLICT ON CONSTRAINT settlements_payout_key DO NOTHING;
    IF FOUND AND named.orders > 0 AND named.total <> paid.gross THEN
        INSERT INTO atlvs.alerts (organization_id, source_ref, kind, severity, title)
        VALUES (settle_payout.organization, settle_payout.payout_id, 'settlement', 'high',
                format('Payout %s: gross %s %s, but its orders are worth %s', paid.payout_ref, paid.gross, paid.currency, named.total))
        ON CONFLICT ON CONSTRAINT alerts_source_key DO NOTHING;
    END IF;
    RETURN journal;
END
$$;
REVOKE ALL ON FUNCTION atlvs.settle_payout(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.settle_payout(uuid, uuid) IS
    'Books a paid payout, once: bank and provider fees against clearing; an alert where its orders say something else; returns the journal';
