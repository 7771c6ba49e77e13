//! SQL functions for long work.

use super::work;
use crate::error::UsherError;
use crate::queue::work::Wish;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Sql<T> = std::result::Result<T, ErrorReport>;

/// Makes a flow act on the rows that are in its table already, as if they were inserted now, in slices by primary key.
/// Returns the id under which `usher.progress` shows it.
///
/// Arguments: `flow`; `where`, an SQL expression over `new` that chooses rows; `slice`, how many rows are looked at in one
/// transaction, 1 to 10000.
/// Errors: 42501 for callers who are no operators or may not become the flow's role, 42704 when there is no such flow, 55000
/// when its table cannot be gone through or a backfill of it is on its way, 42601 and others for a condition that is none.
#[pg_extern(sql = r#"
-- Spelt out, because "where" is no name that Rust would take.
CREATE FUNCTION usher."backfill"("flow" TEXT, "where" TEXT DEFAULT NULL, "slice" INT DEFAULT 1000) RETURNS uuid
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backfill(flow: Option<String>, condition: Option<String>, slice: Option<i32>) -> Sql<Uuid> {
    let flow = UsherError::given(flow, "the flow's name")?;
    let condition = condition.filter(|text| !text.trim().is_empty());
    Ok(work::backfill(&flow, condition, slice.unwrap_or(1000))?)
}

/// Runs the jobs of a flow that were finished from `from` on and before `to` again, in slices and in their order, as new jobs
/// of the flow's present version; the old job is the cause of the new one. Returns the id under which `usher.progress` shows it.
///
/// Arguments: `flow`, `from`, `to` (now, at the latest). Errors: 42501 for callers who are no operators, 42704 when there is no
/// such flow, 22023 for a time that is empty, 55000 when a replay of it is on its way.
#[pg_extern(volatile, parallel_unsafe)]
fn replay(
    flow: Option<String>,
    from: Option<TimestampWithTimeZone>,
    to: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Sql<Uuid> {
    Ok(work::replay(&UsherError::given(flow, "the flow's name")?, from, to)?)
}

/// Has a flow that listens to events hear those that were emitted from `from` on and before `to`, in slices and for each organization in their order,
/// whether it has heard them before or not: also those from before it was made or while it was off. Returns the id under which `usher.progress`
/// shows it.
///
/// Arguments: `flow`, `from`, `to` (now, at the latest), `types`, a pattern that chooses among the types that the flow listens to. Errors: 42501 for
/// callers who are no operators, 42704 when there is no such flow, 22023 for a time that is empty or a flow that does not listen, 42P17 for a bad
/// pattern, 55000 when a replay of events for it is on its way.
#[pg_extern(volatile, parallel_unsafe)]
fn replay_events(
    flow: Option<String>,
    from: Option<TimestampWithTimeZone>,
    to: default!(Option<TimestampWithTimeZone>, "NULL"),
    types: default!(Option<String>, "NULL"),
) -> Sql<Uuid> {
    Ok(work::replay_events(&UsherError::given(flow, "the flow's name")?, from, to, types)?)
}

/// Holds a backfill or replay where it is. Errors: 42501, 42704, 55000 when it does not run.
#[pg_extern(volatile, parallel_unsafe)]
fn pause_work(id: Option<Uuid>) -> Sql<String> {
    Ok(work::steer(id, Wish::Pause)?)
}

/// Lets a paused or failed backfill or replay go on where it was. Errors: 42501, 42704, 55000 when it runs or has ended.
#[pg_extern(volatile, parallel_unsafe)]
fn resume_work(id: Option<Uuid>) -> Sql<String> {
    Ok(work::steer(id, Wish::Resume)?)
}

/// Ends a backfill or replay; jobs that it has made stay. Errors: 42501, 42704, 55000 when it has ended.
#[pg_extern(volatile, parallel_unsafe)]
fn cancel_work(id: Option<Uuid>) -> Sql<String> {
    Ok(work::steer(id, Wish::Cancel)?)
}
