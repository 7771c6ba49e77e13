//! One batch: claim, apply group by group, record. Everything in the caller's one transaction.

use crate::error::Result;
use crate::flow::apply::{self, Causes, Failed, Place, Run, Stop};
use crate::flow::cause::{self, Cause};
use crate::flow::shadow;
use crate::flow::store as flows;
use crate::flow::store::Flow;
use crate::notify::{self, Tally};
use crate::pg::role;
use crate::pg::shmem::{Mine, Source};
use crate::queue::shadow as queue_shadow;
use crate::queue::store::{self, Back, Claim, Detail, Group, Segment};
use crate::setup::Installed;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a batch did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    pub jobs: i32,
    /// The last position that was taken.
    pub last: i64,
    /// Another process works on the lane.
    pub busy: bool,
}

/// Two processes never work on one lane at a time: that would break the order of a row's changes.
fn take_lanes(lanes: &[i16]) -> bool {
    lanes.iter().all(|lane| crate::pg::locks::try_lane(*lane))
}

/// Ready jobs of one lane, from a position on.
pub fn ready(installed: Installed, lane: usize, position: i64, most: i32, mine: Option<Mine>) -> Result<Done> {
    if !take_lanes(&[lane as i16]) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let claim = store::claim_ready(client, lane, position, most)?;
        if let Some(mine) = mine {
            mine.busy(Source::Queue, lane, position, claim.last);
        }
        drop(acting);
        let done = Done { jobs: claim.jobs, last: claim.last, busy: false };
        run(client, installed, place_of(mine), claim)?;
        Ok(done)
    })
}

/// Waiting jobs that are due now.
pub fn due(installed: Installed, lanes: &[i16], most: i32, mine: Option<Mine>) -> Result<Done> {
    if !take_lanes(lanes) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let claim = store::claim_due(client, lanes, most)?;
        if let Some(mine) = mine {
            mine.busy(Source::Waiting, 0, 0, claim.last);
        }
        drop(acting);
        let done = Done { jobs: claim.jobs, last: claim.last, busy: false };
        run(client, installed, place_of(mine), claim)?;
        if done.jobs > 0 {
            let _acting = role::internal(installed.owner);
            store::release_followers(&*flows::classes()?)?;
        }
        Ok(done)
    })
}

/// One ready job of a lane that has made every batch fail: it goes to the dead letters without being tried again, so
/// that the others go on.
pub fn bury(installed: Installed, lane: usize, position: i64, reason: &str) -> Result<Done> {
    if !take_lanes(&[lane as i16]) {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let _acting = role::internal(installed.owner);
        let claim = store::claim_ready(client, lane, position, 1)?;
        let mut tally = Tally::default();
        for group in &claim.groups {
            let back = all(group, |n| dead(n, reason, "XX000"));
            store::take_back(group, &back)?;
            count(&mut tally, group, &back, &store::details(group)?);
        }
        notify::failures(installed, &tally)?;
        Ok(Done { jobs: claim.jobs, last: claim.last, busy: false })
    })
}

fn run(client: &mut SpiClient<'_>, installed: Installed, place: Place, claim: Claim) -> Result<()> {
    if claim.groups.is_empty() {
        return Ok(());
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
    for groups in by_class.into_values() {
        class(client, installed, place, groups, anything_waits, &mut tally)?;
    }
    notify::failures(installed, &tally)
}

fn class(
    client: &mut SpiClient<'_>,
    installed: Installed,
    place: Place,
    groups: Vec<Group>,
    anything_waits: bool,
    tally: &mut Tally,
) -> Result<()> {
    let mut works = Vec::with_capacity(groups.len());
    for group in groups {
        works.extend(begin(client, installed, place, group, anything_waits)?);
    }
    let shared = if works.len() > 1 { shared_rows(&works)? } else { Vec::new() };
    // Rows whose earlier change will be tried again: later ones line up behind it.
    let mut held = HashSet::new();
    for (index, work) in works.iter_mut().enumerate() {
        let later: HashSet<i32> = shared.iter().filter(|job| job.1 == index).map(|job| job.2).collect();
        work.all_but(&later, &mut held)?;
    }
    for (_, index, n) in shared {
        works[index].alone(n, &mut held)?;
    }
    for mut work in works {
        store::take_back(&work.group, &work.back)?;
        if work.back.iter().any(is_failure) {
            work.details()?;
            count(tally, &work.group, &work.back, work.details.as_deref().unwrap_or_default());
        }
    }
    Ok(())
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

fn place_of(mine: Option<Mine>) -> Place {
    if mine.is_some() { Place::Worker } else { Place::Session }
}

fn all(group: &Group, make: impl Fn(i32) -> Back) -> Vec<Back> {
    (1..=group.batch.size).map(make).collect()
}

fn wait_for(reason: &'static str) -> impl Fn(i32) -> Back {
    move |n| Back { n, waiting_for: Some(reason), after: None, error: None, sqlstate: None, tried: false }
}

fn dead(n: i32, error: &str, sqlstate: &str) -> Back {
    Back { n, waiting_for: None, after: None, error: Some(error.to_owned()), sqlstate: Some(sqlstate.to_owned()), tried: false }
}

/// Takes a group up, or puts it where it belongs when its flow does not run now.
fn begin(
    client: &mut SpiClient<'_>,
    installed: Installed,
    place: Place,
    group: Group,
    anything_waits: bool,
) -> Result<Option<Work>> {
    let Some(id) = group.flow else {
        store::take_back(&group, &all(&group, |n| dead(n, "the job names no flow", "XX000")))?;
        return Ok(None);
    };
    let Some(flow) = flows::newest(id)? else {
        store::cancel_group(&group, "its flow was dropped")?;
        return Ok(None);
    };
    let waits = match (flow.enabled, &flow.broken) {
        (false, _) => Some("flow disabled"),
        (true, Some(_)) => Some("flow broken"),
        (true, None) => None,
    };
    if let Some(reason) = waits {
        // Whoever switches the flow on releases the jobs that wait for it: these as well, or they look again themselves.
        let after = if flows::stays_off(id)? { None } else { Some(0.1) };
        store::take_back(&group, &all(&group, |n| Back { after, ..wait_for(reason)(n) }))?;
        return Ok(None);
    }
    let (group, segments) = group.arrange(client, flow.rows_are_free())?;
    let waited = group.waited;
    let mut work = Work { id, installed, place, group, waited, segments, back: Vec::new(), gone: HashSet::new(), details: None };
    if work.group.some_homeless {
        for n in store::homeless(&work.group)? {
            work.give_back(dead(n, NO_ORGANIZATION, "23503"));
        }
    }
    if anything_waits {
        for n in store::parked(&work.group, &flows::siblings(id)?)? {
            work.give_back(wait_for("earlier change")(n));
        }
    }
    Ok(Some(work))
}

const NO_ORGANIZATION: &str = "the row belongs to no organization that exists; an operator can run the job for one with \
                               usher.retry_sync_job(job, {\"organization_id\": …})";

/// A group on its way.
struct Work {
    id: i32,
    installed: Installed,
    place: Place,
    group: Group,
    /// Its jobs come from where they waited.
    waited: bool,
    segments: Vec<Segment>,
    back: Vec<Back>,
    /// Numbers of the jobs in `back`.
    gone: HashSet<i32>,
    details: Option<Vec<Detail>>,
}

impl Work {
    fn give_back(&mut self, back: Back) {
        if self.gone.insert(back.n) {
            self.back.push(back);
        }
    }

    fn details(&mut self) -> Result<&[Detail]> {
        if self.details.is_none() {
            self.details = Some(store::details(&self.group)?);
        }
        Ok(self.details.as_deref().unwrap_or_default())
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
        for (first, last) in without((segment.first, segment.last), &skipped) {
            let run = Run {
                flow: &flow,
                owner: self.installed.owner,
                batch: &self.group.batch,
                causes: match &chain {
                    Chain::Shared(cause) => Causes::Shared(cause, None),
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
    fn broken(&mut self, flow: &Flow, reason: &str, first: i32) -> Result<()> {
        warning!("flow \"{}\" no longer fits the database and is broken: {reason}; its jobs wait", flow.name);
        flows::set_state(flow.id, Some(reason))?;
        (first..=self.group.batch.size).for_each(|n| self.give_back(wait_for("flow broken")(n)));
        self.segments.clear();
        Ok(())
    }

    /// Failed jobs are tried again by their flow's rule, or are dead.
    fn failed(&mut self, flow: &Flow, failed: Vec<Failed>, held: &mut HashSet<i64>) -> Result<()> {
        for Failed { n, failure } in failed {
            let detail = &self.details()?[n as usize - 1];
            let (attempts, row_key) = (detail.attempts, detail.row_key);
            let after = flow.definition.retry.next(attempts, chance());
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
            });
        }
        Ok(())
    }

    /// What follow-up jobs inherit. In a circle of flows the trail of each must be exact.
    fn causes(&mut self, flow: &Flow, segment: Segment) -> Result<Chain> {
        let hop = segment.hop + 1;
        if !flow.in_circle {
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

/// A number in 0..1 for jitter.
fn chance() -> f64 {
    let bytes = *crate::pg::ids::uuid_v7().as_bytes();
    f64::from(u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])) / f64::from(u32::MAX)
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
