//! W12: a wrapped production's project is closed: what is open is waited for, accruals and the final invoice are booked; what fails is undone.

use super::six::{Bad, Place, Workflow, alone};
use super::site;
use usher_clients::{Client, refused, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W12",
    targets: &["atlvs.invoices"],
    prepare: |place| {
        format!(
            "{project} {worker}
             INSERT INTO atlvs.budget_lines (organization_id, project_id, category, planned) VALUES ('{o}', '{p}', 'stage', 1000);
             INSERT INTO atlvs.invoices (organization_id, project_id, number, total, currency, status) VALUES ('{o}', '{p}', '{first}', 2000, 'EUR', 'paid');
             INSERT INTO atlvs.vendors (organization_id, id, name) VALUES ('{o}', '{v}', 'PA Ltd');
             INSERT INTO atlvs.purchase_orders (organization_id, vendor_id, project_id, number, total, invoiced, currency) VALUES ('{o}', '{v}', '{p}', '{po}', 300, 100, 'EUR');
             INSERT INTO compvss.crew_assignments (organization_id, id, production_id, crew_id, period, status) VALUES ('{o}', '{a}', '{q}', '{c}', '[2026-12-01 09:00+01, 2026-12-01 18:00+01)', 'confirmed');
             INSERT INTO compvss.expenses (organization_id, id, production_id, category, amount, currency, status) VALUES ('{o}', '{e}', '{q}', 'stage', 50, 'EUR', 'approved')",
            project = site::project(place),
            worker = site::worker(place),
            o = place.organization,
            p = place.id("project"),
            q = place.id("production"),
            v = place.id("vendor"),
            c = place.id("crew"),
            a = place.id("assignment"),
            e = place.id("expense"),
            first = place.unique("I"),
            po = place.unique("PO"),
        )
    },
    act: |place| set(place, "wrapped"),
    check,
    not_met: |place| set(place, "load_out"),
    repeat: |place| format!("{}; {}", set(place, "load_out"), set(place, "wrapped")),
    bad: Bad {
        // The number of the final invoice is taken, by an invoice of another project.
        before: |place| {
            format!(
                "INSERT INTO atlvs.projects (organization_id, id, code, name) VALUES ('{0}', '{1}', '{2}', 'Other');
                 INSERT INTO atlvs.invoices (organization_id, id, project_id, number, total) VALUES ('{0}', '{3}', '{1}', '{4}-F', 1)",
                place.organization,
                place.id("other"),
                place.unique("O"),
                place.id("taken"),
                place.unique("P")
            )
        },
        act: |place| set(place, "wrapped"),
        flow: "live_events.close_finances:invoice",
        error: "invoices_number_key",
        repair: repair_undone,
        changes: None,
    },
};

fn set(place: &Place, status: &str) -> String {
    format!("UPDATE compvss.productions SET status = '{status}' WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("production"))
}

/// What was done before the step that failed is undone, in reverse; the number is freed, and the run begun anew.
fn repair_undone(place: &Place) -> String {
    format!(
        "DO $do$ BEGIN
             ASSERT (SELECT r.state = 'undone' FROM usher.workflow_runs AS r WHERE r.input ->> 'project_id' = '{p}'), 'the run is undone';
             ASSERT (SELECT p.phase = 'post' AND p.closing_run IS NULL FROM atlvs.projects AS p WHERE p.id = '{p}'), 'the project is open';
             ASSERT NOT EXISTS (SELECT FROM atlvs.budget_lines AS b WHERE b.project_id = '{p}' AND b.frozen), 'nothing is frozen';
             ASSERT ({booked}) = '2000 -50.00 EUR, 5000 50.00 EUR', 'the accruals are booked back';
             ASSERT (SELECT count(*) = 3 AND count(j.reverses) = 1 FROM atlvs.journals AS j WHERE j.project_id = '{p}'), 'by a reversal';
         END $do$;
         UPDATE atlvs.invoices SET number = number || '-old' WHERE organization_id = '{o}' AND id = '{taken}';
         SELECT usher.retry_workflow(r.id) FROM usher.workflow_runs AS r WHERE r.input ->> 'project_id' = '{p}'",
        p = place.id("project"),
        o = place.organization,
        taken = place.id("taken"),
        booked = site::booked(place)
    )
}

fn check(here: &mut Client, place: &Place) {
    let closed = text(
        here,
        &format!(
            "SELECT concat_ws('|', p.phase, p.closed_at IS NOT NULL, (SELECT string_agg(b.category || ' ' || b.actual || ' ' || b.frozen, ',' ORDER BY b.category) FROM atlvs.budget_lines AS b
                                                                       WHERE b.organization_id = p.organization_id AND b.project_id = p.id),
                              (SELECT string_agg(concat_ws(' ', i.number, i.total, i.status), ',' ORDER BY i.number) FROM atlvs.invoices AS i WHERE i.organization_id = p.organization_id AND i.project_id = p.id),
                              (SELECT string_agg(DISTINCT r.state, ',') FROM usher.workflow_runs AS r WHERE r.input ->> 'project_id' = p.id::text))
               FROM atlvs.projects AS p WHERE p.organization_id = '{}' AND p.id = '{}'",
            place.organization,
            place.id("project")
        ),
    );
    assert_eq!(closed, format!("closed|t|stage 50.00 true|{} 2000.00 paid,{}-F 3000.00 sent|done", place.unique("I"), place.unique("P")));
    // The expense, a day's draft on the payroll, what the order has left, and what the client has still to pay.
    assert_eq!(
        text(here, &site::booked(place)),
        "1200 3000.00 EUR, 2000 -50.00 EUR, 2100 -150.00 EUR, 2300 -200.00 EUR, 4400 -3000.00 EUR, 5000 250.00 EUR, 5100 150.00 EUR"
    );
}

#[test]
fn w12_what_is_left_to_bill_is_not_told_from_two_currencies() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let here = &mut stage.owner;
    let (organization, project, number) = (place.organization, place.id("project"), place.unique("I-USD"));
    run(
        here,
        &format!("INSERT INTO atlvs.invoices (organization_id, project_id, number, total, currency, status) VALUES ('{organization}', '{project}', '{number}', 500, 'USD', 'sent')"),
    );
    let bill = format!("SELECT atlvs.bill_rest('{organization}', '{project}', '{}')", place.id("run"));
    let error = refused(here, &bill);
    assert!(error.message().contains("has invoices in another currency than EUR") && error.hint().is_some(), "{error:?}");
    run(here, &format!("UPDATE atlvs.invoices SET status = 'void' WHERE number = '{number}'; BEGIN; {bill}"));
    assert_eq!(text(here, &format!("SELECT total::text FROM atlvs.invoices WHERE project_id = '{project}' AND number LIKE '%-F'")), "3000.00");
    run(here, "ROLLBACK");
}
