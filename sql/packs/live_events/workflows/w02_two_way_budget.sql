-- W2: what the two sides of a budget need to find each other, to say where a value came from, and to share their notes.

-- The project beside the production, so that a cost line and a budget line have something in common.
ALTER TABLE compvss.cost_lines
    ADD COLUMN IF NOT EXISTS project_ref uuid,
    ADD COLUMN IF NOT EXISTS planned_from bigint;
CREATE INDEX IF NOT EXISTS cost_lines_project_idx ON compvss.cost_lines (organization_id, project_ref, category);
COMMENT ON COLUMN compvss.cost_lines.project_ref IS 'project_ref of the production; filled in';
COMMENT ON COLUMN compvss.cost_lines.planned_from IS 'Version of the budget line that planned was taken from; a change without one is somebody else''s';

CREATE OR REPLACE FUNCTION compvss.place_cost_line() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.project_ref := (SELECT p.project_ref FROM compvss.productions p WHERE p.organization_id = NEW.organization_id AND p.id = NEW.production_id);
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION compvss.place_cost_line() FROM PUBLIC;
COMMENT ON FUNCTION compvss.place_cost_line() IS 'Trigger: a cost line is of the project of its production';
CREATE OR REPLACE TRIGGER place_cost_line BEFORE INSERT OR UPDATE OF production_id, project_ref ON compvss.cost_lines
    FOR EACH ROW EXECUTE FUNCTION compvss.place_cost_line();

CREATE OR REPLACE FUNCTION compvss.place_cost_lines() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE compvss.cost_lines c SET project_ref = NEW.project_ref WHERE c.organization_id = NEW.organization_id AND c.production_id = NEW.id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION compvss.place_cost_lines() FROM PUBLIC;
COMMENT ON FUNCTION compvss.place_cost_lines() IS 'Trigger: the cost lines of a production that gets a project get it too';
CREATE OR REPLACE TRIGGER place_cost_lines AFTER UPDATE OF project_ref ON compvss.productions
    FOR EACH ROW WHEN (NEW.project_ref IS DISTINCT FROM OLD.project_ref) EXECUTE FUNCTION compvss.place_cost_lines();

CREATE OR REPLACE FUNCTION compvss.production_of(organization_id uuid, project_ref uuid) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.id FROM compvss.productions p WHERE p.organization_id = production_of.organization_id AND p.project_ref = production_of.project_ref
$$;
REVOKE ALL ON FUNCTION compvss.production_of(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.production_of(uuid, uuid) IS 'The production of a project; empty as long as there is none';

CREATE OR REPLACE FUNCTION atlvs.currency_of(organization_id uuid, project_id uuid) RETURNS char(3)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.currency FROM atlvs.projects p WHERE p.organization_id = currency_of.organization_id AND p.id = currency_of.project_id
$$;
REVOKE ALL ON FUNCTION atlvs.currency_of(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.currency_of(uuid, uuid) IS 'The currency of a project, in which its budget and costs are';

-- Asked only when both sides have changed the notes since they last agreed. Line by line: what one side has added is in the
-- result, what one side has taken out is not.
CREATE OR REPLACE FUNCTION atlvs.merge_notes(base text, office text, site text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(l.line, E'\n' ORDER BY l.side, l.n)
      FROM (SELECT 1 AS side, o.n, o.line
              FROM unnest(string_to_array(office, E'\n')) WITH ORDINALITY AS o (line, n)
             WHERE o.line <> ALL (COALESCE(string_to_array(base, E'\n'), '{}'))
                OR o.line = ANY (COALESCE(string_to_array(site, E'\n'), '{}'))
             UNION ALL
            SELECT 2, s.n, s.line
              FROM unnest(string_to_array(site, E'\n')) WITH ORDINALITY AS s (line, n)
             WHERE s.line <> ALL (COALESCE(string_to_array(base, E'\n'), '{}'))
               AND s.line <> ALL (COALESCE(string_to_array(office, E'\n'), '{}'))) AS l
$$;
REVOKE ALL ON FUNCTION atlvs.merge_notes(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.merge_notes(text, text, text) IS 'Notes that both sides have changed: the lines that either has added, without those that either has taken out';

-- The one way in which expenses, hours and vendors' invoices come to a cost line. It adds, so that what the crew on site
-- counts by hand stays.
CREATE OR REPLACE FUNCTION compvss.add_actual(organization_id uuid, production_id uuid, category text, currency text, amount numeric) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    org    CONSTANT uuid := organization_id;
    counts text;
BEGIN
    -- Nothing, or nobody's: an item of accounts payable need not be of a production.
    IF amount = 0 OR production_id IS NULL OR category IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO compvss.cost_lines AS c (organization_id, production_id, category, actual, currency)
    SELECT org, add_actual.production_id, add_actual.category, add_actual.amount,
           COALESCE(atlvs.currency_of(org, p.project_ref)::text, add_actual.currency)
      FROM compvss.productions p
     WHERE p.organization_id = org AND p.id = add_actual.production_id
    ON CONFLICT ON CONSTRAINT cost_lines_category_key DO UPDATE SET actual = c.actual + excluded.actual
    RETURNING COALESCE(atlvs.currency_of(org, c.project_ref), c.currency)::text INTO counts;
    IF counts <> add_actual.currency THEN
        RAISE EXCEPTION 'cost line "%" is in %, not in %', add_actual.category, counts, add_actual.currency
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The costs of a project are in one currency: enter the amount in it.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION compvss.add_actual(uuid, uuid, text, text, numeric) FROM PUBLIC;
COMMENT ON FUNCTION compvss.add_actual(uuid, uuid, text, text, numeric) IS 'Adds to what a production has really cost, in the currency of its project; makes the line where it is missing';

CREATE OR REPLACE FUNCTION compvss.take_budget(organization uuid, production_id uuid) RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO compvss.cost_lines (organization_id, production_id, category, planned, planned_from, notes, currency)
    SELECT b.organization_id, p.id, b.category, b.planned, b.version, b.notes, r.currency
      FROM compvss.productions p
      JOIN atlvs.projects r ON r.organization_id = p.organization_id AND r.id = p.project_ref
      JOIN atlvs.budget_lines b ON b.organization_id = r.organization_id AND b.project_id = r.id
     WHERE p.organization_id = take_budget.organization AND p.id = take_budget.production_id
     ORDER BY b.category
    ON CONFLICT ON CONSTRAINT cost_lines_category_key DO NOTHING
$$;
REVOKE ALL ON FUNCTION compvss.take_budget(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION compvss.take_budget(uuid, uuid) IS 'Makes the cost lines of a production whose project has a budget already';
