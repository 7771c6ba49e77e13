//! What the workers of each database have done since the server started, lane by lane: counters in shared memory.
//!
//! They outlive a worker process, not the server, and not for ever a database without workers. What an undone batch has counted is not added.

use super::shmem::LANES;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// As many as there can be databases with workers; of further ones nothing is counted.
const DATABASES: usize = super::shmem::SLOTS;
/// The rate is that of the last minute: so many parts of five seconds.
const PARTS: usize = 12;
const PART_MICROSECONDS: i64 = 5_000_000;

#[derive(Default)]
#[repr(C)]
struct Lane {
    done: AtomicU64,
    failures: AtomicU64,
    dead: AtomicU64,
    batches: AtomicU64,
    busy_microseconds: AtomicU64,
    /// Jobs done in a part of the last minute; its number in the upper half.
    parts: [AtomicU64; PARTS],
}

impl Lane {
    fn forget(&self) {
        let counts = [&self.done, &self.failures, &self.dead, &self.batches, &self.busy_microseconds];
        counts.into_iter().chain(&self.parts).for_each(|count| count.store(0, SeqCst));
    }
}

#[derive(Default)]
#[repr(C)]
struct Database {
    oid: AtomicU32,
    lanes: [Lane; LANES],
}

#[repr(C)]
struct Counters {
    databases: [Database; DATABASES],
}

// SAFETY: plain atomics in a fixed layout, valid at the same address in every process of the server.
unsafe impl PGRXSharedMemory for Counters {}

impl Default for Counters {
    fn default() -> Self {
        Self { databases: std::array::from_fn(|_| Database::default()) }
    }
}

// SAFETY: the name is used by nothing else.
static COUNTERS: PgAtomic<Counters> = unsafe { PgAtomic::new(c"pg_usher_counters") };

/// Asks for the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(COUNTERS);
}

/// What this transaction has given back of what it claimed.
#[derive(Clone, Copy, Default)]
struct Back {
    jobs: u64,
    failures: u64,
    dead: u64,
}

thread_local! {
    static BACK: Cell<Back> = const { Cell::new(Back { jobs: 0, failures: 0, dead: 0 }) };
}

/// A batch begins: nothing has been given back yet.
pub fn begin() {
    BACK.take();
}

/// Jobs that were claimed and are not done: `failures` of them were tried, `dead` of them are dead letters now.
pub fn give_back(jobs: usize, failures: usize, dead: usize) {
    let before = BACK.get();
    BACK.set(Back {
        jobs: before.jobs + jobs as u64,
        failures: before.failures + failures as u64,
        dead: before.dead + dead as u64,
    });
}

/// A batch of a lane has been committed.
pub fn finish(lane: usize, claimed: i32, took: Duration) {
    let back = BACK.take();
    let Some(lane) = of_this_database(true).and_then(|database| database.lanes.get(lane)) else { return };
    let done = u64::try_from(claimed).unwrap_or(0).saturating_sub(back.jobs);
    lane.done.fetch_add(done, SeqCst);
    lane.failures.fetch_add(back.failures, SeqCst);
    lane.dead.fetch_add(back.dead, SeqCst);
    lane.batches.fetch_add(u64::from(claimed > 0), SeqCst);
    lane.busy_microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(0), SeqCst);
    let part = part_of(super::ids::clock());
    let slot = &lane.parts[part as usize % PARTS];
    let _ = slot.fetch_update(SeqCst, SeqCst, |value| Some(add_to_part(value, part, done)));
}

fn part_of(clock: i64) -> u32 {
    u32::try_from(clock / PART_MICROSECONDS).unwrap_or(0)
}

/// A part that is a minute old starts anew.
fn add_to_part(value: u64, part: u32, jobs: u64) -> u64 {
    let counted = if (value >> 32) as u32 == part { value & u64::from(u32::MAX) } else { 0 };
    (u64::from(part) << 32) | (counted + jobs).min(u64::from(u32::MAX))
}

/// Jobs in those parts of the last minute that are not older.
fn of_last_minute(parts: impl Iterator<Item = u64>, now: u32) -> u64 {
    parts.filter(|value| now.wrapping_sub((value >> 32) as u32) < PARTS as u32).map(|value| value & u64::from(u32::MAX)).sum()
}

fn of_this_database(make: bool) -> Option<&'static Database> {
    if !super::shmem::available() {
        return None;
    }
    let oid = super::ids::database();
    let databases = &COUNTERS.get().databases;
    databases.iter().find(|database| database.oid.load(SeqCst) == oid).or_else(|| {
        let free = |database: &&Database| match database.oid.compare_exchange(0, oid, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(other) => other == oid,
        };
        let left = |database: &&Database| {
            let other = database.oid.load(SeqCst);
            let taken = !super::shmem::has_workers(other) && database.oid.compare_exchange(other, oid, SeqCst, SeqCst).is_ok();
            if taken {
                database.lanes.iter().for_each(Lane::forget);
            }
            taken
        };
        // A database that is gone, or has no workers any more, makes room.
        if make { databases.iter().find(free).or_else(|| databases.iter().find(left)) } else { None }
    })
}

/// What the workers of this database have done in a lane since the server started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub done: u64,
    pub failures: u64,
    pub dead: u64,
    pub batches: u64,
    pub busy_seconds: f64,
    /// Jobs done in the last minute.
    pub last_minute: u64,
}

/// By lane; None without the preloaded library.
pub fn totals() -> Option<[Totals; LANES]> {
    if !super::shmem::available() {
        return None;
    }
    let now = part_of(super::ids::clock());
    let Some(database) = of_this_database(false) else { return Some([Totals::default(); LANES]) };
    Some(std::array::from_fn(|lane| {
        let lane = &database.lanes[lane];
        Totals {
            done: lane.done.load(SeqCst),
            failures: lane.failures.load(SeqCst),
            dead: lane.dead.load(SeqCst),
            batches: lane.batches.load(SeqCst),
            busy_seconds: lane.busy_microseconds.load(SeqCst) as f64 / 1e6,
            last_minute: of_last_minute(lane.parts.iter().map(|part| part.load(SeqCst)), now),
        }
    }))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_minute_old_part_counts_no_more() {
        let mut parts = [0u64; PARTS];
        let mut add = |part: u32, jobs: u64| {
            let at = part as usize % PARTS;
            parts[at] = add_to_part(parts[at], part, jobs);
            of_last_minute(parts.iter().copied(), part)
        };
        assert_eq!(add(100, 5), 5);
        assert_eq!(add(100, 2), 7);
        assert_eq!(add(111, 1), 8);
        assert_eq!(add(112, 4), 5, "part 100 has made room for part 112");
        assert_eq!(add(200, 1), 1);
    }
}
