//! Time zones, by PostgreSQL's own rules.

use pgrx::pg_sys;
use std::ffi::CString;

/// A zone that exists. It lives as long as the process: PostgreSQL never forgets one that it has loaded.
#[derive(Clone, Copy)]
pub struct Zone(*mut pg_sys::pg_tz);

impl Zone {
    /// By its name, such as Europe/Berlin; None when there is none.
    pub fn named(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: a NUL-terminated name; what comes back is null or lives in a hash table of this process for good.
        let zone = unsafe { pg_sys::pg_tzset(name.as_ptr()) };
        (!zone.is_null()).then_some(Self(zone))
    }

    /// Seconds by which its clock is ahead of UTC, at a second since 1970 UTC.
    pub fn offset(self, at: i64) -> i64 {
        // SAFETY: the zone is not null; the result is null, or a buffer of this process that is read before the next call.
        unsafe {
            let time = pg_sys::pg_localtime(&at, self.0);
            if time.is_null() { 0 } else { (*time).tm_gmtoff }
        }
    }
}

/// Seconds since 1970 UTC, read from the clock.
pub fn now() -> i64 {
    seconds_of(super::ids::clock())
}

/// The whole second of PostgreSQL's microseconds.
pub fn seconds_of(micros: i64) -> i64 {
    micros.div_euclid(1_000_000) + BETWEEN
}

/// From 1970 to 2000, where PostgreSQL begins to count.
const BETWEEN: i64 = 946_684_800;

/// Seconds since 1970 as PostgreSQL's own value.
pub fn timestamp(at: i64) -> Option<pgrx::datum::TimestampWithTimeZone> {
    pgrx::datum::TimestampWithTimeZone::try_from((at - BETWEEN).checked_mul(1_000_000)?).ok()
}

/// The whole second of a value of PostgreSQL.
pub fn seconds(at: pgrx::datum::TimestampWithTimeZone) -> i64 {
    seconds_of(i64::from(at))
}
