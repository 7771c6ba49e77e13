//! Flows that are off for an organization: its changes, requests and schedules make no jobs of them.
//!
//! Owns `usher.flow_switches`. What is off for nobody costs nobody anything: [`Flow::switched`](super::store::Flow) says whether
//! there is anything to ask.

use super::manage;
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::{catalog, role, spi};
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// SQL that is true where a flow is on for the organization that the expression names.
pub fn is_on(flow: i32, organization: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM usher.flow_switches AS usher_s WHERE usher_s.flow_id = {flow} AND usher_s.organization_id = {organization})"
    )
}

/// SQL for "some organization has switched flow `f` off"; tables of an older version know no switches.
pub fn any() -> &'static str {
    if catalog::usher_relation("flow_switches").is_some() {
        "EXISTS (SELECT FROM usher.flow_switches AS s WHERE s.flow_id = f.id)"
    } else {
        "false"
    }
}

/// Refuses a request for which an organization has switched the flow off. Runs with the owner's rights.
pub fn require_on(flow: i32, name: &str, organization: Uuid) -> Result<()> {
    let off = format!("SELECT NOT {}", is_on(flow, "$1"));
    if spi::read::<bool>(&off, &[spi::arg(organization)])? != Some(true) {
        return Ok(());
    }
    Err(UsherError::state(format!("flow \"{name}\" is switched off for the organization"))
        .hint(format!("An admin switches it on: SELECT usher.switch_flow('{name}', organization, true);")))
}

/// Flows are dropped. Runs with the owner's rights.
pub fn forget(flows: Vec<i32>) -> Result<()> {
    spi::run("DELETE FROM usher.flow_switches AS s WHERE s.flow_id = ANY ($1)", &[spi::arg(flows)])?;
    Ok(())
}

fn switch(installed: Installed, name: &str, organization: Uuid, on: bool) -> Result<bool> {
    let flows = manage::halves(installed, name)?;
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    let changed = if on {
        spi::run(
            "DELETE FROM usher.flow_switches AS s WHERE s.flow_id = ANY ($1) AND s.organization_id = $2",
            &[spi::arg(flows), spi::arg(organization)],
        )?
    } else {
        spi::run(
            "INSERT INTO usher.flow_switches (flow_id, organization_id, switched_off_by) SELECT f.id, $2, $3 FROM unnest($1::integer[]) AS f (id) ON CONFLICT DO NOTHING",
            &[spi::arg(flows), spi::arg(organization), spi::arg(by)],
        )?
    };
    if changed == 0 {
        return Ok(false);
    }
    // Every session writes its statements anew.
    catalog::invalidate(installed.flows);
    let action = if on { "usher.flows.switched_on" } else { "usher.flows.switched_off" };
    audit::note(installed, Some(organization), action, name, None, None)?;
    Ok(true)
}

/// Switches a flow off or on for one organization: while it is off, changes of its rows, its requests, events and schedules make no jobs. Jobs that
/// were made before go on; `usher.pause_jobs()` holds them. Says what was done.
///
/// Arguments: `name` of the flow, `organization`, `enabled`. Errors: 42501 unless the caller manages the organization, 42704 for an
/// unknown flow.
#[pg_extern(volatile, parallel_unsafe)]
fn switch_flow(
    name: Option<String>,
    organization: Option<String>,
    enabled: Option<bool>,
) -> std::result::Result<String, ErrorReport> {
    let installed = setup::current()?;
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    audit::note_legend("switch_flow", organization)?;
    let name = UsherError::given(name, "the flow's name")?;
    let on = enabled.ok_or_else(|| UsherError::missing("whether it is enabled"))?;
    let word = if on { "on" } else { "off" };
    let done = if switch(installed, &name, organization, on)? { "is" } else { "was already" };
    Ok(format!("flow {name} {done} {word} for the organization"))
}
