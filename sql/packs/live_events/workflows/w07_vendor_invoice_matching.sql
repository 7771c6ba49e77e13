-- W7: a vendor's invoice against what was ordered.

-- What the order has left, with 1 % of its total on top, is paid as it comes. More than that is for somebody to decide: the invoice stands
-- here with what the order has left, and the two amounts that differ are a conflict of the merge that keeps them equal. Once they are equal,
-- whoever has given way, it is accepted.
CREATE OR REPLACE FUNCTION atlvs.match_vendor_invoice(organization uuid, invoice_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org      CONSTANT uuid := organization;
    came     record;
    po       record;
    standing record;
    others   numeric;
    over     boolean;
    matched  uuid;
BEGIN
    SELECT i.vendor_ref, i.po_number, i.number, i.amount, i.currency::text AS currency, p.project_ref, v.id AS vendor
      INTO came
      FROM compvss.vendor_invoices i
      JOIN compvss.productions p ON p.organization_id = i.organization_id AND p.id = i.production_id
      LEFT JOIN atlvs.vendors v ON v.organization_id = i.organization_id AND v.id = i.vendor_ref
     WHERE i.organization_id = org AND i.id = invoice_id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF came.vendor IS NULL THEN
        RAISE EXCEPTION 'vendor % of invoice % does not exist', came.vendor_ref, came.number
            USING ERRCODE = 'undefined_object', HINT = 'Enter the vendor, or correct vendor_ref.';
    END IF;
    -- Invoices of one order go one after the other.
    SELECT o.id, o.total, o.currency::text AS currency, o.project_id, o.status INTO po
      FROM atlvs.purchase_orders o
     WHERE o.organization_id = org AND o.number = came.po_number AND o.vendor_id = came.vendor
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the vendor of invoice % has no purchase order %', came.number, COALESCE(came.po_number, '(no number)')
            USING ERRCODE = 'undefined_object', HINT = 'Enter the order, or correct po_number.';
    END IF;
    IF po.status IN ('draft', 'cancelled') OR po.currency <> came.currency OR po.project_id IS DISTINCT FROM came.project_ref OR came.amount <= 0 THEN
        RAISE EXCEPTION 'invoice % does not fit purchase order %', came.number, came.po_number
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The order is %s, in %s; the invoice is of %s %s%s.', po.status, po.currency, came.amount, came.currency,
                                  CASE WHEN po.project_id IS DISTINCT FROM came.project_ref THEN ' and of another project' END),
                  HINT = 'Correct one of them. A credit note is entered by hand.';
    END IF;

    SELECT i.id, i.match_status, i.amount INTO standing
      FROM atlvs.vendor_invoices i
     WHERE i.organization_id = org AND i.source_ref = invoice_id;
    IF standing.match_status IN ('matched', 'accepted') THEN
        RETURN standing.id;
    END IF;
    SELECT COALESCE(sum(i.amount), 0) INTO others
      FROM atlvs.vendor_invoices i
     WHERE i.organization_id = org AND i.po_id = po.id AND i.match_status IN ('matched', 'accepted');
    over := others + came.amount > po.total * 1.01;
    -- Two amounts that have become equal are somebody's decision.
    INSERT INTO atlvs.vendor_invoices AS i (organization_id, vendor_id, po_id, number, amount, currency, match_status, variance, source_ref)
    VALUES (org, came.vendor, po.id, came.number, CASE WHEN over THEN GREATEST(po.total - others, 0) ELSE came.amount END, came.currency,
            CASE WHEN over THEN 'over' ELSE 'matched' END, others + came.amount - po.total, invoice_id)
    ON CONFLICT ON CONSTRAINT vendor_invoices_source_key DO UPDATE
       SET amount = CASE WHEN over AND i.amount = came.amount THEN i.amount ELSE excluded.amount END,
           match_status = CASE WHEN over AND i.amount = came.amount THEN 'accepted' ELSE excluded.match_status END,
           variance = excluded.variance, po_id = excluded.po_id, vendor_id = excluded.vendor_id, number = excluded.number, currency = excluded.currency
    RETURNING i.id INTO matched;
    UPDATE atlvs.purchase_orders o
       SET invoiced = s.amount, status = CASE WHEN o.status IN ('open', 'invoiced') THEN CASE WHEN s.amount >= o.total THEN 'invoiced' ELSE 'open' END ELSE o.status END
      FROM (SELECT COALESCE(sum(i.amount), 0) AS amount
              FROM atlvs.vendor_invoices i
             WHERE i.organization_id = org AND i.po_id = po.id AND i.match_status IN ('matched', 'accepted')) AS s
     WHERE o.organization_id = org AND o.id = po.id AND o.invoiced <> s.amount;
    RETURN matched;
END
$$;
REVOKE ALL ON FUNCTION atlvs.match_vendor_invoice(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.match_vendor_invoice(uuid, uuid) IS
    'Enters a vendor''s invoice as matched with its purchase order, as over it, or, when somebody has decided what is paid, as accepted';
