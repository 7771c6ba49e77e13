//! Emergency events that somebody has not received in time: told once, at the deadline.

use crate::error::Result;
use crate::event::broadcast;
use crate::notify;
use crate::setup::Installed;
use pgrx::prelude::*;

/// Looks at the deadlines that have passed; returns the seconds until the next. Runs with the owner's rights.
pub fn look(installed: Installed) -> Result<Option<f64>> {
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
