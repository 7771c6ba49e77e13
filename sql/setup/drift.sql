-- What each flow stands on, as the catalog tells it. Object numbers mean nothing in another database: usher.resume() and
-- usher.attach_all() work them out again.
CREATE TABLE usher.flow_dependencies (
    flow_id integer NOT NULL,
    class oid NOT NULL,
    object oid NOT NULL,
    attnum smallint NOT NULL DEFAULT 0,
    name text,
    CONSTRAINT flow_dependencies_pkey PRIMARY KEY (flow_id, class, object, attnum),
    CONSTRAINT flow_dependencies_flow_fkey FOREIGN KEY (flow_id) REFERENCES usher.flows (id) ON DELETE CASCADE
);
CREATE INDEX flow_dependencies_object_idx ON usher.flow_dependencies (object, class);
COMMENT ON TABLE usher.flow_dependencies IS 'the tables, columns, functions, types and indexes that a flow needs; a change of one is looked at in the same statement';
COMMENT ON COLUMN usher.flow_dependencies.attnum IS 'of a column of the source that the flow uses; 0 for the object itself';
COMMENT ON COLUMN usher.flow_dependencies.name IS 'the column''s name when it was written down: tells a renaming';
-- Looked for every minute, among thousands of others.
CREATE INDEX flows_broken_idx ON usher.flows (id) WHERE state = 'broken';
CREATE INDEX flows_schedule_idx ON usher.flows (id) WHERE definition -> 'when' ? 'schedule';
CREATE INDEX flows_external_idx ON usher.flows (id) WHERE definition -> 'then' ->> 'effect' = 'external';
-- Every change of a flow, and every session's first change of a table, asks which flows listen to it.
CREATE INDEX flow_versions_source_idx ON usher.flow_versions ((compiled ->> 'source')) WHERE compiled ->> 'source' IS NOT NULL;
