//! What the worker does with rules: everything is looked at when its time has come, a part at a time, and rows whose time of grace is over.
//!
//! A part is a transaction of its own: how far a look has come is kept, so that it goes on after a restart, and no snapshot is held
//! for longer than a part takes. What fails, takes too long or finds a lock does not keep the other rules.

use super::aside;
use super::fit::Fitted;
use super::keyed;
use super::look::{self, Keys, Scope, Seen};
use super::repair_auto;
use super::statement::Bounds;
use super::store::{self, PATIENCE, Rule};
use super::touched_checks as checks;
use crate::conflict::Next;
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::subxact::{self, Failure};
use crate::pg::{role, spi};
use crate::setup::Installed;
use pgrx::PgSqlErrorCode;
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// As long as one part may take before it is ended, and a look at a query that has no parts.
pub const LIMIT: Duration = Duration::from_secs(10);
/// What a part should take: others wait for the worker meanwhile.
const WISHED: Duration = Duration::from_millis(250);
/// Rows of the table whose keys are the first part.
const ROWS: i32 = 5_000;
const MOST_ROWS: i32 = 500_000;
/// The longest that a rule for which all is well waits, unless it says so itself. Milliseconds.
pub const LONGEST_WAIT: i64 = 600_000;
/// Keys that could not be evaluated before a look is given up.
const MOST_SKIPPED: usize = 100;
/// Rows whose grace is over, in one transaction.
const MOST_DUE: i64 = 1_000;

thread_local! {
    static KEYS_FIRST: Cell<bool> = const { Cell::new(true) };
}

/// One thing that is due.
pub fn turn(installed: Installed) -> Result<Next> {
    if !installed.up_to_date {
        return Ok(Next::In(None));
    }
    let _acting = role::internal(installed.owner);
    let _nest = Nest::open().lock_timeout(PATIENCE);
    if graces(installed)? || repairs(installed)? {
        return Ok(Next::Now);
    }
    // In turns: of either there may be more than a worker can do.
    let keys_first = KEYS_FIRST.replace(!KEYS_FIRST.get());
    let mut steps: [fn(Installed) -> Result<bool>; 2] = [sweeps, checks::by_the_clock];
    if keys_first {
        steps.reverse();
    }
    for step in steps {
        if step(installed)? {
            return Ok(Next::Now);
        }
    }
    next()
}

/// Seconds until a repair that failed as a whole is tried again.
const AGAIN: f64 = 10.0;

/// What one rule repairs by itself. False: there is nothing to be done now.
fn repairs(installed: Installed) -> Result<bool> {
    let aside = aside::rules();
    for rule in repair_auto::due(AGAIN)? {
        let Some(rule) = store::by_id(rule)?.filter(|rule| !aside.contains(&rule.id)) else { continue };
        if repair_auto::next_repair(&rule)?.is_none_or(|seconds| seconds > 0.0) {
            continue;
        }
        let mut any = false;
        aside::apart(rule.id, || {
            aside::look(rule.id)?;
            match subxact::attempt_within(Some(LIMIT), || repair_auto::auto_repair(installed, &rule, None)) {
                Ok(done) => {
                    repair_auto::went_well(rule.id);
                    // Nothing: as many as a minute may have.
                    any = done != repair_auto::Done::default();
                    Ok(())
                }
                Err(failure) if failure.is_busy() => Err(failure.into()),
                Err(failure) => {
                    if failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED {
                        repair_auto::took_too_long(&rule, &failure)?;
                    }
                    failed(installed, &rule, &failure)
                }
            }
        })?;
        if any {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Seconds until the next repair.
fn next_repair() -> Result<Option<f64>> {
    let mut next: Option<f64> = None;
    for rule in repair_auto::due(0.0)? {
        let Some(rule) = store::by_id(rule)? else { continue };
        if let Some(seconds) = repair_auto::next_repair(&rule)? {
            // What could be done now, and was not: somebody is in the way, or a minute has to pass.
            let seconds = seconds.max(1.0);
            next = Some(next.map_or(seconds, |next| next.min(seconds)));
        }
    }
    Ok(next)
}

/// All that is due, in a session of a database without workers.
pub fn without_workers(installed: Installed) -> Result<()> {
    while turn(installed)? == Next::Now {}
    Ok(())
}

fn next() -> Result<Next> {
    let seconds = spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(t.at) - pg_catalog.clock_timestamp())::float8
           FROM (SELECT l.check_at AS at FROM usher.rules AS l WHERE l.enabled AND l.state = 'active' AND l.id <> ALL ($1)
                 UNION ALL
                 -- Whoever writes wakes nobody: at the latest after so long somebody looks whether anything was touched.
                 SELECT CASE WHEN l.keys_at > pg_catalog.clock_timestamp() THEN l.keys_at ELSE pg_catalog.clock_timestamp() + l.keys_every END
                   FROM usher.rules AS l WHERE l.enabled AND l.state = 'active' AND l.keys_every IS NOT NULL AND (l.keyed_now OR l.sweep_began_at IS NOT NULL)
                    AND l.id <> ALL ($1)
                 UNION ALL
                 (SELECT v.due_at FROM usher.violations AS v JOIN usher.rules AS l ON l.id = v.rule_id AND l.enabled AND l.state = 'active'
                   WHERE v.status = 'pending' AND v.due_at IS NOT NULL AND v.rule_id <> ALL ($1) ORDER BY v.due_at LIMIT 1)) AS t",
        &[spi::arg(aside::rules())],
    )?;
    Ok(Next::In([seconds, next_repair()?, aside::next()].into_iter().flatten().reduce(f64::min)))
}

/// Looks again at rows that may have been bad for long enough. False: there are none.
fn graces(installed: Installed) -> Result<bool> {
    let due = spi::all(
        "SELECT v.rule_id, v.organization_id, v.key FROM usher.violations AS v JOIN usher.rules AS l ON l.id = v.rule_id AND l.enabled AND l.state = 'active'
          WHERE v.status = 'pending' AND v.due_at <= pg_catalog.clock_timestamp() AND v.rule_id <> ALL ($2) ORDER BY v.due_at LIMIT $1",
        &[spi::arg(MOST_DUE), spi::arg(aside::rules())],
        |row| {
            Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<Uuid>(2)?, row.get::<JsonB>(3)?.unwrap_or(JsonB(Value::Null))))
        },
    )?;
    let mut by_rule: BTreeMap<i32, Keys> = BTreeMap::new();
    for (rule, organization, key) in due {
        let keys = by_rule.entry(rule).or_default();
        // What names no organization is found with that of nobody, by its key alone.
        keys.organizations.push(organization.filter(|id| id.as_bytes() != &[0; 16]));
        keys.keys.push(key);
    }
    let any = !by_rule.is_empty();
    for (id, keys) in by_rule {
        aside::apart(id, || grace(installed, id, &keys))?;
    }
    Ok(any)
}

fn grace(installed: Installed, id: i32, keys: &Keys) -> Result<()> {
    aside::look(id)?;
    let Some(rule) = store::by_id(id)? else { return Ok(()) };
    let outcome = subxact::attempt_within(Some(LIMIT), || {
        let Some(rule) = store::held(&rule)? else { return Ok(Seen::default()) };
        let fitted = rule.fit(installed)?;
        look::look(installed, &rule, &fitted, &Scope::Keys(keys))
    });
    match outcome {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_busy() => Err(failure.into()),
        Err(failure) => {
            failed(installed, &rule, &failure)?;
            // Later, and not in a circle.
            spi::run(
                "UPDATE usher.violations AS v SET due_at = pg_catalog.clock_timestamp() + '10 seconds'::interval
                  WHERE v.rule_id = $1 AND v.status = 'pending' AND v.due_at <= pg_catalog.clock_timestamp()",
                &[spi::arg(id)],
            )?;
            Ok(())
        }
    }
}

/// A look that is under way, or is to begin.
struct Sweep {
    /// It goes on from a part that was finished before.
    began: bool,
    position: Option<Value>,
    rows: i32,
    found: i64,
    skipped: Vec<Value>,
    /// Milliseconds.
    wait: Option<i64>,
    /// Nothing has been found, and the time to look all the same has not come.
    may_rest: bool,
    /// What the tables' counters of changes said when the last look began.
    changes: Option<i64>,
    /// It began when everybody noted what he touched.
    sure: bool,
    /// Until it begins it is enough to look at what was touched.
    keyed_now: bool,
}

fn sweep_of(rule: i32) -> Result<Option<Sweep>> {
    let found = spi::all(
        "SELECT l.sweep_began_at IS NOT NULL, l.sweep_position, l.sweep_rows, l.sweep_found, l.sweep_skipped,
                (EXTRACT(epoch FROM l.wait) * 1000)::bigint,
                l.last_found = 0 AND l.last_error IS NULL AND l.last_checked_at + l.wait > pg_catalog.clock_timestamp(), l.changes, l.sweep_sure, l.keyed_now
           FROM usher.rules AS l WHERE l.id = $1 FOR NO KEY UPDATE",
        &[spi::arg(rule)],
        |row| {
            Ok(Sweep {
                began: row.get::<bool>(1)? == Some(true),
                position: row.get::<JsonB>(2)?.map(|json| json.0),
                rows: row.get::<i32>(3)?.unwrap_or(ROWS),
                found: row.get::<i64>(4)?.unwrap_or(0),
                skipped: row.get::<JsonB>(5)?.and_then(|json| json.0.as_array().cloned()).unwrap_or_default(),
                wait: row.get::<i64>(6)?,
                may_rest: row.get::<bool>(7)? == Some(true),
                changes: row.get::<i64>(8)?,
                sure: row.get::<bool>(9)? == Some(true),
                keyed_now: row.get::<bool>(10)? == Some(true),
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// One part of the rule whose time has come first. False: there is none.
fn sweeps(installed: Installed) -> Result<bool> {
    let due = store::rules(
        "l.id = (SELECT d.id FROM usher.rules AS d WHERE d.enabled AND d.state = 'active' AND d.check_at <= pg_catalog.clock_timestamp() AND d.id <> ALL ($1) ORDER BY d.check_at, d.id LIMIT 1)",
        &[spi::arg(aside::rules())],
    )?;
    let Some(rule) = due.into_iter().next() else { return Ok(false) };
    aside::apart(rule.id, || sweep_on(installed, &rule))?;
    Ok(true)
}

/// One part of one rule.
fn sweep_on(installed: Installed, rule: &Rule) -> Result<()> {
    aside::look(rule.id)?;
    // As it is now that nobody else changes it.
    let Some(rule) = store::held(rule)?.filter(|rule| rule.enabled && !rule.broken) else { return Ok(()) };
    let Some(sweep) = sweep_of(rule.id)? else { return Ok(()) };
    let begun = Instant::now();
    let outcome = subxact::attempt_within(Some(LIMIT), || part(installed, &rule, &sweep));
    match outcome {
        Ok(Step::Rested(every)) => again(rule.id, every)?,
        Ok(Step::Cleared) => {}
        Ok(Step::More(position, seen)) => {
            let took = begun.elapsed();
            let rows = match took {
                took if took < WISHED / 2 => sweep.rows.saturating_mul(2).min(MOST_ROWS),
                took if took > WISHED * 2 => (sweep.rows / 2).max(1),
                _ => sweep.rows,
            };
            keep(rule.id, &Sweep { position: Some(position), rows, found: sweep.found + seen.new + seen.still, ..sweep })?;
        }
        Ok(Step::Finished(ended)) => finish(&rule, &sweep, ended)?,
        Err(failure) if failure.is_busy() => return Err(failure.into()),
        Err(failure) => stumbled(installed, &rule, sweep, &failure)?,
    }
    Ok(())
}

enum Step {
    /// Nothing has changed: looked at again after so many milliseconds.
    Rested(i64),
    /// Much was touched that need not be looked at, because everything is.
    Cleared,
    More(Value, Seen),
    Finished(Ended),
}

/// How a look at everything has ended.
struct Ended {
    every: Option<i64>,
    /// What was touched is enough from now on, and everything is looked at after so long; None: after `every`.
    full: Option<i64>,
    found: i64,
    /// Columns of the query that make up the key of a part, if there were parts.
    parts: Option<Vec<String>>,
    tolerance: i64,
    escalate: Option<i64>,
}

/// What comes next behind a position: the key of its last row, how many rows, and how many of each organization.
type Following = (Option<Value>, i64, Vec<Uuid>, Vec<i64>);

fn following(installed: Installed, fitted: &Fitted, behind: Option<&Value>, rows: i32) -> Result<Following> {
    let Some(slices) = &fitted.slices else { return Ok((None, 0, Vec::new(), Vec::new())) };
    let default = fitted.organization.is_none().then(|| installed.default_organization.to_string());
    let _fence = super::fit::fence().index_scans();
    let _acting = role::act_as(fitted.run_as);
    let found = spi::all(
        &slices.next(behind.is_some(), default.as_deref()),
        &[spi::arg(behind.map(|position| JsonB(position.clone()))), spi::arg(rows)],
        |row| {
            Ok((
                row.get::<JsonB>(1)?.map(|json| json.0),
                row.get::<i64>(2)?.unwrap_or(0),
                row.get::<Vec<Uuid>>(3)?.unwrap_or_default(),
                row.get::<Vec<i64>>(4)?.unwrap_or_default(),
            ))
        },
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}

fn part(installed: Installed, rule: &Rule, sweep: &Sweep) -> Result<Step> {
    let fitted = rule.fit(installed)?;
    let every = fitted.definition.every;
    let mut sure = sweep.sure;
    if !sweep.began {
        let changes = changes(&fitted)?;
        if sweep.may_rest && sweep.changes == changes && changes.is_some() {
            let pause = if sweep.keyed_now { fitted.definition.full } else { every };
            return Ok(Step::Rested(pause.unwrap_or(LONGEST_WAIT)));
        }
        // What is looked at right after each commit does not wait for the end of this.
        if !sweep.keyed_now && fitted.whole.is_none() && !fitted.definition.after_sync && checks::forget(rule.id)? {
            keyed::doubt(rule.id, "too much was touched since the last look")?;
            return Ok(Step::Cleared);
        }
        let doubts = keyed::doubts(rule.id, &fitted)?;
        sure = doubts.is_none();
        begin(rule.id, changes, sure, doubts.filter(|_| fitted.whole.is_none()))?;
    }
    let ended = |found: i64, parts: Option<Vec<String>>| Ended {
        every,
        full: fitted.definition.full.filter(|_| sure),
        found,
        parts,
        tolerance: fitted.definition.tolerance,
        escalate: fitted.definition.escalate.as_ref().map(|escalate| escalate.after),
    };
    let Some(slices) = &fitted.slices else {
        let seen = look::look(installed, rule, &fitted, &Scope::All(None))?;
        return Ok(Step::Finished(ended(seen.new + seen.still, None)));
    };
    let (last, rows, organizations, counts) = following(installed, &fitted, sweep.position.as_ref(), sweep.rows)?;
    count(rule.id, organizations, counts)?;
    let last = last.filter(|_| rows >= i64::from(sweep.rows));
    if sweep.position.is_none() && last.is_none() {
        // All of it is one part.
        let seen = look::look(installed, rule, &fitted, &Scope::All(None))?;
        return Ok(Step::Finished(ended(seen.new + seen.still, None)));
    }
    let bounds = Bounds { behind: sweep.position.clone(), up_to: last.clone() };
    let seen = look::look(installed, rule, &fitted, &Scope::Part(&bounds))?;
    match last {
        Some(last) => Ok(Step::More(last, seen)),
        None => {
            let beside = look::look(installed, rule, &fitted, &Scope::Beside)?;
            let found = sweep.found + seen.new + seen.still + beside.new + beside.still;
            Ok(Step::Finished(ended(found, Some(slices.of_violation()))))
        }
    }
}

/// Changes of the tables that a rule reads, as PostgreSQL counts them: the same number, and nothing has been written. None: it
/// does not count.
fn changes(fitted: &Fitted) -> Result<Option<i64>> {
    let tables: Vec<pgrx::pg_sys::Oid> = fitted.reads.iter().map(|table| table.oid).collect();
    spi::one::<i64>(
        "SELECT CASE WHEN pg_catalog.current_setting('track_counts')::boolean
                     THEN pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_tuples_updated(c.oid) + pg_catalog.pg_stat_get_tuples_deleted(c.oid) + c.relfilenode::bigint)::bigint END
           FROM (SELECT t.id AS oid FROM pg_catalog.unnest($1::oid[]) AS t (id)
                 UNION SELECT p.relid::oid FROM pg_catalog.unnest($1::oid[]) AS t (id) CROSS JOIN LATERAL pg_catalog.pg_partition_tree(t.id::pg_catalog.regclass) AS p) AS o
           JOIN pg_catalog.pg_class AS c ON c.oid = o.oid",
        &[spi::arg(tables)],
    )
}

/// `sure`: nothing is written that is not noted; otherwise `because` says what may be.
fn begin(rule: i32, changes: Option<i64>, sure: bool, because: Option<String>) -> Result<()> {
    spi::run(
        "WITH c AS (UPDATE usher.rule_counts AS c SET counting = 0 WHERE c.rule_id = $1 AND c.counting <> 0)
         UPDATE usher.rules AS l SET sweep_began_at = pg_catalog.clock_timestamp(), sweep_position = NULL, sweep_found = 0, sweep_skipped = NULL, changes = $2,
                keyed_now = l.keyed_now AND $3, sweep_sure = $3, whole_because = $4
          WHERE l.id = $1",
        &[spi::arg(rule), spi::arg(changes), spi::arg(sure), spi::arg(because)],
    )?;
    Ok(())
}

fn keep(rule: i32, sweep: &Sweep) -> Result<()> {
    spi::run(
        "UPDATE usher.rules AS l SET sweep_began_at = COALESCE(l.sweep_began_at, pg_catalog.clock_timestamp()), sweep_position = $2, sweep_rows = $3, sweep_found = $4, sweep_skipped = $5
          WHERE l.id = $1",
        &[
            spi::arg(rule),
            spi::arg(sweep.position.clone().map(JsonB)),
            spi::arg(sweep.rows),
            spi::arg(sweep.found),
            spi::arg((!sweep.skipped.is_empty()).then(|| JsonB(Value::Array(sweep.skipped.clone())))),
        ],
    )?;
    Ok(())
}

/// Rows of a part, whose they are: the whole of which violations are a part.
fn count(rule: i32, organizations: Vec<Uuid>, counts: Vec<i64>) -> Result<()> {
    if organizations.is_empty() {
        return Ok(());
    }
    spi::run(
        "INSERT INTO usher.rule_counts AS c (organization_id, rule_id, counting)
         SELECT o.org, $1, o.n FROM ROWS FROM (pg_catalog.unnest($2::uuid[]), pg_catalog.unnest($3::bigint[])) AS o (org, n) ORDER BY o.org
         ON CONFLICT ON CONSTRAINT rule_counts_pkey DO UPDATE SET counting = c.counting + EXCLUDED.counting",
        &[spi::arg(rule), spi::arg(organizations), spi::arg(counts)],
    )?;
    Ok(())
}

/// Violations that a look in parts has not seen: `$1` rule, `$2` columns of the query that are the key of a part, `$3` parts that could not
/// be evaluated.
const UNSEEN: &str = "
WITH s AS MATERIALIZED (
    SELECT v.organization_id, v.id, v.status FROM usher.violations AS v JOIN usher.rules AS l ON l.id = v.rule_id
     WHERE v.rule_id = $1 AND v.status IN ('pending', 'open', 'waived') AND v.last_seen_at < l.sweep_began_at
       AND NOT COALESCE($3::jsonb, '[]') @> pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('key',
             (SELECT pg_catalog.jsonb_agg(v.\"row\" -> c.name ORDER BY c.n) FROM pg_catalog.unnest($2::text[]) WITH ORDINALITY AS c (name, n))))),
e AS (
    UPDATE usher.violations AS v SET status = 'gone', ended_at = pg_catalog.clock_timestamp(), due_at = NULL, escalate_at = NULL
      FROM s WHERE v.organization_id = s.organization_id AND v.id = s.id
    RETURNING v.organization_id, s.status AS was,
              pg_catalog.jsonb_build_object('id', v.id, 'rule', v.rule, 'key', v.key, 'wrong', v.wrong, 'severity', v.severity, 'first_seen_at', v.first_seen_at) AS event)
SELECT e.organization_id, e.event FROM e WHERE e.was = 'open'";

/// Everything was looked at: what was not seen is gone, and when to look again.
fn finish(rule: &Rule, sweep: &Sweep, ended: Ended) -> Result<()> {
    if let Some(columns) = &ended.parts {
        let skipped = JsonB(Value::Array(sweep.skipped.clone()));
        let gone = spi::all(UNSEEN, &[spi::arg(rule.id), spi::arg(columns.clone()), spi::arg(skipped)], |row| {
            Ok((row.get::<Uuid>(1)?, row.get::<JsonB>(2)?))
        })?;
        let gone = gone.into_iter().filter_map(|(organization, event)| organization.zip(event)).unzip();
        look::tell("usher.violation.gone", gone)?;
        if ended.tolerance > 0 {
            look::weigh(rule.id, ended.tolerance, ended.escalate)?;
        }
    }
    spi::run(
        "WITH d AS (DELETE FROM usher.rule_counts AS c WHERE c.rule_id = $1 AND c.counting = 0)
         UPDATE usher.rule_counts AS c SET rows = c.counting, counted_at = pg_catalog.clock_timestamp() WHERE c.rule_id = $1 AND c.counting > 0",
        &[spi::arg(rule.id)],
    )?;
    let error = sweep.skipped.first().map(|first| {
        format!(
            "{} keys could not be evaluated, the first {}: {}",
            sweep.skipped.len(),
            first["key"],
            first["error"].as_str().unwrap_or_default()
        )
    });
    // While all is well it is looked at more and more rarely, and at once when the tables change.
    let pause = ended.full.filter(|_| error.is_none()).or(ended.every);
    let wait = pause.map(|every| {
        let clean = ended.found == 0 && error.is_none();
        if clean { (sweep.wait.unwrap_or(every).max(every) * 2).min(LONGEST_WAIT.max(every)) } else { every }
    });
    spi::run(
        "UPDATE usher.rules AS l
            SET last_checked_at = pg_catalog.clock_timestamp(), last_found = $2, wait = $3::bigint * '1 millisecond'::interval,
                check_at = pg_catalog.clock_timestamp() + CASE WHEN l.changes = $7 THEN COALESCE($8, 0) ELSE $4::bigint END * '1 millisecond'::interval,
                sweep_began_at = NULL, sweep_position = NULL, sweep_skipped = NULL, sweep_found = NULL, keyed_now = $6, sweep_sure = false,
                last_error = $5, last_error_at = CASE WHEN $5 IS NULL THEN l.last_error_at ELSE pg_catalog.clock_timestamp() END
          WHERE l.id = $1",
        &[
            spi::arg(rule.id),
            spi::arg(ended.found),
            spi::arg(wait),
            spi::arg(pause),
            spi::arg(error),
            spi::arg(ended.full.is_some()),
            spi::arg(keyed::ONCE_MORE),
            spi::arg(ended.every),
        ],
    )?;
    Ok(())
}

fn again(rule: i32, milliseconds: i64) -> Result<()> {
    spi::run(
        "UPDATE usher.rules AS l SET check_at = pg_catalog.clock_timestamp() + $2::bigint * '1 millisecond'::interval WHERE l.id = $1",
        &[spi::arg(rule), spi::arg(milliseconds)],
    )?;
    Ok(())
}

/// A part could not be looked at. A smaller one may do better, down to one key, which is left out with the reason.
fn stumbled(installed: Installed, rule: &Rule, sweep: Sweep, failure: &Failure) -> Result<()> {
    if !sweep.began {
        // What it had begun was undone with it.
        begin(rule.id, None, false, None)?;
    }
    let late = failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED;
    if !(late || failure.tells_about_the_rows()) {
        return failed_for(rule, &failure.line(), Some(10_000));
    }
    let fitted = match store::fitted(rule, installed) {
        Ok(fitted) => fitted,
        Err(why) if why.tells_about_the_rule() => return broken(rule, &why.line()),
        Err(why) => return failed_for(rule, &why.line(), Some(10_000)),
    };
    let every = fitted.definition.every;
    if fitted.slices.is_none() {
        let line = if late {
            format!(
                "{}; a query whose key is no unique key of a table is looked at as a whole: usher.check_rule() takes its time",
                failure.line()
            )
        } else {
            failure.line()
        };
        return failed_for(
            rule,
            &line,
            every.map(|every| every.max(sweep.wait.unwrap_or(every) * 2).min(LONGEST_WAIT.max(every))),
        );
    }
    if sweep.rows > 1 {
        return keep(rule.id, &Sweep { rows: (sweep.rows / 8).max(1), ..sweep });
    }
    // Asked without the query: that the key is there is no matter of the rule.
    let behind = subxact::attempt(|| following(installed, &fitted, sweep.position.as_ref(), 1));
    let (last, ..) = match behind {
        Ok(found) => found,
        Err(why) if why.is_busy() => return Err(why.into()),
        Err(why) => return failed_for(rule, &why.line(), Some(10_000)),
    };
    let mut sweep = sweep;
    sweep.skipped.push(json!({"key": last, "error": failure.line()}));
    // Once, not with every look.
    if spi::read::<bool>("SELECT l.last_error IS NULL FROM usher.rules AS l WHERE l.id = $1", &[spi::arg(rule.id)])? == Some(true)
        && sweep.skipped.len() == 1
    {
        pgrx::log!("usher: rule \"{}\" cannot evaluate some keys: {}", rule.name, failure.line());
    }
    if sweep.skipped.len() > MOST_SKIPPED || last.is_none() {
        // Not all was looked at, so nothing is said to be gone.
        let line = format!("more than {MOST_SKIPPED} keys could not be evaluated; the last: {}", failure.line());
        return failed_for(
            rule,
            if last.is_none() { failure.message.as_str() } else { &line },
            every.map(|every| every.max(60_000)),
        );
    }
    keep(rule.id, &Sweep { position: last, ..sweep })
}

/// A look is given up; the next begins anew. `pause`: milliseconds; None: when somebody asks.
fn failed_for(rule: &Rule, line: &str, pause: Option<i64>) -> Result<()> {
    spi::run(
        "UPDATE usher.rules AS l
            SET last_error = $2, last_error_at = pg_catalog.clock_timestamp(), sweep_began_at = NULL, sweep_position = NULL, sweep_skipped = NULL,
                wait = $3::bigint * '1 millisecond'::interval, check_at = pg_catalog.clock_timestamp() + $3::bigint * '1 millisecond'::interval
          WHERE l.id = $1",
        &[spi::arg(rule.id), spi::arg(line), spi::arg(pause)],
    )?;
    Ok(())
}

fn broken(rule: &Rule, line: &str) -> Result<()> {
    if store::mark(rule, Some(line))? {
        pgrx::log!("usher: rule \"{}\" is broken: {line}", rule.name);
    }
    Ok(())
}

/// What becomes of a rule whose look at some keys has failed.
pub fn failed(installed: Installed, rule: &Rule, failure: &Failure) -> Result<()> {
    if failure.tells_about_the_rule()
        && let Err(why) = store::fitted(rule, installed)
        && why.tells_about_the_rule()
    {
        return broken(rule, &why.line());
    }
    spi::run(
        "UPDATE usher.rules AS l SET last_error = $2, last_error_at = pg_catalog.clock_timestamp() WHERE l.id = $1",
        &[spi::arg(rule.id), spi::arg(failure.line())],
    )?;
    Ok(())
}
