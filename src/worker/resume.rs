//! `usher.resume()`: what a restored, cloned or upgraded database is.
//!
//! The tables remember the server and database in which they are at home. Anywhere else nothing runs until somebody says
//! whether the original lives on: then what leaves the database is the original's to do, not the copy's.

use crate::capture;
use crate::consistency;
use crate::error::{Result, UsherError};
use crate::flow::drift::{self, Others};
use crate::flow::ready;
use crate::pg::{role, spi, xact};
use crate::queue::settle;
use crate::registry::identity;
use crate::setup;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Lets the jobs of a restored, cloned or upgraded database run here.
///
/// Arguments: `this_is`: `'moved'`, this database takes the original's place and does everything that was waiting there;
/// `'copy'`, the original lives on: jobs for workers outside and calls that leave the database, made before the copy, are
/// cancelled here, whatever they wait for; those inside the database are done. Where nothing is held, nothing changes.
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
    let cancelled = if this_is == "copy" { cancel_outbound(installed)? } else { 0 };
    setup::make_home(this_is)?;
    // Objects have other numbers here, and a dump may have come without triggers.
    spi::run("DELETE FROM usher.flow_dependencies", &[])?;
    spi::run("DELETE FROM usher.rule_dependencies", &[])?;
    // What PostgreSQL has counted is counted anew.
    spi::run(
        "UPDATE usher.rules AS l SET changes = NULL, sweep_began_at = NULL, sweep_position = NULL, keyed_now = false, watch = NULL, watched_from = NULL",
        &[],
    )?;
    for finding in drift::look_again(&drift::unrecorded()?, Others::LookAt)? {
        warning!("{}", finding.line());
    }
    capture::attach::sync_all()?;
    // Before anybody writes here: a gate that is not there refuses nothing.
    for finding in consistency::attach::restore(installed, &consistency::drift::touched(None)?)?.0 {
        warning!("{}", finding.line());
    }
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

/// Whatever leaves the database, ready or waiting for anything. Returns how many jobs.
fn cancel_outbound(installed: setup::Installed) -> Result<usize> {
    let flows = spi::one::<Vec<i32>>(
        "SELECT pg_catalog.array_agg(f.id) FROM usher.flows AS f WHERE f.definition -> 'then' ->> 'effect' = 'external'",
        &[],
    )?
    .unwrap_or_default();
    let (lanes, positions) = ready::columns(&ready::hold(&flows)?);
    let mut gone = cancelled(CANCEL_READY, &[spi::arg(lanes), spi::arg(positions)])?;
    gone.extend(cancelled(CANCEL_WAITING, &[spi::arg(flows)])?);
    let (organizations, jobs): (Vec<Uuid>, Vec<Uuid>) = gone.into_iter().unzip();
    if !jobs.is_empty() {
        spi::run(
            "DELETE FROM usher.job_keys AS k USING unnest($1::uuid[], $2::uuid[]) AS g (organization_id, id)
              WHERE k.organization_id = g.organization_id AND k.job_id = g.id",
            &[spi::arg(organizations.clone()), spi::arg(jobs.clone())],
        )?;
        settle::all_ended(installed, organizations, jobs.clone(), "cancelled")?;
    }
    Ok(jobs.len())
}

fn cancelled(taken: &str, arguments: spi::Args<'_>) -> Result<Vec<(Uuid, Uuid)>> {
    let sql = format!("WITH w AS ({taken}) {INTO_HISTORY}");
    let gone = spi::all(&sql, arguments, |row| Ok(row.get::<Uuid>(1)?.zip(row.get::<Uuid>(2)?)))?;
    Ok(gone.into_iter().flatten().collect())
}

/// `$1` lanes, `$2` positions.
const CANCEL_READY: &str = "
DELETE FROM usher.jobs AS q
 WHERE (q.lane, q.seq) IN (SELECT u.lane, u.seq FROM unnest($1::smallint[], $2::bigint[]) AS u (lane, seq))
RETURNING q.organization_id, q.id, q.created_at, q.cause, q.flow_id, q.flow_version, 0 AS attempts, q.lane, q.hop, q.op, q.new, q.old,
          NULL::text AS source_system, NULL::text AS target_system, usher.take_off(q.lane, q.flow_id, q.organization_id) AS off";

/// `$1` the flows whose work leaves the database; jobs without a flow are those of external systems.
const CANCEL_WAITING: &str = "
DELETE FROM usher.queue_waiting AS q
 WHERE q.flow_id IS NULL OR q.flow_id = ANY ($1) OR q.waiting_for IN ('external worker', 'external call')
RETURNING q.*";

const INTO_HISTORY: &str = "
INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, cause, flow_id, flow_version, attempts, lane, hop, op, cancelled, new, old,
                               error_message, source_system, target_system)
SELECT w.organization_id, w.id, w.created_at, pg_catalog.now(), w.cause, w.flow_id, w.flow_version, w.attempts, w.lane, w.hop, w.op, true, w.new, w.old,
       'this database is a copy: the original does it', w.source_system, w.target_system
  FROM w RETURNING organization_id, id";
