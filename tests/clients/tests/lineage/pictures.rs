//! Pictures: what is drawn can be read, whatever tables are called.

use super::UNKNOWN;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use usher_clients::{Database, Value, flow, json, role, run, text, value};

pub struct Picture {
    pub labels: Vec<String>,
    pub edges: usize,
}

fn quoted(text: &str) -> (&str, &str) {
    let rest = text.strip_prefix('"').unwrap_or_else(|| panic!("no label: {text}"));
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return (&rest[..at], &rest[at + 1..]),
            _ => escaped = false,
        }
    }
    panic!("a label without an end: {text}");
}

fn id(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (id, rest) = text.split_at(end);
    assert!(id.starts_with('n') && id.len() > 1 && id[1..].chars().all(|c| c.is_ascii_digit()), "no id: {text}");
    (id, rest)
}

/// Mermaid's label as it is shown.
fn shown(label: &str) -> String {
    let mut out = String::new();
    let mut rest = label;
    while let Some((before, after)) = rest.split_once('#') {
        let (number, after) = after.split_once(';').unwrap_or_else(|| panic!("an entity without an end: {label}"));
        out += before;
        out.push(number.parse().ok().and_then(char::from_u32).unwrap_or_else(|| panic!("no entity: {label}")));
        rest = after;
    }
    assert!(!rest.contains(['"', '`', '<', '>', '{', '}', '%', '&', '|', ';']), "{label}");
    out + rest
}

/// Reads what we draw, line by line: anything else is an error.
pub fn read(format: &str, picture: &str) -> Picture {
    let mut known = BTreeSet::new();
    let mut found = Picture { labels: Vec::new(), edges: 0 };
    let mut lines: Vec<&str> = picture.lines().collect();
    if format == "mermaid" {
        assert_eq!(lines.remove(0), "flowchart LR");
        let shapes = [("[(", ")]"), ("[/", "/]"), ("[[", "]]"), ("([", "])"), ("((", "))"), ("(", ")"), ("{{", "}}"), ("{", "}")];
        for line in lines {
            let (from, rest) = id(line.strip_prefix("    ").expect("indented"));
            if let Some(rest) = rest.strip_prefix(" -->|").or_else(|| rest.strip_prefix(" -.->|")) {
                let (label, rest) = quoted(rest);
                shown(label);
                let (to, rest) = id(rest.strip_prefix("| ").expect("an arrow"));
                assert!(rest.is_empty() && known.contains(from) && known.contains(to), "{line}");
                found.edges += 1;
            } else {
                let (open, close) = shapes
                    .iter()
                    .find(|(open, _)| rest.starts_with(&format!("{open}\"")))
                    .unwrap_or_else(|| panic!("no shape: {line}"));
                let (label, rest) = quoted(&rest[open.len()..]);
                assert_eq!(rest, *close, "{line}");
                assert!(known.insert(from.to_owned()), "twice: {line}");
                found.labels.push(shown(label));
            }
        }
    } else {
        assert_eq!(lines.remove(0), "digraph lineage {");
        assert_eq!(lines.remove(0), "    rankdir=LR;");
        assert_eq!(lines.pop(), Some("}"));
        for line in lines {
            let (from, rest) = id(line.strip_prefix("    ").expect("indented"));
            let (to, rest) = match rest.strip_prefix(" -> ") {
                Some(rest) => {
                    let (to, rest) = id(rest);
                    (Some(to), rest)
                }
                None => (None, rest),
            };
            let (attribute, label) = rest.strip_prefix(" [").expect("attributes").split_once(", label=").expect("a label");
            let (name, word) = attribute.split_once('=').expect("an attribute");
            assert_eq!(name, if to.is_some() { "style" } else { "shape" }, "{line}");
            assert!(word.chars().all(|c| c.is_ascii_lowercase()), "{line}");
            let (label, rest) = quoted(label);
            assert_eq!(rest, "];", "{line}");
            match to {
                Some(to) => {
                    assert!(known.contains(from) && known.contains(to), "{line}");
                    found.edges += 1;
                }
                None => {
                    assert!(known.insert(from.to_owned()), "twice: {line}");
                    found.labels.push(label.replace("\\\"", "\"").replace("\\\\", "\\").replace("&amp;", "&"));
                }
            }
        }
        graphviz(picture);
    }
    found
}

/// Graphviz itself, where it is there.
fn graphviz(picture: &str) {
    let Ok(mut dot) =
        Command::new("dot").arg("-Tcanon").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    else {
        return;
    };
    dot.stdin.take().expect("a pipe").write_all(picture.as_bytes()).expect("dot reads");
    let output = dot.wait_with_output().expect("dot ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{}\n{picture}", String::from_utf8_lossy(&output.stderr));
}

const NASTY: [&str; 12] = [
    "end",
    "subgraph",
    "two words",
    "a\"b\"c",
    "[x](y){z}<u>",
    "%%{init: {}}%%",
    "`**bold**`",
    "ümläut 表 🚚",
    "back\\slash\\n",
    "semi;colon|pipe#35;&amp;",
    "line\nbreak",
    "--> n1",
];

#[test]
fn any_name_can_be_drawn() {
    let database = Database::create("usher_test_lineage_names");
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_lineage", "NOLOGIN");
    run(
        here,
        "CREATE SCHEMA \"class\"; GRANT USAGE ON SCHEMA \"class\" TO clients_lineage; CREATE TABLE \"class\".first (id int PRIMARY KEY, \"a.b\" text); GRANT ALL ON \"class\".first TO clients_lineage",
    );
    for (at, name) in NASTY.iter().enumerate() {
        let sql = format!("\"class\".\"{}\"", name.replace('"', "\"\""));
        run(here, &format!("CREATE TABLE {sql} (id int PRIMARY KEY, \"a \"\"b\" text); GRANT ALL ON {sql} TO clients_lineage"));
        flow(
            here,
            &format!("to_{at}"),
            &json!({"run_as": "clients_lineage", "when": {"change": "class.first"}, "then": {"upsert": sql, "key": ["id"]}, "set": {"id": "new.id", "a \"b": "new.\"a.b\""}}),
        );
    }
    assert_eq!(text(here, UNKNOWN), "");
    let expected: BTreeSet<String> =
        NASTY.iter().map(|name| format!("class.{}", name.replace('\n', " "))).chain(["class.first".to_owned()]).collect();
    for format in ["mermaid", "dot"] {
        let picture = read(format, &text(here, &format!("SELECT usher.lineage_diagram('{format}')")));
        assert_eq!(picture.labels.into_iter().collect::<BTreeSet<_>>(), expected, "{format}");
        assert_eq!(picture.edges, NASTY.len(), "{format}");
    }
    // Each is found by its name, quoted or not, and so are its columns.
    for name in NASTY {
        let quoted = format!("class.\"{}\"", name.replace('"', "\"\""));
        let found: Value = value(here, "SELECT jsonb_agg(fields) FROM usher.lineage($1, 'upstream')", &[&quoted]);
        assert_eq!(found, json!([{"id": ["id"], "a \"b": ["a.b"]}]), "{name}");
    }
}
