//! What a worker knows of a lane's log: how far it has read, and which positions it has done.
//!
//! The log is only read, so nothing in it tells what is done; `usher.job_batches` does, exactly, position by position. A
//! worker keeps the same in memory. Positions at or below the *floor* are all done, and no transaction can add one there
//! any more; above it the set of done ones counts, since transactions commit in another order than they drew positions.

use super::share::{Pick, Share};
use std::collections::{BTreeMap, BTreeSet};

/// A set of positions as ranges `from..to`.
#[derive(Debug, Clone, Default)]
pub struct Positions {
    ranges: BTreeMap<i64, i64>,
    count: i64,
}

impl Positions {
    pub fn add(&mut self, from: i64, to: i64) {
        if from >= to {
            return;
        }
        let (mut from, mut to) = (from, to);
        // What touches it becomes one with it.
        while let Some((start, end)) = self.last_from(to).filter(|(_, end)| *end >= from) {
            self.drop_range(start);
            from = from.min(start);
            to = to.max(end);
        }
        self.count += to - from;
        self.ranges.insert(from, to);
    }

    /// The last range that begins at or below a position.
    fn last_from(&self, position: i64) -> Option<(i64, i64)> {
        self.ranges.range(..=position).next_back().map(|(start, end)| (*start, *end))
    }

    fn drop_range(&mut self, start: i64) {
        if let Some(end) = self.ranges.remove(&start) {
            self.count -= end - start;
        }
    }

    pub fn remove(&mut self, from: i64, to: i64) {
        while let Some((start, end)) = self.last_from(to - 1).filter(|(start, end)| from < to && *end > from && *start < to) {
            self.drop_range(start);
            self.add(start, from.min(end));
            self.add(to.max(start), end);
        }
    }

    /// Adds positions in ascending order.
    pub fn add_all(&mut self, sorted: &[i64]) {
        runs(sorted).for_each(|(from, to)| self.add(from, to));
    }

    /// Forgets everything at or below a position.
    pub fn forget(&mut self, floor: i64) {
        let above = self.ranges.split_off(&(floor + 1));
        let across = self.ranges.last_key_value().map(|(_, end)| *end).filter(|end| *end > floor + 1);
        self.ranges = above;
        self.count = self.ranges.iter().map(|(from, to)| to - from).sum();
        if let Some(end) = across {
            self.add(floor + 1, end);
        }
    }

    /// The ranges above a position, as PostgreSQL writes a multirange; None when there are none.
    pub fn above(&self, position: i64) -> Option<String> {
        let across =
            self.ranges.range(..=position).next_back().map(|(_, end)| (position + 1, *end)).filter(|(from, to)| from < to);
        let mut ranges = across.into_iter().chain(self.ranges.range(position + 1..).map(|(from, to)| (*from, *to))).peekable();
        ranges.peek()?;
        Some(written(ranges))
    }

    /// What is missing in `from..to`.
    pub fn gaps(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut at = from;
        let first = self.ranges.range(..=from).next_back().map_or(from, |(start, _)| *start);
        for (&start, &end) in self.ranges.range(first..).take_while(|(start, _)| **start < to) {
            if start > at {
                gaps.push((at, start));
            }
            at = at.max(end);
        }
        if at < to {
            gaps.push((at, to));
        }
        gaps
    }

    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// How many positions there are.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The first so many of them, as ranges.
    pub fn first(&self, most: i64) -> Vec<(i64, i64)> {
        let mut left = most;
        let mut out = Vec::new();
        for (&from, &to) in &self.ranges {
            if left <= 0 {
                break;
            }
            let end = to.min(from + left);
            left -= end - from;
            out.push((from, end));
        }
        out
    }
}

/// Runs of neighbours in ascending positions, each as `from..to`.
fn runs(sorted: &[i64]) -> impl Iterator<Item = (i64, i64)> {
    sorted.chunk_by(|a, b| *b == *a + 1).map(|run| (run[0], run[run.len() - 1] + 1))
}

/// Ranges `from..to` as PostgreSQL reads a multirange.
pub fn written(ranges: impl Iterator<Item = (i64, i64)>) -> String {
    use std::fmt::Write;
    let mut out = String::from("{");
    for (from, to) in ranges {
        if out.len() > 1 {
            out.push(',');
        }
        let _ = write!(out, "[{from},{to})");
    }
    out.push('}');
    out
}

/// Positions in ascending order as PostgreSQL reads a multirange.
pub fn written_all(sorted: &[i64]) -> String {
    written(runs(sorted))
}

/// A moment of the log: what was drawn up to then is settled as soon as every transaction that ran then has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The last position that had been drawn.
    pub drawn: i64,
    /// Every transaction that ran then has a lower number.
    pub next_xid: i64,
}

/// A lane's log as its worker knows it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// False: read `usher.job_batches` first.
    pub known: bool,
    pub floor: i64,
    /// Reading begins after it.
    pub position: i64,
    /// The highest position that was looked at.
    pub read_to: i64,
    pub done: Positions,
    /// Awaited for the next floor.
    pub moment: Option<Moment>,
    /// The position that the batch at work, or the last one, had by itself.
    pub alone: Option<i64>,
    /// Rows (by their keys) of which a session has locked a job that was passed over: later jobs of these rows wait in the
    /// log until that session ends, which makes us look back.
    pub held: BTreeSet<i64>,
    /// There was more than one batch takes.
    pub behind: bool,
    /// What was read ahead because of that; then `position` is how far.
    pub share: Share,
}

impl Log {
    /// A transaction has added positions from `low` on.
    pub fn look_back_to(&mut self, low: i64) {
        self.position = self.position.min(low - 1).max(self.floor);
        self.held.clear();
    }

    /// Read again from the beginning.
    pub fn look_at_all(&mut self) {
        self.position = self.floor;
        self.held.clear();
    }

    /// A batch has committed: these positions (ascending) are done; everything up to `last` was looked at, and everything
    /// that there was, if the batch was not full.
    pub fn committed(&mut self, taken: &[i64], last: i64, full: bool) {
        self.done.add_all(taken);
        self.looked(last, full);
        self.behind = full;
    }

    /// A batch of what was read ahead has committed.
    pub fn committed_share(&mut self, taken: &[i64], picked: &[Pick]) {
        self.done.add_all(taken);
        self.share.taken(picked);
    }

    /// Everything from the position to `last` was looked at, and everything that there was, if it was not full.
    pub fn looked(&mut self, last: i64, full: bool) {
        self.read_to = self.read_to.max(last);
        self.position = if full { self.position.max(last) } else { self.position.max(self.read_to) };
    }

    pub fn raise_floor(&mut self, floor: i64) {
        self.floor = self.floor.max(floor);
        self.position = self.position.max(self.floor);
        self.done.forget(self.floor);
    }
}

#[cfg(test)]
mod unit {
    use super::{Log, Positions, written_all};
    use std::collections::BTreeSet;

    fn set(positions: &Positions) -> Vec<(i64, i64)> {
        positions.ranges.iter().map(|(a, b)| (*a, *b)).collect()
    }

    #[test]
    fn neighbours_become_one_range() {
        let mut positions = Positions::default();
        positions.add_all(&[5, 6, 9]);
        positions.add(7, 9);
        assert_eq!(set(&positions), [(5, 10)]);
        positions.add(1, 3);
        positions.add(4, 4);
        assert_eq!(set(&positions), [(1, 3), (5, 10)]);
        positions.add(2, 20);
        assert_eq!(set(&positions), [(1, 20)]);
        positions.forget(7);
        assert_eq!(set(&positions), [(8, 20)]);
        assert_eq!(positions.above(25), None);
        assert_eq!(positions.above(10).as_deref(), Some("{[11,20)}"));
        assert_eq!(written_all(&[1, 2, 4]), "{[1,3),[4,5)}");
    }

    #[test]
    fn a_late_commit_is_read_and_what_is_done_is_not_read_again() {
        let mut log = Log::default();
        log.committed(&[1, 2, 4], 4, false);
        assert_eq!((log.position, log.done.above(log.position)), (4, None));
        log.look_back_to(3);
        assert_eq!((log.position, log.done.above(log.position).as_deref()), (2, Some("{[4,5)}")));
        log.committed(&[3], 3, false);
        assert_eq!(log.position, 4, "everything was looked at");
        log.raise_floor(4);
        assert_eq!((log.position, log.floor, log.done.ranges()), (4, 4, 0));
        log.look_back_to(2);
        assert_eq!(log.position, 4);
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_set(added in proptest::collection::vec((0i64..60, 0i64..9), 0..40), floor in 0i64..60, from in 0i64..60, size in 0i64..40) {
            let mut positions = Positions::default();
            let mut model = BTreeSet::new();
            for (start, length) in added {
                positions.add(start, start + length);
                model.extend(start..start + length);
            }
            let listed = |positions: &Positions| positions.ranges.iter().flat_map(|(a, b)| *a..*b).collect::<Vec<_>>();
            proptest::prop_assert_eq!(listed(&positions), model.iter().copied().collect::<Vec<_>>());
            // Ranges are apart from each other.
            let ranges = set(&positions);
            proptest::prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let gaps: Vec<i64> = positions.gaps(from, from + size).into_iter().flat_map(|(a, b)| a..b).collect();
            proptest::prop_assert_eq!(gaps, (from..from + size).filter(|n| !model.contains(n)).collect::<Vec<_>>());
            let above: Vec<i64> = model.iter().copied().filter(|n| *n > from).collect();
            proptest::prop_assert_eq!(positions.above(from), (!above.is_empty()).then(|| written_all(&above)));
            proptest::prop_assert_eq!(positions.count(), model.len() as i64);
            let first: Vec<i64> = positions.first(size).into_iter().flat_map(|(a, b)| a..b).collect();
            proptest::prop_assert_eq!(first, model.iter().copied().take(size as usize).collect::<Vec<_>>());
            let mut without = positions.clone();
            without.remove(from, from + size);
            proptest::prop_assert_eq!(listed(&without), model.iter().copied().filter(|n| !(from..from + size).contains(n)).collect::<Vec<_>>());
            positions.forget(floor);
            proptest::prop_assert_eq!(listed(&positions), model.into_iter().filter(|n| *n > floor).collect::<Vec<_>>());
        }
    }
}
