//! A subtransaction around a closure: what it did is kept or undone as a whole, and an error becomes a value.

use super::timeout::Timer;
use crate::error::{UsherError, mask};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// An error that was caught and undone.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Five characters. A state that pgrx does not know (such as a user's own `PT429`) reads XX000.
    pub sqlstate: String,
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Unique keys of our own that two meet in who pair the same row at once.
const PAIRED_AT_ONCE: [&str; 2] = ["links_left_pair_key", "links_right_pair_key"];

impl Failure {
    /// One line for a job's `error_message`.
    pub fn line(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{} ({}; {})", self.message, detail, self.sqlstate),
            None => format!("{} ({})", self.message, self.sqlstate),
        }
    }

    /// No job is to blame: the server lacks something, stops, or cannot reach its files.
    pub fn is_outside(&self) -> bool {
        ["53", "57", "58"].iter().any(|class| self.sqlstate.starts_with(class))
    }

    /// The statement may not fit the catalog (any more), or its role may have lost a right: worth looking at the flow.
    pub fn is_drift(&self) -> bool {
        matches!(
            self.code,
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE
                | PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN
                | PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION
                | PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT
                | PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH
                | PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE
                | PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME
                | PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE
        )
    }

    /// Another try would end alike as long as nothing changes: names, types, rights, limits of the language. Everything
    /// else (locks, memory, a conflict with somebody) says nothing about the statement.
    pub fn tells_about_the_statement(&self) -> bool {
        ["42", "3F", "0A", "22", "2B", "2F", "38", "39", "54", "P0"].iter().any(|class| self.sqlstate.starts_with(class))
    }

    /// What was asked cannot be answered for some row, for all that is known: neither somebody who stands in the way, nor a server that lacks
    /// something, nor a cancel. Unlike [`Failure::tells_about_the_statement`] it may be another answer with other rows.
    pub fn tells_about_the_rows(&self) -> bool {
        !self.is_busy() && !self.is_outside() && !self.sqlstate.starts_with("40")
    }

    /// What a rule names is not there, not as it was, or not to be read.
    pub fn tells_about_the_rule(&self) -> bool {
        ["42", "3F", "0A"].iter().any(|class| self.sqlstate.starts_with(class))
            || self.code == PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
    }

    /// Of two transactions one had to give way: another try may do better.
    pub fn is_busy(&self) -> bool {
        matches!(self.sqlstate.as_str(), "55P03" | "40P01" | "40001")
            || self.sqlstate == "23505" && PAIRED_AT_ONCE.iter().any(|key| self.message.contains(key))
    }

    /// Not this piece of work's fault: the server is stopping or somebody cancelled. Never swallowed.
    fn must_go_on(&self) -> bool {
        self.sqlstate.starts_with("57")
    }
}

impl From<Failure> for UsherError {
    fn from(failure: Failure) -> Self {
        UsherError { code: failure.code, message: failure.message, detail: failure.detail, hint: failure.hint }
    }
}

fn failure(code: PgSqlErrorCode, message: &str, detail: Option<&str>, hint: Option<&str>) -> Failure {
    // SAFETY: unpack_sql_state returns a static buffer of five characters and a NUL, copied at once.
    let sqlstate = unsafe { std::ffi::CStr::from_ptr(pg_sys::unpack_sql_state(code as i32)).to_string_lossy().into_owned() };
    // Details that show whole rows or foreign keys' values would tell them to people who may not read the table.
    let detail = detail.filter(|text| !text.starts_with("Failing row contains") && !text.contains("conflicts with existing key"));
    Failure { sqlstate, code, message: mask(message), detail: detail.map(mask), hint: hint.map(str::to_owned) }
}

fn overdue(limit: Duration) -> Failure {
    let code = PgSqlErrorCode::ERRCODE_QUERY_CANCELED;
    let seconds = limit.as_secs_f64();
    failure(
        code,
        &format!("it ran longer than the {seconds} s that it may take"),
        None,
        Some("Make it faster, with an index perhaps; to a flow a longer \"timeout\" can be given."),
    )
}

/// Describes a caught error without rethrowing it.
pub fn describe(caught: &CaughtError) -> Failure {
    let report = match caught {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    };
    failure(report.sql_error_code(), report.message(), report.detail(), report.hint())
}

/// Runs `work` in a subtransaction. On Ok its effects stay; on Err or a PostgreSQL error all of them are undone.
/// Cancel and shutdown (class 57) are not caught.
pub fn attempt<T>(work: impl FnOnce() -> Result<T, UsherError>) -> Result<T, Failure> {
    attempt_within(None, work)
}

/// The same, for at most so long: then it is cancelled, and that is a failure of this work like any other (57014).
pub fn attempt_within<T>(limit: Option<Duration>, work: impl FnOnce() -> Result<T, UsherError>) -> Result<T, Failure> {
    // SAFETY: the pattern of PL/pgSQL's exception blocks: remember context and owner, begin, run, release or roll back,
    // put both back. `work` opens its own SPI connection inside, which the rollback closes.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);

        let timer = limit.and_then(|limit| Timer::start(limit).map(|timer| (timer, limit)));
        let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
            work().map_err(|e| (failure(e.code, &e.message, e.detail.as_deref(), e.hint.as_deref()), false))
        }))
        .catch_others(|caught| {
            let failure = describe(&caught);
            let go_on = failure.must_go_on();
            Err((failure, go_on))
        })
        .execute();
        // Also work that ended all the same, because a function of the user has caught the cancel, is not accepted.
        let outcome = match timer.map(|(timer, limit)| (timer.stop(), limit)) {
            Some((true, limit)) => Err((overdue(limit), false)),
            _ => outcome,
        };

        match outcome {
            Ok(value) => {
                pg_sys::ReleaseCurrentSubTransaction();
                pg_sys::MemoryContextSwitchTo(context);
                pg_sys::CurrentResourceOwner = owner;
                Ok(value)
            }
            Err((failure, go_on)) => {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
                pg_sys::MemoryContextSwitchTo(context);
                pg_sys::CurrentResourceOwner = owner;
                if go_on {
                    ErrorReport::from(UsherError::from(failure)).report(PgLogLevel::ERROR);
                    unreachable!("an ERROR report does not return");
                }
                Err(failure)
            }
        }
    }
}

/// Runs `work`, and once more where it was the one of a deadlock that had to give way: what it had locked is free in between, so that the
/// other goes on. For work that locks much in an order of its own, which takes no harm from a second try.
pub fn again_after_deadlock<T>(mut work: impl FnMut() -> Result<T, UsherError>) -> Result<T, UsherError> {
    for _ in 1..TRIES_AFTER_DEADLOCK {
        match attempt(&mut work) {
            Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED => (),
            outcome => return Ok(outcome?),
        }
    }
    work()
}

const TRIES_AFTER_DEADLOCK: usize = 5;

/// Runs `work` in a subtransaction and always undoes it: for trying something out.
pub fn rehearse<T>(work: impl FnOnce() -> Result<T, UsherError>) -> Result<T, Failure> {
    rehearse_within(None, work)
}

/// The same, for at most so long.
pub fn rehearse_within<T>(limit: Option<Duration>, work: impl FnOnce() -> Result<T, UsherError>) -> Result<T, Failure> {
    let mut kept = None;
    let outcome = attempt_within(limit, || {
        kept = Some(work()?);
        Err::<(), _>(UsherError::internal(REHEARSED))
    });
    match outcome {
        Err(failure) if failure.message == REHEARSED => kept.ok_or_else(|| unreachable!("a rehearsal that ended has a value")),
        Err(failure) => Err(failure),
        Ok(()) => unreachable!("a rehearsal never commits"),
    }
}

const REHEARSED: &str = "rehearsal ends here";
