//! Work that goes through many rows or jobs in slices: what there is of it, and how far it is.
//!
//! Owns `usher.work_items`. A slice and the position behind it are one transaction: whoever is killed, the next slice begins
//! where the last one that was committed has ended.

use super::{LANES, store};
use crate::error::{Result, UsherError};
use crate::flow::store::Flow;
use crate::pg::{spi, xact};
use pgrx::Uuid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Backfill,
    /// Jobs of a flow again.
    Replay,
    /// Events of the bus for a flow, whether it has heard them or not.
    Events,
}

impl Kind {
    fn of(word: Option<&str>) -> Self {
        match word {
            Some("backfill") => Self::Backfill,
            Some("events") => Self::Events,
            _ => Self::Replay,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Replay => "replay",
            Self::Events => "events",
        }
    }
}

/// One piece of work, locked for this transaction.
pub struct Item {
    pub id: Uuid,
    pub kind: Kind,
    pub flow: i32,
    pub version: i32,
    pub slice: i32,
    pub condition: Option<String>,
    pub first_at: Option<TimestampWithTimeZone>,
    pub last_at: Option<TimestampWithTimeZone>,
    pub position: Option<Vec<String>>,
    pub final_position: Option<Vec<String>>,
}

/// What begins.
pub struct Begin {
    pub kind: Kind,
    pub flow: i32,
    pub name: String,
    pub slice: i32,
    pub condition: Option<String>,
    pub first_at: Option<TimestampWithTimeZone>,
    pub last_at: Option<TimestampWithTimeZone>,
    pub final_position: Option<Vec<String>>,
    pub total: i64,
    pub exact: bool,
    /// There is nothing to do.
    pub empty: bool,
    pub by: String,
}

/// Writes down what shall be done and returns its id. Runs with the owner's rights.
pub fn begin(new: Begin) -> Result<Uuid> {
    let (name, kind) = (new.name.clone(), new.kind.word());
    let made = spi::one::<Uuid>(
        "INSERT INTO usher.work_items (id, kind, flow_id, flow, slice, step, condition, first_at, last_at, final_position, total, total_is, started_by,
                                       state, finished_at)
         VALUES (usher.uuid_v7(), $1, $2, $3, $4, $4, $5, $6, $7, $8, $9, CASE WHEN $10 THEN 'exact' ELSE 'estimated' END, $11,
                 CASE WHEN $12 THEN 'done' ELSE 'running' END, CASE WHEN $12 THEN pg_catalog.now() END)
         ON CONFLICT (flow_id, kind) WHERE finished_at IS NULL DO NOTHING RETURNING id",
        &[
            spi::arg(kind),
            spi::arg(new.flow),
            spi::arg(new.name),
            spi::arg(new.slice),
            spi::arg(new.condition),
            spi::arg(new.first_at),
            spi::arg(new.last_at),
            spi::arg(new.final_position),
            spi::arg(new.total),
            spi::arg(new.exact),
            spi::arg(new.by),
            spi::arg(new.empty),
        ],
    )?;
    made.ok_or_else(|| {
        let what = if kind == "events" { "a replay of events for" } else { &format!("a {kind} of") };
        UsherError::state(format!("{what} flow \"{name}\" is on its way"))
            .hint("SELECT id, state FROM usher.progress shows it; wait for its end, or usher.cancel_work(id).")
    })
}

/// `$1` lanes: those of the flow's definition, where a slice's jobs or their followers run. The one that has waited longest.
const NEXT: &str = "
    SELECT w.id, w.kind, w.flow_id, w.step, w.condition, w.first_at, w.last_at, w.position, w.final_position, f.version
      FROM usher.work_items w JOIN usher.flows f ON f.id = w.flow_id
     WHERE w.state = 'running' AND f.enabled AND f.state = 'ok'
       AND CASE COALESCE(f.definition ->> 'priority', CASE WHEN f.definition ->> 'mode' IN ('async', 'batch') THEN 'low' ELSE 'normal' END)
           WHEN 'emergency' THEN 0 WHEN 'critical' THEN 1 WHEN 'high' THEN 2 WHEN 'low' THEN 4 ELSE 3 END = ANY ($1::smallint[])
       AND (SELECT pg_catalog.count(*) FROM (SELECT FROM usher.queue_waiting q WHERE q.flow_id = w.flow_id AND q.waiting_for <> 'batch window'
                                                AND q.due_at <= pg_catalog.now() + interval '1 minute' LIMIT w.slice) AS q) < w.slice
     ORDER BY w.updated_at LIMIT 1 FOR UPDATE OF w SKIP LOCKED";

/// The piece of work that gets a slice now. None: nothing is to be done, or what there is must wait.
pub fn next(lanes: &[i16]) -> Result<Option<Item>> {
    let found = spi::all(NEXT, &[spi::arg(lanes.to_vec())], |row| {
        Ok(Item {
            id: row.get::<Uuid>(1)?.unwrap_or_else(|| Uuid::from_bytes([0; 16])),
            kind: Kind::of(row.get::<String>(2)?.as_deref()),
            flow: row.get::<i32>(3)?.unwrap_or_default(),
            slice: row.get::<i32>(4)?.unwrap_or(1),
            condition: row.get::<String>(5)?,
            first_at: row.get::<TimestampWithTimeZone>(6)?,
            last_at: row.get::<TimestampWithTimeZone>(7)?,
            position: row.get::<Vec<String>>(8)?,
            final_position: row.get::<Vec<String>>(9)?,
            version: row.get::<i32>(10)?.unwrap_or_default(),
        })
    })?;
    Ok(found.into_iter().next())
}

/// True when something is running: a look at two rows, for ordinary turns.
pub fn any() -> Result<bool> {
    Ok(spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.work_items WHERE finished_at IS NULL AND state = 'running')", &[])?
        .unwrap_or(false))
}

/// Work of flows that are gone ends with them.
pub fn end_of_dropped() -> Result<()> {
    spi::run(
        "UPDATE usher.work_items w SET state = 'cancelled', message = 'its flow was dropped', finished_at = pg_catalog.now(), updated_at = pg_catalog.now()
          WHERE w.finished_at IS NULL AND NOT EXISTS (SELECT FROM usher.flows f WHERE f.id = w.flow_id)",
        &[],
    )?;
    Ok(())
}

/// Moves on behind a slice. `position` None: that was the end.
pub fn advance(id: Uuid, position: Option<Vec<String>>, looked_at: i64, jobs: i32) -> Result<()> {
    spi::run(
        "UPDATE usher.work_items
            SET position = COALESCE($2, position), done = done + $3, jobs = jobs + $4, step = LEAST(step * 2, slice), message = NULL, updated_at = pg_catalog.clock_timestamp(),
                state = CASE WHEN $2::text[] IS NULL THEN 'done' ELSE state END,
                total = CASE WHEN $2::text[] IS NULL THEN done + $3 ELSE total END,
                total_is = CASE WHEN $2::text[] IS NULL THEN 'exact' ELSE total_is END,
                finished_at = CASE WHEN $2::text[] IS NULL THEN pg_catalog.now() END
          WHERE id = $1",
        &[spi::arg(id), spi::arg(position), spi::arg(looked_at), spi::arg(i64::from(jobs))],
    )?;
    Ok(())
}

/// A slice that failed: it is tried again, or the work stands still until somebody resumes it.
pub fn note_failure(id: Uuid, message: &str, for_good: bool) -> Result<()> {
    spi::run(
        "UPDATE usher.work_items SET message = $2, state = CASE WHEN $3 THEN 'failed' ELSE state END, step = GREATEST(step / 2, 1), updated_at = pg_catalog.clock_timestamp() WHERE id = $1",
        &[spi::arg(id), spi::arg(message), spi::arg(for_good)],
    )?;
    Ok(())
}

/// What an operator wants of a piece of work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Pause,
    Resume,
    Cancel,
}

/// Returns the flow's name. A slice that is being made is waited for.
pub fn steer(id: Uuid, wish: Wish) -> Result<String> {
    let (from, to, word): (&[&str], &str, &str) = match wish {
        Wish::Pause => (&["running"], "paused", "paused"),
        Wish::Resume => (&["paused", "failed"], "running", "resumed"),
        Wish::Cancel => (&["running", "paused", "failed"], "cancelled", "cancelled"),
    };
    let done = spi::one::<String>(
        "UPDATE usher.work_items
            SET state = $3, updated_at = pg_catalog.clock_timestamp(),
                message = CASE WHEN $3 = 'running' THEN NULL ELSE message END,
                resumed_at = CASE WHEN $3 = 'running' THEN pg_catalog.clock_timestamp() ELSE resumed_at END,
                done_before = CASE WHEN $3 = 'running' THEN done ELSE done_before END,
                finished_at = CASE WHEN $3 = 'cancelled' THEN pg_catalog.clock_timestamp() END
          WHERE id = $1 AND state = ANY ($2) RETURNING flow",
        &[spi::arg(id), spi::arg(from.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()), spi::arg(to)],
    )?;
    if let Some(flow) = done {
        return Ok(flow);
    }
    match spi::read::<String>("SELECT state FROM usher.work_items WHERE id = $1", &[spi::arg(id)])? {
        Some(state) => Err(UsherError::state(format!("work {id} is {state} and cannot be {word}"))
            .hint("Running work can be paused, paused or failed work resumed, any of them cancelled.")),
        None => Err(UsherError::not_found(format!("work {id} does not exist"))
            .hint("SELECT id, kind, flow, state FROM usher.progress shows what there is.")),
    }
}

/// Puts the next finished jobs of a flow into the queue again. Returns how many, and the position behind them.
pub fn replay(client: &mut SpiClient<'_>, item: &Item, flow: &Flow, key: &[String]) -> Result<(i32, Option<Vec<String>>)> {
    let found = store::finished(client, item.flow, item.first_at, item.last_at, item.position.as_deref(), item.slice)?;
    let (jobs, position) = (found.size, found.position.clone());
    if jobs > 0 {
        put_again(client, flow, key, &found)?;
    }
    Ok((jobs, position.filter(|_| jobs >= item.slice)))
}

/// `$1` lane, `$2` flow, `$3` version, `$4` columns of the source's key, then the arrays.
const PUT_AGAIN: &str = "
    INSERT INTO usher.queue_waiting (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, new, old, waiting_for, due_at)
    SELECT pg_catalog.nextval('usher.queue_seq'),
           CASE WHEN pg_catalog.cardinality($4::text[]) > 0 AND pg_catalog.jsonb_exists_all(COALESCE(b.new, b.old), $4) THEN
                pg_catalog.hashtextextended((SELECT pg_catalog.string_agg(COALESCE(b.new, b.old) ->> k.name, '|' ORDER BY k.n) FROM unnest($4) WITH ORDINALITY AS k (name, n)), 0) END,
           usher.uuid_v7(), b.organization_id, pg_catalog.now(), b.id, $2, $3, $1, 0, b.op, b.new, b.old, 'run_at', pg_catalog.now()
      FROM unnest($5::uuid[], $6::uuid[], $7::\"char\"[], $8::jsonb[], $9::jsonb[]) WITH ORDINALITY AS b (organization_id, id, op, new, old, n)
     ORDER BY b.n";

/// Makes jobs of finished ones, which are their causes, in the lane `low`. They wait, due at once: later changes of their rows
/// line up behind them, and what the flow's present version needs and they do not carry is found.
fn put_again(client: &mut SpiClient<'_>, flow: &Flow, key: &[String], jobs: &store::Finished) -> Result<()> {
    xact::note_due_changed();
    let low = LANES.len() as i16 - 1;
    let arguments = [
        spi::arg(low),
        spi::arg(flow.id),
        spi::arg(flow.version),
        spi::arg(key.to_vec()),
        jobs.organizations.arg(),
        jobs.ids.arg(),
        jobs.ops.arg(),
        jobs.new.arg(),
        jobs.old.arg(),
    ];
    spi::query(client, PUT_AGAIN, &arguments)?;
    Ok(())
}
