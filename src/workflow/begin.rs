//! Beginning what the machine says: jobs, clocks, and waiting for events and signals.

use super::advance::{self, Happened, What, job_id};
use super::model::{Begin, Place};
use super::store::{self, Due, Held, Job};
use crate::error::Result;
use crate::flow::steps::{Awaits, Kind, Part};
use crate::pg::guc::Nest;
use crate::pg::spi;
use pgrx::{JsonB, Uuid};

/// What is begun in one turn.
#[derive(Default)]
pub struct Begun {
    pub jobs: Vec<Job>,
    /// Clocks that need not go on.
    pub stopped: Vec<(Uuid, Uuid)>,
    pub waits: Vec<Wait>,
    /// Steps that no longer wait for an event: organizations, runs, steps.
    pub silent: Vec<(Uuid, Uuid, String)>,
    /// Steps that wait for a signal.
    pub signals: Vec<Signal>,
}

/// A step that waits for an event.
pub struct Wait {
    pub organization: Uuid,
    pub run: Uuid,
    pub step: String,
    pub listener: i32,
    /// The look that tells what it expects.
    pub look: Option<Uuid>,
}

pub struct Signal {
    pub organization: Uuid,
    pub run: Uuid,
    pub step: String,
    pub signal: String,
    pub approval: bool,
}

impl Begun {
    /// Begins one thing. Returns the job at work on it, and its clock.
    pub fn begin(&mut self, held: &Held, begin: Begin, look: Option<Uuid>) -> Result<(Option<Uuid>, Option<Uuid>)> {
        let clock = |place: Place, part: &'static str, due: Due| -> Result<Job> { job(held, place, Part::Clock, part, due) };
        Ok(match begin {
            Begin::Look(place) => self.put(job(held, place, Part::Look, Part::Look.word(), Due::Now)?, false),
            Begin::Do(place) => self.put(job(held, place, Part::Do, Part::Do.word(), Due::Now)?, false),
            Begin::Undo(place) => self.put(job(held, place, Part::Undo, Part::Undo.word(), Due::Now)?, false),
            Begin::Sleep(place) => {
                let due = match (&held.plan.steps[place.0].kind, look) {
                    (Kind::Sleep(Some(seconds)), _) => Due::In(*seconds),
                    (_, Some(look)) => Due::Told(look),
                    _ => Due::In(0.0),
                };
                self.put(clock(place, "clock", due)?, true)
            }
            Begin::Wait(place) => {
                let step = &held.plan.steps[place.0];
                let (organization, run) = (held.organization, held.id);
                match &step.kind {
                    Kind::Wait(Awaits::Event(_)) => {
                        let listener = held.plan.part(Part::Hear, place.0)?;
                        self.waits.push(Wait { organization, run, step: step.name.clone(), listener, look });
                        // Whoever emits it now does not see yet that it is waited for: looked at again after the commit.
                        self.put(clock(place, "again", Due::Now)?, false);
                    }
                    Kind::Wait(Awaits::Signal(signal)) => {
                        let (step, signal) = (step.name.clone(), signal.clone());
                        self.signals.push(Signal { organization, run, step, signal, approval: false });
                    }
                    Kind::Wait(Awaits::Approval(_)) => {
                        let (step, signal) = (step.name.clone(), step.name.clone());
                        self.signals.push(Signal { organization, run, step, signal, approval: true });
                    }
                    Kind::Effect | Kind::Sleep(_) => {}
                }
                match step.deadline {
                    Some(seconds) => self.put(clock(place, "clock", Due::In(seconds))?, true),
                    None => (None, None),
                }
            }
            Begin::StopWaiting(_) => (None, None),
        })
    }

    fn put(&mut self, job: Job, is_clock: bool) -> (Option<Uuid>, Option<Uuid>) {
        let id = Some(job.id);
        self.jobs.push(job);
        if is_clock { (None, id) } else { (id, None) }
    }

    /// A step waits no longer.
    pub fn stop(&mut self, held: &Held, step: usize, clock: Option<Uuid>) {
        self.stopped.extend(clock.map(|clock| (held.organization, clock)));
        if matches!(held.plan.steps[step].kind, Kind::Wait(Awaits::Event(_))) {
            self.silent.push((held.organization, held.id, held.plan.steps[step].name.clone()));
        }
    }
}

fn job(held: &Held, place: Place, flow: Part, part: &'static str, due: Due) -> Result<Job> {
    let step = &held.plan.steps[place.0];
    Ok(Job {
        organization: held.organization,
        run: held.id,
        step: step.name.clone(),
        item: place.1,
        part,
        id: job_id(),
        flow: held.plan.part(flow, place.0)?,
        lane: step.lane.filter(|_| flow != Part::Clock).map_or(held.lane, |lane| lane as i16),
        results: step.needs_results && flow != Part::Clock,
        due,
    })
}

/// `$1` organizations, `$2` runs, `$3` steps, `$4` listeners, `$5` looks: what an event must have is what the look says under `match.…`.
const LISTEN: &str = "
INSERT INTO usher.workflow_waits AS w (organization_id, run_id, step, listener, key, data)
SELECT u.organization_id, u.run_id, u.step, u.listener, pg_catalog.hashtextextended(m.data::text, 0), m.data
  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::uuid[]) AS u (organization_id, run_id, step, listener, look)
  JOIN usher.job_results AS r ON r.organization_id = u.organization_id AND r.job_id = u.look
 CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.jsonb_object_agg(pg_catalog.substr(f.key, 7), f.value), '{}') AS data
                       FROM pg_catalog.jsonb_each(r.result) AS f WHERE pg_catalog.starts_with(f.key, 'match.')) AS m
ON CONFLICT ON CONSTRAINT workflow_waits_pkey DO UPDATE SET listener = EXCLUDED.listener, key = EXCLUDED.key, data = EXCLUDED.data";

/// Enters which events are waited for, and which no longer.
pub fn listen(waits: Vec<Wait>, silent: Vec<(Uuid, Uuid, String)>) -> Result<()> {
    let _index = Nest::open().one_by_one();
    if !silent.is_empty() {
        spi::run(
            "DELETE FROM usher.workflow_waits AS w USING unnest($1::uuid[], $2::uuid[], $3::text[]) AS u (organization_id, run_id, step)
              WHERE w.organization_id = u.organization_id AND w.run_id = u.run_id AND w.step = u.step",
            &[
                spi::arg(silent.iter().map(|s| s.0).collect::<Vec<_>>()),
                spi::arg(silent.iter().map(|s| s.1).collect::<Vec<_>>()),
                spi::arg(silent.iter().map(|s| s.2.clone()).collect::<Vec<_>>()),
            ],
        )?;
    }
    if !waits.is_empty() {
        spi::run(
            LISTEN,
            &[
                spi::arg(waits.iter().map(|w| w.organization).collect::<Vec<_>>()),
                spi::arg(waits.iter().map(|w| w.run).collect::<Vec<_>>()),
                spi::arg(waits.iter().map(|w| w.step.clone()).collect::<Vec<_>>()),
                spi::arg(waits.iter().map(|w| w.listener).collect::<Vec<_>>()),
                spi::arg(waits.iter().map(|w| w.look).collect::<Vec<_>>()),
            ],
        )?;
    }
    Ok(())
}

/// Signals that came before their steps.
pub fn hear_signals(signals: Vec<Signal>) -> Result<()> {
    if signals.is_empty() {
        return Ok(());
    }
    let early = spi::all(
        "DELETE FROM usher.workflow_signals AS g USING unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY AS u (organization_id, run_id, signal, n)
          WHERE g.organization_id = u.organization_id AND g.run_id = u.run_id AND g.signal = u.signal
        RETURNING u.n, g.data, g.sent_by",
        &[
            spi::arg(signals.iter().map(|s| s.organization).collect::<Vec<_>>()),
            spi::arg(signals.iter().map(|s| s.run).collect::<Vec<_>>()),
            spi::arg(signals.iter().map(|s| s.signal.clone()).collect::<Vec<_>>()),
        ],
        |row| {
            Ok((
                row.get::<i64>(1)?.unwrap_or(1),
                row.get::<JsonB>(2)?.unwrap_or_else(|| JsonB(serde_json::json!({}))),
                row.get::<String>(3)?.unwrap_or_default(),
            ))
        },
    )?;
    if early.is_empty() {
        return Ok(());
    }
    let (mut organizations, mut runs, mut happened) = (Vec::new(), Vec::new(), Vec::new());
    for (n, data, by) in early {
        let Some(signal) = signals.get(usize::try_from(n - 1).unwrap_or(0)) else { continue };
        organizations.push(signal.organization);
        runs.push(signal.run);
        let what = said(signal.approval, data, &by);
        happened.push(Happened { organization: signal.organization, run: signal.run, step: signal.step.clone(), item: 0, what });
    }
    // They are this transaction's already.
    let held = store::hold(&organizations, &runs, true, false)?;
    advance::advance(held, happened)
}

/// What a signal, or an answer to a question for approval, means.
pub fn said(approval: bool, mut data: JsonB, by: &str) -> What {
    if !approval {
        return What::Came(data);
    }
    let approved = data.0.get("approved") == Some(&serde_json::Value::Bool(true));
    if !approved {
        let note = data.0.get("note").and_then(|note| note.as_str()).map(|note| format!(": {note}")).unwrap_or_default();
        return What::Refused(format!("{by} has refused it{note}"));
    }
    if let Some(fields) = data.0.as_object_mut() {
        fields.insert("by".to_owned(), serde_json::Value::from(by));
    }
    What::Came(data)
}
