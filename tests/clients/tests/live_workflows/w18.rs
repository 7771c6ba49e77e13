//! W18: what a campaign has cost is an expense in the books, once, and adds to its spend.

use super::money::journals;
use super::show::on_sale;
use super::six::{Bad, Place, Workflow, alone, nothing};
use usher_clients::{Client, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W18",
    targets: &["atlvs.journals", "atlvs.ledger_entries", "atlvs.campaigns"],
    prepare: |place| {
        format!(
            "INSERT INTO gvteway.campaigns (organization_id, id, name, channel, budget, currency) VALUES ('{}', '{}', 'Spring', 'search', 1000, 'EUR')",
            place.organization,
            place.id("campaign")
        )
    },
    act: |place| spend(place, "EUR"),
    check,
    not_met: |place| format!("UPDATE gvteway.campaigns SET utm = '{}' WHERE organization_id = '{}' AND id = '{}'", place.unique("spring"), place.organization, place.id("campaign")),
    repeat: |place| format!("{} ON CONFLICT (organization_id, source_ref) DO NOTHING", spend(place, "EUR")),
    bad: Bad {
        before: nothing,
        act: |place| spend(place, "USD"),
        flow: "live_events.book_campaign_spend",
        error: "is in USD, its campaign \"Spring\" in EUR",
        repair: |place| format!("UPDATE gvteway.campaign_spend SET currency = 'EUR' WHERE id = '{}'", place.id("spend")),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn spend(place: &Place, currency: &str) -> String {
    format!(
        "INSERT INTO gvteway.campaign_spend (organization_id, id, campaign_id, spent_on, amount, currency, source_ref)
         VALUES ('{}', '{}', '{}', '2026-03-04', 250.10, '{currency}', '{}')",
        place.organization,
        place.id("spend"),
        place.id("campaign"),
        place.unique("inv")
    )
}

fn check(here: &mut Client, place: &Place) {
    let booked = journals(here, place, "campaign_spend", &format!("'{}'", place.id("spend")));
    assert_eq!(booked, "2026-03-04 EUR 2000 C 250.10, 5200 D 250.10");
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', c.name, c.channel, c.budget, c.spend, c.currency, l.status), E'\\n')
               FROM atlvs.campaigns AS c
               JOIN usher.links AS l ON l.organization_id = c.organization_id AND l.kind = 'campaign' AND l.left_id = c.campaign_ref::text AND l.right_id = c.id::text
              WHERE c.organization_id = '{}' AND c.campaign_ref = '{}'",
            place.organization,
            place.id("campaign")
        ),
    );
    assert_eq!(found, "Spring|search|1000|250.10|EUR|synced");
}

#[test]
fn w18_what_is_being_booked_is_not_corrected_in_the_same_moment() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    run(&mut stage.owner, "SELECT usher.disable_flow('live_events.book_campaign_spend')");
    run(&mut stage.owner, &spend(place, "EUR"));
    let corrected = stage.meanwhile(
        &format!("SELECT atlvs.book_campaign_spend('{}', '{}')", place.organization, place.id("spend")),
        "SELECT 1",
        &format!("UPDATE gvteway.campaign_spend SET amount = 260 WHERE id = '{}'", place.id("spend")),
    );
    run(&mut stage.owner, "SELECT usher.enable_flow('live_events.book_campaign_spend')");
    let error = corrected.expect_err("it is booked by then");
    assert!(error.as_db_error().is_some_and(|error| error.message().contains("is booked")), "{error}");
}

#[test]
fn w18_a_closed_project_takes_no_spend() {
    let (mut stage, place) = alone(|place| {
        format!(
            "{} INSERT INTO gvteway.campaigns (organization_id, id, name, event_id, currency) VALUES ('{}', '{}', 'Spring', '{}', 'EUR')",
            on_sale(place),
            place.organization,
            place.id("campaign"),
            place.id("event")
        )
    });
    let place = &place;
    run(&mut stage.owner, &spend(place, "EUR"));
    stage.settle();
    let closed = format!("UPDATE atlvs.projects SET phase = 'closed' WHERE id = '{}'", place.id("project"));
    run(&mut stage.owner, &closed);
    // What is booked stays so when it is run again.
    run(&mut stage.owner, &format!("SELECT atlvs.book_campaign_spend('{}', '{}')", place.organization, place.id("spend")));
    let late = spend(place, "EUR").replace(&place.id("spend").to_string(), &place.id("late").to_string()).replace(&place.unique("inv"), &place.unique("late"));
    run(&mut stage.owner, &late);
    stage.settle();
    let dead = stage.dead(place);
    assert!(dead.len() == 1 && dead[0].1.contains("which is closed"), "{dead:?}");
    assert_eq!(journals(&mut stage.owner, place, "campaign_spend", &format!("'{}', '{}'", place.id("spend"), place.id("late"))), "2026-03-04 EUR 2000 C 250.10, 5200 D 250.10");
}
