//! `usher.doctor()`: everything that can be wrong with an installation, each with its remedy.
//!
//! Reads only. A check that cannot be made says so and the others go on: whoever calls a doctor has something that is
//! broken. Each check is one or two statements over the whole, never one for each row.

mod data;
mod flows;
mod rules;
mod server;

use crate::error::Result;
use crate::pg::{guc, role, subxact};
use crate::setup::{self, Installed};
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// It works, and will hurt one day or hurts a little.
    Warning,
    /// Something does not work, or is open to people to whom it should not be.
    Problem,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    state: State,
    finding: String,
    remedy: String,
}

fn warning(finding: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { state: State::Warning, finding: finding.into(), remedy: remedy.into() }
}

fn problem(finding: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { state: State::Problem, finding: finding.into(), remedy: remedy.into() }
}

/// What a check has seen: what to say when all is well, and what is not.
type Seen = (String, Vec<Finding>);

#[derive(Default)]
struct Report(Vec<(&'static str, Finding)>);

impl Report {
    fn check(&mut self, name: &'static str, look: impl FnOnce() -> Result<Seen>) {
        let findings = match subxact::attempt(look) {
            Ok((fine, findings)) if findings.is_empty() => {
                vec![Finding { state: State::Ok, finding: fine, remedy: String::new() }]
            }
            Ok((_, findings)) => findings,
            Err(failure) => vec![problem(
                format!("this could not be looked at: {}", failure.line()),
                failure
                    .hint
                    .unwrap_or_else(|| "Mend what the message names, then run SELECT * FROM usher.doctor(); again.".to_owned()),
            )],
        };
        self.0.extend(findings.into_iter().map(|finding| (name, finding)));
    }
}

/// Checks the installation: one line for each check that finds nothing, and one for each finding, with its remedy. `state`
/// is `ok`, `warning` or `problem`. For operators and readers; works before `usher.setup()` and with older tables.
///
/// Arguments: `patience`, how old an open or prepared transaction may be before it is a finding.
/// Errors: 42501 for other callers.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn doctor(
    patience: default!(Option<Interval>, "'10 min'"),
) -> std::result::Result<
    TableIterator<'static, (name!(check, String), name!(state, String), name!(finding, String), name!(remedy, Option<String>))>,
    ErrorReport,
> {
    super::require_look("examine the installation")?;
    let patience = patience.map_or(600.0, seconds);
    let report = examine(setup::installed().ok(), patience);
    Ok(TableIterator::new(report.0.into_iter().map(|(check, finding)| {
        let remedy = Some(finding.remedy).filter(|text| !text.is_empty());
        (check.to_owned(), finding.state.word().to_owned(), finding.finding, remedy)
    })))
}

fn seconds(interval: Interval) -> f64 {
    let days = f64::from(interval.months()) * 30.0 + f64::from(interval.days());
    days * 86_400.0 + interval.micros() as f64 / 1_000_000.0
}

fn examine(installed: Option<Installed>, patience: f64) -> Report {
    let mut report = Report::default();
    // Ages are written in one way, whatever the session prefers.
    let _path = guc::Nest::pinned_path().pinned_formats();
    let _acting = installed.map(|installed| role::internal(installed.owner));
    report.check("library", server::library);
    report.check("setup", || server::setup(installed));
    report.check("workers", server::workers);
    report.check("key file", || server::key_file(installed.is_some_and(|installed| installed.up_to_date)));
    report.check("transactions", || server::transactions(patience));
    report.check("prepared transactions", || server::prepared(patience));
    report.check("public functions", data::public_functions);
    report.check("search paths", || data::search_paths(installed.is_some()));
    if let Some(installed) = installed {
        report.check("row security", data::row_security);
        report.check("adopted tables", || data::adoptions(installed));
        report.check("copy", || Ok(server::home(installed)));
        report.check("flows", flows::flows);
        report.check("triggers", flows::triggers);
        report.check("schema changes", flows::schema_changes);
        report.check("primary keys", flows::primary_keys);
        report.check("clock", data::clock);
        report.check("history", || data::history(installed.up_to_date));
        report.check("backlog", data::backlog);
        report.check("waiting jobs", data::waiting);
        // Tables of an older version know no pauses.
        if installed.up_to_date {
            report.check("pauses", data::pauses);
            report.check("workflows", data::workflows);
            report.check("migrations", data::migrations);
            report.check("rules", rules::rules);
            report.check("consistency", rules::consistency);
            report.check("protected columns", data::protected_columns);
            report.check("audit chain", data::audit_chain);
            report.check("personal data", data::personal_data);
        }
        report.check("dead letters", data::dead_letters);
    }
    report
}

/// At most so many findings of one kind are listed; then how many more there are.
const MOST: usize = 20;

/// Findings of one kind from the first rows of a query, and one more line when there are more.
fn listed(rows: Vec<Finding>) -> Vec<Finding> {
    let more = rows.len().saturating_sub(MOST);
    let last = rows.get(MOST).cloned();
    let mut out: Vec<Finding> = rows.into_iter().take(MOST).collect();
    out.extend(last.map(|last| Finding {
        finding: format!("and {more} more of this kind"),
        remedy: "Mend these first.".to_owned(),
        ..last
    }));
    out
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let rows = |n: usize| (0..n).map(|n| warning(n.to_string(), "x")).collect::<Vec<_>>();
        assert_eq!(listed(rows(3)).len(), 3);
        assert_eq!(listed(rows(MOST)).len(), MOST);
        let cut = listed(rows(MOST + 7));
        assert_eq!((cut.len(), cut[MOST].finding.as_str()), (MOST + 1, "and 7 more of this kind"));
    }
}
