CREATE OR REPLACE VIEW @schema@.integration_asset_links WITH (security_invoker = true) AS
SELECT l.id, l.organization_id, l.left_id AS asset_id, l.right_id AS compvss_asset_id, l.ids ->> 'gvteway_inventory_id' AS gvteway_inventory_id, l.status,
       l.last_synced_at, l.error_message, l.metadata, l.created_at, l.updated_at
  FROM usher.links AS l
 WHERE l.kind = 'asset';
COMMENT ON VIEW @schema@.integration_asset_links IS 'pg_usher: which asset is which elsewhere';
CREATE OR REPLACE TRIGGER write_link INSTEAD OF INSERT OR UPDATE OR DELETE ON @schema@.integration_asset_links
    FOR EACH ROW EXECUTE FUNCTION usher.write_link('asset', 'asset_id', 'compvss_asset_id', 'gvteway_inventory_id');
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.integration_asset_links TO usher_member;
GRANT SELECT ON @schema@.integration_asset_links TO usher_reader;
