//! Ticket revenue: taken in once, booked in the same transaction.
//!
//! Owns `usher.ticket_revenue_ingestions` and `usher.revenue_bindings`. What a code means and which accounts a sale moves is
//! not known here: a pack, or an operator, binds functions of its own ([`binding`]). [`sale`] and [`money`] decide
//! without a look at the database what a sale must be like; [`ingest`] writes one, [`batch`] many at once. Called by `pack`; calls `registry` and down.

mod api;
mod batch;
pub mod binding;
mod ingest;
mod money;
mod sale;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
