//! Looking at everything in parts, in the order of a key.
//!
//! Where the rule's key, or its beginning, is just columns of a table with a unique index on them, the rows of that table say where a part
//! ends: the query is asked for the keys of so many rows at a time, and how long that takes is known beforehand. Any other query
//! is asked as a whole.

use super::fit::Column;
use crate::error::Result;
use crate::pg::spi;
use crate::registry::tables::{self, Table};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

pub struct Part {
    /// Of the table.
    pub table: String,
    /// Of the query.
    pub query: String,
    pub type_sql: String,
}

pub struct Slices {
    pub table: Table,
    pub columns: Vec<Part>,
    /// Whose rows of the table are whose: its column. None: nobody knows.
    pub organization: Option<String>,
}

/// Unique indexes of tables: the table, whether it is the primary key, and the numbers of its columns, none of which may be NULL.
const INDEXES: &str = "
SELECT i.indrelid, i.indkey::int2[]
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
 WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND m.amname = 'btree'
   AND i.indnatts = i.indnkeyatts
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]) AND NOT a.attnotnull)
   -- Neither backwards nor by somebody's own order.
   AND NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indoption::int2[]) AS o (flags) WHERE o.flags & 1 = 1)
 ORDER BY NOT i.indisprimary, i.indnkeyatts DESC, i.indexrelid";

/// How the query of a rule can be asked in parts. `sliceable`: its rows do not depend on each other.
pub fn of(key: &[Column], organization: Option<&Column>, sliceable: bool) -> Result<Option<Slices>> {
    if !sliceable {
        return Ok(None);
    }
    let mut columns: Vec<&Column> = key.iter().collect();
    columns.extend(organization.filter(|one| !key.iter().any(|column| column.name == one.name)));
    let mut origins: Vec<Oid> = columns.iter().filter_map(|column| column.origin).map(|(table, _)| table).collect();
    origins.sort_unstable_by_key(|table| table.to_u32());
    origins.dedup();
    let indexes = spi::read_all(INDEXES, &[spi::arg(origins)], |row| {
        Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), row.get::<Vec<i16>>(2)?.unwrap_or_default()))
    })?;
    for (oid, numbers) in indexes {
        let given: Option<Vec<&Column>> =
            numbers.iter().map(|number| columns.iter().copied().find(|column| column.origin == Some((oid, *number)))).collect();
        let (Some(given), Some(table)) = (given, tables::by_oid(oid)?) else { continue };
        let name_of = |number: i16| -> Result<Option<String>> {
            spi::read::<String>(
                "SELECT a.attname::text FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum = $2",
                &[spi::arg(oid), spi::arg(number)],
            )
        };
        let mut parts = Vec::new();
        for (column, number) in given.iter().zip(&numbers) {
            let Some(name) = name_of(*number)?.filter(|name| table.column(name).is_some_and(|column| column.native)) else {
                break;
            };
            parts.push(Part { table: name, query: column.name.clone(), type_sql: column.type_sql.clone() });
        }
        if parts.len() < numbers.len() {
            continue;
        }
        let organization = match organization.and_then(|column| column.origin) {
            Some((of, number)) if of == oid => name_of(number)?,
            _ => None,
        };
        return Ok(Some(Slices { table, columns: parts, organization }));
    }
    Ok(None)
}

impl Slices {
    fn row(&self, make: impl Fn(usize, &Part) -> String) -> String {
        let values: Vec<String> = self.columns.iter().enumerate().map(|(n, part)| make(n, part)).collect();
        format!("ROW({})", values.join(", "))
    }

    fn stored(&self, parameter: &str) -> String {
        self.row(|n, part| format!("({parameter}::jsonb ->> {n})::{}", part.type_sql))
    }

    /// What the next `$2` rows behind `$1` are: the last key, how many, and how many of each organization. `default`: whose they are
    /// if the rule knows no organizations.
    pub fn next(&self, behind: bool, default: Option<&str>) -> String {
        let order = |direction: &str, alias: &str| {
            let list: Vec<String> = (0..self.columns.len()).map(|n| format!("{alias}.s{n}{direction}")).collect();
            list.join(", ")
        };
        let values: Vec<String> =
            self.columns.iter().enumerate().map(|(n, part)| format!("r.{} AS s{n}", quote_identifier(&part.table))).collect();
        let organization = match (&self.organization, default) {
            (Some(name), _) => format!("r.{}", quote_identifier(name)),
            (None, Some(id)) => format!("'{id}'::uuid"),
            (None, None) => "NULL::uuid".to_owned(),
        };
        let which = if behind {
            format!(" WHERE {} > {}", self.row(|_, part| format!("r.{}", quote_identifier(&part.table))), self.stored("$1"))
        } else {
            String::new()
        };
        let by: Vec<String> = self.columns.iter().map(|part| format!("r.{}", quote_identifier(&part.table))).collect();
        format!(
            "WITH p AS MATERIALIZED (SELECT {}, {organization} AS org FROM {} AS r{which} ORDER BY {} LIMIT $2::integer),
                  o AS MATERIALIZED (SELECT p.org, pg_catalog.count(*) AS n FROM p WHERE p.org IS NOT NULL GROUP BY p.org)
             SELECT (SELECT pg_catalog.jsonb_build_array({}) FROM p ORDER BY {} LIMIT 1), (SELECT pg_catalog.count(*) FROM p),
                    (SELECT pg_catalog.array_agg(o.org) FROM o), (SELECT pg_catalog.array_agg(o.n) FROM o)",
            values.join(", "),
            self.table.sql,
            by.join(", "),
            order("", "p"),
            order(" DESC", "p"),
        )
    }

    /// The rows of the query behind `$1` and up to `$2`.
    pub fn between(&self, behind: bool, up_to: bool) -> String {
        let key = self.row(|_, part| format!("q.{}", quote_identifier(&part.query)));
        let mut which = Vec::new();
        if behind {
            which.push(format!("{key} > {}", self.stored("$1")));
        }
        if up_to {
            which.push(format!("{key} <= {}", self.stored("$2")));
        }
        if which.is_empty() { "true".to_owned() } else { which.join(" AND ") }
    }

    /// The rows of the query that are in no part.
    pub fn beside(&self) -> String {
        let none: Vec<String> = self.columns.iter().map(|part| format!("q.{} IS NULL", quote_identifier(&part.query))).collect();
        none.join(" OR ")
    }

    /// SQL for the part's key of a violation `v`, from its row.
    pub fn of_violation(&self) -> Vec<String> {
        self.columns.iter().map(|part| part.query.clone()).collect()
    }
}
