-- W21: what guests think of a vendor. Counted anew every time: repeats and the order in which reviews arrive do not matter.

CREATE OR REPLACE FUNCTION gvteway.vendor_rating(organization_id uuid, vendor_id uuid) RETURNS numeric
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT round(avg(r.rating), 2)
      FROM gvteway.reviews r
     WHERE r.organization_id = vendor_rating.organization_id AND r.vendor_ref = vendor_rating.vendor_id AND r.status = 'published'
$$;
REVOKE ALL ON FUNCTION gvteway.vendor_rating(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.vendor_rating(uuid, uuid) IS 'Mean of a vendor''s published reviews, two decimal places, half away from zero; empty without one';

CREATE OR REPLACE FUNCTION gvteway.vendor_rating_count(organization_id uuid, vendor_id uuid) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*)::integer
      FROM gvteway.reviews r
     WHERE r.organization_id = vendor_rating_count.organization_id AND r.vendor_ref = vendor_rating_count.vendor_id AND r.status = 'published'
$$;
REVOKE ALL ON FUNCTION gvteway.vendor_rating_count(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.vendor_rating_count(uuid, uuid) IS 'How many published reviews a vendor has';
