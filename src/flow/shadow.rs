//! A flow in shadow: its jobs run like any other, one by one, and nothing of it stays but a note of what it would have been.
//!
//! Each job is tried by itself against the tables as they are, with the flow's rights and fences, in a subtransaction that
//! is always undone. A job's own subtransaction, because the rows that one statement returns for many jobs do not say
//! whose they are, and because one job that fails must not hide what the others would have done.

use super::apply::{self, Run, Stop};
use super::cause::{self, Cause};
use super::definition::Then;
use super::store::Flow;
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::subxact::{self, Failure};
use crate::pg::{role, spi, xact};
use crate::registry::identity;
use pgrx::JsonB;
use serde_json::Value;

/// What one job would have done, by its number in the batch (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub n: i32,
    /// The rows that it would have written or deleted, or the call that it would have made.
    pub would_write: Vec<Value>,
    /// Why it would have failed: the check, or the error.
    pub failed: Option<String>,
}

/// Tries a job of the batch; `organization` is the one it belongs to. Err: the flow does not fit the catalog any more.
pub fn attempt(run: &Run<'_>, n: i32, cause: &Cause, organization: pgrx::Uuid) -> std::result::Result<Tried, Stop> {
    match subxact::rehearse_within(run.flow.definition.limit(), || once(run, n, cause, organization)) {
        Ok(rows) => Ok(told(n, rows)),
        Err(failure) if failure.is_drift() && apply::drifted(run.flow) => Err(Stop::Broken(failure)),
        Err(failure) => Ok(Tried { n, would_write: Vec::new(), failed: Some(Failure::line(&failure)) }),
    }
}

fn once(run: &Run<'_>, n: i32, cause: &Cause, organization: pgrx::Uuid) -> Result<Vec<Value>> {
    let flow: &Flow = run.flow;
    let program = flow.program()?;
    let _fence = Nest::fence().lock_timeout(flow.definition.lock_timeout);
    let settle = xact::may_defer()?;
    let _caused = cause::enter(cause.clone());
    let _for_flow = identity::for_flow(Some(organization));
    let _acting = role::act_as(flow.run_as);
    let arguments = apply::arguments(run.batch, n, n);
    if settle {
        spi::script("SET CONSTRAINTS ALL DEFERRED")?;
    }
    let rows = spi::all(&program.preview, &arguments, |row| Ok(row.get::<JsonB>(1)?))?;
    if matches!(flow.definition.then, Then::Call { .. }) {
        // The preview of a call only shows it. What the function does is undone with everything else.
        spi::run(&program.apply, &arguments)?;
    }
    // What would fail only at COMMIT fails here too.
    if settle {
        spi::script("SET CONSTRAINTS ALL IMMEDIATE")?;
    }
    Ok(rows.into_iter().flatten().map(|row| row.0).collect())
}

/// Sorts a preview's answer: a check that fails comes as an object that names it.
fn told(n: i32, rows: Vec<Value>) -> Tried {
    let check = |row: &Value| match row.as_object() {
        Some(fields) if fields.len() == 1 => fields.get("failed check").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let failed = rows.iter().find_map(check).map(|name| apply::check_failure(&name).line());
    let would_write = if failed.is_some() { Vec::new() } else { rows };
    Tried { n, would_write, failed }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_check_is_no_row() {
        let tried = told(3, vec![json!({"failed check": "the amount is not negative"})]);
        assert_eq!(tried.failed.as_deref(), Some("check \"the amount is not negative\" failed (23514)"));
        assert!(tried.would_write.is_empty());
    }

    #[test]
    fn rows_are_rows_and_none_is_no_failure() {
        assert_eq!(told(1, vec![]), Tried { n: 1, would_write: vec![], failed: None });
        let row = json!({"id": 1, "failed check": "a column of that name"});
        assert_eq!(told(1, vec![row.clone()]), Tried { n: 1, would_write: vec![row], failed: None });
    }
}
