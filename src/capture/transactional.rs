//! Flows in the writer's own transaction.
//!
//! Only when a row matches is a subtransaction opened, and at most [`MOST`] of them in one transaction: a transaction
//! with many more slows every other session down. What cannot or may not be applied here becomes a realtime job, marked
//! as a fallback: while it waits, later changes of its row line up behind it.

use super::nesting::{self, Ending};
use super::trigger::{Forms, cause_arguments};
use crate::conflict;
use crate::error::{Result, UsherError};
use crate::event;
use crate::flow::apply::{self, Batch, Causes, Place, Run};
use crate::flow::cause::{self, Cause};
use crate::flow::definition::OnError;
use crate::flow::store::Flow;
use crate::pg::{role, spi, spi::Raw, trigger as pg_trigger, xact};
use crate::queue::pressure;
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use std::cell::Cell;
use std::rc::Rc;

/// Subtransactions that flows may open in one transaction of a writer.
const MOST: u32 = 32;

thread_local! {
    static OPENED: Cell<u32> = const { Cell::new(0) };
}

fn forget() {
    OPENED.set(0);
}

pub fn run(
    trigger: &PgTrigger<'_>,
    installed: Installed,
    flow: &Rc<Flow>,
    forms: &Forms,
    cause: &Cause,
    ending: Ending,
) -> Result<()> {
    xact::at_end(forget);
    Spi::connect_mut(|client| {
        let done = nesting::applied_inside(ending, flow.id);
        let table = {
            let _acting = role::internal(installed.owner);
            pg_trigger::register_tables(trigger)?;
            if cause.hop == 0 && done.is_empty() {
                spi::query(client, &forms.fresh, &[])?.first()
            } else {
                let [hop, job, trail, text] = cause_arguments(cause);
                spi::query(client, &forms.caused, &[hop, job, trail, text, spi::arg((!done.is_empty()).then_some(done))])?.first()
            }
        };
        let size = table.get::<i32>(9)?.unwrap_or(0);
        if size == 0 {
            return Ok(());
        }
        let mut ready = table.get::<i32>(10)?.unwrap_or(0);
        let for_organization = table.get::<pgrx::Uuid>(14)?;
        let row_keys = Raw::read(&table, 8)?;
        let batch = Batch::read(&table, 1, size)?;
        if OPENED.get() >= MOST || cause.hop >= cause::MOST_HOPS {
            ready = 0;
        }
        let mut back: Vec<i32> = (ready + 1..=size).collect();
        if ready > 0 {
            OPENED.set(OPENED.get() + 1);
            let mut trail = cause.trail.clone();
            if size == 1
                && let Some(key) = table.get::<Vec<i64>>(8)?.and_then(|keys| keys.first().copied())
            {
                trail.push(cause::step(flow.id, key)?);
            }
            let job = if size == 1 {
                table.get::<Vec<pgrx::Uuid>>(2)?.and_then(|ids| ids.first().map(|id| *id.as_bytes()))
            } else {
                None
            };
            let next = Cause { hop: cause.hop + 1, job, trail, ..Cause::default() };
            let run = Run {
                flow,
                owner: installed.owner,
                batch: &batch,
                causes: Causes::Shared(&next, for_organization),
                place: Place::Writer,
                emit: event::emit_for_flow,
                tell: conflict::TELL,
            };
            match apply::apply_whole(&run, 1, ready) {
                Ok(failed) => match (failed.first(), flow.definition.on_error) {
                    (Some(first), OnError::Abort) => return Err(abort(flow, &first.failure)),
                    _ => back.extend(failed.iter().map(|failed| failed.n)),
                },
                Err(failure) if flow.definition.on_error == OnError::Abort => return Err(abort(flow, &failure)),
                Err(_) => back = (1..=size).collect(),
            }
        }
        let _acting = role::internal(installed.owner);
        if ending.inner
            && let Some(keys) = table.get::<Vec<Option<i64>>>(8)?
        {
            let applied: Vec<i64> = keys.into_iter().zip(1..).filter_map(|(key, n)| key.filter(|_| !back.contains(&n))).collect();
            nesting::note_applied(ending, flow.id, &applied);
        }
        let arguments = [
            batch.organizations.arg(),
            batch.ids.arg(),
            batch.new.arg(),
            batch.old.arg(),
            batch.ops.arg(),
            batch.positions.arg(),
            row_keys.arg(),
            spi::arg(flow.id),
            spi::arg(flow.version),
            spi::arg(flow.definition.lane as i16),
            Raw::read(&table, 11)?.arg(),
            Raw::read(&table, 12)?.arg(),
            Raw::read(&table, 13)?.arg(),
            spi::arg(back.clone()),
        ];
        if !back.is_empty() {
            xact::mark();
            if pressure::concerns(std::iter::once(flow.id))? {
                let counted = "usher.take_counted_seq($10, $8, b.organization_id)";
                spi::query(client, &FALL_BACK.replace("usher.take_seq($10)", counted), &arguments)?;
            } else {
                spi::query(client, &setup::for_tables(FALL_BACK)?, &arguments)?;
            }
            if let (true, Some((first, last))) = (ending.inner, xact::since_mark()) {
                nesting::note_captured(ending, first, last);
            }
        }
        if back.len() < size as usize {
            spi::query(client, DONE, &arguments)?;
        }
        Ok(())
    })
}

fn abort(flow: &Flow, failure: &crate::pg::subxact::Failure) -> UsherError {
    UsherError::new(failure.code, format!("flow \"{}\" refuses this change: {}", flow.name, failure.message))
        .detail(failure.detail.clone().unwrap_or_else(|| "Its definition says \"on_error\": \"abort\".".to_owned()))
        .hint("Correct the row, or let an operator disable the flow with usher.disable_flow().")
}

/// `$14`: numbers of the rows that become realtime jobs.
const FALL_BACK: &str = "
    INSERT INTO usher.jobs (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, fallback, trail, new, old)
    SELECT usher.take_seq($10), b.row_key, b.id, b.organization_id, pg_catalog.now(), $12, $8, $9, $10, $11, b.op, true, $13, b.new, b.old
      FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::jsonb[], $5::\"char\"[], $6::bigint[], $7::bigint[])
           WITH ORDINALITY AS b (organization_id, id, new, old, op, seq, row_key, n)
     WHERE b.n = ANY ($14::integer[]) ORDER BY b.n";

/// What was applied at once is history at once.
const DONE: &str = "
    INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, new, old)
    SELECT b.organization_id, b.id, pg_catalog.now(), pg_catalog.now(), $12, $8, $9, 1, $10, $11, b.op, b.new, b.old
      FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::jsonb[], $5::\"char\"[], $6::bigint[], $7::bigint[])
           WITH ORDINALITY AS b (organization_id, id, new, old, op, seq, row_key, n)
     WHERE NOT (b.n = ANY ($14::integer[]))";
