//! One SQL expression, parsed by PostgreSQL's own grammar.

use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// Parses `text` as exactly one expression and returns PostgreSQL's node text of it.
///
/// The grammar's entry for PL/pgSQL expressions also allows FROM, WHERE and the rest of a SELECT; all of that is
/// refused here. What passes is one `a_expr`, so that `(` text newline `)` means the same wherever it is put.
/// A syntax error is raised as PostgreSQL raises it: call this inside a subtransaction.
pub fn parse(text: &str) -> Result<String> {
    let source = CString::new(text).map_err(|_| UsherError::definition("an expression contains a NUL character"))?;
    // SAFETY: raw_parser returns a list of RawStmt nodes in the current memory context. Each pointer is checked for its
    // node tag before it is read as that node; nodeToString walks raw nodes and returns a palloc'd string.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR);
        if list.is_null() || (*list).length != 1 {
            return Err(UsherError::definition("an expression must be one expression"));
        }
        let raw = pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>();
        let statement = (*raw).stmt;
        if (*statement).type_ != pg_sys::NodeTag::T_SelectStmt {
            return Err(UsherError::definition("an expression must be one expression"));
        }
        let select = statement.cast::<pg_sys::SelectStmt>();
        let bare = (*select).distinctClause.is_null()
            && (*select).intoClause.is_null()
            && (*select).fromClause.is_null()
            && (*select).whereClause.is_null()
            && (*select).groupClause.is_null()
            && (*select).havingClause.is_null()
            && (*select).windowClause.is_null()
            && (*select).valuesLists.is_null()
            && (*select).sortClause.is_null()
            && (*select).limitOffset.is_null()
            && (*select).limitCount.is_null()
            && (*select).lockingClause.is_null()
            && (*select).withClause.is_null()
            && (*select).op == pg_sys::SetOperation::SETOP_NONE;
        let targets = (*select).targetList;
        if !bare || targets.is_null() || (*targets).length != 1 {
            return Err(UsherError::definition("an expression must be one expression")
                .hint("Leave out SELECT, FROM, WHERE, commas between values and names given by AS."));
        }
        let target = pg_sys::list_nth(targets, 0).cast::<pg_sys::ResTarget>();
        if (*target).type_ != pg_sys::NodeTag::T_ResTarget || !(*target).name.is_null() {
            return Err(UsherError::definition("an expression must not name its result")
                .hint("Leave out the name behind the expression."));
        }
        let nodes = pg_sys::nodeToString((*target).val.cast());
        Ok(CStr::from_ptr(nodes).to_string_lossy().into_owned())
    }
}
