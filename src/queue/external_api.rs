//! SQL functions for workers outside, and for results.

use super::external::{self, Handed};
use super::seconds;
use crate::error::UsherError;
use crate::guard::audit;
use crate::registry::identity;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use std::collections::BTreeSet;

fn given<T>(value: Option<T>, what: &str) -> crate::error::Result<T> {
    value.ok_or_else(|| UsherError::missing(what))
}

/// Takes up to `n` jobs of an external system for the time of `lease`, in the order of their lanes and positions: those of
/// organizations that the caller manages. What is neither answered nor extended within the lease can be taken again.
///
/// Arguments: `system`, of kind `external`; `n`, 1 to 1000; `lease`, up to a day.
/// Errors: 42501 for callers who manage no organization, 22023 for a bad argument or another kind of system, 42704 for an
/// unknown system, 55000 before `usher.setup()`. A database that holds back its outbound work hands out nothing, and says so.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn claim_jobs(
    system: Option<String>,
    n: default!(Option<i32>, 1),
    lease: default!(Option<Interval>, "'1 minute'"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(job, Uuid),
            name!(organization_id, Uuid),
            name!(flow, Option<String>),
            name!(source_system, Option<String>),
            name!(payload, JsonB),
            name!(priority, String),
            name!(attempt, i32),
            name!(lease, Uuid),
            name!(lease_until, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    let lease = lease.map_or(60.0, |lease| seconds(&lease));
    let jobs = external::claim(&given(system, "the system")?, n.unwrap_or(1), lease)?;
    if identity::is_legend_member()? {
        let organizations: BTreeSet<[u8; 16]> = jobs.iter().map(|job| *job.organization.as_bytes()).collect();
        for organization in organizations {
            audit::note_legend("claim_jobs", Uuid::from_bytes(organization))?;
        }
    }
    Ok(TableIterator::new(jobs.into_iter().map(|job: Handed| {
        let lane = super::LANES.get(usize::try_from(job.lane).unwrap_or(0)).copied().unwrap_or_default();
        (job.job, job.organization, None, job.source, job.payload, lane.to_owned(), job.attempt, job.lease, job.until)
    })))
}

/// A worker outside has done a job. `result`, if given, is kept for `usher.job_result()`. Repeated with the same lease, it
/// changes nothing. Returns the job.
///
/// Errors: 42501 for a job that the caller may not answer for, whether it exists or not; 55000 when the lease does not hold it
/// any more.
#[pg_extern(volatile, parallel_unsafe)]
fn finish_job(
    job: Option<Uuid>,
    lease: Option<Uuid>,
    result: default!(Option<JsonB>, "NULL"),
) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    Ok(external::finish(given(job, "the job's id")?, given(lease, "the lease")?, result)?)
}

/// A worker outside could not do a job: it can be taken again after 1, 2, 4 seconds (20 % jitter), or after `retry_after`;
/// after the fourth attempt, or when `permanent`, it is a dead letter with `error`. Returns the job.
///
/// Errors: as `finish_job`; 22023 for a missing error or a bad `retry_after`.
#[pg_extern(volatile, parallel_unsafe)]
fn fail_job(
    job: Option<Uuid>,
    lease: Option<Uuid>,
    error: Option<String>,
    retry_after: default!(Option<Interval>, "NULL"),
    permanent: default!(Option<bool>, false),
) -> Result<pgrx::composite_type!('static, "usher.sync_job"), ErrorReport> {
    let error = UsherError::given(error, "the error")?;
    let after = retry_after.as_ref().map(seconds);
    let done =
        external::fail(given(job, "the job's id")?, given(lease, "the lease")?, &error, after, permanent.unwrap_or(false))?;
    Ok(done)
}

/// Gives a worker outside more time; returns when the lease now ends, a day from now at most.
///
/// Errors: as `finish_job`; 22023 for a bad interval.
#[pg_extern(volatile, parallel_unsafe)]
fn extend_lease(
    job: Option<Uuid>,
    lease: Option<Uuid>,
    by: Option<Interval>,
) -> std::result::Result<TimestampWithTimeZone, ErrorReport> {
    let by = seconds(&given(by, "the time")?);
    Ok(external::extend(given(job, "the job's id")?, given(lease, "the lease")?, by)?)
}

/// What came back from a job: of a worker outside, or of a `call` with `"keep_result": true`. NULL when nothing was kept.
///
/// Errors: 42704 for a job that is not the caller's to read.
#[pg_extern(volatile, parallel_unsafe)]
fn job_result(job: Option<Uuid>) -> std::result::Result<Option<JsonB>, ErrorReport> {
    Ok(external::result(given(job, "the job's id")?)?)
}
