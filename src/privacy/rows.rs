//! Reading and erasing the application's rows. Like a flow's effect: with the rights of the definition's role, for the one organization,
//! and behind a fence, since triggers and policies there are others' code.

use super::deep;
use super::graph::{Graph, erased};
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::{bgw, role, spi, subxact, xact};
use crate::registry::identity;
use crate::registry::tables::{Table, row_key};
use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use serde_json::Value;
use std::collections::HashSet;

/// Milliseconds that a row of the application may be waited for.
const PATIENCE: i64 = 5_000;

/// The organization for which something is done, and with whose rights.
#[derive(Clone, Copy)]
pub struct Acting {
    pub organization: Uuid,
    pub run_as: Oid,
    /// The call is a transaction of its own: nobody else's statements are in it.
    pub alone: bool,
}

impl Acting {
    /// Runs `work` as a flow's effect would run.
    pub fn within<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _fence = Nest::fence().lock_timeout(PATIENCE).pinned_formats();
        let _for_flow = identity::for_flow(Some(self.organization));
        let _acting = role::act_as(self.run_as);
        work()
    }

    /// The same for work that writes: what others' triggers leave for COMMIT would run there with the rights of whoever commits, so
    /// it runs now, or the work is refused.
    pub fn changing<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let may_defer = xact::may_defer()?;
        let before = if may_defer { xact::pending(false)? } else { HashSet::new() };
        // Never what the caller's own statements have left.
        let settle = may_defer && (bgw::is_worker() || before.is_empty() && self.alone);
        self.within(|| {
            let value = work()?;
            if settle {
                spi::script("SET CONSTRAINTS ALL IMMEDIATE")?;
            }
            if may_defer && !xact::pending(false)?.is_subset(&before) {
                return Err(UsherError::state("a trigger left something for COMMIT, where it would run with other rights")
                    .detail("A deferred constraint or trigger is pending on a table that was written.")
                    .hint("Call the function by itself, outside of BEGIN and COMMIT, or make the constraint immediate."));
            }
            Ok(value)
        })
    }
}

/// The values of a column of a node's rows.
pub fn column(acting: Acting, graph: &Graph, at: usize, column: &str) -> Result<Vec<String>> {
    let value = format!("{}.{}::text", graph.alias(at), quote_identifier(column));
    let sql = format!("SELECT pg_catalog.array_agg(DISTINCT {value}) FROM {} AND {value} IS NOT NULL", graph.rows(at));
    let found = acting.within(|| spi::read::<Vec<String>>(&sql, &[spi::arg(acting.organization), spi::arg(graph.values(at))]))?;
    Ok(found.unwrap_or_default())
}

/// The key as the person's own row would show it: 042 is 42. None: it is no value of that type.
pub fn key(graph: &Graph, given: &str) -> Option<String> {
    let root = &graph.nodes[0].table;
    let base = root.column(&graph.subject.key).map_or("text", |column| column.base_sql.as_str());
    let _fence = Nest::fence().pinned_formats();
    let _acting = role::act_as(graph.subject.run_as);
    subxact::attempt(|| spi::read::<String>(&format!("SELECT ($1::text::{base})::text"), &[spi::arg(given)])).ok().flatten()
}

/// The keys of every person of the kind in the organization.
pub fn keys(acting: Acting, graph: &Graph) -> Result<Vec<String>> {
    let root = &graph.nodes[0].table;
    let within = if root.has_organization() { "t0.organization_id = $1" } else { "$1 IS NOT NULL" };
    let sql = format!(
        "SELECT pg_catalog.array_agg(t0.{}::text) FROM {} AS t0 WHERE {within}",
        quote_identifier(&graph.subject.key),
        root.sql
    );
    Ok(acting.within(|| spi::read::<Vec<String>>(&sql, &[spi::arg(acting.organization)]))?.unwrap_or_default())
}

/// What is known of a node's rows before they are erased.
#[derive(Default)]
pub struct Facts {
    pub count: i64,
    /// As jobs name the rows.
    pub row_keys: Vec<i64>,
    /// As the audit log names them.
    pub objects: Vec<String>,
    /// Values that name the person.
    pub identifiers: Vec<String>,
}

fn object(table: &Table, alias: &str) -> String {
    let columns: Vec<String> = table.own_key().into_iter().map(|name| format!("{alias}.{}", quote_identifier(name))).collect();
    if columns.is_empty() { "NULL::text".to_owned() } else { format!("pg_catalog.concat_ws(',', {})", columns.join(", ")) }
}

pub fn facts(acting: Acting, graph: &Graph, at: usize) -> Result<Facts> {
    let (node, alias) = (&graph.nodes[at], graph.alias(at));
    let mut values: Vec<String> = node
        .personal
        .iter()
        .filter(|p| p.identifies)
        .map(|p| format!("({alias}.{}::text)", quote_identifier(&p.column)))
        .collect();
    if values.is_empty() {
        values.push("(NULL::text)".to_owned());
    }
    let sql = format!(
        "SELECT pg_catalog.count(DISTINCT {key}), pg_catalog.array_agg(DISTINCT {key}) FILTER (WHERE {key} IS NOT NULL),
                pg_catalog.array_agg(DISTINCT {object}) FILTER (WHERE {object} IS NOT NULL),
                pg_catalog.array_agg(DISTINCT v.value) FILTER (WHERE v.value <> '')
           FROM {table} AS {alias} CROSS JOIN LATERAL (VALUES {values}) AS v (value) WHERE {predicate}",
        key = row_key(&node.table.key, &alias),
        object = object(&node.table, &alias),
        table = node.table.sql,
        values = values.join(", "),
        predicate = graph.predicate(at),
    );
    let counted = format!("SELECT pg_catalog.count(*) FROM {}", graph.rows(at));
    acting.within(|| {
        let arguments = [spi::arg(acting.organization), spi::arg(graph.values(at))];
        let mut all = spi::read_all(&sql, &arguments, |row| {
            Ok(Facts {
                count: row.get::<i64>(1)?.unwrap_or(0),
                row_keys: row.get::<Vec<i64>>(2)?.unwrap_or_default(),
                objects: row.get::<Vec<String>>(3)?.unwrap_or_default(),
                identifiers: row.get::<Vec<String>>(4)?.unwrap_or_default(),
            })
        })?;
        let mut facts = all.pop().unwrap_or_default();
        if node.table.key.is_empty() {
            facts.count = spi::read::<i64>(&counted, &arguments)?.unwrap_or(0);
        }
        Ok(facts)
    })
}

/// A node's rows as JSON: all columns, or of those that only mention the person the key alone.
pub fn json(acting: Acting, graph: &Graph, at: usize, whole: bool) -> Result<Vec<Value>> {
    let (node, alias) = (&graph.nodes[at], graph.alias(at));
    let value = if whole {
        format!("pg_catalog.to_jsonb({alias}.*)")
    } else {
        let key =
            node.table.key.iter().map(|name| format!("{}, {alias}.{}", pgrx::spi::quote_literal(name), quote_identifier(name)));
        format!("pg_catalog.jsonb_build_object({})", key.collect::<Vec<_>>().join(", "))
    };
    let sql = format!("SELECT pg_catalog.jsonb_agg({value} ORDER BY {value})::text FROM {}", graph.rows(at));
    let found = acting.within(|| spi::read::<String>(&sql, &[spi::arg(acting.organization), spi::arg(graph.values(at))]))?;
    Ok(match found.map(|text| deep::read(&text)).transpose().map_err(deep::unreadable)? {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    })
}

/// Takes the person out of a node's rows; returns how many were changed.
pub fn erase(acting: Acting, graph: &Graph, at: usize, pseudonym: &str) -> Result<usize> {
    let (node, alias) = (&graph.nodes[at], graph.alias(at));
    let changes: Vec<(String, String)> = node
        .personal
        .iter()
        .filter_map(|personal| Some((quote_identifier(&personal.column), erased(&node.table, personal)?)))
        .collect();
    if changes.is_empty() {
        return Ok(0);
    }
    let set: Vec<String> = changes.iter().map(|(column, value)| format!("{column} = {value}")).collect();
    // As text: not every type can be compared, and a text is what would be seen.
    let differs: Vec<String> =
        changes.iter().map(|(column, value)| format!("{alias}.{column}::text IS DISTINCT FROM ({value})::text")).collect();
    let sql = format!(
        "UPDATE {} AS {alias} SET {} WHERE {} AND ({})",
        node.table.sql,
        set.join(", "),
        graph.predicate(at),
        differs.join(" OR ")
    );
    let arguments = [spi::arg(acting.organization), spi::arg(graph.values(at)), spi::arg(pseudonym)];
    acting.changing(|| subxact::attempt(|| spi::run(&sql, &arguments)).map_err(UsherError::from)).map_err(|error| {
        UsherError { message: format!("rows of {} could not be erased: {}", node.table.name, error.message), ..error }.hint(
            "Nothing was erased. usher.declare_personal() says what a column becomes, such as {\"erase\": {\"value\": \"…\"}}.",
        )
    })
}
