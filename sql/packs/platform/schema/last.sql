-- Pack platform: what all of its tables have.

CREATE OR REPLACE FUNCTION platform.touch_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION platform.touch_row() FROM PUBLIC;
COMMENT ON FUNCTION platform.touch_row() IS 'Trigger: a changed row gets the next version and a new updated_at';

DO $tables$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT c.relname AS rel
          FROM pg_class c
         WHERE c.relnamespace = 'platform'::regnamespace AND c.relkind IN ('r', 'p') AND obj_description(c.oid, 'pg_class') LIKE 'Pack platform:%'
    LOOP
        -- An UPDATE that changes nothing leaves the row as it is: it is no news to any flow.
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER touch_row BEFORE UPDATE ON platform.%1$I
                 FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION platform.touch_row()', t.rel);
    END LOOP;
END
$tables$;
