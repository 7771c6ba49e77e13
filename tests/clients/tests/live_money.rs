//! The money of the pack live_events beyond the six cases: currencies, what is booked stays, replays, a planted cent, stock under
//! concurrency, worth, tax; and what a guest says against what the CRM says.

use std::thread;
use std::time::Duration;
use usher_clients::{Client, Database, SqlState, Uuid, number, refused, run, settled, text, value, wait};

fn pack(name: &str) -> (Database, Client, Uuid) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(&mut client, "SELECT usher.install_pack('live_events')");
    let acme = value(&mut client, "SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')", &[]);
    run(
        &mut client,
        "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": []}}') FROM usher.flows WHERE pack = 'live_events' AND strpos(name, ':') = 0",
    );
    (database, client, acme)
}

fn event(client: &mut Client, organization: Uuid, slug: &str) -> Uuid {
    let sql = "INSERT INTO gvteway.events (organization_id, slug, title) VALUES ($1, $2, $2) RETURNING id";
    value(client, sql, &[&organization, &slug])
}

/// A pending order of one ticket.
fn order(client: &mut Client, organization: Uuid, event: Uuid, number: &str, price: &str, currency: &str) -> Uuid {
    let sql = "WITH o AS (INSERT INTO gvteway.orders (organization_id, event_id, number, subtotal, total, currency)
                          VALUES ($1, $2, $3, $4::text::numeric, $4::text::numeric, $5) RETURNING organization_id, id),
                    i AS (INSERT INTO gvteway.order_items (organization_id, order_id, kind, unit_price) SELECT o.organization_id, o.id, 'ticket', $4::text::numeric FROM o)
               SELECT id FROM o";
    value(client, sql, &[&organization, &event, &number, &price, &currency])
}

fn done(client: &mut Client) {
    settled(client, wait::LONG);
}

#[track_caller]
fn nothing_failed(client: &mut Client) {
    done(client);
    assert_eq!(text(client, "SELECT COALESCE(string_agg(error_message, '; '), 'nothing') FROM usher.dead_letters"), "nothing");
}

/// Balances by account and currency.
fn balances(client: &mut Client) -> String {
    text(
        client,
        "SELECT COALESCE(string_agg(b, ', ' ORDER BY b), 'none')
           FROM (SELECT concat_ws(' ', a.code, j.currency, sum(e.debit - e.credit)) AS b
                   FROM atlvs.ledger_entries e
                   JOIN atlvs.journals j ON j.organization_id = e.organization_id AND j.id = e.journal_id
                   JOIN atlvs.ledger_accounts a ON a.organization_id = e.organization_id AND a.id = e.account_id
                  GROUP BY a.code, j.currency HAVING sum(e.debit - e.credit) <> 0) AS s",
    )
}

#[test]
fn one_way_into_the_ledger_balanced_and_once() {
    let (database, mut client, acme) = pack("usher_test_posting");
    let here = &mut client;
    let post = |reference: &str, amounts: &str, currency: &str| {
        format!(
            "SELECT atlvs.post_journal('{acme}', NULL, '2026-05-01', 'Rent', '{currency}', 'test', '{reference}', ARRAY['5000', '2000'], ARRAY[{amounts}]::numeric[])::text"
        )
    };
    let first = text(here, &post("a", "100.10, -100.10", "EUR"));
    assert_eq!(text(here, &post("a", "100.10, -100.10", "EUR")), first, "the same again is the same journal");
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.ledger_entries"), 2);
    assert_eq!(
        refused(here, &post("a", "100.11, -100.11", "EUR")).code(),
        &SqlState::UNIQUE_VIOLATION,
        "another under its name is not"
    );
    assert_eq!(refused(here, &post("a", "100.10, -100.10", "USD")).code(), &SqlState::UNIQUE_VIOLATION);
    for (amounts, currency) in [
        ("100, -99.99", "EUR"),
        ("0.001, -0.001", "EUR"),
        ("0.5, -0.5", "JPY"),
        ("NULL, 1", "EUR"),
        ("1", "EUR"),
        ("0.0001, -0.0001", "KWD"),
    ] {
        assert_eq!(
            refused(here, &post("b", amounts, currency)).code(),
            &SqlState::INVALID_PARAMETER_VALUE,
            "{amounts} {currency}"
        );
    }
    run(here, &post("kwd", "0.125, -0.125", "KWD"));
    run(here, &post("jpy", "12, -12", "JPY"));
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.journals"), 3, "what is refused leaves nothing");
    // Several sessions, one business event.
    let sessions: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, sql) = (database.connect(), post("race", "7, -7", "EUR"));
            thread::spawn(move || text(&mut client, &sql))
        })
        .collect();
    let mut journals: Vec<String> = sessions.into_iter().map(|session| session.join().expect("a session has panicked")).collect();
    journals.dedup();
    assert_eq!(journals.len(), 1);
    // Back, once.
    let back = format!("SELECT atlvs.reverse_journal('{acme}', '{first}', '2026-05-02', 'Rent back', 'test', 'a back')::text");
    let reversal = text(here, &back);
    assert_eq!(text(here, &back), reversal);
    assert_eq!(balances(here), "2000 EUR -7.00, 2000 JPY -12, 2000 KWD -0.125, 5000 EUR 7.00, 5000 JPY 12, 5000 KWD 0.125");
}

#[test]
fn payouts_of_all_currencies_are_settled_to_the_last_digit_and_stay() {
    let (_database, mut client, acme) = pack("usher_test_payouts");
    let here = &mut client;
    let night = event(here, acme, "night");
    for (currency, price) in [("EUR", "100.01"), ("JPY", "1000"), ("KWD", "10.125")] {
        let id = order(here, acme, night, currency, price, currency);
        here.execute("UPDATE gvteway.orders SET status = 'paid' WHERE id = $1", &[&id]).expect("paid");
    }
    nothing_failed(here);
    let pay = |reference: &str, gross: &str, fees: &str, net: &str, currency: &str| {
        format!(
            "INSERT INTO gvteway.payouts (organization_id, provider, payout_ref, gross, fees, net, currency, status, paid_at)
             VALUES ('{acme}', 'stripe', '{reference}', {gross}, {fees}, {net}, '{currency}', 'paid', '2026-08-04');
             UPDATE gvteway.orders SET payout_id = (SELECT id FROM gvteway.payouts WHERE payout_ref = '{reference}') WHERE number = '{currency}' AND payout_id IS NULL"
        )
    };
    run(
        here,
        &format!(
            "BEGIN; {}; {}; {}; COMMIT",
            pay("p1", "100.01", "3.33", "96.68", "EUR"),
            pay("p2", "1000", "36", "964", "JPY"),
            pay("p3", "10.125", "0.405", "9.720", "KWD")
        ),
    );
    nothing_failed(here);
    assert_eq!(
        balances(here),
        "1000 EUR 96.68, 1000 JPY 964, 1000 KWD 9.720, 4000 EUR -100.01, 4000 JPY -1000, 4000 KWD -10.125, 5300 EUR 3.33, 5300 JPY 36, 5300 KWD 0.405",
        "clearing is empty to the last digit"
    );
    // Half a yen is no amount: corrected, as nothing is booked of it yet, and run again.
    run(here, &pay("p4", "10.5", "0", "10.5", "JPY"));
    done(here);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters WHERE error_message ~ 'payout .* cannot be booked'"), 1);
    run(here, "UPDATE gvteway.payouts SET gross = 10, net = 10 WHERE payout_ref = 'p4'");
    assert_eq!(number(here, "SELECT usher.retry_dead_letters('acme', '{\"flow\": \"live_events.settle_paid_payout\"}')"), 1);
    nothing_failed(here);
    // What is booked stays.
    for sql in [
        "UPDATE gvteway.payouts SET fees = 1 WHERE payout_ref = 'p4'",
        "UPDATE gvteway.payouts SET status = 'failed' WHERE payout_ref = 'p1'",
        "DELETE FROM gvteway.payouts WHERE payout_ref = 'p1'",
    ] {
        assert_eq!(refused(here, sql).code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{sql}");
    }
    // All of it again changes nothing.
    let before = balances(here);
    run(here, "SELECT usher.replay('live_events.settle_paid_payout', now() - interval '1 hour', now())");
    wait::until_true(
        here,
        "SELECT count(*) = 8 FROM usher.sync_jobs WHERE flow = 'live_events.settle_paid_payout' AND status = 'synced'",
    );
    nothing_failed(here);
    assert_eq!(balances(here), before);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.settlements"), 4);
    // A cent that the provider keeps is booked as paid, and told.
    let short = order(here, acme, night, "short", "50", "EUR");
    here.execute("UPDATE gvteway.orders SET status = 'paid' WHERE id = $1", &[&short]).expect("paid");
    done(here);
    run(
        here,
        &format!(
            "BEGIN; {}; UPDATE gvteway.orders SET payout_id = (SELECT id FROM gvteway.payouts WHERE payout_ref = 'p5') WHERE number = 'short'; COMMIT",
            pay("p5", "49.99", "0", "49.99", "EUR")
        ),
    );
    nothing_failed(here);
    assert_eq!(
        text(
            here,
            "SELECT concat_ws('|', s.status, a.kind, a.severity, a.title) FROM atlvs.settlements s, atlvs.alerts a WHERE s.payout_ref = 'p5'"
        ),
        "difference|settlement|high|Payout p5: gross 49.99 EUR, but its orders are worth 50"
    );
    // It was the order of another payout: reconciliation sees it.
    run(here, "UPDATE gvteway.orders SET payout_id = NULL WHERE number = 'short'");
    run(here, "SELECT usher.enqueue_sync_job('acme', 'atlvs', 'atlvs', '{\"action\": \"reconcile\"}')");
    nothing_failed(here);
    let now = "SELECT concat_ws('|', s.status, a.status, r.status) FROM atlvs.settlements s, atlvs.alerts a, atlvs.reconciliation_runs r WHERE s.payout_ref = 'p5'";
    assert_eq!(text(here, now), "booked|resolved|clean");
}

#[test]
fn the_clock_starts_what_is_nightly_and_monthly() {
    let (_database, mut client, acme) = pack("usher_test_live_clock");
    let here = &mut client;
    let night = event(here, acme, "night");
    let id = order(here, acme, night, "1", "100", "EUR");
    here.execute(
        "UPDATE gvteway.orders SET status = 'paid', paid_at = date_trunc('month', now() AT TIME ZONE 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin' - interval '1 minute' WHERE id = $1",
        &[&id],
    )
    .expect("paid in the last minute of the month before");
    nothing_failed(here);
    // As they are, but for when: at the next full minute.
    run(
        here,
        "SELECT usher.alter_flow(name, jsonb_set(definition, '{when,schedule}', '\"* * * * *\"')) FROM usher.flows
          WHERE name IN ('live_events.reconcile_nightly', 'live_events.consolidate_tax_monthly', 'live_events.count_all_lifetime_values', 'live_events.attribute_all_campaigns')",
    );
    wait::until_true_for(
        here,
        Duration::from_secs(100),
        "SELECT count(DISTINCT flow) = 4 AND bool_and(status = 'synced') FROM usher.sync_jobs WHERE payload ? 'scheduled_at' AND flow <> 'live_events.refresh_kpis' AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'acme')",
    );
    let berlin = "(now() AT TIME ZONE 'Europe/Berlin')";
    assert_eq!(
        text(
            here,
            &format!(
                "SELECT concat_ws(' ', up_to = {berlin}::date - 1, status, checked) FROM atlvs.reconciliation_runs WHERE organization_id = '{acme}'"
            )
        ),
        "t clean 3"
    );
    assert_eq!(
        text(
            here,
            &format!(
                "SELECT concat_ws(' ', period = (date_trunc('month', {berlin}) - interval '1 month')::date, taxable, kind) FROM atlvs.tax_lines"
            )
        ),
        "t 100 sales"
    );
}

#[test]
fn a_planted_cent_is_found_at_night_and_gone_when_it_is_mended() {
    let (_database, mut client, acme) = pack("usher_test_reconcile");
    let here = &mut client;
    let other: Uuid = value(here, "SELECT usher.create_organization('other')", &[]);
    for organization in [acme, other] {
        let night = event(here, organization, "night");
        for n in 1..=5 {
            let id = order(here, organization, night, &format!("S-{n}"), "19.99", "EUR");
            // At midnight in Berlin: taken in later, and still of that day.
            here.execute(
                "UPDATE gvteway.orders SET status = 'paid', paid_at = '2026-08-01 23:59:59.9 Europe/Berlin' WHERE id = $1",
                &[&id],
            )
            .expect("paid");
        }
        here.execute(
            "UPDATE gvteway.orders SET status = 'refunded' WHERE number = 'S-5' AND organization_id = $1",
            &[&organization],
        )
        .expect("refunded");
    }
    nothing_failed(here);
    // The night comes every second.
    run(
        here,
        "SELECT usher.alter_flow('live_events.reconcile_nightly', jsonb_set(definition, '{when,schedule}', '\"every 1 seconds\"')
                                 || '{\"set\": {\"organization\": \"job.organization_id\", \"up_to\": \"atlvs.local_day(job.organization_id, job.scheduled_at)\"}}')
           FROM usher.flows WHERE name = 'live_events.reconcile_nightly'",
    );
    wait::until_true(
        here,
        "SELECT count(*) >= 2 AND bool_and(status = 'clean') AND min(checked) >= 4 FROM atlvs.reconciliation_runs WHERE organization_id <> (SELECT id FROM usher.organizations WHERE slug = 'default')",
    );
    // Somebody who may do everything takes a cent out of one entry.
    let plant = |cents: &str| {
        format!(
            "SET session_replication_role = replica;
             UPDATE atlvs.ledger_entries e SET debit = debit {cents} FROM atlvs.journals j, usher.ticket_revenue_ingestions i, gvteway.orders o
              WHERE o.organization_id = '{acme}' AND o.number = 'S-2' AND i.organization_id = o.organization_id AND i.idempotency_key = 'order:' || o.id
                AND j.organization_id = o.organization_id AND j.source_ref = i.id::text AND e.organization_id = o.organization_id AND e.journal_id = j.id AND e.debit > 0;
             SET session_replication_role = DEFAULT"
        )
    };
    run(here, &plant("- 0.01"));
    let open = "SELECT count(*) = 3 FROM atlvs.alerts WHERE kind = 'reconciliation' AND status = 'open'";
    wait::until_true(here, open);
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', kind, day, orders_amount, ledger_amount, difference, currency), ', ' ORDER BY kind) FROM atlvs.reconciliation_items"
        ),
        "clearing 79.96 79.95 -0.01 EUR, event_day 2026-08-01 99.95 99.94 -0.01 EUR, ledger -0.01 -0.01 EUR"
    );
    assert_eq!(
        number(here, &format!("SELECT count(*) FROM atlvs.alerts WHERE organization_id <> '{acme}'")),
        0,
        "only where it is"
    );
    run(here, &plant("+ 0.01"));
    wait::until_true(here, "SELECT count(*) = 3 FROM atlvs.alerts WHERE kind = 'reconciliation' AND status = 'resolved'");
    wait::until_true(here, "SELECT count(*) = 0 FROM atlvs.reconciliation_items");
    // An order that was paid and never taken in, because its job is dead.
    run(here, "SELECT usher.disable_flow('live_events.ingest_paid_order')");
    let night: Uuid = value(here, "SELECT id FROM gvteway.events WHERE organization_id = $1", &[&acme]);
    let id = order(here, acme, night, "S-6", "0.01", "EUR");
    here.execute("UPDATE gvteway.orders SET status = 'paid', paid_at = '2026-08-02 12:00Z' WHERE id = $1", &[&id]).expect("paid");
    wait::until_true(
        here,
        "SELECT count(*) = 1 FROM atlvs.alerts WHERE kind = 'reconciliation' AND status = 'open' AND title ~ 'event_day night 2026-08-02 differs by -0.01 EUR'",
    );
}

#[test]
fn stock_and_store_agree_whoever_sells_and_counts() {
    let (database, mut client, acme) = pack("usher_test_stock");
    let here = &mut client;
    let night = event(here, acme, "night");
    run(
        here,
        &format!(
            "INSERT INTO atlvs.inventory_items (organization_id, sku, name, on_hand, reorder_at) VALUES ('{acme}', 'shirt', 'Shirt', 100, 10), ('{acme}', 'cup', 'Cup', 2, 0);
             INSERT INTO gvteway.merch_products (organization_id, sku, title) VALUES ('{acme}', 'shirt', 'Shirt'), ('{acme}', 'cup', 'Cup')"
        ),
    );
    nothing_failed(here);
    assert_eq!(
        text(here, "SELECT string_agg(sku || stock, ',' ORDER BY sku) FROM gvteway.merch_products"),
        "cup2,shirt100",
        "the store's count holds"
    );
    let sell = |here: &mut Client, number: &str, sku: &str, qty: i32| -> Uuid {
        let sql = "WITH o AS (INSERT INTO gvteway.orders (organization_id, event_id, number) VALUES ($1, $2, $3) RETURNING organization_id, id),
                        i AS (INSERT INTO gvteway.order_items (organization_id, order_id, kind, sku, qty, unit_price) SELECT o.organization_id, o.id, 'merch', $4, $5, 0 FROM o)
                   SELECT id FROM o";
        value(here, sql, &[&acme, &night, &number, &sku, &qty])
    };
    let orders: Vec<Uuid> = (0..40).map(|n| sell(here, &format!("S-{n}"), "shirt", 2)).collect();
    let sessions: Vec<_> = orders
        .chunks(10)
        .map(|part| {
            let (mut client, part) = (database.connect(), part.to_vec());
            thread::spawn(move || {
                for id in part {
                    client.execute("UPDATE gvteway.orders SET status = 'paid' WHERE id = $1", &[&id]).expect("paid");
                    client
                        .execute("UPDATE atlvs.inventory_items SET on_hand = on_hand + 1 WHERE sku = 'shirt'", &[])
                        .expect("counted");
                }
            })
        })
        .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    nothing_failed(here);
    let both = "SELECT concat_ws(',', p.stock, i.on_hand) FROM gvteway.merch_products p JOIN atlvs.inventory_items i USING (organization_id, sku) WHERE sku = ";
    assert_eq!(text(here, &format!("{both} 'shirt'")), "60,60", "100 - 40 * 2 + 40");
    // Given back, once, also when everything runs again.
    here.execute("UPDATE gvteway.orders SET status = 'refunded' WHERE id = ANY ($1)", &[&orders[..5].to_vec()])
        .expect("refunded");
    nothing_failed(here);
    for flow in ["take_sold_stock", "return_refunded_stock"] {
        run(here, &format!("SELECT usher.replay('live_events.{flow}', now() - interval '1 hour', now())"));
    }
    nothing_failed(here);
    wait::until_true(
        here,
        "SELECT count(*) = 90 FROM usher.sync_jobs WHERE flow IN ('live_events.take_sold_stock', 'live_events.return_refunded_stock') AND status = 'synced'",
    );
    assert_eq!(text(here, &format!("{both} 'shirt'")), "70,70");
    // Low, lower, and full again.
    let alert =
        "SELECT concat_ws('|', severity, status, title) FROM atlvs.alerts WHERE kind = 'inventory' AND title LIKE 'Shirt%'";
    run(here, "UPDATE atlvs.inventory_items SET on_hand = 10 WHERE sku = 'shirt'");
    nothing_failed(here);
    assert_eq!(text(here, alert), "medium|open|Shirt (shirt) is low: 10 left, to be ordered again at 10");
    run(here, "UPDATE gvteway.merch_products SET stock = 0 WHERE sku = 'shirt'");
    nothing_failed(here);
    assert_eq!(text(here, alert), "high|open|Shirt (shirt) is out of stock");
    run(here, "UPDATE atlvs.inventory_items SET on_hand = 50 WHERE sku = 'shirt'");
    nothing_failed(here);
    assert_eq!(text(here, alert), "high|resolved|Shirt (shirt) is out of stock");
    // More is sold than there is: the store cannot hold less than nothing, somebody is told, and the next delivery makes it good.
    let id = sell(here, "many", "cup", 5);
    here.execute("UPDATE gvteway.orders SET status = 'paid' WHERE id = $1", &[&id]).expect("paid");
    done(here);
    assert_eq!(text(here, &format!("{both} 'cup'")), "-3,2");
    assert_eq!(text(here, "SELECT string_agg(kind || ' ' || state, ',') FROM usher.conflicts"), "validation_failure open");
    run(here, "UPDATE atlvs.inventory_items SET on_hand = on_hand + 10 WHERE sku = 'cup'");
    done(here);
    assert_eq!(text(here, &format!("{both} 'cup'")), "7,7");
    assert_eq!(text(here, "SELECT string_agg(kind || ' ' || state, ',') FROM usher.conflicts"), "validation_failure gone");
}

#[test]
fn what_a_guest_says_later_holds_and_withdrawn_consent_always() {
    let (_database, mut client, acme) = pack("usher_test_guests");
    let here = &mut client;
    let contact: Uuid = value(
        here,
        "INSERT INTO atlvs.contacts (organization_id, email, first_name, phone, marketing_consent) VALUES ($1, 'ada@example.org', 'Ada', '1', true) RETURNING id",
        &[&acme],
    );
    nothing_failed(here);
    let guest = "SELECT concat_ws('|', email, name, phone, marketing_opt_in) FROM gvteway.guests WHERE contact_ref IS NOT NULL";
    let change = |here: &mut Client, table: &str, what: &str| {
        run(here, &format!("UPDATE {table} SET {what} WHERE organization_id = '{acme}'"));
        nothing_failed(here);
    };
    assert_eq!(text(here, guest), "ada@example.org|Ada|1|t");
    // The guest's own phone is later than the contact's new name, which comes along with an old phone.
    change(here, "gvteway.guests", "phone = '2'");
    change(here, "atlvs.contacts", "first_name = 'Ada L.'");
    assert_eq!(text(here, guest), "ada@example.org|Ada L.|2|t");
    // The contact's next phone is later still.
    change(here, "atlvs.contacts", "phone = '3'");
    assert_eq!(text(here, guest), "ada@example.org|Ada L.|3|t");
    // Another address is the same guest, and a second guest with the old one stays alone.
    change(here, "atlvs.contacts", "email = 'ada@example.com'");
    run(
        here,
        &format!("INSERT INTO gvteway.guests (organization_id, email, name) VALUES ('{acme}', 'ada@example.org', 'Another')"),
    );
    change(here, "atlvs.contacts", "company = 'Engines'");
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|3|t");
    assert_eq!(number(here, "SELECT count(*) FROM gvteway.guests"), 2);
    run(here, "DELETE FROM gvteway.guests WHERE name = 'Another'");
    // Withdrawn in the CRM, although the guest gives it at the same time.
    run(
        here,
        "BEGIN; UPDATE atlvs.contacts SET marketing_consent = false; UPDATE gvteway.guests SET marketing_opt_in = false; UPDATE gvteway.guests SET marketing_opt_in = true; COMMIT",
    );
    nothing_failed(here);
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|3|f");
    // Nobody but the guest gives back what the guest has withdrawn.
    change(here, "gvteway.guests", "marketing_opt_in = true");
    change(here, "atlvs.contacts", "marketing_consent = true");
    change(here, "gvteway.guests", "marketing_opt_in = false");
    assert_eq!(text(here, "SELECT marketing_consent::text FROM atlvs.contacts"), "false", "withdrawn here, withdrawn there");
    change(here, "atlvs.contacts", "marketing_consent = true");
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|3|f");
    // All of it again: nothing is older than what the guest has said.
    change(here, "gvteway.guests", "phone = '4'");
    run(here, "SELECT usher.backfill('live_events.carry_contact_to_guest')");
    wait::until_true(here, "SELECT state = 'done' FROM usher.progress");
    nothing_failed(here);
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|4|f");
    // An erased guest stays erased.
    change(here, "gvteway.guests", "name = NULL, phone = NULL, email = 'erased', crm_profile = '{}', erased_at = now()");
    change(here, "atlvs.contacts", "phone = '5'");
    assert_eq!(text(here, "SELECT concat_ws('|', email, name, phone, crm_profile) FROM gvteway.guests"), "erased|{}");
    assert_eq!(number(here, &format!("SELECT count(*) FROM usher.links WHERE kind = 'guest' AND left_id = '{contact}'")), 1);
}

#[test]
fn bookings_of_one_deal_make_one_event_and_cancel_it_with_the_last() {
    let (_database, mut client, acme) = pack("usher_test_bookings");
    let here = &mut client;
    run(
        here,
        &format!(
            "WITH d AS (INSERT INTO atlvs.deals (organization_id, title, kind, status, value, event_date) VALUES ('{acme}', 'Double Bill', 'artist', 'proposal', 1, '2026-09-05') RETURNING id),
                  a AS (INSERT INTO atlvs.artists (organization_id, name) VALUES ('{acme}', 'One'), ('{acme}', 'Two') RETURNING id)
             INSERT INTO atlvs.artist_bookings (organization_id, artist_id, deal_id, event_on) SELECT '{acme}', a.id, d.id, '2026-09-05' FROM d, a"
        ),
    );
    run(here, "UPDATE atlvs.artist_bookings SET status = 'confirmed'");
    nothing_failed(here);
    let events = "SELECT string_agg(title || ' ' || status, ',') FROM gvteway.events";
    assert_eq!(text(here, events), "Double Bill draft");
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.links WHERE kind = 'event' AND status = 'synced'"),
        2,
        "both bookings know it"
    );
    for (number, status) in [(1, "draft"), (2, "cancelled")] {
        run(
            here,
            "UPDATE atlvs.artist_bookings SET status = 'cancelled' WHERE id = (SELECT id FROM atlvs.artist_bookings WHERE status = 'confirmed' ORDER BY id LIMIT 1)",
        );
        nothing_failed(here);
        assert_eq!(text(here, events), format!("Double Bill {status}"), "{number} of two are cancelled");
    }
    run(
        here,
        "UPDATE atlvs.artist_bookings SET status = 'confirmed' WHERE id = (SELECT min(id::text)::uuid FROM atlvs.artist_bookings)",
    );
    nothing_failed(here);
    assert_eq!(text(here, events), "Double Bill draft");
}

#[test]
fn a_rating_follows_its_reviews() {
    let (_database, mut client, acme) = pack("usher_test_ratings");
    let here = &mut client;
    let night = event(here, acme, "night");
    run(here, &format!("INSERT INTO atlvs.vendors (organization_id, name) VALUES ('{acme}', 'A'), ('{acme}', 'B')"));
    run(
        here,
        &format!(
            "INSERT INTO gvteway.reviews (organization_id, event_id, rating, vendor_ref, status, note)
             SELECT '{acme}', '{night}', r.rating, v.id, 'published', r.rating::text FROM atlvs.vendors v, (VALUES (5), (4), (2)) AS r (rating) WHERE v.name = 'A'"
        ),
    );
    let ratings = "SELECT string_agg(concat_ws(' ', name, rating, rating_n), ', ' ORDER BY name) FROM atlvs.vendors";
    for (sql, wanted) in [
        ("SELECT 1", "A 3.67 3, B 0"),
        ("UPDATE gvteway.reviews SET rating = 1 WHERE note = '2'", "A 3.33 3, B 0"),
        (
            "UPDATE gvteway.reviews SET vendor_ref = (SELECT id FROM atlvs.vendors WHERE name = 'B') WHERE note = '4'",
            "A 3.00 2, B 4.00 1",
        ),
        ("UPDATE gvteway.reviews SET status = 'flagged' WHERE note = '2'", "A 5.00 1, B 4.00 1"),
        ("DELETE FROM gvteway.reviews WHERE note = '5'", "A 0, B 4.00 1"),
    ] {
        run(here, sql);
        nothing_failed(here);
        assert_eq!(text(here, ratings), wanted, "{sql}");
    }
}

#[test]
fn worth_campaigns_and_staff_are_counted_anew() {
    let (_database, mut client, acme) = pack("usher_test_worth");
    let here = &mut client;
    let night = event(here, acme, "night");
    let contact: Uuid =
        value(here, "INSERT INTO atlvs.contacts (organization_id, email) VALUES ($1, 'bob@example.org') RETURNING id", &[&acme]);
    nothing_failed(here);
    run(
        here,
        &format!(
            "INSERT INTO gvteway.campaigns (organization_id, name, event_id, currency, budget) VALUES ('{acme}', 'A', '{night}', 'EUR', 100), ('{acme}', 'B', '{night}', 'EUR', 100)"
        ),
    );
    for (number, price, currency) in [("1", "10.50", "EUR"), ("2", "20", "EUR"), ("3", "1000", "JPY")] {
        let id = order(here, acme, night, number, price, currency);
        here.execute(
            "UPDATE gvteway.orders SET status = 'paid', guest_ref = (SELECT id FROM gvteway.guests), campaign_id = (SELECT id FROM gvteway.campaigns WHERE name = 'A') WHERE id = $1",
            &[&id],
        )
        .expect("paid");
    }
    run(
        here,
        &format!(
            "INSERT INTO atlvs.deals (organization_id, title, contact_id, status, value, currency, event_date) VALUES ('{acme}', 'Gala', '{contact}', 'won', 5000, 'EUR', '2026-09-09');
             INSERT INTO gvteway.memberships (organization_id, guest_id, tier, price, currency, starts_on) SELECT '{acme}', id, 'gold', 40, 'EUR', '2026-01-01' FROM gvteway.guests"
        ),
    );
    nothing_failed(here);
    let worth = "SELECT concat_ws('|', g.lifetime_spend, g.currency, c.lifetime_value, c.currency) FROM gvteway.guests g, atlvs.contacts c";
    assert_eq!(text(here, worth), "70.50|EUR|5070.50|EUR", "yen are not added to euros");
    let campaigns =
        "SELECT string_agg(concat_ws(' ', name, attributed_orders, attributed_revenue), ', ' ORDER BY name) FROM atlvs.campaigns";
    assert_eq!(text(here, campaigns), "A 3 30.50, B 0 0");
    // Taken back, moved, lost, ended.
    run(
        here,
        "UPDATE gvteway.orders SET status = 'refunded' WHERE number = '1';
         UPDATE gvteway.orders SET campaign_id = (SELECT id FROM gvteway.campaigns WHERE name = 'B') WHERE number = '2';
         UPDATE atlvs.deals SET status = 'lost';
         DELETE FROM gvteway.memberships",
    );
    nothing_failed(here);
    assert_eq!(text(here, "SELECT concat_ws('|', lifetime_spend, currency) FROM gvteway.guests"), "20|EUR");
    assert_eq!(text(here, "SELECT concat_ws('|', lifetime_value, currency) FROM atlvs.contacts"), "20.00|EUR");
    assert_eq!(text(here, campaigns), "A 1 0, B 1 20");
    // What somebody has bent is right again after the night.
    run(
        here,
        "UPDATE gvteway.guests SET lifetime_spend = 7; UPDATE atlvs.contacts SET lifetime_value = 7; UPDATE atlvs.campaigns SET attributed_orders = 7",
    );
    done(here);
    run(
        here,
        "SELECT usher.alter_flow(name, jsonb_set(definition, '{when,schedule}', '\"every 1 seconds\"')) FROM usher.flows
          WHERE name IN ('live_events.count_all_lifetime_values', 'live_events.attribute_all_campaigns')",
    );
    wait::until_true(
        here,
        "SELECT g.lifetime_spend = 20 AND c.lifetime_value = 20 AND (SELECT bool_and(attributed_orders = 1) FROM atlvs.campaigns) FROM gvteway.guests g, atlvs.contacts c",
    );
    run(
        here,
        "SELECT usher.disable_flow(name) FROM usher.flows WHERE name IN ('live_events.count_all_lifetime_values', 'live_events.attribute_all_campaigns')",
    );
    // Staff follow the ratio of the organization.
    run(
        here,
        &format!("INSERT INTO compvss.productions (organization_id, name, projected_attendance) VALUES ('{acme}', 'Hall', 101)"),
    );
    nothing_failed(here);
    let staff = "SELECT staffing_target FROM compvss.productions WHERE name = 'Hall'";
    assert_eq!(value::<i32>(here, staff, &[]), 3, "one for fifty, rounded up");
    run(here, &format!("INSERT INTO atlvs.settings (organization_id, staffing_ratio) VALUES ('{acme}', 0.1)"));
    nothing_failed(here);
    assert_eq!(value::<i32>(here, staff, &[]), 11);
}

#[test]
fn tax_of_a_month_is_what_its_orders_say_now() {
    let (_database, mut client, acme) = pack("usher_test_tax");
    let here = &mut client;
    let night = event(here, acme, "night");
    let id = order(here, acme, night, "1", "100", "EUR");
    run(
        here,
        &format!(
            "UPDATE gvteway.orders SET tax = 19, total = 119, jurisdiction = 'Berlin' WHERE id = '{id}'; UPDATE gvteway.orders SET status = 'paid', paid_at = '2026-05-10' WHERE id = '{id}'"
        ),
    );
    run(
        here,
        &format!(
            "UPDATE gvteway.orders SET status = 'refunded', refunded_at = '2026-06-01 00:30 Europe/Berlin' WHERE id = '{id}'"
        ),
    );
    nothing_failed(here);
    let consolidate = |here: &mut Client, period: &str| {
        run(
            here,
            &format!(
                "SELECT usher.enqueue_sync_job('acme', 'atlvs', 'atlvs', '{{\"action\": \"consolidate_tax\", \"period\": \"{period}\"}}')"
            ),
        );
        nothing_failed(here);
    };
    consolidate(here, "2026-05");
    consolidate(here, "2026-06");
    let lines = "SELECT COALESCE(string_agg(concat_ws(' ', period, jurisdiction, kind, taxable, tax), ', ' ORDER BY period), 'none') FROM atlvs.tax_lines";
    assert_eq!(
        text(here, lines),
        "2026-05-01 Berlin sales 100 19, 2026-06-01 Berlin sales -100 -19",
        "given back in the month in which it was"
    );
    run(here, "UPDATE gvteway.orders SET jurisdiction = NULL");
    consolidate(here, "2026-05");
    assert_eq!(
        text(here, lines),
        "2026-05-01 unassigned sales 100 19, 2026-06-01 Berlin sales -100 -19",
        "a line that is nobody's any more is gone"
    );
}
