//! Keeping secrets and finding them.

use super::keys;
use super::sealing::{self, Key, Place, Purpose};
use crate::error::{Result, UsherError};
use crate::pg::{role, spi};
use pgrx::Uuid;
use zeroize::Zeroizing;

/// A secret's plain value.
pub type Plain = Zeroizing<Vec<u8>>;

fn place<'a>(organization: Option<Uuid>, name: &'a str) -> Place<'a> {
    Place { purpose: Purpose::Secret, organization: organization.map(|id| *id.as_bytes()), name }
}

/// Seals a value under the first key. Runs with the owner's rights.
pub fn put(organization: Option<Uuid>, name: &str, value: &[u8], readers: Option<&[String]>, by: &str) -> Result<()> {
    let keys = keys::read()?;
    let key = keys.first().ok_or_else(|| UsherError::internal("the list of keys is empty"))?;
    let sealed = sealing::seal(key, &place(organization, name), value)?;
    write(organization, name, Some((key.id.as_str(), sealed)), None, readers, by)
}

/// Remembers where Supabase Vault keeps it. Runs with the owner's rights.
pub fn refer(organization: Option<Uuid>, name: &str, vault_id: Uuid, readers: Option<&[String]>, by: &str) -> Result<()> {
    // Whoever sets it sees at once whether it can be read.
    drop(from_vault(vault_id)?);
    write(organization, name, None, Some(vault_id), readers, by)
}

fn write(
    organization: Option<Uuid>,
    name: &str,
    sealed: Option<(&str, Vec<u8>)>,
    vault_id: Option<Uuid>,
    readers: Option<&[String]>,
    by: &str,
) -> Result<()> {
    let (key_id, sealed) = sealed.map_or((None, None), |(key_id, sealed)| (Some(key_id), Some(sealed)));
    spi::run(
        "INSERT INTO usher.secrets AS s (organization_id, name, key_id, sealed, vault_id, readers, changed_by)
         VALUES ($1, $2, $3, $4, $5, COALESCE($6, '{}'), $7)
         ON CONFLICT ON CONSTRAINT secrets_key
         DO UPDATE SET key_id = EXCLUDED.key_id, sealed = EXCLUDED.sealed, vault_id = EXCLUDED.vault_id, readers = COALESCE($6, s.readers),
                       changed_at = pg_catalog.now(), changed_by = EXCLUDED.changed_by",
        &[
            spi::arg(organization),
            spi::arg(name),
            spi::arg(key_id),
            spi::arg(sealed),
            spi::arg(vault_id),
            spi::arg(readers.map(<[String]>::to_vec)),
            spi::arg(by),
        ],
    )?;
    Ok(())
}

/// A secret as it is kept, and the roles that may read it.
pub struct Kept {
    sealed: Option<Vec<u8>>,
    vault_id: Option<Uuid>,
    pub readers: Vec<String>,
}

/// None: there is no such secret. Runs with the owner's rights.
pub fn find(organization: Option<Uuid>, name: &str) -> Result<Option<Kept>> {
    let rows = spi::read_all(
        "SELECT s.sealed, s.vault_id, s.readers FROM usher.secrets AS s WHERE s.organization_id IS NOT DISTINCT FROM $1 AND s.name = $2",
        &[spi::arg(organization), spi::arg(name)],
        |row| {
            Ok(Kept {
                sealed: row.get::<Vec<u8>>(1)?,
                vault_id: row.get::<Uuid>(2)?,
                readers: row.get::<Vec<String>>(3)?.unwrap_or_default(),
            })
        },
    )?;
    Ok(rows.into_iter().next())
}

impl Kept {
    /// The plain value. Runs with the owner's rights.
    pub fn open(&self, organization: Option<Uuid>, name: &str) -> Result<Plain> {
        match (&self.sealed, self.vault_id) {
            (Some(sealed), _) => open(&keys::read()?, organization, name, sealed),
            (None, Some(vault_id)) => from_vault(vault_id),
            (None, None) => Err(UsherError::internal("a secret is kept nowhere")),
        }
    }
}

fn open(keys: &[Key], organization: Option<Uuid>, name: &str, sealed: &[u8]) -> Result<Plain> {
    let wanted =
        sealing::key_id(sealed).ok_or_else(|| UsherError::state(format!("what is stored as secret \"{name}\" is none")))?;
    let key = keys.iter().find(|key| key.id == wanted).ok_or_else(|| {
        UsherError::state(format!("secret \"{name}\" is sealed with key \"{wanted}\", which is not in the key file"))
            .hint("Put that key back into the file that usher.key_file names, below the newest one.")
    })?;
    sealing::open(key, &place(organization, name), sealed).ok_or_else(|| {
        UsherError::state(format!(
            "secret \"{name}\" does not open: it was changed, moved, or sealed by another key of that name"
        ))
        .hint("Set it again with usher.set_secret().")
    })
}

/// The view must be that of a superuser: one that anybody may make would run with the rights of pg_usher's owner.
fn from_vault(vault_id: Uuid) -> Result<Plain> {
    let trusted = spi::read::<bool>(
        "SELECT r.rolsuper FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
          WHERE c.oid = pg_catalog.to_regclass('vault.decrypted_secrets') AND c.relkind = 'v'",
        &[],
    )?;
    if trusted != Some(true) {
        return Err(UsherError::state("Supabase Vault is not installed in this database")
            .detail("There is no view vault.decrypted_secrets of a superuser.")
            .hint("CREATE EXTENSION supabase_vault; or seal the secret here: usher.set_secret(organization, name, value)."));
    }
    let allowed = "SELECT pg_catalog.has_schema_privilege('vault', 'USAGE') AND pg_catalog.has_table_privilege('vault.decrypted_secrets', 'SELECT')";
    if spi::read::<bool>(allowed, &[])? != Some(true) {
        let owner = role::name_of(role::current()).unwrap_or_default();
        return Err(UsherError::forbidden(format!("{owner}, the owner of pg_usher's tables, may not read Supabase Vault"))
            .hint(format!("GRANT USAGE ON SCHEMA vault TO {owner}; GRANT SELECT ON vault.decrypted_secrets TO {owner};")));
    }
    let plain = spi::read::<String>(
        "SELECT v.decrypted_secret::text FROM vault.decrypted_secrets AS v WHERE v.id = $1",
        &[spi::arg(vault_id)],
    )?;
    plain.map(|text| Zeroizing::new(text.into_bytes())).ok_or_else(|| {
        UsherError::not_found("Supabase Vault has no secret of that id").hint("SELECT id, name FROM vault.secrets; lists them.")
    })
}

/// Seals up to `most` secrets anew that are not under the first key; returns how many, and how many are left. Runs with the
/// owner's rights.
pub fn reseal(most: i32) -> Result<(i64, i64)> {
    let keys = keys::read()?;
    let newest = keys.first().ok_or_else(|| UsherError::internal("the list of keys is empty"))?;
    let rows = spi::all(
        "SELECT s.organization_id, s.name, s.sealed FROM usher.secrets AS s
          WHERE s.key_id <> $1 ORDER BY s.key_id, s.organization_id, s.name LIMIT $2 FOR UPDATE",
        &[spi::arg(newest.id.as_str()), spi::arg(most)],
        |row| Ok((row.get::<Uuid>(1)?, row.get::<String>(2)?.unwrap_or_default(), row.get::<Vec<u8>>(3)?.unwrap_or_default())),
    )?;
    let (mut organizations, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (organization, name, sealed) in rows {
        let plain = open(&keys, organization, &name, &sealed)?;
        values.push(sealing::seal(newest, &place(organization, &name), &plain)?);
        organizations.push(organization);
        names.push(name);
    }
    let done = spi::run(
        "UPDATE usher.secrets AS s SET key_id = $1, sealed = n.sealed
           FROM unnest($2::uuid[], $3::text[], $4::bytea[]) AS n (organization_id, name, sealed)
          WHERE s.organization_id IS NOT DISTINCT FROM n.organization_id AND s.name = n.name",
        &[spi::arg(newest.id.as_str()), spi::arg(organizations), spi::arg(names), spi::arg(values)],
    )?;
    let left = spi::read::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.secrets AS s WHERE s.key_id <> $1",
        &[spi::arg(newest.id.as_str())],
    )?;
    Ok((done as i64, left.unwrap_or(0)))
}

/// How many secrets are sealed here. Runs with the owner's rights.
pub fn sealed() -> Result<i64> {
    Ok(spi::read::<i64>("SELECT pg_catalog.count(*) FROM usher.secrets AS s WHERE s.sealed IS NOT NULL", &[])?.unwrap_or(0))
}

/// Keys by which secrets are sealed and which are not in the file, with the number of their secrets. Runs with the owner's
/// rights.
pub fn missing_keys() -> Result<Vec<(String, i64)>> {
    let used = spi::read_all(
        "SELECT s.key_id, pg_catalog.count(*) FROM usher.secrets AS s WHERE s.key_id IS NOT NULL GROUP BY s.key_id ORDER BY s.key_id",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<i64>(2)?.unwrap_or(0))),
    )?;
    // Also where nothing is sealed yet: a file that is not right is better known before.
    let known: Vec<String> = keys::read()?.into_iter().map(|key| key.id).collect();
    Ok(used.into_iter().filter(|(id, _)| !known.contains(id)).collect())
}
