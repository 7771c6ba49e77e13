//! Jobs of a batch that are not simply done: back to where jobs wait, to the dead letters, or into the history with a row of
//! their own. Runs with the owner's rights, inside the transaction of the batch.

use super::group::Group;
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::{spi, xact};

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
    // Its plan is made once, often while these tables are empty, and must do when they are not.
    let _index = Nest::open().one_by_one();
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
pub(super) fn set_apart(group: &Group, numbers: Option<Vec<i32>>) -> Result<()> {
    let Some(lane) = group.log else { return Ok(()) };
    let _index = Nest::open().one_by_one();
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
    let _index = Nest::open().one_by_one();
    spi::run(
        "UPDATE usher.job_history h SET cancelled = true, attempts = h.attempts - 1, error_message = $3
           FROM unnest($1::uuid[], $2::uuid[]) AS b (organization_id, id)
          WHERE h.finished_at = pg_catalog.now() AND h.organization_id = b.organization_id AND h.id = b.id",
        &[group.batch.organizations.arg(), group.batch.ids.arg(), spi::arg(reason)],
    )?;
    Ok(())
}
