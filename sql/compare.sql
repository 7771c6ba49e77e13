-- Comparing two tables by digests. They run with the caller's rights and read what the statement reads that calls them.
CREATE FUNCTION usher.compare_tables(left_table regclass, right_table regclass, key text[] DEFAULT NULL, columns jsonb DEFAULT NULL, "where" text DEFAULT NULL,
                                     organization text DEFAULT NULL)
    RETURNS TABLE (key jsonb, finding text, columns text[], left_row jsonb, right_row jsonb)
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 100 COST 10000 AS 'MODULE_PATHNAME', 'usher_compare_tables';
CREATE FUNCTION usher.compare_pair(flow text, organization text DEFAULT NULL)
    RETURNS TABLE (key jsonb, finding text, columns text[], left_row jsonb, right_row jsonb)
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 100 COST 10000 AS 'MODULE_PATHNAME', 'usher_compare_pair';

-- What their statements are made of.
CREATE FUNCTION usher.compare_step(state bytea, here boolean, secret uuid, bits integer, keys integer, VARIADIC "values" "any") RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usher_compare_step';
CREATE FUNCTION usher.compare_join(state bytea, other bytea) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usher_compare_join';
CREATE FUNCTION usher.compare_open(state bytea) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usher_compare_open';
CREATE AGGREGATE usher.compare_tree(here boolean, secret uuid, bits integer, keys integer, VARIADIC "values" "any") (
    SFUNC = usher.compare_step, STYPE = bytea, SSPACE = 524288, COMBINEFUNC = usher.compare_join, FINALFUNC = usher.compare_open, PARALLEL = SAFE);
CREATE FUNCTION usher.compare_leaf(secret uuid, bits integer, VARIADIC "values" "any") RETURNS integer
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usher_compare_leaf';
CREATE FUNCTION usher.compare_digest(secret uuid, VARIADIC "values" "any") RETURNS uuid
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usher_compare_digest';
