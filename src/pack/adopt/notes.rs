//! What is otherwise at a table of the application than with one of the pack's own, though everything runs. Pure.

use super::fitted::{Fitted, Mapped, narrows};
use super::model::{Model, Table};
use super::needs::Needs;
use serde_json::Value;
use std::collections::BTreeSet;

/// Tables of the pack whose rows tell everybody what stands in others: `"shows"` of its manifest.
pub fn shown(manifest: &Value) -> BTreeSet<&str> {
    manifest["shows"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The pack's own constraint over just these columns takes NULL for a value.
pub fn one_null(table: &Table, key: &[String]) -> bool {
    let key: BTreeSet<&String> = key.iter().collect();
    table.keys.iter().any(|(name, columns)| table.one_null.contains(name) && columns.iter().collect::<BTreeSet<_>>() == key)
}

/// Notes about one bound table for a workflow that needs it.
pub fn about(fitted: &Fitted, model: &Model, needs: &Needs, shown: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut notes = BTreeSet::new();
    let table = model.tables.get(&fitted.name);
    for trigger in table.into_iter().flat_map(|table| &table.triggers) {
        notes.insert(format!("{trigger}() does not look after {}", fitted.table));
    }
    for policy in &fitted.restrictive {
        notes.insert(format!(
            "the restrictive policy \"{policy}\" of {} also holds for what flows read and write there",
            fitted.table
        ));
    }
    for (_, column) in needs.written().iter().filter(|(name, _)| *name == fitted.name) {
        let ours = table.and_then(|table| table.column(column));
        let (Some(ours), Mapped::Same(name)) = (ours, fitted.mapped(column)) else { continue };
        let Some(theirs) = fitted.theirs(name) else { continue };
        if let Some(becomes) = narrows(&ours.type_sql, &theirs.type_sql) {
            notes.insert(format!("{}.{name} is {}: what is written to {column} is {becomes}", fitted.table, theirs.type_sql));
        }
    }
    for (_, key) in needs.keys.iter().filter(|(name, _)| *name == fitted.name) {
        let Some(columns) = key.iter().map(|name| fitted.column(name)).collect::<Option<Vec<_>>>() else { continue };
        let set = columns.iter().map(|name| (*name).to_owned()).collect();
        if fitted.one_null.contains(&set) && !table.is_some_and(|table| one_null(table, key)) && fitted.may_be_null(&columns) {
            notes.insert(format!(
                "to the unique index of {} on ({}) NULL is a value, which it can hold once",
                fitted.table,
                columns.join(", ")
            ));
        }
    }
    let told: Vec<&&str> = shown.iter().filter(|name| needs.writes.iter().any(|(table, _)| table == **name)).collect();
    for name in told.into_iter().filter(|name| **name != fitted.name) {
        notes.insert(format!(
            "every member of an organization reads in {name} what is in {}, whatever policies that has; {{\"{name}\": null}} leaves this out",
            fitted.table
        ));
    }
    notes
}
