//! SQL functions for packs.

use super::{install, workflow};
use crate::error::UsherError;
use crate::registry::identity;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

fn given(name: Option<String>) -> Result<String, UsherError> {
    name.ok_or_else(|| UsherError::invalid("the pack's name is missing").hint("SELECT usher.install_pack('live_events');"))
}

/// Installs a pack or brings it to this version: its tables, its role, its flows, and what it books. Safe to repeat.
///
/// Arguments: `name`; `run_as`, the role that its flows run as (by default `usher_<name>`, made here, NOLOGIN).
/// Errors: 42501 for callers who are no operators or for a superuser in run_as, 42704 for an unknown pack or role.
#[pg_extern(volatile, parallel_unsafe)]
fn install_pack(name: Option<String>, run_as: default!(Option<String>, "NULL")) -> Result<String, ErrorReport> {
    identity::require_operator("install packs")?;
    let installed = crate::setup::current()?;
    Ok(install::install(installed, &given(name)?, run_as.as_deref())?)
}

/// Removes a pack's flows; its tables and their rows stay. Errors: 42501, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn remove_pack(name: Option<String>) -> Result<String, ErrorReport> {
    let installed = identity::require_operator("remove packs")?;
    Ok(install::remove(installed, &given(name)?)?)
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
