//! SQL functions for packs.

use super::{install, workflow};
use crate::error::UsherError;
use crate::pg::subxact::again_after_deadlock;
use crate::registry::identity;
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::BTreeSet;

fn given(name: Option<String>) -> Result<String, UsherError> {
    name.ok_or_else(|| UsherError::invalid("the pack's name is missing").hint("SELECT usher.install_pack('live_events');"))
}

/// Installs a pack or brings it to this version: its tables, its role, its flows, and what it books. Safe to repeat.
///
/// Arguments: `name`; `run_as`, the role that its flows run as (by default `usher_<name>`, made here, NOLOGIN); `bind`, which of the pack's
/// tables are tables of the application: {"atlvs.deals": {"table": "public.deals", "columns": {"title": "name"}}}. Without it a binding that
/// stands is kept; '{}' ends it.
/// Errors: 42501 for callers who are no operators, for a superuser in run_as, or for a bound table that is not the caller's; 42704 for an
/// unknown pack or role; 22023 for a bind that names what is not there; 55000 where a table of the pack that is bound has rows.
#[pg_extern(volatile, parallel_unsafe)]
fn install_pack(
    name: Option<String>,
    run_as: default!(Option<String>, "NULL"),
    bind: default!(Option<JsonB>, "NULL"),
) -> Result<String, ErrorReport> {
    identity::require_operator("install packs")?;
    let installed = crate::setup::current()?;
    let (name, bind) = (given(name)?, bind.map(|bind| bind.0));
    // Workers write the pack's tables and the hub's in an order of their own.
    Ok(again_after_deadlock(|| install::install(installed, &name, run_as.as_deref(), bind.clone()))?)
}

/// What `usher.install_pack(name, bind => …)` would install: each workflow, and whether it can run there. Changes nothing.
///
/// Arguments: as of `install_pack`. Comes back as `workflow`, `title`, `runs`, `lacks` (why not), `remedies` (SQL that would give it what it
/// lacks, where SQL can), `notes` (what is otherwise than with the pack's own tables). Errors: 42501, 42704, 22023.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn plan_pack(
    name: Option<String>,
    bind: default!(Option<JsonB>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(workflow, String),
            name!(title, String),
            name!(runs, bool),
            name!(lacks, Vec<String>),
            name!(remedies, Vec<String>),
            name!(notes, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    identity::require_operator("plan packs")?;
    let adopted = install::look(crate::setup::current()?, &given(name)?, bind.map(|bind| bind.0))?;
    let rows = adopted.plan.lines.into_iter().map(|line| {
        let runs = line.runs();
        let list = |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<_>>();
        (line.workflow, line.title, runs, list(line.lacks), list(line.remedies), list(line.notes))
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// The columns of a pack's tables, as `bind` may name them.
///
/// Arguments: `name`. Comes back as `table_name`, `column_name`, `type`, `words` (those that it knows; NULL: any value) and `workflows`
/// (that use it). Errors: 42704.
#[pg_extern(stable, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn pack_tables(
    name: Option<String>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(type, String),
            name!(words, Option<Vec<String>>),
            name!(workflows, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(install::columns(&given(name)?)?))
}

/// Removes a pack's flows; its tables and their rows stay. Errors: 42501, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn remove_pack(name: Option<String>) -> Result<String, ErrorReport> {
    let installed = identity::require_operator("remove packs")?;
    let name = given(name)?;
    Ok(again_after_deadlock(|| install::remove(installed, &name))?)
}

/// The workflows that a pack is made of, each with its flows and overlap rules.
///
/// Arguments: `name`. Comes back as `workflow` (its number), `title`, `kind` (`flow` or `overlap rule`), `part` (the name), `description`.
/// Errors: 42704 for an unknown pack.
#[pg_extern(stable, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn pack_workflows(
    name: Option<String>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(workflow, String),
            name!(title, String),
            name!(kind, String),
            name!(part, String),
            name!(description, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let pack = install::find(&given(name)?)?;
    let mut rows = Vec::new();
    for parts in workflow::all(pack)? {
        let said = |definition: &serde_json::Value| definition["description"].as_str().map(str::to_owned);
        let flows = parts.flows.iter().map(|(part, flow)| ("flow", part, said(flow)));
        let rules = parts.overlap_rules.keys().map(|part| ("overlap rule", part, None));
        for (kind, part, description) in flows.chain(rules) {
            rows.push((parts.workflow.clone(), parts.title.clone(), kind.to_owned(), part.clone(), description));
        }
    }
    Ok(TableIterator::new(rows))
}
