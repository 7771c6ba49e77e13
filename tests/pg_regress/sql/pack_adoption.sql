-- A pack at an application's own tables: what a binding may not say, what the plan says, what is made and taken away again.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS pa CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_owner;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_owner NOLOGIN;
CREATE SCHEMA pa;
CREATE TYPE pa.stage AS ENUM ('lead', 'won', 'closed_won', 'closed_lost');
CREATE TABLE pa.deals (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL, name text NOT NULL, stage pa.stage NOT NULL DEFAULT 'lead', amount numeric(12,2), event_date date,
    version integer NOT NULL DEFAULT 1, "Secret Note" text);
CREATE TABLE pa.projects (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL, deal_id uuid REFERENCES pa.deals, code varchar(20) NOT NULL, title text NOT NULL, state text NOT NULL DEFAULT 'new',
    budget integer, starts_on date, ends_on date, due timestamptz, origin text NOT NULL, number integer GENERATED ALWAYS AS IDENTITY);
CREATE VIEW pa.all_deals AS SELECT * FROM pa.deals;
ALTER TABLE pa.deals ENABLE ROW LEVEL SECURITY;
ALTER TABLE pa.projects ENABLE ROW LEVEL SECURITY;
CREATE POLICY nobody ON pa.deals FOR SELECT TO regress_usher_owner USING (false);
SELECT usher.create_organization('pa-north') AS north \gset
-- Other tests leave the pack's tables behind.
SELECT usher.remove_pack('live_events') AS gone \gset
DROP SCHEMA IF EXISTS atlvs, compvss, gvteway, live_events CASCADE;
RESET client_min_messages;
-- The binding of all that follows, with changes.
CREATE FUNCTION pa.bind(deals jsonb DEFAULT '{}', projects jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('*', '{"columns": {"organization_id": "org_id"}}'::jsonb,
        'atlvs.deals', '{"table": "pa.deals", "columns": {"title": "name", "status": "stage", "value": "amount", "currency": {"value": "EUR"}, "venue_name": null,
            "venue_timezone": null, "expected_attendance": null, "won_at": null, "metadata": null}, "values": {"status": {"inquiry": "lead", "won": ["closed_won", "won"], "lost": "closed_lost"}}}'::jsonb || deals,
        'atlvs.projects', '{"table": "pa.projects", "columns": {"name": "title", "phase": "state", "budget_total": "budget", "currency": {"value": "EUR"}, "metadata": null},
            "values": {"phase": {"intake": "new"}}, "fill": {"origin": "usher"}}'::jsonb || projects) $$;
CREATE FUNCTION pa.seen() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('pa', 'atlvs', 'compvss', 'gvteway')),
        (SELECT count(*) FROM pg_policies WHERE schemaname <> 'usher'), (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM usher.flows), (SELECT count(*) FROM usher.pack_bindings)) $$;
SELECT pa.seen() AS before \gset

-- What cannot be meant is refused with its place.
\pset format unaligned
\pset tuples_only on
SELECT public.try(format('SELECT * FROM usher.plan_pack(''live_events'', %L)', b)) FROM (VALUES
    (1, '[]'), (2, '{"atlvs.deal": "pa.deals"}'), (3, '{"atlvs.deals": 7}'), (4, '{"atlvs.deals": {}}'), (5, '{"atlvs.deals": "deals"}'), (6, '{"atlvs.deals": "pa.deal"}'),
    (7, '{"atlvs.deals": "pa.all_deals"}'), (8, '{"atlvs.deals": "usher.flows"}'), (9, '{"atlvs.deals": {"table": "pa.deals", "colums": {}}}'),
    (10, '{"atlvs.deals": {"table": "pa.deals", "columns": {"titel": "name"}}}'), (11, '{"atlvs.deals": {"table": "pa.deals", "columns": {"title": "nam"}}}'),
    (12, '{"atlvs.deals": {"table": "pa.deals", "columns": {"title": ["name"]}}}'), (13, '{"atlvs.deals": {"table": "pa.deals", "columns": {"currency": {"value": null}}}}'),
    (14, '{"atlvs.deals": {"table": "pa.deals", "columns": {"status": "stage"}, "values": {"status": {"wonn": "closed_won"}}}}'),
    (15, '{"atlvs.deals": {"table": "pa.deals", "columns": {"status": "stage"}, "values": {"status": {"won": "closed_one"}}}}'),
    (16, '{"atlvs.deals": {"table": "pa.deals", "columns": {"status": "stage"}, "values": {"status": {"won": "closed_won"}}}}'),
    (17, '{"atlvs.deals": {"table": "pa.deals", "columns": {"status": "stage"}, "values": {"status": {"won": "closed_won", "lost": ["closed_won"]}}}}'),
    (18, '{"atlvs.deals": {"table": "pa.deals", "values": {"value": {"a": "b"}}}}'), (19, '{"atlvs.deals": {"table": "pa.deals", "fill": {"nam": "x"}}}'),
    (20, '{"atlvs.deals": "pa.deals", "atlvs.projects": "pa.deals"}'), (21, '{"atlvs.deals": "atlvs.projects"}'), (22, '{"*": {"columns": {"organisation_id": "org_id"}}}'),
    (23, '{"*": {"tables": {}}}')) AS v (n, b) ORDER BY n;
SELECT public.try('SELECT * FROM usher.plan_pack(''live_event'')');
SELECT public.try('SELECT * FROM usher.plan_pack(NULL)');
\pset tuples_only off
\pset format aligned

-- Columns that can be bound.
SELECT column_name, type, words, cardinality(workflows) > 0 AS used FROM usher.pack_tables('live_events') WHERE table_name = 'atlvs.ledger_accounts';

-- The plan says what each lacks, and changes nothing.
SELECT workflow, runs, unnest(COALESCE(NULLIF(lacks, '{}'), '{-}')) AS lacks, remedies FROM usher.plan_pack('live_events', pa.bind()) WHERE workflow IN ('W1', 'W9', 'W16', 'W33');
SELECT workflow, unnest(lacks) AS lacks FROM usher.plan_pack('live_events', pa.bind(projects => '{"columns": {"starts_on": "due", "deal_id": null}, "fill": {}}') || '{"atlvs.journals": null}')
 WHERE workflow IN ('W1', 'W16');
SELECT workflow, notes FROM usher.plan_pack('live_events', pa.bind()) WHERE workflow = 'R17';
SELECT pa.seen() = :'before' AS unchanged;

-- Not by anybody: operators, who own what is bound.
GRANT USAGE ON SCHEMA pa TO regress_usher_op, regress_usher_owner;
GRANT usher_member TO regress_usher_owner;
SET ROLE regress_usher_owner;
SELECT public.try('SELECT * FROM usher.plan_pack(''live_events'')');
RESET ROLE;
SET ROLE regress_usher_op;
SELECT public.try('SELECT usher.install_pack(''live_events'', bind => pa.bind())');
RESET ROLE;
SELECT pa.seen() = :'before' AS unchanged;

-- The application gives what is missing.
ALTER TABLE pa.projects ALTER COLUMN budget TYPE numeric(14,2);
CREATE UNIQUE INDEX ON pa.projects (org_id, deal_id);
SELECT workflow, runs, lacks FROM usher.plan_pack('live_events', pa.bind()) WHERE workflow = 'W1';
SELECT regexp_replace(split_part(usher.install_pack('live_events', bind => pa.bind()), ';', 1), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');
SELECT pack, run_as, relations, schemas, bind -> 'atlvs.deals' ->> 'table' AS deals FROM usher.pack_bindings;
SELECT c.relname, c.relkind, c.reloptions, obj_description(c.oid) FROM pg_class c WHERE c.relnamespace = 'atlvs'::regnamespace AND c.relname IN ('deals', 'projects', 'contacts') ORDER BY 1;
SELECT tablename, policyname, cmd, roles FROM pg_policies WHERE schemaname = 'pa' ORDER BY 1, 2;
SELECT table_name, privilege_type, string_agg(column_name, ', ' ORDER BY column_name) FROM information_schema.column_privileges WHERE table_schema = 'pa' AND grantee = 'usher_live_events' GROUP BY 1, 2 ORDER BY 1, 2;
\x on
SELECT definition ->> 'if' AS condition, definition ->> 'organization' AS organization, definition -> 'then' AS effect, definition -> 'set' ->> 'title' AS title, definition -> 'check' ->> 'the deal has a title' AS checked
  FROM usher.flows WHERE name = 'live_events.create_project_from_won_deal';
\x off

-- What the application writes is followed, in its words.
INSERT INTO pa.deals (org_id, name, stage, amount, event_date) VALUES (:'north', 'Gala', 'lead', 5000, '2027-06-01'), (:'north', 'Fair', 'won', 10, '2027-06-02');
UPDATE pa.deals SET stage = 'closed_won' WHERE name = 'Gala';
SELECT p.title, p.state, p.budget, p.starts_on, p.origin, d.stage FROM pa.projects p JOIN pa.deals d ON d.id = p.deal_id ORDER BY p.title;
SELECT title, status, currency FROM atlvs.deals ORDER BY title;

-- Again: nothing is made twice, and what was bent is straight.
DROP POLICY usher_live_events ON pa.deals;
REVOKE ALL ON pa.projects FROM usher_live_events;
SELECT regexp_replace(split_part(usher.install_pack('live_events'), ';', 1), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');
SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'pa' ORDER BY 1, 2;
SELECT has_column_privilege('usher_live_events', 'pa.projects', 'title', 'INSERT') AS may_insert, has_column_privilege('usher_live_events', 'pa.deals', 'Secret Note', 'SELECT') AS may_read_secrets;

-- A column gets another name: its flows wait, and go on with the new one.
SET client_min_messages = error;
ALTER TABLE pa.deals RENAME COLUMN amount TO worth;
SELECT name, state FROM usher.flows WHERE state = 'broken' ORDER BY name;
SELECT public.try('SELECT usher.install_pack(''live_events'')');
RESET client_min_messages;
SELECT regexp_replace(split_part(usher.install_pack('live_events', bind => jsonb_set(bind, '{atlvs.deals,columns,value}', '"worth"')), ';', 1), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed') FROM usher.pack_bindings;
SELECT count(*) AS broken FROM usher.flows WHERE state = 'broken';
-- One that is gone: what needed it is taken away.
SET client_min_messages = error;
ALTER TABLE pa.projects DROP COLUMN state CASCADE;
RESET client_min_messages;
SELECT usher.install_pack('live_events', bind => bind #- '{atlvs.projects,columns,phase}' #- '{atlvs.projects,values}') LIKE '%W1 (pa.projects has no column for phase)%' AS says_so FROM usher.pack_bindings;
SELECT count(*) FROM usher.flows WHERE name = 'live_events.create_project_from_won_deal';
ALTER TABLE pa.projects ADD COLUMN phase text NOT NULL DEFAULT 'intake';
SELECT regexp_replace(split_part(usher.install_pack('live_events'), ';', 1), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');

-- A table that the application is to do without.
SELECT usher.install_pack('live_events', bind => bind || '{"compvss.venue_layouts": null}') LIKE '%W27 (there is no compvss.venue_layouts)%' AS says_so FROM usher.pack_bindings;
SELECT to_regclass('compvss.venue_layouts') IS NULL AS not_made, to_regprocedure('gvteway.apply_layout(uuid,uuid)') IS NULL AS nor_its_function;
-- Rows of the pack's own tables are not hidden by a binding.
INSERT INTO atlvs.contacts (organization_id, first_name) VALUES (:'north', 'Ada');
CREATE TABLE pa.people (id uuid PRIMARY KEY, org_id uuid NOT NULL, first_name text);
SELECT public.try('SELECT usher.install_pack(''live_events'', bind => bind || ''{"atlvs.contacts": "pa.people"}'') FROM usher.pack_bindings');

-- Without a binding the pack has its own tables.
SELECT regexp_replace(usher.install_pack('live_events', bind => '{}'), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');
SELECT c.relname, c.relkind FROM pg_class c WHERE c.relnamespace = 'atlvs'::regnamespace AND c.relname IN ('deals', 'projects') ORDER BY 1;
SELECT count(*) AS bindings FROM usher.pack_bindings;
SELECT count(*) AS policies FROM pg_policies WHERE schemaname = 'pa' AND policyname LIKE 'usher%';
-- And back; then it is removed: rows and tables of the application stay, nothing of the pack's does at them.
SELECT regexp_replace(split_part(usher.install_pack('live_events', bind => jsonb_set(pa.bind(projects => '{"values": {}, "columns": {"name": "title", "budget_total": "budget", "currency": {"value": "EUR"}, "metadata": null}}'), '{atlvs.deals,columns,value}', '"worth"')), ';', 1), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');
SELECT regexp_replace(usher.remove_pack('live_events'), '\d+ flows', 'N flows');
SELECT count(*) AS deals, (SELECT count(*) FROM pa.projects) AS projects FROM pa.deals;
SELECT count(*) AS policies FROM pg_policies WHERE schemaname = 'pa' AND policyname LIKE 'usher%';
SELECT count(*) AS privileges FROM information_schema.column_privileges WHERE table_schema = 'pa' AND grantee = 'usher_live_events';
SELECT has_schema_privilege('usher_live_events', 'pa', 'USAGE') AS may_use, to_regclass('atlvs.deals') IS NULL AS no_view, (SELECT count(*) FROM usher.pack_bindings) AS bindings;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid IN ('pa.deals'::regclass, 'pa.projects'::regclass) AND NOT tgisinternal;
SELECT action, object, new ->> 'left_out' IS NOT NULL AS left_out FROM usher.audit_log WHERE action LIKE 'usher.packs.%' ORDER BY position DESC LIMIT 2;

SET client_min_messages = warning;
DROP SCHEMA pa, atlvs, compvss, gvteway, live_events CASCADE;
TRUNCATE usher.jobs, usher.queue_waiting, usher.dead_letters;
DELETE FROM usher.organizations WHERE slug LIKE 'pa-%';
DROP ROLE usher_live_events;
DROP ROLE regress_usher_op, regress_usher_owner;
