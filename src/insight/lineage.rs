//! `usher.lineage()` and `usher.lineage_diagram()`: what feeds what.
//!
//! flows and rules as they are kept → [`graph::Edge`]s → those that are asked for → rows, or a picture. Nothing is guessed: an edge is what
//! a definition says, read by PostgreSQL's grammar and held against the catalog. What a function does inside is its own.

mod diagram;
mod flows;
mod graph;
mod others;

use super::require_look;
use crate::error::{Result, UsherError, did_you_mean, nearest};
use crate::flow::feeds::plain;
use crate::pg::{guc, role, spi};
use crate::setup;
use diagram::Format;
use graph::{Direction, Edge, Kind, Node};
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What is asked for.
struct Wanted {
    of: Option<String>,
    direction: Direction,
    depth: Option<i32>,
    pack: Option<String>,
    system: Option<String>,
}

impl Wanted {
    fn checked(
        of: Option<String>,
        direction: Option<String>,
        depth: Option<i32>,
        pack: Option<String>,
        system: Option<String>,
    ) -> Result<Self> {
        let word = direction.unwrap_or_else(|| "both".to_owned());
        let Some(direction) = Direction::named(&word) else {
            return Err(UsherError::invalid(format!("direction \"{word}\" is unknown")).hint(format!(
                "{}Use one of: {}.",
                did_you_mean(&word, &Direction::WORDS),
                Direction::WORDS.join(", ")
            )));
        };
        if depth.is_some_and(|depth| depth < 1) {
            return Err(UsherError::invalid("the depth must be at least 1").hint("Leave it out to go all the way."));
        }
        if of.is_none() && (depth.is_some() || direction != Direction::Both) {
            return Err(UsherError::invalid("a direction or a depth needs something to begin with")
                .hint("Name it: usher.lineage('public.orders', direction => 'downstream')."));
        }
        Ok(Self { of, direction, depth, pack, system })
    }
}

/// All edges, in a fixed order.
fn all() -> Result<Vec<Edge>> {
    let installed = setup::current()?;
    let _path = guc::Nest::pinned_path();
    let _acting = role::internal(installed.owner);
    let mut edges = flows::edges()?;
    let others = others::edges(installed, &edges)?;
    edges.extend(others);
    let key = |edge: &Edge| (edge.source.clone(), edge.target.clone(), edge.by.flow.clone(), edge.kind);
    edges.sort_by(|one, other| key(one).cmp(&key(other)));
    edges.dedup();
    Ok(edges)
}

/// Those of a pack and of a system. What no flow makes stays where something at both of its ends does.
fn narrowed(edges: Vec<Edge>, wanted: &Wanted) -> Vec<Edge> {
    let (pack, system) = (&wanted.pack, &wanted.system);
    if pack.is_none() && system.is_none() {
        return edges;
    }
    let fits = |edge: &Edge| {
        let by = &edge.by;
        pack.as_ref().is_none_or(|pack| by.pack.as_ref() == Some(pack))
            && system.as_ref().is_none_or(|system| [&by.from_system, &by.to_system].contains(&&Some(system.clone())))
    };
    let mut kept: BTreeSet<Node> =
        edges.iter().filter(|edge| fits(edge)).flat_map(|edge| [edge.source.clone(), edge.target.clone()]).collect();
    // Who is told, is told in our own tables.
    let ours = |node: &Node| node.kind == Kind::Table && node.name.starts_with("usher.");
    let told = |edge: &Edge| ours(&edge.source) || ours(&edge.target);
    let nobodys = |edge: &Edge, kept: &BTreeSet<Node>| edge.by == graph::By::default() && kept.contains(&edge.source);
    // And what these tell: a violation is an event.
    loop {
        let further: Vec<Node> =
            edges.iter().filter(|edge| nobodys(edge, &kept) && told(edge)).map(|edge| edge.target.clone()).collect();
        let before = kept.len();
        kept.extend(further);
        if kept.len() == before {
            break;
        }
    }
    edges.into_iter().filter(|edge| fits(edge) || nobodys(edge, &kept) && kept.contains(&edge.target)).collect()
}

/// What the caller means: a thing of any kind by its name, `kind:name` for one of a kind, or both ends of a flow. A view of a pack at the
/// application's tables stands for these.
fn starts(of: &str, edges: &[Edge]) -> Result<BTreeSet<Node>> {
    let (kind, name) =
        match of.split_once(':').and_then(|(word, name)| Some((Kind::ALL.into_iter().find(|kind| kind.word() == word)?, name))) {
            Some((kind, name)) => (Some(kind), name),
            None => (None, of),
        };
    let bare = plain(name);
    let mut found = BTreeSet::new();
    for edge in edges {
        let ends = [&edge.source, &edge.target];
        let meant = |node: &&&Node| kind.is_none_or(|kind| kind == node.kind) && (node.name == name || node.name == bare);
        found.extend(ends.iter().filter(meant).map(|node| (*node).clone()));
        if kind.is_none() && edge.by.flow.as_deref() == Some(of) && edge.kind != "join" {
            found.extend(ends.into_iter().cloned());
        }
    }
    let of_views: Vec<Node> =
        edges.iter().filter(|edge| edge.kind == "view" && found.contains(&edge.target)).map(|edge| edge.source.clone()).collect();
    found.extend(of_views);
    if !found.is_empty() || exists(&bare)? {
        return Ok(found);
    }
    let names: BTreeSet<&str> = edges.iter().flat_map(|edge| [edge.source.name.as_str(), edge.target.name.as_str()]).collect();
    let names: Vec<&str> = names.into_iter().collect();
    Err(UsherError::not_found(format!("nothing is called \"{of}\"")).hint(match nearest(&bare, &names) {
        Some(near) => format!("Did you mean {near}?"),
        None => "Name a table (schema.table), a function, a type of events, a flow, a workflow or a rule.".to_owned(),
    }))
}

/// A table, view or function that nothing leads to or from.
fn exists(name: &str) -> Result<bool> {
    let there = spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                         WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p', 'v'))
             OR EXISTS (SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
                         WHERE n.nspname || '.' || p.proname = $1)
             OR EXISTS (SELECT FROM usher.flows AS f WHERE f.name = $1)",
        &[spi::arg(name)],
    )?;
    Ok(there.unwrap_or(false))
}

/// The edges that are asked for, each with its distance where there is one.
fn find(wanted: &Wanted) -> Result<Vec<(Edge, Option<i32>)>> {
    let every = all()?;
    let Some(of) = &wanted.of else {
        return Ok(narrowed(every, wanted).into_iter().map(|edge| (edge, None)).collect());
    };
    let begin = {
        let installed = setup::current()?;
        let _path = guc::Nest::pinned_path();
        let _acting = role::internal(installed.owner);
        starts(of, &every)?
    };
    let edges = narrowed(every, wanted);
    let reached = graph::reach(&edges, &begin, wanted.direction, wanted.depth);
    let mut found: Vec<(Edge, Option<i32>)> =
        edges.into_iter().enumerate().filter_map(|(at, edge)| Some((edge, Some(*reached.get(&at)?)))).collect();
    // The nearest first; downstream before upstream.
    found.sort_by_key(|(_, distance)| distance.map_or((0, false), |distance| (distance.abs(), distance < 0)));
    Ok(found)
}

fn json(fields: &BTreeMap<String, BTreeSet<String>>) -> Option<JsonB> {
    (!fields.is_empty()).then(|| JsonB(serde_json::json!(fields)))
}

/// What feeds what: a row for each edge, from a table (an event, a schedule, a request …) to what a flow or a rule makes of it. Rows of
/// `kind` (what is done: insert, merge, call, join …), `source_kind`, `source`, `target_kind`, `target`, `fields` (each field that is
/// written and the source's columns that it is made of), `uses` (columns that are read besides), `flow`, `mode`, `state` (on, off, broken,
/// shadow), `pack`, `from_system`, `to_system`, `link` (the kind of links that it keeps), `distance`.
///
/// Arguments, all optional: `of`: where to begin, a table, function, type of events, flow, workflow, rule, or `kind:name`; `direction`:
/// `upstream`, `downstream` or `both`; `depth`: how many edges far, all the way without it; `pack`, `system`: only what is of it. With `of`,
/// `distance` counts the edges from there: 1, 2 … downstream, -1, -2 … upstream. Each edge comes once; circles end.
///
/// Errors: 42501 for callers who are neither operators nor readers, 22023 for an argument that is not understood, 42704 when nothing is
/// called so, 55000 before `usher.setup()`.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn lineage(
    of: default!(Option<String>, "NULL"),
    direction: default!(Option<String>, "'both'"),
    depth: default!(Option<i32>, "NULL"),
    pack: default!(Option<String>, "NULL"),
    system: default!(Option<String>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(kind, String),
            name!(source_kind, String),
            name!(source, String),
            name!(target_kind, String),
            name!(target, String),
            name!(fields, Option<JsonB>),
            name!(uses, Option<Vec<String>>),
            name!(flow, Option<String>),
            name!(mode, Option<String>),
            name!(state, Option<String>),
            name!(pack, Option<String>),
            name!(from_system, Option<String>),
            name!(to_system, Option<String>),
            name!(link, Option<String>),
            name!(distance, Option<i32>),
        ),
    >,
    ErrorReport,
> {
    require_look("see what feeds what")?;
    let found = find(&Wanted::checked(of, direction, depth, pack, system)?)?;
    Ok(TableIterator::new(found.into_iter().map(|(edge, distance)| {
        let Edge { kind, source, target, fields, uses, by } = edge;
        (
            kind.to_owned(),
            source.kind.word().to_owned(),
            source.name,
            target.kind.word().to_owned(),
            target.name,
            json(&fields),
            (!uses.is_empty()).then(|| uses.into_iter().collect()),
            by.flow,
            by.mode.map(str::to_owned),
            by.state,
            by.pack,
            by.from_system,
            by.to_system,
            by.link,
            distance,
        )
    })))
}

/// The same as a picture: `mermaid`, a flowchart for a page that draws it, or `dot` for Graphviz. What does not happen at the moment (off,
/// broken, in shadow) is dashed.
///
/// Arguments: `format`; then those of `usher.lineage()`. Errors: those of `usher.lineage()`, 22023 for an unknown format.
#[pg_extern(volatile, parallel_unsafe)]
fn lineage_diagram(
    format: default!(Option<String>, "'mermaid'"),
    of: default!(Option<String>, "NULL"),
    direction: default!(Option<String>, "'both'"),
    depth: default!(Option<i32>, "NULL"),
    pack: default!(Option<String>, "NULL"),
    system: default!(Option<String>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    require_look("see what feeds what")?;
    let word = format.unwrap_or_else(|| "mermaid".to_owned());
    let Some(format) = Format::named(&word) else {
        return Err(UsherError::invalid(format!("format \"{word}\" is unknown"))
            .hint(format!("{}Use one of: {}.", did_you_mean(&word, &Format::WORDS), Format::WORDS.join(", ")))
            .into());
    };
    let found = find(&Wanted::checked(of, direction, depth, pack, system)?)?;
    let edges: Vec<&Edge> = found.iter().map(|(edge, _)| edge).collect();
    Ok(diagram::draw(format, &edges))
}
