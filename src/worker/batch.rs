//! One batch: claim, apply group by group, record. Everything in the caller's one transaction.

use super::gather;
use super::group::{Work, all, begin, dead};
use super::limit;
use super::ripening;
use super::workflow;
use crate::error::Result;
use crate::flow::apply::Place;
use crate::flow::store as flows;
use crate::notify::{self, Tally};
use crate::pg::shmem::{Mine, NONE, Source};
use crate::pg::{gauges, role, xact};
use crate::queue::group::{self, Detail, Group};
use crate::queue::log::Log;
use crate::queue::settle;
use crate::queue::share::Pick;
use crate::queue::store::{self, Claim};
use crate::queue::take_back::{self, Back};
use crate::queue::{batches, followers, ledger, limits, pressure};
use crate::settings;
use crate::setup::Installed;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a batch did.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub jobs: i32,
    /// Jobs that were looked at.
    pub seen: i32,
    /// Positions of the log that are done, in ascending order.
    pub taken: Vec<i64>,
    /// What was chosen from what was read ahead; empty: the log was read from the position on.
    pub picked: Vec<Pick>,
    /// The last position that was taken.
    pub last: i64,
    /// Another process works on the lane.
    pub busy: bool,
    /// Something waits for what this batch has done that no mark tells of: a batch of jobs that was passed over, room in the queue.
    pub awaited: bool,
}

/// Two processes never work on one lane at a time: that would break the order of a row's changes.
pub(super) fn take_lanes(lanes: &[i16], place: Place) -> bool {
    lanes.iter().all(|lane| crate::pg::locks::try_lane(*lane, place == Place::Worker))
}

/// Ready jobs of one lane, for its worker.
pub fn ready(installed: Installed, lane: usize, log: &mut Log, most: i32, mine: Mine) -> Result<Done> {
    if !take_lanes(&[lane as i16], Place::Worker) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    know(installed, lane, log, mine)?;
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let claim = read_in_order(client, lane, log, most, mine)?;
        log.alone = (claim.jobs == 1).then_some(claim.last);
        mine.busy(Source::Queue, lane, claim.taken.first().copied().unwrap_or(claim.last), claim.last);
        drop(acting);
        let mut done = done_by(&claim);
        let off = store::leaving(lane, &claim)?;
        let passed_over = run(client, installed, Place::Worker, claim)?;
        let _acting = role::internal(installed.owner);
        done.awaited = passed_over || pressure::any_held(&[lane as i16])?;
        ledger::done(lane, &done.taken)?;
        gauges::add_to_whole(lane, -(done.taken.len() as i64));
        off.into_iter().for_each(|(gauge, jobs)| gauges::add(gauge, lane, -jobs));
        xact::note_batch(lane);
        Ok(done)
    })
}

/// Claims ready jobs such that no change is done without the earlier ones of its row.
///
/// An earlier change may have a position behind which we have read already, and commit late. Its mark is there before the
/// row's next writer can go on; so whoever looks at the marks after a reading sees that of every change which that reading
/// could have left out. What was read then counts for nothing, and costs nothing.
fn read_in_order(client: &mut SpiClient<'_>, lane: usize, log: &mut Log, most: i32, mine: Mine) -> Result<Claim> {
    let mut out = Claim::default();
    loop {
        // COMMIT PREPARED leaves no mark: while such a transaction may be open, reading begins at its first position.
        let prepared = mine.prepared_low(lane);
        if prepared != NONE {
            log.look_back_to(prepared);
        }
        let from = log.position;
        store::scout(lane, log)?;
        let mut claim = store::claim_ready(client, lane, log, most)?;
        let low = mine.take_low(lane);
        if low != NONE && low <= from {
            log.look_back_to(low);
            continue;
        }
        if low != NONE {
            mine.put_low(lane, low);
        }
        let held = store::take_apart(client, lane, &std::mem::take(&mut claim.apart), &mut out)?;
        if held.is_empty() {
            claim.jobs += out.jobs;
            claim.anything_waits |= out.anything_waits;
            claim.groups.extend(out.groups);
            return Ok(claim);
        }
        // Read once more, without what comes after a job that is passed over.
        log.held.extend(held);
    }
}

pub(super) fn done_by(claim: &Claim) -> Done {
    Done {
        jobs: claim.jobs,
        seen: claim.seen,
        taken: claim.taken.clone(),
        picked: claim.picked.clone(),
        last: claim.last,
        busy: false,
        awaited: false,
    }
}

/// Reads what is done in a lane, if this process does not know it. The lane is this process's.
fn know(installed: Installed, lane: usize, log: &mut Log, mine: Mine) -> Result<()> {
    if mine.take_stale(lane) {
        // Should the reading fail, it is still to be done.
        log.known = false;
    }
    if !log.known {
        let _acting = role::internal(installed.owner);
        let moment = log.moment;
        *log = Log { moment, ..ledger::read(lane)? };
    }
    Ok(())
}

/// Raises the floors of lanes' logs, all in one transaction. False: not all the way yet.
pub fn settle<'a>(installed: Installed, lanes: impl Iterator<Item = (usize, &'a mut Log)>, mine: Mine) -> Result<bool> {
    // A floor that is lost in a crash is found again.
    crate::pg::guc::lazy_commit();
    let acting = role::internal(installed.owner);
    let look = ledger::look()?;
    drop(acting);
    let mut settled = true;
    for (lane, log) in lanes {
        if ledger::is_settled(log, &look) && !pressure::is_in_doubt(lane)? {
            continue;
        }
        if !take_lanes(&[lane as i16], Place::Worker) {
            settled = false;
            continue;
        }
        know(installed, lane, log, mine)?;
        let _acting = role::internal(installed.owner);
        let all = ledger::settle(lane, log, &look)?;
        pressure::correct(lane, log, all)?;
        settled &= all;
    }
    Ok(settled)
}

/// Lets jobs of a lane go that limits hold back. True: look again soon.
pub fn let_go(installed: Installed, lane: usize, log: &mut Log, mine: Mine) -> Result<bool> {
    if !take_lanes(&[lane as i16], Place::Worker) {
        return Ok(true);
    }
    know(installed, lane, log, mine)?;
    let _acting = role::internal(installed.owner);
    Ok(pressure::let_go(lane, Some(log), i64::from(settings::batch_size()))?.any)
}

/// The same, in somebody's session.
pub fn let_go_once(installed: Installed, lane: usize, most: i32) -> Result<()> {
    let lanes = [lane as i16];
    let _acting = role::internal(installed.owner);
    if pressure::any_held(&lanes)? && take_lanes(&lanes, Place::Session) {
        pressure::let_go(lane, None, i64::from(most))?;
    }
    Ok(())
}

/// Ready jobs of one lane, in somebody's session.
pub fn ready_once(installed: Installed, lane: usize, most: i32) -> Result<Done> {
    if !take_lanes(&[lane as i16], Place::Session) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let claim = store::claim_ready_once(client, lane, most)?;
        drop(acting);
        let done = done_by(&claim);
        run(client, installed, Place::Session, claim)?;
        Ok(done)
    })
}

/// Waiting jobs that are due now.
pub fn due(installed: Installed, lanes: &[i16], most: i32, mine: Option<Mine>) -> Result<Done> {
    if !take_lanes(lanes, place_of(mine)) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let looked = limits::promote(installed, lanes, most)?;
        let claim = store::claim_due(client, lanes, most, looked, None)?;
        if let Some(mine) = mine {
            mine.busy(Source::Waiting, 0, 0, claim.last);
        }
        drop(acting);
        let done = done_by(&claim);
        run(client, installed, place_of(mine), claim)?;
        if done.jobs > 0 {
            let _acting = role::internal(installed.owner);
            followers::release_followers(&*flows::classes()?)?;
        }
        Ok(done)
    })
}

/// A job that must not be tried again.
pub struct Condemned<'a> {
    pub reason: &'a str,
    pub sqlstate: &'a str,
}

fn condemn(installed: Installed, claim: &Claim, job: &Condemned<'_>) -> Result<()> {
    let mut tally = Tally::default();
    for group in &claim.groups {
        let back = all(group, |n| dead(n, job.reason, job.sqlstate));
        take_back::take_back(group, &back)?;
        count(&mut tally, group, &back, &group::details(group)?);
    }
    notify::failures(installed, &tally)
}

/// The job at one position, by itself: done, or condemned without being tried. It is passed over when it is not there any
/// more, or not due.
pub fn one(
    installed: Installed,
    source: Source,
    lane: usize,
    position: i64,
    condemned: Option<&Condemned<'_>>,
    mine: Mine,
) -> Result<Done> {
    if !take_lanes(&[lane as i16], Place::Worker) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let mut claim = match source {
            Source::Queue => store::claim_at(client, lane, position)?,
            Source::Waiting => {
                let looked = limits::promote(installed, &[lane as i16], 1)?;
                // Only this one: who is announced is who runs, whatever has become due meanwhile.
                store::claim_due(client, &[lane as i16], 1, looked, Some(position))?
            }
        };
        // By itself, not with others.
        claim.groups.iter_mut().for_each(|group| group.gathered = true);
        mine.busy(source, lane, position - 1, claim.last);
        let done = done_by(&claim);
        match condemned {
            Some(job) => condemn(installed, &claim, job)?,
            None => {
                drop(acting);
                run(client, installed, Place::Worker, claim)?;
            }
        }
        if source == Source::Waiting && done.jobs > 0 {
            let _acting = role::internal(installed.owner);
            followers::release_followers(&*flows::classes()?)?;
        }
        Ok(done)
    })
}

/// True when jobs of batches have ended: whoever passed over their batch looks at it after the commit.
pub(super) fn run(client: &mut SpiClient<'_>, installed: Installed, place: Place, claim: Claim) -> Result<bool> {
    if claim.groups.is_empty() {
        return Ok(false);
    }
    let _acting = role::internal(installed.owner);
    let anything_waits = claim.anything_waits;
    let classes = flows::classes()?;
    // Flows of one class do the same rows of the same target: what they do is put into one order.
    let mut by_class: BTreeMap<i32, Vec<Group>> = BTreeMap::new();
    for group in claim.groups {
        let flow = group.flow.unwrap_or(0);
        ripening::note(flow, group.batch.size);
        by_class.entry(classes.get(&flow).copied().unwrap_or(flow)).or_default().push(group);
    }
    let mut tally = Tally::default();
    let mut batches_ended = false;
    for groups in by_class.into_values() {
        batches_ended |= class(client, installed, place, groups, anything_waits, &mut tally)?;
    }
    if batches_ended {
        batches::settle()?;
    }
    limits::mark()?;
    notify::failures(installed, &tally)?;
    Ok(batches_ended)
}

fn class(
    client: &mut SpiClient<'_>,
    installed: Installed,
    place: Place,
    groups: Vec<Group>,
    anything_waits: bool,
    tally: &mut Tally,
) -> Result<bool> {
    let mut works = Vec::with_capacity(groups.len());
    let alone = groups.len() == 1;
    for group in groups {
        works.extend(begin(client, installed, place, group, anything_waits, alone)?);
    }
    limit::hold_back(&mut works)?;
    let shared = match works.as_slice() {
        [] | [_] => Vec::new(),
        // Where different rows may meet in one target row, every job has its place among all of them.
        several if several.iter().any(|work| !work.rows_are_free) => all_in_order(several)?,
        several => shared_rows(several)?,
    };
    // Rows whose earlier change will be tried again: later ones line up behind it.
    let mut held = HashSet::new();
    for (index, work) in works.iter_mut().enumerate() {
        let later: HashSet<i32> = shared.iter().filter(|job| job.1 == index).map(|job| job.2).collect();
        work.all_but(&later, &mut held)?;
    }
    for (_, index, n) in shared {
        works[index].alone(n, &mut held)?;
    }
    let mut batches_ended = false;
    for mut work in works {
        work.uncover()?;
        take_back::take_back(&work.group, &work.back)?;
        gather::note(place, &work.group, &work.back)?;
        workflow::tell(&work)?;
        batches_ended |= settle::done(installed, &work.group, &work.given, &work.back)?;
        if work.back.iter().any(is_failure) {
            work.details()?;
            count(tally, &work.group, &work.back, work.details.as_deref().unwrap_or_default());
        }
    }
    Ok(batches_ended)
}

/// A failed attempt, or a job that is dead without one.
fn is_failure(back: &Back) -> bool {
    back.tried || back.waiting_for.is_none()
}

fn count(tally: &mut Tally, group: &Group, back: &[Back], details: &[Detail]) {
    let Some(flow) = group.flow else { return };
    for failed in back.iter().filter(|back| is_failure(back)) {
        if let Some(detail) = details.get(failed.n as usize - 1) {
            tally.add(flow, detail.organization, detail.id, failed.error.as_deref().unwrap_or_default());
        }
    }
}

/// `(position, group, number)` of all jobs, in the order of the positions.
fn all_in_order(works: &[Work]) -> Result<Vec<(i64, usize, i32)>> {
    let mut jobs = Vec::new();
    for (index, work) in works.iter().enumerate() {
        jobs.extend((1..).zip(group::rows(&work.group)?).map(|(n, (_, seq))| (seq, index, n)));
    }
    jobs.sort_unstable();
    Ok(jobs)
}

/// `(position, group, number)` of the jobs about rows that more than one group has, in the order of the positions.
fn shared_rows(works: &[Work]) -> Result<Vec<(i64, usize, i32)>> {
    let mut first_seen: HashMap<i64, usize> = HashMap::new();
    let mut shared = HashSet::new();
    let mut rows = Vec::with_capacity(works.len());
    for (index, work) in works.iter().enumerate() {
        let mine = group::rows(&work.group)?;
        for key in mine.iter().filter_map(|(key, _)| *key) {
            if *first_seen.entry(key).or_insert(index) != index {
                shared.insert(key);
            }
        }
        rows.push(mine);
    }
    let mut jobs: Vec<(i64, usize, i32)> = Vec::new();
    for (index, mine) in rows.into_iter().enumerate() {
        let numbered = (1..).zip(mine);
        jobs.extend(
            numbered.filter(|(_, (key, _))| key.is_some_and(|key| shared.contains(&key))).map(|(n, (_, seq))| (seq, index, n)),
        );
    }
    jobs.sort_unstable();
    Ok(jobs)
}

pub(super) fn place_of(mine: Option<Mine>) -> Place {
    if mine.is_some() { Place::Worker } else { Place::Session }
}
