-- W18: what campaigns cost; and their totals in the books, which W42 has counted anew too.

-- Spend counts what is booked, orders count while they are paid. Their rows are locked first and read afterwards, so that the last to
-- write has seen what all have done.
CREATE OR REPLACE FUNCTION atlvs.refresh_campaigns(organization uuid, campaigns uuid[]) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer;
BEGIN
    INSERT INTO atlvs.campaigns (organization_id, campaign_ref, name, channel, budget, currency)
    SELECT c.organization_id, c.id, c.name, c.channel, c.budget, c.currency
      FROM gvteway.campaigns c
     WHERE c.organization_id = refresh_campaigns.organization AND c.id = ANY (refresh_campaigns.campaigns)
     ORDER BY c.id
    ON CONFLICT ON CONSTRAINT campaigns_ref_key DO NOTHING;
    PERFORM FROM atlvs.campaigns c
      WHERE c.organization_id = refresh_campaigns.organization AND c.campaign_ref = ANY (refresh_campaigns.campaigns)
      ORDER BY c.campaign_ref FOR UPDATE;
    UPDATE atlvs.campaigns c
       SET spend = f.spend, attributed_orders = f.orders, attributed_revenue = f.revenue
      FROM (SELECT g.id,
                   COALESCE((SELECT sum(s.amount) FROM gvteway.campaign_spend s
                              WHERE s.organization_id = g.organization_id AND s.campaign_id = g.id AND s.currency = g.currency
                                AND EXISTS (SELECT FROM atlvs.journals j WHERE j.organization_id = s.organization_id
                                               AND j.source_system = 'campaign_spend' AND j.source_ref = s.id::text)), 0) AS spend,
                   o.orders, o.revenue
              FROM gvteway.campaigns g,
                   LATERAL (SELECT count(*)::integer AS orders, COALESCE(sum(o.total) FILTER (WHERE o.currency = g.currency), 0) AS revenue
                              FROM gvteway.orders o
                             WHERE o.organization_id = g.organization_id AND o.campaign_id = g.id AND o.status = 'paid') AS o
             WHERE g.organization_id = refresh_campaigns.organization AND g.id = ANY (refresh_campaigns.campaigns)) AS f
     WHERE c.organization_id = refresh_campaigns.organization AND c.campaign_ref = f.id
       AND (c.spend, c.attributed_orders, c.attributed_revenue) IS DISTINCT FROM (f.spend, f.orders, f.revenue);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
REVOKE ALL ON FUNCTION atlvs.refresh_campaigns(uuid, uuid[]) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.refresh_campaigns(uuid, uuid[]) IS
    'Counts what campaigns have cost and brought anew, into atlvs.campaigns; revenue is of orders in the currency of the campaign';

CREATE OR REPLACE FUNCTION atlvs.book_campaign_spend(organization uuid, spend_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    spent   record;
    journal uuid;
BEGIN
    SELECT s.amount, s.currency, s.spent_on, s.source_ref, s.campaign_id, c.name, c.currency AS of_campaign, r.id AS project_id, r.code, r.phase INTO spent
      FROM gvteway.campaign_spend s
      JOIN gvteway.campaigns c ON c.organization_id = s.organization_id AND c.id = s.campaign_id
      LEFT JOIN gvteway.events e ON e.organization_id = c.organization_id AND e.id = c.event_id
      LEFT JOIN compvss.productions p ON p.organization_id = e.organization_id AND p.id = e.production_ref
      LEFT JOIN atlvs.projects r ON r.organization_id = p.organization_id AND r.id = p.project_ref
     WHERE s.organization_id = book_campaign_spend.organization AND s.id = book_campaign_spend.spend_id
       -- Nobody corrects it while it is booked; who has begun to is waited for.
       FOR NO KEY UPDATE OF s;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'campaign spend % does not exist', spend_id USING ERRCODE = 'undefined_object';
    ELSIF spent.currency <> spent.of_campaign THEN
        RAISE EXCEPTION 'spend % is in %, its campaign "%" in %', spent.source_ref, spent.currency, spent.name, spent.of_campaign
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Correct the one that is wrong and run the job again; amounts are not converted.';
    ELSIF spent.phase = 'closed' AND NOT EXISTS (SELECT FROM atlvs.journals j WHERE j.organization_id = book_campaign_spend.organization
                                                    AND j.source_system = 'campaign_spend' AND j.source_ref = book_campaign_spend.spend_id::text) THEN
        RAISE EXCEPTION 'spend % is for project "%", which is closed', spent.source_ref, spent.code
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Enter it for another campaign, then run the job again.';
    END IF;
    journal := atlvs.post_journal(book_campaign_spend.organization, spent.project_id, spent.spent_on,
                                  concat_ws(' ', 'Campaign', spent.name, spent.source_ref), spent.currency::text,
                                  'campaign_spend', book_campaign_spend.spend_id::text,
                                  ARRAY['5200', '2000'], ARRAY[spent.amount, -spent.amount]);
    PERFORM atlvs.refresh_campaigns(book_campaign_spend.organization, ARRAY[spent.campaign_id]);
    RETURN journal;
END
$$;
REVOKE ALL ON FUNCTION atlvs.book_campaign_spend(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.book_campaign_spend(uuid, uuid) IS
    'Books an entry of campaign spend as marketing expense against payables, once, and counts the campaign anew; returns the journal';
