//! What the catalog says about the tables that flows name.

use crate::error::{Result, UsherError};
use crate::pg::spi;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// As SQL writes it, schema-qualified where needed, with its modifier.
    pub type_sql: String,
    pub type_oid: Oid,
    pub collation: Oid,
    /// The type without its domains and modifier: a NULL of it runs nobody's checks.
    pub base_sql: String,
    /// A built-in scalar: kept in a job as a JSON value of its own kind. Anything else is kept as its type's output text,
    /// which no cast of the table's owner can bend: capture runs with the rights of the installation's owner.
    pub native: bool,
    /// The type has no equality of its own: compare its text.
    pub compare_as_text: bool,
    /// Written by PostgreSQL alone.
    pub generated: bool,
}

impl Column {
    pub fn is_uuid(&self) -> bool {
        self.type_oid == pg_sys::UUIDOID
    }
}

#[derive(Debug, Clone)]
pub struct Table {
    pub oid: Oid,
    /// Quoted and qualified, ready for a statement.
    pub sql: String,
    /// `schema.table` as people write it.
    pub name: String,
    pub columns: Vec<Column>,
    /// Columns of the primary key.
    pub key: Vec<String>,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn has_organization(&self) -> bool {
        self.column("organization_id").is_some_and(Column::is_uuid)
    }

    /// The column, or a refusal that names the nearest one.
    pub fn expect(&self, name: &str, at: &str) -> Result<&Column> {
        self.column(name).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            let near = super::definition::nearest(name, &names).unwrap_or_default();
            UsherError::new(
                pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{name}\" in {at} does not exist in {}", self.name),
            )
            .hint(format!("Did you mean \"{near}\"?"))
        })
    }
}

/// SQL for the hash that stands for a row of `alias` in jobs: of its primary key, as text.
pub fn row_key(key: &[String], alias: &str) -> String {
    if key.is_empty() {
        return "NULL::bigint".to_owned();
    }
    let columns: Vec<String> = key.iter().map(|name| format!("{alias}.{}", quote_identifier(name))).collect();
    format!("pg_catalog.hashtextextended(pg_catalog.concat_ws('|', {}), 0)", columns.join(", "))
}

/// Splits `schema.name`; both parts are needed, quotes are allowed.
pub fn split(name: &str) -> Option<(String, String)> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in name.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if quoted => parts.last_mut()?.push(c),
            c => parts.last_mut()?.extend(c.to_lowercase()),
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) if !quoted && !schema.is_empty() && !name.is_empty() => Some((schema, name)),
        _ => None,
    }
}

/// Where a definition names its source.
const SOURCE: &str = "\"when\"";

/// What flows may listen to in our own schema; they write none of it.
const OWN_SOURCES: [&str; 1] = ["ticket_revenue_ingestions"];

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
        let hint = match super::definition::nearest(name, &names) {
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

/// Reads a table by oid.
pub fn read(oid: Oid, schema: &str, relation: &str) -> Result<Table> {
    let columns = spi::read_all(
        "WITH RECURSIVE base AS (
             SELECT a.attnum, a.attname::text AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_sql, a.atttypid,
                    a.attcollation, a.attgenerated <> '' OR a.attidentity = 'a' AS generated, a.atttypid AS base
               FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
             UNION ALL
             SELECT b.attnum, b.name, b.type_sql, b.atttypid, b.attcollation, b.generated, t.typbasetype
               FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.base WHERE t.typtype = 'd')
         SELECT b.name, b.type_sql, b.atttypid, b.attcollation, b.generated,
                t.oid IN (16, 20, 21, 23, 700, 701, 1700, 25, 1043, 1042, 19, 2950, 1082, 1083, 1266, 1114, 1184) AS native,
                pg_catalog.format_type(t.oid, -1) AS base_sql, t.typname IN ('json', 'xml', 'point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle') AS compare_as_text
           FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.base
          WHERE t.typtype <> 'd' ORDER BY b.attnum",
        &[spi::arg(oid)],
        |row| {
            Ok(Column {
                name: row.get::<String>(1)?.unwrap_or_default(),
                type_sql: row.get::<String>(2)?.unwrap_or_default(),
                type_oid: row.get::<Oid>(3)?.unwrap_or(Oid::INVALID),
                collation: row.get::<Oid>(4)?.unwrap_or(Oid::INVALID),
                generated: row.get::<bool>(5)?.unwrap_or(false),
                native: row.get::<bool>(6)?.unwrap_or(false),
                base_sql: row.get::<String>(7)?.unwrap_or_default(),
                compare_as_text: row.get::<bool>(8)?.unwrap_or(false),
            })
        },
    )?;
    let key = spi::read_all(
        "SELECT a.attname::text FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
          WHERE i.indrelid = $1 AND i.indisprimary ORDER BY k.n",
        &[spi::arg(oid)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    Ok(Table { oid, sql: quote_qualified_identifier(schema, relation), name: format!("{schema}.{relation}"), columns, key })
}

/// The oid and names behind a relation's oid, for triggers that fire on a partition or were renamed.
pub fn by_oid(oid: Oid) -> Result<Option<Table>> {
    let named = spi::read_all(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[spi::arg(oid)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    named.into_iter().next().map(|(schema, relation)| read(oid, &schema, &relation)).transpose()
}

/// A function's parameters by name, for a call by name: `(names, number of parameters, takes one jsonb)`.
pub struct Function {
    pub sql: String,
    pub names: Vec<String>,
    pub takes_payload: bool,
    pub takes_nothing: bool,
}

pub fn function(name: &str) -> Result<Function> {
    let (schema, function) = split(name).ok_or_else(|| {
        UsherError::definition(format!("\"{name}\" in \"call\" is not a qualified function name"))
            .hint("Write schema.function, without arguments; \"set\" gives the arguments by name.")
    })?;
    let found = spi::read_all(
        "SELECT COALESCE(p.proargnames, '{}')::text[], p.pronargs = 1 AND p.proargtypes[0] = 'pg_catalog.jsonb'::regtype, p.pronargs = 0
           FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname = $1 AND p.proname = $2 AND p.prokind = 'f'",
        &[spi::arg(schema.as_str()), spi::arg(function.as_str())],
        |row| {
            Ok(Function {
                sql: format!("{}.{}", quote_identifier(&schema), quote_identifier(&function)),
                names: row.get::<Vec<String>>(1)?.unwrap_or_default(),
                takes_payload: row.get::<bool>(2)?.unwrap_or(false),
                takes_nothing: row.get::<bool>(3)?.unwrap_or(false),
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

#[cfg(test)]
mod unit {
    use super::split;

    #[test]
    fn a_name_needs_its_schema() {
        assert_eq!(split("public.orders"), Some(("public".into(), "orders".into())));
        assert_eq!(split("Public.Orders"), Some(("public".into(), "orders".into())));
        assert_eq!(split("shop.\"Order Lines\""), Some(("shop".into(), "Order Lines".into())));
        for bad in ["orders", "a.b.c", ".x", "x.", "\"a.b", ""] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
