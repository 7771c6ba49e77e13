//! One batch: claim, apply group by group, record. Everything in the caller's one transaction.

use super::limit::{self, Limited};
use super::{aside, gather, hand_over};
use crate::error::Result;
use crate::flow::apply::{self, Causes, Failed, Place, Run, Stop};
use crate::flow::cause::{self, Cause};
use crate::flow::shadow;
use crate::flow::store as flows;
use crate::flow::store::Flow;
use crate::notify::{self, Tally};
use crate::pg::shmem::{Mine, NONE, Source};
use crate::pg::{gauges, role, xact};
use crate::queue::batches;
use crate::queue::ledger;
use crate::queue::limits;
use crate::queue::log::Log;
use crate::queue::pressure;
use crate::queue::settle::{self, EXPIRED, Given};
use crate::queue::shadow as queue_shadow;
use crate::queue::share::Pick;
use crate::queue::store::{self, Back, Claim, Covers, Detail, Group, Segment};
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
    /// Others may have waited for these jobs.
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
        done.awaited |= run(client, installed, Place::Worker, claim)?;
        let _acting = role::internal(installed.owner);
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
        awaited: claim.jobs > 0 && claim.anything_waits,
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
        let claim = store::claim_due(client, lanes, most, looked)?;
        if let Some(mine) = mine {
            mine.busy(Source::Waiting, 0, 0, claim.last);
        }
        drop(acting);
        let done = done_by(&claim);
        run(client, installed, place_of(mine), claim)?;
        if done.jobs > 0 {
            let _acting = role::internal(installed.owner);
            store::release_followers(&*flows::classes()?)?;
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
        store::take_back(group, &back)?;
        count(&mut tally, group, &back, &store::details(group)?);
    }
    notify::failures(installed, &tally)
}

/// The job at one position, by itself: done, or condemned without being tried. It is passed over when it is not there any
/// more, or when another one would come first.
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
                store::claim_due(client, &[lane as i16], 1, looked)?
            }
        };
        // By itself, not with others.
        claim.groups.iter_mut().for_each(|group| group.gathered = true);
        if claim.jobs > 0 && claim.last != position && condemned.is_some() {
            return Err(crate::error::UsherError::internal("another job came first"));
        }
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
            store::release_followers(&*flows::classes()?)?;
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
        store::take_back(&work.group, &work.back)?;
        gather::note(place, &work.group, &work.back)?;
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
        jobs.extend((1..).zip(store::rows(&work.group)?).map(|(n, (_, seq))| (seq, index, n)));
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
        let mine = store::rows(&work.group)?;
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

fn all(group: &Group, make: impl Fn(i32) -> Back) -> Vec<Back> {
    (1..=group.batch.size).map(make).collect()
}

pub(super) fn wait_for(reason: &'static str) -> impl Fn(i32) -> Back {
    move |n| Back { n, waiting_for: Some(reason), ..Back::default() }
}

pub(super) fn dead(n: i32, error: &str, sqlstate: &str) -> Back {
    Back { n, error: Some(error.to_owned()), sqlstate: Some(sqlstate.to_owned()), ..Back::default() }
}

/// Takes a group up, or puts it where it belongs when its flow does not run now.
fn begin(
    client: &mut SpiClient<'_>,
    installed: Installed,
    place: Place,
    group: Group,
    anything_waits: bool,
    alone: bool,
) -> Result<Option<Work>> {
    let Some(id) = group.flow else {
        store::take_back(&group, &all(&group, |n| dead(n, "the job names no flow", "XX000")))?;
        return Ok(None);
    };
    let Some(flow) = flows::newest(id)? else {
        store::cancel_group(&group, "its flow was dropped")?;
        settle::cancelled(installed, &group)?;
        return Ok(None);
    };
    if aside::off(installed, place, &group, &flow)? {
        return Ok(None);
    }
    let limited = limit::of(installed, &flow)?;
    let not_now = aside::not_now(installed, &group, &flow, limited.is_none())?;
    if not_now.len() == usize::try_from(group.batch.size).unwrap_or(0) {
        aside::all(installed, place, &group, not_now)?;
        return Ok(None);
    }
    let some_not_now = !not_now.is_empty();
    // Flows that share an order with others are done job by job where they meet.
    let (group, segments, covers) = if alone && limited.is_none() && flow.coalesces() && installed.up_to_date {
        group.arrange_newest(client)?
    } else {
        let (group, segments) = group.arrange(client, flow.rows_are_free())?;
        (group, segments, Vec::new())
    };
    let waited = group.waited;
    let rows_are_free = flow.rows_are_free();
    let given = if waited || flow.takes_requests() { settle::given(installed, &group)? } else { HashMap::new() };
    let expired: Vec<i32> = given.keys().copied().filter(|n| is_expired(&given, *n)).collect();
    let mut work = Work {
        id,
        installed,
        place,
        group,
        waited,
        rows_are_free,
        given,
        covers,
        limited,
        leaders: false,
        segments,
        back: Vec::new(),
        gone: HashSet::new(),
        details: None,
    };
    // Neither done nor given back by themselves.
    work.gone.extend(work.covers.iter().map(|(n, _)| *n));
    expired.into_iter().for_each(|n| work.give_back(dead(n, EXPIRED.0, EXPIRED.1)));
    if some_not_now {
        // Once more: the jobs have other numbers now.
        aside::not_now(installed, &work.group, &flow, work.limited.is_none())?.into_iter().for_each(|back| work.give_back(back));
    }
    if work.group.some_homeless {
        for n in store::homeless(&work.group)? {
            work.give_back(dead(n, NO_ORGANIZATION, "23503"));
        }
    }
    work.leaders = anything_waits && work.limited.is_some() && !flow.definition.is_external();
    if anything_waits {
        let behind = if work.leaders { aside::behind_paused } else { aside::behind };
        behind(installed, &work.group, id)?.into_iter().for_each(|back| work.give_back(back));
    }
    if flow.definition.is_external() {
        hand_over::places(&work.group, &work.segments, &work.gone)?.into_iter().for_each(|back| work.give_back(back));
        if let Some(limited) = work.limited.take() {
            limit::note_keys(&mut work, &limited)?;
        }
        work.segments.clear();
    }
    Ok(Some(work))
}

pub(super) fn is_expired(given: &HashMap<i32, Given>, n: i32) -> bool {
    given.get(&n).is_some_and(|given| given.expired)
}

const NO_ORGANIZATION: &str = "the row belongs to no organization that exists; an operator can run the job for one with \
                               usher.retry_sync_job(job, {\"organization_id\": …})";

/// A group on its way.
pub(super) struct Work {
    pub(super) id: i32,
    pub(super) installed: Installed,
    place: Place,
    pub(super) group: Group,
    /// Its jobs come from where they waited.
    pub(super) waited: bool,
    /// The limits that its jobs must pass.
    pub(super) limited: Option<Limited>,
    /// Some may have an earlier change of their row waiting: to be looked at with the limits.
    pub(super) leaders: bool,
    /// Different rows never meet in one target row.
    rows_are_free: bool,
    /// What its jobs were asked for beyond their payload.
    given: HashMap<i32, Given>,
    /// Jobs that are not done because a newer one of their row is.
    covers: Covers,
    segments: Vec<Segment>,
    pub(super) back: Vec<Back>,
    /// Numbers of the jobs in `back`.
    pub(super) gone: HashSet<i32>,
    details: Option<Vec<Detail>>,
}

impl Work {
    pub(super) fn give_back(&mut self, back: Back) {
        if self.gone.insert(back.n) {
            self.back.push(back);
        }
    }

    pub(super) fn details(&mut self) -> Result<&[Detail]> {
        if self.details.is_none() {
            self.details = Some(store::details(&self.group)?);
        }
        Ok(self.details.as_deref().unwrap_or_default())
    }

    /// Covered jobs count as done when the one that covers them is. When that one goes back, so do they, to be done by
    /// themselves: an older image may fit where the newest does not.
    fn uncover(&mut self) -> Result<()> {
        let fates: HashMap<i32, (Option<&'static str>, Option<i32>)> =
            self.back.iter().map(|back| (back.n, (back.waiting_for, back.paused_by))).collect();
        let mut covered = Vec::new();
        for (n, by) in std::mem::take(&mut self.covers) {
            match fates.get(&by) {
                _ if fates.contains_key(&n) => {}
                None => covered.push((n, by)),
                Some((None | Some("retry"), _)) => self.back.push(Back { after: Some(0.0), ..wait_for("retry")(n) }),
                Some((Some(reason), paused_by)) => self.back.push(Back { paused_by: *paused_by, ..wait_for(reason)(n) }),
            }
        }
        store::note_covered(&self.group, &covered)
    }

    /// Everything but some jobs that must be done in an order with those of other groups.
    fn all_but(&mut self, later: &HashSet<i32>, held: &mut HashSet<i64>) -> Result<()> {
        for segment in self.segments.clone() {
            self.segment(segment, later, held)?;
        }
        Ok(())
    }

    /// One job by itself.
    fn alone(&mut self, n: i32, held: &mut HashSet<i64>) -> Result<()> {
        match self.segments.iter().find(|segment| (segment.first..=segment.last).contains(&n)) {
            Some(segment) => self.segment(Segment { first: n, last: n, ..*segment }, &HashSet::new(), held),
            None => Ok(()),
        }
    }

    fn segment(&mut self, segment: Segment, later: &HashSet<i32>, held: &mut HashSet<i64>) -> Result<()> {
        let numbers = segment.first..=segment.last;
        if segment.hop > cause::MOST_HOPS {
            let reason = format!(
                "the chain of causes is longer than {} hops: flows that start each other go in a circle",
                cause::MOST_HOPS
            );
            numbers.for_each(|n| self.give_back(dead(n, &reason, "54001")));
            return Ok(());
        }
        if !held.is_empty() {
            let part = &self.details()?[segment.first as usize - 1..segment.last as usize];
            let behind: Vec<i32> = numbers
                .clone()
                .zip(part)
                .filter(|(_, detail)| detail.row_key.is_some_and(|key| held.contains(&key)))
                .map(|(n, _)| n)
                .collect();
            behind.into_iter().for_each(|n| self.give_back(wait_for("earlier change")(n)));
        }
        let Some(mut flow) = flows::get(self.id, segment.version)? else {
            numbers.for_each(|n| self.give_back(dead(n, "this version of its flow is gone", "42704")));
            return Ok(());
        };
        if self.place == Place::Worker {
            crate::pg::bgw::report_jobs(&flow.name, segment.last - segment.first + 1);
        }
        // Whether a job writes was settled when it was made.
        let in_shadow = flow.definition.shadow;
        let mut another = false;
        if let Err(error) = flow.program() {
            // A version that no longer fits may have been mended by a newer one.
            match flows::newest(self.id)? {
                // What was to be written is not tried in shadow, nor does a definition on trial write for it.
                Some(newest) if newest.definition.shadow && !in_shadow => {
                    let reason = format!(
                        "its version {} of the flow no longer fits ({}), and the present one is in shadow; retry it when that is over",
                        segment.version, error.message
                    );
                    numbers.for_each(|n| self.give_back(dead(n, &reason, "55000")));
                    return Ok(());
                }
                Some(newest) if newest.program().is_ok() => {
                    flow = newest;
                    another = true;
                }
                _ => return self.broken(&flow, &error.message, segment.first),
            }
        }
        // A job that waited, or is done by another version than its own, may lack a column: it would be written as NULL.
        if another || self.waited {
            let compiled = &flow.compiled;
            for (n, lost) in store::lacking(&self.group, (segment.first, segment.last), &compiled.new, &compiled.old)? {
                let error = format!(
                    "it carries no {lost}, which its flow needs now; give the value with usher.retry_sync_job(job, changes)"
                );
                self.give_back(dead(n, &error, "42703"));
            }
        }
        let organizations: Vec<pgrx::Uuid> =
            if in_shadow { self.details()?.iter().map(|detail| detail.organization).collect() } else { Vec::new() };
        let chain = self.causes(&flow, segment)?;
        let skipped: Vec<i32> = numbers.filter(|n| self.gone.contains(n) || later.contains(n)).collect();
        let mut parts = without((segment.first, segment.last), &skipped);
        let calls_per_batch = flow.definition.calls_per_batch();
        let of = if calls_per_batch { gather::organizations(&self.group)? } else { Vec::new() };
        if calls_per_batch {
            // What a function gets in one call is of one organization.
            parts = parts.into_iter().flat_map(|part| gather::by_organization(part, &of)).collect();
        }
        for (first, last) in parts {
            let run = Run {
                flow: &flow,
                owner: self.installed.owner,
                batch: &self.group.batch,
                causes: match &chain {
                    Chain::Shared(cause) => Causes::Shared(cause, of.get(first as usize - 1).copied()),
                    Chain::ByTarget(causes) => Causes::ByTarget(causes),
                    Chain::Each(causes) => Causes::Each(causes),
                },
                place: self.place,
            };
            if in_shadow {
                match try_out(&run, &self.group, segment, first, last, &organizations)? {
                    None => continue,
                    Some((n, Stop::Broken(failure))) => return self.broken(&flow, &failure.line(), n),
                }
            }
            match apply::apply(&run, first, last) {
                Ok(failed) => self.failed(&flow, failed, held)?,
                // Earlier parts have taken effect; everything from here on waits.
                Err(Stop::Broken(failure)) => return self.broken(&flow, &failure.line(), first),
            }
        }
        Ok(())
    }

    /// The flow no longer fits: what has not been done from a number on waits.
    pub(super) fn broken(&mut self, flow: &Flow, reason: &str, first: i32) -> Result<()> {
        warning!("flow \"{}\" no longer fits the database and is broken: {reason}; its jobs wait", flow.name);
        flows::set_state(flow.id, Some(reason))?;
        (first..=self.group.batch.size).for_each(|n| self.give_back(wait_for("flow broken")(n)));
        self.segments.clear();
        Ok(())
    }

    /// Failed jobs are tried again by their flow's rule, or are dead.
    pub(super) fn failed(&mut self, flow: &Flow, failed: Vec<Failed>, held: &mut HashSet<i64>) -> Result<()> {
        for Failed { n, failure } in failed {
            let detail = &self.details()?[n as usize - 1];
            let (attempts, row_key) = (detail.attempts, detail.row_key);
            let own = self.given.get(&n).and_then(|given| given.retry.as_ref());
            let after = own.unwrap_or(&flow.definition.retry).next(attempts, crate::queue::chance());
            if after.is_some() {
                held.extend(row_key);
            }
            self.give_back(Back {
                n,
                waiting_for: after.map(|_| "retry"),
                after,
                error: Some(failure.line()),
                sqlstate: Some(failure.sqlstate),
                tried: true,
                ..Back::default()
            });
        }
        Ok(())
    }

    /// What follow-up jobs inherit. In a circle of flows the trail of each must be exact.
    fn causes(&mut self, flow: &Flow, segment: Segment) -> Result<Chain> {
        let hop = segment.hop + 1;
        // What follows from a call for a whole batch follows from all its jobs: its hops are counted, which ends a circle.
        if !flow.in_circle || flow.definition.calls_per_batch() {
            return Ok(Chain::Shared(Cause { hop, ..Cause::default() }));
        }
        let causes: Vec<(Cause, pgrx::Uuid)> = self
            .details()?
            .iter()
            .map(|detail| {
                let mut trail = cause::read_trail(detail.trail.as_deref());
                trail.extend(detail.step);
                (Cause { hop, job: Some(*detail.id.as_bytes()), trail }, detail.organization)
            })
            .collect();
        // One row per job and a key to find it by: the causes can be told apart after one statement for all.
        Ok(if flow.program()?.parents.is_some() { Chain::ByTarget(causes) } else { Chain::Each(causes) })
    }
}

/// Jobs `first..=last` in shadow, one by one: what they would have done is kept, nothing else. Some: the job at which the
/// flow turned out not to fit any more.
fn try_out(
    run: &Run<'_>,
    group: &Group,
    segment: Segment,
    first: i32,
    last: i32,
    organizations: &[pgrx::Uuid],
) -> Result<Option<(i32, Stop)>> {
    let cause = Cause { hop: segment.hop + 1, ..Cause::default() };
    let mut tried = Vec::with_capacity(usize::try_from(last - first + 1).unwrap_or(0));
    let mut stopped = None;
    for n in first..=last {
        match shadow::attempt(run, n, &cause, organizations[n as usize - 1]) {
            Ok(job) => tried.push(job),
            Err(stop) => {
                stopped = Some((n, stop));
                break;
            }
        }
    }
    queue_shadow::record(group, segment.version, &tried)?;
    Ok(stopped)
}

enum Chain {
    Shared(Cause),
    ByTarget(Vec<(Cause, pgrx::Uuid)>),
    Each(Vec<(Cause, pgrx::Uuid)>),
}

/// The parts of a range that remain when some numbers are left out.
fn without((first, last): (i32, i32), skipped: &[i32]) -> Vec<(i32, i32)> {
    let mut out = Vec::new();
    let mut from = first;
    let mut inside: Vec<i32> = skipped.iter().copied().filter(|n| (first..=last).contains(n)).collect();
    inside.sort_unstable();
    for n in inside {
        if from < n {
            out.push((from, n - 1));
        }
        from = n + 1;
    }
    if from <= last {
        out.push((from, last));
    }
    out
}

#[cfg(test)]
mod unit {
    use super::without;

    #[test]
    fn ranges_leave_out_what_is_skipped() {
        assert_eq!(without((1, 5), &[]), [(1, 5)]);
        assert_eq!(without((1, 5), &[3]), [(1, 2), (4, 5)]);
        assert_eq!(without((1, 3), &[3, 1, 2]), []);
        assert_eq!(without((2, 4), &[1, 4, 9]), [(2, 3)]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(last in 0i32..30, skipped in proptest::collection::vec(1i32..30, 0..10)) {
            let kept: Vec<i32> = without((1, last), &skipped).into_iter().flat_map(|(a, b)| a..=b).collect();
            let wanted: Vec<i32> = (1..=last).filter(|n| !skipped.contains(n)).collect();
            proptest::prop_assert_eq!(kept, wanted);
        }
    }
}
