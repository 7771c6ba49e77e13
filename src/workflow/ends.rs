//! Jobs of steps that have ended: found in a batch by the worker that did them, or noted in `usher.workflow_checks` where somebody else
//! ended them (a caller process, a person, a failure). Everything here runs with the owner's rights.

use super::advance::{self, Happened, What};
use super::events;
use super::store::{self, nil};
use crate::error::Result;
use crate::flow::apply::Batch;
use crate::pg::guc::Nest;
use crate::pg::{catalog, spi, xact};
use pgrx::Uuid;
use std::collections::HashSet;

/// What a job of a step that has ended says; `e` has its organization, id, fate, payload, error and sqlstate.
const TOLD: &str = "
SELECT e.n, e.organization_id, (e.payload ->> 'run')::uuid, e.payload ->> 'step', COALESCE((e.payload ->> 'n')::integer, 0), e.payload ->> 'part',
       e.id, e.fate, e.error_message, e.sqlstate, NOT pg_catalog.jsonb_exists(COALESCE(r.result, '{}'), 'if') OR (r.result ->> 'if')::boolean,
       CASE WHEN EXISTS (SELECT FROM pg_catalog.jsonb_each(COALESCE(r.result, '{}')) AS m WHERE pg_catalog.starts_with(m.key, 'match.') AND m.value = 'null') THEN -2
            WHEN NOT pg_catalog.jsonb_exists(COALESCE(r.result, '{}'), 'each') THEN 0
            WHEN pg_catalog.jsonb_typeof(r.result -> 'each') = 'array' THEN pg_catalog.jsonb_array_length(r.result -> 'each')
            WHEN pg_catalog.jsonb_typeof(r.result -> 'each') = 'null' THEN 0 ELSE -1 END
  FROM e
  LEFT JOIN LATERAL (SELECT r.result FROM usher.job_results AS r
                      WHERE e.payload ->> 'part' = 'look' AND e.fate = 'synced' AND r.organization_id = e.organization_id AND r.job_id = e.id OFFSET 0) AS r ON true
 ORDER BY e.n";

struct Told {
    n: i64,
    organization: Uuid,
    run: Uuid,
    step: String,
    item: i32,
    /// None: an event may have come before it was waited for.
    what: Option<What>,
}

fn told(row: &pgrx::spi::SpiTupleTable<'_>) -> Result<Told> {
    let job = row.get::<Uuid>(7)?.unwrap_or_else(nil);
    let part = row.get::<String>(6)?.unwrap_or_default();
    let what = match (row.get::<String>(8)?.as_deref(), part.as_str()) {
        (Some("synced"), "again") => None,
        (Some("synced"), "look") => {
            Some(What::Seen { job, wanted: row.get::<bool>(11)?.unwrap_or(true), elements: row.get::<i32>(12)?.unwrap_or(0) })
        }
        (Some("synced"), "clock") => Some(What::Due { job }),
        (Some("synced"), _) => Some(What::Done { job }),
        (Some(fate), _) => Some(What::Failed {
            job,
            error: row
                .get::<String>(9)?
                .unwrap_or_else(|| if fate == "dead" { "its job is dead" } else { "its job was cancelled" }.to_owned()),
            sqlstate: row.get::<String>(10)?,
        }),
        (None, _) => None,
    };
    Ok(Told {
        n: row.get::<i64>(1)?.unwrap_or(0),
        organization: row.get::<Uuid>(2)?.unwrap_or_else(nil),
        run: row.get::<Uuid>(3)?.unwrap_or_else(nil),
        step: row.get::<String>(4)?.unwrap_or_default(),
        item: row.get::<i32>(5)?.unwrap_or(0),
        what,
    })
}

/// Jobs of steps in a batch are done, all but those with these numbers.
pub fn done(batch: &Batch, but: Vec<i32>) -> Result<()> {
    let told = {
        let _index = Nest::open().one_by_one();
        spi::read_all(
            &format!(
                "WITH e AS (SELECT b.n, b.organization_id, b.id, 'synced' AS fate, b.payload, NULL::text AS error_message, NULL::text AS sqlstate
                              FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[]) WITH ORDINALITY AS b (organization_id, id, payload, n)
                             WHERE b.n <> ALL ($4::integer[])){TOLD}"
            ),
            &[batch.organizations.arg(), batch.ids.arg(), batch.new.arg(), spi::arg(but)],
            told,
        )?
    };
    if told.is_empty() {
        return Ok(());
    }
    let missed = tell(told)?;
    if !missed.is_empty() {
        // Somebody has the run: he who looks after both have committed tells it.
        xact::note_due_changed();
        spi::run(
            "INSERT INTO usher.workflow_checks (organization_id, job_id, fate, payload)
             SELECT ($1::uuid[])[n], ($2::uuid[])[n], 'synced', ($3::jsonb[])[n] FROM unnest($4::bigint[]) AS n
              WHERE EXISTS (SELECT FROM usher.workflow_runs AS r
                             WHERE r.organization_id = ($1::uuid[])[n] AND r.id = ((($3::jsonb[])[n]) ->> 'run')::uuid AND COALESCE(r.ended_at IS NULL, false))",
            &[batch.organizations.arg(), batch.ids.arg(), batch.new.arg(), spi::arg(missed)],
        )?;
    }
    Ok(())
}

/// Tells the runs that can be locked. Returns the numbers of the rest.
fn tell(told: Vec<Told>) -> Result<Vec<i64>> {
    let (organizations, runs): (Vec<Uuid>, Vec<Uuid>) = told.iter().map(|told| (told.organization, told.run)).unzip();
    let held = store::hold(&organizations, &runs, !xact::sees_new_commits(), false)?;
    let mine: HashSet<[u8; 16]> = held.iter().map(|run| *run.id.as_bytes()).collect();
    let (mut missed, mut happened, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for Told { n, organization, run, step, item, what } in told {
        match what {
            _ if !mine.contains(run.as_bytes()) => missed.push(n),
            None => again.push((organization, run, step)),
            Some(what) => happened.push(Happened { organization, run, step, item, what }),
        }
    }
    happened.extend(events::came_before(&again)?);
    advance::advance(held, happened)?;
    Ok(missed)
}

/// So many runs at a time.
const SLICE: i32 = 5_000;

/// Tells runs what is noted for them. True: some of them somebody has, look again soon.
pub fn settle() -> Result<bool> {
    if catalog::is_unused("workflow_checks") {
        return Ok(false);
    }
    // Notes of runs that have ended mean nothing any more.
    spi::run(
        "DELETE FROM usher.workflow_checks AS c
          WHERE NOT EXISTS (SELECT FROM usher.workflow_runs AS r
                             WHERE r.organization_id = c.organization_id AND r.id = (c.payload ->> 'run')::uuid AND COALESCE(r.ended_at IS NULL, false))",
        &[],
    )?;
    let told = spi::all(
        &format!(
            "WITH r AS MATERIALIZED (
                 SELECT r.organization_id, r.id
                   FROM (SELECT DISTINCT c.organization_id AS o, (c.payload ->> 'run')::uuid AS i FROM usher.workflow_checks AS c ORDER BY i LIMIT $1) AS u
                  CROSS JOIN LATERAL (SELECT r.* FROM usher.workflow_runs AS r WHERE r.organization_id = u.o AND r.id = u.i FOR UPDATE SKIP LOCKED) AS r),
             d AS (DELETE FROM usher.workflow_checks AS c USING r WHERE r.organization_id = c.organization_id AND r.id = (c.payload ->> 'run')::uuid RETURNING c.*),
             e AS (SELECT pg_catalog.row_number() OVER (ORDER BY d.job_id) AS n, d.organization_id, d.job_id AS id, d.fate, d.payload, d.error_message, d.sqlstate FROM d){TOLD}"
        ),
        &[spi::arg(SLICE)],
        told,
    )?;
    let any = !told.is_empty();
    if any {
        // All of them are locked.
        tell(told)?;
    }
    let left = spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.workflow_checks)", &[])?;
    Ok(left == Some(true))
}
