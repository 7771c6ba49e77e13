-- Who did what. Only added to: triggers refuse everything else, for everybody. Installation-wide acts have no organization.
-- The position is drawn while the row that it is about is locked; the chain (below) follows it.
CREATE SEQUENCE usher.audit_position_seq;
COMMENT ON SEQUENCE usher.audit_position_seq IS 'positions of entries, in the order in which they were made';
CREATE TABLE usher.audit_log (
    position bigint NOT NULL DEFAULT pg_catalog.nextval('usher.audit_position_seq'),
    id uuid NOT NULL,
    organization_id uuid,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    actor text NOT NULL,
    role text NOT NULL,
    action text NOT NULL,
    object text,
    old jsonb,
    new jsonb,
    correlation_id uuid NOT NULL,
    flow text,
    salt uuid DEFAULT pg_catalog.gen_random_uuid(),
    -- Not led by the organization: installation-wide entries have none, and days are dropped whole.
    CONSTRAINT audit_log_pkey PRIMARY KEY (position, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX audit_log_organization_idx ON usher.audit_log (organization_id, recorded_at);
-- Entries of a day that has no partition.
CREATE TABLE usher.audit_log_default PARTITION OF usher.audit_log DEFAULT;
SELECT usher.maintain_days('audit_log', NULL);
COMMENT ON TABLE usher.audit_log IS 'who did what, when, with the old and new values; entries are never changed or deleted';
COMMENT ON COLUMN usher.audit_log.position IS 'the order of entries; entries about one row are in the order of its changes';
COMMENT ON COLUMN usher.audit_log.organization_id IS 'NULL: the whole installation; seen by operators and readers only';
COMMENT ON COLUMN usher.audit_log.actor IS 'a user''s id, role:NAME, flow NAME in a worker, or worker for its own upkeep';
COMMENT ON COLUMN usher.audit_log.role IS 'the database role that wrote';
COMMENT ON COLUMN usher.audit_log.action IS 'what was done, such as atlvs.deals.updated';
COMMENT ON COLUMN usher.audit_log.object IS 'the key of the row, or what was acted upon';
COMMENT ON COLUMN usher.audit_log.old IS 'the audited columns before; of an update only those that changed';
COMMENT ON COLUMN usher.audit_log.correlation_id IS 'the sync job whose flow wrote, else one id for all that was written in one transaction';
COMMENT ON COLUMN usher.audit_log.flow IS 'the flow that wrote, if one did';
COMMENT ON COLUMN usher.audit_log.salt IS 'random; hashed with old and new, so that their hash tells nothing once they are masked and this is gone';

-- Tables of the application that are audited. By name: a table that is dropped and made anew is audited again.
CREATE TABLE usher.audited_tables (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    columns text[],
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL,
    CONSTRAINT audited_tables_pkey PRIMARY KEY (schema_name, table_name)
);
COMMENT ON TABLE usher.audited_tables IS 'the application''s tables whose changes are entered into usher.audit_log';
COMMENT ON COLUMN usher.audited_tables.columns IS 'NULL: all';

-- The chain of hashes over the entries, see src/guard/chain.rs. Made by the worker, behind the writers.
CREATE TABLE usher.audit_blocks (
    number bigint NOT NULL,
    kind text NOT NULL,
    day date NOT NULL,
    after_position bigint NOT NULL,
    to_position bigint NOT NULL,
    entries integer NOT NULL,
    root bytea NOT NULL,
    hash bytea NOT NULL,
    marks bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT audit_blocks_pkey PRIMARY KEY (number),
    CONSTRAINT audit_blocks_kind_check CHECK (kind IN ('entries', 'retired'))
);
-- To find what belongs to a day that is to be retired.
CREATE INDEX audit_blocks_day_idx ON usher.audit_blocks (day);
COMMENT ON TABLE usher.audit_blocks IS 'the chain over usher.audit_log: each block''s hash covers its entries and the block before it';
COMMENT ON COLUMN usher.audit_blocks.kind IS 'entries, or retired: the entries of that day were dropped when their time was over';
COMMENT ON COLUMN usher.audit_blocks.day IS 'the UTC day of its entries';
COMMENT ON COLUMN usher.audit_blocks.after_position IS 'its entries are those of the day with positions above this one and up to to_position';
COMMENT ON COLUMN usher.audit_blocks.root IS 'SHA-256 of the hashes of its entries';
COMMENT ON COLUMN usher.audit_blocks.marks IS 'the first 8 bytes of the hash of each entry: shows which one does not fit; no part of the hash';

-- What was masked in entries of the chain because a person was erased: the hash that old and new had, and the one that they have
-- now. The entry usher.subjects.erased carries the hash over these rows, day by day.
CREATE TABLE usher.audit_erasures (
    position bigint NOT NULL,
    number integer NOT NULL,
    last boolean NOT NULL DEFAULT true,
    day date NOT NULL,
    erasure_id uuid NOT NULL,
    images bytea NOT NULL,
    masked bytea NOT NULL,
    CONSTRAINT audit_erasures_pkey PRIMARY KEY (position, number)
);
CREATE INDEX audit_erasures_erasure_idx ON usher.audit_erasures (erasure_id, day);
CREATE INDEX audit_erasures_day_idx ON usher.audit_erasures (day);
COMMENT ON TABLE usher.audit_erasures IS 'entries of usher.audit_log in which a person was masked: what proves that nothing else was changed';
COMMENT ON COLUMN usher.audit_erasures.number IS 'an entry may be masked for several persons, one after the other';
COMMENT ON COLUMN usher.audit_erasures.last IS 'how the entry is now';
COMMENT ON COLUMN usher.audit_erasures.images IS 'the salted SHA-256 of old and new as they were, which the chain covers';
COMMENT ON COLUMN usher.audit_erasures.masked IS 'SHA-256 of old and new as they are since then';

-- How far the chain goes, and what it waits for.
CREATE TABLE usher.audit_chain_state (
    only_one boolean NOT NULL DEFAULT true,
    sealed_to bigint NOT NULL DEFAULT 0,
    awaited_position bigint,
    awaited_xid bigint,
    CONSTRAINT audit_chain_state_pkey PRIMARY KEY (only_one),
    CONSTRAINT audit_chain_state_only_one_check CHECK (only_one)
);
INSERT INTO usher.audit_chain_state DEFAULT VALUES;
COMMENT ON TABLE usher.audit_chain_state IS 'up to which position entries are in the chain, and the position that is to be settled next';
