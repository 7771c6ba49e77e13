//! W38: public sets are shown as set times, and the curfew is the event's.

use super::show::{item, lanes, linked, on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W38",
    targets: &["gvteway.set_times"],
    prepare: on_sale,
    act: |place| played(place) + &curfew(place),
    check,
    not_met: |place| item(place, "Alto", "set", false, "'2031-08-01 18:00Z'", "'2031-08-01 19:00Z'"),
    repeat: |place| set(place, "compvss.schedule_items", "Alto", "title = 'Alto and friends'") + &set(place, "compvss.schedule_items", "Curfew", "stage = NULL"),
    bad: Bad {
        before: nothing,
        act: |place| played(place).replace("'Alto', 'Alto'", "'Alto', NULL"),
        flow: "live_events.show_set_time",
        error: "a public set names its artist",
        repair: |place| set(place, "compvss.schedule_items", "Alto", "artist = 'Alto'") + &curfew(place),
        changes: None,
    },
};

fn played(place: &Place) -> String {
    item(place, "Alto", "set", true, "'2031-08-01 18:00Z'", "'2031-08-01 19:00Z'")
}

fn curfew(place: &Place) -> String {
    item(place, "Late", "curfew", false, "'2031-08-01 22:00Z'", "NULL") + &item(place, "Curfew", "curfew", false, "'2031-08-01 21:00Z'", "NULL")
}

fn check(here: &mut Client, place: &Place) {
    let shown = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', t.artist, t.stage, t.starts_at AT TIME ZONE 'UTC', t.ends_at AT TIME ZONE 'UTC', t.status, e.curfew_at AT TIME ZONE 'UTC', t.source_ref = '{1}'), E'\\n')
               FROM gvteway.set_times AS t JOIN gvteway.events AS e ON e.organization_id = t.organization_id AND e.id = t.event_id WHERE e.id = '{0}'",
            place.id("event"),
            place.id("Alto")
        ),
    );
    assert_eq!(shown, "Alto|Main|2031-08-01 18:00:00|2031-08-01 19:00:00|scheduled|2031-08-01 21:00:00|t");
    let row = format!("SELECT id FROM gvteway.set_times WHERE source_ref = '{}'", place.id("Alto"));
    assert_eq!(linked(here, place, "set_time", &place.id("Alto").to_string(), &row), "1");
    // With the announcement of W29, not behind what tells a thousand people of it.
    assert_eq!(lanes(here, place, "show_set_time", "Alto"), "critical");
}
