//! What it costs to have much registered: 10,000 flows and 10,000 organizations; and to have nothing to do.

use crate::pipe::Pipe;
use crate::{Figure, Gate, best, flow_role, size};
use std::time::Duration;
use usher_clients::{Client, Database, number, run, server, settled, wait};

pub const METHOD: &str = "the rate of draining 100,000 jobs of one flow with 10,000 flows on 100 tables and 10,000 organizations \
registered, against ten of each; best of 9, as for decay. Memory: RssAnon of a session after its first captured INSERT, and of the worker \
after a drain. Idle: processor time of the launcher and all workers in 60 s, as the kernel's scheduler counts it, \
after 60 s in which nothing has happened either: the minute's look after a change of 10,000 flows is work";

const ROUNDS: usize = 9;
const TABLES: i64 = 100;
/// Milliseconds: a tick, the least that the kernel shows in a process list.
const IDLE_LIMIT: f64 = 10.0;
const REST: Duration = Duration::from_secs(60);

pub fn measure(database: &Database) -> Vec<Figure> {
    let many = size("BENCH_FLOWS");
    let jobs = size("BENCH_JOBS");
    let mut client = database.connect();
    let here = &mut client;
    let pipe = Pipe::create(here, "scale", false);
    run(here, "CREATE TABLE public.scale_called (id bigint, note text)");
    flow_role(here, "public.scale_called");
    register(here, 1, 10, 1);
    let drain = |client: &mut Client| best((0..ROUNDS).map(|_| pipe.round(database, client, jobs)));
    let few = drain(here);
    let (session_few, worker_few) = (session_memory(database), worker_memory(here));
    register(here, 11, many, TABLES);
    let rate = drain(here);
    let (session, worker) = (session_memory(database), worker_memory(here));
    settled(here, wait::LONG);
    let mut figures = vec![
        Figure::new(format!("rate_with_{many}_flows"), rate, few, "jobs/s", Gate::AtLeast(0.95)),
        Figure::new(format!("session_memory_{many}_flows"), session, session_few, "MB", Gate::None),
        Figure::new(format!("worker_memory_{many}_flows"), worker, worker_few, "MB", Gate::None),
    ];
    figures.push(Figure::limit("idle_cpu_in_60_s", idle(here), IDLE_LIMIT, "ms", Gate::AtMost(1.0)));
    pipe.close(here);
    run(here, "DELETE FROM usher.flows WHERE name LIKE 'scale\\_t%'; DELETE FROM usher.organizations WHERE slug LIKE 'scale-%'");
    figures
}

/// Flows and organizations `first..=last`; the flows spread over so many tables, which exist or are made.
fn register(client: &mut Client, first: i64, last: i64, tables: i64) {
    for table in 1..=tables {
        run(
            client,
            &format!(
                "CREATE TABLE IF NOT EXISTS public.scale_t{table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind integer NOT NULL, note text NOT NULL)"
            ),
        );
    }
    // The flows of a table are made in one statement, so that it is quick.
    for table in 0..tables {
        run(
            client,
            &format!(
                "SELECT count(usher.create_flow('scale_t' || n, pg_catalog.jsonb_build_object(
                     'from', 'src', 'to', 'dst', 'run_as', 'clients_bench',
                     'when', '{{\"change\": \"public.scale_t{}\", \"on\": [\"insert\"]}}'::jsonb, 'if', 'new.kind = ' || n,
                     'then', '{{\"insert\": \"public.scale_called\"}}'::jsonb, 'set', '{{\"id\": \"new.id\", \"note\": \"new.note\"}}'::jsonb)))
                   FROM generate_series({first}, {last}) AS n WHERE n % {tables} = {table}",
                table + 1
            ),
        );
    }
    run(client, &format!("SELECT count(usher.create_organization('scale-' || n)) FROM generate_series({first}, {last}) AS n"));
    let made = number(client, "SELECT count(*) FROM usher.flows WHERE name LIKE 'scale\\_t%'");
    assert_eq!(made, last, "flows are registered");
}

/// MB that a session's process has of its own after its first captured INSERT.
fn session_memory(database: &Database) -> f64 {
    let mut client = database.connect();
    run(&mut client, "INSERT INTO public.scale_t1 (kind, note) VALUES (10, 'x')");
    anonymous(number(&mut client, "SELECT pg_backend_pid()::bigint"))
}

fn worker_memory(client: &mut Client) -> f64 {
    server::worker_of(client, "normal").map_or(f64::NAN, |pid| anonymous(i64::from(pid)))
}

fn anonymous(pid: i64) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
}

fn idle(client: &mut Client) -> f64 {
    let rows = client.query("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'usher%'", &[]).expect("processes");
    let pids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert!(pids.len() >= 3, "the launcher and the workers of a database: {pids:?}");
    std::thread::sleep(REST);
    let spent = || pids.iter().map(|pid| spent(*pid)).sum::<f64>();
    let before = spent();
    std::thread::sleep(REST);
    spent() - before
}

/// Processor time of a process so far, in milliseconds: the first field of its schedstat, in nanoseconds. The ticks of its stat are
/// too coarse to be added up over processes.
fn spent(pid: i32) -> f64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_else(|e| panic!("process {pid} has gone: {e}"));
    stat.split_whitespace().next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}
