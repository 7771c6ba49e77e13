//! W14: what clients say makes a mean, and a bad score a follow-up.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W14",
    targets: &["atlvs.contacts"],
    prepare: |place| format!("{} {}", site::project(place), contact(place)),
    act: |place| surveys(place),
    check,
    not_met: |place| {
        format!(
            "UPDATE compvss.productions SET metadata = '{{\"score\": 4}}' WHERE organization_id = '{}' AND id = '{}'",
            place.organization,
            place.id("production")
        )
    },
    repeat: |place| {
        format!(
            "UPDATE compvss.satisfaction_surveys SET note = 'read', score = score WHERE organization_id = '{}' AND contact_ref = '{}'",
            place.organization,
            place.id("contact")
        )
    },
    bad: Bad {
        before: |place| format!("DELETE FROM atlvs.contacts WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("contact")),
        act: |place| survey(place, "bad", 4),
        flow: "live_events.rate_contact",
        error: "does not exist",
        repair: |place| format!("{} {}; {}", contact(place), survey(place, "good", 9), survey(place, "fine", 7)),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn contact(place: &Place) -> String {
    format!("INSERT INTO atlvs.contacts (organization_id, id, company, last_name) VALUES ('{}', '{}', 'Acme', 'Client');", place.organization, place.id("contact"))
}

fn survey(place: &Place, name: &str, score: u32) -> String {
    format!(
        "INSERT INTO compvss.satisfaction_surveys (organization_id, id, production_id, contact_ref, score) VALUES ('{}', '{}', '{}', '{}', {score})",
        place.organization,
        place.id(name),
        place.id("production"),
        place.id("contact")
    )
}

fn surveys(place: &Place) -> String {
    format!("{}; {}; {}", survey(place, "good", 9), survey(place, "bad", 4), survey(place, "fine", 7))
}

fn rated(place: &Place) -> String {
    format!(
        "SELECT concat_ws('|', c.satisfaction_avg, c.satisfaction_n, (SELECT string_agg(concat_ws(' ', a.kind, a.severity, a.status, a.title), ', ') FROM atlvs.alerts AS a
                                                                         WHERE a.organization_id = c.organization_id AND a.project_id = '{}'))
           FROM atlvs.contacts AS c WHERE c.organization_id = '{}' AND c.id = '{}'",
        place.id("project"),
        place.organization,
        place.id("contact")
    )
}

fn check(here: &mut Client, place: &Place) {
    let follow_up = "follow_up medium open The client of \"Gig\" gives 4 of 10: call back";
    assert_eq!(text(here, &rated(place)), format!("6.67|3|{follow_up}"));
    assert_eq!(text(here, &site::links(place, "survey", "bad")), "1 synced compvss atlvs");
    // A score that is corrected counts as corrected; one that is withdrawn does not count.
    run(here, &format!("UPDATE compvss.satisfaction_surveys SET score = 10 WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("good")));
    run(here, &format!("DELETE FROM compvss.satisfaction_surveys WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("fine")));
    settled(here, wait::LONG);
    assert_eq!(text(here, &rated(place)), format!("7.00|2|{follow_up}"));
}
