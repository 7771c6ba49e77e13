//! Installing and removing a pack.

use super::{PACKS, Pack, protect, workflow};
use crate::conflict;
use crate::error::{Result, UsherError};
use crate::flow::manage;
use crate::guard::audit;
use crate::pg::guc::Nest;
use crate::pg::{role, spi};
use crate::registry::tables::split;
use crate::registry::tenancy::{self, Declaration, Place};
use crate::revenue::binding;
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::{Value, json};

pub fn find(name: &str) -> Result<&'static Pack> {
    let names: Vec<&str> = PACKS.iter().map(|pack| pack.name).collect();
    PACKS.iter().find(|pack| pack.name == name).ok_or_else(|| {
        let near = crate::error::did_you_mean(name, &names);
        UsherError::not_found(format!("there is no pack \"{name}\""))
            .hint(format!("{near}This version carries: {}.", names.join(", ")))
    })
}

fn parsed(text: &str, what: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| UsherError::internal(format!("{what} of a pack is not valid JSON: {e}")))
}

/// The role that the pack's flows run as: the one named, else one of its own that can do nothing else.
fn role_for(pack: &Pack, run_as: Option<&str>) -> Result<String> {
    let name = run_as.map_or_else(|| format!("usher_{}", pack.name), str::to_owned);
    match role::by_name(&name) {
        Some(found) if role::is_superuser(found) => {
            Err(UsherError::forbidden(format!("a pack's flows may not run as superuser \"{name}\""))
                .hint("Name a role without superuser rights in run_as, or leave it out."))
        }
        Some(_) => Ok(name),
        None if run_as.is_some() => Err(UsherError::not_found(format!("role \"{name}\" in run_as does not exist"))
            .hint("Create it first, or leave run_as out.")),
        None => {
            spi::script(&format!("CREATE ROLE {} NOLOGIN", quote_identifier(&name)))?;
            Ok(name)
        }
    }
}

/// The scripts of a pack in the order in which they run.
fn scripts(pack: &Pack) -> impl Iterator<Item = &'static str> {
    pack.schema.iter().copied().chain(pack.workflows.iter().filter_map(|workflow| workflow.functions)).chain([pack.last])
}

/// A table of the same name that somebody else made is refused: CREATE TABLE IF NOT EXISTS would adopt it silently, and row level security
/// would close it to its owner's application. A pack's own tables say so in their comments.
fn refuse_foreign(pack: &Pack, declaration: &Declaration) -> Result<()> {
    let tables: Vec<&str> = declaration.tables().collect();
    let foreign = spi::one::<String>(
        "SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname)
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname || '.' || c.relname = ANY ($1) AND COALESCE(pg_catalog.obj_description(c.oid, 'pg_class'), '') NOT LIKE $2",
        &[spi::arg(tables), spi::arg(format!("Pack {}:%", pack.name.replace('_', "\\_")))],
    )?;
    match foreign {
        None => Ok(()),
        Some(foreign) => Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
            format!("the pack {} did not make {foreign}", pack.name),
        )
        .hint("Rename these tables or move them to another schema, then install the pack again.")),
    }
}

/// What the pack's role and the organizations' people need on its schemas; then the policies, which say which rows and writes
/// are theirs, as the manifest declares them.
fn grant(schemas: &[&str], role: &str, declaration: &Declaration) -> Result<()> {
    let name = quote_identifier(role);
    spi::script(&format!("GRANT usher_member TO {name}"))?;
    for schema in schemas {
        let schema = quote_identifier(schema);
        spi::script(&format!(
            "GRANT USAGE ON SCHEMA {schema} TO {name}, usher_member, usher_reader;
             GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {name};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {name}"
        ))?;
    }
    // The pack's own tables: what the application has put beside them is not for every member.
    let tables: Vec<String> = declaration
        .tables()
        .filter_map(split)
        .map(|(schema, table)| pgrx::spi::quote_qualified_identifier(schema, table))
        .collect();
    let tables = tables.join(", ");
    if tables.is_empty() {
        return Err(UsherError::internal("a pack's manifest declares nobody's rights on its tables"));
    }
    spi::script(&format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {name}, usher_member;
         GRANT SELECT ON {tables} TO usher_reader"
    ))?;
    tenancy::bring_in_line(schemas, declaration, Place::Pack { flows: role })?;
    // Version 0.1 let members read and write every table of the schemas.
    let open = spi::all(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND pg_catalog.has_table_privilege('usher_member', c.oid, 'SELECT')
          ORDER BY 1",
        &[spi::arg(schemas.to_vec())],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    for table in open {
        warning!(
            "every member of every organization may read {table}, which is not the pack's; REVOKE ALL ON {table} FROM usher_member, usher_reader; ends that"
        );
    }
    Ok(())
}

fn schemas(manifest: &Value) -> Vec<&str> {
    manifest["schemas"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Binds the pack's functions for ticket revenue, if it has some and nobody has bound others. The pack's role reads what
/// was taken in.
fn bind_revenue(installed: Installed, pack: &Pack, manifest: &Value, role: &str) -> Result<()> {
    let revenue = &manifest["revenue"];
    let (Some(resolve), Some(book)) = (revenue["resolve"].as_str(), revenue["book"].as_str()) else { return Ok(()) };
    {
        let _acting = role::internal(installed.owner);
        let _quiet = Nest::open().quiet();
        let stands = spi::one::<bool>(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_roles r ON p.polroles = ARRAY[r.oid]
                             WHERE p.polrelid = 'usher.ticket_revenue_ingestions'::pg_catalog.regclass AND p.polname = 'pack_reads' AND r.rolname = $1
                               AND p.polcmd = 'r' AND p.polpermissive AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true')",
            &[spi::arg(role)],
        )?;
        if stands != Some(true) {
            let name = quote_identifier(role);
            spi::script(&format!(
                "DROP POLICY IF EXISTS pack_reads ON usher.ticket_revenue_ingestions;
                 CREATE POLICY pack_reads ON usher.ticket_revenue_ingestions FOR SELECT TO {name} USING (true)"
            ))?;
        }
    }
    match binding::holder(installed)? {
        Some(holder) if holder.as_deref() != Some(pack.name) => {
            notice!(
                "ticket revenue stays bound as it is; SELECT usher.unbind_ticket_revenue(); and install the pack again to let it book"
            );
            Ok(())
        }
        _ => binding::bind(installed, resolve, book, Some(role), Some(pack.name)).map(|_| ()),
    }
}

fn unbind_revenue(installed: Installed, pack: &Pack, manifest: &Value) -> Result<()> {
    if manifest["revenue"].is_null() || !installed.up_to_date {
        return Ok(());
    }
    binding::unbind(installed, Some(pack.name))?;
    let _acting = role::internal(installed.owner);
    let _quiet = Nest::open().quiet();
    spi::script("DROP POLICY IF EXISTS pack_reads ON usher.ticket_revenue_ingestions")
}

pub fn install(installed: Installed, name: &str, run_as: Option<&str>) -> Result<String> {
    let pack = find(name)?;
    let manifest = parsed(pack.manifest, "pack.json")?;
    let role = role_for(pack, run_as)?;
    let declaration = Declaration::parse(&manifest["tenancy"])?;
    refuse_foreign(pack, &declaration)?;
    {
        let _nest = Nest::pinned_path().quiet();
        for script in scripts(pack) {
            spi::script(script)?;
        }
        grant(&schemas(&manifest), &role, &declaration)?;
    }
    if let Some(systems) = manifest["systems"].as_object() {
        let _acting = role::internal(installed.owner);
        for (system, kind) in systems {
            spi::run(
                "INSERT INTO usher.systems (name, kind) VALUES ($1, $2) ON CONFLICT ON CONSTRAINT systems_pkey DO NOTHING",
                &[spi::arg(system.as_str()), spi::arg(kind.as_str())],
            )?;
        }
    }
    protect::bring_in_line(installed, pack.name, &manifest)?;
    bind_revenue(installed, pack, &manifest, &role)?;
    let (mut made, mut changed) = (0, 0);
    let (mut rules_made, mut rules_changed) = (0, 0);
    for parts in workflow::all(pack)? {
        for (name, mut definition) in parts.flows {
            definition["run_as"] = Value::String(role.clone());
            let existing = {
                let _acting = role::internal(installed.owner);
                spi::read::<JsonB>("SELECT definition FROM usher.flows WHERE name = $1", &[spi::arg(name.as_str())])?
            };
            match existing {
                None => {
                    manage::create(installed, &name, Some(pack.name), definition)?;
                    made += 1;
                }
                Some(existing) if existing.0 != definition => {
                    manage::alter(installed, &name, definition)?;
                    changed += 1;
                }
                Some(_) => {}
            }
        }
        for (name, definition) in parts.overlap_rules {
            match conflict::rule_definition(installed, &name)? {
                None => {
                    conflict::create_rule(installed, &name, definition)?;
                    rules_made += 1;
                }
                Some(existing) if existing != definition => {
                    conflict::alter_rule(installed, &name, definition)?;
                    rules_changed += 1;
                }
                Some(_) => {}
            }
        }
    }
    let version = manifest["version"].as_str().unwrap_or_default();
    let what = json!({"version": version, "run_as": role, "flows_made": made, "flows_changed": changed, "rules_made": rules_made,
                      "rules_changed": rules_changed});
    audit::note(installed, None, "usher.packs.installed", pack.name, None, Some(what))?;
    Ok(format!("pack {} {version}: {made} flows made, {changed} changed, running as {role}", pack.name))
}

/// Removes the pack's flows and rules; its tables and their rows stay.
pub fn remove(installed: Installed, name: &str) -> Result<String> {
    let pack = find(name)?;
    let manifest = parsed(pack.manifest, "pack.json")?;
    unbind_revenue(installed, pack, &manifest)?;
    protect::end(installed, pack.name)?;
    let names = {
        let _acting = role::internal(installed.owner);
        spi::read_all(
            "SELECT f.name FROM usher.flows AS f WHERE f.pack = $1 AND pg_catalog.strpos(f.name, ':') = 0 ORDER BY f.id",
            &[spi::arg(pack.name)],
            |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
        )?
    };
    let gone = names.len();
    // As anybody drops them: a workflow that somebody has begun is refused, and nothing is gone.
    for name in names {
        manage::drop(installed, &name)?;
    }
    for name in conflict::rules_of(installed, &format!("{}.", pack.name))? {
        conflict::drop_rule(installed, &name)?;
    }
    let _acting = role::internal(installed.owner);
    audit::note(installed, None, "usher.packs.removed", pack.name, Some(json!({"flows": gone})), None)?;
    let list = schemas(&manifest).iter().map(quote_literal).collect::<Vec<_>>().join(", ");
    Ok(format!("pack {}: {gone} flows removed; its tables in schemas {list} and their rows stay", pack.name))
}
