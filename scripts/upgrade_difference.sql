-- The statements that take the rows of old_members to those of members, in an order in which they can run.
-- A composite type is only ever given further attributes at its end; anything else is for a person to decide.
WITH both_sides AS (
    SELECT COALESCE(n.kind, o.kind) AS kind, COALESCE(n.name, o.name) AS name, n.name IS NULL AS gone, o.name IS NULL AS added,
           n.made_by, o.made_by AS old_made_by, n.grants, o.grants AS old_grants, COALESCE(n.said_of, o.said_of) AS said_of,
           n.comment, o.comment AS old_comment, COALESCE(n.position, o.position) AS position,
           o.shape IS DISTINCT FROM n.shape OR n.defaults < o.defaults AS reshaped
      FROM members n FULL JOIN old_members o ON o.kind = n.kind AND o.name = n.name
), statement AS (
    -- Event triggers first and last: none of the old ones may watch this script.
    SELECT 1 AS step, position, format('DROP EVENT TRIGGER %I;', name) AS line FROM both_sides
     WHERE kind = 'event trigger' AND NOT added AND (gone OR made_by <> old_made_by)
    UNION ALL
    SELECT 2, position, CASE
        WHEN added THEN made_by || ';'
        WHEN gone THEN NULL
        WHEN rtrim(made_by, E'\n)') LIKE rtrim(old_made_by, E'\n)') || '%' THEN (
            SELECT string_agg(format('ALTER TYPE %s ADD ATTRIBUTE %s;', name, btrim(attribute, E' ,')), E'\n' ORDER BY n)
              FROM regexp_split_to_table(substr(rtrim(made_by, E'\n)'), length(rtrim(old_made_by, E'\n)')) + 1), E'\n')
                   WITH ORDINALITY AS a (attribute, n) WHERE btrim(attribute, E' ,') <> '')
        ELSE '-- NOT WRITTEN: type ' || name || ' has changed otherwise than by further attributes' END
      FROM both_sides WHERE kind = 'type' AND (gone OR added OR made_by <> old_made_by)
    UNION ALL
    SELECT 3, -position, format('DROP FUNCTION %s;', name) FROM both_sides WHERE kind = 'function' AND NOT added AND (gone OR reshaped)
    UNION ALL
    SELECT 4, position, rtrim(made_by, E'\n') || ';' FROM both_sides WHERE kind = 'function' AND NOT gone AND (added OR made_by <> old_made_by)
    UNION ALL
    SELECT 5, position, format('REVOKE ALL ON FUNCTION %s FROM PUBLIC;', name) FROM both_sides
     WHERE kind = 'function' AND NOT gone AND (added OR reshaped)
    UNION ALL
    -- What was granted and is not any more.
    SELECT 6, position, (
        SELECT string_agg(regexp_replace(regexp_replace(line, '^GRANT', 'REVOKE'), ' TO ([^ ]+;)$', ' FROM \1'), E'\n')
          FROM regexp_split_to_table(old_grants, E'\n') AS line
         WHERE line <> '' AND line <> ALL (regexp_split_to_array(COALESCE(grants, ''), E'\n')))
      FROM both_sides WHERE kind IN ('function', 'schema') AND NOT gone AND NOT added AND NOT reshaped
    UNION ALL
    SELECT 7, position, (
        SELECT string_agg(line, E'\n') FROM regexp_split_to_table(grants, E'\n') AS line
         WHERE line <> '' AND (added OR reshaped OR line <> ALL (regexp_split_to_array(COALESCE(old_grants, ''), E'\n'))))
      FROM both_sides WHERE kind IN ('function', 'schema') AND NOT gone
    UNION ALL
    SELECT 8, position, made_by || ';' FROM both_sides
     WHERE kind = 'event trigger' AND NOT gone AND (added OR made_by <> old_made_by)
    UNION ALL
    SELECT 9, position, format('COMMENT ON %s IS %s;', said_of, COALESCE(quote_literal(comment), 'NULL')) FROM both_sides
     WHERE kind <> 'other' AND NOT gone
       AND (CASE WHEN added OR (kind = 'function' AND reshaped) OR (kind = 'event trigger' AND made_by <> old_made_by)
                 THEN comment IS NOT NULL ELSE comment IS DISTINCT FROM old_comment END)
    UNION ALL
    SELECT 10, position, format('-- NOT WRITTEN: %s %s', name, CASE WHEN gone THEN 'is gone' ELSE 'is new' END)
      FROM both_sides WHERE kind = 'other' AND (gone OR added)
    UNION ALL
    SELECT 11, position, format('DROP TYPE %s;', name) FROM both_sides WHERE kind = 'type' AND gone
)
SELECT line FROM statement WHERE line IS NOT NULL ORDER BY step, position, line;
