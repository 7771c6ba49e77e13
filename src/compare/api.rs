//! SQL functions of comparisons, declared in `sql/compare.sql`: rows go from the executor into their result.

use super::{Side, Wish, compare, of_flow, of_tables, settings};
use crate::error::{Result, UsherError};
use crate::pg::results::{self, Call};
use crate::pg::trigger::raise;
use crate::registry::identity;
use pgrx::prelude::*;

macro_rules! callable {
    ($name:ident) => {
        #[allow(unsafe_code, reason = "the server looks this function up by its name")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }
    };
}
callable!(pg_finfo_usher_compare_tables);
callable!(pg_finfo_usher_compare_pair);

/// Compares two tables by digests and returns the rows that are missing on one side or different.
///
/// Arguments: `left_table`, `right_table`; `key`, columns of the left table, default its primary key; `columns`, a list of names or pairs of left
/// and right names, default those that both have; `where`, an expression over columns that both have; `organization`, by slug or id.
/// Errors: 42501 unless the caller is an operator and sees all rows, 42P01 and 42703 for what does not exist, 22023 for what cannot be compared.
#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_compare_tables(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    raise(tables(&results::call(fcinfo)));
    pg_sys::Datum::from(0)
}

fn tables(call: &Call) -> Result<()> {
    identity::require_operator("compare tables")?;
    let wish = Wish {
        left: call.arg(0),
        right: call.arg(1),
        key: call.arg(2),
        columns: call.arg(3),
        condition: call.arg(4),
        organization: call.arg(5),
    };
    let _settings = settings();
    let (left, right) = of_tables(wish)?;
    answer(call, &left, &right)
}

/// Compares what a flow's source should give with what its target holds.
///
/// Arguments: `flow`; `organization`, by slug or id, NULL: all.
/// Errors: 42501 unless the caller is an operator and sees all rows, 42704 when there is no such flow, 22023 when it copies no rows, 55000 when it
/// is broken.
#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_compare_pair(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    raise(flow(&results::call(fcinfo)));
    pg_sys::Datum::from(0)
}

fn flow(call: &Call) -> Result<()> {
    let installed = identity::require_operator("compare a flow's pair")?;
    let name = UsherError::given(call.arg(0), "the flow's name")?;
    let _settings = settings();
    let (left, right) = of_flow(installed, &name, call.arg::<String>(1).as_deref())?;
    answer(call, &left, &right)
}

fn answer(call: &Call, left: &Side, right: &Side) -> Result<()> {
    let found = compare(left, right)?;
    let _says = results::progress(&format!("usher: rows that differ in {} and {}", left.name, right.name));
    call.answer(found.as_ref().map(|differences| differences.query.as_str()))
}
