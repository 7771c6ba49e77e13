//! A season through all three systems: forty deals that are won at once, up to books that are closed.

use crate::{answer, chapter, say, show, sql};
use std::time::{Duration, Instant};
use usher_clients::{Client, Uuid, number, run, settled, text, value, wait};

const WAIT: Duration = Duration::from_secs(120);
const SHOWS: i64 = 40;

/// What stands in which state, as a sentence of figures.
struct Claim {
    what: &'static str,
    sql: &'static str,
    is: &'static str,
}

/// `@` is the organization.
const FIGURES: &[Claim] = &[
    Claim {
        what: "deals won of those that were offered",
        sql: "SELECT count(*) FILTER (WHERE status = 'won') || ' of ' || count(*) FROM atlvs.deals WHERE organization_id = '@'",
        is: "40 of 60",
    },
    Claim {
        what: "projects, productions and events",
        sql: "SELECT concat_ws(', ', (SELECT count(*) FROM atlvs.projects WHERE organization_id = '@'), (SELECT count(*) FROM compvss.productions WHERE organization_id = '@'), (SELECT count(*) FROM gvteway.events WHERE organization_id = '@'))",
        is: "40, 40, 40",
    },
    Claim {
        what: "projects that are closed",
        sql: "SELECT count(*) FROM atlvs.projects WHERE organization_id = '@' AND phase = 'closed'",
        is: "40",
    },
    Claim {
        what: "orders taken in, and given back",
        sql: "SELECT count(*) FILTER (WHERE reverses IS NULL) || ', ' || count(*) FILTER (WHERE reverses IS NOT NULL) FROM usher.ticket_revenue_ingestions WHERE organization_id = '@'",
        is: "1200, 40",
    },
    Claim {
        what: "tickets that the productions count as sold",
        sql: "SELECT sum(tickets_sold) FROM compvss.productions WHERE organization_id = '@'",
        is: "2320",
    },
    Claim {
        what: "guests that the gates have counted",
        sql: "SELECT sum(scanned) FROM compvss.access_counts WHERE organization_id = '@'",
        is: "2000",
    },
    Claim {
        what: "shirts left in the shop, and in the store",
        sql: "SELECT concat_ws(', ', (SELECT stock FROM gvteway.merch_products WHERE organization_id = '@'), (SELECT on_hand FROM atlvs.inventory_items WHERE organization_id = '@'))",
        is: "800, 800",
    },
    Claim {
        what: "hours of the crew on the payroll, EUR",
        sql: "SELECT sum(gross) FROM atlvs.payroll_items WHERE organization_id = '@' AND kind = 'hours' AND status <> 'void'",
        is: "6400.00",
    },
    Claim {
        what: "final invoices, and what they ask for, EUR",
        sql: "SELECT count(*) || ', ' || sum(total) FROM atlvs.invoices WHERE organization_id = '@' AND status = 'sent'",
        is: "40, 1200000.00",
    },
];

/// An order is two tickets of 30 EUR and, every third time, a shirt of 25; 2 EUR fees; a fifth of tax.
const ORDERS: &str = "
    BEGIN;
    INSERT INTO gvteway.orders (organization_id, event_id, guest_ref, number, subtotal, fees, tax, total, currency, jurisdiction)
    SELECT '@', e.id, g.id, 'N-' || row_number() OVER (ORDER BY e.title, n), s.subtotal, 2, s.subtotal / 5, s.subtotal + 2 + s.subtotal / 5, 'EUR', 'DE'
      FROM gvteway.events AS e, generate_series(1, 30) AS n
      JOIN LATERAL (SELECT 60 + CASE WHEN n % 3 = 0 THEN 25 ELSE 0 END AS subtotal) AS s ON true
      JOIN gvteway.guests AS g ON g.organization_id = '@' AND g.name = 'Guest ' || n
     WHERE e.organization_id = '@';
    INSERT INTO gvteway.order_items (organization_id, order_id, kind, qty, unit_price)
    SELECT '@', id, 'ticket', 2, 30 FROM gvteway.orders WHERE organization_id = '@';
    INSERT INTO gvteway.order_items (organization_id, order_id, kind, sku, qty, unit_price)
    SELECT '@', id, 'merch', 'SHIRT', 1, 25 FROM gvteway.orders WHERE organization_id = '@' AND subtotal = 85;
    COMMIT";

const CREW: &str = "
    INSERT INTO atlvs.employees (organization_id, name, hourly_rate, day_rate, currency)
    SELECT '@', 'Hand ' || n, 20, 150, 'EUR' FROM generate_series(1, 4) AS n;
    INSERT INTO compvss.crew_members (organization_id, employee_ref, name, role)
    SELECT '@', id, name, 'rigger' FROM atlvs.employees WHERE organization_id = '@';
    INSERT INTO compvss.crew_assignments (organization_id, production_id, crew_id, period, status)
    SELECT '@', p.id, c.id, tstzrange(p.starts_at, p.starts_at + interval '10 hours'), 'confirmed'
      FROM (SELECT id, starts_at, row_number() OVER (ORDER BY name) AS n FROM compvss.productions WHERE organization_id = '@') AS p
      JOIN compvss.crew_members AS c ON c.organization_id = '@' AND c.name = 'Hand ' || 1 + p.n % 4;
    INSERT INTO compvss.expenses (organization_id, production_id, category, amount, currency, spent_on, status)
    SELECT '@', id, 'stage', 150, 'EUR', current_date, 'submitted' FROM compvss.productions WHERE organization_id = '@'";

pub fn deals_to_books(here: &mut Client) {
    chapter("8. A season, from deals to books");
    let organization: Uuid = value(here, "SELECT usher.create_organization('nord', 'Nord Live', 'Europe/Berlin')", &[]);
    let of = |text: &str| text.replace('@', &organization.to_string());
    let begin = Instant::now();

    run(
        here,
        &of("INSERT INTO atlvs.deals (organization_id, title, status, value, currency, event_date, venue_name, venue_timezone, expected_attendance)
             SELECT '@', 'Nord ' || lpad(n::text, 2, '0'), 'proposal', 15000 + n * 500, 'EUR', current_date + n, 'Hall ' || 1 + n % 5, 'Europe/Berlin', 600 FROM generate_series(1, 60) AS n"),
    );
    say("Another organization, 'nord', has sixty shows on offer. Forty are won, in one statement:");
    let win = "UPDATE atlvs.deals SET status = 'won' WHERE organization_id = '@' AND right(title, 2)::integer % 3 <> 0";
    sql("UPDATE atlvs.deals SET status = 'won' WHERE …");
    run(here, &of(win));
    let won = Instant::now();
    let projects = number(here, &of("SELECT count(*) FROM atlvs.projects WHERE organization_id = '@'"));
    assert_eq!(projects, SHOWS, "each deal that is won has its project in the same transaction");
    wait::until(WAIT, "forty productions have forty events", || {
        number(
            here,
            &of(
                "SELECT count(*) FROM gvteway.events AS e JOIN compvss.productions AS p ON p.organization_id = e.organization_id AND p.id = e.production_ref WHERE e.organization_id = '@'",
            ),
        ) == SHOWS
    });
    answer(&format!("40 projects at once, 40 productions and 40 events after {:.1} s", won.elapsed().as_secs_f64()));
    settled(here, WAIT);

    run(
        here,
        &of("INSERT INTO gvteway.guests (organization_id, email, name) SELECT '@', 'guest' || n || '@nord.example', 'Guest ' || n FROM generate_series(1, 30) AS n;
             INSERT INTO gvteway.merch_products (organization_id, sku, title, price, currency) VALUES ('@', 'SHIRT', 'Shirt', 25, 'EUR');
             INSERT INTO atlvs.inventory_items (organization_id, sku, name, on_hand, unit_cost, currency) VALUES ('@', 'SHIRT', 'Shirt', 1200, 9, 'EUR');
             UPDATE gvteway.events SET status = 'on_sale' WHERE organization_id = '@'"),
    );
    settled(here, WAIT);
    run(here, &of(ORDERS));
    // So much at once, and autovacuum comes later.
    run(here, "ANALYZE gvteway.guests, gvteway.events, gvteway.orders, gvteway.order_items, compvss.productions");
    say("1,200 orders are paid, two tickets each and every third with a shirt:");
    let paid = Instant::now();
    sql("UPDATE gvteway.orders SET status = 'paid', paid_at = now() WHERE organization_id = …");
    run(here, &of("UPDATE gvteway.orders SET status = 'paid', paid_at = now() WHERE organization_id = '@'"));
    settled(here, WAIT);
    let journals = number(here, &of("SELECT count(*) FROM atlvs.journals WHERE organization_id = '@'"));
    answer(&format!("{journals} journals after {:.1} s", paid.elapsed().as_secs_f64()));
    assert_eq!(journals, 1200, "each paid order is one journal");

    // One order of each show is given back; of the others 2,000 tickets are scanned at the doors.
    run(
        here,
        &of(
            "UPDATE gvteway.orders SET status = 'refunded', refunded_at = now() WHERE organization_id = '@' AND id IN (SELECT DISTINCT ON (event_id) id FROM gvteway.orders WHERE organization_id = '@' AND subtotal = 60 ORDER BY event_id, number)",
        ),
    );
    settled(here, WAIT);
    run(
        here,
        &of("INSERT INTO gvteway.tickets (organization_id, item_id, code)
             SELECT '@', i.id, 'T-' || i.id || n FROM gvteway.order_items AS i JOIN gvteway.orders AS o ON o.organization_id = '@' AND o.id = i.order_id AND o.status = 'paid', generate_series(1, i.qty) AS n
              WHERE i.organization_id = '@' AND i.kind = 'ticket'"),
    );
    run(here, "ANALYZE gvteway.tickets");
    run(
        here,
        &of(
            "INSERT INTO gvteway.ticket_scans (organization_id, ticket_id, gate) SELECT '@', id, 'Gate ' || 1 + row_number() OVER (ORDER BY code) % 4 FROM gvteway.tickets WHERE organization_id = '@' ORDER BY code LIMIT 2000",
        ),
    );
    run(here, &of(CREW));
    settled(here, WAIT);
    say(
        "40 orders were given back, 2,000 guests came, a crew has worked. Hours and expenses are approved, and the shows are over:",
    );
    run(
        here,
        &of("INSERT INTO compvss.time_entries (organization_id, assignment_id, work_on, hours, status)
             SELECT '@', a.id, (lower(a.period) AT TIME ZONE 'Europe/Berlin')::date, 8, 'approved' FROM compvss.crew_assignments AS a WHERE a.organization_id = '@';
             UPDATE compvss.expenses SET status = 'approved' WHERE organization_id = '@'"),
    );
    sql("UPDATE compvss.productions SET status = 'wrapped' WHERE organization_id = …");
    run(here, &of("UPDATE compvss.productions SET status = 'wrapped' WHERE organization_id = '@'"));
    let wrapped = Instant::now();
    wait::until_true_for(
        here,
        WAIT,
        &of("SELECT count(*) FILTER (WHERE phase = 'closed') = 40 FROM atlvs.projects WHERE organization_id = '@'"),
    );
    settled(here, WAIT);
    answer(&format!("40 projects are settled, invoiced and closed after {:.1} s", wrapped.elapsed().as_secs_f64()));

    say("The season in figures:");
    for claim in FIGURES {
        let found = text(here, &of(&format!("SELECT ({})::text", claim.sql)));
        assert_eq!(found, claim.is, "{}", claim.what);
        answer(&format!("{found:>16}  {}", claim.what));
    }
    books(here, &of);
    a_cent_too_much(here, &of);
    let jobs = number(here, &of("SELECT count(*) FROM usher.sync_jobs WHERE organization_id = '@'"));
    let dead = number(here, &of("SELECT count(*) FROM usher.dead_letters WHERE organization_id = '@'"));
    assert_eq!(dead, 0, "nothing is dead");
    say(&format!("{jobs} jobs, none of them dead, {:.0} seconds from the first deal to here.", begin.elapsed().as_secs_f64()));
}

/// What the accounts say, against what was sold.
fn books(here: &mut Client, of: &impl Fn(&str) -> String) {
    sql("SELECT code, name, sum(debit), sum(credit) FROM atlvs.ledger_entries JOIN … GROUP BY 1, 2");
    let lines = of("SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT rpad(a.code || ' ' || a.name, 28) || to_char(sum(e.debit), '99999990.00') || to_char(sum(e.credit), '99999990.00') AS line
          FROM atlvs.ledger_entries AS e JOIN atlvs.ledger_accounts AS a ON a.organization_id = e.organization_id AND a.id = e.account_id
         WHERE e.organization_id = '@' GROUP BY a.code, a.name) AS accounts");
    text(here, &lines).lines().for_each(answer);
    let unbalanced = of(
        "SELECT count(*) FROM (SELECT FROM atlvs.ledger_entries WHERE organization_id = '@' GROUP BY journal_id HAVING sum(debit) <> sum(credit)) AS wrong",
    );
    assert_eq!(number(here, &unbalanced), 0, "every journal balances");
    let sold = text(
        here,
        &of("SELECT sum(total)::numeric(14,2)::text FROM gvteway.orders WHERE organization_id = '@' AND status = 'paid'"),
    );
    let booked = text(
        here,
        &of("SELECT sum(gross_amount)::numeric(14,2)::text FROM usher.ticket_revenue_ingestions WHERE organization_id = '@'"),
    );
    assert_eq!(booked, sold, "what is booked is what was sold");
    say(&format!("Every journal balances, and {booked} EUR are booked for orders of {sold} EUR."));
}

/// The reconciliation finds what nobody can see.
fn a_cent_too_much(here: &mut Client, of: &impl Fn(&str) -> String) {
    say("The payment provider pays one show out, and a cent too much. The reconciliation looks:");
    run(
        here,
        &of("WITH show AS (SELECT o.event_id AS id, sum(o.total) AS worth FROM gvteway.orders AS o JOIN gvteway.events AS e ON e.organization_id = '@' AND e.id = o.event_id
                            WHERE o.organization_id = '@' AND o.status = 'paid' AND e.title = 'Nord 01' GROUP BY o.event_id),
                  payout AS (INSERT INTO gvteway.payouts (organization_id, provider, payout_ref, gross, fees, net, currency)
                             SELECT '@', 'stripe', 'po_nord_01', worth + 0.01, 9.99, worth + 0.01 - 9.99, 'EUR' FROM show RETURNING id)
             UPDATE gvteway.orders SET payout_id = payout.id FROM show, payout WHERE organization_id = '@' AND event_id = show.id AND status = 'paid'"),
    );
    run(here, &of("UPDATE gvteway.payouts SET status = 'paid', paid_at = now() WHERE organization_id = '@'"));
    settled(here, WAIT);
    run(
        here,
        "SELECT usher.enqueue_sync_job('nord', 'atlvs', 'atlvs', jsonb_build_object('action', 'reconcile', 'up_to', current_date + 1))",
    );
    settled(here, WAIT);
    let found = text(
        here,
        &of(
            "SELECT string_agg(concat_ws(' | ', kind, payout_ref, orders_amount, payout_amount, difference, currency), E'\\n') FROM atlvs.reconciliation_items WHERE organization_id = '@'",
        ),
    );
    show("SELECT kind, payout_ref, orders_amount, payout_amount, difference, currency FROM atlvs.reconciliation_items", &found);
    assert!(
        found.starts_with("payout | po_nord_01 | ") && found.ends_with(" | 0.01 | EUR") && !found.contains('\n'),
        "it finds the cent and nothing else, not: {found}"
    );
    let told = text(
        here,
        &of(
            "SELECT string_agg(kind || ' | ' || title, E'\\n' ORDER BY created_at) FROM atlvs.alerts WHERE organization_id = '@' AND status = 'open'",
        ),
    );
    sql("SELECT kind, title FROM atlvs.alerts   -- the payout itself has said so, too");
    told.lines().for_each(answer);
    let kinds: Vec<&str> = told.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(kinds, ["settlement", "reconciliation"], "both have said so, and nothing else is wrong");
}
