//! The jobs of one flow in a batch, as arrays: the order and the segments in which they can be done, and what a worker asks of
//! them. Claimed by [`super::store`].

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
    pub(super) versions: Raw,
    pub(super) hops: Raw,
    /// Some row occurs more than once.
    pub(super) repeats: bool,
    /// One version and one hop for all.
    pub(super) uniform: Option<(i32, i16)>,
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
    pub(super) apart: bool,
}

/// Jobs `first..=last` of a group share a version and a hop, and no row occurs twice among them: one statement can do them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub first: i32,
    pub last: i32,
    pub version: i32,
    pub hop: i16,
}

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

pub(super) fn positions(group: &Group) -> Result<Vec<i64>> {
    group.batch.positions.value::<Vec<i64>>().map(Option::unwrap_or_default)
}

pub(super) fn has_repeats(keys: impl Iterator<Item = i64>) -> bool {
    let mut seen = HashSet::new();
    keys.into_iter().any(|key| !seen.insert(key))
}

/// Twelve arrays of a row as a group, from column `first` on.
pub(super) fn read_group(table: &SpiTupleTable<'_>, first: usize, size: i32) -> Result<Group> {
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

impl Group {
    /// The jobs of each segment by organization, for calls that take those of one organization together: between the rows of a
    /// segment the order is free.
    pub fn by_organization(self, client: &mut SpiClient<'_>, segments: &[Segment]) -> Result<Self> {
        let organizations = self.batch.organizations.value::<Vec<Uuid>>()?.unwrap_or_default();
        let mut order: Vec<i32> = (1..=self.batch.size).collect();
        for segment in segments {
            let range = segment.first as usize - 1..segment.last as usize;
            if let Some(part) = order.get_mut(range) {
                part.sort_by_key(|n| organizations.get(*n as usize - 1).map(|id| *id.as_bytes()));
            }
        }
        if order.is_sorted() {
            return Ok(self);
        }
        let mut arguments = Vec::from(self.columns().map(|column| column.arg()));
        arguments.push(spi::arg(order));
        let table = spi::query(client, IN_GIVEN_ORDER, &arguments)?.first();
        let (flow, size, some_homeless, waited) = (self.flow, self.batch.size, self.some_homeless, self.waited);
        let (gathered, lane, log) = (self.gathered, self.lane, self.log);
        Ok(Self { flow, some_homeless, waited, gathered, lane, log, ..read_group(&table, 1, size)? })
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
