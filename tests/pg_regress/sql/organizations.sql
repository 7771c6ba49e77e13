-- Tenants, memberships and systems.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP ROLE IF EXISTS regress_usher_op, regress_usher_ann, regress_usher_bob, regress_usher_cid;
RESET client_min_messages;

SELECT usher.create_organization('org-acme') AS acme \gset
SELECT usher.create_organization('org_beta', 'Beta Ltd', 'Europe/Berlin') AS beta \gset
SELECT usher.create_organization(slug => 'org_beta2', timezone => NULL) IS NOT NULL AS made;
SELECT slug, name, timezone, id = :'acme' AS acme, id = :'beta' AS beta FROM usher.organizations WHERE slug LIKE 'org%' ORDER BY slug;

-- Each refusal: state, reason, remedy.
SELECT usher.create_organization('org-acme');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_organization('Acme Inc');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_organization('-acme');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_organization(repeat('a', 64));
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_organization('  ');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_organization(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_organization('org-mars', timezone => 'Mars/Olympus');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS organizations FROM usher.organizations WHERE slug ~ 'mars|Inc';

-- Memberships by slug and by id; a second grant changes the role.
SELECT usher.grant_membership('org-acme', 'ann');
SELECT usher.grant_membership(:'acme', 'bob', 'admin');
SELECT usher.grant_membership('org-acme', 'ann', 'admin');
SELECT usher.grant_membership('org-acme', ' cid ', NULL);
SELECT user_id, role FROM usher.memberships WHERE organization_id = :'acme' ORDER BY user_id;
SELECT usher.grant_membership('org-acme', 'ann', 'owner');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.grant_membership('org-nowhere', 'ann');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.grant_membership(NULL, 'ann');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.grant_membership('org-acme', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.grant_membership('org-acme', '');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.revoke_membership('org-acme', 'cid');
SELECT usher.revoke_membership('org-acme', 'cid');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.revoke_membership('org-nowhere', 'cid');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.revoke_membership(NULL, 'cid');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.revoke_membership('org-acme', NULL);
\echo :LAST_ERROR_SQLSTATE

-- Systems: a known name gets the new kind.
SELECT usher.create_system('org.shop');
SELECT usher.create_system('org.vendor', 'remote');
SELECT usher.create_system('org.vendor', 'external');
SELECT name, kind FROM usher.systems WHERE name LIKE 'org.%' ORDER BY name;
SELECT usher.create_system('org.shop', 'imaginary');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_system('Shop!');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_system(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_system('');
\echo :LAST_ERROR_SQLSTATE

-- Who may do it: an admin of acme (ann), an admin of beta (bob), a legend of beta (cid).
CREATE ROLE regress_usher_op NOLOGIN IN ROLE usher_operator;
CREATE ROLE regress_usher_ann NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_bob NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_cid NOLOGIN IN ROLE usher_member;
SELECT usher.grant_membership('org-acme', 'role:regress_usher_ann', 'admin');
SELECT usher.grant_membership('org_beta', 'role:regress_usher_bob', 'member');
SELECT usher.grant_membership('org_beta', 'role:regress_usher_cid', 'legend');

SET ROLE regress_usher_ann;
SELECT usher.actor();
SELECT usher.grant_membership('org-acme', 'dan', 'admin');
SELECT usher.grant_membership('org-acme', 'dan', 'legend');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_organization('org-ann');
\echo :LAST_ERROR_SQLSTATE
-- Another tenant's organization and one that does not exist are refused alike.
SELECT usher.grant_membership('org_beta', 'dan');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.grant_membership('org_gamma', 'dan');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.create_system('org.mine');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_bob;
-- A member reads.
SELECT slug FROM usher.organizations ORDER BY slug;
SELECT user_id, role FROM usher.memberships ORDER BY user_id;
SELECT usher.grant_membership('org_beta', 'dan');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.revoke_membership('org_beta', 'role:regress_usher_cid');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_cid;
-- A legend is everywhere.
SELECT slug FROM usher.organizations WHERE slug LIKE 'org%' ORDER BY slug;
SELECT usher.grant_membership('org-acme', 'eve', 'legend');
-- But runs no installation.
SELECT usher.create_organization('org-cid');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_ann;
-- An admin cannot unmake a legend.
SELECT usher.grant_membership('org-acme', 'eve', 'member');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.revoke_membership('org-acme', 'eve');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_op;
SELECT usher.revoke_membership('org-acme', 'eve');
SELECT usher.create_organization('org-op') IS NOT NULL AS made;
-- Operators see and manage all, and are told of one that does not exist.
SELECT cardinality(usher.member_organizations()) = count(*) AS reads_all, cardinality(usher.managed_organizations()) = count(*) AS manages_all
  FROM usher.organizations;
SELECT usher.grant_membership('org_gamma', 'dan');
\echo :LAST_ERROR_SQLSTATE
-- The tables themselves take no writes.
SET ROLE regress_usher_ann;
INSERT INTO usher.memberships (organization_id, user_id, role) SELECT id, 'ann', 'legend' FROM usher.organizations;
\echo :LAST_ERROR_SQLSTATE
UPDATE usher.organizations SET slug = 'mine';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM usher.memberships;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP ROLE regress_usher_op, regress_usher_ann, regress_usher_bob, regress_usher_cid;
DELETE FROM usher.organizations WHERE slug LIKE 'org%';
DELETE FROM usher.systems WHERE name LIKE 'org.%';
