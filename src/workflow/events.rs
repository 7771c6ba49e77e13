//! Events that runs wait for. Everything here runs with the owner's rights.

use super::advance::{self, Happened, What};
use super::store::{self, nil};
use crate::error::Result;
use crate::flow::apply::Batch;
use crate::flow::event_type::Pattern;
use crate::pg::guc::Nest;
use crate::pg::{spi, xact};
use pgrx::{JsonB, Uuid};
use std::collections::{HashMap, HashSet};

/// A listener's jobs are done, all but those with these numbers: the runs that wait for one of the events go on.
pub fn heard(listener: i32, batch: &Batch, but: Vec<i32>) -> Result<()> {
    let came = {
        let _index = Nest::open().one_by_one();
        spi::read_all(
            "SELECT w.organization_id, w.run_id, w.step, b.event -> 'data'
               FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[]) WITH ORDINALITY AS b (organization_id, id, event, n)
               JOIN usher.job_results AS r ON r.organization_id = b.organization_id AND r.job_id = b.id
               JOIN usher.workflow_waits AS w ON w.organization_id = b.organization_id AND w.listener = $5
                    AND w.key = pg_catalog.hashtextextended(r.result::text, 0) AND w.data = r.result
               JOIN usher.workflow_runs AS u ON u.organization_id = w.organization_id AND u.id = w.run_id
                    AND u.hears_since <= (b.event ->> 'emitted_at')::timestamptz
              WHERE b.n <> ALL ($4::integer[]) ORDER BY b.n",
            &[batch.organizations.arg(), batch.ids.arg(), batch.new.arg(), spi::arg(but), spi::arg(listener)],
            came,
        )?
    };
    if came.is_empty() {
        return Ok(());
    }
    let (organizations, runs): (Vec<Uuid>, Vec<Uuid>) = came.iter().map(|came| (came.organization, came.run)).unzip();
    let held = store::hold(&organizations, &runs, false, false)?;
    let mine: HashSet<[u8; 16]> = held.iter().map(|run| *run.id.as_bytes()).collect();
    let (told, missed): (Vec<Happened>, Vec<Happened>) = came.into_iter().partition(|came| mine.contains(came.run.as_bytes()));
    // Whoever has the run may have it for long: it looks back when he lets go of it.
    look_back_later(&missed)?;
    advance::advance(held, told)
}

/// Notes that steps are to look back for what they wait for.
fn look_back_later(missed: &[Happened]) -> Result<()> {
    if missed.is_empty() {
        return Ok(());
    }
    xact::note_due_changed();
    spi::run(
        "INSERT INTO usher.workflow_checks (organization_id, job_id, fate, payload)
         SELECT u.o, u.r, 'synced', pg_catalog.jsonb_build_object('run', u.r, 'step', u.s, 'part', 'again') FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS u (o, r, s)",
        &[
            spi::arg(missed.iter().map(|missed| missed.organization).collect::<Vec<_>>()),
            spi::arg(missed.iter().map(|missed| missed.run).collect::<Vec<_>>()),
            spi::arg(missed.iter().map(|missed| missed.step.clone()).collect::<Vec<_>>()),
        ],
    )?;
    Ok(())
}

fn came(row: &pgrx::spi::SpiTupleTable<'_>) -> Result<Happened> {
    Ok(Happened {
        organization: row.get::<Uuid>(1)?.unwrap_or_else(nil),
        run: row.get::<Uuid>(2)?.unwrap_or_else(nil),
        step: row.get::<String>(3)?.unwrap_or_default(),
        item: 0,
        what: What::Came(row.get::<JsonB>(4)?.unwrap_or_else(|| JsonB(serde_json::json!({})))),
    })
}

/// The first event since the run began that has the type and the data that it waits for.
const BEFORE: &str = "
SELECT w.organization_id, w.run_id, w.step, v.data
  FROM usher.workflow_waits AS w
  JOIN usher.workflow_runs AS u ON u.organization_id = w.organization_id AND u.id = w.run_id
 CROSS JOIN LATERAL (
       SELECT e.data FROM usher.events AS e
        WHERE e.organization_id = w.organization_id AND e.emitted_at >= u.hears_since AND {type}
          AND NOT EXISTS (SELECT FROM pg_catalog.jsonb_each_text(w.data) AS m WHERE m.value IS DISTINCT FROM e.data ->> m.key)
        ORDER BY e.emitted_at LIMIT 1) AS v
 WHERE (w.organization_id, w.run_id, w.step) IN (SELECT i.o, i.r, i.s FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS i (o, r, s))";

/// What these steps (organization, run, step) wait for has come before they did, or while they began to.
pub fn came_before(steps: &[(Uuid, Uuid, String)]) -> Result<Vec<Happened>> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let (organizations, runs): (Vec<Uuid>, Vec<Uuid>) = steps.iter().map(|step| (step.0, step.1)).unzip();
    let patterns = patterns(&organizations, &runs)?;
    let mut found = Vec::new();
    for (pattern, mine) in group(steps, &patterns) {
        found.extend(look(&pattern, &mine)?);
    }
    Ok(found)
}

type Waiting = (Uuid, Uuid, String);

/// The patterns of the events that steps wait for, by run and step.
fn patterns(organizations: &[Uuid], runs: &[Uuid]) -> Result<HashMap<([u8; 16], String), String>> {
    let found = spi::read_all(
        "SELECT w.run_id, w.step, f.definition -> 'when' ->> 'event' FROM usher.workflow_waits AS w JOIN usher.flows AS f ON f.id = w.listener
          WHERE (w.organization_id, w.run_id) IN (SELECT u.o, u.r FROM unnest($1::uuid[], $2::uuid[]) AS u (o, r))",
        &[spi::arg(organizations.to_vec()), spi::arg(runs.to_vec())],
        |row| {
            let run = *row.get::<Uuid>(1)?.unwrap_or_else(nil).as_bytes();
            Ok(((run, row.get::<String>(2)?.unwrap_or_default()), row.get::<String>(3)?.unwrap_or_default()))
        },
    )?;
    Ok(found.into_iter().collect())
}

fn group(steps: &[Waiting], patterns: &HashMap<([u8; 16], String), String>) -> HashMap<String, Vec<Waiting>> {
    let mut groups: HashMap<String, Vec<Waiting>> = HashMap::new();
    for step in steps {
        if let Some(pattern) = patterns.get(&(*step.1.as_bytes(), step.2.clone())) {
            groups.entry(pattern.clone()).or_default().push(step.clone());
        }
    }
    groups
}

/// All steps that wait for events of one pattern, in one statement.
fn look(pattern: &str, steps: &[Waiting]) -> Result<Vec<Happened>> {
    let Ok(pattern) = Pattern::parse(pattern) else { return Ok(Vec::new()) };
    let exact = pattern.exactly().is_some();
    let text = pattern.exactly().map_or_else(|| pattern.expression(), str::to_owned);
    let _index = Nest::open().one_by_one();
    spi::read_all(
        &BEFORE.replace("{type}", if exact { "e.type = $4" } else { "'.' || e.type ~ $4" }),
        &[
            spi::arg(steps.iter().map(|step| step.0).collect::<Vec<_>>()),
            spi::arg(steps.iter().map(|step| step.1).collect::<Vec<_>>()),
            spi::arg(steps.iter().map(|step| step.2.clone()).collect::<Vec<_>>()),
            spi::arg(text),
        ],
        came,
    )
}
