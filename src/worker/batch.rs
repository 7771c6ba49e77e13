//! One batch: claim, apply group by group, record. Everything in the caller's one transaction.

use crate::error::Result;
use crate::flow::apply::{self, Causes, Failed, Place, Run, Stop};
use crate::flow::cause::{self, Cause};
use crate::flow::store as flows;
use crate::flow::store::Flow;
use crate::pg::shmem::{Mine, Source};
use crate::pg::{role, spi};
use crate::queue::store::{self, Back, Claim, Detail, Group, Segment};
use crate::setup::Installed;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use std::collections::HashSet;

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
const LOCK: i32 = 1_970_497_650;

fn take_lanes(lanes: &[i16]) -> Result<bool> {
    for lane in lanes {
        let taken = spi::read::<bool>(
            "SELECT pg_catalog.pg_try_advisory_xact_lock($1, $2)",
            &[spi::arg(LOCK), spi::arg(i32::from(*lane))],
        )?;
        if taken != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ready jobs of one lane, from a position on.
pub fn ready(installed: Installed, lane: usize, position: i64, most: i32, mine: Option<Mine>) -> Result<Done> {
    if !take_lanes(&[lane as i16])? {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let claim = store::claim_ready(client, lane, position, most)?;
        if let Some(mine) = mine {
            mine.busy(Source::Queue, lane, position, claim.last);
        }
        drop(acting);
        run(client, installed, &claim)?;
        Ok(Done { jobs: claim.jobs, last: claim.last, busy: false })
    })
}

/// Waiting jobs that are due now.
pub fn due(installed: Installed, lanes: &[i16], most: i32, mine: Option<Mine>) -> Result<Done> {
    if !take_lanes(lanes)? {
        return Ok(Done { busy: true, ..Done::default() });
    }
    Spi::connect_mut(|client| {
        let acting = role::internal(installed.owner);
        let claim = store::claim_due(client, lanes, most)?;
        if let Some(mine) = mine {
            mine.busy(Source::Waiting, 0, 0, claim.last);
        }
        drop(acting);
        run(client, installed, &claim)?;
        if claim.jobs > 0 {
            let _acting = role::internal(installed.owner);
            store::release_followers()?;
        }
        Ok(Done { jobs: claim.jobs, last: claim.last, busy: false })
    })
}

fn run(_client: &mut SpiClient<'_>, installed: Installed, claim: &Claim) -> Result<()> {
    if claim.groups.is_empty() {
        return Ok(());
    }
    let _acting = role::internal(installed.owner);
    let anything_waits = store::anything_waits()?;
    for group in &claim.groups {
        one(installed, group, anything_waits)?;
    }
    Ok(())
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

fn one(installed: Installed, group: &Group, anything_waits: bool) -> Result<()> {
    let Some(id) = group.flow else {
        return store::take_back(group, &all(group, |n| dead(n, "the job names no flow", "XX000")));
    };
    let newest = group.segments.iter().map(|segment| segment.version).max().unwrap_or(0);
    let Some(flow) = flows::get(id, newest)? else {
        return store::cancel_group(group, "its flow was dropped");
    };
    if !flow.enabled {
        return store::take_back(group, &all(group, wait_for("flow disabled")));
    }
    if flow.broken.is_some() {
        return store::take_back(group, &all(group, wait_for("flow broken")));
    }
    let mut back: Vec<Back> = store::homeless(group)?.into_iter().map(|n| dead(n, NO_ORGANIZATION, "23503")).collect();
    if anything_waits {
        back.extend(store::parked(group)?.into_iter().map(wait_for("earlier change")));
    }
    let mut work = Work { installed, group, back, details: None, held: HashSet::new() };
    for segment in &group.segments {
        if let Went::BrokenFrom(first) = work.segment(id, *segment)? {
            let done: HashSet<i32> = work.back.iter().map(|back| back.n).collect();
            let rest = (first..=group.batch.size).filter(|n| !done.contains(n));
            work.back.extend(rest.map(wait_for("flow broken")));
            break;
        }
    }
    store::take_back(group, &work.back)
}

const NO_ORGANIZATION: &str = "the row belongs to no organization that exists; an operator can run the job for one with \
                               usher.retry_sync_job(job, {\"organization_id\": …})";

enum Went {
    On,
    /// The flow no longer fits: nothing has happened from this number on.
    BrokenFrom(i32),
}

/// A group on its way.
struct Work<'a> {
    installed: Installed,
    group: &'a Group,
    back: Vec<Back>,
    details: Option<Vec<Detail>>,
    /// Rows whose earlier change will be tried again: later ones line up behind it.
    held: HashSet<i64>,
}

impl Work<'_> {
    fn details(&mut self) -> Result<&[Detail]> {
        if self.details.is_none() {
            self.details = Some(store::details(self.group)?);
        }
        Ok(self.details.as_deref().unwrap_or_default())
    }

    fn segment(&mut self, id: i32, segment: Segment) -> Result<Went> {
        let numbers = segment.first..=segment.last;
        if segment.hop > cause::MOST_HOPS {
            let reason = format!(
                "the chain of causes is longer than {} hops: flows that start each other go in a circle",
                cause::MOST_HOPS
            );
            self.back.extend(numbers.map(|n| dead(n, &reason, "54001")));
            return Ok(Went::On);
        }
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let later: Vec<i32> = numbers
                .clone()
                .zip(&self.details()?[segment.first as usize - 1..])
                .filter(|(_, detail)| detail.row_key.is_some_and(|key| held.contains(&key)))
                .map(|(n, _)| n)
                .collect();
            self.held = held;
            self.back.extend(later.into_iter().map(wait_for("earlier change")));
        }
        let Some(mut flow) = flows::get(id, segment.version)? else {
            self.back.extend(numbers.map(|n| dead(n, "this version of its flow is gone", "42704")));
            return Ok(Went::On);
        };
        if let Err(error) = flow.program() {
            // A version that no longer fits may have been mended by a newer one.
            match flows::newest(id)? {
                Some(newest) if newest.program().is_ok() => flow = newest,
                _ => {
                    broken(&flow, &error.message)?;
                    return Ok(Went::BrokenFrom(segment.first));
                }
            }
        }
        let chain = self.causes(&flow, segment)?;
        let group = self.group;
        let run = Run {
            flow: &flow,
            owner: self.installed.owner,
            batch: &group.batch,
            causes: match &chain {
                Chain::Shared(cause) => Causes::Shared(cause, None),
                Chain::ByTarget(causes) => Causes::ByTarget(causes),
                Chain::Each(causes) => Causes::Each(causes),
            },
            place: Place::Worker,
        };
        let skipped: Vec<i32> = self.back.iter().map(|back| back.n).collect();
        for (first, last) in without((segment.first, segment.last), &skipped) {
            match apply::apply(&run, first, last) {
                Ok(failed) => self.failed(&flow, failed)?,
                Err(Stop::Broken(failure)) => {
                    broken(&flow, &failure.line())?;
                    // Earlier parts of the segment have taken effect; everything from here on waits.
                    return Ok(Went::BrokenFrom(first));
                }
            }
        }
        Ok(Went::On)
    }

    /// Failed jobs are tried again by their flow's rule, or are dead.
    fn failed(&mut self, flow: &Flow, failed: Vec<Failed>) -> Result<()> {
        for Failed { n, failure } in failed {
            let detail = &self.details()?[n as usize - 1];
            let (attempts, row_key) = (detail.attempts, detail.row_key);
            let after = flow.definition.retry.next(attempts, chance());
            if after.is_some() {
                self.held.extend(row_key);
            }
            self.back.push(Back {
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

fn broken(flow: &Flow, reason: &str) -> Result<()> {
    warning!("flow \"{}\" no longer fits the database and is broken: {reason}; its jobs wait", flow.name);
    flows::set_state(flow.id, Some(reason))
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
