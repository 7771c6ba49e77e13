//! When rules are looked at: a part of one at a time, each in a transaction of its own, so that jobs get their turn between two of them; and
//! violations that stay open are told.

use super::process::Loop;
use crate::conflict::Next;
use crate::consistency;
use crate::error::Result;
use crate::notify;
use crate::pg::role;
use crate::setup::Installed;
use std::time::{Duration, Instant};

/// One thing that is due, and what is to be told. When to look next.
pub fn turn(installed: Installed) -> Result<Next> {
    let next = consistency::turn(installed)?;
    if !installed.up_to_date {
        return Ok(next);
    }
    let _acting = role::internal(installed.owner);
    consistency::escalate()?;
    notify::open_violations()?;
    let Next::In(look) = next else { return Ok(next) };
    Ok(Next::In(match (look, consistency::next_escalation()?) {
        (Some(look), Some(escalation)) => Some(look.min(escalation)),
        (look, escalation) => look.or(escalation),
    }))
}

/// The same in a transaction of a worker. False: the extension is gone.
pub fn step(state: &mut Loop) -> bool {
    let mut next = None;
    let there = state.attempt(|installed| {
        next = Some(turn(installed)?);
        Ok(())
    });
    state.checks.done(next, state.took);
    there
}

/// All of it, in a session of a database without workers.
pub fn without_workers(installed: Installed) -> Result<()> {
    consistency::without_workers(installed)?;
    turn(installed).map(|_| ())
}

/// Its turn in the loop of a worker.
pub struct Turns {
    at: Option<Instant>,
}

/// What is due and not to be had now is not asked for in a circle.
const SOON: Duration = Duration::from_secs(1);

impl Turns {
    pub fn new() -> Self {
        Self { at: Some(Instant::now()) }
    }

    /// Rules are others than before, or a minute is over. A pause that is for others stays.
    pub fn look_again(&mut self) {
        let now = Instant::now();
        self.at = Some(self.at.map_or(now, |at| at.min(now + SOON)));
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now >= at)
    }

    pub fn wake(&self) -> Option<Instant> {
        self.at
    }

    /// `took`: how long this look has kept the worker from everything else, which then has as long.
    pub fn done(&mut self, next: Option<Next>, took: Duration) {
        let now = Instant::now();
        self.at = match next {
            Some(Next::Now) => Some(now + took.min(SOON)),
            Some(Next::Later) => Some(now + SOON),
            Some(Next::In(Some(seconds))) if seconds <= 0.0 => Some(now + SOON),
            Some(Next::In(seconds)) => seconds.map(|seconds| now + Duration::from_secs_f64(seconds.clamp(0.001, 86_400.0))),
            // An error, which was logged: nothing of the look has happened.
            None => Some(now + SOON),
        };
    }
}

#[cfg(test)]
mod unit {
    use super::{Next, SOON, Turns};
    use std::time::{Duration, Instant};

    #[test]
    fn others_get_as_long_as_a_look_has_taken() {
        let mut turns = Turns::new();
        assert!(turns.is_due(Instant::now()));
        turns.done(Some(Next::Now), Duration::from_millis(200));
        assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + Duration::from_millis(201)));
        turns.done(Some(Next::In(None)), Duration::ZERO);
        assert_eq!(turns.wake(), None);
        turns.look_again();
        assert!(turns.is_due(Instant::now()));
        turns.done(Some(Next::In(Some(60.0))), Duration::ZERO);
        assert!(!turns.is_due(Instant::now() + SOON) && turns.is_due(Instant::now() + Duration::from_secs(61)));
        turns.look_again();
        assert!(turns.is_due(Instant::now() + SOON));
        for soon in [Some(Next::Later), Some(Next::In(Some(-5.0))), None] {
            turns.done(soon, Duration::ZERO);
            assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + SOON));
        }
    }
}
