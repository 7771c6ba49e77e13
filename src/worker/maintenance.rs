//! What one worker of a database does once a minute.

use crate::capture;
use crate::error::Result;
use crate::flow::drift::{self, Others};
use crate::guard::attach as audits;
use crate::notify;
use crate::pg::{role, spi, subxact};
use crate::queue;
use crate::settings;
use crate::setup;

/// Partitions and segments. In a transaction of its own: attaching and dropping them locks out writers until it ends.
pub fn partitions() -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    spi::one::<String>("SELECT usher.maintain_history($1)", &[spi::arg(settings::history_days())])?;
    if installed.up_to_date {
        spi::one::<String>("SELECT usher.maintain_segments($1)", &[spi::arg(settings::history_days())])?;
    }
    Ok(())
}

/// What is old enough to go, flows that may fit again, triggers that somebody dropped.
pub fn run() -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    if installed.up_to_date {
        spi::run(
            "DELETE FROM usher.shadow_results WHERE recorded_at < pg_catalog.now() - $1 * interval '1 day'",
            &[spi::arg(settings::history_days())],
        )?;
        notify::prune(settings::history_days())?;
        crate::flow::results::prune(settings::history_days())?;
        if crate::queue::calls::wanted()? {
            crate::pg::xact::note_callers();
        }
        crate::queue::schedules::prune(settings::history_days())?;
        queue::forget(settings::history_days())?;
        queue::limits::forget(installed)?;
    }
    look_at_flows(installed)?;
    // A busy table is left for the next minute.
    if let Err(failure) = subxact::attempt(capture::attach::sync_all) {
        pgrx::log!("usher worker: capture triggers could not be checked: {}", failure.line());
    }
    if installed.up_to_date
        && let Err(failure) = subxact::attempt(|| audits::sync_all(capture::attach::PATIENCE))
    {
        pgrx::log!("usher worker: audit triggers could not be checked: {}", failure.line());
    }
    Ok(())
}

/// Rights and roles change without an event, and some statements do not fire any: broken flows are looked at again, what has
/// no record gets one, renamed columns reach the jobs.
fn look_at_flows(installed: setup::Installed) -> Result<()> {
    let mut flows = drift::broken()?;
    if installed.up_to_date {
        flows.extend(drift::unrecorded()?);
        flows.extend(drift::follow_renames(None)?);
    }
    for finding in drift::look_again(&flows, Others::LookAt)? {
        pgrx::log!("usher worker: {}", finding.line());
    }
    Ok(())
}
