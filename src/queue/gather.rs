//! Jobs of flows in mode `batch`, while they gather: in `usher.queue_waiting` for `batch window`, by lane, flow and organization,
//! each due when its flow's window is over for it. Everything here runs with the owner's rights.

use super::store::{self, Claim};
use crate::error::Result;
use crate::pg::spi;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::SpiClient;

/// Whose jobs gather where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub lane: i16,
    pub flow: i32,
    pub organization: [u8; 16],
}

impl Key {
    fn arguments<'a>(&self) -> [pgrx::datum::DatumWithOid<'a>; 3] {
        [spi::arg(self.lane), spi::arg(self.flow), spi::arg(Uuid::from_bytes(self.organization))]
    }
}

/// What has gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub jobs: i64,
    /// When the window of the oldest is over, in microseconds on the scale of `ids::clock`.
    pub closes: i64,
    /// No job has a lower position.
    pub from: i64,
}

/// Everything that gathers in some lanes, read from the jobs themselves.
pub fn open(lanes: &[i16]) -> Result<Vec<(Key, Open)>> {
    spi::read_all(
        "SELECT w.lane, w.flow_id, w.organization_id, pg_catalog.count(*), pg_catalog.min(w.due_at), pg_catalog.min(w.seq)
           FROM usher.queue_waiting AS w WHERE w.waiting_for = 'batch window' AND w.lane = ANY ($1::smallint[]) GROUP BY 1, 2, 3",
        &[spi::arg(lanes.to_vec())],
        |row| {
            let key = Key {
                lane: row.get::<i16>(1)?.unwrap_or_default(),
                flow: row.get::<i32>(2)?.unwrap_or_default(),
                organization: row.get::<Uuid>(3)?.map_or([0; 16], |id| *id.as_bytes()),
            };
            Ok((key, read(row, 4)?))
        },
    )
}

fn read(row: &pgrx::spi::SpiTupleTable<'_>, first: usize) -> Result<Open> {
    Ok(Open {
        jobs: row.get::<i64>(first)?.unwrap_or(0),
        closes: row.get::<TimestampWithTimeZone>(first + 1)?.map_or(i64::MIN, i64::from),
        from: row.get::<i64>(first + 2)?.unwrap_or(0),
    })
}

/// The first `most` jobs of one gathering from a position on, with the position of the last; None when there is none.
pub fn look(key: Key, from: i64, most: i32) -> Result<Option<(Open, i64)>> {
    let mut arguments = Vec::from(key.arguments());
    arguments.extend([spi::arg(from), spi::arg(i64::from(most))]);
    let found = spi::all(
        "SELECT pg_catalog.count(*), pg_catalog.min(w.due_at), pg_catalog.min(w.seq), pg_catalog.max(w.seq)
           FROM (SELECT w.due_at, w.seq FROM usher.queue_waiting AS w
                  WHERE w.waiting_for = 'batch window' AND w.lane = $1 AND w.flow_id = $2 AND w.organization_id = $3 AND w.seq >= $4
                  ORDER BY w.seq LIMIT $5) AS w",
        &arguments,
        |row| Ok((read(row, 1)?, row.get::<i64>(4)?.unwrap_or(0))),
    )?;
    Ok(found.into_iter().next().filter(|(open, _)| open.jobs > 0))
}

/// `$1` lane, `$2` flow, `$3` organization, `$4` the first position, `$5` most jobs.
const CLAIM: &str = "
WITH c AS (
    DELETE FROM usher.queue_waiting AS q
     WHERE q.ctid = ANY (ARRAY(
           SELECT r.ctid FROM usher.queue_waiting AS r
            WHERE r.waiting_for = 'batch window' AND r.lane = $1 AND r.flow_id = $2 AND r.organization_id = $3 AND r.seq >= $4
            ORDER BY r.seq LIMIT $5 FOR UPDATE SKIP LOCKED))
    RETURNING q.seq, q.row_key, q.id, q.organization_id, q.created_at, q.cause, q.flow_id, q.flow_version, q.lane, q.hop, q.op, q.trail, q.new, q.old,
              q.attempts + 1 AS attempts, q.source_system, q.target_system, false AS apart)";

/// Takes them: the batch.
pub fn claim(client: &mut SpiClient<'_>, key: Key, from: i64, most: i32) -> Result<Claim> {
    let mut arguments = Vec::from(key.arguments());
    arguments.extend([spi::arg(from), spi::arg(i64::from(most))]);
    let mut claim = store::claim_waiting(client, CLAIM, &arguments, true)?;
    claim.groups.iter_mut().for_each(|group| group.lane = key.lane);
    Ok(claim)
}

/// After an unclean end: batches that were to run at that moment become single jobs, which are done one by one. Returns how many
/// jobs there are in a lane of them at most.
pub fn scatter(lanes: &[i16]) -> Result<i32> {
    let jobs = spi::all(
        "WITH g AS (
             SELECT w.lane, w.flow_id, w.organization_id FROM usher.queue_waiting AS w LEFT JOIN usher.flows AS f ON f.id = w.flow_id
              WHERE w.waiting_for = 'batch window' AND w.lane = ANY ($1::smallint[]) GROUP BY 1, 2, 3, f.definition
             HAVING pg_catalog.min(w.due_at) <= pg_catalog.clock_timestamp()
                 OR pg_catalog.count(*) >= COALESCE((f.definition -> 'batch' ->> 'size')::integer, 1)),
         u AS (
             UPDATE usher.queue_waiting AS w SET waiting_for = 'run_at', due_at = pg_catalog.now() FROM g
              WHERE w.waiting_for = 'batch window' AND w.lane = g.lane AND w.flow_id = g.flow_id AND w.organization_id = g.organization_id
             RETURNING w.lane)
         SELECT pg_catalog.count(*)::integer FROM u GROUP BY u.lane",
        &[spi::arg(lanes.to_vec())],
        |row| Ok(row.get::<i32>(1)?.unwrap_or(0)),
    )?;
    Ok(jobs.into_iter().max().unwrap_or(0))
}
