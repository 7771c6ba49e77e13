//! The statements of the audit: from the changed rows of one statement to entries.
//!
//! `$1` actor, `$2` role, `$3` correlation id, `$4` flow. Where one statement of a flow has done several jobs also `$5` keys
//! of its target's rows and `$6` their jobs.

use crate::error::is_secret_name;
use crate::registry::tables::{Column, Table, row_key};
use pgrx::spi::{quote_identifier, quote_literal};
use pgrx::trigger_support::PgTriggerOperation as Op;

/// What is entered about the rows of a table.
pub struct Form<'a> {
    pub table: &'a Table,
    /// `schema.table` as the log names it.
    pub name: &'a str,
    pub columns: Vec<&'a Column>,
    /// Columns of which only that they changed is entered, see `protect`.
    pub masked: &'a [String],
}

const INSERT: &str =
    "INSERT INTO usher.audit_log (id, organization_id, recorded_at, actor, role, action, object, old, new, correlation_id, flow)
SELECT usher.uuid_v7(), x.organization_id, pg_catalog.clock_timestamp(), $1, $2";

/// Stored as they are; every other type is stored as its output text.
fn value(column: &Column, alias: &str, masked: &[String]) -> String {
    let plain = format!("{alias}.{}", quote_identifier(&column.name));
    if is_secret_name(&column.name) || masked.contains(&column.name) {
        return format!("CASE WHEN pg_catalog.num_nulls({plain}) = 0 THEN '***' END");
    }
    if column.is_jsonb() { plain } else { column.json_sql(alias) }
}

impl Form<'_> {
    fn image(&self, alias: &str) -> String {
        let fields: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{}, {}", quote_literal(&column.name), value(column, alias, self.masked)))
            .collect();
        // A function takes at most 100 arguments: wide rows are put together from parts.
        let parts: Vec<String> =
            fields.chunks(45).map(|chunk| format!("pg_catalog.jsonb_build_object({})", chunk.join(", "))).collect();
        if parts.is_empty() { "'{}'::jsonb".to_owned() } else { parts.join(" || ") }
    }

    fn organization(&self, alias: &str) -> String {
        if self.name == "usher.organizations" {
            return format!("{alias}.id");
        }
        if self.table.has_organization() { format!("{alias}.organization_id") } else { "NULL::uuid".to_owned() }
    }

    /// The key of a row as people know it; the organization has a column of its own.
    fn object(&self, alias: &str) -> String {
        let key = match self.name {
            "usher.organizations" => vec!["slug"],
            "usher.flows" => vec!["name"],
            _ => self.table.own_key(),
        };
        if key.is_empty() {
            return "NULL::text".to_owned();
        }
        let columns: Vec<String> = key.iter().map(|name| format!("{alias}.{}", quote_identifier(name))).collect();
        let between = if self.name == "usher.audited_tables" { '.' } else { ',' };
        format!("pg_catalog.concat_ws('{between}', {})", columns.join(", "))
    }

    /// The rows as organization_id, object, old, new and key.
    fn rows(&self, op: &Op) -> String {
        let (alias, old, new) = match op {
            Op::Insert => ("n", "NULL::jsonb".to_owned(), self.image("n")),
            Op::Delete => ("o", self.image("o"), "NULL::jsonb".to_owned()),
            _ => return self.updated(),
        };
        format!(
            "(SELECT {} AS organization_id, {} AS object, {old} AS old, {new} AS new, {} AS key FROM usher_{} AS {alias})",
            self.organization(alias),
            self.object(alias),
            row_key(&self.table.key, alias),
            if alias == "n" { "new" } else { "old" }
        )
    }

    /// Old and new are paired by their order. Of a changed row only the columns that differ are kept; rows that differ in
    /// none are left out. Compared is the stored form: it needs no operator that somebody could have made.
    fn updated(&self) -> String {
        let differs = |columns: &[&Column]| {
            let side = |alias: &str| {
                let list: Vec<String> =
                    columns.iter().map(|column| format!("{alias}.{}", quote_identifier(&column.name))).collect();
                format!("ROW({})::record", list.join(", "))
            };
            format!("{} OPERATOR(pg_catalog.*<>) {}", side("o"), side("n"))
        };
        if self.columns.is_empty() {
            return "(SELECT NULL::uuid AS organization_id, NULL::text AS object, NULL::jsonb AS old, NULL::jsonb AS new, NULL::bigint AS key WHERE false)".to_owned();
        }
        let same: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("CASE WHEN {} THEN NULL ELSE {} END", differs(&[column]), quote_literal(&column.name)))
            .collect();
        format!(
            "(SELECT y.organization_id, y.object, y.old - y.same AS old, y.new - y.same AS new, y.key
                FROM (SELECT {} AS organization_id, {} AS object, {} AS old, {} AS new, {} AS key, ARRAY[{}]::text[] AS same
                        FROM (SELECT r.*, pg_catalog.row_number() OVER () AS usher_n FROM usher_new AS r) AS n
                        JOIN (SELECT r.*, pg_catalog.row_number() OVER () AS usher_n FROM usher_old AS r) AS o ON o.usher_n = n.usher_n
                       WHERE {} OFFSET 0) AS y)",
            self.organization("n"),
            self.object("n"),
            self.image("o"),
            self.image("n"),
            row_key(&self.table.key, "n"),
            same.join(", "),
            differs(&self.columns)
        )
    }

    /// The INSERT for one statement's rows. `by_key`: each row's job is found by the row's key.
    pub fn sql(&self, op: &Op, by_key: bool) -> String {
        let action = |done: &str| quote_literal(format!("{}.{done}", self.name));
        let (done, rows) = match op {
            Op::Insert => ("created", self.rows(op)),
            Op::Update => ("updated", self.rows(op)),
            Op::Delete => ("deleted", self.rows(op)),
            Op::Truncate => (
                "truncated",
                "(SELECT NULL::uuid AS organization_id, NULL::text AS object, NULL::jsonb AS old, NULL::jsonb AS new, NULL::bigint AS key)".to_owned(),
            ),
        };
        let (correlation, jobs) = if by_key {
            (
                "COALESCE(j.id, $3)",
                " LEFT JOIN (SELECT DISTINCT ON (u.key) u.key, u.id FROM unnest($5::bigint[], $6::uuid[]) AS u (key, id)) AS j ON j.key = x.key",
            )
        } else {
            ("$3", "")
        };
        // The relation in front: a plan belongs to one table's columns.
        format!(
            "/* {} */ {INSERT}, {}, x.object, x.old, x.new, {correlation}, $4 FROM {rows} AS x{jobs}",
            self.table.oid.to_u32(),
            action(done)
        )
    }

    /// Some value is written as text whose form depends on settings of the session.
    pub fn needs_formats(&self) -> bool {
        let keys = self.table.columns.iter().filter(|column| self.table.key.contains(&column.name));
        self.columns.iter().any(|column| !column.native) || keys.into_iter().any(|column| !column.is_uuid())
    }
}
