//! Keeping what was declared: after a restore, a migration, a grant.
//!
//! One statement finds what is not as it was declared; only that is mended.

use super::check::{self, Target};
use super::store::{self, How, Protection};
use super::{declare, masked, readers, sealed};
use crate::error::Result;
use crate::pg::trigger::locked;
use crate::pg::{catalog, role, spi, subxact};
use crate::secrets::keys;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::prelude::*;

/// What is wrong with a protection, in words, and whether it can be mended from here.
struct Drift {
    id: Uuid,
    what: String,
    gone: bool,
}

/// Runs with the owner's rights.
fn drifted() -> Result<Vec<Drift>> {
    spi::all(
        "WITH p AS (
             SELECT q.*, c.oid AS rel, c.relowner, a.attnum AS att
               FROM usher.column_protections AS q
               LEFT JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', q.schema_name, q.table_name)) AND c.relkind IN ('r', 'p')
               LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = q.column_name AND NOT a.attisdropped
              WHERE q.ended_at IS NULL),
         g AS (
             SELECT p.id, x.grantee FROM p JOIN pg_catalog.pg_class AS c ON c.oid = p.rel CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS x
              WHERE p.how = 'masked' AND x.privilege_type = 'SELECT'
             UNION
             SELECT p.id, x.grantee FROM p JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.rel AND a.attnum = p.att CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) AS x
              WHERE p.how = 'masked' AND x.privilege_type = 'SELECT'),
         w AS (
             SELECT p.id, CASE
                 WHEN p.rel IS NULL THEN 'its table does not exist'
                 WHEN p.att IS NULL THEN 'its table has no such column'
                 WHEN p.how = 'sealed' AND NOT EXISTS (
                     SELECT FROM pg_catalog.pg_constraint AS k
                      WHERE k.conrelid = p.rel AND k.conname = 'usher_sealed_' || p.id AND k.contype = 'c' AND k.convalidated AND k.conkey = ARRAY[p.att])
                     THEN 'the constraint that refuses clear text is gone'
                 WHEN p.how = 'sealed' AND EXISTS (
                     SELECT FROM (SELECT p.rel AS id UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(p.rel) AS t) AS r
                      WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                                         WHERE t.tgrelid = r.id AND t.tgname = 'zzzz_usher_seal_' || p.id AND t.tgfoid = 'usher.seal_row()'::pg_catalog.regprocedure AND t.tgenabled = 'A'))
                     THEN 'the trigger that seals is gone or switched off'
                 WHEN EXISTS (SELECT FROM g WHERE g.id = p.id AND g.grantee <> p.relowner
                                AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r, pg_catalog.unnest(p.readers) AS n (name)
                                                 WHERE r.oid = g.grantee AND n.name NOT IN ('admin', 'legend') AND r.rolname = pg_catalog.regexp_replace(n.name, '^role:', '')))
                     THEN 'somebody may read it who is no reader'
                 WHEN p.how = 'masked' AND EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(p.taken) AS t
                                                    WHERE (t ->> 'whole')::boolean AND (t ->> 'upto')::integer < (SELECT pg_catalog.max(a.attnum) FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = p.rel AND NOT a.attisdropped))
                     THEN 'the table has columns that came later'
                 END AS what, p.rel IS NULL OR p.att IS NULL AS gone
               FROM p)
         SELECT w.id, w.what, w.gone FROM w WHERE w.what IS NOT NULL ORDER BY w.id",
        &[],
        |row| {
            Ok(Drift {
                id: row.get::<Uuid>(1)?.unwrap_or_else(|| Uuid::from_bytes([0; 16])),
                what: row.get::<String>(2)?.unwrap_or_default(),
                gone: row.get::<bool>(3)?.unwrap_or(false),
            })
        },
    )
}

/// Some column is protected. Runs with the owner's rights.
pub fn any() -> Result<bool> {
    Ok(spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.column_protections AS p WHERE p.ended_at IS NULL)", &[])?
        == Some(true))
}

/// What a mending has done.
#[derive(Default)]
pub struct Mended {
    pub done: Vec<String>,
    pub failed: Vec<String>,
}

fn repair(installed: Installed, protection: &Protection, patience: i64) -> Result<()> {
    let Some(oid) = catalog::relation(&protection.schema, &protection.table) else { return Ok(()) };
    let target: Target = check::target(oid)?;
    match protection.how {
        How::Sealed => sealed::attach(&target, &protection.column, declare::id(protection), false, patience).map(drop),
        How::Masked => masked::sync(installed, &target, patience).map(drop),
    }
}

/// Brings back what is missing. `all`: also views that were dropped. Runs with the owner's rights; on tables whose owner's rights it
/// has not, it can mend nothing, and says so.
pub fn mend(installed: Installed, all: bool, patience: i64) -> Result<Mended> {
    let mut mended = Mended::default();
    if !any()? {
        return Ok(mended);
    }
    store::locate(installed.home)?;
    let drifts = drifted()?;
    for protection in store::all()? {
        let drift = drifts.iter().find(|drift| drift.id == protection.id);
        let view = all && protection.how == How::Masked && drift.is_none();
        if !view && drift.is_none_or(|drift| drift.gone) {
            continue;
        }
        match subxact::attempt(|| repair(installed, &protection, patience)) {
            Ok(()) => mended.done.extend(drift.map(|drift| format!("{}: {}", protection.name(), drift.what))),
            Err(failure) => mended.failed.push(format!("{}: {}", protection.name(), failure.line())),
        }
    }
    Ok(mended)
}

/// After somebody's change of the schema: says to whoever made it what was put right. Runs with the owner's rights.
pub fn follow(installed: Installed, patience: i64) -> Result<()> {
    let mended = mend(installed, false, patience)?;
    for what in &mended.done {
        warning!(
            "a protected column was not as declared any more, and is again: {what}; usher.unprotect_column() ends a protection"
        );
    }
    for _ in &mended.failed {
        warning!("a protected column is not as declared any more; SELECT * FROM usher.doctor(); says what to do");
    }
    Ok(())
}

/// For the doctor: what is not as declared, and what to do about it. Runs with the owner's rights.
pub fn findings() -> Result<Vec<(String, String)>> {
    let protections = store::all()?;
    let drifts = drifted()?;
    let mut found = Vec::new();
    for protection in &protections {
        let name = protection.name();
        if let Some(drift) = drifts.iter().find(|drift| drift.id == protection.id) {
            let remedy = if drift.gone {
                "Make it again under its name; where it is gone for good, DELETE FROM usher.column_protections as the tables' owner.".to_owned()
            } else {
                "SELECT usher.attach_all(); as a role that has the rights of the table's owner, such as a superuser.".to_owned()
            };
            found.push((format!("{name} is declared {}, but {}", protection.how.word(), drift.what), remedy));
        }
        for reader in protection.readers.iter().filter_map(|name| readers::role_of(name)) {
            if role::by_name(reader).is_none() {
                found.push((
                    format!("{name} names a reader that does not exist: {reader}"),
                    "Declare it again with usher.protect_column(), or create the role.".to_owned(),
                ));
            }
        }
    }
    if protections.iter().any(|protection| protection.how == How::Sealed)
        && let Err(error) = keys::read()
    {
        found
            .push((format!("sealed columns can be neither written nor read: {}", error.message), error.hint.unwrap_or_default()));
    }
    Ok(found)
}

/// Takes away what stands on the extension's functions: the triggers, and the views. The constraints stay, and refuse clear text from
/// then on; so do the rights that were taken. Runs with the owner's rights.
pub fn detach_all() -> Result<usize> {
    // A library that is newer than the extension knows functions that are not there yet.
    if spi::read::<bool>("SELECT pg_catalog.to_regprocedure('usher.seal_row()') IS NOT NULL", &[])? != Some(true) {
        return Ok(0);
    }
    let statements = spi::all(
        "SELECT pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname), pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgfoid = 'usher.seal_row()'::pg_catalog.regprocedure
         UNION ALL
         SELECT DISTINCT pg_catalog.format('DROP VIEW %I.%I', n.nspname, c.relname), pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = c.oid
           JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
          WHERE c.relkind = 'v' AND pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), 'pg_usher: ') AND c.relname LIKE '%\\_masked'
            AND n.nspname <> 'usher'",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    for (sql, relation) in &statements {
        locked(relation, sql)?;
    }
    Ok(statements.len())
}
