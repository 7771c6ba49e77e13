//! `usher.setup()` and `usher.version()`.

use crate::error::UsherError;
use crate::pg::role;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Creates the data tables, their policies and the organization `default`, or brings them to the installed version.
/// Safe to repeat. The caller becomes the owner of the tables.
///
/// Errors: 42501 when the caller may not create tables in the schema `usher`; 55000 when the tables are newer.
#[pg_extern(volatile, parallel_unsafe)]
fn setup() -> Result<String, ErrorReport> {
    let caller = role::current();
    let operator = role::by_name("usher_operator").is_some_and(|operator| role::has_rights_of(caller, operator));
    if !role::is_superuser(caller) && !operator {
        return Err(UsherError::forbidden("only a superuser or a member of usher_operator may set up pg_usher")
            .hint("Ask an administrator to run SELECT usher.setup();")
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
