//! Schema changes that the extension makes itself are not news to it.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Until dropped, this session's schema changes are our own.
pub struct Ours(());

pub fn ours() -> Ours {
    DEPTH.set(DEPTH.get() + 1);
    Ours(())
}

impl Drop for Ours {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

pub fn is_ours() -> bool {
    DEPTH.get() > 0
}
