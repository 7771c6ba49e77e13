-- W19: what guests have spent and what contacts are worth.

-- Amounts of several currencies are not added up: the one in which most was bought counts, of equals the first by its letters.
CREATE OR REPLACE FUNCTION gvteway.set_lifetime_spend(organization uuid, guests uuid[]) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer;
BEGIN
    -- Locked before it is counted: the last to write has seen what all have done.
    PERFORM FROM gvteway.guests g
      WHERE g.organization_id = set_lifetime_spend.organization AND g.id = ANY (set_lifetime_spend.guests)
      ORDER BY g.id FOR NO KEY UPDATE;
    WITH bought AS (
        SELECT o.guest_ref AS guest, o.currency, o.total AS amount
          FROM gvteway.orders o
         WHERE o.organization_id = set_lifetime_spend.organization AND o.guest_ref = ANY (set_lifetime_spend.guests) AND o.status = 'paid'
        UNION ALL
        SELECT m.guest_id, m.currency, m.price
          FROM gvteway.memberships m
         WHERE m.organization_id = set_lifetime_spend.organization AND m.guest_id = ANY (set_lifetime_spend.guests) AND m.status IN ('active', 'expired')
    ), sums AS (
        SELECT DISTINCT ON (b.guest) b.guest, b.currency, sum(b.amount) AS amount
          FROM bought b GROUP BY b.guest, b.currency ORDER BY b.guest, count(*) DESC, b.currency
    )
    UPDATE gvteway.guests g SET lifetime_spend = f.amount, currency = f.currency
      FROM (SELECT g.id, COALESCE(s.amount, 0) AS amount, COALESCE(s.currency, g.currency) AS currency
              FROM gvteway.guests g LEFT JOIN sums s ON s.guest = g.id
             WHERE g.organization_id = set_lifetime_spend.organization AND g.id = ANY (set_lifetime_spend.guests)) AS f
     WHERE g.organization_id = set_lifetime_spend.organization AND g.id = f.id
       AND (g.lifetime_spend, g.currency) IS DISTINCT FROM (f.amount, f.currency);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
REVOKE ALL ON FUNCTION gvteway.set_lifetime_spend(uuid, uuid[]) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.set_lifetime_spend(uuid, uuid[]) IS
    'Counts anew what guests have spent: paid orders, memberships that are or were active; returns how many have changed';

CREATE OR REPLACE FUNCTION atlvs.set_lifetime_value(organization uuid, contacts uuid[]) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer;
BEGIN
    PERFORM FROM atlvs.contacts c
      WHERE c.organization_id = set_lifetime_value.organization AND c.id = ANY (set_lifetime_value.contacts)
      ORDER BY c.id FOR NO KEY UPDATE;
    WITH brought AS (
        SELECT d.contact_id AS contact, d.currency, d.value AS amount
          FROM atlvs.deals d
         WHERE d.organization_id = set_lifetime_value.organization AND d.contact_id = ANY (set_lifetime_value.contacts)
           AND d.status = 'won' AND d.value IS NOT NULL
        UNION ALL
        SELECT g.contact_ref, g.currency, g.lifetime_spend
          FROM gvteway.guests g
         WHERE g.organization_id = set_lifetime_value.organization AND g.contact_ref = ANY (set_lifetime_value.contacts) AND g.lifetime_spend <> 0
    ), sums AS (
        SELECT DISTINCT ON (b.contact) b.contact, b.currency, sum(b.amount) AS amount
          FROM brought b GROUP BY b.contact, b.currency ORDER BY b.contact, count(*) DESC, b.currency
    )
    UPDATE atlvs.contacts c SET lifetime_value = f.amount, currency = f.currency
      FROM (SELECT c.id, round(COALESCE(s.amount, 0), 2) AS amount, COALESCE(s.currency, c.currency) AS currency
              FROM atlvs.contacts c LEFT JOIN sums s ON s.contact = c.id
             WHERE c.organization_id = set_lifetime_value.organization AND c.id = ANY (set_lifetime_value.contacts)) AS f
     WHERE c.organization_id = set_lifetime_value.organization AND c.id = f.id
       AND (c.lifetime_value, c.currency) IS DISTINCT FROM (f.amount, f.currency);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
REVOKE ALL ON FUNCTION atlvs.set_lifetime_value(uuid, uuid[]) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.set_lifetime_value(uuid, uuid[]) IS
    'Counts anew what contacts are worth: won deals, and what their guests have spent; returns how many have changed';

CREATE OR REPLACE FUNCTION gvteway.refresh_lifetime_spend(changes jsonb) RETURNS integer
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT gvteway.set_lifetime_spend((changes -> 0 ->> 'organization')::uuid,
               ARRAY(SELECT DISTINCT x.id::uuid FROM jsonb_array_elements(changes) AS c, LATERAL (VALUES (c ->> 'guest'), (c ->> 'before')) AS x (id)
                      WHERE x.id IS NOT NULL))
$$;
REVOKE ALL ON FUNCTION gvteway.refresh_lifetime_spend(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.refresh_lifetime_spend(jsonb) IS 'What the guests of a batch of changes have spent, counted anew';

CREATE OR REPLACE FUNCTION atlvs.refresh_lifetime_value(changes jsonb) RETURNS integer
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT atlvs.set_lifetime_value((changes -> 0 ->> 'organization')::uuid,
               ARRAY(SELECT DISTINCT x.id::uuid FROM jsonb_array_elements(changes) AS c, LATERAL (VALUES (c ->> 'contact'), (c ->> 'before')) AS x (id)
                      WHERE x.id IS NOT NULL))
$$;
REVOKE ALL ON FUNCTION atlvs.refresh_lifetime_value(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.refresh_lifetime_value(jsonb) IS 'What the contacts of a batch of changes are worth, counted anew';

CREATE OR REPLACE FUNCTION atlvs.refresh_all_lifetime_values(organization uuid) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    guests   integer;
    contacts integer;
BEGIN
    guests := gvteway.set_lifetime_spend(organization, ARRAY(SELECT g.id FROM gvteway.guests g WHERE g.organization_id = refresh_all_lifetime_values.organization));
    contacts := atlvs.set_lifetime_value(organization, ARRAY(SELECT c.id FROM atlvs.contacts c WHERE c.organization_id = refresh_all_lifetime_values.organization));
    RETURN guests + contacts;
END
$$;
REVOKE ALL ON FUNCTION atlvs.refresh_all_lifetime_values(uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.refresh_all_lifetime_values(uuid) IS 'Counts all guests and contacts of an organization anew; returns how many have changed';
