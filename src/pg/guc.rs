//! Settings of the session that must hold for a while and then be as they were.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Refuses unknown `usher.*` names from now on (and drops placeholders set before the library was loaded).
pub fn reserve_prefix() {
    // SAFETY: a constant, NUL-terminated string; called once from _PG_init.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"usher".as_ptr()) }
}

/// Keeps Rust's stack traces out of error details, whatever the server's environment says: clients read those.
pub fn no_backtraces() {
    // SAFETY: called from _PG_init; a PostgreSQL process has one thread then, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") }
}

/// Settings changed inside the guard's life; they go back when it is dropped, or with the (sub)transaction on error.
/// Nothing is done for a setting that has the wanted value already: opening and closing a level costs.
pub struct Nest {
    level: Option<i32>,
    /// Whatever was set meanwhile goes back too, even what somebody's function set for good.
    undo: bool,
    /// Whether the transaction was read-only before, if this guard has made it so.
    read_only: Option<bool>,
}

const PATH: &CStr = c"pg_catalog, pg_temp";

/// Milliseconds that this session waits for a lock; 0: as long as it takes.
pub fn lock_timeout() -> i32 {
    // SAFETY: reads the session's setting.
    unsafe { pg_sys::LockTimeout }
}

impl Nest {
    /// Names resolve as compiled: `pg_catalog` alone, temporary objects last.
    pub fn pinned_path() -> Self {
        let mut nest = Self::open().plain_sql();
        nest.path();
        nest
    }

    fn path(&mut self) {
        // SAFETY: reads the session's search path, a NUL-terminated string that lives until it is set anew.
        let current = unsafe { pg_sys::namespace_search_path };
        // SAFETY: as above; checked for null first.
        if current.is_null() || unsafe { CStr::from_ptr(current) } != PATH {
            self.set(c"search_path", PATH);
        }
    }

    /// Around code that is not ours: it finds the pinned path, and every setting that it changes, for itself or for the
    /// session, goes back when this is dropped. A trigger of a target must not leave anything behind in the writer's
    /// session or in a worker.
    pub fn fence() -> Self {
        // SAFETY: opens a nesting level like a function's SET clause does; closed by Drop or by transaction abort. Opened in any case: that
        // there is nothing to set now does not say that nothing will be.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        let mut nest = Self { level: Some(level), undo: true, read_only: None }.plain_sql();
        nest.path();
        nest
    }

    /// SQL text means what it meant when it was checked: settings that change how it is read or written are as by default.
    fn plain_sql(mut self) -> Self {
        // SAFETY: reads three settings of the session.
        let (strings, quotes, nulls) =
            unsafe { (pg_sys::standard_conforming_strings, pg_sys::quote_all_identifiers, pg_sys::Transform_null_equals) };
        if !strings {
            self.set(c"standard_conforming_strings", c"on");
        }
        if quotes {
            self.set(c"quote_all_identifiers", c"off");
        }
        if nulls {
            self.set(c"transform_null_equals", c"off");
        }
        self
    }

    /// Nothing yet: for settings that follow.
    pub fn open() -> Self {
        Self { level: None, undo: false, read_only: None }
    }

    /// Also fixes how dates and intervals are written as text, so that a reader elsewhere reads the same.
    pub fn pinned_formats(mut self) -> Self {
        // SAFETY: reads four settings of the session.
        let (style, order, intervals, digits) =
            unsafe { (pg_sys::DateStyle, pg_sys::DateOrder, pg_sys::IntervalStyle, pg_sys::extra_float_digits) };
        if (style, order) != (pg_sys::USE_ISO_DATES as i32, pg_sys::DATEORDER_MDY as i32) {
            self.set(c"DateStyle", c"ISO, MDY");
        }
        if intervals != pg_sys::INTSTYLE_POSTGRES as i32 {
            self.set(c"IntervalStyle", c"postgres");
        }
        if digits != 1 {
            self.set(c"extra_float_digits", c"1");
        }
        self
    }

    /// Days begin and times are written as in UTC, so that what is looked at in one session is what another looks at.
    pub fn utc(mut self) -> Self {
        // SAFETY: reads the session's time zone, and its name, which lives as long as the process; checked for null first.
        let there = unsafe {
            let name = if pg_sys::session_timezone.is_null() {
                std::ptr::null()
            } else {
                pg_sys::pg_get_timezone_name(pg_sys::session_timezone)
            };
            // Two names of one zone.
            !name.is_null() && [c"UTC", c"Etc/UTC"].contains(&CStr::from_ptr(name))
        };
        if !there {
            self.set(c"TimeZone", c"UTC");
        }
        self
    }

    /// What is neither a table nor PostgreSQL's own view is refused, where the server knows how to.
    pub fn tables_only(mut self) -> Self {
        const RESTRICT: &CStr = c"restrict_nonsystem_relation_kind";
        // SAFETY: missing_ok; only compared with null.
        if !unsafe { pg_sys::GetConfigOption(RESTRICT.as_ptr(), true, false) }.is_null() {
            self.set(RESTRICT, c"view, foreign-table");
        }
        self
    }

    /// Policies are applied, whatever the session has chosen.
    pub fn policies(mut self) -> Self {
        // SAFETY: reads the session's setting.
        if !unsafe { pg_sys::row_security } {
            self.set(c"row_security", c"on");
        }
        self
    }

    /// Nothing can be written: neither by what runs here, nor by what it leaves for COMMIT, which would run as whoever commits. It cannot be
    /// switched off from within, as in a transaction that began so: PostgreSQL takes no transaction back to read-write after its first query.
    pub fn read_only(mut self) -> Self {
        // SAFETY: PostgreSQL's own flag of this transaction; the end of a subtransaction puts back what it found at its beginning.
        self.read_only = Some(unsafe { std::ptr::replace(&raw mut pg_sys::XactReadOnly, true) });
        self
    }

    /// A table is read by its index, whatever its statistics say.
    pub fn index_scans(mut self) -> Self {
        self.set(c"enable_seqscan", c"off");
        self.set(c"enable_bitmapscan", c"off");
        // What is switched off is reckoned with a price beyond all measure, which would have the rest compiled.
        // SAFETY: reads the session's setting.
        if unsafe { pg_sys::jit_enabled } {
            self.set(c"jit", c"off");
        }
        self
    }

    /// A table is read by its index or as a whole, row by row.
    pub fn no_bitmaps(mut self) -> Self {
        self.set(c"enable_bitmapscan", c"off");
        self
    }

    /// The same as [`Nest::index_scans`], and what is joined to it is looked up row by row: for few rows out of a table that may have millions.
    pub fn one_by_one(mut self) -> Self {
        self = self.index_scans();
        self.set(c"enable_hashjoin", c"off");
        self.set(c"enable_mergejoin", c"off");
        self.set(c"plan_cache_mode", c"force_generic_plan");
        self
    }

    /// A plan is made for the values that are given: long arrays are seen as long.
    pub fn custom_plan(mut self) -> Self {
        self.set(c"plan_cache_mode", c"force_custom_plan");
        self
    }

    /// The same as [`Nest::index_scans`], in the order of that index, and the plan is made once for all values: for what is run over and over with
    /// others.
    pub fn one_plan(mut self) -> Self {
        self = self.index_scans();
        self.set(c"enable_sort", c"off");
        self.set(c"plan_cache_mode", c"force_generic_plan");
        self
    }

    /// A statement that reads tables of others: what is not PostgreSQL's own view is refused, where the server knows how to (since
    /// the minor releases of August 2024), and policies are an error instead of being evaluated.
    pub fn data_only(self) -> Self {
        let mut nest = self.tables_only();
        nest.set(c"row_security", c"off");
        nest
    }

    /// Policies are an error instead of hiding rows: for whoever counts on seeing all of them.
    pub fn no_policies(mut self) -> Self {
        self.set(c"row_security", c"off");
        self
    }

    /// Ordinary triggers do not fire, those that are marked ALWAYS do; and policies are an error instead of hiding rows. For our own
    /// statement that changes how values are kept, and nothing that anybody should hear of.
    pub fn unnoticed(mut self) -> Self {
        self.set_as(c"session_replication_role", c"replica", pg_sys::GucContext::PGC_SUSET);
        self.set(c"row_security", c"off");
        self
    }

    /// What is written is noted by the triggers that can put it back.
    pub fn noted(mut self) -> Self {
        self.set_as(c"usher.repairing", c"on", pg_sys::GucContext::PGC_SUSET);
        self
    }

    /// Notices about what does not exist yet help nobody while scripts run.
    pub fn quiet(mut self) -> Self {
        self.set(c"client_min_messages", c"warning");
        self
    }

    pub fn lock_timeout(mut self, milliseconds: i64) -> Self {
        // SAFETY: reads the session's setting.
        if i64::from(unsafe { pg_sys::LockTimeout }) == milliseconds {
            return self;
        }
        let text = std::ffi::CString::new(milliseconds.to_string()).unwrap_or_default();
        self.set(c"lock_timeout", &text);
        self
    }

    /// As much memory for joins and sorts as upkeep may take: for statements over whole tables.
    pub fn roomy(mut self) -> Self {
        // SAFETY: reads two settings of the session.
        let (maintenance, work) = unsafe { (pg_sys::maintenance_work_mem, pg_sys::work_mem) };
        if maintenance > work {
            let text = std::ffi::CString::new(format!("{maintenance}kB")).unwrap_or_default();
            self.set(c"work_mem", &text);
        }
        self
    }

    fn set(&mut self, name: &CStr, value: &CStr) {
        self.set_as(name, value, pg_sys::GucContext::PGC_USERSET);
    }

    fn set_as(&mut self, name: &CStr, value: &CStr, context: pg_sys::GucContext::Type) {
        // SAFETY: opens a nesting level like a function's SET clause does; closed by Drop or by transaction abort.
        self.level.get_or_insert_with(|| unsafe { pg_sys::NewGUCNestLevel() });
        // SAFETY: both strings are NUL-terminated and live through the call; GUC_ACTION_SAVE stacks the old value.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                context,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        if let Some(before) = self.read_only {
            // SAFETY: as where it was set; guards end in the reverse order of their beginnings.
            unsafe { pg_sys::XactReadOnly = before }
        }
        // An error on its way out ends in a (sub)transaction abort, which closes every level itself.
        if let (Some(level), false) = (self.level, std::thread::panicking()) {
            // SAFETY: the level was opened by this guard in this transaction and is the innermost still open.
            unsafe { pg_sys::AtEOXact_GUC(!self.undo, level) }
        }
    }
}

/// This transaction's commit does not wait for the disk: for what can be found again if it is lost.
pub fn lazy_commit() {
    // SAFETY: constant, NUL-terminated strings; GUC_ACTION_LOCAL puts the old value back at the end of the transaction.
    unsafe {
        pg_sys::set_config_option(
            c"synchronous_commit".as_ptr(),
            c"off".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// Names resolve in `pg_catalog` alone until this is dropped, whatever the session's setting says. Far cheaper than a
/// setting, and only for our own statements: while it holds, `SET search_path` of a called function would have no effect.
pub struct CatalogOnly {
    _nest: Nest,
}

impl CatalogOnly {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    pub fn enter() -> Self {
        let mut path = pg_sys::OverrideSearchPath { schemas: std::ptr::null_mut(), addCatalog: true, ..Default::default() };
        // SAFETY: the path is copied; popped by Drop, or by the end of the (sub)transaction on error.
        unsafe { pg_sys::PushOverrideSearchPath(&mut path) }
        Self { _nest: Nest::open().plain_sql() }
    }

    /// These majors have no such override: the setting has to do.
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    pub fn enter() -> Self {
        Self { _nest: Nest::pinned_path() }
    }
}

#[cfg(any(feature = "pg15", feature = "pg16"))]
impl Drop for CatalogOnly {
    fn drop(&mut self) {
        // On error the (sub)transaction's abort takes the override away.
        if !std::thread::panicking() {
            // SAFETY: pushed by `enter` in this subtransaction; guards are dropped in the order of their nesting.
            unsafe { pg_sys::PopOverrideSearchPath() }
        }
    }
}

/// Sets the whole session as our own statements want it: for worker processes, which run nothing else. What somebody has
/// set for the database or for all roles with sessions of people in mind does not end a worker or change what it sees.
pub fn prepare_session() {
    let settings = [
        (c"search_path", PATH),
        // The planner fears the worst of a long log, and each batch would be compiled for longer than it runs.
        (c"jit", c"off"),
        (c"lock_timeout", c"2000"),
        (c"statement_timeout", c"0"),
        (c"idle_session_timeout", c"0"),
        (c"idle_in_transaction_session_timeout", c"0"),
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        (c"transaction_timeout", c"0"),
        (c"row_security", c"on"),
        (c"application_name", c"pg_usher"),
    ];
    for (name, value) in settings {
        // SAFETY: both strings are constants; set outside a transaction for the process's life.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// A setting of another component, such as `request.jwt.claims`; empty counts as absent.
pub fn custom(name: &CStr) -> Option<String> {
    // SAFETY: missing_ok; the returned string is copied before anything else runs.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() {
            return None;
        }
        CStr::from_ptr(value).to_str().ok().filter(|text| !text.is_empty()).map(str::to_owned)
    }
}

/// True for a boolean setting's text that means off, as the server reads it.
pub fn is_off(text: &str) -> bool {
    let text = text.trim().trim_matches('\'').to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    begins("off", 2) || begins("false", 1) || begins("no", 1) || text == "0"
}
