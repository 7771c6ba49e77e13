//! `usher.queue_depths()`, behind the view `usher.queue`: how much work there is, and for whom.

use super::may_look;
use crate::pg::role;
use crate::queue::depth;
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::JsonB;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The jobs that are not done, by lane, flow and organization, and how many were done a minute over the last five:
/// `ready` (of them `in_flight` in a worker's hand), the age of the oldest, `waiting` with the reasons, `dead`. Members see
/// their organizations, operators and readers all. Counts the tables of jobs: for people, not for every second.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn queue_depths() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(lane, String),
            name!(flow, Option<String>),
            name!(organization, Option<String>),
            name!(ready, i64),
            name!(in_flight, i64),
            name!(oldest, Option<Interval>),
            name!(waiting, i64),
            name!(waiting_for, Option<JsonB>),
            name!(dead, i64),
            name!(rate_per_minute, f64),
        ),
    >,
    ErrorReport,
> {
    let installed = setup::current()?;
    let all = may_look();
    let organizations = identity::organizations(Right::Read)?;
    let _acting = role::internal(installed.owner);
    let rows = depth::depths(organizations, all)?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        (
            row.lane,
            row.flow,
            row.organization,
            row.ready,
            row.in_flight,
            row.oldest,
            row.waiting,
            row.waiting_for,
            row.dead,
            row.rate,
        )
    })))
}
