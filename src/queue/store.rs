//! The SQL of the queue. Everything here runs with the owner's rights, inside the transaction of a batch.
//!
//! A claim is one statement: it deletes the jobs from where they wait, writes them into the history as done, and returns
//! them as one set of arrays per group of (flow, version, hop). A job that then fails is taken out of the history again:
//! that is the rare case, and everything is one transaction.

use crate::error::Result;
use crate::flow::apply::Batch;
use crate::pg::spi::{self, Raw};
use crate::setup::Installed;
use pgrx::Uuid;
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
}

/// Jobs `first..=last` of a group share a version and a hop, and no row occurs twice among them: one statement can do them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub first: i32,
    pub last: i32,
    pub version: i32,
    pub hop: i16,
}

pub struct Claim {
    pub groups: Vec<Group>,
    pub jobs: i32,
    pub last: i64,
    /// Some job waits: rows may have earlier changes.
    pub anything_waits: bool,
}

/// What follows the deletion in both claims: history and grouping, each group in the order of its positions.
const REST: &str = "
, h AS (
    INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, new, old, source_system, target_system)
    SELECT c.organization_id, c.id, c.created_at, pg_catalog.now(), c.cause, c.flow_id, c.flow_version, c.attempts, c.lane, c.hop, c.op, c.new, c.old, c.source_system, c.target_system
      FROM c)
SELECT o.flow_id, pg_catalog.count(*)::integer, pg_catalog.max(o.seq),
       pg_catalog.min(o.flow_version) = pg_catalog.max(o.flow_version) AND pg_catalog.min(o.hop) = pg_catalog.max(o.hop),
       pg_catalog.min(o.flow_version), pg_catalog.min(o.hop),
       pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.id), pg_catalog.array_agg(o.new), pg_catalog.array_agg(o.old),
       pg_catalog.array_agg(o.op), pg_catalog.array_agg(o.created_at), pg_catalog.array_agg(o.seq), pg_catalog.array_agg(o.row_key),
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.flow_version), pg_catalog.array_agg(o.hop),
       pg_catalog.bool_and(o.organization_id IN (SELECT g.id FROM usher.organizations g)),
       (SELECT EXISTS (SELECT FROM usher.queue_waiting))
  FROM (SELECT c.* FROM c ORDER BY c.flow_id, c.seq) AS o
 GROUP BY o.flow_id";

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

/// `$1` lane, `$2` position, `$3` most jobs.
const CLAIM_READY: &str = "
WITH c AS (
    DELETE FROM usher.queue AS q
     WHERE q.ctid = ANY (ARRAY(SELECT r.ctid FROM usher.queue AS r WHERE r.lane = $1 AND r.seq > $2 ORDER BY r.seq LIMIT $3 FOR UPDATE SKIP LOCKED))
    RETURNING q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.cause, q.flow_id, q.flow_version, q.lane, q.hop, q.op, q.trail, q.new, q.old,
              1 AS attempts, NULL::text AS source_system, NULL::text AS target_system)";

/// `$1` lanes, `$2` most jobs.
const CLAIM_DUE: &str = "
WITH c AS (
    DELETE FROM usher.queue_waiting AS q
     WHERE q.ctid = ANY (ARRAY(
           SELECT r.ctid FROM usher.queue_waiting AS r
            WHERE r.due_at <= pg_catalog.clock_timestamp() AND r.lane = ANY ($1::smallint[]) AND r.waiting_for <> 'external worker'
            ORDER BY r.seq LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.cause, q.flow_id, q.flow_version, q.lane, q.hop, q.op, q.trail, q.new, q.old,
              q.attempts + 1 AS attempts, q.source_system, q.target_system)";

pub fn claim_ready(client: &mut SpiClient<'_>, lane: usize, position: i64, most: i32) -> Result<Claim> {
    let sql = format!("{CLAIM_READY}{REST}");
    claim(client, &sql, &[spi::arg(lane as i16), spi::arg(position), spi::arg(i64::from(most))])
}

pub fn claim_due(client: &mut SpiClient<'_>, lanes: &[i16], most: i32) -> Result<Claim> {
    let sql = format!("{CLAIM_DUE}{REST}");
    let mut claim = claim(client, &sql, &[spi::arg(lanes.to_vec()), spi::arg(i64::from(most))])?;
    claim.groups.iter_mut().for_each(|group| group.waited = true);
    Ok(claim)
}

fn claim(client: &mut SpiClient<'_>, sql: &str, arguments: spi::Args<'_>) -> Result<Claim> {
    let mut table = spi::query(client, sql, arguments)?;
    let mut claim = Claim { groups: Vec::with_capacity(table.len()), jobs: 0, last: 0, anything_waits: false };
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
        claim.groups.push(Group { repeats: has_repeats(keys.into_iter().flatten()), uniform, some_homeless, ..group });
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
        Ok((Self { flow, some_homeless, waited, ..read_group(&table, 1, size)? }, cut(&jobs)))
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
        let group = Self { flow, some_homeless, waited, ..read_group(&table, 1, size)? };
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

/// Numbers of jobs in a group whose row has an earlier change waiting, for this flow or one of its class.
pub fn parked(group: &Group, siblings: &[i32]) -> Result<Vec<i32>> {
    Ok(spi::one::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(b.n::integer ORDER BY b.n)
           FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (row_key, seq, n)
          WHERE EXISTS (SELECT FROM usher.queue_waiting w WHERE w.flow_id = ANY ($1) AND w.row_key = b.row_key AND w.seq < b.seq)",
        &[spi::arg(siblings.to_vec()), group.row_keys.arg(), group.batch.positions.arg()],
    )?
    .unwrap_or_default())
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

pub fn anything_waits() -> Result<bool> {
    Ok(spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.queue_waiting)", &[])?.unwrap_or(false))
}

/// A job that goes back to wait or to the dead letters.
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
}

const TAKE_BACK: &str = "
WITH b AS (
    SELECT x.n, x.waiting_for, x.after, x.error, x.sqlstate, x.tried, ($2::uuid[])[x.n] AS organization_id, ($3::uuid[])[x.n] AS id, ($4::bigint[])[x.n] AS seq,
           ($5::bigint[])[x.n] AS row_key, ($6::text[])[x.n] AS trail
      FROM unnest($1::integer[], $7::text[], $8::float8[], $9::text[], $10::text[], $11::boolean[]) AS x (n, waiting_for, after, error, sqlstate, tried)),
h AS (
    DELETE FROM usher.job_history AS h USING b
     WHERE h.finished_at = pg_catalog.now() AND h.organization_id = b.organization_id AND h.id = b.id
    RETURNING h.*, b.seq, b.row_key, b.trail, b.waiting_for, b.after, b.error, b.sqlstate, b.tried),
w AS (
    INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                     attempts, waiting_for, due_at, last_attempted_at, error_message, source_system, target_system)
    SELECT h.seq, h.row_key, h.id, h.organization_id, h.created_at, h.cause, h.flow_id, h.flow_version, h.lane, h.hop, h.op, h.trail, h.new, h.old,
           CASE WHEN h.tried THEN h.attempts ELSE h.attempts - 1 END, h.waiting_for, pg_catalog.clock_timestamp() + h.after * interval '1 second',
           CASE WHEN h.tried THEN pg_catalog.clock_timestamp() END, h.error, h.source_system, h.target_system
      FROM h WHERE h.waiting_for IS NOT NULL)
INSERT INTO usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                attempts, last_attempted_at, error_message, sqlstate, source_system, target_system)
SELECT h.organization_id, h.id, h.seq, h.row_key, h.created_at, h.cause, h.flow_id, h.flow_version, h.lane, h.hop, h.op, h.trail, h.new, h.old,
       h.attempts, CASE WHEN h.tried THEN pg_catalog.clock_timestamp() END, COALESCE(h.error, 'no reason was given'), h.sqlstate, h.source_system, h.target_system
  FROM h WHERE h.waiting_for IS NULL";

/// Takes jobs of a claimed group out of the history again and puts them where they belong.
pub fn take_back(group: &Group, back: &[Back]) -> Result<()> {
    if back.is_empty() {
        return Ok(());
    }
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
        ],
    )?;
    Ok(())
}

/// Jobs of a group that will not run: their history says cancelled.
pub fn cancel_group(group: &Group, reason: &str) -> Result<()> {
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

/// Seconds until the next waiting job of these lanes is due; None when none waits for a time.
pub fn next_due(lanes: &[i16]) -> Result<Option<f64>> {
    spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(due_at) - pg_catalog.clock_timestamp())::float8 FROM usher.queue_waiting
          WHERE due_at IS NOT NULL AND due_at < 'infinity' AND lane = ANY ($1::smallint[]) AND waiting_for <> 'external worker'",
        &[spi::arg(lanes.to_vec())],
    )
}

/// Jobs that are ready, for statements that look for some of them.
pub const READY: &str = "SELECT q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.flow_id, q.flow_version, q.lane, q.op, q.new, q.old FROM usher.queue AS q";

/// A CTE that takes ready jobs of organization `$1` with ids `$2` out of the queue.
pub const TAKE_READY: &str = "DELETE FROM usher.queue AS q WHERE q.organization_id = $1 AND q.id = ANY ($2::uuid[])
    RETURNING q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.cause, q.flow_id, q.flow_version, q.lane, q.hop, q.op, q.trail, q.new, q.old";

/// True when a unique key may be taken by another job. Its own rule says when: while the job is open no key is free but one
/// whose period is over.
pub fn key_is_free(installed: Installed, organization: Uuid, key: &str) -> Result<bool> {
    const OPEN: &str = "EXISTS (SELECT FROM usher.queue j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
             OR EXISTS (SELECT FROM usher.queue_waiting j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)";
    const KEPT: &str = "EXISTS (SELECT FROM usher.dead_letters j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
             OR EXISTS (SELECT FROM usher.job_history j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)";
    let free = if installed.up_to_date {
        format!(
            "CASE k.held_for WHEN 'ever' THEN false WHEN 'period' THEN k.held_until <= pg_catalog.clock_timestamp()
                             WHEN 'pending' THEN NOT ({OPEN}) ELSE NOT ({OPEN} OR {KEPT}) END"
        )
    } else {
        format!("NOT ({OPEN} OR {KEPT})")
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
            AND NOT EXISTS (SELECT FROM usher.queue j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.queue_waiting j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.dead_letters j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.job_history j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)",
        &[spi::arg(keep_days)],
    )?;
    Ok(())
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
            AND NOT EXISTS (SELECT FROM usher.queue j WHERE j.organization_id = o.organization_id AND j.id = o.job_id)
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
