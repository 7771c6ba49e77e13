//! The queue: jobs from their making to their end.
//!
//! Owns `usher.queue` (ready), `usher.queue_waiting`, `usher.dead_letters`, `usher.job_history`, `usher.job_keys` and the
//! view `usher.sync_jobs`. `capture` puts changes into it by its own statement; `worker` claims through [`store`].
//! Nobody else writes these tables.

mod api;
pub mod depth;
mod life;
mod request;
pub mod shadow;
pub mod store;

pub use crate::flow::definition::LANES;
