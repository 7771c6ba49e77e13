-- The hub under the names that existing clients know: making it, who may do what through it, and taking it back.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ex, ex2, atlvs, compvss, gvteway, live_events CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_legend, regress_usher_reader, regress_usher_nobody;
RESET client_min_messages;
CREATE SCHEMA ex;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_legend NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_nobody NOLOGIN;
SELECT usher.create_organization('ex-acme') AS acme \gset
SELECT usher.create_organization('ex-beta') AS beta \gset
SELECT usher.grant_membership('ex-acme', 'role:regress_usher_admin', 'admin'), usher.grant_membership('ex-acme', 'role:regress_usher_member'),
       usher.grant_membership('ex-beta', 'role:regress_usher_legend', 'legend');

-- Who may, and where.
SET ROLE regress_usher_admin;
SELECT usher.expose_api('ex');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.hide_api('ex');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_op;
SELECT usher.expose_api('ex');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.expose_api('nowhere');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.expose_api('usher');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.expose_api('pg_catalog');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.expose_api('a$$b');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.expose_api(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.hide_api('ex');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT USAGE, CREATE ON SCHEMA ex TO regress_usher_op;

-- What is there is never replaced: all clashes are listed, nothing is made.
CREATE TABLE ex.integration_deal_links (id integer);
CREATE TYPE ex.audit_log AS ENUM ('a');
CREATE SEQUENCE ex.integration_sync_jobs;
CREATE FUNCTION ex.rpc_deal_to_project(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE INDEX integration_asset_links ON ex.integration_deal_links (id);
SET ROLE regress_usher_op;
SELECT usher.expose_api('ex');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT count(*) AS objects FROM usher.exposed_objects;
SELECT count(*) AS views FROM pg_views WHERE schemaname = 'ex';
DROP TABLE ex.integration_deal_links;
DROP TYPE ex.audit_log;
DROP SEQUENCE ex.integration_sync_jobs;
DROP FUNCTION ex.rpc_deal_to_project(integer);

-- Default privileges of the schema give nothing away.
ALTER DEFAULT PRIVILEGES IN SCHEMA ex GRANT ALL ON TABLES TO regress_usher_nobody, regress_usher_member;
ALTER DEFAULT PRIVILEGES IN SCHEMA ex GRANT ALL ON FUNCTIONS TO regress_usher_nobody;
SET ROLE regress_usher_op;
SELECT usher.expose_api('ex');
SELECT usher.expose_api('ex');
RESET ROLE;
ALTER DEFAULT PRIVILEGES IN SCHEMA ex REVOKE ALL ON TABLES FROM regress_usher_nobody, regress_usher_member;
ALTER DEFAULT PRIVILEGES IN SCHEMA ex REVOKE ALL ON FUNCTIONS FROM regress_usher_nobody;
SELECT c.relname, c.reloptions, (SELECT string_agg(a.grantee::regrole || ' ' || lower(a.privilege_type), ', ' ORDER BY 1) FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner) AS granted
  FROM pg_class c WHERE c.relnamespace = 'ex'::regnamespace AND c.relkind = 'v' ORDER BY 1;
SELECT p.oid::regprocedure AS function, p.prosecdef, p.proretset, p.proconfig, (SELECT string_agg(a.grantee::regrole || ' ' || lower(a.privilege_type), ', ' ORDER BY 1) FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner) AS granted
  FROM pg_proc p WHERE p.pronamespace = 'ex'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";
\d ex.integration_deal_links
\d ex.integration_project_links
\d ex.integration_event_links
\d ex.integration_asset_links
\d ex.integration_sync_jobs
\d ex.ticket_revenue_ingestions
\d ex.audit_log
SELECT actor, action, object, new FROM usher.audit_log WHERE action LIKE 'usher.api%' ORDER BY id;

-- Links, by hand. Without a pack.
SET ROLE regress_usher_admin;
INSERT INTO ex.integration_deal_links (deal_id, compvss_opportunity_id) VALUES ('D-1', 'O-1')
    RETURNING organization_id = :'acme' AS own, id IS NOT NULL AS id, deal_id, compvss_opportunity_id, gvteway_campaign_id, status, last_synced_at, error_message, metadata, created_at = updated_at AS fresh, project_id;
INSERT INTO ex.integration_asset_links (organization_id, asset_id, compvss_asset_id, gvteway_inventory_id, status, metadata)
    SELECT :'acme', 'A-' || n, 'C-' || n, 'G-' || n, 'synced', '{"rack": 4}' FROM generate_series(1, 3) AS n RETURNING asset_id, compvss_asset_id, gvteway_inventory_id, status, last_synced_at IS NOT NULL AS synced;
INSERT INTO ex.integration_project_links (project_id, compvss_slug) VALUES ('0B8A4C1E-6A0F-4A53-9D5E-3C2B1A0F9E8D', 'open-air') RETURNING project_id, compvss_project_id, compvss_slug;
INSERT INTO ex.integration_event_links (project_id, gvteway_event_id) VALUES ('P-1', 'E-1') RETURNING project_id, gvteway_event_id, gvteway_slug;
SELECT kind, left_id, right_id, ids, status, flow, position FROM usher.links WHERE organization_id = :'acme' ORDER BY kind, left_id;
-- Each pair once, each status known, nothing left out that is needed.
INSERT INTO ex.integration_deal_links (deal_id, compvss_opportunity_id) VALUES ('D-1', 'O-1');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.integration_asset_links (asset_id, compvss_asset_id) VALUES ('A-1', 'C-1');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.integration_asset_links (compvss_asset_id) VALUES ('C-9');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.integration_asset_links (asset_id, compvss_asset_id) VALUES ('A-9', '');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.integration_asset_links (asset_id, status) VALUES ('A-9', 'dead');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
INSERT INTO ex.integration_asset_links (organization_id, asset_id) VALUES (:'beta', 'A-9');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.integration_asset_links (organization_id, asset_id) VALUES ('00000000-0000-7000-8000-000000000001', 'A-9');
\echo :LAST_ERROR_SQLSTATE
-- PostgreSQL has no upsert through such a view.
INSERT INTO ex.integration_asset_links (asset_id) VALUES ('A-1') ON CONFLICT (asset_id) DO UPDATE SET status = 'synced';
\echo :LAST_ERROR_SQLSTATE
-- Changes: only what is named, with the time of it; the organization stays.
UPDATE ex.integration_deal_links SET project_id = 'P-7', gvteway_campaign_id = 'G-7', compvss_opportunity_id = NULL, status = 'synced', metadata = metadata || '{"by": "hand"}'
    WHERE deal_id = 'D-1' RETURNING deal_id, project_id, compvss_opportunity_id, gvteway_campaign_id, status, last_synced_at IS NOT NULL AS synced, metadata, updated_at > created_at AS touched;
SELECT left_id, right_id, ids, status, last_synced_at IS NOT NULL AS synced, metadata, updated_at > created_at AS touched FROM usher.links WHERE kind = 'deal' AND left_id = 'D-1';
UPDATE ex.integration_asset_links SET status = 'failed', error_message = 'lost' WHERE asset_id <> 'A-2' RETURNING asset_id, status, error_message;
UPDATE ex.integration_asset_links SET organization_id = :'beta' WHERE asset_id = 'A-1';
\echo :LAST_ERROR_SQLSTATE
UPDATE ex.integration_asset_links SET id = :'beta' WHERE asset_id = 'A-1';
\echo :LAST_ERROR_SQLSTATE
UPDATE ex.integration_asset_links SET status = 'gone' WHERE asset_id = 'A-1';
\echo :LAST_ERROR_SQLSTATE
UPDATE ex.integration_asset_links SET status = NULL WHERE asset_id = 'A-1';
\echo :LAST_ERROR_SQLSTATE
UPDATE ex.integration_asset_links SET asset_id = NULL WHERE asset_id = 'A-1';
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
UPDATE ex.integration_asset_links SET asset_id = 'A-2', compvss_asset_id = 'C-2' WHERE asset_id = 'A-1';
\set VERBOSITY default
DELETE FROM ex.integration_asset_links WHERE asset_id = 'A-3' RETURNING asset_id;
-- Not past the views: the table itself takes nothing.
INSERT INTO usher.links (organization_id, id, kind, left_id) VALUES (:'acme', usher.uuid_v7(), 'deal', 'x');
\echo :LAST_ERROR_SQLSTATE
UPDATE usher.links SET status = 'synced';
\echo :LAST_ERROR_SQLSTATE
UPDATE ex.integration_sync_jobs SET status = 'synced';
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.audit_log (actor) VALUES ('me');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.ticket_revenue_ingestions (ticket_count) VALUES (1);
\echo :LAST_ERROR_SQLSTATE
-- Members read. Strangers see nothing and are told nothing; a legend is everywhere but has to say where.
SET ROLE regress_usher_member;
SELECT asset_id, status FROM ex.integration_asset_links ORDER BY 1;
INSERT INTO ex.integration_asset_links (asset_id) VALUES ('A-9');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
INSERT INTO ex.integration_asset_links (organization_id, asset_id) VALUES (:'acme', 'A-9');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
UPDATE ex.integration_asset_links SET status = 'synced' WHERE asset_id = 'A-1';
DELETE FROM ex.integration_asset_links;
\set VERBOSITY default
SELECT ex.rpc_enqueue_sync_job('ex-acme', 'a', 'b', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT ex.rpc_deal_to_project('00000000-0000-7000-8000-000000000001', 'ex-acme');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_stranger;
SELECT (SELECT count(*) FROM ex.integration_deal_links) AS deals, (SELECT count(*) FROM ex.integration_asset_links) AS assets, (SELECT count(*) FROM ex.audit_log) AS audit, (SELECT count(*) FROM ex.integration_sync_jobs) AS jobs;
UPDATE ex.integration_asset_links SET status = 'synced' WHERE asset_id = 'A-1' RETURNING asset_id;
\set VERBOSITY sqlstate
INSERT INTO ex.integration_asset_links (organization_id, asset_id) VALUES (:'acme', 'A-9');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.integration_asset_links (asset_id) VALUES ('A-9');
\echo :LAST_ERROR_SQLSTATE
SELECT ex.rpc_project_to_event('00000000-0000-7000-8000-000000000001', 'ex-acme', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT ex.rpc_project_to_event('00000000-0000-7000-8000-000000000001', 'ex-nowhere', '{}');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_legend;
INSERT INTO ex.integration_asset_links (asset_id) VALUES ('A-8');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO ex.integration_asset_links (organization_id, asset_id) VALUES (:'acme', 'A-8') RETURNING asset_id, status;
SET ROLE regress_usher_reader;
SELECT count(*) AS assets FROM ex.integration_asset_links;
DELETE FROM ex.integration_asset_links;
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_nobody;
SELECT * FROM ex.integration_asset_links;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- Who it was is in the log.
SELECT actor, action, old, new FROM usher.audit_log WHERE action LIKE 'usher.links%' AND organization_id = :'acme' AND (object = (SELECT id::text FROM usher.links WHERE left_id = 'D-1') OR new ->> 'left_id' = 'A-8') ORDER BY id;

-- Without the pack, what it would do is not there.
SET ROLE regress_usher_admin;
SELECT ex.rpc_deal_to_project('00000000-0000-7000-8000-000000000001', 'ex-acme');
\echo :LAST_ERROR_SQLSTATE
SELECT ex.rpc_project_to_event('00000000-0000-7000-8000-000000000001', 'ex-acme', '{}');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SET client_min_messages = warning;
SELECT usher.install_pack('live_events') AS pack \gset
-- What comes by the clock would come here whenever a minute begins.
SELECT count(usher.disable_flow(name)) > 0 AS by_the_clock FROM usher.flows WHERE pack = 'live_events' AND definition -> 'when' ? 'schedule' \gset
RESET client_min_messages;
SET ROLE regress_usher_admin;
INSERT INTO atlvs.deals (organization_id, title, status, value, event_date, won_at) VALUES (:'acme', 'Summer Night', 'proposal', 10, '2031-07-04', '2031-01-01') RETURNING id AS deal \gset
SELECT ex.rpc_deal_to_project(NULL, 'ex-acme');
\echo :LAST_ERROR_SQLSTATE
SELECT ex.rpc_deal_to_project('00000000-0000-7000-8000-000000000001', 'ex-acme');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
SELECT ex.rpc_deal_to_project(:'deal', 'ex-acme');
SELECT ex.rpc_deal_to_project(:'deal', NULL);
\set VERBOSITY default
SELECT count(*) AS projects FROM atlvs.projects;
UPDATE atlvs.deals SET status = 'won' WHERE id = :'deal';
SELECT l.deal_id = :'deal' AS deal, l.project_id = p.id::text AS project, l.status, l.id IS NOT NULL AS linked
  FROM ex.rpc_deal_to_project(:'deal', 'ex-acme') AS l, atlvs.projects AS p;
SELECT id AS project FROM atlvs.projects \gset
-- No production yet: the worker has not been there.
\set VERBOSITY sqlstate
SELECT ex.rpc_project_to_event(:'project', 'ex-acme', '{}');
\set VERBOSITY default
RESET ROLE;
CALL public.drain() \gset
SET ROLE regress_usher_admin;
SELECT l.project_id = :'project' AS project, l.compvss_project_id = p.id::text AS production FROM ex.integration_project_links l, compvss.productions p WHERE l.status = 'synced';
SELECT l.project_id = :'project' AS project, l.gvteway_event_id = e.id::text AS event FROM ex.integration_event_links l, gvteway.events e WHERE l.status = 'synced';
-- Data of the event: known fields, of the right kind.
SELECT ex.rpc_project_to_event(:'project', 'ex-acme', '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT ex.rpc_project_to_event(:'project', 'ex-acme', '{"name": "x", "title": "y", "organization_id": "z"}');
\echo :LAST_ERROR_SQLSTATE
SELECT ex.rpc_project_to_event(:'project', 'ex-acme', '{"lineup": "A"}');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
SELECT ex.rpc_project_to_event(:'project', 'ex-acme', '{"doors_at": "tomorrowish"}');
SELECT ex.rpc_project_to_event(:'project', 'ex-acme', '{"capacity": "many"}');
SELECT ex.rpc_project_to_event('00000000-0000-7000-8000-000000000001', 'ex-acme');
SELECT ex.rpc_project_to_event(NULL, 'ex-acme');
\set VERBOSITY default
SELECT flow, status, payload - 'production_id' AS payload FROM ex.rpc_project_to_event(:'project', 'ex-acme', '{"doors_at": "2031-07-04T18:00:00Z", "capacity": 70, "lineup": ["A"], "metadata": {"hall": 2}, "title": null}');
SELECT flow, status, source_system, target_system, payload - 'production_id' AS payload FROM ex.rpc_project_to_event(p_project_id => :'project', p_org_slug => 'ex-acme');
RESET ROLE;
CALL public.drain() \gset
SET ROLE regress_usher_admin;
SELECT flow, status, error_message FROM ex.integration_sync_jobs WHERE organization_id = :'acme' ORDER BY created_at, flow;
SELECT title, status, doors_at AT TIME ZONE 'UTC' AS doors, curfew_at, capacity, lineup, metadata FROM gvteway.events;
SELECT count(*) AS links FROM ex.integration_event_links WHERE project_id = :'project';
-- A won deal whose project could not be made: it is tried again with the deal as it is now.
INSERT INTO atlvs.deals (organization_id, title, status, value, won_at) VALUES (:'acme', 'No date', 'won', 10, '2031-01-01') RETURNING id AS undated \gset
SELECT project_id, status, error_message FROM ex.rpc_deal_to_project(:'undated', 'ex-acme');
RESET ROLE;
CALL public.drain() \gset
SET ROLE regress_usher_admin;
UPDATE atlvs.deals SET event_date = '2031-08-01' WHERE id = :'undated';
SELECT project_id, status, error_message FROM ex.rpc_deal_to_project(:'undated', 'ex-acme');
RESET ROLE;
CALL public.drain() \gset
SET ROLE regress_usher_admin;
SELECT l.project_id = p.id::text AS project, l.status, p.starts_on FROM ex.rpc_deal_to_project(:'undated', 'ex-acme') AS l, atlvs.projects AS p WHERE p.deal_id = :'undated';
SELECT actor, action, new ->> 'event_date' AS event_date FROM ex.audit_log WHERE action = 'usher.sync_jobs.retried';
-- Won while no flow listened: said so. A project that somebody made by hand: linked.
RESET ROLE;
SELECT usher.remove_pack('live_events') AS gone \gset
SET ROLE regress_usher_admin;
INSERT INTO atlvs.deals (organization_id, title, status, value, event_date) VALUES (:'acme', 'Unheard', 'won', 10, '2031-07-04') RETURNING id AS unheard \gset
\set VERBOSITY sqlstate
SELECT ex.rpc_deal_to_project(:'unheard', 'ex-acme');
\set VERBOSITY default
INSERT INTO atlvs.projects (organization_id, deal_id, code, name) VALUES (:'acme', :'unheard', 'X-1', 'by hand');
SELECT project_id IS NOT NULL AS project, status, id IS NOT NULL AS linked FROM ex.rpc_deal_to_project(:'unheard', 'ex-acme');
SELECT count(*) AS links FROM ex.integration_deal_links WHERE deal_id = :'unheard';
-- Without its flow the request is not taken.
\set VERBOSITY sqlstate
SELECT ex.rpc_project_to_event(:'project', 'ex-acme', '{}');
\set VERBOSITY default

-- Jobs have four states; dead and cancelled ones say why.
RESET ROLE;
SELECT usher.create_system('ex.out', 'external');
SET ROLE regress_usher_admin;
SELECT id AS job FROM ex.rpc_enqueue_sync_job('ex-acme', 'ex', 'ex.out', '{"n": 1}') \gset
SELECT j = v AS same FROM (SELECT id, status, payload, attempts, priority, created_at, updated_at FROM ex.integration_sync_jobs WHERE id = :'job') AS j
  JOIN LATERAL (SELECT v.id, v.status, v.payload, v.attempts, v.priority, v.created_at, v.updated_at FROM ex.integration_sync_jobs v WHERE v.id = j.id) AS v ON true;
SELECT status, waiting_for, error_message FROM ex.integration_sync_jobs WHERE id = :'job';
SELECT status FROM usher.cancel_sync_job(:'job');
SELECT status, error_message, finished_at = updated_at AS ended FROM ex.integration_sync_jobs WHERE id = :'job';
RESET ROLE;
INSERT INTO usher.dead_letters (organization_id, id, seq, created_at, lane, hop, op, new, attempts, error_message, source_system, target_system)
    VALUES (:'acme', usher.uuid_v7(), 1, now(), 3, 0, 'R', '{"n": 2}', 4, 'no such thing', 'ex', 'ex.out');
SET ROLE regress_usher_member;
SELECT status, error_message, attempts FROM ex.integration_sync_jobs WHERE payload ->> 'n' = '2';
SELECT actor, action, new, correlation_id = id AS own, error_message FROM ex.audit_log WHERE action LIKE 'sync%' AND flow IS NULL ORDER BY created_at;
SELECT action, count(*) FROM ex.audit_log WHERE action LIKE 'sync%' AND flow LIKE 'live_events.%' GROUP BY 1 ORDER BY 1;
RESET ROLE;

-- It survives: a detach, a new definition, the extension's own end and return.
SELECT usher.detach_all() >= 0 AS detached;
SELECT count(*) AS views FROM pg_views WHERE schemaname = 'ex';
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT count(*) AS views FROM pg_views WHERE schemaname = 'ex';
SELECT count(*) AS functions FROM pg_proc WHERE pronamespace = 'ex'::regnamespace;
-- An older form: replaced, with what others were granted; one with other columns is made anew.
CREATE OR REPLACE FUNCTION ex.rpc_enqueue_sync_job(p_org_slug text, p_source_system text, p_target_system text, p_payload jsonb DEFAULT '{}') RETURNS ex.integration_sync_jobs LANGUAGE sql AS 'SELECT NULL::ex.integration_sync_jobs';
GRANT SELECT ON ex.audit_log TO regress_usher_nobody;
UPDATE usher.exposed_objects SET definition = 0 WHERE name IN ('rpc_enqueue_sync_job', 'audit_log');
SELECT usher.renew_api();
SELECT usher.renew_api();
SELECT has_table_privilege('regress_usher_nobody', 'ex.audit_log', 'SELECT') AS kept, (SELECT proconfig IS NOT NULL FROM pg_proc WHERE proname = 'rpc_enqueue_sync_job') AS renewed;
DROP FUNCTION ex.rpc_enqueue_sync_job, ex.rpc_project_to_event;
DROP VIEW ex.integration_sync_jobs;
CREATE VIEW ex.integration_sync_jobs AS SELECT 1 AS old_column;
COMMENT ON VIEW ex.integration_sync_jobs IS 'pg_usher: of an older version';
UPDATE usher.exposed_objects SET definition = 0 WHERE name = 'integration_sync_jobs';
SELECT usher.renew_api();
SELECT count(*) AS columns FROM information_schema.columns WHERE table_schema = 'ex' AND table_name = 'integration_sync_jobs';
SELECT has_table_privilege('usher_member', 'ex.integration_sync_jobs', 'SELECT') AS granted;
-- Somebody has taken a name meanwhile: it stays theirs.
DROP VIEW ex.audit_log;
CREATE TABLE ex.audit_log (mine integer);
SELECT replace(usher.setup(), usher.version(), 'VERSION') AS setup;
SELECT usher.expose_api('ex');
\echo :LAST_ERROR_SQLSTATE
SELECT relkind FROM pg_class WHERE oid = 'ex.audit_log'::regclass;
DROP TABLE ex.audit_log;
SELECT usher.expose_api('ex');
SELECT usher.detach_all() >= 0 AS detached;
SET client_min_messages = warning;
DROP EXTENSION pg_usher CASCADE;
CREATE EXTENSION pg_usher;
SELECT usher.setup() AS done \gset
RESET client_min_messages;
SELECT count(*) AS views FROM pg_views WHERE schemaname = 'ex';
SET ROLE regress_usher_admin;
SELECT count(*) AS links FROM ex.integration_asset_links;
RESET ROLE;

-- Two schemas side by side; taking back takes just what was made.
CREATE SCHEMA ex2;
SELECT usher.expose_api('ex2');
CREATE TABLE ex2.mine (a integer);
CREATE VIEW ex2.on_top AS SELECT status FROM ex2.integration_sync_jobs;
\set VERBOSITY sqlstate
SELECT usher.hide_api('ex2');
\set VERBOSITY default
DROP VIEW ex2.on_top;
SELECT usher.hide_api('ex2');
SELECT usher.hide_api('ex2');
\echo :LAST_ERROR_SQLSTATE
SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'ex2'::regnamespace;
SELECT count(*) AS still_in_the_other FROM pg_views WHERE schemaname = 'ex';
-- A schema that is gone is forgotten.
SET client_min_messages = warning;
DROP SCHEMA ex2 CASCADE;
SELECT usher.expose_api('ex') AS again \gset
DROP SCHEMA ex CASCADE;
RESET client_min_messages;
SELECT usher.renew_api();
SELECT count(*) AS objects FROM usher.exposed_objects;

SET client_min_messages = warning;
DROP SCHEMA atlvs, compvss, gvteway, live_events CASCADE;
DELETE FROM usher.dead_letters;
DELETE FROM usher.organizations WHERE slug LIKE 'ex-%';
DELETE FROM usher.systems WHERE name LIKE 'ex%';
DROP ROLE usher_live_events, regress_usher_op, regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_legend, regress_usher_reader, regress_usher_nobody;
