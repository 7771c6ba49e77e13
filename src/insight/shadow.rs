//! `usher.shadow_report()`: what a flow in shadow would have done so far.

use crate::error::{Result, UsherError};
use crate::pg::{role, spi};
use crate::setup;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Line = (i32, String, i64, Option<TimestampWithTimeZone>, Option<String>);

/// How many jobs of a flow in shadow would have written, would have changed nothing, or would have failed, by version, the
/// newest first; then the last five failures, each with its job. The version that is in shadow now is there even before
/// its first job.
///
/// Arguments: `flow`, by name. Errors: 42501 for callers who are neither operators nor readers, 42704 when there is no such
/// flow, 55000 before `usher.setup()`.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn shadow_report(
    flow: Option<String>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(version, i32),
            name!(outcome, String),
            name!(jobs, i64),
            name!(last_at, Option<TimestampWithTimeZone>),
            name!(message, Option<String>),
        ),
    >,
    ErrorReport,
> {
    super::require_look("read shadow reports")?;
    Ok(TableIterator::new(report(flow.ok_or_else(|| UsherError::missing("the flow's name"))?)?))
}

fn report(flow: String) -> Result<Vec<Line>> {
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let id = spi::read::<i32>("SELECT id FROM usher.flows WHERE name = $1", &[spi::arg(flow.as_str())])?.ok_or_else(|| {
        UsherError::not_found(format!("flow \"{flow}\" does not exist")).hint("SELECT name FROM usher.flows lists them.")
    })?;
    spi::read_all(
        "WITH v AS (SELECT f.version FROM usher.flows f WHERE f.id = $1 AND f.definition -> 'shadow' = 'true'
                    UNION SELECT r.flow_version FROM usher.shadow_results r WHERE r.flow_id = $1),
              o (n, outcome) AS (VALUES (1, 'would write'), (2, 'would change nothing'), (3, 'would fail')),
              r AS (SELECT r.flow_version, CASE WHEN r.failed IS NOT NULL THEN 3 WHEN r.would_write = '[]' THEN 2 ELSE 1 END AS n,
                           pg_catalog.count(*) AS jobs, pg_catalog.max(r.recorded_at) AS last_at
                      FROM usher.shadow_results r WHERE r.flow_id = $1 GROUP BY 1, 2),
              l AS (SELECT r.flow_version, r.recorded_at, r.failed || ' (job ' || r.job_id || ')' AS message
                      FROM usher.shadow_results r WHERE r.flow_id = $1 AND r.failed IS NOT NULL ORDER BY r.recorded_at DESC LIMIT 5)
         SELECT x.version, x.outcome, x.jobs, x.last_at, x.message
           FROM (SELECT v.version, o.outcome, COALESCE(r.jobs, 0) AS jobs, r.last_at, NULL::text AS message, -v.version AS a, o.n AS b
                   FROM v CROSS JOIN o LEFT JOIN r ON r.flow_version = v.version AND r.n = o.n
                 UNION ALL SELECT l.flow_version, 'last failure', 1, l.recorded_at, l.message, 1, 4 FROM l) AS x
          ORDER BY x.a, x.b, x.last_at DESC",
        &[spi::arg(id)],
        |row| {
            Ok((
                row.get::<i32>(1)?.unwrap_or(0),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<i64>(3)?.unwrap_or(0),
                row.get::<TimestampWithTimeZone>(4)?,
                row.get::<String>(5)?,
            ))
        },
    )
}
