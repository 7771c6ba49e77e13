-- Values travel through a job as jsonb or text and arrive as they were.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ty CASCADE;
DROP ROLE IF EXISTS regress_usher_op;
RESET client_min_messages;
CREATE SCHEMA ty;
CREATE TYPE ty.mood AS ENUM ('sad', 'ok', 'so "so"');
CREATE TYPE ty.pair AS (a integer, b text);
CREATE DOMAIN ty.percent AS numeric(5,2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE TABLE ty.source (id integer PRIMARY KEY,
    big bigint, small smallint, num numeric, money_like numeric(20,4), real4 real, real8 double precision, yes boolean,
    txt text, vc varchar(20), ch char(5), nm name, u uuid,
    d date, tm time, tmz timetz, ts timestamp, tsz timestamptz, iv interval,
    js json, jb jsonb, by bytea, ip inet, ints integer[], texts text[], matrix integer[][],
    mood ty.mood, moods ty.mood[], pair ty.pair, pct ty.percent, during tstzrange, many int4multirange, bits bit varying(8), pt point, vec tsvector, x oid);
CREATE TABLE ty.target (LIKE ty.source INCLUDING ALL);
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
GRANT USAGE ON SCHEMA ty TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA ty TO regress_usher_op;
SET ROLE regress_usher_op;
-- Every column as it is.
SELECT usher.create_flow('copy', jsonb_build_object('when', '{"change": "ty.source"}'::jsonb, 'then', '{"upsert": "ty.target", "key": ["id"]}'::jsonb,
         'set', jsonb_object_agg(attname, 'new.' || quote_ident(attname)), 'retry', '{"delays": []}'::jsonb))
  FROM pg_attribute WHERE attrelid = 'ty.source'::regclass AND attnum > 0;
-- The writer's formats are none of the worker's business.
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'sql_standard';
SET TimeZone = 'Asia/Kathmandu';
SET extra_float_digits = -3;
SET bytea_output = 'escape';
INSERT INTO ty.source VALUES (1, 9223372036854775807, -32768, 12345678901234567890.123456789012345678901234567890, 1234567890123456.7890, 1.1e-7, 0.1::float8 + 0.2, true,
    E'line\nquote " backslash \\ tab\t \u00e9 \U0001F600', '', 'ab', 'name', '0193b0a0-7e6b-7000-8000-000000000001',
    '1582-10-04', '23:59:59.999999', '12:00:00+05:45', '2024-02-29 01:02:03.000004', '2024-03-31 02:30:00.123456+00', '1 year -2 mons 3 days -04:05:06.789',
    '{"b":1,  "a": [1,2], "b":2}', '{"a": null, "n": 12345678901234567890.1234567890, "s": "\""}', '\x00ff10', '10.1.2.3/8', '{1,NULL,3}', '{"a,b","c\"d",NULL,""}', '{{1,2},{3,4}}',
    'so "so"', '{ok,sad}', '(1,"a ""b"", c")', 12.5, '[2024-01-01 00:00+00,)', '{[1,3),[7,9)}', B'10101', '(1.5,-2)', 'a fat cat', 42);
INSERT INTO ty.source (id) VALUES (2);
INSERT INTO ty.source (id, num, real4, real8, d, ts, tsz, jb, js, during, ints, texts, txt, by)
    VALUES (3, 'NaN', 'Infinity', '-Infinity', 'infinity', '-infinity', 'infinity', 'null', 'null', 'empty', '{}', '{}', '', '');
INSERT INTO ty.source (id, num, js) VALUES (4, 1, NULL);
INSERT INTO ty.source (id, num, money_like, d, tsz, txt, jb) VALUES (5, 1e-300, 0.0000, '4713-01-01 BC', '0044-03-15 12:00:00+00 BC', 'null', '{"deep": [[[{"x": [1, 2.50, 1e2]}]]]}'),
    (6, 1.00, -0.1000, '5874897-12-31', '294276-12-31 23:59:59+00', '{}', '[]'), (7, 0, 0, NULL, NULL, E'\x01\x1f', '"text"'), (8, -0.0, 1, NULL, NULL, repeat('long ', 5000), 'true');
RESET DateStyle;
RESET IntervalStyle;
RESET TimeZone;
RESET extra_float_digits;
RESET bytea_output;
CALL public.drain();
SELECT payload->'new'->>'id' AS id, status, error_message FROM usher.sync_jobs WHERE flow = 'copy' ORDER BY (payload->'new'->>'id')::integer;
-- No column of any row differs, not even in its bytes: record_image comparison, then column by column if it does.
SELECT id, t.* IS NULL AS lost, s *= t AS identical FROM ty.source s LEFT JOIN ty.target t USING (id) ORDER BY id;
SELECT s.id, k.key AS differs, k.value AS source, to_jsonb(t)->k.key AS target
  FROM ty.source s JOIN ty.target t USING (id) CROSS JOIN LATERAL jsonb_each(to_jsonb(s)) AS k
 WHERE k.value IS DISTINCT FROM to_jsonb(t)->k.key ORDER BY 1, 2;
-- The same values once more are no write, whatever their type.
CREATE TEMPORARY TABLE before AS SELECT id, xmin::text AS version FROM ty.target;
DELETE FROM ty.source WHERE id <= 8;
INSERT INTO ty.source SELECT * FROM ty.target;
CALL public.drain();
SELECT count(*) FILTER (WHERE t.xmin::text <> b.version) AS rewritten FROM ty.target t JOIN before b USING (id);
DROP TABLE before;
SELECT usher.drop_flow('copy');

-- A type of an extension, where contrib is there: citext keeps its case and compares without it.
RESET ROLE;
SELECT count(*) > 0 AS citext FROM pg_available_extensions WHERE name = 'citext' \gset
\if :citext
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS citext SCHEMA ty;
RESET client_min_messages;
CREATE TABLE ty.c1 (id integer PRIMARY KEY, name ty.citext);
CREATE TABLE ty.c2 (name ty.citext PRIMARY KEY, id integer);
GRANT ALL ON ty.c1, ty.c2 TO regress_usher_op;
SET ROLE regress_usher_op;
SELECT usher.create_flow('citext', '{"when": {"change": "ty.c1"}, "then": {"upsert": "ty.c2", "key": ["name"]}, "set": {"name": "new.name", "id": "new.id"}}') IS NOT NULL AS "case" \gset
INSERT INTO ty.c1 VALUES (1, 'Ann'), (2, 'ANN'), (3, 'bob');
CALL public.drain() \gset
SELECT array_agg((name::text, id)::text ORDER BY id) = '{"(Ann,2)","(bob,3)"}' AS "case" FROM ty.c2 \gset
SELECT usher.drop_flow('citext') AS dropped \gset
RESET ROLE;
\else
\set case t
\endif
\echo :case

SET client_min_messages = warning;
DROP SCHEMA ty CASCADE;
DROP ROLE regress_usher_op;
