-- Rows that a merge cannot write: its job is dead, and the pair is a conflict of the kind that says who must act, until a merge of it comes through.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS mf CASCADE;
DROP ROLE IF EXISTS regress_usher_admin, regress_usher_stranger, regress_usher_merger;
CREATE SCHEMA mf;
CREATE TYPE mf.mood AS ENUM ('calm', 'loud');
CREATE TABLE mf.crew (organization_id uuid NOT NULL, id integer, name text, pay integer, mood mf.mood DEFAULT 'calm', PRIMARY KEY (organization_id, id));
CREATE TABLE mf.staff (organization_id uuid NOT NULL, id integer, name text, pay integer CONSTRAINT staff_paid CHECK (pay > 0), mood mf.mood DEFAULT 'calm', PRIMARY KEY (organization_id, id));
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_merger NOLOGIN;
GRANT USAGE ON SCHEMA mf TO regress_usher_merger;
GRANT SELECT, INSERT, UPDATE, DELETE ON mf.crew, mf.staff TO regress_usher_merger;
SELECT usher.create_organization('fail-north') AS north \gset
SELECT usher.create_organization('fail-south') AS south \gset
SELECT usher.grant_membership('fail-north', 'role:regress_usher_admin', 'admin') AS done \gset
SELECT usher.grant_membership('fail-south', 'role:regress_usher_stranger', 'admin') AS done \gset
CREATE FUNCTION mf.house() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.name = 'nobody' THEN RAISE EXCEPTION 'nobody works here'; END IF;
    IF new.name = 'slow' THEN RAISE EXCEPTION USING ERRCODE = '55006', MESSAGE = 'too slow'; END IF;
    RETURN new; END $$;
CREATE TRIGGER house BEFORE INSERT OR UPDATE ON mf.staff FOR EACH ROW EXECUTE FUNCTION mf.house();
CREATE VIEW mf.open AS SELECT o.slug, c.kind, c.state, c.severity, c.left_table AS "table", c.left_key AS key, c.right_key AS other, c.link_id IS NOT NULL AS linked, c.times_seen AS seen, c.decision, regexp_replace(c.message, '[0-9a-f-]{36}', 'ID') AS message,
       c.escalate_at - c.last_seen_at > '10 minutes' AS told_later
  FROM usher.conflicts c JOIN usher.organizations o ON o.id = c.organization_id WHERE o.slug LIKE 'fail-%' ORDER BY c.raised_at, c.id;
CREATE VIEW mf.both AS SELECT c.organization_id, c.kind, c.state, c.fields FROM usher.conflicts c JOIN usher.organizations o ON o.id = c.organization_id WHERE o.slug LIKE 'fail-%';
CREATE PROCEDURE mf.settle() LANGUAGE plpgsql AS $$ DECLARE n integer; BEGIN FOR i IN 1 .. 4 LOOP CALL public.drain(n); END LOOP; END $$;
SELECT usher.create_flow('mf_pair', '{"run_as": "regress_usher_merger", "retry": {"delays": []}, "when": {"change": "mf.crew", "on": ["insert", "update", "delete"]}, "link": {"kind": "asset", "left": "new.id", "right": "id"},
    "then": {"merge": "mf.staff", "fields": ["name", "pay", "mood"], "strategy": "latest", "severity": "critical", "escalate_after": {"critical": "15 min"}, "new_right": {"id": "new.id"}, "new_left": {"id": "new.id"}}}') AS done \gset
RESET client_min_messages;

-- A rule of the table: of a row that has no other side yet, and of a pair, from the side whose job it was.
INSERT INTO mf.crew VALUES (:'north', 1, 'Ada', 0), (:'north', 2, 'Ben', 20), (:'south', 1, 'Cyd', 30);
CALL mf.settle();
SELECT * FROM mf.open;
UPDATE mf.crew SET pay = -1 WHERE organization_id = :'south';
UPDATE mf.crew SET name = 'nobody' WHERE id = 2;
CALL mf.settle();
SELECT slug, kind, state, key, other, linked, seen, message FROM mf.open;
-- Once for each row, however often it fails; as what it fails for now.
UPDATE mf.crew SET pay = -2 WHERE id = 2;
UPDATE mf.crew SET name = 'nobody' WHERE id = 1 AND organization_id = :'north';
CALL mf.settle();
SELECT slug, kind, state, key, seen, message FROM mf.open;
-- What is nobody's to decide is a dead letter alone.
UPDATE mf.crew SET name = 'slow', pay = 1 WHERE id = 2;
CALL mf.settle();
SELECT slug, kind, state, key, seen FROM mf.open;
SELECT sqlstate, count(*) FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name LIKE 'mf%' GROUP BY sqlstate ORDER BY sqlstate;

-- Admins of its organization say that it stays so; others know nothing of it.
SELECT id AS conflict FROM usher.conflicts WHERE kind = 'business_rule_violation' AND left_key = '{"id": "2"}' AND organization_id = :'north' \gset
SET ROLE regress_usher_stranger;
SELECT slug, count(*) FROM usher.conflicts c JOIN usher.organizations o ON o.id = c.organization_id WHERE slug LIKE 'fail-%' GROUP BY slug;
SELECT replace(t, :'conflict', 'ID') AS error FROM public.try(format('SELECT usher.resolve_conflict(%L, ''accept'')', :'conflict')) AS t;
SET ROLE regress_usher_admin;
SELECT d, t.* FROM unnest(ARRAY['left', 'acept', 'ended']) AS d CROSS JOIN LATERAL public.try(format('SELECT usher.resolve_conflict(%L, %L)', :'conflict', d)) AS t;
SELECT public.try(format('SELECT usher.resolve_conflict(%L, ''accept'', ''{"name": "x"}'')', :'conflict'));
SELECT usher.resolve_conflict(:'conflict', 'accept', note => 'he has left');
RESET ROLE;
SELECT slug, kind, state, key, decision FROM mf.open WHERE decision IS NOT NULL;

-- It is not raised again for the same reason; for another one it is, and may be accepted again.
UPDATE mf.crew SET name = 'nobody', pay = 3 WHERE id = 2;
CALL mf.settle();
SELECT kind, state, decision, seen FROM mf.open WHERE key = '{"id": "2"}' AND slug = 'fail-north';
UPDATE mf.crew SET name = 'Ben', pay = -3 WHERE id = 2;
CALL mf.settle();
SELECT kind, state, decision, seen FROM mf.open WHERE key = '{"id": "2"}' AND slug = 'fail-north';
SELECT id AS conflict FROM usher.conflicts WHERE state = 'open' AND left_key = '{"id": "2"}' AND organization_id = :'north' \gset
SET ROLE regress_usher_admin;
SELECT usher.resolve_conflict(:'conflict', 'accept');
RESET ROLE;
UPDATE mf.crew SET pay = 1 WHERE id = 2;
CALL mf.settle();
SELECT kind, state, decision, seen FROM mf.open WHERE key = '{"id": "2"}' AND slug = 'fail-north';

-- A merge that comes through ends it: of the same side, of the other side, or tried again.
UPDATE mf.crew SET name = 'Ada', pay = 10 WHERE id = 1 AND organization_id = :'north';
CALL mf.settle();
UPDATE mf.staff SET pay = 31 WHERE organization_id = :'south';
CALL mf.settle();
SELECT slug, kind, state, key FROM mf.open;
SELECT 'crew' AS t, o.slug, c.id, c.name, c.pay FROM mf.crew c JOIN usher.organizations o ON o.id = c.organization_id
UNION ALL SELECT 'staff', o.slug, s.id, s.name, s.pay FROM mf.staff s JOIN usher.organizations o ON o.id = s.organization_id ORDER BY 2, 3, 1;

-- A delete that the other table refuses: who only touches the row that is left does not end it.
CREATE TABLE mf.badges (organization_id uuid, staff_id integer, FOREIGN KEY (organization_id, staff_id) REFERENCES mf.staff (organization_id, id));
INSERT INTO mf.badges VALUES (:'north', 2);
DELETE FROM mf.crew WHERE id = 2;
CALL mf.settle();
SELECT kind, state, key, message FROM mf.open WHERE state = 'open';
UPDATE mf.staff SET pay = 99 WHERE id = 2;
CALL mf.settle();
SELECT kind, state, key FROM mf.open WHERE state = 'open';
DELETE FROM mf.badges;
SELECT usher.retry_dead_letters('fail-north', '{"flow": "mf_pair"}');
CALL mf.settle();
SELECT count(*) FILTER (WHERE state = 'open') AS open, (SELECT count(*) FROM mf.staff WHERE id = 2) AS left_over FROM mf.open;
-- A pair that differs and cannot be written: who decides with values that both take ends both.
ALTER TABLE mf.crew ADD COLUMN notes text;
ALTER TABLE mf.staff ADD COLUMN notes text;
SELECT usher.alter_flow('mf_pair', jsonb_set(definition, '{then,fields}', '{"name": {}, "pay": {}, "mood": {}, "notes": "manual"}')) AS done FROM usher.flows WHERE name = 'mf_pair' \gset
UPDATE mf.crew SET notes = 'left' WHERE organization_id = :'south';
UPDATE mf.staff SET notes = 'right' WHERE organization_id = :'south';
CALL mf.settle();
UPDATE mf.crew SET pay = -5 WHERE organization_id = :'south';
CALL mf.settle();
SELECT kind, state, fields FROM mf.both WHERE state = 'open' ORDER BY kind;
SELECT id AS conflict FROM usher.conflicts WHERE state = 'open' AND kind = 'data_mismatch' AND organization_id = :'south' \gset
UPDATE mf.staff SET pay = 32 WHERE organization_id = :'south';
SET ROLE regress_usher_stranger;
SELECT usher.resolve_conflict(:'conflict', 'left');
RESET ROLE;
SELECT kind, state, fields FROM mf.both WHERE state = 'open' ORDER BY kind;
SELECT c.pay, s.pay, c.notes, s.notes FROM mf.crew c JOIN mf.staff s USING (organization_id, id) WHERE organization_id = :'south';
CALL mf.settle();
-- A link that somebody takes away leaves none.
UPDATE mf.crew SET pay = -6 WHERE organization_id = :'south';
CALL mf.settle();
SELECT kind, state FROM mf.both WHERE state = 'open';
CREATE SCHEMA mf_api;
SELECT usher.expose_api('mf_api') AS done \gset
DELETE FROM mf_api.integration_asset_links WHERE organization_id = :'south';
SELECT kind, state FROM mf.both WHERE state = 'open';
SELECT usher.drop_api('mf_api') AS done \gset
DROP SCHEMA mf_api;

-- A policy, from the other side: the dead letters are tried again once it is gone.
ALTER TABLE mf.crew ENABLE ROW LEVEL SECURITY;
CREATE POLICY short ON mf.crew USING (true) WITH CHECK (length(name) < 6);
UPDATE mf.staff SET name = 'Ada L.' WHERE id = 1 AND organization_id = :'north';
CALL mf.settle();
SELECT slug, kind, state, "table", key, other, message FROM mf.open WHERE state = 'open';
DROP POLICY short ON mf.crew;
ALTER TABLE mf.crew DISABLE ROW LEVEL SECURITY;
SELECT usher.retry_dead_letters('fail-north', '{"flow": "mf_pair:back"}');
CALL mf.settle();
SELECT count(*) FROM mf.open WHERE state = 'open';
SELECT name FROM mf.crew WHERE id = 1 AND organization_id = :'north';
-- A value of an enum gets another name: bases that keep the old one say nothing of it, and the pair goes on.
ALTER TYPE mf.mood RENAME VALUE 'calm' TO 'quiet';
UPDATE mf.crew SET mood = 'loud' WHERE id = 1 AND organization_id = :'north';
CALL mf.settle();
UPDATE mf.staff SET pay = 12 WHERE id = 1 AND organization_id = :'north';
CALL mf.settle();
SELECT c.name, c.mood, s.mood, c.pay, s.pay, l.base -> 'left' AS base FROM mf.crew c JOIN mf.staff s USING (organization_id, id) JOIN usher.links l ON l.organization_id = c.organization_id AND l.left_id = c.id::text AND l.kind = 'asset'
 WHERE c.organization_id = :'north' ORDER BY c.id;
-- A dropped flow leaves none.
UPDATE mf.crew SET pay = 0 WHERE id = 1 AND organization_id = :'north';
CALL mf.settle();
SELECT kind, state FROM mf.open WHERE state = 'open';
DELETE FROM usher.dead_letters d USING usher.flows f WHERE f.id = d.flow_id AND f.name LIKE 'mf%';
SELECT usher.drop_flow('mf_pair') AS done \gset
SELECT count(*) FROM mf.open WHERE state = 'open';
SET client_min_messages = warning;
DROP SCHEMA mf CASCADE;
DELETE FROM usher.links WHERE kind = 'asset';
DROP OWNED BY regress_usher_merger;
DROP ROLE regress_usher_admin, regress_usher_stranger, regress_usher_merger;
