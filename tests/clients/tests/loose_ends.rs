//! What is easily forgotten: who may see the ledger, servers without workers, tables of the version before, processes that an
//! earlier launcher has left behind.

use std::thread;
use std::time::Duration;
use usher_clients::released::{As, Scripts, load};
use usher_clients::{Database, flow, json, number, refused, reload, role, run, server, settled, text, value, wait};

const LONG: Duration = wait::LONG;
const UPDATE: &str = "ALTER EXTENSION pg_usher UPDATE";

fn copies(database: &Database) -> usher_clients::Client {
    let mut client = database.connect();
    role(&mut client, "clients_loose", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.a (organization_id uuid, id bigint PRIMARY KEY); CREATE TABLE public.b (organization_id uuid, id bigint);
         GRANT INSERT, SELECT ON public.b TO clients_loose",
    );
    let definition = json!({
        "from": "left", "to": "right", "run_as": "clients_loose", "when": {"change": "public.a", "on": ["insert"]},
        "then": {"insert": "public.b"}, "set": {"id": "new.id"}
    });
    flow(&mut client, "copy", &definition);
    client
}

#[test]
fn members_see_their_jobs_and_not_how_much_the_installation_does() {
    let database = Database::create("usher_test_ledger");
    let mut client = copies(&database);
    let here = &mut client;
    role(here, "clients_member", "LOGIN");
    run(
        here,
        "GRANT usher_member TO clients_member;
         SELECT usher.create_organization('north'), usher.create_organization('south');
         SELECT usher.grant_membership('north', 'role:clients_member')",
    );
    let insert = |slug: &str, from: i32| {
        format!(
            "INSERT INTO public.a SELECT o.id, n FROM usher.organizations o, generate_series({from}, {from} + 9) AS n WHERE o.slug = '{slug}'"
        )
    };
    run(here, &insert("north", 1));
    run(here, &insert("south", 101));
    settled(here, LONG);
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(here, &insert("north", 11));
    run(here, &insert("south", 111));

    let mut member = database.connect_as("clients_member");
    for table in ["job_batches", "job_floors", "ready_jobs", "done_jobs"] {
        let error = refused(&mut member, &format!("SELECT * FROM usher.{table}"));
        assert_eq!(error.code().code(), "42501", "{table}");
    }
    let counted = "SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n FROM usher.sync_jobs GROUP BY 1) AS x";
    assert_eq!(text(&mut member, counted), "pending 10, synced 10");
    assert_eq!(number(&mut member, "SELECT count(*) FROM usher.visible_ready_jobs"), 10);
    assert_eq!(number(&mut member, "SELECT count(*) FROM usher.visible_done_jobs WHERE finished_at >= created_at"), 10);
    // A function of the member's own sees no row that the view does not show.
    run(
        &mut member,
        "CREATE FUNCTION pg_temp.peep(o uuid) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'seen %', o; RETURN true; END $$",
    );
    assert_eq!(
        number(
            &mut member,
            "SELECT count(DISTINCT organization_id) FROM usher.visible_done_jobs WHERE pg_temp.peep(organization_id)"
        ),
        1
    );
    // Those who run the installation see all of it.
    assert_eq!(text(here, counted), "pending 20, synced 20");
    run(here, "SET ROLE usher_reader");
    assert_eq!(text(here, counted), "pending 20, synced 20");
    assert!(number(here, "SELECT count(*) FROM usher.job_batches") > 0);
}

#[test]
fn a_database_without_workers_settles_and_keeps_its_segments() {
    let database = Database::create("usher_test_sessions");
    let mut client = copies(&database);
    let here = &mut client;
    run(here, "ALTER SYSTEM SET usher.databases = 'postgres'");
    reload(here);
    wait::until(LONG, "the workers are gone", || server::workers(here).is_empty());
    run(here, "DROP TABLE IF EXISTS usher.jobs_to_33554432, usher.job_batches_to_33554432");
    run(here, "UPDATE usher.job_floors SET settled_at = '-infinity'");
    for round in 0..3 {
        run(
            here,
            &format!(
                "INSERT INTO public.a SELECT (SELECT id FROM usher.organizations), n FROM generate_series({round} * 100 + 1, {round} * 100 + 100) AS n"
            ),
        );
        assert_eq!(number(here, "SELECT usher.process_jobs()::bigint"), 100);
        // A minute later.
        run(here, "UPDATE usher.job_floors SET settled_at = settled_at - interval '2 minutes'");
    }
    // What the last call has drawn is settled by the next.
    wait::until_true(here, "SELECT usher.process_jobs() = 0 AND min(f.floor) >= 200 FROM usher.job_floors AS f");
    assert_eq!(number(here, "SELECT count(*) FROM usher.ready_jobs"), 0);
    assert_eq!(
        number(here, "SELECT count(*) FROM pg_class WHERE oid = to_regclass('usher.jobs_to_33554432')"),
        1,
        "the segment ahead was made"
    );
    // An open transaction may still add what it has drawn.
    let mut open = database.connect();
    run(&mut open, "BEGIN; INSERT INTO public.a VALUES ((SELECT id FROM usher.organizations), 1000)");
    let drawn = number(here, "SELECT last_value FROM usher.queue_seq");
    for round in 1..=3 {
        run(here, &format!("INSERT INTO public.a VALUES ((SELECT id FROM usher.organizations), 1000 + {round})"));
        run(here, "UPDATE usher.job_floors SET settled_at = settled_at - interval '2 minutes'; SELECT usher.process_jobs()");
    }
    assert!(number(here, "SELECT max(floor) FROM usher.job_floors") < drawn);
    run(&mut open, "COMMIT");
    assert_eq!(number(here, "SELECT usher.process_jobs()::bigint"), 1);
    assert_eq!(number(here, "SELECT count(*) FROM public.b"), 304);
    // Where nothing is due, a call costs no look.
    let before = text(here, "SELECT max(settled_at)::text FROM usher.job_floors");
    run(here, "SELECT usher.process_jobs()");
    assert_eq!(text(here, "SELECT max(settled_at)::text FROM usher.job_floors"), before);
}

#[test]
fn what_needs_the_new_tables_says_that_setup_is_to_be_run() {
    let scripts = Scripts::add();
    let database = load(&scripts, "0.1.0", "usher_test_loose_level", As::Home);
    let mut client = database.connect();
    let here = &mut client;
    run(here, UPDATE);
    for sql in [
        "SELECT usher.metrics()",
        "SELECT * FROM usher.queue_depths()",
        "SELECT usher.limit_queue(5, lane => 'low')",
        "SELECT usher.unlimit_queue(1)",
        "SELECT usher.wait_for('00000000-0000-0000-0000-000000000000')",
        "SELECT usher.process_jobs()",
    ] {
        let error = refused(here, sql);
        assert_eq!(error.code().code(), "55000", "{sql}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("usher.setup()")), "{sql}: {error:?}");
    }
    // The doctor and the status screen go on with the old tables.
    let unseen = "SELECT coalesce(string_agg(\"check\" || ': ' || finding, '; '), '') FROM usher.doctor() WHERE finding ~ 'could not be looked at'";
    assert_eq!(text(here, unseen), "");
    run(here, "SELECT * FROM usher.status()");
    // What goes away again can be taken away as it is.
    run(here, "BEGIN; SELECT usher.remove('remove all data'); ROLLBACK");
    run(here, "SELECT usher.detach_all()");
    run(here, "SELECT usher.setup(); SELECT usher.metrics(); SELECT * FROM usher.queue");
}

#[test]
fn a_writer_that_meets_setup_takes_the_new_tables() {
    let scripts = Scripts::add();
    let database = load(&scripts, "0.1.0", "usher_test_loose_setup", As::Home);
    let mut client = database.connect();
    let here = &mut client;
    run(here, UPDATE);
    // Writers know nothing of pg_usher's tables: whoever has read some before may be chosen as the victim of a deadlock.
    let acme = text(here, "SELECT id::text FROM usher.organizations WHERE slug = 'acme'");
    let order = |id: i32| {
        format!(
            "INSERT INTO public.orders VALUES ('{acme}', {id}, 'Writer', {id});
             UPDATE public.orders SET status = 'paid' WHERE id = {id}"
        )
    };
    let request = "SELECT usher.enqueue_sync_job('acme', 'shop', 'books', '{\"action\": \"reissue_invoice\", \"order_id\": 901}', unique_key => 'meets setup')";
    // Sessions that have written before, and know the statement for the old tables.
    let mut open = database.connect();
    let mut second = database.connect();
    let mut third = database.connect();
    run(&mut second, &order(801));
    run(&mut open, &format!("BEGIN; {}", order(901)));
    let waits_for = |n: i64| {
        format!("SELECT count(*) = {n} FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    };
    thread::scope(|scope| {
        let mut owner = database.connect();
        let setup = scope.spawn(move || owner.batch_execute("SELECT usher.setup()"));
        wait::until_true(here, &waits_for(1));
        let writes = order(902);
        let writer = scope.spawn(move || second.batch_execute(&writes));
        wait::until_true(here, &waits_for(2));
        let asks = scope.spawn(move || third.batch_execute(request));
        wait::until_true(here, &waits_for(3));
        run(&mut open, &format!("{}; COMMIT", order(903)));
        setup.join().unwrap().expect("setup() goes through");
        writer.join().unwrap().expect("the writer is not disturbed");
        asks.join().unwrap().expect("the request is not disturbed");
    });
    assert_eq!(number(here, "SELECT schema_level::bigint FROM usher.installation"), 2);
    database.await_workers();
    let made = "SELECT count(DISTINCT coalesce(payload -> 'new' ->> 'id', payload ->> 'order_id', payload ->> 'id')) FROM usher.sync_jobs
                 WHERE coalesce(payload -> 'new' ->> 'id', payload ->> 'order_id', payload ->> 'id') IN ('901', '902', '903')";
    assert_eq!(number(here, made), 3, "{}", wait::jobs(here));
    assert!(value::<bool>(here, "SELECT EXISTS (SELECT FROM usher.job_keys WHERE unique_key = 'meets setup')", &[]));
}

#[test]
fn a_process_keeps_its_slot_as_long_as_it_lives() {
    let database = Database::create("usher_test_orphans");
    let mut client = copies(&database);
    let here = &mut client;
    let left_behind = server::worker_of(here, "normal").expect("a worker serves the normal lane");
    let signal = |name: &str| {
        let done = std::process::Command::new("kill").args([name, &left_behind.to_string()]).status().expect("kill runs");
        assert!(done.success());
    };
    let launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'usher launcher'";
    let before: i32 = value(here, launcher, &[]);
    // It does not end, whoever asks.
    signal("-STOP");
    run(here, &format!("SELECT pg_terminate_backend({before})"));
    // The next launcher waits for it for a while, and goes on without its slot.
    wait::until(LONG * 2, "another launcher has started another worker", || {
        server::workers(here).iter().any(|pid| *pid != left_behind)
            && value::<i64>(here, "SELECT count(*) FROM usher.status() WHERE section = 'worker'", &[]) == 3
    });
    let known = format!("SELECT count(*) FROM usher.status() WHERE note LIKE 'pid {left_behind},%'");
    assert_eq!(number(here, &known), 1, "the slot is still that of the living process");
    run(here, "INSERT INTO public.a SELECT (SELECT id FROM usher.organizations), n FROM generate_series(1, 100) AS n");
    signal("-CONT");
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM public.b"), 100);
    wait::until(LONG * 2, "its slot is given back", || {
        number(here, &known) == 0 && number(here, "SELECT count(*) FROM usher.status() WHERE section = 'worker'") == 2
    });
}
