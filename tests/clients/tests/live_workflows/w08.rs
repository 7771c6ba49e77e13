//! W8: alerts about risk and compliance stand in the office too; grave ones are announced.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W8",
    targets: &["atlvs.alerts"],
    prepare: site::project,
    act: |place| alert(place, "risk", "high"),
    check,
    not_met: |place| alert(place, "weather", "warning"),
    repeat: |place| format!("{}; {}", set(place, "valid = '[2026-12-01, 2026-12-02)'"), set(place, "valid = NULL")),
    bad: Bad {
        before: |place| format!("ALTER TABLE atlvs.alerts ADD CONSTRAINT kept_back CHECK (source_ref <> '{}')", place.id("alert")),
        act: |place| alert(place, "risk", "high"),
        flow: "live_events.report_production_alert",
        error: "kept_back",
        repair: |_| "ALTER TABLE atlvs.alerts DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn alert(place: &Place, kind: &str, level: &str) -> String {
    format!(
        "INSERT INTO compvss.alerts (organization_id, id, production_id, kind, level, headline) VALUES ('{}', '{}', '{}', '{kind}', '{level}', 'Load on the roof')",
        place.organization,
        place.id("alert"),
        place.id("production")
    )
}

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE compvss.alerts SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("alert"))
}

fn check(here: &mut Client, place: &Place) {
    let stands = format!(
        "SELECT string_agg(concat_ws('|', a.kind, a.severity, a.title, a.status, a.project_id = '{}',
                                     (SELECT string_agg(e.data ->> 'severity', '+' ORDER BY e.emitted_at) FROM usher.events AS e WHERE e.type = 'atlvs.alerts.raised' AND e.data ->> 'alert_id' = a.id::text)), ',')
           FROM atlvs.alerts AS a WHERE a.organization_id = '{}' AND a.source_ref = '{}'",
        place.id("project"),
        place.organization,
        place.id("alert")
    );
    assert_eq!(text(here, &stands), "risk|high|Load on the roof|open|t|high");
    assert_eq!(text(here, &site::links(place, "alert", "alert")), "1 synced compvss atlvs");
    // The office has seen it, and is not asked again for another headline; it is when things get worse, and it ends with the cause.
    run(here, &format!("UPDATE atlvs.alerts SET status = 'acknowledged' WHERE organization_id = '{}' AND source_ref = '{}'", place.organization, place.id("alert")));
    run(here, &set(place, "headline = 'Load on the roof, stage left'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands), "risk|high|Load on the roof, stage left|acknowledged|t|high");
    run(here, &set(place, "status = 'acknowledged'"));
    run(here, &set(place, "status = 'open', level = 'critical'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands), "risk|critical|Load on the roof, stage left|open|t|high+critical");
    run(here, &set(place, "status = 'resolved', level = 'high'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands), "risk|high|Load on the roof, stage left|resolved|t|high+critical");
}
