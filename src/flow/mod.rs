//! Flows: what a definition says, how it becomes a statement, and running that statement over a batch.
//!
//! Owns `usher.flows` and `usher.flow_versions`. Called by `queue`, `event`, `capture`, `worker` and `pack`; calls `registry` and
//! `setup`. A flow decides *what to do*; who runs it and when is decided above.
//!
//! definition (pure, from JSON) → [`compile`] (SQL, checked against the catalog) → [`apply`] (a batch, in a subtransaction).

mod api;
pub mod apply;
mod call;
mod call_statement;
pub mod catalog;
pub mod cause;
pub mod check;
mod circle;
mod circle_check;
mod coalesce;
mod collect;
pub mod compile;
mod conjuncts;
pub mod definition;
mod difference;
pub mod drift;
pub mod emit;
pub mod emit_statement;
pub mod event_type;
mod expressions;
pub mod family;
pub mod feeds;
pub mod fields;
mod gather;
pub mod limit_keys;
pub mod limits;
pub mod manage;
pub mod merge;
pub mod publish;
mod publish_statement;
pub mod ready;
pub mod results;
pub mod retry;
pub mod schedule;
pub mod schedules;
mod schedules_api;
pub mod shadow;
pub mod shape;
pub mod steps;
pub mod store;
pub mod switches;
mod targets;
mod transfer;
mod write_statement;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
