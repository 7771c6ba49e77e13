//! Listeners outside the database.
//!
//! Owns `usher.event_subscriptions`. What they get are jobs of an external system, with its leases, tries and dead letters: there is no second
//! queue. Each event has a row of its own for each of them, made by its emitter: no event is lost to one that commits late.

use crate::error::{Result, UsherError, did_you_mean};
use crate::flow::event_type::Pattern;
use crate::flow::store as flows;
use crate::guard::audit;
use crate::pg::{catalog, role, spi};
use crate::registry::identity::{self, Right};
use crate::registry::systems;
use crate::setup::{self, Installed};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};

/// A system that listens.
pub struct Outside {
    pub system: String,
    pub organization: Option<[u8; 16]>,
    pub patterns: Vec<Pattern>,
}

/// All of them. Runs with the owner's rights.
pub fn all() -> Result<Vec<Outside>> {
    if catalog::usher_relation("event_subscriptions").is_none() {
        return Ok(Vec::new());
    }
    spi::read_all(
        "SELECT s.system, s.organization_id, s.patterns FROM usher.event_subscriptions AS s ORDER BY 1, 2",
        &[],
        |row| {
            let patterns = row.get::<Vec<String>>(3)?.unwrap_or_default();
            Ok(Outside {
                system: row.get::<String>(1)?.unwrap_or_default(),
                organization: row.get::<Uuid>(2)?.map(|id| *id.as_bytes()),
                // What was checked when it was made.
                patterns: patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
            })
        },
    )
}

/// Patterns of a definition such as `{"events": ["orders.*"]}`.
fn patterns(definition: &Value) -> Result<Vec<String>> {
    let known = ["events"];
    let object = definition.as_object().filter(|object| !object.is_empty()).ok_or_else(|| {
        UsherError::definition("a subscription's definition must be an object")
            .hint("Write it like {\"events\": [\"orders.*\"]}.")
    })?;
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(UsherError::definition(format!("unknown key \"{key}\" in the subscription")).hint(format!(
            "{}Known here: {}.",
            did_you_mean(key, &known),
            known.join(", ")
        )));
    }
    let given = match &object["events"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) if !all.is_empty() && all.iter().all(Value::is_string) => {
            all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => {
            return Err(
                UsherError::definition("\"events\" is no list of patterns").hint("Write it as [\"orders.*\", \"**.failed\"].")
            );
        }
    };
    if given.len() > 100 {
        return Err(UsherError::definition("a subscription has at most 100 patterns").hint("Use * and **."));
    }
    given.iter().try_for_each(|text| Pattern::parse(text).map(|_| ()).map_err(flows::refused))?;
    Ok(given)
}

/// Whose events: an organization's, for its admins; everybody's, for operators.
fn whose(organization: Option<String>, what: &str, function: &str) -> Result<(Installed, Option<Uuid>)> {
    let installed = setup::current()?;
    match organization {
        None => {
            identity::require_operator(what)?;
            Ok((installed, None))
        }
        Some(named) => {
            let organization = identity::organization(&named, Right::Manage)?;
            audit::note_legend(function, organization)?;
            Ok((installed, Some(organization)))
        }
    }
}

/// Gives an external system the events that some patterns mean, from now on: its workers take them with `usher.claim_jobs(system)` and answer with
/// `usher.finish_job()` or `usher.fail_job()`. A system that is not there is made, if an operator asks. Called again, it changes the patterns.
///
/// Arguments: `system`; `definition`, such as `{"events": ["orders.*"]}`; `organization`, whose events (NULL: of all, for operators).
/// Errors: 42501 unless the caller manages the organization, 42P17 for a bad definition, 55000 for a system that is not external, or not there.
#[pg_extern(volatile, parallel_unsafe)]
fn create_subscription(
    system: Option<String>,
    definition: Option<JsonB>,
    organization: default!(Option<String>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    let system = UsherError::given(system, "the system's name")?;
    systems::check_name(&system)?;
    let patterns = patterns(&definition.ok_or_else(|| UsherError::missing("the definition"))?.0)?;
    let (installed, organization) = whose(organization, "give a system the events of every organization", "create_subscription")?;
    let (by, operator) = (identity::author(), identity::is_operator());
    let acting = role::internal(installed.owner);
    match systems::kind(&system)?.as_deref() {
        Some("external") => {}
        None if operator => {
            spi::run(
                "INSERT INTO usher.systems (name, kind) VALUES ($1, 'external') ON CONFLICT ON CONSTRAINT systems_pkey DO NOTHING",
                &[spi::arg(system.as_str())],
            )?;
        }
        found => {
            let what = if found.is_some() { "is not external: nobody would take the events" } else { "does not exist" };
            return Err(UsherError::state(format!("system \"{system}\" {what}"))
                .hint(format!("An operator makes one for workers outside: SELECT usher.create_system('{system}', 'external');"))
                .into());
        }
    }
    spi::run(
        "INSERT INTO usher.event_subscriptions AS s (system, organization_id, patterns, created_by) VALUES ($1, $2, $3, $4)
         ON CONFLICT (organization_id, system) DO UPDATE SET patterns = EXCLUDED.patterns, created_at = pg_catalog.now(), created_by = EXCLUDED.created_by",
        &[spi::arg(system.as_str()), spi::arg(organization), spi::arg(patterns.clone()), spi::arg(by)],
    )?;
    // Every session asks anew who listens.
    catalog::invalidate(installed.flows);
    audit::note(installed, organization, "usher.subscriptions.made", &system, None, Some(json!({"events": patterns})))?;
    drop(acting);
    Ok(format!("system {system} gets {} from now on", patterns.join(", ")))
}

/// Ends a subscription. Events that the system has not taken yet stay for its workers; `usher.cancel_sync_jobs()` ends them.
///
/// Arguments: `system`, `organization` (as it was made). Errors: 42501 as for `create_subscription`, 42704 when there is none.
#[pg_extern(volatile, parallel_unsafe)]
fn drop_subscription(
    system: Option<String>,
    organization: default!(Option<String>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    let system = UsherError::given(system, "the system's name")?;
    let (installed, organization) =
        whose(organization, "end a subscription to the events of every organization", "drop_subscription")?;
    let _acting = role::internal(installed.owner);
    let gone = spi::run(
        "DELETE FROM usher.event_subscriptions AS s WHERE s.system = $1 AND s.organization_id IS NOT DISTINCT FROM $2",
        &[spi::arg(system.as_str()), spi::arg(organization)],
    )?;
    if gone == 0 {
        return Err(UsherError::not_found(format!("system \"{system}\" has no such subscription"))
            .hint("SELECT system, organization_id, patterns FROM usher.event_subscriptions shows them; name the organization if it is of one.")
            .into());
    }
    catalog::invalidate(installed.flows);
    audit::note(installed, organization, "usher.subscriptions.ended", &system, None, None)?;
    Ok(format!("system {system} gets no more events by this subscription; what waits stays for its workers"))
}
