//! Catalog look-ups that need no statement.

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::CString;

/// The oid of `usher.<name>`, or None before `usher.setup()`.
pub fn usher_relation(name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: missing_ok look-ups in the catalog cache inside a transaction.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"usher".as_ptr(), true);
        if schema == Oid::INVALID {
            return None;
        }
        let relation = pg_sys::get_relname_relid(name.as_ptr(), schema);
        (relation != Oid::INVALID).then_some(relation)
    }
}

/// True when CREATE EXTENSION pg_usher has been run in this database.
pub fn extension_exists() -> bool {
    // SAFETY: missing_ok look-up inside a transaction.
    unsafe { pg_sys::get_extension_oid(c"pg_usher".as_ptr(), true) != Oid::INVALID }
}

/// The oid of a database by name; the one look-up that works without a connection to it.
pub fn database_oid(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: missing_ok look-up inside a transaction.
    let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    (oid != Oid::INVALID).then(|| oid.to_u32())
}

/// Makes every session forget what it knows about `usher.<name>` when this transaction commits.
pub fn invalidate(relation: Oid) {
    // SAFETY: registers an invalidation message for an existing relation in the current transaction.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}
