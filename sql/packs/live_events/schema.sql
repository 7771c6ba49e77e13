-- Pack live_events: the tables of the three systems atlvs (business), compvss (production) and gvteway (guests).
--
-- Run by usher.install_pack(), which grants afterwards and adds the policy of the role the flows run as. May be run
-- again at any time. Plain PostgreSQL, no defaults from an extension, so that the tables outlive it.
--
-- Every key leads with organization_id. An id of a table in another schema is called ..._ref and has no foreign key:
-- the three systems can be separated. Ids of tables the pack does not have yet (contact_id) have none either.

-- A table of the same name that somebody else made is refused: CREATE TABLE IF NOT EXISTS would adopt it silently, and
-- the row level security below would close it to its owner's application. The pack's own tables say so in their comments.
DO $guard$
DECLARE
    foreign_tables text;
BEGIN
    SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname)
      INTO foreign_tables
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) IN (
               ('atlvs', 'deals'), ('atlvs', 'deal_status_changes'), ('atlvs', 'projects'), ('atlvs', 'project_codes'),
               ('compvss', 'productions'), ('gvteway', 'venues'), ('gvteway', 'events'))
       AND COALESCE(obj_description(c.oid, 'pg_class'), '') NOT LIKE 'Pack live_events:%';
    IF foreign_tables IS NOT NULL THEN
        RAISE EXCEPTION 'the pack live_events did not make %', foreign_tables
            USING ERRCODE = 'duplicate_table',
                  HINT = 'Rename these tables or move them to another schema, then install the pack again.';
    END IF;
END
$guard$;

CREATE SCHEMA IF NOT EXISTS atlvs;
CREATE SCHEMA IF NOT EXISTS compvss;
CREATE SCHEMA IF NOT EXISTS gvteway;
COMMENT ON SCHEMA atlvs IS 'Pack live_events: deals, projects and, later, finance';
COMMENT ON SCHEMA compvss IS 'Pack live_events: productions';
COMMENT ON SCHEMA gvteway IS 'Pack live_events: what guests see';

---------------------------------------------------------------------------------------------------------------- atlvs

-- A deal may be saved in any state, also with a value below 0 or without a date: whether it is fit to become a project
-- is asked by the flow when it is won, so that the sales team's own UPDATE never fails for it.
CREATE TABLE IF NOT EXISTS atlvs.deals (
    organization_id     uuid        NOT NULL,
    id                  uuid        NOT NULL DEFAULT gen_random_uuid(),
    contact_id          uuid,
    title               text        NOT NULL,
    kind                text        NOT NULL DEFAULT 'event',
    status              text        NOT NULL DEFAULT 'inquiry',
    value               numeric(14,2),
    currency            char(3)     NOT NULL DEFAULT 'USD',
    event_date          date,
    venue_name          text,
    venue_timezone      text        NOT NULL DEFAULT 'UTC',
    expected_attendance integer,
    won_at              timestamptz,
    metadata            jsonb       NOT NULL DEFAULT '{}',
    version             bigint      NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deals_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT deals_kind_known CHECK (kind IN ('event', 'artist')),
    CONSTRAINT deals_status_known CHECK (status IN ('inquiry', 'qualified', 'proposal', 'won', 'lost')),
    CONSTRAINT deals_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS deals_status_idx ON atlvs.deals (organization_id, status);
COMMENT ON TABLE atlvs.deals IS 'Pack live_events: What is being sold. A deal that becomes won becomes a project, once.';
COMMENT ON COLUMN atlvs.deals.contact_id IS 'The client; contacts are not in the pack yet';
COMMENT ON COLUMN atlvs.deals.venue_timezone IS 'Zone in which the event date is a day, such as Europe/Berlin';
COMMENT ON COLUMN atlvs.deals.expected_attendance IS 'Becomes capacity and projected attendance of the production';
COMMENT ON COLUMN atlvs.deals.won_at IS 'When the deal was first won; filled in if left empty';
COMMENT ON COLUMN atlvs.deals.metadata IS
    'Carried to the project and the production; "lineup" (an array) reaches the event';

-- No foreign key: the trail stays when the deal goes.
CREATE TABLE IF NOT EXISTS atlvs.deal_status_changes (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    deal_id         uuid        NOT NULL,
    old_status      text,
    new_status      text        NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deal_status_changes_pkey PRIMARY KEY (organization_id, id)
);
CREATE INDEX IF NOT EXISTS deal_status_changes_deal_idx
    ON atlvs.deal_status_changes (organization_id, deal_id, changed_at);
COMMENT ON TABLE atlvs.deal_status_changes IS 'Pack live_events: One row per change of a deal''s status; written by the flow only';
COMMENT ON COLUMN atlvs.deal_status_changes.old_status IS 'Empty for the status a deal was entered with';

CREATE TABLE IF NOT EXISTS atlvs.projects (
    organization_id uuid          NOT NULL,
    id              uuid          NOT NULL DEFAULT gen_random_uuid(),
    deal_id         uuid,
    code            text          NOT NULL,
    name            text          NOT NULL,
    phase           text          NOT NULL DEFAULT 'intake',
    health          text          NOT NULL DEFAULT 'green',
    budget_total    numeric(14,2) NOT NULL DEFAULT 0,
    currency        char(3)       NOT NULL DEFAULT 'USD',
    starts_on       date,
    ends_on         date,
    closed_at       timestamptz,
    metadata        jsonb         NOT NULL DEFAULT '{}',
    version         bigint        NOT NULL DEFAULT 1,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT projects_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT projects_deal_key UNIQUE (organization_id, deal_id),
    CONSTRAINT projects_code_key UNIQUE (organization_id, code),
    CONSTRAINT projects_deal_fkey FOREIGN KEY (organization_id, deal_id) REFERENCES atlvs.deals (organization_id, id),
    CONSTRAINT projects_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT projects_phase_known
        CHECK (phase IN ('intake', 'preproduction', 'in_production', 'post', 'closed', 'cancelled')),
    CONSTRAINT projects_health_known CHECK (health IN ('green', 'amber', 'red')),
    CONSTRAINT projects_budget_not_negative CHECK (budget_total >= 0),
    CONSTRAINT projects_currency_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT projects_ends_after_start CHECK (ends_on >= starts_on)
);
CREATE INDEX IF NOT EXISTS projects_phase_idx ON atlvs.projects (organization_id, phase);
COMMENT ON TABLE atlvs.projects IS 'Pack live_events: The business side of a job: budget and dates. At most one per deal.';
COMMENT ON COLUMN atlvs.projects.code IS 'P-<year>-<number>, counted per organization and year of the win';
COMMENT ON COLUMN atlvs.projects.phase IS 'Follows the status of the production (W9), until it is closed';

-- One row per organization and year. reserved_* say for which statement the last numbers were taken.
CREATE TABLE IF NOT EXISTS atlvs.project_codes (
    organization_id uuid    NOT NULL,
    year            integer NOT NULL,
    last_number     bigint  NOT NULL,
    reserved_count  bigint  NOT NULL,
    reserved_by     uuid    NOT NULL,
    reserved_in     xid8    NOT NULL,
    CONSTRAINT project_codes_pkey PRIMARY KEY (organization_id, year)
);
COMMENT ON TABLE atlvs.project_codes IS 'Pack live_events: Counter behind projects.code; written by atlvs.project_code() only';

-- A number per row from one counter row would be quadratic when 10,000 deals are won in one statement (each update
-- leaves a version behind that the next has to step over). So the first call of a statement takes `total` numbers,
-- and every call finds its own by `nth`. Which call is the first is not assumed: a statement is known by its
-- transaction and by `batch`, the same id for all its rows. The row lock lasts to the end of the transaction, so
-- there are no doubles, and a statement that fails gives its numbers back.
CREATE OR REPLACE FUNCTION atlvs.project_code(
    organization_id uuid, year integer, nth bigint, total bigint, batch uuid
) RETURNS text
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix CONSTANT text := 'P-' || project_code.year || '-';
    last   bigint;
BEGIN
    SELECT c.last_number INTO last
      FROM atlvs.project_codes c
     WHERE c.organization_id = project_code.organization_id
       AND c.year = project_code.year
       AND c.reserved_by = batch
       AND c.reserved_count = total
       AND c.reserved_in = pg_current_xact_id();

    IF NOT FOUND THEN
        INSERT INTO atlvs.project_codes AS c
               (organization_id, year, last_number, reserved_count, reserved_by, reserved_in)
        VALUES (project_code.organization_id, project_code.year, total, total, batch, pg_current_xact_id())
        ON CONFLICT ON CONSTRAINT project_codes_pkey DO UPDATE
           SET last_number = c.last_number + excluded.last_number,
               reserved_count = excluded.reserved_count,
               reserved_by = excluded.reserved_by,
               reserved_in = excluded.reserved_in
        RETURNING c.last_number INTO last;

        -- Somebody gave a project one of these codes by hand, or brought projects along from elsewhere: go on after the
        -- highest of the year, or every win from here on would meet the same code.
        IF EXISTS (
            SELECT FROM atlvs.projects p
             WHERE p.organization_id = project_code.organization_id
               AND p.code = ANY (ARRAY(
                       SELECT prefix || lpad(n::text, greatest(5, length(n::text)), '0')
                         FROM generate_series(last - total + 1, last) n))
        ) THEN
            UPDATE atlvs.project_codes c
               SET last_number = total + (
                       SELECT max(substr(p.code, length(prefix) + 1)::bigint)
                         FROM atlvs.projects p
                        WHERE p.organization_id = project_code.organization_id
                          AND p.code ~ ('^' || prefix || '[0-9]{5,15}$'))
             WHERE c.organization_id = project_code.organization_id
               AND c.year = project_code.year
            RETURNING c.last_number INTO last;
        END IF;
    END IF;

    last := last - total + nth;
    RETURN prefix || lpad(last::text, greatest(5, length(last::text)), '0');
END
$$;
REVOKE ALL ON FUNCTION atlvs.project_code(uuid, integer, bigint, bigint, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.project_code(uuid, integer, bigint, bigint, uuid) IS
    'Code of the nth of total new projects of an organization and year in one statement; batch is one id for all';

CREATE OR REPLACE FUNCTION atlvs.stamp_won_deal() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.won_at := now();
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION atlvs.stamp_won_deal() FROM PUBLIC;
COMMENT ON FUNCTION atlvs.stamp_won_deal() IS 'Trigger: fills in when a deal was won, unless the writer says when';

CREATE OR REPLACE TRIGGER stamp_won_deal
    BEFORE INSERT OR UPDATE ON atlvs.deals
    FOR EACH ROW WHEN (NEW.status = 'won' AND NEW.won_at IS NULL)
    EXECUTE FUNCTION atlvs.stamp_won_deal();

-------------------------------------------------------------------------------------------------------------- compvss

CREATE TABLE IF NOT EXISTS compvss.productions (
    organization_id      uuid        NOT NULL,
    id                   uuid        NOT NULL DEFAULT gen_random_uuid(),
    project_ref          uuid,
    code                 text,
    name                 text        NOT NULL,
    status               text        NOT NULL DEFAULT 'planning',
    venue_name           text,
    timezone             text        NOT NULL DEFAULT 'UTC',
    starts_at            timestamptz,
    ends_at              timestamptz,
    capacity             integer,
    projected_attendance integer,
    tickets_sold         integer     NOT NULL DEFAULT 0,
    sell_through         numeric(6,4),
    staffing_target      integer,
    metadata             jsonb       NOT NULL DEFAULT '{}',
    version              bigint      NOT NULL DEFAULT 1,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT productions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT productions_project_key UNIQUE (organization_id, project_ref),
    CONSTRAINT productions_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT productions_status_known
        CHECK (status IN ('planning', 'advancing', 'load_in', 'show', 'load_out', 'wrapped', 'cancelled')),
    CONSTRAINT productions_counts_not_negative
        CHECK (capacity >= 0 AND projected_attendance >= 0 AND tickets_sold >= 0 AND staffing_target >= 0),
    CONSTRAINT productions_ends_after_start CHECK (ends_at >= starts_at)
);
CREATE INDEX IF NOT EXISTS productions_status_idx ON compvss.productions (organization_id, status);
COMMENT ON TABLE compvss.productions IS 'Pack live_events: The job on site. At most one per project.';
COMMENT ON COLUMN compvss.productions.project_ref IS 'Id in atlvs.projects; empty for a production without a project';
COMMENT ON COLUMN compvss.productions.timezone IS 'Zone of the venue';
COMMENT ON COLUMN compvss.productions.starts_at IS 'At first the start of the event day in the zone of the venue';

-------------------------------------------------------------------------------------------------------------- gvteway

CREATE TABLE IF NOT EXISTS gvteway.venues (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    name            text        NOT NULL,
    address         text,
    timezone        text        NOT NULL DEFAULT 'UTC',
    max_capacity    integer,
    status          text        NOT NULL DEFAULT 'active',
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT venues_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT venues_name_key UNIQUE (organization_id, name),
    CONSTRAINT venues_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT venues_status_known CHECK (status IN ('active', 'closed')),
    CONSTRAINT venues_max_capacity_not_negative CHECK (max_capacity >= 0)
);
CREATE INDEX IF NOT EXISTS venues_status_idx ON gvteway.venues (organization_id, status);
COMMENT ON TABLE gvteway.venues IS 'Pack live_events: Places guests know';

CREATE TABLE IF NOT EXISTS gvteway.events (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_ref  uuid,
    venue_id        uuid,
    venue_name      text,
    slug            text        NOT NULL,
    title           text        NOT NULL,
    status          text        NOT NULL DEFAULT 'draft',
    timezone        text        NOT NULL DEFAULT 'UTC',
    starts_at       timestamptz,
    ends_at         timestamptz,
    doors_at        timestamptz,
    curfew_at       timestamptz,
    capacity        integer,
    lineup          jsonb       NOT NULL DEFAULT '[]',
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT events_production_key UNIQUE (organization_id, production_ref),
    CONSTRAINT events_slug_key UNIQUE (organization_id, slug),
    CONSTRAINT events_venue_fkey FOREIGN KEY (organization_id, venue_id)
        REFERENCES gvteway.venues (organization_id, id) ON DELETE SET NULL (venue_id),
    CONSTRAINT events_title_given CHECK (btrim(title) <> ''),
    CONSTRAINT events_status_known
        CHECK (status IN ('draft', 'published', 'on_sale', 'live', 'delayed', 'ended', 'cancelled')),
    CONSTRAINT events_capacity_not_negative CHECK (capacity >= 0),
    CONSTRAINT events_ends_after_start CHECK (ends_at >= starts_at),
    CONSTRAINT events_lineup_is_array CHECK (jsonb_typeof(lineup) = 'array')
);
CREATE INDEX IF NOT EXISTS events_status_idx ON gvteway.events (organization_id, status);
CREATE INDEX IF NOT EXISTS events_venue_idx ON gvteway.events (organization_id, venue_id);
COMMENT ON TABLE gvteway.events IS 'Pack live_events: What guests can come to. At most one per production.';
COMMENT ON COLUMN gvteway.events.production_ref IS 'Id in compvss.productions; empty for an event without a production';
COMMENT ON COLUMN gvteway.events.venue_name IS 'As the production says it';
COMMENT ON COLUMN gvteway.events.venue_id IS 'The venue, once somebody has chosen it; no flow writes it';

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

------------------------------------------------------------------------------------------------- for all of the tables

-- One trigger function per schema, so that a schema can move away by itself.
DO $touch$
DECLARE
    s text;
BEGIN
    FOREACH s IN ARRAY ARRAY['atlvs', 'compvss', 'gvteway'] LOOP
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
        SELECT * FROM (VALUES
            -- managed: admins of an organization may write by hand; touched: has version and updated_at
            ('atlvs',   'deals',               true,  true),
            ('atlvs',   'deal_status_changes', false, true),
            ('atlvs',   'projects',            true,  true),
            ('atlvs',   'project_codes',       false, false),
            ('compvss', 'productions',         true,  true),
            ('gvteway', 'venues',              true,  true),
            ('gvteway', 'events',              true,  true)
        ) AS v (nsp, rel, managed, touched)
    LOOP
        IF t.touched THEN
            -- An UPDATE that changes nothing leaves the row as it is: it is no news to any flow.
            EXECUTE format(
                'CREATE OR REPLACE TRIGGER touch_row BEFORE UPDATE ON %1$I.%2$I
                     FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION %1$I.touch_row()',
                t.nsp, t.rel);
        END IF;

        -- Policies are made once, with the table: making them again would lock it exclusively. The sub-select lets the
        -- organizations be read once per statement instead of once per row.
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_policy p
             WHERE p.polrelid = format('%I.%I', t.nsp, t.rel)::regclass AND p.polname = 'live_events_read');
        EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', t.nsp, t.rel);
        EXECUTE format(
            'CREATE POLICY live_events_read ON %I.%I FOR SELECT TO usher_member
                 USING (organization_id = ANY ((SELECT usher.member_organizations())::uuid[]))', t.nsp, t.rel);
        CONTINUE WHEN NOT t.managed;
        EXECUTE format(
            'CREATE POLICY live_events_insert ON %I.%I FOR INSERT TO usher_member
                 WITH CHECK (organization_id = ANY ((SELECT usher.managed_organizations())::uuid[]))', t.nsp, t.rel);
        EXECUTE format(
            'CREATE POLICY live_events_update ON %I.%I FOR UPDATE TO usher_member
                 USING (organization_id = ANY ((SELECT usher.managed_organizations())::uuid[]))
                 WITH CHECK (organization_id = ANY ((SELECT usher.managed_organizations())::uuid[]))', t.nsp, t.rel);
        EXECUTE format(
            'CREATE POLICY live_events_delete ON %I.%I FOR DELETE TO usher_member
                 USING (organization_id = ANY ((SELECT usher.managed_organizations())::uuid[]))', t.nsp, t.rel);
    END LOOP;
END
$tables$;
