//! What the life of jobs asks of the worker beyond running them: options looked up for a batch, those that wait for others,
//! expiries, batches.

use super::batches;
use super::group::Group;
use super::options;
use super::take_back::Back;
use crate::error::Result;
use crate::flow::retry::Retry;
use crate::pg::{catalog, locks, spi, xact};
use crate::setup::Installed;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use std::cell::Cell;
use std::collections::HashMap;

/// What a job of a group was asked for.
pub struct Given {
    /// Its time is over.
    pub expired: bool,
    expires: bool,
    pub retry: Option<Retry>,
    batch: Option<Uuid>,
}

/// What the jobs of a group were asked for, by their numbers in it. A ready job with options has a row key.
pub fn given(installed: Installed, group: &Group) -> Result<HashMap<i32, Given>> {
    if !installed.up_to_date {
        return Ok(HashMap::new());
    }
    let found = spi::read_all(
        "SELECT b.n::integer, COALESCE(o.expires_at <= pg_catalog.clock_timestamp(), false), o.expires_at IS NOT NULL, o.retry, o.batch_id
           FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS b (organization_id, id, row_key, n)
           JOIN usher.job_options o ON o.organization_id = b.organization_id AND o.job_id = b.id
          WHERE b.row_key IS NOT NULL OR $4",
        &[group.batch.organizations.arg(), group.batch.ids.arg(), group.row_keys.arg(), spi::arg(group.waited)],
        |row| {
            Ok((
                row.get::<i32>(1)?.unwrap_or_default(),
                Given {
                    expired: row.get::<bool>(2)?.unwrap_or(false),
                    expires: row.get::<bool>(3)?.unwrap_or(false),
                    retry: row.get::<JsonB>(4)?.and_then(|retry| options::stored_retry(&retry.0)),
                    batch: row.get::<Uuid>(5)?,
                },
            ))
        },
    )?;
    Ok(found.into_iter().collect())
}

/// Why a job is dead that did not start in time, with its SQLSTATE.
pub const EXPIRED: (&str, &str) = ("it expired before it could run", "US001");

/// A group is through: all but `back` are synced. True when jobs of batches have ended.
pub fn done(installed: Installed, group: &Group, given: &HashMap<i32, Given>, back: &[Back]) -> Result<bool> {
    if !installed.up_to_date {
        return Ok(false);
    }
    let out: Vec<i32> = back.iter().map(|back| back.n).collect();
    // What usher.jobs_ended() looks at first, without the call.
    let nobody_waits = || locks::try_settling(false) && xact::sees_new_commits() && catalog::is_unused("job_dependencies");
    if out.len() < usize::try_from(group.batch.size).unwrap_or(0) && !nobody_waits() {
        spi::one::<bool>(
            "SELECT usher.jobs_ended($1, $2, 'synced', $3) IS NULL",
            &[group.batch.organizations.arg(), group.batch.ids.arg(), spi::arg(out.clone())],
        )?;
    }
    if given.is_empty() {
        return Ok(false);
    }
    expire_later(group, given, back)?;
    let out: std::collections::HashSet<i32> = out.into_iter().collect();
    let counted: Vec<i32> =
        given.iter().filter(|(n, given)| given.batch.is_some() && !out.contains(n)).map(|(n, _)| *n).collect();
    if !counted.is_empty() {
        spi::run(
            "SELECT usher.tally(pg_catalog.array_agg(($1::uuid[])[n]), pg_catalog.array_agg(($2::uuid[])[n]), 'synced', 1) FROM unnest($3::integer[]) AS n",
            &[group.batch.organizations.arg(), group.batch.ids.arg(), spi::arg(counted)],
        )?;
    }
    Ok(given.values().any(|given| given.batch.is_some()))
}

/// Jobs that wait again expire there too, even if their expiry was looked at while they were ready.
pub fn expire_later(group: &Group, given: &HashMap<i32, Given>, back: &[Back]) -> Result<()> {
    let waiting: Vec<i32> = back
        .iter()
        .filter(|back| back.waiting_for.is_some() && given.get(&back.n).is_some_and(|given| given.expires))
        .map(|back| back.n)
        .collect();
    if !waiting.is_empty() {
        spi::run(
            "INSERT INTO usher.job_expiries (organization_id, job_id, expires_at)
             SELECT o.organization_id, o.job_id, o.expires_at FROM unnest($3::integer[]) AS n
               JOIN usher.job_options o ON o.organization_id = ($1::uuid[])[n] AND o.job_id = ($2::uuid[])[n]
             ON CONFLICT ON CONSTRAINT job_expiries_pkey DO NOTHING",
            &[group.batch.organizations.arg(), group.batch.ids.arg(), spi::arg(waiting)],
        )?;
    }
    Ok(())
}

/// Jobs of a group were cancelled as a whole.
pub fn cancelled(installed: Installed, group: &Group) -> Result<()> {
    if installed.up_to_date {
        spi::one::<bool>(
            "SELECT usher.jobs_ended($1, $2, 'cancelled') IS NULL",
            &[group.batch.organizations.arg(), group.batch.ids.arg()],
        )?;
    }
    Ok(())
}

/// The same for single jobs of one organization.
pub fn ended(installed: Installed, organization: Uuid, jobs: Vec<Uuid>, fate: &str) -> Result<()> {
    if installed.up_to_date && !jobs.is_empty() {
        spi::one::<bool>(
            "SELECT usher.jobs_ended(pg_catalog.array_fill($1::uuid, ARRAY[pg_catalog.cardinality($2::uuid[])]), $2, $3) IS NULL",
            &[spi::arg(organization), spi::arg(jobs), spi::arg(fate)],
        )?;
    }
    Ok(())
}

/// The same for jobs of several organizations.
pub fn all_ended(installed: Installed, organizations: Vec<Uuid>, jobs: Vec<Uuid>, fate: &str) -> Result<()> {
    if installed.up_to_date {
        let arguments = [spi::arg(organizations), spi::arg(jobs), spi::arg(fate)];
        spi::one::<bool>("SELECT usher.jobs_ended($1, $2, $3) IS NULL", &arguments)?;
    }
    Ok(())
}

/// A job was done outside.
pub fn done_outside(installed: Installed, organization: Uuid, job: Uuid) -> Result<()> {
    if !installed.up_to_date {
        return Ok(());
    }
    spi::run(
        "SELECT usher.tally(ARRAY[$1::uuid], ARRAY[$2::uuid], 'synced', 1), usher.note_steps_ended(ARRAY[$1::uuid], ARRAY[$2::uuid], 'synced')",
        &[spi::arg(organization), spi::arg(job)],
    )?;
    ended(installed, organization, vec![job], "synced")?;
    batches::settle()
}

/// A cancelled job runs again.
pub fn uncount(organization: Uuid, job: Uuid) -> Result<()> {
    spi::run("SELECT usher.tally(ARRAY[$1::uuid], ARRAY[$2::uuid], 'cancelled', -1)", &[spi::arg(organization), spi::arg(job)])?;
    Ok(())
}

thread_local! {
    /// Expiries up to here have been looked at by this process, so that it does not walk over what it has deleted.
    static LOOKED_AT: Cell<Option<TimestampWithTimeZone>> = const { Cell::new(None) };
}

/// Somebody is at work on what must be looked at: so much later it may be through.
const SOON: f64 = 0.02;

/// What was to be done, and what there is to do later.
#[derive(Default)]
pub struct Settled {
    /// Seconds until there is something to do again, if that is known.
    pub again: Option<f64>,
    /// Some expiry was due: the jobs that it has ended may have been the first of a limit, or of a row.
    pub expired: bool,
}

/// Looks at what waits for others, expires or is counted; `all` from the beginning. Runs with the owner's rights.
pub fn settle(installed: Installed, all: bool) -> Result<Settled> {
    if !installed.up_to_date {
        return Ok(Settled::default());
    }
    let mut expired = false;
    // The tables of what nobody uses are empty files.
    let [checks, expiries, batches] = ["job_checks", "job_expiries", "batch_definitions"].map(|name| !catalog::is_unused(name));
    let mut again = None;
    if checks && spi::one::<bool>("SELECT usher.settle_dependants()", &[])? == Some(true) {
        again = Some(SOON);
    }
    if expiries {
        if all {
            LOOKED_AT.set(None);
        }
        if let Some(last) = spi::one::<TimestampWithTimeZone>(
            "SELECT usher.expire_jobs(COALESCE($1, '-infinity'))",
            &[spi::arg(LOOKED_AT.get())],
        )? {
            LOOKED_AT.set(Some(last));
            expired = true;
        }
        let next = spi::read::<f64>(
            "SELECT EXTRACT(epoch FROM pg_catalog.min(x.expires_at) - pg_catalog.clock_timestamp())::float8 FROM usher.job_expiries AS x
              WHERE x.expires_at > COALESCE($1, '-infinity')",
            &[spi::arg(LOOKED_AT.get())],
        )?;
        again = sooner(again, next.map(|seconds| seconds.max(0.0)));
    }
    if batches {
        batches::settle()?;
    }
    Ok(Settled { again, expired })
}

pub fn sooner(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod unit {
    use super::sooner;

    #[test]
    fn the_sooner_time_counts() {
        assert_eq!(sooner(Some(1.0), Some(2.0)), Some(1.0));
        assert_eq!(sooner(None, Some(2.0)), Some(2.0));
        assert_eq!(sooner(None, None), None);
    }
}
