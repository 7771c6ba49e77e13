//! Which of the changes in a batch are covered by a newer one of their row. Pure.

use std::collections::HashMap;

/// A job of a group, in the order of its positions: row, version, hop.
pub type Job = (Option<i64>, i32, i16);

/// How a group is done when only the newest change of each row counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The numbers of the jobs (from 1) in a new order: those that are done, in waves of first, second, … of their row, then
    /// those that are covered.
    pub order: Vec<i32>,
    /// How many of them are done.
    pub done: usize,
    /// `(covered, by)`, both as places (from 1) in the new order.
    pub covers: Vec<(i32, i32)>,
}

/// A change is covered by the next one of its row of the same version and hop.
pub fn plan(jobs: &[Job]) -> Plan {
    let mut newest: HashMap<i64, usize> = HashMap::new();
    let mut covered_by = vec![None; jobs.len()];
    for (at, (key, version, hop)) in jobs.iter().enumerate().rev() {
        let Some(key) = key else { continue };
        match newest.get(key) {
            Some(next) if (jobs[*next].1, jobs[*next].2) == (*version, *hop) => covered_by[at] = Some(*next),
            _ => {
                newest.insert(*key, at);
            }
        }
    }
    let mut seen: HashMap<i64, usize> = HashMap::new();
    let mut done: Vec<(usize, i32, i16, usize)> = Vec::new();
    for (at, (key, version, hop)) in jobs.iter().enumerate().filter(|(at, _)| covered_by[*at].is_none()) {
        let wave = key.map_or(0, |key| {
            let count = seen.entry(key).or_insert(0);
            *count += 1;
            *count - 1
        });
        done.push((wave, *version, *hop, at));
    }
    done.sort_unstable();
    let covered = (0..jobs.len()).filter(|at| covered_by[*at].is_some());
    let order: Vec<usize> = done.iter().map(|(.., at)| *at).chain(covered).collect();
    let mut place = vec![0; jobs.len()];
    for (new, old) in order.iter().enumerate() {
        place[*old] = number(new);
    }
    Plan {
        done: done.len(),
        covers: order.iter().filter_map(|at| covered_by[*at].map(|by| (place[*at], place[by]))).collect(),
        order: order.into_iter().map(number).collect(),
    }
}

fn number(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod unit {
    use super::{Job, Plan, plan};

    #[test]
    fn the_newest_of_each_row_is_done_once() {
        let jobs: Vec<Job> = [Some(1), Some(2), Some(1), None, Some(1), None].map(|key| (key, 1, 0)).to_vec();
        assert_eq!(plan(&jobs), Plan { order: vec![2, 4, 5, 6, 1, 3], done: 4, covers: vec![(5, 3), (6, 3)] });
    }

    #[test]
    fn another_version_or_hop_is_a_change_of_its_own() {
        let jobs: Vec<Job> = vec![(Some(1), 1, 0), (Some(1), 1, 0), (Some(1), 2, 0), (Some(1), 1, 0)];
        assert_eq!(plan(&jobs), Plan { order: vec![2, 3, 4, 1], done: 3, covers: vec![(4, 1)] });
        assert_eq!(plan(&[]), Plan { order: vec![], done: 0, covers: vec![] });
    }

    proptest::proptest! {
        /// Done in the new order, every row ends with its newest image, and nothing is lost or done twice.
        #[test]
        fn the_end_is_the_same(jobs in proptest::collection::vec((proptest::option::of(0i64..5), 1i32..3, 0i16..2), 0..60)) {
            let Plan { order, done, covers } = plan(&jobs);
            let mut all = order.clone();
            all.sort_unstable();
            proptest::prop_assert_eq!(all, (1..=i32::try_from(jobs.len()).unwrap()).collect::<Vec<_>>());
            proptest::prop_assert_eq!(done + covers.len(), jobs.len());
            for key in 0..5 {
                let of = |numbers: &mut dyn Iterator<Item = i32>| numbers.filter(|n| jobs[*n as usize - 1].0 == Some(key)).collect::<Vec<_>>();
                let before = of(&mut (1..=jobs.len() as i32));
                let after = of(&mut order[..done].iter().copied());
                proptest::prop_assert_eq!(before.last(), after.last());
                proptest::prop_assert!(after.is_sorted());
            }
            for (covered, by) in covers {
                let (covered, by) = (order[covered as usize - 1], order[by as usize - 1]);
                proptest::prop_assert!(covered < by);
                proptest::prop_assert_eq!(jobs[covered as usize - 1], jobs[by as usize - 1]);
            }
        }
    }
}
