//! What is booked, and what is told when the books do not agree: journals, payouts, the nightly look, the tax of a month.

use super::{balances, done, event, nothing_failed, order, pack};
use std::thread;
use std::time::Duration;
use usher_clients::{Client, SqlState, Uuid, number, refused, run, text, value, wait};

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
