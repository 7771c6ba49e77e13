-- W45: what all three systems come to.

-- What ticket revenue comes to, by project and currency: the one pass over everything that was sold.
CREATE OR REPLACE FUNCTION live_events.sales(organization uuid)
    RETURNS TABLE (project_id uuid, currency text, sales bigint, tickets bigint, revenue numeric, refunds numeric)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT i.project_id, i.currency, count(*) FILTER (WHERE i.reverses IS NULL), sum(i.ticket_count), sum(i.gross_amount),
           -COALESCE(sum(i.gross_amount) FILTER (WHERE i.reverses IS NOT NULL), 0)
      FROM usher.ticket_revenue_ingestions i
     WHERE i.organization_id = sales.organization
     GROUP BY i.project_id, i.currency
$$;
REVOKE ALL ON FUNCTION live_events.sales(uuid) FROM PUBLIC;
COMMENT ON FUNCTION live_events.sales(uuid) IS 'Ticket revenue of an organization by project and currency, reversals taken off';

CREATE OR REPLACE FUNCTION live_events.refresh_kpis(organization uuid) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := organization;
    sold    jsonb;
    figures jsonb;
    changed integer;
    written integer;
BEGIN
    -- One at a time, so that what was counted earlier is not written later.
    PERFORM pg_advisory_xact_lock(hashtextextended('live_events.refresh_kpis ' || org, 0));
    SELECT COALESCE(jsonb_agg(to_jsonb(s)), '[]') INTO sold FROM live_events.sales(org) AS s;

    WITH counted AS (
        SELECT p.id, COALESCE(b.planned, 0) AS planned, COALESCE(b.actual, 0) AS spent, COALESCE(s.revenue, 0) AS revenue, COALESCE(s.refunds, 0) AS refunds,
               COALESCE(s.revenue, 0) - COALESCE(b.actual, 0) AS margin, COALESCE(t.sales, 0) AS sales, COALESCE(t.tickets, 0) AS tickets, COALESCE(a.scanned, 0) AS admitted
          FROM atlvs.projects p
          LEFT JOIN (SELECT l.project_id, sum(l.planned) AS planned, sum(l.actual) AS actual FROM atlvs.budget_lines l
                      WHERE l.organization_id = org GROUP BY l.project_id) AS b ON b.project_id = p.id
          LEFT JOIN jsonb_to_recordset(sold) AS s (project_id uuid, currency text, revenue numeric, refunds numeric) ON s.project_id = p.id AND s.currency = p.currency::text
          LEFT JOIN (SELECT x.project_id, sum(x.sales) AS sales, sum(x.tickets) AS tickets FROM jsonb_to_recordset(sold) AS x (project_id uuid, sales integer, tickets integer)
                      GROUP BY x.project_id) AS t ON t.project_id = p.id
          LEFT JOIN (SELECT c.project_ref, sum(n.scanned) AS scanned
                       FROM compvss.access_counts n JOIN compvss.productions c ON c.organization_id = n.organization_id AND c.id = n.production_id
                      WHERE n.organization_id = org GROUP BY c.project_ref) AS a ON a.project_ref = p.id
         WHERE p.organization_id = org
    ), gone AS (
        DELETE FROM live_events.project_figures f WHERE f.organization_id = org AND NOT EXISTS (SELECT FROM counted c WHERE c.id = f.project_id)
        RETURNING f.project_id
    ), put AS (
        INSERT INTO live_events.project_figures AS f (organization_id, project_id, planned, spent, revenue, refunds, margin, sales, tickets, admitted)
        SELECT org, c.* FROM counted c LEFT JOIN live_events.project_figures o ON o.organization_id = org AND o.project_id = c.id
         WHERE (o.planned, o.spent, o.revenue, o.refunds, o.margin, o.sales, o.tickets, o.admitted)
               IS DISTINCT FROM (c.planned, c.spent, c.revenue, c.refunds, c.margin, c.sales, c.tickets, c.admitted)
        ON CONFLICT ON CONSTRAINT project_figures_pkey DO UPDATE
           SET planned = excluded.planned, spent = excluded.spent, revenue = excluded.revenue, refunds = excluded.refunds, margin = excluded.margin,
               sales = excluded.sales, tickets = excluded.tickets, admitted = excluded.admitted
        RETURNING f.project_id)
    SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM put) INTO changed;

    SELECT jsonb_build_object(
        'atlvs', (SELECT jsonb_build_object(
            'deals_open', d.open, 'deals_won', d.won, 'pipeline', d.pipeline, 'won_value', d.won_value,
            'projects_running', p.running, 'budget', p.budget, 'planned', p.planned, 'spent', p.spent,
            'payables_open', (SELECT COALESCE(jsonb_object_agg(x.currency, x.amount), '{}')
                                FROM (SELECT a.currency, sum(a.amount) AS amount FROM atlvs.ap_items a
                                       WHERE a.organization_id = org AND a.status IN ('pending', 'approved') GROUP BY a.currency) AS x),
            'receivables_open', (SELECT COALESCE(jsonb_object_agg(x.currency, x.amount), '{}')
                                   FROM (SELECT i.currency, sum(i.total - i.paid) AS amount FROM atlvs.invoices i
                                          WHERE i.organization_id = org AND i.status = 'sent' GROUP BY i.currency) AS x),
            'alerts_open', (SELECT count(*) FROM atlvs.alerts a WHERE a.organization_id = org AND a.status = 'open'))
          FROM (SELECT COALESCE(sum(x.open), 0) AS open, COALESCE(sum(x.won), 0) AS won,
                       COALESCE(jsonb_object_agg(x.currency, x.pipeline) FILTER (WHERE x.pipeline <> 0), '{}') AS pipeline,
                       COALESCE(jsonb_object_agg(x.currency, x.won_value) FILTER (WHERE x.won_value <> 0), '{}') AS won_value
                  FROM (SELECT g.currency, count(*) FILTER (WHERE g.status IN ('inquiry', 'qualified', 'proposal')) AS open, count(*) FILTER (WHERE g.status = 'won') AS won,
                               sum(g.value) FILTER (WHERE g.status IN ('inquiry', 'qualified', 'proposal')) AS pipeline, sum(g.value) FILTER (WHERE g.status = 'won') AS won_value
                          FROM atlvs.deals g WHERE g.organization_id = org GROUP BY g.currency) AS x) AS d,
               (SELECT COALESCE(sum(x.running), 0) AS running, COALESCE(jsonb_object_agg(x.currency, x.budget), '{}') AS budget,
                       COALESCE(jsonb_object_agg(x.currency, x.planned), '{}') AS planned, COALESCE(jsonb_object_agg(x.currency, x.spent), '{}') AS spent
                  FROM (SELECT j.currency, count(*) AS running, sum(j.budget_total) AS budget, sum(f.planned) AS planned, sum(f.spent) AS spent
                          FROM atlvs.projects j JOIN live_events.project_figures f ON f.organization_id = j.organization_id AND f.project_id = j.id
                         WHERE j.organization_id = org AND j.phase NOT IN ('closed', 'cancelled') GROUP BY j.currency) AS x) AS p),
        'compvss', (SELECT jsonb_build_object(
            'productions_running', count(*), 'capacity', COALESCE(sum(c.capacity), 0), 'tickets_sold', COALESCE(sum(c.tickets_sold), 0),
            'staff_wanted', COALESCE(sum(c.staffing_target), 0),
            'admitted', (SELECT COALESCE(sum(f.admitted), 0) FROM live_events.project_figures f WHERE f.organization_id = org),
            'incidents_open', (SELECT count(*) FROM compvss.incidents i WHERE i.organization_id = org AND i.status IN ('open', 'in_progress')),
            'requests_open', (SELECT count(*) FROM compvss.asset_requests r WHERE r.organization_id = org AND r.status = 'requested'),
            'expenses_undecided', (SELECT COALESCE(jsonb_object_agg(x.currency, x.amount), '{}')
                                     FROM (SELECT e.currency, sum(e.amount) AS amount FROM compvss.expenses e
                                            WHERE e.organization_id = org AND e.status = 'submitted' GROUP BY e.currency) AS x))
          FROM compvss.productions c WHERE c.organization_id = org AND c.status NOT IN ('wrapped', 'cancelled')),
        'gvteway', (SELECT jsonb_build_object(
            'sales', COALESCE(sum(x.sales), 0), 'tickets', COALESCE(sum(x.tickets), 0),
            'revenue', COALESCE(jsonb_object_agg(x.currency, x.revenue) FILTER (WHERE x.currency IS NOT NULL), '{}'),
            'refunds', COALESCE(jsonb_object_agg(x.currency, x.refunds) FILTER (WHERE x.refunds <> 0), '{}'),
            'orders_pending', (SELECT count(*) FROM gvteway.orders o WHERE o.organization_id = org AND o.status = 'pending'),
            'events_on_sale', (SELECT count(*) FROM gvteway.events e WHERE e.organization_id = org AND e.status IN ('on_sale', 'live', 'delayed')),
            'guests', (SELECT count(*) FROM gvteway.guests g WHERE g.organization_id = org AND g.erased_at IS NULL),
            'members', (SELECT count(*) FROM gvteway.memberships m WHERE m.organization_id = org AND m.status = 'active'),
            'rating', (SELECT round(avg(r.rating), 2) FROM gvteway.reviews r WHERE r.organization_id = org AND r.status = 'published'))
          FROM (SELECT s.currency, sum(s.sales) AS sales, sum(s.tickets) AS tickets, sum(s.revenue) AS revenue, sum(s.refunds) AS refunds
                  FROM jsonb_to_recordset(sold) AS s (currency text, sales bigint, tickets bigint, revenue numeric, refunds numeric) GROUP BY s.currency) AS x)
    ) INTO figures;

    INSERT INTO live_events.kpi_snapshots AS k (organization_id, day, figures)
    VALUES (org, atlvs.local_day(org, now()), figures)
    ON CONFLICT ON CONSTRAINT kpi_snapshots_pkey DO UPDATE SET figures = excluded.figures, changed_at = now()
     WHERE k.figures IS DISTINCT FROM excluded.figures;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN changed + written;
END
$$;
REVOKE ALL ON FUNCTION live_events.refresh_kpis(uuid) FROM PUBLIC;
COMMENT ON FUNCTION live_events.refresh_kpis(uuid) IS 'Counts the figures of an organization and of its projects anew; returns how many rows have changed';
