//! `usher.job_batches` and `usher.job_floors`: what of the log is done, for good.
//!
//! Everything here runs with the owner's rights while the caller has the lane, so that nobody else enters anything.

use super::log::{Log, Moment, written, written_all};
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::{spi, xact};

/// Reads a lane's floor and what is done above it.
pub fn read(lane: usize) -> Result<Log> {
    let _index = Nest::open().index_scans();
    let lane = spi::arg(lane as i16);
    let floor =
        spi::one::<i64>("SELECT f.floor FROM usher.job_floors AS f WHERE f.lane = $1", std::slice::from_ref(&lane))?.unwrap_or(0);
    let mut log = Log { known: true, floor, position: floor, read_to: floor, ..Log::default() };
    let ranges = spi::all(
        "SELECT pg_catalog.lower(r.range), pg_catalog.upper(r.range)
           FROM usher.job_batches AS b CROSS JOIN LATERAL unnest(b.done) AS r (range) WHERE b.lane = $1 AND b.last_seq > $2",
        &[lane, spi::arg(floor)],
        |row| Ok((row.get::<i64>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0))),
    )?;
    for (from, to) in ranges {
        log.done.add(from, to);
        log.read_to = log.read_to.max(to - 1);
    }
    log.done.forget(floor);
    Ok(log)
}

/// Enters what a batch has done: positions in ascending order.
pub fn done(lane: usize, taken: &[i64]) -> Result<()> {
    let Some(last) = taken.last() else { return Ok(()) };
    spi::run(
        "INSERT INTO usher.job_batches (lane, last_seq, finished_at, jobs, done) VALUES ($1, $2, pg_catalog.clock_timestamp(), $3, $4::text::int8multirange)",
        &[spi::arg(lane as i16), spi::arg(*last), spi::arg(taken.len() as i32), spi::arg(written_all(taken))],
    )?;
    Ok(())
}

/// What is drawn now, and who still runs.
pub struct Look {
    now: Moment,
    /// Every transaction with a lower number has ended.
    oldest: i64,
}

/// To be taken before the transaction writes: it would wait for itself.
pub fn look() -> Result<Look> {
    // First what is drawn, then who runs: whoever draws in between is not missing from the second.
    let drawn = spi::read::<i64>("SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM usher.queue_seq AS s", &[])?;
    let now = Moment { drawn: drawn.unwrap_or(0), next_xid: xact::next_xid() };
    let oldest = spi::one::<i64>("SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint", &[])?;
    Ok(Look { now, oldest: oldest.unwrap_or(0) })
}

/// True when nothing has been drawn above a lane's floor.
pub fn is_settled(log: &Log, look: &Look) -> bool {
    log.known && log.moment.is_none() && look.now.drawn <= log.floor
}

/// Raises a lane's floor as far as it is settled that nothing is left below it and nothing will be added. False: some
/// transaction still has to end before all that was drawn can be settled.
///
/// Whoever draws a position has a transaction number before (`pg::xact::take_seq`). So when every transaction that ran at a
/// moment has ended, all positions drawn until then are either to be seen now or will never be.
pub fn settle(lane: usize, log: &mut Log, look: &Look) -> Result<bool> {
    // One that was awaited is of some time ago: more has been drawn since.
    for moment in log.moment.into_iter().chain([look.now]) {
        if look.oldest < moment.next_xid {
            log.moment = Some(moment);
            return Ok(false);
        }
        log.moment = None;
        if !raise(lane, log, moment.drawn)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Raises the floor up to a position, or to the first before it that is not done; false then.
fn raise(lane: usize, log: &mut Log, drawn: i64) -> Result<bool> {
    if drawn <= log.floor {
        return Ok(true);
    }
    let floor = first_undone(lane, log, drawn)?.map_or(drawn, |first| drawn.min(first - 1));
    if floor > log.floor {
        spi::run(
            "UPDATE usher.job_floors AS f SET floor = $2 WHERE f.lane = $1 AND f.floor < $2",
            &[spi::arg(lane as i16), spi::arg(floor)],
        )?;
        log.raise_floor(floor);
    }
    Ok(floor == drawn)
}

/// The first position in the log, up to `to`, that is not done.
fn first_undone(lane: usize, log: &Log, to: i64) -> Result<Option<i64>> {
    let _plan = Nest::open().one_plan();
    let gaps = log.done.gaps(log.floor + 1, to + 1);
    spi::one::<i64>(
        "SELECT j.seq FROM unnest($2::text::int8multirange) AS g (gap)
           CROSS JOIN LATERAL (SELECT q.seq FROM usher.jobs AS q
                                WHERE q.lane = $1 AND q.seq >= pg_catalog.lower(g.gap) AND q.seq < pg_catalog.upper(g.gap) ORDER BY q.seq LIMIT 1) AS j
          LIMIT 1",
        &[spi::arg(lane as i16), spi::arg(written(gaps.into_iter()))],
    )
}
