//! SQL functions of secrets.

use super::{hidden, store};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::{role, spi};
use crate::registry::identity::{self, Right};
use crate::registry::systems;
use crate::setup::{self, Installed};
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::json;

/// Whose secret it is. An organization's admins manage theirs, operators those of the installation.
fn owner_of(organization: Option<&str>, right: Right) -> Result<(Installed, Option<Uuid>)> {
    let id = match organization {
        Some(named) => Some(identity::organization(named, right)?),
        None => {
            identity::require_operator("manage secrets of the installation")?;
            None
        }
    };
    Ok((setup::current()?, id))
}

fn named(name: Option<&str>) -> Result<&str> {
    let name = name.map(str::trim).filter(|name| !name.is_empty()).ok_or_else(|| UsherError::missing("the secret's name"))?;
    systems::well_formed(name, &['-', '_', '.', '/'], "name of a secret")?;
    Ok(name)
}

/// Roles that exist.
fn readers(names: Option<Vec<Option<String>>>) -> Result<Option<Vec<String>>> {
    let Some(names) = names else { return Ok(None) };
    names
        .into_iter()
        .map(|name| {
            let name = name.ok_or_else(|| UsherError::missing("a reader's name"))?;
            role::by_name(&name).map(|_| name.clone()).ok_or_else(|| {
                UsherError::not_found(format!("role \"{name}\" does not exist"))
                    .hint("Readers are database roles, such as a flow's run_as.")
            })
        })
        .collect::<Result<Vec<_>>>()
        .map(Some)
}

fn entered(installed: Installed, organization: Option<Uuid>, what: &str, name: &str, how: &str) -> Result<()> {
    audit::note(installed, organization, &format!("usher.secrets.{what}"), name, None, Some(json!({"kept": how})))
}

/// Keeps a secret of an organization (NULL: of the installation), sealed under the first key of `usher.key_file`; a second call
/// replaces it. Give the value as a parameter of the statement: what is written into a statement's text may be logged.
///
/// Arguments: `name`, lower-case letters, digits and - _ . /; `value`, at most 64 kB; `readers`, database roles that may read it
/// with `usher.secret()`, kept as they are when NULL.
/// Errors, without the statement in the log: 42501 unless the caller manages the organization, 22023 for a malformed name or an
/// empty value, 42704 for an unknown role, 55000 when there is no usable key.
#[pg_extern(volatile, parallel_unsafe)]
fn set_secret(
    organization: Option<String>,
    name: Option<String>,
    value: Option<String>,
    readers: default!(Option<Vec<Option<String>>>, "NULL"),
) {
    hidden::run(|| {
        let (installed, id) = owner_of(organization.as_deref(), Right::Manage)?;
        let name = named(name.as_deref())?;
        let value = value.map(zeroize::Zeroizing::new).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| UsherError::missing("the secret's value"))?;
        if value.len() > 65_536 {
            return Err(UsherError::invalid("the secret is longer than 64 kB")
                .hint("Keep a key or token here, and what is longer elsewhere."));
        }
        let readers = self::readers(readers)?;
        let by = identity::actor();
        let acting = role::internal(installed.owner);
        store::put(id, name, value.as_bytes(), readers.as_deref(), &by)?;
        drop(acting);
        if let Some(id) = id {
            audit::note_legend("set_secret", id)?;
        }
        entered(installed, id, "set", name, "sealed")
    })
}

/// As `usher.set_secret()`, for a secret that Supabase Vault keeps: it is read there each time.
///
/// Arguments: `vault_id`, of vault.secrets. Errors: 42501 for callers who are no operators, since whoever refers to a secret of
/// Vault can read it; 42704 when Vault has none of that id; 55000 without Vault.
#[pg_extern(volatile, parallel_unsafe)]
fn refer_secret(
    organization: Option<String>,
    name: Option<String>,
    vault_id: Option<Uuid>,
    readers: default!(Option<Vec<Option<String>>>, "NULL"),
) {
    hidden::run(|| {
        identity::require_operator("refer to secrets of Supabase Vault")?;
        let (installed, id) = owner_of(organization.as_deref(), Right::Manage)?;
        let name = named(name.as_deref())?;
        let vault_id = vault_id.ok_or_else(|| UsherError::missing("the secret's id in Vault"))?;
        let readers = self::readers(readers)?;
        let by = identity::actor();
        let acting = role::internal(installed.owner);
        store::refer(id, name, vault_id, readers.as_deref(), &by)?;
        drop(acting);
        entered(installed, id, "set", name, "vault")
    })
}

/// Forgets a secret. Errors: 42501 unless the caller manages the organization, 42704 when there is none of that name.
#[pg_extern(volatile, parallel_unsafe)]
fn delete_secret(organization: Option<String>, name: Option<String>) -> std::result::Result<(), ErrorReport> {
    let (installed, id) = owner_of(organization.as_deref(), Right::Manage)?;
    let name = named(name.as_deref())?;
    let gone = {
        let _acting = role::internal(installed.owner);
        spi::run(
            "DELETE FROM usher.secrets AS s WHERE s.organization_id IS NOT DISTINCT FROM $1 AND s.name = $2",
            &[spi::arg(id), spi::arg(name)],
        )?
    };
    if gone == 0 {
        return Err(UsherError::not_found(format!("there is no secret \"{name}\""))
            .hint("SELECT organization_id, name FROM usher.secrets; lists those you may see.")
            .into());
    }
    if let Some(id) = id {
        audit::note_legend("delete_secret", id)?;
    }
    Ok(entered(installed, id, "deleted", name, "nowhere")?)
}

/// The plain value, for functions that flows call: a role that is one of its readers gets it, within the organization.
///
/// Errors: 42501 alike whether there is no such secret or the caller is none of its readers; 55000 when it cannot be opened.
#[pg_extern(volatile, parallel_unsafe)]
fn secret(organization: Option<String>, name: Option<String>) -> String {
    hidden::run(|| {
        let name = named(name.as_deref())?;
        let refused = || {
            UsherError::forbidden(format!("there is no secret \"{name}\" that you may read"))
                .hint("Its readers are database roles: usher.set_secret(…, readers => '{role}').")
        };
        let installed = setup::current()?;
        let id = organization.as_deref().map(|named| identity::organization(named, Right::Read)).transpose()?;
        let reader = role::current();
        let acting = role::internal(installed.owner);
        let may = |name: &String| role::by_name(name).is_some_and(|named| role::has_rights_of(reader, named));
        let kept = store::find(id, name)?.filter(|kept| kept.readers.iter().any(may)).ok_or_else(refused)?;
        let plain = kept.open(id, name)?;
        drop(acting);
        String::from_utf8(plain.to_vec()).map_err(|_| UsherError::state(format!("secret \"{name}\" is no text")))
    })
}

/// Seals secrets anew that are not under the first key of `usher.key_file`, at most so many in one call: `resealed` and `remaining`.
/// When none remains, the older keys may be taken out of the file. Errors: 42501 for callers who are no operators, 55000 when a
/// key is missing.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn reseal_secrets(
    most: default!(i32, "1000"),
) -> std::result::Result<TableIterator<'static, (name!(resealed, i64), name!(remaining, i64))>, ErrorReport> {
    identity::require_operator("seal secrets anew")?;
    if most < 1 {
        return Err(UsherError::invalid("\"most\" is less than 1")
            .hint("Leave it out, or give how many to seal in this call.")
            .into());
    }
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    Ok(TableIterator::once(store::reseal(most)?))
}
