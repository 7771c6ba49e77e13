//! `usher.metrics()`: figures for Prometheus.

use super::exposition::{Exposition, Kind};
use super::{horizon, require_look};
use crate::error::Result;
use crate::pg::counters::{self, Totals};
use crate::pg::{gauges, guc, role, shmem, spi};
use crate::queue::{LANES, depth};
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// So many flows get lines of their own, those with the most jobs that are not done; the rest is one line with an empty
/// name. A monitor's memory is not ours to fill.
const MOST_FLOWS: i32 = 100;

/// Everything a monitor should watch, in the text format of Prometheus: jobs by lane and by flow, what the workers did since
/// the server started, who pins the horizon and for how long, the history's size, unread notices. Counters come from shared
/// memory; the numbers of ready and waiting jobs and of dead letters are counted. For operators and readers.
///
/// Errors: 42501 for other callers, 55000 before `usher.setup()`.
#[pg_extern(volatile, parallel_unsafe)]
fn metrics() -> std::result::Result<String, ErrorReport> {
    require_look("read metrics")?;
    Ok(collect()?)
}

fn collect() -> Result<String> {
    let installed = setup::current()?;
    let reader = role::current();
    let mut out = Exposition::default();
    let version = [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)];
    out.family("usher_info", Kind::Gauge, "The version of the loaded library.", version);
    workers(&mut out, installed.home);
    depths(&mut out)?;
    let pins = horizon::pins(reader)?;
    let _path = guc::Nest::pinned_path();
    let _acting = role::internal(installed.owner);
    lanes(&mut out)?;
    flows(&mut out)?;
    let transactions = pins.iter().map(|pin| pin.transactions).max().unwrap_or(0);
    let seconds = pins.iter().filter_map(|pin| pin.seconds).fold(0.0, f64::max);
    let help = "Transactions that have begun since the oldest one that the horizon waits for.";
    out.single("usher_horizon_age_transactions", Kind::Gauge, help, transactions as f64);
    let help = "Seconds since the oldest transaction that pins the horizon began, where that is known.";
    out.single("usher_horizon_age_seconds", Kind::Gauge, help, seconds);
    let bytes = spi::read::<i64>(
        "SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_total_relation_size(t.relid)), 0)::bigint FROM pg_catalog.pg_partition_tree('usher.job_history') AS t",
        &[],
    )?;
    out.single("usher_history_bytes", Kind::Gauge, "Size of the history of jobs with its indexes.", bytes.unwrap_or(0) as f64);
    rules(&mut out)?;
    let unread = spi::read::<i64>("SELECT pg_catalog.count(*) FROM usher.notices WHERE read_at IS NULL", &[])?;
    out.single("usher_notices_unread", Kind::Gauge, "Notices that nobody has read.", unread.unwrap_or(0) as f64);
    Ok(out.text())
}

/// Rules, what they have found, and how consistent the least consistent organizations are.
fn rules(out: &mut Exposition) -> Result<()> {
    let pairs = |sql: &str| {
        spi::read_all(sql, &[], |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<f64>(2)?.unwrap_or(0.0))))
    };
    let states = pairs(
        "SELECT s.state, (SELECT pg_catalog.count(*) FROM usher.rules AS l
                           WHERE s.state = CASE WHEN l.state = 'broken' THEN 'broken' WHEN NOT l.enabled THEN 'off' ELSE 'on' END)::float8
           FROM (VALUES (1, 'on'), (2, 'off'), (3, 'broken')) AS s (n, state) ORDER BY s.n",
    )?;
    let samples = states.iter().map(|(state, rules)| (vec![("state", state.as_str())], *rules));
    out.family("usher_rules", Kind::Gauge, "Rules by state.", samples);
    let open = pairs(
        "SELECT s.severity, (SELECT pg_catalog.count(*) FROM usher.violations AS v WHERE v.status = 'open' AND v.severity = s.severity)::float8
           FROM (VALUES (1, 'critical'), (2, 'warning'), (3, 'info')) AS s (n, severity) ORDER BY s.n",
    )?;
    let samples = open.iter().map(|(severity, violations)| (vec![("severity", severity.as_str())], *violations));
    out.family("usher_violations_open", Kind::Gauge, "Violations of rules that are open, by severity.", samples);
    let percents = pairs(
        "SELECT COALESCE(o.slug, c.organization_id::text), c.percent::float8 FROM usher.consistency AS c LEFT JOIN usher.organizations AS o ON o.id = c.organization_id
          ORDER BY c.percent, 1 LIMIT 100",
    )?;
    let samples = percents.iter().map(|(organization, percent)| (vec![("organization", organization.as_str())], *percent));
    let help = "Rows without an open violation, in percent of those that rules are about: the least consistent organizations.";
    out.family("usher_consistency_percent", Kind::Gauge, help, samples);
    Ok(())
}

fn workers(out: &mut Exposition, home: bool) {
    let up: Vec<u32> = shmem::workers().iter().filter(|worker| worker.listening).map(|worker| worker.lanes).collect();
    let serves = |lane: usize| up.iter().any(|lanes| lanes & (1 << lane) != 0);
    let samples = LANES.iter().enumerate().map(|(lane, name)| (vec![("lane", *name)], f64::from(u8::from(serves(lane)))));
    out.family("usher_worker_up", Kind::Gauge, "1 while a worker process serves the lane.", samples);
    let help = "1 where the tables are at home, 0 in a copy whose jobs wait for usher.resume().";
    out.single("usher_home", Kind::Gauge, help, f64::from(u8::from(home)));
    let Some(totals) = counters::totals() else { return };
    let mut counter = |name: &str, help: &str, value: fn(&Totals) -> f64| {
        let samples = LANES.iter().zip(&totals).map(|(lane, totals)| (vec![("lane", *lane)], value(totals)));
        out.family(name, Kind::Counter, help, samples);
    };
    counter("usher_jobs_done_total", "Jobs that workers have done since the server started.", |lane| lane.done as f64);
    counter("usher_job_failures_total", "Tries of jobs that failed.", |lane| lane.failures as f64);
    counter("usher_jobs_dead_total", "Jobs that became dead letters.", |lane| lane.dead as f64);
    counter("usher_batches_total", "Transactions in which workers did jobs.", |lane| lane.batches as f64);
    counter("usher_busy_seconds_total", "Time that workers spent in them.", |lane| lane.busy_seconds);
    let samples = LANES.iter().zip(&totals).map(|(lane, totals)| (vec![("lane", *lane)], totals.last_minute as f64));
    out.family("usher_jobs_last_minute", Kind::Gauge, "Jobs done within the last minute.", samples);
}

/// From shared memory, as far as it was counted.
fn depths(out: &mut Exposition) -> Result<()> {
    if let Some(whole) = gauges::existing(gauges::WHOLE) {
        let known = LANES.iter().enumerate().filter_map(|(lane, name)| Some((*name, gauges::known(whole, lane)?)));
        let samples = known.map(|(lane, jobs)| (vec![("lane", lane)], jobs as f64));
        out.family("usher_queue_depth", Kind::Gauge, "Ready jobs, as of all commits, without a query.", samples);
    }
    let limits: Vec<(String, f64)> = crate::queue::pressure::depths()?;
    if !limits.is_empty() {
        let samples = limits.iter().map(|(limit, jobs)| (vec![("limit", limit.as_str())], *jobs));
        out.family("usher_limit_jobs", Kind::Gauge, "Ready jobs that a limit of usher.queue_limits counts.", samples);
    }
    Ok(())
}

fn lanes(out: &mut Exposition) -> Result<()> {
    let ready = depth::ready_by_lane()?;
    let name = |lane: i16| LANES.get(lane as usize).copied().unwrap_or_default();
    let samples = ready.iter().map(|lane| (vec![("lane", name(lane.lane))], lane.jobs as f64));
    out.family("usher_jobs_ready", Kind::Gauge, "Jobs that could run now.", samples);
    let samples = ready.iter().map(|lane| (vec![("lane", name(lane.lane))], lane.oldest));
    out.family("usher_oldest_ready_seconds", Kind::Gauge, "Age of the oldest of them.", samples);
    let waiting = depth::waiting_by_reason()?;
    let samples = waiting.iter().map(|(reason, jobs)| (vec![("reason", reason.as_str())], *jobs as f64));
    out.family("usher_jobs_waiting", Kind::Gauge, "Jobs that cannot run yet, by what they wait for.", samples);
    Ok(())
}

fn flows(out: &mut Exposition) -> Result<()> {
    let flows = depth::by_flow(MOST_FLOWS)?;
    let mut gauge = |name: &str, help: &str, value: fn(&depth::OfFlow) -> i64| {
        let samples = flows.iter().map(|flow| (vec![("flow", flow.flow.as_str())], value(flow) as f64));
        out.family(name, Kind::Gauge, help, samples);
    };
    gauge("usher_flow_jobs_ready", "Jobs of a flow that could run now.", |flow| flow.ready);
    gauge("usher_flow_jobs_waiting", "Jobs of a flow that cannot run yet.", |flow| flow.waiting);
    gauge("usher_flow_dead_letters", "Jobs of a flow that failed for good.", |flow| flow.dead);
    let states = spi::read_all(
        "SELECT s.state, (SELECT pg_catalog.count(*) FROM usher.flows f
                           WHERE s.state = CASE WHEN f.state = 'broken' THEN 'broken' WHEN NOT f.enabled THEN 'off' ELSE 'on' END)
           FROM (VALUES (1, 'on'), (2, 'off'), (3, 'broken')) AS s (n, state) ORDER BY s.n",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<i64>(2)?.unwrap_or(0))),
    )?;
    let samples = states.iter().map(|(state, flows)| (vec![("state", state.as_str())], *flows as f64));
    out.family("usher_flows", Kind::Gauge, "Flows by state.", samples);
    Ok(())
}
