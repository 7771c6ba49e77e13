//! W30: pictures that are approved are shown in the gallery, with the name of who made them.

use super::show::{linked, on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W30",
    targets: &["gvteway.gallery_items"],
    prepare: |place| {
        format!(
            "{} INSERT INTO compvss.crew_members (organization_id, id, name) VALUES ('{1}', '{2}', 'Grace');
             INSERT INTO compvss.media_files (organization_id, id, production_id, crew_id, url, caption) VALUES ('{1}', '{3}', '{4}', '{2}', 'https://cdn.example.org/1.jpg', 'Lights')",
            on_sale(place),
            place.organization,
            place.id("Grace"),
            place.id("picture"),
            place.id("production")
        )
    },
    act: |place| set(place, "compvss.media_files", "picture", "status = 'approved'"),
    check,
    not_met: |place| set(place, "compvss.media_files", "picture", "status = 'rejected'"),
    // Withdrawn and approved again: shown once, as before.
    repeat: |place| set(place, "compvss.media_files", "picture", "updated_at = now()"),
    bad: Bad {
        before: nothing,
        act: |place| set(place, "compvss.media_files", "picture", "status = 'approved', url = 'C:\\pictures\\1.jpg'"),
        flow: "live_events.show_approved_media",
        error: "the file has an address that a browser opens",
        repair: |place| set(place, "compvss.media_files", "picture", "url = 'https://cdn.example.org/1.jpg'"),
        changes: None,
    },
};

fn check(here: &mut Client, place: &Place) {
    let shown = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', event_id = '{}', url, caption, credit), E'\\n') FROM gvteway.gallery_items WHERE source_ref = '{}'",
            place.id("event"),
            place.id("picture")
        ),
    );
    assert_eq!(shown, "t|https://cdn.example.org/1.jpg|Lights|Grace");
    let item = format!("SELECT id FROM gvteway.gallery_items WHERE source_ref = '{}'", place.id("picture"));
    assert_eq!(linked(here, place, "media", &place.id("picture").to_string(), &item), "1");
}
