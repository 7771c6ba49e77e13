//! Batches of flows in mode `batch`: what has gathered, and when it runs.
//!
//! A lane belongs to one process at a time, and so does what gathers in it. The process counts along in memory; that is a hint and
//! no more: before a batch runs, its jobs are counted in the table. After a start, an error and once a minute, and when
//! somebody else may have had a hand in it, the memory is made anew from the jobs.

use super::batch::{self, Done};
use crate::error::Result;
use crate::flow::apply::Place;
use crate::flow::store as flows;
use crate::pg::shmem::{Mine, Source};
use crate::pg::{ids, role, xact};
use crate::queue::followers;
use crate::queue::gather::{self, Key, Open};
use crate::queue::group::Group;
use crate::queue::take_back::Back;
use crate::settings;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

/// What such jobs wait for.
pub const REASON: &str = "batch window";

/// Microseconds until jobs are looked at again that somebody has locked.
const IN_OTHER_HANDS: i64 = 50_000;

#[derive(Default)]
struct Gathers {
    known: bool,
    open: HashMap<Key, (Open, i64)>,
}

thread_local! {
    static GATHERS: RefCell<Gathers> = RefCell::default();
}

impl Gathers {
    /// `size` jobs make a batch of this flow.
    fn add(&mut self, key: Key, more: Open, size: i64) {
        let (open, known_size) = self.open.entry(key).or_insert((Open { jobs: 0, ..more }, size));
        open.jobs += more.jobs;
        open.closes = open.closes.min(more.closes);
        open.from = open.from.min(more.from);
        *known_size = size;
    }

    /// The first that is to run: by lane, then by time.
    fn closed(&self, now: i64) -> Option<Key> {
        let ready = self.open.iter().filter(|(_, (open, size))| open.jobs >= *size || open.closes <= now);
        ready.min_by_key(|(key, (open, _))| (key.lane, open.closes, **key)).map(|(key, _)| *key)
    }

    /// Somebody has its jobs: it is looked at again at that time, and counted anew.
    fn put_off(&mut self, key: Key, until: i64) {
        if let Some((open, _)) = self.open.get_mut(&key) {
            (open.jobs, open.closes) = (0, until);
        }
    }

    fn next(&self) -> Option<i64> {
        self.open.values().map(|(open, _)| open.closes).min()
    }
}

/// What is remembered may not be so any more.
pub fn forget() {
    GATHERS.with_borrow_mut(|gathers| *gathers = Gathers::default());
}

pub fn known() -> bool {
    GATHERS.with_borrow(|gathers| gathers.known)
}

/// Reads what gathers in this process's lanes. Runs with the owner's rights.
pub fn learn(lanes: &[i16]) -> Result<()> {
    let mut fresh = Gathers { known: true, ..Gathers::default() };
    for (key, open) in gather::open(lanes)? {
        fresh.add(key, open, size(key)?);
    }
    GATHERS.set(fresh);
    Ok(())
}

/// The next batch that is to run now.
pub fn closed() -> Option<Key> {
    GATHERS.with_borrow(|gathers| gathers.closed(ids::clock()))
}

/// How long until the next window closes.
pub fn next() -> Option<Duration> {
    let closes = GATHERS.with_borrow(Gathers::next)?;
    Some(Duration::from_micros(u64::try_from(closes.saturating_sub(ids::clock())).unwrap_or(0)).min(Duration::from_secs(86_400)))
}

/// How many jobs make a batch of a flow now; any will do when it gathers no more.
fn size(key: Key) -> Result<i64> {
    Ok(flows::newest(key.flow)?.and_then(|flow| flow.definition.batch).map_or(1, |gather| i64::from(gather.size)))
}

/// The batch that is to run now, if there is one.
struct Ripe {
    most: i32,
    jobs: i64,
    first: i64,
    last: i64,
}

fn ripe(key: Key, from: i64) -> Result<Option<Ripe>> {
    let batch = flows::newest(key.flow)?.and_then(|flow| flow.definition.batch);
    let most = batch.map_or_else(settings::batch_size, |gather| gather.size);
    let open = gather::look(key, from, most)?;
    let is_ripe = |open: &Open| batch.is_none() || open.jobs >= i64::from(most) || open.closes <= ids::clock();
    let found = open.filter(|(open, _)| is_ripe(open));
    Ok(found.map(|(open, last)| Ripe { most, jobs: open.jobs, first: open.from, last }))
}

/// Reads again what is left of one, from a position on. In the transaction that has changed it.
fn look_again(key: Key, from: i64) -> Result<()> {
    let size = size(key)?;
    let left = gather::look(key, from, i32::try_from(size).unwrap_or(i32::MAX))?;
    GATHERS.with_borrow_mut(|gathers| {
        gathers.open.remove(&key);
        if let Some((open, _)) = left {
            gathers.add(key, open, size);
        }
    });
    Ok(())
}

/// From where on the jobs of one are to be read.
fn from(key: Key) -> i64 {
    GATHERS.with_borrow(|gathers| gathers.open.get(&key).map_or(0, |(open, _)| open.from))
}

/// Jobs of a group have been put to gather.
pub fn note(place: Place, group: &Group, back: &[Back]) -> Result<()> {
    let put: Vec<&Back> = back.iter().filter(|back| back.waiting_for == Some(REASON)).collect();
    let (Some(flow), false) = (group.flow, put.is_empty()) else { return Ok(()) };
    if place != Place::Worker {
        xact::note_plans_changed();
        return Ok(());
    }
    let organizations = organizations(group)?;
    let created = group.batch.created.value::<Vec<TimestampWithTimeZone>>()?.unwrap_or_default();
    let positions = group.batch.positions.value::<Vec<i64>>()?.unwrap_or_default();
    let lane = group.lane;
    let size = size(Key { lane, flow, organization: [0; 16] })?;
    GATHERS.with_borrow_mut(|gathers| {
        for back in put {
            let at = usize::try_from(back.n - 1).unwrap_or(0);
            let (Some(organization), Some(made), Some(from)) = (organizations.get(at), created.get(at), positions.get(at)) else {
                continue;
            };
            let closes = i64::from(*made).saturating_add((back.after.unwrap_or(0.0) * 1e6) as i64);
            gathers.add(Key { lane, flow, organization: *organization.as_bytes() }, Open { jobs: 1, closes, from: *from }, size);
        }
    });
    Ok(())
}

/// The organizations of a group's jobs, in its order.
pub fn organizations(group: &Group) -> Result<Vec<Uuid>> {
    Ok(group.batch.organizations.value::<Vec<Uuid>>()?.unwrap_or_default())
}

/// A range of jobs cut where the organization changes.
pub fn by_organization<T: PartialEq>((first, last): (i32, i32), of: &[T]) -> Vec<(i32, i32)> {
    let of = |n: i32| of.get(usize::try_from(n - 1).unwrap_or(0));
    let mut out: Vec<(i32, i32)> = Vec::new();
    for n in first..=last {
        match out.last_mut() {
            Some(part) if of(part.0) == of(n) => part.1 = n,
            _ => out.push((n, n)),
        }
    }
    out
}

/// Runs the batch of one, if it is to run.
pub fn batch(installed: Installed, key: Key, mine: Option<Mine>) -> Result<Done> {
    let place = batch::place_of(mine);
    if !batch::take_lanes(&[key.lane], place) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let start = from(key);
        let Some(ripe) = ripe(key, start)? else {
            // Some were cancelled, or are in other hands.
            look_again(key, start)?;
            return Ok(Done::default());
        };
        let claim = gather::claim(client, key, start, ripe.most)?;
        if claim.jobs == 0 {
            // All are in other hands. What gathers elsewhere goes on meanwhile.
            GATHERS.with_borrow_mut(|gathers| gathers.put_off(key, ids::clock() + IN_OTHER_HANDS));
            return Ok(Done::default());
        }
        let passed_over = i64::from(claim.jobs) < ripe.jobs || claim.last > ripe.last;
        if let Some(mine) = mine {
            mine.busy(Source::Waiting, 0, 0, claim.last);
        }
        drop(acting);
        let done = batch::done_by(&claim);
        batch::run(client, installed, place, claim)?;
        let _acting = role::internal(installed.owner);
        look_again(key, if passed_over { ripe.first } else { done.last + 1 })?;
        followers::release_followers(&*flows::classes()?)?;
        Ok(done)
    })
}

/// The batches of a lane that are to run, in somebody's session, until `most` jobs are done. Returns how many.
pub fn without_workers(installed: Installed, lane: i16, most: i32) -> Result<i32> {
    let open = {
        let _acting = role::internal(installed.owner);
        gather::open(&[lane])?
    };
    let mut jobs = 0;
    for (key, _) in open {
        while jobs < most {
            let done = batch(installed, key, None)?;
            jobs += done.jobs;
            if done.jobs == 0 {
                break;
            }
        }
    }
    // Others go on with them.
    forget();
    Ok(jobs)
}

#[cfg(test)]
mod unit {
    use super::{Gathers, Key, Open, by_organization};

    #[test]
    fn a_call_is_for_one_organization() {
        assert_eq!(by_organization((1, 5), &["a", "a", "b", "a", "a"]), [(1, 2), (3, 3), (4, 5)]);
        assert_eq!(by_organization((2, 3), &["a", "b", "b"]), [(2, 3)]);
    }

    const fn key(lane: i16, flow: i32) -> Key {
        Key { lane, flow, organization: [1; 16] }
    }

    #[test]
    fn a_batch_runs_when_it_is_full_or_its_window_is_over() {
        let mut gathers = Gathers::default();
        gathers.add(key(4, 1), Open { jobs: 2, closes: 500, from: 10 }, 3);
        gathers.add(key(4, 2), Open { jobs: 1, closes: 400, from: 11 }, 3);
        assert_eq!((gathers.closed(399), gathers.next()), (None, Some(400)));
        assert_eq!(gathers.closed(400), Some(key(4, 2)));
        gathers.add(key(4, 1), Open { jobs: 1, closes: 900, from: 7 }, 3);
        assert_eq!(gathers.closed(0), Some(key(4, 1)));
        assert_eq!(gathers.open[&key(4, 1)].0, Open { jobs: 3, closes: 500, from: 7 });
        gathers.add(key(0, 3), Open { jobs: 9, closes: 9_999, from: 7 }, 3);
        assert_eq!(gathers.closed(400), Some(key(0, 3)), "the higher lane first");
    }
}
