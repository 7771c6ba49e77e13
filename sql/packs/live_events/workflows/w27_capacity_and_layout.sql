-- W27: from the approved layout to what can be sold.

-- How the seats of a section are arranged, for W28.
ALTER TABLE gvteway.sections ADD COLUMN IF NOT EXISTS rows integer;
ALTER TABLE gvteway.sections ADD COLUMN IF NOT EXISTS seats_per_row integer;
COMMENT ON COLUMN gvteway.sections.rows IS 'Rows of numbered seats, as the approved layout has them; empty where nobody has a seat of one''s own';

-- All of it or nothing, under the lock of the event. What is too small for what is sold is refused and says where.
CREATE OR REPLACE FUNCTION gvteway.apply_layout(organization uuid, production_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org    CONSTANT uuid := apply_layout.organization;
    layout compvss.venue_layouts;
    event  gvteway.events;
    parts  bigint;
    sold   bigint;
    short  text;
BEGIN
    SELECT e.* INTO event FROM gvteway.events e
     WHERE e.organization_id = org AND e.production_ref = apply_layout.production_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN; -- it is done when there is an event
    END IF;
    SELECT l.* INTO layout FROM compvss.venue_layouts l
     WHERE l.organization_id = org AND l.production_id = apply_layout.production_id AND l.status = 'approved'
     ORDER BY l.revision DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Sales wait until the quantities are settled.
    PERFORM FROM gvteway.ticket_types t WHERE t.organization_id = org AND t.event_id = event.id ORDER BY t.id FOR NO KEY UPDATE;

    SELECT COALESCE(sum(s.capacity), 0) INTO parts FROM compvss.seating_sections s WHERE s.organization_id = org AND s.layout_id = layout.id;
    IF parts > layout.capacity THEN
        RAISE EXCEPTION 'the sections of layout revision % hold % places, the layout %', layout.revision, parts, layout.capacity
            USING ERRCODE = 'check_violation', HINT = 'Correct the capacity of the layout or of its sections.';
    END IF;
    SELECT COALESCE(sum(t.sold), 0) INTO sold FROM gvteway.ticket_types t WHERE t.organization_id = org AND t.event_id = event.id;
    IF sold > layout.capacity THEN
        RAISE EXCEPTION 'layout revision % has % places, and % tickets are sold', layout.revision, layout.capacity, sold
            USING ERRCODE = 'check_violation', HINT = 'Approve a larger layout, or refund tickets, and run the job again.';
    END IF;
    SELECT string_agg(format('section %s would have %s places, and %s tickets are sold', x.code, x.capacity, x.sold), '; ' ORDER BY x.code) INTO short
      FROM (SELECT g.code, COALESCE(s.capacity, 0) AS capacity,
                   (SELECT COALESCE(sum(t.sold), 0) FROM gvteway.ticket_types t
                     WHERE t.organization_id = org AND t.event_id = event.id AND t.section_id = g.id) AS sold
              FROM gvteway.sections g
              LEFT JOIN compvss.seating_sections s ON s.organization_id = org AND s.layout_id = layout.id AND s.code = g.code
             WHERE g.organization_id = org AND g.event_id = event.id) AS x
     WHERE x.sold > x.capacity;
    IF short IS NOT NULL THEN
        RAISE EXCEPTION 'layout revision % is too small: %', layout.revision, short
            USING ERRCODE = 'check_violation', HINT = 'Approve a larger layout, or refund tickets, and run the job again.';
    END IF;

    -- Sections that the layout does not have any more go, or hold nobody if tickets were made for them.
    INSERT INTO gvteway.sections AS g (organization_id, event_id, code, kind, capacity, price_tier, rows, seats_per_row)
    SELECT org, event.id, s.code, s.kind, s.capacity, s.price_tier, NULLIF(s.rows, 0), CASE WHEN s.rows > 0 THEN s.seats_per_row END
      FROM compvss.seating_sections s
     WHERE s.organization_id = org AND s.layout_id = layout.id
    ON CONFLICT ON CONSTRAINT sections_code_key DO UPDATE
       SET kind = excluded.kind, capacity = excluded.capacity, price_tier = excluded.price_tier, rows = excluded.rows, seats_per_row = excluded.seats_per_row
     WHERE (g.kind, g.capacity, g.price_tier, g.rows, g.seats_per_row)
           IS DISTINCT FROM (excluded.kind, excluded.capacity, excluded.price_tier, excluded.rows, excluded.seats_per_row);
    DELETE FROM gvteway.sections g
     WHERE g.organization_id = org AND g.event_id = event.id
       AND NOT EXISTS (SELECT FROM compvss.seating_sections s WHERE s.organization_id = org AND s.layout_id = layout.id AND s.code = g.code)
       AND NOT EXISTS (SELECT FROM gvteway.ticket_types t WHERE t.organization_id = org AND t.section_id = g.id)
       AND NOT EXISTS (SELECT FROM gvteway.seats x WHERE x.organization_id = org AND x.section_id = g.id AND x.status IN ('sold', 'held'));
    UPDATE gvteway.sections g SET capacity = 0, rows = NULL, seats_per_row = NULL
     WHERE g.organization_id = org AND g.event_id = event.id AND (g.capacity, g.rows) IS DISTINCT FROM (0, NULL)
       AND NOT EXISTS (SELECT FROM compvss.seating_sections s WHERE s.organization_id = org AND s.layout_id = layout.id AND s.code = g.code);

    -- Ticket types share the places of their section; those without one share what no other's section takes. Each keeps what
    -- it has sold and gets of the rest its part of what was left before, whole tickets, the largest remainders first.
    WITH pools AS (
        SELECT t.id, t.section_id, t.sold, greatest(t.quantity - t.sold, 0) AS left_before,
               COALESCE(g.capacity, layout.capacity - COALESCE((
                   SELECT sum(h.capacity) FROM gvteway.sections h
                    WHERE h.organization_id = org AND h.event_id = event.id
                      AND EXISTS (SELECT FROM gvteway.ticket_types u WHERE u.organization_id = org AND u.section_id = h.id)), 0)) AS places
          FROM gvteway.ticket_types t
          LEFT JOIN gvteway.sections g ON g.organization_id = org AND g.id = t.section_id
         WHERE t.organization_id = org AND t.event_id = event.id
    ), weights AS (
        SELECT p.*, greatest(p.places - sum(p.sold) OVER pool, 0) AS free,
               CASE WHEN sum(p.left_before) OVER pool > 0 THEN p.left_before ELSE 1 END AS weight
          FROM pools p WINDOW pool AS (PARTITION BY p.section_id)
    ), shares AS (
        SELECT w.*, w.free * w.weight / sum(w.weight) OVER (PARTITION BY w.section_id) AS share FROM weights w
    ), given AS (
        SELECT s.*, s.free - sum(floor(s.share)) OVER (PARTITION BY s.section_id) AS over,
               row_number() OVER (PARTITION BY s.section_id ORDER BY s.share - floor(s.share) DESC, s.id) AS nth
          FROM shares s
    )
    UPDATE gvteway.ticket_types t
       SET quantity = n.quantity
      FROM (SELECT v.id, (v.sold + floor(v.share) + CASE WHEN v.nth <= v.over THEN 1 ELSE 0 END)::integer AS quantity FROM given v) AS n
     WHERE t.organization_id = org AND t.id = n.id AND t.quantity <> n.quantity;

    UPDATE gvteway.events e SET capacity = layout.capacity
     WHERE e.organization_id = org AND e.id = event.id AND e.capacity IS DISTINCT FROM layout.capacity;
    -- The production counts with it too; otherwise its next change would carry the old number to the event.
    UPDATE compvss.productions p SET capacity = layout.capacity
     WHERE p.organization_id = org AND p.id = layout.production_id AND p.capacity IS DISTINCT FROM layout.capacity;
END
$$;
REVOKE ALL ON FUNCTION gvteway.apply_layout(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.apply_layout(uuid, uuid) IS
    'Gives the event of a production capacity, sections and quantities of its approved layout, or says what is sold beyond it';
