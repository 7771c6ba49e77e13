//! The statements of a merge: whom a batch is about, who belongs together by key, and what is written.

use super::super::compile::Writer;
use super::super::definition::Definition;
use super::definition::{AgainstEdit, Deletes, Merge, Severity, Side, WHOLE_ROW};
use super::evaluate::{self, Evaluation, OPEN, SAME, differs, json_of, letter, row};
use super::sides::{self, Half, Sides, column_of};
use crate::error::{Result, UsherError};
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::{quote_identifier, quote_literal};
use std::fmt::Write as _;

/// Types of [`Statements::find`]'s parameters: numbers, organizations and ids of rows that have no link.
pub const FIND_TYPES: &[pg_sys::BuiltinOid] =
    &[pg_sys::BuiltinOid::INT4ARRAYOID, pg_sys::BuiltinOid::UUIDARRAYOID, pg_sys::BuiltinOid::TEXTARRAYOID];

/// What a merge runs with the flow's rights, beside the statement that says which rows a batch is about.
pub struct Statements {
    /// Rows of the other side with the same key: `(n, organization, id here, id there)` as arrays; for merges with "match".
    pub find: Option<String>,
    /// Locks both rows of each pair, writes what does not agree and tells what there is to note: [`NOTED`] arrays, and why a row could
    /// not be written.
    pub write: String,
    /// The same without locks, for pairs of which only the other side's row changes; and the pairs that are left to [`Statements::write`].
    pub quick: String,
    /// For each field of each pair what holds: `(n, act, whether there is a left and a right row, field, base of both sides, their values, d,
    /// whether it has a base, whether there is a link, whether the left and the right value have changed since)`.
    pub look: String,
    /// Sequences that number rows which are made.
    pub sequences: Vec<Oid>,
}

/// Number, organization, link, left id, right id, base (NULL: the link is over), conflict, whether there was one.
pub const NOTED: usize = 8;

/// Numbers of pairs of which one row is not to be seen, and nobody has told that it was deleted: nothing is done with them.
pub(super) const IDLE: &str =
    "(SELECT pg_catalog.array_agg(z.n) FROM p AS z WHERE z.act IS NULL AND z.link IS NOT NULL AND z.has_l <> z.has_r)";

/// Parts of at most this many: a function takes a hundred arguments.
const CHUNK: usize = 45;

pub(super) fn object(fields: &[(String, String)]) -> String {
    let parts: Vec<String> = fields
        .chunks(CHUNK)
        .map(|chunk| {
            let pairs: Vec<String> = chunk.iter().map(|(name, value)| format!("{}, {value}", quote_literal(name))).collect();
            format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
        })
        .collect();
    parts.join(" || ")
}

/// Names of the fields of which something is true.
fn names_where(merge: &Merge, test: impl Fn(usize) -> String) -> String {
    let cases: Vec<String> = merge
        .fields
        .iter()
        .enumerate()
        .map(|(at, field)| format!("CASE WHEN {} THEN {} END", test(at), quote_literal(&field.name)))
        .collect();
    format!("pg_catalog.array_remove(ARRAY[{}]::text[], NULL)", cases.join(", "))
}

pub(super) struct Builder<'a> {
    pub(super) evaluation: Evaluation<'a>,
}

impl Builder<'_> {
    pub(super) fn merge(&self) -> &Merge {
        self.evaluation.merge
    }

    fn half(&self, side: Side) -> &Half {
        self.evaluation.sides.half(side)
    }

    /// Columns that the flow writes on a side, and what a row that both have gets.
    fn set(&self, side: Side) -> Vec<(String, String)> {
        let fields = self.merge().fields.iter().enumerate();
        fields.map(|(at, field)| (quote_identifier(column_of(field, side)), format!("z.w{}{at}", letter(side)))).collect()
    }

    pub(super) fn needs(&self, side: Side) -> String {
        let fields = self.merge().fields.iter().enumerate();
        let tests: Vec<String> = fields
            .map(|(at, field)| {
                let column = self.evaluation.column(field, side);
                differs(column, &format!("z.w{}{at}", letter(side)), &self.before(at, side))
            })
            .collect();
        tests.join(" OR ")
    }

    /// What a field was on a side.
    pub(super) fn before(&self, at: usize, side: Side) -> String {
        let field = &self.merge().fields[at];
        match side {
            Side::Left => format!("z.was{}", self.half(side).at(&field.left)),
            Side::Right => self.evaluation.value(field, side, "z"),
        }
    }

    /// Whose row a statement's row of a table is.
    fn same_row(&self, side: Side, id: &str) -> String {
        let half = self.half(side);
        let organization =
            half.organization.as_ref().map(|column| format!(" AND t.{column} = z.organization_id")).unwrap_or_default();
        format!("t.{} = {id}{organization}", quote_identifier(&half.id.name))
    }

    fn id(&self, side: Side) -> String {
        format!("z.{}_id::{}", side.word(), self.half(side).id.type_sql)
    }

    /// What was written, as `c0`, `c1` … by field.
    fn returning(&self, side: Side) -> String {
        let fields = self.merge().fields.iter().enumerate();
        fields.fold(String::new(), |mut out, (at, field)| {
            let _ = write!(out, ", t.{} AS c{at}", quote_identifier(column_of(field, side)));
            out
        })
    }

    /// Writes what a side needs of the pairs of which `of` is true.
    pub(super) fn update(&self, side: Side, of: &str) -> String {
        let set: Vec<String> = self.set(side).into_iter().map(|(column, value)| format!("{column} = {value}")).collect();
        format!(
            "u{} AS (UPDATE {} AS t SET {} FROM p AS z WHERE {of} AND z.needs_{} AND {} RETURNING z.n{})",
            letter(side),
            self.half(side).table.sql,
            set.join(", "),
            side.word(),
            self.same_row(side, &self.id(side)),
            self.returning(side)
        )
    }

    fn delete(&self, side: Side) -> String {
        format!(
            "d{} AS (DELETE FROM {} AS t USING p AS z WHERE z.act = 'delete_{}' AND {} RETURNING z.n)",
            letter(side),
            self.half(side).table.sql,
            side.word(),
            self.same_row(side, &self.id(side))
        )
    }

    /// The id of a row that is made: that of the link, or a new one.
    fn new_id(&self, side: Side) -> String {
        let half = self.half(side);
        let own = match &half.new_id {
            Some(text) => format!("({text}\n)::{}", half.id.base_sql),
            None => format!("NULL::{}", half.id.base_sql),
        };
        format!(
            "CROSS JOIN LATERAL (SELECT CASE WHEN z.act = 'make_{0}' THEN COALESCE({1}, {own}) END AS new_{2} FROM {3}) AS n{2}",
            side.word(),
            self.id(side),
            letter(side),
            row(self.half(side.other()), "z")
        )
    }

    fn insert(&self, side: Side) -> String {
        let half = self.half(side);
        let other = self.half(side.other());
        let new = letter(side);
        let mut columns = vec![(quote_identifier(&half.id.name), format!("z.new_{new}"))];
        columns.extend(half.organization.iter().map(|column| (column.clone(), "z.organization_id".to_owned())));
        let sent = if side == Side::Right { 'f' } else { 'g' };
        let fields = self.merge().fields.iter().enumerate();
        columns.extend(fields.map(|(at, field)| (quote_identifier(column_of(field, side)), format!("z.{sent}{at}"))));
        for (left, right) in &self.merge().matches {
            let (own, others) = if side == Side::Left { (left, right) } else { (right, left) };
            let column = quote_identifier(own);
            if !columns.iter().any(|(known, _)| *known == column) {
                columns.push((column, format!("z.{}{}", letter(side.other()), other.at(others))));
            }
        }
        for (name, text) in &half.new {
            let column = quote_identifier(name);
            columns.retain(|(known, _)| *known != column);
            columns.push((column, format!("({text}\n)")));
        }
        let (names, values): (Vec<String>, Vec<String>) = columns.into_iter().unzip();
        let back = half.organization.as_ref().map(|column| format!(", t.{column} AS made_for")).unwrap_or_default();
        format!(
            "i{new} AS (INSERT INTO {} AS t ({}){} SELECT {} FROM p AS z CROSS JOIN LATERAL {} WHERE z.act = 'make_{}' ORDER BY z.n RETURNING t.{} AS id{back}{})",
            half.table.sql,
            names.join(", "),
            if half.overriding { " OVERRIDING SYSTEM VALUE" } else { "" },
            values.join(", "),
            row(other, "z"),
            side.word(),
            quote_identifier(&half.id.name),
            self.returning(side)
        )
    }

    /// Rows may have to be made on a side: new ones, and such as come back.
    fn inserts(&self, side: Side) -> bool {
        let merge = self.merge();
        let creates = if side == Side::Left { merge.creates_left } else { merge.creates_right };
        creates || merge.deletes == Deletes::Follow && merge.against_edit != AgainstEdit::Delete
    }

    /// No row, as a write would return it.
    fn nothing(&self, side: Side) -> String {
        let half = self.half(side);
        let fields = self.merge().fields.iter().enumerate();
        let fields = fields.fold(String::new(), |mut out, (at, field)| {
            let _ = write!(out, ", NULL::{} AS c{at}", self.evaluation.column(field, side).base_sql);
            out
        });
        format!("SELECT NULL::integer AS n, NULL::{} AS id, NULL::uuid AS made_for{fields} WHERE false", half.id.base_sql)
    }

    /// The rows that were written, beside their pairs.
    fn written(&self, side: Side) -> String {
        let half = self.half(side);
        let l = letter(side);
        let organization =
            half.organization.as_ref().map(|_| format!(" AND i{l}.made_for = z.organization_id")).unwrap_or_default();
        format!(
            " LEFT JOIN u{l} ON u{l}.n = z.n LEFT JOIN i{l} ON z.act = 'make_{}' AND i{l}.id = z.new_{l}{organization} LEFT JOIN d{l} ON d{l}.n = z.n",
            side.word()
        )
    }

    /// What a side now has of each field, as the base keeps it. Of an open one the base stays as it was.
    fn base(&self, side: Side) -> String {
        let l = letter(side);
        let fields: Vec<(String, String)> = self
            .merge()
            .fields
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let now = format!(
                    "CASE WHEN u{l}.n IS NOT NULL THEN {} WHEN z.act = 'make_{}' THEN i{l}.c{at} ELSE {} END",
                    self.taken(at, side),
                    side.word(),
                    self.before(at, side)
                );
                let open = format!("z.base -> '{}' -> {}", side.word(), quote_literal(&field.name));
                let value = json_of(self.evaluation.column(field, side), &format!("({now})"));
                (field.name.clone(), format!("CASE WHEN z.d{at} = {OPEN} THEN {open} ELSE {value} END"))
            })
            .collect();
        format!("({}) - z.unmet", object(&fields))
    }

    /// What a side has of a field that was written. What was not written and is another all the same, a trigger has changed: that is news to the
    /// other side.
    pub(super) fn taken(&self, at: usize, side: Side) -> String {
        format!("CASE WHEN {} THEN {} ELSE u{}.c{at} END", self.echo(at, side), self.before(at, side), letter(side))
    }

    /// SQL that is true of a field that a trigger has changed while others were written.
    pub(super) fn echo(&self, at: usize, side: Side) -> String {
        let column = self.evaluation.column(&self.merge().fields[at], side);
        let (l, before) = (letter(side), self.before(at, side));
        let (wanted, now) = (format!("z.w{l}{at}"), format!("u{l}.c{at}"));
        format!("NOT {} AND {}", differs(column, &wanted, &before), differs(column, &now, &before))
    }

    pub(super) fn any_echo(&self, sides: &[Side]) -> String {
        let tests: Vec<String> = sides
            .iter()
            .copied()
            .map(|side| {
                let of: Vec<String> = (0..self.merge().fields.len()).map(|at| self.echo(at, side)).collect();
                format!("u{}.n IS NOT NULL AND ({})", letter(side), of.join(" OR "))
            })
            .collect();
        tests.join(" OR ")
    }

    /// The values of a side as they were found.
    fn found(&self, side: Side) -> String {
        let fields = self.merge().fields.iter().enumerate();
        let fields: Vec<(String, String)> = fields
            .map(|(at, field)| {
                let value = self.before(at, side);
                (field.name.clone(), json_of(self.evaluation.column(field, side), &value))
            })
            .collect();
        format!("({})", object(&fields))
    }

    fn severity(&self) -> String {
        let mut cases = format!("CASE WHEN z.act = 'open' THEN '{}'", self.merge().severity.word());
        for severity in Severity::ALL.into_iter().rev() {
            let of: Vec<String> = self
                .merge()
                .fields
                .iter()
                .enumerate()
                .filter(|(_, field)| field.severity == severity)
                .map(|(at, _)| format!("z.d{at} = {OPEN}"))
                .collect();
            if !of.is_empty() {
                let _ = write!(cases, " WHEN {} THEN '{}'", of.join(" OR "), severity.word());
            }
        }
        cases + " END"
    }

    fn write(&self) -> Result<String> {
        let merge = self.merge();
        let (sql, outcome) = (self.evaluation.sql(true)?, self.evaluation.outcome()?);
        let any = |test: &str| (0..merge.fields.len()).map(|at| format!("z.d{at} {test}")).collect::<Vec<_>>().join(" OR ");
        let unmet = names_where(merge, |at| format!("z.d{at} = {OPEN} AND NOT z.hb{at}"));
        let open = names_where(merge, |at| format!("z.d{at} = {OPEN}"));
        // A conflict over a whole row is over all of its fields.
        let agreed = names_where(merge, |at| format!("z.act = 'merge' AND z.d{at} <> {OPEN}"));
        // Also a write of no row fires a table's triggers for the statement, and needs the right: only what may ever be needed.
        let writes: Vec<String> = [Side::Left, Side::Right]
            .into_iter()
            .flat_map(|side| {
                let l = letter(side);
                let insert = if self.inserts(side) { self.insert(side) } else { format!("i{l} AS ({})", self.nothing(side)) };
                let delete = if merge.deletes == Deletes::Follow {
                    self.delete(side)
                } else {
                    format!("d{l} AS ({})", self.nothing(side))
                };
                [self.update(side, "z.act = 'merge'"), insert, delete]
            })
            .collect();
        let lost = |side: Side, l: char| {
            let table = quote_literal(&self.half(side).table.name);
            format!(
                "WHEN z.act = 'merge' AND z.needs_{0} AND u{l}.n IS NULL OR z.act = 'make_{0}' AND i{l}.id IS NULL OR z.act = 'delete_{0}' AND d{l}.n IS NULL THEN {table}",
                side.word()
            )
        };
        Ok(format!(
            "{sql},
{outcome},
s AS NOT MATERIALIZED (
    SELECT z.*, ({}) AS needs_left, ({}) AS needs_right, {unmet} AS unmet, {open} AS open, {agreed} AS agreed
      FROM z OFFSET 0),
p AS MATERIALIZED (SELECT z.*, nl.new_l, nr.new_r FROM s AS z {} {}),
{},
o AS (
    SELECT z.n, z.organization_id, z.link, COALESCE(z.left_id, z.new_l::text) AS left_id, COALESCE(z.right_id, z.new_r::text) AS right_id,
           CASE WHEN z.act IN ('merge', 'make_left', 'make_right')
                THEN pg_catalog.jsonb_build_object('left', {}, 'right', {}, 'held', pg_catalog.to_jsonb(z.open), 'as', {}::jsonb)
                WHEN z.act = 'open' THEN z.base || '{{\"held\": [\"{WHOLE_ROW}\"]}}' END AS base,
           CASE WHEN z.act = 'open' OR z.open <> '{{}}' THEN pg_catalog.jsonb_build_object(
                'fields', CASE WHEN z.act = 'open' THEN '[\"{WHOLE_ROW}\"]' ELSE pg_catalog.to_jsonb(z.open) END,
                'base', z.j_left - z.agreed, 'ours', CASE WHEN z.has_l THEN {} - z.agreed END, 'theirs', CASE WHEN z.has_r THEN {} - z.agreed END,
                'severity', {}) END AS conflict,
           z.held <> '[]' AS had,
           CASE {} {} END AS lost, {} AS echo
      FROM p AS z{}{}
     WHERE z.act <> 'merge' OR z.act = 'merge' AND (z.held <> '[]' OR {}))
SELECT pg_catalog.array_agg(o.n), pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.link), pg_catalog.array_agg(o.left_id),
       pg_catalog.array_agg(o.right_id), pg_catalog.array_agg(o.base), pg_catalog.array_agg(o.conflict), pg_catalog.array_agg(o.had),
       pg_catalog.min(o.lost), pg_catalog.count(*) FILTER (WHERE o.conflict IS NOT NULL OR o.had),
       pg_catalog.count(*) FILTER (WHERE o.echo), {IDLE}
  FROM o",
            self.needs(Side::Left),
            self.needs(Side::Right),
            self.new_id(Side::Left),
            self.new_id(Side::Right),
            writes.join(",\n"),
            self.base(Side::Left),
            self.base(Side::Right),
            quote_literal(serde_json::json!(self.evaluation.forms()).to_string()),
            self.found(Side::Left),
            self.found(Side::Right),
            self.severity(),
            lost(Side::Left, 'l'),
            lost(Side::Right, 'r'),
            self.any_echo(&[Side::Left, Side::Right]),
            self.written(Side::Left),
            self.written(Side::Right),
            any(&format!("<> {SAME}")),
        ))
    }

    fn look(&self) -> Result<String> {
        let values: Vec<String> = self
            .merge()
            .fields
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let of = |side: Side| format!("{}::text", self.evaluation.value(field, side, "v"));
                format!(
                    "({}, v.base -> 'left' ->> {0}, v.base -> 'right' ->> {0}, {}, {}, v.d{at}, v.hb{at}, v.cl{at}, v.cr{at})",
                    quote_literal(&field.name),
                    of(Side::Left),
                    of(Side::Right),
                )
            })
            .collect();
        Ok(format!(
            "{}
SELECT v.n, v.act, v.has_l, v.has_r, f.field, f.base_left, f.base_right, f.left_value, f.right_value, f.d, f.met, v.link IS NOT NULL, f.changed_left, f.changed_right
  FROM v CROSS JOIN LATERAL (VALUES {}) AS f (field, base_left, base_right, left_value, right_value, d, met, changed_left, changed_right)",
            self.evaluation.sql(false)?,
            values.join(", ")
        ))
    }

    /// Rows of the other side that have the key of rows here.
    fn find(&self) -> Option<String> {
        if self.merge().matches.is_empty() {
            return None;
        }
        let (here, there) = (self.half(self.evaluation.sides.here), self.half(self.evaluation.sides.here.other()));
        let columns: Vec<(String, String)> = self
            .merge()
            .matches
            .iter()
            .map(|(left, right)| {
                let (own, others) = if here.side == Side::Left { (left, right) } else { (right, left) };
                (quote_identifier(own), quote_identifier(others))
            })
            .collect();
        let of = |half: &Half, alias: &str| {
            half.organization.as_ref().map(|column| format!(" AND {alias}.{column} = u.organization_id")).unwrap_or_default()
        };
        let equal: Vec<String> = columns.iter().map(|(own, others)| format!("t.{others} = h.{own}")).collect();
        Some(format!(
            "SELECT pg_catalog.array_agg(u.n), pg_catalog.array_agg(u.organization_id), pg_catalog.array_agg(u.id), pg_catalog.array_agg(t.id)
  FROM unnest($1::integer[], $2::uuid[], $3::text[]) AS u (n, organization_id, id)
 CROSS JOIN LATERAL (SELECT {} FROM {} AS h WHERE h.{} = u.id::{}{} OFFSET 0) AS h
 CROSS JOIN LATERAL (SELECT t.{}::text AS id FROM {} AS t WHERE {}{} OFFSET 0) AS t",
            columns.iter().map(|(own, _)| format!("h.{own}")).collect::<Vec<_>>().join(", "),
            here.table.sql,
            quote_identifier(&here.id.name),
            here.id.type_sql,
            of(here, "h"),
            quote_identifier(&there.id.name),
            there.table.sql,
            equal.join(" AND "),
            of(there, "t"),
        ))
    }
}

/// Which rows a batch is about, each once: `(n, organization, id, deleted, former id)` as arrays, and how many have got another id, with the parameters of every flow's statement.
fn about(w: &Writer<'_>, here: &Half) -> String {
    let id = quote_literal(&here.id.name);
    format!(
        "SELECT pg_catalog.array_agg(x.n), pg_catalog.array_agg(x.organization_id), pg_catalog.array_agg(x.id), pg_catalog.array_agg(x.deleted),
       pg_catalog.array_agg(x.former), pg_catalog.count(*) FILTER (WHERE x.former <> x.id)
  FROM (SELECT DISTINCT ON (b.organization_id, i.id) b.n::integer AS n, b.organization_id, i.id, b.op = 'D' AS deleted, ((b.old ->> {id})::{})::text AS former
          FROM {} CROSS JOIN LATERAL (SELECT ((COALESCE(b.new ->> {id}, b.old ->> {id}))::{})::text AS id) AS i{}
         ORDER BY b.organization_id, i.id, b.n DESC) AS x",
        here.id.type_sql,
        w.from(),
        here.id.type_sql,
        w.range()
    )
}

/// The statements of a merge; the first is that of [`about`].
pub(in super::super) fn compile(w: &Writer<'_>) -> Result<(String, Statements)> {
    let definition: &Definition = w.definition;
    let merge = definition.merge().ok_or_else(|| UsherError::internal("a flow without a merge"))?;
    let sides: Sides = sides::sides(definition, merge)?;
    let builder = Builder { evaluation: Evaluation { sides: &sides, merge } };
    let sequences = sides.left.sequence.into_iter().chain(sides.right.sequence).collect();
    let (find, write, quick, look) = (builder.find(), builder.write()?, builder.quick()?, builder.look()?);
    Ok((about(w, sides.half(sides.here)), Statements { find, write, quick, look, sequences }))
}

/// Types of the parameters of [`Statements::write`], [`Statements::quick`] and [`Statements::look`].
pub const TYPES: &[pg_sys::BuiltinOid] = evaluate::TYPES;
