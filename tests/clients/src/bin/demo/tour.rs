//! A workflow that fails at its last step, and what is left of it: nothing but its timeline.

use crate::{WAIT, answer, chapter, say, show, sql};
use usher_clients::{Client, flow, json, number, role, run, text, value, wait};

const TABLES: &str = "
    CREATE SCHEMA tour;
    CREATE TABLE tour.halls  (organization_id uuid, tour text, hall text, seats int, PRIMARY KEY (organization_id, tour));
    CREATE TABLE tour.crew   (organization_id uuid, tour text, name text, PRIMARY KEY (organization_id, tour, name));
    CREATE TABLE tour.sales  (organization_id uuid, tour text, tickets int CHECK (tickets <= 3500), PRIMARY KEY (organization_id, tour));
    GRANT USAGE ON SCHEMA tour TO demo_tour;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tour TO demo_tour";

pub fn a_tour_cannot_be_sold(here: &mut Client) {
    chapter("7. A tour whose last step fails");
    role(here, "demo_tour", "NOLOGIN");
    run(here, TABLES);
    let tour = "run.input ->> 'tour'";
    flow(
        here,
        "tour_lifecycle",
        &json!({
            "from": "atlvs", "to": "gvteway", "run_as": "demo_tour", "when": {"request": "tour"},
            "then": {"steps": [
                {"step": "hall", "insert": "tour.halls", "key": ["tour"], "on_conflict": "keep",
                 "set": {"tour": tour, "hall": "run.input ->> 'hall'", "seats": "(run.input ->> 'seats')::int"},
                 "undo": {"delete": "tour.halls", "key": ["tour"], "set": {"tour": tour}}},
                {"step": "crew", "for_each": "run.input -> 'crew'", "insert": "tour.crew", "key": ["tour", "name"], "on_conflict": "keep",
                 "set": {"tour": tour, "name": "run.item #>> '{}'"},
                 "undo": {"delete": "tour.crew", "key": ["tour", "name"], "set": {"tour": tour, "name": "run.item #>> '{}'"}}},
                {"step": "consent", "approval": {}, "deadline": "2 days"},
                {"step": "sales", "insert": "tour.sales", "key": ["tour"], "on_conflict": "keep", "retry": {"delays": [0.2]},
                 "set": {"tour": tour, "tickets": "(run.input ->> 'tickets')::int"}}
            ]}
        }),
    );
    say("A workflow books a hall, hires the crew, asks for consent and opens the sales. Each step but the last has an undo.");
    let start = "SELECT usher.start_workflow('acme', 'tour_lifecycle',
           '{\"tour\": \"Autumn\", \"hall\": \"Tempodrom\", \"seats\": 3500, \"tickets\": 4200, \"crew\": [\"Ada\", \"Grace\", \"Edsger\"]}')";
    let id: usher_clients::Uuid = value(here, start, &[]);
    show("SELECT usher.start_workflow('acme', 'tour_lifecycle', '{… \"seats\": 3500, \"tickets\": 4200 …}')", &id.to_string());
    let waiting = format!(
        "SELECT EXISTS (SELECT FROM usher.workflow_steps WHERE run_id = '{id}' AND step = 'consent' AND state = 'waiting')"
    );
    wait::until_true_for(here, WAIT, &waiting);
    let booked = text(
        here,
        "SELECT concat_ws(', ', (SELECT hall FROM tour.halls), (SELECT string_agg(name, ', ' ORDER BY name) FROM tour.crew))",
    );
    assert_eq!(booked, "Tempodrom, Ada, Edsger, Grace", "hall and crew are booked while the run waits");
    say(&format!("Booked so far: {booked}. Now it waits, for two days if need be, at no cost. Somebody says yes:"));
    sql("SELECT usher.signal_workflow(run, 'consent', '{\"approved\": true}')");
    run(here, &format!("SELECT usher.signal_workflow('{id}', 'consent', '{{\"approved\": true}}')"));
    wait::until_true_for(here, WAIT, &format!("SELECT ended_at IS NOT NULL FROM usher.workflow_runs WHERE id = '{id}'"));
    assert_eq!(text(here, &format!("SELECT state FROM usher.workflow_runs WHERE id = '{id}'")), "undone", "the run is undone");
    let left = number(
        here,
        "SELECT (SELECT count(*) FROM tour.halls) + (SELECT count(*) FROM tour.crew) + (SELECT count(*) FROM tour.sales)",
    );
    assert_eq!(left, 0, "nothing of the tour is left");
    say("4200 tickets for 3500 seats: the last step fails for good, and what was done is undone in reverse.");
    sql("SELECT step, item, what, took, detail FROM usher.workflow_timeline(run)");
    let rows = here
        .query(
            "SELECT rpad(COALESCE(t.step || COALESCE(' ' || t.item, ''), ''), 9) || rpad(t.what, 8)
                    || lpad(COALESCE(round(extract(epoch FROM t.took) * 1000, 1) || ' ms', ''), 9) || '  ' || COALESCE(left(t.detail, 70), '')
               FROM usher.workflow_timeline($1) AS t",
            &[&id],
        )
        .expect("the timeline can be read");
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.iter().for_each(|line| answer(line.trim_end()));
    let at = |what: &str| {
        lines.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("the timeline says \"{what}\": {lines:#?}"))
    };
    assert!(at("crew 3") < at("failed") && at("failed") < lines.len() - 1, "the timeline is in order");
    let undone: Vec<&String> = lines.iter().filter(|line| line.contains("undone")).collect();
    assert_eq!(undone.len(), 6, "the crew, its three hands, the hall and the run are undone");
    assert!(undone[4].starts_with("hall"), "the hall is given back last");
    // What the doctor would still tell of is settled: the dead letter of the failed step.
    run(here, "SELECT usher.cancel_sync_jobs('acme', '{\"flow\": \"tour_lifecycle:sales\", \"status\": \"dead\"}')");
}
