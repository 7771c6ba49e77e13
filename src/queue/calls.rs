//! Calls whose work leaves the database: jobs that wait in `usher.queue_waiting` for `external call`, one caller process at a
//! time takes one of them. Everything here runs with the owner's rights.
//!
//! `leased_by` names the process; its lease holds as long as the process lives, and `due_at` tells people when its time is
//! over. A job of a process that is gone is given back by the next one that starts.

use super::{call_limits, external, limits, pauses, settle};
use crate::error::Result;
use crate::flow::store::Flow;
use crate::pg::guc::Nest;
use crate::pg::spi;
use crate::setup::{self, Installed};
use pgrx::Uuid;
use pgrx::prelude::*;

/// A job that this process has taken.
pub struct Taken {
    pub organization: Uuid,
    pub id: Uuid,
    pub flow: i32,
    pub version: i32,
    pub hop: i16,
    pub lane: i16,
    pub trail: Option<String>,
    pub row_key: Option<i64>,
    pub seq: i64,
    /// This one included.
    pub attempts: i32,
    /// The limits that it counts for: those per key, and while it is in flight all on concurrency.
    pub limit_keys: Vec<String>,
    created: Option<TimestampWithTimeZone>,
    op: String,
    new: Option<String>,
    old: Option<String>,
}

/// One job as the arrays of a batch: the statement and its arguments. No table is read, so that none is locked while a call
/// takes its time.
pub const AS_BATCH: &str =
    "SELECT ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[$3::text::jsonb], ARRAY[$4::text::jsonb], ARRAY[$5::text::\"char\"],
                                   ARRAY[$6::timestamptz], ARRAY[$7::bigint]";

impl Taken {
    pub fn arguments<'a>(&self) -> [pgrx::datum::DatumWithOid<'a>; 7] {
        [
            spi::arg(self.organization),
            spi::arg(self.id),
            spi::arg(self.new.clone()),
            spi::arg(self.old.clone()),
            spi::arg(self.op.clone()),
            spi::arg(self.created),
            spi::arg(self.seq),
        ]
    }
}

/// Puts a job aside that this process has just taken: it waits for a pause, or is looked at again soon if that ends just now.
pub fn put_aside(job: &Taken, pause: i32) -> Result<()> {
    let kept = pauses::keep(vec![pause])?.contains(&pause);
    spi::run(
        "UPDATE usher.queue_waiting
            SET waiting_for = CASE WHEN $4 THEN 'paused' ELSE 'external call' END, paused_by = CASE WHEN $4 THEN $3 END,
                due_at = CASE WHEN NOT $4 THEN pg_catalog.clock_timestamp() + interval '100 ms' END,
                leased_by = NULL, lease_id = NULL, attempts = attempts - 1
          WHERE organization_id = $1 AND id = $2",
        &[spi::arg(job.organization), spi::arg(job.id), spi::arg(pause), spi::arg(kept)],
    )?;
    Ok(())
}

/// Any job, or any flow, that wants a caller process.
pub fn wanted() -> Result<bool> {
    // By the two indexes of calls: millions may wait for something else.
    let _index = Nest::open().index_scans();
    Ok(spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.queue_waiting WHERE waiting_for = 'external call' AND due_at IS NULL)
             OR EXISTS (SELECT FROM usher.queue_waiting WHERE waiting_for = 'external call' AND due_at IS NOT NULL)
             OR EXISTS (SELECT FROM usher.flows AS f WHERE f.enabled AND f.definition -> 'then' ->> 'effect' = 'external')",
        &[],
    )?
    .unwrap_or(false))
}

/// What is not in flight any more makes room for others.
fn given_back(sql: &str, living: &[String]) -> Result<()> {
    let keys = spi::all(sql, &[spi::arg(living.to_vec())], |row| Ok(row.get::<Vec<String>>(1)?))?;
    call_limits::release(setup::installed()?, keys.into_iter().flatten().flatten().collect())
}

/// Jobs of processes that are gone can be taken again, at once. `living`: those who are not.
pub fn take_from_the_dead(living: &[String]) -> Result<()> {
    given_back(
        "UPDATE usher.queue_waiting AS w
            SET due_at = NULL, leased_by = NULL, error_message = 'the process that made the call ended before it was over'
          WHERE w.ctid = ANY (ARRAY(
                SELECT d.ctid FROM usher.queue_waiting AS d
                 WHERE d.waiting_for = 'external call' AND d.due_at IS NOT NULL AND d.leased_by IS NOT NULL AND d.leased_by <> ALL ($1)
                   FOR UPDATE SKIP LOCKED))
         RETURNING w.limit_keys",
        living,
    )
}

/// Jobs whose next try has come can be taken again, and those whose lease is over without a living process behind it.
pub fn put_back(living: &[String]) -> Result<()> {
    given_back(
        "UPDATE usher.queue_waiting AS w SET due_at = NULL, leased_by = NULL
          WHERE w.ctid = ANY (ARRAY(
                SELECT d.ctid FROM usher.queue_waiting AS d
                 WHERE d.waiting_for = 'external call' AND d.due_at <= (SELECT pg_catalog.clock_timestamp()) AND (d.leased_by IS NULL OR d.leased_by <> ALL ($1))
                 ORDER BY d.due_at LIMIT 1000 FOR UPDATE SKIP LOCKED))
         RETURNING w.limit_keys",
        living,
    )
}

/// Takes the first job of these lanes.
pub fn take(lanes: &[i16], by: &str) -> Result<Option<Taken>> {
    let taken = spi::all(
        "WITH l AS MATERIALIZED (
             SELECT w.ctid AS at FROM usher.queue_waiting AS w
              WHERE w.waiting_for = 'external call' AND w.due_at IS NULL AND w.lane = ANY ($1::smallint[])
              ORDER BY w.lane, w.seq LIMIT 1 FOR UPDATE SKIP LOCKED)
         UPDATE usher.queue_waiting AS w
            SET lease_id = pg_catalog.gen_random_uuid(), leased_by = $2, attempts = w.attempts + 1, last_attempted_at = pg_catalog.clock_timestamp(),
                due_at = pg_catalog.clock_timestamp()
          WHERE w.ctid = ANY (ARRAY(SELECT l.at FROM l))
         RETURNING w.organization_id, w.id, w.flow_id, w.flow_version, w.hop, w.lane, w.trail, w.row_key, w.seq, w.attempts, w.created_at,
                   w.op::text, w.new::text, w.old::text, w.limit_keys",
        &[spi::arg(lanes.to_vec()), spi::arg(by)],
        |row| {
            let uuid = |at| -> Result<Uuid> { Ok(row.get::<Uuid>(at)?.unwrap_or_else(|| Uuid::from_bytes([0; 16]))) };
            Ok(Taken {
                organization: uuid(1)?,
                id: uuid(2)?,
                flow: row.get::<i32>(3)?.unwrap_or_default(),
                version: row.get::<i32>(4)?.unwrap_or_default(),
                hop: row.get::<i16>(5)?.unwrap_or_default(),
                lane: row.get::<i16>(6)?.unwrap_or_default(),
                trail: row.get::<String>(7)?,
                row_key: row.get::<i64>(8)?,
                seq: row.get::<i64>(9)?.unwrap_or_default(),
                attempts: row.get::<i32>(10)?.unwrap_or(1),
                created: row.get::<TimestampWithTimeZone>(11)?,
                op: row.get::<String>(12)?.unwrap_or_default(),
                new: row.get::<String>(13)?,
                old: row.get::<String>(14)?,
                limit_keys: row.get::<Vec<String>>(15)?.unwrap_or_default(),
            })
        },
    )?;
    Ok(taken.into_iter().next())
}

/// When the call should be over, for people and for a server in which its process is unknown.
pub fn lease_until(job: &Taken, seconds: f64) -> Result<()> {
    spi::run(
        "UPDATE usher.queue_waiting SET due_at = pg_catalog.clock_timestamp() + $3 * interval '1 second' WHERE organization_id = $1 AND id = $2",
        &[spi::arg(job.organization), spi::arg(job.id), spi::arg(seconds)],
    )?;
    Ok(())
}

/// Seconds until the next try of some call; None when none waits for its time.
pub fn next_due() -> Result<Option<f64>> {
    spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(due_at) - pg_catalog.clock_timestamp())::float8 FROM usher.queue_waiting
          WHERE waiting_for = 'external call' AND due_at IS NOT NULL AND leased_by IS NULL",
        &[],
    )
}

/// True when a job that was taken may be called now. Else it waits for its limits, and the try does not count.
pub fn may_pass(installed: Installed, flow: &Flow, job: &mut Taken) -> Result<bool> {
    let rules = limits::of_flow(installed, flow)?;
    if rules.is_empty() { Ok(true) } else { call_limits::pass(installed, &rules, flow, job) }
}

/// The call of a job that is gone has ended: others may have waited for room.
pub fn not_in_flight(job: &Taken) -> Result<()> {
    call_limits::release(setup::installed()?, job.limit_keys.iter().cloned().collect())
}

/// Locks a job that this process still holds. False: it was cancelled meanwhile.
pub fn still_mine(job: &Taken, by: &str) -> Result<bool> {
    let locked = spi::run(
        "SELECT FROM usher.queue_waiting WHERE organization_id = $1 AND id = $2 AND waiting_for = 'external call' AND leased_by = $3 FOR UPDATE",
        &[spi::arg(job.organization), spi::arg(job.id), spi::arg(by)],
    )?;
    Ok(locked > 0)
}

/// What becomes of a job that is held.
pub enum End<'a> {
    Done,
    Later(f64, &'a str),
    Dead(&'a str, &'a str),
    Cancelled(&'a str),
    /// Its flow is off or broken: the try does not count.
    Waits(&'a str),
}

pub fn end(job: &Taken, end: End<'_>) -> Result<()> {
    let over = match end {
        End::Done => {
            let done = external::end(job.organization, job.id)? > 0;
            if done {
                settle::done_outside(setup::installed()?, job.organization, job.id)?;
            }
            done
        }
        End::Dead(reason, sqlstate) => external::bury(job.organization, job.id, reason, Some(sqlstate))? > 0,
        End::Later(after, reason) => {
            external::defer(job.organization, job.id, after, reason)?;
            false
        }
        End::Waits(reason) => {
            spi::run(
                "UPDATE usher.queue_waiting SET waiting_for = $3, leased_by = NULL, lease_id = NULL, due_at = NULL, attempts = attempts - 1
                  WHERE organization_id = $1 AND id = $2",
                &[spi::arg(job.organization), spi::arg(job.id), spi::arg(reason)],
            )?;
            false
        }
        End::Cancelled(reason) => {
            spi::run(
                "WITH w AS (DELETE FROM usher.queue_waiting WHERE organization_id = $1 AND id = $2 RETURNING *)
                 INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled,
                                                new, old, error_message, source_system, target_system)
                 SELECT w.organization_id, w.id, w.created_at, pg_catalog.now(), w.cause, w.flow_id, w.flow_version, w.attempts - 1, w.lane, w.hop, w.op, true,
                        w.new, w.old, $3, w.source_system, w.target_system FROM w",
                &[spi::arg(job.organization), spi::arg(job.id), spi::arg(reason)],
            )?;
            settle::ended(setup::installed()?, job.organization, vec![job.id], "cancelled")?;
            true
        }
    };
    not_in_flight(job)?;
    if over { release_next(job) } else { Ok(()) }
}

/// The next change of the row comes now: it waited for this one.
fn release_next(job: &Taken) -> Result<()> {
    let Some(row_key) = job.row_key else { return Ok(()) };
    spi::run(
        "UPDATE usher.queue_waiting AS w SET waiting_for = 'external call', due_at = NULL
          WHERE w.ctid = ANY (ARRAY(
                SELECT n.ctid FROM usher.queue_waiting AS n
                 WHERE n.flow_id = $1 AND n.row_key = $2 AND n.waiting_for = 'earlier change' AND n.due_at IS NULL
                   AND NOT EXISTS (SELECT FROM usher.queue_waiting AS e
                                    WHERE e.flow_id = n.flow_id AND e.row_key = n.row_key AND e.seq < n.seq)
                   FOR UPDATE SKIP LOCKED))",
        &[spi::arg(job.flow), spi::arg(row_key)],
    )?;
    Ok(())
}
