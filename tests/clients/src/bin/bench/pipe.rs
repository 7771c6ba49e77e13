//! One flow from a table to a table, filled while the worker is held and timed from its release: ours against by hand.

use crate::{flow_role, level};
use std::thread;
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, Uuid, Value, flow, json, number, run, server, settled, storage, value, wait};

/// What a worker takes while it works on a lane (src/worker/batch.rs): who holds it holds the worker.
pub const HOLD: &str = "BEGIN; SELECT usher.hold_lane('normal')";
pub const RELEASE: &str = "ROLLBACK";
/// Between two looks at the target: costs the worker nothing.
const LOOK: Duration = Duration::from_millis(5);

/// Columns of source and target: with 120 characters of text the payload is about 200 bytes.
const COLUMNS: &str = "id uuid PRIMARY KEY, amount numeric NOT NULL, note text NOT NULL";

pub struct Pipe {
    pub source: String,
    pub target: String,
    /// Only the last job of a filling has an effect: what is measured is the queue alone.
    noop: bool,
}

/// How a drain went.
pub struct Drained {
    pub rate: f64,
    /// Looks at the target, each a transaction of its own.
    pub looks: i64,
}

impl Pipe {
    pub fn create(client: &mut Client, name: &str, noop: bool) -> Self {
        let pipe = Self { source: format!("public.{name}_src"), target: format!("public.{name}_dst"), noop };
        run(client, &format!("CREATE TABLE {} (n bigserial, {COLUMNS}); CREATE TABLE {} ({COLUMNS})", pipe.source, pipe.target));
        flow_role(client, &pipe.target);
        let mut definition: Value = json!({
            "from": "src", "to": "dst", "mode": "realtime", "run_as": "clients_bench",
            "when": {"change": pipe.source, "on": ["insert"]},
            "then": {"insert": pipe.target}, "set": {"id": "new.id", "amount": "new.amount", "note": "new.note"}
        });
        if noop {
            // LIKE is nothing that the writer evaluates: every row makes a job, and the worker finds out.
            definition["if"] = json!("new.note LIKE 'last%'");
        }
        flow(client, name, &definition);
        pipe
    }

    /// So many rows into the source or a table like it. They are numbered, and the last one says that it is.
    pub fn rows(&self, table: &str, jobs: i64) -> String {
        format!(
            "INSERT INTO {table} (id, amount, note)
             SELECT gen_random_uuid(), n * 0.01, rpad(CASE WHEN n = {jobs} THEN 'last' ELSE 'x' END, 120, 'x') FROM generate_series(1, {jobs}) n"
        )
    }

    pub fn empty(&self, client: &mut Client) {
        run(client, &format!("TRUNCATE {}, {}", self.source, self.target));
    }

    /// Writes so many rows while the worker is held; the session returned holds it.
    pub fn fill(&self, database: &Database, client: &mut Client, jobs: i64) -> Client {
        let mut holder = database.connect();
        run(&mut holder, HOLD);
        run(client, &self.rows(&self.source, jobs));
        holder
    }

    /// Releases the worker and waits for the last effect. Jobs go in order, so that ends it.
    pub fn drain(&self, client: &mut Client, mut holder: Client, jobs: i64) -> Drained {
        let last: Uuid = value(client, &format!("SELECT id FROM {} ORDER BY n DESC LIMIT 1", self.source), &[]);
        let look = client
            .prepare(&format!("SELECT EXISTS (SELECT FROM {} WHERE id = $1)", self.target))
            .expect("the target can be read");
        let (begin, mut looks) = (Instant::now(), 0);
        run(&mut holder, RELEASE);
        loop {
            looks += 1;
            if client.query_one(&look, &[&last]).expect("the target can be read").get(0) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(300), "the backlog is worked off\n{}", wait::jobs(client));
            thread::sleep(LOOK);
        }
        Drained { rate: jobs as f64 / begin.elapsed().as_secs_f64(), looks }
    }

    /// Fills and drains once, from empty tables; jobs a second.
    pub fn round(&self, database: &Database, client: &mut Client, jobs: i64) -> f64 {
        self.empty(client);
        level(client);
        let holder = self.fill(database, client, jobs);
        let rate = self.drain(client, holder, jobs).rate;
        self.check(client, jobs);
        rate
    }

    /// Fills and drains without more ado, until so many jobs have gone through.
    pub fn churn(&self, database: &Database, client: &mut Client, jobs: i64, each: i64) {
        let mut left = jobs;
        while left > 0 {
            let some = each.min(left);
            self.empty(client);
            let holder = self.fill(database, client, some);
            self.drain(client, holder, some);
            left -= some;
        }
    }

    /// Every job had its effect, once.
    pub fn check(&self, client: &mut Client, jobs: i64) {
        let expected = if self.noop { 1 } else { jobs };
        assert_eq!(number(client, &format!("SELECT count(*) FROM {}", self.target)), expected, "every job had its effect once");
    }

    /// Throws away what is still in the pipe while the worker is at it: its end lets us hold the lane before the next one does.
    pub fn abandon(&self, database: &Database, client: &mut Client) {
        let mut holder = database.connect();
        let hold = thread::spawn(move || {
            run(&mut holder, HOLD);
            holder
        });
        wait::until(Duration::from_secs(120), "the lane is held", || {
            if let Some(pid) = server::worker_of(client, "normal") {
                run(client, &format!("SELECT pg_terminate_backend({pid})"));
            }
            thread::sleep(Duration::from_millis(100));
            hold.is_finished()
        });
        let mut holder = hold.join().expect("the lane is held");
        storage::forget_ready(client);
        self.empty(client);
        run(&mut holder, RELEASE);
        database.await_workers();
    }

    /// Nothing is left of what the pipe was fed with, and it takes nothing more.
    pub fn close(&self, client: &mut Client) {
        settled(client, wait::LONG);
        self.empty(client);
    }
}

/// What one writes by hand: a table of jobs, batches of 1000 by FOR UPDATE SKIP LOCKED, one COMMIT each, one session. No
/// checks, no history, no retries, no tenants.
pub fn prepare_by_hand(client: &mut Client) {
    run(
        client,
        &format!(
            "CREATE TABLE public.jobs (id bigserial PRIMARY KEY, payload jsonb NOT NULL); CREATE TABLE public.target ({COLUMNS})"
        ),
    );
    for (name, effect) in [
        (
            "drain",
            "INSERT INTO public.target (id, amount, note)
             SELECT (payload ->> 'id')::uuid, (payload ->> 'amount')::numeric, payload ->> 'note' FROM c;
             GET DIAGNOSTICS done = ROW_COUNT;",
        ),
        ("drain_noop", "SELECT count(payload) INTO done FROM c;"),
    ] {
        run(
            client,
            &format!(
                "CREATE PROCEDURE public.{name}() LANGUAGE plpgsql AS $$
                 DECLARE
                     done bigint;
                 BEGIN
                     LOOP
                         WITH c AS (
                             DELETE FROM public.jobs
                              WHERE id = ANY (ARRAY(SELECT id FROM public.jobs ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))
                             RETURNING payload)
                         {effect}
                         COMMIT;
                         EXIT WHEN done = 0;
                     END LOOP;
                 END $$"
            ),
        );
    }
}

pub fn fill_by_hand(client: &mut Client, jobs: i64) {
    run(client, "TRUNCATE public.target, public.jobs");
    level(client);
    run(
        client,
        &format!(
            "INSERT INTO public.jobs (payload)
             SELECT jsonb_build_object('id', gen_random_uuid(), 'amount', n * 0.01, 'note', rpad('x', 120, 'x')) FROM generate_series(1, {jobs}) n"
        ),
    );
}

/// Jobs a second of the hand-written procedure `drain` or `drain_noop`.
pub fn round_by_hand(client: &mut Client, procedure: &str, jobs: i64) -> f64 {
    fill_by_hand(client, jobs);
    let begin = Instant::now();
    run(client, &format!("CALL public.{procedure}()"));
    let rate = jobs as f64 / begin.elapsed().as_secs_f64();
    let expected = if procedure == "drain" { jobs } else { 0 };
    assert_eq!(number(client, "SELECT count(*) FROM public.target"), expected);
    assert_eq!(number(client, "SELECT count(*) FROM public.jobs"), 0);
    rate
}

/// The jobs that are ready while the worker is held must be all that were made.
pub fn assert_held(client: &mut Client, jobs: i64) {
    assert_eq!(storage::ready(client), jobs, "the worker is held");
}
