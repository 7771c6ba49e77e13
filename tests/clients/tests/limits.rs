//! Limits: never more than was allowed, in whatever window one looks; and who is held back costs nobody anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;
use usher_clients::{Client, Database, Uuid, Value, flow, json, number, reload, role, run, server, settled, text, value, wait};

const LONG: Duration = Duration::from_secs(60);

/// Orders, and what becomes of them with the time at which it does.
fn open(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_limited", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.orders (id integer PRIMARY KEY, account text NOT NULL, version integer NOT NULL DEFAULT 1);
         CREATE TABLE public.done (seq bigint GENERATED ALWAYS AS IDENTITY, id integer, account text, version integer,
                                   at timestamptz NOT NULL DEFAULT clock_timestamp());
         CREATE INDEX ON public.done (id);
         GRANT SELECT ON public.orders TO clients_limited;
         GRANT INSERT ON public.done TO clients_limited",
    );
    (database, client)
}

fn limited(client: &mut Client, name: &str, limits: Value) {
    flow(
        client,
        name,
        &json!({"when": {"change": "public.orders"}, "then": {"insert": "public.done"}, "run_as": "clients_limited",
                "set": {"id": "new.id", "account": "new.account", "version": "new.version"}, "limits": limits}),
    );
}

/// No window over the times of what was done, of each key by itself, has more than the burst and the rate times its length.
#[track_caller]
fn within(client: &mut Client, burst: usize, per_second: f64, by_key: bool) {
    let key = if by_key { "account" } else { "'all'" };
    let rows = client
        .query(&format!("SELECT {key}, EXTRACT(epoch FROM at)::float8 FROM public.done ORDER BY at, seq"), &[])
        .expect("the times");
    let mut times: HashMap<String, Vec<f64>> = HashMap::new();
    for row in rows {
        times.entry(row.get(0)).or_default().push(row.get(1));
    }
    for (key, times) in times {
        // In steps of the rate: with each job the window that ends there must have room for it since every earlier one.
        for first in 0..times.len() {
            for last in first..times.len() {
                let window = times[last] - times[first];
                // The microsecond of the clock's own rounding.
                let allowed = burst as f64 + (window + 2e-6) * per_second;
                assert!((last - first + 1) as f64 <= allowed, "{key}: {} in {window} s, allowed {allowed}", last - first + 1);
            }
        }
    }
}

#[test]
fn no_window_has_more_than_burst_and_rate() {
    let (database, mut client) = open("usher_test_rate");
    limited(&mut client, "copy", json!([{"per": "key", "key": "new.account", "rate": "100 per second", "burst": 7}]));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let database = database.clone();
            thread::spawn(move || {
                let mut client = database.connect();
                for n in 0..100 {
                    let id = writer * 1_000 + n;
                    run(&mut client, &format!("INSERT INTO public.orders VALUES ({id}, 'account {}')", n % 2));
                }
                // And a crowd at once.
                run(
                    &mut client,
                    &format!("INSERT INTO public.orders SELECT {writer} * 1000 + g, 'account ' || g % 2 FROM generate_series(100, 199) g"),
                );
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 800, "each once");
    assert_eq!(number(&mut client, "SELECT count(DISTINCT id) FROM public.done"), 800);
    within(&mut client, 7, 100.0, true);
    // It is used, too: 400 of a key take 4 seconds, and not much more.
    let took: f64 = value(&mut client, "SELECT EXTRACT(epoch FROM max(at) - min(at))::float8 FROM public.done", &[]);
    assert!(took < 20.0, "{took} s for what may pass in 4");
    assert_eq!(number(&mut client, "SELECT max(attempts)::bigint FROM usher.sync_jobs"), 1, "to wait is no attempt");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.limits WHERE waiting > 0"), 0);
}

#[test]
fn changes_of_a_row_keep_their_order() {
    let (_database, mut client) = open("usher_test_limit_order");
    limited(
        &mut client,
        "copy",
        json!([{"per": "flow", "rate": "150 per second", "burst": 3}, {"per": "key", "key": "new.version % 3", "rate": "60 per second"}]),
    );
    run(&mut client, "INSERT INTO public.orders SELECT g, 'a' FROM generate_series(1, 5) g");
    for _ in 0..40 {
        run(&mut client, "UPDATE public.orders SET version = version + 1");
    }
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 205);
    let wrong = "SELECT count(*) FROM (SELECT version <> row_number() OVER (PARTITION BY id ORDER BY seq) AS wrong FROM public.done) x WHERE wrong";
    assert_eq!(number(&mut client, wrong), 0);
    within(&mut client, 3, 150.0, false);
}

#[test]
fn who_is_held_back_is_not_looked_at_again() {
    let (database, mut client) = open("usher_test_limit_scan");
    limited(&mut client, "copy", json!([{"per": "key", "key": "new.account", "rate": "1 per hour", "burst": 2}]));
    run(&mut client, "INSERT INTO public.orders SELECT g, 'busy' FROM generate_series(1, 100000) g");
    wait::until_true_for(
        &mut client,
        Duration::from_secs(120),
        "SELECT count(*) = 99998 FROM usher.queue_waiting WHERE waiting_for = 'rate limit'",
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 2);
    let seen = "SELECT format('%s %s %s %s %s', per, flow, key, available, waiting) FROM usher.limits WHERE next_at > now() + interval '50 min'";
    assert_eq!(text(&mut client, seen), "key copy busy 0 99998");
    run(&mut client, "ANALYZE usher.queue_waiting");

    // Another key goes through at once, and what the whole batch reads of those that wait is a handful of rows.
    let mut session = database.connect();
    let read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'usher.queue_waiting'::regclass";
    for n in 0..5 {
        let mut batch = session.transaction().expect("a transaction");
        batch.batch_execute("SELECT usher.hold_lane('normal')").expect("the lane");
        let from = 200_000 + n * 20;
        batch
            .batch_execute(&format!(
                "INSERT INTO public.orders SELECT {from} + g, CASE g WHEN 0 THEN 'busy' ELSE 'account ' || {from} + g END FROM generate_series(0, 19) g;
                 SELECT usher.process_jobs()"
            ))
            .expect("a batch");
        let rows: i64 = batch.query_one(read, &[]).expect("the counters").get(0);
        batch.commit().expect("the batch");
        assert!(rows < 500, "{rows} of the 100000 rows that wait were read for a batch of 20 jobs");
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done WHERE account <> 'busy'"), 95);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done WHERE account = 'busy'"), 2);
    run(&mut client, "INSERT INTO public.orders VALUES (300000, 'quick')");
    wait::until_true(&mut client, "SELECT EXISTS (SELECT FROM public.done WHERE id = 300000)");

    // A limit that is lifted lets everybody go.
    run(&mut client, "SELECT usher.alter_flow('copy', definition - 'limits') FROM usher.flows WHERE name = 'copy'");
    settled(&mut client, Duration::from_secs(120));
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 100_101);
}

#[test]
fn who_lines_up_behind_a_change_is_not_looked_at_again() {
    let (database, mut client) = open("usher_test_line_scan");
    run(&mut client, "ALTER TABLE public.done ADD CHECK (id <> 1)");
    flow(
        &mut client,
        "copy",
        &json!({"when": {"change": "public.orders"}, "then": {"insert": "public.done"}, "run_as": "clients_limited",
                "set": {"id": "new.id", "account": "new.account", "version": "new.version"}, "retry": {"delays": [3600]}}),
    );
    run(&mut client, "INSERT INTO public.orders VALUES (1, 'hot')");
    wait::until_true(&mut client, "SELECT EXISTS (SELECT FROM usher.queue_waiting WHERE waiting_for = 'retry')");
    run(
        &mut client,
        "DO $$ BEGIN FOR n IN 1..3000 LOOP UPDATE public.orders SET version = version + 1 WHERE id = 1; END LOOP; END $$",
    );
    wait::until_true(
        &mut client,
        "SELECT count(*) = 3000 FROM usher.queue_waiting WHERE waiting_for = 'earlier change' AND due_at IS NULL",
    );
    run(&mut client, "ANALYZE usher.queue_waiting");
    let read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'usher.queue_waiting'::regclass";
    let mut session = database.connect();
    let mut look = session.transaction().expect("a transaction");
    look.batch_execute("SELECT usher.hold_lane('normal'); SELECT usher.process_jobs()").expect("a look");
    let rows: i64 = look.query_one(read, &[]).expect("the counters").get(0);
    look.commit().expect("the look");
    assert!(rows < 500, "{rows} of the 3000 changes that line up were read to see that none of them can go");
    // When nothing is before them any more they follow, in their order.
    run(&mut client, "ALTER TABLE public.done DROP CONSTRAINT done_id_check");
    run(&mut client, "SELECT usher.retry_sync_job(id) FROM usher.queue_waiting WHERE waiting_for = 'retry'");
    settled(&mut client, LONG);
    let right = "SELECT array_agg(version ORDER BY seq) = array_agg(version ORDER BY version) AND count(*) = 3001 FROM public.done WHERE id = 1";
    assert!(value::<bool>(&mut client, right, &[]));
}

#[test]
fn a_crash_lets_nothing_more_through() {
    let (database, mut client) = open("usher_test_limit_crash");
    limited(&mut client, "copy", json!([{"per": "organization", "rate": "3 per hour", "burst": 3}]));
    run(&mut client, "INSERT INTO public.orders SELECT g, 'a' FROM generate_series(1, 3) g");
    wait::until_true(&mut client, "SELECT count(*) = 3 FROM public.done");
    // Nobody waits: only what is written of the limit can tell.
    for round in 0..2 {
        server::cluster(&["stop", "immediate"]);
        server::cluster(&["start"]);
        client = database.reconnect();
        run(&mut client, &format!("INSERT INTO public.orders SELECT {round} * 10 + g, 'a' FROM generate_series(11, 15) g"));
        wait::until_true(
            &mut client,
            &format!("SELECT count(*) = {} FROM usher.sync_jobs WHERE waiting_for = 'rate limit'", (round + 1) * 5),
        );
        assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 3);
    }

    // Under load.
    limited(&mut client, "copy", json!([{"per": "flow", "rate": "50 per second", "burst": 10}]));
    settled(&mut client, LONG);
    run(&mut client, "TRUNCATE public.done");
    for round in 1..4 {
        run(&mut client, &format!("INSERT INTO public.orders SELECT {round} * 1000 + g, 'a' FROM generate_series(1, 100) g"));
        wait::until_true(&mut client, &format!("SELECT count(*) > {} FROM public.done", round * 30));
        if round == 2 {
            server::cluster(&["stop", "immediate"]);
            server::cluster(&["start"]);
            client = database.reconnect();
        } else {
            client = server::crash(&database);
        }
    }
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 300);
    within(&mut client, 10, 50.0, false);
}

#[test]
fn whoever_goes_away_lets_the_next_one_come() {
    let (_database, mut client) = open("usher_test_limit_cancel");
    limited(&mut client, "copy", json!([{"per": "flow", "rate": "2 per second"}]));
    run(&mut client, "INSERT INTO public.orders SELECT g, 'a' FROM generate_series(1, 7) g");
    // The first that waits, whoever that is by then, twice.
    for _ in 0..2 {
        wait::until(LONG, "the first one is cancelled", || {
            let first = "SELECT id FROM usher.queue_waiting WHERE waiting_for = 'rate limit' AND due_at > clock_timestamp() + interval '100 ms' ORDER BY seq LIMIT 1";
            match client.query_opt(first, &[]).expect("a query") {
                Some(row) => client.execute("SELECT usher.cancel_sync_job($1)", &[&row.get::<_, Uuid>(0)]).is_ok(),
                None => false,
            }
        });
    }
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 5);
    within(&mut client, 1, 2.0, false);

    // A flow that goes takes those with it who wait.
    limited(&mut client, "copy", json!([{"per": "flow", "rate": "1 per hour"}]));
    run(&mut client, "INSERT INTO public.orders SELECT g, 'a' FROM generate_series(11, 20) g; SELECT usher.drop_flow('copy')");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.queue_waiting"), 0);
}

/// A flow of requests that are limited in all.
fn asked(client: &mut Client, rate: &str) {
    run(client, "SELECT usher.create_system('shop'), usher.create_system('books')");
    flow(
        client,
        "ask",
        &json!({"from": "shop", "to": "books", "when": {"request": "go"}, "then": {"insert": "public.done"}, "run_as": "clients_limited",
                "set": {"id": "(job.payload->>'id')::integer", "account": "'a'", "version": "1"}, "limits": [{"per": "flow", "rate": rate}]}),
    );
}

fn ask(client: &mut Client, first: i32, last: i32, lane: &str, options: Option<Value>) {
    let sql = "SELECT usher.enqueue_sync_jobs('default', 'shop', 'books',
        ARRAY(SELECT jsonb_build_object('action', 'go', 'id', g) FROM generate_series($1::integer, $2) g), priority => $3, options => $4)";
    client.execute(sql, &[&first, &last, &lane, &options]).expect("requests");
}

#[test]
fn who_comes_in_a_higher_lane_does_not_wait_behind_a_lower_one() {
    let (_database, mut client) = open("usher_test_limit_lanes");
    asked(&mut client, "4 per second");
    ask(&mut client, 1, 2000, "low", None);
    wait::until_true(&mut client, "SELECT count(*) > 1900 FROM usher.queue_waiting WHERE waiting_for = 'rate limit'");
    ask(&mut client, 0, 0, "emergency", None);
    wait::until_true(&mut client, "SELECT EXISTS (SELECT FROM public.done WHERE id = 0)");
    assert!(number(&mut client, "SELECT count(*) FROM usher.queue_waiting WHERE waiting_for = 'rate limit'") > 1000);
    within(&mut client, 1, 4.0, false);
}

/// Nobody has to look for it once a minute.
#[test]
fn when_the_first_one_expires_the_next_one_has_its_time() {
    let (_database, mut client) = open("usher_test_limit_expiry");
    asked(&mut client, "1 per hour");
    ask(&mut client, 1, 1, "normal", None);
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM public.done");
    ask(&mut client, 2, 2, "normal", Some(json!({"expires_in": "1 s"})));
    ask(&mut client, 3, 5, "normal", None);
    wait::until_true_for(
        &mut client,
        Duration::from_secs(15),
        "SELECT count(*) = 3 AND count(due_at) = 1 FROM usher.queue_waiting WHERE waiting_for = 'rate limit'",
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.dead_letters WHERE sqlstate = 'US001'"), 1);
}

/// Two flows of one system share its rate, and each organization has its own share of it.
#[test]
fn a_system_is_limited_for_all_flows() {
    let (_database, mut client) = open("usher_test_limit_system");
    run(&mut client, "SELECT usher.create_system('books')");
    for name in ["one", "two"] {
        limited(&mut client, name, json!([{"per": "flow", "rate": "1000 per second", "burst": 1000}]));
        run(
            &mut client,
            &format!(
                "SELECT usher.alter_flow('{name}', definition - 'limits' || '{{\"to\": \"books\"}}') FROM usher.flows WHERE name = '{name}'"
            ),
        );
    }
    run(&mut client, r#"SELECT usher.limit_system('books', '[{"per": "system", "rate": "80 per second", "burst": 4}]')"#);
    run(&mut client, "INSERT INTO public.orders SELECT g, 'a' FROM generate_series(1, 60) g");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 120);
    within(&mut client, 4, 80.0, false);

    run(&mut client, r#"SELECT usher.limit_system('books', '[{"per": "connection", "rate": "1 per hour"}]')"#);
    // A batch that had begun before goes by the limits that it knew.
    let resting = "SELECT bool_and(xact_start IS NULL) FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database()";
    wait::until_true(&mut client, resting);
    run(&mut client, "INSERT INTO public.orders SELECT g, 'a' FROM generate_series(101, 105) g");
    wait::until_true(
        &mut client,
        "SELECT sum(waiting) >= 5 AND (SELECT count(*) = 9 FROM usher.queue_waiting WHERE waiting_for IN ('rate limit', 'earlier change')) FROM usher.limits WHERE per = 'connection' AND system = 'books'",
    );
    run(&mut client, "SELECT usher.limit_system('books', NULL)");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 130);
}

#[test]
fn eight_workers_outside_never_hold_more_than_allowed() {
    let (database, mut client) = open("usher_test_limit_claim");
    run(
        &mut client,
        "SELECT usher.create_system('shop'), usher.create_system('mailer', 'external');
         SELECT usher.create_organization('acme');",
    );
    run(
        &mut client,
        r#"SELECT usher.limit_system('mailer', '[{"per": "connection", "concurrency": 3}, {"per": "system", "concurrency": 5}]')"#,
    );
    for organization in ["default", "acme"] {
        run(
            &mut client,
            &format!(
                "SELECT usher.enqueue_sync_jobs('{organization}', 'shop', 'mailer', ARRAY(SELECT jsonb_build_object('n', g) FROM generate_series(1, 150) g))"
            ),
        );
    }
    static HELD: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    static MOST: [AtomicUsize; 3] = [AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)];
    static OVER: AtomicBool = AtomicBool::new(false);
    let acme: Uuid = value(&mut client, "SELECT id FROM usher.organizations WHERE slug = 'acme'", &[]);
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let database = database.clone();
            thread::spawn(move || {
                let mut client = database.connect();
                let mut done = 0;
                loop {
                    let sql = "SELECT job, lease, organization_id FROM usher.claim_jobs('mailer', 1 + $1)";
                    let jobs = client.query(sql, &[&(worker % 3)]).expect("a claim");
                    for job in &jobs {
                        let of = usize::from(job.get::<_, Uuid>(2) == acme);
                        let now = HELD[of].fetch_add(1, SeqCst) + 1;
                        MOST[of].fetch_max(now, SeqCst);
                        MOST[2].fetch_max(HELD[0].load(SeqCst) + HELD[1].load(SeqCst), SeqCst);
                    }
                    if jobs.is_empty() && number(&mut client, "SELECT count(*) FROM usher.queue_waiting") == 0 {
                        return done;
                    }
                    for job in &jobs {
                        // Counted as given back before it is.
                        HELD[usize::from(job.get::<_, Uuid>(2) == acme)].fetch_sub(1, SeqCst);
                        let (id, lease): (Uuid, Uuid) = (job.get(0), job.get(1));
                        if done % 5 == 4 {
                            let sql = "SELECT usher.fail_job($1, $2, 'not today', '0 s')";
                            client.execute(sql, &[&id, &lease]).expect("a failure");
                        } else {
                            client.execute("SELECT usher.finish_job($1, $2)", &[&id, &lease]).expect("an answer");
                        }
                        done += 1;
                    }
                    OVER.fetch_or(MOST[0].load(SeqCst) > 3 || MOST[1].load(SeqCst) > 3 || MOST[2].load(SeqCst) > 5, SeqCst);
                }
            })
        })
        .collect();
    let done: usize = workers.into_iter().map(|worker| worker.join().expect("a worker")).sum();
    let most: Vec<usize> = MOST.iter().map(|most| most.load(SeqCst)).collect();
    assert!(!OVER.load(SeqCst), "{most:?} were held at a time");
    assert!(most[2] >= 3, "{most:?}: the limit was made use of");
    assert!(done >= 300, "{done}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.sync_jobs WHERE status IN ('synced', 'dead')"), 300);

    // A lease that ends makes room, also over a crash; before that nobody else gets in.
    run(
        &mut client,
        "SELECT usher.enqueue_sync_jobs('acme', 'shop', 'mailer', ARRAY(SELECT jsonb_build_object('n', g) FROM generate_series(1, 9) g))",
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.claim_jobs('mailer', 9, '1 hour')"), 3);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.claim_jobs('mailer', 9)"), 0);
    let mut client = server::crash(&database);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.claim_jobs('mailer', 9)"), 0);
    let held = "SELECT format('%s %s %s', available, in_flight, per) FROM usher.limits WHERE organization = 'acme'";
    assert_eq!(text(&mut client, held), "0 3 connection");
    run(&mut client, "UPDATE usher.queue_waiting SET due_at = now() WHERE leased_by IS NOT NULL");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.claim_jobs('mailer', 9)"), 3);

    // A rate holds over a crash as well.
    run(&mut client, r#"SELECT usher.limit_system('mailer', '[{"per": "system", "rate": "4 per hour", "burst": 4}]')"#);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.claim_jobs('mailer', 3)"), 3);
    let mut client = server::crash(&database);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.claim_jobs('mailer', 9)"), 1);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.claim_jobs('mailer', 9)"), 0);
}

/// As many callers as there may be; the gate holds them inside their calls.
#[test]
fn calls_in_flight_are_never_more_than_allowed() {
    let (database, mut client) = open("usher_test_limit_calls");
    run(&mut client, "ALTER SYSTEM SET usher.callers = 4");
    reload(&mut client);
    run(
        &mut client,
        "CREATE TABLE public.gate (open boolean);
         CREATE TABLE public.log (number integer, account text, before timestamptz, after timestamptz);
         CREATE FUNCTION public.go(number integer, account text) RETURNS void LANGUAGE plpgsql AS $$
         DECLARE before timestamptz := clock_timestamp();
         BEGIN
             WHILE account = 'held' AND NOT EXISTS (SELECT FROM public.gate) LOOP
                 PERFORM pg_sleep(0.01);
             END LOOP;
             PERFORM pg_sleep(0.005);
             INSERT INTO public.log VALUES (number, account, before, clock_timestamp());
         END $$;
         GRANT SELECT ON public.gate TO clients_limited;
         GRANT INSERT ON public.log TO clients_limited",
    );
    flow(
        &mut client,
        "call",
        &json!({"from": "shop", "to": "away", "run_as": "clients_limited", "when": {"request": "go"},
                "then": {"call": "public.go", "effect": "external"},
                "set": {"number": "(job.payload->>'number')::integer", "account": "job.payload->>'account'"},
                "limits": [{"per": "key", "key": "job.payload->>'account'", "concurrency": 2}]}),
    );
    let ask = |client: &mut Client, account: &str, from: i32, to: i32| {
        let sql = "SELECT usher.enqueue_sync_jobs('default', 'shop', 'away',
                     ARRAY(SELECT jsonb_build_object('action', 'go', 'number', g, 'account', $1::text) FROM generate_series($2::integer, $3) g))";
        client.execute(sql, &[&account, &from, &to]).expect("requests");
    };
    ask(&mut client, "held", 1, 30);
    wait::until_true_for(
        &mut client,
        LONG,
        "SELECT count(*) FILTER (WHERE status = 'in_progress') = 2 AND count(*) FILTER (WHERE waiting_for = 'concurrency limit') >= 1 FROM usher.sync_jobs",
    );
    // The others of that account are held back, and hold nobody else up.
    ask(&mut client, "free", 101, 120);
    wait::until_true_for(&mut client, LONG, "SELECT count(*) = 20 FROM public.log WHERE account = 'free'");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.log WHERE account = 'held'"), 0);
    wait::until_true_for(&mut client, LONG, "SELECT count(*) = 28 FROM usher.sync_jobs WHERE waiting_for = 'concurrency limit'");
    let seen = "SELECT format('%s %s %s %s %s', per, flow, key, in_flight, waiting) FROM usher.limits WHERE key = 'held'";
    assert_eq!(text(&mut client, seen), "key call held 2 28");

    // A caller that dies makes room as well, and so does a crash.
    let pid: i32 = value(
        &mut client,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'usher caller' AND datname = current_database() AND query ~ '^calling' LIMIT 1",
        &[],
    );
    run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
    wait::until_true_for(&mut client, LONG, "SELECT count(*) = 2 FROM usher.sync_jobs WHERE status = 'in_progress'");
    let mut client = server::crash(&database);
    wait::until_true_for(&mut client, LONG, "SELECT count(*) = 2 FROM usher.sync_jobs WHERE status = 'in_progress'");
    run(&mut client, "INSERT INTO public.gate VALUES (true)");
    settled(&mut client, LONG);
    wait::until_true_for(&mut client, LONG, "SELECT count(*) = 50 FROM usher.sync_jobs WHERE status = 'synced'");
    let together = "SELECT max(n) FROM (SELECT (SELECT count(*) FROM public.log b WHERE b.account = a.account AND b.before <= a.before AND b.after > a.before) AS n FROM public.log a) x";
    assert!(number(&mut client, together) <= 2, "{} calls of one account ran at a time", number(&mut client, together));

    // A rate counts when a call is taken.
    run(&mut client, "TRUNCATE public.log");
    let limits = json!([{"per": "organization", "rate": "20 per second", "burst": 2}]);
    let sql = "SELECT usher.alter_flow('call', definition || jsonb_build_object('limits', $1::jsonb)) FROM usher.flows WHERE name = 'call'";
    client.execute(sql, &[&limits]).expect("another limit");
    ask(&mut client, "rated", 201, 230);
    wait::until_true_for(&mut client, LONG, "SELECT count(*) = 30 FROM public.log");
    settled(&mut client, LONG);
    let times: Vec<f64> = client
        .query("SELECT EXTRACT(epoch FROM last_attempted_at)::float8 FROM usher.sync_jobs WHERE payload->>'account' = 'rated' ORDER BY 1", &[])
        .expect("times")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(times.len(), 30);
    run(&mut client, "ALTER SYSTEM RESET usher.callers");
    reload(&mut client);
    let took: f64 = value(&mut client, "SELECT EXTRACT(epoch FROM max(before) - min(before))::float8 FROM public.log", &[]);
    assert!((28.0 / 20.0 - 0.05..20.0).contains(&took), "{took} s for 28 intervals of 50 ms");
}
