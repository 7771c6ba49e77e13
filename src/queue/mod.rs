//! The queue: jobs from their making to their end.
//!
//! Owns `usher.jobs` (the log: ready jobs and those that went through at once), `usher.job_batches` and `usher.job_floors`
//! (what of it is done), `usher.queue_waiting`, `usher.dead_letters`, `usher.job_history`, `usher.job_keys` and the view
//! `usher.sync_jobs`. `capture` puts changes into it by its own statement; `worker` claims through [`store`].
//! README.md draws the states and the windows. Nobody else writes these tables.

mod api;
pub mod ledger;
mod life;
pub mod log;
mod request;
pub mod shadow;
pub mod share;
pub mod store;

pub use crate::flow::definition::LANES;
