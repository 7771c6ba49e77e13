//! SQL functions for notices.

use super::store;
use crate::error::UsherError;
use crate::guard::audit;
use crate::pg::role;
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Marks a notice as read; failures that follow are counted anew and make a notice of their own. True when it was unread.
///
/// Arguments: `notice`, the id in `usher.notices`. For admins of its organization; a notice without one is for operators.
/// Errors: 42501 when there is no such notice for the caller, 22023 for NULL.
#[pg_extern(volatile, parallel_unsafe)]
fn read_notice(notice: Option<Uuid>) -> Result<bool, ErrorReport> {
    let installed = setup::current()?;
    let notice = notice.ok_or_else(|| UsherError::missing("the notice's id"))?;
    let managed = identity::organizations(Right::Manage)?;
    let (operator, actor) = (identity::is_operator(), identity::actor());
    let acting = role::internal(installed.owner);
    let (unread, organization) = store::read(notice, managed, operator, &actor)?.ok_or_else(|| {
        UsherError::forbidden(format!("notice {notice} does not exist, or is not one of yours"))
            .detail(format!("You act as \"{actor}\"."))
            .hint("SELECT id, subject FROM usher.notices shows those that you may read; they are for admins of an organization.")
    })?;
    drop(acting);
    if let Some(organization) = organization {
        audit::note_legend("read_notice", organization)?;
    }
    Ok(unread)
}
