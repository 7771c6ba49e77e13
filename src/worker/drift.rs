//! Flows that could not be looked at when something changed under them: somebody held a lock. Nobody tells when it is given back, so they are
//! looked at soon after, and ever later. And broken ones, once a minute: rights and roles change without an event.

use super::process::Loop;
use crate::error::Result;
use crate::flow::drift::{self, Finding, Others};
use crate::pg::role;
use crate::setup::Installed;
use std::time::{Duration, Instant};

/// Looks at what has no record, and at what is broken. True: some of it is still not to be looked at.
fn look(installed: Installed) -> Result<bool> {
    let _acting = role::internal(installed.owner);
    let mut flows = drift::broken()?;
    flows.extend(drift::unrecorded()?);
    let mut waits = false;
    if flows.is_empty() {
        return Ok(waits);
    }
    for finding in drift::look_again(&flows, Others::LookAt)? {
        match finding {
            Finding::Postponed { .. } => waits = true,
            found => pgrx::log!("usher worker: {}", found.line()),
        }
    }
    Ok(waits)
}

/// The same in a transaction of a worker. False: the extension is gone.
pub fn step(state: &mut Loop) -> bool {
    let mut waits = true;
    let there = state.attempt(|installed| {
        waits = look(installed)?;
        Ok(())
    });
    state.drift.done(waits);
    there
}

/// Its turn in the loop of a worker.
pub struct Turns {
    at: Option<Instant>,
    pause: Duration,
}

/// Each look may wait a moment for each flow: the more often it was in vain, the later comes the next.
const SOON: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(32);

impl Turns {
    pub fn new() -> Self {
        Self { at: None, pause: SOON }
    }

    /// A minute is over.
    pub fn tick(&mut self) {
        self.at = self.at.or_else(|| Some(Instant::now()));
    }

    /// Something was changed.
    pub fn look_again(&mut self) {
        *self = Self { at: Some(Instant::now()), pause: SOON };
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now >= at)
    }

    pub fn wake(&self) -> Option<Instant> {
        self.at
    }

    pub fn done(&mut self, waits: bool) {
        self.at = waits.then(|| Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(MOST);
    }
}

#[cfg(test)]
mod unit {
    use super::{MOST, SOON, Turns};
    use std::time::Instant;

    #[test]
    fn what_could_not_be_looked_at_is_looked_at_soon_and_ever_later() {
        let mut turns = Turns::new();
        assert_eq!(turns.wake(), None);
        turns.look_again();
        assert!(turns.is_due(Instant::now()));
        turns.done(true);
        assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + SOON));
        for _ in 0..9 {
            turns.done(true);
        }
        assert!(!turns.is_due(Instant::now() + MOST / 2) && turns.is_due(Instant::now() + MOST));
        let next = turns.wake();
        turns.tick();
        assert_eq!(turns.wake(), next, "not more often for the minute");
        turns.look_again();
        turns.done(true);
        assert!(turns.is_due(Instant::now() + SOON), "from the beginning");
        turns.done(false);
        assert_eq!(turns.wake(), None);
        turns.tick();
        assert!(turns.is_due(Instant::now()));
    }
}
