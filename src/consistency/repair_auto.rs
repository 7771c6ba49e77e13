//! Repairs that nobody has to ask for.

use super::definition::{Mend, Repair};
use super::repair::{self, Order};
use super::repair_store::{self as repairs, Choice};
use super::store::Rule;
use crate::error::Result;
use crate::pg::spi;
use crate::pg::subxact::Failure;
use crate::setup::Installed;
use pgrx::Uuid;
use std::cell::RefCell;
use std::collections::HashMap;

/// Attempts of one rule within a minute.
const PER_MINUTE: i64 = 1_000;
/// Milliseconds between the first attempt and the second; each further one waits twice as long.
const WAIT: i64 = 1_000;
/// The same for a flow, which needs time for its jobs.
const WAIT_FOR_FLOW: i64 = 60_000;

/// How many violations were repaired, were not, and a flow was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub repaired: i64,
    pub failed: i64,
    pub asked: i64,
}

thread_local! {
    /// Rules whose repairs took too long, and how many violations are tried at once.
    static AT_ONCE: RefCell<HashMap<i32, i64>> = RefCell::default();
}

fn at_once(rule: i32) -> i64 {
    AT_ONCE.with_borrow(|most| most.get(&rule).copied().unwrap_or(PER_MINUTE))
}

/// The repair of a rule ended in time: more may be tried at once.
pub fn went_well(rule: i32) {
    AT_ONCE.with_borrow_mut(|most| match most.get_mut(&rule) {
        Some(most_of_it) if *most_of_it * 2 < PER_MINUTE => *most_of_it *= 2,
        _ => drop(most.remove(&rule)),
    });
}

/// It did not, and is undone. Fewer are tried at once, and a violation that takes too long alone has had an attempt. Runs with the owner's rights.
pub fn took_too_long(rule: &Rule, failure: &Failure) -> Result<()> {
    let Some((said, waits)) = said(rule)? else { return Ok(()) };
    let tried = repairs::chosen(rule.id, Choice::Due(said.most, waits, at_once(rule.id), None))?;
    let many = tried.iter().map(|(_, violations)| violations.len()).sum::<usize>() as i64;
    if many > 1 {
        AT_ONCE.with_borrow_mut(|most| most.insert(rule.id, many / 2));
        return Ok(());
    }
    for (organization, violations) in tried {
        let failed = violations.into_iter().map(|id| (id, failure.line(), false)).collect();
        repairs::failed(rule, said.most, organization, failed)?;
    }
    Ok(())
}

/// How a rule repairs by itself, and milliseconds between its attempts. None: it does not.
fn said(rule: &Rule) -> Result<Option<(Repair, i64)>> {
    let Some(said) = rule.definition()?.repair.filter(|repair| repair.auto && rule.enabled && !rule.broken) else {
        return Ok(None);
    };
    let waits = if matches!(said.mend, Mend::Flow(_)) { wait("flow") } else { wait("") };
    Ok(Some((said, waits)))
}

fn wait(kind: &str) -> i64 {
    if kind == "flow" { WAIT_FOR_FLOW } else { WAIT }
}

/// Repairs the open violations of a rule that says `"auto"`, those among `ids` or (None) all, as far as they have attempts left and the
/// time for the next one has come. To be called after a look, in its transaction or in one of its own; takes the rule's lock. Runs with
/// the owner's rights.
pub fn auto_repair(installed: Installed, rule: &Rule, ids: Option<Vec<Uuid>>) -> Result<Done> {
    if said(rule)?.is_none() {
        return Ok(Done::default());
    }
    let left = (PER_MINUTE - repairs::tried_lately(rule.id)?).min(at_once(rule.id));
    if left <= 0 {
        return Ok(Done::default());
    }
    let rule = &repair::ready(rule)?;
    // It may be another by now.
    let Some((said, waits)) = said(rule)? else { return Ok(Done::default()) };
    repairs::give_up(rule, said.most, waits)?;
    let chosen = repairs::chosen(rule.id, Choice::Due(said.most, waits, left, ids))?;
    if chosen.is_empty() {
        return Ok(Done::default());
    }
    let fitted = rule.fit(installed)?;
    let mender = repair::mender(installed, rule, &fitted)?;
    repair::seen(rule, &fitted, &mender)?;
    let order =
        Order { installed, rule, fitted: &fitted, mender: &mender, by: "pg_usher".to_owned(), automatic: true, expect: None };
    let mut done = Done::default();
    for (organization, violations) in chosen {
        for line in order.run(organization, violations)?.iter().filter(|line| line.violation.is_some()) {
            match line.outcome {
                repair::REPAIRED => done.repaired += 1,
                repair::ASKED => done.asked += 1,
                _ if line.error.is_some() => done.failed += 1,
                _ => {}
            }
        }
    }
    Ok(done)
}

/// Seconds until [`auto_repair`] has something to do for a rule. None: it has not.
pub fn next_repair(rule: &Rule) -> Result<Option<f64>> {
    match said(rule)? {
        Some((said, waits)) => repairs::next(rule.id, said.most, waits),
        None => Ok(None),
    }
}

/// Rules that repair by themselves and have something open, but for those that failed as a whole within so many seconds. Runs with the
/// owner's rights.
pub fn due(pause: f64) -> Result<Vec<i32>> {
    spi::read_all(
        "SELECT l.id FROM usher.rules AS l
          WHERE l.enabled AND l.state = 'active' AND (l.definition -> 'repair' -> 'auto') = 'true'::jsonb
            AND COALESCE(l.last_error_at + $1::float8 * '1 second'::interval <= pg_catalog.clock_timestamp(), true)
            AND EXISTS (SELECT FROM usher.violations AS v WHERE v.rule_id = l.id AND v.status = 'open' AND NOT v.manual) ORDER BY l.id",
        &[spi::arg(pause)],
        |row| Ok(row.get::<i32>(1)?.unwrap_or_default()),
    )
}
