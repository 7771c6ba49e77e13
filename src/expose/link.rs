//! Links that people write through the views of `usher.expose_api()`.
//!
//! The views name the two sides of a link as each kind's clients know them, so an INSTEAD OF trigger translates. It checks
//! the caller and then writes with the owner's rights: nobody needs rights on `usher.links` itself, whose other columns
//! belong to the flows.

use crate::conflict;
use crate::error::{Result as Outcome, UsherError};
use crate::pg::trigger::raise;
use crate::pg::{ids, role, spi, trigger as pg_trigger};
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use pgrx::spi::SpiTupleTable;
use pgrx::trigger_support::PgTriggerOperation as Op;
use pgrx::{JsonB, Uuid};
use serde_json::{Map, Value};

type Row<'a> = PgHeapTuple<'a, pgrx::AllocatedByRust>;

const STATES: [&str; 4] = ["pending", "in_progress", "synced", "failed"];

/// The trigger's arguments: kind, column of the left side, column of the right side, further ids.
struct Shape {
    kind: String,
    left: String,
    right: String,
    ids: Vec<String>,
}

/// A link as a view shows it.
#[derive(Clone, PartialEq)]
struct Link {
    id: Option<Uuid>,
    organization: Option<Uuid>,
    left: Option<String>,
    right: Option<String>,
    ids: Map<String, Value>,
    status: Option<String>,
    last_synced_at: Option<TimestampWithTimeZone>,
    error_message: Option<String>,
    metadata: Option<Value>,
    created_at: Option<TimestampWithTimeZone>,
    updated_at: Option<TimestampWithTimeZone>,
}

fn broken(error: impl std::fmt::Display) -> UsherError {
    UsherError::internal(format!("a link could not be read: {error}"))
}

/// Somebody inserts, updates or deletes through a view of links.
#[pg_trigger]
fn write_link<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    Ok(raise(written(trigger)))
}

/// The row as it stands now; None when somebody else has deleted it meanwhile.
fn written<'a>(trigger: &'a PgTrigger<'a>) -> Outcome<Option<Row<'a>>> {
    let installed = setup::current()?;
    let mut arguments = pg_trigger::arguments(trigger)?.into_iter();
    let (Some(kind), Some(left), Some(right)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(UsherError::internal("a view of links lacks its arguments").hint("Run SELECT usher.setup();"));
    };
    let shape = Shape { kind, left, right, ids: arguments.collect() };
    let missing = || UsherError::internal("a view of links was written without a row");
    match trigger.op().map_err(broken)? {
        Op::Insert => {
            let mut row = trigger.new().ok_or_else(missing)?.into_owned();
            let link = insert(installed, &shape, read(&shape, &row)?)?;
            show(&shape, &mut row, link)?;
            Ok(Some(row))
        }
        Op::Update => {
            let mut row = trigger.new().ok_or_else(missing)?.into_owned();
            let old = trigger.old().ok_or_else(missing)?.into_owned();
            let Some(link) = update(installed, &shape, &read(&shape, &old)?, read(&shape, &row)?)? else { return Ok(None) };
            show(&shape, &mut row, link)?;
            Ok(Some(row))
        }
        _ => {
            let row = trigger.old().ok_or_else(missing)?.into_owned();
            Ok(delete(installed, &read(&shape, &row)?)?.then_some(row))
        }
    }
}

fn read(shape: &Shape, row: &Row<'_>) -> Outcome<Link> {
    let text = |name: &str| row.get_by_name::<String>(name).map_err(broken);
    let time = |name: &str| row.get_by_name::<TimestampWithTimeZone>(name).map_err(broken);
    let mut ids = Map::new();
    for name in &shape.ids {
        if let Some(value) = text(name)? {
            ids.insert(name.clone(), Value::String(canonical(value)));
        }
    }
    Ok(Link {
        id: row.get_by_name::<Uuid>("id").map_err(broken)?,
        organization: row.get_by_name::<Uuid>("organization_id").map_err(broken)?,
        left: text(&shape.left)?.map(canonical),
        right: text(&shape.right)?.map(canonical),
        ids,
        status: text("status")?,
        last_synced_at: time("last_synced_at")?,
        error_message: text("error_message")?,
        metadata: row.get_by_name::<JsonB>("metadata").map_err(broken)?.map(|json| json.0),
        created_at: time("created_at")?,
        updated_at: time("updated_at")?,
    })
}

/// A uuid as PostgreSQL writes it, so that it meets the links that flows have written; any other id as it is.
fn canonical(id: String) -> String {
    if id.len() == 36 && uuid::Uuid::try_parse(&id).is_ok() { id.to_ascii_lowercase() } else { id }
}

fn show(shape: &Shape, row: &mut Row<'_>, link: Link) -> Outcome<()> {
    row.set_by_name("id", link.id).map_err(broken)?;
    row.set_by_name("organization_id", link.organization).map_err(broken)?;
    row.set_by_name(&shape.left, link.left).map_err(broken)?;
    row.set_by_name(&shape.right, link.right).map_err(broken)?;
    for name in &shape.ids {
        row.set_by_name(name, link.ids.get(name).and_then(Value::as_str).map(str::to_owned)).map_err(broken)?;
    }
    row.set_by_name("status", link.status).map_err(broken)?;
    row.set_by_name("last_synced_at", link.last_synced_at).map_err(broken)?;
    row.set_by_name("metadata", link.metadata.map(JsonB)).map_err(broken)?;
    row.set_by_name("created_at", link.created_at).map_err(broken)?;
    row.set_by_name("updated_at", link.updated_at).map_err(broken)
}

/// The organization of a new link: the one given, else the only one that the caller manages.
fn organization(given: Option<Uuid>) -> Outcome<Uuid> {
    if let Some(id) = given {
        return identity::organization(&id.to_string(), Right::Manage);
    }
    match identity::organizations(Right::Manage)?.as_slice() {
        [only] => Ok(*only),
        [] => Err(UsherError::forbidden("you manage no organization, so you may not write links")
            .detail(format!("You act as \"{}\".", identity::actor()))
            .hint("Ask an admin of the organization to do it, or to make you an admin with usher.grant_membership().")),
        _ => Err(UsherError::new(PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION, "organization_id is missing")
            .hint("You manage more than one organization: say which.")),
    }
}

fn manages(link: &Link) -> Outcome<Uuid> {
    let id = link.organization.ok_or_else(|| broken("it has no organization"))?;
    identity::organization(&id.to_string(), Right::Manage)
}

fn checked(shape: &Shape, link: &Link) -> Outcome<()> {
    if link.left.as_deref().is_none_or(|id| id.trim().is_empty()) {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION, format!("{} is missing", shape.left))
            .hint(format!("A link of kind {} needs its {}.", shape.kind, shape.left)));
    }
    if link.right.as_deref() == Some("") {
        return Err(
            UsherError::invalid(format!("{} is empty", shape.right)).hint("Leave it out, or give NULL, until it is known.")
        );
    }
    if let Some(status) = link.status.as_deref().filter(|status| !STATES.contains(status)) {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_CHECK_VIOLATION, format!("status \"{status}\" is unknown"))
            .hint(format!("Use one of: {}.", STATES.join(", "))));
    }
    Ok(())
}

type Times = [Option<TimestampWithTimeZone>; 3];

/// last_synced_at, updated_at, created_at.
fn times(row: &SpiTupleTable<'_>) -> Outcome<Times> {
    Ok([row.get(1)?, row.get(2)?, row.get(3)?])
}

fn insert(installed: Installed, shape: &Shape, link: Link) -> Outcome<Link> {
    let organization = organization(link.organization)?;
    let status = link.status.clone().unwrap_or_else(|| "pending".to_owned());
    let link = Link {
        id: link.id.or_else(|| Some(ids::uuid_v7())),
        organization: Some(organization),
        status: Some(status),
        metadata: link.metadata.or_else(|| Some(Value::Object(Map::new()))),
        ..link
    };
    checked(shape, &link)?;
    let _acting = role::internal(installed.owner);
    let written = spi::all(
        "INSERT INTO usher.links (organization_id, id, kind, left_id, right_id, ids, status, last_synced_at, error_message, metadata, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, COALESCE($8, CASE WHEN $7 = 'synced' THEN pg_catalog.now() END), $9, $10, COALESCE($11, pg_catalog.now()))
         ON CONFLICT DO NOTHING RETURNING last_synced_at, updated_at, created_at",
        &[
            spi::arg(organization),
            spi::arg(link.id),
            spi::arg(shape.kind.as_str()),
            spi::arg(link.left.clone()),
            spi::arg(link.right.clone()),
            spi::arg(JsonB(Value::Object(link.ids.clone()))),
            spi::arg(link.status.clone()),
            spi::arg(link.last_synced_at),
            spi::arg(link.error_message.clone()),
            spi::arg(link.metadata.clone().map(JsonB)),
            spi::arg(link.created_at),
        ],
        times,
    )?;
    match written.into_iter().next() {
        Some([last_synced_at, updated_at, created_at]) => Ok(Link { last_synced_at, updated_at, created_at, ..link }),
        None => {
            Err(UsherError::new(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, format!("this {} link exists already", shape.kind))
                .detail(format!("{} {}", shape.left, link.left.unwrap_or_default()))
                .hint("Update the link that is there; each pair is linked once in an organization."))
        }
    }
}

/// Writes what differs, so that what a flow has written meanwhile stays.
fn update(installed: Installed, shape: &Shape, old: &Link, new: Link) -> Outcome<Option<Link>> {
    let organization = manages(old)?;
    if new.organization != old.organization || new.id != old.id {
        return Err(UsherError::invalid("a link keeps its id and its organization")
            .hint("Delete it and make one in the other organization, if you manage both."));
    }
    if new.status.is_none() {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION, "status is missing")
            .hint(format!("Use one of: {}.", STATES.join(", "))));
    }
    let new = Link { metadata: new.metadata.or_else(|| Some(Value::Object(Map::new()))), ..new };
    checked(shape, &new)?;
    let synced = new.status.as_deref() == Some("synced") && new.status != old.status && new.last_synced_at == old.last_synced_at;
    // Ids of other names stay: an id that was taken away is set to null and stripped.
    let mut changes = new.ids.clone();
    for name in old.ids.keys().filter(|name| !new.ids.contains_key(*name)) {
        changes.insert(name.clone(), Value::Null);
    }
    let _acting = role::internal(installed.owner);
    let written = spi::all(
        "UPDATE usher.links AS l
            SET left_id = CASE WHEN $3 THEN $4 ELSE l.left_id END, right_id = CASE WHEN $5 THEN $6 ELSE l.right_id END,
                ids = CASE WHEN $7 THEN pg_catalog.jsonb_strip_nulls(l.ids || $8) ELSE l.ids END, status = CASE WHEN $9 THEN $10 ELSE l.status END,
                base = CASE WHEN $3 OR $5 THEN NULL ELSE l.base END, paired = l.paired AND NOT ($3 OR $5),
                last_synced_at = CASE WHEN $11 THEN pg_catalog.now() WHEN $12 THEN $13 ELSE l.last_synced_at END,
                error_message = CASE WHEN $14 THEN $15 ELSE l.error_message END, metadata = CASE WHEN $16 THEN $17 ELSE l.metadata END
          WHERE l.organization_id = $1 AND l.id = $2 RETURNING l.last_synced_at, l.updated_at, l.created_at",
        &[
            spi::arg(organization),
            spi::arg(old.id),
            spi::arg(new.left != old.left),
            spi::arg(new.left.clone()),
            spi::arg(new.right != old.right),
            spi::arg(new.right.clone()),
            spi::arg(new.ids != old.ids),
            spi::arg(JsonB(Value::Object(changes))),
            spi::arg(new.status != old.status),
            spi::arg(new.status.clone()),
            spi::arg(synced),
            spi::arg(new.last_synced_at != old.last_synced_at),
            spi::arg(new.last_synced_at),
            spi::arg(new.error_message != old.error_message),
            spi::arg(new.error_message.clone()),
            spi::arg(new.metadata != old.metadata),
            spi::arg(new.metadata.clone().map(JsonB)),
        ],
        times,
    )?;
    if new.left != old.left || new.right != old.right {
        // Other rows have agreed on nothing yet.
        conflict::forget_pair(organization, old.id)?;
    }
    let link = |[last_synced_at, updated_at, created_at]: Times| Link { last_synced_at, updated_at, created_at, ..new };
    Ok(written.into_iter().next().map(link))
}

fn delete(installed: Installed, link: &Link) -> Outcome<bool> {
    let organization = manages(link)?;
    let _acting = role::internal(installed.owner);
    let gone =
        spi::run("DELETE FROM usher.links WHERE organization_id = $1 AND id = $2", &[spi::arg(organization), spi::arg(link.id)])?;
    conflict::forget_pair(organization, link.id)?;
    Ok(gone > 0)
}

#[cfg(test)]
mod unit {
    use super::canonical;

    #[test]
    fn a_uuid_has_one_form_and_other_ids_stay() {
        let id = "0b8a4c1e-6a0f-4a53-9d5e-3c2b1a0f9e8d";
        assert_eq!(canonical(id.to_uppercase()), id);
        // 32 digits may be somebody's hash.
        assert_eq!(canonical(id.replace('-', "")), id.replace('-', ""));
        assert_eq!(canonical("INV-0007".to_owned()), "INV-0007");
    }
}
