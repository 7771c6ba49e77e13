//! W9: the phase of a project follows the status of its production, and a cancelled project cancels it.

use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W9",
    targets: &["atlvs.projects"],
    prepare: |place| {
        format!(
            "INSERT INTO atlvs.projects (organization_id, id, code, name) VALUES ('{0}', '{1}', '{2}', 'Fair');
             INSERT INTO compvss.productions (organization_id, id, project_ref, name, status) VALUES ('{0}', '{3}', '{1}', 'Fair', 'planning')",
            place.organization,
            place.id("project"),
            place.unique("P"),
            place.id("production")
        )
    },
    act: |place| set(place, "status = 'load_in'"),
    check,
    not_met: |place| set(place, "venue_name = 'Hall 2'"),
    repeat: |place| set(place, "status = 'show'"),
    bad: Bad {
        before: |place| {
            format!(
                "ALTER TABLE atlvs.projects ADD CONSTRAINT kept_back CHECK (id <> '{}' OR phase <> 'in_production') NOT VALID",
                place.id("project")
            )
        },
        act: |place| set(place, "status = 'load_in'"),
        flow: "live_events.update_project_phase_from_production",
        error: "kept_back",
        repair: |_| "ALTER TABLE atlvs.projects DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn set(place: &Place, what: &str) -> String {
    format!(
        "UPDATE compvss.productions SET {what} WHERE organization_id = '{}' AND id = '{}'",
        place.organization,
        place.id("production")
    )
}

fn check(here: &mut Client, place: &Place) {
    let phase = text(here, &format!("SELECT phase FROM atlvs.projects WHERE id = '{}'", place.id("project")));
    assert_eq!(phase, "in_production");
}
