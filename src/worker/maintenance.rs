//! What one worker of a database does once a minute.

use crate::capture;
use crate::conflict;
use crate::consistency;
use crate::error::Result;
use crate::flow::drift::{self, Others};
use crate::guard::{attach as audits, seal};
use crate::migration;
use crate::notify;
use crate::pg::definitions::Definitions;
use crate::pg::relcache::Asker;
use crate::pg::{role, spi, subxact};
use crate::pg::{shmem, xact};
use crate::privacy::{self, erase, retention};
use crate::queue::log::Moment;
use crate::queue::{self, ledger, pressure};
use crate::registry::adopt::organizations;
use crate::settings;
use crate::setup;
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// Triggers and renames are looked at where a relation has changed, and everywhere this often.
const AT_LEAST: Duration = Duration::from_secs(3600);

thread_local! {
    /// When everything was last looked at, if nothing has been left out since.
    static COMPLETE_AT: Cell<Option<Instant>> = const { Cell::new(None) };
    static DEFINITIONS: RefCell<Definitions> = RefCell::new(Definitions::new(Asker::Maintenance));
}

/// Partitions and segments. In a transaction of its own: attaching and dropping them locks out writers until it ends.
pub fn partitions() -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    spi::one::<String>("SELECT usher.maintain_history($1)", &[spi::arg(settings::history_days())])?;
    if installed.up_to_date {
        spi::one::<String>("SELECT usher.maintain_days('audit_log', NULL)", &[])?;
        spi::one::<String>("SELECT usher.maintain_days('events', $1)", &[spi::arg(settings::history_days())])?;
        spi::run(
            "DELETE FROM usher.events_default WHERE emitted_at < pg_catalog.now() - $1 * interval '1 day'",
            &[spi::arg(settings::history_days())],
        )?;
        if let Some(days) = settings::audit_days() {
            seal::retire(installed, days)?;
        }
        spi::one::<String>("SELECT usher.maintain_segments($1)", &[spi::arg(settings::history_days())])?;
    }
    Ok(())
}

/// What is old enough to go, columns with another name, triggers that somebody dropped.
pub fn run() -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    if installed.up_to_date {
        // First of all: a look at who still runs must not find ourselves.
        if let Err(failure) = subxact::attempt(|| seal::seal(&seal::look()?)) {
            pgrx::log!("usher worker: the audit log could not be put into its chain: {}", failure.line());
        }
        spi::run(
            "DELETE FROM usher.shadow_results WHERE recorded_at < pg_catalog.now() - $1 * interval '1 day'",
            &[spi::arg(settings::history_days())],
        )?;
        notify::prune(settings::history_days())?;
        crate::event::broadcast::prune(settings::history_days())?;
        conflict::prune(settings::history_days())?;
        consistency::prune(settings::history_days())?;
        notify::inconsistent()?;
        migration::prune(settings::history_days())?;
        crate::flow::results::prune(settings::history_days())?;
        crate::workflow::prune(settings::history_days())?;
        if crate::queue::calls::wanted()? {
            crate::pg::xact::note_callers();
        }
        crate::queue::schedules::prune(settings::history_days())?;
        queue::forget(settings::history_days())?;
        queue::limits::forget(installed)?;
    }
    let complete = COMPLETE_AT.take().filter(|at| at.elapsed() < AT_LEAST);
    let changes = changes_since(installed, complete.is_some())?;
    look_at_flows(installed, changes.as_deref())?;
    if installed.up_to_date
        && let Err(failure) = subxact::attempt(|| organizations::reconcile(installed))
    {
        pgrx::log!("usher worker: the organizations could not be brought in line with their table: {}", failure.line());
    }
    if look_at_triggers(installed, changes.as_deref()) {
        COMPLETE_AT.set(complete.filter(|_| changes.is_some()).or_else(|| Some(Instant::now())));
    }
    Ok(())
}

/// The relations that have changed since the last look. None: all are to be looked at.
fn changes_since(installed: setup::Installed, complete: bool) -> Result<Option<Vec<Oid>>> {
    DEFINITIONS.with_borrow_mut(|definitions| {
        let changes =
            definitions.changed(Some(installed.flows))?.filter(|changes| complete && !changes.contains(&installed.flows));
        if changes.is_none() {
            definitions.learn()?;
        }
        Ok(changes)
    })
}

/// Erased persons whom work that ran meanwhile may have written again. In a transaction of its own: it waits for others' rows.
pub fn erasures(installed: setup::Installed) -> Result<()> {
    apart(installed, "erasures could not be looked at again", || erase::sweep(installed, Some(privacy::ERASURES)).map(|_| ()))
}

/// Rows whose time is over. In a transaction of its own, too.
pub fn retention(installed: setup::Installed) -> Result<()> {
    apart(installed, "retention could not be seen to", || retention::run(installed, privacy::RETENTION))
}

fn apart(installed: setup::Installed, otherwise: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if !(installed.up_to_date && installed.home) {
        return Ok(());
    }
    let _acting = role::internal(installed.owner);
    if let Err(failure) = subxact::attempt(work) {
        pgrx::log!("usher worker: {otherwise}: {}", failure.line());
    }
    Ok(())
}

/// Triggers of captured and audited tables: of those among which some have changed, or of all. False: not all could be looked at.
fn look_at_triggers(installed: setup::Installed, changes: Option<&[Oid]>) -> bool {
    let mut complete = true;
    // A busy table is left for the next minute.
    let sync = || changes.map_or_else(capture::attach::sync_all, capture::attach::sync_changed);
    if let Err(failure) = subxact::attempt(sync) {
        pgrx::log!("usher worker: capture triggers could not be checked: {}", failure.line());
        complete = false;
    }
    if installed.up_to_date
        && changes.is_none_or(|changes| !changes.is_empty())
        && let Err(failure) = subxact::attempt(|| audits::sync_all(capture::attach::PATIENCE))
    {
        pgrx::log!("usher worker: audit triggers could not be checked: {}", failure.line());
        complete = false;
    }
    if installed.up_to_date
        && changes.is_none_or(|changes| !changes.is_empty())
        && let Err(failure) = subxact::attempt(|| conflict::attach::sync_all(capture::attach::PATIENCE))
    {
        pgrx::log!("usher worker: triggers of overlap rules could not be checked: {}", failure.line());
        complete = false;
    }
    if installed.up_to_date
        && changes.is_none_or(|changes| !changes.is_empty())
        && let Err(failure) = subxact::attempt(|| consistency::attach::sync_all(capture::attach::PATIENCE))
    {
        pgrx::log!("usher worker: triggers of rules could not be checked: {}", failure.line());
        complete = false;
    }
    if installed.up_to_date
        && changes.is_none_or(|changes| !changes.is_empty())
        && let Err(failure) = subxact::attempt(|| organizations::attach(installed, capture::attach::PATIENCE))
    {
        pgrx::log!("usher worker: the triggers of the organizations' table could not be checked: {}", failure.line());
        complete = false;
    }
    complete
}

/// Some statements do not fire any event: renamed columns reach the jobs. `changes`: the relations that have changed, if they are known.
fn look_at_flows(installed: setup::Installed, changes: Option<&[Oid]>) -> Result<()> {
    if !installed.up_to_date || changes.is_some_and(<[Oid]>::is_empty) {
        return Ok(());
    }
    let flows = drift::follow_renames(changes)?;
    for finding in drift::look_again(&flows, Others::LookAt)? {
        pgrx::log!("usher worker: {}", finding.line());
    }
    Ok(())
}

/// What a worker does by itself, for databases without one: raises the floors of the log and, once a day, makes and drops
/// partitions and segments. At most once a minute. A transaction cannot settle what it draws itself: what was drawn is noted,
/// and settled by a later call.
pub fn in_session(installed: setup::Installed, take: impl Fn(i16) -> bool) -> Result<()> {
    if shmem::workers().iter().any(|worker| worker.listening) {
        return Ok(());
    }
    let _acting = role::internal(installed.owner);
    let look = ledger::look()?;
    let due = spi::all(
        "SELECT f.lane, f.awaited_seq, f.awaited_xid, f.settled_at < pg_catalog.date_trunc('day', pg_catalog.now())
           FROM usher.job_floors AS f WHERE f.settled_at < pg_catalog.now() - interval '1 minute' ORDER BY f.lane",
        &[],
        |row| {
            let moment = row.get::<i64>(2)?.zip(row.get::<i64>(3)?);
            Ok((row.get::<i16>(1)?.unwrap_or(0), moment, row.get::<bool>(4)? == Some(true)))
        },
    )?;
    let new_day = due.iter().any(|(.., new_day)| *new_day);
    for (lane, moment, _) in due {
        if !take(lane) {
            continue;
        }
        let number = usize::try_from(lane).unwrap_or(0);
        let mut log = ledger::read(number)?;
        // A number that is still to come is of another server.
        log.moment =
            moment.filter(|(_, next_xid)| *next_xid <= xact::next_xid()).map(|(drawn, next_xid)| Moment { drawn, next_xid });
        let settled = ledger::settle(number, &mut log, &look)?;
        pressure::correct(number, &log, settled)?;
        spi::run(
            "UPDATE usher.job_floors AS f SET settled_at = pg_catalog.now(), awaited_seq = $2, awaited_xid = $3 WHERE f.lane = $1",
            &[
                spi::arg(lane),
                spi::arg(log.moment.map(|moment| moment.drawn)),
                spi::arg(log.moment.map(|moment| moment.next_xid)),
            ],
        )?;
    }
    if new_day {
        partitions()?;
    }
    Ok(())
}
