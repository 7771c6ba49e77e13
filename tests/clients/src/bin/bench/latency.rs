//! How long a change takes to reach its target, at 50 and at 1,000 changes a second.
//!
//! Some clients write at a given pace, another looks at the target without a pause. Measured from sending the INSERT
//! until the other client has seen the row: of the effect here, of the INSERT itself in the baseline. From the COMMIT's
//! answer on would flatter nobody: a bare commit is seen by others before its own client hears of it.

use crate::{Figure, Gate, flow_role, level, median};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, flow, json, run, settled, wait};

pub const METHOD: &str = "one client at 50 changes a second, four at 1,000 together; another looks at the target without a pause. From \
sending the INSERT until the other client has seen the row: of the effect, or of the INSERT itself in the baseline. 200 and 2,000 \
changes a round, interleaved, median of 3";

const ROUNDS: usize = 3;

struct Pace {
    name: &'static str,
    writers: i32,
    /// Changes per second of all writers together.
    rate: u32,
    /// Changes per writer and round.
    samples: i32,
    /// Most that p50 and p99 may be, as multiples of the baseline's.
    gates: (Gate, Gate),
}

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE public.lat_plain (writer integer, n integer, note text, PRIMARY KEY (writer, n));
         CREATE TABLE public.lat_src (writer integer, n integer, note text, PRIMARY KEY (writer, n));
         CREATE TABLE public.lat_dst (writer integer, n integer, note text, PRIMARY KEY (writer, n))",
    );
    flow_role(&mut client, "public.lat_dst");
    flow(
        &mut client,
        "latency",
        &json!({
            "from": "src", "to": "dst", "mode": "realtime", "run_as": "clients_bench",
            "when": {"change": "public.lat_src", "on": ["insert"]},
            "then": {"insert": "public.lat_dst"}, "set": {"writer": "new.writer", "n": "new.n", "note": "new.note"}
        }),
    );
    // At 1,000 a second one client alone would spend most of its time waiting for its own commits.
    let paces = [
        Pace { name: "50_per_s", writers: 1, rate: 50, samples: 200, gates: (Gate::AtMost(2.0), Gate::AtMost(5.0)) },
        Pace { name: "1000_per_s", writers: 4, rate: 1000, samples: 500, gates: (Gate::None, Gate::AtMost(10.0)) },
    ];
    paces.iter().flat_map(|pace| compare(database, &mut client, pace)).collect()
}

fn compare(database: &Database, client: &mut Client, pace: &Pace) -> Vec<Figure> {
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        run(client, "TRUNCATE public.lat_plain, public.lat_src, public.lat_dst");
        level(client);
        let theirs = round(database, pace, "public.lat_plain", "public.lat_plain");
        let ours = round(database, pace, "public.lat_src", "public.lat_dst");
        settled(client, wait::LONG);
        for (list, (times, share)) in figures.iter_mut().zip([(&ours, 50), (&theirs, 50), (&ours, 99), (&theirs, 99)]) {
            list.push(percentile(times, share));
        }
    }
    let [p50, base50, p99, base99] = figures.map(median);
    vec![
        Figure::new(format!("latency_p50_{}", pace.name), p50, base50, "ms", pace.gates.0),
        Figure::new(format!("latency_p99_{}", pace.name), p99, base99, "ms", pace.gates.1),
    ]
}

/// Milliseconds, sorted.
fn round(database: &Database, pace: &Pace, written: &'static str, watched: &'static str) -> Vec<f64> {
    let pause = Duration::from_secs(1) * pace.writers as u32 / pace.rate;
    // Everybody is connected and prepared before the clock starts.
    let begin = Arc::new(Instant::now() + Duration::from_millis(300));
    let writers: Vec<_> = (1..=pace.writers)
        .map(|writer| {
            let (mut client, begin, samples) = (database.connect(), begin.clone(), pace.samples);
            // Writers take turns within the pause instead of all knocking at once.
            let offset = pause * (writer as u32 - 1) / pace.writers as u32;
            thread::spawn(move || write(&mut client, written, writer, *begin + offset, pause, samples))
        })
        .collect();
    let seen = watch(&mut database.connect(), watched, pace);
    let mut times = Vec::new();
    for (writer, thread) in writers.into_iter().enumerate() {
        let sent = thread.join().expect("a writer has panicked");
        times.extend(sent.iter().zip(&seen[writer]).map(|(sent, seen)| seen.duration_since(*sent).as_secs_f64() * 1000.0));
    }
    times.sort_by(f64::total_cmp);
    times
}

fn write(client: &mut Client, table: &str, writer: i32, begin: Instant, pause: Duration, samples: i32) -> Vec<Instant> {
    let insert =
        client.prepare(&format!("INSERT INTO {table} (writer, n, note) VALUES ($1, $2, 'x')")).expect("the table can be written");
    (1..=samples)
        .map(|n| {
            thread::sleep((begin + pause * (n as u32 - 1)).saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            client.execute(&insert, &[&writer, &n]).expect("an INSERT");
            sent
        })
        .collect()
}

/// When each number of each writer was seen first. A writer's changes arrive in order, so the highest says all.
fn watch(client: &mut Client, table: &str, pace: &Pace) -> Vec<Vec<Instant>> {
    let highest = (1..=pace.writers)
        .map(|writer| format!("coalesce((SELECT max(n) FROM {table} WHERE writer = {writer}), 0)"))
        .collect::<Vec<_>>()
        .join(", ");
    let look = client.prepare(&format!("SELECT ARRAY[{highest}]")).expect("the table can be read");
    let mut seen: Vec<Vec<Instant>> = vec![Vec::new(); pace.writers as usize];
    let end = Instant::now() + Duration::from_secs(120);
    while seen.iter().any(|times| times.len() < pace.samples as usize) {
        let numbers: Vec<i32> = client.query_one(&look, &[]).expect("a look").get(0);
        let now = Instant::now();
        assert!(now < end, "all effects arrive\n{}", wait::jobs(client));
        for (times, number) in seen.iter_mut().zip(numbers) {
            times.resize(number as usize, now);
        }
    }
    seen
}

fn percentile(sorted: &[f64], share: usize) -> f64 {
    sorted[(sorted.len() * share / 100).min(sorted.len() - 1)]
}
