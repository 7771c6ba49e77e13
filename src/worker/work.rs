//! Backfill and replay: beginning them, and their slices; and when migrations get theirs.
//!
//! A slice is made only when this process has caught up with the lane of its flow, and few jobs of the flow wait: the rest of
//! the traffic goes first, and the backlog never grows by more than a slice.

use super::batch::Done;
use crate::capture::backfill::Source;
use crate::error::{Result, UsherError};
use crate::event;
use crate::flow::apply::Place;
use crate::flow::catalog;
use crate::flow::definition::When;
use crate::flow::manage;
use crate::flow::store::{self as flows, Flow};
use crate::guard::audit;
use crate::migration::{self, Outcome};
use crate::pg::{bgw, ids, role, subxact, xact, zone};
use crate::queue::store::{self, Ready};
use crate::queue::work::{self, Begin, Item, Kind, Wish};
use crate::registry::identity;
use crate::setup::{self, Installed};
use pgrx::Uuid;
use pgrx::prelude::*;
use serde_json::json;
use std::rc::Rc;

/// More rows than this would hold their locks too long.
const LARGEST_SLICE: i32 = 10_000;

fn flow_named(installed: Installed, name: &str) -> Result<Rc<Flow>> {
    let (id, version) = manage::id_of(installed, name)?;
    let _acting = role::internal(installed.owner);
    flows::get(id, version)?.ok_or_else(|| UsherError::internal("a flow has no current version"))
}

/// What is begun now and does not run yet is no riddle.
fn say_that_it_waits(flow: &Flow) {
    if let Some(reason) = &flow.broken {
        notice!("flow \"{}\" is broken, and this waits until it fits again: {reason}", flow.name);
    } else if !flow.enabled {
        notice!("flow \"{0}\" is off, and this waits for usher.enable_flow('{0}')", flow.name);
    }
}

fn begun(installed: Installed, begin: Begin) -> Result<Uuid> {
    let _acting = role::internal(installed.owner);
    let shown = json!({"kind": begin.kind.word(), "flow": begin.name, "where": begin.condition});
    let id = work::begin(begin)?;
    audit::note(installed, None, "usher.work_items.begun", &id.to_string(), None, Some(shown))?;
    xact::note_plans_changed();
    Ok(id)
}

pub fn backfill(name: &str, condition: Option<String>, slice: i32) -> Result<Uuid> {
    identity::require_operator("begin a backfill")?;
    let installed = setup::current()?;
    if !(1..=LARGEST_SLICE).contains(&slice) {
        return Err(UsherError::invalid(format!("slice is {slice}")).hint(format!("Give a number from 1 to {LARGEST_SLICE}.")));
    }
    let caller = role::current();
    let flow = flow_named(installed, name)?;
    if condition.is_some() && !role::is_member(caller, flow.run_as) {
        let runs_as = role::name_of(flow.run_as).unwrap_or_default();
        return Err(UsherError::forbidden(format!("\"where\" would be evaluated as {runs_as}, which you may not become"))
            .hint(format!("Leave \"where\" out, or ask for GRANT {runs_as} TO your role.")));
    }
    let by = identity::actor();
    let _acting = role::internal(installed.owner);
    let source = Source::of(installed, flow.clone(), condition.as_deref())?;
    source.check_condition()?;
    let end = source.last_key()?;
    let (total, exact) = source.total()?;
    let id = begun(
        installed,
        Begin {
            kind: Kind::Backfill,
            flow: flow.id,
            name: flow.name.clone(),
            slice,
            condition,
            first_at: None,
            last_at: None,
            empty: end.is_none(),
            final_position: end,
            total,
            exact,
            by,
        },
    )?;
    say_that_it_waits(&flow);
    Ok(id)
}

/// Jobs of one slice of a replay.
const REPLAYED: i32 = 1_000;

/// A time to replay, up to now at most: what the replay itself does is not replayed.
fn span(
    first: Option<TimestampWithTimeZone>,
    last: Option<TimestampWithTimeZone>,
) -> Result<(TimestampWithTimeZone, TimestampWithTimeZone)> {
    let first = first.ok_or_else(|| UsherError::missing("\"from\""))?;
    let now = TimestampWithTimeZone::try_from(ids::clock()).map_err(|_| UsherError::internal("the clock is out of range"))?;
    let last = last.filter(|last| *last < now).unwrap_or(now);
    if first >= last {
        return Err(
            UsherError::invalid("the time to replay is empty").hint("Give a \"from\" that is before \"to\" and before now.")
        );
    }
    Ok((first, last))
}

pub fn replay(name: &str, first: Option<TimestampWithTimeZone>, last: Option<TimestampWithTimeZone>) -> Result<Uuid> {
    identity::require_operator("begin a replay")?;
    let installed = setup::current()?;
    let flow = flow_named(installed, name)?;
    let (first, last) = span(first, last)?;
    let by = identity::actor();
    let _acting = role::internal(installed.owner);
    let total = store::count_finished(flow.id, first, last)?;
    let id = begun(
        installed,
        Begin {
            kind: Kind::Replay,
            flow: flow.id,
            name: flow.name.clone(),
            slice: REPLAYED,
            condition: None,
            first_at: Some(first),
            last_at: Some(last),
            final_position: None,
            total,
            exact: true,
            empty: total == 0,
            by,
        },
    )?;
    say_that_it_waits(&flow);
    Ok(id)
}

/// Events of one slice that are looked at.
const HEARD: i32 = 2_000;

pub fn replay_events(
    name: &str,
    first: Option<TimestampWithTimeZone>,
    last: Option<TimestampWithTimeZone>,
    types: Option<String>,
) -> Result<Uuid> {
    identity::require_operator("begin a replay")?;
    let installed = setup::current()?;
    let flow = flow_named(installed, name)?;
    let (first, last) = span(first, last)?;
    let by = identity::actor();
    let acting = role::internal(installed.owner);
    let total = event::replay::count(&flow, types.as_deref(), first, last)?;
    drop(acting);
    let id = begun(
        installed,
        Begin {
            kind: Kind::Events,
            flow: flow.id,
            name: flow.name.clone(),
            slice: HEARD,
            condition: types,
            first_at: Some(first),
            last_at: Some(last),
            final_position: None,
            total,
            exact: true,
            empty: total == 0,
            by,
        },
    )?;
    say_that_it_waits(&flow);
    Ok(id)
}

pub fn steer(id: Option<Uuid>, wish: Wish) -> Result<String> {
    let (what, action, word) = match wish {
        Wish::Pause => ("pause work", "usher.work_items.paused", "is paused"),
        Wish::Resume => ("resume work", "usher.work_items.resumed", "goes on"),
        Wish::Cancel => ("cancel work", "usher.work_items.cancelled", "is cancelled; jobs that it has made stay"),
    };
    identity::require_operator(what)?;
    let installed = setup::current()?;
    let id = id.ok_or_else(|| UsherError::missing("the work's id"))?;
    let _acting = role::internal(installed.owner);
    let flow = work::steer(id, wish)?;
    audit::note(installed, None, action, &id.to_string(), None, Some(json!({"flow": flow})))?;
    xact::note_plans_changed();
    Ok(format!("the work on flow {flow} {word}"))
}

/// What a look at the work has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// There is none.
    Nothing,
    /// What there is has to wait for other jobs, or for its flow.
    Waits,
    /// Jobs were made in a lane that must be caught up with before the next slice.
    Made { lane: Option<usize> },
    /// A lock was not free, or something else that passes.
    Later,
}

/// Makes the next slice of a flow with one of these lanes, in the caller's transaction; where there is none to make, does one of a migration.
pub fn slice(installed: Installed, lanes: &[i16], place: Place) -> Result<(Slice, i32)> {
    if !installed.up_to_date {
        return Ok((Slice::Nothing, 0));
    }
    let _acting = role::internal(installed.owner);
    let made = long(installed, lanes)?;
    if matches!(made, Slice::Made { .. }) {
        return Ok((made, 0));
    }
    Ok(match (migration::slice(installed, lanes, place)?, made) {
        (Outcome::Did(items), _) => (Slice::Made { lane: None }, items),
        (_, Slice::Later) | (Outcome::Later, _) => (Slice::Later, 0),
        (_, Slice::Waits) | (Outcome::Waits, _) => (Slice::Waits, 0),
        (Outcome::Nothing, _) => (Slice::Nothing, 0),
    })
}

/// The next slice of a backfill or replay. Runs with the owner's rights.
fn long(installed: Installed, lanes: &[i16]) -> Result<Slice> {
    if !work::any()? {
        return Ok(Slice::Nothing);
    }
    work::end_of_dropped()?;
    let Some(item) = work::next(lanes)? else { return Ok(Slice::Waits) };
    match subxact::attempt(|| one(installed, &item)) {
        Ok(made) => Ok(made),
        Err(failure) => {
            let for_good = failure.tells_about_the_statement() || failure.sqlstate == "55000";
            work::note_failure(item.id, &failure.line(), for_good)?;
            if for_good {
                log!("usher worker: work {} stands still: {}", item.id, failure.line());
                return Ok(Slice::Made { lane: None });
            }
            Ok(Slice::Later)
        }
    }
}

fn one(installed: Installed, item: &Item) -> Result<Slice> {
    let flow = flows::get(item.flow, item.version)?.ok_or_else(|| UsherError::internal("a flow is gone"))?;
    match item.kind {
        Kind::Backfill => backfilled(installed, item, &flow),
        Kind::Events => {
            let lowest = crate::pg::shmem::LANES as i16 - 1;
            let slice = Spi::connect_mut(|client| event::replay::slice(client, item, &flow, lowest))?;
            work::advance(item.id, slice.position, i64::from(slice.looked_at), slice.jobs)?;
            Ok(Slice::Made { lane: None })
        }
        Kind::Replay => {
            let key = match &flow.definition.when {
                When::Change { table, .. } => catalog::table(table, "\"when\"")?.key,
                _ => Vec::new(),
            };
            let (jobs, position) = Spi::connect_mut(|client| work::replay(client, item, &flow, &key))?;
            work::advance(item.id, position, i64::from(jobs), jobs)?;
            // They wait in another table, where they are counted before the next slice.
            Ok(Slice::Made { lane: None })
        }
    }
}

fn backfilled(installed: Installed, item: &Item, flow: &Rc<Flow>) -> Result<Slice> {
    let source = Source::of(installed, flow.clone(), item.condition.as_deref())?;
    let Some(end) = &item.final_position else { return Err(UsherError::internal("a backfill has no end")) };
    Spi::connect_mut(|client| {
        let slice = source.slice(client, item.position.as_deref(), end, item.slice)?;
        if let Some((organizations, row_keys, images)) = slice.jobs {
            let ready = Ready::of(organizations, row_keys, images);
            store::put_ready(client, flow, 'I', Some(item.id), &ready)?;
        }
        work::advance(item.id, slice.position, slice.looked_at, slice.size)?;
        Ok(Slice::Made { lane: (slice.size > 0).then_some(flow.definition.lane) })
    })
}

/// When this process looks for work: after a slice that was not the last, and when somebody says that there is some.
pub struct Turns {
    look: bool,
    /// There is work that may go on after other jobs.
    open: bool,
    /// Not before: something was locked.
    not_before: Option<std::time::Instant>,
    /// The lane that must be caught up with before the next slice.
    waits_for: Option<usize>,
    /// Batches since the last slice: under constant traffic it gets its turn all the same.
    batches: u32,
}

/// As often as the lane `low` when all others are full.
const SHARE: u32 = 31;

impl Turns {
    pub fn new() -> Self {
        Self { look: true, open: false, not_before: None, waits_for: None, batches: 0 }
    }

    /// There may be work, or what it waited for may be over.
    pub fn look_again(&mut self) {
        self.look = true;
    }

    /// A batch of a lane is done; `full`: there is probably more.
    pub fn batch(&mut self, lane: usize, jobs: i32, full: bool) {
        self.batches = self.batches.saturating_add(1);
        self.look |= self.open && jobs > 0;
        if self.waits_for == Some(lane) && !full {
            self.waits_for = None;
        }
    }

    pub fn due_batch(&mut self, jobs: i32) {
        self.look |= self.open && jobs > 0;
    }

    /// `idle`: no lane has anything to do. `behind`: some lane's last batch was full.
    pub fn is_due(&self, now: std::time::Instant, idle: bool, behind: bool) -> bool {
        self.look
            && self.not_before.is_none_or(|at| now >= at)
            && self.waits_for.is_none_or(|_| idle)
            && (idle || (!behind && self.batches >= SHARE))
    }

    /// When to get up for it without being called.
    pub fn wake(&self) -> Option<std::time::Instant> {
        self.not_before.filter(|_| self.look)
    }

    pub fn done(&mut self, slice: Slice, items: i32) {
        if items > 0 {
            // Slice follows slice: whether the server is still there is found by waiting, however short.
            bgw::pause(std::time::Duration::from_millis(1));
        }
        self.batches = 0;
        self.not_before = None;
        self.open = slice != Slice::Nothing;
        match slice {
            Slice::Nothing | Slice::Waits => self.look = false,
            Slice::Made { lane } => self.waits_for = lane,
            Slice::Later => self.not_before = Some(std::time::Instant::now() + std::time::Duration::from_secs(1)),
        }
    }
}

/// One slice, and the jobs of times that have come, for callers of `usher.process_jobs()`.
pub fn without_workers(installed: Installed) -> Result<Done> {
    if !installed.up_to_date {
        return Ok(Done::default());
    }
    let _acting = role::internal(installed.owner);
    crate::queue::schedules::run(zone::now())?;
    drop(_acting);
    let all: Vec<i16> = (0..crate::pg::shmem::LANES as i16).collect();
    let (_, jobs) = slice(installed, &all, Place::Session)?;
    Ok(Done { jobs, ..Done::default() })
}
