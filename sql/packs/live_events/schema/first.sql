-- Pack live_events: the tables of the three systems atlvs (business), compvss (production) and gvteway (guests), and of what they share.
--
-- Run by usher.install_pack(), which grants afterwards and adds the policy of the role the flows run as. May be run
-- again at any time. Plain PostgreSQL, no defaults from an extension, so that the tables outlive it.
--
-- Every key leads with organization_id. An id of a table in another schema is called ..._ref and has no foreign key:
-- the three systems can be separated. Nor has the contact of a deal: version 0.1 had no contacts.

-- A table of the same name that somebody else made is refused before this runs: the pack's own tables say so in their comments.

CREATE SCHEMA IF NOT EXISTS atlvs;
CREATE SCHEMA IF NOT EXISTS compvss;
CREATE SCHEMA IF NOT EXISTS gvteway;
COMMENT ON SCHEMA atlvs IS 'Pack live_events: deals, projects, ledger';
COMMENT ON SCHEMA compvss IS 'Pack live_events: productions';
COMMENT ON SCHEMA gvteway IS 'Pack live_events: what guests see';

-- Reservations of one asset must not overlap: an exclusion constraint over uuids and periods needs it.
CREATE EXTENSION IF NOT EXISTS btree_gist SCHEMA public;
-- Search finds what is spelt alike.
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
