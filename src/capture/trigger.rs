//! What PostgreSQL calls when a captured table changes.

use super::statement::Origin;
use super::{nesting, statement, transactional};
use crate::error::{Result as Outcome, UsherError};
use crate::flow::catalog;
use crate::flow::cause::{self, Cause};
use crate::flow::definition::Change;
use crate::flow::merge;
use crate::flow::store::{self, Flow};
use crate::pg::guc::{self, Nest};
use crate::pg::trigger::raise;
use crate::pg::{gauges, relcache, role, spi, trigger as pg_trigger, xact};
use crate::queue::pressure;
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use pgrx::trigger_support::PgTriggerOperation;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A statement for ordinary writers and one for changes that a flow has caused.
pub struct Forms {
    pub fresh: String,
    pub caused: String,
}

impl Forms {
    fn of(make: impl Fn(Origin) -> String) -> Outcome<Self> {
        let form = |origin| Ok::<_, UsherError>(setup::for_tables(&make(origin))?.into_owned());
        Ok(Self { fresh: form(statement::FRESH)?, caused: form(statement::CAUSED)? })
    }
}

/// What one capture trigger does, worked out once.
pub struct Plan {
    pub enqueue: Option<Forms>,
    /// What merges write themselves, by the pair's name: without its own half. None: nothing is left.
    merging: HashMap<String, Option<String>>,
    /// Some limit of the queue may mean these jobs.
    limited: bool,
    pub transactional: Vec<(Rc<Flow>, Forms)>,
    /// How many capture triggers the table has for this event.
    siblings: usize,
    /// A stored value is written as text: fix the formats.
    formats: bool,
}

#[derive(Default)]
struct Plans {
    generation: (u64, u64),
    plans: HashMap<(u32, char, String), Rc<Plan>>,
}

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::new(Plans::default());
}

pub fn change_of(trigger: &PgTrigger<'_>) -> Outcome<Change> {
    match trigger.op() {
        Ok(PgTriggerOperation::Insert) => Ok(Change::Insert),
        Ok(PgTriggerOperation::Update) => Ok(Change::Update),
        Ok(PgTriggerOperation::Delete) => Ok(Change::Delete),
        _ => Err(UsherError::internal("a capture trigger fired for something else than a change")),
    }
}

/// A statement on a captured table begins.
#[pg_trigger]
fn capture_statement<'a>(
    trigger: &'a PgTrigger<'a>,
) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    let change = raise(change_of(trigger));
    let relation = raise(trigger.relid().map_err(|e| UsherError::internal(e.to_string())));
    nesting::begin(relation.to_u32(), change.letter());
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

/// A statement on a captured table has changed rows.
#[pg_trigger]
fn capture<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    raise(captured(trigger));
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

fn captured(trigger: &PgTrigger<'_>) -> Outcome<()> {
    let change = change_of(trigger)?;
    let relation = trigger.relid().map_err(|e| UsherError::internal(e.to_string()))?;
    let arguments = pg_trigger::arguments(trigger)?;
    let [table, flow] = arguments.as_slice() else {
        return Err(UsherError::internal("a capture trigger lacks its arguments").hint("Drop it and run SELECT usher.setup();"));
    };
    let installed = setup::for_writing()?;
    let plan = plan(installed, relation, change, table, flow)?;
    let ending = nesting::end(relation.to_u32(), change.letter(), plan.siblings);
    if crate::settings::capture() && (plan.enqueue.is_some() || !plan.transactional.is_empty()) {
        let cause = cause::current();
        let _formats = plan.formats.then(|| Nest::open().pinned_formats());
        if let Some(forms) = &plan.enqueue {
            let own = match &cause.merging {
                Some((pair, depth)) if pg_trigger::depth() == depth + 1 => plan.merging.get(&**pair),
                _ => None,
            };
            match own {
                Some(others) => {
                    if let Some(caused) = others {
                        enqueue(trigger, installed, caused, Some(&cause), ending, plan.limited)?;
                    }
                }
                None if cause.hop == 0 => enqueue(trigger, installed, &forms.fresh, None, ending, plan.limited)?,
                None => enqueue(trigger, installed, &forms.caused, Some(&cause), ending, plan.limited)?,
            }
        }
        for (flow, forms) in &plan.transactional {
            transactional::run(trigger, installed, flow, forms, &cause, ending)?;
        }
    }
    nesting::settle(ending);
    Ok(())
}

fn enqueue(
    trigger: &PgTrigger<'_>,
    installed: Installed,
    sql: &str,
    cause: Option<&Cause>,
    ending: nesting::Ending,
    limited: bool,
) -> Outcome<()> {
    xact::mark();
    // Nothing but our own statement runs under it: the queue has no triggers.
    let _path = guc::CatalogOnly::enter();
    let _acting = role::act_as(installed.owner);
    Spi::connect_mut(|client| -> Outcome<()> {
        pg_trigger::register_tables(trigger)?;
        match cause {
            None => spi::query(client, sql, &[])?,
            Some(cause) => spi::query(client, sql, &cause_arguments(cause))?,
        };
        Ok(())
    })?;
    let Some((first, mut last)) = xact::since_mark() else { return Ok(()) };
    if let Some((low, high)) = nesting::captured_inside(ending) {
        xact::mark();
        let sql = if limited { statement::REORDER_HELD } else { statement::REORDER };
        let arguments = [spi::arg(low), spi::arg(high), spi::arg(first), spi::arg(last)];
        // The jobs are counted already.
        gauges::without_counting(|| spi::run(&setup::for_tables(sql)?, &arguments))?;
        // A statement around this one must find the new positions.
        last = xact::since_mark().map_or(last, |(_, newest)| newest);
    }
    if ending.inner {
        nesting::note_captured(ending, first, last);
    }
    Ok(())
}

pub fn cause_arguments<'a>(cause: &Cause) -> [pgrx::datum::DatumWithOid<'a>; 4] {
    [
        spi::arg(cause.hop),
        spi::arg(cause.job.map(pgrx::Uuid::from_bytes)),
        spi::arg((!cause.trail.is_empty()).then(|| cause.trail.clone())),
        spi::arg(cause::write_trail(&cause.trail)),
    ]
}

fn plan(installed: Installed, relation: pg_sys::Oid, change: Change, table: &str, named: &str) -> Outcome<Rc<Plan>> {
    let generation = relcache::generations();
    let key = (relation.to_u32(), change.letter(), named.to_owned());
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
    let plan = Rc::new(build(installed, relation, change, table, named)?);
    PLANS.with_borrow_mut(|plans| {
        // Building may itself have moved the generation on; what was built is of the newer one.
        plans.plans.insert(key, plan.clone());
    });
    Ok(plan)
}

fn build(installed: Installed, relation: pg_sys::Oid, change: Change, table: &str, named: &str) -> Outcome<Plan> {
    // The relation that fired may be a partition: its columns count, the flow's table names the flows.
    let Some(columns) = catalog::by_oid(relation)? else {
        return Err(UsherError::internal("a changed table is not in the catalog"));
    };
    let key = if columns.key.is_empty() {
        catalog::table(table, "a trigger").map(|t| t.key).unwrap_or_default()
    } else {
        columns.key.clone()
    };
    let columns = catalog::Table { key, ..columns };
    let listening: Vec<Rc<Flow>> = store::listeners(table)?
        .into_iter()
        .filter(|flow| matches!(&flow.definition.when, crate::flow::definition::When::Change { on, .. } if on.contains(&change)))
        .collect();
    let triggers_named = listening.iter().filter(|flow| flow.definition.trigger_name.is_some()).count();
    let triggers_shared = usize::from(listening.iter().any(|flow| flow.definition.trigger_name.is_none()));
    let mine: Vec<Rc<Flow>> = listening
        .into_iter()
        .filter(|flow| match &flow.definition.trigger_name {
            None => named.is_empty(),
            Some(_) => flow.name == named,
        })
        .collect();
    let default = installed.default_organization.to_string();
    let (direct, later): (Vec<_>, Vec<_>) =
        mine.into_iter().partition(|flow| flow.definition.in_writer() && flow.broken.is_none());
    let formats = later.iter().chain(&direct).any(|flow| {
        flow.compiled.new.iter().chain(&flow.compiled.old).any(|name| columns.column(name).is_none_or(|column| !column.native))
    });
    let limited = pressure::concerns(later.iter().map(|flow| flow.id))?;
    let mut merging = HashMap::new();
    for own in later.iter().filter(|flow| flow.definition.merge().is_some()) {
        let others: Vec<Rc<Flow>> = later.iter().filter(|flow| flow.id != own.id).cloned().collect();
        let caused = (!others.is_empty())
            .then(|| Forms::of(|origin| statement::enqueue(&columns, change, &others, &default, origin, limited)))
            .transpose()?;
        merging.insert(merge::apply::whole(&own.name).to_owned(), caused.map(|forms| forms.caused));
    }
    Ok(Plan {
        merging,
        limited,
        enqueue: if later.is_empty() {
            None
        } else {
            Some(Forms::of(|origin| statement::enqueue(&columns, change, &later, &default, origin, limited))?)
        },
        transactional: direct
            .into_iter()
            .map(|flow| {
                let siblings = store::siblings(flow.id)?;
                let forms = Forms::of(|origin| statement::matched(&columns, change, &flow, &default, origin, &siblings))?;
                Ok((flow, forms))
            })
            .collect::<Outcome<_>>()?,
        siblings: triggers_named + triggers_shared,
        formats,
    })
}
