//! A job's life as its owner steers it: look, wait, cancel, retry.

use super::settle;
use crate::error::{Result, UsherError};
use crate::flow::ready;
use crate::guard::audit;
use crate::pg::{bgw, role, spi, xact};
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::prelude::*;
use pgrx::{AllocatedByRust, JsonB, Uuid};
use std::time::{Duration, Instant};

pub type Row = PgHeapTuple<'static, AllocatedByRust>;

/// Where a job stands.
pub struct Place {
    pub organization: Uuid,
    pub lane: i16,
    seq: i64,
    /// jobs (ready), queue_waiting, dead_letters, job_history, or log: a job of the log that is done.
    pub table: String,
    cancelled: bool,
}

fn unknown(job: Uuid) -> UsherError {
    UsherError::not_found(format!("job {job} does not exist, or is not one of yours"))
        .hint("SELECT id, flow, status FROM usher.sync_jobs shows the jobs you may see.")
}

/// Finds a job among the caller's organizations.
pub fn find(job: Uuid, right: Right) -> Result<Place> {
    let installed = setup::current()?;
    let mine = identity::organizations(Right::Read)?;
    // A dead letter whose organization does not exist is nobody's: operators look after it.
    let operator = identity::is_operator();
    let place = {
        let _acting = role::internal(installed.owner);
        spi::read_all(
            "SELECT organization_id, lane, seq, 'jobs' AS place, false FROM usher.ready_jobs WHERE id = $1 AND organization_id = ANY ($2)
             UNION ALL SELECT organization_id, lane, seq, 'queue_waiting', false FROM usher.queue_waiting WHERE id = $1 AND organization_id = ANY ($2)
             UNION ALL SELECT organization_id, lane, seq, 'dead_letters', false FROM usher.dead_letters
                        WHERE id = $1 AND (organization_id = ANY ($2) OR $3 AND NOT EXISTS (SELECT FROM usher.organizations o WHERE o.id = organization_id))
             UNION ALL SELECT organization_id, lane, 0, 'job_history', cancelled FROM usher.job_history WHERE id = $1 AND organization_id = ANY ($2)
             UNION ALL SELECT organization_id, lane, seq, 'log', false FROM usher.jobs WHERE id = $1 AND organization_id = ANY ($2)",
            &[spi::arg(job), spi::arg(mine), spi::arg(operator)],
            |row| {
                Ok(Place {
                    organization: row.get::<Uuid>(1)?.unwrap_or(job),
                    lane: row.get::<i16>(2)?.unwrap_or(0),
                    seq: row.get::<i64>(3)?.unwrap_or(0),
                    table: row.get::<String>(4)?.unwrap_or_default(),
                    cancelled: row.get::<bool>(5)?.unwrap_or(false),
                })
            },
        )?
        .into_iter()
        .next()
        .ok_or_else(|| unknown(job))?
    };
    if right == Right::Manage && !identity::manages(place.organization)? {
        return Err(UsherError::forbidden("members may read jobs, not change them")
            .detail(format!("You act as \"{}\".", identity::actor()))
            .hint("Ask an admin of the organization."));
    }
    Ok(place)
}

/// The organization of a job that the caller may read.
pub fn organization_of(job: Uuid) -> Result<Uuid> {
    Ok(find(job, Right::Read)?.organization)
}

/// The job as `usher.sync_jobs` shows it.
pub fn row(organization: Uuid, job: Uuid) -> Result<Row> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    spi::one::<Row>(
        "SELECT ROW(j.*)::usher.sync_job FROM usher.sync_jobs j WHERE j.organization_id = $1 AND j.id = $2 LIMIT 1",
        &[spi::arg(organization), spi::arg(job)],
    )?
    .ok_or_else(|| unknown(job))
}

/// Enters that a legend has called a function that names a job, which it returns.
pub fn note_legend(function: &str, row: &Row) -> Result<()> {
    let organization = row.get_by_name::<Uuid>("organization_id").ok().flatten();
    organization.map_or(Ok(()), |organization| audit::note_legend(function, organization))
}

/// The same of a job that may have been forgotten, while its key has not: then only its id is known.
pub fn row_or_id(organization: Uuid, job: Uuid) -> Result<Row> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    spi::one::<Row>(
        "SELECT COALESCE((SELECT ROW(j.*)::usher.sync_job FROM usher.sync_jobs j WHERE j.organization_id = $1 AND j.id = $2 LIMIT 1),
                         ROW($2, $1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::usher.sync_job)",
        &[spi::arg(organization), spi::arg(job)],
    )?
    .ok_or_else(|| unknown(job))
}

fn given(job: Option<Uuid>) -> Result<Uuid> {
    job.ok_or_else(|| UsherError::invalid("the job's id is missing").hint("Give the id that usher.enqueue_sync_job() returned."))
}

/// Ends a job that has not run.
pub fn cancel(job: Option<Uuid>) -> Result<Row> {
    let job = given(job)?;
    let installed = setup::current()?;
    let mut place = find(job, Right::Manage)?;
    // Locked from here to the end of the transaction: a worker passes over it and looks again afterwards.
    let hold = |place: &Place| -> Result<bool> {
        let _acting = role::internal(installed.owner);
        ready::hold_one(place.lane, place.seq)
    };
    let mut held = place.table == "jobs" && hold(&place)?;
    if place.table == "jobs" && !held {
        // The batch that it was waited for has done it, or has put it somewhere else.
        place = find(job, Right::Manage)?;
        held = place.table == "jobs" && hold(&place)?;
    }
    let _acting = role::internal(installed.owner);
    let gone = match place.table.as_str() {
        "jobs" if held => {
            spi::run(
                "WITH c AS (DELETE FROM usher.jobs AS q WHERE q.lane = $3 AND q.seq = $4 RETURNING q.*, usher.take_off(q.lane, q.flow_id, q.organization_id) AS off),
                      k AS (DELETE FROM usher.job_keys WHERE organization_id = $1 AND job_id = $2 AND EXISTS (SELECT FROM c))
                 INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old)
                 SELECT organization_id, id, created_at, pg_catalog.now(), cause, flow_id, flow_version, 0, lane, hop, op, true, new, old FROM c",
                &[spi::arg(place.organization), spi::arg(job), spi::arg(place.lane), spi::arg(place.seq)],
            )?
        }
        "queue_waiting" | "dead_letters" => {
            xact::note_due_changed();
            let gone = spi::run(
                &format!(
                    "WITH c AS (DELETE FROM usher.{} WHERE organization_id = $1 AND id = $2 RETURNING *),
                      k AS (DELETE FROM usher.job_keys WHERE organization_id = $1 AND job_id = $2 AND EXISTS (SELECT FROM c))
                 INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old,
                                                error_message, source_system, target_system)
                 SELECT organization_id, id, created_at, pg_catalog.now(), cause, flow_id, flow_version, attempts, lane, hop, op, true, new, old,
                        error_message, source_system, target_system FROM c",
                    place.table
                ),
                &[spi::arg(place.organization), spi::arg(job)],
            )?;
            super::followers::release_followers(&*crate::flow::store::classes()?)?;
            super::limits::heal(installed)?;
            gone
        }
        _ => 0,
    };
    if gone == 0 {
        let word = if place.cancelled { "cancelled" } else { "done" };
        return Err(UsherError::state(format!("job {job} is {word} already")).hint("Nothing of it is left to be cancelled."));
    }
    settle::ended(installed, place.organization, vec![job], "cancelled")?;
    let was = serde_json::json!({"place": place.table});
    audit::note(installed, Some(place.organization), "usher.sync_jobs.cancelled", &job.to_string(), Some(was), None)?;
    row(place.organization, job)
}

/// A step's job that has ended is its run's business: the run has gone on without it. What one carries is the run's, too: nobody changes
/// it. Runs with the owner's rights.
fn refuse_step(organization: Uuid, job: Uuid, changes: bool) -> Result<()> {
    let run = spi::read_all(
        "SELECT j.new ->> 'run', j.ended
           FROM (SELECT d.flow_id, d.new, true AS ended FROM usher.dead_letters AS d WHERE d.organization_id = $1 AND d.id = $2
                 UNION ALL SELECT h.flow_id, h.new, true FROM usher.job_history AS h WHERE h.organization_id = $1 AND h.id = $2
                 UNION ALL SELECT w.flow_id, w.new, false FROM usher.queue_waiting AS w WHERE w.organization_id = $1 AND w.id = $2) AS j
           JOIN usher.flows AS f ON f.id = j.flow_id WHERE pg_catalog.jsonb_exists(f.definition -> 'when', 'step')",
        &[spi::arg(organization), spi::arg(job)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<bool>(2)? == Some(true))),
    )?;
    match run.into_iter().next() {
        Some((run, true)) => {
            Err(UsherError::state(format!("job {job} is a step of a workflow, whose run has gone on without it")).hint(format!(
                "SELECT usher.retry_workflow('{run}'); goes on with a run that is parked, or begins one anew that was undone."
            )))
        }
        Some(_) if changes => Err(UsherError::state(format!("job {job} is a step of a workflow: what it carries is its run's"))
            .hint("Leave out the changes. usher.start_workflow() begins a run with another input.")),
        _ => Ok(()),
    }
}

/// Runs a dead, failed or cancelled job again, with changes to what it carries if any are given.
pub fn retry(job: Option<Uuid>, changes: Option<JsonB>) -> Result<Row> {
    let job = given(job)?;
    let place = find(job, Right::Manage)?;
    if let Some(changes) = &changes
        && !changes.0.is_object()
    {
        return Err(UsherError::invalid("changes are not a JSON object").hint("Give the fields to change: {\"total\": 12.50}."));
    }
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    refuse_step(place.organization, job, changes.is_some())?;
    let changed = changes.as_ref().map(|changes| changes.0.clone());
    let for_outside = changes.as_ref().map(|changes| JsonB(changes.0.clone()));
    let arguments = [spi::arg(place.organization), spi::arg(job), spi::arg(changes)];
    let mut again = match place.table.as_str() {
        "dead_letters" => spi::run(
            "WITH c AS (DELETE FROM usher.dead_letters WHERE organization_id = $1 AND id = $2 RETURNING *)
             INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                              attempts, waiting_for, due_at, last_attempted_at, error_message, source_system, target_system)
             SELECT c.seq, c.row_key, c.id,
                    CASE WHEN EXISTS (SELECT FROM usher.organizations o WHERE o.id = c.organization_id) THEN c.organization_id
                         ELSE COALESCE(($3 ->> 'organization_id')::uuid, c.organization_id) END, c.created_at, c.cause, c.flow_id,
                    COALESCE((SELECT f.version FROM usher.flows f WHERE f.id = c.flow_id), c.flow_version), c.lane, 0, c.op, NULL,
                    CASE WHEN c.op = 'D' THEN c.new ELSE c.new || COALESCE($3, '{}') END,
                    CASE WHEN c.op = 'D' THEN c.old || COALESCE($3, '{}') ELSE c.old END,
                    0, CASE WHEN c.flow_id IS NULL THEN 'external worker' ELSE 'retry' END, pg_catalog.now(), c.last_attempted_at, c.error_message,
                    c.source_system, c.target_system FROM c",
            &arguments,
        )?,
        "queue_waiting" => spi::run(
            "UPDATE usher.queue_waiting SET due_at = pg_catalog.now(), attempts = 0,
                    new = CASE WHEN op = 'D' THEN new ELSE new || COALESCE($3, '{}') END,
                    old = CASE WHEN op = 'D' THEN old || COALESCE($3, '{}') ELSE old END
              WHERE organization_id = $1 AND id = $2 AND waiting_for IN ('retry', 'run_at')",
            &arguments,
        )?,
        "job_history" if place.cancelled => spi::run(
            "WITH c AS (DELETE FROM usher.job_history WHERE organization_id = $1 AND id = $2 AND cancelled RETURNING *)
             INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, new, old,
                                              attempts, waiting_for, due_at, error_message, source_system, target_system)
             SELECT pg_catalog.nextval('usher.queue_seq'), c.id, c.organization_id, c.created_at, c.cause, c.flow_id, c.flow_version, c.lane, 0, c.op,
                    CASE WHEN c.op = 'D' THEN c.new ELSE c.new || COALESCE($3, '{}') END,
                    CASE WHEN c.op = 'D' THEN c.old || COALESCE($3, '{}') ELSE c.old END,
                    0, CASE WHEN c.flow_id IS NULL THEN 'external worker' ELSE 'retry' END, pg_catalog.now(), c.error_message, c.source_system, c.target_system FROM c",
            &arguments,
        )?,
        _ => 0,
    };
    if again == 0 && place.table == "queue_waiting" {
        again = super::external::retry_now(installed, place.organization, job, for_outside)?;
        xact::note_callers();
    }
    if again == 0 {
        return Err(UsherError::state(format!("job {job} has nothing to retry"))
            .detail("It is pending, waits for its flow, for other jobs or for an earlier change of its row, or is synced.")
            .hint("Dead, failed and cancelled jobs can be retried, and those that wait for their time."));
    }
    xact::note_due_changed();
    if installed.up_to_date && place.table != "queue_waiting" {
        // Who runs it by hand does not mean its expiry.
        spi::run(
            "UPDATE usher.job_options SET expires_at = NULL WHERE organization_id = $1 AND job_id = $2 AND expires_at IS NOT NULL",
            &arguments[..2],
        )?;
        if place.table == "job_history" {
            settle::uncount(place.organization, job)?;
        }
    }
    let organization = spi::one::<Uuid>("SELECT organization_id FROM usher.queue_waiting WHERE id = $1", &[spi::arg(job)])?
        .unwrap_or(place.organization);
    let was = serde_json::json!({"place": place.table});
    audit::note(installed, Some(organization), "usher.sync_jobs.retried", &job.to_string(), Some(was), changed)?;
    row(organization, job)
}

/// Waits until a job has ended or the time is over, and returns it as it then stands.
pub fn wait(job: Option<Uuid>, timeout: Duration) -> Result<Row> {
    let job = given(job)?;
    let place = find(job, Right::Read)?;
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see a job end")
            .hint("Call usher.wait_for() in READ COMMITTED."));
    }
    let installed = setup::installed()?;
    let made_by = {
        let _acting = role::internal(installed.owner);
        spi::one::<i64>(
            "SELECT xmin::text::bigint FROM usher.jobs WHERE organization_id = $1 AND id = $2
             UNION ALL SELECT xmin::text::bigint FROM usher.queue_waiting WHERE organization_id = $1 AND id = $2",
            &[spi::arg(place.organization), spi::arg(job)],
        )?
    };
    // Rows of this very transaction are not committed: no worker can see them.
    if made_by.is_some_and(xact::is_mine) {
        return Err(UsherError::state(format!("job {job} was made in this transaction and can only start after its COMMIT"))
            .hint("COMMIT first, then call usher.wait_for()."));
    }
    let until = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        let ended = {
            let _acting = role::internal(installed.owner);
            spi::one::<bool>(
                "SELECT EXISTS (SELECT FROM usher.job_history WHERE organization_id = $1 AND id = $2)
                     OR EXISTS (SELECT FROM usher.dead_letters WHERE organization_id = $1 AND id = $2)
                     OR EXISTS (SELECT FROM usher.jobs j WHERE j.organization_id = $1 AND j.id = $2
                                   AND NOT EXISTS (SELECT FROM usher.ready_jobs r WHERE r.lane = j.lane AND r.seq = j.seq))",
                &[spi::arg(place.organization), spi::arg(job)],
            )?
        };
        let left = until.saturating_duration_since(Instant::now());
        if ended == Some(true) || left.is_zero() {
            return row(place.organization, job);
        }
        bgw::nap(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
