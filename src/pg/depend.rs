//! What a statement stands on: the tables, functions, types and operators that PostgreSQL itself finds in it.

use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::ffi::CString;

/// Stands for the statement in pg_depend for the moment; no object has this number.
const NOBODY: Oid = Oid::INVALID;

/// `(class, object)` of everything that the statements refer to, apart from what comes with PostgreSQL. They are analysed
/// with the rights of the current role and not run. To be called inside a subtransaction that is rolled back: the
/// dependencies are written down by the code that does it for views, read back, and must go away again.
pub fn referenced(statements: &[(&str, &[pg_sys::BuiltinOid])]) -> Result<Vec<(Oid, Oid)>> {
    Spi::connect_mut(|client| {
        for (sql, types) in statements {
            let mut types: Vec<Oid> = types.iter().map(|oid| oid.value()).collect();
            let sql = CString::new(*sql).map_err(|_| UsherError::internal("a statement contains a zero byte"))?;
            // SAFETY: inside an SPI connection; the text and the types live through the call. An error is raised as one of
            // PostgreSQL and ends the subtransaction around us.
            let plan = unsafe { pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr()) };
            if plan.is_null() {
                return Err(UsherError::internal("a statement could not be analysed"));
            }
            // SAFETY: the plan was just made and lives as long as the SPI connection; its sources hold lists of analysed
            // queries, which recordDependencyOnExpr walks and does not keep.
            unsafe {
                let nobody = pg_sys::ObjectAddress { classId: pg_sys::ProcedureRelationId, objectId: NOBODY, objectSubId: 0 };
                for source in
                    pgrx::PgList::<pg_sys::CachedPlanSource>::from_pg(pg_sys::SPI_plan_get_plan_sources(plan)).iter_ptr()
                {
                    for query in pgrx::PgList::<pg_sys::Node>::from_pg((*source).query_list).iter_ptr() {
                        pg_sys::recordDependencyOnExpr(
                            &nobody,
                            query,
                            std::ptr::null_mut(),
                            pg_sys::DependencyType::DEPENDENCY_NORMAL,
                        );
                    }
                }
                pg_sys::CommandCounterIncrement();
            }
        }
        let mut found = Vec::new();
        let mut table = client.update(
            "SELECT DISTINCT refclassid, refobjid FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND objid = 0",
            None,
            &[],
        )?;
        while table.next().is_some() {
            if let (Some(class), Some(object)) = (table.get::<Oid>(1)?, table.get::<Oid>(2)?) {
                found.push((class, object));
            }
        }
        Ok(found)
    })
}
