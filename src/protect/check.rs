//! Which tables and columns can be protected, and by whom.

use crate::error::{Result, UsherError};
use crate::pg::{catalog, role, spi};
use crate::registry::tables::{self, Column, Table};
use pgrx::pg_sys::Oid;

/// The table that is meant.
pub struct Target {
    pub table: Table,
    pub schema: String,
    pub name: String,
    pub owner: Oid,
}

struct Facts {
    owner: Oid,
    kind: String,
    temporary: bool,
    partition: bool,
    inherits: bool,
    foreign: bool,
}

fn facts(oid: Oid) -> Result<Option<Facts>> {
    let found = spi::read_all(
        "SELECT c.relowner, c.relkind::text, c.relpersistence = 't', c.relispartition,
                NOT c.relispartition AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid)
                OR c.relkind <> 'p' AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid),
                EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) AS t JOIN pg_catalog.pg_class AS f ON f.oid = t.relid WHERE f.relkind = 'f')
           FROM pg_catalog.pg_class AS c WHERE c.oid = $1",
        &[spi::arg(oid)],
        |row| {
            let is = |column| Ok::<_, UsherError>(row.get::<bool>(column)?.unwrap_or(false));
            Ok(Facts {
                owner: row.get::<Oid>(1)?.unwrap_or(Oid::INVALID),
                kind: row.get::<String>(2)?.unwrap_or_default(),
                temporary: is(3)?,
                partition: is(4)?,
                inherits: is(5)?,
                foreign: is(6)?,
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// A table whose columns are protected, for what is done with its owner's rights.
pub fn readable(oid: Oid) -> Result<Target> {
    let gone =
        || UsherError::not_found("the table does not exist any more").hint("SELECT * FROM usher.doctor(); says what to do.");
    let (schema, name) = catalog::name(oid).ok_or_else(gone)?;
    let owner = facts(oid)?.ok_or_else(gone)?.owner;
    Ok(Target { table: tables::by_oid(oid)?.ok_or_else(gone)?, schema, name, owner })
}

/// The table, if the role that runs now has its owner's rights and its columns can be protected at all.
pub fn target(oid: Oid) -> Result<Target> {
    let gone = || UsherError::not_found("the table does not exist any more").hint("Name one that does.");
    let (schema, name) = catalog::name(oid).ok_or_else(gone)?;
    let facts = facts(oid)?.ok_or_else(gone)?;
    let schema = if facts.temporary { "pg_temp".to_owned() } else { schema };
    let full = format!("{schema}.{name}");
    if !role::has_rights_of(role::current(), facts.owner) {
        let owner = role::name_of(facts.owner).unwrap_or_default();
        return Err(UsherError::forbidden(format!("you may not protect columns of {full}"))
            .detail(format!("It belongs to {owner}, whose rights you do not have."))
            .hint(format!("Let an operator do it who is a member of {owner}, or a superuser.")));
    }
    if schema == "usher" {
        return Err(UsherError::invalid(format!("{full} belongs to pg_usher")).hint("Name a table of your application."));
    }
    if !matches!(facts.kind.as_str(), "r" | "p") || facts.temporary {
        return Err(UsherError::invalid(format!("{full} is not an ordinary table")).hint(
            "Columns of ordinary and partitioned tables can be protected; those of views, foreign and temporary tables cannot.",
        ));
    }
    if facts.partition {
        return Err(UsherError::invalid(format!("{full} is a partition")).hint(
            "Name the partitioned table: its columns are protected in all of its partitions, those of later days as well.",
        ));
    }
    if facts.inherits || facts.foreign {
        let why =
            if facts.foreign { "has foreign tables among its partitions" } else { "inherits from a table, or is inherited from" };
        return Err(UsherError::invalid(format!("{full} {why}")).hint(
            "What is written there does not pass the triggers of this table. Ordinary and partitioned tables can be protected.",
        ));
    }
    let table = tables::by_oid(oid)?.ok_or_else(gone)?;
    Ok(Target { table, schema, name, owner: facts.owner })
}

/// The number of a column, which exists.
pub fn number(table: &Table, column: &str) -> Result<i16> {
    spi::read::<i16>(
        "SELECT a.attnum FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped",
        &[spi::arg(table.oid), spi::arg(column)],
    )?
    .ok_or_else(|| UsherError::internal("a column is not in the catalog"))
}

/// Refuses a column that cannot hold sealed text, or on which something stands that would not work any more.
pub fn can_be_sealed(target: &Target, column: &Column, attnum: i16) -> Result<()> {
    let name = format!("{}.{}", target.table.name, column.name);
    if column.generated {
        return Err(UsherError::invalid(format!("{name} is written by PostgreSQL alone"))
            .hint("Seal the column that it is made from, or drop the expression."));
    }
    let kind = spi::read_all(
        "WITH RECURSIVE t AS (
             SELECT a.atttypid AS id, a.atttypmod AS modifier, false AS bounded FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum = $2
             UNION ALL
             SELECT y.typbasetype, y.typtypmod, t.bounded OR y.typnotnull OR EXISTS (SELECT FROM pg_catalog.pg_constraint AS c WHERE c.contypid = y.oid)
               FROM t JOIN pg_catalog.pg_type AS y ON y.oid = t.id WHERE y.typtype = 'd')
         SELECT t.id IN ('pg_catalog.text'::pg_catalog.regtype, 'pg_catalog.varchar'::pg_catalog.regtype),
                (SELECT pg_catalog.bool_or(u.modifier >= 0) FROM t AS u), (SELECT pg_catalog.bool_or(u.bounded) FROM t AS u)
           FROM t JOIN pg_catalog.pg_type AS y ON y.oid = t.id WHERE y.typtype <> 'd'",
        &[spi::arg(target.table.oid), spi::arg(attnum)],
        |row| {
            let is = |column| Ok::<_, UsherError>(row.get::<bool>(column)?.unwrap_or(false));
            Ok((is(1)?, is(2)?, is(3)?))
        },
    )?;
    let (text, short, bounded) = kind.into_iter().next().unwrap_or_default();
    let to_text =
        format!("ALTER TABLE {} ALTER COLUMN {} TYPE text;", target.table.sql, pgrx::spi::quote_identifier(&column.name));
    if !text {
        return Err(UsherError::invalid(format!("{name} is of type {}; text can be sealed", column.type_sql))
            .hint(format!("{to_text} or declare it as masked.")));
    }
    if short {
        return Err(UsherError::invalid(format!(
            "{name} is of type {}, into which its longest values would not fit when they are sealed",
            column.type_sql
        ))
        .detail("A sealed value is longer than its clear text: its header and a third more.")
        .hint(to_text));
    }
    if bounded {
        return Err(
            UsherError::invalid(format!("{name} is of a domain whose constraints a sealed value would not meet")).hint(to_text)
        );
    }
    if let Some(what) = dependent(target.table.oid, attnum)? {
        return Err(UsherError::invalid(format!("{name} cannot be sealed: {what} stands on its values"))
            .detail("Every sealed value is another text, also of the same clear one: nothing can be found, compared or checked by it.")
            .hint("Drop it, or declare the column as masked."));
    }
    Ok(())
}

/// Something that compares, checks or finds rows by a column: keys, indexes, constraints, policies, generated columns, statistics,
/// the partition key.
fn dependent(relation: Oid, attnum: i16) -> Result<Option<String>> {
    spi::read::<String>(
        "WITH r AS (SELECT $1 AS id UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) AS t),
              c AS (SELECT r.id, a.attnum FROM r JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.id
                     WHERE a.attname = (SELECT o.attname FROM pg_catalog.pg_attribute AS o WHERE o.attrelid = $1 AND o.attnum = $2) AND NOT a.attisdropped)
         SELECT COALESCE('the partition key of ' || CASE WHEN d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.id THEN d.objid::pg_catalog.regclass::text END,
                         pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid))
           FROM c JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.id AND d.refobjsubid = c.attnum
          WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_constraint AS k WHERE k.oid = d.objid AND (k.conname LIKE 'usher\\_sealed\\_%' OR k.contype = 'n'))
             OR d.classid IN ('pg_catalog.pg_policy'::pg_catalog.regclass, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
             OR d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND (d.objid = c.id OR EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indexrelid = d.objid))
             OR d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND EXISTS (
                    SELECT FROM pg_catalog.pg_attrdef AS f WHERE f.oid = d.objid AND (f.adrelid, f.adnum) <> (c.id, c.attnum))
          ORDER BY 1 LIMIT 1",
        &[spi::arg(relation), spi::arg(attnum)],
    )
}
