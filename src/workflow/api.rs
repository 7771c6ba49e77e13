//! SQL functions of workflows.

use super::{steer, timeline};
use crate::error::UsherError;
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

type Sql<T> = std::result::Result<T, ErrorReport>;

fn no_data() -> JsonB {
    JsonB(serde_json::json!({}))
}

/// Begins a run of a workflow with an input of the caller's, in the caller's transaction. Returns the run's id.
///
/// Arguments: `organization` (slug or id); `workflow`, its name; `input` (object), what the steps call `run.input`; `priority` (emergency,
/// critical, high, normal, low; normal leaves the workflow's own).
/// Errors: 42501 unless the caller is an admin of the organization, 42704 for an unknown workflow, 22023 for a flow without steps or an
/// input that is no object, 55000 when the workflow is off.
#[pg_extern(volatile, parallel_unsafe)]
fn start_workflow(
    organization: Option<String>,
    workflow: Option<String>,
    input: default!(Option<JsonB>, "'{}'"),
    priority: default!(Option<String>, "'normal'"),
) -> Sql<Uuid> {
    let organization = UsherError::given(organization, "the organization")?;
    let workflow = UsherError::given(workflow, "the workflow's name")?;
    Ok(steer::start(&organization, &workflow, input.unwrap_or_else(no_data), steer::lane(priority)?)?)
}

/// Tells a run what one of its steps waits for: a signal, or the answer to a question for approval (the step's name, with
/// `{"approved": true}` or `{"approved": false, "note": …}`). A signal that comes before its step is kept. Returns how the run stands.
///
/// Arguments: `run`; `signal`, its name; `data` (object), the step's result. Errors: 42501 for who may not say it, 42704 for an unknown run, 22023
/// for a signal that the workflow does not know (with near names), 55000 for a run, or a step, that has ended.
#[pg_extern(volatile, parallel_unsafe)]
fn signal_workflow(run: Option<Uuid>, signal: Option<String>, data: default!(Option<JsonB>, "'{}'")) -> Sql<String> {
    let signal = UsherError::given(signal, "the signal's name")?;
    Ok(steer::signal(run, &signal, data.unwrap_or_else(no_data))?)
}

/// Gives a run up: no further step begins, and the undos of those that are done run in reverse. With `undo => false` the run ends as it
/// stands. Returns how it stands.
///
/// Errors: 42501 unless the caller is an admin of the run's organization, 42704 for an unknown run, 55000 for one that has ended, is
/// past its pivot or is parked.
#[pg_extern(volatile, parallel_unsafe)]
fn cancel_workflow(
    run: Option<Uuid>,
    reason: default!(Option<String>, "NULL"),
    undo: default!(Option<bool>, "true"),
) -> Sql<String> {
    Ok(steer::cancel(run, reason, undo.unwrap_or(true))?)
}

/// Goes on with a run that is parked: with the step that failed (or `from_step` and all that come after it), or with the undo that failed. A
/// run that was undone begins anew. Either way with the workflow's present version. Returns how it stands.
///
/// Errors: 42501 unless the caller is an admin of the run's organization, 42704 for an unknown run, 22023 for an unknown step, 55000 for
/// a run that does not stand like that, or whose steps the present version no longer has.
#[pg_extern(volatile, parallel_unsafe)]
fn retry_workflow(run: Option<Uuid>, from_step: default!(Option<String>, "NULL")) -> Sql<String> {
    Ok(steer::retry(run, from_step)?)
}

/// What has happened to a run, the first first: what its steps did and how long they took, failures, undos, what people did.
///
/// Errors: 42704 for a run that is not there for the caller.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn workflow_timeline(
    run: Option<Uuid>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(at, TimestampWithTimeZone),
            name!(step, Option<String>),
            name!(item, Option<i32>),
            name!(what, String),
            name!(took, Option<pgrx::datum::Interval>),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let installed = setup::current()?;
    let run = run.ok_or_else(|| UsherError::missing("the run's id"))?;
    let organization = steer::organization_of(installed, run)?;
    Ok(TableIterator::new(timeline::lines(installed, organization, run)?))
}
