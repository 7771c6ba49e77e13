//! What listeners cost whom an event does not concern.

use crate::pipe::{HOLD, RELEASE};
use crate::{Figure, Gate, level, size};
use std::time::Instant;
use usher_clients::{Client, Database, flow, json, number, role, run, storage};

pub const METHOD: &str = "usher.emit_event() again and again in one statement, 20,000 events (BENCH_EVENTS) to which 3 flows listen, with those 3 \
flows alone and among 100, of which 97 listen to other types; workers held, in turns, best of 5, or once from 500,000 events on";

pub fn measure(database: &Database) -> Vec<Figure> {
    let events = size("BENCH_EVENTS").max(1);
    let rounds = if events < 500_000 { 5 } else { 1 };
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_bench_events", "NOLOGIN");
    run(
        here,
        "CREATE TABLE public.bench_heard (event uuid, flow text); GRANT INSERT ON public.bench_heard TO clients_bench_events",
    );
    for n in 0..3 {
        listen(here, &format!("bench_event_{n}"), ["orders.paid", "orders.*", "**"][n]);
    }
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    let (mut alone, mut among) = (0.0_f64, 0.0_f64);
    for _ in 0..rounds {
        level(here);
        alone = alone.max(rate(here, events));
        for n in 3..100 {
            listen(here, &format!("bench_event_{n}"), &format!("other.{}.{n}.*", ["a", "*", "**.b"][n % 3]));
        }
        level(here);
        among = among.max(rate(here, events));
        run(
            here,
            "SELECT count(usher.drop_flow(name)) FROM usher.flows WHERE name LIKE 'bench_event_%' AND definition -> 'when' ->> 'event' LIKE 'other.%'",
        );
    }
    run(&mut holder, RELEASE);
    run(
        here,
        "SELECT count(usher.drop_flow(name)) FROM usher.flows WHERE name LIKE 'bench_event_%'; DROP TABLE public.bench_heard",
    );
    vec![Figure::new("events_100_listeners", among, alone, "events/s", Gate::AtLeast(0.8))]
}

fn listen(client: &mut Client, name: &str, pattern: &str) {
    flow(
        client,
        name,
        &json!({
            "run_as": "clients_bench_events", "when": {"event": pattern}, "then": {"insert": "public.bench_heard"},
            "set": {"event": "event.id", "flow": format!("'{name}'")}
        }),
    );
}

fn rate(client: &mut Client, events: i64) -> f64 {
    storage::forget_ready(client);
    run(client, "TRUNCATE usher.events");
    let begin = Instant::now();
    let sql = format!(
        "SELECT count(usher.emit_event('default', 'orders.paid', jsonb_build_object('n', n))) FROM generate_series(1, {events}) AS n"
    );
    assert_eq!(number(client, &sql), events);
    events as f64 / begin.elapsed().as_secs_f64()
}
