-- Ticket revenue: refusals, repeats, equal sales, reversals, rights, bindings, and what the pack books.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS atlvs, compvss, gvteway, live_events, rv CASCADE;
DROP ROLE IF EXISTS usher_live_events, regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op, regress_usher_books;
RESET client_min_messages;
SELECT usher.create_organization('rv-acme', 'Acme', 'Asia/Tokyo') AS acme \gset
SELECT usher.create_organization('rv-beta') AS beta \gset
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
SELECT usher.grant_membership('rv-acme', 'role:regress_usher_admin', 'admin'), usher.grant_membership('rv-acme', 'role:regress_usher_member');

-- Nothing is bound: the remedy is said.
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'P-1', 'E-1', 1, 10) $$);

SELECT usher.install_pack('live_events') LIKE 'pack live_events %' AS installed;
SELECT resolve, book, book_batch, run_as, pack FROM usher.revenue_bindings;
-- What is counted once a second is counted at once here.
SELECT usher.alter_flow(name, jsonb_set(definition, '{batch,size}', '1')) IS NOT NULL AS altered FROM usher.flows WHERE name = 'live_events.update_production_from_revenue';
INSERT INTO atlvs.projects (organization_id, code, name) VALUES (:'acme', 'P-1', 'One'), (:'acme', 'P-2', 'Two'), (:'beta', 'P-9', 'Nine');
INSERT INTO compvss.productions (organization_id, project_ref, name, capacity) SELECT organization_id, id, name, 200 FROM atlvs.projects WHERE code IN ('P-1', 'P-2');
CALL public.drain() \gset
UPDATE gvteway.events SET slug = CASE title WHEN 'One' THEN 'one' ELSE 'two' END;
INSERT INTO gvteway.events (organization_id, slug, title) VALUES (:'acme', 'alone', 'Without a production');

-- A sale: the row, its project, its journal.
SELECT s.project_id = p.id AS project, s.event_code, s.ticket_count, s.gross_amount, s.currency, s.ingestion_source, s.payload, s.ingested_at = now() AS now,
       s.repeated, s.possible_duplicate_of, s.reverses, s.organization_id = :'acme' AS acme
  FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 3, 130.5, payload => '{"reference": "S-1", "breakdown": {"tickets": 90, "merch": 20, "parking": 8, "fees": "4.50", "tax": 8}}') s,
       atlvs.projects p WHERE p.code = 'P-1';
CREATE VIEW public.rv_ledger AS
    SELECT o.slug, i.event_code, i.ticket_count AS n, j.memo, j.currency, j.entry_on = (i.ingested_at AT TIME ZONE o.timezone)::date AS its_day, j.reverses IS NOT NULL AS reversal,
           string_agg(concat_ws(' ', a.code, a.kind, CASE WHEN e.debit > 0 THEN 'debit ' || e.debit ELSE 'credit ' || e.credit END), ', ' ORDER BY e.line) AS entries
      FROM usher.ticket_revenue_ingestions i JOIN usher.organizations o ON o.id = i.organization_id
      LEFT JOIN atlvs.journals j ON j.organization_id = i.organization_id AND j.source_system = 'ticket_revenue' AND j.source_ref = i.id::text
      LEFT JOIN atlvs.ledger_entries e ON e.organization_id = j.organization_id AND e.journal_id = j.id
      LEFT JOIN atlvs.ledger_accounts a ON a.organization_id = e.organization_id AND a.id = e.account_id
     GROUP BY o.slug, o.timezone, i.id, i.event_code, i.ticket_count, i.ingested_at, j.memo, j.currency, j.entry_on, j.reverses ORDER BY i.id;
SELECT * FROM public.rv_ledger;
SELECT code, name, kind FROM atlvs.ledger_accounts WHERE organization_id = :'acme' ORDER BY code;

-- What is refused, each with its remedy.
SELECT x.n, t.* FROM (VALUES
    (1, $$ 'rv-nowhere', 'P-1', 'one', 1, 10 $$), (2, $$ NULL, 'P-1', 'one', 1, 10 $$), (3, $$ 'rv-acme', 'P-3', 'one', 1, 10 $$), (4, $$ 'rv-acme', 'P-9', NULL, 1, 10 $$),
    (5, $$ 'rv-acme', 'P-2', 'one', 1, 10 $$), (6, $$ 'rv-acme', NULL, NULL, 1, 10 $$), (7, $$ 'rv-acme', ' ', 'one', 1, 10 $$), (8, $$ 'rv-acme', 'P-1', '', 1, 10 $$),
    (9, $$ 'rv-acme', 'P-1', 'one', -1, 10 $$), (10, $$ 'rv-acme', 'P-1', 'one', NULL, 10 $$), (11, $$ 'rv-acme', 'P-1', 'one', 1, -0.01 $$), (12, $$ 'rv-acme', 'P-1', 'one', 1, NULL $$),
    (13, $$ 'rv-acme', 'P-1', 'one', 1, 'NaN' $$), (14, $$ 'rv-acme', 'P-1', 'one', 1, 'Infinity' $$), (15, $$ 'rv-acme', 'P-1', 'one', 1, '-Infinity' $$), (16, $$ 'rv-acme', 'P-1', 'one', 1, 10.005 $$),
    (17, $$ 'rv-acme', 'P-1', 'one', 1, 10.5, 'JPY' $$), (18, $$ 'rv-acme', 'P-1', 'one', 1, 10.1234, 'KWD' $$), (19, $$ 'rv-acme', 'P-1', 'one', 1, 1e15 $$), (20, $$ 'rv-acme', 'P-1', 'one', 1, 10, 'ZZZ' $$),
    (21, $$ 'rv-acme', 'P-1', 'one', 1, 10, 'XAU' $$), (22, $$ 'rv-acme', 'P-1', 'one', 1, 10, NULL $$), (23, $$ 'rv-acme', 'P-1', 'one', 1, 10, 'USD', ' ' $$), (24, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '[1]' $$),
    (25, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '"x"' $$), (26, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"reference": [1]}' $$), (27, $$ 'rv-acme', 'P-1', 'one', 1, 10, idempotency_key => '' $$),
    (28, $$ 'rv-acme', 'P-1', 'one', 1, 10, idempotency_key => repeat('x', 1001) $$), (29, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"breakdown": {"tickets": 9.99}}' $$),
    (30, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"breakdown": {"tickets": 11, "tax": -1}}' $$), (31, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"breakdown": {"tickets": 5, "food": 5}}' $$),
    (32, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"breakdown": {"tickets": 5.005, "tax": 4.995}}' $$), (33, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"breakdown": {}}' $$),
    (34, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"breakdown": 10}' $$), (35, $$ 'rv-acme', 'P-1', 'one', 1, 10, payload => '{"breakdown": {"tickets": null, "tax": 10}}' $$)
  ) AS x (n, arguments), LATERAL public.try('SELECT usher.ingest_ticket_revenue(' || x.arguments || ')') AS t (answer) ORDER BY x.n;
SELECT count(*) AS taken_in, (SELECT count(*) FROM atlvs.journals) AS journals FROM usher.ticket_revenue_ingestions;

-- What is taken: digits as the currency has them, codes in any case, events without a project, codes that are no event's, free tickets.
SELECT s.gross_amount, s.currency, s.project_id IS NOT NULL AS project, s.payload FROM (VALUES
    (1, 'P-1', 'one', 1500.00, 'jpy'), (2, 'P-1', 'one', 1.234, 'Kwd'), (3, 'P-1', NULL, 7.5000, 'usd'), (4, NULL, 'alone', 20, 'USD'), (5, NULL, 'one', 21, 'USD'),
    (6, 'P-1', 'seller''s own', 22, 'USD'), (7, NULL, 'seller''s own', 23, 'USD'), (8, 'P-1', 'one', 0, 'USD'), (9, 'P-2', 'alone', 24, 'USD')) AS x (n, project, event, amount, currency),
    LATERAL usher.ingest_ticket_revenue('rv-acme', x.project, x.event, 1, x.amount, x.currency, idempotency_key => 'taken ' || x.n, payload => NULL) AS s ORDER BY x.n;
SELECT * FROM public.rv_ledger OFFSET 1;

-- A repeat gets the first row, whatever its payload says; one that differs is refused.
SELECT id AS first FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 50, idempotency_key => 'k1', payload => '{"try": 1}') \gset
SELECT id = :'first' AS same, repeated, payload FROM usher.ingest_ticket_revenue(:'acme', 'P-1', 'one', 2, 50.00, 'usd', idempotency_key => 'k1', payload => '{"try": 2}');
SELECT t.* FROM (VALUES ($$ 'P-1', 'one', 3, 50 $$), ($$ 'P-1', 'one', 2, 51 $$), ($$ 'P-2', 'two', 2, 50 $$), ($$ NULL, 'one', 2, 50 $$), ($$ 'P-1', 'one', 2, 50, 'EUR' $$), ($$ 'P-1', 'one', 2, 50, 'USD', 'door' $$)) AS x (arguments),
    LATERAL public.try('SELECT usher.ingest_ticket_revenue(''rv-acme'', ' || x.arguments || ', idempotency_key => ''k1'')') AS t;
-- A reference counts without a key, within its source and organization; a key of the same text is something else.
SELECT id AS referred, repeated FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 50, payload => '{"reference": "k1"}') \gset
SELECT id = :'first' AS is_the_keyed_one, id = :'referred' AS same, repeated FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 50, payload => '{"reference": "k1", "try": 2}');
SELECT id = :'referred' AS same, repeated, possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 50, source => 'door', payload => '{"reference": "k1"}');
SELECT id = :'referred' AS same, repeated FROM usher.ingest_ticket_revenue('rv-beta', 'P-9', NULL, 2, 50, payload => '{"reference": "k1"}');
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 49, payload => '{"reference": "k1"}') $$);
-- Also when the project has another code by now.
UPDATE atlvs.projects SET code = 'P-1b' WHERE code = 'P-1';
SELECT id = :'first' AS same, repeated FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 50, idempotency_key => 'k1');
UPDATE atlvs.projects SET code = 'P-1' WHERE code = 'P-1b';
-- A key that was refused is free.
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'P-3', 'one', 2, 50, idempotency_key => 'k2') $$);
SELECT repeated FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 50, idempotency_key => 'k2');

-- Equal sales without either are two, and the second says so.
SELECT id AS equal, possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 1, 77) \gset
-- (The notice names an id; tests/clients/tests/revenue.rs reads it.)
SET client_min_messages = warning;
SELECT repeated, possible_duplicate_of = :'equal' AS flagged, id <> :'equal' AS another FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 1, 77.00);
RESET client_min_messages;
SELECT possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 1, 77, source => 'door');
SELECT possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 2, 77);
SELECT possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', NULL, 1, 77);
SELECT possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', NULL, 1, 77);
SELECT possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 1, 77, idempotency_key => 'its own');
-- Ten minutes later, or when the first was taken back, it is nothing to ask about.
SELECT id AS sole FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 1, 78) \gset
UPDATE usher.ticket_revenue_ingestions SET ingested_at = ingested_at - interval '10 minutes 1 second' WHERE id = :'sole';
SELECT id AS later, possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 1, 78) \gset
\if :{?possible_duplicate_of}
\echo flagged
\endif
SELECT ticket_count FROM usher.reverse_ticket_revenue(:'later', 'entered twice');
SELECT possible_duplicate_of FROM usher.ingest_ticket_revenue('rv-acme', 'P-2', 'two', 1, 78);

-- Taking back: once, the mirrored journal; a repeat gets the first.
SELECT id AS back, ticket_count, gross_amount, reverses = :'first' AS of_first, repeated FROM usher.reverse_ticket_revenue(:'first', 'refunded') \gset
\echo :ticket_count :gross_amount :of_first :repeated
SELECT id = :'back' AS same, repeated FROM usher.reverse_ticket_revenue(:'first', 'refunded again');
SELECT reason FROM usher.ticket_revenue_ingestions WHERE id = :'back';
SELECT id AS many FROM usher.ticket_revenue_ingestions WHERE reference = 'S-1' \gset
SELECT count(*) AS taken_back FROM usher.reverse_ticket_revenue(:'many', 'show cancelled');
SELECT n, reversal, entries FROM public.rv_ledger WHERE n < 0;
SELECT regexp_replace(t, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS answer FROM (VALUES (1, format('%L, %L', :'back', 'back again')), (2, format('%L, %L', gen_random_uuid(), 'unknown')), (3, 'NULL, ''x'''), (4, format('%L, NULL', :'referred')), (5, format('%L, %L', :'referred', ' '))) AS x (n, arguments),
    LATERAL public.try('SELECT usher.reverse_ticket_revenue(' || x.arguments || ')') AS t ORDER BY n;
-- The key of what was taken back stays its own.
SELECT id = :'first' AS same, repeated FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 2, 50, idempotency_key => 'k1');

-- Rights: admins take in, members read, strangers learn nothing.
SET ROLE regress_usher_admin;
SELECT id AS by_admin, gross_amount FROM usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 1, 33) \gset
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-beta', 'P-9', NULL, 1, 33) $$);
SELECT count(*) > 0 AS sees, count(*) FILTER (WHERE organization_id = :'beta') AS foreign FROM usher.ticket_revenue_ingestions;
SELECT count(*) > 0 AS journals FROM atlvs.journals;
SELECT * FROM public.try($$ SELECT usher.bind_ticket_revenue('a.b', 'a.c') $$);
SELECT * FROM public.try($$ SELECT usher.unbind_ticket_revenue() $$);
SELECT * FROM public.try($$ INSERT INTO usher.ticket_revenue_ingestions DEFAULT VALUES $$);
SELECT * FROM public.try($$ SELECT atlvs.book_ticket_revenue(NULL, NULL, NULL, NULL, NULL, 1, 1, 'USD', 'x', '{}', now()) $$);
SET ROLE regress_usher_member;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 1, 33) $$);
SELECT * FROM public.try(format('SELECT usher.reverse_ticket_revenue(%L, %L)', :'by_admin', 'x'));
SELECT count(*) AS sees FROM usher.ticket_revenue_ingestions WHERE id = :'by_admin';
SET ROLE regress_usher_stranger;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'P-1', 'one', 1, 33) $$);
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-nowhere', 'P-1', 'one', 1, 33) $$);
SELECT regexp_replace(t, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS answer FROM public.try(format('SELECT usher.reverse_ticket_revenue(%L, %L)', :'by_admin', 'x')) AS t;
SELECT count(*) AS sees FROM usher.ticket_revenue_ingestions;
RESET ROLE;

-- The ledger is only added to, and balances.
SELECT count(*) AS off FROM (SELECT FROM atlvs.ledger_entries GROUP BY organization_id, journal_id HAVING sum(debit) <> sum(credit)) AS x;
SELECT t.* FROM (VALUES (1, 'UPDATE atlvs.ledger_entries SET debit = 1'), (2, 'DELETE FROM atlvs.journals'), (3, 'TRUNCATE atlvs.ledger_entries'),
    (4, 'INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit) SELECT organization_id, journal_id, 9, account_id, 1 FROM atlvs.ledger_entries LIMIT 1'),
    (5, 'INSERT INTO atlvs.ledger_entries (organization_id, journal_id, line, account_id, debit, credit) SELECT organization_id, journal_id, 9, account_id, 1, 1 FROM atlvs.ledger_entries LIMIT 1')) AS x (n, statement),
    LATERAL (SELECT regexp_replace(t, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') FROM public.try(x.statement) AS t) AS t (answer) WHERE t.answer NOT LIKE '%Failing row%' ORDER BY n;

-- W16: orders. W43: tickets sold, whatever the order of things.
CALL public.drain() \gset
INSERT INTO gvteway.orders (organization_id, event_id, number, subtotal, fees, tax, total) SELECT organization_id, id, 'O-' || n, 100, 5, 8, 113 FROM gvteway.events, generate_series(1, 4) AS n WHERE slug = 'two';
INSERT INTO gvteway.order_items (organization_id, order_id, kind, qty, unit_price) SELECT organization_id, id, kind, qty, price FROM gvteway.orders, (VALUES ('ticket', 4, 20), ('merch', 1, 15), ('parking', 1, 5)) AS i (kind, qty, price);
UPDATE gvteway.orders SET status = 'paid' WHERE number IN ('O-1', 'O-2', 'O-3');
UPDATE gvteway.orders SET status = 'refunded' WHERE number = 'O-2';
DELETE FROM gvteway.order_items i USING gvteway.orders o WHERE i.order_id = o.id AND o.number = 'O-3' AND i.kind = 'merch';
SELECT count(*) AS before FROM usher.ticket_revenue_ingestions \gset
CALL public.drain() \gset
SELECT number, status, paid_at IS NOT NULL AS paid, refunded_at IS NOT NULL AS refunded FROM gvteway.orders ORDER BY number;
SELECT i.payload->>'order' AS "order", i.idempotency_key = 'order:' || (i.payload->>'order_id') AS keyed, i.ticket_count, i.gross_amount, i.reason, l.entries
  FROM usher.ticket_revenue_ingestions i JOIN atlvs.journals j ON j.source_ref = i.id::text
  CROSS JOIN LATERAL (SELECT string_agg(concat_ws(' ', a.code, e.debit, e.credit), ', ' ORDER BY e.line) AS entries FROM atlvs.ledger_entries e JOIN atlvs.ledger_accounts a ON a.id = e.account_id WHERE e.journal_id = j.id) AS l
 WHERE i.payload ? 'order' ORDER BY i.id;
SELECT flow, error_message FROM usher.sync_jobs WHERE status <> 'synced' AND flow !~ 'forecast_merch|count_' AND organization_id = :'acme' ORDER BY 1;
SELECT p.name, p.tickets_sold, p.sell_through, p.tickets_sold = (SELECT sum(ticket_count) FROM usher.ticket_revenue_ingestions i WHERE i.project_id = p.project_ref) AS agrees FROM compvss.productions p ORDER BY p.name;
UPDATE compvss.productions SET capacity = NULL WHERE name = 'One';
UPDATE compvss.productions SET capacity = 1000 WHERE name = 'Two';
SELECT p.name, p.capacity, p.sell_through FROM compvss.productions p ORDER BY p.name;
SELECT t.* FROM (VALUES (1, $$ status = 'cancelled' WHERE number = 'O-1' $$), (2, $$ status = 'paid' WHERE number = 'O-2' $$), (3, $$ total = 1 WHERE number = 'O-1' $$)) AS x (n, change),
    LATERAL public.try('UPDATE gvteway.orders SET ' || x.change) AS t ORDER BY n;

-- Flows may listen to what was taken in, to nothing else of usher, and write none of it.
SELECT t.* FROM (VALUES (1, '{"when": {"change": "usher.organizations"}, "then": {"insert": "atlvs.project_codes"}, "set": {"year": "1"}}'), (2, '{"when": {"change": "atlvs.deals"}, "then": {"insert": "usher.ticket_revenue_ingestions"}, "set": {"id": "new.id"}}'),
    (3, '{"when": {"change": "atlvs.deals"}, "join": {"r": {"table": "usher.ticket_revenue_ingestions", "on": "r.project_id = new.id"}}, "then": {"insert": "atlvs.project_codes"}, "set": {"year": "r.ticket_count"}}')) AS x (n, definition),
    LATERAL public.try(format('SELECT usher.create_flow(%L, %L)', 'rv_flow', x.definition)) AS t ORDER BY n;

-- Functions of one's own, in place of the pack's.
CREATE SCHEMA rv;
CREATE TABLE rv.books (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), organization_id uuid, ingestion_id uuid, reverses uuid, amount numeric, by_role text, actor_sees uuid[]);
CREATE FUNCTION rv.resolve(organization_id uuid, project_code text, event_code text) RETURNS uuid LANGUAGE sql AS $$ SELECT CASE WHEN project_code LIKE 'own-%' THEN '00000000-0000-7000-8000-000000000001'::uuid END $$;
CREATE FUNCTION rv.book(organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid, event_code text, ticket_count integer, gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz)
    RETURNS uuid LANGUAGE sql AS $$ INSERT INTO rv.books (organization_id, ingestion_id, reverses, amount, by_role, actor_sees) SELECT organization_id, ingestion_id, reverses, gross_amount, current_user, usher.managed_organizations() WHERE event_code IS DISTINCT FROM 'nothing' RETURNING id $$;
CREATE ROLE regress_usher_books NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA rv TO regress_usher_op;
SELECT t.* FROM (VALUES (1, $$ 'resolve', 'rv.book' $$), (2, $$ 'rv.resolve', 'rv.bok' $$), (3, $$ 'rv.book', 'rv.book' $$), (4, $$ NULL, 'rv.book' $$), (5, $$ 'rv.resolve', 'rv.book', 'regress_usher_nobody' $$), (6, $$ 'rv.resolve', 'rv.book', 'regress_usher_books' $$)) AS x (n, arguments),
    LATERAL public.try('SELECT usher.bind_ticket_revenue(' || x.arguments || ')') AS t ORDER BY n;
SET ROLE regress_usher_op;
SELECT * FROM public.try($$ SELECT usher.bind_ticket_revenue('rv.resolve', 'rv.book', 'regress_usher_books') $$);
RESET ROLE;
GRANT USAGE ON SCHEMA rv TO regress_usher_books;
GRANT regress_usher_books TO regress_usher_op;
-- Bound by a superuser without a role: said.
SELECT usher.bind_ticket_revenue('rv.resolve', 'rv.book') IS NOT NULL AS bound;
SET ROLE regress_usher_op;
SELECT usher.bind_ticket_revenue('rv.resolve', 'rv.book', 'regress_usher_books');
RESET ROLE;
SELECT resolve, book, run_as, pack, bound_by FROM usher.revenue_bindings;
-- It runs with the rights of its role, and all or nothing.
SET ROLE regress_usher_admin;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'own-1', 'x', 1, 10, idempotency_key => 'own 1') $$);
RESET ROLE;
SELECT count(*) AS half_done FROM usher.ticket_revenue_ingestions WHERE idempotency_key = 'own 1';
GRANT SELECT, INSERT ON rv.books TO regress_usher_books;
SET ROLE regress_usher_admin;
SELECT id AS own, project_id, repeated FROM usher.ingest_ticket_revenue('rv-acme', 'own-1', 'x', 1, 10, idempotency_key => 'own 1') \gset
\echo :project_id :repeated
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'P-1', 'x', 1, 10) $$);
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'own-1', 'nothing', 1, 10) $$);
SELECT reverses = :'own' AS reversed FROM usher.reverse_ticket_revenue(:'own', 'back');
RESET ROLE;
SELECT organization_id = :'acme' AS acme, reverses IS NOT NULL AS reversal, amount, by_role, actor_sees = ARRAY[:'acme']::uuid[] AS only_acme FROM rv.books ORDER BY amount DESC;
SELECT count(*) AS half_done FROM usher.ticket_revenue_ingestions WHERE event_code IN ('nothing');
-- Installing the pack again leaves the operator's own functions in place.
\set VERBOSITY terse
SELECT usher.install_pack('live_events') IS NOT NULL AS installed;
\set VERBOSITY default
SELECT resolve, pack FROM usher.revenue_bindings;
-- A deferred trigger would run at COMMIT as somebody else.
CREATE FUNCTION rv.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON rv.books DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rv.late();
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'own-1', 'x', 1, 11) $$);
DROP TRIGGER late ON rv.books;
-- A function that is gone, or is another: said, and nothing half-done; found again when it is made again.
ALTER FUNCTION rv.book RENAME TO booked;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'own-1', 'x', 1, 12) $$);
ALTER FUNCTION rv.booked RENAME TO book;
SELECT count(*) AS taken_in FROM usher.ingest_ticket_revenue('rv-acme', 'own-1', 'x', 1, 12);
DROP FUNCTION rv.resolve;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'own-1', 'x', 1, 13) $$);
CREATE FUNCTION rv.resolve(organization_id uuid, project_code text, event_code text) RETURNS text LANGUAGE sql AS $$ SELECT 'text' $$;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'own-1', 'x', 1, 13) $$);
SELECT count(*) AS half_done FROM usher.ticket_revenue_ingestions WHERE gross_amount IN (11, 13);
-- An error of the function comes through as it is; its settings do not.
DROP FUNCTION rv.resolve;
CREATE FUNCTION rv.resolve(organization_id uuid, project_code text, event_code text) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('search_path', 'rv', false), set_config('standard_conforming_strings', 'off', false);
    IF project_code = 'closed' THEN
        RAISE EXCEPTION 'project "%" is closed', project_code USING ERRCODE = 'PT422', HINT = 'Open it.';
    END IF;
    RETURN gen_random_uuid();
END $$;
\set VERBOSITY terse
SELECT usher.ingest_ticket_revenue('rv-acme', 'closed', 'x', 1, 14);
\set VERBOSITY default
SELECT count(*) AS taken_in FROM usher.ingest_ticket_revenue('rv-acme', 'open', 'x', 1, 15);
SHOW search_path;
SHOW standard_conforming_strings;

-- Back to the pack.
SELECT usher.unbind_ticket_revenue();
SELECT usher.unbind_ticket_revenue();
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue('rv-acme', 'P-1', 'x', 1, 16) $$);
SELECT usher.install_pack('live_events') IS NOT NULL AS installed;
SELECT resolve, pack, run_as FROM usher.revenue_bindings;
-- What was booked elsewhere cannot be reversed by the pack.
SELECT regexp_replace(t, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS answer
  FROM public.try(format('SELECT usher.reverse_ticket_revenue(%L, %L)', (SELECT id FROM usher.ticket_revenue_ingestions WHERE gross_amount = 12), 'x')) AS t;
-- Removing the pack ends what it bound.
SELECT usher.remove_pack('live_events') LIKE 'pack live_events: % flows removed%' AS removed;
SELECT count(*) AS bindings FROM usher.revenue_bindings;
SELECT policyname FROM pg_policies WHERE tablename = 'ticket_revenue_ingestions' ORDER BY 1;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgfoid = 'usher.capture()'::regprocedure;
SET client_min_messages = warning;
DROP VIEW public.rv_ledger;
DROP SCHEMA atlvs, compvss, gvteway, live_events, rv CASCADE;
TRUNCATE usher.ticket_revenue_ingestions, usher.jobs, usher.queue_waiting, usher.dead_letters;
DELETE FROM usher.organizations WHERE slug LIKE 'rv-%';
DROP ROLE usher_live_events, regress_usher_admin, regress_usher_member, regress_usher_stranger, regress_usher_op, regress_usher_books;
