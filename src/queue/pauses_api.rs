//! SQL functions to pause jobs and to let them go on.

use super::pause;
use crate::guard::audit;
use crate::registry::identity::{self, Right};
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
    if let Some(named) = &organization {
        audit::note_legend("pause_jobs", identity::organization(named, Right::Manage)?)?;
    }
    Ok(pause::pause(flow, system, organization, until, reason)?)
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
    if let Some(named) = &organization {
        audit::note_legend("resume_jobs", identity::organization(named, Right::Manage)?)?;
    }
    Ok(pause::resume(flow, system, organization)?)
}

/// How many jobs wait for a pause, counted up to 10,000; NULL for callers who may not see them all. For the view `usher.pauses`.
#[pg_extern(volatile, parallel_unsafe)]
fn paused_jobs(pause: i32) -> std::result::Result<Option<i64>, ErrorReport> {
    Ok(pause::waiting(pause)?)
}
