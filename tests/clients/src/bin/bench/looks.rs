//! What a look at touched keys takes beside a look at everything, and what it costs writers to note them.

use crate::{Figure, Gate, flow_role, level, median, size};
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, json, number, run};

pub const METHOD: &str = "a rule over two tables of 2,000,000 rows each (BENCH_LOOKED), joined by their keys: a look at everything, in parts, the faster of two, and by one statement (usher.check_rule()); and after 1,000,000 changed rows (BENCH_CHURN) \
in transactions of 1,000, of 1,000 distinct keys, of 10,000, and all distinct, the looks by which all that was touched has been looked at, the clearing away of what was noted included. Of as many as a quarter \
of the rows everything is looked at instead. Then transactions of one row each, a tenth of as many. All looks by one call of usher.process_jobs(); each finds a few bad rows. \
Writers: single-row UPDATEs by key, each committed by itself, for 2 s, on a table with the rule and on one without, in turns, median of 3";

const NAME: &str = "bench_looks";
const ROUNDS: usize = 3;

pub fn measure(database: &Database) -> Vec<Figure> {
    let rows = size("BENCH_LOOKED").max(10_000);
    let changed = size("BENCH_CHURN").min(rows);
    let mut client = database.connect();
    let here = &mut client;
    run(here, "CREATE SCHEMA bench_looks");
    for name in ["items", "bills", "plain"] {
        run(
            here,
            &format!(
                "CREATE TABLE bench_looks.{name} (id bigint PRIMARY KEY, amount integer NOT NULL) WITH (fillfactor = 90);
                 INSERT INTO bench_looks.{name} SELECT n, 100 FROM generate_series(1, {rows}) AS n; ANALYZE bench_looks.{name}"
            ),
        );
    }
    flow_role(here, "bench_looks.items, bench_looks.bills");
    run(here, "GRANT USAGE ON SCHEMA bench_looks TO clients_bench");
    let rule = json!({
        "query": "SELECT i.id, i.amount, b.amount AS billed FROM bench_looks.items i LEFT JOIN bench_looks.bills b ON b.id = i.id WHERE b.amount IS DISTINCT FROM i.amount",
        "key": ["id"], "wrong": "'item ' || id || ' is billed ' || billed", "every": "1 day", "full": "2 days", "run_as": "clients_bench",
        "touches": {"bench_looks.items": {"id": "row.id"}, "bench_looks.bills": {"id": "row.id"}}
    })
    .to_string()
    .replace('\'', "''");
    run(here, &format!("SELECT usher.create_rule('{NAME}', '{rule}')"));
    let mut fulls = Vec::new();
    while number(here, &format!("SELECT count(*) FROM usher.rules WHERE name = '{NAME}' AND keyed_now")) == 0 || fulls.len() < 2 {
        fulls.push(look(here, "check_at"));
    }
    let full = fulls.into_iter().fold(f64::INFINITY, f64::min);
    let begun = Instant::now();
    run(here, &format!("SELECT * FROM usher.check_rule('{NAME}')"));
    let at_once = begun.elapsed().as_secs_f64();
    let mut figures = Vec::new();
    for (distinct, gate) in [(1_000, Gate::AtMost(0.05)), (10_000, Gate::AtMost(0.05)), (changed, Gate::None)] {
        change(here, rows, changed, distinct, 1_000);
        let took = look(here, "keys_at");
        figures.push(Figure::new(format!("look_at_{distinct}_of_{changed}"), took, full, "s", gate));
        figures.push(Figure::new("the_same_beside_one_statement", took, at_once, "s", Gate::None));
    }
    change(here, rows, changed / 10, 10_000, 1);
    figures.push(Figure::new(format!("look_at_single_{}", changed / 10), look(here, "keys_at"), full, "s", Gate::None));
    for connections in [1, 8] {
        let (mut ruled, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ruled.push(rate(database, here, connections, "items", rows));
            plain.push(rate(database, here, connections, "plain", rows));
        }
        figures.push(Figure::new(format!("noted_updates_{connections}"), median(ruled), median(plain), "rows/s", Gate::None));
    }
    run(here, &format!("SELECT usher.drop_rule('{NAME}'); DROP SCHEMA bench_looks CASCADE"));
    figures
}

/// Changes so many rows, of so many keys spread over the table, in transactions of so many rows; three of them are bad then.
fn change(client: &mut Client, rows: i64, changed: i64, distinct: i64, each: i64) {
    // The worker leaves it to us.
    run(client, &format!("UPDATE usher.rules SET keys_at = now() + interval '1 h' WHERE name = '{NAME}'"));
    run(
        client,
        &format!(
            "DO $$ DECLARE first bigint := 0; BEGIN
                 WHILE first < {changed} LOOP
                     UPDATE bench_looks.items SET amount = 100 WHERE id = ANY (ARRAY(SELECT 1 + (n % {distinct}) * 7919 % {rows} FROM generate_series(first, first + {each} - 1) AS n));
                     COMMIT;
                     first := first + {each};
                 END LOOP;
             END $$"
        ),
    );
    run(
        client,
        &format!(
            "UPDATE bench_looks.items SET amount = 99 WHERE id IN (SELECT 1 + n * 7919 % {rows} FROM generate_series(0, 2) AS n)"
        ),
    );
    level(client);
}

/// Seconds until all is looked at that is due when its time has come; what is known to be bad then is what is.
fn look(client: &mut Client, due: &str) -> f64 {
    run(client, &format!("BEGIN; UPDATE usher.rules SET {due} = clock_timestamp(), changes = NULL WHERE name = '{NAME}'"));
    let begun = Instant::now();
    run(client, "SELECT usher.process_jobs(); COMMIT");
    let took = begun.elapsed().as_secs_f64();
    let differing = number(
        client,
        "SELECT count(*) FROM (SELECT i.id FROM bench_looks.items i JOIN bench_looks.bills b USING (id) WHERE b.amount <> i.amount) AS i
           FULL JOIN (SELECT (key ->> 'id')::bigint AS id FROM usher.violations WHERE rule = 'bench_looks' AND status = 'open') AS v USING (id) WHERE i.id IS NULL OR v.id IS NULL",
    );
    assert_eq!(differing, 0, "what is open is what is bad");
    took
}

/// Rows a second of all connections together.
fn rate(database: &Database, client: &mut Client, connections: i64, table: &str, rows: i64) -> f64 {
    const SPAN: Duration = Duration::from_secs(2);
    level(client);
    let done: i64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..connections)
            .map(|writer| {
                scope.spawn(move || {
                    let mut mine = database.connect();
                    let sql = format!("UPDATE bench_looks.{table} SET amount = 100 WHERE id = $1");
                    let prepared = mine.prepare(&sql).expect("a statement that can be prepared");
                    let (begin, mut done) = (Instant::now(), 0_i64);
                    while begin.elapsed() < SPAN {
                        mine.execute(&prepared, &[&(1 + (writer * 7_919 + done * 31) % rows)]).expect("a row that is written");
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
