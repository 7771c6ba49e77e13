//! SQL functions for jobs: what clients call over a connection or PostgREST.

use super::life;
use super::options::Options;
use super::request;
use crate::error::{self, UsherError};
use crate::guard::audit;
use crate::pg::argument::JsonbArray;
use crate::pg::{locks, shmem, xact};
use crate::rates;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use std::time::Duration;

type Sql<T> = std::result::Result<T, ErrorReport>;

/// Asks for a job and returns it. The flow whose `"when": {"request": …}` names `payload.action`, from `source_system`
/// to `target_system`, takes it; a target of kind `external` takes any.
///
/// Arguments: `organization` (slug or id), `source_system`, `target_system`, `payload` (object), `priority`
/// (emergency, critical, high, normal, low; normal leaves the flow's own), `run_at` (not before), `unique_key` (a second
/// call with the same key returns the first job), `options` (object: `retry`, `expires_in` or `expires_at`, `unique`,
/// `after` and `on_failure`, `batch`; see docs/jobs.md).
/// Errors: 42501 unless the caller is an admin of the organization, 22023 for input that no flow takes.
#[allow(clippy::too_many_arguments, reason = "the arguments of the RPC, each with its name")]
#[pg_extern(volatile, parallel_unsafe, name = "enqueue_sync_job")]
fn enqueue_sync_job_with_options(
    organization: Option<String>,
    source_system: Option<String>,
    target_system: Option<String>,
    payload: default!(Option<JsonB>, "'{}'"),
    priority: default!(Option<String>, "'normal'"),
    run_at: default!(Option<TimestampWithTimeZone>, "NULL"),
    unique_key: default!(Option<String>, "NULL"),
    options: default!(Option<JsonB>, "NULL"),
) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    let asked = request::check(organization, source_system, target_system, priority)?;
    audit::note_legend("enqueue_sync_job", asked.organization)?;
    rates::take("enqueue_sync_job", Some(asked.organization))?;
    let payload = payload.unwrap_or_else(|| JsonB(serde_json::json!({})));
    let options = options.map(|options| Options::parse(&options.0)).transpose()?;
    Ok(request::one(&asked, payload, run_at, unique_key, options.as_ref())?)
}

/// Asks for many jobs in one call, all or none: at most 100,000 payloads. Returns their ids in the order of the payloads.
/// `priority`, `run_at` and `options` are as for `enqueue_sync_job` and count for each of them; none takes `unique`.
/// Errors: as `enqueue_sync_job`, naming the payload by its number; 54000 for too many.
#[pg_extern(volatile, parallel_unsafe, name = "enqueue_sync_jobs")]
fn enqueue_sync_jobs_with_options(
    organization: Option<String>,
    source_system: Option<String>,
    target_system: Option<String>,
    payloads: Option<JsonbArray>,
    priority: default!(Option<String>, "'normal'"),
    run_at: default!(Option<TimestampWithTimeZone>, "NULL"),
    options: default!(Option<JsonB>, "NULL"),
) -> Sql<Vec<Uuid>> {
    let asked = request::check(organization, source_system, target_system, priority)?;
    audit::note_legend("enqueue_sync_jobs", asked.organization)?;
    rates::take("enqueue_sync_jobs", Some(asked.organization))?;
    let options = options.map(|options| Options::parse(&options.0)).transpose()?;
    let payloads =
        payloads.ok_or_else(|| UsherError::invalid("the payloads are missing").hint("Give an array of JSON objects."))?;
    Ok(request::many(&asked, payloads.raw(), run_at, options.as_ref())?)
}

/// What the SQL function of version 0.1 calls, between installing this library and ALTER EXTENSION.
#[pg_extern(sql = false)]
fn enqueue_sync_job(
    organization: Option<String>,
    source_system: Option<String>,
    target_system: Option<String>,
    payload: Option<JsonB>,
    priority: Option<String>,
    run_at: Option<TimestampWithTimeZone>,
    unique_key: Option<String>,
) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    enqueue_sync_job_with_options(organization, source_system, target_system, payload, priority, run_at, unique_key, None)
}

/// The same of `enqueue_sync_jobs`.
#[pg_extern(sql = false)]
fn enqueue_sync_jobs(
    organization: Option<String>,
    source_system: Option<String>,
    target_system: Option<String>,
    payloads: Option<JsonbArray>,
) -> Sql<Vec<Uuid>> {
    enqueue_sync_jobs_with_options(organization, source_system, target_system, payloads, None, None, None)
}

/// Cancels a job that has not run. Errors: 42501, 42704 for a job that is not the caller's, 55000 when it has ended.
#[pg_extern(volatile, parallel_unsafe)]
fn cancel_sync_job(job: Option<Uuid>) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    rates::take("cancel_sync_job", None)?;
    let row = life::cancel(job)?;
    life::note_legend("cancel_sync_job", &row)?;
    Ok(row)
}

/// Runs a dead, failed or cancelled job again. `changes` are merged over the row image or payload that it carries.
/// Errors: 42501, 42704, 55000 when there is nothing to retry, 22023 for changes that are no object.
#[pg_extern(volatile, parallel_unsafe)]
fn retry_sync_job(
    job: Option<Uuid>,
    changes: default!(Option<JsonB>, "NULL"),
) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    rates::take("retry_sync_job", None)?;
    let row = life::retry(job, changes)?;
    life::note_legend("retry_sync_job", &row)?;
    Ok(row)
}

/// Waits until a job has ended (synced, dead or cancelled) or `timeout` is over; returns it as it then stands.
/// Errors: 42704 for a job that is not the caller's, 55000 when it cannot end while the caller waits.
#[pg_extern(volatile, parallel_unsafe)]
fn wait_for(
    job: Option<Uuid>,
    timeout: default!(Option<Interval>, "'10 s'"),
) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    rates::take("wait_for", None)?;
    let timeout = timeout.map(seconds).transpose()?.unwrap_or(Duration::from_secs(10));
    Ok(life::wait(job, timeout)?)
}

fn seconds(interval: Interval) -> error::Result<Duration> {
    let micros = i128::from(interval.months()) * 30 * 86_400_000_000
        + i128::from(interval.days()) * 86_400_000_000
        + i128::from(interval.micros());
    u64::try_from(micros)
        .map(Duration::from_micros)
        .map_err(|_| UsherError::invalid("the timeout is negative").hint("Give an interval such as '10 s'."))
}

/// The next position for a job of a lane; for the extension's own statements.
#[pg_extern(volatile, parallel_unsafe)]
fn take_seq(lane: i16) -> Sql<i64> {
    Ok(xact::take_seq(usize::try_from(lane).unwrap_or(0))?)
}

/// The workers look at waiting jobs again once this transaction has committed; for the extension's own statements.
#[pg_extern(volatile, parallel_unsafe)]
fn wake_waiting() {
    xact::note_due_changed();
}

/// Takes a share in the ending of jobs until the end of the transaction, or (`alone`) keeps all others out of it; false when
/// that is not possible at once. For the extension's own statements.
#[pg_extern(volatile, parallel_unsafe)]
fn try_settling(alone: bool) -> bool {
    locks::try_settling(alone)
}

/// True while a worker has the job in an unfinished batch.
#[pg_extern(volatile, parallel_restricted)]
fn job_in_progress(waiting: bool, lane: i16, seq: i64) -> bool {
    let source = if waiting { shmem::Source::Waiting } else { shmem::Source::Queue };
    shmem::in_progress(source, i32::from(lane), seq)
}

/// The name of a lane.
#[pg_extern(immutable, parallel_safe)]
fn lane_name(lane: i16) -> Option<&'static str> {
    super::LANES.get(usize::try_from(lane).ok()?).copied()
}
