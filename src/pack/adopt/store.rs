//! `usher.pack_bindings`: what a pack was bound to, and what it was given there.

use crate::error::Result;
use crate::pg::{role, spi};
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use serde_json::Value;

/// A binding that stands.
#[derive(Debug, Default)]
pub struct Stored {
    pub bind: Value,
    pub run_as: String,
    /// Tables of the application on which the role was given rights.
    pub relations: Vec<Oid>,
    /// Schemas that the role may use because of it.
    pub schemas: Vec<String>,
}

pub fn get(installed: Installed, pack: &str) -> Result<Option<Stored>> {
    if !installed.up_to_date {
        return Ok(None);
    }
    let _acting = role::internal(installed.owner);
    let found = spi::read_all(
        "SELECT b.bind, b.run_as, b.relations::pg_catalog.oid[], b.schemas FROM usher.pack_bindings AS b WHERE b.pack = $1",
        &[spi::arg(pack)],
        |row| {
            Ok(Stored {
                bind: row.get::<JsonB>(1)?.map(|json| json.0).unwrap_or_default(),
                run_as: row.get::<String>(2)?.unwrap_or_default(),
                relations: row.get::<Vec<Oid>>(3)?.unwrap_or_default(),
                schemas: row.get::<Vec<String>>(4)?.unwrap_or_default(),
            })
        },
    )?;
    Ok(found.into_iter().next())
}

pub fn put(installed: Installed, pack: &str, stored: &Stored, by: &str) -> Result<()> {
    let _acting = role::internal(installed.owner);
    spi::run(
        "INSERT INTO usher.pack_bindings AS b (pack, bind, run_as, relations, schemas, bound_by) VALUES ($1, $2, $3, $4::pg_catalog.regclass[], $5, $6)
         ON CONFLICT ON CONSTRAINT pack_bindings_pkey DO UPDATE
            SET bind = EXCLUDED.bind, run_as = EXCLUDED.run_as, relations = EXCLUDED.relations, schemas = EXCLUDED.schemas,
                bound_by = EXCLUDED.bound_by, bound_at = pg_catalog.now()",
        &[
            spi::arg(pack),
            spi::arg(JsonB(stored.bind.clone())),
            spi::arg(stored.run_as.as_str()),
            spi::arg(stored.relations.clone()),
            spi::arg(stored.schemas.clone()),
            spi::arg(by),
        ],
    )?;
    Ok(())
}

pub fn forget(installed: Installed, pack: &str) -> Result<()> {
    let _acting = role::internal(installed.owner);
    spi::run("DELETE FROM usher.pack_bindings AS b WHERE b.pack = $1", &[spi::arg(pack)])?;
    Ok(())
}
