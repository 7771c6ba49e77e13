//! Failures reach a person: many of a flow in one organization make one notice. And the inbox, where people are told what flows and admins
//! have to tell them.
//!
//! Owns `usher.notices`, `usher.failure_streaks` and `usher.notifications`. Called by `worker` with what a batch could not do, in the batch's own
//! transaction, so that what is counted is what has happened. A flow that becomes broken makes a notice by a trigger on
//! `usher.flows` (`sql/notices.sql`), whoever found it out.

mod api;
mod inbox;
mod store;

pub use store::{inconsistent, open_conflicts, open_violations, prune, unreceived};

use crate::error::Result;
use crate::settings;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::prelude::*;
use std::collections::BTreeMap;

/// What failed in a batch: by flow and organization how many attempts, and the last of them.
#[derive(Default)]
pub struct Tally(BTreeMap<(i32, [u8; 16]), Sum>);

struct Sum {
    failures: i32,
    error: String,
    job: Uuid,
}

impl Tally {
    pub fn add(&mut self, flow: i32, organization: Uuid, job: Uuid, error: &str) {
        let sum =
            self.0.entry((flow, *organization.as_bytes())).or_insert_with(|| Sum { failures: 0, error: String::new(), job });
        sum.failures = sum.failures.saturating_add(1);
        sum.job = job;
        error.clone_into(&mut sum.error);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Counts the failures of a batch and makes the notices that are due, each with one line in the server's log. To be
/// called once for a batch, after its jobs: rows are locked in one order and late, so that two workers never wait for each
/// other in a circle. (`process_jobs` has several batches in one transaction; if it meets a worker crosswise, PostgreSQL ends
/// one of them, which is then done again.) Runs with the owner's rights.
pub fn failures(installed: Installed, tally: &Tally) -> Result<()> {
    // Tables of an older version know no notices; their jobs go on failing as they did.
    if tally.is_empty() || !installed.up_to_date || settings::notice_failures() == 0 {
        return Ok(());
    }
    for made in store::count(tally)? {
        log!(
            "usher: flow \"{}\" keeps failing for organization {}: {} failed attempts since {}, the last with: {}",
            made.flow,
            made.organization,
            made.failures,
            made.since,
            made.error
        );
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn attempts_are_summed_by_flow_and_organization() {
        let (one, two) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        for (flow, organization, error) in [(7, one, "a"), (7, two, "b"), (7, one, "c"), (8, one, "d")] {
            tally.add(flow, organization, organization, error);
        }
        let sums: Vec<_> = tally.0.iter().map(|((flow, id), sum)| (*flow, id[0], sum.failures, sum.error.as_str())).collect();
        assert_eq!(sums, [(7, 1, 2, "c"), (7, 2, 1, "b"), (8, 1, 1, "d")]);
    }
}
