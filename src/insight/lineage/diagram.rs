//! Edges as a picture: Mermaid's flowcharts and Graphviz's DOT. Pure.
//!
//! Names of tables may be any text. Things get ids of our own, and what people read stands in quoted labels whose signs cannot be taken for
//! the language's.

use super::graph::{Edge, Kind, Node};
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Mermaid,
    Dot,
}

impl Format {
    pub const WORDS: [&'static str; 2] = ["mermaid", "dot"];

    pub fn named(word: &str) -> Option<Self> {
        match word {
            "mermaid" => Some(Self::Mermaid),
            "dot" => Some(Self::Dot),
            _ => None,
        }
    }
}

/// A label of Mermaid: every sign that means something there, or may one day, is written by its number.
fn mermaid_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || " _.,-/:()".contains(c) => out.push(c),
            c if c.is_control() => out.push(' '),
            c if c.is_ascii() => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A string of DOT. A backslash begins an escape there, and `&` an entity.
fn dot_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// What stands at an edge: who makes it, how, and that it does not happen.
fn label(edge: &Edge) -> String {
    let mut text = match (&edge.by.flow, edge.by.mode) {
        (Some(flow), Some(mode)) => format!("{}: {flow} ({mode})", edge.kind),
        (Some(flow), None) => format!("{}: {flow}", edge.kind),
        (None, _) => edge.kind.to_owned(),
    };
    if let Some(state) = edge.by.state.as_deref().filter(|state| *state != "on") {
        let _ = write!(text, ", {state}");
    }
    text
}

fn happens(edge: &Edge) -> bool {
    edge.by.state.as_deref().is_none_or(|state| state == "on")
}

/// The picture of these edges, with a thing for each of their ends.
pub fn draw(format: Format, edges: &[&Edge]) -> String {
    let mut ids: BTreeMap<&Node, usize> = BTreeMap::new();
    for edge in edges {
        ids.entry(&edge.source).or_default();
        ids.entry(&edge.target).or_default();
    }
    for (at, id) in ids.values_mut().enumerate() {
        *id = at + 1;
    }
    match format {
        Format::Mermaid => mermaid(&ids, edges),
        Format::Dot => dot(&ids, edges),
    }
}

fn mermaid(ids: &BTreeMap<&Node, usize>, edges: &[&Edge]) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for (node, id) in ids {
        let (open, close) = match node.kind {
            Kind::Table => ("[(", ")]"),
            Kind::View => ("[/", "/]"),
            Kind::Function => ("[[", "]]"),
            Kind::Event | Kind::Request => ("([", "])"),
            Kind::Schedule => ("((", "))"),
            Kind::Workflow | Kind::Step => ("(", ")"),
            Kind::Channel | Kind::System => ("{{", "}}"),
            Kind::Rule => ("{", "}"),
        };
        let _ = writeln!(out, "    n{id}{open}\"{}\"{close}", mermaid_text(&said(node)));
    }
    for edge in edges {
        let arrow = if happens(edge) { "-->" } else { "-.->" };
        let _ = writeln!(out, "    n{} {arrow}|\"{}\"| n{}", ids[&edge.source], mermaid_text(&label(edge)), ids[&edge.target]);
    }
    out
}

/// A table is known by its name; of others it is said what they are.
fn said(node: &Node) -> String {
    match node.kind {
        Kind::Table => node.name.clone(),
        kind => format!("{} {}", kind.word(), node.name),
    }
}

fn dot(ids: &BTreeMap<&Node, usize>, edges: &[&Edge]) -> String {
    let mut out = "digraph lineage {\n    rankdir=LR;\n".to_owned();
    for (node, id) in ids {
        let shape = match node.kind {
            Kind::Table => "cylinder",
            Kind::View => "parallelogram",
            Kind::Function => "component",
            Kind::Event | Kind::Request => "ellipse",
            Kind::Schedule => "circle",
            Kind::Workflow | Kind::Step => "box",
            Kind::Channel | Kind::System => "hexagon",
            Kind::Rule => "diamond",
        };
        let _ = writeln!(out, "    n{id} [shape={shape}, label=\"{}\"];", dot_text(&said(node)));
    }
    for edge in edges {
        let style = if happens(edge) { "solid" } else { "dashed" };
        let _ = writeln!(
            out,
            "    n{} -> n{} [style={style}, label=\"{}\"];",
            ids[&edge.source],
            ids[&edge.target],
            dot_text(&label(edge))
        );
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::insight::lineage::graph::By;

    fn edge(from: &str, to: &str, state: &str) -> Edge {
        let by = By { flow: Some("copy".to_owned()), mode: Some("realtime"), state: Some(state.to_owned()), ..By::default() };
        Edge::new("insert", Node::new(Kind::Table, from), Node::new(Kind::Event, to), by)
    }

    #[test]
    fn a_picture_names_each_thing_once() {
        let edges = [edge("a.b", "x.y", "on"), edge("a.b", "x.z", "off")];
        let all: Vec<&Edge> = edges.iter().collect();
        assert_eq!(
            draw(Format::Mermaid, &all),
            "flowchart LR\n    n1[(\"a.b\")]\n    n2([\"event x.y\"])\n    n3([\"event x.z\"])\n    n1 -->|\"insert: copy (realtime)\"| n2\n    n1 -.->|\"insert: copy (realtime), off\"| n3\n"
        );
        assert!(draw(Format::Dot, &all).contains("n1 -> n3 [style=dashed, label=\"insert: copy (realtime), off\"];"));
        assert_eq!(draw(Format::Mermaid, &[]), "flowchart LR\n");
        assert_eq!(draw(Format::Dot, &[]), "digraph lineage {\n    rankdir=LR;\n}\n");
    }

    proptest::proptest! {
        /// Whatever a table is called, its name stays inside its quotes.
        #[test]
        fn no_name_leaves_its_label(name in "\\PC{0,30}|[\"\\\\\n#;`%{}<>&|\\[\\]()]{0,30}|end|subgraph") {
            let edge = edge(&name, "x", "on");
            for line in draw(Format::Mermaid, &[&edge]).lines().skip(1) {
                proptest::prop_assert_eq!(line.matches('"').count(), 2, "{}", line);
                let label = line.split('"').nth(1).unwrap();
                proptest::prop_assert!(!label.contains(['*', '`', '%', '{', '}', '<', '>', '|', '[', ']', '\\']), "{}", line);
            }
            for line in draw(Format::Dot, &[&edge]).lines().skip(2).filter(|line| line.contains("label")) {
                let label = line.split_once("label=\"").unwrap().1.strip_suffix("\"];").unwrap();
                let bare = label.replace("\\\\", "").replace("\\\"", "");
                proptest::prop_assert!(!bare.contains(['"', '\\']), "{}", line);
            }
        }
    }
}
