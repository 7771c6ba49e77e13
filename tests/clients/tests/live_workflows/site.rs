//! Rows that several of these tests begin with.

use super::six::Place;

/// A project of 5000 EUR in the works, and its production in Berlin: ids "project" and "production".
pub fn project(place: &Place) -> String {
    format!(
        "INSERT INTO atlvs.projects (organization_id, id, code, name, phase, budget_total, currency, starts_on)
         VALUES ('{0}', '{1}', '{2}', 'Gig', 'in_production', 5000, 'EUR', '2026-12-01');
         INSERT INTO compvss.productions (organization_id, id, project_ref, name, status, timezone)
         VALUES ('{0}', '{3}', '{1}', 'Gig', 'show', 'Europe/Berlin');",
        place.organization,
        place.id("project"),
        place.unique("P"),
        place.id("production")
    )
}

/// Somebody on the payroll for 20 EUR an hour and 150 EUR a day, who is on the crew: ids "employee" and "crew".
pub fn worker(place: &Place) -> String {
    format!(
        "{}
         INSERT INTO compvss.crew_members (organization_id, id, employee_ref, name, role) VALUES ('{}', '{}', '{}', 'Ann', 'rigger');",
        employee(place),
        place.organization,
        place.id("crew"),
        place.id("employee")
    )
}

pub fn employee(place: &Place) -> String {
    format!(
        "INSERT INTO atlvs.employees (organization_id, id, name, hourly_rate, day_rate, currency) VALUES ('{}', '{}', 'Ann', 20, 150, 'EUR');",
        place.organization,
        place.id("employee")
    )
}

/// The entries of the journals of a project, as `code amount`, debits above 0.
pub fn booked(place: &Place) -> String {
    format!(
        "SELECT COALESCE(string_agg(l.line, ', ' ORDER BY l.line), '')
           FROM (SELECT concat_ws(' ', a.code, sum(e.debit - e.credit), j.currency) AS line
                   FROM atlvs.journals AS j
                   JOIN atlvs.ledger_entries AS e ON e.organization_id = j.organization_id AND e.journal_id = j.id
                   JOIN atlvs.ledger_accounts AS a ON a.organization_id = e.organization_id AND a.id = e.account_id
                  WHERE j.organization_id = '{}' AND j.project_id = '{}'
                  GROUP BY a.code, j.currency HAVING sum(e.debit - e.credit) <> 0) AS l",
        place.organization,
        place.id("project")
    )
}

/// Links of a kind whose left side is a row of the case.
pub fn links(place: &Place, kind: &str, left: &str) -> String {
    format!(
        "SELECT concat_ws(' ', count(*), min(status), min(left_system), min(right_system)) FROM usher.links
          WHERE organization_id = '{}' AND kind = '{kind}' AND left_id = '{}'",
        place.organization,
        place.id(left)
    )
}
