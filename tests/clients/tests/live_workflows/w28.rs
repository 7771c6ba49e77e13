//! W28: the sections of the approved layout get their seats; seats that are sold stay.

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W28",
    targets: &["gvteway.seats"],
    prepare: |place| {
        format!(
            "{0}
             INSERT INTO gvteway.sections (organization_id, id, event_id, code, capacity, rows, seats_per_row) VALUES ('{1}', '{2}', '{3}', 'A', 9, 3, 3);
             INSERT INTO gvteway.seats (organization_id, section_id, row_label, seat_no, status)
             VALUES ('{1}', '{2}', 'A', 2, 'sold'), ('{1}', '{2}', 'C', 3, 'sold'), ('{1}', '{2}', 'B', 1, 'blocked');
             INSERT INTO compvss.venue_layouts (organization_id, id, production_id, revision, capacity) VALUES ('{1}', '{4}', '{5}', 1, 300);
             INSERT INTO compvss.seating_sections (organization_id, id, layout_id, code, kind, rows, seats_per_row, capacity)
             VALUES ('{1}', '{6}', '{4}', 'A', 'seated', 2, 4, 8), ('{1}', '{7}', '{4}', 'GA', 'ga', NULL, NULL, 200);",
            on_sale(place),
            place.organization,
            place.id("A"),
            place.id("event"),
            place.id("layout"),
            place.id("production"),
            place.id("chart"),
            place.id("floor")
        )
    },
    act: |place| set(place, "compvss.venue_layouts", "layout", "status = 'approved'"),
    check,
    // Not approved yet.
    not_met: |place| set(place, "compvss.seating_sections", "chart", "seats_per_row = 5, capacity = 10"),
    repeat: |place| {
        set(place, "compvss.venue_layouts", "layout", "updated_at = now()") + &set(place, "compvss.seating_sections", "chart", "price_tier = 'gold'")
    },
    bad: Bad {
        before: nothing,
        act: |place| {
            set(place, "compvss.seating_sections", "chart", "seats_per_row = 5") + &set(place, "compvss.venue_layouts", "layout", "status = 'approved'")
        },
        flow: "live_events.generate_seats",
        error: "section A holds 8, and its 2 rows of 5 seats hold 10",
        repair: |place| set(place, "compvss.seating_sections", "chart", "seats_per_row = 4"),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat(row_label, seat_no, CASE WHEN status <> 'open' THEN ' ' || status END), ', ' ORDER BY row_label, seat_no)
               FROM gvteway.seats WHERE organization_id = '{}' AND section_id = '{}'",
            place.organization,
            place.id("A")
        ),
    );
    assert_eq!(found, "A1, A2 sold, A3, A4, B1 blocked, B2, B3, B4, C3 sold");
}
