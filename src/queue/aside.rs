//! Whole groups of ready jobs that go to wait for one and the same: much in one go, so that what does not run costs little.

use super::group::Group;
use super::take_back::{self, Back};
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::{counters, spi, xact};

/// `$1` lane, `$2` positions, `$3` reason, `$4` seconds, `$5` pause.
const PUT: &str = "
WITH c AS (
    DELETE FROM usher.jobs AS j USING unnest($2::bigint[]) AS b (seq) WHERE j.lane = $1 AND j.seq = b.seq RETURNING j.*)
INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                 attempts, waiting_for, due_at, paused_by)
SELECT c.seq, c.row_key, c.id, c.organization_id, c.created_at, c.cause, c.flow_id, c.flow_version, c.lane, c.hop, c.op, c.trail, c.new, c.old,
       0, $3, CASE WHEN $3 = 'batch window' THEN c.created_at ELSE pg_catalog.clock_timestamp() END + $4 * interval '1 second', $5
  FROM c";

/// As [`take_back::take_back`], which does what cannot be done at once: jobs that wait for several things, or come from elsewhere.
pub fn put(group: &Group, back: &[Back]) -> Result<()> {
    let (Some(lane), Some(first)) = (group.log, back.first()) else { return take_back::take_back(group, back) };
    let alike = |job: &Back| {
        !job.tried
            && job.error.is_none()
            && job.waiting_for.is_some()
            && (job.waiting_for, job.after, job.paused_by) == (first.waiting_for, first.after, first.paused_by)
    };
    if back.len() != usize::try_from(group.batch.size).unwrap_or(0) || !back.iter().all(alike) {
        return take_back::take_back(group, back);
    }
    counters::give_back(back.len(), 0, 0);
    // Its plan is made once, often while the log is empty: each job is looked up by its key.
    let _index = Nest::open().one_by_one();
    spi::run(
        PUT,
        &[
            spi::arg(lane),
            group.batch.positions.arg(),
            spi::arg(first.waiting_for.map(str::to_owned)),
            spi::arg(first.after),
            spi::arg(first.paused_by),
        ],
    )?;
    xact::note_due_changed();
    Ok(())
}
