-- Looks at what was touched alone: what they find, when everything is looked at instead, and which rules have none.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP ROLE IF EXISTS regress_usher_keyed;
CREATE ROLE regress_usher_keyed NOLOGIN;
CREATE SCHEMA keyed;
CREATE TABLE keyed.items (organization_id uuid NOT NULL, id integer NOT NULL, amount integer NOT NULL, due_at timestamptz, price numeric, PRIMARY KEY (organization_id, id));
CREATE TABLE keyed.bills (organization_id uuid NOT NULL, item integer NOT NULL, amount integer NOT NULL, PRIMARY KEY (organization_id, item));
CREATE FUNCTION keyed.limit_of(item integer) RETURNS integer LANGUAGE sql STABLE AS 'SELECT max(amount) FROM keyed.bills';
CREATE FUNCTION keyed.twice(amount integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT amount * 2';
GRANT USAGE ON SCHEMA keyed TO regress_usher_keyed;
GRANT SELECT ON ALL TABLES IN SCHEMA keyed TO regress_usher_keyed;
SELECT usher.create_organization('keyed-north') AS north \gset
SELECT usher.create_organization('keyed-south') AS south \gset
INSERT INTO keyed.items SELECT o.id, n, 10 FROM generate_series(1, 20) AS n, usher.organizations AS o WHERE o.slug LIKE 'keyed-%';
INSERT INTO keyed.bills SELECT organization_id, id, 10 FROM keyed.items;
ANALYZE keyed.items, keyed.bills;
CREATE VIEW keyed.violations AS SELECT v.rule, o.slug, v.key, v.status, v.wrong FROM usher.violations AS v JOIN usher.organizations AS o ON o.id = v.organization_id WHERE v.rule LIKE 'keyed%' ORDER BY 1, 2, v.key ->> 'item';
CREATE VIEW keyed.rules AS SELECT name, keyed, keyed_now, keys_every, whole_because, (SELECT count(*) FROM usher.rule_checks AS c WHERE c.rule_id = l.id) AS checks FROM usher.rules AS l WHERE l.name LIKE 'keyed%' ORDER BY name;
CREATE FUNCTION keyed.explain(name text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT line FROM regexp_split_to_table(split_part(usher.explain_rule(name), '  runs as', 1), '\n') AS line WHERE line <> '' $$;
-- The time has come: of what was touched, or of everything.
CREATE FUNCTION keyed.keys_are_due() RETURNS void LANGUAGE sql AS $$ UPDATE usher.rules SET keys_at = clock_timestamp() WHERE name LIKE 'keyed%' $$;
CREATE FUNCTION keyed.all_is_due() RETURNS void LANGUAGE sql AS $$ UPDATE usher.rules SET check_at = clock_timestamp(), changes = NULL WHERE name LIKE 'keyed%' $$;
CREATE FUNCTION keyed.rule(changes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('query', 'SELECT i.organization_id, i.id AS item, i.amount, b.amount AS billed FROM keyed.items AS i
        LEFT JOIN keyed.bills AS b ON b.organization_id = i.organization_id AND b.item = i.id WHERE b.amount IS DISTINCT FROM i.amount',
        'key', 'item', 'wrong', '''item '' || item || '' is billed '' || COALESCE(billed::text, ''not at all'')', 'run_as', 'regress_usher_keyed',
        'touches', '{"keyed.items": {"item": "row.id"}, "keyed.bills": {"item": "row.item"}}'::jsonb) || changes $$;
RESET client_min_messages;

-- Until everybody notes what he touches, everything is looked at.
SELECT usher.create_rule('keyed', keyed.rule());
SELECT * FROM keyed.rules;
SELECT * FROM keyed.explain('keyed');
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.rules;
SELECT * FROM keyed.explain('keyed');
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.rules;
SELECT * FROM keyed.explain('keyed');

-- What was touched is found at its time. What was written past all triggers is not, before everything is looked at.
UPDATE keyed.items SET amount = 11 WHERE id = 3;
UPDATE keyed.bills SET amount = 12 WHERE item = 4 AND organization_id = :'south';
SET session_replication_role = replica;
UPDATE keyed.items SET amount = 13 WHERE id = 5 AND organization_id = :'north';
RESET session_replication_role;
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations;
UPDATE keyed.items SET amount = 13 WHERE id = 8 AND organization_id = :'north';
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations;
SELECT keyed.keys_are_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations;
SELECT * FROM keyed.rules;
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations;
-- A key that many transactions touch is looked at once; what was taken back was not touched; what is mended is gone.
BEGIN;
SAVEPOINT a;
DELETE FROM keyed.bills WHERE item = 9;
ROLLBACK TO a;
UPDATE keyed.items SET amount = 10 WHERE id = 3 AND organization_id = :'north';
COMMIT;
UPDATE keyed.items SET amount = 10 WHERE id = 3 AND organization_id = :'north';
DELETE FROM keyed.bills WHERE item IN (3, 7) AND organization_id = :'north';
INSERT INTO keyed.bills SELECT organization_id, id, amount FROM keyed.items WHERE id = 7 AND organization_id = :'north';
SELECT o.slug, (SELECT string_agg(k.key, ' ' ORDER BY k.key) FROM regexp_split_to_table(c.keys, '\n') AS k (key)) AS keys FROM usher.rule_checks AS c JOIN usher.organizations AS o ON o.id = c.organization_id ORDER BY c.id;
SELECT keyed.keys_are_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations;
SELECT * FROM keyed.rules;

-- What nobody can say the keys of: everything is looked at, at once.
TRUNCATE keyed.bills;
SELECT c.keys IS NULL AS everything FROM usher.rule_checks AS c;
SELECT keyed.keys_are_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT status, count(*) FROM keyed.violations GROUP BY status ORDER BY status;
SELECT * FROM keyed.rules;
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.rules;
SET usher.capture = off;
UPDATE keyed.items SET amount = 10;
INSERT INTO keyed.bills SELECT organization_id, id, amount FROM keyed.items;
RESET usher.capture;
SELECT c.keys IS NULL AS everything FROM usher.rule_checks AS c;
SELECT keyed.keys_are_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT status, count(*) FROM keyed.violations GROUP BY status ORDER BY status;
INSERT INTO keyed.items SELECT :'north', n, 10 FROM generate_series(1001, 101002) AS n;
SELECT c.keys IS NULL AS everything FROM usher.rule_checks AS c;
DELETE FROM keyed.items WHERE id > 1000;
SELECT keyed.keys_are_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT status, count(*) FROM keyed.violations GROUP BY status ORDER BY status;
SELECT * FROM keyed.rules;
-- Triggers that are off, another file of a table, a rule that was off.
ALTER TABLE keyed.items DISABLE TRIGGER usher_touched_update;
SELECT * FROM keyed.explain('keyed');
UPDATE keyed.items SET amount = 11 WHERE id = 6 AND organization_id = :'south';
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations WHERE status = 'open';
SELECT * FROM keyed.rules;
ALTER TABLE keyed.items ENABLE TRIGGER usher_touched_update;
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.rules;
ALTER TABLE keyed.items ADD COLUMN more integer;
SELECT * FROM keyed.rules;
SELECT usher.disable_rule('keyed');
UPDATE keyed.items SET amount = 10 WHERE id = 6;
SELECT * FROM keyed.rules;
SELECT usher.enable_rule('keyed');
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations WHERE status = 'open';
SELECT * FROM keyed.rules;

-- At once, and with a gate: nothing is done twice.
SELECT usher.alter_rule('keyed', keyed.rule('{"run": ["after_sync"], "every": "30s", "full": "1 h"}'));
SELECT * FROM keyed.explain('keyed');
SELECT usher.process_jobs() >= 0 AS done;
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
UPDATE keyed.items SET amount = 11 WHERE id = 6 AND organization_id = :'south';
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations WHERE status = 'open';
SELECT name, keyed_now, keys_every, check_at - last_checked_at > interval '59 min' AS later FROM usher.rules WHERE name = 'keyed';
SELECT usher.alter_rule('keyed', keyed.rule('{"run": ["transaction"], "every": "30s"}'));
SELECT * FROM keyed.explain('keyed');
SELECT usher.process_jobs() >= 0 AS done;
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
UPDATE keyed.items SET amount = 10 WHERE id = 6 AND organization_id = :'south';
SELECT * FROM keyed.rules;
SELECT keyed.keys_are_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations WHERE status = 'open';
-- Pending is looked at when its time of grace is over, although nobody touches it.
SELECT usher.alter_rule('keyed', keyed.rule('{"grace": "50ms"}'));
SELECT usher.process_jobs() >= 0 AS done;
SELECT keyed.all_is_due();
SELECT usher.process_jobs() >= 0 AS done;
UPDATE keyed.items SET amount = 11 WHERE id = 6 AND organization_id = :'south';
SELECT keyed.keys_are_due();
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations WHERE status IN ('pending', 'open');
SELECT pg_sleep(0.1) AS done \gset
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.violations WHERE status IN ('pending', 'open');
SELECT * FROM keyed.rules;
SELECT usher.drop_rule('keyed');

-- Which rules have no such looks, and why.
CREATE FUNCTION keyed.why(which text, changes jsonb DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM usher.create_rule('keyed_why', keyed.rule(jsonb_build_object('query', 'SELECT organization_id, id AS item, amount, amount AS billed, price FROM keyed.items ' || which,
        'touches', '{"keyed.items": {"item": "row.id"}}'::jsonb) || changes));
    RETURN (SELECT COALESCE(string_agg(trim(line), ' '), 'only what was touched') FROM keyed.explain('keyed_why') AS line WHERE line ~ 'not only');
END
$$;
SET client_min_messages = error;
SELECT w.which, w.changes, usher.drop_rule('keyed_why') IS NULL AS kept, y.why
  FROM (VALUES ('WHERE amount < 0', '{}'), ('WHERE amount < 0', '{"full": "60s"}'), ('WHERE amount < 0', '{"full": "1 day"}'),
               ('WHERE due_at < now()', '{}'), ('WHERE due_at::date < CURRENT_DATE', '{}'), ('WHERE due_at < ''today''', '{}'), ('WHERE age(due_at) > interval ''1 day''', '{}'),
               ('WHERE amount > random() * 5', '{}'), ('WHERE amount > keyed.limit_of(id)', '{}'), ('WHERE amount > COALESCE(current_setting(''keyed.most'', true)::integer, 0)', '{}'),
               ('WHERE (price::text || '' 2020-01-01'')::timestamptz < due_at', '{}'), ('WHERE pg_has_role(CURRENT_USER, ''usher_member'', ''USAGE'')', '{}'),
               ('ORDER BY amount LIMIT 3', '{}'), ('WHERE amount < 0 AND EXISTS (SELECT FROM keyed.bills)', '{}'),
               ('WHERE to_char(due_at, ''YYYY'') || amount > format(''%s'', price) AND due_at::date > date ''2020-01-01'' AND keyed.twice(amount) < 3', '{}'),
               ('WHERE price < 0', '{"key": "price", "touches": {"keyed.items": {"price": "row.price"}}, "wrong": "''bad''"}'),
               ('WHERE amount < 0', '{"touches": {"keyed.items": {"item": "keyed.limit_of(row.id)"}}}')) AS w (which, changes)
 CROSS JOIN LATERAL (SELECT keyed.why(w.which, w.changes::jsonb)) AS y (why);
CREATE TABLE keyed.heirs () INHERITS (keyed.bills);
CREATE UNLOGGED TABLE keyed.fleeting (id integer PRIMARY KEY);
GRANT SELECT ON keyed.fleeting, keyed.heirs TO regress_usher_keyed;
RESET client_min_messages;
SELECT usher.create_rule('keyed_heirs', keyed.rule());
SELECT usher.create_rule('keyed_fleeting', keyed.rule('{"query": "SELECT id AS item, 1 AS billed FROM keyed.fleeting", "touches": {"keyed.fleeting": {"item": "row.id"}}, "full": "1 h"}'));
SELECT usher.create_rule('keyed_when', keyed.rule('{"query": "SELECT id AS item, 1 AS billed FROM keyed.items WHERE due_at < now()", "touches": {"keyed.items": {"item": "row.id"}}, "full": "1 h"}'));
SELECT * FROM keyed.explain('keyed_heirs');
SELECT usher.process_jobs() >= 0 AS done;
SELECT * FROM keyed.rules;
SELECT usher.drop_rule('keyed_heirs'), usher.drop_rule('keyed_fleeting'), usher.drop_rule('keyed_when');
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'usher_touched%';
SET client_min_messages = warning;
DROP SCHEMA keyed CASCADE;
DELETE FROM usher.violations WHERE rule LIKE 'keyed%';
DROP ROLE regress_usher_keyed;
