//! W41: who is hired is on the crew, is assigned and paid (W4), and named in pictures (W30).

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W41",
    targets: &["compvss.crew_members"],
    prepare: on_sale,
    act: |place| hire(place, "hired"),
    check,
    not_met: |place| hire(place, "applicant"),
    repeat: |place| {
        format!(
            "{} {}",
            set(place, "atlvs.employees", "employee", "hired_on = '2031-01-02'"),
            set(place, "atlvs.employees", "employee", "name = 'Ann'")
        )
    },
    bad: Bad {
        before: |place| format!("ALTER TABLE compvss.crew_members ADD CONSTRAINT kept_back CHECK (employee_ref <> '{}')", place.id("employee")),
        act: |place| hire(place, "hired"),
        flow: "live_events.put_employee_on_crew",
        error: "kept_back",
        repair: |_| "ALTER TABLE compvss.crew_members DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn hire(place: &Place, status: &str) -> String {
    format!(
        "INSERT INTO atlvs.employees (organization_id, id, name, day_rate, currency, status) VALUES ('{}', '{}', 'Ann', 150, 'EUR', '{status}')",
        place.organization,
        place.id("employee")
    )
}

fn check(here: &mut Client, place: &Place) {
    let crew = format!(
        "SELECT string_agg(concat_ws('|', c.name, c.status, c.currency, c.rate IS NULL), ',') FROM compvss.crew_members AS c WHERE c.organization_id = '{}' AND c.employee_ref = '{}'",
        place.organization,
        place.id("employee")
    );
    assert_eq!(text(here, &crew), "Ann|active|EUR|t");
    assert_eq!(text(here, &site::links(place, "crew", "employee")), "1 synced atlvs compvss");
    // On, through W4 and W30.
    run(
        here,
        &format!(
            "INSERT INTO compvss.crew_assignments (organization_id, production_id, crew_id, period, status)
             SELECT organization_id, '{0}', id, '[2031-08-01 09:00+02, 2031-08-01 18:00+02)', 'confirmed' FROM compvss.crew_members WHERE organization_id = '{1}' AND employee_ref = '{2}';
             INSERT INTO compvss.media_files (organization_id, id, production_id, crew_id, url, status)
             SELECT organization_id, '{3}', '{0}', id, 'https://media.example.org/1.jpg', 'approved' FROM compvss.crew_members WHERE organization_id = '{1}' AND employee_ref = '{2}'",
            place.id("production"),
            place.organization,
            place.id("employee"),
            place.id("picture")
        ),
    );
    settled(here, wait::LONG);
    let chain = format!(
        "SELECT concat_ws('|', (SELECT string_agg(concat_ws(' ', p.kind, p.gross, p.status), ',') FROM atlvs.payroll_items AS p WHERE p.organization_id = '{0}' AND p.employee_id = '{1}'),
                               (SELECT string_agg(g.credit, ',') FROM gvteway.gallery_items AS g WHERE g.organization_id = '{0}' AND g.source_ref = '{2}'))",
        place.organization,
        place.id("employee"),
        place.id("picture")
    );
    assert_eq!(text(here, &chain), "assignment 150.00 draft|Ann");
    run(here, &set(place, "atlvs.employees", "employee", "name = 'Ann Lee'"));
    settled(here, wait::LONG);
    assert_eq!((text(here, &crew), text(here, &chain)), ("Ann Lee|active|EUR|t".to_owned(), "assignment 150.00 draft|Ann Lee".to_owned()));
    run(here, &set(place, "atlvs.employees", "employee", "status = 'left'"));
    settled(here, wait::LONG);
    assert_eq!((text(here, &crew), text(here, &chain)), ("Ann Lee|inactive|EUR|t".to_owned(), "assignment 150.00 draft|Ann Lee".to_owned()));
}
