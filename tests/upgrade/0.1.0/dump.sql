--
-- PostgreSQL database dump
--


-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 15.20 (Debian 15.20-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: atlvs; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA atlvs;


ALTER SCHEMA atlvs OWNER TO postgres;

--
-- Name: SCHEMA atlvs; Type: COMMENT; Schema: -; Owner: postgres
--

COMMENT ON SCHEMA atlvs IS 'Pack live_events: deals, projects and, later, finance';


--
-- Name: books; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA books;


ALTER SCHEMA books OWNER TO postgres;

--
-- Name: compvss; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA compvss;


ALTER SCHEMA compvss OWNER TO postgres;

--
-- Name: SCHEMA compvss; Type: COMMENT; Schema: -; Owner: postgres
--

COMMENT ON SCHEMA compvss IS 'Pack live_events: productions';


--
-- Name: gvteway; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA gvteway;


ALTER SCHEMA gvteway OWNER TO postgres;

--
-- Name: SCHEMA gvteway; Type: COMMENT; Schema: -; Owner: postgres
--

COMMENT ON SCHEMA gvteway IS 'Pack live_events: what guests see';


--
-- Name: usher; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA usher;


ALTER SCHEMA usher OWNER TO postgres;

--
-- Name: pg_usher; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pg_usher WITH SCHEMA usher;


--
-- Name: EXTENSION pg_usher; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION pg_usher IS 'integration hub inside PostgreSQL: flows, a durable queue and workers';


--
-- Name: project_code(uuid, integer, bigint, bigint, uuid); Type: FUNCTION; Schema: atlvs; Owner: postgres
--

CREATE FUNCTION atlvs.project_code(organization_id uuid, year integer, nth bigint, total bigint, batch uuid) RETURNS text
    LANGUAGE plpgsql STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


ALTER FUNCTION atlvs.project_code(organization_id uuid, year integer, nth bigint, total bigint, batch uuid) OWNER TO postgres;

--
-- Name: FUNCTION project_code(organization_id uuid, year integer, nth bigint, total bigint, batch uuid); Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON FUNCTION atlvs.project_code(organization_id uuid, year integer, nth bigint, total bigint, batch uuid) IS 'Code of the nth of total new projects of an organization and year in one statement; batch is one id for all';


--
-- Name: stamp_won_deal(); Type: FUNCTION; Schema: atlvs; Owner: postgres
--

CREATE FUNCTION atlvs.stamp_won_deal() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    NEW.won_at := now();
    RETURN NEW;
END
$$;


ALTER FUNCTION atlvs.stamp_won_deal() OWNER TO postgres;

--
-- Name: FUNCTION stamp_won_deal(); Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON FUNCTION atlvs.stamp_won_deal() IS 'Trigger: fills in when a deal was won, unless the writer says when';


--
-- Name: touch_row(); Type: FUNCTION; Schema: atlvs; Owner: postgres
--

CREATE FUNCTION atlvs.touch_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
            BEGIN
                NEW.version := OLD.version + 1;
                NEW.updated_at := now();
                RETURN NEW;
            END
            $$;


ALTER FUNCTION atlvs.touch_row() OWNER TO postgres;

--
-- Name: FUNCTION touch_row(); Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON FUNCTION atlvs.touch_row() IS 'Trigger: a changed row gets the next version and a new updated_at';


--
-- Name: touch_row(); Type: FUNCTION; Schema: compvss; Owner: postgres
--

CREATE FUNCTION compvss.touch_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
            BEGIN
                NEW.version := OLD.version + 1;
                NEW.updated_at := now();
                RETURN NEW;
            END
            $$;


ALTER FUNCTION compvss.touch_row() OWNER TO postgres;

--
-- Name: FUNCTION touch_row(); Type: COMMENT; Schema: compvss; Owner: postgres
--

COMMENT ON FUNCTION compvss.touch_row() IS 'Trigger: a changed row gets the next version and a new updated_at';


--
-- Name: event_slug(text, uuid); Type: FUNCTION; Schema: gvteway; Owner: postgres
--

CREATE FUNCTION gvteway.event_slug(title text, production_ref uuid) RETURNS text
    LANGUAGE sql STABLE
    RETURN concat_ws('-'::text, NULLIF(btrim("left"(regexp_replace(lower(CASE WHEN (getdatabaseencoding() = 'UTF8'::name) THEN regexp_replace(NORMALIZE(title, NFKD), '[\u0300-\u036f]'::text, ''::text, 'g'::text) ELSE title END), '[^a-z0-9]+'::text, '-'::text, 'g'::text), 60), '-'::text), ''::text), "right"((production_ref)::text, 12));


ALTER FUNCTION gvteway.event_slug(title text, production_ref uuid) OWNER TO postgres;

--
-- Name: FUNCTION event_slug(title text, production_ref uuid); Type: COMMENT; Schema: gvteway; Owner: postgres
--

COMMENT ON FUNCTION gvteway.event_slug(title text, production_ref uuid) IS 'Address of an event: its title in a-z, 0-9 and hyphens, and the end of the production''s id';


--
-- Name: touch_row(); Type: FUNCTION; Schema: gvteway; Owner: postgres
--

CREATE FUNCTION gvteway.touch_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
            BEGIN
                NEW.version := OLD.version + 1;
                NEW.updated_at := now();
                RETURN NEW;
            END
            $$;


ALTER FUNCTION gvteway.touch_row() OWNER TO postgres;

--
-- Name: FUNCTION touch_row(); Type: COMMENT; Schema: gvteway; Owner: postgres
--

COMMENT ON FUNCTION gvteway.touch_row() IS 'Trigger: a changed row gets the next version and a new updated_at';


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: deal_status_changes; Type: TABLE; Schema: atlvs; Owner: postgres
--

CREATE TABLE atlvs.deal_status_changes (
    organization_id uuid NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    deal_id uuid NOT NULL,
    old_status text,
    new_status text NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE atlvs.deal_status_changes OWNER TO postgres;

--
-- Name: TABLE deal_status_changes; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON TABLE atlvs.deal_status_changes IS 'Pack live_events: One row per change of a deal''s status; written by the flow only';


--
-- Name: COLUMN deal_status_changes.old_status; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.deal_status_changes.old_status IS 'Empty for the status a deal was entered with';


--
-- Name: deals; Type: TABLE; Schema: atlvs; Owner: postgres
--

CREATE TABLE atlvs.deals (
    organization_id uuid NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    contact_id uuid,
    title text NOT NULL,
    kind text DEFAULT 'event'::text NOT NULL,
    status text DEFAULT 'inquiry'::text NOT NULL,
    value numeric(14,2),
    currency character(3) DEFAULT 'USD'::bpchar NOT NULL,
    event_date date,
    venue_name text,
    venue_timezone text DEFAULT 'UTC'::text NOT NULL,
    expected_attendance integer,
    won_at timestamp with time zone,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT deals_currency_code CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT deals_kind_known CHECK ((kind = ANY (ARRAY['event'::text, 'artist'::text]))),
    CONSTRAINT deals_status_known CHECK ((status = ANY (ARRAY['inquiry'::text, 'qualified'::text, 'proposal'::text, 'won'::text, 'lost'::text])))
);


ALTER TABLE atlvs.deals OWNER TO postgres;

--
-- Name: TABLE deals; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON TABLE atlvs.deals IS 'Pack live_events: What is being sold. A deal that becomes won becomes a project, once.';


--
-- Name: COLUMN deals.contact_id; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.deals.contact_id IS 'The client; contacts are not in the pack yet';


--
-- Name: COLUMN deals.venue_timezone; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.deals.venue_timezone IS 'Zone in which the event date is a day, such as Europe/Berlin';


--
-- Name: COLUMN deals.expected_attendance; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.deals.expected_attendance IS 'Becomes capacity and projected attendance of the production';


--
-- Name: COLUMN deals.won_at; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.deals.won_at IS 'When the deal was first won; filled in if left empty';


--
-- Name: COLUMN deals.metadata; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.deals.metadata IS 'Carried to the project and the production; "lineup" (an array) reaches the event';


--
-- Name: project_codes; Type: TABLE; Schema: atlvs; Owner: postgres
--

CREATE TABLE atlvs.project_codes (
    organization_id uuid NOT NULL,
    year integer NOT NULL,
    last_number bigint NOT NULL,
    reserved_count bigint NOT NULL,
    reserved_by uuid NOT NULL,
    reserved_in xid8 NOT NULL
);


ALTER TABLE atlvs.project_codes OWNER TO postgres;

--
-- Name: TABLE project_codes; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON TABLE atlvs.project_codes IS 'Pack live_events: Counter behind projects.code; written by atlvs.project_code() only';


--
-- Name: projects; Type: TABLE; Schema: atlvs; Owner: postgres
--

CREATE TABLE atlvs.projects (
    organization_id uuid NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    deal_id uuid,
    code text NOT NULL,
    name text NOT NULL,
    phase text DEFAULT 'intake'::text NOT NULL,
    health text DEFAULT 'green'::text NOT NULL,
    budget_total numeric(14,2) DEFAULT 0 NOT NULL,
    currency character(3) DEFAULT 'USD'::bpchar NOT NULL,
    starts_on date,
    ends_on date,
    closed_at timestamp with time zone,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT projects_budget_not_negative CHECK ((budget_total >= (0)::numeric)),
    CONSTRAINT projects_currency_code CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT projects_ends_after_start CHECK ((ends_on >= starts_on)),
    CONSTRAINT projects_health_known CHECK ((health = ANY (ARRAY['green'::text, 'amber'::text, 'red'::text]))),
    CONSTRAINT projects_name_given CHECK ((btrim(name) <> ''::text)),
    CONSTRAINT projects_phase_known CHECK ((phase = ANY (ARRAY['intake'::text, 'preproduction'::text, 'in_production'::text, 'post'::text, 'closed'::text, 'cancelled'::text])))
);


ALTER TABLE atlvs.projects OWNER TO postgres;

--
-- Name: TABLE projects; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON TABLE atlvs.projects IS 'Pack live_events: The business side of a job: budget and dates. At most one per deal.';


--
-- Name: COLUMN projects.code; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.projects.code IS 'P-<year>-<number>, counted per organization and year of the win';


--
-- Name: COLUMN projects.phase; Type: COMMENT; Schema: atlvs; Owner: postgres
--

COMMENT ON COLUMN atlvs.projects.phase IS 'Follows the status of the production (W9), until it is closed';


--
-- Name: archive; Type: TABLE; Schema: books; Owner: postgres
--

CREATE TABLE books.archive (
    organization_id uuid NOT NULL,
    order_id integer NOT NULL,
    last_status text NOT NULL
);


ALTER TABLE books.archive OWNER TO postgres;

--
-- Name: charges; Type: TABLE; Schema: books; Owner: postgres
--

CREATE TABLE books.charges (
    organization_id uuid NOT NULL,
    order_id integer NOT NULL,
    amount numeric(10,2) NOT NULL,
    most numeric(10,2) NOT NULL
);


ALTER TABLE books.charges OWNER TO postgres;

--
-- Name: invoices; Type: TABLE; Schema: books; Owner: postgres
--

CREATE TABLE books.invoices (
    organization_id uuid NOT NULL,
    id integer NOT NULL,
    order_id integer NOT NULL,
    customer text NOT NULL,
    amount numeric(10,2) NOT NULL
);


ALTER TABLE books.invoices OWNER TO postgres;

--
-- Name: invoices_id_seq; Type: SEQUENCE; Schema: books; Owner: postgres
--

ALTER TABLE books.invoices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME books.invoices_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: letters; Type: TABLE; Schema: books; Owner: postgres
--

CREATE TABLE books.letters (
    organization_id uuid NOT NULL,
    order_id integer NOT NULL,
    customer text NOT NULL
);


ALTER TABLE books.letters OWNER TO postgres;

--
-- Name: limits; Type: TABLE; Schema: books; Owner: postgres
--

CREATE TABLE books.limits (
    organization_id uuid NOT NULL,
    most numeric(10,2) NOT NULL
);


ALTER TABLE books.limits OWNER TO postgres;

--
-- Name: order_log; Type: TABLE; Schema: books; Owner: postgres
--

CREATE TABLE books.order_log (
    organization_id uuid NOT NULL,
    order_id integer NOT NULL,
    status text NOT NULL,
    version integer NOT NULL
);


ALTER TABLE books.order_log OWNER TO postgres;

--
-- Name: reissues; Type: TABLE; Schema: books; Owner: postgres
--

CREATE TABLE books.reissues (
    organization_id uuid NOT NULL,
    order_id integer NOT NULL,
    note text NOT NULL
);


ALTER TABLE books.reissues OWNER TO postgres;

--
-- Name: productions; Type: TABLE; Schema: compvss; Owner: postgres
--

CREATE TABLE compvss.productions (
    organization_id uuid NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_ref uuid,
    code text,
    name text NOT NULL,
    status text DEFAULT 'planning'::text NOT NULL,
    venue_name text,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    starts_at timestamp with time zone,
    ends_at timestamp with time zone,
    capacity integer,
    projected_attendance integer,
    tickets_sold integer DEFAULT 0 NOT NULL,
    sell_through numeric(6,4),
    staffing_target integer,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT productions_counts_not_negative CHECK (((capacity >= 0) AND (projected_attendance >= 0) AND (tickets_sold >= 0) AND (staffing_target >= 0))),
    CONSTRAINT productions_ends_after_start CHECK ((ends_at >= starts_at)),
    CONSTRAINT productions_name_given CHECK ((btrim(name) <> ''::text)),
    CONSTRAINT productions_status_known CHECK ((status = ANY (ARRAY['planning'::text, 'advancing'::text, 'load_in'::text, 'show'::text, 'load_out'::text, 'wrapped'::text, 'cancelled'::text])))
);


ALTER TABLE compvss.productions OWNER TO postgres;

--
-- Name: TABLE productions; Type: COMMENT; Schema: compvss; Owner: postgres
--

COMMENT ON TABLE compvss.productions IS 'Pack live_events: The job on site. At most one per project.';


--
-- Name: COLUMN productions.project_ref; Type: COMMENT; Schema: compvss; Owner: postgres
--

COMMENT ON COLUMN compvss.productions.project_ref IS 'Id in atlvs.projects; empty for a production without a project';


--
-- Name: COLUMN productions.timezone; Type: COMMENT; Schema: compvss; Owner: postgres
--

COMMENT ON COLUMN compvss.productions.timezone IS 'Zone of the venue';


--
-- Name: COLUMN productions.starts_at; Type: COMMENT; Schema: compvss; Owner: postgres
--

COMMENT ON COLUMN compvss.productions.starts_at IS 'At first the start of the event day in the zone of the venue';


--
-- Name: events; Type: TABLE; Schema: gvteway; Owner: postgres
--

CREATE TABLE gvteway.events (
    organization_id uuid NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    production_ref uuid,
    venue_id uuid,
    venue_name text,
    slug text NOT NULL,
    title text NOT NULL,
    status text DEFAULT 'draft'::text NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    starts_at timestamp with time zone,
    ends_at timestamp with time zone,
    doors_at timestamp with time zone,
    curfew_at timestamp with time zone,
    capacity integer,
    lineup jsonb DEFAULT '[]'::jsonb NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT events_capacity_not_negative CHECK ((capacity >= 0)),
    CONSTRAINT events_ends_after_start CHECK ((ends_at >= starts_at)),
    CONSTRAINT events_lineup_is_array CHECK ((jsonb_typeof(lineup) = 'array'::text)),
    CONSTRAINT events_status_known CHECK ((status = ANY (ARRAY['draft'::text, 'published'::text, 'on_sale'::text, 'live'::text, 'delayed'::text, 'ended'::text, 'cancelled'::text]))),
    CONSTRAINT events_title_given CHECK ((btrim(title) <> ''::text))
);


ALTER TABLE gvteway.events OWNER TO postgres;

--
-- Name: TABLE events; Type: COMMENT; Schema: gvteway; Owner: postgres
--

COMMENT ON TABLE gvteway.events IS 'Pack live_events: What guests can come to. At most one per production.';


--
-- Name: COLUMN events.production_ref; Type: COMMENT; Schema: gvteway; Owner: postgres
--

COMMENT ON COLUMN gvteway.events.production_ref IS 'Id in compvss.productions; empty for an event without a production';


--
-- Name: COLUMN events.venue_id; Type: COMMENT; Schema: gvteway; Owner: postgres
--

COMMENT ON COLUMN gvteway.events.venue_id IS 'The venue, once somebody has chosen it; no flow writes it';


--
-- Name: COLUMN events.venue_name; Type: COMMENT; Schema: gvteway; Owner: postgres
--

COMMENT ON COLUMN gvteway.events.venue_name IS 'As the production says it';


--
-- Name: venues; Type: TABLE; Schema: gvteway; Owner: postgres
--

CREATE TABLE gvteway.venues (
    organization_id uuid NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    address text,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    max_capacity integer,
    status text DEFAULT 'active'::text NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT venues_max_capacity_not_negative CHECK ((max_capacity >= 0)),
    CONSTRAINT venues_name_given CHECK ((btrim(name) <> ''::text)),
    CONSTRAINT venues_status_known CHECK ((status = ANY (ARRAY['active'::text, 'closed'::text])))
);


ALTER TABLE gvteway.venues OWNER TO postgres;

--
-- Name: TABLE venues; Type: COMMENT; Schema: gvteway; Owner: postgres
--

COMMENT ON TABLE gvteway.venues IS 'Pack live_events: Places guests know';


--
-- Name: orders; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.orders (
    organization_id uuid NOT NULL,
    id integer NOT NULL,
    customer text NOT NULL,
    total numeric(10,2) NOT NULL,
    status text DEFAULT 'open'::text NOT NULL
);


ALTER TABLE public.orders OWNER TO postgres;

--
-- Name: dead_letters; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.dead_letters (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    seq bigint NOT NULL,
    row_key bigint,
    created_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    trail text,
    new jsonb,
    old jsonb,
    attempts integer NOT NULL,
    last_attempted_at timestamp with time zone,
    error_message text NOT NULL,
    sqlstate text,
    source_system text,
    target_system text,
    died_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE usher.dead_letters OWNER TO postgres;

--
-- Name: TABLE dead_letters; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.dead_letters IS 'jobs that failed for good, whole, with their reason; usher.retry_sync_job runs one again';


--
-- Name: flow_versions; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.flow_versions (
    flow_id integer NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    source_system text,
    target_system text,
    definition jsonb NOT NULL,
    compiled jsonb NOT NULL,
    run_as regrole NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text NOT NULL
);


ALTER TABLE usher.flow_versions OWNER TO postgres;

--
-- Name: TABLE flow_versions; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.flow_versions IS 'every version of every flow; outlives the flow, because finished jobs name it';


--
-- Name: flows; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.flows (
    name text NOT NULL,
    pack text,
    definition jsonb NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    state text DEFAULT 'ok'::text NOT NULL,
    reason text,
    run_as regrole NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    id integer NOT NULL,
    CONSTRAINT flows_state_known CHECK ((state = ANY (ARRAY['ok'::text, 'broken'::text])))
);


ALTER TABLE usher.flows OWNER TO postgres;

--
-- Name: TABLE flows; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.flows IS 'what happens when something happens; made by usher.create_flow, deleting a row stops its effect';


--
-- Name: flows_id_seq; Type: SEQUENCE; Schema: usher; Owner: postgres
--

ALTER TABLE usher.flows ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME usher.flows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: installation; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.installation (
    singleton boolean DEFAULT true NOT NULL,
    schema_level integer NOT NULL,
    database oid NOT NULL,
    set_up_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT installation_one_row CHECK (singleton)
);


ALTER TABLE usher.installation OWNER TO postgres;

--
-- Name: TABLE installation; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.installation IS 'one row: the version of the tables of this installation';


--
-- Name: job_history; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.job_history (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    attempts integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    cancelled boolean DEFAULT false NOT NULL,
    new jsonb,
    old jsonb,
    error_message text,
    source_system text,
    target_system text
)
PARTITION BY RANGE (finished_at);


ALTER TABLE usher.job_history OWNER TO postgres;

--
-- Name: TABLE job_history; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.job_history IS 'finished jobs: synced or cancelled';


--
-- Name: job_history_20261121; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.job_history_20261121 (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    attempts integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    cancelled boolean DEFAULT false NOT NULL,
    new jsonb,
    old jsonb,
    error_message text,
    source_system text,
    target_system text
);


ALTER TABLE usher.job_history_20261121 OWNER TO postgres;

--
-- Name: job_history_20261122; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.job_history_20261122 (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    attempts integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    cancelled boolean DEFAULT false NOT NULL,
    new jsonb,
    old jsonb,
    error_message text,
    source_system text,
    target_system text
);


ALTER TABLE usher.job_history_20261122 OWNER TO postgres;

--
-- Name: job_history_20261123; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.job_history_20261123 (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    attempts integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    cancelled boolean DEFAULT false NOT NULL,
    new jsonb,
    old jsonb,
    error_message text,
    source_system text,
    target_system text
);


ALTER TABLE usher.job_history_20261123 OWNER TO postgres;

--
-- Name: job_history_20261124; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.job_history_20261124 (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    attempts integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    cancelled boolean DEFAULT false NOT NULL,
    new jsonb,
    old jsonb,
    error_message text,
    source_system text,
    target_system text
);


ALTER TABLE usher.job_history_20261124 OWNER TO postgres;

--
-- Name: job_history_default; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.job_history_default (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    attempts integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    cancelled boolean DEFAULT false NOT NULL,
    new jsonb,
    old jsonb,
    error_message text,
    source_system text,
    target_system text
);


ALTER TABLE usher.job_history_default OWNER TO postgres;

--
-- Name: job_keys; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.job_keys (
    organization_id uuid NOT NULL,
    unique_key text NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE usher.job_keys OWNER TO postgres;

--
-- Name: TABLE job_keys; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.job_keys IS 'unique keys that callers gave; a second job with the same key is not made';


--
-- Name: links; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.links (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    left_id text NOT NULL,
    right_id text NOT NULL,
    left_system text,
    right_system text,
    flow text,
    status text DEFAULT 'synced'::text NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    last_synced_at timestamp with time zone,
    error_message text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT links_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'in_progress'::text, 'synced'::text, 'failed'::text])))
);


ALTER TABLE usher.links OWNER TO postgres;

--
-- Name: TABLE links; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.links IS 'this row here is that row there';


--
-- Name: memberships; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.memberships (
    organization_id uuid NOT NULL,
    user_id text NOT NULL,
    role text DEFAULT 'member'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT memberships_role_known CHECK ((role = ANY (ARRAY['legend'::text, 'admin'::text, 'member'::text]))),
    CONSTRAINT memberships_user_given CHECK ((user_id <> ''::text))
);


ALTER TABLE usher.memberships OWNER TO postgres;

--
-- Name: TABLE memberships; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.memberships IS 'who belongs where: admin manages the organization, member reads, legend is installation-wide';


--
-- Name: COLUMN memberships.user_id; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON COLUMN usher.memberships.user_id IS 'the sub of a signed-in user, or role:NAME for a database role';


--
-- Name: organizations; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.organizations (
    id uuid NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT organizations_slug_form CHECK ((slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text))
);


ALTER TABLE usher.organizations OWNER TO postgres;

--
-- Name: TABLE organizations; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.organizations IS 'the tenants; an installation without tenants has one, ''default''';


--
-- Name: queue; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.queue (
    seq bigint NOT NULL,
    row_key bigint,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer NOT NULL,
    flow_version integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    fallback boolean DEFAULT false NOT NULL,
    trail text,
    new jsonb,
    old jsonb
)
WITH (fillfactor='100', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');


ALTER TABLE usher.queue OWNER TO postgres;

--
-- Name: TABLE queue; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.queue IS 'jobs that can run now; usher.sync_jobs is the view to read';


--
-- Name: queue_seq; Type: SEQUENCE; Schema: usher; Owner: postgres
--

CREATE SEQUENCE usher.queue_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE usher.queue_seq OWNER TO postgres;

--
-- Name: queue_waiting; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.queue_waiting (
    seq bigint NOT NULL,
    row_key bigint,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    cause uuid,
    flow_id integer,
    flow_version integer,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    trail text,
    new jsonb,
    old jsonb,
    attempts integer DEFAULT 0 NOT NULL,
    waiting_for text NOT NULL,
    due_at timestamp with time zone,
    last_attempted_at timestamp with time zone,
    error_message text,
    source_system text,
    target_system text,
    CONSTRAINT queue_waiting_reason_known CHECK ((waiting_for = ANY (ARRAY['retry'::text, 'run_at'::text, 'earlier change'::text, 'flow disabled'::text, 'flow broken'::text, 'external worker'::text])))
);


ALTER TABLE usher.queue_waiting OWNER TO postgres;

--
-- Name: TABLE queue_waiting; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.queue_waiting IS 'jobs that cannot run yet, with the reason';


--
-- Name: sync_jobs; Type: VIEW; Schema: usher; Owner: postgres
--

CREATE VIEW usher.sync_jobs WITH (security_invoker='true') AS
 SELECT q.id,
    q.organization_id,
    f.name AS flow,
    f.source_system,
    f.target_system,
        CASE
            WHEN (q.op = 'R'::"char") THEN q.new
            ELSE usher.change_payload(q.op, q.new, q.old)
        END AS payload,
    usher.lane_name(q.lane) AS priority,
        CASE
            WHEN usher.job_in_progress(false, q.lane, q.seq) THEN 'in_progress'::text
            ELSE 'pending'::text
        END AS status,
    NULL::text AS waiting_for,
    0 AS attempts,
    NULL::timestamp with time zone AS run_at,
    NULL::timestamp with time zone AS last_attempted_at,
    NULL::text AS error_message,
    q.created_at,
    NULL::timestamp with time zone AS finished_at
   FROM (usher.queue q
     LEFT JOIN usher.flow_versions f ON (((f.flow_id = q.flow_id) AND (f.version = q.flow_version))))
UNION ALL
 SELECT w.id,
    w.organization_id,
    f.name AS flow,
    COALESCE(w.source_system, f.source_system) AS source_system,
    COALESCE(w.target_system, f.target_system) AS target_system,
        CASE
            WHEN (w.op = 'R'::"char") THEN w.new
            ELSE usher.change_payload(w.op, w.new, w.old)
        END AS payload,
    usher.lane_name(w.lane) AS priority,
        CASE
            WHEN ((w.due_at <= clock_timestamp()) AND usher.job_in_progress(true, w.lane, w.seq)) THEN 'in_progress'::text
            WHEN (w.waiting_for = 'retry'::text) THEN 'failed'::text
            ELSE 'pending'::text
        END AS status,
    w.waiting_for,
    w.attempts,
    w.due_at AS run_at,
    w.last_attempted_at,
    w.error_message,
    w.created_at,
    NULL::timestamp with time zone AS finished_at
   FROM (usher.queue_waiting w
     LEFT JOIN usher.flow_versions f ON (((f.flow_id = w.flow_id) AND (f.version = w.flow_version))))
UNION ALL
 SELECT d.id,
    d.organization_id,
    f.name AS flow,
    COALESCE(d.source_system, f.source_system) AS source_system,
    COALESCE(d.target_system, f.target_system) AS target_system,
        CASE
            WHEN (d.op = 'R'::"char") THEN d.new
            ELSE usher.change_payload(d.op, d.new, d.old)
        END AS payload,
    usher.lane_name(d.lane) AS priority,
    'dead'::text AS status,
    NULL::text AS waiting_for,
    d.attempts,
    NULL::timestamp with time zone AS run_at,
    d.last_attempted_at,
    d.error_message,
    d.created_at,
    d.died_at AS finished_at
   FROM (usher.dead_letters d
     LEFT JOIN usher.flow_versions f ON (((f.flow_id = d.flow_id) AND (f.version = d.flow_version))))
UNION ALL
 SELECT h.id,
    h.organization_id,
    f.name AS flow,
    COALESCE(h.source_system, f.source_system) AS source_system,
    COALESCE(h.target_system, f.target_system) AS target_system,
        CASE
            WHEN (h.op = 'R'::"char") THEN h.new
            ELSE usher.change_payload(h.op, h.new, h.old)
        END AS payload,
    usher.lane_name(h.lane) AS priority,
        CASE
            WHEN h.cancelled THEN 'cancelled'::text
            ELSE 'synced'::text
        END AS status,
    NULL::text AS waiting_for,
    h.attempts,
    NULL::timestamp with time zone AS run_at,
        CASE
            WHEN (h.attempts > 0) THEN h.finished_at
            ELSE NULL::timestamp with time zone
        END AS last_attempted_at,
    h.error_message,
    h.created_at,
    h.finished_at
   FROM (usher.job_history h
     LEFT JOIN usher.flow_versions f ON (((f.flow_id = h.flow_id) AND (f.version = h.flow_version))));


ALTER TABLE usher.sync_jobs OWNER TO postgres;

--
-- Name: VIEW sync_jobs; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON VIEW usher.sync_jobs IS 'every job the caller may see, wherever it stands: pending, in_progress, failed (waits for its next try), synced, dead, cancelled';


--
-- Name: systems; Type: TABLE; Schema: usher; Owner: postgres
--

CREATE TABLE usher.systems (
    name text NOT NULL,
    kind text DEFAULT 'local'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT systems_kind_known CHECK ((kind = ANY (ARRAY['local'::text, 'remote'::text, 'external'::text]))),
    CONSTRAINT systems_name_form CHECK ((name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'::text))
);


ALTER TABLE usher.systems OWNER TO postgres;

--
-- Name: TABLE systems; Type: COMMENT; Schema: usher; Owner: postgres
--

COMMENT ON TABLE usher.systems IS 'the parties kept in step: local (tables here), remote (spoken to), external (a worker outside takes its jobs)';


--
-- Name: job_history_20261121; Type: TABLE ATTACH; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history ATTACH PARTITION usher.job_history_20261121 FOR VALUES FROM ('2026-11-21 00:00:00+00') TO ('2026-11-22 00:00:00+00');


--
-- Name: job_history_20261122; Type: TABLE ATTACH; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history ATTACH PARTITION usher.job_history_20261122 FOR VALUES FROM ('2026-11-22 00:00:00+00') TO ('2026-11-23 00:00:00+00');


--
-- Name: job_history_20261123; Type: TABLE ATTACH; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history ATTACH PARTITION usher.job_history_20261123 FOR VALUES FROM ('2026-11-23 00:00:00+00') TO ('2026-11-24 00:00:00+00');


--
-- Name: job_history_20261124; Type: TABLE ATTACH; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history ATTACH PARTITION usher.job_history_20261124 FOR VALUES FROM ('2026-11-24 00:00:00+00') TO ('2026-11-25 00:00:00+00');


--
-- Name: job_history_default; Type: TABLE ATTACH; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history ATTACH PARTITION usher.job_history_default DEFAULT;


--
-- Data for Name: deal_status_changes; Type: TABLE DATA; Schema: atlvs; Owner: postgres
--

COPY atlvs.deal_status_changes (organization_id, id, deal_id, old_status, new_status, changed_at, version, created_at, updated_at) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	2694d58c-79d4-4e2e-90b2-7b2833af68f2	bd502cdb-b525-40fe-8f36-7cffc704d863	\N	proposal	2026-11-21 02:41:47.304401+00	1	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00
01a1fbfb-366d-77e5-b832-b50ca225df21	5214ad8f-d0bc-4a84-99e6-ee4d8e341c21	ca78785e-d86c-4a22-bfee-727e20a08fbb	\N	proposal	2026-11-21 02:41:47.304401+00	1	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00
01a1fbfb-366d-77e5-b832-b50ca225df21	2de8791b-cb12-43aa-9b3e-0630398c2756	06acf745-4ca6-47b5-8497-822773601657	\N	inquiry	2026-11-21 02:41:47.304401+00	1	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	4593de5b-f5e8-445a-9a03-ff120d650531	232685a7-844d-40f9-9441-0a7f5b2de965	\N	proposal	2026-11-21 02:41:47.304401+00	1	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00
01a1fbfb-366d-77e5-b832-b50ca225df21	5eb011ab-4944-4caa-bbee-4d7f2bb63286	bd502cdb-b525-40fe-8f36-7cffc704d863	proposal	won	2026-11-21 02:41:47.316482+00	1	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	ccaa2a34-735f-4866-8013-851e50482276	232685a7-844d-40f9-9441-0a7f5b2de965	proposal	won	2026-11-21 02:41:47.316482+00	1	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00
01a1fbfb-366d-77e5-b832-b50ca225df21	8b8ab310-ef31-4d8c-947e-91799355d94a	ca78785e-d86c-4a22-bfee-727e20a08fbb	proposal	won	2026-11-21 02:41:47.514597+00	1	2026-11-21 02:41:47.514597+00	2026-11-21 02:41:47.514597+00
\.


--
-- Data for Name: deals; Type: TABLE DATA; Schema: atlvs; Owner: postgres
--

COPY atlvs.deals (organization_id, id, contact_id, title, kind, status, value, currency, event_date, venue_name, venue_timezone, expected_attendance, won_at, metadata, version, created_at, updated_at) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	06acf745-4ca6-47b5-8497-822773601657	\N	Still Talking	event	inquiry	\N	USD	\N	\N	UTC	\N	\N	{}	1	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00
01a1fbfb-366d-77e5-b832-b50ca225df21	bd502cdb-b525-40fe-8f36-7cffc704d863	\N	Summer Night	event	won	48000.00	USD	2026-08-01	Tempodrom	Europe/Berlin	3000	2026-11-21 02:41:47.316482+00	{"lineup": ["A", "B"]}	2	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.316482+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	232685a7-844d-40f9-9441-0a7f5b2de965	\N	Harbour Days	event	won	30000.50	USD	2026-07-04	Pier 9	America/New_York	5000	2026-11-21 02:41:47.316482+00	{}	2	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.316482+00
01a1fbfb-366d-77e5-b832-b50ca225df21	ca78785e-d86c-4a22-bfee-727e20a08fbb	\N	Winter Ball	event	won	12000.00	USD	2026-12-12	Huxleys	Europe/Berlin	900	2026-11-21 02:41:47.514597+00	{}	2	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.514597+00
\.


--
-- Data for Name: project_codes; Type: TABLE DATA; Schema: atlvs; Owner: postgres
--

COPY atlvs.project_codes (organization_id, year, last_number, reserved_count, reserved_by, reserved_in) FROM stdin;
01a1fbfb-369b-7279-a3ab-40480643e8f2	2026	1	1	232685a7-844d-40f9-9441-0a7f5b2de965	1010
01a1fbfb-366d-77e5-b832-b50ca225df21	2026	2	1	ca78785e-d86c-4a22-bfee-727e20a08fbb	1111
\.


--
-- Data for Name: projects; Type: TABLE DATA; Schema: atlvs; Owner: postgres
--

COPY atlvs.projects (organization_id, id, deal_id, code, name, phase, health, budget_total, currency, starts_on, ends_on, closed_at, metadata, version, created_at, updated_at) FROM stdin;
01a1fbfb-369b-7279-a3ab-40480643e8f2	f70599f2-ed63-4ec1-8a42-53cae2ef5111	232685a7-844d-40f9-9441-0a7f5b2de965	P-2026-00001	Harbour Days	intake	green	30000.50	USD	2026-07-04	2026-07-04	\N	{}	1	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00
01a1fbfb-366d-77e5-b832-b50ca225df21	eefa061a-090e-4c73-aa42-3be01443be45	bd502cdb-b525-40fe-8f36-7cffc704d863	P-2026-00001	Summer Night	preproduction	green	48000.00	USD	2026-08-01	2026-08-01	\N	{"lineup": ["A", "B"]}	2	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.369691+00
01a1fbfb-366d-77e5-b832-b50ca225df21	005c65d9-cb43-41c2-8e9a-266e9e149263	ca78785e-d86c-4a22-bfee-727e20a08fbb	P-2026-00002	Winter Ball	intake	green	12000.00	USD	2026-12-12	2026-12-12	\N	{}	1	2026-11-21 02:41:47.514597+00	2026-11-21 02:41:47.514597+00
\.


--
-- Data for Name: archive; Type: TABLE DATA; Schema: books; Owner: postgres
--

COPY books.archive (organization_id, order_id, last_status) FROM stdin;
\.


--
-- Data for Name: charges; Type: TABLE DATA; Schema: books; Owner: postgres
--

COPY books.charges (organization_id, order_id, amount, most) FROM stdin;
01a1fbfb-369b-7279-a3ab-40480643e8f2	4	10.00	1000.00
\.


--
-- Data for Name: invoices; Type: TABLE DATA; Schema: books; Owner: postgres
--

COPY books.invoices (organization_id, id, order_id, customer, amount) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	1	1	Ada	120.00
01a1fbfb-369b-7279-a3ab-40480643e8f2	2	1	Linus	5.00
\.


--
-- Data for Name: letters; Type: TABLE DATA; Schema: books; Owner: postgres
--

COPY books.letters (organization_id, order_id, customer) FROM stdin;
\.


--
-- Data for Name: limits; Type: TABLE DATA; Schema: books; Owner: postgres
--

COPY books.limits (organization_id, most) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	1000.00
01a1fbfb-369b-7279-a3ab-40480643e8f2	1000.00
\.


--
-- Data for Name: order_log; Type: TABLE DATA; Schema: books; Owner: postgres
--

COPY books.order_log (organization_id, order_id, status, version) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	1	open	1
01a1fbfb-366d-77e5-b832-b50ca225df21	2	open	1
01a1fbfb-369b-7279-a3ab-40480643e8f2	1	open	1
01a1fbfb-366d-77e5-b832-b50ca225df21	1	paid	1
01a1fbfb-369b-7279-a3ab-40480643e8f2	1	paid	1
01a1fbfb-366d-77e5-b832-b50ca225df21	3	paid	1
01a1fbfb-369b-7279-a3ab-40480643e8f2	3	paid	1
01a1fbfb-366d-77e5-b832-b50ca225df21	4	charged	1
01a1fbfb-369b-7279-a3ab-40480643e8f2	4	charged	1
01a1fbfb-366d-77e5-b832-b50ca225df21	4	charged	1
01a1fbfb-366d-77e5-b832-b50ca225df21	2	thanked	1
01a1fbfb-366d-77e5-b832-b50ca225df21	5	paid	1
01a1fbfb-369b-7279-a3ab-40480643e8f2	5	charged	1
01a1fbfb-369b-7279-a3ab-40480643e8f2	5	charged	1
01a1fbfb-369b-7279-a3ab-40480643e8f2	5	charged	1
\.


--
-- Data for Name: reissues; Type: TABLE DATA; Schema: books; Owner: postgres
--

COPY books.reissues (organization_id, order_id, note) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	1	forgotten
01a1fbfb-366d-77e5-b832-b50ca225df21	2	forgotten
01a1fbfb-369b-7279-a3ab-40480643e8f2	1	forgotten
01a1fbfb-366d-77e5-b832-b50ca225df21	1	first
\.


--
-- Data for Name: productions; Type: TABLE DATA; Schema: compvss; Owner: postgres
--

COPY compvss.productions (organization_id, id, project_ref, code, name, status, venue_name, timezone, starts_at, ends_at, capacity, projected_attendance, tickets_sold, sell_through, staffing_target, metadata, version, created_at, updated_at) FROM stdin;
01a1fbfb-369b-7279-a3ab-40480643e8f2	513c0ba9-1225-4166-a0d3-58dbfc8c045c	f70599f2-ed63-4ec1-8a42-53cae2ef5111	P-2026-00001	Harbour Days	planning	Pier 9	America/New_York	2026-07-04 04:00:00+00	2026-07-05 04:00:00+00	5000	5000	0	\N	\N	{}	1	2026-11-21 02:41:47.334657+00	2026-11-21 02:41:47.334657+00
01a1fbfb-366d-77e5-b832-b50ca225df21	d0493f64-10b4-484f-b77f-a8d6b4593976	eefa061a-090e-4c73-aa42-3be01443be45	P-2026-00001	Summer Night	advancing	Tempodrom	Europe/Berlin	2026-07-31 22:00:00+00	2026-08-01 22:00:00+00	2800	3000	0	\N	\N	{"lineup": ["A", "B"]}	2	2026-11-21 02:41:47.334657+00	2026-11-21 02:41:47.366737+00
\.


--
-- Data for Name: events; Type: TABLE DATA; Schema: gvteway; Owner: postgres
--

COPY gvteway.events (organization_id, id, production_ref, venue_id, venue_name, slug, title, status, timezone, starts_at, ends_at, doors_at, curfew_at, capacity, lineup, metadata, version, created_at, updated_at) FROM stdin;
01a1fbfb-369b-7279-a3ab-40480643e8f2	f902e627-8858-423d-9291-01d005f3c73a	513c0ba9-1225-4166-a0d3-58dbfc8c045c	\N	Pier 9	harbour-days-58dbfc8c045c	Harbour Days	draft	America/New_York	2026-07-04 04:00:00+00	2026-07-05 04:00:00+00	\N	\N	5000	[]	{}	1	2026-11-21 02:41:47.359807+00	2026-11-21 02:41:47.359807+00
01a1fbfb-366d-77e5-b832-b50ca225df21	aeba35fc-360a-45a4-bf50-eb21137e58ef	d0493f64-10b4-484f-b77f-a8d6b4593976	\N	Tempodrom	summer-night-a8d6b4593976	Summer Night	draft	Europe/Berlin	2026-07-31 22:00:00+00	2026-08-01 22:00:00+00	\N	\N	2800	["A", "B"]	{}	2	2026-11-21 02:41:47.359807+00	2026-11-21 02:41:47.369691+00
\.


--
-- Data for Name: venues; Type: TABLE DATA; Schema: gvteway; Owner: postgres
--

COPY gvteway.venues (organization_id, id, name, address, timezone, max_capacity, status, metadata, version, created_at, updated_at) FROM stdin;
\.


--
-- Data for Name: orders; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.orders (organization_id, id, customer, total, status) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	1	Ada	120.00	paid
01a1fbfb-369b-7279-a3ab-40480643e8f2	1	Linus	5.00	paid
01a1fbfb-366d-77e5-b832-b50ca225df21	3	Alan	-5.00	paid
01a1fbfb-369b-7279-a3ab-40480643e8f2	4	Ken	10.00	charged
01a1fbfb-366d-77e5-b832-b50ca225df21	4	Barbara	5001.00	charged
01a1fbfb-366d-77e5-b832-b50ca225df21	2	Grace	80.50	thanked
01a1fbfb-366d-77e5-b832-b50ca225df21	5	Edsger	55.00	paid
01a1fbfb-369b-7279-a3ab-40480643e8f2	5	Donald	68.00	charged
\.


--
-- Data for Name: dead_letters; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old, attempts, last_attempted_at, error_message, sqlstate, source_system, target_system, died_at) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37d0-719c-962b-c67113682d3d	28	8187674630756769616	2026-11-21 02:41:47.471357+00	\N	9	1	3	0	I	\N	{"id": 3, "total": -5.00, "status": "paid", "customer": "Alan"}	\N	1	2026-11-21 02:41:47.475624+00	check "the amount is not negative" failed (23514)	23514	\N	\N	2026-11-21 02:41:47.473265+00
\.


--
-- Data for Name: flow_versions; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.flow_versions (flow_id, version, name, source_system, target_system, definition, compiled, run_as, created_at, created_by) FROM stdin;
1	1	live_events.create_project_from_won_deal	atlvs	atlvs	{"if": "new.status = 'won' AND old.status IS DISTINCT FROM 'won'", "to": "atlvs", "set": {"code": "COALESCE(p.code, CASE WHEN (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) THEN atlvs.project_code(job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC')::integer, row_number() OVER (PARTITION BY job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC'), p.id IS NULL AND (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) IS TRUE ORDER BY new.id, job.id), count(*) OVER (PARTITION BY job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC'), p.id IS NULL AND (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) IS TRUE), first_value(new.id) OVER (PARTITION BY job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC'), p.id IS NULL AND (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) IS TRUE ORDER BY new.id, job.id)) ELSE '' END)", "name": "btrim(new.title)", "deal_id": "new.id", "ends_on": "new.event_date", "currency": "new.currency", "metadata": "new.metadata", "starts_on": "new.event_date", "budget_total": "new.value"}, "from": "atlvs", "join": {"p": {"on": "p.deal_id = new.id", "table": "atlvs.projects"}}, "link": {"kind": "deal", "left": "new.id", "right": "id"}, "mode": "transactional", "then": {"key": ["deal_id"], "insert": "atlvs.projects", "on_conflict": "keep"}, "when": {"on": ["insert", "update"], "change": "atlvs.deals"}, "check": {"the deal has a title": "name IS NOT NULL AND name <> ''", "the deal has an event date": "starts_on IS NOT NULL AND isfinite(starts_on)", "the deal has a value of at least 0": "budget_total IS NOT NULL AND budget_total BETWEEN 0 AND 999999999999.99"}, "run_as": "usher_live_events", "description": "W1: a deal that becomes won becomes a project, once, in the same transaction. Winning it again changes nothing and takes no new code.", "trigger_name": "auto_create_project_on_deal_won"}	{"new": ["currency", "event_date", "id", "metadata", "status", "title", "value", "won_at"], "old": ["status"], "simple": true, "source": "atlvs.deals", "target": "atlvs.projects", "organization": "new.organization_id", "row_determines_key": true}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
2	1	live_events.log_deal_status_change	atlvs	atlvs	{"if": "new.status IS DISTINCT FROM old.status", "to": "atlvs", "set": {"deal_id": "new.id", "changed_at": "job.created_at", "new_status": "new.status", "old_status": "old.status"}, "from": "atlvs", "mode": "transactional", "then": {"insert": "atlvs.deal_status_changes"}, "when": {"on": ["insert", "update"], "change": "atlvs.deals"}, "run_as": "usher_live_events", "description": "The trail of a deal's status: one row for the status it is entered with and one for every change.", "trigger_name": "log_deal_status_change"}	{"new": ["id", "status"], "old": ["status"], "simple": true, "source": "atlvs.deals", "target": "atlvs.deal_status_changes", "organization": "new.organization_id", "row_determines_key": false}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
3	1	live_events.create_production_from_project	atlvs	compvss	{"if": "new.deal_id IS NOT NULL", "to": "compvss", "set": {"code": "new.code", "name": "new.name", "status": "CASE WHEN q.phase = 'cancelled' THEN 'cancelled' ELSE 'planning' END", "ends_at": "(new.ends_on + 1)::timestamp AT TIME ZONE COALESCE(d.venue_timezone, 'UTC')", "capacity": "d.expected_attendance", "metadata": "new.metadata", "timezone": "COALESCE(d.venue_timezone, 'UTC')", "starts_at": "new.starts_on::timestamp AT TIME ZONE COALESCE(d.venue_timezone, 'UTC')", "venue_name": "d.venue_name", "project_ref": "q.id", "projected_attendance": "d.expected_attendance"}, "from": "atlvs", "join": {"d": {"on": "d.id = new.deal_id", "table": "atlvs.deals"}, "q": {"on": "q.id = new.id", "table": "atlvs.projects"}}, "link": {"kind": "project", "left": "new.id", "right": "id"}, "mode": "realtime", "then": {"key": ["project_ref"], "insert": "compvss.productions", "on_conflict": "keep"}, "when": {"on": ["insert"], "change": "atlvs.projects"}, "check": {"the project still exists": "project_ref IS NOT NULL", "the deal's expected attendance is not negative": "capacity IS NULL OR capacity >= 0"}, "run_as": "usher_live_events", "description": "W1, second half: the project of a deal becomes a production. Venue, zone and attendance come from the deal, the day in the zone of the venue. A project that was cancelled meanwhile becomes a cancelled production."}	{"new": ["code", "deal_id", "ends_on", "id", "metadata", "name", "starts_on"], "old": [], "simple": true, "source": "atlvs.projects", "target": "compvss.productions", "organization": "new.organization_id", "row_determines_key": false}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
4	1	live_events.request_event_for_production	compvss	gvteway	{"if": "new.status <> 'cancelled'", "to": "gvteway", "set": {"payload": "jsonb_build_object('action', 'create_event', 'production_id', new.id)", "unique_key": "'create_event:' || new.id::text", "organization": "job.organization_id::text", "source_system": "'compvss'", "target_system": "'gvteway'"}, "from": "compvss", "mode": "realtime", "then": {"call": "usher.enqueue_sync_job", "effect": "sql"}, "when": {"on": ["insert"], "change": "compvss.productions"}, "run_as": "usher_live_events", "description": "W25, automatic: a new production asks for its event by the same create_event request that anyone with the right may send."}	{"new": ["id", "status"], "old": [], "simple": true, "source": "compvss.productions", "target": null, "organization": "new.organization_id", "row_determines_key": false}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
5	1	live_events.create_event	compvss	gvteway	{"to": "gvteway", "set": {"slug": "gvteway.event_slug(p.name, p.id)", "title": "p.name", "lineup": "CASE WHEN jsonb_typeof(p.metadata->'lineup') = 'array' THEN p.metadata->'lineup' ELSE '[]'::jsonb END", "status": "CASE WHEN p.status = 'cancelled' THEN 'cancelled' ELSE 'draft' END", "ends_at": "p.ends_at", "capacity": "p.capacity", "timezone": "p.timezone", "starts_at": "p.starts_at", "venue_name": "p.venue_name", "production_ref": "p.id"}, "from": "compvss", "join": {"p": {"on": "p.id = (job.payload->>'production_id')::uuid", "table": "compvss.productions"}}, "link": {"kind": "event", "left": "p.id", "right": "id"}, "mode": "realtime", "then": {"key": ["production_ref"], "insert": "gvteway.events", "on_conflict": "keep"}, "when": {"request": "create_event"}, "check": {"the production exists": "production_ref IS NOT NULL"}, "run_as": "usher_live_events", "description": "W25: the request create_event makes the event of a production, once. A second request changes nothing."}	{"new": [], "old": [], "simple": true, "source": null, "target": "gvteway.events", "organization": null, "row_determines_key": false}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
6	1	live_events.update_event_from_production	compvss	gvteway	{"if": "new.name IS DISTINCT FROM old.name OR new.venue_name IS DISTINCT FROM old.venue_name OR new.timezone IS DISTINCT FROM old.timezone OR new.starts_at IS DISTINCT FROM old.starts_at OR new.ends_at IS DISTINCT FROM old.ends_at OR new.capacity IS DISTINCT FROM old.capacity OR new.metadata IS DISTINCT FROM old.metadata", "to": "gvteway", "set": {"title": "new.name", "lineup": "CASE WHEN jsonb_typeof(new.metadata->'lineup') = 'array' THEN new.metadata->'lineup' ELSE '[]'::jsonb END", "ends_at": "new.ends_at", "capacity": "new.capacity", "timezone": "new.timezone", "starts_at": "new.starts_at", "venue_name": "new.venue_name", "production_ref": "new.id"}, "from": "compvss", "mode": "realtime", "then": {"key": ["production_ref"], "update": "gvteway.events"}, "when": {"on": ["update"], "change": "compvss.productions"}, "run_as": "usher_live_events", "description": "W25, later: name, venue, zone, times, capacity and lineup of a production are carried to its event. Without an event nothing happens."}	{"new": ["capacity", "ends_at", "id", "metadata", "name", "starts_at", "timezone", "venue_name"], "old": ["capacity", "ends_at", "metadata", "name", "starts_at", "timezone", "venue_name"], "simple": false, "source": "compvss.productions", "target": "gvteway.events", "organization": "new.organization_id", "row_determines_key": true}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
7	1	live_events.update_project_phase_from_production	compvss	atlvs	{"if": "new.status IS DISTINCT FROM old.status AND new.project_ref IS NOT NULL", "to": "atlvs", "set": {"id": "new.project_ref", "phase": "CASE WHEN p.phase = 'closed' THEN p.phase WHEN new.status = 'planning' THEN 'intake' WHEN new.status = 'advancing' THEN 'preproduction' WHEN new.status IN ('load_in', 'show') THEN 'in_production' WHEN new.status IN ('load_out', 'wrapped') THEN 'post' WHEN new.status = 'cancelled' THEN 'cancelled' ELSE p.phase END"}, "from": "compvss", "join": {"p": {"on": "p.id = new.project_ref", "table": "atlvs.projects"}}, "mode": "realtime", "then": {"key": ["id"], "update": "atlvs.projects"}, "when": {"on": ["update"], "change": "compvss.productions"}, "run_as": "usher_live_events", "description": "W9: the phase of a project follows the status of its production. A closed project stays closed."}	{"new": ["project_ref", "status"], "old": ["status"], "simple": true, "source": "compvss.productions", "target": "atlvs.projects", "organization": "new.organization_id", "row_determines_key": false}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
8	1	live_events.cancel_production_from_project	atlvs	compvss	{"if": "new.phase = 'cancelled' AND old.phase IS DISTINCT FROM 'cancelled'", "to": "compvss", "set": {"status": "'cancelled'", "project_ref": "new.id"}, "from": "atlvs", "mode": "realtime", "then": {"key": ["project_ref"], "update": "compvss.productions"}, "when": {"on": ["update"], "change": "atlvs.projects"}, "run_as": "usher_live_events", "description": "W9, the other way: a cancelled project cancels its production. Nothing else goes from the phase to the status."}	{"new": ["id", "phase"], "old": ["phase"], "simple": true, "source": "atlvs.projects", "target": "compvss.productions", "organization": "new.organization_id", "row_determines_key": true}	usher_live_events	2026-11-21 02:41:47.16976+00	role:postgres
9	1	invoice_from_order	shop	books	{"if": "new.status = 'paid' AND old.status IS DISTINCT FROM 'paid'", "to": "books", "set": {"amount": "new.total", "customer": "new.customer", "order_id": "new.id"}, "from": "shop", "link": {"kind": "order", "left": "new.id", "right": "id"}, "then": {"key": ["order_id"], "insert": "books.invoices", "on_conflict": "keep"}, "when": {"on": ["insert", "update"], "change": "public.orders"}, "check": {"the amount is not negative": "amount >= 0"}, "retry": {"delays": []}, "run_as": "upgrade_books"}	{"new": ["customer", "id", "status", "total"], "old": ["status"], "simple": true, "source": "public.orders", "target": "books.invoices", "organization": "new.organization_id", "row_determines_key": true}	upgrade_books	2026-11-21 02:41:47.397623+00	role:postgres
10	1	charge_order	shop	books	{"if": "new.status = 'charged'", "to": "books", "set": {"most": "l.most", "amount": "new.total", "order_id": "new.id"}, "from": "shop", "join": {"l": {"on": "true", "table": "books.limits"}}, "then": {"key": ["order_id"], "upsert": "books.charges"}, "when": {"on": ["insert", "update"], "change": "public.orders"}, "check": {"the limit allows it": "amount <= most"}, "retry": {"delays": [3600, 3600]}, "run_as": "upgrade_books", "priority": "high"}	{"new": ["id", "status", "total"], "old": [], "simple": true, "source": "public.orders", "target": "books.charges", "organization": "new.organization_id", "row_determines_key": true}	upgrade_books	2026-11-21 02:41:47.407854+00	role:postgres
11	1	log_order	shop	books	{"to": "books", "set": {"status": "new.status", "version": "1", "order_id": "new.id"}, "from": "shop", "mode": "transactional", "then": {"insert": "books.order_log"}, "when": {"on": ["insert", "update"], "change": "public.orders"}, "run_as": "upgrade_books"}	{"new": ["id", "status"], "old": [], "simple": true, "source": "public.orders", "target": "books.order_log", "organization": "new.organization_id", "row_determines_key": false}	upgrade_books	2026-11-21 02:41:47.415811+00	role:postgres
12	1	reissue_invoice	shop	books	{"to": "books", "set": {"note": "'first'", "order_id": "(job.payload->>'order_id')::integer"}, "from": "shop", "mode": "async", "then": {"insert": "books.reissues"}, "when": {"request": "reissue_invoice"}, "run_as": "upgrade_books"}	{"new": [], "old": [], "simple": true, "source": null, "target": "books.reissues", "organization": null, "row_determines_key": false}	upgrade_books	2026-11-21 02:41:47.422375+00	role:postgres
13	1	archive_order	shop	archive	{"to": "archive", "set": {"status": "old.status", "order_id": "old.id"}, "from": "shop", "then": {"insert": "books.archive"}, "when": {"on": ["delete"], "change": "public.orders"}, "run_as": "upgrade_books"}	{"new": [], "old": ["id", "status"], "simple": true, "source": "public.orders", "target": "books.archive", "organization": "new.organization_id", "row_determines_key": false}	upgrade_books	2026-11-21 02:41:47.425048+00	role:postgres
14	1	write_letter	shop	letters	{"if": "new.status = 'thanked'", "to": "letters", "set": {"customer": "new.customer", "order_id": "new.id"}, "from": "shop", "then": {"insert": "books.letters"}, "when": {"on": ["update"], "change": "public.orders"}, "run_as": "upgrade_books"}	{"new": ["customer", "id", "status"], "old": [], "simple": true, "source": "public.orders", "target": "books.letters", "organization": "new.organization_id", "row_determines_key": false}	upgrade_books	2026-11-21 02:41:47.430907+00	role:postgres
15	1	forgotten	shop	nowhere	{"to": "nowhere", "set": {"note": "'forgotten'", "order_id": "new.id"}, "from": "shop", "then": {"insert": "books.reissues"}, "when": {"on": ["insert"], "change": "public.orders"}, "run_as": "upgrade_books"}	{"new": ["id"], "old": [], "simple": true, "source": "public.orders", "target": "books.reissues", "organization": "new.organization_id", "row_determines_key": false}	upgrade_books	2026-11-21 02:41:47.436094+00	role:postgres
12	2	reissue_invoice	shop	books	{"to": "books", "set": {"note": "'second'", "order_id": "(job.payload->>'order_id')::integer"}, "from": "shop", "mode": "async", "then": {"insert": "books.reissues"}, "when": {"request": "reissue_invoice"}, "run_as": "upgrade_books"}	{"new": [], "old": [], "simple": true, "source": null, "target": "books.reissues", "organization": null, "row_determines_key": false}	upgrade_books	2026-11-21 02:41:47.506131+00	role:postgres
\.


--
-- Data for Name: flows; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.flows (name, pack, definition, version, enabled, state, reason, run_as, created_at, updated_at, id) FROM stdin;
live_events.create_project_from_won_deal	live_events	{"if": "new.status = 'won' AND old.status IS DISTINCT FROM 'won'", "to": "atlvs", "set": {"code": "COALESCE(p.code, CASE WHEN (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) THEN atlvs.project_code(job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC')::integer, row_number() OVER (PARTITION BY job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC'), p.id IS NULL AND (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) IS TRUE ORDER BY new.id, job.id), count(*) OVER (PARTITION BY job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC'), p.id IS NULL AND (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) IS TRUE), first_value(new.id) OVER (PARTITION BY job.organization_id, EXTRACT(year FROM COALESCE(new.won_at, job.created_at) AT TIME ZONE 'UTC'), p.id IS NULL AND (btrim(new.title) <> '' AND new.value BETWEEN 0 AND 999999999999.99 AND isfinite(new.event_date)) IS TRUE ORDER BY new.id, job.id)) ELSE '' END)", "name": "btrim(new.title)", "deal_id": "new.id", "ends_on": "new.event_date", "currency": "new.currency", "metadata": "new.metadata", "starts_on": "new.event_date", "budget_total": "new.value"}, "from": "atlvs", "join": {"p": {"on": "p.deal_id = new.id", "table": "atlvs.projects"}}, "link": {"kind": "deal", "left": "new.id", "right": "id"}, "mode": "transactional", "then": {"key": ["deal_id"], "insert": "atlvs.projects", "on_conflict": "keep"}, "when": {"on": ["insert", "update"], "change": "atlvs.deals"}, "check": {"the deal has a title": "name IS NOT NULL AND name <> ''", "the deal has an event date": "starts_on IS NOT NULL AND isfinite(starts_on)", "the deal has a value of at least 0": "budget_total IS NOT NULL AND budget_total BETWEEN 0 AND 999999999999.99"}, "run_as": "usher_live_events", "description": "W1: a deal that becomes won becomes a project, once, in the same transaction. Winning it again changes nothing and takes no new code.", "trigger_name": "auto_create_project_on_deal_won"}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	1
live_events.log_deal_status_change	live_events	{"if": "new.status IS DISTINCT FROM old.status", "to": "atlvs", "set": {"deal_id": "new.id", "changed_at": "job.created_at", "new_status": "new.status", "old_status": "old.status"}, "from": "atlvs", "mode": "transactional", "then": {"insert": "atlvs.deal_status_changes"}, "when": {"on": ["insert", "update"], "change": "atlvs.deals"}, "run_as": "usher_live_events", "description": "The trail of a deal's status: one row for the status it is entered with and one for every change.", "trigger_name": "log_deal_status_change"}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	2
live_events.create_production_from_project	live_events	{"if": "new.deal_id IS NOT NULL", "to": "compvss", "set": {"code": "new.code", "name": "new.name", "status": "CASE WHEN q.phase = 'cancelled' THEN 'cancelled' ELSE 'planning' END", "ends_at": "(new.ends_on + 1)::timestamp AT TIME ZONE COALESCE(d.venue_timezone, 'UTC')", "capacity": "d.expected_attendance", "metadata": "new.metadata", "timezone": "COALESCE(d.venue_timezone, 'UTC')", "starts_at": "new.starts_on::timestamp AT TIME ZONE COALESCE(d.venue_timezone, 'UTC')", "venue_name": "d.venue_name", "project_ref": "q.id", "projected_attendance": "d.expected_attendance"}, "from": "atlvs", "join": {"d": {"on": "d.id = new.deal_id", "table": "atlvs.deals"}, "q": {"on": "q.id = new.id", "table": "atlvs.projects"}}, "link": {"kind": "project", "left": "new.id", "right": "id"}, "mode": "realtime", "then": {"key": ["project_ref"], "insert": "compvss.productions", "on_conflict": "keep"}, "when": {"on": ["insert"], "change": "atlvs.projects"}, "check": {"the project still exists": "project_ref IS NOT NULL", "the deal's expected attendance is not negative": "capacity IS NULL OR capacity >= 0"}, "run_as": "usher_live_events", "description": "W1, second half: the project of a deal becomes a production. Venue, zone and attendance come from the deal, the day in the zone of the venue. A project that was cancelled meanwhile becomes a cancelled production."}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	3
live_events.request_event_for_production	live_events	{"if": "new.status <> 'cancelled'", "to": "gvteway", "set": {"payload": "jsonb_build_object('action', 'create_event', 'production_id', new.id)", "unique_key": "'create_event:' || new.id::text", "organization": "job.organization_id::text", "source_system": "'compvss'", "target_system": "'gvteway'"}, "from": "compvss", "mode": "realtime", "then": {"call": "usher.enqueue_sync_job", "effect": "sql"}, "when": {"on": ["insert"], "change": "compvss.productions"}, "run_as": "usher_live_events", "description": "W25, automatic: a new production asks for its event by the same create_event request that anyone with the right may send."}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	4
live_events.create_event	live_events	{"to": "gvteway", "set": {"slug": "gvteway.event_slug(p.name, p.id)", "title": "p.name", "lineup": "CASE WHEN jsonb_typeof(p.metadata->'lineup') = 'array' THEN p.metadata->'lineup' ELSE '[]'::jsonb END", "status": "CASE WHEN p.status = 'cancelled' THEN 'cancelled' ELSE 'draft' END", "ends_at": "p.ends_at", "capacity": "p.capacity", "timezone": "p.timezone", "starts_at": "p.starts_at", "venue_name": "p.venue_name", "production_ref": "p.id"}, "from": "compvss", "join": {"p": {"on": "p.id = (job.payload->>'production_id')::uuid", "table": "compvss.productions"}}, "link": {"kind": "event", "left": "p.id", "right": "id"}, "mode": "realtime", "then": {"key": ["production_ref"], "insert": "gvteway.events", "on_conflict": "keep"}, "when": {"request": "create_event"}, "check": {"the production exists": "production_ref IS NOT NULL"}, "run_as": "usher_live_events", "description": "W25: the request create_event makes the event of a production, once. A second request changes nothing."}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	5
live_events.update_event_from_production	live_events	{"if": "new.name IS DISTINCT FROM old.name OR new.venue_name IS DISTINCT FROM old.venue_name OR new.timezone IS DISTINCT FROM old.timezone OR new.starts_at IS DISTINCT FROM old.starts_at OR new.ends_at IS DISTINCT FROM old.ends_at OR new.capacity IS DISTINCT FROM old.capacity OR new.metadata IS DISTINCT FROM old.metadata", "to": "gvteway", "set": {"title": "new.name", "lineup": "CASE WHEN jsonb_typeof(new.metadata->'lineup') = 'array' THEN new.metadata->'lineup' ELSE '[]'::jsonb END", "ends_at": "new.ends_at", "capacity": "new.capacity", "timezone": "new.timezone", "starts_at": "new.starts_at", "venue_name": "new.venue_name", "production_ref": "new.id"}, "from": "compvss", "mode": "realtime", "then": {"key": ["production_ref"], "update": "gvteway.events"}, "when": {"on": ["update"], "change": "compvss.productions"}, "run_as": "usher_live_events", "description": "W25, later: name, venue, zone, times, capacity and lineup of a production are carried to its event. Without an event nothing happens."}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	6
live_events.update_project_phase_from_production	live_events	{"if": "new.status IS DISTINCT FROM old.status AND new.project_ref IS NOT NULL", "to": "atlvs", "set": {"id": "new.project_ref", "phase": "CASE WHEN p.phase = 'closed' THEN p.phase WHEN new.status = 'planning' THEN 'intake' WHEN new.status = 'advancing' THEN 'preproduction' WHEN new.status IN ('load_in', 'show') THEN 'in_production' WHEN new.status IN ('load_out', 'wrapped') THEN 'post' WHEN new.status = 'cancelled' THEN 'cancelled' ELSE p.phase END"}, "from": "compvss", "join": {"p": {"on": "p.id = new.project_ref", "table": "atlvs.projects"}}, "mode": "realtime", "then": {"key": ["id"], "update": "atlvs.projects"}, "when": {"on": ["update"], "change": "compvss.productions"}, "run_as": "usher_live_events", "description": "W9: the phase of a project follows the status of its production. A closed project stays closed."}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	7
live_events.cancel_production_from_project	live_events	{"if": "new.phase = 'cancelled' AND old.phase IS DISTINCT FROM 'cancelled'", "to": "compvss", "set": {"status": "'cancelled'", "project_ref": "new.id"}, "from": "atlvs", "mode": "realtime", "then": {"key": ["project_ref"], "update": "compvss.productions"}, "when": {"on": ["update"], "change": "atlvs.projects"}, "run_as": "usher_live_events", "description": "W9, the other way: a cancelled project cancels its production. Nothing else goes from the phase to the status."}	1	t	ok	\N	usher_live_events	2026-11-21 02:41:47.16976+00	2026-11-21 02:41:47.16976+00	8
invoice_from_order	\N	{"if": "new.status = 'paid' AND old.status IS DISTINCT FROM 'paid'", "to": "books", "set": {"amount": "new.total", "customer": "new.customer", "order_id": "new.id"}, "from": "shop", "link": {"kind": "order", "left": "new.id", "right": "id"}, "then": {"key": ["order_id"], "insert": "books.invoices", "on_conflict": "keep"}, "when": {"on": ["insert", "update"], "change": "public.orders"}, "check": {"the amount is not negative": "amount >= 0"}, "retry": {"delays": []}, "run_as": "upgrade_books"}	1	t	ok	\N	upgrade_books	2026-11-21 02:41:47.397623+00	2026-11-21 02:41:47.397623+00	9
charge_order	\N	{"if": "new.status = 'charged'", "to": "books", "set": {"most": "l.most", "amount": "new.total", "order_id": "new.id"}, "from": "shop", "join": {"l": {"on": "true", "table": "books.limits"}}, "then": {"key": ["order_id"], "upsert": "books.charges"}, "when": {"on": ["insert", "update"], "change": "public.orders"}, "check": {"the limit allows it": "amount <= most"}, "retry": {"delays": [3600, 3600]}, "run_as": "upgrade_books", "priority": "high"}	1	t	ok	\N	upgrade_books	2026-11-21 02:41:47.407854+00	2026-11-21 02:41:47.407854+00	10
log_order	\N	{"to": "books", "set": {"status": "new.status", "version": "1", "order_id": "new.id"}, "from": "shop", "mode": "transactional", "then": {"insert": "books.order_log"}, "when": {"on": ["insert", "update"], "change": "public.orders"}, "run_as": "upgrade_books"}	1	t	ok	\N	upgrade_books	2026-11-21 02:41:47.415811+00	2026-11-21 02:41:47.415811+00	11
write_letter	\N	{"if": "new.status = 'thanked'", "to": "letters", "set": {"customer": "new.customer", "order_id": "new.id"}, "from": "shop", "then": {"insert": "books.letters"}, "when": {"on": ["update"], "change": "public.orders"}, "run_as": "upgrade_books"}	1	f	ok	\N	upgrade_books	2026-11-21 02:41:47.430907+00	2026-11-21 02:41:47.495779+00	14
archive_order	\N	{"to": "archive", "set": {"status": "old.status", "order_id": "old.id"}, "from": "shop", "then": {"insert": "books.archive"}, "when": {"on": ["delete"], "change": "public.orders"}, "run_as": "upgrade_books"}	1	t	broken	column "status" in "set" does not exist in books.archive	upgrade_books	2026-11-21 02:41:47.425048+00	2026-11-21 02:41:47.499403+00	13
reissue_invoice	\N	{"to": "books", "set": {"note": "'second'", "order_id": "(job.payload->>'order_id')::integer"}, "from": "shop", "mode": "async", "then": {"insert": "books.reissues"}, "when": {"request": "reissue_invoice"}, "run_as": "upgrade_books"}	2	t	ok	\N	upgrade_books	2026-11-21 02:41:47.422375+00	2026-11-21 02:41:47.506131+00	12
\.


--
-- Data for Name: installation; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.installation (singleton, schema_level, database, set_up_at) FROM stdin;
t	1	4000000010	2026-11-21 02:41:46.992876+00
\.


--
-- Data for Name: job_history_20261121; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.job_history_20261121 (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old, error_message, source_system, target_system) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3730-728e-835e-cf798053188a	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00	\N	2	1	1	3	0	I	f	{"id": "bd502cdb-b525-40fe-8f36-7cffc704d863", "status": "proposal"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3730-728e-835e-cf7abe91d649	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00	\N	2	1	1	3	0	I	f	{"id": "ca78785e-d86c-4a22-bfee-727e20a08fbb", "status": "proposal"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3730-728e-835e-cf7b0f9df2ec	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00	\N	2	1	1	3	0	I	f	{"id": "06acf745-4ca6-47b5-8497-822773601657", "status": "inquiry"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3730-728e-835e-cf7cd10eb2d4	2026-11-21 02:41:47.304401+00	2026-11-21 02:41:47.304401+00	\N	2	1	1	3	0	I	f	{"id": "232685a7-844d-40f9-9441-0a7f5b2de965", "status": "proposal"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3737-7642-acdb-6f26a4bd92e6	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00	\N	1	1	1	3	0	U	f	{"id": "bd502cdb-b525-40fe-8f36-7cffc704d863", "title": "Summer Night", "value": 48000.00, "status": "won", "won_at": "2026-11-21T02:41:47.316482+00:00", "currency": "USD", "metadata": "{\\"lineup\\": [\\"A\\", \\"B\\"]}", "event_date": "2026-08-01"}	{"status": "proposal"}	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3737-7642-acdb-6f275a2d77c8	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00	\N	1	1	1	3	0	U	f	{"id": "232685a7-844d-40f9-9441-0a7f5b2de965", "title": "Harbour Days", "value": 30000.50, "status": "won", "won_at": "2026-11-21T02:41:47.316482+00:00", "currency": "USD", "metadata": "{}", "event_date": "2026-07-04"}	{"status": "proposal"}	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3745-7628-8276-00e53481089f	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00	\N	2	1	1	3	0	U	f	{"id": "bd502cdb-b525-40fe-8f36-7cffc704d863", "status": "won"}	{"status": "proposal"}	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3745-7628-8276-00e6de124d5d	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00	\N	2	1	1	3	0	U	f	{"id": "232685a7-844d-40f9-9441-0a7f5b2de965", "status": "won"}	{"status": "proposal"}	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3740-7303-b66c-1aa1d9e9e81f	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.334657+00	\N	3	1	1	3	1	I	f	{"id": "eefa061a-090e-4c73-aa42-3be01443be45", "code": "P-2026-00001", "name": "Summer Night", "deal_id": "bd502cdb-b525-40fe-8f36-7cffc704d863", "ends_on": "2026-08-01", "metadata": "{\\"lineup\\": [\\"A\\", \\"B\\"]}", "starts_on": "2026-08-01"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3741-7525-ba59-6d4161bc9b63	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.334657+00	\N	3	1	1	3	1	I	f	{"id": "f70599f2-ed63-4ec1-8a42-53cae2ef5111", "code": "P-2026-00001", "name": "Harbour Days", "deal_id": "232685a7-844d-40f9-9441-0a7f5b2de965", "ends_on": "2026-07-04", "metadata": "{}", "starts_on": "2026-07-04"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3752-7619-826c-d5a75c0ed9e9	2026-11-21 02:41:47.334657+00	2026-11-21 02:41:47.351309+00	01a1fbfb-3740-7303-b66c-1aa1d9e9e81f	4	1	1	3	2	I	f	{"id": "d0493f64-10b4-484f-b77f-a8d6b4593976", "status": "planning"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3752-7619-826c-d5a8abe5780a	2026-11-21 02:41:47.334657+00	2026-11-21 02:41:47.351309+00	01a1fbfb-3741-7525-ba59-6d4161bc9b63	4	1	1	3	2	I	f	{"id": "513c0ba9-1225-4166-a0d3-58dbfc8c045c", "status": "planning"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-375b-737c-ade9-6da5669fa9bd	2026-11-21 02:41:47.351309+00	2026-11-21 02:41:47.359807+00	01a1fbfb-3752-7619-826c-d5a75c0ed9e9	5	1	1	3	3	R	f	{"action": "create_event", "production_id": "d0493f64-10b4-484f-b77f-a8d6b4593976"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-375e-75c9-90b5-7c6c982eb421	2026-11-21 02:41:47.351309+00	2026-11-21 02:41:47.359807+00	01a1fbfb-3752-7619-826c-d5a8abe5780a	5	1	1	3	3	R	f	{"action": "create_event", "production_id": "513c0ba9-1225-4166-a0d3-58dbfc8c045c"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3769-725f-8b90-10c05d2f4fa1	2026-11-21 02:41:47.366737+00	2026-11-21 02:41:47.369691+00	\N	6	1	1	3	0	U	f	{"id": "d0493f64-10b4-484f-b77f-a8d6b4593976", "name": "Summer Night", "ends_at": "2026-08-01T22:00:00+00:00", "capacity": 2800, "metadata": "{\\"lineup\\": [\\"A\\", \\"B\\"]}", "timezone": "Europe/Berlin", "starts_at": "2026-07-31T22:00:00+00:00", "venue_name": "Tempodrom"}	{"name": "Summer Night", "ends_at": "2026-08-01T22:00:00+00:00", "capacity": 3000, "metadata": "{\\"lineup\\": [\\"A\\", \\"B\\"]}", "timezone": "Europe/Berlin", "starts_at": "2026-07-31T22:00:00+00:00", "venue_name": "Tempodrom"}	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3769-725f-8b90-10c12de66342	2026-11-21 02:41:47.366737+00	2026-11-21 02:41:47.369691+00	\N	7	1	1	3	0	U	f	{"status": "advancing", "project_ref": "eefa061a-090e-4c73-aa42-3be01443be45"}	{"status": "planning"}	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37b5-72cd-acde-5ba0f84ed867	2026-11-21 02:41:47.441019+00	2026-11-21 02:41:47.441019+00	\N	11	1	1	3	0	I	f	{"id": 1, "status": "open"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37b5-72cd-acde-5ba1611bac0d	2026-11-21 02:41:47.441019+00	2026-11-21 02:41:47.441019+00	\N	11	1	1	3	0	I	f	{"id": 2, "status": "open"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37b5-72cd-acde-5ba2c1a4fed5	2026-11-21 02:41:47.441019+00	2026-11-21 02:41:47.441019+00	\N	11	1	1	3	0	I	f	{"id": 1, "status": "open"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37b4-7520-acb6-d0fca064664e	2026-11-21 02:41:47.441019+00	2026-11-21 02:41:47.447687+00	\N	15	1	1	3	0	I	f	{"id": 1}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37b4-7520-acb6-d0fd7f33e6e6	2026-11-21 02:41:47.441019+00	2026-11-21 02:41:47.447687+00	\N	15	1	1	3	0	I	f	{"id": 2}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37b4-7520-acb6-d0feeb4ad4c1	2026-11-21 02:41:47.441019+00	2026-11-21 02:41:47.447687+00	\N	15	1	1	3	0	I	f	{"id": 1}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37c3-7626-a5cc-a413a59d80e2	2026-11-21 02:41:47.455032+00	2026-11-21 02:41:47.455032+00	\N	11	1	1	3	0	U	f	{"id": 1, "status": "paid"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37c3-7626-a5cc-a414c584966e	2026-11-21 02:41:47.455032+00	2026-11-21 02:41:47.455032+00	\N	11	1	1	3	0	U	f	{"id": 1, "status": "paid"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37c2-751b-ad9b-6caf73c64be7	2026-11-21 02:41:47.455032+00	2026-11-21 02:41:47.461338+00	\N	9	1	1	3	0	U	f	{"id": 1, "total": 120.00, "status": "paid", "customer": "Ada"}	{"status": "open"}	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37c2-751b-ad9b-6cb07e018bbb	2026-11-21 02:41:47.455032+00	2026-11-21 02:41:47.461338+00	\N	9	1	1	3	0	U	f	{"id": 1, "total": 5.00, "status": "paid", "customer": "Linus"}	{"status": "open"}	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37cb-76d5-900d-2e5c514cfeb1	2026-11-21 02:41:47.466465+00	2026-11-21 02:41:47.468896+00	\N	12	1	1	4	0	R	f	{"action": "reissue_invoice", "order_id": 1}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37d0-719c-962b-c6736dbcdabd	2026-11-21 02:41:47.471357+00	2026-11-21 02:41:47.471357+00	\N	11	1	1	3	0	I	f	{"id": 3, "status": "paid"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37d0-719c-962b-c674da103156	2026-11-21 02:41:47.471357+00	2026-11-21 02:41:47.471357+00	\N	11	1	1	3	0	I	f	{"id": 3, "status": "paid"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37d0-719c-962b-c67225cfe07f	2026-11-21 02:41:47.471357+00	2026-11-21 02:41:47.476732+00	\N	9	1	1	3	0	I	t	{"id": 3, "total": -7.00, "status": "paid", "customer": "Niklaus"}	\N	check "the amount is not negative" failed (23514)	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37d9-71e5-bd91-418bac219831	2026-11-21 02:41:47.480858+00	2026-11-21 02:41:47.480858+00	\N	11	1	1	3	0	I	f	{"id": 4, "status": "charged"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37d9-71e5-bd91-418c2e3282be	2026-11-21 02:41:47.480858+00	2026-11-21 02:41:47.480858+00	\N	11	1	1	3	0	I	f	{"id": 4, "status": "charged"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37d9-71e5-bd91-418ae94f1b35	2026-11-21 02:41:47.480858+00	2026-11-21 02:41:47.481593+00	\N	10	1	1	2	0	I	f	{"id": 4, "total": 10.00, "status": "charged"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37dd-73cb-a61f-a77c1050d057	2026-11-21 02:41:47.485576+00	2026-11-21 02:41:47.485576+00	\N	11	1	1	3	0	U	f	{"id": 4, "status": "charged"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37e4-75bf-bbe7-514aeecb94b0	2026-11-21 02:41:47.492052+00	2026-11-21 02:41:47.492052+00	\N	12	1	0	4	0	R	t	{"action": "reissue_invoice", "order_id": 22}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37e7-7687-b2c9-542ea869a7bc	2026-11-21 02:41:47.495018+00	2026-11-21 02:41:47.495018+00	\N	11	1	1	3	0	U	f	{"id": 2, "status": "thanked"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37f7-75c0-926d-785025269ee5	2026-11-21 02:41:47.509616+00	2026-11-21 02:41:47.509616+00	\N	11	1	1	3	0	I	f	{"id": 5, "status": "paid"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37f7-75c0-926d-7851f3ffb55c	2026-11-21 02:41:47.509616+00	2026-11-21 02:41:47.509616+00	\N	11	1	1	3	0	I	f	{"id": 5, "status": "charged"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37f9-7278-a0bf-82182030ebff	2026-11-21 02:41:47.512208+00	2026-11-21 02:41:47.512208+00	\N	11	1	1	3	0	U	f	{"id": 5, "status": "charged"}	\N	\N	\N	\N
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37fa-743e-ab7d-4b0f19211db1	2026-11-21 02:41:47.514059+00	2026-11-21 02:41:47.514059+00	\N	11	1	1	3	0	U	f	{"id": 5, "status": "charged"}	\N	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37fc-7688-bd79-e226858b2133	2026-11-21 02:41:47.514597+00	2026-11-21 02:41:47.514597+00	\N	1	1	1	3	0	U	f	{"id": "ca78785e-d86c-4a22-bfee-727e20a08fbb", "title": "Winter Ball", "value": 12000.00, "status": "won", "won_at": "2026-11-21T02:41:47.514597+00:00", "currency": "USD", "metadata": "{}", "event_date": "2026-12-12"}	{"status": "proposal"}	\N	\N	\N
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3802-737a-b9f9-d0403f1d2071	2026-11-21 02:41:47.514597+00	2026-11-21 02:41:47.514597+00	\N	2	1	1	3	0	U	f	{"id": "ca78785e-d86c-4a22-bfee-727e20a08fbb", "status": "won"}	{"status": "proposal"}	\N	\N	\N
\.


--
-- Data for Name: job_history_20261122; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.job_history_20261122 (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old, error_message, source_system, target_system) FROM stdin;
\.


--
-- Data for Name: job_history_20261123; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.job_history_20261123 (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old, error_message, source_system, target_system) FROM stdin;
\.


--
-- Data for Name: job_history_20261124; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.job_history_20261124 (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old, error_message, source_system, target_system) FROM stdin;
\.


--
-- Data for Name: job_history_default; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.job_history_default (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old, error_message, source_system, target_system) FROM stdin;
\.


--
-- Data for Name: job_keys; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.job_keys (organization_id, unique_key, job_id, created_at) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	create_event:d0493f64-10b4-484f-b77f-a8d6b4593976	01a1fbfb-375b-737c-ade9-6da5669fa9bd	2026-11-21 02:41:47.351309+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	create_event:513c0ba9-1225-4166-a0d3-58dbfc8c045c	01a1fbfb-375e-75c9-90b5-7c6c982eb421	2026-11-21 02:41:47.351309+00
01a1fbfb-366d-77e5-b832-b50ca225df21	reissue-1	01a1fbfb-37cb-76d5-900d-2e5c514cfeb1	2026-11-21 02:41:47.466465+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	reissue-20	01a1fbfb-37e0-7730-9646-8e300289586d	2026-11-21 02:41:47.488611+00
01a1fbfb-366d-77e5-b832-b50ca225df21	reissue-30	01a1fbfb-37f1-7334-a46f-548f9c8f111b	2026-11-21 02:41:47.50478+00
\.


--
-- Data for Name: links; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.links (organization_id, id, kind, left_id, right_id, left_system, right_system, flow, status, "position", last_synced_at, error_message, metadata, created_at, updated_at) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3742-71f8-811f-db60e226f345	deal	bd502cdb-b525-40fe-8f36-7cffc704d863	eefa061a-090e-4c73-aa42-3be01443be45	atlvs	atlvs	live_events.create_project_from_won_deal	synced	5	2026-11-21 02:41:47.316482+00	\N	{}	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3743-7513-b02d-5a0f0836e9d7	deal	232685a7-844d-40f9-9441-0a7f5b2de965	f70599f2-ed63-4ec1-8a42-53cae2ef5111	atlvs	atlvs	live_events.create_project_from_won_deal	synced	6	2026-11-21 02:41:47.316482+00	\N	{}	2026-11-21 02:41:47.316482+00	2026-11-21 02:41:47.316482+00
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3754-73b5-a9a3-6ca0f80a1f23	project	eefa061a-090e-4c73-aa42-3be01443be45	d0493f64-10b4-484f-b77f-a8d6b4593976	atlvs	compvss	live_events.create_production_from_project	synced	7	2026-11-21 02:41:47.334657+00	\N	{}	2026-11-21 02:41:47.334657+00	2026-11-21 02:41:47.334657+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3754-73b5-a9a3-6ca15fc6b410	project	f70599f2-ed63-4ec1-8a42-53cae2ef5111	513c0ba9-1225-4166-a0d3-58dbfc8c045c	atlvs	compvss	live_events.create_production_from_project	synced	8	2026-11-21 02:41:47.334657+00	\N	{}	2026-11-21 02:41:47.334657+00	2026-11-21 02:41:47.334657+00
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3765-772d-b5eb-a810bfdd3757	event	d0493f64-10b4-484f-b77f-a8d6b4593976	aeba35fc-360a-45a4-bf50-eb21137e58ef	compvss	gvteway	live_events.create_event	synced	13	2026-11-21 02:41:47.359807+00	\N	{}	2026-11-21 02:41:47.359807+00	2026-11-21 02:41:47.359807+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-3765-772d-b5eb-a811b556198b	event	513c0ba9-1225-4166-a0d3-58dbfc8c045c	f902e627-8858-423d-9291-01d005f3c73a	compvss	gvteway	live_events.create_event	synced	14	2026-11-21 02:41:47.359807+00	\N	{}	2026-11-21 02:41:47.359807+00	2026-11-21 02:41:47.359807+00
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-37c9-76a6-b0ea-5b008ed34847	order	1	1	shop	books	invoice_from_order	synced	23	2026-11-21 02:41:47.461338+00	\N	{}	2026-11-21 02:41:47.461338+00	2026-11-21 02:41:47.461338+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	01a1fbfb-37c9-76a6-b0ea-5b017e8e3836	order	1	2	shop	books	invoice_from_order	synced	24	2026-11-21 02:41:47.461338+00	\N	{}	2026-11-21 02:41:47.461338+00	2026-11-21 02:41:47.461338+00
01a1fbfb-366d-77e5-b832-b50ca225df21	01a1fbfb-3801-776d-81b8-796eb9e9f328	deal	ca78785e-d86c-4a22-bfee-727e20a08fbb	005c65d9-cb43-41c2-8e9a-266e9e149263	atlvs	atlvs	live_events.create_project_from_won_deal	synced	57	2026-11-21 02:41:47.514597+00	\N	{}	2026-11-21 02:41:47.514597+00	2026-11-21 02:41:47.514597+00
\.


--
-- Data for Name: memberships; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.memberships (organization_id, user_id, role, created_at) FROM stdin;
01a1fbfb-366d-77e5-b832-b50ca225df21	ann	admin	2026-11-21 02:41:47.164823+00
01a1fbfb-366d-77e5-b832-b50ca225df21	bob	member	2026-11-21 02:41:47.164823+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	carl	admin	2026-11-21 02:41:47.164823+00
01a1fbfb-361a-7264-bf9c-536699bbc738	lea	legend	2026-11-21 02:41:47.164823+00
01a1fbfb-366d-77e5-b832-b50ca225df21	role:upgrade_books	admin	2026-11-21 02:41:47.164823+00
\.


--
-- Data for Name: organizations; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.organizations (id, slug, name, timezone, created_at) FROM stdin;
01a1fbfb-361a-7264-bf9c-536699bbc738	default	Default organization	UTC	2026-11-21 02:41:46.992876+00
01a1fbfb-366d-77e5-b832-b50ca225df21	acme	Acme Live	Europe/Berlin	2026-11-21 02:41:47.072273+00
01a1fbfb-369b-7279-a3ab-40480643e8f2	bolt	Bolt Tours	America/New_York	2026-11-21 02:41:47.11897+00
\.


--
-- Data for Name: queue; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.queue (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, fallback, trail, new, old) FROM stdin;
45	2998452674209671469	01a1fbfb-37f1-7334-a46f-548f9c8f111b	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.50478+00	\N	12	1	4	0	R	f	\N	{"action": "reissue_invoice", "order_id": 30}	\N
46	\N	01a1fbfb-37f4-75c7-964f-d68321d9851f	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.50824+00	\N	12	2	4	0	R	f	\N	{"action": "reissue_invoice", "order_id": 31}	\N
47	\N	01a1fbfb-37f4-75c7-964f-d684193bb55a	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.50824+00	\N	12	2	4	0	R	f	\N	{"action": "reissue_invoice", "order_id": 32}	\N
48	\N	01a1fbfb-37f5-742c-8028-6dbc315be069	01a1fbfb-369b-7279-a3ab-40480643e8f2	2026-11-21 02:41:47.509191+00	\N	12	2	0	0	R	f	\N	{"action": "reissue_invoice", "order_id": 33}	\N
49	6445838548209525570	01a1fbfb-37f7-75c0-926d-784e9bf70ab5	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.509616+00	\N	9	1	3	0	I	f	\N	{"id": 5, "total": 55.00, "status": "paid", "customer": "Edsger"}	\N
50	-6695632421927534589	01a1fbfb-37f7-75c0-926d-784ff7b5a098	01a1fbfb-369b-7279-a3ab-40480643e8f2	2026-11-21 02:41:47.509616+00	\N	10	1	2	0	I	f	\N	{"id": 5, "total": 66.00, "status": "charged"}	\N
53	-6695632421927534589	01a1fbfb-37f9-7278-a0bf-8217e41e9deb	01a1fbfb-369b-7279-a3ab-40480643e8f2	2026-11-21 02:41:47.512208+00	\N	10	1	2	0	U	f	\N	{"id": 5, "total": 67.00, "status": "charged"}	\N
55	-6695632421927534589	01a1fbfb-37fa-743e-ab7d-4b0e4b69bab5	01a1fbfb-369b-7279-a3ab-40480643e8f2	2026-11-21 02:41:47.514059+00	\N	10	1	2	0	U	f	\N	{"id": 5, "total": 68.00, "status": "charged"}	\N
58	2007589484475657016	01a1fbfb-3800-72d5-aa6b-fc2f84759f05	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.514597+00	01a1fbfb-37fc-7688-bd79-e226858b2133	3	1	3	1	I	f	-5119405506847258949	{"id": "005c65d9-cb43-41c2-8e9a-266e9e149263", "code": "P-2026-00002", "name": "Winter Ball", "deal_id": "ca78785e-d86c-4a22-bfee-727e20a08fbb", "ends_on": "2026-12-12", "metadata": "{}", "starts_on": "2026-12-12"}	\N
\.


--
-- Data for Name: queue_waiting; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old, attempts, waiting_for, due_at, last_attempted_at, error_message, source_system, target_system) FROM stdin;
32	-2416205450575238758	01a1fbfb-37d9-71e5-bd91-4189be3a6f0d	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.480858+00	\N	10	1	2	0	I	\N	{"id": 4, "total": 5000.00, "status": "charged"}	\N	1	retry	2026-11-21 03:35:07.301295+00	2026-11-21 02:41:47.484373+00	check "the limit allows it" failed (23514)	\N	\N
36	-2416205450575238758	01a1fbfb-37dd-73cb-a61f-a77b17d8838f	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.485576+00	\N	10	1	2	0	U	\N	{"id": 4, "total": 5001.00, "status": "charged"}	\N	0	earlier change	\N	\N	\N	\N	\N
38	6228390550390088137	01a1fbfb-37e0-7730-9646-8e300289586d	01a1fbfb-369b-7279-a3ab-40480643e8f2	2026-11-21 02:41:47.488611+00	\N	12	1	4	0	R	\N	{"action": "reissue_invoice", "order_id": 20}	\N	0	run_at	2026-11-21 02:51:47.488611+00	\N	\N	\N	\N
39	\N	01a1fbfb-37e2-737b-9bca-5381f4c1d43c	01a1fbfb-369b-7279-a3ab-40480643e8f2	2026-11-21 02:41:47.490004+00	\N	12	1	4	0	R	\N	{"action": "reissue_invoice", "order_id": 21}	\N	0	run_at	2999-01-01 00:00:00+00	\N	\N	\N	\N
40	\N	01a1fbfb-37e3-700a-80a7-e9011f1f0a0f	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.491311+00	\N	\N	\N	3	0	R	\N	{"to": "ada"}	\N	0	external worker	\N	\N	\N	shop	mailer
44	1467756960348353587	01a1fbfb-37eb-702b-911c-6da7760ba4ab	01a1fbfb-369b-7279-a3ab-40480643e8f2	2026-11-21 02:41:47.497757+00	\N	13	1	3	0	D	\N	\N	{"id": 3, "status": "paid"}	0	flow broken	\N	\N	\N	\N	\N
42	1216261697717267688	01a1fbfb-37e7-7687-b2c9-542daf085c9c	01a1fbfb-366d-77e5-b832-b50ca225df21	2026-11-21 02:41:47.495018+00	\N	14	1	3	0	U	\N	{"id": 2, "status": "thanked", "customer": "Grace"}	\N	0	flow disabled	\N	\N	\N	\N	\N
\.


--
-- Data for Name: systems; Type: TABLE DATA; Schema: usher; Owner: postgres
--

COPY usher.systems (name, kind, created_at) FROM stdin;
mailer	external	2026-11-21 02:41:47.167716+00
atlvs	local	2026-11-21 02:41:47.16976+00
compvss	local	2026-11-21 02:41:47.16976+00
gvteway	local	2026-11-21 02:41:47.16976+00
shop	local	2026-11-21 02:41:47.397623+00
books	local	2026-11-21 02:41:47.397623+00
archive	local	2026-11-21 02:41:47.425048+00
letters	local	2026-11-21 02:41:47.430907+00
nowhere	local	2026-11-21 02:41:47.436094+00
\.


--
-- Name: invoices_id_seq; Type: SEQUENCE SET; Schema: books; Owner: postgres
--

SELECT pg_catalog.setval('books.invoices_id_seq', 2, true);


--
-- Name: flows_id_seq; Type: SEQUENCE SET; Schema: usher; Owner: postgres
--

SELECT pg_catalog.setval('usher.flows_id_seq', 15, true);


--
-- Name: queue_seq; Type: SEQUENCE SET; Schema: usher; Owner: postgres
--

SELECT pg_catalog.setval('usher.queue_seq', 59, true);


--
-- Name: deal_status_changes deal_status_changes_pkey; Type: CONSTRAINT; Schema: atlvs; Owner: postgres
--

ALTER TABLE ONLY atlvs.deal_status_changes
    ADD CONSTRAINT deal_status_changes_pkey PRIMARY KEY (organization_id, id);


--
-- Name: deals deals_pkey; Type: CONSTRAINT; Schema: atlvs; Owner: postgres
--

ALTER TABLE ONLY atlvs.deals
    ADD CONSTRAINT deals_pkey PRIMARY KEY (organization_id, id);


--
-- Name: project_codes project_codes_pkey; Type: CONSTRAINT; Schema: atlvs; Owner: postgres
--

ALTER TABLE ONLY atlvs.project_codes
    ADD CONSTRAINT project_codes_pkey PRIMARY KEY (organization_id, year);


--
-- Name: projects projects_code_key; Type: CONSTRAINT; Schema: atlvs; Owner: postgres
--

ALTER TABLE ONLY atlvs.projects
    ADD CONSTRAINT projects_code_key UNIQUE (organization_id, code);


--
-- Name: projects projects_deal_key; Type: CONSTRAINT; Schema: atlvs; Owner: postgres
--

ALTER TABLE ONLY atlvs.projects
    ADD CONSTRAINT projects_deal_key UNIQUE (organization_id, deal_id);


--
-- Name: projects projects_pkey; Type: CONSTRAINT; Schema: atlvs; Owner: postgres
--

ALTER TABLE ONLY atlvs.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (organization_id, id);


--
-- Name: charges charges_pkey; Type: CONSTRAINT; Schema: books; Owner: postgres
--

ALTER TABLE ONLY books.charges
    ADD CONSTRAINT charges_pkey PRIMARY KEY (organization_id, order_id);


--
-- Name: invoices invoices_organization_id_order_id_key; Type: CONSTRAINT; Schema: books; Owner: postgres
--

ALTER TABLE ONLY books.invoices
    ADD CONSTRAINT invoices_organization_id_order_id_key UNIQUE (organization_id, order_id);


--
-- Name: invoices invoices_pkey; Type: CONSTRAINT; Schema: books; Owner: postgres
--

ALTER TABLE ONLY books.invoices
    ADD CONSTRAINT invoices_pkey PRIMARY KEY (id);


--
-- Name: limits limits_pkey; Type: CONSTRAINT; Schema: books; Owner: postgres
--

ALTER TABLE ONLY books.limits
    ADD CONSTRAINT limits_pkey PRIMARY KEY (organization_id);


--
-- Name: productions productions_pkey; Type: CONSTRAINT; Schema: compvss; Owner: postgres
--

ALTER TABLE ONLY compvss.productions
    ADD CONSTRAINT productions_pkey PRIMARY KEY (organization_id, id);


--
-- Name: productions productions_project_key; Type: CONSTRAINT; Schema: compvss; Owner: postgres
--

ALTER TABLE ONLY compvss.productions
    ADD CONSTRAINT productions_project_key UNIQUE (organization_id, project_ref);


--
-- Name: events events_pkey; Type: CONSTRAINT; Schema: gvteway; Owner: postgres
--

ALTER TABLE ONLY gvteway.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (organization_id, id);


--
-- Name: events events_production_key; Type: CONSTRAINT; Schema: gvteway; Owner: postgres
--

ALTER TABLE ONLY gvteway.events
    ADD CONSTRAINT events_production_key UNIQUE (organization_id, production_ref);


--
-- Name: events events_slug_key; Type: CONSTRAINT; Schema: gvteway; Owner: postgres
--

ALTER TABLE ONLY gvteway.events
    ADD CONSTRAINT events_slug_key UNIQUE (organization_id, slug);


--
-- Name: venues venues_name_key; Type: CONSTRAINT; Schema: gvteway; Owner: postgres
--

ALTER TABLE ONLY gvteway.venues
    ADD CONSTRAINT venues_name_key UNIQUE (organization_id, name);


--
-- Name: venues venues_pkey; Type: CONSTRAINT; Schema: gvteway; Owner: postgres
--

ALTER TABLE ONLY gvteway.venues
    ADD CONSTRAINT venues_pkey PRIMARY KEY (organization_id, id);


--
-- Name: orders orders_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (organization_id, id);


--
-- Name: dead_letters dead_letters_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (organization_id, id);


--
-- Name: flow_versions flow_versions_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.flow_versions
    ADD CONSTRAINT flow_versions_pkey PRIMARY KEY (flow_id, version);


--
-- Name: flows flows_name_key; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.flows
    ADD CONSTRAINT flows_name_key UNIQUE (name);


--
-- Name: flows flows_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.flows
    ADD CONSTRAINT flows_pkey PRIMARY KEY (id);


--
-- Name: installation installation_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (singleton);


--
-- Name: job_history job_history_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history
    ADD CONSTRAINT job_history_pkey PRIMARY KEY (organization_id, id, finished_at);


--
-- Name: job_history_20261121 job_history_20261121_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history_20261121
    ADD CONSTRAINT job_history_20261121_pkey PRIMARY KEY (organization_id, id, finished_at);


--
-- Name: job_history_20261122 job_history_20261122_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history_20261122
    ADD CONSTRAINT job_history_20261122_pkey PRIMARY KEY (organization_id, id, finished_at);


--
-- Name: job_history_20261123 job_history_20261123_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history_20261123
    ADD CONSTRAINT job_history_20261123_pkey PRIMARY KEY (organization_id, id, finished_at);


--
-- Name: job_history_20261124 job_history_20261124_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history_20261124
    ADD CONSTRAINT job_history_20261124_pkey PRIMARY KEY (organization_id, id, finished_at);


--
-- Name: job_history_default job_history_default_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_history_default
    ADD CONSTRAINT job_history_default_pkey PRIMARY KEY (organization_id, id, finished_at);


--
-- Name: job_keys job_keys_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.job_keys
    ADD CONSTRAINT job_keys_pkey PRIMARY KEY (organization_id, unique_key);


--
-- Name: links links_pair_key; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.links
    ADD CONSTRAINT links_pair_key UNIQUE (organization_id, kind, left_id, right_id);


--
-- Name: links links_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.links
    ADD CONSTRAINT links_pkey PRIMARY KEY (organization_id, id);


--
-- Name: memberships memberships_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.memberships
    ADD CONSTRAINT memberships_pkey PRIMARY KEY (organization_id, user_id);


--
-- Name: organizations organizations_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);


--
-- Name: organizations organizations_slug_key; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.organizations
    ADD CONSTRAINT organizations_slug_key UNIQUE (slug);


--
-- Name: queue queue_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (organization_id, id);


--
-- Name: queue_waiting queue_waiting_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.queue_waiting
    ADD CONSTRAINT queue_waiting_pkey PRIMARY KEY (organization_id, id);


--
-- Name: systems systems_pkey; Type: CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.systems
    ADD CONSTRAINT systems_pkey PRIMARY KEY (name);


--
-- Name: deal_status_changes_deal_idx; Type: INDEX; Schema: atlvs; Owner: postgres
--

CREATE INDEX deal_status_changes_deal_idx ON atlvs.deal_status_changes USING btree (organization_id, deal_id, changed_at);


--
-- Name: deals_status_idx; Type: INDEX; Schema: atlvs; Owner: postgres
--

CREATE INDEX deals_status_idx ON atlvs.deals USING btree (organization_id, status);


--
-- Name: projects_phase_idx; Type: INDEX; Schema: atlvs; Owner: postgres
--

CREATE INDEX projects_phase_idx ON atlvs.projects USING btree (organization_id, phase);


--
-- Name: productions_status_idx; Type: INDEX; Schema: compvss; Owner: postgres
--

CREATE INDEX productions_status_idx ON compvss.productions USING btree (organization_id, status);


--
-- Name: events_status_idx; Type: INDEX; Schema: gvteway; Owner: postgres
--

CREATE INDEX events_status_idx ON gvteway.events USING btree (organization_id, status);


--
-- Name: events_venue_idx; Type: INDEX; Schema: gvteway; Owner: postgres
--

CREATE INDEX events_venue_idx ON gvteway.events USING btree (organization_id, venue_id);


--
-- Name: venues_status_idx; Type: INDEX; Schema: gvteway; Owner: postgres
--

CREATE INDEX venues_status_idx ON gvteway.venues USING btree (organization_id, status);


--
-- Name: dead_letters_died_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX dead_letters_died_idx ON usher.dead_letters USING btree (died_at);


--
-- Name: job_keys_job_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX job_keys_job_idx ON usher.job_keys USING btree (organization_id, job_id);


--
-- Name: links_right_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX links_right_idx ON usher.links USING btree (organization_id, kind, right_id);


--
-- Name: links_status_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX links_status_idx ON usher.links USING btree (organization_id, status);


--
-- Name: memberships_user_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX memberships_user_idx ON usher.memberships USING btree (user_id);


--
-- Name: queue_fallback_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX queue_fallback_idx ON usher.queue USING btree (flow_id, row_key) WHERE fallback;


--
-- Name: queue_lane_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX queue_lane_idx ON usher.queue USING btree (lane, seq);


--
-- Name: queue_waiting_due_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX queue_waiting_due_idx ON usher.queue_waiting USING btree (due_at) WHERE (due_at IS NOT NULL);


--
-- Name: queue_waiting_follower_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX queue_waiting_follower_idx ON usher.queue_waiting USING btree (row_key) WHERE ((waiting_for = 'earlier change'::text) AND (due_at IS NULL));


--
-- Name: queue_waiting_row_idx; Type: INDEX; Schema: usher; Owner: postgres
--

CREATE INDEX queue_waiting_row_idx ON usher.queue_waiting USING btree (flow_id, row_key);


--
-- Name: job_history_20261121_pkey; Type: INDEX ATTACH; Schema: usher; Owner: postgres
--

ALTER INDEX usher.job_history_pkey ATTACH PARTITION usher.job_history_20261121_pkey;


--
-- Name: job_history_20261122_pkey; Type: INDEX ATTACH; Schema: usher; Owner: postgres
--

ALTER INDEX usher.job_history_pkey ATTACH PARTITION usher.job_history_20261122_pkey;


--
-- Name: job_history_20261123_pkey; Type: INDEX ATTACH; Schema: usher; Owner: postgres
--

ALTER INDEX usher.job_history_pkey ATTACH PARTITION usher.job_history_20261123_pkey;


--
-- Name: job_history_20261124_pkey; Type: INDEX ATTACH; Schema: usher; Owner: postgres
--

ALTER INDEX usher.job_history_pkey ATTACH PARTITION usher.job_history_20261124_pkey;


--
-- Name: job_history_default_pkey; Type: INDEX ATTACH; Schema: usher; Owner: postgres
--

ALTER INDEX usher.job_history_pkey ATTACH PARTITION usher.job_history_default_pkey;


--
-- Name: deals auto_create_project_on_deal_won; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER auto_create_project_on_deal_won AFTER UPDATE ON atlvs.deals REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('atlvs.deals', 'live_events.create_project_from_won_deal');


--
-- Name: deals auto_create_project_on_deal_won_insert; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER auto_create_project_on_deal_won_insert AFTER INSERT ON atlvs.deals REFERENCING NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('atlvs.deals', 'live_events.create_project_from_won_deal');


--
-- Name: deals log_deal_status_change; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER log_deal_status_change AFTER UPDATE ON atlvs.deals REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('atlvs.deals', 'live_events.log_deal_status_change');


--
-- Name: deals log_deal_status_change_insert; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER log_deal_status_change_insert AFTER INSERT ON atlvs.deals REFERENCING NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('atlvs.deals', 'live_events.log_deal_status_change');


--
-- Name: deals stamp_won_deal; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER stamp_won_deal BEFORE INSERT OR UPDATE ON atlvs.deals FOR EACH ROW WHEN (((new.status = 'won'::text) AND (new.won_at IS NULL))) EXECUTE FUNCTION atlvs.stamp_won_deal();


--
-- Name: deal_status_changes touch_row; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER touch_row BEFORE UPDATE ON atlvs.deal_status_changes FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION atlvs.touch_row();


--
-- Name: deals touch_row; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER touch_row BEFORE UPDATE ON atlvs.deals FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION atlvs.touch_row();


--
-- Name: projects touch_row; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER touch_row BEFORE UPDATE ON atlvs.projects FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION atlvs.touch_row();


--
-- Name: projects usher_capture_insert; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER usher_capture_insert AFTER INSERT ON atlvs.projects REFERENCING NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('atlvs.projects', '');


--
-- Name: projects usher_capture_update; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER usher_capture_update AFTER UPDATE ON atlvs.projects REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('atlvs.projects', '');


--
-- Name: deals usher_statement; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER usher_statement BEFORE INSERT OR UPDATE ON atlvs.deals FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement();


--
-- Name: projects usher_statement; Type: TRIGGER; Schema: atlvs; Owner: postgres
--

CREATE TRIGGER usher_statement BEFORE INSERT OR UPDATE ON atlvs.projects FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement();


--
-- Name: productions touch_row; Type: TRIGGER; Schema: compvss; Owner: postgres
--

CREATE TRIGGER touch_row BEFORE UPDATE ON compvss.productions FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION compvss.touch_row();


--
-- Name: productions usher_capture_insert; Type: TRIGGER; Schema: compvss; Owner: postgres
--

CREATE TRIGGER usher_capture_insert AFTER INSERT ON compvss.productions REFERENCING NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('compvss.productions', '');


--
-- Name: productions usher_capture_update; Type: TRIGGER; Schema: compvss; Owner: postgres
--

CREATE TRIGGER usher_capture_update AFTER UPDATE ON compvss.productions REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('compvss.productions', '');


--
-- Name: productions usher_statement; Type: TRIGGER; Schema: compvss; Owner: postgres
--

CREATE TRIGGER usher_statement BEFORE INSERT OR UPDATE ON compvss.productions FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement();


--
-- Name: events touch_row; Type: TRIGGER; Schema: gvteway; Owner: postgres
--

CREATE TRIGGER touch_row BEFORE UPDATE ON gvteway.events FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION gvteway.touch_row();


--
-- Name: venues touch_row; Type: TRIGGER; Schema: gvteway; Owner: postgres
--

CREATE TRIGGER touch_row BEFORE UPDATE ON gvteway.venues FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION gvteway.touch_row();


--
-- Name: orders usher_capture_delete; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER usher_capture_delete AFTER DELETE ON public.orders REFERENCING OLD TABLE AS usher_old FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('public.orders', '');


--
-- Name: orders usher_capture_insert; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER usher_capture_insert AFTER INSERT ON public.orders REFERENCING NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('public.orders', '');


--
-- Name: orders usher_capture_update; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER usher_capture_update AFTER UPDATE ON public.orders REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('public.orders', '');


--
-- Name: orders usher_statement; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER usher_statement BEFORE INSERT OR DELETE OR UPDATE ON public.orders FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement();


--
-- Name: links update_integration_sync_timestamp; Type: TRIGGER; Schema: usher; Owner: postgres
--

CREATE TRIGGER update_integration_sync_timestamp BEFORE UPDATE ON usher.links FOR EACH ROW EXECUTE FUNCTION usher.update_integration_sync_timestamp();


--
-- Name: flows usher_flows_changed; Type: TRIGGER; Schema: usher; Owner: postgres
--

CREATE TRIGGER usher_flows_changed AFTER INSERT OR DELETE OR UPDATE ON usher.flows FOR EACH ROW EXECUTE FUNCTION usher.flows_changed();


--
-- Name: projects projects_deal_fkey; Type: FK CONSTRAINT; Schema: atlvs; Owner: postgres
--

ALTER TABLE ONLY atlvs.projects
    ADD CONSTRAINT projects_deal_fkey FOREIGN KEY (organization_id, deal_id) REFERENCES atlvs.deals(organization_id, id);


--
-- Name: events events_venue_fkey; Type: FK CONSTRAINT; Schema: gvteway; Owner: postgres
--

ALTER TABLE ONLY gvteway.events
    ADD CONSTRAINT events_venue_fkey FOREIGN KEY (organization_id, venue_id) REFERENCES gvteway.venues(organization_id, id) ON DELETE SET NULL (venue_id);


--
-- Name: memberships memberships_organization_fkey; Type: FK CONSTRAINT; Schema: usher; Owner: postgres
--

ALTER TABLE ONLY usher.memberships
    ADD CONSTRAINT memberships_organization_fkey FOREIGN KEY (organization_id) REFERENCES usher.organizations(id) ON DELETE CASCADE;


--
-- Name: deal_status_changes; Type: ROW SECURITY; Schema: atlvs; Owner: postgres
--

ALTER TABLE atlvs.deal_status_changes ENABLE ROW LEVEL SECURITY;

--
-- Name: deals; Type: ROW SECURITY; Schema: atlvs; Owner: postgres
--

ALTER TABLE atlvs.deals ENABLE ROW LEVEL SECURITY;

--
-- Name: deals live_events_delete; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_delete ON atlvs.deals FOR DELETE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: projects live_events_delete; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_delete ON atlvs.projects FOR DELETE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: deals live_events_insert; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_insert ON atlvs.deals FOR INSERT TO usher_member WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: projects live_events_insert; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_insert ON atlvs.projects FOR INSERT TO usher_member WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: deal_status_changes live_events_read; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_read ON atlvs.deal_status_changes FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: deals live_events_read; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_read ON atlvs.deals FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: project_codes live_events_read; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_read ON atlvs.project_codes FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: projects live_events_read; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_read ON atlvs.projects FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: deals live_events_update; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_update ON atlvs.deals FOR UPDATE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[]))) WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: projects live_events_update; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY live_events_update ON atlvs.projects FOR UPDATE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[]))) WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: project_codes; Type: ROW SECURITY; Schema: atlvs; Owner: postgres
--

ALTER TABLE atlvs.project_codes ENABLE ROW LEVEL SECURITY;

--
-- Name: projects; Type: ROW SECURITY; Schema: atlvs; Owner: postgres
--

ALTER TABLE atlvs.projects ENABLE ROW LEVEL SECURITY;

--
-- Name: deal_status_changes reader_reads; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY reader_reads ON atlvs.deal_status_changes FOR SELECT TO usher_reader USING (true);


--
-- Name: deals reader_reads; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY reader_reads ON atlvs.deals FOR SELECT TO usher_reader USING (true);


--
-- Name: project_codes reader_reads; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY reader_reads ON atlvs.project_codes FOR SELECT TO usher_reader USING (true);


--
-- Name: projects reader_reads; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY reader_reads ON atlvs.projects FOR SELECT TO usher_reader USING (true);


--
-- Name: deal_status_changes usher_flows; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY usher_flows ON atlvs.deal_status_changes TO usher_live_events USING (true) WITH CHECK (true);


--
-- Name: deals usher_flows; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY usher_flows ON atlvs.deals TO usher_live_events USING (true) WITH CHECK (true);


--
-- Name: project_codes usher_flows; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY usher_flows ON atlvs.project_codes TO usher_live_events USING (true) WITH CHECK (true);


--
-- Name: projects usher_flows; Type: POLICY; Schema: atlvs; Owner: postgres
--

CREATE POLICY usher_flows ON atlvs.projects TO usher_live_events USING (true) WITH CHECK (true);


--
-- Name: productions live_events_delete; Type: POLICY; Schema: compvss; Owner: postgres
--

CREATE POLICY live_events_delete ON compvss.productions FOR DELETE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: productions live_events_insert; Type: POLICY; Schema: compvss; Owner: postgres
--

CREATE POLICY live_events_insert ON compvss.productions FOR INSERT TO usher_member WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: productions live_events_read; Type: POLICY; Schema: compvss; Owner: postgres
--

CREATE POLICY live_events_read ON compvss.productions FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: productions live_events_update; Type: POLICY; Schema: compvss; Owner: postgres
--

CREATE POLICY live_events_update ON compvss.productions FOR UPDATE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[]))) WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: productions; Type: ROW SECURITY; Schema: compvss; Owner: postgres
--

ALTER TABLE compvss.productions ENABLE ROW LEVEL SECURITY;

--
-- Name: productions reader_reads; Type: POLICY; Schema: compvss; Owner: postgres
--

CREATE POLICY reader_reads ON compvss.productions FOR SELECT TO usher_reader USING (true);


--
-- Name: productions usher_flows; Type: POLICY; Schema: compvss; Owner: postgres
--

CREATE POLICY usher_flows ON compvss.productions TO usher_live_events USING (true) WITH CHECK (true);


--
-- Name: events; Type: ROW SECURITY; Schema: gvteway; Owner: postgres
--

ALTER TABLE gvteway.events ENABLE ROW LEVEL SECURITY;

--
-- Name: events live_events_delete; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_delete ON gvteway.events FOR DELETE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: venues live_events_delete; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_delete ON gvteway.venues FOR DELETE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: events live_events_insert; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_insert ON gvteway.events FOR INSERT TO usher_member WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: venues live_events_insert; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_insert ON gvteway.venues FOR INSERT TO usher_member WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: events live_events_read; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_read ON gvteway.events FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: venues live_events_read; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_read ON gvteway.venues FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: events live_events_update; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_update ON gvteway.events FOR UPDATE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[]))) WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: venues live_events_update; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY live_events_update ON gvteway.venues FOR UPDATE TO usher_member USING ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[]))) WITH CHECK ((organization_id = ANY (( SELECT usher.managed_organizations() AS managed_organizations)::uuid[])));


--
-- Name: events reader_reads; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY reader_reads ON gvteway.events FOR SELECT TO usher_reader USING (true);


--
-- Name: venues reader_reads; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY reader_reads ON gvteway.venues FOR SELECT TO usher_reader USING (true);


--
-- Name: events usher_flows; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY usher_flows ON gvteway.events TO usher_live_events USING (true) WITH CHECK (true);


--
-- Name: venues usher_flows; Type: POLICY; Schema: gvteway; Owner: postgres
--

CREATE POLICY usher_flows ON gvteway.venues TO usher_live_events USING (true) WITH CHECK (true);


--
-- Name: venues; Type: ROW SECURITY; Schema: gvteway; Owner: postgres
--

ALTER TABLE gvteway.venues ENABLE ROW LEVEL SECURITY;

--
-- Name: dead_letters; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.dead_letters ENABLE ROW LEVEL SECURITY;

--
-- Name: flow_versions; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.flow_versions ENABLE ROW LEVEL SECURITY;

--
-- Name: flows; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.flows ENABLE ROW LEVEL SECURITY;

--
-- Name: installation; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.installation ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.job_history ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history_20261121; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.job_history_20261121 ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history_20261122; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.job_history_20261122 ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history_20261123; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.job_history_20261123 ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history_20261124; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.job_history_20261124 ENABLE ROW LEVEL SECURITY;

--
-- Name: job_history_default; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.job_history_default ENABLE ROW LEVEL SECURITY;

--
-- Name: job_keys; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.job_keys ENABLE ROW LEVEL SECURITY;

--
-- Name: links; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.links ENABLE ROW LEVEL SECURITY;

--
-- Name: dead_letters member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.dead_letters FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: flow_versions member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.flow_versions FOR SELECT TO usher_member USING (true);


--
-- Name: job_history member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.job_history FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: job_history_default member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.job_history_default FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: job_keys member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.job_keys FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: links member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.links FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: memberships member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.memberships FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: organizations member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.organizations FOR SELECT TO usher_member USING ((id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: queue member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.queue FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: queue_waiting member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.queue_waiting FOR SELECT TO usher_member USING ((organization_id = ANY (( SELECT usher.member_organizations() AS member_organizations)::uuid[])));


--
-- Name: systems member_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY member_reads ON usher.systems FOR SELECT TO usher_member USING (true);


--
-- Name: memberships; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.memberships ENABLE ROW LEVEL SECURITY;

--
-- Name: flows operator_stops; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY operator_stops ON usher.flows FOR DELETE TO usher_operator USING (true);


--
-- Name: organizations; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.organizations ENABLE ROW LEVEL SECURITY;

--
-- Name: queue; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.queue ENABLE ROW LEVEL SECURITY;

--
-- Name: queue_waiting; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.queue_waiting ENABLE ROW LEVEL SECURITY;

--
-- Name: dead_letters reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.dead_letters FOR SELECT TO usher_reader USING (true);


--
-- Name: flow_versions reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.flow_versions FOR SELECT TO usher_reader USING (true);


--
-- Name: flows reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.flows FOR SELECT TO usher_reader USING (true);


--
-- Name: installation reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.installation FOR SELECT TO usher_reader USING (true);


--
-- Name: job_history reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.job_history FOR SELECT TO usher_reader USING (true);


--
-- Name: job_history_default reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.job_history_default FOR SELECT TO usher_reader USING (true);


--
-- Name: job_keys reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.job_keys FOR SELECT TO usher_reader USING (true);


--
-- Name: links reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.links FOR SELECT TO usher_reader USING (true);


--
-- Name: memberships reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.memberships FOR SELECT TO usher_reader USING (true);


--
-- Name: organizations reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.organizations FOR SELECT TO usher_reader USING (true);


--
-- Name: queue reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.queue FOR SELECT TO usher_reader USING (true);


--
-- Name: queue_waiting reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.queue_waiting FOR SELECT TO usher_reader USING (true);


--
-- Name: systems reader_reads; Type: POLICY; Schema: usher; Owner: postgres
--

CREATE POLICY reader_reads ON usher.systems FOR SELECT TO usher_reader USING (true);


--
-- Name: systems; Type: ROW SECURITY; Schema: usher; Owner: postgres
--

ALTER TABLE usher.systems ENABLE ROW LEVEL SECURITY;

--
-- Name: SCHEMA atlvs; Type: ACL; Schema: -; Owner: postgres
--

GRANT USAGE ON SCHEMA atlvs TO usher_live_events;
GRANT USAGE ON SCHEMA atlvs TO usher_member;
GRANT USAGE ON SCHEMA atlvs TO usher_reader;


--
-- Name: SCHEMA books; Type: ACL; Schema: -; Owner: postgres
--

GRANT USAGE ON SCHEMA books TO upgrade_books;


--
-- Name: SCHEMA compvss; Type: ACL; Schema: -; Owner: postgres
--

GRANT USAGE ON SCHEMA compvss TO usher_live_events;
GRANT USAGE ON SCHEMA compvss TO usher_member;
GRANT USAGE ON SCHEMA compvss TO usher_reader;


--
-- Name: SCHEMA gvteway; Type: ACL; Schema: -; Owner: postgres
--

GRANT USAGE ON SCHEMA gvteway TO usher_live_events;
GRANT USAGE ON SCHEMA gvteway TO usher_member;
GRANT USAGE ON SCHEMA gvteway TO usher_reader;


--
-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: pg_database_owner
--

GRANT USAGE ON SCHEMA public TO upgrade_books;


--
-- Name: FUNCTION project_code(organization_id uuid, year integer, nth bigint, total bigint, batch uuid); Type: ACL; Schema: atlvs; Owner: postgres
--

REVOKE ALL ON FUNCTION atlvs.project_code(organization_id uuid, year integer, nth bigint, total bigint, batch uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION atlvs.project_code(organization_id uuid, year integer, nth bigint, total bigint, batch uuid) TO usher_live_events;


--
-- Name: FUNCTION stamp_won_deal(); Type: ACL; Schema: atlvs; Owner: postgres
--

REVOKE ALL ON FUNCTION atlvs.stamp_won_deal() FROM PUBLIC;
GRANT ALL ON FUNCTION atlvs.stamp_won_deal() TO usher_live_events;


--
-- Name: FUNCTION touch_row(); Type: ACL; Schema: atlvs; Owner: postgres
--

REVOKE ALL ON FUNCTION atlvs.touch_row() FROM PUBLIC;
GRANT ALL ON FUNCTION atlvs.touch_row() TO usher_live_events;


--
-- Name: FUNCTION touch_row(); Type: ACL; Schema: compvss; Owner: postgres
--

REVOKE ALL ON FUNCTION compvss.touch_row() FROM PUBLIC;
GRANT ALL ON FUNCTION compvss.touch_row() TO usher_live_events;


--
-- Name: FUNCTION event_slug(title text, production_ref uuid); Type: ACL; Schema: gvteway; Owner: postgres
--

REVOKE ALL ON FUNCTION gvteway.event_slug(title text, production_ref uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION gvteway.event_slug(title text, production_ref uuid) TO usher_live_events;


--
-- Name: FUNCTION touch_row(); Type: ACL; Schema: gvteway; Owner: postgres
--

REVOKE ALL ON FUNCTION gvteway.touch_row() FROM PUBLIC;
GRANT ALL ON FUNCTION gvteway.touch_row() TO usher_live_events;


--
-- Name: TABLE deal_status_changes; Type: ACL; Schema: atlvs; Owner: postgres
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.deal_status_changes TO usher_live_events;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.deal_status_changes TO usher_member;
GRANT SELECT ON TABLE atlvs.deal_status_changes TO usher_reader;


--
-- Name: TABLE deals; Type: ACL; Schema: atlvs; Owner: postgres
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.deals TO usher_live_events;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.deals TO usher_member;
GRANT SELECT ON TABLE atlvs.deals TO usher_reader;


--
-- Name: TABLE project_codes; Type: ACL; Schema: atlvs; Owner: postgres
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.project_codes TO usher_live_events;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.project_codes TO usher_member;
GRANT SELECT ON TABLE atlvs.project_codes TO usher_reader;


--
-- Name: TABLE projects; Type: ACL; Schema: atlvs; Owner: postgres
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.projects TO usher_live_events;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE atlvs.projects TO usher_member;
GRANT SELECT ON TABLE atlvs.projects TO usher_reader;


--
-- Name: TABLE archive; Type: ACL; Schema: books; Owner: postgres
--

GRANT SELECT,INSERT,UPDATE ON TABLE books.archive TO upgrade_books;


--
-- Name: TABLE charges; Type: ACL; Schema: books; Owner: postgres
--

GRANT SELECT,INSERT,UPDATE ON TABLE books.charges TO upgrade_books;


--
-- Name: TABLE invoices; Type: ACL; Schema: books; Owner: postgres
--

GRANT SELECT,INSERT,UPDATE ON TABLE books.invoices TO upgrade_books;


--
-- Name: TABLE letters; Type: ACL; Schema: books; Owner: postgres
--

GRANT SELECT,INSERT,UPDATE ON TABLE books.letters TO upgrade_books;


--
-- Name: TABLE limits; Type: ACL; Schema: books; Owner: postgres
--

GRANT SELECT,INSERT,UPDATE ON TABLE books.limits TO upgrade_books;


--
-- Name: TABLE order_log; Type: ACL; Schema: books; Owner: postgres
--

GRANT SELECT,INSERT,UPDATE ON TABLE books.order_log TO upgrade_books;


--
-- Name: TABLE reissues; Type: ACL; Schema: books; Owner: postgres
--

GRANT SELECT,INSERT,UPDATE ON TABLE books.reissues TO upgrade_books;


--
-- Name: TABLE productions; Type: ACL; Schema: compvss; Owner: postgres
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE compvss.productions TO usher_live_events;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE compvss.productions TO usher_member;
GRANT SELECT ON TABLE compvss.productions TO usher_reader;


--
-- Name: TABLE events; Type: ACL; Schema: gvteway; Owner: postgres
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gvteway.events TO usher_live_events;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gvteway.events TO usher_member;
GRANT SELECT ON TABLE gvteway.events TO usher_reader;


--
-- Name: TABLE venues; Type: ACL; Schema: gvteway; Owner: postgres
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gvteway.venues TO usher_live_events;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gvteway.venues TO usher_member;
GRANT SELECT ON TABLE gvteway.venues TO usher_reader;


--
-- Name: TABLE orders; Type: ACL; Schema: public; Owner: postgres
--

GRANT SELECT ON TABLE public.orders TO upgrade_books;


--
-- Name: TABLE dead_letters; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.dead_letters TO usher_member;
GRANT SELECT ON TABLE usher.dead_letters TO usher_reader;


--
-- Name: TABLE flow_versions; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.flow_versions TO usher_reader;


--
-- Name: COLUMN flow_versions.flow_id; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT(flow_id) ON TABLE usher.flow_versions TO usher_member;


--
-- Name: COLUMN flow_versions.version; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT(version) ON TABLE usher.flow_versions TO usher_member;


--
-- Name: COLUMN flow_versions.name; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT(name) ON TABLE usher.flow_versions TO usher_member;


--
-- Name: COLUMN flow_versions.source_system; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT(source_system) ON TABLE usher.flow_versions TO usher_member;


--
-- Name: COLUMN flow_versions.target_system; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT(target_system) ON TABLE usher.flow_versions TO usher_member;


--
-- Name: TABLE flows; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.flows TO usher_reader;
GRANT DELETE ON TABLE usher.flows TO usher_operator;


--
-- Name: TABLE installation; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.installation TO usher_reader;


--
-- Name: TABLE job_history; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.job_history TO usher_member;
GRANT SELECT ON TABLE usher.job_history TO usher_reader;


--
-- Name: TABLE job_history_default; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.job_history_default TO usher_reader;


--
-- Name: TABLE job_keys; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.job_keys TO usher_reader;


--
-- Name: TABLE links; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.links TO usher_member;
GRANT SELECT ON TABLE usher.links TO usher_reader;


--
-- Name: TABLE memberships; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.memberships TO usher_member;
GRANT SELECT ON TABLE usher.memberships TO usher_reader;


--
-- Name: TABLE organizations; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.organizations TO usher_member;
GRANT SELECT ON TABLE usher.organizations TO usher_reader;


--
-- Name: TABLE queue; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.queue TO usher_member;
GRANT SELECT ON TABLE usher.queue TO usher_reader;


--
-- Name: TABLE queue_waiting; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.queue_waiting TO usher_member;
GRANT SELECT ON TABLE usher.queue_waiting TO usher_reader;


--
-- Name: TABLE sync_jobs; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.sync_jobs TO usher_member;
GRANT SELECT ON TABLE usher.sync_jobs TO usher_reader;


--
-- Name: TABLE systems; Type: ACL; Schema: usher; Owner: postgres
--

GRANT SELECT ON TABLE usher.systems TO usher_member;
GRANT SELECT ON TABLE usher.systems TO usher_reader;


--
-- PostgreSQL database dump complete
--


