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

-- Writes it, for productions of one organization. They are locked first, each by itself and in one order: of two who count, the one who writes last has
-- seen what both were about.
CREATE OR REPLACE FUNCTION compvss.count_tickets(revenue jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org      CONSTANT uuid := revenue -> 0 ->> 'organization';
    projects CONSTANT uuid[] := ARRAY(SELECT DISTINCT (r ->> 'project_id')::uuid FROM jsonb_array_elements(revenue) AS r);
BEGIN
    PERFORM FROM compvss.productions p
      WHERE p.organization_id = org AND p.project_ref = ANY (projects) ORDER BY p.id FOR NO KEY UPDATE;
    UPDATE compvss.productions p SET tickets_sold = c.tickets
      FROM (SELECT t.project_id, COALESCE(sum(i.ticket_count), 0)::integer AS tickets
              FROM unnest(projects) AS t (project_id)
              LEFT JOIN usher.ticket_revenue_ingestions i ON i.organization_id = org AND i.project_id = t.project_id
             GROUP BY t.project_id) AS c
     WHERE p.organization_id = org AND p.project_ref = c.project_id AND p.tickets_sold IS DISTINCT FROM c.tickets;
END
$$;
REVOKE ALL ON FUNCTION compvss.count_tickets(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION compvss.count_tickets(jsonb) IS 'Counts the tickets of productions anew: [{"organization": …, "project_id": …}, …], all of one organization';

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
