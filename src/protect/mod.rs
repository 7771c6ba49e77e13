//! Protect: personal columns of the application's tables and of packs, readable only to those who are named.
//!
//! Owns `usher.column_protections`, the triggers named `zzzz_usher_seal_*`, the constraints named `usher_sealed_*` and the views
//! that end in `_masked`. Called by `pack`, `insight` and `capture`; calls `secrets`, `guard`, `registry` and `setup`.
//!
//! * [`text`] is the form of a sealed value, pure; [`mask`] is what a masked one looks like, pure.
//! * [`trigger`] seals what is written, before anybody else hears of the row; [`sealed`] puts it onto a table and takes it away.
//! * [`masked`] takes the right to read a column away and makes the view that shows its masks.
//! * [`readers`] decides who reads; [`store`] keeps what was declared; [`check`] says which columns can be protected.
//! * [`mend`] brings back what migrations and restores have taken away, and tells the doctor what it cannot.

mod api;
mod check;
pub mod declare;
mod mask;
mod masked;
pub mod mend;
mod readers;
mod sealed;
mod store;
mod text;
mod trigger;

pub use readers::checked as checked_readers;
pub use store::How;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
