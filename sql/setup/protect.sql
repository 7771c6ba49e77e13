-- Personal columns that are sealed or masked, see src/protect/. By name, as a dump and a restore keep it; the numbers say what
-- bears the name here, so that a rename is followed. What was ended stays: values that were copied meanwhile name it, and are still
-- for its readers.
CREATE TABLE usher.column_protections (
    id uuid NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    column_name text NOT NULL,
    how text NOT NULL,
    readers text[] NOT NULL,
    mask text,
    pack text,
    relation oid NOT NULL,
    attnum smallint NOT NULL,
    taken jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL,
    ended_at timestamptz,
    CONSTRAINT column_protections_pkey PRIMARY KEY (id),
    CONSTRAINT column_protections_how_known CHECK (how IN ('sealed', 'masked')),
    CONSTRAINT column_protections_mask_of_masked CHECK (mask IS NULL OR how = 'masked')
);
CREATE UNIQUE INDEX column_protections_column_idx ON usher.column_protections (schema_name, table_name, column_name) WHERE ended_at IS NULL;
COMMENT ON TABLE usher.column_protections IS 'columns that are sealed or masked, and who reads them; usher.protect_column() declares them';
COMMENT ON COLUMN usher.column_protections.id IS 'stands in every value that it has sealed';
COMMENT ON COLUMN usher.column_protections.how IS 'sealed: kept as ciphertext; masked: kept in clear, shown as a mask';
COMMENT ON COLUMN usher.column_protections.readers IS 'database roles; admin and legend: people of that role in the organization of the row; role:NAME: a database role of such a name';
COMMENT ON COLUMN usher.column_protections.mask IS 'what is shown instead; NULL: a mask by the value''s form';
COMMENT ON COLUMN usher.column_protections.pack IS 'the pack that declares it; it ends with the pack';
COMMENT ON COLUMN usher.column_protections.relation IS 'the table''s number in this database, and attnum the column''s';
COMMENT ON COLUMN usher.column_protections.taken IS 'from whom the right to read the column was taken; given back when it ends';
COMMENT ON COLUMN usher.column_protections.ended_at IS 'values that it has sealed elsewhere are still for its readers';
