//! What a commit gate costs those who write single rows, and what a look at what was touched costs beside a look at everything.

use crate::{Figure, Gate, flow_role, level, median, size};
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, json, number, run};

pub const METHOD: &str = "single-row INSERTs and UPDATEs by key, each committed by itself, by 1 and by 8 connections for 2 s, into a table of 100,000 rows (BENCH_JOBS) of 10,000 owners with a rule \
\"run\": [\"transaction\"] (no owner's sum below zero), and the same table without. fsync and synchronous_commit are on. In turns, median of 5";

const ROUNDS: usize = 5;
const OWNERS: i64 = 10_000;

pub fn measure(database: &Database) -> Vec<Figure> {
    let rows = size("BENCH_JOBS").max(1_000);
    let mut client = database.connect();
    let here = &mut client;
    run(here, "CREATE SCHEMA bench_gate");
    for name in ["ruled", "plain"] {
        run(
            here,
            &format!(
                "CREATE TABLE bench_gate.{name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner integer NOT NULL, amount integer NOT NULL);
                 INSERT INTO bench_gate.{name} (owner, amount) SELECT n % {OWNERS}, 100 FROM generate_series(1, {rows}) AS n;
                 CREATE INDEX ON bench_gate.{name} (owner); ANALYZE bench_gate.{name}"
            ),
        );
    }
    flow_role(here, "bench_gate.ruled");
    run(here, "GRANT USAGE ON SCHEMA bench_gate TO clients_bench");
    let rule = json!({
        "query": "SELECT owner, sum(amount) AS sum FROM bench_gate.ruled GROUP BY owner HAVING sum(amount) < 0",
        "key": ["owner"], "wrong": "'the sum is ' || sum", "touches": {"bench_gate.ruled": {"owner": "row.owner"}},
        "run": ["transaction"], "run_as": "clients_bench"
    })
    .to_string()
    .replace('\'', "''");
    run(here, &format!("SELECT usher.create_rule('bench_gate', '{rule}')"));
    let mut figures = Vec::new();
    for (what, sql) in [
        ("insert", "INSERT INTO bench_gate.TABLE (owner, amount) VALUES (:n % 10000, 1)"),
        ("update", "UPDATE bench_gate.TABLE SET amount = amount + 1 WHERE id = 1 + :n % 1000"),
    ] {
        for connections in [1, 8] {
            let (mut ruled, mut plain) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ruled.push(rate(database, here, connections, &sql.replace("TABLE", "ruled")));
                plain.push(rate(database, here, connections, &sql.replace("TABLE", "plain")));
            }
            let name = format!("gated_{what}s_{connections}");
            figures.push(Figure::new(name, median(ruled), median(plain), "rows/s", Gate::AtLeast(0.75)));
        }
    }
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE rule = 'bench_gate'"), 0);
    run(here, "SELECT usher.drop_rule('bench_gate'); DROP SCHEMA bench_gate CASCADE");
    figures
}

/// Rows a second of all connections together.
fn rate(database: &Database, client: &mut Client, connections: i64, sql: &str) -> f64 {
    const SPAN: Duration = Duration::from_secs(2);
    level(client);
    let done: i64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..connections)
            .map(|writer| {
                scope.spawn(move || {
                    let mut mine = database.connect();
                    let prepared = mine.prepare(&sql.replace(":n", "$1::integer")).expect("a statement that can be prepared");
                    let (begin, mut done) = (Instant::now(), 0_i64);
                    while begin.elapsed() < SPAN {
                        let n = i32::try_from((writer * 7_919 + done * 31) % 1_000_000).expect("a small number");
                        mine.execute(&prepared, &[&n]).expect("a row that is written");
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer ends")).sum()
    });
    done as f64 / SPAN.as_secs_f64()
}
