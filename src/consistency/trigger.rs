//! What PostgreSQL calls when rows are written that concern keys of rules: which keys they are is remembered until the commit.
//!
//! What goes wrong here is no error of the writer's: then everything of the rule is meant.

use super::alone::{self, Alone};
use super::fit::{self, Fitted, Touch};
use super::gate;
use super::keys::{self, Kind, Named, Reading, Tenant};
use super::statement::{Form, Shape};
use super::store::{self, Rule};
use super::touched;
use crate::error::{Result as Outcome, UsherError};
use crate::pg::changed::{self, Side};
use crate::pg::guc::Nest;
use crate::pg::relcache::{self, Asker};
use crate::pg::trigger::raise;
use crate::pg::{catalog, commit, locks, role, spi, subxact, trigger as pg_trigger, xact};
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
    stripe: Stripe,
    /// It calls functions that see another snapshot than the statement around them.
    pub volatile: bool,
    /// All changed rows name the whole key.
    pub whole: bool,
    pub at_keys: String,
    pub everywhere: String,
    /// Statements for a key by itself.
    pub alone: Vec<Alone>,
    /// The tables that it stands on.
    relations: HashSet<pg_sys::Oid>,
}

/// How the stripe of a key is found. Keys that are equal have the same, however they are written.
enum Stripe {
    /// By these columns, which can be read without a statement.
    Read(Vec<(String, Kind)>),
    /// SQL over a key of the relation `u`.
    Sql(String),
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
    /// For the rules that name plain columns: these are read of each row,
    columns: Vec<changed::Column>,
    /// and so they name the keys.
    quick: Vec<Reading>,
    /// For the others a statement, each with the rights of its rule.
    slow: Vec<(Rc<Known>, String)>,
    /// Of these everything is meant.
    whole: Vec<i32>,
    /// Of these everything is looked at when somebody writes who is not asked.
    keyed: Vec<i32>,
    /// Rules that should be kept, and are not.
    broken: Vec<String>,
    /// The relation and those that it is a partition of: whoever changes a rule says so of one of them.
    relations: Vec<pg_sys::Oid>,
}

#[derive(Default)]
struct Plans {
    generation: (u64, u64),
    plans: HashMap<(u32, &'static str), Rc<Plan>>,
    rules: HashMap<i32, Rc<Rules>>,
}

impl Plans {
    /// What is known hangs on one of these relations. Of a rule that does not fit nobody knows on what.
    fn hangs_on(&self, changed: &[pg_sys::Oid]) -> bool {
        self.plans.values().any(|plan| plan.relations.iter().any(|relation| changed.contains(relation)))
            || self.rules.values().any(|rule| match &**rule {
                Rules::Known(known) => changed.iter().any(|relation| known.relations.contains(relation)),
                Rules::Gone | Rules::Broken(..) => true,
            })
    }
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
    if plan.quick.is_empty() && plan.slow.is_empty() && plan.whole.is_empty() {
        return Ok(());
    }
    watch();
    let level = commit::level();
    plan.whole.iter().for_each(|rule| touched::note_everything(level, *rule));
    if !plan.quick.is_empty() {
        read(trigger, level, &plan, letter);
    }
    for (known, sql) in &plan.slow {
        let outcome = subxact::attempt(|| {
            let _fence = fit::fence();
            let _acting = role::act_as(known.run_as);
            note(trigger, level, known, sql)
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

/// Of the rules whose keys are plain columns.
fn read(trigger: &PgTrigger<'_>, level: u32, plan: &Plan, letter: &str) {
    let mut rows = 0_usize;
    for (side, there) in [(Side::Old, letter != "I"), (Side::New, letter != "D")] {
        let understood = !there
            || changed::each_row(trigger, side, &plan.columns, |row| {
                for reading in &plan.quick {
                    match reading.key(row) {
                        Named::Key(key, stripe) => touched::note(level, reading.rule, key, stripe),
                        Named::Nothing => {}
                        Named::Unreadable => touched::note_everything(level, reading.rule),
                    }
                }
                rows += 1;
                // More than that need not be read, if they were all different.
                !rows.is_multiple_of(touched::MOST)
                    || !plan.quick.iter().all(|reading| touched::is_everything(level, reading.rule))
            });
        if !understood {
            plan.quick.iter().for_each(|reading| touched::note_everything(level, reading.rule));
        }
    }
}

fn note(trigger: &PgTrigger<'_>, level: u32, known: &Known, sql: &str) -> Outcome<()> {
    Spi::connect_mut(|client| {
        pg_trigger::register_tables(trigger)?;
        let mut table = spi::query(client, sql, &[])?;
        while table.next().is_some() {
            let Some(key) = table.get::<String>(2)? else { continue };
            let organization = table.get::<Uuid>(1)?.map(|id| *id.as_bytes());
            let stripe = match &known.stripe {
                Stripe::Read(columns) => keys::stripe_of(&key, columns),
                Stripe::Sql(_) => u8::try_from(table.get::<i32>(3)?.unwrap_or_default() & 255).unwrap_or_default(),
            };
            touched::note(level, known.id, (organization, key), stripe);
        }
        Ok(())
    })
}

fn fresh<T>(find: impl FnOnce(&mut Plans) -> T) -> T {
    let generation = relcache::generations();
    PLANS.with_borrow_mut(|plans| {
        if plans.generation != generation {
            // Other tables come and go all the time.
            let changed = relcache::take_changes(Asker::Gates).filter(|_| plans.generation.0 == generation.0);
            if changed.is_some_and(|changed| !plans.hangs_on(&changed)) {
                plans.generation = generation;
            } else {
                *plans = Plans { generation, ..Plans::default() };
            }
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
    let generation = relcache::generations();
    let _acting = role::internal(installed.owner);
    let (plan, sure) = build(installed, relation, letter)?;
    let plan = Rc::new(plan);
    // What has become another meanwhile is not kept: nobody would tell again.
    if sure && generation == relcache::generations() {
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
    let generation = relcache::generations();
    let _acting = role::internal(installed.owner);
    match store::by_id(id)? {
        None => Ok(Rc::new(Rules::Gone)),
        Some(rule) => of(installed, &rule, generation),
    }
}

/// `generation`: when the rule was read. What has become another since is not kept: nobody would tell again.
fn of(installed: Installed, rule: &Rule, generation: (u64, u64)) -> Outcome<Rc<Rules>> {
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
    if generation == relcache::generations() {
        fresh(|plans| plans.rules.insert(rule.id, made.clone()));
    }
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
    let needs = fitted.needs.iter().filter(|(class, _)| *class == pg_sys::RelationRelationId).map(|(_, object)| *object);
    let relations = needs.chain(fitted.touches.iter().map(|touch| touch.table.oid)).collect();
    Ok(Known {
        id: rule.id,
        name: rule.name.clone(),
        run_as: fitted.run_as,
        stripe: stripe(&fitted),
        volatile: volatile == Some(true),
        whole: fitted.touches.iter().all(|touch| touch.keys.iter().all(Option::is_some)),
        at_keys: form.at_keys(&Shape::whole(&fitted)),
        everywhere: form.everywhere(),
        alone: alone::forms(&form),
        relations,
        fitted,
    })
}

/// Keys that are alike in what every changed row names of them have the same stripe, too. Where equal values may be written in several ways that
/// column does not count, and keys whose type has no hash all share one.
fn stripe(fitted: &Fitted) -> Stripe {
    let named = |at: usize| fitted.touches.iter().all(|touch| touch.keys[at].is_some());
    let columns: Vec<&fit::Column> = fitted
        .key
        .iter()
        .enumerate()
        .filter(|(at, column)| named(*at) && column.deterministic)
        .map(|(_, column)| column)
        .collect();
    if columns.is_empty() {
        return Stripe::Read(Vec::new());
    }
    let read = columns.iter().map(|column| Some((column.name.clone(), keys::kind(column.type_oid)?)));
    if let Some(read) = read.collect() {
        return Stripe::Read(read);
    }
    let row = |value: &dyn Fn(&fit::Column) -> String| columns.iter().map(|column| value(column)).collect::<Vec<_>>().join(", ");
    let none = row(&|column| format!("NULL::{}", column.type_sql));
    let hashed = subxact::rehearse(|| spi::read::<i64>(&format!("SELECT pg_catalog.hash_record_extended(ROW({none}), 0)"), &[]));
    if hashed.is_err() {
        return Stripe::Sql("0".to_owned());
    }
    let values = row(&|column| format!("(u.key ->> {})::{}", pgrx::spi::quote_literal(&column.name), column.type_sql));
    Stripe::Sql(format!("(pg_catalog.hash_record_extended(ROW({values}), 0) & 255)::integer"))
}

/// The column that the expression is.
fn column<'a>(text: &'a str, table: &Table) -> Option<&'a str> {
    let name = text.trim().strip_prefix("row.")?;
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    (plain && table.column(name).is_some()).then_some(name)
}

/// How the keys are read of the rows themselves; None: an expression is more than a column, or its values are not read as they are. `columns` are
/// those of each row that are read.
fn reading(
    installed: Installed,
    known: &Known,
    touch: &Touch,
    relation: pg_sys::Oid,
    columns: &mut Vec<changed::Column>,
) -> Option<Reading> {
    let Stripe::Read(striped) = &known.stripe else { return None };
    let mut place = |text: &str, wanted: Kind| {
        let found = changed::column(relation, column(text, &touch.table)?)?;
        if keys::kind(found.type_oid) != Some(wanted) {
            return None;
        }
        Some(columns.iter().position(|column| *column == found).unwrap_or_else(|| {
            columns.push(found);
            columns.len() - 1
        }))
    };
    let mut parts = Vec::new();
    for (column, text) in known.fitted.key.iter().zip(&touch.keys) {
        if let Some(text) = text {
            parts.push((column.name.clone(), place(text, keys::kind(column.type_oid)?)?));
        }
    }
    let tenant = match (&known.fitted.organization, &touch.organization) {
        (None, _) => Tenant::Of(*installed.default_organization.as_bytes()),
        (Some(_), Some(text)) => Tenant::At(place(text, Kind::Uuid)?),
        (Some(_), None) => Tenant::Any,
    };
    let of = |name: &String| parts.iter().find(|(part, _)| part == name).map(|(_, at)| *at);
    let striped = striped.iter().map(|(name, _)| of(name)).collect::<Option<_>>()?;
    Some(Reading::new(known.id, tenant, parts, striped, known.fitted.names_nulls()))
}

/// An expression names a column whose values the trigger does not see. (One that only has its name in a text or is written so is taken for it.)
fn unseen(relation: pg_sys::Oid, touch: &Touch) -> bool {
    let texts: Vec<String> = touch.keys.iter().flatten().chain(&touch.organization).map(|text| text.to_lowercase()).collect();
    let named = |name: &str| {
        let name = name.to_lowercase();
        texts.iter().any(|text| {
            let part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            text.match_indices(&name).any(|(at, _)| {
                !text[..at].chars().next_back().is_some_and(part) && !text[at + name.len()..].chars().next().is_some_and(part)
            })
        })
    };
    touch.table.columns.iter().any(|column| named(&column.name) && changed::is_unseen(relation, &column.name))
}

/// False: something could not be found out, and is tried again with the next statement.
fn build(installed: Installed, relation: pg_sys::Oid, letter: &'static str) -> Outcome<(Plan, bool)> {
    let generation = relcache::generations();
    let rules = store::rules(
        "l.enabled AND l.id IN (SELECT d.rule_id FROM usher.rule_dependencies AS d
                                 WHERE d.watched AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass
                                   AND (d.object = $1 OR d.object IN (SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors($1::pg_catalog.regclass) AS a)))",
        &[spi::arg(relation)],
    )?;
    let ancestors = spi::read::<Vec<pg_sys::Oid>>(
        "SELECT pg_catalog.array_agg(a.relid::oid) FROM pg_catalog.pg_partition_ancestors($1::pg_catalog.regclass) AS a",
        &[spi::arg(relation)],
    )?;
    let mut relations = ancestors.unwrap_or_default();
    relations.push(relation);
    let (mut plan, mut sure) = (Plan { relations, ..Plan::default() }, true);
    for rule in rules {
        let known = match subxact::attempt(|| {
            let _nest = Nest::open().lock_timeout(store::PATIENCE);
            of(installed, &rule, generation)
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
        if letter == "T" || (letter == "I" && unseen(relation, touch)) {
            plan.whole.push(rule.id);
            continue;
        }
        match reading(installed, &known, touch, relation, &mut plan.columns) {
            Some(reading) => plan.quick.push(reading),
            None => {
                let sql = statement(installed, &known, touch, relation, letter);
                plan.slow.push((known, sql));
            }
        }
    }
    Ok((plan, sure))
}

/// Organization, key and (NULL: it is found without a statement) stripe of what the rows of a statement concern: one more than is kept, at most.
fn statement(installed: Installed, known: &Known, touch: &Touch, relation: pg_sys::Oid, letter: &str) -> String {
    let form = Form { fitted: &known.fitted, installed };
    let sides: Vec<String> = [("usher_old", letter != "I"), ("usher_new", letter != "D")]
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|(relation, _)| form.touched(touch, relation))
        .collect();
    let stripe = match &known.stripe {
        Stripe::Read(_) => "NULL::integer",
        Stripe::Sql(sql) => sql,
    };
    // Plans are kept by their text, and know the place of each column: another partition may have another order.
    format!(
        "/* {} */ SELECT u.org, u.key::text, {stripe} FROM ({}) AS u LIMIT {}",
        relation.to_u32(),
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
