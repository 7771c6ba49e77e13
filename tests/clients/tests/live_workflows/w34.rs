//! W34: guests of honour stand on the list of the production.

use super::show::{linked, on_sale, set};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W34",
    targets: &["compvss.backstage_list"],
    prepare: |place| {
        format!(
            "{0} INSERT INTO gvteway.guests (organization_id, id, email, name) VALUES ('{1}', '{2}', '{3}@example.org', 'Ada');
             INSERT INTO gvteway.events (organization_id, id, slug, title) VALUES ('{1}', '{4}', '{3}', 'Nobody produces this')",
            on_sale(place),
            place.organization,
            place.id("guest"),
            place.unique("ada"),
            place.id("other event")
        )
    },
    act: |place| invited(place, "event"),
    check,
    not_met: |place| invited(place, "other event"),
    repeat: |place| set(place, "gvteway.vip_guests", "vip", "status = 'confirmed', updated_at = now()"),
    bad: Bad {
        before: |place| set(place, "gvteway.guests", "guest", "name = ' '"),
        act: |place| invited(place, "event"),
        flow: "live_events.list_vip_backstage",
        error: "the guest has a name for the list",
        repair: |place| set(place, "gvteway.guests", "guest", "name = 'Ada'"),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn invited(place: &Place, event: &str) -> String {
    format!(
        "INSERT INTO gvteway.vip_guests (organization_id, id, event_id, guest_id, access_level, plus_ones) VALUES ('{}', '{}', '{}', '{}', 'stage', 2);",
        place.organization,
        place.id("vip"),
        place.id(event),
        place.id("guest")
    )
}

fn check(here: &mut Client, place: &Place) {
    let listed = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', guest_ref = '{}', name, access_level, plus_ones, status), E'\\n') FROM compvss.backstage_list WHERE production_id = '{}'",
            place.id("guest"),
            place.id("production")
        ),
    );
    assert_eq!(listed, "t|Ada|stage|2|active");
    let row = format!("SELECT id FROM compvss.backstage_list WHERE production_id = '{}'", place.id("production"));
    assert_eq!(linked(here, place, "vip", &place.id("vip").to_string(), &row), "1");
}
