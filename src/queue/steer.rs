//! What an admin does with many jobs at once, or with the lane of one.

use super::filter::{Among, Filter};
use super::{asked, followers, life, limits, pressure, settle, store};
use crate::error::{Result, UsherError};
use crate::flow::definition::lane;
use crate::flow::ready;
use crate::flow::store as flows;
use crate::guard::audit;
use crate::pg::{role, spi, xact};
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};

/// Jobs `j` (with the columns of every table of jobs) that filter `$2` means, in organization `$1`.
const MEANT: &str = "j.organization_id = $1
    AND ($2::jsonb -> 'jobs' IS NULL OR j.id = ANY (ARRAY(SELECT t::uuid FROM pg_catalog.jsonb_array_elements_text($2::jsonb -> 'jobs') AS t)))
    AND ($2::jsonb ->> 'flow' IS NULL OR f.name = $2::jsonb ->> 'flow')
    AND ($2::jsonb ->> 'source' IS NULL OR COALESCE(j.source_system, f.source_system) = $2::jsonb ->> 'source')
    AND ($2::jsonb ->> 'target' IS NULL OR COALESCE(j.target_system, f.target_system) = $2::jsonb ->> 'target')
    AND ($2::jsonb -> 'lane' IS NULL OR j.lane = ($2::jsonb ->> 'lane')::smallint)
    AND ($2::jsonb ->> 'error' IS NULL OR j.error_message LIKE $2::jsonb ->> 'error')
    AND ($2::jsonb -> 'created_after' IS NULL OR j.created_at >= ($2::jsonb ->> 'created_after')::timestamptz)
    AND ($2::jsonb -> 'created_before' IS NULL OR j.created_at < ($2::jsonb ->> 'created_before')::timestamptz)
    AND ($2::jsonb -> 'payload' IS NULL
         OR CASE WHEN j.op = 'R' THEN j.new ELSE usher.change_payload(j.op, j.new, j.old) END @> ($2::jsonb -> 'payload'))";
const FLOW: &str = "LEFT JOIN usher.flow_versions AS f ON f.flow_id = j.flow_id AND f.version = j.flow_version";

fn filter(value: Option<JsonB>, among: Among) -> Result<Filter> {
    let value =
        value.ok_or_else(|| UsherError::missing("the filter").hint("Give an object such as {\"flow\": \"…\"}; {} means all."))?;
    let mut filter = Filter::parse(&value.0, among)?;
    for (key, text) in &filter.times {
        let time = asked::instant(text, &format!("\"{key}\" of filter"))?;
        filter.fields[key.as_str()] = Value::from(time);
    }
    Ok(filter)
}

struct Meant {
    id: Uuid,
    lane: i16,
    seq: i64,
}

fn found_ready(organization: Uuid, fields: &Value) -> Result<Vec<Meant>> {
    spi::read_all(
        &format!(
            "SELECT j.id, j.lane, j.seq FROM (SELECT r.*, NULL::text AS source_system, NULL::text AS target_system, NULL::text AS error_message
                                                FROM ({}) AS r) AS j {FLOW} WHERE {MEANT}",
            store::READY
        ),
        &[spi::arg(organization), spi::arg(JsonB(fields.clone()))],
        |row| {
            Ok(Meant {
                id: row.get::<Uuid>(1)?.unwrap_or(organization),
                lane: row.get::<i16>(2)?.unwrap_or(0),
                seq: row.get::<i64>(3)?.unwrap_or(0),
            })
        },
    )
}

/// Locked from here to the end of the transaction: a worker passes over them and looks again afterwards.
fn hold(jobs: &[Meant]) -> Result<()> {
    ready::hold_these(&jobs.iter().map(|job| (job.lane, job.seq)).collect::<Vec<_>>()).map(|_| ())
}

/// Cancels the jobs that a filter means. Returns how many.
pub fn cancel(organization: &str, wanted: Option<JsonB>) -> Result<i64> {
    let installed = setup::current()?;
    let organization = identity::organization(organization, Right::Manage)?;
    let said = wanted.as_ref().map(|wanted| wanted.0.clone());
    let filter = filter(wanted, Among::Open)?;
    let _acting = role::internal(installed.owner);
    let mut gone = Vec::new();
    if matches!(filter.status.as_deref(), None | Some("pending")) {
        let jobs = found_ready(organization, &filter.fields)?;
        if !jobs.is_empty() {
            hold(&jobs)?;
            let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
            gone.extend(uuids(
                &format!("WITH c AS ({}) {}", store::TAKE_READY, cancelled("0", "NULL::text", "NULL::text", "NULL::text")),
                &[spi::arg(organization), spi::arg(ids)],
            )?);
        }
    }
    let waiting = match filter.status.as_deref() {
        None => Some("true"),
        Some("pending") => Some("j.waiting_for <> 'retry'"),
        Some("failed") => Some("j.waiting_for = 'retry'"),
        _ => None,
    };
    let (table, which) = match waiting {
        Some(which) => ("queue_waiting", which),
        None => ("dead_letters", "true"),
    };
    gone.extend(uuids(
        &format!(
            "WITH c AS (DELETE FROM usher.{table} AS w WHERE w.organization_id = $1
                           AND w.id = ANY (ARRAY(SELECT j.id FROM usher.{table} AS j {FLOW} WHERE {MEANT} AND {which})) RETURNING w.*)
             {}",
            cancelled("c.attempts", "c.error_message", "c.source_system", "c.target_system")
        ),
        &[spi::arg(organization), spi::arg(JsonB(filter.fields.clone()))],
    )?);
    if gone.is_empty() {
        return Ok(0);
    }
    xact::note_due_changed();
    spi::run(
        "DELETE FROM usher.job_keys WHERE organization_id = $1 AND job_id = ANY ($2::uuid[])",
        &[spi::arg(organization), spi::arg(gone.clone())],
    )?;
    followers::release_followers(&*flows::classes()?)?;
    limits::heal(installed)?;
    let many = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    settle::ended(installed, organization, gone, "cancelled")?;
    audit::note(installed, Some(organization), "usher.sync_jobs.cancelled", &format!("{many} jobs"), said, None)?;
    Ok(many)
}

/// The end of a statement that takes jobs `c` away: they are in the history as cancelled.
fn cancelled(attempts: &str, error: &str, source: &str, target: &str) -> String {
    format!(
        "INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old,
                                        error_message, source_system, target_system)
         SELECT c.organization_id, c.id, c.created_at, pg_catalog.now(), c.cause, c.flow_id, c.flow_version, {attempts}, c.lane, c.hop, c.op, true, c.new, c.old,
                {error}, {source}, {target} FROM c RETURNING id"
    )
}

fn uuids(sql: &str, arguments: spi::Args<'_>) -> Result<Vec<Uuid>> {
    Ok(spi::all(sql, arguments, |row| Ok(row.get::<Uuid>(1)?))?.into_iter().flatten().collect())
}

/// The oldest first, so that those of one row keep their order: their positions stay, and all are due at once.
const RETRY_DEAD: &str = "
c AS (DELETE FROM usher.dead_letters AS d USING pick WHERE d.organization_id = pick.organization_id AND d.id = pick.id RETURNING d.*),
e AS (UPDATE usher.job_options AS o SET expires_at = NULL FROM pick
       WHERE o.organization_id = pick.organization_id AND o.job_id = pick.id AND o.expires_at IS NOT NULL)
INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                 attempts, waiting_for, due_at, last_attempted_at, error_message, source_system, target_system)
SELECT c.seq, c.row_key, c.id, c.organization_id, c.created_at, c.cause, c.flow_id,
       COALESCE((SELECT f.version FROM usher.flows f WHERE f.id = c.flow_id), c.flow_version), c.lane, 0, c.op, NULL,
       CASE WHEN c.op = 'D' THEN c.new ELSE c.new || COALESCE($3::jsonb, '{}') END,
       CASE WHEN c.op = 'D' THEN c.old || COALESCE($3::jsonb, '{}') ELSE c.old END,
       0, CASE WHEN c.flow_id IS NULL THEN 'external worker' ELSE 'retry' END, pg_catalog.now(), c.last_attempted_at, c.error_message,
       c.source_system, c.target_system
  FROM c RETURNING id";

/// Runs the dead letters again that a filter means, at most `limit`. Returns how many.
pub fn retry_dead(organization: &str, wanted: Option<JsonB>, changes: Option<JsonB>, limit: i32) -> Result<i64> {
    let installed = setup::current()?;
    let organization = identity::organization(organization, Right::Manage)?;
    let said = wanted.as_ref().map(|wanted| wanted.0.clone());
    let filter = filter(wanted, Among::DeadLetters)?;
    if !(1..=100_000).contains(&limit) {
        return Err(UsherError::invalid(format!("the limit is {limit}")).hint("Give a number from 1 to 100000."));
    }
    if changes.as_ref().is_some_and(|changes| !changes.0.is_object()) {
        return Err(UsherError::invalid("changes are not a JSON object").hint("Give the fields to change: {\"total\": 12.50}."));
    }
    let _acting = role::internal(installed.owner);
    let changed = changes.as_ref().map(|changes| changes.0.clone());
    let again = uuids(
        &format!(
            "WITH pick AS (
                 SELECT j.organization_id, j.id FROM usher.dead_letters AS j {FLOW} WHERE {MEANT}
                    -- A step's run has gone on without it.
                    AND NOT COALESCE(pg_catalog.jsonb_exists(f.definition -> 'when', 'step'), false)
                    AND ($2::jsonb ->> 'sqlstate' IS NULL OR j.sqlstate = $2::jsonb ->> 'sqlstate')
                    AND ($2::jsonb -> 'died_after' IS NULL OR j.died_at >= ($2::jsonb ->> 'died_after')::timestamptz)
                    AND ($2::jsonb -> 'died_before' IS NULL OR j.died_at < ($2::jsonb ->> 'died_before')::timestamptz)
                  ORDER BY j.seq LIMIT $4 FOR UPDATE OF j SKIP LOCKED),
             {RETRY_DEAD}"
        ),
        &[spi::arg(organization), spi::arg(JsonB(filter.fields.clone())), spi::arg(changes), spi::arg(limit)],
    )?;
    if again.is_empty() {
        return Ok(0);
    }
    xact::note_due_changed();
    let many = i64::try_from(again.len()).unwrap_or(i64::MAX);
    let new = changed.map(|changes| json!({"changes": changes}));
    audit::note(installed, Some(organization), "usher.sync_jobs.retried", &format!("{many} jobs"), said, new)?;
    Ok(many)
}

/// Puts a job that has not run into another lane. Earlier changes of its row come along, out of the log, where nobody who runs
/// the moved job would see them; those in slower lanes change theirs as well. Later ones wait for it: their order stays.
pub fn reprioritise(job: Uuid, priority: &str) -> Result<life::Row> {
    let installed: Installed = setup::current()?;
    let chosen = lane(priority).ok_or_else(|| {
        UsherError::invalid(format!("priority \"{priority}\" is unknown"))
            .hint(format!("Use one of: {}.", crate::queue::LANES.join(", ")))
    })? as i16;
    let place = life::find(job, Right::Manage)?;
    let _acting = role::internal(installed.owner);
    if !matches!(place.table.as_str(), "jobs" | "queue_waiting") {
        return Err(UsherError::state(format!("job {job} has ended: it has no lane any more"))
            .hint("Only a job that has not run can change its lane; usher.retry_sync_job() runs a dead one again."));
    }
    let siblings = match flow_of(place.organization, job)? {
        Some(flow) => flows::siblings(flow)?,
        None => Vec::new(),
    };
    let arguments = [spi::arg(place.organization), spi::arg(job), spi::arg(chosen), spi::arg(siblings)];
    // The job, and what must not come after it.
    let moved = spi::read_all(
        &format!(
            "WITH j AS (SELECT r.row_key, r.seq FROM ({ready}) AS r WHERE r.organization_id = $1 AND r.id = $2
                        UNION ALL SELECT w.row_key, w.seq FROM usher.queue_waiting w WHERE w.organization_id = $1 AND w.id = $2)
             SELECT r.id, r.lane, r.seq, true FROM ({ready}) AS r
              WHERE r.organization_id = $1 AND (r.id = $2 OR r.flow_id = ANY ($4) AND EXISTS (SELECT FROM j WHERE j.row_key = r.row_key AND j.seq > r.seq))
             UNION ALL
             SELECT w.id, w.lane, w.seq, false FROM usher.queue_waiting w
              WHERE w.organization_id = $1 AND (w.id = $2 OR w.lane > $3 AND w.flow_id = ANY ($4) AND EXISTS (SELECT FROM j WHERE j.row_key = w.row_key AND j.seq > w.seq))",
            ready = store::READY
        ),
        &arguments,
        |row| {
            let job = Meant {
                id: row.get::<Uuid>(1)?.unwrap_or(job),
                lane: row.get::<i16>(2)?.unwrap_or(0),
                seq: row.get::<i64>(3)?.unwrap_or(0),
            };
            Ok((job, row.get::<bool>(4)? == Some(true)))
        },
    )?;
    let (ready, waiting): (Vec<_>, Vec<_>) = moved.into_iter().partition(|(_, ready)| *ready);
    let ready: Vec<Meant> = ready.into_iter().map(|(job, _)| job).collect();
    let ids = |jobs: &[Meant]| jobs.iter().map(|job| job.id).collect::<Vec<_>>();
    hold(&ready)?;
    let waiting: Vec<Meant> = waiting.into_iter().map(|(job, _)| job).collect();
    let mut changed = uuids(
        &format!(
            "WITH c AS ({})
             INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old, waiting_for, due_at)
             SELECT c.seq, c.row_key, c.id, c.organization_id, c.created_at, c.cause, c.flow_id, c.flow_version,
                    CASE WHEN c.id = $4 THEN $3 ELSE LEAST(c.lane, $3) END, c.hop, c.op, c.trail, c.new, c.old, 'run_at', pg_catalog.now() FROM c RETURNING id",
            store::TAKE_READY
        ),
        &[spi::arg(place.organization), spi::arg(ids(&ready)), spi::arg(chosen), spi::arg(job)],
    )?;
    changed.extend(uuids(
        "UPDATE usher.queue_waiting SET lane = $3 WHERE organization_id = $1 AND id = ANY ($2::uuid[]) RETURNING id",
        &[spi::arg(place.organization), spi::arg(ids(&waiting)), spi::arg(chosen)],
    )?);
    pressure::held_in(&ids(&waiting), chosen as usize)?;
    // What gathers does so in its lane.
    xact::note_plans_changed();
    if !changed.contains(&job) {
        return Err(UsherError::state(format!("job {job} has ended meanwhile: it has no lane any more"))
            .hint("Only a job that has not run can change its lane."));
    }
    limits::heal(installed)?;
    xact::note_due_changed();
    let was = json!({"priority": crate::queue::LANES[usize::try_from(place.lane).unwrap_or(3)]});
    let now = json!({"priority": crate::queue::LANES[chosen as usize], "jobs": changed.len()});
    audit::note(installed, Some(place.organization), "usher.sync_jobs.reprioritised", &job.to_string(), Some(was), Some(now))?;
    life::row(place.organization, job)
}

fn flow_of(organization: Uuid, job: Uuid) -> Result<Option<i32>> {
    spi::read::<i32>(
        &format!(
            "SELECT r.flow_id FROM ({}) AS r WHERE r.organization_id = $1 AND r.id = $2
             UNION ALL SELECT w.flow_id FROM usher.queue_waiting w WHERE w.organization_id = $1 AND w.id = $2",
            store::READY
        ),
        &[spi::arg(organization), spi::arg(job)],
    )
}
