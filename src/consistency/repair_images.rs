//! The rows that a repair changes, as they were and as they are.
//!
//! A table that a repair writes has a trigger `usher_repairs`, which does nothing but while a repair runs in this session. The audit
//! log would not do: it holds of a changed row only what differs, as text, and secrets masked.

use super::fit::Fitted;
use super::repair_fit::Mender;
use crate::error::{Result as Outcome, UsherError};
use crate::pg::guc::Nest;
use crate::pg::trigger::{locked, raise};
use crate::pg::{catalog, images, role, spi, xact};
use crate::registry::tables::{self, Table};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A row that was written, by the relation in which it is kept.
struct Noted {
    relation: Oid,
    before: Option<Value>,
    after: Option<Value>,
    by: i64,
}

thread_local! {
    static NOTED: RefCell<Option<Vec<Noted>>> = const { RefCell::new(None) };
}

/// While this lives, changes of rows are noted.
pub struct Noting(Option<Vec<Noted>>);

pub fn note() -> Noting {
    Noting(NOTED.replace(Some(Vec::new())))
}

impl Drop for Noting {
    fn drop(&mut self) {
        NOTED.set(self.0.take());
    }
}

/// A row that a repair has changed, once: as it was before all of it and after.
#[derive(Debug, Clone)]
pub struct Change {
    pub table: String,
    /// None: its table has no primary key.
    pub key: Option<Value>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Change {
    pub fn json(&self) -> Value {
        json!({"table": self.table, "key": self.key, "before": self.before, "after": self.after})
    }

    pub fn read(value: &Value) -> Option<Self> {
        let side = |name: &str| value.get(name).filter(|side| !side.is_null()).cloned();
        Some(Self {
            table: value.get("table")?.as_str()?.to_owned(),
            key: side("key"),
            before: side("before"),
            after: side("after"),
        })
    }

    /// What a column of the row holds, before or after.
    pub fn values<'a>(&'a self, column: &'a str) -> impl Iterator<Item = &'a Value> {
        [&self.before, &self.after].into_iter().flatten().filter_map(move |row| row.get(column))
    }
}

/// A row of a table that a repair may write was written.
#[pg_trigger]
fn note_repair<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    if NOTED.with_borrow(Option::is_some) {
        raise(written(trigger));
    }
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

fn written(trigger: &PgTrigger<'_>) -> Outcome<()> {
    let relation = trigger.relid().map_err(|error| UsherError::internal(error.to_string()))?;
    let image = images::of(trigger)?;
    let read = |text: Option<String>| {
        text.map(|text| serde_json::from_str::<Value>(&text))
            .transpose()
            .map_err(|error| UsherError::internal(format!("a row could not be read as JSON: {error}")))
    };
    let noted = Noted { relation, before: read(image.before)?, after: read(image.after)?, by: image.by };
    NOTED.with_borrow_mut(|all| all.get_or_insert_default().push(noted));
    Ok(())
}

/// What was noted, each row once, in the order in which the rows were first written. What was undone meanwhile is left out. Runs with
/// the owner's rights.
pub fn taken() -> Outcome<Vec<Change>> {
    let noted = NOTED.with_borrow_mut(|all| all.as_mut().map(std::mem::take).unwrap_or_default());
    let mut names: HashMap<Oid, (String, Vec<String>)> = HashMap::new();
    let mut changes: Vec<Change> = Vec::new();
    let mut known: HashMap<(String, String), usize> = HashMap::new();
    for one in noted.into_iter().filter(|one| xact::is_mine(one.by)) {
        if let Entry::Vacant(place) = names.entry(one.relation) {
            place.insert(home(one.relation)?);
        }
        let (table, columns) = &names[&one.relation];
        let key = |row: &Option<Value>| row.as_ref().and_then(|row| key_of(row, columns));
        let (was, is) = (key(&one.before), key(&one.after));
        let place = |key: &Option<Value>| key.as_ref().map(|key| (table.clone(), key.to_string()));
        let found = place(&was).or_else(|| place(&is)).and_then(|place| known.get(&place).copied());
        let at = match found {
            Some(at) => {
                changes[at].after = one.after;
                at
            }
            None => {
                changes.push(Change { table: table.clone(), key: None, before: one.before, after: one.after });
                changes.len() - 1
            }
        };
        changes[at].key = is.clone().or_else(|| changes[at].key.take()).or_else(|| was.clone());
        // By the key that it has now; a row that is deleted may come back.
        for place in [place(&was), place(&is)].into_iter().flatten() {
            known.insert(place, at);
        }
    }
    changes.retain(|change| change.before != change.after);
    Ok(changes)
}

fn key_of(row: &Value, columns: &[String]) -> Option<Value> {
    if columns.is_empty() {
        return None;
    }
    let fields: Option<Map<String, Value>> = columns.iter().map(|name| Some((name.clone(), row.get(name)?.clone()))).collect();
    fields.map(Value::Object)
}

/// The table that people name, of a partition the one that it belongs to, and its primary key.
fn home(relation: Oid) -> Outcome<(String, Vec<String>)> {
    let root = spi::read::<Oid>(
        "SELECT COALESCE(pg_catalog.pg_partition_root($1::pg_catalog.regclass)::oid, $1)",
        &[spi::arg(relation)],
    )?
    .unwrap_or(relation);
    match tables::by_oid(root)? {
        Some(table) => Ok((table.name, table.key)),
        None => Ok((String::new(), Vec::new())),
    }
}

/// Tables that this transaction has written so far, with how many rows: so that what was written without being noted is known.
/// None: the server does not count.
pub fn written_so_far() -> Outcome<Option<HashMap<u32, i64>>> {
    if spi::read::<bool>("SELECT pg_catalog.current_setting('track_counts')::boolean", &[])? != Some(true) {
        return Ok(None);
    }
    let rows = spi::all(
        "SELECT s.relid, s.n_tup_ins + s.n_tup_upd + s.n_tup_del FROM pg_catalog.pg_stat_xact_all_tables AS s
          WHERE s.schemaname NOT IN ('usher', 'pg_catalog', 'information_schema', 'pg_toast') AND s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0",
        &[],
        |row| Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID).to_u32(), row.get::<i64>(2)?.unwrap_or(0))),
    )?;
    Ok(Some(rows.into_iter().collect()))
}

/// Tables that were written since, and whose changes are not noted.
pub fn unnoted(before: &HashMap<u32, i64>) -> Outcome<Vec<String>> {
    let Some(now) = written_so_far()? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for (relation, rows) in now {
        if rows > before.get(&relation).copied().unwrap_or(0) && !is_noted(Oid::from(relation))? {
            let (schema, name) = catalog::name(Oid::from(relation)).unwrap_or_default();
            names.push(format!("{schema}.{name}"));
        }
    }
    names.sort();
    Ok(names)
}

/// Changes of the table are noted while a repair runs, also of those that inherit from it.
pub fn is_noted(table: Oid) -> Outcome<bool> {
    Ok(unwatched(table)?.is_empty())
}

/// Of a table and those that inherit from it (partitions have what the table has) the ones whose changes are not noted, as SQL, with whether a trigger is
/// there and does not fire.
fn unwatched(table: Oid) -> Outcome<Vec<(String, bool)>> {
    spi::all(
        "WITH RECURSIVE all_of (oid) AS (
             SELECT $1::oid UNION SELECT i.inhrelid FROM all_of AS a JOIN pg_catalog.pg_inherits AS i ON i.inhparent = a.oid)
         SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid AND t.tgname = 'usher_repairs')
           FROM all_of AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.oid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                             WHERE t.tgrelid = c.oid AND t.tgfoid = 'usher.note_repair()'::pg_catalog.regprocedure AND t.tgenabled IN ('O', 'A'))
          ORDER BY c.relispartition, 1",
        &[spi::arg(table)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<bool>(2)? == Some(true))),
    )
}

/// Has the changes of some tables noted while a repair runs. Where the trigger cannot be made the repair works all the same, and
/// cannot be undone: comes back as what is to be said about that. Runs with the owner's rights.
pub fn attach(tables: &[Table]) -> Outcome<Vec<String>> {
    let _nest = Nest::pinned_path().quiet().lock_timeout(5_000);
    let mut without = Vec::new();
    for table in tables {
        // One is enough for all partitions: what is made on a partitioned table is there on them then.
        let mut last = None;
        while let Some((relation, is_there)) = unwatched(table.oid)?.into_iter().next() {
            if last.as_ref() == Some(&relation) {
                return Err(UsherError::state(format!("{relation} has a trigger usher_repairs that is not pg_usher's"))
                    .hint("Give it another name."));
            }
            if let Err(error) = watch(&relation, is_there) {
                if error.code != PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE {
                    return Err(error);
                }
                let owner = role::name_of(role::current()).unwrap_or_default();
                without.push(format!(
                    "repairs that change {} cannot be undone: GRANT TRIGGER ON {relation} TO {owner}, the owner of pg_usher's tables, and alter the rule",
                    table.name
                ));
                break;
            }
            last = Some(relation);
        }
    }
    Ok(without)
}

fn watch(relation: &str, is_there: bool) -> Outcome<()> {
    let sql = if is_there {
        format!("ALTER TABLE {relation} ENABLE TRIGGER usher_repairs")
    } else {
        format!(
            "CREATE TRIGGER usher_repairs AFTER INSERT OR UPDATE OR DELETE ON {relation} FOR EACH ROW
               WHEN (pg_catalog.current_setting('usher.repairing', true) = 'on') EXECUTE FUNCTION usher.note_repair()"
        )
    };
    locked(relation, &sql)
}

/// Of a rule whose rows belong to organizations the first table that its repair writes and whose changes nobody would see, though it has rows of organizations:
/// that the repair keeps to the rows of one is known from what is noted. What a function writes is known only afterwards, and not whose it was.
pub fn unseen(fitted: &Fitted, mender: &Mender) -> Outcome<Option<String>> {
    if fitted.organization.is_none() || mender.kind() != "statement" {
        return Ok(None);
    }
    for table in mender.tables.iter().filter(|table| table.has_organization()) {
        if !is_noted(table.oid)? {
            return Ok(Some(table.name.clone()));
        }
    }
    Ok(None)
}

/// Drops the triggers; returns how many there were. Runs with the owner's rights.
pub fn detach_all() -> Outcome<usize> {
    // A library that is newer than the extension knows functions that are not there yet.
    if spi::read::<bool>("SELECT pg_catalog.to_regprocedure('usher.note_repair()') IS NOT NULL", &[])? != Some(true) {
        return Ok(0);
    }
    let found = spi::all(
        "SELECT t.tgname::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE t.tgfoid = 'usher.note_repair()'::pg_catalog.regprocedure AND NOT t.tgisinternal AND t.tgparentid = 0",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    for (name, relation) in &found {
        locked(relation, &format!("DROP TRIGGER {} ON {relation}", quote_identifier(name)))?;
    }
    Ok(found.len())
}
