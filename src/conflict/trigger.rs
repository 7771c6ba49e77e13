//! What PostgreSQL calls when rows are written that a rule is about.
//!
//! First the rows that changed are written down, which cannot fail; then they are looked at, in a subtransaction. Whatever goes wrong
//! there, and what others write at the same moment, is left to the look after the commit. Only a rule that refuses may stop a writer.

use super::fit::Fitted;
use super::statement::{Form, note_all};
use super::{look, store};
use crate::error::{Result as Outcome, UsherError};
use crate::pg::guc::Nest;
use crate::pg::latest::{self, Planned};
use crate::pg::trigger::raise;
use crate::pg::{catalog, locks, relcache, role, spi, subxact, trigger as pg_trigger, xact};
use crate::registry::tables;
use crate::setup::{self, Installed};
use pgrx::Uuid;
use pgrx::prelude::*;
use pgrx::trigger_support::PgTriggerOperation as Op;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Looks in one transaction: each is a subtransaction, and more than these make other sessions slow.
const MOST_LOOKS: usize = 32;

/// What one trigger does, worked out once.
struct Plan {
    note: String,
    look: String,
    /// Of a rule that refuses: the resources, and the first row that overlaps.
    refuse: Option<(String, String)>,
    table: String,
    name: String,
    /// What they read beside what has changed.
    tables: Vec<pg_sys::Oid>,
}

enum Known {
    /// The rule is gone, or cannot be used: nothing is found. `Some`: it refuses, so its writers are stopped with this.
    Not(Option<UsherError>),
    /// It could not be found out, and is tried again with the next statement. `Some`: as above.
    Unknown(Option<UsherError>),
    Plan(Plan),
}

type Key = (u32, i32, &'static str);

#[derive(Default)]
struct Plans {
    generation: (u64, u64),
    plans: HashMap<Key, Rc<Known>>,
}

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::new(Plans::default());
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

fn forget() {
    LOOKS.set(0);
}

/// A statement has changed rows that an overlap rule is about.
#[pg_trigger]
fn note_overlaps<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    raise(noted(trigger));
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

fn noted(trigger: &PgTrigger<'_>) -> Outcome<()> {
    let op = trigger.op().map_err(|e| UsherError::internal(e.to_string()))?;
    let relation = trigger.relid().map_err(|e| UsherError::internal(e.to_string()))?;
    let rule = pg_trigger::arguments(trigger)?.first().and_then(|id| id.parse::<i32>().ok());
    let Some(rule) = rule else { return Ok(()) };
    let installed = setup::installed()?;
    // Without its tables, or with those of another version, nothing is found; the application's writers go on.
    if !installed.up_to_date || catalog::usher_relation("overlap_checks").is_none() {
        return Ok(());
    }
    let letter = match op {
        Op::Insert => "I",
        Op::Update => "U",
        Op::Delete => "D",
        Op::Truncate => "T",
    };
    let mut known = known(installed, relation, rule, letter)?;
    if matches!(&*known, Known::Plan(plan) if plan.refuse.is_some()) {
        known = kept(installed, relation, rule, letter, known)?;
    }
    let (note, plan) = match &*known {
        Known::Plan(plan) => (plan.note.clone(), Some(plan)),
        Known::Not(Some(error)) | Known::Unknown(Some(error)) => return Err(error.clone()),
        Known::Not(None) => return Ok(()),
        Known::Unknown(None) => (note_all(rule), None),
    };
    // Nothing but our own statements runs under it. A table is read by its index: a writer's statement changes few rows.
    let _path = Nest::pinned_path().index_scans();
    let _acting = role::act_as(installed.owner);
    let noted = Spi::connect_mut(|client| -> Outcome<_> {
        if letter != "T" {
            pg_trigger::register_tables(trigger)?;
        }
        let row = spi::query(client, &note, &[])?.first();
        let organizations = row.get::<Vec<Uuid>>(1)?.unwrap_or_default();
        Ok((organizations, row.get::<Vec<Uuid>>(2)?.unwrap_or_default(), row.get::<bool>(3)? == Some(true)))
    })?;
    let (organizations, ids, whole) = noted;
    if ids.is_empty() {
        return Ok(());
    }
    xact::note_overlaps();
    xact::at_end(forget);
    let Some(plan) = plan else { return Ok(()) };
    if let Some((resources, first)) = &plan.refuse {
        refuse(rule, plan, resources, first, (&organizations, &ids))?;
    }
    if whole || LOOKS.get() >= MOST_LOOKS {
        return Ok(());
    }
    LOOKS.set(LOOKS.get() + 1);
    // What fails is in the checks, and found once this has committed.
    let outcome = subxact::attempt(|| {
        let _nest = Nest::open().lock_timeout(store::PATIENCE);
        match &*kept(installed, relation, rule, letter, known.clone())? {
            Known::Plan(plan) => look::settle(&plan.look, &[spi::arg(organizations.clone()), spi::arg(ids.clone())]),
            _ => Ok(look::Counts::default()),
        }
    });
    if outcome.is_err_and(|failure| failure.is_busy()) {
        // Waited once, and that is enough.
        LOOKS.set(MOST_LOOKS);
    }
    Ok(())
}

/// What a trigger does, with its tables kept as they were when it was worked out: until the (sub)transaction ends.
fn kept(
    installed: Installed,
    relation: pg_sys::Oid,
    rule: i32,
    letter: &'static str,
    mut known: Rc<Known>,
) -> Outcome<Rc<Known>> {
    loop {
        let Known::Plan(plan) = &*known else { return Ok(known) };
        plan.tables.iter().for_each(|table| locks::keep(*table));
        let now = self::known(installed, relation, rule, letter)?;
        if Rc::ptr_eq(&now, &known) {
            return Ok(known);
        }
        // One that was worked out meanwhile may be about other tables.
        if matches!((&*now, &*known), (Known::Plan(now), Known::Plan(then)) if now.tables == then.tables) {
            return Ok(now);
        }
        known = now;
    }
}

/// Stops the writer of a row that overlaps with another one, also with one that is committed at this moment: whoever writes rows with
/// the same resource comes one after the other, and sees what the one before has committed, whatever the isolation level.
fn refuse(rule: i32, plan: &Plan, resources: &str, first: &str, checks: (&[Uuid], &[Uuid])) -> Outcome<()> {
    let arguments = || [spi::arg(checks.0.to_vec()), spi::arg(checks.1.to_vec())];
    let taken = spi::read::<Vec<i64>>(resources, &arguments())?.unwrap_or_default();
    let mut taken: Vec<u64> = taken.into_iter().map(|resource| resource as u64 % locks::STRIPES).collect();
    taken.sort_unstable();
    taken.dedup();
    taken.iter().for_each(|stripe| locks::take_resource(rule, *stripe));
    match latest::first_row(first, &arguments(), Planned::AsUsual)?.as_deref() {
        // Not whose the other one is: the writer may not be allowed to see it.
        Some([Some(key), Some(resource)]) => Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_EXCLUSION_VIOLATION,
            format!("{} {key} overlaps with another row that has the same {resource}", plan.table),
        )
        .detail(format!("Overlap rule \"{}\" refuses it.", plan.name))
        .hint("Choose another time, or another one to take.")),
        _ => Ok(()),
    }
}

fn known(installed: Installed, relation: pg_sys::Oid, rule: i32, letter: &'static str) -> Outcome<Rc<Known>> {
    let generation = relcache::generations();
    let key = (relation.to_u32(), rule, letter);
    let found = PLANS.with_borrow_mut(|plans| {
        if plans.generation != generation {
            *plans = Plans { generation, plans: HashMap::new() };
        }
        plans.plans.get(&key).cloned()
    });
    if let Some(found) = found {
        return Ok(found);
    }
    xact::remember_only_now();
    let _acting = role::internal(installed.owner);
    let known = Rc::new(build(installed, relation, rule, letter)?);
    if !matches!(&*known, Known::Unknown(_)) {
        PLANS.with_borrow_mut(|plans| plans.plans.insert(key, known.clone()));
    }
    Ok(known)
}

fn build(installed: Installed, relation: pg_sys::Oid, rule: i32, letter: &'static str) -> Outcome<Known> {
    let Some(rule) = store::by_id(rule)? else { return Ok(Known::Not(None)) };
    let fitted = match store::fitted(&rule, installed) {
        Ok(fitted) => fitted,
        Err(failure) => {
            let refuses = rule.definition().is_ok_and(|definition| definition.refuse);
            if !failure.tells_about_the_rule() {
                return Ok(Known::Unknown(refuses.then(|| failure.into())));
            }
            return Ok(Known::Not(refuses.then(|| {
                UsherError::state(failure.message.clone()).detail("The rule refuses overlaps, and nobody could see them.").hint(
                    "An operator mends the rule with usher.alter_overlap_rule(), or ends it with usher.drop_overlap_rule().",
                )
            })));
        }
    };
    if !belongs(relation, &fitted)? {
        return Ok(Known::Not(None));
    }
    let form = Form { id: rule.id, name: &rule.name, fitted: &fitted, installed };
    Ok(Known::Plan(Plan {
        note: if letter == "T" { note_all(rule.id) } else { form.note(relation.to_u32(), letter != "D", letter != "I") },
        look: form.look(),
        refuse: (fitted.definition.refuse && !matches!(letter, "D" | "T")).then(|| (form.resources(), form.first())),
        table: fitted.table.name.clone(),
        name: rule.name.clone(),
        tables: [Some(fitted.table.oid), fitted.free.as_ref().map(|free| free.table.oid)].into_iter().flatten().collect(),
    }))
}

/// Whether a relation whose trigger fires is the rule's table or one of its partitions. One that was detached keeps its triggers for a
/// while, and its owner may do with its columns what he likes: of another type they would run his code with our rights.
fn belongs(relation: pg_sys::Oid, fitted: &Fitted) -> Outcome<bool> {
    let below = spi::read::<bool>(
        "SELECT $1 = $2 OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors($1::pg_catalog.regclass) AS a WHERE a.relid = $2)",
        &[spi::arg(relation), spi::arg(fitted.table.oid)],
    )?;
    if below != Some(true) {
        return Ok(false);
    }
    let there = tables::by_oid(relation)?.ok_or_else(|| UsherError::internal("a changed table is not in the catalog"))?;
    Ok(fitted.table.columns.iter().all(|column| {
        there.column(&column.name).is_some_and(|other| (other.type_oid, other.collation) == (column.type_oid, column.collation))
    }))
}
