-- Many sales at once: all or none, each as if it came by itself; booked one by one or together.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS atlvs, compvss, gvteway, live_events, rb CASCADE;
DROP ROLE IF EXISTS usher_live_events, regress_usher_admin, regress_usher_member, regress_usher_op;
RESET client_min_messages;
SELECT usher.create_organization('rb-acme', 'Acme', 'Pacific/Kiritimati') AS acme \gset
SELECT usher.create_organization('rb-beta') AS beta \gset
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
SELECT usher.grant_membership('rb-acme', 'role:regress_usher_admin', 'admin') AS a, usher.grant_membership('rb-acme', 'role:regress_usher_member') AS m \gset
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "P-1", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "a"}]') $$);
SELECT usher.install_pack('live_events') LIKE 'pack live_events %' AS installed;
SELECT resolve, book, book_batch FROM usher.revenue_bindings;
INSERT INTO atlvs.projects (organization_id, code, name) VALUES (:'acme', 'P-1', 'One'), (:'acme', 'P-2', 'Two'), (:'beta', 'P-9', 'Nine');
INSERT INTO compvss.productions (organization_id, project_ref, name, capacity) SELECT organization_id, id, name, 200 FROM atlvs.projects WHERE code IN ('P-1', 'P-2');
CALL public.drain() \gset
UPDATE gvteway.events SET slug = CASE title WHEN 'One' THEN 'one' ELSE 'two' END;
CREATE SCHEMA rb;
-- What a sale has left behind, without its ids.
CREATE VIEW rb.ledger AS
    SELECT COALESCE(i.idempotency_key, i.reference) AS sale, p.code AS project, i.event_code, i.ticket_count AS n, i.gross_amount, i.currency, i.ingestion_source AS source, i.payload, i.possible_duplicate_of IS NOT NULL AS flagged,
           j.memo, j.entry_on = (i.ingested_at AT TIME ZONE 'Pacific/Kiritimati')::date AS its_day, j.project_id IS NOT DISTINCT FROM i.project_id AS its_project, j.currency = i.currency AS its_currency,
           string_agg(concat_ws(' ', e.line, a.code, CASE WHEN e.debit > 0 THEN 'debit ' || e.debit ELSE 'credit ' || e.credit END), ', ' ORDER BY e.line) AS entries
      FROM usher.ticket_revenue_ingestions i LEFT JOIN atlvs.projects p ON p.id = i.project_id
      LEFT JOIN atlvs.journals j ON j.organization_id = i.organization_id AND j.source_system = 'ticket_revenue' AND j.source_ref = i.id::text
      LEFT JOIN atlvs.ledger_entries e ON e.organization_id = j.organization_id AND e.journal_id = j.id
      LEFT JOIN atlvs.ledger_accounts a ON a.organization_id = e.organization_id AND a.id = e.account_id
     GROUP BY i.organization_id, i.id, p.code, j.id, j.memo, j.entry_on, j.project_id, j.currency;
-- The same sale by itself.
CREATE FUNCTION rb.single(organization text, sale jsonb) RETURNS uuid LANGUAGE sql AS $$
    SELECT i.id FROM usher.ingest_ticket_revenue(organization, sale ->> 'project_code', sale ->> 'event_code', (sale ->> 'ticket_count')::integer, (sale ->> 'gross_amount')::numeric,
        COALESCE(sale ->> 'currency', 'USD'), COALESCE(sale ->> 'source', 'gvteway'), sale -> 'payload', sale ->> 'idempotency_key') AS i $$;

CREATE FUNCTION rb.told(statement text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(t, E'\n') FROM public.try(statement) AS t $$;
-- They are taken in and booked as they would be one by one.
CREATE TABLE rb.sales (n integer, sale jsonb);
INSERT INTO rb.sales VALUES
    (1, '{"project_code": "P-1", "event_code": "one", "ticket_count": 3, "gross_amount": 130.5, "idempotency_key": "b1", "payload": {"breakdown": {"tickets": 90, "merch": 20, "parking": 8, "fees": "4.50", "tax": 8}}}'),
    (2, '{"project_code": "P-1", "ticket_count": 1, "gross_amount": "1500.00", "currency": "jpy", "idempotency_key": "b2"}'),
    (3, '{"project_code": "P-1", "ticket_count": 1, "gross_amount": 1.234, "currency": "Kwd", "source": "door", "payload": {"reference": 7, "breakdown": {"tickets": 1.2, "tax": 0.034}}}'),
    (4, '{"event_code": "two", "ticket_count": 2, "gross_amount": 7.5000, "idempotency_key": "b4", "payload": {"breakdown": {"merch": 7.5, "tickets": 0}}}'),
    (5, '{"event_code": "nobody''s", "ticket_count": 0, "gross_amount": 0, "idempotency_key": "b5"}'),
    (6, '{"project_code": "P-2", "event_code": "two", "ticket_count": 1, "gross_amount": 999999999999999.99, "idempotency_key": "b6"}'),
    (7, '{"project_code": "P-1", "ticket_count": 1, "gross_amount": 10, "payload": {"breakdown": null, "reference": "b7"}}');
SELECT sale, repeated, id IS NOT NULL AS id FROM usher.ingest_ticket_revenue_batch('rb-acme', (SELECT jsonb_agg(sale ORDER BY n) FROM rb.sales));
CREATE TABLE rb.together AS TABLE rb.ledger;
SELECT sale, project, event_code, n, gross_amount, currency, source, entries FROM rb.together ORDER BY sale;
SELECT count(*) FILTER (WHERE its_day AND its_project AND its_currency AND NOT flagged) AS right, count(*) AS all FROM rb.together;
BEGIN;
ALTER TABLE atlvs.journals DISABLE TRIGGER keep_ledger;
ALTER TABLE atlvs.ledger_entries DISABLE TRIGGER keep_ledger;
DELETE FROM atlvs.ledger_entries;
DELETE FROM atlvs.journals;
DELETE FROM usher.ticket_revenue_ingestions;
SELECT count(rb.single('rb-acme', sale)) AS by_themselves FROM rb.sales;
SELECT (SELECT count(*) FROM (TABLE rb.ledger EXCEPT TABLE rb.together) AS x) AS more, (SELECT count(*) FROM (TABLE rb.together EXCEPT TABLE rb.ledger) AS x) AS less;
ROLLBACK;

-- Again: what is there stays. In one array twice: once. One way and the other know each other.
SELECT sale, repeated FROM usher.ingest_ticket_revenue_batch('rb-acme', (SELECT jsonb_agg(sale ORDER BY n DESC) FROM rb.sales));
SELECT b.sale, b.repeated, b.id = lag(b.id) OVER (ORDER BY b.sale) AS same
  FROM usher.ingest_ticket_revenue_batch('rb-acme', '[{"event_code": "one", "ticket_count": 1, "gross_amount": 5, "idempotency_key": "b8"}, {"event_code": "one", "ticket_count": 1, "gross_amount": 5.00, "idempotency_key": "b8"}]') AS b;
SELECT repeated FROM usher.ingest_ticket_revenue('rb-acme', NULL, 'one', 1, 5, idempotency_key => 'b8');
SELECT repeated, id = (SELECT id FROM usher.ticket_revenue_ingestions WHERE idempotency_key = 'b8') AS same
  FROM usher.ingest_ticket_revenue_batch('rb-acme', '[{"event_code": "one", "ticket_count": 1, "gross_amount": 5, "idempotency_key": "b8"}]');
SELECT count(*) AS rows, (SELECT count(*) FROM atlvs.journals) AS journals FROM usher.ticket_revenue_ingestions;
SELECT * FROM usher.ingest_ticket_revenue_batch('rb-acme', '[]');

-- One that is wrong keeps out all. It is refused as it would be by itself, and named.
CREATE TABLE rb.wrong (n integer, sale jsonb);
INSERT INTO rb.wrong SELECT n, '{"project_code": "P-1", "event_code": "one", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "w"}'::jsonb || change FROM (VALUES
    (1, '{"project_code": "P-3"}'::jsonb), (2, '{"project_code": "P-9", "event_code": null}'), (3, '{"project_code": "P-2"}'), (4, '{"project_code": null, "event_code": null}'), (5, '{"project_code": " "}'),
    (6, '{"ticket_count": -1}'), (7, '{"ticket_count": null}'), (8, '{"gross_amount": -0.01}'), (9, '{"gross_amount": null}'), (10, '{"gross_amount": "NaN"}'), (11, '{"gross_amount": 10.005}'), (12, '{"gross_amount": 10.5, "currency": "JPY"}'),
    (13, '{"gross_amount": 1e15}'), (14, '{"currency": "ZZZ"}'), (15, '{"source": " "}'), (16, '{"payload": [1]}'), (17, '{"payload": {"reference": [1]}}'), (18, '{"idempotency_key": ""}'),
    (19, '{"payload": {"breakdown": {"tickets": 9.99}}}'), (20, '{"payload": {"breakdown": {"tickets": 11, "tax": -1}}}'), (21, '{"payload": {"breakdown": {"tickets": 5, "food": 5}}}'),
    (22, '{"payload": {"breakdown": {"tickets": 5.005, "tax": 4.995}}}'), (23, '{"payload": {"breakdown": {}}}'), (24, '{"payload": {"breakdown": 10}}'), (25, '{"payload": {"breakdown": {"tickets": null, "tax": 10}}}'),
    (26, '{"idempotency_key": "b1", "ticket_count": 4}'), (27, '{"idempotency_key": null, "source": "door", "payload": {"reference": 7}}'),
    (28, '{"gross_amount": 0, "payload": {"breakdown": []}}'), (29, '{"gross_amount": 0, "payload": {"breakdown": "x"}}')) AS v (n, change);
SELECT w.n, replace(many.answer, 'sale 2: ', '') = one.answer AS as_one, many.answer
  FROM rb.wrong AS w, LATERAL rb.told(format('SELECT rb.single(''rb-acme'', %L)', w.sale)) AS one (answer),
       LATERAL rb.told(format('SELECT usher.ingest_ticket_revenue_batch(''rb-acme'', %L)',
                                 jsonb_build_array('{"project_code": "P-1", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "fine"}'::jsonb, w.sale))) AS many (answer) ORDER BY w.n;
-- And what only an array can have.
SELECT t.* FROM (VALUES (1, '{}'), (2, '[5]'), (3, '[{"project_code": "P-1", "ticket_count": 1, "gross_amount": 10}]'), (4, '[{"project_code": "P-1", "ticket_count": "1", "gross_amount": 10, "idempotency_key": "w"}]'),
    (5, '[{"project_code": "P-1", "tickets": 1, "gross_amount": 10, "idempotency_key": "w"}]'), (6, '[{"project_code": 1, "ticket_count": 1, "gross_amount": 10, "idempotency_key": "w"}]'),
    (7, '[{"event_code": "one", "ticket_count": 1, "gross_amount": 5, "idempotency_key": "w"}, {"event_code": "one", "ticket_count": 2, "gross_amount": 5, "idempotency_key": "w"}]'),
    (8, (SELECT jsonb_agg(5)::text FROM generate_series(1, 10001)))) AS x (n, sales),
    LATERAL public.try(format('SELECT usher.ingest_ticket_revenue_batch(''rb-acme'', %L)', x.sales)) AS t ORDER BY n;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-acme', NULL) $$);
SELECT count(*) AS half_done FROM usher.ticket_revenue_ingestions WHERE idempotency_key IN ('fine', 'w');

-- Rights, as for one.
SET ROLE regress_usher_admin;
SELECT repeated FROM usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "P-1", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "by admin"}]');
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-beta', '[{"project_code": "P-9", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "x"}]') $$);
SELECT * FROM public.try($$ SELECT atlvs.book_ticket_revenues(NULL, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}') $$);
SELECT * FROM public.try($$ SELECT gvteway.ingest_orders('[]') $$);
SET ROLE regress_usher_member;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-acme', '[]') $$);
RESET ROLE;
-- What was booked under the name of a sale before, by somebody else, is found out: by the function for one.
SELECT t.* FROM public.try(format($$ SELECT atlvs.post_journals(%L, '{NULL, NULL}', '{2026-01-01, 2026-01-01}', '{a, b}', '{USD, USD}', 'by hand', '{x, y}', '{1, 1, 2, 2}', '{1100, 4000, 1100, 4000}', '{1, -1, 2, -2}') IS NOT NULL $$, :'acme')) AS t;
SELECT journals[1] = again[1] AS same, journals[2] <> again[2] AS another FROM
    (SELECT array_agg(id ORDER BY source_ref) AS journals FROM atlvs.journals WHERE source_system = 'by hand') AS j,
    atlvs.post_journals(:'acme', '{NULL, NULL}', '{2026-01-01, 2026-01-01}', '{a, c}', '{USD, USD}', 'by hand', '{x, z}', '{1, 1, 2, 2}', '{1100, 4000, 1100, 4000}', '{1, -1, 3, -3}') AS again;
SELECT j.source_ref, sum(e.debit) AS debit, sum(e.credit) AS credit FROM atlvs.journals j JOIN atlvs.ledger_entries e ON e.journal_id = j.id WHERE j.source_system = 'by hand' GROUP BY 1 ORDER BY 1;
SELECT t.* FROM (VALUES (1, '{1, -1, 2, -2.5}', '{x, y}'), (2, '{1, -1, 2.005, -2.005}', '{p, q}'), (3, '{1, -1, 4, -4}', '{p, y}'), (4, '{1, -1, NULL, -4}', '{p, q}'), (5, '{1, -1, NULL, 0}', '{p, q}')) AS v (n, amounts, refs),
    LATERAL public.try(format($$ SELECT atlvs.post_journals(%L, '{NULL, NULL}', '{2026-01-01, 2026-01-01}', '{a, b}', '{USD, USD}', 'by hand', %L, '{1, 1, 2, 2}', '{1100, 4000, 1100, 4000}', %L) $$, :'acme', v.refs, v.amounts)) AS t ORDER BY n;
SELECT count(*) AS half_done FROM atlvs.journals WHERE source_system = 'by hand' AND source_ref IN ('p', 'q');

-- Functions of one's own: the one for a sale is called for each, unless one for batches is bound.
CREATE TABLE rb.books (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), organization_id uuid, ingestion_id uuid, project_id uuid, amount numeric, how text, at timestamptz);
CREATE FUNCTION rb.resolve(organization_id uuid, project_code text, event_code text) RETURNS uuid LANGUAGE sql AS $$ SELECT CASE WHEN project_code <> 'none' THEN '00000000-0000-7000-8000-000000000001'::uuid END $$;
CREATE FUNCTION rb.book(organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid, event_code text, ticket_count integer, gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz)
    RETURNS uuid LANGUAGE sql AS $$ INSERT INTO rb.books (organization_id, ingestion_id, project_id, amount, how, at) SELECT $1, $2, $4, $7, concat_ws(' ', 'one', $8, $9, $10, current_user), $11 WHERE $6 > 0 RETURNING id $$;
CREATE FUNCTION rb.book_all(organization_id uuid, ingestion_ids uuid[], project_ids uuid[], event_codes text[], ticket_counts integer[], gross_amounts numeric[], currencies text[], sources text[], payloads jsonb[], ingested_at timestamptz[])
    RETURNS uuid[] LANGUAGE sql AS $$
    WITH made AS (INSERT INTO rb.books (organization_id, ingestion_id, project_id, amount, how, at)
                  SELECT $1, b.id, b.project, b.amount, concat_ws(' ', 'together', b.currency, b.source, b.payload, current_user), b.at
                    FROM unnest($2, $3, $5, $6, $7, $8, $9, $10) AS b (id, project, n, amount, currency, source, payload, at) WHERE b.n > 0 RETURNING id)
    SELECT array_agg(id) FROM made $$;
-- Another function of the same name does no harm.
CREATE FUNCTION rb.book(organization_id uuid, ingestion_id uuid, reverses text, project_id uuid, event_code text, ticket_count integer, gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz)
    RETURNS uuid LANGUAGE sql AS $$ INSERT INTO rb.books (how) VALUES ('another') RETURNING id $$;
CREATE ROLE regress_usher_books NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA rb TO regress_usher_books;
GRANT SELECT, INSERT ON rb.books TO regress_usher_books;
SELECT usher.bind_ticket_revenue('rb.resolve', 'rb.book', 'regress_usher_books');
SELECT sale, repeated FROM usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "own", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "o1", "payload": {"a": 1}}, {"project_code": "own", "ticket_count": 2, "gross_amount": 11, "idempotency_key": "o2", "currency": "EUR"}]');
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "own", "ticket_count": 1, "gross_amount": 12, "idempotency_key": "o3"}, {"project_code": "own", "ticket_count": 0, "gross_amount": 13, "idempotency_key": "o4"}]') $$);
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "own", "ticket_count": 1, "gross_amount": 12, "idempotency_key": "o3"}, {"project_code": "none", "ticket_count": 0, "gross_amount": 13, "idempotency_key": "o4"}]') $$);
SELECT t.* FROM (VALUES (1, 'rb.book'), (2, 'book_all'), (3, 'rb.bookall')) AS v (n, name), LATERAL public.try(format('SELECT usher.bind_ticket_revenue(''rb.resolve'', ''rb.book'', ''regress_usher_books'', %L)', v.name)) AS t ORDER BY n;
SELECT usher.bind_ticket_revenue('rb.resolve', 'rb.book', 'regress_usher_books', book_batch => 'rb.book_all');
SELECT sale, repeated FROM usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "own", "ticket_count": 1, "gross_amount": 12, "idempotency_key": "o5", "payload": {"a": 1}}, {"project_code": "own", "ticket_count": 2, "gross_amount": 13, "idempotency_key": "o2b", "currency": "EUR"},
    {"project_code": "own", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "o1"}]');
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "own", "ticket_count": 1, "gross_amount": 14, "idempotency_key": "o6"}, {"project_code": "own", "ticket_count": 0, "gross_amount": 15, "idempotency_key": "o7"}]') $$);
SELECT organization_id = :'acme' AS acme, project_id IS NOT NULL AS project, amount, how, at IS NOT NULL AS at FROM rb.books ORDER BY amount;
SELECT count(*) AS half_done FROM usher.ticket_revenue_ingestions WHERE idempotency_key IN ('o3', 'o4', 'o6', 'o7');
DROP FUNCTION rb.book_all;
SELECT * FROM public.try($$ SELECT usher.ingest_ticket_revenue_batch('rb-acme', '[{"project_code": "own", "ticket_count": 1, "gross_amount": 14, "idempotency_key": "o6"}]') $$);
SELECT usher.unbind_ticket_revenue();
SELECT usher.remove_pack('live_events') LIKE 'pack live_events: % flows removed%' AS removed;

-- Flows whose calls take what is at hand, without waiting.
CREATE TABLE rb.rows (id integer PRIMARY KEY, organization_id uuid, v integer);
CREATE TABLE rb.calls (n integer GENERATED ALWAYS AS IDENTITY, organization_id uuid, ids integer[]);
CREATE FUNCTION rb.take(jobs jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM jsonb_array_elements(jobs) AS j WHERE (j ->> 'v')::integer < 0) THEN
        RAISE EXCEPTION 'v is negative';
    END IF;
    INSERT INTO rb.calls (organization_id, ids) SELECT (jobs -> 0 ->> 'organization')::uuid, array_agg((j ->> 'id')::integer) FROM jsonb_array_elements(jobs) AS j;
END $$;
GRANT ALL ON SCHEMA rb TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA rb TO regress_usher_op;
GRANT EXECUTE ON FUNCTION public.try TO PUBLIC;
SET ROLE regress_usher_op;
SELECT usher.create_flow('rb_take', '{"when": {"change": "rb.rows"}, "then": {"call": "rb.take", "per": "batch"}, "set": {"organization": "job.organization_id", "id": "new.id", "v": "new.v"}, "check": {"v is not 5": "v <> 5"}, "retry": {"delays": []}}') IS NOT NULL AS made;
SELECT t.* FROM (VALUES (1, '{"mode": "transactional"}'::jsonb), (2, '{"then": {"call": "rb.take", "per": "batch", "effect": "external"}}'), (3, '{"then": {"call": "rb.take", "per": "batch", "keep_result": true}}')) AS v (n, change),
    LATERAL public.try(format('SELECT usher.create_flow(''rb_bad'', %L)', '{"when": {"change": "rb.rows"}, "then": {"call": "rb.take", "per": "batch"}, "set": {"id": "new.id"}}'::jsonb || v.change)) AS t ORDER BY n;
RESET ROLE;
-- However they come, each call is for one organization, and gets all of it.
INSERT INTO rb.rows SELECT n, CASE WHEN n % 2 = 0 THEN :'acme' ELSE :'beta' END::uuid, 1 FROM generate_series(201, 206) AS n;
CALL public.drain();
SELECT o.slug, c.ids FROM rb.calls c JOIN usher.organizations o ON o.id = c.organization_id ORDER BY 1;
TRUNCATE rb.calls;
INSERT INTO rb.rows SELECT n, CASE WHEN n < 100 THEN :'acme' ELSE :'beta' END::uuid, CASE n WHEN 3 THEN -1 WHEN 7 THEN 5 ELSE 1 END FROM (SELECT generate_series(1, 8) UNION ALL SELECT generate_series(101, 103)) AS v (n);
CALL public.drain();
SELECT o.slug, array_agg(c.ids::text ORDER BY c.n) AS calls FROM rb.calls c JOIN usher.organizations o ON o.id = c.organization_id GROUP BY 1 ORDER BY 1;
SELECT d.error_message, d.new ->> 'id' AS id FROM usher.dead_letters AS d JOIN usher.flows AS f ON f.id = d.flow_id AND f.name = 'rb_take' ORDER BY 2;
SELECT usher.drop_flow('rb_take') IS NOT NULL AS dropped;
SET client_min_messages = warning;
DROP OWNED BY regress_usher_books, regress_usher_op;
DROP SCHEMA atlvs, compvss, gvteway, live_events, rb CASCADE;
TRUNCATE usher.ticket_revenue_ingestions, usher.jobs, usher.queue_waiting, usher.dead_letters;
DELETE FROM usher.organizations WHERE slug LIKE 'rb-%';
DROP ROLE usher_live_events, regress_usher_books, regress_usher_admin, regress_usher_member, regress_usher_op;
