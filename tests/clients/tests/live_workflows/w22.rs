//! W22: a confirmed booking makes a draft event, once.

use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W22",
    targets: &["gvteway.events"],
    prepare: |place| {
        format!(
            "INSERT INTO atlvs.artists (organization_id, id, name) VALUES ('{0}', '{1}', 'The Echoes');
             INSERT INTO atlvs.deals (organization_id, id, title, kind, status, value, event_date, venue_timezone, expected_attendance)
             VALUES ('{0}', '{2}', '{3}', 'artist', 'proposal', 9000, '2026-09-05', 'Europe/Berlin', 800);
             INSERT INTO atlvs.artist_bookings (organization_id, id, artist_id, deal_id, event_on, venue_name, fee)
             VALUES ('{0}', '{4}', '{1}', '{2}', '2026-09-05', 'Lido', 3000)",
            place.organization,
            place.id("artist"),
            place.id("deal"),
            place.unique("Echoes Night"),
            place.id("booking")
        )
    },
    act: |place| set(place, "status = 'confirmed'"),
    check,
    not_met: |place| set(place, "venue_name = 'SO36', status = 'cancelled'"),
    repeat: |place| format!("{}; {}", set(place, "status = 'hold'"), set(place, "status = 'confirmed'")),
    bad: Bad {
        before: |place| set(place, "event_on = 'infinity'"),
        act: |place| set(place, "status = 'confirmed'"),
        flow: "live_events.draft_event_for_booking",
        error: "the booking has a day",
        repair: |place| set(place, "event_on = '2026-09-05'"),
        changes: Some(|_| "{\"event_on\": \"2026-09-05\"}".to_owned()),
    },
};

fn set(place: &Place, what: &str) -> String {
    format!(
        "UPDATE atlvs.artist_bookings SET {what} WHERE organization_id = '{}' AND id = '{}'",
        place.organization,
        place.id("booking")
    )
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', e.title, e.status, e.venue_name, e.timezone, e.starts_at AT TIME ZONE e.timezone, e.capacity, e.lineup,
                                         e.slug LIKE 'echoes-night-%', e.production_ref IS NULL, e.deal_ref = '{}', l.status, l.left_system, l.right_system), E'\\n')
               FROM gvteway.events AS e
               JOIN usher.links AS l ON l.organization_id = e.organization_id AND l.kind = 'event' AND l.left_id = e.booking_ref::text AND l.right_id = e.id::text
              WHERE e.organization_id = '{}' AND e.booking_ref = '{}'",
            place.id("deal"),
            place.organization,
            place.id("booking")
        ),
    );
    let title = place.unique("Echoes Night");
    assert_eq!(
        found,
        format!("{title}|draft|Lido|Europe/Berlin|2026-09-05 00:00:00|800|[\"The Echoes\"]|t|t|t|synced|atlvs|gvteway")
    );
}
