//! Jobs of calls whose work leaves the database are no part of a batch: they are handed over to the caller processes.

use super::group::{dead, wait_for};
use crate::error::Result;
use crate::flow::cause;
use crate::pg::xact;
use crate::queue::group::{self, Group, Segment};
use crate::queue::take_back::Back;
use std::collections::{HashMap, HashSet};

/// Where the jobs of a group go that are not `gone` already: of each row the first change to the callers, later ones behind it.
pub fn places(group: &Group, segments: &[Segment], gone: &HashSet<i32>) -> Result<Vec<Back>> {
    let too_far =
        format!("the chain of causes is longer than {} hops: flows that start each other go in a circle", cause::MOST_HOPS);
    let mut back: Vec<Back> = segments
        .iter()
        .filter(|segment| segment.hop > cause::MOST_HOPS)
        .flat_map(|segment| segment.first..=segment.last)
        .filter(|n| !gone.contains(n))
        .map(|n| dead(n, &too_far, "54001"))
        .collect();
    let ended: HashSet<i32> = back.iter().map(|back| back.n).chain(gone.iter().copied()).collect();
    let jobs: Vec<(i32, Option<i64>, i64)> =
        (1..).zip(group::rows(group)?).map(|(n, (key, seq))| (n, key, seq)).filter(|(n, ..)| !ended.contains(n)).collect();
    let first = first_changes(&jobs);
    back.extend(jobs.iter().map(|(n, ..)| {
        let reason = if first.contains(n) { "external call" } else { "earlier change" };
        wait_for(reason)(*n)
    }));
    xact::note_callers();
    Ok(back)
}

/// The numbers of the jobs that nothing of their row is before. Jobs without a row are all first.
fn first_changes(jobs: &[(i32, Option<i64>, i64)]) -> HashSet<i32> {
    let mut lowest: HashMap<i64, i64> = HashMap::new();
    for (_, key, seq) in jobs {
        if let Some(key) = key {
            lowest.entry(*key).and_modify(|low| *low = (*low).min(*seq)).or_insert(*seq);
        }
    }
    jobs.iter().filter(|(_, key, seq)| key.is_none_or(|key| lowest.get(&key) == Some(seq))).map(|(n, ..)| *n).collect()
}

#[cfg(test)]
mod unit {
    use super::first_changes;

    #[test]
    fn of_each_row_the_first_change_goes_first() {
        let jobs = [(1, Some(7), 5), (2, Some(8), 3), (3, Some(7), 4), (4, None, 9), (5, None, 1)];
        let mut first: Vec<i32> = first_changes(&jobs).into_iter().collect();
        first.sort_unstable();
        assert_eq!(first, [2, 3, 4, 5]);
    }

    proptest::proptest! {
        #[test]
        fn exactly_one_of_a_row_is_first(keys in proptest::collection::vec(proptest::option::of(0i64..4), 0..20)) {
            let jobs: Vec<_> = (1..).zip(&keys).map(|(n, key)| (n, *key, i64::from(n))).collect();
            let first = first_changes(&jobs);
            let rows: std::collections::HashSet<_> = keys.iter().flatten().collect();
            let loose = keys.iter().filter(|key| key.is_none()).count();
            proptest::prop_assert_eq!(first.len(), rows.len() + loose);
        }
    }
}
