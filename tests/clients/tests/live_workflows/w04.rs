//! W4: a confirmed assignment is a draft on the payroll, day by day, and void when it is cancelled.

use super::six::{Bad, Place, Workflow, alone};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W4",
    targets: &["atlvs.payroll_items"],
    prepare: |place| format!("{} {}", site::project(place), site::worker(place)),
    act: |place| assign(place, "confirmed"),
    check,
    not_met: |place| assign(place, "proposed"),
    // Seen again with every change, and once more after a detour.
    repeat: |place| format!("{}; {}; {}", set(place, "role = 'head rigger'"), set(place, "status = 'cancelled'"), set(place, "status = 'confirmed'")),
    bad: Bad {
        before: |place| format!("DELETE FROM atlvs.employees WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("employee")),
        act: |place| assign(place, "confirmed"),
        flow: "live_events.plan_payroll_from_assignment",
        error: "does not exist",
        repair: site::employee,
        changes: Some(|_| "{}".to_owned()),
    },
};

/// Two days, and a night that is a part of the second.
fn assign(place: &Place, status: &str) -> String {
    format!(
        "INSERT INTO compvss.crew_assignments (organization_id, id, production_id, crew_id, period, status)
         VALUES ('{}', '{}', '{}', '{}', '[2026-12-01 09:00+01, 2026-12-02 18:00+01)', '{status}')",
        place.organization,
        place.id("assignment"),
        place.id("production"),
        place.id("crew")
    )
}

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE compvss.crew_assignments SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("assignment"))
}

fn payroll(place: &Place) -> String {
    format!(
        "SELECT string_agg(concat_ws('|', i.work_on, i.kind, i.rate, i.gross, i.currency, i.status, i.project_id = '{}', i.source_ref = '{}'), ', ' ORDER BY i.work_on)
           FROM atlvs.payroll_items AS i WHERE i.organization_id = '{}' AND i.employee_id = '{}'",
        place.id("project"),
        place.id("assignment"),
        place.organization,
        place.id("employee")
    )
}

fn check(here: &mut Client, place: &Place) {
    assert_eq!(
        text(here, &payroll(place)),
        "2026-12-01|assignment|150.00|150.00|EUR|draft|t|t, 2026-12-02|assignment|150.00|150.00|EUR|draft|t|t"
    );
    // And back: cancelled, moved to a night that is one day's work at a rate of its own, cancelled.
    run(here, &set(place, "status = 'cancelled'"));
    settled(here, wait::LONG);
    assert_eq!(
        text(here, &payroll(place)),
        "2026-12-01|assignment|150.00|150.00|EUR|void|t|t, 2026-12-02|assignment|150.00|150.00|EUR|void|t|t"
    );
    run(here, &set(place, "status = 'confirmed', rate = 30.25, currency = 'EUR', period = '[2026-12-02 20:00+01, 2026-12-03 04:30+01)'"));
    settled(here, wait::LONG);
    assert_eq!(
        text(here, &payroll(place)),
        "2026-12-01|assignment|150.00|150.00|EUR|void|t|t, 2026-12-02|assignment|30.25|257.13|EUR|draft|t|t"
    );
    run(here, &set(place, "status = 'cancelled', rate = NULL, period = '[2026-12-01 09:00+01, 2026-12-02 18:00+01)'"));
    run(here, &set(place, "status = 'confirmed'"));
    settled(here, wait::LONG);
}

#[test]
fn w4_what_was_paid_was_paid_at_the_rate_of_its_time() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    let here = &mut stage.owner;
    run(here, &assign(place, "confirmed"));
    settled(here, wait::LONG);
    let paid = |what: &str| format!("UPDATE atlvs.payroll_items SET {what} WHERE employee_id = '{}' AND work_on = '2026-12-01'", place.id("employee"));
    run(here, &paid("status = 'paid'"));
    run(here, &format!("UPDATE atlvs.employees SET day_rate = 200 WHERE id = '{}'; {}", place.id("employee"), set(place, "role = 'head rigger'")));
    settled(here, wait::LONG);
    assert_eq!(
        text(here, &payroll(place)),
        "2026-12-01|assignment|150.00|150.00|EUR|paid|t|t, 2026-12-02|assignment|200.00|200.00|EUR|draft|t|t"
    );
    assert_eq!(stage.dead(place), []);
}
