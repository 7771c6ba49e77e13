//! Work done outside: workers that take jobs under leases, and calls that leave the database.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;
use usher_clients::chaos::Chance;
use usher_clients::{
    Client, Database, SqlState, Uuid, enqueue, flow, json, number, refused, reload, role, run, server, settled, text, value, wait,
};

const LONG: Duration = Duration::from_secs(60);

/// `public.gate` holds calls back as long as it has a row of their number; `public.calls` is a file in the data directory,
/// so that what a call has done outside stays whatever becomes of its transaction.
fn open_calls(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_caller", "NOLOGIN");
    run(
        &mut client,
        "GRANT pg_execute_server_program TO clients_caller;
         CREATE TABLE public.gate (number integer PRIMARY KEY);
         CREATE TABLE public.log (seq integer GENERATED ALWAYS AS IDENTITY, number integer, job_id uuid, who text DEFAULT current_user);
         CREATE TABLE public.rows (id integer PRIMARY KEY, version integer NOT NULL DEFAULT 1);
         CREATE FUNCTION public.go_outside(number integer, job_id uuid, file text) RETURNS jsonb LANGUAGE plpgsql AS $$
         BEGIN
             EXECUTE format('COPY (SELECT %s, %L) TO PROGRAM %L', number, job_id, 'cat >> ' || file);
             INSERT INTO public.log (number, job_id) VALUES (number, job_id);
             WHILE EXISTS (SELECT FROM public.gate g WHERE g.number = go_outside.number) LOOP
                 PERFORM pg_sleep(0.01);
             END LOOP;
             RETURN jsonb_build_object('number', number, 'key', job_id);
         END $$;
         GRANT SELECT ON public.gate TO clients_caller;
         GRANT SELECT, INSERT ON public.log TO clients_caller",
    );
    (database, client)
}

/// A request's flow that goes outside. Each test writes to a file of its own.
fn outside(client: &mut Client, name: &str, file: &str, more: &[(&str, usher_clients::Value)]) {
    let mut definition = json!({
        "from": "shop", "to": "away", "run_as": "clients_caller", "when": {"request": name}, "retry": {"delays": [0.05, 0.05]},
        "then": {"call": "public.go_outside", "effect": "external", "keep_result": true},
        "set": {"number": "(job.payload->>'number')::integer", "file": format!("'{file}'")}
    });
    for (key, value) in more {
        definition[key] = value.clone();
    }
    flow(client, name, &definition);
}

fn ask(client: &mut Client, action: &str, number: i32) -> Uuid {
    enqueue(client, "default", "shop", "away", &json!({"action": action, "number": number}))
}

fn status(client: &mut Client, job: Uuid) -> String {
    value(client, "SELECT status FROM usher.sync_jobs WHERE id = $1", &[&job])
}

#[track_caller]
fn becomes(client: &mut Client, job: Uuid, wanted: &str) {
    wait::until_true_for(client, LONG, &format!("SELECT status = '{wanted}' FROM usher.sync_jobs WHERE id = '{job}'"));
}

/// What calls have written outside, line by line.
fn written(client: &mut Client, file: &str) -> Vec<String> {
    text(client, &format!("SELECT pg_read_file('{file}', 0, 1000000, true)")).lines().map(str::to_owned).collect()
}

/// Waits until a call of this number has reached the outside.
#[track_caller]
fn reached(client: &mut Client, file: &str, number: i32) {
    let begun = format!("{number}\t");
    wait::until(LONG, &format!("call {number} is outside\n{}", wait::jobs(client)), || {
        written(client, file).iter().any(|line| line.starts_with(&begun))
    });
}

fn forget(client: &mut Client, file: &str) {
    run(client, &format!("COPY (SELECT WHERE false) TO PROGRAM 'cat > {file}'"));
}

fn callers(client: &mut Client) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'usher caller' AND datname = current_database() AND query ~ '^calling' ORDER BY pid";
    client.query(sql, &[]).expect("callers").iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_call_leaves_the_database_and_brings_its_result() {
    let (_database, mut client) = open_calls("usher_test_call");
    forget(&mut client, "usher_call");
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM usher.status() WHERE section = 'caller'"),
        0,
        "nobody wants a caller yet"
    );
    outside(&mut client, "one", "usher_call", &[]);
    let job = ask(&mut client, "one", 1);
    becomes(&mut client, job, "synced");
    assert_eq!(written(&mut client, "usher_call"), [format!("1\t{job}")], "made once, with the job's id as its key");
    assert_eq!(text(&mut client, "SELECT who FROM public.log"), "clients_caller");
    let result: usher_clients::Value = value(&mut client, "SELECT usher.job_result($1)", &[&job]);
    assert_eq!(result, json!({"number": 1, "key": job.to_string()}));
    let attempts: i32 = value(&mut client, "SELECT attempts FROM usher.sync_jobs WHERE id = $1", &[&job]);
    assert_eq!(attempts, 1);
    wait::until_true(&mut client, "SELECT count(*) = 2 FROM usher.status() WHERE section = 'caller'");

    // Off and on: its jobs wait for the flow, and go on.
    run(&mut client, "INSERT INTO public.gate VALUES (2); SELECT usher.disable_flow('one')");
    let job = ask(&mut client, "one", 2);
    wait::until_true(&mut client, &format!("SELECT waiting_for = 'flow disabled' FROM usher.sync_jobs WHERE id = '{job}'"));
    run(&mut client, "SELECT usher.enable_flow('one')");
    reached(&mut client, "usher_call", 2);
    becomes(&mut client, job, "in_progress");
    run(&mut client, "DELETE FROM public.gate");
    becomes(&mut client, job, "synced");
    run(&mut client, "DROP FUNCTION public.go_outside(integer, uuid, text)");
    assert_eq!(text(&mut client, "SELECT state FROM usher.flows WHERE name = 'one'"), "broken");
}

#[test]
fn a_slow_call_delays_nobody() {
    let (_database, mut client) = open_calls("usher_test_slow_call");
    forget(&mut client, "usher_slow");
    outside(&mut client, "slow", "usher_slow", &[]);
    outside(&mut client, "quick", "usher_slow", &[]);
    flow(
        &mut client,
        "note",
        &json!({"from": "shop", "to": "books", "when": {"request": "note"}, "then": {"insert": "public.rows"},
                "set": {"id": "(job.payload->>'number')::integer"}}),
    );
    run(&mut client, "INSERT INTO public.gate VALUES (1)");
    let slow = ask(&mut client, "slow", 1);
    reached(&mut client, "usher_slow", 1);
    assert_eq!(status(&mut client, slow), "in_progress");

    let begun = std::time::Instant::now();
    let mut jobs = Vec::new();
    for (n, lane) in ["emergency", "critical", "high", "normal", "low"].iter().enumerate() {
        jobs.push(value::<Uuid>(
            &mut client,
            "SELECT id FROM usher.enqueue_sync_job('default', 'shop', 'books', $1, $2)",
            &[&json!({"action": "note", "number": n}), lane],
        ));
    }
    for n in 2..6 {
        jobs.push(ask(&mut client, "quick", n));
    }
    for job in jobs {
        becomes(&mut client, job, "synced");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "all this took {:?} beside one slow call", begun.elapsed());
    assert_eq!(status(&mut client, slow), "in_progress", "the slow one is still at it");
    run(&mut client, "DELETE FROM public.gate");
    becomes(&mut client, slow, "synced");
}

#[test]
fn a_call_whose_process_dies_is_made_again() {
    let (database, mut client) = open_calls("usher_test_call_kill");
    forget(&mut client, "usher_kill");
    outside(&mut client, "one", "usher_kill", &[]);

    // Ended by an administrator: another caller has the job at once, long before the lease is over.
    run(&mut client, "INSERT INTO public.gate VALUES (1), (2), (3)");
    let job = ask(&mut client, "one", 1);
    reached(&mut client, "usher_kill", 1);
    let pid = callers(&mut client)[0];
    run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
    wait::until(LONG, "the call is made again", || written(&mut client, "usher_kill").len() == 2);
    run(&mut client, "DELETE FROM public.gate WHERE number = 1");
    becomes(&mut client, job, "synced");
    assert_eq!(value::<i32>(&mut client, "SELECT attempts FROM usher.sync_jobs WHERE id = $1", &[&job]), 2);

    // kill -9, which takes the whole server through recovery.
    let job = ask(&mut client, "one", 2);
    reached(&mut client, "usher_kill", 2);
    let pid = callers(&mut client)[0];
    let mut client = server::kill_and_recover(&database, &mut client, pid);
    wait::until(LONG, "the call is made again", || written(&mut client, "usher_kill").len() == 4);
    assert_eq!(status(&mut client, job), "in_progress");
    run(&mut client, "DELETE FROM public.gate WHERE number = 2");
    becomes(&mut client, job, "synced");
    assert_eq!(value::<i32>(&mut client, "SELECT attempts FROM usher.sync_jobs WHERE id = $1", &[&job]), 2);
    // What it wrote here is there once, and what it did outside went by one key.
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.log WHERE number = 2"), 1);
    assert_eq!(written(&mut client, "usher_kill")[2..], [format!("2\t{job}"), format!("2\t{job}")]);

    // One that takes its process with it every time is dead in the end, with that reason.
    let job = ask(&mut client, "one", 3);
    for round in 0..3 {
        wait::until(LONG, "the call is made (again)", || written(&mut client, "usher_kill").len() == 5 + round);
        let pid = callers(&mut client)[0];
        run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
    }
    becomes(&mut client, job, "dead");
    let reason = text(&mut client, &format!("SELECT error_message FROM usher.sync_jobs WHERE id = '{job}'"));
    assert!(reason.contains("3 times"), "{reason}");
    // Tried again by hand it has all its tries.
    run(&mut client, &format!("DELETE FROM public.gate; SELECT usher.retry_sync_job('{job}')"));
    becomes(&mut client, job, "synced");
}

#[test]
fn a_timeout_counts_as_a_failed_attempt() {
    let (_database, mut client) = open_calls("usher_test_timeout");
    forget(&mut client, "usher_timeout");
    outside(&mut client, "short", "usher_timeout", &[("timeout", json!("200ms")), ("retry", json!({"delays": [0.05]}))]);
    run(&mut client, "INSERT INTO public.gate VALUES (1)");
    let job = ask(&mut client, "short", 1);
    becomes(&mut client, job, "dead");
    let row = client
        .query_one("SELECT attempts, sqlstate, error_message FROM usher.dead_letters WHERE id = $1", &[&job])
        .expect("a dead letter");
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (2, "57014"));
    assert!(row.get::<_, &str>(2).contains("longer than the 0.2 s"), "{}", row.get::<_, &str>(2));
    assert_eq!(written(&mut client, "usher_timeout").len(), 2, "the outside has seen both");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.log"), 0, "the database neither");

    // In a batch only the slow ones fail, and the worker lives on.
    run(
        &mut client,
        "CREATE FUNCTION public.stays(number integer) RETURNS integer LANGUAGE plpgsql AS $$
         BEGIN
             IF number = 13 THEN
                 BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
             ELSIF number = 14 THEN
                 PERFORM pg_sleep(60);
             END IF;
             RETURN number;
         END $$;
         CREATE TABLE public.numbers (id integer PRIMARY KEY)",
    );
    flow(
        &mut client,
        "number",
        &json!({"when": {"change": "public.rows"}, "then": {"upsert": "public.numbers", "key": ["id"]}, "set": {"id": "public.stays(new.id)"},
                "timeout": "300ms", "retry": {"delays": []}}),
    );
    let workers = server::workers(&mut client);
    run(&mut client, "INSERT INTO public.rows SELECT generate_series(1, 100)");
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.numbers"), 98);
    let dead = "SELECT string_agg((new ->> 'id') || ' ' || sqlstate, ', ' ORDER BY new ->> 'id') FROM usher.dead_letters WHERE new ? 'id'";
    assert_eq!(text(&mut client, dead), "13 57014, 14 57014", "also one that has caught the cancel");
    assert_eq!(server::workers(&mut client), workers);

    // In the writer's transaction it does the writer no harm, and the session's own limit stays what it was.
    flow(
        &mut client,
        "number",
        &json!({"when": {"change": "public.rows"}, "then": {"upsert": "public.numbers", "key": ["id"]}, "set": {"id": "public.stays(new.id + 1000)"},
                "timeout": "300ms", "retry": {"delays": []}, "mode": "transactional"}),
    );
    run(
        &mut client,
        "CREATE OR REPLACE FUNCTION public.stays(number integer) RETURNS integer LANGUAGE plpgsql AS $$
         BEGIN IF number > 1000 AND current_user <> 'nobody' THEN PERFORM pg_sleep(60); END IF; RETURN number; END $$",
    );
    run(&mut client, "SET statement_timeout = '20s'; INSERT INTO public.rows VALUES (500)");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.rows WHERE id = 500"), 1);
    let error = refused(&mut client, "SET statement_timeout = '100ms'; SELECT pg_sleep(60)");
    assert_eq!(error.code(), &SqlState::QUERY_CANCELED);
}

#[test]
fn a_cancelled_call_stays_cancelled() {
    let (_database, mut client) = open_calls("usher_test_call_cancel");
    forget(&mut client, "usher_cancel");
    outside(&mut client, "one", "usher_cancel", &[]);
    run(&mut client, "INSERT INTO public.gate VALUES (1)");
    let job = ask(&mut client, "one", 1);
    reached(&mut client, "usher_cancel", 1);
    // It does not wait for the call.
    run(&mut client, &format!("SET statement_timeout = '10s'; SELECT usher.cancel_sync_job('{job}'); RESET statement_timeout"));
    assert_eq!(status(&mut client, job), "cancelled");
    run(&mut client, "DELETE FROM public.gate");
    wait::until(LONG, "no call runs", || callers(&mut client).is_empty());
    assert_eq!(status(&mut client, job), "cancelled");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.log"), 0, "what it wrote here is undone");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.job_results"), 0);
    let next = ask(&mut client, "one", 2);
    becomes(&mut client, next, "synced");
}

#[test]
fn calls_about_one_row_keep_its_order() {
    let (_database, mut client) = open_calls("usher_test_call_order");
    run(&mut client, "ALTER SYSTEM SET usher.callers = 4");
    reload(&mut client);
    run(
        &mut client,
        "CREATE FUNCTION public.tell(id integer, version integer, job_id uuid) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             -- The first try of every third version fails, after it has taken its time.
             PERFORM pg_sleep(0.01);
             IF version % 3 = 1 AND nextval('public.luck') % 2 = 0 THEN RAISE EXCEPTION 'not now'; END IF;
             INSERT INTO public.log (number, job_id) VALUES (id * 1000 + version, job_id);
         END $$;
         CREATE SEQUENCE public.luck;
         GRANT USAGE ON SEQUENCE public.luck TO clients_caller",
    );
    flow(
        &mut client,
        "tell",
        &json!({"run_as": "clients_caller", "when": {"change": "public.rows"}, "then": {"call": "public.tell", "effect": "external"},
                "set": {"id": "new.id", "version": "new.version"}, "retry": {"delays": vec![0.02; 20]}}),
    );
    run(&mut client, "INSERT INTO public.rows SELECT generate_series(1, 5)");
    // Some in one statement's batch, some after the first were taken.
    for _ in 0..9 {
        run(&mut client, "UPDATE public.rows SET version = version + 1");
    }
    settled(&mut client, LONG);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.log"), 50, "{}", wait::jobs(&mut client));
    let wrong = "SELECT count(*) FROM (SELECT number, lag(number) OVER (PARTITION BY number / 1000 ORDER BY seq) AS before FROM public.log) AS l
                  WHERE before >= number";
    assert_eq!(
        number(&mut client, wrong),
        0,
        "{}",
        text(&mut client, "SELECT string_agg(number::text, ' ' ORDER BY seq) FROM public.log")
    );
}

#[test]
fn a_database_that_holds_its_outbound_work_makes_no_call() {
    let (_database, mut client) = open_calls("usher_test_call_held");
    forget(&mut client, "usher_held");
    outside(&mut client, "one", "usher_held", &[]);
    let before = ask(&mut client, "one", 1);
    becomes(&mut client, before, "synced");
    // The callers are there already; they look at the database's setting themselves.
    run(&mut client, "ALTER DATABASE usher_test_call_held SET usher.outbound = off");
    let job = ask(&mut client, "one", 2);
    wait::until_true(&mut client, "SELECT EXISTS (SELECT FROM usher.queue_waiting WHERE waiting_for = 'external call')");
    // Another job goes through the same worker meanwhile, so the caller has been woken and has looked.
    flow(
        &mut client,
        "note",
        &json!({"from": "shop", "to": "books", "when": {"request": "note"}, "then": {"insert": "public.rows"},
                "set": {"id": "(job.payload->>'number')::integer"}}),
    );
    let note = enqueue(&mut client, "default", "shop", "books", &json!({"action": "note", "number": 1}));
    becomes(&mut client, note, "synced");
    assert_eq!(status(&mut client, job), "pending");
    assert_eq!(written(&mut client, "usher_held").len(), 1);
    run(&mut client, "ALTER DATABASE usher_test_call_held RESET usher.outbound");
    // The next call wakes them.
    let third = ask(&mut client, "one", 3);
    becomes(&mut client, job, "synced");
    becomes(&mut client, third, "synced");
}

/// Threads that take, lose, give back and finish jobs at the same time: nobody ever has a job that another one has.
#[test]
fn claimers_never_share_a_job() {
    let database = Database::create("usher_test_claims");
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT usher.create_system('mailer', 'external'), usher.create_system('shop');
         SELECT usher.create_organization('o' || n) FROM generate_series(1, 20) n;
         CREATE TABLE public.held (job uuid PRIMARY KEY, lease uuid);
         CREATE TABLE public.done (job uuid PRIMARY KEY)",
    );
    run(
        &mut client,
        "SELECT count(usher.enqueue_sync_job('o' || (1 + n % 20), 'shop', 'mailer', jsonb_build_object('n', n),
                                             (ARRAY['high', 'normal', 'low'])[1 + n % 3])) FROM generate_series(1, 600) n",
    );
    role(&mut client, "clients_admin", "LOGIN");
    run(&mut client, "GRANT usher_member TO clients_admin");
    run(&mut client, "SELECT usher.grant_membership('o' || n, 'role:clients_admin', 'admin') FROM generate_series(1, 10) n");
    let threads: Vec<_> = (0..8)
        .map(|seed| {
            let name = database.name.clone();
            thread::spawn(move || {
                // Half of them see all organizations, half the ten that they manage.
                let mut mine = usher_clients::connect(&name, if seed % 2 == 0 { None } else { Some("clients_admin") });
                let mut notes = usher_clients::connect(&name, None);
                let mut chance = Chance::new(seed);
                let mut counts: HashMap<&str, u32> = HashMap::new();
                loop {
                    // Lost ones are never entered as held: their lease is over when somebody else gets them.
                    let lost = chance.below(10) == 0;
                    let lease = if lost { "1 millisecond" } else { "10 minutes" };
                    let most = 1 + chance.below(7) as i32;
                    let sql = format!("SELECT job, lease, attempt FROM usher.claim_jobs('mailer', $1, '{lease}')");
                    let jobs = mine.query(&sql, &[&most]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
                    assert!(jobs.len() <= most as usize);
                    if jobs.is_empty() && number(&mut notes, "SELECT count(*) FROM usher.queue_waiting WHERE organization_id IN (SELECT organization_id FROM usher.memberships WHERE user_id = 'role:clients_admin')") == 0 {
                        return counts;
                    }
                    if lost {
                        *counts.entry("lost").or_default() += jobs.len() as u32;
                        continue;
                    }
                    for job in &jobs {
                        let (id, lease): (Uuid, Uuid) = (job.get(0), job.get(1));
                        notes.execute("INSERT INTO public.held VALUES ($1, $2)", &[&id, &lease]).expect("nobody else holds it");
                    }
                    for job in jobs {
                        let (id, lease): (Uuid, Uuid) = (job.get(0), job.get(1));
                        // The last try is always taken, so that no job dies.
                        let fail = job.get::<_, i32>(2) < 3 && chance.below(6) == 0;
                        notes.execute("DELETE FROM public.held WHERE job = $1 AND lease = $2", &[&id, &lease]).expect("held");
                        if fail {
                            mine.execute("SELECT usher.fail_job($1, $2, 'not now', '10 milliseconds')", &[&id, &lease]).expect("given back");
                        } else {
                            notes.execute("INSERT INTO public.done VALUES ($1)", &[&id]).expect("done once");
                            mine.execute("SELECT usher.finish_job($1, $2)", &[&id, &lease]).expect("finished");
                        }
                        *counts.entry(if fail { "failed" } else { "done" }).or_default() += 1;
                    }
                }
            })
        })
        .collect();
    let counts: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a claimer")).collect();
    println!("{counts:?}");
    // What the admin does not manage may be left by threads that stopped early; the rest of it is taken here.
    wait::until(LONG, "every job has ended", || {
        for job in client.query("SELECT job, lease FROM usher.claim_jobs('mailer', 100)", &[]).expect("claimed") {
            let (id, lease): (Uuid, Uuid) = (job.get(0), job.get(1));
            client.execute("INSERT INTO public.done VALUES ($1)", &[&id]).expect("done once");
            client.execute("SELECT usher.finish_job($1, $2)", &[&id, &lease]).expect("finished");
        }
        number(&mut client, "SELECT count(*) FROM usher.queue_waiting") == 0
    });
    let ended = text(
        &mut client,
        "SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) n FROM usher.sync_jobs GROUP BY 1) s",
    );
    let dead = number(&mut client, "SELECT count(*) FROM usher.dead_letters");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done") + dead, 600, "{ended}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.job_history"), 600 - dead, "{ended}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.held"), 0);
}

#[test]
fn a_lease_that_ends_returns_the_job() {
    let database = Database::create("usher_test_lease");
    let mut client = database.connect();
    run(&mut client, "SELECT usher.create_system('mailer', 'external'), usher.create_system('shop')");
    let job = enqueue(&mut client, "default", "shop", "mailer", &json!({"n": 1}));
    let claim = |client: &mut Client, lease: &str| -> Option<(Uuid, i32)> {
        client
            .query(&format!("SELECT lease, attempt FROM usher.claim_jobs('mailer', 1, '{lease}')"), &[])
            .expect("a claim")
            .first()
            .map(|row| (row.get(0), row.get(1)))
    };
    let mut attempts = Vec::new();
    let mut leases = Vec::new();
    // Lost three times; while a lease runs nobody gets it.
    for _ in 0..3 {
        let (lease, attempt) = wait::poll(LONG, || claim(&mut client, "1 millisecond")).expect("the job is there again");
        leases.push(lease);
        attempts.push(attempt);
    }
    let (lease, attempt) = wait::poll(LONG, || claim(&mut client, "1 hour")).expect("the job is there again");
    assert_eq!((attempts.as_slice(), attempt), (&[1, 2, 3][..], 4));
    assert_eq!(claim(&mut client, "1 hour"), None);
    // An answer under an old lease is refused, and harms nothing.
    for old in &leases {
        for sql in ["finish_job($1, $2)", "fail_job($1, $2, 'late')", "extend_lease($1, $2, '1 h')"] {
            let error = client.query(&format!("SELECT usher.{sql}"), &[&job, old]).expect_err("an old lease").code().cloned();
            assert_eq!(error, Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{sql}");
        }
    }
    assert_eq!(status(&mut client, job), "in_progress");
    // The lease survives the server, and so does its holder's right to answer.
    let mut client = server::crash(&database);
    assert_eq!(claim(&mut client, "1 hour"), None);
    client.query("SELECT usher.finish_job($1, $2)", &[&job, &lease]).expect("the job is finished");
    assert_eq!(status(&mut client, job), "synced");

    // Lost at the last try: dead, and retried it can be taken again with all its tries.
    let job = enqueue(&mut client, "default", "shop", "mailer", &json!({"n": 2}));
    for _ in 0..4 {
        wait::poll(LONG, || claim(&mut client, "1 millisecond")).expect("the job is there again");
    }
    wait::until(LONG, "it is dead", || claim(&mut client, "1 hour").is_none() && status(&mut client, job) == "dead");
    let reason = text(&mut client, &format!("SELECT error_message FROM usher.sync_jobs WHERE id = '{job}'"));
    assert!(reason.contains("no answer within its lease"), "{reason}");
    run(&mut client, &format!("SELECT usher.retry_sync_job('{job}')"));
    let (lease, attempt) = wait::poll(LONG, || claim(&mut client, "1 hour")).expect("it can be taken again");
    assert_eq!(attempt, 1);
    run(&mut client, &format!("SELECT usher.cancel_sync_job('{job}')"));
    let error = refused(&mut client, &format!("SELECT usher.finish_job('{job}', '{lease}')"));
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(status(&mut client, job), "cancelled");
}
