//! Background worker processes: registering, connecting, sleeping, one transaction after another.

use super::subxact::{Failure, describe};
use crate::error::Result;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// Registers the launcher; only while the library is being preloaded.
pub fn register_launcher(function: &str) {
    BackgroundWorkerBuilder::new("usher launcher")
        .set_type("usher launcher")
        .set_library("pg_usher")
        .set_function(function)
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// A worker process that the launcher has asked for.
pub struct Child(Option<pgrx::bgworkers::DynamicBackgroundWorker>);

/// Starts a process that runs `function` with `slot`; it is not restarted by the server but by the launcher.
pub fn start_worker(kind: &str, database: &str, function: &str, invitation: i32) -> Option<Child> {
    BackgroundWorkerBuilder::new(&format!("{kind} {database}"))
        .set_type(kind)
        .set_library("pg_usher")
        .set_function(function)
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_argument(invitation.into_datum())
        // SAFETY: reads the launcher's own pid. The server signals it when the worker starts or ends.
        .set_notify_pid(unsafe { pg_sys::MyProcPid })
        .load_dynamic()
        .ok()
        .map(|worker| Child(Some(worker)))
}

impl Child {
    pub fn is_gone(&self) -> bool {
        use pgrx::bgworkers::BackgroundWorkerStatus::{PostmasterDied, Stopped};
        self.0.as_ref().is_none_or(|worker| matches!(worker.pid(), Err(Stopped | PostmasterDied)))
    }

    /// Asks the process to end and waits until it has.
    pub fn stop(&mut self) {
        if let Some(worker) = self.0.take() {
            let _ = worker.terminate().wait_for_shutdown();
        }
    }
}

/// Signals as a server process has them: SIGTERM ends it at the next safe point even inside a long statement, SIGHUP
/// asks for a new look at the settings.
pub fn prepare_process() {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
    // SAFETY: installs a handler that does what the server's own `die` does.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(asked_to_end));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(pg_sys::SIGTERM as i32, Some(asked_to_end));
    }
}

unsafe extern "C-unwind" fn asked_to_end(_signal: i32) {
    // SAFETY: a signal handler: sets two flags that the next CHECK_FOR_INTERRUPTS acts on, and the latch.
    unsafe {
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
        (&raw mut pg_sys::ProcDiePending).write_volatile(1);
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

/// Shared catalogs only: enough to find databases by name.
pub fn connect_without_database() {
    BackgroundWorker::connect_worker_to_spi(None, None);
}

pub fn connect(database: u32) {
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(Oid::from(database)), None);
}

/// True when the settings were asked to be read again; reads them.
pub fn reload_if_asked() -> bool {
    if BackgroundWorker::sighup_received() {
        // SAFETY: called in the main loop of a worker, outside any transaction.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) }
        return true;
    }
    false
}

/// Sleeps until the latch is set or the time is over. Ends the process when the server goes away.
pub fn sleep(most: Duration) {
    let wanted = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = i64::try_from(most.as_millis()).unwrap_or(60_000);
    // SAFETY: waits on this process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, wanted as i32, milliseconds, pg_sys::PG_WAIT_EXTENSION);
    }
    pgrx::check_for_interrupts!();
}

unsafe extern "C" {
    /// kill(2) of the C library that the server itself is linked with.
    fn kill(pid: i32, signal: i32) -> i32;
}

/// Asks another process of this server to end.
pub fn ask_to_end(pid: i32) {
    if pid > 0 {
        // SAFETY: a signal to a process that entered its pid into our shared memory and has not left.
        unsafe {
            kill(pid, pg_sys::SIGTERM as i32);
        }
    }
}

/// Sleeps whether or not the latch is set.
pub fn pause(time: Duration) {
    let wanted = pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: waits for nothing but time and the server's end.
    unsafe {
        pg_sys::WaitLatch(
            std::ptr::null_mut(),
            wanted as i32,
            i64::try_from(time.as_millis()).unwrap_or(1),
            pg_sys::PG_WAIT_EXTENSION,
        );
    }
    pgrx::check_for_interrupts!();
}

/// Sleeps in a client's session, a little, without missing its cancel.
pub fn nap(most: Duration) {
    sleep(most);
    reset_latch();
}

/// To be called before looking for work: what is set afterwards ends the next sleep at once.
pub fn reset_latch() {
    // SAFETY: resets this process's own latch.
    unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) }
}

/// One transaction. On error everything is undone and the error comes back as a value; the process lives on.
///
/// The commit itself runs with the rights of `commit_as`, so that a deferred trigger which somebody managed to leave
/// behind never runs with the worker's own.
pub fn transaction<T>(
    commit_as: impl FnOnce(&T) -> Option<Oid>,
    work: impl FnOnce() -> Result<T>,
) -> std::result::Result<T, Failure> {
    // SAFETY: the worker's main loop, no transaction open. An error anywhere inside is caught below and aborted.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
            pg_sys::XactReadOnly = false;
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            match work() {
                Ok(value) => {
                    pg_sys::PopActiveSnapshot();
                    let acting = commit_as(&value).map(super::role::act_as);
                    pg_sys::CommitTransactionCommand();
                    drop(acting);
                    Ok(value)
                }
                Err(error) => {
                    pg_sys::AbortCurrentTransaction();
                    Err(Failure {
                        sqlstate: String::new(),
                        code: error.code,
                        message: error.message,
                        detail: error.detail,
                        hint: error.hint,
                    })
                }
            }
        }))
        .catch_others(|caught| {
            let failure = describe(&caught);
            pg_sys::AbortCurrentTransaction();
            Err(failure)
        })
        .execute();
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::pgstat_report_stat(false);
        outcome
    }
}

/// What `pg_stat_activity` shows of this process.
pub fn report_activity(text: &str, running: bool) {
    let text = CString::new(text).unwrap_or_default();
    let state = if running { pg_sys::BackendState::STATE_RUNNING } else { pg_sys::BackendState::STATE_IDLE };
    // SAFETY: copies the text into this process's status entry.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) }
}

thread_local! {
    static LANE: Cell<&'static str> = const { Cell::new("") };
}

/// The lane of which the process takes jobs from here on.
pub fn set_lane(lane: &'static str) {
    LANE.set(lane);
}

/// What `pg_stat_activity` shows of a worker while it does jobs of a flow.
pub fn report_jobs(flow: &str, jobs: i32) {
    let lane = LANE.get();
    report_activity(&format!("working: lane {lane}, flow {flow}, {jobs} job{}", if jobs == 1 { "" } else { "s" }), true);
}

/// True while pg_upgrade runs the server: nothing of ours may work then.
pub fn in_binary_upgrade() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// True in a worker process, false in a client's session.
pub fn is_worker() -> bool {
    // SAFETY: reads a process-local pointer that is set before a worker's main function runs.
    unsafe { !pg_sys::MyBgworkerEntry.is_null() }
}
