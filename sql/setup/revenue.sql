-- Ticket revenue as it came in. A reversal is a row of its own with the opposite signs, so that sums are always right.
CREATE TABLE usher.ticket_revenue_ingestions (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    project_id uuid,
    project_code text,
    event_code text,
    ticket_count integer NOT NULL,
    gross_amount numeric NOT NULL,
    currency text NOT NULL,
    ingestion_source text NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}',
    ingested_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    idempotency_key text,
    reference text,
    reverses uuid,
    reason text,
    possible_duplicate_of uuid,
    CONSTRAINT ticket_revenue_ingestions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT ticket_revenue_ingestions_reverses_fkey FOREIGN KEY (organization_id, reverses)
        REFERENCES usher.ticket_revenue_ingestions (organization_id, id),
    CONSTRAINT ticket_revenue_ingestions_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    -- Also refuses NaN, which is greater than every number.
    CONSTRAINT ticket_revenue_ingestions_amount_range CHECK (pg_catalog.abs(gross_amount) < 1e15),
    CONSTRAINT ticket_revenue_ingestions_signs
        CHECK (CASE WHEN reverses IS NULL THEN ticket_count >= 0 AND gross_amount >= 0 ELSE ticket_count <= 0 AND gross_amount <= 0 END)
);
-- Once per key; without one, once per reference of a source. Two indexes, so that a key is never taken for a reference.
CREATE UNIQUE INDEX ticket_revenue_ingestions_key ON usher.ticket_revenue_ingestions (organization_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX ticket_revenue_ingestions_reference ON usher.ticket_revenue_ingestions (organization_id, ingestion_source, reference)
    WHERE idempotency_key IS NULL AND reference IS NOT NULL;
CREATE UNIQUE INDEX ticket_revenue_ingestions_reversed_once ON usher.ticket_revenue_ingestions (organization_id, reverses)
    WHERE reverses IS NOT NULL;
-- With the count, so that the tickets of a project are summed up without a look at its rows.
CREATE INDEX ticket_revenue_ingestions_project_idx ON usher.ticket_revenue_ingestions (organization_id, project_id, ingested_at) INCLUDE (ticket_count);
-- Finds an equal sale by its first row, however many an event has had.
CREATE INDEX ticket_revenue_ingestions_event_idx
    ON usher.ticket_revenue_ingestions (organization_id, event_code, gross_amount, ticket_count, ingested_at);
COMMENT ON TABLE usher.ticket_revenue_ingestions IS 'ticket revenue as it came in, once each; usher.ingest_ticket_revenue makes it, a pack books it';
COMMENT ON COLUMN usher.ticket_revenue_ingestions.project_id IS 'what the bound function has found for the codes';
COMMENT ON COLUMN usher.ticket_revenue_ingestions.reference IS 'payload.reference of a sale: what its source calls it';
COMMENT ON COLUMN usher.ticket_revenue_ingestions.reverses IS 'the row that this one takes back';
COMMENT ON COLUMN usher.ticket_revenue_ingestions.possible_duplicate_of IS 'an equal sale shortly before, where neither key nor reference could tell them apart';

-- Functions as text, not as regprocedure, which pg_upgrade refuses; looked up again for every call.
CREATE TABLE usher.revenue_bindings (
    singleton boolean NOT NULL DEFAULT true,
    resolve text NOT NULL,
    book text NOT NULL,
    -- Takes a batch at once; without it `book` is called for each sale.
    book_batch text,
    run_as regrole NOT NULL,
    pack text,
    bound_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    bound_by text NOT NULL,
    CONSTRAINT revenue_bindings_pkey PRIMARY KEY (singleton),
    CONSTRAINT revenue_bindings_one_row CHECK (singleton)
);
COMMENT ON TABLE usher.revenue_bindings IS 'one row: the functions that resolve codes and book ticket revenue; usher.bind_ticket_revenue makes it';
