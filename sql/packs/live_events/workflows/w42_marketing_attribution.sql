-- W42: what campaigns bring.

CREATE OR REPLACE FUNCTION atlvs.attribute_orders(changes jsonb) RETURNS integer
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.refresh_campaigns((changes -> 0 ->> 'organization')::uuid,
               ARRAY(SELECT DISTINCT x.id::uuid FROM jsonb_array_elements(changes) AS c, LATERAL (VALUES (c ->> 'campaign'), (c ->> 'before')) AS x (id)
                      WHERE x.id IS NOT NULL))
$$;
REVOKE ALL ON FUNCTION atlvs.attribute_orders(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.attribute_orders(jsonb) IS 'Counts the campaigns of a batch of orders anew';

CREATE OR REPLACE FUNCTION atlvs.attribute_all_orders(organization uuid) RETURNS integer
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.refresh_campaigns(organization, ARRAY(SELECT c.id FROM gvteway.campaigns c WHERE c.organization_id = attribute_all_orders.organization))
$$;
REVOKE ALL ON FUNCTION atlvs.attribute_all_orders(uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.attribute_all_orders(uuid) IS 'Counts all campaigns of an organization anew; returns how many have changed';

CREATE OR REPLACE FUNCTION compvss.production_of_campaign(organization_id uuid, campaign_id uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.production_ref
      FROM gvteway.campaigns c
      JOIN gvteway.events e ON e.organization_id = c.organization_id AND e.id = c.event_id
     WHERE c.organization_id = production_of_campaign.organization_id AND c.id = production_of_campaign.campaign_id
$$;
REVOKE ALL ON FUNCTION compvss.production_of_campaign(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.production_of_campaign(uuid, uuid) IS 'The production of the event that a campaign is for';

-- What is sold, and what the campaigns' remaining budgets bring at what their tickets have cost so far. Never less than the deal
-- expects, and never more than the house holds. Empty where nothing can be said: no campaign of the production has cost anything, or
-- none has brought anything and no deal expects anybody.
CREATE OR REPLACE FUNCTION compvss.campaign_attendance(organization_id uuid, production_id uuid) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT LEAST(p.capacity, GREATEST(d.expected_attendance, p.tickets_sold + f.further), 2147483647)::integer
      FROM compvss.productions p
      JOIN gvteway.events e ON e.organization_id = p.organization_id AND e.production_ref = p.id
      LEFT JOIN atlvs.projects r ON r.organization_id = p.organization_id AND r.id = p.project_ref
      LEFT JOIN atlvs.deals d ON d.organization_id = r.organization_id AND d.id = r.deal_id,
           LATERAL (SELECT round(sum(t.tickets * GREATEST(b.budget - b.spend, 0) / b.spend)) AS further, sum(t.tickets) AS brought
                      FROM gvteway.campaigns c
                      JOIN atlvs.campaigns b ON b.organization_id = c.organization_id AND b.campaign_ref = c.id AND b.spend > 0,
                           LATERAL (SELECT COALESCE(sum(i.qty), 0) AS tickets
                                      FROM gvteway.orders o
                                      JOIN gvteway.order_items i ON i.organization_id = o.organization_id AND i.order_id = o.id AND i.kind = 'ticket'
                                     WHERE o.organization_id = c.organization_id AND o.campaign_id = c.id AND o.event_id = c.event_id AND o.status = 'paid') AS t
                     WHERE c.organization_id = e.organization_id AND c.event_id = e.id
                    HAVING count(*) > 0) AS f
     WHERE p.organization_id = campaign_attendance.organization_id AND p.id = campaign_attendance.production_id
       AND (f.brought > 0 OR d.expected_attendance IS NOT NULL)
$$;
REVOKE ALL ON FUNCTION compvss.campaign_attendance(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.campaign_attendance(uuid, uuid) IS
    'Attendance that sales and the campaigns of a production project; empty where nothing can be said';
