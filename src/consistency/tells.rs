//! What rules read, what ends up where when they find something, and what mends it: for those who draw what feeds what.

use super::definition::{Definition, Mend, Tell};
use super::fit::Fitted;
use super::{repair_fit, store};
use crate::error::Result;
use crate::flow::feeds;
use crate::pg::spi;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use std::collections::{BTreeMap, BTreeSet};

/// What a repair is done by.
pub enum Mends {
    Tables(Vec<String>),
    Function(String),
    Flow(String),
}

pub struct Told {
    pub rule: String,
    pub pack: Option<String>,
    /// `on`, `off` or `broken`.
    pub state: &'static str,
    /// Tables that the query reads or `"touches"` names, and the columns of them that the query gives or `"touches"` names.
    pub reads: BTreeMap<String, BTreeSet<String>>,
    pub mends: Option<Mends>,
    /// The type of events that an escalation emits.
    pub emits: Option<String>,
    /// An escalation tells people.
    pub notifies: bool,
}

/// All rules. Of one that does not fit the database any more it is told which tables it stood on. Runs with the owner's rights.
pub fn told(installed: Installed) -> Result<Vec<Told>> {
    let packs = spi::read_all("SELECT l.id, l.pack FROM usher.rules AS l WHERE l.pack IS NOT NULL", &[], |row| {
        Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default()))
    })?;
    let mut packs: BTreeMap<i32, String> = packs.into_iter().collect();
    let mut stood = stood_on()?;
    let mut found = Vec::new();
    for rule in store::rules("true", &[])? {
        let Ok(definition) = rule.definition() else { continue };
        let fitted = if rule.broken { None } else { store::fitted(&rule, installed).ok() };
        let mut reads: BTreeMap<String, BTreeSet<String>> =
            stood.remove(&rule.id).unwrap_or_default().into_iter().map(|table| (table, BTreeSet::new())).collect();
        if let Some(fitted) = &fitted {
            for (table, columns) in columns(fitted)? {
                reads.entry(table).or_default().extend(columns);
            }
        }
        found.push(Told {
            state: match (rule.broken, rule.enabled) {
                (true, _) => "broken",
                (_, false) => "off",
                _ => "on",
            },
            reads,
            mends: mends(installed, &definition, fitted.as_ref())?,
            emits: definition.escalate.as_ref().and_then(|escalate| match &escalate.tell {
                Tell::Emit(event) => Some(event.clone()),
                Tell::Notify(_) => None,
            }),
            notifies: definition.escalate.as_ref().is_some_and(|escalate| matches!(escalate.tell, Tell::Notify(_))),
            pack: packs.remove(&rule.id),
            rule: rule.name,
        });
    }
    Ok(found)
}

/// Names of the tables that rules stand on, by rule.
fn stood_on() -> Result<BTreeMap<i32, BTreeSet<String>>> {
    let rows = spi::read_all(
        "SELECT d.rule_id, n.nspname || '.' || c.relname
           FROM usher.rule_dependencies AS d JOIN pg_catalog.pg_class AS c ON c.oid = d.object AND c.relkind IN ('r', 'p')
           JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE d.class = 'pg_catalog.pg_class'::regclass",
        &[],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    let mut found: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
    for (rule, table) in rows {
        found.entry(rule).or_default().insert(table);
    }
    Ok(found)
}

/// The tables of a rule that fits, and the columns of them that are known to be read.
fn columns(fitted: &Fitted) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeSet<String>> =
        fitted.reads.iter().map(|table| (table.name.clone(), BTreeSet::new())).collect();
    let origins: Vec<(Oid, i16)> = fitted.columns.iter().filter_map(|column| column.origin).collect();
    let (relations, numbers): (Vec<Oid>, Vec<i16>) = origins.into_iter().unzip();
    let named = spi::read_all(
        "SELECT DISTINCT n.nspname || '.' || c.relname, a.attname::text
           FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::smallint[])) AS o (relation, number)
           JOIN pg_catalog.pg_class AS c ON c.oid = o.relation JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = o.number",
        &[spi::arg(relations), spi::arg(numbers)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    for (table, column) in named {
        found.entry(table).or_default().insert(column);
    }
    for touch in &fitted.touches {
        let said = fitted.definition.touches.iter().find(|(name, _)| feeds::plain(name) == touch.table.name);
        let plain = said.into_iter().flat_map(|(_, keys)| keys.values()).filter_map(|text| text.trim().strip_prefix("row."));
        let columns = plain.filter(|name| touch.table.column(name).is_some()).map(str::to_owned);
        found.entry(touch.table.name.clone()).or_default().extend(columns);
    }
    Ok(found)
}

fn mends(installed: Installed, definition: &Definition, fitted: Option<&Fitted>) -> Result<Option<Mends>> {
    let Some(repair) = &definition.repair else { return Ok(None) };
    Ok(match &repair.mend {
        Mend::Call(function) => Some(Mends::Function(feeds::plain(function))),
        Mend::Flow(flow) => Some(Mends::Flow(flow.clone())),
        // Where a statement that does not fit writes nobody can say.
        Mend::Statement(_) => match fitted.map(|fitted| repair_fit::mender(installed, fitted)) {
            Some(Ok(Some(mender))) => Some(Mends::Tables(mender.tables.into_iter().map(|table| table.name).collect())),
            _ => None,
        },
    })
}
