//! Whether what a rule says about repairing fits the database, and as which statement it is run.
//!
//! A repair that does not fit (any more) is refused when the rule is made and when it is asked for; it does not keep the rule from
//! finding what is bad.

use super::definition::{Mend, Repair};
use super::fit::{self, Fitted};
use crate::error::{Result, UsherError};
use crate::flow::definition::When;
use crate::flow::{catalog, manage, store as flows};
use crate::pg::{role, spi, subxact, writes};
use crate::registry::tables::{self, Table};
use crate::setup::Installed;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::{quote_identifier, quote_literal};

/// How a flow is asked for a row.
pub enum Asking {
    /// By a job with this action.
    Request { from: String, to: String, action: String },
    /// By going through the rows of its table that have the key.
    Rows {
        /// Column of the key, column of the table, its type.
        columns: Vec<(String, String, String)>,
        /// The table's rows belong to organizations.
        by_organization: bool,
    },
}

pub enum Way {
    /// A statement with the rows to repair in `$1`, a JSON array.
    Run(String),
    Ask(Asking),
}

/// What mends the rows of a rule.
pub struct Mender {
    pub repair: Repair,
    pub way: Way,
    /// Tables whose changes are noted while it runs.
    pub tables: Vec<Table>,
}

impl Mender {
    pub fn kind(&self) -> &'static str {
        match self.repair.mend {
            Mend::Statement(_) => "statement",
            Mend::Call(_) => "call",
            Mend::Flow(_) => "flow",
        }
    }

    /// What is done, as the author of the rule wrote it.
    pub fn says(&self) -> String {
        match (&self.repair.mend, &self.way) {
            (Mend::Statement(statement), _) => statement.clone(),
            (Mend::Call(function), _) => format!("SELECT {function}(bad)"),
            (Mend::Flow(flow), Way::Ask(Asking::Request { action, .. })) => format!("a job of flow {flow}, action {action}"),
            (Mend::Flow(flow), _) => format!("flow {flow} goes through the row again"),
        }
    }
}

fn named(part: &str, text: &str, run_as: Oid) -> impl Fn(subxact::Failure) -> UsherError {
    let (part, text) = (part.to_owned(), text.to_owned());
    move |failure| {
        let hint = failure.hint.clone().unwrap_or_else(|| match failure.sqlstate.as_str() {
            "42501" => format!(
                "The repair runs as {}: GRANT that role what it needs, or name another in \"run_as\".",
                role::name_of(run_as).unwrap_or_default()
            ),
            _ => "The rows to repair are the relation bad, with the columns of the query; other names need their schema."
                .to_owned(),
        });
        UsherError::new(failure.code, format!("{part} in \"repair\": {}", failure.message))
            .detail(failure.detail.clone().unwrap_or_else(|| format!("It says: {text}")))
            .hint(hint)
    }
}

/// The repair of a rule on the database as it is, or why it cannot work. None: the rule has none.
pub fn mender(installed: Installed, fitted: &Fitted) -> Result<Option<Mender>> {
    let Some(repair) = fitted.definition.repair.clone() else { return Ok(None) };
    let acting = role::internal(installed.owner);
    let (way, tables) = match &repair.mend {
        Mend::Statement(text) => statement(fitted, text)?,
        Mend::Call(name) => call(fitted, name)?,
        Mend::Flow(name) => (Way::Ask(flow(installed, fitted, name)?), Vec::new()),
    };
    drop(acting);
    Ok(Some(Mender { repair, way, tables }))
}

fn statement(fitted: &Fitted, text: &str) -> Result<(Way, Vec<Table>)> {
    let columns: Vec<String> =
        fitted.columns.iter().map(|column| format!("{} {}", quote_identifier(&column.name), column.type_sql)).collect();
    let bad =
        format!("bad AS MATERIALIZED (SELECT b.* FROM pg_catalog.jsonb_to_recordset($1::jsonb) AS b ({}))", columns.join(", "));
    let wrong = named("\"statement\"", text, fitted.run_as);
    let sql = subxact::rehearse(|| writes::with_query(text, &bad)).map_err(&wrong)?;
    let found = subxact::rehearse(|| {
        let _fence = fit::fence();
        let _acting = role::act_as(fitted.run_as);
        let found = writes::of(&sql, &[pg_sys::JSONBOID], "bad")?;
        spi::explain(&sql, &[pg_sys::BuiltinOid::JSONBOID])?;
        Ok(found)
    })
    .map_err(&wrong)?;
    if found.relations.is_empty() {
        return Err(UsherError::definition("\"statement\" in \"repair\" writes no table")
            .detail(format!("It says: {text}"))
            .hint("Write one INSERT, UPDATE, DELETE or MERGE that mends the rows of the relation bad."));
    }
    if !found.reads {
        return Err(UsherError::definition("\"statement\" in \"repair\" does not read bad, the rows to repair")
            .detail(format!("It says: {text}"))
            .hint("It would change rows whether they are bad or not: join bad, or select from it."));
    }
    let mut targets = Vec::new();
    for oid in found.relations {
        targets.push(target(oid)?);
    }
    Ok((Way::Run(sql), targets))
}

fn target(oid: Oid) -> Result<Table> {
    let kind = spi::read_all(
        "SELECT c.relkind::text, c.relpersistence::text, n.nspname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[spi::arg(oid)],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok((text(1)?, text(2)?, text(3)?))
        },
    )?;
    let table = tables::by_oid(oid)?.ok_or_else(|| UsherError::internal("a table is not in the catalog"))?;
    let (kind, persistence, schema) = kind.into_iter().next().unwrap_or_default();
    if !matches!(kind.as_str(), "r" | "p") || persistence == "t" {
        return Err(UsherError::definition(format!("\"statement\" in \"repair\": {} is not an ordinary table", table.name))
            .hint("A repair writes ordinary and partitioned tables."));
    }
    if matches!(schema.as_str(), "usher" | "pg_catalog" | "information_schema") {
        return Err(UsherError::definition(format!(
            "\"statement\" in \"repair\": {} is no table of the application",
            table.name
        ))
        .hint("A repair writes tables of your application."));
    }
    Ok(table)
}

fn call(fitted: &Fitted, name: &str) -> Result<(Way, Vec<Table>)> {
    let function = catalog::function(name).map_err(|mut error| {
        error.message = format!("\"call\" in \"repair\": {}", error.message);
        error
    })?;
    if !function.takes_payload {
        return Err(UsherError::definition(format!("\"call\" in \"repair\": {name} does not take one jsonb"))
            .hint("It is called with the bad row: CREATE FUNCTION … (bad jsonb) RETURNS void …."));
    }
    // Among the FROM items, so that a function which returns many rows, or none, is called as well.
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_array_elements($1::jsonb) AS b (bad) LEFT JOIN LATERAL {}(b.bad) AS r ON true",
        function.sql
    );
    subxact::rehearse(|| {
        let _fence = fit::fence();
        let _acting = role::act_as(fitted.run_as);
        spi::explain(&sql, &[pg_sys::BuiltinOid::JSONBOID])
    })
    .map_err(named("\"call\"", name, fitted.run_as))?;
    // What it writes nobody knows; most likely what the rule is about.
    let mut tables = fitted.reads.clone();
    for touch in &fitted.touches {
        if tables.iter().all(|table| table.oid != touch.table.oid) {
            tables.push(touch.table.clone());
        }
    }
    tables.retain(|table| !table.name.starts_with("usher."));
    Ok((Way::Run(sql), tables))
}

fn flow(installed: Installed, fitted: &Fitted, name: &str) -> Result<Asking> {
    let at = |mut error: UsherError| {
        error.message = format!("\"flow\" in \"repair\": {}", error.message);
        error
    };
    let (id, version) = manage::id_of(installed, name).map_err(at)?;
    let flow = flows::get(id, version)?.ok_or_else(|| UsherError::internal("a flow is gone"))?;
    match &flow.definition.when {
        When::Request { action } => Ok(Asking::Request {
            from: flow.definition.from.clone().unwrap_or_default(),
            to: flow.definition.to.clone().unwrap_or_default(),
            action: action.clone(),
        }),
        When::Change { table, .. } => {
            let table = catalog::table(table, "\"when\"").map_err(at)?;
            if table.key.is_empty() {
                return Err(at(UsherError::definition(format!("{} has no primary key", table.name)).hint(format!(
                    "A flow goes through its table by the primary key: ALTER TABLE {} ADD PRIMARY KEY (…).",
                    table.name
                ))));
            }
            let columns =
                fitted.definition.key.iter().map(|key| column_of(fitted, key, &table).map_err(at)).collect::<Result<_>>()?;
            Ok(Asking::Rows { columns, by_organization: table.has_organization() })
        }
        other => Err(at(UsherError::definition(format!(
            "\"{name}\" is started by {} {}, which a row cannot be given to",
            other.article(),
            other.word()
        ))
        .hint("Name a flow with \"when\": {\"request\": …} or {\"change\": …}, or repair with \"statement\" or \"call\"."))),
    }
}

/// Which column of a flow's table is a column of the rule's key: as `"touches"` says it, or the one of the same name.
fn column_of(fitted: &Fitted, key: &str, table: &Table) -> Result<(String, String, String)> {
    let said = fitted.definition.touches.iter().find_map(|(name, keys)| {
        let same = tables::split(name).is_some_and(|(schema, relation)| format!("{schema}.{relation}") == table.name);
        same.then(|| keys.get(key)).flatten().and_then(|text| text.trim().strip_prefix("row.").map(str::to_owned))
    });
    let name = said.as_deref().unwrap_or(key);
    let column = table.column(name).ok_or_else(|| {
        UsherError::definition(format!("{} has no column \"{key}\", so the rows of a key are not known there", table.name)).hint(
            format!("Say it in \"touches\": {{\"{}\": {{\"{key}\": \"row.…\"}}}}, or repair with \"statement\".", table.name),
        )
    })?;
    Ok((key.to_owned(), column.name.clone(), column.type_sql.clone()))
}

/// An expression over `new` for the rows of some keys.
pub fn rows_of_keys(columns: &[(String, String, String)], keys: &[&serde_json::Value]) -> String {
    let one = |key: &serde_json::Value| {
        let equal = columns.iter().map(|(name, column, kind)| {
            let column = format!("new.{}", quote_identifier(column));
            match key.get(name) {
                Some(serde_json::Value::String(text)) => format!("{column} = {}::{kind}", quote_literal(text)),
                None | Some(serde_json::Value::Null) => format!("{column} IS NULL"),
                Some(other) => format!("{column} = {}::{kind}", quote_literal(other.to_string())),
            }
        });
        format!("({})", equal.collect::<Vec<_>>().join(" AND "))
    };
    keys.iter().map(|key| one(key)).collect::<Vec<_>>().join(" OR ")
}
