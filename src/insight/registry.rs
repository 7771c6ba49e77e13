//! `usher.registry_pairs()`, behind the view `usher.registry`: how each pair of systems is doing.

use super::may_look;
use crate::pg::{guc, role};
use crate::queue::depth;
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// A row for each pair of systems between which there are flows, links or unfinished jobs. Members see the numbers of their organizations,
/// operators and readers those of all. `lag`: seconds since the oldest job that could have been done by now was made.
/// `rules`: those that are on and read both tables of one of the flows; `open_violations`: of these.
/// `consistency`: 100 × (1 − (rows known to disagree + open violations) ÷ rows linked), not below 0, where rows are linked.
///
/// Reads unfinished jobs, dead letters, links, open conflicts and violations, and of finished jobs only the newest: for people and for a monitor that asks
/// once a minute. Errors: 55000 before `usher.setup()`.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn registry_pairs() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(from_system, Option<String>),
            name!(to_system, Option<String>),
            name!(flows, i64),
            name!(enabled, i64),
            name!(broken, i64),
            name!(pending, i64),
            name!(lag, Option<f64>),
            name!(dead_letters, i64),
            name!(last_synced_at, Option<TimestampWithTimeZone>),
            name!(linked, i64),
            name!(open_conflicts, i64),
            name!(rules, i64),
            name!(open_violations, i64),
            name!(consistency, Option<f64>),
        ),
    >,
    ErrorReport,
> {
    let installed = setup::current()?;
    let all = may_look();
    let organizations = identity::organizations(Right::Read)?;
    let _path = guc::Nest::pinned_path();
    let _acting = role::internal(installed.owner);
    let rows = depth::pairs(organizations, all)?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        (
            row.from,
            row.to,
            row.flows,
            row.enabled,
            row.broken,
            row.pending,
            row.lag,
            row.dead,
            row.last_synced_at,
            row.linked,
            row.conflicts,
            row.rules,
            row.violations,
            row.consistency,
        )
    })))
}
