//! Whatever a worker is doing, it ends within two seconds when it is asked to, and what it was doing is done once afterwards.

use std::time::{Duration, Instant};
use usher_clients::{Client, Database, flow, json, number, role, run, server, settled, text, wait};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(2);

/// A target in which row 13 takes a minute, but only while `public.slow` says so, and row 14 needs a lock.
fn slow(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_stopping", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.asked (id integer PRIMARY KEY);
         CREATE TABLE public.done (id integer NOT NULL);
         CREATE TABLE public.counter (id integer PRIMARY KEY, n integer NOT NULL);
         INSERT INTO public.counter VALUES (1, 0);
         CREATE TABLE public.slow (on_now boolean NOT NULL);
         INSERT INTO public.slow VALUES (true);
         CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.id = 13 AND (SELECT on_now FROM public.slow) THEN PERFORM pg_catalog.pg_sleep(60); END IF;
             IF NEW.id = 14 THEN UPDATE public.counter SET n = n + 1; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER take_time BEFORE INSERT ON public.done FOR EACH ROW EXECUTE FUNCTION public.take_time();
         GRANT SELECT, INSERT, UPDATE ON public.done, public.counter, public.slow TO clients_stopping",
    );
    flow(
        &mut client,
        "copy",
        &json!({
            "from": "left", "to": "right", "when": {"change": "public.asked", "on": ["insert"]}, "lock_timeout": "60s",
            "then": {"insert": "public.done"}, "set": {"id": "new.id"}, "run_as": "clients_stopping"
        }),
    );
    (database, client)
}

fn waits_for(client: &mut Client, event: &str) {
    wait::until_true(
        client,
        &format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'usher worker' AND {event})"
        ),
    );
}

/// Stops the server as an administrator does, and starts it again. How long the stop took includes a checkpoint.
fn restart(database: &Database) -> (Duration, Client) {
    let begin = Instant::now();
    server::cluster(&["stop", "fast"]);
    let took = begin.elapsed();
    server::cluster(&["start"]);
    (took, database.reconnect())
}

#[test]
fn a_slow_statement_does_not_hold_up_a_shutdown() {
    let (database, mut client) = slow("usher_test_stop");
    run(&mut client, "INSERT INTO public.asked SELECT generate_series(1, 20)");
    waits_for(&mut client, "wait_event = 'PgSleep'");
    run(&mut client, "CHECKPOINT");
    let (took, mut client) = restart(&database);
    assert!(took < SOON, "the shutdown took {took:?} while a job slept");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 0, "the batch is undone");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.sync_jobs WHERE status IN ('pending', 'in_progress')"), 20);

    // The slow one is at it again: SIGTERM by hand, to the process alone.
    waits_for(&mut client, "wait_event = 'PgSleep'");
    let pid = server::worker_of(&mut client, "normal").expect("a worker");
    run(&mut client, "UPDATE public.slow SET on_now = false");
    let begin = Instant::now();
    run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
    wait::until(LONG, "the process is gone", || !server::workers(&mut client).contains(&pid));
    assert!(begin.elapsed() < SOON, "the process took {:?} to end", begin.elapsed());
    settled(&mut client, LONG);
    assert_eq!(text(&mut client, "SELECT count(*) || ' ' || count(DISTINCT id) FROM public.done"), "20 20");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'synced'"), 20);
    assert_eq!(number(&mut client, "SELECT n::bigint FROM public.counter"), 1);
}

#[test]
fn nor_does_a_lock_that_somebody_else_has() {
    let (database, mut client) = slow("usher_test_stop2");
    run(&mut client, "UPDATE public.slow SET on_now = false");
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; UPDATE public.counter SET n = n");
    run(&mut client, "INSERT INTO public.asked SELECT generate_series(1, 20)");
    waits_for(&mut client, "wait_event_type = 'Lock'");
    run(&mut client, "CHECKPOINT");
    let (took, mut client) = restart(&database);
    assert!(took < SOON, "the shutdown took {took:?} while a job waited for a lock");
    settled(&mut client, LONG);
    assert_eq!(text(&mut client, "SELECT count(*) || ' ' || count(DISTINCT id) FROM public.done"), "20 20");
    assert_eq!(number(&mut client, "SELECT n::bigint FROM public.counter"), 1);
}

#[test]
fn nor_does_a_worker_that_naps_or_waits() {
    let (database, mut client) = slow("usher_test_stop3");
    run(&mut client, "UPDATE public.slow SET on_now = false");
    waits_for(&mut client, "wait_event = 'Extension'");
    run(&mut client, "CHECKPOINT");
    let (took, mut client) = restart(&database);
    assert!(took < SOON, "the shutdown took {took:?} while workers waited");

    // After a batch that failed as a whole it naps for a second: the ledger is locked away.
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; LOCK TABLE usher.job_batches IN ACCESS EXCLUSIVE MODE");
    run(&mut client, "INSERT INTO public.asked SELECT generate_series(1, 20)");
    waits_for(&mut client, "wait_event_type = 'Lock'");
    waits_for(&mut client, "wait_event = 'Extension' AND query LIKE 'working%'");
    let (took, mut client) = restart(&database);
    assert!(took < SOON, "the shutdown took {took:?} while a worker napped");
    settled(&mut client, LONG);
    assert_eq!(text(&mut client, "SELECT count(*) || ' ' || count(DISTINCT id) FROM public.done"), "20 20");
}

#[test]
fn timeouts_that_are_set_for_everybody_do_not_end_it() {
    let (database, mut client) = slow("usher_test_stop4");
    run(&mut client, "UPDATE public.slow SET on_now = false");
    // Of the server that knows it: 17 and later.
    let more = if number(&mut client, "SELECT current_setting('server_version_num')::bigint") >= 170_000 {
        "ALTER DATABASE usher_test_stop4 SET transaction_timeout = '300ms';"
    } else {
        ""
    };
    run(
        &mut client,
        &format!(
            "ALTER DATABASE usher_test_stop4 SET statement_timeout = '300ms';
             ALTER DATABASE usher_test_stop4 SET lock_timeout = '1ms';
             ALTER DATABASE usher_test_stop4 SET idle_session_timeout = '300ms';
             ALTER DATABASE usher_test_stop4 SET idle_in_transaction_session_timeout = '300ms';
             ALTER DATABASE usher_test_stop4 SET default_transaction_read_only = on;
             ALTER DATABASE usher_test_stop4 SET row_security = off;
             ALTER DATABASE usher_test_stop4 SET default_transaction_isolation = 'serializable';{more}"
        ),
    );
    // Those that start from here on have them.
    let before = server::workers(&mut client);
    run(
        &mut client,
        "SET statement_timeout = 0; SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND backend_type = 'usher worker'",
    );
    wait::until(LONG, "there are two others", || {
        let now = server::workers(&mut client);
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
    waits_for(&mut client, "wait_event = 'Extension'");
    let workers = server::workers(&mut client);
    run(
        &mut client,
        "CREATE OR REPLACE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF NEW.id = 1 THEN PERFORM pg_catalog.pg_sleep(1.5); END IF; RETURN NEW; END $$",
    );
    run(&mut client, "INSERT INTO public.asked SELECT generate_series(1, 20)");
    wait::until_true(&mut client, "SELECT count(*) = 20 FROM public.done");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.sync_jobs WHERE attempts > 1"), 0);
    assert_eq!(server::workers(&mut client), workers, "the same processes are still there");
    drop(database);
}
