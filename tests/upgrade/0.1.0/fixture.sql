-- How the dump beside this file was made, with pg_usher 0.1.0 on PostgreSQL 15 (see README.md). Not run by any test: the
-- version that can run it is not built here any more.
\set ON_ERROR_STOP on
-- A number that no new database gets by chance: the dump must be recognized as a copy wherever it is loaded.
DROP DATABASE IF EXISTS usher_upgrade_fixture;
CREATE DATABASE usher_upgrade_fixture TEMPLATE template0 OID 4000000010;
\connect usher_upgrade_fixture
DO $$ BEGIN IF to_regrole('upgrade_books') IS NULL THEN CREATE ROLE upgrade_books NOLOGIN; END IF; END $$;
CREATE EXTENSION pg_usher VERSION '0.1.0';
SELECT usher.setup();

SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin');
SELECT usher.create_organization('bolt', 'Bolt Tours', 'America/New_York');
SELECT usher.grant_membership('acme', 'ann', 'admin'), usher.grant_membership('acme', 'bob'),
       usher.grant_membership('bolt', 'carl', 'admin'), usher.grant_membership('default', 'lea', 'legend'),
       usher.grant_membership('acme', 'role:upgrade_books', 'admin');
SELECT usher.create_system('mailer', 'external');
SELECT id AS acme FROM usher.organizations WHERE slug = 'acme' \gset
SELECT id AS bolt FROM usher.organizations WHERE slug = 'bolt' \gset

CREATE PROCEDURE public.drain() LANGUAGE plpgsql AS $$
BEGIN
    WHILE usher.process_jobs() > 0 LOOP
        COMMIT;
    END LOOP;
END
$$;

------------------------------------------------------------------------------------------------------ the pack's rows
SELECT usher.install_pack('live_events');
INSERT INTO atlvs.deals (organization_id, title, status, value, event_date, venue_name, venue_timezone, expected_attendance, metadata)
VALUES (:'acme', 'Summer Night', 'proposal', 48000, '2026-08-01', 'Tempodrom', 'Europe/Berlin', 3000, '{"lineup": ["A", "B"]}'),
       (:'acme', 'Winter Ball', 'proposal', 12000, '2026-12-12', 'Huxleys', 'Europe/Berlin', 900, '{}'),
       (:'acme', 'Still Talking', 'inquiry', NULL, NULL, NULL, 'UTC', NULL, '{}'),
       (:'bolt', 'Harbour Days', 'proposal', 30000.50, '2026-07-04', 'Pier 9', 'America/New_York', 5000, '{}');
UPDATE atlvs.deals SET status = 'won' WHERE title IN ('Summer Night', 'Harbour Days');
CALL public.drain();
UPDATE compvss.productions SET status = 'advancing', capacity = 2800 WHERE name = 'Summer Night';
CALL public.drain();

--------------------------------------------------------------------------------------------------- flows of their own
CREATE TABLE public.orders (
    organization_id uuid NOT NULL,
    id integer NOT NULL,
    customer text NOT NULL,
    total numeric(10,2) NOT NULL,
    status text NOT NULL DEFAULT 'open',
    PRIMARY KEY (organization_id, id)
);
CREATE SCHEMA books;
CREATE TABLE books.invoices (
    organization_id uuid NOT NULL,
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id integer NOT NULL,
    customer text NOT NULL,
    amount numeric(10,2) NOT NULL,
    UNIQUE (organization_id, order_id)
);
CREATE TABLE books.limits (organization_id uuid PRIMARY KEY, most numeric(10,2) NOT NULL);
CREATE TABLE books.charges (
    organization_id uuid NOT NULL,
    order_id integer NOT NULL,
    amount numeric(10,2) NOT NULL,
    most numeric(10,2) NOT NULL,
    PRIMARY KEY (organization_id, order_id)
);
CREATE TABLE books.order_log (organization_id uuid NOT NULL, order_id integer NOT NULL, status text NOT NULL, version integer NOT NULL);
CREATE TABLE books.reissues (organization_id uuid NOT NULL, order_id integer NOT NULL, note text NOT NULL);
CREATE TABLE books.archive (organization_id uuid NOT NULL, order_id integer NOT NULL, status text NOT NULL);
CREATE TABLE books.letters (organization_id uuid NOT NULL, order_id integer NOT NULL, customer text NOT NULL);
INSERT INTO books.limits VALUES (:'acme', 1000), (:'bolt', 1000);
GRANT USAGE ON SCHEMA public, books TO upgrade_books;
GRANT SELECT ON public.orders TO upgrade_books;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA books TO upgrade_books;

SELECT usher.create_flow('invoice_from_order', '{
  "from": "shop", "to": "books", "run_as": "upgrade_books", "retry": {"delays": []},
  "when": {"change": "public.orders", "on": ["insert", "update"]},
  "if": "new.status = ''paid'' AND old.status IS DISTINCT FROM ''paid''",
  "then": {"insert": "books.invoices", "key": ["order_id"], "on_conflict": "keep"},
  "set": {"order_id": "new.id", "customer": "new.customer", "amount": "new.total"},
  "check": {"the amount is not negative": "amount >= 0"},
  "link": {"kind": "order", "left": "new.id", "right": "id"}}');
-- What it refuses is tried again after an hour, so that such jobs wait when the dump is taken.
SELECT usher.create_flow('charge_order', '{
  "from": "shop", "to": "books", "run_as": "upgrade_books", "priority": "high", "retry": {"delays": [3600, 3600]},
  "when": {"change": "public.orders", "on": ["insert", "update"]},
  "if": "new.status = ''charged''",
  "join": {"l": {"table": "books.limits", "on": "true"}},
  "then": {"upsert": "books.charges", "key": ["order_id"]},
  "set": {"order_id": "new.id", "amount": "new.total", "most": "l.most"},
  "check": {"the limit allows it": "amount <= most"}}');
SELECT usher.create_flow('log_order', '{
  "from": "shop", "to": "books", "run_as": "upgrade_books", "mode": "transactional",
  "when": {"change": "public.orders", "on": ["insert", "update"]},
  "then": {"insert": "books.order_log"},
  "set": {"order_id": "new.id", "status": "new.status", "version": "1"}}');
SELECT usher.create_flow('reissue_invoice', '{
  "from": "shop", "to": "books", "run_as": "upgrade_books", "mode": "async",
  "when": {"request": "reissue_invoice"},
  "then": {"insert": "books.reissues"},
  "set": {"order_id": "(job.payload->>''order_id'')::integer", "note": "''first''"}}');
SELECT usher.create_flow('archive_order', '{
  "from": "shop", "to": "archive", "run_as": "upgrade_books",
  "when": {"change": "public.orders", "on": ["delete"]},
  "then": {"insert": "books.archive"},
  "set": {"order_id": "old.id", "status": "old.status"}}');
SELECT usher.create_flow('write_letter', '{
  "from": "shop", "to": "letters", "run_as": "upgrade_books",
  "when": {"change": "public.orders", "on": ["update"]}, "if": "new.status = ''thanked''",
  "then": {"insert": "books.letters"},
  "set": {"order_id": "new.id", "customer": "new.customer"}}');
SELECT usher.create_flow('forgotten', '{
  "from": "shop", "to": "nowhere", "run_as": "upgrade_books",
  "when": {"change": "public.orders", "on": ["insert"]},
  "then": {"insert": "books.reissues"},
  "set": {"order_id": "new.id", "note": "''forgotten''"}}');

-- Finished; also of a flow that is gone.
INSERT INTO public.orders VALUES (:'acme', 1, 'Ada', 120), (:'acme', 2, 'Grace', 80.50), (:'bolt', 1, 'Linus', 5);
CALL public.drain();
SELECT usher.drop_flow('forgotten');
UPDATE public.orders SET status = 'paid' WHERE id = 1;
CALL public.drain();
SELECT status FROM usher.enqueue_sync_job('acme', 'shop', 'books', '{"action": "reissue_invoice", "order_id": 1}', unique_key => 'reissue-1');
CALL public.drain();

-- Dead; and one that was dead and is cancelled.
INSERT INTO public.orders VALUES (:'acme', 3, 'Alan', -5, 'paid'), (:'bolt', 3, 'Niklaus', -7, 'paid');
CALL public.drain();
SELECT r.status FROM usher.dead_letters d, usher.cancel_sync_job(d.id) r WHERE d.organization_id = :'bolt';

-- To be tried again, with a later change of its row behind it; one that went through.
INSERT INTO public.orders VALUES (:'acme', 4, 'Barbara', 5000, 'charged'), (:'bolt', 4, 'Ken', 10, 'charged');
CALL public.drain();
UPDATE public.orders SET total = 5001 WHERE id = 4 AND organization_id = :'acme';
CALL public.drain();

-- Waiting: for a time that will have come, for one that never comes, for an external system; cancelled.
SELECT status FROM usher.enqueue_sync_job('bolt', 'shop', 'books', '{"action": "reissue_invoice", "order_id": 20}',
                                          run_at => now() + interval '10 min', unique_key => 'reissue-20');
SELECT status FROM usher.enqueue_sync_job('bolt', 'shop', 'books', '{"action": "reissue_invoice", "order_id": 21}', run_at => '2999-01-01Z');
SELECT status FROM usher.enqueue_sync_job('acme', 'shop', 'mailer', '{"to": "ada"}');
SELECT c.status FROM usher.enqueue_sync_job('acme', 'shop', 'books', '{"action": "reissue_invoice", "order_id": 22}', unique_key => 'reissue-22') j,
       usher.cancel_sync_job(j.id) c;

-- For a flow that is switched off, and for one that no longer fits.
UPDATE public.orders SET status = 'thanked' WHERE id = 2;
SELECT usher.disable_flow('write_letter');
ALTER TABLE books.archive RENAME COLUMN status TO last_status;
DELETE FROM public.orders WHERE id = 3 AND organization_id = :'bolt';
CALL public.drain();

-- A job of an earlier version of its flow, and ready ones, which nobody has run: in several lanes, with a unique key.
SELECT status FROM usher.enqueue_sync_job('acme', 'shop', 'books', '{"action": "reissue_invoice", "order_id": 30}', unique_key => 'reissue-30');
SELECT usher.alter_flow('reissue_invoice', definition || '{"set": {"order_id": "(job.payload->>''order_id'')::integer", "note": "''second''"}}')
  FROM usher.flows WHERE name = 'reissue_invoice';
SELECT usher.enqueue_sync_jobs('acme', 'shop', 'books', ARRAY['{"action": "reissue_invoice", "order_id": 31}', '{"action": "reissue_invoice", "order_id": 32}']::jsonb[]);
SELECT status FROM usher.enqueue_sync_job('bolt', 'shop', 'books', '{"action": "reissue_invoice", "order_id": 33}', priority => 'emergency');
INSERT INTO public.orders VALUES (:'acme', 5, 'Edsger', 55, 'paid'), (:'bolt', 5, 'Donald', 66, 'charged');
-- Of a row that is there twice: the last change counts.
UPDATE public.orders SET total = 67 WHERE id = 5 AND organization_id = :'bolt';
UPDATE public.orders SET total = 68 WHERE id = 5 AND organization_id = :'bolt';
UPDATE atlvs.deals SET status = 'won' WHERE title = 'Winter Ball';

SELECT coalesce(flow, target_system) AS flow, status, waiting_for, count(*) FROM usher.sync_jobs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
DROP PROCEDURE public.drain();
