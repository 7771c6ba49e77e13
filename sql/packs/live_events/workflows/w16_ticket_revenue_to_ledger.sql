-- W16: from an order to ticket revenue, and from there into the ledger.

-- The one way from orders into ticket revenue, all of one organization. An order's id is its key, so it may be called again. One that cannot be
-- taken in lets all of them wait; whoever gave them tries fewer.
CREATE OR REPLACE FUNCTION gvteway.ingest_orders(orders jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := orders -> 0 ->> 'organization';
    missing uuid;
    wrong   uuid;
    sales   jsonb;
    sold    record;
BEGIN
    SELECT min(w.order_id::text) FILTER (WHERE w.found IS NULL)::uuid,
           min(w.order_id::text) FILTER (WHERE w.found IS NOT NULL AND (w.worth = w.subtotal AND w.subtotal + w.fees + w.tax = w.total) IS NOT TRUE)::uuid,
           jsonb_agg(jsonb_build_object(
               'event_code', w.slug,
               'ticket_count', w.tickets,
               'gross_amount', w.total,
               'currency', w.currency,
               'source', 'gvteway',
               'payload', jsonb_build_object('order', w.number, 'order_id', w.order_id, 'breakdown', jsonb_strip_nulls(jsonb_build_object(
                   'tickets', w.of_tickets,
                   'merch', w.of_merch,
                   'parking', w.of_parking,
                   'fees', NULLIF(w.fees, 0),
                   'tax', NULLIF(w.tax, 0)))),
               'idempotency_key', 'order:' || w.order_id) ORDER BY w.n)
      INTO missing, wrong, sales
      FROM (SELECT g.n, g.order_id, o.id AS found, o.number, o.subtotal, o.fees, o.tax, o.total, o.currency, e.slug, l.tickets, l.worth, l.of_tickets, l.of_merch, l.of_parking
              FROM (SELECT (j.value ->> 'order_id')::uuid AS order_id, min(j.n) AS n FROM jsonb_array_elements(orders) WITH ORDINALITY AS j (value, n) GROUP BY 1) AS g
              LEFT JOIN (gvteway.orders o JOIN gvteway.events e ON e.organization_id = o.organization_id AND e.id = o.event_id)
                     ON o.organization_id = org AND o.id = g.order_id
             CROSS JOIN LATERAL (
                   SELECT COALESCE(sum(i.qty) FILTER (WHERE i.kind = 'ticket'), 0) AS tickets,
                          COALESCE(sum(i.qty * i.unit_price), 0) AS worth,
                          sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'ticket') AS of_tickets,
                          sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'merch') AS of_merch,
                          sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'parking') AS of_parking
                     FROM gvteway.order_items i
                    WHERE i.organization_id = org AND i.order_id = g.order_id) AS l) AS w;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'order % does not exist', missing
            USING ERRCODE = 'undefined_object', HINT = 'It was deleted after it was paid; reverse its revenue by hand if there is any.';
    END IF;
    IF wrong IS NOT NULL THEN
        SELECT o.number, o.subtotal, o.fees, o.tax, o.total,
               (SELECT COALESCE(sum(i.qty * i.unit_price), 0) FROM gvteway.order_items i WHERE i.organization_id = org AND i.order_id = o.id) AS worth
          INTO sold
          FROM gvteway.orders o
         WHERE o.organization_id = org AND o.id = wrong;
        RAISE EXCEPTION 'the amounts of order % do not add up', COALESCE(sold.number, wrong::text)
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Items are worth %s, subtotal %s, fees %s, tax %s, total %s.',
                                  sold.worth, sold.subtotal, sold.fees, sold.tax, sold.total),
                  HINT = 'subtotal is the sum of the items, total is subtotal + fees + tax: correct the items and run the job again, or refund the order.';
    END IF;
    PERFORM count(*) FROM usher.ingest_ticket_revenue_batch(org::text, sales);
END
$$;
REVOKE ALL ON FUNCTION gvteway.ingest_orders(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.ingest_orders(jsonb) IS 'Takes paid orders of an organization in as ticket revenue, each once: [{"organization": …, "order_id": …}, …]';

CREATE OR REPLACE FUNCTION gvteway.reverse_order(organization uuid, order_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ingestion uuid;
BEGIN
    -- Without the event's present address and the items: only what was taken in counts, if it was.
    SELECT i.id INTO ingestion
      FROM usher.ticket_revenue_ingestions i
     WHERE i.organization_id = reverse_order.organization AND i.idempotency_key = 'order:' || reverse_order.order_id;
    IF NOT FOUND THEN
        PERFORM gvteway.ingest_orders(jsonb_build_array(jsonb_build_object('organization', reverse_order.organization, 'order_id', reverse_order.order_id)));
        SELECT i.id INTO ingestion
          FROM usher.ticket_revenue_ingestions i
         WHERE i.organization_id = reverse_order.organization AND i.idempotency_key = 'order:' || reverse_order.order_id;
    END IF;
    RETURN (SELECT r.id FROM usher.reverse_ticket_revenue(ingestion, 'order refunded') AS r);
END
$$;
REVOKE ALL ON FUNCTION gvteway.reverse_order(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.reverse_order(uuid, uuid) IS 'Reverses the ticket revenue of a refunded order, once, taking it in first where need be; returns the reversal';

-- What usher.ingest_ticket_revenue() calls, as the pack's role: which project do the codes mean, and how is it booked.
CREATE OR REPLACE FUNCTION atlvs.resolve_ticket_revenue(organization_id uuid, project_code text, event_code text) RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    project  uuid;
    of_event record;
BEGIN
    IF project_code IS NOT NULL THEN
        SELECT p.id INTO project
          FROM atlvs.projects p
         WHERE p.organization_id = resolve_ticket_revenue.organization_id AND p.code = resolve_ticket_revenue.project_code;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    IF event_code IS NOT NULL THEN
        -- A code that is no event's slug is the seller's own and says nothing about the project.
        SELECT p.id, p.code INTO of_event
          FROM gvteway.events e
          JOIN compvss.productions c ON c.organization_id = e.organization_id AND c.id = e.production_ref
          JOIN atlvs.projects p ON p.organization_id = c.organization_id AND p.id = c.project_ref
         WHERE e.organization_id = resolve_ticket_revenue.organization_id AND e.slug = resolve_ticket_revenue.event_code;
        IF FOUND AND project <> of_event.id THEN
            RAISE EXCEPTION 'event "%" belongs to project "%", not to "%"', event_code, of_event.code, project_code
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = format('Give project_code => %L, or NULL to take the project from the event.', of_event.code);
        ELSIF FOUND THEN
            project := of_event.id;
        END IF;
    END IF;
    RETURN project;
END
$$;
REVOKE ALL ON FUNCTION atlvs.resolve_ticket_revenue(uuid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.resolve_ticket_revenue(uuid, text, text) IS
    'The project of a project code and an event''s slug, which must agree; empty for an unknown project code';

CREATE OR REPLACE FUNCTION atlvs.book_ticket_revenue(
    organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid, event_code text, ticket_count integer,
    gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz
) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org       CONSTANT uuid := organization_id;
    journal   uuid;
    breakdown CONSTANT jsonb := NULLIF(payload -> 'breakdown', 'null');
    original  uuid;
    codes     text[];
    credits   numeric[];
    worth     numeric;
    day       date;
    wrong     text;
BEGIN
    IF reverses IS NOT NULL THEN
        SELECT j.id INTO original
          FROM atlvs.journals j
         WHERE j.organization_id = org AND j.source_system = 'ticket_revenue' AND j.source_ref = book_ticket_revenue.reverses::text;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'ticket revenue % has no journal that could be reversed', reverses
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'It was booked by functions that are no longer bound: reverse it where it was booked.';
        END IF;
    ELSIF breakdown IS NULL THEN
        codes := ARRAY['4000'];
        credits := ARRAY[-gross_amount];
    ELSE
        IF jsonb_typeof(breakdown) <> 'object' THEN
            RAISE EXCEPTION 'payload.breakdown is not a JSON object'
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Give amounts by part: {"tickets": 90.00, "merch": 20.00, "parking": 10.00, "fees": 4.00, "tax": 8.00}.';
        END IF;
        SELECT string_agg(format('"%s": %s', b.key, COALESCE(b.value, 'null')), ', ' ORDER BY b.key) INTO wrong
          FROM jsonb_each_text(breakdown) AS b
         WHERE b.key NOT IN ('tickets', 'merch', 'parking', 'fees', 'tax') OR b.value IS NULL
            -- The parts have at most the digits of the whole, which has those of its currency.
            OR b.value !~ format('^[0-9]{1,15}(\.[0-9]{0,%s}0*)?$', scale(gross_amount));
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION 'payload.breakdown has parts that cannot be booked: %', wrong
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = format('The parts are tickets, merch, parking, fees and tax, each an amount of at least 0 with at most %s decimal places.',
                                    scale(gross_amount));
        END IF;
        SELECT array_agg(a.code ORDER BY a.code), array_agg(-round(b.value::numeric, scale(gross_amount)) ORDER BY a.code),
               COALESCE(sum(round(b.value::numeric, scale(gross_amount))), 0)
          INTO codes, credits, worth
          FROM jsonb_each_text(breakdown) AS b
          JOIN (VALUES ('tickets', '4000'), ('merch', '4100'), ('parking', '4200'), ('fees', '4300'), ('tax', '2200')) AS a (part, code)
            ON a.part = b.key;
        IF worth <> gross_amount THEN
            RAISE EXCEPTION 'payload.breakdown does not sum up to gross_amount'
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = format('Its parts are worth %s, the sale %s.', worth, gross_amount),
                      HINT = 'gross_amount is what the guest paid: tickets, merch, parking, fees and tax together.';
        END IF;
    END IF;

    day := (ingested_at AT TIME ZONE COALESCE((SELECT o.timezone FROM usher.organizations o WHERE o.id = org), 'UTC'))::date;
    IF original IS NOT NULL THEN
        journal := atlvs.reverse_journal(org, original, day, concat_ws(' ', 'Reversal of ticket revenue', event_code), 'ticket_revenue', ingestion_id::text);
    ELSE
        -- The first line is the debit.
        journal := atlvs.post_journal(org, project_id, day, concat_ws(' ', 'Ticket revenue', event_code), currency, 'ticket_revenue', ingestion_id::text,
                                      array_prepend('1100', codes), array_prepend(gross_amount, credits));
    END IF;
    RETURN journal;
END
$$;
REVOKE ALL ON FUNCTION atlvs.book_ticket_revenue(uuid, uuid, uuid, uuid, text, integer, numeric, text, text, jsonb, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.book_ticket_revenue(uuid, uuid, uuid, uuid, text, integer, numeric, text, text, jsonb, timestamptz) IS
    'Books ticket revenue or its reversal as one journal, by payload.breakdown; returns the journal';

-- The same for many sales together; no reversals. What cannot be booked is given to the function for one, which says why.
CREATE OR REPLACE FUNCTION atlvs.book_ticket_revenues(
    organization_id uuid, ingestion_ids uuid[], project_ids uuid[], event_codes text[], ticket_counts integer[],
    gross_amounts numeric[], currencies text[], sources text[], payloads jsonb[], ingested_at timestamptz[]
) RETURNS uuid[]
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org         CONSTANT uuid := organization_id;
    zone        CONSTANT text := COALESCE((SELECT o.timezone FROM usher.organizations o WHERE o.id = org), 'UTC');
    of_journals integer[];
    codes       text[];
    amounts     numeric[];
    bad         integer;
BEGIN
    WITH s AS (
        SELECT s.n, s.gross, NULLIF(s.payload -> 'breakdown', 'null') AS breakdown
          FROM unnest(gross_amounts, payloads) WITH ORDINALITY AS s (gross, payload, n)),
    parts AS (
        -- A part that is not known, or has more digits than the whole, has no amount.
        SELECT s.n, a.code, CASE WHEN b.value ~ format('^[0-9]{1,15}(\.[0-9]{0,%s}0*)?$', scale(s.gross)) THEN -round(b.value::numeric, scale(s.gross)) END AS amount
          FROM s
         CROSS JOIN LATERAL jsonb_each_text(CASE WHEN jsonb_typeof(s.breakdown) = 'object' THEN s.breakdown ELSE '{}' END) AS b
          LEFT JOIN (VALUES ('tickets', '4000'), ('merch', '4100'), ('parking', '4200'), ('fees', '4300'), ('tax', '2200')) AS a (part, code)
                 ON a.part = b.key
        UNION ALL
        SELECT s.n, NULL, NULL FROM s WHERE jsonb_typeof(s.breakdown) <> 'object'
        UNION ALL
        SELECT s.n, '4000', -s.gross FROM s WHERE s.breakdown IS NULL
        UNION ALL
        SELECT s.n, '1100', s.gross FROM s)
    SELECT array_agg(p.n), array_agg(p.code), array_agg(p.amount), min(p.n) FILTER (WHERE p.code IS NULL OR p.amount IS NULL)
      INTO of_journals, codes, amounts, bad
      FROM (SELECT p.n, p.code, p.amount FROM parts p ORDER BY p.n, p.code COLLATE "C") AS p;
    IF bad IS NULL THEN
        SELECT min(t.n) INTO bad
          FROM (SELECT l.n FROM unnest(of_journals, amounts) AS l (n, amount) GROUP BY l.n HAVING sum(l.amount) <> 0) AS t;
    END IF;
    IF bad IS NOT NULL THEN
        PERFORM atlvs.book_ticket_revenue(org, ingestion_ids[bad], NULL, project_ids[bad], event_codes[bad], ticket_counts[bad],
                                          gross_amounts[bad], currencies[bad], sources[bad], payloads[bad], ingested_at[bad]);
        RAISE EXCEPTION 'ticket revenue % cannot be booked', ingestion_ids[bad]
            USING ERRCODE = 'internal_error', HINT = 'Take it in by itself with usher.ingest_ticket_revenue().';
    END IF;
    RETURN atlvs.post_journals(
        org, project_ids,
        (SELECT array_agg((s.at AT TIME ZONE zone)::date ORDER BY s.n) FROM unnest(ingested_at) WITH ORDINALITY AS s (at, n)),
        (SELECT array_agg(concat_ws(' ', 'Ticket revenue', s.event_code) ORDER BY s.n) FROM unnest(event_codes) WITH ORDINALITY AS s (event_code, n)),
        currencies, 'ticket_revenue', ingestion_ids::text[], of_journals, codes, amounts);
END
$$;
REVOKE ALL ON FUNCTION atlvs.book_ticket_revenues(uuid, uuid[], uuid[], text[], integer[], numeric[], text[], text[], jsonb[], timestamptz[]) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.book_ticket_revenues(uuid, uuid[], uuid[], text[], integer[], numeric[], text[], text[], jsonb[], timestamptz[]) IS
    'Books ticket revenue, one journal each, by payload.breakdown; returns the journals in the same order';
