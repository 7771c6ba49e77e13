//! Unique keys: one row for each, whoever calls and however many.

use super::options::Hold;
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
        if !key_is_free(installed, organization, key)? {
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
        if key_is_free(installed, organization, key)? {
            spi::run("DELETE FROM usher.job_keys WHERE organization_id = $1 AND unique_key = $2", &arguments[..2])?;
        }
    }
}

/// Forgets keys whose time is over: with their job, or at the end of their period.
pub fn forget(keep_days: i32) -> Result<()> {
    forget_keys(keep_days)?;
    spi::run("DELETE FROM usher.job_keys WHERE held_for = 'period' AND held_until < pg_catalog.now()", &[])?;
    Ok(())
}

/// True when a unique key may be taken by another job. Its own rule says when: while the job is open no key is free but one
/// whose period is over.
fn key_is_free(installed: Installed, organization: Uuid, key: &str) -> Result<bool> {
    // The tables of version 0.1 have no log: what is ready is a table there, and what is done is in the history.
    let ready = if installed.up_to_date { "ready_jobs" } else { "queue" };
    let log = if installed.up_to_date {
        "OR EXISTS (SELECT FROM usher.jobs j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)"
    } else {
        ""
    };
    let open = format!(
        "EXISTS (SELECT FROM usher.{ready} j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
             OR EXISTS (SELECT FROM usher.queue_waiting j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)"
    );
    let kept = format!(
        "EXISTS (SELECT FROM usher.dead_letters j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
             OR EXISTS (SELECT FROM usher.job_history j WHERE j.organization_id = k.organization_id AND j.id = k.job_id) {log}"
    );
    let free = if installed.up_to_date {
        format!(
            "CASE k.held_for WHEN 'ever' THEN false WHEN 'period' THEN k.held_until <= pg_catalog.clock_timestamp()
                             WHEN 'pending' THEN NOT ({open}) ELSE NOT ({open} OR {kept}) END"
        )
    } else {
        format!("NOT ({open} OR {kept})")
    };
    Ok(spi::one::<bool>(
        &format!("SELECT {free} FROM usher.job_keys AS k WHERE k.organization_id = $1 AND k.unique_key = $2"),
        &[spi::arg(organization), spi::arg(key)],
    )?
    .unwrap_or(false))
}

/// Forgets keys with their jobs, when those have been forgotten.
fn forget_keys(keep_days: i32) -> Result<()> {
    spi::run(
        "DELETE FROM usher.job_keys k
          WHERE k.created_at < pg_catalog.now() - $1 * interval '1 day' AND k.held_for IN ('history', 'pending')
            AND NOT EXISTS (SELECT FROM usher.jobs j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.queue_waiting j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.dead_letters j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)
            AND NOT EXISTS (SELECT FROM usher.job_history j WHERE j.organization_id = k.organization_id AND j.id = k.job_id)",
        &[spi::arg(keep_days)],
    )?;
    Ok(())
}
