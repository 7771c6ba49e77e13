//! Schema changes under flows: what each flow stands on, and looking at it again when one of those things changes.
//!
//! Owns `usher.flow_dependencies`. The event triggers of `capture::ddl` call [`look_again`] inside the statement that changes
//! something; the worker does once a minute for what no event tells (rights, roles). What could not be looked at then, because somebody held a lock,
//! has no record until a worker has looked, which it tries soon after, and again.

use super::catalog;
use super::check::checked;
use super::compile::{Program, TYPES};
use super::definition::{Definition, When};
use super::{ready, store};
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::subxact::{self, Failure};
use crate::pg::{depend, role, spi, xact};
use crate::setup;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;

/// What a flow stands on.
pub struct Needs {
    /// `(class, object)` of what its statements refer to.
    objects: Vec<(Oid, Oid)>,
    /// The tables that it names.
    tables: Vec<Oid>,
    source: Option<Oid>,
    target: Option<Oid>,
    /// Columns of the source that it uses.
    columns: Vec<String>,
}

/// What a checked flow stands on, found with the rights under which its statements run.
pub fn needs(definition: &Definition, program: &Program, run_as: Oid) -> Result<Needs> {
    let source = match &definition.when {
        When::Change { table, .. } => Some(catalog::table(table, "\"when\"")?.oid),
        When::Request { .. } | When::Schedule(_) | When::Event(_) | When::Step(_) => None,
    };
    let target = definition.then.table().map(|table| catalog::table(table, "\"then\"")).transpose()?.map(|table| table.oid);
    let mut statements = program.statements();
    statements.extend(program.parents.as_ref().map(|sql| (sql.as_str(), TYPES)));
    // Constants of some types (regrole) cannot be depended on: then the tables alone are known.
    let objects = subxact::rehearse(|| {
        let _acting = role::act_as(run_as);
        depend::referenced(&statements)
    })
    .unwrap_or_default();
    let joined = definition.joins.iter().map(|(name, join)| Ok(catalog::table(&join.table, &format!("join \"{name}\""))?.oid));
    let tables = source.into_iter().chain(target).map(Ok).chain(joined).collect::<Result<Vec<_>>>()?;
    let columns = program.compiled.new.iter().chain(&program.compiled.old).cloned().collect();
    Ok(Needs { objects, tables, source, target, columns })
}

/// `$1` flow, `$2` and `$3` classes and objects, `$4` source, `$5` target, `$6` the source's columns that the flow uses, `$7`
/// the tables that it names.
const RECORD: &str = "
WITH direct AS (
    SELECT d.class, d.object FROM unnest($2::oid[], $3::oid[]) AS d (class, object)
    UNION SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, t.id FROM unnest($7::oid[]) AS t (id)),
relations AS (SELECT c.oid, c.relnamespace FROM direct d JOIN pg_catalog.pg_class c ON c.oid = d.object AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass),
wanted (flow_id, class, object, attnum, name) AS (
SELECT $1, d.class, d.object, 0::smallint, NULL::text FROM direct d
-- A schema that gets another name takes its tables and functions along.
UNION SELECT $1, 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, 0, NULL
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname <> 'pg_catalog'
   AND (n.oid IN (SELECT r.relnamespace FROM relations r)
        OR n.oid IN (SELECT p.pronamespace FROM direct d JOIN pg_catalog.pg_proc p ON p.oid = d.object AND d.class = 'pg_catalog.pg_proc'::pg_catalog.regclass))
-- ON CONFLICT needs a unique index on the key.
UNION SELECT $1, 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, 0, NULL
  FROM pg_catalog.pg_index i WHERE i.indrelid = $5 AND i.indisunique
-- Types that somebody made: of columns that are read or written.
UNION SELECT $1, 'pg_catalog.pg_type'::pg_catalog.regclass, a.atttypid, 0, NULL
  FROM relations r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
UNION SELECT $1, 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.attnum, a.attname::text
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = $4 AND a.attname = ANY ($6) AND NOT a.attisdropped
-- That it stands on nothing is known then.
UNION SELECT $1, 0::pg_catalog.oid, 0::pg_catalog.oid, 0, NULL WHERE NOT EXISTS (SELECT FROM direct)),
gone AS (
    DELETE FROM usher.flow_dependencies d
     WHERE d.flow_id = $1 AND NOT EXISTS (SELECT FROM wanted w WHERE w.class = d.class AND w.object = d.object AND w.attnum = d.attnum))
-- What is there already is left alone: two sessions that change tables of one flow do not wait for each other.
INSERT INTO usher.flow_dependencies AS d (flow_id, class, object, attnum, name)
SELECT w.flow_id, w.class, w.object, w.attnum, w.name FROM wanted w
 WHERE NOT EXISTS (SELECT FROM usher.flow_dependencies o
                    WHERE o.flow_id = w.flow_id AND o.class = w.class AND o.object = w.object AND o.attnum = w.attnum AND o.name IS NOT DISTINCT FROM w.name)
ON CONFLICT ON CONSTRAINT flow_dependencies_pkey DO UPDATE SET name = EXCLUDED.name";

/// Writes down what a flow stands on. Runs with the owner's rights.
pub fn record(flow: i32, needs: &Needs) -> Result<()> {
    let (classes, objects): (Vec<Oid>, Vec<Oid>) = needs.objects.iter().copied().unzip();
    spi::run(
        RECORD,
        &[
            spi::arg(flow),
            spi::arg(classes),
            spi::arg(objects),
            spi::arg(needs.source),
            spi::arg(needs.target),
            spi::arg(needs.columns.clone()),
            spi::arg(needs.tables.clone()),
        ],
    )?;
    Ok(())
}

/// Flows that stand on one of the objects, and flows that are broken: whatever has changed may be what they wait for.
/// Runs with the owner's rights.
pub fn touched(classes: &[Oid], objects: &[Oid]) -> Result<Vec<i32>> {
    spi::read_all(
        "SELECT d.flow_id FROM usher.flow_dependencies d JOIN unnest($1::oid[], $2::oid[]) AS t (class, object) ON d.object = t.object AND d.class = t.class
         UNION SELECT f.id FROM usher.flows f WHERE f.state = 'broken'",
        &[spi::arg(classes.to_vec()), spi::arg(objects.to_vec())],
        |row| Ok(row.get::<i32>(1)?.unwrap_or_default()),
    )
}

/// Flows that wait for a change. Runs with the owner's rights.
pub fn broken() -> Result<Vec<i32>> {
    spi::read_all("SELECT f.id FROM usher.flows f WHERE f.state = 'broken'", &[], |row| {
        Ok(row.get::<i32>(1)?.unwrap_or_default())
    })
}

/// `$1` flows, `$2` old and `$3` new names: the images of jobs that wait take a column's new name, as the table did.
/// In one go, so that two columns may have swapped their names.
fn rename_in(table: &str) -> String {
    // Of the log, what is still to be done.
    let which = if table == "jobs" {
        "AND (j.lane, j.seq) IN (SELECT h.lane, h.seq FROM unnest($4::smallint[], $5::bigint[]) AS h (lane, seq))"
    } else {
        ""
    };
    let renamed = |side: &str| {
        format!(
            "CASE WHEN j.{side} IS NULL THEN NULL ELSE
                 (SELECT COALESCE(pg_catalog.jsonb_object_agg(COALESCE(r.new_name, e.key), e.value), '{{}}')
                    FROM pg_catalog.jsonb_each(j.{side}) AS e (key, value)
                    LEFT JOIN unnest($1::integer[], $2::text[], $3::text[]) AS r (flow_id, old_name, new_name) ON r.flow_id = j.flow_id AND r.old_name = e.key) END"
        )
    };
    format!(
        "UPDATE usher.{table} AS j SET new = {}, old = {}
          WHERE j.flow_id = ANY ($1) AND j.op <> 'R' {which}
            AND EXISTS (SELECT FROM unnest($1::integer[], $2::text[]) AS r (flow_id, old_name)
                         WHERE r.flow_id = j.flow_id AND (pg_catalog.jsonb_exists(j.new, r.old_name) OR pg_catalog.jsonb_exists(j.old, r.old_name)))",
        renamed("new"),
        renamed("old")
    )
}

/// Columns that have another name now, of these sources or of all: jobs that were captured before carry them under the old
/// one. Returns the flows that use them. Runs with the owner's rights.
pub fn follow_renames(objects: Option<&[Oid]>) -> Result<Vec<i32>> {
    let renames = spi::read_all(
        "SELECT d.flow_id, d.name, a.attname::text
           FROM usher.flow_dependencies d
           JOIN pg_catalog.pg_attribute a ON a.attrelid = d.object AND a.attnum = d.attnum AND NOT a.attisdropped
          WHERE ($1::oid[] IS NULL OR d.object = ANY ($1)) AND d.attnum > 0 AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND a.attname <> d.name",
        &[spi::arg(objects.map(<[Oid]>::to_vec))],
        |row| {
            Ok((
                row.get::<i32>(1)?.unwrap_or_default(),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<String>(3)?.unwrap_or_default(),
            ))
        },
    )?;
    if renames.is_empty() {
        return Ok(Vec::new());
    }
    let flows: Vec<i32> = renames.iter().map(|(flow, ..)| *flow).collect();
    let old: Vec<String> = renames.iter().map(|(_, old, _)| old.clone()).collect();
    let new: Vec<String> = renames.into_iter().map(|(.., new)| new).collect();
    let arguments = [spi::arg(flows.clone()), spi::arg(old.clone()), spi::arg(new.clone())];
    let (lanes, positions) = ready::columns(&ready::hold(&flows)?);
    let held = [spi::arg(flows.clone()), spi::arg(old), spi::arg(new), spi::arg(lanes), spi::arg(positions)];
    spi::run(&rename_in("jobs"), &held)?;
    for table in ["queue_waiting", "dead_letters"] {
        spi::run(&rename_in(table), &arguments)?;
    }
    // From here on the column is watched under its new name.
    spi::run(
        "UPDATE usher.flow_dependencies d SET name = r.new_name FROM unnest($1::integer[], $2::text[], $3::text[]) AS r (flow_id, old_name, new_name)
          WHERE d.flow_id = r.flow_id AND d.attnum > 0 AND d.name = r.old_name",
        &arguments,
    )?;
    Ok(flows)
}

/// What was found about a flow that was looked at again.
pub enum Finding {
    Broken {
        flow: String,
        reason: String,
    },
    Mended {
        flow: String,
    },
    /// It, and those after it, could not be looked at now.
    Postponed {
        flow: String,
        reason: String,
    },
}

impl Finding {
    pub fn line(&self) -> String {
        match self {
            Self::Broken { flow, reason } => {
                format!("flow \"{flow}\" no longer fits the database and is broken: {reason}; its jobs wait")
            }
            Self::Postponed { flow, reason } => format!("flow \"{flow}\" is looked at again within a minute: {reason}"),
            Self::Mended { flow } => format!("flow \"{flow}\" fits the database again; its jobs go on"),
        }
    }
}

/// What to do about the other flows when one cannot be looked at for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They would make somebody's statement wait once more, each of them.
    Leave,
    LookAt,
}

/// Compiles flows again, as the catalog is now: those that no longer fit become broken, broken ones that fit go on with
/// their jobs. Those that are thought to fit come first. Runs with the owner's rights.
pub fn look_again(flows: &[i32], others: Others) -> Result<Vec<Finding>> {
    let subjects = spi::read_all(
        "SELECT f.id, f.name, f.definition, f.run_as::oid, CASE WHEN f.state = 'broken' THEN COALESCE(f.reason, '') END, v.created_by
           FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version WHERE f.id = ANY ($1)
          ORDER BY f.state = 'broken', f.id",
        &[spi::arg(flows.to_vec())],
        |row| {
            let definition = row.get::<JsonB>(3)?.map(|json| json.0).unwrap_or_default();
            Ok((
                row.get::<i32>(1)?.unwrap_or_default(),
                row.get::<String>(2)?.unwrap_or_default(),
                definition,
                row.get::<Oid>(4)?.unwrap_or(Oid::INVALID),
                row.get::<String>(5)?,
                row.get::<String>(6)?,
            ))
        },
    )?;
    let installed = setup::installed()?;
    let mut findings = Vec::new();
    let mut changed = 0;
    let ids: Vec<i32> = subjects.iter().map(|subject| subject.0).collect();
    for (at, (id, flow, definition, run_as, broken, creator)) in subjects.into_iter().enumerate() {
        let reader = creator.as_deref().and_then(|creator| creator.strip_prefix("role:")).and_then(role::by_name);
        match (again(&definition, run_as, reader), broken) {
            (Ok((needs, compiled)), broken) => {
                if installed.up_to_date {
                    record(id, &needs)?;
                }
                // A function that takes whole rows takes today's columns.
                changed += spi::run(
                    "UPDATE usher.flow_versions v SET compiled = $2 FROM usher.flows f
                      WHERE f.id = $1 AND v.flow_id = f.id AND v.version = f.version AND v.compiled <> $2",
                    &[spi::arg(id), spi::arg(compiled)],
                )?;
                if broken.is_some() {
                    mend(id)?;
                    findings.push(Finding::Mended { flow });
                }
            }
            (Err(Misfit::NotNow(reason)), _) => {
                // Somebody holds a lock, or the like: that says nothing about the flow. A worker looks soon, and again.
                // What has no record is looked at; names of columns stay, so that renamings are seen meanwhile.
                let left = if others == Others::Leave { &ids[at..] } else { &ids[at..=at] };
                if installed.up_to_date {
                    spi::run(
                        "DELETE FROM usher.flow_dependencies WHERE flow_id = ANY ($1) AND attnum = 0",
                        &[spi::arg(left.to_vec())],
                    )?;
                }
                findings.push(Finding::Postponed { flow, reason });
                if others == Others::Leave {
                    break;
                }
            }
            (Err(Misfit::Broken(reason)), broken) => {
                store::set_state(id, Some(&reason))?;
                if broken.is_none() {
                    findings.push(Finding::Broken { flow, reason });
                }
            }
        }
    }
    if changed > 0 {
        crate::pg::catalog::invalidate(installed.flows);
    }
    Ok(findings)
}

/// Why a flow could not be compiled again.
enum Misfit {
    Broken(String),
    /// A lock, a lack of memory: it may fit all the same.
    NotNow(String),
}

impl From<Failure> for Misfit {
    fn from(failure: Failure) -> Self {
        if failure.tells_about_the_statement() { Self::Broken(failure.line()) } else { Self::NotNow(failure.line()) }
    }
}

impl From<UsherError> for Misfit {
    fn from(error: UsherError) -> Self {
        Self::Broken(error.message)
    }
}

/// Compiles a flow again. `reader`: who made it, if that is a database role; whoever changes the schema now does not count.
fn again(definition: &serde_json::Value, run_as: Oid, reader: Option<Oid>) -> std::result::Result<(Needs, JsonB), Misfit> {
    if role::name_of(run_as).is_none() {
        return Err(Misfit::Broken("the role that it runs as is gone".to_owned()));
    }
    let definition: Definition = store::parse(definition)?;
    // This may run inside somebody's schema change, which holds locks of its own: waiting for others would hold up all of
    // them, or end in a deadlock.
    let _nest = Nest::open().lock_timeout(LOCK_PATIENCE);
    let program = subxact::rehearse(|| checked(&definition, run_as, reader))?;
    let needs = needs(&definition, &program, run_as)?;
    Ok((needs, program.compiled.stored()?))
}

/// Milliseconds.
const LOCK_PATIENCE: i64 = 50;

/// Flows about which nothing is written down: after an upgrade, a restore, or because they could not be looked at. Runs with the owner's rights.
pub fn unrecorded() -> Result<Vec<i32>> {
    spi::read_all(
        "SELECT f.id FROM usher.flows f WHERE f.state = 'ok' AND NOT EXISTS (SELECT FROM usher.flow_dependencies d WHERE d.flow_id = f.id AND d.attnum = 0)",
        &[],
        |row| Ok(row.get::<i32>(1)?.unwrap_or_default()),
    )
}

/// A flow fits again: its jobs are due, with its newest version. Those whose image lacks a column that it needs (it was
/// captured while there was none of that name) would write NULL: they go to the dead letters with the remedy. Jobs made in
/// shadow stay so, and only they: those keep their version, and are tried with it.
pub fn mend(flow: i32) -> Result<()> {
    store::set_state(flow, None)?;
    let waiting = spi::run(&lacking("queue_waiting", "AND j.waiting_for = 'flow broken'", WAITING), &[spi::arg(flow)])?;
    let (lanes, positions) = ready::columns(&ready::hold(&[flow])?);
    let ready = spi::run(&lacking("jobs", HELD, READY), &[spi::arg(flow), spi::arg(lanes), spi::arg(positions)])?;
    let released = spi::run(
        "UPDATE usher.queue_waiting w
            SET due_at = pg_catalog.now(),
                flow_version = CASE WHEN COALESCE(f.definition -> 'shadow', 'false') = COALESCE(v.definition -> 'shadow', 'false') THEN f.version
                                    ELSE w.flow_version END
           FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id
          WHERE f.id = $1 AND w.flow_id = f.id AND v.version = w.flow_version AND w.waiting_for = 'flow broken'",
        &[spi::arg(flow)],
    )?;
    if waiting + ready + released > 0 {
        xact::note_due_changed();
    }
    Ok(())
}

const WAITING: &str = "w.attempts, w.last_attempted_at, w.source_system, w.target_system";
const HELD: &str = "AND (j.lane, j.seq) IN (SELECT h.lane, h.seq FROM unnest($2::smallint[], $3::bigint[]) AS h (lane, seq))";
const READY: &str = "0, NULL::timestamptz, NULL::text, NULL::text";

/// `$1` flow: moves the jobs that lack a column to the dead letters.
fn lacking(table: &str, which: &str, rest: &str) -> String {
    let missing = |side: &str| {
        format!(
            "SELECT c.name FROM pg_catalog.jsonb_array_elements_text(v.compiled -> '{side}') AS c (name) WHERE NOT pg_catalog.jsonb_exists(j.{side}, c.name)"
        )
    };
    let (new, old) = (missing("new"), missing("old"));
    format!(
        "WITH lacking AS (
             SELECT j.organization_id, j.id,
                    (SELECT pg_catalog.string_agg(DISTINCT m.name, ', ')
                       FROM (SELECT n.name FROM ({new}) AS n WHERE j.op IN ('I', 'U') UNION ALL SELECT o.name FROM ({old}) AS o WHERE j.op IN ('U', 'D')) AS m) AS lost
               FROM usher.{table} j JOIN usher.flows f ON f.id = j.flow_id JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version
              WHERE j.flow_id = $1 AND j.op <> 'R' {which}),
         w AS (DELETE FROM usher.{table} j USING lacking l WHERE l.lost IS NOT NULL AND j.organization_id = l.organization_id AND j.id = l.id RETURNING j.*, l.lost)
         INSERT INTO usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                         attempts, last_attempted_at, source_system, target_system, error_message, sqlstate)
         SELECT w.organization_id, w.id, w.seq, w.row_key, w.created_at, w.cause, w.flow_id, w.flow_version, w.lane, w.hop, w.op, w.trail, w.new, w.old,
                {rest}, 'it carries no ' || w.lost || ', which its flow needs now; give the value with usher.retry_sync_job(job, changes)', '42703'
           FROM w"
    )
}
