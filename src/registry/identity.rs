//! For whom a session acts, and what that person may do.
//!
//! Claims only choose, memberships decide. `request.jwt.claims` can be set by anyone in a session of their own, so it
//! counts only when a trusted gateway logged in (`usher.claims_roles`). A database role acts for itself as `role:NAME`.

use crate::error::{Result, UsherError};
use crate::pg::{guc, relcache, role, spi, xact};
use crate::registry::adopt::binding;
use crate::registry::adopt::members::Members;
use crate::settings;
use crate::setup::{self, Installed};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

thread_local! {
    static PEOPLE: RefCell<People> = RefCell::default();
    /// While a flow runs, its statements may call RPCs for the organization of its job, and for no other.
    static FLOW_ORGANIZATION: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
}

/// Until dropped, the session acts for this organization as one of its admins: a flow is at work.
pub struct ForFlow(Option<[u8; 16]>);

pub fn for_flow(organization: Option<pgrx::Uuid>) -> ForFlow {
    ForFlow(FLOW_ORGANIZATION.replace(organization.map(|id| *id.as_bytes())))
}

/// A flow is at work.
pub fn in_flow() -> bool {
    FLOW_ORGANIZATION.get().is_some()
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

/// What says for whom the session acts, apart from the role: cheaper to compare than to work out again.
pub struct Inputs {
    session: pgrx::pg_sys::Oid,
    user: Option<String>,
    /// Claims count in this session, and which these are.
    trusted: bool,
    claims: Option<String>,
}

pub fn inputs() -> Inputs {
    let trusted = trusts_claims();
    Inputs { session: role::session(), user: settings::user_id(), trusted, claims: trusted.then(claims).flatten() }
}

impl Inputs {
    /// Nothing has changed, inside one statement.
    pub fn same(&self) -> bool {
        self.session == role::session() && self.user == settings::user_id() && (!self.trusted || self.claims == claims())
    }
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
    if !trusts_claims() {
        return None;
    }
    claims_subject(&claims()?)
}

/// The person whom claims name; None: nobody.
pub(super) fn claims_subject(text: &str) -> Option<String> {
    let claims = serde_json::from_str::<serde_json::Value>(text).ok()?;
    // A token must not pass for a database role. Behind a NUL PostgreSQL would store the rest and show it to nobody: what is entered
    // into the audit log would look like another person's act.
    claims.get("sub")?.as_str().filter(|sub| !sub.starts_with("role:") && !sub.contains('\0')).map(str::to_owned)
}

/// A gateway has logged in whose claims count.
fn trusts_claims() -> bool {
    settings::claims_roles().iter().any(|name| role::by_name(name) == Some(role::session()))
}

fn claims() -> Option<String> {
    guc::custom(c"request.jwt.claims")
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
    let own = own(installed, &user)?;
    if everywhere || own.legend {
        let _acting = role::internal(installed.owner);
        let all = spi::read::<Vec<pgrx::Uuid>>("SELECT pg_catalog.array_agg(o.id) FROM usher.organizations AS o", &[])?;
        return Ok(all.unwrap_or_default());
    }
    let mut ids = own.with(right).to_vec();
    if let Some(adopted) = adopted(installed)? {
        let _acting = role::internal(installed.owner);
        ids.extend(adopted.organizations(&user, right)?);
        ids.sort_unstable();
        ids.dedup();
    }
    Ok(ids)
}

fn adopted(installed: Installed) -> Result<Option<Rc<Members>>> {
    binding::held(installed, binding::members, |adopted| &adopted.table)
}

/// What `usher.memberships` says of a person.
struct Own {
    legend: bool,
    manages: Vec<pgrx::Uuid>,
    reads: Vec<pgrx::Uuid>,
}

impl Own {
    fn with(&self, right: Right) -> &[pgrx::Uuid] {
        if right == Right::Manage { &self.manages } else { &self.reads }
    }
}

/// Known until somebody commits a change of the table, whose trigger tells every session.
#[derive(Default)]
struct People {
    generation: (u64, u64),
    known: HashMap<String, Rc<Own>>,
}

/// More than these are looked up again: a pooler's session serves many.
const MOST_PEOPLE: usize = 1_000;

fn own(installed: Installed, user: &str) -> Result<Rc<Own>> {
    // Also in the middle of a transaction a right that was taken is gone in the next statement.
    relcache::accept();
    let generation = relcache::generations();
    let found = PEOPLE.with_borrow_mut(|people| {
        if people.generation != generation || people.known.len() > MOST_PEOPLE {
            *people = People { generation, known: HashMap::new() };
        }
        people.known.get(user).cloned()
    });
    if let Some(found) = found {
        return Ok(found);
    }
    xact::remember_only_now();
    let _acting = role::internal(installed.owner);
    let rows = spi::read_all(
        "SELECT COALESCE(pg_catalog.bool_or(m.role = 'legend'), false), pg_catalog.array_agg(m.organization_id) FILTER (WHERE m.role = 'admin'),
                pg_catalog.array_agg(m.organization_id)
           FROM usher.memberships AS m WHERE m.user_id = $1",
        &[spi::arg(user)],
        |row| {
            let ids = |column| Ok::<_, UsherError>(row.get::<Vec<pgrx::Uuid>>(column)?.unwrap_or_default());
            Ok(Own { legend: row.get::<bool>(1)?.unwrap_or(false), manages: ids(2)?, reads: ids(3)? })
        },
    )?;
    let own = Rc::new(rows.into_iter().next().ok_or_else(|| UsherError::internal("an aggregate gave no row"))?);
    // Tables of an older version have no trigger that would tell.
    if installed.up_to_date {
        PEOPLE.with_borrow_mut(|people| people.known.insert(user.to_owned(), own.clone()));
    }
    Ok(own)
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
    let own = own(installed, &user)?;
    if own.with(right).contains(&organization) {
        return Ok(true);
    }
    if let Some(adopted) = adopted(installed)? {
        let _acting = role::internal(installed.owner);
        if adopted.has(&user, organization, right)? {
            return Ok(true);
        }
    }
    Ok(own.legend)
}

/// The people who have a right in an organization by membership, ours or the application's.
pub fn people(installed: Installed, organization: pgrx::Uuid, right: Right) -> Result<Vec<String>> {
    let _acting = role::internal(installed.owner);
    let mut people = spi::read::<Vec<String>>(
        "SELECT pg_catalog.array_agg(m.user_id) FROM usher.memberships AS m WHERE m.organization_id = $1 AND ($2 OR m.role = 'admin')",
        &[spi::arg(organization), spi::arg(right == Right::Read)],
    )?
    .unwrap_or_default();
    if let Some(adopted) = adopted(installed)? {
        people.extend(adopted.people(organization, right)?);
    }
    Ok(people)
}

/// Whether the session acts for a person or a flow, not for a database role itself.
pub fn acts_for_another() -> bool {
    in_flow() || user().is_some()
}

/// True when whoever the session acts for may read what is the organization's.
pub fn may_read(organization: pgrx::Uuid) -> Result<bool> {
    may(setup::installed()?, organization, Right::Read)
}

/// True when whoever the session acts for may change what is the organization's.
pub fn manages(organization: pgrx::Uuid) -> Result<bool> {
    may(setup::installed()?, organization, Right::Manage)
}

/// True when a right to manage the organization is there because the person is a legend, and for no other reason.
pub fn is_legend_elsewhere(organization: pgrx::Uuid) -> Result<bool> {
    Ok(!is_operator() && is_legend_member()? && !is_admin_member(organization)?)
}

/// True for an admin of the organization by membership: not by being an operator or a legend, nor by being a flow.
pub fn is_admin_member(organization: pgrx::Uuid) -> Result<bool> {
    if in_flow() {
        return Ok(false);
    }
    let installed = setup::installed()?;
    let user = actor();
    if own(installed, &user)?.manages.contains(&organization) {
        return Ok(true);
    }
    let Some(adopted) = adopted(installed)? else { return Ok(false) };
    let _acting = role::internal(installed.owner);
    adopted.has(&user, organization, Right::Manage)
}

/// The organizations of which the caller is an admin by membership.
pub fn admin_memberships() -> Result<Vec<pgrx::Uuid>> {
    if in_flow() {
        return Ok(Vec::new());
    }
    let installed = setup::installed()?;
    let user = actor();
    let mut ids = own(installed, &user)?.manages.clone();
    if let Some(adopted) = adopted(installed)? {
        let _acting = role::internal(installed.owner);
        ids.extend(adopted.organizations(&user, Right::Manage)?);
    }
    Ok(ids)
}

/// True for a legend by membership: not by being an operator, nor by being a flow.
pub fn is_legend_member() -> Result<bool> {
    if in_flow() {
        return Ok(false);
    }
    Ok(own(setup::installed()?, &actor())?.legend)
}

/// True when the caller may do everything everywhere.
pub fn is_legend() -> Result<bool> {
    let installed = setup::installed()?;
    if is_operator() {
        return Ok(true);
    }
    Ok(own(installed, &actor())?.legend)
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

#[cfg(test)]
mod unit {
    use super::claims_subject;

    #[test]
    fn claims_name_a_person_or_nobody() {
        assert_eq!(claims_subject(r#"{"sub": "anna", "role": "x"}"#).as_deref(), Some("anna"));
        for nobody in [r#"{"sub": "role:anna"}"#, r#"{"sub": "anna\u0000x"}"#, r#"{"sub": 7}"#, "{}", "[]", "", "anna"] {
            assert_eq!(claims_subject(nobody), None, "{nobody}");
        }
    }
}
