-- Sealed and masked columns. Over many connections, with dump and log: tests/clients/tests/protect.rs.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP ROLE IF EXISTS regress_usher_hr, regress_usher_clerk, regress_usher_owner, regress_usher_boss;
CREATE ROLE regress_usher_hr; CREATE ROLE regress_usher_clerk; CREATE ROLE regress_usher_boss; CREATE ROLE regress_usher_owner;
GRANT usher_member TO regress_usher_hr, regress_usher_clerk, regress_usher_boss;
GRANT usher_operator TO regress_usher_owner;
-- The key file: made by the server, outside its data directory.
SELECT current_setting('unix_socket_directories') || '/usher-regress-keys' AS keys \gset
SELECT 'umask 077; cat >' || :'keys' AS write \gset
COPY (VALUES ('first ' || repeat('1', 64))) TO PROGRAM :'write';
ALTER SYSTEM SET usher.key_file = :'keys';
SELECT pg_reload_conf() AS reloaded \gset
\set ECHO none
\o /dev/null
SELECT 'SELECT pg_sleep(0.1) WHERE current_setting(''usher.key_file'') = ''''' FROM generate_series(1, 100) \gexec
\o
\set ECHO all
SELECT usher.create_organization('pr-one') AS one \gset
SELECT usher.create_organization('pr-two') AS two \gset
SELECT usher.grant_membership('pr-one', 'role:regress_usher_boss', 'admin'), usher.grant_membership('pr-one', 'role:regress_usher_clerk') \gset
CREATE SCHEMA pr AUTHORIZATION regress_usher_owner;
GRANT USAGE ON SCHEMA pr TO usher_member;
-- What a value looks like, without what differs from run to run.
CREATE FUNCTION pr.form(value text) RETURNS text LANGUAGE sql AS
    $$SELECT regexp_replace(regexp_replace(value, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'ID', 'g'), ':[A-Za-z0-9+/=]+$', ':BODY')$$;
-- The state of the statement's error, and of its message what does not differ.
CREATE FUNCTION pr.refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text; hint text;
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ': ' || regexp_replace(said, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'ID', 'g') || CASE WHEN hint = '' THEN ' (no hint)' ELSE '' END;
END $$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pr TO usher_member;
RESET client_min_messages;

SET ROLE regress_usher_owner;
CREATE TABLE pr.people (organization_id uuid, id int, name text, email text, note varchar, PRIMARY KEY (organization_id, id));
INSERT INTO pr.people VALUES (:'one', 1, 'Ada', 'ada@example.com', NULL), (:'two', 1, 'Eve', 'eve@example.com', 'x');
-- Sealed: what is there, and what comes.
SELECT usher.protect_column('pr.people', 'email', 'sealed', '{regress_usher_hr,admin}');
SELECT id, name, pr.form(email) FROM pr.people ORDER BY name;
INSERT INTO pr.people VALUES (:'one', 2, 'Bob', 'bob@example.com', NULL), (:'one', 3, 'Nobody', NULL, NULL), (:'one', 4, 'Empty', '', NULL);
SELECT id, pr.form(email) FROM pr.people WHERE organization_id = :'one' ORDER BY id;
-- Also what another trigger puts there, by COPY, by ON CONFLICT, by MERGE.
CREATE FUNCTION pr.fill() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.email := COALESCE(NEW.email, 'filled@example.com'); RETURN NEW; END$$;
CREATE TRIGGER fill BEFORE INSERT ON pr.people FOR EACH ROW EXECUTE FUNCTION pr.fill();
COPY pr.people (organization_id, id, name) FROM stdin (DELIMITER ',');
aaaaaaaa-0000-4000-8000-00000000000a,5,Copied
\.
DROP TRIGGER fill ON pr.people;
INSERT INTO pr.people VALUES (:'one', 2, 'Bob', 'bob2@example.com') ON CONFLICT (organization_id, id) DO UPDATE SET email = EXCLUDED.email, note = 'upserted';
MERGE INTO pr.people AS p USING (VALUES (:'one'::uuid, 2, 'merged@example.com'), (:'one', 6, 'new@example.com')) AS s (org, id, email) ON p.organization_id = s.org AND p.id = s.id
    WHEN MATCHED THEN UPDATE SET note = 'merged' WHEN NOT MATCHED THEN INSERT (organization_id, id, name, email) VALUES (s.org, s.id, 'New', s.email);
SELECT count(*) AS clear FROM pr.people WHERE email NOT LIKE 'usher:sealed:1:%';
SELECT name, email AS kept FROM pr.people WHERE id = 2 \gset
UPDATE pr.people SET name = 'Bobby', email = email WHERE id = 2;
SELECT email = :'kept' AS untouched, note FROM pr.people WHERE id = 2;

-- Who reads: a role that is named, an admin of the organization; not the owner, not a member, not another organization's admin.
GRANT SELECT, INSERT, UPDATE ON pr.people TO regress_usher_hr, regress_usher_clerk, regress_usher_boss;
SELECT pr.refused('SELECT usher.unseal_column(email) FROM pr.people');
RESET ROLE; SET ROLE regress_usher_hr;
SELECT name, usher.unseal_column(email) FROM pr.people ORDER BY name;
-- The same again, by one who may read it, is no change.
UPDATE pr.people SET email = 'bob2@example.com' WHERE id = 2;
SELECT email = :'kept' AS untouched FROM pr.people WHERE id = 2;
RESET ROLE; SET ROLE regress_usher_boss;
SELECT name, usher.unseal_column(email) FROM pr.people WHERE organization_id = :'one' ORDER BY id LIMIT 2;
SELECT pr.refused('SELECT usher.unseal_column(email) FROM pr.people WHERE organization_id <> ' || quote_literal(:'one'));
RESET ROLE; SET ROLE regress_usher_clerk;
SELECT pr.refused('SELECT usher.unseal_column(email) FROM pr.people');
SELECT pr.refused('SELECT usher.unseal_column(''usher:sealed:1:nonsense'')');
SELECT pr.refused('SELECT usher.unseal_column(overlay(email placing ''A'' from 120)) FROM pr.people');
SELECT usher.unseal_column('plain'), usher.unseal_column(NULL) IS NULL AS nothing;
-- Who may not read it cannot try values out either: each is sealed anew.
UPDATE pr.people SET email = 'bob2@example.com' WHERE id = 2;
SELECT email = :'kept' AS untouched FROM pr.people WHERE id = 2;
-- Copied within the organization it stays as it is; elsewhere it is refused, and so is what is made up.
UPDATE pr.people AS p SET email = s.email FROM pr.people AS s WHERE s.id = 2 AND p.id = 3 AND p.organization_id = s.organization_id;
SELECT count(DISTINCT email) FROM pr.people WHERE id IN (2, 3);
SELECT pr.refused('UPDATE pr.people AS p SET email = s.email FROM pr.people AS s WHERE s.id = 2 AND p.organization_id <> s.organization_id');
SELECT pr.refused('UPDATE pr.people SET organization_id = ''aaaaaaaa-0000-4000-8000-00000000000b'' WHERE id = 2');
SELECT pr.refused('UPDATE pr.people SET email = ''usher:sealed:1:x'' WHERE id = 2');
SELECT pr.refused('UPDATE pr.people SET email = left(email, -4) || ''AAA='' WHERE id = 2');
SELECT pr.refused('UPDATE pr.people SET email = replace(email, organization_id::text, ''aaaaaaaa-0000-4000-8000-00000000000a'') WHERE id = 2');
SELECT pr.refused('UPDATE pr.people SET email = repeat(''x'', 1048577) WHERE id = 2');
UPDATE pr.people SET email = repeat('ü', 500000) WHERE id = 6;
SELECT pr.refused('ALTER TABLE pr.people DISABLE TRIGGER ALL');
SELECT pr.refused('SELECT usher.protect_column(''pr.people'', ''note'', ''sealed'', ''{admin}'')');
SELECT pr.refused('SELECT usher.unprotect_column(''pr.people'', ''email'')');
RESET ROLE;

-- An ALWAYS trigger: also for what is replicated. Where it has not been, the constraint refuses, and does not show the row.
SET session_replication_role = replica;
INSERT INTO pr.people VALUES (:'one', 7, 'Replicated', 'replicated@example.com');
RESET session_replication_role;
SELECT pr.form(email) FROM pr.people WHERE id = 7;
CREATE FUNCTION pr.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.email := 'late@example.com'; RETURN NEW; END$$;
CREATE TRIGGER zzzzz BEFORE UPDATE ON pr.people FOR EACH ROW EXECUTE FUNCTION pr.late();
SELECT pr.refused('UPDATE pr.people SET name = name WHERE id = 7');
DROP TRIGGER zzzzz ON pr.people;

-- A new name of the column, of the table; what a migration drops is back.
ALTER TABLE pr.people RENAME COLUMN email TO mail;
ALTER TABLE pr.people RENAME TO persons;
INSERT INTO pr.persons VALUES (:'one', 8, 'Renamed', 'renamed@example.com');
SELECT pr.form(mail) FROM pr.persons WHERE id = 8;
SELECT table_name, column_name FROM usher.protected_columns WHERE schema_name = 'pr';
ALTER TABLE pr.persons RENAME TO people;
SELECT id AS protection FROM usher.protected_columns WHERE schema_name = 'pr' \gset
SET client_min_messages = error;
ALTER TABLE pr.people DISABLE TRIGGER USER;
INSERT INTO pr.people VALUES (:'one', 9, 'Disabled', 'disabled@example.com');
SELECT format('DROP TRIGGER %I ON pr.people', 'zzzz_usher_seal_' || :'protection') AS statement \gset
:statement;
SELECT format('ALTER TABLE pr.people DROP CONSTRAINT %I', 'usher_sealed_' || :'protection') AS statement \gset
:statement;
RESET client_min_messages;
INSERT INTO pr.people VALUES (:'one', 10, 'Dropped', 'dropped@example.com');
SELECT count(*) AS clear FROM pr.people WHERE mail NOT LIKE 'usher:sealed:1:%';
SELECT state, finding FROM usher.doctor() WHERE "check" = 'protected columns';

-- Partitions, those of later days too; one that is attached with clear text is refused.
CREATE TABLE pr.visits (organization_id uuid, day date, phone text) PARTITION BY RANGE (day);
CREATE TABLE pr.visits_1 PARTITION OF pr.visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
SELECT usher.protect_column('pr.visits', 'phone', 'sealed', '{regress_usher_hr}');
CREATE TABLE pr.visits_2 PARTITION OF pr.visits FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO pr.visits VALUES (:'one', '2026-01-05', '1234567');
INSERT INTO pr.visits_2 VALUES (:'one', '2026-02-05', '7654321');
SELECT tableoid::regclass, pr.form(phone) FROM pr.visits ORDER BY day;
UPDATE pr.visits SET day = '2026-02-06' WHERE day = '2026-01-05';
SELECT count(*) FROM pr.visits_2 WHERE phone LIKE 'usher:sealed:1:%';
CREATE TABLE pr.visits_3 (organization_id uuid, day date, phone text);
INSERT INTO pr.visits_3 VALUES (:'one', '2026-03-05', '1112223');
SELECT pr.refused('ALTER TABLE pr.visits ATTACH PARTITION pr.visits_3 FOR VALUES FROM (''2026-03-01'') TO (''2026-04-01'')');
SELECT usher.unprotect_column('pr.visits', 'phone');
SELECT phone FROM pr.visits ORDER BY phone;

-- What is refused, each with its reason.
CREATE DOMAIN pr.short AS text CHECK (length(VALUE) < 20);
CREATE DOMAIN pr.free AS text;
CREATE TABLE pr.odd (id int PRIMARY KEY, key text UNIQUE, indexed text, lower text, checked text CHECK (checked <> ''), made text GENERATED ALWAYS AS (upper(source)) STORED,
    source text, few varchar(200), fixed char(20), number int, short pr.short, free pr.free, list text[], parent text, "Odd ""name"".x" text, organization_id uuid);
CREATE INDEX ON pr.odd (indexed);
CREATE INDEX ON pr.odd (lower(lower));
ALTER TABLE pr.odd ADD FOREIGN KEY (parent) REFERENCES pr.odd (key);
SELECT c AS column, pr.refused(format('SELECT usher.protect_column(''pr.odd'', %L, ''sealed'', ''{admin}'')', c))
  FROM unnest('{key,indexed,lower,checked,made,source,few,fixed,number,short,list,parent,nothing,organization_id}'::text[]) AS c;
SELECT pr.refused('SELECT usher.protect_column(''pr.odd'', ''free'', ''hidden'', ''{admin}'')');
SELECT pr.refused('SELECT usher.protect_column(''pr.odd'', ''free'', ''sealed'', ''{}'')');
SELECT pr.refused('SELECT usher.protect_column(''pr.odd'', ''free'', ''sealed'', ''{regress_usher_nobody}'')');
SELECT pr.refused('SELECT usher.protect_column(''pr.odd'', ''free'', ''sealed'', ''{admin}'', ''***'')');
SELECT pr.refused('SELECT usher.protect_column(''pr.visits_1'', ''phone'', ''sealed'', ''{admin}'')');
SELECT pr.refused('SELECT usher.protect_column(''usher.secrets'', ''name'', ''sealed'', ''{admin}'')');
SELECT pr.refused('SELECT usher.protect_column(NULL, ''name'', ''sealed'', ''{admin}'')');
SET ROLE regress_usher_owner;
SELECT pr.refused('SELECT usher.protect_column(''pr.odd'', ''free'', ''sealed'', ''{admin}'')');
RESET ROLE;
SELECT usher.protect_column('pr.odd', 'free', 'sealed', '{regress_usher_hr}'), usher.protect_column('pr.odd', 'Odd "name".x', 'sealed', '{regress_usher_hr}');
INSERT INTO pr.odd (id, free, "Odd ""name"".x") VALUES (1, 'free', 'odd');
SELECT pr.form(free), pr.form("Odd ""name"".x") FROM pr.odd;
SET ROLE regress_usher_owner;
SELECT pr.refused('SELECT usher.unprotect_column(''pr.odd'', ''free'')');
RESET ROLE;
SELECT usher.unprotect_column('pr.odd', 'free'), usher.unprotect_column('pr.odd', 'Odd "name".x');
SELECT free, "Odd ""name"".x" FROM pr.odd;
SELECT pr.refused('SELECT usher.unprotect_column(''pr.odd'', ''free'')');

-- Without a key nothing is written, and nothing is lost.
COPY (VALUES ('# nothing')) TO PROGRAM :'write';
SELECT pr.refused('INSERT INTO pr.people VALUES (gen_random_uuid(), 11, ''None'', ''none@example.com'')');
SELECT pr.refused('SELECT usher.unprotect_column(''pr.people'', ''mail'')');
UPDATE pr.people SET name = 'Still' WHERE id = 2;
SELECT state, finding FROM usher.doctor() WHERE "check" = 'protected columns';
COPY (VALUES ('second ' || repeat('2', 64)), ('first ' || repeat('1', 64))) TO PROGRAM :'write';
-- Another key: in slices, and nobody hears of it.
SELECT usher.audit_table('pr.people') IS NOT NULL AS audited;
SELECT * FROM usher.reseal_columns(4);
SELECT * FROM usher.reseal_columns();
SELECT DISTINCT split_part(mail, ':', 6) AS key FROM pr.people WHERE mail IS NOT NULL;
SELECT count(*) FROM usher.audit_log WHERE action = 'pr.people.updated';
UPDATE pr.people SET mail = 'audited@example.com' WHERE id = 2;
SELECT pr.form(new ->> 'mail') AS audited FROM usher.audit_log WHERE action = 'pr.people.updated';
SELECT usher.unaudit_table('pr.people');

-- The end: clear again, and what was taken off stays with those who could read it.
SELECT usher.unprotect_column('pr.people', 'mail');
SELECT name, left(mail, 30) AS mail FROM pr.people ORDER BY name;
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'zzzz_usher%';
SELECT count(*) FROM pg_constraint WHERE conname LIKE 'usher\_sealed%';
SELECT action, object FROM usher.audit_log WHERE action LIKE 'usher.columns.%' AND object LIKE 'pr.people%' ORDER BY position;

-- Masked: shown to readers, a mask to all others.
SELECT usher.mask_value(v) FROM unnest('{jane@example.com,+49 170 1234567,Jane,NULL}'::text[]) AS v;
CREATE TABLE pr.staff (organization_id uuid, id int PRIMARY KEY, name text, email text, phone text, born date);
INSERT INTO pr.staff VALUES (:'one', 1, 'Ada', 'ada@example.com', '+49 170 1234567', '1990-01-01'), (:'two', 2, 'Eve', 'eve@example.com', NULL, NULL);
GRANT SELECT ON pr.staff TO usher_member, regress_usher_hr;
GRANT SELECT (id, email), INSERT ON pr.staff TO regress_usher_owner;
SELECT relacl AS before FROM pg_class WHERE oid = 'pr.staff'::regclass \gset
SELECT usher.protect_column('pr.staff', 'email', 'masked', '{regress_usher_hr}');
SELECT usher.protect_column('pr.staff', 'born', 'masked', '{admin}', 'hidden');
SELECT usher.protect_column('pr.staff', 'phone', 'masked', '{regress_usher_hr}');
SET ROLE regress_usher_clerk;
SELECT pr.refused('SELECT email FROM pr.staff');
SELECT pr.refused('SELECT * FROM pr.staff');
SELECT pr.refused('SELECT staff FROM pr.staff');
SELECT id, name FROM pr.staff ORDER BY id;
SELECT id, name, email, phone, born FROM pr.staff_masked ORDER BY id;
RESET ROLE; SET ROLE regress_usher_boss;
SELECT id, email, born FROM pr.staff_masked ORDER BY id;
RESET ROLE; SET ROLE regress_usher_hr;
SELECT id, name, email, phone FROM pr.staff ORDER BY id;
SELECT pr.refused('SELECT born FROM pr.staff');
RESET ROLE;
-- A column that comes later, and a right that is given later.
SET client_min_messages = error;
ALTER TABLE pr.staff ADD COLUMN hired date;
GRANT SELECT ON ALL TABLES IN SCHEMA pr TO regress_usher_clerk;
RESET client_min_messages;
SET ROLE regress_usher_clerk;
SELECT pr.refused('SELECT email FROM pr.staff');
SELECT id, hired FROM pr.staff ORDER BY id;
SELECT id, hired, email FROM pr.staff_masked ORDER BY id;
RESET ROLE;
-- What a reader has handed on is not the owner's to take: said, instead of called masked.
CREATE TABLE pr.handed (organization_id uuid, id int PRIMARY KEY, email text);
GRANT SELECT ON pr.handed TO regress_usher_hr WITH GRANT OPTION;
GRANT USAGE ON SCHEMA pr TO regress_usher_hr;
SET ROLE regress_usher_hr;
GRANT SELECT ON pr.handed TO regress_usher_clerk;
RESET ROLE;
SELECT usher.protect_column('pr.handed', 'email', 'masked', '{regress_usher_hr}');
REVOKE GRANT OPTION FOR SELECT ON pr.handed FROM regress_usher_hr CASCADE;
SELECT usher.protect_column('pr.handed', 'email', 'masked', '{regress_usher_hr}');
SELECT usher.unprotect_column('pr.handed', 'email');
DROP TABLE pr.handed;
-- The audit shows that it has changed, and not what it is.
SELECT usher.audit_table('pr.staff') IS NOT NULL AS audited;
UPDATE pr.staff SET email = 'ada@example.org', name = 'Ada L.' WHERE id = 1;
SELECT old, new FROM usher.audit_log WHERE action = 'pr.staff.updated';
ALTER TABLE pr.staff RENAME COLUMN email TO mail;
UPDATE pr.staff SET mail = 'ada@example.net' WHERE id = 1;
SELECT old, new FROM usher.audit_log WHERE action = 'pr.staff.updated' ORDER BY position DESC LIMIT 1;
SELECT usher.unaudit_table('pr.staff');
SELECT pr.refused('SELECT usher.protect_column(''pr.staff'', ''mail'', ''sealed'', ''{admin}'')');
-- A table whose rows are hidden by more than the organization has no view: it would show them.
ALTER TABLE pr.staff ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON pr.staff FOR SELECT USING (name = current_user);
SELECT usher.protect_column('pr.staff', 'mail', 'masked', '{regress_usher_hr}');
DROP POLICY own ON pr.staff;
CREATE POLICY own ON pr.staff FOR SELECT TO usher_member USING (organization_id = ANY ((SELECT usher.member_organizations())::uuid[]));
SELECT usher.protect_column('pr.staff', 'mail', 'masked', '{regress_usher_hr}');
SELECT usher.unprotect_column('pr.staff', 'born'), usher.unprotect_column('pr.staff', 'mail'), usher.unprotect_column('pr.staff', 'phone');
SELECT has_table_privilege('usher_member', 'pr.staff', 'SELECT') AS member, has_table_privilege('regress_usher_hr', 'pr.staff', 'SELECT') AS hr,
       has_table_privilege('regress_usher_owner', 'pr.staff', 'SELECT') AS some, has_column_privilege('regress_usher_owner', 'pr.staff', 'mail', 'SELECT') AS of_some,
       to_regclass('pr.staff_masked') IS NULL AS no_view;
SELECT attname, attacl FROM pg_attribute WHERE attrelid = 'pr.staff'::regclass AND attacl IS NOT NULL ORDER BY attnum;

-- Detached, clear text is refused; attached again it is sealed.
SELECT usher.protect_column('pr.odd', 'free', 'sealed', '{regress_usher_hr}');
SELECT pr.refused('SELECT usher.remove(confirm => ''remove all data'')');
BEGIN;
SELECT usher.detach_all() > 0 AS detached;
SELECT pr.refused('INSERT INTO pr.odd (id, free) VALUES (3, ''clear'')');
ROLLBACK;
INSERT INTO pr.odd (id, free) VALUES (3, 'clear');
SELECT pr.form(free) FROM pr.odd ORDER BY id;
SELECT usher.unprotect_column('pr.odd', 'free');

SET client_min_messages = warning;
DROP SCHEMA pr CASCADE;
DELETE FROM usher.column_protections;
DELETE FROM usher.organizations WHERE slug LIKE 'pr-%';
ALTER SYSTEM RESET usher.key_file;
SELECT pg_reload_conf() AS reloaded \gset
SELECT 'cat >/dev/null; rm -f ' || :'keys' AS remove \gset
COPY (SELECT) TO PROGRAM :'remove';
DROP OWNED BY regress_usher_hr, regress_usher_clerk, regress_usher_owner, regress_usher_boss;
DROP ROLE regress_usher_hr, regress_usher_clerk, regress_usher_owner, regress_usher_boss;
