//! W2: the budget says what is planned, the production what was spent, and both share their notes.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W2",
    targets: &["compvss.cost_lines"],
    prepare: |place| {
        format!(
            "{} INSERT INTO atlvs.budget_lines (organization_id, id, project_id, category, planned, notes) VALUES ('{}', '{}', '{}', 'stage', 1000, 'one')",
            site::project(place),
            place.organization,
            place.id("line"),
            place.id("project")
        )
    },
    act: |place| set(place, "planned = 1200.50"),
    check,
    not_met: |place| set(place, "frozen = true"),
    repeat: |place| format!("{}; {}", set(place, "planned = 1200.50"), set(place, "notes = 'one'")),
    bad: Bad {
        before: |place| {
            format!("ALTER TABLE compvss.cost_lines ADD CONSTRAINT kept_back CHECK (production_id <> '{}' OR planned <> 1200.50)", place.id("production"))
        },
        act: |place| set(place, "planned = 1200.50"),
        flow: "live_events.carry_planned_to_costs",
        error: "kept_back",
        repair: |_| "ALTER TABLE compvss.cost_lines DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE atlvs.budget_lines SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("line"))
}

fn check(here: &mut Client, place: &Place) {
    let sql = format!(
        "SELECT string_agg(concat_ws('|', category, planned, actual, notes, currency), ',') FROM compvss.cost_lines WHERE organization_id = '{}' AND production_id = '{}'",
        place.organization,
        place.id("production")
    );
    assert_eq!(text(here, &sql), "stage|1200.50|0.00|one|EUR");
    assert_eq!(text(here, &site::links(place, "budget_line", "line")), "1 synced atlvs compvss");
}
