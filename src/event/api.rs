//! SQL functions of the event bus.

use super::store::{self, Event};
use crate::error::UsherError;
use crate::flow::definition::{self, LANES};
use crate::flow::event_type;
use crate::guard::audit;
use crate::rates;
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

/// Says that something has happened: the event is kept, and every flow whose `"when": {"event": …}` means its type gets a job, all of it
/// with this transaction. Returns the event's id.
///
/// Arguments: `organization` (slug or id); `type`, words with dots between them, such as `orders.paid`; `data` (object); `priority`
/// (emergency, critical, high, normal, low; normal leaves each flow's own).
/// Errors: 42501 unless the caller is an admin of the organization, 22023 for a malformed type, data that is no object or an unknown
/// priority, 54000 for more than 1 MB of data.
#[pg_extern(sql = r#"
-- Spelt out, because "type" is no name that Rust would take.
CREATE FUNCTION usher.emit_event(organization text, type text, data jsonb DEFAULT '{}', priority text DEFAULT 'normal') RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn emit_event(
    organization: Option<String>,
    event_type: Option<String>,
    data: default!(Option<JsonB>, "'{}'"),
    priority: default!(Option<String>, "'normal'"),
) -> std::result::Result<Uuid, ErrorReport> {
    let installed = setup::current()?;
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    audit::note_legend("emit_event", organization)?;
    rates::take("emit_event", Some(organization))?;
    let event_type = UsherError::given(event_type, "the event's type")?;
    event_type::require(&event_type)?;
    let data = data.unwrap_or_else(|| JsonB(serde_json::json!({})));
    if !data.0.is_object() {
        return Err(UsherError::invalid("the event's data is not a JSON object")
            .hint("Give an object such as {\"order_id\": 7}.")
            .into());
    }
    if data.0.to_string().len() > store::LONGEST {
        return Err(store::too_long().into());
    }
    let lane = match priority.as_deref() {
        None | Some("normal" | "medium") => None,
        Some(priority) => Some(definition::lane(priority).ok_or_else(|| {
            UsherError::invalid(format!("priority \"{priority}\" is unknown")).hint(format!("Use one of: {}.", LANES.join(", ")))
        })?),
    };
    Ok(store::emit(installed, Event { organization, event_type, data, lane })?)
}
