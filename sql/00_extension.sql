-- Roles are of the whole server and may exist from another database; they are never dropped with the extension.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['usher_member', 'usher_reader', 'usher_operator'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    -- An operator may do what members and readers may.
    GRANT usher_member, usher_reader TO usher_operator;
    -- Under Supabase every signed-in client has this role; what it may see is decided by memberships.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'authenticated') THEN
        GRANT usher_member TO authenticated;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA usher TO usher_member, usher_reader, usher_operator;

-- What the RPC functions return; the columns of the view usher.sync_jobs in the same order.
CREATE TYPE usher.sync_job AS (
    id uuid,
    organization_id uuid,
    flow text,
    source_system text,
    target_system text,
    payload jsonb,
    priority text,
    status text,
    waiting_for text,
    attempts integer,
    run_at timestamptz,
    last_attempted_at timestamptz,
    error_message text,
    created_at timestamptz,
    finished_at timestamptz
);
COMMENT ON TYPE usher.sync_job IS 'one sync job as usher.sync_jobs shows it';

-- What usher.ingest_ticket_revenue and usher.reverse_ticket_revenue return: the row of usher.ticket_revenue_ingestions,
-- then how it came about.
CREATE TYPE usher.ticket_revenue_ingestion AS (
    id uuid,
    organization_id uuid,
    project_id uuid,
    event_code text,
    ticket_count integer,
    gross_amount numeric,
    currency text,
    ingestion_source text,
    payload jsonb,
    ingested_at timestamptz,
    repeated boolean,
    possible_duplicate_of uuid,
    reverses uuid
);
COMMENT ON TYPE usher.ticket_revenue_ingestion IS 'ticket revenue as it was taken in; repeated: this call found what an earlier one has made';

-- A change job's payload as people read it.
CREATE FUNCTION usher.change_payload(op "char", new jsonb, old jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
            'op', CASE op WHEN 'I' THEN 'insert' WHEN 'U' THEN 'update' WHEN 'D' THEN 'delete' END))
            || CASE WHEN new IS NULL THEN '{}'::jsonb ELSE pg_catalog.jsonb_build_object('new', new) END
            || CASE WHEN old IS NULL THEN '{}'::jsonb ELSE pg_catalog.jsonb_build_object('old', old) END;
    END;
