-- The commit gate: what a rule finds bad among the keys that a transaction has touched is refused before it commits.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP ROLE IF EXISTS regress_usher_gate;
RESET client_min_messages;
CREATE ROLE regress_usher_gate NOLOGIN;
CREATE SCHEMA gate;
CREATE TABLE gate.owners (id integer PRIMARY KEY);
CREATE TABLE gate.accounts (
    id integer PRIMARY KEY, organization_id uuid NOT NULL, owner integer REFERENCES gate.owners ON DELETE CASCADE);
CREATE TABLE gate.entries (
    id integer GENERATED ALWAYS AS IDENTITY, account integer NOT NULL REFERENCES gate.accounts ON DELETE CASCADE, amount integer NOT NULL,
    PRIMARY KEY (account, id)) PARTITION BY LIST (account);
CREATE TABLE gate.entries_1 PARTITION OF gate.entries FOR VALUES IN (1);
CREATE TABLE gate.entries_rest PARTITION OF gate.entries DEFAULT;
GRANT USAGE ON SCHEMA gate TO regress_usher_gate;
GRANT SELECT ON ALL TABLES IN SCHEMA gate TO regress_usher_gate;
SELECT usher.create_organization('gate_other') IS NOT NULL AS made;
INSERT INTO gate.owners SELECT generate_series(1, 20);
INSERT INTO gate.accounts SELECT n, o.id, n FROM generate_series(1, 20) AS n
  JOIN usher.organizations AS o ON o.slug = CASE WHEN n > 10 THEN 'gate_other' ELSE 'default' END;
SELECT usher.create_rule('gate_balance', '{
    "query": "SELECT a.organization_id, a.id AS account, COALESCE(sum(e.amount), 0) AS balance FROM gate.accounts a LEFT JOIN gate.entries e ON e.account = a.id GROUP BY a.organization_id, a.id HAVING COALESCE(sum(e.amount), 0) < 0",
    "key": ["account"], "wrong": "''the balance is '' || balance",
    "touches": {"gate.accounts": {"account": "row.id"}, "gate.entries": {"account": "row.account"}},
    "run": ["transaction"], "run_as": "regress_usher_gate"}');
SELECT tgrelid::regclass AS relation, tgname FROM pg_trigger WHERE tgname LIKE 'usher_touched%' ORDER BY 1, 2;

-- Refused: named are the rule, the key, what is wrong, how many more.
INSERT INTO gate.entries (account, amount) VALUES (1, -5);
INSERT INTO gate.entries (account, amount) SELECT n, -n FROM generate_series(2, 15) AS n;
\echo :LAST_ERROR_SQLSTATE
-- What counts is the end of the transaction.
BEGIN;
INSERT INTO gate.entries (account, amount) VALUES (1, -5);
INSERT INTO gate.entries (account, amount) VALUES (1, 7);
COMMIT;
-- Each way to write.
UPDATE gate.entries SET amount = -1 WHERE account = 1 AND amount = 7;
DELETE FROM gate.entries WHERE account = 1 AND amount > 0;
INSERT INTO gate.entries_1 (id, account, amount) OVERRIDING SYSTEM VALUE VALUES (100, 1, -3);
UPDATE gate.entries SET account = 2 WHERE account = 1 AND amount < 0;
MERGE INTO gate.entries AS e USING (VALUES (1, -9)) AS v (account, amount) ON false WHEN NOT MATCHED THEN INSERT (account, amount) VALUES (v.account, v.amount);
COPY gate.entries (account, amount) FROM stdin;
3	5
4	-6
\.
SELECT account, amount FROM gate.entries ORDER BY id;
-- What a savepoint has taken back was not touched.
BEGIN;
SAVEPOINT a;
INSERT INTO gate.entries (account, amount) VALUES (5, -5);
ROLLBACK TO a;
SAVEPOINT b;
INSERT INTO gate.entries (account, amount) VALUES (6, 5);
RELEASE b;
COMMIT;
BEGIN;
SAVEPOINT a;
INSERT INTO gate.entries (account, amount) VALUES (5, -5);
RELEASE a;
COMMIT;
-- A foreign key takes rows away.
INSERT INTO gate.entries (account, amount) VALUES (7, 5), (7, -4);
DELETE FROM gate.owners WHERE id = 7;
-- What a deferred trigger writes at COMMIT counts.
CREATE FUNCTION gate.fee() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gate.entries (account, amount) VALUES (8, -2);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER zz_fee AFTER INSERT ON gate.owners DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gate.fee();
INSERT INTO gate.owners VALUES (100);
DROP TRIGGER zz_fee ON gate.owners;
-- What commits by itself inside a procedure is looked at by itself.
DO $$
BEGIN
    INSERT INTO gate.entries (account, amount) VALUES (9, 1);
    COMMIT;
    INSERT INTO gate.entries (account, amount) VALUES (9, -2);
    COMMIT;
END
$$;
SELECT account, amount FROM gate.entries WHERE account BETWEEN 5 AND 9 ORDER BY id;
-- In every isolation level.
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO gate.entries (account, amount) VALUES (9, -2);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO gate.entries (account, amount) VALUES (9, -1);
COMMIT;
-- Repair and restore.
SET usher.capture = off;
INSERT INTO gate.entries (account, amount) VALUES (10, -1), (11, -1);
RESET usher.capture;
-- A key that was bad is refused to whoever touches it and leaves it so, and to nobody else.
INSERT INTO gate.entries (account, amount) VALUES (10, -1);
INSERT INTO gate.entries (account, amount) VALUES (12, 1);
-- Everything is touched; what is written down already is no news.
TRUNCATE gate.entries_1;
SELECT new, still, gone FROM usher.check_rule('gate_balance');
TRUNCATE gate.entries_1;
-- Accepted.
SET client_min_messages = warning;
UPDATE usher.violations SET status = 'waived', waived_by = 'somebody', waived_because = 'known', waived_at = now() WHERE rule = 'gate_balance' AND key = '{"account": 10}';
RESET client_min_messages;
INSERT INTO gate.entries (account, amount) VALUES (10, -1);

-- A rule that cannot be asked stops nobody, and says so once.
REVOKE SELECT ON gate.entries FROM regress_usher_gate;
\c -
INSERT INTO gate.entries (account, amount) VALUES (13, -1);
INSERT INTO gate.entries (account, amount) VALUES (13, -1);
SELECT rule_id IS NOT NULL AS rule, keys IS NULL AS everything FROM usher.rule_checks;
SELECT usher.process_jobs() >= 0 AS processed;
SELECT state, reason FROM usher.rules WHERE name = 'gate_balance';
SELECT count(*) FROM usher.rule_checks;
GRANT SELECT ON gate.entries TO regress_usher_gate;

-- Dropped while a transaction holds keys.
BEGIN;
INSERT INTO gate.entries (account, amount) VALUES (14, -1);
SELECT usher.drop_rule('gate_balance') IS NOT NULL AS dropped;
COMMIT;
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'usher_touched%';

-- After the commit.
SELECT usher.create_rule('gate_later', '{
    "query": "SELECT e.account, sum(amount) AS balance FROM gate.entries e GROUP BY e.account HAVING sum(amount) < 0",
    "key": ["account"], "wrong": "''the balance is '' || balance", "touches": {"gate.entries": {"account": "row.account * 1"}},
    "run": ["after_sync"], "run_as": "regress_usher_gate"}');
INSERT INTO gate.entries (account, amount) VALUES (15, -1), (15, 3), (16, -1);
SELECT k.key FROM usher.rule_checks AS c CROSS JOIN regexp_split_to_table(c.keys, '\n') AS k (key) ORDER BY 1;
SELECT usher.process_jobs() >= 0 AS processed;
SELECT key, wrong, status FROM usher.violations WHERE rule = 'gate_later' ORDER BY key;
UPDATE gate.entries SET amount = 2 WHERE account = 16;
SELECT usher.process_jobs() >= 0 AS processed;
SELECT key, wrong, status FROM usher.violations WHERE rule = 'gate_later' ORDER BY key;
SELECT usher.drop_rule('gate_later') IS NOT NULL AS dropped;

-- However a key is read, as the row holds it or by an expression, it is the same key, and whoever finds it bad refuses it.
CREATE DOMAIN gate.code AS text CHECK (VALUE <> '');
CREATE TABLE gate.kinds (
    gone text, small smallint, whole integer, big bigint, id uuid, name text, yes boolean, code gate.code,
    twice integer GENERATED ALWAYS AS (whole * 2) STORED, organization_id uuid, bad text, part integer NOT NULL) PARTITION BY LIST (part);
ALTER TABLE gate.kinds DROP COLUMN gone;
CREATE TABLE gate.kinds_1 PARTITION OF gate.kinds FOR VALUES IN (1);
CREATE TABLE gate.kinds_2 (
    part integer NOT NULL, yes boolean, gone integer, name text, code gate.code, id uuid, bad text, big bigint, organization_id uuid, whole integer,
    twice integer GENERATED ALWAYS AS (whole * 2) STORED, small smallint);
ALTER TABLE gate.kinds_2 DROP COLUMN gone;
ALTER TABLE gate.kinds ATTACH PARTITION gate.kinds_2 FOR VALUES IN (2);
GRANT SELECT ON gate.kinds TO regress_usher_gate;
CREATE TABLE gate.columns AS SELECT * FROM (VALUES (1, 'small'), (2, 'whole'), (3, 'big'), (4, 'id'), (5, 'name'), (6, 'yes'), (7, 'code'), (8, 'twice')) AS c (n, name);
CREATE TABLE gate.ways AS SELECT * FROM (VALUES ('read', 'row.%s', 'after_sync'), ('said', '(row.%s)', 'after_sync'), ('gate', 'row.%s', 'transaction')) AS w (way, said, run);
SELECT count(usher.create_rule(format('kinds_%s_%s', c.name, w.way), jsonb_build_object(
    'query', format('SELECT organization_id, %1$s AS k FROM gate.kinds WHERE bad = %1$L GROUP BY 1, 2', c.name), 'key', '["k"]'::jsonb, 'wrong', '''it is bad''',
    'touches', jsonb_build_object('gate.kinds', jsonb_build_object('k', format(w.said, c.name))),
    'run', jsonb_build_array(w.run), 'run_as', 'regress_usher_gate'))) AS rules
  FROM gate.columns AS c CROSS JOIN gate.ways AS w;
-- Many rows, none, moved ones, and values that are written in several ways.
INSERT INTO gate.kinds (part, small, whole, big, id, name, yes, code, organization_id)
SELECT 1 + n % 2, n - 3, n * -100000, n * 10000000000, md5(n::text)::uuid, (ARRAY['', 'a "b" \ c', E'two\nlines\u0001', 'é', 'é '])[n], n % 2 = 0, 'code ' || n, o.id
  FROM generate_series(1, 5) AS n CROSS JOIN usher.organizations AS o WHERE o.slug IN ('default', 'gate_other');
INSERT INTO gate.kinds_2 (part, small, name) VALUES (2, 100, 'nobody''s'), (2, NULL, NULL);
UPDATE gate.kinds SET part = 3 - part, whole = whole + 1, name = name || '!' WHERE small = 1;
DELETE FROM gate.kinds WHERE small = 2;
DELETE FROM gate.kinds WHERE small = 2;
WITH kept AS (
    SELECT DISTINCT l.name, c.organization_id, k.key FROM usher.rule_checks AS c JOIN usher.rules AS l ON l.id = c.rule_id CROSS JOIN LATERAL (SELECT k::jsonb FROM string_to_table(c.keys, E'\n') AS k) AS k (key)),
each_way AS (
    SELECT c.n, c.name, w.way, count(k.key) AS keys, string_agg(k.organization_id || k.key::text, ', ' ORDER BY k.organization_id, k.key) AS text
      FROM gate.columns AS c CROSS JOIN gate.ways AS w LEFT JOIN kept AS k ON k.name = format('kinds_%s_%s', c.name, w.way) GROUP BY 1, 2, 3)
SELECT r.name, r.keys, r.text = s.text AS alike FROM each_way AS r JOIN each_way AS s ON s.n = r.n AND s.way = 'said' WHERE r.way = 'read' ORDER BY r.n;
SELECT usher.process_jobs() >= 0 AS processed;
-- One key, through the table and through a partition with another order of columns.
SELECT format('INSERT INTO gate.%s (part, bad, small, whole, big, id, name, yes, code, organization_id)
  SELECT 1 + %s %% 2, %L, -7, -70000, -7000000000, ''01234567-89ab-cdef-0123-456789abcdef'', ''a "b" \ é'', false, ''x'', id FROM usher.organizations WHERE slug = ''gate_other''',
  CASE WHEN c.n % 2 = 0 THEN 'kinds' ELSE 'kinds_2' END, c.n, c.name) FROM gate.columns AS c ORDER BY c.n \gexec
-- Two keys, of which one is bad; more than a few; one that is nobody's; one that is none.
UPDATE gate.kinds SET small = small + 20, bad = 'small' WHERE small = -2;
UPDATE gate.kinds SET bad = 'big' WHERE big > 0;
INSERT INTO gate.kinds (part, bad, name) VALUES (1, 'name', 'nobody''s');
INSERT INTO gate.kinds (part, bad, name) VALUES (1, 'small', 'no number');
SELECT count(*), count(bad) FROM gate.kinds;
SELECT count(usher.drop_rule(format('kinds_%s_%s', c.name, w.way))) AS dropped FROM gate.columns AS c CROSS JOIN gate.ways AS w;
SET client_min_messages = warning;
DROP SCHEMA gate CASCADE;
DELETE FROM usher.violations;
DROP ROLE regress_usher_gate;
