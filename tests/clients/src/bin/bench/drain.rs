//! How fast a backlog is worked off: 100,000 jobs with one INSERT each, history on, against hand-written SQL that does
//! the same without checks, history, retries or tenants: batches of 1000 by FOR UPDATE SKIP LOCKED, one COMMIT each.

use crate::{Figure, Gate, flow_role, level, median};
use std::thread;
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, Uuid, flow, json, number, run, settled, value, wait};

const JOBS: i64 = 100_000;
const ROUNDS: usize = 5;
/// What a worker takes while it works on a lane (src/worker/batch.rs): who holds it holds the worker.
pub const HOLD: &str = "BEGIN; SELECT usher.hold_lane('normal')";
pub const RELEASE: &str = "ROLLBACK";

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut client = database.connect();
    prepare(&mut client);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(by_hand(&mut client));
        ours.push(by_usher(database, &mut client));
    }
    vec![Figure::new("drain", median(ours), median(theirs), "jobs/s", Gate::AtLeast(0.4))]
}

fn prepare(client: &mut Client) {
    run(
        client,
        "CREATE TABLE public.src (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), amount numeric NOT NULL, note text NOT NULL);
         CREATE TABLE public.dst (id uuid PRIMARY KEY, amount numeric NOT NULL, note text NOT NULL);
         CREATE TABLE public.jobs (id bigserial PRIMARY KEY, payload jsonb NOT NULL);
         CREATE TABLE public.target (id uuid PRIMARY KEY, amount numeric NOT NULL, note text NOT NULL);
         CREATE PROCEDURE public.drain() LANGUAGE plpgsql AS $$
         DECLARE
             done bigint;
         BEGIN
             LOOP
                 WITH c AS (
                     DELETE FROM public.jobs
                      WHERE id = ANY (ARRAY(SELECT id FROM public.jobs ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))
                     RETURNING payload)
                 INSERT INTO public.target (id, amount, note)
                 SELECT (payload ->> 'id')::uuid, (payload ->> 'amount')::numeric, payload ->> 'note' FROM c;
                 GET DIAGNOSTICS done = ROW_COUNT;
                 COMMIT;
                 EXIT WHEN done = 0;
             END LOOP;
         END $$",
    );
    flow_role(client, "public.dst");
    flow(
        client,
        "drain",
        &json!({
            "from": "src", "to": "dst", "mode": "realtime", "run_as": "clients_bench",
            "when": {"change": "public.src", "on": ["insert"]},
            "then": {"insert": "public.dst"}, "set": {"id": "new.id", "amount": "new.amount", "note": "new.note"}
        }),
    );
}

fn by_hand(client: &mut Client) -> f64 {
    run(client, "TRUNCATE public.target, public.jobs");
    level(client);
    run(client, &format!(
        "INSERT INTO public.jobs (payload)
         SELECT jsonb_build_object('id', gen_random_uuid(), 'amount', n * 0.01, 'note', repeat('x', 100)) FROM generate_series(1, {JOBS}) n"
    ));
    let begin = Instant::now();
    run(client, "CALL public.drain()");
    let rate = JOBS as f64 / begin.elapsed().as_secs_f64();
    assert_eq!(number(client, "SELECT count(*) FROM public.target"), JOBS);
    rate
}

fn by_usher(database: &Database, client: &mut Client) -> f64 {
    // The worker waits until the whole backlog is there, as the hand-written procedure does.
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    run(client, "TRUNCATE public.src, public.dst");
    level(client);
    run(
        client,
        &format!("INSERT INTO public.src (amount, note) SELECT n * 0.01, repeat('x', 100) FROM generate_series(1, {JOBS}) n"),
    );
    assert_eq!(number(client, "SELECT count(*) FROM usher.ready_jobs"), JOBS, "the worker is held");
    let last: Uuid = value(client, "SELECT (new ->> 'id')::uuid FROM usher.ready_jobs ORDER BY seq DESC LIMIT 1", &[]);
    let look = client.prepare("SELECT EXISTS (SELECT FROM public.dst WHERE id = $1)").expect("the target can be read");
    let begin = Instant::now();
    run(&mut holder, RELEASE);
    // Jobs go in order, so the effect of the last one ends it. A look every 5 ms costs the worker nothing.
    while !client.query_one(&look, &[&last]).expect("the target can be read").get::<_, bool>(0) {
        assert!(begin.elapsed() < Duration::from_secs(120), "the backlog is worked off\n{}", wait::jobs(client));
        thread::sleep(Duration::from_millis(5));
    }
    let rate = JOBS as f64 / begin.elapsed().as_secs_f64();
    settled(client, wait::LONG);
    assert_eq!(number(client, "SELECT count(*) FROM public.dst"), JOBS, "every job had its effect once");
    rate
}
