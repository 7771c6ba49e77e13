//! Looking for overlaps that are there: after a commit, and at all rows.

use super::statement::Form;
use super::store::{self, PATIENCE, Rule};
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::subxact::{self, Failure};
use crate::pg::{locks, role, spi, xact};
use crate::setup::Installed;
use pgrx::Uuid;
use std::collections::BTreeMap;

/// What a look has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub raised: i64,
    pub gone: i64,
    /// Pairs that overlap, with those that were accepted.
    pub found: i64,
    /// Conflicts that would have been changed, and which an open transaction has.
    pub left: i64,
}

/// Runs a statement of [`Form`] that writes conflicts.
pub fn settle(sql: &str, arguments: spi::Args<'_>) -> Result<Counts> {
    let rows = spi::all(sql, arguments, |row| {
        let count = |at| row.get::<i64>(at).map(Option::unwrap_or_default);
        Ok(Counts { raised: count(1)?, gone: count(2)?, found: count(3)?, left: count(4)? })
    })?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

/// Whether the rows of a conflict overlap now. Nothing is written.
pub fn overlaps(form: &Form<'_>, organization: Uuid, conflict: Uuid) -> Result<bool> {
    Ok(spi::read::<bool>(&form.still(), &[spi::arg(organization), spi::arg(conflict)])? == Some(true))
}

/// Checks that one look takes, and rows, unless the first check has more.
const MOST_CHECKS: i64 = 500;
const MOST_ROWS: i64 = 10_000;

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// There is more.
    Now,
    /// Somebody else is looking.
    Later,
    /// In so many seconds; None: when somebody says so.
    In(Option<f64>),
}

/// What is to be looked at now: rows that were written, or all rows of a rule whose time has come. One thing at a time.
pub fn turn(installed: Installed) -> Result<Next> {
    if !installed.up_to_date {
        return Ok(Next::In(None));
    }
    let _acting = role::internal(installed.owner);
    if !due()? {
        return next();
    }
    if !locks::look_for_overlaps(false) {
        return Ok(Next::Later);
    }
    let _nest = Nest::open().lock_timeout(PATIENCE);
    match checks(installed)? {
        Looked::Some => Ok(Next::Now),
        // What can be looked at is. For the rest somebody has to end a transaction, which wakes us if it has written something.
        Looked::Left if !sweeps(installed)? => Ok(Next::Later),
        Looked::Nothing if !sweeps(installed)? => next(),
        _ => Ok(Next::Now),
    }
}

/// Seconds until all rows are looked at again when a conflict had to be left.
const AGAIN: i64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    Nothing,
    Some,
    /// All that is there cannot be looked at now.
    Left,
}

fn due() -> Result<bool> {
    Ok(spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.overlap_checks) OR EXISTS (SELECT FROM usher.overlap_rules AS l WHERE l.sweep_at <= pg_catalog.clock_timestamp())",
        &[],
    )? == Some(true))
}

fn next() -> Result<Next> {
    let seconds = spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(l.sweep_at) - pg_catalog.clock_timestamp())::float8 FROM usher.overlap_rules AS l",
        &[],
    )?;
    Ok(Next::In(seconds))
}

/// Organizations and ids of checks.
type Ids = (Vec<Uuid>, Vec<Uuid>);

/// Looks at rows that were written.
fn checks(installed: Installed) -> Result<Looked> {
    // Only whoever looks takes them away, and we are alone.
    let found = spi::all(
        "SELECT x.organization_id, x.id, x.rule_id, x.whole
           FROM (SELECT c.organization_id, c.id, c.rule_id, c.left_at, c.row_keys IS NULL AS whole,
                        pg_catalog.sum(COALESCE(pg_catalog.jsonb_array_length(c.row_keys), 1)) OVER (ORDER BY c.left_at NULLS FIRST, c.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                   FROM (SELECT * FROM usher.overlap_checks ORDER BY left_at NULLS FIRST, id LIMIT $1) AS c) AS x
          WHERE COALESCE(x.before, 0) < $2 ORDER BY x.left_at NULLS FIRST, x.id",
        &[spi::arg(MOST_CHECKS), spi::arg(MOST_ROWS)],
        |row| {
            let id = |at| row.get::<Uuid>(at).map(|id| id.unwrap_or(Uuid::from_bytes([0; 16])));
            Ok((id(1)?, id(2)?, row.get::<i32>(3)?.unwrap_or_default(), row.get::<bool>(4)? == Some(true)))
        },
    )?;
    if found.is_empty() {
        return Ok(Looked::Nothing);
    }
    let mut by_rule: BTreeMap<i32, (Ids, bool)> = BTreeMap::new();
    for (organization, id, rule, whole) in found {
        let ((organizations, ids), any_whole) = by_rule.entry(rule).or_default();
        organizations.push(organization);
        ids.push(id);
        *any_whole |= whole;
    }
    let mut done = false;
    for (rule, (ids, whole)) in by_rule {
        match store::by_id(rule)? {
            // One that was dropped meanwhile has no conflicts left.
            None => forget(ids)?,
            // Takes its checks away itself.
            Some(rule) if whole => drop(sweep(installed, &rule)?),
            Some(rule) => {
                let outcome = look(installed, &rule, &ids);
                let several = ids.1.len() > 1;
                match outcome {
                    // One by one: what somebody has, or what cannot be compared, must not keep the others.
                    Ok(true) if several => done |= one_by_one(installed, &rule, ids)?,
                    Err(failure) if several && !failure.tells_about_the_rule() => done |= one_by_one(installed, &rule, ids)?,
                    outcome => done |= looked(&rule, outcome, ids)?,
                }
                continue;
            }
        }
        done = true;
    }
    // Those that were left have gone behind the others.
    let more = done
        || spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.overlap_checks AS c WHERE c.left_at IS NULL)", &[])? == Some(true);
    Ok(if more { Looked::Some } else { Looked::Left })
}

/// True when one of them is done.
fn one_by_one(installed: Installed, rule: &Rule, checks: Ids) -> Result<bool> {
    let mut done = false;
    for (organization, id) in checks.0.into_iter().zip(checks.1) {
        let one = (vec![organization], vec![id]);
        done |= looked(rule, look(installed, rule, &one), one)?;
    }
    Ok(done)
}

/// What becomes of checks after a look at them; true: they are gone.
fn looked(rule: &Rule, outcome: std::result::Result<bool, Failure>, checks: Ids) -> Result<bool> {
    match outcome {
        Ok(true) => return put_off(checks).map(|()| false),
        Ok(false) => {}
        Err(failure) => failed(rule, failure)?,
    }
    forget(checks).map(|()| true)
}

/// They wait behind what was not looked at yet.
fn put_off(checks: Ids) -> Result<()> {
    spi::run(
        "UPDATE usher.overlap_checks AS c SET left_at = pg_catalog.clock_timestamp()
           FROM ROWS FROM (pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::uuid[])) AS i (org, id)
          WHERE c.organization_id = i.org AND c.id = i.id",
        &[spi::arg(checks.0), spi::arg(checks.1)],
    )?;
    Ok(())
}

fn forget(checks: Ids) -> Result<()> {
    spi::run(
        "DELETE FROM usher.overlap_checks AS c USING ROWS FROM (pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::uuid[])) AS i (org, id)
          WHERE c.organization_id = i.org AND c.id = i.id",
        &[spi::arg(checks.0), spi::arg(checks.1)],
    )?;
    Ok(())
}

/// True when something had to be left: it is to be looked at again.
fn look(installed: Installed, rule: &Rule, checks: &Ids) -> std::result::Result<bool, Failure> {
    let outcome = subxact::attempt(|| {
        let fitted = rule.fit(installed)?;
        store::mark(rule, None)?;
        let form = Form { id: rule.id, name: &rule.name, fitted: &fitted, installed };
        settle(&form.look(), &[spi::arg(checks.0.clone()), spi::arg(checks.1.clone())])
    });
    match outcome {
        Ok(counts) => Ok(counts.left > 0),
        Err(failure) if failure.is_busy() => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// A rule that does not fit its tables is broken until it does. Rows that cannot be compared or shown would fail again: they are left
/// out, and the rule goes on for the others. Anything else is tried again with what is to be looked at.
fn failed(rule: &Rule, failure: Failure) -> Result<()> {
    if failure.tells_about_the_rule() {
        pgrx::log!("usher: overlap rule \"{}\" is broken: {}", rule.name, failure.line());
        return store::mark(rule, Some(&failure.line()));
    }
    if !failure.tells_about_the_statement() {
        return Err(failure.into());
    }
    pgrx::log!("usher: overlap rule \"{}\" cannot look at some rows: {}", rule.name, failure.line());
    Ok(())
}

/// Looks at all rows of the rules whose time has come. False: there was none.
fn sweeps(installed: Installed) -> Result<bool> {
    let rules = store::rules("l.sweep_at <= pg_catalog.clock_timestamp()", &[])?;
    match rules.first() {
        Some(rule) => sweep(installed, rule).map(|_| true),
        None => Ok(false),
    }
}

/// Looks at all rows of a rule; None: it does not fit its tables, or somebody is in the way. What was written down about it is dealt
/// with by that.
pub fn sweep(installed: Installed, rule: &Rule) -> Result<Option<Counts>> {
    // Before the look: what is written down later is not seen by it.
    spi::run("DELETE FROM usher.overlap_checks AS c WHERE c.rule_id = $1", &[spi::arg(rule.id)])?;
    let outcome = subxact::attempt(|| {
        let _nest = Nest::open().lock_timeout(PATIENCE);
        let fitted = rule.fit(installed)?;
        let form = Form { id: rule.id, name: &rule.name, fitted: &fitted, installed };
        settle(&form.sweep(), &[])
    });
    let every = rule.definition().map_or(Some(86_400), |definition| definition.sweep);
    match outcome {
        Ok(counts) => {
            store::mark(rule, None)?;
            again(rule.id, if counts.left > 0 { Some(AGAIN) } else { every }, true)?;
            Ok(Some(counts))
        }
        Err(failure) if failure.is_busy() => {
            again(rule.id, Some(AGAIN), false)?;
            Ok(None)
        }
        Err(failure) => {
            failed(rule, failure)?;
            again(rule.id, every, false)?;
            Ok(None)
        }
    }
}

fn again(rule: i32, seconds: Option<i64>, swept: bool) -> Result<()> {
    spi::run(
        "UPDATE usher.overlap_rules AS l
            SET swept_at = CASE WHEN $3 THEN pg_catalog.clock_timestamp() ELSE l.swept_at END,
                sweep_at = pg_catalog.clock_timestamp() + $2 * '1 second'::interval
          WHERE l.id = $1",
        &[spi::arg(rule), spi::arg(seconds), spi::arg(swept)],
    )?;
    Ok(())
}

/// All that is to be looked at, in a session.
pub fn without_workers(installed: Installed) -> Result<()> {
    // A worker that meets us meanwhile looks again afterwards.
    xact::note_overlaps();
    while turn(installed)? == Next::Now {}
    Ok(())
}

/// Conflicts that ended so long ago, as other history. What was accepted is kept as long as its reason stands.
pub fn prune(days: i32) -> Result<()> {
    spi::run(
        "DELETE FROM usher.conflicts AS c WHERE c.last_seen_at < pg_catalog.now() - $1 * '1 day'::interval
            AND (c.state = 'gone' OR c.state = 'resolved' AND c.decision <> 'accept')",
        &[spi::arg(days)],
    )?;
    Ok(())
}
