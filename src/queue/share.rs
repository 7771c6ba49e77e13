//! Fair share between organizations: whose jobs a batch is made of when there are more than fit into one.
//!
//! A worker that is behind reads ahead: positions and organizations only, slice by slice. What it has found waits here, in
//! memory, and every batch takes some of each organization in turn, so that one that has made a million jobs at once does
//! not keep another's single job waiting. Within an organization the order of positions is kept, and with it the order
//! of each row's changes, since a row belongs to one organization.

use super::log::Positions;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

type Organization = [u8; 16];

/// A range `from..to` of one organization's positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    organization: Organization,
    pub from: i64,
    pub to: i64,
}

/// Ready positions that were found, by organization.
#[derive(Debug, Clone, Default)]
pub struct Share {
    found: BTreeMap<Organization, Positions>,
    /// Who came first last time.
    last_first: Option<Organization>,
}

impl Share {
    pub fn add(&mut self, organization: Organization, mut positions: Vec<i64>) {
        if !positions.is_empty() {
            positions.sort_unstable();
            self.found.entry(organization).or_default().add_all(&positions);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What it takes in memory: ranges of positions.
    pub fn ranges(&self) -> usize {
        self.found.values().map(Positions::ranges).sum()
    }

    /// The positions of the next batch, at most so many, as ranges: the same from everybody, then what is left of the
    /// room to those who have more. Nothing changes until [`Share::taken`].
    pub fn pick(&self, most: i64) -> Vec<Pick> {
        let after = self.last_first.map_or(Unbounded, Excluded);
        let before = self.found.range((Unbounded, self.last_first.map_or(Excluded([0; 16]), std::ops::Bound::Included)));
        // Another one begins each time, so that a batch smaller than the number of organizations starves nobody.
        let mut turn: Vec<(Organization, &Positions, i64)> = self
            .found
            .range((after, Unbounded))
            .chain(before)
            .map(|(organization, positions)| (*organization, positions, 0))
            .collect();
        let mut room = most;
        while room > 0 {
            let open = turn.iter().filter(|(_, positions, got)| *got < positions.count()).count() as i64;
            if open == 0 {
                break;
            }
            let each = (room / open).max(1);
            for (_, positions, got) in turn.iter_mut().filter(|(_, positions, got)| *got < positions.count()) {
                let more = each.min(positions.count() - *got).min(room);
                *got += more;
                room -= more;
            }
        }
        let ranges = |(organization, positions, got): (Organization, &Positions, i64)| {
            positions.first(got).into_iter().map(move |(from, to)| Pick { organization, from, to })
        };
        turn.into_iter().filter(|(.., got)| *got > 0).flat_map(ranges).collect()
    }

    /// These were taken by a batch that has committed.
    pub fn taken(&mut self, picked: &[Pick]) {
        let next = self.first_of_next_turn();
        for Pick { organization, from, to } in picked {
            if let Some(positions) = self.found.get_mut(organization) {
                positions.remove(*from, *to);
                if positions.ranges() == 0 {
                    self.found.remove(organization);
                }
            }
        }
        self.last_first = next;
    }

    fn first_of_next_turn(&self) -> Option<Organization> {
        let after = self.last_first.map_or(Unbounded, Excluded);
        let next = self.found.range((after, Unbounded)).next().or_else(|| self.found.iter().next());
        next.map(|(organization, _)| *organization)
    }
}

#[cfg(test)]
mod unit {
    use super::{Pick, Share};

    fn of(n: u8) -> [u8; 16] {
        [n; 16]
    }

    #[test]
    fn a_single_job_is_in_the_next_batch() {
        let mut share = Share::default();
        share.add(of(1), (1..=1_000_000).collect());
        share.add(of(2), vec![1_000_001]);
        let picked = share.pick(1_000);
        assert_eq!(picked.iter().map(|pick| pick.to - pick.from).sum::<i64>(), 1_000);
        assert!(picked.contains(&Pick { organization: of(2), from: 1_000_001, to: 1_000_002 }));
        share.taken(&picked);
        assert_eq!(share.pick(10), [Pick { organization: of(1), from: 1_000, to: 1_010 }]);
    }

    #[test]
    fn more_organizations_than_room() {
        let mut share = Share::default();
        for n in 0..10 {
            share.add(of(n), vec![i64::from(n), 100 + i64::from(n)]);
        }
        let mut order = Vec::new();
        while !share.is_empty() {
            let picked = share.pick(1);
            assert_eq!(picked.len(), 1);
            order.push(picked[0].from % 100);
            share.taken(&picked);
        }
        assert_eq!(order[..10].iter().collect::<std::collections::BTreeSet<_>>().len(), 10, "everybody had a turn: {order:?}");
        assert_eq!(order.len(), 20);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_and_the_order_is_kept(jobs in proptest::collection::vec(0u8..5, 0..200), most in 1i64..40) {
            let mut share = Share::default();
            for (seq, organization) in (1..).zip(&jobs) {
                share.add(of(*organization), vec![seq]);
            }
            let mut done: Vec<i64> = Vec::new();
            while !share.is_empty() {
                let picked = share.pick(most);
                let mut now: Vec<i64> = picked.iter().flat_map(|pick| pick.from..pick.to).collect();
                proptest::prop_assert!(!now.is_empty() && now.len() as i64 <= most);
                now.sort_unstable();
                done.extend(now);
                share.taken(&picked);
            }
            for organization in 0..5 {
                let mine: Vec<i64> = done.iter().copied().filter(|seq| jobs[*seq as usize - 1] == organization).collect();
                proptest::prop_assert!(mine.is_sorted());
            }
            done.sort_unstable();
            proptest::prop_assert_eq!(done, (1..=jobs.len() as i64).collect::<Vec<_>>());
        }
    }
}
