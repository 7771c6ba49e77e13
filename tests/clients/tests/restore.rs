//! What waits survives `pg_dump | psql`: into a new database, with flows, history, policies and pending work.

use usher_clients::server::copy_database;
use usher_clients::{Client, Database, enqueue, flow, json, number, role, run, settled, text, wait};

fn prepare(client: &mut Client) {
    role(client, "clients_restore", "NOLOGIN");
    run(
        client,
        "CREATE TABLE public.a (id integer PRIMARY KEY, v integer NOT NULL);
         CREATE TABLE public.b (id integer PRIMARY KEY, v integer NOT NULL CHECK (v >= 0));
         CREATE TABLE public.calls (id integer, made_in text NOT NULL DEFAULT current_database());
         GRANT SELECT, INSERT, UPDATE ON public.b, public.calls TO clients_restore",
    );
    flow(
        client,
        "copy",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_restore", "retry": {"delays": []},
            "when": {"change": "public.a", "on": ["insert", "update"]},
            "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}
        }),
    );
    flow(
        client,
        "call",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_restore", "when": {"request": "call"},
            "then": {"insert": "public.calls"}, "set": {"id": "(job.payload ->> 'id')::integer"}
        }),
    );
}

#[test]
fn a_dump_carries_flows_history_and_pending_work() {
    let database = Database::create("usher_test_dump");
    let mut client = database.connect();
    let here = &mut client;
    prepare(here);
    run(here, "SELECT usher.create_organization('acme'); SELECT usher.grant_membership('acme', 'role:clients_restore', 'admin')");
    run(here, "INSERT INTO public.a VALUES (1, 1), (2, -2)");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.dead_letters");
    settled(here, wait::LONG);
    // Work that has not run: ready jobs, because the worker is held, and one for later.
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(here, "UPDATE public.a SET v = 10 WHERE id = 1; INSERT INTO public.a VALUES (3, 3)");
    enqueue(here, "acme", "left", "right", &json!({"action": "call", "id": 1}));
    run(
        here,
        "SELECT usher.enqueue_sync_job('acme', 'left', 'right', '{\"action\": \"call\", \"id\": 2}', run_at => now() + interval '1 s', unique_key => 'two')",
    );
    let summary = "SELECT string_agg(concat_ws(' ', flow, status, payload), '; ' ORDER BY created_at, id) FROM usher.sync_jobs";
    let before = text(here, summary);

    let copy = Database::create_empty("usher_test_restored");
    copy_database(&database.name, &copy.name);
    let mut client = copy.connect();
    let there = &mut client;
    run(there, "SELECT usher.setup()");
    copy.await_workers();
    settled(there, wait::LONG);
    assert!(before.contains("pending") && before.contains("dead") && before.contains("synced"), "the test itself: {before}");
    assert_eq!(
        text(there, "SELECT string_agg(b::text, ' ' ORDER BY id) FROM public.b b"),
        "(1,10) (3,3)",
        "pending changes were applied, done ones not again\n{}",
        wait::jobs(there)
    );
    assert_eq!(
        text(there, "SELECT string_agg(c::text, ' ' ORDER BY id) FROM public.calls c"),
        "(1,usher_test_restored) (2,usher_test_restored)"
    );
    assert_eq!(number(there, "SELECT count(*) FROM usher.dead_letters"), 1);
    assert_eq!(number(there, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'synced'"), 5);
    assert_eq!(number(there, "SELECT count(*) FROM usher.memberships WHERE user_id = 'role:clients_restore'"), 1);
    // Rules that were made for tables are there, and new changes are captured.
    let open = "SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity";
    assert_eq!(number(there, open), 0, "row level security on every table");
    run(there, "INSERT INTO public.a VALUES (4, 4)");
    wait::until_true(there, "SELECT EXISTS (SELECT FROM public.b WHERE id = 4)");
    // The key that was taken is still taken.
    run(
        there,
        "SELECT usher.enqueue_sync_job('acme', 'left', 'right', '{\"action\": \"call\", \"id\": 2}', unique_key => 'two')",
    );
    settled(there, wait::LONG);
    assert_eq!(number(there, "SELECT count(*) FROM public.calls"), 2);
}
