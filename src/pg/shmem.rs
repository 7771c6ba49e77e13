//! What workers and sessions share: a slot per worker with its latch, its wake-up marks and what it is busy with.
//!
//! A session that commits new jobs lowers the slot's `low` mark of each lane and sets the worker's latch; the worker
//! takes the mark, starts reading there, and reads the marks again before it sleeps. Everything is an atomic: no lock is
//! held, nothing can be left locked by a process that dies.

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

pub const LANES: usize = 5;
/// Databases with workers times workers per database; more are refused by the launcher with a warning.
pub const SLOTS: usize = 32;
/// "No mark": every position is below it.
pub const NONE: i64 = i64::MAX;

#[repr(C)]
pub struct Slot {
    /// Database oid, 0 while the slot is free. Set by the launcher.
    database: AtomicU32,
    /// Bit per lane that this worker serves.
    lanes: AtomicU32,
    pid: AtomicI32,
    /// Address of the worker's latch in shared memory, 0 while it is not listening.
    latch: AtomicUsize,
    low: [AtomicI64; LANES],
    /// Lowest position of a transaction that was prepared: its COMMIT PREPARED tells nobody.
    prepared: [AtomicI64; LANES],
    /// Something about waiting jobs changed: look at the due times again.
    due_changed: AtomicBool,
    /// The same, by a transaction that was prepared.
    prepared_due: AtomicBool,
    /// Schedules or long work may be others: look at them again.
    plans_changed: AtomicBool,
    busy_kind: AtomicI32,
    busy_lane: AtomicI32,
    busy_from: AtomicI64,
    busy_to: AtomicI64,
    jobs: AtomicU64,
    batches: AtomicU64,
    last_batch_at: AtomicI64,
}

#[repr(C)]
pub struct Shared {
    launcher_pid: AtomicI32,
    /// A session asks for workers; other wake-ups of the launcher do not.
    launcher_asked: AtomicBool,
    launcher_latch: AtomicUsize,
    slots: [Slot; SLOTS],
}

// SAFETY: plain atomics in a fixed layout, valid at the same address in every process of the server.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            launcher_pid: AtomicI32::new(0),
            launcher_asked: AtomicBool::new(false),
            launcher_latch: AtomicUsize::new(0),
            slots: std::array::from_fn(|_| Slot {
                database: AtomicU32::new(0),
                lanes: AtomicU32::new(0),
                pid: AtomicI32::new(0),
                latch: AtomicUsize::new(0),
                low: std::array::from_fn(|_| AtomicI64::new(NONE)),
                prepared: std::array::from_fn(|_| AtomicI64::new(NONE)),
                due_changed: AtomicBool::new(false),
                prepared_due: AtomicBool::new(false),
                plans_changed: AtomicBool::new(false),
                busy_kind: AtomicI32::new(0),
                busy_lane: AtomicI32::new(-1),
                busy_from: AtomicI64::new(0),
                busy_to: AtomicI64::new(0),
                jobs: AtomicU64::new(0),
                batches: AtomicU64::new(0),
                last_batch_at: AtomicI64::new(0),
            }),
        }
    }
}

// SAFETY: the name is used by nothing else.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"pg_usher_shared") };

/// Asks for the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(SHARED);
}

/// True when the library was preloaded, so that workers and wake-ups exist.
pub fn available() -> bool {
    // SAFETY: reads a process-local variable set before any library code runs.
    unsafe { PRELOADED }
}

static mut PRELOADED: bool = false;

/// Noted by _PG_init, in the postmaster, before any child exists.
pub fn note_preloaded() {
    // SAFETY: written once by the only thread of the postmaster.
    unsafe { PRELOADED = true }
}

/// True while the server reads shared_preload_libraries.
pub fn preloading() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

fn slots() -> &'static [Slot] {
    if available() { &SHARED.get().slots } else { &[] }
}

fn set_latch(address: usize) {
    if address != 0 {
        // SAFETY: the address is that of a PGPROC's latch; those live in shared memory as long as the server runs. A
        // stale one wakes a process that finds nothing to do.
        unsafe { pg_sys::SetLatch(address as *mut pg_sys::Latch) }
    }
}

fn my_latch() -> usize {
    // SAFETY: set for every process that has a PGPROC, which a connected worker has.
    unsafe { pg_sys::MyLatch as usize }
}

/// What happened to positions in a transaction that ended, lane by lane.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Committed,
    Prepared,
}

/// Tells the workers of this database where to start reading. Called at commit: must not fail.
pub fn signal(low: &[i64; LANES], due_changed: bool, ended: Ended) {
    let database = super::ids::database();
    for slot in slots().iter().filter(|slot| slot.database.load(SeqCst) == database) {
        let lanes = slot.lanes.load(SeqCst);
        let mut wake = due_changed;
        for (lane, position) in low.iter().enumerate() {
            if *position != NONE && lanes & (1 << lane) != 0 {
                let marks = if ended == Ended::Prepared { &slot.prepared } else { &slot.low };
                marks[lane].fetch_min(*position, SeqCst);
                wake = true;
            }
        }
        if due_changed {
            let mark = if ended == Ended::Prepared { &slot.prepared_due } else { &slot.due_changed };
            mark.store(true, SeqCst);
        }
        if wake {
            set_latch(slot.latch.load(SeqCst));
        }
    }
}

/// Tells the workers of this database that schedules or long work have changed. Called at commit: must not fail.
pub fn signal_plans() {
    let database = super::ids::database();
    for slot in slots().iter().filter(|slot| slot.database.load(SeqCst) == database) {
        slot.plans_changed.store(true, SeqCst);
        set_latch(slot.latch.load(SeqCst));
    }
}

/// Wakes the launcher: a database may want workers now.
pub fn signal_launcher() {
    if available() {
        SHARED.get().launcher_asked.store(true, SeqCst);
        set_latch(SHARED.get().launcher_latch.load(SeqCst));
    }
}

pub fn launcher_arrives() {
    SHARED.get().launcher_pid.store(std::process::id() as i32, SeqCst);
    SHARED.get().launcher_latch.store(my_latch(), SeqCst);
}

/// True once after a session has asked for workers.
pub fn launcher_was_asked() -> bool {
    SHARED.get().launcher_asked.swap(false, SeqCst)
}

/// Processes that an earlier launcher has started and that this one does not know.
pub fn orphans() -> Vec<(usize, i32)> {
    let known = |(index, slot): (usize, &Slot)| (slot.database.load(SeqCst) != 0).then(|| (index, slot.pid.load(SeqCst)));
    slots().iter().enumerate().filter_map(known).collect()
}

pub fn launcher_pid() -> i32 {
    if available() { SHARED.get().launcher_pid.load(SeqCst) } else { 0 }
}

/// The launcher gives a slot to a worker that it is about to start. None when all are taken.
pub fn reserve(database: u32, lanes: u32) -> Option<usize> {
    let index = slots().iter().position(|slot| slot.database.load(SeqCst) == 0)?;
    let slot = &slots()[index];
    slot.lanes.store(lanes, SeqCst);
    slot.database.store(database, SeqCst);
    Some(index)
}

/// The launcher takes a slot back from a worker that has ended.
pub fn release(index: usize) {
    let slot = &slots()[index];
    slot.latch.store(0, SeqCst);
    slot.pid.store(0, SeqCst);
    slot.busy_kind.store(0, SeqCst);
    slot.lanes.store(0, SeqCst);
    slot.database.store(0, SeqCst);
}

/// What a batch reads from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Queue = 1,
    Waiting = 2,
}

/// A worker's own slot.
#[derive(Clone, Copy)]
pub struct Mine(usize);

impl Mine {
    /// From here on sessions wake this process. Old marks do not matter: the worker reads everything first.
    pub fn arrive(index: usize) -> Self {
        let slot = &slots()[index];
        slot.pid.store(std::process::id() as i32, SeqCst);
        slot.jobs.store(0, SeqCst);
        slot.batches.store(0, SeqCst);
        slot.latch.store(my_latch(), SeqCst);
        // SAFETY: the callback only clears atomics of this slot; it runs once, when this process ends.
        unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(index)) }
        Self(index)
    }

    fn slot(self) -> &'static Slot {
        &slots()[self.0]
    }

    pub fn database(self) -> u32 {
        self.slot().database.load(SeqCst)
    }

    pub fn lanes(self) -> u32 {
        self.slot().lanes.load(SeqCst)
    }

    pub fn take_low(self, lane: usize) -> i64 {
        self.slot().low[lane].swap(NONE, SeqCst)
    }

    pub fn take_prepared(self, lane: usize) -> i64 {
        self.slot().prepared[lane].swap(NONE, SeqCst)
    }

    pub fn has_prepared(self) -> bool {
        self.slot().prepared_due.load(SeqCst) || self.slot().prepared.iter().any(|mark| mark.load(SeqCst) != NONE)
    }

    pub fn take_prepared_due(self) -> bool {
        self.slot().prepared_due.swap(false, SeqCst)
    }

    pub fn put_prepared_due(self) {
        self.slot().prepared_due.store(true, SeqCst);
    }

    pub fn put_prepared(self, lane: usize, position: i64) {
        self.slot().prepared[lane].fetch_min(position, SeqCst);
    }

    pub fn take_due_changed(self) -> bool {
        self.slot().due_changed.swap(false, SeqCst)
    }

    pub fn take_plans_changed(self) -> bool {
        self.slot().plans_changed.swap(false, SeqCst)
    }

    pub fn busy(self, source: Source, lane: usize, from: i64, to: i64) {
        let slot = self.slot();
        slot.busy_lane.store(lane as i32, SeqCst);
        slot.busy_from.store(from, SeqCst);
        slot.busy_to.store(to, SeqCst);
        slot.busy_kind.store(source as i32, SeqCst);
    }

    pub fn idle(self, jobs: u64) {
        let slot = self.slot();
        slot.busy_kind.store(0, SeqCst);
        if jobs > 0 {
            slot.jobs.fetch_add(jobs, SeqCst);
            slot.batches.fetch_add(1, SeqCst);
            slot.last_batch_at.store(super::ids::clock(), SeqCst);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, arg: pg_sys::Datum) {
    let slot = &slots()[arg.value()];
    slot.latch.store(0, SeqCst);
    slot.busy_kind.store(0, SeqCst);
    slot.pid.store(0, SeqCst);
}

/// True while a worker of this database has this position in an unfinished batch.
pub fn in_progress(source: Source, lane: i32, seq: i64) -> bool {
    let database = super::ids::database();
    slots().iter().any(|slot| {
        slot.busy_kind.load(SeqCst) == source as i32
            && slot.database.load(SeqCst) == database
            && (slot.busy_lane.load(SeqCst) == lane || source == Source::Waiting)
            && slot.busy_from.load(SeqCst) <= seq
            && seq <= slot.busy_to.load(SeqCst)
    })
}

/// Slots that are in use, of [`SLOTS`], in all databases.
pub fn slots_taken() -> usize {
    slots().iter().filter(|slot| slot.database.load(SeqCst) != 0).count()
}

/// A worker as the status screen shows it.
pub struct WorkerState {
    pub pid: i32,
    pub lanes: u32,
    pub listening: bool,
    pub jobs: u64,
    pub batches: u64,
    pub busy: bool,
}

/// The workers of this database.
pub fn workers() -> Vec<WorkerState> {
    let database = super::ids::database();
    slots()
        .iter()
        .filter(|slot| slot.database.load(SeqCst) == database)
        .map(|slot| WorkerState {
            pid: slot.pid.load(SeqCst),
            lanes: slot.lanes.load(SeqCst),
            listening: slot.latch.load(SeqCst) != 0,
            jobs: slot.jobs.load(SeqCst),
            batches: slot.batches.load(SeqCst),
            busy: slot.busy_kind.load(SeqCst) != 0,
        })
        .collect()
}
