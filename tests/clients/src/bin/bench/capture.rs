//! What capture costs when many flows listen, and when a million rows come at once.
//!
//! The workers are held: this is the writer's side alone.

use crate::pipe::{HOLD, RELEASE};
use crate::{Figure, Gate, flow_role, level, median};
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, run, storage};

const SPELL: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const BULK: i64 = 1_000_000;

pub const METHOD: &str = "the workers are held. Single-row INSERTs into a table with so many flows, of which one matches, against a table \
without; a million rows in one statement against the same without capture. 2 s each, interleaved, median of 3";

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut client = database.connect();
    let mut holder = database.connect();
    run(&mut client, "CREATE TABLE public.cap_dst (id bigint, note text)");
    flow_role(&mut client, "public.cap_dst");
    run(&mut holder, HOLD);
    let mut figures = Vec::new();
    for flows in [1, 2, 10, 1_000] {
        figures.push(many_flows(database, &mut client, flows));
    }
    figures.push(bulk(&mut client));
    storage::forget_ready(&mut client);
    run(&mut holder, RELEASE);
    figures
}

/// Makes flows on a table, of which the one with number 1 matches every row; in one statement, so that it is quick.
fn make_flows(client: &mut Client, table: &str, prefix: &str, flows: i64) {
    run(
        client,
        &format!(
            "SELECT count(usher.create_flow('{prefix}' || n, pg_catalog.jsonb_build_object(
                 'from', 'src', 'to', 'dst', 'run_as', 'clients_bench',
                 'when', '{{\"change\": \"{table}\", \"on\": [\"insert\"]}}'::jsonb, 'if', 'new.kind = ' || n,
                 'then', '{{\"insert\": \"public.cap_dst\"}}'::jsonb, 'set', '{{\"id\": \"new.id\", \"note\": \"new.note\"}}'::jsonb)))
               FROM generate_series(1, {flows}) AS n"
        ),
    );
}

fn columns(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind integer NOT NULL, note text NOT NULL)"
    )
}

fn empty(client: &mut Client, tables: &str) {
    // The jobs are not wanted: nobody works on them here.
    run(client, &format!("TRUNCATE {tables}"));
    storage::forget_ready(client);
    level(client);
}

/// Single-row INSERTs a second of one client into a table with so many flows, one of which matches.
fn many_flows(database: &Database, client: &mut Client, flows: i64) -> Figure {
    let (plain, captured) = (format!("public.cap_plain_{flows}"), format!("public.cap_{flows}"));
    run(client, &columns(&plain));
    run(client, &columns(&captured));
    make_flows(client, &captured, &format!("cap_{flows}_"), flows);
    let (mut bare, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        empty(client, &format!("{plain}, {captured}"));
        bare.push(rate(database, &plain));
        taken.push(rate(database, &captured));
    }
    assert!(storage::ready(client) > 0, "rows were captured");
    run(client, &format!("DROP TABLE {captured} CASCADE; DELETE FROM usher.flows WHERE name LIKE 'cap\\_{flows}\\_%'"));
    Figure::new(format!("capture_{flows}_flows"), median(taken), median(bare), "rows/s", Gate::None)
}

fn rate(database: &Database, table: &str) -> f64 {
    let mut client = database.connect();
    let insert =
        client.prepare(&format!("INSERT INTO {table} (kind, note) VALUES (1, repeat('x', 100))")).expect("the table is there");
    client.execute(&insert, &[]).expect("an INSERT");
    let begin = Instant::now();
    let mut rows = 0_u32;
    while begin.elapsed() < SPELL {
        client.execute(&insert, &[]).expect("an INSERT");
        rows += 1;
    }
    f64::from(rows) / begin.elapsed().as_secs_f64()
}

/// A million rows in one statement.
fn bulk(client: &mut Client) -> Figure {
    run(client, &columns("public.bulk_plain"));
    run(client, &columns("public.bulk_captured"));
    make_flows(client, "public.bulk_captured", "bulk_", 1);
    let (mut bare, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        empty(client, "public.bulk_plain, public.bulk_captured");
        bare.push(load(client, "public.bulk_plain"));
        taken.push(load(client, "public.bulk_captured"));
        assert_eq!(storage::ready(client), BULK, "every row was captured");
    }
    run(client, "DROP TABLE public.bulk_captured; DELETE FROM usher.flows WHERE name = 'bulk_1'");
    empty(client, "public.bulk_plain");
    Figure::new("capture_bulk_1M_rows", median(taken), median(bare), "rows/s", Gate::AtLeast(0.4))
}

fn load(client: &mut Client, table: &str) -> f64 {
    let begin = Instant::now();
    run(client, &format!("INSERT INTO {table} (kind, note) SELECT 1, 'row ' || n FROM generate_series(1, {BULK}) AS n"));
    BULK as f64 / begin.elapsed().as_secs_f64()
}
