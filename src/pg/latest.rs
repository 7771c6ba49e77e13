//! Reading what is committed now, whatever the isolation level: as a check of a foreign key does.

use super::guc::Nest;
use super::spi::Args;
use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// More plans than this and all are made anew.
const MOST_PLANS: usize = 200;

/// When a statement is planned, and what for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// As PostgreSQL sees fit: for these values, if that looks better.
    AsUsual,
    /// Once, for all values.
    Once,
    /// The same, for values of which each is found in few rows.
    OnceForFew,
}

type Plans = HashMap<String, pg_sys::SPIPlanPtr>;

thread_local! {
    static PLANS: RefCell<[Plans; 3]> = RefCell::default();
}

/// The columns of the first row, as text; None: there is no row. What this transaction has written so far is seen too.
pub fn first_row(sql: &str, args: Args<'_>, planned: Planned) -> Result<Option<Vec<Option<String>>>> {
    Spi::connect_mut(|_client| {
        run(sql, args, planned)?;
        Ok(row())
    })
}

/// Whether there is a row.
pub fn any(sql: &str, args: Args<'_>) -> Result<bool> {
    Spi::connect_mut(|_client| {
        run(sql, args, Planned::OnceForFew)?;
        // SAFETY: a counter of the statement that has just run.
        Ok(unsafe { pg_sys::SPI_processed } > 0)
    })
}

/// Runs a query until its first row, inside an SPI connection.
fn run(sql: &str, args: Args<'_>, planned: Planned) -> Result<()> {
    let (plan, new) = plan(sql, args, planned)?;
    let mut values: Vec<pg_sys::Datum> =
        args.iter().map(|arg| arg.datum().map_or(pg_sys::Datum::from(0), |datum| datum.sans_lifetime())).collect();
    let nulls: Vec<u8> = args.iter().map(|arg| if arg.datum().is_some() { b' ' } else { b'n' }).collect();
    // What is looked up for few rows needs no map of pages first. It costs nothing unless PostgreSQL is about to plan.
    // SAFETY: the plan is kept; only looked at.
    let _nest = (planned == Planned::OnceForFew && (new || !unsafe { pg_sys::SPI_plan_is_valid(plan) }))
        .then(|| Nest::open().no_bitmaps());
    // SAFETY: the plan was made for arguments of these types and is kept; the connection is open. The snapshot of this moment is the
    // active one while the plan runs, which reads only and so takes no other; an error takes it off with the (sub)transaction.
    let status = unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let status = pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr().cast(), true, 1);
        pg_sys::PopActiveSnapshot();
        status
    };
    if status != pg_sys::SPI_OK_SELECT as i32 {
        return Err(UsherError::internal(format!("what is committed now could not be read (SPI status {status})")));
    }
    Ok(())
}

/// The first row of the result that SPI holds.
fn row() -> Option<Vec<Option<String>>> {
    // SAFETY: set by the statement that has just run, and valid until the connection is closed; every value is copied.
    unsafe {
        if pg_sys::SPI_processed == 0 || pg_sys::SPI_tuptable.is_null() {
            return None;
        }
        let table = &*pg_sys::SPI_tuptable;
        let (tuple, shape) = (*table.vals, table.tupdesc);
        let text = |column| {
            let value = pg_sys::SPI_getvalue(tuple, shape, column);
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        };
        Some((1..=(*shape).natts).map(text).collect())
    }
}

fn plan(sql: &str, args: Args<'_>, planned: Planned) -> Result<(pg_sys::SPIPlanPtr, bool)> {
    if let Some(found) = PLANS.with_borrow(|plans| plans[planned as usize].get(sql).copied()) {
        return Ok((found, false));
    }
    let text = CString::new(sql).map_err(|_| UsherError::internal("a statement contains a NUL character"))?;
    let mut types: Vec<pg_sys::Oid> = args.iter().map(|arg| arg.oid()).collect();
    let options = if planned == Planned::AsUsual { 0 } else { pg_sys::CURSOR_OPT_GENERIC_PLAN };
    // SAFETY: both pointers live through the call; the plan is kept for the life of the process, or freed below.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), options as i32);
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            return Err(UsherError::internal("a statement could not be planned"));
        }
        plan
    };
    PLANS.with_borrow_mut(|plans| {
        let plans = &mut plans[planned as usize];
        if plans.len() >= MOST_PLANS {
            // SAFETY: each was kept by this function, and none of them runs now.
            plans.drain().for_each(|(_, plan)| unsafe {
                pg_sys::SPI_freeplan(plan);
            });
        }
        plans.insert(sql.to_owned(), plan);
    });
    Ok((plan, true))
}
