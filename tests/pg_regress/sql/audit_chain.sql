-- The chain of hashes over the audit log: what was sealed cannot be changed unnoticed, even by those who may do everything.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS ac CASCADE;
DROP ROLE IF EXISTS regress_usher_reader, regress_usher_member;
RESET client_min_messages;
CREATE ROLE regress_usher_reader NOLOGIN IN ROLE usher_reader;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE SCHEMA ac;
CREATE TABLE ac.things (organization_id uuid, id integer PRIMARY KEY, v text);
SELECT usher.audit_table('ac.things');
-- Everything of before is sealed, so that the numbers below are ours.
CREATE PROCEDURE ac.seal() LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM usher.seal_audit_log();
        COMMIT;
        EXIT WHEN (SELECT unsealed = 0 FROM usher.verify_audit_log());
        PERFORM pg_sleep(0.01);
        COMMIT;
    END LOOP;
END $$;
CALL ac.seal();
SELECT block AS start FROM usher.audit_anchor() \gset
INSERT INTO ac.things SELECT NULL, n, 'x' || n FROM generate_series(1, 5) AS n;
SELECT intact, unsealed FROM usher.verify_audit_log();
CALL ac.seal();
SELECT intact, unsealed, blocks - :start AS blocks FROM usher.verify_audit_log();
-- Nothing new, nothing to do.
SELECT usher.seal_audit_log();
SELECT block AS anchor, hash FROM usher.audit_anchor() \gset
SELECT :anchor - :start AS block, length(:'hash') AS digits;
UPDATE ac.things SET v = 'y' WHERE id <= 3;
CALL ac.seal();
SELECT intact FROM usher.verify_audit_log(:anchor, :'hash');
-- A transaction that still runs may add an entry below others: they wait for its end.
SELECT count(*) AS sealed FROM usher.audit_blocks \gset
BEGIN;
INSERT INTO ac.things VALUES (NULL, 6, 'x6');
SELECT usher.seal_audit_log();
COMMIT;
CALL ac.seal();

-- The chain can be checked without us: the documented form, with PostgreSQL's own functions.
WITH e AS (SELECT * FROM usher.audit_log WHERE action = 'ac.things.updated' ORDER BY position LIMIT 1)
SELECT usher.audit_entry_hash(position, recorded_at, id, correlation_id, organization_id, actor, role, action, object, old::text, new::text, flow, salt, NULL, NULL)
       = sha256('pg_usher entry 1'::bytea || '\x0a' || int8send(position) || int8send((extract(epoch FROM recorded_at) * 1000000 - 946684800000000)::bigint)
                || uuid_send(id) || uuid_send(correlation_id) || '\x00'
                || (SELECT string_agg(COALESCE('\x01'::bytea || int4send(octet_length(f)) || convert_to(f, 'UTF8'), '\x00'), ''::bytea ORDER BY n)
                      FROM unnest(ARRAY[actor, role, action, object, flow]) WITH ORDINALITY AS u (f, n))
                || sha256('pg_usher images 1'::bytea || '\x0a' || '\x01' || int4send(16) || uuid_send(salt)
                          || (SELECT string_agg(COALESCE('\x01'::bytea || int4send(octet_length(f)) || convert_to(f, 'UTF8'), '\x00'), ''::bytea ORDER BY n)
                                FROM unnest(ARRAY[old::text, new::text]) WITH ORDINALITY AS u (f, n)))) AS same
  FROM e;

-- Not by those who may not.
SET ROLE regress_usher_member;
SELECT * FROM usher.verify_audit_log();
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM usher.audit_anchor();
\echo :LAST_ERROR_SQLSTATE
SELECT usher.seal_audit_log();
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM usher.audit_blocks;
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_usher_reader;
SELECT intact FROM usher.verify_audit_log();
SELECT block = :anchor AS same FROM usher.audit_anchor();
RESET ROLE;
SELECT * FROM usher.verify_audit_log(1);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM usher.verify_audit_log(1, 'abc');
\echo :LAST_ERROR_SQLSTATE
-- A partition is no way around.
SELECT tableoid::regclass AS partition FROM usher.audit_log ORDER BY position DESC LIMIT 1 \gset
\set VERBOSITY terse
DELETE FROM :partition;
TRUNCATE :partition;
UPDATE usher.audit_log_default SET actor = 'nobody';
\set VERBOSITY default

-- Whoever may do everything switches the triggers off, and is found out.
SELECT position AS first FROM usher.audit_log WHERE action = 'ac.things.created' ORDER BY position LIMIT 1 \gset
CREATE FUNCTION ac.found(OUT intact boolean, OUT block bigint, OUT at bigint, OUT message text) LANGUAGE sql AS $$
    SELECT v.intact, v.broken_block - (SELECT min(number) FROM usher.audit_blocks WHERE to_position >= current_setting('ac.first')::bigint),
           v.broken_position - current_setting('ac.first')::bigint, regexp_replace(v.message, '[0-9]+', 'N', 'g') FROM usher.verify_audit_log() AS v
$$;
SELECT set_config('ac.first', :'first', false) = :'first' AS set;
SET session_replication_role = replica;
BEGIN;
UPDATE usher.audit_log SET actor = 'nobody' WHERE position = :first + 2;
SELECT * FROM ac.found();
ROLLBACK;
BEGIN;
UPDATE usher.audit_log SET new = new || '{"v": "x99"}' WHERE position = :first;
SELECT * FROM ac.found();
ROLLBACK;
BEGIN;
DELETE FROM usher.audit_log WHERE position = :first + 3;
SELECT * FROM ac.found();
ROLLBACK;
BEGIN;
DELETE FROM usher.audit_log WHERE position >= :first;
SELECT * FROM ac.found();
ROLLBACK;
BEGIN;
-- Two that change places.
UPDATE usher.audit_log SET position = CASE position WHEN :first THEN :first + 1 ELSE :first END WHERE position IN (:first, :first + 1);
SELECT * FROM ac.found();
ROLLBACK;
BEGIN;
INSERT INTO usher.audit_log (position, id, recorded_at, actor, role, action, correlation_id)
SELECT position, usher.uuid_v7(), recorded_at + interval '1 microsecond', 'me', 'me', 'nothing.done', correlation_id FROM usher.audit_log WHERE position = :first;
SELECT * FROM ac.found();
ROLLBACK;
BEGIN;
-- To a day on which nothing was sealed.
INSERT INTO usher.audit_log (position, id, recorded_at, actor, role, action, correlation_id)
VALUES (:first, usher.uuid_v7(), '2001-01-01', 'me', 'me', 'nothing.done', usher.uuid_v7());
SELECT * FROM ac.found();
ROLLBACK;
-- The chain itself.
BEGIN;
UPDATE usher.audit_blocks SET entries = entries + 1 WHERE number = :anchor;
SELECT intact, message = 'block ' || :anchor || ' does not follow from the one before it: one of the two was changed' AS named FROM usher.verify_audit_log();
ROLLBACK;
BEGIN;
DELETE FROM usher.audit_blocks WHERE number = :anchor;
SELECT intact, message = 'block ' || :anchor || ' is missing' AS named FROM usher.verify_audit_log();
ROLLBACK;
BEGIN;
-- Its end, with what it covers: only an anchor shows that.
SELECT block AS last, hash AS last_hash FROM usher.audit_anchor() \gset
DELETE FROM usher.audit_log WHERE position > (SELECT after_position FROM usher.audit_blocks WHERE number = :last);
DELETE FROM usher.audit_blocks WHERE number = :last;
SELECT intact FROM usher.verify_audit_log();
SELECT intact, message = format('the chain ends at block %s, before the anchor''s block %s', :last - 1, :last) AS named FROM usher.verify_audit_log(:last, :'last_hash');
ROLLBACK;
SELECT intact, message = 'block ' || :anchor || ' is not the one of the anchor: the chain was made anew' AS named
  FROM usher.verify_audit_log(:anchor, repeat('0', 64));
SELECT * FROM usher.verify_audit_log(0, repeat('0', 64));
-- A day that is said to be retired and is there.
BEGIN;
INSERT INTO usher.audit_blocks (number, kind, day, after_position, to_position, entries, root, hash, marks)
SELECT b.number + 1, 'retired', b.day, b.to_position, b.to_position, 0, sha256(''),
       sha256('pg_usher block 1'::bytea || '\x0a' || b.hash || int8send(b.number + 1) || '\x02' || int4send(b.day - DATE '2000-01-01')
              || int8send(b.to_position) || int8send(b.to_position) || int4send(0) || sha256('')), ''
  FROM usher.audit_blocks AS b ORDER BY b.number DESC LIMIT 1;
UPDATE usher.audit_log SET actor = 'nobody' WHERE position = :first;
SELECT intact, regexp_replace(message, '[0-9]+', 'N', 'g') AS message FROM usher.verify_audit_log(:anchor, :'hash');
ROLLBACK;
RESET session_replication_role;
SELECT intact FROM usher.verify_audit_log(:anchor, :'hash');

SELECT usher.unaudit_table('ac.things');
SET client_min_messages = warning;
DROP SCHEMA ac CASCADE;
DROP ROLE regress_usher_reader, regress_usher_member;
