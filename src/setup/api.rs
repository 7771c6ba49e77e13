//! `usher.setup()` and `usher.version()`.

use crate::error::UsherError;
use crate::pg::{role, spi};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Creates the data tables, their policies and the organization `default`, or brings them to the installed version.
/// Safe to repeat. The caller becomes the owner of the tables.
///
/// Errors: 42501 when the caller may not create tables in the schema `usher`; 55000 when the tables are newer.
#[pg_extern(volatile, parallel_unsafe)]
fn setup() -> Result<String, ErrorReport> {
    let caller = role::current();
    // Tables that are there belong to somebody: only that role (or one that may act as it) may change them.
    let allowed = match super::installed() {
        Ok(installed) => role::has_rights_of(caller, installed.owner),
        Err(_) => spi::read::<bool>("SELECT pg_catalog.has_schema_privilege('usher', 'CREATE')", &[])?.unwrap_or(false),
    };
    if !allowed {
        return Err(UsherError::forbidden("you may not set up pg_usher in this database")
            .detail("It needs the right to create tables in schema usher, and later the rights of the role that owns them.")
            .hint("Let a superuser run SELECT usher.setup(); or GRANT CREATE ON SCHEMA usher TO the role that shall own the tables.")
            .into());
    }
    Ok(super::migrate()?)
}

/// The version of the library that is loaded.
#[pg_extern(immutable, parallel_safe)]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// A version 7 uuid (RFC 9562): ids made one after another sort one after another.
#[pg_extern(volatile, parallel_safe)]
fn uuid_v7() -> pgrx::Uuid {
    crate::pg::ids::uuid_v7()
}
