//! One SELECT that somebody else has written: parsed by PostgreSQL's own grammar, and what it gives.

use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

fn text_of(sql: &str) -> Result<CString> {
    CString::new(sql).map_err(|_| UsherError::definition("a query contains a NUL character"))
}

/// Refuses everything but one SELECT (or WITH, VALUES) that writes and locks nothing by its form, so that it means the same in
/// parentheses, with a line break behind it. A syntax error is raised as PostgreSQL raises it: call this inside a subtransaction.
pub fn require_select(sql: &str) -> Result<()> {
    let source = text_of(sql)?;
    // SAFETY: raw_parser returns a list of RawStmt nodes in the current memory context; each pointer is checked for its tag before it
    // is read as that node.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if list.is_null() || (*list).length != 1 {
            return Err(UsherError::definition("the query is not one statement").hint("Write one SELECT, without a semicolon."));
        }
        let statement = (*pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>()).stmt;
        if (*statement).type_ != pg_sys::NodeTag::T_SelectStmt {
            return Err(UsherError::definition("the query is not a SELECT").hint("Write one SELECT whose rows are bad rows."));
        }
        let select = statement.cast::<pg_sys::SelectStmt>();
        if !(*select).intoClause.is_null() || !(*select).lockingClause.is_null() {
            return Err(UsherError::definition("the query writes or locks").hint("Leave out INTO and FOR UPDATE."));
        }
    }
    Ok(())
}

/// A column that a query gives.
#[derive(Debug, Clone)]
pub struct Given {
    pub name: String,
    pub type_oid: Oid,
    pub typmod: i32,
    /// Values that are equal are written alike, as far as its collation goes.
    pub deterministic: bool,
    /// The column of a table that it is, if it is just that: the table and the column's number.
    pub origin: Option<(Oid, i16)>,
}

/// What a query gives, and whether each of its rows is what it is without the others: no LIMIT, no window, no UNION. It is analysed with the rights of the current role and not run; errors are raised as PostgreSQL's own.
pub fn describe(sql: &str) -> Result<(Vec<Given>, bool)> {
    Spi::connect_mut(|_client| {
        let source = text_of(sql)?;
        // SAFETY: inside an SPI connection; the text lives through the call. An error is raised as one of PostgreSQL.
        let plan = unsafe { pg_sys::SPI_prepare(source.as_ptr(), 0, std::ptr::null_mut()) };
        if plan.is_null() {
            return Err(UsherError::internal("a query could not be analysed"));
        }
        let mut given = Vec::new();
        let mut apart = true;
        // SAFETY: the plan was just made and lives as long as the SPI connection; its sources hold lists of analysed queries, whose
        // target lists consist of TargetEntry nodes. Names are copied.
        unsafe {
            for source in pgrx::PgList::<pg_sys::CachedPlanSource>::from_pg(pg_sys::SPI_plan_get_plan_sources(plan)).iter_ptr() {
                for query in pgrx::PgList::<pg_sys::Query>::from_pg((*source).query_list).iter_ptr() {
                    if (*query).commandType != pg_sys::CmdType::CMD_SELECT || (*query).hasModifyingCTE {
                        return Err(UsherError::definition("the query writes").hint("Write one SELECT that only reads."));
                    }
                    apart &= (*query).limitCount.is_null()
                        && (*query).limitOffset.is_null()
                        && (*query).setOperations.is_null()
                        && !(*query).hasWindowFuncs
                        && !(*query).hasTargetSRFs
                        && !(*query).hasDistinctOn;
                    for entry in pgrx::PgList::<pg_sys::TargetEntry>::from_pg((*query).targetList).iter_ptr() {
                        if (*entry).resjunk {
                            continue;
                        }
                        let name = (*entry).resname;
                        let name =
                            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() };
                        let expression = (*entry).expr.cast::<pg_sys::Node>();
                        let collation = pg_sys::exprCollation(expression);
                        given.push(Given {
                            name,
                            type_oid: pg_sys::exprType(expression),
                            typmod: pg_sys::exprTypmod(expression),
                            deterministic: collation == Oid::INVALID || pg_sys::get_collation_isdeterministic(collation),
                            origin: ((*entry).resorigtbl != Oid::INVALID && (*entry).resorigcol > 0)
                                .then_some(((*entry).resorigtbl, (*entry).resorigcol)),
                        });
                    }
                }
            }
        }
        Ok((given, apart))
    })
}
