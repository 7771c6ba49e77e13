//! W13: who or what is booked twice at one time is a conflict, on both sides, until one of them is moved.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

/// What W13 writes into reservations.
const FLAGGED: &str = "(SELECT organization_id, id, flagged FROM atlvs.asset_reservations WHERE flagged IS NOT NULL)";

pub const WORKFLOW: Workflow = Workflow {
    number: "W13",
    targets: &[FLAGGED],
    prepare: |place| {
        format!(
            "{} {} INSERT INTO atlvs.assets (organization_id, id, tag, name, category) VALUES ('{}', '{}', '{}', 'Van', '{}'); {}",
            site::project(place),
            site::worker(place),
            place.organization,
            place.id("van"),
            place.unique("V"),
            place.unique("van"),
            reserve(place, "first", "[2026-12-01 08:00Z, 2026-12-01 12:00Z)")
        )
    },
    act: |place| format!("{}; {}", reserve(place, "second", "[2026-12-01 11:00Z, 2026-12-01 14:00Z)"), crew(place)),
    check,
    not_met: |place| reserve(place, "second", "[2026-12-01 12:00Z, 2026-12-01 14:00Z)"),
    repeat: |place| {
        format!(
            "UPDATE atlvs.asset_reservations SET status = 'released' WHERE organization_id = '{0}' AND id = '{1}';
             UPDATE atlvs.asset_reservations SET status = 'held' WHERE organization_id = '{0}' AND id = '{1}'",
            place.organization,
            place.id("second")
        )
    },
    bad: Bad {
        before: |place| {
            format!("ALTER TABLE atlvs.asset_reservations ADD CONSTRAINT kept_back CHECK (asset_id <> '{}' OR flagged IS NULL)", place.id("van"))
        },
        act: |place| format!("{}; {}", reserve(place, "second", "[2026-12-01 11:00Z, 2026-12-01 14:00Z)"), crew(place)),
        flow: "live_events.flag_overlapping_reservations",
        error: "kept_back",
        repair: |_| "ALTER TABLE atlvs.asset_reservations DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn reserve(place: &Place, name: &str, period: &str) -> String {
    format!(
        "INSERT INTO atlvs.asset_reservations (organization_id, id, asset_id, production_ref, period) VALUES ('{}', '{}', '{}', '{}', '{period}')",
        place.organization,
        place.id(name),
        place.id("van"),
        place.id("production")
    )
}

/// Somebody at two places at once.
fn crew(place: &Place) -> String {
    format!(
        "INSERT INTO compvss.crew_assignments (organization_id, id, production_id, crew_id, period)
         VALUES ('{0}', '{1}', '{2}', '{3}', '[2026-12-01 08:00Z, 2026-12-01 12:00Z)'), ('{0}', '{4}', '{2}', '{3}', '[2026-12-01 10:00Z, 2026-12-01 11:00Z)')",
        place.organization,
        place.id("here"),
        place.id("production"),
        place.id("crew"),
        place.id("there")
    )
}

fn conflicts(place: &Place) -> String {
    format!(
        "SELECT COALESCE(string_agg(concat_ws('|', c.rule, c.kind, c.severity), ', ' ORDER BY c.rule), '') FROM usher.conflicts AS c
          WHERE c.organization_id = '{}' AND c.state = 'open'
            AND (c.left_key ->> 'id' IN ('{1}', '{2}') AND c.right_key ->> 'id' IN ('{1}', '{2}') OR c.left_key ->> 'id' IN ('{3}', '{4}') AND c.right_key ->> 'id' IN ('{3}', '{4}'))",
        place.organization,
        place.id("first"),
        place.id("second"),
        place.id("here"),
        place.id("there")
    )
}

fn flagged(place: &Place) -> String {
    format!(
        "SELECT string_agg(COALESCE(flagged, 'fine'), ', ' ORDER BY period) FROM atlvs.asset_reservations WHERE organization_id = '{}' AND asset_id = '{}'",
        place.organization,
        place.id("van")
    )
}

fn check(here: &mut Client, place: &Place) {
    let both = "live_events.asset_reserved_twice|timing_conflict|critical, live_events.crew_booked_twice|timing_conflict|warning";
    assert_eq!(text(here, &conflicts(place)), both);
    assert_eq!(text(here, &flagged(place)), "reserved 2 times, reserved 2 times");
    let moved = |period: &str| {
        format!("UPDATE atlvs.asset_reservations SET period = '{period}' WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("second"))
    };
    run(here, &moved("[2026-12-01 12:00Z, 2026-12-01 14:00Z)"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &conflicts(place)), "live_events.crew_booked_twice|timing_conflict|warning");
    assert_eq!(text(here, &flagged(place)), "fine, fine");
    run(here, &moved("[2026-12-01 11:00Z, 2026-12-01 14:00Z)"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &conflicts(place)), both);
}
