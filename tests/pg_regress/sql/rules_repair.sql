-- Repairs of rules: what is refused, what a plan and a dry run show, what is repaired and what is not, and how it is undone.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS rr CASCADE;
DROP ROLE IF EXISTS regress_usher_keeper, regress_usher_member, regress_usher_admin;
CREATE ROLE regress_usher_keeper NOLOGIN;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE SCHEMA rr;
GRANT USAGE ON SCHEMA rr TO regress_usher_keeper;
CREATE TABLE rr.orders (organization_id uuid NOT NULL, id integer NOT NULL, total numeric NOT NULL, note text, PRIMARY KEY (organization_id, id));
CREATE TABLE rr.invoices (organization_id uuid NOT NULL, order_id integer NOT NULL, amount numeric NOT NULL CHECK (amount < 1000),
    paid boolean NOT NULL DEFAULT false, twice numeric GENERATED ALWAYS AS (amount * 2) STORED, PRIMARY KEY (organization_id, order_id));
CREATE TABLE rr.log (said text);
CREATE VIEW rr.v AS SELECT * FROM rr.invoices;
GRANT ALL ON ALL TABLES IN SCHEMA rr TO regress_usher_keeper;
SELECT usher.create_organization('rr-north') AS north \gset
SELECT usher.create_organization('rr-south') AS south \gset
SELECT usher.grant_membership('rr-north', 'role:regress_usher_member') AS done \gset
SELECT usher.grant_membership('rr-north', 'role:regress_usher_admin', 'admin') AS done \gset
RESET client_min_messages;
INSERT INTO rr.orders SELECT o, n, n * 10, 'first' FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(1, 3) AS n;
-- The definition of all that follows, with another repair.
CREATE FUNCTION rr.rule(repair text, changes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT '{"query": "SELECT o.organization_id, o.id AS order_id, o.total FROM rr.orders AS o WHERE NOT EXISTS (SELECT FROM rr.invoices AS i WHERE i.organization_id = o.organization_id AND i.order_id = o.id)",
             "key": ["order_id"], "wrong": "''order '' || order_id || '' has no invoice''", "every": "never", "run_as": "regress_usher_keeper"}'::jsonb
           || jsonb_build_object('repair', repair::jsonb) || changes $$;
CREATE FUNCTION rr.statement(statement text, more jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$ SELECT (jsonb_build_object('statement', statement) || more)::text $$;
CREATE FUNCTION rr.nothing(bad jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION rr.text_of(bad text) RETURNS void LANGUAGE sql AS 'SELECT';
-- Organizations by their names, no ids.
CREATE FUNCTION rr.told(text) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(replace(replace($1, (SELECT id::text FROM usher.organizations WHERE slug = 'rr-north'), 'NORTH'), (SELECT id::text FROM usher.organizations WHERE slug = 'rr-south'), 'SOUTH'),
                          '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID', 'g') $$;
CREATE VIEW rr.violations AS SELECT o.slug, v.key ->> 'order_id' AS key, v.status, v.repairs, v.manual, v.last_error
  FROM usher.violations AS v JOIN usher.organizations AS o ON o.id = v.organization_id WHERE v.rule = 'rr' ORDER BY 1, 2;

-- What cannot work is refused when the rule is made.
SELECT r AS repair, t.* FROM unnest(ARRAY[
    rr.statement('INSERT INTO rr.invoices (organization_id, order_id, amount) SELECT organization_id, order_id, total FROM bad; SELECT 1'), rr.statement('TRUNCATE rr.invoices'), rr.statement('SELECT * FROM bad'),
    rr.statement('INSERT INTO rr.invoices SELECT FROM'), rr.statement('INSERT INTO rr.invoices (organization_id, order_id, amont) SELECT organization_id, order_id, total FROM bad'),
    rr.statement('INSERT INTO rr.invoices (organization_id, order_id, amount) SELECT organization_id, id, total FROM bad'), rr.statement('INSERT INTO rr.invoices (organization_id, order_id, amount) SELECT organization_id, order_id, ''x''::text FROM bad'),
    rr.statement('DELETE FROM rr.orders WHERE total < 0'), rr.statement('UPDATE usher.organizations AS o SET name = '''' FROM bad WHERE o.id = bad.organization_id'),
    '{"call": "rr.missing"}', '{"call": "rr.text_of"}', '{"call": "nothing"}', '{"flow": "rr_missing"}']) AS r CROSS JOIN LATERAL public.try(format('SELECT usher.create_rule(''rr'', rr.rule(%L))', r)) AS t;
REVOKE INSERT ON rr.invoices FROM regress_usher_keeper;
SELECT public.try($$SELECT usher.create_rule('rr', rr.rule(rr.statement('INSERT INTO rr.invoices (organization_id, order_id, amount) SELECT organization_id, order_id, total FROM bad')))$$);
GRANT INSERT ON rr.invoices TO regress_usher_keeper;
-- A flow must be one that a row can be given to.
SELECT usher.create_flow('rr_nightly', '{"from": "shop", "to": "books", "run_as": "regress_usher_keeper", "when": {"schedule": "0 3 * * *"}, "then": {"call": "rr.nothing"}}');
SELECT public.try($$SELECT usher.create_rule('rr', rr.rule('{"flow": "rr_nightly"}'))$$);
SELECT usher.drop_flow('rr_nightly');

-- A repair that is not asked for changes nothing.
SELECT usher.create_rule('rr', rr.rule(rr.statement('WITH RECURSIVE n (n) AS (SELECT 1) INSERT INTO rr.invoices (organization_id, order_id, amount) SELECT organization_id, order_id, total FROM bad, n')));
SELECT usher.create_rule('rr_none', rr.rule('{"call": "rr.nothing"}') - 'repair');
SELECT * FROM usher.check_rule('rr');
SELECT o.slug, p.key, p.wrong, rr.told(p.bad::text) AS bad, p.does, length(p.expect) AS mark FROM usher.plan_repair('rr') AS p JOIN usher.organizations AS o ON o.id = p.organization_id ORDER BY 1, 2;
SELECT count(*) FROM usher.plan_repair('rr', 'rr-north', 2);
SELECT count(*) AS invoices FROM rr.invoices;
SELECT t.* FROM unnest(ARRAY['plan_repair(''missing'')', 'plan_repair(''rr_none'')', 'plan_repair(''rr'', most => 0)', 'plan_repair(NULL)', 'repair_rule(''rr_none'')', 'repair_rule(''rr'', organization => ''missing'')', 'repair_rule(''rr'', expect => ''[]'')',
    'repair_rule(''rr'', expect => ''{"x": 1}'')', 'repair_violation(NULL)', 'repair_violation(''00000000-0000-0000-0000-000000000001'')', 'undo_repair(NULL)', 'undo_repair(''00000000-0000-0000-0000-000000000001'')']) AS f
 CROSS JOIN LATERAL public.try('SELECT usher.' || f) AS t;
-- Nobody but an operator repairs.
SELECT string_agg(id::text, '') AS one FROM (SELECT id FROM usher.violations WHERE rule = 'rr' ORDER BY organization_id, key LIMIT 1) AS v \gset
SET ROLE regress_usher_admin;
SELECT t.* FROM unnest(ARRAY['plan_repair(''rr'')', 'repair_rule(''rr'')', format('repair_violation(%L)', :'one'), 'undo_repair(NULL)', 'repair_due()']) AS f CROSS JOIN LATERAL public.try('SELECT usher.' || f) AS t;
SELECT public.try('SELECT * FROM usher.repairs') LIMIT 1;
RESET ROLE;

-- A dry run does all of it and undoes it again.
SELECT o.slug, r.key, r.outcome, r.error, rr.told(r.changes::text) AS changes, r.repair FROM usher.repair_rule('rr', dry_run => true, organization => 'rr-north') AS r JOIN usher.organizations AS o ON o.id = r.organization_id ORDER BY 1, 2;
SELECT count(*) AS invoices, (SELECT count(*) FROM usher.repairs) AS repairs FROM rr.invoices;
SELECT * FROM rr.violations;
-- One organization, and one violation is waived, one mended by somebody.
UPDATE usher.violations SET status = 'waived', waived_by = 'x', waived_because = 'y', waived_at = now() WHERE rule = 'rr' AND organization_id = :'north' AND key ->> 'order_id' = '1';
SELECT id AS waived FROM usher.violations WHERE rule = 'rr' AND status = 'waived' \gset
INSERT INTO rr.invoices VALUES (:'north', 2, 7);
SELECT r.key, r.outcome, r.error, r.repair IS NOT NULL AS noted FROM usher.repair_rule('rr', organization => 'rr-north') AS r ORDER BY 1;
SELECT rr.told(i::text) FROM rr.invoices AS i ORDER BY i;
SELECT * FROM rr.violations;
SELECT public.try(format('SELECT usher.repair_violation(%L)', :'waived'));
SELECT rule, kind, cardinality(violations) AS violations, repaired_by IS NOT NULL AS by, automatic, run_as, rr.told(changes::text) AS changes, cannot_undo FROM usher.repairs WHERE rule = 'rr';
SELECT action, object, new - 'repair' AS new FROM usher.audit_log WHERE action = 'usher.rules.repaired' ORDER BY position;

-- It is undone if nobody has gone on with the row.
SELECT id AS repair FROM usher.repairs WHERE rule = 'rr' AND kind = 'statement' \gset
UPDATE rr.invoices SET paid = true WHERE order_id = 3;
SELECT rr.told(t) FROM public.try(format('SELECT usher.undo_repair(%L)', :'repair')) AS t;
UPDATE rr.invoices SET paid = false WHERE order_id = 3;
SELECT usher.undo_repair(:'repair');
SELECT public.try(format('SELECT usher.undo_repair(%L)', :'repair'));
SELECT rr.told(i::text) FROM rr.invoices AS i ORDER BY i;
SELECT * FROM rr.violations;
SELECT kind, undone_at IS NOT NULL AS undone, undoes IS NOT NULL AS undoes, rr.told(changes::text) AS changes FROM usher.repairs WHERE rule = 'rr' ORDER BY repaired_at;

-- What was planned and has changed since is not repaired, if that is asked for.
SELECT jsonb_object_agg(violation, expect) AS plan FROM usher.plan_repair('rr') \gset
UPDATE rr.orders SET total = 31 WHERE organization_id = :'south' AND id = 3;
SELECT o.slug, r.key, r.outcome, r.error FROM usher.repair_rule('rr', expect => :'plan') AS r JOIN usher.organizations AS o ON o.id = r.organization_id ORDER BY 1, 2;
SELECT o.slug, r.key, r.outcome, r.error FROM usher.repair_rule('rr') AS r JOIN usher.organizations AS o ON o.id = r.organization_id ORDER BY 1, 2;
SELECT rr.told(i::text) FROM rr.invoices AS i ORDER BY i;

-- A row whose repair fails, one for which it does not help, and the others, which are repaired.
DELETE FROM rr.invoices;
INSERT INTO rr.orders VALUES (:'south', 4, 5000, 'too much'), (:'south', 5, -1, 'no help');
SELECT usher.alter_rule('rr', rr.rule(rr.statement('INSERT INTO rr.invoices (organization_id, order_id, amount) SELECT organization_id, order_id, total FROM bad WHERE total > 0', '{"most": 2}')));
SELECT * FROM usher.check_rule('rr');
SELECT o.slug, r.key, r.outcome, r.error FROM usher.repair_rule('rr') AS r JOIN usher.organizations AS o ON o.id = r.organization_id ORDER BY 1, 2;
SELECT * FROM rr.violations;
SELECT o.slug, r.key, r.outcome FROM usher.repair_rule('rr') AS r JOIN usher.organizations AS o ON o.id = r.organization_id ORDER BY 1, 2;
SELECT * FROM rr.violations WHERE status = 'open';
SELECT type, data -> 'key' AS key, data -> 'attempts' AS attempts, data -> 'error' AS error FROM usher.events WHERE type = 'usher.violation.repair_failed' ORDER BY 2;
-- A repair that would reach another organization is refused.
DELETE FROM rr.invoices;
SELECT * FROM usher.check_rule('rr');
SELECT usher.alter_rule('rr', rr.rule(rr.statement('UPDATE rr.orders AS o SET note = ''seen'' FROM bad WHERE o.id = bad.order_id')));
SELECT o.slug, r.key, r.outcome, r.error FROM usher.repair_rule('rr') AS r JOIN usher.organizations AS o ON o.id = r.organization_id WHERE r.key ->> 'order_id' < '4' ORDER BY 1, 2;
SELECT DISTINCT note FROM rr.orders WHERE id < 4;
DELETE FROM rr.orders WHERE id > 3;
DELETE FROM rr.invoices;

-- A function: what it changes of the rule's tables is known, and what it changes elsewhere keeps it from being undone.
CREATE FUNCTION rr.mend(bad jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        INSERT INTO rr.invoices VALUES ((bad ->> 'organization_id')::uuid, 99, 1);
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        INSERT INTO rr.invoices VALUES ((bad ->> 'organization_id')::uuid, (bad ->> 'order_id')::integer, (bad ->> 'total')::numeric);
    END;
    UPDATE rr.orders SET note = 'mended' WHERE id = (bad ->> 'order_id')::integer AND organization_id = (bad ->> 'organization_id')::uuid;
    IF bad ->> 'order_id' = '2' THEN
        INSERT INTO rr.log VALUES (current_user || ' mends ' || (bad ->> 'order_id'));
    END IF;
END
$$;
SELECT usher.alter_rule('rr', rr.rule('{"call": "rr.mend"}'));
SELECT * FROM usher.check_rule('rr', 'rr-south');
SELECT r.key, r.outcome, rr.told(r.changes::text) AS changes FROM usher.violations AS v CROSS JOIN LATERAL usher.repair_violation(v.id) AS r
 WHERE v.rule = 'rr' AND v.organization_id = :'south' AND v.status = 'open' AND v.key ->> 'order_id' <> '3' ORDER BY 1;
SELECT rr.told(jsonb_agg(c ->> 'key')::text) AS keys, cannot_undo FROM usher.repairs, jsonb_array_elements(changes) AS c WHERE kind = 'call' GROUP BY id, cannot_undo ORDER BY 2 NULLS FIRST;
SELECT rr.told(t) FROM usher.repairs AS r CROSS JOIN LATERAL public.try(format('SELECT usher.undo_repair(%L)', r.id)) AS t WHERE r.kind = 'call' ORDER BY r.cannot_undo NULLS FIRST;
SELECT * FROM rr.log;
SELECT rr.told(i::text) FROM rr.invoices AS i ORDER BY i;
SELECT id, note FROM rr.orders WHERE organization_id = :'south' ORDER BY id;

-- By itself. What was tried within the hour counts on, and would have to wait: all is well once, and bad anew long after.
INSERT INTO rr.invoices SELECT organization_id, id, total FROM rr.orders ON CONFLICT DO NOTHING;
SELECT still, gone FROM usher.check_rule('rr');
UPDATE usher.violations SET tried_at = tried_at - interval '2 hours' WHERE rule = 'rr';
DELETE FROM rr.invoices;
SELECT usher.alter_rule('rr', rr.rule(rr.statement('INSERT INTO rr.invoices (organization_id, order_id, amount) SELECT organization_id, order_id, total FROM bad', '{"auto": true}')));
SELECT * FROM usher.check_rule('rr');
SELECT rule, repaired > 0 AS repaired, failed, asked, error FROM usher.repair_due();
SELECT * FROM usher.repair_due();
SELECT count(*) FILTER (WHERE automatic) AS automatic FROM usher.repairs WHERE rule = 'rr';
-- Updated and deleted rows are put back as they were, with what PostgreSQL draws by itself.
CREATE TABLE rr.numbered (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a integer, b jsonb, c bytea, d timestamptz, e numeric[], f text);
INSERT INTO rr.numbered (a, b, c, d, e, f) SELECT n, '{"x": [1, null]}', '\x00ff', '2026-01-02 03:04:05.678901+02', '{1.50,NULL}', NULL FROM generate_series(1, 4) AS n;
GRANT ALL ON rr.numbered TO regress_usher_keeper;
CREATE TABLE rr.before AS SELECT * FROM rr.numbered;
SELECT usher.create_rule('rr_many', '{"query": "SELECT id, a FROM rr.numbered WHERE a > 0", "key": ["id"], "wrong": "''x''", "every": "never", "run_as": "regress_usher_keeper",
    "repair": {"statement": "WITH gone AS (DELETE FROM rr.numbered AS n USING bad WHERE n.id = bad.id AND bad.a % 2 = 0) UPDATE rr.numbered AS n SET a = 0, b = NULL, c = NULL, d = NULL, e = NULL, f = ''y'' FROM bad WHERE n.id = bad.id AND bad.a % 2 = 1"}}');
SELECT * FROM usher.check_rule('rr_many');
SELECT key, outcome FROM usher.repair_rule('rr_many') ORDER BY 1;
SELECT * FROM rr.numbered ORDER BY id;
SELECT usher.undo_repair(id) FROM usher.repairs WHERE rule = 'rr_many';
(TABLE rr.before EXCEPT TABLE rr.numbered) UNION ALL (TABLE rr.numbered EXCEPT TABLE rr.before);
SELECT key, status, times FROM usher.violations WHERE rule = 'rr_many' ORDER BY 1;
-- What others have left for COMMIT is not run by a repair; nor does it work with one snapshot.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT public.try('SELECT usher.repair_rule(''rr_many'')');
COMMIT;
SELECT usher.drop_rule('rr_many'), usher.drop_rule('rr'), usher.drop_rule('rr_none');
SELECT t.* FROM usher.repairs AS r CROSS JOIN LATERAL public.try(format('SELECT usher.undo_repair(%L)', r.id)) AS t WHERE r.kind = 'undo' AND r.rule = 'rr_many';
-- Writers hardly notice: the triggers are asleep.
SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'usher_repairs' ORDER BY 1;
SET client_min_messages = warning;
DROP SCHEMA rr CASCADE;
DELETE FROM usher.repairs WHERE rule LIKE 'rr%';
SELECT usher.revoke_membership('rr-north', 'role:regress_usher_member'), usher.revoke_membership('rr-north', 'role:regress_usher_admin') \g /dev/null
DROP ROLE regress_usher_keeper, regress_usher_member, regress_usher_admin;
