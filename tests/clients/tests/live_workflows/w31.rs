//! W31: services on site are listed for the guests.

use super::show::{linked, on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W31",
    targets: &["gvteway.event_info"],
    prepare: on_sale,
    act: |place| said(place, "production", "service", r#"{"hours": "10 to 18"}"#),
    check,
    // A production that has no event tells nobody.
    not_met: |place| said(place, "idle", "service", r#"{"hours": "10 to 18"}"#),
    repeat: |place| set(place, "compvss.guest_info", "info", r#"name = 'Gate one', body = '{"hours": "10 to 18"}'::jsonb, updated_at = now()"#),
    bad: Bad {
        before: nothing,
        act: |place| said(place, "production", "service", r#"{}"#),
        flow: "live_events.show_guest_service",
        error: "the body says something",
        repair: |place| set(place, "compvss.guest_info", "info", r#"body = '{"hours": "10 to 18"}'"#),
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
    assert_eq!(shown, r#"t|service|Gate one|{"hours": "10 to 18"}"#);
    let item = format!("SELECT id FROM gvteway.event_info WHERE source_ref = '{}'", place.id("info"));
    assert_eq!(linked(here, place, "guest_info", &place.id("info").to_string(), &item), "1");
}
