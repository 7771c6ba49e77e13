-- Whose data there is: what is declared, what is shown, what is refused. Erasing itself: tests/clients/tests/privacy.rs.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP ROLE IF EXISTS regress_usher_private;
CREATE ROLE regress_usher_private;
GRANT usher_member TO regress_usher_private;
SET client_min_messages = error;
CREATE SCHEMA pv;
CREATE TABLE pv.people (organization_id uuid NOT NULL, id int NOT NULL, name varchar(40) NOT NULL, email text, born date NOT NULL DEFAULT '2000-01-01',
    initials text GENERATED ALWAYS AS (pg_catalog.left(name, 1)) STORED, PRIMARY KEY (organization_id, id));
CREATE TABLE pv.stays (organization_id uuid NOT NULL, id int NOT NULL, person int, wishes text, arrived timestamptz, PRIMARY KEY (organization_id, id),
    CONSTRAINT stays_of FOREIGN KEY (organization_id, person) REFERENCES pv.people ON DELETE CASCADE);
CREATE TABLE pv.meals (organization_id uuid NOT NULL, id int NOT NULL, stay int, PRIMARY KEY (organization_id, id),
    CONSTRAINT meals_of FOREIGN KEY (organization_id, stay) REFERENCES pv.stays ON DELETE CASCADE);
CREATE TABLE pv.teams (organization_id uuid NOT NULL, id int NOT NULL, head int, title text, PRIMARY KEY (organization_id, id),
    CONSTRAINT teams_head FOREIGN KEY (organization_id, head) REFERENCES pv.people);
-- A circle: whoever recommended whom.
ALTER TABLE pv.people ADD recommended_by int, ADD CONSTRAINT people_by FOREIGN KEY (organization_id, recommended_by) REFERENCES pv.people;
CREATE TABLE pv.pairs (a int, b int, PRIMARY KEY (a, b));
SELECT usher.define_subject('person', 'pv.people');
SELECT usher.define_subject('Person', 'pv.people');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.define_subject('person', 'pv.pairs');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.define_subject('person', 'usher.flows');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.define_subject('person', 'pv.people', leave => '{pv.stays.stays}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.define_subject('person', 'pv.people', run_as => 'nobody_at_all');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"name": {"category": "contact", "purpose": "stays", "basis": "contract"}, "email": {"identifies": true}, "born": {"erase": {"value": "1900-01-01"}}}');
SELECT usher.declare_personal('pv.stays', '{"wishes": {}}');
SELECT * FROM usher.subject_graph('person');
SELECT usher.define_subject('person', 'pv.people', follow => '{pv.teams.teams_head}', leave => '{pv.meals.meals_of}');
SELECT table_name, relation FROM usher.subject_graph('person');
SELECT table_name, column_name, category, purpose, basis, identifies, erase, persons, kept FROM usher.processing_records WHERE table_name LIKE 'pv.%' ORDER BY 1, 2;

-- What could not be carried out is refused now, not when somebody asks to be forgotten.
SELECT usher.declare_personal('pv.people', '{"nmae": {}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"name": {"erase": "null"}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"born": {}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"born": {"erase": {"value": "soon"}}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"born": {"erase": "pseudonym"}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"id": {"erase": {"value": 0}}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"initials": {}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"name": {"purpos": "x"}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"name": {"identifies": "yes"}}');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.declare_personal('pv.people', '{"name": {"erase": "forget"}}');
\echo :LAST_ERROR_SQLSTATE
-- No more.
SELECT usher.declare_personal('pv.stays', '{"wishes": null}');

-- Persons of several organizations in one table: nobody could say whose is meant.
CREATE TABLE pv.profiles (id uuid PRIMARY KEY, email text);
SELECT usher.create_organization('pv-other') IS NOT NULL AS made;
SELECT usher.define_subject('profile', 'pv.profiles');
\echo :LAST_ERROR_SQLSTATE
-- Too short for a pseudonym.
ALTER TABLE pv.people ADD nick varchar(10) NOT NULL DEFAULT '';
SELECT usher.declare_personal('pv.people', '{"nick": {}}');
\echo :LAST_ERROR_SQLSTATE
ALTER TABLE pv.people DROP nick;
-- Who is meant.
SELECT usher.export_subject('default', 'prson', '1');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.export_subject('default', 'person', '1');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.export_subject('default', 'person', 'one');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.export_subject('default', 'person', NULL);
\echo :LAST_ERROR_SQLSTATE
-- Without a key file nothing could be signed, and nothing is erased.
INSERT INTO pv.people SELECT id, 1, 'Ann', 'ann@example.org', '1980-01-01' FROM usher.organizations WHERE slug = 'default';
\set VERBOSITY sqlstate
SELECT usher.erase_subject('default', 'person', '1', 'asked');
\set VERBOSITY default
SELECT usher.verify_receipt('{"signed": "{}"}', repeat('0', 64));
\echo :LAST_ERROR_SQLSTATE
SELECT usher.verify_receipt('{"signed": "{}", "signature": "00", "public_key": "00"}', 'xyz');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.verify_receipt('{"signed": "{}", "signature": "00", "public_key": "00"}', repeat('0', 64));
SELECT place, action, rows, columns FROM usher.plan_erasure('default', 'person', '1');
SELECT usher.export_subject('default', 'person', '1') -> 'tables' #- '{pv.people,0,organization_id}' AS tables;
SELECT usher.hold_subject('default', 'person', '1', 'a lawsuit') IS NOT NULL AS held;
SELECT place, action FROM usher.plan_erasure('default', 'person', '1') LIMIT 1;
SELECT usher.hold_subject('default', 'persn', '1', 'a lawsuit');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.release_hold('default', '00000000-0000-4000-8000-000000000000');
\echo :LAST_ERROR_SQLSTATE

-- How long.
SELECT usher.set_retention('pv.stays', 'arrived', '2 years');
SELECT usher.set_retention('pv.people', 'born', '100 years', 'erase');
SELECT usher.set_retention('pv.stays', 'wishes', '2 years');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.set_retention('pv.stays', 'arrived', '-2 years');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.set_retention('pv.stays', 'arrived', '2 years', 'deleted');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO pv.stays SELECT id, n, 1, 'late', now() - n * interval '1 year' FROM usher.organizations, generate_series(1, 3) AS n WHERE slug = 'default';
SELECT table_name, action, rows, held FROM usher.apply_retention();
-- A rule that cannot be carried out says so, and keeps no other from it.
ALTER TABLE pv.people RENAME born TO birthday;
SELECT table_name, action, rows, held, error FROM usher.apply_retention();
SELECT usher.unset_retention('pv.people');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.unset_retention('pv.people', 'erase'), usher.unset_retention('pv.stays');
-- Not while somebody is held under it.
SELECT usher.drop_subject('person');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.release_hold('default', id) FROM usher.legal_holds WHERE kind = 'person';
SELECT usher.drop_subject('person');
SELECT usher.drop_subject('person');
\echo :LAST_ERROR_SQLSTATE
-- By a member: nothing of it.
SET ROLE regress_usher_private;
SELECT usher.define_subject('person', 'pv.people');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM usher.subject_graph('person');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM usher.personal_columns;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP SCHEMA pv CASCADE;
DROP ROLE regress_usher_private;
