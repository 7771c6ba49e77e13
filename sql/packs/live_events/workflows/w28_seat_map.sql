-- W28: the seats of a section.

CREATE OR REPLACE FUNCTION gvteway.row_label(n integer) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    RETURN CASE WHEN n <= 26 THEN chr(64 + n) ELSE chr(64 + (n - 1) / 26) || chr(65 + (n - 1) % 26) END;
REVOKE ALL ON FUNCTION gvteway.row_label(integer) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.row_label(integer) IS 'A to Z, then AA to ZZ; up to 702 rows';

CREATE OR REPLACE FUNCTION gvteway.generate_seats(organization uuid, section_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org  CONSTANT uuid := generate_seats.organization;
    part gvteway.sections;
BEGIN
    SELECT g.* INTO part FROM gvteway.sections g
     WHERE g.organization_id = org AND g.id = generate_seats.section_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF part.rows > 702 THEN
        RAISE EXCEPTION 'section % has % rows', part.code, part.rows
            USING ERRCODE = 'check_violation', HINT = 'Rows are called A to ZZ, which is 702: make several sections of it.';
    END IF;
    IF part.rows > 0 AND part.rows * COALESCE(part.seats_per_row, 0) <> part.capacity THEN
        RAISE EXCEPTION 'section % holds %, and its % rows of % seats hold %', part.code, part.capacity, part.rows, COALESCE(part.seats_per_row, 0),
                        part.rows * COALESCE(part.seats_per_row, 0)
            USING ERRCODE = 'check_violation', HINT = 'Correct rows, seats_per_row or capacity of the section in the approved layout.';
    END IF;

    INSERT INTO gvteway.seats (organization_id, section_id, row_label, seat_no)
    SELECT org, part.id, gvteway.row_label(r), n
      FROM generate_series(1, part.rows) AS r CROSS JOIN generate_series(1, part.seats_per_row) AS n
    ON CONFLICT ON CONSTRAINT seats_place_key DO NOTHING;
    DELETE FROM gvteway.seats s
     WHERE s.organization_id = org AND s.section_id = part.id AND s.status NOT IN ('sold', 'held')
       AND NOT EXISTS (SELECT FROM generate_series(1, part.rows) AS r WHERE gvteway.row_label(r) = s.row_label AND s.seat_no <= part.seats_per_row)
       -- A ticket may name a seat that was given back.
       AND NOT EXISTS (SELECT FROM gvteway.tickets t WHERE t.organization_id = org AND t.seat_id = s.id);
END
$$;
REVOKE ALL ON FUNCTION gvteway.generate_seats(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.generate_seats(uuid, uuid) IS 'Makes the seats of a section as its rows say; those that are sold or held stay';
