//! What was adopted, and whether it can still be read.

use super::members::{self, Members};
use super::organizations::{self, Organizations};
use crate::error::{Result, UsherError};
use crate::pg::{catalog, locks, relcache, role, spi, xact};
use crate::registry::tables::{self, Table};
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_qualified_identifier;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::rc::Rc;

/// A row of `usher.adoptions`.
pub struct Adoption {
    pub relation: Oid,
    pub columns: Map<String, Value>,
    pub roles: Option<Map<String, Value>>,
    pub condition: Map<String, Value>,
}

impl Adoption {
    /// The column that says `what`, if one does.
    pub fn column(&self, what: &str) -> Option<&str> {
        self.columns.get(what)?.as_str()
    }

    /// The column that says `what`, which there must be.
    pub fn needed<'t>(&self, table: &'t Table, what: &str) -> Result<&'t tables::Column> {
        let name = self.column(what).ok_or_else(|| {
            UsherError::invalid(format!("the column for the {what} is missing")).hint("Name it, or leave the argument out.")
        })?;
        table.expect(name, &format!("\"{what}_column\""))
    }

    /// The column that says `what`, which is an organization's id.
    pub fn organization<'t>(&self, table: &'t Table, what: &str) -> Result<&'t tables::Column> {
        let column = self.needed(table, what)?;
        if column.base_sql == "uuid" {
            return Ok(column);
        }
        Err(UsherError::invalid(format!(
            "{}.{} is of type {}; organizations have ids of type uuid",
            table.name, column.name, column.type_sql
        ))
        .hint("Name the column that holds the organization's uuid."))
    }
}

/// Something adopted: nothing, a table that fits, or one that does not any more, and why.
pub enum Bound<T> {
    Nothing,
    Fits(Rc<T>),
    Broken(String),
}

// Not derived: what is bound need not be copied for it.
impl<T> Clone for Bound<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Fits(bound) => Self::Fits(bound.clone()),
            Self::Broken(why) => Self::Broken(why.clone()),
        }
    }
}

impl<T> Bound<T> {
    pub fn fitting(self) -> Option<Rc<T>> {
        match self {
            Self::Fits(bound) => Some(bound),
            Self::Nothing | Self::Broken(_) => None,
        }
    }
}

#[derive(Clone)]
struct Known {
    generation: (u64, u64),
    members: Bound<Members>,
    organizations: Bound<Organizations>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

pub fn members(installed: Installed) -> Result<Bound<Members>> {
    Ok(known(installed)?.map_or(Bound::Nothing, |known| known.members))
}

pub fn organizations(installed: Installed) -> Result<Bound<Organizations>> {
    Ok(known(installed)?.map_or(Bound::Nothing, |known| known.organizations))
}

/// What is bound, held as it is until the transaction ends: between this and the statement that reads it nobody puts something
/// else in its place.
pub fn held<T>(installed: Installed, bound: fn(Installed) -> Result<Bound<T>>, table: fn(&T) -> &Table) -> Result<Option<Rc<T>>> {
    for _ in 0..3 {
        let Some(before) = bound(installed)?.fitting() else { return Ok(None) };
        let oid = table(&before).oid;
        locks::keep(oid);
        // Whoever had it before us may have altered it.
        relcache::accept();
        let Some(now) = bound(installed)?.fitting() else { return Ok(None) };
        let named = catalog::name(oid).map(|(schema, name)| quote_qualified_identifier(schema, name));
        if table(&now).oid == oid && named.as_ref() == Some(&table(&now).sql) {
            return Ok(Some(now));
        }
        // A schema was renamed, of which nobody is told.
        KNOWN.set(None);
    }
    Ok(None)
}

fn known(installed: Installed) -> Result<Option<Known>> {
    if !installed.up_to_date {
        return Ok(None);
    }
    let generation = relcache::generations();
    if let Some(known) = KNOWN.with_borrow(|known| known.as_ref().filter(|known| known.generation == generation).cloned()) {
        return Ok(Some(known));
    }
    xact::remember_only_now();
    let _acting = role::internal(installed.owner);
    let known = Known {
        generation,
        members: look("memberships", members::bind)?,
        organizations: look("organizations", organizations::bind)?,
    };
    KNOWN.set(Some(known.clone()));
    Ok(Some(known))
}

fn look<T>(kind: &str, bind: fn(&Adoption, &Table) -> Result<T>) -> Result<Bound<T>> {
    let Some(adoption) = find(kind)? else { return Ok(Bound::Nothing) };
    let bound = readable(adoption.relation).and_then(|table| bind(&adoption, &table));
    Ok(match bound {
        Ok(bound) => Bound::Fits(Rc::new(bound)),
        Err(error) => Bound::Broken(error.message),
    })
}

/// Runs with the owner's rights.
pub fn find(kind: &str) -> Result<Option<Adoption>> {
    let rows = spi::read_all(
        "SELECT a.relation::oid, a.columns, a.roles, a.condition FROM usher.adoptions AS a WHERE a.kind = $1",
        &[spi::arg(kind)],
        |row| {
            Ok(Adoption {
                relation: row.get::<Oid>(1)?.unwrap_or(Oid::INVALID),
                columns: object(row.get::<pgrx::JsonB>(2)?).unwrap_or_default(),
                roles: object(row.get::<pgrx::JsonB>(3)?),
                condition: object(row.get::<pgrx::JsonB>(4)?).unwrap_or_default(),
            })
        },
    )?;
    Ok(rows.into_iter().next())
}

fn object(json: Option<pgrx::JsonB>) -> Option<Map<String, Value>> {
    match json?.0 {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// The table, if the role that runs now may read all of it and nobody else's code runs when it does.
pub fn readable(relation: Oid) -> Result<Table> {
    let facts = spi::read_all(
        "SELECT c.relkind IN ('r', 'p') AND c.relpersistence <> 't', pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.row_security_active(c.oid)
           FROM pg_catalog.pg_class AS c WHERE c.oid = $1",
        &[spi::arg(relation)],
        |row| Ok([1, 2, 3].map(|column| row.get::<bool>(column).ok().flatten().unwrap_or(false))),
    )?;
    let table = tables::by_oid(relation)?;
    let (Some([ordinary, allowed, guarded]), Some(table)) = (facts.into_iter().next(), table) else {
        return Err(UsherError::not_found("the adopted table does not exist any more"));
    };
    let reader = role::name_of(role::current()).unwrap_or_default();
    if !ordinary {
        // A session's own schema has a number that nobody knows.
        let name = match table.name.split_once('.') {
            Some((schema, name)) if schema.starts_with("pg_temp_") => format!("pg_temp.{name}"),
            _ => table.name,
        };
        return Err(UsherError::invalid(format!("{name} is not an ordinary table"))
            .hint("Ordinary and partitioned tables can be adopted. A view would run its owner's functions with the rights of pg_usher's owner."));
    }
    if !allowed {
        return Err(UsherError::forbidden(format!("{reader}, the owner of pg_usher's tables, may not read {}", table.name))
            .hint(format!("GRANT SELECT ON {} TO {reader};", table.name)));
    }
    if let Some(what) = foreign_code(relation)? {
        return Err(UsherError::invalid(format!(
            "{what} of {} uses functions or operators that are not PostgreSQL's own",
            table.name
        ))
        .hint(
            "They would run with the rights of pg_usher's owner when the table is read. Drop it, or adopt a table without it.",
        ));
    }
    if guarded {
        return Err(UsherError::forbidden(format!(
            "row level security hides rows of {} from {reader}, the owner of pg_usher's tables",
            table.name
        ))
        .hint(format!("Let {reader} own the table, or ALTER ROLE {reader} BYPASSRLS.")));
    }
    Ok(table)
}

/// Something about a table, its partitions and its children that the planner evaluates for whoever reads it, and that is not made
/// of PostgreSQL's own functions.
pub fn foreign_code(relation: Oid) -> Result<Option<String>> {
    spi::read::<String>(
        "WITH RECURSIVE t AS (SELECT $1 AS id UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN t ON i.inhparent = t.id),
         o AS (
             SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid AS class, t.id, 'the partition key' AS what FROM t
             UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, 'an index' FROM t JOIN pg_catalog.pg_index AS i ON i.indrelid = t.id
             UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid, 'a CHECK constraint' FROM t JOIN pg_catalog.pg_constraint AS c ON c.conrelid = t.id
             UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, 'a statistics object' FROM t JOIN pg_catalog.pg_statistic_ext AS s ON s.stxrelid = t.id)
         SELECT f.what FROM (
             SELECT o.what FROM o JOIN pg_catalog.pg_depend AS d ON d.classid = o.class AND d.objid = o.id AND d.objsubid = 0
              WHERE d.refobjid >= 16384
                AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass)
             UNION ALL SELECT 'a foreign table below' FROM t JOIN pg_catalog.pg_class AS c ON c.oid = t.id WHERE c.relkind NOT IN ('r', 'p')) AS f
          ORDER BY 1 LIMIT 1",
        &[spi::arg(relation)],
    )
}
