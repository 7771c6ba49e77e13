//! What this transaction has put into the queue, and telling the workers when it ends.
//!
//! Positions (`seq`) are drawn here, from an uncached sequence, while the writer holds its row locks: for one row their
//! order is the order of its changes. At commit the lowest position per lane goes to the workers' slots.

use super::shmem::{self, Ended, LANES, NONE};
use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

/// The lane whose process also does what is done once for a database.
pub const MAINTAINS: usize = 3;

struct Pending {
    low: [i64; LANES],
    due_changed: bool,
    /// Flows, schedules or long work are others than before.
    plans_changed: bool,
    /// Rows were written that may overlap with others.
    overlaps: bool,
    /// A row of the queue was locked and may be given back by an abort: workers that skipped it must look again.
    also_on_abort: bool,
    launcher: bool,
    /// Bit per lane of which this transaction has done a batch.
    batches: u32,
    callers: bool,
    last: i64,
    taken: u64,
    /// (draws before, first position after) since [`mark`].
    mark: Option<(u64, i64)>,
}

impl Pending {
    const NEW: Self = Self {
        low: [NONE; LANES],
        due_changed: false,
        plans_changed: false,
        overlaps: false,
        also_on_abort: false,
        launcher: false,
        batches: 0,
        callers: false,
        last: 0,
        taken: 0,
        mark: None,
    };

    fn drew(&mut self, seq: i64) {
        if let Some((_, first)) = &mut self.mark {
            *first = (*first).min(seq);
        }
        self.last = self.last.max(seq);
        self.taken += 1;
    }
}

thread_local! {
    static PENDING: RefCell<Pending> = const { RefCell::new(Pending::NEW) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static SEQUENCE: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    static DEFERRABLE: Cell<(u64, bool)> = const { Cell::new((0, true)) };
    static FORGET: Cell<bool> = const { Cell::new(false) };
    /// This transaction has counted for limits.
    static LIMITS: Cell<bool> = const { Cell::new(false) };
    static AT_END: RefCell<Vec<fn()>> = const { RefCell::new(Vec::new()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if !matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        return;
    }
    let pending = PENDING.replace(Pending::NEW);
    // Before anybody is woken: whoever takes the jobs finds them counted.
    super::gauges::ended(event);
    // Before the lane's lock goes: whoever gets it next finds the mark.
    if event != XACT_EVENT_ABORT && pending.batches != 0 {
        shmem::signal_batches(pending.batches);
    }
    if event == XACT_EVENT_COMMIT || (event == XACT_EVENT_ABORT && pending.also_on_abort) {
        shmem::signal(&pending.low, pending.due_changed, Ended::Committed);
        if pending.callers {
            shmem::ask_for_callers();
        }
        if pending.launcher {
            shmem::signal_launcher();
        }
        if pending.plans_changed && event == XACT_EVENT_COMMIT {
            shmem::signal_plans();
        }
    } else if event == XACT_EVENT_PREPARE {
        shmem::signal(&pending.low, pending.due_changed, Ended::Prepared);
    }
    // A prepared transaction tells nobody of its end: it is found within a minute.
    if event == XACT_EVENT_COMMIT && pending.overlaps {
        shmem::signal_overlaps(MAINTAINS);
    }
    if LIMITS.take() {
        super::buckets::ended(event != XACT_EVENT_ABORT);
    }
    if FORGET.take() {
        super::relcache::forget();
    }
    AT_END.with_borrow(|hooks| hooks.iter().for_each(|hook| hook()));
}

fn register() {
    if !REGISTERED.replace(true) {
        // SAFETY: registered once a process; the callback touches thread-local and shared atomics only and cannot fail.
        unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) }
    }
}

/// The ends of transactions are noticed from here on.
pub fn listen() {
    register();
}

/// When the client's statement began: the same number for as long as it runs.
pub fn statement_began() -> i64 {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Calls `hook` at the end of every transaction of this process, however it ends. For forgetting what was noted in it.
pub fn at_end(hook: fn()) {
    register();
    AT_END.with_borrow_mut(|hooks| {
        if !hooks.contains(&hook) {
            hooks.push(hook);
        }
    });
}

/// Draws the next position for a job of `lane` and remembers it for the wake-up.
pub fn take_seq(lane: usize) -> Result<i64> {
    let seq = draw()?;
    note(lane, seq);
    super::gauges::add_to_whole(lane, 1);
    Ok(seq)
}

/// Draws the next position for a job that a limit holds back: it is not ready.
pub fn take_later_seq() -> Result<i64> {
    let seq = draw()?;
    register();
    PENDING.with_borrow_mut(|pending| {
        pending.drew(seq);
        pending.due_changed = true;
    });
    Ok(seq)
}

fn draw() -> Result<i64> {
    let generation = super::relcache::generation();
    let (known, oid) = SEQUENCE.get();
    let oid = if known == generation && oid != 0 {
        oid
    } else {
        let oid = super::catalog::usher_relation("queue_seq").ok_or_else(UsherError::not_set_up)?.to_u32();
        SEQUENCE.set((generation, oid));
        oid
    };
    // The transaction gets its number first: whoever has drawn a position is seen to run until it has ended, on which the
    // floor of the log relies (queue/log.rs).
    // SAFETY: gives this transaction its id, if it has none yet.
    unsafe { pg_sys::GetTopTransactionId() };
    // SAFETY: nextval(regclass) by its own entry point, with the one argument it takes; it checks the caller's rights.
    let seq = unsafe { pgrx::direct_function_call::<i64>(pg_sys::nextval_oid, &[Some(pg_sys::Datum::from(Oid::from(oid)))]) }
        .ok_or_else(|| UsherError::internal("the queue's sequence gave no value"))?;
    Ok(seq)
}

/// Remembers that a job with this position waits in `lane` once this transaction has committed.
pub fn note(lane: usize, seq: i64) {
    register();
    PENDING.with_borrow_mut(|pending| {
        if let Some(low) = pending.low.get_mut(lane) {
            *low = (*low).min(seq);
        }
        pending.drew(seq);
    });
}

/// Starts to watch which positions are drawn from here on.
pub fn mark() {
    PENDING.with_borrow_mut(|pending| pending.mark = Some((pending.taken, NONE)));
}

/// First and last position drawn since [`mark`], if any was.
pub fn since_mark() -> Option<(i64, i64)> {
    PENDING.with_borrow_mut(|pending| match pending.mark.take() {
        Some((count, first)) if pending.taken > count => Some((first, pending.last)),
        _ => None,
    })
}

/// The newest position that this transaction has drawn, 0 before the first.
pub fn last_seq() -> i64 {
    PENDING.with_borrow(|pending| pending.last)
}

/// The workers look at due times again once this transaction has committed.
pub fn note_due_changed() {
    register();
    PENDING.with_borrow_mut(|pending| pending.due_changed = true);
}

/// The workers look at schedules and long work again once this transaction has committed.
pub fn note_plans_changed() {
    register();
    PENDING.with_borrow_mut(|pending| pending.plans_changed = true);
}

/// The worker looks for overlaps once this transaction has committed.
pub fn note_overlaps() {
    register();
    PENDING.with_borrow_mut(|pending| pending.overlaps = true);
}

/// A ready job was locked by this session: however the transaction ends, its worker looks at it again.
pub fn note_locked(lane: usize, seq: i64) {
    note(lane, seq);
    PENDING.with_borrow_mut(|pending| {
        pending.due_changed = true;
        pending.also_on_abort = true;
    });
}

/// This transaction enters a batch of a lane in the ledger.
pub fn note_batch(lane: usize) {
    register();
    PENDING.with_borrow_mut(|pending| pending.batches |= 1 << lane);
}

/// This transaction counts for limits: its end is told to the buckets.
pub fn note_limits() {
    register();
    LIMITS.set(true);
}

/// When this transaction began, in microseconds since 2000-01-01 UTC: what `now()` says.
pub fn began_at() -> i64 {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// When the client's statement arrived, in microseconds since 2000-01-01 UTC.
pub fn statement_began_at() -> i64 {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// This database may want workers from the commit on.
pub fn note_launcher() {
    register();
    PENDING.with_borrow_mut(|pending| pending.launcher = true);
}

/// Some call that leaves the database can be made from the commit on.
pub fn note_callers() {
    register();
    PENDING.with_borrow_mut(|pending| pending.callers = true);
}

/// True when a transaction id is that of this transaction or of one of its subtransactions.
pub fn is_mine(xid: i64) -> bool {
    let xid = u32::try_from(xid).unwrap_or(0);
    // SAFETY: looks through this backend's own list of transaction ids.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from(xid)) }
}

/// Gives this transaction its number now, if it has none yet.
pub fn take_number() {
    // SAFETY: gives this transaction its id; fails, by PostgreSQL's own error, where nothing can be written.
    unsafe { pg_sys::GetTopTransactionId() };
}

/// False in a transaction that only reads, and on a standby.
pub fn may_write() -> bool {
    // SAFETY: both read variables of this process.
    unsafe { !pg_sys::XactReadOnly && !pg_sys::RecoveryInProgress() }
}

/// The number that the next transaction gets. A snapshot's upper bound is not that: transactions that run may be beyond it.
pub fn next_xid() -> i64 {
    // SAFETY: reads a counter in shared memory under its lock.
    let next = unsafe { pg_sys::ReadNextFullTransactionId() };
    i64::try_from(next.value).unwrap_or(i64::MAX)
}

/// True in READ COMMITTED, where each statement sees what others have committed meanwhile.
pub fn sees_new_commits() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::XactIsoLevel <= pg_sys::XACT_READ_COMMITTED as i32 }
}

/// True between BEGIN and its end, and inside a block of several statements: what the statement takes outlives it.
pub fn in_block() -> bool {
    // SAFETY: reads the state of the transaction.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// What is remembered from the catalog now may be old: a transaction with one snapshot does not see what others have
/// changed meanwhile. It is forgotten when the transaction ends.
pub fn remember_only_now() {
    if !sees_new_commits() {
        register();
        FORGET.set(true);
    }
}

/// Relations for which something deferrable is pending until COMMIT; `triggers_only` leaves out keys and foreign keys,
/// which check with their owners' rights and can only fail.
pub fn pending(triggers_only: bool) -> Result<HashSet<u32>> {
    let relations = super::spi::read_all(
        "SELECT DISTINCT tgrelid FROM pg_catalog.pg_trigger WHERE tgdeferrable AND NOT (tgisinternal AND $1)",
        &[super::spi::arg(triggers_only)],
        |row| Ok(row.get::<Oid>(1)?.unwrap_or(Oid::INVALID)),
    )?;
    // SAFETY: looks through this transaction's own list of trigger events.
    Ok(relations.into_iter().filter(|oid| unsafe { pg_sys::AfterTriggerPendingOnRel(*oid) }).map(|oid| oid.to_u32()).collect())
}

/// True when this database has anything that is checked only at COMMIT: constraints, keys or triggers.
pub fn may_defer() -> Result<bool> {
    let generation = super::relcache::schema_generation();
    let (known, any) = DEFERRABLE.get();
    if known == generation {
        return Ok(any);
    }
    let any =
        super::spi::read::<bool>("SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgdeferrable)", &[])?.unwrap_or(true);
    DEFERRABLE.set((generation, any));
    Ok(any)
}
