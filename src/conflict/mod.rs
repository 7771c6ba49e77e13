//! What does not agree: bookings of one asset at one time, and the two sides of a pair.
//!
//! Owns `usher.conflicts`, `usher.overlap_rules` and `usher.overlap_checks`. A rule says which rows of a table share a resource and
//! must not share a time. Overlaps are found three times: in the writer's own transaction, by a trigger for each statement; right
//! after the commit, by a worker, because two writers at once do not see each other; and by a sweep over all rows, for what no trigger
//! has seen. Each time the same statement writes down what is new and ends what is not there any more. Called by clients, by
//! `capture` to keep the triggers there, and by the worker. Pairs that differ, or cannot be written, are found by the merges of flows, which tell it here.

mod api;
pub mod attach;
mod definition;
mod failed;
mod fit;
mod look;
mod manage;
mod pairs;
mod resolve;
mod statement;
mod store;
mod trigger;
mod watched;

pub use failed::TELL;
pub use look::{Next, prune, turn, without_workers};
pub use manage::{alter as alter_rule, create as create_rule, drop as drop_rule, rule_definition, rules_of};
pub use pairs::forget_pair;
pub use watched::{Watched, watched};

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
