//! `usher.resume()`: what a restored, cloned or upgraded database is.
//!
//! The tables remember the server and database in which they are at home. Anywhere else nothing runs until somebody says
//! whether the original lives on: then what leaves the database is the original's to do, not the copy's.

use crate::capture;
use crate::error::{Result, UsherError};
use crate::flow::drift::{self, Others};
use crate::pg::{role, spi, xact};
use crate::registry::identity;
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Lets the jobs of a restored, cloned or upgraded database run here.
///
/// Arguments: `this_is`: `'moved'`, this database takes the original's place and does everything that was waiting there;
/// `'copy'`, the original lives on: jobs for workers outside, made before the copy, are cancelled here, those inside the
/// database are done. Where nothing is held, nothing changes.
/// Errors: 42501 for callers who are no operators, 22023 for another word, 55000 when the tables are of an older version.
#[pg_extern(volatile, parallel_unsafe)]
fn resume(this_is: Option<String>) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("resume the jobs of a copy")?;
    let this_is = match this_is.as_deref() {
        Some(word @ ("moved" | "copy")) => word,
        _ => {
            return Err(UsherError::invalid("it must be said what this database is")
                .hint("usher.resume('moved') if it takes the original's place, usher.resume('copy') if the original lives on.")
                .into());
        }
    };
    Ok(run(this_is)?)
}

fn run(this_is: &str) -> Result<String> {
    let installed = setup::current()?;
    if installed.home {
        return Ok("nothing is held: this database is where pg_usher is at home".to_owned());
    }
    let _acting = role::internal(installed.owner);
    let cancelled = if this_is == "copy" { spi::run(CANCEL_OUTBOUND, &[])? } else { 0 };
    setup::make_home(this_is)?;
    // Objects have other numbers here, and a dump may have come without triggers.
    spi::run("DELETE FROM usher.flow_dependencies", &[])?;
    for finding in drift::look_again(&drift::unrecorded()?, Others::LookAt)? {
        warning!("{}", finding.line());
    }
    capture::attach::sync_all()?;
    xact::note_due_changed();
    let waiting = spi::read::<i64>(
        "SELECT (SELECT pg_catalog.count(*) FROM usher.ready_jobs) + (SELECT pg_catalog.count(*) FROM usher.queue_waiting)",
        &[],
    )?;
    let fate = if this_is == "copy" {
        format!(", {cancelled} for workers outside are cancelled: they are the original's")
    } else {
        String::new()
    };
    let jobs = match waiting.unwrap_or(0) {
        1 => "1 job goes on".to_owned(),
        jobs => format!("{jobs} jobs go on"),
    };
    Ok(format!("pg_usher is at home here now; {jobs}{fate}"))
}

const CANCEL_OUTBOUND: &str = "
WITH w AS (DELETE FROM usher.queue_waiting AS q
            WHERE q.waiting_for IN ('external worker', 'external call', 'concurrency limit')
               OR q.waiting_for = 'rate limit'
                  AND EXISTS (SELECT FROM usher.flows f WHERE f.id = q.flow_id AND f.definition -> 'then' ->> 'effect' = 'external') RETURNING *)
INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old,
                               error_message, source_system, target_system)
SELECT w.organization_id, w.id, w.created_at, pg_catalog.now(), w.cause, w.flow_id, w.flow_version, w.attempts, w.lane, w.hop, w.op, true, w.new, w.old,
       'this database is a copy: the original does it', w.source_system, w.target_system
  FROM w";
