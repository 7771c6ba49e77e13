-- A pack at an application's own tables: what a binding may not say, what the plan says, what is made and taken away again.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS pa CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_owner, regress_usher_runner;
CREATE ROLE regress_usher_runner NOLOGIN;
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
CREATE TYPE pa.show_state AS ENUM ('draft', 'published', 'on_sale', 'live', 'delayed', 'ended', 'cancelled');
CREATE TABLE pa.shows (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL, production_ref uuid, booking_ref uuid, deal_ref uuid, venue_name text, slug text NOT NULL, title text NOT NULL, state pa.show_state NOT NULL DEFAULT 'draft',
    timezone text NOT NULL DEFAULT 'UTC', starts_at timestamptz, ends_at timestamptz, doors_at timestamptz, curfew_at timestamptz, capacity integer, lineup jsonb NOT NULL DEFAULT '[]', metadata jsonb NOT NULL DEFAULT '{}',
    UNIQUE (org_id, production_ref), UNIQUE (org_id, booking_ref));
CREATE TABLE pa.entries (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL, journal_id uuid NOT NULL, line smallint NOT NULL, account_id uuid NOT NULL, debit numeric NOT NULL DEFAULT 0,
    credit numeric(10,0) NOT NULL DEFAULT 0, UNIQUE (org_id, journal_id, line));
-- Names that SQL reads as words of its own.
CREATE TABLE pa.jobs ("user" uuid PRIMARY KEY, "group" uuid NOT NULL, "order" uuid, code text NOT NULL, name text NOT NULL, phase text NOT NULL, budget_total numeric(10,0), starts_on date, ends_on date);
CREATE TABLE pa.payslips (id uuid PRIMARY KEY, org_id uuid NOT NULL, employee_id uuid NOT NULL, project_id uuid, work_on date NOT NULL, UNIQUE (org_id, employee_id, project_id, work_on));
ALTER TABLE pa.deals ENABLE ROW LEVEL SECURITY;
ALTER TABLE pa.projects ENABLE ROW LEVEL SECURITY;
CREATE POLICY nobody ON pa.deals FOR SELECT TO regress_usher_owner USING (false);
SELECT usher.create_organization('pa-north') AS north \gset
-- Other tests leave the pack's tables behind.
SELECT usher.remove_pack('live_events') AS gone \gset
DROP SCHEMA IF EXISTS atlvs, compvss, gvteway, live_events CASCADE;
-- What the pack's own tables are like without any binding.
SELECT usher.install_pack('live_events') AS said \gset
CREATE TABLE pa.constraints AS
SELECT k.conrelid::regclass::text AS relation, k.conname::text AS name, pg_get_constraintdef(k.oid) AS said
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE c.relnamespace::regnamespace::text IN ('atlvs', 'compvss', 'gvteway', 'live_events');
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
    (23, '{"*": {"tables": {}}}'), (24, '{"atlvs.deals": {"table": "pa.deals", "columns": {"title": "name", "venue_name": "name"}}}'),
    (25, '{"atlvs.deals": {"table": "pa.deals", "columns": {"title": "name"}, "fill": {"name": "x"}}}'),
    (26, '{"atlvs.deals": {"table": "pa.deals", "columns": {"expected_attendance": {"value": "many"}}}}'), (27, '{"atlvs.projects": {"table": "pa.projects", "fill": {"due": "soon"}}}'),
    (28, '{"atlvs.projects": {"table": "pa.projects", "fill": {"number": 7}}}'), (29, '{"atlvs.deals": {"table": "pa.deals", "columns": {"status": {"value": "wonn"}}}}'),
    (30, '{"*": {"columns": {"value": {"value": "much"}}}, "atlvs.deals": "pa.deals"}')) AS v (n, b) ORDER BY n;
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

-- Remedies are SQL, whatever the columns are called; what rounds is said, and which indexes do.
SELECT remedies FROM usher.plan_pack('live_events', '{"atlvs.projects": {"table": "pa.jobs", "columns": {"organization_id": "group", "id": "user", "deal_id": "order"}}}') WHERE workflow = 'W1';
CREATE UNIQUE INDEX jobs_some ON pa.jobs ("group", "order") WHERE "order" IS NOT NULL;
CREATE POLICY fence ON pa.jobs AS RESTRICTIVE FOR SELECT USING (true);
CREATE POLICY other ON pa.jobs AS RESTRICTIVE FOR SELECT TO regress_usher_owner USING (true);
SELECT lacks, notes FROM usher.plan_pack('live_events', '{"atlvs.projects": {"table": "pa.jobs", "columns": {"organization_id": "group", "id": "user", "deal_id": "order"}}}') WHERE workflow = 'W1';
DROP INDEX pa.jobs_some;
CREATE UNIQUE INDEX ON pa.jobs ("group", "order") NULLS NOT DISTINCT;
SELECT lacks, notes FROM usher.plan_pack('live_events', '{"atlvs.projects": {"table": "pa.jobs", "columns": {"organization_id": "group", "id": "user", "deal_id": "order"}}}') WHERE workflow = 'W1';
SELECT l AS lacks, remedies FROM usher.plan_pack('live_events', '{"*": {"columns": {"organization_id": "org_id"}}, "atlvs.payroll_items": "pa.payslips"}') CROSS JOIN unnest(lacks) AS l WHERE workflow = 'W4' AND l LIKE '%unique%';
-- Whoever searches finds what is in a bound table, whatever policies it has: that can be left out.
SELECT n AS note FROM usher.plan_pack('live_events', pa.bind()) CROSS JOIN unnest(notes) AS n WHERE workflow = 'W48' AND n LIKE '%search%' ORDER BY 1;
SELECT lacks, (SELECT count(*) FROM unnest(notes) AS n WHERE n LIKE '%search%') AS notes FROM usher.plan_pack('live_events', pa.bind() || '{"live_events.search_documents": null}') WHERE workflow = 'W48';
SELECT pa.seen() AS before \gset

-- A value is tried where a domain has the application check it: with the rights of the table's owner, and with a superuser's not at all.
CREATE FUNCTION pa.looks(value text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE WARNING 'checked by %', CASE current_user WHEN 'regress_usher_owner' THEN 'the owner' ELSE 'somebody else' END;
    RETURN value <> 'bad';
END $$;
ALTER FUNCTION pa.looks(text) OWNER TO regress_usher_owner;
CREATE DOMAIN pa.looked_at AS text CHECK (pa.looks(VALUE));
CREATE TYPE pa.spans AS RANGE (SUBTYPE = pa.looked_at);
CREATE DOMAIN pa.looked_through AS text CHECK (pg_catalog.length(VALUE::pa.looked_at) > 0);
CREATE TABLE pa.suppliers (id uuid PRIMARY KEY, org_id uuid NOT NULL, name text NOT NULL, tag pa.looked_at, span pa.spans, spans pa.spans[], through pa.looked_through);
GRANT USAGE ON SCHEMA pa TO regress_usher_owner;
SELECT count(*) > 40 AS planned FROM usher.plan_pack('live_events', '{"*": {"columns": {"organization_id": "org_id"}}, "atlvs.vendors": {"table": "pa.suppliers", "fill": {"tag": "bad", "span": "[bad,bad]", "spans": "{\"[bad,bad]\"}", "through": "bad"}}}');
ALTER TABLE pa.suppliers OWNER TO regress_usher_owner;
SELECT count(*) > 40 AS planned FROM usher.plan_pack('live_events', '{"*": {"columns": {"organization_id": "org_id"}}, "atlvs.vendors": {"table": "pa.suppliers", "fill": {"tag": "good", "span": "[good,good]", "through": "good"}}}');
SELECT public.try('SELECT * FROM usher.plan_pack(''live_events'', ''{"*": {"columns": {"organization_id": "org_id"}}, "atlvs.vendors": {"table": "pa.suppliers", "fill": {"tag": "bad"}}}'')');
DROP TABLE pa.suppliers;
DROP DOMAIN pa.looked_through;
DROP TYPE pa.spans;
DROP DOMAIN pa.looked_at;
DROP FUNCTION pa.looks(text);
SELECT pa.seen() AS before \gset

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

-- Nor as a role that has rights there of its own, which would go with the binding.
GRANT SELECT (name) ON pa.deals TO regress_usher_runner;
SELECT public.try('SELECT usher.install_pack(''live_events'', run_as => ''regress_usher_runner'', bind => pa.bind())');
REVOKE ALL ON pa.deals FROM regress_usher_runner;

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
-- Without its workflow their jobs would be lost, and the plan says how many.
SELECT n AS note FROM usher.plan_pack('live_events', pa.bind() || '{"live_events.search_documents": null}') CROSS JOIN unnest(notes) AS n WHERE workflow = 'W48' AND n LIKE '%jobs%';

-- Again: nothing is made twice, and what was bent is straight.
DROP POLICY usher_live_events ON pa.deals;
REVOKE ALL ON pa.projects FROM usher_live_events;
SELECT regexp_replace(split_part(usher.install_pack('live_events'), ';', 1), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');
SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'pa' ORDER BY 1, 2;
SELECT has_column_privilege('usher_live_events', 'pa.projects', 'title', 'INSERT') AS may_insert, has_column_privilege('usher_live_events', 'pa.deals', 'Secret Note', 'SELECT') AS may_read_secrets;

-- The pack's role is gone, with all that it had.
SET client_min_messages = error;
BEGIN;
DROP OWNED BY usher_live_events;
DROP ROLE usher_live_events;
SELECT usher.remove_pack('live_events') LIKE '% is taken back, their rows stay' AS removed;
ROLLBACK;
DROP OWNED BY usher_live_events;
DROP ROLE usher_live_events;
SELECT usher.install_pack('live_events') LIKE '% running as usher_live_events%' AS as_before;
RESET client_min_messages;
SELECT has_column_privilege('usher_live_events', 'pa.projects', 'title', 'INSERT') AS may_insert, (SELECT count(*) FROM usher.flows WHERE state = 'broken') AS broken;

-- What the application has made of the pack's views and functions is not taken along.
CREATE VIEW pa.report AS SELECT title FROM atlvs.deals;
SELECT public.try('SELECT usher.install_pack(''live_events'')');
SELECT public.try('SELECT usher.remove_pack(''live_events'')');
DROP VIEW pa.report;
CREATE VIEW pa.report AS SELECT code, margin FROM live_events.project_kpis;
SELECT public.try('SELECT usher.install_pack(''live_events'', bind => bind || ''{"live_events.project_figures": null}'') FROM usher.pack_bindings');
DROP VIEW pa.report;
CREATE FUNCTION pa.who() RETURNS jsonb LANGUAGE sql RETURN live_events.claims(NULL);
SELECT public.try('SELECT usher.install_pack(''live_events'', bind => bind || ''{"live_events.identities": null}'') FROM usher.pack_bindings');
DROP FUNCTION pa.who();
CREATE TABLE pa.fans (organization_id uuid, guest uuid, FOREIGN KEY (organization_id, guest) REFERENCES gvteway.guests (organization_id, id));
SELECT public.try('SELECT usher.install_pack(''live_events'', bind => bind || ''{"gvteway.guests": null}'') FROM usher.pack_bindings');
DROP TABLE pa.fans;

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

-- Tables that the application is to do without, and functions and views of them. What does not run writes nothing: W25 and W27 would set
-- times and capacity of a show, which the role may not write now, and W29 does not try to. Ticket revenue is booked all the same, though no workflow that runs books anything.
SELECT usher.install_pack('live_events', bind => bind || '{"compvss.venue_layouts": null, "live_events.project_figures": null, "live_events.identities": null,
    "gvteway.orders": null, "gvteway.payouts": null, "gvteway.campaign_spend": null, "compvss.expenses": null, "atlvs.payroll_items": null,
    "atlvs.ledger_entries": "pa.entries", "gvteway.events": {"table": "pa.shows", "columns": {"status": "state", "venue_id": null, "version": null}}}')
    LIKE '%W27 (there is no compvss.venue_layouts)%' AS says_so FROM usher.pack_bindings;
SELECT to_regclass('compvss.venue_layouts') IS NULL AS not_made, to_regprocedure('gvteway.apply_layout(uuid,uuid)') IS NULL AS nor_its_function,
       to_regprocedure('live_events.claims(text)') IS NULL AS nor_one_for_members, to_regclass('live_events.project_kpis') IS NULL AS nor_its_view;
SELECT workflow, runs FROM usher.plan_pack('live_events') WHERE workflow IN ('W5', 'W12', 'W16', 'W18', 'W20', 'W23', 'W25', 'W27', 'W29', 'W39') ORDER BY substr(workflow, 2)::integer;
SELECT string_agg(m[1], ', ') AS written FROM regexp_matches(pg_get_functiondef('gvteway.events_update_row()'::regprocedure), 'NEW\."(\w+)" IS DISTINCT', 'g') AS m;
-- It names what changes and nothing else: for the rights of whoever writes, and for triggers that look after the rest.
INSERT INTO pa.shows (org_id, slug, title) VALUES (:'north', 'gala', 'Gala');
CREATE FUNCTION pa.tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '% was written', TG_ARGV[0]; RETURN NEW; END $$;
CREATE TRIGGER a_metadata AFTER UPDATE OF metadata ON pa.shows FOR EACH ROW EXECUTE FUNCTION pa.tells('metadata');
CREATE TRIGGER b_state AFTER UPDATE OF state ON pa.shows FOR EACH ROW EXECUTE FUNCTION pa.tells('state');
CREATE TRIGGER c_curfew AFTER UPDATE OF curfew_at ON pa.shows FOR EACH ROW EXECUTE FUNCTION pa.tells('curfew');
GRANT SELECT, UPDATE (state, curfew_at) ON pa.shows TO regress_usher_owner;
GRANT SELECT, UPDATE ON gvteway.events TO regress_usher_owner;
SET ROLE regress_usher_owner;
UPDATE gvteway.events SET status = 'published';
UPDATE gvteway.events SET status = 'on_sale', curfew_at = '2027-06-01 23:00Z';
UPDATE gvteway.events SET status = 'on_sale';
SELECT public.try('UPDATE gvteway.events SET metadata = ''{"a": 1}''');
RESET ROLE;
UPDATE gvteway.events SET status = 'live', metadata = '{"b": 2}';
SELECT state, curfew_at IS NOT NULL AS ends, metadata FROM pa.shows;
DROP TRIGGER a_metadata ON pa.shows;
DROP TRIGGER b_state ON pa.shows;
DROP TRIGGER c_curfew ON pa.shows;
DROP FUNCTION pa.tells();
REVOKE ALL ON pa.shows FROM regress_usher_owner;
DELETE FROM pa.shows;
SELECT regexp_count(pg_get_functiondef('atlvs.deals_update_row()'::regprocedure), 'UPDATE pa.deals') AS people_win_deals, has_column_privilege('usher_live_events', 'pa.deals', 'stage', 'UPDATE') AS flows_do;
SELECT privilege_type, string_agg(table_name || '.' || column_name, ', ' ORDER BY table_name, column_name) FROM information_schema.column_privileges
 WHERE table_schema = 'pa' AND table_name IN ('entries', 'shows') AND grantee = 'usher_live_events' AND privilege_type <> 'SELECT' GROUP BY 1 ORDER BY 1;
-- Rows of the pack's own tables are not hidden by a binding.
INSERT INTO atlvs.contacts (organization_id, first_name) VALUES (:'north', 'Ada');
CREATE TABLE pa.people (id uuid PRIMARY KEY, org_id uuid NOT NULL, first_name text);
SELECT public.try('SELECT usher.install_pack(''live_events'', bind => bind || ''{"atlvs.contacts": "pa.people"}'') FROM usher.pack_bindings');

-- Without a binding the pack has its own tables, with all their keys. One that a row does not keep holds for new ones.
INSERT INTO atlvs.artists (organization_id, id, name) VALUES (:'north', '00000000-0000-4000-8000-0000000000a1', 'The Sines');
INSERT INTO atlvs.artist_bookings (organization_id, artist_id, deal_id, event_on) SELECT :'north', '00000000-0000-4000-8000-0000000000a1', id, '2027-06-01' FROM pa.deals WHERE name = 'Gala';
SELECT regexp_replace(usher.install_pack('live_events', bind => '{}'), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');
SELECT c.relname, c.relkind FROM pg_class c WHERE c.relnamespace = 'atlvs'::regnamespace AND c.relname IN ('deals', 'projects') ORDER BY 1;
CREATE VIEW pa.now AS
SELECT k.conrelid::regclass::text AS relation, k.conname::text AS name, pg_get_constraintdef(k.oid) AS said
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE c.relnamespace::regnamespace::text IN ('atlvs', 'compvss', 'gvteway', 'live_events');
SELECT (SELECT count(*) > 200 FROM pa.constraints) AS many, x.* FROM (TABLE pa.constraints EXCEPT TABLE pa.now) AS x;
SELECT x.* FROM (TABLE pa.now EXCEPT TABLE pa.constraints) AS x;
DELETE FROM atlvs.artist_bookings WHERE organization_id = :'north';
ALTER TABLE atlvs.artist_bookings VALIDATE CONSTRAINT artist_bookings_deal_fkey;
SELECT count(*) AS others FROM ((TABLE pa.constraints EXCEPT TABLE pa.now) UNION ALL (TABLE pa.now EXCEPT TABLE pa.constraints)) AS x;
SELECT count(*) AS bindings FROM usher.pack_bindings;
SELECT count(*) AS policies FROM pg_policies WHERE schemaname = 'pa' AND policyname LIKE 'usher%';
-- And back; then it is removed: rows and tables of the application stay, nothing of the pack's does at them.
SELECT regexp_replace(split_part(usher.install_pack('live_events', bind => jsonb_set(pa.bind(projects => '{"values": {}, "columns": {"name": "title", "budget_total": "budget", "currency": {"value": "EUR"}, "metadata": null}}'), '{atlvs.deals,columns,value}', '"worth"')), ';', 1), ' [.\d]+: \d+ flows made, \d+ changed', ' VERSION: N flows made, M changed');
-- What another pack of the same role needs stays, and what the role had already.
CREATE SEQUENCE pa.drawn;
CREATE SEQUENCE pa.known;
GRANT USAGE ON SEQUENCE pa.known TO usher_live_events;
ALTER TABLE pa.projects ADD COLUMN drawn bigint NOT NULL DEFAULT nextval('pa.drawn'), ADD COLUMN known bigint NOT NULL DEFAULT nextval('pa.known');
SELECT usher.install_pack('live_events') LIKE '% running as usher_live_events%' AS again;
SELECT sequences FROM usher.pack_bindings;
BEGIN;
INSERT INTO usher.pack_bindings (pack, bind, run_as, relations, schemas, sequences, triggers, bound_by) VALUES ('other', '{}', 'usher_live_events', '{}', '{pa}', '{pa.drawn}', '{}', 'test');
-- The other one leaves and comes again: both know of it.
SELECT usher.install_pack('live_events') LIKE '% running as usher_live_events%' AS again;
SELECT pack, schemas, sequences FROM usher.pack_bindings ORDER BY pack;
SELECT usher.remove_pack('live_events') AS gone \gset
SELECT has_schema_privilege('usher_live_events', 'pa', 'USAGE') AS may_use, has_sequence_privilege('usher_live_events', 'pa.drawn', 'USAGE') AS may_draw;
ROLLBACK;
SELECT regexp_replace(usher.remove_pack('live_events'), '\d+ flows', 'N flows');
SELECT has_sequence_privilege('usher_live_events', 'pa.drawn', 'USAGE') AS may_draw, has_sequence_privilege('usher_live_events', 'pa.known', 'USAGE') AS as_before;
REVOKE ALL ON SEQUENCE pa.known FROM usher_live_events;
SELECT count(*) AS deals, (SELECT count(*) FROM pa.projects) AS projects FROM pa.deals;
SELECT count(*) AS policies FROM pg_policies WHERE schemaname = 'pa' AND policyname LIKE 'usher%';
SELECT count(*) AS privileges FROM information_schema.column_privileges WHERE table_schema = 'pa' AND grantee = 'usher_live_events';
SELECT has_schema_privilege('usher_live_events', 'pa', 'USAGE') AS may_use, to_regclass('atlvs.deals') IS NULL AS no_view, (SELECT count(*) FROM usher.pack_bindings) AS bindings;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid IN ('pa.deals'::regclass, 'pa.projects'::regclass) AND NOT tgisinternal;
SELECT action, object, new ->> 'left_out' IS NOT NULL AS left_out FROM usher.audit_log WHERE action LIKE 'usher.packs.%' ORDER BY position DESC LIMIT 2;
-- Installed anew, without a binding, it has all its keys, too.
SELECT split_part(usher.install_pack('live_events'), ';', 1) LIKE '% running as usher_live_events%' AS anew;
SELECT count(*) AS others FROM ((TABLE pa.constraints EXCEPT TABLE pa.now) UNION ALL (TABLE pa.now EXCEPT TABLE pa.constraints)) AS x;
SELECT regexp_replace(usher.remove_pack('live_events'), '\d+ flows', 'N flows') AS removed \gset

SET client_min_messages = warning;
DROP SCHEMA pa, atlvs, compvss, gvteway, live_events CASCADE;
TRUNCATE usher.jobs, usher.queue_waiting, usher.dead_letters;
DELETE FROM usher.organizations WHERE slug LIKE 'pa-%';
DROP ROLE usher_live_events;
DROP ROLE regress_usher_op, regress_usher_owner, regress_usher_runner;
