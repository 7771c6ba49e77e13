CREATE OR REPLACE VIEW @schema@.integration_event_links WITH (security_invoker = true) AS
SELECT l.id, l.organization_id, l.left_id AS project_id, l.right_id AS gvteway_event_id, l.ids ->> 'gvteway_slug' AS gvteway_slug, l.status,
       l.last_synced_at, l.error_message, l.metadata, l.created_at, l.updated_at
  FROM usher.links AS l
 WHERE l.kind = 'event';
COMMENT ON VIEW @schema@.integration_event_links IS 'pg_usher: which project has which event';
CREATE OR REPLACE TRIGGER write_link INSTEAD OF INSERT OR UPDATE OR DELETE ON @schema@.integration_event_links
    FOR EACH ROW EXECUTE FUNCTION usher.write_link('event', 'project_id', 'gvteway_event_id', 'gvteway_slug');
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.integration_event_links TO usher_member;
GRANT SELECT ON @schema@.integration_event_links TO usher_reader;
