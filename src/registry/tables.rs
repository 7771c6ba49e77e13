//! What the catalog says about tables, for whoever writes statements about them.

use crate::error::{Result, UsherError, did_you_mean};
use crate::pg::spi;
use pgrx::PgRelation;
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
    /// The values of the type have names, and somebody may give one another name.
    pub is_enum: bool,
}

impl Column {
    pub fn is_uuid(&self) -> bool {
        self.type_oid == pg_sys::UUIDOID
    }

    pub fn is_jsonb(&self) -> bool {
        self.type_oid == pg_sys::JSONBOID
    }

    /// The column of `alias` as a value for `jsonb_build_object`. Not `::text`: the table's owner may have made a cast of
    /// that name, and whoever stores a row runs with other rights.
    pub fn json_sql(&self, alias: &str) -> String {
        let value = format!("{alias}.{}", quote_identifier(&self.name));
        if self.native {
            return value;
        }
        format!("CASE WHEN pg_catalog.num_nulls({value}) = 0 THEN pg_catalog.concat({value}) END")
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

    /// The columns of the key as people name a row: the organization is said apart, unless it is all there is.
    pub fn own_key(&self) -> Vec<&str> {
        let own = self.key.iter().map(String::as_str);
        own.filter(|name| self.key.len() == 1 || *name != "organization_id").collect()
    }

    /// The column, or a refusal that names the nearest one.
    pub fn expect(&self, name: &str, at: &str) -> Result<&Column> {
        self.column(name).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            let near = did_you_mean(name, &names);
            UsherError::new(
                pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{name}\" in {at} does not exist in {}", self.name),
            )
            .hint(if near.is_empty() {
                format!("It has: {}.", names.join(", "))
            } else {
                near.trim_end().to_owned()
            })
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

/// Splits `schema.name`; both parts are needed, quotes are allowed. As PostgreSQL reads it: a doubled quote inside quotes is one
/// of the name, and outside of them only ASCII is made lower case.
pub fn split(name: &str) -> Option<(String, String)> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.next_if_eq(&'"').is_some() => parts.last_mut()?.push('"'),
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if quoted => parts.last_mut()?.push(c),
            c => parts.last_mut()?.push(c.to_ascii_lowercase()),
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) if !quoted && !schema.is_empty() && !name.is_empty() => Some((schema, name)),
        _ => None,
    }
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
                pg_catalog.format_type(t.oid, -1) AS base_sql, t.typname IN ('json', 'xml', 'point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle') AS compare_as_text, t.typtype = 'e' AS is_enum
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
                is_enum: row.get::<bool>(9)?.unwrap_or(false),
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

/// A table of the application, by number and name.
pub struct Named {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
}

/// The table that is meant, if it can be `done` ("audited") at all.
pub fn of_application(relation: Option<PgRelation>, example: &str, done: &str) -> Result<Named> {
    let relation = relation.ok_or_else(|| UsherError::invalid("the table is missing").hint(example))?;
    let (oid, schema, name) = (relation.oid(), relation.namespace().to_owned(), relation.name().to_owned());
    drop(relation);
    let (kind, lasting) = spi::read_all(
        "SELECT relkind::text, relpersistence::text FROM pg_catalog.pg_class WHERE oid = $1",
        &[spi::arg(oid)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?
    .into_iter()
    .next()
    .unwrap_or_default();
    if schema == "usher" {
        return Err(UsherError::invalid(format!("{schema}.{name} belongs to pg_usher, which sees to its own tables by itself"))
            .hint("Name a table of your application."));
    }
    if !matches!(kind.as_str(), "r" | "p") || lasting == "t" {
        // A session's own schema has a number that nobody knows.
        let schema = if lasting == "t" { "pg_temp" } else { &schema };
        return Err(UsherError::invalid(format!("{schema}.{name} is not an ordinary table"))
            .hint(format!("Ordinary and partitioned tables can be {done}; views, foreign and temporary tables cannot.")));
    }
    Ok(Named { oid, schema, name })
}

#[cfg(test)]
mod unit {
    use super::split;

    #[test]
    fn a_name_needs_its_schema() {
        assert_eq!(split("public.orders"), Some(("public".into(), "orders".into())));
        assert_eq!(split("Public.Orders"), Some(("public".into(), "orders".into())));
        assert_eq!(split("shop.\"Order Lines\""), Some(("shop".into(), "Order Lines".into())));
        assert_eq!(split("shop.\"12\"\" records\""), Some(("shop".into(), "12\" records".into())));
        assert_eq!(split("Büro.Äpfel"), Some(("büro".into(), "Äpfel".into())));
        for bad in ["orders", "a.b.c", ".x", "x.", "\"a.b", ""] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
