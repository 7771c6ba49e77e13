-- W25: addresses of events.

-- The tail keeps slugs apart where names are equal. It is the end of the id and not its beginning, which is a clock in
-- a uuid of version 7 and the same for rows made together. Accents are taken off where the encoding knows how; what is
-- still not a-z or 0-9 becomes a hyphen, so a name in another script leaves only the tail.
CREATE OR REPLACE FUNCTION gvteway.event_slug(title text, production_ref uuid) RETURNS text
    LANGUAGE sql STABLE
    RETURN concat_ws('-',
        NULLIF(btrim(left(regexp_replace(
            lower(CASE WHEN getdatabaseencoding() = 'UTF8'
                       THEN regexp_replace(normalize(title, NFKD), '[\u0300-\u036f]', '', 'g')
                       ELSE title END),
            '[^a-z0-9]+', '-', 'g'), 60), '-'), ''),
        right(production_ref::text, 12));
REVOKE ALL ON FUNCTION gvteway.event_slug(text, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.event_slug(text, uuid) IS
    'Address of an event: its title in a-z, 0-9 and hyphens, and the end of the production''s id';
