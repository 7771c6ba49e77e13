//! What is wrong reaches a person: one notice for many failures, a flow tried in shadow, the doctor.

use std::thread;
use std::time::Duration;
use usher_clients::{Client, Database, Value, flow, json, number, page, refused, reload, role, run, settled, text, value, wait};

const LONG: Duration = wait::LONG;

/// What the server has logged since a place in its log.
fn logged_since(start: usize) -> String {
    let path = std::env::var("USHER_LOG").expect("USHER_LOG is set by scripts/cluster.sh env");
    let log = std::fs::read(path).expect("the server's log can be read");
    String::from_utf8_lossy(&log[start.min(log.len())..]).into_owned()
}

fn log_size() -> usize {
    let path = std::env::var("USHER_LOG").expect("USHER_LOG is set by scripts/cluster.sh env");
    std::fs::metadata(path).map_or(0, |file| usize::try_from(file.len()).unwrap_or(0))
}

/// Organizations and a flow whose requests fail unless they carry a number.
fn failing(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_notices", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.b (organization_id uuid NOT NULL, v integer NOT NULL);
         GRANT SELECT, INSERT ON public.b TO clients_notices;
         SELECT usher.create_organization('acme'), usher.create_organization('beta'), usher.create_organization('calm')",
    );
    flow(
        &mut client,
        "pay",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_notices", "retry": {"delays": [0, 0], "jitter": 0},
            "when": {"request": "pay"}, "then": {"insert": "public.b"}, "set": {"v": "(job.payload ->> 'v')::integer"}
        }),
    );
    (database, client)
}

const ENQUEUE: &str = "SELECT count(usher.enqueue_sync_job($1, 'left', 'right', jsonb_build_object('action', 'pay', 'v', v), $2))
                         FROM unnest(string_to_array($3, ',')) AS v";

/// Each lane has a worker of its own, both fail for the same flow and organization at the same time, and writers come and
/// go: there is one notice for each organization, it counts every attempt, and the log has one line for it.
#[test]
fn many_failures_make_one_notice_for_each_organization() {
    let (database, mut client) = failing("usher_test_notices");
    let here = &mut client;
    let start = log_size();
    let writers: Vec<_> =
        [("acme", "critical"), ("acme", "normal"), ("beta", "normal"), ("beta", "emergency"), ("calm", "normal")]
            .into_iter()
            .map(|(organization, priority)| {
                let mut client = database.connect();
                thread::spawn(move || {
                    for _ in 0..20 {
                        let values = if organization == "calm" { "1,2,3,4,5" } else { "1,x,2,y,z" };
                        value::<i64>(&mut client, ENQUEUE, &[&organization, &priority, &values]);
                    }
                })
            })
            .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
    settled(here, LONG);

    // 2 writers, 20 rounds, 3 bad jobs, 3 tries.
    let notices = "SELECT string_agg(concat_ws(' ', o.slug, n.kind, n.failures), '; ' ORDER BY o.slug)
                     FROM usher.notices n LEFT JOIN usher.organizations o ON o.id = n.organization_id";
    assert_eq!(text(here, notices), "acme flow failing 360; beta flow failing 360", "{}", wait::jobs(here));
    assert_eq!(number(here, "SELECT sum(attempts)::bigint FROM usher.dead_letters"), 720, "the test itself");
    assert_eq!(number(here, "SELECT count(*) FROM public.b"), 4 * 20 * 2 + 20 * 5, "what was right went through");
    let log = logged_since(start);
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("keeps failing")).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");

    // Read, and quiet again: what goes well makes none.
    run(here, "SELECT usher.read_notice(id) FROM usher.notices");
    value::<i64>(here, ENQUEUE, &[&"acme", &"normal", &"1,2,3,4,5,6,7"]);
    value::<i64>(here, ENQUEUE, &[&"acme", &"normal", &"x"]);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.notices WHERE read_at IS NULL"), 0, "three attempts are not five");
    value::<i64>(here, ENQUEUE, &[&"acme", &"normal", &"x"]);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.notices WHERE read_at IS NULL"), 1);
}

/// The settings count, also while the workers run; 0 switches notices off.
#[test]
fn settings_say_how_many_failures_make_a_notice() {
    let (_database, mut client) = failing("usher_test_notice_settings");
    let here = &mut client;
    let set = |client: &mut Client, name: &str, to: &str| {
        run(client, &format!("ALTER SYSTEM SET usher.{name} = {to}"));
        reload(client);
        wait::until_true(client, &format!("SELECT setting = '{to}' FROM pg_settings WHERE name = 'usher.{name}'"));
    };
    set(here, "notice_failures", "0");
    value::<i64>(here, ENQUEUE, &[&"acme", &"normal", &"x,x,x,x,x"]);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.notices"), 0);
    assert_eq!(number(here, "SELECT count(*) FROM usher.failure_streaks"), 0);
    // A window that passes between any two tries.
    set(here, "notice_failures", "2");
    set(here, "notice_window", "1");
    let mut once: Value = value(here, "SELECT definition FROM usher.flows WHERE name = 'pay'", &[]);
    once["retry"] = json!({"delays": []});
    flow(here, "pay", &once);
    for _ in 0..2 {
        value::<i64>(here, ENQUEUE, &[&"acme", &"normal", &"x"]);
        settled(here, LONG);
        wait::until_true(here, "SELECT max(last_at) < clock_timestamp() - interval '1 s' FROM usher.failure_streaks");
    }
    assert_eq!(number(here, "SELECT count(*) FROM usher.notices"), 0, "never two within a second");
    value::<i64>(here, ENQUEUE, &[&"acme", &"normal", &"x,y"]);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT failures::bigint FROM usher.notices"), 2);
    run(here, "ALTER SYSTEM RESET usher.notice_failures");
    run(here, "ALTER SYSTEM RESET usher.notice_window");
    reload(here);
}

/// Writers go on all the time, while the flow is in shadow and while it is switched to live: before, nothing is written, and
/// afterwards every job either was tried in shadow or has written, none both and none neither.
#[test]
fn shadow_under_live_traffic_writes_nothing() {
    let database = Database::create("usher_test_shadow");
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_notices", "NOLOGIN");
    run(
        here,
        "CREATE TABLE public.a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v integer);
         CREATE TABLE public.b (id bigint PRIMARY KEY, v integer CHECK (v >= 0));
         CREATE TABLE public.c (id bigint PRIMARY KEY);
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clients_notices",
    );
    let copy = |shadow: bool| {
        json!({
            "run_as": "clients_notices", "mode": "transactional", "shadow": shadow, "retry": {"delays": []},
            "when": {"change": "public.a"}, "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"},
            "link": {"kind": "copy", "left": "new.id", "right": "id"}
        })
    };
    flow(here, "copy", &copy(true));
    flow(
        here,
        "follow",
        &json!({"run_as": "clients_notices", "when": {"change": "public.b"}, "then": {"upsert": "public.c", "key": ["id"]}, "set": {"id": "new.id"}}),
    );
    let write = |rounds: i32| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let mut client = database.connect();
                thread::spawn(move || {
                    for round in 0..rounds {
                        // Some rows that the target refuses; the writer must not notice.
                        run(&mut client, &format!("INSERT INTO public.a (v) VALUES ({round}), (-1), (7)"));
                        run(
                            &mut client,
                            "UPDATE public.a SET v = v + 1 WHERE id % 3 = 0 AND id > (SELECT max(id) - 9 FROM public.a)",
                        );
                    }
                })
            })
            .collect();
        writers
    };
    write(30).into_iter().for_each(|writer| writer.join().expect("a writer ends"));
    settled(here, LONG);
    let rows = "SELECT (SELECT count(*) FROM public.b) + (SELECT count(*) FROM public.c) + (SELECT count(*) FROM usher.links)
                     + (SELECT count(*) FROM usher.dead_letters) + (SELECT count(*) FROM usher.notices)";
    assert_eq!(number(here, rows), 0, "nothing written, no follower, no link, nobody alarmed\n{}", wait::jobs(here));
    assert_eq!(number(here, "SELECT count(*) FROM usher.job_history WHERE NOT shadow"), 0);
    assert!(number(here, "SELECT jobs FROM usher.shadow_report('copy') WHERE outcome = 'would fail'") >= 90);
    assert!(number(here, "SELECT jobs FROM usher.shadow_report('copy') WHERE outcome = 'would write'") >= 180);

    let writers = write(60);
    wait::until_true(here, "SELECT count(*) > 330 FROM public.a");
    flow(here, "copy", &copy(false));
    writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
    run(here, "INSERT INTO public.a (v) VALUES (1000)");
    wait::until_true(here, "SELECT EXISTS (SELECT FROM public.b WHERE v = 1000)");
    settled(here, LONG);
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM (SELECT job_id FROM usher.shadow_results r JOIN usher.job_history h ON h.organization_id = r.organization_id AND h.id = r.job_id
                                    WHERE NOT h.shadow OR r.flow_version <> 1 OR h.flow_version <> 1) AS x"
        ),
        0,
        "what has a shadow result did nothing else"
    );
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM usher.job_history h WHERE h.shadow IS DISTINCT FROM EXISTS (SELECT FROM usher.shadow_results r WHERE r.job_id = h.id)"
        ),
        0,
        "every job in shadow left its result, and no other did"
    );
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM public.b WHERE NOT EXISTS (SELECT FROM usher.job_history h WHERE NOT h.shadow AND (h.new ->> 'id')::bigint = b.id)"
        ),
        0,
        "only live jobs have written"
    );
    assert!(number(here, "SELECT count(*) FROM public.c") > 0, "live again, followers too");
}

/// A new installation is well in every respect, workers included; then the ailments that need a second session or a file.
#[test]
fn the_doctor_finds_nothing_in_good_health_and_says_what_is_wrong() {
    let database = Database::create("usher_test_doctor");
    let mut client = database.connect();
    let here = &mut client;
    let ills = "SELECT COALESCE(string_agg(concat_ws(' | ', \"check\", state, finding, remedy), E'\\n'), '') FROM usher.doctor() WHERE state <> 'ok'";
    assert_eq!(text(here, ills), "", "all is well");
    assert!(number(here, "SELECT count(*) FROM usher.doctor()") > 15, "each check has its line");

    // An open transaction, as old as one's patience.
    let mut other = database.connect();
    run(&mut other, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM usher.flows");
    let pid: i32 = value(&mut other, "SELECT pg_backend_pid()", &[]);
    let open =
        "SELECT count(*) FROM usher.doctor('0 s') WHERE \"check\" = 'transactions' AND remedy ~ ('\\m' || $1::text || '\\M')";
    assert_eq!(value::<i64>(here, open, &[&pid.to_string()]), 1);
    run(&mut other, "ROLLBACK");
    assert_eq!(value::<i64>(here, open, &[&pid.to_string()]), 0);

    // The key file: missing, empty, readable by others, inside the data directory, as it should be.
    let file = format!("{}/usher-test-key", std::env::var("PGHOST").expect("PGHOST is set by scripts/cluster.sh env"));
    let data = text(here, "SHOW data_directory");
    let program = |client: &mut Client, command: &str| run(client, &format!("COPY (SELECT 1) TO PROGRAM '{command}'"));
    program(here, &format!("cat >/dev/null; rm -f {file} {data}/usher-test-key"));
    let key = |client: &mut Client, path: &str| {
        run(client, &format!("ALTER SYSTEM SET usher.key_file = '{path}'"));
        reload(client);
        wait::until_true(client, &format!("SELECT current_setting('usher.key_file') = '{path}'"));
        text(client, "SELECT concat_ws(': ', state, finding) FROM usher.doctor() WHERE \"check\" = 'key file'")
    };
    assert!(key(here, &file).starts_with("problem: usher.key_file names a file that is not there"));
    program(here, &format!("cat >/dev/null; touch {file}; chmod 600 {file}"));
    assert!(key(here, &file).starts_with("problem: usher.key_file names an empty file"));
    program(here, &format!("cat >{file}; chmod 640 {file}"));
    assert_eq!(key(here, &file), "problem: others than the server may read the key file");
    program(here, &format!("cat >/dev/null; chmod 600 {file}"));
    assert!(key(here, &file).starts_with("problem: secrets cannot be sealed or opened: line 1 of the key file is not a name"));
    run(here, &format!("COPY (SELECT 'test ' || repeat('0f', 32)) TO PROGRAM 'cat >{file}'"));
    assert!(key(here, &file).starts_with("ok: it is there"));
    program(here, &format!("cat >{data}/usher-test-key; chmod 600 {data}/usher-test-key"));
    assert!(key(here, &format!("{data}/usher-test-key")).starts_with("problem: the key file is inside the data directory"));
    // Through a link it is still there.
    program(here, &format!("cat >/dev/null; ln -sf {data}/usher-test-key {file}"));
    assert!(key(here, &file).starts_with("problem: the key file is inside the data directory"));
    // Where it is, is nobody's business.
    assert_eq!(number(here, "SELECT count(*) FROM usher.doctor() d WHERE d::text LIKE '%usher-test-key%'"), 0);
    program(here, &format!("cat >/dev/null; rm -f {file} {data}/usher-test-key"));
    run(here, "ALTER SYSTEM RESET usher.key_file");

    // A database that gets no workers.
    run(here, "ALTER SYSTEM SET usher.databases = 'postgres'");
    reload(here);
    wait::until_true(
        here,
        "SELECT count(*) = 1 FROM usher.doctor() WHERE \"check\" = 'workers' AND state = 'warning' AND remedy LIKE '%usher_test_doctor%'",
    );
    // What is proposed works.
    let remedy = text(here, "SELECT remedy FROM usher.doctor() WHERE \"check\" = 'workers'");
    for statement in remedy.split_inclusive(';') {
        run(here, statement);
    }
    database.await_workers();
    assert_eq!(text(here, ills), "");
    run(here, "CREATE ROLE clients_doctor_nobody; SET ROLE clients_doctor_nobody");
    assert_eq!(refused(here, "SELECT usher.doctor()").code().code(), "42501");
    run(here, "RESET ROLE; DROP ROLE clients_doctor_nobody");
}

#[test]
fn the_page_about_the_inbox_runs_and_each_person_reads_their_own() {
    let database = Database::create("usher_test_inbox");
    let mut client = database.connect();
    let here = &mut client;
    for block in page::blocks("inbox.md") {
        run(here, &block.sql);
        settled(here, LONG);
    }
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', recipient, kind, severity, title, body), ', ' ORDER BY recipient, kind) FROM usher.notifications"
        ),
        "ann low_stock warning T-1 runs low {\"sku\": \"T-1\", \"on_hand\": 3}, ann schedule info Doors at six {}, bob schedule info Doors at six {}"
    );
    // Signed in by a gateway, as PostgREST does it.
    role(here, "authenticator", "LOGIN NOINHERIT");
    role(here, "clients_signed_in", "NOLOGIN");
    run(here, "GRANT usher_member TO clients_signed_in; GRANT clients_signed_in TO authenticator");
    let mut gateway = database.connect_as("authenticator");
    for (person, messages) in [("ann", 2), ("bob", 1), ("cyd", 0)] {
        let claims = format!("SELECT set_config('request.jwt.claims', '{{\"sub\": \"{person}\"}}', false)");
        run(&mut gateway, &format!("RESET ROLE; {claims}; SET ROLE clients_signed_in"));
        assert_eq!(number(&mut gateway, "SELECT count(*) FROM usher.notifications"), messages, "{person}");
        assert_eq!(number(&mut gateway, "SELECT usher.read_notifications()"), messages, "{person}");
        assert_eq!(number(&mut gateway, "SELECT usher.read_notifications()"), 0, "{person}");
    }
    // What is rolled back was never said.
    run(here, "BEGIN; SELECT usher.notify('default', '{members}', 'Nothing'); ROLLBACK");
    assert_eq!(number(here, "SELECT count(*) FROM usher.notifications WHERE read_at IS NULL"), 0);
}
