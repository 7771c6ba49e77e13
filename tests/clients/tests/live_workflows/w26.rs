//! W26: other times of a public item of the schedule are announced, before its day; guests who hold tickets are counted in.

use super::show::{announced, item, on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W26",
    targets: &["gvteway.announcements"],
    prepare: |place| {
        format!(
            "{} {} {}
             INSERT INTO gvteway.guests (organization_id, id, email, name) VALUES ('{3}', '{4}', '{5}@example.org', 'Ada');
             INSERT INTO gvteway.orders (organization_id, id, event_id, guest_ref, number, status, subtotal, total) VALUES ('{3}', '{6}', '{7}', '{4}', '{5}', 'paid', 20, 20);
             INSERT INTO gvteway.order_items (organization_id, id, order_id, kind, qty, unit_price) VALUES ('{3}', '{8}', '{6}', 'ticket', 2, 10);
             INSERT INTO gvteway.tickets (organization_id, item_id, code, holder_id) VALUES ('{3}', '{8}', '{5}-1', '{4}'), ('{3}', '{8}', '{5}-2', NULL)",
            on_sale(place),
            item(place, "Alto", "set", true, "'2031-08-01 18:00Z'", "'2031-08-01 19:00Z'"),
            item(place, "Truck", "load_in", false, "'2031-08-01 06:00Z'", "NULL"),
            place.organization,
            place.id("guest"),
            place.unique("O").to_lowercase(),
            place.id("order"),
            place.id("event"),
            place.id("ticket item"),
        )
    },
    act: |place| set(place, "compvss.schedule_items", "Alto", "starts_at = '2031-08-01 19:30Z', ends_at = '2031-08-01 20:30Z'"),
    check,
    not_met: |place| set(place, "compvss.schedule_items", "Truck", "starts_at = '2031-08-01 07:00Z'"),
    repeat: |place| {
        set(place, "compvss.schedule_items", "Alto", "starts_at = '2031-08-01 21:30+02', ends_at = '2031-08-01 22:30+02', stage = 'Tent'")
    },
    bad: Bad {
        before: nothing,
        act: |place| set(place, "compvss.schedule_items", "Alto", "starts_at = 'infinity', ends_at = 'infinity'"),
        flow: "live_events.announce_schedule_change",
        error: "the schedule says a finite time",
        repair: |place| set(place, "compvss.schedule_items", "Alto", "starts_at = '2031-08-01 19:30Z', ends_at = '2031-08-01 20:30Z'"),
        changes: None,
    },
};

fn check(here: &mut Client, place: &Place) {
    let told = announced(here, &format!("schedule_item:{}", place.id("Alto")));
    let whole = "schedule|info|Alto starts 1 August, 21:30 instead of 1 August, 20:00.|Night";
    assert!(told == whole || told == "schedule|info|Alto starts 1 August, 21:30.|Night", "{told}");
    let said = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', kind, severity, title, body ->> 'event_id' = '{}'), E'\\n') FROM usher.notifications WHERE recipient = '{}'",
            place.id("event"),
            place.id("guest")
        ),
    );
    assert!(said.starts_with("schedule|info|Alto starts 1 August, 21:30") && said.ends_with("|t") && said.lines().count() == 1, "{said}");
}
