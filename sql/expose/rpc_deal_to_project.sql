CREATE OR REPLACE FUNCTION @schema@.rpc_deal_to_project(p_deal_id uuid, p_org_slug text)
    RETURNS @schema@.integration_deal_links
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $function$
DECLARE
    said record;
    link @schema@.integration_deal_links;
BEGIN
    SELECT * INTO said FROM usher.deal_to_project(p_org_slug, p_deal_id);
    IF said.project_id IS NULL THEN
        -- Not there yet: what the link will be, without an id.
        link.organization_id := said.organization_id;
        link.deal_id := p_deal_id::text;
        link.status := said.status;
        link.error_message := said.error_message;
        link.metadata := '{}';
        RETURN link;
    END IF;
    SELECT l.* INTO link FROM @schema@.integration_deal_links AS l
     WHERE l.organization_id = said.organization_id AND l.deal_id = p_deal_id::text AND l.project_id = said.project_id::text;
    IF NOT FOUND THEN
        -- A project that somebody made by hand.
        INSERT INTO @schema@.integration_deal_links (organization_id, deal_id, project_id, status)
        VALUES (said.organization_id, p_deal_id::text, said.project_id::text, 'synced') RETURNING * INTO link;
    END IF;
    RETURN link;
END
$function$;
COMMENT ON FUNCTION @schema@.rpc_deal_to_project(uuid, text) IS 'pg_usher: sees to it that a won deal has its project; returns their link';
REVOKE ALL ON FUNCTION @schema@.rpc_deal_to_project(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @schema@.rpc_deal_to_project(uuid, text) TO usher_member;
