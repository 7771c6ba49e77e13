//! Keys that transactions have touched, written down as they commit, and looked at afterwards.

use super::aside;
use super::fit::Fitted;
use super::keyed::{self, BY_THE_CLOCK};
use super::look::{self, Keys, Scope};
use super::monitor::{self, LIMIT, LONGEST_WAIT};
use super::store::{self, PATIENCE, Rule};
use super::touched::Touched;
use crate::conflict::Next;
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::subxact::{self, Failure};
use crate::pg::{role, spi, xact};
use crate::setup::Installed;
use pgrx::{JsonB, PgSqlErrorCode, Spi, Uuid};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Whose the keys of no organization are.
const NOBODY: [u8; 16] = [0; 16];

/// Checks that one look reads, and octets of their keys, unless the first check has more: the more it reads, the more of the keys are the same.
const MOST_CHECKS: i64 = 50_000;
const MOST_OCTETS: i64 = 32 << 20;
/// Keys that one look looks at. Others that it has read are left to later ones, each once.
const MOST_AT_ONCE: usize = 20_000;
/// From so many keys on it is asked whether everything is less work: one key is as much as some rows.
const MANY: usize = 20_000;
const ROWS_OF_A_KEY: f32 = 4.0;
/// More checks than these wait: everything is looked at instead.
const MOST_WAITING: i64 = 1_000_000;
/// Keys of one statement. More of them would hold one snapshot for too long.
const MOST_KEYS: usize = 10_000;

/// Writes down rules and what was touched of them, for a worker, which looks after the commit.
pub fn note(installed: Installed, later: Vec<(i32, Touched)>) -> Result<()> {
    let mut checks: BTreeMap<(i32, [u8; 16]), Option<String>> = BTreeMap::new();
    for (rule, touched) in later {
        match touched {
            Touched::Nothing => {}
            Touched::Everything => {
                checks.insert((rule, NOBODY), None);
            }
            Touched::Keys(some) => {
                for (organization, key) in some.into_keys() {
                    let line = checks.entry((rule, organization.unwrap_or(NOBODY))).or_insert_with(|| Some(String::new()));
                    if let Some(lines) = line {
                        if !lines.is_empty() {
                            lines.push('\n');
                        }
                        lines.push_str(&key);
                    }
                }
            }
        }
    }
    if checks.is_empty() {
        return Ok(());
    }
    let _acting = role::internal(installed.owner);
    let (at, keys): (Vec<_>, Vec<Option<String>>) = checks.into_iter().unzip();
    let (rules, organizations): (Vec<i32>, Vec<Uuid>) = at.into_iter().map(|(rule, id)| (rule, Uuid::from_bytes(id))).unzip();
    let at_once = spi::one::<bool>(
        &format!(
            "WITH i AS (
                INSERT INTO usher.rule_checks (organization_id, id, rule_id, keys)
                SELECT t.org, usher.uuid_v7(), t.rule, t.keys
                  FROM ROWS FROM (pg_catalog.unnest($1::integer[]), pg_catalog.unnest($2::uuid[]), pg_catalog.unnest($3::text[])) AS t (rule, org, keys))
             SELECT EXISTS (SELECT FROM usher.rules AS l WHERE l.id = ANY ($1) AND NOT {BY_THE_CLOCK})"
        ),
        &[spi::arg(rules), spi::arg(organizations), spi::arg(keys)],
    )?;
    if at_once == Some(true) {
        xact::note_overlaps();
    }
    Ok(())
}

/// A key as JSON, and whose it is.
type Key = (Option<Uuid>, String);

/// What was written down of a rule, and is taken away.
struct Taken {
    everything: bool,
    /// Each once.
    keys: Vec<Key>,
    /// There may be more.
    full: bool,
}

/// What is written down of a rule, the oldest first, as much as one look should have.
const TAKE: &str = "
DELETE FROM usher.rule_checks AS c
 USING (SELECT x.organization_id, x.id
          FROM (SELECT c.organization_id, c.id, pg_catalog.sum(CASE WHEN c.compact THEN $3::bigint / 2 ELSE pg_catalog.octet_length(c.keys) END) OVER (ORDER BY c.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                  FROM (SELECT k.organization_id, k.id, k.keys, k.compact FROM usher.rule_checks AS k WHERE k.rule_id = $1 ORDER BY k.id LIMIT $2) AS c) AS x
         WHERE COALESCE(x.before, 0) < $3) AS s
 WHERE c.organization_id = s.organization_id AND c.id = s.id
RETURNING c.organization_id, c.keys, c.compact";

/// Takes it. Runs with the owner's rights, and whoever looks for the rule is alone.
fn take(rule: i32) -> Result<Taken> {
    let mut lines: HashMap<[u8; 16], HashSet<String>> = HashMap::new();
    let (mut everything, mut checks, mut octets, mut compact) = (false, 0, 0, false);
    Spi::connect_mut(|client| -> Result<()> {
        let mut table = spi::query(client, TAKE, &[spi::arg(rule), spi::arg(MOST_CHECKS), spi::arg(MOST_OCTETS)])?;
        while table.next().is_some() {
            checks += 1;
            let organization = table.get::<Uuid>(1)?.map_or(NOBODY, |id| *id.as_bytes());
            match table.get::<&str>(2)? {
                None => everything = true,
                Some(keys) => {
                    octets += keys.len() as i64;
                    compact |= table.get::<bool>(3)? == Some(true);
                    let lines = lines.entry(organization).or_default();
                    for line in keys.split('\n') {
                        // Most are there already, where few keys are touched by many.
                        if !lines.contains(line) {
                            lines.insert(line.to_owned());
                        }
                    }
                }
            }
        }
        Ok(())
    })?;
    let full = compact || checks >= MOST_CHECKS || octets >= MOST_OCTETS;
    let owned = |(id, lines): ([u8; 16], HashSet<String>)| {
        let organization = (id != NOBODY).then(|| Uuid::from_bytes(id));
        lines.into_iter().map(move |line| (organization, line))
    };
    let keys = if everything { Vec::new() } else { lines.into_iter().flat_map(owned).collect() };
    Ok(Taken { everything, keys, full })
}

fn scope(keys: &[Key]) -> Result<Keys> {
    let json = |key: &str| serde_json::from_str(key).map_err(|error| UsherError::internal(format!("a key is no JSON: {error}")));
    Ok(Keys {
        organizations: keys.iter().map(|(organization, _)| *organization).collect(),
        keys: keys.iter().map(|(_, key)| json(key).map(JsonB)).collect::<Result<_>>()?,
    })
}

/// Rules of which something is written down that does not wait for its time, and whether they are on: otherwise nobody looks at it.
const WAITING: &str = "
WITH RECURSIVE w AS (
    (SELECT c.rule_id AS id FROM usher.rule_checks AS c ORDER BY c.rule_id LIMIT 1)
     UNION ALL
    SELECT (SELECT c.rule_id FROM usher.rule_checks AS c WHERE c.rule_id > w.id ORDER BY c.rule_id LIMIT 1) FROM w WHERE w.id IS NOT NULL)
SELECT w.id, COALESCE(l.enabled, false)
  FROM w LEFT JOIN usher.rules AS l ON l.id = w.id
 WHERE w.id IS NOT NULL AND (l.id IS NULL OR NOT l.enabled OR NOT ";

thread_local! {
    static LAST: Cell<i32> = const { Cell::new(0) };
}

/// Looks at what transactions of rules with `after_sync` have touched, one rule at a time. Runs in a transaction that sees new commits.
pub fn turn(installed: Installed) -> Result<Next> {
    if !installed.up_to_date {
        return Ok(Next::In(None));
    }
    let _acting = role::internal(installed.owner);
    let _nest = Nest::open().lock_timeout(PATIENCE);
    let waiting = spi::read_all(
        &format!("{WAITING}{BY_THE_CLOCK}) AND w.id <> ALL ($1) ORDER BY w.id <= $2, w.id LIMIT 1"),
        &[spi::arg(aside::rules()), spi::arg(LAST.get())],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<bool>(2)? == Some(true))),
    )?;
    if let Some((id, enabled)) = waiting.into_iter().next() {
        // The others have their turn before it has one again.
        LAST.set(id);
        aside::apart(id, || now(installed, id, enabled))?;
        return Ok(Next::Now);
    }
    Ok(match aside::next() {
        Some(seconds) if seconds >= 1.0 => Next::Later,
        next => Next::In(next),
    })
}

fn now(installed: Installed, id: i32, enabled: bool) -> Result<()> {
    aside::look(id)?;
    let rule = if enabled { store::by_id(id)?.filter(|rule| rule.enabled) } else { None };
    let Some(rule) = rule else {
        spi::run("DELETE FROM usher.rule_checks AS c WHERE c.rule_id = $1", &[spi::arg(id)])?;
        return Ok(());
    };
    match subxact::attempt(|| part(installed, &rule)) {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_busy() => Err(failure.into()),
        Err(failure) => {
            pgrx::log!("usher: rule \"{}\" could not look at what was touched: {}", rule.name, failure.line());
            aside::put(id);
            Ok(())
        }
    }
}

/// Rules of whose keys those that were touched are due, or, with a gate, those that are bad. While all of a rule is about to be looked at, nobody looks at
/// some of it.
const DUE: &str = "
l.id = (SELECT d.id FROM usher.rules AS d
         WHERE d.enabled AND d.state = 'active' AND d.keys_at <= pg_catalog.clock_timestamp() AND d.keys_every IS NOT NULL AND (d.keyed_now OR d.sweep_began_at IS NOT NULL)
           AND d.id <> ALL ($1)
           AND CASE WHEN d.definition -> 'run' ?| '{transaction,after_sync}'::text[]
                    THEN EXISTS (SELECT FROM usher.violations AS v WHERE v.rule_id = d.id AND v.status IN ('pending', 'open', 'waived'))
                    ELSE EXISTS (SELECT FROM usher.rule_checks AS c WHERE c.rule_id = d.id) END
         ORDER BY d.keys_at, d.id LIMIT 1)";

/// What was touched of the rule whose time has come first, as much as one look should have. False: there is none.
pub fn by_the_clock(installed: Installed) -> Result<bool> {
    let Some(rule) = store::rules(DUE, &[spi::arg(aside::rules())])?.into_iter().next() else { return Ok(false) };
    aside::apart(rule.id, || due_now(installed, &rule))?;
    Ok(true)
}

fn due_now(installed: Installed, rule: &Rule) -> Result<()> {
    aside::look(rule.id)?;
    let definition = rule.definition()?;
    let seconds = |milliseconds: Option<i64>| milliseconds.unwrap_or(LONGEST_WAIT) as f64 / 1_000.0;
    let outcome = subxact::attempt_within(Some(LIMIT), || {
        if definition.in_transaction {
            return standing(installed, rule).map(|()| false);
        }
        part(installed, rule)
    });
    match outcome {
        // Others have their turn first.
        Ok(true) => put_off(rule.id, 0.0)?,
        Ok(false) => put_off(rule.id, seconds(definition.every))?,
        Err(failure) if failure.is_busy() => return Err(failure.into()),
        Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED => {
            // As before there were keys, until it is tried again.
            keyed::doubt(rule.id, &format!("a look at what was touched took longer than {} s", LIMIT.as_secs()))?;
            put_off(rule.id, seconds(definition.full))?;
        }
        Err(failure) => {
            monitor::failed(installed, rule, &failure)?;
            put_off(rule.id, 10.0)?;
        }
    }
    Ok(())
}

/// What was touched of a rule is looked at later.
fn put_off(rule: i32, seconds: f64) -> Result<()> {
    spi::run(
        "UPDATE usher.rules AS l SET keys_at = pg_catalog.clock_timestamp() + $2::float8 * '1 second'::interval WHERE l.id = $1",
        &[spi::arg(rule), spi::arg(seconds)],
    )?;
    Ok(())
}

/// All or nothing of what one look takes. True: there may be more.
fn part(installed: Installed, rule: &Rule) -> Result<bool> {
    let _nest = Nest::open().lock_timeout(PATIENCE);
    let mut taken = take(rule.id)?;
    let Some(fitted) = fitted(installed, rule)? else { return Ok(taken.full) };
    if taken.everything {
        // In parts, at once: what cannot be evaluated keeps nobody there, and no part takes long.
        keyed::doubt(rule.id, "everything was touched at once, or by somebody who does not note what")?;
        spi::run("UPDATE usher.rules AS l SET check_at = pg_catalog.clock_timestamp() WHERE l.id = $1", &[spi::arg(rule.id)])?;
    } else if taken.keys.len() > MANY && fitted.definition.every.is_some() && less_is_everything(&fitted, taken.keys.len())? {
        keyed::doubt(rule.id, "more was touched than is worth a look at each")?;
    } else {
        let (now, later) = taken.keys.split_at(taken.keys.len().min(MOST_AT_ONCE));
        for keys in now.chunks(MOST_KEYS) {
            some(installed, rule, &fitted, keys)?;
        }
        leave(rule.id, later)?;
        taken.full |= !later.is_empty();
    }
    if taken.full && fitted.whole.is_none() && too_many(rule.id)? {
        keyed::doubt(rule.id, "too much was touched since the last look")?;
    }
    Ok(taken.full)
}

/// Whether a look at everything is less work than one at so many keys.
fn less_is_everything(fitted: &Fitted, keys: usize) -> Result<bool> {
    let tables: Vec<pgrx::pg_sys::Oid> = fitted.reads.iter().map(|table| table.oid).collect();
    let rows = spi::read::<f32>(
        "SELECT pg_catalog.max(x.rows)::real FROM (
            SELECT pg_catalog.sum(GREATEST(c.reltuples, 0)) AS rows
              FROM pg_catalog.unnest($1::oid[]) AS t (id)
             CROSS JOIN LATERAL (SELECT t.id AS oid UNION SELECT p.relid::oid FROM pg_catalog.pg_partition_tree(t.id::pg_catalog.regclass) AS p WHERE p.isleaf) AS o
              JOIN pg_catalog.pg_class AS c ON c.oid = o.oid AND c.relkind = 'r' GROUP BY t.id) AS x",
        &[spi::arg(tables)],
    )?;
    Ok(keys as f32 * ROWS_OF_A_KEY > rows.unwrap_or(0.0))
}

/// Leaves keys to a later look.
fn leave(rule: i32, keys: &[Key]) -> Result<()> {
    let (mut organizations, mut lines) = (Vec::new(), Vec::new());
    for some in keys.chunks(MOST_KEYS) {
        // Those of an organization stand behind each other.
        for same in some.chunk_by(|one, other| one.0 == other.0) {
            organizations.push(same[0].0.unwrap_or(Uuid::from_bytes(NOBODY)));
            lines.push(same.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join("\n"));
        }
    }
    if !lines.is_empty() {
        spi::run(
            "INSERT INTO usher.rule_checks (organization_id, id, rule_id, keys, compact)
             SELECT t.org, usher.uuid_v7(), $1, t.keys, true FROM ROWS FROM (pg_catalog.unnest($2::uuid[]), pg_catalog.unnest($3::text[])) AS t (org, keys)",
            &[spi::arg(rule), spi::arg(organizations), spi::arg(lines)],
        )?;
    }
    Ok(())
}

fn too_many(rule: i32) -> Result<bool> {
    let more = spi::read::<bool>(
        "SELECT pg_catalog.count(*) >= $2 FROM (SELECT FROM usher.rule_checks AS c WHERE c.rule_id = $1 LIMIT $2) AS c",
        &[spi::arg(rule), spi::arg(MOST_WAITING)],
    )?;
    Ok(more == Some(true))
}

/// Forgets what is written down of a rule of which everything is looked at now. True: there is more, and the look has to wait.
pub fn forget(rule: i32) -> Result<bool> {
    let gone = spi::run(
        "DELETE FROM usher.rule_checks AS c USING (SELECT k.organization_id, k.id FROM usher.rule_checks AS k WHERE k.rule_id = $1 ORDER BY k.id LIMIT $2) AS s
          WHERE c.organization_id = s.organization_id AND c.id = s.id",
        &[spi::arg(rule), spi::arg(MOST_CHECKS)],
    )?;
    Ok(gone as i64 >= MOST_CHECKS)
}

/// Violations that stand, those first that nobody has looked at for longest: a gate keeps others out, and says nothing of those that ended.
fn standing(installed: Installed, rule: &Rule) -> Result<()> {
    let keys = spi::all(
        "SELECT v.organization_id, v.key::text FROM usher.violations AS v WHERE v.rule_id = $1 AND v.status IN ('pending', 'open', 'waived') ORDER BY v.last_seen_at LIMIT $2",
        &[spi::arg(rule.id), spi::arg(MOST_KEYS as i64)],
        |row| Ok((row.get::<Uuid>(1)?.filter(|id| *id.as_bytes() != NOBODY), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    let _nest = Nest::open().lock_timeout(PATIENCE);
    match fitted(installed, rule)? {
        Some(fitted) => some(installed, rule, &fitted, &keys),
        None => Ok(()),
    }
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
fn some(installed: Installed, rule: &Rule, fitted: &Fitted, keys: &[Key]) -> Result<()> {
    let mut open = vec![keys];
    while let Some(part) = open.pop() {
        if part.is_empty() {
            continue;
        }
        match subxact::attempt(|| look::look(installed, rule, fitted, &Scope::Keys(&scope(part)?))) {
            Ok(_) => {}
            Err(failure) if !failure.tells_about_the_rows() => return Err(failure.into()),
            Err(failure) if part.len() == 1 => skipped(rule, &part[0].1, &failure)?,
            Err(_) => {
                let (first, second) = part.split_at(part.len() / 2);
                open.extend([second, first]);
            }
        }
    }
    Ok(())
}

fn skipped(rule: &Rule, key: &str, failure: &Failure) -> Result<()> {
    let why = format!("{key}: {}", failure.line());
    pgrx::log!("usher: rule \"{}\" cannot look at a key: {}", rule.name, failure.line());
    spi::run(
        // Looks at everything tell of all such keys, and when there are none any more.
        "UPDATE usher.rules AS l
            SET last_error = $2, last_error_at = pg_catalog.clock_timestamp(),
                check_at = CASE WHEN l.keyed THEN LEAST(l.check_at, pg_catalog.clock_timestamp() + COALESCE(l.keys_every, '1 minute')) ELSE l.check_at END
          WHERE l.id = $1",
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
