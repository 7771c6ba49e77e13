//! SQL functions of migrations.

use super::manage::{self, Wish};
use super::{model, show};
use crate::error::UsherError;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Sql<T> = std::result::Result<T, ErrorReport>;

/// Compares all rows of both tables of a merge and writes a plan of what it would do about each: nothing of the application is written.
/// Returns the plan's id, for `usher.show_plan` and `usher.apply_migration`.
///
/// Arguments: `flow`; `organization`, by slug or id; NULL: all, for operators.
/// Errors: 42501 unless the caller is an admin of the organization or an operator, 42704 when there is no such flow, 22023 when it is no
/// merge, 55000 when it is broken or switched off for the organization.
#[pg_extern(volatile, parallel_unsafe)]
fn reconcile(flow: Option<String>, organization: default!(Option<String>, "NULL")) -> Sql<Uuid> {
    let flow = UsherError::given(flow, "the flow's name")?;
    Ok(manage::reconcile(&flow, organization.as_deref())?)
}

/// What is in a plan, a line for each kind of item and what is done about it, and how far that is.
///
/// Arguments: `migration`, its id; `samples`, how many items each line shows, 0 to 100.
/// Errors: 42501 unless the caller is an admin of the plan's organization or an operator, 42704 when there is no such plan.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn show_plan(
    migration: Option<Uuid>,
    samples: default!(Option<i32>, 3),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(kind, String),
            name!(action, String),
            name!(items, i64),
            name!(done, i64),
            name!(failed, i64),
            name!(says, String),
            name!(samples, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let lines = show::plan(migration, samples.unwrap_or(3))?;
    Ok(TableIterator::new(
        lines.into_iter().map(|line| (line.kind, line.action, line.items, line.done, line.failed, line.says, line.samples)),
    ))
}

/// Has a plan applied by its merge, in slices; `usher.migrations` shows how far it is. Rows are merged as they are then, whatever the plan
/// says of them. Called again when it has ended, it does what has failed or was not chosen before.
///
/// Arguments: `migration`, its id; `kinds` and `actions`, which items, NULL: all; `slice`, how many items are done in one transaction, 1 to
/// 10000.
/// Errors: 42501 unless the caller is an admin of the plan's organization or an operator, 42704 when there is no such plan, 22023 for unknown
/// kinds and actions, 55000 when it is running, cancelled or applied already, or its flow is off, broken or another version.
#[pg_extern(volatile, parallel_unsafe)]
fn apply_migration(
    migration: Option<Uuid>,
    kinds: default!(Option<Vec<Option<String>>>, "NULL"),
    actions: default!(Option<Vec<Option<String>>>, "NULL"),
    slice: default!(Option<i32>, 1000),
) -> Sql<String> {
    let kinds = model::known(kinds, &model::KINDS, "kinds")?;
    let actions = model::known(actions, &model::ACTIONS, "actions")?;
    Ok(manage::apply(migration, kinds, actions, slice.unwrap_or(1000))?)
}

/// Holds a migration where it is. Errors: 42501, 42704, 55000 when it does not run.
#[pg_extern(volatile, parallel_unsafe)]
fn pause_migration(migration: Option<Uuid>) -> Sql<String> {
    Ok(manage::steer(migration, Wish::Pause)?)
}

/// Lets a paused or failed migration go on where it was. Errors: 42501, 42704, 55000 when it runs or has ended, or its flow has changed.
#[pg_extern(volatile, parallel_unsafe)]
fn resume_migration(migration: Option<Uuid>) -> Sql<String> {
    Ok(manage::steer(migration, Wish::Resume)?)
}

/// Ends a migration or a plan that nobody wants; what it has done stays. Errors: 42501, 42704, 55000 when it has ended.
#[pg_extern(volatile, parallel_unsafe)]
fn cancel_migration(migration: Option<Uuid>) -> Sql<String> {
    Ok(manage::steer(migration, Wish::Cancel)?)
}
