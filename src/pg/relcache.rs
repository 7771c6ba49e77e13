//! Learning that something this process remembers has changed.
//!
//! PostgreSQL already tells every session, transactionally, when a relation changes. The caches of flows and of capture
//! statements hang on that: each remembers the generation it was built in, and a new one means: build again.

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static GENERATION: Cell<u64> = const { Cell::new(1) };
    static WATCHED: Cell<u32> = const { Cell::new(0) };
    static PAUSES_GENERATION: Cell<u64> = const { Cell::new(1) };
    static WATCHED_PAUSES: Cell<u32> = const { Cell::new(0) };
    static SCHEMA_GENERATION: Cell<u64> = const { Cell::new(1) };
    static CHANGES: RefCell<[Changes; 3]> = const { RefCell::new([Changes::NotKept, Changes::NotKept, Changes::NotKept]) };
}

/// Who asks which relations have changed; each is told all of them.
#[derive(Clone, Copy)]
pub enum Asker {
    Flows,
    Maintenance,
    Gates,
}

/// Which relations have changed since somebody has asked.
enum Changes {
    /// Nobody asks.
    NotKept,
    These(HashSet<u32>),
    /// More than are worth a list, or unknown ones.
    Many,
}

/// More than these are looked at all together.
const MOST_CHANGES: usize = 1_000;

#[pg_guard]
unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, relation: Oid) {
    let watched = WATCHED.get();
    if relation == Oid::INVALID || watched == 0 || relation.to_u32() == watched {
        GENERATION.set(GENERATION.get() + 1);
    }
    let pauses = WATCHED_PAUSES.get();
    if relation == Oid::INVALID || pauses == 0 || relation.to_u32() == pauses {
        PAUSES_GENERATION.set(PAUSES_GENERATION.get() + 1);
    }
    SCHEMA_GENERATION.set(SCHEMA_GENERATION.get() + 1);
    CHANGES.with_borrow_mut(|all| {
        for changes in all {
            if let Changes::These(known) = changes {
                if relation == Oid::INVALID || known.len() >= MOST_CHANGES {
                    *changes = Changes::Many;
                } else {
                    known.insert(relation.to_u32());
                }
            }
        }
    });
}

fn register() {
    if !REGISTERED.replace(true) {
        // SAFETY: registered once a process; the callback only touches thread-local cells.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::from(0)) }
    }
}

/// Moves on whenever `usher.flows` changes (or might have).
pub fn generation() -> u64 {
    register();
    if WATCHED.get() == 0
        && let Some(flows) = super::catalog::usher_relation("flows")
    {
        WATCHED.set(flows.to_u32());
    }
    GENERATION.get()
}

/// Moves on whenever `usher.pause_orders` says so.
pub fn pauses_generation() -> u64 {
    register();
    if WATCHED_PAUSES.get() == 0
        && let Some(pauses) = super::catalog::usher_relation("pause_orders")
    {
        WATCHED_PAUSES.set(pauses.to_u32());
    }
    PAUSES_GENERATION.get()
}

/// Moves on whenever any relation's definition changes.
pub fn schema_generation() -> u64 {
    register();
    SCHEMA_GENERATION.get()
}

/// Moves on with either: for what hangs on flows and on tables alike.
pub fn generations() -> (u64, u64) {
    (generation(), schema_generation())
}

/// Learns now what others have committed: inside a transaction PostgreSQL looks only when it takes a lock.
pub fn accept() {
    register();
    // SAFETY: reads the queue of messages inside a transaction, as taking any lock does.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// The relations whose definition or statistics have changed since the asker's last call in this process. None: any may have.
pub fn take_changes(asker: Asker) -> Option<Vec<Oid>> {
    register();
    match CHANGES.with_borrow_mut(|all| std::mem::replace(&mut all[asker as usize], Changes::These(HashSet::new()))) {
        Changes::These(known) => Some(known.into_iter().map(Oid::from).collect()),
        Changes::NotKept | Changes::Many => None,
    }
}

/// Of what the asker has taken and could not look at: any relation may have changed.
pub fn give_back(asker: Asker) {
    CHANGES.with_borrow_mut(|all| all[asker as usize] = Changes::Many);
}

/// This transaction has changed what is paused.
pub fn forget_pauses() {
    PAUSES_GENERATION.set(PAUSES_GENERATION.get() + 1);
}

/// After `DROP` and a new `setup()` the flows table is another relation.
pub fn forget() {
    WATCHED.set(0);
    WATCHED_PAUSES.set(0);
    PAUSES_GENERATION.set(PAUSES_GENERATION.get() + 1);
    GENERATION.set(GENERATION.get() + 1);
}
