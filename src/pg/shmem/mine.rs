//! A worker's own slot: its arrival, the marks that it takes, what it is busy with, and its end.

use super::{Found, NONE, SLOTS, Slot, Source, holder, invitation, my_latch, slots, wake_launcher};
use crate::pg::{crash, ids};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::sync::atomic::Ordering::SeqCst;

/// A worker's own slot.
#[derive(Clone, Copy)]
pub struct Mine(usize);

impl Mine {
    /// From here on sessions wake this process. Old marks do not matter: the worker reads everything first.
    /// None: the slot was given to another process meanwhile.
    pub fn arrive(invited: i32) -> Option<Self> {
        let index = usize::try_from(invited & 0xff).ok().filter(|index| *index < SLOTS)?;
        if invitation(index) != invited || slots()[index].database.load(SeqCst) == 0 {
            return None;
        }
        let slot = &slots()[index];
        slot.since.store(ids::clock(), SeqCst);
        slot.pid.store(std::process::id() as i32, SeqCst);
        slot.jobs.store(0, SeqCst);
        slot.batches.store(0, SeqCst);
        slot.latch.store(my_latch(), SeqCst);
        // SAFETY: the callback only clears atomics of this slot; it runs once, when this process ends.
        unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(index)) }
        Some(Self(index))
    }

    fn slot(self) -> &'static Slot {
        &slots()[self.0]
    }

    pub fn database(self) -> u32 {
        self.slot().database.load(SeqCst)
    }

    pub fn lanes(self) -> u32 {
        self.slot().lanes.load(SeqCst)
    }

    /// The name under which this process holds leases.
    pub fn holder(self) -> String {
        holder(self.slot())
    }

    /// From here on this process is another: leases that it has left behind are those of one that is gone.
    pub fn renew_holder(self) -> String {
        self.slot().since.store(ids::clock(), SeqCst);
        self.holder()
    }

    /// Earlier processes with these lanes ended inside a batch.
    pub fn careful(self) -> bool {
        self.slot().careful.load(SeqCst)
    }

    /// Tells the launcher whether there is anything for a worker here.
    pub fn report(self, found: Found) {
        if self.slot().found.swap(found as i32, SeqCst) != found as i32 {
            wake_launcher();
        }
    }

    pub fn take_low(self, lane: usize) -> i64 {
        self.slot().low[lane].swap(NONE, SeqCst)
    }

    pub fn take_prepared(self, lane: usize) -> i64 {
        self.slot().prepared[lane].swap(NONE, SeqCst)
    }

    /// Gives a mark back that was taken.
    pub fn put_low(self, lane: usize, position: i64) {
        self.slot().low[lane].fetch_min(position, SeqCst);
    }

    /// The lowest position of transactions that were prepared and may not have ended.
    pub fn prepared_low(self, lane: usize) -> i64 {
        self.slot().prepared[lane].load(SeqCst)
    }

    pub fn take_stale(self, lane: usize) -> bool {
        self.slot().stale[lane].swap(false, SeqCst)
    }

    pub fn has_prepared(self) -> bool {
        self.slot().prepared_due.load(SeqCst) || self.slot().prepared.iter().any(|mark| mark.load(SeqCst) != NONE)
    }

    pub fn take_prepared_due(self) -> bool {
        self.slot().prepared_due.swap(false, SeqCst)
    }

    pub fn put_prepared_due(self) {
        self.slot().prepared_due.store(true, SeqCst);
    }

    pub fn put_prepared(self, lane: usize, position: i64) {
        self.slot().prepared[lane].fetch_min(position, SeqCst);
    }

    pub fn take_due_changed(self) -> bool {
        self.slot().due_changed.swap(false, SeqCst)
    }

    pub fn take_plans_changed(self) -> bool {
        self.slot().plans_changed.swap(false, SeqCst)
    }

    pub fn take_overlaps(self) -> bool {
        self.slot().overlaps.swap(false, SeqCst)
    }

    pub fn busy(self, source: Source, lane: usize, from: i64, to: i64) {
        let slot = self.slot();
        slot.busy_lane.store(lane as i32, SeqCst);
        slot.busy_from.store(from, SeqCst);
        slot.busy_to.store(to, SeqCst);
        slot.busy_kind.store(source as i32, SeqCst);
    }

    pub fn idle(self, jobs: u64) {
        let slot = self.slot();
        slot.busy_kind.store(0, SeqCst);
        if jobs > 0 {
            slot.jobs.fetch_add(jobs, SeqCst);
            slot.batches.fetch_add(1, SeqCst);
            slot.last_batch_at.store(ids::clock(), SeqCst);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, arg: pg_sys::Datum) {
    crash::leave();
    let slot = &slots()[arg.value()];
    // A launcher that did not wait for us has given it to another process.
    if slot.pid.load(SeqCst) != std::process::id() as i32 {
        return;
    }
    slot.ended_inside.store(slot.busy_kind.load(SeqCst) != 0, SeqCst);
    slot.latch.store(0, SeqCst);
    slot.busy_kind.store(0, SeqCst);
    slot.pid.store(0, SeqCst);
}
