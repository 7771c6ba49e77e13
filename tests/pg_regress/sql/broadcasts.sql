-- Emergency events whose receipt is followed, and what is told when somebody has not received one in time.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS bc CASCADE;
DROP ROLE IF EXISTS regress_usher_bc, regress_usher_admin, regress_usher_member;
CREATE SCHEMA bc;
CREATE TABLE bc.heard (organization_id uuid NOT NULL, event uuid NOT NULL, data jsonb);
CREATE ROLE regress_usher_bc NOLOGIN;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA bc TO regress_usher_bc;
GRANT SELECT, INSERT ON bc.heard TO regress_usher_bc;
SELECT usher.create_organization('bc-north') AS north \gset
SELECT usher.create_organization('bc-south') AS south \gset
SELECT usher.grant_membership('bc-north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('bc-south', 'role:regress_usher_member') \gset
SET client_min_messages = error;
SELECT usher.create_flow('bc_quick', '{"run_as": "regress_usher_bc", "when": {"event": "bc.**"}, "then": {"insert": "bc.heard"}, "set": {"event": "event.id", "data": "event.data"}}') \gset
SELECT usher.create_flow('bc_fails', '{"run_as": "regress_usher_bc", "retry": {"delays": []}, "when": {"event": "bc.fire"}, "then": {"insert": "bc.heard"}, "check": {"a place": "data ? ''place''"}, "set": {"event": "event.id", "data": "event.data"}}') \gset
SELECT usher.create_flow('bc_escalated', '{"run_as": "regress_usher_bc", "when": {"event": "usher.broadcast.*"}, "then": {"insert": "bc.heard"}, "set": {"event": "event.id", "data": "event.data"}}') \gset
RESET client_min_messages;
SELECT usher.create_subscription('bc_outside', '{"events": "bc.*"}');

-- Received by the one, not by the others; told once.
SET ROLE regress_usher_admin;
SELECT usher.broadcast_event('bc-north', 'bc.fire', '{"floor": 3}', '1 hour') AS fire \gset
SELECT receiver, outside, state, received_at, error FROM usher.event_receipts(:'fire');
RESET ROLE;
SELECT priority, status FROM usher.sync_jobs WHERE payload ->> 'id' = :'fire';
CALL public.drain() \gset
SELECT receiver, outside, state, received_at IS NOT NULL AS at, error FROM usher.event_receipts(:'fire');
SELECT type, due_at - broadcast_at AS within, broadcast_by, settled_at, escalated FROM usher.broadcasts WHERE event_id = :'fire';
SELECT count(*) AS told_before_its_time FROM usher.events WHERE type = 'usher.broadcast.unacknowledged';
UPDATE usher.broadcasts SET due_at = clock_timestamp() WHERE event_id = :'fire';
CALL public.drain() \gset
CALL public.drain() \gset
SELECT settled_at IS NOT NULL AS settled, escalated FROM usher.broadcasts WHERE event_id = :'fire';
SELECT o.slug, e.emitted_by, e.data - 'event' AS data, e.data ->> 'event' = :'fire' AS of_it FROM usher.events e JOIN usher.organizations o ON o.id = e.organization_id WHERE e.type = 'usher.broadcast.unacknowledged';
SELECT o.slug, n.kind, n.severity, n.subject, n.failures, n.body #>> '{unreceived,1,receiver}' AS second FROM usher.notices n JOIN usher.organizations o ON o.id = n.organization_id WHERE n.kind = 'broadcast unacknowledged';
SELECT count(*) FROM bc.heard WHERE data ->> 'type' = 'bc.fire';
-- Late, and after it was mended.
SELECT (usher.finish_job(c.job, c.lease)).status FROM usher.claim_jobs('bc_outside', 1) AS c;
SELECT usher.retry_dead_letters('bc-north', '{"flow": "bc_fails"}', '{"data": {"place": "hall"}}');
CALL public.drain() \gset
SELECT receiver, state, received_at IS NOT NULL AS at FROM usher.event_receipts(:'fire');

-- All in time: nobody is told. A part that is cancelled has not received it.
SELECT usher.broadcast_event('bc-north', 'bc.water', acknowledge_within => '1 hour') AS water \gset
CALL public.drain() \gset
SELECT (usher.finish_job(c.job, c.lease)).status FROM usher.claim_jobs('bc_outside', 1) AS c;
UPDATE usher.broadcasts SET due_at = clock_timestamp() WHERE event_id = :'water';
CALL public.drain() \gset
SELECT settled_at IS NOT NULL AS settled, escalated FROM usher.broadcasts WHERE event_id = :'water';
SELECT usher.broadcast_event('bc-north', 'bc.storm') AS storm \gset
SELECT (usher.cancel_sync_job(id)).status FROM usher.sync_jobs WHERE payload ->> 'id' = :'storm' AND target_system = 'bc_outside';
CALL public.drain() \gset
SELECT receiver, state FROM usher.event_receipts(:'storm');
SELECT count(*) AS told FROM usher.events WHERE type = 'usher.broadcast.unacknowledged';

-- A deadline passes also while a full queue refuses changes and events: what pg_usher itself says, nothing refuses.
CREATE TABLE bc.rooms (organization_id uuid NOT NULL, n integer);
SELECT usher.create_flow('bc_rooms', '{"run_as": "regress_usher_bc", "when": {"change": "bc.rooms", "on": ["insert"]}, "then": {"emit": "bc.room"}}');
SELECT usher.broadcast_event('bc-north', 'bc.flood', acknowledge_within => '1 hour') AS flood \gset
CALL public.drain() \gset
SELECT usher.limit_queue(1, organization => 'bc-north', captured => true) AS full \gset
INSERT INTO bc.rooms VALUES (:'north', 1);
SELECT * FROM public.try(format('INSERT INTO bc.rooms VALUES (%L, 2)', :'north'));
SELECT * FROM public.try($$ SELECT usher.emit_event('bc-north', 'bc.room') $$);
UPDATE usher.broadcasts SET due_at = clock_timestamp() WHERE event_id = :'flood';
-- Deadlines are looked at before jobs: while it is full.
SELECT usher.process_jobs(1) AS jobs;
SELECT settled_at IS NOT NULL AS settled, escalated FROM usher.broadcasts WHERE event_id = :'flood';
SELECT count(*) AS told FROM usher.events WHERE type = 'usher.broadcast.unacknowledged' AND data ->> 'event' = :'flood';
SELECT usher.unlimit_queue(:full);
CALL public.drain() \gset
-- What is in the way of telling keeps no job back; it is told as soon as that is gone.
CREATE FUNCTION bc.in_the_way() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
CREATE TRIGGER in_the_way BEFORE INSERT ON usher.events FOR EACH ROW WHEN (NEW.type LIKE 'usher.%') EXECUTE FUNCTION bc.in_the_way();
SELECT usher.broadcast_event('bc-north', 'bc.gas', acknowledge_within => '1 hour') AS gas \gset
UPDATE usher.broadcasts SET due_at = clock_timestamp() WHERE event_id = :'gas';
CALL public.drain() \gset
SELECT settled_at IS NOT NULL AS settled, escalated FROM usher.broadcasts WHERE event_id = :'gas';
SELECT receiver, state FROM usher.event_receipts(:'gas');
DROP TRIGGER in_the_way ON usher.events;
CALL public.drain() \gset
SELECT settled_at IS NOT NULL AS settled, escalated FROM usher.broadcasts WHERE event_id = :'gas';
SELECT count(*) AS told FROM usher.events WHERE type = 'usher.broadcast.unacknowledged' AND data ->> 'event' = :'gas';

-- Rolled back, it was none. Nobody listens: said at once.
BEGIN;
SELECT usher.broadcast_event('bc-north', 'bc.false') AS false \gset
ROLLBACK;
SELECT count(*) FROM usher.broadcasts WHERE type = 'bc.false';
SELECT usher.broadcast_event('bc-south', 'elsewhere.fire') AS nobody \gset
SELECT count(*) FROM usher.event_receipts(:'nobody');

-- Who may.
SET ROLE regress_usher_member;
SELECT * FROM public.try($$ SELECT usher.broadcast_event('bc-south', 'bc.fire') $$);
SELECT count(*) FROM usher.broadcasts;
SELECT replace(t.try, :'fire', '…') AS try FROM public.try(format('SELECT * FROM usher.event_receipts(%L)', :'fire')) AS t;
RESET ROLE;
SELECT * FROM public.try($$ SELECT usher.broadcast_event('bc-north', 'bc.fire', acknowledge_within => '0 s') $$);
SELECT * FROM public.try($$ SELECT usher.broadcast_event('bc-north', 'bc.fire', acknowledge_within => '8 days') $$);
SELECT * FROM public.try($$ SELECT usher.broadcast_event('bc-north', 'bc.*') $$);
SELECT * FROM public.try($$ SELECT * FROM usher.event_receipts(NULL) $$);

SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'bc\_%';
SELECT usher.drop_subscription('bc_outside');
CALL public.drain() \gset
DELETE FROM usher.broadcasts;
DELETE FROM usher.queue_waiting WHERE target_system LIKE 'bc%';
DELETE FROM usher.dead_letters;
DELETE FROM usher.notices;
SET client_min_messages = warning;
DROP SCHEMA bc CASCADE;
DROP OWNED BY regress_usher_bc, regress_usher_admin, regress_usher_member;
DROP ROLE regress_usher_bc, regress_usher_admin, regress_usher_member;
