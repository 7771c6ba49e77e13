-- W10: the budget line that a change order is about.

CREATE OR REPLACE FUNCTION atlvs.budget_line(organization uuid, project_id uuid, category text, currency text) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    line uuid;
BEGIN
    IF project_id IS NULL THEN
        RETURN NULL;
    END IF;
    IF atlvs.currency_of(organization, project_id) <> currency THEN
        RAISE EXCEPTION 'the budget is in %, not in %', atlvs.currency_of(organization, project_id), currency
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Enter the amount in the currency of the project.';
    END IF;
    INSERT INTO atlvs.budget_lines (organization_id, project_id, category)
    VALUES (organization, project_id, category)
    ON CONFLICT ON CONSTRAINT budget_lines_category_key DO NOTHING
    RETURNING id INTO line;
    IF NOT FOUND THEN
        SELECT b.id INTO line FROM atlvs.budget_lines b WHERE b.organization_id = organization AND b.project_id = budget_line.project_id AND b.category = budget_line.category;
    END IF;
    RETURN line;
END
$$;
REVOKE ALL ON FUNCTION atlvs.budget_line(uuid, uuid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.budget_line(uuid, uuid, text, text) IS 'The budget line of a project and category, made if it is not there; an error if the amount is in another currency';
