-- W5: accounts payable in the ledger and in the costs.

-- By what is true now, so that it may be called again and in any order: an item that is to be paid stands in the ledger and in the cost
-- line with its amount, every other one does not.
CREATE OR REPLACE FUNCTION atlvs.book_payable(organization uuid, item uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org        CONSTANT uuid := organization;
    owed       record;
    production uuid;
    booked     numeric;
    journal    uuid;
    wanted     boolean;
    today      CONSTANT date := atlvs.local_day(org, now());
BEGIN
    SELECT a.kind, a.source_ref, a.project_id, a.category, a.payee, a.amount, a.currency::text AS currency, a.status, a.journal_id, p.phase, p.code
      INTO owed
      FROM atlvs.ap_items a
      LEFT JOIN atlvs.projects p ON p.organization_id = a.organization_id AND p.id = a.project_id
     WHERE a.organization_id = org AND a.id = item
       FOR NO KEY UPDATE OF a;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    journal := owed.journal_id;
    wanted := owed.status IN ('approved', 'paid');
    SELECT sum(e.debit) INTO booked FROM atlvs.ledger_entries e WHERE e.organization_id = org AND e.journal_id = journal;
    IF journal IS NOT NULL AND wanted AND booked = owed.amount OR journal IS NULL AND NOT wanted THEN
        RETURN journal;
    END IF;
    IF owed.phase = 'closed' THEN
        RAISE EXCEPTION 'project "%" is closed', owed.code
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Enter it for another project.';
    END IF;
    production := COALESCE(compvss.production_of(org, owed.project_id), CASE owed.kind
        WHEN 'expense' THEN (SELECT x.production_id FROM compvss.expenses x WHERE x.organization_id = org AND x.id = owed.source_ref)
        WHEN 'vendor_invoice' THEN (SELECT x.production_id FROM compvss.vendor_invoices x WHERE x.organization_id = org AND x.id = owed.source_ref) END);

    IF journal IS NOT NULL THEN
        PERFORM atlvs.reverse_journal(org, journal, today, format('Reversal of %s, %s', replace(owed.kind, '_', ' '), owed.payee),
                                      'payable', 'reversal:' || journal);
        PERFORM compvss.add_actual(org, production, owed.category, (SELECT j.currency::text FROM atlvs.journals j WHERE j.organization_id = org AND j.id = journal), -booked);
        journal := NULL;
    END IF;
    IF wanted THEN
        -- A booking after a reversal is another one.
        journal := atlvs.post_journal(
            org, owed.project_id, today, format('%s, %s', initcap(replace(owed.kind, '_', ' ')), owed.payee), owed.currency, 'payable',
            concat_ws(':', owed.source_ref, NULLIF((SELECT count(*) FROM atlvs.journals j
                                                     WHERE j.organization_id = org AND j.source_system = 'payable'
                                                       AND (j.source_ref = owed.source_ref::text OR j.source_ref LIKE owed.source_ref || ':%')), 0)),
            ARRAY['5000', '2000'], ARRAY[owed.amount, -owed.amount]);
        PERFORM compvss.add_actual(org, production, owed.category, owed.currency, owed.amount);
    END IF;
    UPDATE atlvs.ap_items a SET journal_id = journal WHERE a.organization_id = org AND a.id = item;
    RETURN journal;
END
$$;
REVOKE ALL ON FUNCTION atlvs.book_payable(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.book_payable(uuid, uuid) IS
    'Brings ledger and cost line in line with an item of accounts payable: booked while it is approved or paid, else booked back; returns the journal that stands';
