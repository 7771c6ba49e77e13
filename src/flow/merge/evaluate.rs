//! The part of a merge's statements that looks at both rows of each pair and says what holds.
//!
//! Parameters: `$1` numbers, `$2` organizations, `$3` left and `$4` right ids, `$5` bases (NULL: the rows have not met), `$6` the side whose
//! row is said to be deleted, `$7` links, `$8` decisions that somebody has taken. It ends with the common table expression `v`: for each
//! pair `act`, what is to be done with its rows, and for each field `d`, which side holds.

use super::super::catalog::Column;
use super::definition::{AgainstEdit, Deletes, Field, Merge, Side, Strategy, WHOLE_ROW};
use super::sides::{self, Half, Sides, column_of, way_to};
use crate::error::Result;
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub const TYPES: &[pg_sys::BuiltinOid] = &[
    pg_sys::BuiltinOid::INT4ARRAYOID,
    pg_sys::BuiltinOid::UUIDARRAYOID,
    pg_sys::BuiltinOid::TEXTARRAYOID,
    pg_sys::BuiltinOid::TEXTARRAYOID,
    pg_sys::BuiltinOid::JSONBARRAYOID,
    pg_sys::BuiltinOid::TEXTARRAYOID,
    pg_sys::BuiltinOid::UUIDARRAYOID,
    pg_sys::BuiltinOid::JSONBARRAYOID,
];

/// What holds of a field: nothing has changed; the left value; the right one; both together; both are equal; nobody knows.
pub const SAME: u8 = 0;
pub const LEFT: u8 = 1;
pub const RIGHT: u8 = 2;
pub const BOTH: u8 = 3;
pub const AGREED: u8 = 4;
pub const OPEN: u8 = 5;

/// The letter under which a side's columns go.
pub fn letter(side: Side) -> char {
    match side {
        Side::Left => 'l',
        Side::Right => 'r',
    }
}

/// `a IS DISTINCT FROM b`, for types without equality by their text.
pub fn differs(column: &Column, left: &str, right: &str) -> String {
    if column.compare_as_text {
        format!("({left}::text IS DISTINCT FROM {right}::text)")
    } else {
        format!("({left} IS DISTINCT FROM {right})")
    }
}

/// A value as the base keeps it: as a job keeps a column.
pub fn json_of(column: &Column, value: &str) -> String {
    if column.native {
        format!("pg_catalog.to_jsonb({value})")
    } else {
        format!("pg_catalog.to_jsonb(CASE WHEN pg_catalog.num_nulls({value}) = 0 THEN pg_catalog.concat({value}) END)")
    }
}

/// The same as a value of `jsonb_build_object()`, which makes JSON of it anyway.
pub fn value_of(column: &Column, value: &str) -> String {
    if column.native { value.to_owned() } else { json_of(column, value) }
}

/// The columns of a side that are read, as the row `new`, from those of a common table expression.
pub fn row(half: &Half, from: &str) -> String {
    let fields: Vec<String> = half
        .read
        .iter()
        .enumerate()
        .map(|(n, column)| format!("{from}.{}{n} AS {}", letter(half.side), quote_identifier(&column.name)))
        .collect();
    format!("(SELECT {}) AS new", fields.join(", "))
}

/// The rows of a side, locked or not. The right ones only after the left ones: two workers that come from both sides do not lock each
/// other out.
fn rows(half: &Half, lock: bool, joined: bool) -> String {
    let name = letter(half.side);
    let mut columns = vec!["t.xmin AS written".to_owned()];
    columns.extend(half.read.iter().enumerate().map(|(n, column)| format!("t.{} AS c{n}", quote_identifier(&column.name))));
    let organization =
        half.organization.as_ref().map(|column| format!(" AND t.{column} = k.organization_id")).unwrap_or_default();
    if joined {
        return format!(
            "{name} AS MATERIALIZED (
    SELECT k.n, {} FROM k JOIN {} AS t ON t.{} = k.{}_id::{}{organization})",
            columns.join(", "),
            half.table.sql,
            quote_identifier(&half.id.name),
            half.side.word(),
            half.id.type_sql,
        );
    }
    let (first, after) = match half.side {
        Side::Left => ("", ""),
        Side::Right => ("(SELECT pg_catalog.count(*) AS n FROM l) AS first CROSS JOIN ", " AND first.n >= 0"),
    };
    format!(
        "{name} AS MATERIALIZED (
    SELECT k.n, t.* FROM {first}k CROSS JOIN LATERAL (
           SELECT {} FROM {} AS t WHERE t.{} = k.{}_id::{}{organization}{after}{}) AS t)",
        columns.join(", "),
        half.table.sql,
        quote_identifier(&half.id.name),
        half.side.word(),
        half.id.type_sql,
        // Whoever writes rows that refer to these need not wait.
        if lock { " FOR NO KEY UPDATE" } else { " OFFSET 0" }
    )
}

/// A few letters that stand for a text; another text has others, but for one in 16 million. FNV-1a of 32 bits, of which 24 are shown.
fn short(text: &str) -> String {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{:06x}", hash >> 8)
}

pub struct Evaluation<'a> {
    pub sides: &'a Sides,
    pub merge: &'a Merge,
}

impl Evaluation<'_> {
    /// A field's value on a side, in a common table expression.
    pub fn value(&self, field: &Field, side: Side, from: &str) -> String {
        let half = self.sides.half(side);
        format!("{from}.{}{}", letter(side), half.at(column_of(field, side)))
    }

    /// What a field's base is about, its columns and their types: in short, because each link keeps it.
    fn form(&self, field: &Field) -> String {
        let of = |side: Side| {
            let column = self.column(field, side);
            format!("{} {}", column.name, column.type_sql)
        };
        short(&format!("{} = {}", of(Side::Left), of(Side::Right)))
    }

    /// The same of all fields, by their names.
    pub fn forms(&self) -> BTreeMap<&str, String> {
        self.merge.fields.iter().map(|field| (field.name.as_str(), self.form(field))).collect()
    }

    pub fn column(&self, field: &Field, side: Side) -> &Column {
        self.sides.half(side).column(column_of(field, side))
    }

    /// A base may keep a value of an enum by a name that it has no more: it says nothing then.
    fn still_named(&self, field: &Field, side: Side) -> String {
        let column = self.column(field, side);
        if !column.is_enum {
            return String::new();
        }
        format!(
            " AND (k.j_{0} ->> {1} IS NULL OR k.j_{0} ->> {1} = ANY ((SELECT pg_catalog.enum_range(NULL::{2})::text[])::text[]))",
            side.word(),
            quote_literal(&field.name),
            column.base_sql
        )
    }

    /// What a side would get of a field, from the row `new` of the other.
    fn sent(&self, field: &Field, to: Side) -> String {
        let column = self.column(field, to);
        match way_to(field, to) {
            Some(text) => format!("({text}\n)::{}", column.base_sql),
            None => format!("(new.{})::{}", quote_identifier(column_of(field, to.other())), column.base_sql),
        }
    }

    /// SQL that is true when the left row was written after the right one.
    fn left_is_later(&self) -> String {
        match &self.merge.times {
            Some((left, right)) => {
                let (left, right) = (format!("x.l{}", self.sides.left.at(left)), format!("x.r{}", self.sides.right.at(right)));
                format!("CASE WHEN {left} IS NULL THEN false WHEN {right} IS NULL THEN true ELSE {left} >= {right} END")
            }
            // A transaction gets its number when it first writes.
            None => "pg_catalog.age(x.l_written) <= pg_catalog.age(x.r_written)".to_owned(),
        }
    }

    fn strategy(field: &Field) -> String {
        let later = || format!("CASE WHEN y.left_is_later THEN {LEFT} ELSE {RIGHT} END");
        match &field.strategy {
            Strategy::Source => LEFT.to_string(),
            Strategy::Target => RIGHT.to_string(),
            Strategy::Latest => later(),
            // Without a base, or a number, nobody knows what was added.
            Strategy::Add => later(),
            Strategy::Function(_) => BOTH.to_string(),
            Strategy::Manual => OPEN.to_string(),
        }
    }

    /// What is decided before equal values count as agreed: who has added the same as the other side has added too.
    fn before_equal(&self, at: usize, field: &Field) -> String {
        match field.strategy {
            Strategy::Add => {
                let right = self.value(field, Side::Right, "y");
                format!("WHEN y.hb{at} AND pg_catalog.num_nulls(y.f{at}, {right}, y.br{at}) = 0 THEN {BOTH}\n                ")
            }
            _ => String::new(),
        }
    }

    fn together(&self, at: usize, field: &Field) -> Result<Option<String>> {
        let right = self.value(field, Side::Right, "v");
        Ok(match &field.strategy {
            Strategy::Add => Some(format!("(v.f{at} + ({right} - v.br{at}))")),
            Strategy::Function(name) => Some(format!("{}(v.br{at}, v.f{at}, {right})", sides::function(field, name)?)),
            _ => None,
        })
    }

    /// `WITH k, l, r, x, y, v`.
    pub fn sql(&self, lock: bool) -> Result<String> {
        self.of(
            "SELECT u.* FROM unnest($1::integer[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::uuid[], $8::jsonb[])
                      AS u (n, organization_id, left_id, right_id, base, gone, link, decided) ORDER BY u.left_id, u.right_id",
            lock,
            false,
        )
    }

    /// The same over pairs of a relation, which has the columns of the parameters: `$1` and `$2` first and last number. Nothing is locked,
    /// and the tables are joined as a whole: for very many pairs.
    pub fn over(&self, pairs: &str) -> Result<String> {
        self.of(
            &format!(
                "SELECT u.n, u.organization_id, u.left_id, u.right_id, u.base, u.gone, u.link, u.decided FROM {pairs} AS u WHERE u.n BETWEEN $1 AND $2"
            ),
            false,
            true,
        )
    }

    fn of(&self, pairs: &str, lock: bool, joined: bool) -> Result<String> {
        let Self { sides, merge, .. } = self;
        let fields = || merge.fields.iter().enumerate();
        let mut x = String::new();
        for half in [&sides.left, &sides.right] {
            let side = letter(half.side);
            for (n, column) in half.read.iter().enumerate() {
                let field = merge.fields.iter().find(|field| half.side == Side::Left && field.left == column.name);
                let _ = match field {
                    // What somebody has decided stands for what the left row has.
                    Some(field) => write!(
                        x,
                        ", CASE WHEN k.decided -> 'values' ? {0} THEN (k.decided -> 'values' ->> {0})::{1} ELSE l.c{n} END AS l{n}, l.c{n} AS was{n}",
                        quote_literal(&field.name),
                        column.base_sql
                    ),
                    None => write!(x, ", {side}.c{n} AS {side}{n}"),
                };
            }
        }
        let mut bases = String::new();
        for (at, field) in fields() {
            let name = quote_literal(&field.name);
            // A base of other columns, or of another type, says nothing of these.
            let form = quote_literal(self.form(field));
            let known: String = [Side::Left, Side::Right].into_iter().map(|side| self.still_named(field, side)).collect();
            let _ = write!(x, ", COALESCE(k.j_as ->> {name} = {form} AND k.j_left ? {name}{known}, false) AS hb{at}");
            for side in [Side::Left, Side::Right] {
                let (column, side, of) = (self.column(field, side), side.word(), letter(side));
                let _ = write!(bases, ", CASE WHEN x.hb{at} THEN (x.j_{side} ->> {name})::{} END AS b{of}{at}", column.base_sql);
            }
        }
        let list = |to: Side| {
            let parts: Vec<String> = fields()
                .map(|(at, field)| format!("{} AS {}{at}", self.sent(field, to), if to == Side::Right { 'f' } else { 'g' }))
                .collect();
            parts.join(", ")
        };
        let mut verdicts = String::new();
        // Rows that have never agreed on anything may have been changed.
        let mut edited = ["y.j_left IS NULL".to_owned(), "y.j_left IS NULL".to_owned()];
        for (at, field) in fields() {
            let name = quote_literal(&field.name);
            let (left, right) = (self.value(field, Side::Left, "y"), self.value(field, Side::Right, "y"));
            let changed = |side: Side, value: &str| differs(self.column(field, side), value, &format!("y.b{}{at}", letter(side)));
            let (changed_left, changed_right) = (changed(Side::Left, &left), changed(Side::Right, &right));
            let equal = format!(
                "NOT ({} AND {})",
                differs(self.column(field, Side::Right), &format!("y.f{at}"), &right),
                differs(self.column(field, Side::Left), &left, &format!("y.g{at}"))
            );
            let _ = write!(
                verdicts,
                ",
           {changed_left} AS cl{at}, {changed_right} AS cr{at},
           CASE WHEN NOT (y.has_l AND y.has_r) THEN {SAME}
                WHEN y.decided -> 'take' ->> {name} = 'left' THEN {LEFT} WHEN y.decided -> 'take' ->> {name} = 'right' THEN {RIGHT}
                WHEN y.held ? {name} THEN CASE WHEN {equal} THEN {AGREED} ELSE {OPEN} END
                WHEN y.hb{at} AND NOT {changed_right} THEN CASE WHEN {changed_left} THEN {LEFT} ELSE {SAME} END
                WHEN y.hb{at} AND NOT {changed_left} THEN {RIGHT}
                {}WHEN {equal} THEN {AGREED}
                ELSE {} END AS d{at}",
                self.before_equal(at, field),
                Self::strategy(field)
            );
            for (text, changed) in edited.iter_mut().zip([changed_left, changed_right]) {
                let _ = write!(text, " OR y.hb{at} AND {changed}");
                // What the base says of it is not known any more: it may have been changed.
                if self.column(field, Side::Left).is_enum || self.column(field, Side::Right).is_enum {
                    let form = quote_literal(self.form(field));
                    let _ = write!(text, " OR NOT y.hb{at} AND COALESCE(y.j_as ->> {name} = {form}, false)");
                }
            }
        }
        let [edited_left, edited_right] = edited;
        Ok(format!(
            "WITH k AS MATERIALIZED (
    SELECT k.*, k.base -> 'left' AS j_left, k.base -> 'right' AS j_right, k.base -> 'as' AS j_as FROM ({pairs}) AS k),
{},
{},
x AS NOT MATERIALIZED (
    SELECT k.*, COALESCE(k.base -> 'held', '[]') AS held, l.n IS NOT NULL AS has_l, r.n IS NOT NULL AS has_r, l.written AS l_written, r.written AS r_written{x}
      FROM k LEFT JOIN l ON l.n = k.n LEFT JOIN r ON r.n = k.n OFFSET 0),
y AS NOT MATERIALIZED (
    SELECT x.*, {} AS left_is_later, f.*, g.*{bases}
      FROM x CROSS JOIN LATERAL (SELECT {} FROM {}) AS f CROSS JOIN LATERAL (SELECT {} FROM {}) AS g OFFSET 0),
v AS {} (
    SELECT y.*, {} AS act{verdicts}
      FROM y OFFSET 0)",
            rows(&sides.left, lock, joined),
            rows(&sides.right, lock, joined),
            self.left_is_later(),
            list(Side::Right),
            row(&sides.left, "x"),
            list(Side::Left),
            row(&sides.right, "x"),
            // Each step stands by itself, so that nothing is worked out twice, and is kept only where it is read more than once.
            if joined { "MATERIALIZED" } else { "NOT MATERIALIZED" },
            self.act(&edited_left, &edited_right),
        ))
    }

    /// What is to be done with the rows of a pair; NULL: nothing.
    fn act(&self, edited_left: &str, edited_right: &str) -> String {
        let merge = self.merge;
        // A row is gone, and its delete has been told: without that it might only be hidden.
        let deleted = |gone: Side, edited: &str| {
            if merge.deletes == Deletes::Keep {
                return "NULL".to_owned();
            }
            let (bring, take) = (format!("'make_{}'", gone.word()), format!("'delete_{}'", gone.other().word()));
            let against = match merge.against_edit {
                AgainstEdit::Edit => bring,
                AgainstEdit::Delete => take.clone(),
                AgainstEdit::Manual => "'open'".to_owned(),
            };
            // What somebody must decide is not settled by a delete.
            format!("CASE WHEN y.held <> '[]' THEN 'open' WHEN {edited} THEN {against} ELSE {take} END")
        };
        let makes = |side: Side, yes: bool| if yes { format!("'make_{}'", side.word()) } else { "NULL".to_owned() };
        format!(
            "CASE WHEN y.has_l AND y.has_r THEN 'merge'
                WHEN y.decided -> 'take' ->> '{WHOLE_ROW}' = 'left' THEN CASE WHEN y.has_l THEN 'make_right' WHEN y.has_r THEN 'delete_right' ELSE 'forget' END
                WHEN y.decided -> 'take' ->> '{WHOLE_ROW}' = 'right' THEN CASE WHEN y.has_r THEN 'make_left' WHEN y.has_l THEN 'delete_left' ELSE 'forget' END
                WHEN y.link IS NULL THEN CASE WHEN y.has_l THEN {} WHEN y.has_r THEN {} END
                WHEN NOT y.has_l AND NOT y.has_r THEN CASE WHEN y.gone IS NOT NULL THEN 'forget' END
                WHEN y.held ? '{WHOLE_ROW}' THEN 'open'
                WHEN y.gone = 'left' AND NOT y.has_l THEN {}
                WHEN y.gone = 'right' AND NOT y.has_r THEN {} END",
            makes(Side::Right, merge.creates_right),
            makes(Side::Left, merge.creates_left),
            deleted(Side::Left, edited_right),
            deleted(Side::Right, edited_left),
        )
    }

    /// `z`: what each field becomes on both sides, after `v`. `wanted` for each field the right value, `back` the left one.
    pub fn outcome(&self) -> Result<String> {
        let mut wanted = String::new();
        let mut any_together = false;
        for (at, field) in self.merge.fields.iter().enumerate() {
            let right = self.value(field, Side::Right, "v");
            let column = self.column(field, Side::Right);
            let together = self.together(at, field)?;
            any_together |= together.is_some();
            let together =
                together.map(|text| format!(" WHEN v.d{at} = {BOTH} THEN ({text})::{}", column.base_sql)).unwrap_or_default();
            let _ = write!(wanted, ", CASE WHEN v.d{at} = {LEFT} THEN v.f{at}{together} ELSE {right} END AS wr{at}");
        }
        let mut back = String::new();
        for (at, field) in self.merge.fields.iter().enumerate() {
            let left = self.value(field, Side::Left, "w");
            let together = if matches!(field.strategy, Strategy::Add | Strategy::Function(_)) {
                format!(" WHEN w.d{at} = {BOTH} THEN h.h{at}")
            } else {
                String::new()
            };
            let _ = write!(back, ", CASE WHEN w.d{at} = {RIGHT} THEN w.g{at}{together} ELSE {left} END AS wl{at}");
        }
        // What both sides have made together goes back the way that a right row goes.
        let again = if any_together {
            let half = &self.sides.right;
            let columns: Vec<String> = half
                .read
                .iter()
                .enumerate()
                .map(|(n, column)| {
                    let of = self.merge.fields.iter().position(|field| field.right == column.name);
                    let value = of.map_or(format!("w.r{n}"), |at| format!("w.wr{at}"));
                    format!("{value} AS {}", quote_identifier(&column.name))
                })
                .collect();
            let sent: Vec<String> = self
                .merge
                .fields
                .iter()
                .enumerate()
                .filter(|(_, field)| matches!(field.strategy, Strategy::Add | Strategy::Function(_)))
                .map(|(at, field)| format!("CASE WHEN w.d{at} = {BOTH} THEN {} END AS h{at}", self.sent(field, Side::Left)))
                .collect();
            format!(" CROSS JOIN LATERAL (SELECT {} FROM (SELECT {}) AS new) AS h", sent.join(", "), columns.join(", "))
        } else {
            String::new()
        };
        Ok(format!(
            "w AS NOT MATERIALIZED (SELECT v.*{wanted} FROM v OFFSET 0),
z AS NOT MATERIALIZED (SELECT w.*{back} FROM w{again} OFFSET 0)"
        ))
    }
}
