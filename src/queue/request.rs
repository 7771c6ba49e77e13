//! Putting requested jobs into the queue.

use crate::error::{Result, UsherError};
use crate::flow::cause;
use crate::flow::definition::lane;
use crate::pg::{ids, role, spi, xact};
use crate::registry::identity::{self, Right};
use crate::registry::systems;
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

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
        UsherError::invalid(format!("{what} is missing")).hint(format!("Give {what}: enqueue_sync_job(organization, source_system, target_system, payload)."))
    })
}

pub fn check(organization: Option<String>, source: Option<String>, target: Option<String>, priority: Option<String>) -> Result<Request> {
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

/// The flows that take requests from `source` to `target`: `(action, flow id, version, lane)`.
fn routes(source: &str, target: &str) -> Result<Vec<(String, i32, i32, i16)>> {
    spi::read_all(
        "SELECT f.definition -> 'when' ->> 'request', f.id, f.version, f.definition ->> 'priority', f.definition ->> 'mode'
           FROM usher.flows f
          WHERE f.definition ->> 'from' = $1 AND f.definition ->> 'to' = $2 AND f.definition -> 'when' ? 'request' ORDER BY 1",
        &[spi::arg(source), spi::arg(target)],
        |row| {
            let own = row.get::<String>(4)?.and_then(|priority| lane(&priority));
            let low = row.get::<String>(5)?.as_deref() == Some("async");
            Ok((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<i32>(2)?.unwrap_or_default(),
                row.get::<i32>(3)?.unwrap_or_default(),
                own.unwrap_or(if low { 4 } else { 3 }) as i16,
            ))
        },
    )
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
        let actions: Vec<&str> = known.iter().map(|(action, ..)| action.as_str()).collect();
        error.hint(format!("Known actions: {}. Put one into payload.action.", actions.join(", ")))
    })
}

/// Makes one job, or finds the one that was made with the same key. Returns its id.
pub fn one(request: &Request, payload: JsonB, run_at: Option<TimestampWithTimeZone>, unique_key: Option<String>) -> Result<Uuid> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    check_payload(&payload, None)?;
    let action = payload.0.get("action").and_then(|action| action.as_str()).map(str::to_owned);
    let route = routes(&request.source, &request.target)?.into_iter().find(|(known, ..)| Some(known.as_str()) == action.as_deref());
    let external = systems::kind(&request.target)?.as_deref() == Some("external");
    if route.is_none() && !external {
        return Err(unroutable(request, action.as_deref(), None)?);
    }
    let id = ids::uuid_v7();
    if let Some(key) = &unique_key {
        if key.is_empty() || key.len() > 1_000 {
            return Err(UsherError::invalid("unique_key must have 1 to 1000 characters").hint("Leave it out, or give a shorter one."));
        }
        if let Some(earlier) = keyed(request.organization, key, id)? {
            return Ok(earlier);
        }
    }
    match route {
        Some((_, flow, version, own)) => {
            let lane = if request.lane_given { request.lane as i16 } else { own };
            let later = run_at.is_some_and(|at| i64::from(at) > ids::clock());
            ready_or_later(request, id, flow, version, lane, payload, run_at.filter(|_| later), unique_key.as_deref())?;
        }
        None => external_job(request, id, payload, run_at)?,
    }
    Ok(id)
}

fn check_payload(payload: &JsonB, at: Option<usize>) -> Result<()> {
    if payload.0.is_object() {
        return Ok(());
    }
    let which = at.map(|at| format!("payload {at}")).unwrap_or_else(|| "the payload".to_owned());
    Err(UsherError::invalid(format!("{which} is not a JSON object"))
        .hint("Give an object such as {\"action\": \"create_event\", …}."))
}

/// Takes the key for job `id`, or returns the job that has it. A cancelled job's key may be taken again.
fn keyed(organization: Uuid, key: &str, id: Uuid) -> Result<Option<Uuid>> {
    spi::run(
        "INSERT INTO usher.job_keys (organization_id, unique_key, job_id) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT job_keys_pkey DO NOTHING",
        &[spi::arg(organization), spi::arg(key), spi::arg(id)],
    )?;
    let holder = spi::one::<Uuid>(
        "SELECT job_id FROM usher.job_keys WHERE organization_id = $1 AND unique_key = $2",
        &[spi::arg(organization), spi::arg(key)],
    )?;
    Ok(holder.filter(|holder| *holder != id))
}

#[allow(clippy::too_many_arguments, reason = "the columns of one row")]
fn ready_or_later(
    request: &Request,
    id: Uuid,
    flow: i32,
    version: i32,
    lane: i16,
    payload: JsonB,
    run_at: Option<TimestampWithTimeZone>,
    unique_key: Option<&str>,
) -> Result<()> {
    let cause = cause::current();
    let arguments = [
        spi::arg(lane),
        spi::arg(id),
        spi::arg(request.organization),
        spi::arg(cause.job.map(Uuid::from_bytes)),
        spi::arg(flow),
        spi::arg(version),
        spi::arg(cause.hop),
        spi::arg(cause::write_trail(&cause.trail)),
        spi::arg(payload),
        spi::arg(unique_key.map(str::to_owned)),
        spi::arg(run_at),
    ];
    if run_at.is_some() {
        xact::note_due_changed();
        spi::run(
            "INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, waiting_for, due_at)
             SELECT pg_catalog.nextval('usher.queue_seq'), pg_catalog.hashtextextended($10, 0), $2, $3, pg_catalog.now(), $4, $5, $6, $1, $7, 'R', $8, $9, 'run_at', $11",
            &arguments,
        )?;
    } else {
        spi::run(
            "INSERT INTO usher.queue (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
             SELECT usher.take_seq($1), pg_catalog.hashtextextended($10, 0), $2, $3, pg_catalog.now(), $4, $5, $6, $1, $7, 'R', $8, $9
              WHERE $11::timestamptz IS NULL",
            &arguments,
        )?;
    }
    Ok(())
}

fn external_job(request: &Request, id: Uuid, payload: JsonB, run_at: Option<TimestampWithTimeZone>) -> Result<()> {
    spi::run(
        "INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, lane, hop, op, new, waiting_for, due_at, source_system, target_system)
         SELECT pg_catalog.nextval('usher.queue_seq'), $1, $2, pg_catalog.now(), $3, $4, 'R', $5, 'external worker', $8, $6, $7",
        &[
            spi::arg(id),
            spi::arg(request.organization),
            spi::arg(request.lane as i16),
            spi::arg(cause::current().hop),
            spi::arg(payload),
            spi::arg(request.source.as_str()),
            spi::arg(request.target.as_str()),
            spi::arg(run_at),
        ],
    )?;
    Ok(())
}

/// Makes a job of every payload, all or none, in one statement. Returns their ids in the order of the payloads.
pub fn many(request: &Request, payloads: Vec<Option<JsonB>>) -> Result<Vec<Uuid>> {
    let installed: Installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    if payloads.len() > 100_000 {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("{} payloads are more than one call takes", payloads.len()),
        )
        .hint("Give at most 100000 a call."));
    }
    let known = routes(&request.source, &request.target)?;
    let external = systems::kind(&request.target)?.as_deref() == Some("external");
    for (payload, at) in payloads.iter().zip(1..) {
        let Some(payload) = payload else {
            return Err(UsherError::invalid(format!("payload {at} is NULL")).hint("Give a JSON object for each job."));
        };
        check_payload(payload, Some(at))?;
        let action = payload.0.get("action").and_then(|action| action.as_str());
        if !external && !known.iter().any(|(route, ..)| Some(route.as_str()) == action) {
            return Err(unroutable(request, action, Some(at))?);
        }
    }
    let ids: Vec<Uuid> = payloads.iter().map(|_| ids::uuid_v7()).collect();
    let cause = cause::current();
    let actions: Vec<String> = known.iter().map(|(action, ..)| action.clone()).collect();
    let flows: Vec<i32> = known.iter().map(|(_, flow, ..)| *flow).collect();
    let versions: Vec<i32> = known.iter().map(|(_, _, version, _)| *version).collect();
    let lanes: Vec<i16> =
        known.iter().map(|(.., own)| if request.lane_given { request.lane as i16 } else { *own }).collect();
    let payloads: Vec<String> = payloads.into_iter().flatten().map(|payload| payload.0.to_string()).collect();
    spi::run(
        "INSERT INTO usher.queue (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new)
         SELECT usher.take_seq(r.lane), p.id, $3, pg_catalog.now(), $9, r.flow_id, r.version, r.lane, $8, 'R', $10, p.payload
           FROM (SELECT u.id, u.payload::jsonb AS payload, u.n FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS u (id, payload, n)) AS p
           JOIN unnest($4::text[], $5::integer[], $6::integer[], $7::smallint[]) AS r (action, flow_id, version, lane)
             ON r.action = p.payload ->> 'action'
          ORDER BY p.n",
        &[
            spi::arg(ids.clone()),
            spi::arg(payloads.clone()),
            spi::arg(request.organization),
            spi::arg(actions.clone()),
            spi::arg(flows),
            spi::arg(versions),
            spi::arg(lanes),
            spi::arg(cause.hop),
            spi::arg(cause.job.map(Uuid::from_bytes)),
            spi::arg(cause::write_trail(&cause.trail)),
        ],
    )?;
    if external {
        spi::run(
            "INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, lane, hop, op, new, waiting_for, source_system, target_system)
             SELECT pg_catalog.nextval('usher.queue_seq'), p.id, $3, pg_catalog.now(), $5, 0, 'R', p.payload, 'external worker', $6, $7
               FROM (SELECT u.id, u.payload::jsonb AS payload, u.n FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS u (id, payload, n)) AS p
              WHERE NOT (COALESCE(p.payload ->> 'action', '') = ANY ($4::text[])) ORDER BY p.n",
            &[
                spi::arg(ids.clone()),
                spi::arg(payloads),
                spi::arg(request.organization),
                spi::arg(actions),
                spi::arg(request.lane as i16),
                spi::arg(request.source.as_str()),
                spi::arg(request.target.as_str()),
            ],
        )?;
    }
    Ok(ids)
}
