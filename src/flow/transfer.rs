//! Flows as a document for git: written out, compared with what is there, applied all or none; and their versions.

use super::family::WHOLE;
use super::{difference, manage};
use crate::error::did_you_mean;
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::{role, spi, subxact};
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::datum::TimestampWithTimeZone;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The form of the document. A reader of another form must not guess.
const FORMAT: i64 = 1;

/// The document of all flows; those of packs only when asked, since a pack brings its own.
pub fn export(installed: Installed, packs: bool) -> Result<Value> {
    let _acting = role::internal(installed.owner);
    let document = spi::read::<JsonB>(
        &format!(
            "SELECT pg_catalog.jsonb_build_object('format', $2::bigint, 'flows', COALESCE(
                        pg_catalog.jsonb_object_agg(f.name, pg_catalog.jsonb_build_object('definition', f.definition, 'enabled', f.enabled, 'pack', f.pack)), '{{}}'))
               FROM usher.flows f WHERE ($1 OR f.pack IS NULL) AND {WHOLE}"
        ),
        &[spi::arg(packs), spi::arg(FORMAT)],
    )?;
    document.map(|json| json.0).ok_or_else(|| UsherError::internal("the flows could not be written out"))
}

/// A flow as the document wants it, or as it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Form {
    pub definition: Value,
    pub enabled: bool,
    pub pack: Option<String>,
}

pub(super) type Forms = BTreeMap<String, Form>;

/// What has to be done to one flow.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Create(Form),
    Alter(Value),
    Enable(bool),
    Remove,
    Nothing,
}

impl Step {
    fn word(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Alter(_) => "alter",
            Self::Enable(true) => "enable",
            Self::Enable(false) => "disable",
            Self::Remove => "remove",
            Self::Nothing => "unchanged",
        }
    }

    /// What is given up must make room first (two flows may not take one request); what is new comes last but for the switch.
    fn turn(&self) -> u8 {
        match self {
            Self::Remove => 0,
            Self::Alter(_) => 1,
            Self::Create(_) => 2,
            Self::Enable(_) => 3,
            Self::Nothing => 4,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    pub flow: String,
    pub step: Step,
    pub difference: Vec<String>,
}

fn about(flow: &str, text: &str) -> UsherError {
    UsherError::invalid(format!("flow \"{flow}\": {text}"))
}

fn known_keys(object: &Map<String, Value>, known: &[&str]) -> std::result::Result<(), (String, String)> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            Err((format!("unknown key \"{key}\""), format!("{}Known here: {}.", did_you_mean(key, known), known.join(", "))))
        }
    }
}

/// Reads a document; everything in it must be understood.
pub(super) fn read(document: &Value) -> Result<Forms> {
    let remedy =
        "Give what usher.export_flows() returns: {\"format\": 1, \"flows\": {name: {\"definition\": …, \"enabled\": true}}}.";
    let top = document.as_object().ok_or_else(|| UsherError::invalid("the flows are not a JSON object").hint(remedy))?;
    known_keys(top, &["format", "flows"])
        .map_err(|(what, hint)| UsherError::invalid(format!("{what} in the flows")).hint(hint))?;
    match top.get("format").and_then(Value::as_i64) {
        Some(FORMAT) => {}
        Some(other) => {
            return Err(UsherError::unsupported(format!("the flows are written in format {other}"))
                .hint(format!("This version reads format {FORMAT}; apply them with the version that wrote them.")));
        }
        None => return Err(UsherError::invalid("the flows name no format").hint(remedy)),
    }
    let flows = top.get("flows").and_then(Value::as_object);
    let flows = flows.ok_or_else(|| UsherError::invalid("\"flows\" is not an object of flows by name").hint(remedy))?;
    flows.iter().map(|(name, value)| Ok((name.clone(), form(name, value)?))).collect()
}

fn form(name: &str, value: &Value) -> Result<Form> {
    manage::check_name(name)?;
    let remedy = "Write it as {\"definition\": {…}, \"enabled\": true}.";
    let object = value.as_object().ok_or_else(|| about(name, "it is not an object").hint(remedy))?;
    known_keys(object, &["definition", "enabled", "pack"]).map_err(|(what, hint)| about(name, &what).hint(hint))?;
    let definition = match object.get("definition") {
        Some(definition @ Value::Object(_)) => definition.clone(),
        Some(_) => return Err(about(name, "\"definition\" is not an object").hint(remedy)),
        None => return Err(about(name, "it lacks \"definition\"").hint(remedy)),
    };
    let enabled = match object.get("enabled") {
        None => true,
        Some(Value::Bool(enabled)) => *enabled,
        Some(_) => return Err(about(name, "\"enabled\" is neither true nor false").hint(remedy)),
    };
    let pack = match object.get("pack") {
        None | Some(Value::Null) => None,
        Some(Value::String(pack)) => Some(pack.clone()),
        Some(_) => return Err(about(name, "\"pack\" is not text").hint("Leave it out, or write null.")),
    };
    Ok(Form { definition, enabled, pack })
}

/// What leads from the flows that are there to those that are wanted, in the order of their names.
pub(super) fn plan(there: &Forms, wanted: &Forms, remove_missing: bool) -> Result<Vec<Planned>> {
    let mut out = Vec::new();
    let mut add = |flow: &str, step: Step, difference: Vec<String>| out.push(Planned { flow: flow.to_owned(), step, difference });
    let switch = |from: bool, to: bool| vec![format!("enabled: {from} -> {to}")];
    let mut names: Vec<&String> = there.keys().chain(wanted.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        match (there.get(name), wanted.get(name)) {
            (None, Some(new)) => {
                if let Some(pack) = &new.pack {
                    return Err(UsherError::state(format!("flow \"{name}\": pack \"{pack}\" does not have it here"))
                        .hint(format!("A pack brings its own flows: SELECT usher.install_pack('{pack}'); first.")));
                }
                add(name, Step::Create(new.clone()), difference::of_new(&new.definition));
                if !new.enabled {
                    add(name, Step::Enable(false), switch(true, false));
                }
            }
            (Some(old), Some(new)) => {
                if old.pack != new.pack {
                    let owner =
                        |pack: &Option<String>| pack.as_ref().map_or("no pack".to_owned(), |pack| format!("pack \"{pack}\""));
                    return Err(UsherError::state(format!(
                        "flow \"{name}\": it is of {} here and of {} in the flows to apply",
                        owner(&old.pack),
                        owner(&new.pack)
                    ))
                    .hint("Give one of them another name, or correct \"pack\"."));
                }
                let altered = old.definition != new.definition;
                if altered {
                    add(name, Step::Alter(new.definition.clone()), difference::lines(&old.definition, &new.definition));
                }
                if old.enabled != new.enabled {
                    add(name, Step::Enable(new.enabled), switch(old.enabled, new.enabled));
                } else if !altered {
                    add(name, Step::Nothing, Vec::new());
                }
            }
            (Some(old), None) if remove_missing && old.pack.is_none() => {
                add(name, Step::Remove, difference::lines(&old.definition, &Value::Object(Map::new())));
            }
            _ => {}
        }
    }
    Ok(out)
}

/// A line of what `apply_flows` returns: flow, change, difference.
pub type Change = (String, &'static str, Option<String>);

/// Makes the flows as the document says, all or none. With `dry_run` everything is done and undone again.
pub fn apply(installed: Installed, document: &Value, dry_run: bool, remove_missing: bool) -> Result<Vec<Change>> {
    let wanted = read(document)?;
    let planned = plan(&there(installed)?, &wanted, remove_missing)?;
    let mut order: Vec<&Planned> = planned.iter().collect();
    order.sort_by_key(|planned| planned.step.turn());
    if dry_run {
        let _quiet = Nest::open().quiet();
        subxact::rehearse(|| order.iter().try_for_each(|planned| carry_out(installed, planned)))?;
    } else {
        order.iter().try_for_each(|planned| carry_out(installed, planned))?;
    }
    let line = |planned: Planned| {
        let difference = (!planned.difference.is_empty()).then(|| planned.difference.join("\n"));
        (planned.flow, planned.step.word(), difference)
    };
    Ok(planned.into_iter().map(line).collect())
}

fn there(installed: Installed) -> Result<Forms> {
    let _acting = role::internal(installed.owner);
    let flows = spi::read_all(
        &format!("SELECT f.name, f.definition, f.enabled, f.pack FROM usher.flows AS f WHERE {WHOLE}"),
        &[],
        |row| {
            let form = Form {
                definition: row.get::<JsonB>(2)?.map(|json| json.0).unwrap_or_default(),
                enabled: row.get::<bool>(3)?.unwrap_or(false),
                pack: row.get::<String>(4)?,
            };
            Ok((row.get::<String>(1)?.unwrap_or_default(), form))
        },
    )?;
    Ok(flows.into_iter().collect())
}

/// One step; whatever goes wrong names the flow, also what PostgreSQL raises on the way (a busy table).
fn carry_out(installed: Installed, planned: &Planned) -> Result<()> {
    let name = planned.flow.as_str();
    let done = subxact::attempt(|| match &planned.step {
        Step::Create(form) => manage::create(installed, name, None, form.definition.clone()).map(|_| ()),
        Step::Alter(definition) => manage::alter(installed, name, definition.clone()).map(|_| ()),
        Step::Enable(on) => manage::enable(installed, name, *on).map(|_| ()),
        Step::Remove => manage::drop(installed, name).map(|_| ()),
        Step::Nothing => Ok(()),
    });
    done.map_err(|failure| {
        let mut error = UsherError::from(failure);
        if !error.message.contains(&format!("\"{name}\"")) {
            error.message = format!("flow \"{name}\": {}", error.message);
        }
        error
    })
}

/// One version of a flow: number, when, by whom, the role it runs as, what differs from the version before.
pub type Version = (i32, TimestampWithTimeZone, String, String, String);

/// The versions of a flow, the newest first; also of one that was dropped.
pub fn history(installed: Installed, name: &str) -> Result<Vec<Version>> {
    let _acting = role::internal(installed.owner);
    let versions = spi::read_all(
        "SELECT v.version, v.created_at, v.created_by, COALESCE(r.rolname::text, 'a role that is gone'), v.definition,
                pg_catalog.lag(v.definition, 1, '{}') OVER (ORDER BY v.version)
           FROM usher.flow_versions v LEFT JOIN pg_catalog.pg_roles r ON r.oid = v.run_as
          WHERE v.flow_id = COALESCE((SELECT f.id FROM usher.flows f WHERE f.name = $1),
                                     (SELECT pg_catalog.max(o.flow_id) FROM usher.flow_versions o WHERE o.name = $1))
          ORDER BY v.version DESC",
        &[spi::arg(name)],
        |row| {
            let json = |at| -> Result<Value> { Ok(row.get::<JsonB>(at)?.map(|json| json.0).unwrap_or_default()) };
            let created = row.get::<TimestampWithTimeZone>(2)?.ok_or_else(|| UsherError::internal("a version has no date"))?;
            Ok((
                row.get::<i32>(1)?.unwrap_or(0),
                created,
                row.get::<String>(3)?.unwrap_or_default(),
                row.get::<String>(4)?.unwrap_or_default(),
                difference::lines(&json(6)?, &json(5)?).join("\n"),
            ))
        },
    )?;
    if versions.is_empty() {
        // Says which flow may have been meant.
        manage::id_of(installed, name)?;
    }
    Ok(versions)
}

/// Gives a flow the definition of an earlier version, as its next version, checked against the catalog as it is today.
pub fn rollback(installed: Installed, name: &str, version: Option<i32>) -> Result<String> {
    let (id, current) = manage::id_of(installed, name)?;
    let wanted = match version {
        Some(version) if version == current => {
            return Err(UsherError::state(format!("flow \"{name}\" is at version {current} already"))
                .hint("Name an earlier version: SELECT version, difference FROM usher.flow_history(…) shows them."));
        }
        Some(version) => version,
        None if current <= 1 => {
            return Err(UsherError::state(format!("flow \"{name}\" has only one version"))
                .hint("There is nothing to go back to; usher.alter_flow() makes a new version."));
        }
        None => current - 1,
    };
    let definition = {
        let _acting = role::internal(installed.owner);
        spi::read::<JsonB>(
            "SELECT definition FROM usher.flow_versions WHERE flow_id = $1 AND version = $2",
            &[spi::arg(id), spi::arg(wanted)],
        )?
    };
    let definition = definition.ok_or_else(|| {
        UsherError::not_found(format!("flow \"{name}\" has no version {wanted}"))
            .hint(format!("It has versions 1 to {current}: SELECT version, difference FROM usher.flow_history('{name}');"))
    })?;
    let done = manage::alter(installed, name, definition.0)?;
    Ok(format!("{done} (the definition of version {wanted})"))
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod unit;
