//! Creating and dropping audit triggers on the application's tables.
//!
//! A trigger carries the names of its columns; `usher.audited_tables` says which tables shall have one, for the time after
//! a detach, a restore or a migration. The triggers of pg_usher's own tables are made by `usher.setup()`.

use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::trigger::{EVENTS, locked};
use crate::pg::{role, spi, subxact};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};

struct Relation {
    oid: Oid,
    sql: String,
}

/// A table and its partitions: a statement fires the triggers of the relation that it names.
fn relations(table: Oid) -> Result<Vec<Relation>> {
    spi::read_all(
        "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM (SELECT $1 AS id UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) AS t) AS part
           JOIN pg_catalog.pg_class c ON c.oid = part.id JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p')",
        &[spi::arg(table)],
        |row| Ok(Relation { oid: row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), sql: row.get::<String>(2)?.unwrap_or_default() }),
    )
}

/// The columns as a trigger keeps them: each name ends with a zero byte.
fn stored(columns: &[String]) -> Vec<u8> {
    columns.iter().flat_map(|name| name.bytes().chain([0])).collect()
}

fn names(stored: &[u8]) -> Vec<String> {
    let mut parts: Vec<String> = stored.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    parts.pop();
    parts
}

/// Brings the audit triggers of a table and its partitions in line; no columns given means all. Returns how many triggers
/// were made. Runs with the owner's rights.
pub fn sync(table: Oid, columns: &[String], patience: i64) -> Result<usize> {
    let _nest = Nest::pinned_path().lock_timeout(patience);
    let mut made = 0;
    for relation in relations(table)? {
        let fitting = spi::one::<i64>(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger t
              WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgfoid = 'usher.audit()'::pg_catalog.regprocedure AND t.tgargs = $2 AND t.tgenabled IN ('O', 'A')",
            &[spi::arg(relation.oid), spi::arg(stored(columns))],
        )?;
        if fitting == Some(EVENTS.len() as i64) {
            continue;
        }
        let list = columns.iter().map(quote_literal).collect::<Vec<_>>().join(", ");
        for (event, tables) in EVENTS {
            locked(
                &relation.sql,
                &format!(
                    "CREATE OR REPLACE TRIGGER usher_audit_{event} AFTER {} ON {} {tables} FOR EACH STATEMENT EXECUTE FUNCTION usher.audit({list})",
                    event.to_uppercase(),
                    relation.sql
                ),
            )
            .map_err(|error| explain(error, &relation.sql))?;
            made += 1;
        }
    }
    Ok(made)
}

fn explain(error: UsherError, relation: &str) -> UsherError {
    if error.code != PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE {
        return error;
    }
    let owner = role::name_of(role::current()).unwrap_or_default();
    error.hint(format!(
        "Triggers are made and dropped by {owner}, the owner of pg_usher's tables: GRANT TRIGGER ON {relation} lets it make them; to drop them it must be a member of the table's owner."
    ))
}

fn drop_from(relation: &Relation) -> Result<usize> {
    let names = spi::all(
        "SELECT t.tgname::text FROM pg_catalog.pg_trigger t
          WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgfoid = 'usher.audit()'::pg_catalog.regprocedure",
        &[spi::arg(relation.oid)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    for name in &names {
        locked(&relation.sql, &format!("DROP TRIGGER {} ON {}", quote_identifier(name), relation.sql))
            .map_err(|error| explain(error, &relation.sql))?;
    }
    Ok(names.len())
}

/// Drops the audit triggers of a table and its partitions; returns how many there were. Runs with the owner's rights.
pub fn remove(table: Oid) -> Result<usize> {
    let _nest = Nest::pinned_path().lock_timeout(5_000);
    relations(table)?.iter().map(drop_from).sum()
}

/// Every application's table that is to be audited and exists. One that was renamed is known by its triggers. Runs with
/// the owner's rights, on tables of this version.
pub fn sync_all(patience: i64) -> Result<usize> {
    let _nest = Nest::pinned_path();
    let renamed = spi::read_all(
        "SELECT n.nspname::text, c.relname::text, t.tgargs
           FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE t.tgfoid = 'usher.audit()'::pg_catalog.regprocedure AND t.tgname = 'usher_audit_insert' AND n.nspname <> 'usher'
            AND NOT EXISTS (SELECT FROM usher.audited_tables a JOIN pg_catalog.pg_namespace s ON s.nspname = a.schema_name
                              JOIN pg_catalog.pg_class r ON r.relnamespace = s.oid AND r.relname = a.table_name
                             WHERE r.oid = c.oid OR r.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_ancestors(c.oid) AS p))",
        &[],
        |row| {
            let [schema, table] = [row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default()];
            Ok((schema, table, names(&row.get::<Vec<u8>>(3)?.unwrap_or_default())))
        },
    )?;
    for (schema, table, columns) in renamed {
        record(&schema, &table, &columns, "renamed")?;
    }
    let tables = spi::read_all(
        "SELECT c.oid, a.columns FROM usher.audited_tables a JOIN pg_catalog.pg_namespace n ON n.nspname = a.schema_name
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = a.table_name AND c.relkind IN ('r', 'p')",
        &[],
        |row| Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), row.get::<Vec<String>>(2)?.unwrap_or_default())),
    )?;
    let (mut made, mut first) = (0, None);
    for (table, columns) in tables {
        // One that is busy, or whose owner has taken a right away, does not keep the others from theirs.
        match subxact::attempt(|| sync(table, &columns, patience)) {
            Ok(count) => made += count,
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    first.map_or(Ok(made), |failure| Err(failure.into()))
}

/// Drops every audit trigger on the application's tables; what is to be audited stays known. Runs with the owner's rights.
pub fn detach_all() -> Result<usize> {
    // A library that is newer than the extension knows functions that are not there yet.
    if spi::read::<bool>("SELECT pg_catalog.to_regprocedure('usher.audit()') IS NOT NULL", &[])? != Some(true) {
        return Ok(0);
    }
    let tables = spi::read_all(
        "SELECT DISTINCT t.tgrelid FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
          WHERE t.tgfoid = 'usher.audit()'::pg_catalog.regprocedure AND c.relnamespace <> 'usher'::pg_catalog.regnamespace",
        &[],
        |row| Ok(row.get::<Oid>(1)?.unwrap_or(Oid::INVALID)),
    )?;
    tables.into_iter().map(remove).sum()
}

/// Remembers that a table is audited. Runs with the owner's rights.
pub fn record(schema: &str, table: &str, columns: &[String], by: &str) -> Result<()> {
    spi::run(
        "INSERT INTO usher.audited_tables (schema_name, table_name, columns, created_by) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT audited_tables_pkey DO UPDATE SET columns = EXCLUDED.columns",
        &[spi::arg(schema), spi::arg(table), spi::arg((!columns.is_empty()).then(|| columns.to_vec())), spi::arg(by)],
    )?;
    Ok(())
}

/// Forgets it. Runs with the owner's rights.
pub fn forget(schema: &str, table: &str) -> Result<usize> {
    spi::run("DELETE FROM usher.audited_tables WHERE schema_name = $1 AND table_name = $2", &[spi::arg(schema), spi::arg(table)])
}

#[cfg(test)]
mod unit {
    use super::{names, stored};

    proptest::proptest! {
        #[test]
        fn columns_survive_their_bytes(columns in proptest::collection::vec("[^\\x00]{1,12}", 0..5)) {
            proptest::prop_assert_eq!(names(&stored(&columns)), columns);
        }
    }
}
