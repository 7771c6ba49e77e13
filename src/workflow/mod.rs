//! Workflows: flows of several steps, each with an undo.
//!
//! Owns `usher.workflow_runs`, `_steps`, `_waits`, `_signals`, `_checks` and `_log`. What a step does is done by jobs of the flows that
//! are its parts (`flow::steps`); this room says which job comes next. [`model`] decides, a pure machine; [`advance`] takes in what has
//! happened to many runs at once and stores what the machine says in the same transaction. The states are drawn in README.md. Called by
//! `worker`, which tells of every job of a step that has ended, and by clients.

mod advance;
mod api;
mod begin;
mod ends;
mod events;
mod model;
mod plan;
mod steer;
mod store;
mod timeline;

pub use ends::{done, settle};
pub use events::heard;
pub use steer::started;
pub use store::prune;
