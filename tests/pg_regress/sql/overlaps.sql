-- Overlap rules: what is refused when one is made, what is found, how a conflict ends, and who decides it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ov CASCADE;
DROP ROLE IF EXISTS regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op;
CREATE SCHEMA ov;
CREATE TABLE ov.assets (organization_id uuid NOT NULL, id integer NOT NULL, category text, retired boolean NOT NULL DEFAULT false, PRIMARY KEY (organization_id, id));
CREATE TYPE ov.mood AS ENUM ('fine', 'sad');
CREATE TABLE ov.bookings (
    organization_id uuid, id integer NOT NULL, asset_id integer, starts_at timestamptz, ends_at timestamptz, day date, status text DEFAULT 'firm', wanted text,
    mood ov.mood, note text, UNIQUE (organization_id, id));
ALTER TABLE ov.bookings ALTER COLUMN organization_id SET NOT NULL;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
GRANT USAGE ON SCHEMA ov TO regress_usher_op;
SELECT usher.create_organization('ov-north') AS north \gset
SELECT usher.create_organization('ov-south') AS south \gset
RESET client_min_messages;
SELECT usher.grant_membership('ov-north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('ov-north', 'role:regress_usher_member');
INSERT INTO ov.assets (organization_id, id, category, retired) SELECT o, n, CASE WHEN n < 6 THEN 'van' ELSE 'crane' END, n = 3 FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(1, 8) AS n;
-- The definition of all that follows, with changes.
CREATE FUNCTION ov.rule(changes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls('{"table": "ov.bookings", "resource": ["asset_id"], "period": ["starts_at", "ends_at"], "where": "r.status <> ''cancelled''",
        "alternatives": {"table": "ov.assets", "key": "id", "same": ["category"], "where": "NOT r.retired"}}'::jsonb || changes) $$;
CREATE FUNCTION ov.book(id integer, asset integer, starts text, ends text, organization uuid, status text DEFAULT 'firm') RETURNS void LANGUAGE sql AS $$
    INSERT INTO ov.bookings (organization_id, id, asset_id, starts_at, ends_at, status)
    VALUES (organization, id, asset, ('2026-05-01 ' || starts || 'Z')::timestamptz, ('2026-05-01 ' || ends || 'Z')::timestamptz, status) $$;
CREATE VIEW ov.conflicts AS SELECT o.slug, c.state, c.severity, c.left_key ->> 'id' AS l, c.right_key ->> 'id' AS r, c.alternatives, c.times_seen AS seen, c.decision
  FROM usher.conflicts c JOIN usher.organizations o ON o.id = c.organization_id WHERE c.rule LIKE 'ov%' ORDER BY o.slug, 4, 5, c.id;

-- A table without a primary key cannot have its rows named.
SELECT public.try($$SELECT usher.create_overlap_rule('ov', ov.rule())$$);
ALTER TABLE ov.bookings ADD PRIMARY KEY (organization_id, id);
CREATE TABLE ov.alone (id integer PRIMARY KEY, asset_id integer, during tstzrange);
CREATE TABLE ov.odd (organization_id uuid, k ov.mood PRIMARY KEY, asset_id integer, during tstzrange);
-- What cannot work is refused with the rule, the key and the remedy.
SELECT c AS changes, t.* FROM unnest(ARRAY['{"resorce": "x"}', '{"table": "ov.bokings"}', '{"table": "bookings"}', '{"table": "usher.links"}', '{"table": null}', '{"table": "ov.conflicts"}',
        '{"resource": ["aset_id"]}', '{"resource": "mood", "alternatives": null}', '{"period": "starts_at"}', '{"period": "wanted"}', '{"period": ["starts_at", "day"]}', '{"period": ["starts_at", "end_at"]}',
        '{"where": "r.stauts = ''x''"}', '{"where": "new.status = ''x''"}', '{"where": "lower(r.status) = ''x''"}', '{"where": "r.status = "}', '{"where": "r.status"}', '{"where": "true) OR (true"}',
        '{"where": "r.mood = ''fine''"}', '{"where": "EXISTS (SELECT 1)"}', '{"where": "r.asset_id / 0 = 1"}',
        '{"severity": "criticl"}', '{"escalate_after": "soon"}', '{"alternatives": {"table": "ov.assets", "key": "ident"}}', '{"alternatives": {"table": "ov.assets", "key": "category"}}',
        '{"alternatives": {"table": "ov.assets", "key": "id", "same": ["catgory"]}}', '{"resource": ["asset_id", "wanted"]}', '{"resource": ["asset_id", "organization_id"]}',
        '{"table": "ov.alone", "period": "during", "where": null, "alternatives": null}', '{"table": "ov.odd", "period": "during", "where": null, "alternatives": null}']) AS c
 CROSS JOIN LATERAL public.try(format('SELECT usher.create_overlap_rule(''ov'', ov.rule(%L))', c)) AS t;
SELECT t.* FROM unnest(ARRAY['Bad Name', 'a.b.c', '', NULL]) AS n CROSS JOIN LATERAL public.try(format('SELECT usher.create_overlap_rule(%L, ov.rule())', n)) AS t;
SET ROLE regress_usher_member;
SELECT t.* FROM unnest(ARRAY['create_overlap_rule(''ov'', ''{}'')', 'alter_overlap_rule(''ov'', ''{}'')', 'drop_overlap_rule(''ov'')', 'check_overlaps()']) AS f CROSS JOIN LATERAL public.try('SELECT usher.' || f) AS t;
-- An operator who may not read a table does not get its rows shown in another way.
SET ROLE regress_usher_op;
SELECT public.try($$SELECT usher.create_overlap_rule('ov', '{"table": "ov.bookings", "resource": "asset_id", "period": ["starts_at", "ends_at"]}')$$);
RESET ROLE;

-- An index that helps is asked for, until it is there.
SELECT usher.create_overlap_rule('ov', ov.rule('{"severity": "critical", "escalate_after": "2 h"}'));
CREATE INDEX bookings_asset_idx ON ov.bookings (organization_id, asset_id);
SELECT usher.alter_overlap_rule('ov', ov.rule('{"severity": "critical", "escalate_after": "2 h"}'));
SELECT public.try($$SELECT usher.create_overlap_rule('ov', ov.rule())$$);
SELECT regexp_replace(tgname, '\d+', 'N') AS tgname, tgrelid::regclass FROM pg_trigger WHERE tgfoid = 'usher.note_overlaps()'::regprocedure AND tgname ~ 'insert$';

-- Found in the writer's own transaction. What only touches, is cancelled, has no time or ends before it begins does not overlap; nor do
-- the same asset's bookings in two organizations.
SELECT count(ov.book(id, asset, starts, ends, :'north', status)) FROM (VALUES
    (1, 1, '08:00', '12:00', 'firm'), (2, 1, '12:00', '14:00', 'firm'), (3, 1, '09:00', '10:00', 'cancelled'), (4, 2, '08:00', '12:00', 'firm'), (5, 1, '11:00', '09:00', 'firm'),
    (6, 1, NULL, '23:00', 'firm'), (7, NULL, '08:00', '12:00', 'firm')) AS b (id, asset, starts, ends, status);
SELECT ov.book(1, 1, '08:00', '12:00', :'south'), ov.book(2, 1, '12:00', '14:00', :'south');
SELECT * FROM ov.conflicts;
BEGIN;
SELECT ov.book(8, 1, '11:00', '13:00', :'north');
SELECT * FROM ov.conflicts;
ROLLBACK;
SELECT * FROM ov.conflicts;
-- An end that is not known is no end.
INSERT INTO ov.bookings (organization_id, id, asset_id, starts_at) VALUES (:'north', 8, 1, '2026-05-01 13:00Z'), (:'south', 8, 2, '2026-05-01 13:00Z');
SELECT * FROM ov.conflicts;
SELECT subject ~ '^overlap ov [0-9a-f]{32}$' AS subject, left_table, right_table, fields, ours, theirs, message, escalate_at - raised_at BETWEEN '119 min' AND '2 h' AS escalates FROM usher.conflicts WHERE rule = 'ov';
-- A write that has nothing to do with it writes nothing; one that ends the overlap ends the conflict.
UPDATE ov.bookings SET note = 'x';
UPDATE ov.bookings SET starts_at = starts_at - interval '1 minute' WHERE id = 8 AND organization_id = :'north';
SELECT * FROM ov.conflicts;
UPDATE ov.bookings SET status = 'cancelled' WHERE id = 8 AND organization_id = :'north';
SELECT * FROM ov.conflicts;
UPDATE ov.bookings SET status = 'firm', asset_id = 2 WHERE id = 8 AND organization_id = :'north';
UPDATE ov.bookings SET asset_id = 4 WHERE id = 1 AND organization_id = :'north';
UPDATE ov.bookings SET asset_id = 1, ends_at = '2026-05-01 12:30Z' WHERE id = 1 AND organization_id = :'north';
SELECT * FROM ov.conflicts;
UPDATE ov.bookings SET id = 11 WHERE id = 1 AND organization_id = :'north';
SELECT * FROM ov.conflicts;
DELETE FROM ov.bookings WHERE id = 11;
SELECT * FROM ov.conflicts;
-- What was written waits for the look after the commit, which finds nothing new here, and leaves nothing behind.
SELECT count(*) > 0 AS waiting FROM usher.overlap_checks;
CALL public.drain() \gset
SELECT count(*) FROM usher.overlap_checks;
SELECT count(*) FILTER (WHERE state = 'open') AS open, count(*) FROM usher.conflicts WHERE rule = 'ov';

-- Deciding: by admins of the organization, one of two words, once.
DELETE FROM ov.bookings;
DELETE FROM usher.conflicts;
SELECT ov.book(1, 1, '08:00', '12:00', :'north'), ov.book(2, 1, '11:00', '14:00', :'north'), ov.book(1, 1, '08:00', '12:00', :'south'), ov.book(2, 1, '11:00', '14:00', :'south');
SELECT id AS mine FROM usher.conflicts WHERE organization_id = :'north' \gset
SELECT id AS theirs FROM usher.conflicts WHERE organization_id = :'south' \gset
CREATE FUNCTION ov.decide(conflict uuid, decision text, decided_values jsonb DEFAULT NULL) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT regexp_replace(t, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') FROM public.try(format('SELECT usher.resolve_conflict(%L, %L, %L, ''agreed'')', conflict, decision, decided_values)) AS t $$;
GRANT USAGE ON SCHEMA ov TO usher_member;
SET ROLE regress_usher_member;
SELECT count(*) FROM usher.conflicts;
SELECT ov.decide(:'mine', 'accept');
SET ROLE regress_usher_stranger;
SELECT count(*) FROM usher.conflicts;
SELECT ov.decide(:'mine', 'accept');
SET ROLE regress_usher_admin;
SELECT left_key, right_key, state FROM usher.conflicts;
SELECT ov.decide(:'theirs', 'accept');
SELECT t.* FROM (VALUES ('acept', NULL), ('accept', '{"a": 1}'::jsonb), ('ended', NULL), (NULL, NULL), ('accept', NULL), ('accept', NULL), ('ended', NULL)) AS d (decision, given)
 CROSS JOIN LATERAL ov.decide(:'mine', d.decision, d.given) AS t;
SELECT count(*) FROM usher.overlap_rules;
SELECT count(*) FROM usher.overlap_checks;
RESET ROLE;
SELECT decision, note, decided_by, state FROM usher.conflicts WHERE id = :'mine';
SELECT action, actor, new FROM usher.audit_log WHERE action = 'usher.conflicts.resolved';
-- What was accepted is not raised again while neither row changes what it is about; then it is.
SELECT * FROM usher.check_overlaps('ov');
UPDATE ov.bookings SET note = 'y', status = 'tentative' WHERE organization_id = :'north';
SELECT * FROM usher.check_overlaps();
SELECT * FROM ov.conflicts;
UPDATE ov.bookings SET ends_at = ends_at + interval '1 h' WHERE id = 2;
SELECT * FROM ov.conflicts;
-- A change that no trigger has seen: somebody says that it has ended, or the sweep finds out.
SET session_replication_role = replica;
UPDATE ov.bookings SET asset_id = 5 WHERE id = 2;
SELECT ov.book(5, 5, '11:30', '11:45', :'north');
RESET session_replication_role;
SELECT id AS mine FROM usher.conflicts WHERE organization_id = :'north' AND state = 'open' \gset
SELECT ov.decide(:'mine', 'ended');
SELECT * FROM usher.check_overlaps('ov');
SELECT * FROM ov.conflicts;
SELECT public.try($$SELECT * FROM usher.check_overlaps('vo')$$);

-- A rule that refuses: the writer's statement fails, and what was there before is found by the sweep. A write that does not make it
-- worse goes through.
SELECT usher.alter_overlap_rule('ov', ov.rule('{"refuse": true}'));
CALL public.drain() \gset
SELECT * FROM ov.conflicts WHERE state = 'open';
-- Of two in one statement either may be named.
SELECT replace(t, 'id 51 ', 'id 50 ') AS t FROM unnest(ARRAY['SELECT ov.book(6, 5, ''11:00'', ''11:15'', (SELECT id FROM usher.organizations WHERE slug = ''ov-north''))', 'UPDATE ov.bookings SET asset_id = 5 WHERE id = 1',
    'INSERT INTO ov.bookings (organization_id, id, asset_id, starts_at) SELECT id, n, 7, ''2026-05-01'' FROM usher.organizations, generate_series(50, 51) AS n WHERE slug = ''ov-north''',
    'UPDATE ov.bookings SET note = ''z''', 'DELETE FROM ov.bookings WHERE id = 5', 'SELECT ov.book(6, 5, ''06:00'', ''06:15'', (SELECT id FROM usher.organizations WHERE slug = ''ov-north''))']) AS s
 CROSS JOIN LATERAL public.try(s) AS t;
SELECT * FROM ov.conflicts WHERE state = 'open';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT public.try($$SELECT ov.book(7, 5, '06:10', '06:20', (SELECT id FROM usher.organizations WHERE slug = 'ov-north'))$$);
SELECT ov.book(7, 5, '06:15', '06:20', :'north');
COMMIT;

-- A schema change that the rule does not survive breaks it, at once and loudly; writers go on, unless it refuses. It goes on when it fits.
ALTER TABLE ov.bookings RENAME COLUMN asset_id TO thing;
SELECT state, reason FROM usher.overlap_rules;
SELECT public.try($$UPDATE ov.bookings SET ends_at = NULL WHERE id = 2$$);
SELECT * FROM usher.check_overlaps();
ALTER TABLE ov.bookings RENAME COLUMN thing TO asset_id;
SELECT usher.alter_overlap_rule('ov', ov.rule());
ALTER TABLE ov.bookings RENAME COLUMN status TO state;
UPDATE ov.bookings SET ends_at = '2026-05-01 11:30Z' WHERE id = 2;
INSERT INTO ov.bookings (organization_id, id, asset_id, starts_at) VALUES (:'north', 30, 5, '2026-05-01 06:12Z');
CALL public.drain() \gset
ALTER TABLE ov.bookings RENAME COLUMN state TO status;
CALL public.drain() \gset
SELECT l, r FROM ov.conflicts WHERE state = 'open';
-- The table's name is followed, a trigger that was dropped comes back, a truncated table has no conflicts.
ALTER TABLE ov.bookings RENAME TO reservations;
SELECT tgname FROM pg_trigger WHERE tgfoid = 'usher.note_overlaps()'::regprocedure AND tgname ~ 'insert$' \gset
DROP TRIGGER :tgname ON ov.reservations;
INSERT INTO ov.reservations (organization_id, id, asset_id, starts_at) VALUES (:'north', 31, 5, '2026-05-01 06:12Z');
SELECT l, r FROM ov.conflicts WHERE state = 'open';
TRUNCATE ov.reservations;
CALL public.drain() \gset
SELECT l, r FROM ov.conflicts WHERE state = 'open';
ALTER TABLE ov.reservations RENAME TO bookings;

-- A range column, partitions, a key with a time, values in other orders and with other bounds.
CREATE TABLE ov.shifts (organization_id uuid NOT NULL, person text NOT NULL, hall text NOT NULL, during daterange, at timestamptz NOT NULL, n numeric NOT NULL, PRIMARY KEY (organization_id, n, at, hall)) PARTITION BY LIST (hall);
CREATE TABLE ov.shifts_a PARTITION OF ov.shifts FOR VALUES IN ('a');
CREATE INDEX ON ov.shifts (person);
SELECT usher.create_overlap_rule('ov_shifts', '{"table": "ov.shifts", "resource": "person", "period": "during", "sweep": false}');
CREATE TABLE ov.shifts_b (person text NOT NULL, during daterange, hall text NOT NULL, n numeric NOT NULL, at timestamptz NOT NULL, organization_id uuid NOT NULL);
ALTER TABLE ov.shifts ATTACH PARTITION ov.shifts_b FOR VALUES IN ('b');
SET TimeZone = 'Asia/Tokyo';
INSERT INTO ov.shifts VALUES (:'north', 'ann', 'a', '[2026-05-01,2026-05-03]', '2026-05-01 00:00Z', 1.50);
SET TimeZone = 'UTC';
INSERT INTO ov.shifts_b (organization_id, person, hall, during, at, n) VALUES (:'north', 'ann', 'b', '[2026-05-03,)', '2026-05-01 00:00Z', 2), (:'north', 'bob', 'b', '[2026-05-03,)', '2026-05-01 00:00Z', 2.5);
SELECT left_key, right_key, ours, theirs, message FROM usher.conflicts WHERE rule = 'ov_shifts';
UPDATE ov.shifts SET hall = 'a' WHERE n = 2;
SELECT right_key, state FROM usher.conflicts WHERE rule = 'ov_shifts' ORDER BY id;
SET TimeZone = 'America/Lima';
SELECT * FROM usher.check_overlaps('ov_shifts');
UPDATE ov.shifts SET during = '[2026-05-04,)' WHERE n = 2;
SELECT right_key, state FROM usher.conflicts WHERE rule = 'ov_shifts' ORDER BY id;
RESET TimeZone;
SELECT sweep_at IS NULL AS never FROM usher.overlap_rules WHERE name = 'ov_shifts';

-- Conflicts that stay open too long are told once, those of a rule together.
SELECT ov.book(n, 1, '08:00', '09:00', :'north') FROM generate_series(1, 3) AS n;
SELECT usher.alter_overlap_rule('ov', ov.rule('{"escalate_after": "1 s"}'));
SELECT ov.book(4, 1, '08:00', '09:00', :'north');
UPDATE usher.conflicts SET escalate_at = now() WHERE state = 'open' AND escalate_at IS NOT NULL;
CALL public.drain() \gset
CALL public.drain() \gset
SELECT count(*) FILTER (WHERE escalated_at IS NOT NULL) AS told, count(*) FROM usher.conflicts WHERE rule = 'ov' AND state = 'open';
SET ROLE regress_usher_admin;
SELECT kind, severity, subject, failures, body ->> 'rule' AS rule, body ->> 'message' AS message, jsonb_array_length(body -> 'conflicts') AS conflicts FROM usher.notices WHERE kind = 'conflict open';
RESET ROLE;

-- Without the rule nothing is left of it but what has happened.
SELECT usher.drop_overlap_rule('ov');
SELECT usher.drop_overlap_rule('ov_shifts');
SELECT public.try($$SELECT usher.drop_overlap_rule('ov')$$);
SELECT DISTINCT state FROM usher.conflicts;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'usher.note_overlaps()'::regprocedure;
SELECT action, new ->> 'name' AS name FROM usher.audit_log WHERE action ~ 'overlap_rules' AND COALESCE(new ->> 'name', '') <> '' AND new ->> 'name' NOT LIKE 'live\_events.%' ORDER BY position;

-- A partition that was detached is none of the rule's business, whatever becomes of its columns: nobody's code runs with the rights of
-- the owner of pg_usher's tables, also where the triggers are still there. They go with the next change of the schema.
CREATE TABLE ov.parts (id integer NOT NULL, organization_id uuid, hall text NOT NULL, asset integer, during int4range, PRIMARY KEY (id, hall)) PARTITION BY LIST (hall);
CREATE TABLE ov.parts_a PARTITION OF ov.parts FOR VALUES IN ('a');
CREATE TABLE ov.parts_b PARTITION OF ov.parts FOR VALUES IN ('b');
CREATE INDEX ON ov.parts (asset);
CREATE TABLE ov.ran (what text);
CREATE TYPE ov.evil AS ENUM ('x', 'y');
CREATE FUNCTION ov.as_json(ov.evil) RETURNS json LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ov.ran VALUES ($1::text); RETURN to_json($1::text); END $$;
CREATE CAST (ov.evil AS json) WITH FUNCTION ov.as_json(ov.evil);
SELECT usher.create_overlap_rule('ov_parts', '{"table": "ov.parts", "resource": "asset", "period": "during", "sweep": false}');
INSERT INTO ov.parts_b VALUES (1, :'north', 'b', 1, '[1,5)');
SET session_replication_role = replica;
ALTER TABLE ov.parts DETACH PARTITION ov.parts_b;
ALTER TABLE ov.parts_b ALTER id TYPE ov.evil USING 'x';
RESET session_replication_role;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'usher.note_overlaps()'::regprocedure AND tgrelid = 'ov.parts_b'::regclass;
INSERT INTO ov.parts_b VALUES ('y', :'north', 'b', 1, '[1,5)');
SELECT count(*) FROM ov.ran;
SELECT jsonb_build_object('id', id) FROM ov.parts_b WHERE id = 'y';
SELECT count(*) FROM ov.ran;
CREATE TABLE ov.parts_c PARTITION OF ov.parts FOR VALUES IN ('c');
SELECT tgrelid::regclass, count(*) FROM pg_trigger WHERE tgfoid = 'usher.note_overlaps()'::regprocedure AND tgrelid::regclass::text ~ 'parts' GROUP BY tgrelid::regclass::text, tgrelid ORDER BY tgrelid::regclass::text;
ALTER TABLE ov.parts DETACH PARTITION ov.parts_a;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'usher.note_overlaps()'::regprocedure AND tgrelid = 'ov.parts_a'::regclass;
SELECT usher.drop_overlap_rule('ov_parts');

-- Of a rule that refuses, resources that are equal share a lock however they are written, and many resources share few.
CREATE COLLATION ov.either_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE ov.equal (id integer PRIMARY KEY, organization_id uuid, n numeric, c text COLLATE ov.either_case, b character(5), during int4range);
CREATE INDEX ON ov.equal (n, c, b);
SELECT usher.create_overlap_rule('ov_equal', '{"table": "ov.equal", "resource": ["n", "c", "b"], "period": "during", "refuse": true, "sweep": false}');
CREATE VIEW ov.locks AS SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
BEGIN;
INSERT INTO ov.equal VALUES (1, :'north', 1.0, 'van', 'x', '[1,2)');
SELECT count AS before FROM ov.locks \gset
INSERT INTO ov.equal VALUES (2, :'north', 1.00, 'VAN', 'x  ', '[2,3)');
SELECT count = :before AS same FROM ov.locks;
INSERT INTO ov.equal SELECT n, :'north', n, 'van', 'x', '[1,2)' FROM generate_series(3, 3000) AS n;
SELECT count BETWEEN 200 AND 260 AS few FROM ov.locks;
SELECT public.try($$INSERT INTO ov.equal SELECT 4000, organization_id, 1, 'Van', 'x', '[1,2)' FROM ov.equal WHERE id = 1$$);
ROLLBACK;
SELECT usher.drop_overlap_rule('ov_equal');

-- The sweep finds what a comparison of all with all finds, and nothing else.
CREATE TABLE ov.random (organization_id uuid, id integer PRIMARY KEY, a integer, b text, p tsrange, gone boolean);
SELECT usher.create_overlap_rule('ov_random', '{"table": "ov.random", "resource": ["a", "b"], "period": "p", "where": "r.gone IS NOT TRUE"}');
SELECT setseed(0.42);
DO $$
DECLARE
    round integer;
    expected text;
    found text;
BEGIN
    FOR round IN 1..25 LOOP
        SET session_replication_role = replica;
        TRUNCATE ov.random;
        INSERT INTO ov.random
        SELECT o.id, n, (random() * 3)::integer, CASE WHEN random() < 0.9 THEN chr(97 + (random() * 2)::integer) END,
               CASE WHEN random() < 0.95 THEN tsrange(CASE WHEN random() < 0.95 THEN t.at END, CASE WHEN random() < 0.9 THEN t.at + make_interval(mins => (random() ^ 3 * 60)::integer) END,
                    (ARRAY['[)', '[]', '(]', '()'])[1 + (random() * 3)::integer]) END, (ARRAY[true, false, NULL, false, false])[1 + (random() * 4)::integer]
          FROM generate_series(1, 120) AS n CROSS JOIN LATERAL (SELECT timestamp '2026-05-01' + make_interval(mins => (random() * 400)::integer + n * 0) AS at) AS t
         CROSS JOIN LATERAL (SELECT id FROM usher.organizations WHERE slug = CASE n % 2 WHEN 0 THEN 'ov-north' ELSE 'ov-south' END) AS o;
        SET session_replication_role = origin;
        PERFORM usher.check_overlaps('ov_random');
        SELECT string_agg(l.id || '-' || r.id, ' ' ORDER BY l.id, r.id) INTO expected
          FROM ov.random l JOIN ov.random r ON l.id < r.id AND l.organization_id = r.organization_id AND l.a = r.a AND l.b = r.b AND l.p && r.p AND l.gone IS NOT TRUE AND r.gone IS NOT TRUE;
        SELECT string_agg((left_key ->> 'id') || '-' || (right_key ->> 'id'), ' ' ORDER BY (left_key ->> 'id')::integer, (right_key ->> 'id')::integer) INTO found
          FROM usher.conflicts WHERE rule = 'ov_random' AND state = 'open';
        IF found IS DISTINCT FROM expected OR expected IS NULL THEN
            RAISE EXCEPTION 'round %: expected %, found %', round, expected, found;
        END IF;
        -- And the same, row by row as a writer.
        UPDATE ov.random SET a = (random() * 3)::integer, p = CASE WHEN random() < 0.5 THEN p ELSE tsrange('2026-05-01', '2026-05-01 00:30') END WHERE id % 3 = 0;
        DELETE FROM ov.random WHERE id % 7 = 0;
        SELECT string_agg(l.id || '-' || r.id, ' ' ORDER BY l.id, r.id) INTO expected
          FROM ov.random l JOIN ov.random r ON l.id < r.id AND l.organization_id = r.organization_id AND l.a = r.a AND l.b = r.b AND l.p && r.p AND l.gone IS NOT TRUE AND r.gone IS NOT TRUE;
        SELECT string_agg((left_key ->> 'id') || '-' || (right_key ->> 'id'), ' ' ORDER BY (left_key ->> 'id')::integer, (right_key ->> 'id')::integer) INTO found
          FROM usher.conflicts WHERE rule = 'ov_random' AND state = 'open';
        IF found IS DISTINCT FROM expected THEN
            RAISE EXCEPTION 'round % of writers: expected %, found %', round, expected, found;
        END IF;
        -- More than 32 statements of one transaction would be left to the look after the commit.
        COMMIT;
    END LOOP;
END
$$;
SELECT usher.drop_overlap_rule('ov_random') ~ 'dropped' AS done;
SELECT usher.revoke_membership('ov-north', 'role:regress_usher_admin'), usher.revoke_membership('ov-north', 'role:regress_usher_member');
SET client_min_messages = warning;
DELETE FROM usher.conflicts;
DELETE FROM usher.notices WHERE kind = 'conflict open';
DROP SCHEMA ov CASCADE;
DROP ROLE regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op;
