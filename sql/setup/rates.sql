-- How often functions may be called, by whom.
CREATE TABLE usher.rpc_rules (
    id integer GENERATED ALWAYS AS IDENTITY,
    of_function text,
    of_organization uuid,
    of_role text,
    rate text NOT NULL,
    burst bigint NOT NULL,
    nanoseconds bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL,
    CONSTRAINT rpc_rules_pkey PRIMARY KEY (id),
    CONSTRAINT rpc_rules_key UNIQUE NULLS NOT DISTINCT (of_function, of_organization, of_role)
);
COMMENT ON TABLE usher.rpc_rules IS 'how often functions may be called; usher.limit_rpc() makes them';
COMMENT ON COLUMN usher.rpc_rules.of_function IS 'NULL: all functions together';
COMMENT ON COLUMN usher.rpc_rules.of_organization IS 'NULL: each organization by itself';
COMMENT ON COLUMN usher.rpc_rules.of_role IS 'members of this database role, together within the organization; NULL: everybody but operators';
COMMENT ON COLUMN usher.rpc_rules.nanoseconds IS 'for one call';
