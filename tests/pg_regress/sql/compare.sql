-- Comparisons: what an operator is told of two tables and of a flow's pair, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS cm CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_member, regress_usher_flow;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_flow NOLOGIN;
CREATE SCHEMA cm;
GRANT USAGE ON SCHEMA cm TO regress_usher_op, regress_usher_flow;
CREATE TABLE cm.l (id integer PRIMARY KEY, name text, price numeric, tags text[], note json, ours text);
CREATE TABLE cm.r (id bigint PRIMARY KEY, name varchar(20), price numeric(10,2), tags text[], note json, theirs text);
GRANT SELECT ON cm.l, cm.r TO regress_usher_op;
INSERT INTO cm.l SELECT g, 'row ' || g, g, ARRAY['a', NULL], '{"a": 1}' FROM generate_series(1, 1000) AS g;
INSERT INTO cm.r SELECT id, name, price, tags, note FROM cm.l;
RESET client_min_messages;

-- 1 and 1.00 are equal. Columns that only one side has are said.
SELECT * FROM usher.compare_tables('cm.l', 'cm.r');
UPDATE cm.r SET price = -price WHERE id = 7;
UPDATE cm.r SET name = NULL, tags = '{a}' WHERE id = 8;
UPDATE cm.r SET note = '{"a":1}' WHERE id = 9;
DELETE FROM cm.r WHERE id = 10;
INSERT INTO cm.r (id, name) VALUES (4294967306, 'beyond');
SET ROLE regress_usher_op;
SELECT * FROM usher.compare_tables('cm.l', 'cm.r');
-- Some columns, some rows, and columns of other names.
SELECT key, columns FROM usher.compare_tables('cm.l', 'cm.r', columns => '["price"]', "where" => 'id < 100');
SELECT key, finding, left_row, right_row FROM usher.compare_tables('cm.l', 'cm.r', columns => '{"name": "theirs"}', "where" => 'id IN (8, 10)');
SELECT key, finding FROM usher.compare_tables('cm.l', 'cm.r', columns => '[]');
RESET ROLE;

-- Partitions, views, materialized views, tables that inherit, generated columns, other names of the key.
CREATE TABLE cm.parts (id integer, region text, name text, shout text GENERATED ALWAYS AS (upper(name)) STORED, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE cm.parts_n PARTITION OF cm.parts FOR VALUES IN ('n');
CREATE TABLE cm.parts_s PARTITION OF cm.parts FOR VALUES IN ('s');
INSERT INTO cm.parts SELECT g, CASE WHEN g % 2 = 0 THEN 'n' ELSE 's' END, 'row ' || g FROM generate_series(1, 50) AS g;
CREATE TABLE cm.whole (number integer NOT NULL, area text NOT NULL, name text, shout text, UNIQUE (area, number));
INSERT INTO cm.whole SELECT id, region, name, shout FROM cm.parts WHERE id <> 3;
UPDATE cm.whole SET shout = 'row 4' WHERE number = 4;
SELECT key, finding, columns, left_row, right_row FROM usher.compare_tables('cm.parts', 'cm.whole', columns => '{"id": "number", "region": "area", "name": "name", "shout": "shout"}');
CREATE VIEW cm.seen AS SELECT id, name FROM cm.l WHERE id <> 5;
CREATE MATERIALIZED VIEW cm.kept AS SELECT id, name FROM cm.l;
SELECT key, finding FROM usher.compare_tables('cm.seen', 'cm.kept', key => ARRAY['id']);
CREATE TABLE cm.parent (id integer PRIMARY KEY, name text);
CREATE TABLE cm.child () INHERITS (cm.parent);
INSERT INTO cm.parent VALUES (1, 'row 1');
INSERT INTO cm.child VALUES (2, 'row 2');
SELECT count(*) FROM usher.compare_tables('cm.parent', 'cm.l', columns => '["name"]', "where" => 'id < 3');

-- What is refused.
CREATE TABLE cm.none (id integer, name text);
CREATE TABLE cm.loose (id integer NOT NULL, name text, moment timestamptz);
CREATE TABLE cm.uuids (id uuid PRIMARY KEY, name text);
CREATE TABLE cm.other (id integer PRIMARY KEY, name integer, at uuid, note text);
CREATE UNIQUE INDEX ON cm.loose (id) WHERE id > 0;
CREATE UNIQUE INDEX ON cm.none (id);
CREATE VIEW cm.twice AS SELECT id % 10 AS id, name FROM cm.l;
CREATE VIEW cm.nobody AS SELECT NULLIF(id, 3) AS id, name FROM cm.l;
CREATE SEQUENCE cm.numbers;
SET client_min_messages = warning;
SELECT c AS call, t FROM unnest(ARRAY[
    'NULL, ''cm.r''', '''cm.l'', NULL', '''cm.gone'', ''cm.r''', '0, ''cm.r''', '''cm.numbers'', ''cm.r''',
    '''cm.none'', ''cm.r''', '''cm.none'', ''cm.l'', key => ''{id}''', '''cm.l'', ''cm.loose''', '''cm.l'', ''cm.r'', key => ''{name}''', '''cm.l'', ''cm.r'', key => ''{}''', '''cm.l'', ''cm.r'', key => ''{idd}''',
    '''cm.l'', ''cm.uuids''', '''cm.l'', ''cm.other''', '''cm.l'', ''cm.other'', columns => ''{"note": "note"}''', '''cm.l'', ''cm.r'', columns => ''["prise"]''', '''cm.l'', ''cm.r'', columns => ''{"name": "nam"}''',
    '''cm.l'', ''cm.r'', columns => ''"name"''', '''cm.l'', ''cm.r'', columns => ''["name", "name"]''', '''cm.l'', ''cm.r'', columns => ''{"name": 1}''',
    '''cm.l'', ''cm.r'', "where" => ''id =''', '''cm.l'', ''cm.r'', "where" => ''id < 3) OR (true''', '''cm.l'', ''cm.r'', "where" => ''ours = 1''', '''cm.l'', ''cm.r'', "where" => ''ours IS NULL''', '''cm.l'', ''cm.r'', "where" => ''id''',
    '''cm.l'', ''cm.r'', organization => ''default''', '''cm.l'', ''cm.r'', organization => ''nowhere''',
    '''cm.twice'', ''cm.l'', key => ''{id}''', '''cm.nobody'', ''cm.l'', key => ''{id}''', '''cm.seen'', ''cm.l''']) AS c
 CROSS JOIN LATERAL public.try('SELECT * FROM usher.compare_tables(' || c || ')') AS t;
RESET client_min_messages;
-- A view whose rows are the same on both sides, twice, is no difference.
SELECT count(*) FROM usher.compare_tables('cm.twice', 'cm.twice', key => '{id}');

-- Who may, and what policies hide.
SET ROLE regress_usher_member;
SELECT public.try($$SELECT * FROM usher.compare_tables(NULL, NULL)$$);
SELECT public.try($$SELECT * FROM usher.compare_pair('cm')$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION public.try TO regress_usher_op;
SET ROLE regress_usher_op;
SELECT public.try($$SELECT * FROM usher.compare_tables('cm.seen', 'cm.l', key => '{id}')$$);
RESET ROLE;
ALTER TABLE cm.r ENABLE ROW LEVEL SECURITY;
CREATE VIEW cm.invoker WITH (security_invoker = true) AS SELECT * FROM cm.r;
GRANT SELECT ON cm.invoker TO regress_usher_op;
SET ROLE regress_usher_op;
SELECT public.try($$SELECT * FROM usher.compare_tables('cm.l', 'cm.r')$$);
SELECT public.try($$SELECT * FROM usher.compare_tables('cm.l', 'cm.invoker')$$);
RESET ROLE;
SELECT count(*) FROM usher.compare_tables('cm.l', 'cm.r');

-- Organizations.
SELECT usher.create_organization('cm-north') AS north \gset
SELECT usher.create_organization('cm-south') AS south \gset
CREATE TABLE cm.deals (organization_id uuid NOT NULL, id integer NOT NULL, title text, total numeric, stage text, PRIMARY KEY (organization_id, id));
CREATE TABLE cm.invoices (organization_id uuid NOT NULL, deal_id text NOT NULL, title text, cents bigint, remark text, UNIQUE (organization_id, deal_id));
GRANT SELECT, INSERT, UPDATE, DELETE ON cm.deals, cm.invoices TO regress_usher_flow;
INSERT INTO cm.deals SELECT o, g, 'Deal ' || g, g, CASE WHEN g % 5 = 0 THEN 'lost' ELSE 'won' END FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(1, 20) AS g;
SET client_min_messages = warning;
SELECT usher.create_flow('cm', '{"from": "a", "to": "b", "run_as": "regress_usher_flow", "when": {"change": "cm.deals"}, "if": "new.stage = ''won'' AND old.stage IS DISTINCT FROM ''won''",
    "then": {"upsert": "cm.invoices", "key": ["deal_id"]}, "set": {"deal_id": "new.id", "title": "upper(new.title)", "cents": "new.total * 100"}, "set_once": {"remark": "''made''"}}') IS NOT NULL AS made;
RESET client_min_messages;
INSERT INTO cm.invoices SELECT organization_id, id, upper(title), total * 100, 'made' FROM cm.deals WHERE stage = 'won';
SELECT count(*) FROM usher.compare_pair('cm');
UPDATE cm.invoices SET cents = 0, remark = 'changed' WHERE deal_id = '3' AND organization_id = :'north';
DELETE FROM cm.invoices WHERE deal_id = '4' AND organization_id = :'south';
INSERT INTO cm.invoices VALUES (:'south', 'x', 'By hand', 1, NULL);
SELECT o.slug, c.key ->> 'deal_id' AS deal, c.finding, c.columns, c.left_row - 'organization_id' AS left_row, c.right_row - 'organization_id' AS right_row
  FROM usher.compare_pair('cm') AS c JOIN usher.organizations AS o ON o.id = (c.key ->> 'organization_id')::uuid ORDER BY 1, 2;
SELECT key ->> 'deal_id' AS deal, finding FROM usher.compare_pair('cm', 'cm-north');
SELECT count(*) FROM usher.compare_tables('cm.deals', 'cm.deals', organization => 'cm-south');
SELECT usher.create_flow('cm_call', '{"from": "a", "to": "b", "run_as": "regress_usher_flow", "when": {"request": "x"}, "then": {"call": "pg_catalog.now"}}') IS NOT NULL AS made;
SELECT c AS call, t FROM unnest(ARRAY['NULL', '''nobody''', '''cm_call''', '''cm'', ''nowhere''']) AS c CROSS JOIN LATERAL public.try('SELECT * FROM usher.compare_pair(' || c || ')') AS t;

SET client_min_messages = warning;
SELECT usher.drop_flow('cm'), usher.drop_flow('cm_call');
DROP SCHEMA cm CASCADE;
REVOKE EXECUTE ON FUNCTION public.try FROM regress_usher_op;
DROP ROLE regress_usher_op, regress_usher_member, regress_usher_flow;
