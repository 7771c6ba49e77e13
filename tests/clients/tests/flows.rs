//! Flows: their errors, their echoes and circles, and the life of their jobs.

use std::time::{Duration, Instant};
use usher_clients::{
    Client, Database, SqlState, Uuid, Value, enqueue, flow, json, number, refused, role, run, settled, text, value, wait,
};

const LONG: Duration = wait::LONG;
/// Who holds this lock holds the worker of the normal lane (src/worker/batch.rs), so that jobs gather for one batch.
const HOLD: &str = "BEGIN; SELECT usher.hold_lane('normal')";
const RELEASE: &str = "ROLLBACK";

/// A database with these tables, and a role that may write them and nothing else.
fn with_tables(name: &str, tables: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_flows", "NOLOGIN");
    run(&mut client, tables);
    run(&mut client, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clients_flows");
    (database, client)
}

/// A flow from public.a to public.b that carries v.
fn a_to_b(mode: &str, more: Value) -> Value {
    let mut definition = json!({
        "from": "left", "to": "right", "mode": mode, "run_as": "clients_flows", "retry": {"delays": []},
        "when": {"change": "public.a", "on": ["insert", "update"]},
        "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}
    });
    for (key, value) in more.as_object().expect("an object") {
        definition[key] = value.clone();
    }
    definition
}

const A_AND_B: &str = "CREATE TABLE public.a (id integer PRIMARY KEY, v integer);
                       CREATE TABLE public.b (id integer PRIMARY KEY, v integer CONSTRAINT b_not_negative CHECK (v >= 0))";

#[test]
fn a_failing_flow_never_hurts_the_writer() {
    for mode in ["transactional", "realtime", "async"] {
        let (_database, mut client) = with_tables("usher_test_flows", A_AND_B);
        let here = &mut client;

        // The condition itself fails, in a way that capture cannot rule out.
        flow(here, "f", &a_to_b(mode, json!({"if": "100 / new.v > 1"})));
        run(here, "INSERT INTO public.a VALUES (1, 10), (2, 0), (3, 20)");
        wait::until_true(here, "SELECT count(*) = 2 FROM public.b");
        wait::until_true(
            here,
            "SELECT count(*) = 1 FROM usher.dead_letters WHERE error_message ~ 'division by zero' AND sqlstate = '22012'",
        );

        // The target refuses the row; its neighbours in the same statement go through.
        flow(here, "f", &a_to_b(mode, json!({})));
        run(here, "INSERT INTO public.a VALUES (4, 40), (5, -5), (6, 60)");
        wait::until_true(here, "SELECT count(*) = 4 FROM public.b");
        wait::until_true(
            here,
            "SELECT count(*) = 1 FROM usher.dead_letters WHERE error_message ~ 'b_not_negative' AND sqlstate = '23514'",
        );

        // So does a target that is gone: the jobs wait for it, and nothing is lost.
        run(here, "DROP TABLE public.b");
        run(here, "INSERT INTO public.a VALUES (7, 70), (8, 80)");
        run(here, "UPDATE public.a SET v = v + 1 WHERE id = 7");
        wait::until_true(here, "SELECT count(*) = 3 FROM usher.sync_jobs WHERE waiting_for IN ('flow broken', 'earlier change')");
        wait::until_true(here, "SELECT state = 'broken' AND reason IS NOT NULL FROM usher.flows WHERE name = 'f'");
        run(here, "CREATE TABLE public.b (id integer PRIMARY KEY, v integer); GRANT ALL ON public.b TO clients_flows");
        flow(here, "f", &a_to_b(mode, json!({})));
        wait::until_true(here, "SELECT array_agg(v ORDER BY id) = '{71,80}' FROM public.b");
        settled(here, LONG);

        assert_eq!(number(here, "SELECT count(*) FROM public.a"), 8, "{mode}: every write has gone through");
    }
}

#[test]
fn a_writer_who_wants_to_be_refused_is() {
    let (_database, mut client) = with_tables("usher_test_abort", A_AND_B);
    flow(&mut client, "f", &a_to_b("transactional", json!({"on_error": "abort", "check": {"v is small": "v < 100"}})));
    run(&mut client, "INSERT INTO public.a VALUES (1, 10)");
    let error = refused(&mut client, "INSERT INTO public.a VALUES (2, 200)");
    assert!(error.message().contains("v is small"), "{error:?}");
    let error = refused(&mut client, "INSERT INTO public.a VALUES (3, -1)");
    assert_eq!(error.code(), &SqlState::CHECK_VIOLATION);
    assert_eq!(
        text(&mut client, "SELECT string_agg(a.id || ',' || b.id, ';') FROM public.a FULL JOIN public.b USING (id)"),
        "1,1"
    );
}

#[test]
fn two_one_way_flows_over_a_pair_settle() {
    let tables = "CREATE TABLE public.a (id integer PRIMARY KEY, price integer, stock integer);
                  CREATE TABLE public.b (id integer PRIMARY KEY, price integer, stock integer)";
    let (_database, mut client) = with_tables("usher_test_pair", tables);
    let here = &mut client;
    flow(
        here,
        "price_to_b",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_flows",
            "when": {"change": "public.a", "on": ["insert", "update"]},
            "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "price": "new.price"}, "set_once": {"stock": "new.stock"}
        }),
    );
    flow(
        here,
        "stock_to_a",
        &json!({
            "from": "right", "to": "left", "mode": "realtime", "run_as": "clients_flows",
            "when": {"change": "public.b", "on": ["update"]},
            "then": {"update": "public.a", "key": ["id"]}, "set": {"id": "new.id", "stock": "new.stock"}
        }),
    );
    run(here, "INSERT INTO public.a SELECT n, 100, 10 FROM generate_series(1, 50) n");
    wait::until_true(here, "SELECT count(*) = 50 FROM public.b");
    // Both sides change at the same time, each its own field, several times.
    for n in 1..=10 {
        run(here, &format!("UPDATE public.a SET price = 100 + {n}"));
        run(here, &format!("UPDATE public.b SET stock = 10 + {n}"));
    }
    settled(here, LONG);
    let same =
        "SELECT count(*) FROM public.a JOIN public.b USING (id) WHERE (a.price, a.stock, b.price, b.stock) = (110, 20, 110, 20)";
    assert_eq!(number(here, same), 50, "both fields have arrived on the other side");
    // 50 rows: the first insert, and 20 changes that are each carried over and at most heard of once more.
    let jobs = number(here, "SELECT count(*) FROM usher.job_history");
    assert!(jobs <= 50 * (1 + 1 + 2 * 20), "{jobs} jobs: the two flows play ping-pong");
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
}

#[test]
fn circles_come_to_an_end() {
    let tables = "CREATE TABLE public.c1 (id integer PRIMARY KEY, v integer NOT NULL);
                  CREATE TABLE public.c2 (LIKE public.c1 INCLUDING ALL); CREATE TABLE public.c3 (LIKE public.c1 INCLUDING ALL)";
    let (_database, mut client) = with_tables("usher_test_circle", tables);
    let here = &mut client;
    let circle = |here: &mut Client, mode: &str, id: &str| {
        for (from, to) in [(1, 2), (2, 3), (3, 1)] {
            flow(
                here,
                &format!("c{from}_to_c{to}"),
                &json!({
                    "from": format!("s{from}"), "to": format!("s{to}"), "mode": mode, "run_as": "clients_flows",
                    "when": {"change": format!("public.c{from}"), "on": ["insert", "update"]},
                    "then": {"upsert": format!("public.c{to}"), "key": ["id"]}, "set": {"id": id, "v": "new.v + 1"}
                }),
            );
        }
    };
    // The same row again: the trail knows it has been here.
    for mode in ["realtime", "transactional"] {
        circle(here, mode, "new.id");
        run(here, "TRUNCATE public.c1, public.c2, public.c3; INSERT INTO public.c1 VALUES (1, 0)");
        settled(here, LONG);
        let values =
            text(here, "SELECT concat_ws(',', (SELECT v FROM public.c1), (SELECT v FROM public.c2), (SELECT v FROM public.c3))");
        assert_eq!(values, "3,1,2", "{mode}: once round, and not again");
        assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{mode}");
    }
    // Ever new rows: only counting hops ends that.
    for mode in ["realtime", "transactional"] {
        circle(here, mode, "new.id + 1");
        run(
            here,
            "TRUNCATE public.c1, public.c2, public.c3; DELETE FROM usher.dead_letters; INSERT INTO public.c1 VALUES (1, 0)",
        );
        wait::until_true(here, "SELECT count(*) = 1 FROM usher.dead_letters WHERE error_message ~ 'circle'");
        settled(here, LONG);
        let rows = number(
            here,
            "SELECT (SELECT count(*) FROM public.c1) + (SELECT count(*) FROM public.c2) + (SELECT count(*) FROM public.c3)",
        );
        assert!((8..=10).contains(&rows), "{mode}: a chain of 8 hops writes about 9 rows, not {rows}");
    }
}

#[test]
fn two_jobs_for_one_key_in_a_batch() {
    let tables = "CREATE TABLE public.people (id integer PRIMARY KEY, email text, name text);
                  CREATE TABLE public.contacts (email text PRIMARY KEY, name text);
                  CREATE TABLE public.firsts (email text PRIMARY KEY, name text)";
    let (database, mut client) = with_tables("usher_test_keys", tables);
    let here = &mut client;
    let mut holder = database.connect();
    for (name, then) in [
        ("newest", json!({"upsert": "public.contacts", "key": ["email"]})),
        ("first", json!({"insert": "public.firsts", "key": ["email"], "on_conflict": "keep"})),
    ] {
        flow(
            here,
            name,
            &json!({
                "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_flows",
                "when": {"change": "public.people", "on": ["insert", "update"]},
                "then": then, "set": {"email": "new.email", "name": "new.name"}
            }),
        );
    }
    // Two rows, one key, in one statement; then one row changed again and again. All of it in one batch.
    run(&mut holder, HOLD);
    run(here, "INSERT INTO public.people VALUES (1, 'ann@x', 'Ann'), (2, 'ann@x', 'Anne'), (3, 'bob@x', 'Bob 0')");
    for n in 1..=20 {
        run(here, &format!("UPDATE public.people SET name = 'Bob {n}' WHERE id = 3"));
    }
    run(&mut holder, RELEASE);
    settled(here, LONG);
    assert_eq!(
        text(here, "SELECT string_agg(name, ',' ORDER BY email) FROM public.contacts"),
        "Anne,Bob 20",
        "the last one wins"
    );
    assert_eq!(text(here, "SELECT string_agg(name, ',' ORDER BY email) FROM public.firsts"), "Ann,Bob 0", "keep keeps the first");
    assert_eq!(number(here, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'synced'"), 2 * (3 + 20));
}

#[test]
fn the_last_change_of_a_key_wins_whichever_row_it_comes_from() {
    let tables = "CREATE TABLE public.people (id integer PRIMARY KEY, email text, name text);
                  CREATE TABLE public.contacts (email text PRIMARY KEY, name text)";
    let (database, mut client) = with_tables("usher_test_last", tables);
    let here = &mut client;
    flow(
        here,
        "newest",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_flows",
            "when": {"change": "public.people", "on": ["insert", "update"]},
            "then": {"upsert": "public.contacts", "key": ["email"]}, "set": {"email": "new.email", "name": "new.name"}
        }),
    );
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    // Row 1 changes twice, and only then row 2, which has the same key, arrives: it is the newest of the key.
    run(here, "INSERT INTO public.people VALUES (1, 'ann@x', 'Ann'); UPDATE public.people SET name = 'Anna' WHERE id = 1");
    run(here, "INSERT INTO public.people VALUES (2, 'ann@x', 'Anne')");
    run(&mut holder, RELEASE);
    settled(here, LONG);
    assert_eq!(text(here, "SELECT string_agg(name, ',' ORDER BY email) FROM public.contacts"), "Anne", "one batch");
}

#[test]
fn four_tries_then_dead_and_followers_wait() {
    let tables = format!(
        "{A_AND_B}; CREATE TABLE public.b_log (n bigserial, id integer, v integer);
        CREATE FUNCTION public.note_b() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN INSERT INTO public.b_log (id, v) VALUES (NEW.id, NEW.v); RETURN NULL; END $$;
        CREATE TRIGGER note_b AFTER INSERT OR UPDATE ON public.b FOR EACH ROW EXECUTE FUNCTION public.note_b()"
    );
    let (database, mut client) = with_tables("usher_test_retry", &tables);
    let here = &mut client;
    let mut holder = database.connect();
    flow(here, "f", &a_to_b("realtime", json!({"retry": {"delays": [1, 2, 4], "jitter": 0.2}})));
    let begin = Instant::now();
    run(here, "INSERT INTO public.a VALUES (1, -1), (2, -2), (3, 30)");
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.sync_jobs WHERE status = 'failed' AND attempts > 0");
    wait::until_true(here, "SELECT array_agg(id) = '{3}' FROM public.b");
    // Later changes of a row that is waiting wait behind it; other rows do not. However long it takes us to say so: no try
    // is made meanwhile.
    run(&mut holder, HOLD);
    run(
        here,
        "UPDATE public.a SET v = 11 WHERE id = 1; UPDATE public.a SET v = 12 WHERE id = 1; UPDATE public.a SET v = 31 WHERE id = 3",
    );
    run(&mut holder, RELEASE);
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.sync_jobs WHERE waiting_for = 'earlier change'");
    wait::until_true(here, "SELECT array_agg(v) = '{31}' FROM public.b");
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.sync_jobs WHERE status = 'dead'");
    let took = begin.elapsed().as_secs_f64();
    assert!((5.0..12.0).contains(&took), "1 + 2 + 4 seconds, each up to a fifth more or less, not {took:.1}");
    let tries = text(here, "SELECT string_agg(attempts::text, ',') FROM usher.sync_jobs WHERE status = 'dead'");
    assert_eq!(tries, "4,4", "one try and three more");
    // The one they waited for has ended: they go on, in order.
    wait::until_true(here, "SELECT array_agg(v ORDER BY n) = '{11,12}' FROM public.b_log WHERE id = 1");
    settled(here, LONG);
    let since = "SELECT min(f.finished_at) >= max(d.finished_at) FROM usher.sync_jobs f, usher.sync_jobs d
                  WHERE d.status = 'dead' AND d.payload -> 'new' ->> 'id' = '1' AND f.status = 'synced' AND f.payload -> 'new' ->> 'id' = '1'";
    assert!(value::<bool>(here, since, &[]), "they have waited until it was dead");

    // A dead job runs again with a correction.
    let job: Uuid = value(here, "SELECT id FROM usher.sync_jobs WHERE status = 'dead' AND payload -> 'new' ->> 'id' = '2'", &[]);
    let again: String = value(here, "SELECT status FROM usher.retry_sync_job($1, '{\"v\": 22}')", &[&job]);
    assert!(["pending", "failed", "in_progress"].contains(&again.as_str()), "a job that is retried waits to run, not: {again}");
    let ended: String = value(here, "SELECT status FROM usher.wait_for($1)", &[&job]);
    assert_eq!(ended, "synced");
    assert_eq!(number(here, "SELECT v::bigint FROM public.b WHERE id = 2"), 22);

    // A retry that succeeds lets its followers pass after it, not before.
    flow(here, "f", &a_to_b("realtime", json!({"retry": {"delays": vec![1; 30], "jitter": 0}})));
    run(here, "INSERT INTO public.a VALUES (4, -4)");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.sync_jobs WHERE status = 'failed'");
    run(here, "UPDATE public.a SET v = 44 WHERE id = 4");
    run(here, "ALTER TABLE public.b DROP CONSTRAINT b_not_negative");
    settled(here, LONG);
    assert_eq!(text(here, "SELECT string_agg(v::text, ',' ORDER BY n) FROM public.b_log WHERE id = 4"), "-4,44");
}

#[test]
fn requests_can_be_steered() {
    let tables = "CREATE TABLE public.calls (id integer, at timestamptz NOT NULL DEFAULT clock_timestamp())";
    let (database, mut client) = with_tables("usher_test_steer", tables);
    let here = &mut client;
    flow(
        here,
        "call",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_flows", "retry": {"delays": []},
            "when": {"request": "call"}, "then": {"insert": "public.calls"}, "set": {"id": "(job.payload ->> 'id')::integer"}
        }),
    );
    let call = |here: &mut Client, id: &str| enqueue(here, "default", "left", "right", &json!({"action": "call", "id": id}));
    let status =
        |here: &mut Client, job: Uuid| value::<String>(here, "SELECT status FROM usher.sync_jobs WHERE id = $1", &[&job]);

    // Wait for it; not in the transaction that made it, where it would wait for itself.
    let job = call(here, "1");
    assert_eq!(value::<String>(here, "SELECT status FROM usher.wait_for($1, '20 s')", &[&job]), "synced");
    let error = refused(
        here,
        "BEGIN; SELECT usher.wait_for((usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"call\"}')).id)",
    );
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    run(here, "ROLLBACK");

    // Corrected: what was not a number becomes one.
    let job = call(here, "two");
    assert_eq!(value::<String>(here, "SELECT status FROM usher.wait_for($1)", &[&job]), "dead");
    run(here, &format!("SELECT usher.retry_sync_job('{job}', '{{\"id\": 2}}')"));
    assert_eq!(value::<String>(here, "SELECT status FROM usher.wait_for($1)", &[&job]), "synced");
    assert_eq!(
        refused(here, &format!("SELECT usher.retry_sync_job('{job}')")).code(),
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
    );

    // Cancelled before it runs, and run after all.
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    let job = call(here, "3");
    assert_eq!(status(here, job), "pending");
    run(here, &format!("SELECT usher.cancel_sync_job('{job}')"));
    run(&mut holder, RELEASE);
    settled(here, LONG);
    assert_eq!(status(here, job), "cancelled");
    assert_eq!(
        refused(here, &format!("SELECT usher.cancel_sync_job('{job}')")).code(),
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
    );
    assert_eq!(number(here, "SELECT count(*) FROM public.calls WHERE id = 3"), 0);
    run(here, &format!("SELECT usher.retry_sync_job('{job}')"));
    assert_eq!(value::<String>(here, "SELECT status FROM usher.wait_for($1)", &[&job]), "synced");
    assert_eq!(number(here, "SELECT count(*) FROM public.calls WHERE id = 3"), 1);

    // The same key, the same job, whoever asks and however often.
    let keyed = "SELECT id FROM usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"call\", \"id\": 4}', unique_key => 'four')";
    let first: Uuid = value(here, keyed, &[]);
    let second: Uuid = value(&mut holder, keyed, &[]);
    settled(here, LONG);
    let third: Uuid = value(here, keyed, &[]);
    assert!(first == second && second == third, "a key names one job");
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM public.calls WHERE id = 4"), 1);

    // Later, and not before.
    let later = "SELECT id FROM usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"call\", \"id\": 5}', run_at => clock_timestamp() + interval '1.5 s')";
    run(&mut holder, HOLD);
    let job: Uuid = value(here, later, &[]);
    assert_eq!(status(here, job), "pending");
    let run_at = "SELECT at >= (SELECT run_at FROM planned) FROM public.calls WHERE id = 5";
    run(here, &format!("CREATE TEMPORARY TABLE planned AS SELECT run_at FROM usher.sync_jobs WHERE id = '{job}'"));
    run(&mut holder, RELEASE);
    assert_eq!(value::<String>(here, "SELECT status FROM usher.wait_for($1, '20 s')", &[&job]), "synced");
    assert!(value::<bool>(here, run_at, &[]), "it ran at its time or after it");
}

#[test]
fn a_key_asked_for_at_the_same_time_names_one_job() {
    let (database, mut client) = with_tables("usher_test_unique", "CREATE TABLE public.calls (id integer)");
    let here = &mut client;
    flow(
        here,
        "call",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_flows",
            "when": {"request": "call"}, "then": {"insert": "public.calls"}, "set": {"id": "(job.payload ->> 'id')::integer"}
        }),
    );
    for round in 1..=20 {
        let sessions: Vec<_> = (0..6)
            .map(|_| {
                let mut client = database.connect();
                let sql = format!("SELECT id FROM usher.enqueue_sync_job('default', 'left', 'right', '{{\"action\": \"call\", \"id\": {round}}}', unique_key => 'k{round}')");
                std::thread::spawn(move || value::<Uuid>(&mut client, &sql, &[]))
            })
            .collect();
        let mut ids: Vec<Uuid> = sessions.into_iter().map(|session| session.join().expect("a session has panicked")).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "round {round}: {ids:?}");
    }
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM public.calls"), 20);
}
