//! Every `usher.*` setting, one accessor each.
//!
//! Contexts: what decides how a process connects can only be set before the server starts or by reload (the launcher
//! reads it again); identity settings belong to superusers (`GRANT SET ON PARAMETER` passes one on to a trusted login).

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;

/// Percent of the rows that rules are about: what is less consistent is told.
pub const LEAST_CONSISTENCY: &str = "99.99";

static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"postgres"));
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static CALLERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static CLAIMS_ROLES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"authenticator"));
static USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CAPTURE: GucSetting<bool> = GucSetting::<bool>::new(true);
static OUTBOUND: GucSetting<bool> = GucSetting::<bool>::new(true);
static REPAIRING: GucSetting<bool> = GucSetting::<bool>::new(false);
static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1000);
static NOTICE_FAILURES: GucSetting<i32> = GucSetting::<i32>::new(5);
static NOTICE_WINDOW: GucSetting<i32> = GucSetting::<i32>::new(600);
static HISTORY_DAYS: GucSetting<i32> = GucSetting::<i32>::new(30);
static AUDIT_DAYS: GucSetting<i32> = GucSetting::<i32>::new(0);

pub fn register() {
    GucRegistry::define_string_guc(
        c"usher.databases",
        c"Databases that get workers, separated by commas; * stands for all that have the extension.",
        c"A database needs the extension and usher.setup(); others in the list are left alone.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"usher.workers",
        c"Worker processes per database: 2 keeps one for the emergency and critical lanes, 1 serves all lanes.",
        c"",
        &WORKERS,
        1,
        2,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"usher.callers",
        c"Processes of a database that make calls with \"effect\": \"external\", where some flow has one.",
        c"So many of these calls run at the same time.",
        &CALLERS,
        1,
        8,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"usher.claims_roles",
        c"Login roles whose request.jwt.claims are believed, separated by commas.",
        c"Name only roles that a trusted gateway logs in with; anyone can set request.jwt.claims in a session of their own.",
        &CLAIMS_ROLES,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"usher.user_id",
        c"The user for whom this session acts, set by a trusted pooler.",
        c"",
        &USER_ID,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"usher.key_file",
        c"File outside the data directory with the key that seals secrets.",
        c"",
        &KEY_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_bool_guc(
        c"usher.capture",
        c"Off: changes in this session start no flows. For repair and restore, by operators.",
        c"",
        &CAPTURE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"usher.outbound",
        c"Off: nothing that leaves the database is handed out; it waits.",
        c"For clones: ALTER DATABASE copy SET usher.outbound = off.",
        &OUTBOUND,
        GucContext::Suset,
        GucFlags::default(),
    );
    // Asked for by the triggers themselves, in sessions that need not have the library.
    GucRegistry::define_bool_guc(
        c"usher.repairing",
        c"Internal: on while a repair of a rule is at work.",
        c"",
        &REPAIRING,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
    GucRegistry::define_int_guc(
        c"usher.batch_size",
        c"Jobs that a worker handles in one transaction.",
        c"",
        &BATCH_SIZE,
        1,
        10_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"usher.history_days",
        c"Days for which finished jobs are kept.",
        c"",
        &HISTORY_DAYS,
        1,
        36_500,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"usher.audit_days",
        c"Days that entries of the audit log are kept; 0 keeps them for ever.",
        c"The chain of hashes says which days were dropped, and keeps what it needs to verify the others.",
        &AUDIT_DAYS,
        0,
        36500,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"usher.notice_failures",
        c"Failed attempts of a flow in one organization, within usher.notice_window, that make a notice; 0 makes none.",
        c"",
        &NOTICE_FAILURES,
        0,
        1_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"usher.notice_window",
        c"Time within which failed attempts are counted together.",
        c"",
        &NOTICE_WINDOW,
        1,
        604_800,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    crate::pg::guc::reserve_prefix();
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().and_then(|value| value.into_string().ok()).unwrap_or_default()
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub fn databases() -> Vec<String> {
    list(&text(&DATABASES))
}

pub fn workers() -> i32 {
    WORKERS.get()
}

/// Processes for calls that leave the database, where some flow has one.
pub fn callers() -> i32 {
    CALLERS.get()
}

pub fn claims_roles() -> Vec<String> {
    list(&text(&CLAIMS_ROLES))
}

/// The user that a trusted pooler named, if any.
pub fn user_id() -> Option<String> {
    Some(text(&USER_ID)).filter(|value| !value.is_empty())
}

/// The file with the key that seals secrets, if one is named.
pub fn key_file() -> Option<String> {
    Some(text(&KEY_FILE)).filter(|value| !value.is_empty())
}

pub fn capture() -> bool {
    CAPTURE.get()
}

/// False: work that leaves the database waits.
pub fn outbound() -> bool {
    OUTBOUND.get()
}

pub fn batch_size() -> i32 {
    BATCH_SIZE.get()
}

/// None: for ever.
pub fn audit_days() -> Option<i32> {
    Some(AUDIT_DAYS.get()).filter(|days| *days > 0)
}

pub fn history_days() -> i32 {
    HISTORY_DAYS.get()
}

pub fn notice_failures() -> i32 {
    NOTICE_FAILURES.get()
}

/// Seconds.
pub fn notice_window() -> i32 {
    NOTICE_WINDOW.get()
}

#[cfg(test)]
mod unit {
    #[test]
    fn lists_are_split_and_trimmed() {
        assert_eq!(super::list(" a, b ,,c"), ["a", "b", "c"]);
        assert!(super::list("  ").is_empty());
    }
}
