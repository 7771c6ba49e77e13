//! `usher.setup()`: the data tables, and knowing whether they are there.
//!
//! Owns `usher.installation` and the SQL in `sql/setup/`. Everybody above may ask [`installed`]; nobody else creates tables.

mod api;

use crate::error::{Result, UsherError};
use crate::pg;
use crate::pg::spi;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;

/// The tables as this version knows them. A migration raises it by one and adds a step to [`migrate`].
const SCHEMA_LEVEL: i32 = 1;

const TABLES: &str = include_str!("../../sql/setup/tables.sql");
const ACCESS: &str = include_str!("../../sql/setup/access.sql");

/// What every room needs to know of a set-up installation.
#[derive(Clone, Copy)]
pub struct Installed {
    /// Owner of the tables. The extension's own statements run with this role's rights, whoever calls.
    pub owner: Oid,
    pub flows: Oid,
    pub default_organization: pgrx::Uuid,
    /// False in a copy: the tables were set up in another database and restored here. Its jobs wait until somebody runs
    /// setup() here, which a running restore surely does not.
    pub home: bool,
}

thread_local! {
    static INSTALLED: RefCell<Option<(u64, Installed)>> = const { RefCell::new(None) };
}

/// The installation, or the remedy when there is none.
pub fn installed() -> Result<Installed> {
    let generation = pg::relcache::generation();
    if let Some((known, installed)) = INSTALLED.with_borrow(|cached| *cached)
        && known == generation
    {
        return Ok(installed);
    }
    let flows = pg::catalog::usher_relation("flows").ok_or_else(UsherError::not_set_up)?;
    // Whose rights are used from here on must not depend on operators that a caller has put in front of PostgreSQL's.
    let _path = pg::guc::Nest::pinned_path();
    let owner = spi::read::<Oid>("SELECT relowner FROM pg_catalog.pg_class WHERE oid = $1", &[spi::arg(flows)])?
        .ok_or_else(UsherError::not_set_up)?;
    let acting = pg::role::internal(owner);
    let default_organization = spi::read::<pgrx::Uuid>("SELECT id FROM usher.organizations WHERE slug = 'default'", &[])?
        .ok_or_else(UsherError::not_set_up)?;
    let home = spi::read::<bool>("SELECT database = $1 FROM usher.installation", &[spi::arg(Oid::from(pg::ids::database()))])?
        .ok_or_else(UsherError::not_set_up)?;
    drop(acting);
    let installed = Installed { owner, flows, default_organization, home };
    INSTALLED.set(Some((generation, installed)));
    Ok(installed)
}

/// Creates or migrates the tables; returns what was done.
fn migrate() -> Result<String> {
    let _quiet = pg::guc::Nest::pinned_path().quiet();
    // Tables that are there are changed by their owner's rights, not by the caller's greater ones.
    let _acting = installed().ok().map(|installed| pg::role::internal(installed.owner));
    let fresh = pg::catalog::usher_relation("installation").is_none();
    let before = if fresh { 0 } else { spi::one::<i32>("SELECT schema_level FROM usher.installation", &[])?.unwrap_or(0) };
    if before > SCHEMA_LEVEL {
        return Err(UsherError::state("the tables belong to a newer version of pg_usher")
            .detail(format!("The tables are at level {before}, this version knows level {SCHEMA_LEVEL}."))
            .hint("Install the newer version of the extension: ALTER EXTENSION pg_usher UPDATE."));
    }
    if before < 1 {
        spi::script(TABLES)?;
    }
    spi::run(
        "INSERT INTO usher.installation (schema_level, database) VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT installation_pkey DO UPDATE SET schema_level = EXCLUDED.schema_level, database = EXCLUDED.database",
        &[spi::arg(SCHEMA_LEVEL), spi::arg(Oid::from(pg::ids::database()))],
    )?;
    spi::run(
        "INSERT INTO usher.organizations (id, slug, name) VALUES ($1, 'default', 'Default organization')
         ON CONFLICT ON CONSTRAINT organizations_slug_key DO NOTHING",
        &[spi::arg(pg::ids::uuid_v7())],
    )?;
    spi::script(ACCESS)?;
    pg::relcache::forget();
    pg::xact::note_launcher();
    Ok(match before {
        0 => format!("pg_usher {} is set up", env!("CARGO_PKG_VERSION")),
        _ => format!("pg_usher {} is up to date", env!("CARGO_PKG_VERSION")),
    })
}
