//! The job that takes the server down, found and put aside.
//!
//! A job whose effect ends the server process (a crash in a C function, memory that the kernel takes back) undoes its batch
//! and every session, and would do so again after every recovery. So a worker that starts after an unclean end does the
//! jobs of before it one by one, each with a committed row in `usher.job_intents` that says which one is about to run. Who
//! is found with an open row at the next start was running when the process ended; after [`MOST_CRASHES`] of these it is a
//! dead letter. A process that the postmaster makes quit because another one died, or because somebody stops the server,
//! says so (see `pg/crash.rs`): a long job is not blamed for what it only met with.
//!
//! Normal work pays nothing: that the server ended uncleanly is known from `usher.worker_marks`, an unlogged table, which
//! crash recovery empties.

use super::batch::{self, Condemned};
use super::process::{Loop, Outcome};
use crate::error::Result;
use crate::pg::shmem::{LANES, Mine, Source};
use crate::pg::{bgw, catalog, counters, crash, role, spi};
use crate::queue::{gather, limits, store};
use crate::settings;
use crate::setup::Installed;
use pgrx::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

/// The process was alone with its job each time. Once or twice may be chance: the kernel may take a process to get its memory, and
/// right after a restart the same job is the first again.
const MOST_CRASHES: i32 = 3;
/// A process may also be ended by an administrator, and the server goes on: that says less.
const MOST_ENDINGS: i32 = 5;

/// What is known of a job that was running when its process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    crashes: i32,
    endings: i32,
}

impl Record {
    /// Why it must not run again, if so.
    fn verdict(self) -> Option<String> {
        if self.crashes >= MOST_CRASHES {
            Some(format!("the server process ended while it ran, {} times", self.crashes))
        } else if self.endings >= MOST_ENDINGS {
            Some(format!("the worker process ended while it ran, {} times", self.endings))
        } else {
            None
        }
    }
}

/// Where a worker stands with the jobs of before an unclean end.
pub enum Care {
    /// Just started: it has to be looked whether the last end was clean.
    Unknown,
    Careful(Box<Suspicion>),
    /// Normal work.
    None,
}

pub struct Suspicion {
    /// Jobs with later positions did not exist when the process ended.
    bound: i64,
    lanes: Vec<Lane>,
    records: HashMap<i64, Record>,
    /// The job whose intent is open.
    open: Option<i64>,
    /// It has been said in the log.
    told: bool,
}

struct Lane {
    number: usize,
    position: i64,
    /// The batch that did not end had no more jobs than these.
    ready: i32,
    due: i32,
}

/// The next job to be done by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Job {
    source: Source,
    lane: usize,
    seq: i64,
}

/// One round of careful work. False ends the process.
pub fn step(worker: &mut Loop) -> bool {
    match std::mem::replace(&mut worker.care, Care::Unknown) {
        Care::Unknown => {
            let mine = worker.mine;
            let mut begun = Care::Unknown;
            let there = worker.attempt(|installed| {
                begun = begin(installed, mine)?;
                Ok(())
            });
            worker.care = begun;
            there
        }
        Care::Careful(mut suspicion) => {
            let (over, there) = suspicion.turn(worker);
            worker.care = if over { Care::None } else { Care::Careful(suspicion) };
            there
        }
        Care::None => {
            worker.care = Care::None;
            true
        }
    }
}

/// Looks whether the last end was clean, and writes down whose end it was.
fn begin(installed: Installed, mine: Mine) -> Result<Care> {
    // Tables of an older version have no marks.
    if !installed.up_to_date || catalog::usher_relation("worker_marks").is_none() {
        return Ok(Care::None);
    }
    let _acting = role::internal(installed.owner);
    let mask = mine.lanes().cast_signed();
    let innocent = crash::was_innocent(mine.database(), mine.lanes());
    let mark = spi::read::<bool>("SELECT careful FROM usher.worker_marks WHERE lanes = $1", &[spi::arg(mask)])?;
    if mark == Some(false) && !mine.careful() {
        return Ok(Care::None);
    }
    spi::run(
        "INSERT INTO usher.worker_marks (lanes, careful) VALUES ($1, true)
         ON CONFLICT ON CONSTRAINT worker_marks_pkey DO UPDATE SET careful = true",
        &[spi::arg(mask)],
    )?;
    let lanes: Vec<i16> = (0..LANES as i16).filter(|lane| mask & (1 << lane) != 0).collect();
    // Batches that were to run may hold the job that took the process along.
    let scattered = gather::scatter(&lanes)?;
    // The mark is gone: a crash. It is there: the process ended, and the server went on.
    let crashed = mark.is_none();
    spi::run(
        "UPDATE usher.job_intents SET open = false, crashes = crashes + $2, endings = endings + $3 WHERE open AND lane = ANY ($1)",
        &[spi::arg(lanes.clone()), spi::arg(i32::from(crashed && !innocent)), spi::arg(i32::from(!crashed))],
    )?;
    let records = spi::read_all(
        "SELECT seq, crashes, endings FROM usher.job_intents WHERE lane = ANY ($1)",
        &[spi::arg(lanes.clone())],
        |row| {
            let record = Record { crashes: row.get::<i32>(2)?.unwrap_or(0), endings: row.get::<i32>(3)?.unwrap_or(0) };
            Ok((row.get::<i64>(1)?.unwrap_or(0), record))
        },
    )?;
    let most = settings::batch_size();
    let lane = |number: &i16| Lane { number: *number as usize, position: 0, ready: most, due: most.max(scattered) };
    Ok(Care::Careful(Box::new(Suspicion {
        bound: store::newest_position()?,
        lanes: lanes.iter().map(lane).collect(),
        records: records.into_iter().collect(),
        open: None,
        told: false,
    })))
}

impl Suspicion {
    /// One job. (careful work is over, the process goes on)
    fn turn(&mut self, worker: &mut Loop) -> (bool, bool) {
        let before = self.open;
        let mut next = None;
        let outcome = worker.work(|installed| {
            let _acting = role::internal(installed.owner);
            next = self.next(installed)?;
            self.announce(next)?;
            Ok(batch::Done::default())
        });
        match (outcome, next) {
            (Ok(Outcome::Did(_)), Some(job)) => {
                if !self.told {
                    log!("usher worker: the server or a worker ended inside a batch; the jobs of that time are done one by one");
                    self.told = true;
                }
                crash::arm(true);
                let there = self.run(worker, job);
                (false, there)
            }
            (Ok(Outcome::Did(_)), None) => {
                crash::arm(false);
                (true, true)
            }
            (Ok(Outcome::Gone), _) => (false, false),
            // Logged, and tried again: nothing has been announced.
            (Err(_), _) => {
                self.open = before;
                (false, true)
            }
        }
    }

    /// What has to be done by itself, the highest lane first.
    fn next(&mut self, installed: Installed) -> Result<Option<Job>> {
        let bound = self.bound;
        for lane in &mut self.lanes {
            if lane.due > 0 {
                // Before it is looked who is first: it changes who is due.
                limits::promote(installed, &[lane.number as i16], 1)?;
                if let Some(seq) = store::first_due(lane.number)?.filter(|seq| *seq <= bound) {
                    return Ok(Some(Job { source: Source::Waiting, lane: lane.number, seq }));
                }
                lane.due = 0;
            }
            if lane.ready > 0 {
                if let Some(seq) = store::next_ready(lane.number, lane.position)?.filter(|seq| *seq <= bound) {
                    return Ok(Some(Job { source: Source::Queue, lane: lane.number, seq }));
                }
                lane.ready = 0;
            }
        }
        Ok(None)
    }

    /// Commits which job runs next, or that there is none any more.
    fn announce(&mut self, next: Option<Job>) -> Result<()> {
        let seq = next.map(|job| job.seq);
        if self.open == seq && seq.is_some() {
            return Ok(());
        }
        if let Some(open) = self.open {
            spi::run("DELETE FROM usher.job_intents WHERE seq = $1", &[spi::arg(open)])?;
        }
        match next {
            Some(job) => {
                spi::run(
                    "INSERT INTO usher.job_intents (seq, lane) VALUES ($1, $2)
                     ON CONFLICT ON CONSTRAINT job_intents_pkey
                     DO UPDATE SET open = true, lane = EXCLUDED.lane, begun_at = EXCLUDED.begun_at",
                    &[spi::arg(job.seq), spi::arg(job.lane as i16)],
                )?;
            }
            None => {
                let lanes: Vec<i16> = self.lanes.iter().map(|lane| lane.number as i16).collect();
                spi::run("DELETE FROM usher.job_intents WHERE lane = ANY ($1)", &[spi::arg(lanes)])?;
                let mask = self.lanes.iter().fold(0, |mask, lane| mask | (1 << lane.number));
                spi::run("UPDATE usher.worker_marks SET careful = false WHERE lanes = $1", &[spi::arg(mask)])?;
            }
        }
        self.open = seq;
        Ok(())
    }

    /// Does a job, or buries it. False: the extension is gone.
    fn run(&mut self, worker: &mut Loop, job: Job) -> bool {
        let mine = worker.mine;
        bgw::set_lane(crate::queue::LANES[job.lane]);
        let verdict = self.records.get(&job.seq).copied().and_then(Record::verdict);
        let outcome = match &verdict {
            Some(reason) => {
                log!("usher worker: the job at position {} is a dead letter now: {reason}", job.seq);
                let condemned = Condemned { reason, sqlstate: "57P02" };
                worker.work(|installed| batch::one(installed, job.source, job.lane, job.seq, Some(&condemned), mine))
            }
            None => worker.work(|installed| batch::one(installed, job.source, job.lane, job.seq, None, mine)),
        };
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.number == job.lane) else { return true };
        match outcome {
            Ok(Outcome::Gone) => return false,
            Ok(Outcome::Did(done)) if done.busy => {
                // Somebody holds the lane: its jobs are looked at again when it is free.
                bgw::nap(Duration::from_millis(100));
            }
            Ok(Outcome::Did(done)) => {
                counters::finish(job.lane, done.jobs, worker.took);
                lane.pass(job);
            }
            // The whole transaction failed, was logged and paused: normal work knows what to do with such a job.
            Err(_) => lane.pass(job),
        }
        true
    }
}

impl Lane {
    fn pass(&mut self, job: Job) {
        match job.source {
            Source::Queue => {
                self.position = job.seq;
                self.ready -= 1;
            }
            Source::Waiting => self.due -= 1,
        }
    }

    #[cfg(test)]
    fn is_done(&self) -> bool {
        self.ready <= 0 && self.due <= 0
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_job_is_condemned_after_three_crashes_or_five_endings() {
        let verdict = |crashes, endings| Record { crashes, endings }.verdict();
        assert_eq!(verdict(2, 4), None);
        assert_eq!(verdict(3, 0).as_deref(), Some("the server process ended while it ran, 3 times"));
        assert_eq!(verdict(2, 5).as_deref(), Some("the worker process ended while it ran, 5 times"));
    }

    #[test]
    fn a_lane_is_done_when_as_many_jobs_have_passed_as_a_batch_can_have() {
        let mut lane = Lane { number: 3, position: 0, ready: 2, due: 1 };
        for (source, seq) in [(Source::Waiting, 9), (Source::Queue, 4), (Source::Queue, 7)] {
            assert!(!lane.is_done());
            lane.pass(Job { source, lane: 3, seq });
        }
        assert!(lane.is_done());
        assert_eq!(lane.position, 7);
    }
}
