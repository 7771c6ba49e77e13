//! Making, changing and removing overlap rules.

use super::definition::Definition;
use super::fit::{self, Fitted};
use super::statement::Form;
use super::{attach, store};
use crate::error::{Result, UsherError};
use crate::flow::manage::check_name;
use crate::flow::store::refused;
use crate::pg::{catalog, role, spi, subxact, xact};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use serde_json::Value;

/// Milliseconds that somebody who makes a rule waits for its table.
const PATIENCE: i64 = 5_000;

fn check(installed: Installed, id: i32, name: &str, json: &Value) -> Result<Fitted> {
    let named = |mut error: UsherError| {
        error.message = format!("overlap rule \"{name}\": {}", error.message);
        error
    };
    let definition = Definition::parse(json).map_err(refused).map_err(named)?;
    let caller = role::current();
    let _acting = role::internal(installed.owner);
    let fitted = fit::fit(installed, definition, None).map_err(named)?;
    for table in [Some(&fitted.table), fitted.free.as_ref().map(|free| &free.table)].into_iter().flatten() {
        may_read(caller, table.oid, &table.name).map_err(named)?;
    }
    // As they will run: every name and type in them is looked at.
    let form = Form { id, name, fitted: &fitted, installed };
    subxact::rehearse(|| {
        spi::plans(&form.sweep(), &[])?;
        spi::plans(&form.look(), &[pg_sys::UUIDARRAYOID, pg_sys::UUIDARRAYOID])?;
        spi::plans(&form.resources(), &[pg_sys::UUIDARRAYOID, pg_sys::UUIDARRAYOID])?;
        spi::plans(&form.first(), &[pg_sys::UUIDARRAYOID, pg_sys::UUIDARRAYOID])
    })
    .map_err(|failure| named(failure.into()))?;
    if let Some(index) = fit::missing_index(&fitted)? {
        warning!("{} has no index that would find the rows that overlap with one: {index} helps every writer", fitted.table.name);
    }
    Ok(fitted)
}

/// A conflict shows what the table holds: only who may read the one may make the other.
fn may_read(caller: Oid, table: Oid, name: &str) -> Result<()> {
    let allowed =
        spi::read::<bool>("SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')", &[spi::arg(caller), spi::arg(table)])?;
    if allowed == Some(true) {
        return Ok(());
    }
    Err(UsherError::forbidden(format!("you may not read {name}, so you may not have its overlaps shown"))
        .hint(format!("GRANT SELECT ON {name} TO your role, or let a role do it that may read the table.")))
}

pub fn create(installed: Installed, name: &str, json: Value) -> Result<String> {
    check_name(name).map_err(|mut error| {
        error.message = error.message.replace("flow name", "name of an overlap rule");
        error.hint("Use lower-case letters, digits and \"_\", beginning with a letter; a pack's rules are named pack.rule.")
    })?;
    let taken = {
        let _acting = role::internal(installed.owner);
        spi::read::<bool>("SELECT true FROM usher.overlap_rules AS l WHERE l.name = $1", &[spi::arg(name)])?
    };
    if taken.is_some() {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("overlap rule \"{name}\" exists already"))
            .hint("Change it with usher.alter_overlap_rule(), or drop it first with usher.drop_overlap_rule()."));
    }
    let by = identity::author();
    let fitted = check(installed, 0, name, &json)?;
    let _acting = role::internal(installed.owner);
    let id = spi::one::<i32>(
        "INSERT INTO usher.overlap_rules (name, relation, definition, created_by) VALUES ($1, $2, $3, $4) RETURNING id",
        &[spi::arg(name), spi::arg(fitted.table.oid), spi::arg(JsonB(json)), spi::arg(by)],
    )?
    .ok_or_else(|| UsherError::internal("a rule was not written down"))?;
    attach::sync(id, fitted.table.oid, PATIENCE)?;
    xact::note_overlaps();
    Ok(told(name, &fitted))
}

pub fn alter(installed: Installed, name: &str, json: Value) -> Result<String> {
    let rule = {
        let _acting = role::internal(installed.owner);
        store::by_name(name)?
    };
    let fitted = check(installed, rule.id, name, &json)?;
    let _acting = role::internal(installed.owner);
    if fitted.table.oid != rule.relation {
        attach::remove(Some(rule.id))?;
        end_all(name)?;
    }
    // What an open transaction has written by the old definition is committed before the sweep by the new one.
    attach::keep_writers_out(fitted.table.oid, PATIENCE)?;
    spi::run(
        "UPDATE usher.overlap_rules AS l SET relation = $2, definition = $3, state = 'active', reason = NULL, sweep_at = pg_catalog.clock_timestamp()
          WHERE l.id = $1",
        &[spi::arg(rule.id), spi::arg(fitted.table.oid), spi::arg(JsonB(json))],
    )?;
    attach::sync(rule.id, fitted.table.oid, PATIENCE)?;
    // Every session works out anew what the triggers do.
    catalog::invalidate(fitted.table.oid);
    xact::note_overlaps();
    Ok(told(name, &fitted))
}

pub fn drop(installed: Installed, name: &str) -> Result<String> {
    let _acting = role::internal(installed.owner);
    let rule = store::by_name(name)?;
    attach::remove(Some(rule.id))?;
    let gone = end_all(name)?;
    spi::run("DELETE FROM usher.overlap_checks AS c WHERE c.rule_id = $1", &[spi::arg(rule.id)])?;
    spi::run("DELETE FROM usher.overlap_rules AS l WHERE l.id = $1", &[spi::arg(rule.id)])?;
    Ok(format!("overlap rule \"{name}\" dropped; {gone} of its conflicts were open"))
}

/// What a rule says; None: there is none of that name.
pub fn rule_definition(installed: Installed, name: &str) -> Result<Option<Value>> {
    let _acting = role::internal(installed.owner);
    let found = spi::read::<JsonB>("SELECT l.definition FROM usher.overlap_rules AS l WHERE l.name = $1", &[spi::arg(name)])?;
    Ok(found.map(|json| json.0))
}

/// Names of rules that begin so.
pub fn rules_of(installed: Installed, prefix: &str) -> Result<Vec<String>> {
    if !installed.up_to_date {
        return Ok(Vec::new());
    }
    let _acting = role::internal(installed.owner);
    spi::read_all(
        "SELECT l.name FROM usher.overlap_rules AS l WHERE pg_catalog.starts_with(l.name, $1) ORDER BY l.id",
        &[spi::arg(prefix)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )
}

/// Nobody looks any more: what stands is gone. Returns how many of them were open.
fn end_all(rule: &str) -> Result<i64> {
    let open = spi::one::<i64>(
        "WITH e AS (UPDATE usher.conflicts AS c SET state = 'gone', last_seen_at = pg_catalog.clock_timestamp()
                     WHERE c.rule = $1 AND (c.state = 'open' OR c.state = 'resolved' AND c.decision = 'accept')
                 RETURNING c.decision)
         SELECT pg_catalog.count(*) FILTER (WHERE e.decision IS NULL) FROM e",
        &[spi::arg(rule)],
    )?;
    Ok(open.unwrap_or(0))
}

fn told(name: &str, fitted: &Fitted) -> String {
    let definition = &fitted.definition;
    let does = if definition.refuse { "refuses" } else { "finds" };
    format!(
        "overlap rule \"{name}\" {does} rows of {} that share {} and overlap",
        fitted.table.name,
        definition.resource.join(", ")
    )
}
