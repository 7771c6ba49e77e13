-- Pack platform: what an application's client calls with many rows at once. It works with the rights of whoever calls.

-- Tables that clients write, those first that others refer to.
CREATE OR REPLACE FUNCTION platform.client_tables() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['orchestration_workflows', 'module_registry', 'marketplace_packages', 'marketplace_templates', 'workflow_executions', 'workflow_triggers',
                 'marketplace_installations', 'module_activations', 'module_configurations', 'handover_packages', 'handover_credentials']
$$;
REVOKE ALL ON FUNCTION platform.client_tables() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.client_tables() TO usher_member;
COMMENT ON FUNCTION platform.client_tables() IS 'The tables that platform.synchronize() writes, those first that others refer to';

-- What is wrong with operations before anything is tried: by their numbers, nothing for those that are right.
CREATE OR REPLACE FUNCTION platform.operation_faults(organization uuid, operations jsonb) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH given AS MATERIALIZED (
        SELECT o.n, o.op, o.op ->> 'table' AS rel, o.op ->> 'action' AS act,
               CASE WHEN jsonb_typeof(o.op -> 'row') = 'object' THEN o.op -> 'row' END AS image,
               count(*) OVER (PARTITION BY o.op ->> 'table', lower(o.op -> 'row' ->> 'id')) AS times
          FROM jsonb_array_elements(operations) WITH ORDINALITY AS o (op, n)
    ), columns AS MATERIALIZED (
        SELECT c.relname::text AS rel, array_agg(a.attname::text) AS names
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'platform'::regnamespace AND c.relname = ANY (platform.client_tables())
           AND a.attname NOT IN ('version', 'created_at', 'updated_at')
         GROUP BY 1
    ), judged AS (
        SELECT g.n, CASE
                 WHEN jsonb_typeof(g.op) <> 'object' THEN 'the operation is no object'
                 WHEN c.rel IS NULL THEN format('there is no table "%s" to be written', g.rel)
                 WHEN g.act IS NULL OR g.act NOT IN ('upsert', 'delete') THEN format('the action is "%s" instead of upsert or delete', g.act)
                 WHEN k.unknown IS NOT NULL THEN format('"%s" is not known; an operation has table, action and row', k.unknown)
                 WHEN g.image IS NULL THEN 'the row is no object'
                 WHEN COALESCE(g.image ->> 'id', '') !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN 'the row has no id that is a uuid'
                 WHEN g.image ? 'organization_id' AND lower(g.image ->> 'organization_id') IS DISTINCT FROM organization::text THEN 'the row is of another organization'
                 WHEN u.column_name IS NOT NULL THEN format('"%s" is no column to be written', u.column_name)
                 WHEN g.times > 1 THEN 'the row occurs more than once'
               END AS fault
          FROM given g
          LEFT JOIN columns c ON c.rel = g.rel
          LEFT JOIN LATERAL (SELECT min(x.key) AS unknown FROM jsonb_object_keys(CASE WHEN jsonb_typeof(g.op) = 'object' THEN g.op ELSE '{}' END) AS x (key)
                              WHERE x.key NOT IN ('table', 'action', 'row')) AS k ON true
          LEFT JOIN LATERAL (SELECT min(x.key) AS column_name FROM jsonb_object_keys(COALESCE(g.image, '{}')) AS x (key)
                              WHERE NOT x.key = ANY (c.names)) AS u ON true
    )
    SELECT COALESCE(jsonb_object_agg(j.n, j.fault), '{}') FROM judged j WHERE j.fault IS NOT NULL
$$;
REVOKE ALL ON FUNCTION platform.operation_faults(uuid, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.operation_faults(uuid, jsonb) TO usher_member;
COMMENT ON FUNCTION platform.operation_faults(uuid, jsonb) IS 'What is wrong with operations for platform.synchronize(), by their numbers';

-- All or none: what refers to each other belongs together, and a client that repeats the whole call after a mistake does no harm. So that
-- all mistakes are known at once, every operation is told of, whether anything was written or not.
CREATE OR REPLACE FUNCTION platform.synchronize(operations jsonb, organization text DEFAULT NULL)
    RETURNS TABLE (operation integer, table_name text, action text, id uuid, outcome text, error text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    org     CONSTANT uuid := platform.managed_organization(synchronize.organization);
    faults  jsonb;
    results jsonb := '{}';
    part    record;
    written jsonb;
    lows    integer[];
    highs   integer[];
    low     integer;
    high    integer;
    said    text;
BEGIN
    IF jsonb_typeof(operations) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'operations is no list' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give [{"table": "module_registry", "action": "upsert", "row": {"id": …, "code": …}}, …].';
    ELSIF jsonb_array_length(operations) > 10000 THEN
        RAISE EXCEPTION 'there are % operations; one call takes 10000', jsonb_array_length(operations)
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Make several calls.';
    END IF;
    faults := platform.operation_faults(org, operations);
    IF faults = '{}' THEN
        BEGIN
            -- One statement for all rows of a table that give the same columns: those that are referred to first, and last when they go.
            FOR part IN
                WITH given AS (
                    SELECT o.n, o.op ->> 'table' AS rel, o.op ->> 'action' AS act, o.op -> 'row' AS image,
                           CASE WHEN o.op ->> 'action' = 'upsert' THEN ARRAY(SELECT k.key FROM jsonb_object_keys(o.op -> 'row') AS k (key)
                                                                              WHERE k.key NOT IN ('organization_id', 'id') ORDER BY 1) END AS names
                      FROM jsonb_array_elements(operations) WITH ORDINALITY AS o (op, n)
                ), alike AS (
                    SELECT g.rel, g.act, g.names, array_position(platform.client_tables(), g.rel) AS place,
                           -- Of two calls about the same rows one waits for the other at the first of them.
                           jsonb_agg(g.image ORDER BY lower(g.image ->> 'id')) AS images, array_agg(g.n ORDER BY lower(g.image ->> 'id')) AS numbers
                      FROM given g GROUP BY 1, 2, 3
                )
                SELECT a.images, a.numbers,
                       CASE a.act WHEN 'delete' THEN format(
                           'WITH l AS MATERIALIZED (SELECT t.id FROM platform.%1$I t
                                                     WHERE t.organization_id = $1 AND t.id IN (SELECT (r ->> ''id'')::uuid FROM jsonb_array_elements($2) AS r)
                                                     ORDER BY t.id FOR UPDATE),
                                 w AS (DELETE FROM platform.%1$I t USING l WHERE t.organization_id = $1 AND t.id = l.id RETURNING t.id)
                            SELECT jsonb_object_agg(''%1$s '' || w.id, ''deleted'') FROM w', a.rel)
                       ELSE format(
                           'WITH w AS (INSERT INTO platform.%1$I AS t (organization_id, id%2$s)
                                       SELECT $1, r.id%3$s FROM jsonb_populate_recordset(NULL::platform.%1$I, $2) AS r
                                           ON CONFLICT ON CONSTRAINT %4$I DO %5$s RETURNING t.id, t.xmax = 0 AS fresh)
                            SELECT jsonb_object_agg(''%1$s '' || w.id, CASE WHEN w.fresh THEN ''inserted'' ELSE ''updated'' END) FROM w',
                           a.rel, c.listed, c.given, a.rel || '_pkey',
                           CASE WHEN c.assigned IS NULL THEN 'NOTHING' ELSE format('UPDATE SET %s WHERE ROW(%s) IS DISTINCT FROM ROW(%s)', c.assigned, c.ours, c.theirs) END)
                       END AS statement
                  FROM alike a
                 CROSS JOIN LATERAL (SELECT COALESCE(string_agg(format(', %I', k), ''), '') AS listed, COALESCE(string_agg(format(', r.%I', k), ''), '') AS given,
                                            string_agg(format('%1$I = excluded.%1$I', k), ', ') AS assigned,
                                            string_agg(format('t.%I', k), ', ') AS ours, string_agg(format('excluded.%I', k), ', ') AS theirs
                                       FROM unnest(a.names) AS k) AS c
                 ORDER BY a.act = 'delete', CASE a.act WHEN 'delete' THEN -a.place ELSE a.place END, a.names
            LOOP
                BEGIN
                    EXECUTE part.statement INTO written USING org, part.images;
                    results := results || COALESCE(written, '{}');
                EXCEPTION
                    WHEN transaction_rollback OR insufficient_resources OR operator_intervention OR system_error THEN
                        RAISE;
                    WHEN OTHERS THEN
                        -- Halved until the rows that it is about are alone.
                        lows := ARRAY[1];
                        highs := ARRAY[cardinality(part.numbers)];
                        WHILE cardinality(lows) > 0 LOOP
                            low := lows[cardinality(lows)];
                            high := highs[cardinality(highs)];
                            lows := trim_array(lows, 1);
                            highs := trim_array(highs, 1);
                            BEGIN
                                EXECUTE part.statement INTO written USING org, (SELECT jsonb_agg(r.image ORDER BY r.n)
                                    FROM jsonb_array_elements(part.images) WITH ORDINALITY AS r (image, n) WHERE r.n BETWEEN low AND high);
                            EXCEPTION
                                WHEN transaction_rollback OR insufficient_resources OR operator_intervention OR system_error THEN
                                    RAISE;
                                WHEN OTHERS THEN
                                    IF low = high THEN
                                        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
                                        faults := faults || jsonb_build_object(part.numbers[low], said);
                                    ELSE
                                        lows := lows || (low + high) / 2 + 1 || low;
                                        highs := highs || high || (low + high) / 2;
                                    END IF;
                            END;
                        END LOOP;
                        -- Only together: each row by itself would have done.
                        IF faults = '{}' THEN
                            RAISE;
                        END IF;
                        RAISE EXCEPTION USING ERRCODE = 'USP01', MESSAGE = 'synchronize: nothing is written';
                END;
            END LOOP;
        EXCEPTION
            WHEN SQLSTATE 'USP01' THEN
                NULL;
        END;
    END IF;
    RETURN QUERY
    SELECT o.n::integer, o.op ->> 'table', o.op ->> 'action',
           CASE WHEN o.op -> 'row' ->> 'id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN (o.op -> 'row' ->> 'id')::uuid END,
           CASE WHEN faults ? o.n::text THEN 'refused'
                WHEN faults <> '{}' THEN 'not written'
                ELSE COALESCE(results ->> ((o.op ->> 'table') || ' ' || lower(o.op -> 'row' ->> 'id')), CASE o.op ->> 'action' WHEN 'delete' THEN 'absent' ELSE 'unchanged' END) END,
           faults ->> o.n::text
      FROM jsonb_array_elements(operations) WITH ORDINALITY AS o (op, n) ORDER BY o.n;
END
$$;
REVOKE ALL ON FUNCTION platform.synchronize(jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.synchronize(jsonb, text) TO usher_member;
COMMENT ON FUNCTION platform.synchronize(jsonb, text) IS
    'Writes up to 10000 rows of an organization in one call, all or none, for its admins: [{"table": …, "action": "upsert" or "delete", "row": {"id": …, …}}, …]; tells what became of each';
