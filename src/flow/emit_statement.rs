//! The statement of an `emit`, and what it hands to the event bus.
//!
//! Expressions run with the flow's rights and name the events of a batch; the events themselves are written with the owner's, by the
//! room above, which knows who listens. It is given with each [`super::apply::Run`].

use super::apply::{Causes, Place, Run};
use super::cause::{self, Cause};
use super::compile::Writer;
use crate::error::Result;
use crate::pg::role;
use crate::pg::spi::Raw;
use pgrx::spi::{SpiTupleTable, quote_identifier, quote_literal};
use std::fmt::Write as _;

/// The events of a range, in the order of its jobs.
pub struct Emission<'a> {
    pub event_type: &'a str,
    pub organizations: Raw,
    pub data: Raw,
    /// The jobs that emit them.
    pub jobs: Raw,
    /// Numbers of those jobs in the batch.
    pub numbers: Vec<i32>,
    pub hop: i16,
    /// As the jobs of who listens carry them: one for all, or one for each number.
    pub trails: Vec<Option<String>>,
    /// Nobody has looked yet whether these organizations exist.
    pub unchecked: bool,
}

/// Writes events down and makes the jobs of who listens. Runs with the owner's rights.
pub type Emitter = fn(&Emission<'_>) -> Result<()>;

/// For each range a row without a number and with the events, and one for each job whose check failed.
pub(super) fn statement(w: &Writer<'_>, event_type: &str) -> (String, String) {
    let definition = w.definition;
    let mut fields = String::new();
    for (name, text) in &definition.set {
        let _ = write!(fields, ", ({text}\n) AS {}", quote_identifier(name));
    }
    let mut checks = String::new();
    for (name, text) in &definition.check {
        let _ = write!(checks, " WHEN ({text}\n) IS FALSE THEN {}", quote_literal(name));
    }
    let failed = if checks.is_empty() { "NULL::text".to_owned() } else { format!("CASE{checks} END") };
    let data = "pg_catalog.to_jsonb(v.*) - '{usher_n,usher_organization,usher_job,usher_failed}'::text[]";
    let rows = format!(
        "WITH s AS MATERIALIZED (SELECT b.n AS usher_n, b.organization_id AS usher_organization, b.id AS usher_job{fields} FROM {}{}),
 v AS MATERIALIZED (SELECT s.*, {failed} AS usher_failed FROM s)",
        w.from(),
        w.range()
    );
    let apply = format!(
        "{rows} SELECT NULL::integer, NULL::text, false, pg_catalog.array_agg(v.usher_organization ORDER BY v.usher_n), pg_catalog.array_agg({data} ORDER BY v.usher_n),
       pg_catalog.array_agg(v.usher_job ORDER BY v.usher_n), pg_catalog.array_agg(v.usher_n::integer ORDER BY v.usher_n)
  FROM v WHERE v.usher_failed IS NULL
 UNION ALL SELECT v.usher_n::integer, v.usher_failed, false, NULL, NULL, NULL, NULL FROM v WHERE v.usher_failed IS NOT NULL ORDER BY 1"
    );
    let preview = format!(
        "{rows} SELECT CASE WHEN v.usher_failed IS NULL THEN pg_catalog.jsonb_build_object('emit', {}, 'data', {data})
                            ELSE pg_catalog.jsonb_build_object('failed check', v.usher_failed) END FROM v",
        quote_literal(event_type)
    );
    (apply, preview)
}

/// Hands over the events that are in the statement's present row.
pub(super) fn hand_over(run: &Run<'_>, table: &SpiTupleTable<'_>, cause: &Cause) -> Result<()> {
    let Some(event_type) = run.flow.definition.emits() else { return Ok(()) };
    let Some(numbers) = table.get::<Vec<i32>>(7)? else { return Ok(()) };
    let trails = match run.causes {
        Causes::Shared(cause, _) => vec![cause::write_trail(&cause.trail)],
        Causes::ByTarget(causes) | Causes::Each(causes) => {
            causes.iter().map(|(cause, _)| cause::write_trail(&cause.trail)).collect()
        }
    };
    let emission = Emission {
        event_type,
        organizations: Raw::read(table, 4)?,
        data: Raw::read(table, 5)?,
        jobs: Raw::read(table, 6)?,
        numbers,
        hop: cause.hop,
        trails,
        unchecked: run.place == Place::Writer,
    };
    let _acting = role::internal(run.owner);
    (run.emit)(&emission)
}
