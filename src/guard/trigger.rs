//! What PostgreSQL calls when an audited table changes.

use super::statement::Form;
use super::{audit, erasure};
use crate::error::{Result as Outcome, UsherError};
use crate::pg::guc::{self, Nest};
use crate::pg::trigger::raise;
use crate::pg::{catalog, relcache, role, spi, trigger as pg_trigger, xact};
use crate::registry::tables;
use crate::setup;
use pgrx::prelude::*;
use pgrx::trigger_support::PgTriggerOperation as Op;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What one audit trigger does, worked out once.
struct Plan {
    /// `schema.table`; of a partition, the table that it belongs to.
    name: String,
    sql: String,
    by_key: String,
    formats: bool,
    /// What flows do with it is told by their jobs.
    people_only: bool,
}

#[derive(Default)]
struct Plans {
    generation: (u64, u64),
    plans: HashMap<(u32, &'static str, Vec<String>), Rc<Plan>>,
}

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::new(Plans::default());
}

/// A statement on an audited table has changed rows.
#[pg_trigger]
fn audit<'a>(trigger: &'a PgTrigger<'a>) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    raise(audited(trigger));
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

/// Somebody wants to change or delete entries of the log.
#[pg_trigger]
fn audit_log_stays<'a>(
    _trigger: &'a PgTrigger<'a>,
) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    if erasure::at_work() {
        return Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>);
    }
    raise::<()>(Err(UsherError::forbidden("entries of usher.audit_log are neither changed nor deleted")
        .hint("A mistake is set right by what you do next, which is entered too; usher.remove() deletes everything.")));
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

fn audited(trigger: &PgTrigger<'_>) -> Outcome<()> {
    let op = trigger.op().map_err(|e| UsherError::internal(e.to_string()))?;
    let relation = trigger.relid().map_err(|e| UsherError::internal(e.to_string()))?;
    let columns = pg_trigger::arguments(trigger)?;
    let installed = setup::installed()?;
    if !installed.up_to_date {
        return Ok(());
    }
    if catalog::usher_relation("audit_log").is_none() {
        // Somebody has dropped it by hand. The application's writers go on.
        warning!("usher.audit_log is gone: this change is not entered");
        return Ok(());
    }
    let plan = plan(installed.owner, relation, &op, columns)?;
    if plan.people_only && audit::flow_at_work() {
        return Ok(());
    }
    let author = audit::author(Some(&plan.name))?;
    let _formats = plan.formats.then(|| Nest::open().pinned_formats());
    // Nothing but our own statement runs under it: the log has no triggers for what is added.
    let _path = guc::CatalogOnly::enter();
    let _acting = role::act_as(installed.owner);
    Spi::connect_mut(|client| -> Outcome<()> {
        if !matches!(op, Op::Truncate) {
            pg_trigger::register_tables(trigger)?;
        }
        let mut arguments =
            vec![spi::arg(author.actor), spi::arg(author.role), spi::arg(author.correlation), spi::arg(author.flow)];
        if let Some((keys, ids)) = author.jobs {
            arguments.extend([spi::arg(keys), spi::arg(ids)]);
            spi::query(client, &plan.by_key, &arguments)?;
        } else {
            spi::query(client, &plan.sql, &arguments)?;
        }
        Ok(())
    })
}

fn plan(owner: pg_sys::Oid, relation: pg_sys::Oid, op: &Op, columns: Vec<String>) -> Outcome<Rc<Plan>> {
    let generation = relcache::generations();
    let letter = match op {
        Op::Insert => "I",
        Op::Update => "U",
        Op::Delete => "D",
        Op::Truncate => "T",
    };
    let key = (relation.to_u32(), letter, columns);
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
    let _acting = role::internal(owner);
    let plan = Rc::new(build(relation, op, &key.2)?);
    PLANS.with_borrow_mut(|plans| plans.plans.insert(key, plan.clone()));
    Ok(plan)
}

/// The columns of a relation that are declared as masked, of a partition those of its table: by their names, and by their numbers
/// where they were renamed. Runs with the owner's rights.
fn masked(relation: pg_sys::Oid, name: &str) -> Outcome<Vec<String>> {
    spi::read_all(
        "SELECT DISTINCT a.attname::text
           FROM usher.column_protections AS p
           LEFT JOIN pg_catalog.pg_attribute AS r ON r.attrelid = p.relation AND r.attnum = p.attnum
            AND p.relation = COALESCE(pg_catalog.pg_partition_root($1::pg_catalog.regclass), $1)
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
            AND (a.attname = r.attname OR a.attname = p.column_name AND p.schema_name || '.' || p.table_name = $2)
          WHERE p.how = 'masked' AND p.ended_at IS NULL",
        &[spi::arg(relation), spi::arg(name)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )
}

fn build(relation: pg_sys::Oid, op: &Op, columns: &[String]) -> Outcome<Plan> {
    let gone = || UsherError::internal("a changed table is not in the catalog");
    let table = tables::by_oid(relation)?.ok_or_else(gone)?;
    let name = spi::read::<String>(
        "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = COALESCE(pg_catalog.pg_partition_root($1::pg_catalog.regclass), $1)",
        &[spi::arg(relation)],
    )?
    .ok_or_else(gone)?;
    // A column that is gone is no reason to stop a writer.
    let wanted = |column: &&tables::Column| columns.is_empty() || columns.contains(&column.name);
    let masked = masked(relation, &name)?;
    let form = Form { table: &table, name: &name, columns: table.columns.iter().filter(wanted).collect(), masked: &masked };
    Ok(Plan {
        sql: form.sql(op, false),
        by_key: form.sql(op, true),
        formats: form.needs_formats(),
        people_only: name == "usher.links",
        name,
    })
}
