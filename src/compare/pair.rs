//! A flow's pair: what its source should give, and what its target holds.
//!
//! The flow's own expressions are read over all rows of the source at once, as if each were inserted now: with the caller's rights, not the
//! flow's, and for all organizations or one.

use super::sides::{Side, Value};
use crate::error::{Result, UsherError};
use crate::flow::catalog::{self, Column, Table};
use crate::flow::definition::{Definition, Then, When};
use crate::flow::family::require_whole;
use crate::flow::manage;
use crate::flow::store::{self as flows, Flow};
use crate::pg::{role, spi};
use crate::registry::identity::{self, Right};
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::spi::{quote_identifier, quote_literal};
use std::fmt::Write as _;
use std::rc::Rc;

fn flow_of(installed: Installed, name: &str) -> Result<Rc<Flow>> {
    require_whole(name)?;
    let id = manage::id_of(installed, name)?;
    let _acting = role::internal(installed.owner);
    let flow = flows::get(id.0, id.1)?.ok_or_else(|| UsherError::internal(format!("flow {name} has no current version")))?;
    if let Some(reason) = &flow.broken {
        return Err(UsherError::state(format!("flow \"{name}\" is broken: {reason}"))
            .hint(format!("Mend the table, or give the flow a definition that fits: SELECT usher.alter_flow('{name}', …);")));
    }
    Ok(flow)
}

/// A value of the flow as its target's column takes it.
fn cast(text: &str, column: &Column) -> String {
    format!("(({text}\n)::{})", column.type_sql)
}

/// The source's rows with everything that expressions may name, as when they were inserted now.
fn from(flow: &Flow, source: &Table, organization: &str) -> Result<String> {
    let definition = &flow.definition;
    let gone: Vec<String> = source
        .columns
        .iter()
        .filter(|column| flow.compiled.old.contains(&column.name))
        .map(|column| format!("NULL::{} AS {}", column.base_sql, quote_identifier(&column.name)))
        .collect();
    let mut sql = format!(
        "{} AS new CROSS JOIN (SELECT {}) AS old CROSS JOIN LATERAL (SELECT ({organization}) AS organization_id, NULL::uuid AS id, NULL::jsonb AS payload, 'insert' AS op, pg_catalog.now() AS created_at) AS job",
        source.sql,
        gone.join(", ")
    );
    for (name, join) in &definition.joins {
        let table = catalog::table(&join.table, &format!("join \"{name}\""))?;
        let mine =
            if table.has_organization() { format!("{name}.organization_id = job.organization_id AND ") } else { String::new() };
        let _ = write!(
            sql,
            " LEFT JOIN LATERAL (SELECT {name}.* FROM {} AS {name} WHERE {mine}({}\n) LIMIT 1) AS {name} ON true",
            table.sql, join.on
        );
    }
    Ok(sql)
}

fn require_copy(name: &str, definition: &Definition) -> Result<(String, String, Vec<String>)> {
    match (&definition.when, &definition.then) {
        (When::Change { table, .. }, Then::Upsert { table: target, key }) => Ok((table.clone(), target.clone(), key.clone())),
        (_, Then::Merge(_)) => Err(UsherError::invalid(format!("flow \"{name}\" is a merge"))
            .detail("What a difference of its two sides means is decided field by field, from what they last agreed upon.")
            .hint(format!(
                "SELECT usher.reconcile('{name}'); compares both sides by its rules and its links, and plans what to do."
            ))),
        _ => Err(UsherError::invalid(format!("flow \"{name}\" does not keep rows of one table as those of another"))
            .detail("What a target should hold can be told of flows that follow a table and upsert into another.")
            .hint("usher.compare_tables() compares any two tables.")),
    }
}

fn sees_all(table: &Table) -> Result<()> {
    let hidden = spi::read::<bool>("SELECT pg_catalog.row_security_active($1::oid)", &[spi::arg(table.oid)])?;
    if hidden == Some(true) {
        return Err(UsherError::forbidden(format!("policies of {} decide which of its rows you see", table.name))
            .detail("Rows that they hide would be told as missing, or differences would not be told.")
            .hint("Compare as the table's owner, unless row level security is forced upon it, or as a role with BYPASSRLS."));
    }
    Ok(())
}

/// Both sides of a flow that copies rows.
pub fn of_flow(installed: Installed, name: &str, organization: Option<&str>) -> Result<(Side, Side)> {
    let flow = flow_of(installed, name)?;
    let only: Option<Uuid> = organization.map(|named| identity::organization(named, Right::Read)).transpose()?;
    let (source, target, key) = require_copy(name, &flow.definition)?;
    let source = catalog::table(&source, "\"when\"")?;
    let target = catalog::table(&target, "\"then\"")?;
    for table in [&source, &target] {
        sees_all(table)?;
    }
    let whose = flow
        .compiled
        .organization
        .clone()
        .unwrap_or_else(|| format!("{}::uuid", quote_literal(installed.default_organization.to_string())));
    let mut left = Side {
        name: format!("{} (what flow \"{name}\" makes of it)", source.name),
        from: from(&flow, &source, &whose)?,
        filter: vec!["job.organization_id IS NOT NULL".to_owned()],
        key: Vec::new(),
        columns: Vec::new(),
        unique: flow.compiled.row_determines_key && !key.is_empty(),
    };
    if let Some(condition) = &flow.definition.condition {
        left.filter.push(format!("({condition}\n)"));
    }
    // An upsert finds its row by a unique index; in it columns may be NULL, and such rows it never finds.
    let mut right = Side {
        name: format!("{} (its target)", target.name),
        from: format!("{} AS t", target.sql),
        filter: Vec::new(),
        key: Vec::new(),
        columns: Vec::new(),
        unique: false,
    };
    if target.has_organization() {
        left.key.push(Value { name: "organization_id".to_owned(), sql: "job.organization_id".to_owned() });
        right.key.push(Value { name: "organization_id".to_owned(), sql: "t.organization_id".to_owned() });
    }
    if let Some(only) = only {
        left.filter.push(format!("job.organization_id = '{only}'::uuid"));
        if target.has_organization() {
            right.filter.push(format!("t.organization_id = '{only}'::uuid"));
        } else if flow.compiled.organization.is_some() {
            return Err(UsherError::invalid(format!("rows of {} do not say of which organization they are", target.name))
                .hint("Leave the organization out: all rows are compared."));
        }
    }
    for (column, text) in &flow.definition.set {
        let held = target.expect(column, "\"set\"")?;
        let (own, other) = (
            Value { name: column.clone(), sql: cast(text, held) },
            Value { name: column.clone(), sql: format!("t.{}", quote_identifier(column)) },
        );
        let (into, of) =
            if key.contains(column) { (&mut left.key, &mut right.key) } else { (&mut left.columns, &mut right.columns) };
        into.push(own);
        of.push(other);
    }
    // A key may be said once for all.
    for (column, text) in flow.definition.set_once.iter().filter(|(column, _)| key.contains(column)) {
        let held = target.expect(column, "\"set_once\"")?;
        left.key.push(Value { name: column.clone(), sql: cast(text, held) });
        right.key.push(Value { name: column.clone(), sql: format!("t.{}", quote_identifier(column)) });
    }
    Ok((left, right))
}
