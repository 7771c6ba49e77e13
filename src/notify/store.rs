//! The SQL of notices. Runs with the owner's rights.

use super::Tally;
use crate::error::Result;
use crate::event::broadcast::Unreceived;
use crate::pg::spi;
use crate::settings;
use pgrx::Uuid;

/// A notice that was just made.
pub struct Made {
    pub flow: String,
    pub organization: String,
    pub failures: i32,
    pub since: String,
    pub error: String,
}

/// `$1` flows, `$2` organizations, `$3` failed attempts, `$4` last errors, `$5` their jobs, `$6` how many make a notice,
/// `$7` seconds of the window. Failures of an organization that does not exist count for the installation (id 0).
///
/// A streak goes on while its failures are closer together than the window and nobody has read its notice. It gets a
/// notice once the window holds enough of them. Rows are locked in the order of their keys.
const COUNT: &str = "
WITH f AS (
    SELECT COALESCE(o.id, '00000000-0000-0000-0000-000000000000'::uuid) AS organization_id, x.flow_id, pg_catalog.sum(x.failures)::integer AS failures,
           (pg_catalog.array_agg(x.error))[1] AS error, (pg_catalog.array_agg(x.job))[1] AS job, pg_catalog.clock_timestamp() AS at
      FROM unnest($1::integer[], $2::uuid[], $3::integer[], $4::text[], $5::uuid[]) AS x (flow_id, organization_id, failures, error, job)
      LEFT JOIN usher.organizations AS o ON o.id = x.organization_id
     GROUP BY 1, 2),
c AS (
    INSERT INTO usher.failure_streaks AS s (organization_id, flow_id, recent, failures, first_at, last_at, notice_id)
    SELECT f.organization_id, f.flow_id, pg_catalog.array_fill(f.at, ARRAY[LEAST(f.failures, $6)]), f.failures, f.at, f.at,
           CASE WHEN f.failures >= $6 THEN usher.uuid_v7() END
      FROM f ORDER BY f.organization_id, f.flow_id
    ON CONFLICT ON CONSTRAINT failure_streaks_pkey DO UPDATE SET (recent, failures, first_at, last_at, notice_id) = (
        SELECT w.recent, w.failures, w.first_at, EXCLUDED.last_at,
               COALESCE(w.notice_id, CASE WHEN pg_catalog.cardinality(w.recent) >= $6
                                           AND w.recent[1] > EXCLUDED.last_at - $7 * interval '1 second' THEN usher.uuid_v7() END)
          FROM (SELECT CASE WHEN r.runs THEN r.recent[GREATEST(pg_catalog.cardinality(r.recent) - $6 + 1, 1):] ELSE EXCLUDED.recent END AS recent,
                       CASE WHEN r.runs THEN s.failures ELSE 0 END + EXCLUDED.failures AS failures,
                       CASE WHEN r.runs THEN s.first_at ELSE EXCLUDED.first_at END AS first_at,
                       CASE WHEN r.runs THEN s.notice_id END AS notice_id
                  FROM (SELECT s.recent || EXCLUDED.recent AS recent,
                               s.last_at > EXCLUDED.last_at - $7 * interval '1 second'
                               AND NOT EXISTS (SELECT FROM usher.notices AS n WHERE n.id = s.notice_id AND n.read_at IS NOT NULL) AS runs) AS r) AS w)
    RETURNING s.organization_id, s.flow_id, s.failures, s.first_at, s.last_at, s.notice_id),
n AS (
    INSERT INTO usher.notices AS n (id, organization_id, kind, severity, flow_id, flow, subject, body, failures, first_at, last_at)
    SELECT c.notice_id, NULLIF(c.organization_id, '00000000-0000-0000-0000-000000000000'::uuid), 'flow failing', 'warning', c.flow_id, v.name,
           pg_catalog.format('flow \"%s\" keeps failing', v.name),
           pg_catalog.jsonb_build_object('last_error', f.error, 'last_job', f.job),
           c.failures, c.first_at, c.last_at
      FROM c JOIN f ON f.organization_id = c.organization_id AND f.flow_id = c.flow_id
      CROSS JOIN LATERAL (SELECT COALESCE((SELECT l.name FROM usher.flows AS l WHERE l.id = c.flow_id), 'flow ' || c.flow_id) AS name) AS v
     WHERE c.notice_id IS NOT NULL ORDER BY c.organization_id, c.flow_id
    ON CONFLICT ON CONSTRAINT notices_key
    DO UPDATE SET failures = EXCLUDED.failures, last_at = EXCLUDED.last_at, body = EXCLUDED.body
    -- A row that was inserted has no earlier version that somebody locked.
    RETURNING n.flow, COALESCE(n.organization_id::text, 'none') AS organization, n.failures, n.first_at, n.body ->> 'last_error' AS error, n.xmax = 0 AS made)
SELECT n.flow, n.organization, n.failures, pg_catalog.date_trunc('second', n.first_at)::text, n.error FROM n WHERE n.made";

/// Counts and makes what is due; returns the notices that are new.
pub fn count(tally: &Tally) -> Result<Vec<Made>> {
    let sums = || tally.0.iter();
    spi::all(
        COUNT,
        &[
            spi::arg(sums().map(|((flow, _), _)| *flow).collect::<Vec<_>>()),
            spi::arg(sums().map(|((_, organization), _)| Uuid::from_bytes(*organization)).collect::<Vec<_>>()),
            spi::arg(sums().map(|(_, sum)| sum.failures).collect::<Vec<_>>()),
            spi::arg(sums().map(|(_, sum)| sum.error.clone()).collect::<Vec<_>>()),
            spi::arg(sums().map(|(_, sum)| sum.job).collect::<Vec<_>>()),
            spi::arg(settings::notice_failures()),
            spi::arg(settings::notice_window()),
        ],
        |row| {
            Ok(Made {
                flow: row.get::<String>(1)?.unwrap_or_default(),
                organization: row.get::<String>(2)?.unwrap_or_default(),
                failures: row.get::<i32>(3)?.unwrap_or(0),
                since: row.get::<String>(4)?.unwrap_or_default(),
                error: row.get::<String>(5)?.unwrap_or_default(),
            })
        },
    )
}

/// A notice for each broadcast that somebody has not received in time.
pub fn unreceived(all: &[Unreceived]) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let body = |one: &Unreceived| pgrx::JsonB(serde_json::json!({"event": one.event.to_string(), "unreceived": one.missing}));
    spi::run(
        "INSERT INTO usher.notices (id, organization_id, kind, severity, subject, body, failures, first_at, last_at)
         SELECT usher.uuid_v7(), u.organization_id, 'broadcast unacknowledged', 'critical',
                pg_catalog.format('%s of those who listen have not received \"%s\" in time', u.missing, u.type), u.body, u.missing,
                pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp()
           FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::jsonb[]) AS u (organization_id, type, missing, body)",
        &[
            spi::arg(all.iter().map(|one| one.organization).collect::<Vec<_>>()),
            spi::arg(all.iter().map(|one| one.event_type.clone()).collect::<Vec<_>>()),
            spi::arg(all.iter().map(|one| i32::try_from(one.missing.len()).unwrap_or(i32::MAX)).collect::<Vec<_>>()),
            spi::arg(all.iter().map(body).collect::<Vec<_>>()),
        ],
    )?;
    Ok(())
}

/// Conflicts that are open beyond their time are told, once: those of a rule and an organization in one notice. The most that one
/// call tells; more follow with the next.
const OPEN: &str = "
WITH d AS (
    SELECT c.organization_id, c.id FROM usher.conflicts AS c
     WHERE c.state = 'open' AND c.escalated_at IS NULL AND c.escalate_at <= pg_catalog.clock_timestamp()
     ORDER BY c.escalate_at LIMIT 1000 FOR UPDATE SKIP LOCKED),
e AS (
    UPDATE usher.conflicts AS c SET escalated_at = pg_catalog.clock_timestamp() FROM d
     WHERE c.organization_id = d.organization_id AND c.id = d.id
    RETURNING c.organization_id, c.id, c.kind, c.rule, c.flow_id, c.severity, c.message, c.raised_at, c.last_seen_at)
INSERT INTO usher.notices (id, organization_id, kind, severity, flow_id, subject, body, failures, first_at, last_at)
SELECT usher.uuid_v7(), g.organization_id, 'conflict open', g.severity, g.flow_id,
       CASE WHEN g.n = 1 THEN 'a conflict is' ELSE g.n || ' conflicts are' END
           || ' still open: ' || CASE WHEN g.rule IS NULL THEN COALESCE('pairs of flow \"' || (SELECT f.name FROM usher.flows AS f WHERE f.id = g.flow_id) || '\"', g.kind) ELSE pg_catalog.format('overlap rule \"%s\"', g.rule) END,
       pg_catalog.jsonb_build_object('rule', g.rule, 'message', g.message, 'conflicts', g.ids), g.n, g.first_at, g.last_at
  FROM (SELECT e.organization_id, e.kind, e.rule, e.flow_id, e.severity, pg_catalog.count(*)::integer AS n, pg_catalog.min(e.raised_at) AS first_at,
               pg_catalog.clock_timestamp() AS last_at, (pg_catalog.array_agg(e.message ORDER BY e.raised_at))[1] AS message,
               pg_catalog.to_jsonb((pg_catalog.array_agg(e.id ORDER BY e.raised_at))[1:20]) AS ids
          FROM e GROUP BY e.organization_id, e.kind, e.rule, e.flow_id, e.severity) AS g";

/// Makes the notices of conflicts that are open beyond their time.
pub fn open_conflicts() -> Result<()> {
    spi::run(OPEN, &[])?;
    Ok(())
}

/// Violations that are open beyond their time are told, once: those of a rule and an organization in one notice, in the rule's words.
const VIOLATIONS: &str = "
WITH d AS MATERIALIZED (
    SELECT v.organization_id, v.id, l.definition -> 'escalate' ->> 'notify' AS words
      FROM usher.violations AS v JOIN usher.rules AS l ON l.id = v.rule_id AND l.definition -> 'escalate' ? 'notify'
     WHERE v.status = 'open' AND v.escalated_at IS NULL AND v.escalate_at <= pg_catalog.clock_timestamp()
     ORDER BY v.escalate_at LIMIT 1000 FOR UPDATE OF v SKIP LOCKED),
e AS (
    UPDATE usher.violations AS v SET escalated_at = pg_catalog.clock_timestamp() FROM d
     WHERE v.organization_id = d.organization_id AND v.id = d.id
    RETURNING v.organization_id, v.id, v.rule, v.severity, v.wrong, v.first_seen_at, v.last_seen_at, d.words)
INSERT INTO usher.notices (id, organization_id, kind, severity, subject, body, failures, first_at, last_at)
SELECT usher.uuid_v7(), NULLIF(g.organization_id, '00000000-0000-0000-0000-000000000000'::uuid), 'violation open', g.severity, g.words,
       pg_catalog.jsonb_build_object('rule', g.rule, 'wrong', g.wrong, 'violations', g.ids), g.n, g.first_at, g.last_at
  FROM (SELECT e.organization_id, e.rule, e.severity, e.words, pg_catalog.count(*)::integer AS n, pg_catalog.min(e.first_seen_at) AS first_at,
               pg_catalog.clock_timestamp() AS last_at, (pg_catalog.array_agg(e.wrong ORDER BY e.first_seen_at, e.id))[1] AS wrong,
               pg_catalog.to_jsonb((pg_catalog.array_agg(e.id ORDER BY e.first_seen_at, e.id))[1:20]) AS ids
          FROM e GROUP BY e.organization_id, e.rule, e.severity, e.words) AS g";

/// Makes the notices of violations that are open beyond their time.
pub fn open_violations() -> Result<()> {
    spi::run(VIOLATIONS, &[])?;
    Ok(())
}

/// Makes a notice for each organization whose data is less consistent than it should be, at most once a day.
pub fn inconsistent() -> Result<()> {
    spi::run(
        &format!(
            "INSERT INTO usher.notices (id, organization_id, kind, severity, subject, body, failures, first_at, last_at)
             SELECT usher.uuid_v7(), c.organization_id, 'inconsistent', 'critical', pg_catalog.format('%s of %s rows break a rule: %s %% are consistent', c.open, c.rows, c.percent),
                    pg_catalog.jsonb_build_object('open', c.open, 'rows', c.rows, 'percent', c.percent), LEAST(c.open, 2147483647)::integer, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp()
               FROM usher.consistency AS c
              WHERE c.percent < {}
                AND NOT EXISTS (SELECT FROM usher.notices AS n WHERE n.organization_id = c.organization_id AND n.kind = 'inconsistent'
                                   AND (n.read_at IS NULL OR n.last_at > pg_catalog.clock_timestamp() - interval '1 day'))",
            settings::LEAST_CONSISTENCY
        ),
        &[],
    )?;
    Ok(())
}

/// Marks a notice as read for somebody who manages its organization; operators read them all. None: there is no such
/// notice for the caller. Some: whether it was unread, and whose it is.
pub fn read(notice: Uuid, organizations: Vec<Uuid>, operator: bool, by: &str) -> Result<Option<(bool, Option<Uuid>)>> {
    let found = spi::all(
        "WITH n AS (SELECT id, read_at, organization_id FROM usher.notices WHERE id = $1 AND ($3 OR organization_id = ANY ($2)) FOR UPDATE),
              r AS (UPDATE usher.notices AS u SET read_at = pg_catalog.clock_timestamp(), read_by = $4 FROM n WHERE u.id = n.id AND n.read_at IS NULL)
         SELECT read_at IS NULL, organization_id FROM n",
        &[spi::arg(notice), spi::arg(organizations), spi::arg(operator), spi::arg(by)],
        |row| Ok((row.get::<bool>(1)?.unwrap_or(false), row.get::<Uuid>(2)?)),
    )?;
    Ok(found.into_iter().next())
}

/// Forgets notices that were read and are older than the history, and streaks that have ended. Called once a minute.
pub fn prune(keep_days: i32) -> Result<()> {
    spi::run(
        "DELETE FROM usher.notices WHERE read_at IS NOT NULL AND last_at < pg_catalog.now() - $1 * interval '1 day'",
        &[spi::arg(keep_days)],
    )?;
    super::inbox::prune(keep_days)?;
    // Not one that a batch is just writing: it would wait for us while we wait for it.
    spi::run(
        "DELETE FROM usher.failure_streaks
          WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM usher.failure_streaks AS s
                                   WHERE s.last_at < pg_catalog.now() - $1 * interval '1 second' FOR UPDATE SKIP LOCKED))",
        &[spi::arg(settings::notice_window())],
    )?;
    Ok(())
}
