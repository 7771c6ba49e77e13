//! `usher.pack_bindings`: what a pack was bound to, and what it was given there.

use super::rights::Earlier;
use crate::error::Result;
use crate::pg::{role, spi};
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use serde_json::Value;
use std::collections::BTreeSet;

/// What was given because of a binding.
#[derive(Debug, Default, Clone)]
pub struct Given {
    /// Tables of the application on which the role has rights.
    pub relations: BTreeSet<u32>,
    /// Schemas and sequences that it may use.
    pub schemas: BTreeSet<String>,
    pub sequences: BTreeSet<u32>,
    /// Tables on which the owner of pg_usher's tables has TRIGGER.
    pub triggers: BTreeSet<u32>,
}

/// A binding that stands.
#[derive(Debug, Default)]
pub struct Stored {
    pub bind: Value,
    pub run_as: String,
    pub given: Given,
}

fn given(row: &pgrx::spi::SpiTupleTable<'_>, from: usize) -> Result<Given> {
    let oids = |at: usize| {
        Ok::<_, crate::error::UsherError>(row.get::<Vec<Oid>>(at)?.unwrap_or_default().into_iter().map(Oid::to_u32).collect())
    };
    Ok(Given {
        relations: oids(from)?,
        schemas: row.get::<Vec<String>>(from + 1)?.unwrap_or_default().into_iter().collect(),
        sequences: oids(from + 2)?,
        triggers: oids(from + 3)?,
    })
}

pub fn get(installed: Installed, pack: &str) -> Result<Option<Stored>> {
    if !installed.up_to_date {
        return Ok(None);
    }
    let _acting = role::internal(installed.owner);
    let found = spi::read_all(
        "SELECT b.bind, b.run_as, b.relations::pg_catalog.oid[], b.schemas, b.sequences::pg_catalog.oid[], b.triggers::pg_catalog.oid[]
           FROM usher.pack_bindings AS b WHERE b.pack = $1",
        &[spi::arg(pack)],
        |row| {
            Ok(Stored {
                bind: row.get::<JsonB>(1)?.map(|json| json.0).unwrap_or_default(),
                run_as: row.get::<String>(2)?.unwrap_or_default(),
                given: given(row, 3)?,
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// What was given before to a role: for this pack, as it is stored, and for others.
pub fn earlier(installed: Installed, pack: &str, role: &str, stored: Option<&Stored>) -> Result<Earlier> {
    let _acting = role::internal(installed.owner);
    let found = spi::read_all(
        "SELECT b.run_as = $2, b.relations::pg_catalog.oid[], b.schemas, b.sequences::pg_catalog.oid[], b.triggers::pg_catalog.oid[]
           FROM usher.pack_bindings AS b WHERE b.pack <> $1",
        &[spi::arg(pack), spi::arg(role)],
        |row| Ok((row.get::<bool>(1)? == Some(true), given(row, 2)?)),
    )?;
    let mut others = Given::default();
    for (same, one) in found {
        others.triggers.extend(one.triggers);
        if same {
            others.relations.extend(one.relations);
            others.schemas.extend(one.schemas);
            others.sequences.extend(one.sequences);
        }
    }
    Ok(Earlier { own: stored.map(|stored| stored.given.clone()).unwrap_or_default(), others })
}

pub fn put(installed: Installed, pack: &str, stored: &Stored, by: &str) -> Result<()> {
    let _acting = role::internal(installed.owner);
    let oids = |set: &BTreeSet<u32>| set.iter().copied().map(Oid::from).collect::<Vec<Oid>>();
    spi::run(
        "INSERT INTO usher.pack_bindings AS b (pack, bind, run_as, relations, schemas, sequences, triggers, bound_by)
         VALUES ($1, $2, $3, $4::pg_catalog.regclass[], $5, $6::pg_catalog.regclass[], $7::pg_catalog.regclass[], $8)
         ON CONFLICT ON CONSTRAINT pack_bindings_pkey DO UPDATE
            SET bind = EXCLUDED.bind, run_as = EXCLUDED.run_as, relations = EXCLUDED.relations, schemas = EXCLUDED.schemas,
                sequences = EXCLUDED.sequences, triggers = EXCLUDED.triggers, bound_by = EXCLUDED.bound_by, bound_at = pg_catalog.now()",
        &[
            spi::arg(pack),
            spi::arg(JsonB(stored.bind.clone())),
            spi::arg(stored.run_as.as_str()),
            spi::arg(oids(&stored.given.relations)),
            spi::arg(stored.given.schemas.iter().cloned().collect::<Vec<String>>()),
            spi::arg(oids(&stored.given.sequences)),
            spi::arg(oids(&stored.given.triggers)),
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
