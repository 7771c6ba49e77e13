//! What is known of a person, as one JSON document.

use super::copies;
use super::deep::{self, unreadable};
use super::erase::{self, Found};
use super::graph::Standing;
use super::{rows, store};
use crate::error::{Result, is_secret_name};
use crate::guard::audit;
use crate::pg::{role, spi};
use crate::registry::tables::Table;
use crate::setup::Installed;
use pgrx::Uuid;
use serde_json::{Map, Value, json};

/// Everything about a person; that it was asked for is entered into the audit log.
pub fn run(installed: Installed, organization: Uuid, kind: &str, key: &str) -> Result<Value> {
    let _acting = role::internal(installed.owner);
    let found = erase::find(organization, kind, key)?;
    let (mut tables, mut mentions) = (Map::new(), Map::new());
    for at in 0..found.graph.nodes.len() {
        let node = &found.graph.nodes[at];
        if found.counts[at] == 0 || node.standing == Standing::LeftOut {
            continue;
        }
        let whole = node.standing != Standing::Mentions;
        let mut list = rows::json(found.acting, &found.graph, at, whole)?;
        hide(&node.table, &mut list)?;
        let into = if whole { &mut tables } else { &mut mentions };
        add(into, &node.table.name, list);
    }
    let export = json!({
        "subject": {"kind": kind, "key": key, "organization": organization.to_string()},
        "tables": tables,
        "mentioned_in": mentions,
        "links": links(organization, &found, key)?,
        "jobs": jobs(organization, &found)?,
        "events": events(organization, &found)?,
        "audit": entries(organization, &found)?,
        "processing": store::processing(&tables.keys().cloned().collect::<Vec<_>>())?,
    });
    let counts: Map<String, Value> =
        tables.iter().map(|(name, list)| (name.clone(), Value::from(list.as_array().map_or(0, Vec::len)))).collect();
    audit::note(
        installed,
        Some(organization),
        "usher.subjects.exported",
        &format!("{kind} {key}"),
        None,
        Some(json!({"rows": counts})),
    )?;
    Ok(export)
}

/// Who may export is no reader of masked columns by that, and secrets are no data of a person.
fn hide(table: &Table, rows: &mut [Value]) -> Result<()> {
    let masked = store::masked(&table.name)?;
    let hidden = |name: &String| masked.contains(name) || is_secret_name(name);
    let names: Vec<&str> =
        table.columns.iter().map(|column| &column.name).filter(|name| hidden(name)).map(String::as_str).collect();
    for fields in rows.iter_mut().filter_map(Value::as_object_mut) {
        for name in &names {
            if let Some(value) = fields.get_mut(*name).filter(|value| !value.is_null()) {
                *value = Value::from("***");
            }
        }
    }
    Ok(())
}

/// A table that is reached on two ways has each row once.
fn add(into: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    let Some(Value::Array(before)) = into.get_mut(name) else {
        into.insert(name.to_owned(), Value::Array(list));
        return;
    };
    let new: Vec<Value> = list.into_iter().filter(|row| !before.contains(row)).collect();
    before.extend(new);
}

fn list(sql: &str, arguments: crate::pg::spi::Args<'_>) -> Result<Value> {
    let text = spi::read::<String>(sql, arguments)?;
    Ok(text.map(|text| deep::read(&text)).transpose().map_err(unreadable)?.unwrap_or_else(|| json!([])))
}

/// The links by which other systems know the person.
fn links(organization: Uuid, found: &Found, key: &str) -> Result<Value> {
    list(
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('kind', l.kind, 'left_system', l.left_system, 'left_id', l.left_id,
                'right_system', l.right_system, 'right_id', l.right_id, 'since', l.created_at) ORDER BY l.kind, l.created_at)::text
           FROM usher.links AS l WHERE l.organization_id = $1 AND l.kind = ANY ($2) AND (l.left_id = $3 OR l.right_id = $3)",
        &[spi::arg(organization), spi::arg(found.graph.subject.links.clone()), spi::arg(key)],
    )
}

/// Jobs about the person's rows, and those whose payload names the person.
fn jobs(organization: Uuid, found: &Found) -> Result<Value> {
    list(
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('id', j.id, 'flow', j.flow, 'from', j.source_system, 'to', j.target_system,
                'status', j.status, 'created_at', j.created_at, 'payload', j.payload) ORDER BY j.created_at, j.id)::text
           FROM usher.sync_jobs AS j
          WHERE j.organization_id = $1
            AND (j.id = ANY ($2) OR usher.mask_person(j.payload::text, '{}', $3, '')::jsonb IS DISTINCT FROM j.payload)",
        &[spi::arg(organization), spi::arg(copies::jobs_about(organization, &found.known)?), spi::arg(found.identifiers.clone())],
    )
}

/// Events that name the person, whether anybody has listened or not.
fn events(organization: Uuid, found: &Found) -> Result<Value> {
    list(
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('id', e.id, 'type', e.type, 'at', e.emitted_at, 'by', e.emitted_by, 'data', e.data)
                ORDER BY e.emitted_at, e.id)::text
           FROM usher.events AS e
          WHERE e.organization_id = $1 AND usher.mask_person(e.data::text, '{}', $2, '')::jsonb IS DISTINCT FROM e.data",
        &[spi::arg(organization), spi::arg(found.identifiers.clone())],
    )
}

fn entries(organization: Uuid, found: &Found) -> Result<Value> {
    let (tables, objects) = found.objects();
    list(
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('at', e.recorded_at, 'by', e.actor, 'action', e.action, 'object', e.object,
                'old', e.old, 'new', e.new) ORDER BY e.position)::text
           FROM usher.audit_log AS e
          WHERE e.organization_id = $1
            AND EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS k (tbl, object)
                         WHERE e.object = k.object AND e.action IN (k.tbl || '.created', k.tbl || '.updated', k.tbl || '.deleted'))",
        &[spi::arg(organization), spi::arg(tables), spi::arg(objects)],
    )
}
