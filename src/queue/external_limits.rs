//! Limits of external systems, asked when a worker outside takes jobs.
//!
//! A job counts for its system and for its organization's connection to it, so what may be taken is a number for each: nobody
//! looks through jobs that may not be. Who takes jobs of a limited system holds its lock until the commit, and what is in
//! flight is told by the leases: right among many workers, and after a crash.

use super::external::{self, Handed};
use super::limits::{self, Keys, Rule};
use crate::error::Result;
use crate::flow::limits::Bound;
use crate::pg::buckets::{Verdict, Wish};
use crate::pg::spi;
use pgrx::Uuid;
use std::collections::BTreeMap;

/// Organizations of `$2` with jobs that can be taken, and how many of theirs, and of everybody's, are in flight.
const STATE: &str = "
SELECT o.id,
       (SELECT pg_catalog.count(*) FROM usher.queue_waiting w
         WHERE w.waiting_for = 'external worker' AND w.leased_by IS NOT NULL AND w.due_at IS NOT NULL AND w.target_system = $1
           AND w.organization_id = o.id AND w.due_at > (SELECT pg_catalog.clock_timestamp())),
       (SELECT pg_catalog.count(*) FROM usher.queue_waiting w
         WHERE w.waiting_for = 'external worker' AND w.leased_by IS NOT NULL AND w.due_at IS NOT NULL AND w.target_system = $1
           AND w.due_at > (SELECT pg_catalog.clock_timestamp()))
  FROM unnest($2::uuid[]) AS o (id)
 WHERE EXISTS (SELECT FROM usher.queue_waiting w
                WHERE w.waiting_for = 'external worker' AND w.due_at IS NULL AND w.target_system = $1 AND w.organization_id = o.id)";

/// `$2` organizations, `$7` how many of each.
const OF_EACH_SO_MANY: &str = "
    SELECT x.at
      FROM unnest($2::uuid[], $7::bigint[]) AS o (id, allowed)
     CROSS JOIN LATERAL (
           SELECT w.ctid AS at, w.lane, w.seq FROM usher.queue_waiting AS w
            WHERE w.waiting_for = 'external worker' AND w.due_at IS NULL AND w.target_system = $1 AND w.organization_id = o.id
            ORDER BY w.lane, w.seq LIMIT LEAST(o.allowed, $6)) AS x
     ORDER BY x.lane, x.seq LIMIT $6";

/// The keys of the rates that a job of an organization counts for.
fn rates(rules: &[Rule], keys: &mut Keys, organization: Uuid) -> Vec<usize> {
    rules
        .iter()
        .filter_map(|rule| rule.pace().map(|pace| keys.add(rule.key(organization, &[]), pace, rule.organization(organization))))
        .collect()
}

/// As [`external::claim`], for a system with limits. Expired leases have been put back before.
pub fn claim(system: &str, rules: &[Rule], organizations: &[Uuid], most: i32, by: &str, seconds: f64) -> Result<Vec<Handed>> {
    limits::lock(&format!("system {system}"));
    let state = spi::all(STATE, &[spi::arg(system), spi::arg(organizations.to_vec())], |row| {
        let count = |at| -> Result<i64> { Ok(row.get::<i64>(at)?.unwrap_or(0)) };
        Ok((row.get::<Uuid>(1)?.unwrap_or_else(|| Uuid::from_bytes([0; 16])), count(2)?, count(3)?))
    })?;
    if state.is_empty() {
        return Ok(Vec::new());
    }
    let mut keys = Keys::default();
    let needs: Vec<Vec<usize>> = state.iter().map(|(organization, ..)| rates(rules, &mut keys, *organization)).collect();
    let rooms = keys.look()?;
    let mut allowed: (Vec<Uuid>, Vec<i64>) = Default::default();
    let mut all = i64::from(most);
    for ((organization, theirs, everybody), needs) in state.iter().zip(&needs) {
        let mut own = i64::from(most);
        let mut rates = needs.iter();
        for rule in rules {
            let shared = rule.organization(*organization).is_none();
            let room = match rule.bound {
                Bound::Concurrency(most) => i64::from(most) - if shared { *everybody } else { *theirs },
                Bound::Rate(_) => rates.next().map_or(0, |index| rooms[*index]),
            };
            if shared {
                all = all.min(room);
            } else {
                own = own.min(room);
            }
        }
        if own > 0 {
            allowed.0.push(*organization);
            allowed.1.push(own);
        }
    }
    if all <= 0 || allowed.0.is_empty() {
        return Ok(Vec::new());
    }
    let arguments = [
        spi::arg(system),
        spi::arg(allowed.0),
        spi::arg(all),
        spi::arg(by),
        spi::arg(seconds),
        spi::arg(all),
        spi::arg(allowed.1),
    ];
    let handed = spi::all(&external::take(OF_EACH_SO_MANY), &arguments, external::read)?;
    count(rules, handed.into_iter().flatten().collect())
}

/// Counts what was taken. Others who do not take the system's lock, batches of flows, may have been faster since we looked: then
/// the last ones are given back.
fn count(rules: &[Rule], handed: Vec<Handed>) -> Result<Vec<Handed>> {
    let mut keys = Keys::default();
    let mut known: BTreeMap<[u8; 16], Vec<usize>> = BTreeMap::new();
    let wishes: Vec<Wish> = (0..)
        .zip(&handed)
        .map(|(seq, job)| {
            let organization = job.organization;
            let needs = known.entry(*organization.as_bytes()).or_insert_with(|| rates(rules, &mut keys, organization));
            Wish { seq, row: None, needs: needs.clone() }
        })
        .collect();
    if wishes.iter().all(|wish| wish.needs.is_empty()) {
        return Ok(handed);
    }
    // Nobody waits for these keys in the queue of batches: what comes first here is the order of the claim.
    let verdicts = keys.decide_freely(&wishes)?;
    limits::mark()?;
    let (kept, surplus): (Vec<_>, Vec<_>) = handed.into_iter().zip(verdicts).partition(|(_, verdict)| *verdict == Verdict::Go);
    if !surplus.is_empty() {
        let leases: Vec<Uuid> = surplus.iter().map(|(job, _)| job.lease).collect();
        spi::run(
            "UPDATE usher.queue_waiting SET lease_id = NULL, leased_by = NULL, due_at = NULL, attempts = attempts - 1 WHERE lease_id = ANY ($1)",
            &[spi::arg(leases)],
        )?;
    }
    Ok(kept.into_iter().map(|(job, _)| job).collect())
}
