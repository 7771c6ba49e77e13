-- W4 and W6: what an employee earns on a project, day by day.

-- The plan of a day by an assignment, and what was worked: one row for each assignment and day, or entry, with its rate. An assignment
-- of up to 24 hours is of the day on which it begins, so that a night is one day's work; a longer one is of every day that it touches.
-- Amounts are rounded once for each row, half away from zero, to the decimal places of the currency.
CREATE OR REPLACE FUNCTION atlvs.payroll_parts(organization uuid, crew_id uuid, project_id uuid)
    RETURNS TABLE (work_on date, kind text, source_ref uuid, hours numeric, overtime numeric, rate numeric, gross numeric, currency text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH assigned AS (
        SELECT a.id, a.status, a.period, p.timezone,
               -- What was agreed for the job, then what the employee gets for a day, then by the hour.
               CASE WHEN a.rate IS NULL THEN e.day_rate END AS by_day,
               COALESCE(a.rate, c.rate, e.hourly_rate) AS by_hour,
               CASE WHEN a.rate IS NULL AND e.day_rate IS NOT NULL THEN e.currency END::text AS day_currency,
               CASE WHEN a.rate IS NOT NULL THEN a.currency WHEN c.rate IS NOT NULL THEN c.currency ELSE e.currency END::text AS currency
          FROM compvss.crew_assignments a
          JOIN compvss.crew_members c ON c.organization_id = a.organization_id AND c.id = a.crew_id
          JOIN atlvs.employees e ON e.organization_id = c.organization_id AND e.id = c.employee_ref
          JOIN compvss.productions p ON p.organization_id = a.organization_id AND p.id = a.production_id
         WHERE a.organization_id = payroll_parts.organization AND a.crew_id = payroll_parts.crew_id
           AND p.project_ref IS NOT DISTINCT FROM payroll_parts.project_id
    )
    SELECT d.day::date, 'assignment', a.id, h.hours, 0, COALESCE(a.by_day, a.by_hour),
           round(COALESCE(a.by_day, h.hours * a.by_hour), least(2, atlvs.minor_digits(COALESCE(a.day_currency, a.currency)))),
           COALESCE(a.day_currency, a.currency)
      FROM assigned a
     CROSS JOIN LATERAL (SELECT lower(a.period) AT TIME ZONE a.timezone AS begins, upper(a.period) AT TIME ZONE a.timezone AS ends,
                                upper(a.period) - lower(a.period) <= interval '24 hours' AS short) AS l
     CROSS JOIN LATERAL generate_series(l.begins::date::timestamp,
                                        CASE WHEN l.short THEN l.begins ELSE l.ends - interval '1 microsecond' END::date::timestamp, interval '1 day') AS d (day)
     CROSS JOIN LATERAL (SELECT least(24, round(extract(epoch FROM CASE
                                    WHEN l.short THEN upper(a.period) - lower(a.period)
                                    ELSE least(upper(a.period), (d.day + interval '1 day') AT TIME ZONE a.timezone) - greatest(lower(a.period), d.day AT TIME ZONE a.timezone)
                                END) / 3600, 2)) AS hours) AS h
     WHERE a.status IN ('confirmed', 'completed')
     UNION ALL
    SELECT t.work_on, 'hours', t.id, t.hours, t.overtime, a.by_hour,
           round(a.by_hour * (t.hours + 1.5 * t.overtime), least(2, atlvs.minor_digits(a.currency))), a.currency
      FROM assigned a
      JOIN compvss.time_entries t ON t.organization_id = payroll_parts.organization AND t.assignment_id = a.id AND t.status = 'approved'
$$;
REVOKE ALL ON FUNCTION atlvs.payroll_parts(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.payroll_parts(uuid, uuid, uuid) IS
    'What a crew member''s confirmed assignments to a project, and the hours that were approved, are worth, day by day';

-- Counted anew from the assignments and hours that hold, so that it does not matter in which order they come and how often: approved
-- hours of a day are paid, before them the assignment is the plan. A row that nothing stands for any more is void.
CREATE OR REPLACE FUNCTION atlvs.plan_payroll(organization uuid, crew_id uuid, production_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := organization;
    member  record;
    project uuid;
    wrong   text;
    before  record;
    after   record;
BEGIN
    SELECT c.employee_ref, c.name INTO member
      FROM compvss.crew_members c
     WHERE c.organization_id = org AND c.id = plan_payroll.crew_id;
    -- Whoever is not employed sends invoices.
    IF member.employee_ref IS NULL THEN
        RETURN;
    END IF;
    SELECT p.project_ref INTO project FROM compvss.productions p WHERE p.organization_id = org AND p.id = plan_payroll.production_id;
    -- One at a time for each employee: what is counted below is what was committed before.
    PERFORM FROM atlvs.employees e WHERE e.organization_id = org AND e.id = member.employee_ref FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'employee % of crew member "%" does not exist', member.employee_ref, member.name
            USING ERRCODE = 'undefined_object', HINT = 'Enter the employee, or take employee_ref off the crew member.';
    END IF;
    IF EXISTS (SELECT FROM compvss.crew_assignments a
                WHERE a.organization_id = org AND a.crew_id = plan_payroll.crew_id AND a.status IN ('confirmed', 'completed')
                  AND (lower_inf(a.period) OR upper_inf(a.period))) THEN
        RAISE EXCEPTION 'an assignment of "%" has no beginning or no end', member.name
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give crew_assignments.period both.';
    END IF;
    SELECT string_agg(format('%s has %s', d.work_on, CASE WHEN d.rateless THEN 'no rate' ELSE 'two currencies' END), ', ' ORDER BY d.work_on) INTO wrong
      FROM (SELECT p.work_on, bool_or(p.gross IS NULL) AS rateless, count(DISTINCT p.currency) AS currencies
              FROM atlvs.payroll_parts(org, plan_payroll.crew_id, project) AS p
             GROUP BY p.work_on, p.kind) AS d
     WHERE d.rateless OR d.currencies > 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the work of "%" cannot be paid: %', member.name, wrong
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give the assignment, the crew member or the employee a rate; hours need one by the hour. A day is paid in one currency.';
    END IF;

    SELECT COALESCE(sum(i.gross), 0) AS gross, max(i.currency::text) AS currency INTO before
      FROM atlvs.payroll_items i
     WHERE i.organization_id = org AND i.employee_id = member.employee_ref AND i.project_id IS NOT DISTINCT FROM project
       AND i.kind = 'hours' AND i.status <> 'void';
    WITH parts AS MATERIALIZED (
        SELECT p.* FROM atlvs.payroll_parts(org, plan_payroll.crew_id, project) AS p
    ), days AS MATERIALIZED (
        SELECT p.work_on, p.kind, (array_agg(p.source_ref ORDER BY p.source_ref))[1] AS source_ref, sum(p.hours) AS hours, sum(p.overtime) AS overtime,
               CASE WHEN count(DISTINCT p.rate) = 1 THEN min(p.rate) ELSE round(sum(p.gross) / NULLIF(sum(p.hours + 1.5 * p.overtime), 0), 2) END AS rate,
               sum(p.gross) AS gross, min(p.currency) AS currency
          FROM parts p
         WHERE p.kind = 'hours' OR NOT EXISTS (SELECT FROM parts h WHERE h.work_on = p.work_on AND h.kind = 'hours')
         GROUP BY p.work_on, p.kind
    ), gone AS (
        UPDATE atlvs.payroll_items i
           SET status = 'void'
         WHERE i.organization_id = org AND i.employee_id = member.employee_ref AND i.project_id IS NOT DISTINCT FROM project
           AND i.status <> 'void' AND NOT EXISTS (SELECT FROM days d WHERE d.work_on = i.work_on)
    )
    INSERT INTO atlvs.payroll_items AS i
           (organization_id, employee_id, project_id, work_on, source_ref, kind, hours, overtime, rate, gross, currency, status)
    SELECT org, member.employee_ref, project, d.work_on, d.source_ref, d.kind, d.hours, d.overtime, d.rate, d.gross, d.currency,
           CASE d.kind WHEN 'hours' THEN 'approved' ELSE 'draft' END
      FROM days d
     ORDER BY d.work_on
    ON CONFLICT ON CONSTRAINT payroll_items_day_key DO UPDATE
       SET source_ref = excluded.source_ref, kind = excluded.kind, hours = excluded.hours, overtime = excluded.overtime, rate = excluded.rate,
           gross = excluded.gross, currency = excluded.currency, status = excluded.status
     WHERE i.status = 'void'
        OR (i.kind, i.hours, i.overtime, i.rate, i.gross, i.currency) IS DISTINCT FROM
           (excluded.kind, excluded.hours, excluded.overtime, excluded.rate, excluded.gross, excluded.currency)
           -- A day that is paid was paid at the rate of its time.
           AND NOT (i.status = 'paid' AND (i.kind, i.hours, i.overtime, i.currency) = (excluded.kind, excluded.hours, excluded.overtime, excluded.currency));
    SELECT COALESCE(sum(i.gross), 0) AS gross, max(i.currency::text) AS currency INTO after
      FROM atlvs.payroll_items i
     WHERE i.organization_id = org AND i.employee_id = member.employee_ref AND i.project_id IS NOT DISTINCT FROM project
       AND i.kind = 'hours' AND i.status <> 'void';
    IF after.gross <> before.gross AND EXISTS (SELECT FROM atlvs.projects p WHERE p.organization_id = org AND p.id = project AND p.phase = 'closed') THEN
        RAISE EXCEPTION 'the project of the hours of "%" is closed', member.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Enter them for another project.';
    END IF;
    PERFORM compvss.add_actual(org, plan_payroll.production_id, 'crew', COALESCE(after.currency, before.currency), after.gross - before.gross);
END
$$;
REVOKE ALL ON FUNCTION atlvs.plan_payroll(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.plan_payroll(uuid, uuid, uuid) IS
    'Payroll of a crew member on the project of a production: one row for each day, and what hours have cost in the cost line "crew"';

-- An assignment that changes hands or productions concerns both.
CREATE OR REPLACE FUNCTION atlvs.plan_assignment(organization uuid, crew_id uuid, production_id uuid, old_crew_id uuid, old_production_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.plan_payroll(plan_assignment.organization, w.crew_id, w.production_id)
      FROM (SELECT plan_assignment.crew_id, plan_assignment.production_id
             UNION
            SELECT plan_assignment.old_crew_id, plan_assignment.old_production_id
             ORDER BY 1, 2) AS w
     WHERE w.crew_id IS NOT NULL
$$;
REVOKE ALL ON FUNCTION atlvs.plan_assignment(uuid, uuid, uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.plan_assignment(uuid, uuid, uuid, uuid, uuid) IS 'Payroll of those whom a changed assignment concerns';

CREATE OR REPLACE FUNCTION atlvs.pay_hours(organization uuid, assignment_id uuid, old_assignment_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.plan_payroll(pay_hours.organization, w.crew_id, w.production_id)
      FROM (SELECT DISTINCT a.crew_id, a.production_id
              FROM compvss.crew_assignments a
             WHERE a.organization_id = pay_hours.organization AND a.id IN (pay_hours.assignment_id, pay_hours.old_assignment_id)
             ORDER BY 1, 2) AS w
$$;
REVOKE ALL ON FUNCTION atlvs.pay_hours(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.pay_hours(uuid, uuid, uuid) IS 'Payroll of those whose hours have changed';
