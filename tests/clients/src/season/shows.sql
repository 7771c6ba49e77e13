-- Ids and choices by name and number: the same for a seed, whatever else is asked for.
CREATE OR REPLACE FUNCTION pg_temp.id(what text, n bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE AS $$ SELECT md5('{seed} ' || what || ' ' || n)::uuid $$;
-- One of 0 … most - 1.
CREATE OR REPLACE FUNCTION pg_temp.pick(what text, n bigint, most integer) RETURNS integer
    LANGUAGE sql IMMUTABLE AS $$ SELECT ((hashtextextended(what || ' ' || n, {seed}) & 1073741823) % most)::integer $$;
CREATE OR REPLACE FUNCTION pg_temp.word(n integer, VARIADIC words text[]) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$ SELECT words[1 + n % cardinality(words)] $$;

CREATE TEMP TABLE houses ON COMMIT DROP AS
SELECT n AS house, pg_temp.id('organization', n) AS id, pg_temp.word(n::integer, 'EUR', 'USD', 'GBP') AS currency, timestamptz '2026-01-01 00:00Z' AS made
  FROM generate_series(0, {organizations} - 1) AS n;

INSERT INTO usher.organizations (id, slug, name, timezone, created_at)
SELECT h.id, 'season-{seed}-' || h.house, 'Season ' || h.house, 'Europe/Berlin', h.made FROM houses h ORDER BY h.house;

-- Whom one works with: five deals to a contact.
INSERT INTO atlvs.contacts (organization_id, id, company, first_name, last_name, email, phone, currency, created_at, updated_at)
SELECT h.id, pg_temp.id('contact', n), pg_temp.word(pg_temp.pick('company', n, 997), 'Nordlicht', 'Bluebird', 'Kaiser & Sons', 'Atlas', 'Opera Mundi', 'Riverside', 'Tandem') || ' ' || n,
       pg_temp.word(pg_temp.pick('first', n, 997), 'Ada', 'Bo', 'Carla', 'Dmitri', 'Elif', 'Farid', 'Greta', 'Hugo', 'Ines', 'Jonas', 'Kim', 'Lena'),
       pg_temp.word(pg_temp.pick('last', n, 997), 'Adler', 'Brandt', 'Costa', 'Duarte', 'Eriksen', 'Fischer', 'Garcia', 'Hansen', 'Ito', 'Jansen'),
       'contact' || n || '@season.example', '+49 30 ' || (1000000 + n), h.currency, h.made, h.made
  FROM generate_series(0, {deals} / 5 - 1) AS n JOIN houses h ON h.house = n % {organizations};

INSERT INTO atlvs.deals (organization_id, id, contact_id, title, status, value, currency, event_date, venue_name, venue_timezone, expected_attendance, won_at, created_at, updated_at)
SELECT h.id, pg_temp.id('deal', n), pg_temp.id('contact', n % ({deals} / 5) / {organizations} * {organizations} + n % {organizations}),
       pg_temp.word(pg_temp.pick('season', n, 997), 'Summer', 'Winter', 'Spring', 'Harvest', 'Midnight', 'Harbour', 'Castle', 'Garden') || ' '
       || pg_temp.word(pg_temp.pick('form', n, 997), 'Night', 'Gala', 'Open Air', 'Session', 'Festival', 'Tour', 'Ball') || ' ' || n,
       CASE WHEN n / {organizations} % 5 < 2 THEN 'won' ELSE pg_temp.word(pg_temp.pick('status', n, 997), 'inquiry', 'qualified', 'proposal', 'lost') END,
       5000 + pg_temp.pick('value', n, 200) * 500, h.currency, date '2026-02-01' + pg_temp.pick('day', n, 330),
       pg_temp.word(pg_temp.pick('venue', n, 997), 'Tempodrom', 'Old Mill', 'Stadthalle', 'Pier 7', 'Waldbühne', 'Kesselhaus'), 'Europe/Berlin',
       200 + pg_temp.pick('crowd', n, 50) * 100, CASE WHEN n / {organizations} % 5 < 2 THEN h.made END, h.made, h.made
  FROM generate_series(0, {deals} - 1) AS n JOIN houses h ON h.house = n % {organizations};

UPDATE atlvs.contacts c SET lifetime_value = d.value
  FROM (SELECT organization_id, contact_id, sum(value) AS value FROM atlvs.deals WHERE status = 'won' GROUP BY 1, 2) AS d
 WHERE c.organization_id = d.organization_id AND c.id = d.contact_id AND c.organization_id IN (SELECT id FROM houses);

-- What a won deal has become; numbered so that an order finds its show.
CREATE TEMP TABLE shows ON COMMIT DROP AS
SELECT h.house, n, row_number() OVER (PARTITION BY h.house ORDER BY n) - 1 AS k, h.id AS organization_id, h.currency, h.made, d.title, d.value, d.event_date, d.venue_name, d.expected_attendance,
       pg_temp.id('project', n) AS project_id, pg_temp.id('production', n) AS production_id, pg_temp.id('event', n) AS event_id,
       20 + pg_temp.pick('price', n, 260) * 0.5 AS price
  FROM generate_series(0, {deals} - 1) AS n JOIN houses h ON h.house = n % {organizations}
  JOIN atlvs.deals d ON d.organization_id = h.id AND d.id = pg_temp.id('deal', n)
 WHERE n / {organizations} % 5 < 2;
CREATE UNIQUE INDEX ON shows (house, k);
ANALYZE shows;

INSERT INTO atlvs.projects (organization_id, id, deal_id, code, name, phase, budget_total, currency, starts_on, ends_on, created_at, updated_at)
SELECT organization_id, project_id, pg_temp.id('deal', n), 'P-2026-' || lpad((k + 1)::text, 5, '0'), title,
       pg_temp.word(pg_temp.pick('phase', n, 997), 'intake', 'preproduction', 'in_production'), value, currency, event_date, event_date, made, made FROM shows;
INSERT INTO atlvs.project_codes (organization_id, year, last_number, reserved_count, reserved_by, reserved_in)
SELECT organization_id, 2026, count(*), 0, pg_temp.id('codes', house), '3' FROM shows GROUP BY house, organization_id;
INSERT INTO compvss.productions (organization_id, id, project_ref, code, name, status, venue_name, timezone, starts_at, ends_at, capacity, projected_attendance, created_at, updated_at)
SELECT organization_id, production_id, project_id, 'P-2026-' || lpad((k + 1)::text, 5, '0'), title, 'planning', venue_name, 'Europe/Berlin',
       (event_date + time '18:00') AT TIME ZONE 'Europe/Berlin', (event_date + time '23:30') AT TIME ZONE 'Europe/Berlin', expected_attendance, expected_attendance, made, made FROM shows;
INSERT INTO gvteway.events (organization_id, id, production_ref, venue_name, slug, title, status, timezone, starts_at, ends_at, capacity, created_at, updated_at)
SELECT organization_id, event_id, production_id, venue_name, 'show-' || n, title, 'on_sale', 'Europe/Berlin',
       (event_date + time '18:00') AT TIME ZONE 'Europe/Berlin', (event_date + time '23:30') AT TIME ZONE 'Europe/Berlin', expected_attendance, made, made FROM shows;
INSERT INTO usher.links (organization_id, id, kind, left_system, left_id, right_system, right_id, last_synced_at, created_at, updated_at)
SELECT s.organization_id, pg_temp.id('link ' || l.kind, s.n), l.kind, l.left_system, l.left_id::text, l.right_system, l.right_id::text, s.made, s.made, s.made
  FROM shows s, LATERAL (VALUES ('deal', 'atlvs', pg_temp.id('deal', s.n), 'atlvs', s.project_id), ('project', 'atlvs', s.project_id, 'compvss', s.production_id),
                                ('event', 'compvss', s.project_id, 'gvteway', s.event_id)) AS l (kind, left_system, left_id, right_system, right_id);

-- What it may cost and has cost, on both sides.
INSERT INTO atlvs.budget_lines (organization_id, id, project_id, category, planned, actual, created_at, updated_at)
SELECT organization_id, pg_temp.id('budget ' || c.category, n), project_id, c.category, round(value * c.share, 2), round(value * c.share * pg_temp.pick('spent ' || c.category, n, 110) / 100, 2), made, made
  FROM shows, (VALUES ('stage', 0.3), ('crew', 0.25), ('artist', 0.3)) AS c (category, share);
INSERT INTO compvss.cost_lines (organization_id, id, production_id, category, planned, actual, currency, created_at, updated_at)
SELECT organization_id, pg_temp.id('cost ' || c.category, n), production_id, c.category, round(value * c.share, 2), round(value * c.share * pg_temp.pick('spent ' || c.category, n, 110) / 100, 2), currency, made, made
  FROM shows, (VALUES ('stage', 0.3), ('crew', 0.25), ('artist', 0.3)) AS c (category, share);

-- Stock, equipment, people.
INSERT INTO gvteway.merch_products (organization_id, id, sku, title, price, currency, stock, created_at, updated_at)
SELECT h.id, pg_temp.id('product ' || h.house, k), 'SKU-' || k, pg_temp.word(k, 'Shirt', 'Poster', 'Cap', 'Vinyl', 'Mug') || ' ' || k, 15 + k, h.currency, 100000000, h.made, h.made
  FROM houses h, generate_series(0, 49) AS k;
INSERT INTO atlvs.inventory_items (organization_id, id, sku, name, on_hand, unit_cost, currency, created_at, updated_at)
SELECT h.id, pg_temp.id('item ' || h.house, k), 'SKU-' || k, pg_temp.word(k, 'Shirt', 'Poster', 'Cap', 'Vinyl', 'Mug') || ' ' || k, 100000000, 5, h.currency, h.made, h.made
  FROM houses h, generate_series(0, 49) AS k;
INSERT INTO atlvs.assets (organization_id, id, tag, name, category, price, currency, created_at, updated_at)
SELECT h.id, pg_temp.id('asset ' || h.house, k), 'A-' || k, pg_temp.word(k, 'Line array', 'Moving head', 'Truss', 'Console') || ' ' || k, pg_temp.word(k, 'audio', 'light', 'rigging', 'audio'), 1000 + k, h.currency, h.made, h.made
  FROM houses h, generate_series(0, 199) AS k;
INSERT INTO compvss.crew_members (organization_id, id, name, role, rate, currency, created_at, updated_at)
SELECT h.id, pg_temp.id('crew ' || h.house, k), pg_temp.word(k, 'Ana', 'Ben', 'Cem', 'Dana', 'Eva') || ' ' || k, pg_temp.word(k, 'rigger', 'audio', 'light'), 25 + k % 20, h.currency, h.made, h.made
  FROM houses h, generate_series(0, 99) AS k;
INSERT INTO gvteway.guests (organization_id, id, email, name, currency, created_at, updated_at)
SELECT h.id, pg_temp.id('guest ' || h.house, k), 'guest' || k || '@season.example',
       pg_temp.word(pg_temp.pick('guest first', k, 997), 'Alma', 'Boris', 'Clara', 'Dario', 'Emma', 'Finn', 'Gala', 'Henri') || ' ' || initcap(substr(md5('{seed} ' || k), 1, 7)), h.currency, h.made, h.made
  FROM houses h, generate_series(0, {guests} - 1) AS k;
