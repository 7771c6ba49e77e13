-- Listeners outside the database, and events again for one that listens.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ls CASCADE;
DROP ROLE IF EXISTS regress_usher_ls, regress_usher_admin, regress_usher_member;
CREATE SCHEMA ls;
CREATE TABLE ls.heard (organization_id uuid NOT NULL, n bigint GENERATED ALWAYS AS IDENTITY, event uuid NOT NULL, type text, data jsonb);
CREATE ROLE regress_usher_ls NOLOGIN;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA ls TO regress_usher_ls;
GRANT SELECT, INSERT ON ls.heard TO regress_usher_ls;
SELECT usher.create_organization('ls-north') AS north \gset
SELECT usher.create_organization('ls-south') AS south \gset
SELECT usher.create_system('ls_local') \gset
SELECT usher.grant_membership('ls-north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('ls-north', 'role:regress_usher_member') \gset
-- What a claim hands out: without what differs from run to run.
CREATE FUNCTION ls.claim(system text, n int DEFAULT 100, lease interval DEFAULT '1 minute') RETURNS SETOF text LANGUAGE sql AS
    $$ SELECT concat_ws(' ', o.slug, priority, attempt, payload ->> 'type', payload -> 'data') FROM usher.claim_jobs(system, n, lease) c JOIN usher.organizations o ON o.id = c.organization_id $$;
GRANT USAGE ON SCHEMA ls TO PUBLIC;
GRANT EXECUTE ON FUNCTION ls.claim TO PUBLIC;
RESET client_min_messages;

-- Of one organization, by its admin; of all, by those who run the installation. An event that both or two patterns mean comes once.
SET ROLE regress_usher_admin;
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_shop', '{"events": ["ls.**"]}', 'ls-north') $$);
RESET ROLE;
SELECT usher.create_system('ls_shop', 'external');
SET ROLE regress_usher_admin;
SELECT usher.create_subscription('ls_shop', '{"events": ["ls.orders.*", "**.paid"]}', 'ls-north');
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_shop', '{"events": "ls.**"}') $$);
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_shop', '{"events": "ls.**"}', 'ls-south') $$);
RESET ROLE;
SELECT usher.create_subscription('ls_books', '{"events": "ls.**"}');
SELECT usher.create_subscription('ls_books', '{"events": ["ls.invoices.**"]}', 'ls-south');
SELECT s.system, o.slug, s.patterns, y.kind FROM usher.event_subscriptions s JOIN usher.systems y ON y.name = s.system LEFT JOIN usher.organizations o ON o.id = s.organization_id WHERE s.system LIKE 'ls%' ORDER BY 1, 2;
SELECT count(usher.emit_event(o, t, jsonb_build_object('n', n))) FROM (VALUES ('ls-north', 'ls.orders.paid', 1), ('ls-south', 'ls.orders.paid', 2), ('ls-north', 'ls.orders.sent', 3), ('ls-south', 'ls.invoices.made', 4), ('ls-north', 'other.paid', 5), ('ls-north', 'other', 6)) AS e (o, t, n);
BEGIN;
SELECT usher.emit_event('ls-north', 'ls.orders.paid', '{"n": 7}') IS NOT NULL AS emitted;
ROLLBACK;
SELECT usher.emit_event('ls-north', 'ls.orders.urgent', '{"n": 8}', 'emergency') IS NOT NULL AS emitted;
SELECT * FROM ls.claim('ls_books');
SET ROLE regress_usher_admin;
SELECT * FROM ls.claim('ls_shop', 2);
SELECT * FROM ls.claim('ls_books');
SET ROLE regress_usher_member;
SELECT * FROM public.try($$ SELECT * FROM ls.claim('ls_shop', 2) $$);
SELECT system, organization_id = :'north' AS own FROM usher.event_subscriptions WHERE system LIKE 'ls%';
RESET ROLE;
-- A claim that is rolled back was none; what is answered is gone, what is not comes again when the lease has ended.
BEGIN;
SELECT * FROM ls.claim('ls_shop');
ROLLBACK;
SELECT c.payload ->> 'type' AS type, (usher.finish_job(c.job, c.lease)).status FROM usher.claim_jobs('ls_shop', 1) AS c;
SELECT c.payload ->> 'type' AS type, (usher.fail_job(c.job, c.lease, 'not now', retry_after => '0 s')).status FROM usher.claim_jobs('ls_shop', 1) AS c;
SELECT c.payload ->> 'type' AS type, c.attempt, (usher.fail_job(c.job, c.lease, 'never', permanent => true)).status FROM usher.claim_jobs('ls_shop', 1) AS c;
SELECT payload ->> 'type' AS type, status, attempts, error_message FROM usher.sync_jobs WHERE target_system = 'ls_shop' ORDER BY created_at, id;
SELECT usher.retry_dead_letters('ls-north', '{"target": "ls_shop"}');
SELECT * FROM ls.claim('ls_shop');
SELECT usher.drop_subscription('ls_shop', 'ls-north');
SELECT usher.emit_event('ls-north', 'ls.orders.paid', '{"n": 9}') IS NOT NULL AS emitted;
SELECT count(*) FROM usher.queue_waiting WHERE target_system = 'ls_shop' AND new #>> '{data,n}' = '9';
SELECT * FROM public.try($$ SELECT usher.drop_subscription('ls_shop', 'ls-north') $$);
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_local', '{"events": "a"}') $$);
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_shop', '{"event": "a"}') $$);
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_shop', '{"events": []}') $$);
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_shop', '{"events": ["a..b"]}') $$);
SELECT * FROM public.try($$ SELECT usher.create_subscription('ls_shop', NULL) $$);

-- What a flow emits reaches them too, with its cause.
SET client_min_messages = error;
SELECT usher.create_flow('ls_relay', '{"run_as": "regress_usher_ls", "when": {"event": "ls.orders.paid"}, "then": {"emit": "ls.relayed"}, "set": {"n": "event.data -> ''n''"}}');
SELECT usher.emit_event('ls-south', 'ls.orders.paid', '{"n": 10}') IS NOT NULL AS emitted;
CALL public.drain() \gset
SELECT w.hop, w.cause IS NOT NULL AS caused, w.new -> 'data' AS data FROM usher.queue_waiting w WHERE w.target_system = 'ls_books' AND w.new ->> 'type' = 'ls.relayed';
SELECT usher.drop_flow('ls_relay');

-- Events again: for a flow that was not there, those that it listens to, in their order, and no other's jobs.
SELECT usher.create_flow('ls_late', '{"run_as": "regress_usher_ls", "when": {"event": "ls.**"}, "then": {"insert": "ls.heard"}, "set": {"event": "event.id", "type": "event.type", "data": "event.data"}}');
SELECT usher.create_flow('ls_other', '{"run_as": "regress_usher_ls", "when": {"event": "**"}, "then": {"insert": "ls.heard"}, "set": {"event": "event.id", "type": "''other''"}}');
RESET client_min_messages;
CALL public.drain() \gset
SELECT count(*) FROM ls.heard;
SELECT usher.replay_events('ls_late', now() - interval '1 hour') AS work \gset
CALL public.drain() \gset
SELECT o.slug, string_agg(h.data ->> 'n', ' ' ORDER BY h.n) AS n, count(DISTINCT h.event) AS events FROM ls.heard h JOIN usher.organizations o ON o.id = h.organization_id GROUP BY 1 ORDER BY 1;
SELECT kind, flow, state, done = total AS whole, jobs, failed FROM usher.progress WHERE id = :'work';
SELECT DISTINCT priority, status FROM usher.sync_jobs WHERE flow = 'ls_late';
-- Some of the types, of a time; an organization that has switched the flow off hears nothing.
SELECT usher.switch_flow('ls_late', 'ls-south', false) AS off \gset
TRUNCATE ls.heard;
SELECT usher.replay_events('ls_late', now() - interval '1 hour', types => '*.orders.*') AS work \gset
SELECT * FROM public.try($$ SELECT usher.replay_events('ls_late', now() - interval '1 hour') $$);
CALL public.drain() \gset
SELECT o.slug, string_agg(h.data ->> 'n', ' ' ORDER BY h.n) AS n FROM ls.heard h JOIN usher.organizations o ON o.id = h.organization_id GROUP BY 1 ORDER BY 1;
SELECT usher.switch_flow('ls_late', 'ls-south', true) AS on \gset
TRUNCATE ls.heard;
SELECT p.pattern, usher.replay_events('ls_late', now() - interval '1 hour', types => p.pattern) IS NOT NULL AS begun FROM (VALUES ('**.paid')) AS p (pattern);
CALL public.drain() \gset
SELECT string_agg(DISTINCT type, ' ') FROM ls.heard;
-- While it is off its replay waits; then it goes on.
TRUNCATE ls.heard;
SELECT usher.disable_flow('ls_late');
SELECT usher.replay_events('ls_late', now() - interval '1 hour', types => 'ls.invoices.**') AS work \gset
CALL public.drain() \gset
SELECT state, done FROM usher.progress WHERE id = :'work';
SELECT usher.enable_flow('ls_late');
CALL public.drain() \gset
SELECT state, jobs FROM usher.progress WHERE id = :'work';
SELECT type FROM ls.heard;
SELECT * FROM public.try($$ SELECT usher.replay_events('ls_late', now() + interval '1 hour') $$);
SELECT * FROM public.try($$ SELECT usher.replay_events('ls_late', now() - interval '1 hour', types => 'a..b') $$);
SELECT * FROM public.try($$ SELECT usher.replay_events('ls_nobody', now() - interval '1 hour') $$);
SELECT usher.create_flow('ls_rows', '{"run_as": "regress_usher_ls", "when": {"change": "ls.heard", "on": ["delete"]}, "then": {"insert": "ls.heard"}, "set": {"event": "old.event"}}');
SELECT * FROM public.try($$ SELECT usher.replay_events('ls_rows', now() - interval '1 hour') $$);
SET ROLE regress_usher_admin;
SELECT * FROM public.try($$ SELECT usher.replay_events('ls_late', now() - interval '1 hour') $$);
RESET ROLE;

SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'ls\_%';
SELECT usher.drop_subscription('ls_books'), usher.drop_subscription('ls_books', 'ls-south');
CALL public.drain() \gset
DELETE FROM usher.queue_waiting WHERE target_system LIKE 'ls%';
DELETE FROM usher.dead_letters;
DELETE FROM usher.notices;
SET client_min_messages = warning;
DROP SCHEMA ls CASCADE;
DROP OWNED BY regress_usher_ls, regress_usher_admin, regress_usher_member;
DROP ROLE regress_usher_ls, regress_usher_admin, regress_usher_member;
