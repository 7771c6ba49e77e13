//! `usher.setup()`: the data tables, and knowing whether they are there.
//!
//! Owns `usher.installation` and the SQL in `sql/setup/`. Everybody above may ask [`installed`]; nobody else creates tables.

mod api;
mod locks;

use crate::error::{Result, UsherError};
use crate::pg;
use crate::pg::spi;
use pgrx::pg_sys::Oid;
use std::borrow::Cow;
use std::cell::RefCell;

/// The tables, step by step: a new installation takes all steps, an older one those that it lacks, so that both end
/// alike. A step that was in a tagged version is never edited; what comes later is a further step.
const STEPS: &[(i32, &[&str])] = &[
    (1, &[include_str!("../../sql/setup/tables.sql")]),
    (
        2,
        &[
            include_str!("../../sql/setup/copies.sql"),
            include_str!("../../sql/setup/jobs.sql"),
            include_str!("../../sql/setup/drift.sql"),
            include_str!("../../sql/setup/links.sql"),
            include_str!("../../sql/setup/revenue.sql"),
            include_str!("../../sql/setup/audit.sql"),
            include_str!("../../sql/setup/shadow.sql"),
            include_str!("../../sql/setup/notices.sql"),
            include_str!("../../sql/setup/notifications.sql"),
            include_str!("../../sql/setup/expose.sql"),
            include_str!("../../sql/setup/external.sql"),
            include_str!("../../sql/setup/worker.sql"),
            include_str!("../../sql/setup/schedules.sql"),
            include_str!("../../sql/setup/life.sql"),
            include_str!("../../sql/setup/limits.sql"),
            include_str!("../../sql/setup/pauses.sql"),
            include_str!("../../sql/setup/gathering.sql"),
            include_str!("../../sql/setup/pressure.sql"),
            include_str!("../../sql/setup/waiting.sql"),
            include_str!("../../sql/setup/adoption.sql"),
            include_str!("../../sql/setup/secrets.sql"),
            include_str!("../../sql/setup/rates.sql"),
            include_str!("../../sql/setup/privacy.sql"),
            include_str!("../../sql/setup/protect.sql"),
            include_str!("../../sql/setup/switches.sql"),
            include_str!("../../sql/setup/events.sql"),
            include_str!("../../sql/setup/workflows.sql"),
            include_str!("../../sql/setup/conflicts.sql"),
            include_str!("../../sql/setup/rules.sql"),
            include_str!("../../sql/setup/gates.sql"),
            include_str!("../../sql/setup/repairs.sql"),
            include_str!("../../sql/setup/migration.sql"),
            include_str!("../../sql/setup/packs.sql"),
            include_str!("../../sql/setup/registry.sql"),
        ],
    ),
];
/// The level of tables that this version knows.
pub const SCHEMA_LEVEL: i32 = STEPS[STEPS.len() - 1].0;

const ACCESS: &str = include_str!("../../sql/setup/access.sql");

/// What every room needs to know of a set-up installation.
#[derive(Clone, Copy)]
pub struct Installed {
    /// Owner of the tables. The extension's own statements run with this role's rights, whoever calls.
    pub owner: Oid,
    pub flows: Oid,
    pub default_organization: pgrx::Uuid,
    /// False in a copy: the tables were set up in another database or server and brought here. Its jobs wait until
    /// somebody says with resume() what this database is, which a running restore surely does not.
    pub home: bool,
    /// The tables are those of this version. Between installing a newer library and setup() they are not: what the older
    /// version did goes on meanwhile.
    pub up_to_date: bool,
}

thread_local! {
    static INSTALLED: RefCell<Option<(u64, Installed)>> = const { RefCell::new(None) };
}

/// The installation, or the remedy when there is none.
pub fn installed() -> Result<Installed> {
    let generation = pg::relcache::generation();
    if let Some((known, installed)) = INSTALLED.with_borrow(|cached| *cached)
        && known == generation
    {
        return Ok(installed);
    }
    let flows = pg::catalog::usher_relation("flows").ok_or_else(UsherError::not_set_up)?;
    // In the middle of a restore there are some of the tables.
    if ["organizations", "installation"].into_iter().any(|name| pg::catalog::usher_relation(name).is_none()) {
        return Err(UsherError::not_set_up());
    }
    // Whose rights are used from here on must not depend on operators that a caller has put in front of PostgreSQL's.
    let _path = pg::guc::Nest::pinned_path();
    let owner = spi::read::<Oid>("SELECT relowner FROM pg_catalog.pg_class WHERE oid = $1", &[spi::arg(flows)])?
        .ok_or_else(UsherError::not_set_up)?;
    let acting = pg::role::internal(owner);
    let default_organization = spi::read::<pgrx::Uuid>("SELECT id FROM usher.organizations WHERE slug = 'default'", &[])?
        .ok_or_else(UsherError::not_set_up)?;
    // As JSON: tables of an older version lack the column.
    let marks = spi::read_all(
        "SELECT i.database = $1 AND COALESCE((pg_catalog.to_jsonb(i) ->> 'system_identifier')::bigint = $2, true), i.schema_level
           FROM usher.installation AS i",
        &[spi::arg(Oid::from(pg::ids::database())), spi::arg(pg::ids::system())],
        |row| Ok((row.get::<bool>(1)?.unwrap_or(false), row.get::<i32>(2)?.unwrap_or(0))),
    )?;
    let (home, level) = marks.into_iter().next().ok_or_else(UsherError::not_set_up)?;
    drop(acting);
    let installed = Installed { owner, flows, default_organization, home, up_to_date: level == SCHEMA_LEVEL };
    INSTALLED.set(Some((generation, installed)));
    Ok(installed)
}

/// SQL about the log of jobs for the tables that are there: while they are those of version 0.1, ready jobs have another
/// table. Writers go on meanwhile; setup() brings the jobs along.
pub fn for_tables(sql: &str) -> Result<Cow<'_, str>> {
    Ok(if pg::catalog::usher_relation("jobs").is_some() {
        Cow::Borrowed(sql)
    } else {
        // Nor does the extension of that version have the function that counts.
        let sql = sql.replace(" RETURNING usher.take_off(q.lane, q.flow_id, q.organization_id)", "");
        Cow::Owned(sql.replace("usher.jobs ", "usher.queue ").replace("usher.ready_jobs ", "usher.queue "))
    })
}

/// The installation, for a writer that is about to make jobs. While the tables are those of version 0.1, setup() may be about to
/// replace the one that it would write to: the writer waits for that as its statement would, and then takes the statement
/// for the tables that are there.
pub fn for_writing() -> Result<Installed> {
    let generation = pg::relcache::generation();
    let known = INSTALLED.with_borrow(|cached| cached.filter(|(known, _)| *known == generation));
    if let Some((_, installed)) = known.filter(|(_, installed)| installed.up_to_date) {
        return Ok(installed);
    }
    // Before any table of ours is read: setup() takes this lock first, too.
    if pg::catalog::usher_relation("jobs").is_none()
        && let Some(queue) = pg::catalog::usher_relation("queue")
    {
        pg::locks::table_for_writing(queue);
    }
    installed()
}

/// The installation, for what needs the tables of this very version.
pub fn current() -> Result<Installed> {
    let installed = installed()?;
    if !installed.up_to_date {
        return Err(UsherError::state("the tables of pg_usher are of another version than its library")
            .hint("Run SELECT usher.setup(); as their owner."));
    }
    Ok(installed)
}

/// Writes down that the tables are at home here. Runs with the owner's rights.
pub fn make_home(resumed_as: &str) -> Result<()> {
    spi::run(
        "UPDATE usher.installation SET database = $1, system_identifier = $2, resumed_at = pg_catalog.now(), resumed_as = $3",
        &[spi::arg(Oid::from(pg::ids::database())), spi::arg(pg::ids::system()), spi::arg(resumed_as)],
    )?;
    // Every session hears of it when this commits.
    pg::catalog::invalidate(installed()?.flows);
    pg::relcache::forget();
    pg::xact::note_launcher();
    Ok(())
}

/// Creates or migrates the tables; returns what was done.
fn migrate() -> Result<String> {
    let _quiet = pg::guc::Nest::pinned_path().quiet();
    let _ours = pg::event::ours();
    pg::locks::take_setup();
    // Tables that are there are changed by their owner's rights, not by the caller's greater ones.
    let _acting = installed().ok().map(|installed| pg::role::internal(installed.owner));
    let fresh = pg::catalog::usher_relation("installation").is_none();
    let before = if fresh { 0 } else { spi::one::<i32>("SELECT schema_level FROM usher.installation", &[])?.unwrap_or(0) };
    if before > SCHEMA_LEVEL {
        return Err(UsherError::state("the tables belong to a newer version of pg_usher")
            .detail(format!("The tables are at level {before}, this version knows level {SCHEMA_LEVEL}."))
            .hint("Install the newer version of the extension: ALTER EXTENSION pg_usher UPDATE."));
    }
    if before > 0 && before < SCHEMA_LEVEL && !pg::xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see what others have written meanwhile")
            .hint("Call usher.setup() in READ COMMITTED."));
    }
    locks::all(before < SCHEMA_LEVEL)?;
    for (_, scripts) in STEPS.iter().filter(|(level, _)| *level > before) {
        scripts.iter().try_for_each(|script| spi::script(script))?;
    }
    // The mark of a copy stays: setup() makes the tables fit, usher.resume() says that its jobs may run here. What has no
    // system yet is of version 0.1, which knew only the database.
    spi::run(
        "INSERT INTO usher.installation AS i (schema_level, database, system_identifier) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT installation_pkey DO UPDATE
            SET schema_level = EXCLUDED.schema_level,
                system_identifier = CASE WHEN i.database = EXCLUDED.database THEN COALESCE(i.system_identifier, EXCLUDED.system_identifier)
                                         ELSE COALESCE(i.system_identifier, 0) END",
        &[spi::arg(SCHEMA_LEVEL), spi::arg(Oid::from(pg::ids::database())), spi::arg(pg::ids::system())],
    )?;
    spi::run(
        "INSERT INTO usher.organizations (id, slug, name) VALUES ($1, 'default', 'Default organization')
         ON CONFLICT ON CONSTRAINT organizations_slug_key DO NOTHING",
        &[spi::arg(pg::ids::uuid_v7())],
    )?;
    // From here on the tables are those of this version.
    pg::relcache::forget();
    locks::make_triggers()?;
    spi::script(ACCESS)?;
    pg::relcache::forget();
    pg::xact::note_launcher();
    let done = if before == 0 { "set up" } else { "up to date" };
    let held = if installed()?.home {
        ""
    } else {
        "; its jobs are held: these tables come from another database or server, usher.resume() says what to do"
    };
    Ok(format!("pg_usher {} is {done}{held}", env!("CARGO_PKG_VERSION")))
}
