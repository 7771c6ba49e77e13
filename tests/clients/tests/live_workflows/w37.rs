//! W37: where to park and how to get there is shown with the event.

use super::show::{linked, on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W37",
    targets: &["gvteway.event_info"],
    prepare: on_sale,
    act: |place| said(place, "production", "parking", r#"{"places": 300}"#),
    check,
    // A production that has no event tells nobody.
    not_met: |place| said(place, "idle", "parking", r#"{"places": 300}"#),
    repeat: |place| set(place, "compvss.guest_info", "info", r#"name = 'Gate one', body = '{"places": 300}'::jsonb, updated_at = now()"#),
    bad: Bad {
        before: nothing,
        act: |place| said(place, "production", "parking", r#"{"places": "many"}"#),
        flow: "live_events.show_parking_and_transport",
        error: "the number of places is a whole number",
        repair: |place| set(place, "compvss.guest_info", "info", r#"body = '{"places": 300}'"#),
        changes: None,
    },
};

fn said(place: &Place, production: &str, kind: &str, body: &str) -> String {
    format!(
        "INSERT INTO compvss.guest_info (organization_id, id, production_id, kind, name, body) VALUES ('{}', '{}', '{}', '{kind}', 'Gate one', '{body}')",
        place.organization,
        place.id("info"),
        place.id(production)
    )
}

fn check(here: &mut Client, place: &Place) {
    let shown = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', event_id = '{}', kind, title, body), E'\\n') FROM gvteway.event_info WHERE source_ref = '{}'",
            place.id("event"),
            place.id("info")
        ),
    );
    assert_eq!(shown, r#"t|parking|Gate one|{"places": 300}"#);
    let item = format!("SELECT id FROM gvteway.event_info WHERE source_ref = '{}'", place.id("info"));
    assert_eq!(linked(here, place, "guest_info", &place.id("info").to_string(), &item), "1");
}
