//! Edges of the pack live_events as somebody reads them in its files.

use usher_clients::{Client, Database, Value, json, number, run, text, value};

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
