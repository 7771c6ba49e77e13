//! W1: a won deal becomes a project in the same transaction, once, and the project a production.

use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W1",
    targets: &["atlvs.projects", "compvss.productions"],
    prepare: |place| {
        format!(
            "INSERT INTO atlvs.deals (organization_id, id, title, status, value, currency, event_date, venue_name, venue_timezone, expected_attendance, metadata)
             VALUES ('{}', '{}', '{}', 'proposal', 48000.50, 'EUR', '2026-08-01', 'Tempodrom', 'Europe/Berlin', 3000, '{{\"lineup\": [\"A\"]}}')",
            place.organization,
            place.id("deal"),
            place.unique("Night")
        )
    },
    act: |place| set(place, "status = 'won', won_at = '2026-02-03'"),
    check,
    not_met: |place| set(place, "status = 'lost'"),
    // Won once more, in the same second and after a detour.
    repeat: |place| format!("{}; {}; {}", set(place, "status = 'won'"), set(place, "status = 'proposal'"), set(place, "status = 'won'")),
    bad: Bad {
        before: nothing,
        act: |place| set(place, "event_date = NULL, status = 'won', won_at = '2026-02-03'"),
        flow: "live_events.create_project_from_won_deal",
        error: "the deal has an event date",
        repair: |place| set(place, "event_date = '2026-08-01'"),
        changes: Some(|_| "{\"event_date\": \"2026-08-01\"}".to_owned()),
    },
};

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE atlvs.deals SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("deal"))
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', r.code ~ '^P-2026-[0-9]{{5}}$', r.name, r.phase, r.budget_total, r.currency, r.starts_on, r.ends_on, r.metadata,
                                         p.code = r.code, p.name, p.status, p.venue_name, p.timezone, p.capacity, p.projected_attendance, p.starts_at AT TIME ZONE p.timezone, p.metadata), E'\\n')
               FROM atlvs.projects AS r JOIN compvss.productions AS p ON p.organization_id = r.organization_id AND p.project_ref = r.id
              WHERE r.organization_id = '{}' AND r.deal_id = '{}'",
            place.organization,
            place.id("deal")
        ),
    );
    let name = place.unique("Night");
    let wanted = format!(
        "t|{name}|intake|48000.50|EUR|2026-08-01|2026-08-01|{{\"lineup\": [\"A\"]}}|t|{name}|planning|Tempodrom|Europe/Berlin|3000|3000|2026-08-01 00:00:00|{{\"lineup\": [\"A\"]}}"
    );
    assert_eq!(found, wanted);
    let links = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws(' ', l.kind, l.status, l.left_system, l.right_system), ', ' ORDER BY l.kind)
               FROM usher.links AS l JOIN atlvs.projects AS r ON r.organization_id = l.organization_id AND r.deal_id = '{}'
              WHERE l.kind = 'deal' AND l.left_id = r.deal_id::text AND l.right_id = r.id::text OR l.kind = 'project' AND l.left_id = r.id::text",
            place.id("deal")
        ),
    );
    assert_eq!(links, "deal synced atlvs atlvs, project synced atlvs compvss");
}
