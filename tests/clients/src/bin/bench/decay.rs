//! Whether the queue slows down when somebody holds back the horizon, or when millions of jobs wait.

use crate::pipe::Pipe;
use crate::{Figure, Gate, flow_role, median, size};
use usher_clients::{Client, Database, enqueue, flow, json, number, run, server, settled, storage, text, value, wait};

pub const METHOD: &str = "the rate of draining 100,000 jobs after 1,000,000 have gone through while the hindrance was there, against the \
rate of the same right before it; source and target are emptied before every drain, the tables of the queue never. Hindrances: a \
session in REPEATABLE READ that has read, one that has written (it has an xid), a logical slot that nobody reads (wal_level = \
logical for both), 10,000,000 jobs due tomorrow, 10,000,000 jobs of a disabled flow. Median of 3";

const ROUNDS: usize = 3;

pub fn measure(database: &Database) -> Vec<Figure> {
    let churn = size("BENCH_CHURN");
    let many = size("BENCH_WAITING");
    let mut client = database.connect();
    let here = &mut client;
    let pipe = Pipe::create(here, "decay", false);
    run(here, "CREATE TABLE public.decay_other (n integer); CREATE TABLE public.decay_called (n integer)");
    flow_role(here, "public.decay_called");
    flow(
        here,
        "decay_later",
        &json!({
            "from": "src", "to": "dst", "run_as": "clients_bench", "when": {"request": "later"}, "then": {"insert": "public.decay_called"},
            "set": {"n": "(job.payload ->> 'n')::integer"}
        }),
    );
    let mut figures = Vec::new();
    for (name, begin) in [
        ("repeatable_read", "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM public.decay_other"),
        ("open_writer", "BEGIN; INSERT INTO public.decay_other VALUES (1)"),
    ] {
        let clean = rate(&pipe, database, here);
        let mut holder = database.connect();
        run(&mut holder, begin);
        let under = after_churn(&pipe, database, here, churn);
        run(&mut holder, "ROLLBACK");
        figures.push(gate(format!("under_{name}"), under, clean));
    }
    figures.push(waiting(&pipe, database, here, "delayed_jobs", many, churn, |client| {
        let ask = "SELECT id FROM usher.enqueue_sync_job('default', 'src', 'dst', '{\"action\": \"later\", \"n\": 1}', run_at => now() + interval '1 day')";
        value::<usher_clients::Uuid>(client, ask, &[]);
    }));
    figures.push(waiting(&pipe, database, here, "paused_flow", many, churn, |client| {
        run(client, "SELECT usher.disable_flow('decay_later')");
        enqueue(client, "default", "src", "dst", &json!({"action": "later", "n": 1}));
        wait::until_true(client, "SELECT count(*) = 1 FROM usher.queue_waiting WHERE waiting_for = 'flow disabled'");
    }));
    figures.push(slot(&pipe, database, churn));
    pipe.close(&mut database.connect());
    figures
}

fn gate(name: String, under: f64, clean: f64) -> Figure {
    Figure::new(name, under, clean, "jobs/s", Gate::AtLeast(0.95))
}

fn jobs() -> i64 {
    size("BENCH_JOBS")
}

fn rate(pipe: &Pipe, database: &Database, client: &mut Client) -> f64 {
    median((0..ROUNDS).map(|_| pipe.round(database, client, jobs())).collect())
}

fn after_churn(pipe: &Pipe, database: &Database, client: &mut Client, churn: i64) -> f64 {
    pipe.churn(database, client, churn, jobs());
    rate(pipe, database, client)
}

/// With very many jobs that wait, all like the one that `first` makes.
fn waiting(
    pipe: &Pipe,
    database: &Database,
    client: &mut Client,
    name: &str,
    many: i64,
    churn: i64,
    first: impl Fn(&mut Client),
) -> Figure {
    settled(client, wait::LONG);
    let clean = rate(pipe, database, client);
    first(client);
    storage::multiply_waiting(client, many);
    assert_eq!(number(client, "SELECT count(*) FROM usher.queue_waiting"), many);
    let under = after_churn(pipe, database, client, churn);
    assert_eq!(number(client, "SELECT count(*) FROM usher.queue_waiting"), many, "none of them has run");
    storage::forget_waiting(client);
    gate(format!("under_{many}_{name}"), under, clean)
}

/// Under a logical slot. The server is restarted before and after, for wal_level.
fn slot(pipe: &Pipe, database: &Database, churn: i64) -> Figure {
    let mut client = restart(database, "ALTER SYSTEM SET wal_level = 'logical'");
    let here = &mut client;
    assert_eq!(text(here, "SHOW wal_level"), "logical");
    let clean = rate(pipe, database, here);
    run(here, "SELECT pg_create_logical_replication_slot('usher_bench', 'pgoutput')");
    let under = after_churn(pipe, database, here, churn);
    run(here, "SELECT pg_drop_replication_slot('usher_bench')");
    restart(database, "ALTER SYSTEM RESET wal_level");
    gate("under_logical_slot".to_owned(), under, clean)
}

fn restart(database: &Database, setting: &str) -> Client {
    run(&mut database.connect(), setting);
    server::cluster(&["restart"]);
    database.reconnect()
}
