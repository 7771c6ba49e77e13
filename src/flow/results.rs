//! What came back from calls and from workers outside, for flows and workers that want it kept: `usher.job_results`.

use super::apply::Batch;
use crate::error::Result;
use crate::pg::spi;
use pgrx::{JsonB, Uuid};

/// Results of a batch's jobs: their numbers, and the values as text, so that no number loses a digit. Runs with the owner's
/// rights.
pub fn record(batch: &Batch, numbers: Vec<i32>, results: Vec<String>) -> Result<()> {
    spi::run(
        "INSERT INTO usher.job_results AS r (organization_id, job_id, result)
         SELECT ($1::uuid[])[x.n], ($2::uuid[])[x.n], x.result::jsonb FROM unnest($3::integer[], $4::text[]) AS x (n, result)
         ON CONFLICT ON CONSTRAINT job_results_pkey DO UPDATE SET result = EXCLUDED.result, recorded_at = EXCLUDED.recorded_at",
        &[batch.organizations.arg(), batch.ids.arg(), spi::arg(numbers), spi::arg(results)],
    )?;
    Ok(())
}

/// The result of one job. Runs with the owner's rights.
pub fn record_one(organization: Uuid, job: Uuid, result: JsonB) -> Result<()> {
    spi::run(
        "INSERT INTO usher.job_results AS r (organization_id, job_id, result) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT job_results_pkey DO UPDATE SET result = EXCLUDED.result, recorded_at = EXCLUDED.recorded_at",
        &[spi::arg(organization), spi::arg(job), spi::arg(result)],
    )?;
    Ok(())
}

pub fn read(organization: Uuid, job: Uuid) -> Result<Option<JsonB>> {
    spi::read::<JsonB>(
        "SELECT result FROM usher.job_results WHERE organization_id = $1 AND job_id = $2",
        &[spi::arg(organization), spi::arg(job)],
    )
}

/// Results go with the history, a piece a minute, so that one transaction never has a day of them. Runs with the owner's
/// rights.
pub fn prune(days: i32) -> Result<()> {
    spi::run(
        "DELETE FROM usher.job_results AS r
          WHERE (r.organization_id, r.job_id) IN (
                SELECT o.organization_id, o.job_id FROM usher.job_results o
                 WHERE o.recorded_at < pg_catalog.now() - $1 * interval '1 day' ORDER BY o.recorded_at LIMIT 100000)",
        &[spi::arg(days)],
    )?;
    Ok(())
}
