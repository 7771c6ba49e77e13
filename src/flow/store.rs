//! Flows as this process knows them: loaded once, forgotten when `usher.flows` changes.

use super::circle::{self, Place};
use super::compile::{self, Compiled, Program};
use super::definition::{self, Change, Definition, When};
use super::event_type::Pattern;
use super::switches;
use crate::error::{Result, UsherError};
use crate::pg::definitions::Definitions;
use crate::pg::relcache::Asker;
use crate::pg::{self, spi};
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiTupleTable;
use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// One version of a flow, ready to be run.
pub struct Flow {
    pub id: i32,
    pub version: i32,
    pub name: String,
    pub enabled: bool,
    /// Why it cannot run, when it cannot.
    pub broken: Option<String>,
    pub run_as: Oid,
    pub definition: Definition,
    pub compiled: Compiled,
    /// Its effect may lead back to its own source: each job that follows keeps the exact trail of its causes.
    pub in_circle: bool,
    /// Some organization does without it.
    pub switched: bool,
    program: OnceCell<Rc<Program>>,
}

impl Flow {
    /// True when jobs about different rows may take effect in any order: each has a target row of its own, or nothing is
    /// promised of the target.
    pub fn rows_are_free(&self) -> bool {
        self.definition.then.key().is_empty() || self.compiled.row_determines_key
    }

    /// Of several changes of a row only the newest is applied.
    pub fn coalesces(&self) -> bool {
        self.definition.coalesce && !self.definition.shadow
    }

    /// Its jobs are asked for, and may have been given options.
    pub fn takes_requests(&self) -> bool {
        matches!(self.definition.when, When::Request { .. })
    }

    /// The statements, compiled against the catalog when first needed.
    pub fn program(&self) -> Result<Rc<Program>> {
        if let Some(program) = self.program.get() {
            return Ok(program.clone());
        }
        let _nest = pg::guc::Nest::pinned_path();
        let program = Rc::new(compile::compile(&self.definition)?);
        Ok(self.program.get_or_init(|| program).clone())
    }
}

#[derive(Default)]
struct Known {
    generation: u64,
    schema_generation: u64,
    flows: HashMap<(i32, i32), Option<Rc<Flow>>>,
    circles: Option<Rc<HashSet<i32>>>,
    classes: Option<Rc<HashMap<i32, i32>>>,
    current: HashMap<i32, Option<i32>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::default());
    static DEFINITIONS: RefCell<Option<Definitions>> = const { RefCell::new(None) };
}

fn fresh() {
    pg::xact::remember_only_now();
    let generation = pg::relcache::generation();
    let schema = pg::relcache::schema_generation();
    KNOWN.with_borrow_mut(|known| {
        if known.generation != generation {
            *known = Known { generation, schema_generation: schema, ..Known::default() };
        } else if known.schema_generation != schema {
            // A table changed somewhere: what was compiled may name what is gone, what was broken may fit again.
            if tables_changed() {
                known.flows.clear();
            }
            known.schema_generation = schema;
        }
    });
}

/// In a process that runs flows all day: keeps what it has compiled when tables were only counted anew (ANALYZE), which a busy
/// day does all the time. Sessions hold a few flows for a short time; there it is not worth looking at all tables first.
pub fn keep_over_statistics() -> Result<()> {
    let mut definitions = Definitions::new(Asker::Flows);
    definitions.learn()?;
    DEFINITIONS.set(Some(definitions));
    Ok(())
}

/// What nobody was told of, a type's new name for instance: the next try compiles the flow anew.
pub fn compile_again(flow: &Flow) {
    KNOWN.with_borrow_mut(|known| known.flows.remove(&(flow.id, flow.version)));
}

fn tables_changed() -> bool {
    DEFINITIONS.with_borrow_mut(|definitions| match definitions {
        Some(definitions) => definitions.changed(None).map_or(true, |changed| changed.is_none_or(|changed| !changed.is_empty())),
        None => true,
    })
}

/// True when the flow is off or broken and stays so until this transaction has ended: jobs that are put to wait for it will
/// be seen by whoever changes that. False when somebody is changing it at this moment, or has done so.
pub fn stays_off(id: i32) -> Result<bool> {
    let sql = "SELECT NOT f.enabled OR f.state <> 'ok' FROM usher.flows f WHERE f.id = $1 FOR SHARE SKIP LOCKED";
    Ok(spi::one::<bool>(sql, &[spi::arg(id)])?.unwrap_or(false))
}

/// A version of a flow; None when the flow has been deleted. Runs with the owner's rights.
pub fn get(id: i32, version: i32) -> Result<Option<Rc<Flow>>> {
    fresh();
    if let Some(found) = KNOWN.with_borrow(|known| known.flows.get(&(id, version)).cloned()) {
        return Ok(found);
    }
    let loaded = load("f.id = $1 AND v.version = $2", &[spi::arg(id), spi::arg(version)])?.into_iter().next();
    KNOWN.with_borrow_mut(|known| known.flows.insert((id, version), loaded.clone()));
    Ok(loaded)
}

/// Reads versions of flows, in one query, in the order of their ids.
fn load(which: &str, arguments: spi::Args<'_>) -> Result<Vec<Rc<Flow>>> {
    let circles = circles()?;
    spi::read_all(
        &format!(
            "SELECT f.id, v.version, f.name, f.enabled, CASE WHEN f.state = 'broken' THEN COALESCE(f.reason, 'broken') END, v.run_as::oid, v.definition, v.compiled, {}
               FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id WHERE {which} ORDER BY f.id",
            switches::any()
        ),
        arguments,
        |row| {
            let id = row.get::<i32>(1)?.unwrap_or_default();
            let definition = row.get::<JsonB>(7)?.map(|json| json.0).unwrap_or_default();
            let compiled = row.get::<JsonB>(8)?.map(|json| json.0).unwrap_or_default();
            Ok(Rc::new(Flow {
                id,
                version: row.get::<i32>(2)?.unwrap_or_default(),
                name: row.get::<String>(3)?.unwrap_or_default(),
                enabled: row.get::<bool>(4)?.unwrap_or(false),
                broken: row.get::<String>(5)?,
                run_as: row.get::<Oid>(6)?.unwrap_or(Oid::INVALID),
                definition: parse(&definition)?,
                compiled: serde_json::from_value(compiled)
                    .map_err(|e| UsherError::internal(format!("a stored flow cannot be read: {e}")))?,
                in_circle: circles.contains(&id),
                switched: row.get::<bool>(9)?.unwrap_or(false),
                program: OnceCell::new(),
            }))
        },
    )
}

/// A flow at its current version. Runs with the owner's rights.
pub fn newest(id: i32) -> Result<Option<Rc<Flow>>> {
    fresh();
    let version = match KNOWN.with_borrow(|known| known.current.get(&id).copied()) {
        Some(version) => version,
        None => {
            let version = spi::read::<i32>("SELECT version FROM usher.flows WHERE id = $1", &[spi::arg(id)])?;
            KNOWN.with_borrow_mut(|known| known.current.insert(id, version));
            version
        }
    };
    match version {
        Some(version) => get(id, version),
        None => Ok(None),
    }
}

/// Parses a definition and turns a refusal into the crate's error.
pub fn parse(value: &serde_json::Value) -> Result<Definition> {
    Definition::parse(value).map_err(refused)
}

/// A refusal as the crate's error.
pub fn refused(refusal: super::fields::Refusal) -> UsherError {
    let error =
        if refusal.unsupported { UsherError::unsupported(refusal.message) } else { UsherError::definition(refusal.message) };
    error.hint(refusal.hint)
}

/// Flows whose effect can lead back to their own source, by the tables and events that they name. What a called function writes is
/// not known, so a call counts as part of a circle. From a flow in shadow nothing follows; a merge writes what differs, which ends by itself.
fn circles() -> Result<Rc<HashSet<i32>>> {
    if let Some(found) = KNOWN.with_borrow(|known| known.circles.clone()) {
        return Ok(found);
    }
    let flows = spi::read_all(
        "SELECT f.id, v.definition -> 'then' ? 'call', v.compiled ->> 'source', v.definition -> 'when' ->> 'event', v.compiled ->> 'target', v.definition -> 'then' ->> 'emit'
           FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version
          WHERE v.definition -> 'shadow' IS DISTINCT FROM 'true' AND NOT v.definition -> 'then' ? 'merge'",
        &[],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<bool>(2)?.unwrap_or(false), ends(row, 3)?)),
    )?;
    let (ids, ends): (Vec<(i32, bool)>, Vec<_>) = flows.into_iter().map(|(id, calls, ends)| ((id, calls), ends)).unzip();
    let back = circle::back_to_themselves(&ends);
    let found: HashSet<i32> =
        ids.into_iter().enumerate().filter(|(n, (_, calls))| *calls || back.contains(n)).map(|(_, (id, _))| id).collect();
    let found = Rc::new(found);
    KNOWN.with_borrow_mut(|known| known.circles = Some(found.clone()));
    Ok(found)
}

/// Where a flow begins and what it leads to, from the columns source table, pattern, target table and type.
pub(super) fn ends(row: &SpiTupleTable<'_>, first: usize) -> Result<(Place, Place)> {
    let source = match (row.get::<String>(first)?, row.get::<String>(first + 1)?.map(|text| Pattern::parse(&text))) {
        (Some(table), _) => Place::Table(table),
        (None, Some(Ok(pattern))) => Place::Pattern(pattern),
        _ => Place::Elsewhere,
    };
    let target = match (row.get::<String>(first + 2)?, row.get::<String>(first + 3)?) {
        (Some(table), _) => Place::Table(table),
        (None, Some(event_type)) => Place::Type(event_type),
        _ => Place::Elsewhere,
    };
    Ok((source, target))
}

/// Flows that carry changes of one table to one target are of one class, named by its first flow: what they do to a row
/// must happen in the order of its changes. A flow in shadow does nothing to a row: it is a class of its own. Runs with the owner's rights.
pub fn classes() -> Result<Rc<HashMap<i32, i32>>> {
    fresh();
    if let Some(found) = KNOWN.with_borrow(|known| known.classes.clone()) {
        return Ok(found);
    }
    let pairs = spi::read_all(
        "SELECT f.id, pg_catalog.min(f.id) OVER (PARTITION BY CASE WHEN v.definition -> 'shadow' = 'true' THEN f.id END, COALESCE(v.compiled ->> 'source', f.id::text), COALESCE(v.compiled ->> 'target', f.id::text))
           FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version",
        &[],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<i32>(2)?.unwrap_or_default())),
    )?;
    let found: Rc<HashMap<i32, i32>> = Rc::new(pairs.into_iter().collect());
    KNOWN.with_borrow_mut(|known| known.classes = Some(found.clone()));
    Ok(found)
}

/// The flows of one class with this one, itself included.
pub fn siblings(id: i32) -> Result<Vec<i32>> {
    let classes = classes()?;
    let mine = classes.get(&id).copied().unwrap_or(id);
    let mut found: Vec<i32> = classes.iter().filter(|(_, class)| **class == mine).map(|(flow, _)| *flow).collect();
    if !found.contains(&id) {
        found.push(id);
    }
    found.sort_unstable();
    Ok(found)
}

/// What the flows of a table ask of its triggers.
pub struct Listener {
    /// `schema.table`, as flows are found by it.
    pub table: String,
    pub on: Vec<Change>,
    /// The trigger's name and its flow's, for a flow that has a trigger of its own.
    pub trigger: Option<(String, String)>,
}

/// What the enabled flows of a table (by `schema.table`), or of all tables, listen to, each combination once: a thousand
/// flows that share a trigger are one line. Runs with the owner's rights.
pub fn listening(table: Option<&str>) -> Result<Vec<Listener>> {
    let which =
        if table.is_some() { "v.compiled ->> 'source' = $1" } else { "v.compiled ->> 'source' IS NOT NULL AND $1::text IS NULL" };
    spi::read_all(
        &format!(
            "SELECT DISTINCT v.compiled ->> 'source', v.definition -> 'when' -> 'on', v.definition ->> 'trigger_name',
                    CASE WHEN v.definition ? 'trigger_name' THEN f.name END
               FROM usher.flow_versions v JOIN usher.flows f ON f.id = v.flow_id AND f.version = v.version AND f.enabled
              WHERE {which}"
        ),
        &[spi::arg(table.map(str::to_owned))],
        |row| {
            let on = row.get::<JsonB>(2)?.map(|json| json.0);
            Ok(Listener {
                table: row.get::<String>(1)?.unwrap_or_default(),
                on: definition::changes(on.as_ref()).map_err(refused)?,
                trigger: row.get::<String>(3)?.zip(row.get::<String>(4)?),
            })
        },
    )
}

/// The enabled, current flows for changes of a table (by `schema.table`). Runs with the owner's rights.
pub fn listeners(table: &str) -> Result<Vec<Rc<Flow>>> {
    fresh();
    let flows = load("v.version = f.version AND v.compiled ->> 'source' = $1 AND f.enabled", &[spi::arg(table)])?;
    KNOWN.with_borrow_mut(|known| {
        for flow in &flows {
            // One object for all who use it: its program is compiled once.
            known.flows.entry((flow.id, flow.version)).or_insert_with(|| Some(flow.clone()));
        }
    });
    let known = KNOWN
        .with_borrow(|known| flows.iter().filter_map(|flow| known.flows[&(flow.id, flow.version)].clone()).collect::<Vec<_>>());
    Ok(known.into_iter().filter(|flow| matches!(flow.definition.when, When::Change { .. })).collect())
}

/// Marks a flow as broken, so that its jobs wait; or as fitting again. Runs with the owner's rights.
pub fn set_state(id: i32, reason: Option<&str>) -> Result<()> {
    spi::run(
        "UPDATE usher.flows SET state = CASE WHEN $2::text IS NULL THEN 'ok' ELSE 'broken' END, reason = $2, updated_at = pg_catalog.now()
          WHERE id = $1 AND reason IS DISTINCT FROM $2",
        &[spi::arg(id), spi::arg(reason)],
    )?;
    Ok(())
}
