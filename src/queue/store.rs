//! The SQL of the queue. Everything here runs with the owner's rights, inside the transaction of a batch.
//!
//! A claim is one statement that returns jobs as one set of arrays per flow. Ready ones stay in the log: it is read, and
//! the batch enters in the ledger what it has done ([`super::ledger`]). Waiting ones are deleted from where they wait and
//! written into the history as done. A job that then fails is taken out again: that is the rare case, and everything is
//! one transaction.

use super::log::{Log, written};
use super::share::Pick;
use crate::error::Result;
use crate::flow::apply::Batch;
use crate::flow::store::Flow;
use crate::pg::gauges::Handle;
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Raw};
use crate::pg::xact;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::{SpiClient, SpiTupleTable};
use std::collections::{HashMap, HashSet};

/// Jobs of one flow, in the order in which they must take effect.
pub struct Group {
    pub flow: Option<i32>,
    pub batch: Batch,
    pub row_keys: Raw,
    pub trails: Raw,
    pub attempts: Raw,
    versions: Raw,
    hops: Raw,
    /// Some row occurs more than once.
    repeats: bool,
    /// One version and one hop for all.
    uniform: Option<(i32, i16)>,
    /// Some job's organization does not exist.
    pub some_homeless: bool,
    /// The jobs come from where they waited.
    pub waited: bool,
    /// A batch that is to run as it is: its jobs have gathered.
    pub gathered: bool,
    /// Where they come from.
    pub lane: i16,
    /// They are still in the log, in this lane; else they are in the history as done.
    pub log: Option<i16>,
    /// To be taken out of the log before anything is done with them.
    apart: bool,
}

/// Jobs `first..=last` of a group share a version and a hop, and no row occurs twice among them: one statement can do them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub first: i32,
    pub last: i32,
    pub version: i32,
    pub hop: i16,
}

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
/// organizations exist, whether any job waits (of a large table that is taken for granted: many may have waited, and looking through
/// what they have left takes longer than asking for single rows), whether the jobs are set apart (see [`claim_ready`]).
const GROUPED: &str = "
SELECT o.flow_id, pg_catalog.count(*)::integer, pg_catalog.max(o.seq),
       pg_catalog.min(o.flow_version) = pg_catalog.max(o.flow_version) AND pg_catalog.min(o.hop) = pg_catalog.max(o.hop),
       pg_catalog.min(o.flow_version), pg_catalog.min(o.hop),
       pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.id), pg_catalog.array_agg(o.new), pg_catalog.array_agg(o.old),
       pg_catalog.array_agg(o.op), pg_catalog.array_agg(o.created_at), pg_catalog.array_agg(o.seq), pg_catalog.array_agg(o.row_key),
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.flow_version), pg_catalog.array_agg(o.hop),
       pg_catalog.bool_and(o.organization_id IN (SELECT g.id FROM usher.organizations g)),
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

/// A group in which a row occurs more than once, in waves: every row's first change, then every second one, and so on.
/// Within a wave the order is free, so that versions and hops can stand together.
const IN_WAVES: &str = "
SELECT pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.id), pg_catalog.array_agg(o.new), pg_catalog.array_agg(o.old),
       pg_catalog.array_agg(o.op), pg_catalog.array_agg(o.created_at), pg_catalog.array_agg(o.seq), pg_catalog.array_agg(o.row_key),
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.version), pg_catalog.array_agg(o.hop)
  FROM (SELECT b.*, pg_catalog.row_number() OVER (PARTITION BY COALESCE(b.row_key, b.seq) ORDER BY b.seq) AS wave
          FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::jsonb[], $5::\"char\"[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::text[],
                      $10::integer[], $11::integer[], $12::smallint[])
               AS b (organization_id, id, new, old, op, created_at, seq, row_key, trail, attempts, version, hop)
         ORDER BY wave, b.version, b.hop, b.seq) AS o";

/// A group in the order of its positions.
const IN_ORDER: &str = "
SELECT pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.id), pg_catalog.array_agg(o.new), pg_catalog.array_agg(o.old),
       pg_catalog.array_agg(o.op), pg_catalog.array_agg(o.created_at), pg_catalog.array_agg(o.seq), pg_catalog.array_agg(o.row_key),
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.version), pg_catalog.array_agg(o.hop)
  FROM (SELECT b.*
          FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::jsonb[], $5::\"char\"[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::text[],
                      $10::integer[], $11::integer[], $12::smallint[])
               AS b (organization_id, id, new, old, op, created_at, seq, row_key, trail, attempts, version, hop)
         ORDER BY b.seq) AS o";

/// `$1` lane, `$2` position, `$3` most jobs, `$4` what is done behind the position, `$5` rows that are held. Reads, and writes
/// nothing.
const READ_LOG: &str = "
WITH c AS (
    SELECT q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.flow_id, q.flow_version, q.hop, q.op, q.trail, q.new, q.old,
           1 AS attempts, q.fallback OR q.xmax <> 0 AS apart
      FROM usher.jobs AS q
     WHERE q.lane = $1 AND q.seq > $2 AND ($4::text IS NULL OR NOT q.seq <@ $4::text::int8multirange)
       AND ($5::bigint[] IS NULL OR q.row_key IS NULL OR NOT q.row_key = ANY ($5))
     ORDER BY q.seq LIMIT $3)";

/// `$1` lane, `$2` the positions, as ranges, `$3` rows that are held.
const READ_PICKED: &str = "
WITH c AS (
    SELECT q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.flow_id, q.flow_version, q.hop, q.op, q.trail, q.new, q.old,
           1 AS attempts, q.fallback OR q.xmax <> 0 AS apart
      FROM unnest($2::text::int8multirange) AS r (range)
      JOIN usher.jobs AS q ON q.lane = $1 AND q.seq >= pg_catalog.lower(r.range) AND q.seq < pg_catalog.upper(r.range)
     WHERE $3::bigint[] IS NULL OR q.row_key IS NULL OR NOT q.row_key = ANY ($3))";

/// `$1` lane, `$2` position, `$3` most, `$4` what is done behind the position.
const SCOUT: &str = "
SELECT s.organization_id, pg_catalog.array_agg(s.seq)
  FROM (SELECT q.organization_id, q.seq FROM usher.jobs AS q
         WHERE q.lane = $1 AND q.seq > $2 AND ($4::text IS NULL OR NOT q.seq <@ $4::text::int8multirange)
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

/// `$1` lanes, `$2` most jobs, `$3` up to when those that limits hold may be claimed (see `limits::promote`). In the order in which
/// they are due, by the index, however many are: an earlier change of a row that is due later stays behind, and its followers line
/// up behind it ([`parked`]).
const CLAIM_DUE: &str = "
WITH c AS (
    DELETE FROM usher.queue_waiting AS q
     WHERE q.ctid = ANY (ARRAY(
           SELECT d.ctid FROM unnest($1::smallint[]) AS l (lane)
            CROSS JOIN LATERAL (SELECT r.ctid FROM usher.queue_waiting AS r
                                 WHERE r.lane = l.lane AND r.due_at <= (SELECT pg_catalog.clock_timestamp())
                                   AND r.waiting_for NOT IN ('external worker', 'external call', 'batch window')
                                   AND (r.waiting_for <> 'rate limit' OR $3::timestamptz IS NULL OR r.due_at <= $3)
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
) -> Result<Claim> {
    let _index = Nest::open().index_scans();
    let arguments = [spi::arg(lanes.to_vec()), spi::arg(i64::from(most)), spi::arg(limited_until)];
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

fn positions(group: &Group) -> Result<Vec<i64>> {
    group.batch.positions.value::<Vec<i64>>().map(Option::unwrap_or_default)
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

fn has_repeats(keys: impl Iterator<Item = i64>) -> bool {
    let mut seen = HashSet::new();
    keys.into_iter().any(|key| !seen.insert(key))
}

/// Twelve arrays of a row as a group, from column `first` on.
fn read_group(table: &SpiTupleTable<'_>, first: usize, size: i32) -> Result<Group> {
    let column = |at: usize| Raw::read(table, first + at);
    Ok(Group {
        flow: None,
        batch: Batch::read(table, first, size)?,
        row_keys: column(7)?,
        trails: column(8)?,
        attempts: column(9)?,
        versions: column(10)?,
        hops: column(11)?,
        repeats: false,
        uniform: None,
        some_homeless: false,
        waited: false,
        gathered: false,
        lane: 0,
        log: None,
        apart: false,
    })
}

impl Group {
    fn columns(&self) -> [Raw; 12] {
        [
            self.batch.organizations,
            self.batch.ids,
            self.batch.new,
            self.batch.old,
            self.batch.ops,
            self.batch.created,
            self.batch.positions,
            self.row_keys,
            self.trails,
            self.attempts,
            self.versions,
            self.hops,
        ]
    }

    /// Puts the jobs into an order in which whole segments can be done, and returns those. Where different rows are free,
    /// waves of first, second, … changes; where they may meet in one target row, the order of the positions.
    pub fn arrange(self, client: &mut SpiClient<'_>, rows_are_free: bool) -> Result<(Self, Vec<Segment>)> {
        if let (false, Some((version, hop))) = (self.repeats, self.uniform) {
            let segments = vec![Segment { first: 1, last: self.batch.size, version, hop }];
            return Ok((self, segments));
        }
        let sql = if rows_are_free { IN_WAVES } else { IN_ORDER };
        let table = spi::query(client, sql, &self.columns().map(|column| column.arg()))?.first();
        let keys = table.get::<Vec<Option<i64>>>(8)?.unwrap_or_default();
        let versions = table.get::<Vec<i32>>(11)?.unwrap_or_default();
        let hops = table.get::<Vec<i16>>(12)?.unwrap_or_default();
        let jobs: Vec<(Option<i64>, i32, i16)> =
            keys.into_iter().zip(versions).zip(hops).map(|((key, version), hop)| (key, version, hop)).collect();
        let (flow, size, some_homeless, waited) = (self.flow, self.batch.size, self.some_homeless, self.waited);
        let (gathered, lane, log) = (self.gathered, self.lane, self.log);
        Ok((Self { flow, some_homeless, waited, gathered, lane, log, ..read_group(&table, 1, size)? }, cut(&jobs)))
    }
}

/// Jobs of a group that are not done because a newer one of their row is: `(number, the newer one's)`.
pub type Covers = Vec<(i32, i32)>;

/// `$13` the numbers of the jobs in their new order.
const IN_GIVEN_ORDER: &str = "
SELECT pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.id), pg_catalog.array_agg(o.new), pg_catalog.array_agg(o.old),
       pg_catalog.array_agg(o.op), pg_catalog.array_agg(o.created_at), pg_catalog.array_agg(o.seq), pg_catalog.array_agg(o.row_key),
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.version), pg_catalog.array_agg(o.hop)
  FROM (SELECT b.*
          FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::jsonb[], $5::\"char\"[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::text[],
                      $10::integer[], $11::integer[], $12::smallint[])
               WITH ORDINALITY AS b (organization_id, id, new, old, op, created_at, seq, row_key, trail, attempts, version, hop, n)
          JOIN unnest($13::integer[]) WITH ORDINALITY AS g (n, place) ON g.n = b.n
         ORDER BY g.place) AS o";

impl Group {
    /// As [`Self::arrange`], where only the newest change of each row is done: only those are in the segments.
    pub fn arrange_newest(self, client: &mut SpiClient<'_>) -> Result<(Self, Vec<Segment>, Covers)> {
        if !self.repeats {
            let (group, segments) = self.arrange(client, true)?;
            return Ok((group, segments, Vec::new()));
        }
        let jobs = spi::all(
            "SELECT b.row_key, b.version, b.hop FROM unnest($1::bigint[], $2::integer[], $3::smallint[]) WITH ORDINALITY AS b (row_key, version, hop, n) ORDER BY b.n",
            &[self.row_keys.arg(), self.versions.arg(), self.hops.arg()],
            |row| Ok((row.get::<i64>(1)?, row.get::<i32>(2)?.unwrap_or_default(), row.get::<i16>(3)?.unwrap_or_default())),
        )?;
        let plan = super::coalesce::plan(&jobs);
        let mut arguments = Vec::from(self.columns().map(|column| column.arg()));
        arguments.push(spi::arg(plan.order.clone()));
        let table = spi::query(client, IN_GIVEN_ORDER, &arguments)?.first();
        let done: Vec<_> = plan.order[..plan.done].iter().map(|n| jobs[*n as usize - 1]).collect();
        let (flow, size, some_homeless, waited) = (self.flow, self.batch.size, self.some_homeless, self.waited);
        let (gathered, lane, log) = (self.gathered, self.lane, self.log);
        let group = Self { flow, some_homeless, waited, gathered, lane, log, ..read_group(&table, 1, size)? };
        Ok((group, cut(&done), plan.covers))
    }
}

/// Keeps which job has done the work of which other one.
pub fn note_covered(group: &Group, covers: &[(i32, i32)]) -> Result<()> {
    if covers.is_empty() {
        return Ok(());
    }
    let (covered, by): (Vec<i32>, Vec<i32>) = covers.iter().copied().unzip();
    spi::run(
        "INSERT INTO usher.coalesced_jobs (organization_id, job_id, covered_by)
         SELECT ($1::uuid[])[c.n], ($2::uuid[])[c.n], ($2::uuid[])[c.by] FROM unnest($3::integer[], $4::integer[]) AS c (n, by)
         ON CONFLICT ON CONSTRAINT coalesced_jobs_pkey DO UPDATE SET covered_by = EXCLUDED.covered_by, covered_at = EXCLUDED.covered_at",
        &[group.batch.organizations.arg(), group.batch.ids.arg(), spi::arg(covered), spi::arg(by)],
    )?;
    Ok(())
}

/// Jobs `first..=last` whose images lack a column: `(number, the names)`. `new` and `old` are what their flow uses.
pub fn lacking(group: &Group, range: (i32, i32), new: &[String], old: &[String]) -> Result<Vec<(i32, String)>> {
    spi::all(
        "SELECT b.n::integer,
                (SELECT pg_catalog.string_agg(DISTINCT c.name, ', ')
                   FROM (SELECT unnest($6::text[]) AS name, b.new AS image WHERE b.op IN ('I', 'U')
                         UNION ALL SELECT unnest($7::text[]), COALESCE(b.old, '{}') WHERE b.op IN ('U', 'D')) AS c
                  WHERE NOT pg_catalog.jsonb_exists(c.image, c.name))
           FROM unnest($1::jsonb[], $2::jsonb[], $3::\"char\"[]) WITH ORDINALITY AS b (new, old, op, n)
          WHERE b.n BETWEEN $4 AND $5
            AND ((b.op IN ('I', 'U') AND NOT pg_catalog.jsonb_exists_all(b.new, $6::text[]))
                 OR (b.op IN ('U', 'D') AND NOT pg_catalog.jsonb_exists_all(COALESCE(b.old, '{}'), $7::text[])))",
        &[
            group.batch.new.arg(),
            group.batch.old.arg(),
            group.batch.ops.arg(),
            spi::arg(range.0),
            spi::arg(range.1),
            spi::arg(new.to_vec()),
            spi::arg(old.to_vec()),
        ],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )
}

/// Runs of one version and hop in which no row occurs twice, numbered from 1.
fn cut(jobs: &[(Option<i64>, i32, i16)]) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    let mut rows = HashSet::new();
    for (n, (key, version, hop)) in (1..).zip(jobs) {
        let again = key.is_some_and(|key| !rows.insert(key));
        match out.last_mut() {
            Some(segment) if !again && (segment.version, segment.hop) == (*version, *hop) => segment.last = n,
            _ => {
                rows.clear();
                rows.extend(key);
                out.push(Segment { first: n, last: n, version: *version, hop: *hop });
            }
        }
    }
    out
}

/// What a worker needs to know of single jobs: only read where jobs go one by one or have failed.
pub struct Detail {
    pub organization: Uuid,
    pub id: Uuid,
    pub row_key: Option<i64>,
    /// This job's step in a chain of causes, if its row has a key.
    pub step: Option<i64>,
    pub trail: Option<String>,
    pub attempts: i32,
}

pub fn details(group: &Group) -> Result<Vec<Detail>> {
    spi::all(
        "SELECT organization_id, id, row_key, pg_catalog.hashint8extended(row_key, $6::integer), trail, attempts FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::integer[])
                WITH ORDINALITY AS b (organization_id, id, row_key, trail, attempts, n) ORDER BY n",
        &[
            group.batch.organizations.arg(),
            group.batch.ids.arg(),
            group.row_keys.arg(),
            group.trails.arg(),
            group.attempts.arg(),
            spi::arg(group.flow),
        ],
        |row| {
            Ok(Detail {
                organization: row.get::<Uuid>(1)?.unwrap_or_else(|| Uuid::from_bytes([0; 16])),
                id: row.get::<Uuid>(2)?.unwrap_or_else(|| Uuid::from_bytes([0; 16])),
                row_key: row.get::<i64>(3)?,
                step: row.get::<i64>(4)?,
                trail: row.get::<String>(5)?,
                attempts: row.get::<i32>(6)?.unwrap_or(1),
            })
        },
    )
}

/// Numbers of jobs in a group whose row has an earlier change waiting, for this flow or one of its class. Where no row of
/// these flows waits, that is all that is looked at, whatever else does.
pub fn parked(group: &Group, siblings: &[i32]) -> Result<Vec<i32>> {
    let _index = Nest::open().index_scans();
    Ok(spi::one::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(b.n::integer ORDER BY b.n)
           FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (row_key, seq, n)
          WHERE (SELECT EXISTS (SELECT FROM usher.queue_waiting w WHERE w.flow_id = ANY ($1) AND w.row_key IS NOT NULL))
            AND EXISTS (SELECT FROM usher.queue_waiting w WHERE w.flow_id = ANY ($1) AND w.row_key = b.row_key AND w.seq < b.seq)",
        &[spi::arg(siblings.to_vec()), group.row_keys.arg(), group.batch.positions.arg()],
    )?
    .unwrap_or_default())
}

/// As [`parked`], with the limit that holds one of the earlier changes, if one does.
pub fn leaders(group: &Group, siblings: &[i32]) -> Result<Vec<(i32, Option<String>)>> {
    spi::all(
        "SELECT b.n::integer, l.limit_key
           FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (row_key, seq, n)
          CROSS JOIN LATERAL (SELECT w.limit_key FROM usher.queue_waiting w WHERE w.flow_id = ANY ($1) AND w.row_key = b.row_key AND w.seq < b.seq LIMIT 1) AS l",
        &[spi::arg(siblings.to_vec()), group.row_keys.arg(), group.batch.positions.arg()],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<String>(2)?)),
    )
}

/// Row keys and positions of a group, in its order.
pub fn rows(group: &Group) -> Result<Vec<(Option<i64>, i64)>> {
    spi::all(
        "SELECT b.row_key, b.seq FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS b (row_key, seq, n) ORDER BY b.n",
        &[group.row_keys.arg(), group.batch.positions.arg()],
        |row| Ok((row.get::<i64>(1)?, row.get::<i64>(2)?.unwrap_or(0))),
    )
}

/// Numbers of jobs in a group whose organization does not exist.
pub fn homeless(group: &Group) -> Result<Vec<i32>> {
    Ok(spi::one::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(b.n::integer ORDER BY b.n)
           FROM unnest($1::uuid[]) WITH ORDINALITY AS b (organization_id, n)
          WHERE NOT EXISTS (SELECT FROM usher.organizations o WHERE o.id = b.organization_id)",
        &[group.batch.organizations.arg()],
    )?
    .unwrap_or_default())
}

/// Some job is lined up behind an earlier change of its row.
pub fn any_follower() -> Result<bool> {
    let _index = Nest::open().index_scans();
    Ok(spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.queue_waiting w WHERE w.waiting_for = 'earlier change' AND w.due_at IS NULL)",
        &[],
    )?
    .unwrap_or(false))
}

/// A job that goes back to wait or to the dead letters.
#[derive(Default)]
pub struct Back {
    pub n: i32,
    /// NULL: dead.
    pub waiting_for: Option<&'static str>,
    /// Seconds from now; None waits for something else than time.
    pub after: Option<f64>,
    pub error: Option<String>,
    pub sqlstate: Option<String>,
    /// The try counts.
    pub tried: bool,
    /// The limit that holds it: its time is for the first that waits for it in its lane.
    pub limit_key: Option<String>,
    /// Limits per key that a call counts for.
    pub limit_keys: Vec<String>,
    /// The pause that it waits for.
    pub paused_by: Option<i32>,
}

/// `$12` lane of the log, NULL for jobs that are in the history; `$13` the limit that holds each, `$14` limits that it counts for,
/// as JSON, `$15` the pause of each. Of those that a limit holds, the first in its lane has a time; the others follow it (see `queue/limits.rs`).
const TAKE_BACK: &str = "
WITH b AS (
    SELECT x.n, x.waiting_for, x.after, x.error, x.sqlstate, x.tried, x.limit_key, x.limit_keys, x.paused_by, ($2::uuid[])[x.n] AS organization_id, ($3::uuid[])[x.n] AS id, ($4::bigint[])[x.n] AS seq,
           ($5::bigint[])[x.n] AS row_key, ($6::text[])[x.n] AS trail
      FROM unnest($1::integer[], $7::text[], $8::float8[], $9::text[], $10::text[], $11::boolean[], $13::text[], $14::text[], $15::integer[])
           AS x (n, waiting_for, after, error, sqlstate, tried, limit_key, limit_keys, paused_by)),
l AS (
    DELETE FROM usher.jobs AS j USING b WHERE $12::smallint IS NOT NULL AND j.lane = $12 AND j.seq = b.seq
    RETURNING j.organization_id, j.id, j.created_at, j.cause, j.flow_id, j.flow_version, 1 AS attempts, j.lane, j.hop, j.op, j.new, j.old,
              NULL::text AS source_system, NULL::text AS target_system, b.seq, b.row_key, b.trail, b.waiting_for, b.after, b.error, b.sqlstate, b.tried, b.limit_key, b.limit_keys, b.paused_by),
d AS (
    DELETE FROM usher.job_history AS h USING b
     WHERE $12 IS NULL AND h.finished_at = pg_catalog.now() AND h.organization_id = b.organization_id AND h.id = b.id
    RETURNING h.organization_id, h.id, h.created_at, h.cause, h.flow_id, h.flow_version, h.attempts, h.lane, h.hop, h.op, h.new, h.old,
              h.source_system, h.target_system, b.seq, b.row_key, b.trail, b.waiting_for, b.after, b.error, b.sqlstate, b.tried, b.limit_key, b.limit_keys, b.paused_by),
h AS (SELECT * FROM l UNION ALL SELECT * FROM d),
w AS (
    INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                     attempts, waiting_for, due_at, last_attempted_at, error_message, source_system, target_system, limit_key, limit_keys, paused_by)
    SELECT h.seq, h.row_key, h.id, h.organization_id, h.created_at, h.cause, h.flow_id, h.flow_version, h.lane, h.hop, h.op, h.trail, h.new, h.old,
           CASE WHEN h.tried THEN h.attempts ELSE h.attempts - 1 END, h.waiting_for,
           CASE WHEN h.limit_key IS NULL
                  OR pg_catalog.row_number() OVER (PARTITION BY h.limit_key, h.lane ORDER BY h.seq) = 1
                     AND NOT EXISTS (SELECT FROM usher.queue_waiting e WHERE e.limit_key = h.limit_key AND e.lane = h.lane AND e.limit_key IS NOT NULL AND e.due_at IS NOT NULL)
                THEN CASE WHEN h.waiting_for = 'batch window' THEN h.created_at ELSE pg_catalog.clock_timestamp() END + h.after * interval '1 second' END,
           CASE WHEN h.tried THEN pg_catalog.clock_timestamp() END, h.error, h.source_system, h.target_system, h.limit_key,
           CASE WHEN h.limit_keys IS NOT NULL THEN ARRAY(SELECT pg_catalog.jsonb_array_elements_text(h.limit_keys::jsonb)) END, h.paused_by
      FROM h WHERE h.waiting_for IS NOT NULL)
INSERT INTO usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                attempts, last_attempted_at, error_message, sqlstate, source_system, target_system)
SELECT h.organization_id, h.id, h.seq, h.row_key, h.created_at, h.cause, h.flow_id, h.flow_version, h.lane, h.hop, h.op, h.trail, h.new, h.old,
       h.attempts, CASE WHEN h.tried THEN pg_catalog.clock_timestamp() END, COALESCE(h.error, 'no reason was given'), h.sqlstate, h.source_system, h.target_system
  FROM h WHERE h.waiting_for IS NULL";

/// Takes jobs of a claimed group out of the log, or out of the history again, and puts them where they belong.
pub fn take_back(group: &Group, back: &[Back]) -> Result<()> {
    if back.is_empty() {
        return Ok(());
    }
    let dead = back.iter().filter(|b| b.waiting_for.is_none()).count();
    crate::pg::counters::give_back(back.len(), back.iter().filter(|b| b.tried).count(), dead);
    let column = |value: &dyn Fn(&Back) -> Option<String>| back.iter().map(value).collect::<Vec<_>>();
    spi::run(
        TAKE_BACK,
        &[
            spi::arg(back.iter().map(|b| b.n).collect::<Vec<_>>()),
            group.batch.organizations.arg(),
            group.batch.ids.arg(),
            group.batch.positions.arg(),
            group.row_keys.arg(),
            group.trails.arg(),
            spi::arg(column(&|b| b.waiting_for.map(str::to_owned))),
            spi::arg(back.iter().map(|b| b.after).collect::<Vec<_>>()),
            spi::arg(column(&|b| b.error.clone())),
            spi::arg(column(&|b| b.sqlstate.clone())),
            spi::arg(back.iter().map(|b| b.tried).collect::<Vec<_>>()),
            spi::arg(group.log),
            spi::arg(column(&|b| b.limit_key.clone())),
            spi::arg(column(&|b| (!b.limit_keys.is_empty()).then(|| serde_json::json!(b.limit_keys).to_string()))),
            spi::arg(back.iter().map(|b| b.paused_by).collect::<Vec<_>>()),
        ],
    )?;
    // Some may be due before anything that the workers know of.
    xact::note_due_changed();
    Ok(())
}

/// Puts jobs of a group that are still in the log into the history, each with a row of its own to which something can be
/// noted. `numbers` None: all of them.
pub fn set_apart(group: &Group, numbers: Option<Vec<i32>>) -> Result<()> {
    let Some(lane) = group.log else { return Ok(()) };
    spi::run(
        "WITH c AS (
             DELETE FROM usher.jobs AS j USING unnest($2::bigint[]) WITH ORDINALITY AS b (seq, n)
              WHERE j.lane = $1 AND j.seq = b.seq AND ($3::integer[] IS NULL OR b.n = ANY ($3))
             RETURNING j.*)
         INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, new, old)
         SELECT c.organization_id, c.id, c.created_at, pg_catalog.now(), c.cause, c.flow_id, c.flow_version, 1, c.lane, c.hop, c.op, c.new, c.old FROM c",
        &[spi::arg(lane), group.batch.positions.arg(), spi::arg(numbers)],
    )?;
    Ok(())
}

/// Jobs of a group that will not run: their history says cancelled.
pub fn cancel_group(group: &Group, reason: &str) -> Result<()> {
    set_apart(group, None)?;
    spi::run(
        "UPDATE usher.job_history h SET cancelled = true, attempts = h.attempts - 1, error_message = $3
           FROM unnest($1::uuid[], $2::uuid[]) AS b (organization_id, id)
          WHERE h.finished_at = pg_catalog.now() AND h.organization_id = b.organization_id AND h.id = b.id",
        &[group.batch.organizations.arg(), group.batch.ids.arg(), spi::arg(reason)],
    )?;
    Ok(())
}

/// Changes that lined up behind an earlier one of their row are due when none is before them any more. `classes` tells
/// which flows share an order.
pub fn release_followers(classes: &HashMap<i32, i32>) -> Result<usize> {
    if !any_follower()? {
        return Ok(0);
    }
    let _index = Nest::open().index_scans();
    let (flows, names): (Vec<i32>, Vec<i32>) = classes.iter().map(|(flow, class)| (*flow, *class)).unzip();
    spi::run(
        "WITH c AS (SELECT * FROM unnest($1::integer[], $2::integer[]) AS c (flow_id, class))
         UPDATE usher.queue_waiting w SET due_at = pg_catalog.now()
          WHERE w.waiting_for = 'earlier change' AND w.due_at IS NULL
            AND NOT EXISTS (SELECT FROM usher.queue_waiting e
                             WHERE e.row_key = w.row_key AND e.seq < w.seq AND e.waiting_for <> 'earlier change'
                               AND (e.flow_id = w.flow_id
                                    OR e.flow_id IN (SELECT o.flow_id FROM c o JOIN c m ON m.class = o.class WHERE m.flow_id = w.flow_id)))",
        &[spi::arg(flows), spi::arg(names)],
    )
}

/// The position of the first ready job of a lane behind a position.
pub fn next_ready(lane: usize, position: i64) -> Result<Option<i64>> {
    spi::read::<i64>(
        "SELECT q.seq FROM usher.ready_jobs q WHERE q.lane = $1 AND q.seq > $2 ORDER BY q.seq LIMIT 1",
        &[spi::arg(lane as i16), spi::arg(position)],
    )
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

/// True when a unique key may be taken by another job. Its own rule says when: while the job is open no key is free but one
/// whose period is over.
pub fn key_is_free(installed: Installed, organization: Uuid, key: &str) -> Result<bool> {
    // The tables of version 0.1 have no log: what is ready is a table there, and what is done is in the history.
    let ready = if installed.up_to_date { "ready_jobs" } else { "queue" };
    let log = if installed.up_to_date {
        "OR EXISTS (SELECT FROM usher.jobs j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)"
    } else {
        ""
    };
    let open = format!(
        "EXISTS (SELECT FROM usher.{ready} j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
             OR EXISTS (SELECT FROM usher.queue_waiting j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)"
    );
    let kept = format!(
        "EXISTS (SELECT FROM usher.dead_letters j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
             OR EXISTS (SELECT FROM usher.job_history j WHERE j.organization_id = k.organization_id AND j.id = k.job_id) {log}"
    );
    let free = if installed.up_to_date {
        format!(
            "CASE k.held_for WHEN 'ever' THEN false WHEN 'period' THEN k.held_until <= pg_catalog.clock_timestamp()
                             WHEN 'pending' THEN NOT ({open}) ELSE NOT ({open} OR {kept}) END"
        )
    } else {
        format!("NOT ({open} OR {kept})")
    };
    Ok(spi::one::<bool>(
        &format!("SELECT {free} FROM usher.job_keys AS k WHERE k.organization_id = $1 AND k.unique_key = $2"),
        &[spi::arg(organization), spi::arg(key)],
    )?
    .unwrap_or(false))
}

/// Forgets keys with their jobs, when those have been forgotten.
pub fn forget_keys(keep_days: i32) -> Result<()> {
    spi::run(
        "DELETE FROM usher.job_keys k
          WHERE k.created_at < pg_catalog.now() - $1 * interval '1 day' AND k.held_for IN ('history', 'pending')
            AND NOT EXISTS (SELECT FROM usher.jobs j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.queue_waiting j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.dead_letters j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.job_history j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)",
        &[spi::arg(keep_days)],
    )?;
    Ok(())
}

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
                   JOIN usher.jobs j ON j.lane = b.lane AND j.seq >= pg_catalog.lower(r.range) AND j.seq < pg_catalog.upper(r.range)
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

#[cfg(test)]
mod unit {
    use super::cut;

    #[test]
    fn jobs_are_cut_where_version_or_hop_changes_or_a_row_comes_again() {
        let ranges = |jobs: &[(Option<i64>, i32, i16)]| cut(jobs).iter().map(|s| (s.first, s.last)).collect::<Vec<_>>();
        assert_eq!(ranges(&[(Some(1), 1, 0), (Some(2), 1, 0), (Some(3), 1, 1), (Some(4), 2, 1)]), [(1, 2), (3, 3), (4, 4)]);
        assert_eq!(ranges(&[(Some(1), 1, 0), (Some(1), 1, 0), (Some(2), 1, 0), (Some(1), 1, 0)]), [(1, 1), (2, 3), (4, 4)]);
        assert_eq!(ranges(&[(None, 1, 0), (None, 1, 0)]), [(1, 2)]);
        assert_eq!(ranges(&[]), []);
    }

    proptest::proptest! {
        #[test]
        fn segments_cover_everything_once(jobs in proptest::collection::vec((proptest::option::of(0i64..4), 1i32..3, 0i16..2), 0..40)) {
            let segments = cut(&jobs);
            let covered: Vec<i32> = segments.iter().flat_map(|s| s.first..=s.last).collect();
            proptest::prop_assert_eq!(covered, (1..=jobs.len() as i32).collect::<Vec<_>>());
            for segment in segments {
                let part = &jobs[segment.first as usize - 1..segment.last as usize];
                let keys: Vec<i64> = part.iter().filter_map(|(key, ..)| *key).collect();
                let distinct: std::collections::HashSet<&i64> = keys.iter().collect();
                proptest::prop_assert_eq!(keys.len(), distinct.len());
            }
        }
    }
}
