//! Who reads a protected column.
//!
//! A reader is a database role, or `admin` or `legend`: whoever is that by membership, in the organization of the value. Nobody else
//! is: neither operators nor legends where only admins are named. A session that acts for a person, and a flow, reads nothing of
//! organizations that are not theirs, whatever its role; and a flow is nobody's admin, only its role counts.

use super::text::NOBODY;
use crate::error::{Result, UsherError};
use crate::pg::{relcache, role, spi, xact};
use crate::registry::identity;
use crate::setup;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use uuid::Uuid;

pub const ADMIN: &str = "admin";
pub const LEGEND: &str = "legend";

/// The database role that a reader is, if it is one.
pub fn role_of(reader: &str) -> Option<&str> {
    match reader {
        ADMIN | LEGEND => None,
        other => Some(other.strip_prefix("role:").unwrap_or(other)),
    }
}

/// Readers as they are kept: each once, and there is such a role.
pub fn checked(names: Option<Vec<Option<String>>>) -> Result<Vec<String>> {
    let mut readers: Vec<String> = Vec::new();
    for name in names.unwrap_or_default() {
        let name = UsherError::given(name, "a reader's name")?;
        if let Some(named) = role_of(&name)
            && role::by_name(named).is_none()
        {
            return Err(UsherError::not_found(format!("role \"{named}\" does not exist"))
                .hint("Readers are database roles, and admin and legend: people who are that in the organization of the row."));
        }
        if !readers.contains(&name) {
            readers.push(name);
        }
    }
    if readers.is_empty() {
        return Err(UsherError::missing("the list of readers"));
    }
    Ok(readers)
}

#[derive(Default)]
struct Known {
    generation: u64,
    readers: HashMap<Uuid, Option<Rc<Vec<String>>>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// More than these are looked up again.
const MOST: usize = 1_000;

/// The readers of a declaration, also of one that has ended. None: there is no such declaration here.
pub fn named(protection: Uuid) -> Result<Option<Rc<Vec<String>>>> {
    // A reader who was taken off the list reads nothing in the next statement.
    relcache::accept();
    let generation = relcache::schema_generation();
    let found = KNOWN.with_borrow_mut(|known| {
        if known.generation != generation || known.readers.len() > MOST {
            *known = Known { generation, readers: HashMap::new() };
        }
        known.readers.get(&protection).cloned()
    });
    if let Some(found) = found {
        return Ok(found);
    }
    xact::remember_only_now();
    // A restore that has not come to our tables yet: nobody is named.
    let Ok(installed) = setup::current() else { return Ok(None) };
    let _acting = role::internal(installed.owner);
    let readers = spi::read::<Vec<String>>(
        "SELECT p.readers FROM usher.column_protections AS p WHERE p.id = $1",
        &[spi::arg(pgrx::Uuid::from_bytes(*protection.as_bytes()))],
    )?
    .map(Rc::new);
    KNOWN.with_borrow_mut(|known| known.readers.insert(protection, readers.clone()));
    Ok(readers)
}

/// True when the caller reads values of this declaration in this organization.
pub fn may_read(protection: Uuid, organization: Uuid) -> Result<bool> {
    let Some(readers) = named(protection)? else { return Ok(false) };
    let of = pgrx::Uuid::from_bytes(*organization.as_bytes());
    let me = role::current();
    for reader in readers.iter() {
        let reads = match role_of(reader) {
            None if reader == ADMIN => organization != NOBODY && identity::is_admin_member(of)?,
            None => identity::is_legend_member()?,
            Some(name) => {
                has_rights(me, name) && (organization == NOBODY || !identity::acts_for_another() || identity::may_read(of)?)
            }
        };
        if reads {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_rights(who: Oid, name: &str) -> bool {
    role::by_name(name).is_some_and(|named| role::has_rights_of(who, named))
}
