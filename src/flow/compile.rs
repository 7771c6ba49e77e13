//! From a definition to one set-based statement.
//!
//! The statement takes a batch as parallel arrays ($1 organizations, $2 job ids, $3 new rows or payloads, $4 old rows,
//! $5 kinds of change, $6 times) and a range of it ($7 to $8, from 1). It returns a row only for a job that needs a
//! further word: `(n, failed check, again)`, where `again` means that an earlier job of the range writes the same target
//! row and this one must come after it.
//!
//! Expressions were parsed as single expressions before ([`crate::pg::expr`]); wrapped in parentheses and a line break
//! they cannot reach outside themselves. Every write and join carries the job's organization.

use super::call_statement::call;
use super::catalog::{self, Column, Table};
use super::collect::collect;
use super::conjuncts;
use super::definition::{Definition, Then, When};
use super::emit_statement;
use super::expressions::Expressions;
use super::limit_keys;
use super::merge;
use super::publish_statement;
pub use super::shape::ColumnUse as Used;
use super::shape::{ColumnUse, Shape};
use super::targets::{link_statement, parents};
use super::write_statement;
use crate::error::{Result, UsherError};
use crate::pg;
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Types of the statement's parameters.
pub const TYPES: &[pg_sys::BuiltinOid] = &[
    pg_sys::BuiltinOid::UUIDARRAYOID,
    pg_sys::BuiltinOid::UUIDARRAYOID,
    pg_sys::BuiltinOid::JSONBARRAYOID,
    pg_sys::BuiltinOid::JSONBARRAYOID,
    pg_sys::BuiltinOid::CHARARRAYOID,
    pg_sys::BuiltinOid::TIMESTAMPTZARRAYOID,
    pg_sys::BuiltinOid::INT4OID,
    pg_sys::BuiltinOid::INT4OID,
];

/// What was learned of a flow when it was created, kept with its version.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Compiled {
    /// Columns of the source that the flow uses; these alone are stored with a job.
    pub new: Vec<String>,
    pub old: Vec<String>,
    /// The condition is evaluated by the writer.
    pub simple: bool,
    /// What the writer evaluates of a condition of which not everything is simple: of the parts joined by AND those that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// `schema.table` of source and target, for seeing circles.
    pub source: Option<String>,
    pub target: Option<String>,
    /// SQL for the job's organization, evaluated by the writer.
    pub organization: Option<String>,
    /// The source's primary key is part of the target's key as it is: two source rows never meet in one target row.
    #[serde(default)]
    pub row_determines_key: bool,
}

impl Compiled {
    /// As it is kept with its version.
    pub fn stored(&self) -> Result<pgrx::JsonB> {
        let json = serde_json::to_value(self);
        json.map(pgrx::JsonB).map_err(|e| UsherError::internal(format!("a compiled flow cannot be stored: {e}")))
    }
}

/// A flow made ready to run.
pub struct Program {
    pub compiled: Compiled,
    pub apply: String,
    /// Pairs for `usher.links`: `(organization, left, right, n)` as arrays. Same parameters.
    pub link: Option<String>,
    /// `(n, key of the target row)` as arrays, the key as capture computes it; for flows with a key. Same parameters.
    pub parents: Option<String>,
    /// `(n, values)` of the limits per key, in their order. Same parameters.
    pub limit_keys: Option<String>,
    /// What the statement would write, as jsonb rows; for previews.
    pub preview: String,
    /// Of a merge: `apply` then says whom a batch is about.
    pub merge: Option<merge::statement::Statements>,
}

impl Program {
    /// What it runs with the flow's rights, each with the types of its parameters.
    pub fn statements(&self) -> Vec<(&str, &'static [pg_sys::BuiltinOid])> {
        let own = [Some(&self.apply), self.link.as_ref(), self.limit_keys.as_ref()];
        let mut all: Vec<(&str, &'static [pg_sys::BuiltinOid])> =
            own.into_iter().flatten().map(|sql| (sql.as_str(), TYPES)).collect();
        if let Some(merge) = &self.merge {
            all.extend(merge.find.iter().map(|sql| (sql.as_str(), merge::statement::FIND_TYPES)));
            all.push((&merge.quick, merge::statement::TYPES));
            all.push((&merge.write, merge::statement::TYPES));
            all.push((&merge.look, merge::statement::TYPES));
        }
        all
    }
}

/// What has happened, as the job carries it.
const EVENT: &str =
    " CROSS JOIN LATERAL (SELECT (b.new ->> 'id')::uuid AS id, b.organization_id AS organization_id, b.new ->> 'type' AS type,
    b.new -> 'data' AS data, (b.new ->> 'emitted_at')::timestamptz AS emitted_at, b.new ->> 'emitted_by' AS emitted_by) AS event";

/// The run that a step belongs to, as the step's job carries it.
const RUN: &str = " CROSS JOIN LATERAL (SELECT (b.new ->> 'run')::uuid AS id, b.organization_id AS organization_id, b.new ->> 'workflow' AS workflow,
    b.new ->> 'step' AS step, b.new -> 'input' AS input, b.new -> 'results' AS results, b.new -> 'item' AS item, b.new -> 'result' AS result,
    (b.new ->> 'started_at')::timestamptz AS started_at) AS run";

/// The source columns that are used under one alias, checked against the table.
fn used(all: &Expressions, source: Option<&Table>, alias: &str, word: &str) -> Result<Vec<String>> {
    let Some(source) = source else {
        if let Some(lost) = all.uses().find(|column| column.alias == alias) {
            let name = lost.column.as_deref().unwrap_or("*");
            return Err(UsherError::definition(format!(
                "{alias}.{name} is used, and {} {word} has no row",
                if word == "event" { "an" } else { "a" }
            ))
            .hint(match word {
                "event" => "Use event.data ->> 'field', or a \"join\".",
                "step" => "Use run.input ->> 'field': what the workflow's \"set\" says, or the whole row as run.input -> 'new'.",
                _ => "Use job.payload ->> 'field', or a \"join\".",
            }));
        }
        return Ok(Vec::new());
    };
    let mut names = BTreeSet::new();
    for column in all.uses().filter(|column| column.alias == alias) {
        match &column.column {
            Some(name) => {
                names.insert(source.expect(name, &format!("an expression ({alias}.{name})"))?.name.clone());
            }
            None => names.extend(source.columns.iter().map(|column| column.name.clone())),
        }
    }
    Ok(names.into_iter().collect())
}

/// Parses every expression; a request or schedule has no row, and `new.x` or `old.x` in its flow is refused as that.
pub fn refuse_rows_of_requests(definition: &Definition) -> Result<()> {
    let all = Expressions::of(definition)?;
    if !matches!(definition.when, When::Change { .. }) {
        used(&all, None, "new", definition.when.word())?;
        used(&all, None, "old", definition.when.word())?;
    }
    Ok(())
}

/// `(SELECT … ) AS alias` over a stored row image.
pub fn image(alias: &str, stored: &str, used: &[String], source: Option<&Table>) -> String {
    let fields: Vec<String> = source
        .into_iter()
        .flat_map(|table| table.columns.iter())
        .filter(|column| used.contains(&column.name))
        .map(|column| {
            format!("({stored} ->> {})::{} AS {}", quote_literal(&column.name), column.type_sql, quote_identifier(&column.name))
        })
        .collect();
    format!(" CROSS JOIN LATERAL (SELECT {}) AS {alias}", fields.join(", "))
}

/// A definition beside what the catalog says about the names in it.
pub(super) struct Writer<'a> {
    pub(super) definition: &'a Definition,
    all: &'a Expressions,
    pub(super) source: Option<&'a Table>,
    joins: BTreeMap<String, Table>,
    pub(super) new: &'a [String],
    old: &'a [String],
}

impl Writer<'_> {
    /// The batch with everything that expressions may name.
    pub(super) fn from(&self) -> String {
        let mut arrays = vec![("$1::uuid[]", "organization_id"), ("$2::uuid[]", "id"), ("$3::jsonb[]", "new")];
        if !self.old.is_empty() || self.definition.merge().is_some() {
            arrays.push(("$4::jsonb[]", "old"));
        }
        if self.all.mention("op")
            || self.collects_row()
            || self.definition.merge().is_some()
            || self.definition.publishes().is_some()
        {
            arrays.push(("$5::\"char\"[]", "op"));
        }
        if self.all.mention("created_at") {
            arrays.push(("$6::timestamptz[]", "created_at"));
        }
        let (values, names): (Vec<_>, Vec<_>) = arrays.into_iter().unzip();
        let mut sql = format!(
            "unnest({}) WITH ORDINALITY AS b ({}, n)",
            values.join(", "),
            names.iter().map(quote_identifier).collect::<Vec<_>>().join(", ")
        );
        if self.source.is_some() {
            if !self.new.is_empty() {
                sql += &image("new", "b.new", self.new, self.source);
            }
            if !self.old.is_empty() {
                sql += &image("old", "b.old", self.old, self.source);
            }
        }
        if self.all.mention("job") {
            let mut fields = vec!["b.id AS id", "b.organization_id AS organization_id", "b.new AS payload"];
            let op = format!(
                "CASE b.op WHEN 'I' THEN 'insert' WHEN 'U' THEN 'update' WHEN 'D' THEN 'delete' ELSE '{}' END AS op",
                self.definition.when.word()
            );
            if names.contains(&"op") {
                fields.push(&op);
            }
            if matches!(self.definition.when, When::Schedule(_)) {
                fields.push("(b.new ->> 'scheduled_at')::timestamptz AS scheduled_at");
            }
            if names.contains(&"created_at") {
                fields.push("b.created_at AS created_at");
            }
            let _ = write!(sql, " CROSS JOIN LATERAL (SELECT {}) AS job", fields.join(", "));
        }
        if matches!(self.definition.when, When::Event(_)) && self.all.mention("event") {
            sql += EVENT;
        }
        if matches!(self.definition.when, When::Step(_)) && self.all.mention("run") {
            sql += RUN;
        }
        for (name, join) in &self.definition.joins {
            let table = &self.joins[name];
            let mine =
                if table.has_organization() { format!("{name}.organization_id = b.organization_id AND ") } else { String::new() };
            let _ = write!(
                sql,
                " LEFT JOIN LATERAL (SELECT {} FROM {} AS {name} WHERE {mine}({}\n) LIMIT 1) AS {name} ON true",
                self.joined(name),
                table.sql,
                join.on
            );
        }
        sql
    }

    /// Of a joined table only what is used: the flow's role needs no right on the rest.
    fn joined(&self, name: &str) -> String {
        let uses: Vec<&ColumnUse> = self.all.uses().filter(|used| used.alias == name).collect();
        let named: BTreeSet<&str> = uses.iter().filter_map(|used| used.column.as_deref()).collect();
        if named.is_empty() || uses.iter().any(|used| used.column.is_none()) {
            return format!("{name}.*");
        }
        named.iter().map(|column| format!("{name}.{}", quote_identifier(*column))).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn range(&self) -> String {
        let mut sql = " WHERE b.n BETWEEN $7 AND $8".to_owned();
        // Also when the writer has evaluated it: the table may have changed between then and now.
        if let Some(condition) = &self.definition.condition {
            let _ = write!(sql, " AND ({condition}\n)");
        }
        sql
    }

    /// A workflow whose input is the row that has changed.
    pub(super) fn collects_row(&self) -> bool {
        self.source.is_some() && is_whole(self.definition)
    }

    pub(super) fn has_old(&self) -> bool {
        !self.old.is_empty()
    }

    /// One value; a bare literal takes the column's type, as it would in a plain INSERT.
    pub(super) fn value(&self, field: &str, text: &str, column: Option<&Column>) -> String {
        let literal = self.all.shape(field).is_some_and(|shape| shape.literal);
        match column {
            Some(column) if literal => format!("({text}\n)::{}", column.type_sql),
            _ => format!("({text}\n)"),
        }
    }
}

/// A workflow that says nothing of its input.
fn is_whole(definition: &Definition) -> bool {
    matches!(definition.then, Then::Steps(_)) && definition.set.is_empty()
}

pub(super) struct Target {
    pub(super) table: Table,
    pub(super) organization: bool,
    pub(super) key: Vec<String>,
}

fn target(definition: &Definition) -> Result<Option<Target>> {
    let Some(name) = definition.then.table() else { return Ok(None) };
    let table = catalog::table(name, "\"then\"")?;
    for (group, names) in [("set", &definition.set), ("set_once", &definition.set_once)] {
        for name in names.keys() {
            let column = table.expect(name, &format!("\"{group}\""))?;
            if column.generated {
                return Err(UsherError::definition(format!("column \"{name}\" of {} is generated", table.name))
                    .hint(format!("Leave it out of \"{group}\".")));
            }
        }
    }
    for name in definition.then.key() {
        table.expect(name, "\"key\"")?;
    }
    if let Some(link) = &definition.link {
        table.expect(&link.right, "\"link\".\"right\"")?;
    }
    let organization = table.has_organization();
    let key = definition.then.key().to_vec();
    Ok(Some(Target { table, organization, key }))
}

/// Builds the program of a definition against the catalog as it is now.
pub fn compile(definition: &Definition) -> Result<Program> {
    let source = match &definition.when {
        When::Change { table, .. } => Some(catalog::table(table, "\"when\"")?),
        When::Request { .. } | When::Schedule(_) | When::Event(_) | When::Step(_) => None,
    };
    let all = Expressions::of(definition)?;
    let word = definition.when.word();
    let mut new = used(&all, source.as_ref(), "new", word)?;
    if let (Then::Call { .. }, true, Some(source)) = (&definition.then, definition.set.is_empty(), &source) {
        // Without "set" the function gets the whole row.
        new = source.columns.iter().map(|column| column.name.clone()).collect();
    }
    let mut old = used(&all, source.as_ref(), "old", word)?;
    if let (true, Some(source)) = (is_whole(definition), &source) {
        new = source.columns.iter().map(|column| column.name.clone()).collect();
        old = new.clone();
    }
    if let Some((id, _)) = definition.merge_ids() {
        // Which row it is; what is in it is looked up.
        for names in [&mut new, &mut old] {
            if !names.iter().any(|name| name == id) {
                names.push(id.to_owned());
            }
        }
    }
    publish_statement::also_needs(definition, source.as_ref(), &mut new, &mut old);
    let joins = definition
        .joins
        .iter()
        .map(|(name, join)| Ok((name.clone(), catalog::table(&join.table, &format!("join \"{name}\""))?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    let simple = definition.condition.is_none()
        || all.shape("if").is_some_and(|shape| source.as_ref().is_some_and(|table| safe_in_writer(shape, table)));
    let part = match (&definition.condition, &source) {
        (Some(condition), Some(source)) if !simple => conjuncts::part(condition, |part| text_is_safe(part, source), same_meaning),
        _ => None,
    };
    let organization = organization(definition, source.as_ref(), &all)?;
    let target = target(definition)?;

    let writer = Writer { definition, all: &all, source: source.as_ref(), joins, new: &new, old: &old };
    let mut merge = None;
    let (apply, preview) = match (&definition.then, &target) {
        (Then::Merge(_), _) => {
            let (about, statements) = merge::statement::compile(&writer)?;
            merge = Some(statements);
            (about, String::new())
        }
        (Then::Call { function, .. }, _) => call(&writer, &catalog::function(function)?)?,
        (Then::Steps(_) | Then::Collect(_), _) => collect(&writer),
        (Then::Emit { event_type }, _) => emit_statement::statement(&writer, event_type),
        (Then::Publish(publish), _) => publish_statement::statement(&writer, publish),
        (then, Some(target)) => {
            let apply = write_statement::write(&writer, then, target, false)?;
            (apply, write_statement::write(&writer, then, target, true)?)
        }
        (_, None) => return Err(UsherError::internal("a flow that writes has no target")),
    };
    let link = match (&definition.link, &target) {
        (Some(link), Some(target)) if merge.is_none() => Some(link_statement(&writer, link, target)),
        _ => None,
    };
    let parents = target
        .as_ref()
        .filter(|target| !target.key.is_empty() && !target.table.key.is_empty())
        .map(|target| parents(&writer, target));
    let limit_keys = limit_keys::statement(&writer);
    let row_determines_key = source.as_ref().is_some_and(|source| {
        let carried = |column: &String| {
            definition.then.key().iter().any(|key| definition.set.get(key).is_some_and(|text| [format!("new.{column}"), format!("old.{column}")].contains(&text.trim().to_owned())))
                // The engine carries the organization itself.
                || (column == "organization_id" && target.as_ref().is_some_and(|target| target.organization))
        };
        !source.key.is_empty() && source.key.iter().all(carried)
    });
    let compiled = Compiled {
        row_determines_key,
        simple,
        part,
        source: source.as_ref().map(|table| table.name.clone()),
        target: target.as_ref().map(|target| target.table.name.clone()),
        organization,
        new,
        old,
    };
    Ok(Program { compiled, apply, link, parents, limit_keys, preview, merge })
}

/// True when a flow's condition can be evaluated by the writer, as the table is now.
pub fn condition_is_safe(definition: &Definition, source: &Table) -> bool {
    definition.condition.as_deref().is_none_or(|condition| text_is_safe(condition, source))
}

/// True when PostgreSQL reads both texts as one expression; where in the text something stands is no part of it.
fn same_meaning(one: &str, other: &str) -> bool {
    let nodes = |text: &str| pg::subxact::rehearse(|| pg::expr::parse(text)).ok().map(|nodes| without_places(&nodes));
    nodes(one).is_some_and(|nodes_of_one| nodes(other) == Some(nodes_of_one))
}

fn without_places(nodes: &str) -> String {
    let mut parts = nodes.split(" :location ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| out.push_str(part.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit())));
    out
}

/// What is in an expression, from PostgreSQL's node text of it.
pub fn shape_of(nodes: &str) -> Option<Shape> {
    super::shape::read(nodes)
}

/// True when an expression over `new` and `old` can neither fail nor run anybody's code.
pub fn text_is_safe(condition: &str, source: &Table) -> bool {
    let shape = pg::subxact::rehearse(|| pg::expr::parse(condition)).ok().and_then(|nodes| super::shape::read(&nodes));
    let tried = format!("SELECT 1 FROM {0} AS new CROSS JOIN {0} AS old WHERE ({condition}\n)", source.sql);
    shape.is_some_and(|shape| safe_in_writer(&shape, source)) && pg::subxact::rehearse(|| pg::spi::plans(&tried, &[])).is_ok()
}

/// True when the condition cannot fail in the writer: simple by its form, and columns compared with each other are of
/// one type and collation.
pub fn safe_in_writer(shape: &Shape, source: &Table) -> bool {
    let column = |used: &ColumnUse| used.column.as_deref().and_then(|name| source.column(name));
    shape.simple
        && shape.compared.iter().all(|(left, right)| match (column(left), column(right)) {
            (Some(left), Some(right)) => left.type_oid == right.type_oid && left.collation == right.collation,
            _ => false,
        })
        // Columns of types with operators of their own (extensions) may run any code.
        && shape.columns.iter().all(|used| column(used).is_some_and(|column| column.native))
}

fn organization(definition: &Definition, source: Option<&Table>, all: &Expressions) -> Result<Option<String>> {
    let Some(text) = &definition.organization else {
        return Ok(source.filter(|source| source.has_organization()).map(|_| "new.organization_id".to_owned()));
    };
    let shape = all.shape("organization").cloned().unwrap_or_default();
    if shape.literal {
        // A slug: resolved when the flow is created, because an organization's id never changes.
        let slug = text.trim_matches('\'').to_owned();
        let id = pg::spi::read::<pgrx::Uuid>(
            "SELECT id FROM usher.organizations WHERE slug = $1 OR id::text = $1",
            &[pg::spi::arg(slug.as_str())],
        )?
        .ok_or_else(|| {
            UsherError::definition(format!("organization: there is no organization \"{slug}\""))
                .hint("Create it first with usher.create_organization().")
        })?;
        return Ok(Some(format!("{}::uuid", quote_literal(id.to_string()))));
    }
    let Some(source) = source else {
        return Err(UsherError::definition(
            "organization: a schedule is for every organization, or for one by its slug in quotes",
        )
        .hint("Write \"organization\": \"'acme'\", or leave it out."));
    };
    match shape.columns.as_slice() {
        [ColumnUse { alias, column: Some(name) }]
            if alias == "new" && shape.simple && source.column(name).is_some_and(Column::is_uuid) =>
        {
            Ok(Some(format!("new.{}", quote_identifier(name))))
        }
        _ => Err(UsherError::definition("organization: use a uuid column of the row or a slug in quotes")
            .detail("It is evaluated inside the writer's statement and must not be able to fail.")
            .hint("Write \"organization\": \"new.tenant_id\" or \"organization\": \"'acme'\".")),
    }
}
