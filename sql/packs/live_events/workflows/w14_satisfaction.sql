-- W14: how satisfied a contact is.

CREATE OR REPLACE FUNCTION atlvs.rate_contact(organization uuid, contact uuid, old_contact uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- One at a time for each contact: what is counted below is what was committed before.
    PERFORM FROM atlvs.contacts c
      WHERE c.organization_id = organization AND c.id IN (contact, old_contact)
      ORDER BY c.id FOR NO KEY UPDATE;
    IF contact IS NOT NULL AND NOT EXISTS (SELECT FROM atlvs.contacts c WHERE c.organization_id = organization AND c.id = contact) THEN
        RAISE EXCEPTION 'contact % does not exist', contact
            USING ERRCODE = 'undefined_object', HINT = 'Enter the contact, or correct contact_ref of the survey.';
    END IF;
    UPDATE atlvs.contacts c
       SET satisfaction_avg = s.mean, satisfaction_n = s.n
      FROM (SELECT k.id, round(avg(v.score), 2) AS mean, count(v.score)::integer AS n
              FROM atlvs.contacts k
              LEFT JOIN compvss.satisfaction_surveys v ON v.organization_id = k.organization_id AND v.contact_ref = k.id
             WHERE k.organization_id = organization AND k.id IN (contact, old_contact)
             GROUP BY k.id) AS s
     WHERE c.organization_id = organization AND c.id = s.id AND (c.satisfaction_avg, c.satisfaction_n) IS DISTINCT FROM (s.mean, s.n);
END
$$;
REVOKE ALL ON FUNCTION atlvs.rate_contact(uuid, uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.rate_contact(uuid, uuid, uuid) IS 'Mean and number of the surveys of a contact, counted anew';
