//! Plans grow old. A statement is planned once and for all values, and the first batch of a flow often finds tables with next to nothing in
//! them, of which any way to read is as good as another. PostgreSQL plans anew when ANALYZE has counted a table, which autovacuum looks at
//! once a minute; until then such a plan may read all of a table that has a row for each job by now. So whoever has done several times as
//! much of a flow as when the plans were made has them made anew: the planner asks how large the tables are now.

use crate::pg::spi;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many jobs of a flow may be done with the first plans, and so many times as many with each of the next.
const FIRST: u64 = 1_000;
const GROWTH: u64 = 4;
/// All plans of the process go at once, and making them takes a while: not more often than this.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Ripening {
    /// Of each flow the jobs done, and the number at which its plans are old.
    flows: HashMap<i32, (u64, u64)>,
    old: bool,
    renewed: Option<Instant>,
}

impl Ripening {
    fn note(&mut self, flow: i32, jobs: u64) {
        let (done, most) = self.flows.entry(flow).or_insert((0, FIRST));
        *done = done.saturating_add(jobs);
        while *done >= *most && *most < u64::MAX {
            *most = most.saturating_mul(GROWTH);
            self.old = true;
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.old && self.renewed.is_none_or(|renewed| now.duration_since(renewed) >= PAUSE)
    }
}

thread_local! {
    static RIPENING: RefCell<Ripening> = RefCell::default();
}

/// Jobs of a flow have been claimed.
pub fn note(flow: i32, jobs: i32) {
    RIPENING.with_borrow_mut(|ripening| ripening.note(flow, u64::try_from(jobs).unwrap_or(0)));
}

/// Between batches.
pub fn renew(now: Instant) {
    RIPENING.with_borrow_mut(|ripening| {
        if ripening.is_due(now) {
            spi::plan_again();
            ripening.old = false;
            ripening.renewed = Some(now);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old_after(jobs: &[u64]) -> Vec<bool> {
        let mut ripening = Ripening::default();
        let look = |jobs: &u64| {
            ripening.old = false;
            ripening.note(7, *jobs);
            ripening.old
        };
        jobs.iter().map(look).collect()
    }

    #[test]
    fn plans_are_old_when_a_flow_has_done_four_times_as_much() {
        assert_eq!(old_after(&[999, 1, 2_999, 1, 11_999, 1, 1]), [false, true, false, true, false, true, false]);
    }

    #[test]
    fn one_large_batch_makes_them_old_once() {
        assert_eq!(old_after(&[70_000, 1, 185_998, 1]), [true, false, false, true]);
    }

    #[test]
    fn each_flow_counts_by_itself() {
        let mut ripening = Ripening::default();
        ripening.note(1, 999);
        ripening.note(2, 999);
        assert!(!ripening.old);
        ripening.note(2, 1);
        assert!(ripening.old);
    }

    #[test]
    fn it_never_ends_in_a_loop() {
        assert_eq!(old_after(&[u64::MAX, 1]), [true, false]);
    }

    #[test]
    fn they_are_not_made_anew_all_the_time() {
        let now = Instant::now();
        let ripening = Ripening { old: true, renewed: Some(now), ..Ripening::default() };
        assert!(!ripening.is_due(now + PAUSE - Duration::from_millis(1)));
        assert!(ripening.is_due(now + PAUSE));
        assert!(!Ripening::default().is_due(now));
    }
}
