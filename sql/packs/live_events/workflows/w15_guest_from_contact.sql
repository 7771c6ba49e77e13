-- W15: who a contact is among the guests.

-- By the link first: a contact that changes its address stays the guest it was. By address only guests that no other contact has.
CREATE OR REPLACE FUNCTION gvteway.guest_of_contact(organization_id uuid, contact_id uuid, email text) RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(
        (SELECT g.id FROM gvteway.guests g
          WHERE g.organization_id = guest_of_contact.organization_id AND g.contact_ref = guest_of_contact.contact_id),
        (SELECT g.id FROM gvteway.guests g
          WHERE g.organization_id = guest_of_contact.organization_id AND lower(g.email) = lower(btrim(guest_of_contact.email))
            AND g.contact_ref IS NULL AND g.erased_at IS NULL))
$$;
REVOKE ALL ON FUNCTION gvteway.guest_of_contact(uuid, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.guest_of_contact(uuid, uuid, text) IS
    'The guest that a contact is: the one it was carried to before, else the one with its e-mail address that is nobody''s yet';
