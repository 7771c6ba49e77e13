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
    /// Moves on with every process for which the slot is reserved: one that comes too late is not the one that is expected.
    ticket: AtomicU32,
    /// When the process began, in microseconds: a pid may come again.
    since: AtomicI64,
    /// A flow or job of this database wants callers. On the slots of its workers.
    wants_callers: AtomicBool,
    /// Address of the worker's latch in shared memory, 0 while it is not listening.
    latch: AtomicUsize,
    low: [AtomicI64; LANES],
    /// Lowest position of a transaction that was prepared: its COMMIT PREPARED tells nobody.
    prepared: [AtomicI64; LANES],
    /// Another process has done jobs of the lane: what this one has in mind of the log is old.
    stale: [AtomicBool; LANES],
    /// Something about waiting jobs changed: look at the due times again.
    due_changed: AtomicBool,
    /// The same, by a transaction that was prepared.
    prepared_due: AtomicBool,
    /// Schedules or long work may be others: look at them again.
    plans_changed: AtomicBool,
    /// Rows were written that may overlap, or the rules about that are others.
    overlaps: AtomicBool,
    busy_kind: AtomicI32,
    busy_lane: AtomicI32,
    busy_from: AtomicI64,
    busy_to: AtomicI64,
    jobs: AtomicU64,
    batches: AtomicU64,
    last_batch_at: AtomicI64,
    /// Earlier processes of this post ended inside a batch: this one does jobs one by one. Set by the launcher.
    careful: AtomicBool,
    /// The process ended inside a batch. Read by the launcher.
    ended_inside: AtomicBool,
    /// What the worker has found in its database. Read by the launcher.
    found: AtomicI32,
}

/// A session that needs a database without workers, until its transaction ends.
#[repr(C)]
struct Hold {
    database: AtomicU32,
    pid: AtomicI32,
}

const HOLDS: usize = 16;
const ASKS: usize = 16;

#[repr(C)]
pub struct Shared {
    launcher_pid: AtomicI32,
    /// Databases that ask for workers; other wake-ups of the launcher do not. More than fit: all are looked at.
    asked: [AtomicU32; ASKS],
    asked_all: AtomicBool,
    launcher_latch: AtomicUsize,
    holds: [Hold; HOLDS],
    slots: [Slot; SLOTS],
}

// SAFETY: plain atomics in a fixed layout, valid at the same address in every process of the server.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            launcher_pid: AtomicI32::new(0),
            asked: std::array::from_fn(|_| AtomicU32::new(0)),
            asked_all: AtomicBool::new(false),
            launcher_latch: AtomicUsize::new(0),
            holds: std::array::from_fn(|_| Hold { database: AtomicU32::new(0), pid: AtomicI32::new(0) }),
            slots: std::array::from_fn(|_| Slot {
                database: AtomicU32::new(0),
                lanes: AtomicU32::new(0),
                pid: AtomicI32::new(0),
                ticket: AtomicU32::new(0),
                since: AtomicI64::new(0),
                wants_callers: AtomicBool::new(false),
                latch: AtomicUsize::new(0),
                low: std::array::from_fn(|_| AtomicI64::new(NONE)),
                prepared: std::array::from_fn(|_| AtomicI64::new(NONE)),
                stale: std::array::from_fn(|_| AtomicBool::new(false)),
                due_changed: AtomicBool::new(false),
                prepared_due: AtomicBool::new(false),
                plans_changed: AtomicBool::new(false),
                overlaps: AtomicBool::new(false),
                busy_kind: AtomicI32::new(0),
                busy_lane: AtomicI32::new(-1),
                busy_from: AtomicI64::new(0),
                busy_to: AtomicI64::new(0),
                jobs: AtomicU64::new(0),
                batches: AtomicU64::new(0),
                last_batch_at: AtomicI64::new(0),
                careful: AtomicBool::new(false),
                ended_inside: AtomicBool::new(false),
                found: AtomicI32::new(0),
            }),
        }
    }
}

// SAFETY: the name is used by nothing else.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"pg_usher_shared") };

/// Asks for the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(SHARED);
    super::counters::init();
    super::buckets::init();
    super::meters::init();
    super::gauges::init();
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
        if is_caller(lanes) {
            continue;
        }
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

/// Tells other workers of this database, if there are any for these lanes, that their logs are not the newest any more.
pub fn signal_batches(lanes: u32) {
    let (database, me) = (super::ids::database(), std::process::id() as i32);
    for slot in slots().iter().filter(|slot| slot.database.load(SeqCst) == database && slot.pid.load(SeqCst) != me) {
        for lane in (0..LANES).filter(|lane| lanes & (1 << lane) != 0) {
            slot.stale[lane].store(true, SeqCst);
        }
    }
}

mod mine;
mod state;

pub use mine::Mine;
pub use state::{callers, workers};

/// The mark of a caller process among the lanes of a slot; its number stands above it.
const CALLER: u32 = 1 << LANES;

/// The lanes of the caller with this number: none.
pub fn caller(number: i32) -> u32 {
    CALLER | u32::try_from(number).unwrap_or(0) << 8
}

pub fn is_caller(lanes: u32) -> bool {
    lanes & CALLER != 0
}

fn of_this_database() -> impl Iterator<Item = &'static Slot> {
    let database = super::ids::database();
    slots().iter().filter(move |slot| slot.database.load(SeqCst) == database)
}

/// Wakes the callers of this database, or has the launcher start them. Called at commit: must not fail.
pub fn ask_for_callers() {
    let mut new = false;
    for slot in of_this_database() {
        if is_caller(slot.lanes.load(SeqCst)) {
            set_latch(slot.latch.load(SeqCst));
        } else {
            new |= !slot.wants_callers.swap(true, SeqCst);
        }
    }
    if new {
        signal_launcher();
    }
}

/// Nothing in this database wants callers any more.
pub fn no_callers() {
    of_this_database().for_each(|slot| slot.wants_callers.store(false, SeqCst));
}

pub fn callers_are_wanted(database: u32) -> bool {
    slots().iter().any(|slot| slot.database.load(SeqCst) == database && slot.wants_callers.load(SeqCst))
}

/// The callers of this database that are there, by the names under which they hold leases.
pub fn living_callers() -> Vec<String> {
    of_this_database().filter(|slot| is_caller(slot.lanes.load(SeqCst)) && slot.pid.load(SeqCst) != 0).map(holder).collect()
}

fn holder(slot: &Slot) -> String {
    format!("usher caller {} {}", slot.pid.load(SeqCst), slot.since.load(SeqCst))
}

/// Tells the workers of this database that schedules or long work have changed. Called at commit: must not fail.
pub fn signal_plans() {
    let database = super::ids::database();
    for slot in slots().iter().filter(|slot| slot.database.load(SeqCst) == database) {
        slot.plans_changed.store(true, SeqCst);
        set_latch(slot.latch.load(SeqCst));
    }
}

/// Tells the worker of this database that serves the lane that rows are to be looked at for overlaps. Called at commit: must not fail.
pub fn signal_overlaps(lane: usize) {
    for slot in of_this_database().filter(|slot| slot.lanes.load(SeqCst) & (1 << lane) != 0) {
        slot.overlaps.store(true, SeqCst);
        set_latch(slot.latch.load(SeqCst));
    }
}

/// Wakes the launcher: this database may want workers now.
pub fn signal_launcher() {
    if !available() {
        return;
    }
    let database = super::ids::database();
    let taken = SHARED.get().asked.iter().any(|ask| match ask.compare_exchange(0, database, SeqCst, SeqCst) {
        Ok(_) => true,
        Err(other) => other == database,
    });
    if !taken {
        SHARED.get().asked_all.store(true, SeqCst);
    }
    wake_launcher();
}

/// The launcher looks at the list of databases again.
pub fn wake_launcher() {
    if available() {
        set_latch(SHARED.get().launcher_latch.load(SeqCst));
    }
}

pub fn launcher_arrives() {
    SHARED.get().launcher_pid.store(std::process::id() as i32, SeqCst);
    SHARED.get().launcher_latch.store(my_latch(), SeqCst);
}

/// Databases in which somebody has asked for workers since the last call; None when there were too many to remember.
pub fn launcher_was_asked() -> Option<Vec<u32>> {
    let asked = SHARED.get().asked.iter().map(|ask| ask.swap(0, SeqCst)).filter(|database| *database != 0).collect();
    if SHARED.get().asked_all.swap(false, SeqCst) { None } else { Some(asked) }
}

/// Keeps workers away from a database until [`end_holds`]. False when too many do so at a time.
pub fn hold(database: u32) -> bool {
    let pid = std::process::id() as i32;
    let free = |hold: &&Hold| hold.pid.compare_exchange(0, pid, SeqCst, SeqCst).is_ok();
    let found = available().then(|| SHARED.get().holds.iter().find(free)).flatten();
    if let Some(hold) = found {
        hold.database.store(database, SeqCst);
    }
    found.is_some()
}

/// Ends what this process holds, and lets the launcher look.
pub fn end_holds() {
    if !available() {
        return;
    }
    let pid = std::process::id() as i32;
    for hold in SHARED.get().holds.iter().filter(|hold| hold.pid.load(SeqCst) == pid) {
        hold.database.store(0, SeqCst);
        hold.pid.store(0, SeqCst);
    }
    wake_launcher();
}

/// Databases that sessions hold. Those of sessions that are gone without a word are given back.
pub fn held() -> Vec<u32> {
    let mut databases = Vec::new();
    for hold in &SHARED.get().holds {
        let (database, pid) = (hold.database.load(SeqCst), hold.pid.load(SeqCst));
        if pid == 0 {
            continue;
        }
        if !lives(pid) {
            hold.database.store(0, SeqCst);
            let _ = hold.pid.compare_exchange(pid, 0, SeqCst, SeqCst);
        } else if database != 0 {
            databases.push(database);
        }
    }
    databases
}

/// Processes of the slots that a database has; 0 for one that has not arrived or has left.
pub fn pids_of(database: u32) -> Vec<i32> {
    slots().iter().filter(|slot| slot.database.load(SeqCst) == database).map(|slot| slot.pid.load(SeqCst)).collect()
}

/// Processes that an earlier launcher has started and that this one does not know.
pub fn orphans() -> Vec<(usize, i32)> {
    let known = |(index, slot): (usize, &Slot)| (slot.database.load(SeqCst) != 0).then(|| (index, slot.pid.load(SeqCst)));
    slots().iter().enumerate().filter_map(known).collect()
}

pub fn launcher_pid() -> i32 {
    if available() { SHARED.get().launcher_pid.load(SeqCst) } else { 0 }
}

/// True while a process of the server has this number.
fn lives(pid: i32) -> bool {
    // SAFETY: looks through the list of processes under its own lock; only whether one was found is used.
    pid != 0 && !unsafe { pg_sys::BackendPidGetProc(pid) }.is_null()
}

/// Takes a slot back from a process that an earlier launcher has started, once that process is gone. False: it is not.
pub fn release_orphan(index: usize) -> bool {
    let gone = !lives(pid_of(index));
    if gone {
        release(index);
    }
    gone
}

/// The launcher gives a slot to a worker that it is about to start, which shows the ticket when it arrives. None when all are
/// taken.
pub fn reserve(database: u32, lanes: u32, careful: bool) -> Option<usize> {
    let index = slots().iter().position(|slot| slot.database.load(SeqCst) == 0)?;
    let slot = &slots()[index];
    slot.ticket.fetch_add(1, SeqCst);
    slot.careful.store(careful, SeqCst);
    slot.ended_inside.store(false, SeqCst);
    slot.found.store(Found::Nothing as i32, SeqCst);
    slot.lanes.store(lanes, SeqCst);
    slot.database.store(database, SeqCst);
    Some(index)
}

/// What a worker knows of its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It has not looked yet.
    Nothing = 0,
    Tables = 1,
    /// There is no extension, or no tables that are at home here.
    NoTables = 2,
}

/// What the process of a slot has found.
pub fn found(index: usize) -> Found {
    match slots()[index].found.load(SeqCst) {
        1 => Found::Tables,
        2 => Found::NoTables,
        _ => Found::Nothing,
    }
}

/// True when the last process of a slot ended inside a batch.
pub fn ended_inside(index: usize) -> bool {
    slots()[index].ended_inside.load(SeqCst)
}

/// What the process for which a slot is reserved is told when it is started: the slot and its ticket.
pub fn invitation(index: usize) -> i32 {
    (slots()[index].ticket.load(SeqCst) as i32 & 0x7f_ffff) << 8 | index as i32
}

/// The process of a slot, 0 before it arrives and after it leaves.
pub fn pid_of(index: usize) -> i32 {
    slots()[index].pid.load(SeqCst)
}

/// The launcher takes a slot back from a worker that has ended.
pub fn release(index: usize) {
    let slot = &slots()[index];
    slot.latch.store(0, SeqCst);
    slot.pid.store(0, SeqCst);
    slot.busy_kind.store(0, SeqCst);
    slot.wants_callers.store(false, SeqCst);
    slot.lanes.store(0, SeqCst);
    slot.database.store(0, SeqCst);
}

/// What a batch reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Queue = 1,
    Waiting = 2,
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

/// Whether a worker has a place in this database.
pub fn has_workers(database: u32) -> bool {
    slots().iter().any(|slot| slot.database.load(SeqCst) == database)
}

/// Slots that are in use, of [`SLOTS`], in all databases.
pub fn slots_taken() -> usize {
    slots().iter().filter(|slot| slot.database.load(SeqCst) != 0).count()
}
