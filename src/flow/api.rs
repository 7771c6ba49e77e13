//! SQL functions for flows.

use super::apply::{self, Batch};
use super::definition::{LANES, Mode, When};
use super::publish::Via;
use super::{manage, store, transfer};
use crate::error::{Result, UsherError};
use crate::pg::spi;
use crate::pg::{ids, role};
use crate::registry::identity::{self, Right};
use pgrx::JsonB;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::fmt::Write as _;

type Sql<T> = std::result::Result<T, ErrorReport>;

fn given<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| UsherError::missing(what))
}

/// Makes a flow and switches it on. The definition is parsed, checked against the catalog and compiled first: a
/// misspelt key or column fails now, with the field and the nearest valid name.
///
/// Arguments: `name` (`flow` or `pack.flow`), `definition` (see docs/flows.md).
/// Errors: 42501 for callers who are no operators or lack rights on the tables, 42P17 for a definition that cannot work,
/// 42703/42P01/42883 for a name that does not exist, 42710 when the flow exists, 0A000 for kinds that are not there yet.
#[pg_extern(volatile, parallel_unsafe)]
fn create_flow(name: Option<String>, definition: Option<JsonB>) -> Sql<String> {
    let installed = identity::require_operator("create flows")?;
    Ok(manage::create(installed, &given(name, "the flow's name")?, None, given(definition, "the definition")?.0)?)
}

/// Gives a flow a new definition, as its next version. Jobs that are already in the queue run with the version under
/// which they were made. Errors: as `create_flow`, and 42704 when there is no such flow.
#[pg_extern(volatile, parallel_unsafe)]
fn alter_flow(name: Option<String>, definition: Option<JsonB>) -> Sql<String> {
    let installed = identity::require_operator("alter flows")?;
    Ok(manage::alter(installed, &given(name, "the flow's name")?, given(definition, "the definition")?.0)?)
}

/// Switches a flow on; jobs that waited for it run. Errors: 42501, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn enable_flow(name: Option<String>) -> Sql<String> {
    let installed = identity::require_operator("enable flows")?;
    Ok(manage::enable(installed, &given(name, "the flow's name")?, true)?)
}

/// Switches a flow off: changes are no longer captured for it, its jobs wait. Errors: 42501, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn disable_flow(name: Option<String>) -> Sql<String> {
    let installed = identity::require_operator("disable flows")?;
    Ok(manage::enable(installed, &given(name, "the flow's name")?, false)?)
}

/// Removes a flow; its waiting jobs are cancelled, its history stays. Errors: 42501, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn drop_flow(name: Option<String>) -> Sql<String> {
    let installed = identity::require_operator("drop flows")?;
    Ok(manage::drop(installed, &given(name, "the flow's name")?)?)
}

/// What a flow does, in words, and the SQL that it runs. Errors: 42501, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn explain_flow(name: Option<String>) -> Sql<String> {
    let installed = identity::require_operator("explain flows")?;
    let name = given(name, "the flow's name")?;
    let (id, version) = manage::id_of(installed, &name)?;
    let _acting = role::internal(installed.owner);
    let flow = store::get(id, version)?.ok_or_else(|| UsherError::internal("a flow has no current version"))?;
    let definition = &flow.definition;
    let mut out = String::new();
    let _ = writeln!(out, "flow {} version {version}{}", flow.name, if flow.enabled { "" } else { " (off)" });
    if let Some(reason) = &flow.broken {
        let _ = writeln!(out, "  broken:  {reason}");
    }
    match &definition.when {
        When::Change { table, on } => {
            let events: Vec<&str> = on.iter().map(|change| change.word()).collect();
            let _ = writeln!(out, "  when:    {} on {table}", events.join(" or "));
        }
        When::Request { action } => {
            let _ = writeln!(
                out,
                "  when:    request {action} from {} to {}",
                definition.from.as_deref().unwrap_or_default(),
                definition.to.as_deref().unwrap_or_default()
            );
        }
        When::Event(pattern) => {
            let _ = writeln!(out, "  when:    event {}", pattern.text);
        }
        When::Step(workflow) => {
            let _ = writeln!(out, "  when:    a run of workflow {workflow} says so");
        }
        When::Schedule(_) => {}
    }
    if let When::Schedule(schedule) = &definition.when {
        let zone = schedule.timezone.as_deref().unwrap_or("of each organization");
        let _ = writeln!(out, "  when:    {}, time zone {zone}", schedule.text);
    }
    if let Some(condition) = &definition.condition {
        let place = if flow.compiled.simple { "in the writer's statement" } else { "by the worker" };
        let _ = writeln!(out, "  if:      {condition}   -- evaluated {place}");
        if let Some(part) = &flow.compiled.part {
            let _ = writeln!(out, "           {}   -- of it, first, in the writer's statement", part.replace('\n', ""));
        }
    }
    let mode = match definition.mode {
        Mode::Transactional => "transactional: in the writer's transaction",
        Mode::Realtime => "realtime: at once after the commit",
        Mode::Async => "async: after the commit, in a low lane",
        Mode::Batch => "batch: gathered for each organization",
    };
    let _ = match definition.batch {
        Some(gather) => {
            let calls = if definition.calls_per_batch() { "; the function is called once for a batch" } else { "" };
            writeln!(out, "  mode:    {mode}, up to {} jobs, at most {} s{calls}", gather.size, gather.window)
        }
        None => writeln!(out, "  mode:    {mode}"),
    };
    if definition.shadow {
        let _ = writeln!(
            out,
            "  shadow:  runs after the commit and is undone: nothing is written; see usher.shadow_report('{}')",
            flow.name
        );
    }
    let _ = writeln!(out, "  lane:    {}", LANES[definition.lane]);
    let _ = writeln!(out, "  runs as: {}", role::name_of(flow.run_as).unwrap_or_else(|| "a role that is gone".to_owned()));
    for step in definition.steps() {
        let after: Vec<&str> = step.after.iter().map(|at| definition.steps()[*at].name.as_str()).collect();
        let after = if after.is_empty() { "at once".to_owned() } else { format!("after {}", after.join(", ")) };
        let undo = if step.has_undo { ", has an undo" } else { "" };
        let pivot = if step.pivot { ", the pivot: from here on only forward" } else { "" };
        let _ = writeln!(out, "  step:    {}, {after}{undo}{pivot}", step.name);
    }
    if let Some(merge) = definition.merge() {
        out.push_str(&merge.told());
    }
    if let Some(publish) = definition.publishes() {
        let by = publish.by.as_ref().map(|by| format!(":<{by}>")).unwrap_or_default();
        let via = match publish.via {
            Via::Realtime => "Supabase Realtime, private",
            Via::Notify => "NOTIFY",
        };
        let _ = writeln!(out, "  topic:   <organization id>:{}{by}, by {via}", publish.topic);
    }
    let tries = definition.retry.delays.len() + 1;
    let _ = writeln!(out, "  tries:   {tries}");
    if let Some(limit) = definition.limit() {
        let place = if definition.is_external() { ", one job at a time, in a caller process" } else { "" };
        let _ = writeln!(out, "  timeout: {} s{place}", limit.as_secs_f64());
    }
    if flow.in_circle {
        let _ = writeln!(out, "  circle:  its effect may lead back to its source, so each job keeps the trail of its causes");
    }
    let _ = writeln!(out, "  stored:  new ({}), old ({})", flow.compiled.new.join(", "), flow.compiled.old.join(", "));
    match flow.program() {
        Ok(program) => {
            let _ = writeln!(out, "  statement:\n{}", program.apply);
            if let Some(link) = &program.link {
                let _ = writeln!(out, "  link:\n{link}");
            }
            if let Some(merge) = &program.merge {
                let _ = writeln!(out, "  merge, where only the other side changes:\n{}", merge.quick);
                let _ = writeln!(out, "  merge, otherwise:\n{}", merge.write);
            }
        }
        Err(error) => {
            let _ = writeln!(out, "  statement: cannot be compiled: {error}");
        }
    }
    Ok(out)
}

/// What a flow would write for one row (or, for a request, one payload), undone at once: the written rows as jsonb, or
/// the check that fails. No row comes back when the condition does not hold or nothing would change.
///
/// Arguments: `name`, `"new"` (the row or payload; for an event an object with its `type` and `data`), `"old"` (the row before), `organization` (slug or id; by default
/// the row's organization_id or `default`). Errors: 42501, 42704, and whatever the flow's effect raises.
#[pg_extern(volatile, parallel_unsafe)]
fn preview_flow(
    name: Option<String>,
    new: Option<JsonB>,
    old: default!(Option<JsonB>, "NULL"),
    organization: default!(Option<String>, "NULL"),
) -> std::result::Result<SetOfIterator<'static, JsonB>, ErrorReport> {
    let installed = identity::require_operator("preview flows")?;
    let name = given(name, "the flow's name")?;
    let (id, version) = manage::id_of(installed, &name)?;
    let named = organization.or_else(|| {
        let row = new.as_ref().or(old.as_ref())?;
        row.0.get("organization_id")?.as_str().map(str::to_owned)
    });
    let organization = match named {
        Some(named) => identity::organization(&named, Right::Manage)?,
        None => installed.default_organization,
    };
    let (flow, program) = {
        let _acting = role::internal(installed.owner);
        let flow = store::get(id, version)?.ok_or_else(|| UsherError::internal("a flow has no current version"))?;
        if flow.definition.merge().is_some() {
            return Err(UsherError::unsupported(format!("flow \"{name}\" merges, and what it writes depends on both rows"))
                .hint("usher.explain_merge(link) shows what it would say of a pair, without writing.")
                .into());
        }
        let program = flow.program()?;
        (flow, program)
    };
    let op = match (&new, &old) {
        (Some(_), Some(_)) => "U",
        (None, Some(_)) => "D",
        _ if !matches!(flow.definition.when, When::Change { .. }) => "R",
        _ => "I",
    };
    let rows = Spi::connect_mut(|client| -> Result<Vec<JsonB>> {
        let table = spi::query(
            client,
            "SELECT ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[$3::jsonb], ARRAY[$4::jsonb], ARRAY[$5::\"char\"], ARRAY[pg_catalog.now()], ARRAY[0::bigint]",
            &[spi::arg(organization), spi::arg(ids::uuid_v7()), spi::arg(new), spi::arg(old), spi::arg(op)],
        )?
        .first();
        let batch = Batch::read(&table, 1, 1)?;
        apply::preview(flow.run_as, &program.preview, &batch, flow.definition.lock_timeout)
    })?;
    Ok(SetOfIterator::new(rows))
}

/// All flows as one document for version control: `{"format": 1, "flows": {name: {"definition", "enabled", "pack"}}}`. Its
/// order is always the same, so that two exports differ only where the flows do.
///
/// Arguments: `packs`, to have the flows of packs as well. Errors: 42501 for callers who are no operators.
#[pg_extern(volatile, parallel_unsafe)]
fn export_flows(packs: default!(Option<bool>, false)) -> Sql<JsonB> {
    let installed = identity::require_operator("export flows")?;
    Ok(JsonB(transfer::export(installed, packs.unwrap_or(false))?))
}

/// Makes the flows as an export says, all or none: each is checked as by `create_flow`. Returns what was done to which flow
/// (create, alter, enable, disable, remove, unchanged) and the difference, a line for each part: `path: old -> new`.
///
/// Arguments: `flows` (the document), `dry_run` (everything is checked and done, then undone), `remove_missing` (flows that
/// the document does not name are dropped, except those of packs).
/// Errors: as `create_flow` and `alter_flow`, naming the flow; 22023 for a document that is not understood, 55000 for a flow
/// of a pack that is not installed.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn apply_flows(
    flows: Option<JsonB>,
    dry_run: default!(Option<bool>, false),
    remove_missing: default!(Option<bool>, false),
) -> std::result::Result<
    TableIterator<'static, (name!(flow, String), name!(change, String), name!(difference, Option<String>))>,
    ErrorReport,
> {
    let installed = identity::require_operator("apply flows")?;
    let flows = given(flows, "the document of flows")?;
    let changes = transfer::apply(installed, &flows.0, dry_run.unwrap_or(false), remove_missing.unwrap_or(false))?;
    Ok(TableIterator::new(changes.into_iter().map(|(flow, change, difference)| (flow, change.to_owned(), difference))))
}

/// The versions of a flow, the newest first, each with what differs from the one before. Also of a flow that was dropped.
///
/// Errors: 42501 for callers who are no operators, 42704 when there never was such a flow.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn flow_history(
    name: Option<String>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(version, i32),
            name!(created_at, TimestampWithTimeZone),
            name!(created_by, String),
            name!(run_as, String),
            name!(difference, String),
        ),
    >,
    ErrorReport,
> {
    let installed = identity::require_operator("read the history of flows")?;
    Ok(TableIterator::new(transfer::history(installed, &given(name, "the flow's name")?)?))
}

/// Gives a flow the definition of an earlier version, as its next version, checked against the catalog of today. Without a
/// version it is the one before the current.
///
/// Errors: as `alter_flow`; 42704 when there is no such version, 55000 when it is the current one or there is none before.
#[pg_extern(volatile, parallel_unsafe)]
fn rollback_flow(name: Option<String>, version: default!(Option<i32>, "NULL")) -> Sql<String> {
    let installed = identity::require_operator("roll flows back")?;
    Ok(transfer::rollback(installed, &given(name, "the flow's name")?, version)?)
}
