//! W10: an approved change order revises the plan, once, and W2 carries the plan on.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W10",
    targets: &["atlvs.budget_revisions", "atlvs.budget_lines", "compvss.cost_lines"],
    prepare: |place| {
        format!(
            "{} INSERT INTO atlvs.budget_lines (organization_id, id, project_id, category, planned) VALUES ('{}', '{}', '{}', 'stage', 1000)",
            site::project(place),
            place.organization,
            place.id("line"),
            place.id("project")
        )
    },
    act: |place| order(place, "-250.50", "approved"),
    check,
    not_met: |place| order(place, "-250.50", "submitted"),
    repeat: |place| format!("{}; {}", set(place, "status = 'submitted'"), set(place, "status = 'approved'")),
    bad: Bad {
        before: |_| String::new(),
        act: |place| order(place, "-2505.00", "approved"),
        flow: "live_events.revise_budget_from_change_order",
        error: "budget_lines_amounts_range",
        repair: |place| set(place, "cost_delta = -250.50"),
        changes: Some(|_| "{\"cost_delta\": -250.50}".to_owned()),
    },
};

fn order(place: &Place, delta: &str, status: &str) -> String {
    format!(
        "INSERT INTO compvss.change_orders (organization_id, id, production_id, number, category, cost_delta, currency, status)
         VALUES ('{}', '{}', '{}', 'C-1', 'stage', {delta}, 'EUR', '{status}')",
        place.organization,
        place.id("order"),
        place.id("production")
    )
}

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE compvss.change_orders SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("order"))
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', r.delta, b.planned, c.planned, c.planned_from = b.version), ',')
               FROM atlvs.budget_revisions AS r
               JOIN atlvs.budget_lines AS b ON b.organization_id = r.organization_id AND b.id = r.line_id
               JOIN compvss.cost_lines AS c ON c.organization_id = b.organization_id AND c.project_ref = b.project_id AND c.category = b.category
              WHERE r.organization_id = '{}' AND r.change_order_ref = '{}'",
            place.organization,
            place.id("order")
        ),
    );
    assert_eq!(found, "-250.50|749.50|749.50|t");
    assert_eq!(text(here, &site::links(place, "change_order", "order")), "1 synced compvss atlvs");
}
