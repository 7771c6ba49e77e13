//! Writing an event, and jobs of it.

use super::outside::{self, Outside};
use crate::error::{Result, UsherError};
use crate::flow::emit_statement::Emission;
use crate::flow::event_type::Pattern;
use crate::flow::{cause, definition, switches};
use crate::guard::audit;
use crate::pg::{ids, relcache, role, spi, xact};
use crate::queue::pressure::{self, Asker, Place};
use crate::setup::Installed;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use std::cell::RefCell;
use std::collections::HashSet;
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

/// Who listens.
#[derive(Default)]
struct Listeners {
    flows: Vec<Subscriber>,
    outside: Vec<Outside>,
}

thread_local! {
    /// All of them, as of a generation of `usher.flows`.
    static SUBSCRIBERS: RefCell<(u64, Rc<Listeners>)> = RefCell::new((0, Rc::default()));
}

/// Runs with the owner's rights.
fn subscribers() -> Result<Rc<Listeners>> {
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
    let found = Rc::new(Listeners { flows: rows.into_iter().flatten().collect(), outside: outside::all()? });
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
    /// Its id, if it is remembered who is to receive it.
    pub followed: Option<Uuid>,
}

/// Flows that some of these organizations have switched off, with those. Runs with the owner's rights.
fn switched_off(organizations: &[Uuid]) -> Result<HashSet<([u8; 16], i32)>> {
    let found = spi::read_all(
        "SELECT s.organization_id, s.flow_id FROM usher.flow_switches AS s WHERE s.organization_id = ANY ($1)",
        &[spi::arg(organizations.to_vec())],
        |row| Ok((row.get::<Uuid>(1)?, row.get::<i32>(2)?.unwrap_or_default())),
    )?;
    Ok(found.into_iter().filter_map(|(organization, flow)| Some((*organization?.as_bytes(), flow))).collect())
}

/// In `$12`: who listens does without this event.
const LEFT_OUT: i32 = -1;

/// Events of one type, and a job of each for each flow that listens: `$1` organizations, `$2` ids, `$3` data, `$4` the jobs that cause
/// them, `$5` trails; `$6` type, `$7` priority, `$8` by whom, `$9` hop; `$10` flows, `$11` versions, and for each event and flow, or for
/// each flow if it is the same for all events, `$12` the limit that holds the job back (0: none) and `$13` the lane; `$14` systems outside and `$15`
/// whose events they get (NULL: everybody's). A system that gets the organization's events and everybody's gets each once.
/// No join: however many they are, no plan can be a bad one.
const EMIT: &str = "
WITH t AS MATERIALIZED (
    SELECT u.*, pg_catalog.clock_timestamp() AS emitted_at
      FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::uuid[], $5::text[]) WITH ORDINALITY AS u (organization_id, id, data, cause, trail, n)
     ORDER BY u.n),
e AS (
    INSERT INTO usher.events (organization_id, id, type, data, priority, emitted_at, emitted_by, cause, hop)
    SELECT t.organization_id, t.id, $6, t.data, $7, t.emitted_at, $8, t.cause, $9 FROM t ORDER BY t.n),
m AS (
    SELECT t.*, s.flow_id, s.version, s.m, CASE WHEN pg_catalog.cardinality($12::integer[]) > s.of THEN (t.n - 1) * s.of + s.m ELSE s.m END AS at
      FROM t CROSS JOIN (SELECT u.*, pg_catalog.cardinality($10::integer[]) AS of
                           FROM unnest($10::integer[], $11::integer[]) WITH ORDINALITY AS u (flow_id, version, m)) AS s),
p AS MATERIALIZED (
    SELECT m.*, ($12::integer[])[m.at] AS held_by, ($13::smallint[])[m.at] AS lane FROM m WHERE ($12::integer[])[m.at] <> -1 ORDER BY m.n, m.m),
j AS MATERIALIZED (
    SELECT p.*, usher.uuid_v7() AS job, CASE WHEN p.held_by = 0 THEN usher.take_seq(p.lane) ELSE usher.take_later_seq() END AS seq,
           pg_catalog.jsonb_build_object('id', p.id, 'type', $6, 'data', p.data, 'emitted_at', p.emitted_at, 'emitted_by', $8) AS new
      FROM p)";

/// Jobs that limits hold back.
const HELD: &str = ",
w AS (
    INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, waiting_for, held_by)
    SELECT j.seq, j.job, j.organization_id, pg_catalog.now(), j.cause, j.flow_id, j.version, j.lane, $9, 'R', j.trail, j.new, 'queue full', j.held_by
      FROM j WHERE j.held_by <> 0)";

/// What systems outside get.
const OUTSIDE: &str = ",
x AS (
    INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, cause, lane, hop, op, new, waiting_for, target_system)
    SELECT pg_catalog.nextval('usher.queue_seq'), usher.uuid_v7(), o.organization_id, pg_catalog.now(), o.cause, COALESCE($7, 3), $9, 'R',
           pg_catalog.jsonb_build_object('id', o.id, 'type', $6, 'data', o.data, 'emitted_at', o.emitted_at, 'emitted_by', $8), 'external worker', o.system
      FROM (SELECT t.*, s.system
              FROM t CROSS JOIN LATERAL (SELECT DISTINCT u.system FROM unnest($14::text[], $15::uuid[]) AS u (system, organization_id)
                                          WHERE u.organization_id IS NULL OR u.organization_id = t.organization_id) AS s
             ORDER BY t.n, s.system) AS o
    RETURNING id, organization_id, target_system, new)";

/// Jobs that are ready.
const READY: &str = "
INSERT INTO usher.jobs (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
SELECT j.seq, j.job, j.organization_id, pg_catalog.now(), j.cause, j.flow_id, j.version, j.lane, $9, 'R', j.trail, j.new FROM j WHERE j.held_by = 0";

/// Who is to receive it, for events that are followed.
const RECEIVERS: &str = ",
r AS (
    INSERT INTO usher.broadcast_receivers (organization_id, event_id, job_id, receiver, outside)
    SELECT j.organization_id, j.id, j.job, (SELECT f.name FROM usher.flows AS f WHERE f.id = j.flow_id), false FROM j
    UNION ALL SELECT x.organization_id, (x.new ->> 'id')::uuid, x.id, x.target_system, true FROM x)";

/// The statement, with the parts that these events need: most need few, and each costs every event.
fn statement(held: bool, outside: bool, followed: bool) -> String {
    let parts = [(true, EMIT), (held, HELD), (outside || followed, OUTSIDE), (followed, RECEIVERS), (true, READY)];
    parts.into_iter().filter(|(needed, _)| *needed).map(|(_, part)| part).collect()
}

/// Where the jobs of some events go, for each event and flow in turn, or just for each flow.
struct Places {
    held: Vec<i32>,
    lanes: Vec<i16>,
    /// Jobs that will be ready.
    ready: usize,
}

/// `wished`: the lane of all jobs of these events. Limits are asked in the order of the events.
fn places(meant: &[&Subscriber], organizations: &[Uuid], wished: Option<usize>, asker: Asker) -> Result<Places> {
    let lane = |subscriber: &Subscriber| wished.unwrap_or(subscriber.lane);
    let switched = meant.iter().any(|subscriber| subscriber.switched);
    if !switched && !pressure::concerns(meant.iter().map(|subscriber| subscriber.flow))? {
        return Ok(Places {
            held: vec![0; meant.len()],
            lanes: meant.iter().map(|subscriber| lane(subscriber) as i16).collect(),
            ready: meant.len() * organizations.len(),
        });
    }
    let off = if switched { switched_off(organizations)? } else { HashSet::new() };
    let most = meant.len() * organizations.len();
    let mut places = Places { held: Vec::with_capacity(most), lanes: Vec::with_capacity(most), ready: 0 };
    for organization in organizations {
        for subscriber in meant {
            let (lane, held) = if off.contains(&(*organization.as_bytes(), subscriber.flow)) {
                (lane(subscriber), LEFT_OUT)
            } else {
                match pressure::admit(lane(subscriber), subscriber.flow, *organization, asker)? {
                    Place::Ready(lane) => (lane, 0),
                    Place::Later(limit) => (lane(subscriber), limit),
                }
            };
            places.ready += usize::from(held == 0);
            places.held.push(held);
            places.lanes.push(lane as i16);
        }
    }
    if places.held.iter().any(|held| *held > 0) {
        xact::note_due_changed();
    }
    Ok(places)
}

/// Events of one type that happen together.
struct Together<'a> {
    event_type: &'a str,
    organizations: &'a [Uuid],
    ids: Vec<Uuid>,
    data: DatumWithOid<'a>,
    causes: DatumWithOid<'a>,
    trails: Vec<Option<String>>,
    lane: Option<usize>,
    by: String,
    hop: i16,
    followed: bool,
    /// Emitted by the worker.
    own: bool,
}

/// Runs with the owner's rights.
fn write(events: Together<'_>) -> Result<()> {
    let all = subscribers()?;
    let meant: Vec<&Subscriber> = all.flows.iter().filter(|subscriber| subscriber.pattern.means(events.event_type)).collect();
    let outside: Vec<&Outside> =
        all.outside.iter().filter(|outside| outside.patterns.iter().any(|pattern| pattern.means(events.event_type))).collect();
    let asker = if events.own { Asker::Own } else { Asker::Event };
    let places = places(&meant, events.organizations, events.lane, asker)?;
    let sql = statement(places.held.iter().any(|held| *held > 0), !outside.is_empty(), events.followed);
    let made = spi::run(
        &sql,
        &[
            spi::arg(events.organizations.to_vec()),
            spi::arg(events.ids),
            events.data,
            events.causes,
            spi::arg(events.trails),
            spi::arg(events.event_type),
            spi::arg(events.lane.map(|lane| lane as i16)),
            spi::arg(events.by),
            spi::arg(events.hop),
            spi::arg(meant.iter().map(|subscriber| subscriber.flow).collect::<Vec<_>>()),
            spi::arg(meant.iter().map(|subscriber| subscriber.version).collect::<Vec<_>>()),
            spi::arg(places.held),
            spi::arg(places.lanes),
            spi::arg(outside.iter().map(|outside| outside.system.clone()).collect::<Vec<_>>()),
            spi::arg(outside.iter().map(|outside| outside.organization.map(Uuid::from_bytes)).collect::<Vec<_>>()),
        ],
    )?;
    if made != places.ready {
        return Err(UsherError::internal(format!("events made {made} jobs instead of {}", places.ready)));
    }
    Ok(())
}

/// Writes an event down and hands it to every flow that it means; returns its id.
pub fn emit(installed: Installed, event: Event) -> Result<Uuid> {
    let by = audit::author(None)?.actor;
    let _acting = role::internal(installed.owner);
    let (id, cause) = (event.followed.unwrap_or_else(ids::uuid_v7), cause::current());
    write(Together {
        event_type: &event.event_type,
        organizations: &[event.organization],
        ids: vec![id],
        data: spi::arg(vec![event.data]),
        causes: spi::arg(vec![cause.job.map(Uuid::from_bytes)]),
        trails: vec![cause::write_trail(&cause.trail)],
        lane: event.lane,
        by,
        hop: cause.hop,
        followed: event.followed.is_some(),
        own: false,
    })?;
    Ok(id)
}

/// Bytes that the data of an event may have.
pub const LONGEST: usize = 1_048_576;

pub fn too_long() -> UsherError {
    UsherError::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "the event's data is longer than 1 MB")
        .hint("Every flow that listens gets a copy: name a row that has the rest.")
}

const ANY_TOO_LONG: &str =
    "SELECT EXISTS (SELECT FROM unnest($1::jsonb[]) AS u (data) WHERE pg_catalog.pg_column_size(u.data) > $2)";

const ANY_HOMELESS: &str = "
SELECT EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id) WHERE NOT EXISTS (SELECT FROM usher.organizations AS o WHERE o.id = u.id))";

/// The events of a range of a flow's jobs, all in one statement.
pub fn emit_for_flow(emission: &Emission<'_>) -> Result<()> {
    let by = audit::author(None)?.actor;
    if spi::read::<bool>(ANY_TOO_LONG, &[emission.data.arg(), spi::arg(LONGEST as i32)])? == Some(true) {
        return Err(too_long());
    }
    if emission.unchecked && spi::read::<bool>(ANY_HOMELESS, &[emission.organizations.arg()])? == Some(true) {
        return Err(UsherError::state("an event needs an organization that exists")
            .hint("Let the flow's \"organization\" name one, or fill the row's organization_id."));
    }
    let organizations = emission.organizations.value::<Vec<Uuid>>()?.unwrap_or_default();
    let trail = |n: &i32| match emission.trails.as_slice() {
        [all] => all.clone(),
        each => each.get(*n as usize - 1).cloned().flatten(),
    };
    write(Together {
        event_type: emission.event_type,
        ids: organizations.iter().map(|_| ids::uuid_v7()).collect(),
        organizations: &organizations,
        data: emission.data.arg(),
        causes: emission.jobs.arg(),
        trails: emission.numbers.iter().map(trail).collect(),
        lane: None,
        by,
        hop: emission.hop,
        followed: false,
        own: false,
    })
}

/// Events of our own. Runs with the owner's rights.
pub fn tell(event_type: &str, organizations: &[Uuid], data: Vec<JsonB>) -> Result<()> {
    let nothing: Vec<Option<Uuid>> = vec![None; organizations.len()];
    write(Together {
        event_type,
        ids: organizations.iter().map(|_| ids::uuid_v7()).collect(),
        organizations,
        data: spi::arg(data),
        causes: spi::arg(nothing),
        trails: vec![None; organizations.len()],
        lane: Some(0),
        by: "pg_usher".to_owned(),
        hop: 0,
        followed: false,
        own: true,
    })
}
