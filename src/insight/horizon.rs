//! `usher.horizon()`: who keeps the server from cleaning up what is deleted.

use super::require_look;
use crate::error::Result;
use crate::pg::{guc, role, spi};
use crate::setup;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// One that holds the horizon.
pub struct Pin {
    pub kind: String,
    pub pid: Option<i32>,
    pub name: Option<String>,
    pub transactions: i64,
    pub age: Option<Interval>,
    pub seconds: Option<f64>,
    query: Option<String>,
}

/// Who pins the horizon of this database, the oldest first. `kind`: `session`, `prepared transaction`, `standby feedback`,
/// `replication slot`, `replication slot, catalogs only`. `age_transactions`: how many have begun since; `age`: since when,
/// where that is known. `query` only for those who may see it in pg_stat_activity. For operators and readers.
///
/// Errors: 42501 for other callers.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn horizon() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(kind, String),
            name!(pid, Option<i32>),
            name!(name, Option<String>),
            name!(age_transactions, i64),
            name!(age, Option<Interval>),
            name!(query, Option<String>),
        ),
    >,
    ErrorReport,
> {
    require_look("see who pins the horizon")?;
    let rows = pins(role::current())?;
    Ok(TableIterator::new(rows.into_iter().map(|pin| (pin.kind, pin.pid, pin.name, pin.transactions, pin.age, pin.query))))
}

/// `reader`: the role for which a query is shown or not.
pub fn pins(reader: pgrx::pg_sys::Oid) -> Result<Vec<Pin>> {
    let installed = setup::installed()?;
    let _path = guc::Nest::pinned_path();
    // What sessions of others hold is shown to those who may read statistics, as the tables' owner usually may.
    let _acting = role::internal(installed.owner);
    spi::read_all(
        "SELECT x.kind, x.pid, x.name, x.transactions::bigint, x.age, EXTRACT(epoch FROM x.age)::float8, x.query
           FROM (SELECT CASE WHEN a.backend_type = 'walsender' THEN 'standby feedback' ELSE 'session' END AS kind, a.pid,
                        pg_catalog.concat_ws(', ', a.usename, NULLIF(a.application_name, ''), a.state) AS name,
                        GREATEST(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid)) AS transactions,
                        pg_catalog.clock_timestamp() - COALESCE(a.xact_start, a.backend_start) AS age,
                        CASE WHEN pg_catalog.pg_has_role($1, 'pg_read_all_stats', 'USAGE') OR pg_catalog.pg_has_role($1, a.usesysid, 'USAGE')
                             THEN NULLIF(a.query, '') END AS query
                   FROM pg_catalog.pg_stat_activity a
                  WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) AND a.pid <> pg_catalog.pg_backend_pid()
                    AND (a.datname = pg_catalog.current_database() OR a.backend_type = 'walsender') AND a.backend_type <> 'autovacuum worker'
                 UNION ALL
                 SELECT 'prepared transaction', NULL, p.gid, pg_catalog.age(p.transaction), pg_catalog.clock_timestamp() - p.prepared, NULL
                   FROM pg_catalog.pg_prepared_xacts p WHERE p.database = pg_catalog.current_database()
                 UNION ALL
                 SELECT CASE WHEN s.xmin IS NOT NULL THEN 'replication slot' ELSE 'replication slot, catalogs only' END, s.active_pid, s.slot_name,
                        GREATEST(pg_catalog.age(s.xmin), pg_catalog.age(s.catalog_xmin)), NULL, NULL
                   FROM pg_catalog.pg_replication_slots s
                  WHERE (s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL) AND COALESCE(s.database = pg_catalog.current_database(), true)) AS x
          ORDER BY x.transactions DESC, x.age DESC NULLS LAST, x.kind, x.name",
        &[spi::arg(reader)],
        |row| {
            Ok(Pin {
                kind: row.get::<String>(1)?.unwrap_or_default(),
                pid: row.get::<i32>(2)?,
                name: row.get::<String>(3)?,
                transactions: row.get::<i64>(4)?.unwrap_or(0),
                age: row.get::<Interval>(5)?,
                seconds: row.get::<f64>(6)?,
                query: row.get::<String>(7)?,
            })
        },
    )
}
