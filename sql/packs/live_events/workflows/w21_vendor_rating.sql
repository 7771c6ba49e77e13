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

-- Under the lock of the vendor, so that of two who count the one who writes last has seen what both were about.
CREATE OR REPLACE FUNCTION gvteway.rate_vendor(organization uuid, vendor_id uuid) RETURNS numeric
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mean   numeric;
    counts integer;
BEGIN
    PERFORM FROM atlvs.vendors v WHERE v.organization_id = rate_vendor.organization AND v.id = rate_vendor.vendor_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'vendor % does not exist', rate_vendor.vendor_id
            USING ERRCODE = 'undefined_object', HINT = 'Correct vendor_ref of the review; W21 then counts it.';
    END IF;
    mean := gvteway.vendor_rating(rate_vendor.organization, rate_vendor.vendor_id);
    counts := gvteway.vendor_rating_count(rate_vendor.organization, rate_vendor.vendor_id);
    UPDATE atlvs.vendors v SET rating = mean, rating_n = counts
     WHERE v.organization_id = rate_vendor.organization AND v.id = rate_vendor.vendor_id AND (v.rating, v.rating_n) IS DISTINCT FROM (mean, counts);
    RETURN mean;
END
$$;
REVOKE ALL ON FUNCTION gvteway.rate_vendor(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.rate_vendor(uuid, uuid) IS 'Counts the rating of a vendor anew; returns it';

-- A vendor that is gone needs no rating.
CREATE OR REPLACE FUNCTION gvteway.rate_former_vendor(organization uuid, vendor_id uuid) RETURNS numeric
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT gvteway.rate_vendor(v.organization_id, v.id) FROM atlvs.vendors v
     WHERE v.organization_id = rate_former_vendor.organization AND v.id = rate_former_vendor.vendor_id
$$;
REVOKE ALL ON FUNCTION gvteway.rate_former_vendor(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.rate_former_vendor(uuid, uuid) IS 'The same of the vendor that a review was about before, if it is still there';
