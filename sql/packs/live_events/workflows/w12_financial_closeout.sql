-- W12: closing a project's finances.

-- Whether everything that the production has handed in is decided and stands in the books.
CREATE OR REPLACE FUNCTION atlvs.is_settled(organization uuid, project_id uuid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (
               SELECT FROM compvss.productions p
                 JOIN compvss.expenses x ON x.organization_id = p.organization_id AND x.production_id = p.id AND x.status IN ('submitted', 'approved')
                 LEFT JOIN atlvs.ap_items a ON a.organization_id = x.organization_id AND a.source_ref = x.id
                WHERE p.organization_id = is_settled.organization AND p.project_ref = is_settled.project_id
                  AND (x.status = 'submitted' OR a.journal_id IS NULL))
       AND NOT EXISTS (
               SELECT FROM compvss.productions p
                 JOIN compvss.crew_assignments s ON s.organization_id = p.organization_id AND s.production_id = p.id
                 JOIN compvss.crew_members c ON c.organization_id = s.organization_id AND c.id = s.crew_id
                 JOIN compvss.time_entries t ON t.organization_id = s.organization_id AND t.assignment_id = s.id AND t.status IN ('submitted', 'approved')
                WHERE p.organization_id = is_settled.organization AND p.project_ref = is_settled.project_id
                  AND (t.status = 'submitted' OR c.employee_ref IS NOT NULL AND NOT EXISTS (
                           SELECT FROM atlvs.payroll_items i
                            WHERE i.organization_id = t.organization_id AND i.employee_id = c.employee_ref AND i.project_id = p.project_ref
                              AND i.work_on = t.work_on AND i.kind = 'hours' AND i.status <> 'void')))
       AND NOT EXISTS (
               SELECT FROM compvss.productions p
                 JOIN compvss.vendor_invoices v ON v.organization_id = p.organization_id AND v.production_id = p.id
                WHERE p.organization_id = is_settled.organization AND p.project_ref = is_settled.project_id
                  AND NOT EXISTS (SELECT FROM atlvs.ap_items a WHERE a.organization_id = v.organization_id AND a.source_ref = v.id))
       AND NOT EXISTS (
               SELECT FROM atlvs.ap_items a
                WHERE a.organization_id = is_settled.organization AND a.project_id = is_settled.project_id
                  AND (a.status = 'pending' OR a.status IN ('approved', 'paid') AND a.journal_id IS NULL))
       AND NOT EXISTS (
               SELECT FROM compvss.cost_lines c
                 LEFT JOIN atlvs.budget_lines b ON b.organization_id = c.organization_id AND b.project_id = c.project_ref AND b.category = c.category
                WHERE c.organization_id = is_settled.organization AND c.project_ref = is_settled.project_id
                  AND c.actual IS DISTINCT FROM b.actual)
$$;
REVOKE ALL ON FUNCTION atlvs.is_settled(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.is_settled(uuid, uuid) IS 'Whether expenses, hours and vendors'' invoices of a project are all decided and stand in the books and in the budget';

-- Asked after whatever may have been the last thing that was open.
CREATE OR REPLACE FUNCTION atlvs.settled_project(organization uuid, project_id uuid, production_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.project_ref
      FROM compvss.productions p
     WHERE p.organization_id = settled_project.organization AND p.status = 'wrapped'
       AND (p.project_ref = settled_project.project_id OR p.id = settled_project.production_id)
       AND atlvs.is_settled(p.organization_id, p.project_ref)
$$;
REVOKE ALL ON FUNCTION atlvs.settled_project(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.settled_project(uuid, uuid, uuid) IS
    'The project, by itself or by its production, if that is wrapped and nothing of it is open any more; else nothing';

-- One run at a time for each project: a second one would book everything again, so it does nothing.
CREATE OR REPLACE FUNCTION atlvs.begin_closing(organization uuid, project_id uuid, run uuid) RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE atlvs.projects p
       SET closing_run = run
     WHERE p.organization_id = organization AND p.id = begin_closing.project_id AND p.phase NOT IN ('closed', 'cancelled')
       AND COALESCE(p.closing_run, run) = run;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE atlvs.budget_lines b
       SET frozen = true
     WHERE b.organization_id = organization AND b.project_id = begin_closing.project_id AND NOT b.frozen;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION atlvs.begin_closing(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.begin_closing(uuid, uuid, uuid) IS
    'Begins to close a project: freezes its budget; false if there is nothing to close, or another run is at it';

CREATE OR REPLACE FUNCTION atlvs.end_closing(organization uuid, project_id uuid, run uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE atlvs.projects p SET closing_run = NULL
     WHERE p.organization_id = organization AND p.id = end_closing.project_id AND p.closing_run = run;
    IF FOUND THEN
        UPDATE atlvs.budget_lines b SET frozen = false
         WHERE b.organization_id = organization AND b.project_id = end_closing.project_id AND b.frozen;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION atlvs.end_closing(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.end_closing(uuid, uuid, uuid) IS 'Takes the beginning of a closeout back: the budget is not frozen any more';

-- A run that is begun anew after it was undone books under another reference.
CREATE OR REPLACE FUNCTION atlvs.closing_ref(organization uuid, run uuid, what text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(':', what, run, NULLIF(count(*), 0))
      FROM atlvs.journals j
      JOIN atlvs.journals r ON r.organization_id = j.organization_id AND r.reverses = j.id
     WHERE j.organization_id = closing_ref.organization AND j.source_system = 'closeout'
       AND (j.source_ref = what || ':' || run OR j.source_ref LIKE what || ':' || run || ':%')
$$;
REVOKE ALL ON FUNCTION atlvs.closing_ref(uuid, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.closing_ref(uuid, uuid, text) IS 'Reference in the ledger of what a run of the closeout books';

-- What work has cost but nobody has asked for yet: the payroll of the project, and what its open orders have left.
CREATE OR REPLACE FUNCTION atlvs.book_accruals(organization uuid, project_id uuid, run uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := organization;
    project record;
    pay     numeric;
    orders  numeric;
    strange bigint;
BEGIN
    SELECT p.code, p.currency::text AS currency INTO project FROM atlvs.projects p WHERE p.organization_id = org AND p.id = book_accruals.project_id;
    SELECT COALESCE(sum(i.gross), 0), count(*) FILTER (WHERE i.currency <> project.currency) INTO pay, strange
      FROM atlvs.payroll_items i
     WHERE i.organization_id = org AND i.project_id = book_accruals.project_id AND i.status <> 'void';
    SELECT COALESCE(sum(GREATEST(o.total - o.invoiced, 0)), 0), strange + count(*) FILTER (WHERE o.currency <> project.currency) INTO orders, strange
      FROM atlvs.purchase_orders o
     WHERE o.organization_id = org AND o.project_id = book_accruals.project_id AND o.status = 'open';
    IF strange > 0 THEN
        RAISE EXCEPTION 'project "%" has payroll or orders in another currency than %', project.code, project.currency
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Correct them, or close the orders.';
    END IF;
    IF pay + orders = 0 THEN
        RETURN NULL;
    END IF;
    RETURN atlvs.post_journal(org, book_accruals.project_id, atlvs.local_day(org, now()), format('Accruals of %s', project.code), project.currency,
                              'closeout', atlvs.closing_ref(org, run, 'accruals'),
                              ARRAY['5100', '2100', '5000', '2300'], ARRAY[pay, -pay, orders, -orders]);
END
$$;
REVOKE ALL ON FUNCTION atlvs.book_accruals(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.book_accruals(uuid, uuid, uuid) IS 'Books payroll and open orders of a project that is being closed; returns the journal, if there is anything';

CREATE OR REPLACE FUNCTION atlvs.reverse_closing(organization uuid, run uuid, what text) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.reverse_journal(j.organization_id, j.id, atlvs.local_day(j.organization_id, now()), 'Reversal: ' || j.memo, 'closeout', 'reversal:' || j.id)
      FROM atlvs.journals j
     WHERE j.organization_id = reverse_closing.organization AND j.source_system = 'closeout'
       AND (j.source_ref = what || ':' || run OR j.source_ref LIKE what || ':' || run || ':%')
$$;
REVOKE ALL ON FUNCTION atlvs.reverse_closing(uuid, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.reverse_closing(uuid, uuid, text) IS 'Books back what a run of the closeout has booked; once';

-- What was agreed and has not been invoiced yet.
CREATE OR REPLACE FUNCTION atlvs.bill_rest(organization uuid, project_id uuid, run uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := organization;
    project record;
    rest    numeric;
    bill    uuid;
BEGIN
    SELECT p.code, p.budget_total, p.currency::text AS currency, c.id AS contact INTO project
      FROM atlvs.projects p
      LEFT JOIN atlvs.deals d ON d.organization_id = p.organization_id AND d.id = p.deal_id
      LEFT JOIN atlvs.contacts c ON c.organization_id = d.organization_id AND c.id = d.contact_id
     WHERE p.organization_id = org AND p.id = bill_rest.project_id;
    SELECT project.budget_total - COALESCE(sum(i.total), 0) INTO rest
      FROM atlvs.invoices i
     WHERE i.organization_id = org AND i.project_id = bill_rest.project_id AND i.status <> 'void';
    IF EXISTS (SELECT FROM atlvs.invoices i
                WHERE i.organization_id = org AND i.project_id = bill_rest.project_id AND i.status <> 'void' AND i.currency <> project.currency) THEN
        RAISE EXCEPTION 'project "%" has invoices in another currency than %', project.code, project.currency
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Correct or void them, then begin anew with usher.retry_workflow().';
    END IF;
    IF rest <= 0 THEN
        RETURN NULL;
    END IF;
    INSERT INTO atlvs.invoices (organization_id, contact_id, project_id, number, total, currency, status)
    VALUES (org, project.contact, bill_rest.project_id,
            project.code || '-F' || COALESCE(NULLIF((SELECT count(*) FROM atlvs.invoices i
                WHERE i.organization_id = org AND i.project_id = bill_rest.project_id AND i.number LIKE project.code || '-F%'), 0)::text, ''),
            rest, project.currency, 'sent')
    RETURNING id INTO bill;
    PERFORM atlvs.post_journal(org, bill_rest.project_id, atlvs.local_day(org, now()), format('Final invoice of %s', project.code), project.currency,
                               'closeout', atlvs.closing_ref(org, run, 'invoice'), ARRAY['1200', '4400'], ARRAY[rest, -rest]);
    RETURN bill;
END
$$;
REVOKE ALL ON FUNCTION atlvs.bill_rest(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.bill_rest(uuid, uuid, uuid) IS 'Invoices and books what the client of a project has not been asked for yet; returns the invoice, if there is anything';

CREATE OR REPLACE FUNCTION atlvs.take_back_bill(organization uuid, run uuid, invoice text) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE atlvs.invoices i SET status = 'void' WHERE i.organization_id = take_back_bill.organization AND i.id = take_back_bill.invoice::uuid AND i.status <> 'void';
    SELECT atlvs.reverse_closing(take_back_bill.organization, take_back_bill.run, 'invoice')
$$;
REVOKE ALL ON FUNCTION atlvs.take_back_bill(uuid, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.take_back_bill(uuid, uuid, text) IS 'Voids the final invoice of a run of the closeout and books it back';

CREATE OR REPLACE FUNCTION atlvs.close_project(organization uuid, project_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    project record;
BEGIN
    SELECT p.code, p.phase INTO project
      FROM atlvs.projects p
     WHERE p.organization_id = organization AND p.id = close_project.project_id
       FOR NO KEY UPDATE;
    IF NOT FOUND OR project.phase = 'cancelled' OR NOT atlvs.is_settled(organization, close_project.project_id) THEN
        RAISE EXCEPTION 'project "%" cannot be closed', COALESCE(project.code, close_project.project_id::text)
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = CASE WHEN project.phase = 'cancelled' THEN 'It was cancelled.' ELSE 'Something was handed in while it was being closed.' END,
                  HINT = 'Settle what is open, then begin anew with usher.retry_workflow(run).';
    END IF;
    UPDATE atlvs.projects p
       SET phase = 'closed', closed_at = COALESCE(p.closed_at, now())
     WHERE p.organization_id = organization AND p.id = close_project.project_id AND p.phase <> 'closed';
    -- Lines that were made meanwhile, too.
    UPDATE atlvs.budget_lines b
       SET frozen = true
     WHERE b.organization_id = organization AND b.project_id = close_project.project_id AND NOT b.frozen;
END
$$;
REVOKE ALL ON FUNCTION atlvs.close_project(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.close_project(uuid, uuid) IS 'Closes a project of which nothing is open any more';
