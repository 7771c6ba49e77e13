//! Flows: what a definition says, how it becomes a statement, and running that statement over a batch.
//!
//! Owns `usher.flows` and `usher.flow_versions`. Called by `queue`, `capture`, `worker` and `pack`; calls `registry` and
//! `setup`. A flow decides *what to do*; who runs it and when is decided above.
//!
//! definition (pure, from JSON) → [`compile`] (SQL, checked against the catalog) → [`apply`] (a batch, in a subtransaction).

mod api;
pub mod apply;
pub mod catalog;
pub mod cause;
pub mod compile;
pub mod definition;
pub mod manage;
pub mod retry;
mod shape;
pub mod store;

use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::{role, spi, subxact};
use compile::Program;
use definition::Definition;
use pgrx::pg_sys::Oid;

/// Checks a definition against the catalog, with the rights under which it will run.
pub fn checked(definition: &Definition, run_as: Oid) -> Result<Program> {
    let _nest = Nest::pinned_path();
    compile::try_fields(definition)?;
    let program = compile::compile(definition)?;
    compile::fits_mode(definition, program.compiled.target.as_deref())?;
    let statements = [Some(&program.apply), program.link.as_ref()];
    for sql in statements.into_iter().flatten() {
        subxact::rehearse(|| {
            let _acting = role::act_as(run_as);
            spi::explain(sql, compile::TYPES)
        })
        .map_err(|failure| {
            let hint = failure.hint.clone().unwrap_or_else(|| match failure.sqlstate.as_str() {
                "42501" => format!(
                    "The flow runs as {}: GRANT that role what the flow reads and writes, or name another in \"run_as\".",
                    role::name_of(run_as).unwrap_or_default()
                ),
                "42P10" => "The \"key\" (with organization_id in front where the table has it) must be the columns of a unique index.".to_owned(),
                "42804" => "Cast the expression to the column's type, such as (new.total)::numeric.".to_owned(),
                _ => "usher.explain_flow() shows the statement of a flow that could be created.".to_owned(),
            });
            UsherError::from(failure).hint(hint)
        })?;
    }
    Ok(program)
}
