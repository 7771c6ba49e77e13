//! Whether the queue slows down when somebody holds back the horizon, or when millions of jobs wait.

use crate::pipe::Pipe;
use crate::{Figure, Gate, best, flow_role, level, size};
use usher_clients::{Client, Database, enqueue, flow, json, number, run, server, settled, storage, text, value, wait};

pub const METHOD: &str = "the rate of draining 100,000 jobs after 1,000,000 have gone through while the hindrance was there, against the \
rate of the same without it, the mean of before and after; source and target are emptied before every drain, the tables of the queue never. Hindrances: a \
session in REPEATABLE READ that has read, one that has written (it has an xid), a logical slot that nobody reads (wal_level = \
logical for both), 10,000,000 jobs due tomorrow, 10,000,000 jobs of a paused flow. Minutes lie between the sides, so each is the \
best of 9 drains: what else a machine does only slows them";

const ROUNDS: usize = 9;

pub fn snapshot(database: &Database) -> Vec<Figure> {
    held(database, "repeatable_read", "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM public.decay_other")
}

pub fn writer(database: &Database) -> Vec<Figure> {
    held(database, "open_writer", "BEGIN; INSERT INTO public.decay_other VALUES (1)")
}

fn held(database: &Database, name: &str, begin: &str) -> Vec<Figure> {
    let mut client = database.connect();
    let here = &mut client;
    let pipe = Pipe::create(here, &format!("decay_{name}"), false);
    run(here, "CREATE TABLE IF NOT EXISTS public.decay_other (n integer)");
    let clean = rate(&pipe, database, here);
    let mut holder = database.connect();
    run(&mut holder, begin);
    let under = after_churn(&pipe, database, here, size("BENCH_CHURN"));
    run(&mut holder, "ROLLBACK");
    let after = without(&pipe, database, here);
    pipe.close(here);
    vec![gate(format!("under_{name}"), under, [clean, after])]
}

pub fn delayed(database: &Database) -> Vec<Figure> {
    waiting(database, "delayed_jobs", |client| {
        let ask = "SELECT id FROM usher.enqueue_sync_job('default', 'src', 'dst', '{\"action\": \"delayed_jobs\", \"n\": 1}', run_at => now() + interval '1 day')";
        value::<usher_clients::Uuid>(client, ask, &[]);
    })
}

pub fn paused(database: &Database) -> Vec<Figure> {
    waiting(database, "paused_flow", |client| {
        run(client, "SELECT usher.pause_jobs(flow => 'decay_paused_flow_later')");
        enqueue(client, "default", "src", "dst", &json!({"action": "paused_flow", "n": 1}));
        wait::until_true(client, "SELECT count(*) = 1 FROM usher.queue_waiting WHERE waiting_for = 'paused'");
    })
}

/// `clean`: before and after, so that a machine that gets faster or slower meanwhile counts half.
fn gate(name: String, under: f64, clean: [f64; 2]) -> Figure {
    Figure::new(name, under, (clean[0] + clean[1]) / 2.0, "jobs/s", Gate::AtLeast(0.95))
}

/// The rate once the hindrance has gone.
fn without(pipe: &Pipe, database: &Database, client: &mut Client) -> f64 {
    level(client);
    rate(pipe, database, client)
}

fn jobs() -> i64 {
    size("BENCH_JOBS")
}

fn rate(pipe: &Pipe, database: &Database, client: &mut Client) -> f64 {
    best((0..ROUNDS).map(|_| pipe.round(database, client, jobs())))
}

fn after_churn(pipe: &Pipe, database: &Database, client: &mut Client, churn: i64) -> f64 {
    pipe.churn(database, client, churn, jobs());
    rate(pipe, database, client)
}

/// With very many jobs that wait, all like the one that `first` makes for a flow that takes requests `name`.
fn waiting(database: &Database, name: &str, first: impl Fn(&mut Client)) -> Vec<Figure> {
    let many = size("BENCH_WAITING");
    let mut client = database.connect();
    let here = &mut client;
    let pipe = Pipe::create(here, &format!("decay_{name}"), false);
    run(here, &format!("CREATE TABLE public.decay_{name}_called (n integer)"));
    flow_role(here, &format!("public.decay_{name}_called"));
    flow(
        here,
        &format!("decay_{name}_later"),
        &json!({
            "from": "src", "to": "dst", "run_as": "clients_bench", "when": {"request": name},
            "then": {"insert": format!("public.decay_{name}_called")}, "set": {"n": "(job.payload ->> 'n')::integer"}
        }),
    );
    settled(here, wait::LONG);
    let clean = rate(&pipe, database, here);
    first(here);
    storage::multiply_waiting(here, many);
    assert_eq!(number(here, "SELECT count(*) FROM usher.queue_waiting"), many);
    let under = after_churn(&pipe, database, here, size("BENCH_CHURN"));
    assert_eq!(number(here, "SELECT count(*) FROM usher.queue_waiting"), many, "none of them has run");
    storage::forget_waiting(here);
    let after = without(&pipe, database, here);
    pipe.close(here);
    vec![gate(format!("under_{many}_{name}"), under, [clean, after])]
}

/// Under a logical slot. The server is restarted before and after, for wal_level.
pub fn slot(database: &Database) -> Vec<Figure> {
    let pipe = Pipe::create(&mut database.connect(), "decay_slot", false);
    let mut client = restart(database, "ALTER SYSTEM SET wal_level = 'logical'");
    let here = &mut client;
    assert_eq!(text(here, "SHOW wal_level"), "logical");
    let clean = rate(&pipe, database, here);
    run(here, "SELECT pg_create_logical_replication_slot('usher_bench', 'pgoutput')");
    let under = after_churn(&pipe, database, here, size("BENCH_CHURN"));
    run(here, "SELECT pg_drop_replication_slot('usher_bench')");
    let after = without(&pipe, database, here);
    let mut client = restart(database, "ALTER SYSTEM RESET wal_level");
    pipe.close(&mut client);
    vec![gate("under_logical_slot".to_owned(), under, [clean, after])]
}

fn restart(database: &Database, setting: &str) -> Client {
    run(&mut database.connect(), setting);
    server::cluster(&["restart"]);
    database.reconnect()
}
