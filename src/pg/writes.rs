//! One statement that somebody else has written, which may write: parsed and analysed by PostgreSQL's own code, not run.

use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

fn text_of(sql: &str) -> Result<CString> {
    CString::new(sql).map_err(|_| UsherError::definition("a statement contains a NUL character"))
}

/// The statement with a further query in front, by the name that `with` gives it: `name AS (…)`. Refuses what is not one INSERT, UPDATE,
/// DELETE, MERGE or SELECT. A syntax error is raised as PostgreSQL raises it: call this inside a subtransaction.
pub fn with_query(sql: &str, with: &str) -> Result<String> {
    let source = text_of(sql)?;
    // SAFETY: raw_parser returns a list of RawStmt nodes in the current memory context; each pointer is checked for its tag before it
    // is read as that node.
    let clause = unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if list.is_null() || (*list).length != 1 {
            return Err(UsherError::definition("it is not one statement").hint("Write one statement, without a semicolon."));
        }
        let statement = (*pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>()).stmt;
        let clause = match (*statement).type_ {
            pg_sys::NodeTag::T_InsertStmt => (*statement.cast::<pg_sys::InsertStmt>()).withClause,
            pg_sys::NodeTag::T_UpdateStmt => (*statement.cast::<pg_sys::UpdateStmt>()).withClause,
            pg_sys::NodeTag::T_DeleteStmt => (*statement.cast::<pg_sys::DeleteStmt>()).withClause,
            pg_sys::NodeTag::T_MergeStmt => (*statement.cast::<pg_sys::MergeStmt>()).withClause,
            pg_sys::NodeTag::T_SelectStmt => (*statement.cast::<pg_sys::SelectStmt>()).withClause,
            _ => {
                return Err(UsherError::definition("it is no INSERT, UPDATE, DELETE or MERGE")
                    .hint("Write one such statement, with WITH before it if you like."));
            }
        };
        if clause.is_null() { None } else { Some((usize::try_from((*clause).location).unwrap_or(0), (*clause).recursive)) }
    };
    let Some((at, recursive)) = clause else { return Ok(format!("WITH {with} {sql}")) };
    let (before, rest) = (&sql[..at], &sql[at + "WITH".len()..]);
    if !recursive {
        return Ok(format!("{before}WITH {with},{rest}"));
    }
    let after = rest.trim_start();
    match after.get(.."RECURSIVE".len()) {
        Some(word) if word.eq_ignore_ascii_case("recursive") => {
            Ok(format!("{before}WITH RECURSIVE {with},{}", &after["RECURSIVE".len()..]))
        }
        _ => Err(UsherError::definition("a comment stands between WITH and RECURSIVE").hint("Put it elsewhere.")),
    }
}

/// What a statement writes.
#[derive(Debug, Default)]
pub struct Writes {
    /// The relations that it names as targets, also those of data-modifying queries in its WITH.
    pub relations: Vec<Oid>,
    /// It reads the query of the name that was asked for.
    pub reads: bool,
}

/// Analyses a statement with the rights of the current role: what it writes, and whether it reads the query `named` of its WITH.
pub fn of(sql: &str, types: &[Oid], named: &str) -> Result<Writes> {
    Spi::connect_mut(|_client| {
        let source = text_of(sql)?;
        let mut types = types.to_vec();
        // SAFETY: inside an SPI connection; text and types live through the call. An error is raised as one of PostgreSQL.
        let plan = unsafe { pg_sys::SPI_prepare(source.as_ptr(), types.len() as i32, types.as_mut_ptr()) };
        if plan.is_null() {
            return Err(UsherError::internal("a statement could not be analysed"));
        }
        let mut writes = Writes::default();
        // SAFETY: the plan was just made and lives as long as the SPI connection; its sources hold lists of analysed queries.
        unsafe {
            for source in pgrx::PgList::<pg_sys::CachedPlanSource>::from_pg(pg_sys::SPI_plan_get_plan_sources(plan)).iter_ptr() {
                for query in pgrx::PgList::<pg_sys::Query>::from_pg((*source).query_list).iter_ptr() {
                    visit(query, named, &mut writes);
                }
            }
        }
        writes.relations.sort_unstable_by_key(|oid| oid.to_u32());
        writes.relations.dedup();
        Ok(writes)
    })
}

/// # Safety
/// `query` is an analysed query that lives through the call.
unsafe fn visit(query: *mut pg_sys::Query, named: &str, writes: &mut Writes) {
    // SAFETY: as the caller says; lists of a query hold nodes of the type that is read here, and what may be of several is checked for
    // its tag first.
    unsafe {
        let target = usize::try_from((*query).resultRelation).unwrap_or(0);
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT && target > 0 {
            let entries = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
            if let Some(entry) = entries.get_ptr(target - 1) {
                writes.relations.push((*entry).relid);
            }
        }
        for expression in pgrx::PgList::<pg_sys::CommonTableExpr>::from_pg((*query).cteList).iter_ptr() {
            if CStr::from_ptr((*expression).ctename).to_bytes() == named.as_bytes() && (*expression).cterefcount > 0 {
                writes.reads = true;
            }
            let inner = (*expression).ctequery;
            if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                visit(inner.cast::<pg_sys::Query>(), named, writes);
            }
        }
    }
}
