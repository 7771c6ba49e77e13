//! What making a job costs, against a row put by hand into a table of the same columns and indexes.

use crate::pipe::{HOLD, Pipe, RELEASE};
use crate::{Figure, Gate, flow_role, level, median, size};
use std::thread;
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, flow, json, number, run, storage};

pub const METHOD: &str = "workers held. Bulk: 100,000 jobs in one statement, by usher.enqueue_sync_jobs and by a captured \
INSERT … SELECT, against INSERT … SELECT of as many rows, ids, positions and payloads made as we make them, into a table LIKE \
ours INCLUDING ALL; capture's baseline also writes the source rows. One by one: 8 connections, prepared, one transaction each, \
a captured INSERT and usher.enqueue_sync_job, against a bare INSERT into that table. Rounds interleaved, median of 3";

const ROUNDS: usize = 3;
const SPELL: Duration = Duration::from_secs(3);
const CLIENTS: usize = 8;

pub fn measure(database: &Database) -> Vec<Figure> {
    let jobs = size("BENCH_JOBS");
    let mut client = database.connect();
    let here = &mut client;
    let pipe = Pipe::create(here, "enqueue", false);
    run(here, "CREATE TABLE public.called (id uuid, amount numeric, note text)");
    flow_role(here, "public.called");
    flow(
        here,
        "enqueue_request",
        &json!({
            "from": "src", "to": "dst", "run_as": "clients_bench", "when": {"request": "bench"}, "then": {"insert": "public.called"},
            "set": {"id": "(job.payload ->> 'id')::uuid", "note": "job.payload ->> 'note'"}
        }),
    );
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    // A table of the same shape, and one job as the pattern of its rows.
    let table = storage::READY_TABLE;
    run(here, &pipe.rows(&pipe.source, 1));
    run(
        here,
        &format!(
            "CREATE TABLE public.shape (LIKE {table} INCLUDING ALL); CREATE TABLE public.pattern AS SELECT * FROM {table} LIMIT 1"
        ),
    );
    run(here, &format!("CREATE TABLE public.enqueue_plain (LIKE {} INCLUDING ALL)", pipe.source));
    assert_eq!(number(here, "SELECT count(*) FROM public.pattern"), 1, "a job as pattern");
    let mut bulk: [Vec<f64>; 4] = Default::default();
    let mut single: [Vec<f64>; 3] = Default::default();
    let (columns, values) = storage::columns_of(here, table, "d.payload");
    let request = "jsonb_build_object('action', 'bench', 'id', gen_random_uuid(), 'amount', n * 0.01, 'note', repeat('x', 100))";
    let (_, from_source) = storage::columns_of(here, table, "to_jsonb(d) - 'n'");
    let by_hand = format!("INSERT INTO public.shape ({columns})");
    for _ in 0..ROUNDS {
        let timed = |client: &mut Client, sql: &str| -> f64 {
            run(client, "TRUNCATE public.shape, public.enqueue_plain");
            pipe.empty(client);
            storage::forget_ready(client);
            level(client);
            let begin = Instant::now();
            run(client, sql);
            jobs as f64 / begin.elapsed().as_secs_f64()
        };
        bulk[0].push(timed(
            here,
            &format!("{by_hand} SELECT {values} FROM public.pattern r, (SELECT {request} AS payload FROM generate_series(1, {jobs}) n) AS d"),
        ));
        bulk[1].push(timed(
            here,
            &format!("SELECT count(usher.enqueue_sync_jobs('default', 'src', 'dst', (SELECT array_agg({request}) FROM generate_series(1, {jobs}) n)))"),
        ));
        assert_eq!(storage::ready(here), jobs, "every payload became a job");
        bulk[2].push(timed(
            here,
            &format!(
                "BEGIN; {}; {by_hand} SELECT {from_source} FROM public.pattern r, public.enqueue_plain d; COMMIT",
                pipe.rows("public.enqueue_plain", jobs)
            ),
        ));
        bulk[3].push(timed(here, &pipe.rows(&pipe.source, jobs)));
        assert_eq!(storage::ready(here), jobs, "every row was captured");
        let payload = "jsonb_build_object('action', 'bench', 'id', gen_random_uuid(), 'amount', 12.5, 'note', repeat('x', 100))";
        let statements = [
            format!("{by_hand} SELECT {values} FROM public.pattern r, (SELECT {payload} AS payload) AS d"),
            pipe.rows(&pipe.source, 1),
            format!("SELECT (usher.enqueue_sync_job('default', 'src', 'dst', {payload})).id"),
        ];
        for (list, statement) in single.iter_mut().zip(&statements) {
            timed(here, "SELECT 1");
            list.push(rate(database, statement));
        }
    }
    storage::forget_ready(here);
    run(&mut holder, RELEASE);
    pipe.close(here);
    run(here, "DROP TABLE public.shape");
    let [plain, requested, plain_captured, captured] = bulk.map(median);
    let [bare, inserted, asked] = single.map(median);
    vec![
        Figure::new("bulk_enqueue_sync_jobs", requested, plain, "jobs/s", Gate::AtLeast(0.8)),
        Figure::new("bulk_capture", captured, plain_captured, "jobs/s", Gate::AtLeast(0.8)),
        Figure::new("captured_insert_8_clients", inserted, bare, "jobs/s", Gate::AtLeast(0.85)),
        Figure::new("enqueue_sync_job_8_clients", asked, bare, "jobs/s", Gate::AtLeast(0.85)),
    ]
}

/// Statements a second of all clients together, one transaction each.
fn rate(database: &Database, sql: &str) -> f64 {
    let begin = Instant::now() + Duration::from_millis(300);
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = database.connect();
            let sql = sql.to_owned();
            thread::spawn(move || {
                let statement = client.prepare(&sql).unwrap_or_else(|error| panic!("{error:?}\n  in: {sql}"));
                thread::sleep(begin.saturating_duration_since(Instant::now()));
                let mut done = 0_u32;
                while begin.elapsed() < SPELL {
                    client.execute(&statement, &[]).expect("a job is made");
                    done += 1;
                }
                f64::from(done) / begin.elapsed().as_secs_f64()
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("a client has panicked")).sum()
}
