//! Checks of rules: whether they find what they should, and what they have found.

use super::{Finding, Seen, listed, problem, warning};
use crate::error::Result;
use crate::pg::spi;

pub fn rules() -> Result<Seen> {
    let rules = spi::read_all(
        "SELECT l.name, l.reason, r.rolname::text, COALESCE(r.rolsuper, false), l.last_error
           FROM usher.rules AS l LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = l.run_as ORDER BY l.name",
        &[],
        |row| {
            let name = row.get::<String>(1)?.unwrap_or_default();
            Ok(findings(
                &name,
                row.get::<String>(2)?,
                row.get::<String>(3)?,
                row.get::<bool>(4)? == Some(true),
                row.get::<String>(5)?,
            ))
        },
    )?;
    let count = rules.len();
    let fine = format!("{count} rule{}, none broken", if count == 1 { "" } else { "s" });
    Ok((fine, listed(rules.into_iter().flatten().collect())))
}

fn findings(name: &str, broken: Option<String>, role: Option<String>, superuser: bool, error: Option<String>) -> Vec<Finding> {
    let alter = format!("SELECT usher.alter_rule('{name}', …);");
    let mut found = Vec::new();
    if let Some(reason) = broken {
        found.push(problem(
            format!("rule \"{name}\" is broken and finds nothing: {reason}"),
            format!("Mend the table, or give the rule a definition that fits: {alter}"),
        ));
    } else if let Some(error) = error {
        found.push(warning(
            format!("rule \"{name}\" does not see everything: {error}"),
            format!("Mend the rows or the rule; SELECT * FROM usher.check_rule('{name}'); looks again."),
        ));
    }
    match role {
        None => found.push(problem(
            format!("the role that rule \"{name}\" runs as is gone"),
            format!("Name another in \"run_as\": {alter}"),
        )),
        Some(role) if superuser => found.push(warning(
            format!("rule \"{name}\" runs as superuser {role}"),
            format!("Name a role with just the rights it needs in \"run_as\": {alter}"),
        )),
        Some(_) => {}
    }
    found
}

/// What is critical and open, and organizations whose data is less consistent than it should be.
pub fn consistency() -> Result<Seen> {
    let mut findings = listed(spi::read_all(
        "SELECT v.rule, pg_catalog.count(*), pg_catalog.count(DISTINCT v.organization_id) FROM usher.violations AS v
          WHERE v.status = 'open' AND v.severity = 'critical' GROUP BY v.rule ORDER BY v.rule",
        &[],
        |row| {
            let rule = row.get::<String>(1)?.unwrap_or_default();
            Ok(problem(
                format!(
                    "{} critical violations of rule \"{rule}\" are open, in {} organizations",
                    row.get::<i64>(2)?.unwrap_or(0),
                    row.get::<i64>(3)?.unwrap_or(0)
                ),
                format!(
                    "SELECT id, wrong FROM usher.violations WHERE status = 'open' AND rule = '{rule}'; shows them: mend the rows, or waive what is meant so."
                ),
            ))
        },
    )?);
    findings.extend(listed(spi::read_all(
        &format!(
            "SELECT COALESCE(o.slug, c.organization_id::text), c.percent::text, c.open, c.rows FROM usher.consistency AS c LEFT JOIN usher.organizations AS o ON o.id = c.organization_id
              WHERE c.percent < {} ORDER BY c.percent, 1",
            crate::settings::LEAST_CONSISTENCY
        ),
        &[],
        |row| {
            Ok(problem(
                format!(
                    "{} % of organization {} is consistent: {} of {} rows break a rule",
                    row.get::<String>(2)?.unwrap_or_default(),
                    row.get::<String>(1)?.unwrap_or_default(),
                    row.get::<i64>(3)?.unwrap_or(0),
                    row.get::<i64>(4)?.unwrap_or(0)
                ),
                "SELECT rule, count(*) FROM usher.violations WHERE status = 'open' GROUP BY rule; shows where.",
            ))
        },
    )?));
    Ok((format!("no critical violation is open, no organization below {} %", crate::settings::LEAST_CONSISTENCY), findings))
}
