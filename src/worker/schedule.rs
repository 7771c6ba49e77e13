//! When this process looks at schedules: at the time of the next one, and when somebody says that they have changed.

use crate::error::Result;
use crate::pg::{role, zone};
use crate::queue::schedules;
use crate::setup::Installed;
use std::time::{Duration, Instant};

/// The next look.
pub struct Clock {
    /// None: not known, or nothing is planned.
    at: Option<Instant>,
    known: bool,
}

impl Clock {
    pub fn new() -> Self {
        Self { at: None, known: false }
    }

    /// Flows, organizations or the clock may have changed.
    pub fn forget(&mut self) {
        self.known = false;
    }

    pub fn is_due(&self, now: Instant) -> bool {
        !self.known || self.at.is_some_and(|at| now >= at)
    }

    pub fn wake(&self) -> Option<Instant> {
        self.at
    }

    /// `next` in seconds since 1970.
    pub fn set(&mut self, next: Option<i64>) {
        self.known = true;
        self.at = next.map(|next| {
            // Whole seconds: the moment itself, not up to a second before it.
            let micros = (next - zone::now()).clamp(0, 86_400) * 1_000_000 - crate::pg::ids::clock().rem_euclid(1_000_000);
            Instant::now() + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        });
    }
}

/// Makes the jobs of all times that have come. Returns how many, and the next time in seconds since 1970.
pub fn run(installed: Installed) -> Result<schedules::Looked> {
    // Tables of an older version know no schedules.
    if !installed.up_to_date {
        return Ok(schedules::Looked { jobs: 0, next: None });
    }
    let _acting = role::internal(installed.owner);
    schedules::run(zone::now())
}
