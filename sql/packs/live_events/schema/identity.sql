-- Pack live_events: who people are: one identity for each person and organization, with what the person is on each platform.
--
-- A schema of the pack's own: an identity belongs to none of the three systems, and each of them can be moved away without it.
-- (Not in usher: those tables are the engine's, and a pack's policies, exports and removal do not reach there.)
CREATE SCHEMA IF NOT EXISTS live_events;
COMMENT ON SCHEMA live_events IS 'Pack live_events: what belongs to no single system: identities, search, figures, and what clients call';

CREATE TABLE IF NOT EXISTS live_events.identities (
    organization_id  uuid        NOT NULL,
    id               uuid        NOT NULL DEFAULT gen_random_uuid(),
    user_id          text,
    email            text,
    name             text,
    status           text        NOT NULL DEFAULT 'active',
    deprovisioned_at timestamptz,
    version          bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT identities_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT identities_user_key UNIQUE (organization_id, user_id),
    CONSTRAINT identities_words_given CHECK (btrim(user_id) <> '' AND btrim(email) <> ''),
    CONSTRAINT identities_status_known CHECK (status IN ('active', 'deprovisioned')),
    CONSTRAINT identities_deprovisioned_whole CHECK ((status = 'deprovisioned') = (deprovisioned_at IS NOT NULL))
);
CREATE UNIQUE INDEX IF NOT EXISTS identities_email_key ON live_events.identities (organization_id, lower(email));
CREATE INDEX IF NOT EXISTS identities_status_idx ON live_events.identities (organization_id, status);
CREATE INDEX IF NOT EXISTS identities_user_idx ON live_events.identities (user_id) WHERE user_id IS NOT NULL;
COMMENT ON TABLE live_events.identities IS 'Pack live_events: A person, once for each organization, whatever the person is there (W46)';
COMMENT ON COLUMN live_events.identities.user_id IS 'As the person signs in: the sub of a token, what usher.actor() says; empty until somebody has linked it';
COMMENT ON COLUMN live_events.identities.email IS 'By which rows of the platforms first find it; from then on they are linked';
COMMENT ON COLUMN live_events.identities.status IS 'deprovisioned: no account of the person counts, until the person belongs to the organization again';

CREATE TABLE IF NOT EXISTS live_events.platform_accounts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    identity_id     uuid        NOT NULL,
    platform        text        NOT NULL,
    kind            text        NOT NULL,
    ref             uuid        NOT NULL,
    role            text        NOT NULL,
    status          text        NOT NULL DEFAULT 'active',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT platform_accounts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT platform_accounts_ref_key UNIQUE (organization_id, platform, kind, ref),
    CONSTRAINT platform_accounts_kind_key UNIQUE (organization_id, identity_id, platform, kind),
    CONSTRAINT platform_accounts_identity_fkey FOREIGN KEY (organization_id, identity_id)
        REFERENCES live_events.identities (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT platform_accounts_kind_known CHECK (
        (platform, kind) IN (('atlvs', 'employee'), ('atlvs', 'contact'), ('compvss', 'crew_member'), ('gvteway', 'guest'))),
    CONSTRAINT platform_accounts_role_given CHECK (btrim(role) <> ''),
    CONSTRAINT platform_accounts_status_known CHECK (status IN ('active', 'suspended', 'deprovisioned'))
);
CREATE INDEX IF NOT EXISTS platform_accounts_status_idx ON live_events.platform_accounts (organization_id, status);
COMMENT ON TABLE live_events.platform_accounts IS 'Pack live_events: What a person is on a platform: an employee, a contact, on the crew, a guest; one of each (W46)';
COMMENT ON COLUMN live_events.platform_accounts.ref IS 'Id in atlvs.employees, atlvs.contacts, compvss.crew_members or gvteway.guests';
COMMENT ON COLUMN live_events.platform_accounts.role IS 'What the person may be told to be there; set when the account is made, and yours to change';
COMMENT ON COLUMN live_events.platform_accounts.status IS 'suspended: by an admin, and kept by the flows; deprovisioned: its row, or the person, is not there any more';

-- Everybody reads who they are themselves, also guests, who are members of no organization. What admins read the manifest says.
DO $policies$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'live_events.identities'::regclass AND polname = 'person_reads') THEN
        CREATE POLICY person_reads ON live_events.identities FOR SELECT TO usher_member USING (user_id = (SELECT usher.actor()));
    END IF;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = 'live_events.platform_accounts'::regclass AND polname = 'person_reads') THEN
        CREATE POLICY person_reads ON live_events.platform_accounts FOR SELECT TO usher_member
            USING ((organization_id, identity_id) IN (SELECT i.organization_id, i.id FROM live_events.identities i WHERE i.user_id = (SELECT usher.actor())));
    END IF;
END
$policies$;
