//! Options of a request against the database: times, predecessors, the batch; and what is kept of them.

use super::options::{Expiry, Hold, Options};
use crate::error::{Result, UsherError};
use crate::pg::{ids, spi, subxact, xact};
use crate::setup;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

/// Options of a request, looked at and found good.
#[derive(Default)]
pub struct Asked {
    pub retry: Option<JsonB>,
    pub expires_at: Option<TimestampWithTimeZone>,
    pub run_at: Option<TimestampWithTimeZone>,
    pub key: Option<(String, Hold)>,
    /// Those of `after` that are not synced.
    pub waits: Vec<Uuid>,
    pub run_anyway: bool,
    pub batch: Option<Uuid>,
}

fn pg(id: uuid::Uuid) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

impl Asked {
    /// The job needs a row in `usher.job_options`.
    pub fn keeps(&self) -> bool {
        self.retry.is_some() || self.expires_at.is_some() || self.batch.is_some()
    }

    /// What is known without a look at other jobs: times and the key. Runs with the owner's rights.
    pub fn read(options: Option<&Options>, run_at: Option<TimestampWithTimeZone>, unique_key: Option<String>) -> Result<Self> {
        let Some(options) = options else {
            return Ok(Self { run_at, key: unique_key.map(|key| (key, Hold::History)), ..Self::default() });
        };
        setup::current()?;
        if unique_key.is_some() && options.unique.is_some() {
            return Err(UsherError::invalid("unique_key and the option \"unique\" are both given").hint("Keep one of them."));
        }
        if let Some((_, Hold::Period(period))) = &options.unique {
            span(period, "\"for\" of \"unique\"")?;
        }
        let expires_at = match &options.expiry {
            Some(Expiry::In(given)) => Some(span(given, "\"expires_in\"")?),
            Some(at) => Some(time(at, "\"expires_at\"")?),
            None => None,
        };
        if let (Some(expires_at), Some(run_at)) = (expires_at, run_at)
            && expires_at <= run_at
        {
            return Err(
                UsherError::invalid("the job would expire before its run_at").hint("Let it expire later, or run earlier.")
            );
        }
        Ok(Self {
            retry: options.retry.clone().map(JsonB),
            expires_at,
            run_at,
            key: options.unique.clone().or(unique_key.map(|key| (key, Hold::History))),
            run_anyway: options.run_anyway,
            ..Self::default()
        })
    }

    /// Predecessors must exist, a batch must be open and stays so until the end of the transaction. Runs with the owner's
    /// rights, after the unique key was taken.
    pub fn meet(&mut self, options: Option<&Options>, organization: Uuid) -> Result<()> {
        let Some(options) = options else { return Ok(()) };
        if !options.after.is_empty() {
            self.waits = not_synced(organization, options.after.iter().copied().map(pg).collect(), options.run_anyway)?;
        }
        if let Some(batch) = options.batch.map(pg) {
            join(organization, batch)?;
            self.batch = Some(batch);
        }
        Ok(())
    }

    /// Keeps what these new jobs were asked for. Runs with the owner's rights.
    pub fn keep(&self, organization: Uuid, ids: &[Uuid]) -> Result<()> {
        let waits_until = self.run_at.filter(|_| !self.waits.is_empty());
        if self.keeps() || waits_until.is_some() {
            spi::run(
                "INSERT INTO usher.job_options (organization_id, job_id, retry, expires_at, run_at, batch_id)
                 SELECT $1, u.id, $3, $4, $5, $6 FROM unnest($2::uuid[]) AS u (id)",
                &[
                    spi::arg(organization),
                    spi::arg(ids.to_vec()),
                    spi::arg(self.retry.as_ref().map(|retry| JsonB(retry.0.clone()))),
                    spi::arg(self.expires_at),
                    spi::arg(waits_until),
                    spi::arg(self.batch),
                ],
            )?;
        }
        if self.expires_at.is_some() {
            spi::run(
                "INSERT INTO usher.job_expiries (organization_id, job_id, expires_at) SELECT $1, u.id, $3 FROM unnest($2::uuid[]) AS u (id)",
                &[spi::arg(organization), spi::arg(ids.to_vec()), spi::arg(self.expires_at)],
            )?;
            xact::note_due_changed();
        }
        if !self.waits.is_empty() {
            let waits = [spi::arg(organization), spi::arg(ids.to_vec()), spi::arg(self.waits.clone()), spi::arg(self.run_anyway)];
            spi::run(
                "INSERT INTO usher.job_dependencies (organization_id, job_id, after_id, run_anyway)
                 SELECT $1, u.id, a.id, $4 FROM unnest($2::uuid[]) AS u (id) CROSS JOIN unnest($3::uuid[]) AS a (id)",
                &waits,
            )?;
            // A predecessor that ends right now does not see this row: somebody looks again after the commit.
            spi::run(
                "INSERT INTO usher.job_checks (organization_id, job_id) SELECT $1, u.id FROM unnest($2::uuid[]) AS u (id)",
                &waits[..2],
            )?;
            xact::note_due_changed();
        }
        Ok(())
    }
}

/// The end of an interval that begins now and has a length.
fn span(given: &str, what: &str) -> Result<TimestampWithTimeZone> {
    let now = ids::clock();
    let end = time(&Expiry::In(given.to_owned()), what)?;
    if i64::from(end) <= now {
        return Err(UsherError::invalid(format!("{what} is over as soon as it begins: \"{given}\""))
            .hint("Write a positive interval such as \"90 s\" or \"1 hour\"."));
    }
    Ok(end)
}

/// A time, or an interval from now, as PostgreSQL reads it.
fn time(expiry: &Expiry, what: &str) -> Result<TimestampWithTimeZone> {
    let (sql, given) = match expiry {
        Expiry::In(span) => ("SELECT pg_catalog.clock_timestamp() + $1::interval", span),
        Expiry::At(time) => ("SELECT $1::timestamptz", time),
    };
    let refused = || {
        UsherError::invalid(format!("{what} cannot be read: \"{given}\"")).hint(match expiry {
            Expiry::In(_) => "Write an interval such as \"90 s\" or \"1 hour\".",
            Expiry::At(_) => "Write a time with its zone, such as \"2026-12-31 23:00+01\".",
        })
    };
    let found =
        subxact::attempt(|| spi::read::<TimestampWithTimeZone>(sql, &[spi::arg(given.as_str())])).map_err(|_| refused())?;
    found.filter(|time| !matches!(i64::from(*time), i64::MIN | i64::MAX)).ok_or_else(refused)
}

/// A time as a caller wrote it, in the one form that every session reads alike.
pub fn instant(text: &str, what: &str) -> Result<String> {
    let at = time(&Expiry::At(text.to_owned()), what)?;
    Ok(spi::read::<String>("SELECT pg_catalog.to_jsonb($1::timestamptz) #>> '{}'", &[spi::arg(at)])?.unwrap_or_default())
}

/// The predecessors that are not synced; with `run_anyway` those that have not ended. All of them must exist.
fn not_synced(organization: Uuid, after: Vec<Uuid>, run_anyway: bool) -> Result<Vec<Uuid>> {
    let asked = after.len();
    let found = spi::read_all(
        "SELECT j.id, j.status FROM unnest($2::uuid[]) AS a (id)
          CROSS JOIN LATERAL (SELECT s.id, s.status FROM usher.sync_jobs AS s WHERE s.organization_id = $1 AND s.id = a.id LIMIT 1) AS j",
        &[spi::arg(organization), spi::arg(after.clone())],
        |row| Ok((row.get::<Uuid>(1)?, row.get::<String>(2)?.unwrap_or_default())),
    )?;
    if found.len() < asked {
        let known: Vec<Uuid> = found.iter().filter_map(|(id, _)| *id).collect();
        let lost = after.into_iter().find(|id| !known.contains(id)).map(|id| id.to_string()).unwrap_or_default();
        return Err(UsherError::not_found(format!("job {lost} in \"after\" does not exist in this organization"))
            .hint("Name jobs of the same organization whose history is still kept."));
    }
    let done = |status: &str| status == "synced" || run_anyway && matches!(status, "dead" | "cancelled");
    Ok(found.into_iter().filter(|(_, status)| !done(status)).filter_map(|(id, _)| id).collect())
}

/// A batch that jobs join: it cannot be sealed before the end of this transaction.
fn join(organization: Uuid, batch: Uuid) -> Result<()> {
    let open = spi::one::<bool>(
        "SELECT sealed_at IS NULL FROM usher.batch_definitions WHERE organization_id = $1 AND id = $2 FOR SHARE",
        &[spi::arg(organization), spi::arg(batch)],
    )?;
    match open {
        Some(true) => Ok(()),
        Some(false) => Err(UsherError::state(format!("batch {batch} is sealed: no more jobs join it"))
            .hint("Make another one with usher.create_batch().")),
        None => Err(UsherError::not_found(format!("batch {batch} does not exist in this organization"))
            .hint("usher.create_batch(organization, name) makes one and returns its id.")),
    }
}
