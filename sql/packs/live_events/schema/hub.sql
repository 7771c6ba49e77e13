-- Pack live_events: what belongs to no single system: search and figures over all three.

CREATE SCHEMA IF NOT EXISTS live_events;
COMMENT ON SCHEMA live_events IS 'Pack live_events: over all three systems: search, figures';

-- No index of the words: a member reads through row level security, and PostgreSQL uses an index below it only for operators that are
-- declared leakproof, which those of text search are not. So an organization's documents are read by the key, and looked through.
CREATE TABLE IF NOT EXISTS live_events.search_documents (
    organization_id uuid     NOT NULL,
    kind            text     NOT NULL,
    source_id       uuid     NOT NULL,
    system          text     NOT NULL,
    title           text     NOT NULL,
    body            text     NOT NULL DEFAULT '',
    words           tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('simple'::regconfig, regexp_replace(left(title, 2000), '[^[:alnum:]]+', ' ', 'g')), 'A')
        || setweight(to_tsvector('simple'::regconfig, regexp_replace(left(body, 10000), '[^[:alnum:]]+', ' ', 'g')), 'B')) STORED,
    CONSTRAINT search_documents_pkey PRIMARY KEY (organization_id, kind, source_id)
);
COMMENT ON TABLE live_events.search_documents IS 'Pack live_events: A row of one of the systems as it is searched (W48); written by flows only';
COMMENT ON COLUMN live_events.search_documents.kind IS 'What it is, such as deal or guest';
COMMENT ON COLUMN live_events.search_documents.source_id IS 'Its id in the table of its kind';
COMMENT ON COLUMN live_events.search_documents.title IS 'What it is called; counts more than the rest, and is found in spite of slips of the pen';
COMMENT ON COLUMN live_events.search_documents.words IS 'Words of letters and digits only: parts of addresses, codes and numbers are found, too';

-- One flow for each table says what is to be found now. Where that is nothing, because the row is gone or its person is erased, the
-- document goes, in the same order as all other changes of the row.
CREATE OR REPLACE FUNCTION live_events.forget_document() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM live_events.search_documents d
     WHERE d.organization_id = NEW.organization_id AND d.kind = NEW.kind AND d.source_id = NEW.source_id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION live_events.forget_document() FROM PUBLIC;
COMMENT ON FUNCTION live_events.forget_document() IS 'Trigger: a document without a title is none, and the one that was there goes';
CREATE OR REPLACE TRIGGER forget_document BEFORE INSERT ON live_events.search_documents
    FOR EACH ROW WHEN (NEW.title IS NULL) EXECUTE FUNCTION live_events.forget_document();

-- Figures over all three systems. One row for an organization and day: whoever reads it sees all of one moment or all of another.
CREATE TABLE IF NOT EXISTS live_events.kpi_snapshots (
    organization_id uuid        NOT NULL,
    day             date        NOT NULL,
    figures         jsonb       NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT kpi_snapshots_pkey PRIMARY KEY (organization_id, day),
    CONSTRAINT kpi_snapshots_figures_by_system CHECK (jsonb_typeof(figures) = 'object')
);
COMMENT ON TABLE live_events.kpi_snapshots IS 'Pack live_events: Figures of an organization as they were last on each day (W45); written by flows only';
COMMENT ON COLUMN live_events.kpi_snapshots.day IS 'In the zone of the organization';
COMMENT ON COLUMN live_events.kpi_snapshots.figures IS 'By system and name; amounts by currency: {"atlvs": {"deals_open": 3, "pipeline": {"EUR": 48000}}, …}';
COMMENT ON COLUMN live_events.kpi_snapshots.changed_at IS 'Since when they are so; a refresh that finds the same writes nothing';

CREATE TABLE IF NOT EXISTS live_events.project_figures (
    organization_id uuid        NOT NULL,
    project_id      uuid        NOT NULL,
    planned         numeric     NOT NULL,
    spent           numeric     NOT NULL,
    revenue         numeric     NOT NULL,
    refunds         numeric     NOT NULL,
    margin          numeric     NOT NULL,
    sales           integer     NOT NULL,
    tickets         integer     NOT NULL,
    admitted        integer     NOT NULL,
    CONSTRAINT project_figures_pkey PRIMARY KEY (organization_id, project_id)
);
COMMENT ON TABLE live_events.project_figures IS 'Pack live_events: Figures of each project, written together with those of its organization (W45); written by flows only';
COMMENT ON COLUMN live_events.project_figures.project_id IS 'Id in atlvs.projects';
COMMENT ON COLUMN live_events.project_figures.revenue IS 'Ticket revenue in the currency of the project, refunds taken off';
COMMENT ON COLUMN live_events.project_figures.margin IS 'Revenue without what was spent';
COMMENT ON COLUMN live_events.project_figures.admitted IS 'Who came in at the gates (W33)';

-- As whoever asks: row level security of the tables below decides.
CREATE OR REPLACE VIEW live_events.kpis WITH (security_invoker = true) AS
SELECT s.organization_id, s.day, y.key AS system, k.key AS kpi, NULLIF(c.key, '') AS currency, c.value::numeric AS value, s.changed_at
  FROM live_events.kpi_snapshots s,
       LATERAL jsonb_each(s.figures) AS y, LATERAL jsonb_each(y.value) AS k,
       LATERAL jsonb_each_text(CASE WHEN jsonb_typeof(k.value) = 'object' THEN k.value ELSE jsonb_build_object('', k.value) END) AS c
 WHERE NOT EXISTS (SELECT FROM live_events.kpi_snapshots n WHERE n.organization_id = s.organization_id AND n.day > s.day);
COMMENT ON VIEW live_events.kpis IS 'Pack live_events: Figures of the caller''s organizations, at most a minute old; those of earlier days are in live_events.kpi_snapshots';

CREATE OR REPLACE VIEW live_events.project_kpis WITH (security_invoker = true) AS
SELECT p.organization_id, p.id AS project_id, p.code, p.name, p.phase, p.health, c.id AS production_id, c.status AS production_status, e.id AS event_id,
       e.status AS event_status, e.starts_at, p.currency::text AS currency, p.budget_total, f.planned, f.spent, f.revenue, f.refunds, f.margin, f.sales, f.tickets,
       c.capacity, c.sell_through, c.staffing_target, f.admitted
  FROM atlvs.projects p
  LEFT JOIN live_events.project_figures f ON f.organization_id = p.organization_id AND f.project_id = p.id
  LEFT JOIN compvss.productions c ON c.organization_id = p.organization_id AND c.project_ref = p.id
  LEFT JOIN gvteway.events e ON e.organization_id = c.organization_id AND e.production_ref = c.id;
COMMENT ON VIEW live_events.project_kpis IS 'Pack live_events: A project from deal to door in one row: names and states as they are, figures at most a minute old';
GRANT SELECT ON live_events.kpis TO usher_member, usher_reader;
GRANT SELECT ON live_events.project_kpis TO usher_member, usher_reader;
