//! Binding: views in the place of the pack's tables, and taking them away again.

use super::fitted::quoted;
use super::model::{Model, Reference};
use super::parse::Bind;
use super::plan::Plan;
use super::rewrite::Fits;
use super::views;
use crate::error::{Result, UsherError};
use crate::pg::{spi, subxact};
use crate::registry::tables::split;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use std::collections::BTreeSet;

/// Rights on tables are given by whoever owns them.
pub fn require_owned(fits: &Fits) -> Result<()> {
    let foreign: Vec<&str> = fits.values().filter(|fitted| !fitted.owned).map(|fitted| fitted.table.as_str()).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(UsherError::forbidden(format!("you do not own {}", foreign.join(", ")))
        .hint("Let the owner of the tables do it, or become a member of the role that owns them."))
}

fn sql(name: &str) -> String {
    split(name).map_or_else(|| name.to_owned(), |(schema, table)| format!("{}.{}", quoted(&schema), quoted(&table)))
}

/// What begins the comment of everything that the pack has made, for LIKE.
fn said_by(pack: &str) -> String {
    format!("Pack {}:%", pack.replace('_', "\\_"))
}

/// What stands under the pack's names: `(name, oid, is a view, is the pack's)`.
fn standing(pack: &str, model: &Model) -> Result<Vec<(String, Oid, bool, bool)>> {
    let names: Vec<&str> = model.tables.keys().map(String::as_str).collect();
    spi::all(
        "SELECT n.nspname || '.' || c.relname, c.oid, c.relkind = 'v', COALESCE(pg_catalog.obj_description(c.oid, 'pg_class'), '') LIKE $2
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname || '.' || c.relname = ANY ($1) ORDER BY 1",
        &[spi::arg(names), spi::arg(said_by(pack))],
        |row| {
            let oid = row.get::<Oid>(2)?.unwrap_or(Oid::INVALID);
            Ok((row.get::<String>(1)?.unwrap_or_default(), oid, row.get::<bool>(3)? == Some(true), row.get::<bool>(4)? == Some(true)))
        },
    )
}

/// Takes away what these statements name, and nothing besides: what the application has made of it is its own, and is named.
fn drop_alone(statements: &[String]) -> Result<()> {
    let dropped = subxact::attempt(|| statements.iter().try_for_each(|drop| spi::script(drop)));
    dropped.map_err(|failure| {
        if failure.code != PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST {
            return failure.into();
        }
        // "view a depends on table b", each in a line.
        let detail = failure.detail.unwrap_or(failure.message);
        let what: BTreeSet<&str> = detail.lines().map(|line| line.split(" depends on ").next().unwrap_or(line)).collect();
        UsherError::new(
            failure.code,
            format!("what the pack has to make anew is used by {}", what.into_iter().collect::<Vec<_>>().join(", ")),
        )
        .detail(detail.clone())
        .hint("Drop it first, and make it again when the pack is installed; or let it stand on the application's own tables.")
    })
}

/// The pack's own views over these relations or functions, which go away: its scripts make them anew.
fn views_over(pack: &str, class: &str, objects: Vec<Oid>) -> Result<Vec<String>> {
    spi::all(
        "WITH RECURSIVE above AS (
             SELECT $3::pg_catalog.regclass::pg_catalog.oid AS class, o AS oid FROM pg_catalog.unnest($1) AS o
              UNION
             SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, r.ev_class FROM above AS a
               JOIN pg_catalog.pg_depend AS d ON d.refclassid = a.class AND d.refobjid = a.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
               JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid)
         SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM above AS a JOIN pg_catalog.pg_class AS c ON a.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = a.oid
           JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE c.relkind = 'v' AND pg_catalog.obj_description(c.oid, 'pg_class') LIKE $2 ORDER BY 1",
        &[spi::arg(objects), spi::arg(said_by(pack)), spi::arg(class)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )
}

/// A table of the pack's own makes way for the application's, if nothing is in it. Keys that lead to it from others of the pack go with it, and
/// their policies that look into it.
fn make_way(pack: &str, table: &str) -> Result<()> {
    let name = sql(table);
    // Nobody writes into it between this look and its end.
    spi::script(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))?;
    if spi::one::<bool>(&format!("SELECT EXISTS (SELECT FROM {name})"), &[])? == Some(true) {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{table} is a table of the pack and has rows, which binding it would hide"),
        )
        .hint("Move its rows to the application's table and delete them here, or leave the table out of bind."));
    }
    let references = spi::all(
        "SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::pg_catalog.regclass, k.conname)
           FROM pg_catalog.pg_constraint AS k WHERE k.confrelid = $1::pg_catalog.regclass AND k.contype = 'f' AND k.conrelid <> k.confrelid AND k.conparentid = 0
            AND pg_catalog.obj_description(k.conrelid, 'pg_class') LIKE $2 ORDER BY 1",
        &[spi::arg(name.as_str()), spi::arg(said_by(pack))],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    let policies = spi::all(
        "SELECT pg_catalog.format('DROP POLICY %I ON %s', p.polname, p.polrelid::pg_catalog.regclass)
           FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_policy AS p ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid
          WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1::pg_catalog.regclass AND p.polrelid <> d.refobjid
            AND pg_catalog.obj_description(p.polrelid, 'pg_class') LIKE $2 GROUP BY p.oid ORDER BY 1",
        &[spi::arg(name.as_str()), spi::arg(said_by(pack))],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    references.iter().chain(&policies).try_for_each(|drop| spi::script(drop))
}

/// Takes the views of an earlier binding away, and the pack's own tables that are bound now.
pub fn clear(pack: &str, model: &Model, bind: &Bind) -> Result<()> {
    let (mut relations, mut tables, mut functions) = (Vec::new(), Vec::new(), Vec::new());
    for (name, oid, view, ours) in standing(pack, model)? {
        if view && ours {
            functions.extend(views::functions(&name, &model.tables[&name]));
        } else if ours && bind.takes(&name) {
            make_way(pack, &name)?;
            tables.push(sql(&name));
        } else {
            continue;
        }
        relations.push(oid);
    }
    let views = views_over(pack, "pg_catalog.pg_class", relations)?;
    let drop = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("DROP {what} {}", names.join(", ")));
    let drops = [drop("VIEW", &views), drop("TABLE", &tables), drop("FUNCTION IF EXISTS", &functions)];
    drop_alone(&drops.into_iter().flatten().collect::<Vec<_>>())
}

/// Functions of an earlier installation about tables that are not there any more, with the pack's triggers that call them.
pub fn drop_functions(pack: &str, names: &BTreeSet<String>) -> Result<()> {
    let found = spi::all(
        "SELECT p.oid, p.oid::pg_catalog.regprocedure::text
           FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname || '.' || p.proname = ANY ($1) ORDER BY 2",
        &[spi::arg(names.iter().cloned().collect::<Vec<String>>())],
        |row| Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    if found.is_empty() {
        return Ok(());
    }
    let (oids, functions): (Vec<Oid>, Vec<String>) = found.into_iter().unzip();
    let mut drops = spi::all(
        "SELECT pg_catalog.format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::pg_catalog.regclass)
           FROM pg_catalog.pg_trigger AS t
          WHERE t.tgfoid = ANY ($1) AND NOT t.tgisinternal AND t.tgparentid = 0 AND pg_catalog.obj_description(t.tgrelid, 'pg_class') LIKE $2 ORDER BY 1",
        &[spi::arg(oids.clone()), spi::arg(said_by(pack))],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    let views = views_over(pack, "pg_catalog.pg_proc", oids)?;
    if !views.is_empty() {
        drops.push(format!("DROP VIEW {}", views.join(", ")));
    }
    drops.push(format!("DROP FUNCTION {}", functions.join(", ")));
    drop_alone(&drops)
}

/// Keys between tables of the pack that a binding, this one's predecessor or one that was removed since, took away: a table that stands
/// is not made again. Rows of it may still point into the application's table; then what is new is checked, and what is there is told.
pub fn restore_keys(model: &Model, bind: &Bind) -> Result<()> {
    let there = spi::all(
        "SELECT n.nspname || '.' || c.relname, k.conname::text
           FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE k.contype = 'f'",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    let there: BTreeSet<(String, String)> = there.into_iter().collect();
    for (table, described) in model.tables.iter().filter(|(name, _)| !bind.takes(name)) {
        let lost = |key: &&Reference| !bind.takes(&key.to) && !there.contains(&(table.clone(), key.name.clone()));
        for key in described.references.iter().filter(lost) {
            let name = sql(table);
            spi::script(&format!("ALTER TABLE {name} ADD {} NOT VALID", key.sql))?;
            let constraint = quote_identifier(&key.name);
            let checked = subxact::attempt(|| spi::script(&format!("ALTER TABLE {name} VALIDATE CONSTRAINT {constraint}")));
            match checked {
                Ok(()) => {}
                Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION => pgrx::warning!(
                    "rows of {table} point to rows that {} does not have: mend them, then ALTER TABLE {name} VALIDATE CONSTRAINT {constraint};",
                    key.to
                ),
                Err(failure) => return Err(failure.into()),
            }
        }
    }
    Ok(())
}

fn defaults(oid: u32) -> Result<Vec<(String, String)>> {
    spi::all(
        "SELECT a.attname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
           FROM pg_catalog.pg_attrdef AS d JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
          WHERE d.adrelid = $1 AND a.attgenerated = ''",
        &[spi::arg(Oid::from(oid))],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )
}

/// Views in the place of tables. Functions of the pack are made after them.
pub fn make_views(pack: &str, model: &Model, fits: &Fits, plan: &Plan) -> Result<()> {
    for fitted in fits.values() {
        let defaults = defaults(fitted.oid)?;
        let default_of = |column: &str| defaults.iter().find(|(name, _)| name == column).map(|(_, sql)| sql.clone());
        let (table, writes) = (&model.tables[&fitted.name], &plan.writes[&fitted.name]);
        spi::script(&views::word_functions(fitted))?;
        spi::script(&views::statements(pack, fitted, table, writes, &default_of))?;
    }
    Ok(())
}
