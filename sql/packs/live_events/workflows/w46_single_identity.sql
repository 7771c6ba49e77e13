-- W46: which row of which platform is which person.

-- Accounts are made by what a row says, and ended where it changes: whoever makes one holds this until the end of the transaction, and whoever ends
-- one waits. Without that an account could be made for a person who is erased in the same moment. Not a lock on the row, which the pack need not be
-- allowed to write; and few of them, however many rows a transaction is about.
CREATE OR REPLACE FUNCTION live_events.hold_account(organization uuid, kind text, ref uuid, alone boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name CONSTANT bigint := hashtextextended(concat_ws(' ', 'live_events.account', hold_account.organization, hashtext(hold_account.kind || hold_account.ref) & 127), 0);
BEGIN
    IF alone THEN
        PERFORM pg_advisory_xact_lock(name);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(name);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION live_events.hold_account(uuid, text, uuid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION live_events.hold_account(uuid, text, uuid, boolean) IS
    'Until the end of the transaction nobody ends the account of a row; alone: nobody makes it either';

-- By what is true now, so that it may be called again and in any order. An account that is there keeps its person, whatever becomes of
-- the address; only at the first meeting the address decides. (Two of one address at once: the second waits for the first.)
CREATE OR REPLACE FUNCTION live_events.link_account(organization uuid, kind text, ref uuid, old_email text, old_name text) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org    CONSTANT uuid := link_account.organization;
    seen   record;
    person uuid;
    other  uuid;
BEGIN
    PERFORM live_events.hold_account(org, link_account.kind, link_account.ref, false);
    CASE link_account.kind
        WHEN 'employee' THEN
            SELECT e.email, e.name, 'atlvs' AS platform, 'employee' AS role, e.status = 'hired' AS here, NULL::uuid AS employee INTO seen
              FROM atlvs.employees e WHERE e.organization_id = org AND e.id = link_account.ref;
        WHEN 'contact' THEN
            SELECT c.email, COALESCE(NULLIF(btrim(concat_ws(' ', c.first_name, c.last_name)), ''), c.company) AS name, 'atlvs' AS platform, 'client' AS role,
                   c.erased_at IS NULL AND c.email IS NOT NULL AS here, NULL::uuid AS employee INTO seen
              FROM atlvs.contacts c WHERE c.organization_id = org AND c.id = link_account.ref;
        WHEN 'crew_member' THEN
            SELECT NULL::text AS email, m.name, 'compvss' AS platform, COALESCE(NULLIF(btrim(m.role), ''), 'crew') AS role, m.status = 'active' AS here,
                   m.employee_ref AS employee INTO seen
              FROM compvss.crew_members m WHERE m.organization_id = org AND m.id = link_account.ref;
        WHEN 'guest' THEN
            SELECT g.email, g.name, 'gvteway' AS platform, 'guest' AS role, g.erased_at IS NULL AS here, NULL::uuid AS employee INTO seen
              FROM gvteway.guests g WHERE g.organization_id = org AND g.id = link_account.ref;
    END CASE;
    IF NOT FOUND OR NOT seen.here THEN
        -- Gone, or erased: that was done where it happened.
        RETURN NULL;
    END IF;
    IF seen.employee IS NOT NULL THEN
        PERFORM live_events.hold_account(org, 'employee', seen.employee, false);
        IF EXISTS (SELECT FROM atlvs.employees e WHERE e.organization_id = org AND e.id = seen.employee AND e.status = 'left') THEN
            RETURN NULL;
        END IF;
    END IF;

    SELECT a.identity_id INTO person
      FROM live_events.platform_accounts a
     WHERE a.organization_id = org AND a.platform = seen.platform AND a.kind = link_account.kind AND a.ref = link_account.ref;
    -- Who is on the crew is the employee, also if that is said later.
    IF seen.employee IS NOT NULL THEN
        SELECT a.identity_id INTO other
          FROM live_events.platform_accounts a
         WHERE a.organization_id = org AND a.platform = 'atlvs' AND a.kind = 'employee' AND a.ref = seen.employee;
        other := COALESCE(other, live_events.link_account(org, 'employee', seen.employee, NULL, NULL));
        IF person IS NULL THEN
            person := other;
        ELSIF other <> person THEN
            PERFORM live_events.merge_identities(org, other, person);
            person := other;
        END IF;
    END IF;
    IF person IS NULL AND seen.email IS NOT NULL THEN
        INSERT INTO live_events.identities AS i (organization_id, email, name) VALUES (org, btrim(seen.email), seen.name)
        ON CONFLICT (organization_id, lower(email)) DO UPDATE SET name = COALESCE(i.name, excluded.name) WHERE i.name IS NULL
        RETURNING i.id INTO person;
        IF person IS NULL THEN
            SELECT i.id INTO person FROM live_events.identities i WHERE i.organization_id = org AND lower(i.email) = lower(btrim(seen.email));
        END IF;
    ELSIF person IS NULL THEN
        INSERT INTO live_events.identities AS i (organization_id, name) VALUES (org, seen.name) RETURNING i.id INTO person;
    END IF;

    PERFORM FROM live_events.identities i WHERE i.organization_id = org AND i.id = person FOR NO KEY UPDATE;
    SELECT a.ref INTO other
      FROM live_events.platform_accounts a
     WHERE a.organization_id = org AND a.identity_id = person AND a.platform = seen.platform AND a.kind = link_account.kind AND a.ref <> link_account.ref;
    IF FOUND THEN
        RAISE EXCEPTION 'the address of % % belongs to %, who is another person', link_account.kind, link_account.ref, other
            USING ERRCODE = 'unique_violation', HINT = 'Correct the address, or join the two rows; then run the job again.';
    END IF;
    INSERT INTO live_events.platform_accounts AS a (organization_id, identity_id, platform, kind, ref, role, status)
    SELECT org, person, seen.platform, link_account.kind, link_account.ref, seen.role, i.status
      FROM live_events.identities i WHERE i.organization_id = org AND i.id = person
    ON CONFLICT ON CONSTRAINT platform_accounts_ref_key DO UPDATE SET status = excluded.status
     WHERE a.status <> 'suspended' AND a.status <> excluded.status;

    -- The address and name of the identity follow the row from which it has them, unless another row of the person says them too.
    UPDATE live_events.identities i
       SET email = CASE WHEN lower(i.email) = lower(link_account.old_email) AND lower(seen.email) <> lower(i.email)
                             AND NOT EXISTS (SELECT FROM live_events.identities o WHERE o.organization_id = org AND lower(o.email) = lower(seen.email))
                             AND NOT EXISTS (SELECT FROM live_events.addresses(org, person) AS s WHERE lower(s) = lower(i.email))
                        THEN btrim(seen.email) ELSE COALESCE(i.email, CASE WHEN NOT EXISTS (
                                 SELECT FROM live_events.identities o WHERE o.organization_id = org AND lower(o.email) = lower(seen.email)) THEN btrim(seen.email) END) END,
           name = CASE WHEN i.name IS NULL OR i.name = link_account.old_name THEN COALESCE(seen.name, i.name) ELSE i.name END
     WHERE i.organization_id = org AND i.id = person;
    -- A guest who signs in already reads there what was told under the guest's id.
    IF link_account.kind = 'guest' THEN
        PERFORM live_events.hand_over_inbox(org, person);
    END IF;
    RETURN person;
END
$$;
REVOKE ALL ON FUNCTION live_events.link_account(uuid, text, uuid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION live_events.link_account(uuid, text, uuid, text, text) IS
    'Gives a row of a platform its account and its person: the one it has, or the one of its address, or a new one; returns the identity';

CREATE OR REPLACE FUNCTION live_events.addresses(organization uuid, identity_id uuid) RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(e.email, c.email, g.email)
      FROM live_events.platform_accounts a
      LEFT JOIN atlvs.employees e ON a.kind = 'employee' AND e.organization_id = a.organization_id AND e.id = a.ref
      LEFT JOIN atlvs.contacts c ON a.kind = 'contact' AND c.organization_id = a.organization_id AND c.id = a.ref
      LEFT JOIN gvteway.guests g ON a.kind = 'guest' AND g.organization_id = a.organization_id AND g.id = a.ref
     WHERE a.organization_id = addresses.organization AND a.identity_id = addresses.identity_id AND COALESCE(e.email, c.email, g.email) IS NOT NULL
$$;
REVOKE ALL ON FUNCTION live_events.addresses(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION live_events.addresses(uuid, uuid) IS 'The addresses in the rows of a person''s accounts';

-- Whoever signs in as the one to be given up would lose that: then it takes a decision.
CREATE OR REPLACE FUNCTION live_events.merge_identities(organization uuid, keep uuid, give_up uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org  CONSTANT uuid := merge_identities.organization;
    gone live_events.identities;
    stays live_events.identities;
BEGIN
    PERFORM FROM live_events.identities i WHERE i.organization_id = org AND i.id IN (merge_identities.keep, merge_identities.give_up) ORDER BY i.id FOR UPDATE;
    SELECT i.* INTO stays FROM live_events.identities i WHERE i.organization_id = org AND i.id = merge_identities.keep;
    SELECT i.* INTO gone FROM live_events.identities i WHERE i.organization_id = org AND i.id = merge_identities.give_up;
    IF stays.id IS NULL OR gone.id IS NULL OR stays.id = gone.id THEN
        RAISE EXCEPTION 'there are no two identities % and %', merge_identities.keep, merge_identities.give_up
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, name, email FROM live_events.identities shows those that you may see.';
    END IF;
    IF gone.user_id <> stays.user_id THEN
        RAISE EXCEPTION 'identities % and % sign in as two users', stays.id, gone.id
            USING ERRCODE = 'unique_violation', HINT = 'Clear user_id of the one that is not used any more, then merge them.';
    END IF;
    DELETE FROM live_events.platform_accounts a
     WHERE a.organization_id = org AND a.identity_id = gone.id AND a.status = 'deprovisioned'
       AND EXISTS (SELECT FROM live_events.platform_accounts o
                    WHERE o.organization_id = org AND o.identity_id = stays.id AND o.platform = a.platform AND o.kind = a.kind);
    UPDATE live_events.platform_accounts a SET identity_id = stays.id WHERE a.organization_id = org AND a.identity_id = gone.id;
    DELETE FROM live_events.identities i WHERE i.organization_id = org AND i.id = gone.id;
    UPDATE live_events.identities i
       SET user_id = COALESCE(i.user_id, gone.user_id), email = COALESCE(i.email, gone.email), name = COALESCE(i.name, gone.name)
     WHERE i.organization_id = org AND i.id = stays.id;
END
$$;
REVOKE ALL ON FUNCTION live_events.merge_identities(uuid, uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.merge_identities(uuid, uuid, uuid) TO usher_member;
COMMENT ON FUNCTION live_events.merge_identities(uuid, uuid, uuid) IS
    'Two identities are one person: the accounts of the second become the first''s, and the second is gone; for admins of the organization';

-- The row is not there any more, or does not count. Of somebody who has left the company what stands on being employed ends too. What is
-- left of a person who was erased names nobody.
CREATE OR REPLACE FUNCTION live_events.end_account(organization uuid, kind text, ref uuid, erased boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM live_events.hold_account(end_account.organization, end_account.kind, end_account.ref, true);
    UPDATE live_events.platform_accounts a SET status = 'deprovisioned'
     WHERE a.organization_id = end_account.organization AND a.status <> 'deprovisioned'
       AND (a.kind = end_account.kind AND a.ref = end_account.ref
            OR end_account.kind = 'employee' AND a.kind = 'crew_member'
               AND a.ref IN (SELECT m.id FROM compvss.crew_members m WHERE m.organization_id = end_account.organization AND m.employee_ref = end_account.ref));
    UPDATE live_events.identities i SET email = NULL, name = NULL, user_id = NULL
     WHERE end_account.erased AND i.organization_id = end_account.organization
       AND i.id = (SELECT a.identity_id FROM live_events.platform_accounts a
                    WHERE a.organization_id = end_account.organization AND a.kind = end_account.kind AND a.ref = end_account.ref)
       AND NOT EXISTS (SELECT FROM live_events.platform_accounts a
                        WHERE a.organization_id = i.organization_id AND a.identity_id = i.id AND a.status <> 'deprovisioned');
    -- A transaction that sees what was when it began does not see an account that was made since: then it is looked for behind its end.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
       AND NOT EXISTS (SELECT FROM live_events.platform_accounts a
                        WHERE a.organization_id = end_account.organization AND a.kind = end_account.kind AND a.ref = end_account.ref) THEN
        RAISE EXCEPTION 'whether % % has an account cannot be seen in this transaction', end_account.kind, end_account.ref
            USING ERRCODE = 'serialization_failure', HINT = 'It is tried again after the transaction.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION live_events.end_account(uuid, text, uuid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION live_events.end_account(uuid, text, uuid, boolean) IS
    'Ends the account of a row that is gone, of an employee the one on the crew too; of somebody erased the identity names nobody any more';

CREATE OR REPLACE FUNCTION live_events.deprovision(organization uuid, identity_id uuid) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ended integer;
BEGIN
    UPDATE live_events.identities i
       SET status = 'deprovisioned', deprovisioned_at = COALESCE(i.deprovisioned_at, now())
     WHERE i.organization_id = deprovision.organization AND i.id = deprovision.identity_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'identity % does not exist in this organization, or is not yours to end', deprovision.identity_id
            USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT id, name, email FROM live_events.identities shows those that an admin may see.';
    END IF;
    UPDATE live_events.platform_accounts a SET status = 'deprovisioned'
     WHERE a.organization_id = deprovision.organization AND a.identity_id = deprovision.identity_id AND a.status = 'active';
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END
$$;
REVOKE ALL ON FUNCTION live_events.deprovision(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.deprovision(uuid, uuid) TO usher_member;
COMMENT ON FUNCTION live_events.deprovision(uuid, uuid) IS
    'Ends all accounts of a person in an organization, on every platform; returns how many were active; for admins of the organization';

CREATE OR REPLACE FUNCTION live_events.provision(organization uuid, identity_id uuid) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    begun integer;
BEGIN
    UPDATE live_events.identities i SET status = 'active', deprovisioned_at = NULL
     WHERE i.organization_id = provision.organization AND i.id = provision.identity_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'identity % does not exist in this organization, or is not yours to change', provision.identity_id
            USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT id, name, email FROM live_events.identities shows those that an admin may see.';
    END IF;
    UPDATE live_events.platform_accounts a SET status = 'active'
     WHERE a.organization_id = provision.organization AND a.identity_id = provision.identity_id AND a.status = 'deprovisioned'
       AND CASE a.kind
               WHEN 'employee' THEN EXISTS (SELECT FROM atlvs.employees e WHERE e.organization_id = a.organization_id AND e.id = a.ref AND e.status = 'hired')
               WHEN 'contact' THEN EXISTS (SELECT FROM atlvs.contacts c WHERE c.organization_id = a.organization_id AND c.id = a.ref AND c.erased_at IS NULL)
               WHEN 'crew_member' THEN EXISTS (
                   SELECT FROM compvss.crew_members m
                     LEFT JOIN atlvs.employees e ON e.organization_id = m.organization_id AND e.id = m.employee_ref
                    WHERE m.organization_id = a.organization_id AND m.id = a.ref AND m.status = 'active' AND e.status IS DISTINCT FROM 'left')
               ELSE EXISTS (SELECT FROM gvteway.guests g WHERE g.organization_id = a.organization_id AND g.id = a.ref AND g.erased_at IS NULL) END;
    GET DIAGNOSTICS begun = ROW_COUNT;
    RETURN begun;
END
$$;
REVOKE ALL ON FUNCTION live_events.provision(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.provision(uuid, uuid) TO usher_member;
COMMENT ON FUNCTION live_events.provision(uuid, uuid) IS
    'A person belongs to the organization again: accounts whose rows are there count; returns how many; for admins of the organization';

-- Of a person who is known only by how the person signs in: somebody without an identity has nothing to end or to begin.
CREATE OR REPLACE FUNCTION live_events.follow_member(organization uuid, user_id text, belongs boolean) RETURNS integer
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN follow_member.belongs THEN live_events.provision(i.organization_id, i.id) ELSE live_events.deprovision(i.organization_id, i.id) END
      FROM live_events.identities i
     WHERE i.organization_id = follow_member.organization AND i.user_id = follow_member.user_id
       AND (i.status = 'deprovisioned') = follow_member.belongs
$$;
REVOKE ALL ON FUNCTION live_events.follow_member(uuid, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION live_events.follow_member(uuid, text, boolean) IS
    'Ends all accounts of a user who does not belong to the organization any more, or has them count again; flows on an application''s own table of members may call it';

CREATE OR REPLACE FUNCTION live_events.link_user(organization text, email text, user_id text) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org   CONSTANT uuid := usher.managed_organization(link_user.organization);
    known live_events.identities;
BEGIN
    IF btrim(link_user.email) <> '' IS NOT TRUE OR btrim(link_user.user_id) <> '' IS NOT TRUE THEN
        RAISE EXCEPTION 'the e-mail address or the user is missing'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the address that the login provider has verified, and the sub of the person''s tokens.';
    END IF;
    SELECT i.* INTO known FROM live_events.identities i WHERE i.organization_id = org AND lower(i.email) = lower(btrim(link_user.email)) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nobody in organization "%" has the address %', link_user.organization, link_user.email
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, name, email FROM live_events.identities shows who is known.';
    END IF;
    IF known.user_id <> link_user.user_id THEN
        RAISE EXCEPTION 'the address % belongs to another user already', link_user.email
            USING ERRCODE = 'unique_violation', HINT = 'If the person signs in otherwise now, clear user_id of the identity first.';
    END IF;
    BEGIN
        UPDATE live_events.identities i SET user_id = link_user.user_id WHERE i.organization_id = org AND i.id = known.id AND i.user_id IS NULL;
    EXCEPTION WHEN unique_violation THEN
        RAISE EXCEPTION 'user "%" is somebody else in organization "%"', link_user.user_id, link_user.organization
            USING ERRCODE = 'unique_violation', HINT = 'If both are one person, live_events.merge_identities(organization, keep, give_up) makes them one.';
    END;
    RETURN known.id;
END
$$;
REVOKE ALL ON FUNCTION live_events.link_user(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.link_user(text, text, text) TO usher_member;
COMMENT ON FUNCTION live_events.link_user(text, text, text) IS
    'Says as whom the person of an address signs in; for admins of the organization, such as the server that a login provider calls when an address is verified; returns the identity';

-- With the rights of whoever calls: the policies say which rows that are.
CREATE OR REPLACE FUNCTION live_events.claims(person text DEFAULT NULL) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH who AS MATERIALIZED (
        SELECT COALESCE(claims.person, usher.actor()) AS person, claims.person IS NULL OR claims.person = usher.actor() AS own
    ), roles AS MATERIALIZED (
        SELECT m.organization_id, m.role FROM usher.memberships m, who WHERE m.user_id = who.person
    ), belongs AS (
        SELECT r.organization_id, r.role FROM roles r
         UNION ALL
        -- By the application's own table of members. Who may do everything everywhere has no list of it.
        SELECT o.id, CASE WHEN o.id = ANY ((SELECT usher.managed_organizations())::uuid[]) THEN 'admin' ELSE 'member' END
          FROM who, unnest(usher.member_organizations()) AS o (id)
         WHERE who.own AND NOT EXISTS (SELECT FROM roles r WHERE r.organization_id = o.id OR r.role = 'legend')
           AND NOT pg_has_role('usher_operator', 'USAGE')
    ), people AS (
        SELECT i.organization_id, i.id, i.name, i.status FROM live_events.identities i, who WHERE i.user_id = who.person
    )
    SELECT jsonb_build_object('user_id', (SELECT who.person FROM who), 'organizations', COALESCE(jsonb_agg(jsonb_build_object(
               'organization_id', COALESCE(b.organization_id, p.organization_id), 'slug', g.slug, 'role', b.role,
               'identity_id', p.id, 'name', p.name, 'status', p.status,
               'platforms', COALESCE((SELECT jsonb_object_agg(x.platform, x.roles)
                                        FROM (SELECT a.platform, jsonb_agg(a.role ORDER BY a.kind) AS roles FROM live_events.platform_accounts a
                                               WHERE a.organization_id = p.organization_id AND a.identity_id = p.id AND a.status = 'active'
                                               GROUP BY a.platform) AS x), '{}'))
               ORDER BY COALESCE(b.organization_id, p.organization_id)), '[]'))
      FROM belongs b
      FULL JOIN people p ON p.organization_id = b.organization_id
      LEFT JOIN usher.organizations g ON g.id = COALESCE(b.organization_id, p.organization_id)
$$;
REVOKE ALL ON FUNCTION live_events.claims(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_events.claims(text) TO usher_member, usher_reader;
COMMENT ON FUNCTION live_events.claims(text) IS
    'Who somebody is, by default the caller: organizations with the role there, the identity, and its roles on each platform; of others only what the caller may read';

CREATE OR REPLACE FUNCTION live_events.hand_over_inbox(organization uuid, identity_id uuid) RETURNS bigint
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(sum(usher.forward_notifications(hand_over_inbox.organization::text, a.ref::text, i.user_id)), 0)::bigint
      FROM live_events.identities i
      JOIN live_events.platform_accounts a ON a.organization_id = i.organization_id AND a.identity_id = i.id AND a.platform = 'gvteway' AND a.kind = 'guest'
     WHERE i.organization_id = hand_over_inbox.organization AND i.id = hand_over_inbox.identity_id AND i.user_id IS NOT NULL
$$;
REVOKE ALL ON FUNCTION live_events.hand_over_inbox(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION live_events.hand_over_inbox(uuid, uuid) IS 'What a person was told as a guest is from now on where the person signs in; returns how many messages have moved';
