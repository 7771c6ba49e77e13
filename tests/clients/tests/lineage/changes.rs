//! Flows of every kind, run by real jobs: tables that change are those that lineage leads to.

use super::UNKNOWN;
use std::collections::{BTreeMap, BTreeSet};
use usher_clients::{Client, Database, Value, flow, json, role, run, settled, text, wait};

/// A digest of every table of the laboratory.
fn rows(client: &mut Client) -> BTreeMap<String, String> {
    let names = text(
        client,
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'lab'::regnamespace AND relkind = 'r'",
    );
    let mut digests = BTreeMap::new();
    for name in names.split(' ') {
        digests.insert(
            format!("lab.{name}"),
            text(client, &format!("SELECT string_agg(t::text, '|' ORDER BY t::text) FROM lab.{name} AS t")),
        );
    }
    digests
}

fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> BTreeSet<String> {
    after.iter().filter(|(name, rows)| before.get(*name) != Some(rows)).map(|(name, _)| name.clone()).collect()
}

/// The tables to which lineage leads from somewhere by what writes. What only looks writes nothing, and where there is nothing to be
/// decided there is no conflict.
fn reached(client: &mut Client, of: &str) -> BTreeSet<String> {
    let rows = client
        .query("SELECT DISTINCT target FROM usher.lineage($1, 'downstream') WHERE target_kind = 'table' AND kind <> 'join' AND target LIKE 'lab.%'", &[&of])
        .unwrap_or_else(|error| panic!("{of}: {}", wait::describe(&error)));
    rows.iter().map(|row| row.get(0)).collect()
}

fn laboratory() -> (Database, Client) {
    let database = Database::create("usher_test_lineage_lab");
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_lineage", "NOLOGIN");
    run(here, "CREATE SCHEMA lab; GRANT USAGE ON SCHEMA lab TO clients_lineage");
    // Each source has a table of its own, so that what one writes is told from what another does.
    for name in [
        "src_insert",
        "src_upsert",
        "src_update",
        "src_delete",
        "src_tx",
        "src_async",
        "src_batch",
        "src_merge",
        "src_call",
        "src_emit",
        "src_publish",
        "src_flow",
        "src_chain",
        "src_join",
        "src_off",
        "src_gate",
        "out_insert",
        "out_upsert",
        "out_update",
        "out_delete",
        "out_tx",
        "out_async",
        "out_batch",
        "out_merge",
        "out_called",
        "out_event",
        "out_pattern",
        "out_step",
        "out_step_two",
        "out_undone",
        "out_chain_one",
        "out_chain_two",
        "out_join",
        "out_off",
        "out_gate",
        "out_request",
        "out_clock",
        "bystander",
    ] {
        run(
            here,
            &format!(
                "CREATE TABLE lab.{name} (organization_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', id int NOT NULL, a text, b text, PRIMARY KEY (organization_id, id));
                 GRANT SELECT, INSERT, UPDATE, DELETE ON lab.{name} TO clients_lineage"
            ),
        );
    }
    run(
        here,
        "CREATE FUNCTION lab.work(organization uuid, id int) RETURNS void LANGUAGE sql AS 'INSERT INTO lab.out_called (organization_id, id) VALUES (organization, id)';
         CREATE FUNCTION lab.fail(id int) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
         SELECT usher.create_system('lab')",
    );
    let set = || json!({"id": "new.id", "a": "new.a"});
    let basic =
        |source: &str, then: Value| json!({"run_as": "clients_lineage", "when": {"change": source}, "then": then, "set": set()});
    let keyed = |kind: &str, table: &str| json!({kind: table, "key": ["id"]});
    let heard = |pattern: &str, table: &str| json!({"run_as": "clients_lineage", "when": {"event": pattern}, "then": {"upsert": table, "key": ["id"]}, "set": {"id": "(event.data ->> 'id')::int", "a": "event.type"}});
    let with = |mut definition: Value, more: Value| {
        for (key, value) in more.as_object().expect("an object") {
            definition[key] = value.clone();
        }
        definition
    };
    let run_id = "(run.input ->> 'id')::int";
    let flows = [
        ("lab_insert", basic("lab.src_insert", json!({"insert": "lab.out_insert"}))),
        ("lab_upsert", basic("lab.src_upsert", keyed("upsert", "lab.out_upsert"))),
        ("lab_update", basic("lab.src_update", keyed("update", "lab.out_update"))),
        ("lab_delete", with(basic("lab.src_delete", keyed("delete", "lab.out_delete")), json!({"set": {"id": "new.id"}}))),
        ("lab_tx", with(basic("lab.src_tx", keyed("upsert", "lab.out_tx")), json!({"mode": "transactional"}))),
        ("lab_async", with(basic("lab.src_async", keyed("upsert", "lab.out_async")), json!({"mode": "async"}))),
        (
            "lab_batch",
            with(
                basic("lab.src_batch", keyed("upsert", "lab.out_batch")),
                json!({"mode": "batch", "batch": {"size": 10, "window": "1s"}}),
            ),
        ),
        (
            "lab_merge",
            json!({"run_as": "clients_lineage", "when": {"change": "lab.src_merge", "on": ["insert", "update", "delete"]}, "link": {"kind": "lab", "left": "new.id", "right": "id"},
                   "then": {"merge": "lab.out_merge", "match": ["id"], "fields": {"a": "latest"}, "new_right": {"id": "new.id"}, "new_left": {"id": "new.id"}}}),
        ),
        (
            "lab_call",
            with(
                basic("lab.src_call", json!({"call": "lab.work"})),
                json!({"set": {"organization": "job.organization_id", "id": "new.id"}}),
            ),
        ),
        ("lab_emit", basic("lab.src_emit", json!({"emit": "lab.things.made"}))),
        ("lab_event", heard("lab.things.made", "lab.out_event")),
        ("lab_pattern", heard("lab.**", "lab.out_pattern")),
        (
            "lab_publish",
            json!({"run_as": "clients_lineage", "when": {"change": "lab.src_publish"}, "then": {"publish": "lab", "via": "notify"}}),
        ),
        (
            "lab_flow",
            with(
                basic(
                    "lab.src_flow",
                    json!({"steps": [
                {"step": "one", "insert": "lab.out_step", "set": {"id": run_id, "a": "run.input ->> 'a'"},
                 "undo": {"upsert": "lab.out_undone", "key": ["id"], "set": {"id": run_id}}},
                {"step": "two", "insert": "lab.out_step_two", "set": {"id": run_id}},
                {"step": "three", "call": "lab.fail", "set": {"id": run_id}, "retry": {"delays": []}}]}),
                ),
                json!({}),
            ),
        ),
        ("lab_chain_one", basic("lab.src_chain", keyed("upsert", "lab.out_chain_one"))),
        ("lab_chain_two", basic("lab.out_chain_one", keyed("upsert", "lab.out_chain_two"))),
        (
            "lab_join",
            with(
                basic("lab.src_join", keyed("upsert", "lab.out_join")),
                json!({"join": {"x": {"table": "lab.bystander", "on": "x.id = new.id"}}, "set": {"id": "new.id", "a": "x.b"}}),
            ),
        ),
        ("lab_off", basic("lab.src_off", keyed("upsert", "lab.out_off"))),
        (
            "lab_request",
            json!({"run_as": "clients_lineage", "from": "lab", "to": "lab", "when": {"request": "make"}, "then": {"upsert": "lab.out_request", "key": ["id"]}, "set": {"id": "(job.payload ->> 'id')::int"}}),
        ),
        (
            "lab_clock",
            json!({"run_as": "clients_lineage", "organization": "'default'", "when": {"schedule": "every 1 second"}, "then": {"upsert": "lab.out_clock", "key": ["id"]}, "set": {"id": "1"}}),
        ),
    ];
    for (name, definition) in &flows {
        if *name == "lab_clock" {
            continue;
        }
        flow(here, name, definition);
    }
    run(here, "SELECT usher.disable_flow('lab_off')");
    // What is there to be updated and deleted; nobody's flow listens to these.
    run(
        here,
        "INSERT INTO lab.out_update (organization_id, id) SELECT id, 1 FROM usher.organizations;
         INSERT INTO lab.out_delete (organization_id, id) SELECT id, 1 FROM usher.organizations;
         INSERT INTO lab.bystander (organization_id, id, b) SELECT id, 1, 'looked up' FROM usher.organizations",
    );
    settled(here, wait::LONG);
    // The clock is wound up last, by its own test.
    (database, client)
}

#[test]
fn tables_that_really_change_are_those_that_lineage_leads_to() {
    let (_database, mut client) = laboratory();
    let here = &mut client;
    assert_eq!(text(here, UNKNOWN), "");
    let insert = |source: &str| {
        format!("INSERT INTO lab.{source} (organization_id, id, a, b) SELECT id, 1, 'x', 'y' FROM usher.organizations")
    };
    let cases: [(&str, &[&str]); 13] = [
        ("src_insert", &["out_insert"]),
        ("src_upsert", &["out_upsert"]),
        ("src_update", &["out_update"]),
        ("src_delete", &["out_delete"]),
        ("src_tx", &["out_tx"]),
        ("src_async", &["out_async"]),
        ("src_batch", &["out_batch"]),
        ("src_emit", &["out_event", "out_pattern"]),
        ("src_publish", &[]),
        ("src_flow", &["out_step", "out_step_two", "out_undone"]),
        ("src_chain", &["out_chain_one", "out_chain_two"]),
        ("src_join", &["out_join"]),
        ("src_gate", &[]),
    ];
    let full = |names: &[&str]| names.iter().map(|name| format!("lab.{name}")).collect::<BTreeSet<_>>();
    for (source, expected) in cases {
        let before = rows(here);
        run(here, &insert(source));
        if source == "src_batch" {
            // Nothing is due before its window is over.
            wait::until_true(here, "SELECT count(*) > 0 FROM lab.out_batch");
        }
        settled(here, wait::LONG);
        wait::until_true(here, "SELECT count(*) = 0 FROM usher.workflow_runs WHERE ended_at IS NULL");
        settled(here, wait::LONG);
        let mut seen = changed(&before, &rows(here));
        assert!(seen.remove(&format!("lab.{source}")), "{source}");
        assert_eq!(seen, full(expected), "{source}: what the flow did");
        assert_eq!(reached(here, &format!("lab.{source}")), seen, "{source}: what lineage says");
    }
    // The fields that lineage names are the columns that were written, and no others.
    for (source, target) in
        [("src_insert", "out_insert"), ("src_tx", "out_tx"), ("src_batch", "out_batch"), ("src_chain", "out_chain_one")]
    {
        let fields = text(
            here,
            &format!(
                "SELECT string_agg(k, ' ' ORDER BY k) FROM usher.lineage(), jsonb_object_keys(fields) AS k WHERE source = 'lab.{source}' AND target = 'lab.{target}'"
            ),
        );
        let written = text(
            here,
            &format!(
                "SELECT string_agg(k, ' ' ORDER BY k) FROM lab.{target} AS t, jsonb_object_keys(jsonb_strip_nulls(to_jsonb(t) - 'organization_id')) AS k"
            ),
        );
        assert_eq!(fields, written, "{target}");
    }
    // A merge writes either side, whichever is written.
    for (source, target, id) in [("src_merge", "out_merge", 1), ("out_merge", "src_merge", 2)] {
        let before = rows(here);
        run(here, &insert(source).replace("SELECT id, 1", &format!("SELECT id, {id}")));
        settled(here, wait::LONG);
        let seen = changed(&before, &rows(here));
        assert_eq!(seen, full(&[source, target]));
        assert_eq!(reached(here, &format!("lab.{source}")), seen, "a circle: both sides");
    }
    assert_eq!(text(here, "SELECT target FROM usher.lineage() WHERE kind = 'publish'"), "notify:lab");
    // A function's own doing is not guessed: lineage ends where it begins.
    let before = rows(here);
    run(here, &insert("src_call"));
    settled(here, wait::LONG);
    assert_eq!(changed(&before, &rows(here)), full(&["src_call", "out_called"]));
    assert_eq!(reached(here, "lab.src_call"), full(&[]));
    assert_eq!(
        text(here, "SELECT target_kind || ' ' || target FROM usher.lineage('lab.src_call', 'downstream')"),
        "function lab.work"
    );
    // A flow that is off is told, as one that is off.
    let before = rows(here);
    run(here, &insert("src_off"));
    settled(here, wait::LONG);
    assert_eq!(changed(&before, &rows(here)), full(&["src_off"]));
    assert_eq!(text(here, "SELECT target || ' ' || state FROM usher.lineage('lab.src_off', 'downstream')"), "lab.out_off off");
    // A request, and a clock.
    let before = rows(here);
    run(here, "SELECT usher.enqueue_sync_job('default', 'lab', 'lab', '{\"action\": \"make\", \"id\": 1}')");
    settled(here, wait::LONG);
    assert_eq!(changed(&before, &rows(here)), full(&["out_request"]));
    assert_eq!(reached(here, "request:lab to lab: make"), full(&["out_request"]));
    let before = rows(here);
    flow(
        here,
        "lab_clock",
        &json!({"run_as": "clients_lineage", "organization": "'default'", "when": {"schedule": "every 1 second"}, "then": {"upsert": "lab.out_clock", "key": ["id"]}, "set": {"id": "1"}}),
    );
    wait::until_true(here, "SELECT count(*) = 1 FROM lab.out_clock");
    run(here, "SELECT usher.disable_flow('lab_clock')");
    assert_eq!(changed(&before, &rows(here)), full(&["out_clock"]));
    assert_eq!(reached(here, "lab_clock"), full(&["out_clock"]));
    assert_eq!(
        text(here, "SELECT string_agg(DISTINCT flow, '; ') FROM usher.sync_jobs WHERE status = 'dead'"),
        "lab_flow:three",
        "only the step that is to fail has failed"
    );
}
