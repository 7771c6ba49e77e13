-- Pausing flows, systems and organizations, and letting their jobs go on.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS pz CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_admin, regress_usher_member, regress_usher_stranger;
RESET client_min_messages;
CREATE SCHEMA pz;
CREATE TABLE pz.rows (id integer PRIMARY KEY, organization_id uuid NOT NULL, v integer);
CREATE TABLE pz.done (seq integer GENERATED ALWAYS AS IDENTITY, organization_id uuid, what text);
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
GRANT ALL ON SCHEMA pz TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA pz TO regress_usher_op;
SELECT usher.create_organization('pz-acme') AS acme, usher.create_organization('pz-beta') AS beta \gset
SELECT usher.grant_membership('pz-acme', 'role:regress_usher_admin', 'admin'), usher.grant_membership('pz-acme', 'role:regress_usher_member');
SELECT usher.create_system('pz.a'), usher.create_system('pz.b'), usher.create_system('pz.out', 'external');
SET ROLE regress_usher_op;
SELECT usher.create_flow('pz_rows', $$ {"from": "pz.a", "to": "pz.b", "when": {"change": "pz.rows"}, "then": {"insert": "pz.done"}, "set": {"what": "'row ' || new.id || '/' || new.v"}} $$);
SELECT usher.create_flow('pz_work', $$ {"from": "pz.a", "to": "pz.b", "when": {"request": "work"}, "then": {"insert": "pz.done"},
  "set": {"what": "job.payload->>'what'"}, "retry": {"delays": [0, 0], "jitter": 0}} $$);
RESET ROLE;
CREATE FUNCTION pz.ask(organization text, what text, options jsonb DEFAULT NULL, target text DEFAULT 'pz.b') RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job(organization, 'pz.a', target, jsonb_build_object('action', 'work', 'what', what), options => options) $$;
CREATE VIEW pz.jobs AS
SELECT COALESCE(j.payload->>'what', 'row ' || (j.payload->'new'->>'id') || '/' || (j.payload->'new'->>'v')) AS what, o.slug, j.status, j.waiting_for, j.priority
  FROM usher.sync_jobs j JOIN usher.organizations o ON o.id = j.organization_id WHERE o.slug LIKE 'pz-%';
CREATE VIEW pz.pauses AS
SELECT flow, system, organization, state, reason, now() - since < interval '1 hour' AS since, paused_by, until > now() AS until, waiting FROM usher.pauses;
CREATE FUNCTION pz.ends(statement text) RETURNS SETOF text LANGUAGE sql AS $$ SELECT * FROM public.try(statement) $$;
GRANT USAGE ON SCHEMA pz TO PUBLIC;
GRANT EXECUTE ON FUNCTION pz.ends, public.try TO PUBLIC;
GRANT SELECT ON pz.pauses TO PUBLIC;
ALTER VIEW pz.pauses SET (security_invoker = true);

-- Who may pause what, and what is not understood.
\pset format unaligned
\pset tuples_only on
SET ROLE regress_usher_op;
SELECT pz.ends($$ SELECT usher.pause_jobs() $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(flow => 'pz_work', system => 'pz.b') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(flow => 'pz_wrok') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(system => 'pz.nowhere') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(organization => 'pz-nobody') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(flow => 'pz_work', until => now() - interval '1 s') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(flow => 'pz_work', until => 'infinity') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(flow => 'pz_work', reason => repeat('x', 501)) $$);
SELECT pz.ends($$ SELECT usher.resume_jobs(flow => 'pz_work') $$);
SET ROLE regress_usher_admin;
SELECT pz.ends($$ SELECT usher.pause_jobs(flow => 'pz_work') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(flow => 'pz_nothing') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(system => 'pz.out') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(organization => 'pz-beta') $$);
SELECT pz.ends($$ SELECT usher.pause_jobs(organization => 'pz-nobody') $$);
SELECT pz.ends($$ SELECT usher.resume_jobs(organization => 'pz-beta', flow => 'pz_work') $$);
SET ROLE regress_usher_member;
SELECT pz.ends($$ SELECT usher.pause_jobs(organization => 'pz-acme') $$);
SET ROLE regress_usher_stranger;
SELECT pz.ends($$ SELECT usher.pause_jobs(organization => 'pz-acme') $$);
SELECT pz.ends($$ SELECT usher.resume_jobs(flow => 'pz_work') $$);
RESET ROLE;
\pset format aligned
\pset tuples_only off
SELECT count(*) AS nothing_is_paused FROM usher.pauses;

-- A flow: changes are captured as before, its jobs wait, others go on. What is paused again gets the new reason and end.
SET ROLE regress_usher_op;
SELECT usher.pause_jobs(flow => 'pz_rows', reason => 'the shop moves');
SELECT usher.pause_jobs(flow => 'pz_rows', until => now() + interval '1 day', reason => 'the shop moves slowly');
RESET ROLE;
INSERT INTO pz.rows SELECT n, :'acme', 1 FROM generate_series(1, 2) AS n;
UPDATE pz.rows SET v = 2 WHERE id = 1;
SELECT pz.ask('pz-acme', 'work') IS NOT NULL AS asked;
CALL public.drain();
UPDATE pz.rows SET v = 3 WHERE id = 1;
CALL public.drain();
SELECT what FROM pz.done ORDER BY seq;
SELECT * FROM pz.jobs WHERE status <> 'synced' ORDER BY what;
SELECT * FROM pz.pauses;
SELECT waiting_for FROM usher.queue WHERE flow = 'pz_rows';
-- In their order, and the pause is gone.
SELECT usher.resume_jobs(flow => 'pz_rows');
SELECT state, waiting FROM pz.pauses;
CALL public.drain();
SELECT what FROM pz.done WHERE what LIKE 'row 1/%' ORDER BY seq;
SELECT count(*) AS rows FROM pz.done WHERE what LIKE 'row %';
SELECT * FROM pz.pauses;
SELECT pz.ends($$ SELECT usher.resume_jobs(flow => 'pz_rows') $$);

-- Paused again while its jobs go on: what has not gone stays.
SELECT usher.pause_jobs(flow => 'pz_rows');
UPDATE pz.rows SET v = 4;
CALL public.drain();
SELECT usher.resume_jobs(flow => 'pz_rows');
SELECT usher.pause_jobs(flow => 'pz_rows');
UPDATE pz.rows SET v = 5 WHERE id = 1;
CALL public.drain();
SELECT * FROM pz.jobs WHERE status <> 'synced' ORDER BY what;
SELECT usher.resume_jobs(flow => 'pz_rows');
CALL public.drain();
SELECT what FROM pz.done WHERE what ~ 'row ./[45]' ORDER BY split_part(what, '/', 1), seq;
TRUNCATE pz.done RESTART IDENTITY;

-- An organization, by its admin. Another one's jobs of the same batch go on; its members see why theirs wait.
SET ROLE regress_usher_admin;
SELECT usher.pause_jobs(organization => 'pz-acme', reason => 'stocktaking');
RESET ROLE;
SELECT count(pz.ask(o, o || ' ' || n)) AS asked FROM (VALUES ('pz-acme'), ('pz-beta')) AS v (o), generate_series(1, 3) AS n;
CALL public.drain();
SELECT what FROM pz.done ORDER BY what;
SET ROLE regress_usher_member;
SELECT * FROM pz.pauses;
RESET ROLE;
-- A pause of another one is none of theirs; one for everybody is seen, without how many wait.
SELECT usher.pause_jobs(organization => 'pz-beta'), usher.pause_jobs(system => 'pz.out', reason => 'it is down');
SET ROLE regress_usher_member;
SELECT flow, system, organization, waiting FROM pz.pauses ORDER BY organization;
RESET ROLE;
SET ROLE regress_usher_admin;
SELECT usher.resume_jobs(organization => 'pz-acme');
RESET ROLE;
SELECT usher.resume_jobs(organization => 'pz-beta');
CALL public.drain();
SELECT what FROM pz.done WHERE what LIKE 'pz-acme%' ORDER BY seq;
SELECT actor, organization_id = :'acme' AS acme, action, object, new FROM usher.audit_log WHERE action LIKE 'usher.jobs.%' AND actor = 'role:regress_usher_admin' ORDER BY recorded_at;
TRUNCATE pz.done RESTART IDENTITY;

-- An external system: nothing is handed out, what is taken is answered.
SELECT usher.resume_jobs(system => 'pz.out');
SELECT count(pz.ask(o, 'for ' || o, target => 'pz.out')) AS asked FROM (VALUES ('pz-acme'), ('pz-acme'), ('pz-beta')) AS v (o);
SELECT job AS job, lease AS lease FROM usher.claim_jobs('pz.out') WHERE payload->>'what' = 'for pz-acme' \gset
SELECT usher.pause_jobs(organization => 'pz-acme', system => 'pz.out');
SELECT payload->>'what' AS what FROM usher.claim_jobs('pz.out', 10);
SELECT organization, system, waiting FROM pz.pauses;
SELECT what, slug, status, waiting_for FROM pz.jobs WHERE what LIKE 'for %' ORDER BY 1, 2, 3, 4;
SELECT status FROM usher.finish_job(:'job', :'lease');
SET ROLE regress_usher_admin;
SELECT count(*) AS nothing FROM usher.claim_jobs('pz.out', 10);
RESET ROLE;
SELECT usher.pause_jobs(system => 'pz.out');
SELECT count(*) AS nothing FROM usher.claim_jobs('pz.out', 10);
SELECT usher.resume_jobs(system => 'pz.out'), usher.resume_jobs(organization => 'pz-acme', system => 'pz.out');
SELECT payload->>'what' AS what FROM usher.claim_jobs('pz.out', 10);

-- What can be done with paused jobs: keys, expiry, order after others, cancel, another lane.
SELECT usher.pause_jobs(system => 'pz.b');
SELECT pz.ask('pz-acme', 'first') AS first, pz.ask('pz-acme', 'keyed', '{"unique": {"key": "pz", "for": "pending"}}') AS keyed,
       pz.ask('pz-acme', 'expires', '{"expires_in": "0.05 s"}') AS expires, pz.ask('pz-acme', 'cancelled') AS cancelled, pz.ask('pz-acme', 'urgent') AS urgent \gset
SELECT pz.ask('pz-acme', 'second', jsonb_build_object('after', jsonb_build_array(:'first'))) IS NOT NULL AS asked;
CALL public.drain();
SELECT pz.ask('pz-acme', 'keyed once more', '{"unique": {"key": "pz", "for": "pending"}}') = :'keyed' AS the_same;
SELECT status FROM usher.cancel_sync_job(:'cancelled');
SELECT priority, waiting_for FROM usher.reprioritise(:'urgent', 'emergency');
SELECT pg_sleep(0.1) IS NOT NULL AS over;
CALL public.drain();
SELECT what, status, waiting_for, priority FROM pz.jobs WHERE what IN ('first', 'second', 'keyed', 'expires', 'cancelled', 'urgent') ORDER BY what;
SELECT usher.resume_jobs(system => 'pz.b');
CALL public.drain();
CALL public.drain();
SELECT what, status FROM pz.jobs WHERE what IN ('first', 'second', 'keyed', 'expires', 'cancelled', 'urgent') ORDER BY what;
SELECT array_agg(what ORDER BY seq) AS in_order FROM pz.done WHERE what IN ('first', 'second');
TRUNCATE pz.done RESTART IDENTITY;

-- Several pauses over one job: it goes on when none is left.
SELECT usher.pause_jobs(flow => 'pz_work'), usher.pause_jobs(organization => 'pz-acme');
SELECT pz.ask('pz-acme', 'twice') IS NOT NULL AS asked;
CALL public.drain();
SELECT usher.resume_jobs(flow => 'pz_work');
CALL public.drain();
SELECT what, status, waiting_for FROM pz.jobs WHERE what = 'twice';
SELECT usher.resume_jobs(organization => 'pz-acme');
CALL public.drain();
SELECT what, status, waiting_for FROM pz.jobs WHERE what = 'twice';
SELECT count(*) AS pauses FROM usher.pauses;

-- A transactional flow goes on in the writer's transaction. The jobs of a flow that is dropped are cancelled.
SELECT usher.create_flow('pz_now', $$ {"when": {"change": "pz.rows"}, "mode": "transactional", "then": {"insert": "pz.done"}, "set": {"what": "'now ' || new.v"}, "run_as": "regress_usher_op"} $$);
SELECT usher.pause_jobs(flow => 'pz_now'), usher.pause_jobs(flow => 'pz_rows');
UPDATE pz.rows SET v = 6 WHERE id = 2;
SELECT what FROM pz.done;
CALL public.drain();
SELECT usher.drop_flow('pz_now'), usher.drop_flow('pz_rows');
CALL public.drain();
SELECT what, status FROM pz.jobs WHERE what = 'row 2/6' AND status <> 'synced';
SELECT count(*) AS pauses FROM usher.pauses;

-- What was forgotten is found.
SELECT usher.pause_jobs(flow => 'pz_work', organization => 'pz-acme', reason => 'the printer is out of paper');
SELECT state, finding FROM usher.doctor() WHERE "check" = 'pauses';
UPDATE usher.pause_orders SET paused_at = now() - interval '26 hours';
SELECT state, regexp_replace(finding, '26:00:0\d|1 day 02:00:0\d', '26 h') AS finding, remedy FROM usher.doctor() WHERE "check" = 'pauses';
SELECT usher.resume_jobs(flow => 'pz_work', organization => 'pz-acme');
CALL public.drain();
SELECT usher.cancel_sync_jobs('pz-acme', '{}') >= 0 AS cleaned, usher.cancel_sync_jobs('pz-beta', '{}') >= 0 AS cleaned;

SET client_min_messages = warning;
SELECT usher.drop_flow('pz_work');
DROP SCHEMA pz CASCADE;
DROP OWNED BY regress_usher_op;
DROP ROLE regress_usher_op, regress_usher_admin, regress_usher_member, regress_usher_stranger;
