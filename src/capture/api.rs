//! SQL functions of capture.

use super::attach;
use crate::conflict;
use crate::consistency;
use crate::error::{Result as Outcome, UsherError};
use crate::flow::definition::{Definition, When};
use crate::flow::drift::{self, Finding, Others};
use crate::guard::{attach as audits, audit};
use crate::pg::trigger::raise;
use crate::pg::{self, catalog, gauges, role, xact};
use crate::protect::mend;
use crate::registry::adopt::organizations;
use crate::registry::identity;
use crate::setup;
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Follows a change of `usher.flows`: the triggers of the source tables, and what every session remembers.
#[pg_trigger]
fn flows_changed<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    raise(follow(trigger));
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

fn source_of<A: WhoAllocated>(row: Option<PgHeapTuple<'_, A>>) -> Outcome<Option<String>> {
    let Some(row) = row else { return Ok(None) };
    let definition: Option<JsonB> = row.get_by_name("definition").map_err(|e| UsherError::internal(e.to_string()))?;
    Ok(definition.and_then(|json| Definition::parse(&json.0).ok()).and_then(|definition| match definition.when {
        When::Change { table, .. } => Some(table),
        When::Request { .. } | When::Schedule(_) | When::Event(_) | When::Step(_) => None,
    }))
}

fn follow(trigger: &PgTrigger<'_>) -> Outcome<()> {
    let installed = setup::installed()?;
    let mut tables = vec![source_of(trigger.old())?, source_of(trigger.new())?];
    tables.dedup();
    pg::catalog::invalidate(installed.flows);
    pg::relcache::forget();
    pg::xact::note_due_changed();
    pg::xact::note_plans_changed();
    let _acting = role::internal(installed.owner);
    for table in tables.into_iter().flatten() {
        attach::sync(&table)?;
    }
    if trigger.new().is_none() {
        // A deleted flow: whatever waits for it is looked at now, and cancelled.
        let id: Option<i32> = match trigger.old() {
            Some(old) => old.get_by_name("id").map_err(|e| UsherError::internal(e.to_string()))?,
            None => None,
        };
        crate::pg::spi::run(
            "UPDATE usher.queue_waiting SET due_at = pg_catalog.now() WHERE flow_id = $1",
            &[crate::pg::spi::arg(id)],
        )?;
    }
    Ok(())
}

/// Drops every capture and audit trigger and returns their number, and with them what `usher.expose_api()` made, and the
/// view, policies and triggers of pg_usher's own tables that stand on the extension's functions. Flows, jobs and data stay;
/// `usher.setup()` makes everything again.
/// To be run before DROP EXTENSION. Until then members see nothing (row level security stays on).
///
/// Errors: 42501 for callers without the rights of the tables' owner, 55P03 when a table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn detach_all() -> std::result::Result<i32, ErrorReport> {
    let installed = identity::require_operator("detach pg_usher from tables")?;
    // It also takes away what watches over the operators themselves.
    if !role::has_rights_of(role::current(), installed.owner) {
        return Err(UsherError::forbidden("only the owner of pg_usher's tables may detach it")
            .detail("Without its triggers nothing is audited, the audit log is no longer append-only, and members see nothing.")
            .hint("Run it as the role that ran usher.setup(), or as a superuser; usher.disable_flow() stops single flows.")
            .into());
    }
    audit::note(installed, None, "usher.triggers.detached", "all", None, None)?;
    let _acting = role::internal(installed.owner);
    // Before usher.remove() too: what is counted for limits is counted anew if they stay.
    gauges::keep_none();
    catalog::invalidate(installed.flows);
    Ok(i32::try_from(attach::detach_all()?).unwrap_or(i32::MAX))
}

/// Attaches what flows and audits need and is missing, drops what flows no longer need; returns how many triggers changed.
/// Tables that gained partitions, and tables whose triggers a migration tool dropped, are mended by it.
///
/// Errors: 42501 for callers who are no operators, 55P03 when a table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn attach_all() -> std::result::Result<i32, ErrorReport> {
    let installed = identity::require_operator("attach pg_usher to tables")?;
    let _acting = role::internal(installed.owner);
    let mut changed = attach::sync_all()?;
    if installed.up_to_date {
        for finding in drift::look_again(&drift::unrecorded()?, Others::LookAt)? {
            if let Finding::Postponed { .. } = finding {
                xact::note_plans_changed();
            }
            warning!("{}", finding.line());
        }
        changed += audits::sync_all(attach::PATIENCE)?;
        changed += conflict::attach::sync_all(attach::PATIENCE)?;
        // What a restored database knows is of the one that it is a copy of.
        let rules = if installed.home { consistency::drift::unsettled()? } else { consistency::drift::touched(None)? };
        let (findings, made) = consistency::attach::restore(installed, &rules)?;
        findings.iter().for_each(|finding| warning!("{}", finding.line()));
        changed += made;
        let mended = mend::mend(installed, true, attach::PATIENCE)?;
        mended.failed.iter().for_each(|what| warning!("a protected column is not as declared: {what}"));
        changed += mended.done.len();
        changed += organizations::attach(installed, attach::PATIENCE)?;
        organizations::reconcile(installed)?;
    }
    Ok(i32::try_from(changed).unwrap_or(i32::MAX))
}
