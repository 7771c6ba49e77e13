//! A merge over whole tables at once, without writing: the rows of both sides that it is about, and what it would say of pairs of them.
//!
//! For whoever plans how two tables that exist already are brought together. What holds of a field is said by [`Evaluation`] here too.

use super::super::definition::When;
use super::super::store::Flow;
use super::definition::Side;
use super::evaluate::{BOTH, Evaluation, LEFT, OPEN, RIGHT, SAME, differs, letter};
use super::sides::{self, Half, Sides};
use super::statement::{Builder, object};
use crate::error::{Result, UsherError};
use crate::pg::spi;
use crate::registry::tables::Column;
use pgrx::spi::{quote_identifier, quote_literal};

/// One side: its rows as the other side's are compared with them.
pub struct Rows {
    /// `schema.table`.
    pub table: String,
    /// The same, quoted.
    pub sql: String,
    /// A column says of which organization a row is.
    pub tells_organization: bool,
    /// The types, with their collations, of the columns by which rows find each other.
    pub keys: Vec<String>,
    /// The rows that belong to an organization (`$1`; NULL: to any): it, the id as text, whether the flow follows the row, the keys.
    pub read: String,
    /// The images that jobs about rows would carry: `$1` numbers, `$2` ids as text, `$3` organization; comes back as `(n, image)`.
    pub images: String,
}

pub struct Comparison {
    pub left: Rows,
    pub right: Rows,
    /// Compares pairs of a relation and enters those that are not simply equal into another: `$1` and `$2` the first and last number.
    pub compare: String,
    pub creates_left: bool,
    pub creates_right: bool,
}

/// A column's type as that of a column of our own: equal is what is equal there.
fn key_type(column: &Column) -> Result<String> {
    let collation = spi::read::<String>(
        "SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, c.collname)
           FROM pg_catalog.pg_collation AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace WHERE c.oid = $1",
        &[spi::arg(column.collation)],
    )?;
    Ok(format!("{}{}", column.base_sql, collation.unwrap_or_default()))
}

fn rows(flow: &Flow, half: &Half, matches: &[(String, String)], default_organization: &str) -> Result<Rows> {
    let table = &half.table;
    let own = |(left, right): &(String, String)| if half.side == Side::Left { left.clone() } else { right.clone() };
    let keys: Vec<&Column> = matches.iter().map(|pair| half.column(&own(pair))).collect();
    let organization =
        flow.compiled.organization.clone().unwrap_or_else(|| format!("{}::uuid", quote_literal(default_organization)));
    let id = quote_identifier(&half.id.name);
    // A condition may name what a job has beside its row; a row that was there before has no former state.
    let gone: Vec<String> = table
        .columns
        .iter()
        .filter(|column| flow.compiled.old.contains(&column.name))
        .map(|column| format!("NULL::{} AS {}", column.base_sql, quote_identifier(&column.name)))
        .collect();
    let follows = match &flow.definition.condition {
        Some(condition) => format!("COALESCE(({condition}\n), false)"),
        None => "true".to_owned(),
    };
    let about = format!(
        "{} AS new CROSS JOIN (SELECT {}) AS old CROSS JOIN LATERAL (SELECT ({organization}) AS organization_id, NULL::uuid AS id, NULL::jsonb AS payload, 'insert' AS op, pg_catalog.now() AS created_at) AS job",
        table.sql,
        gone.join(", ")
    );
    let mine = match &half.organization {
        Some(column) => {
            format!(
                "job.organization_id IS NOT NULL AND new.{column} = job.organization_id AND ($1::uuid IS NULL OR new.{column} = $1)"
            )
        }
        // All rows are of one organization, and another one's plan has none of them.
        None => "job.organization_id IS NOT NULL AND ($1::uuid IS NULL OR job.organization_id = $1)".to_owned(),
    };
    let named: String = keys.iter().map(|column| format!(", new.{}", quote_identifier(&column.name))).collect();
    let image: Vec<(String, String)> = table
        .columns
        .iter()
        .filter(|column| flow.compiled.new.contains(&column.name))
        .map(|column| (column.name.clone(), column.json_sql("new")))
        .collect();
    let of = half.organization.as_ref().map(|column| format!(" AND new.{column} = $3")).unwrap_or_default();
    Ok(Rows {
        table: table.name.clone(),
        sql: table.sql.clone(),
        tells_organization: half.organization.is_some(),
        keys: keys.into_iter().map(key_type).collect::<Result<_>>()?,
        read: format!("SELECT job.organization_id, new.{id}::text, {follows}{named} FROM {about} WHERE {mine}"),
        images: format!(
            "SELECT u.n, {} AS image FROM unnest($1::bigint[], $2::text[]) AS u (n, id) JOIN {} AS new ON new.{id} = u.id::{}{of} WHERE $3::uuid IS NOT DISTINCT FROM $3",
            object(&image),
            table.sql,
            half.id.type_sql,
        ),
    })
}

impl Builder<'_> {
    /// Numbers, which side holds by field (of fields that are not as they would be), what is to be written, whether somebody must decide.
    fn compare(&self, pairs: &str, into: &str) -> Result<String> {
        let merge = self.evaluation.merge;
        let needs = |at: usize, side: Side| {
            let column = self.evaluation.column(&merge.fields[at], side);
            differs(column, &format!("z.w{}{at}", letter(side)), &self.before(at, side))
        };
        let any = |test: &dyn Fn(usize) -> String| (0..merge.fields.len()).map(test).collect::<Vec<_>>().join(" OR ");
        let fields: Vec<(String, String)> = merge
            .fields
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let holds = format!(
                    "CASE WHEN z.d{at} = {OPEN} THEN 'nobody' WHEN {} OR {} THEN CASE z.d{at} WHEN {LEFT} THEN 'left' WHEN {RIGHT} THEN 'right' WHEN {BOTH} THEN 'together' END END",
                    needs(at, Side::Left),
                    needs(at, Side::Right)
                );
                (field.name.clone(), holds)
            })
            .collect();
        Ok(format!(
            "{},
{}
INSERT INTO {into} (n, fields, writes_left, writes_right, open)
SELECT z.n, pg_catalog.jsonb_strip_nulls({}), {}, {}, {}
  FROM z WHERE z.act = 'merge' AND (z.held <> '[]' OR {})",
            self.evaluation.over(pairs)?,
            self.evaluation.outcome()?,
            object(&fields),
            any(&|at| needs(at, Side::Left)),
            any(&|at| needs(at, Side::Right)),
            any(&|at| format!("z.d{at} = {OPEN}")),
            any(&|at| format!("z.d{at} <> {SAME}")),
        ))
    }
}

/// How the two tables of a merge are compared as they are now. `forward` and `back`: its two halves; `pairs` and `into`: relations.
pub fn comparison(forward: &Flow, back: &Flow, default_organization: &str, pairs: &str, into: &str) -> Result<Comparison> {
    let (Some(merge), When::Change { .. }) = (forward.definition.merge(), &forward.definition.when) else {
        return Err(UsherError::internal("a flow without a merge"));
    };
    let sides: Sides = sides::sides(&forward.definition, merge)?;
    let builder = Builder { evaluation: Evaluation { sides: &sides, merge } };
    Ok(Comparison {
        left: rows(forward, &sides.left, &merge.matches, default_organization)?,
        right: rows(back, &sides.right, &merge.matches, default_organization)?,
        compare: builder.compare(pairs, into)?,
        creates_left: merge.creates_left,
        creates_right: merge.creates_right,
    })
}

/// The statements that read images of rows of the left and of the right side.
pub fn images(forward: &Flow, back: &Flow, default_organization: &str) -> Result<(String, String)> {
    let merge = forward.definition.merge().ok_or_else(|| UsherError::internal("a flow without a merge"))?;
    let sides = sides::sides(&forward.definition, merge)?;
    let of = |flow: &Flow, half: &Half| rows(flow, half, &merge.matches, default_organization).map(|rows| rows.images);
    Ok((of(forward, &sides.left)?, of(back, &sides.right)?))
}
