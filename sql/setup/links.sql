-- A link may have further ids of the same thing, and may be waiting for its right side.
ALTER TABLE usher.links ALTER COLUMN right_id DROP NOT NULL;
ALTER TABLE usher.links ADD COLUMN ids jsonb NOT NULL DEFAULT '{}'
    CONSTRAINT links_ids_form CHECK (pg_catalog.jsonb_typeof(ids) = 'object');
COMMENT ON COLUMN usher.links.ids IS 'further ids of the same thing by name, such as gvteway_campaign_id';
-- links_pair_key tells repeats only where both sides are there.
CREATE UNIQUE INDEX links_alone_key ON usher.links (organization_id, kind, left_id, ids) WHERE right_id IS NULL;
