//! Catalog look-ups that need no statement.

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::{CStr, CString};

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

/// The oid of a relation, if there is one of that name.
pub fn relation(schema: &str, name: &str) -> Option<Oid> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: missing_ok look-ups in the catalog cache inside a transaction; both strings are NUL-terminated.
    unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        let relation = if schema == Oid::INVALID { schema } else { pg_sys::get_relname_relid(name.as_ptr(), schema) };
        (relation != Oid::INVALID).then_some(relation)
    }
}

/// True when `usher.<name>` has nothing in its file: what it is for is not in use. Costs no statement.
pub fn is_unused(name: &str) -> bool {
    let Some(oid) = usher_relation(name) else { return true };
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: opened and closed here inside a transaction; a table that is gone meanwhile raises an error as in any statement.
    unsafe {
        let relation = pg_sys::relation_open(oid, lock);
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        pg_sys::relation_close(relation, lock);
        blocks == 0
    }
}

/// The function `schema.name` with just these parameters, if it is there and returns one value of type `result`. Looks
/// into the catalog's cache: cheap enough to ask before every call.
pub fn function(schema: &str, name: &str, parameters: &[Oid], result: Oid) -> Option<Oid> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: missing_ok look-ups in the catalog cache inside a transaction; the vector is palloc'd from a live slice, and
    // both strings are NUL-terminated and outlive the look-up.
    unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if schema == Oid::INVALID {
            return None;
        }
        let types = pg_sys::buildoidvector(parameters.as_ptr(), parameters.len() as i32);
        let found = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as _,
            pg_sys::Anum_pg_proc_oid as _,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(types),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::from(0),
        );
        let fits = found != Oid::INVALID
            && pg_sys::get_func_prokind(found) == pg_sys::PROKIND_FUNCTION as std::ffi::c_char
            && !pg_sys::get_func_retset(found)
            && pg_sys::get_func_rettype(found) == result;
        fits.then_some(found)
    }
}

/// True when CREATE EXTENSION pg_usher has been run in this database.
pub fn extension_exists() -> bool {
    // SAFETY: missing_ok look-up inside a transaction.
    unsafe { pg_sys::get_extension_oid(c"pg_usher".as_ptr(), true) != Oid::INVALID }
}

/// The oid of a database, if there is one of that name.
pub fn database_by_name(name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: missing_ok look-up inside a transaction.
    let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

/// Every database of the server with its oid, read without an index: a process that is connected to no database cannot
/// use the indexes of the shared catalogs until some other process has rebuilt their cache after a start.
pub fn databases() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    // SAFETY: a sequential scan of pg_database under a lock that is released again, as the autovacuum launcher does it;
    // each tuple's fixed-length part is copied before the scan goes on.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
            let name = CStr::from_ptr((&raw const (*row).datname.data).cast());
            if !(*row).datistemplate && (*row).datallowconn {
                found.push(((*row).oid.to_u32(), name.to_string_lossy().into_owned()));
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}

/// Makes every session forget what it knows about `usher.<name>` when this transaction commits.
pub fn invalidate(relation: Oid) {
    // SAFETY: registers an invalidation message for an existing relation in the current transaction.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}

/// Schema and name of a relation as they are now.
pub fn name(relation: Oid) -> Option<(String, String)> {
    // SAFETY: look-ups of the catalog inside a transaction; each answers NULL for what is missing, or a copy in this memory context.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if name.is_null() || schema.is_null() {
            return None;
        }
        Some((CStr::from_ptr(schema).to_str().ok()?.to_owned(), CStr::from_ptr(name).to_str().ok()?.to_owned()))
    }
}
