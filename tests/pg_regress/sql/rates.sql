-- How often functions may be called. Over many connections: tests/clients/tests/rates.rs.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP ROLE IF EXISTS regress_usher_caller;
CREATE ROLE regress_usher_caller;
GRANT usher_member TO regress_usher_caller;
RESET client_min_messages;
SELECT usher.create_organization('ra-one') IS NOT NULL AS made;
SELECT usher.grant_membership('ra-one', 'role:regress_usher_caller');
SELECT usher.limit_rpc('3 per day', 'ra.report') > 0 AS made;
SELECT usher.limit_rpc('2 per hour', 'ra.report', burst => 1) > 0 AS replaced;
SELECT usher.limit_rpc('1000 per minute', 'ra.other', organization => 'ra-one', role => 'regress_usher_caller') > 0 AS made;
SELECT function, organization, role, rate, burst, calls_left FROM usher.rpc_limits WHERE organization = 'ra-one' ORDER BY function;
SET ROLE regress_usher_caller;
SELECT usher.check_rate('ra.report');
SELECT usher.check_rate('ra.report');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.check_rate('ra.unlimited');
SELECT function, organization, role, rate, burst FROM usher.rpc_limits ORDER BY function;
-- Not for members.
SELECT usher.limit_rpc('1 per day');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.unlimit_rpc(1);
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- Operators call as often as they like.
SELECT count(usher.check_rate('ra.report')) FROM generate_series(1, 10);
-- What is refused.
SELECT usher.limit_rpc('often');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.limit_rpc('0 per day');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.limit_rpc('5 per day', burst => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.limit_rpc('5 per day', role => 'regress_usher_nobody');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.limit_rpc('5 per day', organization => 'ra-nowhere');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.limit_rpc('5 per day', ' ');
\echo :LAST_ERROR_SQLSTATE
SELECT usher.limit_rpc(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT usher.unlimit_rpc(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT count(usher.unlimit_rpc(id)) FROM usher.rpc_rules;
SELECT action, new ->> 'rate' AS rate FROM usher.audit_log WHERE action LIKE 'usher.rpc_rules.%' ORDER BY position LIMIT 2;
DELETE FROM usher.organizations WHERE slug = 'ra-one';
DROP OWNED BY regress_usher_caller;
DROP ROLE regress_usher_caller;
