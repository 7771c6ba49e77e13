//! pg_usher: an integration hub inside PostgreSQL.
//!
//! The rooms, from the top: [`worker`] runs batches; [`pack`] and [`insight`] stand beside it, [`notify`] tells people;
//! [`expose`] shows the hub under other names; [`revenue`] takes in ticket sales; [`workflow`] runs flows of
//! several steps; [`capture`] notices changes; [`consistency`] finds rows for which a rule does not hold; [`migration`] brings two tables that exist already together, [`compare`] finds what differs between two; [`event`] is the bus, [`conflict`] finds what overlaps; [`queue`] keeps jobs; [`flow`] decides what to do; [`protect`] seals and masks personal columns; [`guard`] enters who did what; [`registry`] knows who takes part; [`setup`]
//! makes the tables; [`pg`] holds everything that touches PostgreSQL's internals. Calls point down.

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

mod capture;
mod compare;
mod conflict;
mod consistency;
mod error;
mod event;
mod expose;
mod flow;
mod guard;
mod insight;
mod migration;
mod notify;
mod pack;
#[allow(unsafe_code, reason = "the one room that touches PostgreSQL's internals; every block says why it is sound")]
mod pg;
mod privacy;
mod protect;
mod queue;
mod rates;
mod registry;
mod revenue;
mod secrets;
mod settings;
mod setup;
mod worker;
mod workflow;

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod architecture_sql;
#[cfg(test)]
#[path = "../tests/fuzz/harness.rs"]
mod fuzz;
#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/flows.rs"]
mod pg_tests_flows;
#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/pg.rs"]
mod pg_tests_pg;
#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/privacy.rs"]
mod pg_tests_privacy;
#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/queue.rs"]
mod pg_tests_queue;

extension_sql_file!("../sql/00_extension.sql", name = "extension", bootstrap);
extension_sql_file!("../sql/queue.sql", name = "queue", requires = ["extension"]);
extension_sql_file!("../sql/life.sql", name = "life", requires = ["extension"]);
extension_sql_file!("../sql/drift.sql", name = "drift", requires = ["extension"]);
extension_sql_file!("../sql/compare.sql", name = "compare", requires = ["extension"]);
extension_sql_file!("../sql/expose.sql", name = "expose", requires = ["queue"]);
extension_sql_file!("../sql/notices.sql", name = "notices", requires = ["extension"]);
extension_sql_file!("../sql/schedules.sql", name = "schedules", requires = ["extension"]);
extension_sql_file!("../sql/remove.sql", name = "remove", requires = ["expose"]);
extension_sql_file!("../sql/99_grants.sql", name = "grants", finalize);

/// Loaded into a session by its first call, or into the postmaster by `shared_preload_libraries`; only the latter brings
/// workers and wake-ups.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::guc::no_backtraces();
    settings::register();
    if pg::shmem::preloading() && !pg::bgw::in_binary_upgrade() {
        pg::shmem::note_preloaded();
        pg::shmem::init();
        pg::utility::install();
        worker::register();
    }
}

/// What `cargo pgrx test` asks for.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        // Tests roll back; no worker may wait for their databases.
        vec!["shared_preload_libraries = 'pg_usher'", "usher.databases = ''"]
    }
}
