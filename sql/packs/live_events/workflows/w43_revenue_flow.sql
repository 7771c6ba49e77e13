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
