//! Time zones by their names, as people give them for organizations and schedules.

use crate::error::{Result, UsherError};
use crate::pg::zone::Zone;
use crate::pg::{guc, spi};
use std::cell::RefCell;
use std::collections::HashSet;

thread_local! {
    /// Names that have been found: to look in the list is to read every file of the time zone database, some 30 ms.
    static FOUND: RefCell<HashSet<String>> = RefCell::default();
}

/// The zone of that name, or the remedy.
pub fn named(name: &str) -> Result<Zone> {
    // PostgreSQL would take an offset of its own writing for a zone too; only what is in its list is meant.
    match Zone::named(name) {
        Some(zone) if is_listed(name)? => Ok(zone),
        _ => Err(UsherError::invalid(format!("time zone \"{name}\" is unknown"))
            .hint("Use an IANA name such as Europe/Berlin; SELECT name FROM pg_timezone_names lists them.")),
    }
}

fn is_listed(name: &str) -> Result<bool> {
    if FOUND.with_borrow(|found| found.contains(name)) {
        return Ok(true);
    }
    let _path = guc::Nest::pinned_path();
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_timezone_names WHERE name = $1)";
    let listed = spi::read::<bool>(sql, &[spi::arg(name)])? == Some(true);
    if listed {
        FOUND.with_borrow_mut(|found| found.insert(name.to_owned()));
    }
    Ok(listed)
}
