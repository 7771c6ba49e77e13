//! When a pause that is over gets its next slice of jobs let go.

use super::process::Loop;
use crate::error::Result;
use crate::pg::role;
use crate::queue::pauses::{self, LetGo};
use crate::settings;
use crate::setup::Installed;
use std::time::{Duration, Instant};

/// Two batches: short enough to be sorted, long enough that one is due while the next slice is made.
pub fn slice(installed: Installed, batch: i32) -> Result<LetGo> {
    if !installed.up_to_date {
        return Ok(LetGo::Nothing(None));
    }
    let _acting = role::internal(installed.owner);
    pauses::let_go(installed, batch.saturating_mul(2))
}

/// Some jobs of a pause that is over, in a transaction of a worker. False: the extension is gone.
pub fn step(state: &mut Loop) -> bool {
    let mut found = None;
    let there = state.attempt(|installed| {
        found = Some(slice(installed, settings::batch_size())?);
        Ok(())
    });
    state.pauses.done(found);
    there
}

/// Jobs whose pause is over, as many as one call of process_jobs() may do.
pub fn without_workers(installed: Installed, most: i32) -> Result<()> {
    while slice(installed, most)? == LetGo::Some {}
    Ok(())
}

/// Its turn in the loop of a worker.
pub struct Turns {
    at: Option<Instant>,
}

/// The slice before is still at work.
const SOON: Duration = Duration::from_millis(20);

impl Turns {
    pub fn new() -> Self {
        Self { at: Some(Instant::now()) }
    }

    /// Pauses may be others than before.
    pub fn look_again(&mut self) {
        self.at = Some(Instant::now());
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now >= at)
    }

    pub fn wake(&self) -> Option<Instant> {
        self.at
    }

    pub fn done(&mut self, found: Option<LetGo>) {
        let now = Instant::now();
        self.at = match found {
            Some(LetGo::Nothing(next)) => next.map(|seconds| now + Duration::from_secs_f64(seconds.clamp(0.001, 86_400.0))),
            Some(LetGo::Some) => Some(now),
            Some(LetGo::Later) => Some(now + SOON),
            // An error, which was logged: nothing of the slice has happened.
            None => {
                pauses::forget();
                Some(now + Duration::from_secs(1))
            }
        };
    }
}

#[cfg(test)]
mod unit {
    use super::{LetGo, Turns};
    use std::time::{Duration, Instant};

    #[test]
    fn a_pause_with_an_end_wakes_the_worker_and_none_does_not() {
        let mut turns = Turns::new();
        assert!(turns.is_due(Instant::now()));
        turns.done(Some(LetGo::Nothing(None)));
        assert_eq!(turns.wake(), None);
        turns.done(Some(LetGo::Nothing(Some(60.0))));
        assert!(!turns.is_due(Instant::now()) && turns.is_due(Instant::now() + Duration::from_secs(61)));
        turns.done(Some(LetGo::Some));
        assert!(turns.is_due(Instant::now()));
    }
}
