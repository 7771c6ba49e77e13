//! What it costs to have a run of five steps, and what runs that sleep cost.

use crate::{Figure, Gate, best, level, size};
use std::time::Instant;
use usher_clients::{Client, Database, Value, flow, json, number, role, run, wait};

pub const METHOD: &str = "a workflow of five steps, each an INSERT with an undo, begun for each of 5,000 rows (BENCH_JOBS / 20) by one INSERT and timed from there until \
all runs are done; against the same five INSERTs for each row in five transactions of a procedure (five COMMITs, no network), in turns, best of 5. Then the same \
runs while 100,000 others (BENCH_JOBS) sleep, against the mean of before and after";

const ROUNDS: usize = 5;

pub fn measure(database: &Database) -> Vec<Figure> {
    let runs = (size("BENCH_JOBS") / 20).max(1);
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_bench_workflows", "NOLOGIN");
    run(
        here,
        "CREATE SCHEMA bench_steps; CREATE TABLE bench_steps.source (id bigint PRIMARY KEY);
         GRANT USAGE ON SCHEMA bench_steps TO clients_bench_workflows",
    );
    let steps: Vec<Value> = (1..=5)
        .map(|n| {
            run(
                here,
                &format!(
                    "CREATE TABLE bench_steps.t{n} (id bigint PRIMARY KEY, v text); GRANT SELECT, INSERT, DELETE ON bench_steps.t{n} TO clients_bench_workflows"
                ),
            );
            let id = "(run.input ->> 'id')::bigint";
            json!({"step": format!("s{n}"), "insert": format!("bench_steps.t{n}"), "key": ["id"], "on_conflict": "keep", "set": {"id": id, "v": "'done'"},
                   "undo": {"delete": format!("bench_steps.t{n}"), "key": ["id"], "set": {"id": id}}})
        })
        .collect();
    let workflow = |steps: &Value| json!({"run_as": "clients_bench_workflows", "when": {"change": "bench_steps.source", "on": ["insert"]}, "set": {"id": "new.id"}, "then": {"steps": steps}});
    flow(here, "bench_steps", &workflow(&json!(steps)));
    run(
        here,
        "CREATE PROCEDURE bench_steps.by_hand(many bigint) LANGUAGE plpgsql AS $$
         BEGIN
             FOR i IN 1..many LOOP
                 INSERT INTO bench_steps.t1 VALUES (i, 'done') ON CONFLICT DO NOTHING; COMMIT;
                 INSERT INTO bench_steps.t2 VALUES (i, 'done') ON CONFLICT DO NOTHING; COMMIT;
                 INSERT INTO bench_steps.t3 VALUES (i, 'done') ON CONFLICT DO NOTHING; COMMIT;
                 INSERT INTO bench_steps.t4 VALUES (i, 'done') ON CONFLICT DO NOTHING; COMMIT;
                 INSERT INTO bench_steps.t5 VALUES (i, 'done') ON CONFLICT DO NOTHING; COMMIT;
             END LOOP;
         END $$",
    );
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(through(here, runs));
        by_hand.push(hand(here, runs));
    }
    let (ours, by_hand) = (best(ours.into_iter()), best(by_hand.into_iter()));
    let awake = || best((0..ROUNDS).map(|_| through(&mut database.connect(), runs)));
    let before = awake();
    let sleeping = size("BENCH_JOBS");
    flow(
        here,
        "bench_sleep",
        &json!({"run_as": "clients_bench_workflows", "from": "a", "to": "b", "when": {"request": "sleep"}, "then": {"steps": [{"step": "nap", "sleep": "300 days"}]}}),
    );
    run(here, &format!("SELECT count(usher.start_workflow('default', 'bench_sleep')) FROM generate_series(1, {sleeping})"));
    assert_eq!(number(here, "SELECT count(*) FROM usher.queue_waiting"), sleeping);
    rest(here);
    let asleep = awake();
    run(
        here,
        "DELETE FROM usher.queue_waiting; DELETE FROM usher.workflow_steps s USING usher.workflow_runs r WHERE r.id = s.run_id AND r.ended_at IS NULL;
         DELETE FROM usher.workflow_runs WHERE ended_at IS NULL",
    );
    rest(here);
    let after = awake();
    run(
        here,
        "SELECT usher.drop_flow('bench_sleep'), usher.drop_flow('bench_steps');
         DROP SCHEMA bench_steps CASCADE; TRUNCATE usher.workflow_runs, usher.workflow_steps",
    );
    vec![
        Figure::new("workflow_of_five_steps", ours, by_hand, "runs/s", Gate::AtLeast(0.3)),
        Figure::new("workflow_while_others_sleep", asleep, (before + after) / 2.0, "runs/s", Gate::AtLeast(0.95)),
    ]
}

/// What has been written so much is put in order before anything is measured.
fn rest(client: &mut Client) {
    for sql in [
        "VACUUM ANALYZE usher.workflow_runs",
        "VACUUM ANALYZE usher.workflow_steps",
        "VACUUM ANALYZE usher.queue_waiting",
        "CHECKPOINT",
    ] {
        run(client, sql);
    }
}

fn empty(client: &mut Client) {
    run(client, "TRUNCATE bench_steps.t1, bench_steps.t2, bench_steps.t3, bench_steps.t4, bench_steps.t5");
    level(client);
}

fn through(client: &mut Client, runs: i64) -> f64 {
    empty(client);
    run(client, "TRUNCATE bench_steps.source");
    let before = number(client, "SELECT count(*) FROM usher.workflow_runs WHERE state = 'done'");
    let begin = Instant::now();
    run(client, &format!("INSERT INTO bench_steps.source SELECT generate_series(1, {runs})"));
    // The last table first: it costs nothing to ask until it is full.
    wait::until_true_for(client, wait::LONG, &format!("SELECT count(*) = {runs} FROM bench_steps.t5"));
    let seconds = begin.elapsed().as_secs_f64();
    wait::until_true(client, &format!("SELECT count(*) = {} FROM usher.workflow_runs WHERE state = 'done'", before + runs));
    runs as f64 / seconds
}

fn hand(client: &mut Client, runs: i64) -> f64 {
    empty(client);
    let begin = Instant::now();
    run(client, &format!("CALL bench_steps.by_hand({runs})"));
    runs as f64 / begin.elapsed().as_secs_f64()
}
