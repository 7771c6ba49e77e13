//! Many runs at once: what has happened to them goes into the machine, and what it says goes into the tables.

use super::begin;
use super::model::{Begin, Happening, Phase, Place, State};
use super::store::{self, Change, Held, Line, Standing};
use crate::error::Result;
use crate::pg::ids;
use pgrx::{JsonB, Uuid};
use std::collections::{BTreeMap, HashMap};

/// Elements that a step may be done for.
const MOST_ELEMENTS: i32 = 10_000;

/// Said for elements by the look of a step whose event could not be told from others.
const NO_MATCH: i32 = -2;

/// Something that has happened to a step of a run.
pub struct Happened {
    pub organization: Uuid,
    pub run: Uuid,
    pub step: String,
    pub item: i32,
    pub what: What,
}

/// What has happened, with the job that tells it.
pub enum What {
    /// The job is done that looked: is the step wanted, and for how many elements (fewer than 0: it was no list)?
    Seen {
        job: Uuid,
        wanted: bool,
        elements: i32,
    },
    Done {
        job: Uuid,
    },
    /// A clock is due: the end of a sleep, or of a deadline.
    Due {
        job: Uuid,
    },
    /// Its job, or its clock, has failed for good.
    Failed {
        job: Uuid,
        error: String,
        sqlstate: Option<String>,
    },
    /// What it waited for.
    Came(JsonB),
    /// Somebody has said no.
    Refused(String),
}

/// One run on its way through the machine.
struct Moved {
    held: Held,
    before: BTreeMap<Place, State>,
    was: (Phase, bool),
    details: HashMap<Place, Detail>,
    lines: Vec<Line>,
    /// Jobs that are no longer wanted.
    stopped: Vec<(Uuid, Uuid)>,
    /// The first failure.
    error: Option<String>,
}

/// What a place gets beside its state.
#[derive(Default)]
struct Detail {
    error: Option<String>,
    sqlstate: Option<String>,
    result_of: Option<Uuid>,
    result: Option<JsonB>,
    /// The look that has just told of it.
    look: Option<Uuid>,
}

impl Moved {
    fn new(held: Held) -> Self {
        let (before, was) = (held.run.places.clone(), (held.run.phase, held.run.given_up));
        Self { held, before, was, details: HashMap::new(), lines: Vec::new(), stopped: Vec::new(), error: None }
    }

    fn take_in(&mut self, happened: Happened) {
        let plan = self.held.plan.clone();
        let Some(number) = plan.number(&happened.step) else { return };
        let place = (number, happened.item);
        let Some(state) = self.held.run.places.get(&place).copied() else { return };
        let (at_work, clock) = self.held.jobs.get(&place).copied().unwrap_or_default();
        let is_clock = |job: Uuid| clock == Some(job);
        let mut detail = Detail::default();
        let happening = match happened.what {
            What::Seen { job, .. } | What::Done { job } if at_work != Some(job) => return,
            What::Due { job } if !is_clock(job) => return,
            What::Failed { job, .. } if at_work != Some(job) && !is_clock(job) => return,
            What::Seen { elements, .. } if !(0..=MOST_ELEMENTS).contains(&elements) => {
                detail.error = Some(if elements == NO_MATCH {
                    "what it waits for cannot be told: \"match\" gave NULL".to_owned()
                } else if elements < 0 {
                    "\"for_each\" gave no list".to_owned()
                } else {
                    format!("\"for_each\" gave {elements} elements, more than {MOST_ELEMENTS}")
                });
                detail.sqlstate = Some("22023".to_owned());
                Happening::Lost
            }
            What::Seen { job, wanted, elements } => {
                detail.look = Some(job);
                Happening::Seen { wanted, elements }
            }
            What::Done { .. } if state == State::Undoing => Happening::TakenBack,
            What::Done { job } => {
                detail.result_of = plan.steps[number].keeps_result.then_some(job);
                Happening::Over
            }
            What::Due { .. } if state == State::Sleeping => Happening::Over,
            What::Due { .. } => {
                if plan.model[number].goes_on {
                    detail.result = Some(JsonB(serde_json::json!({"late": true})));
                } else {
                    detail.error = Some("its deadline is over".to_owned());
                    detail.sqlstate = Some("US002".to_owned());
                }
                Happening::Late
            }
            // Somebody has cancelled the clock of a deadline: there is none any more.
            What::Failed { .. } if state == State::Waiting => return,
            What::Failed { error, sqlstate, .. } => {
                (detail.error, detail.sqlstate) = (Some(error), sqlstate);
                if state == State::Undoing { Happening::NotTakenBack } else { Happening::Lost }
            }
            What::Came(data) => {
                detail.result = Some(data);
                Happening::Over
            }
            What::Refused(error) => {
                (detail.error, detail.sqlstate) = (Some(error), Some("US003".to_owned()));
                Happening::Lost
            }
        };
        if !self.held.run.happens(&plan.model, place, happening) {
            return;
        }
        if let Some(error) = &detail.error {
            let undo = if happening == Happening::NotTakenBack { "the undo of " } else { "" };
            let item = if place.1 > 0 { format!(" ({})", place.1) } else { String::new() };
            self.error.get_or_insert_with(|| format!("{undo}step \"{}\"{item}: {error}", happened.step));
            self.lines.push(Line {
                organization: self.held.organization,
                run: self.held.id,
                what: if happening == Happening::NotTakenBack { "undo failed" } else { "failed" },
                step: Some(happened.step),
                item: (place.1 > 0).then_some(place.1),
                detail: Some(error.clone()),
                by: None,
            });
        }
        self.details.insert(place, detail);
    }

    /// What somebody can do about a run that is parked.
    fn remedy(&self) -> Option<String> {
        if self.held.run.phase != Phase::Parked {
            return None;
        }
        let stuck = self.held.run.places.values().any(|state| *state == State::Stuck);
        let what = if stuck { "the undo that failed is tried again" } else { "it goes on with the step that failed" };
        Some(format!(
            "Mend what failed, then SELECT usher.retry_workflow('{0}'): {what}. SELECT usher.cancel_workflow('{0}', undo => false) ends it as it is.",
            self.held.id
        ))
    }
}

/// What a person does to a run that this transaction holds.
pub enum Order {
    GiveUp,
    Close,
    Retry(Option<usize>),
    /// From its very beginning.
    Anew,
}

/// Everything that is to be written of some runs.
#[derive(Default)]
struct Written {
    changes: Vec<Change>,
    gathered: Vec<(Uuid, Uuid, String)>,
    standings: Vec<Standing>,
    lines: Vec<Line>,
    begun: begin::Begun,
}

/// Takes in what has happened to runs that this transaction has locked, in the order in which it happened. Runs with the owner's rights.
pub fn advance(held: Vec<Held>, happened: Vec<Happened>) -> Result<()> {
    let mut runs: HashMap<[u8; 16], Moved> = held.into_iter().map(|held| (*held.id.as_bytes(), Moved::new(held))).collect();
    for one in happened {
        if let Some(moved) = runs.get_mut(one.run.as_bytes()) {
            moved.take_in(one);
        }
    }
    settle(runs.into_values().collect())
}

/// The same, of what a person wants. False: the run does not stand like that.
pub fn order(held: Held, order: Order) -> Result<bool> {
    let mut moved = Moved::new(held);
    let plan = moved.held.plan.clone();
    let run = &mut moved.held.run;
    let fits = match order {
        Order::GiveUp => {
            run.given_up = true;
            run.phase == Phase::Running
        }
        Order::Close => {
            let at_work =
                run.places.iter().filter(|(_, state)| state.is_open()).filter_map(|(place, _)| moved.held.jobs.get(place));
            moved.stopped = at_work.filter_map(|(job, _)| *job).map(|job| (moved.held.organization, job)).collect();
            let open = !run.phase.has_ended();
            run.close();
            open
        }
        Order::Retry(from) => run.retry(&plan.model, from),
        Order::Anew => {
            let ended = run.phase == Phase::Undone;
            *run = super::model::Run::new();
            ended
        }
    };
    if fits {
        settle(vec![moved])?;
    }
    Ok(fits)
}

fn settle(mut runs: Vec<Moved>) -> Result<()> {
    // Jobs get their positions in the order of the runs.
    runs.sort_unstable_by_key(|moved| *moved.held.id.as_bytes());
    let mut all = Written::default();
    for moved in &mut runs {
        one(moved, &mut all)?;
    }
    store::change(all.changes, &all.gathered)?;
    // The jobs are of the version that the run is of now.
    store::stand(all.standings)?;
    store::put(all.begun.jobs)?;
    store::stop_clocks(all.begun.stopped)?;
    store::enter(all.lines)?;
    begin::listen(all.begun.waits, all.begun.silent)?;
    begin::hear_signals(all.begun.signals)
}

fn one(moved: &mut Moved, all: &mut Written) -> Result<()> {
    let plan = moved.held.plan.clone();
    let begins = moved.held.run.settle(&plan.model, &moved.before);
    let (organization, run) = (moved.held.organization, moved.held.id);
    let mut jobs: HashMap<Place, (Option<Uuid>, Option<Uuid>)> = HashMap::new();
    for begin in &begins {
        let place = match begin {
            Begin::StopWaiting(place) => {
                let clock = moved.held.jobs.get(place).and_then(|jobs| jobs.1);
                all.begun.stop(&moved.held, place.0, clock);
                continue;
            }
            Begin::Look(place) | Begin::Do(place) | Begin::Wait(place) | Begin::Sleep(place) | Begin::Undo(place) => *place,
        };
        // The look that comes before what is begun now, in this turn or an earlier one.
        let look = moved.details.get(&(place.0, 0)).and_then(|detail| detail.look);
        jobs.insert(place, all.begun.begin(&moved.held, *begin, look)?);
    }
    for (place, state) in &moved.held.run.places {
        if moved.before.get(place) == Some(state) {
            continue;
        }
        let name = &plan.steps[place.0].name;
        let detail = moved.details.remove(place).unwrap_or_default();
        let (job, clock) = jobs.get(place).copied().unwrap_or_default();
        let element_of = (place.1 > 0 && !moved.before.contains_key(place))
            .then(|| moved.held.jobs.get(&(place.0, 0)).and_then(|jobs| jobs.0))
            .flatten();
        if *state == State::Done && place.1 == 0 && plan.steps[place.0].fans_out && plan.steps[place.0].keeps_result {
            all.gathered.push((organization, run, name.clone()));
        }
        all.changes.push(Change {
            organization,
            run,
            step: name.clone(),
            item: place.1,
            state: Some(*state),
            job,
            clock,
            error: detail.error,
            sqlstate: detail.sqlstate,
            result_of: detail.result_of,
            result: detail.result,
            element_of,
        });
    }
    for place in moved.before.keys().filter(|place| !moved.held.run.places.contains_key(*place)) {
        let name = plan.steps[place.0].name.clone();
        all.changes.push(Change {
            organization,
            run,
            step: name,
            item: place.1,
            state: None,
            job: None,
            clock: None,
            error: None,
            sqlstate: None,
            result_of: None,
            result: None,
            element_of: None,
        });
    }
    all.begun.stopped.append(&mut moved.stopped);
    all.lines.append(&mut moved.lines);
    let now = (moved.held.run.phase, moved.held.run.given_up);
    if now != moved.was || moved.error.is_some() {
        all.standings.push(Standing {
            organization,
            run,
            phase: now.0,
            given_up: now.1,
            error: moved.error.take(),
            remedy: moved.remedy(),
            version: plan.version,
        });
    }
    Ok(())
}

/// A new id for a job.
pub fn job_id() -> Uuid {
    ids::uuid_v7()
}
