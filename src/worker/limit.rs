//! What of a batch may pass its limits now. The rest waits for its time, and later changes of its rows behind it.

use super::group::{Work, wait_for};
use crate::error::Result;
use crate::flow::apply::Failed;
use crate::flow::store::Flow;
use crate::flow::{limit_keys, store as flows};
use crate::pg::buckets::{Verdict, Wish};
use crate::queue::followers;
use crate::queue::group;
use crate::queue::limits::{self, Keys, Rule};
use crate::queue::take_back::Back;
use crate::setup::Installed;
use pgrx::Uuid;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

pub const RATE_LIMIT: &str = "rate limit";

/// Seconds after which a job is asked again whose limits are just being changed.
const CHANGING: f64 = 0.5;

/// A flow and the limits that its jobs count for.
#[derive(Clone)]
pub struct Limited {
    pub flow: Rc<Flow>,
    pub rules: Rc<Vec<Rule>>,
}

/// The limits of a flow, if it has some.
pub fn of(installed: Installed, flow: &Rc<Flow>) -> Result<Option<Limited>> {
    let rules = limits::of_flow(installed, flow)?;
    Ok((!rules.is_empty()).then(|| Limited { flow: flow.clone(), rules: Rc::new(rules) }))
}

/// The values of a work's keys, job by job. Jobs that have none because an expression fails have failed.
fn values(work: &mut Work, limited: &Limited) -> Result<Vec<Vec<Option<String>>>> {
    if !limited.rules.iter().any(Rule::is_per_key) {
        return Ok(Vec::new());
    }
    if let Err(error) = limited.flow.program() {
        work.broken(&limited.flow, &error.message, 1)?;
        return Ok(Vec::new());
    }
    let (values, failed) = limit_keys::values(&limited.flow, &work.group.batch)?;
    let failed: Vec<Failed> = failed.into_iter().filter(|failed| !work.gone.contains(&failed.n)).collect();
    work.failed(&limited.flow, failed, &mut HashSet::new())?;
    Ok(values)
}

/// A call that leaves the database passes its limits when it is made; what its keys are is worked out here.
pub fn note_keys(work: &mut Work, limited: &Limited) -> Result<()> {
    if !limited.rules.iter().any(Rule::is_per_key) {
        return Ok(());
    }
    let values = values(work, limited)?;
    let organizations: Vec<Uuid> = work.details()?.iter().map(|detail| detail.organization).collect();
    for back in work.back.iter_mut().filter(|back| back.waiting_for.is_some()) {
        let n = back.n as usize - 1;
        let own = values.get(n).map(Vec::as_slice).unwrap_or_default();
        back.limit_keys =
            limited.rules.iter().filter(|rule| rule.is_per_key()).map(|rule| rule.key(organizations[n], own)).collect();
    }
    Ok(())
}

/// A job of one of the works.
struct Place {
    work: usize,
    n: i32,
    /// An earlier change of its row waits, held by this key if by any.
    behind: Option<Option<String>>,
}

/// Holds back what may not pass. Works of one class are looked at together, in the order of their positions: a job that is held
/// holds the later ones of its row.
pub fn hold_back(works: &mut [Work]) -> Result<()> {
    if works.iter().all(|work| work.limited.is_none()) {
        return Ok(());
    }
    // All of them are of one lane.
    let lane = works.first().map(|work| work.group.log.unwrap_or(work.group.lane));
    let mut keys = Keys::default();
    let mut jobs: Vec<(Wish, Place)> = Vec::new();
    for (index, work) in works.iter_mut().enumerate() {
        let limited = work.limited.clone();
        let values = match &limited {
            Some(limited) => values(work, limited)?,
            None => Vec::new(),
        };
        let waiting: HashMap<i32, Option<String>> = match &limited {
            Some(_) if work.leaders => followers::leaders(&work.group, &flows::siblings(work.id)?)?.into_iter().collect(),
            _ => HashMap::new(),
        };
        let organizations: Vec<Uuid> = match &limited {
            Some(_) => work.details()?.iter().map(|detail| detail.organization).collect(),
            None => Vec::new(),
        };
        for (n, (row, seq)) in (1..).zip(group::rows(&work.group)?) {
            if work.gone.contains(&n) {
                continue;
            }
            let at = n as usize - 1;
            let own = values.get(at).map(Vec::as_slice).unwrap_or_default();
            let needs =
                limited.iter().flat_map(|limited| limited.rules.iter()).filter_map(|rule| rule.pace().map(|pace| (rule, pace)));
            let needs = needs
                .map(|(rule, pace)| keys.add(rule.key(organizations[at], own), pace, rule.organization(organizations[at])))
                .collect();
            jobs.push((Wish { seq, row, needs }, Place { work: index, n, behind: waiting.get(&n).cloned() }));
        }
    }
    jobs.sort_by_key(|(wish, _)| wish.seq);
    let limited: Vec<&Limited> = works.iter().filter_map(|work| work.limited.as_ref()).collect();
    let named: Vec<(i32, i32)> = limited.iter().map(|limited| (limited.flow.id, limited.flow.version)).collect();
    let systems: Vec<String> = limited.iter().filter_map(|limited| limited.flow.definition.to.clone()).collect();
    let installed = works[0].installed;
    // Asked only when something is held.
    let mut stays = None;
    let mut held = |n, key: String, after| -> Result<Back> {
        let stays = match stays {
            Some(stays) => stays,
            None => *stays.insert(limits::stay(installed, &named, &systems)?),
        };
        Ok(if stays {
            Back { limit_key: Some(key), after: Some(after), ..wait_for(RATE_LIMIT)(n) }
        } else {
            Back { after: Some(CHANGING), ..wait_for("run_at")(n) }
        })
    };
    let (late, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(_, place)| place.behind.is_some());
    for (wish, place) in late {
        // In its turn behind the earlier change, if both wait for the same limit: else it would be looked for at each step.
        let key = place.behind.flatten().filter(|key| wish.needs.iter().any(|index| keys.text(*index) == key));
        let work = &mut works[place.work];
        let back = match key.filter(|_| !work.waited) {
            Some(key) => held(place.n, key, 0.0)?,
            None => wait_for("earlier change")(place.n),
        };
        work.give_back(back);
    }
    let wishes: Vec<Wish> = jobs.iter().map(|(wish, _)| wish.clone()).collect();
    for ((wish, place), verdict) in jobs.iter().zip(keys.decide(&wishes, lane)?) {
        let back = match verdict {
            Verdict::Go => continue,
            Verdict::Behind(index, _) if !wish.needs.contains(&index) => wait_for("earlier change")(place.n),
            Verdict::Held(index, slot) | Verdict::Behind(index, slot) => {
                held(place.n, keys.text(index).to_owned(), limits::until(slot))?
            }
        };
        works[place.work].give_back(back);
    }
    Ok(())
}
