//! W29: what changes on its day is told at once, as W29 alone, and the event is delayed.

use super::show::{announced, item, lanes, on_sale, set};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

/// As somebody does whose changes no flow sees.
fn unseen(place: &Place, zone: &str) -> String {
    format!(
        "SET session_replication_role = replica; {} RESET session_replication_role",
        set(place, "compvss.productions", "production", &format!("timezone = '{zone}'"))
    )
}

pub const WORKFLOW: Workflow = Workflow {
    number: "W29",
    targets: &["gvteway.announcements", "gvteway.events"],
    prepare: |place| {
        on_sale(place)
            + &item(place, "Alto", "set", true, "now()", "now() + interval '1 hour'")
            + &item(place, "Basso", "set", true, "now() + interval '2 years'", "NULL")
            + &item(place, "Truck", "load_in", false, "now()", "NULL")
    },
    act: |place| set(place, "compvss.schedule_items", "Alto", "status = 'delayed', delay_min = 30"),
    check,
    not_met: |place| set(place, "compvss.schedule_items", "Truck", "status = 'delayed', delay_min = 30"),
    repeat: |place| set(place, "compvss.schedule_items", "Alto", "status = 'delayed', delay_min = 30, stage = 'Tent'"),
    bad: Bad {
        before: |place| unseen(place, "Mars/Olympus"),
        act: |place| set(place, "compvss.schedule_items", "Alto", "status = 'delayed', delay_min = 30"),
        flow: "live_events.tell_show_day_change",
        error: "the zone of the venue is known",
        repair: |place| unseen(place, "Europe/Berlin"),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let told = announced(here, &format!("schedule_item:{}", place.id("Alto")));
    let sql = format!(
        "SELECT format('delay|critical|Alto starts %s instead of %s.|Night', to_char(starts_at AT TIME ZONE 'Europe/Berlin' + interval '30 minutes', 'FMDD FMMonth, HH24:MI'),
                       to_char(starts_at AT TIME ZONE 'Europe/Berlin', 'FMDD FMMonth, HH24:MI')) FROM compvss.schedule_items WHERE id = '{}'",
        place.id("Alto")
    );
    assert_eq!(told, text(here, &sql), "one announcement: it is not told by W26 as well");
    let status = text(here, &format!("SELECT status FROM gvteway.events WHERE id = '{}'", place.id("event")));
    assert_eq!(status, "delayed");
    assert_eq!(lanes(here, place, "tell_show_day_change", "Alto"), "critical");
}
