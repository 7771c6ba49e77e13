//! SQL functions to pause jobs and to let them go on.

use super::pause;
use crate::guard::audit;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Pauses jobs: of a flow, of a system (those whose target it is), of an organization, or of a flow or system for one
/// organization. They are made as before and wait; those in hand are finished. What is paused already gets the new `until` and
/// `reason`.
///
/// Arguments: `flow` or `system`, `organization` (slug or id), `until` (it ends by itself), `reason` (for people).
/// Errors: 42501 unless the caller is an admin of the organization or, without one, an operator; 42704 for an unknown flow or
/// system, 22023 when nothing is named, for both flow and system, or for a time that is over.
#[pg_extern(volatile, parallel_unsafe)]
fn pause_jobs(
    flow: default!(Option<String>, "NULL"),
    system: default!(Option<String>, "NULL"),
    organization: default!(Option<String>, "NULL"),
    until: default!(Option<TimestampWithTimeZone>, "NULL"),
    reason: default!(Option<String>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    let of_one = organization.is_some();
    let done = pause::pause(flow, system, organization, until, reason)?;
    if of_one {
        audit::note_legend("pause_jobs")?;
    }
    Ok(done)
}

/// Ends a pause: its jobs go on in their order, slice by slice. Named as when it was paused.
///
/// Errors: as `pause_jobs`; 55000 when just this is not paused.
#[pg_extern(volatile, parallel_unsafe)]
fn resume_jobs(
    flow: default!(Option<String>, "NULL"),
    system: default!(Option<String>, "NULL"),
    organization: default!(Option<String>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    let of_one = organization.is_some();
    let done = pause::resume(flow, system, organization)?;
    if of_one {
        audit::note_legend("resume_jobs")?;
    }
    Ok(done)
}

/// How many jobs wait for a pause, counted up to 10,000; NULL for callers who may not see them all. For the view `usher.pauses`.
#[pg_extern(volatile, parallel_unsafe)]
fn paused_jobs(pause: i32) -> std::result::Result<Option<i64>, ErrorReport> {
    Ok(pause::waiting(pause)?)
}
