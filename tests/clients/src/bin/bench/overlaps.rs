//! What an overlap rule costs those who write, and what a look at all rows costs.

use crate::{Figure, Gate, level, median, size};
use std::time::Instant;
use usher_clients::{Client, Database, json, number, run, text};

pub const METHOD: &str = "bookings of 1,000 resources, none of which overlap, in a table with an index on the resource; 100 transactions with an INSERT of 10 rows each, with a rule \
and without, the looks after the commits being worked off meanwhile; then usher.check_overlaps() of 100,000 rows (BENCH_JOBS), of which 100 pairs overlap, against a self-join by hand that \
finds the same pairs. In turns, median of 5";

const ROUNDS: usize = 5;
/// Bookings of one resource begin so many minutes after one another, and are as long.
const MINUTES: i64 = 10;

pub fn measure(database: &Database) -> Vec<Figure> {
    let rows = size("BENCH_JOBS").max(1_000);
    let mut client = database.connect();
    let here = &mut client;
    run(here, "CREATE SCHEMA bench_halls");
    for name in ["ruled", "plain"] {
        run(
            here,
            &format!(
                "CREATE TABLE bench_halls.{name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hall integer, starts_at timestamptz, ends_at timestamptz);
                 CREATE INDEX ON bench_halls.{name} (hall, starts_at)"
            ),
        );
    }
    let rule = json!({"table": "bench_halls.ruled", "resource": "hall", "period": ["starts_at", "ends_at"], "sweep": false});
    run(here, &format!("SELECT usher.create_overlap_rule('bench_halls', '{rule}')"));
    let (mut ruled, mut plain) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as i64 {
        ruled.push(writes(here, "ruled", round));
        plain.push(writes(here, "plain", round));
    }
    assert_eq!(number(here, "SELECT count(*) FROM usher.conflicts WHERE rule = 'bench_halls'"), 0);
    fill(here, rows);
    let (mut swept, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        swept.push(seconds(here, "SELECT * FROM usher.check_overlaps('bench_halls')"));
        by_hand.push(seconds(
            here,
            "SELECT a.id, b.id FROM bench_halls.ruled AS a JOIN bench_halls.ruled AS b ON b.hall = a.hall AND b.id > a.id AND a.starts_at < b.ends_at AND b.starts_at < a.ends_at",
        ));
    }
    assert_eq!(number(here, "SELECT count(*) FROM usher.conflicts WHERE rule = 'bench_halls' AND state = 'open'"), 100);
    run(
        here,
        "SELECT usher.drop_overlap_rule('bench_halls'); DROP SCHEMA bench_halls CASCADE; DELETE FROM usher.conflicts WHERE rule = 'bench_halls'",
    );
    let rate = |seconds: f64| rows as f64 / seconds;
    vec![
        Figure::new("overlap_rule_writes", median(ruled), median(plain), "rows/s", Gate::None),
        Figure::new("overlap_sweep", rate(median(swept)), rate(median(by_hand)), "rows/s", Gate::None),
    ]
}

/// Rows a second, in transactions of ten rows of ten resources.
fn writes(client: &mut Client, table: &str, round: i64) -> f64 {
    level(client);
    let begin = Instant::now();
    for n in 0..100 {
        run(
            client,
            &format!(
                "INSERT INTO bench_halls.{table} (hall, starts_at, ends_at)
                 SELECT hall, at, at + interval '{MINUTES} min' FROM (SELECT ({n} * 10 + h) % 1000 AS hall, timestamptz '2026-01-01 00:00Z' + {round} * interval '{MINUTES} min' AS at
                                                                        FROM generate_series(0, 9) AS h) AS b"
            ),
        );
    }
    1_000.0 / begin.elapsed().as_secs_f64()
}

/// As many bookings as are asked for, ten minutes each and one after another, and 100 that begin within the one before.
fn fill(client: &mut Client, rows: i64) {
    run(
        client,
        &format!(
            "TRUNCATE bench_halls.ruled;
             INSERT INTO bench_halls.ruled (hall, starts_at, ends_at)
             SELECT n % 1000, at, at + CASE WHEN n <= 100 THEN interval '15 min' ELSE interval '{MINUTES} min' END
               FROM (SELECT n, timestamptz '2027-01-01 00:00Z' + (n / 1000) * interval '{MINUTES} min' AS at FROM generate_series(1, {rows}) AS n) AS b;
             ANALYZE bench_halls.ruled"
        ),
    );
}

fn seconds(client: &mut Client, sql: &str) -> f64 {
    let begin = Instant::now();
    text(client, &format!("SELECT count(*)::text FROM ({sql}) AS x"));
    begin.elapsed().as_secs_f64()
}
