//! Looking at an installation: `usher.status()`, `usher.doctor()`, `usher.shadow_report()`, `usher.queue`,
//! `usher.horizon()`, `usher.metrics()`, `usher.lineage()`, `usher.registry`.
//!
//! Owns no table; reads what the caller may see. Nobody calls this room.

mod doctor;
mod exposition;
mod horizon;
mod limits;
mod lineage;
mod metrics;
mod overview;
mod registry;
mod shadow;
mod status;

use crate::error::{Result, UsherError};
use crate::pg::role;
use crate::registry::identity;

/// True for those who may look at everything: operators and readers.
fn may_look() -> bool {
    identity::has_reader_rights(role::current())
}

fn require_look(what: &str) -> Result<()> {
    if may_look() {
        return Ok(());
    }
    Err(UsherError::forbidden(format!("only operators and readers may {what}"))
        .hint("Ask an administrator for GRANT usher_reader TO your role."))
}
