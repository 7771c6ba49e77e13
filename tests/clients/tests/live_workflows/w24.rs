//! W24: the tax of a month by jurisdiction, from orders, payables and payroll.

use super::money::order;
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W24",
    targets: &["atlvs.tax_lines"],
    // A month of its own for each case, in which the payable was booked. The order is paid in its last minute in Berlin, which is the month before in UTC.
    prepare: |place| {
        format!(
            "{order}; UPDATE gvteway.orders SET status = 'paid', paid_at = '{month}-31 23:59 Europe/Berlin' WHERE id = '{order_id}';
             INSERT INTO atlvs.settings (organization_id, home_jurisdiction, input_tax_rate, payroll_tax_rate) VALUES ('{organization}', 'Berlin', 0.19, 0.21)
             ON CONFLICT (organization_id) DO UPDATE SET home_jurisdiction = 'Berlin', input_tax_rate = 0.19, payroll_tax_rate = 0.21;
             INSERT INTO atlvs.ap_items (organization_id, kind, source_ref, payee, amount, currency, status, journal_id)
             VALUES ('{organization}', 'other', '{payable}', 'Printer', 119.01, 'EUR', 'paid',
                     atlvs.post_journal('{organization}', NULL, '{month}-02', 'Printer', 'EUR', 'payable', '{payable}', ARRAY['5000', '2000'], ARRAY[119.01, -119.01])),
                    ('{organization}', 'other', '{waiting}', 'Printer', 50, 'EUR', 'pending', NULL);
             INSERT INTO atlvs.employees (organization_id, id, name) VALUES ('{organization}', '{employee}', 'Ada');
             INSERT INTO atlvs.payroll_items (organization_id, employee_id, work_on, source_ref, rate, gross, currency, status)
             VALUES ('{organization}', '{employee}', '{month}-31', '{pay}', 100, 100.05, 'EUR', 'paid')",
            order = order(place),
            month = month(place),
            order_id = place.id("order"),
            organization = place.organization,
            payable = place.id("payable"),
            waiting = place.id("waiting"),
            employee = place.id("employee"),
            pay = place.id("pay"),
        )
    },
    act: |place| request(place, &month(place)),
    check,
    not_met: |place| format!("UPDATE gvteway.orders SET metadata = '{{\"seen\": true}}' WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("order")),
    repeat: |place| request(place, &month(place)),
    bad: Bad {
        before: nothing,
        act: |place| request(place, "2026-13"),
        flow: "live_events.consolidate_tax_on_demand",
        error: "there is no month to consolidate",
        repair: nothing,
        changes: Some(|place| format!("{{\"period\": \"{}\"}}", month(place))),
    },
};

fn month(place: &Place) -> String {
    format!("{}-05", 1000 + place.case)
}

fn request(place: &Place, period: &str) -> String {
    format!(
        "SELECT FROM usher.enqueue_sync_job('{}', 'atlvs', 'atlvs', jsonb_build_object('action', 'consolidate_tax', 'period', '{period}'))",
        place.slug
    )
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws(' ', kind, jurisdiction, currency, taxable, tax), E'\\n' ORDER BY kind)
               FROM atlvs.tax_lines WHERE organization_id = '{}' AND period = '{}-01'",
            place.organization,
            month(place)
        ),
    );
    assert_eq!(found, "payroll Berlin EUR 100.05 21.01\npurchases Berlin EUR 100.01 19.00\nsales Berlin EUR 98.20 18.66");
}
