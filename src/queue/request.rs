//! Putting requested jobs into the queue.

use super::asked::Asked;
use super::options::Options;
use super::pressure::{self, Asker, Place};
use super::{keys, life};
use crate::error::{Result, UsherError};
use crate::flow::cause;
use crate::flow::definition::lane;
use crate::flow::switches;
use crate::pg::spi::Raw;
use crate::pg::{ids, role, spi, xact};
use crate::registry::identity::{self, Right};
use crate::registry::systems;
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use std::cell::RefCell;
use std::rc::Rc;

/// What a caller of `enqueue_sync_job` asks for.
pub struct Request {
    pub organization: Uuid,
    pub source: String,
    pub target: String,
    pub lane: usize,
    /// False: the caller named no lane, the flow's own counts.
    pub lane_given: bool,
}

fn given(value: Option<String>, what: &str) -> Result<String> {
    value.filter(|text| !text.trim().is_empty()).ok_or_else(|| {
        UsherError::invalid(format!("{what} is missing"))
            .hint(format!("Give {what}: enqueue_sync_job(organization, source_system, target_system, payload)."))
    })
}

pub fn check(
    organization: Option<String>,
    source: Option<String>,
    target: Option<String>,
    priority: Option<String>,
) -> Result<Request> {
    setup::for_writing()?;
    let organization = identity::organization(&given(organization, "the organization")?, Right::Manage)?;
    let priority = priority.filter(|text| text != "normal");
    let chosen = match &priority {
        None => 3,
        Some(priority) => lane(priority).ok_or_else(|| {
            UsherError::invalid(format!("priority \"{priority}\" is unknown"))
                .hint(format!("Use one of: {}.", crate::queue::LANES.join(", ")))
        })?,
    };
    Ok(Request {
        organization,
        source: given(source, "the source system")?,
        target: given(target, "the target system")?,
        lane: chosen,
        lane_given: priority.is_some(),
    })
}

/// A flow that takes requests.
#[derive(Clone)]
struct Route {
    source: String,
    target: String,
    action: String,
    name: String,
    flow: i32,
    version: i32,
    lane: i16,
    /// Some organization does without it.
    switched: bool,
}

thread_local! {
    /// Every route, as of a generation of `usher.flows`.
    static ROUTES: RefCell<(u64, Rc<Vec<Route>>)> = RefCell::new((0, Rc::default()));
}

/// The flows that take requests. Runs with the owner's rights.
fn all_routes() -> Result<Rc<Vec<Route>>> {
    let generation = crate::pg::relcache::generation();
    let (known, routes) = ROUTES.with_borrow(|(known, routes)| (*known, routes.clone()));
    if known == generation {
        return Ok(routes);
    }
    xact::remember_only_now();
    let routes = Rc::new(spi::read_all(
        &format!(
            "SELECT f.definition ->> 'from', f.definition ->> 'to', f.definition -> 'when' ->> 'request', f.name, f.id, f.version,
                    f.definition ->> 'priority', f.definition ->> 'mode', {}
               FROM usher.flows f WHERE f.definition -> 'when' ? 'request' ORDER BY f.name",
            switches::any()
        ),
        &[],
        |row| {
            let own = row.get::<String>(7)?.and_then(|priority| lane(&priority));
            let low = matches!(row.get::<String>(8)?.as_deref(), Some("async" | "batch"));
            Ok(Route {
                source: row.get::<String>(1)?.unwrap_or_default(),
                target: row.get::<String>(2)?.unwrap_or_default(),
                action: row.get::<String>(3)?.unwrap_or_default(),
                name: row.get::<String>(4)?.unwrap_or_default(),
                flow: row.get::<i32>(5)?.unwrap_or_default(),
                version: row.get::<i32>(6)?.unwrap_or_default(),
                lane: own.unwrap_or(if low { 4 } else { 3 }) as i16,
                switched: row.get::<bool>(9)?.unwrap_or(false),
            })
        },
    )?);
    ROUTES.set((generation, routes.clone()));
    Ok(routes)
}

fn routes(source: &str, target: &str) -> Result<Vec<Route>> {
    Ok(all_routes()?.iter().filter(|route| route.source == source && route.target == target).cloned().collect())
}

fn unroutable(request: &Request, action: Option<&str>, at: Option<usize>) -> Result<UsherError> {
    let known = routes(&request.source, &request.target)?;
    let which = at.map(|at| format!(" (payload {at})")).unwrap_or_default();
    let asked = match action {
        Some(action) => format!("the action \"{action}\""),
        None => "a payload without \"action\"".to_owned(),
    };
    let error = UsherError::invalid(format!("no flow takes {asked} from {} to {}{which}", request.source, request.target));
    Ok(if known.is_empty() {
        error.hint(format!(
            "No flow has \"when\": {{\"request\": …}} from {} to {}. Create one, or make {} an external system with usher.create_system('{}', 'external').",
            request.source, request.target, request.target, request.target
        ))
    } else {
        let actions: Vec<&str> = known.iter().map(|route| route.action.as_str()).collect();
        error.hint(format!("Known actions: {}. Put one into payload.action.", actions.join(", ")))
    })
}

/// The flow that takes a payload. None: a worker outside does. Runs with the owner's rights.
fn route(request: &Request, payload: &JsonB) -> Result<Option<Route>> {
    check_payload(payload)?;
    let action = payload.0.get("action").and_then(|action| action.as_str()).map(str::to_owned);
    let route =
        routes(&request.source, &request.target)?.into_iter().find(|route| Some(route.action.as_str()) == action.as_deref());
    if route.is_none() && systems::kind(&request.target)?.as_deref() != Some("external") {
        return Err(unroutable(request, action.as_deref(), None)?);
    }
    if let Some(route) = route.as_ref().filter(|route| route.switched) {
        switches::require_on(route.flow, &route.name, request.organization)?;
    }
    Ok(route)
}

/// Refuses what nobody takes. Runs with the owner's rights.
pub fn check_route(request: &Request, payload: &JsonB) -> Result<()> {
    route(request, payload).map(|_| ())
}

fn finite(run_at: Option<TimestampWithTimeZone>) -> Result<()> {
    if run_at.is_some_and(|at| matches!(i64::from(at), i64::MIN | i64::MAX)) {
        return Err(UsherError::invalid("run_at is not a finite time").hint("Give a time, or leave it out to run at once."));
    }
    Ok(())
}

/// Makes one job, or finds the one that was made with the same key, and returns it.
pub fn one(
    request: &Request,
    payload: JsonB,
    run_at: Option<TimestampWithTimeZone>,
    unique_key: Option<String>,
    options: Option<&Options>,
) -> Result<life::Row> {
    Ok(make(request, payload, run_at, unique_key, options, true)?.1)
}

/// Makes one job that asks for nothing special, whatever the limits of the queue say; returns its id.
pub fn id_of_one(request: &Request, payload: JsonB) -> Result<Uuid> {
    Ok(make(request, payload, None, None, None, false)?.0)
}

fn make(
    request: &Request,
    payload: JsonB,
    run_at: Option<TimestampWithTimeZone>,
    unique_key: Option<String>,
    options: Option<&Options>,
    limited: bool,
) -> Result<(Uuid, life::Row)> {
    let installed = setup::for_writing()?;
    let _acting = role::internal(installed.owner);
    finite(run_at)?;
    let route = route(request, &payload)?;
    let later = run_at.filter(|at| i64::from(*at) > ids::clock());
    let mut asked = Asked::read(options, if route.is_none() { run_at } else { later }, unique_key)?;
    let id = ids::uuid_v7();
    if let Some((key, hold)) = &asked.key {
        if key.is_empty() || key.len() > 1_000 {
            return Err(UsherError::invalid("unique_key must have 1 to 1000 bytes").hint("Leave it out, or give a shorter one."));
        }
        if let Some(earlier) = keys::take(installed, request.organization, key, hold, id)? {
            return Ok((earlier, life::row_or_id(request.organization, earlier)?));
        }
    }
    asked.meet(options, request.organization)?;
    let (flow, lane) = match &route {
        Some(route) => (Some(route.name.clone()), if request.lane_given { request.lane as i16 } else { route.lane }),
        None => (None, request.lane as i16),
    };
    let at_once = asked.run_at.is_none() && asked.waits.is_empty();
    let (lane, held_by) = match &route {
        Some(route) if at_once => place(request, route.flow, lane, asked.key.is_none() && !asked.keeps(), limited)?,
        _ => (lane, None),
    };
    // What the job looks like is known: reading it back through the view would cost more than making it.
    let shown = match route {
        Some(route) if at_once && held_by.is_none() => ready(request, id, &route, lane, payload, &asked)?,
        Some(route) => {
            let shown = fresh(request, id, flow, &payload, lane, false, held_by.is_some(), &asked)?;
            put_off(request, id, &route, lane, payload, held_by, &asked)?;
            shown
        }
        None => {
            let shown = fresh(request, id, flow, &payload, lane, true, false, &asked)?;
            external_job(request, id, payload, &asked)?;
            shown
        }
    };
    asked.keep(request.organization, &[id])?;
    Ok((id, shown))
}

/// The lane for a job that could run at once, and the limit that holds it back.
fn place(request: &Request, flow: i32, lane: i16, free: bool, limited: bool) -> Result<(i16, Option<i32>)> {
    let number = usize::try_from(lane).unwrap_or(0);
    if !limited {
        pressure::count(number, flow, request.organization, 1)?;
        return Ok((lane, None));
    }
    Ok(match pressure::admit(number, flow, request.organization, Asker::Request { free })? {
        Place::Ready(lane) => (lane as i16, None),
        Place::Later(limit) => (lane, Some(limit)),
    })
}

#[allow(clippy::too_many_arguments, reason = "what a job shows, each with its name")]
fn fresh(
    request: &Request,
    id: Uuid,
    flow: Option<String>,
    payload: &JsonB,
    lane: i16,
    external: bool,
    full: bool,
    asked: &Asked,
) -> Result<life::Row> {
    let waits = !asked.waits.is_empty();
    let run_at = asked.run_at.filter(|_| !waits);
    let waiting_for = match (waits, external) {
        (true, _) => Some("other jobs"),
        (false, true) => Some("external worker"),
        (false, false) if full => Some("queue full"),
        (false, false) => run_at.map(|_| "run_at"),
    };
    spi::one::<life::Row>(
        "SELECT ROW($1, $2, $3, $4, $5, $6, $7, 'pending', $8, 0, $9, NULL, NULL, pg_catalog.now(), NULL)::usher.sync_job",
        &[
            spi::arg(id),
            spi::arg(request.organization),
            spi::arg(flow),
            spi::arg(request.source.as_str()),
            spi::arg(request.target.as_str()),
            spi::arg(JsonB(payload.0.clone())),
            spi::arg(crate::queue::LANES[lane as usize]),
            spi::arg(waiting_for.map(str::to_owned)),
            spi::arg(run_at),
        ],
    )?
    .ok_or_else(|| UsherError::internal("a new job could not be shown"))
}

fn check_payload(payload: &JsonB) -> Result<()> {
    if payload.0.is_object() { Ok(()) } else { Err(not_an_object(None)) }
}

fn not_an_object(at: Option<usize>) -> UsherError {
    let which = at.map(|at| format!("payload {at}")).unwrap_or_else(|| "the payload".to_owned());
    UsherError::invalid(format!("{which} is not a JSON object")).hint("Give an object such as {\"action\": \"create_event\", …}.")
}

/// A key for the row tells the worker that there is more to know of this job.
fn row_key(id: Uuid, asked: &Asked) -> Option<String> {
    asked.key.as_ref().map(|(key, _)| key.clone()).or(asked.keeps().then(|| id.to_string()))
}

/// Makes a job that can run at once, and shows it.
fn ready(request: &Request, id: Uuid, route: &Route, lane: i16, payload: JsonB, asked: &Asked) -> Result<life::Row> {
    let cause = cause::current();
    spi::one::<life::Row>(
        &setup::for_tables(
            "INSERT INTO usher.jobs (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
             VALUES (usher.take_seq($1), pg_catalog.hashtextextended($10, 0), $2, $3, pg_catalog.now(), $4, $5, $6, $1, $7, 'R', $8, $9)
             RETURNING ROW(id, organization_id, $11::text, $12::text, $13::text, new, $14::text, 'pending', NULL, 0, NULL, NULL, NULL, created_at, NULL)::usher.sync_job",
        )?,
        &[
            spi::arg(lane),
            spi::arg(id),
            spi::arg(request.organization),
            spi::arg(cause.job.map(Uuid::from_bytes)),
            spi::arg(route.flow),
            spi::arg(route.version),
            spi::arg(cause.hop),
            spi::arg(cause::write_trail(&cause.trail)),
            spi::arg(payload),
            spi::arg(row_key(id, asked)),
            spi::arg(route.name.as_str()),
            spi::arg(request.source.as_str()),
            spi::arg(request.target.as_str()),
            spi::arg(crate::queue::LANES[lane as usize]),
        ],
    )?
    .ok_or_else(|| UsherError::internal("a new job could not be shown"))
}

fn put_off(
    request: &Request,
    id: Uuid,
    route: &Route,
    lane: i16,
    payload: JsonB,
    held_by: Option<i32>,
    asked: &Asked,
) -> Result<()> {
    let cause = cause::current();
    let waits = !asked.waits.is_empty();
    xact::note_due_changed();
    let (seq, reason) = match held_by {
        Some(_) => ("usher.take_later_seq()", "queue full"),
        None => ("pg_catalog.nextval('usher.queue_seq')", if waits { "other jobs" } else { "run_at" }),
    };
    let mut arguments = vec![
        spi::arg(lane),
        spi::arg(id),
        spi::arg(request.organization),
        spi::arg(cause.job.map(Uuid::from_bytes)),
        spi::arg(route.flow),
        spi::arg(route.version),
        spi::arg(cause.hop),
        spi::arg(cause::write_trail(&cause.trail)),
        spi::arg(payload),
        spi::arg(row_key(id, asked)),
        spi::arg(asked.run_at.filter(|_| !waits)),
        spi::arg(reason),
    ];
    // Tables of an older version have no such column, and no limits.
    let (column, value) = if held_by.is_some() { (", held_by", ", $13") } else { ("", "") };
    if held_by.is_some() {
        arguments.push(spi::arg(held_by));
    }
    spi::run(
        &format!("INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, waiting_for, due_at{column})
         SELECT {seq}, pg_catalog.hashtextextended($10, 0), $2, $3, pg_catalog.now(), $4, $5, $6, $1, $7, 'R', $8, $9, $12, $11{value}"),
        &arguments,
    )?;
    Ok(())
}

fn external_job(request: &Request, id: Uuid, payload: JsonB, asked: &Asked) -> Result<()> {
    let waits = !asked.waits.is_empty();
    spi::run(
        "INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, lane, hop, op, new, waiting_for, due_at, source_system, target_system)
         SELECT pg_catalog.nextval('usher.queue_seq'), $1, $2, pg_catalog.now(), $3, $4, 'R', $5, $9, $8, $6, $7",
        &[
            spi::arg(id),
            spi::arg(request.organization),
            spi::arg(request.lane as i16),
            spi::arg(cause::current().hop),
            spi::arg(payload),
            spi::arg(request.source.as_str()),
            spi::arg(request.target.as_str()),
            spi::arg(asked.run_at.filter(|_| !waits)),
            spi::arg(if waits { "other jobs" } else { "external worker" }),
        ],
    )?;
    Ok(())
}

/// As for a job without limits, but that each payload has its own lane (`$13`) and the limit that holds it back (`$14`).
const MANY_LIMITED: &str = "
WITH p AS MATERIALIZED (
    SELECT u.id, u.payload AS payload, u.held_by, r.flow_id, r.version, u.lane, CASE WHEN $11 THEN pg_catalog.hashtextextended(u.id::text, 0) END AS row_key,
           CASE WHEN u.held_by IS NULL THEN usher.take_seq(u.lane) ELSE usher.take_later_seq() END AS seq
      FROM unnest($1::uuid[], $2::jsonb[], $13::smallint[], $14::integer[]) WITH ORDINALITY AS u (id, payload, lane, held_by, n)
      JOIN unnest($4::text[], $5::integer[], $6::integer[], $7::smallint[]) AS r (action, flow_id, version, lane)
        ON r.action = u.payload ->> 'action'
     WHERE ($12::timestamptz IS NULL OR true) ORDER BY u.n),
w AS (
    INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, waiting_for, held_by)
    SELECT p.seq, p.row_key, p.id, $3, pg_catalog.now(), $9, p.flow_id, p.version, p.lane, $8, 'R', $10, p.payload, 'queue full', p.held_by
      FROM p WHERE p.held_by IS NOT NULL)
INSERT INTO usher.jobs (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
SELECT p.seq, p.row_key, p.id, $3, pg_catalog.now(), $9, p.flow_id, p.version, p.lane, $8, 'R', $10, p.payload FROM p WHERE p.held_by IS NULL";

/// The first payload that nobody takes: its number, and whether it is NULL, or no object, and its action. `$1` payloads, `$2`
/// actions that are known, `$3` any will do.
const UNFIT: &str = "
    SELECT p.n, p.payload IS NULL, COALESCE(pg_catalog.jsonb_typeof(p.payload), '') <> 'object',
           CASE WHEN pg_catalog.jsonb_typeof(p.payload -> 'action') = 'string' THEN p.payload ->> 'action' END
      FROM (SELECT unnest($1::jsonb[]) AS payload, pg_catalog.generate_series(1, pg_catalog.cardinality($1)) AS n) AS p
     WHERE COALESCE(pg_catalog.jsonb_typeof(p.payload), '') <> 'object'
        OR NOT ($3 OR COALESCE(p.payload ->> 'action' = ANY ($2::text[]) AND pg_catalog.jsonb_typeof(p.payload -> 'action') = 'string', false))
     LIMIT 1";

/// Makes a job of every payload of a `jsonb[]`, all or none, in one statement. Returns their ids in the order of the payloads.
pub fn many(
    request: &Request,
    payloads: Raw,
    run_at: Option<TimestampWithTimeZone>,
    options: Option<&Options>,
) -> Result<Vec<Uuid>> {
    let installed: Installed = setup::for_writing()?;
    let _acting = role::internal(installed.owner);
    let size = spi::read::<i32>("SELECT pg_catalog.cardinality($1::jsonb[])", &[payloads.arg()])?.unwrap_or(0);
    let size = usize::try_from(size).unwrap_or(0);
    if size > 100_000 {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("{size} payloads are more than one call takes"),
        )
        .hint("Give at most 100000 a call."));
    }
    let known = routes(&request.source, &request.target)?;
    let external = systems::kind(&request.target)?.as_deref() == Some("external");
    let actions: Vec<String> = known.iter().map(|route| route.action.clone()).collect();
    let unfit = spi::read_all(UNFIT, &[payloads.arg(), spi::arg(actions.clone()), spi::arg(external)], |row| {
        let flag = |at| -> Result<bool> { Ok(row.get::<bool>(at)? == Some(true)) };
        Ok((row.get::<i32>(1)?.unwrap_or(0), flag(2)?, flag(3)?, row.get::<String>(4)?))
    })?;
    if let Some((at, missing, no_object, action)) = unfit.into_iter().next() {
        let at = usize::try_from(at).unwrap_or(0);
        if missing {
            return Err(UsherError::invalid(format!("payload {at} is NULL")).hint("Give a JSON object for each job."));
        }
        return Err(if no_object { not_an_object(Some(at)) } else { unroutable(request, action.as_deref(), Some(at))? });
    }
    for route in known.iter().filter(|route| route.switched) {
        let asked = spi::read::<bool>(
            "SELECT true FROM unnest($1::jsonb[]) AS p WHERE p ->> 'action' = $2 LIMIT 1",
            &[payloads.arg(), spi::arg(route.action.as_str())],
        )?;
        if asked == Some(true) {
            switches::require_on(route.flow, &route.name, request.organization)?;
        }
    }
    finite(run_at)?;
    let later = run_at.filter(|at| i64::from(*at) > ids::clock());
    let mut asked = Asked::read(options, if external { run_at } else { later }, None)?;
    if asked.key.is_some() {
        return Err(UsherError::invalid("one unique key cannot belong to many jobs")
            .hint("Leave \"unique\" out, or call usher.enqueue_sync_job() for each job with a key of its own."));
    }
    asked.meet(options, request.organization)?;
    if asked.waits.len().saturating_mul(size) > 1_000_000 {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("{size} jobs that each wait for {} others are more than one call takes", asked.waits.len()),
        )
        .hint("Put the others into a batch whose completion makes these jobs."));
    }
    let waits = !asked.waits.is_empty();
    let due = asked.run_at.filter(|_| !waits);
    let ids: Vec<Uuid> = (0..size).map(|_| ids::uuid_v7()).collect();
    let cause = cause::current();
    let flows: Vec<i32> = known.iter().map(|route| route.flow).collect();
    let versions: Vec<i32> = known.iter().map(|route| route.version).collect();
    let lanes: Vec<i16> = known.iter().map(|route| if request.lane_given { request.lane as i16 } else { route.lane }).collect();
    let at_once = !waits && later.is_none() && pressure::concerns(known.iter().map(|route| route.flow))?;
    let mut places: Vec<(Option<i16>, Option<i32>)> = Vec::new();
    if at_once {
        let named = spi::read_all("SELECT p ->> 'action' FROM unnest($1::jsonb[]) AS p", &[payloads.arg()], |row| {
            Ok(row.get::<String>(1)?)
        })?;
        for action in named {
            places.push(match known.iter().position(|route| Some(&route.action) == action.as_ref()) {
                Some(at) => {
                    let (lane, held_by) = place(request, flows[at], lanes[at], !asked.keeps(), true)?;
                    (Some(lane), held_by)
                }
                None => (None, None),
            });
        }
    }
    let (into, seq, more) = if waits || later.is_some() {
        xact::note_due_changed();
        (
            "queue_waiting (waiting_for, due_at, ",
            "pg_catalog.nextval('usher.queue_seq')",
            if waits { "'other jobs', $12::timestamptz, " } else { "'run_at', $12::timestamptz, " },
        )
    } else {
        ("jobs (", "usher.take_seq(($7::smallint[])[p.r])", "")
    };
    let sql = format!(
        "INSERT INTO usher.{into}seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
         SELECT {more}{seq}, CASE WHEN $11 THEN pg_catalog.hashtextextended(p.id::text, 0) END, p.id, $3, pg_catalog.now(), $9,
                ($5::integer[])[p.r], ($6::integer[])[p.r], ($7::smallint[])[p.r], $8, 'R', $10, p.payload
           FROM (SELECT u.id, u.payload, pg_catalog.array_position($4::text[], u.payload ->> 'action') AS r
                   FROM (SELECT unnest($1::uuid[]) AS id, unnest($2::jsonb[]) AS payload) AS u OFFSET 0) AS p
          WHERE p.r IS NOT NULL AND ($12::timestamptz IS NULL OR true)"
    );
    let mut arguments = vec![
        spi::arg(ids.clone()),
        payloads.arg(),
        spi::arg(request.organization),
        spi::arg(actions.clone()),
        spi::arg(flows),
        spi::arg(versions),
        spi::arg(lanes),
        spi::arg(cause.hop),
        spi::arg(cause.job.map(Uuid::from_bytes)),
        spi::arg(cause::write_trail(&cause.trail)),
        spi::arg(asked.keeps()),
        spi::arg(due),
    ];
    if at_once {
        let (own_lanes, held_by): (Vec<_>, Vec<_>) = places.into_iter().unzip();
        arguments.extend([spi::arg(own_lanes), spi::arg(held_by)]);
        spi::run(MANY_LIMITED, &arguments)?;
    } else {
        spi::run(&setup::for_tables(&sql)?, &arguments)?;
    }
    if external {
        spi::run(
            "INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, lane, hop, op, new, waiting_for, due_at, source_system, target_system)
             SELECT pg_catalog.nextval('usher.queue_seq'), p.id, $3, pg_catalog.now(), $5, 0, 'R', p.payload, $8, $9, $6, $7
               FROM (SELECT unnest($1::uuid[]) AS id, unnest($2::jsonb[]) AS payload OFFSET 0) AS p
              WHERE NOT (COALESCE(p.payload ->> 'action', '') = ANY ($4::text[]))",
            &[
                spi::arg(ids.clone()),
                payloads.arg(),
                spi::arg(request.organization),
                spi::arg(actions),
                spi::arg(request.lane as i16),
                spi::arg(request.source.as_str()),
                spi::arg(request.target.as_str()),
                spi::arg(if waits { "other jobs" } else { "external worker" }),
                spi::arg(due),
            ],
        )?;
    }
    asked.keep(request.organization, &ids)?;
    Ok(ids)
}
