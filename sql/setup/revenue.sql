-- Ticket revenue as it came in. A reversal is a row of its own with the opposite signs, so that sums are always right.
CREATE TABLE usher.ticket_revenue_ingestions (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    project_id uuid,
    event_code text,
    ticket_count integer NOT NULL,
    gross_amount numeric NOT NULL,
    currency text NOT NULL,
    ingestion_source text NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}',
    ingested_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    idempotency_key text,
    reverses uuid,
    reason text,
    possible_duplicate_of uuid,
    CONSTRAINT ticket_revenue_ingestions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT ticket_revenue_ingestions_once UNIQUE (organization_id, idempotency_key),
    CONSTRAINT ticket_revenue_ingestions_reversed_once UNIQUE (organization_id, reverses),
    CONSTRAINT ticket_revenue_ingestions_reverses_fkey FOREIGN KEY (organization_id, reverses)
        REFERENCES usher.ticket_revenue_ingestions (organization_id, id),
    CONSTRAINT ticket_revenue_ingestions_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ticket_revenue_ingestions_signs
        CHECK (CASE WHEN reverses IS NULL THEN ticket_count >= 0 AND gross_amount >= 0 ELSE ticket_count <= 0 AND gross_amount <= 0 END)
);
CREATE INDEX ticket_revenue_ingestions_project_idx ON usher.ticket_revenue_ingestions (organization_id, project_id, ingested_at);
CREATE INDEX ticket_revenue_ingestions_event_idx ON usher.ticket_revenue_ingestions (organization_id, event_code, ingested_at);
COMMENT ON TABLE usher.ticket_revenue_ingestions IS 'ticket revenue as it came in, once each; usher.ingest_ticket_revenue makes it, a pack books it';
