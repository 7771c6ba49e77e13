//! The commit gate: nobody commits a key that a rule with `"run": ["transaction"]` finds bad.
//!
//! Asked when nothing of the transaction can write any more. First the locks of the touched keys, in the order of rules and stripes, then a
//! look at what is committed at that moment together with what this transaction has done: of two that break a rule only together the second
//! waits for the first, and sees it. So it is in every isolation level; what the transaction itself cannot see is a serialization failure.
//!
//! A rule that cannot be asked stops nobody. It says so, and a worker marks it as broken.

use super::alone;
use super::fit;
use super::look::{self, Keys};
use super::statement::{Form, Shape};
use super::touched::{self, All, Key, Touched};
use super::touched_checks as checks;
use super::trigger::{self, Known, Rules};
use crate::error::{Result, UsherError};
use crate::pg::commit::{Level, Watch};
use crate::pg::latest::{self, Planned};
use crate::pg::{locks, role, spi, subxact, xact};
use crate::setup::{self, Installed};
use pgrx::PgSqlErrorCode;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::{JsonB, Uuid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

pub const WATCH: Watch = Watch { pending: touched::any, before_commit, look_now, kept: touched::kept, undone: touched::undone };

/// A transaction with more stripes of one rule than these takes the whole of it, and holds fewer locks.
const MOST_STRIPES: usize = 64;

/// Keys up to which the query is planned once, as for few of them: planning would take longer than looking.
const MOST_IN_ONE_PLAN: usize = 1_000;

fn here() -> Option<Installed> {
    setup::installed().ok().filter(|installed| installed.up_to_date)
}

fn before_commit() -> Result<()> {
    let (all, unasked) = (touched::take(), touched::take_unasked());
    let Some(installed) = here() else { return Ok(()) };
    let mut gates = Vec::new();
    let mut later = Vec::new();
    for (rule, touched) in all {
        match &*trigger::kept(installed, rule)? {
            Rules::Gone => {}
            // Its look says why, and marks it.
            Rules::Broken(name, gate) => {
                if *gate {
                    trigger::warn_of(name);
                }
                later.push((rule, Touched::Everything));
            }
            Rules::Known(known) => gates.push((known.clone(), touched)),
        }
    }
    // Of all rules, before the first look: the look sees what those have committed who had them before.
    for (known, touched) in &gates {
        if known.fitted.definition.in_transaction {
            take(known.id, touched);
        }
    }
    for (known, touched) in gates {
        let definition = &known.fitted.definition;
        // What a gate has let pass is as it should be: nobody needs to look at it again.
        let asked = definition.in_transaction && passes(installed, &known, &touched)?;
        if !asked && (definition.in_transaction || known.fitted.whole.is_none()) || definition.after_sync {
            later.push((known.id, touched));
        }
    }
    later.extend(unasked.into_iter().map(|rule| (rule, Touched::Everything)));
    checks::note(installed, later)
}

/// The keys of a rule, for as long as the transaction goes on.
fn take(rule: i32, touched: &Touched) {
    let stripes: BTreeSet<u8> = match touched {
        Touched::Keys(keys) => keys.values().copied().collect(),
        _ => BTreeSet::new(),
    };
    let alone = *touched == Touched::Everything || stripes.len() > MOST_STRIPES;
    locks::take_gate(rule, None, alone);
    if !alone {
        stripes.into_iter().for_each(|stripe| locks::take_gate(rule, Some(stripe), true));
    }
}

/// What a part of a transaction has touched, without waiting for anybody: the commit does that.
fn look_now(level: Level) -> Result<()> {
    let Some(installed) = here() else { return Ok(()) };
    let all: All = touched::since(level);
    for (rule, touched) in all {
        if let Rules::Known(known) = &*trigger::rule(installed, rule)?
            && known.fitted.definition.in_transaction
        {
            passes(installed, known, &touched)?;
        }
    }
    Ok(())
}

/// What was found bad, and how many more.
struct Bad {
    organization: Option<String>,
    key: String,
    wrong: String,
    others: i64,
}

/// False: the rule could not be asked. An error: it does not hold, or somebody stands in the way.
fn passes(installed: Installed, known: &Rc<Known>, touched: &Touched) -> Result<bool> {
    if known.volatile && !xact::sees_new_commits() {
        return Err(UsherError::state(format!(
            "rule \"{}\" calls a function that is VOLATILE, which does not see in this transaction what others have committed",
            known.name
        ))
        .hint("Write in READ COMMITTED, or have the function declared STABLE."));
    }
    let found = match subxact::attempt(|| ask(installed, known, touched)) {
        Ok(found) => found,
        Err(failure) if failure.tells_about_the_rows() => {
            trigger::warn_of(&known.name);
            return Ok(false);
        }
        Err(failure) => return Err(failure.into()),
    };
    if found.is_empty() {
        return Ok(true);
    }
    match unknown(installed, known, found, *touched == Touched::Everything)? {
        None => Ok(true),
        Some(bad) => Err(refusal(installed, known, bad)),
    }
}

/// Organizations, keys and sentences of bad rows, as PostgreSQL writes arrays.
type Found = [String; 3];

fn ask(installed: Installed, known: &Known, touched: &Touched) -> Result<Vec<Found>> {
    let _fence = fit::fence();
    let _acting = role::act_as(known.run_as);
    let mut found = Vec::new();
    match touched {
        Touched::Nothing => {}
        Touched::Everything => {
            found.extend(of(latest::first_row(&known.everywhere, &[DatumWithOid::null_oid(pg_sys::UUIDOID)], Planned::AsUsual)?));
        }
        Touched::Keys(keys) => {
            if alone::any_bad(&known.fitted, &known.alone, keys)? == Some(false) {
                return Ok(found);
            }
            for (shape, (organizations, keys)) in by_shape(known, keys) {
                let planned = if keys.len() <= MOST_IN_ONE_PLAN { Planned::Once } else { Planned::AsUsual };
                let other = shape.map(|shape| Form { fitted: &known.fitted, installed }.at_keys(&shape));
                let sql = other.as_ref().unwrap_or(&known.at_keys);
                found.extend(of(latest::first_row(sql, &[spi::arg(organizations), spi::arg(keys)], planned)?));
            }
        }
    }
    Ok(found)
}

fn of(row: Option<Vec<Option<String>>>) -> Option<Found> {
    let mut columns = row.unwrap_or_default().into_iter();
    let (organizations, keys, _, wrongs) = (columns.next(), columns.next(), columns.next(), columns.next());
    Some([organizations??, keys??, wrongs??])
}

/// Organizations and keys of one shape.
type Alike = (Vec<Option<Uuid>>, Vec<String>);

/// Keys of which as much is known, each kind by itself. None: all of them, and whose they are.
fn by_shape(known: &Known, keys: &HashMap<Key, u8>) -> BTreeMap<Option<Shape>, Alike> {
    let whole = Shape::whole(&known.fitted);
    let mut shapes: BTreeMap<Option<Shape>, Alike> = BTreeMap::new();
    for (organization, key) in keys.keys() {
        let shape = if known.whole && organization.is_some() {
            None
        } else {
            let json = serde_json::from_str(key).unwrap_or(serde_json::Value::Null);
            Some(Shape::of(&known.fitted, organization.is_some(), &json)).filter(|shape| *shape != whole)
        };
        let (organizations, keys) = shapes.entry(shape).or_default();
        organizations.push(organization.map(Uuid::from_bytes));
        keys.push(key.clone());
    }
    shapes
}

/// The first of them that nobody has accepted. Where everything was looked at, what is written down already is no news of this transaction.
fn unknown(installed: Installed, known: &Known, found: Vec<Found>, everything: bool) -> Result<Option<Bad>> {
    let (mut organizations, mut keys, mut wrongs) = (Vec::new(), Vec::new(), Vec::new());
    for [organization, key, wrong] in found {
        organizations.push(organization);
        keys.push(key);
        wrongs.push(wrong);
    }
    let _acting = role::internal(installed.owner);
    let statuses = if everything { vec!["waived", "open", "pending"] } else { vec!["waived"] };
    let mut rows = spi::read_all(
        "SELECT f.org::text, f.key::text, f.wrong, pg_catalog.count(*) OVER () - 1
           FROM (SELECT DISTINCT b.org, b.key, b.wrong
                   FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS a (org, key, wrong)
                  CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(a.org::uuid[]), pg_catalog.unnest(a.key::jsonb[]), pg_catalog.unnest(a.wrong::text[])) AS b (org, key, wrong)) AS f
          WHERE NOT EXISTS (SELECT FROM usher.violations AS v
                             WHERE v.rule_id = $4 AND v.organization_id = f.org AND v.key = f.key AND v.status IN ('pending', 'open', 'waived') AND v.status = ANY ($5))
          ORDER BY f.org, f.key LIMIT 1",
        &[spi::arg(organizations), spi::arg(keys), spi::arg(wrongs), spi::arg(known.id), spi::arg(statuses)],
        |row| {
            Ok(Bad {
                organization: row.get::<String>(1)?,
                key: row.get::<String>(2)?.unwrap_or_default(),
                wrong: row.get::<String>(3)?.unwrap_or_default(),
                others: row.get::<i64>(4)?.unwrap_or_default(),
            })
        },
    )?;
    Ok(rows.pop())
}

fn refusal(installed: Installed, known: &Known, bad: Bad) -> UsherError {
    // What it cannot see itself may be as it should be in the next try.
    if !xact::sees_new_commits() && !is_bad_here(installed, known, &bad) {
        return UsherError::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("rule \"{}\" would not hold for {} together with what others have committed meanwhile", known.name, bad.key),
        )
        .hint("Try the transaction again.");
    }
    let mut error = UsherError::new(
        PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
        format!("rule \"{}\" does not hold for {}: {}", known.name, bad.key, bad.wrong),
    );
    if bad.others > 0 {
        let keys = if bad.others == 1 { "1 further key".to_owned() } else { format!("{} further keys", bad.others) };
        error = error.detail(format!("Nor does it for {keys} that this transaction has touched."));
    }
    let remedy = match &known.fitted.definition.repair {
        None => "Correct that in the same transaction, before COMMIT.",
        // What it does is not for whoever writes: a definition is for those who run the installation.
        Some(_) => {
            "Correct that in the same transaction, before COMMIT. The rule has a repair, which those who run pg_usher may ask for."
        }
    };
    error.hint(remedy)
}

/// Whether the transaction itself sees what is wrong.
fn is_bad_here(installed: Installed, known: &Known, bad: &Bad) -> bool {
    let organization = bad.organization.as_ref().and_then(|id| {
        let bytes = id.split('-').collect::<String>();
        let bytes: Option<Vec<u8>> = (0..16).map(|n| u8::from_str_radix(bytes.get(n * 2..n * 2 + 2)?, 16).ok()).collect();
        bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
    });
    // What names no organization is looked for in any.
    let organization = organization.filter(|bytes| *bytes != [0; 16]).map(Uuid::from_bytes);
    let Ok(key) = serde_json::from_str(&bad.key) else { return true };
    let keys = Keys { organizations: vec![organization], keys: vec![JsonB(key)] };
    match subxact::attempt(|| look::find(installed, &known.fitted, keys)) {
        Ok(found) => !found.is_empty(),
        // PostgreSQL itself may say here that this transaction cannot be put before or behind another.
        Err(failure) => !failure.is_busy(),
    }
}
