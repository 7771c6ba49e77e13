//! Capture: noticing changes of the tables that flows listen to.
//!
//! Owns the triggers named `usher_*` (and those that flows name) on the application's tables, no table of its own. The
//! flows table drives it: a row trigger on `usher.flows` brings the triggers of the source tables in line, so that
//! whoever changes or deletes a flow changes what is captured.
//!
//! * [`attach`] creates and drops the triggers.
//! * [`nesting`] numbers statements, because the triggers of an inner statement fire before those of the outer one.
//! * [`statement`] writes the one INSERT that turns a statement's rows into jobs.
//! * [`backfill`] reads the rows that were there before.
//! * [`trigger`] is what PostgreSQL calls; [`transactional`] applies flows in the writer's own transaction.

mod api;
pub mod attach;
pub mod backfill;
mod ddl;
pub mod differences;
mod nesting;
mod statement;
mod transactional;
mod trigger;

pub use ddl::look_over;
