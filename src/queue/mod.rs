//! The queue: jobs from their making to their end.
//!
//! Owns `usher.jobs` (the log: ready jobs and those that went through at once), `usher.job_batches` and `usher.job_floors`
//! (what of it is done), `usher.queue_waiting`, `usher.dead_letters`, `usher.job_history`, `usher.job_keys` and the view
//! `usher.sync_jobs`; `usher.job_options`, `usher.job_expiries`, `usher.job_dependencies`, `usher.job_checks` of what callers
//! asked for, and `usher.batch_definitions` and `usher.batch_tallies` under the view `usher.batches`; [`limits`] owns `usher.limit_marks`; [`schedules`] owns
//! `usher.flow_schedules` and `usher.schedule_runs`, [`work`] `usher.work_items`, [`pauses`] `usher.pause_orders`. `capture` puts changes into it by its own
//! statement; `worker` claims through [`store`] and gives back through [`take_back`], its callers through [`calls`], workers outside through [`external`]. README.md
//! draws the states and the windows. Nobody else writes these tables.

mod api;
pub mod aside;
mod asked;
pub mod batches;
mod call_limits;
pub mod calls;
mod coalesce;
pub mod depth;
pub mod external;
mod external_api;
mod external_limits;
mod filter;
pub mod followers;
pub mod gather;
pub mod group;
mod keys;
pub mod ledger;
mod life;
mod life_api;
pub mod limit_states;
pub mod limits;
mod limits_api;
pub mod log;
mod options;
mod pause;
pub mod pauses;
mod pauses_api;
pub mod pressure;
mod pressure_api;
pub mod request;
pub mod schedules;
pub mod settle;
pub mod shadow;
pub mod share;
mod steer;
pub mod store;
pub mod take_back;
pub mod work;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;

pub use crate::flow::definition::LANES;

/// A number in 0..1 for jitter.
pub fn chance() -> f64 {
    let bytes = *crate::pg::ids::uuid_v7().as_bytes();
    f64::from(u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])) / f64::from(u32::MAX)
}

/// An interval's length; a month has 30 days.
pub fn seconds(interval: &pgrx::datum::Interval) -> f64 {
    f64::from(interval.months()) * 30.0 * 86_400.0 + f64::from(interval.days()) * 86_400.0 + interval.micros() as f64 / 1e6
}

/// Forgets keys and options whose jobs have been forgotten. Runs with the owner's rights.
pub fn forget(keep_days: i32) -> crate::error::Result<()> {
    keys::forget(keep_days)?;
    pressure::forget()?;
    store::forget_options(keep_days)
}
