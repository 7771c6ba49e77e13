//! How many jobs are ready, lane by lane, in shared memory: of each database as a whole, and of each part of a queue that has
//! a limit.
//!
//! Whoever makes jobs or takes them out adds to a note of the transaction, which follows its savepoints; the note goes to the
//! shared counters at commit. So they are as exact as the commits, without a query and without a lock. What no commit tells
//! (jobs from before the start, prepared transactions) a worker counts, and corrects ([`correct`]).

use super::shmem::LANES;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};

/// One for each database with jobs, and one for each limit.
const GAUGES: usize = 1024;
/// The gauge of a whole database; limits have higher numbers.
pub const WHOLE: u32 = 0;

#[derive(Default)]
#[repr(C)]
struct Gauge {
    /// Database in the upper half, number in the lower; 0 while it is free.
    key: AtomicU64,
    jobs: [AtomicI64; LANES],
    /// How often commits have changed it: a count is exact when nothing has changed meanwhile.
    changes: [AtomicU64; LANES],
    /// Bit per lane that was counted since the server started.
    known: AtomicU32,
    /// Bit per lane that a prepared transaction, or a count while others committed, has left inexact.
    doubtful: AtomicU32,
    /// Bit per lane in which the limit may hold jobs back.
    held: AtomicU32,
}

#[repr(C)]
struct Gauges {
    all: [Gauge; GAUGES],
}

// SAFETY: plain atomics in a fixed layout, valid at the same address in every process of the server.
unsafe impl PGRXSharedMemory for Gauges {}

impl Default for Gauges {
    fn default() -> Self {
        Self { all: std::array::from_fn(|_| Gauge::default()) }
    }
}

// SAFETY: the name is used by nothing else.
static SHARED: PgAtomic<Gauges> = unsafe { PgAtomic::new(c"pg_usher_gauges") };

/// Asks for the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(SHARED);
}

/// A gauge, as long as nobody has given it to something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    index: usize,
    key: u64,
}

impl Handle {
    fn gauge(self) -> Option<&'static Gauge> {
        let gauge = SHARED.get().all.get(self.index)?;
        (gauge.key.load(SeqCst) == self.key).then_some(gauge)
    }
}

fn key_of(number: u32) -> u64 {
    u64::from(super::ids::database()) << 32 | u64::from(number)
}

fn find(key: u64) -> Option<Handle> {
    SHARED.get().all.iter().position(|gauge| gauge.key.load(SeqCst) == key).map(|index| Handle { index, key })
}

/// The gauge with this number, made if need be. None without the preloaded library, or when all are taken. Looks into the
/// catalog when it makes one.
pub fn gauge(number: u32) -> Option<Handle> {
    if !super::shmem::available() {
        return None;
    }
    let key = key_of(number);
    find(key).or_else(|| make(key)).or_else(|| {
        forget_dropped_databases();
        make(key)
    })
}

fn make(key: u64) -> Option<Handle> {
    let all = &SHARED.get().all;
    // Two that make the same one at a time take the first that is free, one after the other.
    let index = all.iter().position(|gauge| match gauge.key.compare_exchange(0, key, SeqCst, SeqCst) {
        Ok(_) => true,
        Err(other) => other == key,
    })?;
    Some(Handle { index, key })
}

/// The gauge with this number, if there is one.
pub fn existing(number: u32) -> Option<Handle> {
    if super::shmem::available() { find(key_of(number)) } else { None }
}

fn forget_dropped_databases() {
    for gauge in &SHARED.get().all {
        let key = gauge.key.load(SeqCst);
        let database = pg_sys::Oid::from((key >> 32) as u32);
        // SAFETY: looks into a system cache, inside a transaction; the name, if there is one, belongs to this memory context.
        if key != 0 && unsafe { pg_sys::get_database_name(database) }.is_null() {
            clear(gauge);
        }
    }
}

fn clear(gauge: &Gauge) {
    for lane in 0..LANES {
        gauge.jobs[lane].store(0, SeqCst);
    }
    gauge.known.store(0, SeqCst);
    gauge.doubtful.store(0, SeqCst);
    gauge.held.store(0, SeqCst);
    gauge.key.store(0, SeqCst);
}

/// Gives the gauges of this database's other limits back: of those that are gone, or never came to be. One whose limit is not
/// committed yet is made again when it is first asked for.
pub fn keep_only(numbers: &[u32]) {
    if !super::shmem::available() {
        return;
    }
    let mine = super::ids::database();
    for gauge in &SHARED.get().all {
        let key = gauge.key.load(SeqCst);
        let number = key as u32;
        if key >> 32 == u64::from(mine) && number != WHOLE && !numbers.contains(&number) {
            clear(gauge);
        }
    }
}

/// The same for all of them, if this transaction commits.
pub fn keep_none() {
    register();
    NONE_LEFT.set(true);
}

/// What a part of a transaction has added, gauge by gauge and lane by lane.
type Note = Vec<(Handle, usize, i64)>;

thread_local! {
    /// By depth of savepoints.
    static NOTES: RefCell<Vec<(i32, Note)>> = const { RefCell::new(Vec::new()) };
    static HELD: RefCell<Vec<(Handle, usize)>> = const { RefCell::new(Vec::new()) };
    /// Marks that were taken; an abort gives them back.
    static TAKEN: RefCell<Vec<(Handle, usize)>> = const { RefCell::new(Vec::new()) };
    /// This transaction removes all limits.
    static NONE_LEFT: Cell<bool> = const { Cell::new(false) };
    static MAIN: Cell<Option<Handle>> = const { Cell::new(None) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

fn depth() -> i32 {
    // SAFETY: reads the transaction's own state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

#[pg_guard]
unsafe extern "C-unwind" fn savepoint_ended(
    event: pg_sys::SubXactEvent::Type,
    _mine: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::*;
    let ending = depth();
    NOTES.with_borrow_mut(|notes| match event {
        SUBXACT_EVENT_COMMIT_SUB => keep(notes, ending),
        SUBXACT_EVENT_ABORT_SUB => notes.retain(|(depth, _)| *depth < ending),
        _ => {}
    });
}

/// What was noted at this depth belongs to the one around it.
fn keep(notes: &mut Vec<(i32, Note)>, ending: i32) {
    while let Some((_, note)) = notes.pop_if(|(depth, _)| *depth >= ending) {
        for (gauge, lane, jobs) in note {
            note_at(notes, ending - 1, gauge, lane, jobs);
        }
    }
}

fn note_at(notes: &mut Vec<(i32, Note)>, depth: i32, gauge: Handle, lane: usize, jobs: i64) {
    if notes.last().is_none_or(|(last, _)| *last < depth) {
        notes.push((depth, Vec::new()));
    }
    let Some((_, note)) = notes.last_mut() else { return };
    match note.iter_mut().find(|(other, at, _)| (*other, *at) == (gauge, lane)) {
        Some((.., count)) => *count += jobs,
        None => note.push((gauge, lane, jobs)),
    }
}

fn register() {
    if !REGISTERED.replace(true) {
        super::xact::listen();
        // SAFETY: registered once a process; the callback touches thread-local memory only and cannot fail.
        unsafe { pg_sys::RegisterSubXactCallback(Some(savepoint_ended), std::ptr::null_mut()) }
    }
}

/// This transaction makes jobs of a lane (takes them away: less than none).
pub fn add(gauge: Handle, lane: usize, jobs: i64) {
    if lane < LANES && jobs != 0 {
        register();
        NOTES.with_borrow_mut(|notes| note_at(notes, depth(), gauge, lane, jobs));
    }
}

/// The same for the database as a whole.
pub fn add_to_whole(lane: usize, jobs: i64) {
    if SILENT.get() {
        return;
    }
    let known = MAIN.get().filter(|main| main.gauge().is_some());
    if let Some(main) = known.or_else(|| gauge(WHOLE)) {
        MAIN.set(Some(main));
        add(main, lane, jobs);
    }
}

/// Draws positions for jobs that are there already.
pub fn without_counting<T>(draw: impl FnOnce() -> T) -> T {
    struct Again(bool);
    impl Drop for Again {
        fn drop(&mut self) {
            SILENT.set(self.0);
        }
    }
    let _again = Again(SILENT.replace(true));
    draw()
}

/// This transaction makes a job that a limit holds back.
pub fn hold_back(gauge: Handle, lane: usize) {
    register();
    HELD.with_borrow_mut(|held| {
        if !held.contains(&(gauge, lane)) {
            held.push((gauge, lane));
        }
    });
}

/// A limit holds jobs of a lane back, or this transaction does so by it: later ones come after them.
pub fn holds_back(gauge: Handle, lane: usize) -> bool {
    HELD.with_borrow(|held| held.contains(&(gauge, lane)))
        || gauge.gauge().is_some_and(|gauge| gauge.held.load(SeqCst) & (1 << lane) != 0)
}

/// Takes the mark of a lane in which jobs may be held back, for this transaction to look.
pub fn take_held(handle: Handle, lane: usize) -> bool {
    register();
    let taken = handle.gauge().is_some_and(|gauge| gauge.held.fetch_and(!(1 << lane), SeqCst) & (1 << lane) != 0);
    if taken {
        TAKEN.with_borrow_mut(|marks| marks.push((handle, lane)));
    }
    taken
}

pub fn put_held(gauge: Handle, lane: usize) {
    if let Some(gauge) = gauge.gauge() {
        gauge.held.fetch_or(1 << lane, SeqCst);
    }
}

/// The end of the transaction. Called from a callback: must not fail.
pub fn ended(event: pg_sys::XactEvent::Type) {
    use pg_sys::XactEvent::*;
    let notes = NOTES.take();
    let held = HELD.take();
    let taken = TAKEN.take();
    if NONE_LEFT.take() && event == XACT_EVENT_COMMIT {
        keep_only(&[]);
    }
    if event == XACT_EVENT_ABORT {
        taken.into_iter().for_each(|(gauge, lane)| put_held(gauge, lane));
        return;
    }
    for (gauge, lane) in held {
        put_held(gauge, lane);
    }
    for (handle, lane, jobs) in notes.into_iter().flat_map(|(_, note)| note) {
        let Some(gauge) = handle.gauge() else { continue };
        if event == XACT_EVENT_PREPARE {
            // COMMIT PREPARED tells nobody.
            gauge.doubtful.fetch_or(1 << lane, SeqCst);
        } else {
            gauge.jobs[lane].fetch_add(jobs, SeqCst);
            gauge.changes[lane].fetch_add(1, SeqCst);
        }
    }
}

/// What all commits so far have left in these lanes, and this transaction has added: what a new job comes on top of.
pub fn jobs(handle: Handle, lanes: impl Iterator<Item = usize> + Clone) -> i64 {
    let Some(gauge) = handle.gauge() else { return 0 };
    let shared: i64 = lanes.clone().map(|lane| gauge.jobs[lane].load(SeqCst)).sum();
    let own: i64 = NOTES.with_borrow(|notes| {
        let all = notes.iter().flat_map(|(_, note)| note);
        all.filter(|(other, lane, _)| *other == handle && lanes.clone().any(|at| at == *lane)).map(|(.., jobs)| jobs).sum()
    });
    (shared + own).max(0)
}

/// The number of ready jobs in a lane, as of all commits; None before somebody has counted them since the start.
pub fn known(handle: Handle, lane: usize) -> Option<i64> {
    let gauge = handle.gauge()?;
    (gauge.known.load(SeqCst) & (1 << lane) != 0).then(|| gauge.jobs[lane].load(SeqCst).max(0))
}

pub fn is_known(handle: Handle, lane: usize) -> bool {
    handle.gauge().is_none_or(|gauge| gauge.known.load(SeqCst) & (1 << lane) != 0)
}

pub fn is_doubtful(handle: Handle, lane: usize) -> bool {
    handle.gauge().is_some_and(|gauge| gauge.doubtful.load(SeqCst) & (1 << lane) != 0)
}

/// A count that begins: as the gauge stands now.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    handle: Handle,
    lane: usize,
    jobs: i64,
    changes: u64,
}

/// To be called before the snapshot of the count.
pub fn before(handle: Handle, lane: usize) -> Option<Before> {
    let gauge = handle.gauge()?;
    let changes = gauge.changes[lane].load(SeqCst);
    Some(Before { handle, lane, jobs: gauge.jobs[lane].load(SeqCst), changes })
}

/// A lane was counted. Where others have committed meanwhile the count is taken only if there was none, or a doubtful one:
/// it will be counted again.
pub fn correct(before: Before, counted: i64) {
    let Some(gauge) = before.handle.gauge() else { return };
    let (lane, bit) = (before.lane, 1 << before.lane);
    let quiet = gauge.changes[lane].load(SeqCst) == before.changes;
    let sure = gauge.known.load(SeqCst) & bit != 0 && gauge.doubtful.load(SeqCst) & bit == 0;
    if quiet || !sure {
        gauge.jobs[lane].fetch_add(counted - before.jobs, SeqCst);
        gauge.known.fetch_or(bit, SeqCst);
        if quiet {
            gauge.doubtful.fetch_and(!bit, SeqCst);
        } else {
            gauge.doubtful.fetch_or(bit, SeqCst);
        }
    }
}

#[cfg(test)]
mod unit {
    use super::{Handle, keep, note_at};

    #[test]
    fn notes_follow_savepoints() {
        let gauge = Handle { index: 0, key: 1 };
        let mut notes = Vec::new();
        note_at(&mut notes, 1, gauge, 3, 2);
        note_at(&mut notes, 1, gauge, 3, 1);
        note_at(&mut notes, 3, gauge, 3, 5);
        keep(&mut notes, 3);
        assert_eq!(notes, [(1, vec![(gauge, 3, 3)]), (2, vec![(gauge, 3, 5)])]);
        notes.retain(|(depth, _)| *depth < 2);
        note_at(&mut notes, 2, gauge, 4, -1);
        keep(&mut notes, 2);
        assert_eq!(notes, [(1, vec![(gauge, 3, 3), (gauge, 4, -1)])]);
    }
}
