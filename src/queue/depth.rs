//! How much work there is: the one place whose statements count the tables of jobs for people and monitors.

use crate::error::Result;
use crate::pg::spi;
use pgrx::{JsonB, Uuid};

/// Ready jobs of a lane and the age of the oldest, in seconds. Counts `usher.ready_jobs`.
pub struct Ready {
    pub lane: i16,
    pub jobs: i64,
    pub oldest: f64,
}

pub fn ready_by_lane() -> Result<Vec<Ready>> {
    spi::read_all(
        "SELECT l.lane::smallint, COALESCE(q.n, 0), COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - q.oldest), 0)::float8
           FROM pg_catalog.generate_series(0, 4) AS l (lane)
           LEFT JOIN (SELECT lane, pg_catalog.count(*) AS n, pg_catalog.min(created_at) AS oldest FROM usher.ready_jobs GROUP BY lane) q ON q.lane = l.lane
          ORDER BY l.lane",
        &[],
        |row| {
            Ok(Ready {
                lane: row.get::<i16>(1)?.unwrap_or(0),
                jobs: row.get::<i64>(2)?.unwrap_or(0),
                oldest: row.get::<f64>(3)?.unwrap_or(0.0).max(0.0),
            })
        },
    )
}

/// Jobs that wait, by reason.
pub fn waiting_by_reason() -> Result<Vec<(String, i64)>> {
    spi::read_all(
        "SELECT waiting_for, pg_catalog.count(*) FROM usher.queue_waiting GROUP BY waiting_for ORDER BY waiting_for",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<i64>(2)?.unwrap_or(0))),
    )
}

/// What a flow has: ready, waiting and dead jobs.
pub struct OfFlow {
    pub flow: String,
    pub ready: i64,
    pub waiting: i64,
    pub dead: i64,
}

/// The flows with the most jobs that are not done, by name; those beyond `most` together, without a name.
pub fn by_flow(most: i32) -> Result<Vec<OfFlow>> {
    spi::read_all(
        "WITH counted AS (
             SELECT flow_id, pg_catalog.sum(ready)::bigint AS ready, pg_catalog.sum(waiting)::bigint AS waiting, pg_catalog.sum(dead)::bigint AS dead
               FROM (SELECT flow_id, pg_catalog.count(*) AS ready, 0 AS waiting, 0 AS dead FROM usher.ready_jobs GROUP BY flow_id
                     UNION ALL SELECT flow_id, 0, pg_catalog.count(*), 0 FROM usher.queue_waiting GROUP BY flow_id
                     UNION ALL SELECT flow_id, 0, 0, pg_catalog.count(*) FROM usher.dead_letters GROUP BY flow_id
                     UNION ALL SELECT id, 0, 0, 0 FROM usher.flows) AS c
              GROUP BY flow_id),
         ranked AS (
             SELECT f.name, c.*, pg_catalog.row_number() OVER (ORDER BY (f.name IS NULL), c.ready + c.waiting + c.dead DESC, f.name) <= $1 AND f.name IS NOT NULL AS shown
               FROM counted c LEFT JOIN usher.flows f ON f.id = c.flow_id)
         SELECT CASE WHEN shown THEN name ELSE '' END, pg_catalog.sum(ready)::bigint, pg_catalog.sum(waiting)::bigint, pg_catalog.sum(dead)::bigint
           FROM ranked GROUP BY 1 ORDER BY 1",
        &[spi::arg(i64::from(most))],
        |row| {
            let count = |at| -> Result<i64> { Ok(row.get::<i64>(at)?.unwrap_or(0)) };
            Ok(OfFlow { flow: row.get::<String>(1)?.unwrap_or_default(), ready: count(2)?, waiting: count(3)?, dead: count(4)? })
        },
    )
}

/// The jobs of a lane, a flow and an organization.
pub struct Depth {
    pub lane: String,
    pub flow: Option<String>,
    pub organization: Option<String>,
    pub ready: i64,
    pub in_flight: i64,
    pub oldest: Option<pgrx::datum::Interval>,
    pub waiting: i64,
    pub waiting_for: Option<JsonB>,
    pub dead: i64,
    /// Jobs done a minute, over the last five.
    pub rate: f64,
}

/// Everything that the given organizations have; `all` shows also jobs of organizations that do not exist. Counts the
/// tables, and reads the history of the last five minutes.
pub fn depths(organizations: Vec<Uuid>, all: bool) -> Result<Vec<Depth>> {
    spi::read_all(
        "WITH ready AS (
             SELECT lane, flow_id, organization_id, pg_catalog.count(*) AS ready, pg_catalog.min(created_at) AS oldest,
                    pg_catalog.count(*) FILTER (WHERE usher.job_in_progress(false, lane, seq)) AS in_flight
               FROM usher.ready_jobs WHERE $2 OR organization_id = ANY ($1) GROUP BY 1, 2, 3),
         reasons AS (
             SELECT lane, flow_id, organization_id, waiting_for, pg_catalog.count(*) AS n FROM usher.queue_waiting
              WHERE $2 OR organization_id = ANY ($1) GROUP BY 1, 2, 3, 4),
         waiting AS (
             SELECT lane, flow_id, organization_id, pg_catalog.sum(n)::bigint AS waiting, pg_catalog.jsonb_object_agg(waiting_for, n) AS waiting_for
               FROM reasons GROUP BY 1, 2, 3),
         dead AS (
             SELECT lane, flow_id, organization_id, pg_catalog.count(*) AS dead FROM usher.dead_letters
              WHERE $2 OR organization_id = ANY ($1) GROUP BY 1, 2, 3),
         rates AS (
             SELECT x.lane, x.flow_id, x.organization_id, pg_catalog.sum(x.n) / 5.0 AS rate
               FROM (SELECT j.lane, j.flow_id, j.organization_id, pg_catalog.count(*) AS n
                       FROM usher.job_batches b CROSS JOIN LATERAL unnest(b.done) AS r (range)
                      CROSS JOIN LATERAL (SELECT q.lane, q.flow_id, q.organization_id FROM usher.jobs q
                                           WHERE q.lane = b.lane AND q.seq >= pg_catalog.lower(r.range) AND q.seq < pg_catalog.upper(r.range) OFFSET 0) AS j
                      WHERE b.finished_at > pg_catalog.now() - interval '5 minutes' AND ($2 OR j.organization_id = ANY ($1)) GROUP BY 1, 2, 3
                     UNION ALL
                     SELECT lane, flow_id, organization_id, pg_catalog.count(*) FROM usher.job_history
                      WHERE finished_at > pg_catalog.now() - interval '5 minutes' AND NOT cancelled AND ($2 OR organization_id = ANY ($1)) GROUP BY 1, 2, 3) AS x
              GROUP BY 1, 2, 3),
         keys AS (
             SELECT lane, flow_id, organization_id FROM ready UNION SELECT lane, flow_id, organization_id FROM waiting
             UNION SELECT lane, flow_id, organization_id FROM dead UNION SELECT lane, flow_id, organization_id FROM rates)
         SELECT usher.lane_name(k.lane),
                (SELECT v.name FROM usher.flow_versions v WHERE v.flow_id = k.flow_id ORDER BY v.version DESC LIMIT 1),
                COALESCE(o.slug, k.organization_id::text), COALESCE(r.ready, 0), COALESCE(r.in_flight, 0),
                pg_catalog.clock_timestamp() - r.oldest, COALESCE(w.waiting, 0), w.waiting_for, COALESCE(d.dead, 0), COALESCE(s.rate, 0)::float8
           FROM keys k
           LEFT JOIN usher.organizations o ON o.id = k.organization_id
           LEFT JOIN ready r ON r.lane = k.lane AND r.flow_id IS NOT DISTINCT FROM k.flow_id AND r.organization_id = k.organization_id
           LEFT JOIN waiting w ON w.lane = k.lane AND w.flow_id IS NOT DISTINCT FROM k.flow_id AND w.organization_id = k.organization_id
           LEFT JOIN dead d ON d.lane = k.lane AND d.flow_id IS NOT DISTINCT FROM k.flow_id AND d.organization_id = k.organization_id
           LEFT JOIN rates s ON s.lane = k.lane AND s.flow_id IS NOT DISTINCT FROM k.flow_id AND s.organization_id = k.organization_id
          ORDER BY k.lane, 2, 3",
        &[spi::arg(organizations), spi::arg(all)],
        |row| {
            let count = |at| -> Result<i64> { Ok(row.get::<i64>(at)?.unwrap_or(0)) };
            Ok(Depth {
                lane: row.get::<String>(1)?.unwrap_or_default(),
                flow: row.get::<String>(2)?,
                organization: row.get::<String>(3)?,
                ready: count(4)?,
                in_flight: count(5)?,
                oldest: row.get::<pgrx::datum::Interval>(6)?,
                waiting: count(7)?,
                waiting_for: row.get::<JsonB>(8)?,
                dead: count(9)?,
                rate: row.get::<f64>(10)?.unwrap_or(0.0),
            })
        },
    )
}
