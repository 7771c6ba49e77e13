//! Guard: who did what.
//!
//! Owns `usher.audit_log`, which is only ever added to, `usher.audited_tables`, and the triggers named `usher_audit_*`.
//! Called by every room from `flow` upwards; calls `registry` and `setup`.
//!
//! * [`audit`] knows whose act it is and writes single entries.
//! * [`statement`] writes the one INSERT that turns a statement's rows into entries; [`trigger`] is what PostgreSQL calls.
//! * [`attach`] creates and drops the triggers.

mod api;
pub mod attach;
pub mod audit;
mod statement;
mod trigger;
