//! What jobs of a flow in shadow would have done, kept in `usher.shadow_results`.

use super::group::Group;
use super::take_back;
use crate::error::Result;
use crate::flow::shadow::Tried;
use crate::pg::spi;
use serde_json::Value;

/// Marks the jobs in the history as shadow and keeps what they would have done. Runs with the owner's rights.
///
/// `$1` numbers, `$2` rows, `$3` failures, `$4` organizations, `$5` ids and `$6` kinds of the group, `$7` flow, `$8` version.
const RECORD: &str = "
WITH t AS (
    SELECT x.n, x.would_write::jsonb AS would_write, x.failed, ($4::uuid[])[x.n] AS organization_id, ($5::uuid[])[x.n] AS id, ($6::\"char\"[])[x.n] AS op
      FROM unnest($1::integer[], $2::text[], $3::text[]) AS x (n, would_write, failed)),
h AS (
    UPDATE usher.job_history AS h SET shadow = true, error_message = t.failed
      FROM t WHERE h.finished_at = pg_catalog.now() AND h.organization_id = t.organization_id AND h.id = t.id)
INSERT INTO usher.shadow_results (organization_id, id, job_id, flow_id, flow_version, op, would_write, failed)
SELECT t.organization_id, usher.uuid_v7(), t.id, $7, $8, t.op, t.would_write, t.failed FROM t ORDER BY t.n";

pub fn record(group: &Group, version: i32, tried: &[Tried]) -> Result<()> {
    if tried.is_empty() {
        return Ok(());
    }
    take_back::set_apart(group, Some(tried.iter().map(|job| job.n).collect()))?;
    spi::run(
        RECORD,
        &[
            spi::arg(tried.iter().map(|job| job.n).collect::<Vec<_>>()),
            spi::arg(tried.iter().map(|job| Value::from(job.would_write.clone()).to_string()).collect::<Vec<_>>()),
            spi::arg(tried.iter().map(|job| job.failed.clone()).collect::<Vec<_>>()),
            group.batch.organizations.arg(),
            group.batch.ids.arg(),
            group.batch.ops.arg(),
            spi::arg(group.flow),
            spi::arg(version),
        ],
    )?;
    Ok(())
}
