//! What a row trigger sees of a row, as JSON: the whole row, by the names of its columns.

use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::prelude::*;

/// A row before and after a change.
pub struct Image {
    pub before: Option<String>,
    pub after: Option<String>,
    /// The (sub)transaction that wrote it.
    pub by: i64,
}

/// The row that a row trigger was called for, as `row_to_json()` writes it with the settings of the session.
pub fn of(trigger: &PgTrigger<'_>) -> Result<Image> {
    let data = trigger.trigger_data();
    // SAFETY: the data belongs to the row trigger that is running. Which of its tuples is which goes by the event, as in trigger.h; a
    // tuple is made a datum by the descriptor of its relation, which copies it.
    unsafe {
        let (inserted, deleted) = (pgrx::trigger_fired_by_insert(data.tg_event), pgrx::trigger_fired_by_delete(data.tg_event));
        let (before, after) = match (inserted, deleted) {
            (true, _) => (std::ptr::null_mut(), data.tg_trigtuple),
            (_, true) => (data.tg_trigtuple, std::ptr::null_mut()),
            _ => (data.tg_trigtuple, data.tg_newtuple),
        };
        let json = |tuple: pg_sys::HeapTuple| -> Result<Option<String>> {
            if tuple.is_null() {
                return Ok(None);
            }
            let row = pg_sys::heap_copy_tuple_as_datum(tuple, (*data.tg_relation).rd_att);
            let text = pgrx::direct_function_call::<String>(pg_sys::row_to_json, &[Some(row)]);
            text.map(Some).ok_or_else(|| UsherError::internal("a row could not be written as JSON"))
        };
        Ok(Image { before: json(before)?, after: json(after)?, by: i64::from(pg_sys::GetCurrentTransactionId().into_inner()) })
    }
}
