-- W1: codes of projects.

-- A number per row from one counter row would be quadratic when 10,000 deals are won in one statement (each update
-- leaves a version behind that the next has to step over). So the first call of a statement takes `total` numbers,
-- and every call finds its own by `nth`. Which call is the first is not assumed: a statement is known by its
-- transaction and by `batch`, the same id for all its rows. The row lock lasts to the end of the transaction, so
-- there are no doubles, and a statement that fails gives its numbers back.
CREATE OR REPLACE FUNCTION atlvs.project_code(
    organization_id uuid, year integer, nth bigint, total bigint, batch uuid
) RETURNS text
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix CONSTANT text := 'P-' || project_code.year || '-';
    last   bigint;
BEGIN
    SELECT c.last_number INTO last
      FROM atlvs.project_codes c
     WHERE c.organization_id = project_code.organization_id
       AND c.year = project_code.year
       AND c.reserved_by = batch
       AND c.reserved_count = total
       AND c.reserved_in = pg_current_xact_id();

    IF NOT FOUND THEN
        INSERT INTO atlvs.project_codes AS c
               (organization_id, year, last_number, reserved_count, reserved_by, reserved_in)
        VALUES (project_code.organization_id, project_code.year, total, total, batch, pg_current_xact_id())
        ON CONFLICT ON CONSTRAINT project_codes_pkey DO UPDATE
           SET last_number = c.last_number + excluded.last_number,
               reserved_count = excluded.reserved_count,
               reserved_by = excluded.reserved_by,
               reserved_in = excluded.reserved_in
        RETURNING c.last_number INTO last;

        -- Somebody gave a project one of these codes by hand, or brought projects along from elsewhere: go on after the
        -- highest of the year, or every win from here on would meet the same code.
        IF EXISTS (
            SELECT FROM atlvs.projects p
             WHERE p.organization_id = project_code.organization_id
               AND p.code = ANY (ARRAY(
                       SELECT prefix || lpad(n::text, greatest(5, length(n::text)), '0')
                         FROM generate_series(last - total + 1, last) n))
        ) THEN
            UPDATE atlvs.project_codes c
               SET last_number = total + (
                       SELECT max(substr(p.code, length(prefix) + 1)::bigint)
                         FROM atlvs.projects p
                        WHERE p.organization_id = project_code.organization_id
                          AND p.code ~ ('^' || prefix || '[0-9]{5,15}$'))
             WHERE c.organization_id = project_code.organization_id
               AND c.year = project_code.year
            RETURNING c.last_number INTO last;
        END IF;
    END IF;

    last := last - total + nth;
    RETURN prefix || lpad(last::text, greatest(5, length(last::text)), '0');
END
$$;
REVOKE ALL ON FUNCTION atlvs.project_code(uuid, integer, bigint, bigint, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.project_code(uuid, integer, bigint, bigint, uuid) IS
    'Code of the nth of total new projects of an organization and year in one statement; batch is one id for all';
