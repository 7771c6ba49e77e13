//! For whom a session acts, and what that person may do.
//!
//! Claims only choose, memberships decide. `request.jwt.claims` can be set by anyone in a session of their own, so it
//! counts only when a trusted gateway logged in (`usher.claims_roles`). A database role acts for itself as `role:NAME`.

use crate::error::{Result, UsherError};
use crate::pg::{guc, role, spi};
use crate::settings;
use crate::setup::{self, Installed};
use std::cell::Cell;

thread_local! {
    /// While a flow runs, its statements may call RPCs for the organization of its job, and for no other.
    static FLOW_ORGANIZATION: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
}

/// Until dropped, the session acts for this organization as one of its admins: a flow is at work.
pub struct ForFlow(Option<[u8; 16]>);

pub fn for_flow(organization: Option<pgrx::Uuid>) -> ForFlow {
    ForFlow(FLOW_ORGANIZATION.replace(organization.map(|id| *id.as_bytes())))
}

impl Drop for ForFlow {
    fn drop(&mut self) {
        FLOW_ORGANIZATION.set(self.0);
    }
}

/// The user of this session: a JWT's `sub`, the user that a trusted pooler set, or `role:NAME`.
pub fn actor() -> String {
    user().unwrap_or_else(|| named(role::current()))
}

/// Whose statement this is: as [`actor`], also where our own code or a SECURITY DEFINER function acts as another role.
pub fn author() -> String {
    user().unwrap_or_else(|| named(role::outer()))
}

fn named(role: pgrx::pg_sys::Oid) -> String {
    format!("role:{}", role::name_of(role).unwrap_or_default())
}

/// The person for whom a trusted pooler or gateway has opened this session.
fn user() -> Option<String> {
    if let Some(user) = settings::user_id() {
        return Some(user);
    }
    let trusted = settings::claims_roles().iter().any(|name| role::by_name(name) == Some(role::session()));
    if !trusted {
        return None;
    }
    let claims = serde_json::from_str::<serde_json::Value>(&guc::custom(c"request.jwt.claims")?).ok()?;
    // A token must not pass for a database role.
    claims.get("sub")?.as_str().filter(|sub| !sub.starts_with("role:")).map(str::to_owned)
}

/// True for superusers and members of `usher_operator`: they run the installation.
pub fn is_operator() -> bool {
    has_operator_rights(role::current())
}

pub fn has_operator_rights(who: pgrx::pg_sys::Oid) -> bool {
    role::is_superuser(who) || role::by_name("usher_operator").is_some_and(|operator| role::has_rights_of(who, operator))
}

/// True for those who may see all of the installation: operators and members of `usher_reader`.
pub fn has_reader_rights(who: pgrx::pg_sys::Oid) -> bool {
    has_operator_rights(who) || role::by_name("usher_reader").is_some_and(|reader| role::has_rights_of(who, reader))
}

/// Refuses callers who do not run the installation.
pub fn require_operator(what: &str) -> Result<Installed> {
    if !is_operator() {
        return Err(UsherError::forbidden(format!("only operators may {what}"))
            .hint("Ask an administrator for GRANT usher_operator TO your role."));
    }
    setup::installed()
}

/// What a caller may do in an organization.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    Read,
    Manage,
}

/// The organizations in which the caller has the right.
pub fn organizations(right: Right) -> Result<Vec<pgrx::Uuid>> {
    let installed = setup::installed()?;
    if let Some(id) = FLOW_ORGANIZATION.get() {
        return Ok(vec![pgrx::Uuid::from_bytes(id)]);
    }
    let everywhere = is_operator();
    let user = actor();
    let _acting = role::internal(installed.owner);
    let ids = spi::read::<Vec<pgrx::Uuid>>(
        "SELECT pg_catalog.array_agg(o.id) FROM usher.organizations o
          WHERE $1
             OR EXISTS (SELECT FROM usher.memberships m WHERE m.user_id = $2 AND m.role = 'legend')
             OR EXISTS (SELECT FROM usher.memberships m WHERE m.user_id = $2 AND m.organization_id = o.id
                           AND ($3 OR m.role = 'admin'))",
        &[spi::arg(everywhere), spi::arg(user.as_str()), spi::arg(right == Right::Read)],
    )?;
    Ok(ids.unwrap_or_default())
}

/// True when the caller has the right in one organization, which exists. The others are not looked at.
fn may(installed: Installed, organization: pgrx::Uuid, right: Right) -> Result<bool> {
    if let Some(id) = FLOW_ORGANIZATION.get() {
        return Ok(organization.as_bytes() == &id);
    }
    if is_operator() {
        return Ok(true);
    }
    let user = actor();
    let _acting = role::internal(installed.owner);
    Ok(spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.memberships m
                         WHERE m.user_id = $1 AND (m.role = 'legend' OR m.organization_id = $2 AND ($3 OR m.role = 'admin')))",
        &[spi::arg(user.as_str()), spi::arg(organization), spi::arg(right == Right::Read)],
    )?
    .unwrap_or(false))
}

/// True when the caller may do everything everywhere.
pub fn is_legend() -> Result<bool> {
    let installed = setup::installed()?;
    if is_operator() {
        return Ok(true);
    }
    let user = actor();
    let _acting = role::internal(installed.owner);
    Ok(spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.memberships WHERE user_id = $1 AND role = 'legend')",
        &[spi::arg(user.as_str())],
    )?
    .unwrap_or(false))
}

/// The organization named by slug or id, for a caller who has the right in it. Whether another organization exists is
/// not told: unknown and foreign are refused alike.
pub fn organization(named: &str, right: Right) -> Result<pgrx::Uuid> {
    let installed = setup::installed()?;
    let found = {
        let _acting = role::internal(installed.owner);
        match uuid::Uuid::parse_str(named) {
            Ok(id) => spi::read::<pgrx::Uuid>(
                "SELECT id FROM usher.organizations WHERE id = $1",
                &[spi::arg(pgrx::Uuid::from_bytes(*id.as_bytes()))],
            )?,
            Err(_) => spi::read::<pgrx::Uuid>("SELECT id FROM usher.organizations WHERE slug = $1", &[spi::arg(named)])?,
        }
    };
    if let Some(id) = found {
        if may(installed, id, right)? {
            return Ok(id);
        }
        if right == Right::Manage && may(installed, id, Right::Read)? {
            return Err(UsherError::forbidden(format!("members of organization \"{named}\" may read, not change"))
                .detail(format!("You act as \"{}\".", actor()))
                .hint("Ask an admin of the organization to do it, or to make you an admin with usher.grant_membership()."));
        }
    }
    let refusal = UsherError::forbidden(format!("you are not a member of organization \"{named}\""))
        .detail(format!("You act as \"{}\".", actor()));
    Err(if is_operator() {
        UsherError::not_found(format!("organization \"{named}\" does not exist"))
            .hint("SELECT slug FROM usher.organizations shows those that do; usher.create_organization() makes one.")
    } else {
        refusal.hint("Check the spelling, or ask one of its admins for usher.grant_membership(organization, your user id).")
    })
}
