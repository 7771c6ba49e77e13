-- The pack live_events: installing, its story (W1, W25, W9), removing.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS atlvs, compvss, gvteway, live_events CASCADE;
DROP ROLE IF EXISTS usher_live_events, regress_usher_op, regress_usher_super, regress_usher_admin, regress_usher_worker;
RESET client_min_messages;
SELECT usher.install_pack('live_event');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.install_pack('');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.remove_pack('wedding');
\echo :LAST_ERROR_SQLSTATE
-- Its flows never run as a superuser.
CREATE ROLE regress_usher_super SUPERUSER NOLOGIN;
SELECT usher.install_pack('live_events', run_as => 'regress_usher_super');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.install_pack('live_events', 'regress_usher_nobody');
\echo :LAST_ERROR_SQLSTATE
DROP ROLE regress_usher_super;
-- A table of that name that somebody else made stops it, and nothing is left behind.
CREATE SCHEMA compvss;
CREATE TABLE compvss.productions (id integer);
\set VERBOSITY terse
SELECT usher.install_pack('live_events');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
SELECT nspname FROM pg_namespace WHERE nspname IN ('atlvs', 'gvteway', 'live_events');
SELECT rolname FROM pg_roles WHERE rolname = 'usher_live_events';
DROP TABLE compvss.productions;
DROP SCHEMA compvss;
-- Twice: the second time nothing is new.
SELECT regexp_replace(regexp_replace(usher.install_pack('live_events'), ' \d+\.\d+\.\d+', ' VERSION'), '\d{2,} flows', 'N flows') AS installed;
SELECT regexp_replace(regexp_replace(usher.install_pack('live_events'), ' \d+\.\d+\.\d+', ' VERSION'), '\d{2,} flows', 'N flows') AS again;
SELECT version, enabled, state, run_as, definition->>'mode' AS mode, count(*) > 0 AS flows FROM usher.flows WHERE pack = 'live_events' AND strpos(name, ':') = 0 GROUP BY 1, 2, 3, 4, 5 ORDER BY 5;
SELECT count(*) AS flows_of_no_workflow FROM usher.flows f WHERE pack = 'live_events' AND strpos(name, ':') = 0 AND NOT EXISTS (SELECT FROM usher.pack_workflows('live_events') w WHERE w.part = f.name);
SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = 'usher_live_events';
SELECT tgrelid::regclass AS relation, string_agg(tgname, ' ' ORDER BY tgname) AS triggers FROM pg_trigger WHERE tgfoid IN ('usher.capture()'::regprocedure, 'usher.capture_statement()'::regprocedure) GROUP BY 1 ORDER BY tgrelid::regclass::text;
SELECT n.nspname, c.relrowsecurity, count(*) AS tables FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('atlvs', 'compvss', 'gvteway', 'live_events') AND c.relkind = 'r' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT p.oid::regprocedure AS open_to_public FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('atlvs', 'compvss', 'gvteway', 'live_events') AND has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1;

-- What comes by the clock would come here whenever a minute begins.
SELECT count(usher.disable_flow(name)) > 0 AS by_the_clock FROM usher.flows WHERE pack = 'live_events' AND definition -> 'when' ? 'schedule' \gset
SELECT usher.create_organization('pk-acme') AS acme \gset
SELECT usher.create_organization('pk-beta') AS beta \gset
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
SELECT usher.grant_membership('pk-acme', 'role:regress_usher_admin', 'admin');

-- W1: a deal that is won becomes a project in the same transaction, and a production after it.
INSERT INTO atlvs.deals (organization_id, title, value, event_date, venue_name, venue_timezone, expected_attendance, metadata)
    VALUES (:'acme', ' Summer Night ', 50000, '2031-07-04', 'Waldbühne', 'Europe/Berlin', 2000, '{"lineup": ["A", "B"], "internal": true}');
BEGIN;
UPDATE atlvs.deals SET status = 'won', won_at = '2030-12-31 23:30:00+00';
SELECT d.status, p.code, p.name, p.phase, p.budget_total, p.currency, p.starts_on, p.ends_on FROM atlvs.deals d JOIN atlvs.projects p ON p.deal_id = d.id;
COMMIT;
SELECT c.old_status, c.new_status FROM atlvs.deal_status_changes c ORDER BY c.changed_at;
CALL public.drain();
SELECT p.code, p.name, p.status, p.venue_name, p.timezone, p.starts_at AT TIME ZONE 'UTC' AS starts_utc, p.ends_at AT TIME ZONE 'UTC' AS ends_utc, p.capacity, p.projected_attendance, j.code AS project
  FROM compvss.productions p JOIN atlvs.projects j ON j.id = p.project_ref;
-- W25: the production asked for its event.
SELECT e.title, e.status, e.venue_name, e.timezone, e.capacity, e.lineup, replace(e.slug, right(p.id::text, 12), 'TAIL') AS slug
  FROM gvteway.events e JOIN compvss.productions p ON p.id = e.production_ref;
SELECT kind, left_system, right_system, flow, status,
       CASE kind WHEN 'deal' THEN left_id = (SELECT id::text FROM atlvs.deals) AND right_id = (SELECT id::text FROM atlvs.projects)
                 WHEN 'project' THEN left_id = (SELECT id::text FROM atlvs.projects) AND right_id = (SELECT id::text FROM compvss.productions)
                 WHEN 'event' THEN left_id = (SELECT id::text FROM atlvs.projects) AND right_id = (SELECT id::text FROM gvteway.events) END AS pair
  FROM usher.links WHERE organization_id = :'acme' ORDER BY kind;
SELECT flow, status, count(*) FROM usher.sync_jobs WHERE organization_id = :'acme' GROUP BY 1, 2 ORDER BY 1, 2;
-- Winning again changes nothing.
UPDATE atlvs.deals SET status = 'proposal';
UPDATE atlvs.deals SET status = 'won';
CALL public.drain();
SELECT (SELECT count(*) FROM atlvs.projects) AS projects, (SELECT count(*) FROM compvss.productions) AS productions, (SELECT count(*) FROM gvteway.events) AS events,
       (SELECT last_number FROM atlvs.project_codes) AS codes;
-- By hand: once, too; for a production of another organization it is refused.
SELECT id AS production FROM compvss.productions \gset
SET ROLE regress_usher_admin;
SELECT status FROM usher.enqueue_sync_job('pk-acme', 'compvss', 'gvteway', jsonb_build_object('action', 'create_event', 'production_id', :'production'));
RESET ROLE;
SELECT status FROM usher.enqueue_sync_job('pk-beta', 'compvss', 'gvteway', jsonb_build_object('action', 'create_event', 'production_id', :'production'));
CALL public.drain();
SELECT o.slug, j.flow, j.status, j.error_message FROM usher.sync_jobs j JOIN usher.organizations o ON o.id = j.organization_id WHERE j.payload->>'action' = 'create_event' ORDER BY 1, 3, j.created_at;
SELECT count(*) AS events FROM gvteway.events;
-- W25, later: what changes in the production reaches the event.
UPDATE compvss.productions SET name = 'Summer Nights', venue_name = 'Arena', capacity = 2500, metadata = '{"lineup": ["C"]}';
CALL public.drain();
SELECT title, venue_name, capacity, lineup, version FROM gvteway.events;
-- W9: the phase of the project follows the production, and a cancelled project cancels it.
UPDATE compvss.productions SET status = 'advancing';
CALL public.drain() \gset
SELECT phase FROM atlvs.projects;
UPDATE compvss.productions SET status = 'load_in';
UPDATE compvss.productions SET status = 'show';
UPDATE compvss.productions SET status = 'wrapped';
CALL public.drain() \gset
SELECT phase FROM atlvs.projects;
UPDATE atlvs.projects SET phase = 'cancelled';
CALL public.drain() \gset
SELECT p.phase, c.status FROM atlvs.projects p, compvss.productions c;
UPDATE compvss.productions SET status = 'planning';
CALL public.drain() \gset
UPDATE atlvs.projects SET phase = 'closed';
UPDATE compvss.productions SET status = 'cancelled';
CALL public.drain() \gset
SELECT p.phase, c.status FROM atlvs.projects p, compvss.productions c;
SELECT flow, status, count(*) FROM usher.sync_jobs WHERE organization_id = :'acme' AND status NOT IN ('synced') GROUP BY 1, 2 ORDER BY 1, 2;

-- Its people: an admin reads and writes the rows of the own organization, and sees no other's.
INSERT INTO atlvs.deals (organization_id, title, value, event_date) VALUES (:'beta', 'not yours', 1, '2031-01-01');
SET ROLE regress_usher_admin;
SELECT count(*) AS deals, count(*) FILTER (WHERE title = 'not yours') AS foreign FROM atlvs.deals;
INSERT INTO atlvs.deals (organization_id, title, value, event_date, won_at) VALUES (:'acme', 'by its admin', 1, '2031-01-01', '2031-01-01');
UPDATE atlvs.deals SET status = 'won' WHERE title = 'by its admin';
SELECT name, code FROM atlvs.projects WHERE name = 'by its admin';
INSERT INTO atlvs.deals (organization_id, title, value, event_date) VALUES (:'beta', 'smuggled', 1, '2031-01-01');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
CALL public.drain() \gset

-- What is missing is said, and the deal stays won. Codes count per organization and year, and a win that fails takes none.
INSERT INTO atlvs.deals (organization_id, title, value, event_date, status, won_at) VALUES (:'beta', 'no date', 1, NULL, 'won', '2033-01-01'), (:'beta', 'bad value', -1, '2031-01-01', 'won', '2033-01-01'),
    (:'beta', 'fine', 0, '2031-01-01', 'won', '2033-01-01'), (:'acme', 'also fine', 1, '2031-01-01', 'won', '2033-01-01');
SELECT title, status FROM atlvs.deals WHERE title IN ('no date', 'bad value', 'fine', 'also fine') ORDER BY 1;
SELECT o.slug, p.name, p.code FROM atlvs.projects p JOIN usher.organizations o ON o.id = p.organization_id WHERE p.name LIKE '%fine' ORDER BY 1;
CALL public.drain() \gset
SELECT j.payload->'new'->>'title' AS deal, j.error_message FROM usher.sync_jobs j
 WHERE j.flow = 'live_events.create_project_from_won_deal' AND j.status <> 'synced' ORDER BY 1;
SELECT c.payload->'new'->>'event_date' AS event_date FROM usher.sync_jobs j, LATERAL usher.retry_sync_job(j.id, '{"event_date": "2031-02-03"}') AS c
 WHERE j.flow = 'live_events.create_project_from_won_deal' AND j.payload->'new'->>'title' = 'no date' AND j.status <> 'synced';
CALL public.drain() \gset
SELECT name, starts_on, code FROM atlvs.projects WHERE name = 'no date';
-- A thousand at once.
INSERT INTO atlvs.deals (organization_id, title, value, event_date, won_at) SELECT :'beta', 'deal ' || g, g, '2032-01-01', '2032-01-01' FROM generate_series(1, 1000) AS g;
UPDATE atlvs.deals SET status = 'won' WHERE title LIKE 'deal %';
SELECT count(*), count(DISTINCT code) AS codes, min(code), max(code) FROM atlvs.projects WHERE name LIKE 'deal %';
CALL public.drain() \gset
SELECT count(*) AS events FROM gvteway.events WHERE title LIKE 'deal %';

-- Flows know in which zone an organization's days begin.
SELECT usher.create_organization('pk-far', 'Far', 'Pacific/Kiritimati') AS far \gset
SET ROLE usher_live_events;
SELECT atlvs.local_day(:'far', '2030-01-01 12:00+00'), atlvs.local_day(:'acme', '2030-01-01 12:00+00');
RESET ROLE;
DELETE FROM usher.organizations WHERE slug = 'pk-far';

-- Removing: the flows go, tables and rows stay. Installing again goes on from there.
SELECT regexp_replace(usher.remove_pack('live_events'), '\d{2,} flows', 'N flows') AS removed;
SELECT usher.remove_pack('live_events');
SELECT count(*) AS flows FROM usher.flows WHERE pack = 'live_events';
SELECT count(*) AS triggers FROM pg_trigger WHERE tgfoid = 'usher.capture()'::regprocedure;
SELECT count(*) > 1000 AS events FROM gvteway.events;
CREATE ROLE regress_usher_worker NOLOGIN;
SELECT regexp_replace(regexp_replace(usher.install_pack('live_events', 'regress_usher_worker'), ' \d+\.\d+\.\d+', ' VERSION'), '\d{2,} flows', 'N flows') AS installed;
SELECT DISTINCT run_as FROM usher.flows WHERE pack = 'live_events';
INSERT INTO atlvs.deals (organization_id, title, value, event_date, status) VALUES (:'beta', 'by another role', 1, '2031-01-01', 'won');
CALL public.drain() \gset
SELECT count(*) AS events FROM gvteway.events WHERE title = 'by another role';
SELECT regexp_replace(usher.remove_pack('live_events'), '\d{2,} flows', 'N flows') AS removed;
SET client_min_messages = warning;
DROP SCHEMA atlvs, compvss, gvteway, live_events CASCADE;
DELETE FROM usher.organizations WHERE slug LIKE 'pk-%';
DROP ROLE usher_live_events, regress_usher_admin, regress_usher_worker;
