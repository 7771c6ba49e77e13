//! Workflows: docs/workflows.md as it stands there, steps side by side, and what kills in the middle leave.

use usher_clients::{Client, Database, Uuid, flow, json, number, page, role, run, server, settled, text, value, wait};

#[test]
fn the_page_does_what_it_says() {
    let database = Database::create("usher_test_workflows_page");
    let mut client = database.connect();
    let here = &mut client;
    for block in page::blocks("workflows.md") {
        run(here, &block.sql);
    }
    wait::until_true(here, "SELECT count(*) = 3 FROM usher.workflow_runs WHERE ended_at IS NOT NULL");
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', workflow, input ->> 'item', state), ', ' ORDER BY workflow, input ->> 'item') FROM usher.workflow_runs"
        ),
        "fulfil lamp done, fulfil piano undone, hire done"
    );
    assert_eq!(text(here, "SELECT string_agg(sale::text, ' ' ORDER BY sale) FROM public.parcels"), "1 100");
    assert_eq!(text(here, "SELECT string_agg(sale::text, ' ') FROM stock.holds"), "1");
    let timeline = "SELECT string_agg(concat_ws(' ', t.step, t.what), ', ') FROM usher.workflow_runs r, usher.workflow_timeline(r.id) t WHERE r.input ->> 'item' = 'piano'";
    assert_eq!(text(here, timeline), "started, hold done, charge failed, hold undone, undone");
}

/// Every step adds its name to a ledger, every undo takes it out again; `stop` holds whoever does a step of that number.
fn works(name: &str, steps: &serde_json::Value) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_workflows", "NOLOGIN");
    run(
        &mut client,
        "CREATE SCHEMA work;
         CREATE TABLE work.ledger (run uuid, step text, item int NOT NULL DEFAULT 0, done bool, at timestamptz NOT NULL DEFAULT clock_timestamp(), by int NOT NULL DEFAULT pg_backend_pid());
         CREATE FUNCTION work.enter(run uuid, step text, fails bool, item int DEFAULT 0, done bool DEFAULT true) RETURNS jsonb LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM pg_advisory_xact_lock_shared(hashtext(step));
             IF fails THEN RAISE EXCEPTION '% fails', step; END IF;
             INSERT INTO work.ledger (run, step, item, done) VALUES (enter.run, enter.step, enter.item, enter.done);
             RETURN to_jsonb(step);
         END $$;
         GRANT USAGE ON SCHEMA work TO clients_workflows; GRANT SELECT, INSERT ON work.ledger TO clients_workflows",
    );
    flow(
        &mut client,
        "work",
        &json!({"run_as": "clients_workflows", "from": "w", "to": "w", "lock_timeout": "10 min", "when": {"request": "work"}, "then": {"steps": steps}}),
    );
    (database, client)
}

fn step(name: &str, more: serde_json::Value) -> serde_json::Value {
    let set = |done: bool| {
        json!({"run": "run.id", "step": format!("'{name}'"), "fails": if done { format!("run.input ->> 'fails' = '{name}'") } else { "false".into() },
        "item": "COALESCE((run.item)::int, 0)", "done": done.to_string()})
    };
    let mut step = json!({"step": name, "call": "work.enter", "retry": {"delays": []}, "set": set(true), "undo": {"call": "work.enter", "set": set(false), "retry": {"delays": vec![0.05; 30]}}});
    for (key, value) in more.as_object().expect("an object") {
        if value.is_null() {
            step.as_object_mut().expect("an object").remove(key);
        } else {
            step[key] = value.clone();
        }
    }
    step
}

/// What is wrong with what the runs have left, nothing if all is right: each step that is done was done once more than undone, each other
/// one as often.
const WRONG: &str = "
    SELECT count(*) FROM (
        SELECT l.run, l.step, l.item, count(*) FILTER (WHERE l.done) AS did, count(*) FILTER (WHERE NOT l.done) AS undid FROM work.ledger l GROUP BY 1, 2, 3) AS l
      FULL JOIN (SELECT s.run_id, s.step, s.item, s.state FROM usher.workflow_steps s
                  WHERE NOT (s.item = 0 AND EXISTS (SELECT FROM usher.workflow_steps i WHERE i.run_id = s.run_id AND i.step = s.step AND i.item > 0))
                    AND s.step NOT IN ('wait', 'nap', 'none')) AS s
        ON s.run_id = l.run AND s.step = l.step AND s.item = l.item
     WHERE concat(COALESCE(l.did, 0), ' ', COALESCE(l.undid, 0)) IS DISTINCT FROM CASE s.state WHEN 'done' THEN '1 0' WHEN 'undone' THEN '1 1' ELSE '0 0' END";

#[test]
fn kills_in_the_middle_neither_lose_nor_double_a_step() {
    let steps = json!([
        step("a", json!({})),
        step("b", json!({"after": ["a"]})),
        step("c", json!({"after": ["a"], "for_each": "'[1, 2, 3]'::jsonb"})),
        {"step": "nap", "after": ["b"], "sleep": 0.02},
        {"step": "wait", "after": ["c"], "wait": {"event": "w.go", "match": {"run": "run.id::text"}}},
        step("d", json!({"after": ["nap", "wait"], "effect": "external", "retry": {"delays": vec![0.05; 20]}})),
        step("e", json!({})),
    ]);
    let (database, mut client) = works("usher_test_workflows_crash", &steps);
    let start = |here: &mut Client, fails: &str| -> Uuid {
        value(here, &format!("SELECT usher.start_workflow('default', 'work', '{{\"fails\": \"{fails}\"}}')"), &[])
    };
    let mut runs = 0;
    // The worker, or the caller process, stops at the effects of one step, until this session ends with all others.
    for stop in ["a", "b", "c", "d", "e", "a", "c", "e"] {
        server::spare_the_suspect(&mut client);
        run(&mut client, &format!("SELECT pg_advisory_lock(hashtext('{stop}'))"));
        for fails in ["", "e", "", "d", "c"] {
            let id = start(&mut client, fails);
            run(&mut client, &format!("SELECT usher.emit_event('default', 'w.go', '{{\"run\": \"{id}\"}}')"));
            runs += 1;
        }
        wait::until_true(
            &mut client,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
        );
        client = server::crash(&database);
    }
    wait::until_true(&mut client, &format!("SELECT count(*) = {runs} FROM usher.workflow_runs WHERE ended_at IS NOT NULL"));
    settled(&mut client, wait::LONG);
    let here = &mut client;
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', f, state, n), ', ' ORDER BY f, state) FROM (SELECT input ->> 'fails' AS f, state, count(*) AS n FROM usher.workflow_runs GROUP BY 1, 2) AS x"
        ),
        " done 16, c undone 8, d undone 8, e undone 8"
    );
    // What leaves the database is made at least once: the others exactly once.
    assert_eq!(
        number(
            here,
            &WRONG
                .replace("AND s.step NOT IN", "AND s.step <> 'd' AND s.step NOT IN")
                .replace("FROM work.ledger l GROUP", "FROM work.ledger l WHERE l.step <> 'd' GROUP")
        ),
        0
    );
    assert_eq!(number(here, "SELECT count(*) FROM usher.workflow_checks"), 0);
    assert_eq!(number(here, "SELECT count(*) FROM usher.workflow_waits"), 0);
}

#[test]
fn steps_side_by_side_wait_for_each_other_whoever_ends_last() {
    // Two lanes are two processes: their batches end at the same time.
    let steps = json!([
        step("left", json!({"priority": "emergency", "undo": null})),
        step("right", json!({"after": [], "undo": null})),
        step("end", json!({"after": ["left", "right"], "undo": null})),
    ]);
    let (_database, mut client) = works("usher_test_workflows_join", &steps);
    let here = &mut client;
    run(here, "SELECT usher.start_workflow('default', 'work') FROM generate_series(1, 300)");
    wait::until_true(here, "SELECT count(*) = 300 FROM usher.workflow_runs WHERE state = 'done'");
    assert!(
        number(here, "SELECT count(DISTINCT by) FROM work.ledger WHERE step IN ('left', 'right')") > 1,
        "two processes do the two lanes"
    );
    assert_eq!(number(here, WRONG), 0);
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM work.ledger e WHERE step = 'end' AND EXISTS (SELECT FROM work.ledger l WHERE l.run = e.run AND l.at > e.at)"
        ),
        0
    );
}

#[test]
fn an_event_that_comes_while_its_step_begins_to_wait_is_heard() {
    let steps = json!([step("a", json!({"undo": null})), {"step": "wait", "wait": {"event": "w.*", "match": {"n": "run.input ->> 'n'"}}}, step("b", json!({"undo": null}))]);
    let (database, mut client) = works("usher_test_workflows_race", &steps);
    let here = &mut client;
    // Emitted before, at the same time as, and after the wait begins, in transactions that are open for a while.
    let mut other = database.connect();
    for n in 0..40 {
        run(&mut other, "BEGIN");
        run(here, &format!("SELECT usher.start_workflow('default', 'work', '{{\"n\": {n}}}')"));
        if n % 2 == 0 {
            run(&mut other, &format!("SELECT usher.emit_event('default', 'w.x', '{{\"n\": {n}}}')"));
            wait::until_true(
                here,
                &format!(
                    "SELECT EXISTS (SELECT FROM usher.workflow_steps s JOIN usher.workflow_runs r ON r.id = s.run_id WHERE r.input ->> 'n' = '{n}' AND s.step = 'a')"
                ),
            );
        } else {
            wait::until_true(
                here,
                &format!(
                    "SELECT EXISTS (SELECT FROM usher.workflow_steps s JOIN usher.workflow_runs r ON r.id = s.run_id WHERE r.input ->> 'n' = '{n}' AND s.step = 'wait')"
                ),
            );
            run(&mut other, &format!("SELECT usher.emit_event('default', 'w.x', '{{\"n\": {n}}}')"));
        }
        run(&mut other, "COMMIT");
    }
    wait::until_true(here, "SELECT count(*) = 40 FROM usher.workflow_runs WHERE state = 'done'");
    assert_eq!(number(here, WRONG), 0);
}

#[test]
fn a_step_whose_job_somebody_cancels_is_undone() {
    let steps = json!([step("a", json!({})), step("b", json!({}))]);
    let (_database, mut client) = works("usher_test_workflows_cancel", &steps);
    let here = &mut client;
    run(here, "SELECT usher.pause_jobs(flow => 'work:b')");
    run(here, "SELECT usher.start_workflow('default', 'work')");
    wait::until_true(here, "SELECT EXISTS (SELECT FROM usher.sync_jobs WHERE flow = 'work:b' AND waiting_for = 'paused')");
    run(here, "SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE flow = 'work:b'");
    wait::until_true(here, "SELECT state = 'undone' FROM usher.workflow_runs");
    assert_eq!(text(here, "SELECT error_message FROM usher.workflow_runs"), "step \"b\": its job was cancelled");
    assert_eq!(number(here, WRONG), 0);
}

#[test]
fn runs_that_sleep_are_left_alone() {
    let steps = json!([{"step": "nap", "sleep": "300 days"}, step("b", json!({"undo": null}))]);
    let (_database, mut client) = works("usher_test_workflows_sleep", &steps);
    let here = &mut client;
    run(here, "SELECT count(usher.start_workflow('default', 'work')) FROM generate_series(1, 2000)");
    wait::until_true(here, "SELECT count(*) = 2000 FROM usher.queue_waiting");
    let read = "SELECT COALESCE(sum(seq_tup_read + COALESCE(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = 'usher' AND relname IN ('workflow_runs', 'workflow_steps')";
    run(here, "SELECT pg_stat_force_next_flush()");
    wait::until_true(here, &format!("SELECT ({read}) >= 2000"));
    let before = number(here, read);
    assert!(before < 20_000, "{before} rows of runs and steps were read to begin 2000 runs");
    // Nobody reads the runs that sleep while others go through.
    let quick = json!([step("b", json!({"undo": null}))]);
    flow(
        here,
        "quick",
        &json!({"run_as": "clients_workflows", "from": "w", "to": "w", "when": {"request": "quick"}, "then": {"steps": quick}}),
    );
    run(here, "SELECT usher.start_workflow('default', 'quick') FROM generate_series(1, 20)");
    wait::until_true(here, "SELECT count(*) = 20 FROM usher.sync_jobs WHERE flow = 'quick:b' AND status = 'synced'");
    run(here, "SELECT pg_stat_force_next_flush()");
    wait::until_true(here, &format!("SELECT ({read}) >= {before} + 60"));
    let more = number(here, read) - before;
    assert!(more < 1_000, "{more} rows of runs and steps were read for 20 runs");
}
