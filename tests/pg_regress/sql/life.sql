-- A job's life as its caller and its admin steer it: options, dependencies, batches, filters.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS lf CASCADE;
DROP ROLE IF EXISTS regress_usher_op;
DROP ROLE IF EXISTS regress_usher_mem;
RESET client_min_messages;
CREATE SCHEMA lf;
CREATE TABLE lf.done (seq integer GENERATED ALWAYS AS IDENTITY, what text, CHECK (what NOT LIKE 'poison%'));
CREATE TABLE lf.source (id integer PRIMARY KEY, v text);
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_mem NOLOGIN IN ROLE usher_member;
GRANT ALL ON SCHEMA lf TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA lf TO regress_usher_op;
ALTER TABLE lf.done OWNER TO regress_usher_op;
SELECT usher.create_organization('lf-acme') AS acme, usher.create_organization('lf-other') AS other \gset
SELECT usher.create_system('lf.a'), usher.create_system('lf.b'), usher.create_system('lf.out', 'external');
SET ROLE regress_usher_op;
SELECT usher.create_flow('lf_work', $$ {"from": "lf.a", "to": "lf.b", "when": {"request": "work"}, "then": {"insert": "lf.done"},
  "set": {"what": "job.payload->>'what'"}, "retry": {"delays": []}} $$);
SELECT usher.create_flow('lf_sum', $$ {"from": "lf.a", "to": "lf.b", "when": {"request": "sum"}, "then": {"insert": "lf.done"},
  "set": {"what": "'sum ' || (job.payload->'batch'->>'total') || '/' || (job.payload->'batch'->>'done') || '/' || (job.payload->'batch'->>'failed') || '/' || (job.payload->'batch'->>'cancelled') || ' ' || (job.payload->>'note')"}} $$);
SELECT usher.create_flow('lf_copy', $$ {"when": {"change": "lf.source"}, "then": {"insert": "lf.done"}, "set": {"what": "new.id || ' ' || new.v"}, "retry": {"delays": [0]}} $$);
-- Asks for a job; returns its id.
CREATE FUNCTION lf.ask(what text, options jsonb DEFAULT NULL) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('lf-acme', 'lf.a', 'lf.b', jsonb_build_object('action', 'work', 'what', what), options => options) $$;
CREATE VIEW lf.jobs AS SELECT COALESCE(payload->>'what', payload->'new'->>'v') AS what, status, waiting_for, attempts,
       regexp_replace(error_message, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS error, priority FROM usher.sync_jobs WHERE flow LIKE 'lf_%' OR target_system = 'lf.out';
CREATE PROCEDURE lf.clean() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM usher.cancel_sync_jobs(slug, '{}'), usher.cancel_sync_jobs(slug, '{"status": "dead"}') FROM (VALUES ('lf-acme'), ('default')) AS o (slug);
    TRUNCATE lf.done RESTART IDENTITY;
END
$$;
RESET ROLE;
GRANT ALL ON ALL TABLES IN SCHEMA lf TO regress_usher_op;
GRANT USAGE ON SCHEMA lf TO regress_usher_mem;

-- What is not understood is refused, with the remedy.
\pset format unaligned
\pset tuples_only on
SELECT options, try(format('SELECT lf.ask(''x'', %L)', options)) AS said FROM (VALUES
    (1, '[]'), (2, '{"expires": "1 h"}'), (3, '{"retry": {"delay": [1]}}'), (4, '{"retry": {"delays": [-1]}}'), (5, '{"expires_in": "soon"}'),
    (6, '{"expires_at": "infinity"}'), (7, '{"expires_in": "1 h", "expires_at": "2030-01-01"}'), (8, '{"unique": {"key": "k", "for": "always"}}'),
    (9, '{"unique": {"key": "k", "for": "1 apple"}}'), (10, '{"unique": {"kye": "k"}}'), (11, '{"after": ["x"]}'),
    (12, '{"after": ["00000000-0000-7000-8000-000000000000"]}'), (13, '{"on_failure": "run"}'), (14, '{"batch": "00000000-0000-7000-8000-000000000000"}')) AS o (n, options) ORDER BY n;
SELECT try($$ SELECT usher.enqueue_sync_job('lf-acme', 'lf.a', 'lf.b', '{"action": "work"}', unique_key => 'k', options => '{"unique": {"key": "k"}}') $$);
SELECT try($$ SELECT usher.enqueue_sync_job('lf-acme', 'lf.a', 'lf.b', '{"action": "work"}', run_at => now() + interval '2 h', options => '{"expires_in": "1 hour"}') $$);
SELECT try($$ SELECT usher.enqueue_sync_job('lf-acme', 'lf.a', 'lf.b', '{"action": "work"}', options => '{"expires_in": "-1 hour"}') $$);
SELECT try($$ SELECT usher.create_batch('lf-acme', 'bad', '{"source": "lf.a"}') $$);
-- A lane is held for a transaction, and this one is over at once.
SELECT usher.hold_lane('low');
SELECT try($$ SELECT usher.enqueue_sync_jobs('lf-acme', 'lf.a', 'lf.b', ARRAY['{"action": "work"}']::jsonb[], options => '{"unique": {"key": "k"}}') $$);
\pset format aligned
\pset tuples_only off
SELECT count(*) AS nothing_was_made FROM lf.jobs;

-- A retry rule of its own: the flow gives up at once, this job tries twice more.
SELECT lf.ask('poison flow rule') IS NOT NULL AS asked, lf.ask('poison own rule', '{"retry": {"delays": [0, 0], "jitter": 0}}') IS NOT NULL AS asked;
CALL public.drain();
SELECT what, status, attempts FROM lf.jobs WHERE status = 'dead' ORDER BY what;
CALL lf.clean();

-- Unique until the job has ended.
SELECT lf.ask('first', '{"unique": {"key": "p", "for": "pending"}}') AS first \gset
SELECT lf.ask('second', '{"unique": {"key": "p", "for": "pending"}}') = :'first' AS same_while_pending;
CALL public.drain();
SELECT lf.ask('third', '{"unique": {"key": "p", "for": "pending"}}') = :'first' AS same_afterwards;
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
-- For a period, whatever becomes of the job.
SELECT lf.ask('hour', '{"unique": {"key": "h", "for": "1 hour"}}') AS hour, lf.ask('moment', '{"unique": {"key": "m", "for": "0 s"}}') AS moment \gset
CALL public.drain();
SELECT lf.ask('hour again', '{"unique": {"key": "h", "for": "1 hour"}}') = :'hour' AS same_hour, lf.ask('moment again', '{"unique": {"key": "m", "for": "1 hour"}}') = :'moment' AS same_moment;
-- For ever: also when nothing is known of the job any more. A key without a rule goes with its job.
SELECT lf.ask('ever', '{"unique": {"key": "e", "for": "ever"}}') AS ever, lf.ask('remembered', '{"unique": {"key": "r"}}') AS remembered \gset
CALL public.drain();
RESET ROLE;
DELETE FROM usher.job_history WHERE id IN (:'ever', :'remembered');
SET ROLE regress_usher_op;
SELECT job_id = :'ever' AS still FROM usher.job_keys WHERE unique_key = 'e';
SELECT id = :'ever' AS same_ever, status FROM usher.enqueue_sync_job('lf-acme', 'lf.a', 'lf.b', '{"action": "work"}', options => '{"unique": {"key": "e"}}');
SELECT lf.ask('remembered again', '{"unique": {"key": "r"}}') = :'remembered' AS same_remembered;
-- A cancelled job gives its key back.
SELECT lf.ask('cancelled', '{"unique": {"key": "c", "for": "ever"}}') AS c \gset
SELECT status FROM usher.cancel_sync_job(:'c');
SELECT lf.ask('after the cancelled one', '{"unique": {"key": "c", "for": "ever"}}') = :'c' AS same_cancelled;
CALL public.drain();
CALL lf.clean();

-- Expiry: never late, wherever the job waits.
SELECT lf.ask('in time', '{"expires_in": "1 hour"}') AS in_time, lf.ask('too late', '{"expires_at": "2001-01-01 00:00+00"}') AS late \gset
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
SELECT what, status, attempts, error FROM lf.jobs WHERE status = 'dead';
SELECT sqlstate FROM usher.dead_letters WHERE id = :'late';
-- Who runs it by hand does not mean its expiry.
SELECT status FROM usher.retry_sync_job(:'late');
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
CALL lf.clean();
-- A flow that is off does not keep it; nor does a worker outside that never comes, or a job before it that does not end.
SELECT usher.disable_flow('lf_work');
SELECT lf.ask('disabled, late', '{"expires_in": "1 ms"}') AS late, lf.ask('disabled, in time', '{"expires_in": "1 hour"}') AS in_time \gset
SELECT status, waiting_for FROM usher.enqueue_sync_job('lf-acme', 'lf.a', 'lf.out', '{"what": "outside, late"}', options => '{"expires_in": "1 ms"}');
SELECT lf.ask('after, late', jsonb_build_object('after', ARRAY[:'in_time'], 'expires_in', '1 ms')) IS NOT NULL AS asked;
SELECT pg_sleep(0.01);
CALL public.drain();
SELECT what, status, waiting_for, error FROM lf.jobs WHERE status IN ('pending', 'dead') ORDER BY what;
SELECT usher.enable_flow('lf_work');
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
CALL lf.clean();
-- It parks before its time and expires there: the flow is off when its turn comes.
SELECT usher.disable_flow('lf_work');
SELECT lf.ask('parks', '{"expires_in": "1 hour"}') AS parks \gset
CALL public.drain();
SELECT what, status, waiting_for FROM lf.jobs WHERE status = 'pending';
RESET ROLE;
UPDATE usher.job_options SET expires_at = now() - interval '1 s' WHERE job_id = :'parks';
UPDATE usher.job_expiries SET expires_at = now() - interval '1 s' WHERE job_id = :'parks';
SET ROLE regress_usher_op;
CALL public.drain();
SELECT what, status, error FROM lf.jobs WHERE status = 'dead';
SELECT usher.enable_flow('lf_work');
-- Those of jobs that have ended go when their time comes.
SELECT bool_and(expires_at > now()) AS to_come FROM usher.job_expiries;
CALL lf.clean();

-- After others: waits, and runs when all of them are synced. Those that have ended at once count.
SELECT lf.ask('one') AS one, lf.ask('two') AS two \gset
SELECT lf.ask('after both', jsonb_build_object('after', ARRAY[:'one', :'two'])) AS both \gset
SELECT status, waiting_for, run_at FROM usher.sync_jobs WHERE id = :'both';
SELECT lf.ask('after the one after both', jsonb_build_object('after', ARRAY[:'both'])) IS NOT NULL AS asked;
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
SELECT status, waiting_for FROM usher.enqueue_sync_job('lf-acme', 'lf.a', 'lf.b', '{"action": "work", "what": "after the past"}', options => jsonb_build_object('after', ARRAY[:'one', :'both']));
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq DESC LIMIT 1;
SELECT count(*) AS dependencies FROM usher.job_dependencies;
TRUNCATE lf.done RESTART IDENTITY;
-- One that fails ends those that wait for it, down the line, by name; or lets them run.
SELECT lf.ask('poison') AS poison, lf.ask('good') AS good \gset
SELECT lf.ask('dies', jsonb_build_object('after', ARRAY[:'poison', :'good'])) AS dies \gset
SELECT lf.ask('dies of it', jsonb_build_object('after', ARRAY[:'dies'])) IS NOT NULL AS asked,
       lf.ask('runs anyway', jsonb_build_object('after', ARRAY[:'dies', :'good'], 'on_failure', 'run')) IS NOT NULL AS asked;
CALL public.drain();
SELECT what, status, attempts, error FROM lf.jobs WHERE status = 'dead' ORDER BY what;
SELECT DISTINCT sqlstate, error_message LIKE '%' || :'poison' || '%' AS names_it FROM usher.dead_letters WHERE id = :'dies';
SELECT what FROM lf.done ORDER BY seq;
CALL lf.clean();
-- Cancelled ones, and those that failed before.
SELECT lf.ask('to be cancelled') AS c \gset
SELECT lf.ask('waits for the cancelled', jsonb_build_object('after', ARRAY[:'c'])) IS NOT NULL AS asked;
SELECT status FROM usher.cancel_sync_job(:'c');
SELECT lf.ask('comes after the cancelled', jsonb_build_object('after', ARRAY[:'c'])) IS NOT NULL AS asked,
       lf.ask('does not mind', jsonb_build_object('after', ARRAY[:'c'], 'on_failure', 'run')) IS NOT NULL AS asked;
CALL public.drain();
SELECT what, status, error FROM lf.jobs WHERE status = 'dead' ORDER BY what;
SELECT what FROM lf.done ORDER BY seq;
CALL lf.clean();
-- A chain of two hundred ends as a whole.
DO $$
DECLARE
    last uuid := lf.ask('poison chain');
BEGIN
    FOR n IN 1..200 LOOP
        last := lf.ask('link', jsonb_build_object('after', ARRAY[last]));
    END LOOP;
END
$$;
CALL public.drain();
SELECT status, count(*) FROM lf.jobs WHERE what = 'link' GROUP BY status;
SELECT usher.process_jobs() FROM generate_series(1, 15);
SELECT status, count(*) FROM lf.jobs WHERE what = 'link' GROUP BY status;
CALL lf.clean();
-- Only jobs of the same organization can be waited for; whether others exist is not told.
SELECT id AS foreign_job FROM usher.enqueue_sync_job('lf-other', 'lf.a', 'lf.b', '{"action": "work", "what": "elsewhere"}') \gset
SELECT regexp_replace(try(format('SELECT lf.ask(''x'', %L)', jsonb_build_object('after', ARRAY[:'foreign_job']))), '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS said;
-- Of change jobs too, and not before run_at.
INSERT INTO lf.source VALUES (1, 'change');
SELECT id AS change FROM usher.sync_jobs WHERE flow = 'lf_copy' AND status = 'pending' \gset
SELECT status, waiting_for FROM usher.enqueue_sync_job('default', 'lf.a', 'lf.b', '{"action": "work", "what": "after the change"}', options => jsonb_build_object('after', ARRAY[:'change']));
SELECT status, waiting_for, run_at FROM usher.enqueue_sync_job('default', 'lf.a', 'lf.b', '{"action": "work", "what": "after it, tomorrow"}', run_at => now() + interval '1 day', options => jsonb_build_object('after', ARRAY[:'change']));
SELECT status, waiting_for FROM usher.enqueue_sync_job('default', 'lf.a', 'lf.out', '{"what": "outside, after the change"}', options => jsonb_build_object('after', ARRAY[:'change']));
CALL public.drain();
SELECT what FROM lf.done WHERE what <> 'elsewhere' ORDER BY seq;
SELECT what, status, waiting_for FROM lf.jobs WHERE status = 'pending' ORDER BY what;
CALL lf.clean();

-- Batches.
SELECT usher.create_batch('lf-acme', 'night', '{"source": "lf.a", "target": "lf.b", "payload": {"action": "sum", "note": "night"}, "priority": "high"}') AS night \gset
SELECT cardinality(usher.enqueue_sync_jobs('lf-acme', 'lf.a', 'lf.b', ARRAY(SELECT jsonb_build_object('action', 'work', 'what', CASE WHEN g = 5 THEN 'poison' ELSE g::text END) FROM generate_series(1, 10) AS g),
       'low', options => jsonb_build_object('batch', :'night', 'retry', '{"delays": [0]}'::jsonb))) AS jobs;
SELECT lf.ask('cancelled one', jsonb_build_object('batch', :'night')) AS c \gset
SELECT name, state, total, done, failed, cancelled, percent, sealed_at, finished_at FROM usher.batches WHERE id = :'night';
SELECT status FROM usher.cancel_sync_job(:'c');
SELECT usher.process_jobs(5);
SELECT name, state, total, done, failed, cancelled, percent, finished_at FROM usher.batches WHERE id = :'night';
SELECT usher.seal_batch(:'night') AS sealed, usher.seal_batch(:'night') AS again;
SELECT regexp_replace(try(format('SELECT lf.ask(''late'', %L)', jsonb_build_object('batch', :'night'))), '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS said;
CALL public.drain();
SELECT name, state, total, done, failed, cancelled, percent, started_at <= finished_at AS in_order FROM usher.batches WHERE id = :'night';
SELECT j.status, j.priority, j.payload - 'batch' AS payload FROM usher.batches b JOIN usher.sync_jobs j ON j.id = b.completion_job WHERE b.id = :'night';
SELECT what FROM lf.done WHERE what LIKE 'sum%';
-- A dead one that runs after all is counted; nothing is made a second time.
SELECT usher.retry_dead_letters('lf-acme', '{"flow": "lf_work"}', '{"what": "cured"}') AS retried;
CALL public.drain();
SELECT state, done, failed, cancelled, percent FROM usher.batches WHERE id = :'night';
SELECT count(*) AS sums FROM lf.done WHERE what LIKE 'sum%';
-- An empty one is finished when it is sealed; so is one whose jobs have all ended.
SELECT usher.create_batch('lf-acme', 'empty', '{"source": "lf.a", "target": "lf.b", "payload": {"action": "sum", "note": "empty"}}') AS empty \gset
SELECT usher.seal_batch(:'empty');
SELECT state, total, done, percent, completion_job IS NOT NULL AS completed FROM usher.batches WHERE id = :'empty';
SELECT usher.create_batch('lf-acme', 'over', '{"source": "lf.a", "target": "lf.b", "payload": {"action": "sum", "note": "over"}}') AS over \gset
SELECT lf.ask('of over', jsonb_build_object('batch', :'over')) IS NOT NULL AS asked;
CALL public.drain();
SELECT usher.seal_batch(:'over');
SELECT state, total, done, percent FROM usher.batches WHERE id = :'over';
CALL public.drain();
SELECT what FROM lf.done WHERE what LIKE 'sum%' ORDER BY seq;
-- A completion that nobody takes any more is said, and undoes nothing.
SELECT usher.create_batch('lf-acme', 'orphan', '{"source": "lf.a", "target": "lf.b", "payload": {"action": "sum"}}') AS orphan \gset
SELECT lf.ask('of orphan', jsonb_build_object('batch', :'orphan')) IS NOT NULL AS asked;
SELECT usher.seal_batch(:'orphan');
SELECT usher.drop_flow('lf_sum');
CALL public.drain();
SELECT state, done, completion_job, error_message FROM usher.batches WHERE id = :'orphan';
\pset format unaligned
\pset tuples_only on
SELECT try($$ SELECT usher.create_batch('lf-acme', 'bad', '{"source": "lf.a", "target": "lf.b", "payload": {"action": "nothing"}}') $$);
SELECT try($$ SELECT usher.create_batch('lf-acme', 'bad', '{"from": "lf.a"}') $$);
SELECT try($$ SELECT usher.create_batch('lf-acme', '') $$);
SELECT try($$ SELECT usher.seal_batch('00000000-0000-7000-8000-000000000000') $$);
\pset format aligned
\pset tuples_only off
CALL lf.clean();

-- Another lane. Earlier changes of the row come along, later ones wait.
SELECT lf.ask('slow one') AS slow, lf.ask('quick one') AS quick \gset
SELECT status, priority FROM usher.reprioritise(:'quick', 'emergency');
SELECT usher.process_jobs(1);
SELECT what FROM lf.done;
CALL public.drain();
TRUNCATE lf.done RESTART IDENTITY;
INSERT INTO lf.source VALUES (2, 'a'), (3, 'x');
UPDATE lf.source SET v = 'b' WHERE id = 2;
UPDATE lf.source SET v = 'c' WHERE id = 2;
SELECT id AS b FROM usher.sync_jobs WHERE flow = 'lf_copy' AND payload->'new'->>'v' = 'b' \gset
SELECT priority FROM usher.reprioritise(:'b', 'critical');
SELECT what, priority FROM lf.jobs WHERE status = 'pending' ORDER BY what;
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
TRUNCATE lf.done RESTART IDENTITY;
-- Into a slower lane: what comes later waits for it.
UPDATE lf.source SET v = 'd' WHERE id = 2;
SELECT id AS d FROM usher.sync_jobs WHERE flow = 'lf_copy' AND payload->'new'->>'v' = 'd' \gset
SELECT priority FROM usher.reprioritise(:'d', 'low');
UPDATE lf.source SET v = 'e' WHERE id = 2;
UPDATE lf.source SET v = 'y' WHERE id = 3;
CALL public.drain();
SELECT what FROM lf.done WHERE what LIKE '2%' ORDER BY seq;
SELECT regexp_replace(try(format('SELECT usher.reprioritise(%L, ''high'')', :'d')), '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID') AS said;
SELECT try(format('SELECT usher.reprioritise(%L, ''urgent'')', :'d')) AS said;
CALL lf.clean();

-- Many at once: what a filter means, and nothing else.
SELECT lf.ask('poison ' || g) IS NOT NULL AS asked FROM generate_series(1, 3) AS g;
CALL public.drain();
SELECT lf.ask('pending ' || g) IS NOT NULL AS asked FROM generate_series(1, 3) AS g;
SELECT usher.cancel_sync_jobs('lf-acme', '{"payload": {"what": "pending 2"}}') AS one, usher.cancel_sync_jobs('lf-acme', '{"flow": "lf_copy"}') AS none,
       usher.cancel_sync_jobs('lf-other', '{}') AS other_organization, usher.cancel_sync_jobs('lf-acme', '{"status": "failed"}') AS failed;
SELECT usher.cancel_sync_jobs('lf-acme', '{"flow": "lf_work", "created_after": "2001-01-01", "source": "lf.a", "target": "lf.b", "priority": "normal"}') AS the_rest;
SELECT what, status FROM lf.jobs WHERE what ~ '^(poison|pending) [123]' ORDER BY what;
SELECT usher.retry_dead_letters('lf-acme', '{"sqlstate": "23505"}') AS none, usher.retry_dead_letters('lf-acme', '{"died_before": "2001-01-01"}') AS none,
       usher.retry_dead_letters('lf-acme', '{"error": "%violates check%", "sqlstate": "23514", "payload": {"what": "poison 2"}, "died_after": "2001-01-01"}', '{"what": "cured 2"}') AS one;
SELECT usher.retry_dead_letters('lf-acme', '{"flow": "lf_work"}', '{"what": "cured"}', 1) AS first;
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
SELECT what, status FROM lf.jobs WHERE status = 'dead';
SELECT action, object, old, new FROM usher.audit_log WHERE action IN ('usher.sync_jobs.retried', 'usher.sync_jobs.cancelled') AND object ~ '^\d+ job' ORDER BY recorded_at DESC, id DESC LIMIT 2;
\pset format unaligned
\pset tuples_only on
SELECT try($$ SELECT usher.cancel_sync_jobs('lf-acme', '{"flwo": "lf_work"}') $$);
SELECT try($$ SELECT usher.cancel_sync_jobs('lf-acme', NULL) $$);
SELECT try($$ SELECT usher.retry_dead_letters('lf-acme', '{"died_after": "soon"}') $$);
SELECT try($$ SELECT usher.retry_dead_letters('lf-acme', '{}', '[]') $$);
SELECT try($$ SELECT usher.retry_dead_letters('lf-acme', '{}', NULL, 0) $$);
-- Dead letters of one row in their order, the later one behind the earlier.
\pset format aligned
\pset tuples_only off
CALL lf.clean();
INSERT INTO lf.source VALUES (4, 'one');
ALTER TABLE lf.done ADD CONSTRAINT closed CHECK (what NOT LIKE '4%');
UPDATE lf.source SET v = 'two' WHERE id = 4;
UPDATE lf.source SET v = 'three' WHERE id = 4;
CALL public.drain();
SELECT status, count(*) FROM lf.jobs WHERE what IN ('one', 'two', 'three') AND status = 'dead' GROUP BY 1;
ALTER TABLE lf.done DROP CONSTRAINT closed;
SELECT usher.retry_dead_letters('default', '{"flow": "lf_copy"}') AS retried;
CALL public.drain();
SELECT what FROM lf.done ORDER BY seq;
CALL lf.clean();

-- Coalescing: of several pending changes of a row only the newest is applied; which job did the work is kept.
RESET ROLE;
CREATE TABLE lf.mirror (id integer PRIMARY KEY, v text CHECK (v <> 'bad'), seen serial);
CREATE TABLE lf.audited (id integer PRIMARY KEY, v text);
SELECT usher.audit_table('lf.audited');
ALTER TABLE lf.mirror OWNER TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA lf TO regress_usher_op;
SET ROLE regress_usher_op;
SELECT usher.disable_flow('lf_copy');
\pset format unaligned
\pset tuples_only on
SELECT n, try(format('SELECT usher.create_flow(''lf_bad'', %L)', '{"when": {"change": "lf.source"}, "then": {"upsert": "lf.mirror", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}, "coalesce": true}'::jsonb || more)) AS said
  FROM (VALUES (1, '{"then": {"insert": "lf.mirror"}}'::jsonb), (2, '{"when": {"change": "lf.source", "on": ["update", "delete"]}}'), (3, '{"set": {"id": "new.id", "v": "coalesce(old.v, new.v)"}}'),
    (4, '{"set": {"id": "length(new.v)", "v": "new.v"}}'), (5, '{"if": "new.v <> ''x''"}'), (6, '{"mode": "transactional"}'), (7, '{"then": {"upsert": "lf.audited", "key": ["id"]}}')) AS c (n, more) ORDER BY n;
\pset format aligned
\pset tuples_only off
SELECT usher.create_flow('lf_mirror', '{"when": {"change": "lf.source"}, "then": {"upsert": "lf.mirror", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}, "coalesce": true, "retry": {"delays": [0]}}');
INSERT INTO lf.source SELECT g, 'first' FROM generate_series(10, 12) AS g;
UPDATE lf.source SET v = 'second' WHERE id IN (10, 11);
UPDATE lf.source SET v = 'third' WHERE id = 10;
CALL public.drain();
SELECT id, v FROM lf.mirror ORDER BY id;
-- The upsert drew three numbers, not six.
SELECT last_value FROM lf.mirror_seen_seq;
SELECT j.payload->'new'->>'v' AS image, j.payload->'new'->>'id' AS id, j.status, b.payload->'new'->>'v' AS done_by
  FROM usher.sync_jobs j LEFT JOIN usher.coalesced_jobs c ON c.job_id = j.id LEFT JOIN usher.sync_jobs b ON b.id = c.covered_by WHERE j.flow = 'lf_mirror' ORDER BY 2, j.created_at, 1;
-- The newest does not fit: the one before it takes effect.
UPDATE lf.source SET v = 'fourth' WHERE id = 10;
UPDATE lf.source SET v = 'fifth' WHERE id = 10;
UPDATE lf.source SET v = 'bad' WHERE id = 10;
UPDATE lf.source SET v = 'fine' WHERE id = 11;
CALL public.drain();
SELECT id, v FROM lf.mirror ORDER BY id;
SELECT payload->'new'->>'v' AS image, status, attempts FROM usher.sync_jobs WHERE flow = 'lf_mirror' AND payload->'new'->>'v' IN ('fourth', 'fifth', 'bad', 'fine') ORDER BY 1;
SELECT usher.drop_flow('lf_mirror'), usher.enable_flow('lf_copy');
CALL lf.clean();

-- Members look, admins act, others learn nothing.
RESET ROLE;
SELECT usher.grant_membership('lf-acme', 'role:regress_usher_mem', 'member');
SELECT lf.ask('for the member') AS job \gset
SELECT usher.create_batch('lf-acme', 'for the member') AS batch, usher.create_batch('lf-other', 'foreign') AS foreign_batch \gset
SET ROLE regress_usher_mem;
SELECT name FROM usher.batches ORDER BY name;
\pset format unaligned
\pset tuples_only on
SELECT n, regexp_replace(try(call), '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID', 'g') AS said FROM (VALUES
    (1, format('SELECT usher.reprioritise(%L, ''high'')', :'job')), (2, 'SELECT usher.cancel_sync_jobs(''lf-acme'', ''{}'')'), (3, 'SELECT usher.cancel_sync_jobs(''lf-other'', ''{}'')'),
    (4, 'SELECT usher.cancel_sync_jobs(''lf-nowhere'', ''{}'')'), (5, 'SELECT usher.retry_dead_letters(''lf-acme'', ''{}'')'), (6, format('SELECT usher.seal_batch(%L)', :'batch')),
    (7, format('SELECT usher.seal_batch(%L)', :'foreign_batch')), (8, 'SELECT usher.create_batch(''lf-acme'', ''x'')'), (9, 'SELECT usher.jobs_ended(NULL, NULL, ''synced'')'),
    (10, 'SELECT usher.try_settling(true)'), (11, 'SELECT usher.expire_jobs(now())'), (12, 'DELETE FROM usher.job_options'), (13, 'SELECT FROM usher.job_checks')) AS c (n, call) ORDER BY n;
\pset format aligned
\pset tuples_only off
RESET ROLE;
SET ROLE regress_usher_op;
CALL lf.clean();
SELECT usher.drop_flow('lf_work'), usher.drop_flow('lf_copy');
SELECT usher.unaudit_table('lf.audited');
RESET ROLE;
SET client_min_messages = warning;
CALL public.drain();
DROP SCHEMA lf CASCADE;
DROP OWNED BY regress_usher_op, regress_usher_mem;
DROP ROLE regress_usher_op, regress_usher_mem;
