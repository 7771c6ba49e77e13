//! SQL functions of the audit.

use super::attach;
use crate::error::{UsherError, is_secret_name};
use crate::pg::{role, spi};
use crate::registry::{identity, tables};
use crate::setup;
use pgrx::PgRelation;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Enters every change of a table into `usher.audit_log` from now on: who, when, which row, and of the named columns (of
/// all, if none is named) what they were and are. Values of columns whose name says secret are masked. A second call
/// replaces the columns.
///
/// Arguments: `target`, an ordinary or partitioned table; `columns`.
/// Errors: 42501 for callers who are no operators or may not read the table, 42703 for a column that does not exist,
/// 55P03 when the table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn audit_table(
    target: Option<PgRelation>,
    columns: default!(Option<Vec<Option<String>>>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("audit tables")?;
    let installed = setup::current()?;
    let table = tables::of_application(target, "SELECT usher.audit_table('public.orders');", "audited")?;
    let full_name = format!("{}.{}", table.schema, table.name);
    // The log shows what the table holds: only who may read the one may fill the other.
    if spi::read::<bool>(
        "SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')",
        &[spi::arg(role::current()), spi::arg(table.oid)],
    )? != Some(true)
    {
        return Err(UsherError::forbidden(format!("you may not read {full_name}, so you may not have it audited"))
            .hint(format!("GRANT SELECT ON {full_name} TO your role, or let a role do it that may read the table."))
            .into());
    }
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    let known = tables::by_oid(table.oid)?.ok_or_else(|| UsherError::internal("a table is not in the catalog"))?;
    let mut chosen: Vec<String> = Vec::new();
    if let Some(columns) = columns {
        for name in columns {
            let name = name.ok_or_else(|| {
                UsherError::invalid("a column's name is NULL").hint("Name the columns, or leave the list out to take all.")
            })?;
            known.expect(&name, "\"columns\"")?;
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
        if chosen.is_empty() {
            return Err(UsherError::invalid("the list of columns is empty")
                .hint("Name at least one column, or leave the list out to take all.")
                .into());
        }
    }
    attach::record(&table.schema, &table.name, &chosen, &by)?;
    attach::sync(table.oid, &chosen, 5_000)?;
    let shown: Vec<&str> = known
        .columns
        .iter()
        .map(|c| c.name.as_str())
        .filter(|name| chosen.is_empty() || chosen.iter().any(|c| c == name))
        .collect();
    let masked: Vec<&str> = shown.iter().copied().filter(|name| is_secret_name(name)).collect();
    let masked = if masked.is_empty() { String::new() } else { format!("; masked: {}", masked.join(", ")) };
    Ok(format!("{full_name} is audited: {}{masked}", shown.join(", ")))
}

/// Enters changes of a table no more; what was entered stays. Errors: 42501 for callers who are no operators, 42704 when the
/// table is not audited, 55P03 when it is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn unaudit_table(target: Option<PgRelation>) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("end the audit of tables")?;
    let installed = setup::current()?;
    let table = tables::of_application(target, "SELECT usher.audit_table('public.orders');", "audited")?;
    let _acting = role::internal(installed.owner);
    let gone = attach::remove(table.oid)? + attach::forget(&table.schema, &table.name)?;
    let name = format!("{}.{}", table.schema, table.name);
    if gone == 0 {
        return Err(UsherError::not_found(format!("{name} is not audited"))
            .hint("SELECT schema_name, table_name FROM usher.audited_tables; lists the tables that are.")
            .into());
    }
    Ok(format!("{name} is not audited any more; its entries stay"))
}
