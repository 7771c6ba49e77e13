//! Ids and time.

use pgrx::pg_sys;
use ring::rand::{SecureRandom, SystemRandom};

/// A version 7 uuid (RFC 9562): 48 bits of Unix milliseconds first, so that new rows go to the right edge of an index.
/// The random bits come from a generator that each process seeds at its first id; the postmaster, from which all others
/// are forked, makes none.
pub fn uuid_v7() -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*uuid::Uuid::now_v7().as_bytes())
}

/// Microseconds since 2000-01-01 UTC, PostgreSQL's own count, read from the clock (not the transaction's start).
pub fn clock() -> i64 {
    // SAFETY: reads the system clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The oid of the database that this process is connected to.
pub fn database() -> u32 {
    // SAFETY: a process-local variable that is set before any of our code can run in a connected process.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

/// The number that this server's data directory got when it was made; clones of files keep it, pg_upgrade changes it.
pub fn system() -> i64 {
    // SAFETY: reads the control data that every process has.
    unsafe { pg_sys::GetSystemIdentifier() }.cast_signed()
}

/// A number that nobody can guess.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // The system has random bytes long before a database runs on it.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// A key of 128 bits that nobody can guess.
pub fn secret() -> pgrx::Uuid {
    let mut bytes = [0; 16];
    // As above.
    let _ = SystemRandom::new().fill(&mut bytes);
    pgrx::Uuid::from_bytes(bytes)
}
