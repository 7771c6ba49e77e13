//! Runs of workflows hear what has become of their jobs, in the transaction of the batch.

use super::group::Work;
use crate::error::Result;
use crate::flow::definition::{Then, When};
use crate::flow::steps::Part;
use crate::flow::store as flows;
use crate::pg::{catalog, subxact};
use crate::setup::Installed;
use crate::workflow;
use pgrx::prelude::*;

/// What has not been given back is done.
pub(super) fn tell(work: &Work) -> Result<()> {
    let batch = &work.group.batch;
    for (first, last, version, hop) in &work.begun {
        let numbers: Vec<i32> = (*first..=*last).filter(|n| !work.gone.contains(n)).collect();
        workflow::started(work.id, *version, work.group.lane, hop + 1, batch, &work.group.trails, numbers)?;
    }
    let Some(flow) = flows::newest(work.id)? else { return Ok(()) };
    let but = || work.back.iter().map(|back| back.n).collect::<Vec<i32>>();
    if matches!(flow.definition.when, When::Step(_)) {
        workflow::done(batch, but())?;
        // Those that died were noted where they were buried.
        if work.back.iter().any(|back| back.waiting_for.is_none()) {
            workflow::settle()?;
        }
    } else if matches!(flow.definition.then, Then::Collect(Part::Hear)) {
        workflow::heard(work.id, batch, but())?;
    }
    Ok(())
}

/// Seconds until it is looked again whether a run can be had that somebody has, who may keep it for long.
const HELD: f64 = 0.1;
/// The same after an error.
const FAILED: f64 = 1.0;

/// Runs are told what others have ended. Returns the seconds until the next look, if there is something left.
pub(super) fn settle(installed: Installed) -> Result<Option<f64>> {
    // The table is an empty file for whom it does not concern.
    if !installed.up_to_date || catalog::is_unused("workflow_checks") {
        return Ok(None);
    }
    // Whatever is wrong with one run, the worker has other things to do.
    Ok(match subxact::attempt(workflow::settle) {
        Ok(left) => left.then_some(HELD),
        Err(failure) => {
            log!(
                "usher worker: what has become of steps could not be told to their runs, and is tried again: {}",
                failure.line()
            );
            Some(FAILED)
        }
    })
}
