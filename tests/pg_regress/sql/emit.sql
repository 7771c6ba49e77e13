-- Flows that emit: what comes of it, which circles are refused, and that a type nobody emits is told.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS em CASCADE;
DROP ROLE IF EXISTS regress_usher_em;
CREATE SCHEMA em;
CREATE TABLE em.orders (organization_id uuid NOT NULL, id bigint NOT NULL, status text, amount numeric, PRIMARY KEY (organization_id, id));
CREATE TABLE em.heard (organization_id uuid NOT NULL, event uuid NOT NULL, flow text NOT NULL, type text, data jsonb, PRIMARY KEY (organization_id, event, flow));
CREATE TABLE em.log (organization_id uuid NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text);
CREATE ROLE regress_usher_em NOLOGIN;
GRANT USAGE ON SCHEMA em TO regress_usher_em;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA em TO regress_usher_em;
SELECT usher.create_organization('em-north') AS north \gset
SELECT usher.create_organization('em-south') AS south \gset
-- A flow of this role, and what hears of an event.
CREATE FUNCTION em.flow(name text, definition jsonb) RETURNS text LANGUAGE sql AS
    $$ SELECT usher.create_flow(name, '{"run_as": "regress_usher_em", "retry": {"delays": []}}' || definition) $$;
CREATE FUNCTION em.listener(name text, pattern text) RETURNS text LANGUAGE sql AS
    $$ SELECT em.flow(name, format('{"when": {"event": %s}, "then": {"insert": "em.heard", "key": ["event", "flow"], "on_conflict": "keep"},
                                     "set": {"event": "event.id", "flow": %s, "type": "event.type", "data": "event.data"}}', to_json(pattern), to_json(quote_literal(name)))::jsonb) $$;
RESET client_min_messages;

-- Of a change, a request, a schedule and an event, in every mode; "if" and checks work as for tables.
SELECT em.flow('em_paid', '{"when": {"change": "em.orders"}, "if": "new.status = ''paid''", "then": {"emit": "em.orders.paid"},
    "check": {"the amount is positive": "amount > 0"}, "set": {"order_id": "new.id", "amount": "new.amount", "source": "''shop''", "none": "NULL"}}');
SELECT em.flow('em_seen', '{"when": {"change": "em.orders", "on": ["insert"]}, "mode": "transactional", "then": {"emit": "em.orders.seen"}, "set": {"order_id": "new.id"}}');
SELECT em.flow('em_gone', '{"when": {"change": "em.orders", "on": ["delete"]}, "mode": "async", "then": {"emit": "em.orders.gone"}, "set": {"order_id": "old.id"}}');
SELECT em.flow('em_many', '{"when": {"change": "em.orders", "on": ["insert"]}, "mode": "batch", "batch": {"size": 6, "window": "1h"}, "then": {"emit": "em.orders.gathered"}}');
SELECT em.flow('em_asked', '{"from": "em_shop", "to": "em_books", "when": {"request": "tell"}, "then": {"emit": "em.told"}, "set": {"what": "job.payload"}}');
SELECT em.listener('em_hears', 'em.orders.*');
SELECT em.flow('em_chain', '{"when": {"event": "em.orders.paid"}, "then": {"emit": "em.mails.due"}, "set": {"about": "event.data ->> ''order_id''", "of": "event.type"}}');
SELECT em.listener('em_mails', 'em.mails.**');
SELECT usher.explain_flow('em_paid') ~ 'to_jsonb\(v' AS explained;
SELECT usher.preview_flow('em_paid', jsonb_build_object('organization_id', :'north', 'id', 1, 'status', 'paid', 'amount', 5)) AS preview;
SELECT usher.preview_flow('em_paid', jsonb_build_object('organization_id', :'north', 'id', 1, 'status', 'paid', 'amount', -5)) AS preview;

BEGIN;
INSERT INTO em.orders SELECT o, n, CASE WHEN n % 2 = 0 THEN 'paid' ELSE 'open' END, n - 4 FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(1, 6) AS n;
SELECT count(*) AS transactional FROM usher.events WHERE type = 'em.orders.seen';
ROLLBACK;
SELECT count(*) AS rolled_back FROM usher.events WHERE type LIKE 'em.%';
INSERT INTO em.orders SELECT o, n, CASE WHEN n % 2 = 0 THEN 'paid' ELSE 'open' END, n - 4 FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(1, 6) AS n;
SELECT count(*) AS transactional, count(DISTINCT organization_id) AS organizations FROM usher.events WHERE type = 'em.orders.seen';
DELETE FROM em.orders WHERE id = 1 AND organization_id = :'north';
SELECT status FROM usher.enqueue_sync_job('em-north', 'em_shop', 'em_books', '{"action": "tell", "x": 1}');
CALL public.drain() \gset
SELECT o.slug, e.type, e.data, e.emitted_by, e.hop FROM usher.events e JOIN usher.organizations o ON o.id = e.organization_id
 WHERE e.type LIKE 'em.%' AND e.type <> 'em.orders.seen' ORDER BY e.type, o.slug, e.data::text;
-- Who listens heard each of them once; each event names the job that is its cause.
SELECT h.flow, e.type, count(*), count(DISTINCT h.event) FROM em.heard h JOIN usher.events e ON e.id = h.event GROUP BY 1, 2 ORDER BY 1, 2;
SELECT e.type, count(DISTINCT e.cause) = count(*) AS one_job_each, bool_and(j.status = 'synced') AS done, min(j.flow) AS of FROM usher.events e LEFT JOIN usher.sync_jobs j ON j.id = e.cause WHERE e.type LIKE 'em.%' GROUP BY 1 ORDER BY 1;
SELECT count(*) AS jobs, count(DISTINCT j.cause) AS causes FROM usher.job_history j JOIN usher.flows f ON f.id = j.flow_id WHERE f.name = 'em_mails';
SELECT d.error_message, count(*) FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name LIKE 'em\_%' GROUP BY 1;
-- A row of no organization emits nothing, also where the writer would.
SELECT count(*) FROM usher.events WHERE organization_id NOT IN (SELECT id FROM usher.organizations);
INSERT INTO em.orders VALUES ('00000000-0000-0000-0000-00000000dead', 1, 'open', 1);
CALL public.drain() \gset
SELECT count(*) FROM usher.events WHERE organization_id NOT IN (SELECT id FROM usher.organizations);
SELECT f.name, d.error_message ~ 'belongs to no organization' AS why FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE d.organization_id = '00000000-0000-0000-0000-00000000dead' OR f.name IN ('em_seen', 'em_many') ORDER BY 1;

-- One job's data that is too long takes no other with it.
SELECT em.flow('em_long', '{"when": {"change": "em.log", "on": ["insert"]}, "then": {"emit": "em.logged"}, "set": {"text": "new.text", "length": "length(new.text)"}}');
INSERT INTO em.log (organization_id, text) SELECT :'north', CASE n WHEN 3 THEN repeat(md5(n::text), 40000) ELSE n::text END FROM generate_series(1, 5) AS n;
CALL public.drain() \gset
SELECT string_agg(data ->> 'text', ' ' ORDER BY data ->> 'text') FROM usher.events WHERE type = 'em.logged';
SELECT d.error_message FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name = 'em_long';

-- Off for one organization, held back by a limit: as for an event that a client emits, event by event.
SELECT usher.switch_flow('em_hears', 'em-south', false) ~ 'em_hears' AS off;
SELECT usher.limit_queue(2, flow => 'em_hears', action => 'delay') AS delays \gset
INSERT INTO em.orders SELECT o, n, 'open', 1 FROM unnest(ARRAY[:'north', :'south']::uuid[]) AS o, generate_series(101, 105) AS n;
SELECT o.slug, j.waiting_for, count(*), min((j.payload #>> '{data,order_id}')::int) AS first FROM usher.sync_jobs j JOIN usher.organizations o ON o.id = j.organization_id
 WHERE j.flow = 'em_hears' AND j.status = 'pending' GROUP BY 1, 2 ORDER BY 1, 2 NULLS FIRST;
SELECT usher.unlimit_queue(:delays);
CALL public.drain() \gset
SELECT o.slug, count(*) FROM em.heard h JOIN usher.organizations o ON o.id = h.organization_id WHERE h.type = 'em.orders.seen' AND (h.data ->> 'order_id')::int > 100 GROUP BY 1 ORDER BY 1;
SELECT usher.switch_flow('em_hears', 'em-south', true) ~ 'em_hears' AS on;

-- In shadow nothing is emitted, and what would be is told.
SELECT usher.alter_flow('em_chain', '{"run_as": "regress_usher_em", "shadow": true, "when": {"event": "em.orders.paid"}, "then": {"emit": "em.mails.due"}, "set": {"about": "event.data ->> ''order_id''"}}');
SELECT count(*) AS before FROM usher.events WHERE type = 'em.mails.due' \gset
INSERT INTO em.orders VALUES (:'north', 77, 'paid', 7);
CALL public.drain() \gset
SELECT count(*) - :before AS emitted FROM usher.events WHERE type = 'em.mails.due';
SELECT would_write FROM usher.shadow_results s JOIN usher.flows f ON f.id = s.flow_id WHERE f.name = 'em_chain';

-- A chain that comes back to its row through an event ends there: no flow runs twice for one row in a chain.
SELECT em.flow('em_moved', '{"when": {"change": "em.orders", "on": ["update"]}, "if": "new.status = ''ping''", "then": {"emit": "em.ping"}, "set": {"id": "new.id"}}');
SELECT em.flow('em_answer', '{"when": {"event": "em.ping"}, "join": {"o": {"table": "em.orders", "on": "o.id = (event.data ->> ''id'')::bigint"}},
    "then": {"upsert": "em.orders", "key": ["id"]}, "set": {"id": "o.id", "status": "o.status", "amount": "o.amount + 1"}}');
UPDATE em.orders SET status = 'ping', amount = 0 WHERE organization_id = :'north' AND id IN (2, 3);
CALL public.drain() \gset
SELECT id, amount FROM em.orders WHERE status = 'ping' ORDER BY id;
SELECT count(*), max(hop) FROM usher.events WHERE type = 'em.ping';
SELECT count(*) AS dead FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name IN ('em_moved', 'em_answer');

-- Circles. What would go on without an end is refused; where an "if" may end it, it is told; what ends by itself is accepted.
SELECT * FROM public.try($$ SELECT em.flow('em_c1', '{"when": {"event": "em.c.**"}, "then": {"emit": "em.c.again"}}') $$);
SELECT em.flow('em_c1', '{"when": {"event": "em.c.one"}, "then": {"emit": "em.c.two"}}');
SELECT em.flow('em_c2', '{"when": {"event": "em.c.two"}, "then": {"emit": "em.c.three"}}');
SELECT * FROM public.try($$ SELECT em.flow('em_c3', '{"when": {"event": "em.*.three"}, "then": {"emit": "em.c.one"}}') $$);
SELECT em.flow('em_c3', '{"when": {"event": "em.*.three"}, "if": "(event.data ->> ''n'')::int < 3", "then": {"emit": "em.c.one"}}');
SELECT * FROM public.try($$ SELECT usher.alter_flow('em_c3', '{"run_as": "regress_usher_em", "when": {"event": "em.*.three"}, "then": {"emit": "em.c.one"}}') $$);
SELECT usher.disable_flow('em_c2');
SELECT usher.alter_flow('em_c3', '{"run_as": "regress_usher_em", "when": {"event": "em.*.three"}, "then": {"emit": "em.c.one"}}');
SELECT * FROM public.try($$ SELECT usher.enable_flow('em_c2') $$);
SELECT usher.drop_flow('em_c3');
SELECT usher.enable_flow('em_c2');
-- Through a table, by rows that are always new.
SELECT em.flow('em_t1', '{"when": {"event": "em.t.one"}, "then": {"insert": "em.log"}, "set": {"text": "event.type"}}');
SELECT * FROM public.try($$ SELECT em.flow('em_t2', '{"when": {"change": "em.log", "on": ["insert"]}, "then": {"emit": "em.t.one"}}') $$);
SELECT em.flow('em_t2', '{"when": {"change": "em.log", "on": ["update"]}, "then": {"emit": "em.t.one"}}');
SELECT * FROM public.try($$ SELECT em.flow('em_t3', '{"when": {"change": "em.log", "on": ["insert"]}, "then": {"insert": "em.log"}, "set": {"text": "new.text"}}') $$);
-- A pair of tables that keep each other in step, and a flow in shadow.
SELECT em.flow('em_pair', '{"when": {"change": "em.orders"}, "then": {"upsert": "em.orders", "key": ["id"]}, "set": {"id": "new.id", "status": "new.status"}}');
SELECT em.flow('em_quiet', '{"shadow": true, "when": {"event": "em.q.**"}, "then": {"emit": "em.q.again"}}');

-- What nobody emits is told, with what is meant perhaps.
SELECT em.listener('em_typo', 'em.orders.piad');
SELECT em.listener('em_none', 'nowhere.to.be.seen');
SELECT usher.emit_event('em-north', 'em.clients.own') IS NOT NULL AS emitted;
SELECT em.listener('em_seen_lately', '*.clients.*');

-- Refused, with the reason.
SELECT * FROM public.try($$ SELECT em.flow('em_bad', '{"when": {"event": "em.a"}, "then": {"emit": "em.*"}}') $$);
SELECT * FROM public.try($$ SELECT em.flow('em_bad', '{"when": {"event": "em.a"}, "then": {"emit": "usher.told"}}') $$);
SELECT * FROM public.try($$ SELECT em.flow('em_bad', '{"when": {"change": "em.orders"}, "then": {"emit": "em.b"}, "set": {"a": "new.nothing"}}') $$);
SELECT * FROM public.try($$ SELECT em.flow('em_bad', '{"when": {"change": "em.orders"}, "then": {"emit": "em.b"}, "set": {"a": "count(*)"}}') $$);
SELECT * FROM public.try($$ SELECT em.flow('em_bad', '{"when": {"change": "em.orders"}, "then": {"emit": "em.b"}, "check": {"a": "b > 1"}}') $$);

CALL public.drain() \gset
SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'em\_%';
CALL public.drain() \gset
DELETE FROM usher.dead_letters;
DELETE FROM usher.notices;
SET client_min_messages = warning;
DROP SCHEMA em CASCADE;
DROP OWNED BY regress_usher_em;
DROP ROLE regress_usher_em;
