//! Having the last word before a transaction commits, and following its subtransactions.
//!
//! What is asked here comes after every deferred constraint and trigger has run, those that others have queued included: nothing of the
//! user's can write behind it. An error is the transaction's. `PREPARE TRANSACTION` is asked as `COMMIT` is.

use super::trigger::raise;
use crate::error::Result;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::Cell;

/// The number of a subtransaction; of two in one transaction that are open, the inner one's is greater.
pub type Level = u32;

/// Who is asked.
#[derive(Clone, Copy)]
pub struct Watch {
    /// There is something to look at.
    pub pending: fn() -> bool,
    /// The transaction is about to commit.
    pub before_commit: fn() -> Result<()>,
    /// A part of a transaction is complete, and may fail by itself: what it has left is looked at from this level on.
    pub look_now: fn(Level) -> Result<()>,
    /// What the first level has noted is the second's from now on.
    pub kept: fn(Level, Level),
    /// What this level and those inside it have done is undone.
    pub undone: fn(Level),
}

thread_local! {
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if !matches!(event, XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE) {
        return;
    }
    let Some(watch) = WATCH.get().filter(|watch| (watch.pending)()) else { return };
    // SAFETY: the transaction is still in progress, and none of its snapshots is active any more. What is pushed is popped, or goes with
    // the transaction when an error ends it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    raise((watch.before_commit)());
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction(
    event: pg_sys::SubXactEvent::Type,
    mine: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::*;
    let Some(watch) = WATCH.get() else { return };
    if event == SUBXACT_EVENT_COMMIT_SUB {
        (watch.kept)(mine, parent);
    } else if event == SUBXACT_EVENT_ABORT_SUB {
        (watch.undone)(mine);
    }
}

/// From now on, in this process.
pub fn watch(watch: Watch) {
    if WATCH.replace(Some(watch)).is_some() {
        return;
    }
    // SAFETY: each is registered once a process; both live as long as it.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction), std::ptr::null_mut());
    }
}

/// Where in its transaction this code runs.
pub fn level() -> Level {
    // SAFETY: reads the state of the transaction.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// What the open subtransaction has left for the commit is looked at now, where it can be told whose fault it is. At the commit it is
/// looked at again: others write meanwhile.
pub fn look_now() -> Result<()> {
    match WATCH.get().filter(|watch| (watch.pending)()) {
        Some(watch) => (watch.look_now)(level()),
        None => Ok(()),
    }
}
