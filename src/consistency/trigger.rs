//! What PostgreSQL calls when rows are written that concern keys of rules: which keys they are is remembered until the commit.
//!
//! What goes wrong here is no error of the writer's: then everything of the rule is meant.

use super::fit::{self, Fitted, Touch};
use super::gate;
use super::statement::{Form, Shape};
use super::store::{self, Rule};
use super::touched;
use crate::error::{Result as Outcome, UsherError};
use crate::pg::guc::Nest;
use crate::pg::trigger::raise;
use crate::pg::{catalog, commit, locks, relcache, role, spi, subxact, trigger as pg_trigger, xact};
use crate::registry::tables::{self, Table};
use crate::setup::{self, Installed};
use pgrx::Uuid;
use pgrx::prelude::*;
use pgrx::trigger_support::PgTriggerOperation as Op;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A rule as its triggers and gates need it, worked out once.
pub struct Known {
    pub id: i32,
    pub name: String,
    pub run_as: pg_sys::Oid,
    pub fitted: Fitted,
    /// SQL for the stripe of a key of the relation `u`.
    stripe: String,
    /// It calls functions that see another snapshot than the statement around them.
    pub volatile: bool,
    /// All changed rows name the whole key.
    pub whole: bool,
    pub at_keys: String,
    pub everywhere: String,
}

pub enum Rules {
    Known(Rc<Known>),
    /// It is gone or off.
    Gone,
    /// It does not fit the database, and nobody is stopped by it: its name, and whether it has a gate.
    Broken(String, bool),
}

/// What one trigger does.
#[derive(Default)]
struct Plan {
    /// For the rules that name plain columns: all in one statement.
    quick: Option<String>,
    /// For the others, each with the rights of its rule.
    slow: Vec<(Rc<Known>, String)>,
    /// Of these everything is meant.
    whole: Vec<i32>,
    /// Of these everything is looked at when somebody writes who is not asked.
    keyed: Vec<i32>,
    /// Rules that should be kept, and are not.
    broken: Vec<String>,
}

#[derive(Default)]
struct Plans {
    generation: (u64, u64),
    plans: HashMap<(u32, &'static str), Rc<Plan>>,
    rules: HashMap<i32, Rc<Rules>>,
}

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::new(Plans::default());
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static TOLD: RefCell<HashSet<String>> = RefCell::new(HashSet::new());
}

/// Once in a session.
pub fn warn_of(rule: &str) {
    if TOLD.with_borrow_mut(|told| told.insert(rule.to_owned())) {
        warning!("rule \"{rule}\" is broken: what it says is not looked at before COMMIT until an operator mends it");
    }
}

/// A statement has changed rows that concern keys of rules.
#[pg_trigger]
fn note_touched<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    raise(noted(trigger));
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

fn noted(trigger: &PgTrigger<'_>) -> Outcome<()> {
    let op = trigger.op().map_err(|e| UsherError::internal(e.to_string()))?;
    let relation = trigger.relid().map_err(|e| UsherError::internal(e.to_string()))?;
    // Without its tables, or with those of another version, nobody knows of rules; the application's writers go on.
    let Ok(installed) = setup::installed() else { return Ok(()) };
    if !installed.up_to_date {
        return Ok(());
    }
    let letter = match op {
        Op::Insert => "I",
        Op::Update => "U",
        Op::Delete => "D",
        Op::Truncate => "T",
    };
    if !crate::settings::capture() {
        // Nobody is asked, and nobody is stopped by us: what is not noted now is found by the next look at everything.
        if let Ok(plan) = subxact::attempt(|| plan(installed, relation, letter))
            && !plan.keyed.is_empty()
        {
            watch();
            plan.keyed.iter().for_each(|rule| touched::note_unasked(*rule));
        }
        return Ok(());
    }
    let plan = plan(installed, relation, letter)?;
    plan.broken.iter().for_each(|rule| warn_of(rule));
    if plan.quick.is_none() && plan.slow.is_empty() && plan.whole.is_empty() {
        return Ok(());
    }
    watch();
    let level = commit::level();
    plan.whole.iter().for_each(|rule| touched::note_everything(level, *rule));
    if let Some(sql) = &plan.quick {
        // Nothing but our own statement runs under it.
        let _path = Nest::pinned_path();
        let _acting = role::act_as(installed.owner);
        note(trigger, level, sql)?;
    }
    for (known, sql) in &plan.slow {
        let outcome = subxact::attempt(|| {
            let _fence = fit::fence();
            let _acting = role::act_as(known.run_as);
            note(trigger, level, sql)
        });
        if outcome.is_err() {
            // Which keys they are cannot be told. Noted where the writer is, not in what was undone.
            touched::note_everything(level, known.id);
        }
    }
    Ok(())
}

/// From the first note on the commits of this process are looked at.
fn watch() {
    if !WATCHING.replace(true) {
        commit::watch(gate::WATCH);
        xact::at_end(touched::forget);
    }
}

fn note(trigger: &PgTrigger<'_>, level: u32, sql: &str) -> Outcome<()> {
    Spi::connect_mut(|client| {
        pg_trigger::register_tables(trigger)?;
        let mut table = spi::query(client, sql, &[])?;
        while table.next().is_some() {
            let (Some(rule), Some(key)) = (table.get::<i32>(1)?, table.get::<String>(3)?) else { continue };
            let organization = table.get::<Uuid>(2)?.map(|id| *id.as_bytes());
            let stripe = table.get::<i32>(4)?.unwrap_or_default();
            touched::note(level, rule, (organization, key), u8::try_from(stripe & 255).unwrap_or_default());
        }
        Ok(())
    })
}

fn fresh<T>(find: impl FnOnce(&mut Plans) -> T) -> T {
    let generation = relcache::generations();
    PLANS.with_borrow_mut(|plans| {
        if plans.generation != generation {
            *plans = Plans { generation, ..Plans::default() };
        }
        find(plans)
    })
}

fn plan(installed: Installed, relation: pg_sys::Oid, letter: &'static str) -> Outcome<Rc<Plan>> {
    let key = (relation.to_u32(), letter);
    if let Some(found) = fresh(|plans| plans.plans.get(&key).cloned()) {
        return Ok(found);
    }
    xact::remember_only_now();
    let _acting = role::internal(installed.owner);
    let (plan, sure) = build(installed, relation, letter)?;
    let plan = Rc::new(plan);
    if sure {
        fresh(|plans| plans.plans.insert(key, plan.clone()));
    }
    Ok(plan)
}

/// A rule as it is now.
pub fn rule(installed: Installed, id: i32) -> Outcome<Rc<Rules>> {
    if let Some(found) = fresh(|plans| plans.rules.get(&id).cloned()) {
        return Ok(found);
    }
    xact::remember_only_now();
    let _acting = role::internal(installed.owner);
    match store::by_id(id)? {
        None => Ok(Rc::new(Rules::Gone)),
        Some(rule) => of(installed, &rule),
    }
}

fn of(installed: Installed, rule: &Rule) -> Outcome<Rc<Rules>> {
    if let Some(found) = fresh(|plans| plans.rules.get(&rule.id).cloned()) {
        return Ok(found);
    }
    let gate = rule.definition().is_ok_and(|definition| definition.in_transaction);
    let made = if !rule.enabled {
        Rules::Gone
    } else if rule.broken {
        Rules::Broken(rule.name.clone(), gate)
    } else {
        match subxact::attempt(|| rule.fit(installed)) {
            Ok(fitted) => Rules::Known(Rc::new(known(installed, rule, fitted)?)),
            Err(failure) if failure.tells_about_the_rule() => Rules::Broken(rule.name.clone(), gate),
            Err(failure) => return Err(failure.into()),
        }
    };
    let made = Rc::new(made);
    fresh(|plans| plans.rules.insert(rule.id, made.clone()));
    Ok(made)
}

fn known(installed: Installed, rule: &Rule, fitted: Fitted) -> Outcome<Known> {
    let form = Form { fitted: &fitted, installed };
    let functions: Vec<pg_sys::Oid> =
        fitted.needs.iter().filter(|(class, _)| *class == pg_sys::ProcedureRelationId).map(|(_, object)| *object).collect();
    let volatile = spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc AS p WHERE p.oid = ANY ($1) AND p.provolatile = 'v')",
        &[spi::arg(functions)],
    )?;
    Ok(Known {
        id: rule.id,
        name: rule.name.clone(),
        run_as: fitted.run_as,
        stripe: stripe(&fitted),
        volatile: volatile == Some(true),
        whole: fitted.touches.iter().all(|touch| touch.keys.iter().all(Option::is_some)),
        at_keys: form.at_keys(&Shape::whole(&fitted)),
        everywhere: form.everywhere(),
        fitted,
    })
}

/// Keys that are equal have the same stripe, however they are written, and so do those that are alike in what every changed row names of
/// them. Keys whose type has no hash all share one.
fn stripe(fitted: &Fitted) -> String {
    let named = |at: usize| fitted.touches.iter().all(|touch| touch.keys[at].is_some());
    let columns: Vec<&fit::Column> =
        fitted.key.iter().enumerate().filter(|(at, _)| named(*at)).map(|(_, column)| column).collect();
    if columns.is_empty() {
        return "0".to_owned();
    }
    let row = |value: &dyn Fn(&fit::Column) -> String| columns.iter().map(|column| value(column)).collect::<Vec<_>>().join(", ");
    // As JSON, 1 and 1.0 are equal, too.
    if columns.iter().all(|column| PLAIN.contains(&column.type_oid)) {
        let values = row(&|column| format!("u.key -> {}", pgrx::spi::quote_literal(&column.name)));
        return format!("(pg_catalog.jsonb_hash_extended(pg_catalog.jsonb_build_array({values}), 0) & 255)::integer");
    }
    let none = row(&|column| format!("NULL::{}", column.type_sql));
    let hashed = subxact::rehearse(|| spi::read::<i64>(&format!("SELECT pg_catalog.hash_record_extended(ROW({none}), 0)"), &[]));
    if hashed.is_err() {
        return "0".to_owned();
    }
    let values = row(&|column| format!("(u.key ->> {})::{}", pgrx::spi::quote_literal(&column.name), column.type_sql));
    format!("(pg_catalog.hash_record_extended(ROW({values}), 0) & 255)::integer")
}

/// Types whose values are the same JSON in every session, and run nobody's code.
const PLAIN: [pg_sys::Oid; 6] =
    [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::UUIDOID, pg_sys::BOOLOID, pg_sys::TEXTOID];

/// The expression is a column, of a plain type.
fn plain(text: &str, table: &Table) -> bool {
    text.trim().strip_prefix("row.").is_some_and(|name| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && table.column(name).is_some_and(|column| PLAIN.contains(&column.type_oid))
    })
}

/// False: something could not be found out, and is tried again with the next statement.
fn build(installed: Installed, relation: pg_sys::Oid, letter: &'static str) -> Outcome<(Plan, bool)> {
    let rules = store::rules(
        "l.enabled AND l.id IN (SELECT d.rule_id FROM usher.rule_dependencies AS d
                                 WHERE d.watched AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass
                                   AND (d.object = $1 OR d.object IN (SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors($1::pg_catalog.regclass) AS a)))",
        &[spi::arg(relation)],
    )?;
    let (mut plan, mut quick, mut sure) = (Plan::default(), Vec::new(), true);
    for rule in rules {
        let known = match subxact::attempt(|| {
            let _nest = Nest::open().lock_timeout(store::PATIENCE);
            of(installed, &rule)
        }) {
            Ok(known) => known,
            Err(_) => {
                plan.whole.push(rule.id);
                sure = false;
                continue;
            }
        };
        let known = match &*known {
            Rules::Known(known) => known.clone(),
            Rules::Gone => continue,
            Rules::Broken(name, gate) => {
                if *gate {
                    plan.broken.push(name.clone());
                }
                // Where nobody has said so yet, a look does.
                if !rule.broken {
                    plan.whole.push(rule.id);
                }
                continue;
            }
        };
        let definition = &known.fitted.definition;
        let keyed = known.fitted.whole.is_none();
        if !(definition.in_transaction || definition.after_sync || keyed) {
            continue;
        }
        let Some(touch) = belonging(relation, &known.fitted)? else { continue };
        if keyed {
            plan.keyed.push(rule.id);
        }
        if letter == "T" {
            plan.whole.push(rule.id);
            continue;
        }
        let sql = statement(installed, &known, touch, letter);
        let columns = touch.keys.iter().flatten().chain(&touch.organization).all(|text| plain(text, &touch.table));
        if columns {
            quick.push(sql);
        } else {
            plan.slow.push((known, sql));
        }
    }
    if !quick.is_empty() {
        plan.quick = Some(quick.join(" UNION ALL "));
    }
    Ok((plan, sure))
}

/// Rule, organization, key and stripe of what the rows of a statement concern: one more than is kept, at most.
fn statement(installed: Installed, known: &Known, touch: &Touch, letter: &str) -> String {
    let form = Form { fitted: &known.fitted, installed };
    let sides: Vec<String> = [("usher_old", letter != "I"), ("usher_new", letter != "D")]
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|(relation, _)| form.touched(touch, relation))
        .collect();
    format!(
        "(SELECT {}::integer, u.org, u.key::text, {} FROM ({}) AS u LIMIT {})",
        known.id,
        known.stripe,
        sides.join(" UNION "),
        touched::MOST + 1
    )
}

/// What the rows of a relation concern, if it is a table of `"touches"` or one of its partitions. One that was detached keeps its triggers for a
/// while, and its owner may do with its columns what he likes: of another type they would run his code with other rights.
fn belonging(relation: pg_sys::Oid, fitted: &Fitted) -> Outcome<Option<&Touch>> {
    for touch in &fitted.touches {
        let below = touch.table.oid == relation
            || spi::read::<bool>(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors($1::pg_catalog.regclass) AS a WHERE a.relid = $2)",
                &[spi::arg(relation), spi::arg(touch.table.oid)],
            )? == Some(true);
        if !below {
            continue;
        }
        let there = tables::by_oid(relation)?.ok_or_else(|| UsherError::internal("a changed table is not in the catalog"))?;
        let alike = touch.table.columns.iter().all(|column| {
            there
                .column(&column.name)
                .is_some_and(|other| (other.type_oid, other.collation) == (column.type_oid, column.collation))
        });
        return Ok(alike.then_some(touch));
    }
    Ok(None)
}

/// A rule that was worked out as often, and was another each time, is taken as it is: the look says what does not fit.
const MOST_TRIES: u32 = 10;

/// Keeps what a rule reads from being altered while it is asked, and says what the rule is then.
pub fn kept(installed: Installed, id: i32) -> Outcome<Rc<Rules>> {
    let mut rules = rule(installed, id)?;
    for _ in 0..MOST_TRIES {
        let Rules::Known(known) = &*rules else { return Ok(rules) };
        known.fitted.reads.iter().for_each(|table| locks::keep(table.oid));
        let now = rule(installed, id)?;
        if Rc::ptr_eq(&now, &rules) {
            return Ok(rules);
        }
        rules = now;
    }
    Ok(rules)
}

/// Every session works out anew what the triggers of these tables do.
pub fn changed(tables: &[pg_sys::Oid]) {
    tables.iter().for_each(|table| catalog::invalidate(*table));
}
