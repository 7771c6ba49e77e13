//! Violations that are to be repaired, and repairs, as they are kept. Runs with the owner's rights.

use super::look;
use super::repair_images::Change;
use super::store::Rule;
use crate::error::Result;
use crate::guard::audit;
use crate::pg::spi;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};
use std::collections::HashSet;

/// A violation.
#[derive(Debug, Clone)]
pub struct Open {
    pub id: Uuid,
    pub key: Value,
    pub row: Value,
    pub wrong: String,
    /// Of the row.
    pub hash: String,
    /// To be repaired: not waived, not gone.
    pub is_open: bool,
}

/// SQL for the hash of a bad row.
const HASH: &str =
    "pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(v.\"row\"::text, 'UTF8')), 'hex'), 1, 32)";

/// What is told of a violation.
const EVENT: &str = "pg_catalog.jsonb_build_object('id', v.id, 'rule', v.rule, 'key', v.key, 'wrong', v.wrong, 'severity', v.severity, 'first_seen_at', v.first_seen_at)";

fn nobody() -> Uuid {
    Uuid::from_bytes([0; 16])
}

/// Some violations of an organization, held until the end of the transaction.
pub fn read(organization: Uuid, ids: Vec<Uuid>) -> Result<Vec<Open>> {
    spi::all(
        &format!(
            "SELECT v.id, v.key, v.\"row\", v.wrong, {HASH}, v.status IN ('open', 'pending') FROM usher.violations AS v
              WHERE v.organization_id = $1 AND v.id = ANY ($2) ORDER BY v.id FOR UPDATE"
        ),
        &[spi::arg(organization), spi::arg(ids)],
        |row| {
            let json = |at| row.get::<JsonB>(at).map(|json| json.map(|json| json.0).unwrap_or_default());
            Ok(Open {
                id: row.get::<Uuid>(1)?.unwrap_or_else(nobody),
                key: json(2)?,
                row: json(3)?,
                wrong: row.get::<String>(4)?.unwrap_or_default(),
                hash: row.get::<String>(5)?.unwrap_or_default(),
                is_open: row.get::<bool>(6)? == Some(true),
            })
        },
    )
}

/// Which violations of a rule are chosen.
pub enum Choice {
    /// All that are open, of one organization or of all, up to so many.
    Open(Option<Uuid>, i64),
    /// Those that may be repaired without being asked for now: attempts, milliseconds between them, how many; among these, if any.
    Due(i32, i64, i64, Option<Vec<Uuid>>),
}

/// Violations by organization.
pub fn chosen(rule: i32, choice: Choice) -> Result<Vec<(Uuid, Vec<Uuid>)>> {
    let read = |row: &pgrx::spi::SpiTupleTable<'_>| {
        Ok((row.get::<Uuid>(1)?.unwrap_or_else(nobody), row.get::<Vec<Uuid>>(2)?.unwrap_or_default()))
    };
    match choice {
        Choice::Open(organization, most) => spi::read_all(
            "SELECT c.organization_id, pg_catalog.array_agg(c.id ORDER BY c.id)
               FROM (SELECT v.organization_id, v.id FROM usher.violations AS v
                      WHERE v.rule_id = $1 AND v.status = 'open' AND ($2::uuid IS NULL OR v.organization_id = $2)
                      ORDER BY v.organization_id, v.first_seen_at, v.id LIMIT $3) AS c
              GROUP BY c.organization_id ORDER BY c.organization_id",
            &[spi::arg(rule), spi::arg(organization), spi::arg(most)],
            read,
        ),
        Choice::Due(most, wait, limit, among) => spi::read_all(
            "SELECT c.organization_id, pg_catalog.array_agg(c.id ORDER BY c.id)
               FROM (SELECT v.organization_id, v.id FROM usher.violations AS v
                      WHERE v.rule_id = $1 AND v.status = 'open' AND v.repairs < $2 AND ($5::uuid[] IS NULL OR v.id = ANY ($5))
                        AND (v.tried_at IS NULL OR v.repairs = 0 AND v.tried_at < v.first_seen_at
                             OR v.tried_at + $3 * '1 millisecond'::interval * pg_catalog.power(2, GREATEST(v.repairs - 1, 0)) <= pg_catalog.clock_timestamp())
                      ORDER BY v.tried_at NULLS FIRST, v.organization_id, v.id LIMIT $4) AS c
              GROUP BY c.organization_id ORDER BY c.organization_id",
            &[spi::arg(rule), spi::arg(most), spi::arg(wait), spi::arg(limit), spi::arg(among)],
            read,
        ),
    }
}

/// Attempts within the last minute.
pub fn tried_lately(rule: i32) -> Result<i64> {
    let tried = spi::read::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.violations AS v WHERE v.rule_id = $1 AND v.tried_at > pg_catalog.clock_timestamp() - '1 minute'::interval",
        &[spi::arg(rule)],
    )?;
    Ok(tried.unwrap_or(0))
}

/// Seconds until the next attempt that nobody has to ask for, or until a violation that has none left is given up. None: there is none.
pub fn next(rule: i32, most: i32, wait: i64) -> Result<Option<f64>> {
    spi::read::<f64>(
        "SELECT pg_catalog.min(CASE WHEN v.tried_at IS NULL OR v.repairs = 0 AND v.tried_at < v.first_seen_at THEN 0
                                    ELSE GREATEST(0, EXTRACT(epoch FROM v.tried_at + $3 * '1 millisecond'::interval
                                             * CASE WHEN v.repairs < $2 THEN pg_catalog.power(2, GREATEST(v.repairs - 1, 0)) ELSE 1 END - pg_catalog.clock_timestamp())) END)::float8
           FROM usher.violations AS v WHERE v.rule_id = $1 AND v.status = 'open' AND (v.repairs < $2 OR NOT v.manual)",
        &[spi::arg(rule), spi::arg(most), spi::arg(wait)],
    )
}

/// Violations that a repair has ended.
pub fn ended(organization: Uuid, ids: Vec<Uuid>) -> Result<()> {
    let events = spi::all(
        &format!(
            "UPDATE usher.violations AS v
                SET status = 'repaired', repaired_at = pg_catalog.clock_timestamp(), ended_at = pg_catalog.clock_timestamp(), tried_at = pg_catalog.clock_timestamp(),
                    due_at = NULL, escalate_at = NULL, repairs = v.repairs + 1, last_error = NULL
              WHERE v.organization_id = $1 AND v.id = ANY ($2) RETURNING {EVENT}"
        ),
        &[spi::arg(organization), spi::arg(ids)],
        |row| Ok(row.get::<JsonB>(1)?),
    )?;
    tell("usher.violation.repaired", organization, events)
}

fn tell(event: &str, organization: Uuid, events: Vec<Option<JsonB>>) -> Result<()> {
    let events: Vec<JsonB> = events.into_iter().flatten().collect();
    look::tell(event, (events.iter().map(|_| organization).collect(), events))
}

/// Violations whose repair failed, why, and whether only because somebody was in the way, which is not counted. Those that have no
/// attempt left are told of. Comes back as those that are open still.
pub fn failed(rule: &Rule, most: i32, organization: Uuid, failed: Vec<(Uuid, String, bool)>) -> Result<HashSet<Uuid>> {
    let (mut ids, mut whys, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for (id, why, was_busy) in failed {
        ids.push(id);
        whys.push(why);
        busy.push(was_busy);
    }
    attempted(rule, most, organization, (ids, whys.into_iter().map(Some).collect(), busy))
}

/// Violations whose flow was asked.
pub fn asked(rule: &Rule, most: i32, organization: Uuid, ids: Vec<Uuid>) -> Result<HashSet<Uuid>> {
    let (nothing, counted) = (ids.iter().map(|_| None).collect(), ids.iter().map(|_| false).collect());
    attempted(rule, most, organization, (ids, nothing, counted))
}

type Attempts = (Vec<Uuid>, Vec<Option<String>>, Vec<bool>);

fn attempted(rule: &Rule, most: i32, organization: Uuid, (ids, whys, busy): Attempts) -> Result<HashSet<Uuid>> {
    let rows = spi::all(
        &format!(
            "UPDATE usher.violations AS v
                SET repairs = v.repairs + CASE WHEN f.busy THEN 0 ELSE 1 END, tried_at = pg_catalog.clock_timestamp(), last_error = f.why,
                    gave_up_at = CASE WHEN f.why IS NULL THEN NULL
                                      WHEN v.repairs + CASE WHEN f.busy THEN 0 ELSE 1 END >= $5 THEN COALESCE(CASE WHEN v.manual THEN v.gave_up_at END, pg_catalog.clock_timestamp()) END
               FROM unnest($2::uuid[], $3::text[], $4::boolean[]) AS f (id, why, busy)
               JOIN usher.violations AS was ON was.organization_id = $1 AND was.id = f.id
              WHERE v.organization_id = $1 AND v.id = f.id AND v.status IN ('open', 'pending')
             RETURNING v.id, v.manual AND NOT was.manual, {EVENT} || pg_catalog.jsonb_build_object('attempts', v.repairs, 'error', v.last_error)"
        ),
        &[spi::arg(organization), spi::arg(ids), spi::arg(whys), spi::arg(busy), spi::arg(most)],
        |row| Ok((row.get::<Uuid>(1)?.unwrap_or_else(nobody), row.get::<bool>(2)? == Some(true), row.get::<JsonB>(3)?)),
    )?;
    let (mut open, mut given_up) = (HashSet::new(), Vec::new());
    for (id, gave_up, event) in rows {
        open.insert(id);
        if gave_up {
            given_up.push(event);
        }
    }
    if !given_up.is_empty() {
        pgrx::warning!(
            "rule \"{}\": {} of its violations were not repaired in {most} attempts and need somebody to see to them",
            rule.name,
            given_up.len()
        );
    }
    tell("usher.violation.repair_failed", organization, given_up)?;
    Ok(open)
}

/// A repair to be written down.
pub struct Record<'a> {
    pub organization: Uuid,
    pub id: Uuid,
    pub rule: &'a Rule,
    pub kind: &'static str,
    pub violations: Vec<Uuid>,
    pub by: String,
    pub automatic: bool,
    pub run_as: Oid,
    pub statement: String,
    pub changes: &'a [Change],
    pub cannot_undo: Option<String>,
    pub undoes: Option<Uuid>,
}

pub fn write(installed: Installed, record: &Record<'_>) -> Result<()> {
    spi::run(
        "INSERT INTO usher.repairs (organization_id, id, rule_id, rule, kind, violations, repaired_by, automatic, run_as, statement, changes, cannot_undo, undoes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::oid::regrole, $10, $11, $12, $13)",
        &[
            spi::arg(record.organization),
            spi::arg(record.id),
            spi::arg(record.rule.id),
            spi::arg(record.rule.name.as_str()),
            spi::arg(record.kind),
            spi::arg(record.violations.clone()),
            spi::arg(record.by.as_str()),
            spi::arg(record.automatic),
            spi::arg(record.run_as),
            spi::arg(record.statement.as_str()),
            spi::arg(JsonB(Value::Array(record.changes.iter().map(Change::json).collect()))),
            spi::arg(record.cannot_undo.clone()),
            spi::arg(record.undoes),
        ],
    )?;
    let action = if record.undoes.is_some() { "usher.repairs.undone" } else { "usher.rules.repaired" };
    let said = json!({
        "repair": record.id.to_string(), "kind": record.kind, "violations": record.violations.len(), "rows": record.changes.len(),
        "automatic": record.automatic, "undoes": record.undoes.map(|id| id.to_string()),
    });
    let organization = Some(record.organization).filter(|id| *id != nobody());
    audit::note(installed, organization, action, &record.rule.name, None, Some(said))
}

/// Violations of a rule that have no attempt left and are open all the same, some time after the last: a flow was asked and it has not
/// helped, or what was repaired did not last.
pub fn give_up(rule: &Rule, most: i32, wait: i64) -> Result<()> {
    let rows = spi::all(
        &format!(
            "UPDATE usher.violations AS v SET gave_up_at = pg_catalog.clock_timestamp(), last_error = COALESCE(v.last_error, CASE WHEN v.repaired_at IS NULL THEN 'the repair did not help' ELSE 'it was repaired and is bad again' END)
              WHERE v.rule_id = $1 AND v.status = 'open' AND NOT v.manual AND v.repairs >= $2
                AND v.tried_at + $3 * '1 millisecond'::interval <= pg_catalog.clock_timestamp()
             RETURNING v.organization_id, {EVENT} || pg_catalog.jsonb_build_object('attempts', v.repairs, 'error', v.last_error)"
        ),
        &[spi::arg(rule.id), spi::arg(most), spi::arg(wait)],
        |row| Ok((row.get::<Uuid>(1)?.unwrap_or_else(nobody), row.get::<JsonB>(2)?)),
    )?;
    for (organization, event) in rows {
        tell("usher.violation.repair_failed", organization, vec![event])?;
    }
    Ok(())
}

/// Repairs of so long ago, as other history: with them goes what the rows were before.
pub fn prune(days: i32) -> Result<()> {
    spi::run(
        "DELETE FROM usher.repairs AS r WHERE r.repaired_at < pg_catalog.now() - $1 * '1 day'::interval",
        &[spi::arg(days)],
    )?;
    Ok(())
}
