//! SQL functions of back-pressure.

use super::LANES;
use super::pressure::{self, Asker, Place};
use crate::error::{self, UsherError};
use crate::flow::definition::lane as lane_by_name;
use crate::guard::audit;
use crate::pg::{catalog, gauges, role, shmem, spi, xact};
use crate::registry::identity::{self, Right};
use crate::registry::systems;
use crate::setup;
use pgrx::Uuid;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::json;

type Sql<T> = std::result::Result<T, ErrorReport>;

fn lane_number(name: &str) -> error::Result<i16> {
    let found = lane_by_name(name).and_then(|lane| i16::try_from(lane).ok());
    found.ok_or_else(|| {
        UsherError::invalid(format!("lane \"{name}\" is unknown")).hint(format!("Use one of: {}.", LANES.join(", ")))
    })
}

/// Limits how many jobs a part of the queue may have ready, and says what happens to more. Returns the number of the limit. The
/// same part and action again: changes that limit.
///
/// Arguments: `max_jobs`; `lane`, `flow`, `system` (to which the jobs go) and `organization` (slug or id), of which at least one
/// is given and all given ones must fit; `action`: `refuse` (requests fail with 53400; with `captured` also the statements whose
/// changes would make more), `delay` (jobs wait for `queue full` and are let go as there is room), `shed` (requests without key and
/// options go to the lower lane `shed_to`).
/// Errors: 42501 for callers who are no operators, 22023 for input that makes no sense, 42704 for what does not exist, 55000
/// without the preloaded library.
#[allow(clippy::too_many_arguments, reason = "the arguments of the function, each with its name")]
#[pg_extern(volatile, parallel_unsafe)]
fn limit_queue(
    max_jobs: Option<i64>,
    lane: default!(Option<String>, "NULL"),
    flow: default!(Option<String>, "NULL"),
    system: default!(Option<String>, "NULL"),
    organization: default!(Option<String>, "NULL"),
    action: default!(Option<String>, "'refuse'"),
    shed_to: default!(Option<String>, "NULL"),
    captured: default!(Option<bool>, "false"),
) -> Sql<i32> {
    identity::require_operator("limit queues")?;
    let installed = setup::current()?;
    if !shmem::available() {
        return Err(UsherError::state("limits need pg_usher in shared_preload_libraries")
            .detail("The numbers of ready jobs are kept in shared memory.")
            .hint("Add pg_usher to shared_preload_libraries and restart the server.")
            .into());
    }
    let Some(most) = max_jobs.filter(|most| *most > 0) else {
        return Err(UsherError::invalid("max_jobs is missing or less than one")
            .hint("Give the number of jobs that may be ready; usher.unlimit_queue() removes a limit.")
            .into());
    };
    if lane.is_none() && flow.is_none() && system.is_none() && organization.is_none() {
        return Err(UsherError::invalid("it is not said what is limited")
            .hint("Give lane, flow, system or organization, or several of them.")
            .into());
    }
    let action = action.unwrap_or_else(|| "refuse".to_owned());
    if !["refuse", "delay", "shed"].contains(&action.as_str()) {
        return Err(UsherError::invalid(format!("action \"{action}\" is unknown"))
            .hint("Use one of: refuse, delay, shed.")
            .into());
    }
    let captured = captured == Some(true);
    if captured && action != "refuse" {
        return Err(UsherError::invalid(format!("captured is given with the action \"{action}\""))
            .hint("It goes with refuse only; delay means captured changes in any case, shed never.")
            .into());
    }
    let lane_limited = lane.as_deref().map(lane_number).transpose()?;
    let shed = shed_to.as_deref().map(lane_number).transpose()?;
    match (action.as_str(), shed) {
        ("shed", None) => {
            return Err(UsherError::invalid("shed_to is missing").hint("Name the lane that takes what is too much.").into());
        }
        ("shed", Some(to)) if to <= lane_limited.unwrap_or(0) => {
            return Err(UsherError::invalid(format!("lane \"{}\" is not below the limited one", LANES[to as usize]))
                .hint("Shed to a lower lane, down to low.")
                .into());
        }
        ("refuse" | "delay", Some(_)) => {
            return Err(UsherError::invalid(format!("shed_to is given with the action \"{action}\""))
                .hint("It goes with the action shed only.")
                .into());
        }
        _ => {}
    }
    let organization_id = organization.as_deref().map(|named| identity::organization(named, Right::Read)).transpose()?;
    let actor = identity::actor();
    let scope = json!({"lane": lane, "flow": flow, "system": system, "organization": organization, "action": action});
    let _acting = role::internal(installed.owner);
    let flow_id = match &flow {
        None => None,
        Some(name) => {
            Some(spi::one::<i32>("SELECT f.id FROM usher.flows AS f WHERE f.name = $1", &[spi::arg(name.as_str())])?.ok_or_else(
                || {
                    UsherError::not_found(format!("flow \"{name}\" does not exist"))
                        .hint("SELECT name FROM usher.flows shows those that do.")
                },
            )?)
        }
    };
    if let Some(name) = &system {
        match systems::kind(name)?.as_deref() {
            None => {
                return Err(UsherError::not_found(format!("system \"{name}\" does not exist"))
                    .hint("SELECT name FROM usher.systems shows those that do.")
                    .into());
            }
            Some("external") => {
                return Err(UsherError::unsupported(format!(
                    "system \"{name}\" is served from outside: its jobs are not counted"
                ))
                .hint("Limit the lane, flow or organization of its requests.")
                .into());
            }
            _ => {}
        }
    }
    let arguments = [
        spi::arg(most),
        spi::arg(lane_limited),
        spi::arg(flow_id),
        spi::arg(system),
        spi::arg(organization_id),
        spi::arg(action),
        spi::arg(shed),
        spi::arg(captured),
        spi::arg(actor),
    ];
    // Two at a time would make two limits of one.
    spi::run("LOCK TABLE usher.queue_limit_rules IN SHARE ROW EXCLUSIVE MODE", &[])?;
    let changed = spi::one::<i32>(
        "UPDATE usher.queue_limit_rules AS r SET max_jobs = $1, shed_to = $7, captured = $8, created_by = $9, created_at = pg_catalog.now()
          WHERE r.removed_at IS NULL AND r.lane IS NOT DISTINCT FROM $2 AND r.flow_id IS NOT DISTINCT FROM $3 AND r.system IS NOT DISTINCT FROM $4
            AND r.of_organization IS NOT DISTINCT FROM $5 AND r.action = $6
         RETURNING r.id",
        &arguments,
    )?;
    let id = match changed {
        Some(id) => id,
        None => spi::one::<i32>(
            "INSERT INTO usher.queue_limit_rules (max_jobs, lane, flow_id, system, of_organization, action, shed_to, captured, created_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
            &arguments,
        )?
        .ok_or_else(|| UsherError::internal("a limit was not entered"))?,
    };
    let number = u32::try_from(id).unwrap_or(0);
    if gauges::gauge(number).is_none() {
        pressure::forget_gauges()?;
    }
    let Some(gauge) = gauges::gauge(number) else {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "the server has too many limits of queues")
            .hint("Remove some with usher.unlimit_queue().")
            .into());
    };
    // Where nothing is ready now there is nothing to count.
    let whole = gauges::existing(gauges::WHOLE);
    for lane in (0..LANES.len()).filter(|_| changed.is_none()) {
        if whole.and_then(|whole| gauges::known(whole, lane)) == Some(0)
            && let Some(before) = gauges::before(gauge, lane)
        {
            gauges::correct(before, 0);
        }
    }
    changed_for_all(installed)?;
    audit::note(
        installed,
        organization_id,
        "usher.queue.limited",
        &id.to_string(),
        None,
        Some(json!({"max_jobs": most, "of": scope})),
    )?;
    Ok(id)
}

/// Sessions and workers read the limits again when this commits.
fn changed_for_all(installed: setup::Installed) -> error::Result<()> {
    catalog::invalidate(installed.flows);
    xact::note_due_changed();
    Ok(())
}

/// Removes a limit. What it holds back is let go. False when there is none with this number.
///
/// Errors: 42501 for callers who are no operators.
#[pg_extern(volatile, parallel_unsafe)]
fn unlimit_queue(id: Option<i32>) -> Sql<bool> {
    identity::require_operator("limit queues")?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let removed = spi::run(
        "UPDATE usher.queue_limit_rules AS r SET removed_at = pg_catalog.now() WHERE r.id = $1 AND r.removed_at IS NULL",
        &[spi::arg(id)],
    )?;
    if removed > 0 {
        changed_for_all(installed)?;
        let object = id.unwrap_or_default().to_string();
        audit::note(installed, None, "usher.queue.unlimited", &object, None, None)?;
    }
    Ok(removed > 0)
}

/// Ready jobs of each lane, as of all commits, from shared memory: no table is read. NULL until a worker has counted what was
/// there at the start, and without the preloaded library.
///
/// Errors: 42501 for callers who are neither operators nor readers.
#[pg_extern(volatile, parallel_unsafe)]
fn queue_depth() -> Result<TableIterator<'static, (name!(lane, String), name!(ready, Option<i64>))>, ErrorReport> {
    let whole = gauges::existing(gauges::WHOLE);
    let rows: Vec<_> = LANES
        .iter()
        .enumerate()
        .map(|(lane, name)| ((*name).to_owned(), whole.and_then(|whole| gauges::known(whole, lane))))
        .collect();
    Ok(TableIterator::new(rows))
}

/// Ready jobs that a limit counts, from shared memory; NULL until they have been counted. For the view usher.queue_limits.
#[pg_extern(volatile, parallel_unsafe)]
fn limited_jobs(id: i32) -> Option<i64> {
    let gauge = gauges::existing(u32::try_from(id).ok()?)?;
    let known = (0..LANES.len()).filter_map(|lane| gauges::known(gauge, lane));
    (0..LANES.len()).all(|lane| gauges::is_known(gauge, lane)).then(|| known.sum())
}

/// NULL: the captured change of a row is ready, and counted. Else the limit that holds it back. For the extension's own
/// statements.
#[pg_extern(volatile, parallel_unsafe)]
fn admit(lane: i16, flow: i32, organization: Uuid) -> Sql<Option<i32>> {
    Ok(match pressure::admit(usize::try_from(lane).unwrap_or(0), flow, organization, Asker::Change)? {
        Place::Ready(_) => None,
        Place::Later(limit) => Some(limit),
    })
}

/// The next position, of a job that a limit holds back; for the extension's own statements.
#[pg_extern(volatile, parallel_unsafe)]
fn take_later_seq() -> Sql<i64> {
    Ok(xact::take_later_seq()?)
}

/// The next position, of a job that is ready whatever the limits say; they count it. For the extension's own statements.
#[pg_extern(volatile, parallel_unsafe)]
fn take_counted_seq(lane: i16, flow: i32, organization: Uuid) -> Sql<i64> {
    let number = usize::try_from(lane).unwrap_or(0);
    pressure::count(number, flow, organization, 1)?;
    Ok(xact::take_seq(number)?)
}

/// A ready job leaves the log otherwise than by a worker's batch. For the extension's own statements.
#[pg_extern(volatile, parallel_unsafe)]
fn take_off(lane: i16, flow: i32, organization: Uuid) -> Sql<bool> {
    let number = usize::try_from(lane).unwrap_or(0);
    gauges::add_to_whole(number, -1);
    pressure::count(number, flow, organization, -1)?;
    Ok(true)
}
