//! The statements of runs: read and written for many at once. Everything here runs with the owner's rights.

use super::model::{Phase, Place, State};
use super::plan::{self, Plan};
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::{spi, xact};
use crate::queue::pressure;
use pgrx::{JsonB, Uuid};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A run that this transaction has locked.
pub struct Held {
    pub organization: Uuid,
    pub id: Uuid,
    pub flow: i32,
    pub plan: Rc<Plan>,
    pub run: super::model::Run,
    pub lane: i16,
    /// Jobs of its places: the one at work, and the clock.
    pub jobs: HashMap<Place, (Option<Uuid>, Option<Uuid>)>,
}

/// Locks runs that have not ended (or, `ended` too, those that have), in the order of their ids. `wait`: until others let go of them; else
/// those are left out.
pub fn hold(organizations: &[Uuid], ids: &[Uuid], wait: bool, ended: bool) -> Result<Vec<Held>> {
    let _index = Nest::open().one_by_one();
    let skip = if wait { "" } else { " SKIP LOCKED" };
    let runs = spi::all(
        &format!(
            "SELECT r.organization_id, r.id, r.flow_id, r.version, r.state, r.given_up, r.lane, r.ended_at IS NOT NULL
               FROM (SELECT DISTINCT u.o, u.i FROM unnest($1::uuid[], $2::uuid[]) AS u (o, i) ORDER BY u.i) AS u
              CROSS JOIN LATERAL (SELECT r.* FROM usher.workflow_runs AS r WHERE r.organization_id = u.o AND r.id = u.i FOR UPDATE{skip}) AS r"
        ),
        &[spi::arg(organizations.to_vec()), spi::arg(ids.to_vec())],
        |row| {
            if row.get::<bool>(8)? == Some(true) && !ended {
                return Ok(None);
            }
            let (organization, id) = (row.get::<Uuid>(1)?.unwrap_or_else(nil), row.get::<Uuid>(2)?.unwrap_or_else(nil));
            let Some(plan) = plan::get(row.get::<i32>(3)?.unwrap_or_default(), row.get::<i32>(4)?.unwrap_or_default())? else {
                return Ok(Some(Err((organization, id))));
            };
            let phase = Phase::named(&row.get::<String>(5)?.unwrap_or_default());
            Ok(Some(Ok(Held {
                organization,
                id,
                flow: row.get::<i32>(3)?.unwrap_or_default(),
                plan,
                run: super::model::Run {
                    phase: phase.ok_or_else(|| UsherError::internal("a run's state is unknown"))?,
                    given_up: row.get::<bool>(6)? == Some(true),
                    places: BTreeMap::new(),
                },
                lane: row.get::<i16>(7)?.unwrap_or(3),
                jobs: HashMap::new(),
            })))
        },
    )?;
    let (mut there, mut orphans) = (Vec::new(), Vec::new());
    for run in runs.into_iter().flatten() {
        match run {
            Ok(run) => there.push(run),
            Err(orphan) => orphans.push(orphan),
        }
    }
    if !orphans.is_empty() {
        orphaned(orphans)?;
    }
    // A statement of its own: it sees what whoever held a run before has committed.
    let mut by_id: HashMap<[u8; 16], Held> = there.into_iter().map(|run| (*run.id.as_bytes(), run)).collect();
    let (organizations, ids): (Vec<Uuid>, Vec<Uuid>) = by_id.values().map(|run| (run.organization, run.id)).unzip();
    let steps = spi::read_all(
        "SELECT s.run_id, s.step, s.item, s.state, s.job_id, s.clock_id FROM unnest($1::uuid[], $2::uuid[]) AS u (o, i)
          CROSS JOIN LATERAL (SELECT s.* FROM usher.workflow_steps AS s WHERE s.organization_id = u.o AND s.run_id = u.i OFFSET 0) AS s",
        &[spi::arg(organizations), spi::arg(ids)],
        |row| {
            Ok((
                row.get::<Uuid>(1)?.unwrap_or_else(nil),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<i32>(3)?.unwrap_or(0),
                row.get::<String>(4)?.unwrap_or_default(),
                (row.get::<Uuid>(5)?, row.get::<Uuid>(6)?),
            ))
        },
    )?;
    for (run, step, item, state, jobs) in steps {
        let Some(held) = by_id.get_mut(run.as_bytes()) else { continue };
        // A step that only another version had.
        let Some(number) = held.plan.number(&step) else { continue };
        let state = State::named(&state).ok_or_else(|| UsherError::internal("a step's state is unknown"))?;
        held.run.places.insert((number, item), state);
        held.jobs.insert((number, item), jobs);
    }
    let mut held: Vec<Held> = by_id.into_values().collect();
    held.sort_unstable_by_key(|run| *run.id.as_bytes());
    Ok(held)
}

/// Closes a run if its workflow was dropped.
pub fn close_orphan(organization: Uuid, run: Uuid) -> Result<bool> {
    let orphan = spi::one::<bool>(
        "SELECT true FROM usher.workflow_runs AS r
          WHERE r.organization_id = $1 AND r.id = $2 AND r.ended_at IS NULL AND NOT EXISTS (SELECT FROM usher.flows AS f WHERE f.id = r.flow_id)",
        &[spi::arg(organization), spi::arg(run)],
    )?;
    if orphan == Some(true) {
        orphaned(vec![(organization, run)])?;
    }
    Ok(orphan == Some(true))
}

/// Runs whose workflow was dropped, by whatever way: nobody can go on with them.
fn orphaned(runs: Vec<(Uuid, Uuid)>) -> Result<()> {
    let (organizations, ids): (Vec<Uuid>, Vec<Uuid>) = runs.into_iter().unzip();
    spi::run(
        "UPDATE usher.workflow_runs AS r
            SET state = 'closed', remedy = NULL, ended_at = pg_catalog.clock_timestamp(),
                error_message = pg_catalog.concat_ws('; then ', r.error_message, 'its workflow was dropped')
           FROM unnest($1::uuid[], $2::uuid[]) AS u (organization_id, id)
          WHERE r.organization_id = u.organization_id AND r.id = u.id AND r.ended_at IS NULL",
        &[spi::arg(organizations), spi::arg(ids)],
    )?;
    Ok(())
}

pub fn nil() -> Uuid {
    Uuid::from_bytes([0; 16])
}

/// What becomes of a step.
pub struct Change {
    pub organization: Uuid,
    pub run: Uuid,
    pub step: String,
    pub item: i32,
    /// None: it never was.
    pub state: Option<State>,
    pub job: Option<Uuid>,
    pub clock: Option<Uuid>,
    pub error: Option<String>,
    pub sqlstate: Option<String>,
    /// The job whose result is the step's.
    pub result_of: Option<Uuid>,
    pub result: Option<JsonB>,
    /// The look that tells for what element it is done.
    pub element_of: Option<Uuid>,
}

/// `$1` organizations, `$2` runs, `$3` steps, `$4` items, `$5` states, `$6` jobs, `$7` clocks, `$8` errors, `$9` sqlstates, `$10` jobs with
/// results, `$11` results, `$12` looks.
const CHANGE: &str = "
INSERT INTO usher.workflow_steps AS s (organization_id, run_id, step, item, state, job_id, clock_id, error_message, sqlstate, result, data, ended_at)
SELECT c.organization_id, c.run_id, c.step, c.item, c.state, c.job, c.clock, c.error, c.sqlstate, COALESCE(c.result, r.result),
       CASE WHEN c.element_of IS NOT NULL THEN e.result -> 'each' -> (c.item - 1) END,
       CASE WHEN c.state NOT IN ('looking', 'running', 'waiting', 'sleeping') THEN pg_catalog.clock_timestamp() END
  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::uuid[], $7::uuid[], $8::text[], $9::text[], $10::uuid[], $11::jsonb[], $12::uuid[])
       AS c (organization_id, run_id, step, item, state, job, clock, error, sqlstate, result_of, result, element_of)
  LEFT JOIN LATERAL (SELECT r.result FROM usher.job_results AS r WHERE r.organization_id = c.organization_id AND r.job_id = c.result_of OFFSET 0) AS r ON true
  LEFT JOIN LATERAL (SELECT e.result FROM usher.job_results AS e WHERE e.organization_id = c.organization_id AND e.job_id = c.element_of OFFSET 0) AS e ON true
 WHERE c.state IS NOT NULL
ON CONFLICT ON CONSTRAINT workflow_steps_pkey DO UPDATE
   SET state = EXCLUDED.state, job_id = COALESCE(EXCLUDED.job_id, s.job_id), clock_id = EXCLUDED.clock_id,
       error_message = EXCLUDED.error_message, sqlstate = EXCLUDED.sqlstate, 
       result = CASE WHEN s.ended_at IS NOT NULL AND EXCLUDED.state IN ('looking', 'running', 'waiting', 'sleeping') THEN NULL
                     ELSE COALESCE(EXCLUDED.result, s.result) END,
       data = COALESCE(EXCLUDED.data, s.data),
       started_at = CASE WHEN s.ended_at IS NOT NULL AND EXCLUDED.state IN ('looking', 'running', 'waiting', 'sleeping')
                         THEN pg_catalog.clock_timestamp() ELSE s.started_at END,
       -- What is undone was done before.
       ended_at = CASE WHEN EXCLUDED.state IN ('undoing', 'undone', 'stuck') THEN s.ended_at ELSE EXCLUDED.ended_at END,
       undo_started_at = CASE WHEN EXCLUDED.state = 'undoing' THEN pg_catalog.clock_timestamp() WHEN EXCLUDED.state IN ('undone', 'stuck') THEN s.undo_started_at END,
       undone_at = CASE WHEN EXCLUDED.state = 'undone' THEN pg_catalog.clock_timestamp() END";

/// A step that is begun anew as if it never was.
const FORGET: &str = "
DELETE FROM usher.workflow_steps AS s USING unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[]) AS c (organization_id, run_id, step, item)
 WHERE s.organization_id = c.organization_id AND s.run_id = c.run_id AND s.step = c.step AND s.item = c.item";

/// Of steps that are done for each element: what they returned, in a list.
const GATHER: &str = "
UPDATE usher.workflow_steps AS s
   SET result = (SELECT pg_catalog.jsonb_agg(i.result ORDER BY i.item) FROM usher.workflow_steps AS i
                  WHERE i.organization_id = s.organization_id AND i.run_id = s.run_id AND i.step = s.step AND i.item > 0)
  FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS c (organization_id, run_id, step)
 WHERE s.organization_id = c.organization_id AND s.run_id = c.run_id AND s.step = c.step AND s.item = 0";

pub fn change(changes: Vec<Change>, gathered: &[(Uuid, Uuid, String)]) -> Result<()> {
    let _index = Nest::open().one_by_one();
    let (changes, gone): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.state.is_some());
    if !gone.is_empty() {
        spi::run(
            FORGET,
            &[
                spi::arg(gone.iter().map(|c| c.organization).collect::<Vec<_>>()),
                spi::arg(gone.iter().map(|c| c.run).collect::<Vec<_>>()),
                spi::arg(gone.iter().map(|c| c.step.clone()).collect::<Vec<_>>()),
                spi::arg(gone.iter().map(|c| c.item).collect::<Vec<_>>()),
            ],
        )?;
    }
    if !changes.is_empty() {
        let mut columns = (vec![], vec![], vec![], vec![], vec![], vec![], vec![], vec![], vec![], vec![], vec![], vec![]);
        for change in changes {
            columns.0.push(change.organization);
            columns.1.push(change.run);
            columns.2.push(change.step);
            columns.3.push(change.item);
            columns.4.push(change.state.map(State::word));
            columns.5.push(change.job);
            columns.6.push(change.clock);
            columns.7.push(change.error);
            columns.8.push(change.sqlstate);
            columns.9.push(change.result_of);
            columns.10.push(change.result);
            columns.11.push(change.element_of);
        }
        spi::run(
            CHANGE,
            &[
                spi::arg(columns.0),
                spi::arg(columns.1),
                spi::arg(columns.2),
                spi::arg(columns.3),
                spi::arg(columns.4),
                spi::arg(columns.5),
                spi::arg(columns.6),
                spi::arg(columns.7),
                spi::arg(columns.8),
                spi::arg(columns.9),
                spi::arg(columns.10),
                spi::arg(columns.11),
            ],
        )?;
    }
    if !gathered.is_empty() {
        spi::run(
            GATHER,
            &[
                spi::arg(gathered.iter().map(|g| g.0).collect::<Vec<_>>()),
                spi::arg(gathered.iter().map(|g| g.1).collect::<Vec<_>>()),
                spi::arg(gathered.iter().map(|g| g.2.clone()).collect::<Vec<_>>()),
            ],
        )?;
    }
    Ok(())
}

/// When a job of a step is to run.
#[derive(Clone, Copy)]
pub enum Due {
    Now,
    /// Seconds from now.
    In(f64),
    /// The time that this look tells.
    Told(Uuid),
}

/// A job of a step.
pub struct Job {
    pub organization: Uuid,
    pub run: Uuid,
    pub step: String,
    pub item: i32,
    pub part: &'static str,
    pub id: Uuid,
    pub flow: i32,
    pub lane: i16,
    /// Its expressions may name what other steps returned.
    pub results: bool,
    pub due: Due,
}

/// `$1` organizations, `$2` runs, `$3` steps, `$4` items, `$5` parts, `$6` job ids, `$7` flows, `$8` lanes, `$9` with results.
const JOBS: &str = "
WITH j AS MATERIALIZED (
    SELECT u.organization_id, u.id, u.flow, u.lane, u.n, r.version, r.hop, r.trail, r.cause, u.seconds, u.told,
           pg_catalog.jsonb_build_object('run', r.id, 'workflow', r.workflow, 'step', u.step, 'part', u.part, 'input', r.input, 'started_at', r.started_at)
           || CASE WHEN u.item > 0 OR s.data IS NOT NULL THEN pg_catalog.jsonb_build_object('n', u.item, 'item', s.data) ELSE '{}' END
           || CASE WHEN u.part = 'undo' THEN pg_catalog.jsonb_build_object('result', s.result) ELSE '{}' END
           || CASE WHEN u.results THEN pg_catalog.jsonb_build_object('results', (
                  SELECT COALESCE(pg_catalog.jsonb_object_agg(d.step, d.result), '{}') FROM usher.workflow_steps AS d
                   WHERE d.organization_id = r.organization_id AND d.run_id = r.id AND d.item = 0 AND d.result IS NOT NULL)) ELSE '{}' END AS payload
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::uuid[], $7::integer[], $8::smallint[], $9::boolean[], $10::float8[], $11::uuid[])
           WITH ORDINALITY AS u (organization_id, run_id, step, item, part, id, flow, lane, results, seconds, told, n)
     CROSS JOIN LATERAL (SELECT r.* FROM usher.workflow_runs AS r WHERE r.organization_id = u.organization_id AND r.id = u.run_id OFFSET 0) AS r
      LEFT JOIN LATERAL (SELECT s.* FROM usher.workflow_steps AS s
                          WHERE s.organization_id = u.organization_id AND s.run_id = u.run_id AND s.step = u.step AND s.item = u.item OFFSET 0) AS s ON true)";
const READY: &str = "
INSERT INTO usher.jobs (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
SELECT usher.take_seq(o.lane), o.id, o.organization_id, pg_catalog.now(), o.cause, o.flow, o.version, o.lane, o.hop, 'R', o.trail, o.payload
  FROM (SELECT * FROM j ORDER BY j.n) AS o";
const LATER: &str = "
INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, waiting_for, due_at)
SELECT pg_catalog.nextval('usher.queue_seq'), o.id, o.organization_id, pg_catalog.now(), o.cause, o.flow, o.version, o.lane, o.hop, 'R', o.trail, o.payload, 'run_at',
       COALESCE(pg_catalog.now() + o.seconds * interval '1 second', (e.result ->> 'until')::timestamptz, pg_catalog.now())
  FROM j AS o
  LEFT JOIN LATERAL (SELECT e.result FROM usher.job_results AS e WHERE e.organization_id = o.organization_id AND e.job_id = o.told OFFSET 0) AS e ON true";

pub fn put(jobs: Vec<Job>) -> Result<()> {
    let (ready, later): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| matches!(job.due, Due::Now));
    let mut many: BTreeMap<(i16, i32, [u8; 16]), i64> = BTreeMap::new();
    for job in &ready {
        *many.entry((job.lane, job.flow, *job.organization.as_bytes())).or_default() += 1;
    }
    // A run that has begun goes on: limits count its jobs, and do not hold them back.
    for ((lane, flow, organization), jobs) in many {
        pressure::count(usize::try_from(lane).unwrap_or(3), flow, Uuid::from_bytes(organization), jobs)?;
    }
    put_into(ready, READY)?;
    if !later.is_empty() {
        xact::note_due_changed();
    }
    put_into(later, LATER)
}

fn put_into(jobs: Vec<Job>, into: &str) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let _index = Nest::open().one_by_one();
    let seconds = |job: &Job| if let Due::In(seconds) = job.due { Some(seconds) } else { None };
    let told = |job: &Job| if let Due::Told(look) = job.due { Some(look) } else { None };
    spi::run(
        &format!("{JOBS}{into}"),
        &[
            spi::arg(jobs.iter().map(|job| job.organization).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.run).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.step.clone()).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.item).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.part).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.id).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.flow).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.lane).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(|job| job.results).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(seconds).collect::<Vec<_>>()),
            spi::arg(jobs.iter().map(told).collect::<Vec<_>>()),
        ],
    )?;
    Ok(())
}

/// Clocks that nobody needs any more go without a trace but in the history.
pub fn stop_clocks(clocks: Vec<(Uuid, Uuid)>) -> Result<()> {
    if clocks.is_empty() {
        return Ok(());
    }
    let _index = Nest::open().one_by_one();
    let (organizations, ids): (Vec<Uuid>, Vec<Uuid>) = clocks.into_iter().unzip();
    spi::run(
        // What somebody has locked stays, and means nothing when its time comes; what somebody is at work on ends.
        "WITH u AS MATERIALIZED (
             SELECT w.organization_id, w.id FROM unnest($1::uuid[], $2::uuid[]) AS u (organization_id, id)
              CROSS JOIN LATERAL (SELECT w.* FROM usher.queue_waiting AS w
                                   WHERE w.organization_id = u.organization_id AND w.id = u.id AND w.leased_by IS NULL FOR UPDATE SKIP LOCKED) AS w),
         c AS (DELETE FROM usher.queue_waiting AS w USING u WHERE w.organization_id = u.organization_id AND w.id = u.id RETURNING w.*)
         INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new)
         SELECT c.organization_id, c.id, c.created_at, pg_catalog.now(), c.cause, c.flow_id, c.flow_version, 0, c.lane, c.hop, c.op, true, c.new FROM c",
        &[spi::arg(organizations), spi::arg(ids)],
    )?;
    Ok(())
}

/// How a run stands.
pub struct Standing {
    pub organization: Uuid,
    pub run: Uuid,
    pub phase: Phase,
    pub given_up: bool,
    pub error: Option<String>,
    pub remedy: Option<String>,
    pub version: i32,
}

pub fn stand(runs: Vec<Standing>) -> Result<()> {
    if runs.is_empty() {
        return Ok(());
    }
    let _index = Nest::open().one_by_one();
    spi::run(
        "UPDATE usher.workflow_runs AS r
            SET state = u.state, given_up = u.given_up, error_message = CASE WHEN u.state = 'done' THEN NULL
                                      WHEN u.error IS NULL OR pg_catalog.strpos(r.error_message, u.error) > 0 THEN r.error_message
                                      ELSE pg_catalog.concat_ws('; then ', r.error_message, u.error) END,
                remedy = u.remedy, version = u.version, ended_at = CASE WHEN u.state IN ('done', 'undone', 'closed') THEN pg_catalog.clock_timestamp() END
           FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::integer[])
                AS u (organization_id, id, state, given_up, error, remedy, version)
          WHERE r.organization_id = u.organization_id AND r.id = u.id",
        &[
            spi::arg(runs.iter().map(|run| run.organization).collect::<Vec<_>>()),
            spi::arg(runs.iter().map(|run| run.run).collect::<Vec<_>>()),
            spi::arg(runs.iter().map(|run| run.phase.word()).collect::<Vec<_>>()),
            spi::arg(runs.iter().map(|run| run.given_up).collect::<Vec<_>>()),
            spi::arg(runs.iter().map(|run| run.error.clone()).collect::<Vec<_>>()),
            spi::arg(runs.iter().map(|run| run.remedy.clone()).collect::<Vec<_>>()),
            spi::arg(runs.iter().map(|run| run.version).collect::<Vec<_>>()),
        ],
    )?;
    Ok(())
}

/// A line for the log of a run.
pub struct Line {
    pub organization: Uuid,
    pub run: Uuid,
    pub what: &'static str,
    pub step: Option<String>,
    pub item: Option<i32>,
    pub detail: Option<String>,
    pub by: Option<String>,
}

pub fn enter(lines: Vec<Line>) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    spi::run(
        "INSERT INTO usher.workflow_log (organization_id, run_id, id, what, step, item, detail, by_whom)
         SELECT u.organization_id, u.run, usher.uuid_v7(), u.what, u.step, u.item, u.detail, u.by
           FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::text[]) AS u (organization_id, run, what, step, item, detail, by)",
        &[
            spi::arg(lines.iter().map(|line| line.organization).collect::<Vec<_>>()),
            spi::arg(lines.iter().map(|line| line.run).collect::<Vec<_>>()),
            spi::arg(lines.iter().map(|line| line.what).collect::<Vec<_>>()),
            spi::arg(lines.iter().map(|line| line.step.clone()).collect::<Vec<_>>()),
            spi::arg(lines.iter().map(|line| line.item).collect::<Vec<_>>()),
            spi::arg(lines.iter().map(|line| line.detail.clone()).collect::<Vec<_>>()),
            spi::arg(lines.iter().map(|line| line.by.clone()).collect::<Vec<_>>()),
        ],
    )?;
    Ok(())
}

/// A run begins anew: nothing of it is known any more.
pub fn forget(organization: Uuid, run: Uuid) -> Result<()> {
    for table in ["workflow_steps", "workflow_waits", "workflow_signals"] {
        spi::run(
            &format!("DELETE FROM usher.{table} AS t WHERE t.organization_id = $1 AND t.run_id = $2"),
            &[spi::arg(organization), spi::arg(run)],
        )?;
    }
    Ok(())
}

/// Runs that ended long ago, a piece a minute.
pub fn prune(days: i32) -> Result<()> {
    // From one workflow with open runs to the next, by the index: those of a workflow that is gone have nobody to tell them.
    let orphans = spi::all(
        "WITH RECURSIVE w (id) AS (
             (SELECT r.flow_id FROM usher.workflow_runs AS r WHERE r.ended_at IS NULL ORDER BY r.flow_id LIMIT 1)
             UNION ALL
             SELECT n.flow_id FROM w CROSS JOIN LATERAL (
                 SELECT r.flow_id FROM usher.workflow_runs AS r WHERE r.ended_at IS NULL AND r.flow_id > w.id ORDER BY r.flow_id LIMIT 1) AS n)
         SELECT r.organization_id, r.id FROM usher.workflow_runs AS r
          WHERE r.ended_at IS NULL AND r.flow_id IN (SELECT w.id FROM w WHERE NOT EXISTS (SELECT FROM usher.flows AS f WHERE f.id = w.id)) LIMIT 10000",
        &[],
        |row| Ok((row.get::<Uuid>(1)?.unwrap_or_else(nil), row.get::<Uuid>(2)?.unwrap_or_else(nil))),
    )?;
    if !orphans.is_empty() {
        orphaned(orphans)?;
    }
    spi::run(
        "WITH old AS (
             SELECT r.organization_id, r.id FROM usher.workflow_runs AS r
              WHERE r.ended_at < pg_catalog.now() - $1 * interval '1 day' ORDER BY r.ended_at LIMIT 20000 FOR UPDATE SKIP LOCKED),
         s AS (DELETE FROM usher.workflow_steps AS s USING old WHERE s.organization_id = old.organization_id AND s.run_id = old.id),
         l AS (DELETE FROM usher.workflow_log AS l USING old WHERE l.organization_id = old.organization_id AND l.run_id = old.id),
         g AS (DELETE FROM usher.workflow_signals AS g USING old WHERE g.organization_id = old.organization_id AND g.run_id = old.id),
         w AS (DELETE FROM usher.workflow_waits AS w USING old WHERE w.organization_id = old.organization_id AND w.run_id = old.id)
         DELETE FROM usher.workflow_runs AS r USING old WHERE r.organization_id = old.organization_id AND r.id = old.id",
        &[spi::arg(days)],
    )?;
    Ok(())
}
