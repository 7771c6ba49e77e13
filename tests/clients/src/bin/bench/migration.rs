//! What it costs to plan how two tables that exist already are brought together.

use crate::{Figure, Gate, best, level, size};
use std::time::Instant;
use usher_clients::{Client, Database, flow, json, number, role, run};

pub const METHOD: &str = "usher.reconcile() over two tables of 1,000,000 rows (BENCH_ROWS) with four fields, matched by an indexed text key, of which a tenth differ and a \
tenth are on one side only, best of 3: nothing is linked, so that every row has an item; against one hand-written INSERT … SELECT … FULL OUTER JOIN that writes kind, ids \
and fields of the same rows into a table with the same two indexes. Then all are linked and equal, so that nothing is written; against a hand-written FULL OUTER JOIN that counts what \
differs";

const ROUNDS: usize = 3;

pub fn measure(database: &Database) -> Vec<Figure> {
    let rows = size("BENCH_ROWS");
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_bench_migration", "NOLOGIN");
    run(
        here,
        &format!(
            "CREATE SCHEMA bench_migration; GRANT USAGE ON SCHEMA bench_migration TO clients_bench_migration;
             CREATE TABLE bench_migration.l (id bigint PRIMARY KEY, code text, a text, b text, c numeric, d integer);
             CREATE TABLE bench_migration.r (id bigint PRIMARY KEY, code text, a text, b text, c numeric, d integer);
             CREATE TABLE bench_migration.by_hand (organization_id uuid, migration_id uuid, n bigint, kind text, action text, left_id text, right_id text, fields jsonb,
                                                   PRIMARY KEY (organization_id, migration_id, n));
             CREATE INDEX ON bench_migration.by_hand (migration_id, n);
             GRANT SELECT, INSERT, UPDATE, DELETE ON bench_migration.l, bench_migration.r TO clients_bench_migration;
             INSERT INTO bench_migration.l SELECT g, 'code ' || g, 'name ' || g, 'notes about ' || g, g / 7.0, g % 1000 FROM generate_series(1, {rows}) AS g;
             INSERT INTO bench_migration.r SELECT g + {rows}, code, a, CASE WHEN g % 10 = 0 THEN 'other' ELSE b END, c, d
               FROM (SELECT id + CASE WHEN id % 10 = 1 THEN {rows} ELSE 0 END AS g, 'code ' || id + CASE WHEN id % 10 = 1 THEN {rows} ELSE 0 END AS code, a, b, c, d FROM bench_migration.l) AS l;
             CREATE INDEX ON bench_migration.l (code); CREATE INDEX ON bench_migration.r (code);
             ANALYZE bench_migration.l; ANALYZE bench_migration.r"
        ),
    );
    flow(
        here,
        "bench_migration",
        &json!({"run_as": "clients_bench_migration", "when": {"change": "bench_migration.l"}, "link": {"kind": "bench", "left": "new.id", "right": "id"},
                "then": {"merge": "bench_migration.r", "match": ["code"], "strategy": "source", "fields": ["a", "b", "c", "d"], "creates": "none"}}),
    );
    run(here, "SELECT usher.disable_flow('bench_migration')");
    let written = "INSERT INTO bench_migration.by_hand
        SELECT o.id, '00000000-0000-0000-0000-000000000000', row_number() OVER (), CASE WHEN l.id IS NULL THEN 'only_right' WHEN r.id IS NULL THEN 'only_left'
                   WHEN (l.a, l.b, l.c, l.d) IS DISTINCT FROM (r.a, r.b, r.c, r.d) THEN 'different' ELSE 'matched' END, 'link', l.id::text, r.id::text,
               jsonb_strip_nulls(jsonb_build_object('a', CASE WHEN l.a IS DISTINCT FROM r.a THEN 'left' END, 'b', CASE WHEN l.b IS DISTINCT FROM r.b THEN 'left' END,
                                                    'c', CASE WHEN l.c IS DISTINCT FROM r.c THEN 'left' END, 'd', CASE WHEN l.d IS DISTINCT FROM r.d THEN 'left' END))
          FROM bench_migration.l FULL OUTER JOIN bench_migration.r USING (code) CROSS JOIN usher.organizations AS o WHERE o.slug = 'default'";
    let counted = "SELECT count(*) FILTER (WHERE (l.a, l.b, l.c, l.d) IS DISTINCT FROM (r.a, r.b, r.c, r.d)) FROM bench_migration.l FULL OUTER JOIN bench_migration.r USING (code)";
    let (fresh, by_hand) = turns(here, rows, written, "TRUNCATE bench_migration.by_hand");
    let items = number(here, "SELECT items FROM usher.migrations ORDER BY planned_at DESC LIMIT 1");
    assert_eq!(items, number(here, "SELECT count(*) FROM bench_migration.by_hand"), "both have looked at the same rows");
    // All linked and equal, as after the migration.
    run(
        here,
        "UPDATE bench_migration.r SET code = l.code, b = l.b FROM bench_migration.l WHERE l.a = r.a;
         INSERT INTO usher.links (organization_id, id, kind, left_id, right_id, base, paired)
         SELECT o.id, usher.uuid_v7(), 'bench', l.id, r.id, jsonb_build_object('left', v.base, 'right', v.base, 'held', '[]'::jsonb), true
           FROM bench_migration.l JOIN bench_migration.r USING (code) CROSS JOIN LATERAL (SELECT jsonb_build_object('a', l.a, 'b', l.b, 'c', l.c, 'd', l.d) AS base) AS v
          CROSS JOIN usher.organizations AS o WHERE o.slug = 'default'",
    );
    let (linked, counting) = turns(here, rows, counted, "SELECT 1");
    assert_eq!(number(here, "SELECT equal FROM usher.migrations ORDER BY planned_at DESC LIMIT 1"), rows, "all pairs are equal");
    run(
        here,
        "SELECT usher.drop_flow('bench_migration');
         DROP SCHEMA bench_migration CASCADE; TRUNCATE usher.migrations, usher.migration_items; DELETE FROM usher.links WHERE kind = 'bench'",
    );
    vec![
        Figure::new("plan_of_tables_that_never_met", fresh, by_hand, "rows/s", Gate::AtLeast(0.1)),
        Figure::new("plan_of_tables_that_agree", linked, counting, "rows/s", Gate::AtLeast(0.01)),
    ]
}

/// Rows of one side in a second, ours and by hand, in turns.
fn turns(client: &mut Client, rows: i64, by_hand: &str, before: &str) -> (f64, f64) {
    let rate = |client: &mut Client, sql: &str| {
        level(client);
        let begin = Instant::now();
        run(client, sql);
        rows as f64 / begin.elapsed().as_secs_f64()
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        run(client, "TRUNCATE usher.migrations, usher.migration_items");
        ours.push(rate(client, "SELECT usher.reconcile('bench_migration', 'default')"));
        run(client, before);
        theirs.push(rate(client, by_hand));
    }
    (best(ours.into_iter()), best(theirs.into_iter()))
}
