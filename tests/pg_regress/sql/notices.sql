-- Failures that reach a person: many of a flow in one organization make one notice.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS nt CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_admin, regress_usher_member, regress_usher_legend, regress_usher_other, regress_usher_reader, regress_usher_nt;
CREATE SCHEMA nt;
CREATE TABLE nt.a (organization_id uuid, id integer, v text, PRIMARY KEY (organization_id, id));
CREATE TABLE nt.b (organization_id uuid, id integer, v integer, PRIMARY KEY (organization_id, id));
CREATE ROLE regress_usher_nt NOLOGIN;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_legend NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_other NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
GRANT USAGE ON SCHEMA nt TO regress_usher_nt;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA nt TO regress_usher_nt;
DELETE FROM usher.notices;
DELETE FROM usher.failure_streaks;
SELECT usher.create_organization('nt-acme') AS acme \gset
SELECT usher.create_organization('nt-beta') AS beta \gset
SELECT usher.grant_membership('nt-acme', 'role:regress_usher_admin', 'admin'), usher.grant_membership('nt-acme', 'role:regress_usher_member'),
       usher.grant_membership('nt-beta', 'role:regress_usher_other', 'admin'), usher.grant_membership('nt-beta', 'role:regress_usher_legend', 'legend') \gset
SHOW usher.notice_failures;
SHOW usher.notice_window;
SELECT usher.create_flow('nt_copy', '{"run_as": "regress_usher_nt", "when": {"change": "nt.a"}, "then": {"upsert": "nt.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v::integer"}, "retry": {"delays": []}}');
CREATE VIEW nt.notices AS
    SELECT o.slug AS organization, n.kind, n.severity, n.flow, n.subject, regexp_replace(n.body::text, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS body, n.failures,
           n.first_at <= n.last_at AS in_order, n.read_at IS NOT NULL AS read, n.read_by
      FROM usher.notices n LEFT JOIN usher.organizations o ON o.id = n.organization_id ORDER BY n.first_at, o.slug;
CREATE VIEW nt.streaks AS
    SELECT o.slug AS organization, cardinality(s.recent) AS recent, s.failures, s.notice_id IS NOT NULL AS notice FROM usher.failure_streaks s
      LEFT JOIN usher.organizations o ON o.id = s.organization_id ORDER BY 1;

-- What goes well is not counted, and four failures are no notice.
INSERT INTO nt.a SELECT :'acme', n, n FROM generate_series(1, 50) AS n;
INSERT INTO nt.a SELECT :'acme', 100 + n, 'x' FROM generate_series(1, 3) AS n;
CALL public.drain() \gset
INSERT INTO nt.a VALUES (:'acme', 104, 'x'), (:'beta', 1, 'x');
CALL public.drain() \gset
SELECT * FROM nt.notices;
SELECT * FROM nt.streaks;
-- The fifth is one; what follows only counts.
INSERT INTO nt.a VALUES (:'acme', 105, 'five');
CALL public.drain() \gset
SELECT * FROM nt.notices;
SELECT id AS first FROM usher.notices \gset
INSERT INTO nt.a SELECT :'acme', 200 + n, 'more' FROM generate_series(1, 20) AS n;
CALL public.drain() \gset
SELECT * FROM nt.notices;
-- Several organizations in one batch, each its own. Many at once are one notice at once.
INSERT INTO nt.a SELECT o.id, 300 + n, 'many' FROM (VALUES (:'acme'::uuid), (:'beta')) AS o (id), generate_series(1, 10) AS n;
CALL public.drain() \gset
SELECT * FROM nt.notices;
SELECT * FROM nt.streaks;

-- A batch that is undone has counted nothing.
BEGIN;
INSERT INTO nt.a VALUES (:'acme', 400, 'x');
SELECT usher.process_jobs();
SELECT failures FROM nt.notices WHERE organization = 'nt-acme';
ROLLBACK;
SELECT failures FROM nt.notices WHERE organization = 'nt-acme';

-- Who sees them: admins their own, operators and readers all, members none.
SET ROLE regress_usher_admin;
SELECT o.slug, n.failures FROM usher.notices n JOIN usher.organizations o ON o.id = n.organization_id;
SELECT item, value, regexp_replace(note, '^since .* (organization .* notice ).{36}', '\1ID') AS note FROM usher.status() WHERE section = 'notice';
SET ROLE regress_usher_member;
SELECT count(*) FROM usher.notices;
SELECT count(*) FROM usher.status() WHERE section = 'notice';
SELECT count(*) FROM usher.failure_streaks;
SET ROLE regress_usher_legend;
SELECT count(*) FROM usher.notices;
SET ROLE regress_usher_reader;
SELECT count(*) FROM usher.notices;
SELECT count(*) FROM usher.status() WHERE section = 'notice';
-- Nobody writes them by hand.
SET ROLE regress_usher_admin;
UPDATE usher.notices SET read_at = now(), read_by = 'me';
\echo :LAST_ERROR_SQLSTATE

-- Reading: not somebody else's, and one is told the same of what does not exist.
SET ROLE regress_usher_member;
SELECT regexp_replace(public.try(format('SELECT usher.read_notice(%L)', :'first')), '[0-9a-f-]{36}', 'ID');
SET ROLE regress_usher_other;
SELECT regexp_replace(public.try(format('SELECT usher.read_notice(%L)', :'first')), '[0-9a-f-]{36}', 'ID');
SELECT regexp_replace(public.try($$SELECT usher.read_notice('00000000-0000-7000-8000-000000000001')$$), '[0-9a-f-]{36}', 'ID');
SELECT public.try('SELECT usher.read_notice(NULL)');
SET ROLE regress_usher_admin;
SELECT usher.read_notice(:'first');
SELECT usher.read_notice(:'first') AS again;
SET ROLE regress_usher_op;
SELECT usher.read_notice(id) FROM usher.notices WHERE read_at IS NULL;
RESET ROLE;
SELECT organization, failures, read, read_by FROM nt.notices;
SELECT count(*) FROM usher.status() WHERE section = 'notice';

-- Once read, counting begins anew.
INSERT INTO nt.a SELECT :'acme', 500 + n, 'x' FROM generate_series(1, 4) AS n;
CALL public.drain() \gset
SELECT organization, failures, read FROM nt.notices;
SELECT * FROM nt.streaks;
INSERT INTO nt.a VALUES (:'acme', 505, 'x');
CALL public.drain() \gset
SELECT organization, failures, read FROM nt.notices;

-- Once the window has passed without failures, too: the old notice stays as it is.
UPDATE usher.failure_streaks SET last_at = last_at - interval '11 min', recent = array_fill(last_at - interval '11 min', ARRAY[5]);
INSERT INTO nt.a SELECT :'acme', 600 + n, 'x' FROM generate_series(1, 4) AS n;
CALL public.drain() \gset
SELECT organization, failures, read FROM nt.notices;
SELECT * FROM nt.streaks;
-- Failures that come slowly, never five of them within the window, make none: here the fourth last was longer ago.
UPDATE usher.failure_streaks SET recent[1] = recent[1] - interval '601 s', last_at = last_at - interval '599 s' WHERE organization_id = :'acme';
INSERT INTO nt.a VALUES (:'acme', 605, 'x');
CALL public.drain() \gset
SELECT organization, failures, read FROM nt.notices;
SELECT * FROM nt.streaks;
INSERT INTO nt.a VALUES (:'acme', 606, 'x');
CALL public.drain() \gset
SELECT organization, failures, read FROM nt.notices;

-- Each try counts, not each job.
SELECT usher.alter_flow('nt_copy', (SELECT definition || '{"retry": {"delays": [0, 0, 0, 0], "jitter": 0}}' FROM usher.flows WHERE name = 'nt_copy'));
DELETE FROM usher.failure_streaks;
DELETE FROM usher.notices;
INSERT INTO nt.a VALUES (:'beta', 700, 'x');
CALL public.drain() \gset
SELECT organization, failures FROM nt.notices;
-- Jobs that die without a try count as well: of an organization that does not exist they are the installation's.
INSERT INTO nt.a SELECT '00000000-0000-7000-8000-0000000000ff', n, '1' FROM generate_series(1, 6) AS n;
CALL public.drain() \gset
SELECT organization, failures, left(body, 60) AS body FROM nt.notices;

-- A flow that becomes broken: one notice for those who run the installation, however often it is found.
DELETE FROM usher.notices;
ALTER TABLE nt.b RENAME COLUMN v TO w;
INSERT INTO nt.a VALUES (:'acme', 800, '1');
SET client_min_messages = error;
CALL public.drain() \gset
UPDATE usher.flows SET state = 'ok', reason = NULL WHERE name = 'nt_copy';
INSERT INTO nt.a VALUES (:'acme', 801, '1');
CALL public.drain() \gset
RESET client_min_messages;
SELECT * FROM nt.notices;
SET ROLE regress_usher_legend;
SELECT count(*) FROM usher.notices;
SELECT regexp_replace(public.try(format('SELECT usher.read_notice(%L)', '00000000-0000-7000-8000-000000000001')), '[0-9a-f-]{36}', 'ID');
SET ROLE regress_usher_reader;
SELECT subject FROM usher.notices;
SET ROLE regress_usher_op;
SELECT item, value, regexp_replace(note, '^since .* (notice ).{36}', '\1ID') AS note FROM usher.status() WHERE section = 'notice';
SELECT usher.read_notice(id) FROM usher.notices;
RESET ROLE;
UPDATE usher.flows SET state = 'ok', reason = NULL WHERE name = 'nt_copy';
UPDATE usher.flows SET state = 'broken', reason = 'tried by hand' WHERE name = 'nt_copy';
SELECT kind, failures, read, body FROM nt.notices;

-- With tables of an older version nothing runs until setup() has made them fit, and nobody is counted.
ALTER TABLE nt.b RENAME COLUMN w TO v;
SELECT usher.alter_flow('nt_copy', definition) FROM usher.flows WHERE name = 'nt_copy';
CALL public.drain() \gset
DELETE FROM usher.notices;
DELETE FROM usher.failure_streaks;
UPDATE usher.installation SET schema_level = schema_level - 1;
\c -
INSERT INTO nt.a SELECT id, 900, 'x' FROM usher.organizations WHERE slug = 'nt-acme';
CALL public.drain() \gset
SELECT count(*) > 0 AS dead FROM usher.dead_letters;
SELECT (SELECT count(*) FROM usher.notices) AS notices, (SELECT count(*) FROM usher.failure_streaks) AS streaks;
SELECT count(*) FROM usher.status() WHERE section = 'notice';
SELECT public.try($$SELECT usher.read_notice('00000000-0000-7000-8000-000000000001')$$);
UPDATE usher.installation SET schema_level = schema_level + 1;
\c -

SELECT usher.drop_flow('nt_copy');
CALL public.drain() \gset
DELETE FROM usher.dead_letters;
DELETE FROM usher.notices;
DELETE FROM usher.failure_streaks;
DELETE FROM usher.organizations WHERE slug LIKE 'nt-%';
SET client_min_messages = warning;
DROP SCHEMA nt CASCADE;
DROP ROLE regress_usher_op, regress_usher_admin, regress_usher_member, regress_usher_legend, regress_usher_other, regress_usher_reader, regress_usher_nt;
