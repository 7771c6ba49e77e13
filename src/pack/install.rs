//! Installing and removing a pack.

use super::adopt::model::Model;
use super::adopt::parse::Bind;
use super::adopt::plan::{self, Plan};
use super::adopt::rewrite::{self, Fits};
use super::adopt::rights::Earlier;
use super::adopt::script::{self, Clashes};
use super::adopt::store::{self, Given, Stored};
use super::adopt::{apply, fit, rights};
use super::workflow::Parts;
use super::{PACKS, Pack, protect, rules, workflow};
use crate::capture;
use crate::conflict;
use crate::error::{Result, UsherError};
use crate::flow::manage;
use crate::guard::audit;
use crate::pg::guc::Nest;
use crate::pg::{event, role, spi, subxact};
use crate::registry::identity;
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
    let_read(installed, "usher.ticket_revenue_ingestions", "pack_reads", role)?;
    match binding::holder(installed)? {
        Some(holder) if holder.as_deref() != Some(pack.name) => {
            notice!(
                "ticket revenue stays bound as it is; SELECT usher.unbind_ticket_revenue(); and install the pack again to let it book"
            );
            Ok(())
        }
        _ => {
            let book_batch = revenue["book_batch"].as_str();
            let given = binding::Given { resolve, book, book_batch, run_as: Some(role), pack: Some(pack.name) };
            binding::bind(installed, &given).map(|_| ())
        }
    }
}

/// Lets the pack's role see all rows of a table of the engine: a policy, which is made anew where it is another one.
fn let_read(installed: Installed, table: &str, policy: &str, role: &str) -> Result<()> {
    let _acting = role::internal(installed.owner);
    let _quiet = Nest::open().quiet();
    let stands = spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_roles r ON p.polroles = ARRAY[r.oid]
                         WHERE p.polrelid = $1::pg_catalog.regclass AND p.polname = $2 AND r.rolname = $3
                           AND p.polcmd = 'r' AND p.polpermissive AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true')",
        &[spi::arg(table), spi::arg(policy), spi::arg(role)],
    )?;
    if stands == Some(true) {
        return Ok(());
    }
    let (policy, role) = (quote_identifier(policy), quote_identifier(role));
    spi::script(&format!(
        "DROP POLICY IF EXISTS {policy} ON {table}; CREATE POLICY {policy} ON {table} FOR SELECT TO {role} USING (true)"
    ))
}

/// The policy by which the pack's role knows of each organization in which zone its days begin.
fn zones(pack: &Pack) -> String {
    format!("{}_reads", pack.name)
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

/// What an installation has done, for its message and the log.
#[derive(Default)]
struct Done {
    made: usize,
    changed: usize,
    rules_made: usize,
    rules_changed: usize,
    /// Workflows that cannot run, each with why.
    left_out: Vec<(String, String)>,
}

/// The flows and rules of a workflow, for the tables that there are.
fn create_parts(installed: Installed, pack: &Pack, parts: Parts, role: &str, fits: &Fits) -> Result<Done> {
    let mut done = Done::default();
    for (name, definition) in parts.flows {
        let mut definition = rewrite::flow(&definition, fits);
        definition["run_as"] = Value::String(role.to_owned());
        let existing = {
            let _acting = role::internal(installed.owner);
            let found = spi::read_all(
                "SELECT f.definition, f.state = 'broken' OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = f.run_as::pg_catalog.oid)
                   FROM usher.flows AS f WHERE f.name = $1",
                &[spi::arg(name.as_str())],
                |row| Ok((row.get::<JsonB>(1)?.map(|json| json.0).unwrap_or_default(), row.get::<bool>(2)? == Some(true))),
            )?;
            found.into_iter().next()
        };
        match existing {
            None => {
                manage::create(installed, &name, Some(pack.name), definition)?;
                done.made += 1;
            }
            Some((existing, _)) if existing != definition => {
                manage::alter(installed, &name, definition)?;
                done.changed += 1;
            }
            // Its role may be another of the same name. What does not fit yet stays as it is, and says why.
            Some((_, true)) => {
                let mended = subxact::attempt(|| manage::alter(installed, &name, definition));
                done.changed += usize::from(mended.is_ok());
            }
            Some((_, false)) => {}
        }
    }
    for (name, definition) in parts.overlap_rules {
        let definition = rewrite::rule(&definition, fits);
        match conflict::rule_definition(installed, &name)? {
            None => {
                conflict::create_rule(installed, &name, definition)?;
                done.rules_made += 1;
            }
            Some(existing) if existing != definition => {
                conflict::alter_rule(installed, &name, definition)?;
                done.rules_changed += 1;
            }
            Some(_) => {}
        }
    }
    Ok(done)
}

/// Flows and rules of a workflow that cannot run any more.
fn drop_parts(installed: Installed, pack: &Pack, parts: &Parts) -> Result<()> {
    for name in parts.flows.keys() {
        let there = {
            let _acting = role::internal(installed.owner);
            spi::read::<bool>(
                "SELECT true FROM usher.flows WHERE name = $1 AND pack = $2",
                &[spi::arg(name.as_str()), spi::arg(pack.name)],
            )?
        };
        if there.is_some() {
            manage::drop(installed, name)?;
        }
    }
    for name in parts.overlap_rules.keys() {
        if conflict::rule_definition(installed, name)?.is_some() {
            conflict::drop_rule(installed, name)?;
        }
    }
    Ok(())
}

fn parts_of(installed: Installed, pack: &Pack, role: &str, adopted: &Adopted) -> Result<Done> {
    let mut done = Done::default();
    for parts in workflow::all(pack)? {
        let line = adopted.plan.lines.iter().find(|line| line.workflow == parts.workflow);
        let lacks = line.map(|line| line.lacks.iter().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let workflow = parts.workflow.clone();
        if !lacks.is_empty() {
            drop_parts(installed, pack, &parts)?;
            done.left_out.push((workflow, lacks.join("; ")));
            continue;
        }
        let made = if adopted.fits.is_empty() {
            create_parts(installed, pack, parts, role, &adopted.fits)?
        } else {
            // What only the compiler finds, such as a type of the application that nothing can be assigned to.
            let names = parts.clone();
            match subxact::attempt(|| create_parts(installed, pack, parts, role, &adopted.fits)) {
                Ok(made) => made,
                Err(failure) => {
                    drop_parts(installed, pack, &names)?;
                    done.left_out.push((workflow, failure.message));
                    continue;
                }
            }
        };
        done.made += made.made;
        done.changed += made.changed;
        done.rules_made += made.rules_made;
        done.rules_changed += made.rules_changed;
    }
    Ok(done)
}

/// The pack at the tables that `bind` names, and what can run there. Nothing is changed.
pub struct Adopted {
    pub model: Model,
    pub bind: Bind,
    pub fits: Fits,
    pub plan: Plan,
    json: Value,
    stored: Option<Stored>,
}

/// How many jobs wait for flows that would be taken away.
fn waiting(installed: Installed, pack: &Pack, parts: &Parts) -> Result<Option<i64>> {
    if !installed.up_to_date {
        return Ok(None);
    }
    let _acting = role::internal(installed.owner);
    let names: Vec<String> = parts.flows.keys().flat_map(|name| [name.clone(), format!("{name}:back")]).collect();
    let flows = spi::read_all(
        "SELECT f.id FROM usher.flows AS f WHERE f.pack = $1 AND f.name = ANY ($2)",
        &[spi::arg(pack.name), spi::arg(names)],
        |row| Ok(row.get::<i32>(1)?.unwrap_or_default()),
    )?;
    if flows.is_empty() {
        return Ok(None);
    }
    let jobs = spi::read::<i64>(
        "SELECT (SELECT pg_catalog.count(*) FROM usher.ready_jobs AS r WHERE r.flow_id = ANY ($1))
              + (SELECT pg_catalog.count(*) FROM usher.queue_waiting AS w WHERE w.flow_id = ANY ($1))",
        &[spi::arg(flows)],
    )?;
    Ok(jobs.filter(|jobs| *jobs > 0))
}

pub fn look(installed: Installed, name: &str, bind: Option<Value>) -> Result<Adopted> {
    let pack = find(name)?;
    let manifest = parsed(pack.manifest, "pack.json")?;
    let stored = store::get(installed, pack.name)?;
    let json = bind.or_else(|| stored.as_ref().map(|stored| stored.bind.clone())).unwrap_or_else(|| json!({}));
    let _nest = Nest::pinned_path();
    let model = Model::read(super::scripts_of(pack));
    let bind = Bind::parse(&json, &model)?;
    let fits = fit::all(&bind, &model)?;
    let all = workflow::all(pack)?;
    let mut plan = plan::plan(&all, &manifest, &model, &bind, &fits);
    for (line, parts) in plan.lines.iter_mut().zip(&all).filter(|(line, _)| !line.runs()) {
        line.notes.extend(
            waiting(installed, pack, parts)?.map(|jobs| format!("{jobs} jobs of its flows wait, and would be cancelled")),
        );
    }
    Ok(Adopted { model, bind, fits, plan, json, stored })
}

/// A column of a pack: table, name, type, words, workflows that use it.
type Described = (String, String, String, Option<Vec<String>>, Vec<String>);

pub fn columns(name: &str) -> Result<Vec<Described>> {
    let pack = find(name)?;
    let manifest = parsed(pack.manifest, "pack.json")?;
    let model = Model::read(super::scripts_of(pack));
    let plan = plan::plan(&workflow::all(pack)?, &manifest, &model, &Bind::default(), &Fits::new());
    let used: Vec<_> = plan.lines.iter().map(|line| (line.workflow.as_str(), line.needs.columns())).collect();
    let mut found = Vec::new();
    for (table, described) in &model.tables {
        for column in &described.columns {
            let name = (table.clone(), column.name.clone());
            let users = used.iter().filter(|(_, columns)| columns.contains(&name)).map(|(workflow, _)| (*workflow).to_owned());
            let words = Some(column.words.clone()).filter(|words| !words.is_empty());
            found.push((table.clone(), column.name.clone(), column.type_sql.clone(), words, users.collect()));
        }
    }
    Ok(found)
}

/// Runs the pack's scripts, with views in the place of the tables that are bound, and gives its role what it needs.
fn build(installed: Installed, pack: &Pack, manifest: &Value, role: &str, adopted: &Adopted, earlier: &Earlier) -> Result<Given> {
    let Adopted { model, bind, fits, plan, .. } = adopted;
    let takes = |table: &str| bind.takes(table);
    let declaration = Declaration::parse(&manifest["tenancy"])?;
    refuse_foreign(pack, &declaration)?;
    let declaration = declaration.without(&takes);
    let bound = |table: &str| fits.contains_key(table);
    let by_function = |table: &str| {
        fits.get(table).zip(plan.writes.get(table)).is_some_and(|(fitted, writes)| writes.insert_by_function(fitted))
    };
    let without = model.functions_about(&|table| bind.is_absent(table));
    let clashes =
        Clashes { model, bound: &bound, by_function: &by_function, without: &without, absent: &|table| bind.is_absent(table) };
    let given = {
        let _nest = Nest::pinned_path().quiet();
        // Each statement would have every flow that stands on its object compiled again.
        let _ours = event::ours();
        if let Some(stored) = &adopted.stored {
            // Of the role that had it so far, which may be another one.
            rights::revoke(pack.name, stored, &store::earlier(installed, pack.name, &stored.run_as, Some(stored))?)?;
        }
        apply::clear(pack.name, model, bind)?;
        apply::drop_functions(pack.name, &without)?;
        for (number, script) in super::scripts_of(pack).enumerate() {
            spi::script(&script::left(script, &takes, &clashes))?;
            // The first one makes the schemas.
            if number == 0 {
                apply::make_views(pack.name, model, fits, plan)?;
            }
        }
        apply::restore_keys(model, bind)?;
        grant(&schemas(manifest), role, &declaration)?;
        rights::grant(installed, pack.name, role, fits, plan, earlier)?
    };
    if bind.tables.is_empty() {
        store::forget(installed, pack.name)?;
        return Ok(given);
    }
    let stored = Stored { bind: adopted.json.clone(), run_as: role.to_owned(), given };
    store::put(installed, pack.name, &stored, &identity::actor())?;
    Ok(stored.given)
}

pub fn install(installed: Installed, name: &str, run_as: Option<&str>, bind: Option<Value>) -> Result<String> {
    let pack = find(name)?;
    let manifest = parsed(pack.manifest, "pack.json")?;
    let adopted = look(installed, name, bind)?;
    apply::require_owned(&adopted.fits)?;
    let known = adopted.stored.as_ref().map(|stored| stored.run_as.clone()).filter(|role| role::by_name(role).is_some());
    let role = role_for(pack, run_as.or(known.as_deref()))?;
    let earlier = store::earlier(installed, pack.name, &role, adopted.stored.as_ref())?;
    let given = build(installed, pack, &manifest, &role, &adopted, &earlier)?;
    let_read(installed, "usher.organizations", &zones(pack), &role)?;
    if let Some(systems) = manifest["systems"].as_object() {
        let _acting = role::internal(installed.owner);
        for (system, kind) in systems {
            spi::run(
                "INSERT INTO usher.systems (name, kind) VALUES ($1, $2) ON CONFLICT ON CONSTRAINT systems_pkey DO NOTHING",
                &[spi::arg(system.as_str()), spi::arg(kind.as_str())],
            )?;
        }
    }
    protect::bring_in_line(installed, pack.name, &manifest, &|table| adopted.bind.takes(table))?;
    if adopted.plan.books() {
        bind_revenue(installed, pack, &manifest, &role)?;
    } else {
        unbind_revenue(installed, pack, &manifest)?;
    }
    let done = {
        let _ours = event::ours();
        parts_of(installed, pack, &role, &adopted)?
    };
    let ruled = {
        let _ours = event::ours();
        rules::bring_in_line(installed, pack, &manifest, &role, &adopted.bind)?
    };
    // Flows of others that stand on something of the pack.
    capture::look_over(&schemas(&manifest));
    {
        let _nest = Nest::pinned_path().quiet();
        rights::end_listening(installed, &earlier, &given)?;
    }
    let version = manifest["version"].as_str().unwrap_or_default();
    let mut what = json!({"version": version, "run_as": role, "flows_made": done.made, "flows_changed": done.changed,
                          "rules_made": done.rules_made + ruled.made, "rules_changed": done.rules_changed + ruled.changed});
    if !adopted.bind.tables.is_empty() {
        what["bind"] = adopted.json.clone();
        what["left_out"] = done.left_out.iter().map(|(workflow, _)| workflow.as_str()).collect();
    }
    audit::note(installed, None, "usher.packs.installed", pack.name, None, Some(what))?;
    let mut said = format!("pack {} {version}: {} flows made, {} changed, running as {role}", pack.name, done.made, done.changed);
    if !adopted.bind.tables.is_empty() {
        let out: Vec<String> = done.left_out.iter().map(|(workflow, why)| format!("{workflow} ({why})")).collect();
        let runs = adopted.plan.lines.len() - out.len();
        said += &format!("; {runs} workflows run at {} tables of the application", adopted.fits.len());
        if !out.is_empty() {
            said += &format!(", left out: {}", out.join(", "));
        }
    }
    if !ruled.left_out.is_empty() {
        let out: Vec<String> = ruled.left_out.iter().map(|(rule, why)| format!("{rule} ({why})")).collect();
        said += &format!("; rules left out: {}", out.join(", "));
    }
    Ok(said)
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
    rules::remove(installed, pack)?;
    let stored = store::get(installed, pack.name)?;
    if let Some(stored) = &stored {
        let _nest = Nest::pinned_path().quiet();
        let _ours = event::ours();
        let earlier = store::earlier(installed, pack.name, &stored.run_as, Some(stored))?;
        rights::revoke(pack.name, stored, &earlier)?;
        rights::end_listening(installed, &earlier, &Given::default())?;
        apply::clear(pack.name, &Model::read(super::scripts_of(pack)), &Bind::default())?;
        store::forget(installed, pack.name)?;
    }
    let _acting = role::internal(installed.owner);
    {
        let _quiet = Nest::open().quiet();
        spi::script(&format!("DROP POLICY IF EXISTS {} ON usher.organizations", quote_identifier(zones(pack))))?;
    }
    audit::note(installed, None, "usher.packs.removed", pack.name, Some(json!({"flows": gone})), None)?;
    let list = schemas(&manifest).iter().map(quote_literal).collect::<Vec<_>>().join(", ");
    let application =
        if stored.is_some() { "; what it was given at the application's tables is taken back, their rows stay" } else { "" };
    Ok(format!("pack {}: {gone} flows removed; its tables in schemas {list} and their rows stay{application}", pack.name))
}
