-- W41: who is named in pictures, as W30 does it.

CREATE OR REPLACE FUNCTION gvteway.credit_media(organization uuid, crew_id uuid) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer;
BEGIN
    UPDATE gvteway.gallery_items i SET credit = c.name
      FROM compvss.media_files m
      JOIN compvss.crew_members c ON c.organization_id = m.organization_id AND c.id = m.crew_id
     WHERE m.organization_id = credit_media.organization AND m.crew_id = credit_media.crew_id AND m.status = 'approved'
       AND NULLIF(btrim(m.credit), '') IS NULL
       AND i.organization_id = m.organization_id AND i.source_ref = m.id::text AND i.credit IS DISTINCT FROM c.name;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
REVOKE ALL ON FUNCTION gvteway.credit_media(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.credit_media(uuid, uuid) IS
    'Pictures that a crew member has made and that name nobody else are shown with the name that he or she has now; returns how many have changed';
