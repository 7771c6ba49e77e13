//! The event bus: docs/events.md as it stands there, what a transaction decides, and what a crash leaves.

use usher_clients::{Client, Database, flow, json, number, page, realtime, refused, role, run, server, settled, text, wait};

#[test]
fn the_page_does_what_it_says() {
    let database = Database::create("usher_test_events_page");
    let mut client = database.connect();
    let here = &mut client;
    realtime::install(here);
    // What an earlier run has left on the server.
    run(
        here,
        "DO $$ BEGIN IF to_regrole('order_news') IS NOT NULL THEN DROP OWNED BY order_news; DROP ROLE order_news; END IF; END $$",
    );
    for block in page::blocks("events.md") {
        run(here, &block.sql);
    }
    wait::until_true(here, "SELECT (SELECT count(*) FROM public.payments) = 2 AND (SELECT count(*) FROM public.mails) = 4");
    assert_eq!(
        text(here, "SELECT string_agg(concat_ws(' ', order_id, amount), ', ' ORDER BY order_id) FROM public.payments"),
        "7 120.50, 8 80"
    );
    assert_eq!(
        text(here, "SELECT string_agg(subject, ', ' ORDER BY subject) FROM public.mails"),
        "orders.paid 7, orders.paid 8, orders.sent 7"
    );
    assert_eq!(
        text(
            here,
            "SELECT string_agg(payload ->> 'type', ' ') FROM usher.sync_jobs WHERE target_system = 'crm' AND status = 'in_progress'"
        ),
        "orders.sent"
    );
    wait::until_true(
        here,
        "SELECT bool_and(state = 'received') FROM usher.broadcasts AS b, usher.event_receipts(b.event_id) WHERE receiver <> 'crm'",
    );
    wait::until_true(here, "SELECT state = 'done' AND jobs > 0 FROM usher.progress WHERE flow = 'mail_about_orders'");
    // The order's change after its flow was made, and that its status is another.
    wait::until_true(here, "SELECT count(*) = 2 FROM realtime.messages");
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', split_part(topic, ':', 2), split_part(topic, ':', 3), event, private, payload - 'id' - 'job' - 'organization'), ', ' ORDER BY topic)
               FROM realtime.messages WHERE starts_with(topic, (SELECT id::text FROM usher.organizations WHERE slug = 'default') || ':')"
        ),
        r#"order 8 status t {"status": "sent"}, orders  UPDATE t {"op": "update", "key": {"id": 8}, "event": "UPDATE", "table": "public.shop_orders"}"#
    );
    assert_eq!(
        text(here, "SELECT concat_ws(' ', type, data, hop) FROM usher.events WHERE emitted_by = 'flow order_paid'"),
        r#"orders.paid {"amount": 80, "order_id": 8} 1"#
    );
}

fn hall(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_events", "NOLOGIN");
    run(
        here,
        "CREATE TABLE public.heard (listener text, event uuid, n int, made_by int NOT NULL DEFAULT pg_backend_pid());
         GRANT INSERT ON public.heard TO clients_events",
    );
    for (name, pattern) in [("first", "a.*"), ("second", "**"), ("third", "b.**")] {
        flow(
            here,
            name,
            &json!({
                "run_as": "clients_events", "lock_timeout": "10 min", "retry": {"delays": vec![0.05; 30]}, "when": {"event": pattern},
                "then": {"insert": "public.heard"},
                "set": {"listener": format!("'{name}'"), "event": "event.id", "n": "(event.data ->> 'n')::int"}
            }),
        );
    }
    (database, client)
}

#[test]
fn an_event_happens_with_its_transaction_or_not_at_all() {
    let (database, mut client) = hall("usher_test_events_commit");
    let here = &mut client;
    let mut other = database.connect();
    run(&mut other, "BEGIN; SELECT usher.emit_event('default', 'a.x', '{\"n\": 1}')");
    run(here, "SELECT usher.emit_event('default', 'a.x', '{\"n\": 2}')");
    run(
        here,
        "BEGIN; SELECT usher.emit_event('default', 'a.x', '{\"n\": 3}'); SAVEPOINT s; SELECT usher.emit_event('default', 'a.x', '{\"n\": 4}'); ROLLBACK TO s; COMMIT",
    );
    run(here, "BEGIN; SELECT usher.emit_event('default', 'a.x', '{\"n\": 5}'); ROLLBACK");
    wait::until_true(here, "SELECT count(*) = 4 FROM public.heard");
    assert_eq!(text(here, "SELECT string_agg(DISTINCT n::text, ' ') FROM public.heard"), "2 3");
    run(&mut other, "COMMIT");
    wait::until_true(here, "SELECT count(*) = 6 FROM public.heard");
    settled(here, wait::LONG);
    assert_eq!(
        text(here, "SELECT string_agg(listener || n, ' ' ORDER BY n, listener) FROM public.heard"),
        "first1 second1 first2 second2 first3 second3"
    );
    assert_eq!(number(here, "SELECT count(*) FROM usher.events"), 3);
}

#[test]
fn whoever_listens_hears_each_event_once_whatever_ends_in_between() {
    let (database, mut client) = hall("usher_test_events_crash");
    // In every third event the second listener's effect fails at first.
    run(
        &mut client,
        "CREATE SEQUENCE public.tries; GRANT USAGE ON SEQUENCE public.tries TO clients_events;
         CREATE FUNCTION public.stumble() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM pg_advisory_xact_lock_shared(NEW.n); IF NEW.listener = 'second' AND NEW.n % 3 = 0 AND nextval('public.tries') % 2 = 1 THEN RAISE EXCEPTION 'stumbled'; END IF; RETURN NEW; END$$;
         CREATE TRIGGER stumble BEFORE INSERT ON public.heard FOR EACH ROW EXECUTE FUNCTION public.stumble();
         CREATE TABLE public.said (n int PRIMARY KEY);
         CREATE FUNCTION public.stopped(n int) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_xact_lock_shared(n); RETURN n; END$$",
    );
    flow(
        &mut client,
        "says",
        &json!({
            "run_as": "clients_events", "lock_timeout": "10 min", "when": {"change": "public.said", "on": ["insert"]},
            "then": {"emit": "b.x.y"}, "set": {"n": "public.stopped(new.n)"}
        }),
    );
    for round in 0..6 {
        server::spare_the_suspect(&mut client);
        // The worker stops at the effects of one of the new events, or where it emits one, until this session ends with all others.
        client.query("SELECT pg_advisory_lock($1)", &[&i64::from(round * 50 + 7 * (round + 1))]).expect("an advisory lock");
        run(
            &mut client,
            &format!(
                "BEGIN; SELECT count(usher.emit_event('default', 'a.x', jsonb_build_object('n', n))) FROM generate_series({0}, {1}) AS n WHERE n % 2 = 0;
                 INSERT INTO public.said SELECT n FROM generate_series({0}, {1}) AS n WHERE n % 2 = 1; COMMIT",
                round * 50 + 1,
                round * 50 + 50
            ),
        );
        wait::until_true(
            &mut client,
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database() AND wait_event = 'advisory')",
        );
        let worker = server::worker_of(&mut client, "normal").expect("a worker");
        client = server::kill_and_recover(&database, &mut client, worker);
    }
    settled(&mut client, wait::LONG);
    let here = &mut client;
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
    assert_eq!(text(here, "SELECT concat_ws(' ', count(*), count(DISTINCT data ->> 'n')) FROM usher.events"), "300 300");
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM (SELECT e.id, l.listener FROM usher.events e, (VALUES ('first', 'a.x'), ('second', NULL), ('third', 'b.x.y')) AS l (listener, type)
                                    WHERE l.type IS NULL OR l.type = e.type) AS w
               FULL JOIN (SELECT event, listener, count(*) AS n FROM public.heard GROUP BY 1, 2) AS h ON h.event = w.id AND h.listener = w.listener
              WHERE h.n IS DISTINCT FROM 1 OR w.id IS NULL"
        ),
        0,
        "each listener has heard each of its events just once"
    );
}

#[test]
fn a_batch_of_jobs_emits_its_events_at_once_and_in_their_order() {
    let (_database, mut client) = hall("usher_test_events_batch");
    let here = &mut client;
    run(
        here,
        "CREATE TABLE public.said (n int PRIMARY KEY); CREATE TABLE public.statements (n int);
         CREATE FUNCTION public.counted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.statements VALUES (1); RETURN NULL; END$$;
         CREATE TRIGGER counted AFTER INSERT ON usher.events FOR EACH STATEMENT EXECUTE FUNCTION public.counted();
         GRANT INSERT ON public.statements TO PUBLIC",
    );
    flow(
        here,
        "says",
        &json!({"run_as": "clients_events", "when": {"change": "public.said", "on": ["insert"]}, "then": {"emit": "a.x"}, "set": {"n": "new.n"}}),
    );
    // While its flow is paused they come together; then they are done together.
    run(here, "SELECT usher.pause_jobs(flow => 'says')");
    run(here, "INSERT INTO public.said SELECT n FROM generate_series(1, 400) AS n");
    run(here, "SELECT usher.resume_jobs(flow => 'says')");
    wait::until_true(here, "SELECT count(*) = 800 FROM public.heard");
    settled(here, wait::LONG);
    assert_eq!(
        text(
            here,
            "SELECT concat_ws(' ', count(*), count(DISTINCT cause), bool_and(n = (data ->> 'n')::int)) FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM usher.events) AS e"
        ),
        "400 400 t"
    );
    let statements = number(here, "SELECT count(*) FROM public.statements");
    assert!(statements <= 8, "{statements} statements for 400 events");
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
}

#[test]
fn who_listens_outside_gets_each_event_however_late_it_commits_and_again_when_it_does_not_answer() {
    let database = Database::create("usher_test_events_outside");
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.create_subscription('outside', '{\"events\": [\"a.*\"]}')");
    let mut late = database.connect();
    run(&mut late, "BEGIN; SELECT usher.emit_event('default', 'a.x', '{\"n\": 1}')");
    run(here, "SELECT usher.emit_event('default', 'a.x', '{\"n\": 2}')");
    let taken = |client: &mut Client, lease: &str| -> Vec<(i64, i32)> {
        let sql = format!("SELECT (payload #>> '{{data,n}}')::bigint, attempt FROM usher.claim_jobs('outside', 10, '{lease}')");
        client.query(&sql, &[]).expect("a claim").iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let done = "SELECT count(usher.finish_job(j.job, j.lease)) FROM usher.claim_jobs('outside', 10) AS j";
    assert_eq!(number(here, done), 1);
    run(&mut late, "COMMIT");
    // It was emitted before what has been answered already.
    assert_eq!(taken(here, "1 ms"), [(1, 1)]);
    for attempt in 2..=4 {
        let mut again = Vec::new();
        wait::until(wait::LONG, "the lease ends", || {
            again = taken(&mut late, "1 ms");
            !again.is_empty()
        });
        assert_eq!(again, [(1, attempt)]);
    }
    wait::until(wait::LONG, "the last lease ends", || {
        assert_eq!(taken(here, "1 ms"), []);
        number(&mut late, "SELECT count(*) FROM usher.dead_letters WHERE target_system = 'outside'") == 1
    });
    run(here, "SELECT usher.retry_dead_letters('default', '{\"target\": \"outside\"}')");
    assert_eq!(number(here, done), 1);
    assert_eq!(number(here, "SELECT count(*) FROM usher.sync_jobs WHERE target_system = 'outside' AND status = 'synced'"), 2);
    // Two workers at once get different ones.
    run(here, "SELECT count(usher.emit_event('default', 'a.y', jsonb_build_object('n', n))) FROM generate_series(1, 40) AS n");
    run(here, "BEGIN");
    let (mut mine, others) = (taken(here, "1 min"), taken(&mut late, "1 min"));
    run(here, "COMMIT");
    assert_eq!((mine.len(), others.len()), (10, 10));
    mine.extend(others);
    let numbers: std::collections::BTreeSet<i64> = mine.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (1..=20).collect());
}

#[test]
fn a_broadcast_that_somebody_has_not_received_is_told_by_the_worker_once_at_its_time() {
    let (_database, mut client) = hall("usher_test_events_broadcast");
    let here = &mut client;
    run(here, "SELECT usher.create_subscription('outside', '{\"events\": [\"a.*\"]}')");
    // A later deadline is no reason to miss the sooner one; one that is met is not told.
    run(here, "SELECT usher.broadcast_event('default', 'a.later', acknowledge_within => '1 hour')");
    run(here, "SELECT usher.broadcast_event('default', 'a.fire', '{\"n\": 1}', acknowledge_within => '1 s')");
    run(here, "SELECT usher.broadcast_event('default', 'b.met', '{\"n\": 2}', acknowledge_within => '1 s')");
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.broadcasts WHERE settled_at >= due_at");
    // What has come of it is in the queue by now; the two that nobody takes outside stay there.
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.sync_jobs WHERE status <> 'synced'");
    assert_eq!(
        text(here, "SELECT string_agg(concat_ws(' ', type, escalated), ', ' ORDER BY type) FROM usher.broadcasts"),
        "a.fire t, a.later, b.met f"
    );
    assert_eq!(
        text(
            here,
            "SELECT string_agg(n.subject || ': ' || (n.body #>> '{unreceived,0,receiver}'), ', ') FROM usher.notices AS n"
        ),
        "1 of those who listen have not received \"a.fire\" in time: outside"
    );
    // Who hears everything hears that too.
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM usher.events e JOIN public.heard h ON h.event = e.id WHERE e.type = 'usher.broadcast.unacknowledged'"
        ),
        1
    );
}

#[test]
fn a_deadline_passes_also_while_a_full_queue_refuses_changes() {
    let (database, mut client) = hall("usher_test_events_full");
    let here = &mut client;
    run(here, "CREATE TABLE public.said (n int PRIMARY KEY)");
    flow(
        here,
        "says",
        &json!({"run_as": "clients_events", "when": {"change": "public.said", "on": ["insert"]}, "then": {"emit": "b.x"}, "set": {"n": "new.n"}}),
    );
    run(here, "SELECT usher.create_subscription('outside', '{\"events\": [\"a.*\"]}')");
    wait::until_true(here, "SELECT bool_and(ready IS NOT NULL) FROM usher.queue_depth()");
    // Wide while it is counted; then nobody takes from the normal lane, and one job there fills it, before the deadline can pass.
    run(here, "SELECT usher.limit_queue(100, organization => 'default', captured => true)");
    wait::until_true(here, "SELECT bool_and(jobs IS NOT NULL) FROM usher.queue_limits");
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(
        here,
        "BEGIN; SELECT usher.broadcast_event('default', 'a.fire', '{\"n\": 2}', acknowledge_within => '1 s');
         SELECT usher.emit_event('default', 'c.x', '{\"n\": 1}');
         SELECT usher.limit_queue(1, organization => 'default', captured => true); COMMIT",
    );
    let full = |client: &mut Client| {
        for statement in ["INSERT INTO public.said VALUES (1)", "SELECT usher.emit_event('default', 'c.x', '{\"n\": 3}')"] {
            assert_eq!(refused(client, statement).code().code(), "53400", "{statement}");
        }
    };
    full(here);
    wait::until_true(here, "SELECT escalated FROM usher.broadcasts");
    full(here);
    let told = "SELECT concat_ws(' ', count(*), min(n.body #>> '{unreceived,0,receiver}')) FROM usher.notices AS n WHERE n.kind = 'broadcast unacknowledged'";
    assert_eq!(text(here, told), "1 outside");
    run(&mut holder, "ROLLBACK");
    wait::until_true(
        here,
        "SELECT count(*) = 1 FROM usher.events e JOIN public.heard h ON h.event = e.id WHERE e.type = 'usher.broadcast.unacknowledged'",
    );
    assert_eq!(text(here, told), "1 outside");
}

#[test]
fn events_again_come_once_and_in_their_order_whatever_ends_in_between() {
    let (database, mut client) = hall("usher_test_events_again");
    run(
        &mut client,
        "SELECT count(usher.emit_event('default', 'c.x', jsonb_build_object('n', n))) FROM generate_series(1, 6000) AS n",
    );
    settled(&mut client, wait::LONG);
    run(&mut client, "TRUNCATE public.heard");
    flow(
        &mut client,
        "late",
        &json!({
            "run_as": "clients_events", "lock_timeout": "10 min", "when": {"event": "c.*"}, "then": {"insert": "public.heard"},
            "set": {"listener": "'late'", "event": "event.id", "n": "(event.data ->> 'n')::int"}
        }),
    );
    run(&mut client, "ALTER TABLE public.heard ADD COLUMN place bigint GENERATED ALWAYS AS IDENTITY");
    run(&mut client, "SELECT usher.replay_events('late', now() - interval '1 day')");
    for more in [1, 2_500] {
        server::spare_the_suspect(&mut client);
        wait::until_true(&mut client, &format!("SELECT jobs >= {more} FROM usher.progress WHERE kind = 'events'"));
        let worker = server::worker_of(&mut client, "low").expect("a worker");
        client = server::kill_and_recover(&database, &mut client, worker);
    }
    let here = &mut client;
    wait::until_true(here, "SELECT state = 'done' FROM usher.progress WHERE kind = 'events'");
    settled(here, wait::LONG);
    assert_eq!(
        text(
            here,
            "SELECT concat_ws(' ', count(*), count(DISTINCT event), bool_and(n = o), min(listener)) FROM (SELECT *, row_number() OVER (ORDER BY place) AS o FROM public.heard) AS h"
        ),
        "6000 6000 t late"
    );
    assert_eq!(
        text(here, "SELECT concat_ws(' ', done, total, jobs, failed) FROM usher.progress WHERE kind = 'events'"),
        "6000 6000 6000 0"
    );
}
