//! Flows that could not be looked at when something changed under them: somebody held a lock. Nobody tells when it is given back, so they are
//! looked at soon after, and ever later. And broken ones, once a minute: rights and roles change without an event.

use super::process::Loop;
use crate::consistency::drift as rules;
use crate::error::Result;
use crate::flow::drift::{self, Finding, Others};
use crate::pg::role;
use crate::setup::Installed;
use std::time::{Duration, Instant};

/// So many at a time: each may wait a moment for a lock, and all that in one transaction.
const AT_ONCE: usize = 8;

/// What a look has brought.
#[derive(Debug, Default, Clone, Copy)]
pub struct Looked {
    /// Some could still not be looked at.
    waits: bool,
    /// There are more, after this flow.
    more: Option<i32>,
}

/// Looks at what has no record, and at what is broken, from the first flow after `after` on. `tell`: also what has to wait.
fn look(installed: Installed, after: i32, tell: bool) -> Result<Looked> {
    let _acting = role::internal(installed.owner);
    let mut flows = drift::broken()?;
    flows.extend(drift::unrecorded()?);
    flows.sort_unstable();
    flows.dedup();
    flows.retain(|flow| *flow > after);
    let mut looked = Looked::default();
    if flows.len() > AT_ONCE {
        flows.truncate(AT_ONCE);
        looked.more = flows.last().copied();
    }
    // Once a round.
    if after == 0 && installed.up_to_date {
        for found in rules::look_again(installed, &rules::unsettled()?)? {
            pgrx::log!("usher worker: {}", found.line());
        }
        rules::look_around()?;
    }
    if flows.is_empty() {
        return Ok(looked);
    }
    for finding in drift::look_again(&flows, Others::LookAt)? {
        let postponed = matches!(finding, Finding::Postponed { .. });
        looked.waits |= postponed;
        if !postponed || tell {
            pgrx::log!("usher worker: {}", finding.line());
        }
    }
    Ok(looked)
}

/// The same in a transaction of a worker. False: the extension is gone.
pub fn step(state: &mut Loop) -> bool {
    // After an error: as if all had to wait.
    let mut looked = Looked { waits: true, more: None };
    let (after, tell) = (state.drift.after, state.drift.pause >= MOST);
    let there = state.attempt(|installed| {
        looked = look(installed, after, tell)?;
        Ok(())
    });
    state.drift.done(looked);
    there
}

/// Its turn in the loop of a worker.
pub struct Turns {
    at: Option<Instant>,
    pause: Duration,
    /// Where this round of looks is.
    after: i32,
    /// Something had to wait in this round.
    waits: bool,
    /// Not before, however often something is changed.
    not_before: Instant,
}

/// Each look may wait a moment for each flow: the more often it was in vain, the later comes the next.
const SOON: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(32);

impl Turns {
    pub fn new() -> Self {
        Self { at: None, pause: SOON, after: 0, waits: false, not_before: Instant::now() }
    }

    /// A minute is over.
    pub fn tick(&mut self) {
        self.at = self.at.or_else(|| Some(Instant::now()));
    }

    /// Something was changed.
    pub fn look_again(&mut self) {
        let at = Instant::now().max(self.not_before);
        self.at = Some(self.at.map_or(at, |planned| planned.min(at)));
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now >= at)
    }

    pub fn wake(&self) -> Option<Instant> {
        self.at
    }

    pub fn done(&mut self, looked: Looked) {
        self.waits |= looked.waits;
        if let Some(flow) = looked.more {
            self.after = flow;
            self.at = Some(Instant::now());
            return;
        }
        let waits = std::mem::take(&mut self.waits);
        self.after = 0;
        self.not_before = Instant::now() + SOON;
        self.at = waits.then(|| Instant::now() + self.pause);
        self.pause = if waits { (self.pause * 2).min(MOST) } else { SOON };
    }
}

#[cfg(test)]
mod unit {
    use super::{Looked, MOST, SOON, Turns};
    use std::time::Instant;

    const WAITS: Looked = Looked { waits: true, more: None };
    const OVER: Looked = Looked { waits: false, more: None };

    #[test]
    fn what_could_not_be_looked_at_is_looked_at_soon_and_ever_later() {
        let mut turns = Turns::new();
        assert_eq!(turns.wake(), None);
        turns.look_again();
        assert!(turns.is_due(Instant::now()));
        turns.done(WAITS);
        assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + SOON));
        for _ in 0..9 {
            turns.done(WAITS);
        }
        assert!(!turns.is_due(Instant::now() + MOST / 2) && turns.is_due(Instant::now() + MOST));
        let next = turns.wake();
        turns.tick();
        assert_eq!(turns.wake(), next, "not more often for the minute");
        turns.look_again();
        assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + SOON), "nor at every change");
        turns.done(OVER);
        assert_eq!(turns.wake(), None);
        turns.tick();
        assert!(turns.is_due(Instant::now()));
        turns.done(WAITS);
        assert!(turns.is_due(Instant::now() + SOON), "from the beginning");
    }

    #[test]
    fn a_round_of_many_goes_on_at_once_and_ends_with_a_pause() {
        let mut turns = Turns::new();
        turns.tick();
        turns.done(Looked { waits: true, more: Some(8) });
        assert!(turns.is_due(Instant::now()));
        assert_eq!(turns.after, 8);
        turns.done(OVER);
        assert_eq!(turns.after, 0);
        assert!(!turns.is_due(Instant::now()) && turns.wake().is_some(), "what waited in its first part is looked at again");
    }
}
