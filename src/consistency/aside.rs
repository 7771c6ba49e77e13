//! Rules in whose way somebody stands: left alone for a moment, so that they keep no other rule from its turn.
//!
//! Whoever waives a violation, changes a rule or repairs by hand in a transaction that stays open holds what a worker would write down.

use crate::error::{Result, UsherError};
use crate::pg::{locks, subxact};
use pgrx::PgSqlErrorCode;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Until it is tried again.
const PAUSE: Duration = Duration::from_secs(2);

thread_local! {
    /// Rules, and until when.
    static ASIDE: RefCell<HashMap<i32, Instant>> = RefCell::default();
}

/// Those that are left alone now.
pub fn rules() -> Vec<i32> {
    ASIDE.with_borrow_mut(|aside| {
        aside.retain(|_, until| *until > Instant::now());
        aside.keys().copied().collect()
    })
}

/// Seconds until the next of them is tried again.
pub fn next() -> Option<f64> {
    ASIDE.with_borrow(|aside| aside.values().min().map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64()))
}

/// Leaves a rule alone.
pub fn put(rule: i32) {
    ASIDE.with_borrow_mut(|aside| aside.insert(rule, Instant::now() + PAUSE));
}

/// Does something for a rule, as a whole or not at all; not at all where somebody is in the way. True: it was done.
pub fn apart(rule: i32, work: impl FnOnce() -> Result<()>) -> Result<bool> {
    match subxact::attempt(work) {
        Ok(()) => Ok(true),
        Err(failure) if failure.is_busy() => {
            put(rule);
            Ok(false)
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Nobody else looks for the rule until the end of the transaction.
pub fn look(rule: i32) -> Result<()> {
    if locks::look_for_rule(rule, false) {
        return Ok(());
    }
    Err(UsherError::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, "somebody else is looking at what the rule is about"))
}
