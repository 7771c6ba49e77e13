-- Rules: what is refused when one is made, what is found, the life of a violation, two organizations, and who may see and decide.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ru CASCADE;
DROP ROLE IF EXISTS regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op, regress_usher_runs, regress_usher_blind;
CREATE SCHEMA ru;
CREATE TYPE ru.mood AS ENUM ('fine', 'sad');
CREATE TABLE ru.orders (organization_id uuid NOT NULL, id bigint NOT NULL, status text NOT NULL DEFAULT 'new', total numeric, shape point, mood ru.mood, at timestamptz, PRIMARY KEY (organization_id, id));
CREATE TABLE ru.invoices (organization_id uuid NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY, order_id bigint NOT NULL, PRIMARY KEY (organization_id, id), UNIQUE (organization_id, order_id));
CREATE TABLE ru.things (id integer PRIMARY KEY, fine boolean NOT NULL DEFAULT true);
CREATE VIEW ru.open_orders AS SELECT * FROM ru.orders WHERE status = 'new';
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_runs NOLOGIN;
CREATE ROLE regress_usher_blind NOLOGIN;
GRANT USAGE ON SCHEMA ru TO regress_usher_op, regress_usher_runs, regress_usher_blind;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA ru TO regress_usher_runs;
GRANT SELECT ON ru.orders TO regress_usher_blind;
SELECT usher.create_organization('ru-north') AS north \gset
SELECT usher.create_organization('ru-south') AS south \gset
RESET client_min_messages;
SELECT usher.grant_membership('ru-north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('ru-north', 'role:regress_usher_member');
-- The definition of all that follows, with changes.
CREATE FUNCTION ru.rule(changes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('query', 'SELECT o.organization_id, o.id AS order_id, o.total FROM ru.orders AS o
        WHERE o.status = ''paid'' AND NOT EXISTS (SELECT FROM ru.invoices AS i WHERE i.organization_id = o.organization_id AND i.order_id = o.id);',
        'key', '["order_id"]'::jsonb, 'wrong', '''order '' || order_id || '' has no invoice''', 'severity', 'critical', 'every', 'never', 'run_as', 'regress_usher_runs',
        'touches', '{"ru.orders": {"order_id": "row.id"}, "ru.invoices": {"order_id": "row.order_id"}}'::jsonb) || changes) $$;
CREATE VIEW ru.violations AS SELECT o.slug, v.key, v.status, v.severity, v.wrong, v.seen, v.times, v.ended_at IS NOT NULL AS ended, v.escalate_at - v.opened_at AS escalates, v.waived_by, v.waived_because AS because
  FROM usher.violations v JOIN usher.organizations o ON o.id = v.organization_id WHERE v.rule LIKE 'ru%' ORDER BY o.slug, v.rule, v.key;
CREATE VIEW ru.events AS SELECT o.slug, e.type, e.data - 'id' - 'first_seen_at' AS data FROM usher.events e JOIN usher.organizations o ON o.id = e.organization_id WHERE e.data ->> 'rule' LIKE 'ru%' ORDER BY e.emitted_at, o.slug, e.data ->> 'wrong';

-- What cannot work is refused with the rule, the key and the remedy: by its form, ...
SELECT c AS changes, t.* FROM unnest(ARRAY['{"quer": "x"}', '{"query": null}', '{"query": " ; "}', '{"key": null}', '{"key": []}', '{"key": ["order_id", "order_id"]}', '{"wrong": null}',
        '{"severity": "criticl"}', '{"run": ["transactio"]}', '{"run": ["after_sync"], "touches": null}', '{"touches": {}}', '{"touches": {"ru.orders": {}}}',
        '{"run": ["transaction"], "grace": "5s"}', '{"run": ["transaction"], "tolerance": 1}', '{"every": "soon"}', '{"every": "10ms"}', '{"grace": "-1s"}', '{"tolerance": "0.1%"}',
        '{"repair": {"statment": "x"}}', '{"repair": {"auto": true}}', '{"repair": {"statement": "x", "call": "y"}}', '{"repair": {"call": "x.y", "most": 0}}',
        '{"escalate": {"emit": "a.b"}}', '{"escalate": {"after": "5m"}}', '{"escalate": {"after": "5m", "emit": "usher.x"}}', '{"escalate": {"after": "5m", "emit": "No Type"}}']) AS c
 CROSS JOIN LATERAL public.try(format('SELECT usher.create_rule(''ru'', ru.rule(%L))', c)) AS t;
-- ... or by the database.
SELECT c AS changes, t.* FROM unnest(ARRAY['{"query": "SELECT id FROM ru.ordrs"}', '{"query": "SELECT idd AS order_id FROM ru.orders"}', '{"query": "SELECT id FROM orders"}', '{"query": "SELECT FROM WHERE"}',
        '{"query": "DELETE FROM ru.orders RETURNING id"}', '{"query": "SELECT id FROM ru.orders; DROP TABLE ru.orders"}', '{"query": "SELECT 1) AS q; DROP TABLE ru.orders; SELECT (1"}', '{"query": "SELECT id FROM ru.orders FOR UPDATE"}',
        '{"query": "WITH d AS (DELETE FROM ru.orders RETURNING id) SELECT id FROM d"}', '{"query": "SELECT id, id FROM ru.orders"}', '{"query": "SELECT 1 AS order_id"}',
        '{"query": "SELECT id AS order_id FROM ru.open_orders"}', '{"query": "SELECT id AS order_id FROM usher.rules"}', '{"key": ["ordr_id"]}', '{"query": "SELECT shape AS order_id FROM ru.orders"}',
        '{"organization": "order_id"}', '{"organization": "tenant"}', '{"wrong": "total"}', '{"wrong": "''x'' || totl"}', '{"wrong": "''x'', ''y''"}', '{"wrong": "(SELECT ''x'')"}',
        '{"touches": {"ru.ordrs": {"order_id": "row.id"}}}', '{"touches": {"ru.open_orders": {"order_id": "row.id"}}}', '{"touches": {"ru.orders": {"id": "row.id"}}}', '{"touches": {"ru.orders": {"order_id": "row.idd"}}}',
        '{"touches": {"ru.orders": {"order_id": "row.total"}}}', '{"touches": {"ru.orders": {"order_id": "(SELECT 1)"}}}',
        '{"run_as": "nobody_there"}', '{"run_as": "regress_usher_blind"}']) AS c
 CROSS JOIN LATERAL public.try(format('SELECT usher.create_rule(''ru'', ru.rule(%L))', c)) AS t;
SELECT t.* FROM unnest(ARRAY['Bad Name', 'a.b.c', '', NULL]) AS n CROSS JOIN LATERAL public.try(format('SELECT usher.create_rule(%L, ru.rule())', n)) AS t;
-- Of a table whose policies hide rows from the rule's role nothing would be found; a policy that shows all of them will do.
ALTER TABLE ru.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY rich ON ru.orders FOR SELECT TO regress_usher_runs USING (total > 0);
SELECT public.try('SELECT usher.create_rule(''ru'', ru.rule())');
CREATE POLICY whole ON ru.orders FOR SELECT TO regress_usher_runs USING (true);
SELECT usher.create_rule('ru', ru.rule());
SELECT public.try('SELECT usher.create_rule(''ru'', ru.rule())');
-- A right that is taken is noticed by the next look.
REVOKE SELECT ON ru.invoices FROM regress_usher_runs;
SELECT public.try('SELECT * FROM usher.check_rule(''ru'')');
GRANT SELECT ON ru.invoices TO regress_usher_runs;
SET ROLE regress_usher_member;
SELECT t.* FROM unnest(ARRAY['create_rule(''x'', ''{}''::jsonb)', 'alter_rule(''ru'', ''{}'')', 'drop_rule(''ru'')', 'enable_rule(''ru'')', 'disable_rule(''ru'')', 'explain_rule(''ru'')', 'check_rule(''ru'')',
        'check_rule(''ru'', ''ru-north'')', 'check_rules()', 'check_rules(''ru-south'')']) AS f CROSS JOIN LATERAL public.try('SELECT usher.' || f) AS t;
SET ROLE regress_usher_op;
SELECT public.try('SELECT usher.create_rule(''x'', ru.rule())');
SELECT public.try('SELECT usher.create_rule(''x'', ru.rule(''{"run_as": null}''))');
RESET ROLE;

-- Found on demand; the same number of two organizations is two violations.
INSERT INTO ru.orders (organization_id, id, status, total) SELECT o, n, CASE WHEN n % 3 = 0 THEN 'paid' ELSE 'new' END, n FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(1, 9) AS n;
INSERT INTO ru.invoices (organization_id, order_id) SELECT o, n FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, unnest(ARRAY[3, 6]) AS n;
SELECT * FROM usher.check_rule('ru');
SELECT * FROM ru.violations;
SELECT v.id ~ '^[0-9a-f]{8}-' AND v.opened_at >= v.first_seen_at AS whole, v."row" - 'organization_id' AS "row" FROM (SELECT id::text, first_seen_at, opened_at, "row" FROM usher.violations WHERE rule = 'ru') AS v;
SELECT id AS one FROM usher.violations WHERE rule = 'ru' AND organization_id = :'north' \gset
SELECT id AS other FROM usher.violations WHERE rule = 'ru' AND organization_id = :'south' \gset
-- An admin has one organization looked at. What is not bad any more is gone; what comes back is the same violation.
INSERT INTO ru.invoices (organization_id, order_id) VALUES (:'north', 9), (:'south', 9);
SET ROLE regress_usher_admin;
SELECT * FROM usher.check_rule('ru', 'ru-north');
SELECT rule, key, status, wrong FROM usher.violations;
RESET ROLE;
DELETE FROM ru.invoices WHERE order_id = 9;
SELECT * FROM usher.check_rules();
SELECT * FROM ru.violations;
-- Waived for as long as it is bad: by an admin of its organization, with a reason.
SET ROLE regress_usher_member;
SELECT status, wrong FROM usher.violations;
SELECT replace(t, :'one', 'ONE') FROM public.try(format('SELECT usher.waive_violation(%L, ''so be it'')', :'one')) AS t;
SET ROLE regress_usher_stranger;
SELECT count(*) FROM usher.violations;
SELECT replace(t, :'one', 'ONE') FROM public.try(format('SELECT usher.waive_violation(%L, ''so be it'')', :'one')) AS t;
SET ROLE regress_usher_admin;
SELECT t.* FROM unnest(ARRAY['NULL, ''x''', format('%L, NULL', :'one'), format('%L, '' ''', :'one')]) AS a CROSS JOIN LATERAL public.try('SELECT usher.waive_violation(' || a || ')') AS t;
SELECT replace(t, :'other', 'OTHER') FROM public.try(format('SELECT usher.waive_violation(%L, ''so be it'')', :'other')) AS t;
SELECT replace(t, :'one', 'ONE') FROM public.try(format('SELECT usher.reopen_violation(%L)', :'one')) AS t;
SELECT usher.waive_violation(:'one', 'paid in cash');
SELECT replace(t, :'one', 'ONE') FROM public.try(format('SELECT usher.waive_violation(%L, ''again'')', :'one')) AS t;
RESET ROLE;
SELECT * FROM usher.check_rule('ru');
SELECT * FROM ru.violations;
SELECT action, object = :'one' AS one, actor, new FROM usher.audit_log WHERE action LIKE 'usher.violations.%' ORDER BY recorded_at;
-- It ends, and comes back: open again.
INSERT INTO ru.invoices (organization_id, order_id) VALUES (:'north', 9);
SELECT * FROM usher.check_rule('ru');
DELETE FROM ru.invoices WHERE organization_id = :'north' AND order_id = 9;
SELECT * FROM usher.check_rule('ru');
SELECT * FROM ru.violations;
SET ROLE regress_usher_admin;
SELECT usher.waive_violation(:'one', 'paid in cash'), usher.reopen_violation(:'one');
RESET ROLE;
SELECT slug, status, waived_by, because FROM ru.violations;
SELECT * FROM ru.events;

-- With a time of grace it is pending first, and looked at again when that is over.
SELECT usher.create_rule('ru_grace', ru.rule('{"grace": "50ms", "severity": "info", "escalate": {"after": "5m", "notify": "orders wait for their invoice"}}'));
SELECT * FROM usher.check_rule('ru_grace', 'ru-north');
SELECT slug, key, status, severity, seen, escalates FROM ru.violations WHERE severity = 'info';
SELECT pg_sleep(0.1) AS done \gset
SELECT usher.process_jobs() AS done \gset
SELECT slug, key, status, severity, seen, escalates FROM ru.violations WHERE severity = 'info';
-- So many are none.
SELECT usher.create_rule('ru_few', '{"query": "SELECT id AS thing FROM ru.things WHERE NOT fine", "key": "thing", "wrong": "''thing '' || thing || '' is not fine''", "tolerance": 2, "every": "never", "run_as": "regress_usher_runs"}');
INSERT INTO ru.things VALUES (1, false), (2, false), (3, true);
SELECT * FROM usher.check_rule('ru_few');
SELECT slug, key, status, severity FROM ru.violations WHERE key ? 'thing';
UPDATE ru.things SET fine = false;
SELECT * FROM usher.check_rule('ru_few');
SELECT slug, key, status, severity FROM ru.violations WHERE key ? 'thing';
UPDATE ru.things SET fine = true WHERE id = 1;
SELECT * FROM usher.check_rule('ru_few');
SELECT slug, key, status, severity FROM ru.violations WHERE key ? 'thing';

-- What a rule does.
SELECT regexp_replace(usher.explain_rule('ru'), '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID', 'g');
SELECT public.try('SELECT usher.explain_rule(''rv'')');
GRANT UPDATE ON ru.things TO regress_usher_runs;
SELECT usher.alter_rule('ru_few', '{"query": "SELECT id AS thing FROM ru.things WHERE NOT fine", "key": "thing", "wrong": "''thing '' || thing || '' is not fine''", "run_as": "regress_usher_runs", "description": "Things are fine.",
    "grace": "5s", "escalate": {"after": "1 h", "emit": "things.sad"}, "repair": {"statement": "UPDATE ru.things SET fine = true FROM bad WHERE bad.thing = things.id", "auto": true}}');
SELECT split_part(usher.explain_rule('ru_few'), '  a part', 1);
SELECT class::regclass, object::regclass, watched FROM usher.rule_dependencies d JOIN usher.rules l ON l.id = d.rule_id WHERE l.name = 'ru' ORDER BY 2;

-- A schema change that a rule does not survive is told; the rule goes on when it fits again.
ALTER TABLE ru.orders RENAME COLUMN status TO state;
SELECT name, state, reason FROM usher.rules WHERE name LIKE 'ru%' ORDER BY name;
SELECT public.try('SELECT * FROM usher.check_rule(''ru'')');
SELECT rule, new, still, gone, error FROM usher.check_rules() WHERE rule LIKE 'ru%' ORDER BY rule;
SELECT check_name, state, finding FROM usher.doctor() AS d (check_name, state, finding, remedy) WHERE check_name IN ('rules', 'consistency') AND finding ~ 'ru|consistent';
SELECT section, item, value, note FROM usher.status() WHERE section = 'rule';
ALTER TABLE ru.orders RENAME COLUMN state TO status;
SELECT name, state, reason FROM usher.rules WHERE name LIKE 'ru%' ORDER BY name;
-- As those see it who run the installation, and a member.
SELECT section, item, value, regexp_replace(note, 'since [^;]*', 'since THEN') AS note FROM usher.status() WHERE section = 'violation';
SET ROLE regress_usher_member;
SELECT section, item, value, regexp_replace(note, 'since [^;]*', 'since THEN') AS note FROM usher.status() WHERE section = 'violation';
RESET ROLE;
SELECT line FROM regexp_split_to_table(usher.metrics(), '\n') AS line WHERE line ~ '^usher_(rules|violations|consistency)';

-- Off, nobody looks; dropped, its violations are gone.
SELECT usher.disable_rule('ru'), usher.disable_rule('ru_grace');
SELECT rule FROM usher.check_rules() WHERE rule LIKE 'ru%' ORDER BY rule;
SELECT usher.enable_rule('ru');
SELECT usher.drop_rule('ru'), usher.drop_rule('ru_grace'), usher.drop_rule('ru_few');
SELECT public.try('SELECT usher.drop_rule(''ru'')');
SELECT status, count(*) FROM ru.violations GROUP BY status ORDER BY status;
SELECT count(*) FROM usher.rule_dependencies;
SET client_min_messages = warning;
DELETE FROM usher.violations WHERE rule LIKE 'ru%';
DROP SCHEMA ru CASCADE;
SELECT usher.revoke_membership('ru-north', 'role:regress_usher_admin') AS done, usher.revoke_membership('ru-north', 'role:regress_usher_member') AS also \gset
DROP ROLE regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op, regress_usher_runs, regress_usher_blind;
