//! The second half of the story: money that is booked once and balances, also when the database moves in between.

use crate::{WAIT, answer, chapter, say, sql};
use usher_clients::server::copy_database;
use usher_clients::{Client, Database, Uuid, number, run, text, value, wait};

const BALANCES: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
    SELECT rpad(a.code || ' ' || a.name, 28) || to_char(sum(e.debit), '99990.00') || to_char(sum(e.credit), '99990.00') AS line
      FROM atlvs.ledger_entries e JOIN atlvs.ledger_accounts a ON a.organization_id = e.organization_id AND a.id = e.account_id
     GROUP BY a.code, a.name) AS accounts";

/// Journals whose two sides differ: there must be none, ever.
const UNBALANCED: &str =
    "SELECT count(*) FROM (SELECT FROM atlvs.ledger_entries GROUP BY journal_id HAVING sum(debit) <> sum(credit)) AS wrong";

fn order(here: &mut Client, organization: Uuid, number: &str, tickets: i32) {
    let mut transaction = here.transaction().expect("BEGIN");
    let id: Uuid = transaction
        .query_one(
            "INSERT INTO gvteway.orders (organization_id, event_id, number, status, subtotal, fees, tax, total, currency)
             SELECT $1, id, $2, 'pending', $3::integer * 40, $3::integer * 2, $3::integer * 8, $3::integer * 50, 'EUR'
               FROM gvteway.events WHERE title = 'Summer Night' RETURNING id",
            &[&organization, &number, &tickets],
        )
        .expect("an order can be made")
        .get(0);
    transaction
        .execute(
            "INSERT INTO gvteway.order_items (organization_id, order_id, kind, qty, unit_price) VALUES ($1, $2, 'ticket', $3, 40)",
            &[&organization, &id, &tickets],
        )
        .expect("an order has items");
    transaction.commit().expect("COMMIT");
}

fn books(here: &mut Client) {
    sql("SELECT code, name, sum(debit), sum(credit) FROM atlvs.ledger_entries JOIN … GROUP BY 1, 2");
    text(here, BALANCES).lines().for_each(answer);
    assert_eq!(number(here, UNBALANCED), 0, "every journal balances");
}

pub fn orders_are_sold(here: &mut Client, organization: Uuid) {
    chapter("4. Tickets are sold");
    say("Guests order tickets for 'Summer Night': 2, 3 and 1, at 50 EUR with fees and tax. Two of them pay:");
    for (name, tickets) in [("G-1", 2), ("G-2", 3), ("G-3", 1)] {
        order(here, organization, name, tickets);
    }
    sql("UPDATE gvteway.orders SET status = 'paid' WHERE number IN ('G-1', 'G-2')");
    run(here, "UPDATE gvteway.orders SET status = 'paid' WHERE number IN ('G-1', 'G-2')");
    wait::until(WAIT, "two orders are taken in as revenue", || {
        number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions") == 2
    });
    usher_clients::settled(here, WAIT);
    books(here);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.journals"), 2, "one journal for each paid order");
    say("Each paid order is one journal in atlvs, and its two sides are equal. The production knows what is sold:");
    let sold = "SELECT concat_ws(' of ', tickets_sold, capacity) FROM compvss.productions WHERE name = 'Summer Night'";
    wait::until(WAIT, "the production counts five tickets", || text(here, sold) == "5 of 3500");
    sql("SELECT tickets_sold, capacity FROM compvss.productions WHERE name = 'Summer Night'");
    answer(&text(here, sold));
    say("A box office that is not sure whether its call got through calls again; the second call changes nothing:");
    let call = "SELECT concat_ws(' | ', ticket_count, gross_amount, currency, CASE WHEN repeated THEN 'a repeat' ELSE 'new' END)
                  FROM usher.ingest_ticket_revenue('acme', (SELECT code FROM atlvs.projects WHERE name = 'Summer Night'), NULL, 4, 200, 'EUR', 'box_office',
                                                   '{\"reference\": \"BO-17\"}')";
    sql(
        "SELECT … FROM usher.ingest_ticket_revenue('acme', 'P-…', NULL, 4, 200, 'EUR', 'box_office', '{\"reference\": \"BO-17\"}')",
    );
    let first = text(here, call);
    answer(&first);
    let second = text(here, call);
    answer(&second);
    assert!(first.ends_with("new") && second.ends_with("a repeat"), "the second call is a repeat");
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.journals"), 3, "three sales, three journals");
    usher_clients::settled(here, WAIT);
}

pub fn the_database_moves(database: &Database, here: &mut Client, organization: Uuid) -> Database {
    chapter("5. The database moves");
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(here, "UPDATE gvteway.orders SET status = 'paid' WHERE number = 'G-3'");
    say("The third guest pays, and before any worker gets to it, somebody dumps the database and restores it elsewhere:");
    sql("UPDATE gvteway.orders SET status = 'paid' WHERE number = 'G-3'");
    let moved = Database::create_empty("usher_demo_moved");
    copy_database(&database.name, &moved.name);
    println!("    $ pg_dump usher_demo | psql usher_demo_moved");
    let mut there = moved.connect();
    let held = "SELECT concat_ws(' | ', flow, status) FROM usher.sync_jobs WHERE status = 'pending' AND flow = 'live_events.ingest_paid_order'";
    let job = text(&mut there, held);
    assert_eq!(job, "live_events.ingest_paid_order | pending", "the restored database has the pending job");
    sql("SELECT flow, status FROM usher.sync_jobs WHERE status = 'pending' AND flow = …   -- in usher_demo_moved");
    answer(&job);
    let worker = "SELECT value FROM usher.status() WHERE section = 'worker'";
    assert_eq!(text(&mut there, worker), "waits for resume()", "nothing runs in a copy by itself");
    say("It is all there, and nothing runs: a copy must not do the original's work. So somebody says what it is:");
    let answered = text(&mut there, "SELECT usher.resume('moved')");
    sql("SELECT usher.resume('moved')");
    answer(&answered);
    moved.await_workers();
    wait::until(WAIT, "the pending order is booked in the new place", || {
        number(&mut there, "SELECT count(*) FROM atlvs.journals") == 4
    });
    usher_clients::settled(&mut there, WAIT);
    books(&mut there);
    let sums = "SELECT (SELECT sum(total) FROM gvteway.orders WHERE status = 'paid') + 200 = (SELECT sum(gross_amount) FROM usher.ticket_revenue_ingestions)";
    assert!(value::<bool>(&mut there, sums, &[]), "what was paid is what was taken in");
    let twice = "SELECT count(*) FROM gvteway.events WHERE organization_id = $1 AND title = 'Summer Night'";
    assert_eq!(value::<i64>(&mut there, twice, &[&organization]), 1, "nothing was done again");
    say("The third order is booked in the new place; nothing was lost on the way, nothing was done twice.");
    drop(holder);
    moved
}

pub fn an_order_is_given_back(there: &mut Client, organization: Uuid) {
    chapter("6. A guest gives tickets back");
    run(there, "UPDATE gvteway.orders SET status = 'refunded' WHERE number = 'G-2'");
    sql("UPDATE gvteway.orders SET status = 'refunded' WHERE number = 'G-2'");
    wait::until(WAIT, "the refund is booked", || {
        number(there, "SELECT count(*) FROM atlvs.journals WHERE reverses IS NOT NULL") == 1
    });
    usher_clients::settled(there, WAIT);
    let lines = "SELECT string_agg(concat_ws(' | ', ticket_count, gross_amount, CASE WHEN reverses IS NULL THEN 'sale' ELSE 'reversal' END), E'\\n' ORDER BY ingested_at, id)
                   FROM usher.ticket_revenue_ingestions WHERE organization_id = $1";
    sql("SELECT ticket_count, gross_amount, reverses FROM usher.ticket_revenue_ingestions");
    value::<String>(there, lines, &[&organization]).lines().for_each(answer);
    books(there);
    let left = text(
        there,
        "SELECT concat_ws(' tickets, ', sum(ticket_count), sum(gross_amount) || ' EUR') FROM usher.ticket_revenue_ingestions",
    );
    assert_eq!(left, "7 tickets, 350.00 EUR", "what is left of the revenue");
    let sold = "SELECT tickets_sold::text FROM compvss.productions WHERE name = 'Summer Night'";
    wait::until(WAIT, "the production counts seven tickets", || text(there, sold) == "7");
    say(&format!("The sale stays, a reversal stands beside it, and its journal mirrors the first. {left} are left."));
}

pub fn the_doctor_finds_nothing(there: &mut Client) {
    let ills =
        "SELECT string_agg(concat_ws(' | ', state, \"check\", finding), E'\\n') FROM usher.doctor() WHERE state = 'problem'";
    let ills = text(there, ills);
    assert!(ills.is_empty(), "usher.doctor() finds no problem, not: {ills}");
    sql("SELECT count(*) FILTER (WHERE state = 'ok'), count(*) FILTER (WHERE state = 'problem') FROM usher.doctor()");
    answer(&text(
        there,
        "SELECT concat_ws(' | ', count(*) FILTER (WHERE state = 'ok'), count(*) FILTER (WHERE state = 'problem')) FROM usher.doctor()",
    ));
}
