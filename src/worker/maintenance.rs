//! What one worker of a database does once a minute.

use crate::capture;
use crate::error::Result;
use crate::flow::{check, store};
use crate::notify;
use crate::pg::{role, spi, subxact, xact};
use crate::settings;
use crate::setup;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;

/// Partitions of the history, flows that may fit again, triggers that somebody dropped.
pub fn run() -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    spi::one::<String>("SELECT usher.maintain_history($1)", &[spi::arg(settings::history_days())])?;
    if installed.up_to_date {
        spi::run(
            "DELETE FROM usher.shadow_results WHERE recorded_at < pg_catalog.now() - $1 * interval '1 day'",
            &[spi::arg(settings::history_days())],
        )?;
        notify::prune(settings::history_days())?;
    }
    mend_broken_flows()?;
    // A busy table is left for the next minute.
    if let Err(failure) = subxact::attempt(capture::attach::sync_all) {
        pgrx::log!("usher worker: capture triggers could not be checked: {}", failure.line());
    }
    Ok(())
}

/// A broken flow whose statement compiles again is switched back, and its jobs are due.
fn mend_broken_flows() -> Result<()> {
    let broken = spi::read_all("SELECT id, definition, run_as::oid FROM usher.flows WHERE state = 'broken'", &[], |row| {
        Ok((
            row.get::<i32>(1)?.unwrap_or_default(),
            row.get::<JsonB>(2)?.map(|json| json.0).unwrap_or_default(),
            row.get::<Oid>(3)?.unwrap_or(Oid::INVALID),
        ))
    })?;
    for (id, definition, run_as) in broken {
        let fits = store::parse(&definition)
            .ok()
            .is_some_and(|definition| subxact::rehearse(|| check::checked(&definition, run_as).map(|_| ())).is_ok());
        if fits {
            store::set_state(id, None)?;
            spi::run(
                "UPDATE usher.queue_waiting SET due_at = pg_catalog.now() WHERE flow_id = $1 AND waiting_for = 'flow broken'",
                &[spi::arg(id)],
            )?;
            xact::note_due_changed();
        }
    }
    Ok(())
}
