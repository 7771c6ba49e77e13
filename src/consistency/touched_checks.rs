//! Keys that transactions have touched, written down as they commit, and looked at afterwards.

use super::fit::Fitted;
use super::look::{self, Keys, Scope};
use super::store::{self, PATIENCE, Rule};
use super::touched::Touched;
use crate::conflict::Next;
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::subxact::{self, Failure};
use crate::pg::{locks, role, spi, xact};
use crate::setup::Installed;
use pgrx::{JsonB, Uuid};

/// Whose the keys of no organization are.
const NOBODY: [u8; 16] = [0; 16];

/// Checks that one look takes, and keys, unless the first check has more.
const MOST_CHECKS: i64 = 500;
const MOST_KEYS: i64 = 10_000;

/// Writes down rules and what was touched of them, for a worker, which looks right after the commit.
pub fn note(installed: Installed, later: Vec<(i32, Touched)>) -> Result<()> {
    let (mut rules, mut organizations, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |rule: i32, organization: Option<[u8; 16]>, key: Option<String>| {
        rules.push(rule);
        organizations.push(Uuid::from_bytes(organization.unwrap_or(NOBODY)));
        keys.push(key);
    };
    for (rule, touched) in later {
        match touched {
            Touched::Nothing => {}
            Touched::Everything => add(rule, None, None),
            Touched::Keys(some) => some.into_keys().for_each(|(organization, key)| add(rule, organization, Some(key))),
        }
    }
    if rules.is_empty() {
        return Ok(());
    }
    xact::note_overlaps();
    let _acting = role::internal(installed.owner);
    spi::run(
        "INSERT INTO usher.rule_checks (organization_id, id, rule_id, keys)
         SELECT t.org, usher.uuid_v7(), t.rule, pg_catalog.jsonb_agg(t.key::jsonb) FILTER (WHERE t.key IS NOT NULL)
           FROM ROWS FROM (pg_catalog.unnest($1::integer[]), pg_catalog.unnest($2::uuid[]), pg_catalog.unnest($3::text[])) AS t (rule, org, key)
          GROUP BY t.rule, t.org",
        &[spi::arg(rules), spi::arg(organizations), spi::arg(keys)],
    )?;
    Ok(())
}

/// What was written down of a rule, and is taken away.
struct Taken {
    everything: bool,
    keys: Vec<(Option<Uuid>, serde_json::Value)>,
}

/// Takes what is there of a rule; `most`: no more than one look should have. Runs with the owner's rights, and whoever looks for the rule is alone.
fn take(rule: i32, most: Option<(i64, i64)>) -> Result<Taken> {
    let (checks, keys) = most.unwrap_or((i64::MAX, i64::MAX));
    let rows = spi::all(
        "WITH picked AS (
            SELECT x.organization_id, x.id
              FROM (SELECT c.organization_id, c.id,
                           pg_catalog.sum(COALESCE(pg_catalog.jsonb_array_length(c.keys), 1)) OVER (ORDER BY c.left_at NULLS FIRST, c.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                      FROM (SELECT * FROM usher.rule_checks WHERE rule_id = $1 ORDER BY left_at NULLS FIRST, id LIMIT $2) AS c) AS x
             WHERE COALESCE(x.before, 0) < $3),
         gone AS (
            DELETE FROM usher.rule_checks AS c USING picked AS s WHERE c.organization_id = s.organization_id AND c.id = s.id
            RETURNING c.organization_id, c.keys)
         SELECT DISTINCT g.organization_id, k.key FROM gone AS g LEFT JOIN LATERAL pg_catalog.jsonb_array_elements(g.keys) AS k (key) ON true",
        &[spi::arg(rule), spi::arg(checks), spi::arg(keys)],
        |row| Ok((row.get::<Uuid>(1)?, row.get::<JsonB>(2)?)),
    )?;
    let mut taken = Taken { everything: false, keys: Vec::with_capacity(rows.len()) };
    for (organization, key) in rows {
        match key {
            None => taken.everything = true,
            Some(key) => taken.keys.push((organization.filter(|id| *id.as_bytes() != NOBODY), key.0)),
        }
    }
    Ok(taken)
}

fn scope(keys: &[(Option<Uuid>, serde_json::Value)]) -> Keys {
    Keys {
        organizations: keys.iter().map(|(organization, _)| *organization).collect(),
        keys: keys.iter().map(|(_, key)| JsonB(key.clone())).collect(),
    }
}

/// Looks at what transactions of rules with `after_sync` have touched, one rule at a time. Runs in a transaction that sees new commits.
pub fn turn(installed: Installed) -> Result<Next> {
    if !installed.up_to_date {
        return Ok(Next::In(None));
    }
    let _acting = role::internal(installed.owner);
    let waiting = spi::read_all(
        "SELECT c.rule_id FROM usher.rule_checks AS c GROUP BY c.rule_id
          ORDER BY pg_catalog.max(c.left_at) NULLS FIRST, c.rule_id",
        &[],
        |row| Ok(row.get::<i32>(1)?.unwrap_or_default()),
    )?;
    let Some(first) = waiting.first().copied() else { return Ok(Next::In(None)) };
    for id in waiting {
        if !locks::look_for_rule(id, false) {
            continue;
        }
        let Some(rule) = store::by_id(id)?.filter(|rule| rule.enabled) else {
            spi::run("DELETE FROM usher.rule_checks AS c WHERE c.rule_id = $1", &[spi::arg(id)])?;
            return Ok(Next::Now);
        };
        return match subxact::attempt(|| part(installed, &rule)) {
            Ok(()) => Ok(Next::Now),
            Err(failure) => {
                put_off(id)?;
                if !failure.is_busy() {
                    pgrx::log!("usher: rule \"{}\" could not look at what was touched: {}", rule.name, failure.line());
                }
                // Behind those of the others.
                Ok(if first == id && failure.is_busy() { Next::Later } else { Next::In(Some(1.0)) })
            }
        };
    }
    Ok(Next::Later)
}

fn put_off(rule: i32) -> Result<()> {
    spi::run("UPDATE usher.rule_checks AS c SET left_at = pg_catalog.clock_timestamp() WHERE c.rule_id = $1", &[spi::arg(rule)])?;
    Ok(())
}

/// All or nothing of what one look takes.
fn part(installed: Installed, rule: &Rule) -> Result<()> {
    let _nest = Nest::open().lock_timeout(PATIENCE);
    let taken = take(rule.id, Some((MOST_CHECKS, MOST_KEYS)))?;
    let Some(fitted) = fitted(installed, rule)? else { return Ok(()) };
    if taken.everything {
        look::look(installed, rule, &fitted, &Scope::All(None))?;
        return Ok(());
    }
    some(installed, rule, &fitted, &taken.keys)
}

/// None: it does not fit the database, and is marked.
fn fitted(installed: Installed, rule: &Rule) -> Result<Option<Fitted>> {
    match store::fitted(rule, installed) {
        Ok(fitted) => {
            store::mark(rule, None)?;
            Ok(Some(fitted))
        }
        Err(failure) if failure.tells_about_the_rule() => {
            pgrx::log!("usher: rule \"{}\" is broken: {}", rule.name, failure.line());
            store::mark(rule, Some(&failure.line()))?;
            Ok(None)
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Halves, until what cannot be evaluated is alone: it does not keep the others.
fn some(installed: Installed, rule: &Rule, fitted: &Fitted, keys: &[(Option<Uuid>, serde_json::Value)]) -> Result<()> {
    let mut open = vec![keys];
    while let Some(part) = open.pop() {
        if part.is_empty() {
            continue;
        }
        match subxact::attempt(|| look::look(installed, rule, fitted, &Scope::Keys(&scope(part)))) {
            Ok(_) => {}
            Err(failure) if !failure.tells_about_the_statement() => return Err(failure.into()),
            Err(failure) if part.len() == 1 => skipped(rule, &part[0].1, &failure)?,
            Err(_) => {
                let (first, second) = part.split_at(part.len() / 2);
                open.extend([second, first]);
            }
        }
    }
    Ok(())
}

fn skipped(rule: &Rule, key: &serde_json::Value, failure: &Failure) -> Result<()> {
    let why = format!("{key}: {}", failure.line());
    pgrx::log!("usher: rule \"{}\" cannot look at a key: {}", rule.name, failure.line());
    spi::run(
        "UPDATE usher.rules AS l SET last_error = $2, last_error_at = pg_catalog.clock_timestamp() WHERE l.id = $1",
        &[spi::arg(rule.id), spi::arg(why)],
    )?;
    Ok(())
}

/// All that was touched, in a session.
pub fn without_workers(installed: Installed) -> Result<()> {
    // A worker that meets us meanwhile looks again afterwards.
    xact::note_overlaps();
    while turn(installed)? == Next::Now {}
    Ok(())
}
