//! SQL functions for the surface.

use super::{OBJECTS, surface};
use crate::error::UsherError;
use crate::guard::audit;
use crate::pg::role;
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Makes views and functions under the names of existing clients (`integration_deal_links`, `rpc_enqueue_sync_job` and so
/// on, see docs/expose.md) in a schema. Nothing that is there is replaced: if a name is taken, nothing is made and all
/// clashes are listed. Safe to repeat.
///
/// Errors: 42501 for callers who are no operators or may not create in the schema, 3F000 for an unknown schema, 42710 for
/// clashes.
#[pg_extern(volatile, parallel_unsafe)]
fn expose_api(schema: default!(Option<String>, "'public'")) -> Result<String, ErrorReport> {
    identity::require_operator("expose the API")?;
    let installed = setup::current()?;
    let schema = UsherError::given(schema, "the schema")?;
    let changed = surface::expose(installed, &schema, role::current(), &identity::author())?;
    if changed > 0 {
        audit::note(installed, None, "usher.api.exposed", &schema, None, Some(serde_json::json!({"objects": changed})))?;
    }
    Ok(match changed {
        0 => format!("schema {schema} has all {} views and functions already", OBJECTS.len()),
        _ => format!("schema {schema}: {changed} of {} views and functions made", OBJECTS.len()),
    })
}

/// Takes back what `usher.expose_api()` made in a schema, and nothing else. Errors: 42501 for callers who are no operators,
/// 42704 when nothing was made there, 2BP01 when something of the application depends on it.
#[pg_extern(volatile, parallel_unsafe)]
fn hide_api(schema: Option<String>) -> Result<String, ErrorReport> {
    identity::require_operator("hide the API")?;
    let installed = setup::current()?;
    let schema = UsherError::given(schema, "the schema")?;
    let Some(gone) = surface::hide(installed, &schema)? else {
        return Err(UsherError::not_found(format!("nothing was exposed in schema \"{schema}\""))
            .hint("SELECT DISTINCT schema_name FROM usher.exposed_objects; shows where something was.")
            .into());
    };
    audit::note(installed, None, "usher.api.hidden", &schema, Some(serde_json::json!({"objects": gone})), None)?;
    Ok(format!("schema {schema}: {gone} views and functions gone"))
}

/// Brings what was exposed to this version; `usher.setup()` calls it. Returns how many objects were made or replaced.
#[pg_extern(volatile, parallel_unsafe)]
fn renew_api() -> Result<i32, ErrorReport> {
    identity::require_operator("renew the API")?;
    let installed = crate::setup::current()?;
    Ok(i32::try_from(surface::renew(installed)?).unwrap_or(i32::MAX))
}

/// The id of the organization (slug or id) in which the caller may make changes. Errors: 42501 for everybody else, whether
/// the organization exists or not; 22023 when it is missing.
#[pg_extern(stable, parallel_restricted)]
fn managed_organization(organization: Option<String>) -> Result<pgrx::Uuid, ErrorReport> {
    Ok(identity::organization(UsherError::given(organization, "the organization")?.trim(), Right::Manage)?)
}
