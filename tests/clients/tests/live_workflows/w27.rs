//! W27: an approved layout gives the event its capacity, sections and quantities of tickets; below what is sold nothing changes.

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W27",
    targets: &["gvteway.events", "gvteway.sections", "gvteway.ticket_types", "gvteway.seats", "compvss.productions"],
    prepare: |place| {
        format!(
            "{0}
             INSERT INTO gvteway.sections (organization_id, id, event_id, code, capacity) VALUES ('{1}', '{2}', '{3}', 'A', 50), ('{1}', '{4}', '{3}', 'OLD', 10);
             INSERT INTO gvteway.ticket_types (organization_id, id, event_id, section_id, name, quantity, sold)
             VALUES ('{1}', '{5}', '{3}', '{2}', 'Seat', 40, 20), ('{1}', '{6}', '{3}', '{2}', 'Seat, reduced', 10, 5), ('{1}', '{7}', '{3}', NULL, 'Floor', 10, 4);
             INSERT INTO compvss.venue_layouts (organization_id, id, production_id, revision, capacity) VALUES ('{1}', '{8}', '{9}', 1, 300);
             INSERT INTO compvss.seating_sections (organization_id, layout_id, code, kind, rows, seats_per_row, capacity, price_tier)
             VALUES ('{1}', '{8}', 'A', 'seated', 5, 20, 100, 'gold'), ('{1}', '{8}', 'GA', 'ga', NULL, NULL, 200, NULL);",
            on_sale(place),
            place.organization,
            place.id("A"),
            place.id("event"),
            place.id("OLD"),
            place.id("Seat"),
            place.id("Reduced"),
            place.id("Floor"),
            place.id("layout"),
            place.id("production")
        )
    },
    act: |place| set(place, "compvss.venue_layouts", "layout", "status = 'approved'"),
    check,
    not_met: |place| set(place, "compvss.venue_layouts", "layout", "status = 'superseded', capacity = 10"),
    repeat: |place| {
        format!(
            "{0} UPDATE compvss.seating_sections SET price_tier = 'gold' WHERE layout_id = '{1}' AND code = 'A';
             UPDATE compvss.venue_layouts SET updated_at = now() WHERE id = '{1}'",
            set(place, "compvss.venue_layouts", "layout", "status = 'approved'"),
            place.id("layout")
        )
    },
    bad: Bad {
        before: |place| set(place, "gvteway.ticket_types", "Seat", "quantity = 200, sold = 150"),
        act: |place| set(place, "compvss.venue_layouts", "layout", "status = 'approved'"),
        flow: "live_events.apply_approved_layout",
        error: "section A would have 100 places, and 155 tickets are sold",
        // Tickets were given back.
        repair: |place| set(place, "gvteway.ticket_types", "Seat", "quantity = 40, sold = 20"),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT concat_ws(' / ', e.capacity, p.capacity,
                              (SELECT string_agg(concat_ws(' ', code, kind, capacity, price_tier), ', ' ORDER BY code) FROM gvteway.sections WHERE event_id = e.id),
                              (SELECT string_agg(concat_ws(' ', name, quantity, sold), ', ' ORDER BY name COLLATE \"C\") FROM gvteway.ticket_types WHERE event_id = e.id))
               FROM gvteway.events AS e JOIN compvss.productions AS p ON p.organization_id = e.organization_id AND p.id = e.production_ref
              WHERE e.organization_id = '{}' AND e.id = '{}'",
            place.organization,
            place.id("event")
        ),
    );
    // 75 more in section A, for two types of which 20 and 5 were left; the floor gets what section A does not take.
    assert_eq!(found, "300 / 300 / A seated 100 gold, GA ga 200 / Floor 200 4, Seat 80 20, Seat, reduced 20 5");
}
