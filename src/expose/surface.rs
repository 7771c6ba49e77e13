//! Making, renewing and taking back the objects of a schema.

use super::{Kind, MARK, OBJECTS, Object};
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::{role, spi, subxact};
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

/// An object as it stands in the catalog.
struct Standing {
    oid: Oid,
    /// As people read it: `table public.audit_log`.
    shown: String,
    ours: bool,
}

/// Whatever has the object's name in the schema: relations and types for a view, functions with any arguments for a function.
fn standing(schema: &str, object: &Object) -> Result<Vec<Standing>> {
    let sql = match object.kind {
        Kind::View => {
            "SELECT c.oid, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                                          WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' ELSE 'index' END
                           || pg_catalog.format(' %I.%I', n.nspname, c.relname),
                    c.relkind = 'v' AND pg_catalog.starts_with(COALESCE(pg_catalog.obj_description(c.oid, 'pg_class'), ''), $3)
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
             UNION ALL
             SELECT t.oid, pg_catalog.format('type %I.%I', n.nspname, t.typname), false
               FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
              WHERE n.nspname = $1 AND t.typname = $2 AND t.typrelid = 0"
        }
        Kind::Function => {
            "SELECT p.oid, 'function ' || p.oid::pg_catalog.regprocedure::text,
                    pg_catalog.starts_with(COALESCE(pg_catalog.obj_description(p.oid, 'pg_proc'), ''), $3)
               FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = $2"
        }
    };
    spi::all(sql, &[spi::arg(schema), spi::arg(object.name), spi::arg(MARK)], |row| {
        Ok(Standing {
            oid: row.get::<Oid>(1)?.unwrap_or(Oid::INVALID),
            shown: row.get::<String>(2)?.unwrap_or_default(),
            ours: row.get::<bool>(3)?.unwrap_or(false),
        })
    })
}

/// The definition that was recorded for an object of a schema.
fn recorded(schema: &str, object: &Object) -> Result<Option<i64>> {
    spi::one::<i64>(
        "SELECT definition FROM usher.exposed_objects WHERE schema_name = $1 AND kind = $2 AND name = $3",
        &[spi::arg(schema), spi::arg(object.kind.word()), spi::arg(object.name)],
    )
}

fn hash(sql: &str) -> Result<i64> {
    Ok(spi::read::<i64>("SELECT pg_catalog.hashtextextended($1, 0)", &[spi::arg(sql)])?.unwrap_or(0))
}

/// Objects of somebody else under our names.
fn clashes(schema: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for object in OBJECTS {
        let known = recorded(schema, object)?.is_some();
        found.extend(standing(schema, object)?.into_iter().filter(|one| !(one.ours && known)).map(|one| one.shown));
    }
    Ok(found)
}

/// What default privileges have given away with the object is taken back: the object's own script says who may do what.
fn take_back(schema: &str, object: &Object) -> Result<()> {
    let sql = match object.kind {
        Kind::View => {
            "SELECT DISTINCT a.grantee FROM pg_catalog.pg_class o CROSS JOIN LATERAL pg_catalog.aclexplode(o.relacl) AS a WHERE o.oid = $1 AND a.grantee <> o.relowner"
        }
        Kind::Function => {
            "SELECT DISTINCT a.grantee FROM pg_catalog.pg_proc o
              CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(o.proacl, pg_catalog.acldefault('f', o.proowner))) AS a
              WHERE o.oid = $1 AND a.grantee <> o.proowner"
        }
    };
    for one in standing(schema, object)? {
        let grantees = spi::all(sql, &[spi::arg(one.oid)], |row| Ok(row.get::<Oid>(1)?.unwrap_or(Oid::INVALID)))?;
        for grantee in grantees {
            let name = match grantee {
                Oid::INVALID => "PUBLIC".to_owned(),
                role => quote_identifier(role::name_of(role).unwrap_or_default()),
            };
            // A function is named with its arguments, a view without a word in front.
            let what = match object.kind {
                Kind::View => quote_qualified_identifier(schema, object.name),
                Kind::Function => one.shown.clone(),
            };
            spi::script(&format!("REVOKE ALL ON {what} FROM {name}"))?;
        }
    }
    Ok(())
}

/// Makes what is missing and renews what differs. Returns how many objects changed.
fn bring_up(schema: &str, by: &str) -> Result<usize> {
    let mut changed = 0;
    for object in OBJECTS {
        let sql = object.sql(schema);
        let definition = hash(&sql)?;
        let there = !standing(schema, object)?.is_empty();
        if there && recorded(schema, object)? == Some(definition) {
            continue;
        }
        if there {
            spi::script(&sql)?;
        } else {
            // Twice: the first makes it, the second grants after everything else was taken away.
            spi::script(&sql)?;
            take_back(schema, object)?;
            spi::script(&sql)?;
        }
        spi::run(
            "INSERT INTO usher.exposed_objects (schema_name, name, kind, definition, exposed_by) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT ON CONSTRAINT exposed_objects_pkey DO UPDATE SET definition = EXCLUDED.definition",
            &[spi::arg(schema), spi::arg(object.name), spi::arg(object.kind.word()), spi::arg(definition), spi::arg(by)],
        )?;
        changed += 1;
    }
    Ok(changed)
}

/// Tells PostgREST, if one listens.
fn announce() -> Result<()> {
    spi::run("SELECT pg_catalog.pg_notify('pgrst', 'reload schema')", &[])?;
    Ok(())
}

fn may_create(who: Oid, schema: &str) -> Result<bool> {
    Ok(spi::read::<bool>(
        "SELECT pg_catalog.has_schema_privilege($1, n.oid, 'CREATE') FROM pg_catalog.pg_namespace n WHERE n.nspname = $2",
        &[spi::arg(who), spi::arg(schema)],
    )?
    .unwrap_or(false))
}

fn check_schema(schema: &str) -> Result<()> {
    if schema == "usher" || schema == "information_schema" || schema.starts_with("pg_") {
        return Err(UsherError::invalid(format!("schema \"{schema}\" is not one for clients"))
            .hint("Use public, or make one: CREATE SCHEMA usher_api;"));
    }
    // The name stands inside the bodies of functions, between dollar quotes.
    if schema.contains('$') {
        return Err(UsherError::invalid(format!("schema \"{schema}\" has a dollar sign in its name"))
            .hint("Use another schema: CREATE SCHEMA usher_api;"));
    }
    let there = spi::read::<bool>("SELECT true FROM pg_catalog.pg_namespace WHERE nspname = $1", &[spi::arg(schema)])?;
    there.map(|_| ()).ok_or_else(|| {
        UsherError::new(PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME, format!("schema \"{schema}\" does not exist"))
            .hint(format!("CREATE SCHEMA {}; and name it in PostgREST's db-schemas.", quote_identifier(schema)))
    })
}

/// Makes the surface in a schema, all of it or nothing. Returns how many objects changed.
pub fn expose(installed: Installed, schema: &str, caller: Oid, by: &str) -> Result<usize> {
    let _nest = Nest::pinned_path().quiet();
    check_schema(schema)?;
    for who in [caller, installed.owner] {
        if !may_create(who, schema)? {
            let name = role::name_of(who).unwrap_or_default();
            return Err(UsherError::forbidden(format!("role \"{name}\" may not create objects in schema \"{schema}\""))
                .detail(
                    "Whoever calls this needs that right, and so does the owner of pg_usher's tables, who will own the objects.",
                )
                .hint(format!("GRANT CREATE ON SCHEMA {} TO {};", quote_identifier(schema), quote_identifier(&name))));
        }
    }
    let _acting = role::internal(installed.owner);
    let found = clashes(schema)?;
    if !found.is_empty() {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("schema \"{schema}\" has objects of these names already; nothing was created"),
        )
        .detail(format!("There are: {}.", found.join(", ")))
        .hint("Use a schema of its own: CREATE SCHEMA usher_api; SELECT usher.expose_api('usher_api'); and name it in PostgREST's db-schemas. Or rename what is there."));
    }
    let changed = bring_up(schema, by)?;
    let usable = spi::read::<bool>(
        "SELECT pg_catalog.has_schema_privilege('usher_member', $1, 'USAGE') AND pg_catalog.has_schema_privilege('usher_reader', $1, 'USAGE')",
        &[spi::arg(schema)],
    )?;
    if usable != Some(true) {
        let grant = format!("GRANT USAGE ON SCHEMA {} TO usher_member, usher_reader", quote_identifier(schema));
        let may_grant = spi::read::<bool>(
            "SELECT pg_catalog.has_schema_privilege($1, $2, 'USAGE WITH GRANT OPTION')",
            &[spi::arg(installed.owner), spi::arg(schema)],
        )?;
        if may_grant == Some(true) {
            spi::script(&grant)?;
        } else {
            warning!("clients cannot reach schema \"{schema}\" yet; its owner can change that: {grant};");
        }
    }
    if changed > 0 {
        announce()?;
    }
    Ok(changed)
}

/// Takes back what was recorded for a schema; returns how many objects went. None means that nothing was recorded.
pub fn hide(installed: Installed, schema: &str) -> Result<Option<i32>> {
    let _acting = role::internal(installed.owner);
    let gone = spi::one::<i32>("SELECT usher.drop_api($1)", &[spi::arg(schema)])?.unwrap_or(0);
    let known = spi::run("DELETE FROM usher.exposed_objects WHERE schema_name = $1", &[spi::arg(schema)])?;
    announce()?;
    Ok((known > 0).then_some(gone))
}

/// Brings every recorded schema to this version. A schema that cannot be brought up is reported and left as it is.
pub fn renew(installed: Installed) -> Result<usize> {
    let _nest = Nest::pinned_path().quiet();
    let _acting = role::internal(installed.owner);
    spi::run(
        "DELETE FROM usher.exposed_objects e WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = e.schema_name)",
        &[],
    )?;
    let schemas =
        spi::all("SELECT schema_name, pg_catalog.min(exposed_by) FROM usher.exposed_objects GROUP BY schema_name", &[], |row| {
            Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default()))
        })?;
    let mut changed = 0;
    for (schema, by) in schemas {
        let outcome = subxact::attempt(|| {
            let found = clashes(&schema)?;
            if !found.is_empty() {
                return Err(UsherError::state("others have taken the names meanwhile").detail(found.join(", ")));
            }
            bring_up(&schema, &by)
        })
        .or_else(|_| {
            // A view whose columns have changed can only be made anew, and with it the functions that return its rows.
            subxact::attempt(|| {
                spi::run("SELECT usher.drop_api($1)", &[spi::arg(schema.as_str())])?;
                let found = clashes(&schema)?;
                if !found.is_empty() {
                    return Err(UsherError::state("others have taken the names meanwhile").detail(found.join(", ")));
                }
                bring_up(&schema, &by)
            })
        });
        match outcome {
            Ok(count) => changed += count,
            Err(failure) => warning!(
                "the views and functions in schema \"{schema}\" stay as they are: {}; SELECT usher.expose_api('{schema}') tries again",
                failure.line()
            ),
        }
    }
    if changed > 0 {
        announce()?;
    }
    Ok(changed)
}
