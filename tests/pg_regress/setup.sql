-- What the tests share. The extension itself is not here: install.sql begins without it.

-- Runs a statement and says how it ended, so that a table of refusals stays readable.
CREATE FUNCTION public.try(statement text) RETURNS SETOF text
    LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN NEXT 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN NEXT SQLSTATE || ' ' || message;
    IF detail <> '' THEN
        RETURN NEXT '      DETAIL ' || detail;
    END IF;
    RETURN NEXT '      HINT ' || COALESCE(NULLIF(hint, ''), 'MISSING');
END
$$;

-- There is no worker in this database: this runs jobs until none is ready or due.
CREATE PROCEDURE public.drain(INOUT handled integer DEFAULT 0)
    LANGUAGE plpgsql AS $$
DECLARE
    n integer;
BEGIN
    handled := 0;
    LOOP
        n := usher.process_jobs();
        EXIT WHEN n = 0 OR handled > 100000;
        handled := handled + n;
        COMMIT;
    END LOOP;
END
$$;
