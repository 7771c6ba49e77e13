//! The quick way of a merge: for pairs of which only the other side's row is to be written, as it is with nearly all.
//!
//! Nothing is locked but the link, which the caller holds, and the row that is written. Both rows are read as they are; the base keeps what
//! was read. Who changes a row after that makes a job, and that job waits for the link: it finds a base that knows nothing of the change.
//! The write takes the row only as it was read, by `xmin`; a pair whose row has changed meanwhile is left, as are pairs without a base,
//! pairs with a conflict, and rows that come and go: a delete that is told before the link is there to be found would be lost.

use super::evaluate::{OPEN, SAME, letter, value_of};
use super::statement::{Builder, IDLE, object};
use crate::error::Result;
use pgrx::spi::quote_literal;

/// The pairs' columns, as the parameters of a merge's statements have them.
const PAIR: [&str; 8] = ["n", "organization_id", "left_id", "right_id", "base", "gone", "link", "decided"];

impl Builder<'_> {
    /// What was noted, as the full statement tells it, then the pairs that are left to it.
    pub(super) fn quick(&self) -> Result<String> {
        let merge = self.merge();
        let here = self.evaluation.sides.here;
        let there = here.other();
        let (own, other) = (here.word(), there.word());
        let (l, fields) = (letter(there), 0..merge.fields.len());
        let base = |now: &dyn Fn(usize) -> String, side| {
            let fields: Vec<(String, String)> = merge
                .fields
                .iter()
                .enumerate()
                .map(|(at, field)| (field.name.clone(), value_of(self.evaluation.column(field, side), &format!("({})", now(at)))))
                .collect();
            object(&fields)
        };
        let kept = base(&|at| self.before(at, here), here);
        let written = base(
            &|at| format!("CASE WHEN u{l}.n IS NOT NULL THEN {} ELSE {} END", self.taken(at, there), self.before(at, there)),
            there,
        );
        let all = |test: &str, by: &str| fields.clone().map(|at| format!("z.d{at} {test}")).collect::<Vec<_>>().join(by);
        let done = format!("z.quick AND (NOT z.needs_{other} OR u{l}.n IS NOT NULL)");
        let rest: Vec<String> =
            PAIR.iter().map(|name| format!("pg_catalog.array_agg(o.{name}) FILTER (WHERE NOT o.done)")).collect();
        let noted = ["n", "organization_id", "link", "left_id", "right_id", "now"];
        let noted: Vec<String> =
            noted.iter().map(|name| format!("pg_catalog.array_agg(o.{name}) FILTER (WHERE o.done)")).collect();
        Ok(format!(
            "{},
{},
s AS NOT MATERIALIZED (SELECT z.*, ({}) AS needs_{own}, ({}) AS needs_{other} FROM z OFFSET 0),
p AS MATERIALIZED (
    SELECT z.*, COALESCE(z.act = 'merge' AND z.link IS NOT NULL AND z.j_left IS NOT NULL AND z.held = '[]' AND NOT z.needs_{own} AND {}, false) AS quick
      FROM s AS z),
{},
o AS (
    SELECT z.n, z.organization_id, z.left_id, z.right_id, z.base, z.gone, z.link, z.decided, d.done, d.done AND ({}) AS echo,
           CASE WHEN d.done THEN pg_catalog.jsonb_build_object('{own}', {kept}, '{other}', {written}, 'held', '[]'::jsonb, 'as', {}::jsonb) END AS now
      FROM p AS z LEFT JOIN u{l} ON u{l}.n = z.n CROSS JOIN LATERAL (SELECT {done} AS done) AS d
     WHERE z.act IS NOT NULL AND (NOT d.done OR {}))
SELECT {}, NULL::jsonb[], NULL::boolean[], NULL::text, 0::bigint, pg_catalog.count(*) FILTER (WHERE o.echo), {IDLE}, {}
  FROM o",
            self.evaluation.sql(false)?,
            self.evaluation.outcome()?,
            self.needs(here),
            self.needs(there),
            all(&format!("<> {OPEN}"), " AND "),
            self.update(there, &format!("z.quick AND t.xmin = z.{l}_written")),
            self.any_echo(&[there]),
            quote_literal(serde_json::json!(self.evaluation.forms()).to_string()),
            all(&format!("<> {SAME}"), " OR "),
            noted.join(", "),
            rest.join(", "),
        ))
    }
}
