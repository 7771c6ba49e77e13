//! SQL functions for limits.

use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::{role, spi, xact};
use crate::registry::identity;
use crate::setup;
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Limits the jobs of all flows for a system, and those that workers outside take of it: a list of
/// `{"per": "system" | "connection", "rate": "100 per minute", "burst": 10}` or `{"per": …, "concurrency": 3}`; a connection is an
/// organization's own share. NULL takes the limits away. What waits for the old ones is asked again.
///
/// Arguments: `system`, `limits`. Errors: 42501 for callers who are no operators, 42704 for an unknown system, 42P17 for limits
/// that cannot work.
#[pg_extern(volatile, parallel_unsafe)]
fn limit_system(system: Option<String>, limits: Option<JsonB>) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("limit systems")?;
    Ok(limit(&UsherError::given(system, "the system's name")?, limits)?)
}

fn limit(system: &str, given: Option<JsonB>) -> Result<String> {
    let installed = setup::current()?;
    let given = given.filter(|given| !given.0.is_null());
    let text = match &given {
        None => "has no limits".to_owned(),
        Some(given) => {
            let limits = crate::flow::limits::of_system(&given.0).map_err(crate::flow::store::refused)?;
            let words = limits.iter().map(|limit| {
                let whose = if limit.per == crate::flow::limits::Per::All { "in all" } else { "for each organization" };
                format!("{} {whose}", limit.text)
            });
            format!("is limited: {}", words.collect::<Vec<_>>().join("; "))
        }
    };
    let given_again = given.as_ref().map(|given| given.0.clone());
    let _acting = role::internal(installed.owner);
    if spi::run("UPDATE usher.systems SET limits = $2 WHERE name = $1", &[spi::arg(system), spi::arg(given)])? == 0 {
        return Err(UsherError::not_found(format!("system \"{system}\" does not exist"))
            .hint("SELECT name FROM usher.systems lists them; usher.create_system() makes one."));
    }
    let now = given_again.map(|limits| serde_json::json!({ "limits": limits }));
    audit::note(installed, None, "usher.systems.limited", system, None, now)?;
    // Every session hears of it when this commits.
    crate::pg::catalog::invalidate(installed.flows);
    crate::pg::relcache::forget();
    spi::run(
        "UPDATE usher.queue_waiting SET waiting_for = 'run_at', limit_key = NULL, due_at = pg_catalog.now()
          WHERE pg_catalog.starts_with(limit_key, 'system ' || $1 || ', ')",
        &[spi::arg(system)],
    )?;
    xact::note_due_changed();
    Ok(format!("system {system} {text}"))
}
