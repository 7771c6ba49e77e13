//! W6: approved hours replace the draft of their day on the payroll, overtime 1.5 times, and count in the costs.

use super::six::{Bad, Place, Workflow, alone};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W6",
    targets: &["atlvs.payroll_items", "compvss.cost_lines"],
    prepare: |place| {
        format!(
            "{} {} INSERT INTO compvss.crew_assignments (organization_id, id, production_id, crew_id, period, status)
                   VALUES ('{}', '{}', '{}', '{}', '[2026-12-01 09:00+01, 2026-12-02 18:00+01)', 'confirmed')",
            site::project(place),
            site::worker(place),
            place.organization,
            place.id("assignment"),
            place.id("production"),
            place.id("crew")
        )
    },
    act: |place| work(place, "approved"),
    check,
    not_met: |place| work(place, "submitted"),
    repeat: |place| format!("{}; {}", set(place, "status = 'submitted'"), set(place, "status = 'approved'")),
    bad: Bad {
        before: |place| wage(place, "NULL"),
        act: |place| entry(place, "morning", "6, 0", "approved"),
        flow: "live_events.pay_approved_hours",
        error: "cannot be paid: 2026-12-02 has no rate",
        repair: |place| format!("{}; {}", wage(place, "20"), entry(place, "evening", "2, 1.5", "approved")),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn wage(place: &Place, rate: &str) -> String {
    format!("UPDATE atlvs.employees SET hourly_rate = {rate} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("employee"))
}

/// Two entries of one day.
fn work(place: &Place, status: &str) -> String {
    format!("{}; {}", entry(place, "morning", "6, 0", status), entry(place, "evening", "2, 1.5", status))
}

fn entry(place: &Place, name: &str, hours: &str, status: &str) -> String {
    format!(
        "INSERT INTO compvss.time_entries (organization_id, id, assignment_id, work_on, hours, overtime, status) VALUES ('{}', '{}', '{}', '2026-12-02', {hours}, '{status}')",
        place.organization,
        place.id(name),
        place.id("assignment")
    )
}

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE compvss.time_entries SET {what} WHERE organization_id = '{}' AND assignment_id = '{}'", place.organization, place.id("assignment"))
}

fn books(place: &Place) -> String {
    format!(
        "SELECT concat_ws(' = ', string_agg(concat_ws('|', i.work_on, i.kind, i.hours, i.overtime, i.rate, i.gross, i.status), ', ' ORDER BY i.work_on),
                          (SELECT c.actual || '|' || b.actual FROM compvss.cost_lines AS c JOIN atlvs.budget_lines AS b ON b.organization_id = c.organization_id AND b.project_id = c.project_ref
                            WHERE c.organization_id = '{0}' AND c.project_ref = '{1}' AND c.category = 'crew' AND b.category = 'crew'))
           FROM atlvs.payroll_items AS i WHERE i.organization_id = '{0}' AND i.project_id = '{1}'",
        place.organization,
        place.id("project")
    )
}

fn check(here: &mut Client, place: &Place) {
    let planned = "2026-12-01|assignment|15.00|0.00|150.00|150.00|draft";
    let paid = format!("{planned}, 2026-12-02|hours|8.00|1.50|20.00|205.00|approved = 205.00|205.00");
    assert_eq!(text(here, &books(place)), paid);
    // Not approved any more: the plan is back, and costs nothing yet.
    run(here, &set(place, "status = 'rejected'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &books(place)), format!("{planned}, 2026-12-02|assignment|18.00|0.00|150.00|150.00|draft = 0.00|0.00"));
    run(here, &set(place, "status = 'approved'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &books(place)), paid);
}

#[test]
fn w6_a_closed_project_takes_no_hours() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    let here = &mut stage.owner;
    run(here, &format!("UPDATE atlvs.projects SET phase = 'closed' WHERE id = '{}'", place.id("project")));
    let before = text(here, &books(place));
    run(here, &work(place, "approved"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &books(place)), before);
    let dead = stage.dead(place);
    let told = |(flow, error): &(String, String)| flow == WORKFLOW.bad.flow && error.contains("the project of the hours of \"Ann\" is closed");
    assert!(!dead.is_empty() && dead.iter().all(told), "{dead:?}");
}
