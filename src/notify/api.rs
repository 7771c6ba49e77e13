//! SQL functions for notices.

use super::inbox::{self, Message};
use super::store;
use crate::error::UsherError;
use crate::guard::audit;
use crate::pg::role;
use crate::rates;
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

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

/// Tells people something: a row in `usher.notifications` for each of them, which they read where they are signed in.
///
/// Arguments: `organization` (slug or id); `recipients`: ids of people, as `usher.actor()` names them, or the groups `admins` and `members` of the
/// organization; `title`; `kind`, what it is about; `severity` (info, warning, critical); `body` (object); `key`: the same key reaches a person once.
/// Returns how many were told. For admins of the organization, and for its flows.
/// Errors: 42501 unless the caller is an admin of the organization, 22023 for an empty or malformed argument.
#[pg_extern(volatile, parallel_unsafe)]
fn notify(
    organization: Option<String>,
    recipients: Option<Vec<Option<String>>>,
    title: Option<String>,
    kind: default!(Option<String>, "'notice'"),
    severity: default!(Option<String>, "'info'"),
    body: default!(Option<JsonB>, "'{}'"),
    key: default!(Option<String>, "NULL"),
) -> Result<i32, ErrorReport> {
    let installed = setup::current()?;
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    audit::note_legend("notify", organization)?;
    rates::take("notify", Some(organization))?;
    let message = Message {
        title: UsherError::given(title, "the title")?,
        kind: kind.unwrap_or_else(|| "notice".to_owned()),
        severity: severity.unwrap_or_else(|| "info".to_owned()),
        body: body.unwrap_or_else(|| JsonB(serde_json::json!({}))),
        key,
    };
    let message = message.checked()?;
    let people = inbox::people(installed, organization, &recipients.unwrap_or_default())?;
    let _acting = role::internal(installed.owner);
    Ok(inbox::tell(organization, people, message)?)
}

/// What was told to one name is from now on another's: a guest was told under the number of a ticket's holder, and has signed in since. What the
/// other has been told already, by the same key, is not there twice. Returns how many have moved.
///
/// Arguments: `organization` (slug or id); `recipient`, whose they are; `becomes`, whose they will be. For flows and operators: nobody else
/// reaches into people's inboxes. Errors: 42501 for all others, 22023 for an empty argument.
#[pg_extern(volatile, parallel_unsafe)]
fn forward_notifications(
    organization: Option<String>,
    recipient: Option<String>,
    becomes: Option<String>,
) -> Result<i64, ErrorReport> {
    let installed = setup::current()?;
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    if !identity::in_flow() && !identity::is_operator() {
        return Err(UsherError::forbidden("only flows and operators may hand on what people were told")
            .hint("Ask an operator, or have a flow call it.")
            .into());
    }
    let recipient = UsherError::given(recipient, "the recipient")?;
    let becomes = UsherError::given(becomes, "the new recipient")?;
    let _acting = role::internal(installed.owner);
    Ok(inbox::forward(organization, &recipient, &becomes)?)
}

/// Marks the caller's own notifications as read: those with these ids, or all of them. Returns how many were unread.
///
/// Arguments: `notifications`, ids in `usher.notifications`; those that are not the caller's are passed over. Errors: none of its own.
#[pg_extern(volatile, parallel_unsafe)]
fn read_notifications(notifications: default!(Option<Vec<Uuid>>, "NULL")) -> Result<i64, ErrorReport> {
    let installed = setup::current()?;
    let person = identity::actor();
    let _acting = role::internal(installed.owner);
    Ok(inbox::read(&person, notifications)?)
}
