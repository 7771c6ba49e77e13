//! Which organizations there are, as the application's table says: entered into `usher.organizations` with it.

use super::binding::{self, Adoption};
use crate::error::{Result as Outcome, UsherError};
use crate::pg::trigger::{self as pg_trigger, EVENTS, locked, raise};
use crate::pg::{guc, role, spi, subxact, xact};
use crate::registry::tables::{Column, Table};
use crate::registry::zones;
use crate::setup::{self, Installed};
use pgrx::PgTrigger;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, quote_identifier};
use pgrx::trigger_support::PgTriggerOperation as Op;
use std::rc::Rc;

pub struct Organizations {
    pub table: Table,
    id: String,
    slug: Option<String>,
    name: Option<String>,
    timezone: Option<String>,
}

pub fn bind(adoption: &Adoption, table: &Table) -> Outcome<Organizations> {
    let id = adoption.organization(table, "id")?;
    // As their types' output text: no code of the table's owner runs.
    let text = |what: &str| -> Outcome<Option<String>> {
        let column = adoption.column(what).map(|_| adoption.needed(table, what)).transpose()?;
        Ok(column.map(|column: &Column| format!("NULLIF(pg_catalog.concat(x.{}), '')", quote_identifier(&column.name))))
    };
    Ok(Organizations {
        table: table.clone(),
        id: format!("x.{}", quote_identifier(&id.name)),
        slug: text("slug")?,
        name: text("name")?,
        timezone: text("timezone")?,
    })
}

/// Where the rows come from that are to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows<'a> {
    Table,
    /// Transition tables of a statement, new and old, whichever there are.
    Statement {
        new: Option<&'a str>,
        old: Option<&'a str>,
    },
}

impl Organizations {
    /// Enters what is new or has changed. A slug that is missing, malformed or taken is replaced by the id, an unknown time
    /// zone by UTC: the application's writer is not stopped.
    fn enter(&self, client: &mut SpiClient<'_>, installed: Installed, source: &str, how: How) -> Outcome<usize> {
        let id = &self.id;
        let slug = self
            .slug
            .as_ref()
            .filter(|_| how != How::ByIds)
            .map_or("NULL".to_owned(), |slug| format!("pg_catalog.lower({slug})"));
        let name = self.name.as_deref().unwrap_or("NULL");
        let mut args = vec![spi::arg(installed.default_organization), spi::arg(how == How::TakeOver)];
        let zone = match &self.timezone {
            Some(zone) => {
                args.push(spi::arg(known_zones(client, zone, source)?));
                format!("CASE WHEN {zone} = ANY ($3) THEN {zone} ELSE 'UTC' END")
            }
            None => "'UTC'".to_owned(),
        };
        let entered = spi::query(
            client,
            &format!(
                "WITH n AS (
                     SELECT DISTINCT ON ({id}) {id} AS id, {slug} AS slug, {name} AS name, {zone} AS timezone FROM {source} AS x
                      WHERE pg_catalog.num_nulls({id}) = 0 ORDER BY {id}),
                 s AS (
                     SELECT n.id, n.name, n.timezone,
                            CASE WHEN COALESCE(n.slug ~ '^[a-z0-9][a-z0-9_-]{{0,62}}$', false)
                                      AND n.slug !~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
                                      AND pg_catalog.row_number() OVER (PARTITION BY n.slug ORDER BY n.id) = 1
                                      AND NOT EXISTS (SELECT FROM usher.organizations AS t WHERE t.slug = n.slug AND t.id <> n.id)
                                 THEN n.slug ELSE n.id::text END AS slug FROM n)
                 INSERT INTO usher.organizations AS o (id, slug, name, timezone, adopted)
                 SELECT s.id, s.slug, COALESCE(s.name, s.slug), s.timezone, true
                   FROM s LEFT JOIN usher.organizations AS k ON k.id = s.id
                  WHERE s.id <> $1 AND (k.id IS NULL OR (k.adopted OR $2)
                                        AND (k.slug, k.name, k.timezone, k.adopted) IS DISTINCT FROM (s.slug, COALESCE(s.name, s.slug), s.timezone, true))
                 ON CONFLICT ON CONSTRAINT organizations_pkey
                 DO UPDATE SET slug = EXCLUDED.slug, name = EXCLUDED.name, timezone = EXCLUDED.timezone, adopted = true WHERE o.adopted OR $2"
            ),
            &args,
        )?;
        Ok(entered.len())
    }

    /// Forgets those that are not in the table any more; `among` narrows where to look.
    fn forget(&self, client: &mut SpiClient<'_>, installed: Installed, among: Option<&str>) -> Outcome<usize> {
        let narrowed = among.map_or(String::new(), |old| format!("AND o.id IN (SELECT {} FROM {old} AS x)", self.id));
        let gone = spi::query(
            client,
            &format!(
                "DELETE FROM usher.organizations AS o WHERE o.adopted AND o.id <> $1 {narrowed}
                    AND NOT EXISTS (SELECT FROM {} AS x WHERE {} = o.id)",
                self.table.sql, self.id
            ),
            &[spi::arg(installed.default_organization)],
        )?;
        Ok(gone.len())
    }

    /// Runs with the owner's rights.
    fn follow(&self, client: &mut SpiClient<'_>, installed: Installed, from: Rows<'_>, how: How) -> Outcome<usize> {
        let (new, old) = match from {
            Rows::Table => (Some(self.table.sql.as_str()), None),
            Rows::Statement { new, old } => (new, old),
        };
        let _guarded = guc::Nest::open().data_only();
        // First what went: its slug may be free for what came.
        let mut changed = if from == Rows::Table || old.is_some() { self.forget(client, installed, old)? } else { 0 };
        if let Some(new) = new {
            changed += self.enter(client, installed, new, how)?;
        }
        if changed > 0 {
            // Flows with a schedule may have to look at one more time zone.
            xact::note_plans_changed();
        }
        Ok(changed)
    }
}

/// The time zones that `zone` names in the rows and that exist.
fn known_zones(client: &mut SpiClient<'_>, zone: &str, source: &str) -> Outcome<Vec<String>> {
    let sql = format!("SELECT pg_catalog.array_agg(DISTINCT {zone}) FROM {source} AS x WHERE {zone} IS NOT NULL");
    let named = spi::query(client, &sql, &[])?.first().get::<Vec<String>>(1)?.unwrap_or_default();
    Ok(named.into_iter().filter(|name| zones::named(name).is_ok()).collect())
}

/// What happens to what is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// An operator has said that this table counts: organizations of ours that it has are its own from now on.
    TakeOver,
    /// Whoever writes the table changes what came from it, and nothing else: not ours, and never the default organization.
    Own,
    /// The same, without slugs.
    ByIds,
}

/// Brings `usher.organizations` in line with the adopted table, if there is one that fits; returns how many rows changed. Runs
/// with the owner's rights.
pub fn reconcile(installed: Installed) -> Outcome<usize> {
    bring_in_line(installed, How::Own)
}

/// The same for a table that was adopted just now.
pub fn take_over(installed: Installed) -> Outcome<usize> {
    bring_in_line(installed, How::TakeOver)
}

fn bring_in_line(installed: Installed, how: How) -> Outcome<usize> {
    match held(installed)? {
        Some(adopted) => Spi::connect_mut(|client| adopted.follow(client, installed, Rows::Table, how)),
        None => Ok(0),
    }
}

fn held(installed: Installed) -> Outcome<Option<Rc<Organizations>>> {
    binding::held(installed, binding::organizations, |adopted| &adopted.table)
}

/// A statement on the adopted table has changed rows.
#[pg_trigger]
fn follow_organizations<'a>(
    trigger: &'a PgTrigger<'a>,
) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    raise(followed(trigger));
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

fn followed(trigger: &PgTrigger<'_>) -> Outcome<()> {
    let op = trigger.op().map_err(|e| UsherError::internal(e.to_string()))?;
    let relation = trigger.relid().map_err(|e| UsherError::internal(e.to_string()))?;
    let installed = setup::installed()?;
    let Some(adopted) = held(installed)?.filter(|adopted| adopted.table.oid == relation) else {
        return Ok(());
    };
    let from = match op {
        Op::Insert => Rows::Statement { new: Some("usher_new"), old: None },
        Op::Update => Rows::Statement { new: Some("usher_new"), old: Some("usher_old") },
        Op::Delete => Rows::Statement { new: None, old: Some("usher_old") },
        Op::Truncate => Rows::Table,
    };
    let _acting = role::internal(installed.owner);
    let attempt = |how| {
        subxact::attempt(|| {
            Spi::connect_mut(|client| {
                if from != Rows::Table {
                    pg_trigger::register_tables(trigger)?;
                }
                adopted.follow(client, installed, from, how)
            })
        })
    };
    // Two at a time may have chosen the same slug: the later one goes by its id until a worker looks again.
    match attempt(How::Own) {
        Err(failure) if failure.sqlstate == "23505" => attempt(How::ByIds),
        done => done,
    }
    .map(|_| ())
    .map_err(UsherError::from)
}

/// Makes the triggers that the adopted table lacks, drops those on tables that are not adopted; returns how many changed. Runs
/// with the owner's rights.
pub fn attach(installed: Installed, patience: i64) -> Outcome<usize> {
    let adopted = binding::organizations(installed)?.fitting();
    let _nest = guc::Nest::open().lock_timeout(patience);
    let mut changed = detach_from(adopted.as_ref().map(|adopted| adopted.table.oid))?;
    let Some(adopted) = adopted else { return Ok(changed) };
    let known = spi::read_all(
        "SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
          WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgfoid = 'usher.follow_organizations()'::pg_catalog.regprocedure AND t.tgenabled IN ('O', 'A')",
        &[spi::arg(adopted.table.oid)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    for (event, tables) in EVENTS {
        let name = format!("usher_follow_{event}");
        if known.contains(&name) {
            continue;
        }
        let table = &adopted.table.sql;
        // One that was switched off is replaced by one that is on.
        let sql = format!(
            "CREATE OR REPLACE TRIGGER {name} AFTER {} ON {table} {tables} FOR EACH STATEMENT EXECUTE FUNCTION usher.follow_organizations()",
            event.to_uppercase()
        );
        locked(table, &sql).map_err(|error| {
            let owner = role::name_of(role::current()).unwrap_or_default();
            if error.code != PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE {
                return error;
            }
            error.hint(format!(
                "Triggers are made by {owner}, the owner of pg_usher's tables: GRANT TRIGGER ON {table} TO {owner};"
            ))
        })?;
        changed += 1;
    }
    Ok(changed)
}

/// Drops the triggers from every table but one. Runs with the owner's rights.
pub fn detach_from(but: Option<Oid>) -> Outcome<usize> {
    // A library that is newer than the extension knows functions that are not there yet.
    if spi::read::<bool>("SELECT pg_catalog.to_regprocedure('usher.follow_organizations()') IS NOT NULL", &[])? != Some(true) {
        return Ok(0);
    }
    let triggers = spi::all(
        "SELECT pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname), pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgfoid = 'usher.follow_organizations()'::pg_catalog.regprocedure AND COALESCE(t.tgrelid <> $1, true)",
        &[spi::arg(but)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    for (sql, relation) in &triggers {
        locked(relation, sql)?;
    }
    Ok(triggers.len())
}
