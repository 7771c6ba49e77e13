//! Claims: jobs taken from the log or from where they wait; what is ready or due next; new jobs of schedules and backfills.
//! Everything here runs with the owner's rights, inside the transaction of a batch.
//!
//! A claim is one statement that returns jobs as one set of arrays per flow. Ready ones stay in the log: it is read, and
//! the batch enters in the ledger what it has done ([`super::ledger`]). Waiting ones are deleted from where they wait and
//! written into the history as done. A job that then fails is taken out again ([`super::take_back`]): that is the rare
//! case, and everything is one transaction.

use super::group::{Group, has_repeats, positions, read_group, rows};
use super::log::{Log, written};
use super::share::Pick;
use crate::error::Result;
use crate::flow::store::Flow;
use crate::pg::gauges::Handle;
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Raw};
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::{SpiClient, SpiTupleTable};
use std::collections::HashSet;

#[derive(Default)]
pub struct Claim {
    pub groups: Vec<Group>,
    pub jobs: i32,
    /// Jobs that were looked at: more than `jobs` when some are locked.
    pub seen: i32,
    pub last: i64,
    /// Some job waits: rows may have earlier changes.
    pub anything_waits: bool,
    /// Positions in the log that are done with this batch, in ascending order.
    pub taken: Vec<i64>,
    /// Positions that are to be taken out of the log first, see [`take_apart`].
    pub apart: Vec<(i64, Option<i64>)>,
    /// What was asked for, if it was chosen from what was read ahead.
    pub picked: Vec<Pick>,
}

/// One set of arrays for each flow, each in the order of its positions; `c` gives the jobs. The last columns: whether all
/// organizations exist (each is looked up once: there may be thousands), whether any job waits (of a large table that is taken for granted: many may have waited, and looking through
/// what they have left takes longer than asking for single rows), whether the jobs are set apart (see [`claim_ready`]).
const GROUPED: &str = "
SELECT o.flow_id, pg_catalog.count(*)::integer, pg_catalog.max(o.seq),
       pg_catalog.min(o.flow_version) = pg_catalog.max(o.flow_version) AND pg_catalog.min(o.hop) = pg_catalog.max(o.hop),
       pg_catalog.min(o.flow_version), pg_catalog.min(o.hop),
       pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.id), pg_catalog.array_agg(o.new), pg_catalog.array_agg(o.old),
       pg_catalog.array_agg(o.op), pg_catalog.array_agg(o.created_at), pg_catalog.array_agg(o.seq), pg_catalog.array_agg(o.row_key),
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.flow_version), pg_catalog.array_agg(o.hop),
       (SELECT pg_catalog.bool_and(EXISTS (SELECT FROM usher.organizations g WHERE g.id = u.id))
          FROM (SELECT DISTINCT x.id FROM unnest(pg_catalog.array_agg(o.organization_id)) AS x (id)) AS u),
       pg_catalog.pg_relation_size('usher.queue_waiting') > 524288 OR EXISTS (SELECT FROM usher.queue_waiting), o.apart
  FROM (SELECT c.* FROM c ORDER BY c.apart, c.flow_id, c.seq) AS o
 GROUP BY o.apart, o.flow_id";

/// What was taken out of where it waited is written into the history as done: a job that then fails is taken out again,
/// which is the rare case, and everything is one transaction.
const INTO_HISTORY: &str = "
, h AS (
    INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, new, old, source_system, target_system)
    SELECT c.organization_id, c.id, c.created_at, pg_catalog.now(), c.cause, c.flow_id, c.flow_version, c.attempts, c.lane, c.hop, c.op, c.new, c.old, c.source_system, c.target_system
      FROM c)";

/// `$1` lane, `$2` position, `$3` most jobs, `$4` what is done behind the position, `$5` rows that are held. Reads, and writes
/// nothing. What is done is a text, read once and not for every row: jobs that were put aside leave gaps, thousands of them.
const READ_LOG: &str = "
WITH c AS (
    SELECT q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.flow_id, q.flow_version, q.hop, q.op, q.trail, q.new, q.old,
           1 AS attempts, q.fallback OR q.xmax <> 0 AS apart
      FROM usher.jobs AS q
     WHERE q.lane = $1 AND q.seq > $2 AND ($4::text IS NULL OR NOT q.seq <@ (SELECT $4::text::int8multirange))
       AND ($5::bigint[] IS NULL OR q.row_key IS NULL OR NOT q.row_key = ANY ($5))
     ORDER BY q.seq LIMIT $3)";

/// `$1` lane, `$2` the positions, as ranges, `$3` rows that are held. OFFSET 0 keeps the two apart: from range to range through the
/// key, and never the other way round, which would be through the whole log, and looks cheaper to the planner.
const READ_PICKED: &str = "
WITH c AS (
    SELECT q.* FROM unnest($2::text::int8multirange) AS r (range)
     CROSS JOIN LATERAL (
           SELECT q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.flow_id, q.flow_version, q.hop, q.op, q.trail, q.new, q.old,
                  1 AS attempts, q.fallback OR q.xmax <> 0 AS apart
             FROM usher.jobs AS q
            WHERE q.lane = $1 AND q.seq >= pg_catalog.lower(r.range) AND q.seq < pg_catalog.upper(r.range)
              AND ($3::bigint[] IS NULL OR q.row_key IS NULL OR NOT q.row_key = ANY ($3))
           OFFSET 0) AS q)";

/// `$1` lane, `$2` position, `$3` most, `$4` what is done behind the position.
const SCOUT: &str = "
SELECT s.organization_id, pg_catalog.array_agg(s.seq)
  FROM (SELECT q.organization_id, q.seq FROM usher.jobs AS q
         WHERE q.lane = $1 AND q.seq > $2 AND ($4::text IS NULL OR NOT q.seq <@ (SELECT $4::text::int8multirange))
         ORDER BY q.seq LIMIT $3) AS s
 GROUP BY s.organization_id";

/// `$1` lane, `$2` positions: out of the log, those that nobody else has locked.
const TAKE_OUT: &str = "
WITH c AS (
    DELETE FROM usher.jobs AS q
     WHERE q.lane = $1 AND q.seq = ANY (ARRAY(SELECT r.seq FROM usher.jobs AS r WHERE r.lane = $1 AND r.seq = ANY ($2) FOR UPDATE SKIP LOCKED))
       AND NOT EXISTS (SELECT FROM usher.job_batches AS b WHERE b.lane = q.lane AND b.last_seq >= q.seq AND q.seq <@ b.done)
       AND q.seq > (SELECT f.floor FROM usher.job_floors AS f WHERE f.lane = $1)
    RETURNING q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.cause, q.flow_id, q.flow_version, q.lane, q.hop, q.op, q.trail, q.new, q.old,
              1 AS attempts, NULL::text AS source_system, NULL::text AS target_system, false AS apart, usher.take_off(q.lane, q.flow_id, q.organization_id) AS off)";

/// `$1` lane, `$2` most jobs: the positions that are ready.
const READY_POSITIONS: &str = "SELECT pg_catalog.array_agg(r.seq) FROM (SELECT j.seq FROM usher.ready_jobs AS j WHERE j.lane = $1 ORDER BY j.seq LIMIT $2) AS r";

/// `$1` lanes, `$2` most jobs, `$3` up to when those that limits hold may be claimed (see `limits::promote`), `$4` the position of
/// the one that is meant. In the order in which
/// they are due, by the index, however many are: an earlier change of a row that is due later stays behind, and its followers line
/// up behind it ([`super::followers::parked`]).
const CLAIM_DUE: &str = "
WITH c AS (
    DELETE FROM usher.queue_waiting AS q
     WHERE q.ctid = ANY (ARRAY(
           SELECT d.ctid FROM unnest($1::smallint[]) AS l (lane)
            CROSS JOIN LATERAL (SELECT r.ctid FROM usher.queue_waiting AS r
                                 WHERE r.lane = l.lane AND r.due_at <= (SELECT pg_catalog.clock_timestamp())
                                   AND r.waiting_for NOT IN ('external worker', 'external call', 'batch window')
                                   AND (r.waiting_for <> 'rate limit' OR $3::timestamptz IS NULL OR r.due_at <= $3)
                                   AND ($4::bigint IS NULL OR r.seq = $4)
                                 ORDER BY r.due_at, r.seq LIMIT $2 FOR UPDATE SKIP LOCKED) AS d
            LIMIT $2))
    RETURNING q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.cause, q.flow_id, q.flow_version, q.lane, q.hop, q.op, q.trail, q.new, q.old,
              q.attempts + 1 AS attempts, q.source_system, q.target_system, false AS apart)";

/// Ready jobs of a lane, from where its log is to be read. They stay in the log; what was read is [`Claim::taken`], to be
/// entered with `ledger::done`. Nothing is written yet: a reading can be thrown away.
///
/// Two kinds are set apart, and leave the log as jobs that waited do: those that a session has locked, or had (their row
/// says so; if it still has them, they are passed over), and those that a writer's transaction left over, whose marks must
/// go as soon as they are done.
pub fn claim_ready(client: &mut SpiClient<'_>, lane: usize, log: &Log, most: i32) -> Result<Claim> {
    // The log may have been analysed while it was empty, or never: its order is that of its key all the same.
    let _plan = Nest::open().one_plan();
    let picked = log.share.pick(i64::from(most));
    let held = (!log.held.is_empty()).then(|| log.held.iter().copied().collect::<Vec<i64>>());
    let mut claim = if picked.is_empty() {
        let done = log.done.above(log.position);
        let arguments =
            [spi::arg(lane as i16), spi::arg(log.position), spi::arg(i64::from(most)), spi::arg(done), spi::arg(held)];
        claim(client, &format!("{READ_LOG}{GROUPED}"), &arguments, true)?
    } else {
        let ranges = written(picked.iter().map(|pick| (pick.from, pick.to)));
        claim(client, &format!("{READ_PICKED}{GROUPED}"), &[spi::arg(lane as i16), spi::arg(ranges), spi::arg(held)], true)?
    };
    claim.picked = picked;
    claim.seen = claim.jobs;
    let (apart, kept): (Vec<_>, Vec<_>) = claim.groups.into_iter().partition(|group| group.apart);
    claim.groups = kept;
    for group in &mut claim.groups {
        (group.lane, group.log) = (lane as i16, Some(lane as i16));
        claim.taken.extend(positions(group)?);
    }
    claim.taken.sort_unstable();
    for group in &apart {
        claim.apart.extend(rows(group)?.into_iter().map(|(key, seq)| (seq, key)));
        claim.jobs -= group.batch.size;
    }
    Ok(claim)
}

/// What a batch's jobs that are still in the log take off the limits' numbers.
pub fn leaving(lane: usize, claim: &Claim) -> Result<Vec<(Handle, i64)>> {
    let mut off = Vec::new();
    for group in claim.groups.iter().filter(|group| group.log.is_some()) {
        let organizations = || group.batch.organizations.value::<Vec<Uuid>>().map(Option::unwrap_or_default);
        off.extend(super::pressure::leaving(lane, group.flow, organizations)?);
    }
    Ok(off)
}

/// Takes out of the log what a reading has set apart, and adds it to `out`. Returns the rows of the jobs that somebody has
/// locked: none of their later jobs may be done now.
pub fn take_apart(client: &mut SpiClient<'_>, lane: usize, apart: &[(i64, Option<i64>)], out: &mut Claim) -> Result<Vec<i64>> {
    if apart.is_empty() {
        return Ok(Vec::new());
    }
    let taken = take_out(client, lane, apart.iter().map(|(seq, _)| *seq).collect())?;
    let mut got = HashSet::new();
    for group in &taken.groups {
        got.extend(positions(group)?);
    }
    out.jobs += taken.jobs;
    out.anything_waits |= taken.anything_waits;
    out.groups.extend(taken.groups);
    Ok(apart.iter().filter(|(seq, _)| !got.contains(seq)).filter_map(|(_, key)| *key).collect())
}

/// Slices are read ahead while so many ranges at most are in memory.
const MOST_RANGES: usize = 500_000;
/// Jobs of a slice.
const SLICE: i64 = 100_000;

/// Reads on where a worker is behind, so that each organization gets its share. Nothing to share with one organization.
pub fn scout(lane: usize, log: &mut Log) -> Result<()> {
    if log.share.is_empty() {
        if !log.behind {
            return Ok(());
        }
        let several =
            spi::one::<bool>("SELECT pg_catalog.count(*) > 1 FROM (SELECT FROM usher.organizations LIMIT 2) AS o", &[])?;
        if several != Some(true) {
            return Ok(());
        }
    }
    if log.share.ranges() > MOST_RANGES {
        return Ok(());
    }
    let _plan = Nest::open().one_plan();
    let done = log.done.above(log.position);
    let found = spi::all(SCOUT, &[spi::arg(lane as i16), spi::arg(log.position), spi::arg(SLICE), spi::arg(done)], |row| {
        let organization = row.get::<Uuid>(1)?.map_or([0; 16], |id| *id.as_bytes());
        Ok((organization, row.get::<Vec<i64>>(2)?.unwrap_or_default()))
    })?;
    let size: usize = found.iter().map(|(_, positions)| positions.len()).sum();
    let last = found.iter().filter_map(|(_, positions)| positions.iter().max().copied()).max().unwrap_or(0);
    for (organization, positions) in found {
        log.share.add(organization, positions);
    }
    log.behind = size as i64 >= SLICE;
    log.looked(last, log.behind);
    Ok(())
}

/// Ready jobs of a lane for a session, which has no log in mind: all leave the log.
pub fn claim_ready_once(client: &mut SpiClient<'_>, lane: usize, most: i32) -> Result<Claim> {
    let ready = {
        let table = spi::query(client, READY_POSITIONS, &[spi::arg(lane as i16), spi::arg(i64::from(most))])?.first();
        table.get::<Vec<i64>>(1)?.unwrap_or_default()
    };
    let seen = ready.len() as i32;
    Ok(Claim { seen, ..take_out(client, lane, ready)? })
}

/// The ready job at one position of a lane.
pub fn claim_at(client: &mut SpiClient<'_>, lane: usize, position: i64) -> Result<Claim> {
    take_out(client, lane, vec![position])
}

fn take_out(client: &mut SpiClient<'_>, lane: usize, positions: Vec<i64>) -> Result<Claim> {
    let sql = format!("{TAKE_OUT}{INTO_HISTORY}{GROUPED}");
    let mut claim = claim(client, &sql, &[spi::arg(lane as i16), spi::arg(positions)], false)?;
    claim.groups.iter_mut().for_each(|group| group.lane = lane as i16);
    Ok(claim)
}

pub fn claim_due(
    client: &mut SpiClient<'_>,
    lanes: &[i16],
    most: i32,
    limited_until: Option<TimestampWithTimeZone>,
    position: Option<i64>,
) -> Result<Claim> {
    let _index = Nest::open().index_scans();
    let arguments = [spi::arg(lanes.to_vec()), spi::arg(i64::from(most)), spi::arg(limited_until), spi::arg(position)];
    let mut claim = claim_waiting(client, CLAIM_DUE, &arguments, false)?;
    claim.groups.iter_mut().for_each(|group| group.lane = lanes.first().copied().unwrap_or(0));
    Ok(claim)
}

/// Waiting jobs by a statement that begins with `c`, those that it takes. `gathered`: they are a batch.
pub(super) fn claim_waiting(client: &mut SpiClient<'_>, taken: &str, arguments: spi::Args<'_>, gathered: bool) -> Result<Claim> {
    let mut claim = claim(client, &format!("{taken}{INTO_HISTORY}{GROUPED}"), arguments, false)?;
    claim.groups.iter_mut().for_each(|group| (group.waited, group.gathered) = (true, gathered));
    Ok(claim)
}

fn claim(client: &mut SpiClient<'_>, sql: &str, arguments: spi::Args<'_>, in_log: bool) -> Result<Claim> {
    let mut table = spi::query(client, sql, arguments)?;
    let mut claim = Claim { groups: Vec::with_capacity(table.len()), ..Claim::default() };
    while table.next().is_some() {
        let flow = table.get::<i32>(1)?;
        let size = table.get::<i32>(2)?.unwrap_or(0);
        claim.jobs += size;
        claim.last = claim.last.max(table.get::<i64>(3)?.unwrap_or(0));
        let group = Group { flow, ..read_group(&table, 7, size)? };
        let keys = if size > 1 { table.get::<Vec<Option<i64>>>(14)?.unwrap_or_default() } else { Vec::new() };
        let uniform = match table.get::<bool>(4)? {
            Some(true) => table.get::<i32>(5)?.zip(table.get::<i16>(6)?),
            _ => None,
        };
        let some_homeless = table.get::<bool>(19)? != Some(true);
        claim.anything_waits |= table.get::<bool>(20)? == Some(true);
        let apart = in_log && table.get::<bool>(21)? == Some(true);
        claim.groups.push(Group { repeats: has_repeats(keys.into_iter().flatten()), uniform, some_homeless, apart, ..group });
    }
    Ok(claim)
}

/// The first ready job of a lane behind a position, as a query. `usher.ready_jobs` would be read to its end for it, because
/// its lanes are put together before they are sorted.
pub fn first_ready(column: &str, lane: &str, after: &str) -> String {
    format!(
        "SELECT q.{column} FROM usher.jobs AS q
          WHERE q.lane = {lane} AND q.seq > {after} AND q.seq > usher.lane_floor({lane})
            AND NOT COALESCE(q.seq <@ (SELECT pg_catalog.range_agg(b.done) FROM usher.job_batches AS b
                                        WHERE b.lane = {lane} AND b.last_seq > usher.lane_floor({lane})), false)
          ORDER BY q.seq LIMIT 1"
    )
}

/// The position of the first ready job of a lane behind a position.
pub fn next_ready(lane: usize, position: i64) -> Result<Option<i64>> {
    let _plan = Nest::open().one_plan();
    spi::read::<i64>(&first_ready("seq", "$1", "$2"), &[spi::arg(lane as i16), spi::arg(position)])
}

/// The position of the job that [`claim_due`] would take first of a lane.
pub fn first_due(lane: usize) -> Result<Option<i64>> {
    spi::read::<i64>(
        "SELECT w.seq FROM usher.queue_waiting w
          WHERE w.due_at <= (SELECT pg_catalog.clock_timestamp()) AND w.lane = $1 AND w.waiting_for NOT IN ('external worker', 'external call', 'batch window')
          ORDER BY w.due_at, w.seq LIMIT 1",
        &[spi::arg(lane as i16)],
    )
}

/// The newest position that has been drawn.
pub fn newest_position() -> Result<i64> {
    Ok(spi::read::<i64>("SELECT last_value FROM usher.queue_seq", &[])?.unwrap_or(0))
}

/// Seconds until the next waiting job of these lanes is due; None when none waits for a time.
pub fn next_due(lanes: &[i16]) -> Result<Option<f64>> {
    let _index = Nest::open().index_scans();
    spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(d.due_at) - pg_catalog.clock_timestamp())::float8
           FROM unnest($1::smallint[]) AS l (lane)
          CROSS JOIN LATERAL (SELECT w.due_at FROM usher.queue_waiting AS w
                               WHERE w.lane = l.lane AND w.due_at < 'infinity' AND w.waiting_for NOT IN ('external worker', 'external call', 'batch window')
                               ORDER BY w.due_at, w.seq LIMIT 1) AS d",
        &[spi::arg(lanes.to_vec())],
    )
}

/// New jobs as parallel arrays: organizations, ids, row keys, rows or payloads.
pub struct Ready {
    organizations: Raw,
    ids: Option<Raw>,
    row_keys: Raw,
    new: Raw,
}

impl Ready {
    /// Jobs that get their ids when they are put into the queue.
    pub fn of(organizations: Raw, row_keys: Raw, new: Raw) -> Self {
        Self { organizations, ids: None, row_keys, new }
    }

    /// The first four columns of a row.
    pub fn read(table: &SpiTupleTable<'_>) -> Result<Self> {
        let column = |at: usize| Raw::read(table, at);
        Ok(Self { organizations: column(1)?, ids: Some(column(2)?), row_keys: column(3)?, new: column(4)? })
    }
}

/// `$1` lane, `$2` cause, `$3` flow, `$4` version, `$5` kind, `$6` fallback, then the arrays.
const PUT_READY: &str = "
    INSERT INTO usher.jobs (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, fallback, new)
    SELECT usher.take_counted_seq($1, $3, b.organization_id), b.row_key, COALESCE(b.id, usher.uuid_v7()), b.organization_id, pg_catalog.now(), $2, $3, $4, $1, 0, $5::\"char\", $6, b.new
      FROM unnest($7::uuid[], $8::uuid[], $9::bigint[], $10::jsonb[]) WITH ORDINALITY AS b (organization_id, id, row_key, new, n)
     ORDER BY b.n";

/// Puts jobs that a schedule or a backfill has made into the flow's lane, in their order. Jobs of a transactional flow are
/// marked, so that changes in their rows' writers line up behind them.
pub fn put_ready(client: &mut SpiClient<'_>, flow: &Flow, op: char, cause: Option<Uuid>, jobs: &Ready) -> Result<()> {
    spi::query(
        client,
        PUT_READY,
        &[
            spi::arg(flow.definition.lane as i16),
            spi::arg(cause),
            spi::arg(flow.id),
            spi::arg(flow.version),
            spi::arg(op.to_string()),
            spi::arg(flow.definition.in_writer()),
            jobs.organizations.arg(),
            jobs.ids.map_or_else(|| spi::arg(None::<Vec<Uuid>>), |ids| ids.arg()),
            jobs.row_keys.arg(),
            jobs.new.arg(),
        ],
    )?;
    Ok(())
}

/// Jobs that are ready, for statements that look for some of them.
pub const READY: &str = "SELECT q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.flow_id, q.flow_version, q.lane, q.op, q.new, q.old FROM usher.ready_jobs AS q";

/// A CTE that takes ready jobs of organization `$1` with ids `$2` out of the queue.
pub const TAKE_READY: &str = "DELETE FROM usher.jobs AS q
      WHERE (q.lane, q.seq) IN (SELECT r.lane, r.seq FROM usher.ready_jobs AS r WHERE r.organization_id = $1 AND r.id = ANY ($2::uuid[]))
    RETURNING q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.cause, q.flow_id, q.flow_version, q.lane, q.hop, q.op, q.trail, q.new, q.old,
              usher.take_off(q.lane, q.flow_id, q.organization_id) AS off";

/// Finished jobs that shall run again.
pub struct Finished {
    pub organizations: Raw,
    pub ids: Raw,
    pub ops: Raw,
    pub new: Raw,
    pub old: Raw,
    pub size: i32,
    /// Organization and id of the last one.
    pub position: Option<Vec<String>>,
}

/// The jobs of a flow that were finished in a time, in the order in which they were made, organization by organization.
/// `$1` flow, `$2`-`$3` the time, `$4` position, `$5` how many.
const FINISHED: &str = "
    SELECT pg_catalog.array_agg(x.organization_id), pg_catalog.array_agg(x.id), pg_catalog.array_agg(x.op), pg_catalog.array_agg(x.new),
           pg_catalog.array_agg(x.old), pg_catalog.count(*)::integer,
           CASE WHEN pg_catalog.count(*) > 0 THEN
                ARRAY[(pg_catalog.array_agg(x.organization_id::text))[pg_catalog.count(*)], (pg_catalog.array_agg(x.id::text))[pg_catalog.count(*)]] END
      FROM (SELECT y.*
              FROM ((SELECT h.organization_id, h.id, h.op, h.new, h.old
                       FROM usher.job_history h
                      WHERE h.flow_id = $1 AND h.finished_at >= $2 AND h.finished_at < $3 AND NOT h.cancelled
                        AND (h.organization_id, h.id) > (($4::text[])[1]::uuid, ($4::text[])[2]::uuid)
                      ORDER BY h.organization_id, h.id LIMIT $5)
                    UNION ALL
                    (SELECT j.organization_id, j.id, j.op, j.new, j.old
                       FROM usher.jobs j
                      CROSS JOIN LATERAL (SELECT b.finished_at FROM usher.job_batches b
                                           WHERE b.lane = j.lane AND b.last_seq >= j.seq AND j.seq <@ b.done ORDER BY b.last_seq LIMIT 1) AS d
                      WHERE j.flow_id = $1 AND d.finished_at >= $2 AND d.finished_at < $3
                        AND (j.organization_id, j.id) > (($4::text[])[1]::uuid, ($4::text[])[2]::uuid)
                      ORDER BY j.organization_id, j.id LIMIT $5)) AS y
             ORDER BY y.organization_id, y.id LIMIT $5) AS x";

/// How many jobs [`finished`] will return in all.
pub fn count_finished(flow: i32, first: TimestampWithTimeZone, last: TimestampWithTimeZone) -> Result<i64> {
    Ok(spi::read::<i64>(
        "SELECT (SELECT pg_catalog.count(*) FROM usher.job_history h WHERE h.flow_id = $1 AND h.finished_at >= $2 AND h.finished_at < $3 AND NOT h.cancelled)
              + (SELECT pg_catalog.count(*)
                   FROM usher.job_batches b CROSS JOIN LATERAL unnest(b.done) AS r (range)
                  CROSS JOIN LATERAL (SELECT q.flow_id FROM usher.jobs q
                                       WHERE q.lane = b.lane AND q.seq >= pg_catalog.lower(r.range) AND q.seq < pg_catalog.upper(r.range) OFFSET 0) AS j
                  WHERE b.finished_at >= $2 AND b.finished_at < $3 AND j.flow_id = $1)",
        &[spi::arg(flow), spi::arg(first), spi::arg(last)],
    )?
    .unwrap_or(0))
}

/// The next finished jobs of a flow behind a position, from the history.
pub fn finished(
    client: &mut SpiClient<'_>,
    flow: i32,
    first: Option<TimestampWithTimeZone>,
    last: Option<TimestampWithTimeZone>,
    after: Option<&[String]>,
    most: i32,
) -> Result<Finished> {
    let _index = Nest::open().index_scans();
    let nothing = "00000000-0000-0000-0000-000000000000".to_owned();
    let after = after.map_or_else(|| vec![nothing.clone(), nothing.clone()], <[String]>::to_vec);
    let arguments = [spi::arg(flow), spi::arg(first), spi::arg(last), spi::arg(after), spi::arg(i64::from(most))];
    let table = spi::query(client, FINISHED, &arguments)?.first();
    let column = |at: usize| Raw::read(&table, at);
    Ok(Finished {
        organizations: column(1)?,
        ids: column(2)?,
        ops: column(3)?,
        new: column(4)?,
        old: column(5)?,
        size: table.get::<i32>(6)?.unwrap_or(0),
        position: table.get::<Vec<String>>(7)?,
    })
}

/// Forgets options with their jobs, when those have been forgotten, and which job covered which.
pub fn forget_options(keep_days: i32) -> Result<()> {
    spi::run(
        "DELETE FROM usher.coalesced_jobs WHERE covered_at < pg_catalog.now() - $1 * interval '1 day'",
        &[spi::arg(keep_days)],
    )?;
    spi::run(
        "DELETE FROM usher.job_options o
          WHERE o.created_at < pg_catalog.now() - $1 * interval '1 day'
            AND NOT EXISTS (SELECT FROM usher.jobs j WHERE j.organization_id = o.organization_id AND j.id = o.job_id)
            AND NOT EXISTS (SELECT FROM usher.queue_waiting j WHERE j.organization_id = o.organization_id AND j.id = o.job_id)
            AND NOT EXISTS (SELECT FROM usher.dead_letters j WHERE j.organization_id = o.organization_id AND j.id = o.job_id)
            AND NOT EXISTS (SELECT FROM usher.job_history j WHERE j.organization_id = o.organization_id AND j.id = o.job_id)",
        &[spi::arg(keep_days)],
    )?;
    Ok(())
}
