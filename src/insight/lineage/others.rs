//! The edges that no flow makes: overlap rules, who listens outside, ticket revenue, and the views of packs that work at an
//! application's tables.

use super::graph::{By, Edge, Kind, Node};
use crate::conflict::{self, Watched};
use crate::consistency::{self, Mends, Told};
use crate::error::Result;
use crate::flow::event_type::Pattern;
use crate::flow::feeds::plain;
use crate::flow::shape;
use crate::pg::spi;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use std::collections::{BTreeMap, BTreeSet};

/// All of them, beside what flows make. Runs with the owner's rights. Whatever else reads tables joins in here.
pub fn edges(installed: Installed, flows: &[Edge]) -> Result<Vec<Edge>> {
    let mut found = overlaps(flows)?;
    found.extend(rules(installed, flows)?);
    found.extend(subscriptions(flows)?);
    found.extend(revenue()?);
    found.extend(views()?);
    Ok(found)
}

fn table(name: &str) -> Node {
    Node::new(Kind::Table, name)
}

/// Tables whose rows must not overlap, where their resources are looked for, and who is told.
fn overlaps(flows: &[Edge]) -> Result<Vec<Edge>> {
    let mut found = Vec::new();
    let mut escalates = flows.iter().any(|edge| edge.kind == "conflict");
    for Watched { rule, table: watched, columns, alternatives, escalates: told, broken } in conflict::watched()? {
        let by = By {
            flow: Some(rule.clone()),
            state: Some(if broken { "broken" } else { "on" }.to_owned()),
            pack: rule.split_once('.').map(|(pack, _)| pack.to_owned()),
            ..By::default()
        };
        let node = Node::new(Kind::Rule, rule.as_str());
        found.push(Edge { uses: columns, ..Edge::new("overlap", table(&watched), node.clone(), by.clone()) });
        if let Some((other, columns)) = alternatives {
            found.push(Edge { uses: columns, ..Edge::new("alternatives", table(&other), node.clone(), by.clone()) });
        }
        found.push(Edge::new("conflict", node, table("usher.conflicts"), by));
        escalates |= told;
    }
    if escalates {
        found.push(Edge::new("notice", table("usher.conflicts"), table("usher.notices"), By::default()));
    }
    Ok(found)
}

/// What a look finds, and what becomes of it, is told on the bus.
const OF_VIOLATIONS: [&str; 3] = ["usher.violation.opened", "usher.violation.gone", "usher.violation.waived"];

/// Tables that rules read, where bad rows are written down, what mends them, and who is told.
fn rules(installed: Installed, flows: &[Edge]) -> Result<Vec<Edge>> {
    let mut found = Vec::new();
    let (mut any, mut notifies) = (false, false);
    for Told { rule, pack, state, reads, mends, emits, notifies: told } in consistency::told(installed)? {
        let by = By { flow: Some(rule.clone()), state: Some(state.to_owned()), pack, ..By::default() };
        let node = Node::new(Kind::Rule, rule);
        for (name, uses) in reads {
            found.push(Edge { uses, ..Edge::new("check", table(&name), node.clone(), by.clone()) });
        }
        let mut then = |kind, target| found.push(Edge::new(kind, node.clone(), target, by.clone()));
        then("violation", table("usher.violations"));
        match mends {
            Some(Mends::Tables(names)) => names.iter().for_each(|name| then("repair", table(name))),
            Some(Mends::Function(name)) => then("repair", Node::new(Kind::Function, name)),
            // It is asked to begin where it always begins.
            Some(Mends::Flow(name)) => {
                let begins = flows.iter().filter(|edge| edge.by.flow.as_deref() == Some(name.as_str()) && edge.kind != "join");
                let begins: BTreeSet<&Node> =
                    begins.map(|edge| &edge.source).filter(|from| matches!(from.kind, Kind::Request | Kind::Table)).collect();
                begins.into_iter().for_each(|from| then("repair", from.clone()));
            }
            None => {}
        }
        if let Some(event) = emits {
            then("emit", Node::new(Kind::Event, event));
        }
        any = true;
        notifies |= told;
    }
    if any {
        found.extend(heard_of_violations(flows));
    }
    if notifies {
        found.push(Edge::new("notice", table("usher.violations"), table("usher.notices"), By::default()));
    }
    Ok(found)
}

/// The events about violations that somebody listens to.
fn heard_of_violations(flows: &[Edge]) -> Vec<Edge> {
    let listened: BTreeSet<&str> =
        flows.iter().map(|edge| &edge.source).filter(|node| node.kind == Kind::Event).map(|node| node.name.as_str()).collect();
    let mut found = Vec::new();
    for event in OF_VIOLATIONS {
        let node = Node::new(Kind::Event, event);
        let patterns = listened.iter().filter(|text| {
            **text != event && Pattern::parse(text).is_ok_and(|pattern| pattern.exactly().is_none() && pattern.means(event))
        });
        let matched: Vec<Edge> =
            patterns.map(|text| Edge::new("match", node.clone(), Node::new(Kind::Event, *text), By::default())).collect();
        if listened.contains(event) || !matched.is_empty() {
            found.push(Edge::new("emit", table("usher.violations"), node, By::default()));
            found.extend(matched);
        }
    }
    // A flow may be known to emit one of them, and the match with it.
    found.retain(|edge| !flows.contains(edge));
    found
}

/// External systems that get events, and the types among those that they mean.
fn subscriptions(flows: &[Edge]) -> Result<Vec<Edge>> {
    let subscribed = spi::read_all(
        "SELECT DISTINCT s.system, p.pattern FROM usher.event_subscriptions AS s CROSS JOIN LATERAL unnest(s.patterns) AS p (pattern) ORDER BY 1, 2",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    let heard = |edge: &Edge| {
        [&edge.source, &edge.target].into_iter().filter(|node| node.kind == Kind::Event).cloned().collect::<Vec<_>>()
    };
    let types: BTreeSet<Node> = flows.iter().flat_map(heard).collect();
    let mut found = Vec::new();
    for (system, text) in subscribed {
        let by = By { to_system: Some(system.clone()), ..By::default() };
        let event = Node::new(Kind::Event, text.as_str());
        if let Ok(pattern) = Pattern::parse(&text)
            && pattern.exactly().is_none()
        {
            let of = types.iter().filter(|known| !known.name.contains('*') && pattern.means(&known.name));
            found.extend(of.map(|known| Edge::new("match", known.clone(), event.clone(), By::default())));
        }
        found.push(Edge::new("subscribe", event, Node::new(Kind::System, system), by));
    }
    // A flow may listen by the same pattern.
    found.retain(|edge| !flows.contains(edge));
    Ok(found)
}

/// What books ticket revenue.
fn revenue() -> Result<Vec<Edge>> {
    let bound = spi::read_all(
        "SELECT b.pack, f.function FROM usher.revenue_bindings AS b
          CROSS JOIN LATERAL (VALUES (1, b.resolve), (2, b.book), (3, b.book_batch)) AS f (n, function)
          WHERE f.function IS NOT NULL ORDER BY f.n",
        &[],
        |row| Ok((row.get::<String>(1)?, row.get::<String>(2)?.unwrap_or_default())),
    )?;
    let sales = "usher.ticket_revenue_ingestions";
    let mut found: Vec<Edge> = bound
        .into_iter()
        .map(|(pack, function)| {
            // As it is stored: with or without its arguments.
            let name = function.split('(').next().unwrap_or_default();
            Edge::new("call", table(sales), Node::new(Kind::Function, plain(name)), By { pack, ..By::default() })
        })
        .collect();
    found.dedup();
    Ok(found)
}

/// Tables of the application, and the views in the place of the pack's own by which its functions reach them.
fn views() -> Result<Vec<Edge>> {
    let made = spi::read_all(
        "SELECT b.pack, n.nspname || '.' || v.relname, r.ev_action::text
           FROM usher.pack_bindings AS b CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(b.bind) AS k (name)
           JOIN pg_catalog.pg_class AS v ON v.relkind = 'v' AND v.relname = pg_catalog.split_part(k.name, '.', 2)
           JOIN pg_catalog.pg_namespace AS n ON n.oid = v.relnamespace AND n.nspname = pg_catalog.split_part(k.name, '.', 1)
           JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = v.oid AND r.ev_type = '1'
          ORDER BY 1, 2",
        &[],
        |row| {
            let name = row.get::<String>(2)?.unwrap_or_default();
            Ok((row.get::<String>(1)?, name, row.get::<String>(3)?.unwrap_or_default()))
        },
    )?;
    let made: Vec<_> =
        made.into_iter().map(|(pack, view, nodes)| (pack, view, shape::view_columns(&nodes).unwrap_or_default())).collect();
    let relations: BTreeSet<u32> =
        made.iter().flat_map(|(_, _, columns)| columns.iter().flat_map(|(_, of)| of.iter().map(|(oid, _)| *oid))).collect();
    let names = columns_of(&relations)?;
    let mut found = Vec::new();
    for (pack, view, columns) in made {
        let mut fields: BTreeMap<&str, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (column, made_of) in &columns {
            for (relation, column_name) in made_of.iter().filter_map(|of| names.get(of)) {
                fields.entry(relation).or_default().entry(column.clone()).or_default().insert(column_name.clone());
            }
        }
        // What is made of nothing, or of another table.
        for of in fields.values_mut() {
            for (column, _) in &columns {
                of.entry(column.clone()).or_default();
            }
        }
        for (relation, fields) in fields {
            let by = By { pack: pack.clone(), ..By::default() };
            found.push(Edge { fields, ..Edge::new("view", table(relation), Node::new(Kind::View, view.as_str()), by) });
        }
    }
    Ok(found)
}

/// Relation and number of a column, and the names of both.
type Names = BTreeMap<(u32, i16), (String, String)>;

fn columns_of(relations: &BTreeSet<u32>) -> Result<Names> {
    let oids: Vec<Oid> = relations.iter().copied().map(Oid::from).collect();
    let rows = spi::read_all(
        "SELECT c.oid, a.attnum, n.nspname || '.' || c.relname, a.attname::text
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          WHERE c.oid = ANY ($1) AND c.relkind IN ('r', 'p')",
        &[spi::arg(oids)],
        |row| {
            let key = (row.get::<Oid>(1)?.unwrap_or(Oid::INVALID).to_u32(), row.get::<i16>(2)?.unwrap_or_default());
            Ok((key, (row.get::<String>(3)?.unwrap_or_default(), row.get::<String>(4)?.unwrap_or_default())))
        },
    )?;
    Ok(rows.into_iter().collect())
}
