//! The parties that are kept in step.

use crate::error::{Result, UsherError};
use crate::pg::spi;
use pgrx::prelude::*;

/// Lower-case letters, digits and a few signs, at most 63.
pub fn well_formed(name: &str, also: &[char], what: &str) -> Result<()> {
    let good = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(&c));
    if good {
        return Ok(());
    }
    Err(UsherError::invalid(format!("\"{name}\" is not a valid {what}")).hint(format!(
        "Use at most 63 lower-case letters, digits and {}, beginning with a letter or digit.",
        also.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(" ")
    )))
}

pub fn check_name(name: &str) -> Result<()> {
    well_formed(name, &['-', '_', '.'], "system name")
}

/// Registers names that a flow uses and nobody has created. Runs with the owner's rights.
pub fn ensure(names: &[&str]) -> Result<()> {
    for name in names {
        let made = spi::run(
            "INSERT INTO usher.systems (name) VALUES ($1) ON CONFLICT ON CONSTRAINT systems_pkey DO NOTHING",
            &[spi::arg(*name)],
        )?;
        if made > 0 {
            notice!("system \"{name}\" was unknown and is registered as local");
        }
    }
    Ok(())
}

/// The kind of a system, if it is registered. Runs with the owner's rights.
pub fn kind(name: &str) -> Result<Option<String>> {
    spi::read::<String>("SELECT kind FROM usher.systems WHERE name = $1", &[spi::arg(name)])
}

/// What was handed to workers outside, or waits for them, would be nobody's when the system is no longer theirs.
pub fn refuse_with_jobs_outside(name: &str) -> Result<()> {
    let waiting = spi::read::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.queue_waiting WHERE target_system = $1 AND waiting_for = 'external worker'",
        &[spi::arg(name)],
    )?
    .unwrap_or(0);
    if waiting == 0 {
        return Ok(());
    }
    Err(UsherError::state(format!("system \"{name}\" is external, and jobs for it wait for workers outside ({waiting})"))
        .hint(format!("Let them be done, or end them first: SELECT usher.cancel_sync_jobs('{{\"target\": \"{name}\"}}');")))
}
