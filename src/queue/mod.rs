//! The queue: jobs from their making to their end.
//!
//! Owns `usher.queue` (ready), `usher.queue_waiting`, `usher.dead_letters`, `usher.job_history`, `usher.job_keys` and the
//! view `usher.sync_jobs`. `capture` puts changes into it by its own statement; `worker` claims through [`store`].
//! Nobody else writes these tables. [`schedules`] owns `usher.flow_schedules` and `usher.schedule_runs`, [`work`] `usher.work_items`.

mod api;
mod life;
mod request;
pub mod schedules;
pub mod shadow;
pub mod store;
pub mod work;

pub use crate::flow::definition::LANES;
