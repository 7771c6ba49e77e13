//! What PostgreSQL calls before a row with a sealed column is written.
//!
//! It seals what is clear, so that whatever hears of the row afterwards (other triggers, capture, the audit, a standby) has only the
//! sealed text. It needs nothing of pg_usher's tables to do so: its argument is the declaration's id, and the column is the one of
//! the constraint of that id, whatever either is called by now.

use super::readers;
use super::text::{self, NOBODY, Sealed, Shut};
use crate::error::{Result as Outcome, UsherError};
use crate::pg::guc::Nest;
use crate::pg::row::{self, Side};
use crate::pg::{relcache, spi, trigger as pg_trigger, xact};
use crate::secrets::{hidden, keys};
use pgrx::AllocatedByRust;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What the statement of ours does that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Seals what was there before.
    Declare,
    /// Puts clear text back in its place.
    Unseal,
    /// Seals anew what is not under the first key.
    Reseal,
}

struct AtWork {
    work: Work,
    protection: Uuid,
    column: String,
}

/// Where a sealed column is in a relation.
#[derive(Clone, Copy)]
struct Place {
    column: i16,
    organization: Option<i16>,
}

#[derive(Default)]
struct Places {
    generation: u64,
    known: HashMap<(u32, Uuid), Place>,
}

thread_local! {
    static AT_WORK: RefCell<Option<AtWork>> = const { RefCell::new(None) };
    static PLACES: RefCell<Places> = RefCell::default();
}

/// Until dropped, the triggers of one declaration do this.
pub struct Working(());

pub fn working(work: Work, protection: Uuid, column: &str) -> Working {
    AT_WORK.set(Some(AtWork { work, protection, column: column.to_owned() }));
    Working(())
}

impl Drop for Working {
    fn drop(&mut self) {
        AT_WORK.set(None);
    }
}

/// A row with a sealed column is about to be written.
#[pg_trigger]
fn seal_row<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, AllocatedByRust>>, UsherError> {
    Ok(hidden::run(|| {
        let change = change(trigger)?;
        row::changed(trigger, change)
    }))
}

/// The column to change and its text. None: the row is as it should be.
fn change(trigger: &PgTrigger<'_>) -> Outcome<Option<(i16, String)>> {
    let relation = trigger.relid().map_err(|e| UsherError::internal(e.to_string()))?;
    let arguments = pg_trigger::arguments(trigger)?;
    let protection = arguments.first().and_then(|id| Uuid::try_parse(id).ok()).ok_or_else(|| {
        UsherError::internal("a trigger that seals lacks its argument").hint("Drop it and run SELECT usher.attach_all();")
    })?;
    let at_work = AT_WORK.with_borrow(|at_work| {
        at_work.as_ref().filter(|at_work| at_work.protection == protection).map(|at_work| (at_work.work, at_work.column.clone()))
    });
    let place = match &at_work {
        Some((_, column)) => look(relation, "a.attname = $2", spi::arg(column.as_str()))?,
        None => place(relation, protection)?,
    };
    let place = place.ok_or_else(|| {
        UsherError::state("this table has a sealed column, and the constraint that belongs to it is gone")
            .detail(format!("It was named {}.", super::sealed::constraint(protection)))
            .hint("SELECT usher.attach_all(); brings it back, usher.unprotect_column() ends the protection.")
    })?;
    let Some(new) = row::text(trigger, Side::New, place.column)?.map(Zeroizing::new) else { return Ok(None) };
    let organization = |side| -> Outcome<Uuid> {
        let id = place.organization.map(|attnum| row::uuid(trigger, side, attnum)).transpose()?.flatten();
        Ok(id.map_or(NOBODY, |id| Uuid::from_bytes(*id.as_bytes())))
    };
    let now = Value { protection, organization: organization(Side::New)?, text: &new };
    let text = match at_work.map(|(work, _)| work) {
        None => {
            let old = row::text(trigger, Side::Old, place.column)?;
            now.written(old.as_deref(), organization(Side::Old)?)?
        }
        Some(Work::Declare) => now.taken_in()?,
        Some(Work::Unseal) => now.unsealed()?,
        Some(Work::Reseal) => now.resealed()?,
    };
    Ok(text.map(|text| (place.column, text)))
}

fn place(relation: Oid, protection: Uuid) -> Outcome<Option<Place>> {
    let generation = relcache::schema_generation();
    let key = (relation.to_u32(), protection);
    let found = PLACES.with_borrow_mut(|places| {
        if places.generation != generation {
            *places = Places { generation, known: HashMap::new() };
        }
        places.known.get(&key).copied()
    });
    if found.is_some() {
        return Ok(found);
    }
    xact::remember_only_now();
    let found = look(
        relation,
        "a.attnum = (SELECT c.conkey[1] FROM pg_catalog.pg_constraint AS c WHERE c.conrelid = $1 AND c.conname = $2 AND c.contype = 'c')",
        spi::arg(super::sealed::constraint(protection)),
    )?;
    if let Some(place) = found {
        PLACES.with_borrow_mut(|places| places.known.insert(key, place));
    }
    Ok(found)
}

fn look(relation: Oid, which: &str, argument: pgrx::datum::DatumWithOid<'_>) -> Outcome<Option<Place>> {
    let _path = Nest::pinned_path();
    let found = spi::read_all(
        &format!(
            "SELECT a.attnum, (SELECT o.attnum FROM pg_catalog.pg_attribute AS o
                                WHERE o.attrelid = $1 AND o.attname = 'organization_id' AND o.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype AND NOT o.attisdropped)
               FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND {which}"
        ),
        &[spi::arg(relation), argument],
        |row| Ok(Place { column: row.get::<i16>(1)?.unwrap_or(0), organization: row.get::<i16>(2)? }),
    )?;
    Ok(found.into_iter().next())
}

/// A value on its way into a row.
struct Value<'a> {
    protection: Uuid,
    organization: Uuid,
    text: &'a str,
}

impl Value<'_> {
    fn seal(&self, clear: &str) -> Outcome<Option<String>> {
        let keys = keys::for_statement()?;
        let key = keys.first().ok_or_else(|| UsherError::internal("the list of keys is empty"))?;
        text::seal(key, self.protection, self.organization, clear).map(Some)
    }

    /// What claims to be sealed is, and for this organization; whoever has sealed it.
    fn genuine(&self) -> Outcome<(Sealed<'_>, Zeroizing<String>)> {
        // Alike for all reasons: who writes does not learn what opens elsewhere.
        let refused = || {
            UsherError::new(
                PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
                "the value begins like a sealed one, and is none of this row's organization",
            )
            .detail("It was changed, made up, or sealed for another organization or under another key.")
            .hint("Write clear text, or a sealed value as it was read from a row of the same organization.")
        };
        let sealed = text::parse(self.text).filter(|sealed| sealed.organization == self.organization).ok_or_else(refused)?;
        let clear = sealed.open(&keys::for_statement()?).map_err(|shut| match shut {
            Shut::NoKey(_) | Shut::Wrong => refused(),
        })?;
        Ok((sealed, clear))
    }

    /// As somebody writes it, over what was there.
    fn written(&self, old: Option<&str>, old_organization: Uuid) -> Outcome<Option<String>> {
        let kept = old.filter(|old| text::parse(old).is_some());
        if kept == Some(self.text) {
            if old_organization == self.organization {
                return Ok(None);
            }
            return Err(UsherError::invalid("a sealed value does not go with its row to another organization")
                .hint("Write the clear text in the same UPDATE, or empty the column."));
        }
        let claims = text::claims(self.text);
        let genuine = if claims { Some(self.genuine()?) } else { None };
        // Whoever may read what is there hears that it is the same: it stays, and nobody hears of a change. Others could try out
        // values in this way.
        if let Some(old) = kept
            && old_organization == self.organization
            && let Some(sealed) = text::parse(old)
            && genuine.as_ref().is_none_or(|(new, _)| new.protection == sealed.protection)
            && readers::may_read(sealed.protection, sealed.organization)?
        {
            let clear = genuine.as_ref().map_or(self.text, |(_, clear)| clear.as_str());
            if sealed.open(&keys::for_statement()?).is_ok_and(|was| was.as_str() == clear) {
                return Ok(Some(old.to_owned()));
            }
        }
        if claims { Ok(None) } else { self.seal(self.text) }
    }

    /// As it stood before the column was sealed.
    fn taken_in(&self) -> Outcome<Option<String>> {
        if text::claims(self.text) { self.genuine().map(|_| None) } else { self.seal(self.text) }
    }

    fn opened(&self, sealed: &Sealed<'_>) -> Outcome<Zeroizing<String>> {
        sealed.open(&keys::for_statement()?).map_err(|shut| unopened(&shut))
    }

    fn unsealed(&self) -> Outcome<Option<String>> {
        match text::parse(self.text).filter(|sealed| sealed.protection == self.protection) {
            Some(sealed) => Ok(Some(self.opened(&sealed)?.to_string())),
            // What was copied here is under another declaration, and stays for its readers.
            None => Ok(None),
        }
    }

    fn resealed(&self) -> Outcome<Option<String>> {
        let keys = keys::for_statement()?;
        let newest = keys.first().ok_or_else(|| UsherError::internal("the list of keys is empty"))?;
        let Some(sealed) = text::parse(self.text).filter(|sealed| sealed.key != newest.id) else { return Ok(None) };
        let clear = self.opened(&sealed)?;
        text::seal(newest, sealed.protection, sealed.organization, &clear).map(Some)
    }
}

/// Told to those who may read the value, and to those who run the installation.
pub fn unopened(shut: &Shut) -> UsherError {
    match shut {
        Shut::NoKey(id) => UsherError::state(format!("a value is sealed with key \"{id}\", which is not in the key file"))
            .hint("Put that key back into the file that usher.key_file names, below the newest one."),
        Shut::Wrong => UsherError::state("a value does not open: it was changed, or sealed by another key of that name")
            .hint("Write the value again."),
    }
}
