//! Pauses while workers run: order per row, times that pass, others that go on, calls outside, crashes in between.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;
use usher_clients::wait::{until_true, until_true_for};
use usher_clients::{Client, Database, Uuid, enqueue, flow, json, number, role, run, server, settled, value};

const LONG: Duration = Duration::from_secs(60);

fn database(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_pauses", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.rows (id integer PRIMARY KEY, version integer NOT NULL);
         CREATE TABLE public.seen (seq bigint GENERATED ALWAYS AS IDENTITY, id integer, version integer, organization_id uuid, what text);
         GRANT ALL ON public.rows, public.seen TO clients_pauses;
         SELECT usher.create_organization('acme'), usher.create_organization('beta');
         SELECT usher.create_system('shop'), usher.create_system('books')",
    );
    flow(
        &mut client,
        "rows",
        &json!({"when": {"change": "public.rows"}, "then": {"insert": "public.seen"}, "set": {"id": "new.id", "version": "new.version"},
                "run_as": "clients_pauses"}),
    );
    flow(
        &mut client,
        "work",
        &json!({"from": "shop", "to": "books", "when": {"request": "work"}, "then": {"insert": "public.seen"},
                "set": {"what": "job.payload->>'what'"}, "run_as": "clients_pauses"}),
    );
    (database, client)
}

/// Every row's versions without a gap and in their order.
fn versions_in_order(client: &mut Client, rows: i64, versions: i64) {
    let wrong: i64 = value(
        client,
        "SELECT count(*) FROM (SELECT id, version, row_number() OVER (PARTITION BY id ORDER BY seq) AS place FROM public.seen) AS s WHERE version <> place",
        &[],
    );
    assert_eq!(wrong, 0, "versions out of order, lost or doubled");
    assert_eq!(number(client, "SELECT count(*) FROM public.seen"), rows * versions);
}

/// Changes go on while the flow is paused and resumed again and again: of each row every version, once, in its order.
#[test]
fn the_order_of_a_row_is_kept() {
    let (database, mut client) = database("usher_pauses_order");
    const ROWS: i64 = 200;
    const VERSIONS: i64 = 60;
    let writer = {
        let mut session = database.connect();
        thread::spawn(move || {
            run(&mut session, &format!("INSERT INTO public.rows SELECT n, 1 FROM generate_series(1, {ROWS}) AS n"));
            for _ in 1..VERSIONS {
                run(&mut session, "UPDATE public.rows SET version = version + 1");
            }
        })
    };
    let mut rounds = 0;
    while !writer.is_finished() || rounds < 5 {
        run(&mut client, "SELECT usher.pause_jobs(flow => 'rows')");
        until_true(&mut client, "SELECT NOT EXISTS (SELECT FROM usher.sync_jobs WHERE status = 'in_progress')");
        run(&mut client, "SELECT usher.resume_jobs(flow => 'rows')");
        rounds += 1;
    }
    writer.join().expect("the writer gets no error");
    settled(&mut client, LONG);
    versions_in_order(&mut client, ROWS, VERSIONS);
    until_true(&mut client, "SELECT NOT EXISTS (SELECT FROM usher.pauses)");
}

/// More than a slice waits, and comes back in its order; meanwhile others' jobs are done, and new changes of the same rows line up.
#[test]
fn many_go_on_in_slices() {
    let (_database, mut client) = database("usher_pauses_slices");
    run(&mut client, "ALTER SYSTEM SET usher.batch_size = 100");
    usher_clients::reload(&mut client);
    run(&mut client, "SELECT usher.pause_jobs(flow => 'rows')");
    run(&mut client, "INSERT INTO public.rows SELECT n, 1 FROM generate_series(1, 5000) AS n");
    until_true(&mut client, "SELECT count(*) = 5000 FROM usher.queue_waiting WHERE waiting_for = 'paused'");
    run(&mut client, "SELECT usher.resume_jobs(flow => 'rows')");
    run(&mut client, "UPDATE public.rows SET version = 2");
    let job = enqueue(&mut client, "acme", "shop", "books", &json!({"action": "work", "what": "other"}));
    let done: String = value(&mut client, "SELECT status FROM usher.wait_for($1, '30 s')", &[&job]);
    assert_eq!(done, "synced");
    settled(&mut client, LONG);
    run(&mut client, "DELETE FROM public.seen WHERE id IS NULL");
    versions_in_order(&mut client, 5000, 2);
    run(&mut client, "ALTER SYSTEM RESET usher.batch_size");
    usher_clients::reload(&mut client);
}

/// A pause with an end needs nobody to end it.
#[test]
fn until_passes() {
    let (_database, mut client) = database("usher_pauses_until");
    run(&mut client, "SELECT usher.pause_jobs(system => 'books', until => clock_timestamp() + interval '1.5 s')");
    run(&mut client, "CREATE TABLE public.ends AS SELECT until FROM usher.pauses");
    let job = enqueue(&mut client, "acme", "shop", "books", &json!({"action": "work", "what": "later"}));
    until_true(&mut client, "SELECT EXISTS (SELECT FROM usher.sync_jobs WHERE waiting_for = 'paused')");
    let done: String = value(&mut client, "SELECT status FROM usher.wait_for($1, '30 s')", &[&job]);
    assert_eq!(done, "synced");
    let early: bool =
        value(&mut client, "SELECT EXISTS (SELECT FROM usher.job_history h, public.ends e WHERE h.finished_at < e.until)", &[]);
    assert!(!early, "it ran before the pause was over");
    until_true(&mut client, "SELECT NOT EXISTS (SELECT FROM usher.pauses)");
    let told: i64 =
        number(&mut client, "SELECT count(*) FROM usher.audit_log WHERE action = 'usher.jobs.resumed' AND actor = 'worker'");
    assert_eq!(told, 1);
}

/// A paused organization's backlog delays nobody else, whatever is resumed when.
#[test]
fn one_paused_organization_does_not_delay_another() {
    let (_database, mut client) = database("usher_pauses_fair");
    run(&mut client, "SELECT usher.pause_jobs(organization => 'acme')");
    let ask = "SELECT usher.enqueue_sync_jobs('acme', 'shop', 'books', array_agg(jsonb_build_object('action', 'work', 'what', n::text))) FROM generate_series(1, 20000) AS n";
    run(&mut client, ask);
    let job = enqueue(&mut client, "beta", "shop", "books", &json!({"action": "work", "what": "single"}));
    let done: String = value(&mut client, "SELECT status FROM usher.wait_for($1, '30 s')", &[&job]);
    assert_eq!(done, "synced");
    until_true_for(&mut client, LONG, "SELECT count(*) = 20000 FROM usher.queue_waiting WHERE waiting_for = 'paused'");
    let (seen, waiting): (i64, i64) = {
        let row = client
            .query_one("SELECT (SELECT count(*) FROM public.seen), (SELECT waiting FROM usher.pauses)", &[])
            .expect("the view is read");
        (row.get(0), row.get(1))
    };
    assert_eq!((seen, waiting), (1, 10_000), "acme's jobs wait, and are counted up to 10000");
    run(&mut client, "SELECT usher.resume_jobs(organization => 'acme')");
    let job = enqueue(&mut client, "beta", "shop", "books", &json!({"action": "work", "what": "another"}));
    let done: String = value(&mut client, "SELECT status FROM usher.wait_for($1, '30 s')", &[&job]);
    assert_eq!(done, "synced");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(DISTINCT what) FROM public.seen"), 20_002);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.seen"), 20_002);
}

/// Calls that leave the database: the one in hand is finished, none is begun, and resumed each is made once.
#[test]
fn no_call_is_begun() {
    let (_database, mut client) = database("usher_pauses_calls");
    run(
        &mut client,
        "CREATE TABLE public.gate (open boolean);
         CREATE FUNCTION public.go(what text) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO public.seen (what) VALUES (what);
             WHILE NOT EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
         END $$;
         GRANT SELECT ON public.gate TO clients_pauses",
    );
    flow(
        &mut client,
        "calls",
        &json!({"from": "shop", "to": "away", "when": {"request": "call"}, "then": {"call": "public.go", "effect": "external"},
                "set": {"what": "job.payload->>'what'"}, "run_as": "clients_pauses"}),
    );
    run(
        &mut client,
        "SELECT usher.enqueue_sync_jobs('acme', 'shop', 'away', array_agg(jsonb_build_object('action', 'call', 'what', n::text))) FROM generate_series(1, 40) AS n",
    );
    until_true(
        &mut client,
        "SELECT EXISTS (SELECT FROM usher.queue_waiting WHERE waiting_for = 'external call' AND leased_by IS NOT NULL)",
    );
    let callers: i64 = number(&mut client, "SELECT current_setting('usher.callers')::bigint");
    until_true(&mut client, &format!("SELECT count(*) = {callers} FROM usher.queue_waiting WHERE leased_by IS NOT NULL"));
    run(&mut client, "SELECT usher.pause_jobs(system => 'away')");
    run(&mut client, "INSERT INTO public.gate VALUES (true)");
    until_true(
        &mut client,
        &format!(
            "SELECT count(*) FILTER (WHERE waiting_for = 'paused') = 40 - {callers} AND count(*) = 40 - {callers} FROM usher.queue_waiting"
        ),
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.seen"), callers, "those in hand were finished");
    assert_eq!(number(&mut client, "SELECT max(attempts)::bigint FROM usher.queue_waiting"), 0, "waiting is no attempt");
    run(&mut client, "SELECT usher.resume_jobs(system => 'away')");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(DISTINCT what) FROM public.seen"), 40);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.seen"), 40);
}

/// Workers are killed while jobs are put aside and let go: nothing is lost, nothing is done twice, no pause is left over.
#[test]
fn a_crash_in_between_loses_nothing() {
    let (database, mut client) = database("usher_pauses_crash");
    let mut made: HashMap<String, Uuid> = HashMap::new();
    for round in 0..4 {
        run(&mut client, "SELECT usher.pause_jobs(organization => 'acme')");
        for n in 0..50 {
            for organization in ["acme", "beta"] {
                let what = format!("{organization}/{round}/{n}");
                let job = enqueue(&mut client, organization, "shop", "books", &json!({"action": "work", "what": what}));
                made.insert(what, job);
            }
        }
        if round % 2 == 0 {
            run(&mut client, "SELECT usher.resume_jobs(organization => 'acme')");
        }
        let workers = server::workers(&mut client);
        client = server::kill_and_recover(&database, &mut client, workers[round % workers.len()]);
        if round % 2 == 1 {
            run(&mut client, "SELECT usher.resume_jobs(organization => 'acme')");
        }
    }
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(DISTINCT what) FROM public.seen"), i64::try_from(made.len()).unwrap());
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.seen"), i64::try_from(made.len()).unwrap());
    until_true(&mut client, "SELECT NOT EXISTS (SELECT FROM usher.pauses)");
}
