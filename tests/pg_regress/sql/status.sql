-- One screen: what it says to whom. Workers differ from server to server and are left out.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS st CASCADE;
DROP ROLE IF EXISTS regress_usher_op, regress_usher_member, regress_usher_stranger, regress_usher_reader;
RESET client_min_messages;
CREATE SCHEMA st;
CREATE TABLE st.a (organization_id uuid, id integer, v text, PRIMARY KEY (organization_id, id));
CREATE TABLE st.b (organization_id uuid, id integer, v integer CHECK (v > 0), PRIMARY KEY (organization_id, id));
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
GRANT ALL ON SCHEMA st TO regress_usher_op;
GRANT ALL ON ALL TABLES IN SCHEMA st TO regress_usher_op;
-- Only what this test makes shall be on the screen.
DELETE FROM usher.notices;
DELETE FROM usher.failure_streaks;
DELETE FROM usher.dead_letters;
DELETE FROM usher.queue_waiting;
SELECT usher.create_organization('st-acme') AS acme \gset
SELECT usher.create_organization('st-beta') AS beta \gset
SELECT usher.grant_membership('st-acme', 'role:regress_usher_member');
SELECT usher.create_system('st.a'), usher.create_system('st.b', 'external');
CREATE FUNCTION st.screen() RETURNS TABLE (section text, item text, value text, note text) LANGUAGE sql AS $$
    SELECT s.section, s.item, CASE WHEN s.section = 'you' THEN regexp_replace(s.value, '^(\d{2,}|[3-9]) ', 'ALL ') ELSE s.value END,
           regexp_replace(s.note, '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID', 'g')
      FROM usher.status() s WHERE s.section <> 'worker'$$;
GRANT USAGE ON SCHEMA st TO PUBLIC;
SET ROLE regress_usher_op;
SELECT usher.create_flow('st_copy', '{"from": "st.a", "to": "st.b", "when": {"change": "st.a"}, "then": {"upsert": "st.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v::integer"}, "retry": {"delays": [3600]}}');
SELECT usher.create_flow('st_off', '{"from": "st.a", "to": "st.b", "when": {"change": "st.a", "on": ["delete"]}, "then": {"delete": "st.b", "key": ["id"]}, "set": {"id": "old.id"}, "priority": "high", "retry": {"delays": []}}');
-- Nothing yet.
SELECT * FROM st.screen();
INSERT INTO st.a VALUES (:'acme', 1, '1'), (:'acme', 2, 'two'), (:'acme', 3, '-3'), (:'beta', 4, 'four'), (:'beta', 5, '5');
SELECT usher.process_jobs();
UPDATE st.a SET v = '22' WHERE id = 2;
SELECT usher.process_jobs();
SELECT count(id) AS external FROM usher.enqueue_sync_job('st-acme', 'st.a', 'st.b', '{}', 'critical');
DELETE FROM st.a WHERE id = 1;
SELECT usher.disable_flow('st_off');
INSERT INTO st.a VALUES (:'acme', 6, '6'), (:'beta', 7, '7');
-- Of several errors the latest comes first; those of one batch have one time.
SELECT * FROM st.screen() WHERE section <> 'error';
SELECT * FROM st.screen() WHERE section = 'error' ORDER BY note;
SET ROLE regress_usher_member;
SELECT * FROM st.screen() WHERE section <> 'error';
SELECT * FROM st.screen() WHERE section = 'error' ORDER BY note;
SET ROLE regress_usher_stranger;
SELECT * FROM st.screen();
RESET ROLE;
SELECT count(usher.drop_flow(name)) AS dropped FROM usher.flows WHERE name LIKE 'st%';
DELETE FROM usher.queue_waiting;
CALL public.drain() \gset
DELETE FROM usher.dead_letters;
DELETE FROM usher.organizations WHERE slug LIKE 'st-%';
SET client_min_messages = warning;
DROP SCHEMA st CASCADE;
DROP ROLE regress_usher_op, regress_usher_member, regress_usher_stranger, regress_usher_reader;
