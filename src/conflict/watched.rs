//! What overlap rules look at, for whoever asks where a table's rows lead to.

use super::definition::{Definition, Period};
use super::store;
use crate::error::Result;
use crate::flow::{feeds, shape};
use crate::pg;
use crate::registry::tables::{self, Table};
use std::collections::BTreeSet;

/// An overlap rule: which table it watches, and by which columns.
pub struct Watched {
    pub rule: String,
    /// `schema.table`.
    pub table: String,
    pub columns: BTreeSet<String>,
    /// Where free resources are looked for, and by which columns.
    pub alternatives: Option<(String, BTreeSet<String>)>,
    /// Somebody is told of what stays open.
    pub escalates: bool,
    pub broken: bool,
}

/// All rules whose table is there. Runs with the owner's rights.
pub fn watched() -> Result<Vec<Watched>> {
    let broken: BTreeSet<i32> = store::rules("l.state = 'broken'", &[])?.into_iter().map(|rule| rule.id).collect();
    let mut found = Vec::new();
    for rule in store::rules("true", &[])? {
        let Some(table) = tables::by_oid(rule.relation)? else { continue };
        let definition = rule.definition()?;
        found.push(Watched {
            columns: existing(&table, columns(&definition)),
            alternatives: alternatives(&definition),
            escalates: definition.escalate_after.is_some(),
            broken: broken.contains(&rule.id),
            table: table.name,
            rule: rule.name,
        });
    }
    Ok(found)
}

fn columns(definition: &Definition) -> BTreeSet<String> {
    let period = match &definition.period {
        Period::Range(column) => vec![column.clone()],
        Period::Between(from, to) => vec![from.clone(), to.clone()],
    };
    definition.resource.iter().cloned().chain(period).chain(named(definition.condition.as_deref())).collect()
}

fn alternatives(definition: &Definition) -> Option<(String, BTreeSet<String>)> {
    let of = definition.alternatives.as_ref()?;
    let table = crate::flow::catalog::table(&of.table, "\"alternatives\"").ok()?;
    let names = of.same.iter().cloned().chain([of.key.clone()]).chain(named(of.condition.as_deref())).collect();
    Some((feeds::plain(&of.table), existing(&table, names)))
}

/// The columns that a condition names.
fn named(condition: Option<&str>) -> Vec<String> {
    let nodes = condition.and_then(|text| pg::subxact::rehearse(|| pg::expr::parse(text)).ok());
    let shape = nodes.and_then(|nodes| shape::read_over(&nodes, &["r"])).unwrap_or_default();
    shape.columns.into_iter().filter_map(|used| used.column.filter(|_| used.alias == "r")).collect()
}

fn existing(table: &Table, names: BTreeSet<String>) -> BTreeSet<String> {
    names.into_iter().filter(|name| table.column(name).is_some()).collect()
}
