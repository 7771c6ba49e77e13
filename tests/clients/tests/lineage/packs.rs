//! Packs, installed and adopted: what is told of them is what their files say, and names only what there is.

use super::pictures::read;
use super::{MISSING, UNKNOWN};
use std::collections::{BTreeMap, BTreeSet};
use usher_clients::{Client, Database, Value, json, number, role, run, serde_json, text, value, wait};

fn folder() -> String {
    format!("{}/../../sql/packs", env!("CARGO_MANIFEST_DIR"))
}

/// Every pack, and the flows that its files name.
fn packs() -> BTreeMap<String, BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).expect("packs").flatten() {
        let mut flows = BTreeMap::new();
        for file in std::fs::read_dir(entry.path().join("workflows")).expect("workflows").flatten() {
            if file.path().extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let whole: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).expect("a file")).expect("JSON");
            for (name, definition) in whole["flows"].as_object().into_iter().flatten() {
                flows.insert(name.clone(), definition.clone());
            }
        }
        found.insert(entry.file_name().to_string_lossy().into_owned(), flows);
    }
    assert!(!found.is_empty());
    found
}

/// Kind, source and target.
type Plain = (String, String, String);

/// What a definition says by itself, as somebody reads it who knows the format: its own edge, and those of its joins.
fn said(definition: &Value) -> Option<Vec<Plain>> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let when = &definition["when"];
    let source = match when.as_object()?.keys().find(|key| ["change", "event"].contains(&key.as_str())) {
        Some(key) => word(&when[key.as_str()]),
        None => return None,
    };
    let then = definition["then"].as_object()?;
    let kind =
        then.keys().find(|key| ["insert", "upsert", "update", "delete", "merge", "call", "emit"].contains(&key.as_str()))?;
    let target = word(&then[kind]);
    let mut edges = vec![(kind.clone(), source, target.clone())];
    for join in definition["join"].as_object().into_iter().flatten().map(|(_, join)| join) {
        edges.push(("join".to_owned(), word(&join["table"]), target.clone()));
    }
    edges.sort();
    edges.dedup();
    Some(edges)
}

fn told(client: &mut Client, flow: &str) -> Vec<Plain> {
    let rows = client
        .query("SELECT DISTINCT kind, source, target FROM told WHERE flow = $1 AND kind NOT IN ('conflict', 'step', 'after') ORDER BY 1, 2, 3", &[&flow])
        .unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
    let mut edges: Vec<Plain> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    edges.sort();
    edges
}

#[test]
fn every_pack_is_told_as_its_files_say() {
    for (pack, flows) in packs() {
        let database = Database::create(&format!("usher_test_lineage_{pack}"));
        let mut client = database.connect();
        let here = &mut client;
        run(here, &format!("SELECT usher.install_pack('{pack}')"));
        assert_eq!(text(here, UNKNOWN), "", "{pack}");
        run(here, "CREATE TEMP TABLE told AS SELECT * FROM usher.lineage()");
        assert_eq!(text(here, &MISSING.replace("usher.lineage()", "told")), "", "{pack}");
        assert!(!flows.is_empty());
        let mut compared = 0;
        for (name, definition) in &flows {
            assert_eq!(number(here, &format!("SELECT count(*) FROM usher.flows WHERE name = '{name}'")), 1, "{name}");
            let Some(expected) = said(definition) else { continue };
            assert_eq!(told(here, name), expected, "{name}");
            let set = |key: &str| {
                definition[key].as_object().into_iter().flat_map(|set| set.keys().cloned()).collect::<BTreeSet<String>>()
            };
            if definition["then"]["merge"].is_null() {
                let written: BTreeSet<String> = set("set").union(&set("set_once")).cloned().collect();
                let fields = text(
                    here,
                    &format!(
                        "SELECT string_agg(k, ' ' ORDER BY k COLLATE \"C\") FROM told, jsonb_object_keys(fields) AS k WHERE flow = '{name}' AND kind NOT IN ('join', 'conflict', 'step', 'after')"
                    ),
                );
                let expected = if written.is_empty() && !definition["then"]["call"].is_null() {
                    "*".to_owned()
                } else {
                    written.into_iter().collect::<Vec<_>>().join(" ")
                };
                assert_eq!(fields, expected, "{name}");
            }
            compared += 1;
        }
        assert!(compared * 2 > flows.len(), "{pack}: {compared} of {}", flows.len());
        // Nothing of it is of another pack, and asking for the pack leaves nothing out.
        assert_eq!(number(here, &format!("SELECT count(*) FROM told WHERE pack <> '{pack}'")), 0);
        assert_eq!(
            number(here, &format!("SELECT count(*) FROM usher.lineage(pack => '{pack}')")),
            number(here, "SELECT count(*) FROM told")
        );
        for format in ["mermaid", "dot"] {
            let picture = text(here, &format!("SELECT usher.lineage_diagram('{format}')"));
            let read = read(format, &picture);
            assert_eq!(read.edges as i64, number(here, "SELECT count(*) FROM told"), "{pack}, {format}");
        }
    }
}

#[test]
fn a_pack_at_an_applications_tables_is_told_by_these() {
    const APP: &str = include_str!("../pack_adoption/app.sql");
    const BIND: &str = include_str!("../pack_adoption/bind.json");
    let database = Database::create("usher_test_lineage_adopted");
    let mut client = database.connect();
    let here = &mut client;
    role(here, "authenticated", "NOLOGIN");
    run(here, APP);
    run(
        here,
        "SELECT usher.adopt_organizations('public.organizations', slug_column => 'slug', name_column => 'name', timezone_column => 'timezone')",
    );
    run(here, &format!("SELECT usher.install_pack('live_events', bind => $bind${BIND}$bind$)"));
    assert_eq!(text(here, UNKNOWN), "");
    assert_eq!(text(here, MISSING), "");
    // No flow names a view, and each view leads back to its table, whose names are the application's.
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM usher.lineage() WHERE source_kind = 'table' AND source = 'atlvs.deals' OR target_kind = 'table' AND target = 'atlvs.deals'"
        ),
        0
    );
    let fields: Value = value(
        here,
        "SELECT fields FROM usher.lineage() WHERE kind = 'view' AND source = 'public.deals' AND target = 'atlvs.deals'",
        &[],
    );
    assert_eq!((&fields["title"], &fields["status"], &fields["currency"]), (&json!(["name"]), &json!(["stage"]), &json!([])));
    assert_eq!(
        text(
            here,
            "SELECT string_agg(attname, ' ' ORDER BY attname COLLATE \"C\") FROM pg_attribute WHERE attrelid = 'atlvs.deals'::regclass AND attnum > 0"
        ),
        fields.as_object().expect("fields").keys().cloned().collect::<Vec<_>>().join(" ")
    );
    // Who asks for the view is told of the table.
    let of = |name: &str| {
        format!(
            "SELECT string_agg(concat_ws(' ', kind, source, target, flow), ', ' ORDER BY kind, target, flow) FROM usher.lineage('{name}', 'downstream', 1) WHERE kind <> 'view'"
        )
    };
    let of_view = text(here, &of("atlvs.deals"));
    assert!(!of_view.is_empty());
    assert_eq!(of_view, text(here, &of("public.deals")));
}
