//! How soon an emergency starts when everybody else is busy.

use crate::pipe::Pipe;
use crate::{Figure, Gate, flow_role, level, median, size};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use usher_clients::{Client, Database, enqueue, flow, json, number, run, server, value, wait};

pub const METHOD: &str = "a client asks for an emergency job every 50 ms; from sending the call (its COMMIT included) until the effect \
runs, which writes down its clock_timestamp(), the same clock. With nothing else to do, while a backlog of 1,000,000 normal jobs \
is worked off, and while a normal job calls a function that sleeps for 10 s. p99 of 100 calls, median of 3; the limit is 20 ms. The call itself: the same p99 until the idle call has returned, \
with nothing of ours after its COMMIT in it; a pause of the machine shows here as well. Stop: from pg_terminate_backend of a worker in the middle of such a \
call until the process is gone, the longest of 3; the limit is 2 s";

const ROUNDS: usize = 3;
const CALLS: i64 = 100;
const LIMIT: f64 = 20.0;

pub fn measure(database: &Database) -> Vec<Figure> {
    let backlog = size("BENCH_CHURN");
    let mut client = database.connect();
    let here = &mut client;
    let pipe = Pipe::create(here, "urgent_crowd", false);
    run(
        here,
        "CREATE TABLE public.urgent (n bigint, at timestamptz NOT NULL);
         CREATE FUNCTION public.sleep_long(n bigint) RETURNS void LANGUAGE sql AS 'SELECT pg_catalog.pg_sleep(10)'",
    );
    flow_role(here, "public.urgent");
    flow(
        here,
        "urgent",
        &json!({
            "from": "src", "to": "dst", "run_as": "clients_bench", "when": {"request": "urgent"}, "then": {"insert": "public.urgent"},
            "set": {"n": "(job.payload ->> 'n')::bigint", "at": "clock_timestamp()"}
        }),
    );
    flow(
        here,
        "sleep",
        &json!({
            "from": "src", "to": "dst", "run_as": "clients_bench", "when": {"request": "sleep"}, "then": {"call": "public.sleep_long"},
            "set": {"n": "(job.payload ->> 'n')::bigint"}
        }),
    );
    let (mut times, mut stop): ([Vec<f64>; 4], f64) = (Default::default(), 0.0);
    for _ in 0..ROUNDS {
        level(here);
        let idle = calls(here, || true);
        times[0].push(idle.started);
        times[3].push(idle.returned);

        pipe.empty(here);
        let mut holder = pipe.fill(database, here, backlog);
        run(&mut holder, crate::pipe::RELEASE);
        let mut watcher = database.connect();
        let target = format!("SELECT count(*) FROM {}", pipe.target);
        times[1].push(calls(here, || number(&mut watcher, &target) < backlog).started);
        pipe.abandon(database, here);

        let sleeper = enqueue(here, "default", "src", "dst", &json!({"action": "sleep", "n": 1}));
        wait::until(wait::LONG, "the long call has begun", || status(here, &sleeper) == "in_progress");
        let mut watcher = database.connect();
        times[2].push(calls(here, || status(&mut watcher, &sleeper) == "in_progress").started);
        run(here, &format!("SELECT usher.wait_for('{sleeper}', '30 s')"));

        // One of its own, so that the worker is surely in the middle of it.
        let sleeper = enqueue(here, "default", "src", "dst", &json!({"action": "sleep", "n": 2}));
        wait::until(wait::LONG, "another long call has begun", || status(here, &sleeper) == "in_progress");
        stop = stop.max(ended(here));
        wait::until(wait::LONG, "the call that was ended is made again", || status(here, &sleeper) == "synced");
    }
    let [idle, crowd, call, itself] = times.map(median);
    [
        ("emergency_call_itself", itself, Gate::None),
        ("emergency_idle", idle, Gate::None),
        ("emergency_behind_1M_jobs", crowd, Gate::AtMost(1.0)),
        ("emergency_behind_long_call", call, Gate::AtMost(1.0)),
    ]
    .into_iter()
    .map(|(name, time, gate)| Figure::limit(name, time, LIMIT, "ms", gate))
    .chain([Figure::limit("worker_stops_in_the_middle", stop, 2000.0, "ms", Gate::AtMost(1.0))])
    .collect()
}

/// Milliseconds until the worker at work is gone.
fn ended(client: &mut Client) -> f64 {
    let pid = server::worker_of(client, "normal").expect("a worker serves the normal lane");
    let begin = Instant::now();
    run(client, &format!("SELECT pg_terminate_backend({pid})"));
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        thread::sleep(Duration::from_millis(1));
    }
    milliseconds(begin.elapsed())
}

fn status(client: &mut Client, job: &usher_clients::Uuid) -> String {
    value(client, "SELECT status FROM usher.sync_jobs WHERE id = $1", &[job])
}

/// Milliseconds from sending the call, each the 99th percentile.
struct Calls {
    started: f64,
    returned: f64,
}

/// `still` says that the others are busy; calls made after that do not count.
fn calls(client: &mut Client, mut still: impl FnMut() -> bool) -> Calls {
    run(client, "TRUNCATE public.urgent");
    let ask = client
        .prepare(
            "SELECT (usher.enqueue_sync_job('default', 'src', 'dst', jsonb_build_object('action', 'urgent', 'n', $1::bigint), priority => 'emergency')).id",
        )
        .expect("a request");
    let (mut sent, mut returned) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for n in 0..CALLS {
        thread::sleep((begin + Duration::from_millis(50) * n as u32).saturating_duration_since(Instant::now()));
        let now = SystemTime::now();
        client.query_one(&ask, &[&n]).expect("an emergency");
        let after = now.elapsed().map_or(0.0, milliseconds);
        if !still() {
            break;
        }
        sent.push(now);
        returned.push(after);
    }
    assert!(sent.len() >= 20, "only {} calls while the others were busy: the backlog is too small for this machine", sent.len());
    let wanted = sent.len() as i64;
    wait::until(Duration::from_secs(60), "every emergency has started", || {
        number(client, "SELECT count(*) FROM public.urgent") >= wanted
    });
    let started = sent
        .iter()
        .enumerate()
        .map(|(n, sent)| {
            let at: SystemTime = value(client, "SELECT at FROM public.urgent WHERE n = $1", &[&(n as i64)]);
            at.duration_since(*sent).map_or(0.0, milliseconds)
        })
        .collect();
    Calls { started: p99(started), returned: p99(returned) }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * 99 / 100).min(times.len() - 1)]
}
