//! W7: a vendor's invoice is matched with its purchase order; more than was ordered is for somebody to decide.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W7",
    targets: &["atlvs.ap_items", "atlvs.purchase_orders", "atlvs.journals"],
    prepare: |place| {
        format!(
            "{} INSERT INTO atlvs.vendors (organization_id, id, name, terms_days) VALUES ('{}', '{}', 'PA Ltd', 14); {}",
            site::project(place),
            place.organization,
            place.id("vendor"),
            order(place)
        )
    },
    // 1 % above the order is within the tolerance.
    act: |place| invoice(place, "1010"),
    check,
    not_met: |place| invoice(place, "1010.01"),
    repeat: |place| {
        format!(
            "UPDATE compvss.vendor_invoices SET po_number = po_number, issued_on = '2026-11-02' WHERE organization_id = '{}' AND id = '{}'",
            place.organization,
            place.id("invoice")
        )
    },
    bad: Bad {
        before: |place| format!("DELETE FROM atlvs.purchase_orders WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("order")),
        act: |place| invoice(place, "1010"),
        flow: "live_events.match_vendor_invoice",
        error: "has no purchase order",
        repair: order,
        changes: Some(|_| "{}".to_owned()),
    },
};

fn order(place: &Place) -> String {
    format!(
        "INSERT INTO atlvs.purchase_orders (organization_id, id, vendor_id, project_id, number, total, currency) VALUES ('{}', '{}', '{}', '{}', '{}', 1000, 'EUR')",
        place.organization,
        place.id("order"),
        place.id("vendor"),
        place.id("project"),
        place.unique("PO")
    )
}

fn invoice(place: &Place, amount: &str) -> String {
    format!(
        "INSERT INTO compvss.vendor_invoices (organization_id, id, production_id, vendor_ref, po_number, number, category, amount, currency, issued_on)
         VALUES ('{}', '{}', '{}', '{}', '{}', 'I-1', 'sound', {amount}, 'EUR', '2026-11-01')",
        place.organization,
        place.id("invoice"),
        place.id("production"),
        place.id("vendor"),
        place.unique("PO")
    )
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', i.number, i.amount, i.match_status, i.variance, o.invoiced, o.status, a.kind, a.payee, a.amount, a.currency, a.due_on, a.status, c.actual, b.actual), ',')
               FROM atlvs.vendor_invoices AS i
               JOIN atlvs.purchase_orders AS o ON o.organization_id = i.organization_id AND o.id = i.po_id
               JOIN atlvs.ap_items AS a ON a.organization_id = i.organization_id AND a.source_ref = i.source_ref
               JOIN compvss.cost_lines AS c ON c.organization_id = i.organization_id AND c.project_ref = a.project_id AND c.category = 'sound'
               JOIN atlvs.budget_lines AS b ON b.organization_id = i.organization_id AND b.project_id = a.project_id AND b.category = 'sound'
              WHERE i.organization_id = '{}' AND i.source_ref = '{}'",
            place.organization,
            place.id("invoice")
        ),
    );
    assert_eq!(found, "I-1|1010.00|matched|10.00|1010.00|invoiced|vendor_invoice|PA Ltd|1010.00|EUR|2026-11-15|approved|1010.00|1010.00");
    assert_eq!(text(here, &site::booked(place)), "2000 -1010.00 EUR, 5000 1010.00 EUR");
    assert_eq!(text(here, &site::links(place, "vendor_invoice", "invoice")), "1 synced compvss atlvs");
}
