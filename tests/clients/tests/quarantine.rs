//! A job that ends its own process: found, put aside with its reason, and everything else is done once.

use std::path::PathBuf;
use std::time::Duration;
use usher_clients::{Client, Database, flow, json, number, role, run, settled, text, try_connect, wait};

const LONG: Duration = Duration::from_secs(120);

/// A database with a target whose trigger does what the row says, and a file that gets a line for every time it did.
fn killer(name: &str, what: &str) -> (Database, PathBuf) {
    let database = Database::create(name);
    let mut client = database.connect();
    let file = PathBuf::from(format!("{}/{name}.killed", std::env::var("PGHOST").expect("PGHOST")));
    let _ = std::fs::remove_file(&file);
    role(&mut client, "clients_killer", "NOLOGIN");
    run(
        &mut client,
        &format!(
            "CREATE TABLE public.asked (id integer PRIMARY KEY, v text NOT NULL);
             CREATE TABLE public.done (id integer NOT NULL);
             CREATE FUNCTION public.kill() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
             BEGIN
                 IF NEW.id = 13 THEN
                     COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; echo x >> {file}';
                     {what};
                 ELSIF NEW.id = 1000 THEN
                     PERFORM pg_sleep(3);
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER kill BEFORE INSERT ON public.done FOR EACH ROW EXECUTE FUNCTION public.kill();
             GRANT INSERT ON public.done TO clients_killer",
            file = file.display()
        ),
    );
    flow(
        &mut client,
        "copy",
        &json!({
            "from": "left", "to": "right", "when": {"change": "public.asked", "on": ["insert"]},
            "then": {"insert": "public.done"}, "set": {"id": "new.id"}, "run_as": "clients_killer"
        }),
    );
    flow(
        &mut client,
        "ask",
        &json!({
            "from": "left", "to": "right", "when": {"request": "ask"},
            "then": {"insert": "public.done"}, "set": {"id": "(job.payload->>'id')::integer"}, "run_as": "clients_killer"
        }),
    );
    (database, file)
}

const CRASH: &str = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; kill -9 $PPID'";

/// Waits through the crashes for the one dead letter, and returns a connection.
fn await_dead_letter(database: &Database) -> Client {
    wait::until(LONG, "the job that ends the process is a dead letter", || {
        let Ok(mut client) = try_connect(&database.name, None) else { return false };
        client.query_one("SELECT count(*) FROM usher.dead_letters", &[]).is_ok_and(|row| row.get::<_, i64>(0) == 1)
    });
    database.reconnect()
}

fn times(file: &PathBuf) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().count()
}

const NORMAL: &str = "SELECT NOT bool_or(careful) AND count(*) = 2 FROM usher.worker_marks";

#[test]
fn a_job_that_takes_the_server_down_is_put_aside() {
    let (database, file) = killer("usher_test_quarantine", CRASH);
    let mut client = database.connect();
    // A long innocent one in the other process, interrupted by every crash: it must not be blamed.
    run(
        &mut client,
        "SELECT usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"ask\", \"id\": 1000}', priority => 'emergency')",
    );
    wait::until_true(&mut client, "SELECT EXISTS (SELECT FROM usher.sync_jobs WHERE status = 'in_progress' AND flow = 'ask')");
    // The crash may take our connection away while the statement is being answered.
    let _ = client.batch_execute("INSERT INTO public.asked SELECT n, 'v' FROM generate_series(1, 40) AS n");

    let mut client = await_dead_letter(&database);
    settled(&mut client, LONG);
    assert_eq!(
        text(&mut client, "SELECT flow || ': ' || error_message FROM usher.sync_jobs WHERE status = 'dead'"),
        "copy: the server process ended while it ran, 3 times"
    );
    assert_eq!(text(&mut client, "SELECT new ->> 'id' || ' ' || sqlstate FROM usher.dead_letters"), "13 57P02");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 40, "39 rows and the long one, each once");
    assert_eq!(number(&mut client, "SELECT count(DISTINCT id) FROM public.done"), 40);
    assert_eq!(times(&file), 4, "once in its batch, three times by itself");
    wait::until_true(&mut client, NORMAL);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.job_intents"), 0, "nothing is left of the search");

    // Normal work does not touch the intents: their table keeps its one page of old rows.
    let pages = "SELECT pg_relation_size('usher.job_intents') || ' ' || coalesce((SELECT max(xmin::text::bigint) FROM usher.worker_marks), 0)";
    let before = text(&mut client, pages);
    run(&mut client, "INSERT INTO public.asked SELECT n, 'v' FROM generate_series(2001, 4000) AS n");
    wait::until_true(&mut client, "SELECT count(*) = 2040 FROM public.done");
    assert_eq!(text(&mut client, pages), before);
}

#[test]
fn so_is_one_that_waited_for_its_time() {
    let (database, file) = killer("usher_test_quarantine2", CRASH);
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT usher.enqueue_sync_jobs('default', 'left', 'right',
            (SELECT array_agg(jsonb_build_object('action', 'ask', 'id', n)) FROM generate_series(10, 16) AS n))",
    );
    let mut client = await_dead_letter(&database);
    settled(&mut client, LONG);
    assert_eq!(text(&mut client, "SELECT string_agg(id::text, ',' ORDER BY id) FROM public.done"), "10,11,12,14,15,16");
    let before = times(&file);
    // A second life for it, as a job that waits until it is due.
    let _ = client.batch_execute("SELECT usher.retry_sync_job(id) FROM usher.sync_jobs WHERE status = 'dead'");
    wait::until(LONG, "it has run again", || times(&file) > before);
    let mut client = await_dead_letter(&database);
    settled(&mut client, LONG);
    assert_eq!(times(&file) - before, 4);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 6);
    wait::until_true(&mut client, NORMAL);
}

/// The first that is due waits for a limit: whose turn it is has to be settled before it is announced.
#[test]
fn who_waits_for_a_limit_is_not_taken_for_another() {
    let (database, file) = killer("usher_test_quarantine_limit", CRASH);
    let mut client = database.connect();
    flow(
        &mut client,
        "slow",
        &json!({
            "from": "left", "to": "right", "when": {"request": "slow"}, "limits": [{"per": "flow", "rate": "12 per minute"}],
            "then": {"insert": "public.done"}, "set": {"id": "(job.payload->>'id')::integer"}, "run_as": "clients_killer"
        }),
    );
    run(
        &mut client,
        "SELECT usher.enqueue_sync_jobs('default', 'left', 'right',
            ARRAY(SELECT jsonb_build_object('action', 'slow', 'id', n) FROM generate_series(1, 2) AS n))",
    );
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM usher.queue_waiting WHERE waiting_for = 'rate limit'");
    run(
        &mut client,
        "SELECT usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"ask\", \"id\": 13}',
                                       run_at => (SELECT due_at + interval '1 ms' FROM usher.queue_waiting))",
    );
    wait::until_true(&mut client, "SELECT count(due_at) = 2 FROM usher.queue_waiting");
    // Both are due when the worker comes to look.
    run(&mut client, "BEGIN; SELECT usher.hold_lane('normal')");
    wait::until_true(&mut client, "SELECT max(due_at) < clock_timestamp() FROM usher.queue_waiting");
    run(&mut client, "COMMIT");
    drop(client);
    let mut client = await_dead_letter(&database);
    settled(&mut client, LONG);
    assert_eq!(text(&mut client, "SELECT string_agg(payload->>'id', ',') FROM usher.sync_jobs WHERE status = 'dead'"), "13");
    assert_eq!(text(&mut client, "SELECT string_agg(id::text, ',' ORDER BY id) FROM public.done"), "1,2");
    assert_eq!(times(&file), 4, "with its batch, and three times by itself");
}

#[test]
fn one_that_ends_only_its_worker_is_found_as_well() {
    let (database, file) = killer("usher_test_quarantine3", "PERFORM pg_terminate_backend(pg_backend_pid())");
    let mut client = database.connect();
    let started = text(&mut client, "SELECT pg_postmaster_start_time()::text");
    run(&mut client, "INSERT INTO public.asked SELECT n, 'v' FROM generate_series(1, 40) AS n");
    let mut client = await_dead_letter(&database);
    settled(&mut client, LONG);
    assert_eq!(
        text(&mut client, "SELECT error_message FROM usher.sync_jobs WHERE status = 'dead'"),
        "the worker process ended while it ran, 5 times"
    );
    assert_eq!(number(&mut client, "SELECT count(DISTINCT id) * 1000 + count(*) FROM public.done"), 39_039);
    assert_eq!(times(&file), 7, "twice in a batch, five times by itself");
    assert_eq!(text(&mut client, "SELECT pg_postmaster_start_time()::text"), started);
}

#[test]
fn a_crash_that_no_job_has_caused_blames_none() {
    let (database, _) = killer("usher_test_quarantine4", CRASH);
    let mut client = database.connect();
    for round in 0..3 {
        run(&mut client, "SELECT usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"ask\", \"id\": 1000}')");
        run(
            &mut client,
            &format!(
                "INSERT INTO public.asked SELECT n, 'v' FROM generate_series({}, {}) AS n",
                round * 100 + 20,
                round * 100 + 39
            ),
        );
        client = usher_clients::server::crash(&database);
    }
    settled(&mut client, LONG);
    wait::until_true(&mut client, NORMAL);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.dead_letters"), 0);
    assert_eq!(number(&mut client, "SELECT count(DISTINCT id) * 1000 + count(*) FROM public.done WHERE id < 1000"), 60_060);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done WHERE id = 1000"), 3);
}

/// The jobs of before a crash are done one by one; that a hundred thousand others wait behind them costs nothing.
#[test]
fn a_long_backlog_is_not_read_for_each_of_them() {
    let (database, _file) = killer("usher_test_quarantine_backlog", CRASH);
    let mut client = database.connect();
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(&mut client, "INSERT INTO public.asked SELECT n, 'v' FROM generate_series(2001, 102000) AS n");
    let mut client = usher_clients::server::crash(&database);
    // Nothing that reads the log itself.
    wait::until_true_for(&mut client, LONG, "SELECT count(*) >= 100000 FROM public.done");
    assert_eq!(text(&mut client, "SELECT count(*) || ' ' || count(DISTINCT id) FROM public.done"), "100000 100000");
    // What a worker has read is told when it ends at the latest.
    run(
        &mut client,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database()",
    );
    let read = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE schemaname = 'usher' AND relname LIKE 'jobs\\_to\\_%' AND indexrelname LIKE '%pkey'";
    wait::until_true(&mut client, &format!("SELECT ({read}) >= 100000"));
    let rows = number(&mut client, read);
    assert!(rows < 1_000_000, "{rows} entries of the log were read for 100000 jobs");
}
