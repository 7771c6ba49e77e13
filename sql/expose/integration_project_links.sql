CREATE OR REPLACE VIEW @schema@.integration_project_links WITH (security_invoker = true) AS
SELECT l.id, l.organization_id, l.left_id AS project_id, l.right_id AS compvss_project_id, l.ids ->> 'compvss_slug' AS compvss_slug, l.status,
       l.last_synced_at, l.error_message, l.metadata, l.created_at, l.updated_at
  FROM usher.links AS l
 WHERE l.kind = 'project';
COMMENT ON VIEW @schema@.integration_project_links IS 'pg_usher: which project is which production';
CREATE OR REPLACE TRIGGER write_link INSTEAD OF INSERT OR UPDATE OR DELETE ON @schema@.integration_project_links
    FOR EACH ROW EXECUTE FUNCTION usher.write_link('project', 'project_id', 'compvss_project_id', 'compvss_slug');
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.integration_project_links TO usher_member;
GRANT SELECT ON @schema@.integration_project_links TO usher_reader;
