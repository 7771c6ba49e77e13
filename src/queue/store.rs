//! The SQL of the queue. Everything here runs with the owner's rights, inside the transaction of a batch.
//!
//! A claim is one statement: it deletes the jobs from where they wait, writes them into the history as done, and returns
//! them as one set of arrays per group of (flow, version, hop). A job that then fails is taken out of the history again:
//! that is the rare case, and everything is one transaction.

use crate::error::Result;
use crate::flow::apply::Batch;
use crate::pg::spi::{self, Raw};
use pgrx::Uuid;
use pgrx::spi::{SpiClient, SpiTupleTable};
use std::collections::HashSet;

/// Jobs of one flow, in the order in which they must take effect.
pub struct Group {
    pub flow: Option<i32>,
    pub batch: Batch,
    pub row_keys: Raw,
    pub trails: Raw,
    pub attempts: Raw,
    versions: Raw,
    hops: Raw,
    pub segments: Vec<Segment>,
}

/// Jobs `first..=last` of a group share a version and a hop, and no row occurs twice among them.
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
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.flow_version), pg_catalog.array_agg(o.hop)
  FROM (SELECT c.* FROM c ORDER BY c.flow_id, c.flow_version, c.hop, c.seq) AS o
 GROUP BY o.flow_id";

/// A group in which a row occurs more than once, in waves: every row's first change, then every second one, and so on.
/// Within a wave the order is free, so that versions and hops can stand together.
const IN_WAVES: &str = "
SELECT pg_catalog.array_agg(o.organization_id), pg_catalog.array_agg(o.id), pg_catalog.array_agg(o.new), pg_catalog.array_agg(o.old),
       pg_catalog.array_agg(o.op), pg_catalog.array_agg(o.created_at), pg_catalog.array_agg(o.seq), pg_catalog.array_agg(o.row_key),
       pg_catalog.array_agg(o.trail), pg_catalog.array_agg(o.attempts), pg_catalog.array_agg(o.version), pg_catalog.array_agg(o.hop),
       pg_catalog.array_agg(o.wave::integer)
  FROM (SELECT b.*, pg_catalog.row_number() OVER (PARTITION BY COALESCE(b.row_key, b.seq) ORDER BY b.seq) AS wave
          FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::jsonb[], $5::\"char\"[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::text[],
                      $10::integer[], $11::integer[], $12::smallint[])
               AS b (organization_id, id, new, old, op, created_at, seq, row_key, trail, attempts, version, hop)
         ORDER BY wave, b.version, b.hop, b.seq) AS o";

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
    claim(client, &sql, &[spi::arg(lanes.to_vec()), spi::arg(i64::from(most))])
}

fn claim(client: &mut SpiClient<'_>, sql: &str, arguments: spi::Args<'_>) -> Result<Claim> {
    let mut table = spi::query(client, sql, arguments)?;
    let mut claim = Claim { groups: Vec::with_capacity(table.len()), jobs: 0, last: 0 };
    while table.next().is_some() {
        let flow = table.get::<i32>(1)?;
        let size = table.get::<i32>(2)?.unwrap_or(0);
        claim.jobs += size;
        claim.last = claim.last.max(table.get::<i64>(3)?.unwrap_or(0));
        let group = Group { flow, ..read_group(&table, 7, size)? };
        let repeats = size > 1 && table.get::<Vec<Option<i64>>>(14)?.is_some_and(|keys| has_repeats(keys.into_iter().flatten()));
        claim.groups.push(if repeats {
            in_waves(client, &group)?
        } else if table.get::<bool>(4)? == Some(true) {
            let (version, hop) = (table.get::<i32>(5)?.unwrap_or(0), table.get::<i16>(6)?.unwrap_or(0));
            Group { segments: vec![Segment { first: 1, last: size, version, hop }], ..group }
        } else {
            let segments = segments(&table, 17, None)?;
            Group { segments, ..group }
        });
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
        segments: Vec::new(),
    })
}

/// Versions and hops (and waves) of a row's arrays, cut where one of them changes.
fn segments(table: &SpiTupleTable<'_>, versions: usize, waves: Option<usize>) -> Result<Vec<Segment>> {
    let numbers = table.get::<Vec<i32>>(versions)?.unwrap_or_default();
    let hops = table.get::<Vec<i16>>(versions + 1)?.unwrap_or_default();
    let waves = match waves {
        Some(column) => table.get::<Vec<i32>>(column)?.unwrap_or_default(),
        None => vec![1; numbers.len()],
    };
    let jobs: Vec<(i32, i32, i16)> =
        numbers.into_iter().zip(hops).zip(waves).map(|((version, hop), wave)| (wave, version, hop)).collect();
    Ok(cut(&jobs))
}

/// Runs of equal (wave, version, hop), numbered from 1.
fn cut(jobs: &[(i32, i32, i16)]) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    let mut before = None;
    for (n, job) in (1..).zip(jobs) {
        match out.last_mut() {
            Some(segment) if before == Some(job) => segment.last = n,
            _ => out.push(Segment { first: n, last: n, version: job.1, hop: job.2 }),
        }
        before = Some(job);
    }
    out
}

fn in_waves(client: &mut SpiClient<'_>, group: &Group) -> Result<Group> {
    let batch = &group.batch;
    let columns = [
        batch.organizations,
        batch.ids,
        batch.new,
        batch.old,
        batch.ops,
        batch.created,
        batch.positions,
        group.row_keys,
        group.trails,
        group.attempts,
        group.versions,
        group.hops,
    ];
    let table = spi::query(client, IN_WAVES, &columns.map(|column| column.arg()))?.first();
    let segments = segments(&table, 11, Some(13))?;
    Ok(Group { flow: group.flow, segments, ..read_group(&table, 1, batch.size)? })
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

/// Numbers of jobs in a group whose row has an earlier change waiting.
pub fn parked(group: &Group) -> Result<Vec<i32>> {
    Ok(spi::one::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(b.n::integer ORDER BY b.n)
           FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (row_key, seq, n)
          WHERE EXISTS (SELECT FROM usher.queue_waiting w WHERE w.flow_id = $1 AND w.row_key = b.row_key AND w.seq < b.seq)",
        &[spi::arg(group.flow), group.row_keys.arg(), group.batch.positions.arg()],
    )?
    .unwrap_or_default())
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

/// Changes that lined up behind an earlier one of their row are due when none is before them any more.
pub fn release_followers() -> Result<usize> {
    spi::run(
        "UPDATE usher.queue_waiting w SET due_at = pg_catalog.now()
          WHERE w.waiting_for = 'earlier change' AND w.due_at IS NULL
            AND NOT EXISTS (SELECT FROM usher.queue_waiting e
                             WHERE e.flow_id = w.flow_id AND e.row_key = w.row_key AND e.seq < w.seq AND e.waiting_for <> 'earlier change')",
        &[],
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

#[cfg(test)]
mod unit {
    use super::cut;

    #[test]
    fn jobs_are_cut_where_wave_version_or_hop_changes() {
        let ranges = |jobs: &[(i32, i32, i16)]| cut(jobs).iter().map(|s| (s.first, s.last)).collect::<Vec<_>>();
        assert_eq!(ranges(&[(1, 1, 0), (1, 1, 0), (1, 1, 1), (1, 2, 1), (2, 2, 1)]), [(1, 2), (3, 3), (4, 4), (5, 5)]);
        assert_eq!(ranges(&[]), []);
    }

    proptest::proptest! {
        #[test]
        fn segments_cover_everything_once(jobs in proptest::collection::vec((1i32..3, 1i32..3, 0i16..2), 0..40)) {
            let covered: Vec<i32> = cut(&jobs).into_iter().flat_map(|s| s.first..=s.last).collect();
            proptest::prop_assert_eq!(covered, (1..=jobs.len() as i32).collect::<Vec<_>>());
        }
    }
}
