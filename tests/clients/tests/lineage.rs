//! What feeds what, held against the truth from outside: the files of the packs, the catalog, expectations written by hand, and tables that
//! really change when flows of every kind run. Pictures are read by a strict parser, and by Graphviz where it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use usher_clients::{
    Client, Database, SqlState, Value, flow, json, number, page, refused, role, run, serde_json, settled, text, value, wait,
};

#[test]
fn the_page_does_what_it_says() {
    let database = Database::create("usher_test_lineage_page");
    let mut client = database.connect();
    let here = &mut client;
    for block in page::blocks("lineage.md") {
        run(here, &block.sql);
    }
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', distance, source, target, flow), ', ') FROM usher.lineage('books.reminders', 'upstream')"
        ),
        "-1 invoices.* books.reminders remind, -2 invoices.large invoices.*, -3 books.invoices invoices.large tell_overdue, \
         -4 shop.customers books.invoices invoice, -4 shop.orders books.invoices invoice"
    );
    assert_eq!(
        text(here, "SELECT fields::text || uses::text FROM usher.lineage() WHERE flow = 'invoice' AND kind = 'upsert'"),
        r#"{"amount": ["net", "tax"], "customer": [], "order_id": ["id"]}{customer,status}"#
    );
    let picture = page::blocks("lineage.md")
        .into_iter()
        .find(|block| block.before.contains("How pairs of systems"))
        .expect("a picture")
        .before;
    let picture = picture.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a picture");
    assert_eq!(text(here, "SELECT usher.lineage_diagram('mermaid', 'books.invoices', 'downstream')"), picture);
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', from_system, to_system, flows, enabled, broken, pending), ', ') FROM usher.registry"
        ),
        "books books 2 2 0 0, shop books 1 1 0 0"
    );
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// The packs.

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

/// Names in edges that the catalog does not know.
const UNKNOWN: &str = "
    WITH l AS MATERIALIZED (SELECT * FROM usher.lineage()),
    ends AS (SELECT source_kind AS kind, source AS name FROM l UNION SELECT target_kind, target FROM l),
    columns AS (
        SELECT l.source AS relation, c AS name FROM l, unnest(l.uses) AS c WHERE l.source_kind IN ('table', 'view')
        UNION SELECT l.source, c FROM l, jsonb_each(l.fields) AS f, jsonb_array_elements_text(f.value) AS c WHERE l.source_kind IN ('table', 'view')
        UNION SELECT l.target, f.key FROM l, jsonb_each(l.fields) AS f WHERE l.target_kind IN ('table', 'view')),
    arguments AS (
        SELECT l.target AS function, f.key AS name FROM l, jsonb_each(l.fields) AS f WHERE l.target_kind = 'function' AND f.key <> '*'),
    payloads AS (
        -- Takes what it is given as one JSON document.
        SELECT r.routine_schema || '.' || r.routine_name AS function
          FROM information_schema.routines AS r JOIN information_schema.parameters AS p USING (specific_schema, specific_name)
         WHERE p.ordinal_position = 1 AND p.data_type = 'jsonb')
    SELECT string_agg(x.what, '; ' ORDER BY x.what) FROM (
        SELECT e.kind || ' ' || e.name AS what FROM ends AS e
         WHERE e.kind = 'table' AND NOT EXISTS (SELECT FROM information_schema.tables AS t WHERE t.table_schema || '.' || t.table_name = e.name AND t.table_type = 'BASE TABLE')
            OR e.kind = 'view' AND NOT EXISTS (SELECT FROM information_schema.views AS v WHERE v.table_schema || '.' || v.table_name = e.name)
            OR e.kind = 'function' AND NOT EXISTS (SELECT FROM information_schema.routines AS r WHERE r.routine_schema || '.' || r.routine_name = e.name)
        UNION ALL SELECT 'column ' || c.relation || '.' || c.name FROM columns AS c
         WHERE NOT EXISTS (SELECT FROM information_schema.columns AS i WHERE i.table_schema || '.' || i.table_name = c.relation AND i.column_name = c.name)
        UNION ALL SELECT 'argument ' || a.function || '.' || a.name FROM arguments AS a
         WHERE a.function NOT IN (SELECT function FROM payloads) AND NOT EXISTS (SELECT FROM information_schema.routines AS r JOIN information_schema.parameters AS p USING (specific_schema, specific_name)
                            WHERE r.routine_schema || '.' || r.routine_name = a.function AND p.parameter_name = a.name)) AS x";

/// Flows that are on and of which there is no edge. What only sees to time, or looks up what a step needs from its own run, has none.
const MISSING: &str = "SELECT string_agg(f.name, ', ') FROM usher.flows AS f
    WHERE f.enabled AND NOT f.name LIKE '%::clock' AND NOT f.name LIKE '%:look' AND NOT EXISTS (SELECT FROM usher.lineage() AS l WHERE l.flow = f.name)";

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

/// Kind, source, target, fields and uses of an edge.
fn edge(client: &mut Client, flow: &str, kind: &str, source: &str) -> Value {
    let sql = "SELECT jsonb_agg(jsonb_build_object('to', target_kind || ' ' || target, 'fields', fields, 'uses', to_jsonb(uses), 'mode', mode))
                 FROM usher.lineage() WHERE flow = $1 AND kind = $2 AND source = $3";
    let mut found: Value = value::<Option<Value>>(client, sql, &[&flow, &kind, &source])
        .unwrap_or_else(|| panic!("no {kind} of {flow} from {source}"));
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{flow} {kind} {source}: {found}");
    found[0].take()
}

#[test]
fn edges_of_live_events_are_those_that_were_written_by_hand() {
    let database = Database::create("usher_test_lineage_by_hand");
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('live_events')");
    let expected = [
        // W9: update.
        (
            "live_events.update_project_phase_from_production",
            "update",
            "compvss.productions",
            json!({"to": "table atlvs.projects", "mode": "realtime", "fields": {"id": ["project_ref"], "phase": ["status"]}, "uses": null}),
        ),
        (
            "live_events.update_project_phase_from_production",
            "join",
            "atlvs.projects",
            json!({"to": "table atlvs.projects", "mode": "realtime", "fields": {"phase": ["phase"]}, "uses": ["id"]}),
        ),
        (
            "live_events.cancel_production_from_project",
            "update",
            "atlvs.projects",
            json!({"to": "table compvss.productions", "mode": "realtime", "fields": {"project_ref": ["id"], "status": []}, "uses": ["phase"]}),
        ),
        // W1: insert, in the writer's transaction, and in the second half with what the deal says.
        (
            "live_events.create_production_from_project",
            "insert",
            "atlvs.projects",
            json!({"to": "table compvss.productions", "mode": "realtime", "uses": ["deal_id", "id"], "fields": {
                "project_ref": [], "code": ["code"], "name": ["name"], "status": [], "venue_name": [], "timezone": [],
                "starts_at": ["starts_on"], "ends_at": ["ends_on"], "capacity": [], "projected_attendance": [], "tickets_sold": [], "metadata": ["metadata"]}}),
        ),
        (
            "live_events.create_production_from_project",
            "join",
            "atlvs.deals",
            json!({"to": "table compvss.productions", "mode": "realtime", "uses": ["id"], "fields": {
                "venue_name": ["venue_name"], "timezone": ["venue_timezone"], "starts_at": ["venue_timezone"], "ends_at": ["venue_timezone"],
                "capacity": ["expected_attendance"], "projected_attendance": ["expected_attendance"]}}),
        ),
        // W8: upsert with the row that is there, and an event.
        (
            "live_events.report_production_alert",
            "upsert",
            "compvss.alerts",
            json!({"to": "table atlvs.alerts", "mode": "realtime", "uses": ["production_id"], "fields": {
                "source_ref": ["id"], "project_id": [], "kind": ["kind"], "severity": ["level"], "title": ["headline"], "status": ["status"]}}),
        ),
        (
            "live_events.report_production_alert",
            "join",
            "compvss.productions",
            json!({"to": "table atlvs.alerts", "mode": "realtime", "uses": ["id"], "fields": {"project_id": ["project_ref"]}}),
        ),
        (
            "live_events.announce_grave_alert",
            "emit",
            "atlvs.alerts",
            json!({"to": "event atlvs.alerts.raised", "mode": "realtime", "uses": ["status"], "fields": {
                "alert_id": ["id"], "project_id": ["project_id"], "kind": ["kind"], "severity": ["severity"], "title": ["title"]}}),
        ),
        // W2: a merge, both ways, and a flow of a table into itself.
        (
            "live_events.share_budget_line",
            "merge",
            "atlvs.budget_lines",
            json!({"to": "table compvss.cost_lines", "mode": "realtime", "uses": ["id"], "fields": {
                "notes": ["notes"], "production_id": ["organization_id", "project_id"], "category": ["category"], "planned": ["planned"],
                "planned_from": ["version"], "actual": ["actual"], "currency": ["organization_id", "project_id"]}}),
        ),
        (
            "live_events.share_budget_line:back",
            "merge",
            "compvss.cost_lines",
            json!({"to": "table atlvs.budget_lines", "mode": "realtime", "uses": ["id"], "fields": {
                "notes": ["notes"], "project_id": ["project_ref"], "category": ["category"], "planned": ["planned"], "actual": ["actual"],
                "actual_from": ["version"]}}),
        ),
        (
            "live_events.give_back_planned",
            "update",
            "compvss.cost_lines",
            json!({"to": "table compvss.cost_lines", "mode": "realtime", "uses": ["category", "planned", "planned_from", "project_ref"],
                   "fields": {"id": ["id"], "planned": [], "planned_from": []}}),
        ),
        // W29: a call; its arguments.
        (
            "live_events.tell_show_day_change",
            "call",
            "compvss.schedule_items",
            json!({"to": "function gvteway.tell_show_day_change", "mode": "realtime", "uses": ["public"], "fields": {
                "organization": [], "event_id": [], "production_id": ["production_id"], "item_id": ["id"], "revision": ["version"],
                "message": ["delay_min", "ends_at", "starts_at", "status", "title"]}}),
        ),
        // W39: what begins a workflow, its steps, an event that one waits for.
        (
            "live_events.run_event_lifecycle",
            "begin",
            "atlvs.deals",
            json!({"to": "workflow live_events.run_event_lifecycle", "mode": "async", "uses": ["kind", "publish_when_won", "status"],
                   "fields": {"deal_id": ["id"], "begun_by": []}}),
        ),
        (
            "live_events.run_event_lifecycle",
            "step",
            "live_events.run_event_lifecycle",
            json!({"to": "step live_events.run_event_lifecycle:take", "mode": "async", "uses": null, "fields": null}),
        ),
        (
            "live_events.run_event_lifecycle:take:undo",
            "call",
            "live_events.run_event_lifecycle:take",
            json!({"to": "function atlvs.reopen_deal", "mode": "realtime", "uses": null, "fields": {"organization": [], "deal_id": ["deal_id"]}}),
        ),
        (
            "live_events.announce_first_sale",
            "emit",
            "compvss.productions",
            json!({"to": "event live_events.lifecycle.moved", "mode": "realtime", "uses": ["tickets_sold"], "fields": {"deal_id": ["project_ref"], "to": []}}),
        ),
        // W13: an overlap rule and where it looks for others.
        (
            "live_events.asset_reserved_twice",
            "overlap",
            "atlvs.asset_reservations",
            json!({"to": "rule live_events.asset_reserved_twice", "mode": null, "uses": ["asset_id", "period", "status"], "fields": null}),
        ),
        (
            "live_events.asset_reserved_twice",
            "alternatives",
            "atlvs.assets",
            json!({"to": "rule live_events.asset_reserved_twice", "mode": null, "uses": ["category", "id", "state"], "fields": null}),
        ),
    ];
    for (flow, kind, source, expected) in expected {
        assert_eq!(edge(here, flow, kind, source), expected, "{flow} {kind} {source}");
    }
    // The step that waits for its event, whatever its listener is called.
    assert_eq!(
        text(
            here,
            "SELECT string_agg(target, ' ' ORDER BY target) FROM usher.lineage() WHERE kind = 'wait' AND source = 'live_events.lifecycle.moved'"
        ),
        "live_events.run_event_lifecycle:list live_events.run_event_lifecycle:produce live_events.run_event_lifecycle:sell"
    );
    // From a won deal all the way to the event that guests see, and back.
    let down = "SELECT count(*) FROM usher.lineage('atlvs.deals', 'downstream') WHERE target = 'gvteway.events'";
    let up = "SELECT count(*) FROM usher.lineage('compvss.productions', 'upstream') WHERE source = 'atlvs.deals' AND flow = 'live_events.create_production_from_project'";
    assert!(number(here, down) > 0 && number(here, up) == 1);
}

#[test]
fn a_pack_at_an_applications_tables_is_told_by_these() {
    const APP: &str = include_str!("pack_adoption/app.sql");
    const BIND: &str = include_str!("pack_adoption/bind.json");
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

// ---------------------------------------------------------------------------------------------------------------------------------------
// Tables that really change.

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

// ---------------------------------------------------------------------------------------------------------------------------------------
// Pictures.

struct Picture {
    labels: Vec<String>,
    edges: usize,
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
fn read(format: &str, picture: &str) -> Picture {
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

// ---------------------------------------------------------------------------------------------------------------------------------------
// Who sees what, and pairs of systems.

const MEMBER: &str = "clients_lineage_member";
const OTHER: &str = "clients_lineage_other";

#[test]
fn members_are_told_of_pairs_what_is_theirs_and_nothing_of_definitions() {
    let database = Database::create("usher_test_lineage_members");
    let mut client = database.connect();
    let here = &mut client;
    for name in [MEMBER, OTHER] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    role(here, "clients_lineage_reader", "LOGIN");
    role(here, "clients_lineage", "NOLOGIN");
    run(
        here,
        &format!(
            "GRANT usher_reader TO clients_lineage_reader;
             SELECT usher.create_organization('here'), usher.create_organization('there');
             SELECT usher.grant_membership('here', 'role:{MEMBER}'), usher.grant_membership('there', 'role:{OTHER}');
             SELECT usher.create_system('shop'), usher.create_system('books'), usher.create_system('stock', 'external');
             CREATE TABLE public.orders (organization_id uuid, id int, total int, PRIMARY KEY (organization_id, id));
             CREATE TABLE public.invoices (organization_id uuid, id int, total int CHECK (total > 0), PRIMARY KEY (organization_id, id));
             GRANT ALL ON public.orders, public.invoices TO clients_lineage"
        ),
    );
    flow(
        here,
        "bill",
        &json!({"from": "shop", "to": "books", "run_as": "clients_lineage", "retry": {"delays": []}, "when": {"change": "public.orders"}, "link": {"kind": "bill", "left": "new.id", "right": "id"},
                "then": {"upsert": "public.invoices", "key": ["id"]}, "set": {"id": "new.id", "total": "new.total"}}),
    );
    // Here ten good ones, there three and a bad one; then two that wait here because the flow is paused.
    run(
        here,
        "INSERT INTO public.orders SELECT o.id, n, 10 FROM usher.organizations AS o, generate_series(1, 10) AS n WHERE o.slug = 'here' OR o.slug = 'there' AND n <= 3;
         INSERT INTO public.orders SELECT o.id, 99, -1 FROM usher.organizations AS o WHERE o.slug = 'there'",
    );
    settled(here, wait::LONG);
    let age =
        "SELECT extract(epoch FROM clock_timestamp() - min(created_at))::bigint FROM usher.sync_jobs WHERE status = 'pending'";
    run(here, "SELECT usher.pause_jobs(flow => 'bill')");
    run(
        here,
        "INSERT INTO public.orders SELECT o.id, n, 10 FROM usher.organizations AS o, generate_series(20, 21) AS n WHERE o.slug = 'here'",
    );
    run(here, "SELECT usher.enqueue_sync_job('there', 'shop', 'stock', '{}')");
    run(here, "SELECT usher.enqueue_sync_job('there', 'shop', 'stock', '{}', run_at => now() + interval '1 hour')");
    // A link of this organization of which somebody says that it failed.
    run(
        here,
        "UPDATE usher.links SET status = 'failed' WHERE left_id = '1' AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'here')",
    );
    let sql = "SELECT string_agg(concat_ws(' ', from_system, to_system, flows, enabled, broken, pending, lag IS NOT NULL, dead_letters, last_synced_at IS NOT NULL, linked, open_conflicts, consistency), ', ')
                 FROM usher.registry";
    assert_eq!(text(here, sql), "shop books 1 1 0 2 t 1 t 13 0 92.3, shop stock 0 0 0 2 t 0 f 0 0");
    let lag = number(here, "SELECT lag::bigint FROM usher.registry WHERE to_system = 'books'");
    assert!((lag - number(here, age)).abs() <= 5, "{lag}");
    // What is only wanted later is not late.
    run(here, "SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE target_system = 'stock' AND run_at IS NULL");
    assert_eq!(
        text(here, "SELECT pending || ' ' || COALESCE(lag::text, 'not late') FROM usher.registry WHERE to_system = 'stock'"),
        "1 not late"
    );

    let mut member = database.connect_as(MEMBER);
    let mut other = database.connect_as(OTHER);
    assert_eq!(text(&mut member, sql), "shop books 1 1 0 2 t 0 t 10 0 90");
    assert_eq!(text(&mut other, sql), "shop books 1 1 0 0 f 1 t 3 0 100, shop stock 0 0 0 1 f 0 f 0 0");
    for who in [&mut member, &mut other] {
        for call in
            ["SELECT * FROM usher.lineage()", "SELECT usher.lineage_diagram()", "SELECT * FROM usher.lineage('public.orders')"]
        {
            assert_eq!(refused(who, call).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{call}");
        }
    }
    // Readers see all of both.
    let mut reader = database.connect_as("clients_lineage_reader");
    assert!(text(&mut reader, sql).starts_with("shop books 1 1 0 2 t 1 t 13 0 92.3"));
    assert_eq!(number(&mut reader, "SELECT count(*) FROM usher.lineage()"), 1);
    // Words that are no arguments.
    for (call, code) in [
        ("usher.lineage('public.nothing')", SqlState::UNDEFINED_OBJECT),
        ("usher.lineage('public.orders', 'sideways')", SqlState::INVALID_PARAMETER_VALUE),
        ("usher.lineage('public.orders', depth => -1)", SqlState::INVALID_PARAMETER_VALUE),
        ("usher.lineage(depth => 1)", SqlState::INVALID_PARAMETER_VALUE),
        ("usher.lineage_diagram('png')", SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let error = refused(here, &format!("SELECT * FROM {call}"));
        assert_eq!(error.code(), &code, "{call}");
        assert!(error.hint().is_some(), "{call}");
    }
}
