//! Functions that return the rows of a statement: they go from the executor into the result, and to disk when they are many.
//!
//! The statements here only read, and all of them read what the statement reads that has called the function: one snapshot. Nothing of
//! them is kept, so that PostgreSQL may plan them with parallel processes, which it does not for saved plans.

use crate::error::{Result, UsherError};
use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::ffi::{CStr, CString, c_char};

unsafe extern "C-unwind" {
    fn SetTuplestoreDestReceiverParams(
        receiver: *mut pg_sys::DestReceiver,
        store: *mut pg_sys::Tuplestorestate,
        context: pg_sys::MemoryContext,
        detoast: bool,
        target: pg_sys::TupleDesc,
        failure: *const c_char,
    );
}

/// A call of a function that returns a table, made by the server.
pub struct Call(pg_sys::FunctionCallInfo);

/// The call that the server is making at this moment, for a function that it looks up by its name.
pub fn call(fcinfo: pg_sys::FunctionCallInfo) -> Call {
    Call(fcinfo)
}

impl Call {
    /// Argument `n` (from 0), of the type that the function was declared with.
    pub fn arg<T: FromDatum>(&self, n: usize) -> Option<T> {
        // SAFETY: the call is running; the caller names the declared type.
        unsafe { pgrx::fcinfo::pg_getarg::<T>(self.0, n) }
    }

    /// The rows of a statement are what the function returns; none of it: no rows. Its columns are those that were declared.
    pub fn answer(&self, sql: Option<&str>) -> Result<()> {
        // SAFETY: makes the empty result, or raises an error when the caller cannot take a table.
        let (store, context, columns) = unsafe {
            pg_sys::InitMaterializedSRF(self.0, 0);
            let info = (*self.0).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            ((*info).setResult, (*(*info).econtext).ecxt_per_query_memory, (*info).setDesc)
        };
        let Some(sql) = sql else { return Ok(()) };
        // SAFETY: the receiver lives in the connection's memory as long as the statement runs; the result outlives both.
        let receiver = unsafe {
            let receiver = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestTuplestore);
            let failure = c"the rows of a comparison have other columns than its result";
            SetTuplestoreDestReceiverParams(receiver, store, context, false, columns, failure.as_ptr());
            receiver
        };
        Spi::connect(|_| execute(sql, receiver, true))?;
        Ok(())
    }
}

/// Runs a statement in a connection that is open.
fn execute(sql: &str, receiver: *mut pg_sys::DestReceiver, read_only: bool) -> Result<()> {
    let text = CString::new(sql).map_err(|_| UsherError::invalid("a text contains a NUL character"))?;
    let options = pg_sys::SPIExecuteOptions { read_only, dest: receiver, ..Default::default() };
    // SAFETY: the text and the options outlive the call, and a connection is open.
    let status = unsafe { pg_sys::SPI_execute_extended(text.as_ptr(), &options) };
    if status != pg_sys::SPI_OK_SELECT as i32 && status != pg_sys::SPI_OK_UTILITY as i32 {
        return Err(UsherError::internal(format!("a comparison could not be run (SPI status {status})")));
    }
    Ok(())
}

/// The first column of the first row of a statement that only reads, in the snapshot of the statement that runs, with parallel processes where
/// PostgreSQL likes.
pub fn first<T: FromDatum>(sql: &str) -> Result<Option<T>> {
    Spi::connect(|_| {
        execute(sql, std::ptr::null_mut(), true)?;
        Ok(left_behind())
    })
}

/// The first column of the first row that a statement has left, in the connection that is open.
fn left_behind<T: FromDatum>() -> Option<T> {
    // SAFETY: a statement has just left its rows here; the value is made of them before the connection is closed, and owns what it holds.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        if pg_sys::SPI_processed == 0 || table.is_null() {
            return None;
        }
        let mut null = false;
        let datum = pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &mut null);
        T::from_datum(datum, null)
    }
}

/// How many rows PostgreSQL expects of a query.
pub fn expected(sql: &str) -> Result<f64> {
    let plan = Spi::connect(|_| -> Result<Option<pgrx::Json>> {
        // To explain is no reading to it.
        execute(&format!("EXPLAIN (FORMAT JSON) {sql}"), std::ptr::null_mut(), false)?;
        Ok(left_behind())
    })?;
    let rows = plan.as_ref().and_then(|plan| plan.0.pointer("/0/Plan/Plan Rows")).and_then(serde_json::Value::as_f64);
    Ok(rows.unwrap_or(0.0))
}

/// What a column of a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Without domains.
    pub base: Oid,
    pub collation: Oid,
}

/// The columns of a query. It is planned and its rights are checked; no row is read.
pub fn shapes(sql: &str) -> Result<Vec<Shape>> {
    Spi::connect(|_| {
        execute(&format!("{sql} LIMIT 0"), std::ptr::null_mut(), true)?;
        // SAFETY: a SELECT has just left its descriptor here; it is copied.
        let columns = unsafe { PgTupleDesc::from_pg_copy((*pg_sys::SPI_tuptable).tupdesc) };
        Ok(columns
            .iter()
            .map(|column| {
                // SAFETY: a look-up of the catalog's cache inside a transaction.
                let base = unsafe { pg_sys::getBaseType(column.atttypid) };
                Shape { base, collation: column.attcollation }
            })
            .collect())
    })
}

/// The operator of a type that says whether two of its values are the same, as indexes and joins mean it; None: it has none.
pub fn equality(kind: Oid) -> Option<Oid> {
    // SAFETY: a look-up inside a transaction; the entry lives as long as the process.
    let operator = unsafe { (*pg_sys::lookup_type_cache(kind, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr };
    (operator != Oid::INVALID).then_some(operator)
}

/// Says in pg_stat_activity what the statement is doing, in front of its text, until dropped.
pub struct Progress(());

pub fn progress(what: &str) -> Progress {
    // SAFETY: reads the text of the statement that the client has sent, if any.
    let statement = unsafe {
        let statement = pg_sys::debug_query_string;
        if statement.is_null() { String::new() } else { CStr::from_ptr(statement).to_string_lossy().into_owned() }
    };
    report(&CString::new(format!("/* {what} */ {statement}")).unwrap_or_default());
    Progress(())
}

fn report(text: &CStr) {
    // SAFETY: the text ends with a zero and is copied.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()) }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // SAFETY: as above; also while an error is on its way out, as this cannot fail.
        unsafe {
            if !pg_sys::debug_query_string.is_null() {
                report(CStr::from_ptr(pg_sys::debug_query_string));
            }
        }
    }
}
