-- A link may have further ids of the same thing, and may be waiting for its right side.
ALTER TABLE usher.links ALTER COLUMN right_id DROP NOT NULL;
ALTER TABLE usher.links ADD COLUMN ids jsonb NOT NULL DEFAULT '{}'
    CONSTRAINT links_ids_form CHECK (pg_catalog.jsonb_typeof(ids) = 'object');
COMMENT ON COLUMN usher.links.ids IS 'further ids of the same thing by name, such as gvteway_campaign_id';
-- links_pair_key tells repeats only where both sides are there.
CREATE UNIQUE INDEX links_alone_key ON usher.links (organization_id, kind, left_id, ids) WHERE right_id IS NULL;
-- A pair that a merge keeps equal has what both sides last agreed on; each of its rows is in one such pair.
ALTER TABLE usher.links ADD COLUMN base jsonb CONSTRAINT links_base_form CHECK (pg_catalog.jsonb_typeof(base) = 'object');
COMMENT ON COLUMN usher.links.base IS 'what both sides last agreed on: values of left and right by field, and held, the fields that somebody must decide';
-- Told by a column that does not change: a base that does would have each of its indexes written anew.
ALTER TABLE usher.links ADD COLUMN paired boolean NOT NULL DEFAULT false CONSTRAINT links_paired_base CHECK (paired = (base IS NOT NULL));
COMMENT ON COLUMN usher.links.paired IS 'a merge keeps the pair equal';
CREATE UNIQUE INDEX links_left_pair_key ON usher.links (organization_id, kind, left_id) WHERE paired;
CREATE UNIQUE INDEX links_right_pair_key ON usher.links (organization_id, kind, right_id) WHERE paired;
-- Room beside a link for its next base.
ALTER TABLE usher.links SET (fillfactor = 70);
