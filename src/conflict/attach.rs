//! Creating and dropping the triggers of overlap rules.
//!
//! A trigger carries its rule's id, so that it finds the rule whatever the table is called by now.

use super::store;
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::trigger::{EVENTS, locked};
use crate::pg::{locks, role, spi, subxact};
use crate::setup::Installed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

struct Relation {
    oid: Oid,
    sql: String,
}

/// A table and its partitions: a statement fires the triggers of the relation that it names.
fn relations(table: Oid) -> Result<Vec<Relation>> {
    spi::read_all(
        "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM (SELECT $1 AS id UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) AS t) AS part
           JOIN pg_catalog.pg_class AS c ON c.oid = part.id JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p')",
        &[spi::arg(table)],
        |row| Ok(Relation { oid: row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), sql: row.get::<String>(2)?.unwrap_or_default() }),
    )
}

fn stored(rule: i32) -> Vec<u8> {
    format!("{rule}\0").into_bytes()
}

/// Brings the triggers of one rule in line; returns how many were made. Runs with the owner's rights.
pub fn sync(rule: i32, table: Oid, patience: i64) -> Result<usize> {
    let _nest = Nest::pinned_path().lock_timeout(patience);
    let mut made = 0;
    let relations = relations(table)?;
    for relation in &relations {
        let fitting = spi::one::<i64>(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger AS t
              WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgfoid = 'usher.note_overlaps()'::pg_catalog.regprocedure AND t.tgargs = $2 AND t.tgenabled IN ('O', 'A')",
            &[spi::arg(relation.oid), spi::arg(stored(rule))],
        )?;
        if fitting == Some(EVENTS.len() as i64) {
            continue;
        }
        for (event, tables) in EVENTS {
            locked(
                &relation.sql,
                &format!(
                    "CREATE OR REPLACE TRIGGER usher_overlaps_{rule}_{event} AFTER {} ON {} {tables} FOR EACH STATEMENT EXECUTE FUNCTION usher.note_overlaps({rule})",
                    event.to_uppercase(),
                    relation.sql
                ),
            )
            .map_err(|error| explain(error, &relation.sql))?;
            made += 1;
        }
    }
    leave(rule, &relations)?;
    Ok(made)
}

/// A partition that was detached is none of the rule's business any more. Where the trigger cannot be dropped it does nothing.
fn leave(rule: i32, relations: &[Relation]) -> Result<()> {
    let there: Vec<Oid> = relations.iter().map(|relation| relation.oid).collect();
    for (name, relation) in triggers(Some(rule), there)? {
        if let Err(failure) = drop_trigger(&name, &relation) {
            pgrx::debug1!("usher: trigger {name} stays on {relation}: {}", failure.message);
        }
    }
    Ok(())
}

fn drop_trigger(name: &str, relation: &str) -> Result<()> {
    locked(relation, &format!("DROP TRIGGER IF EXISTS {} ON {relation}", quote_identifier(name)))
}

/// Name and relation of the triggers of one rule, or of all, apart from those on some relations.
fn triggers(rule: Option<i32>, without: Vec<Oid>) -> Result<Vec<(String, String)>> {
    spi::all(
        "SELECT t.tgname::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE t.tgfoid = 'usher.note_overlaps()'::pg_catalog.regprocedure AND NOT t.tgisinternal AND ($1 IS NULL OR t.tgargs = $1) AND t.tgrelid <> ALL ($2)",
        &[spi::arg(rule.map(stored)), spi::arg(without)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )
}

/// Waits for open writers of a table and its partitions, and keeps others out until the end of the transaction.
pub fn keep_writers_out(table: Oid, patience: i64) -> Result<()> {
    let _nest = Nest::pinned_path().lock_timeout(patience);
    let relations = relations(table)?;
    subxact::attempt(|| {
        relations.iter().for_each(|relation| locks::keep_writers_out(relation.oid));
        Ok(())
    })
    .map_err(|failure| {
        let busy = failure.sqlstate == "55P03";
        let error = UsherError::from(failure);
        let names: Vec<&str> = relations.iter().map(|relation| relation.sql.as_str()).collect();
        if busy {
            error.hint(format!("{} is busy: end the transactions that hold it and try again.", names.join(", ")))
        } else {
            error
        }
    })
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

/// Drops the triggers of one rule, or of all; returns how many there were. Runs with the owner's rights.
pub fn remove(rule: Option<i32>) -> Result<usize> {
    // A library that is newer than the extension knows functions that are not there yet.
    if spi::read::<bool>("SELECT pg_catalog.to_regprocedure('usher.note_overlaps()') IS NOT NULL", &[])? != Some(true) {
        return Ok(0);
    }
    let _nest = Nest::pinned_path().lock_timeout(5_000);
    let triggers = triggers(rule, Vec::new())?;
    for (name, relation) in &triggers {
        drop_trigger(name, relation).map_err(|error| explain(error, relation))?;
    }
    Ok(triggers.len())
}

/// There is something to look after. Runs with the owner's rights.
pub fn any() -> Result<bool> {
    Ok(spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.overlap_rules)", &[])? == Some(true))
}

/// What has become of a rule.
pub struct Finding {
    pub rule: String,
    /// Why it is broken; None: it works again.
    pub reason: Option<String>,
}

/// After a change of the schema: rules that do not fit their tables any more, and those that fit again. Runs with the owner's rights.
pub fn look_again(installed: Installed) -> Result<Vec<Finding>> {
    let broken =
        spi::read::<Vec<i32>>("SELECT pg_catalog.array_agg(l.id) FROM usher.overlap_rules AS l WHERE l.state = 'broken'", &[])?;
    let broken = broken.unwrap_or_default();
    let mut findings = Vec::new();
    for rule in store::rules("true", &[])? {
        let was = broken.contains(&rule.id);
        let reason = match store::fitted(&rule, installed) {
            Ok(_) if was => None,
            Err(failure) if !was && failure.tells_about_the_rule() => Some(failure.line()),
            _ => continue,
        };
        store::mark(&rule, reason.as_deref())?;
        findings.push(Finding { rule: rule.name, reason });
    }
    Ok(findings)
}

/// The triggers of every rule whose table is there. Runs with the owner's rights, on tables of this version.
pub fn sync_all(patience: i64) -> Result<usize> {
    let rules =
        store::rules("EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = l.relation AND c.relkind IN ('r', 'p'))", &[])?;
    let (mut made, mut first) = (0, None);
    for rule in rules {
        // One that is busy does not keep the others from theirs.
        match subxact::attempt(|| sync(rule.id, rule.relation, patience)) {
            Ok(count) => made += count,
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    first.map_or(Ok(made), |failure| Err(failure.into()))
}
