//! What feeds what, as edges between named things, and the way from one of them up or down. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Table,
    View,
    Function,
    Event,
    Request,
    Schedule,
    Workflow,
    Step,
    Channel,
    System,
    Rule,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Table,
        Self::View,
        Self::Function,
        Self::Event,
        Self::Request,
        Self::Schedule,
        Self::Workflow,
        Self::Step,
        Self::Channel,
        Self::System,
        Self::Rule,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
            Self::Function => "function",
            Self::Event => "event",
            Self::Request => "request",
            Self::Schedule => "schedule",
            Self::Workflow => "workflow",
            Self::Step => "step",
            Self::Channel => "channel",
            Self::System => "system",
            Self::Rule => "rule",
        }
    }
}

/// Something that feeds, or is fed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    pub kind: Kind,
    pub name: String,
}

impl Node {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// The flow, or the rule, that makes an edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct By {
    pub flow: Option<String>,
    pub mode: Option<&'static str>,
    /// `on`, `off`, `broken` or `shadow`.
    pub state: Option<String>,
    pub pack: Option<String>,
    pub from_system: Option<String>,
    pub to_system: Option<String>,
    /// The kind of the links that it keeps.
    pub link: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// What is done: `insert`, `merge`, `call`, `join` …
    pub kind: &'static str,
    pub source: Node,
    pub target: Node,
    /// By the target's fields: the source's columns that each is made of.
    pub fields: BTreeMap<String, BTreeSet<String>>,
    /// Columns of the source that are read besides.
    pub uses: BTreeSet<String>,
    pub by: By,
}

impl Edge {
    pub fn new(kind: &'static str, source: Node, target: Node, by: By) -> Self {
        Self { kind, source, target, fields: BTreeMap::new(), uses: BTreeSet::new(), by }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Upstream,
    Downstream,
    Both,
}

impl Direction {
    pub const WORDS: [&'static str; 3] = ["upstream", "downstream", "both"];

    pub fn named(word: &str) -> Option<Self> {
        match word {
            "upstream" => Some(Self::Upstream),
            "downstream" => Some(Self::Downstream),
            "both" => Some(Self::Both),
            _ => None,
        }
    }
}

/// The edges on the way from these things, each with how far it is: 1, 2 … downstream, -1, -2 … upstream. Each edge comes once, however
/// many ways lead to it, so that a circle ends.
pub fn reach(edges: &[Edge], starts: &BTreeSet<Node>, direction: Direction, most: Option<i32>) -> BTreeMap<usize, i32> {
    let mut found: BTreeMap<usize, i32> = BTreeMap::new();
    for (wanted, down) in [(Direction::Downstream, true), (Direction::Upstream, false)] {
        if direction != wanted && direction != Direction::Both {
            continue;
        }
        for (edge, distance) in walk(edges, starts, down, most.unwrap_or(i32::MAX)) {
            let signed = if down { distance } else { -distance };
            let known = found.entry(edge).or_insert(signed);
            if distance < known.abs() {
                *known = signed;
            }
        }
    }
    found
}

fn walk(edges: &[Edge], starts: &BTreeSet<Node>, down: bool, most: i32) -> Vec<(usize, i32)> {
    let mut leaving: HashMap<&Node, Vec<usize>> = HashMap::new();
    for (at, edge) in edges.iter().enumerate() {
        leaving.entry(if down { &edge.source } else { &edge.target }).or_default().push(at);
    }
    let mut seen: BTreeSet<&Node> = starts.iter().collect();
    let mut open: VecDeque<(&Node, i32)> = starts.iter().map(|node| (node, 0)).collect();
    let mut found = Vec::new();
    while let Some((node, distance)) = open.pop_front() {
        if distance >= most {
            continue;
        }
        for at in leaving.get(node).into_iter().flatten() {
            found.push((*at, distance + 1));
            let next = if down { &edges[*at].target } else { &edges[*at].source };
            if seen.insert(next) {
                open.push_back((next, distance + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod unit {
    use super::*;

    fn table(name: &str) -> Node {
        Node::new(Kind::Table, name)
    }

    fn edges(pairs: &[(&str, &str)]) -> Vec<Edge> {
        pairs.iter().map(|(from, to)| Edge::new("insert", table(from), table(to), By::default())).collect()
    }

    fn reached(edges: &[Edge], of: &str, direction: Direction, most: Option<i32>) -> Vec<(usize, i32)> {
        reach(edges, &BTreeSet::from([table(of)]), direction, most).into_iter().collect()
    }

    #[test]
    fn the_way_goes_up_and_down() {
        let all = edges(&[("a", "b"), ("b", "c"), ("x", "c"), ("c", "d")]);
        assert_eq!(reached(&all, "b", Direction::Downstream, None), [(1, 1), (3, 2)]);
        assert_eq!(reached(&all, "c", Direction::Upstream, None), [(0, -2), (1, -1), (2, -1)]);
        assert_eq!(reached(&all, "b", Direction::Both, None), [(0, -1), (1, 1), (3, 2)]);
        assert_eq!(reached(&all, "a", Direction::Downstream, Some(1)), [(0, 1)]);
        assert_eq!(reached(&all, "a", Direction::Both, Some(0)), []);
        assert_eq!(reached(&all, "nobody", Direction::Both, None), []);
    }

    #[test]
    fn a_circle_ends() {
        let all = edges(&[("a", "b"), ("b", "a"), ("a", "a")]);
        assert_eq!(reached(&all, "a", Direction::Downstream, None), [(0, 1), (1, 2), (2, 1)]);
        assert_eq!(reached(&all, "a", Direction::Both, None), [(0, 1), (1, -1), (2, 1)]);
    }

    #[test]
    fn two_ways_count_as_the_shorter_one() {
        let all = edges(&[("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")]);
        assert_eq!(reached(&all, "a", Direction::Downstream, None), [(0, 1), (1, 2), (2, 1), (3, 2)]);
    }
}
