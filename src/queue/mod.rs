//! The queue: jobs from their making to their end.
//!
//! Owns `usher.queue` (ready), `usher.queue_waiting`, `usher.dead_letters`, `usher.job_history`, `usher.job_keys` and the
//! view `usher.sync_jobs`; `usher.job_options`, `usher.job_expiries`, `usher.job_dependencies`, `usher.job_checks` of what
//! callers asked for, and `usher.batch_definitions` and `usher.batch_tallies` under the view `usher.batches`. `capture` puts changes into it by its own statement; `worker` claims through [`store`].
//! Nobody else writes these tables.

mod api;
mod asked;
pub mod batches;
mod coalesce;
mod filter;
mod keys;
mod life;
mod life_api;
mod options;
mod request;
pub mod settle;
pub mod shadow;
mod steer;
pub mod store;

pub use crate::flow::definition::LANES;

/// Forgets keys and options whose jobs have been forgotten. Runs with the owner's rights.
pub fn forget(keep_days: i32) -> crate::error::Result<()> {
    keys::forget(keep_days)?;
    store::forget_options(keep_days)
}
