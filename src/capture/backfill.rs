//! Rows that are in a flow's table already, as if they were inserted now: read in slices by primary key.
//!
//! A slice locks its rows against changes until its transaction ends, takes their newest image and draws their positions
//! under that lock, as a writer does: a change that came before has a lower position, one that comes after a higher one.
//! So a later change is never overwritten by the older image.
//!
//! The slice is read with the rights of the table's owner, as capture sees every row; only what cannot run anybody's code is
//! evaluated there. Any other condition is evaluated over the images, with the rights of the flow.

use super::statement::{FRESH, image, nothing, parts};
use crate::error::{Result, UsherError};
use crate::flow::catalog::{self, Table, row_key};
use crate::flow::compile;
use crate::flow::definition::{Change, When};
use crate::flow::store::Flow;
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Raw};
use crate::pg::{expr, role, subxact};
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, quote_identifier, quote_literal};
use std::rc::Rc;

/// A flow's table, as a backfill reads it.
pub struct Source {
    flow: Rc<Flow>,
    table: Table,
    owner: Oid,
    default_organization: String,
    condition: Option<String>,
}

/// Rows of a slice as jobs: organizations, row keys and images; how many; the key of the last row that was looked at.
pub struct Slice {
    pub jobs: Option<(Raw, Raw, Raw)>,
    pub size: i32,
    pub looked_at: i64,
    /// None: the end.
    pub position: Option<Vec<String>>,
}

impl Source {
    /// The table of a flow. Errors: 55000 when it cannot be gone through.
    pub fn of(installed: Installed, flow: Rc<Flow>, condition: Option<&str>) -> Result<Self> {
        let When::Change { table, on } = &flow.definition.when else {
            return Err(UsherError::state(format!("flow \"{}\" listens to no table", flow.name))
                .hint("A backfill is for flows with \"when\": {\"change\": …}; usher.replay() runs finished jobs again."));
        };
        if on.iter().all(|change| *change == Change::Delete) {
            return Err(UsherError::state(format!("flow \"{}\" acts on deleted rows only", flow.name))
                .hint("Rows that are there have not been deleted; nothing can be done for them."));
        }
        let table = catalog::table(table, "\"when\"")?;
        if table.key.is_empty() {
            return Err(UsherError::state(format!("{} has no primary key", table.name))
                .detail("A backfill goes through the table by its primary key.")
                .hint(format!("ALTER TABLE {} ADD PRIMARY KEY (…); then call usher.backfill() again.", table.name)));
        }
        let owner = spi::read::<Oid>("SELECT relowner FROM pg_catalog.pg_class WHERE oid = $1", &[spi::arg(table.oid)])?
            .ok_or_else(|| UsherError::internal("a table has no owner"))?;
        let hidden = {
            let _acting = role::internal(owner);
            spi::read::<bool>("SELECT pg_catalog.row_security_active($1::oid)", &[spi::arg(table.oid)])?
        };
        if hidden == Some(true) {
            return Err(UsherError::state(format!("row level security is forced upon the owner of {}", table.name))
                .detail("A backfill would leave out the rows that its owner may not see.")
                .hint(format!("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY; while it runs.", table.name)));
        }
        let default_organization = installed.default_organization.to_string();
        Ok(Self { flow, table, owner, default_organization, condition: condition.map(str::to_owned) })
    }

    /// Refuses a condition that is no expression over `new`, or that the flow's role could not evaluate.
    pub fn check_condition(&self) -> Result<()> {
        let Some(text) = &self.condition else { return Ok(()) };
        let wrong = |failure: subxact::Failure| {
            UsherError::new(failure.code, format!("where: {}", failure.message))
                .detail(format!("The expression is: {text}"))
                .hint(
                    failure
                        .hint
                        .unwrap_or_else(|| "Columns are new.x; functions outside pg_catalog need their schema.".to_owned()),
                )
        };
        let nodes = subxact::rehearse(|| expr::parse(text)).map_err(wrong)?;
        let shape = compile::shape_of(&nodes)
            .ok_or_else(|| UsherError::definition("where: this form of expression is not understood"))?;
        if shape.has_subquery {
            return Err(UsherError::definition("where: a query inside an expression is not allowed")
                .detail("It could read rows of another organization.")
                .hint("Compare columns of new, or call a function that does it."));
        }
        if let Some(other) = shape.columns.iter().find(|column| column.alias != "new") {
            return Err(UsherError::definition(format!("where: \"{}\" is not there", other.alias))
                .hint("Columns are new.x: a row as it is in the table."));
        }
        for name in shape.columns.iter().filter_map(|column| column.column.as_deref()) {
            self.table.expect(name, "where")?;
        }
        let filter = self.filter(&shape.columns);
        subxact::rehearse(|| {
            let _acting = role::internal(self.flow.run_as);
            spi::explain(&filter, FILTER_TYPES)
        })
        .map_err(wrong)
    }

    fn key(&self) -> Vec<String> {
        self.table.key.iter().map(|name| format!("new.{}", quote_identifier(name))).collect()
    }

    /// `ROW(key) > ROW($1…)`, a position as an array of texts.
    fn beyond(&self, sign: &str, parameter: &str) -> String {
        let given: Vec<String> = (1..)
            .zip(&self.table.key)
            .map(|(n, name)| {
                let kind = self.table.column(name).map_or("text", |column| column.type_sql.as_str());
                format!("({parameter}::text[])[{n}]::{kind}")
            })
            .collect();
        format!("ROW({}) {sign} ROW({})", self.key().join(", "), given.join(", "))
    }

    fn key_text(&self) -> String {
        let parts: Vec<String> = self.key().iter().map(|key| format!("pg_catalog.concat({key})")).collect();
        format!("ARRAY[{}]::text[]", parts.join(", "))
    }

    /// The last key that is there now. None: the table is empty.
    pub fn last_key(&self) -> Result<Option<Vec<String>>> {
        let backwards: Vec<String> = self.key().iter().map(|key| format!("{key} DESC")).collect();
        let sql = format!("SELECT {} FROM {} AS new ORDER BY {} LIMIT 1", self.key_text(), self.table.sql, backwards.join(", "));
        let _formats = Nest::open().pinned_formats();
        let _acting = role::internal(self.owner);
        spi::read::<Vec<String>>(&sql, &[])
    }

    /// How many rows there are, and whether that was counted: small tables are.
    pub fn total(&self) -> Result<(i64, bool)> {
        let (rows, pages) = spi::read_all(
            "SELECT COALESCE(pg_catalog.sum(GREATEST(c.reltuples, 0)), 0)::bigint, COALESCE(pg_catalog.sum(pg_catalog.pg_relation_size(c.oid) / 8192), 0)::bigint
               FROM pg_catalog.pg_class c
              WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree($1::oid) AS t))",
            &[spi::arg(self.table.oid)],
            |row| Ok((row.get::<i64>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0))),
        )?
        .into_iter()
        .next()
        .unwrap_or_default();
        if pages > COUNTED_PAGES && rows > 0 {
            return Ok((rows, false));
        }
        let _acting = role::internal(self.owner);
        let rows = spi::read::<i64>(&format!("SELECT pg_catalog.count(*) FROM {} AS new", self.table.sql), &[])?;
        Ok((rows.unwrap_or(0), true))
    }

    /// The rows after a key, up to `size` of them and not beyond `end`. Holds their locks.
    pub fn slice(&self, client: &mut SpiClient<'_>, after: Option<&[String]>, end: &[String], size: i32) -> Result<Slice> {
        let _settings = Nest::open().pinned_formats().index_scans().lock_timeout(PATIENCE);
        let acting = role::internal(self.owner);
        let from = after.map_or("true".to_owned(), |_| self.beyond(">", "$1"));
        let order = self.key().join(", ");
        let bound = format!(
            "SELECT {} FROM {} AS new WHERE {from} AND {} AND $1::text[] IS NOT DISTINCT FROM $1 ORDER BY {order} OFFSET $3 LIMIT 1",
            self.key_text(),
            self.table.sql,
            self.beyond("<=", "$2"),
        );
        let position = spi::query(
            client,
            &bound,
            &[spi::arg(after.map(<[String]>::to_vec)), spi::arg(end.to_vec()), spi::arg(i64::from(size) - 1)],
        )?;
        let position = if position.is_empty() { None } else { position.first().get::<Vec<String>>(1)? };
        let upto = position.clone().unwrap_or_else(|| end.to_vec());
        let (sql, filter) = self.rows(&from);
        let table = spi::query(client, &sql, &[spi::arg(after.map(<[String]>::to_vec)), spi::arg(upto)])?.first();
        drop(acting);
        let mut found = (Raw::read(&table, 1)?, Raw::read(&table, 2)?, Raw::read(&table, 3)?);
        let mut rows = table.get::<i32>(4)?.unwrap_or(0);
        let looked_at = if position.is_some() { i64::from(size) } else { i64::from(rows) };
        if let (Some((filter, extra)), true) = (filter, rows > 0) {
            let _fence = Nest::fence().lock_timeout(self.flow.definition.lock_timeout);
            let _acting = role::act_as(self.flow.run_as);
            let arguments = [found.0.arg(), found.1.arg(), found.2.arg(), spi::arg(extra)];
            let table = spi::query(client, &filter, &arguments)?.first();
            found = (Raw::read(&table, 1)?, Raw::read(&table, 2)?, Raw::read(&table, 3)?);
            rows = table.get::<i32>(4)?.unwrap_or(0);
        }
        Ok(Slice { jobs: (rows > 0).then_some(found), size: rows, looked_at, position })
    }

    /// The statement that locks and reads a slice, and one for a condition that must be asked apart, with the columns that
    /// only it needs.
    fn rows(&self, from: &str) -> (String, Option<(String, Vec<String>)>) {
        let (flow, table) = (&self.flow, &self.table);
        let parts = parts(flow, table, Change::Insert, &self.default_organization, FRESH);
        let mut conditions = vec![from.to_owned(), self.beyond("<=", "$2"), parts.condition.clone()];
        let mut images = parts.new.clone();
        let mut filter = None;
        if let Some(text) = &self.condition {
            if compile::text_is_safe(text, table) {
                conditions.push(format!("({text}\n)"));
            } else {
                let columns = subxact::rehearse(|| expr::parse(text))
                    .ok()
                    .and_then(|nodes| compile::shape_of(&nodes))
                    .map(|shape| shape.columns)
                    .unwrap_or_default();
                let named: Vec<String> = self.names(&columns);
                let extra: Vec<String> = named.iter().filter(|name| !flow.compiled.new.contains(name)).cloned().collect();
                if !extra.is_empty() {
                    images = format!("{images} || {}", image("new", table, &extra));
                }
                filter = Some((self.filter(&columns), extra));
            }
        }
        let sql = format!(
            "SELECT pg_catalog.array_agg(x.organization_id), pg_catalog.array_agg(x.row_key), pg_catalog.array_agg(x.image), pg_catalog.count(*)::integer
               FROM (SELECT COALESCE({}, {}::uuid) AS organization_id, {} AS row_key, {images} AS image
                       FROM {} AS new CROSS JOIN {}
                      WHERE {} AND $1::text[] IS NOT DISTINCT FROM $1
                      ORDER BY {} FOR SHARE OF new) AS x",
            parts.organization,
            quote_literal(super::statement::NO_ORGANIZATION),
            row_key(&table.key, "new"),
            table.sql,
            nothing("old", table, flow.compiled.old.iter()),
            conditions.join(" AND "),
            self.key().join(", "),
        );
        (sql, filter)
    }

    /// The columns of the table that an expression names.
    fn names(&self, columns: &[compile::Used]) -> Vec<String> {
        let whole = columns.iter().any(|column| column.column.is_none());
        let named = |name: &String| whole || columns.iter().any(|column| column.column.as_ref() == Some(name));
        self.table.columns.iter().map(|column| column.name.clone()).filter(named).collect()
    }

    /// `$1` organizations, `$2` row keys, `$3` images, `$4` columns that go out again.
    fn filter(&self, columns: &[compile::Used]) -> String {
        format!(
            "SELECT pg_catalog.array_agg(b.organization_id ORDER BY b.n), pg_catalog.array_agg(b.row_key ORDER BY b.n),
                    pg_catalog.array_agg(b.new OPERATOR(pg_catalog.-) $4::text[] ORDER BY b.n), pg_catalog.count(*)::integer
               FROM unnest($1::uuid[], $2::bigint[], $3::jsonb[]) WITH ORDINALITY AS b (organization_id, row_key, new, n){}
              WHERE ({}\n)",
            compile::image("new", "b.new", &self.names(columns), Some(&self.table)),
            self.condition.as_deref().unwrap_or("true"),
        )
    }
}

/// Milliseconds to wait for a locked row. Short of `deadlock_timeout`: whoever waits for rows of the slice meanwhile is not
/// the one that is told of a deadlock.
const PATIENCE: i64 = 100;

/// 80 MB: counting those rows takes a moment.
const COUNTED_PAGES: i64 = 10_000;

const FILTER_TYPES: &[pg_sys::BuiltinOid] = &[
    pg_sys::BuiltinOid::UUIDARRAYOID,
    pg_sys::BuiltinOid::INT8ARRAYOID,
    pg_sys::BuiltinOid::JSONBARRAYOID,
    pg_sys::BuiltinOid::TEXTARRAYOID,
];
