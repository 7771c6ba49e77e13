//! Calls that were let through, by key, in shared memory: keeps clients to a rate, exactly, whichever sessions they use.
//!
//! A meter is one number, the time until which what was let through counts: the generic cell rate algorithm (ITU-T I.371), a
//! token bucket without a timer. Nothing is given back: a call that fails has been made all the same. A restart forgets them.

use super::buckets::Pace;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init};
use ring::digest::{Context, SHA256};
use std::cell::{Cell, RefCell};

const SETS: usize = 1_024;
const WAYS: usize = 32;
/// The clock of the server's processes is the same, but may be set back.
const SET_BACK: i64 = 1_000_000_000;
/// How long a key waits for a place, in nanoseconds.
const FULL: i64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Meter {
    /// 0: free.
    key: u64,
    /// Nanoseconds since 2000-01-01.
    spent: i64,
}

#[repr(C)]
struct Meters {
    /// Goes into every key, so that nobody can choose ids whose keys meet. 0: not drawn yet.
    seed: u64,
    /// The latest time at which anybody asked.
    latest: i64,
    sets: [[Meter; WAYS]; SETS],
}

// SAFETY: plain numbers in a fixed layout, valid at the same address in every process of the server, under one lock.
unsafe impl PGRXSharedMemory for Meters {}

impl Default for Meters {
    fn default() -> Self {
        Self { seed: 0, latest: 0, sets: [[Meter::default(); WAYS]; SETS] }
    }
}

// SAFETY: the name is used by nothing else.
static METERS: PgLwLock<Meters> = unsafe { PgLwLock::new(c"pg_usher_meters") };

thread_local! {
    /// Without the preloaded library each session counts for itself.
    static OWN: RefCell<Option<Box<Meters>>> = const { RefCell::new(None) };
}

/// Asks for the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(METERS);
}

fn with<T>(work: impl FnOnce(&mut Meters) -> T) -> T {
    if super::shmem::available() {
        return work(&mut METERS.exclusive());
    }
    OWN.with_borrow_mut(|own| work(own.get_or_insert_with(Box::default)))
}

impl Meters {
    /// After the clock was set back everything counts as long as it would have.
    fn tick(&mut self, now: i64) {
        let back = self.latest.saturating_sub(now);
        if back > SET_BACK && self.latest > 0 {
            self.sets.iter_mut().flatten().for_each(|meter| meter.spent = meter.spent.saturating_sub(back));
        }
        self.latest = if back > SET_BACK { now } else { self.latest.max(now) };
    }

    /// Where a key is counted, or would be. None: all places of its set are taken by others who count.
    fn place(&self, key: u64, now: i64) -> Option<(usize, bool)> {
        let set = &self.sets[key as usize % SETS];
        if let Some(own) = set.iter().position(|meter| meter.key == key) {
            return Some((own, false));
        }
        set.iter().position(|meter| meter.key == 0 || meter.spent <= now).map(|rested| (rested, true))
    }

    fn spent(&self, key: u64, now: i64) -> i64 {
        match self.place(key, now) {
            Some((place, false)) => self.sets[key as usize % SETS][place].spent.max(now),
            _ => now,
        }
    }

    /// Nanoseconds until one more may pass; 0: now. Without a place nobody passes: less than allowed, never more.
    fn wait(&self, key: u64, pace: Pace, now: i64) -> i64 {
        if self.place(key, now).is_none() {
            return FULL;
        }
        let earliest = self.spent(key, now).saturating_sub((pace.burst - 1).saturating_mul(pace.interval));
        (earliest - now).max(0)
    }

    fn left(&self, key: u64, pace: Pace, now: i64) -> i64 {
        let room = now.saturating_add(pace.burst.saturating_mul(pace.interval)) - self.spent(key, now);
        (room / pace.interval).max(0)
    }

    fn pass(&mut self, key: u64, pace: Pace, now: i64) {
        let Some((place, fresh)) = self.place(key, now) else { return };
        let meter = &mut self.sets[key as usize % SETS][place];
        if fresh {
            *meter = Meter { key, spent: now };
        }
        meter.spent = meter.spent.max(now).saturating_add(pace.interval);
    }
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// The key of something that is counted in this database.
pub fn key_of(bytes: &[u8]) -> u64 {
    if SEED.get() == 0 {
        SEED.set(with(|meters| {
            if meters.seed == 0 {
                meters.seed = super::ids::random().max(1);
            }
            meters.seed
        }));
    }
    let mut hash = Context::new(&SHA256);
    hash.update(&SEED.get().to_ne_bytes());
    hash.update(&super::ids::database().to_ne_bytes());
    hash.update(bytes);
    let mut key = [0; 8];
    key.copy_from_slice(&hash.finish().as_ref()[..8]);
    u64::from_ne_bytes(key).max(1)
}

fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }.saturating_mul(1_000)
}

/// Lets a call through if every key lets it; else none counts it, and the nanoseconds until it would pass are returned.
pub fn take(asked: &[(u64, Pace)]) -> Option<i64> {
    if asked.is_empty() {
        return None;
    }
    with(|meters| {
        let now = now();
        meters.tick(now);
        let wait = asked.iter().map(|(key, pace)| meters.wait(*key, *pace, now)).max().unwrap_or(0);
        if wait > 0 {
            return Some(wait);
        }
        asked.iter().for_each(|(key, pace)| meters.pass(*key, *pace, now));
        None
    })
}

/// How many calls would pass now.
pub fn left(key: u64, pace: Pace) -> i64 {
    with(|meters| {
        let now = now();
        meters.tick(now);
        meters.left(key, pace, now)
    })
}

#[cfg(test)]
mod unit {
    use super::{Meter, Meters, Pace, SETS, WAYS};

    const PACE: Pace = Pace { interval: 100, burst: 5 };

    /// Asks at a time; true: passed.
    fn ask(meters: &mut Meters, key: u64, now: i64) -> bool {
        meters.tick(now);
        let passes = meters.wait(key, PACE, now) == 0;
        if passes {
            meters.pass(key, PACE, now);
        }
        passes
    }

    #[test]
    fn a_burst_and_then_its_rate() {
        let mut meters = Box::<Meters>::default();
        assert_eq!(meters.left(7, PACE, 1_000), 5);
        let passed = (0..10).filter(|_| ask(&mut meters, 7, 1_000)).count();
        assert_eq!((passed, meters.left(7, PACE, 1_000), meters.wait(7, PACE, 1_000)), (5, 0, 100));
        assert!(!ask(&mut meters, 7, 1_099) && ask(&mut meters, 7, 1_100) && !ask(&mut meters, 7, 1_100));
        assert!(ask(&mut meters, 8, 1_100), "another key has its own");
        assert_eq!((0..10).filter(|_| ask(&mut meters, 7, 99_999)).count(), 5, "never more than the burst at once");
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nobody() {
        let mut meters = Box::<Meters>::default();
        let late = 1_000_000_000_000_000;
        assert_eq!((0..10).filter(|_| ask(&mut meters, 7, late)).count(), 5);
        let back = late - 3_600_000_000_000;
        assert!(!ask(&mut meters, 7, back), "what was let through still counts");
        assert!(ask(&mut meters, 7, back + 100));
    }

    #[test]
    fn a_full_set_lets_less_through_and_not_more() {
        let mut meters = Box::<Meters>::default();
        let keys: Vec<u64> = (1..=WAYS as u64 + 4).map(|n| n * SETS as u64).collect();
        let passed: usize = (0..10).map(|_| keys.iter().filter(|key| ask(&mut meters, **key, 1_000)).count()).sum();
        assert_eq!(passed, 5 * WAYS, "those who have a place pass as often as they may, others wait");
        // Those that rest make room.
        assert!(keys[..WAYS].iter().rev().all(|key| ask(&mut meters, *key, 1_000_000)), "after a rest all pass");
        assert!(!ask(&mut meters, keys[WAYS], 1_000_000) && ask(&mut meters, keys[WAYS], 1_000_101));
    }

    proptest::proptest! {
        /// In no window does more pass than the burst and what the rate gives in it.
        #[test]
        fn no_window_lets_more_through(gaps in proptest::collection::vec(0..150i64, 1..200)) {
            let (mut meters, mut now, mut passed) = (Box::<Meters>::default(), 1_000_000i64, Vec::new());
            for gap in gaps {
                now += gap;
                if ask(&mut meters, 7, now) {
                    passed.push(now);
                }
            }
            for (first, begin) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let most = PACE.burst + (end - begin) / PACE.interval;
                    proptest::prop_assert!((last - first + 1) as i64 <= most);
                }
            }
        }
    }

    #[test]
    fn a_meter_is_two_words() {
        assert_eq!(std::mem::size_of::<Meter>(), 16);
    }
}
