//! What the catalog says about the tables and functions that flows name.

use crate::error::{Result, UsherError};
use crate::pg::spi;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

pub use crate::registry::tables::{Column, Table, by_oid, read, row_key, split};

/// Where a definition names its source.
const SOURCE: &str = "\"when\"";

/// What flows may listen to in our own schema; they write none of it. Who belongs where, so that what people may do in an application ends
/// with their membership; notices, so that they reach people where those read everything else.
const OWN_SOURCES: [&str; 3] = ["memberships", "notices", "ticket_revenue_ingestions"];

/// Reads a table that a definition names, or says why it cannot be used.
pub fn table(name: &str, at: &str) -> Result<Table> {
    let (schema, relation) = split(name).ok_or_else(|| {
        UsherError::definition(format!("\"{name}\" in {at} is not a qualified table name"))
            .hint("Write schema.table, such as public.orders.")
    })?;
    let found = spi::read_all(
        "SELECT c.oid, c.relkind::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1 AND c.relname = $2",
        &[spi::arg(schema.as_str()), spi::arg(relation.as_str())],
        |row| Ok((row.get::<Oid>(1)?, row.get::<String>(2)?)),
    )?;
    let Some((Some(oid), Some(kind))) = found.into_iter().next() else {
        let near: Vec<String> = spi::read_all(
            "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'usher') LIMIT 5000",
            &[],
            |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
        )?;
        let names: Vec<&str> = near.iter().map(String::as_str).collect();
        let hint = match crate::error::nearest(name, &names) {
            Some(near) => format!("Did you mean {near}? Or create the table first."),
            None => "Create the table first.".to_owned(),
        };
        return Err(UsherError::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("table {name} in {at} does not exist"),
        )
        .hint(hint));
    };
    if !matches!(kind.as_str(), "r" | "p") {
        return Err(UsherError::definition(format!("{name} in {at} is not a table"))
            .hint("Flows read and write ordinary and partitioned tables."));
    }
    if schema == "usher" && !(at == SOURCE && OWN_SOURCES.contains(&relation.as_str())) {
        return Err(UsherError::definition(format!("{name} in {at} belongs to pg_usher itself"))
            .hint("Use the functions of schema usher, such as usher.enqueue_sync_job()."));
    }
    let table = read(oid, &schema, &relation)?;
    if table.column("organization_id").is_some_and(|column| !column.is_uuid()) {
        return Err(UsherError::definition(format!("organization_id of {name} in {at} is not a uuid"))
            .detail("Flows keep to their organization by this column; with another type they could not.")
            .hint("ALTER TABLE … ALTER COLUMN organization_id TYPE uuid, or give the column another name."));
    }
    Ok(table)
}

/// A function's parameters by name, for a call by name: `(names, number of parameters, takes one jsonb)`.
pub struct Function {
    pub sql: String,
    pub names: Vec<String>,
    pub takes_payload: bool,
    /// A payload, then `job_id uuid`.
    pub takes_payload_and_job: bool,
    pub takes_nothing: bool,
    pub returns_nothing: bool,
    pub returns_set: bool,
}

pub fn function(name: &str) -> Result<Function> {
    let (schema, function) = split(name).ok_or_else(|| {
        UsherError::definition(format!("\"{name}\" in \"call\" is not a qualified function name"))
            .hint("Write schema.function, without arguments; \"set\" gives the arguments by name.")
    })?;
    let found = spi::read_all(
        "SELECT COALESCE(p.proargnames, '{}')::text[], p.pronargs = 1 AND p.proargtypes[0] = 'pg_catalog.jsonb'::regtype, p.pronargs = 0,
                p.pronargs = 2 AND p.proargtypes[0] = 'pg_catalog.jsonb'::regtype AND p.proargtypes[1] = 'pg_catalog.uuid'::regtype AND p.proargnames[2] = 'job_id',
                p.prorettype = 'pg_catalog.void'::regtype, p.proretset
           FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname = $1 AND p.proname = $2 AND p.prokind = 'f'",
        &[spi::arg(schema.as_str()), spi::arg(function.as_str())],
        |row| {
            Ok(Function {
                sql: format!("{}.{}", quote_identifier(&schema), quote_identifier(&function)),
                names: row.get::<Vec<String>>(1)?.unwrap_or_default(),
                takes_payload: row.get::<bool>(2)?.unwrap_or(false),
                takes_nothing: row.get::<bool>(3)?.unwrap_or(false),
                takes_payload_and_job: row.get::<bool>(4)?.unwrap_or(false),
                returns_nothing: row.get::<bool>(5)?.unwrap_or(false),
                returns_set: row.get::<bool>(6)?.unwrap_or(false),
            })
        },
    )?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(UsherError::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!("function {name} in \"call\" does not exist"),
        )
        .hint("Create the function first, and name it with its schema.")),
        _ => Err(UsherError::new(
            pgrx::PgSqlErrorCode::ERRCODE_AMBIGUOUS_FUNCTION,
            format!("there is more than one function {name}"),
        )
        .hint("Give the one to call a name of its own.")),
    }
}
