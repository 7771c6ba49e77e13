//! How much work there is: the one place whose statements count the tables of jobs for people and monitors.

use crate::error::Result;
use crate::pg::spi;
use pgrx::datum::TimestampWithTimeZone;
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

/// How two systems are doing with each other.
pub struct Pair {
    pub from: Option<String>,
    pub to: Option<String>,
    pub flows: i64,
    pub enabled: i64,
    pub broken: i64,
    pub pending: i64,
    /// Seconds.
    pub lag: Option<f64>,
    pub dead: i64,
    pub last_synced_at: Option<TimestampWithTimeZone>,
    pub linked: i64,
    pub conflicts: i64,
    /// Rules about tables of both.
    pub rules: i64,
    /// Of these rules, open.
    pub violations: i64,
    /// Per cent, rounded down: 100 only where nothing is known to disagree.
    pub consistency: Option<f64>,
}

/// `$1` organizations, `$2` all of them. A job that somebody wants later is not late; one that waits for a retry, a limit or its flow is.
///
/// When a pair was last in step is told by its links, by the newest batches of each lane and by the last hour of the history, so that
/// nobody reads through what has been done. A merge counts for both directions: its second half has the pair the other way round, and its
/// links and conflicts are those of both.
///
/// A rule is about a pair when it stands on both tables of a flow between the two.
const PAIRS: &str = "
WITH named AS (
    SELECT v.flow_id, v.version, v.source_system AS a, v.target_system AS b FROM usher.flow_versions AS v),
flows AS (
    SELECT v.source_system AS a, v.target_system AS b, pg_catalog.count(*) AS flows,
           pg_catalog.count(*) FILTER (WHERE f.enabled) AS enabled, pg_catalog.count(*) FILTER (WHERE f.state = 'broken') AS broken
      FROM usher.flows AS f JOIN usher.flow_versions AS v ON v.flow_id = f.id AND v.version = f.version
     WHERE pg_catalog.strpos(f.name, ':') = 0 OR f.definition -> 'then' ? 'merge'
     GROUP BY 1, 2),
ready AS (
    SELECT r.flow_id, r.flow_version, pg_catalog.count(*) AS n, pg_catalog.min(r.created_at) AS oldest
      FROM usher.ready_jobs AS r WHERE $2 OR r.organization_id = ANY ($1) GROUP BY 1, 2),
waiting AS (
    SELECT w.flow_id, w.flow_version, w.source_system, w.target_system, pg_catalog.count(*) AS n,
           pg_catalog.min(CASE WHEN w.due_at IS NULL OR w.attempts > 0 OR w.leased_by IS NOT NULL
                                    OR w.waiting_for NOT IN ('run_at', 'batch window', 'external worker', 'external call') THEN w.created_at
                               WHEN w.due_at <= pg_catalog.clock_timestamp() THEN w.due_at END) AS oldest
      FROM usher.queue_waiting AS w WHERE $2 OR w.organization_id = ANY ($1) GROUP BY 1, 2, 3, 4),
dead AS (
    SELECT d.flow_id, d.flow_version, d.source_system, d.target_system, pg_catalog.count(*) AS n
      FROM usher.dead_letters AS d WHERE $2 OR d.organization_id = ANY ($1) GROUP BY 1, 2, 3, 4),
newest AS (
    SELECT j.flow_id, j.flow_version, pg_catalog.max(b.finished_at) AS at
      FROM pg_catalog.generate_series(0, 4) AS l (lane)
     CROSS JOIN LATERAL (SELECT n.finished_at, n.done FROM usher.job_batches AS n WHERE n.lane = l.lane ORDER BY n.last_seq DESC LIMIT 50) AS b
     CROSS JOIN LATERAL unnest(b.done) AS r (range)
     CROSS JOIN LATERAL (SELECT q.flow_id, q.flow_version FROM usher.jobs AS q
                          WHERE q.lane = l.lane AND q.seq >= pg_catalog.lower(r.range) AND q.seq < pg_catalog.upper(r.range)
                            AND ($2 OR q.organization_id = ANY ($1)) OFFSET 0) AS j
     GROUP BY 1, 2),
late AS (
    SELECT h.flow_id, h.flow_version, h.source_system, h.target_system, pg_catalog.max(h.finished_at) AS at
      FROM usher.job_history AS h
     WHERE h.finished_at > pg_catalog.now() - interval '1 hour' AND NOT h.cancelled AND NOT h.shadow AND ($2 OR h.organization_id = ANY ($1))
     GROUP BY 1, 2, 3, 4),
open AS (
    SELECT c.organization_id, c.link_id, c.flow_id, pg_catalog.count(*) AS n
      FROM usher.conflicts AS c WHERE c.state = 'open' AND c.flow_id IS NOT NULL AND ($2 OR c.organization_id = ANY ($1)) GROUP BY 1, 2, 3),
disputed AS (
    SELECT DISTINCT o.organization_id, o.link_id FROM open AS o WHERE o.link_id IS NOT NULL),
links AS (
    SELECT l.left_system AS a, l.right_system AS b, l.paired, pg_catalog.max(l.last_synced_at) AS at,
           pg_catalog.count(*) FILTER (WHERE l.right_id IS NOT NULL) AS linked,
           pg_catalog.count(*) FILTER (WHERE l.right_id IS NOT NULL AND (l.status IN ('pending', 'failed') OR d.link_id IS NOT NULL)) AS disagree
      FROM usher.links AS l LEFT JOIN disputed AS d ON d.organization_id = l.organization_id AND d.link_id = l.id
     WHERE $2 OR l.organization_id = ANY ($1) GROUP BY 1, 2, 3),
relations AS (
    SELECT DISTINCT c.oid, ARRAY[n.nspname, c.relname]::text[] AS names
      FROM usher.rule_dependencies AS d JOIN pg_catalog.pg_class AS c ON c.oid = d.object JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE d.class = 'pg_catalog.pg_class'::regclass),
tables AS (
    SELECT v.source_system AS a, v.target_system AS b, one.oid AS one, other.oid AS other
      FROM usher.flows AS f JOIN usher.flow_versions AS v ON v.flow_id = f.id AND v.version = f.version
     CROSS JOIN LATERAL (SELECT f.definition -> 'then') AS t (t)
      -- By their names and not as regclass, which asks for rights at the application's schemas.
      JOIN relations AS one ON one.names = pg_catalog.parse_ident(f.definition -> 'when' ->> 'change')
      JOIN relations AS other ON other.names = pg_catalog.parse_ident(COALESCE(t.t ->> 'insert', t.t ->> 'upsert', t.t ->> 'update', t.t ->> 'delete', t.t ->> 'merge'))),
ruled AS (
    SELECT DISTINCT t.a, t.b, l.id
      FROM tables AS t JOIN usher.rule_dependencies AS d ON d.class = 'pg_catalog.pg_class'::regclass AND d.object = t.one
      JOIN usher.rule_dependencies AS e ON e.rule_id = d.rule_id AND e.class = d.class AND e.object = t.other
      JOIN usher.rules AS l ON l.id = d.rule_id AND l.enabled),
violated AS (
    SELECT v.rule_id, pg_catalog.count(*) AS n FROM usher.violations AS v WHERE v.status = 'open' AND ($2 OR v.organization_id = ANY ($1)) GROUP BY 1),
facts (a, b, flows, enabled, broken, pending, oldest, dead, at, linked, disagree, conflicts, rules, violations) AS (
    SELECT f.a, f.b, f.flows, f.enabled, f.broken, 0, NULL::timestamptz, 0, NULL::timestamptz, 0, 0, 0, 0, 0 FROM flows AS f
    UNION ALL SELECT r.a, r.b, 0, 0, 0, 0, NULL, 0, NULL, 0, 0, 0, 1, COALESCE(v.n, 0) FROM ruled AS r LEFT JOIN violated AS v ON v.rule_id = r.id
    UNION ALL SELECT n.a, n.b, 0, 0, 0, r.n, r.oldest, 0, NULL, 0, 0, 0, 0, 0
      FROM ready AS r LEFT JOIN named AS n ON n.flow_id = r.flow_id AND n.version = r.flow_version
    UNION ALL SELECT COALESCE(w.source_system, n.a), COALESCE(w.target_system, n.b), 0, 0, 0, w.n, w.oldest, 0, NULL, 0, 0, 0, 0, 0
      FROM waiting AS w LEFT JOIN named AS n ON n.flow_id = w.flow_id AND n.version = w.flow_version
    UNION ALL SELECT COALESCE(d.source_system, n.a), COALESCE(d.target_system, n.b), 0, 0, 0, 0, NULL, d.n, NULL, 0, 0, 0, 0, 0
      FROM dead AS d LEFT JOIN named AS n ON n.flow_id = d.flow_id AND n.version = d.flow_version
    UNION ALL SELECT n.a, n.b, 0, 0, 0, 0, NULL, 0, w.at, 0, 0, 0, 0, 0
      FROM newest AS w JOIN named AS n ON n.flow_id = w.flow_id AND n.version = w.flow_version
    UNION ALL SELECT COALESCE(h.source_system, n.a), COALESCE(h.target_system, n.b), 0, 0, 0, 0, NULL, 0, h.at, 0, 0, 0, 0, 0
      FROM late AS h LEFT JOIN named AS n ON n.flow_id = h.flow_id AND n.version = h.flow_version
    UNION ALL SELECT l.a, l.b, 0, 0, 0, 0, NULL, 0, l.at, l.linked, l.disagree, 0, 0, 0 FROM links AS l
    UNION ALL SELECT l.b, l.a, 0, 0, 0, 0, NULL, 0, l.at, l.linked, l.disagree, 0, 0, 0 FROM links AS l WHERE l.paired AND l.a IS DISTINCT FROM l.b
    UNION ALL SELECT n.a, n.b, 0, 0, 0, 0, NULL, 0, NULL, 0, 0, o.n, 0, 0
      FROM open AS o JOIN usher.flows AS f ON f.id = o.flow_id JOIN named AS n ON n.flow_id = f.id AND n.version = f.version
    UNION ALL SELECT n.b, n.a, 0, 0, 0, 0, NULL, 0, NULL, 0, 0, o.n, 0, 0
      FROM open AS o JOIN usher.flows AS f ON f.id = o.flow_id JOIN named AS n ON n.flow_id = f.id AND n.version = f.version
     WHERE f.definition -> 'then' ? 'merge' AND n.a IS DISTINCT FROM n.b)
SELECT x.a, x.b, pg_catalog.sum(x.flows)::bigint, pg_catalog.sum(x.enabled)::bigint, pg_catalog.sum(x.broken)::bigint, pg_catalog.sum(x.pending)::bigint,
       CASE WHEN pg_catalog.min(x.oldest) IS NOT NULL
            THEN GREATEST(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(x.oldest)), 0)::float8 END, pg_catalog.sum(x.dead)::bigint,
       pg_catalog.max(x.at), pg_catalog.sum(x.linked)::bigint, pg_catalog.sum(x.conflicts)::bigint,
       pg_catalog.sum(x.rules)::bigint, pg_catalog.sum(x.violations)::bigint,
       CASE WHEN pg_catalog.sum(x.linked) > 0
            THEN pg_catalog.trunc(100 * GREATEST(1 - (pg_catalog.sum(x.disagree) + pg_catalog.sum(x.violations)) / pg_catalog.sum(x.linked), 0), 2)::float8 END
  FROM facts AS x GROUP BY x.a, x.b ORDER BY x.a NULLS LAST, x.b NULLS LAST";

/// The pairs of systems, as far as the given organizations have to do with them.
pub fn pairs(organizations: Vec<Uuid>, all: bool) -> Result<Vec<Pair>> {
    spi::read_all(PAIRS, &[spi::arg(organizations), spi::arg(all)], |row| {
        let count = |at| -> Result<i64> { Ok(row.get::<i64>(at)?.unwrap_or(0)) };
        Ok(Pair {
            from: row.get::<String>(1)?,
            to: row.get::<String>(2)?,
            flows: count(3)?,
            enabled: count(4)?,
            broken: count(5)?,
            pending: count(6)?,
            lag: row.get::<f64>(7)?,
            dead: count(8)?,
            last_synced_at: row.get::<TimestampWithTimeZone>(9)?,
            linked: count(10)?,
            conflicts: count(11)?,
            rules: count(12)?,
            violations: count(13)?,
            consistency: row.get::<f64>(14)?,
        })
    })
}
