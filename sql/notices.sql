-- A flow that becomes broken is a matter for those who run the installation. Every way there goes through this table.
CREATE FUNCTION usher.note_broken_flow() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    INSERT INTO usher.notices AS n (id, kind, severity, flow_id, flow, subject, body, first_at, last_at)
    VALUES (usher.uuid_v7(), 'flow broken', 'critical', NEW.id, NEW.name, format('flow "%s" is broken, its jobs wait', NEW.name),
            jsonb_build_object('reason', NEW.reason), clock_timestamp(), clock_timestamp())
    ON CONFLICT (organization_id, flow_id) WHERE kind = 'flow broken' AND read_at IS NULL
    DO UPDATE SET failures = n.failures + 1, last_at = EXCLUDED.last_at, body = EXCLUDED.body;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION usher.note_broken_flow() IS 'internal: makes a notice when a flow becomes broken';
