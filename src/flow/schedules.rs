//! Flows that a clock starts, as the tables have them.

use super::definition::When;
use super::schedule::{self, Schedule};
use super::store::{self, Flow};
use crate::error::Result;
use crate::pg::{spi, zone};
use crate::registry::zones;
use pgrx::Uuid;
use std::rc::Rc;

impl schedule::Zone for zone::Zone {
    fn offset(&self, at: i64) -> i64 {
        zone::Zone::offset(*self, at)
    }
}

/// Refuses a schedule in a zone that does not exist.
pub fn check_zone(schedule: &Schedule) -> Result<()> {
    match &schedule.timezone {
        Some(name) => zones::named(name).map(|_| ()),
        None => Ok(()),
    }
}

/// A flow that is on and has a schedule.
pub struct Planned {
    pub flow: Rc<Flow>,
    /// When this version was made, in seconds since 1970.
    pub since: i64,
}

impl Planned {
    pub fn schedule(&self) -> Option<&Schedule> {
        match &self.flow.definition.when {
            When::Schedule(schedule) => Some(schedule),
            _ => None,
        }
    }

    /// The one organization that it is for; None: every one.
    pub fn organization(&self) -> Option<Uuid> {
        let text = self.flow.compiled.organization.as_deref()?;
        let id = uuid::Uuid::parse_str(text.split('\'').nth(1)?).ok()?;
        Some(Uuid::from_bytes(*id.as_bytes()))
    }
}

/// The flows that are due at times. Runs with the owner's rights.
pub fn planned() -> Result<Vec<Planned>> {
    let found = spi::read_all(
        "SELECT f.id, f.version, pg_catalog.floor(EXTRACT(epoch FROM v.created_at))::bigint
           FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version
          WHERE f.enabled AND f.state = 'ok' AND f.definition -> 'when' ? 'schedule' ORDER BY f.id",
        &[],
        |row| {
            Ok((
                row.get::<i32>(1)?.unwrap_or_default(),
                row.get::<i32>(2)?.unwrap_or_default(),
                row.get::<i64>(3)?.unwrap_or_default(),
            ))
        },
    )?;
    let mut planned = Vec::with_capacity(found.len());
    for (id, version, since) in found {
        // By its version: word of a change may come before the caches hear of it.
        planned.extend(store::get(id, version)?.map(|flow| Planned { flow, since }));
    }
    Ok(planned)
}
