-- Packs at an application's own tables.
CREATE TABLE usher.pack_bindings (
    pack text NOT NULL,
    bind jsonb NOT NULL,
    run_as text NOT NULL,
    relations regclass[] NOT NULL,
    schemas text[] NOT NULL,
    sequences regclass[] NOT NULL,
    triggers regclass[] NOT NULL,
    bound_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    bound_by text NOT NULL,
    CONSTRAINT pack_bindings_pkey PRIMARY KEY (pack)
);
COMMENT ON TABLE usher.pack_bindings IS 'packs whose flows work at tables of the application, as install_pack was told';
COMMENT ON COLUMN usher.pack_bindings.bind IS 'which of the pack''s tables is which of the application';
COMMENT ON COLUMN usher.pack_bindings.relations IS 'tables of the application on which the role run_as was given rights and a policy for it';
COMMENT ON COLUMN usher.pack_bindings.schemas IS 'schemas that it may use because of it';
COMMENT ON COLUMN usher.pack_bindings.sequences IS 'sequences that it may use because of it';
COMMENT ON COLUMN usher.pack_bindings.triggers IS 'tables on which the owner of these tables was given TRIGGER because of it';
