//! SQL functions for packs.

use super::install;
use crate::error::UsherError;
use crate::registry::identity;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

fn given(name: Option<String>) -> Result<String, UsherError> {
    name.ok_or_else(|| UsherError::invalid("the pack's name is missing").hint("SELECT usher.install_pack('live_events');"))
}

/// Installs a pack or brings it to this version: its tables, its role, its flows, and what it books. Safe to repeat.
///
/// Arguments: `name`; `run_as`, the role that its flows run as (by default `usher_<name>`, made here, NOLOGIN).
/// Errors: 42501 for callers who are no operators or for a superuser in run_as, 42704 for an unknown pack or role.
#[pg_extern(volatile, parallel_unsafe)]
fn install_pack(name: Option<String>, run_as: default!(Option<String>, "NULL")) -> Result<String, ErrorReport> {
    identity::require_operator("install packs")?;
    let installed = crate::setup::current()?;
    Ok(install::install(installed, &given(name)?, run_as.as_deref())?)
}

/// Removes a pack's flows; its tables and their rows stay. Errors: 42501, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn remove_pack(name: Option<String>) -> Result<String, ErrorReport> {
    let installed = identity::require_operator("remove packs")?;
    Ok(install::remove(installed, &given(name)?)?)
}
