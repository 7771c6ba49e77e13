//! SQL functions of the event bus.

use super::broadcast;
use super::store::{self, Event};
use crate::error::{Result, UsherError};
use crate::flow::definition::{self, LANES};
use crate::flow::event_type;
use crate::guard::audit;
use crate::pg::role;
use crate::rates;
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

fn checked(data: Option<JsonB>) -> Result<JsonB> {
    let data = data.unwrap_or_else(|| JsonB(serde_json::json!({})));
    if !data.0.is_object() {
        return Err(
            UsherError::invalid("the event's data is not a JSON object").hint("Give an object such as {\"order_id\": 7}.")
        );
    }
    if data.0.to_string().len() > store::LONGEST {
        return Err(store::too_long());
    }
    Ok(data)
}

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
    let data = checked(data)?;
    let lane = match priority.as_deref() {
        None | Some("normal" | "medium") => None,
        Some(priority) => Some(definition::lane(priority).ok_or_else(|| {
            UsherError::invalid(format!("priority \"{priority}\" is unknown")).hint(format!("Use one of: {}.", LANES.join(", ")))
        })?),
    };
    Ok(store::emit(installed, Event { organization, event_type, data, lane, followed: None })?)
}

/// Emits an event in the lane `emergency` and follows who has received it: a flow whose job is done, a system outside that has answered. Whoever has not
/// when `acknowledge_within` is over is told once: by a notice to the organization's admins and an event `usher.broadcast.unacknowledged`. Returns the
/// event's id.
///
/// Arguments: as of `emit_event`; `acknowledge_within`, a second to a week. Errors: as of `emit_event`, 22023 for another time.
#[pg_extern(sql = r#"
-- Spelt out, because "type" is no name that Rust would take.
CREATE FUNCTION usher.broadcast_event(organization text, type text, data jsonb DEFAULT '{}', acknowledge_within interval DEFAULT '60 s') RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn broadcast_event(
    organization: Option<String>,
    event_type: Option<String>,
    data: default!(Option<JsonB>, "'{}'"),
    acknowledge_within: default!(Option<Interval>, "'60 s'"),
) -> std::result::Result<Uuid, ErrorReport> {
    let installed = setup::current()?;
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    audit::note_legend("broadcast_event", organization)?;
    rates::take("broadcast_event", Some(organization))?;
    let event_type = UsherError::given(event_type, "the event's type")?;
    event_type::require(&event_type)?;
    let data = checked(data)?;
    let seconds = acknowledge_within.as_ref().map_or(60.0, crate::queue::seconds);
    if !(1.0..=604_800.0).contains(&seconds) {
        return Err(UsherError::invalid("acknowledge_within is no time between a second and a week")
            .hint("Give an interval such as '60 s'.")
            .into());
    }
    Ok(broadcast::broadcast(installed, organization, event_type, data, seconds)?)
}

/// Who is to receive a broadcast, and who has: `received` (a flow's job is done, a system outside has answered), `pending`, or `failed` (it is a dead
/// letter, or cancelled; running it again makes it pending).
///
/// Arguments: `event`, the id that `broadcast_event` returned. Errors: 42704 for an event that is none, or not of the caller's organizations.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity)]
fn event_receipts(
    event: Option<Uuid>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(receiver, String),
            name!(outside, bool),
            name!(state, String),
            name!(received_at, Option<TimestampWithTimeZone>),
            name!(error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let event = event.ok_or_else(|| UsherError::missing("the event's id"))?;
    let installed = setup::current()?;
    let mine = broadcast::readable()?;
    let _acting = role::internal(installed.owner);
    Ok(TableIterator::new(broadcast::receipts(event, mine)?))
}
