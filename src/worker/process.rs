//! The loop of one worker process.

use super::batch::Condemned;
use super::prepared::any_prepared;
use super::quarantine::{self, Care};
use super::{batch, checks, drift, gather, maintenance, overlaps, pausing, ripening, schedule, work};
use crate::error::Result;
use crate::flow::apply::Place;
use crate::pg::bgw;
use crate::pg::shmem::{Found, LANES, Mine, NONE, Source};
use crate::pg::subxact::Failure;
use crate::pg::{catalog, counters, crash, guc, relcache, role, xact, zone};
use crate::queue::log::Log;
use crate::queue::{followers, limits, pressure, settle, store};
use crate::settings;
use crate::setup;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How many batches a lane gets before the lanes below it get theirs: none waits for ever.
pub(super) const WEIGHTS: [u32; LANES] = [16, 8, 4, 2, 1];
/// The safety tick: everything is looked at again once a minute even if no session says anything.
const TICK: Duration = Duration::from_secs(60);
/// While prepared transactions of ours are open, their COMMIT PREPARED is found by looking.
const PREPARED_TICK: Duration = Duration::from_secs(1);

/// The floors of the log follow so soon after the work is done, and so often while it goes on.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_BUSY: Duration = Duration::from_secs(10);

/// Jobs that arrived while one batch ran: from here on it is a crowd.
const CROWD: i32 = 8;
/// Short enough that a thousand jobs a second are no crowd: then fewer than that arrive in one pause.
const GATHER: Duration = Duration::from_millis(2);

/// Due jobs that cannot be had are looked at again so soon, and ever later, up to the most.
const LOCKED: Duration = Duration::from_millis(5);
const LOCKED_MOST: Duration = Duration::from_millis(50);

/// Seconds until it is looked again whether there is room for what limits hold back, if nothing tells before.
const HELD: f64 = 1.0;

struct Lane {
    number: usize,
    log: Log,
    /// There may be ready jobs behind the position.
    dirty: bool,
    credit: u32,
    /// After a batch that failed as a whole: smaller ones, down to the job that is to blame.
    most: Option<i32>,
    /// The position of a job that fails its batch also by itself, and why.
    to_blame: Option<(i64, String)>,
}

pub(super) struct Loop {
    pub(super) mine: Mine,
    pub(super) care: Care,
    lanes: Vec<Lane>,
    numbers: Vec<i16>,
    due_at: Option<Instant>,
    due_known: bool,
    /// Due jobs that somebody has locked are not looked at before.
    due_after: Option<Instant>,
    due_pause: Duration,
    /// What expires is looked at from the beginning.
    from_the_start: bool,
    tick_at: Instant,
    prepared_at: Instant,
    /// When to look how far everything is settled; None while nothing has happened since.
    settle_at: Option<Instant>,
    settle_pause: Duration,
    maintains: bool,
    /// How long the last transaction took.
    pub(super) took: Duration,
    /// The last batch was of due jobs: ready ones get their turn first.
    due_had_its_turn: bool,
    /// The one before was a batch that had gathered: other due ones get theirs.
    gathered_had_its_turn: bool,
    clock: schedule::Clock,
    long_work: work::Turns,
    pub(super) pauses: pausing::Turns,
    pub(super) overlaps: overlaps::Turns,
    pub(super) checks: checks::Turns,
    pub(super) drift: drift::Turns,
    /// The last batch of some lane was a full one.
    behind: bool,
}

pub(super) enum Outcome {
    Did(batch::Done),
    /// The extension or its tables are gone: this process ends.
    Gone,
}

#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_worker_main(arg: pg_sys::Datum) {
    bgw::prepare_process();
    let Some(mine) = Mine::arrive(arg.value() as i32) else { return };
    crash::prepare(mine.database(), mine.lanes());
    bgw::connect(mine.database());
    guc::prepare_session();
    bgw::report_activity("starting", false);
    let lanes = mine.lanes();
    let served = (0..LANES).filter(|lane| lanes & (1 << lane) != 0);
    let now = Instant::now();
    let mut state = Loop {
        mine,
        care: Care::Unknown,
        lanes: served
            .map(|number| Lane { number, log: Log::default(), dirty: true, credit: WEIGHTS[number], most: None, to_blame: None })
            .collect(),
        numbers: Vec::new(),
        due_at: None,
        due_known: false,
        due_after: None,
        due_pause: LOCKED,
        from_the_start: true,
        tick_at: now,
        prepared_at: now,
        settle_at: Some(now),
        settle_pause: SETTLE,
        // One process of a database looks after partitions and broken flows: the one that has the normal lane.
        maintains: lanes & (1 << xact::MAINTAINS) != 0,
        took: Duration::ZERO,
        due_had_its_turn: false,
        gathered_had_its_turn: false,
        clock: schedule::Clock::new(),
        long_work: work::Turns::new(),
        pauses: pausing::Turns::new(),
        overlaps: overlaps::Turns::new(),
        checks: checks::Turns::new(),
        drift: drift::Turns::new(),
        behind: false,
    };
    // Transactions that were prepared before this process was there are found by looking.
    if any_prepared() {
        for lane in &state.lanes {
            mine.put_prepared(lane.number, 1);
        }
        mine.put_prepared_due();
    }
    state.numbers = state.lanes.iter().map(|lane| lane.number as i16).collect();
    if state.attempt(|_| crate::flow::store::keep_over_statistics()) || state.gone() {
        while state.turn() {}
    }
}

impl Loop {
    /// One round. False ends the process.
    fn turn(&mut self) -> bool {
        bgw::reset_latch();
        pgrx::check_for_interrupts!();
        bgw::reload_if_asked();
        self.listen();
        let now = Instant::now();
        ripening::renew(now);
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.due_known = false;
            self.clock.forget();
            self.long_work.look_again();
            relcache::forget_pauses();
            gather::forget();
            self.pauses.look_again();
            self.overlaps.look_again();
            self.checks.look_again();
            self.drift.tick();
            self.from_the_start = true;
            for lane in &mut self.lanes {
                lane.dirty = true;
                lane.log.look_at_all();
            }
            self.settle_at = Some(now);
            if self.maintains
                && !(self.attempt(|_| maintenance::partitions())
                    && self.attempt(|_| maintenance::run())
                    && self.attempt(maintenance::erasures)
                    && self.attempt(maintenance::retention))
            {
                return self.gone();
            }
        }
        if !matches!(self.care, Care::None) {
            return quarantine::step(self) || self.gone();
        }
        if !self.due_known {
            return self.look_at_due_times();
        }
        if !gather::known() {
            return self.learn_what_gathers();
        }
        if self.settle_at.is_some_and(|at| now >= at) && !self.settle() {
            return self.gone();
        }
        if self.maintains && self.clock.is_due(now) {
            return self.schedules();
        }
        if self.maintains && self.pauses.is_due(now) {
            return pausing::step(self) || self.gone();
        }
        if self.maintains && self.overlaps.is_due(now) {
            return overlaps::step(self) || self.gone();
        }
        if self.maintains && self.checks.is_due(now) {
            return checks::step(self) || self.gone();
        }
        if self.maintains && self.drift.is_due(now) {
            return drift::step(self) || self.gone();
        }
        let next = self.next_lane();
        let due = self.due_time().is_some_and(|due| now >= due);
        let gathered = gather::closed().filter(|_| !(due && self.gathered_had_its_turn));
        if (due || gathered.is_some()) && !(self.due_had_its_turn && next.is_some()) {
            self.due_had_its_turn = true;
            self.gathered_had_its_turn = gathered.is_some();
            if let Some(key) = gathered {
                return self.gathered(key);
            }
            self.due_at = None;
            return self.due();
        }
        self.due_had_its_turn = false;
        if self.long_work.is_due(now, next.is_none(), self.behind) {
            return self.slice();
        }
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
            // It may be another job, or that one may be free.
            self.due_after = None;
        }
        if self.mine.take_plans_changed() {
            // The mark comes with the commit, what tells caches of it a moment later.
            relcache::forget_pauses();
            self.clock.forget();
            self.long_work.look_again();
            self.pauses.look_again();
            self.drift.look_again();
            gather::forget();
        }
        if self.mine.take_overlaps() {
            self.overlaps.look_again();
            self.checks.look_again();
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
                lane.log.look_back_to(low);
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
        let lane = self.lanes[index].number;
        let most = self.lanes[index].most.unwrap_or(settings::batch_size());
        let mine = self.mine;
        bgw::set_lane(crate::queue::LANES[lane]);
        let mut log = std::mem::take(&mut self.lanes[index].log);
        let to_blame = self.lanes[index].to_blame.take();
        let outcome = self.work(|installed| match &to_blame {
            None => batch::ready(installed, lane, &mut log, most, mine),
            Some((position, reason)) => {
                let condemned = Condemned { reason, sqlstate: "XX000" };
                batch::one(installed, Source::Queue, lane, *position, Some(&condemned), mine)
            }
        });
        self.lanes[index].log = log;
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
                counters::finish(lane, done.jobs, self.took);
                state.credit = state.credit.saturating_sub(1);
                if done.seen > 0 && self.settle_at.is_none() {
                    self.settle_at = Some(Instant::now() + SETTLE_BUSY);
                }
                if to_blame.is_some() {
                    // It was taken out by itself: reading goes on where it was.
                    state.dirty = true;
                } else if done.picked.is_empty() {
                    state.dirty = done.seen >= most;
                    state.log.committed(&done.taken, done.last, state.dirty);
                } else {
                    state.log.committed_share(&done.taken, &done.picked);
                    state.dirty = state.log.behind || !state.log.share.is_empty();
                }
                self.behind = state.dirty;
                self.long_work.batch(lane, done.jobs, state.dirty);
                state.most = state.most.map(|most| most * 2).filter(|most| *most < settings::batch_size());
                // Dependants, followers and what began to wait meanwhile have told us themselves.
                self.due_known = self.due_known && !done.awaited;
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
                } else if !reason.is_outside() {
                    state.to_blame = state.log.alone.map(|position| (position, reason.line()));
                }
                true
            }
        }
    }

    /// Raises the floors of the lanes. False: the extension is gone.
    fn settle(&mut self) -> bool {
        let mut settled = false;
        let mine = self.mine;
        let mut lanes = std::mem::take(&mut self.lanes);
        let there = self.attempt(|installed| {
            settled = batch::settle(installed, lanes.iter_mut().map(|lane| (lane.number, &mut lane.log)), mine)?;
            Ok(())
        });
        self.lanes = lanes;
        // What holds it up may take long: an open transaction, a lane that somebody has. Who has nothing else to do looks
        // ever more seldom.
        let most = if self.lanes.iter().any(|lane| lane.dirty) { SETTLE_BUSY } else { TICK };
        self.settle_pause = if settled { SETTLE } else { (self.settle_pause * 2).min(most) };
        self.settle_at = (!settled).then(|| Instant::now() + self.settle_pause);
        there
    }

    /// Lane by lane, so that one that somebody else has does not stop the others.
    fn due(&mut self) -> bool {
        let most = settings::batch_size();
        let mine = self.mine;
        self.due_known = false;
        let (mut busy, mut jobs) = (false, 0);
        for lane in self.numbers.clone() {
            bgw::set_lane(crate::queue::LANES[lane as usize]);
            match self.work(move |installed| batch::due(installed, &[lane], most, Some(mine))) {
                Ok(Outcome::Gone) => return self.gone(),
                Ok(Outcome::Did(done)) => {
                    counters::finish(lane as usize, done.jobs, self.took);
                    busy |= done.busy;
                    jobs += done.jobs;
                    self.long_work.due_batch(done.jobs);
                }
                Err(_) => {}
            }
        }
        if busy {
            bgw::nap(Duration::from_millis(5));
        }
        // A session has what is due. Ready jobs do not wait for it, nor does what a session tells us.
        self.due_after = (jobs == 0).then(|| Instant::now() + self.due_pause);
        self.due_pause = if jobs == 0 { (self.due_pause * 2).min(LOCKED_MOST) } else { LOCKED };
        true
    }

    /// When due jobs are to be done.
    fn due_time(&self) -> Option<Instant> {
        self.due_at.map(|due| self.due_after.map_or(due, |after| due.max(after)))
    }

    fn learn_what_gathers(&mut self) -> bool {
        let numbers = self.numbers.clone();
        let there = self.attempt(|installed| {
            let _acting = role::internal(installed.owner);
            gather::learn(&numbers)
        });
        there || self.gone()
    }

    /// A batch of jobs that have gathered.
    fn gathered(&mut self, key: crate::queue::gather::Key) -> bool {
        let mine = self.mine;
        bgw::set_lane(crate::queue::LANES[key.lane as usize]);
        match self.work(move |installed| gather::batch(installed, key, Some(mine))) {
            Ok(Outcome::Gone) => return self.gone(),
            Ok(Outcome::Did(done)) => {
                counters::finish(key.lane as usize, done.jobs, self.took);
                self.long_work.due_batch(done.jobs);
                self.due_known = self.due_known && done.jobs == 0;
                if done.busy {
                    bgw::nap(Duration::from_millis(5));
                }
            }
            Err(_) => {}
        }
        true
    }

    /// Jobs of flows whose time has come.
    fn schedules(&mut self) -> bool {
        // After an error it is tried again in a second.
        let mut next = Some(zone::now() + 1);
        let there = self.attempt(|installed| {
            next = schedule::run(installed)?.next;
            Ok(())
        });
        self.clock.set(next);
        there || self.gone()
    }

    /// A part of a backfill, a replay or a migration.
    fn slice(&mut self) -> bool {
        let numbers = self.numbers.clone();
        let (mut made, mut items) = (work::Slice::Later, 0);
        let there = self.attempt(|installed| {
            (made, items) = work::slice(installed, &numbers, Place::Worker)?;
            Ok(())
        });
        self.long_work.done(made, items);
        there || self.gone()
    }

    fn look_at_due_times(&mut self) -> bool {
        let numbers = self.numbers.clone();
        let (mut due, mut looked) = (None, false);
        let all = self.from_the_start;
        let mine = self.mine;
        let mut uncounted = false;
        let mut logs: Vec<Log> = self.lanes.iter_mut().map(|lane| std::mem::take(&mut lane.log)).collect();
        let there = self.attempt(|installed| {
            let _acting = role::internal(installed.owner);
            let mut settled = settle::settle(installed, all)?;
            settled.again = settle::sooner(settled.again, super::workflow::settle(installed)?);
            // A leader that was cancelled, expired, or died, leaves followers behind, and the first of a limit those after it.
            followers::release_followers(&*crate::flow::store::classes()?)?;
            if all || settled.expired {
                limits::heal(installed)?;
            }
            uncounted = pressure::unsure(&numbers)?;
            if all {
                pressure::look_for_held(&numbers)?;
            }
            let mut full = None;
            if pressure::any_held(&numbers)? {
                for (lane, log) in numbers.iter().zip(&mut logs) {
                    if batch::let_go(installed, *lane as usize, log, mine)? {
                        full = Some(HELD);
                    }
                }
            }
            due = settle::sooner(settle::sooner(store::next_due(&numbers)?, settled.again), full);
            due = settle::sooner(due, super::broadcast::look(installed)?);
            looked = true;
            Ok(())
        });
        for (lane, log) in self.lanes.iter_mut().zip(logs) {
            lane.log = log;
        }
        if !there {
            return self.gone();
        }
        if uncounted && self.settle_at.is_none() {
            self.settle_at = Some(Instant::now());
        }
        // After an error it is looked at again: nobody would wake us for it.
        if !looked {
            return true;
        }
        (self.due_known, self.from_the_start) = (true, false);
        self.due_at = due.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)));
        true
    }

    /// Runs a batch in a transaction of its own. Err: it failed, was logged, and is tried again after a pause.
    pub(super) fn work(
        &mut self,
        work: impl FnOnce(setup::Installed) -> Result<batch::Done>,
    ) -> std::result::Result<Outcome, Failure> {
        bgw::report_activity("working", true);
        counters::begin();
        let begun = Instant::now();
        let outcome = bgw::transaction(commit_as, || {
            if !catalog::extension_exists() || catalog::usher_relation("installation").is_none() {
                return Ok(Outcome::Gone);
            }
            match setup::installed() {
                // Nor do tables of another version work with this library: setup() first.
                Ok(installed) if installed.home && installed.up_to_date => work(installed).map(Outcome::Did),
                // Not set up here (yet): a restore may be running.
                _ => Ok(Outcome::Gone),
            }
        });
        let jobs = match &outcome {
            Ok(Outcome::Did(done)) => {
                self.mine.report(Found::Tables);
                u64::try_from(done.jobs).unwrap_or(0)
            }
            _ => 0,
        };
        self.mine.idle(jobs);
        self.took = begun.elapsed();
        outcome.inspect_err(|failure| {
            // An error of the whole batch: nothing of it has happened.
            log!("usher worker: a batch failed and is tried again: {}", failure.line());
            bgw::nap(Duration::from_secs(1));
            self.due_known = false;
            gather::forget();
        })
    }

    /// Runs something small in a transaction. False: the extension is gone.
    pub(super) fn attempt(&mut self, work: impl FnOnce(setup::Installed) -> Result<()>) -> bool {
        let outcome = self.work(|installed| {
            work(installed)?;
            Ok(batch::Done::default())
        });
        !matches!(outcome, Ok(Outcome::Gone))
    }

    fn gone(&self) -> bool {
        self.mine.report(Found::NoTables);
        bgw::report_activity("the extension is not here", false);
        false
    }

    fn rest(&mut self) {
        bgw::report_activity("waiting for jobs", false);
        let now = Instant::now();
        if self.settle_pause == SETTLE {
            self.settle_at = self.settle_at.map(|at| at.min(now + SETTLE));
        }
        let mut until = self.tick_at;
        if let Some(due) = self.due_time() {
            until = until.min(due);
        }
        if let Some(at) = self.settle_at {
            until = until.min(at);
        }
        if self.mine.has_prepared() {
            until = until.min(self.prepared_at);
        }
        if let Some(closes) = gather::next() {
            until = until.min(now + closes);
        }
        let others = [self.clock.wake(), self.pauses.wake(), self.overlaps.wake(), self.checks.wake(), self.drift.wake()];
        until = others.into_iter().flatten().filter(|_| self.maintains).chain(self.long_work.wake()).fold(until, Ord::min);
        // Due times are compared on PostgreSQL's clock: a little later is surely due.
        bgw::sleep(until.saturating_duration_since(now) + Duration::from_millis(1));
    }
}

/// The role under which a batch commits: one that can do nothing.
fn commit_as(outcome: &Outcome) -> Option<pg_sys::Oid> {
    // Upkeep too: retention and erasures write tables of others.
    matches!(outcome, Outcome::Did(_)).then(|| role::by_name("usher_member")).flatten()
}
