//! Raising errors in ways that pgrx has no words for: by what PostgreSQL asks while it puts an error together.
//!
//! pgrx carries a Rust error to the outermost boundary of the function before PostgreSQL hears of it. A callback that is on the
//! stack of error contexts by then has the last word. It stays there when the function ends by an error; whoever catches that
//! puts the stack back to what it was, as PostgreSQL's own handlers do.

use crate::error::UsherError;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};

unsafe extern "C-unwind" {
    fn errcode(sqlerrcode: c_int) -> c_int;
}

type Callback = unsafe extern "C-unwind" fn(*mut c_void);

const fn node(callback: Callback) -> UnsafeCell<pg_sys::ErrorContextCallback> {
    UnsafeCell::new(pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(callback),
        arg: std::ptr::null_mut(),
    })
}

thread_local! {
    static HIDE: UnsafeCell<pg_sys::ErrorContextCallback> = const { node(hide) };
    static NAME: UnsafeCell<pg_sys::ErrorContextCallback> = const { node(name) };
    static STATE: Cell<c_int> = const { Cell::new(0) };
}

unsafe extern "C-unwind" fn hide(_arg: *mut c_void) {
    // SAFETY: called by errfinish() alone, while a message is being put together; both only write into it.
    unsafe {
        pg_sys::errhidestmt(true);
        pg_sys::errhidecontext(true);
    }
}

unsafe extern "C-unwind" fn name(_arg: *mut c_void) {
    let state = STATE.replace(0);
    if state != 0 {
        // SAFETY: as above.
        unsafe { errcode(state) };
    }
}

/// Puts a callback on the stack, unless it is there already. Returns whether it was put there.
fn push(node: *mut pg_sys::ErrorContextCallback) -> bool {
    // SAFETY: the node lives as long as the process. The stack's other members belong to calls further out, which are still
    // running; a member that is on it twice would make a circle of it.
    unsafe {
        let mut known = pg_sys::error_context_stack;
        while !known.is_null() {
            if known == node {
                return false;
            }
            known = (*known).previous;
        }
        (*node).previous = pg_sys::error_context_stack;
        pg_sys::error_context_stack = node;
    }
    true
}

/// Until dropped, what goes to the server's log has neither its statement nor its context with it: errors, also those that
/// end the statement or the session, warnings and notices.
pub struct Hidden(bool);

pub fn hide_statement() -> Hidden {
    Hidden(HIDE.with(|node| push(node.get())))
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // An error on its way out is put together later.
        if !self.0 || std::thread::panicking() {
            return;
        }
        // SAFETY: the node was put on the stack when the guard was made; everything above it has ended.
        unsafe { pg_sys::error_context_stack = (*HIDE.with(UnsafeCell::get)).previous }
    }
}

/// Raises an error now, from inside.
pub fn raise(error: UsherError) -> ! {
    ErrorReport::from(error).report(PgLogLevel::ERROR);
    unreachable!("an ERROR report does not return")
}

/// Raises an error under a SQLSTATE that PostgreSQL has no name for: five digits and capital letters. Not to be called inside
/// `subxact::attempt`, which would give it another.
pub fn raise_as(error: UsherError, sqlstate: &[u8; 5]) -> ! {
    // As MAKE_SQLSTATE of elog.h: six bits for each character.
    STATE.set(
        sqlstate.iter().rev().fold(0, |state, character| (state << 6) | ((c_int::from(*character) - c_int::from(b'0')) & 0x3f)),
    );
    NAME.with(|node| push(node.get()));
    raise(error)
}
