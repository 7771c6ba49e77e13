//! Telling a process that ends the server from one that is only ended with it.
//!
//! When a process dies of itself, the postmaster makes all others quit at once. Those are innocent of what happened, and
//! leave a file that says so. The one that died, or was killed, had no chance to.

use pgrx::pg_sys;
use std::ffi::{CString, c_char};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::SeqCst};

unsafe extern "C" {
    /// creat(2), close(2) and _exit(2) of the C library that the server itself is linked with: safe in a signal handler.
    fn creat(path: *const c_char, mode: u32) -> i32;
    fn close(file: i32) -> i32;
    fn _exit(code: i32) -> !;
    /// The server's own.
    fn PostmasterIsAliveInternal() -> bool;
}

static ARMED: AtomicBool = AtomicBool::new(false);
static PATH: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Where PostgreSQL lets modules keep what needs no backup, relative to the data directory, in which its processes work.
fn path(database: u32, lanes: u32) -> String {
    format!("pg_stat_tmp/usher_innocent.{database}.{lanes}")
}

/// Prepares for [`arm`]: the process's own file, and what it does when the postmaster makes it quit.
pub fn prepare(database: u32, lanes: u32) {
    let text = CString::new(path(database, lanes)).unwrap_or_default();
    // Kept for the life of the process: a signal handler reads it.
    PATH.store(text.into_raw(), SeqCst);
    // SAFETY: installs a handler that does what the server's own does, and before that makes an empty file.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(pg_sys::SIGQUIT as i32, Some(quit));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(pg_sys::SIGQUIT as i32, Some(quit));
    }
}

/// From here on an end that comes from outside is told from one of the process's own making.
pub fn arm(armed: bool) {
    ARMED.store(armed, SeqCst);
}

/// True when the last process of this kind was ended from outside while it was armed. Asked once: the file is removed.
pub fn was_innocent(database: u32, lanes: u32) -> bool {
    std::fs::remove_file(path(database, lanes)).is_ok()
}

fn testify() {
    let path = PATH.load(SeqCst);
    if ARMED.load(SeqCst) && !path.is_null() {
        // SAFETY: the path is NUL-terminated and lives as long as the process; both calls are safe in a signal handler.
        unsafe {
            let file = creat(path, 0o600);
            if file >= 0 {
                close(file);
            }
        }
    }
}

/// At the orderly end of a process: the server may have gone away under it.
pub fn leave() {
    // SAFETY: asks the kernel about a process.
    if unsafe { !PostmasterIsAliveInternal() } {
        testify();
    }
}

unsafe extern "C-unwind" fn quit(_signal: i32) {
    testify();
    // SAFETY: as the server's own handler ends: without any tidying up in memory that may be damaged.
    unsafe { _exit(2) }
}
