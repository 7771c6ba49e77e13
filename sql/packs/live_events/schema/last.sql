-- Pack live_events: what all of its tables have.

-- One trigger function per schema, so that a schema can move away by itself.
DO $touch$
DECLARE
    s text;
BEGIN
    FOREACH s IN ARRAY ARRAY['atlvs', 'compvss', 'gvteway', 'live_events'] LOOP
        EXECUTE format($ddl$
            CREATE OR REPLACE FUNCTION %1$I.touch_row() RETURNS trigger
                LANGUAGE plpgsql
                SET search_path = pg_catalog, pg_temp
            AS $fn$
            BEGIN
                NEW.version := OLD.version + 1;
                NEW.updated_at := now();
                RETURN NEW;
            END
            $fn$;
            REVOKE ALL ON FUNCTION %1$I.touch_row() FROM PUBLIC;
            COMMENT ON FUNCTION %1$I.touch_row() IS 'Trigger: a changed row gets the next version and a new updated_at';
        $ddl$, s);
    END LOOP;
END
$touch$;

DO $tables$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT n.nspname AS nsp, c.relname AS rel
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('atlvs', 'compvss', 'gvteway', 'live_events') AND c.relkind IN ('r', 'p') AND obj_description(c.oid, 'pg_class') LIKE 'Pack live_events:%'
           AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'version' AND NOT a.attisdropped)
    LOOP
        -- An UPDATE that changes nothing leaves the row as it is: it is no news to any flow.
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER touch_row BEFORE UPDATE ON %1$I.%2$I
                 FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION %1$I.touch_row()',
            t.nsp, t.rel);
    END LOOP;
    -- Version 0.1 made its policies here; now the manifest declares who reads and writes what.
    FOR t IN
        SELECT p.polrelid::regclass AS name, p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         WHERE c.relnamespace IN ('atlvs'::regnamespace, 'compvss'::regnamespace, 'gvteway'::regnamespace)
           AND (p.polname IN ('live_events_read', 'live_events_insert', 'live_events_update', 'live_events_delete')
                OR p.polname = 'reader_reads' AND p.polroles = ARRAY['usher_reader'::regrole::oid])
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', t.polname, t.name);
    END LOOP;
END
$tables$;

-- Version 0.1 put the production on the left of an event's link; where it has a project, that stands there now.
DO $links$
BEGIN
    IF has_table_privilege('usher.links', 'UPDATE') THEN
        UPDATE usher.links l SET left_id = p.project_ref::text
          FROM compvss.productions p
         WHERE l.kind = 'event' AND p.organization_id = l.organization_id AND p.id::text = l.left_id AND p.project_ref IS NOT NULL
           AND NOT EXISTS (SELECT FROM usher.links o
                            WHERE o.organization_id = l.organization_id AND o.kind = 'event' AND o.left_id = p.project_ref::text AND o.right_id = l.right_id);
    ELSIF EXISTS (SELECT FROM compvss.productions p JOIN usher.links l ON l.organization_id = p.organization_id AND l.kind = 'event' AND l.left_id = p.id::text
                   WHERE p.project_ref IS NOT NULL) THEN
        RAISE WARNING 'links of events that version 0.1 made keep their production on the left'
            USING HINT = 'Let the owner of pg_usher''s tables, or a superuser, install the pack once more.';
    END IF;
END
$links$;
