//! The pack live_events over a season of a million orders: what is booked late, what is looked at, and what is counted.

use crate::{Figure, Gate, level, median, size};
use std::time::{Duration, Instant};
use usher_clients::season::Season;
use usher_clients::{Client, Database, Uuid, number, role, run, settled, value};

pub const METHOD: &str = "BENCH_BACKFILL paid orders that nobody has booked, by usher.backfill('live_events.ingest_paid_order') until no job is left, against \
the same orders booked by hand in a procedure, 1,000 a COMMIT, set by set: revenue, journal and entries into tables of the same shape, with keys, foreign keys and balance \
trigger. Then a season of 10,000 deals and BENCH_ORDERS orders: figures counted anew, dashboards as a member, search, reconciliation; median of 3";

/// Seconds.
const LIMIT: f64 = 1.0;
const ROUNDS: usize = 3;

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('live_events')");
    let mut figures = backfill(here);
    figures.extend(at_scale(database, here));
    figures
}

/// All flows of the pack are off but those that are named.
fn only(here: &mut Client, flows: &[&str]) {
    let names = flows.join("','");
    run(
        here,
        &format!(
            "SELECT usher.disable_flow(name) FROM usher.flows WHERE pack = 'live_events' AND strpos(name, ':') = 0 AND enabled AND name NOT IN ('{names}');
             SELECT usher.enable_flow(name) FROM usher.flows WHERE name IN ('{names}') AND NOT enabled"
        ),
    );
}

fn backfill(here: &mut Client) -> Vec<Figure> {
    let orders = size("BENCH_BACKFILL");
    only(here, &["live_events.ingest_paid_order", "live_events.update_production_from_revenue"]);
    Season { seed: 72, organizations: 1, deals: (orders / 100).max(10), orders, booked: false }.make(here);
    let organization: Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'season-72-0'", &[]);
    let paid: i64 =
        value(here, "SELECT count(*) FROM gvteway.orders WHERE organization_id = $1 AND status = 'paid'", &[&organization]);
    prepare_by_hand(here);
    level(here);
    let begin = Instant::now();
    run(here, &format!("CALL byhand_season.book('{organization}')"));
    let theirs = paid as f64 / begin.elapsed().as_secs_f64();
    assert_eq!(number(here, "SELECT count(*) FROM byhand_season.journals"), paid, "every order is booked by hand");
    run(here, "TRUNCATE byhand_season.ingestions, byhand_season.journals, byhand_season.entries");

    level(here);
    let begin = Instant::now();
    run(
        here,
        &format!(
            "SELECT usher.backfill('live_events.ingest_paid_order', \"where\" => $$new.organization_id = '{organization}'$$)"
        ),
    );
    let end = Instant::now() + Duration::from_secs(4 * 3600);
    while number(here, "SELECT count(*) FROM usher.progress WHERE state = 'running'") > 0 {
        assert!(Instant::now() < end, "the backfill ends");
        std::thread::sleep(Duration::from_millis(50));
    }
    settled(here, Duration::from_secs(600));
    let ours = paid as f64 / begin.elapsed().as_secs_f64();
    let booked: i64 =
        value(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE organization_id = $1", &[&organization]);
    assert_eq!((booked, number(here, "SELECT count(*) FROM usher.dead_letters")), (paid, 0), "every order is booked");
    vec![Figure::new("orders_booked_by_backfill", ours, theirs, "orders/s", Gate::AtLeast(0.5))]
}

/// What one writes by hand for the same: which project, what of it is what, a journal, its entries.
fn prepare_by_hand(here: &mut Client) {
    run(
        here,
        "CREATE SCHEMA byhand_season;
         CREATE TABLE byhand_season.ingestions (LIKE usher.ticket_revenue_ingestions INCLUDING ALL,
             FOREIGN KEY (organization_id, reverses) REFERENCES byhand_season.ingestions (organization_id, id));
         CREATE TABLE byhand_season.journals (LIKE atlvs.journals INCLUDING ALL,
             FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
             FOREIGN KEY (organization_id, reverses) REFERENCES byhand_season.journals (organization_id, id));
         CREATE TABLE byhand_season.entries (LIKE atlvs.ledger_entries INCLUDING ALL,
             FOREIGN KEY (organization_id, journal_id) REFERENCES byhand_season.journals (organization_id, id),
             FOREIGN KEY (organization_id, account_id) REFERENCES atlvs.ledger_accounts (organization_id, id));
         CREATE FUNCTION byhand_season.check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM (SELECT DISTINCT organization_id, journal_id FROM inserted) AS t
                          JOIN byhand_season.entries e USING (organization_id, journal_id)
                         GROUP BY organization_id, journal_id HAVING sum(e.debit) <> sum(e.credit)) THEN
                 RAISE EXCEPTION 'a journal does not balance';
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER check_balance AFTER INSERT ON byhand_season.entries
             REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION byhand_season.check_balance();
         CREATE PROCEDURE byhand_season.book(organization uuid) LANGUAGE plpgsql AS $proc$
         DECLARE
             org      CONSTANT uuid := organization;
             accounts uuid[];
             last     uuid := '00000000-0000-0000-0000-000000000000';
         BEGIN
             accounts := atlvs.account_ids(org, ARRAY['1100', '2200', '4000', '4100', '4300']);
             CREATE TEMP TABLE chunk (order_id uuid, ingestion uuid, journal uuid, number text, subtotal numeric, fees numeric, tax numeric, total numeric, currency char(3), paid_at timestamptz,
                                      slug text, project uuid, tickets integer, of_tickets numeric, of_merch numeric, worth numeric) ON COMMIT DELETE ROWS;
             COMMIT;
             LOOP
                 INSERT INTO chunk
                 SELECT o.id AS order_id, usher.uuid_v7() AS ingestion, usher.uuid_v7() AS journal, o.number, o.subtotal, o.fees, o.tax, o.total, o.currency, o.paid_at, e.slug, p.id AS project,
                        i.tickets, i.of_tickets, i.of_merch, i.worth
                   FROM (SELECT * FROM gvteway.orders x WHERE x.organization_id = org AND x.id > last AND x.status = 'paid' ORDER BY x.id LIMIT 1000) AS o
                   JOIN gvteway.events e ON e.organization_id = org AND e.id = o.event_id
                   LEFT JOIN compvss.productions c ON c.organization_id = org AND c.id = e.production_ref
                   LEFT JOIN atlvs.projects p ON p.organization_id = org AND p.id = c.project_ref
                   CROSS JOIN LATERAL (SELECT sum(i.qty) FILTER (WHERE i.kind = 'ticket') AS tickets, sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'ticket') AS of_tickets,
                                              sum(i.qty * i.unit_price) FILTER (WHERE i.kind = 'merch') AS of_merch, sum(i.qty * i.unit_price) AS worth
                                         FROM gvteway.order_items i WHERE i.organization_id = org AND i.order_id = o.id) AS i;
                 EXIT WHEN NOT FOUND;
                 IF EXISTS (SELECT FROM chunk s WHERE s.worth <> s.subtotal OR s.subtotal + s.fees + s.tax <> s.total) THEN
                     RAISE EXCEPTION 'the amounts of an order do not add up';
                 END IF;
                 INSERT INTO byhand_season.ingestions (organization_id, id, project_id, event_code, ticket_count, gross_amount, currency, ingestion_source, payload, idempotency_key)
                 SELECT org, s.ingestion, s.project, s.slug, s.tickets, s.total, s.currency, 'gvteway',
                        jsonb_build_object('order', s.number, 'order_id', s.order_id, 'breakdown',
                                           jsonb_strip_nulls(jsonb_build_object('tickets', s.of_tickets, 'merch', s.of_merch, 'fees', NULLIF(s.fees, 0), 'tax', NULLIF(s.tax, 0)))),
                        'order:' || s.order_id FROM chunk s;
                 INSERT INTO byhand_season.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref)
                 SELECT org, s.journal, s.project, (now() AT TIME ZONE 'Europe/Berlin')::date, 'Ticket revenue ' || s.slug, s.currency, 'ticket_revenue', s.ingestion::text FROM chunk s;
                 INSERT INTO byhand_season.entries (organization_id, journal_id, line, account_id, debit, credit)
                 SELECT org, s.journal, l.line, accounts[l.line], GREATEST(l.amount, 0), GREATEST(-l.amount, 0)
                   FROM chunk s, LATERAL (VALUES (1, s.total), (2, -s.tax), (3, -s.of_tickets), (4, -s.of_merch), (5, -s.fees)) AS l (line, amount) WHERE l.amount <> 0;
                 SELECT max(s.order_id::text)::uuid INTO last FROM chunk s;
                 COMMIT;
             END LOOP;
         END $proc$",
    );
}

fn at_scale(database: &Database, here: &mut Client) -> Vec<Figure> {
    only(here, &[]);
    Season { seed: 73, organizations: 1, deals: 10_000, orders: size("BENCH_ORDERS"), booked: true }.make(here);
    let organization: Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'season-73-0'", &[]);
    role(here, "clients_bench_member", "LOGIN");
    run(
        here,
        "GRANT usher_member TO clients_bench_member; SELECT usher.grant_membership('season-73-0', 'role:clients_bench_member', 'member')",
    );
    // As the flows of W48 would have left them.
    run(
        here,
        &format!(
            "INSERT INTO live_events.search_documents (organization_id, kind, source_id, system, title, body)
             SELECT organization_id, 'guest', id, 'gvteway', name, email FROM gvteway.guests WHERE organization_id = '{organization}'
             UNION ALL SELECT organization_id, 'deal', id, 'atlvs', title, concat_ws(' ', venue_name, event_date) FROM atlvs.deals WHERE organization_id = '{organization}'
             UNION ALL SELECT organization_id, 'event', id, 'gvteway', title, concat_ws(' ', slug, venue_name) FROM gvteway.events WHERE organization_id = '{organization}'
             UNION ALL SELECT organization_id, 'production', id, 'compvss', name, concat_ws(' ', code, venue_name) FROM compvss.productions WHERE organization_id = '{organization}'"
        ),
    );
    run(here, "VACUUM ANALYZE live_events.search_documents");
    level(here);
    let mut member = database.connect_as("clients_bench_member");
    let seconds = |client: &mut Client, what: &str| {
        median(
            (0..ROUNDS)
                .map(|_| {
                    let begin = Instant::now();
                    run(client, what);
                    begin.elapsed().as_secs_f64()
                })
                .collect(),
        )
    };
    let mut figures = Vec::new();
    let mut limited =
        |name: &str, value: f64, gate| figures.push(Figure::limit(format!("season_{name}"), value, LIMIT, "s", gate));
    let refresh = format!("SELECT live_events.refresh_kpis('{organization}')");
    let begin = Instant::now();
    run(here, &refresh);
    limited("kpis_counted_first", begin.elapsed().as_secs_f64(), Gate::AtMost(1.0));
    limited("kpis_counted_anew", seconds(here, &refresh), Gate::AtMost(1.0));
    limited("kpis_read", seconds(&mut member, "SELECT * FROM live_events.kpis"), Gate::AtMost(1.0));
    limited("project_kpis_read", seconds(&mut member, "SELECT * FROM live_events.project_kpis ORDER BY code"), Gate::AtMost(1.0));
    limited(
        "search",
        seconds(&mut member, "SELECT * FROM live_events.search('season-73-0', 'summer gala tempo')"),
        Gate::AtMost(1.0),
    );
    limited(
        "search_with_a_slip",
        seconds(&mut member, "SELECT * FROM live_events.search('season-73-0', 'tepmodrmo')"),
        Gate::None,
    );
    let reconcile = format!("SELECT atlvs.reconcile('{organization}', '2030-01-01')");
    limited("reconciled", seconds(here, &reconcile), Gate::None);
    assert_eq!(number(here, &format!("SELECT atlvs.reconcile('{organization}', '2030-01-01')::bigint")), 0, "the season agrees");
    figures
}
