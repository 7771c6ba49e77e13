//! W20: a paid payout is booked once: bank and fees against clearing, to the cent.

use super::money::{journals, order};
use super::six::{Bad, Place, Workflow, alone};
use usher_clients::{Client, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W20",
    targets: &["atlvs.settlements", "atlvs.journals", "atlvs.ledger_entries", "atlvs.alerts"],
    prepare: |place| {
        format!(
            "{order}; INSERT INTO gvteway.payouts (organization_id, id, provider, payout_ref, gross, fees, refunds, net, currency, status)
             VALUES ('{organization}', '{payout}', 'stripe', '{name}', 116.86, 3.69, 10.00, 103.17, 'EUR', 'in_transit');
             UPDATE gvteway.orders SET status = 'paid', payout_id = '{payout}' WHERE id = '{order_id}'",
            order = order(place),
            organization = place.organization,
            payout = place.id("payout"),
            name = place.unique("po"),
            order_id = place.id("order"),
        )
    },
    // Half past eleven at night in UTC is the next day in Berlin.
    act: |place| set(place, "status = 'paid', paid_at = '2026-08-03 23:30Z'"),
    check,
    not_met: |place| set(place, "status = 'failed'"),
    repeat: |place| set(place, "status = 'paid'"),
    bad: Bad {
        before: |place| set(place, "net = 103.18"),
        act: |place| set(place, "status = 'paid', paid_at = '2026-08-03 23:30Z'"),
        flow: "live_events.settle_paid_payout",
        error: "do not add up",
        repair: |place| set(place, "net = 103.17"),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE gvteway.payouts SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("payout"))
}

fn check(here: &mut Client, place: &Place) {
    let booked = journals(here, place, "payout", &format!("'{}'", place.id("payout")));
    assert_eq!(booked, "2026-08-04 EUR 1000 D 103.17, 1100 C 106.86, 5300 D 3.69");
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', s.gross, s.fees, s.refunds, s.net, s.currency, s.status, j.source_ref = '{}'), E'\\n')
               FROM atlvs.settlements AS s JOIN atlvs.journals AS j ON j.organization_id = s.organization_id AND j.id = s.journal_id
              WHERE s.organization_id = '{}' AND s.payout_ref = '{}'",
            place.id("payout"),
            place.organization,
            place.unique("po")
        ),
    );
    assert_eq!(found, "116.86|3.69|10.00|103.17|EUR|booked|t");
}

#[test]
fn w20_what_is_being_booked_is_not_corrected_in_the_same_moment() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    run(&mut stage.owner, "SELECT usher.disable_flow('live_events.settle_paid_payout')");
    run(&mut stage.owner, &(WORKFLOW.act)(place));
    let settle = format!("SELECT atlvs.settle_payout('{}', '{}')", place.organization, place.id("payout"));
    let corrected = stage.meanwhile(&settle, "SELECT 1", &set(place, "gross = 117.86, net = 104.17"));
    // And twice at once it is booked once.
    let again = stage.meanwhile(&settle, "SELECT 1", &settle);
    run(&mut stage.owner, "SELECT usher.enable_flow('live_events.settle_paid_payout')");
    let error = corrected.expect_err("it is booked by then");
    assert!(error.as_db_error().is_some_and(|error| error.message().contains("is paid and booked")), "{error}");
    again.expect("the same journal");
    check(&mut stage.owner, place);
}
