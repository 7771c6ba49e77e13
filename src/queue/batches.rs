//! Batches: jobs that belong together, and the one that is made when all of them have ended.

use super::options::{known_keys, object, text};
use super::request::{self, Request};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::{ids, role, spi, subxact, xact};
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};

/// The job that a batch makes when it is through, as it was given.
fn completion(organization: &str, value: &Value) -> Result<(Request, Value)> {
    let top = object(value, "completion")?;
    known_keys(top, &["source", "target", "payload", "priority"], "completion")?;
    let part = |key: &str| top.get(key).map(|value| text(value, &format!("\"{key}\" of completion"))).transpose();
    let payload = top.get("payload").cloned().unwrap_or_else(|| json!({}));
    let (source, target) = (part("source")?, part("target")?);
    if source.is_none() || target.is_none() {
        return Err(UsherError::invalid("the completion job lacks its \"source\" or \"target\"")
            .hint("Write {\"source\": \"shop\", \"target\": \"books\", \"payload\": {\"action\": \"close_day\"}}."));
    }
    let request = request::check(Some(organization.to_owned()), source, target, part("priority")?)?;
    Ok((request, payload))
}

/// Makes a batch that jobs can join. Returns its id.
pub fn create(organization: &str, name: &str, wanted: Option<&JsonB>) -> Result<Uuid> {
    let installed = setup::current()?;
    let owner = identity::organization(organization, Right::Manage)?;
    if name.len() > 200 {
        return Err(UsherError::invalid("the name is longer than 200 bytes").hint("Give a shorter one."));
    }
    let by = identity::actor();
    let given = wanted.map(|wanted| completion(organization, &wanted.0)).transpose()?;
    let _acting = role::internal(installed.owner);
    if let Some((request, payload)) = &given {
        request::check_route(request, &JsonB(payload.clone()))?;
    }
    let id = ids::uuid_v7();
    spi::run(
        "INSERT INTO usher.batch_definitions (organization_id, id, name, completion, created_by) VALUES ($1, $2, $3, $4, $5)",
        &[spi::arg(owner), spi::arg(id), spi::arg(name), spi::arg(wanted.map(|wanted| JsonB(wanted.0.clone()))), spi::arg(by)],
    )?;
    Ok(id)
}

/// No more jobs join. True when this call has sealed it, false when it was sealed already.
pub fn seal(batch: Uuid) -> Result<bool> {
    let installed = setup::current()?;
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot count the jobs of a batch")
            .hint("Call usher.seal_batch() in READ COMMITTED."));
    }
    let readable = identity::organizations(Right::Read)?;
    let acting = role::internal(installed.owner);
    let organization = spi::read::<Uuid>(
        "SELECT organization_id FROM usher.batch_definitions WHERE id = $1 AND organization_id = ANY ($2)",
        &[spi::arg(batch), spi::arg(readable)],
    )?
    .ok_or_else(|| {
        UsherError::not_found(format!("batch {batch} does not exist, or is not one of yours"))
            .hint("SELECT id, name, state FROM usher.batches shows the batches you may see.")
    })?;
    drop(acting);
    if !identity::manages(organization)? {
        return Err(UsherError::forbidden("members may read batches, not change them").hint("Ask an admin of the organization."));
    }
    audit::note_legend("seal_batch", organization)?;
    let _acting = role::internal(installed.owner);
    // Waits for those that are just joining; whoever comes later sees that it is sealed.
    let sealed = spi::run(
        "UPDATE usher.batch_definitions SET sealed_at = pg_catalog.clock_timestamp() WHERE organization_id = $1 AND id = $2 AND sealed_at IS NULL",
        &[spi::arg(organization), spi::arg(batch)],
    )?;
    if sealed == 0 {
        return Ok(false);
    }
    spi::run(
        "UPDATE usher.batch_definitions SET total = (SELECT pg_catalog.count(*) FROM usher.job_options o WHERE o.batch_id = $2)
          WHERE organization_id = $1 AND id = $2",
        &[spi::arg(organization), spi::arg(batch)],
    )?;
    // Jobs that end right now do not see it sealed: it is looked at again after the commit.
    xact::note_due_changed();
    settle()?;
    audit::note(installed, Some(organization), "usher.batches.sealed", &batch.to_string(), None, None)?;
    Ok(true)
}

struct Finished {
    organization: Uuid,
    id: Uuid,
    name: String,
    completion: Option<JsonB>,
    counts: [i64; 4],
}

/// Gathers what has been counted. A sealed batch that another transaction is at work on is left to it; that one, or whoever
/// looks after its commit, sees what is counted here.
const GATHER: &str = "
WITH l AS (
    SELECT b.organization_id, b.id FROM usher.batch_definitions AS b
     WHERE b.sealed_at IS NOT NULL AND b.finished_at IS NULL
       AND (b.total = 0 OR EXISTS (SELECT FROM usher.batch_tallies AS t WHERE t.organization_id = b.organization_id AND t.batch_id = b.id))
     ORDER BY b.id FOR UPDATE SKIP LOCKED),
d AS (
    DELETE FROM usher.batch_tallies AS t USING l WHERE t.organization_id = l.organization_id AND t.batch_id = l.id RETURNING t.*),
s AS (
    SELECT l.organization_id, l.id, COALESCE(pg_catalog.sum(d.done), 0)::bigint AS done, COALESCE(pg_catalog.sum(d.failed), 0)::bigint AS failed,
           COALESCE(pg_catalog.sum(d.cancelled), 0)::bigint AS cancelled, pg_catalog.min(d.counted_at) AS first
      FROM l LEFT JOIN d ON d.organization_id = l.organization_id AND d.batch_id = l.id GROUP BY l.organization_id, l.id)
UPDATE usher.batch_definitions AS b
   SET done = b.done + s.done, failed = b.failed + s.failed, cancelled = b.cancelled + s.cancelled, started_at = LEAST(b.started_at, s.first),
       finished_at = CASE WHEN b.done + b.failed + b.cancelled + s.done + s.failed + s.cancelled >= b.total THEN pg_catalog.clock_timestamp() END
  FROM s WHERE b.organization_id = s.organization_id AND b.id = s.id
RETURNING b.organization_id, b.id, b.name, CASE WHEN b.finished_at IS NOT NULL THEN b.completion END, b.total, b.done, b.failed, b.cancelled,
          b.finished_at IS NOT NULL";

/// Counts sealed batches, and makes the completion job of those that are through: the row of the batch is locked and says
/// that it is finished, so this happens once. Runs with the owner's rights.
pub fn settle() -> Result<()> {
    let gathered = spi::all(GATHER, &[], |row| {
        let count = |at: usize| Ok::<_, UsherError>(row.get::<i64>(at)?.unwrap_or(0));
        let finished = Finished {
            organization: row.get::<Uuid>(1)?.ok_or_else(|| UsherError::internal("a batch without organization"))?,
            id: row.get::<Uuid>(2)?.ok_or_else(|| UsherError::internal("a batch without id"))?,
            name: row.get::<String>(3)?.unwrap_or_default(),
            completion: row.get::<JsonB>(4)?,
            counts: [count(5)?, count(6)?, count(7)?, count(8)?],
        };
        Ok((finished, row.get::<bool>(9)? == Some(true)))
    })?;
    for (batch, _) in gathered.iter().filter(|(batch, through)| *through && batch.completion.is_some()) {
        complete(batch)?;
    }
    if !gathered.is_empty() {
        // Whoever found a batch locked by this transaction has passed over it: somebody looks again after the commit.
        xact::note_due_changed();
    }
    Ok(())
}

/// Makes the completion job. That nobody takes it any more must not undo the jobs of the batch: the batch tells why.
fn complete(batch: &Finished) -> Result<()> {
    let Some(JsonB(wanted)) = &batch.completion else { return Ok(()) };
    let made = subxact::attempt(|| {
        let part = |key: &str| wanted.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let lane = wanted.get("priority").and_then(Value::as_str).filter(|word| *word != "normal");
        let request = Request {
            organization: batch.organization,
            source: part("source"),
            target: part("target"),
            lane: lane.and_then(crate::flow::definition::lane).unwrap_or(3),
            lane_given: lane.is_some(),
        };
        let mut payload = wanted.get("payload").cloned().unwrap_or_else(|| json!({}));
        if let Some(object) = payload.as_object_mut() {
            let [total, done, failed, cancelled] = batch.counts;
            object.insert(
                "batch".to_owned(),
                json!({"id": batch.id.to_string(), "name": batch.name, "total": total, "done": done, "failed": failed, "cancelled": cancelled}),
            );
        }
        request::id_of_one(&request, JsonB(payload))
    });
    let (job, error) = match made {
        Ok(job) => (Some(job), None),
        Err(failure) => {
            warning!("batch \"{}\" is finished, and its completion job could not be made: {}", batch.name, failure.line());
            (None, Some(failure.line()))
        }
    };
    spi::run(
        "UPDATE usher.batch_definitions SET completion_job = $3, error_message = $4 WHERE organization_id = $1 AND id = $2",
        &[spi::arg(batch.organization), spi::arg(batch.id), spi::arg(job), spi::arg(error)],
    )?;
    Ok(())
}
