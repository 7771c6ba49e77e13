//! Privacy: whose data there is, giving it out, erasing it, and keeping it no longer than it may be kept.
//!
//! Owns `usher.subject_kinds`, `usher.personal_columns`, `usher.legal_holds`, `usher.erasures`, `usher.erasure_jobs` and
//! `usher.retention_rules`. Called by clients and, once a minute, by the worker.
//!
//! * [`store`] keeps what was declared; [`graph`] finds, from the catalog, every table that has data of a person.
//! * [`rows`] reads and erases the application's rows, with the rights of the definition's `run_as`, as a flow's effect.
//! * [`copies`] masks what pg_usher itself keeps: jobs, history, dead letters, audit. [`mask`] is the pure part; [`deep`] reads JSON
//!   that is nested too deeply for everybody else.
//! * [`erase`] puts it together; [`receipt`] proves it; [`retention`] is what goes by itself when its time is over.

use std::time::{Duration, Instant};

/// How long upkeep may take for one rule or one person, and in all: what is slow keeps itself from being done, and nothing else.
/// In all: then what is left waits for the next minute. Taken in an order that is never the same, so that nothing waits for ever.
#[derive(Clone, Copy)]
pub struct Patience {
    pub each: Duration,
    pub all: Duration,
}

/// The worker's, whose jobs wait meanwhile.
pub const RETENTION: Patience = Patience { each: Duration::from_secs(10), all: Duration::from_secs(30) };
/// A person is erased as a whole, so one may take all of it.
pub const ERASURES: Patience = Patience { each: Duration::from_secs(60), all: Duration::from_secs(30) };

impl Patience {
    fn is_over(patience: Option<Self>, begin: Instant) -> bool {
        patience.is_some_and(|patience| begin.elapsed() >= patience.all)
    }
}

mod api;
mod copies;
mod declare;
mod deep;
pub mod erase;
mod export;
mod graph;
mod mask;
mod receipt;
pub mod retention;
mod rows;
mod store;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
