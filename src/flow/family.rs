//! A workflow, or a merge, and the flows that are its parts: made, changed, switched and dropped together.
//!
//! A part has the version of its workflow, so that a run, which keeps the version that it began with, finds each part as it was then.
//! A part that a newer version does without stays as long as the workflow does.

use super::circle_check;
use super::definition::Definition;
use super::drift;
use super::manage::{self, Checked};
use super::merge;
use super::steps;
use crate::error::{Result, UsherError};
use crate::pg::{catalog, role, spi, xact};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

/// SQL that is true of flow `f` if it is `$1`, or a part of it.
pub(super) const OF: &str = "(f.name = $1 OR pg_catalog.starts_with(f.name, $1 || ':'))";
/// SQL that is true of flow `f` if somebody has made it: parts are made by the engine.
pub(super) const WHOLE: &str = "pg_catalog.strpos(f.name, ':') = 0";

/// Refuses what is said about a part alone.
pub fn require_whole(name: &str) -> Result<()> {
    let Some((whole, _)) = name.split_once(':') else { return Ok(()) };
    Err(UsherError::invalid(format!("\"{name}\" is a part of flow \"{whole}\"")).hint(format!("Say it of the whole: '{whole}'.")))
}

/// What a definition says only the engine may say.
pub(super) fn refuse_part(name: &str, json: &serde_json::Value) -> Result<()> {
    // What cannot be read is refused where it is checked.
    if super::store::parse(json).is_ok_and(|definition| definition.is_part()) {
        return Err(UsherError::definition(format!("flow \"{name}\": this is a part, and no flow by itself"))
            .hint("Write a step into \"then\": {\"steps\": […]} of a workflow, and leave \"side\" out of a merge."));
    }
    Ok(())
}

/// Checks the parts of a workflow as flows of their own.
pub(super) fn check(
    name: &str,
    whole: &Definition,
    json: &serde_json::Value,
    owner: Oid,
) -> Result<Vec<(String, serde_json::Value, Checked)>> {
    let mut parts = Vec::new();
    if whole.merge().is_some() {
        let part = format!("{name}:{}", merge::definition::BACK);
        let definition = merge::definition::back(json);
        let checked = manage::check(&part, &definition, owner).map_err(|mut error| {
            error.message = error.message.replacen(&format!("flow \"{part}\": "), &format!("flow \"{name}\", the way back: "), 1);
            error
        })?;
        parts.push((part, definition, checked));
    }
    if whole.steps().is_empty() {
        return Ok(parts);
    }
    for (part, definition) in steps::parts(name, json, whole.steps()) {
        let step = part.split(':').nth(1).unwrap_or_default().to_owned();
        let undo = if part.ends_with(":undo") { ", undo" } else { "" };
        let checked = manage::check(&part, &definition, owner).map_err(|mut error| {
            error.message =
                error.message.replacen(&format!("flow \"{part}\": "), &format!("flow \"{name}\": step \"{step}\"{undo}: "), 1);
            if part.ends_with(":look") {
                error.detail = error.detail.map(|detail| detail.replace('\n', ""));
                error.message = error.message.replacen(": set.", ": ", 1);
            }
            error.hint = error.hint.map(|hint| hint.replace("new.x, old.x, job.x, event.x", "run.x, job.x"));
            error
        })?;
        parts.push((part, definition, checked));
    }
    Ok(parts)
}

/// `$1` names, `$2` definitions, `$3` what was compiled, `$4` roles, `$5` version, `$6` pack, `$7` switched on, `$8` by whom.
const MAKE: &str = "
WITH p AS (
    SELECT * FROM unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::oid[]) AS p (name, definition, compiled, run_as)),
f AS (
    INSERT INTO usher.flows AS f (name, definition, run_as, pack, version, enabled)
    SELECT p.name, p.definition, p.run_as::regrole, $6, $5, $7 FROM p
    ON CONFLICT ON CONSTRAINT flows_name_key DO UPDATE
       SET definition = EXCLUDED.definition, run_as = EXCLUDED.run_as, version = EXCLUDED.version, pack = EXCLUDED.pack, state = 'ok', reason = NULL,
           updated_at = pg_catalog.now()
    RETURNING f.id, f.name),
v AS (
    INSERT INTO usher.flow_versions (flow_id, version, name, source_system, target_system, definition, compiled, run_as, created_by)
    SELECT f.id, $5, f.name, p.definition ->> 'from', p.definition ->> 'to', p.definition, p.compiled, p.run_as::regrole, $8
      FROM f JOIN p ON p.name = f.name)
SELECT f.id, f.name FROM f";

/// Makes the parts of a workflow that has just been made or changed. Runs with the owner's rights.
pub(super) fn make(installed: Installed, name: &str, parts: Vec<(String, serde_json::Value, Checked)>) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let whole = spi::read_all("SELECT version, pack, enabled FROM usher.flows WHERE name = $1", &[spi::arg(name)], |row| {
        Ok((row.get::<i32>(1)?.unwrap_or(1), row.get::<String>(2)?, row.get::<bool>(3)?.unwrap_or(true)))
    })?;
    let (version, pack, enabled) = whole.into_iter().next().ok_or_else(|| UsherError::internal("a workflow is gone"))?;
    let (mut names, mut definitions, mut compiled, mut roles, mut needs) = (vec![], vec![], vec![], vec![], vec![]);
    let mut definitions_of_parts = Vec::new();
    for (part, definition, checked) in parts {
        names.push(part);
        definitions.push(JsonB(definition));
        compiled.push(checked.compiled.stored()?);
        roles.push(checked.run_as);
        needs.push(checked.needs);
        definitions_of_parts.push(checked.definition);
    }
    let broken = spi::read_all(
        "SELECT f.name FROM usher.flows AS f WHERE f.name = ANY ($1) AND f.state = 'broken'",
        &[spi::arg(names.clone())],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    let made = spi::all(
        MAKE,
        &[
            spi::arg(names.clone()),
            spi::arg(definitions),
            spi::arg(compiled),
            spi::arg(roles),
            spi::arg(version),
            spi::arg(pack),
            spi::arg(enabled),
            spi::arg(identity::actor()),
        ],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    // Listeners that only older versions had, and that no run needs any more.
    if !catalog::is_unused("workflow_runs") {
        spi::run(
            "DELETE FROM usher.flows AS f
              WHERE pg_catalog.starts_with(f.name, $1 || ':') AND pg_catalog.strpos(f.name, ':hear_') > 0 AND f.name <> ALL ($2)
                AND NOT EXISTS (SELECT FROM usher.workflow_runs AS r
                                 WHERE r.flow_id = (SELECT w.id FROM usher.flows AS w WHERE w.name = $1) AND r.ended_at IS NULL)",
            &[spi::arg(name), spi::arg(names.clone())],
        )?;
    }
    for definition in &definitions_of_parts {
        circle_check::warn_of_silence(installed, definition)?;
    }
    for (id, part) in made {
        let at = names.iter().position(|name| *name == part).ok_or_else(|| UsherError::internal("a part is gone"))?;
        drift::record(id, &needs[at])?;
        if broken.contains(&part) {
            drift::mend(id)?;
        }
    }
    Ok(())
}

/// A workflow is switched on: what its runs wait for may have happened while nobody listened. They look back.
pub(super) fn hear_again(installed: Installed, name: &str) -> Result<()> {
    if !installed.up_to_date || catalog::is_unused("workflow_waits") {
        return Ok(());
    }
    let waiting = spi::run(
        "INSERT INTO usher.workflow_checks (organization_id, job_id, fate, payload)
         SELECT w.organization_id, w.run_id, 'synced', pg_catalog.jsonb_build_object('run', w.run_id, 'step', w.step, 'part', 'again')
           FROM usher.workflow_waits AS w JOIN usher.flows AS f ON f.id = w.listener WHERE pg_catalog.starts_with(f.name, $1 || ':')",
        &[spi::arg(name)],
    )?;
    if waiting > 0 {
        xact::note_due_changed();
    }
    Ok(())
}

/// Pairs that nobody keeps equal any more do not disagree. Runs with the owner's rights.
pub(super) fn end_conflicts(flows: Vec<i32>) -> Result<()> {
    if !catalog::is_unused("conflicts") {
        spi::run(
            "UPDATE usher.conflicts AS c SET state = 'gone', last_seen_at = pg_catalog.clock_timestamp() WHERE c.flow_id = ANY ($1) AND (c.state = 'open' OR c.state = 'resolved' AND c.decision = 'accept')",
            &[spi::arg(flows)],
        )?;
    }
    Ok(())
}

/// Refuses to end a workflow that somebody has begun. The runs are the workflow room's; only their number is asked for here.
pub(super) fn require_no_runs(installed: Installed, id: i32, name: &str) -> Result<()> {
    if !installed.up_to_date || catalog::is_unused("workflow_runs") {
        return Ok(());
    }
    let _acting = role::internal(installed.owner);
    // Whoever begins one at this moment is waited for.
    spi::run("SELECT FROM usher.flows AS f WHERE f.id = $1 FOR UPDATE", &[spi::arg(id)])?;
    let open = spi::one::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.workflow_runs AS r WHERE r.flow_id = $1 AND r.ended_at IS NULL",
        &[spi::arg(id)],
    )?;
    match open.unwrap_or(0) {
        0 => Ok(()),
        open => Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("workflow \"{name}\" has runs that have not ended: {open}"),
        )
        .hint(format!(
            "Let them end, or cancel them: SELECT usher.cancel_workflow(id) FROM usher.workflow_runs WHERE workflow = '{name}' AND ended_at IS NULL. \
             usher.disable_flow('{name}') lets no further ones begin."
        ))),
    }
}
