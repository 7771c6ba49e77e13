//! What clients ask for: plans, applying them, and steering that.

use super::plan::{self, Halves};
use super::store::{self, Migration, New};
use crate::error::{Result, UsherError};
use crate::flow::family::require_whole;
use crate::flow::merge::definition::BACK;
use crate::flow::store::{self as flows, Flow};
use crate::flow::{manage, switches};
use crate::guard::audit;
use crate::pg::{ids, role, xact};
use crate::rates;
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::Uuid;
use serde_json::{Value, json};
use std::rc::Rc;

/// More items than this in one transaction would hold their rows too long.
const LARGEST_SLICE: i32 = 10_000;

fn flow_of(id: (i32, i32), name: &str) -> Result<Rc<Flow>> {
    flows::get(id.0, id.1)?.ok_or_else(|| UsherError::internal(format!("flow {name} has no current version")))
}

/// Both halves of a merge. Errors: 22023 when it is none, 55000 when it is broken.
fn halves(installed: Installed, name: &str) -> Result<Halves> {
    require_whole(name)?;
    let id = manage::id_of(installed, name)?;
    let _acting = role::internal(installed.owner);
    let forward = flow_of(id, name)?;
    if forward.definition.merge().is_none() {
        return Err(UsherError::invalid(format!("flow \"{name}\" keeps no two tables equal"))
            .detail("Two sides are reconciled by the rules of a merge: which rows belong together, and whose values hold.")
            .hint(
                "Name a flow with \"then\": {\"merge\": …}; usher.backfill() has any other one act on the rows that are there.",
            ));
    }
    drop(_acting);
    let part = format!("{name}:{BACK}");
    let id = manage::id_of(installed, &part)?;
    let _acting = role::internal(installed.owner);
    let back = flow_of(id, &part)?;
    for half in [&forward, &back] {
        if let Some(reason) = &half.broken {
            return Err(UsherError::state(format!("flow \"{name}\" is broken: {reason}")).hint(format!(
                "Mend the table, or give the flow a definition that fits: SELECT usher.alter_flow('{name}', …);"
            )));
        }
    }
    Ok(Halves { forward, back })
}

/// For whom somebody acts: an organization that they manage, or all of them, as an operator.
fn whose(function: &str, organization: Option<&str>) -> Result<Option<Uuid>> {
    let Some(named) = organization else {
        identity::require_operator("reconcile all organizations at once")
            .map_err(|error| error.hint("Name an organization that you are an admin of."))?;
        rates::take(function, None)?;
        return Ok(None);
    };
    let organization = identity::organization(named, Right::Manage)?;
    audit::note_legend(function, organization)?;
    rates::take(function, Some(organization))?;
    Ok(Some(organization))
}

/// Makes a plan and returns its id.
pub fn reconcile(name: &str, organization: Option<&str>) -> Result<Uuid> {
    let installed = setup::current()?;
    let organization = whose("reconcile", organization)?;
    let halves = halves(installed, name)?;
    let by = identity::author();
    let id = ids::uuid_v7();
    let counts = {
        let _acting = role::internal(installed.owner);
        if let Some(organization) = organization {
            switches::require_on(halves.forward.id, name, organization)?;
        }
        let counted = plan::make(installed, &halves, organization, id)?;
        store::insert(New {
            id,
            organization,
            flow: halves.forward.id,
            name: name.to_owned(),
            version: halves.forward.version,
            left: counted.left_table,
            right: counted.right_table,
            left_rows: counted.left_rows,
            right_rows: counted.right_rows,
            equal: counted.equal,
            by,
        })?
    };
    audit::note(
        installed,
        organization,
        "usher.migrations.planned",
        &id.to_string(),
        None,
        Some(json!({"flow": name, "counts": counts})),
    )?;
    Ok(id)
}

/// A plan that the caller may do something with.
pub fn find(function: &str, id: Option<Uuid>) -> Result<(Installed, Uuid, Migration)> {
    let installed = setup::current()?;
    let id = id.ok_or_else(|| UsherError::missing("the migration's id"))?;
    let of = if identity::is_operator() { None } else { Some(identity::organizations(Right::Manage)?) };
    let found = {
        let _acting = role::internal(installed.owner);
        store::by_id(id, of, false)?
    };
    let Some(found) = found else {
        let refusal = if identity::is_operator() {
            UsherError::not_found(format!("migration {id} does not exist"))
        } else {
            UsherError::forbidden(format!("migration {id} does not exist, or is not one of yours"))
                .detail(format!("You act as \"{}\".", identity::actor()))
        };
        return Err(refusal
            .hint("SELECT id, flow, state FROM usher.migrations shows those that you may read; usher.reconcile() makes one."));
    };
    if let Some(organization) = found.organization {
        audit::note_legend(function, organization)?;
    }
    rates::take(function, found.organization)?;
    Ok((installed, id, found))
}

/// The plan again, locked: what was read before may be over.
fn locked(id: Uuid) -> Result<Migration> {
    store::by_id(id, None, true)?.ok_or_else(|| UsherError::not_found(format!("migration {id} is gone")))
}

fn entered(installed: Installed, migration: &Migration, action: &str, shown: Value) -> Result<()> {
    audit::note(installed, migration.organization, action, &migration.id.to_string(), None, Some(shown))
}

/// Refuses a plan that was made by other rules, or whose flow does not run.
fn require_same_flow(installed: Installed, migration: &Migration) -> Result<()> {
    let again = || format!("Make a new plan: SELECT usher.reconcile('{}', …);", migration.name);
    let flow = {
        let _acting = role::internal(installed.owner);
        flows::newest(migration.flow)?
    };
    let Some(flow) = flow else {
        return Err(UsherError::state(format!("flow \"{}\" was dropped", migration.name))
            .hint("Without its merge nothing can be applied."));
    };
    if flow.version != migration.version {
        return Err(UsherError::state(format!(
            "the plan was made by version {} of flow \"{}\", which is at version {} now",
            migration.version, flow.name, flow.version
        ))
        .hint(again()));
    }
    let halves = halves(installed, &flow.name)?;
    if !(halves.forward.enabled && halves.back.enabled) {
        return Err(UsherError::state(format!("flow \"{}\" is off", flow.name))
            .hint(format!("SELECT usher.enable_flow('{}'); first: what is written meanwhile must be merged, too.", flow.name)));
    }
    if let Some(organization) = migration.organization {
        let _acting = role::internal(installed.owner);
        switches::require_on(flow.id, &flow.name, organization)?;
    }
    Ok(())
}

/// Has a plan applied, or what is chosen of it. Returns a sentence.
pub fn apply(id: Option<Uuid>, kinds: Option<Vec<String>>, actions: Option<Vec<String>>, slice: i32) -> Result<String> {
    if !(1..=LARGEST_SLICE).contains(&slice) {
        return Err(UsherError::invalid(format!("slice is {slice}")).hint(format!("Give a number from 1 to {LARGEST_SLICE}.")));
    }
    let (installed, id, _) = find("apply_migration", id)?;
    let by = identity::author();
    let migration = {
        let _acting = role::internal(installed.owner);
        locked(id)?
    };
    match migration.state.as_str() {
        "running" => {
            return Err(UsherError::state(format!("migration {id} is running")).hint(
                "SELECT done, total, failed FROM usher.migrations shows how far it is; usher.pause_migration() holds it.",
            ));
        }
        "paused" | "failed" => {
            return Err(UsherError::state(format!("migration {id} is {} in the middle", migration.state))
                .hint("usher.resume_migration() lets it go on where it was, usher.cancel_migration() ends it."));
        }
        "cancelled" => {
            return Err(UsherError::state(format!("migration {id} was cancelled"))
                .hint(format!("Make a new plan: SELECT usher.reconcile('{}', …);", migration.name)));
        }
        _ => {}
    }
    require_same_flow(installed, &migration)?;
    let shown = json!({"flow": migration.name, "kinds": kinds, "actions": actions});
    let _acting = role::internal(installed.owner);
    let items = store::begin(id, kinds, actions, slice, &by)?;
    if items == 0 {
        return Err(UsherError::state(if migration.state == "done" {
            format!("migration {id} is applied already: nothing of what is chosen is left")
        } else {
            format!("nothing of what is chosen is to be done in migration {id}")
        })
        .hint("SELECT * FROM usher.show_plan(id) shows what is in it; usher.reconcile() looks at both tables anew."));
    }
    entered(installed, &migration, "usher.migrations.applied", shown)?;
    xact::note_plans_changed();
    Ok(format!("{items} item{} of the plan will be applied by flow \"{}\"", if items == 1 { "" } else { "s" }, migration.name))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Pause,
    Resume,
    Cancel,
}

pub fn steer(id: Option<Uuid>, wish: Wish) -> Result<String> {
    let (function, from, to, action, word): (_, &[&str], _, _, _) = match wish {
        Wish::Pause => ("pause_migration", &["running"], "paused", "usher.migrations.paused", "is paused"),
        Wish::Resume => ("resume_migration", &["paused", "failed"], "running", "usher.migrations.resumed", "goes on"),
        Wish::Cancel => (
            "cancel_migration",
            &["planned", "running", "paused", "failed"],
            "cancelled",
            "usher.migrations.cancelled",
            "is cancelled; what it has done stays",
        ),
    };
    let (installed, id, _) = find(function, id)?;
    let migration = {
        let _acting = role::internal(installed.owner);
        locked(id)?
    };
    if wish == Wish::Resume && from.contains(&migration.state.as_str()) {
        require_same_flow(installed, &migration)?;
    }
    let _acting = role::internal(installed.owner);
    if !store::steer(id, from, to)? {
        return Err(UsherError::state(format!("migration {id} is {} and cannot be {to}", migration.state).replace("cannot be running", "cannot be resumed"))
            .hint("A running one can be paused, a paused or failed one resumed, and any that has not ended cancelled; usher.apply_migration() begins."));
    }
    entered(installed, &migration, action, json!({"flow": migration.name}))?;
    xact::note_plans_changed();
    Ok(format!("the migration of flow {} {word}", migration.name))
}
