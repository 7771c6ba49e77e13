-- Limits of the queue: what they take, what they show, who may set them.
\set VERBOSITY default
SET client_min_messages = warning;
CREATE SCHEMA pr;
CREATE TABLE pr.a (id integer PRIMARY KEY, v integer);
CREATE TABLE pr.b (id integer, v integer);
SELECT usher.create_system('pr.far', 'external');
SELECT usher.create_flow('pr_copy', $$ {"from": "pr.left", "to": "pr.right", "when": {"change": "pr.a", "on": ["insert"]}, "then": {"insert": "pr.b"},
  "set": {"id": "new.id", "v": "new.v"}} $$);
SELECT usher.create_flow('pr_note', $$ {"from": "pr.left", "to": "pr.right", "when": {"request": "note"}, "then": {"insert": "pr.b"},
  "set": {"id": "(job.payload ->> 'id')::integer"}} $$);

-- Every mistake has its remedy.
SELECT usher.limit_queue(NULL);
SELECT usher.limit_queue(0, lane => 'normal');
SELECT usher.limit_queue(5);
SELECT usher.limit_queue(5, lane => 'fast');
SELECT usher.limit_queue(5, flow => 'pr_nothing');
SELECT usher.limit_queue(5, system => 'pr.nowhere');
SELECT usher.limit_queue(5, system => 'pr.far');
SELECT usher.limit_queue(5, organization => 'pr-nobody');
SELECT usher.limit_queue(5, lane => 'normal', action => 'drop');
SELECT usher.limit_queue(5, lane => 'normal', action => 'shed');
SELECT usher.limit_queue(5, lane => 'normal', action => 'shed', shed_to => 'high');
SELECT usher.limit_queue(5, lane => 'normal', action => 'delay', shed_to => 'low');
SELECT usher.limit_queue(5, lane => 'normal', action => 'delay', captured => true);
SELECT usher.unlimit_queue(NULL), usher.unlimit_queue(-1);

-- A limit of several things together; the same once more changes it.
SELECT usher.limit_queue(2, lane => 'normal', flow => 'pr_note', organization => 'default') AS one \gset
SELECT usher.limit_queue(1, lane => 'normal', flow => 'pr_note', organization => 'default') = :one AS same;
SELECT usher.limit_queue(1, flow => 'pr_copy', action => 'delay') AS two \gset
SELECT lane, flow, system, organization, max_jobs, action, shed_to, captured, jobs, held FROM usher.queue_limits ORDER BY id;
BEGIN;
SELECT status, waiting_for FROM usher.enqueue_sync_job('default', 'pr.left', 'pr.right', '{"action": "note", "id": 1}');
SAVEPOINT s;
SELECT usher.enqueue_sync_job('default', 'pr.left', 'pr.right', '{"action": "note", "id": 2}');
ROLLBACK TO s;
-- Another lane is not meant.
SELECT status, waiting_for FROM usher.enqueue_sync_job('default', 'pr.left', 'pr.right', '{"action": "note", "id": 2}', 'low');
INSERT INTO pr.a SELECT n, n FROM generate_series(1, 3) AS n;
SELECT COALESCE(payload -> 'new' ->> 'id', payload ->> 'id') AS id, status, waiting_for FROM usher.sync_jobs WHERE flow = 'pr_copy' ORDER BY 1;
SELECT held FROM usher.queue_limits WHERE id = :two;
ROLLBACK;
-- Without a worker: a session does what is ready, and then what was held back.
INSERT INTO pr.a SELECT n, n FROM generate_series(1, 3) AS n;
SELECT COALESCE(payload -> 'new' ->> 'id', payload ->> 'id') AS id, waiting_for FROM usher.sync_jobs WHERE flow = 'pr_copy' AND status = 'pending' ORDER BY 1;
SELECT usher.process_jobs(), usher.process_jobs(), usher.process_jobs(), usher.process_jobs();
SELECT * FROM pr.b ORDER BY id;
SELECT lane, COALESCE(ready, 0) >= 0 AS fits FROM usher.queue_depth();

-- Only those who run the installation.
CREATE ROLE pr_member;
GRANT usher_member TO pr_member;
SET ROLE pr_member;
SELECT usher.limit_queue(5, lane => 'normal');
SELECT usher.unlimit_queue(1);
SELECT * FROM usher.queue_limits;
SELECT * FROM usher.queue_depth();
SELECT usher.admit(3::smallint, 1, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
RESET ROLE;
-- Members are told that there is no room, and not how much there is.
SELECT usher.grant_membership('default', 'role:pr_member', 'admin') IS NOT NULL AS granted;
BEGIN;
SET LOCAL ROLE pr_member;
SELECT usher.enqueue_sync_jobs('default', 'pr.left', 'pr.right', ARRAY['{"action": "note", "id": 3}', '{"action": "note", "id": 4}']::jsonb[]);
ROLLBACK;
SELECT usher.revoke_membership('default', 'role:pr_member') IS NOT NULL AS revoked;
SELECT usher.unlimit_queue(:one), usher.unlimit_queue(:two), usher.unlimit_queue(:two);
SELECT count(*) FROM usher.queue_limits;
SELECT action, count(*) FROM usher.audit_log WHERE action LIKE 'usher.queue.%' GROUP BY 1 ORDER BY 1;

SELECT usher.drop_flow('pr_copy'), usher.drop_flow('pr_note');
DROP SCHEMA pr CASCADE;
DROP OWNED BY pr_member;
DROP ROLE pr_member;
