//! Followers: changes that line up behind an earlier one of their row, which waits. Finds them in a batch, and lets them go.

use super::group::Group;
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::spi;
use std::collections::HashMap;

/// Numbers of jobs in a group whose row has an earlier change waiting, for this flow or one of its class. Where no row of
/// these flows waits, that is all that is looked at, whatever else does.
pub fn parked(group: &Group, siblings: &[i32]) -> Result<Vec<i32>> {
    let _index = Nest::open().index_scans();
    Ok(spi::one::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(b.n::integer ORDER BY b.n)
           FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (row_key, seq, n)
          WHERE (SELECT EXISTS (SELECT FROM usher.queue_waiting w WHERE w.flow_id = ANY ($1) AND w.row_key IS NOT NULL))
            AND EXISTS (SELECT FROM usher.queue_waiting w WHERE w.flow_id = ANY ($1) AND w.row_key = b.row_key AND w.seq < b.seq)",
        &[spi::arg(siblings.to_vec()), group.row_keys.arg(), group.batch.positions.arg()],
    )?
    .unwrap_or_default())
}

/// As [`parked`], with the limit that holds one of the earlier changes, if one does.
pub fn leaders(group: &Group, siblings: &[i32]) -> Result<Vec<(i32, Option<String>)>> {
    spi::all(
        "SELECT b.n::integer, l.limit_key
           FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (row_key, seq, n)
          CROSS JOIN LATERAL (SELECT w.limit_key FROM usher.queue_waiting w WHERE w.flow_id = ANY ($1) AND w.row_key = b.row_key AND w.seq < b.seq LIMIT 1) AS l",
        &[spi::arg(siblings.to_vec()), group.row_keys.arg(), group.batch.positions.arg()],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<String>(2)?)),
    )
}

/// Some job is lined up behind an earlier change of its row.
fn any_follower() -> Result<bool> {
    let _index = Nest::open().index_scans();
    Ok(spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.queue_waiting w WHERE w.waiting_for = 'earlier change' AND w.due_at IS NULL)",
        &[],
    )?
    .unwrap_or(false))
}

/// `$1` flows, `$2` the class of each. Looks at each row and flow once, however many changes of it line up, and then at those only
/// that nobody is before any more.
const RELEASE: &str = "
WITH RECURSIVE c AS (SELECT * FROM unnest($1::integer[], $2::integer[]) AS c (flow_id, class)),
k AS (
    (SELECT w.row_key, w.flow_id FROM usher.queue_waiting w WHERE w.waiting_for = 'earlier change' AND w.due_at IS NULL ORDER BY w.row_key, w.flow_id LIMIT 1)
    UNION ALL
    SELECT n.row_key, n.flow_id FROM k CROSS JOIN LATERAL (
           SELECT w.row_key, w.flow_id FROM usher.queue_waiting w
            WHERE w.waiting_for = 'earlier change' AND w.due_at IS NULL AND (w.row_key, w.flow_id) > (k.row_key, k.flow_id)
            ORDER BY w.row_key, w.flow_id LIMIT 1) AS n),
l AS MATERIALIZED (
    SELECT k.row_key, k.flow_id,
           COALESCE((SELECT e.seq FROM usher.queue_waiting e
                      WHERE e.row_key = k.row_key AND e.waiting_for <> 'earlier change'
                        AND (e.flow_id = k.flow_id OR e.flow_id IN (SELECT o.flow_id FROM c o JOIN c m ON m.class = o.class WHERE m.flow_id = k.flow_id))
                      ORDER BY e.seq LIMIT 1), 9223372036854775807) AS first
      FROM k)
UPDATE usher.queue_waiting w SET due_at = pg_catalog.now()
 WHERE w.waiting_for = 'earlier change' AND w.due_at IS NULL
   AND w.ctid = ANY (ARRAY(
       SELECT f.at FROM l CROSS JOIN LATERAL (
              SELECT x.ctid AS at FROM usher.queue_waiting x
               WHERE x.row_key = l.row_key AND x.flow_id = l.flow_id AND x.seq <= l.first AND x.waiting_for = 'earlier change' AND x.due_at IS NULL
              OFFSET 0) AS f))";

/// Changes that lined up behind an earlier one of their row are due when none is before them any more. `classes` tells
/// which flows share an order.
pub fn release_followers(classes: &HashMap<i32, i32>) -> Result<usize> {
    if !any_follower()? {
        return Ok(0);
    }
    let _plan = Nest::open().index_scans();
    let (flows, names): (Vec<i32>, Vec<i32>) = classes.iter().map(|(flow, class)| (*flow, *class)).unzip();
    spi::run(RELEASE, &[spi::arg(flows), spi::arg(names)])
}
