//! Limits of calls that leave the database: asked when a caller takes one.
//!
//! What is in flight is told by the leases, so it is right after a crash as well. Everybody who decides on a key, or whose call
//! ends, takes the key's lock first and keeps it until the commit: nobody counts what another is about to change. Who finds no
//! room waits for `concurrency limit`, and is let go, the oldest first, by whoever makes room.

use super::calls::Taken;
use super::limits::{self, Keys, Rule};
use crate::error::Result;
use crate::flow::limits::Bound;
use crate::flow::store::Flow;
use crate::pg::buckets::{Verdict, Wish};
use crate::pg::{spi, xact};
use crate::setup::Installed;
use std::collections::BTreeSet;

/// Calls in flight that count for `$1`, but for the job `$2`, `$3`.
const IN_FLIGHT: &str = "
SELECT pg_catalog.count(*) FROM usher.queue_waiting w
 WHERE w.waiting_for = 'external call' AND w.leased_by IS NOT NULL AND $1 = ANY (w.limit_keys)
   AND (w.organization_id, w.id) IS DISTINCT FROM ($2::uuid, $3::uuid)";

/// True when a job that was just taken may be called now. Else it has been put where it waits.
pub fn pass(installed: Installed, rules: &[Rule], asked: &Flow, job: &mut Taken) -> Result<bool> {
    let handed = std::mem::take(&mut job.limit_keys);
    // What was handed over before the flow had this limit counts as without a value.
    let key_of = |rule: &Rule| match handed.iter().find(|key| rule.is_per_key() && rule.has(key)) {
        Some(key) => key.clone(),
        None => rule.key(job.organization, &[]),
    };
    let keyed: Vec<(&Rule, String)> = rules.iter().map(|rule| (rule, key_of(rule))).collect();
    // In one order, so that nobody waits in a circle.
    keyed.iter().map(|(_, key)| key.as_str()).collect::<BTreeSet<_>>().into_iter().for_each(limits::lock);
    for (rule, key) in &keyed {
        let Bound::Concurrency(most) = rule.bound else { continue };
        let arguments = [spi::arg(key.as_str()), spi::arg(job.organization), spi::arg(job.id)];
        let in_flight = spi::one::<i64>(IN_FLIGHT, &arguments)?.unwrap_or(0);
        let behind = spi::one::<bool>(
            "SELECT EXISTS (SELECT FROM usher.queue_waiting w WHERE w.limit_key = $1 AND w.lane = $2 AND w.seq < $3 AND w.waiting_for = 'concurrency limit')",
            &[spi::arg(key.as_str()), spi::arg(job.lane), spi::arg(job.seq)],
        )?;
        if in_flight >= i64::from(most) || behind == Some(true) {
            wait(installed, asked, job, "concurrency limit", key, None, &handed)?;
            let_go(key, i64::from(most) - in_flight)?;
            return Ok(false);
        }
    }
    let mut keys = Keys::default();
    let mut needs = Vec::new();
    for (rule, key) in &keyed {
        if let Some(pace) = rule.pace() {
            needs.push(keys.add(key.clone(), pace, rule.organization(job.organization)));
        }
    }
    if !needs.is_empty() {
        let wish = Wish { seq: job.seq, row: None, needs };
        if let Some(Verdict::Held(index, slot)) = keys.decide(&[wish], Some(job.lane))?.first() {
            wait(installed, asked, job, "rate limit", keys.text(*index), Some(limits::until(*slot)), &handed)?;
            xact::note_due_changed();
            return Ok(false);
        }
        limits::mark()?;
    }
    job.limit_keys =
        keyed.into_iter().filter(|(rule, _)| rule.is_per_key() || rule.pace().is_none()).map(|(_, key)| key).collect();
    spi::run(
        "UPDATE usher.queue_waiting SET limit_keys = $3 WHERE organization_id = $1 AND id = $2",
        &[spi::arg(job.organization), spi::arg(job.id), spi::arg(job.limit_keys.clone())],
    )?;
    Ok(true)
}

/// A job that was taken goes back to wait: the try does not count. `after`: seconds, for the first that waits.
fn wait(
    installed: Installed,
    asked: &Flow,
    job: &Taken,
    reason: &str,
    key: &str,
    after: Option<f64>,
    keys: &[String],
) -> Result<()> {
    let systems: Vec<String> = asked.definition.to.iter().cloned().collect();
    if !limits::stay(installed, &[(asked.id, asked.version)], &systems)? {
        // They are just being changed: handed over again, and asked under the new ones.
        spi::run(
            "UPDATE usher.queue_waiting w
                SET waiting_for = 'run_at', limit_key = NULL, limit_keys = NULL, leased_by = NULL, lease_id = NULL, attempts = w.attempts - 1,
                    due_at = pg_catalog.clock_timestamp() + interval '500 ms'
              WHERE w.organization_id = $1 AND w.id = $2",
            &[spi::arg(job.organization), spi::arg(job.id)],
        )?;
        xact::note_due_changed();
        return Ok(());
    }
    spi::run(
        "UPDATE usher.queue_waiting w
            SET waiting_for = $3, limit_key = $4, limit_keys = $6, leased_by = NULL, lease_id = NULL, attempts = w.attempts - 1,
                due_at = CASE WHEN NOT EXISTS (SELECT FROM usher.queue_waiting e WHERE e.limit_key = $4 AND e.lane = w.lane AND e.limit_key IS NOT NULL AND e.due_at IS NOT NULL)
                              THEN pg_catalog.clock_timestamp() + $5 * interval '1 second' END
          WHERE w.organization_id = $1 AND w.id = $2",
        &[
            spi::arg(job.organization),
            spi::arg(job.id),
            spi::arg(reason),
            spi::arg(key),
            spi::arg(after),
            spi::arg(keys.to_vec()),
        ],
    )?;
    Ok(())
}

/// The first `many` that wait for room can be taken.
fn let_go(key: &str, many: i64) -> Result<()> {
    if many > 0 {
        let gone = spi::run(
            "UPDATE usher.queue_waiting SET waiting_for = 'external call', limit_key = NULL
              WHERE ctid = ANY (ARRAY(SELECT w.ctid FROM usher.queue_waiting w WHERE w.limit_key = $1 AND w.waiting_for = 'concurrency limit'
                                       ORDER BY w.lane, w.seq LIMIT $2 FOR UPDATE SKIP LOCKED))",
            &[spi::arg(key), spi::arg(many)],
        )?;
        if gone > 0 {
            xact::note_callers();
        }
    }
    Ok(())
}

/// A call that counted for these keys is not in flight any more.
pub fn release(installed: Installed, keys: BTreeSet<String>) -> Result<()> {
    for key in keys {
        let most = match limits::rule_of(installed, &key)? {
            Some((rule, _)) => match rule.bound {
                Bound::Concurrency(most) => i64::from(most),
                Bound::Rate(_) => continue,
            },
            // The limit is gone: nothing holds them.
            None => i64::from(i32::MAX),
        };
        limits::lock(&key);
        let nobody = None::<pgrx::Uuid>;
        let arguments = [spi::arg(key.as_str()), spi::arg(nobody), spi::arg(nobody)];
        let in_flight = spi::one::<i64>(IN_FLIGHT, &arguments)?.unwrap_or(0);
        let_go(&key, most - in_flight)?;
    }
    Ok(())
}

/// Lets the first go of each limit for which nothing is in flight: whoever should have done so died. Looks at one job of each key.
pub const HEAL: &str = "
WITH RECURSIVE k AS (
    (SELECT w.limit_key FROM usher.queue_waiting w WHERE w.limit_key IS NOT NULL ORDER BY w.limit_key LIMIT 1)
    UNION ALL
    SELECT n.limit_key FROM k CROSS JOIN LATERAL (
           SELECT w.limit_key FROM usher.queue_waiting w WHERE w.limit_key IS NOT NULL AND w.limit_key > k.limit_key ORDER BY w.limit_key LIMIT 1) AS n)
UPDATE usher.queue_waiting w SET waiting_for = 'external call', limit_key = NULL
 WHERE w.ctid = ANY (ARRAY(
       SELECT f.at FROM k CROSS JOIN LATERAL (
              SELECT x.ctid AS at, x.waiting_for FROM usher.queue_waiting x WHERE x.limit_key = k.limit_key ORDER BY x.lane, x.seq LIMIT 1) AS f
        WHERE f.waiting_for = 'concurrency limit'
          AND NOT EXISTS (SELECT FROM usher.queue_waiting c WHERE c.waiting_for = 'external call' AND c.leased_by IS NOT NULL AND k.limit_key = ANY (c.limit_keys))))";
