//! Ready jobs in the hands of a session: to move them, mark them or take them out of the log.
//!
//! A worker's claim only reads the log, and locks nothing. So a session waits for the batch that runs in the lane, keeps the next
//! one away for a moment, and locks the rows: from then on claims pass over them until the session ends. What it does then, it
//! does with exactly these rows: others may have come since.

use crate::error::{Result, UsherError};
use crate::pg::{locks, spi, xact};
use std::collections::HashSet;

/// Lane and position.
pub type Place = (i16, i64);

/// Locks the ready jobs of some flows for this transaction and says which they are. Waits for batches that run and for
/// sessions that have one of the rows, as for any lock.
pub fn hold(flows: &[i32]) -> Result<Vec<Place>> {
    hold_found(|| {
        spi::all("SELECT r.lane, r.seq FROM usher.ready_jobs AS r WHERE r.flow_id = ANY ($1)", &[spi::arg(flows.to_vec())], place)
    })
}

/// The same for jobs at some places, as far as they are ready.
pub fn hold_these(jobs: &[Place]) -> Result<Vec<Place>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let (lanes, positions) = columns(jobs);
    hold_found(|| {
        spi::all(
            "SELECT r.lane, r.seq FROM unnest($1::smallint[], $2::bigint[]) AS u (lane, seq)
               JOIN usher.ready_jobs AS r ON r.lane = u.lane AND r.seq = u.seq",
            &[spi::arg(lanes.clone()), spi::arg(positions.clone())],
            place,
        )
    })
}

/// The same for one job. False: it is not ready any more.
pub fn hold_one(lane: i16, seq: i64) -> Result<bool> {
    Ok(!hold_these(&[(lane, seq)])?.is_empty())
}

/// Places as the two arrays that statements take.
pub fn columns(places: &[Place]) -> (Vec<i16>, Vec<i64>) {
    places.iter().copied().unzip()
}

fn place(row: &pgrx::spi::SpiTupleTable<'_>) -> Result<Place> {
    Ok((row.get::<i16>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0)))
}

fn hold_found(find: impl Fn() -> Result<Vec<Place>>) -> Result<Vec<Place>> {
    let mut wanted = find()?;
    if wanted.is_empty() {
        return Ok(wanted);
    }
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see which ready jobs a worker has done meanwhile")
            .hint("Do it in READ COMMITTED."));
    }
    loop {
        let lanes: HashSet<i16> = wanted.iter().map(|(lane, _)| *lane).collect();
        let held = {
            let _quiet = locks::quiet(lanes.iter().copied().collect());
            // As of now: no batch is under way. Nobody's row is waited for while all others wait for the lane.
            wanted = find()?.into_iter().filter(|(lane, _)| lanes.contains(lane)).collect();
            let (lanes, positions) = columns(&wanted);
            spi::all(
                "SELECT j.lane, j.seq FROM usher.jobs AS j
                  WHERE (j.lane, j.seq) IN (SELECT u.lane, u.seq FROM unnest($1::smallint[], $2::bigint[]) AS u (lane, seq))
                  ORDER BY j.seq FOR UPDATE SKIP LOCKED",
                &[spi::arg(lanes), spi::arg(positions)],
                place,
            )?
        };
        // However this transaction ends, a worker that has passed over the rows looks at them again.
        for (lane, seq) in &held {
            xact::note_locked(usize::try_from(*lane).unwrap_or(0), *seq);
        }
        let known: HashSet<&Place> = held.iter().collect();
        let Some((lane, seq)) = wanted.iter().find(|place| !known.contains(place)) else { return Ok(held) };
        // Another session has it. When that ends, everything is looked at anew.
        spi::run("SELECT FROM usher.jobs AS j WHERE j.lane = $1 AND j.seq = $2 FOR UPDATE", &[spi::arg(*lane), spi::arg(*seq)])?;
    }
}
