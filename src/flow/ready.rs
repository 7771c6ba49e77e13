//! Ready jobs in the hands of a session: to move them, mark them or take them out of the log.
//!
//! A worker's claim only reads the log, and locks nothing. So a session waits for the batch that runs in the lane, keeps the next
//! one away for a moment, and locks the rows: from then on claims pass over them until the session ends.

use crate::error::{Result, UsherError};
use crate::pg::{locks, spi, xact};

/// Locks every ready job of some flows for this transaction. Waits for batches that run, as for any lock.
pub fn hold(flows: &[i32]) -> Result<()> {
    let flows = spi::arg(flows.to_vec());
    let lanes = spi::one::<Vec<i16>>(
        "SELECT pg_catalog.array_agg(DISTINCT r.lane) FROM usher.ready_jobs AS r WHERE r.flow_id = ANY ($1)",
        std::slice::from_ref(&flows),
    )?
    .unwrap_or_default();
    if lanes.is_empty() {
        return Ok(());
    }
    check_isolation()?;
    let _quiet = locks::quiet(lanes);
    note(&spi::all(
        "SELECT j.lane, j.seq FROM usher.jobs AS j
          WHERE (j.lane, j.seq) IN (SELECT r.lane, r.seq FROM usher.ready_jobs AS r WHERE r.flow_id = ANY ($1))
          ORDER BY j.seq FOR UPDATE",
        &[flows],
        |row| Ok((row.get::<i16>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0))),
    )?);
    Ok(())
}

/// The same for one job. False: it is not ready any more.
pub fn hold_one(lane: i16, seq: i64) -> Result<bool> {
    check_isolation()?;
    let _quiet = locks::quiet(vec![lane]);
    let locked = spi::all(
        "SELECT j.lane, j.seq FROM usher.jobs AS j
          WHERE j.lane = $1 AND j.seq = $2 AND EXISTS (SELECT FROM usher.ready_jobs AS r WHERE r.lane = $1 AND r.seq = $2) FOR UPDATE",
        &[spi::arg(lane), spi::arg(seq)],
        |row| Ok((row.get::<i16>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0))),
    )?;
    note(&locked);
    Ok(!locked.is_empty())
}

/// The same for jobs at some positions, each in its lane.
pub fn hold_these(jobs: &[(i16, i64)]) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    check_isolation()?;
    let (lanes, positions): (Vec<i16>, Vec<i64>) = jobs.iter().copied().unzip();
    let _quiet = locks::quiet(lanes.clone());
    note(&spi::all(
        "SELECT j.lane, j.seq FROM usher.jobs AS j
          WHERE (j.lane, j.seq) IN (SELECT u.lane, u.seq FROM unnest($1::smallint[], $2::bigint[]) AS u (lane, seq))
            AND EXISTS (SELECT FROM usher.ready_jobs AS r WHERE r.lane = j.lane AND r.seq = j.seq)
          ORDER BY j.seq FOR UPDATE",
        &[spi::arg(lanes), spi::arg(positions)],
        |row| Ok((row.get::<i16>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0))),
    )?);
    Ok(())
}

fn check_isolation() -> Result<()> {
    if xact::sees_new_commits() {
        return Ok(());
    }
    Err(UsherError::state("a transaction with one snapshot cannot see which ready jobs a worker has done meanwhile")
        .hint("Do it in READ COMMITTED."))
}

/// However this transaction ends, a worker that has passed over the rows looks at them again.
fn note(rows: &[(i16, i64)]) {
    for (lane, seq) in rows {
        xact::note_locked(usize::try_from(*lane).unwrap_or(0), *seq);
    }
}
