//! Making, changing and removing flows.

use super::check::checked;
use super::circle_check;
use super::compile::Compiled;
use super::definition::{Definition, When};
use super::drift::{self, Needs};
use super::family::{self, WHOLE};
use super::ready;
use super::{store, switches};
use crate::error::{Result, UsherError, did_you_mean};
use crate::pg::{role, spi, xact};
use crate::registry::{identity, systems};
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

/// A flow's name: `flow` or `pack.flow`.
pub fn check_name(name: &str) -> Result<()> {
    let part = |part: &str| {
        (1..=63).contains(&part.len())
            && part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if name.split('.').count() <= 2 && name.split('.').all(part) {
        return Ok(());
    }
    Err(UsherError::invalid(format!("\"{name}\" is not a valid flow name"))
        .hint("Use lower-case letters, digits and \"_\", beginning with a letter; a pack's flows are named pack.flow."))
}

/// The role that the flow's work runs as: named in the definition, else the creator.
fn run_as(definition: &Definition) -> Result<Oid> {
    let me = role::current();
    let chosen = match &definition.run_as {
        None => me,
        Some(named) => {
            let found = role::by_name(named).ok_or_else(|| {
                UsherError::not_found(format!("role \"{named}\" in \"run_as\" does not exist"))
                    .hint("Create the role, or name one that exists.")
            })?;
            if !role::is_member(me, found) {
                return Err(UsherError::forbidden(format!("you may not let a flow run as \"{named}\""))
                    .hint(format!("Ask for GRANT {named} TO your role.")));
            }
            found
        }
    };
    Ok(chosen)
}

fn warn_of_superuser(name: &str, run_as: Oid) {
    if role::is_superuser(run_as) {
        warning!(
            "flow \"{name}\" runs as superuser {}: name a role with just the rights it needs in \"run_as\"",
            role::name_of(run_as).unwrap_or_default()
        );
    }
}

/// Where rows find each other by their keys, each look reads the whole table if no index leads there.
fn warn_of_missing_index(name: &str, definition: &Definition) -> Result<()> {
    let Some(merge) = definition.merge() else { return Ok(()) };
    for (table, keys) in super::merge::without_index(definition, merge)? {
        warning!(
            "flow \"{name}\": no index of {table} begins with {} of \"match\", so that all of it is read for each row that has no pair yet",
            keys.join(" or ")
        );
    }
    Ok(())
}

/// A request is routed by source, target and action: no two flows may share one.
fn check_route(definition: &Definition, name: &str) -> Result<()> {
    let When::Request { action } = &definition.when else { return Ok(()) };
    let other = spi::read::<String>(
        "SELECT f.name FROM usher.flows f WHERE f.name <> $1 AND f.definition ->> 'from' = $2 AND f.definition ->> 'to' = $3
            AND f.definition -> 'when' ->> 'request' = $4",
        &[spi::arg(name), spi::arg(definition.from.clone()), spi::arg(definition.to.clone()), spi::arg(action.as_str())],
    )?;
    match other {
        Some(other) => Err(UsherError::definition(format!(
            "flow \"{other}\" already takes the request \"{action}\" from {} to {}",
            definition.from.as_deref().unwrap_or_default(),
            definition.to.as_deref().unwrap_or_default()
        ))
        .hint("Give the action another name, or change that flow with usher.alter_flow().")),
        None => Ok(()),
    }
}

/// The links of a merge are its own: another flow may make links of its kind only between the same tables.
fn check_kind(definition: &Definition, compiled: &Compiled, name: &str) -> Result<()> {
    let Some(link) = definition.link.as_ref().filter(|_| family::require_whole(name).is_ok()) else { return Ok(()) };
    let other = spi::read::<String>(
        "SELECT f.name FROM usher.flows AS f JOIN usher.flow_versions AS v ON v.flow_id = f.id AND v.version = f.version
          WHERE f.name <> $1 AND pg_catalog.strpos(f.name, ':') = 0 AND f.definition -> 'link' ->> 'kind' = $2
            AND (f.definition -> 'then' ? 'merge' OR $5)
            AND (f.definition -> 'then' ? 'merge' AND $5 OR v.compiled ->> 'source' IS DISTINCT FROM $3 OR v.compiled ->> 'target' IS DISTINCT FROM $4)
          ORDER BY f.name LIMIT 1",
        &[
            spi::arg(name),
            spi::arg(link.kind.as_str()),
            spi::arg(compiled.source.clone()),
            spi::arg(compiled.target.clone()),
            spi::arg(definition.merge().is_some()),
        ],
    )?;
    match other {
        Some(other) => Err(UsherError::definition(format!("flow \"{other}\" makes links of the kind \"{}\" too", link.kind))
            .detail("A merge finds its pairs by the kind: rows of other tables, or another merge's, would be taken for them.")
            .hint("Give the link a kind of its own.")),
        None => Ok(()),
    }
}

pub(super) struct Checked {
    pub(super) definition: Definition,
    pub(super) compiled: Compiled,
    pub(super) needs: Needs,
    pub(super) run_as: Oid,
}

pub(super) fn check(name: &str, json: &serde_json::Value, owner: Oid) -> Result<Checked> {
    let in_flow = |mut error: UsherError| {
        error.message = format!("flow \"{name}\": {}", error.message);
        error
    };
    let definition = store::parse(json).map_err(in_flow)?;
    let new = definition.shadow
        || definition.is_external()
        || definition.keeps_result()
        || !definition.limits.is_empty()
        || definition.emits().is_some()
        || definition.merge().is_some()
        || matches!(definition.when, When::Schedule(_) | When::Event(_));
    if new {
        crate::setup::current().map_err(in_flow)?;
    }
    let run_as = run_as(&definition).map_err(in_flow)?;
    let _acting = role::internal(owner);
    let program = checked(&definition, run_as, Some(role::outer())).map_err(in_flow)?;
    check_route(&definition, name).map_err(in_flow)?;
    check_kind(&definition, &program.compiled, name).map_err(in_flow)?;
    for system in definition.from.iter().chain(&definition.to) {
        systems::check_name(system).map_err(in_flow)?;
    }
    let named: Vec<&str> = definition.from.iter().chain(&definition.to).map(String::as_str).collect();
    systems::ensure(&named)?;
    let needs = drift::needs(&definition, &program, run_as).map_err(in_flow)?;
    Ok(Checked { definition, compiled: program.compiled, needs, run_as })
}

const NEW_VERSION: &str = "
    INSERT INTO usher.flow_versions (flow_id, version, name, source_system, target_system, definition, compiled, run_as, created_by)
    SELECT f.id, f.version, f.name, f.definition ->> 'from', f.definition ->> 'to', f.definition, $4::jsonb, f.run_as, $5 FROM f";

pub fn create(installed: Installed, name: &str, pack: Option<&str>, json: serde_json::Value) -> Result<String> {
    check_name(name)?;
    let taken = {
        let _acting = role::internal(installed.owner);
        spi::read::<bool>("SELECT true FROM usher.flows WHERE name = $1", &[spi::arg(name)])?
    };
    if taken.is_some() {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("flow \"{name}\" exists already"))
            .hint("Change it with usher.alter_flow(), or drop it first with usher.drop_flow()."));
    }
    let by = identity::actor();
    family::refuse_part(name, &json)?;
    let checked = check(name, &json, installed.owner)?;
    let parts = family::check(name, &checked.definition, &json, installed.owner)?;
    let _acting = role::internal(installed.owner);
    spi::run(
        &format!(
            "WITH f AS (INSERT INTO usher.flows (name, definition, run_as, pack) VALUES ($1, $2, $3::oid::regrole, $6)
                        RETURNING id, version, name, definition, run_as) {NEW_VERSION}"
        ),
        &[
            spi::arg(name),
            spi::arg(JsonB(json)),
            spi::arg(checked.run_as),
            spi::arg(checked.compiled.stored()?),
            spi::arg(by),
            spi::arg(pack.map(str::to_owned)),
        ],
    )?;
    stands_on(installed, name, &checked.needs)?;
    family::make(installed, name, parts)?;
    circle_check::new(name)?;
    // Of a pack's flows some listen to what others of it emit, which come later.
    if pack.is_none() {
        circle_check::warn_of_silence(installed, &checked.definition)?;
    }
    warn_of_superuser(name, checked.run_as);
    warn_of_missing_index(name, &checked.definition)?;
    Ok(format!("flow {name} is on, version 1: {}", what(&checked.definition)))
}

fn stands_on(installed: Installed, name: &str, needs: &Needs) -> Result<i32> {
    let id = spi::one::<i32>("SELECT id FROM usher.flows WHERE name = $1", &[spi::arg(name)])?.unwrap_or_default();
    if installed.up_to_date {
        drift::record(id, needs)?;
    }
    Ok(id)
}

fn what(definition: &Definition) -> String {
    let when = match &definition.when {
        When::Change { table, on } => {
            format!("{} on {table}", on.iter().map(|change| change.word()).collect::<Vec<_>>().join(" or "))
        }
        When::Request { action } => format!("request {action}"),
        When::Schedule(schedule) => format!("schedule {}", schedule.text),
        When::Event(pattern) => format!("event {}", pattern.text),
        When::Step(workflow) => format!("step of {workflow}"),
    };
    let then = match (definition.steps().len(), definition.emits()) {
        (_, Some(event_type)) => format!("event {event_type}"),
        (0, None) => match definition.publishes() {
            Some(publish) => format!("messages on {}", publish.topic),
            None => definition.then.table().unwrap_or("call").to_owned(),
        },
        (1, None) => "1 step".to_owned(),
        (steps, None) => format!("{steps} steps"),
    };
    format!("{when} -> {then}")
}

pub fn alter(installed: Installed, name: &str, json: serde_json::Value) -> Result<String> {
    exists(installed, name)?;
    family::require_whole(name)?;
    let by = identity::actor();
    family::refuse_part(name, &json)?;
    let checked = check(name, &json, installed.owner)?;
    let parts = family::check(name, &checked.definition, &json, installed.owner)?;
    let _acting = role::internal(installed.owner);
    let was_broken =
        spi::read::<bool>("SELECT state = 'broken' FROM usher.flows WHERE name = $1", &[spi::arg(name)])? == Some(true);
    spi::run(
        &format!(
            "WITH f AS (UPDATE usher.flows SET definition = $2, run_as = $3::oid::regrole, version = version + 1, state = 'ok', reason = NULL,
                               updated_at = pg_catalog.now()
                         WHERE name = $1 RETURNING id, version, name, definition, run_as) {NEW_VERSION}"
        ),
        &[
            spi::arg(name),
            spi::arg(JsonB(json)),
            spi::arg(checked.run_as),
            spi::arg(checked.compiled.stored()?),
            spi::arg(by),
        ],
    )?;
    let version = spi::read::<i32>("SELECT version FROM usher.flows WHERE name = $1", &[spi::arg(name)])?.unwrap_or(0);
    let id = stands_on(installed, name, &checked.needs)?;
    family::make(installed, name, parts)?;
    circle_check::new(name)?;
    circle_check::warn_of_silence(installed, &checked.definition)?;
    if was_broken {
        drift::mend(id)?;
    }
    change_lane(id, checked.definition.lane as i16)?;
    if installed.up_to_date {
        ask_limits_again(id, !checked.definition.limits.is_empty())?;
    }
    if checked.definition.in_writer() {
        // What is still queued comes first: later changes of its rows line up behind it.
        let (lanes, positions) = ready::columns(&ready::hold(&[id])?);
        spi::run(
            "UPDATE usher.jobs q SET fallback = true FROM unnest($1::smallint[], $2::bigint[]) AS r (lane, seq)
              WHERE NOT q.fallback AND q.lane = r.lane AND q.seq = r.seq",
            &[spi::arg(lanes), spi::arg(positions)],
        )?;
    }
    warn_of_superuser(name, checked.run_as);
    warn_of_missing_index(name, &checked.definition)?;
    Ok(format!("flow {name} is at version {version}: {}", what(&checked.definition)))
}

fn exists(installed: Installed, name: &str) -> Result<i32> {
    // Members may read the names, and no more.
    let table = if identity::is_operator() { "name FROM usher.flows" } else { "DISTINCT name FROM usher.flow_versions" };
    let _acting = role::internal(installed.owner);
    if let Some(id) = spi::read::<i32>("SELECT id FROM usher.flows WHERE name = $1", &[spi::arg(name)])? {
        return Ok(id);
    }
    let names = spi::read_all(&format!("SELECT f.name FROM usher.flows AS f WHERE {WHOLE}"), &[], |row| {
        Ok(row.get::<String>(1)?.unwrap_or_default())
    })?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hint = if names.is_empty() {
        "There are no flows yet: make one with usher.create_flow().".to_owned()
    } else {
        format!("{}SELECT {table} lists them.", did_you_mean(name, &names))
    };
    Err(UsherError::not_found(format!("flow \"{name}\" does not exist")).hint(hint))
}

/// What the limits of a flow hold back, and calls that have not been made, are asked again under its new definition.
fn ask_limits_again(flow: i32, limited: bool) -> Result<()> {
    let moved = spi::run(
        "UPDATE usher.queue_waiting w
            SET waiting_for = 'run_at', limit_key = NULL, limit_keys = NULL,
                due_at = CASE WHEN w.limit_key IS NULL THEN GREATEST(w.due_at, pg_catalog.now()) ELSE pg_catalog.now() END
          WHERE w.flow_id = $1
            AND (w.limit_key IS NOT NULL OR w.waiting_for = 'external call' AND w.leased_by IS NULL AND ($2 OR w.limit_keys IS NOT NULL))",
        &[spi::arg(flow), spi::arg(limited)],
    )?;
    if moved > 0 {
        xact::note_due_changed();
    }
    Ok(())
}

/// Jobs of a flow whose lane changes go along, so that later changes of their rows do not overtake them. Requests keep
/// the lane that their caller chose. Ready ones keep their positions, which the other lane may have passed: they leave the
/// log and are due at once.
fn change_lane(flow: i32, lane: i16) -> Result<()> {
    let arguments = [spi::arg(flow), spi::arg(lane)];
    let any = spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM usher.ready_jobs r WHERE r.flow_id = $1 AND r.op <> 'R' AND r.lane <> $2)",
        &arguments,
    )?;
    if any == Some(true) {
        let (lanes, positions) = ready::columns(&ready::hold(&[flow])?);
        spi::run(
            "WITH c AS (DELETE FROM usher.jobs q USING unnest($3::smallint[], $4::bigint[]) AS r (lane, seq)
                         WHERE q.flow_id = $1 AND q.op <> 'R' AND q.lane <> $2 AND q.lane = r.lane AND q.seq = r.seq RETURNING q.*, usher.take_off(q.lane, q.flow_id, q.organization_id) AS off)
             INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                              attempts, waiting_for, due_at)
             SELECT c.seq, c.row_key, c.id, c.organization_id, c.created_at, c.cause, c.flow_id, c.flow_version, $2, c.hop, c.op, c.trail, c.new, c.old,
                    0, 'run_at', pg_catalog.now() FROM c",
            &[spi::arg(flow), spi::arg(lane), spi::arg(lanes), spi::arg(positions)],
        )?;
        xact::note_due_changed();
    }
    spi::run("UPDATE usher.queue_waiting w SET lane = $2 WHERE w.flow_id = $1 AND w.op <> 'R' AND w.lane <> $2", &arguments)?;
    Ok(())
}

/// Jobs that waited for their flow to be switched on are due again.
fn release(name: &str) -> Result<()> {
    let released = spi::run(
        &format!(
            "UPDATE usher.queue_waiting w SET due_at = pg_catalog.now() FROM usher.flows f
              WHERE {} AND w.flow_id = f.id AND w.waiting_for = 'flow disabled'",
            family::OF
        ),
        &[spi::arg(name)],
    )?;
    if released > 0 {
        xact::note_due_changed();
    }
    Ok(())
}

pub fn enable(installed: Installed, name: &str, on: bool) -> Result<String> {
    exists(installed, name)?;
    family::require_whole(name)?;
    let _acting = role::internal(installed.owner);
    let changed = spi::run(
        &format!(
            "UPDATE usher.flows AS f SET enabled = $2, updated_at = pg_catalog.now() WHERE {} AND f.enabled <> $2",
            family::OF
        ),
        &[spi::arg(name), spi::arg(on)],
    )?;
    if on {
        circle_check::new(name)?;
        release(name)?;
        family::hear_again(installed, name)?;
    }
    let state = if on { "on" } else { "off" };
    let broken =
        spi::read::<String>("SELECT f.reason FROM usher.flows f WHERE f.name = $1 AND f.state = 'broken'", &[spi::arg(name)])?;
    let but = broken.filter(|_| on).map(|reason| format!(", but it is broken: {reason}; its jobs wait")).unwrap_or_default();
    Ok(if changed > 0 { format!("flow {name} is {state}{but}") } else { format!("flow {name} was {state} already{but}") })
}

pub fn drop(installed: Installed, name: &str) -> Result<String> {
    let id = exists(installed, name)?;
    family::require_whole(name)?;
    family::require_no_runs(installed, id, name)?;
    let halves = halves(installed, name)?;
    let _acting = role::internal(installed.owner);
    spi::run(&format!("DELETE FROM usher.flows AS f WHERE {}", family::OF), &[spi::arg(name)])?;
    if installed.up_to_date {
        switches::forget(halves.clone())?;
        family::end_conflicts(halves)?;
    }
    Ok(format!("flow {name} is gone; its waiting jobs will be cancelled"))
}

/// The flow, and the other half of a merge: what is said of the one holds for both.
pub fn halves(installed: Installed, name: &str) -> Result<Vec<i32>> {
    exists(installed, name)?;
    let _acting = role::internal(installed.owner);
    spi::read_all(
        "SELECT f.id FROM usher.flows AS f WHERE f.name IN ($1, $1 || ':back') ORDER BY f.id",
        &[spi::arg(name)],
        |row| Ok(row.get::<i32>(1)?.unwrap_or_default()),
    )
}

pub fn id_of(installed: Installed, name: &str) -> Result<(i32, i32)> {
    let id = exists(installed, name)?;
    let _acting = role::internal(installed.owner);
    let version = spi::read::<i32>("SELECT version FROM usher.flows WHERE id = $1", &[spi::arg(id)])?.unwrap_or(0);
    Ok((id, version))
}
