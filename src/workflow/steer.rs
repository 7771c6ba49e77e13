//! Runs as people begin and steer them.

use super::advance::{self, Happened, Order};
use super::begin::said;
use super::model::{Phase, State};
use super::plan::{self, Plan};
use super::store::{self, Held, Line};
use crate::error::{Result, UsherError, did_you_mean};
use crate::flow::apply::Batch;
use crate::flow::cause;
use crate::flow::steps::{Awaits, Kind};
use crate::flow::{manage, switches};
use crate::guard::audit;
use crate::pg::{ids, role, spi};
use crate::rates;
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::{JsonB, Uuid};
use serde_json::json;

/// Jobs of a workflow in a batch are done, those with these numbers: each has begun a run. Runs with the owner's rights.
pub fn started(flow: i32, version: i32, lane: i16, hop: i16, batch: &Batch, trails: &spi::Raw, numbers: Vec<i32>) -> Result<()> {
    let begun = spi::all(
        "INSERT INTO usher.workflow_runs (organization_id, id, flow_id, version, workflow, input, lane, hop, trail, cause, started_by, hears_since)
         SELECT r.organization_id, usher.uuid_v7(), $4, $5, f.name, r.result, $6, $7, ($8::text[])[n], r.job_id, 'flow ' || f.name, ($9::timestamptz[])[n]
           FROM unnest($3::integer[]) AS n
           JOIN usher.job_results AS r ON r.organization_id = ($1::uuid[])[n] AND r.job_id = ($2::uuid[])[n]
           JOIN usher.flows AS f ON f.id = $4
          ORDER BY n FOR KEY SHARE OF f
         RETURNING organization_id, id",
        &[
            batch.organizations.arg(),
            batch.ids.arg(),
            spi::arg(numbers),
            spi::arg(flow),
            spi::arg(version),
            spi::arg(lane),
            spi::arg(hop),
            trails.arg(),
            batch.created.arg(),
        ],
        |row| Ok((row.get::<Uuid>(1)?.unwrap_or_else(store::nil), row.get::<Uuid>(2)?.unwrap_or_else(store::nil))),
    )?;
    if begun.is_empty() {
        return Ok(());
    }
    let (organizations, ids): (Vec<Uuid>, Vec<Uuid>) = begun.into_iter().unzip();
    advance::advance(store::hold(&organizations, &ids, true, false)?, Vec::new())
}

/// Begins a run in the caller's transaction.
pub fn start(organization: &str, name: &str, input: JsonB, lane: Option<i16>) -> Result<Uuid> {
    let installed = setup::current()?;
    let organization = identity::organization(organization, Right::Manage)?;
    audit::note_legend("start_workflow", organization)?;
    rates::take("start_workflow", Some(organization))?;
    if !input.0.is_object() {
        return Err(
            UsherError::invalid("the input is not a JSON object").hint("Give what the steps call run.input: {\"order_id\": 7}.")
        );
    }
    let (flow, version) = manage::id_of(installed, name)?;
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    let whole = crate::flow::store::get(flow, version)?.ok_or_else(|| UsherError::internal("a flow has no current version"))?;
    if whole.definition.steps().is_empty() {
        return Err(UsherError::invalid(format!("flow \"{name}\" has no steps"))
            .hint("Only a workflow, \"then\": {\"steps\": […]}, has runs; usher.enqueue_sync_job() asks other flows for work."));
    }
    if !whole.enabled {
        return Err(UsherError::state(format!("workflow \"{name}\" is off")).hint(format!("SELECT usher.enable_flow('{name}');")));
    }
    if whole.switched {
        switches::require_on(flow, name, organization)?;
    }
    // Whoever drops it meanwhile waits, and then counts this run.
    spi::run("SELECT FROM usher.flows AS f WHERE f.id = $1 FOR KEY SHARE", &[spi::arg(flow)])?;
    let (id, cause) = (ids::uuid_v7(), cause::current());
    spi::run(
        "INSERT INTO usher.workflow_runs (organization_id, id, flow_id, version, workflow, input, lane, hop, trail, cause, started_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            spi::arg(organization),
            spi::arg(id),
            spi::arg(flow),
            spi::arg(version),
            spi::arg(name),
            spi::arg(input),
            spi::arg(lane.unwrap_or(whole.definition.lane as i16)),
            spi::arg(cause.hop),
            spi::arg(cause::write_trail(&cause.trail)),
            spi::arg(cause.job.map(Uuid::from_bytes)),
            spi::arg(by),
        ],
    )?;
    advance::advance(store::hold(&[organization], &[id], true, false)?, Vec::new())?;
    Ok(id)
}

fn unknown(run: Uuid) -> UsherError {
    UsherError::not_found(format!("run {run} does not exist, or is not one of yours"))
        .hint("SELECT id, workflow, state FROM usher.workflow_runs shows the runs you may see.")
}

/// The organization of a run that the caller may see.
pub fn organization_of(installed: Installed, run: Uuid) -> Result<Uuid> {
    let mine = identity::organizations(Right::Read)?;
    let _acting = role::internal(installed.owner);
    spi::read::<Uuid>(
        "SELECT r.organization_id FROM usher.workflow_runs AS r WHERE r.id = $1 AND r.organization_id = ANY ($2)",
        &[spi::arg(run), spi::arg(mine)],
    )?
    .ok_or_else(|| unknown(run))
}

/// The organization of a run that the caller may change.
fn mine(installed: Installed, run: Option<Uuid>, function: &str, any_member: bool) -> Result<(Uuid, Uuid)> {
    let run = run.ok_or_else(|| UsherError::missing("the run's id"))?;
    let organization = organization_of(installed, run)?;
    if !any_member && !identity::manages(organization)? {
        return Err(UsherError::forbidden("members may read runs, not change them")
            .detail(format!("You act as \"{}\".", identity::actor()))
            .hint("Ask an admin of the organization."));
    }
    audit::note_legend(function, organization)?;
    Ok((organization, run))
}

/// Locks a run, whoever has it. Runs with the owner's rights.
fn held(organization: Uuid, run: Uuid) -> Result<Held> {
    store::hold(&[organization], &[run], true, true)?.into_iter().next().ok_or_else(|| {
        UsherError::state(format!("the workflow of run {run} was dropped"))
            .hint(format!("SELECT usher.cancel_workflow('{run}', undo => false); ends the run as it is."))
    })
}

fn ended(run: &Held, what: &str) -> UsherError {
    UsherError::state(format!("run {} is {} already", run.id, run.run.phase.word())).hint(what)
}

/// How a run stands now, in words. Runs with the owner's rights.
fn standing(organization: Uuid, run: Uuid) -> Result<String> {
    let state = spi::read::<String>(
        "SELECT r.state FROM usher.workflow_runs AS r WHERE r.organization_id = $1 AND r.id = $2",
        &[spi::arg(organization), spi::arg(run)],
    )?;
    Ok(state.unwrap_or_default())
}

fn note(installed: Installed, held: &Held, action: &'static str, line: Line, shown: serde_json::Value) -> Result<()> {
    store::enter(vec![line])?;
    audit::note(installed, Some(held.organization), action, &held.id.to_string(), None, Some(shown))
}

fn line(held: &Held, what: &'static str, step: Option<String>, detail: Option<String>) -> Line {
    Line { organization: held.organization, run: held.id, what, step, item: None, detail, by: Some(identity::author()) }
}

/// The step that a signal is for, and whether it is an answer to a question for approval.
fn awaited(plan: &Plan, signal: &str) -> Result<(usize, bool, bool)> {
    let names = plan.steps.iter().enumerate().filter_map(|(number, step)| match &step.kind {
        Kind::Wait(Awaits::Signal(name)) => Some((number, name.clone(), false, false)),
        Kind::Wait(Awaits::Approval(member)) => Some((number, step.name.clone(), true, *member)),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    names
        .iter()
        .find(|(_, name, ..)| name == signal)
        .map(|(number, _, approval, member)| (*number, *approval, *member))
        .ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(|(_, name, ..)| name.as_str()).collect();
            let hint = if known.is_empty() {
                "None of its steps waits for a signal.".to_owned()
            } else {
                format!("{}Its steps wait for: {}.", did_you_mean(signal, &known), known.join(", "))
            };
            UsherError::invalid(format!("workflow \"{}\" does not know the signal \"{signal}\"", plan.name)).hint(hint)
        })
}

/// Tells a run what it waits for, or will wait for.
pub fn signal(run: Option<Uuid>, signal: &str, data: JsonB) -> Result<String> {
    let installed = setup::current()?;
    let (organization, run) = mine(installed, run, "signal_workflow", true)?;
    let manages = identity::manages(organization)?;
    let (by, actor) = (identity::author(), identity::actor());
    if !data.0.is_object() {
        return Err(
            UsherError::invalid("the signal's data is not a JSON object").hint("Give an object such as {\"amount\": 12.50}.")
        );
    }
    let _acting = role::internal(installed.owner);
    let held = held(organization, run)?;
    let (number, approval, any_member) = awaited(&held.plan, signal)?;
    if !manages && !any_member {
        return Err(UsherError::forbidden(format!("\"{signal}\" is for admins of the organization to say"))
            .detail(format!("You act as \"{actor}\"."))
            .hint("Ask one of them."));
    }
    if approval && !data.0.get("approved").is_some_and(serde_json::Value::is_boolean) {
        return Err(UsherError::invalid("an approval lacks \"approved\"")
            .hint("Give {\"approved\": true}, or {\"approved\": false, \"note\": \"…\"}."));
    }
    if held.run.phase != Phase::Running {
        return Err(ended(&held, "A signal is for a run that is running."));
    }
    let step = held.plan.steps[number].name.clone();
    let entry = line(&held, "signal", Some(step.clone()), Some(format!("{signal} {}", data.0)));
    match held.run.places.get(&(number, 0)) {
        Some(State::Waiting) => {
            note(installed, &held, "usher.workflow_runs.signalled", entry, json!({"signal": signal, "data": data.0.clone()}))?;
            let what = said(approval, data, &by);
            advance::advance(vec![held], vec![Happened { organization, run, step, item: 0, what }])?;
        }
        None | Some(State::Looking) => {
            let kept = spi::run(
                "INSERT INTO usher.workflow_signals (organization_id, run_id, signal, data, sent_by) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                &[spi::arg(organization), spi::arg(run), spi::arg(signal), spi::arg(JsonB(data.0.clone())), spi::arg(by)],
            )?;
            if kept == 0 {
                return Err(UsherError::state(format!("the run has the signal \"{signal}\" already"))
                    .hint("It was sent before the step that waits for it began, and is kept for it."));
            }
            note(installed, &held, "usher.workflow_runs.signalled", entry, json!({"signal": signal, "data": data.0}))?;
        }
        Some(state) => {
            return Err(UsherError::state(format!("step \"{step}\" is {} already: it waits for no signal", state.word()))
                .hint("SELECT * FROM usher.workflow_timeline(run) shows what has happened."));
        }
    }
    standing(organization, run)
}

/// Gives a run up: what it has done is undone, or (`undo` false) left as it is.
pub fn cancel(run: Option<Uuid>, reason: Option<String>, undo: bool) -> Result<String> {
    let installed = setup::current()?;
    let (organization, run) = mine(installed, run, "cancel_workflow", false)?;
    let _acting = role::internal(installed.owner);
    if !undo && store::close_orphan(organization, run)? {
        audit::note(
            installed,
            Some(organization),
            "usher.workflow_runs.cancelled",
            &run.to_string(),
            None,
            Some(json!({"reason": reason, "undo": undo})),
        )?;
        return standing(organization, run);
    }
    let held = held(organization, run)?;
    match held.run.phase {
        phase if phase.has_ended() => return Err(ended(&held, "Nothing of it is left to be cancelled.")),
        _ if !undo => {}
        Phase::Undoing => {
            return Err(ended(&held, "What it has done is being undone. usher.workflow_timeline() shows how far it is."));
        }
        Phase::Parked => {
            return Err(UsherError::state(format!("run {run} is parked: it can only go on, or end as it is"))
                .hint("usher.retry_workflow(run) goes on with it, usher.cancel_workflow(run, undo => false) ends it as it is."));
        }
        _ if held.run.is_past_pivot(&held.plan.model) => {
            return Err(UsherError::state(format!("run {run} is past its pivot: from there on nothing is undone"))
                .hint("Let it end. usher.cancel_workflow(run, undo => false) ends it as it is."));
        }
        _ => {}
    }
    let why = format!("cancelled{}", reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default());
    let entry = line(&held, if undo { "cancelled" } else { "closed" }, None, reason.clone());
    note(installed, &held, "usher.workflow_runs.cancelled", entry, json!({"reason": reason, "undo": undo}))?;
    advance::order(held, if undo { Order::GiveUp } else { Order::Close })?;
    spi::run(
        "UPDATE usher.workflow_runs AS r SET error_message = COALESCE(r.error_message, $3) WHERE r.organization_id = $1 AND r.id = $2",
        &[spi::arg(organization), spi::arg(run), spi::arg(why)],
    )?;
    standing(organization, run)
}

/// Goes on with a run that is parked, or begins one again that was undone.
pub fn retry(run: Option<Uuid>, from: Option<String>) -> Result<String> {
    let installed = setup::current()?;
    let (organization, run) = mine(installed, run, "retry_workflow", false)?;
    let _acting = role::internal(installed.owner);
    let mut held = held(organization, run)?;
    let phase = held.run.phase;
    if !matches!(phase, Phase::Parked | Phase::Undone) {
        return Err(UsherError::state(format!("run {run} is {}: there is nothing to retry", phase.word()))
            .hint("A run that is parked goes on, one that was undone begins anew."));
    }
    if phase == Phase::Undone && from.is_some() {
        return Err(UsherError::state(format!("run {run} was undone: it can only begin anew"))
            .hint("Leave out the step: usher.retry_workflow(run) begins with the first."));
    }
    // As with a single job: whoever mends the workflow means the new version.
    let newest = spi::read::<i32>("SELECT f.version FROM usher.flows AS f WHERE f.id = $1", &[spi::arg(held.flow)])?
        .ok_or_else(|| UsherError::state("its workflow was dropped").hint("Make the workflow again and start a new run."))?;
    held = renew(held, newest, phase)?;
    let from = from.map(|name| {
        held.plan.number(&name).ok_or_else(|| {
            let known: Vec<&str> = held.plan.steps.iter().map(|step| step.name.as_str()).collect();
            UsherError::invalid(format!("workflow \"{}\" has no step \"{name}\"", held.plan.name)).hint(format!(
                "{}Steps: {}.",
                did_you_mean(&name, &known),
                known.join(", ")
            ))
        })
    });
    let from = from.transpose()?;
    if held.run.places.values().any(|state| *state == State::Stuck) && from.is_some() {
        return Err(UsherError::state("its undo has failed: it can only be tried again").hint("Leave out the step."));
    }
    if let Some(number) = from
        && !held.run.places.contains_key(&(number, 0))
    {
        return Err(UsherError::state(format!("step \"{}\" has not begun yet", held.plan.steps[number].name))
            .hint("Name the step that failed, or an earlier one; without a step it is the one that failed."));
    }
    let step = from.map(|number| held.plan.steps[number].name.clone());
    note(
        installed,
        &held,
        "usher.workflow_runs.retried",
        line(&held, "retried", step.clone(), None),
        json!({"from": step, "version": newest}),
    )?;
    if phase == Phase::Undone {
        store::forget(organization, run)?;
        held.run.places.clear();
        held.jobs.clear();
    }
    spi::run(
        "UPDATE usher.workflow_runs AS r SET error_message = NULL WHERE r.organization_id = $1 AND r.id = $2",
        &[spi::arg(organization), spi::arg(run)],
    )?;
    advance::order(held, if phase == Phase::Undone { Order::Anew } else { Order::Retry(from) })?;
    standing(organization, run)
}

/// The run as a run of another version of its workflow.
fn renew(held: Held, version: i32, phase: Phase) -> Result<Held> {
    if held.plan.version == version {
        return Ok(held);
    }
    let newest = plan::get(held.flow, version)?
        .ok_or_else(|| UsherError::state("its workflow was dropped").hint("Make the workflow again and start a new run."))?;
    let mut renewed = Held { plan: newest.clone(), jobs: Default::default(), run: held.run.clone(), ..held };
    renewed.run.places.clear();
    if phase == Phase::Undone {
        return Ok(renewed);
    }
    for (place, state) in &held.run.places {
        let name = &held.plan.steps[place.0].name;
        let Some(number) = newest.number(name) else {
            return Err(UsherError::state(format!(
                "version {version} of workflow \"{}\" has no step \"{name}\", which the run has begun",
                newest.name
            ))
            .hint("Give the workflow that step again, or end the run as it is: usher.cancel_workflow(run, undo => false)."));
        };
        renewed.run.places.insert((number, place.1), *state);
        if let Some(jobs) = held.jobs.get(place) {
            renewed.jobs.insert((number, place.1), *jobs);
        }
    }
    Ok(renewed)
}

/// The lane of a priority, as callers name it; None leaves the workflow's own.
pub fn lane(priority: Option<String>) -> Result<Option<i16>> {
    match priority.as_deref() {
        None | Some("normal" | "medium") => Ok(None),
        Some(priority) => crate::flow::definition::lane(priority).map(|lane| Some(lane as i16)).ok_or_else(|| {
            UsherError::invalid(format!("priority \"{priority}\" is unknown"))
                .hint(format!("Use one of: {}.", crate::queue::LANES.join(", ")))
        }),
    }
}
