//! The log of jobs: what is done is done once, whatever commits late; nobody keeps others waiting.

use std::thread;
use std::time::Duration;
use usher_clients::chaos::Chance;
use usher_clients::{Client, Database, Uuid, flow, json, number, reload, role, run, settled, text, value, wait};

/// Whoever holds this lock keeps the worker of the normal lane away, so that jobs gather.
const HOLD: &str = "BEGIN; SELECT usher.hold_lane('normal')";
const RELEASE: &str = "ROLLBACK";

/// `public.a` is copied to `public.b`, which numbers what arrives in its order and allows everything twice.
fn copy(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_queue", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.a (organization_id uuid NOT NULL, id bigserial PRIMARY KEY, v integer NOT NULL DEFAULT 0);
         CREATE TABLE public.b (n bigserial, organization_id uuid NOT NULL, id bigint NOT NULL, v integer NOT NULL);
         GRANT SELECT, INSERT ON public.b TO clients_queue; GRANT USAGE ON SEQUENCE public.b_n_seq TO clients_queue",
    );
    flow(
        &mut client,
        "copy",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_queue", "when": {"change": "public.a", "on": ["insert", "update"]},
            "then": {"insert": "public.b"}, "set": {"id": "new.id", "v": "new.v"}
        }),
    );
    (database, client)
}

fn organization(client: &mut Client, slug: &str) -> Uuid {
    value(client, "SELECT usher.create_organization($1)", &[&slug])
}

fn same(client: &mut Client) {
    let difference = "SELECT (SELECT count(*) FROM (SELECT id, v FROM public.a EXCEPT ALL SELECT id, v FROM public.b) x)
                           + (SELECT count(*) FROM (SELECT id, v FROM public.b EXCEPT ALL SELECT id, v FROM public.a) x)";
    assert_eq!(number(client, difference), 0, "every row arrived once\n{}", wait::jobs(client));
}

#[test]
fn a_million_jobs_of_one_do_not_keep_another_waiting() {
    let (database, mut client) = copy("usher_test_share");
    let here = &mut client;
    let (big, small) = (organization(here, "big"), organization(here, "small"));
    run(here, "ALTER SYSTEM SET usher.batch_size = 100");
    reload(here);
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    run(here, &format!("INSERT INTO public.a (organization_id) SELECT '{big}' FROM generate_series(1, 20000)"));
    run(here, &format!("INSERT INTO public.a (organization_id) VALUES ('{small}')"));
    run(&mut holder, RELEASE);
    settled(here, wait::LONG);
    same(here);
    let place = number(here, &format!("SELECT n FROM public.b WHERE organization_id = '{small}'"));
    assert!(place <= 300, "the single job came as number {place} of 20,001");
    // And within an organization in order.
    let back = "SELECT count(*) FROM (SELECT id < lag(id) OVER (PARTITION BY organization_id ORDER BY n) AS back FROM public.b) AS l WHERE back";
    assert_eq!(number(here, back), 0);
}

#[test]
fn late_commits_are_done_once_and_none_is_left_out() {
    let (database, mut client) = copy("usher_test_late");
    let here = &mut client;
    let organization = organization(here, "late");
    run(here, "ALTER SYSTEM SET usher.batch_size = 20");
    reload(here);
    // A transaction that draws the first position and commits last, others of all sizes that overlap, roll back, or are
    // prepared and committed later.
    let mut first = database.connect();
    run(&mut first, &format!("BEGIN; INSERT INTO public.a (organization_id) VALUES ('{organization}')"));
    let threads: Vec<_> = (0..6)
        .map(|number| {
            let mut client = database.connect();
            let organization = organization.to_string();
            thread::spawn(move || {
                let mut chance = Chance::new(number + 77);
                for round in 0..15 {
                    let rows = 1 + chance.below(30);
                    let insert = format!(
                        "INSERT INTO public.a (organization_id) SELECT '{organization}' FROM generate_series(1, {rows});"
                    );
                    let end = match chance.below(4) {
                        0 => "ROLLBACK".to_owned(),
                        1 => format!("PREPARE TRANSACTION 'late {number} {round}'; COMMIT PREPARED 'late {number} {round}'"),
                        _ => "COMMIT".to_owned(),
                    };
                    let nap = chance.below(5) as f64 / 1000.0;
                    for statement in format!("BEGIN; {insert} SELECT pg_sleep({nap}); {insert} {end}").split(';') {
                        run(&mut client, statement);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a writer has panicked");
    }
    run(&mut first, "COMMIT");
    settled(here, wait::LONG);
    same(here);
    assert!(number(here, "SELECT count(*) FROM public.a") > 500, "the test itself");
    // What the ledger says is what is in the log, each position once, and when nobody is at work the floors are at the top.
    let twice = "SELECT count(*) FROM (SELECT range_agg(r) OVER (PARTITION BY lane ORDER BY last_seq, r ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before, r
                   FROM usher.job_batches CROSS JOIN unnest(done) AS r) AS x WHERE before && r";
    assert_eq!(number(here, twice), 0, "no position is in two batches");
    wait::until_true(here, "SELECT floor = (SELECT last_value FROM usher.queue_seq) FROM usher.job_floors WHERE lane = 3");
    assert_eq!(number(here, "SELECT count(*) FROM usher.ready_jobs"), 0);
    let jobs = number(here, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'synced'");
    assert_eq!(jobs, number(here, "SELECT count(*) FROM public.a"), "every job is in the view, once");
    // A process that knows nothing reads it all again and does nothing again.
    run(
        here,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database()",
    );
    run(here, &format!("INSERT INTO public.a (organization_id) VALUES ('{organization}')"));
    settled(here, wait::LONG);
    same(here);
}

#[test]
fn an_open_transaction_holds_the_floor_and_nothing_else() {
    let (database, mut client) = copy("usher_test_floor");
    let here = &mut client;
    let organization = organization(here, "floor");
    let insert = format!("INSERT INTO public.a (organization_id) VALUES ('{organization}')");
    run(here, &insert);
    settled(here, wait::LONG);
    let mut open = database.connect();
    run(&mut open, &format!("BEGIN; {insert}"));
    let drawn = number(here, "SELECT last_value FROM usher.queue_seq");
    for _ in 0..30 {
        run(here, &insert);
    }
    wait::until_true(here, "SELECT count(*) = 31 FROM public.b");
    assert!(number(here, "SELECT floor FROM usher.job_floors WHERE lane = 3") < drawn, "the open one may still add its position");
    // A restart in between must find the one in the gap, and only that.
    run(
        here,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database()",
    );
    run(here, &insert);
    wait::until_true(here, "SELECT count(*) = 32 FROM public.b");
    run(&mut open, "COMMIT");
    settled(here, wait::LONG);
    same(here);
    assert_eq!(number(here, "SELECT count(*) FROM public.b"), 33);
    wait::until_true(here, &format!("SELECT floor > {drawn} FROM usher.job_floors WHERE lane = 3"));
    assert_eq!(text(here, "SELECT string_agg(DISTINCT status, ',') FROM usher.sync_jobs"), "synced");
}

#[test]
fn nothing_overtakes_a_job_that_somebody_has_locked() {
    let (database, mut client) = copy("usher_test_locked");
    let here = &mut client;
    let organization = organization(here, "locked");
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    run(here, &format!("INSERT INTO public.a (organization_id, v) VALUES ('{organization}', 1)"));
    let mut locker = database.connect();
    run(&mut locker, "BEGIN; SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE status = 'pending'");
    run(here, "UPDATE public.a SET v = 2");
    run(here, &format!("INSERT INTO public.a (organization_id, v) VALUES ('{organization}', 7)"));
    run(&mut holder, RELEASE);
    // The other row goes on, and nobody else's cancelling of the same job stops the lane.
    wait::until_true(here, "SELECT count(*) = 1 FROM public.b WHERE v = 7");
    let mut second = database.connect();
    let waits = thread::spawn(move || {
        let sql = "SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE payload -> 'new' ->> 'v' = '1'";
        second.batch_execute(sql).map_err(|e| e.code().expect("the server's answer").code().to_owned())
    });
    wait::until_true(
        here,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%cancel_sync_job%')",
    );
    run(here, &format!("INSERT INTO public.a (organization_id, v) VALUES ('{organization}', 8)"));
    wait::until_true(here, "SELECT count(*) = 1 FROM public.b WHERE v = 8");
    assert_eq!(
        text(here, "SELECT string_agg(v::text, ',' ORDER BY v) FROM public.b"),
        "7,8",
        "the later change waits for the earlier one"
    );
    // Either the second cancels it or a worker was faster, which the second is told. The later change comes after it.
    run(&mut locker, "ROLLBACK");
    let answer = waits.join().expect("the second canceller has panicked");
    settled(here, wait::LONG);
    let order = text(here, "SELECT string_agg(v::text, ',' ORDER BY n) FROM public.b");
    let cancelled = number(here, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'cancelled'");
    match answer {
        Ok(()) => assert_eq!((order.as_str(), cancelled), ("7,8,2", 1)),
        Err(code) => assert_eq!((order.as_str(), cancelled, code.as_str()), ("7,8,1,2", 0, "55000")),
    }
}

/// A share for each organization is read position by position, through the key; that a long log lies before them costs nothing.
#[test]
fn a_long_log_is_not_read_for_each_batch_of_several_organizations() {
    let (database, mut client) = copy("usher_test_long_log");
    let here = &mut client;
    let (one, two) = (organization(here, "one"), organization(here, "two"));
    let insert = |organization: &Uuid, rows: i32| {
        format!("INSERT INTO public.a (organization_id) SELECT '{organization}' FROM generate_series(1, {rows})")
    };
    run(here, &insert(&one, 60_000));
    settled(here, wait::LONG);
    // What a planner thinks of a log of many millions, at the size of a test.
    run(here, "ANALYZE usher.jobs; ALTER DATABASE usher_test_long_log SET random_page_cost = 400");
    run(here, "ALTER SYSTEM SET usher.batch_size = 100");
    reload(here);
    let end_workers = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database()";
    run(here, end_workers);
    database.await_workers();
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    run(here, &insert(&one, 5_000));
    run(here, &insert(&two, 5_000));
    run(here, "SELECT pg_stat_reset()");
    run(&mut holder, RELEASE);
    // Nothing that reads the log itself.
    wait::until_true_for(here, Duration::from_secs(120), "SELECT count(*) = 70000 FROM public.b");
    // What a worker has read is told when it ends at the latest.
    run(here, end_workers);
    let read = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE schemaname = 'usher' AND relname LIKE 'jobs\\_to\\_%' AND indexrelname LIKE '%pkey'";
    wait::until_true(here, &format!("SELECT ({read}) >= 10000"));
    let rows = number(here, read);
    assert!(rows < 1_000_000, "{rows} entries of the log were read for 10000 jobs");
}
