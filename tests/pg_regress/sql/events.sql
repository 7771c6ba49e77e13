-- The event bus: what listens, what it gets, and who may say that something has happened.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ev CASCADE;
DROP ROLE IF EXISTS regress_usher_ev, regress_usher_admin, regress_usher_member, regress_usher_stranger;
CREATE SCHEMA ev;
CREATE TABLE ev.heard (organization_id uuid NOT NULL, id uuid NOT NULL, flow text, type text, amount numeric, emitted_by text, PRIMARY KEY (organization_id, id, flow));
CREATE TABLE ev.totals (organization_id uuid NOT NULL, customer text NOT NULL, amount numeric CHECK (amount < 1000), PRIMARY KEY (organization_id, customer));
CREATE ROLE regress_usher_ev NOLOGIN;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA ev TO regress_usher_ev;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ev TO regress_usher_ev;
RESET client_min_messages;
SELECT usher.create_organization('ev-north') AS north \gset
SELECT usher.create_organization('ev-south') AS south \gset
SELECT usher.grant_membership('ev-north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('ev-north', 'role:regress_usher_member');

-- Patterns: * is one word, ** any number of them. (That nothing emits these yet is said elsewhere.)
SET client_min_messages = error;
SELECT usher.create_flow(name, format('{"run_as": "regress_usher_ev", "when": {"event": %s}, "then": {"insert": "ev.heard", "key": ["id", "flow"], "on_conflict": "keep"},
    "set": {"id": "event.id", "flow": %s, "type": "event.type", "amount": "(event.data ->> ''amount'')::numeric", "emitted_by": "event.emitted_by"}}',
    to_json(pattern), to_json(quote_literal(name)))::jsonb)
  FROM (VALUES ('ev_exact', 'ev.orders.paid'), ('ev_one', 'ev.orders.*'), ('ev_any', 'ev.**'), ('ev_end', '**.paid'), ('ev_other', 'ev.invoices.*')) AS f (name, pattern);
SELECT usher.create_flow('ev_total', '{"run_as": "regress_usher_ev", "priority": "high", "when": {"event": "ev.orders.paid"}, "if": "event.data ? ''customer''", "retry": {"delays": []},
    "then": {"upsert": "ev.totals", "key": ["customer"]}, "set": {"customer": "event.data ->> ''customer''", "amount": "(event.data ->> ''amount'')::numeric"}}');
RESET client_min_messages;
SELECT usher.explain_flow('ev_total') ~ 'when:    event ev\.orders\.paid' AS explained;

SELECT usher.emit_event('ev-north', 'ev.orders.paid', '{"customer": "ann", "amount": 12.5}') IS NOT NULL AS emitted;
SELECT usher.emit_event('ev-north', 'ev.orders.item.added', '{"amount": 3}') IS NOT NULL AS emitted;
SELECT usher.emit_event('ev-south', 'other.paid') IS NOT NULL AS emitted;
SELECT usher.emit_event('ev-south', 'other.things') IS NOT NULL AS heard_by_nobody;
SELECT o.slug, e.type, e.data, e.priority, e.emitted_by, e.hop FROM usher.events e JOIN usher.organizations o ON o.id = e.organization_id WHERE o.slug LIKE 'ev-%' ORDER BY e.id;
CALL public.drain() \gset
SELECT o.slug, h.flow, h.type, h.amount FROM ev.heard h JOIN usher.organizations o ON o.id = h.organization_id ORDER BY 1, 3, 2;
SELECT o.slug, t.customer, t.amount FROM ev.totals t JOIN usher.organizations o ON o.id = t.organization_id;
SELECT flow, priority, status, payload - 'id' - 'emitted_at' AS payload FROM usher.sync_jobs WHERE flow IN ('ev_total', 'ev_exact') ORDER BY created_at, flow;

-- One that fails keeps nobody else from hearing; a priority is for all who listen; rolled back, nothing has happened.
BEGIN;
SELECT usher.emit_event('ev-north', 'ev.orders.paid', '{"customer": "bob", "amount": 1}') IS NOT NULL AS emitted;
ROLLBACK;
SELECT usher.emit_event('ev-north', 'ev.orders.paid', '{"customer": "cid", "amount": 5000}', priority => 'critical') IS NOT NULL AS emitted;
SELECT DISTINCT priority FROM usher.sync_jobs WHERE payload #>> '{data,customer}' = 'cid';
CALL public.drain() \gset
SELECT count(*) FROM ev.heard WHERE amount = 5000;
SELECT flow, error_message ~ 'totals_amount_check' AS why FROM usher.dead_letters d JOIN usher.flow_versions v ON v.flow_id = d.flow_id AND v.version = d.flow_version CROSS JOIN LATERAL (SELECT v.name AS flow) AS n WHERE v.name LIKE 'ev_%';
SELECT count(*) FROM usher.events WHERE data ->> 'customer' = 'bob';

-- Off for one organization, and off for everybody: neither hears of it, then or later. Jobs of one that is paused wait.
SELECT usher.switch_flow('ev_any', 'ev-north', false);
SELECT usher.disable_flow('ev_one');
SELECT usher.emit_event('ev-north', 'ev.orders.sent', '{"amount": 7}') IS NOT NULL AS emitted;
CALL public.drain() \gset
SELECT flow FROM ev.heard WHERE type = 'ev.orders.sent';
SELECT usher.enable_flow('ev_one'), usher.switch_flow('ev_any', 'ev-north', true);
SELECT usher.pause_jobs(flow => 'ev_one') IS NOT NULL AS paused;
SELECT usher.emit_event('ev-north', 'ev.orders.sent', '{"amount": 8}') IS NOT NULL AS emitted;
CALL public.drain() \gset
SELECT flow FROM ev.heard WHERE type = 'ev.orders.sent';
SELECT usher.resume_jobs(flow => 'ev_one') IS NOT NULL AS resumed;
CALL public.drain() \gset
SELECT flow FROM ev.heard WHERE type = 'ev.orders.sent' ORDER BY 1;

-- One that is full holds its own jobs back, and refuses nobody's event.
SELECT usher.limit_queue(1, flow => 'ev_exact') AS refuses \gset
SELECT usher.limit_queue(1, flow => 'ev_one', action => 'delay') AS delays \gset
SELECT count(usher.emit_event('ev-north', 'ev.orders.paid', jsonb_build_object('amount', 100 + n))) FROM generate_series(1, 3) AS n;
SELECT flow, waiting_for, count(*) FROM usher.sync_jobs WHERE status = 'pending' AND flow IN ('ev_exact', 'ev_one') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT usher.unlimit_queue(:refuses), usher.unlimit_queue(:delays);
CALL public.drain() \gset
SELECT flow, count(*) FROM ev.heard WHERE amount > 100 AND amount < 200 GROUP BY 1 ORDER BY 1;

-- What it would do.
SELECT usher.preview_flow('ev_total', '{"type": "ev.orders.paid", "data": {"customer": "dan", "amount": 3}}', organization => 'ev-north') - 'organization_id' AS preview;

-- What an event leads to says so: an event of a flow's function is caused by its job.
SET client_min_messages = warning;
CREATE FUNCTION ev.relay(organization uuid, hops int) RETURNS void LANGUAGE sql AS
    $$ SELECT usher.emit_event(organization::text, 'ev.relay', jsonb_build_object('hops', hops + 1)) $$;
GRANT EXECUTE ON FUNCTION ev.relay TO regress_usher_ev;
GRANT usher_member TO regress_usher_ev;
SET client_min_messages = error;
SELECT usher.create_flow('ev_relay', '{"run_as": "regress_usher_ev", "when": {"event": "ev.relay"}, "then": {"call": "ev.relay"}, "retry": {"delays": []},
    "set": {"organization": "event.organization_id", "hops": "(event.data ->> ''hops'')::int"}}');
RESET client_min_messages;
SELECT usher.emit_event('ev-south', 'ev.relay', '{"hops": 0}') IS NOT NULL AS emitted;
CALL public.drain() \gset
SELECT e.hop, e.data, e.emitted_by, e.cause IS NOT NULL AS caused FROM usher.events e WHERE e.type = 'ev.relay' ORDER BY e.hop;
SELECT d.hop, d.error_message FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name = 'ev_relay';

-- Refused, with the reason.
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', 'Ev.Paid') $$);
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', 'ev.*') $$);
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', 'ev.paid', '[1]') $$);
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', 'ev.paid', priority => 'urgent') $$);
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', NULL) $$);
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', 'usher.paid') $$);
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', 'ev.paid', jsonb_build_object('a', repeat('x', 1048576))) $$);
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-nowhere', 'ev.paid') $$);
SELECT * FROM public.try($$ SELECT usher.create_flow('ev_bad', '{"when": {"event": "ev.**.**"}, "then": {"insert": "ev.heard"}, "set": {"id": "event.id"}}') $$);
SELECT * FROM public.try($$ SELECT usher.create_flow('ev_bad', '{"when": {"event": "ev.paid"}, "then": {"insert": "ev.heard"}, "set": {"id": "new.id"}}') $$);
SELECT * FROM public.try($$ SELECT usher.create_flow('ev_bad', '{"when": {"event": "ev.paid"}, "then": {"insert": "ev.heard"}, "set": {"id": "event.number"}}') $$);
SELECT * FROM public.try($$ SELECT usher.create_flow('ev_bad', '{"when": {"event": "ev.paid"}, "mode": "transactional", "then": {"insert": "ev.heard"}, "set": {"id": "event.id"}}') $$);
SELECT * FROM public.try($$ SELECT usher.create_flow('ev_bad', '{"when": {"event": "ev.paid", "on": ["insert"]}, "then": {"insert": "ev.heard"}, "set": {"id": "event.id"}}') $$);
SELECT * FROM public.try($$ SELECT usher.create_flow('ev_bad', '{"when": {"event": "ev.paid"}, "organization": "event.organization_id", "then": {"insert": "ev.heard"}, "set": {"id": "event.id"}}') $$);

-- Who may: admins emit, members read, strangers neither; nobody writes the table.
SET ROLE regress_usher_admin;
SELECT usher.emit_event('ev-north', 'ev.orders.seen') IS NOT NULL AS emitted;
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-south', 'ev.orders.seen') $$);
SELECT * FROM public.try($$ DELETE FROM usher.events $$);
SET ROLE regress_usher_member;
SELECT count(*) > 0 AS seen, bool_and(organization_id = :'north') AS own FROM usher.events;
SELECT * FROM public.try($$ SELECT usher.emit_event('ev-north', 'ev.orders.seen') $$);
SET ROLE regress_usher_stranger;
SELECT count(*) FROM usher.events;
RESET ROLE;
SELECT emitted_by FROM usher.events WHERE type = 'ev.orders.seen';

CALL public.drain() \gset
SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'ev\_%';
DELETE FROM usher.dead_letters;
DELETE FROM usher.notices;
SET client_min_messages = warning;
DROP SCHEMA ev CASCADE;
DROP OWNED BY regress_usher_ev, regress_usher_admin, regress_usher_member, regress_usher_stranger;
DROP ROLE regress_usher_ev, regress_usher_admin, regress_usher_member, regress_usher_stranger;
