-- W48: one search over all three systems.

-- As its caller: row level security decides what is found. Every word has to be there, or to begin so; only where nothing has them all
-- is what is called alike looked for.
DO $likeness$
DECLARE
    -- pg_trgm is where somebody has put it: public, or extensions.
    home CONSTANT text := (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_trgm');
BEGIN
    EXECUTE replace($ddl$
CREATE OR REPLACE FUNCTION live_events.search(organization text, query text, most integer DEFAULT 20, kinds text[] DEFAULT NULL)
    RETURNS TABLE (kind text, id uuid, system text, title text, body text, rank real)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $fn$
#variable_conflict use_column
DECLARE
    known CONSTANT text[] := ARRAY['contact', 'artist', 'deal', 'project', 'vendor', 'asset', 'production', 'crew_member', 'event', 'venue', 'guest', 'merch_product'];
    -- Words as the documents have them.
    asked CONSTANT text := btrim(regexp_replace(search.query, '[^[:alnum:]]+', ' ', 'g'));
    org   uuid;
    wanted tsquery;
    wrong text;
BEGIN
    IF asked IS NULL OR asked = '' THEN
        RAISE EXCEPTION 'there is no word to search for'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give letters or digits, such as summer berlin.';
    ELSIF length(search.query) > 200 THEN
        RAISE EXCEPTION 'the search has % characters, at most 200 are looked for', length(search.query)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a few words.';
    ELSIF (search.most BETWEEN 1 AND 100) IS NOT TRUE THEN
        RAISE EXCEPTION 'a search gives 1 to 100 results, not %', COALESCE(search.most::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave "most" out for 20.';
    END IF;
    SELECT string_agg(COALESCE(k, 'NULL'), ', ') INTO wrong FROM unnest(search.kinds) AS k WHERE (k = ANY (known)) IS NOT TRUE;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'nothing of the kind % is searched', wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = format('Kinds are: %s.', array_to_string(known, ', '));
    END IF;
    SELECT o.id INTO org FROM usher.organizations o WHERE search.organization IN (o.slug, o.id::text);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no organization "%" whose rows you may read', search.organization
            USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT slug FROM usher.organizations shows yours.';
    END IF;
    SELECT string_agg(quote_literal(w.word) || ':*', ' & ')::tsquery INTO wanted FROM unnest(tsvector_to_array(to_tsvector('simple', asked))) AS w (word);

    RETURN QUERY
    WITH exact AS MATERIALIZED (
        SELECT d.kind, d.source_id, d.system, d.title, d.body, (1 + ts_rank(d.words, wanted) + @likeness@.similarity(asked, d.title))::real AS rank
          FROM live_events.search_documents d
         WHERE d.organization_id = org AND (search.kinds IS NULL OR d.kind = ANY (search.kinds)) AND d.words @@ wanted
         ORDER BY 6 DESC, d.title, d.kind, d.source_id LIMIT search.most)
    SELECT f.* FROM (
        SELECT e.* FROM exact e
        UNION ALL
        SELECT n.* FROM (
            SELECT d.kind, d.source_id, d.system, d.title, d.body, @likeness@.word_similarity(asked, d.title) AS rank
              FROM live_events.search_documents d
             WHERE NOT EXISTS (SELECT FROM exact)
               AND d.organization_id = org AND (search.kinds IS NULL OR d.kind = ANY (search.kinds))
               AND @likeness@.word_similarity(asked, d.title) >= 0.4
             ORDER BY 6 DESC, @likeness@.similarity(asked, d.title) DESC, d.title, d.kind, d.source_id LIMIT search.most) AS n) AS f
     ORDER BY f.rank DESC, @likeness@.similarity(asked, f.title) DESC, f.title, f.kind, f.source_id LIMIT search.most;
END
$fn$;
    $ddl$, '@likeness@', home);
END
$likeness$;
REVOKE ALL ON FUNCTION live_events.search(text, text, integer, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.search(text, text, integer, text[]) TO usher_member, usher_reader;
COMMENT ON FUNCTION live_events.search(text, text, integer, text[]) IS
    'Rows of all systems that the caller may read and that words mean, the best first: those with all words, or words that begin so; where there are none, those that are called alike';
