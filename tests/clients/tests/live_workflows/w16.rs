//! W16: a paid order is taken in as ticket revenue and booked as one balanced journal, once.

use super::money::{journals, order, set_order};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W16",
    targets: &["usher.ticket_revenue_ingestions", "atlvs.journals", "atlvs.ledger_entries"],
    prepare: order,
    act: |place| set_order(place, "status = 'paid'"),
    check,
    not_met: |place| set_order(place, "status = 'cancelled'"),
    repeat: |place| set_order(place, "status = 'paid', metadata = '{\"seen\": true}'"),
    bad: Bad {
        before: |place| format!("UPDATE gvteway.order_items SET unit_price = 30.11 WHERE id = '{}'", place.id("tickets")),
        act: |place| set_order(place, "status = 'paid'"),
        flow: "live_events.ingest_paid_order",
        error: "do not add up",
        repair: |place| format!("UPDATE gvteway.order_items SET unit_price = 30.10 WHERE id = '{}'", place.id("tickets")),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let taken = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', ticket_count, gross_amount, currency, event_code, payload -> 'breakdown'), E'\\n')
               FROM usher.ticket_revenue_ingestions WHERE organization_id = '{}' AND idempotency_key = 'order:{}'",
            place.organization,
            place.id("order")
        ),
    );
    let night = place.unique("night");
    assert_eq!(
        taken,
        format!("2|116.86|EUR|{night}|{{\"tax\": 18.66, \"fees\": 3.00, \"merch\": 25, \"parking\": 10, \"tickets\": 60.20}}")
    );
    let source = format!("SELECT id::text FROM usher.ticket_revenue_ingestions WHERE idempotency_key = 'order:{}'", place.id("order"));
    let booked = journals(here, place, "ticket_revenue", &source);
    let (_, lines) = booked.split_once(" EUR ").expect("a journal");
    assert_eq!(lines, "1100 D 116.86, 2200 C 18.66, 4000 C 60.20, 4100 C 25.00, 4200 C 10.00, 4300 C 3.00");
}
