//! A plan as people read it: a line for each kind and action, with a few samples.

use super::manage;
use super::model;
use crate::error::{Result, UsherError};
use crate::pg::{role, spi};
use pgrx::Uuid;

pub struct Line {
    pub kind: String,
    pub action: String,
    pub items: i64,
    pub done: i64,
    pub failed: i64,
    pub says: String,
    pub samples: Vec<String>,
}

const MOST_SAMPLES: i32 = 100;

/// `$1` migration, `$2` left and `$3` right table, `$4` how many samples. Items whose error is told come first among the samples.
const LINES: &str = "
SELECT g.kind, g.action, g.why, g.items, g.done, g.failed,
       ARRAY(SELECT pg_catalog.concat_ws(' - ', $2 || ' ' || s.left_id, $3 || ' ' || s.right_id)
                    || COALESCE(': ' || (SELECT pg_catalog.string_agg(f.key || ' (' || f.value || ')', ', ' ORDER BY f.key) FROM pg_catalog.jsonb_each_text(s.fields) AS f), '')
                    || COALESCE(': ' || s.error_message, '')
               FROM (SELECT i.* FROM usher.migration_items AS i
                      WHERE i.migration_id = $1 AND i.kind = g.kind AND i.action = g.action AND i.why IS NOT DISTINCT FROM g.why AND (i.state = 'failed' OR g.failed = 0)
                      ORDER BY i.n LIMIT $4) AS s ORDER BY s.n)
  FROM (SELECT i.kind, i.action, i.why, pg_catalog.count(*) AS items, pg_catalog.count(*) FILTER (WHERE i.state = 'done') AS done,
               pg_catalog.count(*) FILTER (WHERE i.state = 'failed') AS failed, pg_catalog.min(i.n) AS first
          FROM usher.migration_items AS i WHERE i.migration_id = $1 GROUP BY i.kind, i.action, i.why) AS g
 ORDER BY pg_catalog.array_position('{matched,only_left,only_right,different,ambiguous}'::text[], g.kind), g.action, g.why";

/// What is in a plan, and how far it is.
pub fn plan(id: Option<Uuid>, samples: i32) -> Result<Vec<Line>> {
    if !(0..=MOST_SAMPLES).contains(&samples) {
        return Err(UsherError::invalid(format!("samples is {samples}")).hint(format!("Give a number from 0 to {MOST_SAMPLES}.")));
    }
    let (installed, id, migration) = manage::find("show_plan", id)?;
    let _acting = role::internal(installed.owner);
    let (left, right) = (migration.left.as_str(), migration.right.as_str());
    let found = spi::read_all(LINES, &[spi::arg(id), spi::arg(left), spi::arg(right), spi::arg(samples)], |row| {
        let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
        let count = |at| row.get::<i64>(at).map(|count| count.unwrap_or(0));
        let (kind, action, why, items) = (text(1)?, text(2)?, row.get::<String>(3)?, count(4)?);
        let says = model::says(&kind, &action, items, left, right, why.as_deref());
        let samples = row.get::<Vec<String>>(7)?.unwrap_or_default();
        Ok(Line { kind, action, items, done: count(5)?, failed: count(6)?, says, samples })
    })?;
    let plain = |kind: &str, items: i64| Line {
        kind: kind.to_owned(),
        action: "nothing".to_owned(),
        items,
        done: 0,
        failed: 0,
        says: model::says(kind, "nothing", items, left, right, None),
        samples: Vec::new(),
    };
    let mut lines = vec![plain("equal", migration.equal)];
    lines.extend(found);
    if migration.left_out > 0 {
        lines.push(plain("left_out", migration.left_out));
    }
    Ok(lines)
}
