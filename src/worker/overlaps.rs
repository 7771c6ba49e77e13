//! When rows are looked at for overlaps, and conflicts that stay open are told: after a commit that wrote such rows, and at the time
//! of the next sweep or escalation.

use super::process::Loop;
use crate::conflict::{self, Next};
use crate::consistency;
use crate::error::Result;
use crate::notify;
use crate::pg::{role, spi};
use crate::setup::Installed;
use std::time::{Duration, Instant};

/// One look, and what is to be told. When to look next.
pub fn turn(installed: Installed) -> Result<Next> {
    let next = sooner(conflict::turn(installed)?, consistency::touched_turn(installed)?);
    if !installed.up_to_date {
        return Ok(next);
    }
    let _acting = role::internal(installed.owner);
    // Also when there is more to look at, or when somebody keeps us from it.
    notify::open_conflicts()?;
    let Next::In(sweep) = next else { return Ok(next) };
    let escalation = spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(c.escalate_at) - pg_catalog.clock_timestamp())::float8 FROM usher.conflicts AS c
          WHERE c.state = 'open' AND c.escalated_at IS NULL AND c.escalate_at IS NOT NULL",
        &[],
    )?;
    Ok(Next::In(match (sweep, escalation) {
        (Some(sweep), Some(escalation)) => Some(sweep.min(escalation)),
        (sweep, escalation) => sweep.or(escalation),
    }))
}

/// What is to be done first.
fn sooner(one: Next, other: Next) -> Next {
    match (one, other) {
        (Next::Now, _) | (_, Next::Now) => Next::Now,
        (Next::Later, _) | (_, Next::Later) => Next::Later,
        (Next::In(Some(one)), Next::In(Some(other))) => Next::In(Some(one.min(other))),
        (Next::In(one), Next::In(other)) => Next::In(one.or(other)),
    }
}

/// The same in a transaction of a worker. False: the extension is gone.
pub fn step(state: &mut Loop) -> bool {
    let mut next = None;
    let there = state.attempt(|installed| {
        next = Some(turn(installed)?);
        Ok(())
    });
    if next == Some(Next::Now) {
        // What was found may be repaired, or has a time of grace.
        state.checks.look_again();
    }
    state.overlaps.done(next);
    there
}

/// All of it, in a session of a database without workers.
pub fn without_workers(installed: Installed) -> Result<()> {
    conflict::without_workers(installed)?;
    consistency::touched_without_workers(installed)?;
    turn(installed).map(|_| ())
}

/// Its turn in the loop of a worker.
pub struct Turns {
    at: Option<Instant>,
}

/// Somebody else is looking, and wakes us at the commit: this is for one that is rolled back.
const SOON: Duration = Duration::from_secs(1);

impl Turns {
    pub fn new() -> Self {
        Self { at: Some(Instant::now()) }
    }

    /// Rows were written, rules are others than before, or a minute is over.
    pub fn look_again(&mut self) {
        self.at = Some(Instant::now());
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now >= at)
    }

    pub fn wake(&self) -> Option<Instant> {
        self.at
    }

    pub fn done(&mut self, next: Option<Next>) {
        let now = Instant::now();
        self.at = match next {
            Some(Next::Now) => Some(now),
            Some(Next::Later) => Some(now + SOON),
            // What is due already was not to be had in this turn, because somebody holds it: not at once again.
            Some(Next::In(Some(seconds))) if seconds <= 0.0 => Some(now + SOON),
            Some(Next::In(seconds)) => seconds.map(|seconds| now + Duration::from_secs_f64(seconds.clamp(0.001, 86_400.0))),
            // An error, which was logged: nothing of the look has happened.
            None => Some(now + Duration::from_secs(1)),
        };
    }
}

#[cfg(test)]
mod unit {
    use super::{Next, SOON, Turns};
    use std::time::{Duration, Instant};

    #[test]
    fn the_next_look_is_when_there_is_something_to_see() {
        let mut turns = Turns::new();
        assert!(turns.is_due(Instant::now()));
        turns.done(Some(Next::In(None)));
        assert_eq!(turns.wake(), None);
        turns.done(Some(Next::In(Some(60.0))));
        assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + Duration::from_secs(61)));
        for soon in [Next::Later, Next::In(Some(-5.0)), Next::In(Some(0.0))] {
            turns.done(Some(soon));
            assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + SOON));
        }
        turns.done(Some(Next::Later));
        assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + SOON));
        turns.look_again();
        assert!(turns.is_due(Instant::now()));
    }
}
