//! A time limit for a piece of work, in a worker as well as in a client's session.
//!
//! `statement_timeout` is not armed in a background worker, and in a session it is the user's own: so this is a timer of our
//! own, which cancels as a user's cancel does and remembers that it was us.

use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// The first of the identifiers that extensions may register (`USER_TIMEOUT` of `utils/timeout.h`).
#[cfg(any(feature = "pg15", feature = "pg16"))]
const USER_TIMEOUT: u32 = 12;
#[cfg(any(feature = "pg17", feature = "pg18"))]
const USER_TIMEOUT: u32 = 13;

unsafe extern "C-unwind" {
    fn RegisterTimeout(id: u32, handler: unsafe extern "C-unwind" fn()) -> u32;
    fn enable_timeout_every(id: u32, first: i64, milliseconds: i32);
    fn disable_timeout(id: u32, keep_indicator: bool);
}

/// Milliseconds after which it cancels again: a function may have caught the first cancel and gone on.
const AGAIN: i32 = 100;

static FIRED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static ID: Cell<Option<u32>> = const { Cell::new(None) };
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C-unwind" fn fired() {
    FIRED.store(true, SeqCst);
    // SAFETY: runs in the server's SIGALRM handler: sets two flags that the next CHECK_FOR_INTERRUPTS acts on. The latch is
    // set by the server around this.
    unsafe {
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
    }
}

/// A running timer. When it goes off, the statement under way is cancelled.
pub struct Timer(u32);

impl Timer {
    /// None while another timer of this process runs: work inside of limited work is limited with it.
    pub fn start(limit: Duration) -> Option<Self> {
        if ARMED.replace(true) {
            return None;
        }
        let id = ID.get().unwrap_or_else(|| {
            // SAFETY: in a backend, whose timeouts are initialized before any of our code runs; once a process.
            let id = unsafe { RegisterTimeout(USER_TIMEOUT, fired) };
            ID.set(Some(id));
            id
        });
        FIRED.store(false, SeqCst);
        let first = super::ids::clock().saturating_add(i64::try_from(limit.as_micros()).unwrap_or(i64::MAX));
        // SAFETY: the identifier was registered by this process.
        unsafe { enable_timeout_every(id, first, AGAIN) }
        Some(Self(id))
    }

    /// True when it has gone off: the work was, or would have been, cancelled. What is still pending of that is forgotten.
    pub fn stop(self) -> bool {
        // SAFETY: as in `start`; afterwards the handler does not run any more.
        unsafe { disable_timeout(self.0, false) }
        ARMED.set(false);
        let over = FIRED.swap(false, SeqCst);
        if over {
            // SAFETY: a flag of this process; nothing may be cancelled by a timer that belongs to the past.
            unsafe { (&raw mut pg_sys::QueryCancelPending).write_volatile(0) }
        }
        over
    }
}
