CREATE OR REPLACE VIEW @schema@.integration_deal_links WITH (security_invoker = true) AS
SELECT l.id, l.organization_id, l.left_id AS deal_id, l.ids ->> 'compvss_opportunity_id' AS compvss_opportunity_id, l.ids ->> 'gvteway_campaign_id' AS gvteway_campaign_id, l.status,
       l.last_synced_at, l.error_message, l.metadata, l.created_at, l.updated_at, l.right_id AS project_id
  FROM usher.links AS l
 WHERE l.kind = 'deal';
COMMENT ON VIEW @schema@.integration_deal_links IS 'pg_usher: which deal became which project, and what else it is called elsewhere';
CREATE OR REPLACE TRIGGER write_link INSTEAD OF INSERT OR UPDATE OR DELETE ON @schema@.integration_deal_links
    FOR EACH ROW EXECUTE FUNCTION usher.write_link('deal', 'deal_id', 'project_id', 'compvss_opportunity_id', 'gvteway_campaign_id');
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.integration_deal_links TO usher_member;
GRANT SELECT ON @schema@.integration_deal_links TO usher_reader;
