//! Comparing two tables, or a flow's pair, without joining them: which rows are missing on one side or different.
//!
//! Owns no table and writes nothing. One scan of both sides makes a digest of each row and adds it to a leaf that its key chooses
//! ([`crate::pg::digest`]); leaves that come out as nothing hold the same rows on both sides. Only rows of the other leaves are joined, and only there
//! equality is what the types' operators say. Digests decide what is looked at, operators what is found: different bytes of
//! equal values cost time, never a wrong finding.
//!
//! [`sides`] says what is compared, from tables; [`pair`] from a flow; [`fit`] gives both sides one type; [`statement`] writes the SQL; [`run`] asks.
//! Whoever checks rules calls [`compare`] with two sides, under [`settings`]: it comes back with a query of what differs, or with nothing.

mod api;
mod columns;
mod fit;
mod pair;
mod run;
mod sides;
mod statement;

pub use pair::of_flow;
pub use run::{compare, settings};
pub use sides::{Side, Wish, of_tables};
