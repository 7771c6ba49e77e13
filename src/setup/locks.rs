//! The locks of `usher.setup()`: the strongest ones first, in one order, and all of them or none.
//!
//! GRANT writes a table's row in the catalog, and ANALYZE, with the table in hand, waits for whoever has done so: a stronger lock on that
//! table comes too late then, and one of the two dies of a deadlock. In the same way two who read and write each other's tables meet. So what will be
//! locked is worked out and taken before anything is changed; while it is not to be had, nobody waits behind us for long. Policies that somebody
//! has bent are put right next, before anything is granted.

use crate::error::Result;
use crate::pg::guc::{self, Nest};
use crate::pg::{catalog, locks, spi, subxact};
use pgrx::pg_sys::Oid;
use pgrx::{PgSqlErrorCode, notice};

const TRIGGERS: &str = include_str!("../../sql/setup/triggers.sql");

/// A trigger that is to be made (again).
pub struct Trigger {
    table: Oid,
    name: String,
    always: bool,
    definition: String,
}

/// The triggers of our own tables, as far as those are there, that are not as they should be.
pub fn lacking() -> Result<Vec<Trigger>> {
    spi::all(TRIGGERS, &[], |row| {
        Ok(Trigger {
            table: row.get::<Oid>(1)?.unwrap_or(Oid::INVALID),
            name: row.get::<String>(2)?.unwrap_or_default(),
            always: row.get::<String>(3)?.as_deref() == Some("A"),
            definition: row.get::<String>(4)?.unwrap_or_default(),
        })
    })
}

/// Makes those that lack.
pub fn make_triggers() -> Result<()> {
    for trigger in lacking()? {
        spi::script(&trigger.definition.replacen("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1))?;
        if trigger.always {
            let name = trigger.definition.split(' ').nth(2).unwrap_or_default();
            let table = pgrx::spi::quote_identifier(&trigger.name);
            spi::script(&format!("ALTER TABLE usher.{table} ENABLE ALWAYS TRIGGER {name}"))?;
        }
    }
    Ok(())
}

/// Milliseconds that others may have to wait behind us, each time, and milliseconds between; after how many times we say that we wait.
const PATIENCE: i64 = 200;
const BETWEEN: i64 = 50;
const TRIES: usize = 40;

/// `(relation, against everybody)`.
type Wanted = Vec<(Oid, bool)>;

fn take(wanted: &Wanted) {
    for (relation, alone) in wanted {
        if *alone {
            locks::keep_everybody_out(*relation);
        } else {
            locks::keep_writers_out(*relation);
        }
    }
}

/// What will be locked. `levels`: tables of an older version are changed as well, and the log of jobs comes first, as for its writers.
fn wanted(levels: bool) -> Result<Wanted> {
    let lacking: Vec<Oid> = lacking()?.into_iter().map(|trigger| trigger.table).collect();
    let queue = catalog::usher_relation("queue");
    spi::all(
        "SELECT c.oid, c.relkind = 'v' OR $2
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname = 'usher' AND (c.relkind = 'v' OR c.relkind IN ('r', 'p') AND ($2 OR c.oid = ANY ($1)))
          ORDER BY c.oid = $3 AND c.relkind <> 'v' DESC, c.relkind = 'v', c.oid",
        &[spi::arg(lacking), spi::arg(levels), spi::arg(queue.unwrap_or(Oid::INVALID))],
        |row| Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), row.get::<bool>(2)? == Some(true))),
    )
}

/// Takes what setup() needs until the end of the transaction.
pub fn all(levels: bool) -> Result<()> {
    let wanted = wanted(levels)?;
    // Who has said how long to wait waits so long and no longer. Writers who meet a new version wait for its tables, behind the first of these locks.
    if levels || guc::lock_timeout() > 0 {
        take(&wanted);
        return Ok(());
    }
    let mut tries = 0;
    loop {
        let taken = subxact::attempt(|| {
            let _nest = Nest::open().lock_timeout(PATIENCE);
            take(&wanted);
            Ok(())
        });
        match taken {
            Ok(()) => return Ok(()),
            Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
                tries += 1;
                if tries == TRIES {
                    notice!(
                        "somebody has been using usher's views or tables in an open transaction for a while; usher.setup() goes on when that ends (see pg_stat_activity)"
                    );
                }
                spi::one::<bool>(&format!("SELECT pg_catalog.pg_sleep({BETWEEN} / 1000.0) IS NULL"), &[])?;
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}
