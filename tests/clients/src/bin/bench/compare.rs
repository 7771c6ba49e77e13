//! What it costs to find the one row of ten millions that differs.

use crate::{Figure, Gate, level, size};
use std::time::Instant;
use usher_clients::{Client, Database, number, run, text};

pub const METHOD: &str = "usher.compare_tables() over two tables of 10,000,000 rows (BENCH_COMPARED), key (organization_id, id) and five columns, of which one row differs, best \
of 3 in turns; against a hand-written FULL JOIN … USING (organization_id, id) WHERE a.x IS DISTINCT FROM b.x OR … that finds the same: the best of its plans (hash, merge) with \
default settings, and with a work_mem of 2 GB. Then with none that differs, with one of a hundred and with all of them, beside that join of the same tables";

const ROUNDS: usize = 3;

const JOIN: &str = "SELECT count(*) FROM (SELECT id FROM bench_compare.a FULL JOIN bench_compare.b USING (organization_id, id) WHERE a.name IS DISTINCT FROM b.name
    OR a.notes IS DISTINCT FROM b.notes OR a.amount IS DISTINCT FROM b.amount OR a.n IS DISTINCT FROM b.n OR a.at IS DISTINCT FROM b.at) AS x";
const OURS: &str = "SELECT count(*) FROM usher.compare_tables('bench_compare.a', 'bench_compare.b')";

fn seconds(client: &mut Client, sql: &str, expected: i64) -> f64 {
    let begin = Instant::now();
    assert_eq!(number(client, sql), expected, "both find the same");
    begin.elapsed().as_secs_f64()
}

/// The shortest of some rounds, ours and the join's, in turns.
fn turns(client: &mut Client, rounds: usize, expected: i64) -> (f64, f64) {
    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        ours = ours.min(seconds(client, OURS, expected));
        theirs = theirs.min(seconds(client, JOIN, expected));
    }
    (ours, theirs)
}

pub fn measure(database: &Database) -> Vec<Figure> {
    let rows = size("BENCH_COMPARED");
    let mut client = database.connect();
    let here = &mut client;
    run(
        here,
        &format!(
            "CREATE SCHEMA bench_compare;
             CREATE TABLE bench_compare.a (organization_id uuid NOT NULL, id bigint NOT NULL, name text, notes text, amount numeric(12,2), n integer, at timestamptz);
             INSERT INTO bench_compare.a SELECT md5((g % 100)::text)::uuid, g, 'name ' || g, 'notes about ' || g || ' and more', g / 7.0, g % 1000,
                                                '2026-01-01'::timestamptz + g * interval '1 second' FROM generate_series(1, {rows}) AS g;
             CREATE TABLE bench_compare.b AS TABLE bench_compare.a;
             ALTER TABLE bench_compare.a ADD PRIMARY KEY (organization_id, id); ALTER TABLE bench_compare.b ADD PRIMARY KEY (organization_id, id)"
        ),
    );
    level(here);
    run(here, "ANALYZE bench_compare.a; ANALYZE bench_compare.b");
    let (same, joined) = turns(here, 1, 0);
    let one = rows / 2;
    run(here, &format!("UPDATE bench_compare.b SET n = n + 1 WHERE id = {one}"));
    let (ours, hash) = turns(here, ROUNDS, 1);
    assert_eq!(
        text(here, "SELECT key ->> 'id' FROM usher.compare_tables('bench_compare.a', 'bench_compare.b')"),
        one.to_string()
    );
    run(here, "SET enable_hashjoin = off");
    let merge = seconds(here, JOIN, 1);
    run(here, "RESET enable_hashjoin; SET work_mem = '2GB'");
    let roomy = (0..ROUNDS).map(|_| seconds(here, JOIN, 1)).fold(f64::INFINITY, f64::min);
    run(here, "RESET work_mem");
    // Spread over all leaves; then all.
    run(here, &format!("UPDATE bench_compare.b SET n = n + 1 WHERE id % 100 = 0 AND id <> {one}"));
    let (many, many_joined) = turns(here, 1, rows / 100);
    run(here, "UPDATE bench_compare.b SET notes = notes || '!'");
    level(here);
    let (all, all_joined) = turns(here, 1, rows);
    run(here, "DROP SCHEMA bench_compare CASCADE");
    vec![
        Figure::new("one_different_row_found", ours, hash.min(merge), "s", Gate::AtMost(0.5)),
        Figure::new("one_row_against_2gb_work_mem", ours, roomy, "s", Gate::None),
        Figure::new("one_row_against_a_merge_join", ours, merge, "s", Gate::None),
        Figure::new("two_tables_that_are_the_same", same, joined, "s", Gate::None),
        Figure::new("a_hundredth_different", many, many_joined, "s", Gate::None),
        Figure::new("all_rows_different", all, all_joined, "s", Gate::None),
    ]
}
