//! The edges that flows make.

use super::graph::{By, Edge, Kind, Node};
use crate::error::Result;
use crate::flow::definition::{Definition, Mode, Then, When};
use crate::flow::feeds::{self, Feed, Origin, plain};
use crate::flow::steps::Part;
use crate::flow::store;
use crate::pg::spi;
use pgrx::JsonB;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Our own function that flows call to tell people something.
const NOTIFY: &str = "usher.notify";

struct Flow {
    name: String,
    definition: Definition,
    by: By,
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Transactional => "transactional",
        Mode::Realtime => "realtime",
        Mode::Async => "async",
        Mode::Batch => "batch",
    }
}

/// What flows write and call, in one word.
fn word(then: &Then) -> &'static str {
    match then {
        Then::Insert { .. } => "insert",
        Then::Upsert { .. } => "upsert",
        Then::Update { .. } => "update",
        Then::Delete { .. } => "delete",
        Then::Merge(_) => "merge",
        Then::Call { .. } => "call",
        Then::Emit { .. } => "emit",
        Then::Publish(_) => "publish",
        Then::Steps(_) => "begin",
        Then::Collect(Part::Hear) => "wait",
        Then::Collect(_) => "look",
    }
}

/// Which step of a workflow its parts belong to.
type Parts = HashMap<String, Node>;

fn parts(flows: &[Flow]) -> Parts {
    let mut found = Parts::new();
    for flow in flows {
        for step in flow.definition.steps() {
            for part in Part::ALL.into_iter().filter(|part| *part != Part::Clock) {
                found.insert(step.part(part, &flow.name), step_node(&flow.name, &step.name));
            }
        }
    }
    found
}

fn step_node(workflow: &str, step: &str) -> Node {
    Node::new(Kind::Step, format!("{workflow}:{step}"))
}

/// Every flow that there is, at its version of now. Runs with the owner's rights.
fn read() -> Result<Vec<Flow>> {
    let rows = spi::read_all(
        "SELECT f.name, f.pack, f.definition,
                CASE WHEN f.state = 'broken' THEN 'broken' WHEN NOT f.enabled THEN 'off' WHEN f.definition -> 'shadow' = 'true' THEN 'shadow' ELSE 'on' END
           FROM usher.flows AS f ORDER BY f.name",
        &[],
        |row| {
            let name = row.get::<String>(1)?.unwrap_or_default();
            let definition = row.get::<JsonB>(3)?.map(|json| json.0).unwrap_or_default();
            Ok((name, row.get::<String>(2)?, definition, row.get::<String>(4)?))
        },
    )?;
    let flows = rows.into_iter().map(|(name, pack, definition, state)| {
        let definition = store::parse(&definition)?;
        let by = By {
            flow: Some(name.clone()),
            mode: Some(mode(definition.mode)),
            state,
            pack,
            from_system: definition.from.clone(),
            to_system: definition.to.clone(),
            link: definition.link.as_ref().map(|link| link.kind.clone()),
        };
        Ok(Flow { name, definition, by })
    });
    flows.collect()
}

/// What "when" names.
fn source(flow: &Flow, parts: &Parts) -> Node {
    match &flow.definition.when {
        When::Change { table, .. } => Node::new(Kind::Table, plain(table)),
        When::Event(pattern) => Node::new(Kind::Event, pattern.text.as_str()),
        When::Request { action } => {
            let system = |name: &Option<String>| name.clone().unwrap_or_default();
            Node::new(Kind::Request, format!("{} to {}: {action}", system(&flow.definition.from), system(&flow.definition.to)))
        }
        // By its flow: two flows that are due at one time have nothing else to do with each other.
        When::Schedule(schedule) => {
            let zone = schedule.timezone.as_ref().map(|zone| format!(" {zone}")).unwrap_or_default();
            Node::new(Kind::Schedule, format!("{} ({}{zone})", flow.name, schedule.text))
        }
        When::Step(workflow) => parts.get(&flow.name).cloned().unwrap_or_else(|| Node::new(Kind::Workflow, workflow.as_str())),
    }
}

/// What "then" names; None for what only sees to time.
fn target(flow: &Flow, parts: &Parts) -> Option<Node> {
    match &flow.definition.then {
        Then::Insert { table, .. } | Then::Upsert { table, .. } | Then::Update { table, .. } | Then::Delete { table, .. } => {
            Some(Node::new(Kind::Table, plain(table)))
        }
        Then::Merge(merge) => Some(Node::new(Kind::Table, plain(&merge.table))),
        Then::Call { function, .. } => Some(Node::new(Kind::Function, plain(function))),
        Then::Emit { event_type } => Some(Node::new(Kind::Event, event_type.as_str())),
        Then::Publish(publish) => Some(Node::new(Kind::Channel, format!("{}:{}", publish.via.word(), publish.topic))),
        Then::Steps(_) => Some(Node::new(Kind::Workflow, flow.name.as_str())),
        Then::Collect(_) => parts.get(&flow.name).cloned(),
    }
}

/// The edges of all flows. Runs with the owner's rights.
pub fn edges() -> Result<Vec<Edge>> {
    let flows = read()?;
    let parts = parts(&flows);
    let mut found = Vec::new();
    for flow in &flows {
        // A part that only runs of an older version of its workflow know.
        if matches!(flow.definition.when, When::Step(_)) && !parts.contains_key(&flow.name) {
            continue;
        }
        let Some(target) = target(flow, &parts) else { continue };
        let source = source(flow, &parts);
        let kind = word(&flow.definition.then);
        let mut feeds = feeds::feeds(&flow.definition)?;
        let own = feeds.remove(&Origin::When).unwrap_or_default();
        // What a step looks up stays in the step.
        if source != target || source.kind != Kind::Step {
            found.push(fed(kind, source.clone(), target.clone(), &flow.by, own));
        }
        for (origin, feed) in feeds {
            let Origin::Join(table) = origin else { continue };
            found.push(fed("join", Node::new(Kind::Table, table), target.clone(), &flow.by, feed));
        }
        steps(flow, &mut found);
        if flow.definition.merge().is_some() {
            let by = By { link: None, ..flow.by.clone() };
            found.push(Edge::new("conflict", source, Node::new(Kind::Table, "usher.conflicts"), by));
        }
        if target == Node::new(Kind::Function, NOTIFY) {
            found.push(Edge::new("insert", target, Node::new(Kind::Table, "usher.notifications"), By::default()));
        }
    }
    matched(&flows, &mut found);
    Ok(found)
}

fn fed(kind: &'static str, source: Node, target: Node, by: &By, feed: Feed) -> Edge {
    // A link is between the row that has changed and the row that was written.
    let by = By { link: by.link.clone().filter(|_| kind != "join"), ..by.clone() };
    Edge { fields: feed.fields, uses: feed.uses, ..Edge::new(kind, source, target, by) }
}

/// A workflow, its steps, and which comes after which.
fn steps(flow: &Flow, found: &mut Vec<Edge>) {
    let all = flow.definition.steps();
    for step in all {
        let node = step_node(&flow.name, &step.name);
        if step.after.is_empty() {
            found.push(Edge::new("step", Node::new(Kind::Workflow, flow.name.as_str()), node.clone(), flow.by.clone()));
        }
        for before in &step.after {
            found.push(Edge::new("after", step_node(&flow.name, &all[*before].name), node.clone(), flow.by.clone()));
        }
    }
}

/// Events that flows emit, and the patterns by which others hear them.
fn matched(flows: &[Flow], found: &mut Vec<Edge>) {
    let mut types: BTreeSet<&str> = BTreeSet::new();
    for flow in flows {
        types.extend(flow.definition.emits());
        if let When::Event(pattern) = &flow.definition.when {
            types.extend(pattern.exactly());
        }
    }
    let mut patterns: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for flow in flows {
        if let When::Event(pattern) = &flow.definition.when
            && pattern.exactly().is_none()
        {
            let meant = types.iter().copied().filter(|event_type| pattern.means(event_type)).collect();
            patterns.insert(&pattern.text, meant);
        }
    }
    for (pattern, meant) in patterns {
        for event_type in meant {
            found.push(Edge::new("match", Node::new(Kind::Event, event_type), Node::new(Kind::Event, pattern), By::default()));
        }
    }
}
