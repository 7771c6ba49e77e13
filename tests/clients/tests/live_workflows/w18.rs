//! W18: what a campaign has cost is an expense in the books, once, and adds to its spend.

use super::money::journals;
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

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
