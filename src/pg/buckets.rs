//! How much has been let through, by limit key: buckets in shared memory.
//!
//! A bucket is one number, the time until which what was let through counts (`spent`), and how many have been let through by
//! transactions that are still under way (`in_flight`). Those count as if they happened now, whenever now is, and once more
//! when their transaction ends: so that not only the decisions keep the rate but also what they allow, at whatever moment
//! between decision and end it happens.
//!
//! The memory is a cache of `usher.limit_marks`: whoever asks brings what is written there. A bucket whose time has passed
//! says nothing and makes room first; one that is in flight never does.

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init};
use std::cell::RefCell;
use std::collections::HashMap;

const SETS: usize = 1_024;
const WAYS: usize = 8;

/// Nanoseconds for one, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub interval: i64,
    pub burst: i64,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Bucket {
    /// 0: free.
    key: u64,
    /// Nanoseconds since 2000-01-01.
    spent: i64,
    in_flight: i64,
}

impl Bucket {
    /// What counts at this moment, as a time.
    fn counts(&self, pace: Pace, now: i64) -> i64 {
        self.spent.max(now.saturating_add(self.in_flight.saturating_mul(pace.interval)))
    }

    /// The earliest time at which one more may go through.
    fn slot(&self, pace: Pace, now: i64) -> i64 {
        self.counts(pace, now).saturating_sub((pace.burst - 1).saturating_mul(pace.interval))
    }

    /// How many may go through now.
    fn available(&self, pace: Pace, now: i64) -> i64 {
        let room = now.saturating_add(pace.burst.saturating_mul(pace.interval)).saturating_sub(self.counts(pace, now));
        (room / pace.interval).max(0)
    }

    fn take(&mut self, pace: Pace, now: i64) {
        self.spent = self.spent.max(now).saturating_add(pace.interval);
        self.in_flight += 1;
    }

    /// Everything in flight has happened by now, if it has.
    fn settle(&mut self, pace: Pace, now: i64) {
        self.spent = self.counts(pace, now);
    }
}

#[repr(C)]
struct Buckets {
    sets: [[Bucket; WAYS]; SETS],
    evicted: u64,
}

// SAFETY: plain numbers in a fixed layout, valid at the same address in every process of the server, under one lock.
unsafe impl PGRXSharedMemory for Buckets {}

impl Default for Buckets {
    fn default() -> Self {
        Self { sets: [[Bucket::default(); WAYS]; SETS], evicted: 0 }
    }
}

// SAFETY: the name is used by nothing else.
static BUCKETS: PgLwLock<Buckets> = unsafe { PgLwLock::new(c"pg_usher_limits") };

/// Asks for the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(BUCKETS);
}

/// What this transaction has taken of one bucket.
struct Taken {
    text: String,
    organization: Option<pgrx::Uuid>,
    key: u64,
    pace: Pace,
    jobs: i64,
}

thread_local! {
    static TAKEN: RefCell<Vec<Taken>> = const { RefCell::new(Vec::new()) };
    /// Without the preloaded library, where lanes keep sessions apart and the written marks say the rest.
    static OWN: RefCell<Box<Buckets>> = RefCell::new(Box::default());
}

fn with<T>(work: impl FnOnce(&mut Buckets) -> T) -> T {
    if super::shmem::available() { work(&mut BUCKETS.exclusive()) } else { OWN.with_borrow_mut(|own| work(own)) }
}

impl Buckets {
    /// The bucket of a key. None when its place is full of others that are in flight.
    fn bucket(&mut self, key: u64, now: i64) -> Option<&mut Bucket> {
        let Self { sets, evicted } = self;
        let set = &mut sets[key as usize % SETS];
        let way = match set.iter().position(|bucket| bucket.key == key) {
            Some(way) => way,
            None => {
                let resting = set.iter().enumerate().filter(|(_, bucket)| bucket.in_flight == 0);
                let way = resting.min_by_key(|(_, bucket)| bucket.spent)?.0;
                *evicted += u64::from(set[way].spent > now);
                set[way] = Bucket { key, ..Bucket::default() };
                way
            }
        };
        Some(&mut set[way])
    }
}

/// The key of a limit in this database, as the memory knows it. Two that meet count together: less goes through, not more.
pub fn key_of(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ u64::from(super::ids::database());
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The set is chosen by the low bits.
    hash ^= hash >> 29;
    hash.wrapping_mul(0xbf58_476d_1ce4_e5b9).max(1)
}

/// How often a bucket has made room for another while it counted: what was read of the marks before may be too old.
pub fn evicted() -> u64 {
    with(|buckets| buckets.evicted)
}

/// A limit key to be asked about.
#[derive(Debug, Clone)]
pub struct Asked {
    pub text: String,
    pub organization: Option<pgrx::Uuid>,
    pub pace: Pace,
    /// What is written of it, in nanoseconds.
    pub spent: i64,
    /// The position of the first one that waits for it already: nobody behind that overtakes it.
    pub waits: Option<i64>,
}

/// A job that wants to go through: its position, its row, and the keys that it counts for by their index.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub seq: i64,
    pub row: Option<i64>,
    pub needs: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// By the key that holds it longest, until that time.
    Held(usize, i64),
    /// An earlier job of its row is held by that key until that time.
    Behind(usize, i64),
}

impl Buckets {
    fn decide(&mut self, asked: &[Asked], keys: &[u64], wishes: &[Wish], now: i64) -> (Vec<Verdict>, Vec<i64>) {
        let mut counted = vec![0i64; asked.len()];
        let mut rows: HashMap<i64, (usize, i64)> = HashMap::new();
        let mut verdict = |wish: &Wish| {
            if let Some((index, slot)) = wish.row.and_then(|row| rows.get(&row)) {
                return Verdict::Behind(*index, *slot);
            }
            let mut held: Option<(usize, i64)> = None;
            for index in &wish.needs {
                let asked = &asked[*index];
                let slot = match self.bucket(keys[*index], now) {
                    Some(bucket) => {
                        // What made room since was read from the marks.
                        bucket.spent = bucket.spent.max(asked.spent);
                        bucket.slot(asked.pace, now)
                    }
                    None => now.saturating_add(asked.pace.interval),
                };
                let behind = asked.waits.is_some_and(|first| first < wish.seq);
                if (slot > now || behind) && held.is_none_or(|(_, other)| slot > other) {
                    held = Some((*index, slot));
                }
            }
            if let Some((index, slot)) = held {
                rows.extend(wish.row.map(|row| (row, (index, slot))));
                return Verdict::Held(index, slot);
            }
            for index in &wish.needs {
                if let Some(bucket) = self.bucket(keys[*index], now) {
                    bucket.take(asked[*index].pace, now);
                    counted[*index] += 1;
                }
            }
            Verdict::Go
        };
        let verdicts = wishes.iter().map(&mut verdict).collect();
        (verdicts, counted)
    }
}

/// Decides on jobs in their order; each takes of all its keys or of none. None: `asked` was read before `as_of` and may be too
/// old, read it again. `now` in nanoseconds.
pub fn decide(asked: &[Asked], wishes: &[Wish], now: i64, as_of: u64) -> Option<Vec<Verdict>> {
    super::xact::note_limits();
    let keys: Vec<u64> = asked.iter().map(|asked| key_of(&asked.text)).collect();
    let (verdicts, counted) = with(|buckets| (buckets.evicted == as_of).then(|| buckets.decide(asked, &keys, wishes, now)))?;
    TAKEN.with_borrow_mut(|taken| {
        for ((asked, key), jobs) in asked.iter().zip(keys).zip(counted).filter(|(_, jobs)| *jobs > 0) {
            taken.push(Taken { text: asked.text.clone(), organization: asked.organization, key, pace: asked.pace, jobs });
        }
    });
    Some(verdicts)
}

/// How many may go through now, and when the next one after those.
pub fn look(asked: &Asked, now: i64) -> (i64, i64) {
    with(|buckets| {
        let Some(bucket) = buckets.bucket(key_of(&asked.text), now) else { return (0, now.saturating_add(asked.pace.interval)) };
        bucket.spent = bucket.spent.max(asked.spent);
        let available = bucket.available(asked.pace, now);
        (available, bucket.slot(asked.pace, now).saturating_add(available.saturating_mul(asked.pace.interval)))
    })
}

/// What this transaction has taken, to be written down at its end: key, organization, and until when it counts.
pub fn marks() -> Vec<(String, Option<pgrx::Uuid>, i64)> {
    let now = super::ids::clock().saturating_mul(1_000);
    TAKEN.with_borrow(|taken| {
        if taken.is_empty() {
            return Vec::new();
        }
        with(|buckets| {
            taken
                .iter()
                .filter_map(|taken| {
                    let bucket = buckets.bucket(taken.key, now)?;
                    bucket.settle(taken.pace, now);
                    Some((taken.text.clone(), taken.organization, bucket.spent))
                })
                .collect()
        })
    })
}

/// The transaction has ended. Called at commit and abort: must not fail.
pub(super) fn ended(committed: bool) {
    let taken = TAKEN.take();
    if taken.is_empty() {
        return;
    }
    let now = super::ids::clock().saturating_mul(1_000);
    with(|buckets| {
        for taken in &taken {
            if let Some(bucket) = buckets.bucket(taken.key, now) {
                if committed {
                    bucket.settle(taken.pace, now);
                }
                bucket.in_flight = (bucket.in_flight - taken.jobs).max(0);
            }
        }
    });
}

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_one_in_each_interval() {
        let pace = Pace { interval: 10, burst: 3 };
        let mut bucket = Bucket::default();
        assert_eq!(bucket.available(pace, 1_000), 3);
        for _ in 0..3 {
            assert!(bucket.slot(pace, 1_000) <= 1_000);
            bucket.take(pace, 1_000);
        }
        assert_eq!((bucket.available(pace, 1_000), bucket.slot(pace, 1_000)), (0, 1_010));
        bucket.settle(pace, 1_000);
        bucket.in_flight = 0;
        assert_eq!((bucket.available(pace, 1_010), bucket.slot(pace, 1_010)), (1, 1_010));
        assert_eq!(bucket.available(pace, 1_030), 3);
    }

    #[test]
    fn what_is_in_flight_makes_no_room() {
        let mut buckets = Box::<Buckets>::default();
        let keys: Vec<u64> = (1..=WAYS as u64).map(|n| n * SETS as u64).collect();
        for key in &keys {
            buckets.bucket(*key, 0).unwrap().in_flight = 1;
        }
        assert!(buckets.bucket(1_000 * SETS as u64, 0).is_none());
        let resting = buckets.bucket(keys[3], 0).unwrap();
        (resting.in_flight, resting.spent) = (0, 5);
        assert!(buckets.bucket(1_000 * SETS as u64, 0).is_some());
        assert_eq!(buckets.evicted, 1);
    }

    proptest! {
        /// Transactions that overlap as they like, each taking what it may at its beginning; each job's effect at any moment
        /// until the end. However it is cut, no window has more than the burst and the rate times its length.
        #[test]
        fn no_window_has_more_than_burst_and_rate(
            interval in 1i64..20, burst in 1i64..5,
            steps in prop::collection::vec((0i64..30, 0i64..60, 1i64..6, 0.0f64..1.0), 1..40),
        ) {
            let pace = Pace { interval, burst };
            let mut bucket = Bucket::default();
            let mut now = 1_000_000i64;
            let mut open: Vec<(i64, i64)> = Vec::new();
            let mut effects: Vec<i64> = Vec::new();
            for (pause, length, wanted, part) in steps {
                let next = now + pause;
                open.sort_unstable();
                while let Some((end, jobs)) = open.first().copied().filter(|(end, _)| *end <= next) {
                    bucket.settle(pace, end);
                    bucket.in_flight -= jobs;
                    open.remove(0);
                }
                now = next;
                let mut jobs = 0;
                while jobs < wanted && bucket.slot(pace, now) <= now {
                    bucket.take(pace, now);
                    jobs += 1;
                    effects.push(now + (length as f64 * part) as i64);
                }
                if jobs > 0 {
                    open.push((now + length, jobs));
                }
            }
            effects.sort_unstable();
            for (first, from) in effects.iter().enumerate() {
                for (last, to) in effects.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as i64;
                    prop_assert!(count <= burst + (to - from) / interval, "{count} in {} of {pace:?}", to - from);
                }
            }
        }
    }
}
