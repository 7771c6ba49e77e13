-- Pack platform: the tables of the four systems orchestration, modules, marketplace and handover.
--
-- Run by usher.install_pack(), which grants afterwards and adds the policy of the role the flows run as. May be run
-- again at any time. Plain PostgreSQL, no defaults from an extension, so that the tables outlive it.
--
-- Every key leads with organization_id. What is in one row of a table at most is said by a unique constraint, so that an effect
-- that comes twice finds what it has done.

CREATE SCHEMA IF NOT EXISTS platform;
COMMENT ON SCHEMA platform IS 'Pack platform: orchestration, modules, marketplace, handover';

-- Every step from one state to another that there is, is named by the trigger of its table; all others are refused, whoever takes them.
CREATE OR REPLACE FUNCTION platform.refuse_step() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'a row of %.% that is % cannot become %', TG_TABLE_SCHEMA, TG_TABLE_NAME, OLD.status, NEW.status
        USING ERRCODE = 'check_violation', HINT = 'docs/packs/platform.md shows which states follow which.';
END
$$;
REVOKE ALL ON FUNCTION platform.refuse_step() FROM PUBLIC;
COMMENT ON FUNCTION platform.refuse_step() IS 'Trigger: refuses a change of status that does not exist';
