//! From a time that has come to jobs: one for each organization, once.
//!
//! Owns `usher.flow_schedules` and `usher.schedule_runs`. The key of a run stands in the transaction of its job: whatever
//! happens to worker, server or clock, a time has one job for each flow and organization.

use super::store::{self, Ready};
use crate::error::Result;
use crate::flow::schedules::{self, Planned};
use crate::pg::{spi, subxact, zone};
use pgrx::prelude::*;

/// Rows of flows and zones that have none yet. A zone that came later begins where the flow's other zones are.
/// `$1` flows, `$2` zones, `$3` schedules, `$4` when the flow's version was made.
const BEGIN: &str = "
    INSERT INTO usher.flow_schedules (flow_id, timezone, schedule, handled_until)
    SELECT w.flow_id, w.timezone, w.schedule,
           COALESCE((SELECT pg_catalog.max(s.handled_until) FROM usher.flow_schedules s WHERE s.flow_id = w.flow_id AND s.schedule = w.schedule),
                    pg_catalog.to_timestamp(w.since))
      FROM unnest($1::integer[], $2::text[], $3::text[], $4::float8[]) AS w (flow_id, timezone, schedule, since)
      -- A flow may be dropped at this moment.
      JOIN usher.flows f ON f.id = w.flow_id
       FOR KEY SHARE OF f
    ON CONFLICT ON CONSTRAINT flow_schedules_pkey DO NOTHING";

/// Zones in which nobody is any more.
const END: &str = "
    DELETE FROM usher.flow_schedules s
     WHERE s.flow_id = ANY ($1)
       AND NOT EXISTS (SELECT FROM unnest($1::integer[], $2::text[]) AS w (flow_id, timezone) WHERE w.flow_id = s.flow_id AND w.timezone = s.timezone)";

const READ: &str = "
    SELECT s.schedule, pg_catalog.floor(EXTRACT(epoch FROM s.handled_until))::bigint, EXTRACT(epoch FROM s.next_at)::bigint
      FROM usher.flow_schedules s WHERE s.flow_id = $1 AND s.timezone = $2 FOR UPDATE";

/// `$1` flow, `$2` times, `$3` zone or NULL, `$4` organization or NULL.
const RUNS: &str = "
    WITH r AS (
        INSERT INTO usher.schedule_runs (organization_id, flow_id, scheduled_at, job_id)
        SELECT o.id, $1, t.at, usher.uuid_v7()
          FROM usher.organizations o CROSS JOIN unnest($2::timestamptz[]) AS t (at)
         WHERE ($3::text IS NULL OR o.timezone = $3) AND ($4::uuid IS NULL OR o.id = $4) AND o.created_at <= t.at
           AND NOT EXISTS (SELECT FROM usher.flow_switches s WHERE s.flow_id = $1 AND s.organization_id = o.id)
         ORDER BY o.id, t.at
        ON CONFLICT ON CONSTRAINT schedule_runs_pkey DO NOTHING
        RETURNING organization_id, job_id, scheduled_at)
    SELECT pg_catalog.array_agg(r.organization_id ORDER BY r.scheduled_at, r.organization_id),
           pg_catalog.array_agg(r.job_id ORDER BY r.scheduled_at, r.organization_id),
           pg_catalog.array_agg(NULL::bigint),
           pg_catalog.array_agg(pg_catalog.jsonb_build_object('scheduled_at', r.scheduled_at, 'timezone', $5::text) ORDER BY r.scheduled_at, r.organization_id),
           pg_catalog.count(*)::integer
      FROM r";

const HANDLED: &str = "
    UPDATE usher.flow_schedules SET schedule = $3, handled_until = $4, next_at = $5, last_at = COALESCE($6, last_at)
     WHERE flow_id = $1 AND timezone = $2";

/// What [`run`] has done.
pub struct Looked {
    pub jobs: i32,
    /// Seconds since 1970 of the next time of all.
    pub next: Option<i64>,
}

/// The zones in which organizations are: of all together, and of each that a schedule names.
fn zones(planned: &[Planned]) -> Result<Vec<(Option<String>, String)>> {
    let open = || planned.iter().filter(|plan| plan.schedule().is_some_and(|s| s.timezone.is_none() && !s.is_interval()));
    if open().next().is_none() {
        return Ok(Vec::new());
    }
    let named: Vec<pgrx::Uuid> = open().filter_map(Planned::organization).collect();
    spi::read_all(
        "SELECT DISTINCT NULL::text, o.timezone FROM usher.organizations o
         UNION ALL SELECT o.id::text, o.timezone FROM usher.organizations o WHERE o.id = ANY ($1)",
        &[spi::arg(named)],
        |row| Ok((row.get::<String>(1)?, row.get::<String>(2)?.unwrap_or_default())),
    )
}

/// Makes the jobs of all times that have come. Runs with the owner's rights.
pub fn run(now: i64) -> Result<Looked> {
    let planned = schedules::planned()?;
    if planned.is_empty() {
        return Ok(Looked { jobs: 0, next: None });
    }
    let mut wanted: Vec<(&Planned, String)> = Vec::new();
    let zones = zones(&planned)?;
    for plan in &planned {
        let Some(schedule) = plan.schedule() else { continue };
        let mine = plan.organization().map(|id| id.to_string());
        let mut names: Vec<String> = match &schedule.timezone {
            Some(name) => vec![name.clone()],
            // An interval is the same everywhere.
            None if schedule.is_interval() => vec!["UTC".to_owned()],
            None => zones.iter().filter(|(id, _)| *id == mine).map(|(_, zone)| zone.clone()).collect(),
        };
        names.sort();
        names.dedup();
        wanted.extend(names.into_iter().map(|name| (plan, name)));
    }
    let flows: Vec<i32> = wanted.iter().map(|(plan, _)| plan.flow.id).collect();
    let names: Vec<String> = wanted.iter().map(|(_, name)| name.clone()).collect();
    if !wanted.is_empty() {
        let texts: Vec<String> =
            wanted.iter().map(|(plan, _)| plan.schedule().map(|s| s.text.clone()).unwrap_or_default()).collect();
        let since: Vec<f64> = wanted.iter().map(|(plan, _)| plan.since as f64).collect();
        spi::run(BEGIN, &[spi::arg(flows.clone()), spi::arg(names.clone()), spi::arg(texts), spi::arg(since)])?;
        spi::run(END, &[spi::arg(flows), spi::arg(names)])?;
    }
    let mut looked = Looked { jobs: 0, next: None };
    for (plan, name) in wanted {
        // One flow's trouble is not another's.
        match subxact::attempt(|| one(plan, &name, now)) {
            Ok((jobs, next)) => {
                looked.jobs += jobs;
                looked.next = looked.next.into_iter().chain(next).min();
            }
            Err(failure) => {
                log!("usher worker: the schedule of flow \"{}\" in {name} failed: {}", plan.flow.name, failure.line());
                looked.next = looked.next.into_iter().chain([now + 60]).min();
            }
        }
    }
    Ok(looked)
}

/// One flow in one zone: jobs made, and when it is due next.
fn one(plan: &Planned, name: &str, now: i64) -> Result<(i32, Option<i64>)> {
    let Some(schedule) = plan.schedule() else { return Ok((0, None)) };
    let zone = zone::Zone::named(name)
        .ok_or_else(|| crate::error::UsherError::invalid(format!("time zone \"{name}\" is unknown")).hint("Correct it."))?;
    let flow = &plan.flow;
    Spi::connect_mut(|client| {
        let row = spi::query(client, READ, &[spi::arg(flow.id), spi::arg(name)])?;
        if row.is_empty() {
            return Ok((0, None));
        }
        let row = row.first();
        let changed = row.get::<String>(1)?.as_deref() != Some(schedule.text.as_str());
        let handled = if changed { plan.since } else { row.get::<i64>(2)?.unwrap_or(plan.since) };
        let known = row.get::<i64>(3)?;
        // After a clock that was ahead nothing is left out: the key of a run keeps it from happening again.
        let due = schedule.due(&zone, handled.min(now), now);
        let next = schedule.next_after(&zone, now);
        if !changed && due.is_empty() && next == known {
            return Ok((0, next));
        }
        let last = due.last().copied().and_then(zone::timestamp);
        let mut jobs = 0;
        if !due.is_empty() {
            let times: Vec<TimestampWithTimeZone> = due.into_iter().filter_map(zone::timestamp).collect();
            let own_zone = schedule.timezone.is_none() && !schedule.is_interval();
            let arguments = [
                spi::arg(flow.id),
                spi::arg(times),
                spi::arg(own_zone.then(|| name.to_owned())),
                spi::arg(plan.organization()),
                spi::arg(name),
            ];
            let table = spi::query(client, RUNS, &arguments)?.first();
            jobs = table.get::<i32>(5)?.unwrap_or(0);
            if jobs > 0 {
                let ready = Ready::read(&table)?;
                store::put_ready(client, flow, 'R', None, &ready)?;
            }
        }
        let arguments = [
            spi::arg(flow.id),
            spi::arg(name),
            spi::arg(schedule.text.as_str()),
            spi::arg(zone::timestamp(now)),
            spi::arg(next.and_then(zone::timestamp)),
            spi::arg(last),
        ];
        spi::query(client, HANDLED, &arguments)?;
        Ok((jobs, next))
    })
}

/// Forgets runs that are older than the history. Runs with the owner's rights.
pub fn prune(days: i32) -> Result<()> {
    spi::run("DELETE FROM usher.schedule_runs WHERE scheduled_at < pg_catalog.now() - $1 * interval '1 day'", &[spi::arg(days)])?;
    Ok(())
}
