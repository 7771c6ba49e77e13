//! A lane belongs to one process at a time.

use pgrx::pg_sys;

/// Not 1 or 2, which mark the locks that SQL functions can take: nobody can stand in a worker's way with one of those.
const OURS: u16 = 0x7573;

const EQUAL: u16 = OURS + 1;
const SETTLING: u16 = OURS + 2;

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

/// Takes a lane of this database until the end of the transaction, or returns false at once.
pub fn try_lane(lane: i16) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: super::ids::database(),
        locktag_field2: 0,
        locktag_field3: u32::try_from(lane).unwrap_or(0),
        locktag_field4: OURS,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    // SAFETY: a lock of the transaction, released with it; the tag is copied.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// The same, waiting for it.
pub fn take_lane(lane: i16) {
    while !try_lane(lane) {
        super::bgw::nap(std::time::Duration::from_millis(2));
    }
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
