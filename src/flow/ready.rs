//! Ready jobs of a flow in the hands of a session: to move them, mark them or take them out of the log.
//!
//! A worker's claim only reads the log. So a session first locks the rows, which makes later claims pass over them, and then
//! waits for the batches that may have read them before; what is still ready afterwards stays so until it commits.

use crate::error::{Result, UsherError};
use crate::pg::{locks, spi, xact};

/// Locks every ready job of some flows for this transaction. From the next statement on `usher.ready_jobs` tells which of them
/// are really still to be done. Waits for batches that run, as for any lock.
pub fn hold(flows: &[i32]) -> Result<()> {
    let rows = spi::all(
        "SELECT j.lane, j.seq FROM usher.jobs AS j
          WHERE (j.lane, j.seq) IN (SELECT r.lane, r.seq FROM usher.ready_jobs AS r WHERE r.flow_id = ANY ($1))
          ORDER BY j.seq FOR UPDATE",
        &[spi::arg(flows.to_vec())],
        |row| Ok((row.get::<i16>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0))),
    )?;
    settle(&rows)
}

/// The same for one job. False: it is not ready any more.
pub fn hold_one(lane: i16, seq: i64) -> Result<bool> {
    let locked = spi::all(
        "SELECT j.lane, j.seq FROM usher.jobs AS j WHERE j.lane = $1 AND j.seq = $2 FOR UPDATE",
        &[spi::arg(lane), spi::arg(seq)],
        |row| Ok((row.get::<i16>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0))),
    )?;
    settle(&locked)?;
    Ok(spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM usher.ready_jobs AS r WHERE r.lane = $1 AND r.seq = $2)",
        &[spi::arg(lane), spi::arg(seq)],
    )? == Some(true))
}

fn settle(rows: &[(i16, i64)]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see which ready jobs a worker has done meanwhile")
            .hint("Do it in READ COMMITTED."));
    }
    let mut lanes: Vec<i16> = rows.iter().map(|(lane, _)| *lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    // However this transaction ends, a worker that has passed over the rows looks at them again.
    for lane in &lanes {
        let first = rows.iter().filter(|row| row.0 == *lane).map(|row| row.1).min().unwrap_or(0);
        xact::note_locked(usize::try_from(*lane).unwrap_or(0), first);
    }
    lanes.into_iter().for_each(locks::await_lane);
    Ok(())
}
