//! Whether a rule fits the tables that it names.
//!
//! What a rule says is evaluated inside writers' statements and with the rights of the installation's owner. So it may consist only of
//! what cannot fail and runs nobody's code: columns of built-in types, constants, comparisons.

use super::definition::{Alternatives, Definition, Period};
use crate::error::{Result, UsherError};
use crate::flow::{catalog, compile, shape};
use crate::pg::guc::Nest;
use crate::pg::{expr, spi, subxact};
use crate::registry::tables::{self, Column, Table};
use crate::setup::Installed;
use pgrx::pg_sys::{self, Oid};

/// A rule and its tables as they are now.
pub struct Fitted {
    pub definition: Definition,
    pub table: Table,
    pub period: Held,
    pub free: Option<Free>,
}

/// How a row holds its period.
pub enum Held {
    Range(String),
    /// The two columns, and the function that makes a range of them.
    Between(String, String, &'static str),
}

pub struct Free {
    pub table: Table,
    pub given: Alternatives,
}

/// The range that two columns of a type make.
fn range_of(column: &Column) -> Option<&'static str> {
    Some(match column.type_oid {
        pg_sys::TIMESTAMPTZOID => "tstzrange",
        pg_sys::TIMESTAMPOID => "tsrange",
        pg_sys::DATEOID => "daterange",
        pg_sys::INT4OID => "int4range",
        pg_sys::INT8OID => "int8range",
        pg_sys::NUMERICOID => "numrange",
        _ => return None,
    })
}

fn is_range(column: &Column) -> bool {
    [
        pg_sys::TSTZRANGEOID,
        pg_sys::TSRANGEOID,
        pg_sys::DATERANGEOID,
        pg_sys::INT4RANGEOID,
        pg_sys::INT8RANGEOID,
        pg_sys::NUMRANGEOID,
    ]
    .contains(&column.type_oid)
}

/// A column that can be compared in a writer's statement.
fn plain<'a>(table: &'a Table, name: &str, at: &str) -> Result<&'a Column> {
    let column = table.expect(name, at)?;
    if !column.native {
        return Err(UsherError::definition(format!("column \"{name}\" in {at} is of type {}", column.type_sql))
            .detail("It is compared inside writers' statements, which only types of PostgreSQL's own can be: numbers, text, uuid, times.")
            .hint("Name a column of such a type."));
    }
    Ok(column)
}

/// The definition on its tables, or why it does not fit. `relation`: the rule's table, once it is known. Runs with the owner's rights.
pub fn fit(installed: Installed, definition: Definition, relation: Option<Oid>) -> Result<Fitted> {
    let _nest = Nest::pinned_path();
    let table = match relation {
        None => catalog::table(&definition.table, "\"table\"")?,
        Some(oid) => tables::by_oid(oid)?.ok_or_else(|| {
            UsherError::state(format!("table {} is gone", definition.table))
                .hint("usher.drop_overlap_rule() ends the rule; usher.alter_overlap_rule() gives it another table.")
        })?,
    };
    lasting(&table, "\"table\"")?;
    organization(installed, &table, "\"table\"")?;
    readable(&table)?;
    if table.own_key().is_empty() {
        return Err(UsherError::definition(format!("{} has no primary key", table.name))
            .detail("A conflict names its rows by their keys.")
            .hint(format!("ALTER TABLE {} ADD PRIMARY KEY (…);", table.sql)));
    }
    for name in table.own_key() {
        plain(&table, name, "the primary key")?;
    }
    for name in &definition.resource {
        if name == "organization_id" {
            return Err(UsherError::definition("organization_id in \"resource\" is part of every rule anyway")
                .hint("Leave it out: rows of two organizations never overlap."));
        }
        plain(&table, name, "\"resource\"")?;
    }
    let period = period(&definition, &table)?;
    if let Some(condition) = &definition.condition {
        self::condition(condition, &table, "\"where\"")?;
    }
    let free = definition.alternatives.clone().map(|given| free(installed, &definition, &table, given)).transpose()?;
    Ok(Fitted { definition, table, period, free })
}

fn lasting(table: &Table, at: &str) -> Result<()> {
    let kind =
        spi::read::<String>("SELECT relpersistence::text FROM pg_catalog.pg_class WHERE oid = $1", &[spi::arg(table.oid)])?;
    if kind.as_deref() == Some("t") {
        return Err(UsherError::definition(format!("{} in {at} is a temporary table", table.name)).hint("Name one that lasts."));
    }
    Ok(())
}

/// Overlaps are only within one organization, so its column is needed as soon as there are several.
fn organization(installed: Installed, table: &Table, at: &str) -> Result<()> {
    if table.has_organization() {
        return Ok(());
    }
    let others = spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.organizations AS o WHERE o.id <> $1)",
        &[spi::arg(installed.default_organization)],
    )?;
    if others == Some(true) {
        return Err(UsherError::definition(format!("{} in {at} has no column organization_id", table.name))
            .detail("There are several organizations, and rows of two of them never meet.")
            .hint(format!("ALTER TABLE {} ADD COLUMN organization_id uuid; and fill it.", table.sql)));
    }
    Ok(())
}

/// What the owner of pg_usher's tables does not see, no rule would find.
fn readable(table: &Table) -> Result<()> {
    let rights = spi::read_all(
        "SELECT pg_catalog.has_table_privilege($1, 'SELECT'), pg_catalog.row_security_active($1), CURRENT_USER::text",
        &[spi::arg(table.oid)],
        |row| {
            Ok((row.get::<bool>(1)? == Some(true), row.get::<bool>(2)? == Some(true), row.get::<String>(3)?.unwrap_or_default()))
        },
    )?;
    match rights.into_iter().next() {
        Some((false, _, owner)) => {
            Err(UsherError::forbidden(format!("{owner}, the owner of pg_usher's tables, may not read {}", table.name))
                .hint(format!("GRANT SELECT ON {} TO {owner};", table.sql)))
        }
        Some((true, true, owner)) => Err(UsherError::forbidden(format!(
            "policies of {} hide rows from {owner}, the owner of pg_usher's tables",
            table.name
        ))
        .hint(format!("ALTER ROLE {owner} BYPASSRLS; or make it the table's owner."))),
        _ => Ok(()),
    }
}

fn period(definition: &Definition, table: &Table) -> Result<Held> {
    match &definition.period {
        Period::Range(name) => {
            let column = table.expect(name, "\"period\"")?;
            if !is_range(column) {
                let hint = if range_of(column).is_some() {
                    format!("Name the column with the end too: \"period\": [\"{name}\", …].")
                } else {
                    "Name a column of a range type such as tstzrange, or two columns.".to_owned()
                };
                return Err(UsherError::definition(format!(
                    "column \"{name}\" in \"period\" is of type {}, which is no range",
                    column.type_sql
                ))
                .hint(hint));
            }
            Ok(Held::Range(name.clone()))
        }
        Period::Between(from, to) => {
            let (first, last) = (table.expect(from, "\"period\"")?, table.expect(to, "\"period\"")?);
            match range_of(first).filter(|_| first.type_oid == last.type_oid) {
                Some(range) => Ok(Held::Between(from.clone(), to.clone(), range)),
                None => Err(UsherError::definition(format!(
                    "columns \"{from}\" ({}) and \"{to}\" ({}) in \"period\" make no range",
                    first.type_sql, last.type_sql
                ))
                .hint("Both must be of one type: timestamptz, timestamp, date, integer, bigint or numeric.")),
            }
        }
    }
}

/// A condition over the row as `r`, made of what can neither fail nor run anybody's code.
fn condition(text: &str, table: &Table, at: &str) -> Result<()> {
    let told = |error: UsherError| error.detail(format!("The expression is: {text}"));
    let nodes = subxact::rehearse(|| expr::parse(text)).map_err(|failure| {
        let hint =
            failure.hint.clone().unwrap_or_else(|| "Write one SQL expression, such as r.status <> 'cancelled'.".to_owned());
        told(UsherError::new(failure.code, format!("{at}: {}", failure.message)).hint(hint))
    })?;
    let shape = shape::read_over(&nodes, &["r"]);
    if let Some(shape) = &shape {
        for used in &shape.columns {
            if used.alias != "r" {
                let hint = format!("Columns are those of the row: r.{}.", used.column.as_deref().unwrap_or(&used.alias));
                return Err(told(UsherError::definition(format!("{at}: there is no row \"{}\"", used.alias)).hint(hint)));
            }
            if let Some(name) = &used.column {
                plain(table, name, at).map_err(|error| if error.detail.is_none() { told(error) } else { error })?;
            }
        }
    }
    if !shape.is_some_and(|shape| compile::safe_in_writer(&shape, table)) {
        return Err(told(UsherError::definition(format!("{at}: this expression could fail or run somebody's code in a writer's statement"))
            .hint("Use columns of the row r, constants, =, <>, <, >, IN, BETWEEN, IS NULL, AND, OR and NOT; columns that are compared with each other are of one type. For more add a generated column.")));
    }
    let tried = format!("SELECT 1 FROM {} AS r WHERE ({text}\n)", table.sql);
    subxact::rehearse(|| spi::plans(&tried, &[])).map_err(|failure| {
        let hint = failure.hint.clone().unwrap_or_else(|| "It must be true or false for each row r.".to_owned());
        told(UsherError::new(failure.code, format!("{at}: {}", failure.message)).hint(hint))
    })
}

fn free(installed: Installed, definition: &Definition, bookings: &Table, given: Alternatives) -> Result<Free> {
    let at = "\"alternatives\"";
    let table = catalog::table(&given.table, at)?;
    lasting(&table, at)?;
    organization(installed, &table, at)?;
    readable(&table)?;
    let [resource] = definition.resource.as_slice() else {
        return Err(UsherError::definition("\"alternatives\" needs a resource of one column")
            .hint("Leave \"alternatives\" out, or name one column in \"resource\"."));
    };
    let (key, taken) = (plain(&table, &given.key, "\"key\" of \"alternatives\"")?, plain(bookings, resource, "\"resource\"")?);
    if key.type_oid != taken.type_oid {
        return Err(UsherError::definition(format!(
            "\"key\" of {at} is of type {}, the resource \"{resource}\" of type {}",
            key.type_sql, taken.type_sql
        ))
        .hint("Name the column that the resource refers to."));
    }
    for name in &given.same {
        plain(&table, name, "\"same\" of \"alternatives\"")?;
    }
    if let Some(text) = &given.condition {
        condition(text, &table, "\"where\" of \"alternatives\"")?;
    }
    Ok(Free { table, given })
}

/// The index that would help to find overlaps with a row, if there is none.
pub fn missing_index(fitted: &Fitted) -> Result<Option<String>> {
    let mut first: Vec<&str> = fitted.definition.resource.iter().map(String::as_str).collect();
    if fitted.table.has_organization() {
        first.push("organization_id");
    }
    // In whatever order: each of them is compared with one value.
    let found = spi::read::<bool>(
        "SELECT EXISTS (
            SELECT FROM pg_catalog.pg_index AS i
              JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
              JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
             WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND m.amname IN ('btree', 'gist')
               AND (SELECT pg_catalog.bool_or(a.attname = ANY ($2))
                      FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
                      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                     WHERE k.n = 1)
               AND $3 <= (SELECT pg_catalog.count(*)
                            FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
                            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                           WHERE a.attname = ANY ($4) AND k.n <= $5))",
        &[
            spi::arg(fitted.table.oid),
            spi::arg(first.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
            spi::arg(fitted.definition.resource.len() as i64),
            spi::arg(fitted.definition.resource.clone()),
            spi::arg(first.len() as i64),
        ],
    )?;
    if found == Some(true) {
        return Ok(None);
    }
    let mut columns: Vec<String> = Vec::new();
    if fitted.table.has_organization() {
        columns.push("organization_id".to_owned());
    }
    columns.extend(fitted.definition.resource.iter().map(pgrx::spi::quote_identifier));
    if let Held::Between(from, ..) = &fitted.period {
        columns.push(pgrx::spi::quote_identifier(from));
    }
    Ok(Some(format!("CREATE INDEX ON {} ({});", fitted.table.sql, columns.join(", "))))
}
