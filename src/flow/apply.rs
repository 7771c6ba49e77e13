//! Running a flow over a batch: one statement in one subtransaction; on error halves, until only the poison is left.

use super::cause::{self, Cause};
use super::store::Flow;
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Raw};
use crate::pg::subxact::{self, Failure};
use crate::pg::{role, xact};
use crate::registry::{identity, links};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

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

/// A job that did not go through, by its number in the batch (from 1).
#[derive(Debug, Clone)]
pub struct Failed {
    pub n: i32,
    pub failure: Failure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Worker,
    /// Inside the transaction that made the change.
    Writer,
}

/// A flow and what it is to run over.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    pub flow: &'a Flow,
    pub owner: Oid,
    pub batch: &'a Batch,
    pub causes: Causes<'a>,
    pub place: Place,
}

/// What the jobs that follow inherit, and for which organization the flow may call RPCs.
#[derive(Clone, Copy)]
pub enum Causes<'a> {
    /// The range is applied as one statement.
    Shared(&'a Cause, Option<pgrx::Uuid>),
    /// Job by job (the first entry is job 1), still in one subtransaction: each cause is exact.
    Each(&'a [(Cause, pgrx::Uuid)]),
}

/// Why a whole range could not even be tried.
#[derive(Debug)]
pub enum Stop {
    /// The flow's statement no longer fits the catalog: the jobs wait.
    Broken(Failure),
}

/// Applies a range once, whole: all or nothing but for failed checks. For the writer's transaction.
pub fn apply_whole(run: &Run<'_>, from: i32, to: i32) -> std::result::Result<Vec<Failed>, Failure> {
    let words = subxact::attempt(|| once(run, from, to))?;
    let mut failed = Vec::new();
    for word in words {
        match word.failed {
            Some(check) => failed.push(Failed { n: word.n, failure: check_failure(&check) }),
            // A second row for one target key: after the first, by itself.
            None => failed.extend(apply_whole(run, word.n, word.n)?),
        }
    }
    Ok(failed)
}

/// Applies jobs `from..=to` of a batch. What fails alone is returned; everything else has taken effect.
pub fn apply(run: &Run<'_>, from: i32, to: i32) -> std::result::Result<Vec<Failed>, Stop> {
    let mut failed = Vec::new();
    // Ranges still to do, the first on top: order within the batch is kept.
    let mut open = vec![(from, to)];
    while let Some((from, to)) = open.pop() {
        match subxact::attempt(|| once(run, from, to)) {
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
fn drifted(flow: &Flow) -> bool {
    subxact::rehearse(|| super::checked(&flow.definition, flow.run_as).map(|_| ())).is_err()
}

fn check_failure(name: &str) -> Failure {
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

fn arguments<'a>(batch: &Batch, from: i32, to: i32) -> [pgrx::datum::DatumWithOid<'a>; 8] {
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

fn statement(run: &Run<'_>, cause: &Cause, for_organization: Option<pgrx::Uuid>, from: i32, to: i32) -> Result<Vec<Word>> {
    let Run { flow, owner, batch, place, .. } = *run;
    let program = flow.program()?;
    let _nest = Nest::pinned_path().lock_timeout(flow.definition.lock_timeout);
    // Never in the writer's transaction: it would fire the writer's own pending checks.
    let settle = place == Place::Worker && xact::may_defer()?;
    let words = {
        let _caused = cause::enter(cause.clone());
        let _for_flow = identity::for_flow(for_organization);
        let _acting = role::act_as(flow.run_as);
        Spi::connect_mut(|client| -> Result<Vec<Word>> {
            if settle {
                // An earlier group of this transaction has left everything immediate.
                spi::script("SET CONSTRAINTS ALL DEFERRED")?;
            }
            let mut table = spi::query(client, &program.apply, &arguments(batch, from, to))?;
            let mut words = Vec::with_capacity(table.len());
            while table.next().is_some() {
                if let Some(n) = table.get::<i32>(1)? {
                    words.push(Word { n, failed: table.get::<String>(2)?, again: table.get::<bool>(3)?.unwrap_or(false) });
                }
            }
            // What the target checks only at COMMIT is checked now, with the flow's rights, while it can still be told
            // whose fault it is.
            if settle {
                spi::script("SET CONSTRAINTS ALL IMMEDIATE")?;
            }
            Ok(words)
        })?
    };
    if let Some(link) = &program.link {
        let excluded: Vec<i32> = words.iter().map(|word| word.n).collect();
        record_links(flow, owner, link, batch, from, to, &excluded)?;
    }
    Ok(words)
}

fn record_links(flow: &Flow, owner: Oid, sql: &str, batch: &Batch, from: i32, to: i32, excluded: &[i32]) -> Result<()> {
    Spi::connect_mut(|client| {
        let table = {
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
        let _nest = Nest::pinned_path().lock_timeout(lock_timeout);
        let _caused = cause::enter(Cause::default());
        let _acting = role::act_as(flow_as);
        spi::all(sql, &arguments(batch, 1, batch.size), |row| Ok(row.get::<pgrx::JsonB>(1)?))
    })?;
    Ok(rows.into_iter().flatten().collect())
}
