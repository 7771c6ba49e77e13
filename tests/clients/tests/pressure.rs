//! Back-pressure: the depth of the queue in shared memory, and limits that refuse, delay or shed.

use std::io::Write;
use std::time::Duration;
use usher_clients::{
    Client, Database, Uuid, enqueue, flow, json, number, refused, role, run, server, settled, storage, text, value, wait,
};

/// Whoever holds this lock keeps the worker of the normal lane away, so that jobs gather.
const HOLD: &str = "BEGIN; SELECT usher.hold_lane('normal')";
const RELEASE: &str = "ROLLBACK";
const LONG: Duration = Duration::from_secs(90);

/// `public.a` goes to `public.b`, which numbers what arrives; requests `note` to `public.n`.
fn copy(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_pressure", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.a (id bigint PRIMARY KEY, v integer NOT NULL DEFAULT 0);
         CREATE TABLE public.b (n bigserial, id bigint NOT NULL, v integer NOT NULL);
         CREATE TABLE public.n (n bigserial, id bigint NOT NULL);
         GRANT SELECT, INSERT ON public.b, public.n TO clients_pressure;
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clients_pressure",
    );
    let common = json!({"from": "left", "to": "right", "run_as": "clients_pressure"});
    let mut changes = common.clone();
    changes["when"] = json!({"change": "public.a", "on": ["insert", "update"]});
    changes["then"] = json!({"insert": "public.b"});
    changes["set"] = json!({"id": "new.id", "v": "new.v"});
    flow(&mut client, "copy", &changes);
    let mut requests = common;
    requests["when"] = json!({"request": "note"});
    requests["then"] = json!({"insert": "public.n"});
    requests["set"] = json!({"id": "(job.payload ->> 'id')::bigint"});
    flow(&mut client, "note", &requests);
    // A worker counts once it has come, and not while somebody holds its lane.
    wait::until_true(&mut client, "SELECT bool_and(ready IS NOT NULL) FROM usher.queue_depth()");
    (database, client)
}

/// Ready jobs of the normal lane, from shared memory.
const DEPTH: &str = "SELECT ready FROM usher.queue_depth() WHERE lane = 'normal'";
/// What the shared memory says of every lane is what the tables say.
const TRUE: &str = "SELECT bool_and(d.ready = (SELECT count(*) FROM usher.ready_jobs r WHERE usher.lane_name(r.lane) = d.lane)) FROM usher.queue_depth() d";

#[track_caller]
fn depth(client: &mut Client, wanted: i64) {
    assert_eq!(value::<Option<i64>>(client, DEPTH, &[]), Some(wanted));
    assert_eq!(
        value::<Option<bool>>(client, TRUE, &[]),
        Some(true),
        "{}",
        text(client, "SELECT array_agg(d)::text FROM usher.queue_depth() d")
    );
}

fn note(client: &mut Client, id: i64) -> Uuid {
    enqueue(client, "default", "left", "right", &json!({"action": "note", "id": id}))
}

/// Of each row the versions arrived in their order, and all of them.
#[track_caller]
fn in_order(client: &mut Client) {
    let back =
        "SELECT count(*) FROM (SELECT v <= lag(v) OVER (PARTITION BY id ORDER BY n) AS back FROM public.b) AS l WHERE back";
    assert_eq!(number(client, back), 0, "an earlier change arrived after a later one");
}

#[test]
fn the_depth_is_the_truth_without_a_query() {
    let (database, mut client) = copy("usher_test_depth");
    let here = &mut client;
    wait::until_true(here, "SELECT bool_and(ready = 0) FROM usher.queue_depth()");
    let mut holder = database.connect();
    run(&mut holder, HOLD);

    run(here, "INSERT INTO public.a SELECT n FROM generate_series(1, 5) AS n");
    depth(here, 5);
    // What is rolled back, as a whole, to a savepoint or in a block with a handler, is not there.
    run(here, "BEGIN; INSERT INTO public.a SELECT n FROM generate_series(6, 20) AS n; ROLLBACK");
    depth(here, 5);
    run(
        here,
        "BEGIN; INSERT INTO public.a VALUES (6); SAVEPOINT s; INSERT INTO public.a SELECT n FROM generate_series(7, 20) AS n;
         SAVEPOINT t; INSERT INTO public.a VALUES (21); RELEASE t; ROLLBACK TO s; INSERT INTO public.a VALUES (22);
         SAVEPOINT u; INSERT INTO public.a VALUES (23); RELEASE u; COMMIT",
    );
    depth(here, 8);
    run(
        here,
        "DO $$ BEGIN INSERT INTO public.a VALUES (24); BEGIN INSERT INTO public.a VALUES (25); INSERT INTO public.a VALUES (24);
           EXCEPTION WHEN unique_violation THEN NULL; END; END $$",
    );
    depth(here, 9);
    let mut rows = here.copy_in("COPY public.a (id) FROM STDIN").expect("COPY begins");
    for id in 1_000..3_500 {
        writeln!(rows, "{id}").expect("a row is sent");
    }
    rows.finish().expect("COPY ends");
    depth(here, 2_509);
    let requested = note(here, 1);
    note(here, 2);
    depth(here, 2_511);
    // Taken out again by their callers.
    value::<String>(here, "SELECT (usher.cancel_sync_job($1)).status", &[&requested]);
    depth(here, 2_510);
    number(here, "SELECT usher.cancel_sync_jobs('default', '{\"flow\": \"note\"}')");
    depth(here, 2_509);
    let third = note(here, 3);
    value::<String>(here, "SELECT (usher.reprioritise($1, 'low')).priority", &[&third]);
    depth(here, 2_509);
    run(here, "BEGIN; DELETE FROM public.b; SELECT usher.cancel_sync_jobs('default', '{}'); ROLLBACK");
    depth(here, 2_509);

    // A prepared transaction tells nobody when it is committed, and is found all the same.
    run(here, "BEGIN; INSERT INTO public.a SELECT n FROM generate_series(100, 109) AS n; PREPARE TRANSACTION 'usher_test_depth'");
    run(&mut holder, RELEASE);
    wait::until_true(here, "SELECT count(*) = 2509 FROM public.b");
    run(&mut holder, HOLD);
    run(here, "COMMIT PREPARED 'usher_test_depth'");
    run(&mut holder, RELEASE);
    wait::until_true(here, "SELECT count(*) = 2519 FROM public.b");
    // Its jobs were done without having been counted, until the worker has looked.
    let mut extra = 200_000;
    wait::until(LONG, "the depth is right again", || {
        extra += 1;
        run(&mut holder, HOLD);
        run(here, &format!("INSERT INTO public.a VALUES ({extra})"));
        let right = value::<Option<i64>>(here, DEPTH, &[]) == Some(1);
        run(&mut holder, RELEASE);
        settled(here, LONG);
        right
    });

    // Sessions that do jobs themselves.
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(here, "UPDATE public.a SET v = 1 WHERE id < 1000");
    let waiting = storage::ready(here);
    depth(here, waiting);
    assert!(waiting > 10);
    run(&mut holder, RELEASE);
    run(here, "SELECT usher.process_jobs(5)");
    settled(here, LONG);
    depth(here, 0);

    // Nothing is left over from before a crash, and what was ready is counted again.
    drop(holder);
    run(here, "INSERT INTO public.a SELECT n FROM generate_series(10000, 40000) AS n");
    let mut client = server::crash(&database);
    let here = &mut client;
    wait::until_true_for(
        here,
        LONG,
        "SELECT NOT EXISTS (SELECT FROM public.a WHERE NOT EXISTS (SELECT FROM public.b WHERE b.id = a.id AND b.v = a.v))",
    );
    wait::until_true(here, TRUE);
    depth(here, 0);
    run(here, "INSERT INTO public.a SELECT n FROM generate_series(50001, 50100) AS n");
    settled(here, LONG);
    depth(here, 0);
}

#[test]
fn a_full_queue_refuses_requests_and_only_those() {
    let (database, mut client) = copy("usher_test_refuse");
    let here = &mut client;
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    number(here, "SELECT usher.limit_queue(3, system => 'right')::bigint");
    for id in 1..=3 {
        note(here, id);
    }
    let one = "SELECT usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"note\", \"id\": 4}')";
    let error = refused(here, one);
    assert_eq!(error.code().code(), "53400");
    assert!(error.message().contains("system right may have 3 ready jobs"), "{}", error.message());
    assert!(error.hint().is_some_and(|hint| hint.contains("usher.queue_limits")));
    // All or none, and what the same transaction has made counts.
    run(&mut holder, RELEASE);
    settled(here, LONG);
    run(&mut holder, HOLD);
    let many = "SELECT usher.enqueue_sync_jobs('default', 'left', 'right', ARRAY(SELECT jsonb_build_object('action', 'note', 'id', n) FROM generate_series(1, 4) AS n))";
    assert_eq!(refused(here, many).code().code(), "53400");
    assert_eq!(storage::ready(here), 0);
    run(here, "BEGIN");
    note(here, 5);
    run(here, "SAVEPOINT s");
    note(here, 6);
    run(here, "ROLLBACK TO s");
    note(here, 7);
    note(here, 8);
    assert_eq!(refused(here, one).code().code(), "53400");
    run(here, "ROLLBACK");
    // Changes are not refused, but count.
    run(here, "INSERT INTO public.a SELECT n FROM generate_series(1, 10) AS n");
    assert_eq!(refused(here, one).code().code(), "53400");
    assert_eq!(number(here, "SELECT jobs FROM usher.queue_limits"), 10);
    // Unless that is asked for: then the statement fails as a whole.
    number(here, "SELECT usher.limit_queue(12, system => 'right', captured => true)::bigint");
    assert_eq!(number(here, "SELECT count(*) FROM usher.queue_limits"), 1, "the same limit was changed");
    assert_eq!(refused(here, "INSERT INTO public.a SELECT n FROM generate_series(11, 13) AS n").code().code(), "53400");
    assert_eq!(number(here, "SELECT count(*) FROM public.a"), 10);
    run(here, "INSERT INTO public.a SELECT n FROM generate_series(11, 12) AS n");
    // As soon as there is room again, all is as before.
    run(&mut holder, RELEASE);
    settled(here, LONG);
    wait::until_true(here, "SELECT jobs = 0 FROM usher.queue_limits");
    run(here, one);
    run(here, "INSERT INTO public.a VALUES (13)");
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM public.b"), 13);
    assert_eq!(number(here, "SELECT count(*) FROM public.n"), 4);
    assert!(value::<bool>(here, "SELECT usher.unlimit_queue(id) FROM usher.queue_limits", &[]));
    assert_eq!(number(here, "SELECT count(*) FROM usher.queue_limits"), 0);
}

#[test]
fn what_is_too_much_waits_on_disk_and_arrives_in_order() {
    let (database, mut client) = copy("usher_test_delay");
    let here = &mut client;
    number(here, "SELECT usher.limit_queue(1000, flow => 'copy', action => 'delay')::bigint");
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    run(here, "INSERT INTO public.a SELECT n FROM generate_series(1, 100000) AS n");
    depth(here, 1000);
    assert_eq!(number(here, "SELECT held FROM usher.queue_limits"), 99_000);
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.sync_jobs WHERE waiting_for = 'queue full' AND status = 'pending'"),
        99_000
    );
    // Later changes of the same rows, in statements of their own and while there is room for some again.
    run(here, "UPDATE public.a SET v = 1 WHERE id % 100 = 0");
    run(&mut holder, RELEASE);
    for v in 2..=6 {
        run(here, &format!("UPDATE public.a SET v = {v} WHERE id % 100 = 0 OR id < 1100"));
        let seen = number(here, "SELECT count(*) FROM public.b");
        wait::until_true_for(here, LONG, &format!("SELECT count(*) > {seen} FROM public.b"));
    }
    let wanted = 100_000 + 1_000 + 5 * (1_000 + 1_089);
    wait::until_true_for(here, LONG, &format!("SELECT count(*) >= {wanted} FROM public.b"));
    assert_eq!(number(here, "SELECT count(*) FROM public.b"), wanted);
    in_order(here);
    assert!(!storage::anything_open(here));
    wait::until_true(here, "SELECT jobs = 0 AND held = 0 FROM usher.queue_limits");
    wait::until_true(here, TRUE);
}

#[test]
fn a_crash_forgets_nothing_that_is_held_back() {
    let (database, mut client) = copy("usher_test_held");
    let here = &mut client;
    number(here, "SELECT usher.limit_queue(50, organization => 'default', lane => 'normal', action => 'delay')::bigint");
    run(here, "INSERT INTO public.a SELECT n FROM generate_series(1, 30000) AS n");
    assert!(number(here, "SELECT held FROM usher.queue_limits") > 0);
    let mut client = server::crash(&database);
    let here = &mut client;
    // Without the limit everything goes at once; with it, some at a time.
    wait::until_true_for(here, LONG, "SELECT count(*) > 1000 FROM public.b");
    run(here, "UPDATE public.a SET v = 1 WHERE id > 29000");
    assert!(value::<bool>(here, "SELECT usher.unlimit_queue(id) FROM usher.queue_limits", &[]));
    wait::until_true_for(here, LONG, "SELECT count(*) = 31000 FROM public.b");
    in_order(here);
    assert!(!storage::anything_open(here));
}

#[test]
fn a_row_that_a_trigger_changes_again_keeps_its_order() {
    let (database, mut client) = copy("usher_test_nested");
    let here = &mut client;
    // An AFTER trigger that changes the row again is captured before the change that it follows.
    run(
        here,
        "CREATE FUNCTION public.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.a SET v = v + 1 WHERE id = NEW.id; RETURN NULL; END $$;
         CREATE TRIGGER again AFTER INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.again()",
    );
    for room in 1..=4 {
        run(here, "DELETE FROM public.a; TRUNCATE public.b");
        number(here, &format!("SELECT usher.limit_queue({room}, flow => 'copy', action => 'delay')::bigint"));
        let mut holder = database.connect();
        run(&mut holder, HOLD);
        run(here, "INSERT INTO public.a SELECT n FROM generate_series(1, 3) AS n");
        depth(here, room);
        run(&mut holder, RELEASE);
        wait::until_true_for(here, LONG, "SELECT count(*) = 6 FROM public.b");
        in_order(here);
    }
}

#[test]
fn requests_are_shed_to_a_lower_lane() {
    let (database, mut client) = copy("usher_test_shed");
    let here = &mut client;
    number(here, "SELECT usher.limit_queue(2, lane => 'normal', action => 'shed', shed_to => 'low')::bigint");
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal'), usher.hold_lane('low')");
    for id in 1..=5 {
        note(here, id);
    }
    // One with a key keeps its lane, and so do changes of rows.
    run(
        here,
        "SELECT usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"note\", \"id\": 6}', unique_key => 'k')",
    );
    run(here, "INSERT INTO public.a VALUES (1)");
    let lanes = "SELECT string_agg(usher.lane_name(lane), ' ' ORDER BY seq) FROM usher.ready_jobs";
    assert_eq!(text(here, lanes), "normal normal low low low normal normal");
    assert_eq!(value::<Option<bool>>(here, TRUE, &[]), Some(true));
    // Both lanes full: a limit of the lower one counts as well.
    number(here, "SELECT usher.limit_queue(3, lane => 'low')::bigint");
    wait::until_true(here, "SELECT true");
    run(&mut holder, RELEASE);
    settled(here, LONG);
    wait::until_true(here, TRUE);
    assert_eq!(number(here, "SELECT count(*) FROM public.n"), 6);
    assert_eq!(number(here, "SELECT count(*) FROM public.b"), 1);
}

#[test]
fn a_delayed_request_shows_what_it_waits_for() {
    let (database, mut client) = copy("usher_test_delayed_request");
    let here = &mut client;
    number(here, "SELECT usher.limit_queue(1, flow => 'note', action => 'delay')::bigint");
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    let one = "SELECT (j).waiting_for FROM (SELECT usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"note\", \"id\": 1}') AS j) AS x";
    assert_eq!(text(here, one), "");
    assert_eq!(text(here, one), "queue full");
    run(
        here,
        "SELECT usher.enqueue_sync_jobs('default', 'left', 'right', ARRAY(SELECT jsonb_build_object('action', 'note', 'id', n) FROM generate_series(2, 50) AS n))",
    );
    let cancelled = "SELECT (usher.cancel_sync_job((SELECT id FROM usher.queue_waiting ORDER BY seq DESC LIMIT 1))).status";
    assert_eq!(text(here, cancelled), "cancelled");
    run(&mut holder, RELEASE);
    wait::until_true(here, "SELECT count(*) = 50 FROM public.n");
    // The oldest first.
    assert_eq!(
        number(here, "SELECT count(*) FROM (SELECT id < lag(id) OVER (ORDER BY n) AS back FROM public.n) AS x WHERE back"),
        0
    );
    assert!(!storage::anything_open(here));
}

#[test]
fn a_change_that_is_moved_overtakes_no_earlier_one() {
    let (database, mut client) = copy("usher_test_overtake");
    let here = &mut client;
    wait::until_true(here, "SELECT bool_and(ready = 0) FROM usher.queue_depth()");
    for (round, (lane, full)) in [("normal", false), ("low", false), ("low", true)].into_iter().enumerate() {
        let mut holder = database.connect();
        run(&mut holder, HOLD);
        if full {
            number(here, "SELECT usher.limit_queue(1, flow => 'copy', action => 'delay')::bigint");
        }
        run(here, &format!("INSERT INTO public.a VALUES ({round}, 1); UPDATE public.a SET v = 2 WHERE id = {round}"));
        let second = format!(
            "FROM usher.sync_jobs WHERE flow = 'copy' AND payload -> 'new' ->> 'id' = '{round}' AND payload -> 'new' ->> 'v' = '2'"
        );
        assert_eq!(number(here, &format!("SELECT count(*) {second} AND waiting_for = 'queue full'")), i64::from(full));
        text(here, &format!("SELECT (usher.reprioritise(id, '{lane}')).priority {second}"));
        if full {
            assert!(value::<bool>(here, "SELECT usher.unlimit_queue(id) FROM usher.queue_limits", &[]));
        }
        if lane == "low" {
            // The worker of the other lane has come upon it, while the first one cannot run.
            wait::until_true(here, &format!("SELECT status = 'synced' OR waiting_for = 'earlier change' {second}"));
        }
        run(&mut holder, RELEASE);
        wait::until_true(here, &format!("SELECT count(*) = 2 FROM public.b WHERE id = {round}"));
        in_order(here);
        wait::until_true(here, TRUE);
    }
}

#[test]
fn a_limit_that_is_rolled_back_leaves_nothing_behind() {
    let (_database, mut client) = copy("usher_test_limit_undone");
    let here = &mut client;
    // More than there is room for in shared memory.
    for _ in 0..1_100 {
        run(here, "BEGIN; SELECT usher.limit_queue(1, flow => 'copy'); ROLLBACK");
    }
    number(here, "SELECT usher.limit_queue(1, flow => 'copy')::bigint");
}
