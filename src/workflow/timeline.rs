//! What has happened to a run, in the order in which it did.

use crate::error::Result;
use crate::pg::{role, spi};
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::prelude::*;

/// When, step, element, what, how long it took, further words.
pub type Line = (TimestampWithTimeZone, Option<String>, Option<i32>, String, Option<pgrx::datum::Interval>, Option<String>);

/// `$1` organization, `$2` run. What steps did stands with them; what failed and what people did, in the log.
const LINES: &str = "
SELECT l.at, l.step, NULLIF(l.item, 0), l.what, l.took, l.detail
  FROM (SELECT r.started_at AS at, NULL::text AS step, NULL::integer AS item, 'started' AS what, NULL::interval AS took,
               'by ' || r.started_by AS detail, 0 AS turn FROM usher.workflow_runs AS r WHERE r.organization_id = $1 AND r.id = $2
        UNION ALL
        SELECT s.ended_at, s.step, s.item, CASE s.state WHEN 'skipped' THEN 'skipped' WHEN 'cancelled' THEN 'cancelled' ELSE 'done' END,
               s.ended_at - s.started_at, CASE WHEN s.result IS NOT NULL THEN pg_catalog.left(s.result::text, 200) END, 1
          FROM usher.workflow_steps AS s
         WHERE s.organization_id = $1 AND s.run_id = $2 AND s.ended_at IS NOT NULL AND s.state <> 'failed'
        UNION ALL
        SELECT s.undone_at, s.step, s.item, 'undone', s.undone_at - s.undo_started_at, NULL, 2
          FROM usher.workflow_steps AS s WHERE s.organization_id = $1 AND s.run_id = $2 AND s.undone_at IS NOT NULL
        UNION ALL
        SELECT s.started_at, s.step, s.item, s.state, NULL, w.due, 3
          FROM usher.workflow_steps AS s
          LEFT JOIN LATERAL (SELECT 'until ' || q.due_at AS due FROM usher.queue_waiting AS q WHERE q.organization_id = s.organization_id AND q.id = s.clock_id) AS w ON true
         WHERE s.organization_id = $1 AND s.run_id = $2 AND s.state IN ('looking', 'running', 'waiting', 'sleeping')
        UNION ALL
        SELECT s.undo_started_at, s.step, s.item, s.state, NULL, NULL, 3
          FROM usher.workflow_steps AS s WHERE s.organization_id = $1 AND s.run_id = $2 AND s.state = 'undoing'
        UNION ALL
        SELECT g.happened_at, g.step, g.item, g.what, NULL, pg_catalog.concat_ws(', ', g.detail, 'by ' || g.by_whom), 1
          FROM usher.workflow_log AS g WHERE g.organization_id = $1 AND g.run_id = $2
        UNION ALL
        SELECT r.ended_at, NULL, NULL, r.state, r.ended_at - r.started_at, r.error_message, 4
          FROM usher.workflow_runs AS r WHERE r.organization_id = $1 AND r.id = $2 AND r.ended_at IS NOT NULL
        UNION ALL
        SELECT pg_catalog.clock_timestamp(), NULL, NULL, r.state, NULL, pg_catalog.concat_ws('. ', r.error_message, r.remedy), 5
          FROM usher.workflow_runs AS r WHERE r.organization_id = $1 AND r.id = $2 AND r.ended_at IS NULL AND r.state <> 'running') AS l
 ORDER BY l.at, l.turn, l.step, l.item";

pub fn lines(installed: Installed, organization: Uuid, run: Uuid) -> Result<Vec<Line>> {
    let _acting = role::internal(installed.owner);
    let lines = spi::read_all(LINES, &[spi::arg(organization), spi::arg(run)], |row| {
        Ok(row.get::<TimestampWithTimeZone>(1)?.map(|at| -> Result<Line> {
            Ok((
                at,
                row.get::<String>(2)?,
                row.get::<i32>(3)?,
                row.get::<String>(4)?.unwrap_or_default(),
                row.get::<pgrx::datum::Interval>(5)?,
                row.get::<String>(6)?,
            ))
        }))
    })?;
    lines.into_iter().flatten().collect()
}
