//! Emergency events whose receipt is followed.
//!
//! Owns `usher.broadcasts` and `usher.broadcast_receivers`. A receipt is nothing by itself: a flow has received the event when its job is done, a
//! system outside when it has answered. What is left for the deadline is to look once, and to tell.

use super::store::{self, Event};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::{catalog, ids, role, spi, xact};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is said when somebody has not received one in time.
const UNACKNOWLEDGED: &str = "usher.broadcast.unacknowledged";

/// Receivers `r` of a broadcast with their jobs' fate. Not by the view of all jobs, which looks at who asks.
const STATES: &str = "
SELECT r.organization_id, r.event_id, r.receiver, r.outside, s.state, s.at, s.error
  FROM usher.broadcast_receivers AS r
 CROSS JOIN LATERAL (
       SELECT x.state, x.at, x.error
         FROM (SELECT 1 AS n, 'failed' AS state, NULL::timestamptz AS at, d.error_message AS error
                 FROM usher.dead_letters AS d WHERE d.organization_id = r.organization_id AND d.id = r.job_id
               UNION ALL
               SELECT 2, 'pending', NULL, w.error_message FROM usher.queue_waiting AS w WHERE w.organization_id = r.organization_id AND w.id = r.job_id
               UNION ALL
               SELECT 3, 'pending', NULL, NULL FROM usher.ready_jobs AS q WHERE q.organization_id = r.organization_id AND q.id = r.job_id
               UNION ALL
               SELECT 4, CASE WHEN h.cancelled THEN 'failed' ELSE 'received' END, CASE WHEN NOT h.cancelled THEN h.finished_at END,
                      CASE WHEN h.cancelled THEN COALESCE(h.error_message, 'cancelled') END
                 FROM usher.job_history AS h WHERE h.organization_id = r.organization_id AND h.id = r.job_id
               UNION ALL
               SELECT 5, 'received', (SELECT b.finished_at FROM usher.job_batches AS b
                                       WHERE b.lane = j.lane AND b.last_seq >= j.seq AND j.seq <@ b.done ORDER BY b.last_seq LIMIT 1), NULL
                 FROM usher.jobs AS j WHERE j.organization_id = r.organization_id AND j.id = r.job_id
               UNION ALL
               SELECT 6, 'forgotten', NULL, NULL) AS x
        ORDER BY x.n LIMIT 1) AS s";

/// Emits an event in the emergency lane and remembers who is to receive it within some seconds. Returns its id.
pub fn broadcast(installed: Installed, organization: Uuid, event_type: String, data: JsonB, seconds: f64) -> Result<Uuid> {
    let by = audit::author(None)?.actor;
    let id = ids::uuid_v7();
    let acting = role::internal(installed.owner);
    spi::run(
        "INSERT INTO usher.broadcasts (organization_id, event_id, type, broadcast_by, broadcast_at, due_at)
         SELECT $1, $2, $3, $4, now.at, now.at + $5 * interval '1 second' FROM (SELECT pg_catalog.clock_timestamp() AS at OFFSET 0) AS now",
        &[spi::arg(organization), spi::arg(id), spi::arg(event_type.as_str()), spi::arg(by), spi::arg(seconds)],
    )?;
    drop(acting);
    store::emit(installed, Event { organization, event_type: event_type.clone(), data, lane: Some(0), followed: Some(id) })?;
    let _acting = role::internal(installed.owner);
    let receivers = spi::one::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.broadcast_receivers AS r WHERE r.organization_id = $1 AND r.event_id = $2",
        &[spi::arg(organization), spi::arg(id)],
    )?;
    if receivers == Some(0) {
        warning!("nobody listens to \"{event_type}\" in this organization: no flow, and no system outside");
    }
    xact::note_due_changed();
    Ok(id)
}

/// A receiver and what became of it.
pub type Receipt = (String, bool, String, Option<TimestampWithTimeZone>, Option<String>);

/// Who has received an event, among the caller's organizations. Runs with the owner's rights.
pub fn receipts(event: Uuid, mine: Vec<Uuid>) -> Result<Vec<Receipt>> {
    let known = spi::read::<bool>(
        "SELECT true FROM usher.broadcasts AS b WHERE b.event_id = $1 AND b.organization_id = ANY ($2)",
        &[spi::arg(event), spi::arg(mine.clone())],
    )?;
    if known.is_none() {
        return Err(UsherError::not_found(format!("event {event} is no broadcast, or not one of yours")).hint(
            "SELECT event_id, type FROM usher.broadcasts shows those that you may see; usher.broadcast_event() makes one.",
        ));
    }
    spi::read_all(
        &format!("{STATES} WHERE r.event_id = $1 AND r.organization_id = ANY ($2) ORDER BY r.receiver, r.outside"),
        &[spi::arg(event), spi::arg(mine)],
        |row| {
            Ok((
                row.get::<String>(3)?.unwrap_or_default(),
                row.get::<bool>(4)?.unwrap_or(false),
                row.get::<String>(5)?.unwrap_or_default(),
                row.get::<TimestampWithTimeZone>(6)?,
                row.get::<String>(7)?,
            ))
        },
    )
}

/// A broadcast that somebody has not received in time.
pub struct Unreceived {
    pub organization: Uuid,
    pub event: Uuid,
    pub event_type: String,
    /// `{"receiver": …, "outside": …, "state": …, "error": …}` of each.
    pub missing: Vec<Value>,
}

/// What a look at the deadlines has brought.
#[derive(Default)]
pub struct Looked {
    pub unreceived: Vec<Unreceived>,
    /// Seconds until the next deadline.
    pub again: Option<f64>,
}

/// Broadcasts that are looked at in one transaction.
const MOST: i64 = 100;

/// Deadlines that have passed: settled, whoever has received them. Nobody waits for anybody.
fn due() -> Result<Vec<Unreceived>> {
    let rows = spi::all(
        "WITH d AS MATERIALIZED (
             SELECT b.organization_id, b.event_id, b.type FROM usher.broadcasts AS b
              WHERE b.settled_at IS NULL AND b.due_at <= (SELECT pg_catalog.clock_timestamp()) ORDER BY b.due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
         SELECT d.organization_id, d.event_id, d.type FROM d",
        &[spi::arg(MOST)],
        |row| Ok((row.get::<Uuid>(1)?, row.get::<Uuid>(2)?, row.get::<String>(3)?.unwrap_or_default())),
    )?;
    let due: BTreeMap<[u8; 16], (Uuid, String)> =
        rows.into_iter().filter_map(|(organization, event, name)| Some((*event?.as_bytes(), (organization?, name)))).collect();
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let organizations: Vec<Uuid> = due.values().map(|(organization, _)| *organization).collect();
    let events: Vec<Uuid> = due.keys().copied().map(Uuid::from_bytes).collect();
    let states = spi::read_all(
        &format!(
            "SELECT s.event_id, s.receiver, s.outside, s.state, s.error FROM ({STATES}) AS s
              WHERE s.organization_id = ANY ($1) AND s.event_id = ANY ($2) AND s.state NOT IN ('received', 'forgotten') ORDER BY s.event_id, s.receiver"
        ),
        &[spi::arg(organizations.clone()), spi::arg(events.clone())],
        |row| {
            let told = json!({
                "receiver": row.get::<String>(2)?, "outside": row.get::<bool>(3)?, "state": row.get::<String>(4)?, "error": row.get::<String>(5)?
            });
            Ok((row.get::<Uuid>(1)?, told))
        },
    )?;
    let mut missing: BTreeMap<[u8; 16], Vec<Value>> = BTreeMap::new();
    for (event, told) in states {
        if let Some(event) = event {
            missing.entry(*event.as_bytes()).or_default().push(told);
        }
    }
    let escalated: Vec<bool> = due.keys().map(|event| missing.contains_key(event)).collect();
    spi::run(
        "UPDATE usher.broadcasts AS b SET settled_at = pg_catalog.clock_timestamp(), escalated = u.escalated
           FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS u (organization_id, event_id, escalated)
          WHERE b.organization_id = u.organization_id AND b.event_id = u.event_id",
        &[spi::arg(organizations), spi::arg(events), spi::arg(escalated)],
    )?;
    Ok(due
        .into_iter()
        .filter_map(|(event, (organization, event_type))| {
            let missing = missing.remove(&event)?;
            Some(Unreceived { organization, event: Uuid::from_bytes(event), event_type, missing })
        })
        .collect())
}

/// Looks at the deadlines that have passed, and emits an event for each broadcast that somebody has not received. Runs with the owner's rights.
pub fn look(installed: Installed) -> Result<Looked> {
    // The table of what nobody uses is an empty file.
    if !installed.up_to_date || catalog::is_unused("broadcasts") {
        return Ok(Looked::default());
    }
    let unreceived = due()?;
    if !unreceived.is_empty() {
        let data =
            |one: &Unreceived| JsonB(json!({"event": one.event.to_string(), "type": one.event_type, "unreceived": one.missing}));
        store::tell(
            UNACKNOWLEDGED,
            &unreceived.iter().map(|one| one.organization).collect::<Vec<_>>(),
            unreceived.iter().map(data).collect(),
        )?;
    }
    let again = spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(b.due_at) - pg_catalog.clock_timestamp())::float8 FROM usher.broadcasts AS b WHERE b.settled_at IS NULL",
        &[],
    )?;
    Ok(Looked { unreceived, again: again.map(|seconds| seconds.max(0.0)) })
}

/// Forgets broadcasts with the history of their jobs. Called once a minute.
pub fn prune(keep_days: i32) -> Result<()> {
    if catalog::is_unused("broadcasts") {
        return Ok(());
    }
    spi::run(
        "DELETE FROM usher.broadcasts AS b WHERE b.settled_at < pg_catalog.now() - $1 * interval '1 day'",
        &[spi::arg(keep_days)],
    )?;
    Ok(())
}

/// The organizations whose events the caller may read.
pub fn readable() -> Result<Vec<Uuid>> {
    identity::organizations(identity::Right::Read)
}
