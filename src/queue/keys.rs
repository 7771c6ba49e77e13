//! Unique keys: one row for each, whoever calls and however many.

use super::options::Hold;
use super::store;
use crate::error::Result;
use crate::pg::spi;
use crate::setup::Installed;
use pgrx::Uuid;

/// Takes the key for job `id`, or returns the job that has it. Runs with the owner's rights.
pub fn take(installed: Installed, organization: Uuid, key: &str, hold: &Hold, id: Uuid) -> Result<Option<Uuid>> {
    let (word, period) = hold.stored();
    let arguments = [spi::arg(organization), spi::arg(key), spi::arg(id)];
    loop {
        let made = if installed.up_to_date {
            spi::run(
                "INSERT INTO usher.job_keys (organization_id, unique_key, job_id, held_for, held_until)
                 VALUES ($1, $2, $3, $4, pg_catalog.clock_timestamp() + $5::interval)
                 ON CONFLICT ON CONSTRAINT job_keys_pkey DO NOTHING",
                &[spi::arg(organization), spi::arg(key), spi::arg(id), spi::arg(word), spi::arg(period.map(str::to_owned))],
            )?
        } else {
            spi::run(
                "INSERT INTO usher.job_keys (organization_id, unique_key, job_id) VALUES ($1, $2, $3)
                 ON CONFLICT ON CONSTRAINT job_keys_pkey DO NOTHING",
                &arguments,
            )?
        };
        if made > 0 {
            return Ok(None);
        }
        if !store::key_is_free(installed, organization, key)? {
            let holder = spi::one::<Uuid>(
                "SELECT job_id FROM usher.job_keys WHERE organization_id = $1 AND unique_key = $2",
                &arguments[..2],
            )?;
            match holder {
                Some(holder) => return Ok(Some(holder)),
                // Given back meanwhile.
                None => continue,
            }
        }
        // Others may have seen the same: one by one, and each looks again with what it sees after the one before.
        spi::run("SELECT FROM usher.job_keys WHERE organization_id = $1 AND unique_key = $2 FOR UPDATE", &arguments[..2])?;
        if store::key_is_free(installed, organization, key)? {
            spi::run("DELETE FROM usher.job_keys WHERE organization_id = $1 AND unique_key = $2", &arguments[..2])?;
        }
    }
}

/// Forgets keys whose time is over: with their job, or at the end of their period.
pub fn forget(keep_days: i32) -> Result<()> {
    store::forget_keys(keep_days)?;
    spi::run("DELETE FROM usher.job_keys WHERE held_for = 'period' AND held_until < pg_catalog.now()", &[])?;
    Ok(())
}
