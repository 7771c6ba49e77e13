//! Jobs that are not to run now are put aside: whole groups whose flow is off, broken or paused or gathers, and single ones.

use super::gather;
use super::group::{dead, is_expired, wait_for};
use crate::error::Result;
use crate::flow::apply::Place;
use crate::flow::store::{self as flows, Flow};
use crate::queue::aside as put;
use crate::queue::followers;
use crate::queue::group::Group;
use crate::queue::pauses;
use crate::queue::settle::{self, EXPIRED};
use crate::queue::take_back::Back;
use crate::setup::Installed;
use std::collections::HashSet;

/// Somebody changes at this moment what the job would wait for: it looks again by itself.
const SOON: f64 = 0.1;

/// A group whose flow is off or broken. True: it was put aside.
pub fn off(installed: Installed, place: Place, group: &Group, flow: &Flow) -> Result<bool> {
    let reason = match (flow.enabled, &flow.broken) {
        (false, _) => "flow disabled",
        (true, Some(_)) => "flow broken",
        (true, None) => return Ok(false),
    };
    // Whoever switches the flow on releases the jobs that wait for it: these as well, or they look again themselves.
    let after = if flows::stays_off(flow.id)? { None } else { Some(SOON) };
    all(installed, place, group, (1..=group.batch.size).map(|n| Back { after, ..wait_for(reason)(n) }).collect())?;
    Ok(true)
}

/// The jobs of a group that do not run now, though their flow does: they are paused, or gather, unless a limit of their system
/// says when each of them runs.
pub fn not_now(installed: Installed, group: &Group, flow: &Flow, may_gather: bool) -> Result<Vec<Back>> {
    let mut back = paused(installed, group, flow)?;
    let gathers = flow.definition.batch.filter(|_| may_gather && !group.gathered);
    if let Some(window) = gathers.map(|gather| gather.window) {
        let paused: HashSet<i32> = back.iter().map(|back| back.n).collect();
        // Whoever is tried again does not wait for others once more.
        let attempts = if group.waited { group.attempts.value::<Vec<i32>>()?.unwrap_or_default() } else { Vec::new() };
        let gathers = |n: &i32| !paused.contains(n) && attempts.get(*n as usize - 1).is_none_or(|attempts| *attempts <= 1);
        let wait = |n| Back { after: Some(window), ..wait_for(gather::REASON)(n) };
        back.extend((1..=group.batch.size).filter(gathers).map(wait));
    }
    Ok(back)
}

/// Those that are paused, as they are to be put aside.
fn paused(installed: Installed, group: &Group, flow: &Flow) -> Result<Vec<Back>> {
    let paused = pauses::paused(installed, group, flow)?;
    if paused.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: HashSet<i32> = paused.iter().map(|(_, pause)| *pause).collect();
    let kept = pauses::keep(wanted.into_iter().collect())?;
    let wait = |(n, pause): (i32, i32)| match kept.contains(&pause) {
        true => for_pause(n, pause),
        false => Back { after: Some(SOON), ..wait_for("run_at")(n) },
    };
    Ok(paused.into_iter().map(wait).collect())
}

/// Jobs that have an earlier change of their row before them wait for it, or, if that one is paused, for the same.
pub fn behind(installed: Installed, group: &Group, flow: i32) -> Result<Vec<Back>> {
    let siblings = flows::siblings(flow)?;
    let parked = followers::parked(group, &siblings)?;
    let paused = pauses::behind(installed, group, &siblings, &parked)?;
    let wait = |n: i32| paused.get(&n).map_or_else(|| wait_for("earlier change")(n), |pause| for_pause(n, *pause));
    Ok(parked.into_iter().map(wait).collect())
}

/// Of those only the ones behind a paused job, the others are looked at with their limits.
pub fn behind_paused(installed: Installed, group: &Group, flow: i32) -> Result<Vec<Back>> {
    if pauses::current(installed)?.is_empty() {
        return Ok(Vec::new());
    }
    Ok(behind(installed, group, flow)?.into_iter().filter(|back| back.paused_by.is_some()).collect())
}

fn for_pause(n: i32, pause: i32) -> Back {
    Back { paused_by: Some(pause), ..wait_for("paused")(n) }
}

/// All jobs of a group, but for those whose time is over.
pub fn all(installed: Installed, place: Place, group: &Group, mut back: Vec<Back>) -> Result<()> {
    let given = settle::given(installed, group)?;
    for job in &mut back {
        if is_expired(&given, job.n) {
            *job = dead(job.n, EXPIRED.0, EXPIRED.1);
        }
    }
    put::put(group, &back)?;
    gather::note(place, group, &back)?;
    settle::expire_later(group, &given, &back)
}
