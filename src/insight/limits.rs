//! `usher.limit_states()`, behind the view `usher.limits`: what is limited, by what, and who waits.

use super::may_look;
use crate::pg::role;
use crate::queue::limit_states::{self, State};
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Every limit that counts something now or holds something back: `available` is how many could pass at this moment, `in_flight`
/// how many of a limit on concurrency are under way, `waiting` how many it holds back, `next_at` when the next of them passes.
/// Members see those of their organizations, operators and readers all. Counts the jobs that wait: for people, not for every
/// second.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn limit_states() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(per, String),
            name!(flow, Option<String>),
            name!(system, Option<String>),
            name!(organization, Option<String>),
            name!(key, Option<String>),
            name!(allowed, String),
            name!(available, i64),
            name!(in_flight, Option<i64>),
            name!(waiting, i64),
            name!(next_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let installed = setup::current()?;
    let all = may_look();
    let organizations = identity::organizations(Right::Read)?;
    let _acting = role::internal(installed.owner);
    let states = limit_states::all(installed, organizations, all)?;
    Ok(TableIterator::new(states.into_iter().map(|state: State| {
        (
            state.per.to_owned(),
            state.flow,
            state.system,
            state.organization,
            state.key,
            state.allowed,
            state.available,
            state.in_flight,
            state.waiting,
            state.next_at,
        )
    })))
}
