-- W36: how weather is told.

-- In an emergency a zone that nobody knows shall not keep the message back: then it goes without times.
CREATE OR REPLACE FUNCTION compvss.weather_message(zone text, level text, headline text, valid tstzrange) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN btrim(headline) <> '' THEN
        format('Weather %s: %s', level, btrim(headline))
        || CASE WHEN NOT compvss.zone_known(zone) OR isempty(valid) THEN ''
                ELSE concat(', from ' || compvss.local_time(zone, CASE WHEN isfinite(lower(valid)) THEN lower(valid) END),
                            ', until ' || compvss.local_time(zone, CASE WHEN isfinite(upper(valid)) THEN upper(valid) END)) END
    END
$$;
REVOKE ALL ON FUNCTION compvss.weather_message(text, text, text, tstzrange) FROM PUBLIC;
COMMENT ON FUNCTION compvss.weather_message(text, text, text, tstzrange) IS 'What guests are told of the weather; NULL without a headline';
