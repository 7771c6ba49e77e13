//! Back-pressure: how many jobs are ready, and limits to that.
//!
//! The numbers are in shared memory ([`gauges`]); who makes a ready job, or takes one out of the log, says so there. A limit
//! counts the ready jobs of a lane, flow, system or organization, or of several of these together. What is too much is
//! refused, put into a lower lane, or held back: it waits in `usher.queue_waiting` for `queue full` until [`let_go`].
//!
//! Limits are read once, and again when they or the flows change. Everything here runs with the owner's rights.

use super::LANES;
use super::log::{Log, written};
use super::store::first_ready;
use crate::error::{Result, UsherError};
use crate::pg::gauges::{self, Handle};
use crate::pg::spi::{self, arg};
use crate::pg::{relcache, role, xact};
use crate::registry::identity;
use crate::setup;
use pgrx::Uuid;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Refuse,
    Delay,
    Shed(usize),
}

/// A limit and whom it means.
#[derive(Debug, Clone)]
pub struct Rule {
    pub id: i32,
    gauge: Option<Handle>,
    lane: Option<usize>,
    /// None: every flow.
    flows: Option<Vec<i32>>,
    organization: Option<[u8; 16]>,
    max: i64,
    action: Action,
    /// Captured changes are refused as well.
    captured: bool,
    removed: bool,
    /// As people name it.
    what: String,
}

impl Rule {
    fn means_flow(&self, flow: i32) -> bool {
        self.flows.as_ref().is_none_or(|flows| flows.contains(&flow))
    }

    fn means(&self, lane: usize, flow: i32, organization: &[u8; 16]) -> bool {
        self.lane.is_none_or(|own| own == lane)
            && self.means_flow(flow)
            && self.organization.as_ref().is_none_or(|own| own == organization)
    }

    fn jobs(&self, gauge: Handle) -> i64 {
        match self.lane {
            Some(lane) => gauges::jobs(gauge, lane..lane + 1),
            None => gauges::jobs(gauge, 0..LANES.len()),
        }
    }

    fn is_full(&self, lane: usize) -> bool {
        let Some(gauge) = self.gauge.filter(|_| !self.removed) else { return false };
        // Whoever comes while others wait comes after them.
        self.jobs(gauge) >= self.max || (self.action == Action::Delay && gauges::holds_back(gauge, lane))
    }
}

thread_local! {
    static RULES: RefCell<(u64, Rc<Vec<Rule>>)> = RefCell::new((0, Rc::default()));
    /// Counts of a whole lane that this process has tried, and when the next one may be made.
    static TRIES: Cell<[u32; LANES.len()]> = const { Cell::new([0; LANES.len()]) };
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

const READ: &str = "
SELECT r.id, r.lane, r.of_organization, r.max_jobs, r.action, r.shed_to, r.captured, r.removed_at IS NOT NULL,
       CASE WHEN r.flow_id IS NOT NULL OR r.system IS NOT NULL THEN
            ARRAY(SELECT f.id FROM usher.flows AS f WHERE (r.flow_id IS NULL OR f.id = r.flow_id) AND (r.system IS NULL OR f.definition ->> 'to' = r.system)) END,
       pg_catalog.concat_ws(', ', 'lane ' || usher.lane_name(r.lane),
                            'flow ' || (SELECT f.name FROM usher.flows AS f WHERE f.id = r.flow_id), 'system ' || r.system,
                            'organization ' || (SELECT o.slug FROM usher.organizations AS o WHERE o.id = r.of_organization))
  FROM usher.queue_limit_rules AS r ORDER BY r.id";

/// The limits that there are.
pub fn rules() -> Result<Rc<Vec<Rule>>> {
    let generation = relcache::generation();
    let (known, rules) = RULES.with_borrow(|(known, rules)| (*known, rules.clone()));
    if known == generation {
        return Ok(rules);
    }
    let installed = setup::installed()?;
    let rules = if installed.up_to_date {
        xact::remember_only_now();
        let _acting = role::internal(installed.owner);
        Rc::new(spi::read_all(READ, &[], |row| {
            let id = row.get::<i32>(1)?.unwrap_or(0);
            let lane =
                |at: usize| -> Result<Option<usize>> { Ok(row.get::<i16>(at)?.and_then(|lane| usize::try_from(lane).ok())) };
            Ok(Rule {
                id,
                gauge: gauges::gauge(u32::try_from(id).unwrap_or(0)),
                lane: lane(2)?,
                organization: row.get::<Uuid>(3)?.map(|id| *id.as_bytes()),
                max: row.get::<i64>(4)?.unwrap_or(i64::MAX),
                action: match (row.get::<String>(5)?.as_deref(), lane(6)?) {
                    (Some("delay"), _) => Action::Delay,
                    (Some("shed"), Some(to)) => Action::Shed(to),
                    _ => Action::Refuse,
                },
                captured: row.get::<bool>(7)? == Some(true),
                removed: row.get::<bool>(8)? == Some(true),
                flows: row.get::<Vec<i32>>(9)?,
                what: row.get::<String>(10)?.unwrap_or_default(),
            })
        })?)
    } else {
        Rc::default()
    };
    RULES.set((generation, rules.clone()));
    Ok(rules)
}

/// Some limit may mean jobs of these flows.
pub fn concerns(mut flows: impl Iterator<Item = i32>) -> Result<bool> {
    let rules = rules()?;
    Ok(!rules.is_empty() && flows.any(|flow| rules.iter().any(|rule| rule.means_flow(flow))))
}

/// Who asks for a place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A change of a row: it keeps its lane, and its row's order.
    Change,
    /// A request. One with a key or with options keeps its lane.
    Request { free: bool },
    /// An event that others hear too: where a request would be refused, it is as a change.
    Event,
    /// An event of our own, which nothing may refuse: the worker emits it.
    Own,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Ready in this lane, and counted there by the limits.
    Ready(usize),
    /// Held back by this limit.
    Later(i32),
}

/// Finds a place for one new job.
pub fn admit(mut lane: usize, flow: i32, organization: Uuid, asker: Asker) -> Result<Place> {
    let rules = rules()?;
    if rules.is_empty() {
        return Ok(Place::Ready(lane));
    }
    let organization = organization.as_bytes();
    loop {
        let (mut later, mut lower) = (None, None);
        for rule in rules.iter().filter(|rule| rule.means(lane, flow, organization) && rule.is_full(lane)) {
            match rule.action {
                Action::Refuse if asker != Asker::Own && (rule.captured || matches!(asker, Asker::Request { .. })) => {
                    return Err(refused(rule));
                }
                Action::Delay if later.is_none() => later = Some(rule),
                // Each one is lower than the last: this comes to an end.
                Action::Shed(to) if matches!(asker, Asker::Request { free: true } | Asker::Event) && to > lane => {
                    lower = Some(to)
                }
                _ => {}
            }
        }
        if let Some(rule) = later {
            if let Some(gauge) = rule.gauge {
                gauges::hold_back(gauge, lane);
            }
            return Ok(Place::Later(rule.id));
        }
        match lower {
            Some(to) => lane = to,
            None => break,
        }
    }
    count_by(&rules, lane, flow, organization, 1);
    Ok(Place::Ready(lane))
}

/// How much the installation may do is told to those who run it or watch it.
fn refused(rule: &Rule) -> UsherError {
    let tells = identity::has_reader_rights(role::outer());
    let code = PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
    if tells {
        UsherError::new(code, format!("the queue is full: {} may have {} ready jobs", rule.what, rule.max))
            .hint("Try again later; usher.queue_limits shows the limits and how many jobs are ready.")
    } else {
        UsherError::new(code, format!("the queue is full: {} may have no more ready jobs", rule.what))
            .hint("Try again later; an operator can raise the limit.")
    }
}

fn count_by(rules: &[Rule], lane: usize, flow: i32, organization: &[u8; 16], jobs: i64) {
    for rule in rules.iter().filter(|rule| rule.means(lane, flow, organization)) {
        if let Some(gauge) = rule.gauge {
            gauges::add(gauge, lane, jobs);
        }
    }
}

/// Ready jobs that are made whatever the limits say, or that leave the log: fewer than none. The limits count them.
pub fn count(lane: usize, flow: i32, organization: Uuid, jobs: i64) -> Result<()> {
    let rules = rules()?;
    if !rules.is_empty() {
        count_by(&rules, lane, flow, organization.as_bytes(), jobs);
    }
    Ok(())
}

/// The jobs of a group of a batch will be done: what that takes off the limits' numbers.
pub fn leaving(lane: usize, flow: Option<i32>, organizations: impl FnOnce() -> Result<Vec<Uuid>>) -> Result<Vec<(Handle, i64)>> {
    let rules = rules()?;
    let flow = flow.unwrap_or(0);
    if !rules.iter().any(|rule| rule.means_flow(flow)) {
        return Ok(Vec::new());
    }
    let mut by_organization: HashMap<[u8; 16], i64> = HashMap::new();
    for organization in organizations()? {
        *by_organization.entry(*organization.as_bytes()).or_default() += 1;
    }
    let mut off = Vec::new();
    for (organization, jobs) in by_organization {
        for rule in rules.iter().filter(|rule| rule.means(lane, flow, &organization)) {
            off.extend(rule.gauge.map(|gauge| (gauge, jobs)));
        }
    }
    Ok(off)
}

/// Whether something is still held back after [`let_go`], in one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    pub released: i64,
    /// Look again soon, although nothing may tell.
    pub any: bool,
}

/// The jobs that each limit counts, by its number.
pub fn depths() -> Result<Vec<(String, f64)>> {
    let rules = rules()?;
    let counted = |rule: &Rule| Some((rule.id.to_string(), rule.jobs(rule.gauge?) as f64));
    Ok(rules.iter().filter(|rule| !rule.removed).filter_map(counted).collect())
}

/// True when a limit may hold jobs of one of these lanes back. Costs nothing without limits.
pub fn any_held(lanes: &[i16]) -> Result<bool> {
    let rules = rules()?;
    let held = |rule: &Rule| {
        let lanes = lanes.iter().filter_map(|lane| usize::try_from(*lane).ok());
        rule.gauge.is_none_or(|gauge| lanes.into_iter().any(|lane| gauges::holds_back(gauge, lane)))
    };
    Ok(rules.iter().any(held))
}

/// True while a limit's jobs in one of these lanes were not counted.
pub fn unsure(lanes: &[i16]) -> Result<bool> {
    let rules = rules()?;
    let lanes = || lanes.iter().filter_map(|lane| usize::try_from(*lane).ok());
    let unsure = |rule: &Rule| {
        let mut own = lanes().filter(|lane| rule.lane.is_none_or(|own| own == *lane));
        rule.gauge.is_some_and(|gauge| own.any(|lane| !gauges::is_known(gauge, lane)))
    };
    Ok(rules.iter().any(unsure))
}

/// After a start nobody knows whether something is held back: it is looked up, lane by lane.
pub fn look_for_held(lanes: &[i16]) -> Result<()> {
    for rule in rules()?.iter() {
        let held = spi::one::<Vec<i16>>(
            "SELECT pg_catalog.array_agg(l.lane) FROM unnest($2::smallint[]) AS l (lane)
              WHERE EXISTS (SELECT FROM usher.queue_waiting AS w WHERE w.held_by = $1 AND w.lane = l.lane AND w.waiting_for = 'queue full' AND w.due_at IS NULL)",
            &[arg(rule.id), arg(lanes.to_vec())],
        )?;
        for lane in held.unwrap_or_default() {
            if let Some(gauge) = rule.gauge {
                gauges::put_held(gauge, usize::try_from(lane).unwrap_or(0));
            }
        }
    }
    Ok(())
}

/// Jobs that wait were moved to a lane: what holds some of them back does so there as well. Runs with the owner's rights.
pub fn held_in(jobs: &[Uuid], lane: usize) -> Result<()> {
    if rules()?.is_empty() || jobs.is_empty() {
        return Ok(());
    }
    let limits = spi::one::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(DISTINCT w.held_by) FROM usher.queue_waiting AS w
          WHERE w.id = ANY ($1) AND w.waiting_for = 'queue full' AND w.due_at IS NULL AND w.held_by IS NOT NULL",
        &[arg(jobs.to_vec())],
    )?;
    for gauge in limits.into_iter().flatten().filter_map(|id| gauges::existing(u32::try_from(id).ok()?)) {
        gauges::hold_back(gauge, lane);
    }
    Ok(())
}

/// `$1` lane, `$2` limit, `$3` most jobs, `$4` the first position of the lane that is not done: a row's earlier changes that
/// are still in the log come first. In one statement, so that nothing is seen here that was not seen there.
fn release(first: &str) -> String {
    format!(
        "WITH f AS MATERIALIZED ({first}),
              c AS MATERIALIZED (
                  SELECT w.organization_id, w.id, w.seq, w.row_key FROM usher.queue_waiting AS w
                   WHERE w.held_by = $2 AND w.lane = $1 AND w.waiting_for = 'queue full' AND w.due_at IS NULL
                   ORDER BY w.seq LIMIT $3 FOR UPDATE SKIP LOCKED),
              g AS (
                  UPDATE usher.queue_waiting AS w SET due_at = pg_catalog.now() FROM c
                   WHERE w.organization_id = c.organization_id AND w.id = c.id
                     AND (c.row_key IS NULL OR c.seq < COALESCE((SELECT f.seq FROM f), 9223372036854775807))
                  RETURNING w.id)
         SELECT (SELECT pg_catalog.count(*) FROM g), (SELECT pg_catalog.count(*) FROM c)"
    )
}

const FIRST_BY_LOG: &str = "
SELECT j.seq FROM unnest($4::text::int8multirange) AS g (gap)
 CROSS JOIN LATERAL (SELECT q.seq FROM usher.jobs AS q
                      WHERE q.lane = $1 AND q.seq >= pg_catalog.lower(g.gap) AND q.seq < pg_catalog.upper(g.gap) ORDER BY q.seq LIMIT 1) AS j
 LIMIT 1";

/// Lets jobs of a lane go that limits hold back, the oldest first, as many as there is room for, at most `most` of each limit.
/// The caller has the lane. `log`: what a worker has in mind of it.
pub fn let_go(lane: usize, log: Option<&Log>, most: i64) -> Result<Left> {
    let mut left = Left::default();
    for rule in rules()?.iter().filter(|rule| rule.removed || rule.action == Action::Delay) {
        if let Some(gauge) = rule.gauge
            && !gauges::take_held(gauge, lane)
        {
            continue;
        }
        let room = match rule.gauge {
            Some(gauge) if !rule.removed => {
                let let_go = spi::one::<i64>(
                    "SELECT pg_catalog.count(*) FROM (SELECT FROM usher.queue_waiting AS w
                                                       WHERE w.held_by = $1 AND w.waiting_for = 'queue full' AND w.due_at IS NOT NULL LIMIT $2) AS w",
                    &[arg(rule.id), arg(rule.max)],
                )?;
                rule.max - rule.jobs(gauge) - let_go.unwrap_or(0)
            }
            _ => most,
        };
        let room = room.min(most);
        let (released, found) = if room > 0 { release_of(rule.id, lane, log, room)? } else { (0, 1) };
        left.released += released;
        if found > released || found == room {
            left.any = true;
            if let Some(gauge) = rule.gauge {
                gauges::put_held(gauge, lane);
            }
        }
    }
    if left.released > 0 {
        xact::note_due_changed();
    }
    Ok(left)
}

fn release_of(rule: i32, lane: usize, log: Option<&Log>, most: i64) -> Result<(i64, i64)> {
    // Everything above the floor that is not done: a job may be there that is not read yet.
    let gaps = log.map(|log| written(log.done.gaps(log.floor + 1, i64::MAX - 1).into_iter()));
    let sql = match log {
        Some(_) => release(FIRST_BY_LOG),
        None => release(&format!("SELECT f.seq FROM ({}) AS f WHERE $4::text IS NULL", first_ready("seq", "$1", "0"))),
    };
    let rows = spi::all(&sql, &[arg(lane as i16), arg(rule), arg(most), arg(gaps)], |row| {
        Ok((row.get::<i64>(1)?.unwrap_or(0), row.get::<i64>(2)?.unwrap_or(0)))
    })?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

/// So many ready jobs are counted at once without a thought.
const FEW: i64 = 10_000;
const MANY: i64 = 200_000;

const COUNT: &str = "
SELECT c.flow_id, c.organization_id, pg_catalog.count(*)
  FROM (SELECT q.flow_id, q.organization_id FROM usher.jobs AS q
         WHERE q.lane = $1 AND q.seq > $2 AND ($3::text IS NULL OR NOT q.seq <@ (SELECT $3::text::int8multirange)) ORDER BY q.seq LIMIT $4) AS c
 GROUP BY c.flow_id, c.organization_id";
const COUNT_WHOLE: &str = "
SELECT 0, NULL::uuid, pg_catalog.count(*)
  FROM (SELECT FROM usher.jobs AS q
         WHERE q.lane = $1 AND q.seq > $2 AND ($3::text IS NULL OR NOT q.seq <@ (SELECT $3::text::int8multirange)) ORDER BY q.seq LIMIT $4) AS c";

/// The gauges of a lane, with their rules.
fn gauges_of(lane: usize, rules: &[Rule]) -> impl Iterator<Item = (Handle, &Rule)> {
    rules
        .iter()
        .filter(move |rule| rule.lane.is_none_or(|own| own == lane))
        .filter_map(|rule| rule.gauge.map(|gauge| (gauge, rule)))
}

fn is_doubtful(gauge: Handle, lane: usize) -> bool {
    !gauges::is_known(gauge, lane) || gauges::is_doubtful(gauge, lane)
}

/// Some number of a lane is one that nobody could tell.
pub fn is_in_doubt(lane: usize) -> Result<bool> {
    let whole = gauges::gauge(gauges::WHOLE).is_some_and(|whole| is_doubtful(whole, lane));
    Ok(whole || gauges_of(lane, &rules()?).any(|(gauge, _)| is_doubtful(gauge, lane)))
}

/// Puts the numbers of a lane right that nobody could tell: after the start, after prepared transactions, and, where it costs
/// little (`settled`: nothing below the floor), anyway. The caller has the lane and knows its log.
pub fn correct(lane: usize, log: &Log, settled: bool) -> Result<()> {
    let rules = rules()?;
    let Some(whole) = gauges::gauge(gauges::WHOLE) else { return Ok(()) };
    let mine: Vec<(Handle, &Rule)> = gauges_of(lane, &rules).collect();
    let handles = || std::iter::once(whole).chain(mine.iter().map(|(gauge, _)| *gauge));
    let unsure = handles().any(|gauge| is_doubtful(gauge, lane));
    if !unsure && !settled {
        return Ok(());
    }
    let mut tries = TRIES.get();
    let most = match () {
        _ if !unsure => FEW,
        // First of all, work: a long queue is counted the next time, and no more often than it costs.
        _ if tries[lane] == 0 => MANY,
        _ if NEXT.get().is_some_and(|next| Instant::now() < next) => MANY,
        _ => i64::MAX,
    };
    tries[lane] = tries[lane].saturating_add(1);
    TRIES.set(tries);
    let before: Vec<_> = handles().map(|gauge| gauges::before(gauge, lane)).collect();
    let begun = Instant::now();
    let done = log.done.above(log.floor);
    let counted = spi::all(
        if mine.is_empty() { COUNT_WHOLE } else { COUNT },
        &[arg(lane as i16), arg(log.floor), arg(done), arg(most)],
        |row| {
            let organization = row.get::<Uuid>(2)?.map_or([0; 16], |id| *id.as_bytes());
            Ok((row.get::<i32>(1)?.unwrap_or(0), organization, row.get::<i64>(3)?.unwrap_or(0)))
        },
    )?;
    let took = begun.elapsed();
    if most == i64::MAX {
        NEXT.set(Some(Instant::now() + took * 20 + Duration::from_secs(1)));
    }
    let all: i64 = counted.iter().map(|(.., jobs)| jobs).sum();
    if all >= most {
        return Ok(());
    }
    let by_rule = mine.iter().map(|(_, rule)| {
        counted.iter().filter(|(flow, organization, _)| rule.means(lane, *flow, organization)).map(|(.., jobs)| jobs).sum()
    });
    for (before, counted) in before.into_iter().zip(std::iter::once(all).chain(by_rule)) {
        if let Some(before) = before {
            gauges::correct(before, counted);
        }
    }
    Ok(())
}

/// Forgets limits that were removed and hold nothing back any more. Some session may still know them: not at once.
pub fn forget() -> Result<()> {
    let gone = spi::all(
        "DELETE FROM usher.queue_limit_rules AS r
          WHERE r.removed_at < pg_catalog.now() - interval '1 day'
            AND NOT EXISTS (SELECT FROM usher.queue_waiting AS w WHERE w.held_by = r.id AND w.waiting_for = 'queue full' AND w.due_at IS NULL)
         RETURNING r.id",
        &[],
        |row| Ok(row.get::<i32>(1)?.unwrap_or(0)),
    )?;
    if !gone.is_empty() {
        crate::pg::catalog::invalidate(setup::installed()?.flows);
    }
    forget_gauges()
}

/// Gives back what limits had that are gone, or were rolled back.
pub fn forget_gauges() -> Result<()> {
    let left = spi::one::<Vec<i32>>("SELECT pg_catalog.array_agg(r.id) FROM usher.queue_limit_rules AS r", &[])?;
    let left: Vec<u32> = left.into_iter().flatten().filter_map(|id| u32::try_from(id).ok()).collect();
    gauges::keep_only(&left);
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::*;

    fn rule(lane: Option<usize>, flows: Option<Vec<i32>>, organization: Option<[u8; 16]>) -> Rule {
        Rule {
            id: 1,
            gauge: None,
            lane,
            flows,
            organization,
            max: 1,
            action: Action::Refuse,
            captured: false,
            removed: false,
            what: String::new(),
        }
    }

    #[test]
    fn a_limit_means_what_fits_all_that_it_names() {
        let (one, two) = ([1; 16], [2; 16]);
        assert!(rule(None, None, None).means(3, 7, &one));
        let narrow = rule(Some(3), Some(vec![7]), Some(one));
        assert!(narrow.means(3, 7, &one));
        assert!(!narrow.means(4, 7, &one) && !narrow.means(3, 8, &one) && !narrow.means(3, 7, &two));
        // A system to which no flow goes.
        assert!(!rule(None, Some(vec![]), None).means_flow(7));
    }
}
