//! A lane belongs to one process at a time.

use pgrx::pg_sys;

/// Not 1 or 2, which mark the locks that SQL functions can take: nobody can stand in a worker's way with one of those.
const OURS: u16 = 0x7573;

const EQUAL: u16 = OURS + 1;
const SETTLING: u16 = OURS + 2;
const OVERLAPPING: u16 = OURS + 3;
const LOOKING: u16 = OURS + 4;
const SETTING_UP: u16 = OURS + 5;
const CHECKING: u16 = OURS + 6;
const GATING: u16 = OURS + 7;

/// Waits until nobody else's open transaction is at work on the same thing, known by its hash, and keeps others waiting
/// until this one ends.
pub fn take_equal(hash: u64) {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: (hash >> 32) as u32,
        locktag_field3: hash as u32,
        locktag_field4: EQUAL,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    // SAFETY: a lock of the transaction, released with it; the tag is copied. Waiting, it can be cancelled, and a deadlock
    // or lock_timeout is raised as for any lock.
    unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false) };
}

fn lane_tag(lane: i16) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: 0,
        locktag_field3: u32::try_from(lane).unwrap_or(0),
        locktag_field4: OURS,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// A lane is taken in one of these modes. Workers and sessions with batches exclude each other and themselves; whoever holds
/// a lane excludes both, and others who hold it are welcome; quiet excludes workers only.
const WORKER: i32 = pg_sys::ExclusiveLock as i32;
const SESSION: i32 = pg_sys::ShareUpdateExclusiveLock as i32;
const HELD: i32 = pg_sys::ShareLock as i32;
const QUIET: i32 = pg_sys::RowShareLock as i32;

/// Lanes in which no worker's batch runs, for as long as this lives. Batches of sessions lock the rows that they take.
pub struct Quiet(Vec<i16>);

/// Waits until the batches that run in these lanes now have ended, and keeps others from beginning. A wait like that for any
/// lock: a deadlock is found. Whoever holds a lane with [`hold_lane`] does not stand in the way.
pub fn quiet(mut lanes: Vec<i16>) -> Quiet {
    lanes.sort_unstable();
    lanes.dedup();
    for lane in &lanes {
        // SAFETY: a lock of the transaction, given back by drop or with the transaction; the tag is copied.
        unsafe { pg_sys::LockAcquire(&lane_tag(*lane), QUIET, false, false) };
    }
    Quiet(lanes)
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // After an error the transaction gives its locks back itself.
        if std::thread::panicking() {
            return;
        }
        for lane in &self.0 {
            // SAFETY: gives back what `quiet` has taken.
            unsafe { pg_sys::LockRelease(&lane_tag(*lane), QUIET, false) };
        }
    }
}

/// Waits for whoever changes or drops a table, as a statement that writes to it would, and learns what it is now.
pub fn table_for_writing(table: pg_sys::Oid) {
    // SAFETY: a lock of the transaction, released with it; the table may be gone when it is there.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as i32) }
}

/// Takes a lane of this database until the end of the transaction, or returns false at once.
pub fn try_lane(lane: i16, worker: bool) -> bool {
    let tag = lane_tag(lane);
    // SAFETY: a lock of the transaction, released with it; the tag is copied.
    let result = unsafe { pg_sys::LockAcquire(&tag, if worker { WORKER } else { SESSION }, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Keeps batches away from a lane until the end of the transaction, after the one that runs. Several may do so at once, and
/// nobody who waits for a batch to end waits for them.
pub fn hold_lane(lane: i16) {
    let tag = lane_tag(lane);
    // SAFETY: a lock of the transaction, released with it; the tag is copied. Waiting, it can be cancelled.
    unsafe { pg_sys::LockAcquire(&tag, HELD, false, false) };
}

/// Takes a share in the ending of jobs until the end of the transaction, or (`alone`) keeps all others out of it; false
/// when that is not possible at once.
pub fn try_settling(alone: bool) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: SETTLING,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    let mode = if alone { pg_sys::ExclusiveLock } else { pg_sys::ShareLock };
    // SAFETY: a lock of the transaction, released with it; the tag is copied.
    let result = unsafe { pg_sys::LockAcquire(&tag, mode as i32, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Keeps a relation from being altered, renamed or dropped until the transaction ends; waits for who is at it.
pub fn keep(relation: pg_sys::Oid) {
    // SAFETY: takes an ordinary lock, for a relation that may be gone: then it locks a number that nobody uses.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as i32) }
}

/// Waits until no open transaction has written to a relation, and keeps writers waiting until this one ends.
pub fn keep_writers_out(relation: pg_sys::Oid) {
    // SAFETY: as in keep(). Waiting, it can be cancelled, and a deadlock or lock_timeout is raised as for any lock.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::ShareRowExclusiveLock as i32) }
}

/// Waits until nobody else's open transaction has even read a relation, and keeps everybody waiting until this one ends. Of a view: that
/// alone, not its tables.
pub fn keep_everybody_out(relation: pg_sys::Oid) {
    // SAFETY: as in keep(). Waiting, it can be cancelled, and a deadlock or lock_timeout is raised as for any lock.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessExclusiveLock as i32) }
}

/// Waits for another open transaction that sets up, and keeps others from it until this one ends.
pub fn take_setup() {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: SETTING_UP,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    // SAFETY: a lock of the transaction, released with it; the tag is copied. Waiting, it can be cancelled.
    unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false) };
}

/// The resources of a rule share so many locks: a transaction that writes any number of them holds no more than these.
pub const STRIPES: u64 = 256;

fn overlap_tag(rule: i32, resource: u64) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // A lock's tag has no place for the database beside the rest: a mix of all of it, which may meet another's by chance.
        locktag_field1: super::ids::database() ^ (rule as u32).rotate_left(16),
        locktag_field2: (resource >> 32) as u32,
        locktag_field3: resource as u32,
        locktag_field4: OVERLAPPING,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// Waits until nobody else's open transaction has written rows of a rule whose resources share this stripe, and keeps others waiting
/// until this one ends. To be called in the order of the numbers.
pub fn take_resource(rule: i32, stripe: u64) {
    // SAFETY: a lock of the transaction, released with it; the tag is copied. Waiting, it can be cancelled, and a deadlock or
    // lock_timeout is raised as for any lock.
    unsafe {
        pg_sys::LockAcquire(&overlap_tag(rule, stripe), pg_sys::ExclusiveLock as i32, false, false);
    }
}

/// Until the end of the transaction nobody else looks for overlaps that are there; false when somebody does and `wait` is not.
pub fn look_for_overlaps(wait: bool) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: LOOKING,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    // SAFETY: a lock of the transaction, released with it; the tag is copied. Waiting, it can be cancelled.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, !wait) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Until the end of the transaction nobody else writes down what a look for a rule has found; false when somebody does and `wait` is
/// not.
pub fn look_for_rule(rule: i32, wait: bool) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: 0,
        locktag_field3: rule as u32,
        locktag_field4: CHECKING,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    // SAFETY: a lock of the transaction, released with it; the tag is copied. Waiting, it can be cancelled.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, !wait) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Waits until nobody else's open transaction is about to commit keys of a rule that share this stripe, or (None) any of its keys, and keeps
/// others waiting until this one ends. Whoever takes stripes takes a share of the whole before. To be called in the order of rules and numbers.
pub fn take_gate(rule: i32, stripe: Option<u8>, alone: bool) {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: rule as u32,
        locktag_field3: stripe.map_or(0, |stripe| u32::from(stripe) + 1),
        locktag_field4: GATING,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    let mode = if alone { pg_sys::ExclusiveLock } else { pg_sys::ShareLock };
    // SAFETY: a lock of the transaction, released with it; the tag is copied. Waiting, it can be cancelled, and a deadlock or
    // lock_timeout is raised as for any lock.
    unsafe { pg_sys::LockAcquire(&tag, mode as i32, false, false) };
}
