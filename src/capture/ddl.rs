//! What PostgreSQL calls when somebody changes the schema.
//!
//! A flow that no longer fits is marked broken by the very statement that broke it, with a warning to whoever ran it; one
//! that fits again goes on. Tables that gained partitions, and tables whose capture triggers were dropped by a migration
//! tool, get what their flows need at once. Nothing here may fail the statement.

use super::attach;
use crate::conflict;
use crate::consistency::{self, drift as rules};
use crate::error::Result as Outcome;
use crate::flow::drift::{self, Finding, Others};
use crate::guard::{attach as audits, ddl as audit_ddl};
use crate::pg::guc::Nest;
use crate::pg::{catalog, event, role, spi, subxact, xact};
use crate::protect::mend;
use crate::registry::identity;
use crate::setup;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

/// Says that a function is called by PostgreSQL's version 1 convention, which `CREATE FUNCTION … LANGUAGE c` asks for.
macro_rules! callable {
    ($name:ident) => {
        #[doc(hidden)]
        #[allow(unsafe_code, reason = "the server looks this function up by its name")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }
    };
}
callable!(pg_finfo_usher_follow_ddl);
callable!(pg_finfo_usher_follow_drop);

#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_follow_ddl(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    follow(changed);
    follow_protections();
    follow_overlaps();
    follow_rules(|| commands().map(Some));
    follow_touched();
    follow_audits(audit_ddl::changed);
    pg_sys::Datum::from(0)
}

#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_follow_drop(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    follow(dropped);
    follow_protections();
    follow_overlaps();
    follow_rules(|| gone().map(Some));
    follow_touched();
    follow_audits(audit_ddl::dropped);
    pg_sys::Datum::from(0)
}

/// Who ran the statement, and so reads what is said about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    Operator,
    Anybody,
}

/// Runs `look` unless there is nothing to follow: no tables yet, tables of an older version, a copy that is held (a
/// restore may be running and will bring the triggers itself).
fn follow(look: impl FnOnce(Audience) -> Outcome<()>) {
    if event::is_ours() {
        return;
    }
    let mut audience = Audience::Anybody;
    let outcome = subxact::attempt(|| {
        let Ok(installed) = setup::installed() else { return Ok(()) };
        if !(installed.home && installed.up_to_date) {
            return Ok(());
        }
        let _ours = event::ours();
        // Both: inside a SECURITY DEFINER function the current role is its owner, the reader is somebody else.
        let operator = identity::is_operator() && identity::has_operator_rights(role::outer());
        audience = if operator { Audience::Operator } else { Audience::Anybody };
        let _acting = role::internal(installed.owner);
        let _nest = Nest::open().lock_timeout(LOCK_PATIENCE);
        look(audience)
    });
    if let Err(failure) = outcome {
        let why = if audience == Audience::Operator { format!(": {}", failure.line()) } else { String::new() };
        warning!("pg_usher could not follow this change of the schema{why}; a worker tries again within a minute");
    }
}

/// The installation, if there is something to look after. A restore may have brought half of our tables, which is no reason to say
/// anything: what they say is looked for in an attempt of its own.
fn concerned(anything: impl FnOnce() -> Outcome<bool>) -> Option<setup::Installed> {
    let found = subxact::attempt(|| {
        let Ok(installed) = setup::installed() else { return Ok(None) };
        if !(installed.home && installed.up_to_date) {
            return Ok(None);
        }
        let _acting = role::internal(installed.owner);
        Ok(anything()?.then_some(installed))
    });
    found.ok().flatten()
}

/// Audit triggers that were dropped, new partitions of audited tables: by itself, so that neither undoes the other. A busy
/// table is left to the worker's minute. What was done to an audited table is entered.
fn follow_audits(enter: impl FnOnce(setup::Installed) -> Outcome<()>) {
    if event::is_ours() {
        return;
    }
    let audited = || Ok(spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.audited_tables)", &[])? == Some(true));
    let Some(installed) = concerned(audited) else { return };
    let _ours = event::ours();
    let _acting = role::internal(installed.owner);
    // First: a renamed table is known by its triggers. Each by itself: a trigger that cannot be made again is the more reason to
    // enter who has dropped it.
    let synced = subxact::attempt(|| audits::sync_all(LOCK_PATIENCE));
    let entered = subxact::attempt(|| enter(installed));
    if synced.is_err() {
        warning!("audit triggers could not be looked at; a worker tries again within a minute");
    }
    if entered.is_err() {
        warning!("this change of an audited table could not be entered into usher.audit_log");
    }
}

/// Columns that are protected: what a migration has dropped, a right that was granted, a new name. By itself, too.
fn follow_protections() {
    if event::is_ours() {
        return;
    }
    let Some(installed) = concerned(mend::any) else { return };
    let _ours = event::ours();
    let _acting = role::internal(installed.owner);
    if subxact::attempt(|| mend::follow(installed, LOCK_PATIENCE)).is_err() {
        warning!("protected columns could not be looked at; SELECT usher.attach_all(); does it");
    }
}

/// Triggers of overlap rules that were dropped, new partitions of their tables. By itself, too.
fn follow_overlaps() {
    if event::is_ours() {
        return;
    }
    let Some(installed) = concerned(conflict::attach::any) else { return };
    let _ours = event::ours();
    let _acting = role::internal(installed.owner);
    if subxact::attempt(|| conflict::attach::sync_all(LOCK_PATIENCE)).is_err() {
        warning!("triggers of overlap rules could not be looked at; a worker tries again within a minute");
    }
    match subxact::attempt(|| conflict::attach::look_again(installed)) {
        // The reason quotes the definition: for operators, in usher.overlap_rules.
        Ok(findings) => findings.iter().for_each(|found| match &found.reason {
            Some(_) => warning!(
                "overlap rule \"{}\" no longer fits the database and is broken; it finds nothing until an operator mends it",
                found.rule
            ),
            None => notice!("overlap rule \"{}\" fits the database again", found.rule),
        }),
        Err(_) => warning!("overlap rules could not be looked at; SELECT usher.check_overlaps(); does it"),
    }
}

/// Rules that stand on what has changed, and those that are broken. None: all of them. By itself, too.
fn follow_rules(changes: impl FnOnce() -> Outcome<Option<Changes>>) {
    if event::is_ours() {
        return;
    }
    let Some(installed) = concerned(rules::any) else { return };
    let _ours = event::ours();
    let _acting = role::internal(installed.owner);
    let looked = subxact::attempt(|| {
        let changes = changes()?;
        let touched = changes.as_ref().map(|(classes, objects)| (classes.as_slice(), objects.as_slice()));
        rules::look_again_after(installed, &rules::touched(touched)?)
    });
    // A worker does it within a minute where somebody is in the way, and nothing else is undone for it.
    let _ = subxact::attempt(|| {
        let _nest = Nest::open().lock_timeout(LOCK_PATIENCE);
        rules::look_around()
    });
    match looked {
        // The reason quotes the definition: for operators, in usher.rules.
        Ok(findings) => findings.iter().for_each(|found| match &found.reason {
            Some(_) => {
                warning!(
                    "rule \"{}\" no longer fits the database and is broken; it finds nothing until an operator mends it",
                    found.rule
                );
            }
            None => notice!("rule \"{}\" fits the database again", found.rule),
        }),
        Err(_) => warning!("rules could not be looked at; a worker tries again within a minute"),
    }
}

/// Triggers of rules that were dropped, new partitions of their tables. By itself, too.
fn follow_touched() {
    if event::is_ours() {
        return;
    }
    let Some(installed) = concerned(consistency::attach::any) else { return };
    let _ours = event::ours();
    let _acting = role::internal(installed.owner);
    if subxact::attempt(|| consistency::attach::sync_all(LOCK_PATIENCE)).is_err() {
        warning!("triggers of rules could not be looked at; a worker tries again within a minute");
    }
}

/// Milliseconds that somebody's schema change may wait for a lock on our account.
const LOCK_PATIENCE: i64 = 50;

/// Classes and objects.
type Changes = (Vec<Oid>, Vec<Oid>);

/// What the statement has made or changed. GRANT names no object, and may still be what something broken waits for.
fn commands() -> Outcome<Changes> {
    Ok(both(spi::read_all(
        "SELECT DISTINCT c.classid, c.objid FROM pg_catalog.pg_event_trigger_ddl_commands() AS c WHERE c.schema_name IS DISTINCT FROM 'pg_temp'",
        &[],
        pair,
    )?))
}

/// What the statement has dropped.
fn gone() -> Outcome<Changes> {
    Ok(both(spi::read_all(
        "SELECT DISTINCT o.classid, o.objid FROM pg_catalog.pg_event_trigger_dropped_objects() AS o WHERE NOT o.is_temporary",
        &[],
        pair,
    )?))
}

fn changed(audience: Audience) -> Outcome<()> {
    let (classes, objects) = commands()?;
    if objects.is_empty() {
        return Ok(());
    }
    drift::follow_renames(Some(&objects))?;
    look_at(&classes, &objects, audience)?;
    attach_where_changed(objects)
}

/// Looks once at all that may stand on the tables and functions of schemas: whoever has just run a pack's hundreds of statements does so with
/// nobody looking after each of them.
pub fn look_over(schemas: &[&str]) {
    follow(|audience| {
        let (classes, objects) = both(spi::read_all(
            "SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
              WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm')
              UNION ALL
             SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, p.oid FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
              WHERE n.nspname = ANY ($1)",
            &[spi::arg(schemas.to_vec())],
            pair,
        )?);
        drift::follow_renames(Some(&objects))?;
        look_at(&classes, &objects, audience)?;
        attach_where_changed(objects)
    });
    follow_protections();
    follow_overlaps();
    follow_rules(|| Ok(None));
    follow_touched();
    follow_audits(|_| Ok(()));
}

/// The capture triggers of tables, and of those that they are partitions of.
fn attach_where_changed(objects: Vec<Oid>) -> Outcome<()> {
    attach_to(
        "SELECT DISTINCT f.definition -> 'when' ->> 'change', NULL::text
           FROM unnest($1::oid[]) AS t (id) CROSS JOIN LATERAL (SELECT t.id UNION SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors(t.id) AS a) AS r
           JOIN usher.flow_dependencies d ON d.object = r.id AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.attnum = 0
           JOIN usher.flows f ON f.id = d.flow_id
          WHERE f.definition -> 'when' ->> 'change' IS NOT NULL",
        &[spi::arg(objects)],
    )
}

fn dropped(audience: Audience) -> Outcome<()> {
    let (classes, objects) = gone()?;
    if objects.is_empty() {
        return Ok(());
    }
    look_at(&classes, &objects, audience)?;
    // Of a dropped trigger only the names are left. Its table still stands, unless it went with it.
    attach_to(
        "SELECT DISTINCT f.definition -> 'when' ->> 'change', o.address_names[3]
           FROM pg_catalog.pg_event_trigger_dropped_objects() AS o
           JOIN pg_catalog.pg_namespace n ON n.nspname = o.address_names[1]
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = o.address_names[2]
           CROSS JOIN LATERAL (SELECT c.oid AS id UNION SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) AS a) AS r
           JOIN usher.flow_dependencies d ON d.object = r.id AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.attnum = 0
           JOIN usher.flows f ON f.id = d.flow_id
          WHERE o.object_type = 'trigger' AND f.definition -> 'when' ->> 'change' IS NOT NULL",
        &[],
    )
}

fn pair(row: &pgrx::spi::SpiTupleTable<'_>) -> Outcome<(Oid, Oid)> {
    Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), row.get::<Oid>(2)?.unwrap_or(Oid::INVALID)))
}

fn both(pairs: Vec<(Oid, Oid)>) -> (Vec<Oid>, Vec<Oid>) {
    pairs.into_iter().unzip()
}

/// Flows that stand on what changed.
fn look_at(classes: &[Oid], objects: &[Oid], audience: Audience) -> Outcome<()> {
    // What flows are compiled into names types, too, and nothing says so when one of them gets another name or schema.
    if classes.iter().any(|class| [pg_sys::TypeRelationId, pg_sys::NamespaceRelationId].contains(class)) {
        catalog::invalidate(setup::installed()?.flows);
    }
    for finding in drift::look_again(&drift::touched(classes, objects)?, Others::Leave)? {
        if let Finding::Postponed { .. } = finding {
            xact::note_plans_changed();
        }
        match &finding {
            // The reason quotes the definition.
            Finding::Broken { flow, .. } if audience == Audience::Anybody => {
                warning!("flow \"{flow}\" no longer fits the database and is broken; its jobs wait until an operator mends it");
            }
            Finding::Broken { .. } => warning!("{}", finding.line()),
            Finding::Mended { .. } => notice!("{}", finding.line()),
            Finding::Postponed { .. } if audience == Audience::Anybody => {}
            Finding::Postponed { .. } => notice!("{}", finding.line()),
        }
    }
    Ok(())
}

/// The capture triggers of the tables that a query names, with the dropped trigger that led to it.
fn attach_to(sql: &str, arguments: spi::Args<'_>) -> Outcome<()> {
    let tables = spi::read_all(sql, arguments, |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?)))?;
    for (table, trigger) in tables {
        let changed = attach::sync_within(&table, LOCK_PATIENCE)?;
        if let (Some(trigger), true) = (trigger, changed > 0) {
            warning!(
                "trigger {trigger} is back on {table}: flows need it; usher.disable_flow() or usher.drop_flow() stops a flow"
            );
        }
    }
    Ok(())
}
