//! SQL functions of the worker.

use super::{batch, gather};
use crate::error::{Result, UsherError};
use crate::pg::role;
use crate::pg::shmem::LANES;
use crate::pg::xact;
use crate::queue::{followers, limits, pressure, settle};
use crate::registry::identity;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Runs ready and due jobs in the caller's transaction, one batch, and returns how many it handled: for servers without
/// the preloaded library, and for tests. Lanes that a worker has at the moment are left to it.
///
/// Arguments: `max` jobs, 1 to 100000. Errors: 42501 for callers who are no operators, 22023 for a bad `max`.
#[pg_extern(volatile, parallel_unsafe)]
fn process_jobs(max: default!(Option<i32>, 1000)) -> std::result::Result<i32, ErrorReport> {
    Ok(process(max.unwrap_or(1000))?)
}

/// Keeps the workers away from a lane until the end of the caller's transaction: for maintenance and tests.
///
/// Arguments: `lane`, by name. Errors: 42501 for callers who are no operators, 22023 for an unknown lane.
#[pg_extern(volatile, parallel_unsafe)]
fn hold_lane(lane: Option<String>) -> std::result::Result<(), ErrorReport> {
    identity::require_operator("hold lanes")?;
    let named = lane.unwrap_or_default();
    let lane = crate::queue::LANES.iter().position(|known| *known == named).ok_or_else(|| {
        UsherError::invalid(format!("lane \"{named}\" is unknown"))
            .hint(format!("Use one of: {}.", crate::queue::LANES.join(", ")))
    })?;
    if !xact::in_block() {
        warning!("usher.hold_lane() holds until the end of the transaction, which is this statement: BEGIN one first");
    }
    crate::pg::locks::hold_lane(lane as i16);
    Ok(())
}

fn process(most: i32) -> Result<i32> {
    let installed = identity::require_operator("process jobs")?;
    if !(1..=100_000).contains(&most) {
        return Err(UsherError::invalid(format!("max is {most}")).hint("Give a number from 1 to 100000."));
    }
    if !installed.home {
        return Err(UsherError::state("this database is a copy: its jobs were made elsewhere and wait").hint(
            "SELECT usher.resume('moved'); if it takes the original's place, usher.resume('copy') if the original lives on.",
        ));
    }
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see which jobs a worker has done meanwhile")
            .hint("Call usher.process_jobs() in READ COMMITTED."));
    }
    // Items of a migration count as jobs: whoever calls until nothing was done does all of it.
    let items = super::work::without_workers(installed)?.jobs;
    super::pausing::without_workers(installed, most)?;
    super::overlaps::without_workers(installed)?;
    super::checks::without_workers(installed)?;
    {
        let _acting = role::internal(installed.owner);
        settle::settle(installed, true)?;
        super::workflow::settle(installed)?;
        super::broadcast::look(installed)?;
        // What a worker does once a minute: nobody else does where there is none.
        pressure::look_for_held(&(0..LANES as i16).collect::<Vec<_>>())?;
        limits::heal(installed)?;
        followers::release_followers(&*crate::flow::store::classes()?)?;
    }
    crate::setup::current()?;
    let mut jobs = 0;
    for lane in 0..LANES {
        batch::let_go_once(installed, lane, most - jobs)?;
        jobs += batch::due(installed, &[lane as i16], most - jobs, None)?.jobs;
        if jobs < most {
            jobs += batch::ready_once(installed, lane, most - jobs)?.jobs;
        }
        if jobs < most {
            jobs += gather::without_workers(installed, lane as i16, most - jobs)?;
        }
        if jobs >= most {
            break;
        }
    }
    super::maintenance::in_session(installed, |lane| crate::pg::locks::try_lane(lane, false))?;
    Ok(jobs + items)
}
