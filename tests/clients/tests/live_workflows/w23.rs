//! W23: reconciliation finds a cent that somebody has planted, and says so.

use super::money::order;
use super::six::{Bad, Place, Workflow, alone, nothing};
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W23",
    targets: &["atlvs.reconciliation_runs", "atlvs.reconciliation_items", "atlvs.alerts"],
    // The provider pays out a cent more than the order in it was worth.
    prepare: |place| {
        format!(
            "{order}; INSERT INTO gvteway.payouts (organization_id, id, provider, payout_ref, gross, fees, net, currency)
             VALUES ('{organization}', '{payout}', 'stripe', '{name}', 116.87, 3.69, 113.18, 'EUR');
             UPDATE gvteway.orders SET status = 'paid', paid_at = {day}::date + time '12:00', payout_id = '{payout}' WHERE id = '{order_id}';
             UPDATE gvteway.payouts SET status = 'paid', paid_at = {day}::date + time '12:00' WHERE id = '{payout}'",
            order = order(place),
            organization = place.organization,
            payout = place.id("payout"),
            name = place.unique("po"),
            day = day(place),
            order_id = place.id("order"),
        )
    },
    act: |place| request(place, &day(place)),
    check,
    not_met: |place| format!("UPDATE gvteway.orders SET metadata = '{{\"seen\": true}}' WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("order")),
    repeat: |place| request(place, &day(place)),
    bad: Bad {
        before: nothing,
        act: |place| request(place, "'infinity'"),
        flow: "live_events.reconcile_on_demand",
        error: "there is no day up to which to reconcile",
        repair: nothing,
        changes: Some(|place| format!("{{\"up_to\": \"{}\"}}", day(place).replace('\'', ""))),
    },
};

/// A day of its own for each case, long before those of all other workflows.
fn day(place: &Place) -> String {
    format!("'{}-06-15'", 1000 + place.case)
}

fn request(place: &Place, up_to: &str) -> String {
    format!(
        "SELECT FROM usher.enqueue_sync_job('{}', 'atlvs', 'atlvs', jsonb_build_object('action', 'reconcile', 'up_to', {up_to}))",
        place.slug
    )
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', r.status, r.differences > 0, i.kind, i.orders_amount, i.ledger_amount, i.payout_amount, i.difference, i.currency), E'\\n')
               FROM atlvs.reconciliation_runs AS r
               JOIN atlvs.reconciliation_items AS i ON i.organization_id = r.organization_id AND i.run_id = r.id
              WHERE r.organization_id = '{}' AND r.up_to = {} AND (i.payout_ref = '{}' OR i.event_ref = '{}' OR i.kind IN ('clearing', 'ledger'))",
            place.organization,
            day(place),
            place.unique("po"),
            place.id("event")
        ),
    );
    assert_eq!(found, "differences|t|payout|116.86|116.87|116.87|0.01|EUR");
    let alerts = text(
        here,
        &format!(
            "SELECT string_agg(kind || '|' || severity || '|' || status, E'\\n' ORDER BY kind) FROM atlvs.alerts WHERE organization_id = '{}' AND title LIKE '%{}%'",
            place.organization,
            place.unique("po")
        ),
    );
    assert_eq!(alerts, "reconciliation|high|open\nsettlement|high|open");
}

#[test]
fn w23_differences_that_take_each_other_away_are_found() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let here = &mut stage.owner;
    let (organization, event, day) = (place.organization, place.id("event"), day(&place));
    run(
        here,
        &format!(
            "INSERT INTO gvteway.orders (organization_id, id, event_id, number, subtotal, total, currency) VALUES ('{organization}', '{other}', '{event}', '{number}', 20, 20, 'EUR');
             INSERT INTO gvteway.order_items (organization_id, order_id, kind, unit_price) VALUES ('{organization}', '{other}', 'ticket', 20);
             UPDATE gvteway.orders SET status = 'paid', paid_at = {day}::date + time '13:00' WHERE id = '{other}'",
            other = place.id("other"),
            number = place.unique("other")
        ),
    );
    settled(here, wait::LONG);
    let differs = format!("SELECT concat_ws('|', orders_amount, ledger_amount, difference) FROM atlvs.find_differences('{organization}', {day}) WHERE kind = 'event_day' AND event_ref = '{event}'");
    assert_eq!(text(here, &differs), "136.86|136.86|0.00");
    let bend = |by: &str| {
        format!(
            "SET session_replication_role = replica;
             UPDATE gvteway.orders SET total = total + CASE id WHEN '{}' THEN {by} ELSE -({by}) END WHERE event_id = '{event}';
             SET session_replication_role = DEFAULT",
            place.id("order")
        )
    };
    run(here, &bend("5"));
    assert_eq!(text(here, &differs), "136.86|136.86|10.00");
    run(here, &bend("-5"));
    assert_eq!(text(here, &differs), "136.86|136.86|0.00");
}

#[test]
fn w23_who_does_not_look_as_far_leaves_what_was_found_there() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let here = &mut stage.owner;
    let reconcile = |back: u32| format!("SELECT atlvs.reconcile('{}', {}::date - {back})", place.organization, day(&place));
    let alert = format!(
        "SELECT status FROM atlvs.alerts WHERE organization_id = '{}' AND kind = 'reconciliation' AND title LIKE '%{}%'",
        place.organization,
        place.unique("po")
    );
    run(here, &reconcile(0));
    assert_eq!(text(here, &alert), "open");
    run(here, &reconcile(10));
    assert_eq!(text(here, &alert), "open");
}
