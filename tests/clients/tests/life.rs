//! A job's life under many callers at once and under kill -9: unique keys, jobs that wait for others, batches, expiry.

use std::thread;
use usher_clients::wait::{LONG, until_true, until_true_for};
use usher_clients::{Client, Database, Uuid, run, server, value};

const FLOWS: &str = r#"
CREATE SCHEMA life;
CREATE TABLE life.done (seq bigint GENERATED ALWAYS AS IDENTITY, what text, CHECK (what <> 'poison'));
GRANT USAGE ON SCHEMA life TO life_flows;
GRANT ALL ON ALL TABLES IN SCHEMA life TO life_flows;
SELECT usher.create_system('life.a'), usher.create_system('life.b');
SELECT usher.create_flow('life_work', '{"from": "life.a", "to": "life.b", "when": {"request": "work"}, "then": {"insert": "life.done"},
  "set": {"what": "job.payload->>''what''"}, "retry": {"delays": []}, "run_as": "life_flows"}');
CREATE FUNCTION life.ask(what text, options jsonb DEFAULT NULL) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM usher.enqueue_sync_job('default', 'life.a', 'life.b', jsonb_build_object('action', 'work', 'what', what), options => options) $$;
"#;

fn database(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    usher_clients::role(&mut client, "life_flows", "NOLOGIN");
    run(&mut client, FLOWS);
    (database, client)
}

/// Fifty callers with one key, again and again, while workers end the jobs: at any time there is one job for the key, and
/// every caller gets one that was made.
#[test]
fn one_key_one_job() {
    let (database, mut client) = database("usher_life_keys");
    for (hold, rounds, most) in [("pending", 6, i64::MAX), ("1 hour", 2, 1), ("ever", 2, 1)] {
        run(&mut client, "TRUNCATE life.done");
        let options = format!(r#"{{"unique": {{"key": "of {hold}", "for": "{hold}"}}}}"#);
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let (mut session, options) = (database.connect(), options.clone());
                thread::spawn(move || {
                    (0..rounds)
                        .map(|_| value::<Uuid>(&mut session, &format!("SELECT life.ask('work', '{options}')"), &[]))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut got: Vec<Uuid> = callers.into_iter().flat_map(|caller| caller.join().expect("no caller gets an error")).collect();
        got.sort_unstable();
        got.dedup();
        assert!(i64::try_from(got.len()).unwrap() <= most, "{hold}: {} jobs", got.len());
        until_true(&mut client, "SELECT NOT EXISTS (SELECT FROM usher.sync_jobs WHERE status IN ('pending', 'in_progress'))");
        let done: i64 = value(&mut client, "SELECT count(*) FROM life.done", &[]);
        assert_eq!(usize::try_from(done).unwrap(), got.len(), "{hold}: as many effects as jobs that callers know");
        let keys: i64 = value(&mut client, &format!("SELECT count(*) FROM usher.job_keys WHERE unique_key = 'of {hold}'"), &[]);
        assert_eq!(keys, 1, "{hold}: one row for the key");
    }
    // Held back, so that the job stays pending: then one job whoever calls.
    run(&mut client, "SELECT usher.disable_flow('life_work')");
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let mut session = database.connect();
            thread::spawn(move || {
                value::<Uuid>(&mut session, r#"SELECT life.ask('work', '{"unique": {"key": "held", "for": "pending"}}')"#, &[])
            })
        })
        .collect();
    let mut got: Vec<Uuid> = callers.into_iter().map(|caller| caller.join().expect("no caller gets an error")).collect();
    got.dedup();
    assert_eq!(got.len(), 1);
}

/// Chains of jobs made while the ones before them end: none waits for ever, and each comes after those it names.
#[test]
fn nobody_waits_for_ever() {
    let (database, mut client) = database("usher_life_after");
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let mut session = database.connect();
            thread::spawn(move || {
                let mut before: Vec<Uuid> = Vec::new();
                for n in 0..60 {
                    let after: Vec<String> = before.iter().rev().take(3).map(|id| format!("\"{id}\"")).collect();
                    let options = format!(r#"{{"after": [{}]}}"#, after.join(", "));
                    before.push(value(&mut session, &format!("SELECT life.ask('{caller}/{n:03}', '{options}')"), &[]));
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().expect("no caller gets an error"));
    until_true_for(&mut client, LONG, "SELECT count(*) = 480 FROM life.done");
    let in_order: bool = value(
        &mut client,
        "SELECT bool_and(what > before) FROM (SELECT what, lag(what) OVER (PARTITION BY split_part(what, '/', 1) ORDER BY seq) AS before FROM life.done) AS d
          WHERE before IS NOT NULL",
        &[],
    );
    assert!(in_order, "every job comes after those it names");
    until_true(&mut client, "SELECT count(*) = 0 FROM usher.job_dependencies");
    until_true(&mut client, "SELECT count(*) = 0 FROM usher.job_checks");
}

/// A job expires at its time, by a worker that nobody wakes: its flow is off, nothing else happens.
#[test]
fn a_waiting_job_expires_by_itself() {
    let (_database, mut client) = database("usher_life_expiry");
    run(&mut client, "SELECT usher.disable_flow('life_work')");
    let job: Uuid = value(&mut client, r#"SELECT life.ask('late', '{"expires_in": "300 ms"}')"#, &[]);
    until_true(&mut client, &format!("SELECT EXISTS (SELECT FROM usher.dead_letters WHERE id = '{job}' AND sqlstate = 'US001')"));
    run(&mut client, "SELECT usher.enable_flow('life_work')");
    run(&mut client, "SELECT life.ask('in time')");
    until_true(&mut client, "SELECT count(*) = 1 FROM life.done");
    let late: i64 = value(&mut client, "SELECT count(*) FROM life.done WHERE what = 'late'", &[]);
    assert_eq!(late, 0);
}

/// Kills the worker of one lane or the other with whatever it is doing, and waits until the server is there again.
fn kill_worker(database: &Database, mut client: Client, which: i64) -> Client {
    let lane = if which % 2 == 0 { "normal" } else { "critical" };
    let pid = server::worker_of(&mut client, lane).expect("a worker serves the lane");
    server::kill_and_recover(database, &mut client, pid)
}

/// Workers are killed while they run batches of jobs that others wait for: every job runs once, every batch is completed
/// once, with the right counts.
#[test]
fn batches_survive_kill_9() {
    let (database, mut client) = database("usher_life_kill");
    run(
        &mut client,
        r#"SELECT usher.create_flow('life_sum', '{"from": "life.a", "to": "life.b", "when": {"request": "sum"}, "then": {"insert": "life.done"},
             "set": {"what": "''sum '' || (job.payload->''batch''->>''done'') || '' '' || (job.payload->''batch''->>''failed'') || '' '' || (job.payload->''batch''->>''total'')"}, "run_as": "life_flows"}')"#,
    );
    const BATCHES: i64 = 10;
    const SIZE: i64 = 300;
    let mut batches = Vec::new();
    for batch in 0..BATCHES {
        let id: Uuid = value(
            &mut client,
            r#"SELECT usher.create_batch('default', 'b', '{"source": "life.a", "target": "life.b", "payload": {"action": "sum"}}')"#,
            &[],
        );
        run(
            &mut client,
            &format!(
                "SELECT usher.enqueue_sync_jobs('default', 'life.a', 'life.b',
                     ARRAY(SELECT jsonb_build_object('action', 'work', 'what', CASE WHEN g = 7 THEN 'poison' ELSE '{batch}/' || g END) FROM generate_series(1, {SIZE}) AS g),
                     CASE {batch} % 2 WHEN 0 THEN 'normal' ELSE 'critical' END, options => '{{\"batch\": \"{id}\"}}')"
            ),
        );
        batches.push(id);
        client = kill_worker(&database, client, batch);
        if batch % 3 == 2 {
            run(&mut client, &format!("SELECT usher.seal_batch('{id}')"));
            client = kill_worker(&database, client, batch + 1);
        }
    }
    for id in &batches {
        run(&mut client, &format!("SELECT usher.seal_batch('{id}')"));
    }
    client = kill_worker(&database, client, 0);
    until_true_for(
        &mut client,
        LONG * 4,
        &format!(
            "SELECT count(*) = {BATCHES} FROM usher.batches WHERE state = 'finished' AND total = {SIZE} AND done = {SIZE} - 1 AND failed = 1"
        ),
    );
    until_true_for(
        &mut client,
        LONG,
        &format!("SELECT count(*) = {BATCHES} FROM life.done WHERE what = 'sum {} 1 {SIZE}'", SIZE - 1),
    );
    let (done, different): (i64, i64) = (
        value(&mut client, "SELECT count(*) FROM life.done", &[]),
        value(&mut client, "SELECT count(DISTINCT what) FROM life.done WHERE what NOT LIKE 'sum%'", &[]),
    );
    assert_eq!((done, different), (BATCHES * SIZE, BATCHES * (SIZE - 1)));
}
