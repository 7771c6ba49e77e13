//! Triggers: making them, and what a trigger function reads.

use super::{event, spi, subxact};
use crate::error::{Result, UsherError};
use pgrx::prelude::*;

/// The statements of a table that are followed, and what a trigger needs to see of each.
pub const EVENTS: [(&str, &str); 4] = [
    ("insert", "REFERENCING NEW TABLE AS usher_new"),
    ("update", "REFERENCING OLD TABLE AS usher_old NEW TABLE AS usher_new"),
    ("delete", "REFERENCING OLD TABLE AS usher_old"),
    ("truncate", ""),
];

/// Raises an error as it is; the trigger macro would lose its SQLSTATE.
pub fn raise<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            pg_sys::panic::ErrorReport::from(error).report(PgLogLevel::ERROR);
            unreachable!("an ERROR report does not return")
        }
    }
}

/// Makes the trigger's transition tables readable by name in the SPI connection that is open now.
pub fn register_tables(trigger: &PgTrigger<'_>) -> Result<()> {
    let data = trigger.trigger_data() as *const pg_sys::TriggerData;
    // SAFETY: the data belongs to the trigger call that is running and outlives it; SPI only reads it.
    let status = unsafe { pg_sys::SPI_register_trigger_data(data.cast_mut()) };
    if status < 0 {
        return Err(UsherError::internal(format!("the changed rows could not be read (SPI status {status})")));
    }
    Ok(())
}

/// How deep in triggers this code runs: 0 outside of any.
pub fn depth() -> i32 {
    // SAFETY: the function takes no arguments and reads a counter of the backend.
    unsafe { pgrx::direct_function_call::<i32>(pg_sys::pg_trigger_depth, &[]) }.unwrap_or(0)
}

/// What the trigger was told when it was created.
pub fn arguments(trigger: &PgTrigger<'_>) -> Result<Vec<String>> {
    trigger.extra_args().map_err(|e| UsherError::internal(format!("a trigger's arguments could not be read: {e}")))
}

/// Runs DDL on an application's table; a busy table is a clear error with a remedy, not a queue of waiting writers.
pub fn locked(relation: &str, sql: &str) -> Result<()> {
    let _ours = event::ours();
    subxact::attempt(|| spi::script(sql)).map_err(|failure| {
        let error = UsherError::from(failure.clone());
        if failure.sqlstate == "55P03" {
            error.hint(format!("{relation} is busy: end the transactions that hold it and try again."))
        } else {
            error
        }
    })
}
