//! Running a flow over a batch: one statement in one subtransaction; on error halves, until only the poison is left.

use super::cause::{self, Cause};
use super::compile::Program;
use super::definition::OnError;
use super::emit_statement::{self, Emitter};
use super::merge::{self, apply::Tell};
use super::publish_statement;
use super::store::Flow;
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Raw};
use crate::pg::subxact::{self, Failure};
use crate::pg::{commit, role, xact};
use crate::registry::{identity, links};
use crate::setup;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::SpiTupleTable;
use std::rc::Rc;

/// A batch as parallel arrays, in the order in which the jobs must take effect.
#[derive(Clone, Copy)]
pub struct Batch {
    pub organizations: Raw,
    pub ids: Raw,
    pub new: Raw,
    pub old: Raw,
    pub ops: Raw,
    pub created: Raw,
    pub positions: Raw,
    pub size: i32,
}

impl Batch {
    /// Seven arrays of a row, from column `first` on: organizations, ids, new, old, kinds, times, positions.
    pub fn read(table: &SpiTupleTable<'_>, first: usize, size: i32) -> Result<Self> {
        let column = |at: usize| Raw::read(table, first + at);
        Ok(Self {
            organizations: column(0)?,
            ids: column(1)?,
            new: column(2)?,
            old: column(3)?,
            ops: column(4)?,
            created: column(5)?,
            positions: column(6)?,
            size,
        })
    }
}

/// A job that did not go through, by its number in the batch (from 1).
#[derive(Debug, Clone)]
pub struct Failed {
    pub n: i32,
    pub failure: Failure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Worker,
    /// `process_jobs` in somebody's session.
    Session,
    /// Inside the transaction that made the change.
    Writer,
    /// In the transaction of somebody who calls a function that runs a flow's statements.
    Caller,
}

/// A flow and what it is to run over.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    pub flow: &'a Flow,
    pub owner: Oid,
    pub batch: &'a Batch,
    pub causes: Causes<'a>,
    pub place: Place,
    pub emit: Emitter,
    pub tell: Tell,
}

/// What the jobs that follow inherit, and for which organization the flow may call RPCs.
#[derive(Clone, Copy)]
pub enum Causes<'a> {
    /// The range is applied as one statement.
    Shared(&'a Cause, Option<pgrx::Uuid>),
    /// One statement; afterwards each job that followed is given the cause whose target row it is about (the first
    /// entry is job 1).
    ByTarget(&'a [(Cause, pgrx::Uuid)]),
    /// Job by job, still in one subtransaction: for flows whose effect is not known to be one row.
    Each(&'a [(Cause, pgrx::Uuid)]),
}

/// Why a whole range could not even be tried.
#[derive(Debug)]
pub enum Stop {
    /// The flow's statement no longer fits the catalog: the jobs wait.
    Broken(Failure),
}

/// Applies a range once, whole: all or nothing but for failed checks, and for further rows of one target key, which must
/// come later. For the writer's transaction, which gets one subtransaction and no more.
pub fn apply_whole(run: &Run<'_>, from: i32, to: i32) -> std::result::Result<Vec<Failed>, Failure> {
    let words = subxact::attempt_within(run.flow.definition.limit(), || once(run, from, to))?;
    Ok(words
        .into_iter()
        .map(|word| Failed { n: word.n, failure: check_failure(word.failed.as_deref().unwrap_or("one target row at a time")) })
        .collect())
}

/// Applies jobs `from..=to` of a batch. What fails alone is returned; everything else has taken effect.
pub fn apply(run: &Run<'_>, from: i32, to: i32) -> std::result::Result<Vec<Failed>, Stop> {
    let mut failed = Vec::new();
    // Ranges still to do, the first on top: order within the batch is kept.
    let mut open = vec![(from, to)];
    while let Some((from, to)) = open.pop() {
        match subxact::attempt_within(run.flow.definition.limit(), || once(run, from, to)) {
            Ok(words) => {
                for word in words.into_iter().rev() {
                    if word.again {
                        open.push((word.n, word.n));
                    } else if let Some(check) = word.failed {
                        failed.push(Failed { n: word.n, failure: check_failure(&check) });
                    }
                }
            }
            Err(failure) if failure.is_drift() && drifted(run.flow) => return Err(Stop::Broken(failure)),
            Err(failure) if from == to => failed.push(Failed { n: from, failure }),
            // Halves would each use up the time again: one by one only the slow ones do.
            Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED => {
                open.extend((from..=to).rev().map(|n| (n, n)));
            }
            Err(_) => {
                let middle = from + (to - from) / 2;
                open.push((middle + 1, to));
                open.push((from, middle));
            }
        }
    }
    failed.sort_by_key(|failed| failed.n);
    Ok(failed)
}

/// An undefined name may come from the flow's own statement or from inside a function that it calls. Only the first
/// breaks the flow: then compiling it again fails too.
pub(super) fn drifted(flow: &Flow) -> bool {
    subxact::rehearse(|| super::check::checked(&flow.definition, flow.run_as, None).map(|_| ())).is_err()
}

pub(super) fn check_failure(name: &str) -> Failure {
    Failure {
        sqlstate: "23514".to_owned(),
        code: PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
        message: format!("check \"{name}\" failed"),
        detail: None,
        hint: Some("Correct the row or the flow's check, then run the job again with usher.retry_sync_job().".to_owned()),
    }
}

struct Word {
    n: i32,
    failed: Option<String>,
    again: bool,
}

pub(super) fn arguments<'a>(batch: &Batch, from: i32, to: i32) -> [pgrx::datum::DatumWithOid<'a>; 8] {
    [
        batch.organizations.arg(),
        batch.ids.arg(),
        batch.new.arg(),
        batch.old.arg(),
        batch.ops.arg(),
        batch.created.arg(),
        spi::arg(from),
        spi::arg(to),
    ]
}

fn once(run: &Run<'_>, from: i32, to: i32) -> Result<Vec<Word>> {
    match run.causes {
        Causes::Shared(cause, organization) => statement(run, cause, organization, from, to),
        Causes::ByTarget(causes) => {
            let hop = causes.get(from as usize - 1).map_or(0, |(cause, _)| cause.hop);
            let before = xact::last_seq();
            let words = statement(run, &Cause { hop, ..Cause::default() }, None, from, to)?;
            if xact::last_seq() > before {
                attribute(run, causes, before, from, to)?;
            }
            Ok(words)
        }
        Causes::Each(causes) => {
            let mut words = Vec::new();
            for n in from..=to {
                let index = usize::try_from(n - 1).unwrap_or(0);
                let (cause, organization) = &causes[index];
                words.extend(statement(run, cause, Some(*organization), n, n)?);
            }
            Ok(words)
        }
    }
}

/// Runs something with the rights of a flow, fenced, and has what the target leaves for COMMIT checked while it can still be told whose
/// fault it is.
pub(super) fn as_flow<T>(
    run: &Run<'_>,
    program: &Rc<Program>,
    cause: &Cause,
    for_organization: Option<pgrx::Uuid>,
    (from, to): (i32, i32),
    effect: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Run { flow, place, .. } = *run;
    let _fence = Nest::fence().lock_timeout(flow.definition.lock_timeout);
    let may_defer = xact::may_defer()?;
    // Never in somebody else's transaction: it would fire their own pending checks, with the rights of the flow.
    let settle = matches!(place, Place::Worker | Place::Session) && may_defer;
    // A worker commits with no rights at all; anybody else's COMMIT would run what the target left for it as themselves.
    let triggers_only = flow.definition.on_error == OnError::Abort;
    let before = if may_defer && place != Place::Worker { Some(xact::pending(triggers_only)?) } else { None };
    let _caused = cause::enter(cause.clone());
    let _for_flow = identity::for_flow(for_organization);
    let _audited = audit::by_flow(work(run, program, from, to));
    let _acting = role::act_as(flow.run_as);
    if settle {
        // An earlier group of this transaction has left everything immediate.
        spi::script("SET CONSTRAINTS ALL DEFERRED")?;
    }
    let done = effect()?;
    // What the target checks only at COMMIT is checked now, with the flow's rights.
    if settle {
        spi::script("SET CONSTRAINTS ALL IMMEDIATE")?;
    }
    // And what rules say about it, so that it is this work that fails and not the commit of the whole batch.
    commit::look_now()?;
    if let Some(before) = &before
        && !xact::pending(triggers_only)?.is_subset(before)
    {
        return Err(UsherError::state("the effect left something for COMMIT, where it would run with other rights")
            .detail("A deferred constraint or trigger on the target, or on what its triggers write, is pending.")
            .hint("Let the flow run in a worker (\"mode\": \"realtime\"), or make the constraint immediate."));
    }
    Ok(done)
}

fn statement(run: &Run<'_>, cause: &Cause, for_organization: Option<pgrx::Uuid>, from: i32, to: i32) -> Result<Vec<Word>> {
    let Run { flow, owner, batch, place, .. } = *run;
    let program = flow.program()?;
    if program.merge.is_some() {
        merge::apply::range(run, &program, cause, for_organization, from, to)?;
        return Ok(Vec::new());
    }
    let keeps_result = flow.definition.keeps_result();
    let emits = flow.definition.emits().is_some();
    if place == Place::Writer && flow.definition.publishes().is_some() {
        publish_statement::require_homes(owner, batch)?;
    }
    let mut results: (Vec<i32>, Vec<String>) = Default::default();
    let words = as_flow(run, &program, cause, for_organization, (from, to), || {
        Spi::connect_mut(|client| -> Result<Vec<Word>> {
            let mut table = spi::query(client, &program.apply, &arguments(batch, from, to))?;
            let mut words = Vec::with_capacity(table.len());
            while table.next().is_some() {
                let result = if keeps_result { table.get::<String>(4)? } else { None };
                if let (Some(n), true) = (table.get::<i32>(1)?, keeps_result && table.get::<String>(2)?.is_none()) {
                    if let Some(result) = result {
                        results.0.push(n);
                        results.1.push(result);
                    }
                } else if let Some(n) = table.get::<i32>(1)? {
                    words.push(Word { n, failed: table.get::<String>(2)?, again: table.get::<bool>(3)?.unwrap_or(false) });
                } else if emits {
                    emit_statement::hand_over(run, &table, cause)?;
                }
            }
            Ok(words)
        })
    })?;
    if !results.0.is_empty() {
        let _acting = role::internal(owner);
        super::results::record(batch, results.0, results.1)?;
    }
    if let Some(link) = &program.link {
        let _audited = audit::by_flow(work(run, &program, from, to));
        let excluded: Vec<i32> = words.iter().map(|word| word.n).collect();
        record_links(flow, owner, link, batch, from, to, &excluded)?;
    }
    Ok(words)
}

/// What the audit enters as the author of whatever this range writes.
pub(super) fn work(run: &Run<'_>, program: &Rc<Program>, from: i32, to: i32) -> audit::Work {
    let parents = program.parents.as_ref().filter(|_| from < to).map(|_| {
        let (program, batch, run_as) = (program.clone(), *run.batch, run.flow.run_as);
        let ask = move || {
            let _fence = Nest::fence();
            let _acting = role::act_as(run_as);
            let rows = spi::all(program.parents.as_deref().unwrap_or_default(), &arguments(&batch, from, to), |row| {
                Ok((row.get::<Vec<i32>>(1)?.unwrap_or_default(), row.get::<Vec<i64>>(2)?.unwrap_or_default()))
            })?;
            Ok(rows.into_iter().next().unwrap_or_default())
        };
        Rc::new(ask) as Rc<audit::Parents>
    });
    audit::Work {
        flow: run.flow.name.clone(),
        run_as: run.flow.run_as,
        target: run.flow.compiled.target.clone(),
        in_writer: matches!(run.place, Place::Writer | Place::Caller),
        ids: run.batch.ids,
        from,
        to,
        parents,
    }
}

/// Gives the jobs that this range has caused their exact cause, and takes back those that would run a flow a second time
/// for a row in one chain. A following job knows its row's key; the flow's key tells which job wrote that row.
fn attribute(run: &Run<'_>, causes: &[(Cause, pgrx::Uuid)], before: i64, from: i32, to: i32) -> Result<()> {
    let program = run.flow.program()?;
    let Some(parents) = &program.parents else { return Ok(()) };
    Spi::connect_mut(|client| {
        let table = {
            let _fence = Nest::fence();
            let _acting = role::act_as(run.flow.run_as);
            spi::query(client, parents, &arguments(run.batch, from, to))?.first()
        };
        let (numbers, keys) = (Raw::read(&table, 1)?, Raw::read(&table, 2)?);
        let trails: Vec<Option<String>> = causes.iter().map(|(cause, _)| cause::write_trail(&cause.trail)).collect();
        let hop = causes.get(from as usize - 1).map_or(0, |(cause, _)| cause.hop);
        let _acting = role::internal(run.owner);
        spi::query(
            client,
            &setup::for_tables(ATTRIBUTE)?,
            &[
                numbers.arg(),
                keys.arg(),
                run.batch.ids.arg(),
                spi::arg(trails),
                spi::arg(before),
                spi::arg(xact::last_seq()),
                spi::arg(hop),
            ],
        )?;
        Ok(())
    })
}

/// `$1` numbers and `$2` target keys of the range, `$3` job ids and `$4` trails of the batch, `$5`-`$6` positions, `$7` hop.
const ATTRIBUTE: &str = "
WITH c AS (
    SELECT q.lane, q.seq, ($3::uuid[])[m.n] AS cause, ($4::text[])[m.n] AS trail,
           pg_catalog.hashint8extended(q.row_key, q.flow_id)::text = ANY (pg_catalog.string_to_array(($4::text[])[m.n], ',')) AS again
      FROM unnest($1::integer[], $2::bigint[]) AS m (n, key)
      JOIN usher.jobs AS q ON q.row_key = m.key
     WHERE q.lane = ANY ('{0,1,2,3,4}'::smallint[]) AND q.seq > $5 AND q.seq <= $6 AND q.hop = $7
       AND q.cause IS NULL AND q.created_at = pg_catalog.now()),
d AS (DELETE FROM usher.jobs AS q USING c WHERE c.again AND q.lane = c.lane AND q.seq = c.seq RETURNING usher.take_off(q.lane, q.flow_id, q.organization_id))
UPDATE usher.jobs AS q SET cause = c.cause, trail = c.trail
  FROM c WHERE c.again IS NOT TRUE AND q.lane = c.lane AND q.seq = c.seq";

fn record_links(flow: &Flow, owner: Oid, sql: &str, batch: &Batch, from: i32, to: i32, excluded: &[i32]) -> Result<()> {
    Spi::connect_mut(|client| {
        let table = {
            let _fence = Nest::fence();
            let _acting = role::act_as(flow.run_as);
            spi::query(client, sql, &arguments(batch, from, to))?.first()
        };
        let (organizations, left, right, numbers) =
            (Raw::read(&table, 1)?, Raw::read(&table, 2)?, Raw::read(&table, 3)?, Raw::read(&table, 4)?);
        let _acting = role::internal(owner);
        let definition = &flow.definition;
        let kind = definition.link.as_ref().map(|link| link.kind.clone());
        spi::query(
            client,
            links::RECORD,
            &[
                organizations.arg(),
                left.arg(),
                right.arg(),
                numbers.arg(),
                spi::arg(kind),
                spi::arg(definition.from.clone()),
                spi::arg(definition.to.clone()),
                spi::arg(flow.name.clone()),
                spi::arg(excluded.to_vec()),
                batch.positions.arg(),
            ],
        )?;
        Ok(())
    })
}

/// What the flow would write for one row, undone afterwards.
pub fn preview(flow_as: Oid, sql: &str, batch: &Batch, lock_timeout: i64) -> Result<Vec<pgrx::JsonB>> {
    let rows = subxact::rehearse(|| {
        let _fence = Nest::fence().lock_timeout(lock_timeout);
        let _caused = cause::enter(Cause::default());
        let _acting = role::act_as(flow_as);
        spi::all(sql, &arguments(batch, 1, batch.size), |row| Ok(row.get::<pgrx::JsonB>(1)?))
    })?;
    Ok(rows.into_iter().flatten().collect())
}
