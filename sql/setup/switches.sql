-- Flows that an organization does without. A row is there only while the flow is off for it, so that whoever captures has
-- nothing to ask where there is none.
CREATE TABLE usher.flow_switches (
    organization_id uuid NOT NULL,
    flow_id integer NOT NULL,
    switched_off_by text NOT NULL,
    switched_off_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT flow_switches_pkey PRIMARY KEY (organization_id, flow_id)
);
CREATE INDEX flow_switches_flow_idx ON usher.flow_switches (flow_id);
COMMENT ON TABLE usher.flow_switches IS 'flows that are off for an organization; usher.switched_off is the view to read';
