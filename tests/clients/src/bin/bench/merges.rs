//! What a merge costs beside the one-way flow that writes the same fields.

use crate::{Figure, Gate, level, median, size};
use std::time::Instant;
use usher_clients::{Client, Database, flow, json, number, role, run, wait};

pub const METHOD: &str = "20,000 rows (BENCH_JOBS / 5) with a text, a note, a number and a time, each linked with its row of another table; one UPDATE changes two \
fields of every row, timed from there until all of the other table has them: through a merge, against an upsert with a link that sets the same four fields. Then both sides \
changed at once, in different fields, against the same upsert. In turns, median of 5";

const ROUNDS: usize = 5;

pub fn measure(database: &Database) -> Vec<Figure> {
    let rows = (size("BENCH_JOBS") / 5).max(1);
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_bench_merges", "NOLOGIN");
    run(here, "CREATE SCHEMA bench_pairs; GRANT USAGE ON SCHEMA bench_pairs TO clients_bench_merges");
    for name in ["one", "copy", "left", "right"] {
        run(
            here,
            &format!(
                "CREATE TABLE bench_pairs.{name} (id bigint PRIMARY KEY, title text, notes text, amount numeric, at timestamptz);
                 GRANT SELECT, INSERT, UPDATE, DELETE ON bench_pairs.{name} TO clients_bench_merges"
            ),
        );
    }
    let link = |kind: &str| json!({"kind": kind, "left": "new.id", "right": "id"});
    let fields = json!({"id": "new.id", "title": "new.title", "notes": "new.notes", "amount": "new.amount", "at": "new.at"});
    flow(
        here,
        "bench_one_way",
        &json!({"run_as": "clients_bench_merges", "when": {"change": "bench_pairs.one"}, "then": {"upsert": "bench_pairs.copy", "key": ["id"]}, "set": fields, "link": link("bench_one")}),
    );
    flow(
        here,
        "bench_both_ways",
        &json!({"run_as": "clients_bench_merges", "when": {"change": "bench_pairs.left"}, "link": link("bench_both"),
                "then": {"merge": "bench_pairs.right", "fields": ["title", "notes", "amount", "at"], "strategy": "latest", "new_right": {"id": "new.id"}, "new_left": {"id": "new.id"}}}),
    );
    for (table, other) in [("one", "copy"), ("left", "right")] {
        run(
            here,
            &format!(
                "INSERT INTO bench_pairs.{table} SELECT n, 'title ' || n, 'notes', n, now() FROM generate_series(1, {rows}) AS n"
            ),
        );
        wait::until_true_for(here, wait::LONG, &format!("SELECT count(*) = {rows} FROM bench_pairs.{other}"));
        wait::until_true(here, "SELECT NOT EXISTS (SELECT FROM usher.ready_jobs)");
        for name in [table, other] {
            run(here, &format!("VACUUM ANALYZE bench_pairs.{name}"));
        }
    }
    let (mut one_way, mut merge, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        one_way.push(through(here, "one", &["copy"], round * 3, rows));
        merge.push(through(here, "left", &["right"], round * 3 + 1, rows));
        both.push(through(here, "left", &["right", "left"], round * 3 + 2, rows));
    }
    assert_eq!(number(here, "SELECT count(*) FROM usher.conflicts"), 0);
    run(
        here,
        "SELECT usher.drop_flow('bench_one_way'), usher.drop_flow('bench_both_ways'); DROP SCHEMA bench_pairs CASCADE; DELETE FROM usher.links WHERE kind LIKE 'bench%'",
    );
    let (one_way, merge, both) = (median(one_way), median(merge), median(both));
    vec![
        Figure::new("merge", merge, one_way, "rows/s", Gate::AtLeast(0.5)),
        Figure::new("merge_of_both_sides", both, one_way, "rows/s", Gate::None),
    ]
}

/// Rows a second from their change to its effect. With two tables also the other side is changed, in another field.
fn through(client: &mut Client, table: &str, others: &[&str], round: usize, rows: i64) -> f64 {
    level(client);
    let begin = Instant::now();
    run(client, "BEGIN");
    run(client, &format!("UPDATE bench_pairs.{table} SET title = 'round {round} ' || id, amount = amount + 1"));
    if others.len() > 1 {
        run(client, &format!("UPDATE bench_pairs.{} SET notes = 'round {round} ' || id", others[0]));
    }
    run(client, "COMMIT");
    for (field, other) in ["title", "notes"].iter().zip(others) {
        let left = format!("SELECT NOT EXISTS (SELECT FROM bench_pairs.{other} WHERE {field} <> 'round {round} ' || id)");
        wait::until_true_for(client, wait::LONG, &left);
    }
    wait::until_true(client, "SELECT NOT EXISTS (SELECT FROM usher.ready_jobs)");
    rows as f64 / begin.elapsed().as_secs_f64()
}
