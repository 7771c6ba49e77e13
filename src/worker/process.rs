//! The loop of one worker process.

use super::{batch, maintenance};
use crate::error::Result;
use crate::pg::bgw;
use crate::pg::shmem::{LANES, Mine, NONE};
use crate::pg::{catalog, guc, role};
use crate::queue::{settle, store};
use crate::settings;
use crate::setup;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How many batches a lane gets before the lanes below it get theirs: none waits for ever.
const WEIGHTS: [u32; LANES] = [16, 8, 4, 2, 1];
/// The safety tick: everything is looked at again once a minute even if no session says anything.
const TICK: Duration = Duration::from_secs(60);
/// While prepared transactions of ours are open, their COMMIT PREPARED is found by looking.
const PREPARED_TICK: Duration = Duration::from_secs(1);

/// Jobs that arrived while one batch ran: from here on it is a crowd.
const CROWD: i32 = 8;
/// Short enough that a thousand jobs a second are no crowd: then fewer than that arrive in one pause.
const GATHER: Duration = Duration::from_millis(2);

struct Lane {
    number: usize,
    position: i64,
    /// There may be ready jobs behind the position.
    dirty: bool,
    credit: u32,
    /// After a batch that failed as a whole: smaller ones, down to the job that is to blame.
    most: Option<i32>,
    /// Why the last single job failed its batch.
    to_blame: Option<String>,
}

struct Loop {
    mine: Mine,
    lanes: Vec<Lane>,
    numbers: Vec<i16>,
    due_at: Option<Instant>,
    due_known: bool,
    /// What expires is looked at from the beginning.
    from_the_start: bool,
    tick_at: Instant,
    prepared_at: Instant,
    maintains: bool,
    /// The last batch was of due jobs: ready ones get their turn first.
    due_had_its_turn: bool,
}

enum Outcome {
    Did(batch::Done),
    /// The extension or its tables are gone: this process ends.
    Gone,
}

#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_worker_main(arg: pg_sys::Datum) {
    bgw::prepare_process();
    let slot = arg.value();
    let mine = Mine::arrive(slot);
    bgw::connect(mine.database());
    guc::prepare_session();
    bgw::report_activity("starting", false);
    let lanes = mine.lanes();
    let served = (0..LANES).filter(|lane| lanes & (1 << lane) != 0);
    let now = Instant::now();
    let mut state = Loop {
        mine,
        lanes: served
            .map(|number| Lane { number, position: 0, dirty: true, credit: WEIGHTS[number], most: None, to_blame: None })
            .collect(),
        numbers: Vec::new(),
        due_at: None,
        due_known: false,
        from_the_start: true,
        tick_at: now,
        prepared_at: now,
        // One process of a database looks after partitions and broken flows: the one that has the normal lane.
        maintains: lanes & (1 << 3) != 0,
        due_had_its_turn: false,
    };
    // Transactions that were prepared before this process was there are found by looking.
    if any_prepared() {
        for lane in &state.lanes {
            mine.put_prepared(lane.number, 1);
        }
        mine.put_prepared_due();
    }
    state.numbers = state.lanes.iter().map(|lane| lane.number as i16).collect();
    while state.turn() {}
}

impl Loop {
    /// One round. False ends the process.
    fn turn(&mut self) -> bool {
        bgw::reset_latch();
        pgrx::check_for_interrupts!();
        bgw::reload_if_asked();
        self.listen();
        let now = Instant::now();
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.due_known = false;
            self.from_the_start = true;
            for lane in &mut self.lanes {
                lane.dirty = true;
                lane.position = 0;
            }
            if self.maintains && !self.attempt(|_| maintenance::run()) {
                return self.gone();
            }
        }
        if !self.due_known {
            return self.look_at_due_times();
        }
        let next = self.next_lane();
        if self.due_at.is_some_and(|due| now >= due) && !(self.due_had_its_turn && next.is_some()) {
            self.due_at = None;
            self.due_had_its_turn = true;
            return self.due();
        }
        self.due_had_its_turn = false;
        match next {
            Some(index) => self.ready(index),
            None => {
                self.rest();
                true
            }
        }
    }

    /// Takes the marks that sessions have left.
    fn listen(&mut self) {
        if self.mine.take_due_changed() {
            self.due_known = false;
        }
        let look_for_prepared = self.mine.has_prepared() && Instant::now() >= self.prepared_at;
        if look_for_prepared {
            self.prepared_at = Instant::now() + PREPARED_TICK;
            if self.mine.take_prepared_due() {
                self.due_known = false;
                if any_prepared() {
                    self.mine.put_prepared_due();
                }
            }
        }
        for lane in &mut self.lanes {
            let mut low = self.mine.take_low(lane.number);
            if look_for_prepared {
                let prepared = self.mine.take_prepared(lane.number);
                if prepared != NONE {
                    low = low.min(prepared);
                    if any_prepared() {
                        self.mine.put_prepared(lane.number, prepared);
                    }
                }
            }
            if low != NONE {
                lane.position = lane.position.min(low - 1);
                lane.dirty = true;
            }
        }
    }

    /// The highest lane with work and credit; when nobody has credit left, a new round begins.
    fn next_lane(&mut self) -> Option<usize> {
        if !self.lanes.iter().any(|lane| lane.dirty) {
            return None;
        }
        if !self.lanes.iter().any(|lane| lane.dirty && lane.credit > 0) {
            for lane in &mut self.lanes {
                lane.credit = WEIGHTS[lane.number];
            }
        }
        self.lanes.iter().position(|lane| lane.dirty && lane.credit > 0)
    }

    fn ready(&mut self, index: usize) -> bool {
        let (lane, position) = (self.lanes[index].number, self.lanes[index].position);
        let most = self.lanes[index].most.unwrap_or(settings::batch_size());
        let mine = self.mine;
        let outcome = match self.lanes[index].to_blame.take() {
            None => self.work(move |installed| batch::ready(installed, lane, position, most, Some(mine))),
            Some(reason) => self.work(move |installed| batch::bury(installed, lane, position, &reason)),
        };
        let state = &mut self.lanes[index];
        match outcome {
            Ok(Outcome::Gone) => self.gone(),
            Ok(Outcome::Did(done)) if done.busy => {
                // Somebody else has the lane: the others go on meanwhile.
                state.credit = 0;
                if self.lanes.iter().all(|lane| !lane.dirty || lane.credit == 0) {
                    bgw::nap(Duration::from_millis(5));
                }
                true
            }
            Ok(Outcome::Did(done)) => {
                state.credit = state.credit.saturating_sub(1);
                state.position = state.position.max(done.last);
                state.dirty = done.jobs >= most;
                state.most = state.most.map(|most| most * 2).filter(|most| *most < settings::batch_size());
                // A failed job now waits for its next try.
                self.due_known = self.due_known && done.jobs == 0;
                // Many writers, each waking us for a job or two: a moment's pause gathers them into one batch, which costs
                // a fraction. A lone job never waits.
                if (CROWD..CROWD * 50).contains(&done.jobs) {
                    bgw::pause(GATHER);
                }
                true
            }
            Err(reason) => {
                // Nothing of the batch has happened. Smaller ones find the job that is to blame; that one is put aside.
                if most > 1 {
                    state.most = Some(most / 2);
                } else {
                    state.to_blame = Some(reason);
                }
                true
            }
        }
    }

    /// Lane by lane, so that one that somebody else has does not stop the others.
    fn due(&mut self) -> bool {
        let most = settings::batch_size();
        let mine = self.mine;
        self.due_known = false;
        let mut busy = false;
        for lane in self.numbers.clone() {
            match self.work(move |installed| batch::due(installed, &[lane], most, Some(mine))) {
                Ok(Outcome::Gone) => return self.gone(),
                Ok(Outcome::Did(done)) => busy |= done.busy,
                Err(_) => {}
            }
        }
        if busy {
            bgw::nap(Duration::from_millis(5));
        }
        true
    }

    fn look_at_due_times(&mut self) -> bool {
        let numbers = self.numbers.clone();
        let mut due = None;
        let all = std::mem::take(&mut self.from_the_start);
        let there = self.attempt(|installed| {
            let _acting = role::internal(installed.owner);
            // A leader that was cancelled, or died, leaves followers behind.
            if store::anything_waits()? {
                store::release_followers(&*crate::flow::store::classes()?)?;
            }
            let again = settle::settle(installed, all)?;
            due = settle::sooner(store::next_due(&numbers)?, again);
            Ok(())
        });
        if !there {
            return self.gone();
        }
        self.due_known = true;
        self.due_at = due.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)));
        true
    }

    /// Runs a batch in a transaction of its own. Err: it failed, was logged, and is tried again after a pause.
    fn work(&mut self, work: impl FnOnce(setup::Installed) -> Result<batch::Done>) -> std::result::Result<Outcome, String> {
        bgw::report_activity("working", true);
        let outcome = bgw::transaction(commit_as, || {
            if !catalog::extension_exists() || catalog::usher_relation("installation").is_none() {
                return Ok(Outcome::Gone);
            }
            match setup::installed() {
                Ok(installed) if installed.home => work(installed).map(Outcome::Did),
                // Not set up here (yet): a restore may be running.
                _ => Ok(Outcome::Gone),
            }
        });
        let jobs = match &outcome {
            Ok(Outcome::Did(done)) => u64::try_from(done.jobs).unwrap_or(0),
            _ => 0,
        };
        self.mine.idle(jobs);
        outcome.map_err(|failure| {
            // An error of the whole batch: nothing of it has happened.
            log!("usher worker: a batch failed and is tried again: {}", failure.line());
            bgw::nap(Duration::from_secs(1));
            self.due_known = false;
            failure.line()
        })
    }

    /// Runs something small in a transaction. False: the extension is gone.
    fn attempt(&mut self, work: impl FnOnce(setup::Installed) -> Result<()>) -> bool {
        let outcome = self.work(|installed| {
            work(installed)?;
            Ok(batch::Done::default())
        });
        !matches!(outcome, Ok(Outcome::Gone))
    }

    fn gone(&self) -> bool {
        bgw::report_activity("the extension is not here", false);
        false
    }

    fn rest(&self) {
        bgw::report_activity("waiting for jobs", false);
        let now = Instant::now();
        let mut until = self.tick_at;
        if let Some(due) = self.due_at {
            until = until.min(due);
        }
        if self.mine.has_prepared() {
            until = until.min(self.prepared_at);
        }
        // Due times are compared on PostgreSQL's clock: a little later is surely due.
        bgw::sleep(until.saturating_duration_since(now) + Duration::from_millis(1));
    }
}

/// The role under which a batch commits: one that can do nothing.
fn commit_as(outcome: &Outcome) -> Option<pg_sys::Oid> {
    matches!(outcome, Outcome::Did(done) if done.jobs > 0).then(|| role::by_name("usher_member")).flatten()
}

fn any_prepared() -> bool {
    bgw::transaction(
        |_| None,
        || {
            crate::pg::spi::read::<bool>(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database())",
                &[],
            )
        },
    )
    .is_ok_and(|any| any == Some(true))
}
