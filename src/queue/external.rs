//! Jobs of external systems: handed out under a lease, answered with it.
//!
//! A job of an external system waits in `usher.queue_waiting` for `external worker`. `due_at` NULL: it can be taken. Taken, it
//! stays where it is, with a lease and the lease's end as `due_at`; so does one whose next try comes later. What is due again
//! is put back among those that can be taken by the next claim for the system, found by an index on the time: nobody ever
//! looks through jobs that are held or not due.
//!
//! An answer counts as long as nobody else has taken the job, even when the lease has ended meanwhile.

use super::pauses::{self, Paused};
use super::{external_limits, life, limits, settle};
use crate::error::{Result, UsherError, mask};
use crate::flow::results;
use crate::flow::retry::Retry;
use crate::guard::audit;
use crate::pg::{guc, ids, role, spi};
use crate::registry::identity::{self, Right};
use crate::registry::systems;
use crate::settings;
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

/// Most jobs of one claim.
pub const MOST: i32 = 1_000;
/// A day.
pub const LONGEST_LEASE: f64 = 86_400.0;
/// Error texts of workers are cut to this many characters.
const LONGEST_REASON: usize = 4_000;
/// A caller of more organizations than this, who may see all, looks through the system's jobs and not through the organizations.
const MANY: usize = 16;

/// A job as a worker outside gets it.
pub struct Handed {
    pub job: Uuid,
    pub organization: Uuid,
    pub source: Option<String>,
    pub payload: JsonB,
    pub lane: i16,
    pub attempt: i32,
    pub lease: Uuid,
    pub until: TimestampWithTimeZone,
}

/// Why nothing that leaves the database is handed out now.
pub fn held(installed: Installed) -> Result<Option<&'static str>> {
    if !installed.home {
        return Ok(Some(
            "this database is a copy: usher.resume('moved') if it takes the original's place, usher.resume('copy') if that lives on",
        ));
    }
    Ok((!settings::outbound() || database_holds()?).then_some("usher.outbound is off: what leaves the database waits"))
}

/// `ALTER DATABASE … SET usher.outbound = off` reaches sessions that are open already only this way.
fn database_holds() -> Result<bool> {
    let setting = spi::read::<String>(
        "SELECT s.setting FROM pg_catalog.pg_db_role_setting AS d CROSS JOIN LATERAL unnest(d.setconfig) AS s (setting)
          WHERE d.setdatabase = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = pg_catalog.current_database())
            AND d.setrole = 0 AND s.setting LIKE 'usher.outbound=%'",
        &[],
    )?;
    Ok(setting.is_some_and(|setting| guc::is_off(setting.trim_start_matches("usher.outbound="))))
}

/// Jobs of leases that ended and of waits that are over can be taken again; what was lost too often is dead.
/// `$1` system, `$2` most tries. The clock is read by a query of its own: a volatile function by itself is no key for an index,
/// and all that is not due would be looked through.
const PUT_BACK: &str = "
WITH d AS MATERIALIZED (
    SELECT w.ctid AS at, w.leased_by IS NOT NULL AND w.attempts >= $2 AS lost
      FROM usher.queue_waiting AS w
     WHERE w.waiting_for = 'external worker' AND w.target_system = $1 AND w.due_at <= (SELECT pg_catalog.clock_timestamp())
     ORDER BY w.due_at LIMIT 1000 FOR UPDATE SKIP LOCKED),
x AS (
    DELETE FROM usher.queue_waiting AS w WHERE w.ctid = ANY (ARRAY(SELECT d.at FROM d WHERE d.lost)) RETURNING w.*),
b AS (
    INSERT INTO usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                    attempts, last_attempted_at, error_message, source_system, target_system)
    SELECT x.organization_id, x.id, x.seq, x.row_key, x.created_at, x.cause, x.flow_id, x.flow_version, x.lane, x.hop, x.op, x.trail, x.new, x.old,
           x.attempts, x.last_attempted_at, pg_catalog.format('no answer within its lease from %s, at the last of %s attempts', x.leased_by, x.attempts),
           x.source_system, x.target_system FROM x)
UPDATE usher.queue_waiting AS w
   SET due_at = NULL,
       error_message = CASE WHEN w.leased_by IS NULL THEN w.error_message ELSE pg_catalog.format('no answer within its lease from %s', w.leased_by) END
 WHERE w.ctid = ANY (ARRAY(SELECT d.at FROM d WHERE NOT d.lost))";

/// What can be taken, in its order: of all organizations, or of each by itself. `$1` system, `$2` organizations, `$6` how many
/// are looked at: more than are wanted, because others may be taking the first ones.
const OF_ALL: &str = "
    SELECT w.ctid AS at FROM usher.queue_waiting AS w
     WHERE w.waiting_for = 'external worker' AND w.due_at IS NULL AND w.target_system = $1 AND w.lane >= 0
       AND w.organization_id = ANY ($2)
     ORDER BY w.lane, w.seq LIMIT $6";
const OF_EACH: &str = "
    SELECT x.at
      FROM unnest($2::uuid[]) AS o (id)
     CROSS JOIN LATERAL (
           SELECT w.ctid AS at, w.lane, w.seq FROM usher.queue_waiting AS w
            WHERE w.waiting_for = 'external worker' AND w.due_at IS NULL AND w.target_system = $1 AND w.organization_id = o.id
            ORDER BY w.lane, w.seq LIMIT $6) AS x
     ORDER BY x.lane, x.seq LIMIT $6";

/// `$3` most jobs, `$4` who takes them, `$5` seconds of the lease. Always a row at least, which tells how many were looked at.
/// Rows are found again by their place, not by a join: of how many there are of them the planner has no idea.
pub(super) fn take(candidates: &str) -> String {
    format!(
        "
WITH c AS MATERIALIZED ({candidates}),
l AS MATERIALIZED (
    SELECT w.ctid AS at FROM usher.queue_waiting AS w
     WHERE w.ctid = ANY (ARRAY(SELECT c.at FROM c)) AND w.waiting_for = 'external worker' AND w.due_at IS NULL
     ORDER BY w.lane, w.seq LIMIT $3 FOR UPDATE SKIP LOCKED),
u AS (
    UPDATE usher.queue_waiting AS w
       SET lease_id = pg_catalog.gen_random_uuid(), leased_by = $4, attempts = w.attempts + 1, last_attempted_at = pg_catalog.clock_timestamp(),
           due_at = pg_catalog.clock_timestamp() + $5 * interval '1 second'
     WHERE w.ctid = ANY (ARRAY(SELECT l.at FROM l))
    RETURNING w.id, w.organization_id, w.source_system, w.new, w.lane, w.seq, w.attempts, w.lease_id, w.due_at)
SELECT (SELECT pg_catalog.count(*)::integer FROM c), u.id, u.organization_id, u.source_system, u.new, u.lane, u.attempts, u.lease_id, u.due_at
  FROM (SELECT) AS one LEFT JOIN u ON true ORDER BY u.lane, u.seq"
    )
}

/// Hands out up to `most` jobs of an external system, in the order of lane and position, for `seconds`.
pub fn claim(system: &str, most: i32, seconds: f64) -> Result<Vec<Handed>> {
    let installed = setup::current()?;
    let mine = identity::organizations(Right::Manage)?;
    if mine.is_empty() {
        return Err(forbidden("only admins of an organization may take its jobs"));
    }
    if !(1..=MOST).contains(&most) {
        return Err(UsherError::invalid(format!("n is {most}")).hint(format!("Give a number from 1 to {MOST}.")));
    }
    check_lease(seconds, "the lease")?;
    let everywhere = mine.len() > MANY && identity::is_legend()?;
    let by = identity::actor();
    let _acting = role::internal(installed.owner);
    match systems::kind(system)?.as_deref() {
        Some("external") => {}
        Some(kind) => {
            return Err(UsherError::invalid(format!("system \"{system}\" is {kind}: its jobs are done here"))
                .hint(format!("SELECT usher.create_system('{system}', 'external'); has new ones wait for a worker outside.")));
        }
        None => {
            return Err(UsherError::not_found(format!("system \"{system}\" does not exist"))
                .hint("SELECT name FROM usher.systems WHERE kind = 'external' lists those whose jobs can be taken."));
        }
    }
    if let Some(reason) = held(installed)? {
        notice!("no job is handed out: {reason}");
        return Ok(Vec::new());
    }
    let (mine, everywhere) = match pauses::current(installed)?.of(None, Some(system), ids::clock()) {
        Paused::Nothing => (mine, everywhere),
        Paused::All(_) => (Vec::new(), false),
        // Not through the jobs of all: those of who is paused may be many.
        Paused::Of(paused) => (mine.into_iter().filter(|id| !paused.contains_key(id.as_bytes())).collect(), false),
    };
    if mine.is_empty() {
        notice!("no job is handed out: what you may take of system \"{system}\" is paused");
        return Ok(Vec::new());
    }
    spi::run(PUT_BACK, &[spi::arg(system), spi::arg(tries())])?;
    let rules = limits::of_system(installed, system)?;
    if !rules.is_empty() {
        return external_limits::claim(system, &rules, &mine, most, &by, seconds);
    }
    let sql = take(if everywhere { OF_ALL } else { OF_EACH });
    let mut handed = Vec::new();
    let mut looked = most + 32;
    loop {
        let left = most - handed.len() as i32;
        let arguments = [
            spi::arg(system),
            spi::arg(mine.clone()),
            spi::arg(i64::from(left)),
            spi::arg(by.as_str()),
            spi::arg(seconds),
            spi::arg(i64::from(looked)),
        ];
        let rows = spi::all(&sql, &arguments, |row| Ok((row.get::<i32>(1)?.unwrap_or(0), read(row)?)))?;
        let seen = rows.first().map_or(0, |(seen, _)| *seen);
        handed.extend(rows.into_iter().filter_map(|(_, job)| job));
        // Fewer than wanted although there were more: others are taking them at this moment. Look further.
        if handed.len() >= most as usize || seen < looked || looked > 100_000 {
            return Ok(handed);
        }
        looked *= 4;
    }
}

pub(super) fn read(row: &pgrx::spi::SpiTupleTable<'_>) -> Result<Option<Handed>> {
    let (Some(job), Some(organization), Some(lease), Some(until)) =
        (row.get::<Uuid>(2)?, row.get::<Uuid>(3)?, row.get::<Uuid>(8)?, row.get::<TimestampWithTimeZone>(9)?)
    else {
        return Ok(None);
    };
    Ok(Some(Handed {
        job,
        organization,
        source: row.get::<String>(4)?,
        payload: row.get::<JsonB>(5)?.unwrap_or(JsonB(serde_json::json!({}))),
        lane: row.get::<i16>(6)?.unwrap_or(0),
        attempt: row.get::<i32>(7)?.unwrap_or(1),
        lease,
        until,
    }))
}

/// How often a job of an external system is tried.
fn tries() -> i32 {
    i32::try_from(Retry::default().delays.len()).unwrap_or(0) + 1
}

fn check_lease(seconds: f64, what: &str) -> Result<()> {
    if (0.001..=LONGEST_LEASE).contains(&seconds) {
        return Ok(());
    }
    Err(UsherError::invalid(format!("{what} is no time between a millisecond and a day"))
        .hint("Give an interval such as '1 minute'."))
}

fn forbidden(message: impl Into<String>) -> UsherError {
    UsherError::forbidden(message)
        .detail(format!("You act as \"{}\".", identity::actor()))
        .hint("Ask an admin of the organization to do it, or to make you an admin with usher.grant_membership().")
}

/// A job that the caller holds, locked until the end of the transaction.
struct Held {
    organization: Uuid,
    attempts: i32,
}

/// What became of an answer.
enum Answer {
    Counts(Held),
    /// It was given before, with this very lease.
    Repeated(Uuid),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Finish,
    Fail,
    Extend,
}

impl Kind {
    fn function(self) -> &'static str {
        match self {
            Self::Finish => "finish_job",
            Self::Fail => "fail_job",
            Self::Extend => "extend_lease",
        }
    }
}

/// Finds the job for which an answer is given, or says why the answer does not count.
fn answer(job: Uuid, lease: Uuid, kind: Kind, installed: Installed) -> Result<Answer> {
    let mine = identity::organizations(Right::Manage)?;
    let acting = role::internal(installed.owner);
    let found = spi::all(
        "SELECT w.organization_id, w.attempts, w.leased_by IS NOT NULL FROM usher.queue_waiting AS w
          WHERE w.lease_id = $1 AND w.id = $2 AND w.organization_id = ANY ($3) AND w.waiting_for = 'external worker' FOR UPDATE",
        &[spi::arg(lease), spi::arg(job), spi::arg(mine.clone())],
        |row| {
            let held = Held { organization: row.get::<Uuid>(1)?.unwrap_or(job), attempts: row.get::<i32>(2)?.unwrap_or(1) };
            Ok((held, row.get::<bool>(3)?.unwrap_or(false)))
        },
    )?;
    let found = found.into_iter().next();
    drop(acting);
    if let Some((held, _)) = &found {
        audit::note_legend(kind.function(), held.organization)?;
    }
    let acting = role::internal(installed.owner);
    match found {
        Some((held, true)) => return Ok(Answer::Counts(held)),
        Some((held, false)) if kind == Kind::Fail => return Ok(Answer::Repeated(held.organization)),
        _ => {}
    }
    // It is not held under this lease: what it is instead, if it is one of the caller's.
    let place = spi::read_all(
        "SELECT w.organization_id, CASE WHEN w.waiting_for <> 'external worker' THEN 'is not one for a worker outside'
                                        WHEN w.lease_id = $3 THEN 'was given back under this lease and waits for its next try'
                                        WHEN w.lease_id IS NULL THEN 'is held by nobody' ELSE 'is held under another lease' END, false
           FROM usher.queue_waiting AS w WHERE w.id = $1 AND w.organization_id = ANY ($2)
         UNION ALL SELECT d.organization_id, 'is dead', $4 AND d.flow_id IS NULL AND d.lease_id = $3 FROM usher.dead_letters AS d WHERE d.id = $1 AND d.organization_id = ANY ($2)
         UNION ALL SELECT h.organization_id, CASE WHEN h.cancelled THEN 'is cancelled' ELSE 'is done' END, NOT $4 AND NOT h.cancelled AND h.lease_id = $3
           FROM usher.job_history AS h WHERE h.id = $1 AND h.organization_id = ANY ($2)",
        &[spi::arg(job), spi::arg(mine), spi::arg(lease), spi::arg(kind == Kind::Fail)],
        |row| {
            Ok((
                row.get::<Uuid>(1)?.unwrap_or(job),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<bool>(3)?.unwrap_or(false),
            ))
        },
    )?;
    drop(acting);
    match place.into_iter().next() {
        Some((organization, _, true)) if kind != Kind::Extend => {
            audit::note_legend(kind.function(), organization)?;
            Ok(Answer::Repeated(organization))
        }
        Some((_, what, _)) => Err(UsherError::state(format!("lease {lease} does not hold job {job} any more"))
            .detail(format!("The job {what}."))
            .hint("Drop this piece of work; usher.claim_jobs() hands out what is to be done now.")),
        // A ready job of a flow is no secret to its admins either, but there is nothing to say about it.
        None if identity::is_operator() => Err(UsherError::not_found(format!("no worker outside holds job {job}"))
            .hint("SELECT id, status, waiting_for FROM usher.sync_jobs shows the jobs.")),
        None => Err(forbidden(format!("job {job} is not one that you may answer for"))),
    }
}

/// Ends a job as done.
pub fn finish(job: Uuid, lease: Uuid, result: Option<JsonB>) -> Result<life::Row> {
    let installed = setup::current()?;
    let organization = match answer(job, lease, Kind::Finish, installed)? {
        Answer::Repeated(organization) => organization,
        Answer::Counts(held) => {
            let _acting = role::internal(installed.owner);
            end(held.organization, job)?;
            settle::done_outside(installed, held.organization, job)?;
            if let Some(result) = result {
                results::record_one(held.organization, job, result)?;
            }
            held.organization
        }
    };
    life::row(organization, job)
}

/// A job that is done, and locked by us, into the history. Runs with the owner's rights.
pub fn end(organization: Uuid, job: Uuid) -> Result<usize> {
    spi::run(
        "WITH w AS (DELETE FROM usher.queue_waiting WHERE organization_id = $1 AND id = $2 RETURNING *)
         INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, new, old,
                                        source_system, target_system, lease_id)
         SELECT w.organization_id, w.id, w.created_at, pg_catalog.clock_timestamp(), w.cause, w.flow_id, w.flow_version, w.attempts, w.lane, w.hop, w.op, w.new, w.old,
                w.source_system, w.target_system, w.lease_id FROM w",
        &[spi::arg(organization), spi::arg(job)],
    )
}

/// A job that failed for good, and is locked by us, to the dead letters. Runs with the owner's rights.
pub fn bury(organization: Uuid, job: Uuid, reason: &str, sqlstate: Option<&str>) -> Result<usize> {
    spi::run(
        "WITH w AS (DELETE FROM usher.queue_waiting WHERE organization_id = $1 AND id = $2 RETURNING *)
         INSERT INTO usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                         attempts, last_attempted_at, error_message, sqlstate, source_system, target_system, lease_id)
         SELECT w.organization_id, w.id, w.seq, w.row_key, w.created_at, w.cause, w.flow_id, w.flow_version, w.lane, w.hop, w.op, w.trail, w.new, w.old,
                w.attempts, w.last_attempted_at, $3, $4, w.source_system, w.target_system, w.lease_id FROM w",
        &[spi::arg(organization), spi::arg(job), spi::arg(reason), spi::arg(sqlstate.map(str::to_owned))],
    )
}

/// A job that waits for its next try. Runs with the owner's rights.
pub fn defer(organization: Uuid, job: Uuid, after: f64, reason: &str) -> Result<usize> {
    spi::run(
        "UPDATE usher.queue_waiting SET leased_by = NULL, due_at = pg_catalog.clock_timestamp() + $3 * interval '1 second', error_message = $4
          WHERE organization_id = $1 AND id = $2",
        &[spi::arg(organization), spi::arg(job), spi::arg(after), spi::arg(reason)],
    )
}

/// A worker could not do a job: it is tried again after `after` seconds, or by the rule, or is dead.
pub fn fail(job: Uuid, lease: Uuid, reason: &str, after: Option<f64>, permanent: bool) -> Result<life::Row> {
    let installed = setup::current()?;
    if let Some(after) = after
        && !(0.0..=31_536_000.0).contains(&after)
    {
        return Err(UsherError::invalid("retry_after is no time between 0 and a year").hint("Give an interval such as '30 s'."));
    }
    let organization = match answer(job, lease, Kind::Fail, installed)? {
        Answer::Repeated(organization) => organization,
        Answer::Counts(held) => {
            let _acting = role::internal(installed.owner);
            let reason: String = mask(reason).chars().take(LONGEST_REASON).collect();
            let next = Retry::default().next(held.attempts, super::chance()).map(|delay| after.unwrap_or(delay));
            match next.filter(|_| !permanent) {
                Some(after) => defer(held.organization, job, after, &reason)?,
                None => bury(held.organization, job, &reason, None)?,
            };
            held.organization
        }
    };
    life::row(organization, job)
}

/// Gives a worker more time; returns when the lease now ends.
pub fn extend(job: Uuid, lease: Uuid, seconds: f64) -> Result<TimestampWithTimeZone> {
    let installed = setup::current()?;
    check_lease(seconds, "\"by\"")?;
    let Answer::Counts(held) = answer(job, lease, Kind::Extend, installed)? else {
        return Err(UsherError::internal("a lease that is to be extended was answered"));
    };
    let _acting = role::internal(installed.owner);
    spi::one::<TimestampWithTimeZone>(
        "UPDATE usher.queue_waiting
            SET due_at = LEAST(GREATEST(due_at, pg_catalog.clock_timestamp()) + $3 * interval '1 second', pg_catalog.clock_timestamp() + interval '1 day')
          WHERE organization_id = $1 AND id = $2 RETURNING due_at",
        &[spi::arg(held.organization), spi::arg(job), spi::arg(seconds)],
    )?
    .ok_or_else(|| UsherError::internal("a job that was locked is gone"))
}

/// The next try of a job that an outside worker gave back, or lost, comes now. Runs with the owner's rights.
pub fn retry_now(installed: Installed, organization: Uuid, job: Uuid, changes: Option<JsonB>) -> Result<usize> {
    if !installed.up_to_date {
        return Ok(0);
    }
    spi::run(
        "UPDATE usher.queue_waiting SET due_at = NULL, leased_by = NULL, attempts = 0,
                new = CASE WHEN op = 'D' THEN new ELSE new || COALESCE($3, '{}') END,
                old = CASE WHEN op = 'D' THEN old || COALESCE($3, '{}') ELSE old END
          WHERE organization_id = $1 AND id = $2 AND waiting_for IN ('external worker', 'external call') AND lease_id IS NOT NULL
            AND (leased_by IS NULL OR waiting_for = 'external worker' AND (due_at IS NULL OR due_at <= (SELECT pg_catalog.clock_timestamp())))",
        &[spi::arg(organization), spi::arg(job), spi::arg(changes)],
    )
}

/// What came back from a job, for those who may read it.
pub fn result(job: Uuid) -> Result<Option<JsonB>> {
    let organization = life::organization_of(job)?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    results::read(organization, job)
}
