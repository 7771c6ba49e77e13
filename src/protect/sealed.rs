//! Sealing a column of a table, and taking the seal away.
//!
//! Two things stand on the table. The trigger seals; it is named so that it fires after all others, and fires ALWAYS: also for rows
//! that arrive by logical replication or in a session with `session_replication_role = replica`. The constraint refuses clear text
//! where no trigger has been: in a table that is attached as a partition, under a trigger that fires still later, when somebody has
//! dropped ours. It is made of PostgreSQL's own functions, so that it outlives the extension. And it says which column is meant,
//! whatever its name becomes.

use super::check::Target;
use super::text::PREFIX;
use super::trigger::{self, Work};
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::trigger::locked;
use crate::pg::{role, spi, subxact};
use crate::registry::adopt::binding::foreign_code;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use uuid::Uuid;

/// The constraint of a declaration.
pub fn constraint(protection: Uuid) -> String {
    format!("usher_sealed_{protection}")
}

/// The trigger of a declaration. Triggers fire in the order of their names.
pub fn trigger(protection: Uuid) -> String {
    format!("zzzz_usher_seal_{protection}")
}

/// What the constraint says when it refuses. It is raised as a failing cast: the message of a failing CHECK would show the row.
const REFUSAL: &str =
    "this column is sealed, but the value is not: the trigger that seals is gone or not the last one, see usher.attach_all()";

fn check(column: &str) -> String {
    let column = quote_identifier(column);
    format!(
        "CHECK (CASE WHEN {column} IS NULL OR pg_catalog.starts_with({column}, {}) THEN true ELSE ({} OPERATOR(pg_catalog.||) pg_catalog.\"left\"({column}, 0))::pg_catalog.bool END)",
        quote_literal(PREFIX),
        quote_literal(REFUSAL)
    )
}

fn explain(error: UsherError, table: &str) -> UsherError {
    if error.code != PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE || error.hint.is_some() {
        return error;
    }
    let me = role::name_of(role::current()).unwrap_or_default();
    error.hint(format!("It takes the rights of the owner of {table} and those of an operator, and {me} lacks some."))
}

/// Refuses a table on which code of others would run although triggers are off: what is off then is off for that code too.
fn unheard(relation: &str) -> Result<()> {
    let name = relation.strip_prefix("ONLY ").unwrap_or(relation);
    let oid = spi::read::<Oid>("SELECT pg_catalog.to_regclass($1)::oid", &[spi::arg(name)])?.unwrap_or(Oid::INVALID);
    let trigger = spi::read::<String>(
        "SELECT 'trigger ' || t.tgname FROM pg_catalog.pg_trigger AS t
          WHERE t.tgrelid IN (SELECT $1 UNION SELECT r.relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) AS r)
            AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') AND t.tgfoid <> 'usher.seal_row()'::pg_catalog.regprocedure LIMIT 1",
        &[spi::arg(oid)],
    )?;
    match trigger.map_or_else(|| foreign_code(oid), |trigger| Ok(Some(trigger)))? {
        None => Ok(()),
        Some(what) => Err(UsherError::state(format!("{what} of {relation} would run while other triggers are switched off"))
            .hint(
                "Values are sealed anew in silence. Drop it or make it an ordinary trigger first, and put it back afterwards.",
            )),
    }
}

/// Rewrites values of a column in one statement, of which no trigger, flow or audit hears. It runs with the rights of the table's
/// owner: what the owner has put on the table is the owner's own.
fn rewrite(owner: Oid, relation: &str, column: &str, protection: Uuid, work: Work, condition: &str) -> Result<usize> {
    subxact::attempt(|| {
        unheard(relation)?;
        let _acting = role::act_as(owner);
        let _nest = Nest::fence().unnoticed();
        let _working = trigger::working(work, protection, column);
        let name = quote_identifier(column);
        spi::run(&format!("UPDATE {relation} AS t SET {name} = t.{name} WHERE {condition}"), &[])
    })
    .map_err(|failure| {
        let hidden = failure.message.starts_with("query would be affected by row-level security");
        let error = UsherError::from(failure);
        let error = if error.detail.is_none() { error.detail(format!("In column {column} of {relation}.")) } else { error };
        if hidden {
            error.hint(format!("ALTER TABLE {relation} NO FORCE ROW LEVEL SECURITY; first, and FORCE afterwards."))
        } else {
            error
        }
    })
}

/// Seals a column and what is in it; returns how many values were sealed. Not `fresh`: makes what is missing. Runs with the rights
/// of a member of the table's owner who may use the trigger's function.
pub fn attach(target: &Target, column: &str, protection: Uuid, fresh: bool, patience: i64) -> Result<usize> {
    let _nest = Nest::pinned_path().quiet().lock_timeout(patience);
    let table = &target.table.sql;
    let run = |sql: &str| locked(table, sql).map_err(|error| explain(error, table));
    run(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))?;
    let constraint = quote_identifier(constraint(protection));
    let trigger = quote_identifier(self::trigger(protection));
    run(&format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}"))?;
    run(&format!("ALTER TABLE {table} ADD CONSTRAINT {constraint} {} NOT VALID", check(column)))?;
    run(&format!(
        "CREATE OR REPLACE TRIGGER {trigger} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION usher.seal_row({})",
        quote_literal(protection.to_string())
    ))?;
    run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"))?;
    let name = quote_identifier(column);
    // What is sealed under a constraint that was there has been looked at.
    let condition = if fresh {
        format!("t.{name} IS NOT NULL")
    } else {
        format!("NOT pg_catalog.starts_with(t.{name}, {})", quote_literal(PREFIX))
    };
    let sealed = rewrite(target.owner, table, column, protection, Work::Declare, &condition)?;
    run(&format!("ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}"))?;
    if sealed > 0 {
        // The planner's statistics hold values.
        let _acting = role::act_as(target.owner);
        run(&format!("ANALYZE {table} ({})", quote_identifier(column)))?;
    }
    Ok(sealed)
}

/// Puts clear text back into a column and drops what stands on the table; returns how many values are clear now, and how many stay
/// sealed because another declaration has sealed them. Runs with the rights of a member of the table's owner.
pub fn detach(target: &Target, column: &str, protection: Uuid, patience: i64) -> Result<(usize, i64)> {
    let _nest = Nest::pinned_path().quiet().lock_timeout(patience);
    let table = &target.table.sql;
    let run = |sql: &str| locked(table, sql).map_err(|error| explain(error, table));
    run(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))?;
    // Made again: without it nothing would be unsealed.
    let trigger = quote_identifier(self::trigger(protection));
    run(&format!(
        "CREATE OR REPLACE TRIGGER {trigger} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION usher.seal_row({})",
        quote_literal(protection.to_string())
    ))?;
    run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"))?;
    run(&format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {}", quote_identifier(constraint(protection))))?;
    let name = quote_identifier(column);
    let own = quote_literal(format!("{PREFIX}{protection}:"));
    let clear =
        rewrite(target.owner, table, column, protection, Work::Unseal, &format!("pg_catalog.starts_with(t.{name}, {own})"))?;
    run(&format!("DROP TRIGGER {trigger} ON {table}"))?;
    let _acting = role::act_as(target.owner);
    let _nest = Nest::open().unnoticed();
    let left = spi::read::<i64>(
        &format!(
            "SELECT pg_catalog.count(*) FROM {table} AS t WHERE pg_catalog.starts_with(t.{name}, {})",
            quote_literal(PREFIX)
        ),
        &[],
    )?;
    Ok((clear, left.unwrap_or(0)))
}

/// The relations of a table in which rows are.
fn leaves(table: Oid) -> Result<Vec<String>> {
    spi::read_all(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM (SELECT $1 AS id UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) AS t) AS part
           JOIN pg_catalog.pg_class AS c ON c.oid = part.id JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE c.relkind = 'r' ORDER BY c.oid",
        &[spi::arg(table)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )
}

/// Seals up to `most` values of a column anew that are not under the key `newest`; returns how many, and how many are left. Rows that
/// somebody holds are left for the next call.
pub fn reseal(target: &Target, column: &str, protection: Uuid, newest: &str, most: i64) -> Result<(i64, i64)> {
    let name = quote_identifier(column);
    let stale = format!(
        "pg_catalog.starts_with(t.{name}, {}) AND pg_catalog.split_part(t.{name}, ':', 6) OPERATOR(pg_catalog.<>) {}",
        quote_literal(PREFIX),
        quote_literal(newest)
    );
    let (mut done, mut left) = (0, 0);
    for leaf in leaves(target.table.oid)? {
        if done < most {
            let rows = format!(
                "t.ctid = ANY (ARRAY(SELECT t.ctid FROM ONLY {leaf} AS t WHERE {stale} LIMIT {} FOR UPDATE SKIP LOCKED))",
                most - done
            );
            done += rewrite(target.owner, &format!("ONLY {leaf}"), column, protection, Work::Reseal, &rows)? as i64;
        }
        let _acting = role::act_as(target.owner);
        let _nest = Nest::pinned_path().unnoticed();
        left += spi::read::<i64>(&format!("SELECT pg_catalog.count(*) FROM ONLY {leaf} AS t WHERE {stale}"), &[])?.unwrap_or(0);
    }
    Ok((done, left))
}
