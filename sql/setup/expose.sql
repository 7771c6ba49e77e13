-- What usher.expose_api() has made outside of this schema, so that setup() can keep it in step and hide_api() take it back.
CREATE TABLE usher.exposed_objects (
    schema_name text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    definition bigint NOT NULL,
    exposed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    exposed_by text NOT NULL,
    CONSTRAINT exposed_objects_pkey PRIMARY KEY (schema_name, kind, name),
    CONSTRAINT exposed_objects_kind_known CHECK (kind IN ('view', 'function'))
);
COMMENT ON TABLE usher.exposed_objects IS 'views and functions under the names of existing clients, made by usher.expose_api()';
COMMENT ON COLUMN usher.exposed_objects.definition IS 'a hash: setup() makes those anew that differ from the installed version''s';
