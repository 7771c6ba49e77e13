//! One group of a batch, the jobs of one flow: taken up or put where it belongs, done segment by segment, what fails given back.

use super::limit::{self, Limited};
use super::{aside, gather, hand_over};
use crate::conflict;
use crate::error::Result;
use crate::event;
use crate::flow::apply::{self, Causes, Failed, Place, Run, Stop};
use crate::flow::cause::{self, Cause};
use crate::flow::shadow;
use crate::flow::store as flows;
use crate::flow::store::Flow;
use crate::queue::group::{self, Covers, Detail, Group, Segment};
use crate::queue::settle::{self, EXPIRED, Given};
use crate::queue::shadow as queue_shadow;
use crate::queue::take_back::{self, Back};
use crate::setup::Installed;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use std::collections::{HashMap, HashSet};

pub(super) fn all(group: &Group, make: impl Fn(i32) -> Back) -> Vec<Back> {
    (1..=group.batch.size).map(make).collect()
}

pub(super) fn wait_for(reason: &'static str) -> impl Fn(i32) -> Back {
    move |n| Back { n, waiting_for: Some(reason), ..Back::default() }
}

pub(super) fn dead(n: i32, error: &str, sqlstate: &str) -> Back {
    Back { n, error: Some(error.to_owned()), sqlstate: Some(sqlstate.to_owned()), ..Back::default() }
}

/// Takes a group up, or puts it where it belongs when its flow does not run now.
pub(super) fn begin(
    client: &mut SpiClient<'_>,
    installed: Installed,
    place: Place,
    group: Group,
    anything_waits: bool,
    alone: bool,
) -> Result<Option<Work>> {
    let Some(id) = group.flow else {
        take_back::take_back(&group, &all(&group, |n| dead(n, "the job names no flow", "XX000")))?;
        return Ok(None);
    };
    let Some(flow) = flows::newest(id)? else {
        take_back::cancel_group(&group, "its flow was dropped")?;
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
    // Of what is covered the numbers are known by now.
    let group =
        if flow.definition.calls_per_batch() && covers.is_empty() { group.by_organization(client, &segments)? } else { group };
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
        begun: Vec::new(),
    };
    // Neither done nor given back by themselves.
    work.gone.extend(work.covers.iter().map(|(n, _)| *n));
    expired.into_iter().for_each(|n| work.give_back(dead(n, EXPIRED.0, EXPIRED.1)));
    if some_not_now {
        // Once more: the jobs have other numbers now.
        aside::not_now(installed, &work.group, &flow, work.limited.is_none())?.into_iter().for_each(|back| work.give_back(back));
    }
    if work.group.some_homeless {
        for n in group::homeless(&work.group)? {
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

/// What a job waits for, with its pause, and for how long.
type Fate = (Option<&'static str>, Option<i32>, Option<f64>);

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
    pub(super) rows_are_free: bool,
    /// What its jobs were asked for beyond their payload.
    pub(super) given: HashMap<i32, Given>,
    /// Jobs that are not done because a newer one of their row is.
    covers: Covers,
    segments: Vec<Segment>,
    pub(super) back: Vec<Back>,
    /// Numbers of the jobs in `back`.
    pub(super) gone: HashSet<i32>,
    pub(super) details: Option<Vec<Detail>>,
    /// Ranges of jobs that have begun runs of a workflow: first, last, version, hop.
    pub(super) begun: Vec<(i32, i32, i32, i16)>,
}

impl Work {
    pub(super) fn give_back(&mut self, back: Back) {
        if self.gone.insert(back.n) {
            self.back.push(back);
        }
    }

    pub(super) fn details(&mut self) -> Result<&[Detail]> {
        if self.details.is_none() {
            self.details = Some(group::details(&self.group)?);
        }
        Ok(self.details.as_deref().unwrap_or_default())
    }

    /// Covered jobs count as done when the one that covers them is. When that one goes back, so do they, to be done by
    /// themselves: an older image may fit where the newest does not.
    pub(super) fn uncover(&mut self) -> Result<()> {
        let fates: HashMap<i32, Fate> =
            self.back.iter().map(|back| (back.n, (back.waiting_for, back.paused_by, back.after))).collect();
        let mut covered = Vec::new();
        for (n, by) in std::mem::take(&mut self.covers) {
            match fates.get(&by) {
                _ if fates.contains_key(&n) => {}
                None => covered.push((n, by)),
                Some((None | Some("retry"), ..)) => self.back.push(Back { after: Some(0.0), ..wait_for("retry")(n) }),
                Some((Some(reason), paused_by, after)) => {
                    self.back.push(Back { paused_by: *paused_by, after: *after, ..wait_for(reason)(n) });
                }
            }
        }
        group::note_covered(&self.group, &covered)
    }

    /// Everything but some jobs that must be done in an order with those of other groups.
    pub(super) fn all_but(&mut self, later: &HashSet<i32>, held: &mut HashSet<i64>) -> Result<()> {
        for segment in self.segments.clone() {
            self.segment(segment, later, held)?;
        }
        Ok(())
    }

    /// One job by itself.
    pub(super) fn alone(&mut self, n: i32, held: &mut HashSet<i64>) -> Result<()> {
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
        // A job of a merge carries no values: what holds today holds for it too.
        if let (Some(merge), Some(newest)) = (flow.definition.merge(), flows::newest(self.id)?)
            && newest.definition.merge().is_some_and(|now| now.side == merge.side)
        {
            flow = newest;
        }
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
                // What the job carries would be taken for something else.
                Some(newest) if newest.definition.when.word() != flow.definition.when.word() => {
                    let reason = format!(
                        "its version {} of the flow no longer fits ({}), and the present one is started by something else",
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
            for (n, lost) in group::lacking(&self.group, (segment.first, segment.last), &compiled.new, &compiled.old)? {
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
                emit: event::emit_for_flow,
                tell: conflict::TELL,
            };
            if in_shadow {
                match try_out(&run, &self.group, segment, first, last, &organizations)? {
                    None => continue,
                    Some((n, Stop::Broken(failure))) => return self.broken(&flow, &failure.line(), n),
                }
            }
            match apply::apply(&run, first, last) {
                Ok(failed) => {
                    self.failed(&flow, failed, held)?;
                    if !flow.definition.steps().is_empty() {
                        self.begun.push((first, last, flow.version, segment.hop));
                    }
                }
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
        // Something in its statements is not there, or is another thing now.
        if failed.iter().any(|failed| failed.failure.sqlstate.starts_with("42")) {
            flows::compile_again(flow);
        }
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
                (Cause { hop, job: Some(*detail.id.as_bytes()), trail, ..Cause::default() }, detail.organization)
            })
            .collect();
        // One row per job and a key to find it by: the causes can be told apart after one statement for all.
        // An event names the job that it is of.
        Ok(if flow.program()?.parents.is_some() || flow.definition.emits().is_some() {
            Chain::ByTarget(causes)
        } else {
            Chain::Each(causes)
        })
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
