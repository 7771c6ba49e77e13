//! The parties that are kept in step.

use crate::error::Result;
use crate::pg::spi;
use pgrx::prelude::*;

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
