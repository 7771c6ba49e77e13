//! Guard: who did what.
//!
//! Owns `usher.audit_log`, which is only ever added to, `usher.audited_tables`, and the triggers named `usher_audit_*`.
//! Called by every room from `flow` upwards; calls `registry` and `setup`.
//!
//! * [`audit`] knows whose act it is and writes single entries.
//! * [`statement`] writes the one INSERT that turns a statement's rows into entries; [`trigger`] is what PostgreSQL calls.
//! * [`chain`] is the chain of hashes over the entries, pure; [`seal`] makes it, behind the writers; [`verify`] goes through it.
//! * [`erasure`] masks a person in entries, and proves that nothing else was changed.
//! * [`ddl`] enters what schema changes do to audited tables.
//! * [`attach`] creates and drops the triggers.

mod api;
pub mod attach;
pub mod audit;
mod chain;
mod chain_api;
pub mod ddl;
pub mod erasure;
pub mod seal;
mod statement;
mod trigger;
mod verify;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
