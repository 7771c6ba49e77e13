-- Flows that single organizations do without.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP ROLE IF EXISTS regress_usher_sw_admin, regress_usher_sw_member;
CREATE ROLE regress_usher_sw_admin;
CREATE ROLE regress_usher_sw_member;
GRANT usher_member TO regress_usher_sw_admin, regress_usher_sw_member;
SELECT usher.create_organization('sw-one') IS NOT NULL AS one, usher.create_organization('sw-two') IS NOT NULL AS two;
SELECT usher.grant_membership('sw-one', 'role:regress_usher_sw_admin', 'admin'), usher.grant_membership('sw-one', 'role:regress_usher_sw_member');
CREATE SCHEMA sw;
CREATE TABLE sw.a (organization_id uuid NOT NULL, id int NOT NULL, v text, PRIMARY KEY (organization_id, id));
CREATE TABLE sw.b (organization_id uuid NOT NULL, a_id int NOT NULL, v text, PRIMARY KEY (organization_id, a_id));
CREATE TABLE sw.c (organization_id uuid NOT NULL, a_id int NOT NULL, v text, PRIMARY KEY (organization_id, a_id));
CREATE TABLE sw.d (organization_id uuid NOT NULL, a_id int NOT NULL, v text, PRIMARY KEY (organization_id, a_id));
SELECT usher.create_flow('sw_later', '{"from": "sw", "to": "sw_far", "mode": "realtime", "when": {"change": "sw.a", "on": ["insert", "update", "delete"]},
    "if": "new.v IS DISTINCT FROM ''never''", "then": {"upsert": "sw.b", "key": ["a_id"]}, "set": {"a_id": "coalesce(new.id, old.id)", "v": "new.v"}}');
SELECT usher.create_flow('sw_at_once', '{"from": "sw", "to": "sw_far", "mode": "transactional", "when": {"change": "sw.a", "on": ["insert", "update"]},
    "then": {"upsert": "sw.c", "key": ["a_id"]}, "set": {"a_id": "new.id", "v": "new.v"}}');
SELECT usher.create_flow('sw_asked', '{"from": "sw", "to": "sw_far", "mode": "realtime", "when": {"request": "note"},
    "then": {"upsert": "sw.d", "key": ["a_id"]}, "set": {"a_id": "(job.payload ->> ''id'')::int", "v": "job.payload ->> ''v''"}}');
SELECT usher.create_flow('sw_nightly', '{"from": "sw", "to": "sw_far", "mode": "realtime", "when": {"schedule": "0 3 * * *"},
    "then": {"upsert": "sw.d", "key": ["a_id"]}, "set": {"a_id": "0", "v": "''night''"}}');
CREATE VIEW sw.seen AS
SELECT o.slug, (SELECT string_agg(v, ',' ORDER BY a_id) FROM sw.b x WHERE x.organization_id = o.id) AS later,
       (SELECT string_agg(v, ',' ORDER BY a_id) FROM sw.c x WHERE x.organization_id = o.id) AS at_once,
       (SELECT string_agg(v, ',' ORDER BY a_id) FROM sw.d x WHERE x.organization_id = o.id) AS asked
  FROM usher.organizations o WHERE o.slug IN ('sw-one', 'sw-two') ORDER BY 1;
-- Switched off by the organization's admin, in a session that has captured already.
INSERT INTO sw.a SELECT id, 1, 'first' FROM usher.organizations WHERE slug IN ('sw-one', 'sw-two');
SELECT usher.process_jobs() > 0 AS worked;
SET ROLE regress_usher_sw_admin;
SELECT usher.switch_flow('sw_later', 'sw-one', false);
SELECT usher.switch_flow('sw_later', 'sw-one', false);
SELECT usher.switch_flow('sw_at_once', 'sw-one', false);
SELECT usher.switch_flow('sw_asked', 'sw-one', false);
SELECT usher.switch_flow('sw_nightly', 'sw-one', false);
SELECT flow, organization, switched_off_by FROM usher.switched_off ORDER BY 1;
SELECT usher.enqueue_sync_job('sw-one', 'sw', 'sw_far', '{"action": "note", "id": 7, "v": "asked"}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.enqueue_sync_jobs('sw-one', 'sw', 'sw_far', ARRAY['{"action": "note", "id": 7, "v": "asked"}']::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
-- Not for others, and not by a member.
SELECT usher.switch_flow('sw_later', 'sw-two', false);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.switch_flow('sw_latr', 'sw-one', false);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.switch_flow('sw_later', 'sw-one', NULL);
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_sw_member;
SELECT usher.switch_flow('sw_later', 'sw-one', true);
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM usher.switched_off;
RESET ROLE;
INSERT INTO sw.a SELECT id, 2, 'second' FROM usher.organizations WHERE slug IN ('sw-one', 'sw-two');
UPDATE sw.a SET v = v || '!';
SELECT (usher.enqueue_sync_job('sw-two', 'sw', 'sw_far', '{"action": "note", "id": 7, "v": "asked"}')).status;
SELECT usher.process_jobs() > 0 AS worked;
SELECT * FROM sw.seen;
SELECT DISTINCT o.slug FROM usher.dead_letters d JOIN usher.organizations o ON o.id = d.organization_id WHERE o.slug LIKE 'sw-%';
-- On again: from now on. A backfill brings what was missed.
SET ROLE regress_usher_sw_admin;
SELECT usher.switch_flow('sw_later', 'sw-one', true), usher.switch_flow('sw_at_once', 'sw-one', true), usher.switch_flow('sw_asked', 'sw-one', true);
RESET ROLE;
UPDATE sw.a SET v = v || '?' WHERE id = 2;
SELECT (usher.enqueue_sync_job('sw-one', 'sw', 'sw_far', '{"action": "note", "id": 8, "v": "at last"}')).status;
SELECT usher.process_jobs() > 0 AS worked;
SELECT * FROM sw.seen;
SELECT action, object FROM usher.audit_log e JOIN usher.organizations o ON o.id = e.organization_id WHERE o.slug = 'sw-one' AND action LIKE 'usher.flows.switched%' ORDER BY position;
-- With the flow goes its switch.
SELECT usher.drop_flow('sw_nightly');
SELECT count(*) FROM usher.switched_off WHERE organization LIKE 'sw-%';
SELECT usher.drop_flow('sw_later'), usher.drop_flow('sw_at_once'), usher.drop_flow('sw_asked');
DROP SCHEMA sw CASCADE;
DROP ROLE regress_usher_sw_admin, regress_usher_sw_member;
