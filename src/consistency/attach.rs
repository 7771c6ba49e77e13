//! Creating and dropping the triggers that say which keys of rules a statement has touched.
//!
//! A table has one set of them, whichever rules there are: what they do is worked out by each session.

use super::drift::{self, Finding};
use super::store::Rule;
use super::trigger;
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::trigger::{EVENTS, locked};
use crate::pg::{locks, role, spi, subxact};
use crate::setup::Installed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use std::collections::BTreeMap;

/// Milliseconds that making or changing a rule waits for a busy table.
const PATIENCE: i64 = 5_000;

/// Tables whose changes some rule wants to know of: for its gate, for the look after the commit, or for one by the clock at what was touched.
const WATCHED: &str = "
    SELECT d.rule_id, d.object, COALESCE(l.definition -> 'run' ?| '{transaction,after_sync}'::text[], false) AS needed FROM usher.rules AS l JOIN usher.rule_dependencies AS d ON d.rule_id = l.id
     WHERE d.watched AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND l.enabled
       AND (l.keyed OR l.definition -> 'run' ?| '{transaction,after_sync}'::text[])";

/// A table that is to have triggers.
struct Wanted {
    sql: String,
    /// Some rule cannot do without. The others have everything looked at instead.
    needed: bool,
}

/// By oid, their names: tables and their partitions, because a statement fires the triggers of the relation that it names.
fn relations(rule: Option<i32>) -> Result<BTreeMap<u32, Wanted>> {
    let rows = spi::read_all(
        &format!(
            "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.bool_or(w.needed)
               FROM ({WATCHED}) AS w
               JOIN pg_catalog.pg_class AS t ON t.oid = w.object
               CROSS JOIN LATERAL (SELECT t.oid AS id UNION SELECT p.relid::oid FROM pg_catalog.pg_partition_tree(t.oid::pg_catalog.regclass) AS p) AS part
               JOIN pg_catalog.pg_class AS c ON c.oid = part.id
               JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p') AND ($1 IS NULL OR w.rule_id = $1) GROUP BY 1, 2"
        ),
        &[spi::arg(rule)],
        |row| {
            let wanted = Wanted { sql: row.get::<String>(2)?.unwrap_or_default(), needed: row.get::<bool>(3)? == Some(true) };
            Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID).to_u32(), wanted))
        },
    )?;
    Ok(rows.into_iter().collect())
}

/// Trigger and relation of all that there are, with whether they fire.
fn existing() -> Result<Vec<(String, Oid, String, bool)>> {
    spi::read_all(
        "SELECT t.tgname::text, c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), t.tgenabled IN ('O', 'A')
           FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE t.tgfoid = pg_catalog.to_regprocedure('usher.note_touched()') AND NOT t.tgisinternal",
        &[],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok((text(1)?, row.get::<Oid>(2)?.unwrap_or(Oid::INVALID), text(3)?, row.get::<bool>(4)? == Some(true)))
        },
    )
}

/// There is something to look after. Runs with the owner's rights.
pub fn any() -> Result<bool> {
    Ok(spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.rules)", &[])? == Some(true))
}

/// The triggers that the rules want; returns how many were made. Those that nobody wants any more are dropped where that is possible at once, and do
/// nothing where it is not. Runs with the owner's rights, on tables of this version.
pub fn sync_all(patience: i64) -> Result<usize> {
    // To ask for partitions locks them, too.
    let _nest = Nest::pinned_path().lock_timeout(patience);
    let wanted = relations(None)?;
    let existing = existing()?;
    for (name, relation, relation_sql, _) in &existing {
        if wanted.contains_key(&relation.to_u32()) {
            continue;
        }
        if let Err(error) = drop_trigger(name, relation_sql) {
            pgrx::debug1!("usher: trigger {name} stays on {relation_sql}: {}", error.message);
        }
    }
    let (mut made, mut first) = (0, None);
    for (relation, Wanted { sql, needed }) in &wanted {
        let fires = existing.iter().filter(|(_, on, _, fires)| on.to_u32() == *relation && *fires).count();
        if fires == EVENTS.len() {
            continue;
        }
        // One that is busy does not keep the others from theirs.
        match subxact::attempt(|| make(sql)) {
            Ok(count) => made += count,
            Err(failure) if *needed => first = first.or(Some(failure)),
            Err(failure) => pgrx::debug1!("usher: {sql} has no triggers of rules: {}", failure.message),
        }
    }
    first.map_or(Ok(made), |failure| Err(failure.into()))
}

fn make(relation: &str) -> Result<usize> {
    for (event, tables) in EVENTS {
        locked(
            relation,
            &format!(
                "CREATE OR REPLACE TRIGGER usher_touched_{event} AFTER {} ON {relation} {tables} FOR EACH STATEMENT EXECUTE FUNCTION usher.note_touched()",
                event.to_uppercase()
            ),
        )
        .map_err(|error| explain(error, relation))?;
    }
    Ok(EVENTS.len())
}

fn drop_trigger(name: &str, relation: &str) -> Result<()> {
    locked(relation, &format!("DROP TRIGGER IF EXISTS {} ON {relation}", quote_identifier(name)))
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

/// The database is another one, or triggers may be missing: rules that nothing, or nothing true, is known of are put on it as it is, and what they want is there
/// when this is done. Returns what has become of rules, and how many triggers were made. Runs with the owner's rights.
pub fn restore(installed: Installed, rules: &[Rule]) -> Result<(Vec<Finding>, usize)> {
    let findings = drift::look_again(installed, rules)?;
    let made = sync_all(PATIENCE)?;
    // Sessions may have worked out that there is nothing to do.
    for rule in rules {
        trigger::changed(&watched(rule.id)?);
    }
    Ok((findings, made))
}

/// A rule is another than before, or new: its triggers, and every session learns of it. Where it has a gate, whoever has written before it was there has
/// ended before this goes on. Runs with the owner's rights.
pub fn changed(rule: i32, gate: bool) -> Result<()> {
    sync_all(PATIENCE)?;
    let tables = watched(rule)?;
    trigger::changed(&tables);
    if gate {
        keep_writers_out(&relations(Some(rule))?)?;
    }
    Ok(())
}

/// Tables that a rule may not be about any more: sessions that know it as it was learn of it, too.
pub fn forgotten(tables: &[Oid]) {
    trigger::changed(tables);
}

/// The tables of a rule's `"touches"`.
fn watched(rule: i32) -> Result<Vec<Oid>> {
    let tables = spi::read::<Vec<Oid>>(
        "SELECT pg_catalog.array_agg(d.object) FROM usher.rule_dependencies AS d JOIN pg_catalog.pg_class AS c ON c.oid = d.object
          WHERE d.rule_id = $1 AND d.watched AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass",
        &[spi::arg(rule)],
    )?;
    Ok(tables.unwrap_or_default())
}

/// Whether a rule fits the database has changed: every session learns of it. Runs with the owner's rights.
pub fn marked(rule: i32) -> Result<()> {
    trigger::changed(&watched(rule)?);
    Ok(())
}

/// A rule is gone: nobody looks at what was touched, and the triggers that nobody wants go with it. Runs with the owner's rights.
pub fn dropped(rule: i32, tables: &[Oid]) -> Result<()> {
    spi::run("DELETE FROM usher.rule_checks AS c WHERE c.rule_id = $1", &[spi::arg(rule)])?;
    trigger::changed(tables);
    sync_all(100)?;
    Ok(())
}

/// To be asked before a rule goes.
pub fn tables_of(rule: i32) -> Result<Vec<Oid>> {
    watched(rule)
}

/// Waits for open writers, and keeps others out until the end of the transaction.
fn keep_writers_out(relations: &BTreeMap<u32, Wanted>) -> Result<()> {
    let _nest = Nest::open().lock_timeout(PATIENCE);
    subxact::attempt(|| {
        relations.keys().for_each(|relation| locks::keep_writers_out(Oid::from(*relation)));
        Ok(())
    })
    .map_err(|failure| {
        let busy = failure.sqlstate == "55P03";
        let error = UsherError::from(failure);
        let names: Vec<&str> = relations.values().map(|wanted| wanted.sql.as_str()).collect();
        if busy {
            error.hint(format!("{} is busy: end the transactions that hold it and try again.", names.join(", ")))
        } else {
            error
        }
    })
}

/// Drops the triggers of all rules; returns how many there were. Runs with the owner's rights.
pub fn remove() -> Result<usize> {
    let _nest = Nest::pinned_path().lock_timeout(PATIENCE);
    let triggers = existing()?;
    for (name, _, relation, _) in &triggers {
        drop_trigger(name, relation).map_err(|error| explain(error, relation))?;
    }
    Ok(triggers.len())
}
