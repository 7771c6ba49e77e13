//! Locks and time are shared with the application, and bounded.

use std::time::{Duration, Instant};
use usher_clients::{Client, Database, SqlState, Value, flow, json, number, refused, role, run, settled, text, wait};

fn tables(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_locks", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.a (id integer PRIMARY KEY, v integer NOT NULL);
         CREATE TABLE public.b (id integer PRIMARY KEY, v integer NOT NULL);
         CREATE FUNCTION public.slow(v integer) RETURNS integer LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_catalog.pg_sleep(20); RETURN v; END $$;
         GRANT SELECT, INSERT, UPDATE ON public.b TO clients_locks",
    );
    (database, client)
}

fn copy(mode: &str, value: &str) -> Value {
    json!({
        "from": "left", "to": "right", "mode": mode, "run_as": "clients_locks", "lock_timeout": "300ms",
        "retry": {"delays": vec![1; 15], "jitter": 0},
        "when": {"change": "public.a", "on": ["insert", "update"]},
        "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "v": value}
    })
}

#[test]
fn a_locked_target_row_holds_up_its_own_job_only() {
    for mode in ["realtime", "transactional"] {
        let (database, mut client) = tables("usher_test_locks");
        let here = &mut client;
        flow(here, "copy", &copy(mode, "new.v"));
        run(here, "INSERT INTO public.a VALUES (1, 1), (2, 1)");
        settled(here, wait::LONG);
        let mut holder = database.connect();
        run(&mut holder, "BEGIN; UPDATE public.b SET v = v WHERE id = 1");
        let begin = Instant::now();
        run(here, "UPDATE public.a SET v = 2 WHERE id = 1");
        run(here, "UPDATE public.a SET v = 2 WHERE id = 2");
        let writing = begin.elapsed();
        assert!(writing < Duration::from_secs(3), "{mode}: the writer waited {writing:?} for a flow's lock");
        wait::until_true(here, "SELECT v = 2 FROM public.b WHERE id = 2");
        wait::until_true(here, "SELECT count(*) = 1 FROM usher.sync_jobs WHERE status = 'failed' AND error_message ~ 'lock'");
        assert_eq!(text(here, "SELECT v::text FROM public.b WHERE id = 1"), "1");
        run(&mut holder, "COMMIT");
        settled(here, wait::LONG);
        assert_eq!(text(here, "SELECT v::text FROM public.b WHERE id = 1"), "2", "{mode}: and comes once the lock is gone");
        assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
    }
}

#[test]
fn a_writers_own_timeout_still_ends_its_statement() {
    let (_database, mut client) = tables("usher_test_timeout");
    let here = &mut client;
    run(here, "GRANT EXECUTE ON FUNCTION public.slow(integer) TO clients_locks");
    flow(here, "copy", &copy("transactional", "public.slow(new.v)"));
    // What the writer asked for is no error of the flow, which must not swallow it.
    run(here, "SET statement_timeout = '400ms'");
    let begin = Instant::now();
    let error = refused(here, "INSERT INTO public.a VALUES (1, 1)");
    assert_eq!(error.code(), &SqlState::QUERY_CANCELED);
    assert!(begin.elapsed() < Duration::from_secs(10));
    run(here, "SET statement_timeout = 0");
    assert_eq!(
        number(here, "SELECT (SELECT count(*) FROM public.a) + (SELECT count(*) FROM usher.sync_jobs)"),
        0,
        "nothing is left of it"
    );
}

#[test]
fn two_writers_and_a_worker_do_not_deadlock_for_good() {
    let (database, mut client) = tables("usher_test_deadlock");
    let here = &mut client;
    flow(here, "copy", &copy("transactional", "new.v"));
    run(here, "INSERT INTO public.a SELECT n, 0 FROM generate_series(1, 6) n");
    // Writers that lock the same rows in opposite orders, while flows lock the copies: PostgreSQL ends some of them, and
    // what they did is undone in source and target alike.
    let threads: Vec<_> = [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [3, 1, 5, 6, 4, 2]]
        .into_iter()
        .map(|order| {
            let mut client = database.connect();
            run(&mut client, "SET deadlock_timeout = '20ms'");
            std::thread::spawn(move || {
                for _ in 0..30 {
                    let changes: String =
                        order.iter().map(|id| format!("UPDATE public.a SET v = v + 1 WHERE id = {id};")).collect();
                    if let Err(error) = client.batch_execute(&format!("BEGIN; {changes} COMMIT")) {
                        assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{}", wait::describe(&error));
                        client.batch_execute("ROLLBACK").expect("ROLLBACK");
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a writer has panicked"));
    settled(here, Duration::from_secs(60));
    let different = "SELECT count(*) FROM public.a FULL JOIN public.b USING (id) WHERE a.v IS DISTINCT FROM b.v";
    assert_eq!(number(here, different), 0, "{}", wait::jobs(here));
}

/// A schema change does not wait for a table that somebody holds because a flow stands on both. That flow is looked at when the table is free,
/// and before anybody waits for a minute.
#[test]
fn a_flow_that_could_not_be_looked_at_is_looked_at_when_it_can_be() {
    let (database, mut client) = tables("usher_test_locks_postponed");
    let here = &mut client;
    flow(here, "copy", &copy("realtime", "new.v"));
    // The worker's look at everything is over.
    let recorded = "SELECT EXISTS (SELECT FROM usher.flow_dependencies AS d JOIN usher.flows AS f ON f.id = d.flow_id WHERE f.name = 'copy' AND d.attnum = 0)";
    wait::until_true(here, recorded);
    for (change, state) in
        [("ADD COLUMN extra integer", "ok"), ("RENAME COLUMN v TO w", "broken"), ("RENAME COLUMN w TO v", "ok")]
    {
        let mut holder = database.connect();
        run(&mut holder, "BEGIN; LOCK TABLE public.b");
        run(here, &format!("ALTER TABLE public.a {change}"));
        if change.starts_with("ADD") {
            assert_eq!(text(here, &format!("SELECT ({recorded})::text")), "false", "it waits for public.b");
        }
        run(&mut holder, "COMMIT");
        wait::until_true(here, recorded);
        wait::until_true(here, &format!("SELECT state = '{state}' FROM usher.flows WHERE name = 'copy'"));
    }
}
