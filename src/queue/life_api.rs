//! SQL functions for batches, and for many jobs at once.

use super::{batches, life, steer};
use crate::error::UsherError;
use crate::guard::audit;
use crate::rates;
use crate::registry::identity::{self, Right};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

type Sql<T> = std::result::Result<T, ErrorReport>;

/// Makes a batch that jobs join by the option `batch`. Returns its id.
///
/// Arguments: `organization` (slug or id), `name`, `completion` (object with `source`, `target`, `payload`, `priority`: the
/// job that is made when the batch is sealed and all its jobs have ended; the counts are under `batch` of its payload).
/// Errors: 42501 unless the caller is an admin of the organization, 22023 for a completion that no flow takes.
#[pg_extern(volatile, parallel_unsafe)]
fn create_batch(organization: Option<String>, name: Option<String>, completion: default!(Option<JsonB>, "NULL")) -> Sql<Uuid> {
    let organization = UsherError::given(organization, "the organization")?;
    let name = UsherError::given(name, "the name of the batch")?;
    rates::take_named("create_batch", &organization)?;
    audit::note_legend("create_batch", identity::organization(&organization, Right::Manage)?)?;
    Ok(batches::create(&organization, &name, completion.as_ref())?)
}

/// Says that no more jobs join a batch: it is finished when those that did have ended, an empty one at once. True when this
/// call has sealed it, false when it was sealed already. Errors: 42501, 42704 for a batch that is not the caller's.
#[pg_extern(volatile, parallel_unsafe)]
fn seal_batch(batch: Option<Uuid>) -> Sql<bool> {
    let batch = batch.ok_or_else(|| UsherError::missing("the batch"))?;
    rates::take("seal_batch", None)?;
    Ok(batches::seal(batch)?)
}

/// Puts a job that has not run into another lane (emergency, critical, high, normal, low) and returns it. Earlier changes of
/// its row come along, later ones wait for it. Errors: 42501, 42704 for a job that is not the caller's, 55000 when it has ended.
#[pg_extern(volatile, parallel_unsafe)]
fn reprioritise(
    job: Option<Uuid>,
    priority: Option<String>,
) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    let job = job.ok_or_else(|| UsherError::missing("the job's id"))?;
    let priority = UsherError::given(priority, "the priority")?;
    rates::take("reprioritise", None)?;
    let done = steer::reprioritise(job, &priority)?;
    life::note_legend("reprioritise", &done)?;
    Ok(done)
}

/// Cancels the jobs of an organization that a filter means. Returns how many.
///
/// Arguments: `organization`; `filter`: any of `jobs`, `flow`, `source`, `target`, `priority`, `status` (pending, failed or
/// dead; without it pending and failed), `error` (LIKE), `payload` (contains), `created_after`, `created_before`; all must hold.
/// Errors: 42501, 22023 for a filter that is not understood.
#[pg_extern(volatile, parallel_unsafe)]
fn cancel_sync_jobs(organization: Option<String>, filter: Option<JsonB>) -> Sql<i64> {
    let organization = UsherError::given(organization, "the organization")?;
    rates::take_named("cancel_sync_jobs", &organization)?;
    audit::note_legend("cancel_sync_jobs", identity::organization(&organization, Right::Manage)?)?;
    Ok(steer::cancel(&organization, filter)?)
}

/// Runs the dead letters of an organization again that a filter means, oldest first. Returns how many.
///
/// Arguments: `organization`; `filter`: as for `cancel_sync_jobs`, with `sqlstate`, `died_after` and `died_before`, without
/// `status`; `changes` (object, merged over what each job carries); `limit`, 1 to 100000.
/// Errors: 42501, 22023 for a filter or changes that are not understood.
#[pg_extern(volatile, parallel_unsafe)]
fn retry_dead_letters(
    organization: Option<String>,
    filter: Option<JsonB>,
    changes: default!(Option<JsonB>, "NULL"),
    limit: default!(Option<i32>, 1000),
) -> Sql<i64> {
    let organization = UsherError::given(organization, "the organization")?;
    rates::take_named("retry_dead_letters", &organization)?;
    audit::note_legend("retry_dead_letters", identity::organization(&organization, Right::Manage)?)?;
    Ok(steer::retry_dead(&organization, filter, changes, limit.unwrap_or(1000))?)
}
