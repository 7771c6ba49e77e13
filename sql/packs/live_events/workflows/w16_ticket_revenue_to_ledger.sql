-- W16: from an order to ticket revenue, and from there into the ledger.

-- The one way from an order into ticket revenue. The order's id is the key, so it may be called again.
CREATE OR REPLACE FUNCTION gvteway.ingest_order(organization uuid, order_id uuid) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sold      record;
    items     record;
    ingestion uuid;
BEGIN
    SELECT o.number, o.subtotal, o.fees, o.tax, o.total, o.currency, e.slug INTO sold
      FROM gvteway.orders o
      JOIN gvteway.events e ON e.organization_id = o.organization_id AND e.id = o.event_id
     WHERE o.organization_id = ingest_order.organization AND o.id = ingest_order.order_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'order % does not exist', order_id
            USING ERRCODE = 'undefined_object', HINT = 'It was deleted after it was paid; reverse its revenue by hand if there is any.';
    END IF;

    SELECT COALESCE(sum(i.qty) FILTER (WHERE i.kind = 'ticket'), 0) AS tickets,
           COALESCE(sum(i.qty * i.unit_price), 0) AS worth,
           jsonb_strip_nulls(jsonb_build_object(
               'tickets', sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'ticket'),
               'merch', sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'merch'),
               'parking', sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'parking'),
               'fees', NULLIF(sold.fees, 0),
               'tax', NULLIF(sold.tax, 0))) AS breakdown
      INTO items
      FROM gvteway.order_items i
     WHERE i.organization_id = ingest_order.organization AND i.order_id = ingest_order.order_id;
    IF items.worth <> sold.subtotal OR sold.subtotal + sold.fees + sold.tax <> sold.total THEN
        RAISE EXCEPTION 'the amounts of order % do not add up', sold.number
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Items are worth %s, subtotal %s, fees %s, tax %s, total %s.',
                                  items.worth, sold.subtotal, sold.fees, sold.tax, sold.total),
                  HINT = 'subtotal is the sum of the items, total is subtotal + fees + tax: correct the items and run the job again, or refund the order.';
    END IF;

    SELECT i.id INTO ingestion
      FROM usher.ingest_ticket_revenue(
               organization    => ingest_order.organization::text,
               project_code    => NULL,
               event_code      => sold.slug,
               ticket_count    => items.tickets::integer,
               gross_amount    => sold.total,
               currency        => sold.currency::text,
               source          => 'gvteway',
               payload         => jsonb_build_object('order', sold.number, 'order_id', ingest_order.order_id, 'breakdown', items.breakdown),
               idempotency_key => 'order:' || ingest_order.order_id) AS i;
    RETURN ingestion;
END
$$;
REVOKE ALL ON FUNCTION gvteway.ingest_order(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.ingest_order(uuid, uuid) IS 'Takes a paid order in as ticket revenue, once; returns the ingestion';

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
        ingestion := gvteway.ingest_order(reverse_order.organization, reverse_order.order_id);
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
