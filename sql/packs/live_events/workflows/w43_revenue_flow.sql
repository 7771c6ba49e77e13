-- W43: what was sold.

-- Counted anew every time: repeats, reversals and the order in which they arrive do not matter.
CREATE OR REPLACE FUNCTION compvss.tickets_sold(organization_id uuid, project_id uuid) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(sum(i.ticket_count), 0)::integer
      FROM usher.ticket_revenue_ingestions i
     WHERE i.organization_id = tickets_sold.organization_id AND i.project_id = tickets_sold.project_id
$$;
REVOKE ALL ON FUNCTION compvss.tickets_sold(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.tickets_sold(uuid, uuid) IS 'Tickets of all ticket revenue of a project, reversals taken off';

-- The same for somebody who is about to write it: under the lock of the production, so that of two who count the one who writes last has seen
-- what both were about. Who writes compares with the count that was there before (`seen`): if that is the right one again, and another has
-- been written meanwhile, nothing would differ there; then it is put right here.
CREATE OR REPLACE FUNCTION compvss.count_tickets(organization uuid, project_id uuid, seen integer) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    counted integer;
BEGIN
    PERFORM FROM compvss.productions p WHERE p.organization_id = count_tickets.organization AND p.project_ref = count_tickets.project_id FOR NO KEY UPDATE;
    counted := compvss.tickets_sold(count_tickets.organization, count_tickets.project_id);
    IF counted = seen THEN
        UPDATE compvss.productions p SET tickets_sold = counted
         WHERE p.organization_id = count_tickets.organization AND p.project_ref = count_tickets.project_id AND p.tickets_sold <> counted;
    END IF;
    RETURN counted;
END
$$;
REVOKE ALL ON FUNCTION compvss.count_tickets(uuid, uuid, integer) FROM PUBLIC;
COMMENT ON FUNCTION compvss.count_tickets(uuid, uuid, integer) IS 'Tickets of all ticket revenue of a project, counted while nobody else writes its production';

CREATE OR REPLACE FUNCTION compvss.staffing_target(organization_id uuid, attendance integer) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT LEAST(ceil(staffing_target.attendance
                      * COALESCE((SELECT s.staffing_ratio FROM atlvs.settings s WHERE s.organization_id = staffing_target.organization_id), 0.02)),
                 2147483647)::integer
$$;
REVOKE ALL ON FUNCTION compvss.staffing_target(uuid, integer) FROM PUBLIC;
COMMENT ON FUNCTION compvss.staffing_target(uuid, integer) IS 'Staff for an attendance: times the ratio of the organization, by default one for fifty, rounded up';

CREATE OR REPLACE FUNCTION compvss.set_staffing_targets(organization uuid) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer;
BEGIN
    UPDATE compvss.productions p
       SET staffing_target = compvss.staffing_target(p.organization_id, GREATEST(p.projected_attendance, p.tickets_sold))
     WHERE p.organization_id = set_staffing_targets.organization AND p.status NOT IN ('wrapped', 'cancelled')
       AND (p.projected_attendance IS NOT NULL OR p.tickets_sold > 0)
       AND p.staffing_target IS DISTINCT FROM compvss.staffing_target(p.organization_id, GREATEST(p.projected_attendance, p.tickets_sold));
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
REVOKE ALL ON FUNCTION compvss.set_staffing_targets(uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.set_staffing_targets(uuid) IS 'Staffing targets of productions that are still to come, by the present ratio; returns how many have changed';
