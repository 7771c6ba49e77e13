-- Pack live_events: the tables of gvteway: events, guests, what they buy, and its money.

CREATE TABLE IF NOT EXISTS gvteway.venues (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    name            text        NOT NULL,
    address         text,
    timezone        text        NOT NULL DEFAULT 'UTC',
    max_capacity    integer,
    status          text        NOT NULL DEFAULT 'active',
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT venues_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT venues_name_key UNIQUE (organization_id, name),
    CONSTRAINT venues_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT venues_status_known CHECK (status IN ('active', 'closed')),
    CONSTRAINT venues_max_capacity_not_negative CHECK (max_capacity >= 0)
);
CREATE INDEX IF NOT EXISTS venues_status_idx ON gvteway.venues (organization_id, status);
COMMENT ON TABLE gvteway.venues IS 'Pack live_events: Places guests know';

CREATE TABLE IF NOT EXISTS gvteway.events (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    production_ref  uuid,
    venue_id        uuid,
    venue_name      text,
    slug            text        NOT NULL,
    title           text        NOT NULL,
    status          text        NOT NULL DEFAULT 'draft',
    timezone        text        NOT NULL DEFAULT 'UTC',
    starts_at       timestamptz,
    ends_at         timestamptz,
    doors_at        timestamptz,
    curfew_at       timestamptz,
    capacity        integer,
    lineup          jsonb       NOT NULL DEFAULT '[]',
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT events_production_key UNIQUE (organization_id, production_ref),
    CONSTRAINT events_slug_key UNIQUE (organization_id, slug),
    CONSTRAINT events_venue_fkey FOREIGN KEY (organization_id, venue_id)
        REFERENCES gvteway.venues (organization_id, id) ON DELETE SET NULL (venue_id),
    CONSTRAINT events_title_given CHECK (btrim(title) <> ''),
    CONSTRAINT events_status_known
        CHECK (status IN ('draft', 'published', 'on_sale', 'live', 'delayed', 'ended', 'cancelled')),
    CONSTRAINT events_capacity_not_negative CHECK (capacity >= 0),
    CONSTRAINT events_ends_after_start CHECK (ends_at >= starts_at),
    CONSTRAINT events_lineup_is_array CHECK (jsonb_typeof(lineup) = 'array')
);
CREATE INDEX IF NOT EXISTS events_status_idx ON gvteway.events (organization_id, status);
CREATE INDEX IF NOT EXISTS events_venue_idx ON gvteway.events (organization_id, venue_id);
COMMENT ON TABLE gvteway.events IS 'Pack live_events: What guests can come to. At most one per production.';
COMMENT ON COLUMN gvteway.events.production_ref IS 'Id in compvss.productions; empty for an event without a production';
COMMENT ON COLUMN gvteway.events.venue_name IS 'As the production says it';
COMMENT ON COLUMN gvteway.events.venue_id IS 'The venue, once somebody has chosen it; no flow writes it';
ALTER TABLE gvteway.events ADD COLUMN IF NOT EXISTS booking_ref uuid;
ALTER TABLE gvteway.events ADD COLUMN IF NOT EXISTS deal_ref uuid;
CREATE UNIQUE INDEX IF NOT EXISTS events_booking_key ON gvteway.events (organization_id, booking_ref);
CREATE UNIQUE INDEX IF NOT EXISTS events_deal_key ON gvteway.events (organization_id, deal_ref);
COMMENT ON COLUMN gvteway.events.booking_ref IS 'Id in atlvs.artist_bookings of the booking that made it as a draft (W22)';
COMMENT ON COLUMN gvteway.events.deal_ref IS 'Id in atlvs.deals of that booking: by it the deal''s production finds the draft and takes it over (W25)';

-- What a guest may sit in, and what is sold of it.
CREATE TABLE IF NOT EXISTS gvteway.sections (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    code            text        NOT NULL,
    kind            text        NOT NULL DEFAULT 'seated',
    capacity        integer     NOT NULL DEFAULT 0,
    price_tier      text,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sections_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT sections_code_key UNIQUE (organization_id, event_id, code),
    CONSTRAINT sections_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT sections_code_given CHECK (btrim(code) <> ''),
    CONSTRAINT sections_kind_known CHECK (kind IN ('seated', 'ga', 'vip', 'accessible')),
    CONSTRAINT sections_capacity_not_negative CHECK (capacity >= 0)
);
COMMENT ON TABLE gvteway.sections IS 'Pack live_events: Parts of an event''s house';

CREATE TABLE IF NOT EXISTS gvteway.seats (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    section_id      uuid        NOT NULL,
    row_label       text        NOT NULL,
    seat_no         integer     NOT NULL,
    status          text        NOT NULL DEFAULT 'open',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT seats_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT seats_place_key UNIQUE (organization_id, section_id, row_label, seat_no),
    CONSTRAINT seats_section_fkey FOREIGN KEY (organization_id, section_id)
        REFERENCES gvteway.sections (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT seats_status_known CHECK (status IN ('open', 'held', 'sold', 'blocked')),
    CONSTRAINT seats_seat_no_positive CHECK (seat_no > 0)
);
CREATE INDEX IF NOT EXISTS seats_status_idx ON gvteway.seats (organization_id, status);
COMMENT ON TABLE gvteway.seats IS 'Pack live_events: Places in a section, one row each';

CREATE TABLE IF NOT EXISTS gvteway.ticket_types (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    section_id      uuid,
    name            text        NOT NULL,
    price           numeric     NOT NULL DEFAULT 0,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    quantity        integer     NOT NULL DEFAULT 0,
    sold            integer     NOT NULL DEFAULT 0,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ticket_types_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT ticket_types_name_key UNIQUE (organization_id, event_id, name),
    CONSTRAINT ticket_types_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT ticket_types_section_fkey FOREIGN KEY (organization_id, section_id)
        REFERENCES gvteway.sections (organization_id, id) ON DELETE SET NULL (section_id),
    CONSTRAINT ticket_types_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT ticket_types_price_range CHECK (price >= 0 AND price < 1e15),
    CONSTRAINT ticket_types_currency_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ticket_types_not_oversold CHECK (sold >= 0 AND sold <= quantity)
);
CREATE INDEX IF NOT EXISTS ticket_types_section_idx ON gvteway.ticket_types (organization_id, section_id);
COMMENT ON TABLE gvteway.ticket_types IS 'Pack live_events: What is sold for an event, for how much and how often';

-- Who comes. What the CRM says of a guest stands in crm_profile; the trigger below makes the profile of it and of what the guest
-- has said, under the lock of the row.
CREATE TABLE IF NOT EXISTS gvteway.guests (
    organization_id   uuid          NOT NULL,
    id                uuid          NOT NULL DEFAULT gen_random_uuid(),
    contact_ref       uuid,
    email             text          NOT NULL,
    name              text,
    phone             text,
    vip_level         smallint      NOT NULL DEFAULT 0,
    marketing_opt_in  boolean       NOT NULL DEFAULT false,
    profile_edited_at timestamptz,
    edited            jsonb         NOT NULL DEFAULT '{}',
    crm_profile       jsonb         NOT NULL DEFAULT '{}',
    lifetime_spend    numeric       NOT NULL DEFAULT 0,
    currency          char(3)       NOT NULL DEFAULT 'USD',
    erased_at         timestamptz,
    version           bigint        NOT NULL DEFAULT 1,
    created_at        timestamptz   NOT NULL DEFAULT now(),
    updated_at        timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT guests_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT guests_contact_key UNIQUE (organization_id, contact_ref),
    CONSTRAINT guests_email_given CHECK (btrim(email) <> ''),
    CONSTRAINT guests_vip_level_range CHECK (vip_level BETWEEN 0 AND 9),
    CONSTRAINT guests_edited_is_object CHECK (jsonb_typeof(edited) = 'object' AND jsonb_typeof(crm_profile) = 'object'),
    CONSTRAINT guests_lifetime_range CHECK (lifetime_spend > -1e15 AND lifetime_spend < 1e15),
    CONSTRAINT guests_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE UNIQUE INDEX IF NOT EXISTS guests_email_key ON gvteway.guests (organization_id, lower(email));
COMMENT ON TABLE gvteway.guests IS 'Pack live_events: People who come. At most one per contact and per e-mail address.';
COMMENT ON COLUMN gvteway.guests.contact_ref IS 'Id in atlvs.contacts; set when the contact first met this guest, by e-mail, and kept from then on';
COMMENT ON COLUMN gvteway.guests.profile_edited_at IS 'When the guest last changed name, e-mail, phone or consent, other than by the CRM';
COMMENT ON COLUMN gvteway.guests.edited IS 'The same for each field: {"phone": "2026-05-01T10:00:00+00:00"}';
COMMENT ON COLUMN gvteway.guests.crm_profile IS
    'What the CRM last said: name, email, phone, consent (given, none, withdrawn), at. Whoever changes it speaks for the CRM; every other change is the guest''s own';
COMMENT ON COLUMN gvteway.guests.lifetime_spend IS 'Paid orders and memberships in currency, refunds taken off (W19)';
COMMENT ON COLUMN gvteway.guests.currency IS 'In which the guest has paid most often';

-- Field by field: what the CRM says anew is taken unless the guest has changed the field later. Consent that was withdrawn, on either
-- side, stays withdrawn until the guest gives it again.
CREATE OR REPLACE FUNCTION gvteway.keep_guest_profile() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    said CONSTANT jsonb := NEW.crm_profile;
    seen jsonb := '{}';
    own  text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF said = '{}' THEN
            own := array_remove(ARRAY['email', CASE WHEN NEW.name IS NOT NULL THEN 'name' END, CASE WHEN NEW.phone IS NOT NULL THEN 'phone' END,
                                      CASE WHEN NEW.marketing_opt_in THEN 'marketing_opt_in' END], NULL);
        END IF;
    -- Whoever erases a guest, or clears what the CRM has said, does not speak for it.
    ELSIF said IS DISTINCT FROM OLD.crm_profile AND said ? 'at' AND NEW.erased_at IS NOT DISTINCT FROM OLD.erased_at THEN
        seen := OLD.crm_profile;
        NEW.edited := OLD.edited;
        NEW.profile_edited_at := OLD.profile_edited_at;
        NEW.email := OLD.email;
        NEW.name := OLD.name;
        NEW.phone := OLD.phone;
        NEW.marketing_opt_in := OLD.marketing_opt_in;
        IF OLD.erased_at IS NOT NULL THEN
            NEW.crm_profile := seen;
        ELSE
            IF said ->> 'email' IS DISTINCT FROM seen ->> 'email' AND said ->> 'email' IS NOT NULL
               AND COALESCE((OLD.edited ->> 'email')::timestamptz <= (said ->> 'at')::timestamptz, true) THEN
                NEW.email := said ->> 'email';
            END IF;
            IF said ->> 'name' IS DISTINCT FROM seen ->> 'name'
               AND COALESCE((OLD.edited ->> 'name')::timestamptz <= (said ->> 'at')::timestamptz, true) THEN
                NEW.name := said ->> 'name';
            END IF;
            IF said ->> 'phone' IS DISTINCT FROM seen ->> 'phone'
               AND COALESCE((OLD.edited ->> 'phone')::timestamptz <= (said ->> 'at')::timestamptz, true) THEN
                NEW.phone := said ->> 'phone';
            END IF;
            IF said ->> 'consent' = 'withdrawn' OR said ->> 'consent' = 'none' AND seen ->> 'consent' = 'given' THEN
                IF said ->> 'consent' IS DISTINCT FROM seen ->> 'consent' THEN
                    NEW.marketing_opt_in := false;
                END IF;
            ELSIF said ->> 'consent' = 'given' AND seen ->> 'consent' IS DISTINCT FROM 'given'
                  -- The guest has withdrawn it: only the guest gives it again.
                  AND (OLD.marketing_opt_in OR OLD.edited ->> 'marketing_opt_in' IS NULL) THEN
                NEW.marketing_opt_in := true;
            END IF;
        END IF;
    ELSE
        own := array_remove(ARRAY[CASE WHEN NEW.email IS DISTINCT FROM OLD.email THEN 'email' END,
                                  CASE WHEN NEW.name IS DISTINCT FROM OLD.name THEN 'name' END,
                                  CASE WHEN NEW.phone IS DISTINCT FROM OLD.phone THEN 'phone' END,
                                  CASE WHEN NEW.marketing_opt_in IS DISTINCT FROM OLD.marketing_opt_in THEN 'marketing_opt_in' END], NULL);
    END IF;
    IF cardinality(own) > 0 THEN
        NEW.profile_edited_at := clock_timestamp();
        NEW.edited := NEW.edited || (SELECT jsonb_object_agg(f, to_jsonb(NEW.profile_edited_at)) FROM unnest(own) AS f);
    END IF;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION gvteway.keep_guest_profile() FROM PUBLIC;
COMMENT ON FUNCTION gvteway.keep_guest_profile() IS
    'Trigger: what the CRM says of a guest is taken field by field, unless the guest has changed it later; notes when the guest has changed what';
-- Before touch_row by its name, so that a write of the CRM that comes to nothing but crm_profile is still one change.
CREATE OR REPLACE TRIGGER keep_guest_profile BEFORE INSERT OR UPDATE ON gvteway.guests
    FOR EACH ROW EXECUTE FUNCTION gvteway.keep_guest_profile();

CREATE TABLE IF NOT EXISTS gvteway.memberships (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    guest_id        uuid        NOT NULL,
    tier            text        NOT NULL,
    price           numeric     NOT NULL DEFAULT 0,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    starts_on       date        NOT NULL,
    ends_on         date,
    status          text        NOT NULL DEFAULT 'active',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT memberships_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT memberships_guest_fkey FOREIGN KEY (organization_id, guest_id)
        REFERENCES gvteway.guests (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT memberships_tier_given CHECK (btrim(tier) <> ''),
    CONSTRAINT memberships_price_range CHECK (price >= 0 AND price < 1e15),
    CONSTRAINT memberships_currency_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT memberships_ends_after_start CHECK (ends_on >= starts_on),
    CONSTRAINT memberships_status_known CHECK (status IN ('pending', 'active', 'expired', 'cancelled'))
);
CREATE INDEX IF NOT EXISTS memberships_status_idx ON gvteway.memberships (organization_id, status);
CREATE INDEX IF NOT EXISTS memberships_guest_idx ON gvteway.memberships (organization_id, guest_id);
COMMENT ON TABLE gvteway.memberships IS 'Pack live_events: What a guest pays for a season; a cancelled one counts as given back, a pending one as not paid';

-- Money of the marketing and of the payment provider. Amounts are plain numeric where they are booked.
CREATE TABLE IF NOT EXISTS gvteway.campaigns (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid,
    name            text        NOT NULL,
    channel         text        NOT NULL DEFAULT 'other',
    budget          numeric     NOT NULL DEFAULT 0,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    utm             text,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT campaigns_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT campaigns_event_fkey FOREIGN KEY (organization_id, event_id)
        REFERENCES gvteway.events (organization_id, id) ON DELETE SET NULL (event_id),
    CONSTRAINT campaigns_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT campaigns_budget_range CHECK (budget >= 0 AND budget < 1e15),
    CONSTRAINT campaigns_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS campaigns_event_idx ON gvteway.campaigns (organization_id, event_id);
CREATE UNIQUE INDEX IF NOT EXISTS campaigns_utm_key ON gvteway.campaigns (organization_id, utm) WHERE utm IS NOT NULL;
COMMENT ON TABLE gvteway.campaigns IS 'Pack live_events: Marketing campaigns; orders name the one that brought them';
COMMENT ON COLUMN gvteway.campaigns.currency IS 'Of budget and spend';
COMMENT ON COLUMN gvteway.campaigns.utm IS 'By which links tell it';

CREATE TABLE IF NOT EXISTS gvteway.campaign_spend (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    campaign_id     uuid        NOT NULL,
    spent_on        date        NOT NULL,
    amount          numeric     NOT NULL,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    source_ref      text        NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT campaign_spend_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT campaign_spend_source_key UNIQUE (organization_id, source_ref),
    CONSTRAINT campaign_spend_campaign_fkey FOREIGN KEY (organization_id, campaign_id) REFERENCES gvteway.campaigns (organization_id, id),
    CONSTRAINT campaign_spend_amount_range CHECK (amount > -1e15 AND amount < 1e15 AND amount <> 0),
    CONSTRAINT campaign_spend_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS campaign_spend_campaign_idx ON gvteway.campaign_spend (organization_id, campaign_id);
COMMENT ON TABLE gvteway.campaign_spend IS 'Pack live_events: What a campaign has cost, entry by entry; only added to, below 0 is a credit';
COMMENT ON COLUMN gvteway.campaign_spend.source_ref IS 'The number of the invoice, or of the channel''s own record';

CREATE TABLE IF NOT EXISTS gvteway.payouts (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    provider        text        NOT NULL,
    payout_ref      text        NOT NULL,
    gross           numeric     NOT NULL,
    fees            numeric     NOT NULL DEFAULT 0,
    refunds         numeric     NOT NULL DEFAULT 0,
    net             numeric     NOT NULL,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    status          text        NOT NULL DEFAULT 'pending',
    paid_at         timestamptz,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payouts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT payouts_ref_key UNIQUE (organization_id, payout_ref),
    CONSTRAINT payouts_ref_given CHECK (btrim(payout_ref) <> '' AND btrim(provider) <> ''),
    CONSTRAINT payouts_amounts_range CHECK (
        gross >= 0 AND fees >= 0 AND refunds >= 0 AND gross < 1e15 AND fees < 1e15 AND refunds < 1e15 AND net > -1e15 AND net < 1e15),
    CONSTRAINT payouts_currency_code CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT payouts_status_known CHECK (status IN ('pending', 'in_transit', 'paid', 'failed', 'cancelled'))
);
CREATE INDEX IF NOT EXISTS payouts_status_idx ON gvteway.payouts (organization_id, status);
COMMENT ON TABLE gvteway.payouts IS 'Pack live_events: What the payment provider pays out; orders name theirs in payout_id';
COMMENT ON COLUMN gvteway.payouts.gross IS 'Of the orders in it, before the provider takes its fees and what was refunded';
COMMENT ON COLUMN gvteway.payouts.net IS 'What arrives at the bank: gross - fees - refunds';

CREATE OR REPLACE FUNCTION gvteway.keep_booked_money() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_TABLE_NAME = 'campaign_spend' THEN
        -- Before it is booked a mistake may be corrected.
        IF NOT EXISTS (SELECT FROM atlvs.journals j WHERE j.organization_id = OLD.organization_id
                          AND j.source_system = 'campaign_spend' AND j.source_ref = OLD.id::text) THEN
            RETURN COALESCE(NEW, OLD);
        END IF;
        RAISE EXCEPTION 'spend % is booked', OLD.source_ref
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Enter the difference as a row of its own; below 0 is a credit.';
    END IF;
    -- A payout that is not booked yet, say because it does not add up, may be corrected too.
    IF NOT EXISTS (SELECT FROM atlvs.journals j WHERE j.organization_id = OLD.organization_id
                      AND j.source_system = 'payout' AND j.source_ref = OLD.id::text) THEN
        RETURN COALESCE(NEW, OLD);
    END IF;
    RAISE EXCEPTION 'payout % is paid and booked', OLD.payout_ref
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Enter what comes later as a payout of its own.';
END
$$;
REVOKE ALL ON FUNCTION gvteway.keep_booked_money() FROM PUBLIC;
COMMENT ON FUNCTION gvteway.keep_booked_money() IS 'Trigger: what has a journal stays as it was booked';
CREATE OR REPLACE TRIGGER keep_booked_money BEFORE UPDATE ON gvteway.campaign_spend
    FOR EACH ROW WHEN ((OLD.campaign_id, OLD.spent_on, OLD.amount, OLD.currency, OLD.source_ref)
                       IS DISTINCT FROM (NEW.campaign_id, NEW.spent_on, NEW.amount, NEW.currency, NEW.source_ref))
    EXECUTE FUNCTION gvteway.keep_booked_money();
CREATE OR REPLACE TRIGGER keep_booked_money BEFORE UPDATE ON gvteway.payouts
    FOR EACH ROW WHEN (OLD.status = 'paid'
                       AND (OLD.provider, OLD.payout_ref, OLD.gross, OLD.fees, OLD.refunds, OLD.net, OLD.currency, OLD.status, OLD.paid_at)
                           IS DISTINCT FROM (NEW.provider, NEW.payout_ref, NEW.gross, NEW.fees, NEW.refunds, NEW.net, NEW.currency, NEW.status, NEW.paid_at))
    EXECUTE FUNCTION gvteway.keep_booked_money();
CREATE OR REPLACE TRIGGER keep_booked_row BEFORE DELETE ON gvteway.campaign_spend
    FOR EACH ROW EXECUTE FUNCTION gvteway.keep_booked_money();
CREATE OR REPLACE TRIGGER keep_booked_row BEFORE DELETE ON gvteway.payouts
    FOR EACH ROW WHEN (OLD.status = 'paid') EXECUTE FUNCTION gvteway.keep_booked_money();

-- Amounts are plain numeric, as in the ledger: a currency may have more than two minor digits.
CREATE TABLE IF NOT EXISTS gvteway.orders (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id        uuid        NOT NULL,
    guest_ref       uuid,
    number          text        NOT NULL,
    status          text        NOT NULL DEFAULT 'pending',
    subtotal        numeric     NOT NULL DEFAULT 0,
    fees            numeric     NOT NULL DEFAULT 0,
    tax             numeric     NOT NULL DEFAULT 0,
    total           numeric     NOT NULL DEFAULT 0,
    currency        char(3)     NOT NULL DEFAULT 'USD',
    jurisdiction    text,
    paid_at         timestamptz,
    refunded_at     timestamptz,
    metadata        jsonb       NOT NULL DEFAULT '{}',
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT orders_number_key UNIQUE (organization_id, number),
    CONSTRAINT orders_event_fkey FOREIGN KEY (organization_id, event_id) REFERENCES gvteway.events (organization_id, id),
    CONSTRAINT orders_number_given CHECK (btrim(number) <> ''),
    CONSTRAINT orders_status_known CHECK (status IN ('pending', 'paid', 'refunded', 'cancelled')),
    CONSTRAINT orders_amounts_range CHECK (
        subtotal >= 0 AND fees >= 0 AND tax >= 0 AND total >= 0 AND subtotal < 1e15 AND fees < 1e15 AND tax < 1e15 AND total < 1e15),
    CONSTRAINT orders_currency_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE INDEX IF NOT EXISTS orders_status_idx ON gvteway.orders (organization_id, status);
CREATE INDEX IF NOT EXISTS orders_event_idx ON gvteway.orders (organization_id, event_id);
COMMENT ON TABLE gvteway.orders IS 'Pack live_events: What a guest buys at once. A paid order becomes ticket revenue, once.';
COMMENT ON COLUMN gvteway.orders.guest_ref IS 'Id in gvteway.guests; without a foreign key, because orders of version 0.1.0 may name anybody';
COMMENT ON COLUMN gvteway.orders.subtotal IS 'Sum of the items';
COMMENT ON COLUMN gvteway.orders.fees IS 'What the guest pays on top for service; the payment provider''s own charges are not here';
COMMENT ON COLUMN gvteway.orders.total IS 'subtotal + fees + tax';
COMMENT ON COLUMN gvteway.orders.jurisdiction IS 'Where the tax is owed';
ALTER TABLE gvteway.orders ADD COLUMN IF NOT EXISTS campaign_id uuid;
ALTER TABLE gvteway.orders ADD COLUMN IF NOT EXISTS payout_id uuid;
DO $keys$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'gvteway.orders'::regclass AND conname = 'orders_campaign_fkey') THEN
        ALTER TABLE gvteway.orders ADD CONSTRAINT orders_campaign_fkey FOREIGN KEY (organization_id, campaign_id)
            REFERENCES gvteway.campaigns (organization_id, id) ON DELETE SET NULL (campaign_id);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'gvteway.orders'::regclass AND conname = 'orders_payout_fkey') THEN
        ALTER TABLE gvteway.orders ADD CONSTRAINT orders_payout_fkey FOREIGN KEY (organization_id, payout_id)
            REFERENCES gvteway.payouts (organization_id, id) ON DELETE SET NULL (payout_id);
    END IF;
END
$keys$;
CREATE INDEX IF NOT EXISTS orders_campaign_idx ON gvteway.orders (organization_id, campaign_id) WHERE campaign_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS orders_payout_idx ON gvteway.orders (organization_id, payout_id) WHERE payout_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS orders_guest_idx ON gvteway.orders (organization_id, guest_ref) WHERE guest_ref IS NOT NULL;
CREATE INDEX IF NOT EXISTS orders_paid_idx ON gvteway.orders (organization_id, paid_at) WHERE paid_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS orders_refunded_idx ON gvteway.orders (organization_id, refunded_at) WHERE refunded_at IS NOT NULL;
COMMENT ON COLUMN gvteway.orders.campaign_id IS 'The campaign that brought the order';
COMMENT ON COLUMN gvteway.orders.payout_id IS 'The payout that the order came in, once the provider has said so';

CREATE TABLE IF NOT EXISTS gvteway.order_items (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    order_id        uuid        NOT NULL,
    kind            text        NOT NULL DEFAULT 'ticket',
    sku             text,
    qty             integer     NOT NULL DEFAULT 1,
    unit_price      numeric     NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_items_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT order_items_order_fkey FOREIGN KEY (organization_id, order_id)
        REFERENCES gvteway.orders (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT order_items_kind_known CHECK (kind IN ('ticket', 'merch', 'parking')),
    CONSTRAINT order_items_qty_positive CHECK (qty > 0),
    CONSTRAINT order_items_price_range CHECK (unit_price >= 0 AND unit_price < 1e15)
);
CREATE INDEX IF NOT EXISTS order_items_order_idx ON gvteway.order_items (organization_id, order_id);
COMMENT ON TABLE gvteway.order_items IS 'Pack live_events: The lines of an order';
ALTER TABLE gvteway.order_items ADD COLUMN IF NOT EXISTS ticket_type_id uuid;
DO $keys$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'gvteway.order_items'::regclass AND conname = 'order_items_ticket_type_fkey') THEN
        ALTER TABLE gvteway.order_items ADD CONSTRAINT order_items_ticket_type_fkey FOREIGN KEY (organization_id, ticket_type_id)
            REFERENCES gvteway.ticket_types (organization_id, id) ON DELETE SET NULL (ticket_type_id);
    END IF;
END
$keys$;
CREATE INDEX IF NOT EXISTS order_items_sku_idx ON gvteway.order_items (organization_id, sku) WHERE sku IS NOT NULL;
CREATE INDEX IF NOT EXISTS order_items_ticket_type_idx ON gvteway.order_items (organization_id, ticket_type_id) WHERE ticket_type_id IS NOT NULL;

-- What has been booked stays as it was booked: a paid order can be refunded, and a refunded one stays refunded.
CREATE OR REPLACE FUNCTION gvteway.keep_paid_order() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.status IN ('paid', 'refunded') THEN
        IF NEW.status <> OLD.status AND (OLD.status, NEW.status) <> ('paid', 'refunded') THEN
            RAISE EXCEPTION 'order % is % and cannot become %', OLD.number, OLD.status, NEW.status
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'A paid order can be refunded; a new payment is a new order.';
        END IF;
        IF (NEW.event_id, NEW.subtotal, NEW.fees, NEW.tax, NEW.total, NEW.currency)
           IS DISTINCT FROM (OLD.event_id, OLD.subtotal, OLD.fees, OLD.tax, OLD.total, OLD.currency) THEN
            RAISE EXCEPTION 'order % is % and its event and amounts are booked', OLD.number, OLD.status
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Refund the order and make a new one.';
        END IF;
    END IF;
    IF NEW.status = 'paid' THEN
        NEW.paid_at := COALESCE(NEW.paid_at, now());
    ELSIF NEW.status = 'refunded' THEN
        NEW.refunded_at := COALESCE(NEW.refunded_at, now());
    END IF;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION gvteway.keep_paid_order() FROM PUBLIC;
COMMENT ON FUNCTION gvteway.keep_paid_order() IS 'Trigger: a paid order keeps its amounts and can only be refunded; fills in paid_at and refunded_at';
CREATE OR REPLACE TRIGGER keep_paid_order BEFORE UPDATE ON gvteway.orders
    FOR EACH ROW EXECUTE FUNCTION gvteway.keep_paid_order();

CREATE OR REPLACE FUNCTION gvteway.stamp_paid_order() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.paid_at := now();
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION gvteway.stamp_paid_order() FROM PUBLIC;
COMMENT ON FUNCTION gvteway.stamp_paid_order() IS 'Trigger: fills in when an order that is entered as paid was paid';
CREATE OR REPLACE TRIGGER stamp_paid_order BEFORE INSERT ON gvteway.orders
    FOR EACH ROW WHEN (NEW.status = 'paid' AND NEW.paid_at IS NULL) EXECUTE FUNCTION gvteway.stamp_paid_order();

CREATE OR REPLACE FUNCTION gvteway.stamp_paid_payout() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.paid_at := now();
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION gvteway.stamp_paid_payout() FROM PUBLIC;
COMMENT ON FUNCTION gvteway.stamp_paid_payout() IS 'Trigger: fills in when a payout was paid, unless the writer says when';
CREATE OR REPLACE TRIGGER stamp_paid_payout BEFORE INSERT OR UPDATE ON gvteway.payouts
    FOR EACH ROW WHEN (NEW.status = 'paid' AND NEW.paid_at IS NULL) EXECUTE FUNCTION gvteway.stamp_paid_payout();
