//! Links: this row here is that row there.

use pgrx::prelude::*;

/// Records the pairs of a batch: `$1` organizations, `$2` left ids, `$3` right ids, `$4` numbers in the batch, then kind,
/// systems, flow, numbers to leave out, and the positions of the whole batch. Runs with the owner's rights.
pub const RECORD: &str = "
    INSERT INTO usher.links AS l (organization_id, id, kind, left_id, right_id, left_system, right_system, flow, position, last_synced_at)
    SELECT DISTINCT ON (b.organization_id, b.left_id, b.right_id)
           b.organization_id, usher.uuid_v7(), $5, b.left_id, b.right_id, $6, $7, $8, ($10::bigint[])[b.n], pg_catalog.now()
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[]) AS b (organization_id, left_id, right_id, n)
     WHERE b.left_id IS NOT NULL AND b.right_id IS NOT NULL AND NOT (b.n = ANY ($9::integer[]))
     ORDER BY b.organization_id, b.left_id, b.right_id, b.n DESC
    ON CONFLICT ON CONSTRAINT links_pair_key
    DO UPDATE SET position = GREATEST(l.position, EXCLUDED.position), status = 'synced', error_message = NULL,
                  last_synced_at = EXCLUDED.last_synced_at, flow = EXCLUDED.flow";

/// Keeps `updated_at` of a link in step with its changes (the seeds' name for it).
#[pg_trigger]
fn update_integration_sync_timestamp<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, crate::error::UsherError> {
    let Some(new) = trigger.new() else { return Ok(None) };
    let mut new = new.into_owned();
    let now = TimestampWithTimeZone::try_from(crate::pg::ids::clock())
        .map_err(|_| crate::error::UsherError::internal("the clock is out of range"))?;
    new.set_by_name("updated_at", now).map_err(|e| crate::error::UsherError::internal(e.to_string()))?;
    Ok(Some(new))
}
