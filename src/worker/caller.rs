//! The loop of one caller process: calls whose work leaves the database, one at a time.
//!
//! A call is two transactions. The first takes a job and commits the lease; the second makes the call as the flow's role,
//! under the flow's timeout, and enters how it ended together with whatever the function has written here. Between the two
//! anything may happen: then the lease is left behind, and the next process that starts gives the job back, one attempt
//! further. So the call is made at least once, and gets the job's id as a key that stays the same.

use super::process::WEIGHTS;
use crate::conflict;
use crate::error::{Result, UsherError};
use crate::event;
use crate::flow::apply::{self, Batch, Causes, Place, Run, Stop};
use crate::flow::cause::{self, Cause};
use crate::flow::store::{self as flows, Flow};
use crate::notify::{self, Tally};
use crate::pg::shmem::{LANES, Mine};
use crate::pg::subxact::Failure;
use crate::pg::{bgw, catalog, guc, role, shmem, spi};
use crate::queue::calls::{self, End, Taken};
use crate::queue::external;
use crate::queue::pauses;
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use std::rc::Rc;
use std::time::Duration;

/// Everything is looked at again once a minute even if nobody says anything.
const TICK: Duration = Duration::from_secs(60);
/// Seconds beyond the flow's timeout that are told as the lease: beginning and recording take a moment.
const MARGIN: f64 = 10.0;

struct Caller {
    mine: Mine,
    /// What leases are taken as.
    name: String,
    /// How many calls a lane gets before the lanes below it get theirs.
    credit: [u32; LANES],
    /// Jobs of processes that are gone were given back.
    settled_in: bool,
}

enum Look {
    /// A call is to be made.
    Call(Box<Taken>, Rc<Flow>),
    /// A job was taken and needs no call.
    Again,
    /// Nothing can be called now; something may be due after this time.
    Rest(Duration),
    /// Nobody needs this process.
    Leave,
}

#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_caller_main(arg: pg_sys::Datum) {
    bgw::prepare_process();
    let Some(mine) = Mine::arrive(arg.value() as i32) else { return };
    bgw::connect(mine.database());
    guc::prepare_session();
    bgw::report_activity("starting", false);
    let mut caller = Caller { mine, name: mine.holder(), credit: WEIGHTS, settled_in: false };
    while caller.turn() {}
    bgw::report_activity("no call is wanted here", false);
}

impl Caller {
    /// One round. False ends the process.
    fn turn(&mut self) -> bool {
        bgw::reset_latch();
        pgrx::check_for_interrupts!();
        bgw::reload_if_asked();
        let looked = bgw::transaction(|_| role::by_name("usher_member"), || self.look());
        match looked {
            Ok(Look::Call(job, flow)) => self.call(&job, &flow),
            Ok(Look::Again) => {}
            Ok(Look::Rest(time)) => {
                bgw::report_activity("waiting for calls", false);
                bgw::sleep(time + Duration::from_millis(1));
            }
            Ok(Look::Leave) => return false,
            Err(failure) => {
                log!("usher caller: no job could be taken, which is tried again: {}", failure.line());
                bgw::nap(Duration::from_secs(1));
            }
        }
        true
    }

    fn look(&mut self) -> Result<Look> {
        let installed = match setup::installed() {
            Ok(installed) if catalog::extension_exists() && installed.home && installed.up_to_date => installed,
            _ => {
                shmem::no_callers();
                return Ok(Look::Leave);
            }
        };
        if external::held(installed)?.is_some() {
            return Ok(Look::Rest(TICK));
        }
        let _acting = role::internal(installed.owner);
        let living = shmem::living_callers();
        if !self.settled_in {
            calls::take_from_the_dead(&living)?;
            self.settled_in = true;
        }
        calls::put_back(&living)?;
        let Some(job) = self.take()? else {
            let due = calls::next_due()?.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 60.0)));
            if due.is_none() && !calls::wanted()? {
                shmem::no_callers();
                return Ok(Look::Leave);
            }
            return Ok(Look::Rest(due.unwrap_or(TICK)));
        };
        self.examine(installed, job)
    }

    /// The first job of the highest lane that has credit. When none has work and credit, a new round begins.
    fn take(&mut self) -> Result<Option<Taken>> {
        for round in 0..2 {
            let lanes: Vec<i16> = (0..LANES).filter(|lane| self.credit[*lane] > 0).map(|lane| lane as i16).collect();
            if let Some(job) = calls::take(&lanes, &self.name)? {
                if let Some(credit) = usize::try_from(job.lane).ok().and_then(|lane| self.credit.get_mut(lane)) {
                    *credit = credit.saturating_sub(1);
                }
                return Ok(Some(job));
            }
            if round == 0 {
                if lanes.len() == LANES {
                    break;
                }
                self.credit = WEIGHTS;
            }
        }
        Ok(None)
    }

    /// What is to be done with a job that was taken.
    fn examine(&self, installed: Installed, mut job: Taken) -> Result<Look> {
        let aside = |job: &Taken, end: End<'_>| -> Result<Look> {
            calls::end(job, end)?;
            Ok(Look::Again)
        };
        let Some(newest) = flows::newest(job.flow)? else { return aside(&job, End::Cancelled("its flow was dropped")) };
        if !newest.enabled {
            return aside(&job, End::Waits("flow disabled"));
        }
        if newest.broken.is_some() {
            return aside(&job, End::Waits("flow broken"));
        }
        if let Some(pause) = pauses::current(installed)?.of_job(&newest, job.organization) {
            calls::put_aside(&job, pause)?;
            pauses::put_calls_aside(installed, &(0..LANES as i16).collect::<Vec<_>>())?;
            return Ok(Look::Again);
        }
        let tries = newest.definition.retry.delays.len() + 1;
        let begun = usize::try_from(job.attempts - 1).unwrap_or(0);
        if begun >= tries {
            let reason =
                format!("the process that made the call ended before it was over, {begun} times: the call may be what ends it");
            let mut tally = Tally::default();
            tally.add(job.flow, job.organization, job.id, &reason);
            calls::end(&job, End::Dead(&reason, "57P02"))?;
            notify::failures(installed, &tally)?;
            return Ok(Look::Again);
        }
        let Some(flow) = flows::get(job.flow, job.version)? else {
            return aside(&job, End::Dead("this version of its flow is gone", "42704"));
        };
        let flow = match flow.program() {
            Ok(_) => flow,
            // A version that no longer fits may have been mended by a newer one. That may need columns which were not stored
            // with the change; a request carries its payload whole.
            Err(_)
                if newest.definition.is_external()
                    && newest.program().is_ok()
                    && newest.compiled.source.is_none()
                    && newest.definition.when.word() == flow.definition.when.word() =>
            {
                newest.clone()
            }
            Err(error) => {
                flows::set_state(job.flow, Some(&error.message))?;
                warning!("flow \"{}\" no longer fits the database and is broken: {}; its jobs wait", flow.name, error.message);
                return aside(&job, End::Waits("flow broken"));
            }
        };
        if !calls::may_pass(installed, &newest, &mut job)? {
            return Ok(Look::Again);
        }
        let limit = flow.definition.limit().unwrap_or(TICK);
        calls::lease_until(&job, limit.as_secs_f64() + MARGIN)?;
        Ok(Look::Call(Box::new(job), flow))
    }

    /// The second transaction. If even that fails as a whole, a third one enters the failure.
    fn call(&mut self, job: &Taken, flow: &Rc<Flow>) {
        bgw::report_activity(&format!("calling {}", flow.name), true);
        let outcome = bgw::transaction(|_| role::by_name("usher_member"), || self.make(job, flow));
        let outcome = outcome.or_else(|failure| {
            bgw::transaction(
                |_| role::by_name("usher_member"),
                || {
                    let installed = setup::installed()?;
                    let _acting = role::internal(installed.owner);
                    if !calls::still_mine(job, &self.name)? {
                        log!("usher caller: job {} of flow \"{}\" was cancelled while its call ran", job.id, flow.name);
                        return calls::not_in_flight(job);
                    }
                    failed(installed, job, flow, &failure)
                },
            )
        });
        if let Err(failure) = outcome {
            // The lease stays: as if this process had ended, which it now does.
            log!("usher caller: how job {} ended could not be entered: {}", job.id, failure.line());
            bgw::nap(Duration::from_secs(1));
            self.settled_in = false;
            self.name = self.mine.renew_holder();
        }
        self.mine.idle(1);
    }

    fn make(&self, job: &Taken, flow: &Rc<Flow>) -> Result<()> {
        let installed = setup::installed()?;
        let mut trail = cause::read_trail(job.trail.as_deref());
        if let Some(key) = job.row_key {
            trail.push(cause::step(job.flow, key)?);
        }
        let cause = Cause { hop: job.hop + 1, job: Some(*job.id.as_bytes()), trail, ..Cause::default() };
        let causes = [(cause, job.organization)];
        let outcome = Spi::connect_mut(|client| {
            let table = spi::query(client, calls::AS_BATCH, &job.arguments())?.first();
            let batch = Batch::read(&table, 1, 1)?;
            let run = Run {
                flow,
                owner: installed.owner,
                batch: &batch,
                causes: Causes::Each(&causes),
                place: Place::Worker,
                emit: event::emit_for_flow,
                tell: conflict::TELL,
            };
            Ok::<_, UsherError>(apply::apply(&run, 1, 1))
        })?;
        let _acting = role::internal(installed.owner);
        if !calls::still_mine(job, &self.name)? {
            return Err(UsherError::state("the job was cancelled while its call ran").hint("Nothing is to be done."));
        }
        match outcome {
            Ok(refused) => match refused.into_iter().next() {
                None => calls::end(job, End::Done),
                Some(refused) => failed(installed, job, flow, &refused.failure),
            },
            Err(Stop::Broken(failure)) => {
                warning!("flow \"{}\" no longer fits the database and is broken: {}; its jobs wait", flow.name, failure.line());
                flows::set_state(flow.id, Some(&failure.line()))?;
                calls::end(job, End::Waits("flow broken"))
            }
        }
    }
}

/// A try that failed: the next one by the flow's rule, or none.
fn failed(installed: Installed, job: &Taken, flow: &Flow, failure: &Failure) -> Result<()> {
    let line = failure.line();
    let mut tally = Tally::default();
    tally.add(job.flow, job.organization, job.id, &line);
    match flow.definition.retry.next(job.attempts, crate::queue::chance()) {
        Some(after) => calls::end(job, End::Later(after, &line))?,
        None => calls::end(job, End::Dead(&line, &failure.sqlstate))?,
    }
    notify::failures(installed, &tally)
}
