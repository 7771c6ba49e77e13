//! Rows as a row trigger sees them: reading a value, and putting another text in its place.

use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{AllocatedByRust, IntoDatum, heap_getattr_raw};
use std::num::NonZeroUsize;

/// The new row of a change or, of an UPDATE, the old one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    New,
    Old,
}

fn number(attnum: i16) -> Result<NonZeroUsize> {
    let number = usize::try_from(attnum).ok().and_then(NonZeroUsize::new);
    number.ok_or_else(|| UsherError::internal("a column of a changed row has no number"))
}

/// The value of a column as the row holds it, which is of one of the types `wanted`, or of a domain over one.
fn datum(trigger: &PgTrigger<'_>, side: Side, attnum: i16, wanted: &[pg_sys::Oid]) -> Result<Option<pg_sys::Datum>> {
    let number = number(attnum)?;
    let data = trigger.trigger_data();
    // SAFETY: the data belongs to the row trigger that is running. Which of its tuples is which goes by the event, as in
    // trigger.h; the descriptor is that of its relation, and the number is looked at before anything is read by it.
    unsafe {
        let updated = pgrx::trigger_fired_by_update(data.tg_event);
        let tuple = match side {
            Side::New if updated => data.tg_newtuple,
            Side::New => data.tg_trigtuple,
            Side::Old if updated => data.tg_trigtuple,
            Side::Old => return Ok(None),
        };
        let descriptor = (*data.tg_relation).rd_att;
        let known = usize::try_from((*descriptor).natts).unwrap_or(0);
        if tuple.is_null() || number.get() > known {
            return Err(UsherError::internal("a changed row has fewer columns than its table"));
        }
        let row = trigger.new();
        let attribute = row.as_ref().and_then(|row| row.get_attribute_by_index(number));
        let kind = attribute.filter(|attribute| !attribute.attisdropped).map(|attribute| pg_sys::getBaseType(attribute.atttypid));
        if !kind.is_some_and(|kind| wanted.contains(&kind)) {
            return Err(UsherError::state("a column has another type than when it was sealed")
                .hint("Give it back its type: ALTER TABLE … ALTER COLUMN … TYPE text."));
        }
        Ok(heap_getattr_raw(tuple, number, descriptor))
    }
}

/// A text of the row.
pub fn text(trigger: &PgTrigger<'_>, side: Side, attnum: i16) -> Result<Option<String>> {
    let found = datum(trigger, side, attnum, &[pg_sys::TEXTOID, pg_sys::VARCHAROID])?;
    // SAFETY: the value is of type text or varchar, which are kept alike; it is copied.
    Ok(found.and_then(|datum| unsafe { String::from_datum(datum, false) }))
}

/// A uuid of the row.
pub fn uuid(trigger: &PgTrigger<'_>, side: Side, attnum: i16) -> Result<Option<pgrx::Uuid>> {
    let found = datum(trigger, side, attnum, &[pg_sys::UUIDOID])?;
    // SAFETY: the value is of type uuid; it is copied.
    Ok(found.and_then(|datum| unsafe { pgrx::Uuid::from_datum(datum, false) }))
}

/// The new row for the trigger to hand back, with another text in a column that [`text`] can read.
pub fn changed<'t>(
    trigger: &'t PgTrigger<'t>,
    change: Option<(i16, String)>,
) -> Result<Option<PgHeapTuple<'t, AllocatedByRust>>> {
    let Some(new) = trigger.new() else { return Ok(None) };
    let mut row = new.into_owned();
    if let Some((attnum, text)) = change {
        let number = number(attnum)?;
        // SAFETY: the column is of type text or varchar, which a text's datum fits: `text` has read it before.
        unsafe { row.set_by_index_unchecked(number, text.into_datum()) }
    }
    Ok(Some(row))
}
