//! Workers as people see them.

use super::{is_caller, slots};
use std::sync::atomic::Ordering::SeqCst;

/// A worker as the status screen shows it.
pub struct WorkerState {
    pub pid: i32,
    pub lanes: u32,
    pub listening: bool,
    pub jobs: u64,
    pub batches: u64,
    pub busy: bool,
}

/// The workers of this database.
pub fn workers() -> Vec<WorkerState> {
    states(false)
}

/// The callers of this database.
pub fn callers() -> Vec<WorkerState> {
    states(true)
}

fn states(callers: bool) -> Vec<WorkerState> {
    let database = crate::pg::ids::database();
    slots()
        .iter()
        .filter(|slot| slot.database.load(SeqCst) == database && is_caller(slot.lanes.load(SeqCst)) == callers)
        .map(|slot| WorkerState {
            pid: slot.pid.load(SeqCst),
            lanes: slot.lanes.load(SeqCst),
            listening: slot.latch.load(SeqCst) != 0,
            jobs: slot.jobs.load(SeqCst),
            batches: slot.batches.load(SeqCst),
            busy: slot.busy_kind.load(SeqCst) != 0,
        })
        .collect()
}
