//! SQL functions of protected columns.

use super::declare::{self, Wish};
use super::readers;
use super::store::{self, How};
use super::text::{self, NOBODY};
use super::{check, mask, sealed, trigger};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::{catalog, report, role};
use crate::registry::identity;
use crate::secrets::{hidden, keys};
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{PgRelation, pg_sys::Oid};
use serde_json::json;
use uuid::Uuid;

fn table(relation: Option<PgRelation>) -> Result<Oid> {
    relation.map(|relation| relation.oid()).ok_or_else(|| {
        UsherError::missing("the table").hint("SELECT usher.protect_column('public.people', 'email', 'sealed', '{admin}');")
    })
}

/// Protects a column of a table. `sealed`: whatever is written into it is kept as ciphertext, under the first key of
/// `usher.key_file`, and only its readers get the clear text, with `usher.unseal_column()`. `masked`: it is kept in clear, only its
/// readers may select it, and a view `<table>_masked` beside the table shows a mask. What is there already is protected at once. A
/// second call for the same column replaces readers and mask.
///
/// Arguments: `table`, an ordinary or partitioned table; `column`; `how`, sealed or masked; `readers`, database roles, and `admin`
/// and `legend` for those who are that in the row's organization; `mask`, what a masked column shows (by default a mask by the
/// value's form).
/// Returns what was done in words. Errors: 42501 for callers who are no operators or lack the rights of the table's owner, 42703 for
/// a column that does not exist, 22023 for one that cannot be protected so, 42704 for an unknown role, 55000 when there is no usable
/// key or the column is protected otherwise, 55P03 when the table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn protect_column(
    table: Option<PgRelation>,
    column: Option<String>,
    how: Option<String>,
    readers: Option<Vec<Option<String>>>,
    mask: default!(Option<String>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("protect columns")?;
    let installed = setup::current()?;
    let wish = Wish {
        table: self::table(table)?,
        column: UsherError::given(column, "the column")?,
        how: How::parse(&UsherError::given(how, "how to protect it")?)?,
        readers: self::readers::checked(readers)?,
        mask,
        pack: None,
    };
    let (oid, column) = (wish.table, wish.column.clone());
    let done = declare::declare(installed, wish)?;
    note(installed, "protected", oid, &column, &done)?;
    Ok(done)
}

/// Ends the protection of a column: sealed values become clear text again, whoever lost the right to read a masked column gets it
/// back. All or nothing.
///
/// Returns what was done in words. Errors: 42501 for callers who are no operators or lack the rights of the table's owner, 42704 when
/// the column is not protected, 55000 when a key is missing, 55P03 when the table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn unprotect_column(table: Option<PgRelation>, column: Option<String>) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("end the protection of columns")?;
    let installed = setup::current()?;
    let (oid, column) = (self::table(table)?, UsherError::given(column, "the column")?);
    let done = declare::end(installed, oid, &column)?;
    note(installed, "unprotected", oid, &column, &done)?;
    Ok(done)
}

fn note(installed: setup::Installed, what: &str, oid: Oid, column: &str, done: &str) -> Result<()> {
    let (schema, name) = catalog::name(oid).unwrap_or_default();
    audit::note(
        installed,
        None,
        &format!("usher.columns.{what}"),
        &format!("{schema}.{name}.{column}"),
        None,
        Some(json!({"done": done})),
    )
}

/// The clear text of a sealed value, for the readers of the declaration that has sealed it. Text that is not sealed, and NULL, come
/// back as they are.
///
/// Errors, without the statement in the log: 42501 for everybody else, whether the value opens or not; 55000 when it does not.
#[pg_extern(stable, parallel_unsafe)]
fn unseal_column(value: Option<String>) -> Option<String> {
    hidden::run(|| match value {
        Some(value) if text::claims(&value) => unsealed(&value).map(Some),
        as_it_is => Ok(as_it_is),
    })
}

fn unsealed(value: &str) -> Result<String> {
    setup::current()?;
    let refused = || {
        UsherError::forbidden("this is not a sealed value that you may read")
            .hint("Its readers are named in usher.protected_columns; an operator names others with usher.protect_column().")
    };
    let sealed = text::parse(value).ok_or_else(refused)?;
    if !readers::may_read(sealed.protection, sealed.organization)? {
        return Err(refused());
    }
    sealed.open(&keys::for_statement()?).map(|clear| clear.to_string()).map_err(|shut| trigger::unopened(&shut))
}

/// What a masked value looks like: `j***@e***.com` for an e-mail address, the last two digits for a phone number, else `***`.
#[pg_extern(immutable, parallel_safe, strict)]
fn mask_value(value: &str) -> String {
    mask::mask(value)
}

/// Internal: the organizations whose values of a protection the caller reads as an admin or a legend.
#[pg_extern(stable, parallel_unsafe)]
fn reader_organizations(protection: Option<pgrx::Uuid>) -> std::result::Result<Vec<pgrx::Uuid>, ErrorReport> {
    let Some(protection) = protection else { return Ok(Vec::new()) };
    let Some(named) = readers::named(Uuid::from_bytes(*protection.as_bytes()))? else { return Ok(Vec::new()) };
    if named.iter().any(|name| name == readers::LEGEND) && identity::is_legend_member()? {
        let mut all = identity::organizations(identity::Right::Read)?;
        all.push(pgrx::Uuid::from_bytes(*NOBODY.as_bytes()));
        return Ok(all);
    }
    Ok(if named.iter().any(|name| name == readers::ADMIN) { identity::admin_memberships()? } else { Vec::new() })
}

/// Seals values of sealed columns anew that are not under the first key of `usher.key_file`, at most so many of each column in one
/// call: `resealed` and `remaining`. No trigger, flow or audit hears of it. When none remains, and none of the secrets, the older keys
/// may be taken out of the file, unless sealed values were copied elsewhere.
///
/// Errors: 42501 for callers who are no operators, 55000 when a key is missing or a table is gone.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn reseal_columns(
    most: default!(i32, "10000"),
) -> std::result::Result<TableIterator<'static, (name!(column, String), name!(resealed, i64), name!(remaining, i64))>, ErrorReport>
{
    identity::require_operator("seal columns anew")?;
    if most < 1 {
        return Err(UsherError::invalid("\"most\" is less than 1")
            .hint("Leave it out, or give how many to seal in this call.")
            .into());
    }
    let installed = setup::current()?;
    let _hidden = report::hide_statement();
    let _acting = role::internal(installed.owner);
    let newest = keys::for_statement()?.first().map(|key| key.id.clone()).unwrap_or_default();
    store::locate(installed.home)?;
    let mut rows = Vec::new();
    for protection in store::all()?.into_iter().filter(|protection| protection.how == How::Sealed) {
        let name = protection.name();
        let oid = catalog::relation(&protection.schema, &protection.table).ok_or_else(|| {
            UsherError::state(format!("{name} is declared sealed, but its table does not exist"))
                .hint("SELECT * FROM usher.doctor(); says what to do.")
        })?;
        let target = check::readable(oid)?;
        let (done, left) = sealed::reseal(&target, &protection.column, declare::id(&protection), &newest, i64::from(most))?;
        rows.push((name, done, left));
    }
    Ok(TableIterator::new(rows))
}
