//! What feeds what in one definition: which columns of which table each field that is written is made of.
//!
//! Expressions are read as PostgreSQL's own grammar reads them, and columns as the catalog has them; nothing is looked for in their text.

use super::catalog::{self, Table};
use super::definition::{Definition, Then, When};
use super::expressions::Expressions;
use super::merge::{Merge, Side};
use super::shape::{self, ColumnUse, Shape};
use crate::error::Result;
use crate::pg;
use crate::registry::tables::split;
use std::collections::{BTreeMap, BTreeSet};

/// Stands for a whole row, or for all data, where single fields are not named.
pub const WHOLE: &str = "*";

/// Where values come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// What "when" names: the changed row, or the data of the event, the request or the run.
    When,
    /// A joined table, as `schema.table`.
    Join(String),
}

/// What one origin gives to what the flow writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// Each field that is written, and the columns of the origin that its value is made of: none for one that is made of others.
    pub fields: BTreeMap<String, BTreeSet<String>>,
    /// Columns that are read besides: they decide, find rows or tell whose they are.
    pub uses: BTreeSet<String>,
}

/// `schema.name` as the catalog has it, without quotes.
pub fn plain(name: &str) -> String {
    split(name).map_or_else(|| name.to_owned(), |(schema, name)| format!("{schema}.{name}"))
}

/// A table that a definition names, as long as it is there.
fn table(name: &str, at: &str) -> Option<Table> {
    catalog::table(name, at).ok()
}

/// The columns that a use of an alias means: the one, or all of them.
fn columns(used: &ColumnUse, of: Option<&Table>) -> Vec<String> {
    let Some(of) = of else { return Vec::new() };
    match &used.column {
        Some(name) => of.column(name).map(|column| column.name.clone()).into_iter().collect(),
        None => of.columns.iter().map(|column| column.name.clone()).collect(),
    }
}

/// The aliases under which the data of what has no row are known, and the column in which they are.
fn data(when: &When) -> Option<(&'static str, &'static str)> {
    match when {
        When::Change { .. } => None,
        When::Event(_) => Some(("event", "data")),
        When::Step(_) => Some(("run", "input")),
        When::Request { .. } | When::Schedule(_) => Some(("job", "payload")),
    }
}

struct Reader<'a> {
    definition: &'a Definition,
    source: Option<Table>,
    joins: BTreeMap<&'a str, Option<Table>>,
}

impl Reader<'_> {
    /// What an expression is made of, by origin.
    fn origins(&self, shape: &Shape) -> BTreeMap<Origin, BTreeSet<String>> {
        let mut found: BTreeMap<Origin, BTreeSet<String>> = BTreeMap::new();
        let mut add = |origin: Origin, names: Vec<String>| found.entry(origin).or_default().extend(names);
        for used in &shape.columns {
            if self.source.is_some() && matches!(used.alias.as_str(), "new" | "old") {
                add(Origin::When, columns(used, self.source.as_ref()));
            } else if let Some(joined) = self.joins.get(used.alias.as_str()) {
                add(Origin::Join(plain(&self.definition.joins[&used.alias].table)), columns(used, joined.as_ref()));
            }
        }
        if let Some((alias, column)) = data(&self.definition.when) {
            let of_data = |used: &ColumnUse| used.alias == alias && used.column.as_deref().is_none_or(|name| name == column);
            for (_, field) in shape.fields.iter().filter(|(used, _)| of_data(used)) {
                add(Origin::When, vec![field.clone().unwrap_or_else(|| WHOLE.to_owned())]);
            }
        }
        found
    }

    /// What is handed over by a flow that says nothing of it.
    fn unsaid(&self) -> BTreeMap<String, BTreeSet<String>> {
        let all = |names: Vec<String>| BTreeMap::from([(WHOLE.to_owned(), names.into_iter().collect())]);
        match (&self.definition.then, &self.source) {
            (Then::Publish(_), Some(source)) => {
                source.own_key().into_iter().map(|name| (name.to_owned(), BTreeSet::from([name.to_owned()]))).collect()
            }
            (Then::Call { .. } | Then::Steps(_), Some(source)) => {
                all(source.columns.iter().map(|column| column.name.clone()).collect())
            }
            (Then::Call { .. } | Then::Steps(_), None) => all(vec![WHOLE.to_owned()]),
            _ => BTreeMap::new(),
        }
    }
}

/// What feeds what the flow does, origin by origin; [`Origin::When`] is always among them, with every field that is written. Columns and
/// tables that are not there (any more) are left out. Runs in a transaction, with any rights.
pub fn feeds(definition: &Definition) -> Result<BTreeMap<Origin, Feed>> {
    let source = match &definition.when {
        When::Change { table: name, .. } => table(name, "\"when\""),
        _ => None,
    };
    let mut found: BTreeMap<Origin, Feed> = BTreeMap::from([(Origin::When, Feed::default())]);
    let joins = definition.joins.iter().map(|(name, join)| (name.as_str(), table(&join.table, "\"join\""))).collect();
    let reader = Reader { definition, source, joins };
    for (name, _) in definition.joins.iter().filter(|(name, _)| reader.joins[name.as_str()].is_some()) {
        found.entry(Origin::Join(plain(&definition.joins[name].table))).or_default();
    }
    for (place, shape) in Expressions::of(definition)?.shapes() {
        let written = place.strip_prefix("set.").or_else(|| place.strip_prefix("set_once."));
        let origins = reader.origins(shape);
        if let Some(field) = written {
            found.entry(Origin::When).or_default().fields.entry(field.to_owned()).or_default();
        }
        for (origin, names) in origins {
            let feed = found.entry(origin).or_default();
            match written {
                Some(field) => feed.fields.entry(field.to_owned()).or_default().extend(names),
                None => feed.uses.extend(names),
            }
        }
    }
    if let Some(merge) = definition.merge() {
        merged(&reader, merge, found.entry(Origin::When).or_default());
    } else if definition.set.is_empty() && definition.set_once.is_empty() {
        found.entry(Origin::When).or_default().fields = reader.unsaid();
    }
    if let Some(target) = definition.then.table().and_then(|name| table(name, "\"then\"")) {
        for feed in found.values_mut() {
            feed.fields.retain(|field, _| target.column(field).is_some());
        }
    }
    for feed in found.values_mut() {
        let written: BTreeSet<&String> = feed.fields.values().flatten().collect();
        feed.uses.retain(|name| !written.contains(name));
    }
    Ok(found)
}

/// The fields of a merge on the way from the side that the flow follows to the other one.
fn merged(reader: &Reader<'_>, merge: &Merge, feed: &mut Feed) {
    let to_right = merge.side == Side::Left;
    let of =
        |column: &str| columns(&ColumnUse { alias: "new".to_owned(), column: Some(column.to_owned()) }, reader.source.as_ref());
    let made_of = |text: &str| -> BTreeSet<String> {
        let nodes = pg::subxact::rehearse(|| pg::expr::parse(text)).ok();
        let shape = nodes.and_then(|nodes| shape::read(&nodes)).unwrap_or_default();
        reader.origins(&shape).remove(&Origin::When).unwrap_or_default()
    };
    for field in &merge.fields {
        let (from, to, way) =
            if to_right { (&field.left, &field.right, &field.to_right) } else { (&field.right, &field.left, &field.to_left) };
        let names = way.as_ref().map_or_else(|| of(from).into_iter().collect(), |text| made_of(text));
        feed.fields.insert(to.clone(), names);
    }
    let (creates, new) = if to_right { (merge.creates_right, &merge.new_right) } else { (merge.creates_left, &merge.new_left) };
    for (column, text) in new.iter().filter(|_| creates) {
        feed.fields.insert(column.clone(), made_of(text));
    }
    for (left, right) in &merge.matches {
        feed.uses.extend(of(if to_right { left } else { right }));
    }
    if let Some((left, right)) = &merge.times {
        feed.uses.extend(of(if to_right { left } else { right }));
    }
}
