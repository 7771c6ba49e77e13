//! Putting back what a repair has changed, from the rows as they were.
//!
//! Only where each row is still as the repair has left it: somebody may have gone on with it since. All of it or nothing.

use super::look::{self, Keys, Scope};
use super::repair;
use super::repair_images::{self as images, Change};
use super::repair_store::{self as repairs, Record};
use super::store;
use crate::error::{Result, UsherError};
use crate::flow::catalog;
use crate::pg::{ids, role, spi};
use crate::registry::identity;
use crate::registry::tables::Table;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use pgrx::{JsonB, Uuid};
use serde_json::Value;
use std::collections::BTreeSet;

struct Repair {
    organization: Uuid,
    rule: i32,
    name: String,
    violations: Vec<Uuid>,
    run_as: Oid,
    changes: Vec<Change>,
    cannot: Option<String>,
    undone: bool,
}

fn read(id: Uuid) -> Result<Repair> {
    let found = spi::all(
        "SELECT r.organization_id, r.rule_id, r.rule, r.violations, r.run_as::oid, r.changes, r.cannot_undo, r.undone_at IS NOT NULL
           FROM usher.repairs AS r WHERE r.id = $1 FOR UPDATE",
        &[spi::arg(id)],
        |row| {
            let changes = row.get::<JsonB>(6)?.map(|json| json.0).unwrap_or_default();
            Ok(Repair {
                organization: row.get::<Uuid>(1)?.unwrap_or_else(|| Uuid::from_bytes([0; 16])),
                rule: row.get::<i32>(2)?.unwrap_or_default(),
                name: row.get::<String>(3)?.unwrap_or_default(),
                violations: row.get::<Vec<Uuid>>(4)?.unwrap_or_default(),
                run_as: row.get::<Oid>(5)?.unwrap_or(Oid::INVALID),
                changes: changes.as_array().into_iter().flatten().filter_map(Change::read).collect(),
                cannot: row.get::<String>(7)?,
                undone: row.get::<bool>(8)? == Some(true),
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| {
        UsherError::not_found("there is no repair of that id")
            .hint("SELECT id, rule, repaired_at, violations FROM usher.repairs; shows those that there are.")
    })
}

/// What is done with rows of one table that stand one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Delete,
    Update,
    Insert,
}

fn way(change: &Change) -> Way {
    match (&change.before, &change.after) {
        (None, _) => Way::Delete,
        (_, None) => Way::Insert,
        _ => Way::Update,
    }
}

/// Puts back what a repair has changed; its violations are looked at again. Runs with the owner's rights.
pub fn undo(installed: Installed, id: Uuid, by: String) -> Result<String> {
    let repair = read(id)?;
    if repair.undone {
        return Err(UsherError::state("the repair is undone already").hint(
            "SELECT undone_at, undone_by FROM usher.repairs; says when and by whom; what was undone can be repaired again.",
        ));
    }
    if let Some(why) = &repair.cannot {
        return Err(UsherError::state(format!("the repair cannot be undone: {why}"))
            .hint("What is known of its changes is in usher.repairs.changes; put back what is needed by hand."));
    }
    if role::name_of(repair.run_as).is_none() {
        return Err(UsherError::state("the role that the repair ran as is gone")
            .hint("What it has changed is in usher.repairs.changes; put back what is needed by hand."));
    }
    let rule = store::by_id(repair.rule)?.ok_or_else(|| {
        UsherError::state(format!("rule \"{}\" is gone", repair.name))
            .hint("What the repair has changed is in usher.repairs.changes; put back what is needed by hand.")
    })?;
    let rule = repair::ready(&rule)?;
    let organization = Some(repair.organization).filter(|id| id.as_bytes() != &[0; 16]);
    let noting = images::note();
    repair::run_as(repair.run_as, organization, || put_back(&repair.changes))?;
    let changes = images::taken()?;
    drop(noting);
    let cannot_undo = unnoted(&repair.changes)?;
    let record = Record {
        organization: repair.organization,
        id: ids::uuid_v7(),
        rule: &rule,
        kind: "undo",
        violations: repair.violations.clone(),
        by: by.clone(),
        automatic: false,
        run_as: repair.run_as,
        statement: format!("undo of {id}"),
        changes: &changes,
        cannot_undo: (!cannot_undo.is_empty()).then(|| cannot_undo.join("; ")),
        undoes: Some(id),
    };
    repairs::write(installed, &record)?;
    spi::run(
        "UPDATE usher.repairs AS r SET undone_at = pg_catalog.clock_timestamp(), undone_by = $3 WHERE r.organization_id = $1 AND r.id = $2",
        &[spi::arg(repair.organization), spi::arg(id), spi::arg(by)],
    )?;
    let open = repairs::read(repair.organization, repair.violations)?;
    let keys = Keys {
        organizations: open.iter().map(|_| organization).collect(),
        keys: open.into_iter().map(|open| JsonB(open.key)).collect(),
    };
    let fitted = rule.fit(installed)?;
    let seen = look::look(installed, &rule, &fitted, &Scope::Keys(&keys))?;
    Ok(format!(
        "{} rows are as they were before the repair of rule \"{}\"; {} violations are back",
        repair.changes.len(),
        rule.name,
        seen.new + seen.still
    ))
}

/// Why what was put back is not known to be: of some tables the changes are not noted.
fn unnoted(changes: &[Change]) -> Result<Vec<String>> {
    let tables: BTreeSet<&str> = changes.iter().map(|change| change.table.as_str()).collect();
    let mut why = Vec::new();
    for name in tables {
        if !images::is_noted(find(name)?.0.oid)? {
            why.push(format!("its changes of {name} were not noted"));
        }
    }
    Ok(why)
}

/// The last change first. Runs with the rights of the repair's role.
fn put_back(changes: &[Change]) -> Result<()> {
    let mut groups: Vec<(Way, Vec<&Change>)> = Vec::new();
    for change in changes.iter().rev() {
        match groups.last_mut() {
            Some((same, group)) if *same == way(change) && group[0].table == change.table => group.push(change),
            _ => groups.push((way(change), vec![change])),
        }
    }
    let mut tables: Vec<(String, Table, Vec<String>)> = Vec::new();
    let mut stale = Vec::new();
    for (_, group) in &groups {
        let name = &group[0].table;
        if tables.iter().all(|(known, ..)| known != name) {
            let (table, written) = find(name)?;
            tables.push((name.clone(), table, written));
        }
        let Some((_, table, _)) = tables.iter().find(|(known, ..)| known == name) else { continue };
        stale.extend(changed_since(table, group)?);
    }
    if !stale.is_empty() {
        let count = stale.len();
        let more = if count > 5 { format!(" and {} more", count - 5) } else { String::new() };
        stale.truncate(5);
        return Err(UsherError::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{count} of the rows that the repair has changed are not as it left them"),
        )
        .detail(format!("{}{more}.", stale.join(", ")))
        .hint("Nothing was undone. Put back by hand what is needed: usher.repairs.changes holds the rows as they were."));
    }
    for (way, group) in &groups {
        let Some((_, table, written)) = tables.iter().find(|(known, ..)| *known == group[0].table) else { continue };
        apply(table, written, *way, group)?;
    }
    Ok(())
}

/// A table by the name that it had, and the columns of it that can be written.
fn find(name: &str) -> Result<(Table, Vec<String>)> {
    let quoted = name
        .split_once('.')
        .map(|(schema, table)| format!("\"{}\".\"{}\"", schema.replace('"', "\"\""), table.replace('"', "\"\"")));
    let table = catalog::table(quoted.as_deref().unwrap_or(name), "the repair's changes")?;
    let written = spi::read::<Vec<String>>(
        "SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
          WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''",
        &[spi::arg(table.oid)],
    )?;
    Ok((table, written.unwrap_or_default()))
}

fn rows(group: &[&Change], side: impl Fn(&Change) -> Option<Value>) -> Vec<Option<JsonB>> {
    group.iter().map(|change| side(change).map(JsonB)).collect()
}

/// SQL for the rows of `u` (`key`, an object) in a table `t`.
fn same(table: &Table) -> String {
    let equal = table.key.iter().filter_map(|name| table.column(name)).map(|column| {
        format!("t.{} = (u.key ->> {})::{}", quote_identifier(&column.name), quote_literal(&column.name), column.type_sql)
    });
    equal.collect::<Vec<_>>().join(" AND ")
}

/// Rows that are not as the repair has left them, as people name them. Locks the others.
fn changed_since(table: &Table, group: &[&Change]) -> Result<Vec<String>> {
    if table.key.is_empty() {
        return Err(UsherError::state(format!("{} has no primary key any more", table.name))
            .hint("What the repair has changed is in usher.repairs.changes; put back what is needed by hand."));
    }
    let stale = spi::one::<Vec<String>>(
        &format!(
            "SELECT pg_catalog.array_agg(u.key::text ORDER BY u.n)
               FROM ROWS FROM (pg_catalog.unnest($1::jsonb[]), pg_catalog.unnest($2::jsonb[])) WITH ORDINALITY AS u (key, was, n)
               LEFT JOIN LATERAL (SELECT pg_catalog.row_to_json(t.*)::jsonb AS now FROM {} AS t WHERE {} FOR UPDATE OF t) AS h ON true
              WHERE h.now IS DISTINCT FROM u.was",
            table.sql,
            same(table)
        ),
        &[spi::arg(rows(group, |change| change.key.clone())), spi::arg(rows(group, |change| change.after.clone()))],
    )?;
    Ok(stale.unwrap_or_default().into_iter().map(|key| format!("{} {key}", table.name)).collect())
}

fn apply(table: &Table, written: &[String], way: Way, group: &[&Change]) -> Result<()> {
    let u = "ROWS FROM (pg_catalog.unnest($1::jsonb[]), pg_catalog.unnest($2::jsonb[])) WITH ORDINALITY AS u (key, was, n)";
    let names: Vec<String> = written.iter().map(quote_identifier).collect();
    let back = format!("CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::{}, u.was) AS r", table.sql);
    let sql = match way {
        Way::Delete => format!("DELETE FROM {} AS t USING {u} WHERE {}", table.sql, same(table)),
        Way::Insert => {
            let values: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
            format!(
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {u} {back} ORDER BY u.n",
                table.sql,
                names.join(", "),
                values.join(", ")
            )
        }
        Way::Update => {
            // A number that PostgreSQL alone draws stays what it is.
            let set: Vec<String> = table
                .columns
                .iter()
                .filter(|column| !column.generated)
                .map(|column| quote_identifier(&column.name))
                .map(|name| format!("{name} = r.{name}"))
                .collect();
            format!("UPDATE {} AS t SET {} FROM {u} {back} WHERE {}", table.sql, set.join(", "), same(table))
        }
    };
    let count = spi::run(
        &sql,
        &[spi::arg(rows(group, |change| change.key.clone())), spi::arg(rows(group, |change| change.before.clone()))],
    )?;
    if count != group.len() {
        return Err(UsherError::state(format!("{count} of {} rows of {} could be put back", group.len(), table.name))
            .hint("A trigger or a policy of the table keeps the others; nothing was undone."));
    }
    Ok(())
}

/// Undoes a repair for whoever asks.
pub fn asked(installed: Installed, id: Option<Uuid>) -> Result<String> {
    let id = id.ok_or_else(|| UsherError::missing("the repair"))?;
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    undo(installed, id, by)
}
