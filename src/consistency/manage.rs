//! Making, changing and removing rules.

use super::attach;
use super::definition::Definition;
use super::fit::{self, Fitted};
use super::{keyed, repair_fit, repair_images, store};
use crate::error::{Result, UsherError};
use crate::flow::manage::check_name;
use crate::flow::store::refused;
use crate::pg::{locks, role, spi, xact};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use serde_json::Value;

/// The role that the rule runs as: named in the definition, else the creator.
fn run_as(definition: &Definition) -> Result<Oid> {
    let me = role::current();
    let Some(named) = &definition.run_as else { return Ok(me) };
    let found = role::by_name(named).ok_or_else(|| {
        UsherError::not_found(format!("role \"{named}\" in \"run_as\" does not exist"))
            .hint("Create the role, or name one that exists.")
    })?;
    if !role::is_member(me, found) {
        return Err(UsherError::forbidden(format!("you may not let a rule run as \"{named}\""))
            .hint(format!("Ask for GRANT {named} TO your role.")));
    }
    Ok(found)
}

fn check(installed: Installed, name: &str, json: &Value) -> Result<Fitted> {
    let named = |mut error: UsherError| {
        error.message = format!("rule \"{name}\": {}", error.message);
        error
    };
    let definition = Definition::parse(json).map_err(refused).map_err(named)?;
    let run_as = run_as(&definition).map_err(named)?;
    let fitted = fit::fit(installed, definition, run_as).map_err(named)?;
    if let (Some(why), Some(every), true) = (&fitted.whole, fitted.definition.every, json.get("full").is_some()) {
        warning!("rule \"{name}\" has everything looked at every {}, not only what was touched: {why}", span(every));
    }
    repair_fit::mender(installed, &fitted).map_err(named)?;
    warn(name, &fitted);
    Ok(fitted)
}

/// A rule of somebody's own: what a pack leaves out it leaves out on purpose.
fn warn_of_tables(name: &str, fitted: &Fitted) {
    if !(fitted.definition.in_transaction || fitted.definition.after_sync) {
        return;
    }
    let when = match fitted.definition.every {
        Some(_) => "is noticed when everything is looked at, and not before",
        None => "is not noticed",
    };
    for table in fitted.reads.iter().filter(|table| !fitted.touches.iter().any(|touch| touch.table.oid == table.oid)) {
        warning!("rule \"{name}\" reads {}, which is not in \"touches\": a change of it alone {when}", table.name);
    }
}

/// What works, and may not be meant so.
fn warn(name: &str, fitted: &Fitted) {
    if role::is_superuser(fitted.run_as) {
        warning!(
            "rule \"{name}\" runs as superuser {}: name a role with just the rights it needs in \"run_as\"",
            role::name_of(fitted.run_as).unwrap_or_default()
        );
    }
}

pub fn create(installed: Installed, name: &str, pack: Option<&str>, json: Value) -> Result<String> {
    check_name(name).map_err(|mut error| {
        error.message = error.message.replace("flow name", "name of a rule");
        error.hint("Use lower-case letters, digits and \"_\", beginning with a letter; a pack's rules are named pack.rule.")
    })?;
    let taken = {
        let _acting = role::internal(installed.owner);
        spi::read::<bool>("SELECT true FROM usher.rules AS l WHERE l.name = $1", &[spi::arg(name)])?
    };
    if taken.is_some() {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("rule \"{name}\" exists already"))
            .hint("Change it with usher.alter_rule(), or drop it first with usher.drop_rule()."));
    }
    let by = identity::author();
    let fitted = check(installed, name, &json)?;
    if pack.is_none() {
        warn_of_tables(name, &fitted);
    }
    let _acting = role::internal(installed.owner);
    let id = spi::one::<i32>(
        "INSERT INTO usher.rules (name, definition, run_as, pack, severity, created_by, check_at)
         VALUES ($1, $2, $3::oid::regrole, $4, $5, $6, CASE WHEN $7 THEN pg_catalog.clock_timestamp() END) RETURNING id",
        &[
            spi::arg(name),
            spi::arg(JsonB(json)),
            spi::arg(fitted.run_as),
            spi::arg(pack.map(str::to_owned)),
            spi::arg(fitted.definition.severity),
            spi::arg(by),
            spi::arg(looks_at_all(&fitted.definition)),
        ],
    )?
    .ok_or_else(|| UsherError::internal("a rule was not written down"))?;
    locks::look_for_rule(id, true);
    changed(installed, name, id, &fitted)?;
    Ok(told(name, &fitted))
}

/// Everything is looked at when the rule begins to be asked: by a look of its clock, or (a rule that is asked about what is touched) once, because nobody has
/// asked about what was there before. What is looked at on demand is not.
fn looks_at_all(definition: &Definition) -> bool {
    definition.every.is_some() || definition.in_transaction || definition.after_sync
}

/// What follows from a definition that was written down: triggers, what it stands on, a first look.
fn changed(installed: Installed, name: &str, id: i32, fitted: &Fitted) -> Result<()> {
    store::stands_on(id, fitted)?;
    attach::changed(id, fitted.definition.in_transaction)?;
    if fitted.whole.is_none()
        && let (Some(gap), Some(every)) = (keyed::watch(fitted)?.gap, fitted.definition.every)
    {
        warning!("rule \"{name}\" has everything looked at every {}, not only what was touched: {gap}", span(every));
    }
    if let Some(mender) = repair_fit::mender(installed, fitted)? {
        let without = repair_images::attach(&mender.tables)?;
        if let Some(table) = repair_images::unseen(fitted, &mender)? {
            return Err(UsherError::forbidden(format!(
                "\"statement\" in \"repair\": changes of {table} cannot be noted, so the repair might change rows of other organizations"
            ))
            .hint(format!(
                "GRANT TRIGGER ON {table} TO {}; it owns pg_usher's tables.",
                role::name_of(role::current()).unwrap_or_default()
            )));
        }
        without.iter().for_each(|said| warning!("{said}"));
    }
    xact::note_overlaps();
    Ok(())
}

pub fn alter(installed: Installed, name: &str, json: Value) -> Result<String> {
    // Whoever looks now does so by the definition that was, and is done before what it has written is ended.
    let rule = {
        let _acting = role::internal(installed.owner);
        store::hold(&store::by_name(name)?)?
    };
    let fitted = check(installed, name, &json)?;
    let _acting = role::internal(installed.owner);
    // Nobody begins a look before every session has been told.
    locks::look_for_rule(rule.id, true);
    let of_a_pack =
        spi::read::<bool>("SELECT l.pack IS NOT NULL FROM usher.rules AS l WHERE l.id = $1", &[spi::arg(rule.id)])? == Some(true);
    if !of_a_pack {
        warn_of_tables(name, &fitted);
    }
    let before = rule.definition().ok();
    let were_watched = attach::tables_of(rule.id)?;
    // Violations of another key are not those of this rule any more.
    if before.is_none_or(|before| before.key != fitted.definition.key) {
        end_all(rule.id)?;
    }
    spi::run(
        "UPDATE usher.rules AS l
            SET definition = $2, run_as = $3::oid::regrole, severity = $4, state = 'active', reason = NULL, updated_at = pg_catalog.clock_timestamp(), wait = NULL,
                check_at = CASE WHEN $5 THEN pg_catalog.clock_timestamp() END, sweep_began_at = NULL, sweep_position = NULL, sweep_rows = NULL,
                keyed_now = false, watch = NULL, watched_from = NULL, whole_because = NULL, keys_at = pg_catalog.clock_timestamp()
          WHERE l.id = $1",
        &[
            spi::arg(rule.id),
            spi::arg(JsonB(json)),
            spi::arg(fitted.run_as),
            spi::arg(fitted.definition.severity),
            spi::arg(looks_at_all(&fitted.definition)),
        ],
    )?;
    changed(installed, name, rule.id, &fitted)?;
    attach::forgotten(&were_watched);
    Ok(told(name, &fitted))
}

pub fn drop(installed: Installed, name: &str) -> Result<String> {
    let _acting = role::internal(installed.owner);
    let rule = store::hold(&store::by_name(name)?)?;
    let gone = end_all(rule.id)?;
    let tables = attach::tables_of(rule.id)?;
    spi::run("DELETE FROM usher.rules AS l WHERE l.id = $1", &[spi::arg(rule.id)])?;
    attach::dropped(rule.id, &tables)?;
    Ok(format!("rule \"{name}\" dropped; {gone} of its violations were open"))
}

/// Looks at everything come soon. `asks`: only rules that run as this role. Runs with the owner's rights.
pub fn check_soon(rule: Option<&str>, pack: Option<&str>, asks: Option<pgrx::pg_sys::Oid>) -> Result<i64> {
    if let Some(rule) = rule {
        store::by_name(rule)?;
    }
    if let Some(asks) = asks {
        let any = spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.rules AS l WHERE l.run_as::oid = $1)", &[spi::arg(asks)])?;
        if any != Some(true) {
            return Err(UsherError::forbidden("only operators may ask for looks at rules, and roles that rules run as")
                .hint("GRANT usher_operator TO the role, or, for one organization, call usher.check_rules(organization)."));
        }
    }
    let asked = spi::run(
        "UPDATE usher.rules AS l
            SET check_at = LEAST(l.check_at, GREATEST(pg_catalog.clock_timestamp(), l.last_checked_at + '10 seconds'::interval)), changes = $4
          WHERE l.id IN (SELECT r.id FROM usher.rules AS r
                          WHERE r.enabled AND r.state = 'active' AND ($1::text IS NULL OR r.name = $1) AND ($2::text IS NULL OR r.pack = $2)
                            AND ($3::oid IS NULL OR r.run_as::oid = $3) ORDER BY r.id FOR NO KEY UPDATE)",
        &[spi::arg(rule.map(str::to_owned)), spi::arg(pack.map(str::to_owned)), spi::arg(asks), spi::arg(keyed::ONCE_MORE)],
    )?;
    xact::note_overlaps();
    Ok(asked as i64)
}

/// Switches a rule on or off. While it is off nobody looks, and its violations stay as they are.
pub fn switch(installed: Installed, name: &str, on: bool) -> Result<String> {
    let _acting = role::internal(installed.owner);
    let rule = store::hold(&store::by_name(name)?)?;
    let definition = rule.definition()?;
    let all = looks_at_all(&definition);
    spi::run(
        "UPDATE usher.rules AS l
            SET enabled = $2, wait = NULL, keyed_now = false, watch = NULL, watched_from = NULL, sweep_began_at = NULL, sweep_position = NULL, check_at = CASE WHEN $2 AND $3 THEN pg_catalog.clock_timestamp() END
          WHERE l.id = $1 AND l.enabled <> $2",
        &[spi::arg(rule.id), spi::arg(on), spi::arg(all)],
    )?;
    attach::changed(rule.id, on && definition.in_transaction)?;
    xact::note_overlaps();
    Ok(format!("rule \"{name}\" is {}", if on { "on" } else { "off" }))
}

/// What a rule says; None: there is none of that name.
pub fn rule_definition(installed: Installed, name: &str) -> Result<Option<Value>> {
    let _acting = role::internal(installed.owner);
    let found = spi::read::<JsonB>("SELECT l.definition FROM usher.rules AS l WHERE l.name = $1", &[spi::arg(name)])?;
    Ok(found.map(|json| json.0))
}

/// Names of the rules of a pack.
pub fn rules_of(installed: Installed, pack: &str) -> Result<Vec<String>> {
    if !installed.up_to_date {
        return Ok(Vec::new());
    }
    let _acting = role::internal(installed.owner);
    spi::read_all("SELECT l.name FROM usher.rules AS l WHERE l.pack = $1 ORDER BY l.id", &[spi::arg(pack)], |row| {
        Ok(row.get::<String>(1)?.unwrap_or_default())
    })
}

/// Nobody looks any more: what stands is gone. Returns how many were open.
fn end_all(rule: i32) -> Result<i64> {
    let open = spi::one::<i64>(
        "WITH s AS MATERIALIZED (SELECT v.organization_id, v.id, v.status FROM usher.violations AS v
                                  WHERE v.rule_id = $1 AND v.status IN ('pending', 'open', 'waived') FOR UPDATE),
              e AS (UPDATE usher.violations AS v SET status = 'gone', ended_at = pg_catalog.clock_timestamp(), due_at = NULL, escalate_at = NULL
                      FROM s WHERE v.organization_id = s.organization_id AND v.id = s.id)
         SELECT pg_catalog.count(*) FILTER (WHERE s.status = 'open') FROM s",
        &[spi::arg(rule)],
    )?;
    Ok(open.unwrap_or(0))
}

fn told(name: &str, fitted: &Fitted) -> String {
    let definition = &fitted.definition;
    let tables: Vec<&str> = fitted.reads.iter().map(|table| table.name.as_str()).collect();
    let mut when = Vec::new();
    if definition.in_transaction {
        when.push("before each commit".to_owned());
    }
    if definition.after_sync {
        when.push("after each commit".to_owned());
    }
    if let (Some(every), Some(full)) = (definition.every, definition.full) {
        when.push(format!("every {}", span(if fitted.whole.is_none() && definition.after_sync { full } else { every })));
    }
    if when.is_empty() {
        when.push("on demand".to_owned());
    }
    format!("rule \"{name}\" looks at {}, {}", tables.join(", "), when.join(" and "))
}

/// Milliseconds as people say them.
pub fn span(milliseconds: i64) -> String {
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")] {
        if milliseconds % unit == 0 && milliseconds >= unit {
            return format!("{} {name}", milliseconds / unit);
        }
    }
    format!("{milliseconds} ms")
}

#[cfg(test)]
mod unit {
    use super::span;

    #[test]
    fn spans_have_the_largest_unit_that_fits() {
        for (milliseconds, said) in
            [(60_000, "1 min"), (90_000, "90 s"), (500, "500 ms"), (7_200_000, "2 h"), (86_400_000, "1 d")]
        {
            assert_eq!(span(milliseconds), said);
        }
    }
}
