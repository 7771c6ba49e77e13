-- An application as people build it on Supabase: everything in one schema, a uuid for every row, enums, row level security by membership.
-- Nothing in it knows of pg_usher.
CREATE TYPE public.member_role AS ENUM ('owner', 'staff');
CREATE TYPE public.deal_stage AS ENUM ('lead', 'negotiation', 'closed_won', 'closed_lost');
CREATE TYPE public.project_status AS ENUM ('backlog', 'planning', 'running', 'wrap_up', 'done', 'cancelled');
CREATE TYPE public.asset_status AS ENUM ('in_stock', 'booked', 'out', 'repair', 'sold');
CREATE TYPE public.request_status AS ENUM ('requested', 'allocated', 'denied', 'deployed', 'returned');
CREATE TYPE public.order_status AS ENUM ('cart', 'paid', 'refunded', 'void');
CREATE TYPE public.account_type AS ENUM ('asset', 'liability', 'equity', 'income', 'expense');
CREATE TYPE public.event_status AS ENUM ('draft', 'published', 'on_sale', 'live', 'delayed', 'ended', 'cancelled');

CREATE TABLE public.organizations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), slug text UNIQUE NOT NULL, name text NOT NULL, timezone text, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.profiles (id uuid PRIMARY KEY, full_name text, avatar_url text, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.organization_members (
    org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE, user_id uuid NOT NULL REFERENCES public.profiles ON DELETE CASCADE,
    role public.member_role NOT NULL DEFAULT 'staff', PRIMARY KEY (org_id, user_id));

CREATE TABLE public.customers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    company text, given_name text, family_name text, email text, phone text, newsletter boolean NOT NULL DEFAULT false,
    average_score numeric, scores integer NOT NULL DEFAULT 0, worth numeric NOT NULL DEFAULT 0, currency text NOT NULL DEFAULT 'EUR', erased_at timestamptz,
    secret_note text, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.deals (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    customer_id uuid REFERENCES public.customers, name text NOT NULL, stage public.deal_stage NOT NULL DEFAULT 'lead', amount numeric(12,2), event_date date,
    location text, guests integer, details jsonb NOT NULL DEFAULT '{}', closed_at timestamptz, owner uuid REFERENCES public.profiles, secret_note text,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.projects (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    deal_id uuid REFERENCES public.deals, project_code text NOT NULL, title text NOT NULL, status public.project_status NOT NULL DEFAULT 'backlog',
    budget numeric(14,2) NOT NULL DEFAULT 0, start_date date, end_date date, done_at timestamptz, details jsonb NOT NULL DEFAULT '{}',
    source text NOT NULL, secret_note text,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, deal_id));
CREATE TABLE public.vendors (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    name text NOT NULL, stars numeric(3,2), reviews integer NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.assets (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    asset_tag text NOT NULL, name text NOT NULL, category text NOT NULL, status public.asset_status NOT NULL DEFAULT 'in_stock', last_booked_at timestamptz,
    purchase_price numeric, created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (org_id, asset_tag));
CREATE TABLE public.asset_requests (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    production_id uuid NOT NULL, category text NOT NULL, asset_id uuid REFERENCES public.assets, booked tstzrange NOT NULL,
    status public.request_status NOT NULL DEFAULT 'requested', reason text, alternatives jsonb NOT NULL DEFAULT '[]', created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.events (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    production_ref uuid, booking_ref uuid, deal_ref uuid, venue_name text, slug text NOT NULL, title text NOT NULL, status public.event_status NOT NULL DEFAULT 'draft', timezone text NOT NULL DEFAULT 'UTC',
    starts_at timestamptz, ends_at timestamptz, doors_at timestamptz, curfew_at timestamptz, capacity integer, lineup jsonb NOT NULL DEFAULT '[]', metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (org_id, slug), UNIQUE (org_id, production_ref), UNIQUE (org_id, booking_ref));
CREATE TABLE public.orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    order_no text NOT NULL, event_id uuid NOT NULL REFERENCES public.events, fan_id uuid, status public.order_status NOT NULL DEFAULT 'cart',
    net numeric NOT NULL DEFAULT 0, fees numeric NOT NULL DEFAULT 0, tax numeric NOT NULL DEFAULT 0, gross numeric NOT NULL DEFAULT 0,
    paid_at timestamptz, refunded_at timestamptz, campaign_id uuid, payout_id uuid, card_last4 text, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.order_items (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    order_id uuid NOT NULL REFERENCES public.orders ON DELETE CASCADE, type text NOT NULL DEFAULT 'ticket', sku text, quantity integer NOT NULL DEFAULT 1,
    price numeric NOT NULL, ticket_type_id uuid);
CREATE TABLE public.products (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    sku text NOT NULL, name text NOT NULL, price numeric NOT NULL DEFAULT 0, stock integer NOT NULL DEFAULT 0, stock_at timestamptz NOT NULL DEFAULT now(), UNIQUE (org_id, sku));
CREATE TABLE public.fans (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    customer_id uuid, email text NOT NULL, name text, phone text, newsletter boolean NOT NULL DEFAULT false, edited_at timestamptz, edited jsonb NOT NULL DEFAULT '{}',
    from_crm jsonb NOT NULL DEFAULT '{}', spent numeric NOT NULL DEFAULT 0, currency text NOT NULL DEFAULT 'EUR', erased_at timestamptz, UNIQUE (org_id, customer_id));
CREATE TABLE public.reviews (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    event_id uuid NOT NULL REFERENCES public.events ON DELETE CASCADE, fan_id uuid, stars smallint NOT NULL, vendor_id uuid REFERENCES public.vendors, body text,
    visible text NOT NULL DEFAULT 'no');
CREATE TABLE public.payouts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    provider text NOT NULL, reference text NOT NULL, gross numeric NOT NULL, fees numeric NOT NULL DEFAULT 0, refunds numeric NOT NULL DEFAULT 0, net numeric NOT NULL,
    status text NOT NULL DEFAULT 'pending', paid_at timestamptz, UNIQUE (org_id, reference));
CREATE TABLE public.ledger_accounts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    code text NOT NULL, name text NOT NULL, type public.account_type NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (org_id, code));
CREATE TABLE public.journal_entries (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    project_id uuid, booked_on date NOT NULL, description text NOT NULL, source text NOT NULL, source_id text NOT NULL, reverses_id uuid,
    currency text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (org_id, source, source_id), UNIQUE (org_id, reverses_id));
CREATE TABLE public.ledger_entries (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    entry_id uuid NOT NULL REFERENCES public.journal_entries, position smallint NOT NULL, account_id uuid NOT NULL REFERENCES public.ledger_accounts,
    debit numeric NOT NULL DEFAULT 0, credit numeric NOT NULL DEFAULT 0, UNIQUE (org_id, entry_id, position));
-- Kept as the application likes it: the amount in cents, the day as a time.
CREATE TABLE public.expenses (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL REFERENCES public.organizations ON DELETE CASCADE,
    production_id uuid NOT NULL, category text NOT NULL, amount text NOT NULL, spent_at timestamptz, status text NOT NULL DEFAULT 'draft');

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['customers', 'deals', 'projects', 'vendors', 'assets', 'asset_requests', 'events', 'orders', 'order_items', 'products', 'fans', 'reviews', 'payouts',
                             'ledger_accounts', 'journal_entries', 'ledger_entries', 'expenses'] LOOP
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY members ON public.%I FOR ALL TO authenticated USING (org_id IN (SELECT m.org_id FROM public.organization_members AS m
                            WHERE m.user_id = (current_setting(''request.jwt.claims'', true)::jsonb ->> ''sub'')::uuid))', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO authenticated', t);
    END LOOP;
END
$$;
ALTER TABLE public.organization_members ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.organization_members FOR SELECT TO authenticated USING (user_id = (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid);
GRANT SELECT ON public.organization_members, public.organizations TO authenticated;

CREATE FUNCTION public.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.deals FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.projects FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
