//! W5: an expense is an item of accounts payable, booked when it is approved and booked back when it is not any more.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W5",
    targets: &["atlvs.ap_items", "atlvs.journals", "compvss.cost_lines"],
    prepare: site::project,
    act: |place| spend(place, "119.95", "approved"),
    check,
    not_met: |place| spend(place, "119.95", "draft"),
    // Every change of the expense is looked at again.
    repeat: |place| format!("{}; {}", set(place, "receipt_url = 'https://example.com/r.pdf'"), set(place, "status = 'approved'")),
    bad: Bad {
        before: |_| String::new(),
        act: |place| spend(place, "-119.95", "approved"),
        flow: "live_events.raise_payable_from_expense",
        error: "an expense is more than 0",
        // The repaired expense is one more reason to look; the dead letter is replayed all the same, and comes to the same.
        repair: |place| set(place, "amount = 119.95"),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn spend(place: &Place, amount: &str, status: &str) -> String {
    format!(
        "INSERT INTO compvss.expenses (organization_id, id, production_id, category, amount, currency, submitted_by, spent_on, status)
         VALUES ('{}', '{}', '{}', 'travel', {amount}, 'EUR', 'Ann', '2026-11-30', '{status}')",
        place.organization,
        place.id("expense"),
        place.id("production")
    )
}

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE compvss.expenses SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("expense"))
}

/// The item, what its cost line and budget line say, and what is booked.
fn books(here: &mut Client, place: &Place) -> String {
    let item = format!(
        "SELECT concat_ws('|', a.kind, a.payee, a.amount, a.currency, a.due_on, a.status, a.journal_id IS NOT NULL, c.actual, b.actual)
           FROM atlvs.ap_items AS a
           LEFT JOIN compvss.cost_lines AS c ON c.organization_id = a.organization_id AND c.project_ref = a.project_id AND c.category = 'travel'
           LEFT JOIN atlvs.budget_lines AS b ON b.organization_id = a.organization_id AND b.project_id = a.project_id AND b.category = 'travel'
          WHERE a.organization_id = '{}' AND a.source_ref = '{}'",
        place.organization,
        place.id("expense")
    );
    format!("{} = {}", text(here, &item), text(here, &site::booked(place)))
}

const APPROVED: &str = "expense|Ann|119.95|EUR|2026-12-30|approved|t|119.95|119.95 = 2000 -119.95 EUR, 5000 119.95 EUR";

fn check(here: &mut Client, place: &Place) {
    assert_eq!(books(here, place), APPROVED);
    assert_eq!(text(here, &site::links(place, "expense", "expense")), "1 synced compvss atlvs");
    let journals = format!("SELECT count(*) || ' ' || count(reverses) FROM atlvs.journals WHERE organization_id = '{}' AND project_id = '{}'", place.organization, place.id("project"));
    assert_eq!(text(here, &journals), "1 0", "booked once");

    // Rejected after all: void, and booked back. Handed in again, for another amount.
    run(here, &set(place, "status = 'rejected'"));
    settled(here, wait::LONG);
    assert_eq!(books(here, place), "expense|Ann|119.95|EUR|2026-12-30|void|f|0.00|0.00 = ");
    run(here, &set(place, "status = 'submitted', amount = 100"));
    settled(here, wait::LONG);
    assert_eq!(books(here, place), "expense|Ann|100.00|EUR|2026-12-30|pending|f|0.00|0.00 = ");
    run(here, &set(place, "status = 'approved'"));
    settled(here, wait::LONG);
    // A correction of what is booked is a reversal and a new booking.
    run(here, &set(place, "amount = 119.95"));
    settled(here, wait::LONG);
    assert_eq!(books(here, place), APPROVED);
    assert_eq!(text(here, &journals), "5 2", "three bookings and two reversals");
}
