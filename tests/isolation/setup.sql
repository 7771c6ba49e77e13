-- What the specs share: a source, a target that notes every write, and the role that flows run as.
CREATE EXTENSION pg_usher;
SELECT usher.setup();
-- Which resources share a queue hangs on it.
UPDATE usher.organizations SET id = '01900000-0000-7000-8000-000000000001' WHERE slug = 'default';
DROP ROLE IF EXISTS regress_usher_iso;
CREATE ROLE regress_usher_iso NOLOGIN;
CREATE SCHEMA iso;
CREATE TABLE iso.source (id integer PRIMARY KEY, v text);
CREATE TABLE iso.target (seq integer GENERATED ALWAYS AS IDENTITY, id integer, v text);
GRANT USAGE ON SCHEMA iso TO regress_usher_iso;
GRANT ALL ON ALL TABLES IN SCHEMA iso TO regress_usher_iso;
SELECT usher.create_system('iso.a'), usher.create_system('iso.b');
-- Without their ids, by what they carry.
CREATE VIEW iso.jobs AS
    SELECT COALESCE(payload->'new'->>'v', payload->>'v') AS v, status, waiting_for, error_message FROM usher.sync_jobs;
CREATE FUNCTION iso.make_flows() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE iso.source, iso.target RESTART IDENTITY;
    DELETE FROM usher.job_keys;
    DELETE FROM usher.jobs;
    DELETE FROM usher.queue_waiting;
    DELETE FROM usher.dead_letters;
    DELETE FROM usher.job_history;
    DELETE FROM usher.flows;
    TRUNCATE usher.job_options, usher.job_expiries, usher.job_dependencies, usher.job_checks, usher.batch_definitions, usher.batch_tallies;
    PERFORM usher.create_flow('iso_copy', '{"when": {"change": "iso.source"}, "then": {"insert": "iso.target"}, "set": {"id": "new.id", "v": "new.v"}, "run_as": "regress_usher_iso"}');
    PERFORM usher.create_flow('iso_ask', '{"from": "iso.a", "to": "iso.b", "when": {"request": "ask"}, "then": {"insert": "iso.target"}, "set": {"v": "job.payload->>''v''"}, "run_as": "regress_usher_iso"}');
END
$$;
SET check_function_bodies = off;
-- A spec's SQL ends at the first closing brace, so that JSON has to be here.
CREATE FUNCTION iso.ask(v text, key text DEFAULT NULL) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('default', 'iso.a', 'iso.b', jsonb_build_object('action', 'ask', 'v', v), unique_key => key)
$$;
CREATE FUNCTION iso.ask_after(v text, VARIADIC names text[]) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('default', 'iso.a', 'iso.b', jsonb_build_object('action', 'ask', 'v', v),
        options => jsonb_build_object('after', ARRAY(SELECT i.id FROM iso.ids i WHERE i.v = ANY (names))))
$$;
CREATE FUNCTION iso.ask_after_anyway(v text, VARIADIC names text[]) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('default', 'iso.a', 'iso.b', jsonb_build_object('action', 'ask', 'v', v),
        options => jsonb_build_object('after', ARRAY(SELECT i.id FROM iso.ids i WHERE i.v = ANY (names)), 'on_failure', 'run'))
$$;
CREATE FUNCTION iso.ask_pending(v text, key text) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('default', 'iso.a', 'iso.b', jsonb_build_object('action', 'ask', 'v', v),
        options => jsonb_build_object('unique', jsonb_build_object('key', key, 'for', 'pending')))
$$;
CREATE FUNCTION iso.ask_in(batch uuid, v text) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('default', 'iso.a', 'iso.b', jsonb_build_object('action', 'ask', 'v', v), options => jsonb_build_object('batch', batch))
$$;
CREATE FUNCTION iso.try_ask_in(batch uuid, v text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT 'joined' FROM iso.ask_in(batch, v));
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || regexp_replace(SQLERRM, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID');
END
$$;
CREATE FUNCTION iso.completion() RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"source": "iso.a", "target": "iso.b", "payload": {"action": "ask", "v": "complete"}}'::jsonb $$;
CREATE FUNCTION iso.try_cancel(v text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM usher.cancel_sync_job(j.id) FROM usher.sync_jobs j WHERE j.payload->>'v' = try_cancel.v;
    RETURN 'cancelled';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || regexp_replace(SQLERRM, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID');
END
$$;

-- Ticket revenue, booked into a table here.
CREATE TABLE iso.books (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), sale uuid NOT NULL);
GRANT SELECT, INSERT ON iso.books TO regress_usher_iso;
CREATE FUNCTION iso.resolve(organization_id uuid, project_code text, event_code text) RETURNS uuid LANGUAGE sql AS $$ SELECT NULL::uuid $$;
CREATE FUNCTION iso.book(organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid, event_code text, ticket_count integer,
                         gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz) RETURNS uuid
    LANGUAGE sql AS $$ INSERT INTO iso.books (sale) VALUES ($2) RETURNING id $$;
CREATE FUNCTION iso.bind_revenue() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE usher.ticket_revenue_ingestions, iso.books;
    PERFORM usher.bind_ticket_revenue('iso.resolve', 'iso.book', 'regress_usher_iso');
END
$$;
CREATE FUNCTION iso.sell(key text, amount numeric) RETURNS TABLE (repeated boolean, gross_amount numeric, flagged boolean) LANGUAGE sql SET client_min_messages = warning AS $$
    SELECT s.repeated, s.gross_amount, s.possible_duplicate_of IS NOT NULL FROM usher.ingest_ticket_revenue('default', NULL, 'E', 1, amount, idempotency_key => key) AS s
$$;
CREATE FUNCTION iso.try_sell(key text, amount numeric) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT 'repeated ' || repeated FROM iso.sell(key, amount));
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
CREATE FUNCTION iso.take_back(key text) RETURNS TABLE (repeated boolean) LANGUAGE sql AS $$
    SELECT r.repeated FROM usher.reverse_ticket_revenue((SELECT id FROM usher.ticket_revenue_ingestions WHERE idempotency_key = key), 'back') AS r
$$;
CREATE VIEW iso.sales AS
    SELECT i.ticket_count, i.gross_amount, (SELECT count(*) FROM iso.books b WHERE b.sale = i.id) AS booked
      FROM usher.ticket_revenue_ingestions i ORDER BY i.ingested_at, i.id;
CREATE FUNCTION iso.limit_out(most integer) RETURNS text LANGUAGE sql AS $$
    SELECT usher.limit_system('iso.out', CASE WHEN most IS NOT NULL THEN jsonb_build_array(jsonb_build_object('per', 'system', 'concurrency', most)) END)
$$;
CREATE FUNCTION iso.ask_out(n integer) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('default', 'iso.a', 'iso.out', jsonb_build_object('n', n))
$$;

-- Bookings that may overlap.
CREATE TABLE iso.bookings (id integer PRIMARY KEY, asset integer, during int4range);
CREATE INDEX ON iso.bookings (asset);
CREATE FUNCTION iso.make_rule(refuse boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM usher.drop_overlap_rule(name) FROM usher.overlap_rules;
    TRUNCATE iso.bookings, usher.conflicts, usher.overlap_checks;
    PERFORM usher.create_overlap_rule('iso', jsonb_build_object('table', 'iso.bookings', 'resource', 'asset', 'period', 'during', 'refuse', refuse));
    PERFORM usher.process_jobs();
END
$$;
CREATE FUNCTION iso.try_book(id integer, asset integer, during int4range) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO iso.bookings VALUES (id, asset, during);
    RETURN 'booked';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
CREATE VIEW iso.overlaps AS SELECT left_key ->> 'id' AS l, right_key ->> 'id' AS r, state, decision FROM usher.conflicts ORDER BY 1, 2, raised_at;

-- At least one doctor of each ward is present.
CREATE TABLE iso.shifts (ward integer, doctor integer, present boolean NOT NULL, PRIMARY KEY (ward, doctor));
GRANT SELECT ON iso.shifts TO regress_usher_iso;
CREATE FUNCTION iso.make_gate() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM usher.drop_rule(name) FROM usher.rules;
    TRUNCATE iso.shifts;
    INSERT INTO iso.shifts SELECT ward, doctor, true FROM generate_series(1, 2) AS ward, generate_series(1, 2) AS doctor;
    PERFORM usher.create_rule('iso_gate', '{"query": "SELECT ward FROM iso.shifts GROUP BY ward HAVING NOT bool_or(present)", "key": ["ward"], "wrong": "''nobody is there''",
        "touches": {"iso.shifts": {"ward": "row.ward"}}, "run": ["transaction"], "run_as": "regress_usher_iso"}');
END
$$;
