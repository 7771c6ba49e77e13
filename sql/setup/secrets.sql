-- Secrets, sealed under a key that is not in the database, see src/secrets/sealing.rs; or where Supabase Vault keeps them.
CREATE TABLE usher.secrets (
    organization_id uuid,
    name text NOT NULL,
    key_id text,
    sealed bytea,
    vault_id uuid,
    readers text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_by text NOT NULL,
    CONSTRAINT secrets_key UNIQUE NULLS NOT DISTINCT (organization_id, name),
    CONSTRAINT secrets_somewhere CHECK (pg_catalog.num_nonnulls(sealed, vault_id) = 1 AND pg_catalog.num_nonnulls(sealed, key_id) <> 1)
);
CREATE INDEX secrets_key_id_idx ON usher.secrets (key_id);
COMMENT ON TABLE usher.secrets IS 'secrets of organizations (NULL: of the installation), sealed; usher.set_secret() makes them';
COMMENT ON COLUMN usher.secrets.key_id IS 'the key of usher.key_file that sealed it';
COMMENT ON COLUMN usher.secrets.vault_id IS 'of vault.secrets, where the secret is kept in Supabase Vault';
COMMENT ON COLUMN usher.secrets.readers IS 'database roles that may read it with usher.secret(), within the organization';
