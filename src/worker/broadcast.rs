//! Emergency events that somebody has not received in time: told once, at the deadline.

use crate::error::Result;
use crate::event::broadcast;
use crate::notify;
use crate::pg::{catalog, subxact};
use crate::setup::Installed;
use pgrx::prelude::*;

/// Seconds until it is tried again.
const AGAIN: f64 = 1.0;

/// Looks at the deadlines that have passed; returns the seconds until the next. Runs with the owner's rights.
pub fn look(installed: Installed) -> Result<Option<f64>> {
    if !installed.up_to_date || catalog::is_unused("broadcasts") {
        return Ok(None);
    }
    // Whatever is in the way of telling it, jobs go on.
    subxact::attempt(|| tell(installed)).or_else(|failure| {
        log!("usher worker: who has not received an emergency could not be told, and is tried again: {}", failure.line());
        Ok(Some(AGAIN))
    })
}

fn tell(installed: Installed) -> Result<Option<f64>> {
    let looked = broadcast::look(installed)?;
    for one in &looked.unreceived {
        log!(
            "usher: event {} ({}) of organization {} was not received in time by {} listeners",
            one.event,
            one.event_type,
            one.organization,
            one.missing.len()
        );
    }
    notify::unreceived(&looked.unreceived)?;
    Ok(looked.again)
}
