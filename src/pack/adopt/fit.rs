//! What the catalog says of the application's tables that are bound.

use super::fitted::{self, Fitted, Mapped, Theirs};
use super::model::Model;
use super::parse::{Bind, Bound, Source};
use crate::error::{Result, UsherError, did_you_mean};
use crate::pg::guc::Nest;
use crate::pg::{catalog, role, spi, subxact};
use crate::registry::tables::split;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use std::collections::BTreeMap;

fn refuse<T>(at: &[&str], what: String, hint: String) -> Result<T> {
    let place: String = at.iter().map(|key| format!("[{key:?}]")).collect();
    Err(UsherError::invalid(format!("bind{place}: {what}")).hint(hint))
}

fn relation(key: &str, name: &str) -> Result<Oid> {
    let found = split(name).and_then(|(schema, table)| catalog::relation(&schema, &table));
    let kind = match found {
        None => None,
        Some(oid) => {
            spi::read::<String>("SELECT c.relkind::text FROM pg_catalog.pg_class AS c WHERE c.oid = $1", &[spi::arg(oid)])?
        }
    };
    match (found, kind.as_deref()) {
        (Some(oid), Some("r" | "p")) if !name.starts_with("usher.") => Ok(oid),
        (Some(_), Some(_)) => refuse(
            &[key, "table"],
            format!("{name} is not an ordinary or partitioned table of the application"),
            "Name the table itself: changes of views cannot be followed.".to_owned(),
        ),
        _ => {
            let near = spi::read_all(
                "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'usher') ORDER BY 1 LIMIT 5000",
                &[],
                |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
            )?;
            let near: Vec<&str> = near.iter().map(String::as_str).collect();
            let hint = did_you_mean(name, &near);
            let hint =
                if hint.is_empty() { "Name one that is there, or null if the application has none." } else { hint.trim_end() };
            refuse(&[key, "table"], format!("table {name} does not exist"), hint.to_owned())
        }
    }
}

const COLUMNS: &str = "
WITH RECURSIVE base AS (
    SELECT a.attnum, a.attname::text AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_sql, a.attnotnull,
           a.atthasdef OR a.attidentity <> '' AS has_default, a.attgenerated <> '' OR a.attidentity = 'a' AS generated, a.atttypid AS base
      FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attnum, b.name, b.type_sql, b.attnotnull OR t.typnotnull, b.has_default OR t.typdefault IS NOT NULL, b.generated, t.typbasetype
      FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.base WHERE t.typtype = 'd')
SELECT b.name, b.type_sql, pg_catalog.format_type(t.oid, NULL),
       CASE WHEN t.typtype = 'e' THEN ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) END,
       b.attnotnull, b.has_default, b.generated
  FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.base
 WHERE t.typtype <> 'd' ORDER BY b.attnum";

/// Unique indexes: whether NULL is a value to them, and whether they are of some rows only.
const UNIQUES: &str = "
SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, n)
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts),
       i.indnullsnotdistinct, i.indpred IS NOT NULL
  FROM pg_catalog.pg_index AS i
 WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indexprs IS NULL
 ORDER BY i.indexrelid";

/// Those that hold for everybody, or for whom the pack's role is one of.
const RESTRICTIVE: &str = "
SELECT p.polname::text FROM pg_catalog.pg_policy AS p
 WHERE p.polrelid = $1 AND NOT p.polpermissive
   AND (0::pg_catalog.oid = ANY (p.polroles) OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = 'usher_member' AND r.oid = ANY (p.polroles)))
 ORDER BY 1";

/// Whether a type `$1` has values checked by functions of those who are no superusers.
const CHECKED_BY_OTHERS: &str = "
WITH RECURSIVE within AS (
    SELECT pg_catalog.to_regtype($1)::pg_catalog.oid AS oid
    UNION
    SELECT p.oid FROM within AS w JOIN pg_catalog.pg_type AS t ON t.oid = w.oid
     CROSS JOIN LATERAL (SELECT t.typbasetype UNION ALL SELECT t.typelem
                         UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
                         -- What a domain's CHECK casts to.
                         UNION ALL SELECT d.refobjid FROM pg_catalog.pg_constraint AS k
                                     JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                                    WHERE k.contypid = t.oid AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass) AS p (oid)
     WHERE p.oid <> 0)
SELECT EXISTS (SELECT FROM within AS w JOIN pg_catalog.pg_type AS t ON t.oid = w.oid WHERE t.typtype = 'c')
    OR EXISTS (SELECT FROM within AS w JOIN pg_catalog.pg_constraint AS k ON k.contypid = w.oid
                 JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                 LEFT JOIN pg_catalog.pg_operator AS o ON d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = d.refobjid
                 JOIN pg_catalog.pg_proc AS f ON f.oid = o.oprcode OR d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.oid = d.refobjid
                 JOIN pg_catalog.pg_roles AS r ON r.oid = f.proowner WHERE NOT r.rolsuper)";

/// A value that is none of its column's type would fail when the first row is written. A domain may call any function of the application: it is
/// tried with the rights of the table's owner, as the application does, and what it does is undone; for those who have these rights. A superuser's
/// are lent to nobody.
fn check_value(owner: Oid, at: &[&str], value: &serde_json::Value, type_sql: &str) -> Result<()> {
    if !role::has_rights_of(role::current(), owner) {
        return Ok(());
    }
    if role::is_superuser(owner) && spi::read::<bool>(CHECKED_BY_OTHERS, &[spi::arg(type_sql)])? == Some(true) {
        return Ok(());
    }
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cast = format!("SELECT ({}::{type_sql}) IS NULL", fitted::literal(&text));
    let tried = subxact::rehearse(|| {
        let _fence = Nest::fence();
        let _acting = role::act_as(owner);
        spi::one::<bool>(&cast, &[]).map(|_| ())
    });
    match tried {
        Ok(()) => Ok(()),
        // It may be that the owner may not use the type's schema: then only writing tells.
        Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => Ok(()),
        Err(failure) if failure.is_outside() => Err(failure.into()),
        Err(failure) => refuse(at, format!("{value} is no {type_sql}"), format!("PostgreSQL says: {}.", failure.message)),
    }
}

fn check_values(owner: Oid, key: &str, bound: &Bound, bind: &Bind, model: &Model, theirs: &[Theirs]) -> Result<()> {
    let table = &model.tables[key];
    for (column, source) in &bound.columns {
        if let (Source::Constant(value), Some(ours)) = (source, table.column(column)) {
            check_value(owner, &[key, "columns", column, "value"], value, &ours.type_sql)?;
        }
    }
    for (column, source) in bind.everywhere.iter().filter(|(column, _)| !bound.columns.contains_key(*column)) {
        if let (Source::Constant(value), Some(ours)) = (source, table.column(column)) {
            check_value(owner, &["*", "columns", column, "value"], value, &ours.type_sql)?;
        }
    }
    for (name, value) in &bound.fill {
        if let Some(theirs) = theirs.iter().find(|theirs| theirs.name == *name) {
            check_value(owner, &[key, "fill", name], value, &theirs.type_sql)?;
            if theirs.generated {
                let hint = "Leave it out of fill.".to_owned();
                return refuse(&[key, "fill", name], format!("{}.{name} is generated", bound.table), hint);
            }
        }
    }
    Ok(())
}

fn table(key: &str, bind: &Bind, model: &Model) -> Result<Option<Fitted>> {
    let Some(bound) = bind.bound(key) else { return Ok(None) };
    let oid = relation(key, &bound.table)?;
    let theirs = spi::read_all(COLUMNS, &[spi::arg(oid)], |row| {
        Ok(Theirs {
            name: row.get::<String>(1)?.unwrap_or_default(),
            type_sql: row.get::<String>(2)?.unwrap_or_default(),
            base_sql: row.get::<String>(3)?.unwrap_or_default(),
            labels: row.get::<Vec<String>>(4)?,
            not_null: row.get::<bool>(5)?.unwrap_or(false),
            has_default: row.get::<bool>(6)?.unwrap_or(false),
            generated: row.get::<bool>(7)?.unwrap_or(false),
        })
    })?;
    let names: Vec<&str> = theirs.iter().map(|column| column.name.as_str()).collect();
    let expect = |name: &String, at: &[&str]| {
        if names.contains(&name.as_str()) {
            return Ok(());
        }
        let near = did_you_mean(name, &names);
        let hint = if near.is_empty() { format!("It has: {}.", names.join(", ")) } else { near.trim_end().to_owned() };
        refuse(at, format!("{} has no column \"{name}\"", bound.table), hint)
    };
    for (column, source) in &bound.columns {
        if let Source::Column(name) = source {
            expect(name, &[key, "columns", column])?;
        }
    }
    for name in bound.fill.keys() {
        expect(name, &[key, "fill"])?;
    }
    let owner = spi::read::<Oid>("SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = $1", &[spi::arg(oid)])?;
    check_values(owner.unwrap_or(Oid::INVALID), key, bound, bind, model, &theirs)?;
    let said = |name: &str| {
        let everywhere =
            bind.everywhere.get(name).filter(|source| !matches!(source, Source::Column(name) if !names.contains(&name.as_str())));
        bound.columns.get(name).or(everywhere).cloned()
    };
    let columns = fitted::columns(&model.tables[key], &theirs, &said, &bound.words);
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (ours, mapped) in &columns {
        let (Mapped::Same(name) | Mapped::Words { column: name, .. }) = mapped else { continue };
        if let Some(other) = taken.insert(name, ours) {
            let hint = "Say null for the one that the table does not have.".to_owned();
            return refuse(&[key, "columns", ours], format!("column \"{name}\" of {} is {other} already", bound.table), hint);
        }
    }
    for name in bound.fill.keys() {
        if let Some(ours) = taken.get(name.as_str()) {
            return refuse(&[key, "fill", name], format!("flows write {ours} there"), "Leave it out of fill.".to_owned());
        }
    }
    let facts = spi::read_all(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_has_role(c.relowner, 'USAGE'),
                ARRAY(SELECT a.attname::text FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
                       WHERE k.conrelid = c.oid AND k.contype = 'p' ORDER BY a.attnum)
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[spi::arg(oid)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<bool>(2)? == Some(true), row.get::<Vec<String>>(3)?.unwrap_or_default())),
    )?;
    let (sql, owned, primary) = facts.into_iter().next().ok_or_else(|| UsherError::internal("a table is gone"))?;
    let indexes = spi::read_all(UNIQUES, &[spi::arg(oid)], |row| {
        let columns: fitted::Unique = row.get::<Vec<String>>(1)?.unwrap_or_default().into_iter().collect();
        Ok((columns, row.get::<bool>(2)? == Some(true), row.get::<bool>(3)? == Some(true)))
    })?;
    let of = |some: &dyn Fn(bool, bool) -> bool| -> Vec<fitted::Unique> {
        indexes.iter().filter(|(_, one_null, partial)| some(*one_null, *partial)).map(|(columns, ..)| columns.clone()).collect()
    };
    let fitted = Fitted {
        name: key.to_owned(),
        table: bound.table.clone(),
        sql,
        oid: oid.to_u32(),
        owned,
        theirs,
        columns,
        uniques: of(&|_, partial| !partial),
        one_null: of(&|one_null, partial| one_null && !partial),
        partial: of(&|_, partial| partial),
        key: primary,
        fill: bound.fill.clone(),
        restrictive: spi::read_all(RESTRICTIVE, &[spi::arg(oid)], |row| Ok(row.get::<String>(1)?.unwrap_or_default()))?,
    };
    words(&fitted, bound)?;
    Ok(Some(fitted))
}

/// Words that an enum does not have, and words of it that would be taken for another.
fn words(fitted: &Fitted, bound: &Bound) -> Result<()> {
    for (column, words) in &bound.words {
        let Some(labels) = fitted.column(column).and_then(|name| fitted.theirs(name)).and_then(|theirs| theirs.labels.as_ref())
        else {
            continue;
        };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        for (ours, list) in words {
            if let Some(unknown) = list.iter().find(|word| !labels.contains(&word.as_str())) {
                let near = did_you_mean(unknown, &labels);
                let hint = if near.is_empty() { format!("It has: {}.", labels.join(", ")) } else { near.trim_end().to_owned() };
                return refuse(
                    &[&fitted.name, "values", column, ours],
                    format!("{}.{} has no word \"{unknown}\"", fitted.table, fitted.column(column).unwrap_or_default()),
                    hint,
                );
            }
        }
        if let Some(word) = fitted.mistaken(column).first() {
            return refuse(
                &[&fitted.name, "values", column],
                format!("{} has a word \"{word}\" of its own, which would be taken for the pack's", fitted.table),
                format!(
                    "Say what it stands for, beside what is written: \"values\": {{{column:?}: {{\"won\": [\"closed_won\", {word:?}]}}}}."
                ),
            );
        }
    }
    Ok(())
}

/// Every bound table by the pack's name of it.
pub fn all(bind: &Bind, model: &Model) -> Result<BTreeMap<String, Fitted>> {
    let mut found = BTreeMap::new();
    for key in bind.tables.keys() {
        if let Some(fitted) = table(key, bind, model)? {
            found.insert(key.clone(), fitted);
        }
    }
    Ok(found)
}
