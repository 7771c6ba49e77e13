//! Writing an event, and jobs of it.

use crate::error::{Result, UsherError};
use crate::flow::event_type::Pattern;
use crate::flow::{cause, definition, switches};
use crate::guard::audit;
use crate::pg::{ids, relcache, role, spi, xact};
use crate::queue::pressure::{self, Asker, Place};
use crate::setup::Installed;
use pgrx::{JsonB, Uuid};
use std::cell::RefCell;
use std::rc::Rc;

/// A flow that listens.
struct Subscriber {
    pattern: Pattern,
    flow: i32,
    version: i32,
    lane: usize,
    /// Some organization does without it.
    switched: bool,
}

thread_local! {
    /// All of them, as of a generation of `usher.flows`.
    static SUBSCRIBERS: RefCell<(u64, Rc<Vec<Subscriber>>)> = RefCell::new((0, Rc::default()));
}

/// Runs with the owner's rights.
fn subscribers() -> Result<Rc<Vec<Subscriber>>> {
    let generation = relcache::generation();
    let (known, found) = SUBSCRIBERS.with_borrow(|(known, found)| (*known, found.clone()));
    if known == generation {
        return Ok(found);
    }
    xact::remember_only_now();
    let rows = spi::read_all(
        &format!(
            "SELECT f.definition -> 'when' ->> 'event', f.id, f.version, f.definition ->> 'priority', f.definition ->> 'mode', {}
               FROM usher.flows f WHERE f.enabled AND f.definition -> 'when' ? 'event' ORDER BY f.id",
            switches::any()
        ),
        &[],
        |row| {
            // What was checked when the flow was created.
            let Ok(pattern) = Pattern::parse(&row.get::<String>(1)?.unwrap_or_default()) else { return Ok(None) };
            let own = row.get::<String>(4)?.and_then(|priority| definition::lane(&priority));
            let low = matches!(row.get::<String>(5)?.as_deref(), Some("async" | "batch"));
            Ok(Some(Subscriber {
                pattern,
                flow: row.get::<i32>(2)?.unwrap_or_default(),
                version: row.get::<i32>(3)?.unwrap_or_default(),
                lane: own.unwrap_or(if low { 4 } else { 3 }),
                switched: row.get::<bool>(6)?.unwrap_or(false),
            }))
        },
    )?;
    let found: Rc<Vec<Subscriber>> = Rc::new(rows.into_iter().flatten().collect());
    SUBSCRIBERS.set((generation, found.clone()));
    Ok(found)
}

/// An event that is about to happen.
pub struct Event {
    pub organization: Uuid,
    pub event_type: String,
    pub data: JsonB,
    /// None: each flow's own.
    pub lane: Option<usize>,
}

/// Flows that the organization has switched off. Runs with the owner's rights.
fn switched_off(organization: Uuid) -> Result<Vec<i32>> {
    let found = spi::read::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(s.flow_id) FROM usher.flow_switches AS s WHERE s.organization_id = $1",
        &[spi::arg(organization)],
    )?;
    Ok(found.unwrap_or_default())
}

/// The event, and a job of it for each flow in one go: `$1` to `$4` flows, versions, lanes and the limits that hold them back; nothing
/// in them where nobody listens.
const EMIT: &str = "
WITH e AS (
    INSERT INTO usher.events (organization_id, id, type, data, priority, emitted_by, cause, hop)
    VALUES ($5, $6, $7, $8, $9, $10, $11, $12) RETURNING organization_id, id, type, data, emitted_at, emitted_by, hop),
s AS MATERIALIZED (
    SELECT u.flow_id, u.version, u.lane, u.held_by, usher.uuid_v7() AS id,
           CASE WHEN u.held_by IS NULL THEN usher.take_seq(u.lane) ELSE usher.take_later_seq() END AS seq
      FROM unnest($1::integer[], $2::integer[], $3::smallint[], $4::integer[]) WITH ORDINALITY AS u (flow_id, version, lane, held_by, n)
     ORDER BY u.n),
j AS (
    SELECT s.*, e.organization_id, e.hop,
           pg_catalog.jsonb_build_object('id', e.id, 'type', e.type, 'data', e.data, 'emitted_at', e.emitted_at, 'emitted_by', e.emitted_by) AS new
      FROM s CROSS JOIN e),
w AS (
    INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, waiting_for, held_by)
    SELECT j.seq, j.id, j.organization_id, pg_catalog.now(), $11, j.flow_id, j.version, j.lane, j.hop, 'R', $13, j.new, 'queue full', j.held_by
      FROM j WHERE j.held_by IS NOT NULL)
INSERT INTO usher.jobs (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
SELECT j.seq, j.id, j.organization_id, pg_catalog.now(), $11, j.flow_id, j.version, j.lane, j.hop, 'R', $13, j.new FROM j WHERE j.held_by IS NULL";

/// Writes an event down and hands it to every flow that it means; returns its id.
pub fn emit(installed: Installed, event: Event) -> Result<Uuid> {
    let by = audit::author(None)?.actor;
    let _acting = role::internal(installed.owner);
    let all = subscribers()?;
    let mut meant: Vec<&Subscriber> = all.iter().filter(|subscriber| subscriber.pattern.means(&event.event_type)).collect();
    if meant.iter().any(|subscriber| subscriber.switched) {
        let off = switched_off(event.organization)?;
        meant.retain(|subscriber| !off.contains(&subscriber.flow));
    }
    let (id, cause) = (ids::uuid_v7(), cause::current());
    let job = cause.job.map(Uuid::from_bytes);
    let priority = event.lane.map(|lane| lane as i16);
    let (mut flows, mut versions, mut lanes, mut held) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for subscriber in meant {
        let wished = event.lane.unwrap_or(subscriber.lane);
        let (lane, limit) = match pressure::admit(wished, subscriber.flow, event.organization, Asker::Event)? {
            Place::Ready(lane) => (lane, None),
            Place::Later(limit) => (wished, Some(limit)),
        };
        flows.push(subscriber.flow);
        versions.push(subscriber.version);
        lanes.push(lane as i16);
        held.push(limit);
    }
    if held.iter().any(Option::is_some) {
        xact::note_due_changed();
    }
    let wanted = flows.iter().zip(&held).filter(|(_, limit)| limit.is_none()).count();
    let made = spi::run(
        EMIT,
        &[
            spi::arg(flows),
            spi::arg(versions),
            spi::arg(lanes),
            spi::arg(held),
            spi::arg(event.organization),
            spi::arg(id),
            spi::arg(event.event_type),
            spi::arg(event.data),
            spi::arg(priority),
            spi::arg(by),
            spi::arg(job),
            spi::arg(cause.hop),
            spi::arg(cause::write_trail(&cause.trail)),
        ],
    )?;
    if made != wanted {
        return Err(UsherError::internal(format!("an event made {made} jobs instead of {wanted}")));
    }
    Ok(id)
}
