-- The inbox: people are told something by admins and flows, and read their own and nobody else's.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ib CASCADE;
DROP ROLE IF EXISTS regress_usher_host, regress_usher_guest, regress_usher_elsewhere, regress_usher_reader, regress_usher_flows;
CREATE ROLE regress_usher_host NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_guest NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_elsewhere NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_flows NOLOGIN IN ROLE usher_member;
SELECT usher.create_organization('inbox-north') AS north \gset
SELECT usher.create_organization('inbox-south') AS south \gset
SELECT usher.grant_membership('inbox-north', 'role:regress_usher_host', 'admin') AS done \gset
SELECT usher.grant_membership('inbox-north', 'role:regress_usher_guest') AS done \gset
SELECT usher.grant_membership('inbox-south', 'role:regress_usher_elsewhere', 'admin') AS done \gset
CREATE SCHEMA ib;
GRANT USAGE ON SCHEMA ib TO usher_member, usher_reader;
CREATE VIEW ib.inbox WITH (security_invoker) AS SELECT o.slug, n.recipient, n.kind, n.severity, n.title, n.body, n.key, n.channel, n.read_at IS NOT NULL AS read
  FROM usher.notifications n JOIN usher.organizations o ON o.id = n.organization_id ORDER BY n.created_at, n.recipient;
GRANT SELECT ON ib.inbox TO usher_member, usher_reader;
RESET client_min_messages;

-- What cannot be sent.
SELECT w AS call, t.* FROM unnest(ARRAY['NULL, ''{admins}'', ''x''', '''inbox-north'', NULL, ''x''', '''inbox-north'', ''{}'', ''x''', '''inbox-north'', ''{admins,NULL}'', ''x''', '''inbox-north'', ''{" "}'', ''x''', '''inbox-north'', ''{admins}'', NULL',
        '''inbox-north'', ''{admins}'', '' ''', '''inbox-north'', ''{admins}'', ''x'', severity => ''criticle''', '''inbox-north'', ''{admins}'', ''x'', kind => ''''', '''inbox-north'', ''{admins}'', ''x'', body => ''[]''', '''inbox-nowhere'', ''{admins}'', ''x''']) AS w
 CROSS JOIN LATERAL public.try(format('SELECT usher.notify(%s)', w)) AS t;
SELECT count(*) FROM usher.notifications;
-- Groups and people, each once; the same key once.
SET ROLE regress_usher_host;
SELECT usher.notify('inbox-north', '{members,admins,role:regress_usher_guest}', 'Doors at six', 'schedule', 'warning', '{"event": 7}', 'doors-7');
SELECT usher.notify('inbox-north', '{members}', 'Doors at six', 'schedule', key => 'doors-7');
-- Not those who are no members: that is for flows and operators.
SELECT public.try($$SELECT usher.notify('inbox-north', '{members,role:regress_usher_elsewhere}', 'x')$$);
RESET ROLE;
SELECT usher.notify('inbox-north', '{members,guest-8}', 'Doors at six', 'schedule', key => 'doors-7');
SET ROLE regress_usher_host;
SELECT usher.notify('inbox-north', '{admins}', 'No key'), usher.notify('inbox-north', '{admins}', 'No key');
SELECT * FROM ib.inbox;
SET ROLE regress_usher_guest;
SELECT * FROM ib.inbox;
SELECT public.try($$SELECT usher.notify('inbox-north', '{admins}', 'x')$$);
SELECT public.try($$INSERT INTO usher.notifications (organization_id, id, recipient, kind, severity, title) SELECT organization_id, gen_random_uuid(), recipient, kind, severity, title FROM usher.notifications$$);
SET ROLE regress_usher_elsewhere;
SELECT * FROM ib.inbox;
SELECT public.try($$SELECT usher.notify('inbox-north', '{admins}', 'x')$$);
SELECT usher.read_notifications();
SET ROLE regress_usher_reader;
SELECT recipient, title, read FROM ib.inbox WHERE slug = 'inbox-north';
-- Read by whom it is for.
RESET ROLE;
SELECT array_agg(id) AS ids FROM usher.notifications WHERE organization_id = :'north' \gset
SET ROLE regress_usher_guest;
SELECT usher.read_notifications(:'ids'), usher.read_notifications();
SELECT title, read FROM ib.inbox;
SET ROLE regress_usher_host;
SELECT title, read FROM ib.inbox;
SELECT usher.read_notifications('{}'), usher.read_notifications();
RESET ROLE;
SELECT recipient, read FROM ib.inbox WHERE slug = 'inbox-north' ORDER BY 1, 2;
-- What was told to a name becomes a person's: by operators and flows only.
SELECT public.try(format('SELECT usher.forward_notifications(%s)', w)) FROM unnest(ARRAY['NULL, ''a'', ''b''', '''inbox-north'', NULL, ''b''', '''inbox-north'', ''a'', '' ''', '''inbox-nowhere'', ''a'', ''b''']) AS w;
SET ROLE regress_usher_host;
SELECT public.try($$SELECT usher.forward_notifications('inbox-north', 'guest-8', 'role:regress_usher_host')$$);
RESET ROLE;
SELECT usher.notify('inbox-north', '{guest-8}', 'Gates open', key => 'gates');
SELECT usher.forward_notifications('inbox-north', 'guest-8', 'role:regress_usher_guest'), usher.forward_notifications('inbox-north', 'guest-8', 'role:regress_usher_guest');
SELECT usher.forward_notifications('inbox-south', 'role:regress_usher_guest', 'role:regress_usher_elsewhere');
SELECT recipient, title, key, read FROM ib.inbox WHERE recipient IN ('guest-8', 'role:regress_usher_guest') ORDER BY title, recipient;
-- Flows tell, too; those of another organization are not among them.
CREATE TABLE ib.stock (organization_id uuid NOT NULL, sku text, on_hand integer, PRIMARY KEY (organization_id, sku));
SELECT usher.create_flow('ib_low', '{"run_as": "regress_usher_flows", "when": {"change": "ib.stock"}, "if": "new.on_hand < 5", "then": {"call": "usher.notify"},
    "set": {"organization": "job.organization_id::text", "recipients": "ARRAY[''admins'']", "title": "new.sku || '' runs low''", "kind": "''low_stock''", "severity": "''warning''",
            "body": "jsonb_build_object(''sku'', new.sku, ''on_hand'', new.on_hand)", "key": "''low_stock:'' || new.sku"}}');
INSERT INTO ib.stock VALUES (:'north', 'T-1', 3), (:'north', 'T-2', 30), (:'south', 'T-1', 2);
CALL public.drain() \gset
UPDATE ib.stock SET on_hand = on_hand - 1;
CALL public.drain() \gset
SELECT slug, recipient, kind, title, body FROM ib.inbox WHERE kind = 'low_stock' ORDER BY slug;
SELECT status, count(*) FROM usher.sync_jobs WHERE flow = 'ib_low' GROUP BY status;
-- Members by the application's own table.
CREATE TABLE ib.people (org uuid NOT NULL, who text, rank text, active boolean, PRIMARY KEY (org, who));
INSERT INTO ib.people VALUES (:'north', 'ann', 'owner', true), (:'north', 'bob', 'member', true), (:'north', 'gone', 'owner', false), (:'south', 'cyd', 'owner', true);
SELECT usher.adopt_memberships('ib.people', organization_column => 'org', user_column => 'who', role_column => 'rank', roles => '{"owner": "admin", "member": "member"}', condition => '{"active": true}') IS NOT NULL AS adopted;
SELECT usher.notify('inbox-north', '{admins}', 'For admins'), usher.notify('inbox-north', '{members}', 'For members');
SELECT title, recipient FROM ib.inbox WHERE title LIKE 'For %' ORDER BY 1, 2;
SET client_min_messages = warning;
SELECT usher.drop_flow('ib_low') AS done \gset
SELECT usher.release_memberships() AS done \gset
DROP SCHEMA ib CASCADE;
DELETE FROM usher.notifications;
DROP OWNED BY regress_usher_flows;
DROP ROLE regress_usher_host, regress_usher_guest, regress_usher_elsewhere, regress_usher_reader, regress_usher_flows;
