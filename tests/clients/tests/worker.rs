//! The worker process: killed, ended, reloaded, without its extension, after a crash; and when it wakes.

use std::time::Duration;
use usher_clients::chaos::{self, Acknowledged, Chance};
use usher_clients::{Client, Database, SqlState, flow, json, number, refused, reload, run, server, settled, text, value, wait};

const LONG: Duration = Duration::from_secs(60);

fn shop(name: &str, pause: f64, bad_luck: f64) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    chaos::open_shop(&mut client, pause, bad_luck);
    (database, client)
}

/// Orders `first..=last` in one statement.
fn order(client: &mut Client, first: i64, last: i64) {
    client
        .execute("INSERT INTO public.orders (id) SELECT generate_series($1::bigint, $2)", &[&first, &last])
        .expect("orders can be written");
}

/// The worker is in the middle of an entry, and stays there until the lock on that order is released.
const STOPPED_AT_AN_ENTRY: &str = "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory')";

const IN_PROGRESS: &str = "SELECT EXISTS (SELECT FROM usher.sync_jobs WHERE status = 'in_progress' AND flow = 'enter_order')";

#[test]
fn fifty_kills_lose_and_double_nothing() {
    let (database, mut client) = shop("usher_test_worker", 0.002, 0.3);
    run(&mut client, "ALTER SYSTEM SET usher.batch_size = 100");
    reload(&mut client);
    let mut chance = Chance::new(50);
    let (mut aimed, mut inside, mut acknowledged) = (0, 0, Acknowledged::new());
    for round in 0..50 {
        let (first, last) = (round * 100, round * 100 + 24);
        // Every fifth kill comes whenever it comes; the others while the worker is held at one of the new orders, early or
        // late in a batch: however slow the machine is, such a kill meets an unfinished batch.
        let aims = round % 5 != 4;
        if aims {
            // No kill is the third that a job meets: it would be taken for the cause.
            server::spare_the_suspect(&mut client);
            let id = first + chance.below(25) as i64;
            client.query("SELECT pg_advisory_lock($1)", &[&id]).expect("an advisory lock");
        }
        order(&mut client, first, last);
        client
            .execute(
                "UPDATE public.orders SET version = version + 1 WHERE id % 7 = $1::integer % 7 AND id >= $2",
                &[&(round as i32), &first],
            )
            .expect("orders change");
        acknowledged.extend((first..=last).map(|id| (id, 1)));
        if aims {
            wait::until_true(&mut client, &format!("SELECT {STOPPED_AT_AN_ENTRY}"));
        } else {
            wait::until_true(&mut client, "SELECT NOT EXISTS (SELECT FROM usher.job_intents WHERE crashes >= 1)");
        }
        let hit = chaos::kill_worker(&database, client);
        aimed += i32::from(aims);
        inside += i32::from(hit.inside_batch && aims);
        client = hit.client;
        // Now and then it may get through, so that kills also meet the first batch after a rest.
        if round % 4 == 3 {
            settled(&mut client, LONG);
        }
    }
    assert_eq!((aimed, inside), (40, 40), "every aimed kill has met an unfinished batch");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.dead_letters"), 0, "no job was taken for the cause");
    assert_eq!(chaos::balance(&mut client, &acknowledged, LONG), 1250);
}

#[test]
fn a_server_crash_keeps_pending_jobs() {
    let (database, mut client) = shop("usher_test_crash", 0.01, 0.0);
    order(&mut client, 1, 300);
    wait::until_true(&mut client, IN_PROGRESS);
    let mut client = server::crash(&database);
    order(&mut client, 301, 310);
    let acknowledged = (1..=310).map(|id| (id, 1)).collect();
    assert_eq!(chaos::balance(&mut client, &acknowledged, LONG), 310);

    order(&mut client, 311, 500);
    wait::until_true(&mut client, IN_PROGRESS);
    let mut client = server::kill_postmaster(&database);
    let acknowledged = (1..=500).map(|id| (id, 1)).collect();
    assert_eq!(chaos::balance(&mut client, &acknowledged, LONG), 500);
}

#[test]
fn it_is_visible_and_survives_what_a_worker_meets() {
    let (database, mut client) = shop("usher_test_life", 0.0, 0.0);

    // pg_stat_activity names it.
    let types = text(
        &mut client,
        "SELECT string_agg(DISTINCT backend_type, ', ' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type ~ '^usher'",
    );
    assert_eq!(types, "usher launcher, usher worker");
    let workers = server::workers(&mut client);
    assert_eq!(workers.len(), 2, "one worker for the two top lanes, one for the rest");

    // An error in a flow is the job's, not the worker's.
    flow(
        &mut client,
        "fails",
        &json!({
            "from": "shop", "to": "books", "mode": "realtime", "run_as": "clients_shop", "retry": {"delays": []},
            "when": {"change": "public.orders", "on": ["insert"]}, "if": "1 / (new.version - 1) > 0",
            "then": {"insert": "public.order_entries"}, "set": {"order_id": "new.id"}
        }),
    );
    order(&mut client, 1, 5);
    wait::until_true(&mut client, "SELECT count(*) = 5 FROM usher.dead_letters");
    wait::until_true(&mut client, "SELECT count(*) = 5 FROM public.order_copies");
    assert_eq!(server::workers(&mut client), workers, "the worker has lived through the errors");
    run(&mut client, "SELECT usher.drop_flow('fails')");

    // A reload changes the size of its batches and does not end it.
    run(&mut client, "ALTER SYSTEM SET usher.batch_size = 7");
    reload(&mut client);
    // The reload reaches each process when it next looks; a session of ours shows when it has gone round.
    wait::until_true(&mut client, "SELECT current_setting('usher.batch_size') = '7'");
    let worker = server::worker_of(&mut client, "normal").expect("a worker");
    let batches = |client: &mut Client| {
        number(
            client,
            "SELECT coalesce(sum(substring(note FROM 'in ([0-9]+) batches')::bigint), 0)::bigint FROM usher.status() WHERE section = 'worker'",
        )
    };
    let before = batches(&mut client);
    order(&mut client, 101, 170);
    wait::until_true(&mut client, "SELECT count(*) = 75 FROM public.order_copies");
    settled(&mut client, LONG);
    let made = batches(&mut client) - before;
    // 70 rows, two jobs each that go through the queue: 140 jobs in batches of 7.
    assert!(made >= 20, "140 jobs in batches of at most 7 are at least 20 batches, not {made}");
    assert_eq!(server::worker_of(&mut client, "normal"), Some(worker));

    // Ended by an administrator: another one takes its place.
    run(&mut client, &format!("SELECT pg_terminate_backend({worker})"));
    wait::until(LONG, "another worker has taken over", || {
        server::worker_of(&mut client, "normal").is_some_and(|pid| pid != worker)
    });
    order(&mut client, 201, 210);
    wait::until_true(&mut client, "SELECT count(*) = 85 FROM public.order_copies");

    // So does another launcher; the workers that are there stay or come back.
    run(&mut client, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'usher launcher'");
    order(&mut client, 211, 215);
    wait::until_true_for(&mut client, LONG, "SELECT count(*) = 90 FROM public.order_copies");
    database.await_workers();
}

#[test]
fn work_waits_for_an_extension_that_was_dropped() {
    let (database, mut client) = shop("usher_test_drop", 0.0, 0.0);
    order(&mut client, 1, 3);
    settled(&mut client, LONG);
    // A job that is still waiting when the extension goes.
    flow(
        &mut client,
        "later",
        &json!({
            "from": "shop", "to": "books", "when": {"request": "later"},
            "then": {"insert": "public.order_entries"}, "set": {"order_id": "(job.payload->>'id')::bigint"}, "run_as": "clients_shop"
        }),
    );
    run(&mut client, "SELECT usher.disable_flow('later')");
    let job = usher_clients::enqueue(&mut client, "default", "shop", "books", &json!({"action": "later", "id": 77}));
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM usher.queue_waiting WHERE waiting_for = 'flow disabled'");

    run(&mut client, "SELECT usher.detach_all()");
    assert_eq!(
        number(
            &mut client,
            "SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = 'public.orders'::regclass AND p.pronamespace = 'usher'::regnamespace"
        ),
        0
    );
    run(&mut client, "DROP EXTENSION pg_usher");
    // A worker that has nothing to do looks once a minute.
    wait::until(2 * LONG, "no worker is left in a database without the extension", || server::workers(&mut client).is_empty());
    order(&mut client, 4, 5);
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM public.orders"),
        5,
        "the application writes as if nothing had been there"
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.queue_waiting"), 1, "the data stays");

    run(&mut client, "CREATE EXTENSION pg_usher; SELECT usher.setup()");
    database.await_workers();
    run(&mut client, "SELECT usher.enable_flow('later')");
    wait::until_true(&mut client, "SELECT EXISTS (SELECT FROM public.order_entries WHERE order_id = 77)");
    assert_eq!(value::<String>(&mut client, "SELECT status FROM usher.sync_jobs WHERE id = $1", &[&job]), "synced");
    order(&mut client, 6, 6);
    wait::until_true(&mut client, "SELECT EXISTS (SELECT FROM public.order_copies WHERE order_id = 6)");
}

#[test]
fn it_wakes_at_the_commit_and_not_before() {
    let (database, mut client) = shop("usher_test_wake", 0.0, 0.0);
    let mut watcher = database.connect();
    let copied = "SELECT count(*) FROM public.order_copies";

    let mut open = client.transaction().expect("BEGIN");
    open.execute("INSERT INTO public.orders (id) VALUES (1)", &[]).expect("an order");
    // Another session's commit makes the worker look: it must not find the uncommitted one.
    let mut other = database.connect();
    order(&mut other, 2, 2);
    wait::until_true(&mut watcher, "SELECT EXISTS (SELECT FROM public.order_copies WHERE order_id = 2)");
    assert_eq!(number(&mut watcher, copied), 1, "an uncommitted change has no effect");
    open.commit().expect("COMMIT");
    // The older position commits later than the newer one: nothing may be passed over. And it comes at once, not with
    // the safety tick of a minute.
    wait::until_true_for(&mut watcher, Duration::from_secs(5), "SELECT count(*) = 2 FROM public.order_copies");

    // Rolled back work leaves nothing, a rolled back savepoint neither.
    let mut open = client.transaction().expect("BEGIN");
    open.execute("INSERT INTO public.orders (id) VALUES (3)", &[]).expect("an order");
    open.batch_execute("SAVEPOINT s; INSERT INTO public.orders (id) VALUES (4); ROLLBACK TO s").expect("a savepoint");
    open.commit().expect("COMMIT");
    client.batch_execute("BEGIN; INSERT INTO public.orders (id) VALUES (5); ROLLBACK").expect("a rollback");
    wait::until_true_for(&mut watcher, Duration::from_secs(5), "SELECT count(*) = 3 FROM public.order_copies");
    settled(&mut watcher, LONG);
    assert_eq!(text(&mut watcher, "SELECT string_agg(order_id::text, ',' ORDER BY order_id) FROM public.order_copies"), "1,2,3");
}

#[test]
fn a_prepared_transaction_wakes_it_too() {
    let (database, mut client) = shop("usher_test_prepared", 0.0, 0.0);
    let mut watcher = database.connect();
    if text(&mut client, "SHOW max_prepared_transactions") == "0" {
        return;
    }
    run(&mut client, "BEGIN; INSERT INTO public.orders (id) VALUES (1); PREPARE TRANSACTION 'usher_wake'");
    order(&mut client, 2, 2);
    wait::until_true(&mut watcher, "SELECT EXISTS (SELECT FROM public.order_copies WHERE order_id = 2)");
    assert_eq!(number(&mut watcher, "SELECT count(*) FROM public.order_copies"), 1, "a prepared change has no effect yet");
    // The one who commits is another session than the one that prepared.
    run(&mut watcher, "COMMIT PREPARED 'usher_wake'");
    wait::until_true_for(&mut watcher, Duration::from_secs(10), "SELECT count(*) = 2 FROM public.order_copies");
    settled(&mut watcher, LONG);
    run(&mut client, "BEGIN; INSERT INTO public.orders (id) VALUES (3); PREPARE TRANSACTION 'usher_wake'");
    run(&mut client, "ROLLBACK PREPARED 'usher_wake'");
    order(&mut client, 4, 4);
    wait::until_true(&mut watcher, "SELECT count(*) = 3 FROM public.order_copies");
}

#[test]
fn without_setup_everything_says_so() {
    let database = Database::create_empty("usher_test_bare");
    let mut client = database.connect();
    run(&mut client, "CREATE EXTENSION pg_usher");
    let error = refused(&mut client, "SELECT * FROM usher.status()");
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert!(error.hint().is_some_and(|hint| hint.contains("usher.setup()")), "the remedy is named: {error:?}");
    run(&mut client, "SELECT usher.setup()");
    database.await_workers();
}
