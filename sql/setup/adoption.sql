-- The application's own tables of organizations and members, where it has them. By the table itself, not by its name: what
-- somebody puts in its place is not trusted.
ALTER TABLE usher.organizations ADD COLUMN adopted boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN usher.organizations.adopted IS 'it comes from the application''s table, and goes with its row';
CREATE TABLE usher.adoptions (
    kind text NOT NULL,
    relation regclass NOT NULL,
    columns jsonb NOT NULL,
    roles jsonb,
    condition jsonb NOT NULL DEFAULT '{}',
    adopted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    adopted_by text NOT NULL,
    CONSTRAINT adoptions_pkey PRIMARY KEY (kind),
    CONSTRAINT adoptions_kind_known CHECK (kind IN ('organizations', 'memberships'))
);
COMMENT ON TABLE usher.adoptions IS 'the application''s tables that say which organizations there are and who belongs to them';
COMMENT ON COLUMN usher.adoptions.columns IS 'which of its columns say what';
COMMENT ON COLUMN usher.adoptions.roles IS 'what the application calls its roles, and what they are here; NULL: there is no such column, all are members';
COMMENT ON COLUMN usher.adoptions.condition IS 'columns and the values that they must have; null: none';
