//! SQL functions of the chain over the audit log.

use super::chain::{Entry, Hash, Images};
use super::{seal, verify};
use crate::error::{Result, UsherError};
use crate::pg::{role, spi};
use crate::registry::identity;
use crate::settings;
use crate::setup;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The hash of an entry, as `src/guard/chain.rs` describes it. Internal, and for those who verify elsewhere. `erased_images` and
/// `masked`: of an entry in which a person was masked, as `usher.audit_erasures` has them.
#[pg_extern(immutable, parallel_safe)]
#[allow(clippy::too_many_arguments, reason = "an entry's columns")]
fn audit_entry_hash(
    position: i64,
    recorded_at: TimestampWithTimeZone,
    id: Uuid,
    correlation_id: Uuid,
    organization_id: Option<Uuid>,
    actor: &str,
    role: &str,
    action: &str,
    object: Option<&str>,
    old: Option<&str>,
    new: Option<&str>,
    flow: Option<&str>,
    salt: Option<Uuid>,
    erased_images: Option<&[u8]>,
    masked: Option<&[u8]>,
) -> Vec<u8> {
    let images = Images { salt: salt.map(|salt| *salt.as_bytes()), old, new };
    let entry = Entry {
        position,
        recorded_at: i64::from(recorded_at),
        id: *id.as_bytes(),
        correlation: *correlation_id.as_bytes(),
        organization: organization_id.map(|id| *id.as_bytes()),
        actor,
        role,
        action,
        object,
        flow,
        images: images.vouched(erased_images.zip(masked).map(|(before, since)| (seal::as_hash(before), seal::as_hash(since)))),
    };
    entry.hash().to_vec()
}

/// The hash of an entry's old and new, see `src/guard/chain.rs`. Internal.
#[pg_extern(immutable, parallel_safe)]
fn audit_images_hash(salt: Option<Uuid>, old: Option<&str>, new: Option<&str>) -> Vec<u8> {
    Images { salt: salt.map(|salt| *salt.as_bytes()), old, new }.hash().to_vec()
}

fn require_reader(what: &str) -> Result<setup::Installed> {
    if !identity::has_reader_rights(role::current()) {
        return Err(UsherError::forbidden(format!("only operators and readers may {what}"))
            .hint("Ask an administrator for GRANT usher_reader TO your role."));
    }
    setup::current()
}

pub(super) fn hash_of(text: &str) -> Result<Hash> {
    // from_str_radix takes a sign for a digit.
    let pair = |at: usize| text.get(at..at + 2).filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let digits = |at: usize| pair(at).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..32).map(|byte| digits(2 * byte)).collect();
    match bytes.and_then(|bytes| Hash::try_from(bytes).ok()) {
        Some(hash) if text.len() == 64 => Ok(hash),
        _ => Err(UsherError::invalid("the anchor's hash is none: it has 64 hexadecimal digits")
            .hint("SELECT * FROM usher.audit_anchor(); shows what one looks like.")),
    }
}

/// Goes through the whole audit log and its chain of hashes, and names the first thing that is not as it was: one row.
/// `intact`; `blocks` and `entries` that there are; `unsealed`: entries that are too new for the chain; `broken_block` and
/// `broken_position`: where it does not fit; `message`.
///
/// Arguments: `block` and `hash`, an anchor as `usher.audit_anchor()` gave it out earlier; without one a chain that was made
/// anew from its beginning cannot be told from the first. Errors: 42501 unless the caller is an operator or reader, 22023 for a
/// hash that is none.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn verify_audit_log(
    block: default!(Option<i64>, "NULL"),
    hash: default!(Option<String>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(intact, bool),
            name!(blocks, i64),
            name!(entries, i64),
            name!(unsealed, i64),
            name!(broken_block, Option<i64>),
            name!(broken_position, Option<i64>),
            name!(message, String),
        ),
    >,
    ErrorReport,
> {
    let installed = require_reader("verify the audit log")?;
    let anchor = match (block, hash) {
        (None, None) => None,
        (Some(block), Some(_)) if block < 1 => {
            return Err(UsherError::invalid("the anchor's block is none: the first one is 1")
                .hint("SELECT * FROM usher.audit_anchor(); shows what an anchor looks like.")
                .into());
        }
        (Some(block), Some(hash)) => Some((block, hash_of(&hash)?)),
        _ => {
            return Err(UsherError::invalid("an anchor is a block and its hash; one of the two is missing")
                .hint("SELECT * FROM usher.verify_audit_log(block => 12, hash => '9f86…');")
                .into());
        }
    };
    let _acting = role::internal(installed.owner);
    let report = verify::verify(anchor)?;
    let message = report.broken.clone().unwrap_or_else(|| {
        format!("{} entries are as they were written, in {} blocks", report.entries - report.unsealed, report.blocks)
    });
    let row = (
        report.broken.is_none(),
        report.blocks,
        report.entries,
        report.unsealed,
        report.broken_block,
        report.broken_position,
        message,
    );
    Ok(TableIterator::once(row))
}

/// The end of the chain, to be kept where nobody who may change the database can reach it: `block`, `hash` (64 hexadecimal
/// digits) and `made_at`. No row while there is no block. Errors: 42501 unless the caller is an operator or reader.
#[pg_extern(stable, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn audit_anchor() -> std::result::Result<
    TableIterator<'static, (name!(block, i64), name!(hash, String), name!(made_at, Option<TimestampWithTimeZone>))>,
    ErrorReport,
> {
    let installed = require_reader("see the end of the audit's chain")?;
    let _acting = role::internal(installed.owner);
    let rows = spi::read_all(
        "SELECT b.number, pg_catalog.encode(b.hash, 'hex'), b.made_at FROM usher.audit_blocks AS b ORDER BY b.number DESC LIMIT 1",
        &[],
        |row| {
            Ok((row.get::<i64>(1)?.unwrap_or(0), row.get::<String>(2)?.unwrap_or_default(), row.get::<TimestampWithTimeZone>(3)?))
        },
    )?;
    Ok(TableIterator::new(rows))
}

/// Puts entries into the chain now that a worker would put there within two minutes; returns how many. What a transaction
/// that still runs may add waits for its end. Errors: 42501 for callers who are no operators.
#[pg_extern(volatile, parallel_unsafe)]
fn seal_audit_log() -> std::result::Result<i64, ErrorReport> {
    identity::require_operator("seal the audit log")?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    Ok(seal::seal(&seal::look()?)?)
}

/// Drops the oldest day of the audit log that `usher.audit_days` keeps no longer, as a worker does once a minute; returns the day
/// (YYYYMMDD), NULL when there is none, or when it is in use or not yet in the chain. Errors: 42501 for callers who are no operators,
/// 55000 while entries are kept for ever.
#[pg_extern(volatile, parallel_unsafe)]
fn retire_audit_log() -> std::result::Result<Option<String>, ErrorReport> {
    identity::require_operator("retire days of the audit log")?;
    let installed = setup::current()?;
    let days = settings::audit_days().ok_or_else(|| {
        UsherError::state("entries of the audit log are kept for ever")
            .hint("ALTER SYSTEM SET usher.audit_days = 3650; SELECT pg_reload_conf(); keeps them for ten years.")
    })?;
    let _acting = role::internal(installed.owner);
    Ok(seal::retire(installed, days)?)
}

#[cfg(test)]
mod unit {
    use super::hash_of;

    #[test]
    fn a_hash_has_one_text() {
        assert_eq!(hash_of(&"0A".repeat(32)).unwrap(), [10; 32]);
        for wrong in ["+a".repeat(32), "0a".repeat(31), "0a".repeat(33), "é".repeat(32), String::new()] {
            assert!(hash_of(&wrong).is_err(), "{wrong}");
        }
    }
}
